//! The system a file describes, resolved: names are ids, text is quantities, and every reference exists.
//!
//! Plain data. It is built only by `resolve` (from text) or by an importer that goes through text, so whoever
//! holds a [`System`] need not check it again. Places ([`Span`]) are kept where a person may have to look.

use crate::span::{At, Origins, Span};
use indexmap::IndexMap;
use policy::settings::{EdgeSettings, Priority, Queue};
use units::{Bytes, Dist, Id, IdVec, Money, Nanos, Percent, Rate};

pub type TeamId = Id<Team>;
pub type ServiceId = Id<Service>;
pub type RegionId = Id<Region>;
pub type GatewayId = Id<Gateway>;
pub type TrafficId = Id<Traffic>;
/// An operation's index within its service.
pub type OperationId = Id<Operation>;

#[derive(Clone, Debug, Default)]
pub struct System {
    pub name: String,
    pub teams: IdVec<Team>,
    /// Never empty: a file without `places` gets the region `local` with the one zone `a`.
    pub regions: IdVec<Region>,
    pub network: Network,
    pub services: IdVec<Service>,
    pub edges: Edges,
    pub gateways: IdVec<Gateway>,
    pub traffic: IdVec<Traffic>,
    pub scenarios: Vec<Scenario>,
    pub waivers: Vec<Waiver>,
    /// What it was read from.
    pub origins: Origins,
}

#[derive(Clone, Debug)]
pub struct Team {
    pub name: At<String>,
    pub contact: Option<At<String>>,
    pub oncall: Option<At<String>>,
}

#[derive(Clone, Debug)]
pub struct Region {
    pub name: At<String>,
    /// Never empty.
    pub zones: Vec<At<String>>,
}

/// A zone of a region, both by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone {
    pub region: RegionId,
    pub zone: u32,
}

/// What lies between places. `model` has built-in tables; the file's `network` overrides them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub in_zone: LinkSettings,
    pub between_zones: LinkSettings,
    /// For pairs of regions that neither the file nor the built-in table knows.
    pub between_regions: LinkSettings,
    /// Per ordered pair of places, most specific first: zone pairs, then region pairs.
    pub pairs: Vec<LinkOverride>,
    /// What a gigabyte to the outside world (clients, `external` services) costs.
    pub internet_price_per_gb: Option<Money>,
    /// The way of users who are in no place; its price is above.
    pub internet: LinkSettings,
    /// How callers find where a service is; `None`: they know.
    pub dns: Option<Dns>,
    /// What securing connections costs; `None`: they are not.
    pub tls: Option<Secured>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dns {
    /// An answer is good for this long.
    pub ttl: Nanos,
    pub latency: Nanos,
    /// Share of look-ups that nobody answers.
    pub failures: Percent,
}

impl Default for Dns {
    fn default() -> Self {
        Self { ttl: Nanos::from_secs(30), latency: Nanos::from_millis(1), failures: Percent::ZERO }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Work at both ends of a new connection together, beside one more round trip.
    pub handshake: Nanos,
}

impl Default for Secured {
    fn default() -> Self {
        Self { handshake: Nanos::from_millis(1) }
    }
}

/// Each `None` is "as the next more general rule says".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkSettings {
    /// Round trip; one way is half.
    pub rtt: Option<Nanos>,
    /// Share of the round trip by which it varies, up and down.
    pub jitter: Option<Percent>,
    pub loss: Option<Percent>,
    pub bytes_per_second: Option<Bytes>,
    pub price_per_gb: Option<Money>,
}

#[derive(Clone, Debug)]
pub struct LinkOverride {
    pub from: Place,
    pub to: Place,
    pub settings: LinkSettings,
    pub span: Span,
}

/// A region or one zone of it, as a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Region(RegionId),
    Zone(Zone),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Http,
    Grpc,
    Tcp,
    Cache,
    Store,
    Queue,
    External,
}

