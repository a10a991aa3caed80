//! What stood between callers and their callees while a scenario played: breakers, retry budgets, ejections, pools.
//!
//! In: the proxy's counters as they stand, from time to time. Out: what they grew by, for a row of the report. Every
//! worker of the proxy keeps a breaker and a view of instances of its own, where the forecast has one a caller; so a
//! number here is that of one worker on average, of those that sent anything at all.

use control::compile::parties;
use proxy::observe::GuardReading;
use std::collections::BTreeMap;
use units::Nanos;

/// What the counters of one edge came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    workers: u64,
    retries_refused: u64,
    pool_waits: u64,
    breaker_trips: u64,
    breaker_open: u64,
    ejections: u64,
    ejections_withheld: u64,
    ejected: u64,
}

impl Counts {
    fn of(reading: &GuardReading) -> Self {
        Self {
            workers: reading.workers,
            retries_refused: reading.retries_refused,
            pool_waits: reading.pool_waits,
            breaker_trips: reading.breaker_trips,
            breaker_open: reading.breaker_open.as_u64(),
            ejections: reading.ejections,
            ejections_withheld: reading.ejections_withheld,
            ejected: reading.ejected.as_u64(),
        }
    }

    /// What was added since `before`. An edge that was made anew counts from nothing again.
    fn since(self, before: Self) -> Self {
        let is_new = self.breaker_open < before.breaker_open
            || self.ejected < before.ejected
            || self.retries_refused < before.retries_refused
            || self.pool_waits < before.pool_waits
            || self.workers < before.workers;
        let before = if is_new { Self::default() } else { before };
        Self {
            workers: self.workers,
            retries_refused: self.retries_refused - before.retries_refused,
            pool_waits: self.pool_waits - before.pool_waits,
            breaker_trips: self.breaker_trips.saturating_sub(before.breaker_trips),
            breaker_open: self.breaker_open - before.breaker_open,
            ejections: self.ejections.saturating_sub(before.ejections),
            ejections_withheld: self.ejections_withheld.saturating_sub(before.ejections_withheld),
            ejected: self.ejected - before.ejected,
        }
    }

    fn add(&mut self, more: Self) {
        self.workers = self.workers.max(more.workers);
        self.retries_refused += more.retries_refused;
        self.pool_waits += more.pool_waits;
        self.breaker_trips += more.breaker_trips;
        self.breaker_open += more.breaker_open;
        self.ejections += more.ejections;
        self.ejections_withheld += more.ejections_withheld;
        self.ejected += more.ejected;
    }
}

/// Edges by name, since the measuring began.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    last: BTreeMap<String, Counts>,
    grown: BTreeMap<String, Counts>,
}

/// What a row of the report says of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Guarded {
    /// Not a number where several operations share one budget: whose retry it refused is not counted.
    pub(crate) budget_refused: f64,
    /// Not a number where several operations share the connections: whose attempt waited is not counted.
    pub(crate) pool_waits: f64,
    pub(crate) breaker_trips: f64,
    /// Of the time of one caller.
    pub(crate) breaker_open_share: f64,
    pub(crate) ejections: f64,
    pub(crate) ejections_withheld: f64,
    /// Instances that a caller had ejected, on average.
    pub(crate) ejected: f64,
}

impl Guards {
    /// From here on it counts.
    pub(crate) fn begin(&mut self, readings: &[GuardReading]) {
        self.grown.clear();
        self.last = readings.iter().map(|it| (it.edge.name.clone(), Counts::of(it))).collect();
    }

    pub(crate) fn take(&mut self, readings: &[GuardReading]) {
        for reading in readings {
            self.count(&reading.edge.name, Counts::of(reading));
        }
    }

    fn count(&mut self, edge: &str, now: Counts) {
        let before = self.last.insert(edge.to_owned(), now).unwrap_or_default();
        self.grown.entry(edge.to_owned()).or_default().add(now.since(before));
    }

