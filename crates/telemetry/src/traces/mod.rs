//! Kept traces: what a trace store answers, and the one in memory.

mod codec;
mod keep;
mod memory;
mod names;
mod outline;
mod query;
mod settings;

pub use keep::{KeepSettings, Reasons, in_share};
pub use memory::{GONE_LINKS_MAX, MemoryTraces};
pub use query::{Order, TraceQuery};
pub use settings::{TraceSettings, Usage};

use crate::ids::TraceId;
use crate::span::Span;
use crate::tree::Link;
use std::collections::HashMap;
use units::Nanos;

/// Keys come from strangers, so the hash is seeded; it is met a dozen times for each span, so it is a quick one.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What happened to spans handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    pub stored: usize,
    /// Their trace was decided against before they came.
    pub too_late: usize,
    /// Their trace is as large as a trace may be.
    pub too_many: usize,
}

/// A store of traces. Small on purpose: a store on disk will stand behind the same eight questions.
///
/// Times are since the Unix epoch; `now` is the caller's clock.
pub trait TraceStore {
    fn add(&mut self, spans: &[Span], now: Nanos) -> Added;
    /// Decides about traces whose root completed, and forgets what is too old. Call it every 250 ms or so.
    fn tick(&mut self, now: Nanos);
    fn trace(&self, id: TraceId) -> Option<Vec<Span>>;
    fn search(&self, query: &TraceQuery) -> Vec<Vec<Span>>;
    fn services(&self) -> Vec<String>;
    fn span_names(&self, service: &str) -> Vec<String>;
    fn remote_services(&self, service: &str) -> Vec<String>;
    fn tag_values(&self, key: &str) -> Vec<String>;
    /// Calls between services in traces that happened between two moments, kept or not.
    fn links(&self, from: Nanos, to: Nanos) -> Vec<Link>;
}