impl Kind {
    /// As the file says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Cache => "cache",
            Self::Store => "store",
            Self::Queue => "queue",
            Self::External => "external",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    Tcp,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub name: At<String>,
    pub description: Option<String>,
    pub team: Option<At<TeamId>>,
    pub kind: Kind,
    /// Of its own listener; follows `kind` unless the file says otherwise.
    pub protocol: Protocol,
    pub replicas: Replicas,
    pub placement: Placement,
    pub discovery: Discovery,
    pub reach: Reach,
    /// `None`: synthetic, unless `endpoints` says it runs elsewhere.
    pub run: Option<Run>,
    /// Addresses of a service that runs elsewhere.
    pub endpoints: Vec<At<String>>,
    /// How those are spoken to, if not in the clear.
    pub tls: Option<TlsBehind>,
    pub health: Health,
    /// Requests one instance works on at once; `None` is without limit.
    pub concurrency: Option<At<u32>>,
    /// Cores that the work of one instance shares; `None`: every piece of work has one of its own.
    pub cores: Option<At<u32>>,
    /// The part of its work that computes where `isobar up` plays it; the rest waits.
    pub burn: Percent,
    pub queue: At<Queue>,
    pub operations: IdVec<Operation>,
    /// What it needs to run beyond its operations' calls: `needs`.
    pub needs: Vec<Need>,
    pub slo: Option<Slo>,
    /// In file order; empty when the file says nothing of versions.
    pub versions: Vec<Version>,
    pub cache: Option<Cache>,
    pub store: Option<Store>,
    pub topic: Option<Topic>,
    pub autoscale: Option<Autoscale>,
    /// A store or cache that several teams may use on purpose.
    pub shared: bool,
    /// Optional work may be dropped first; inherited by calls that say nothing.
    pub priority: Option<Priority>,
    pub price_per_hour: Option<Money>,
    /// Free words for people and exporters (`spigo.package: karyon`).
    pub labels: IndexMap<String, String>,
    /// The whole entry, for "defined here".
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Replicas {
    /// Instances in each region, in the order of `System::regions`; sums to the total.
    pub per_region: Vec<u32>,
    /// For each region the one zone its instances stand in (`eu-west/a: 2`); `None` deals them to all its zones.
    pub pinned: Vec<Option<u32>>,
    pub span: Option<Span>,
}

impl Replicas {
    pub fn total(&self) -> u32 {
        self.per_region.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// Where instances stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Dealt to the zones in turn.
    #[default]
    Zones,
    /// One for each region, in no zone: a load balancer, a bucket.
    Region,
    /// One for the world: DNS, a third party.
    Global,
}

/// Which registries it registers with and asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Discovery {
    #[default]
    Region,
    Everywhere,
}

/// Which of the instances it knows it will call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    #[default]
    Any,
    /// Only those whose zone has the same name as its own.
    SameZone,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub command: At<String>,
    /// Give the command to `sh -c`; otherwise it is split into words and started directly.
    pub shell: bool,
    /// Relative to the file's folder.
    pub dir: Option<String>,
    pub env: IndexMap<String, String>,
    pub env_files: Vec<String>,
    pub build: Option<String>,
    /// Folders and files whose change means a new instance.
    pub watch: Vec<String>,
    /// Runs to its end; exit 0 is success and others wait for it.
    pub job: bool,
    /// The port it insists on; otherwise `$PORT` is allocated.
    pub port: Option<u16>,
    pub stop_timeout: Nanos,
}

#[derive(Clone, Debug)]
pub struct Health {
    pub check: Check,
    pub every: Nanos,
    pub timeout: Nanos,
    /// In a row.
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    /// How long a start may take.
    pub startup: Nanos,
    /// `None` when the file says nothing: the default for the kind is in force.
    pub span: Option<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing is asked; a started process counts as healthy.
    None,
    Http {
        path: String,
    },
    Grpc {
        service: String,
    },
    Tcp,
    /// Healthy once a line of its output contains this.
    Log {
        contains: String,
    },
    Command {
        command: String,
    },
}

#[derive(Clone, Debug)]
pub struct Operation {
    /// `GET /cart/{id}`, `cart.Cart/Add`, or any word for kinds without a protocol of operations.
    pub name: At<String>,
    pub work: Dist,
    pub calls: Vec<Step>,
    pub request: Bytes,
    pub response: Bytes,
    /// Share of its answers that fail by its own fault.
    pub errors: Percent,
    pub idempotent: bool,
    /// Changes state. Defaults by method or name (POST, PUT, PATCH, DELETE, `write`, `put` ...).
    pub writes: bool,
    pub priority: Option<Priority>,
    pub span: Span,
}

