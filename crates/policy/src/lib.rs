//! # policy: what to do with one request
//!
//! In: something happened (a request, a reply, a timeout, a tick). Out: what to do next.
//!
//! **Invariant:** no clock, no socket, no `async`, no global randomness. Time is a [`units::Nanos`] argument and luck is a
//! [`units::Rng`] argument, so that the simulator and the proxy run this very code and differ in nothing else.
//! **Invariant:** knows nothing of HTTP, of the file or of places beyond small integers; its callers translate.
//! **Invariant:** deciding never allocates. What must be built (tables, rings) is built when membership changes.

pub mod settings;

// One request: how it ended, until when it matters, whether to try again.
mod backoff;
mod budget;
mod deadline;
mod hedge;
mod outcome;
pub mod retry;

pub use backoff::Backoff;
pub use budget::Budget;
pub use deadline::Deadline;
pub use hedge::{HedgeNext, HedgeState};
pub use outcome::Outcome;
pub use retry::{Attempt, Hint, Next, RetryState, Why};

// Many instances: which are usable, and which gets the next request.
mod balance;
pub mod eject;
mod endpoint;
pub mod health;
pub mod locality;

pub use balance::{Ask, Balancer, NoPick, Picked};
pub use endpoint::{Endpoint, Latency, Place};
pub use health::Health;

// Too much: who waits, who is refused, and by whom.
mod breaker;
pub mod limit;
mod overload;
mod queue;
mod rate_limit;
pub mod shed;
mod throttle;

pub use breaker::{Breaker, BreakerState, Permit};
pub use limit::{Bulkheads, Limiter, Sample};
pub use overload::{Arrival, Overload, Refusal, Started, Turn};
pub use queue::{DropWhy, Popped, Pushed, Queue, QueueCounts, Ticket};
pub use rate_limit::RateLimit;
pub use throttle::Throttle;

// How many instances there should be.
pub mod scale;

mod math;
mod window;
