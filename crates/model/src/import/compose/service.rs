//! One service of a compose file.

use super::values::{self, asked_path, command_line, duration, kind_of_image};
use super::{Reader, Service};
use crate::import::write::{Map, Yaml, plain, text};
use crate::import::{ImportError, shorten};
use crate::text::{Entry, Node};

/// Chains of `extends` longer than this are a circle or a riddle.
const EXTENDS_MAX: usize = 16;
/// More instances of one service are a typing error.
const REPLICAS_MAX: u32 = 10_000;

/// A service's keys, those it `extends` in the same file included. `None` if it is no mapping.
pub(super) fn effective<'n>(
    reader: &mut Reader,
    all: &'n [Entry],
    entry: &'n Entry,
    path: &str,
) -> Result<Option<Vec<(&'n str, &'n Node)>>, ImportError> {
    let mut keys: Vec<(&str, &Node)> = Vec::new();
    let mut current = entry;
    for _ in 0..EXTENDS_MAX {
        if current.value.is_null() {
            return Ok(Some(keys));
        }
        let Some(map) = current.value.as_map() else { return Ok(None) };
        for it in &map.entries {
            // A service's own keys win over those it extends; dependencies are never inherited.
            let inherited = !std::ptr::eq(current, entry);
            let never = inherited && matches!(&*it.key, "depends_on" | "links" | "volumes_from");
            if &*it.key != "extends" && !never && !keys.iter().any(|(key, _)| *key == &*it.key) {
                keys.push((&it.key, &it.value));
            }
        }
        let Some(extends) = map.get("extends") else { return Ok(Some(keys)) };
        let path = format!("{path}.extends");
        let file = extends.as_map().and_then(|it| it.get("file"));
        if let Some(file) = file {
            let file = file.as_str().map(shorten).unwrap_or_default();
            reader.drop(
                path,
                format!("what it takes from {file} is not here: import that file and merge the two"),
            );
            return Ok(Some(keys));
        }
        let base = extends.as_map().and_then(|it| it.get("service")).unwrap_or(extends);
        let base = base.as_str().unwrap_or_default();
        let Some(next) = all.iter().find(|it| &*it.key == base) else {
            let problem = format!("no service is called `{}`", shorten(base));
            return Err(ImportError::wrong(path, problem, "name a service of this file"));
        };
        current = next;
    }
    let fix = "let a service extend one that does not extend it in turn";
    Err(ImportError::wrong(format!("{path}.extends"), "services extend each other without end", fix))
}

/// What was read of a service, before it is clear whether it can be run.
#[derive(Default)]
struct Parts<'n> {
    image: Option<&'n Node>,
    build: Option<&'n Node>,
    command: Option<&'n Node>,
    entrypoint: Option<&'n Node>,
    environment: Option<&'n Node>,
    env_file: Option<&'n Node>,
    health: Option<&'n Node>,
    stop: Option<&'n Node>,
}

pub(super) fn read(reader: &mut Reader, path: &str, keys: &[(&str, &Node)]) -> Service {
    let mut service = Service::default();
    let mut parts = Parts::default();
    for &(key, node) in keys {
        let path = format!("{path}.{}", shorten(key));
        match key {
            _ if node.is_null() => {} // `key:` with nothing behind it says nothing.
            "image" => parts.image = Some(node),
            "build" => parts.build = Some(node),
            "command" => parts.command = Some(node),
            "entrypoint" => parts.entrypoint = Some(node),
            "environment" => parts.environment = Some(node),
            "env_file" => parts.env_file = Some(node),
            "healthcheck" => parts.health = Some(node),
            "stop_grace_period" => parts.stop = Some(node),
            "ports" => read_ports(reader, &path, node, &mut service),
            "deploy" => read_deploy(reader, &path, node, &mut service),
            "scale" => service.replicas = replicas(reader, &path, node).or(service.replicas),
            "depends_on" => read_depends_on(reader, &path, node, &mut service),
            "links" => {
                for link in texts(reader, &path, node) {
                    let name = link.split(':').next().unwrap_or_default();
                    service.calls.push(name.to_string());
                }
            }
            "labels" => {
                for (key, value) in pairs(reader, &path, node) {
                    service.labels.push((key, value.unwrap_or_default()));
                }
            }
            "profiles" => {
                let profiles = texts(reader, &path, node).join(", ");
                service.labels.push(("compose.profiles".into(), profiles));
                reader.drop(
                    path,
                    "isobar has no profiles: the service is always part of the system (a label keeps them)",
                );
            }
            _ => reader.drop(path, why_dropped(key)),
        }
    }
    let image = parts.image.and_then(|node| node.as_str());
    service.kind = image.filter(|_| parts.build.is_none()).and_then(kind_of_image);
    if let Some(image) = image {
        if let Err(variable) = values::settle(image) {
            let reason = format!(
                "the label keeps it as written: it depends on the environment (`{}`)",
                shorten(&variable)
            );
            reader.drop(format!("{path}.image"), reason);
        }
        service.labels.insert(0, ("compose.image".into(), image.to_string()));
    }
    read_run(reader, path, &parts, &mut service);
    read_health(reader, path, &parts, &mut service);
    service
}

