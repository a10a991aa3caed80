//! Limits that the file states for a caller as a whole: calls at once, calls a second, throttling.
//!
//! A worker's share of such a number would let one busy connection have half of it. So these are the exception to "no
//! worker shares anything": an edge or a route that has one has a lock, held for a few instructions, and those that have
//! none have nothing. They outlive reloads for as long as they are not changed, so that reloading refills nothing.

use policy::settings::{self, EdgeSettings, Priority};
use policy::{Limiter, Outcome, RateLimit, Sample, Throttle};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use units::{Nanos, Rng};

/// What a throttle takes for the longest call where nothing sets a time-out.
const CALL_MAX: Nanos = Nanos::from_secs(10);

/// One for each edge that has a limit.
#[derive(Debug)]
pub(crate) struct Quota(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    rate: Option<RateLimit>,
    throttle: Option<Throttle>,
    limiter: Option<Limiter>,
}

/// Why a call may not set out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many in this second; the same question is answered with yes after this long.
    Rate(Nanos),
    /// The callee has refused so much lately that asking it again is most likely in vain.
    Throttled,
    /// Enough are under way.
    Concurrency,
}

impl Quota {
    pub(crate) fn new(edge: &EdgeSettings) -> Option<Arc<Self>> {
        let none = edge.rate_limit.is_none() && edge.throttle.is_none() && edge.concurrency.is_none();
        (!none).then(|| {
            Arc::new(Self(Mutex::new(Counts {
                rate: edge.rate_limit.map(RateLimit::new),
                throttle: edge.throttle.map(|it| Throttle::new(it, edge.timeout.unwrap_or(CALL_MAX))),
                limiter: edge.concurrency.map(Limiter::new),
            })))
        })
    }

    /// Whether a quota made for `before` is still right for `after`.
    pub(crate) fn still_fits(before: &EdgeSettings, after: &EdgeSettings) -> bool {
        (before.rate_limit, before.throttle, before.concurrency)
            == (after.rate_limit, after.throttle, after.concurrency)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counting cannot stop half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cheapest first, as in a forecast. What it takes, the admission gives back.
    pub(crate) fn enter(
        self: &Arc<Self>,
        now: Nanos,
        priority: Priority,
        rng: &mut Rng,
    ) -> Result<Admission, Full> {
        let mut counts = self.lock();
        if let Some(rate) = &mut counts.rate {
            rate.take(now, 1).map_err(Full::Rate)?;
        }
        if let Some(throttle) = &mut counts.throttle
            && !throttle.admit(now, priority, rng)
        {
            return Err(Full::Throttled);
        }
        if let Some(limiter) = &mut counts.limiter {
            let shed = !policy::shed::admits(priority, limiter.in_flight(), limiter.limit());
            if shed && priority < Priority::Critical || !limiter.try_start() {
                return Err(Full::Concurrency);
            }
        }
        let counted = counts.limiter.is_some();
        drop(counts);
        Ok(Admission { quota: self.clone(), started: now, counted })
    }

    /// An attempt ended. A callee that took it, well or badly, is no reason to hold back.
    pub(crate) fn attempt_ended(&self, now: Nanos, priority: Priority, outcome: Outcome) {
        let taken = match outcome {
            Outcome::Status(status) => status != 429 && status != 503,
            // RESOURCE_EXHAUSTED and UNAVAILABLE are the same refusals.
            Outcome::Grpc(code) => code != 8 && code != 14,
            _ => false,
        };
        if taken && let Some(throttle) = &mut self.lock().throttle {
            throttle.on_accept(now, priority);
        }
    }
}

/// A call that the limits let through. It ends with [`Admission::finish`], or says nothing when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    quota: Arc<Quota>,
    started: Nanos,
    counted: bool,
}

impl Admission {
    pub(crate) fn finish(mut self, now: Nanos, outcome: Outcome, rng: &mut Rng) {
        if std::mem::take(&mut self.counted)
            && let Some(limiter) = &mut self.quota.lock().limiter
        {
            limiter.finish(now, now.saturating_sub(self.started), outcome.into(), rng);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.counted
            && let Some(limiter) = &mut self.quota.lock().limiter
        {
            // An ignored sample draws nothing and looks at no time.
            limiter.finish(self.started, Nanos::ZERO, Sample::Ignored, &mut Rng::from_seed(0));
        }
    }
}

/// A route's rate limit.
#[derive(Debug)]
pub(crate) struct RouteRate(Mutex<RateLimit>);

impl RouteRate {
    pub(crate) fn new(limit: settings::RateLimit) -> Arc<Self> {
        Arc::new(Self(Mutex::new(RateLimit::new(limit))))
    }

    pub(crate) fn take(&self, now: Nanos) -> Result<(), Nanos> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(now, 1)
    }
}

/// For `Retry-After`: whole seconds, rounded up, and never a promise of more than an hour.
pub(crate) fn retry_after(wait: Nanos) -> u32 {
    wait.0.div_ceil(1_000_000_000).clamp(1, 3_600) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::settings::Concurrency;
    use units::Rate;

    #[test]
    fn an_edge_without_limits_has_no_quota() {
        assert!(Quota::new(&EdgeSettings::default()).is_none());
    }

    #[test]
    fn what_is_taken_is_given_back_however_a_call_ends() {
        let settings =
            EdgeSettings { concurrency: Some(Concurrency::Static { max: 2 }), ..EdgeSettings::default() };
        let quota = Quota::new(&settings).expect("a limit");
        let (now, mut rng) = (Nanos::from_secs(1), Rng::from_seed(1));
        let enter = |priority| quota.enter(now, priority, &mut Rng::from_seed(1));
        let first = enter(Priority::Critical).expect("room");
        // A sheddable call leaves the last places to those that matter more.
        let second = enter(Priority::Critical).expect("room");
        assert_eq!(enter(Priority::Critical).err(), Some(Full::Concurrency));
        drop(first);
        let third = enter(Priority::CriticalPlus).expect("a place was given back");
        second.finish(now, Outcome::Status(200), &mut rng);
        third.finish(now, Outcome::Reset, &mut rng);
        assert_eq!(quota.lock().limiter.as_ref().map(Limiter::in_flight), Some(0));
    }

    #[test]
    fn a_rate_says_when_to_come_back() {
        let limit = settings::RateLimit { rate: Rate::per_second_whole(10), burst: 1 };
        let settings = EdgeSettings { rate_limit: Some(limit), ..EdgeSettings::default() };
        let quota = Quota::new(&settings).expect("a limit");
        let mut rng = Rng::from_seed(1);
        let now = Nanos::from_secs(1);
        assert!(quota.enter(now, Priority::Critical, &mut rng).is_ok());
        let full = quota.enter(now, Priority::Critical, &mut rng).err();
        assert_eq!(full, Some(Full::Rate(Nanos::from_millis(100))));
        assert_eq!([Nanos::ZERO, Nanos::from_millis(1_001), Nanos::MAX].map(retry_after), [1, 2, 3_600]);
    }
}
