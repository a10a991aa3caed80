//! The three adaptive rules, formula by formula.

use units::{Nanos, Rng};

/// Vegas: estimate how many requests wait at the server, and keep that number small.
///
/// ```text
/// g = max(1, ⌊log10 L⌋)   α = 3g   β = 6g        queue = ⌈L·(1 − rtt_no_load/rtt)⌉
/// dropped → L − g     in_flight·2 < L → hold     queue ≤ g → L + β
/// queue < α → L + g   queue > β → L − g          else hold                              1 ≤ L ≤ max, from 20
/// rtt_no_load = the smallest seen; set to the current rtt every U(0.5, 1)·30·L samples
/// ```
/// The re-probe is what keeps an old, lucky minimum from shrinking the limit for ever; it also means that under lasting
/// overload the "no load" latency is one of overload. That is Vegas' known weakness.
#[derive(Clone, Debug, PartialEq)]
pub struct Vegas {
    limit: u32,
    max: u32,
    rtt_no_load: Option<Nanos>,
    samples: u32,
    /// Samples until the next re-probe as a share of 30·L, in 2^-32.
    jitter: u64,
}

const LIMIT_AT_START: u32 = 20;
const PROBE_MULTIPLIER: u64 = 30;

impl Vegas {
    pub fn new(max: u32) -> Self {
        let max = max.max(1);
        Self { limit: LIMIT_AT_START.min(max), max, rtt_no_load: None, samples: 0, jitter: 3 << 30 }
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn update(&mut self, rtt: Nanos, in_flight: u32, dropped: bool, rng: &mut Rng) {
        self.samples += 1;
        let probe_after = (self.jitter * PROBE_MULTIPLIER * u64::from(self.limit)) >> 32;
        if u64::from(self.samples) >= probe_after.max(1) {
            self.jitter = (1 << 31) + (rng.next_u64() >> 33);
            self.samples = 0;
            self.rtt_no_load = Some(rtt);
            return;
        }
        let no_load = match self.rtt_no_load {
            Some(smallest) if rtt >= smallest => smallest,
            _ => {
                self.rtt_no_load = Some(rtt);
                return;
            }
        };
        let g = self.limit.checked_ilog10().unwrap_or(0).max(1);
        let (alpha, beta) = (3 * g, 6 * g);
        let (limit, waiting) = (u128::from(self.limit), u128::from(rtt.saturating_sub(no_load).0));
        let queue = (limit * waiting).div_ceil(u128::from(rtt.0.max(1))) as u32;
        let next = if dropped {
            self.limit.saturating_sub(g)
        } else if u64::from(in_flight) * 2 < u64::from(self.limit) {
            return;
        } else if queue <= g {
            self.limit.saturating_add(beta)
        } else if queue < alpha {
            self.limit.saturating_add(g)
        } else if queue > beta {
            self.limit.saturating_sub(g)
        } else {
            return;
        };
        self.limit = next.clamp(1, self.max);
    }
}

/// Gradient2: compare the latency of now with that of the long run, and follow the ratio.
///
/// ```text
/// long = EWMA of rtt over 600 samples, plain mean of the first 10;   long/rtt > 2 → long·0.95
/// in_flight < L/2 → hold
/// g  = clamp(1.5·long/rtt, 0.5, 1)
/// L' = 0.8·L + 0.2·(L·g + 4)                                                     clamped to min..max, from 20
/// ```
/// It tolerates 1.5 times the usual latency and always adds room for four more; after a long overload "usual" has become
/// the overload, and the limit creeps to its maximum. Set the maximum to what the service can hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    limit: f64,
    min: u32,
    max: u32,
    long_rtt: f64,
    warm_up_count: u32,
    warm_up_sum: f64,
}

const LONG_SAMPLES: f64 = 600.0;
const WARM_UP_SAMPLES: u32 = 10;
const TOLERANCE: f64 = 1.5;
const QUEUE_ROOM: f64 = 4.0;
const SMOOTHING: f64 = 0.2;

impl Gradient {
    pub fn new(min: u32, max: u32) -> Self {
        let (min, max) = (min.max(1), max.max(min).max(1));
        let limit = f64::from(LIMIT_AT_START.clamp(min, max));
        Self { limit, min, max, long_rtt: 0.0, warm_up_count: 0, warm_up_sum: 0.0 }
    }

    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    pub fn update(&mut self, rtt: Nanos, in_flight: u32) {
        let rtt = rtt.0.max(1) as f64;
        if self.warm_up_count < WARM_UP_SAMPLES {
            self.warm_up_count += 1;
            self.warm_up_sum += rtt;
            self.long_rtt = self.warm_up_sum / f64::from(self.warm_up_count);
        } else {
            let share = 2.0 / (LONG_SAMPLES + 1.0);
            self.long_rtt = self.long_rtt * (1.0 - share) + rtt * share;
        }
        let long = self.long_rtt;
        // Coming out of overload the long average is far too high; let it down faster than the samples do.
        if long / rtt > 2.0 {
            self.long_rtt *= 0.95;
        }
        if f64::from(in_flight) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * long / rtt).clamp(0.5, 1.0);
        let next = self.limit * (1.0 - SMOOTHING) + SMOOTHING * (self.limit * gradient + QUEUE_ROOM);
        self.limit = next.clamp(f64::from(self.min), f64::from(self.max));
    }
}

