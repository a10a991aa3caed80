//! The plan: a model turned into flat tables of small numbers, so that the event loop looks nothing up by name.
//!
//! Everything that acts is a *station*: a service of the file, a gateway (one instance a region), and each traffic (one
//! instance, where its users are, whose "work" is to make one call). So a request is a tree of jobs from its user to the
//! last store, and one set of rules moves all of them.
//!
//! A plan is made once and shared by all replications; nothing in it changes while they run.

mod compile;
mod network;
mod scale_of;
mod utilisation;

pub use compile::{PlanError, Recordings, compile};
pub(crate) use network::is_in;
pub use utilisation::{Demand, demands};

use policy::settings::{EdgeSettings, Priority, Queue};
use units::{Dist, Money, Nanos, Percent, Sampler};

pub(crate) const NONE: u32 = u32::MAX;

/// A range of indices into one of the plan's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span32 {
    pub from: u32,
    pub to: u32,
}

impl Span32 {
    pub fn iter(self) -> std::ops::Range<u32> {
        self.from..self.to
    }

    pub fn len(self) -> u32 {
        self.to - self.from
    }

    pub fn is_empty(self) -> bool {
        self.from == self.to
    }
}

/// A model, ready to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub system: String,
    pub locations: Vec<Location>,
    /// From location i to location j: `links[i · locations + j]`.
    pub links: Vec<Link>,
    pub stations: Vec<Station>,
    pub instances: Vec<InstancePlan>,
    pub operations: Vec<Operation>,
    pub steps: Vec<Step>,
    pub calls: Vec<Call>,
    pub targets: Vec<Target>,
    pub edges: Vec<Edge>,
    pub pairs: Vec<Pair>,
    pub loads: Vec<LoadPlan>,
    pub scenarios: Vec<ScenarioPlan>,
    pub internet_price_per_gb: Money,
    /// `None`: names need no looking up.
    pub dns: Option<DnsPlan>,
    /// `None`: connections are not secured, and cost nothing to make.
    pub tls: Option<TlsPlan>,
}

/// How callers find where a service is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DnsPlan {
    /// An answer is good for this long.
    pub ttl: Nanos,
    pub latency: Nanos,
    /// Share of look-ups that nobody answers.
    pub failures: f64,
}

/// What securing a connection costs, beside one more round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// Work at both ends together.
    pub handshake: Nanos,
}

/// Somewhere an instance can stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub name: String,
    /// `None`: everywhere at once, or outside every place.
    pub region: Option<u16>,
    /// `None`: the region as a whole (a load balancer).
    pub zone: Option<u16>,
    /// The zone's own name, for `reach: same-zone`.
    pub zone_name: String,
    pub outside: bool,
}

/// One way from one location to another, before any fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub one_way: Nanos,
    /// Share by which the delay varies, up and down.
    pub jitter: f64,
    pub loss: f64,
    pub nanos_per_byte: f64,
    pub price_per_gb: Money,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StationKind {
    /// A service of the file.
    Service(model::system::Kind),
    Gateway,
    /// The users of one traffic.
    Users,
}

#[derive(Clone, Debug)]
pub struct Station {
    pub name: String,
    pub kind: StationKind,
    /// Standing and spare ones (for autoscaling and `scale`); those beyond `initial` of each region start absent.
    pub instances: Span32,
    pub operations: Span32,
    pub concurrency: u32,
    /// That the work of one instance shares.
    pub cores: Option<u32>,
    pub queue: Queue,
    pub everywhere: bool,
    pub same_zone: bool,
    pub health: HealthPlan,
    pub cache: Option<CachePlan>,
    pub store: Option<StorePlan>,
    pub topic: Option<TopicPlan>,
    pub autoscale: Option<policy::settings::scale::Scale>,
    pub versions: Vec<VersionPlan>,
    pub availability: Option<Percent>,
    pub latency: Vec<(Percent, Nanos)>,
    pub slo_window: Nanos,
    pub price_per_hour: Money,
    pub external: bool,
}

/// How soon callers learn that an instance died or came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPlan {
    pub every: Nanos,
    pub timeout: Nanos,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

