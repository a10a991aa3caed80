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

/// What is wrong with a list of steps. EC2 refuses such a policy; so should whoever reads one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepMistake {
    NoSteps,
    /// This step ends where it begins, or before.
    Empty {
        step: usize,
    },
    /// Between these two steps (in order of their bounds) a metric would find none, or both.
    GapOrOverlap {
        first: usize,
        second: usize,
    },
    /// More than one step without a lower, or without an upper bound.
    TwoOpenEnds,
}

/// No gaps, no overlaps, at most one step open to each side. Steps may be in any order.
pub fn check_steps(steps: &[StepAdjustment]) -> Result<(), StepMistake> {
    let low = |it: &StepAdjustment| it.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
    let high = |it: &StepAdjustment| it.metric_interval_upper_bound.unwrap_or(f64::INFINITY);
    if steps.is_empty() {
        return Err(StepMistake::NoSteps);
    }
    let open =
        |bound: fn(&StepAdjustment) -> Option<f64>| steps.iter().filter(|it| bound(it).is_none()).count();
    if open(|it| it.metric_interval_lower_bound) > 1 || open(|it| it.metric_interval_upper_bound) > 1 {
        return Err(StepMistake::TwoOpenEnds);
    }
    // Written so that a bound that is not a number is a mistake too.
    if let Some(step) =
        steps.iter().position(|it| low(it).partial_cmp(&high(it)) != Some(std::cmp::Ordering::Less))
    {
        return Err(StepMistake::Empty { step });
    }
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by(|a, b| low(&steps[*a]).total_cmp(&low(&steps[*b])));
    match order.windows(2).find(|pair| high(&steps[pair[0]]) != low(&steps[pair[1]])) {
        Some(pair) => Err(StepMistake::GapOrOverlap { first: pair[0], second: pair[1] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_must_fit_together() {
        let step = |(low, high): &(Option<f64>, Option<f64>)| StepAdjustment {
            metric_interval_lower_bound: *low,
            metric_interval_upper_bound: *high,
            scaling_adjustment: 1,
        };
        for (bounds, expected) in [
            (vec![(Some(0.0), Some(10.0)), (Some(10.0), None)], Ok(())),
            (vec![(Some(10.0), None), (Some(0.0), Some(10.0))], Ok(())),
            (vec![(None, None)], Ok(())),
            (vec![], Err(StepMistake::NoSteps)),
            (vec![(Some(5.0), Some(5.0))], Err(StepMistake::Empty { step: 0 })),
            (vec![(Some(f64::NAN), None)], Err(StepMistake::Empty { step: 0 })),
            (vec![(None, Some(0.0)), (None, None)], Err(StepMistake::TwoOpenEnds)),
            (
                vec![(Some(0.0), Some(10.0)), (Some(20.0), None)],
                Err(StepMistake::GapOrOverlap { first: 0, second: 1 }),
            ),
            (
                vec![(Some(5.0), None), (Some(0.0), Some(10.0))],
                Err(StepMistake::GapOrOverlap { first: 1, second: 0 }),
            ),
        ] {
            let steps: Vec<_> = bounds.iter().map(step).collect();
            assert_eq!(check_steps(&steps), expected, "{bounds:?}");
        }
    }
}
