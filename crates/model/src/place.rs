//! # place: which instances there are, where they stand, and who reaches whom
//!
//! In: a system. Out: every instance with its region and zone, and every pair of instances of which one calls the
//! other. The rule has few parts, most of them a word of the file:
//!
//! - `placement` deals instances to zones in turn (the count runs on from region to region; `replicas: {eu-west/a: 3}`
//!   pins a region's to one zone), or puts one in each region outside all zones, or one in no region at all.
//! - `discovery` says which registries a service uses: those of its own region, or all. Two instances can meet if
//!   they share a registry; what stands in no region uses all.
//! - What is `external` is somebody else's: one for the world, whatever the file says of replicas.
//! - `reach: same-zone` keeps a caller to targets whose zone has its own zone's name; what is in no zone only
//!   matches what is in no zone.
//!
//! It decides nothing about load: who of those it may call is called is the balancer's business.

use std::collections::BTreeMap;
use std::fmt;

use crate::system::{
    Action, Call, Discovery, Fallback, GatewayId, Kind, Placement, Reach, RegionId, Service, ServiceId, Step,
    System,
};

/// More instances than this are a mistake of the file, not a system to draw.
pub const INSTANCES_MAX: usize = 200_000;
/// Two services of a thousand instances each have a million pairs; beyond some millions nobody can use the answer.
pub const WIRES_MAX: usize = 4_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub service: ServiceId,
    /// Counts up over all regions.
    pub index: u32,
    /// `None`: in no region.
    pub region: Option<RegionId>,
    /// Index into the region's zones; `None`: in no zone.
    pub zone: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// In the order of services, then of `index`.
    pub instances: Vec<Instance>,
    /// Indices into `instances`, caller first; each pair once.
    pub wires: Vec<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    Instances { asked: u64 },
    Wires,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TooMany::Instances { asked } => {
                write!(
                    f,
                    "{asked} instances are more than can be drawn ({INSTANCES_MAX}): draw `--level service`"
                )
            }
            TooMany::Wires => {
                write!(f, "more than {WIRES_MAX} pairs of instances call each other: draw `--level service`")
            }
        }
    }
}

impl std::error::Error for TooMany {}

/// How a service depends on another, all its reasons taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub to: ServiceId,
    /// Some call of it waits for the answer and cannot do without.
    pub waits: bool,
    /// Calls written in the file: none for what is only needed to start.
    pub calls: usize,
    /// What is called, as the file names it; a service called as a whole adds nothing here.
    pub operations: Vec<String>,
}

/// What a service calls or needs, in the order the file says it first.
pub fn dependencies(system: &System, service: ServiceId) -> Vec<Dependency> {
    let mut found = Dependencies::default();
    let it = &system.services[service];
    for operation in &it.operations {
        found.walk(system, &operation.calls);
    }
    if let Some(topic) = &it.topic {
        for (consumer, operation) in &topic.consumers {
            let name = operation
                .as_ref()
                .map(|id| system.services[consumer.value].operations[id.value].name.value.clone());
            found.add(consumer.value, false, name);
        }
    }
    for need in &it.needs {
        found.entry(need.service.value);
    }
    found.list
}

/// What a gateway passes requests on to.
pub fn gateway_dependencies(system: &System, gateway: GatewayId) -> Vec<Dependency> {
    let mut found = Dependencies::default();
    for route in &system.gateways[gateway].routes {
        if let Action::To(targets) = &route.action {
            for target in targets {
                found.add(target.service.value, true, None);
            }
        }
        if let Some((mirror, _)) = route.mirror {
            found.add(mirror, false, None);
        }
    }
    found.list
}

#[derive(Default)]
struct Dependencies {
    list: Vec<Dependency>,
    at: BTreeMap<ServiceId, usize>,
}

impl Dependencies {
    fn walk(&mut self, system: &System, steps: &[Step]) {
        let mut waiting: Vec<&Step> = steps.iter().rev().collect();
        while let Some(step) = waiting.pop() {
            match step {
                Step::Work(_) => {}
                Step::All(steps) => waiting.extend(steps.iter().rev()),
                Step::Call(call) => self.call(system, call),
            }
        }
    }

    fn call(&mut self, system: &System, call: &Call) {
        let to = call.service.value;
        let name =
            call.operation.as_ref().map(|id| system.services[to].operations[id.value].name.value.clone());
        self.add(to, !call.optional && !call.detached && call.fallback.is_none(), name);
        if let Some(Fallback::Call(instead)) = call.fallback {
            self.add(instead, false, None);
        }
    }

