//! Docker compose files: the first format (services at the top), versions 2 and 3, and the present specification.
//!
//! isobar starts processes, not containers. A service with a `build` context and a command becomes a `run`; one that
//! is only an image becomes synthetic, its image kept as a label, and the list of what was dropped says so. What
//! depends on the environment (`${TAG:-latest}`) is listed, never looked up: the environment of the machine that
//! imports says nothing about the one that runs.

mod service;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use super::names::Names;
use super::spigo::with_dropped;
use super::write::{Map, Yaml, document, plain, text};
use super::{Dropped, ImportError, Imported, shorten, text_of};
use crate::diagnostic::Severity;
use crate::span::{Source, Sources};
use crate::text::{Entry, Limits, Node, Tags, parse};

/// `default_name` names the system if the file does not: compose uses its folder's name.
pub fn import(bytes: &[u8], default_name: &str) -> Result<Imported, ImportError> {
    let source = text_of(bytes)?;
    let parsed = parse(0, source, Tags::Collect, &mut Limits::default());
    if parsed.diagnostics.iter().any(|it| it.severity == Severity::Error) {
        let files = vec![Source { path: "compose.yaml".into(), text: source.to_string() }];
        return Err(ImportError::Text { sources: Sources { files }, diagnostics: parsed.diagnostics });
    }
    let fix = "a compose file is a mapping with `services`";
    let Some(root) = parsed.root else { return Err(ImportError::wrong("", "the file is empty", fix)) };
    let Some(map) = root.as_map() else {
        return Err(ImportError::wrong("", format!("the file holds {}", root.describe()), fix));
    };

    let mut reader = Reader::default();
    for (_, tag) in &parsed.tags {
        reader.drop(shorten(tag), "a tag of compose's own: what it changes is not changed here");
    }
    let mut system = None;
    let services = match map.get("services") {
        Some(services) => {
            for entry in map.entries.iter().filter(|it| &*it.key != "services") {
                reader.top_level(entry, &mut system);
            }
            let Some(services) = services.as_map() else {
                let problem =
                    format!("expected a mapping of names to services, found {}", services.describe());
                return Err(ImportError::wrong("services", problem, "write `services: {web: {image: ...}}`"));
            };
            &services.entries
        }
        // The first format had no `services`.
        None if map.entries.iter().any(is_service_of_old) => &map.entries,
        None => return Err(ImportError::wrong("services", "there are none", fix)),
    };
    if services.is_empty() {
        return Err(ImportError::wrong("services", "there are none", fix));
    }
    reader.services(services)?;
    reader.break_circles();

    let system = Names::default().give(system.as_deref().unwrap_or(default_name));
    let out = reader.write(&system);
    let head = vec!["Imported from a compose file.".to_string()];
    Ok(Imported { text: document(&with_dropped(head, &reader.dropped), &out), dropped: reader.dropped })
}

fn is_service_of_old(entry: &Entry) -> bool {
    entry.value.as_map().is_some_and(|it| it.get("image").is_some() || it.get("build").is_some())
}

/// The arrows that close a circle, found by walking: without them there is none.
fn closing(next: &[Vec<usize>]) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; next.len()];
    let mut closing = Vec::new();
    for start in 0..next.len() {
        if state[start] != State::New {
            continue;
        }
        state[start] = State::Open;
        let mut path = vec![(start, 0)];
        while let Some((at, step)) = path.last_mut() {
            let at = *at;
            let Some(&to) = next[at].get(*step) else {
                state[at] = State::Done;
                path.pop();
                continue;
            };
            *step += 1;
            match state[to] {
                State::New => {
                    state[to] = State::Open;
                    path.push((to, 0));
                }
                State::Open => closing.push((at, to)),
                State::Done => {}
            }
        }
    }
    closing
}

/// What a service becomes.
#[derive(Debug, Default)]
struct Service {
    compose_name: String,
    /// In our file.
    name: String,
    kind: Option<&'static str>,
    replicas: Option<u32>,
    run: Option<Map>,
    health: Option<Yaml>,
    /// In compose's names: what it calls, and what it waits for until when.
    calls: Vec<String>,
    needs: Vec<(String, &'static str)>,
    labels: Vec<(String, String)>,
    published: Vec<values::Published>,
}

#[derive(Default)]
struct Reader {
    dropped: Vec<Dropped>,
    services: Vec<Service>,
    /// From compose's name to the service's index.
    index_of: BTreeMap<String, usize>,
}

impl Reader {
    fn drop(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.dropped.push(Dropped::new(path, reason));
    }

