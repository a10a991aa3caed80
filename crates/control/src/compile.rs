//! From the model to what a proxy runs.
//!
//! Pure: the same model and [`Topology`] give the same [`proxy::config::Config`], part by part and in the same order.
//! Incremental: parts that did not change are the very same `Arc`s as in the snapshot before, so a proxy sees with one
//! comparison of addresses what it may keep.
//!
//! Every instance has a door of its own for each service it calls. So the caller is known without a header, and each
//! caller has its own breaker, budget and view of the callee, as it would have with a proxy of its own.

use model::system::{self, Caller, Discovery, Kind, Placement, Protocol, Reach, ServiceId, System};
use policy::settings::EdgeSettings;
use proxy::config::{self, Config};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use units::{Nanos, Percent};

/// What the door of markers is counted as; see [`crate::marker`].
pub const MARKER: &str = "isobar-marker";

/// Everything about the world that is not in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub instances: Vec<Instance>,
    pub doors: Vec<Door>,
    /// Where marker requests are answered; see [`crate::marker`].
    pub marker: Option<SocketAddr>,
    /// Where each gateway really listens, by name.
    pub gateways: BTreeMap<String, SocketAddr>,
    /// What lies between places beyond this machine's own wires. Those that fit add up.
    pub links: Vec<Link>,
    /// What answers take longer, and fail more often, by where an instance listens.
    pub troubles: BTreeMap<SocketAddr, Trouble>,
    /// Files named in the model are beside this.
    pub folder: PathBuf,
    /// Callers of gateways are believed: in front of them stands a proxy of our own.
    pub gateways_trust: bool,
}

impl Topology {
    /// The world of a proxy alone: the file's gateways where the file says, and nobody but its `endpoints` behind them.
    /// The error is for the file's author.
    pub fn of_gateways(system: &System, folder: PathBuf) -> Result<Self, String> {
        let mut gateways = BTreeMap::new();
        for gateway in system.gateways.iter() {
            let (name, listen) = (&gateway.name.value, &gateway.listen.value);
            let address = listen.parse().map_err(|_| {
                format!("gateway `{name}`: `{listen}` is no address and port, as in 127.0.0.1:8080")
            })?;
            gateways.insert(name.clone(), address);
        }
        if gateways.is_empty() {
            return Err("the file defines no gateway, so there is nothing to listen on; for example\n\
                        gateways: {edge: {listen: \"127.0.0.1:8080\", routes: [{path: /, to: api}]}}"
                .to_owned());
        }
        Ok(Self { gateways, folder, ..Self::default() })
    }
}

/// A region, and one of its zones or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    pub region: String,
    pub zone: Option<String>,
}

impl Area {
    pub fn holds(&self, region: &str, zone: &str) -> bool {
        self.region == region && self.zone.as_deref().is_none_or(|it| it == zone)
    }
}

/// From callers here to instances there.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub from: Area,
    pub to: Area,
    /// There and back together.
    pub delay: Nanos,
    pub jitter: Percent,
    /// Of packets.
    pub loss: Percent,
    pub cut: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trouble {
    pub delay: Nanos,
    pub errors: Percent,
}

/// A place that answers for a service and may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub service: String,
    pub address: SocketAddr,
    pub version: String,
    pub region: String,
    pub zone: String,
    pub weight: u32,
}

/// One caller's way to one callee.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// The service that calls; `None` for traffic that comes from nowhere.
    pub caller: Option<String>,
    /// `web#0`: what tells this caller from its like.
    pub slot: String,
    pub region: String,
    pub zone: String,
    pub callee: String,
    pub address: SocketAddr,
}

/// The caller and the callee of an edge of a snapshot, by the services' names: of `web#0->cart "GET /"`, web and cart.
pub fn parties(edge: &str) -> Option<(&str, &str)> {
    let (slot, rest) = edge.split_once("->")?;
    let callee = rest.split([' ', '!']).next()?;
    Some((slot.split('#').next()?, callee))
}

/// Compiles one snapshot after the other.
#[derive(Debug, Default)]
pub struct Compiler {
    last: Parts,
}

#[derive(Debug, Default)]
struct Parts {
    listeners: BTreeMap<String, Arc<config::Listener>>,
    edges: BTreeMap<String, Arc<config::Edge>>,
    services: BTreeMap<String, Arc<config::Service>>,
}

