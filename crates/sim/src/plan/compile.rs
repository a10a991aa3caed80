//! From a resolved [`System`] to a [`Plan`].
//!
//! The model has already refused names that nobody defined; what is left to refuse here is what a forecast cannot
//! honour: arrivals nobody recorded, laws without values, a gateway's traffic that no route takes.

use super::network::{INTERNET_PRICE_PER_GB, links, locations};
use super::scale_of::scale;
use super::*;
use model::span::Span;
use model::system as m;
use model::system::System;
use policy::settings::{Balance, BalanceKind, Locality};
use std::collections::HashMap;
use units::Id;

/// Why a model cannot be forecast. The place is where the model says what cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    pub at: Span,
    pub message: String,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PlanError {}

/// Reads the arrival times of a recorded traffic by its file's name; the caller does the reading.
pub type Recordings<'a> = &'a dyn Fn(&str) -> Result<Vec<Nanos>, String>;

/// Bounds on what one plan may hold; beyond them a model is a mistake, or needs a machine we do not have.
const LOCATIONS_MAX: usize = 1_000;
const INSTANCES_MAX: u64 = 1_000_000;

/// Turns a model into tables. All mistakes are reported at once.
pub fn compile(system: &System, recordings: Recordings<'_>) -> Result<Plan, Vec<PlanError>> {
    let locations = locations(system);
    let mut compiler = Compiler {
        system,
        errors: Vec::new(),
        edge_of: HashMap::new(),
        pair_of: HashMap::new(),
        plan: Plan {
            system: system.name.clone(),
            links: Vec::new(),
            locations,
            stations: Vec::new(),
            instances: Vec::new(),
            operations: Vec::new(),
            steps: Vec::new(),
            calls: Vec::new(),
            targets: Vec::new(),
            edges: Vec::new(),
            pairs: Vec::new(),
            loads: Vec::new(),
            scenarios: Vec::new(),
            internet_price_per_gb: system.network.internet_price_per_gb.unwrap_or(INTERNET_PRICE_PER_GB),
            dns: system.network.dns.map(|it| DnsPlan {
                ttl: it.ttl,
                latency: it.latency,
                failures: it.failures.fraction().min(1.0),
            }),
            tls: system.network.tls.map(|it| TlsPlan { handshake: it.handshake }),
        },
    };
    if compiler.plan.locations.len() > LOCATIONS_MAX {
        let count = compiler.plan.locations.len();
        compiler.refuse(
            Span::default(),
            format!("{count} places are more than the {LOCATIONS_MAX} a forecast can hold; merge zones"),
        );
        return Err(compiler.errors);
    }
    compiler.plan.links = links(system, &compiler.plan.locations);
    compiler.services();
    compiler.scripts();
    compiler.gateways();
    compiler.users(recordings);
    compiler.scenarios();
    if compiler.errors.is_empty() { Ok(compiler.plan) } else { Err(compiler.errors) }
}

struct Compiler<'s> {
    system: &'s System,
    plan: Plan,
    errors: Vec<PlanError>,
    edge_of: HashMap<(u32, u32, u32, Option<Nanos>), u32>,
    pair_of: HashMap<(u32, u32), u32>,
}

