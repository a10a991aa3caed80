//! Whether, when and under what time-out to try again.
//!
//! A retry needs six yeses: the outcome may be retried (`on`), doing it twice is harmless or it provably was not done,
//! the body is still there, attempts are left, the peer did not forbid it, and the deadline leaves time for the wait and
//! for work. Only then is the budget asked, so that what would not happen anyway costs nothing.
//!
//! **Transparent retries.** What never left this process, or what the peer proved not to have started, is sent again at
//! once, outside attempts and budget: nothing happened that could overload anybody. A reused connection that closed
//! before any reply is treated the same for idempotent requests (the keep-alive race). Once each for what the peer saw,
//! and [`TRANSPARENT_MAX`] in all, because a bound nobody reaches costs nothing and a loop nobody bounded does.
//!
//! **Where not to retry.** Only the layer directly above a failure should: three layers of four attempts are 64. A reply
//! made by a proxy on behalf of an overloaded service carries [`Hint::Never`]. And never on an instance already tried:
//! pass the tried ones to [`Ask`](crate::Ask).
//!
//! ```
//! use policy::{Attempt, Budget, Deadline, Next, Outcome, RetryState, settings};
//! use units::{Nanos, Rng};
//! let settings = settings::Retry::default();
//! let mut budget = Budget::new(&settings.budget.unwrap(), 1);
//! let (mut retry, mut rng, now) = (RetryState::default(), Rng::from_seed(1), Nanos::from_secs(1));
//! let attempt = Attempt { idempotent: true, ..Attempt::ended(Outcome::Status(503), Deadline::within(now, Nanos::from_secs(1))) };
//! assert!(matches!(retry.next(&settings, &attempt, Some(&mut budget), now, &mut rng), Next::Retry { .. }));
//! assert_eq!(retry.next(&settings, &attempt, Some(&mut budget), now, &mut rng), Next::Stop(policy::Why::AttemptsUsed));
//! ```

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::{Deadline, Outcome, settings};
use units::{Nanos, Rng};

/// Transparent retries of one request: as many pooled connections in a row would have to be dead.
pub const TRANSPARENT_MAX: u8 = 8;

/// What one request remembers about its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryState {
    /// Attempts after the first.
    retries: u8,
    transparent: u8,
    /// The peer saw it and gave it back once already.
    given_back: bool,
    backoff: Backoff,
}

/// What the peer said about trying again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hint {
    #[default]
    None,
    /// Retry-After: not before this; jitter is added, because everybody was told the same.
    AtLeast(Nanos),
    /// gRPC pushback: after exactly this, and back-off starts again.
    Exactly(Nanos),
    /// gRPC pushback that is negative or cannot be read, or "overloaded, do not retry".
    Never,
}

/// One attempt that has ended, and the request it belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub outcome: Outcome,
    pub hint: Hint,
    /// Doing it twice is as good as once (by method, or because the operation says so).
    pub idempotent: bool,
    /// The body is still at hand.
    pub replayable: bool,
    /// Something of the reply has been passed on; nothing can be taken back any more.
    pub committed: bool,
    pub deadline: Deadline,
    /// What an attempt usually takes; zero if unknown. No retry starts that is not expected to be in time.
    pub expected: Nanos,
}

impl Attempt {
    /// A non-idempotent request with a replayable body of which nothing was passed on.
    pub const fn ended(outcome: Outcome, deadline: Deadline) -> Self {
        Self {
            outcome,
            hint: Hint::None,
            idempotent: false,
            replayable: true,
            committed: false,
            deadline,
            expected: Nanos::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send it again after `wait`. Transparent retries count neither as attempt nor as failure.
    Retry {
        wait: Nanos,
        transparent: bool,
    },
    Stop(Why),
}

/// Why not, as data: each is a counter and a word on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It went well, or failed in a way that the settings do not retry.
    NotRetryable,
    /// It may have been done already, and doing it twice may do harm.
    NotIdempotent,
    /// The body was streamed through and is gone.
    BodyGone,
    /// Part of the reply has been passed on.
    Committed,
    AttemptsUsed,
    /// The peer asked not to be asked again.
    PeerForbids,
    /// The wait and the work would end after the deadline.
    TooLate,
    BudgetEmpty,
}

impl settings::RetryOn {
    pub const fn covers(&self, outcome: Outcome) -> bool {
        let by_kind = match outcome {
            Outcome::ConnectFailed => self.connect_failure,
            Outcome::Reset | Outcome::Stale | Outcome::Refused | Outcome::NeverSent => self.reset,
            Outcome::Timeout => self.timeout,
            Outcome::Status(_) | Outcome::Grpc(_) => false,
            Outcome::Shed | Outcome::Cancelled => false,
        };
        by_kind
            || (self.unavailable && outcome.is_unavailable())
            || (self.server_error && outcome.is_server_error())
            || (self.throttled && outcome.is_throttled())
    }
}

impl RetryState {
    /// The number of the attempt in progress, from 0: what travels with it, so that servers can tell storms.
    pub fn attempt(&self) -> u8 {
        self.retries
    }

