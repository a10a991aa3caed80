//! Outlier ejection: taking one bad instance out of a good service.
//!
//! ```text
//! consecutive     `consecutive` counted failures in a row                                       judged at once
//! deviation       success rate < mean − factor·σ over instances with enough requests            judged by the sweep
//! failure share   failures/requests ≥ threshold, with enough instances and requests             judged by the sweep
//! ejected for     min(base·k, max), k = ejections not yet forgiven; a sweep without ejection forgives one
//! ```
//! **Limits.** At most `share_max` of the instances, though one may always go, and never the last available one: a
//! service whose instances all fail is better served badly than not at all. When an ejection does not happen the reason
//! is kept as data ([`Verdict::Kept`]), because "why is this one still getting traffic?" is what people ask.
//!
//! All state is in [`Endpoint::outlier`](crate::Endpoint), so these are functions over the caller's slice. Whoever
//! calls them refreshes the balancer when something changed.

use crate::endpoint::Endpoint;
use crate::settings;
use crate::{Health, Outcome};
use std::fmt;
use units::Nanos;

/// What is held against one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlier {
    in_a_row: u32,
    /// Of the interval in progress.
    calls: u32,
    failures: u32,
    /// k: ejections not forgiven yet.
    strikes: u32,
    ejected_until: Option<Nanos>,
    /// Was ejected during the interval in progress, so this interval forgives nothing.
    marked: bool,
    last: Option<Verdict>,
    ejections: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ejected { cause: Cause, until: Nanos },
    Kept { cause: Cause, because: KeptBecause },
}

/// The rule that spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Consecutive { failures: u32 },
    Deviation { success_millionths: u32, needed_millionths: u32 },
    FailureShare { failures: u32, calls: u32 },
}

/// Why an instance that a rule found guilty was left in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeptBecause {
    /// Nobody else is available.
    LastAvailable,
    /// As many as allowed are out already.
    ShareMax { ejected: u32, instances: u32 },
}

/// For a person who asks why an instance is, or is not, in use.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cause, kept) = match self {
            Self::Ejected { cause, .. } => (cause, None),
            Self::Kept { cause, because } => (cause, Some(because)),
        };
        match cause {
            Cause::Consecutive { failures } => write!(f, "{failures} failures in a row")?,
            Cause::Deviation { success_millionths, needed_millionths } => {
                let percent = |millionths: &u32| f64::from(*millionths) / 1e4;
                let (is, needed) = (percent(success_millionths), percent(needed_millionths));
                write!(f, "{is:.1} % of its calls succeed where the others make {needed:.1} % the least")?;
            }
            Cause::FailureShare { failures, calls } => write!(f, "{failures} of {calls} calls failed")?,
        }
        match kept {
            None => Ok(()),
            Some(KeptBecause::LastAvailable) => f.write_str("; kept, for nobody else is available"),
            Some(KeptBecause::ShareMax { ejected, instances }) => {
                write!(f, "; kept, for {ejected} of {instances} are out already and no more may be")
            }
        }
    }
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub ejected: u32,
    pub restored: u32,
    pub kept: u32,
}

impl Swept {
    /// The balancer must be refreshed.
    pub const fn changed(self) -> bool {
        self.ejected > 0 || self.restored > 0
    }
}

impl Outlier {
    pub const fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    pub const fn ejected_until(&self) -> Option<Nanos> {
        self.ejected_until
    }

    /// The last time a rule spoke, and what came of it.
    pub const fn last(&self) -> Option<Verdict> {
        self.last
    }

    pub const fn ejections(&self) -> u32 {
        self.ejections
    }

    fn restore(&mut self) {
        self.ejected_until = None;
        self.in_a_row = 0;
        self.calls = 0;
        self.failures = 0;
    }
}