fn why_dropped(key: &str) -> &'static str {
    match key {
        "container_name" | "hostname" | "domainname" | "mac_address" => "isobar names instances itself",
        "restart" => "isobar starts again what ends",
        "networks" | "network_mode" | "net" | "dns" | "dns_search" | "dns_opt" | "extra_hosts"
        | "external_links" => {
            "every service reaches what it calls through its own proxy: there are no networks"
        }
        "volumes" | "volumes_from" | "tmpfs" | "devices" | "storage_opt" => {
            "processes use the machine's own files"
        }
        "configs" | "secrets" => "processes read their own files: give paths in `run.env`",
        "logging" | "log_driver" | "log_opt" | "attach" => "isobar keeps the output of every service",
        "expose" => "ports inside are allocated: a program is told its own in `$PORT`",
        "working_dir" => "a folder inside the image: say `run.dir`",
        "stop_signal" => "isobar stops with SIGTERM, then SIGKILL",
        "develop" => "say `run.watch`",
        "provider" | "models" | "use_api_socket" | "gpus" => "not something isobar runs",
        "post_start" | "pre_stop" => "isobar runs no hooks",
        it if it.starts_with("x-") => "an extension of compose",
        "cap_add"
        | "cap_drop"
        | "cgroup"
        | "cgroup_parent"
        | "cpu_count"
        | "cpu_percent"
        | "cpu_period"
        | "cpu_quota"
        | "cpu_rt_period"
        | "cpu_rt_runtime"
        | "cpu_shares"
        | "cpus"
        | "cpuset"
        | "credential_spec"
        | "device_cgroup_rules"
        | "group_add"
        | "init"
        | "ipc"
        | "isolation"
        | "mem_limit"
        | "mem_reservation"
        | "mem_swappiness"
        | "memswap_limit"
        | "oom_kill_disable"
        | "oom_score_adj"
        | "pid"
        | "pids_limit"
        | "platform"
        | "privileged"
        | "pull_policy"
        | "read_only"
        | "runtime"
        | "security_opt"
        | "shm_size"
        | "stdin_open"
        | "sysctls"
        | "tty"
        | "ulimits"
        | "user"
        | "userns_mode"
        | "uts"
        | "annotations"
        | "blkio_config"
        | "label_file" => "a setting of containers: isobar starts processes",
        _ => "not a key that compose or isobar know",
    }
}

