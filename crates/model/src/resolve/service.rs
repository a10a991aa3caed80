//! `services`: everything of a service but its operations.

use super::Resolver;
use super::fields::shorten;
use super::grammar::{is_address, is_server_name};
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{
    Cache, Check, Consistency, Discovery, Health, Kind, Need, Placement, Protocol, Reach, Replicas, Run,
    Service, ServiceId, Slo, Store, TlsBehind, Topic, Until, Version,
};
use crate::text::{Entry, Node};
use indexmap::IndexMap;
use policy::settings::{Discipline, Priority, Queue};
use units::{Id, Money, Nanos, Percent};

/// More instances than any simulation or drawing can hold; a typo (`replicas: 30000000`) must not allocate them.
const REPLICAS_MAX: u32 = 100_000;

pub(super) const PRIORITIES: [(&str, Priority); 4] = [
    ("sheddable", Priority::Sheddable),
    ("sheddable-plus", Priority::SheddablePlus),
    ("critical", Priority::Critical),
    ("critical-plus", Priority::CriticalPlus),
];

impl<'n> Resolver<'n, '_> {
    pub(super) fn services(&mut self) {
        for (index, entry) in self.names.services.entries.clone().into_iter().enumerate() {
            let service = self.service(Id::from_usize(index), entry);
            self.system.services.push(service);
        }
    }

    fn service(&mut self, id: ServiceId, entry: &'n Entry) -> Service {
        let name = At::new(entry.key.to_string(), entry.key_span);
        let mut service = Service {
            team: None,
            description: None,
            kind: Kind::Http,
            protocol: Protocol::Http1,
            replicas: Replicas { per_region: Vec::new(), pinned: Vec::new(), span: None },
            placement: Placement::default(),
            discovery: Discovery::default(),
            reach: Reach::default(),
            run: None,
            endpoints: Vec::new(),
            tls: None,
            health: default_health(Kind::Http),
            concurrency: None,
            cores: None,
            burn: Percent::ZERO,
            queue: At::new(Queue::default(), name.span),
            operations: units::IdVec::new(),
            needs: Vec::new(),
            slo: None,
            versions: Vec::new(),
            cache: None,
            store: None,
            topic: None,
            autoscale: None,
            shared: false,
            priority: None,
            price_per_hour: None,
            labels: IndexMap::new(),
            span: entry.span(),
            name,
        };
        let Some(mut f) = self.fields(&entry.value, "a service") else { return service };
        f.own_keys = true;
        service.description =
            f.get("description").and_then(|it| self.owned(it, "a description")).map(|it| it.value);
        service.team = f.get("team").and_then(|it| self.team(it));
        if let Some(kind) = f.get("kind").and_then(|it| self.choice(it, "a kind of service", &KINDS)) {
            service.kind = kind.value;
        }
        let protocol = f.get("protocol").and_then(|it| self.choice(it, "a protocol", &PROTOCOLS));
        service.protocol = protocol.map_or(protocol_of(service.kind), |it| it.value);
        // Somebody else's service is one for the world, wherever its callers stand, until the file says otherwise.
        if service.kind == Kind::External {
            service.placement = Placement::Global;
        }
        if let Some(it) = f.get("placement").and_then(|it| self.choice(it, "a placement", &PLACEMENTS)) {
            service.placement = it.value;
        }
        if let Some(it) = f.get("discovery").and_then(|it| self.choice(it, "a discovery", &DISCOVERIES)) {
            service.discovery = it.value;
        }
        if let Some(it) = f.get("reach").and_then(|it| self.choice(it, "a reach", &REACHES)) {
            service.reach = it.value;
        }
        f.only_one(self, &["run", "endpoints"]);
        if let Some(entry) = f.entry("run")
            && service.kind == Kind::External
        {
            self.report(
                Diagnostic::error(
                    "E0211",
                    entry.key_span,
                    "a service of kind `external` is somebody else's and never started",
                )
                .label("not for `kind: external`")
                .help("remove `run`, or choose another kind"),
            );
        }
        service.run = f.get("run").and_then(|it| self.run_of(it));
        if let Some(list) = f.get("endpoints") {
            service.endpoints = self.endpoints(list);
        }
        if let Some(entry) = f.entry("tls") {
            service.tls = self.tls_behind(&entry.value);
            if f.entry("endpoints").is_none() {
                self.report(
                    Diagnostic::error("E0211", entry.key_span, "`tls` without `endpoints`")
                        .label("what is started here is spoken to in the clear")
                        .help("`tls` says how to speak to a service that runs elsewhere: add `endpoints`, or remove it"),
                );
            }
        }
        service.health = match f.get("health") {
            Some(node) => self.health(node, service.kind),
            None => default_health(service.kind),
        };
        service.concurrency =
            f.get("concurrency").and_then(|it| self.count(it, "concurrency", 1..=1_000_000));
        service.cores = f.get("cores").and_then(|it| self.count(it, "`cores`", 1..=1_024));
        if let Some(burn) = f.get("burn").and_then(|it| self.share(it, "the part of work that computes")) {
            service.burn = burn.value;
        }
        if let Some(queue) = f.get("queue").and_then(|it| self.queue(it)) {
            service.queue = queue;
        }
        service.priority =
            f.get("priority").and_then(|it| self.choice(it, "a priority", &PRIORITIES)).map(|it| it.value);
        if let Some(node) = f.get("operations") {
            service.operations = self.operations(id, node);
        }
        if let Some(node) = f.get("needs") {
            service.needs = self.needs(node);
        }
        service.slo = f.get("slo").and_then(|it| self.slo(it));
        if let Some(node) = f.get("versions") {
            service.versions = self.versions(node);
        }
        for (key, kind) in [("cache", Kind::Cache), ("store", Kind::Store), ("topic", Kind::Queue)] {
            if let Some(entry) = f.entry(key)
                && service.kind != kind
            {
                let word = kind.word();
                self.report(
                    Diagnostic::error(
                        "E0211",
                        entry.key_span,
                        format!("`{key}` belongs to a service of kind `{word}`"),
                    )
                    .label(format!("this service's kind is not `{word}`"))
                    .help(format!("add `kind: {word}`, or remove `{key}`")),
                );
            }
        }
        service.cache = f.get("cache").and_then(|it| self.cache(it));
        service.store = f.get("store").and_then(|it| self.store(it));
        service.topic = f.get("topic").and_then(|it| self.topic(it));
        service.autoscale = f.get("autoscale").and_then(|it| self.autoscale(it));
        service.shared = f.get("shared").and_then(|it| self.flag(it)).unwrap_or(false);
        service.price_per_hour = f.get("price").and_then(|it| self.quantity::<Money>(it)).map(|it| it.value);
        if let Some(node) = f.get("labels") {
            service.labels = self.words(node, "labels");
        }
        let may_be_empty = service.autoscale.as_ref().is_some_and(|it| it.min == 0);
        service.replicas = self.replicas(f.get("replicas"), service.placement, may_be_empty);
        f.finish(self);
        service
    }

    /// A mapping of names to texts.
    fn words(&mut self, node: &'n Node, what: &str) -> IndexMap<String, String> {
        let mut words = IndexMap::new();
        for entry in self.entries(node, what) {
            if let Some(text) = self.any_text(&entry.value, "a text") {
                words.insert(entry.key.to_string(), text.value.to_owned());
            }
        }
        words
    }

    fn replicas(&mut self, node: Option<&'n Node>, placement: Placement, may_be_empty: bool) -> Replicas {
        let regions = self.system.regions.len();
        let mut replicas = Replicas { per_region: vec![0; regions], pinned: vec![None; regions], span: None };
        let Some(node) = node else {
            match placement {
                Placement::Region => replicas.per_region.fill(1),
                Placement::Zones | Placement::Global => replicas.per_region[0] = 1,
            }
            return replicas;
        };
        replicas.span = Some(node.span);
        if node.as_map().is_none() {
            if node.as_str().is_none() {
                self.wrong_shape(node, "a number of replicas, or a mapping of places to numbers");
            } else if let Some(count) = self.count(node, "the number of replicas", 0..=REPLICAS_MAX) {
                // Dealt to the regions in turn: the first regions get the odd ones.
                let regions = regions as u32;
                for (region, share) in replicas.per_region.iter_mut().enumerate() {
                    *share = count.value / regions + u32::from((region as u32) < count.value % regions);
                }
                self.not_empty(&replicas, node.span, may_be_empty);
            }
            return replicas;
        }
        let mut complete = true;
        for entry in self.entries(node, "places and numbers of replicas") {
            let place = self.place_named(&entry.key, entry.key_span);
            let count = self.count(&entry.value, "the number of replicas", 0..=REPLICAS_MAX);
            let (Some(place), Some(count)) = (place, count) else {
                complete = false;
                continue;
            };
            let (region, zone) = match place {
                crate::system::Place::Region(region) => (region, None),
                crate::system::Place::Zone(zone) => (zone.region, Some(zone.zone)),
            };
            let index = region.index();
            if replicas.per_region[index] != 0 {
                self.report(
                    Diagnostic::error("E0207", entry.key_span, "this region has its replicas already")
                        .label("the same region again")
                        .help(
                            "a region has one group: all zones (`eu-west: 3`) or one zone (`eu-west/a: 3`)",
                        ),
                );
                continue;
            }
            replicas.per_region[index] = count.value;
            replicas.pinned[index] = zone;
        }
        if complete && node.as_map().is_some_and(|map| !map.hole) {
            self.not_empty(&replicas, node.span, may_be_empty);
        }
        replicas
    }

    fn not_empty(&mut self, replicas: &Replicas, span: Span, may_be_empty: bool) {
        if replicas.total() == 0 && !may_be_empty {
            self.report(
                Diagnostic::error("E0209", span, "a service with 0 replicas can answer nobody")
                    .label("no instance anywhere")
                    .help("remove the service, or give it at least 1 (only `autoscale: {min: 0}` may begin at none)"),
            );
        }
    }

    fn run_of(&mut self, node: &'n Node) -> Option<Run> {
        let plain = |command: At<String>| Run {
            command,
            shell: false,
            dir: None,
            env: IndexMap::new(),
            env_files: Vec::new(),
            build: None,
            watch: Vec::new(),
            job: false,
            port: None,
            stop_timeout: Nanos::from_secs(10),
        };
        if node.as_map().is_none() && node.as_seq().is_none() {
            return self.owned(node, "a command").map(plain);
        }
        let mut f = self.fields(node, "`run`")?;
        let command = f.require(self, "command", "./web --port $PORT");
        let command = command.and_then(|it| self.owned(it, "a command"));
        let mut run = plain(command.clone().unwrap_or_default());
        run.shell = f.get("shell").and_then(|it| self.flag(it)).unwrap_or(false);
        run.dir = f.get("dir").and_then(|it| self.owned(it, "a folder")).map(|it| it.value);
        if let Some(env) = f.get("env") {
            run.env = self.words(env, "environment variables");
            for entry in env.as_map().map_or(&[][..], |map| &map.entries) {
                if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
                    self.report(
                        Diagnostic::error(
                            "E0206",
                            entry.key_span,
                            "this cannot be the name of an environment variable",
                        )
                        .label("empty, or holds `=`"),
                    );
                }
            }
        }
        let values = |list: Vec<At<String>>| list.into_iter().map(|it| it.value).collect();
        run.env_files = f.get("env_file").map(|it| values(self.texts(it, "a file"))).unwrap_or_default();
        run.build = f.get("build").and_then(|it| self.owned(it, "a command")).map(|it| it.value);
        run.watch = f.get("watch").map(|it| values(self.texts(it, "a folder or file"))).unwrap_or_default();
        run.job = f.get("job").and_then(|it| self.flag(it)).unwrap_or(false);
        let port = f.get("port").and_then(|it| self.count(it, "a port", 1..=65_535));
        run.port = port.and_then(|it| u16::try_from(it.value).ok());
        if let Some(it) = f.get("stop_timeout").and_then(|it| self.quantity::<Nanos>(it)) {
            run.stop_timeout = it.value;
        }
        f.finish(self);
        command.map(|_| run)
    }

    fn tls_behind(&mut self, node: &'n Node) -> Option<TlsBehind> {
        let mut f = self.fields(node, "`tls` of a service")?;
        let ca = f.get("ca").and_then(|it| self.owned(it, "a file"));
        let server_name = f.get("server_name").and_then(|it| self.owned(it, "a server name"));
        if let Some(name) = &server_name
            && !is_server_name(&name.value)
        {
            self.report(
                Diagnostic::error(
                    "E0206",
                    name.span,
                    format!("`{}` is no server name", shorten(&name.value)),
                )
                .label("a DNS name or an IP address")
                .help(
                    "write the name that stands in the service's certificate: `api.example`, without a port",
                ),
            );
        }
        let mut file = |it: &mut Self, key| f.get(key).and_then(|node| it.owned(node, "a file"));
        let (cert, key) = (file(self, "cert"), file(self, "key"));
        if cert.is_some() != key.is_some() {
            let (there, missing) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            self.report(
                Diagnostic::error("E0202", node.span, format!("`{there}` without `{missing}`"))
                    .label("a certificate to show needs both")
                    .help(format!("add `{missing}: {missing}.pem`, or remove `{there}`")),
            );
        }
        f.finish(self);
        Some(TlsBehind { ca, server_name, client: cert.zip(key) })
    }

    fn endpoints(&mut self, list: &'n Node) -> Vec<At<String>> {
        let mut endpoints = Vec::new();
        for item in self.one_or_more(list) {
            let Some(text) = self.text(item, "an address") else { continue };
            if is_address(text.value) {
                endpoints.push(text.map(str::to_owned));
            } else {
                self.bad_address(text.value, text.span);
            }
        }
        endpoints
    }

    pub(super) fn bad_address(&mut self, text: &str, span: Span) {
        let mut diagnostic =
            Diagnostic::error("E0506", span, format!("`{}` is not an address", shorten(text)))
                .label("not an address");
        diagnostic = if text.starts_with(':') {
            diagnostic.help(format!(
                "say which address: `127.0.0.1{text}` for this machine alone, `0.0.0.0{text}` for all"
            ))
        } else {
            diagnostic.help("write host and port: `127.0.0.1:8080`, `[::1]:8080` or `db.example:5432`")
        };
        self.report(diagnostic);
    }

    fn health(&mut self, node: &'n Node, kind: Kind) -> Health {
        let mut health = Health { span: Some(node.span), ..default_health(kind) };
        if node.as_str().is_some() && !node.is_null() {
            if self.choice(node, "a health check", &[("none", ())]).is_some() {
                health.check = Check::None;
            }
            return health;
        }
        let Some(mut f) = self.fields(node, "a health check") else { return health };
        if let Some(entry) = f.only_one(self, &["path", "grpc", "tcp", "log", "command"]) {
            let value = &entry.value;
            let check = match &*entry.key {
                "path" => self.text(value, "a path").and_then(|path| {
                    if path.value.starts_with('/') {
                        return Some(Check::Http { path: path.value.to_owned() });
                    }
                    self.report(
                        Diagnostic::error("E0507", path.span, "a path begins with `/`")
                            .label("no `/` in front")
                            .replacement(format!("/{}", path.value)),
                    );
                    None
                }),
                "grpc" => self.text(value, "`true` or a service's name").map(|text| Check::Grpc {
                    service: if text.value == "true" { String::new() } else { text.value.to_owned() },
                }),
                "tcp" => self.flag(value).map(|on| if on { Check::Tcp } else { Check::None }),
                "log" => self.owned(value, "a text").map(|it| Check::Log { contains: it.value }),
                _ => self.owned(value, "a command").map(|it| Check::Command { command: it.value }),
            };
            if let Some(check) = check {
                health.check = check;
            }
        }
        let every = f.get("every").and_then(|it| self.positive::<Nanos>(it, "the interval"));
        let timeout = f.get("timeout").and_then(|it| self.positive::<Nanos>(it, "the timeout"));
        let startup = f.get("startup").and_then(|it| self.positive::<Nanos>(it, "the time to start"));
        let healthy = f.get("healthy_after").and_then(|it| self.count(it, "`healthy_after`", 1..=1_000));
        let unhealthy =
            f.get("unhealthy_after").and_then(|it| self.count(it, "`unhealthy_after`", 1..=1_000));
        health.every = every.map_or(health.every, |it| it.value);
        health.timeout = timeout.map_or(health.timeout, |it| it.value);
        health.startup = startup.map_or(health.startup, |it| it.value);
        health.healthy_after = healthy.map_or(health.healthy_after, |it| it.value);
        health.unhealthy_after = unhealthy.map_or(health.unhealthy_after, |it| it.value);
        f.finish(self);
        health
    }

    fn queue(&mut self, node: &'n Node) -> Option<At<Queue>> {
        if let Some(text) = node.as_str().filter(|_| !node.is_null()) {
            if text == "unbounded" {
                return Some(At::new(Queue { max: None, ..Queue::default() }, node.span));
            }
            if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
                self.not_a_choice(text, node.span, "a queue (a number is one)", ["unbounded"].into_iter());
                return None;
            }
            let max = self.count(node, "the queue", 0..=10_000_000)?;
            return Some(At::new(Queue { max: Some(max.value), ..Queue::default() }, node.span));
        }
        let mut f = self.fields(node, "a queue")?;
        let mut queue = Queue::default();
        if let Some(max) = f.get("max") {
            if max.as_str() == Some("unbounded") {
                queue.max = None;
            } else if let Some(max) = self.count(max, "`max`", 0..=10_000_000) {
                queue.max = Some(max.value);
            }
        }
        let (mut target, mut interval) = (Nanos::from_millis(5), Nanos::from_millis(100));
        let codel = |target, interval| Discipline::CoDel { target, interval };
        if let Some(discipline) = f.get("discipline") {
            if discipline.as_map().is_some() {
                if let Some(mut inner) = self.fields(discipline, "a discipline") {
                    if let Some(node) = inner.require(self, "codel", "{target: 5ms, interval: 100ms}")
                        && let Some(mut c) = self.fields(node, "`codel`")
                    {
                        if let Some(it) =
                            c.get("target").and_then(|it| self.positive::<Nanos>(it, "`target`"))
                        {
                            target = it.value;
                        }
                        if let Some(it) =
                            c.get("interval").and_then(|it| self.positive::<Nanos>(it, "`interval`"))
                        {
                            interval = it.value;
                        }
                        c.finish(self);
                    }
                    inner.finish(self);
                }
                queue.discipline = codel(target, interval);
            } else {
                let words = [
                    ("fifo", Discipline::Fifo),
                    ("lifo", Discipline::Lifo),
                    ("adaptive-lifo", Discipline::AdaptiveLifo),
                    ("codel", codel(target, interval)),
                ];
                if let Some(it) = self.choice(discipline, "a discipline of a queue", &words) {
                    queue.discipline = it.value;
                }
            }
        }
        f.finish(self);
        Some(At::new(queue, node.span))
    }

    fn needs(&mut self, node: &'n Node) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        let words =
            [("started", Until::Started), ("healthy", Until::Healthy), ("completed", Until::Completed)];
        for item in self.list(node, "the services it needs") {
            let mut found = Vec::new();
            if let Some(map) = item.as_map() {
                for entry in &map.entries {
                    let until = self.choice(&entry.value, "a state to wait for", &words);
                    let service = self.service_named(&entry.key, entry.key_span);
                    if let (Some(until), Some(service)) = (until, service) {
                        found.push(Need { service: At::new(service, entry.key_span), until: until.value });
                    }
                }
            } else if let Some(name) = self.text(item, "a service's name")
                && let Some(service) = self.service_named(name.value, name.span)
            {
                found.push(Need { service: At::new(service, name.span), until: Until::Healthy });
            }
            for need in found {
                if let Some(first) = needs.iter().find(|it| it.service == need.service) {
                    let first = first.service.span;
                    self.report(
                        Diagnostic::error(
                            "E0207",
                            need.service.span,
                            "this service is listed twice in `needs`",
                        )
                        .label("again here")
                        .related(first, "first here"),
                    );
                } else {
                    needs.push(need);
                }
            }
        }
        needs
    }

    fn slo(&mut self, node: &'n Node) -> Option<Slo> {
        let mut f = self.fields(node, "an SLO")?;
        let availability = f.get("availability").and_then(|it| {
            let share = self.quantity::<Percent>(it)?;
            if share.value >= Percent::WHOLE {
                self.report(
                    Diagnostic::error(
                        "E0209",
                        it.span,
                        format!("no service is available {} of the time", share.value),
                    )
                    .label("leaves no error budget")
                    .help("an objective is below 100%, for example `99.9%`"),
                );
                return None;
            }
            if share.value == Percent::ZERO {
                self.impossible(it.span, "an availability of 0% promises nothing", "zero");
                return None;
            }
            Some(share)
        });
        let mut latency: Vec<(Percent, At<Nanos>)> = Vec::new();
        if let Some(node) = f.get("latency") {
            for entry in self.entries(node, "percentiles and limits") {
                let share = self.percentile(&entry.key, entry.key_span);
                let limit = self.positive::<Nanos>(&entry.value, "a limit of latency");
                if let (Some(share), Some(limit)) = (share, limit) {
                    latency.push((share, limit));
                }
            }
            latency.sort_by_key(|(share, _)| *share);
            for pair in latency.windows(2) {
                let ((low, low_limit), (high, high_limit)) = (&pair[0], &pair[1]);
                if low_limit.value > high_limit.value {
                    let (low, high) = (percentile_name(*low), percentile_name(*high));
                    self.report(
                        Diagnostic::error(
                            "E0209",
                            high_limit.span,
                            format!(
                                "{high} ({}) cannot be below {low} ({})",
                                high_limit.value, low_limit.value
                            ),
                        )
                        .label("below a lower percentile")
                        .related(low_limit.span, format!("{low} is here")),
                    );
                }
            }
        }
        let window = f.get("window").and_then(|it| self.positive::<Nanos>(it, "the window"));
        let window = window.map_or(Nanos::from_secs(30 * 86_400), |it| it.value);
        f.finish(self);
        Some(Slo { availability, latency, window, span: node.span })
    }

    /// `p99`, `p99.99`.
    pub(super) fn percentile(&mut self, text: &str, span: Span) -> Option<Percent> {
        let share = text.strip_prefix('p').and_then(|digits| format!("{digits}%").parse::<Percent>().ok());
        match share {
            Some(share) if share > Percent::ZERO && share < Percent::WHOLE => Some(share),
            _ => {
                self.report(
                    Diagnostic::error("E0205", span, format!("`{}` is not a percentile", shorten(text)))
                        .label("not a percentile")
                        .help("write `p50`, `p99`, `p99.9`: a `p` and a number between 0 and 100"),
                );
                None
            }
        }
    }

    fn versions(&mut self, node: &'n Node) -> Vec<Version> {
        let mut versions = Vec::new();
        let mut weights: Vec<Option<At<Percent>>> = Vec::new();
        let mut complete = node.as_map().is_some_and(|map| !map.hole);
        for entry in self.entries(node, "versions") {
            let Some(number) = version_number(&entry.key) else {
                self.report(
                    Diagnostic::error(
                        "E0508",
                        entry.key_span,
                        format!("`{}` is not a version", shorten(&entry.key)),
                    )
                    .label("not a version")
                    .help("a version is `vI.F.B`: interface, feature, bugfix, for example `v1.2.3`"),
                );
                complete = false;
                continue;
            };
            let Some(mut f) = self.fields(&entry.value, "a version") else {
                complete = false;
                continue;
            };
            let weight_node = f.get("weight");
            let weight = weight_node.and_then(|it| self.share(it, "a weight"));
            complete &= weight.is_some() == weight_node.is_some();
            weights.push(weight);
            let replicas =
                f.get("replicas").and_then(|it| self.count(it, "the number of replicas", 0..=REPLICAS_MAX));
            let run = f.get("run").and_then(|it| self.run_of(it));
            let work = f.get("work").and_then(|it| self.quantity::<Percent>(it));
            let errors = f.get("errors").and_then(|it| self.share(it, "the share of errors"));
            f.finish(self);
            versions.push(Version {
                name: At::new(entry.key.to_string(), entry.key_span),
                number,
                weight: Percent::ZERO,
                replicas: replicas.map(|it| it.value),
                run,
                work: work.map(|it| it.value),
                errors: errors.map(|it| it.value),
                span: entry.span(),
            });
        }
        let given: u64 = weights.iter().flatten().map(|it| it.millionths()).sum();
        let whole = Percent::WHOLE.millionths();
        let silent = weights.iter().filter(|it| it.is_none()).count() as u64;
        if complete && !versions.is_empty() && (given > whole || (silent == 0 && given != whole)) {
            let sum = Percent::from_millionths(given);
            let mut diagnostic = Diagnostic::error(
                "E0404",
                node.span,
                format!("the weights of the versions sum to {sum}, not 100%"),
            )
            .label(format!("{sum} in all"))
            .help("leave one weight out, and that version takes the rest");
            diagnostic.related = weights.iter().flatten().map(|it| (it.span, it.to_string())).collect();
            self.report(diagnostic);
        }
        let rest = whole.saturating_sub(given);
        let mut nth = 0;
        for (version, weight) in versions.iter_mut().zip(&weights) {
            version.weight = match weight {
                Some(weight) => weight.value,
                None => {
                    // Millionths that do not divide go to the first ones, so that the sum stays exact.
                    let share = rest / silent + u64::from(nth < rest % silent);
                    nth += 1;
                    Percent::from_millionths(share)
                }
            };
        }
        versions
    }

    fn cache(&mut self, node: &'n Node) -> Option<Cache> {
        let mut f = self.fields(node, "a cache")?;
        f.exactly_one(self, &["hit_rate", "keys"]);
        let hit_rate = f.get("hit_rate").and_then(|it| self.share(it, "a hit rate")).map(|it| it.value);
        let keys_node = f.get("keys");
        let keys =
            keys_node.and_then(|it| self.whole(it, "`keys`", 1..=1_000_000_000_000)).map(|it| it.value);
        let capacity = match keys_node {
            Some(_) => f.require(self, "capacity", "10000"),
            None => f.get("capacity"),
        };
        let capacity = capacity.and_then(|it| self.whole(it, "`capacity`", 0..=1_000_000_000_000));
        let zipf = f.get("zipf").and_then(|it| self.decimal(it, "`zipf`"));
        let ttl = f.get("ttl").and_then(|it| self.positive::<Nanos>(it, "`ttl`"));
        f.finish(self);
        let (capacity, zipf, ttl) =
            (capacity.map(|it| it.value), zipf.map(|it| it.value), ttl.map(|it| it.value));
        Some(Cache { hit_rate, keys, capacity, zipf, ttl })
    }

    fn store(&mut self, node: &'n Node) -> Option<Store> {
        let mut f = self.fields(node, "a store")?;
        let words =
            [("one", Consistency::One), ("quorum", Consistency::Quorum), ("leader", Consistency::Leader)];
        let copies = f.get("copies").and_then(|it| self.count(it, "`copies`", 1..=1_000));
        let consistency = f.get("consistency").and_then(|it| self.choice(it, "a consistency", &words));
        f.finish(self);
        Some(Store {
            copies: copies.map_or(1, |it| it.value),
            consistency: consistency.map_or(Consistency::One, |it| it.value),
        })
    }

    fn topic(&mut self, node: &'n Node) -> Option<Topic> {
        let mut f = self.fields(node, "a topic")?;
        let partitions = f.get("partitions").and_then(|it| self.count(it, "`partitions`", 1..=100_000));
        let retention = f.get("retention").and_then(|it| self.positive::<Nanos>(it, "the retention"));
        let mut consumers = Vec::new();
        if let Some(list) = f.get("consumers") {
            for item in self.list(list, "the services that consume it") {
                if let Some((service, operation, _)) = self.service_and_operation(item) {
                    consumers.push((service, operation));
                }
            }
        }
        f.finish(self);
        Some(Topic {
            partitions: partitions.map_or(1, |it| it.value),
            retention: retention.map(|it| it.value),
            consumers,
        })
    }
}

