//! The settings of every decision, as plain data. A file's `edges` resolve into these; a program without a file
//! fills them in by hand. Each `Default` is what a user gets who wrote nothing.

pub mod scale;

use units::{Nanos, Percent, Rate};

/// Everything that governs calls from one service to one operation of another.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeSettings {
    /// The caller gives up after this, attempts and waits included. `None` is never: allowed, and a lint.
    pub timeout: Option<Nanos>,
    pub retry: Option<Retry>,
    pub hedge: Option<Hedge>,
    pub breaker: Option<Breaker>,
    pub eject: Option<Eject>,
    pub balance: Balance,
    pub locality: Locality,
    /// Calls in flight from one caller instance; beyond it calls are refused at once (a bulkhead).
    pub concurrency: Option<Concurrency>,
    /// Calls a second from one caller instance.
    pub rate_limit: Option<RateLimit>,
    /// Client-side adaptive throttling (the callee's refusals teach the caller to refuse first).
    pub throttle: Option<Throttle>,
    pub priority: Priority,
    /// Connections from one caller instance to one callee instance.
    pub connections: u32,
    /// What ring hash and Maglev place a request by.
    pub hash: HashOn,
}

/// Requests that agree in this go to the same instance, for as long as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashOn {
    /// The address the request came from.
    #[default]
    Source,
    /// The path, without its query.
    Path,
    /// A header's value; a request without it goes anywhere.
    Header(String),
    /// A cookie's value; a request without it goes anywhere.
    Cookie(String),
}

/// Retries: `attempts` includes the first, as in gRPC and the AWS SDKs.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub attempts: u8,
    pub per_try: Option<Nanos>,
    pub on: RetryOn,
    pub backoff: Backoff,
    pub budget: Option<Budget>,
    /// Retry operations that are not idempotent as well: the author says a second execution is harmless.
    pub non_idempotent: bool,
}

/// Which outcomes may be tried again. A request that provably never reached its peer always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn {
    pub connect_failure: bool,
    pub reset: bool,
    pub timeout: bool,
    /// 502, 503, 504 and gRPC UNAVAILABLE.
    pub unavailable: bool,
    /// Any 5xx.
    pub server_error: bool,
    /// 429 and gRPC RESOURCE_EXHAUSTED; honours Retry-After.
    pub throttled: bool,
}

/// Waiting between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub base: Nanos,
    pub max: Nanos,
    pub jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    None,
    Full,
    Equal,
    Decorrelated,
}

/// Retries over a sliding `window` may not exceed `ratio` of first attempts plus `floor` a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub ratio: Percent,
    pub floor: Rate,
    pub window: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// Send a second copy when the first has been silent this long.
    pub after: Nanos,
    /// Copies in all, the first included.
    pub copies: u8,
    pub budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub trip: Trip,
    /// How long an open breaker refuses before it lets one real request probe; doubles up to `pause_max`.
    pub pause: Nanos,
    pub pause_max: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    Consecutive { failures: u32 },
    Rate { errors: Percent, requests_min: u32, window: Nanos },
}

/// Outlier ejection: taking one bad instance out of a good service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    pub interval: Nanos,
    /// Failures in a row that eject at once; 0 switches this rule off.
    pub consecutive: u32,
    /// Success rate below mean − factor × standard deviation ejects; `None` switches it off.
    pub deviation: Option<Deviation>,
    /// Failure share at or above this ejects; `None` switches it off.
    pub failure_share: Option<FailureShare>,
    /// Ejection number n lasts base × n, at most `max`; a clean interval forgives one.
    pub base: Nanos,
    pub max: Nanos,
    /// Never more of the instances than this at once, but always at least one may go, and never the last.
    pub share_max: Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// 1900 is 1.9 standard deviations.
    pub factor_thousandths: u32,
    pub instances_min: u32,
    pub requests_min: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureShare {
    pub threshold: Percent,
    pub instances_min: u32,
    pub requests_min: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub kind: BalanceKind,
    /// A new instance reaches its full share over this time; zero switches it off.
    pub slow_start: Nanos,
    /// Below this share of healthy instances health is ignored: better many slow than few drowned.
    pub panic: Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BalanceKind {
    RoundRobin,
    LeastRequest,
    PeakEwma,
    Random,
    RingHash,
    Maglev,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Locality {
    /// All instances alike.
    Any,
    /// The caller's own zone while it has capacity left, then the region, then anywhere.
    PreferZone,
    /// The caller's own region while it has capacity left.
    PreferRegion,
    /// Never leaves the zone.
    ZoneOnly,
    /// Never leaves the region.
    RegionOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    Static { max: u32 },
    Gradient { min: u32, max: u32 },
    Vegas { max: u32 },
    Aimd { min: u32, max: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub rate: Rate,
    pub burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// K of the formula in thousandths: 2000 is the customary 2.
    pub k_thousandths: u32,
    pub window: Nanos,
}

/// How willingly work is dropped under overload; inherited by the calls a request makes. Lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    Sheddable,
    SheddablePlus,
    #[default]
    Critical,
    CriticalPlus,
}

/// Answers in a row that change an instance's standing; see [`crate::health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub rise: u32,
    pub fall: u32,
}

/// Admission in front of one instance that is told nothing about it; see [`crate::Overload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// More than this is never in flight, whatever is learnt.
    pub limit_max: u32,
    pub queue_max: u32,
    /// The longest a burst may wait.
    pub wait_max: Nanos,
}

/// What waits in front of a busy instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `None` is without bound: allowed, and a lint.
    pub max: Option<u32>,
    pub discipline: Discipline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    Fifo,
    Lifo,
    /// First in first out until the queue has been busy for a while, then last in first out.
    AdaptiveLifo,
    CoDel {
        target: Nanos,
        interval: Nanos,
    },
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            timeout: None,
            retry: None,
            hedge: None,
            breaker: None,
            eject: Some(Eject::default()),
            balance: Balance::default(),
            locality: Locality::PreferZone,
            concurrency: None,
            rate_limit: None,
            throttle: None,
            priority: Priority::Critical,
            connections: 64,
            hash: HashOn::Source,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try: None,
            on: RetryOn::default(),
            backoff: Backoff::default(),
            budget: Some(Budget::default()),
            non_idempotent: false,
        }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect_failure: true,
            reset: true,
            timeout: false,
            unavailable: true,
            server_error: false,
            throttled: false,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Nanos::from_millis(25), max: Nanos::from_secs(1), jitter: Jitter::Full }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            ratio: Percent::from_whole(20),
            floor: Rate::per_second_whole(3),
            window: Nanos::from_secs(10),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            trip: Trip::Consecutive { failures: 5 },
            pause: Nanos::from_secs(1),
            pause_max: Nanos::from_secs(30),
        }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            interval: Nanos::from_secs(10),
            consecutive: 5,
            deviation: None,
            failure_share: None,
            base: Nanos::from_secs(10),
            max: Nanos::from_secs(300),
            share_max: Percent::from_whole(50),
        }
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self { kind: BalanceKind::PeakEwma, slow_start: Nanos::ZERO, panic: Percent::from_whole(30) }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { rise: 2, fall: 3 }
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self { limit_max: 16_384, queue_max: 1_024, wait_max: Nanos::from_millis(500) }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { max: Some(128), discipline: Discipline::Fifo }
    }
}
