//! # policy: what to do with one request
//!
//! In: something happened (a request, a reply, a timeout, a tick). Out: what to do next.
//!
//! **Invariant:** no clock, no socket, no `async`, no global randomness. Time is a [`units::Nanos`] argument and luck is a
//! [`units::Rng`] argument, so that the simulator and the proxy run this very code and differ in nothing else.
//! **Invariant:** knows nothing of HTTP, of the file or of places beyond small integers; its callers translate.
//! **Invariant:** deciding never allocates. What must be built (tables, rings) is built when membership changes. (How many
//! instances there should be is decided every few seconds, not for each request, and may.)
//!
//! One request, as a proxy or a simulator puts it through the parts:
//! ```
//! use policy::{Ask, Attempt, Balancer, Breaker, Budget, Deadline, Endpoint, Next, Outcome, Place, RetryState, eject, settings};
//! use units::{Nanos, Rng};
//!
//! // Per caller and callee, for as long as both live.
//! let edge = settings::EdgeSettings { retry: Some(Default::default()), breaker: Some(Default::default()), ..Default::default() };
//! let retry = edge.retry.as_ref().unwrap();
//! let mut endpoints: Vec<Endpoint> = (0..3).map(|key| Endpoint::new(key, Place::default())).collect();
//! let mut balancer = Balancer::new(edge.balance, edge.locality, Place::default());
//! balancer.refresh(&endpoints);
//! let mut budget = Budget::new(&retry.budget.unwrap(), 1);
//! let mut breaker = Breaker::new(edge.breaker.unwrap());
//! let mut rng = Rng::from_seed(7);
//!
//! // Per request. The first attempt meets a bad instance, the second another one.
//! let mut now = Nanos::from_secs(5);
//! let deadline = Deadline::within(now, Nanos::from_secs(1));
//! let (mut state, mut tried) = (RetryState::default(), vec![]);
//! budget.on_request(now);
//! let answered_by = loop {
//!     let permit = breaker.admit(now).expect("closed");
//!     let picked = balancer.pick(&endpoints, &Ask { now, tried: &tried, ..Ask::default() }, &mut rng).expect("somebody");
//!     let index = picked.index as usize;
//!     endpoints[index].on_start();
//!     let outcome = if tried.is_empty() { Outcome::ConnectFailed } else { Outcome::Status(200) };
//!     now += Nanos::from_millis(3);
//!     endpoints[index].on_finish(now, Nanos::from_millis(3), outcome, None);
//!     breaker.on_result(now, permit, outcome);
//!     if eject::on_outcome(&edge.eject.unwrap(), &mut endpoints, index, outcome, now).is_some() {
//!         balancer.refresh(&endpoints);
//!     }
//!     tried.push(picked.index);
//!     match state.next(retry, &Attempt::ended(outcome, deadline), Some(&mut budget), now, &mut rng) {
//!         Next::Retry { wait, .. } => now += wait,
//!         Next::Stop(_) => break picked.index,
//!     }
//! };
//! assert_eq!(tried.len(), 2);
//! assert_ne!(tried[0], answered_by, "a retry never goes to the instance that just failed");
//! ```

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
pub mod subset;

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