/// An attempt on `index` ended. O(1), except when the consecutive rule speaks.
pub fn on_outcome(
    settings: &settings::Eject,
    endpoints: &mut [Endpoint],
    index: usize,
    outcome: Outcome,
    now: Nanos,
) -> Option<Verdict> {
    if !outcome.is_counted() {
        return None;
    }
    let outlier = &mut endpoints.get_mut(index)?.outlier;
    outlier.calls = outlier.calls.saturating_add(1);
    if !outcome.is_failure() {
        outlier.in_a_row = 0;
        return None;
    }
    outlier.failures = outlier.failures.saturating_add(1);
    outlier.in_a_row = outlier.in_a_row.saturating_add(1);
    let failures = outlier.in_a_row;
    if settings.consecutive == 0 || failures < settings.consecutive || outlier.is_ejected() {
        return None;
    }
    // Judged afresh after as many again: an instance that was kept must not cost a count of everybody per failure.
    outlier.in_a_row = 0;
    Some(judge(settings, endpoints, index, Cause::Consecutive { failures }, now))
}

/// Lifts ejections whose time is over. Call it at [`next_return`], or often.
///
/// If none is available but for ejections, the one that would return first returns now: instances may have failed
/// their checks since, and ejection alone must never leave a service with nobody.
pub fn restore(endpoints: &mut [Endpoint], now: Nanos) -> u32 {
    let mut restored = 0;
    for endpoint in endpoints.iter_mut().filter(|it| it.outlier.ejected_until.is_some_and(|at| at <= now)) {
        endpoint.outlier.restore();
        restored += 1;
    }
    if !endpoints.iter().any(Endpoint::is_available) {
        let candidates = endpoints.iter_mut().filter(|it| it.health == Health::Healthy && it.weight > 0);
        if let Some(first) = candidates.min_by_key(|it| it.outlier.ejected_until) {
            first.outlier.restore();
            restored += 1;
        }
    }
    restored
}

/// When the next ejection ends.
pub fn next_return(endpoints: &[Endpoint]) -> Option<Nanos> {
    endpoints.iter().filter_map(|it| it.outlier.ejected_until).min()
}

/// Judges the interval that ends now and starts the next. Call it every `interval`.
pub fn sweep(settings: &settings::Eject, endpoints: &mut [Endpoint], now: Nanos) -> Swept {
    let mut swept = Swept { restored: restore(endpoints, now), ..Swept::default() };
    let needed = settings.deviation.and_then(|it| success_needed(&it, endpoints));
    let voting = |it: &Endpoint, requests_min: u32| {
        !it.outlier.is_ejected() && it.outlier.calls >= requests_min && it.outlier.calls > 0
    };
    let share = settings.failure_share.filter(|rule| {
        let enough = endpoints.iter().filter(|it| voting(it, rule.requests_min)).count();
        enough >= rule.instances_min as usize
    });
    for index in 0..endpoints.len() {
        let endpoint = &endpoints[index];
        let Outlier { calls, failures, .. } = endpoint.outlier;
        let success = 1.0 - f64::from(failures) / f64::from(calls.max(1));
        let by_deviation = settings.deviation.zip(needed).and_then(|(rule, needed)| {
            (voting(endpoint, rule.requests_min) && success < needed).then_some(Cause::Deviation {
                success_millionths: (success * 1e6) as u32,
                needed_millionths: (needed * 1e6) as u32,
            })
        });
        let by_share = share.and_then(|rule| {
            let reached = u64::from(failures) * 1_000_000 >= u64::from(calls) * rule.threshold.millionths();
            (voting(endpoint, rule.requests_min) && failures > 0 && reached)
                .then_some(Cause::FailureShare { failures, calls })
        });
        if let Some(cause) = by_deviation.or(by_share) {
            match judge(settings, endpoints, index, cause, now) {
                Verdict::Ejected { .. } => swept.ejected += 1,
                Verdict::Kept { .. } => swept.kept += 1,
            }
        }
    }
    for outlier in endpoints.iter_mut().map(|it| &mut it.outlier) {
        if !outlier.marked && !outlier.is_ejected() {
            outlier.strikes = outlier.strikes.saturating_sub(1);
        }
        outlier.marked = false;
        outlier.calls = 0;
        outlier.failures = 0;
    }
    swept
}

