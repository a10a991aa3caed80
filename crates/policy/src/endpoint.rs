//! One instance as its callers know it: where it is, whether it may be used, how busy and how fast it is.
//!
//! Plain data in a slice that the caller owns: a proxy worker keeps one slice per service, the simulator one per
//! caller and callee. All that was learnt about an instance is in here, so carrying the value over to a new
//! configuration carries latency, ejection and slow start with it.

use crate::Outcome;
use crate::eject::Outlier;
use crate::health::Health;
use crate::math::decay;
use units::Nanos;

/// A region and a zone in it, as small numbers the caller hands out. Zones are numbered across regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub region: u16,
    pub zone: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// A stable hash of the instance's name. Ring and Maglev place the instance by it, so every caller must agree.
    pub key: u64,
    /// Relative share of traffic. Zero takes no new requests, not even in panic.
    pub weight: u32,
    pub place: Place,
    /// Which release this is; see [`crate::subset`].
    pub version: u16,
    pub health: Health,
    /// Requests this caller has given it and not seen end.
    pub in_flight: u32,
    /// What it can work on at once as far as this caller is concerned; zero is unknown. Filled instances of the own
    /// zone make requests spill over.
    pub capacity: u32,
    /// When it joined, if slow start applies to it.
    pub joined: Option<Nanos>,
    pub latency: Latency,
    pub outlier: Outlier,
}

impl Endpoint {
    /// A healthy instance of weight 1 about which nothing is known.
    pub fn new(key: u64, place: Place) -> Self {
        Self {
            key,
            weight: 1,
            place,
            version: 0,
            health: Health::Healthy,
            in_flight: 0,
            capacity: 0,
            joined: None,
            latency: Latency::default(),
            outlier: Outlier::default(),
        }
    }

    /// May be given ordinary requests.
    pub fn is_available(&self) -> bool {
        self.health == Health::Healthy && !self.outlier.is_ejected() && self.weight > 0
    }

    /// May be given requests when too few are available ([`settings::Balance::panic`](crate::settings::Balance)).
    pub fn is_last_resort(&self) -> bool {
        self.health != Health::Gone && self.health != Health::Draining && self.weight > 0
    }

    pub fn on_start(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Every `on_start` ends here, cancelled attempts too: the time an abandoned request waited is a fact about the
    /// instance even where its outcome is not. `rest` is what the instance asked for by Retry-After or pushback.
    pub fn on_finish(&mut self, now: Nanos, elapsed: Nanos, outcome: Outcome, rest: Option<Nanos>) {
        debug_assert!(self.in_flight > 0, "finished more than was started on instance {:x}", self.key);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.latency.record(now, elapsed, outcome, rest);
    }
}

/// Peak EWMA: how long this instance takes, quick to believe bad news and slow to forget it.
///
/// ```text
/// peak      = sample,                                  if sample > the decayed peak
///             peak·e^(−dt/τ) + sample·(1 − e^(−dt/τ)),  otherwise                        τ = 10 s
/// share     = failures/(calls + 10), both decayed by e^(−dt/τ)
/// cost      = (peak + share·5 s + rest left) · (in flight + 1)
/// ```
/// The second line is the error bias. An instance that answers every request at once with an error looks fastest to
/// everything that only measures time, and draws all traffic. A failed call costs its caller more than the time it
/// took; 5 s is what it is charged. Charging the *expected* failure and not the last one keeps one error in a
/// thousand from looking like an outage: it adds 5 ms. Ten imaginary calls keep one failure out of one from being 100 %.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// In nanoseconds; zero is "never measured".
    peak: f64,
    at: Nanos,
    calls: f32,
    failures: f32,
    rest_until: Nanos,
}

const PER_TAU: f64 = 1.0 / 10e9;
const FAILURE_COST_NANOS: f64 = 5e9;
const IMAGINARY_CALLS: f32 = 10.0;
/// The longest rest an instance may ask for: a wrong Retry-After must not take it out for a day.
const REST_MAX: Nanos = Nanos::from_secs(300);

impl Latency {
    pub fn record(&mut self, now: Nanos, elapsed: Nanos, outcome: Outcome, rest: Option<Nanos>) {
        let kept = decay(now.saturating_sub(self.at).0 as f64 * PER_TAU);
        self.at = self.at.max(now);
        let failed = outcome.is_failure();
        self.calls *= kept as f32;
        self.failures *= kept as f32;
        if outcome.is_counted() {
            self.calls += 1.0;
            self.failures += f32::from(u8::from(failed));
        }
        if let Some(rest) = rest {
            self.rest_until = self.rest_until.max(now + rest.min(REST_MAX));
        }
        let measures = match outcome {
            Outcome::NeverSent | Outcome::Refused | Outcome::Stale | Outcome::Shed => false,
            // A fast failure is not a fast instance; a cancelled wait is a lower bound, so it may only raise.
            _ if failed || outcome == Outcome::Cancelled => elapsed.0 as f64 > self.peak * kept,
            _ => true,
        };
        if measures {
            let (sample, old) = (elapsed.0.max(1) as f64, self.peak * kept);
            self.peak = if self.peak == 0.0 || sample > old { sample } else { old + sample * (1.0 - kept) };
        }
    }

