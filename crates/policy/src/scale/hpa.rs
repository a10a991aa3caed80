//! Kubernetes' horizontal pod autoscaler.
//!
//! ```text
//! ratio   = metric/target                       within ±tolerance nothing changes
//! desired = ⌈replicas · ratio⌉, of several metrics the largest; one that cannot be read forbids shrinking
//! missing pods count as 0 when growing and as the target when shrinking, pods not ready as 0 when growing; if that
//!         turns the ratio to the other side of 1, nothing changes
//! then    stabilization (the largest of the recent recommendations when shrinking, the smallest when growing),
//!         then the rate policies (so many pods, or per cent of the pods there were, in so many seconds)
//! ```

use super::{Advice, Because, Fleet, Reading};
use crate::settings::scale::{self, HpaPolicyKind, HpaRules, SelectPolicy};
use std::collections::VecDeque;
use units::Nanos;

#[derive(Clone, Debug)]
pub(super) struct Hpa {
    settings: scale::Hpa,
    /// The newest reading of each metric; taken by the decision, because old data are no data.
    readings: Vec<Option<Reading>>,
    recommendations: VecDeque<(Nanos, u32)>,
    /// When and by how much it grew (positive) or shrank.
    changes: VecDeque<(Nanos, i64)>,
}

/// More than a stabilization window of an hour holds at the shortest sync period; older ones are forgotten.
const HISTORY_MAX: usize = 4_096;

impl Hpa {
    pub(super) fn new(rule: &scale::Hpa) -> Self {
        let readings = vec![None; rule.metrics.len()];
        Self { settings: rule.clone(), readings, recommendations: VecDeque::new(), changes: VecDeque::new() }
    }

    pub(super) fn tick(&self) -> Nanos {
        self.settings.sync_period.max(Nanos::from_millis(1))
    }

    pub(super) fn observe(&mut self, reading: &Reading) {
        for (metric, newest) in self.settings.metrics.iter().zip(&mut self.readings) {
            if metric.metric == reading.metric {
                *newest = Some(*reading);
            }
        }
    }

    pub(super) fn decide(&mut self, now: Nanos, fleet: Fleet, min: u32, max: u32) -> Advice {
        let current = fleet.desired;
        let (mut raw, mut unreadable) = (None, self.settings.metrics.is_empty());
        for (metric, reading) in self.settings.metrics.iter().zip(&mut self.readings) {
            match reading.take().and_then(|it| replicas(&it, metric.target, self.settings.tolerance, current))
            {
                Some(wanted) => raw = raw.max(Some(wanted)),
                None => unreadable = true,
            }
        }
        let Some(raw) = raw.filter(|it| !unreadable || *it >= current) else {
            return Advice { desired: current, because: Because::NoData };
        };
        let raw = raw.clamp(min, max);
        let stable = self.stabilized(now, raw, current);
        let desired = self.limited(now, stable, current);
        if desired != current {
            remember(&mut self.changes, (now, i64::from(desired) - i64::from(current)));
        }
        let because = match () {
            () if desired != raw => Because::Stabilizing,
            () if desired == current => Because::Steady,
            () => Because::Rule,
        };
        Advice { desired, because }
    }

    fn stabilized(&mut self, now: Nanos, raw: u32, current: u32) -> u32 {
        let (up, down) = (&self.settings.behavior.scale_up, &self.settings.behavior.scale_down);
        let longest = up.stabilization_window.max(down.stabilization_window);
        remember(&mut self.recommendations, (now, raw));
        while self.recommendations.front().is_some_and(|(at, _)| *at + longest < now) {
            self.recommendations.pop_front();
        }
        let within = |window: Nanos| {
            self.recommendations.iter().filter(move |(at, _)| *at + window >= now).map(|(_, wanted)| *wanted)
        };
        let least = within(up.stabilization_window).min().unwrap_or(raw);
        let most = within(down.stabilization_window).max().unwrap_or(raw);
        current.max(least).min(most)
    }

    fn limited(&self, now: Nanos, wanted: u32, current: u32) -> u32 {
        let up = wanted > current;
        let rules: &HpaRules =
            if up { &self.settings.behavior.scale_up } else { &self.settings.behavior.scale_down };
        if rules.select_policy == SelectPolicy::Disabled || wanted == current {
            return current;
        }
        let limit = |policy: &scale::HpaPolicy| {
            let changed: i64 =
                self.changes.iter().filter(|(at, _)| *at + policy.period > now).map(|(_, by)| by).sum();
            let start = (i64::from(current) - changed).max(0) as f64;
            let value = f64::from(policy.value);
            match (policy.kind, up) {
                (HpaPolicyKind::Pods, true) => start + value,
                (HpaPolicyKind::Pods, false) => start - value,
                (HpaPolicyKind::Percent, true) => (start * (1.0 + value / 100.0)).ceil(),
                (HpaPolicyKind::Percent, false) => (start * (1.0 - value / 100.0)).floor(),
            }
        };
        let limits = rules.policies.iter().map(limit);
        // "Max" is the policy that allows the larger change.
        let farthest = (rules.select_policy == SelectPolicy::Max) == up;
        let limit = if farthest { limits.reduce(f64::max) } else { limits.reduce(f64::min) };
        let Some(limit) = limit else { return wanted };
        let limit = limit.max(0.0) as u32;
        if up { wanted.min(limit.max(current)) } else { wanted.max(limit.min(current)) }
    }
}

fn remember<T>(history: &mut VecDeque<T>, entry: T) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(entry);
}

/// The number one metric asks for.
fn replicas(reading: &Reading, target: f64, tolerance_thousandths: u32, current: u32) -> Option<u32> {
    let mean = reading.mean.filter(|it| it.is_finite() && *it >= 0.0)?;
    if target <= 0.0 || target.is_nan() || reading.reported == 0 {
        return None;
    }
    let tolerance = f64::from(tolerance_thousandths) / 1e3;
    let near = |ratio: f64| (ratio - 1.0).abs() <= tolerance;
    let (reported, missing) = (f64::from(reading.reported), f64::from(reading.missing));
    let ratio = mean / target;
    if reading.missing == 0 && (reading.not_ready == 0 || ratio <= 1.0) {
        return Some(if near(ratio) { current } else { (ratio * reported).ceil() as u32 });
    }
    let growing = ratio > 1.0;
    let (assumed, pods) = if growing {
        (0.0, reported + missing + f64::from(reading.not_ready))
    } else {
        (missing * target, reported + missing)
    };
    let corrected = (mean * reported + assumed) / pods / target;
    if near(corrected) || (corrected > 1.0) != growing {
        return Some(current);
    }
    let wanted = (corrected * pods).ceil() as u32;
    Some(if growing { wanted.max(current) } else { wanted.min(current) })
}