    /// Of the calls of one operation, after `measured`. `is_alone`: it is the only one between the two.
    pub(crate) fn of(
        &self,
        from: &str,
        to: &str,
        operation: &str,
        is_alone: bool,
        measured: Nanos,
    ) -> Guarded {
        // Of each caller the edge that carries the operation: its own, where it has a policy of its own.
        let mut by_caller: BTreeMap<&str, (bool, Counts)> = BTreeMap::new();
        for (edge, counts) in &self.grown {
            let Some((caller, callee)) = parties(edge) else { continue };
            if caller.strip_prefix("load:").unwrap_or(caller) != from || callee != to {
                continue;
            }
            let (slot, rest) = edge.split_once("->").unwrap_or((edge, ""));
            let rest = rest.get(callee.len()..).unwrap_or("");
            let is_own = rest == format!(" {operation:?}");
            if !is_own && rest.starts_with(' ') {
                continue;
            }
            let known = by_caller.entry(slot).or_default();
            match (known.0, is_own) {
                (false, true) => *known = (true, *counts),
                (true, false) => {}
                _ => known.1.add(*counts),
            }
        }
        let callers = by_caller.len().max(1) as f64;
        let time = callers * (measured.as_u64().max(1)) as f64;
        let sum = |of: fn(&Counts) -> u64| -> f64 {
            by_caller.values().map(|(_, it)| of(it) as f64 / it.workers.max(1) as f64).sum()
        };
        let is_known = is_alone || by_caller.values().all(|(is_own, _)| *is_own);
        let known = |of: fn(&Counts) -> u64| -> f64 {
            let sum: u64 = by_caller.values().map(|(_, it)| of(it)).sum();
            // Of nothing at all, every part is nothing.
            if is_known || sum == 0 { sum as f64 } else { f64::NAN }
        };
        Guarded {
            budget_refused: known(|it| it.retries_refused),
            pool_waits: known(|it| it.pool_waits),
            breaker_trips: sum(|it| it.breaker_trips),
            breaker_open_share: (sum(|it| it.breaker_open) / time).min(1.0),
            ejections: sum(|it| it.ejections),
            ejections_withheld: sum(|it| it.ejections_withheld),
            ejected: sum(|it| it.ejected) / time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(workers: u64, each: u64) -> Counts {
        Counts {
            workers,
            retries_refused: each,
            pool_waits: each,
            breaker_trips: each,
            breaker_open: each * 1_000_000_000,
            ejections: each,
            ejections_withheld: each,
            ejected: each * 1_000_000_000,
        }
    }

    /// What edges counted one after the other, and what the calls of `web` for `GET /` at `db` come to in ten seconds:
    /// refusals, trips, the share of time the breaker was open.
    #[track_caller]
    fn check(counted: &[(&str, Counts)], is_alone: bool, expected: (f64, f64, f64)) {
        let mut guards = Guards::default();
        counted.iter().for_each(|(edge, it)| guards.count(edge, *it));
        let it = guards.of("web", "db", "GET /", is_alone, Nanos::from_secs(10));
        let got = (it.budget_refused, it.breaker_trips, it.breaker_open_share);
        let same = |a: f64, b: f64| (a - b).abs() < 1e-9 || (a.is_nan() && b.is_nan());
        assert!(same(got.0, expected.0) && same(got.1, expected.1) && same(got.2, expected.2), "{got:?}");
        assert!(same(it.pool_waits, expected.0), "{it:?}");
        assert!(same(it.ejections, expected.1) && same(it.ejected, expected.2), "{it:?}");
    }

    #[test]
    fn callers_are_added_up_and_workers_averaged() {
        check(&[], true, (0.0, 0.0, 0.0));
        check(&[("web#0->db", counts(1, 1)), ("web#1->db", counts(1, 3))], true, (4.0, 4.0, 0.2));
        check(&[("web#0->db", counts(2, 4))], true, (4.0, 2.0, 0.2));
        check(&[("load:web->db", counts(1, 2))], true, (2.0, 2.0, 0.2));
        check(&[("web#0->db2", counts(1, 1)), ("web2#0->db", counts(1, 1))], true, (0.0, 0.0, 0.0));
    }

    #[test]
    fn an_operation_with_a_policy_of_its_own_has_guards_of_its_own() {
        let shared = ("web#0->db", counts(1, 5));
        check(&[shared], false, (f64::NAN, 5.0, 0.5));
        check(&[("web#0->db", counts(1, 0))], false, (0.0, 0.0, 0.0));
        check(&[shared, ("web#0->db \"GET /\"", counts(1, 1))], false, (1.0, 1.0, 0.1));
        check(&[shared, ("web#0->db \"GET /else\"", counts(1, 1))], false, (f64::NAN, 5.0, 0.5));
        check(&[shared, ("web#0->db!0", counts(1, 1))], true, (6.0, 6.0, 0.6));
    }

    #[test]
    fn counters_are_told_by_what_they_grew_and_begin_anew_with_their_edge() {
        check(&[("web#0->db", counts(1, 2)), ("web#0->db", counts(1, 5))], true, (5.0, 5.0, 0.5));
        check(&[("web#0->db", counts(1, 5)), ("web#0->db", counts(1, 1))], true, (6.0, 6.0, 0.6));
    }
}
