//! Rate limiting by the generic cell rate algorithm (GCRA): a token bucket in one number.
//!
//! ```text
//! T = 1/rate     τ = burst·T     tat = the instant at which the bucket is full again ("theoretical arrival time")
//! n requests conform ⇔ max(tat, now) + n·T ≤ now + τ;     then tat = max(tat, now) + n·T
//! ```
//! Nothing is refilled by a timer and nothing drifts; a bucket is two words, so one per client is affordable. In
//! picoseconds, because a period of a third of a nanosecond rounded to one would be three times too slow.
//!
//! ```
//! use units::{Nanos, Rate};
//! let mut limit = policy::RateLimit::new(policy::settings::RateLimit { rate: Rate::per_second_whole(10), burst: 2 });
//! assert_eq!(limit.take(Nanos::ZERO, 1), Ok(()));
//! assert_eq!(limit.take(Nanos::ZERO, 1), Ok(()));
//! assert_eq!(limit.take(Nanos::ZERO, 1), Err(Nanos::from_millis(100)), "come back then");
//! ```

use crate::settings;
use units::Nanos;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// T and τ in picoseconds; `None` lets nothing through, because the rate is zero.
    period: Option<u128>,
    tolerance: u128,
    tat: u128,
    refused: u64,
}

impl RateLimit {
    pub fn new(settings: settings::RateLimit) -> Self {
        let rate = settings.rate.per_second();
        // Rounded up: a limit may be a hair slower than asked for and never faster.
        let period = (rate > 0.0).then(|| (1e12 / rate).ceil() as u128);
        // A burst of none would let nothing through at any rate.
        let tolerance = period.unwrap_or(0).saturating_mul(u128::from(settings.burst.max(1)));
        Self { period, tolerance, tat: 0, refused: 0 }
    }

    /// Takes `n` at once or none of them. The error is how long until the same question would be answered with yes;
    /// [`Nanos::MAX`] if never.
    pub fn take(&mut self, now: Nanos, n: u32) -> Result<(), Nanos> {
        let Some(period) = self.period else {
            self.refused += 1;
            return Err(Nanos::MAX);
        };
        let now = u128::from(now.0) * 1_000;
        let cost = period.saturating_mul(u128::from(n));
        let tat = self.tat.max(now).saturating_add(cost);
        let horizon = now + self.tolerance;
        if tat <= horizon {
            self.tat = tat;
            return Ok(());
        }
        self.refused += 1;
        if cost > self.tolerance {
            return Err(Nanos::MAX);
        }
        Err(Nanos(u64::try_from((tat - horizon).div_ceil(1_000)).unwrap_or(u64::MAX)))
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::Rate;

    fn limit(per_second: u64, burst: u32) -> RateLimit {
        RateLimit::new(settings::RateLimit { rate: Rate::per_second_whole(per_second), burst })
    }

    #[test]
    fn rates_hold_in_the_long_run() {
        for per_second in [1, 3, 7, 1_000, 3_000_000] {
            let mut limit = limit(per_second, 1);
            let (mut taken, mut now) = (0u64, Nanos::ZERO);
            let end = Nanos(30_000_000_000 / per_second.div_ceil(1_000));
            while now < end {
                match limit.take(now, 1) {
                    Ok(()) => taken += 1,
                    Err(wait) => now += wait,
                }
            }
            let rate = taken as f64 / end.as_secs_f64();
            assert!((rate / per_second as f64 - 1.0).abs() < 0.04, "{rate} against {per_second}");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(limit(0, 5).take(Nanos::from_secs(9), 1), Err(Nanos::MAX));
        assert_eq!(limit(10, 0).take(Nanos::ZERO, 1), Ok(()), "a burst of none means one");
        assert_eq!(limit(10, 3).take(Nanos::ZERO, 4), Err(Nanos::MAX), "more than the bucket ever holds");
        let mut bulk = limit(10, 3);
        assert_eq!(bulk.take(Nanos::ZERO, 3), Ok(()));
        assert_eq!(bulk.take(Nanos::ZERO, 2), Err(Nanos::from_millis(200)));
        assert_eq!(bulk.refused(), 1);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_times_time(
            rate in 1u64..2_000,
            burst in 1u32..50,
            steps in prop::collection::vec((0u64..50_000_000, 1u32..4), 1..200),
        ) {
            let mut limit = limit(rate, burst);
            let (mut now, mut log) = (0u64, Vec::<(u64, u32)>::new());
            for (wait, n) in steps {
                now += wait;
                match limit.take(Nanos(now), n) {
                    Ok(()) => log.push((now, n)),
                    Err(wait) if wait < Nanos::MAX => {
                        let mut later = limit.clone();
                        prop_assert!(later.take(Nanos(now) + wait, n).is_ok(), "the wait it named is enough");
                        prop_assert!(limit.clone().take(Nanos(now) + Nanos(wait.0 - 1), n).is_err(), "and not too long");
                    }
                    Err(_) => prop_assert!(n > burst),
                }
                // In every interval that ends here.
                let mut taken = 0u64;
                for (at, n) in log.iter().rev() {
                    taken += u64::from(*n);
                    let allowed = f64::from(burst) + rate as f64 * (now - at) as f64 / 1e9;
                    prop_assert!(taken as f64 <= allowed + 1e-6, "{taken} in {} ns", now - at);
                }
            }
        }
    }
}