/// A program isobar can start needs the source it is made from and the command that starts it; an image has both only
/// inside.
fn read_run(reader: &mut Reader, path: &str, parts: &Parts<'_>, service: &mut Service) {
    let synthetic = "isobar starts processes, not containers: the service is synthetic until it gets a `run` or `endpoints`";
    let Some(build) = parts.build else {
        let at = if parts.image.is_some() { format!("{path}.image") } else { path.to_string() };
        reader.drop(at, synthetic);
        drop_run_parts(reader, path, parts);
        return;
    };
    let context = match build.as_map() {
        Some(map) => {
            for it in map.entries.iter().filter(|it| &*it.key != "context" && !it.value.is_null()) {
                reader.drop(
                    format!("{path}.build.{}", shorten(&it.key)),
                    "how an image is built: say `run.build` if a program is",
                );
            }
            map.get("context").and_then(|it| reader.settled_node(&format!("{path}.build.context"), it))
        }
        None => reader.settled_node(&format!("{path}.build"), build),
    };
    let entrypoint = parts.entrypoint.and_then(|node| words(reader, &format!("{path}.entrypoint"), node));
    let command = parts.command.and_then(|node| words(reader, &format!("{path}.command"), node));
    let line = match (entrypoint, command, parts.command) {
        (None, None, _) | (Some(_), None, Some(_)) => None,
        (None, command, _) => command,
        (Some(entrypoint), command, _) => {
            Some([entrypoint, command.unwrap_or_default()].join(" ").trim().to_string())
        }
    };
    let Some(line) = line.filter(|it| !it.trim().is_empty()) else {
        reader.drop(
            format!("{path}.build"),
            format!("the command that starts it is in the image: {synthetic}"),
        );
        drop_run_parts(reader, path, parts);
        return;
    };
    let mut run = Map::new();
    let notes = match parts.entrypoint {
        None => vec!["if the image has an entrypoint, it belongs in front".to_string()],
        Some(_) => Vec::new(),
    };
    run.add_noted(notes, "command", text(line));
    if let Some(dir) = context.filter(|it| !it.trim().is_empty() && it != ".") {
        // A build may come from a repository elsewhere.
        if dir.contains("://") || dir.starts_with("git@") {
            reader.drop(
                format!("{path}.build.context"),
                "it is fetched from elsewhere: clone it and say `run.dir`",
            );
        } else {
            run.add("dir", text(dir));
        }
    }
    if let Some(node) = parts.environment {
        let mut env = Map::new();
        let path = format!("{path}.environment");
        for (key, value) in pairs(reader, &path, node) {
            match value {
                Some(_) if key.is_empty() || key.contains(['=', '\0']) => {
                    reader
                        .drop(path.as_str(), format!("`{}` cannot be the name of a variable", shorten(&key)));
                }
                Some(value) => env.add(key, text(value)),
                None => reader.drop(format!("{path}.{}", shorten(&key)), "its value is the environment's"),
            }
        }
        if !env.is_empty() {
            run.add("env", Yaml::Map(env));
        }
    }
    if let Some(node) = parts.env_file {
        let files = env_files(reader, &format!("{path}.env_file"), node);
        if !files.is_empty() {
            run.add("env_file", Yaml::List(files.into_iter().map(text).collect()));
        }
    }
    if let Some(port) = service.published.first().map(|it| it.target).filter(|it| *it > 0) {
        run.add("port", plain(port));
    }
    if let Some(node) = parts.stop {
        match node.as_str().and_then(duration) {
            Some(time) => run.add("stop_timeout", plain(time)),
            None => reader.drop(format!("{path}.stop_grace_period"), "not a duration that can be read"),
        }
    }
    service.run = Some(run);
}

/// What belongs to a program that is not there.
fn drop_run_parts(reader: &mut Reader, path: &str, parts: &Parts<'_>) {
    for (key, node) in [
        ("command", parts.command),
        ("entrypoint", parts.entrypoint),
        ("environment", parts.environment),
        ("env_file", parts.env_file),
        ("stop_grace_period", parts.stop),
    ] {
        let Some(node) = node else { continue };
        let count = node.as_map().map(|it| it.entries.len()).or(node.as_seq().map(<[Node]>::len));
        let reason = match (key, count) {
            ("environment", Some(1)) => "1 variable, for `run.env` once there is a `run`".to_string(),
            ("environment", Some(count)) => format!("{count} variables, for `run.env` once there is a `run`"),
            _ => "belongs into `run` once there is one".to_string(),
        };
        reader.drop(format!("{path}.{key}"), reason);
    }
}