/// A step of an operation's script. Steps run in sequence.
#[derive(Clone, Debug)]
pub enum Step {
    Call(Call),
    /// All at once; done when every required one is.
    All(Vec<Step>),
    /// Work between calls.
    Work(Dist),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub service: At<ServiceId>,
    /// `None` only if the service defines no operations: then it is called as a whole.
    pub operation: Option<At<OperationId>>,
    /// The caller answers all the same when this call fails.
    pub optional: bool,
    pub fallback: Option<Fallback>,
    /// Share of requests that make this call.
    pub chance: Percent,
    /// How often, one after another.
    pub times: u32,
    /// Does not wait for the answer (a publish, a mirror).
    pub detached: bool,
    /// A version this caller insists on.
    pub version: Option<At<String>>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    Empty,
    /// A word for what is shown instead: `cached`, `default list`.
    Named(String),
    Call(ServiceId),
}

#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub service: At<ServiceId>,
    pub until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Started,
    Healthy,
    /// For jobs: ended with success.
    Completed,
}

#[derive(Clone, Debug)]
pub struct Slo {
    pub availability: Option<At<Percent>>,
    /// (share of requests, limit), by share: p99 within 250 ms is (99 %, 250 ms).
    pub latency: Vec<(Percent, At<Nanos>)>,
    pub window: Nanos,
    pub span: Span,
}

/// One version of a service and what differs in it.
#[derive(Clone, Debug)]
pub struct Version {
    /// Interface.Feature.Bugfix: `v1.2.3`.
    pub name: At<String>,
    pub number: (u32, u32, u32),
    /// Share of unpinned traffic; the shares of a service sum to 100 %.
    pub weight: Percent,
    /// Instances of this version; `None` follows the weight.
    pub replicas: Option<u32>,
    pub run: Option<Run>,
    /// Factor on work, in percent: 120 % is a fifth slower.
    pub work: Option<Percent>,
    pub errors: Option<Percent>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Cache {
    pub hit_rate: Option<Percent>,
    /// What a miss calls.
    pub keys: Option<u64>,
    pub capacity: Option<u64>,
    /// Exponent of the Zipf law of key popularity.
    pub zipf: Option<f64>,
    pub ttl: Option<Nanos>,
}

#[derive(Clone, Debug)]
pub struct Store {
    /// Copies of each item; spread over zones, then regions.
    pub copies: u32,
    pub consistency: Consistency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consistency {
    One,
    Quorum,
    Leader,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub partitions: u32,
    pub retention: Option<Nanos>,
    /// Services that consume it and the operation each message runs.
    pub consumers: Vec<(At<ServiceId>, Option<At<OperationId>>)>,
}

/// An autoscaling rule in its vendor's own words.
#[derive(Clone, Debug)]
pub struct Autoscale {
    pub min: u32,
    pub max: u32,
    pub rule: ScaleRule,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ScaleRule {
    /// Kubernetes HPA: `target` utilisation of concurrency.
    Hpa {
        target: Percent,
        sync: Nanos,
        tolerance: Percent,
        down_window: Nanos,
    },
    Knative {
        target_concurrency: u32,
        utilization: Percent,
        stable_window: Nanos,
        panic_window: Percent,
    },
    TargetTracking {
        target: Percent,
        period: Nanos,
        cooldown: Nanos,
        warmup: Nanos,
    },
    Simple {
        above: Percent,
        adjustment: i32,
        period: Nanos,
        evaluation_periods: u32,
        cooldown: Nanos,
    },
    Step {
        threshold: Percent,
        steps: Vec<ScaleStep>,
        period: Nanos,
        evaluation_periods: u32,
        warmup: Nanos,
    },
}

/// Bounds are relative to the threshold, in percent points of utilisation; `None` is without end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleStep {
    pub lower: Option<i32>,
    pub upper: Option<i32>,
    pub adjustment: i32,
}

/// The policy of calls. Built by [`Edges::new`]; ask [`System::policy`] what governs one edge.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    /// Most general first.
    pub rules: Vec<EdgeRule>,
    pub(crate) index: crate::policy_in_force::Index,
}

/// One entry of `edges`. `None` matches anything.
#[derive(Clone, Debug)]
pub struct EdgeRule {
    pub from: Option<ServiceId>,
    /// Rules may also name a gateway as the caller.
    pub from_gateway: Option<GatewayId>,
    pub to: Option<ServiceId>,
    pub operation: Option<OperationId>,
    pub set: EdgeOverrides,
    pub span: Span,
}

/// What one entry says; `None` says nothing. `Some(At(None))` says "none" aloud (`retry: none`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeOverrides {
    pub timeout: Option<At<Option<Nanos>>>,
    pub retry: Option<At<Option<policy::settings::Retry>>>,
    pub hedge: Option<At<Option<policy::settings::Hedge>>>,
    pub breaker: Option<At<Option<policy::settings::Breaker>>>,
    pub eject: Option<At<Option<policy::settings::Eject>>>,
    pub balance: Option<At<policy::settings::Balance>>,
    pub locality: Option<At<policy::settings::Locality>>,
    pub concurrency: Option<At<Option<policy::settings::Concurrency>>>,
    pub rate_limit: Option<At<Option<policy::settings::RateLimit>>>,
    pub throttle: Option<At<Option<policy::settings::Throttle>>>,
    pub priority: Option<At<Priority>>,
    pub connections: Option<At<u32>>,
    pub hash: Option<At<policy::settings::HashOn>>,
}

