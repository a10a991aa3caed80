//! # sim: what would happen if
//!
//! In: a model, resolved ([`model::system::System`]), and a question (how long, how often, which scenario, how much
//! load). Out: a forecast: rates, latencies, errors and costs of every operation, edge, instance, service and zone, each
//! with its interval, and the same bytes for the same seed on every machine and any number of threads.
//!
//! ```text
//! model::System ──compile──▶ Plan ──forecast (replications of World on EventQueue)──▶ Forecast ──Report::of──▶ Report
//! ```
//!
//! Retries, budgets, breakers, balancers, ejection, limits and queues are those of `policy`: the code the proxy runs.
//!
//! **Invariant:** no clock, no socket, no global randomness, no floating-point function of the system's libraries.
//! **Invariant:** one event loop, no trait objects in it, no allocation once a run has grown to its size.

pub mod advice;
pub mod breaks;
mod cache;
pub mod compare;
pub mod export;
mod fallacy;
pub mod metastable;
pub mod meter;
pub mod plan;
pub mod questions;
mod queue;
mod random;
pub mod record;
pub mod report;
mod run;
pub mod set;
mod slab;
pub mod stats;
mod world;

pub use fallacy::{Doubt, Fallacy};
pub use plan::{Plan, PlanError, compile};
pub use queue::{Event, EventQueue, TimerId};
pub use report::Report;
pub use run::{Forecast, Options, Progress, Run, RunError, forecast};
pub use stats::Estimate;
pub use world::{Bias, Tally};
