//! # sim
mod queue;
pub use queue::{Event, EventQueue, TimerId};