    fn top_level(&mut self, entry: &Entry, system: &mut Option<String>) {
        let key = shorten(&entry.key);
        let reason = match &*entry.key {
            "version" => return, // Says nothing any more, in compose either.
            "name" => {
                *system = entry.value.as_str().and_then(|it| self.settled("name", it));
                return;
            }
            "networks" => "every service reaches what it calls through its own proxy: there are no networks",
            "volumes" => "processes use the machine's own files",
            "configs" | "secrets" => "processes read their own files: give paths in `run.env`",
            "include" => "import each file by itself and `include` the results",
            it if it.starts_with("x-") => {
                "an extension of compose: its anchors were followed where they are used"
            }
            _ => "not a key that compose or isobar know",
        };
        match entry
            .value
            .as_map()
            .filter(|_| matches!(&*entry.key, "networks" | "volumes" | "configs" | "secrets"))
        {
            Some(map) => {
                let names: Vec<String> = map.entries.iter().take(12).map(|it| shorten(&it.key)).collect();
                self.drop(key, format!("{} ({reason})", names.join(", ")));
            }
            None => self.drop(key, reason),
        }
    }

    fn services(&mut self, entries: &[Entry]) -> Result<(), ImportError> {
        let mut names = Names::default();
        for (index, entry) in entries.iter().enumerate() {
            self.index_of.insert(entry.key.to_string(), index);
        }
        for entry in entries {
            let path = format!("services.{}", shorten(&entry.key));
            let Some(keys) = service::effective(self, entries, entry, &path)? else {
                let problem = format!("expected a mapping, found {}", entry.value.describe());
                return Err(ImportError::wrong(path, problem, "write `web: {image: nginx}`"));
            };
            let name = names.give(&entry.key);
            if *name != *entry.key {
                let reason = "names are letters, digits, `-`, `_` and `.`, and begin with a letter or digit";
                self.drop(path.as_str(), format!("called `{name}` here: {reason}"));
            }
            let mut service = service::read(self, &path, &keys);
            service.compose_name = entry.key.to_string();
            service.name = name;
            self.services.push(service);
        }
        // Now that all are known, what names none of them goes.
        for index in 0..self.services.len() {
            let own = self.services[index].compose_name.clone();
            let path = format!("services.{}", shorten(&own));
            let (calls, needs) = (
                std::mem::take(&mut self.services[index].calls),
                std::mem::take(&mut self.services[index].needs),
            );
            let mut seen = BTreeSet::new();
            for call in calls {
                if !self.index_of.contains_key(&call) {
                    self.drop(format!("{path}.links"), format!("no service is called `{}`", shorten(&call)));
                } else if seen.insert(call.clone()) {
                    self.services[index].calls.push(call);
                }
            }
            let mut seen = BTreeSet::new();
            for (need, until) in needs {
                if !self.index_of.contains_key(&need) {
                    let reason = format!("no service is called `{}`", shorten(&need));
                    self.drop(format!("{path}.depends_on"), reason);
                } else if need == own {
                    self.drop(format!("{path}.depends_on"), "a service cannot wait for itself to start");
                } else if seen.insert(need.clone()) {
                    self.services[index].needs.push((need, until));
                }
            }
        }
        self.mark_jobs();
        Ok(())
    }

    /// What others wait for until it has ended is a job. What cannot be run cannot end either.
    fn mark_jobs(&mut self) {
        let mut awaited = BTreeSet::new();
        let mut dropped = Vec::new();
        for index in 0..self.services.len() {
            for at in 0..self.services[index].needs.len() {
                let (need, until) = self.services[index].needs[at].clone();
                let to = self.index_of[&need];
                if until != "completed" {
                    continue;
                }
                if self.services[to].run.is_some() {
                    awaited.insert(to);
                } else {
                    self.services[index].needs[at].1 = "started";
                    let path = format!("services.{}.depends_on", shorten(&self.services[index].compose_name));
                    dropped.push((
                        path,
                        format!(
                            "`{}` has no `run` yet and so never completes: its start is waited for",
                            shorten(&need)
                        ),
                    ));
                }
            }
        }
        for (path, reason) in dropped {
            self.drop(path, reason);
        }
        for to in awaited {
            if let Some(run) = &mut self.services[to].run {
                run.add("job", plain(true));
            }
        }
    }