#[derive(Clone, Debug)]
pub struct VersionPlan {
    pub name: String,
    pub weight: Percent,
    pub work: f64,
    pub errors: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct InstancePlan {
    pub station: u32,
    pub name: String,
    pub location: u16,
    pub version: u16,
    /// Stands from the start; otherwise it waits to be scaled in.
    pub initial: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CachePlan {
    pub hit_rate: Option<f64>,
    pub keys: Option<u32>,
    pub capacity: u32,
    pub zipf: f64,
    pub ttl: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorePlan {
    pub copies: u32,
    pub consistency: model::system::Consistency,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    pub partitions: u32,
    pub retention: Option<Nanos>,
    /// The calls that deliver one message to each consumer.
    pub consumers: Span32,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub station: u32,
    pub name: String,
    pub law: Dist,
    pub work: Sampler,
    pub script: Span32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub errors: f64,
    pub idempotent: bool,
    pub writes: bool,
    pub priority: Option<Priority>,
}

/// One step of a script. Steps run one after another; those of an `All` at the same time.
#[derive(Clone, Debug)]
pub enum Step {
    Work(Dist, Sampler),
    Call(u32),
    All(Span32),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Where it may go, by weight; most have one.
    pub targets: Span32,
    pub optional: bool,
    pub fallback: bool,
    /// The call to make when this one failed.
    pub instead: u32,
    pub chance: f64,
    pub times: u32,
    pub detached: bool,
    pub version: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The sum of the weights up to and including this one.
    pub until: u32,
    pub edge: u32,
    pub version: Option<u16>,
}

/// Calls from one station to one operation of another.
#[derive(Clone, Debug)]
pub struct Edge {
    pub caller: u32,
    pub callee: u32,
    pub operation: u32,
    pub pair: u32,
    pub settings: EdgeSettings,
}

/// One station calling another: what one caller instance's proxy keeps state for.
#[derive(Clone, Debug)]
pub struct Pair {
    pub caller: u32,
    pub callee: u32,
    /// The settings of the pair's first edge, for what belongs to all operations together.
    pub settings: EdgeSettings,
    /// Requests share a connection (HTTP/2, gRPC), so connections do not limit requests in flight.
    pub multiplexed: bool,
}

#[derive(Clone, Debug)]
pub struct LoadPlan {
    pub name: String,
    pub station: u32,
    pub kind: LoadKind,
    pub priority: Priority,
}

#[derive(Clone, Debug)]
pub enum LoadKind {
    Open { rate: f64, shape: model::system::Shape, constant: bool },
    Closed { users: u32, think: Sampler },
    Recorded { arrivals: Vec<Nanos> },
}

#[derive(Clone, Debug)]
pub struct ScenarioPlan {
    pub name: String,
    pub events: Vec<model::system::Event>,
    pub expect: Vec<model::system::Expectation>,
    pub lasts: Option<Nanos>,
}

impl Plan {
    pub fn link(&self, from: u16, to: u16) -> &Link {
        &self.links[from as usize * self.locations.len() + to as usize]
    }

    /// More instances of a station, in the places where it has some, in turn.
    pub fn grow(&mut self, station: u32, more: u32) {
        let span = self.stations[station as usize].instances;
        let standing = &self.instances[span.from as usize..span.to as usize];
        let places: Vec<(u16, u16)> =
            standing.iter().filter(|it| it.initial).map(|it| (it.location, it.version)).collect();
        if places.is_empty() {
            return;
        }
        // Spares come last in a station's range, and those that stand from the start before them.
        let at = span.from as usize + standing.iter().rposition(|it| it.initial).map_or(0, |it| it + 1);
        let name = self.stations[station as usize].name.clone();
        let added = (0..more as usize).map(|n| {
            let (location, version) = places[(places.len() + n) % places.len()];
            InstancePlan {
                station,
                name: format!("{name}#{}", places.len() + n),
                location,
                version,
                initial: true,
            }
        });
        self.instances.splice(at..at, added.collect::<Vec<InstancePlan>>());
        for (index, it) in (0u32..).zip(&mut self.stations) {
            if index == station {
                it.instances.to += more;
            } else if it.instances.from >= span.to {
                (it.instances.from, it.instances.to) = (it.instances.from + more, it.instances.to + more);
            }
        }
    }

    pub fn station_named(&self, name: &str) -> Option<u32> {
        self.stations.iter().position(|it| it.name == name).map(|it| it as u32)
    }

    /// The station of a service of the model: services come first and in its order.
    pub fn station_of(&self, caller: model::system::Caller) -> u32 {
        match caller {
            model::system::Caller::Service(service) => service.as_u32(),
            model::system::Caller::Gateway(gateway) => {
                let gateways = self.stations.iter().position(|it| it.kind == StationKind::Gateway);
                gateways.map_or(NONE, |first| first as u32 + gateway.as_u32())
            }
        }
    }
}