    /// An attempt ended. `budget` is the service's; `None` is retries without one.
    pub fn next(
        &mut self,
        settings: &settings::Retry,
        attempt: &Attempt,
        budget: Option<&mut Budget>,
        now: Nanos,
        rng: &mut Rng,
    ) -> Next {
        let Attempt { outcome, hint, deadline, .. } = *attempt;
        if attempt.committed {
            return Next::Stop(Why::Committed);
        }
        if !attempt.replayable && outcome != Outcome::NeverSent {
            return Next::Stop(Why::BodyGone);
        }
        if self.is_transparent(attempt) {
            if !deadline.allows(now, attempt.expected) {
                return Next::Stop(Why::TooLate);
            }
            self.transparent += 1;
            self.given_back |= outcome != Outcome::NeverSent;
            return Next::Retry { wait: Nanos::ZERO, transparent: true };
        }
        if !settings.on.covers(outcome) {
            return Next::Stop(Why::NotRetryable);
        }
        if !(attempt.idempotent || settings.non_idempotent || outcome.is_unprocessed()) {
            return Next::Stop(Why::NotIdempotent);
        }
        if hint == Hint::Never {
            return Next::Stop(Why::PeerForbids);
        }
        if self.retries + 1 >= settings.attempts {
            return Next::Stop(Why::AttemptsUsed);
        }
        let mut backoff = self.backoff;
        let wait = match hint {
            Hint::Exactly(wait) => {
                backoff.restart();
                wait
            }
            Hint::AtLeast(wait) => wait + backoff.next(&settings.backoff, true, rng),
            Hint::None | Hint::Never => backoff.next(&settings.backoff, outcome.is_throttled(), rng),
        };
        if !deadline.allows(now, wait + attempt.expected) || wait >= deadline.left(now) {
            return Next::Stop(Why::TooLate);
        }
        if budget.is_some_and(|it| !it.withdraw(now)) {
            return Next::Stop(Why::BudgetEmpty);
        }
        self.backoff = backoff;
        self.retries += 1;
        Next::Retry { wait, transparent: false }
    }