impl Compiler {
    pub fn compile(&mut self, system: &System, topology: &Topology) -> Config {
        let mut build = Build { system, topology, parts: Parts::default() };
        build.doors();
        build.gateways();
        build.marker();
        let mut parts = build.parts;
        keep(&self.last.listeners, &mut parts.listeners);
        keep(&self.last.edges, &mut parts.edges);
        keep(&self.last.services, &mut parts.services);
        let config = Config {
            source: system.name.clone(),
            listeners: parts.listeners.values().cloned().collect(),
            edges: parts.edges.values().cloned().collect(),
            services: parts.services.values().cloned().collect(),
            ..Config::default()
        };
        self.last = parts;
        config
    }
}

/// What is equal to the part before it becomes the part before it.
fn keep<T: PartialEq>(last: &BTreeMap<String, Arc<T>>, new: &mut BTreeMap<String, Arc<T>>) {
    for (name, part) in new {
        if let Some(old) = last.get(name).filter(|old| *old == part) {
            *part = Arc::clone(old);
        }
    }
}

struct Build<'a> {
    system: &'a System,
    topology: &'a Topology,
    parts: Parts,
}

/// Who calls, for views and policies.
#[derive(Clone, Copy)]
struct From<'a> {
    caller: Caller,
    /// Begins the names of its edges.
    slot: &'a str,
    region: &'a str,
    zone: &'a str,
    service: Option<&'a system::Service>,
}

impl<'a> Build<'a> {
    fn doors(&mut self) {
        for door in &self.topology.doors {
            let Some(callee) = self.find(&door.callee) else { continue };
            let caller = door.caller.as_deref().and_then(|name| self.find(name));
            let from = From {
                // Nobody's traffic is governed as the callee's own: what `default` and `* -> callee` say.
                caller: Caller::Service(caller.unwrap_or(callee)),
                slot: &door.slot,
                region: &door.region,
                zone: &door.zone,
                service: caller.map(|id| &self.system.services[id]),
            };
            let name = format!("{}->{}", door.slot, door.callee);
            let listener = self.door(&name, door.address, from, callee);
            self.parts.listeners.insert(name, Arc::new(listener));
        }
    }

    /// How a service that runs elsewhere is spoken to.
    fn tls_behind(&self, service: &system::Service) -> Option<config::TlsClient> {
        let tls = service.tls.as_ref()?;
        let file = |path: &model::span::At<String>| self.topology.folder.join(Path::new(&path.value));
        Some(config::TlsClient {
            server_name: tls.server_name.as_ref().map(|it| it.value.clone()).unwrap_or_default(),
            roots: tls.ca.as_ref().map(file),
            certificate: tls
                .client
                .as_ref()
                .map(|(cert, key)| config::Certificate { chain: file(cert), key: file(key) }),
            insecure_skip_verify: false,
        })
    }

    fn door(
        &mut self,
        name: &str,
        address: SocketAddr,
        from: From<'_>,
        callee: ServiceId,
    ) -> config::Listener {
        let service = &self.system.services[callee];
        let raw =
            service.protocol == Protocol::Tcp && (service.run.is_some() || !service.endpoints.is_empty());
        let (kind, routes) = if raw {
            let edge = self.edge(from, callee, None, None);
            (config::ListenerKind::Tcp { edge }, Vec::new())
        } else {
            (config::ListenerKind::Http, self.routes_to(from, callee, &config::Match::default(), "", true))
        };
        config::Listener {
            name: name.to_owned(),
            address,
            kind,
            tls: None,
            trusts_headers: true,
            gateway: None,
            routes: routes.into_iter().map(Arc::new).collect(),
        }
    }