const KINDS: [(&str, Kind); 7] = [
    ("http", Kind::Http),
    ("grpc", Kind::Grpc),
    ("tcp", Kind::Tcp),
    ("cache", Kind::Cache),
    ("store", Kind::Store),
    ("queue", Kind::Queue),
    ("external", Kind::External),
];

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("tcp", Protocol::Tcp),
];

const PLACEMENTS: [(&str, Placement); 3] =
    [("zones", Placement::Zones), ("region", Placement::Region), ("global", Placement::Global)];

const DISCOVERIES: [(&str, Discovery); 2] =
    [("region", Discovery::Region), ("everywhere", Discovery::Everywhere)];

const REACHES: [(&str, Reach); 2] = [("any", Reach::Any), ("same-zone", Reach::SameZone)];

fn protocol_of(kind: Kind) -> Protocol {
    match kind {
        Kind::Http | Kind::External => Protocol::Http1,
        Kind::Grpc => Protocol::Grpc,
        Kind::Tcp | Kind::Cache | Kind::Store | Kind::Queue => Protocol::Tcp,
    }
}

fn default_health(kind: Kind) -> Health {
    Health {
        check: if kind == Kind::External { Check::None } else { Check::Tcp },
        every: Nanos::from_secs(2),
        timeout: Nanos::from_secs(1),
        healthy_after: 1,
        unhealthy_after: 3,
        startup: Nanos::from_secs(60),
        span: None,
    }
}

fn percentile_name(share: Percent) -> String {
    format!("p{}", share.to_string().trim_end_matches('%'))
}

/// `v1.2.3`, without leading zeros, so that each version has one spelling.
fn version_number(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.strip_prefix('v')?.split('.').map(|part| {
        let canonical = part == "0" || !part.starts_with('0');
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if canonical && digits { part.parse::<u32>().ok() } else { None }
    });
    let number = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(number)
}