/// Additive increase, multiplicative decrease: `dropped or rtt > 5 s → 0.9·L`, `in_flight·2 ≥ L → L + 1`.
/// It only reacts to loss, so the server needs a queue limit or a time-out of its own to say that it is full.
#[derive(Clone, Debug, PartialEq)]
pub struct Aimd {
    limit: u32,
    min: u32,
    max: u32,
}

const AIMD_RTT_MAX: Nanos = Nanos::from_secs(5);

impl Aimd {
    pub fn new(min: u32, max: u32) -> Self {
        let (min, max) = (min.max(1), max.max(min).max(1));
        Self { limit: LIMIT_AT_START.clamp(min, max), min, max }
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn update(&mut self, rtt: Nanos, in_flight: u32, dropped: bool) {
        let next = if dropped || rtt > AIMD_RTT_MAX {
            (u64::from(self.limit) * 9 / 10) as u32
        } else if u64::from(in_flight) * 2 >= u64::from(self.limit) {
            self.limit.saturating_add(1)
        } else {
            self.limit
        };
        self.limit = next.clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Nanos = Nanos::from_millis;

    /// From a limit and a no-load latency of 10 ms: what one sample makes of it.
    #[track_caller]
    fn check_vegas(limit: u32, rtt_ms: u64, in_flight: u32, dropped: bool, expected: u32) {
        let rtt_no_load = Some(MS(10));
        let mut vegas = Vegas { limit, max: 1_000, rtt_no_load, samples: 0, jitter: 1 << 32 };
        vegas.update(MS(rtt_ms), in_flight, dropped, &mut Rng::from_seed(1));
        assert_eq!(vegas.limit(), expected, "{limit} at {rtt_ms} ms with {in_flight}");
    }

    #[test]
    fn vegas_follows_its_table() {
        check_vegas(20, 10, 20, false, 26); // nothing waits: + β
        check_vegas(20, 11, 20, false, 21); // 20·(1 − 10/11) = 1.8, two wait: + g
        check_vegas(20, 12, 20, false, 20); // 20/6 = 3.3, four wait: hold
        check_vegas(20, 15, 20, false, 19); // 6.7, seven wait: − g
        check_vegas(20, 15, 9, false, 20); // idle: hold
        check_vegas(20, 10, 20, true, 19); // dropped
        check_vegas(200, 10, 200, false, 212); // g = 2
        check_vegas(999, 10, 999, false, 1_000);
        check_vegas(1, 90, 1, true, 1);
        check_vegas(20, 9, 20, false, 20); // a new minimum is only noted
    }

    #[test]
    fn vegas_measures_its_minimum_again() {
        let mut vegas = Vegas { limit: 1, max: 1, rtt_no_load: None, samples: 0, jitter: 1 << 32 };
        let mut rng = Rng::from_seed(1);
        vegas.update(MS(10), 1, false, &mut rng);
        for n in 2..=30 {
            assert_eq!(vegas.rtt_no_load, Some(MS(10)), "sample {n}");
            vegas.update(MS(50), 1, false, &mut rng);
        }
        assert_eq!(vegas.rtt_no_load, Some(MS(50)));
        assert!((1 << 31..1 << 32).contains(&vegas.jitter));
    }

    #[track_caller]
    fn check_gradient(rtt_ms: u64, in_flight: u32, expected: f64) {
        let mut gradient =
            Gradient { warm_up_count: 10, long_rtt: 10e6, limit: 100.0, ..Gradient::new(20, 200) };
        gradient.update(MS(rtt_ms), in_flight);
        assert!((gradient.limit - expected).abs() < 0.05, "{} against {expected}", gradient.limit);
    }

    #[test]
    fn gradient_follows_its_formula() {
        check_gradient(10, 100, 100.8); // g = 1: four more, smoothed
        check_gradient(15, 100, 100.8); // still within the tolerance
        check_gradient(20, 100, 95.85); // g = 1.5·10.03/20 = 0.752
        check_gradient(100, 100, 90.8); // g floored at 0.5
        check_gradient(100, 49, 100.0); // idle: hold
    }

    #[test]
    fn gradient_forgets_an_overload() {
        let mut gradient = Gradient { warm_up_count: 10, long_rtt: 1e9, ..Gradient::new(20, 200) };
        (0..60).for_each(|_| gradient.update(MS(10), 20));
        assert!(gradient.long_rtt < 60e6, "{}", gradient.long_rtt);
    }

    #[test]
    fn aimd_adds_and_multiplies() {
        let mut aimd = Aimd::new(20, 200);
        (0..30).for_each(|_| aimd.update(MS(10), 200, false));
        assert_eq!(aimd.limit(), 50);
        aimd.update(MS(10), 24, false);
        assert_eq!(aimd.limit(), 50);
        aimd.update(MS(10), 50, true);
        assert_eq!(aimd.limit(), 45);
        aimd.update(MS(5_001), 50, false);
        assert_eq!(aimd.limit(), 40);
        (0..30).for_each(|_| aimd.update(MS(10), 0, true));
        assert_eq!(aimd.limit(), 20);
    }
}