    /// Routes to one service: first its operations, so that each is counted by its name and those with a policy of
    /// their own get it, then all the rest. With `told_apart` off, only those with a policy of their own: what limits a
    /// route would otherwise limit each operation by itself.
    fn routes_to(
        &mut self,
        from: From<'_>,
        callee: ServiceId,
        matches: &config::Match,
        prefix: &str,
        told_apart: bool,
    ) -> Vec<config::Route> {
        let mut routes = Vec::new();
        let whole = self.settings(from, callee, None);
        let service = &self.system.services[callee];
        for (id, operation) in service.operations.enumerate() {
            let own = self.settings(from, callee, Some(id)) != whole;
            if !own && !told_apart {
                continue;
            }
            let Some((method, path)) = request_line(&operation.name.value, operation.writes) else {
                continue;
            };
            let edge = self.edge(from, callee, own.then_some(id), None);
            let path = if path.contains('{') {
                config::PathMatch::Template(path)
            } else {
                config::PathMatch::Exact(path)
            };
            routes.push(config::Route {
                operation: operation.name.value.clone(),
                matches: config::Match { path, methods: vec![method], ..matches.clone() },
                ..self.route(format!("{prefix}{}", operation.name.value), callee, edge)
            });
        }
        let edge = self.edge(from, callee, None, None);
        routes.push(config::Route {
            matches: matches.clone(),
            ..self.route(format!("{prefix}*"), callee, edge)
        });
        routes
    }

    fn route(&self, name: String, callee: ServiceId, edge: String) -> config::Route {
        let service = &self.system.services[callee];
        config::Route {
            action: config::Action::Forward(self.targets(service, &edge, 1, None)),
            ..config::Route::forward(&name, config::PathMatch::default(), &edge)
        }
    }

    /// Unpinned traffic is dealt to versions by weight; a version without an instance gets nothing to lose.
    fn targets(
        &self,
        service: &system::Service,
        edge: &str,
        weight: u32,
        pin: Option<&str>,
    ) -> Vec<config::Target> {
        let target =
            |version: Option<String>, weight| config::Target { edge: edge.to_owned(), weight, version };
        if let Some(pin) = pin {
            return vec![target(Some(pin.to_owned()), weight)];
        }
        let present = |version: &str| {
            let here = |it: &&Instance| it.service == service.name.value && it.version == version;
            self.topology.instances.iter().find(here).is_some()
        };
        let dealt: Vec<config::Target> = service
            .versions
            .iter()
            .filter(|it| it.weight.millionths() > 0 && present(&it.name.value))
            .map(|it| {
                // Hundredths of a percent keep the sums of many targets far from overflowing.
                let share = u32::try_from(it.weight.millionths() / 100).unwrap_or(u32::MAX).max(1);
                target(Some(it.name.value.clone()), share.saturating_mul(weight))
            })
            .collect();
        if dealt.len() > 1 { dealt } else { vec![target(None, weight.saturating_mul(10_000))] }
    }

    fn gateways(&mut self) {
        for (id, gateway) in self.system.gateways.enumerate() {
            let Some(address) = self.topology.gateways.get(&gateway.name.value) else { continue };
            let from = From {
                caller: Caller::Gateway(id),
                slot: &gateway.name.value,
                // A gateway stands at the door of the whole system and prefers nobody.
                region: "",
                zone: "",
                service: None,
            };
            let mut routes = Vec::new();
            for (nth, route) in gateway.routes.iter().enumerate() {
                routes.extend(self.gateway_route(from, nth, route));
            }
            let file = |path: &str| self.topology.folder.join(Path::new(path));
            let tls = gateway.tls.as_ref().map(|tls| config::TlsServer {
                certificates: vec![config::Certificate {
                    chain: file(&tls.cert.value),
                    key: file(&tls.key.value),
                }],
                client_roots: tls.client_ca.as_ref().map(|it| file(&it.value)),
                client_required: tls.client_ca.is_some(),
            });
            let listener = config::Listener {
                name: gateway.name.value.clone(),
                address: *address,
                kind: config::ListenerKind::Http,
                tls,
                // The world may say what it likes about deadlines and routes.
                trusts_headers: self.topology.gateways_trust,
                gateway: Some(gateway.name.value.clone()),
                routes: routes.into_iter().map(Arc::new).collect(),
            };
            self.parts.listeners.insert(gateway.name.value.clone(), Arc::new(listener));
        }
    }

    /// A door that answers by itself and is counted as any other.
    fn marker(&mut self) {
        let Some(address) = self.topology.marker else { return };
        let reply = config::Reply { status: 204, headers: Vec::new(), body: String::new() };
        let route = config::Route {
            action: config::Action::Reply(reply),
            ..config::Route::forward(MARKER, config::PathMatch::default(), "")
        };
        let listener = config::Listener {
            gateway: Some(MARKER.to_owned()),
            ..config::Listener::http(MARKER, address, vec![route])
        };
        self.parts.listeners.insert(MARKER.to_owned(), Arc::new(listener));
    }

