//! # proxy: the data plane
//!
//! In: a [`config::Config`], which is plain data, and connections. Out: requests carried to instances, replies carried
//! back, and cells that were counted. A request's way is a list of named phases:
//! `accept → read head → identify → route → admit → pick → send → wait → judge → reply → record`.
//!
//! ```text
//! engine     threads, doors, messages                     serve      a client's connection and its runner
//! control    admin, health checks, names, memory          exchange   one request's phases
//! config     the snapshot          plan   made ready      edge       the policies' state for one caller and service
//! http1      bytes to heads and bodies, without I/O       upstream   instances, their gates and their connections
//! h2         frames, streams, and `pipe`s to HTTP/1       tls        certificates and handshakes
//! router     host and path to route                       tunnel     bytes both ways, by `splice` where it pays
//! quota      limits of a caller as a whole
//! ```
//! **Invariant:** knows no file and no model. `control` compiles those into a [`config::Config`].
//! **Invariant:** decides nothing about load: balancing, retries, budgets, breakers, ejection, admission and limits are
//! the policy crate's, the very code that the simulator runs. Here are the sockets and the clock.
//! **Invariant:** nothing is shared between workers on a request's way and nothing is locked, but for limits that a file
//! states for a caller as a whole (`quota`); and a keep-alive HTTP/1 request allocates nothing once its connection is warm.

mod access;
mod admin;
mod buffer;
mod clock;
pub mod config;
mod connect;
mod control;
mod edge;
mod engine;
mod exchange;
pub mod fuzz;
mod grpc_health;
mod h2;
mod heads;
mod health;
pub mod http1;
mod identity;
mod limits;
mod log;
mod mirror;
pub mod observe;
mod pipe;
mod plan;
mod quota;
pub mod record;
mod replay;
mod router;
mod seen;
mod series;
mod serve;
mod snapshot_json;
mod sni;
mod socket;
mod splice;
mod stats;
mod timers;
mod tls;
mod tunnel;
mod upstream;
mod way;
mod worker;

pub use engine::{Error, Options, Proxy};
pub use limits::worker_count;
pub use log::Level;