/// Who calls: a service, or a gateway on behalf of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    Service(ServiceId),
    Gateway(GatewayId),
}

/// The policy in force on one edge, and for each part the place that set it (`None`: built in).
#[derive(Clone, Debug)]
pub struct InForce {
    pub settings: EdgeSettings,
    pub set_by: SetBy,
}

/// For each key of an edge (`timeout`, `retry` ...) the place that set it. Asked for every call of a system, so it
/// neither hashes nor allocates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetBy {
    pub(crate) places: [Option<Span>; EDGE_KEYS.len()],
}

/// The keys of an edge, in the order of [`EdgeOverrides`].
pub const EDGE_KEYS: [&str; 13] = [
    "timeout",
    "retry",
    "hedge",
    "breaker",
    "eject",
    "balance",
    "locality",
    "concurrency",
    "rate_limit",
    "throttle",
    "priority",
    "connections",
    "hash",
];

impl SetBy {
    /// `None` if nothing in the file sets it: what is built in is in force.
    pub fn get(&self, key: &str) -> Option<&Span> {
        let at = EDGE_KEYS.iter().position(|it| *it == key)?;
        self.places[at].as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Span)> {
        EDGE_KEYS.iter().zip(&self.places).filter_map(|(key, place)| Some((*key, place.as_ref()?)))
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }
}