    fn gateway_route(&mut self, from: From<'_>, nth: usize, route: &system::Route) -> Vec<config::Route> {
        let matches = matches_of(route);
        let name = format!("{}.{nth} ", from.slot);
        let dress = |it: config::Route| config::Route {
            rewrite: config::Rewrite {
                path: route.rewrite.clone().map(config::PathEdit::ReplacePrefix),
                ..it.rewrite
            },
            rate_limit: route.rate_limit,
            ..it
        };
        let plain = |action| config::Route {
            matches: matches.clone(),
            action,
            ..config::Route::forward(&name, config::PathMatch::default(), "")
        };
        let mut routes = match &route.action {
            system::Action::Redirect { to, status } => {
                vec![plain(config::Action::Redirect(redirect(to, *status)))]
            }
            system::Action::Reply { status, body } => vec![plain(config::Action::Reply(config::Reply {
                status: *status,
                headers: Vec::new(),
                body: body.clone(),
            }))],
            system::Action::To(targets) => {
                let everything = matches!(&route.path, system::PathMatch::Prefix(path) if path == "/");
                let simple = everything
                    && route.rewrite.is_none()
                    && route.methods.is_empty()
                    && route.timeout.is_none();
                match targets.as_slice() {
                    // One service behind everything: its operations may have policies of their own.
                    [only] if simple && only.version.is_none() => {
                        let told_apart = route.rate_limit.is_none();
                        self.routes_to(from, only.service.value, &matches, &name, told_apart)
                    }
                    targets => {
                        let mut forward = Vec::new();
                        for target in targets {
                            let edge = self.edge(
                                from,
                                target.service.value,
                                None,
                                route.timeout.as_ref().map(|it| (nth, it.value)),
                            );
                            let service = &self.system.services[target.service.value];
                            let pin = target.version.as_ref().map(|it| it.value.as_str());
                            forward.extend(self.targets(service, &edge, target.weight, pin));
                        }
                        vec![plain(config::Action::Forward(forward))]
                    }
                }
            }
        };
        let mirror = route
            .mirror
            .map(|(service, share)| config::Mirror { edge: self.edge(from, service, None, None), share });
        for it in &mut routes {
            it.mirror = mirror.clone();
        }
        routes.into_iter().map(dress).collect()
    }

    fn settings(
        &self,
        from: From<'_>,
        callee: ServiceId,
        operation: Option<system::OperationId>,
    ) -> EdgeSettings {
        let in_force = self.system.policy(from.caller, callee, operation);
        let mut settings = in_force.settings;
        if matches!(from.caller, Caller::Gateway(_)) && in_force.set_by.get("connections").is_none() {
            // What is built in is for one caller among many; a gateway calls for all the world.
            settings.connections = u32::MAX;
        }
        let Some(operation) = operation.and_then(|id| self.system.services[callee].operations.get(id)) else {
            return settings;
        };
        // The proxy judges by the method; where the file knows better, it says so.
        let by_method = request_line(&operation.name.value, operation.writes).is_some_and(|(method, _)| {
            matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
        });
        match (operation.idempotent, by_method) {
            (true, false) => {
                if let Some(retry) = &mut settings.retry {
                    retry.non_idempotent = true;
                } else if settings.hedge.is_some() {
                    // One attempt, retried never: all it says is that the operation may be done twice.
                    settings.retry = Some(policy::settings::Retry {
                        attempts: 1,
                        budget: None,
                        non_idempotent: true,
                        ..policy::settings::Retry::default()
                    });
                }
            }
            (false, true) => (settings.retry, settings.hedge) = (None, None),
            _ => {}
        }
        settings
    }