impl Compiler<'_> {
    fn refuse(&mut self, at: Span, message: String) {
        self.errors.push(PlanError { at, message });
    }

    fn sampler(&mut self, law: &Dist, at: Span) -> Sampler {
        match law.sampler() {
            Ok(sampler) => sampler,
            Err(why) => {
                self.refuse(at, why.to_string());
                Dist::Fixed(Nanos::ZERO).sampler().expect("a fixed law needs no values")
            }
        }
    }

    fn services(&mut self) {
        let system = self.system;
        for (id, service) in system.services.enumerate() {
            let station = id.as_u32();
            let instances = self.place(station, service);
            let first = self.plan.operations.len() as u32;
            for operation in service.operations.iter() {
                let work = self.sampler(&operation.work, operation.span);
                self.plan.operations.push(Operation {
                    station,
                    name: operation.name.value.clone(),
                    law: operation.work.clone(),
                    work,
                    script: Span32::default(),
                    request_bytes: operation.request.as_u64(),
                    response_bytes: operation.response.as_u64(),
                    errors: operation.errors.fraction(),
                    idempotent: operation.idempotent,
                    writes: operation.writes,
                    priority: operation.priority.or(service.priority),
                });
            }
            if service.operations.is_empty() {
                // Something that can be called and says nothing of itself answers at once.
                let nothing = self.plain_operation(station, "any", Span32::default());
                self.plan.operations.push(nothing);
            }
            let no_check = service.health.check == m::Check::None;
            let slo = service.slo.as_ref();
            let versions = service.versions.iter().map(|version| VersionPlan {
                name: version.name.value.clone(),
                weight: version.weight,
                work: version.work.map_or(1.0, Percent::fraction),
                errors: version.errors.map(Percent::fraction),
            });
            let everywhere =
                service.discovery == m::Discovery::Everywhere || service.placement == m::Placement::Global;
            self.plan.stations.push(Station {
                name: service.name.value.clone(),
                kind: StationKind::Service(service.kind),
                instances,
                operations: Span32 { from: first, to: self.plan.operations.len() as u32 },
                concurrency: service.concurrency.as_ref().map_or(u32::MAX, |it| it.value.max(1)),
                cores: service.cores.as_ref().map(|it| it.value.max(1)),
                queue: service.queue.value,
                everywhere,
                same_zone: service.reach == m::Reach::SameZone,
                health: HealthPlan {
                    every: if no_check { Nanos::MAX } else { service.health.every },
                    timeout: service.health.timeout,
                    healthy_after: service.health.healthy_after,
                    unhealthy_after: service.health.unhealthy_after,
                },
                cache: service.cache.as_ref().map(cache_plan),
                store: service
                    .store
                    .as_ref()
                    .map(|it| StorePlan { copies: it.copies, consistency: it.consistency }),
                topic: None,
                autoscale: service.autoscale.as_ref().map(scale),
                versions: versions.collect(),
                availability: slo.and_then(|it| it.availability.as_ref()).map(|it| it.value),
                latency: slo
                    .map_or_else(Vec::new, |it| it.latency.iter().map(|(q, at)| (*q, at.value)).collect()),
                slo_window: slo.map_or(Nanos::from_secs(30 * 86_400), |it| it.window),
                price_per_hour: service.price_per_hour.unwrap_or(Money::ZERO),
                external: service.kind == m::Kind::External,
            });
        }
    }

    fn plain_operation(&self, station: u32, name: &str, script: Span32) -> Operation {
        let law = Dist::Fixed(Nanos::ZERO);
        Operation {
            station,
            name: name.to_owned(),
            work: law.sampler().expect("a fixed law needs no values"),
            law,
            script,
            request_bytes: 0,
            response_bytes: 0,
            errors: 0.0,
            idempotent: true,
            writes: false,
            priority: None,
        }
    }

    /// Instances in the file's order of regions, then the spare ones that scaling may add.
    fn place(&mut self, station: u32, service: &m::Service) -> Span32 {
        let from = self.plan.instances.len() as u32;
        let zones_of =
            |region: usize| self.system.regions.get(Id::from_usize(region)).map_or(1, |it| it.zones.len());
        let mut places: Vec<(u16, bool)> = Vec::new();
        match service.placement {
            m::Placement::Global => places.push((self.everywhere(), true)),
            m::Placement::Region => {
                let here = |region: &usize| service.replicas.per_region.get(*region).is_some_and(|n| *n > 0);
                let regions = 0..self.system.regions.len();
                let mut some: Vec<usize> = regions.clone().filter(here).collect();
                if some.is_empty() {
                    some = regions.collect();
                }
                places.extend(some.into_iter().map(|region| (self.region_location(region), true)));
            }
            m::Placement::Zones => {
                let wanted = self.most_ever(station, service);
                if wanted > INSTANCES_MAX {
                    self.refuse(
                        service.span,
                        format!(
                            "`{}` would have {wanted} instances, more than the {INSTANCES_MAX} a forecast can hold",
                            service.name.value
                        ),
                    );
                    return Span32 { from, to: from };
                }
                let mut index = 0usize;
                for (region, count) in service.replicas.per_region.iter().enumerate() {
                    for _ in 0..*count {
                        places.push((self.zone_location(region, index % zones_of(region)), true));
                        index += 1;
                    }
                }
                // Spares go where instances are, region by region in turn.
                let counts = service.replicas.per_region.iter().enumerate();
                let mut homes: Vec<usize> =
                    counts.filter(|(_, count)| **count > 0).map(|(region, _)| region).collect();
                if homes.is_empty() {
                    homes.push(0);
                }
                while (places.len() as u64) < wanted {
                    let region = homes[places.len() % homes.len()];
                    places.push((self.zone_location(region, index % zones_of(region)), false));
                    index += 1;
                }
            }
        }
        let versions = deal_versions(&service.versions, places.len());
        for (number, (location, initial)) in places.into_iter().enumerate() {
            self.plan.instances.push(InstancePlan {
                station,
                name: format!("{}#{number}", service.name.value),
                location,
                version: versions.get(number).copied().unwrap_or(0),
                initial,
            });
        }
        Span32 { from, to: self.plan.instances.len() as u32 }
    }

    /// The most instances a run could want: as placed, as autoscaling may, as any scenario says.
    fn most_ever(&self, station: u32, service: &m::Service) -> u64 {
        let scaled = self.system.scenarios.iter().flat_map(|it| &it.events).filter_map(|event| match &event
            .fault
            .value
        {
            m::Fault::Scale(service, count) if service.as_u32() == station => Some(*count),
            _ => None,
        });
        let most = scaled.chain(service.autoscale.as_ref().map(|it| it.max)).max().unwrap_or(0);
        u64::from(most.max(service.replicas.total()))
    }

    fn zone_location(&self, region: usize, zone: usize) -> u16 {
        let before: usize = self.system.regions.iter().take(region).map(|it| it.zones.len()).sum();
        (before + zone) as u16
    }

    fn region_location(&self, region: usize) -> u16 {
        let zones: usize = self.system.regions.iter().map(|it| it.zones.len()).sum();
        (zones + region) as u16
    }

    fn everywhere(&self) -> u16 {
        (self.plan.locations.len() - 2) as u16
    }

    fn outside(&self) -> u16 {
        (self.plan.locations.len() - 1) as u16
    }

    fn scripts(&mut self) {
        let system = self.system;
        for (id, service) in system.services.enumerate() {
            let first = self.plan.stations[id.index()].operations.from;
            for (index, operation) in service.operations.enumerate() {
                let script = self.steps(m::Caller::Service(id), &operation.calls, operation.span);
                self.plan.operations[first as usize + index.index()].script = script;
            }
            if let Some(topic) = &service.topic {
                let consumers: Vec<Call> = topic
                    .consumers
                    .iter()
                    .map(|(service, operation)| {
                        let operation = operation.as_ref().map(|it| it.value);
                        let targets = self.targets(
                            Some(m::Caller::Service(id)),
                            id.as_u32(),
                            service.value,
                            operation,
                            None,
                        );
                        Call { detached: true, ..plain_call(targets) }
                    })
                    .collect();
                let from = self.plan.calls.len() as u32;
                self.plan.calls.extend(consumers);
                self.plan.stations[id.index()].topic = Some(TopicPlan {
                    partitions: topic.partitions.max(1),
                    retention: topic.retention,
                    consumers: Span32 { from, to: self.plan.calls.len() as u32 },
                });
            }
        }
    }

    fn steps(&mut self, caller: m::Caller, steps: &[m::Step], at: Span) -> Span32 {
        let mut flat = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                m::Step::Work(law) => flat.push(Step::Work(law.clone(), self.sampler(law, at))),
                m::Step::Call(call) => flat.push(Step::Call(self.call(caller, call))),
                m::Step::All(inner) => {
                    let mut leaves = Vec::new();
                    self.leaves(caller, inner, at, &mut leaves);
                    let from = self.plan.steps.len() as u32;
                    self.plan.steps.extend(leaves);
                    flat.push(Step::All(Span32 { from, to: self.plan.steps.len() as u32 }));
                }
            }
        }
        let from = self.plan.steps.len() as u32;
        self.plan.steps.extend(flat);
        Span32 { from, to: self.plan.steps.len() as u32 }
    }

    /// All of all at once is all at once, so nesting adds nothing.
    fn leaves(&mut self, caller: m::Caller, steps: &[m::Step], at: Span, leaves: &mut Vec<Step>) {
        for step in steps {
            match step {
                m::Step::Work(law) => leaves.push(Step::Work(law.clone(), self.sampler(law, at))),
                m::Step::Call(call) => leaves.push(Step::Call(self.call(caller, call))),
                m::Step::All(inner) => self.leaves(caller, inner, at, leaves),
            }
        }
    }

    fn call(&mut self, caller: m::Caller, call: &m::Call) -> u32 {
        let station = self.plan.station_of(caller);
        let service = call.service.value;
        let operation = call.operation.as_ref().map(|it| it.value);
        let targets = self.targets(Some(caller), station, service, operation, None);
        let instead = match &call.fallback {
            Some(m::Fallback::Call(other)) => {
                let targets = self.targets(Some(caller), station, *other, None, None);
                self.plan.calls.push(plain_call(targets));
                self.plan.calls.len() as u32 - 1
            }
            _ => NONE,
        };
        let version = call.version.as_ref().and_then(|name| self.version(service, &name.value));
        self.plan.calls.push(Call {
            targets,
            optional: call.optional,
            fallback: call.fallback.is_some(),
            instead,
            chance: call.chance.fraction(),
            times: call.times.max(1),
            detached: call.detached,
            version,
        });
        self.plan.calls.len() as u32 - 1
    }

    fn version(&self, service: m::ServiceId, name: &str) -> Option<u16> {
        let versions = &self.system.services[service].versions;
        versions.iter().position(|it| it.name.value == name).map(|it| it as u16)
    }

    /// One operation, or all of a service's in equal shares.
    fn targets(
        &mut self,
        caller: Option<m::Caller>,
        station: u32,
        service: m::ServiceId,
        operation: Option<m::OperationId>,
        timeout: Option<Nanos>,
    ) -> Span32 {
        let operations = self.plan.stations[service.index()].operations;
        let chosen: Vec<u32> = match operation {
            Some(operation) => vec![operations.from + operation.as_u32()],
            None => operations.iter().collect(),
        };
        let from = self.plan.targets.len() as u32;
        for (n, operation) in chosen.into_iter().enumerate() {
            let edge = self.edge(caller, station, service, operation, timeout);
            self.plan.targets.push(Target { until: n as u32 + 1, edge, version: None });
        }
        Span32 { from, to: self.plan.targets.len() as u32 }
    }

    /// `timeout` is a route's own, which is more specific than any entry of `edges`.
    fn edge(
        &mut self,
        caller: Option<m::Caller>,
        station: u32,
        service: m::ServiceId,
        operation: u32,
        timeout: Option<Nanos>,
    ) -> u32 {
        let callee = service.as_u32();
        if let Some(edge) = self.edge_of.get(&(station, callee, operation, timeout)) {
            return *edge;
        }
        let first = self.plan.stations[service.index()].operations.from;
        let of_model =
            (!self.system.services[service].operations.is_empty()).then(|| Id::new(operation - first));
        let mut settings = self.system.policy(caller, service, of_model).settings;
        if timeout.is_some() {
            settings.timeout = timeout;
        }
        let multiplexed =
            matches!(self.system.services[service].protocol, m::Protocol::Http2 | m::Protocol::Grpc);
        let together = self.system.policy(caller, service, None).settings;
        let pair = self.pair(station, callee, together, multiplexed);
        self.plan.edges.push(Edge { caller: station, callee, operation, pair, settings });
        let edge = self.plan.edges.len() as u32 - 1;
        self.edge_of.insert((station, callee, operation, timeout), edge);
        edge
    }

    fn pair(&mut self, caller: u32, callee: u32, settings: EdgeSettings, multiplexed: bool) -> u32 {
        *self.pair_of.entry((caller, callee)).or_insert_with(|| {
            self.plan.pairs.push(Pair { caller, callee, settings, multiplexed });
            self.plan.pairs.len() as u32 - 1
        })
    }

    /// One instance a region. Its operations are the requests that traffic makes of it.
    fn gateways(&mut self) {
        let system = self.system;
        for gateway in system.gateways.iter() {
            let station = self.plan.stations.len() as u32;
            let from = self.plan.instances.len() as u32;
            for region in 0..system.regions.len() {
                let location = self.region_location(region);
                let name =
                    format!("{}@{}", gateway.name.value, system.regions[Id::from_usize(region)].name.value);
                self.plan.instances.push(InstancePlan { station, name, location, version: 0, initial: true });
            }
            self.plan.stations.push(Station {
                kind: StationKind::Gateway,
                instances: Span32 { from, to: self.plan.instances.len() as u32 },
                everywhere: false,
                ..users_station(&gateway.name.value)
            });
        }
        for (id, gateway) in system.gateways.enumerate() {
            let caller = m::Caller::Gateway(id);
            let station = self.plan.station_of(caller);
            let mut requests: Vec<(String, Span)> = Vec::new();
            for traffic in system.traffic.iter().filter(|it| it.to.value == caller) {
                let request = traffic.request.as_ref().map_or("GET /", |it| it.value.as_str());
                if !requests.iter().any(|(known, _)| known == request) {
                    requests.push((request.to_owned(), traffic.span));
                }
            }
            let mut operations = Vec::new();
            for (request, at) in requests {
                let script = self.route(caller, station, gateway, &request, at);
                operations.push(self.plain_operation(station, &request, script));
            }
            let from = self.plan.operations.len() as u32;
            self.plan.operations.extend(operations);
            self.plan.stations[station as usize].operations =
                Span32 { from, to: self.plan.operations.len() as u32 };
        }
    }

    /// The script of one request through a gateway: the call its route makes, and the mirrored copy nobody waits for.
    fn route(
        &mut self,
        caller: m::Caller,
        station: u32,
        gateway: &m::Gateway,
        request: &str,
        at: Span,
    ) -> Span32 {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        let path = path.trim();
        let Some(route) = gateway.routes.iter().find(|route| takes(route, method, path)) else {
            self.refuse(
                at,
                format!(
                    "no route of `{}` takes `{request}`; add one, or change the traffic",
                    gateway.name.value
                ),
            );
            return Span32::default();
        };
        let targets = match &route.action {
            m::Action::To(targets) => targets,
            m::Action::Redirect { .. } | m::Action::Reply { .. } => return Span32::default(),
        };
        let rewritten = match (&route.rewrite, &route.path) {
            (Some(to), m::PathMatch::Prefix(prefix)) => {
                format!(
                    "{}{}",
                    to.trim_end_matches('/'),
                    path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path)
                )
            }
            (Some(to), _) => to.clone(),
            (None, _) => path.to_owned(),
        };
        let timeout = route.timeout.as_ref().map(|it| it.value);
        let from = self.plan.targets.len() as u32;
        let mut until = 0;
        for target in targets.iter().filter(|it| it.weight > 0) {
            let service = target.service.value;
            let Some(operation) = self.operation_for(service, method, &rewritten, at) else { continue };
            let version = target.version.as_ref().and_then(|name| self.version(service, &name.value));
            until += target.weight;
            let edge = self.edge(Some(caller), station, service, operation, timeout);
            self.plan.targets.push(Target { until, edge, version });
        }
        let call = plain_call(Span32 { from, to: self.plan.targets.len() as u32 });
        let mut calls = vec![call];
        if let Some((service, share)) = &route.mirror
            && let Some(operation) = self.operation_for(*service, method, &rewritten, at)
        {
            let edge = self.edge(Some(caller), station, *service, operation, timeout);
            let from = self.plan.targets.len() as u32;
            self.plan.targets.push(Target { until: 1, edge, version: None });
            let targets = Span32 { from, to: from + 1 };
            calls.insert(0, Call { chance: share.fraction(), detached: true, ..plain_call(targets) });
        }
        let from = self.plan.steps.len() as u32;
        for call in calls {
            self.plan.calls.push(call);
            self.plan.steps.push(Step::Call(self.plan.calls.len() as u32 - 1));
        }
        Span32 { from, to: self.plan.steps.len() as u32 }
    }

    /// The operation of `service` that serves a request line; its only one serves everything.
    fn operation_for(&mut self, service: m::ServiceId, method: &str, path: &str, at: Span) -> Option<u32> {
        let operations = self.plan.stations[service.index()].operations;
        if operations.len() == 1 {
            return Some(operations.from);
        }
        let wanted = format!("{method} {path}");
        let fits = |name: &str| match name.split_once(' ') {
            Some((named, template)) => named == method && fits_template(template, path),
            None => name == wanted || name == path,
        };
        let found = operations.iter().find(|it| fits(&self.plan.operations[*it as usize].name));
        if found.is_none() {
            let names: Vec<String> =
                operations.iter().map(|it| format!("`{}`", self.plan.operations[it as usize].name)).collect();
            let service = &self.system.services[service].name.value;
            self.refuse(
                at,
                format!("`{service}` has no operation for `{wanted}`; it has {}", names.join(", ")),
            );
        }
        found
    }

    fn users(&mut self, recordings: Recordings<'_>) {
        let system = self.system;
        for traffic in system.traffic.iter() {
            let station = self.plan.stations.len() as u32;
            let location = match traffic.from {
                Some(region) => self.region_location(region.index()),
                // A file without places says nothing of a world outside them: its users are where its services are.
                None if is_one_place(system) => self.region_location(0),
                None => self.outside(),
            };
            let from = self.plan.instances.len() as u32;
            let name = traffic.name.value.clone();
            self.plan.instances.push(InstancePlan {
                station,
                name: name.clone(),
                location,
                version: 0,
                initial: true,
            });
            self.plan
                .stations
                .push(Station { instances: Span32 { from, to: from + 1 }, ..users_station(&name) });
            let script = self.users_script(station, traffic);
            let operation = self.plan.operations.len() as u32;
            let request = traffic.request.as_ref().map_or("request", |it| it.value.as_str());
            let users = self.plain_operation(station, request, script);
            self.plan.operations.push(users);
            self.plan.stations[station as usize].operations = Span32 { from: operation, to: operation + 1 };
            let kind = match &traffic.load {
                m::Load::Open { rate, shape, arrivals } => LoadKind::Open {
                    rate: rate.value.per_second(),
                    shape: shape.clone(),
                    constant: *arrivals == m::Arrivals::Constant,
                },
                m::Load::Closed { users, think } => {
                    LoadKind::Closed { users: users.value, think: self.sampler(think, traffic.span) }
                }
                m::Load::Recorded { file } => match recordings(&file.value) {
                    Ok(mut arrivals) => {
                        arrivals.sort_unstable();
                        LoadKind::Recorded { arrivals }
                    }
                    Err(why) => {
                        self.refuse(file.span, format!("the arrivals of `{name}`: {why}"));
                        LoadKind::Recorded { arrivals: Vec::new() }
                    }
                },
            };
            self.plan.loads.push(LoadPlan { name, station, kind, priority: traffic.priority });
        }
    }

    fn users_script(&mut self, station: u32, traffic: &m::Traffic) -> Span32 {
        let targets = match traffic.to.value {
            m::Caller::Service(service) => {
                let operation = traffic.request.as_ref().and_then(|request| {
                    let (method, path) =
                        request.value.split_once(' ').unwrap_or(("", request.value.as_str()));
                    let operations = &self.system.services[service].operations;
                    match operations.enumerate().find(|(_, it)| it.name.value == request.value) {
                        Some((id, _)) => Some(id),
                        None => {
                            let first = self.plan.stations[service.index()].operations.from;
                            let found = self.operation_for(service, method, path, traffic.span)?;
                            (!self.system.services[service].operations.is_empty())
                                .then(|| Id::new(found - first))
                        }
                    }
                });
                self.targets(None, station, service, operation, None)
            }
            m::Caller::Gateway(gateway) => {
                let callee = self.plan.station_of(m::Caller::Gateway(gateway));
                let request = traffic.request.as_ref().map_or("GET /", |it| it.value.as_str());
                let operations = self.plan.stations[callee as usize].operations;
                let found = operations.iter().find(|it| self.plan.operations[*it as usize].name == request);
                let settings = plain_users_settings(traffic.from.is_some());
                let pair = self.pair(station, callee, settings.clone(), true);
                let operation = found.unwrap_or(operations.from);
                self.plan.edges.push(Edge { caller: station, callee, operation, pair, settings });
                let from = self.plan.targets.len() as u32;
                self.plan.targets.push(Target {
                    until: 1,
                    edge: self.plan.edges.len() as u32 - 1,
                    version: None,
                });
                Span32 { from, to: from + 1 }
            }
        };
        self.plan.calls.push(plain_call(targets));
        let from = self.plan.steps.len() as u32;
        self.plan.steps.push(Step::Call(self.plan.calls.len() as u32 - 1));
        Span32 { from, to: from + 1 }
    }

    fn scenarios(&mut self) {
        for scenario in &self.system.scenarios {
            let mut events = scenario.events.clone();
            events.sort_by_key(|it| it.at);
            self.plan.scenarios.push(ScenarioPlan {
                name: scenario.name.value.clone(),
                events,
                expect: scenario.expect.iter().map(|it| it.value.clone()).collect(),
                lasts: scenario.lasts,
            });
        }
    }
}

