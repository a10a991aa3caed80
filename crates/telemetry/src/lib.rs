//! # telemetry: what happened, in numbers and traces, a second old and readable by everyone's tools
//!
//! In: counts and spans from our proxy, spans, metrics and logs from applications (Zipkin, OTLP). Out: the same, in
//! everyone's formats, in our terminal's words, and as deltas for the map.
//!
//! **Invariant:** no socket and no runtime. Every HTTP door is a function from a request's parts to a response's parts
//! ([`http`]); `control` owns the wires.
//! **Invariant:** no clock. Moments are arguments, so a test and a replay see what a live system saw.
//! **Invariant:** everything has a limit, a policy when full, and a counter that says so.

pub mod app;
pub mod critical;
pub mod exposition;
pub mod filter;
pub mod forwarding;
pub mod freshness;
pub mod fuzz;
pub mod http;
pub mod hystrix;
pub mod ids;
pub mod json;
pub mod metrics;
pub mod otlp;
pub mod propagation;
pub mod protobuf;
pub mod report;
pub mod slo;
pub mod span;
pub mod traces;
pub mod tree;
pub mod views;
pub mod vizceral;
pub mod zipkin;
