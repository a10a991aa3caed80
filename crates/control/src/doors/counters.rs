//! What came in by the doors, for `/metrics` and for Zipkin's own page of numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use telemetry::exposition::{Family, Kind};
use telemetry::http::Response;
use telemetry::json::Writer;

/// What came in and what did not.
#[derive(Debug, Default)]
pub struct DoorCounters {
    pub(super) requests: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) spans: AtomicU64,
    pub(super) points: AtomicU64,
    pub(super) logs: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) too_slow: AtomicU64,
    pub(super) connections: AtomicU64,
}

impl DoorCounters {
    /// For `/metrics`.
    pub fn families(&self) -> Vec<Family> {
        let row = |name: &str, help: &str, cell: &AtomicU64| {
            Family::single(&format!("isobar_ingest_{name}"), help, Kind::Counter, cell.load(Relaxed) as f64)
        };
        vec![
            row("requests", "Requests at the Zipkin and OTLP doors.", &self.requests),
            row("received_bytes", "Bytes of bodies received, as they came.", &self.bytes),
            row("spans", "Spans received.", &self.spans),
            row("points", "Metric points received.", &self.points),
            row("log_records", "Log records received.", &self.logs),
            row("rejected", "Items refused, with a word to their sender.", &self.rejected),
            row("malformed", "Requests that no format explains.", &self.malformed),
            row("too_large", "Bodies above the limit, packed or unpacked.", &self.too_large),
            row("busy", "Requests told to come back later.", &self.busy),
            row("too_slow", "Bodies that did not come in time.", &self.too_slow),
            row("connections", "Connections accepted.", &self.connections),
        ]
    }

    /// Zipkin's own spelling of the same.
    pub(super) fn zipkin(&self) -> Response {
        let mut json = Writer::new();
        json.object(|json| {
            for (name, cell) in [
                ("messages", &self.requests),
                ("bytes", &self.bytes),
                ("spans", &self.spans),
                ("messages_dropped", &self.malformed),
                ("spans_dropped", &self.rejected),
            ] {
                json.key(&format!("counter.zipkin_collector.{name}.http")).u64(cell.load(Relaxed));
            }
        });
        Response::json(json.into_bytes())
    }
}
