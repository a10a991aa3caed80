//! One deadline per request, and it only ever comes closer.
//!
//! A timeout per hop multiplies: three hops of one second keep the last service busy two seconds after the user left.
//! A deadline is one instant, fixed where the request enters. Every hop and every attempt may tighten it and none may
//! extend it, so work stops everywhere at the moment nobody waits for it any more.
//!
//! On the wire a deadline travels as what is left (`grpc-timeout` is relative), because clocks of two machines do not
//! agree. The receiver turns it into its own instant on arrival; the time on the wire is lost to the callee, so
//! [`Deadline::for_hop`] subtracts what the way is known to cost.
//!
//! **Cancellation.** A request is cancelled when its caller leaves, its deadline passes, or another copy answered.
//! Cancelling means: drop it from every queue it waits in, return its permits and budget-free slots, tell the callee
//! (reset the stream, close the connection), and record the time spent as latency but the outcome as
//! [`Outcome::Cancelled`](crate::Outcome::Cancelled), which counts against nobody, except that a breaker's probe
//! which is cancelled has failed: it did not show that the instance is well.
//!
//! ```
//! use policy::Deadline;
//! use units::Nanos;
//! let (now, ms) = (Nanos::from_secs(7), Nanos::from_millis);
//! let request = Deadline::within(now, ms(100));
//! let attempt = request.tighten(now + ms(60), ms(80));
//! assert_eq!(attempt.left(now + ms(60)), ms(40), "an attempt cannot outlive its request");
//! assert!(!attempt.allows(now + ms(60), ms(50)), "work that cannot finish is refused before it starts");
//! ```

use units::Nanos;

/// The instant after which an answer is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Nanos);

impl Deadline {
    /// The caller waits for ever.
    pub const NEVER: Self = Self(Nanos::MAX);

    pub const fn at(instant: Nanos) -> Self {
        Self(instant)
    }

    pub const fn within(now: Nanos, timeout: Nanos) -> Self {
        Self(now.saturating_add(timeout))
    }

    pub const fn instant(self) -> Nanos {
        self.0
    }

    pub const fn is_never(self) -> bool {
        self.0.0 == u64::MAX
    }

    /// The earlier of this and `timeout` from now: what an attempt, or a callee with its own limit, is given.
    #[must_use]
    pub fn tighten(self, now: Nanos, timeout: Nanos) -> Self {
        self.min(Self::within(now, timeout))
    }

    /// What is left. Zero once it has passed; [`Nanos::MAX`] for one that never comes.
    pub const fn left(self, now: Nanos) -> Nanos {
        if self.is_never() { Nanos::MAX } else { self.0.saturating_sub(now) }
    }

    pub const fn has_passed(self, now: Nanos) -> bool {
        !self.is_never() && self.0.0 <= now.0
    }

    /// What to tell the next hop that it has, when the way there and back costs `way`. `None`: not worth sending.
    pub fn for_hop(self, now: Nanos, way: Nanos) -> Option<Nanos> {
        let left = self.left(now);
        if self.is_never() { Some(left) } else { left.checked_sub(way).filter(|it| !it.is_zero()) }
    }

    /// Whether work that takes `expected` can still be in time. Asked before queueing, before starting and before
    /// each retry: the cheapest place to drop doomed work is the earliest.
    pub fn allows(self, now: Nanos, expected: Nanos) -> bool {
        !self.has_passed(now) && expected <= self.left(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_subtract_their_way() {
        for (left_ms, way_ms, told_ms) in
            [(100, 10, Some(90)), (10, 10, None), (5, 10, None), (1, 0, Some(1))]
        {
            let deadline = Deadline::within(Nanos(5), Nanos::from_millis(left_ms));
            let told = deadline.for_hop(Nanos(5), Nanos::from_millis(way_ms));
            assert_eq!(told, told_ms.map(Nanos::from_millis));
        }
        assert_eq!(Deadline::NEVER.for_hop(Nanos(5), Nanos(9)), Some(Nanos::MAX));
        assert!(!Deadline::NEVER.has_passed(Nanos::MAX));
        assert!(Deadline::at(Nanos(7)).has_passed(Nanos(7)));
    }

    proptest::proptest! {
        #[test]
        fn deadlines_never_grow(start: u64, hops in proptest::collection::vec((0u64..1_000_000, 0u64..2_000_000), 0..20)) {
            let mut now = Nanos(start / 2);
            let mut deadline = Deadline::within(now, Nanos(1_000_000));
            for (wait, timeout) in hops {
                now += Nanos(wait);
                let tightened = deadline.tighten(now, Nanos(timeout));
                proptest::prop_assert!(tightened <= deadline);
                proptest::prop_assert!(tightened.left(now) <= Nanos(timeout));
                proptest::prop_assert!(tightened.for_hop(now, Nanos(7)).is_none_or(|it| it < deadline.left(now)));
                deadline = tightened;
            }
        }
    }
}
