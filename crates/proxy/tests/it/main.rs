//! The proxy from outside: real sockets, scripted peers.
#![allow(unreachable_pub, missing_debug_implementations, reason = "a test binary has no users")]

mod admin;
mod clients;
mod differential;
mod faults;
mod forwarding;
mod hedging;
mod hostile;
mod http2;
mod limits;
mod mirrors;
mod peers;
mod running;
mod silence;
mod streams;
mod support;
mod tcp;
mod tls_behind;
