//! Counters and latencies: from a worker's cell to a six-hour history.
//!
//! ```text
//! Recorder (one a worker)  --relaxed stores-->  cells  --Collector, every 250 ms-->  Frame  --> History, map, exports
//! ```
//! A worker writes only its own cells with plain loads and stores, so counting costs the same at one core and at
//! sixty-four. The collector reads them all, subtracts what it read before, and hands out the difference: a [`Frame`].
//! Frames add up exactly: whoever sums them has the truth, at whatever pace.

mod cells;
mod collector;
mod history;
mod instances;
mod series;
mod sparse;

pub use cells::{Recorder, SeriesHandle};
pub use collector::{Collector, Delta, Frame};
pub use history::{History, HistorySettings, HistoryUsage, Point};
pub use instances::{InstanceSettings, InstanceStore, InstanceView};
pub use series::{
    Class, Label, Maker, Registry, SeriesId, SeriesKey, SeriesSettings, SeriesText, SeriesUsage,
};
pub use sparse::Sparse;

/// What is counted beside requests and their latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    // First, because nearly every series has these two and low numbers are stored in fewer bytes.
    RequestBytes,
    ResponseBytes,
    Retries,
    Hedges,
    Timeouts,
    Resets,
    /// Refused because a breaker was open.
    BreakerRefused,
    /// Refused by a limit or a full queue.
    Shed,
    Faults,
    QueueWaitNanos,
    PoolWaitNanos,
}

impl Counter {
    pub const COUNT: usize = 11;
    pub const ALL: [Self; Self::COUNT] = [
        Self::RequestBytes,
        Self::ResponseBytes,
        Self::Retries,
        Self::Hedges,
        Self::Timeouts,
        Self::Resets,
        Self::BreakerRefused,
        Self::Shed,
        Self::Faults,
        Self::QueueWaitNanos,
        Self::PoolWaitNanos,
    ];
}

/// One value for each [`Counter`].
pub type Counters = [u64; Counter::COUNT];
