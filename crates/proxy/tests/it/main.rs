//! The proxy from outside: real sockets, scripted peers.
#![allow(unreachable_pub, missing_debug_implementations, reason = "a test binary has no users")]

mod faults;
mod forwarding;
mod hostile;
mod http2;
mod limits;
mod peers;
mod running;
mod streams;
mod support;
mod tcp;
