//! Client-side adaptive throttling: the callee's refusals teach the caller to refuse first.
//!
//! ```text
//! P(refuse here) = max(0, (requests − K·accepts)/(requests + 1))          over `window`, for each priority alone
//! ```
//! With K = 2 the callee sees at most about twice what it accepts, so it keeps spending on work and not on saying no;
//! lower K where a refusal costs as much as serving. A class of low priority that is refused everywhere does not make its
//! critical sibling throttle itself: each has its own counts. Share one throttle among all who call the same callee from
//! one process: a caller that calls rarely learns too little alone.
//!
//! Two mistakes to avoid, both made in public. **Counting when the reply comes**: during a stall nothing is counted, then
//! everything at once; here [`Throttle::admit`] counts the attempt before it is sent. **A window shorter than a call**:
//! then a slow accept arrives when its request is already forgotten, and slow looks like refused. Requests still under
//! way look refused too, so the window spans at least `K/(K − 1)` of the longest call (and four), and for that
//! long after the first request nothing is refused: until then a slow callee and a refusing one look the same.

use crate::settings::{self, Priority};
use crate::window::Window;
use units::{Nanos, Rng};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    k_thousandths: u64,
    /// Nothing can be known about a class for this long after its first request.
    grace: Nanos,
    /// When each class first asked after a window of silence.
    since: [Option<Nanos>; 4],
    /// Requests and accepts, by priority.
    classes: [Window<SLOTS, 2>; 4],
    refused: u64,
}

const SLOTS: usize = 24;
const WINDOW_IN_CALLS_MIN: u64 = 4;
/// For K close to 1 the span would have no end.
const WINDOW_IN_CALLS_MAX: u64 = 20;

impl Throttle {
    /// `call_max` is the longest a call may last: its time-out.
    pub fn new(settings: settings::Throttle, call_max: Nanos) -> Self {
        // At 1 or below the formula would refuse although everything is accepted.
        let k_thousandths = u64::from(settings.k_thousandths).max(1_001);
        let calls = k_thousandths.div_ceil(k_thousandths - 1_000).min(WINDOW_IN_CALLS_MAX);
        let window = settings.window.max(call_max * calls.max(WINDOW_IN_CALLS_MIN));
        Self {
            k_thousandths,
            grace: call_max * calls,
            since: [None; 4],
            classes: std::array::from_fn(|_| Window::new(window)),
            refused: 0,
        }
    }

    /// Counts one request and says whether to send it.
    pub fn admit(&mut self, now: Nanos, priority: Priority, rng: &mut Rng) -> bool {
        let probability = self.probability(now, priority);
        let class = &mut self.classes[priority as usize];
        if class.peek(now) == [0, 0] {
            self.since[priority as usize] = Some(now);
        }
        class.add(now, [1, 0]);
        let refuse = rng.chance(probability);
        self.refused += u64::from(refuse);
        !refuse
    }

    /// The callee took the request, well or badly; a refusal ("overloaded", 429) is not an accept.
    pub fn on_accept(&mut self, now: Nanos, priority: Priority) {
        self.classes[priority as usize].add(now, [0, 1]);
    }

    /// The share of requests refused here; reads only.
    pub fn probability(&self, now: Nanos, priority: Priority) -> f64 {
        if self.since[priority as usize].is_none_or(|since| now < since + self.grace) {
            return 0.0;
        }
        let [requests, accepts] = self.classes[priority as usize].peek(now);
        let allowed = accepts as f64 * self.k_thousandths as f64 / 1e3;
        ((requests as f64 - allowed) / (requests as f64 + 1.0)).max(0.0)
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(k_thousandths: u32, window_s: u64, call_s: u64) -> Throttle {
        let settings = settings::Throttle { k_thousandths, window: Nanos::from_secs(window_s) };
        Throttle::new(settings, Nanos::from_secs(call_s))
    }

    /// A callee that takes `capacity` of 1000 a second; what share of all requests reaches it after five minutes?
    fn reaches(k_thousandths: u32, capacity: u64) -> f64 {
        let (mut throttle, mut rng) = (throttle(k_thousandths, 120, 1), Rng::from_seed(1));
        let (mut sent, mut taken_this_second) = (0u64, 0);
        for n in 0..300_000u64 {
            let now = Nanos::from_millis(n);
            if n % 1_000 == 0 {
                taken_this_second = 0;
            }
            if throttle.admit(now, Priority::Critical, &mut rng) {
                sent += u64::from(n >= 200_000);
                if taken_this_second < capacity {
                    taken_this_second += 1;
                    throttle.on_accept(now, Priority::Critical);
                }
            }
        }
        sent as f64 / 100_000.0
    }

    #[test]
    fn the_callee_sees_k_times_what_it_takes() {
        for (k, capacity, expected) in
            [(2_000, 100, 0.2), (2_000, 600, 1.0), (1_100, 100, 0.11), (2_000, 1_000, 1.0)]
        {
            let seen = reaches(k, capacity);
            assert!((seen - expected).abs() < 0.02, "K {k}, capacity {capacity}: {seen} against {expected}");
        }
    }

    #[test]
    fn classes_do_not_share_their_fate() {
        let (mut throttle, mut rng) = (throttle(2_000, 120, 1), Rng::from_seed(1));
        for n in 0..10_000 {
            let now = Nanos::from_millis(n);
            throttle.admit(now, Priority::Sheddable, &mut rng);
            throttle.admit(now, Priority::Critical, &mut rng);
            throttle.on_accept(now, Priority::Critical);
        }
        let end = Nanos::from_secs(10);
        assert!(throttle.probability(end, Priority::Sheddable) > 0.99);
        assert_eq!(throttle.probability(end, Priority::Critical), 0.0);
        assert!(throttle.refused() > 7_900, "all but the first two seconds");
    }

    #[test]
    fn slow_calls_are_not_refusals() {
        // Calls of 30 s under a window set to 10 s: the window grows, so a steady slow callee is never throttled.
        let (mut throttle, mut rng) = (throttle(2_000, 10, 30), Rng::from_seed(1));
        for second in 0..600u64 {
            let now = Nanos::from_secs(second);
            if second >= 30 {
                throttle.on_accept(now, Priority::Critical);
            }
            assert!(throttle.admit(now, Priority::Critical, &mut rng), "refused at {second} s");
        }
    }
}
