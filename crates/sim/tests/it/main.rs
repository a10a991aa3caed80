//! Integration tests of the simulator, in one binary.

mod behaviour;
mod breaks;
mod closed_forms;
mod common;
mod engine;
mod examples;
mod laws;
mod lessons;
mod questions;
mod verdicts;
