//! How much a trace store may hold and for how long, and what it did hold.

use super::KeepSettings;
use units::Nanos;

#[derive(Clone, Debug)]
pub struct TraceSettings {
    pub keep: KeepSettings,
    /// All memory of the store.
    pub bytes_max: usize,
    pub traces_max: usize,
    /// More spans of one trace are counted and dropped.
    pub spans_per_trace_max: usize,
    /// No trace may push out all others.
    pub bytes_per_trace_max: usize,
    /// Between the root's completion and the decision.
    pub grace: Nanos,
    /// A trace without a complete root is decided after this much silence.
    pub silence: Nanos,
    /// How long names of services and spans are offered after they were last seen.
    pub names_live: Nanos,
    pub span_names_per_service_max: usize,
    /// Tags whose values are offered for completion.
    pub completed_tags: Vec<Box<str>>,
    pub completions_max: usize,
    pub completions_live: Nanos,
    /// Links of dropped traces are remembered this long.
    pub links_live: Nanos,
    pub links_per_minute_max: usize,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            keep: KeepSettings::default(),
            bytes_max: 192 << 20,
            traces_max: 100_000,
            spans_per_trace_max: 100_000,
            bytes_per_trace_max: 32 << 20,
            grace: Nanos::from_secs(2),
            silence: Nanos::from_secs(10),
            names_live: Nanos::from_secs(24 * 3600),
            span_names_per_service_max: 1_000,
            completed_tags: [crate::span::tag::VERSION, crate::span::tag::ZONE, crate::span::tag::ROUTE]
                .map(Box::from)
                .to_vec(),
            completions_max: 20_000,
            completions_live: Nanos::from_secs(3600),
            links_live: Nanos::from_secs(24 * 3600),
            links_per_minute_max: 20_000,
        }
    }
}

/// What the store holds and what it had to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    /// Of these, traces and their names, which the budget is for; what is remembered beside them has ends of its own.
    pub budgeted: usize,
    pub traces: usize,
    pub undecided: usize,
    pub spans: usize,
    pub kept: u64,
    pub not_kept: u64,
    pub pushed_out: u64,
    pub spans_too_late: u64,
    pub spans_too_many: u64,
    pub names_bytes: usize,
    pub names_refused: u64,
    /// Pairs of caller and callee remembered of traces that are gone, and those that found no room or made it.
    pub links: usize,
    pub links_refused: u64,
    /// Values offered for completion, and those that found no room.
    pub values: usize,
    pub values_refused: u64,
    /// Edges whose slowest are kept, and calls over others.
    pub edges: usize,
    pub untracked: u64,
}
