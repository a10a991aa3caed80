//! How long to wait before the next attempt.
//!
//! ```text
//! exp(n) = min(max, base·2ⁿ)          n = 0 for the first retry
//! none = exp      full = U(0, exp)      equal = exp/2 + U(0, exp/2)      decorrelated = min(max, U(base, 3·previous))
//! ```
//! Without jitter all callers that failed together come back together. Full jitter spreads them best, but it may land
//! near zero, and three short waits in a row burn every attempt while the peer still throttles: for replies that say
//! "too many requests", equal jitter is used whatever was set, unless there is none.

use crate::settings::{self, Jitter};
use units::{Nanos, Rng};

/// The waits of one request. Lives as long as the request; 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    retries: u32,
    previous: Nanos,
}

impl Backoff {
    /// The wait before the next retry; remembers that it happened.
    pub fn next(&mut self, settings: &settings::Backoff, throttled: bool, rng: &mut Rng) -> Nanos {
        let exp = Nanos(settings.base.0.saturating_mul(1u64.checked_shl(self.retries).unwrap_or(u64::MAX)))
            .min(settings.max);
        self.retries = self.retries.saturating_add(1);
        let jitter = match settings.jitter {
            Jitter::Full | Jitter::Decorrelated if throttled => Jitter::Equal,
            jitter => jitter,
        };
        let wait = match jitter {
            Jitter::None => exp,
            Jitter::Full => between(Nanos::ZERO, exp, rng),
            Jitter::Equal => between(exp / 2, exp, rng),
            Jitter::Decorrelated => {
                let previous = self.previous.max(settings.base);
                between(settings.base, previous * 3, rng).min(settings.max)
            }
        };
        self.previous = wait;
        wait
    }

    /// gRPC pushback sets the delay itself; after it the sequence starts again.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

/// Uniform in low..=high.
fn between(low: Nanos, high: Nanos, rng: &mut Rng) -> Nanos {
    let span = high.saturating_sub(low).0;
    low + Nanos(if span == u64::MAX { rng.next_u64() } else { rng.below(span + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::Rng;

    fn settings(base: u64, max: u64, jitter: Jitter) -> settings::Backoff {
        settings::Backoff { base: Nanos(base), max: Nanos(max), jitter }
    }

    #[test]
    fn without_jitter_it_doubles_to_the_cap() {
        let (mut backoff, mut rng) = (Backoff::default(), Rng::from_seed(1));
        let waits: Vec<u64> =
            (0..6).map(|_| backoff.next(&settings(25, 250, Jitter::None), false, &mut rng).0).collect();
        assert_eq!(waits, [25, 50, 100, 200, 250, 250]);
        backoff.restart();
        assert_eq!(backoff.next(&settings(25, 250, Jitter::None), false, &mut rng), Nanos(25));
    }

    #[test]
    fn means_are_half_and_three_quarters() {
        let mut rng = Rng::from_seed(2);
        for (jitter, throttled, mean) in [
            (Jitter::Full, false, 500.0),
            (Jitter::Full, true, 750.0),
            (Jitter::Equal, false, 750.0),
            (Jitter::Decorrelated, false, 2_000.0),
        ] {
            let sum: u64 = (0..20_000)
                .map(|_| Backoff::default().next(&settings(1_000, 100_000, jitter), throttled, &mut rng).0)
                .sum();
            let seen = sum as f64 / 20_000.0;
            assert!((seen - mean).abs() < mean * 0.02, "{jitter:?} {throttled}: {seen} against {mean}");
        }
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(base: u64, max: u64, kind in 0usize..4, throttled: bool, seed: u64) {
            let jitter = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated][kind];
            let settings = settings(base, max, jitter);
            let (mut backoff, mut rng) = (Backoff::default(), Rng::from_seed(seed));
            for retry in 0..80u32 {
                let exp = Nanos(base.saturating_mul(1u64.checked_shl(retry).unwrap_or(u64::MAX)).min(max));
                let wait = backoff.next(&settings, throttled, &mut rng);
                prop_assert!(wait <= Nanos(max));
                match jitter {
                    Jitter::None => prop_assert_eq!(wait, exp),
                    Jitter::Full if !throttled => prop_assert!(wait <= exp),
                    Jitter::Decorrelated if !throttled => prop_assert!(wait >= Nanos(base.min(max))),
                    _ => prop_assert!(exp / 2 <= wait && wait <= exp),
                }
            }
        }
    }
}
