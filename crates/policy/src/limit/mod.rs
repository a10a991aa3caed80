//! How many requests may be in flight at once.
//!
//! A rate limit needs to know how fast a service is; a concurrency limit finds out, because of Little's law: what is in
//! flight is throughput times latency, and when latency grows without throughput the limit has been passed.
//!
//! The adaptive rules look at one window at a time: at least a second and ten samples, samples below 100 µs left out
//! (they are refusals, not work). The formulas are those of the library the industry copied; see [`Vegas`],
//! [`Gradient`] and [`Aimd`], each a pure function of (rtt, in flight, dropped).
//!
//! What is over the limit is refused at once. To let it wait, put a [`Queue`](crate::Queue) in front; for a default that
//! needs no settings, use [`Overload`](crate::Overload).

mod adaptive;
mod bulkhead;

pub use adaptive::{Aimd, Gradient, Vegas};
pub use bulkhead::Bulkheads;

use crate::{Outcome, settings};
use units::{Nanos, Rng};

#[derive(Clone, Debug, PartialEq)]
pub struct Limiter {
    rule: Rule,
    in_flight: u32,
    window: Samples,
    refused: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Static(u32),
    Gradient(Gradient),
    Vegas(Vegas),
    Aimd(Aimd),
}

/// What one ended request says about the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sample {
    /// Its latency is that of work.
    Ok,
    /// It ran into overload: timed out, or was refused further on.
    Dropped,
    /// Its caller left before the answer: it would have taken at least this long.
    Abandoned,
    /// Says nothing: never sent, a copy that lost, or failed for a reason of its own.
    Ignored,
}

impl From<Outcome> for Sample {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Timeout
            | Outcome::Shed
            | Outcome::Status(429 | 503 | 504)
            | Outcome::Grpc(4 | 8 | 14) => Self::Dropped,
            Outcome::Cancelled | Outcome::Grpc(1) => Self::Abandoned,
            _ if outcome.is_success() => Self::Ok,
            _ => Self::Ignored,
        }
    }
}

/// The window in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Samples {
    ends: Nanos,
    count: u64,
    rtt_sum: u64,
    in_flight_max: u32,
    dropped: bool,
}

const WINDOW: Nanos = Nanos::from_secs(1);
const WINDOW_SAMPLES_MIN: u64 = 10;
const RTT_MIN: Nanos = Nanos::from_micros(100);

impl Limiter {
    pub fn new(settings: settings::Concurrency) -> Self {
        let rule = match settings {
            settings::Concurrency::Static { max } => Rule::Static(max),
            settings::Concurrency::Gradient { min, max } => Rule::Gradient(Gradient::new(min, max)),
            settings::Concurrency::Vegas { max } => Rule::Vegas(Vegas::new(max)),
            settings::Concurrency::Aimd { min, max } => Rule::Aimd(Aimd::new(min, max)),
        };
        Self { rule, in_flight: 0, window: Samples::default(), refused: 0 }
    }