/// No `places`: one region of one zone that nobody named.
fn is_one_place(system: &System) -> bool {
    let regions: Vec<&m::Region> = system.regions.iter().collect();
    matches!(regions.as_slice(), [only] if only.name.value == "local" && only.zones.len() == 1)
}

fn plain_call(targets: Span32) -> Call {
    Call {
        targets,
        optional: false,
        fallback: false,
        instead: NONE,
        chance: 1.0,
        times: 1,
        detached: false,
        version: None,
    }
}

/// Users have no proxy of ours: no retries, no time-out, no memory of who failed; DNS deals them to the gateways.
fn plain_users_settings(near: bool) -> EdgeSettings {
    EdgeSettings {
        eject: None,
        balance: Balance { kind: BalanceKind::Random, slow_start: Nanos::ZERO, panic: Percent::ZERO },
        locality: if near { Locality::PreferRegion } else { Locality::Any },
        connections: u32::MAX,
        ..EdgeSettings::default()
    }
}

fn users_station(name: &str) -> Station {
    Station {
        name: name.to_owned(),
        kind: StationKind::Users,
        instances: Span32::default(),
        operations: Span32::default(),
        concurrency: u32::MAX,
        cores: None,
        queue: Queue::default(),
        everywhere: true,
        same_zone: false,
        health: HealthPlan {
            every: Nanos::from_secs(2),
            timeout: Nanos::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
        },
        cache: None,
        store: None,
        topic: None,
        autoscale: None,
        versions: Vec::new(),
        availability: None,
        latency: Vec::new(),
        slo_window: Nanos::from_secs(30 * 86_400),
        price_per_hour: Money::ZERO,
        external: false,
    }
}

