//! Knative's pod autoscaler: one slow window to be calm by, one fast window to panic by.
//!
//! ```text
//! ready  = max(1, ready pods)
//! stable = clamp(⌈mean over stable window/target⌉, ⌊ready/max down⌋, ⌈max up·ready⌉);   panic likewise, shorter window
//! enter or extend panic when ⌈mean over panic window/target⌉/ready ≥ threshold; leave a stable window after
//! in panic: desired = max(stable, panic, the largest of this panic): never down
//! to zero: after the grace period without any
//! ```
//! A scaler that starts and finds more than one pod starts in panic, so that history it lost cannot shrink the service.

use super::{Advice, Because, Fleet, Reading};
use crate::settings::scale;
use std::collections::VecDeque;
use units::Nanos;

#[derive(Clone, Debug)]
pub(super) struct Kpa {
    settings: scale::Kpa,
    /// Per second: when, sum of totals, how many.
    seconds: VecDeque<(u64, f64, u32)>,
    panic_since: Option<Nanos>,
    panic_most: u32,
    started: bool,
    /// Since when nothing has been wanted.
    idle_since: Option<Nanos>,
}

/// The longest stable window Knative allows.
const WINDOW_MAX: Nanos = Nanos::from_secs(3_600);

impl Kpa {
    pub(super) fn new(rule: &scale::Kpa) -> Self {
        let mut settings = rule.clone();
        settings.stable_window = settings.stable_window.clamp(Nanos::from_secs(1), WINDOW_MAX);
        Self {
            settings,
            seconds: VecDeque::new(),
            panic_since: None,
            panic_most: 0,
            started: false,
            idle_since: None,
        }
    }

    pub(super) fn tick(&self) -> Nanos {
        self.settings.tick_interval.max(Nanos::from_millis(1))
    }

    pub(super) fn observe(&mut self, now: Nanos, reading: &Reading) {
        if reading.metric != self.settings.metric {
            return;
        }
        let Some(mean) = reading.mean.filter(|it| it.is_finite() && *it >= 0.0) else { return };
        let (second, total) = (now.0 / 1_000_000_000, mean * f64::from(reading.reported));
        match self.seconds.back_mut().filter(|it| it.0 >= second) {
            Some(newest) => {
                newest.1 += total;
                newest.2 += 1;
            }
            None => self.seconds.push_back((second, total, 1)),
        }
        let oldest = second.saturating_sub(self.settings.stable_window.0 / 1_000_000_000);
        while self.seconds.front().is_some_and(|it| it.0 < oldest) {
            self.seconds.pop_front();
        }
    }

    /// Mean of the totals over the last `window`, or nothing.
    fn mean(&self, now: Nanos, window: Nanos) -> Option<f64> {
        let from = now.saturating_sub(window).0.div_ceil(1_000_000_000);
        let recent = self.seconds.iter().filter(|it| it.0 >= from);
        let (sum, count) = recent.fold((0.0, 0), |(sum, count), it| (sum + it.1, count + it.2));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// `⌊ready·capacity − burst capacity − mean of the panic window⌋`: below zero the buffer in front of the service stays in
    /// the path, because the pods alone could not take the next burst.
    pub(super) fn excess_burst(&self, now: Nanos, ready: u32) -> f64 {
        let hot = self.mean(now, self.panic_window()).unwrap_or(0.0);
        (f64::from(ready) * self.settings.target - self.settings.target_burst_capacity - hot).floor()
    }

    fn panic_window(&self) -> Nanos {
        let share = u64::from(self.settings.panic_window_percentage.clamp(1, 100));
        Nanos(self.settings.stable_window.0 / 100 * share).max(Nanos::from_secs(1))
    }

    pub(super) fn decide(&mut self, now: Nanos, fleet: Fleet) -> Advice {
        let settings = &self.settings;
        let keep = |because| Advice { desired: fleet.desired, because };
        if !std::mem::replace(&mut self.started, true) && fleet.ready > 1 {
            self.panic_since = Some(now);
            self.panic_most = fleet.ready;
        }
        let panic_window = self.panic_window();
        let (Some(calm), true) = (self.mean(now, settings.stable_window), settings.target > 0.0) else {
            return keep(Because::NoData);
        };
        // Nothing in the short window is nothing to panic about.
        let hot = self.mean(now, panic_window).unwrap_or(calm);
        let ready = f64::from(fleet.ready.max(1));
        let highest = (settings.max_scale_up_rate.max(1.0) * ready).ceil();
        let lowest = (ready / settings.max_scale_down_rate.max(1.0)).floor();
        let wanted = |mean: f64| (mean / settings.target).ceil();
        let bounded = |mean: f64| wanted(mean).min(highest).max(lowest.min(highest)) as u32;
        let (stable, panic) = (bounded(calm), bounded(hot));

        let threshold = f64::from(settings.panic_threshold_percentage) / 100.0;
        let (stable_window, grace) = (settings.stable_window, settings.scale_to_zero_grace_period);
        if wanted(hot) / ready >= threshold {
            self.panic_since = Some(now);
        } else if self.panic_since.is_some_and(|since| since + stable_window <= now) {
            self.panic_since = None;
            self.panic_most = 0;
        }
        if self.panic_since.is_some() {
            self.panic_most = self.panic_most.max(stable).max(panic);
            return Advice { desired: self.panic_most, because: Because::Panic };
        }
        if stable > 0 {
            self.idle_since = None;
            let because = if stable == fleet.desired { Because::Steady } else { Because::Rule };
            return Advice { desired: stable, because };
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        if idle_since + grace <= now {
            return Advice { desired: 0, because: Because::Rule };
        }
        // The last one stays a while: starting from nothing is what callers feel most.
        Advice { desired: 1, because: Because::Stabilizing }
    }
}