    fn is_transparent(&self, attempt: &Attempt) -> bool {
        self.transparent < TRANSPARENT_MAX
            && match attempt.outcome {
                Outcome::NeverSent => true,
                Outcome::Refused => !self.given_back,
                Outcome::Stale => !self.given_back && attempt.idempotent,
                _ => false,
            }
    }
}

/// The deadline of the attempt that starts now.
pub fn attempt_deadline(settings: Option<&settings::Retry>, request: Deadline, now: Nanos) -> Deadline {
    match settings.and_then(|it| it.per_try) {
        Some(per_try) => request.tighten(now, per_try),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Backoff as Waits, Jitter, Retry, RetryOn};
    use proptest::prelude::*;
    use units::Rng;
    use units::{Percent, Rate};

    const NOW: Nanos = Nanos::from_secs(1);

    fn settings(attempts: u8) -> Retry {
        Retry {
            attempts,
            on: RetryOn { timeout: true, throttled: true, ..RetryOn::default() },
            backoff: Waits {
                base: Nanos::from_millis(10),
                max: Nanos::from_millis(40),
                jitter: Jitter::None,
            },
            ..Retry::default()
        }
    }

    fn ended(outcome: Outcome) -> Attempt {
        let deadline = Deadline::within(NOW, Nanos::from_millis(100));
        Attempt { idempotent: true, ..Attempt::ended(outcome, deadline) }
    }

    fn after(ms: u64) -> Next {
        Next::Retry { wait: Nanos::from_millis(ms), transparent: false }
    }

    const TRANSPARENT: Next = Next::Retry { wait: Nanos::ZERO, transparent: true };

    #[track_caller]
    fn check(settings: &Retry, attempts: &[Attempt], expected: &[Next]) {
        let (mut state, mut rng) = (RetryState::default(), Rng::from_seed(1));
        let got: Vec<Next> =
            attempts.iter().map(|it| state.next(settings, it, None, NOW, &mut rng)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn outcomes_decide() {
        use Outcome::*;
        for (outcome, expected) in [
            (Status(200), Next::Stop(Why::NotRetryable)),
            (Status(500), Next::Stop(Why::NotRetryable)),
            (Status(503), after(10)),
            (Grpc(14), after(10)),
            (Grpc(13), Next::Stop(Why::NotRetryable)),
            (Status(429), after(10)),
            (ConnectFailed, after(10)),
            (Timeout, after(10)),
            (NeverSent, TRANSPARENT),
            (Refused, TRANSPARENT),
            (Stale, TRANSPARENT),
            (Shed, Next::Stop(Why::NotRetryable)),
            (Cancelled, Next::Stop(Why::NotRetryable)),
        ] {
            check(&settings(3), &[ended(outcome)], &[expected]);
        }
    }

    #[test]
    fn what_may_have_happened_is_not_done_twice() {
        let risky = |outcome| Attempt { idempotent: false, ..ended(outcome) };
        check(&settings(3), &[risky(Outcome::Reset)], &[Next::Stop(Why::NotIdempotent)]);
        check(&settings(3), &[risky(Outcome::Stale)], &[Next::Stop(Why::NotIdempotent)]);
        check(&settings(3), &[risky(Outcome::ConnectFailed)], &[after(10)]);
        check(&settings(3), &[risky(Outcome::Refused)], &[TRANSPARENT]);
        let told = Retry { non_idempotent: true, ..settings(3) };
        check(&told, &[risky(Outcome::Reset)], &[after(10)]);
        let gone = Attempt { replayable: false, ..ended(Outcome::Status(503)) };
        check(&settings(3), &[gone], &[Next::Stop(Why::BodyGone)]);
        let committed = Attempt { committed: true, ..ended(Outcome::Reset) };
        check(&settings(3), &[committed], &[Next::Stop(Why::Committed)]);
    }

    #[test]
    fn attempts_include_the_first_and_transparent_ones_do_not_count() {
        let bad = ended(Outcome::Status(503));
        check(&settings(1), &[bad], &[Next::Stop(Why::AttemptsUsed)]);
        check(&settings(3), &[bad; 3], &[after(10), after(20), Next::Stop(Why::AttemptsUsed)]);
        let back = ended(Outcome::Refused);
        check(&settings(2), &[back, back, back], &[TRANSPARENT, after(10), Next::Stop(Why::AttemptsUsed)]);
        let mut expected = vec![TRANSPARENT; usize::from(TRANSPARENT_MAX)];
        expected.push(after(10));
        check(&settings(2), &vec![ended(Outcome::NeverSent); expected.len()], &expected);
    }

    #[test]
    fn the_peer_may_say_when_and_whether() {
        let told = |hint| Attempt { hint, ..ended(Outcome::Status(503)) };
        let ms = Nanos::from_millis;
        check(&settings(4), &[told(Hint::Never)], &[Next::Stop(Why::PeerForbids)]);
        check(&settings(4), &[told(Hint::AtLeast(ms(50)))], &[after(60)]);
        check(&settings(4), &[told(Hint::AtLeast(ms(95)))], &[Next::Stop(Why::TooLate)]);
        check(
            &settings(9),
            &[told(Hint::None), told(Hint::None), told(Hint::Exactly(ms(7))), told(Hint::None)],
            &[after(10), after(20), after(7), after(10)],
        );
    }

    #[test]
    fn a_retry_that_cannot_be_in_time_is_not_made_and_not_paid_for() {
        let slow = Attempt { expected: Nanos::from_millis(95), ..ended(Outcome::Status(503)) };
        let budget = settings::Budget {
            ratio: Percent::ZERO,
            floor: Rate::per_second_whole(1),
            window: Nanos::from_secs(1),
        };
        let (mut budget, mut rng) = (Budget::new(&budget, 1), Rng::from_seed(1));
        let mut state = RetryState::default();
        assert_eq!(
            state.next(&settings(3), &slow, Some(&mut budget), NOW, &mut rng),
            Next::Stop(Why::TooLate)
        );
        assert_eq!(budget.left(NOW), 1);
        let bad = ended(Outcome::Status(503));
        assert_eq!(state.next(&settings(3), &bad, Some(&mut budget), NOW, &mut rng), after(10));
        assert_eq!(
            state.next(&settings(3), &bad, Some(&mut budget), NOW, &mut rng),
            Next::Stop(Why::BudgetEmpty)
        );
        assert_eq!(state.attempt(), 1);
    }

    #[test]
    fn an_attempt_has_the_shorter_of_two_deadlines() {
        let request = Deadline::within(NOW, Nanos::from_millis(100));
        let per_try = |ms| Retry { per_try: Some(Nanos::from_millis(ms)), ..settings(2) };
        for (ms, left) in [(30, 30), (300, 100)] {
            let attempt = attempt_deadline(Some(&per_try(ms)), request, NOW);
            assert_eq!(attempt.left(NOW), Nanos::from_millis(left));
        }
        assert_eq!(attempt_deadline(None, request, NOW), request);
    }

    proptest! {
        #[test]
        fn attempts_and_budget_bound_what_is_sent(attempts in 0u8..8, ratio in 0u64..100, requests in 1u64..400) {
            let (settings, mut rng) = (settings(attempts), Rng::from_seed(requests));
            let budget = settings::Budget {
                ratio: Percent::from_whole(ratio),
                floor: Rate::per_second_whole(1),
                window: Nanos::from_secs(10),
            };
            let mut budget = Budget::new(&budget, 1);
            let mut retries = 0;
            for _ in 0..requests {
                budget.on_request(NOW);
                let mut state = RetryState::default();
                while let Next::Retry { wait, .. } =
                    state.next(&settings, &ended(Outcome::Status(503)), Some(&mut budget), NOW, &mut rng)
                {
                    prop_assert!(wait < Nanos::from_millis(100));
                    retries += 1;
                }
                prop_assert!(state.attempt() < attempts.max(1));
            }
            prop_assert!(100 * retries <= ratio * requests + 1_000);
        }
    }
}
