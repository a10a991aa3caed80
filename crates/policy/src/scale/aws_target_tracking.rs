//! EC2 target tracking: keep a metric that falls in proportion to capacity near its target.
//!
//! ```text
//! out: 3 periods above the target          desired = ⌈warm · metric/target⌉
//! in:  15 periods below 90 % of it          the same; the largest of all policies, and all must agree
//! ```
//! A period is a minute where nothing else is said. Nothing shrinks within the cooldown after a change, and growing never
//! waits for it. Without data it does not shrink. Instances that warm up do not count, and nothing shrinks meanwhile. Rounding is
//! always up: one too many is money, one too few is an outage.

use super::alarm::{Alarm, AlarmState};
use super::{Advice, Because, Fleet, Reading, steady};
use crate::settings::scale::{self, Comparison, Missing, Statistic};
use std::collections::VecDeque;
use units::Nanos;

const OUT_PERIODS: u32 = 3;
const IN_PERIODS: u32 = 15;
/// Between the two nothing happens, or the group would breathe.
const IN_SHARE: f64 = 0.9;

#[derive(Clone, Debug)]
pub(super) struct AwsTargetTracking {
    policies: Vec<Policy>,
    warm: WarmUp,
    /// When it last changed anything.
    changed: Option<Nanos>,
}

#[derive(Clone, Debug)]
struct Policy {
    settings: scale::TargetPolicy,
    high: Alarm,
    low: Alarm,
}

/// Instances that were asked for and do not count yet.
#[derive(Clone, Debug, Default)]
pub(super) struct WarmUp {
    batches: VecDeque<(Nanos, u32)>,
}

impl WarmUp {
    pub(super) fn start(&mut self, now: Nanos, count: u32, warmup: Nanos) {
        self.batches.push_back((now + warmup, count));
    }

    /// The capacity that counts: in service and past its warm-up.
    pub(super) fn warm(&mut self, now: Nanos, fleet: Fleet) -> u32 {
        self.batches.retain(|(until, _)| now < *until);
        let warming: u32 = self.batches.iter().map(|(_, count)| *count).fold(0, u32::saturating_add);
        fleet.ready.min(fleet.desired.saturating_sub(warming))
    }
}

impl AwsTargetTracking {
    pub(super) fn new(rule: &scale::AwsTargetTracking) -> Self {
        let alarm = |settings: &scale::TargetPolicy, high: bool| {
            let periods = if high { OUT_PERIODS } else { IN_PERIODS };
            Alarm::new(&scale::Alarm {
                metric: settings.metric,
                statistic: Statistic::Average,
                period: settings.period,
                comparison_operator: if high {
                    Comparison::GreaterThanThreshold
                } else {
                    Comparison::LessThanThreshold
                },
                threshold: if high { settings.target_value } else { settings.target_value * IN_SHARE },
                evaluation_periods: periods,
                datapoints_to_alarm: periods,
                treat_missing_data: Missing::Missing,
            })
        };
        let policy = |it: &scale::TargetPolicy| Policy {
            settings: it.clone(),
            high: alarm(it, true),
            low: alarm(it, false),
        };
        Self { policies: rule.policies.iter().map(policy).collect(), warm: WarmUp::default(), changed: None }
    }

    pub(super) fn tick(&self) -> Nanos {
        self.policies.iter().map(|it| it.high.period()).min().unwrap_or(Nanos::from_secs(60))
    }

    pub(super) fn observe(&mut self, now: Nanos, reading: &Reading) {
        for policy in &mut self.policies {
            policy.high.observe(now, reading);
            policy.low.observe(now, reading);
        }
    }

    pub(super) fn decide(&mut self, now: Nanos, fleet: Fleet) -> Advice {
        let warm = self.warm.warm(now, fleet);
        let (mut out, mut warmup, mut low, mut agree, mut data) = (0, Nanos::ZERO, 0, true, true);
        for policy in &mut self.policies {
            let (high, below) = (policy.high.state(now), policy.low.state(now));
            let Some(value) = policy.high.value() else {
                data = false;
                continue;
            };
            let target = policy.settings.target_value;
            if target <= 0.0 || target.is_nan() {
                continue;
            }
            let needed = (f64::from(warm) * value / target).ceil() as u32;
            if high == AlarmState::Alarm && needed > out {
                (out, warmup) = (needed, policy.settings.estimated_instance_warmup);
            }
            agree &= below == AlarmState::Alarm && !policy.settings.disable_scale_in;
            low = low.max(needed);
        }
        if out > fleet.desired {
            self.warm.start(now, out - fleet.desired, warmup);
            self.changed = Some(now);
            return Advice { desired: out, because: Because::Rule };
        }
        if !data {
            return Advice { desired: fleet.desired, because: Because::NoData };
        }
        if agree && out == 0 && !self.policies.is_empty() && low < fleet.desired {
            let cooldown =
                self.policies.iter().map(|it| it.settings.scale_in_cooldown).max().unwrap_or(Nanos::ZERO);
            if warm < fleet.desired || self.changed.is_some_and(|at| now < at + cooldown) {
                return Advice { desired: fleet.desired, because: Because::Cooldown };
            }
            self.changed = Some(now);
            return Advice { desired: low, because: Because::Rule };
        }
        steady(fleet)
    }
}
