//! Circuit breaker: stop asking a service that only fails, and find out cheaply when it is back.
//!
//! ```text
//! admitting ── trip ──▶ rejecting ── pause over ──▶ probing ── success ──▶ admitting (counts start at zero)
//!                           ▲                          └─ failure or cancelled ─▶ rejecting, pause doubled to pause_max
//! ```
//! - Consecutive: `failures` in a row trip it.
//! - Rate: over `window`, in twenty slots, `errors` or more of at least `requests_min` calls trip it. Judged when a
//!   slot completes, on completed slots: with steady traffic and a healthy past, a total outage trips a 50 % breaker
//!   of 10 s in 5.0 to 5.5 s, and 2 % errors never do. A breaker is not a detector of bad releases.
//!
//! **One probe.** In the probing state one real request is let through and everybody else refused until it ended. So
//! asking is split in two: [`Breaker::admit`] changes the state and gives out the permit; [`Breaker::state`] only
//! reads. A dashboard that asked "may I?" would otherwise eat the probe.
//!
//! Every permit must end in one [`Breaker::on_result`], cancelled requests included (as failed when they were the
//! probe). Results that started before the state changed say nothing about now and are ignored: that is what the
//! permit's number is for.
//!
//! ```
//! use policy::{Breaker, BreakerState, Outcome, settings};
//! use units::Nanos;
//! let (mut breaker, ms) = (Breaker::new(settings::Breaker::default()), Nanos::from_millis);
//! for n in 0..5 {
//!     let permit = breaker.admit(ms(n)).unwrap();
//!     breaker.on_result(ms(n), permit, Outcome::ConnectFailed);
//! }
//! assert_eq!(breaker.state(ms(5)), BreakerState::Rejecting { until: ms(1_004) });
//! assert!(breaker.admit(ms(5)).is_none());
//! assert!(breaker.admit(ms(1_004)).is_some(), "one probe");
//! assert!(breaker.admit(ms(1_004)).is_none(), "and only one");
//! ```

use crate::Outcome;
use crate::settings::{self, Trip};
use crate::window::Window;
use units::Nanos;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    settings: settings::Breaker,
    gate: Gate,
    /// Counts the moves of the gate; a permit from before the last move is stale.
    epoch: u32,
    failures_in_a_row: u32,
    /// Calls and failures.
    window: Window<SLOTS, 2>,
    /// Times it opened without a success between: doubles the pause.
    opened_in_a_row: u32,
    trips: u64,
    rejected: u64,
}

/// Twenty completed slots, as many as the health snapshots in the ten-second window of the breaker everybody copied,
/// and the one in progress.
const SLOTS: usize = 21;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Admitting,
    Rejecting { until: Nanos },
    Probing,
}

/// What a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Admitting,
    Rejecting {
        until: Nanos,
    },
    /// The pause is over; the next request will be the probe.
    ReadyToProbe,
    /// The probe is on its way.
    Probing,
}

/// Leave to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u32,
    probe: bool,
}

impl Permit {
    /// This request decides whether the breaker closes. It must not be hedged or retried under the same permit.
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

impl Breaker {
    pub fn new(settings: settings::Breaker) -> Self {
        let window = match settings.trip {
            Trip::Rate { window, .. } => window / (SLOTS as u64 - 1) * SLOTS as u64,
            Trip::Consecutive { .. } => Nanos::ZERO,
        };
        Self {
            settings,
            gate: Gate::Admitting,
            epoch: 0,
            failures_in_a_row: 0,
            window: Window::new(window),
            opened_in_a_row: 0,
            trips: 0,
            rejected: 0,
        }
    }

    /// Reads only.
    pub fn state(&self, now: Nanos) -> BreakerState {
        match self.gate {
            Gate::Admitting => BreakerState::Admitting,
            Gate::Rejecting { until } if until <= now => BreakerState::ReadyToProbe,
            Gate::Rejecting { until } => BreakerState::Rejecting { until },
            Gate::Probing => BreakerState::Probing,
        }
    }

    /// Asks to send one request, and takes the probe if it is due. `None`: refuse at once.
    pub fn admit(&mut self, now: Nanos) -> Option<Permit> {
        self.judge_rate(now);
        match self.gate {
            Gate::Admitting => Some(Permit { epoch: self.epoch, probe: false }),
            Gate::Rejecting { until } if until <= now => {
                self.move_to(Gate::Probing);
                Some(Permit { epoch: self.epoch, probe: true })
            }
            Gate::Rejecting { .. } | Gate::Probing => {
                self.rejected += 1;
                None
            }
        }
    }