fn read_health(reader: &mut Reader, path: &str, parts: &Parts<'_>, service: &mut Service) {
    let Some(node) = parts.health else { return };
    let path = format!("{path}.healthcheck");
    let Some(map) = node.as_map() else {
        return reader.drop(path, format!("expected a mapping, found {}", node.describe()));
    };
    let test = map.get("test");
    let words: Vec<&str> = match test.map(|it| (it.as_seq(), it.as_str())) {
        Some((Some(items), _)) => items.iter().filter_map(Node::as_str).collect(),
        Some((_, Some(line))) => vec!["CMD-SHELL", line],
        _ => Vec::new(),
    };
    let disabled = map.get("disable").and_then(Node::as_str) == Some("true");
    if disabled || words.first() == Some(&"NONE") {
        service.health = Some(plain("none"));
        return;
    }
    let asked: Vec<&str> = match words.first() {
        Some(&"CMD") => words[1..].to_vec(),
        // A shell line counts only if it is one plain command.
        Some(&"CMD-SHELL") => words.get(1).map_or(Vec::new(), |line| {
            let line = line.trim().trim_end_matches("|| exit 1").trim();
            line.split_whitespace().collect()
        }),
        _ => words.clone(),
    };
    let mut health = Map::new();
    if let Some(path) = asked_path(&asked).filter(|_| service.kind.is_none()) {
        health.add("path", text(path));
    } else if test.is_some() {
        let line = match words.first() {
            Some(&"CMD") => command_line(&words[1..].iter().map(|it| (*it).to_string()).collect::<Vec<_>>()),
            Some(&"CMD-SHELL") => words.get(1).map_or(String::new(), |it| (*it).to_string()),
            _ => command_line(&words.iter().map(|it| (*it).to_string()).collect::<Vec<_>>()),
        };
        let test_path = format!("{path}.test");
        if service.run.is_none() {
            reader.drop(
                test_path,
                "a command inside the image: the service is checked by connecting to it instead",
            );
        } else if let Some(line) = reader.settled(&test_path, &line).filter(|it| !it.is_empty()) {
            let line = match words.first() {
                Some(&"CMD-SHELL") => command_line(&["sh".into(), "-c".into(), line]),
                _ => line,
            };
            health.add("command", text(line));
        }
    }
    for it in &map.entries {
        let path = format!("{path}.{}", shorten(&it.key));
        let ours = match &*it.key {
            "test" | "disable" => continue,
            "interval" => "every",
            "timeout" => "timeout",
            "start_period" => "startup",
            "retries" => {
                let retries = it
                    .value
                    .as_str()
                    .and_then(|it| it.parse::<u32>().ok())
                    .filter(|it| (1..=1_000).contains(it));
                match retries {
                    Some(retries) => health.add("unhealthy_after", plain(retries)),
                    None => reader.drop(path, "not a number of checks"),
                }
                continue;
            }
            _ => {
                reader.drop(path, "isobar's checks have no such setting");
                continue;
            }
        };
        let Some(written) = it.value.as_str() else {
            reader.drop(path, "not a duration");
            continue;
        };
        let Some(settled) = reader.settled(&path, written) else { continue };
        match duration(&settled).filter(|it| !it.is_zero()) {
            Some(time) => health.add(ours, plain(time)),
            None => reader.drop(path, format!("`{}` is not a duration above zero", shorten(&settled))),
        }
    }
    if !health.is_empty() {
        service.health = Some(Yaml::Map(health));
    }
}

fn read_ports(reader: &mut Reader, path: &str, node: &Node, service: &mut Service) {
    let Some(items) = node.as_seq() else {
        return reader.drop(path, format!("expected a list, found {}", node.describe()));
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let found = if let Some(map) = item.as_map() {
            let field = |key: &str| map.get(key).filter(|it| !it.is_null()).and_then(Node::as_str);
            let joined = [field("published"), field("target"), field("host_ip")];
            if let Some(bad) = joined.iter().flatten().find(|it| values::settle(it).is_err()) {
                reader.drop(path, format!("`{}` depends on the environment", shorten(bad)));
                continue;
            }
            match (field("protocol").unwrap_or("tcp"), field("published"), field("target")) {
                ("tcp", Some(published), Some(target)) => {
                    values::published_at(field("host_ip"), published, target)
                }
                ("tcp", _, _) => {
                    Err("the machine's port is left to chance: give a gateway one yourself".into())
                }
                (protocol, _, _) => Err(format!("gateways do not speak {}", shorten(protocol))),
            }
        } else {
            let Some(text) = reader.settled_node(&path, item) else { continue };
            values::ports(&text)
        };
        match found {
            Ok(published) => service.published.extend(published),
            Err(reason) => reader.drop(path, reason),
        }
    }
}

fn replicas(reader: &mut Reader, path: &str, node: &Node) -> Option<u32> {
    let text = reader.settled_node(path, node)?;
    let count = text.parse::<u32>().ok().filter(|it| *it <= REPLICAS_MAX);
    match count {
        None => reader
            .drop(path, format!("`{}` is not a number of instances up to {REPLICAS_MAX}", shorten(&text))),
        Some(0) => reader
            .drop(path, "no instance at all: here it has one, because a service without any answers nobody"),
        Some(_) => {}
    }
    count.filter(|it| *it > 0)
}

fn read_deploy(reader: &mut Reader, path: &str, node: &Node, service: &mut Service) {
    let Some(map) = node.as_map() else {
        return reader.drop(path, format!("expected a mapping, found {}", node.describe()));
    };
    for it in &map.entries {
        let path = format!("{path}.{}", shorten(&it.key));
        match &*it.key {
            "replicas" => service.replicas = replicas(reader, &path, &it.value).or(service.replicas),
            "mode" if it.value.as_str() == Some("replicated") => {}
            "mode" => reader.drop(path, "one for each machine: say how many `replicas` that is"),
            "resources" => {
                reader.drop(path, "isobar sets no limits of memory or processor: say `concurrency`")
            }
            "placement" => reader.drop(path, "say `places` and `replicas` for each"),
            "update_config" | "rollback_config" => reader.drop(path, "releases are `isobar rollout`'s"),
            "restart_policy" => reader.drop(path, "isobar starts again what ends"),
            "endpoint_mode" => reader.drop(path, "every service reaches what it calls through its own proxy"),
            "labels" => reader.drop(path, "labels of a deployment, not of the service"),
            _ => reader.drop(path, "not a key that compose or isobar know"),
        }
    }
}

