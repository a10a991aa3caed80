//! What a run counts while it runs. Counters and histograms only: merging runs is addition, in index order.

use crate::plan::Plan;
use policy::Outcome;
use units::{Histogram, Nanos};

/// Why a request or a call failed. The order is that of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The operation's own fault (its `errors`, a version's, an injected error).
    Own,
    /// A call it could not do without failed.
    Dependency,
    /// The queue in front of the instance was full.
    QueueFull,
    /// The deadline passed: while waiting, working, or on the way.
    Timeout,
    /// No connection: nobody listens there.
    Connect,
    /// The connection broke: the instance died with the request in hand.
    Reset,
    /// No instance that may be used.
    NoInstance,
    /// Refused by the caller's breaker.
    Breaker,
    /// Refused by the caller's rate, concurrency or throttling limit.
    Limit,
    /// A store could not reach enough copies for its consistency.
    Consistency,
    /// The caller had left.
    Cancelled,
    /// The callee's name could not be resolved.
    Dns,
}

impl Cause {
    pub const ALL: [Self; 12] = [
        Self::Own,
        Self::Dependency,
        Self::QueueFull,
        Self::Timeout,
        Self::Connect,
        Self::Reset,
        Self::NoInstance,
        Self::Breaker,
        Self::Limit,
        Self::Consistency,
        Self::Cancelled,
        Self::Dns,
    ];

    /// The word for it in a report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Dependency => "dependency",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::NoInstance => "no_instance",
            Self::Breaker => "breaker",
            Self::Limit => "limit",
            Self::Consistency => "consistency",
            Self::Cancelled => "cancelled",
            Self::Dns => "dns",
        }
    }

    /// What the caller of something that failed for this cause sees.
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Own => Outcome::Status(500),
            Self::Dependency => Outcome::Status(502),
            Self::QueueFull | Self::NoInstance | Self::Breaker | Self::Limit | Self::Consistency => {
                Outcome::Status(503)
            }
            Self::Timeout => Outcome::Status(504),
            Self::Connect | Self::Dns => Outcome::ConnectFailed,
            Self::Reset => Outcome::Reset,
            Self::Cancelled => Outcome::Cancelled,
        }
    }
}

/// Failures by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures(pub [u64; Cause::ALL.len()]);

impl Failures {
    #[inline]
    pub(crate) fn add(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// Requests of one kind: how many, how they ended, how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub ok: u64,
    pub failures: Failures,
    /// Of those that went well.
    pub latency: Histogram,
}

impl Requests {
    #[inline]
    pub(crate) fn record(&mut self, result: Result<(), Cause>, took: Nanos) {
        match result {
            Ok(()) => {
                self.ok += 1;
                self.latency.record(took);
            }
            Err(cause) => self.failures.add(cause),
        }
    }

    pub fn total(&self) -> u64 {
        self.ok + self.failures.total()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failures.merge(&other.failures);
        self.latency.merge(&other.latency);
    }
}

/// One operation, seen from its instances: arrival at the instance to the answer leaving it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationMeter {
    pub arrivals: u64,
    pub requests: Requests,
    /// From arrival to the start of work, of those that started.
    pub waiting: Histogram,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// Reads that answered with something older than an acknowledged write.
    pub stale_reads: u64,
}

/// One edge, seen from its callers: a call with all its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeMeter {
    pub calls: Requests,
    pub attempts: u64,
    pub retries: u64,
    pub hedges: u64,
    /// Retries the budget refused.
    pub budget_refused: u64,
    pub timeouts: u64,
    /// Failures hidden from the answer because the call is optional or has a fallback.
    pub degraded: u64,
    /// Attempts that waited for a connection.
    pub pool_waits: u64,
    /// Attempts that stayed in the caller's zone.
    pub in_zone: u64,
}

/// One pair of stations: what belongs to all their edges together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairMeter {
    pub breaker_trips: u64,
    /// Sum over caller instances of the time their breakers refused.
    pub breaker_open: Nanos,
    pub ejections: u64,
    pub ejected: Nanos,
    pub ejections_withheld: u64,
    /// Sum over connections, to all instances of all callers, of the time they were in use.
    pub held: Nanos,
    /// The same of the busiest caller, for one instance of those it really uses.
    pub held_busiest: Nanos,
    /// Names that were looked up, and connections that were secured.
    pub lookups: u64,
    pub handshakes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceMeter {
    pub arrivals: u64,
    pub ok: u64,
    pub failed: u64,
    /// Integral of places in use over time, in nanoseconds.
    pub busy: u128,
    /// Integral of cores in use over time, where work shares cores.
    pub working: u128,
    /// Integral of requests waiting over time.
    pub waiting: u128,
    pub waiting_max: u32,
    /// Time it stood and could have worked.
    pub up: u128,
}

/// One traffic, seen by its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadMeter {
    pub requests: Requests,
    pub sent: u64,
}

/// One slice of time of one traffic or station, for charts and for finding the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub ok: u64,
    pub failed: u64,
    pub latency: Histogram,
}

/// One slice of time of one edge: calls that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeSlice {
    pub all: u32,
    pub failed: u32,
}

/// One consumer of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerMeter {
    pub published: u64,
    pub delivered: u64,
    pub expired: u64,
    pub lag_max: u64,
    /// From publishing to the end of the consumer's work.
    pub age: Histogram,
}