    pub fn limit(&self) -> u32 {
        match &self.rule {
            Rule::Static(max) => *max,
            Rule::Gradient(it) => it.limit(),
            Rule::Vegas(it) => it.limit(),
            Rule::Aimd(it) => it.limit(),
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Starts one request, or refuses it and counts the refusal. Every start ends in one [`Limiter::finish`].
    pub fn try_start(&mut self) -> bool {
        if self.in_flight >= self.limit() {
            self.refused += 1;
            return false;
        }
        self.in_flight += 1;
        true
    }

    pub fn finish(&mut self, now: Nanos, rtt: Nanos, sample: Sample, rng: &mut Rng) {
        debug_assert!(self.in_flight > 0, "finished more than was started");
        let in_flight = self.in_flight;
        self.in_flight = in_flight.saturating_sub(1);
        if matches!(self.rule, Rule::Static(_)) || matches!(sample, Sample::Ignored | Sample::Abandoned) {
            return;
        }
        let window = &mut self.window;
        if window.ends.is_zero() {
            window.ends = now + WINDOW;
        }
        window.dropped |= sample == Sample::Dropped;
        if rtt >= RTT_MIN {
            window.count += 1;
            window.rtt_sum = window.rtt_sum.saturating_add(rtt.0);
        }
        window.in_flight_max = window.in_flight_max.max(in_flight);
        if now < window.ends || window.count < WINDOW_SAMPLES_MIN {
            return;
        }
        let seen = std::mem::replace(window, Samples { ends: now + WINDOW, ..Samples::default() });
        let rtt = Nanos(seen.rtt_sum / seen.count);
        match &mut self.rule {
            Rule::Static(_) => {}
            Rule::Gradient(it) => it.update(rtt, seen.in_flight_max),
            Rule::Vegas(it) => it.update(rtt, seen.in_flight_max, seen.dropped, rng),
            Rule::Aimd(it) => it.update(rtt, seen.in_flight_max, seen.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use settings::Concurrency;
    use units::Rng;

    #[test]
    fn a_static_limit_is_a_limit() {
        let (mut limiter, mut rng) = (Limiter::new(Concurrency::Static { max: 2 }), Rng::from_seed(1));
        assert!(limiter.try_start() && limiter.try_start() && !limiter.try_start());
        assert_eq!(limiter.refused(), 1);
        limiter.finish(Nanos(1), Nanos(1), Sample::Ok, &mut rng);
        assert!(limiter.try_start());
    }

    /// Keeps a server of `slots` × 10 ms saturated through the limiter for a minute; the limits it settled on.
    fn settle(settings: Concurrency, slots: u32) -> (u32, u32) {
        let (mut limiter, mut rng) = (Limiter::new(settings), Rng::from_seed(1));
        let (mut low, mut high) = (u32::MAX, 0);
        for step in 0..6_000u64 {
            let now = Nanos::from_millis(step * 10);
            while limiter.try_start() {}
            // Processor sharing: all in flight take as long as the queue is deep.
            let rtt = Nanos::from_millis(10) * u64::from(limiter.in_flight().div_ceil(slots));
            let done = slots.min(limiter.in_flight());
            (0..done).for_each(|_| limiter.finish(now, rtt, Sample::Ok, &mut rng));
            if step > 3_000 {
                low = low.min(limiter.limit());
                high = high.max(limiter.limit());
            }
        }
        (low, high)
    }

    #[test]
    fn adaptive_limits_do_not_starve_a_saturated_server() {
        for settings in [
            Concurrency::Gradient { min: 1, max: 500 },
            Concurrency::Vegas { max: 500 },
            Concurrency::Aimd { min: 1, max: 500 },
        ] {
            let (low, high) = settle(settings, 50);
            // Gradient2 tolerates 1.5 times the latency it is used to, and hunts a little below the knee.
            assert!(low >= 40 && high <= 500, "{settings:?}: {low}..{high}");
        }
        // Vegas alone re-measures the idle latency, so it alone also keeps the queue short.
        let (_, high) = settle(Concurrency::Vegas { max: 500 }, 50);
        assert!(high < 150, "{high}");
    }

    proptest! {
        #[test]
        fn in_flight_never_exceeds_the_limit_it_was_admitted_under(
            kind in 0u8..4,
            steps in prop::collection::vec((any::<bool>(), 0u64..4_000, 0u8..3), 1..300),
        ) {
            let settings = [
                Concurrency::Static { max: 5 },
                Concurrency::Gradient { min: 2, max: 30 },
                Concurrency::Vegas { max: 30 },
                Concurrency::Aimd { min: 2, max: 30 },
            ][kind as usize];
            let (mut limiter, mut rng, mut now) = (Limiter::new(settings), Rng::from_seed(1), Nanos::ZERO);
            for (start, ms, what) in steps {
                now += Nanos::from_millis(ms);
                if start {
                    let (before, limit) = (limiter.in_flight(), limiter.limit());
                    prop_assert_eq!(limiter.try_start(), before < limit);
                } else if limiter.in_flight() > 0 {
                    let sample = [Sample::Ok, Sample::Dropped, Sample::Ignored][what as usize];
                    limiter.finish(now, Nanos::from_millis(ms), sample, &mut rng);
                }
                prop_assert!((1..=30).contains(&limiter.limit()));
            }
        }
    }
}
