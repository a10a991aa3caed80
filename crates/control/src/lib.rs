//! # control: who is there, what is in force, and the door through which both are asked and changed
//!
//! In: a model, check-ins, results of checks, a person's wishes. Out: snapshots for proxies, and an HTTP API.
//!
//! ```text
//! registry   who is there            compile   model to a proxy's snapshot      api    what is asked and wished
//! map        the drawing             numbers   counters to rates and shares     live   frames as bytes
//! watch      reads every 250 ms      page      all of one service               web    the map's doors
//! tally      what single requests tell
//! ```
//! **Invariant:** the data plane never waits for anything here. A proxy runs its last good snapshot for as long as it
//! must; when control comes back, instances check in again and the registry is whole within one lease.
//! **Invariant:** compiling is pure: the same model, topology and registry give the same snapshot, byte for byte.

pub mod api;
pub mod compile;
pub mod history;
pub mod live;
pub mod map;
pub mod numbers;
pub mod page;
pub mod registry;
pub mod spans;
pub mod status;
pub mod tally;
pub mod watch;
pub mod web;