#[derive(Clone, Debug)]
pub struct Gateway {
    pub name: At<String>,
    pub listen: At<String>,
    pub team: Option<At<TeamId>>,
    pub tls: Option<Tls>,
    pub routes: Vec<Route>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Tls {
    pub cert: At<String>,
    pub key: At<String>,
    pub client_ca: Option<At<String>>,
}

/// TLS towards a service that runs elsewhere.
#[derive(Clone, Debug, Default)]
pub struct TlsBehind {
    /// Who may have signed its certificate; whom the machine trusts if nothing is said.
    pub ca: Option<At<String>>,
    /// The name in its certificate; the endpoint's host if nothing is said.
    pub server_name: Option<At<String>>,
    /// Certificate and key that we show.
    pub client: Option<(At<String>, At<String>)>,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub hosts: Vec<String>,
    pub path: PathMatch,
    pub methods: Vec<String>,
    /// (name, exact value or presence).
    pub headers: Vec<(String, Option<String>)>,
    pub query: Vec<(String, Option<String>)>,
    pub cookies: Vec<(String, Option<String>)>,
    pub action: Action,
    /// Replaces the matched prefix.
    pub rewrite: Option<String>,
    pub timeout: Option<At<Nanos>>,
    pub mirror: Option<(ServiceId, Percent)>,
    pub rate_limit: Option<policy::settings::RateLimit>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// On segment boundaries: `/api` matches `/api` and `/api/x`, not `/apix`.
    Prefix(String),
    Exact(String),
    /// `/cart/{id}`: a segment each.
    Template(String),
    Regex(String),
}

#[derive(Clone, Debug)]
pub enum Action {
    /// Shares by weight; one entry of weight 1 is the plain case.
    To(Vec<Target>),
    Redirect {
        to: String,
        status: u16,
    },
    Reply {
        status: u16,
        body: String,
    },
}

#[derive(Clone, Debug)]
pub struct Target {
    pub service: At<ServiceId>,
    pub version: Option<At<String>>,
    pub weight: u32,
}

#[derive(Clone, Debug)]
pub struct Traffic {
    pub name: At<String>,
    pub to: At<Caller>,
    /// What is asked for: an operation of the service, or a request line for a gateway (`GET /`).
    pub request: Option<At<String>>,
    pub load: Load,
    /// Where the users are; `None` is outside every place.
    pub from: Option<RegionId>,
    pub priority: Priority,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Load {
    Open { rate: At<Rate>, shape: Shape, arrivals: Arrivals },
    Closed { users: At<u32>, think: Dist },
    Recorded { file: At<String> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    #[default]
    Poisson,
    Constant,
}

/// How the rate of an open load moves over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    #[default]
    Steady,
    /// From the rate to `to` over `over`, then steady.
    Ramp { to: Rate, over: Nanos },
    /// A sine between the rate and `peak`, once every `period`.
    Diurnal { peak: Rate, period: Nanos },
    /// `to` for `lasting` at the start of every `every`.
    Burst { to: Rate, lasting: Nanos, every: Nanos },
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: At<String>,
    pub description: Option<String>,
    pub events: Vec<Event>,
    pub expect: Vec<At<Expectation>>,
    /// How long it is watched in all; `None` lets the caller choose.
    pub lasts: Option<Nanos>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Nanos,
    /// Undone after this; `None` lasts to the end.
    pub lasting: Option<Nanos>,
    pub fault: At<Fault>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Stop(Selection),
    Pause(Selection),
    /// Adds to every answer.
    SlowBy(Selection, Nanos),
    /// Multiplies work: 300 % is three times slower.
    SlowTimes(Selection, Percent),
    Error(Selection, Percent),
    Lose(Place),
    Partition {
        from: Place,
        to: Place,
        both_ways: bool,
    },
    Delay {
        from: Place,
        to: Place,
        by: Nanos,
        both_ways: bool,
    },
    Loss {
        from: Place,
        to: Place,
        share: Percent,
        both_ways: bool,
    },
    Flush(ServiceId),
    /// Multiplies a traffic's rate (or all traffic's).
    LoadTimes(Option<TrafficId>, Percent),
    LoadTo(TrafficId, Rate),
    Release {
        service: ServiceId,
        version: String,
        share: Percent,
    },
    Remove(ServiceId),
    Scale(ServiceId, u32),
    /// Nobody answers look-ups of names.
    FailDns,
}

/// Which instances of a service a fault takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub service: ServiceId,
    pub which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Which {
    All,
    Count(u32),
    Share(Percent),
    Index(u32),
    In(Place),
}

/// `web availability >= 99.9%`, `web "GET /" p99 <= 250ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    pub service: Caller,
    pub operation: Option<String>,
    pub measure: Measure,
    pub at_least: bool,
    pub limit: Limit,
    /// As written.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    Availability,
    Errors,
    /// A latency percentile.
    Latency(Percent),
    Throughput,
    Goodput,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Share(Percent),
    Time(Nanos),
    Rate(Rate),
}

/// A risk somebody accepted, for a reason, for a while.
#[derive(Clone, Debug)]
pub struct Waiver {
    pub code: At<String>,
    /// The service it is about; `None` waives the rule everywhere. An edge is written `web -> ads`.
    pub on: Option<At<WaiverScope>>,
    pub reason: At<String>,
    /// Year, month, day: after it the risk is reported again.
    pub until: At<(u16, u8, u8)>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaiverScope {
    Service(ServiceId),
    Edge(Caller, ServiceId),
    Team(TeamId),
    Gateway(GatewayId),
}