fn cache_plan(cache: &m::Cache) -> CachePlan {
    let bounded = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    CachePlan {
        hit_rate: cache.hit_rate.map(Percent::fraction),
        keys: cache.keys.map(bounded),
        capacity: cache.capacity.map_or(1_000, bounded),
        zipf: cache.zipf.unwrap_or(0.9),
        ttl: cache.ttl,
    }
}

/// Which version each instance runs: fixed numbers first, the rest by weight, always to the one that lacks most, so that
/// every zone gets its mix.
fn deal_versions(versions: &[m::Version], instances: usize) -> Vec<u16> {
    if versions.is_empty() {
        return vec![0; instances];
    }
    let fixed: u32 = versions.iter().filter_map(|it| it.replicas).sum();
    let rest = (instances as f64 - f64::from(fixed)).max(0.0);
    let weight: f64 = versions.iter().filter(|it| it.replicas.is_none()).map(|it| it.weight.fraction()).sum();
    let share = |it: &m::Version| match it.replicas {
        Some(replicas) => f64::from(replicas),
        None if weight > 0.0 => rest * it.weight.fraction() / weight,
        None => 0.0,
    };
    let mut dealt = vec![0.0; versions.len()];
    (0..instances)
        .map(|n| {
            let lacks = |v: usize| share(&versions[v]) * (n as f64 + 1.0) / instances as f64 - dealt[v];
            let most = (0..versions.len())
                .max_by(|a, b| lacks(*a).total_cmp(&lacks(*b)).then(b.cmp(a)))
                .unwrap_or(0);
            dealt[most] += 1.0;
            most as u16
        })
        .collect()
}

/// Whether a route takes a request that carries nothing but its method and path.
fn takes(route: &m::Route, method: &str, path: &str) -> bool {
    let bare = path.split('?').next().unwrap_or(path);
    let path_fits = match &route.path {
        m::PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            bare.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        m::PathMatch::Exact(exact) => bare == exact,
        m::PathMatch::Template(template) => fits_template(template, bare),
        m::PathMatch::Regex(pattern) => {
            regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(bare))
        }
    };
    path_fits
        && (route.methods.is_empty() || route.methods.iter().any(|it| it.eq_ignore_ascii_case(method)))
        && route.headers.is_empty()
        && route.query.is_empty()
        && route.cookies.is_empty()
}

/// `/cart/{id}` takes `/cart/42`, and itself.
fn fits_template(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('?').next().unwrap_or(path).split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(w), Some(g)) if w == g || w.starts_with('{') && w.ends_with('}') && !g.is_empty() => {}
            _ => return false,
        }
    }
}