/// Everything one run measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meters {
    pub operations: Vec<OperationMeter>,
    pub edges: Vec<EdgeMeter>,
    pub pairs: Vec<PairMeter>,
    pub instances: Vec<InstanceMeter>,
    pub loads: Vec<LoadMeter>,
    /// By the plan's calls; only those that deliver messages count anything.
    pub consumers: Vec<ConsumerMeter>,
    /// Bytes from location i to location j.
    pub bytes: Vec<u64>,
    /// `slices[load][k]`: what ended in the k-th slice.
    pub slices: Vec<Vec<Slice>>,
    /// `edge_slices[edge][k]`.
    pub edge_slices: Vec<Vec<EdgeSlice>>,
    pub slice: Nanos,
    /// Lost for good: acknowledged by a store and held by no copy that is left.
    pub lost_writes: Vec<u64>,
    pub events: u64,
}

/// Slices a run is cut into, whatever its length: memory does not grow with simulated time.
pub const SLICES: usize = 200;

impl Meters {
    pub(crate) fn new(plan: &Plan, duration: Nanos) -> Self {
        Self {
            operations: vec![OperationMeter::default(); plan.operations.len()],
            edges: vec![EdgeMeter::default(); plan.edges.len()],
            pairs: vec![PairMeter::default(); plan.pairs.len()],
            instances: vec![InstanceMeter::default(); plan.instances.len()],
            loads: vec![LoadMeter::default(); plan.loads.len()],
            consumers: vec![ConsumerMeter::default(); plan.calls.len()],
            bytes: vec![0; plan.links.len()],
            slices: vec![vec![Slice::default(); SLICES]; plan.loads.len()],
            edge_slices: vec![vec![EdgeSlice::default(); SLICES]; plan.edges.len()],
            slice: Nanos((duration.0 / SLICES as u64).max(1)),
            lost_writes: vec![0; plan.stations.len()],
            events: 0,
        }
    }

    /// Forgets what was counted while the system filled up; the slices stay, they show it.
    pub(crate) fn forget_warm_up(&mut self, plan: &Plan) {
        let (slices, edge_slices) = (std::mem::take(&mut self.slices), std::mem::take(&mut self.edge_slices));
        let (slice, events) = (self.slice, self.events);
        *self = Self { slices, edge_slices, slice, events, ..Self::new(plan, Nanos::ZERO) };
    }

    /// Adds another run of the same plan.
    pub fn merge(&mut self, other: &Self) {
        fn each<T>(mine: &mut [T], theirs: &[T], merge: impl Fn(&mut T, &T)) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| merge(a, b));
        }
        each(&mut self.operations, &other.operations, |a, b| {
            a.arrivals += b.arrivals;
            a.requests.merge(&b.requests);
            a.waiting.merge(&b.waiting);
            a.cache_hits += b.cache_hits;
            a.cache_misses += b.cache_misses;
            a.stale_reads += b.stale_reads;
        });
        each(&mut self.edges, &other.edges, |a, b| {
            a.calls.merge(&b.calls);
            a.attempts += b.attempts;
            a.retries += b.retries;
            a.hedges += b.hedges;
            a.budget_refused += b.budget_refused;
            a.timeouts += b.timeouts;
            a.degraded += b.degraded;
            a.pool_waits += b.pool_waits;
            a.in_zone += b.in_zone;
        });
        each(&mut self.pairs, &other.pairs, |a, b| {
            a.breaker_trips += b.breaker_trips;
            a.breaker_open += b.breaker_open;
            a.ejections += b.ejections;
            a.ejected += b.ejected;
            a.ejections_withheld += b.ejections_withheld;
            a.held += b.held;
            a.held_busiest += b.held_busiest;
            a.lookups += b.lookups;
            a.handshakes += b.handshakes;
        });
        each(&mut self.instances, &other.instances, |a, b| {
            a.arrivals += b.arrivals;
            a.ok += b.ok;
            a.failed += b.failed;
            a.busy += b.busy;
            a.working += b.working;
            a.waiting += b.waiting;
            a.waiting_max = a.waiting_max.max(b.waiting_max);
            a.up += b.up;
        });
        each(&mut self.loads, &other.loads, |a, b| {
            a.requests.merge(&b.requests);
            a.sent += b.sent;
        });
        each(&mut self.consumers, &other.consumers, |a, b| {
            a.published += b.published;
            a.delivered += b.delivered;
            a.expired += b.expired;
            a.lag_max = a.lag_max.max(b.lag_max);
            a.age.merge(&b.age);
        });
        each(&mut self.bytes, &other.bytes, |a, b| *a += b);
        each(&mut self.lost_writes, &other.lost_writes, |a, b| *a += b);
        for (mine, theirs) in self.slices.iter_mut().zip(&other.slices) {
            each(mine, theirs, |a, b| {
                a.ok += b.ok;
                a.failed += b.failed;
                a.latency.merge(&b.latency);
            });
        }
        for (mine, theirs) in self.edge_slices.iter_mut().zip(&other.edge_slices) {
            each(mine, theirs, |a, b| (a.all, a.failed) = (a.all + b.all, a.failed + b.failed));
        }
        self.events += other.events;
    }
}
