//! Hedging: when the first copy is silent for too long, send a second and take whichever answers first.
//!
//! It cures the slow one in a hundred, at the price of extra load exactly when everything is slow. So it has its own
//! budget, applies to idempotent requests only, and the copies go to different instances. `after` should be about the
//! operation's p95: then one request in twenty is hedged, and the p99 becomes nearly the p95 of two draws.
//!
//! ```text
//! first copy at once; the next `after` later, each time; a failure that may be retried sends the next one at once
//! the first success wins and the others are cancelled; any other failure is final and cancels them too
//! ```

use crate::budget::Budget;
use crate::{Attempt, Deadline, settings};
use units::Nanos;

/// The copies of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeState {
    sent: u8,
    running: u8,
    last_sent: Nanos,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeNext {
    /// Send another copy now, to an instance that has none.
    Send,
    /// Nothing to do before this instant, or before a copy ends.
    WaitUntil(Nanos),
    /// No more copies will be sent; wait for those that run.
    Wait,
    /// This result is the request's result: cancel the copies that still run.
    Finish,
}

impl HedgeState {
    /// The first copy was sent at `now`.
    pub fn start(now: Nanos) -> Self {
        Self { sent: 1, running: 1, last_sent: now, over: false }
    }

    pub fn copies_running(&self) -> u8 {
        self.running
    }

    /// Asked when the time of an earlier [`HedgeNext::WaitUntil`] has come.
    pub fn on_time(
        &mut self,
        settings: &settings::Hedge,
        idempotent: bool,
        deadline: Deadline,
        budget: &mut Budget,
        now: Nanos,
    ) -> HedgeNext {
        if self.over || !idempotent || self.sent >= settings.copies || deadline.has_passed(now) {
            return HedgeNext::Wait;
        }
        let due = self.last_sent + settings.after;
        if now < due {
            return HedgeNext::WaitUntil(due);
        }
        self.send(budget, now)
    }

    /// A copy ended. `retryable` is whether the settings would retry this outcome.
    pub fn on_end(
        &mut self,
        settings: &settings::Hedge,
        attempt: &Attempt,
        retryable: bool,
        budget: &mut Budget,
        now: Nanos,
    ) -> HedgeNext {
        self.running = self.running.saturating_sub(1);
        if self.over || !retryable || attempt.outcome.is_success() {
            self.over = true;
            return HedgeNext::Finish;
        }
        let more = attempt.idempotent
            && self.sent < settings.copies
            && attempt.hint != crate::Hint::Never
            && attempt.deadline.allows(now, attempt.expected);
        let next = if more { self.send(budget, now) } else { HedgeNext::Wait };
        // A failure with nobody else running and nobody to send is the answer.
        if next == HedgeNext::Wait && self.running == 0 {
            self.over = true;
            return HedgeNext::Finish;
        }
        next
    }

    fn send(&mut self, budget: &mut Budget, now: Nanos) -> HedgeNext {
        if !budget.withdraw(now) {
            return HedgeNext::Wait;
        }
        self.sent += 1;
        self.running += 1;
        self.last_sent = now;
        HedgeNext::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use units::{Percent, Rate};

    fn settings(copies: u8, floor: u64) -> settings::Hedge {
        let budget = settings::Budget {
            ratio: Percent::ZERO,
            floor: Rate::per_second_whole(floor),
            window: Nanos::from_secs(1),
        };
        settings::Hedge { after: Nanos::from_millis(10), copies, budget }
    }

    /// "12 time; 15 bad": time passes, a copy ends. Answers: send, until N, wait, finish.
    #[track_caller]
    fn check(settings: settings::Hedge, idempotent: bool, script: &str, expected: &str) {
        let mut budget = Budget::new(&settings.budget, 1);
        let mut hedge = HedgeState::start(Nanos::ZERO);
        let deadline = Deadline::within(Nanos::ZERO, Nanos::from_millis(100));
        let mut said = Vec::new();
        for step in script.split("; ") {
            let (at, what) = step.split_once(' ').expect("time and word");
            let now = Nanos::from_millis(at.parse().expect("milliseconds"));
            let status = if what == "ok" { 200 } else { 503 };
            let attempt = Attempt { idempotent, ..Attempt::ended(Outcome::Status(status), deadline) };
            let next = match what {
                "time" => hedge.on_time(&settings, idempotent, deadline, &mut budget, now),
                _ => hedge.on_end(&settings, &attempt, what == "bad", &mut budget, now),
            };
            said.push(match next {
                HedgeNext::Send => "send".to_owned(),
                HedgeNext::WaitUntil(at) => format!("until {}", at.0 / 1_000_000),
                HedgeNext::Wait => "wait".to_owned(),
                HedgeNext::Finish => "finish".to_owned(),
            });
        }
        assert_eq!(said.join(", "), expected, "{script}");
    }

    #[test]
    fn copies_are_sent_late_and_one_wins() {
        check(settings(2, 9), true, "5 time; 10 time; 20 time; 25 ok", "until 10, send, wait, finish");
        check(
            settings(3, 9),
            true,
            "10 time; 12 time; 20 time; 25 bad; 26 ok",
            "send, until 20, send, wait, finish",
        );
        check(settings(2, 9), true, "5 bad; 6 bad", "send, finish");
        check(settings(2, 9), true, "10 time; 11 fatal", "send, finish");
        check(settings(2, 9), false, "10 time; 12 bad", "wait, finish");
        check(settings(2, 9), true, "100 time", "wait");
        check(settings(2, 0), true, "10 time; 11 bad", "wait, finish");
    }
}