/// An active check passed on an instance that is ejected: it may return, if its owner trusts checks that far.
pub fn on_check_passed(endpoint: &mut Endpoint) -> bool {
    let was = endpoint.outlier.is_ejected();
    endpoint.outlier.restore();
    was
}

/// mean − factor·σ of the success rates of those with enough requests, or `None` if they are too few.
fn success_needed(rule: &settings::Deviation, endpoints: &[Endpoint]) -> Option<f64> {
    let rates = || {
        endpoints
            .iter()
            .map(|it| &it.outlier)
            .filter(|it| !it.is_ejected() && it.calls > 0 && it.calls >= rule.requests_min)
            .map(|it| 1.0 - f64::from(it.failures) / f64::from(it.calls))
    };
    let n = rates().count();
    if n < rule.instances_min.max(1) as usize {
        return None;
    }
    let mean = rates().sum::<f64>() / n as f64;
    let variance = rates().map(|it| (it - mean) * (it - mean)).sum::<f64>() / n as f64;
    Some(mean - f64::from(rule.factor_thousandths) / 1e3 * variance.sqrt())
}

/// A rule found `index` guilty: the gate.
fn judge(
    settings: &settings::Eject,
    endpoints: &mut [Endpoint],
    index: usize,
    cause: Cause,
    now: Nanos,
) -> Verdict {
    let instances = endpoints.len() as u32;
    let ejected = endpoints.iter().filter(|it| it.outlier.is_ejected()).count() as u32;
    let others = (0usize..).zip(&*endpoints).filter(|(it, _)| *it != index);
    let nobody_else = !others.map(|(_, it)| it).any(Endpoint::is_available);
    let allowed = (u64::from(instances).saturating_mul(settings.share_max.millionths()) / 1_000_000).max(1);
    let verdict = if nobody_else {
        Verdict::Kept { cause, because: KeptBecause::LastAvailable }
    } else if u64::from(ejected) + 1 > allowed {
        Verdict::Kept { cause, because: KeptBecause::ShareMax { ejected, instances } }
    } else {
        let strikes = endpoints[index].outlier.strikes + 1;
        let time = (settings.base * u64::from(strikes)).min(settings.max.max(settings.base));
        Verdict::Ejected { cause, until: now + time }
    };
    let outlier = &mut endpoints[index].outlier;
    outlier.last = Some(verdict);
    if let Verdict::Ejected { until, .. } = verdict {
        outlier.ejected_until = Some(until);
        // Beyond the cap more strikes would only delay forgiveness.
        if settings.base * u64::from(outlier.strikes) < settings.max {
            outlier.strikes += 1;
        }
        outlier.marked = true;
        outlier.in_a_row = 0;
        outlier.ejections = outlier.ejections.saturating_add(1);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use proptest::prelude::*;
    use units::Percent;

    #[test]
    fn a_verdict_is_said_in_words() {
        let row = Cause::Consecutive { failures: 5 };
        let cases = [
            (Verdict::Ejected { cause: row, until: Nanos(9) }, "5 failures in a row"),
            (
                Verdict::Ejected { cause: Cause::FailureShare { failures: 9, calls: 10 }, until: Nanos(9) },
                "9 of 10 calls failed",
            ),
            (
                Verdict::Kept { cause: row, because: KeptBecause::LastAvailable },
                "5 failures in a row; kept, for nobody else is available",
            ),
            (
                Verdict::Kept { cause: row, because: KeptBecause::ShareMax { ejected: 3, instances: 6 } },
                "5 failures in a row; kept, for 3 of 6 are out already and no more may be",
            ),
            (
                Verdict::Ejected {
                    cause: Cause::Deviation { success_millionths: 900_000, needed_millionths: 985_000 },
                    until: Nanos(9),
                },
                "90.0 % of its calls succeed where the others make 98.5 % the least",
            ),
        ];
        for (verdict, expected) in cases {
            assert_eq!(verdict.to_string(), expected);
        }
    }

    const OK: Outcome = Outcome::Status(200);
    const BAD: Outcome = Outcome::Status(500);

    fn endpoints(n: u64) -> Vec<Endpoint> {
        (0..n).map(|it| Endpoint::new(it, Place::default())).collect()
    }

    fn settings() -> settings::Eject {
        settings::Eject { base: Nanos::from_secs(30), ..settings::Eject::default() }
    }

    fn fail(
        endpoints: &mut [Endpoint],
        settings: &settings::Eject,
        index: usize,
        now: Nanos,
    ) -> Option<Verdict> {
        (0..5).filter_map(|_| on_outcome(settings, endpoints, index, BAD, now)).last()
    }

    fn until(verdict: Option<Verdict>) -> Option<u64> {
        match verdict {
            Some(Verdict::Ejected { until, .. }) => Some(until.0 / 1_000_000_000),
            _ => None,
        }
    }

    #[test]
    fn five_in_a_row_eject_and_one_success_forgets() {
        let (mut all, settings) = (endpoints(3), settings());
        for n in 0..4 {
            assert_eq!(on_outcome(&settings, &mut all, 0, BAD, Nanos(n)), None);
        }
        on_outcome(&settings, &mut all, 0, OK, Nanos(5));
        assert_eq!(fail(&mut all, &settings, 0, Nanos::ZERO), all[0].outlier.last());
        assert_eq!(until(all[0].outlier.last()), Some(30));
        assert!(!all[0].is_available());
        assert_eq!(next_return(&all), Some(Nanos::from_secs(30)));
        assert_eq!(restore(&mut all, Nanos::from_secs(29)), 0);
        assert_eq!(restore(&mut all, Nanos::from_secs(30)), 1);
        assert!(all[0].is_available());
    }

    #[test]
    fn ejections_grow_and_clean_intervals_forgive() {
        let (mut all, settings) = (endpoints(3), settings());
        let second = Nanos::from_secs;
        assert_eq!(until(fail(&mut all, &settings, 0, second(0))), Some(30));
        sweep(&settings, &mut all, second(30));
        assert_eq!(until(fail(&mut all, &settings, 0, second(30))), Some(30 + 60));
        sweep(&settings, &mut all, second(90));
        assert_eq!(until(fail(&mut all, &settings, 0, second(90))), Some(90 + 90));
        for n in 18..=21 {
            sweep(&settings, &mut all, second(n * 10));
        }
        // The interval it was ejected in forgives nothing, the three after its return do.
        assert_eq!(until(fail(&mut all, &settings, 0, second(210))), Some(210 + 30));
    }

    #[test]
    fn ejections_never_exceed_the_longest() {
        let (mut all, settings) = (endpoints(3), settings());
        let mut now = Nanos::ZERO;
        for n in 1..30 {
            let end = until(fail(&mut all, &settings, 0, now)).unwrap();
            assert_eq!(end, now.0 / 1_000_000_000 + (30 * n).min(300));
            now = Nanos::from_secs(end);
            restore(&mut all, now);
        }
    }

    #[test]
    fn limits_say_why() {
        let settings = settings::Eject { share_max: Percent::from_whole(40), ..settings() };
        let cause = Cause::Consecutive { failures: 5 };
        let kept = |because| Some(Verdict::Kept { cause, because });
        // 40 % of five are two; the third stays.
        let mut all = endpoints(5);
        assert!(until(fail(&mut all, &settings, 0, Nanos::ZERO)).is_some());
        assert!(until(fail(&mut all, &settings, 1, Nanos::ZERO)).is_some());
        let because = KeptBecause::ShareMax { ejected: 2, instances: 5 };
        assert_eq!(fail(&mut all, &settings, 2, Nanos::ZERO), kept(because));
        assert_eq!(all[2].outlier.last(), kept(because));
        // 40 % of two is none, yet one may always go; the last may not.
        let mut all = endpoints(2);
        assert!(until(fail(&mut all, &settings, 0, Nanos::ZERO)).is_some());
        assert_eq!(fail(&mut all, &settings, 1, Nanos::ZERO), kept(KeptBecause::LastAvailable));
        let mut all = endpoints(1);
        assert_eq!(fail(&mut all, &settings, 0, Nanos::ZERO), kept(KeptBecause::LastAvailable));
    }

    #[test]
    fn an_ejected_instance_returns_when_the_others_die() {
        let (mut all, settings) = (endpoints(2), settings());
        fail(&mut all, &settings, 0, Nanos::ZERO);
        all[1].health = Health::Unhealthy;
        assert_eq!(restore(&mut all, Nanos::from_secs(1)), 1);
        assert!(all[0].is_available());
    }

    fn with_errors(failures: &[u32], calls: u32) -> Vec<Endpoint> {
        let mut all = endpoints(failures.len() as u64);
        for (endpoint, failures) in all.iter_mut().zip(failures) {
            endpoint.outlier.calls = calls;
            endpoint.outlier.failures = *failures;
        }
        all
    }

    #[track_caller]
    fn check_sweep(settings: settings::Eject, failures: &[u32], calls: u32, expected: &[usize]) {
        let mut all = with_errors(failures, calls);
        sweep(&settings, &mut all, Nanos::from_secs(10));
        let out: Vec<usize> = (0..all.len()).filter(|it| all[*it].outlier.is_ejected()).collect();
        assert_eq!(out, expected, "{failures:?} of {calls}");
    }

    #[test]
    fn deviation_finds_the_odd_one() {
        let rule = settings::Deviation { factor_thousandths: 1900, instances_min: 5, requests_min: 100 };
        let settings = settings::Eject { deviation: Some(rule), ..settings() };
        check_sweep(settings, &[1, 2, 1, 2, 50], 100, &[4]);
        check_sweep(settings, &[1, 2, 1, 50], 100, &[]); // too few instances
        check_sweep(settings, &[1, 2, 1, 2, 50], 99, &[]); // too few requests
        check_sweep(settings, &[50, 50, 50, 50, 50], 100, &[]); // all alike: not an outlier
        check_sweep(settings, &[0, 0, 0, 0, 0], 100, &[]);
    }

    #[test]
    fn failure_share_needs_no_spread() {
        use settings::FailureShare;
        let rule = FailureShare { threshold: Percent::from_whole(85), instances_min: 5, requests_min: 50 };
        let settings = settings::Eject { failure_share: Some(rule), ..settings() };
        check_sweep(settings, &[85, 84, 0, 0, 0], 100, &[0]);
        check_sweep(settings, &[100, 100, 100, 100, 100], 100, &[0, 1]); // half of five
        check_sweep(settings, &[49, 0, 0, 0, 0], 49, &[]);
    }

    proptest! {
        #[test]
        fn the_last_one_is_never_ejected_and_the_share_is_kept(
            n in 1u64..8,
            share in 0u64..=100,
            steps in prop::collection::vec((0usize..8, 0u64..20, 0u8..12), 1..300),
        ) {
            let rule = settings::FailureShare { threshold: Percent::from_whole(50), instances_min: 1, requests_min: 1 };
            let settings = settings::Eject {
                share_max: Percent::from_whole(share),
                failure_share: Some(rule),
                consecutive: 2,
                ..settings()
            };
            let (mut all, mut now) = (endpoints(n), Nanos::ZERO);
            for (index, wait, what) in steps {
                now += Nanos::from_secs(wait);
                let index = index % n as usize;
                match what {
                    0 => _ = sweep(&settings, &mut all, now),
                    1 => _ = restore(&mut all, now),
                    2 => _ = on_outcome(&settings, &mut all, index, OK, now),
                    _ => _ = on_outcome(&settings, &mut all, index, BAD, now),
                }
                let ejected = all.iter().filter(|it| it.outlier.is_ejected()).count() as u64;
                prop_assert!(ejected < n, "somebody is left");
                prop_assert!(ejected <= (n * share / 100).max(1));
                for endpoint in &all {
                    prop_assert!(endpoint.outlier.ejected_until().is_none_or(|it| it <= now + settings.max));
                }
            }
        }
    }
}
