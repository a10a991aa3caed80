//! EC2 step scaling: how far the metric is over the threshold decides how much is added.
//!
//! It goes on reacting while instances start. Those that warm up count neither in the metric (the caller leaves them
//! out) nor in the capacity an adjustment starts from, so a second breach in the same step asks for the same number and
//! adds nothing; a higher step adds the difference. It does not shrink while instances warm up.

use super::alarm::{Alarm, AlarmState};
use super::{Advice, Because, Fleet, Reading, adjusted, steady};
use crate::settings::scale::{self, StepAdjustment};
use units::Nanos;

#[derive(Clone, Debug)]
pub(super) struct AwsStep {
    policies: Vec<(Alarm, scale::StepPolicy)>,
    warm: super::aws_target_tracking::WarmUp,
}

impl AwsStep {
    pub(super) fn new(rule: &scale::AwsStep) -> Self {
        let policies = rule.policies.iter().map(|it| (Alarm::new(&it.alarm), it.clone())).collect();
        Self { policies, warm: Default::default() }
    }

    pub(super) fn tick(&self) -> Nanos {
        self.policies.iter().map(|(alarm, _)| alarm.period()).min().unwrap_or(Nanos::from_secs(60))
    }

    pub(super) fn observe(&mut self, now: Nanos, reading: &Reading) {
        self.policies.iter_mut().for_each(|(alarm, _)| alarm.observe(now, reading));
    }

    pub(super) fn decide(&mut self, now: Nanos, fleet: Fleet) -> Advice {
        let warm = self.warm.warm(now, fleet);
        let mut wanted: Option<(u32, Nanos)> = None;
        for (alarm, policy) in &mut self.policies {
            if alarm.state(now) != AlarmState::Alarm {
                continue;
            }
            let Some(value) = alarm.value() else { continue };
            let Some(step) = step_of(&policy.step_adjustments, value - alarm.threshold(), alarm.is_upper())
            else {
                continue;
            };
            let magnitude = policy.min_adjustment_magnitude;
            let desired = adjusted(policy.adjustment_type, step.scaling_adjustment, warm, magnitude);
            wanted = wanted.max(Some((desired, policy.estimated_instance_warmup)));
        }
        match wanted {
            Some((desired, warmup)) if desired > fleet.desired => {
                self.warm.start(now, desired - fleet.desired, warmup);
                Advice { desired, because: Because::Rule }
            }
            Some((desired, _)) if desired < warm && warm < fleet.desired => {
                Advice { desired: fleet.desired, because: Because::Cooldown }
            }
            Some((desired, _)) if desired < warm => Advice { desired, because: Because::Rule },
            _ => steady(fleet),
        }
    }
}

/// The step in which the metric is `over` the threshold (negative: under it). Above the threshold the lower bound
/// belongs to a step and the upper does not; below it is the other way round, so that a step always contains the bound
/// nearer to the threshold.
fn step_of(steps: &[StepAdjustment], over: f64, upper: bool) -> Option<&StepAdjustment> {
    steps.iter().find(|step| {
        let low = step.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
        let high = step.metric_interval_upper_bound.unwrap_or(f64::INFINITY);
        if upper { low <= over && over < high } else { low < over && over <= high }
    })
}
