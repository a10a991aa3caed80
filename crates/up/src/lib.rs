//! # up: a whole system on one machine
pub mod supervisor;
