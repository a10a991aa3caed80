//! Which traces are worth their bytes.
//!
//! A sampler that decides at the head throws away the failure it has not seen yet. We see a trace's root complete, so
//! we decide with everything known: what failed, was retried, met a breaker or a fault, ran on a canary, or was among
//! the slowest of its edge is kept; of the rest a uniform share. Each kept trace says why and how many it stands for, so
//! that counts can be scaled back.

use super::Map;
use crate::ids::TraceId;
use crate::report::Report;
use crate::span::{SpanKind, tag};
use units::Nanos;

/// Reasons, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(pub u8);

impl Reasons {
    pub const ERROR: Self = Self(1);
    pub const RETRY: Self = Self(2);
    pub const BREAKER: Self = Self(4);
    pub const FAULT: Self = Self(8);
    pub const CANARY: Self = Self(16);
    pub const DEBUG: Self = Self(32);
    pub const SLOW: Self = Self(64);
    /// Kept as one of the uniform share, for nothing it did.
    pub const SHARE: Self = Self(128);

    const NAMES: [&'static str; 8] =
        ["error", "retry", "breaker", "fault", "canary", "debug", "slow", "share"];

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & 1 << bit != 0)
            .map(|(_, name)| name)
    }

    /// What one span alone is reason enough for.
    pub fn of(span: &impl Report) -> Self {
        let mut reasons = Self::default();
        if span.head().debug {
            reasons = reasons.with(Self::DEBUG);
        }
        for (key, value) in span.tags() {
            let reason = match key {
                tag::ERROR => Self::ERROR,
                tag::RETRY_REASON | tag::HEDGE => Self::RETRY,
                tag::ATTEMPT if value.int().is_some_and(|attempt| attempt > 1) => Self::RETRY,
                tag::BREAKER => Self::BREAKER,
                tag::FAULT => Self::FAULT,
                tag::CANARY => Self::CANARY,
                _ => continue,
            };
            reasons = reasons.with(reason);
        }
        reasons
    }
}

#[derive(Clone, Copy, Debug)]
pub struct KeepSettings {
    /// Slowest traces kept for each edge in each window.
    pub slowest: usize,
    pub window: Nanos,
    /// Share of unremarkable traces kept.
    pub share: f64,
    /// Edges whose slowest are tracked; beyond, an edge has no slowest of its own.
    pub edges_max: usize,
}

impl Default for KeepSettings {
    fn default() -> Self {
        Self { slowest: 3, window: Nanos::from_secs(60), share: 1.0, edges_max: 20_000 }
    }
}

/// One edge as spans name it: two names and whose span it was.
type Edge = (u32, u32, Option<SpanKind>);

/// The slowest k durations of each edge within the current window.
#[derive(Debug)]
pub(super) struct Slowest {
    settings: KeepSettings,
    window_ends: Nanos,
    /// Ascending, at most `slowest` of them.
    edges: Map<Edge, Vec<Nanos>>,
    pub(super) untracked: u64,
}

impl Slowest {
    pub(super) fn new(settings: KeepSettings) -> Self {
        Self { settings, window_ends: Nanos::ZERO, edges: Map::default(), untracked: 0 }
    }

    /// Whether a call of this duration is among the slowest of its edge so far; if so it takes its place.
    pub(super) fn is_among(&mut self, edge: Edge, duration: Nanos, now: Nanos) -> bool {
        if now >= self.window_ends {
            self.edges.clear();
            self.window_ends = now + self.settings.window;
        }
        if self.settings.slowest == 0 {
            return false;
        }
        if !self.edges.contains_key(&edge) && self.edges.len() >= self.settings.edges_max {
            self.untracked += 1;
            return false;
        }
        let slowest = self.edges.entry(edge).or_default();
        if slowest.len() == self.settings.slowest {
            if duration <= slowest[0] {
                return false;
            }
            slowest.remove(0);
        }
        let at = slowest.partition_point(|known| *known < duration);
        slowest.insert(at, duration);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.edges.capacity() * (size_of::<(Edge, Vec<Nanos>)>() + self.settings.slowest * size_of::<Nanos>())
    }
}

/// Whether a trace falls into the uniform share. By its id, so that every store decides alike.
pub fn in_share(id: TraceId, share: f64) -> bool {
    let low = id.low();
    // Ids are random, but a client's generator may leave high bits zero: mix before comparing.
    let mixed = (low ^ low >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    share >= 1.0 || (mixed as f64) < share * u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SpanId;
    use crate::span::Span;

    #[test]
    fn spans_say_why_they_matter() {
        let check = |key: &str, value: crate::span::Value, expected: Reasons| {
            let mut span = Span::new(TraceId::new(1).unwrap(), SpanId::new(1).unwrap());
            span.set_tag(key, value);
            assert_eq!(Reasons::of(&span), expected, "{key}");
        };
        check("error", "".into(), Reasons::ERROR);
        check(tag::ATTEMPT, 1.into(), Reasons::default());
        check(tag::ATTEMPT, 2.into(), Reasons::RETRY);
        check(tag::ATTEMPT, "3".into(), Reasons::RETRY);
        check(tag::BREAKER, "open".into(), Reasons::BREAKER);
        check(tag::FAULT, "ads-slow".into(), Reasons::FAULT);
        check(tag::CANARY, true.into(), Reasons::CANARY);
        check("http.route", "/".into(), Reasons::default());
        assert_eq!(Reasons(1 | 64).names().collect::<Vec<_>>(), ["error", "slow"]);
    }

    #[test]
    fn the_slowest_of_each_edge_and_window_are_kept() {
        let settings = KeepSettings { slowest: 2, edges_max: 2, ..KeepSettings::default() };
        let mut slowest = Slowest::new(settings);
        let mut ask = |edge: u32, millis: u64, at: u64| {
            slowest.is_among((edge, 0, None), Nanos::from_millis(millis), Nanos::from_secs(at))
        };
        assert!(ask(1, 10, 0) && ask(1, 20, 0));
        assert!(!ask(1, 5, 1), "faster than both");
        assert!(ask(1, 15, 1), "replaces 10");
        assert!(!ask(1, 15, 1));
        assert!(ask(2, 1, 1), "another edge has its own");
        assert!(!ask(3, 99, 1), "no room for a third edge");
        assert!(ask(1, 5, 61), "a new window");
        assert_eq!(slowest.untracked, 1);
    }

    #[test]
    fn the_share_is_uniform_even_over_counting_ids() {
        let share_of = |id: u64, share| in_share(TraceId::new(u128::from(id)).unwrap(), share);
        let kept = (1..100_000u64).filter(|id| share_of(*id, 0.1)).count();
        assert!((9_000..11_000).contains(&kept), "{kept}");
        assert!(share_of(5, 1.0) && !share_of(5, 0.0));
    }
}