    /// The decayed peak, without the error bias. `None` before the first measurement.
    pub fn peak(&self, now: Nanos) -> Option<Nanos> {
        (self.peak > 0.0).then(|| {
            Nanos((self.peak * decay(now.saturating_sub(self.at).0 as f64 * PER_TAU)).round() as u64)
        })
    }

    /// The share of recent calls expected to fail, 0 to 1.
    pub fn failure_share(&self, now: Nanos) -> f64 {
        let kept = decay(now.saturating_sub(self.at).0 as f64 * PER_TAU) as f32;
        f64::from(self.failures * kept / (self.calls * kept + IMAGINARY_CALLS))
    }

    /// Expected nanoseconds one more call costs its caller if the instance were idle; `None` before any measurement.
    pub(crate) fn cost(&self, now: Nanos) -> Option<f64> {
        let never = self.peak == 0.0 && self.failures == 0.0 && self.rest_until <= now;
        (!never).then(|| {
            let kept = decay(now.saturating_sub(self.at).0 as f64 * PER_TAU);
            let share = self.failures * kept as f32 / (self.calls * kept as f32 + IMAGINARY_CALLS);
            self.peak * kept
                + f64::from(share) * FAILURE_COST_NANOS
                + self.rest_until.saturating_sub(now).0 as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Outcome = Outcome::Status(200);

    #[test]
    fn peaks_are_believed_at_once_and_forgotten_slowly() {
        let mut latency = Latency::default();
        assert_eq!(latency.peak(Nanos::ZERO), None);
        latency.record(Nanos::ZERO, Nanos::from_millis(100), OK, None);
        latency.record(Nanos::from_secs(5), Nanos::from_millis(50), OK, None);
        let peak = latency.peak(Nanos::from_secs(5)).unwrap().as_millis_f64();
        assert!((peak - 80.3).abs() < 0.05, "{peak}");
        latency.record(Nanos::from_secs(6), Nanos::from_millis(400), OK, None);
        assert_eq!(latency.peak(Nanos::from_secs(6)), Some(Nanos::from_millis(400)));
    }

    #[test]
    fn failing_fast_does_not_look_fast() {
        let (mut broken, mut slow) = (Latency::default(), Latency::default());
        for n in 0..100 {
            broken.record(Nanos::from_millis(n * 10), Nanos::from_micros(50), Outcome::Status(503), None);
            slow.record(Nanos::from_millis(n * 10), Nanos::from_millis(200), OK, None);
        }
        let now = Nanos::from_secs(1);
        assert!(broken.cost(now).unwrap() > 10.0 * slow.cost(now).unwrap());
    }

    #[test]
    fn a_rare_error_does_not_look_like_an_outage() {
        let mut latency = Latency::default();
        for n in 0..5_000u64 {
            let outcome = if n % 1_000 == 999 { Outcome::Status(500) } else { OK };
            latency.record(Nanos::from_millis(n * 10), Nanos::from_millis(10), outcome, None);
        }
        let cost = latency.cost(Nanos::from_secs(50)).unwrap() / 1e6;
        assert!((10.0..20.0).contains(&cost), "{cost} ms");
    }

    #[test]
    fn a_rest_asked_for_is_kept_but_not_for_ever() {
        let mut latency = Latency::default();
        latency.record(
            Nanos::ZERO,
            Nanos::from_millis(1),
            Outcome::Status(429),
            Some(Nanos::from_secs(86_400)),
        );
        assert!(latency.cost(Nanos::from_secs(299)).unwrap() > 0.9e9);
        assert!(latency.cost(Nanos::from_secs(400)).unwrap() < 0.1e9);
    }

    #[test]
    fn cancelled_waits_only_raise() {
        let mut latency = Latency::default();
        latency.record(Nanos::ZERO, Nanos::from_millis(10), OK, None);
        latency.record(Nanos::ZERO, Nanos::from_millis(1), Outcome::Cancelled, None);
        assert_eq!(latency.peak(Nanos::ZERO), Some(Nanos::from_millis(10)));
        latency.record(Nanos::ZERO, Nanos::from_millis(90), Outcome::Cancelled, None);
        assert_eq!(latency.peak(Nanos::ZERO), Some(Nanos::from_millis(90)));
    }
}