    /// Makes sure that the edge and the view of the callee exist; the edge's name.
    fn edge(
        &mut self,
        from: From<'_>,
        callee: ServiceId,
        operation: Option<system::OperationId>,
        route_timeout: Option<(usize, Nanos)>,
    ) -> String {
        let service = &self.system.services[callee];
        let mut settings = self.settings(from, callee, operation);
        let mut name = format!("{}->{}", from.slot, service.name.value);
        if let Some(operation) = operation.and_then(|id| service.operations.get(id)) {
            name.push_str(&format!(" {:?}", operation.name.value));
        }
        if let Some((nth, timeout)) = route_timeout {
            name.push_str(&format!("!{nth}"));
            settings.timeout = Some(timeout);
        }
        if !self.parts.edges.contains_key(&name) {
            let view = self.view(from, callee);
            let ways = self.ways(from, &view);
            let edge = config::Edge {
                name: name.clone(),
                service: view,
                caller: from.slot.split('#').next().unwrap_or_default().to_owned(),
                callee: service.name.value.clone(),
                settings,
                home: (!from.region.is_empty())
                    .then(|| config::Home { region: from.region.to_owned(), zone: from.zone.to_owned() }),
                ways,
            };
            self.parts.edges.insert(name.clone(), Arc::new(edge));
        }
        name
    }

    /// The ways to a view's instances that have anything in them.
    fn ways(&self, from: From<'_>, view: &str) -> Vec<config::Way> {
        let (links, troubles) = (&self.topology.links, &self.topology.troubles);
        let Some(view) = self.parts.services.get(view) else { return Vec::new() };
        if links.is_empty() && troubles.is_empty() {
            return Vec::new();
        }
        let way = |it: &config::Endpoint| {
            let config::Address::Ip(address) = it.address else { return None };
            let mut way = config::Way::to(address);
            let between =
                |link: &&Link| link.from.holds(from.region, from.zone) && link.to.holds(&it.region, &it.zone);
            for link in links.iter().filter(between) {
                way.delay += link.delay;
                way.jitter = way.jitter.max(link.jitter);
                way.loss = either(way.loss, link.loss);
                way.cut |= link.cut;
            }
            if let Some(trouble) = troubles.get(&address) {
                way.delay += trouble.delay;
                way.errors = either(way.errors, trouble.errors);
            }
            (way != config::Way::to(address)).then_some(way)
        };
        let mut ways: Vec<config::Way> = view.endpoints.iter().filter_map(way).collect();
        ways.sort_by_key(|it| it.to);
        ways.dedup_by_key(|it| it.to);
        ways
    }

    /// The part of a service that a caller may see, as a service of the snapshot; its name.
    fn view(&mut self, from: From<'_>, callee: ServiceId) -> String {
        let service = &self.system.services[callee];
        // What stands in no region of ours is known in all of them.
        let everywhere = |it: &system::Service| {
            it.discovery == Discovery::Everywhere
                || it.kind == Kind::External
                || it.placement == Placement::Global
        };
        let one_region = self.system.regions.len() <= 1 || from.region.is_empty();
        let sees_all = one_region || everywhere(service) || from.service.is_none_or(everywhere);
        let same_zone = from.service.is_some_and(|it| it.reach == Reach::SameZone) && !from.zone.is_empty();
        let name = match (sees_all, same_zone) {
            (true, false) => service.name.value.clone(),
            (false, false) => format!("{} in {}", service.name.value, from.region),
            (true, true) => format!("{} in zones {}", service.name.value, from.zone),
            (false, true) => format!("{} in {}/{}", service.name.value, from.region, from.zone),
        };
        if self.parts.services.contains_key(&name) {
            return name;
        }
        let seen = |it: &&Instance| {
            it.service == service.name.value
                && (sees_all || it.region == from.region)
                && (!same_zone || it.zone == from.zone || it.zone.is_empty())
        };
        let mut endpoints: Vec<config::Endpoint> = self
            .topology
            .instances
            .iter()
            .filter(seen)
            .map(|it| config::Endpoint {
                address: config::Address::Ip(it.address),
                version: it.version.clone(),
                zone: it.zone.clone(),
                region: it.region.clone(),
                weight: it.weight,
            })
            .collect();
        endpoints.extend(
            service.endpoints.iter().filter_map(|it| Some(config::Endpoint::at(address_of(&it.value)?))),
        );
        let protocol = match service.protocol {
            Protocol::Http1 => config::Protocol::Http1,
            Protocol::Http2 | Protocol::Grpc => config::Protocol::Http2,
            Protocol::Tcp if service.run.is_some() || !service.endpoints.is_empty() => config::Protocol::Tcp,
            // What we play ourselves speaks HTTP inside.
            Protocol::Tcp => config::Protocol::Http1,
        };
        let made = config::Service {
            protocol,
            endpoints,
            // A loopback that does not answer within this never will; further away the edge's timeout is shorter anyway.
            connect_timeout: Nanos::from_secs(2),
            tls: self.tls_behind(service),
            queue: service.queue.value,
            health: if service.endpoints.is_empty() { None } else { check_of(service) },
            ..config::Service::http1(&name, &[])
        };
        self.parts.services.insert(name.clone(), Arc::new(made));
        name
    }

