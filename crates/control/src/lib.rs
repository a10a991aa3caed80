//! # control: who is there, what is in force, and the door through which both are asked and changed
//!
//! In: a model, check-ins, results of checks, a person's wishes. Out: snapshots for proxies, and an HTTP API.
//!
//! ```text
//! registry   who is there            compile   model to a proxy's snapshot      api    what is asked and wished
//! map        the drawing             numbers   counters to rates and shares     live   frames as bytes
//! measures   the one store of numbers    promises  SLOs and alerts                   keeper   spans to traces
//! doors      Zipkin and OTLP in          exports   /metrics, Hystrix, Vizceral       send     OTLP and webhooks out
//! handing    who hands on traces
//! marker     how old numbers are         observed  what was promised, and by whom series are made
//! watch      reads every 250 ms      page      all of one service               web    the map's doors
//! tally      what single requests tell  ended     requests of a tick, in groups  room      which of them become spans
//! views      answers in the terminal: services, edges, traces, live requests, all by one filter
//! ```
//! **Invariant:** the data plane never waits for anything here. A proxy runs its last good snapshot for as long as it
//! must; when control comes back, instances check in again and the registry is whole within one lease.
//! **Invariant:** compiling is pure: the same model, topology and registry give the same snapshot, byte for byte.

pub mod admit;
pub mod api;
pub mod compile;
pub mod doors;
pub mod edges;
pub mod ended;
pub mod exports;
pub mod handing;
pub mod history;
mod keeper;
pub mod limits;
pub mod live;
pub mod logins;
pub mod map;
pub mod marker;
pub mod measures;
pub mod numbers;
pub mod observed;
pub mod page;
pub mod past;
pub mod promises;
#[cfg(test)]
mod records;
pub mod registry;
pub mod room;
pub mod send;
pub mod spans;
pub mod status;
pub mod table;
pub mod tally;
pub mod views;
pub mod watch;
pub mod watched;
pub mod web;
