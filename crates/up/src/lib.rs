//! # up: a whole system on one machine
//!
//! In: a model. Out: every service of it running, found by the others, watched, restarted and logged, each behind the
//! same proxy and policies as in production; services nobody has written yet are played.
//!
//! - [`plan`] says what the model means here, [`supervisor`] decides, [`run`] carries it out.
//! - [`process`] holds real processes so that none is forgotten; [`synthetic`] plays the others.
//! - [`logs`] keeps what they say, [`probe`] asks how they are, [`state`] is where commands find a run.
//!
//! **Invariant:** no container engine, no root, nothing of the host's networking is touched: loopback ports only.
//! **Invariant:** nothing is left behind, however isobar ends.

pub mod environment;
pub mod listening;
pub mod load;
pub mod logs;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod process;
mod readiness_fd;
pub mod run;
pub mod state;
pub mod supervisor;
pub mod synthetic;
pub mod usage;
pub mod words;
