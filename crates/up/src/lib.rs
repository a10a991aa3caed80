//! # up: a whole system on one machine
pub mod environment;
pub mod logs;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod process;
mod readiness_fd;
pub mod supervisor;
pub mod synthetic;
pub mod words;