    fn add(&mut self, to: ServiceId, waits: bool, operation: Option<String>) {
        let entry = self.entry(to);
        entry.waits |= waits;
        entry.calls += 1;
        if let Some(operation) = operation
            && !entry.operations.contains(&operation)
        {
            entry.operations.push(operation);
        }
    }

    fn entry(&mut self, to: ServiceId) -> &mut Dependency {
        let at = *self.at.entry(to).or_insert_with(|| {
            self.list.push(Dependency { to, waits: false, calls: 0, operations: Vec::new() });
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

fn placement(service: &Service) -> Placement {
    if service.kind == Kind::External { Placement::Global } else { service.placement }
}

pub fn instances(system: &System) -> Result<Vec<Instance>, TooMany> {
    let asked: u64 = system
        .services
        .iter()
        .map(|service| match placement(service) {
            Placement::Zones => u64::from(service.replicas.total()),
            Placement::Region => service.replicas.per_region.len() as u64,
            Placement::Global => 1,
        })
        .sum();
    if asked > INSTANCES_MAX as u64 {
        return Err(TooMany::Instances { asked });
    }
    let mut instances = Vec::new();
    for (id, service) in system.services.enumerate() {
        let mut index = 0;
        match placement(service) {
            Placement::Global => instances.push(Instance { service: id, index, region: None, zone: None }),
            Placement::Region => {
                for (region, &count) in system.regions.ids().zip(&service.replicas.per_region) {
                    if count > 0 {
                        // Told apart by their regions, so each is the first.
                        instances.push(Instance { service: id, index, region: Some(region), zone: None });
                    }
                }
            }
            Placement::Zones => {
                for ((region, place), &count) in system.regions.enumerate().zip(&service.replicas.per_region)
                {
                    let zones = place.zones.len().max(1) as u32;
                    let pinned = service.replicas.pinned.get(region.index()).copied().flatten();
                    for _ in 0..count {
                        let zone = pinned.or(Some(index % zones));
                        instances.push(Instance { service: id, index, region: Some(region), zone });
                        index += 1;
                    }
                }
            }
        }
    }
    Ok(instances)
}

/// What decides who meets whom, of one instance.
#[derive(Clone, Copy, PartialEq, Eq)]
struct View<'a> {
    /// `None` sees the registries of all regions.
    registry: Option<RegionId>,
    /// The zone's name; `None` for what is in no zone.
    zone: Option<&'a str>,
}

impl<'a> View<'a> {
    fn of(system: &'a System, instance: &Instance) -> Self {
        let service = &system.services[instance.service];
        let registry = match (service.discovery, placement(service)) {
            (Discovery::Everywhere, _) | (_, Placement::Global) => None,
            (Discovery::Region, _) => instance.region,
        };
        let zone = instance.region.zip(instance.zone).and_then(|(region, zone)| {
            system.regions[region].zones.get(zone as usize).map(|name| name.value.as_str())
        });
        Self { registry, zone }
    }

    fn meets(&self, other: &View<'_>) -> bool {
        self.registry.is_none() || other.registry.is_none() || self.registry == other.registry
    }
}

pub fn place(system: &System) -> Result<Placed, TooMany> {
    let instances = instances(system)?;
    let views: Vec<View<'_>> = instances.iter().map(|it| View::of(system, it)).collect();
    // Instances of a service are contiguous.
    let mut range = vec![0..0; system.services.len()];
    for (at, instance) in instances.iter().enumerate() {
        let range = &mut range[instance.service.index()];
        *range = if range.start == range.end { at..at + 1 } else { range.start..at + 1 };
    }
    let mut wires = Vec::new();
    for (id, service) in system.services.enumerate() {
        let targets = dependencies(system, id);
        for caller in range[id.index()].clone() {
            for target in &targets {
                for callee in range[target.to.index()].clone() {
                    let (own, other) = (&views[caller], &views[callee]);
                    let reached = service.reach == Reach::Any || own.zone == other.zone;
                    if caller != callee && reached && own.meets(other) {
                        wires.push((caller, callee));
                    }
                }
                if wires.len() > WIRES_MAX {
                    return Err(TooMany::Wires);
                }
            }
        }
    }
    Ok(Placed { instances, wires })
}