    fn find(&self, name: &str) -> Option<ServiceId> {
        self.system.services.enumerate().find(|(_, it)| it.name.value == name).map(|(id, _)| id)
    }
}

/// `GET /cart/{id}` is itself; a gRPC method is posted to; a word is a path.
fn request_line(operation: &str, writes: bool) -> Option<(String, String)> {
    match operation.split_once(' ') {
        Some((method, path)) if path.starts_with('/') => {
            Some((method.to_owned(), path.split('?').next().unwrap_or(path).to_owned()))
        }
        Some(_) => None,
        None if operation.contains('/') => {
            Some(("POST".to_owned(), format!("/{}", operation.trim_start_matches('/'))))
        }
        None => Some((if writes { "POST" } else { "GET" }.to_owned(), format!("/{operation}"))),
    }
}

/// What runs elsewhere is checked by the proxy; what we start is checked by who started it.
fn check_of(service: &system::Service) -> Option<config::HealthCheck> {
    let health = &service.health;
    let kind = match &health.check {
        system::Check::Http { path } => config::HealthKind::Http {
            path: path.clone(),
            host: String::new(),
            status_min: 200,
            status_max: 299,
        },
        system::Check::Grpc { service } => config::HealthKind::Grpc { service: service.clone() },
        system::Check::Tcp => config::HealthKind::Tcp,
        // A log or a command belongs to a process, and there is none.
        system::Check::None | system::Check::Log { .. } | system::Check::Command { .. } => return None,
    };
    Some(config::HealthCheck {
        kind,
        interval: health.every,
        timeout: health.timeout,
        unhealthy_after: health.unhealthy_after,
        healthy_after: health.healthy_after,
    })
}

/// `10.0.0.5:80` or `cart.internal:80`. The resolver of the file has refused everything else.
fn address_of(text: &str) -> Option<config::Address> {
    if let Ok(address) = text.parse() {
        return Some(config::Address::Ip(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    Some(config::Address::Name(host.to_owned(), port.parse().ok()?))
}

fn redirect(to: &str, status: u16) -> config::Redirect {
    let path = |path: &str| Some(config::PathEdit::Replace(path.to_owned()));
    match to.split_once("://") {
        Some((scheme, rest)) => {
            let (host, rest) = rest.split_once('/').map_or((rest, None), |(host, rest)| (host, Some(rest)));
            config::Redirect {
                status,
                scheme: Some(scheme.to_owned()),
                host: Some(host.to_owned()),
                path: rest.and_then(|it| path(&format!("/{it}"))),
            }
        }
        None => config::Redirect { status, scheme: None, host: None, path: path(to) },
    }
}

fn matches_of(route: &system::Route) -> config::Match {
    let values = |list: &[(String, Option<String>)]| {
        list.iter()
            .map(|(name, value)| config::ValueMatch {
                name: name.clone(),
                rule: value.clone().map_or(config::ValueRule::Present, config::ValueRule::Exact),
            })
            .collect()
    };
    config::Match {
        hosts: route.hosts.clone(),
        path: match &route.path {
            system::PathMatch::Prefix(path) => config::PathMatch::Prefix(path.clone()),
            system::PathMatch::Exact(path) => config::PathMatch::Exact(path.clone()),
            system::PathMatch::Template(path) => config::PathMatch::Template(path.clone()),
            system::PathMatch::Regex(pattern) => config::PathMatch::Regex(pattern.clone()),
        },
        methods: route.methods.clone(),
        headers: values(&route.headers),
        query: values(&route.query),
        cookies: values(&route.cookies),
    }
}

/// The share of what one or the other takes: two losses of 10 % are one of 19 %.
pub fn either(a: Percent, b: Percent) -> Percent {
    let passes = (1.0 - a.fraction().min(1.0)) * (1.0 - b.fraction().min(1.0));
    Percent::from_millionths(((1.0 - passes) * 1e6).round() as u64)
}

#[cfg(test)]
mod tests;
