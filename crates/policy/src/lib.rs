//! # policy: what to do with one request
//!
//! In: something happened (a request, a reply, a timeout, a tick). Out: what to do next.
//!
//! **Invariant:** no clock, no socket, no `async`, no global randomness. Time is a [`units::Nanos`] argument and luck is a
//! [`units::Rng`] argument, so that the simulator and the proxy run this very code and differ in nothing else.
//! **Invariant:** knows nothing of HTTP, of the file or of places beyond small integers; its callers translate.

pub mod settings;