fn read_depends_on(reader: &mut Reader, path: &str, node: &Node, service: &mut Service) {
    let Some(map) = node.as_map() else {
        let names = texts(reader, path, node);
        service.needs.extend(names.into_iter().map(|name| (name, "started")));
        return;
    };
    for it in &map.entries {
        let path = format!("{path}.{}", shorten(&it.key));
        let condition = it.value.as_map().and_then(|it| it.get("condition")).and_then(Node::as_str);
        let until = match condition {
            None | Some("service_started") => "started",
            Some("service_healthy") => "healthy",
            Some("service_completed_successfully") => "completed",
            Some(other) => {
                reader.drop(
                    path.as_str(),
                    format!("`{}` is no condition of compose: it waits for a start", shorten(other)),
                );
                "started"
            }
        };
        for (key, reason) in [
            ("required", "here what is needed is always required"),
            ("restart", "isobar restarts no service because another was"),
        ] {
            let says = it.value.as_map().and_then(|it| it.get(key)).and_then(Node::as_str);
            if says == Some(if key == "required" { "false" } else { "true" }) {
                reader.drop(format!("{path}.{key}"), reason);
            }
        }
        service.needs.push((it.key.to_string(), until));
    }
}

/// A list of texts, or a single one; what depends on the environment is listed and left out.
fn texts(reader: &mut Reader, path: &str, node: &Node) -> Vec<String> {
    match node.as_seq() {
        Some(items) => {
            let each = items.iter().enumerate();
            each.filter_map(|(index, it)| reader.settled_node(&format!("{path}[{index}]"), it)).collect()
        }
        None => reader.settled_node(path, node).into_iter().collect(),
    }
}

/// `KEY: value` or `- KEY=value`; without a value the environment has it.
fn pairs(reader: &mut Reader, path: &str, node: &Node) -> Vec<(String, Option<String>)> {
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    let mut add = |key: String, value: Option<String>| {
        if key == "<<" {
            return; // Not a name in any program, and a merge key to every reader of YAML.
        }
        // Written twice, the last one counts.
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, value));
    };
    if let Some(map) = node.as_map() {
        for it in &map.entries {
            let path = format!("{path}.{}", shorten(&it.key));
            if it.value.is_null() {
                add(it.key.to_string(), None);
            } else if let Some(value) = reader.settled_node(&path, &it.value) {
                add(it.key.to_string(), Some(value));
            }
        }
    } else if let Some(items) = node.as_seq() {
        for (index, item) in items.iter().enumerate() {
            let Some(written) = item.as_str() else {
                reader.drop(
                    format!("{path}[{index}]"),
                    format!("expected `KEY=value`, found {}", item.describe()),
                );
                continue;
            };
            match written.split_once('=') {
                Some((key, value)) => {
                    if let Some(value) = reader.settled(&format!("{path}.{}", shorten(key)), value) {
                        add(key.to_string(), Some(value));
                    }
                }
                None => add(written.to_string(), None),
            }
        }
    } else {
        reader.drop(path, format!("expected a mapping or a list, found {}", node.describe()));
    }
    pairs
}

/// `env_file` is a path, a list of paths, or a list of `{path, required}`.
fn env_files(reader: &mut Reader, path: &str, node: &Node) -> Vec<String> {
    let items = node.as_seq().unwrap_or(std::slice::from_ref(node));
    let mut files = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match item.as_map() {
            Some(map) => {
                if map.get("required").and_then(Node::as_str) == Some("false") {
                    reader.drop(format!("{path}.required"), "here a file that is named must be there");
                }
                files.extend(map.get("path").and_then(|it| reader.settled_node(&path, it)));
            }
            None => files.extend(reader.settled_node(&path, item)),
        }
    }
    // An empty name comes of a variable that was written without its dollar; no file is meant.
    files.retain(|it| !it.trim().is_empty());
    files
}

/// A command as one line: a text as it stands, or a list of words.
fn words(reader: &mut Reader, path: &str, node: &Node) -> Option<String> {
    match node.as_seq() {
        None => reader.settled_node(path, node),
        Some(items) => {
            let mut words = Vec::new();
            for item in items {
                words.push(reader.settled_node(path, item)?);
            }
            Some(command_line(&words))
        }
    }
}
