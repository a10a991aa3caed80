//! # sim
mod cache;
pub mod meter;
pub mod plan;
mod queue;
mod random;
mod slab;
mod world;
pub use queue::{Event, EventQueue, TimerId};