    /// compose refuses services that wait for each other, or are linked, in a circle; here what closes one is dropped.
    fn break_circles(&mut self) {
        let waits: Vec<Vec<usize>> = self
            .services
            .iter()
            .map(|it| it.needs.iter().map(|(need, _)| self.index_of[need]).collect())
            .collect();
        for (at, to) in closing(&waits) {
            let need = self.services[to].compose_name.clone();
            self.services[at].needs.retain(|(name, _)| *name != need);
            let path = format!("services.{}.depends_on", shorten(&self.services[at].compose_name));
            self.drop(path, format!("`{}` waits for it in turn: neither could start", shorten(&need)));
        }
        let links: Vec<Vec<usize>> = self
            .services
            .iter()
            .map(|it| it.calls.iter().map(|call| self.index_of[call]).collect())
            .collect();
        for (at, to) in closing(&links) {
            let call = self.services[to].compose_name.clone();
            self.services[at].calls.retain(|name| *name != call);
            let path = format!("services.{}.links", shorten(&self.services[at].compose_name));
            self.drop(path, format!("`{}` is linked back to it: such calls would never end", shorten(&call)));
        }
    }

    fn write(&mut self, system: &str) -> Map {
        let mut root = Map::new();
        root.add("isobar", plain(1));
        root.add("system", text(system));
        let mut entries = Map::new();
        for service in &self.services {
            entries.add(service.name.clone(), Yaml::Map(self.entry(service)));
        }
        root.add("services", Yaml::Map(entries));

        let mut names = Names::default();
        self.services.iter().for_each(|it| drop(names.give(&it.name)));
        let mut gateways = Map::new();
        let mut listening = BTreeSet::new();
        let mut refused = Vec::new();
        for service in &self.services {
            for published in &service.published {
                let path = format!("services.{}.ports", shorten(&service.compose_name));
                let port = published.address.port();
                if let Some(kind) = service.kind {
                    refused.push((
                        path,
                        format!("port {port} is published, but gateways speak HTTP and this is a {kind}"),
                    ));
                } else if !listening.insert(published.address) {
                    refused.push((path, format!("another service listens on {} already", published.address)));
                } else {
                    let mut route = Map::new();
                    route.add("path", text("/"));
                    route.add("to", text(service.name.clone()));
                    let mut gateway = Map::new();
                    gateway.add("listen", text(published.address.to_string()));
                    gateway.add("routes", Yaml::List(vec![Yaml::Map(route)]));
                    gateways.add(names.give(&format!("{}-{port}", service.name)), Yaml::Map(gateway));
                }
            }
        }
        for (path, reason) in refused {
            self.drop(path, reason);
        }
        if !gateways.is_empty() {
            root.add_noted(vec!["what was published".into()], "gateways", Yaml::Map(gateways));
        }
        root
    }

    fn entry(&self, service: &Service) -> Map {
        let named = |compose_name: &String| text(self.services[self.index_of[compose_name]].name.clone());
        let mut entry = Map::new();
        if let Some(kind) = service.kind {
            entry.add("kind", plain(kind));
        }
        if let Some(replicas) = service.replicas {
            entry.add("replicas", plain(replicas));
        }
        if let Some(run) = &service.run {
            entry.add("run", Yaml::Map(run.clone()));
        }
        if let Some(health) = &service.health {
            entry.add("health", health.clone());
        }
        if !service.calls.is_empty() {
            let mut operation = Map::new();
            operation.add("calls", Yaml::List(service.calls.iter().map(named).collect()));
            let mut operations = Map::new();
            operations.add(if service.kind.is_none() { "GET /" } else { "request" }, Yaml::Map(operation));
            let note = "from links: what it asks them for, compose does not say";
            entry.add_noted(vec![note.into()], "operations", Yaml::Map(operations));
        }
        if !service.needs.is_empty() {
            let need = |(name, until): &(String, &'static str)| match *until {
                "healthy" => named(name),
                until => {
                    let mut map = Map::new();
                    map.add(self.services[self.index_of[name]].name.clone(), plain(until));
                    Yaml::Map(map)
                }
            };
            entry.add("needs", Yaml::List(service.needs.iter().map(need).collect()));
        }
        if !service.labels.is_empty() {
            let mut labels = Map::new();
            let mut seen = BTreeSet::new();
            for (key, value) in service.labels.iter().filter(|(key, _)| seen.insert(key.clone())) {
                labels.add(key.clone(), text(value.clone()));
            }
            entry.add("labels", Yaml::Map(labels));
        }
        entry
    }

    /// A text as compose would read it, or nothing if the environment has a say in it, which is then listed.
    fn settled(&mut self, path: &str, it: &str) -> Option<String> {
        match values::settle(it) {
            Ok(text) => Some(text),
            Err(variable) => {
                let reason =
                    format!("`{}` depends on the environment (`{}`)", shorten(it), shorten(&variable));
                self.drop(path, reason);
                None
            }
        }
    }

    /// The same for a node that should be a scalar.
    fn settled_node(&mut self, path: &str, node: &Node) -> Option<String> {
        match node.as_str() {
            Some(it) => self.settled(path, it),
            None => {
                self.drop(path, format!("expected a text, found {}", node.describe()));
                None
            }
        }
    }
}
