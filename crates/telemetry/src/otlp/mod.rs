//! OTLP: the main door for applications' own traces, metrics and logs, and a way out to anyone who takes OTLP.

pub mod decode;
pub mod export;
mod schema;
pub mod server;

#[cfg(test)]
mod partial;

pub use decode::Decoded;
pub use server::{Sink, Taken, handle, handle_grpc};

use crate::ids::{SpanId, TraceId};
use crate::span::Value;
use units::Nanos;

/// One data point of an application's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPoint {
    pub service: Box<str>,
    pub name: Box<str>,
    pub unit: Box<str>,
    /// By key.
    pub attributes: Vec<(Box<str>, Value)>,
    pub at: Nanos,
    /// Since the point before, not since start.
    pub delta: bool,
    pub value: MetricValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    Gauge(f64),
    Counter(f64),
    Histogram { count: u64, sum: f64, bounds: Vec<f64>, counts: Vec<u64> },
    Exponential { count: u64, sum: f64, scale: i32, zero_count: u64, offset: i32, counts: Vec<u64> },
    Summary { count: u64, sum: f64 },
}

/// One line of an application's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    pub service: Box<str>,
    pub at: Nanos,
    /// OTLP's 1 (trace) to 24 (fatal); 0 unknown.
    pub severity: u8,
    pub body: Box<str>,
    pub attributes: Vec<(Box<str>, Value)>,
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
}