    pub fn on_result(&mut self, now: Nanos, permit: Permit, outcome: Outcome) {
        if permit.epoch != self.epoch {
            return;
        }
        match (self.gate, permit.probe) {
            (Gate::Probing, true) if outcome.is_success() => {
                self.opened_in_a_row = 0;
                self.failures_in_a_row = 0;
                self.window.clear();
                self.move_to(Gate::Admitting);
            }
            (Gate::Probing, true) => self.open(now),
            (Gate::Admitting, false) if outcome.is_counted() => {
                let failed = outcome.is_failure();
                match self.settings.trip {
                    Trip::Consecutive { failures } => {
                        self.failures_in_a_row = if failed { self.failures_in_a_row + 1 } else { 0 };
                        if self.failures_in_a_row >= failures.max(1) {
                            self.open(now);
                        }
                    }
                    Trip::Rate { .. } => {
                        // What ended before `now` is judged first: this result belongs to the slot in progress.
                        self.judge_rate(now);
                        if self.gate == Gate::Admitting {
                            self.window.add(now, [1, u64::from(failed)]);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn judge_rate(&mut self, now: Nanos) {
        let Trip::Rate { errors, requests_min, .. } = self.settings.trip else { return };
        if self.gate != Gate::Admitting || !self.window.advance(now) {
            return;
        }
        let [calls, failures] = self.window.completed();
        let share_reached =
            u128::from(failures) * 1_000_000 >= u128::from(calls) * u128::from(errors.millionths());
        if failures > 0 && calls >= u64::from(requests_min) && share_reached {
            self.open(now);
        }
    }

    fn open(&mut self, now: Nanos) {
        let doublings = self.opened_in_a_row.min(63);
        let pause = Nanos(self.settings.pause.0.saturating_mul(1 << doublings));
        // A maximum below the pause itself would be a mistake in the settings; the pause wins.
        let pause = pause.min(self.settings.pause_max.max(self.settings.pause));
        self.opened_in_a_row = self.opened_in_a_row.saturating_add(1);
        self.failures_in_a_row = 0;
        self.trips += 1;
        self.move_to(Gate::Rejecting { until: now + pause });
    }

    fn move_to(&mut self, gate: Gate) {
        self.gate = gate;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Times it opened, failed probes included.
    pub fn trips(&self) -> u64 {
        self.trips
    }

    /// Requests refused.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::{Percent, Rng};

    const OK: Outcome = Outcome::Status(200);
    const BAD: Outcome = Outcome::Status(503);

    fn consecutive(failures: u32) -> Breaker {
        Breaker::new(settings::Breaker {
            trip: Trip::Consecutive { failures },
            pause: Nanos::from_millis(100),
            pause_max: Nanos::from_millis(300),
        })
    }

    /// "3 bad; 4 ask": at 3 ms a request is sent and fails; at 4 ms one asks and is left open. Answers what the gate said.
    #[track_caller]
    fn check(mut breaker: Breaker, script: &str, expected: &str) {
        let mut said = Vec::new();
        for step in script.split("; ") {
            let (at, what) = step.split_once(' ').expect("time and word");
            let now = Nanos::from_millis(at.parse().expect("milliseconds"));
            let permit = breaker.admit(now);
            said.push(match permit {
                Some(permit) if permit.is_probe() => "probe",
                Some(_) => "go",
                None => "no",
            });
            let outcome = match what {
                "ok" => OK,
                "bad" => BAD,
                "cancel" => Outcome::Cancelled,
                _ => continue,
            };
            if let Some(permit) = permit {
                breaker.on_result(now, permit, outcome);
            }
        }
        assert_eq!(said.join(" "), expected, "{script}");
    }

    #[test]
    fn it_opens_probes_once_and_closes() {
        check(
            consecutive(3),
            "0 bad; 1 bad; 2 bad; 3 ask; 101 ask; 102 ask; 103 ask",
            "go go go no no probe no",
        );
        check(consecutive(3), "0 bad; 1 bad; 2 ok; 3 bad; 4 bad; 5 ask", "go go go go go go");
        check(consecutive(1), "0 bad; 100 ok; 101 ask; 102 ask", "go probe go go");
        check(consecutive(2), "0 bad; 1 cancel; 2 bad; 3 ask", "go go go no");
    }

    #[test]
    fn failed_and_cancelled_probes_double_the_pause_to_its_maximum() {
        check(
            consecutive(1),
            "0 bad; 100 bad; 299 ask; 300 cancel; 599 ask; 600 bad; 899 ask; 900 ok; 901 bad; 1001 ask",
            "go probe no probe no probe no probe go probe",
        );
    }

    #[test]
    fn late_results_of_an_earlier_state_change_nothing() {
        let mut breaker = consecutive(1);
        let (old, first) = (breaker.admit(Nanos::ZERO).unwrap(), breaker.admit(Nanos::ZERO).unwrap());
        breaker.on_result(Nanos::ZERO, first, BAD);
        breaker.on_result(Nanos(1), old, OK);
        assert!(matches!(breaker.state(Nanos(1)), BreakerState::Rejecting { .. }));
        let probe = breaker.admit(Nanos::from_millis(100)).unwrap();
        breaker.on_result(Nanos::from_millis(100), old, OK);
        assert_eq!(breaker.state(Nanos::from_millis(100)), BreakerState::Probing);
        breaker.on_result(Nanos::from_millis(101), probe, OK);
        assert_eq!(breaker.state(Nanos::from_millis(101)), BreakerState::Admitting);
    }

    /// The defaults of the breaker everybody copied: 50 % of at least 20 requests in 10 s.
    fn classic() -> Breaker {
        Breaker::new(settings::Breaker {
            trip: Trip::Rate {
                errors: Percent::from_whole(50),
                requests_min: 20,
                window: Nanos::from_secs(10),
            },
            pause: Nanos::from_secs(5),
            pause_max: Nanos::from_secs(5),
        })
    }

    /// Seconds from the outage to the trip, at 100 requests a second, or `None` within five minutes.
    fn seconds_to_trip(outage_at: Nanos, error_share: f64, seed: u64) -> Option<f64> {
        let (mut breaker, mut rng) = (classic(), Rng::from_seed(seed));
        for n in 0..30_000 {
            let now = Nanos::from_millis(n * 10);
            let Some(permit) = breaker.admit(now) else {
                return Some((now - outage_at).as_secs_f64());
            };
            let fails = now >= outage_at && rng.chance(error_share);
            breaker.on_result(now, permit, if fails { BAD } else { OK });
        }
        None
    }

    #[test]
    fn a_total_outage_trips_in_five_to_five_and_a_half_seconds_and_two_percent_never() {
        for phase in 0..50 {
            let outage_at = Nanos::from_secs(30) + Nanos::from_millis(phase * 10);
            let seconds = seconds_to_trip(outage_at, 1.0, 1).expect("trips");
            assert!((5.0..=5.5).contains(&seconds), "phase {phase}: {seconds} s");
        }
        for seed in 0..10 {
            assert_eq!(seconds_to_trip(Nanos::ZERO, 0.02, seed), None);
        }
    }

    #[test]
    fn below_the_volume_nothing_happens() {
        let mut breaker = classic();
        for n in 0..100 {
            let now = Nanos::from_millis(n * 600); // 17 in ten seconds
            let permit = breaker.admit(now).expect("too little traffic to judge");
            breaker.on_result(now, permit, BAD);
        }
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_one_probe(
            failures in 1u32..4,
            steps in prop::collection::vec((0u64..60, 0u8..4), 1..200),
        ) {
            let mut breaker = consecutive(failures);
            let (mut now, mut open, mut probe) = (Nanos::ZERO, Vec::new(), None);
            for (wait, what) in steps {
                now += Nanos::from_millis(wait);
                if what == 0 || open.is_empty() && probe.is_none() {
                    let before = breaker.clone();
                    let state = breaker.state(now);
                    prop_assert_eq!(&breaker, &before, "reading changes nothing");
                    match breaker.admit(now) {
                        Some(permit) if permit.is_probe() => {
                            prop_assert!(probe.is_none(), "a second probe");
                            prop_assert_eq!(state, BreakerState::ReadyToProbe);
                            probe = Some(permit);
                        }
                        Some(permit) => {
                            prop_assert!(probe.is_none(), "ordinary requests while probing");
                            open.push(permit);
                        }
                        None => prop_assert!(state != BreakerState::Admitting && state != BreakerState::ReadyToProbe),
                    }
                } else {
                    let outcome = if what == 1 { OK } else { BAD };
                    let permit = if what == 3 { probe.take().or_else(|| open.pop()) } else { open.pop().or_else(|| probe.take()) };
                    breaker.on_result(now, permit.expect("one is open"), outcome);
                }
            }
        }
    }
}
