//! How many instances there should be.
//!
//! Five rules with one face: feed [`Scaler::observe`] with readings, ask [`Scaler::decide`] every
//! [`Scaler::tick`]. Each rule keeps the semantics and the field names of the system it comes from, with its delays: they
//! are what makes a rule good or bad, because the reaction takes metric period + data points + decision + start + warm-up,
//! and overshoot is about load growth times reaction.
//!
//! A rule never starts or stops anything. It says how many it wants and why.

mod alarm;
mod aws_simple;
mod aws_step;
mod aws_target_tracking;
mod hpa;
mod kpa;

pub use alarm::AlarmState;
pub use aws_step::{StepMistake, check_steps};

use crate::settings::scale::{AdjustmentType, Metric, Rule, Scale};
use units::Nanos;

/// One rule at work.
#[derive(Clone, Debug)]
pub struct Scaler {
    min: u32,
    max: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    AwsSimple(aws_simple::AwsSimple),
    AwsStep(aws_step::AwsStep),
    AwsTargetTracking(aws_target_tracking::AwsTargetTracking),
    Hpa(hpa::Hpa),
    Kpa(kpa::Kpa),
}

/// One measurement of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub metric: Metric,
    /// Mean over the instances that reported; `None` if none did.
    pub mean: Option<f64>,
    pub reported: u32,
    /// Ready, and silent.
    pub missing: u32,
    /// Not ready yet.
    pub not_ready: u32,
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Asked for, whether it runs yet or not.
    pub desired: u32,
    /// In service.
    pub ready: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    pub desired: u32,
    pub because: Because,
}

/// What decided the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Because {
    /// Nothing asks for a change.
    Steady,
    /// The rule's formula.
    Rule,
    /// In its cooldown, or an activity is still under way.
    Cooldown,
    /// A change is wanted and a window or rate limit holds (part of) it back.
    Stabilizing,
    /// There are no data to shrink on.
    NoData,
    /// Knative's panic mode: never down.
    Panic,
    /// Cut to `min` or `max`.
    Bounds,
}

impl Scaler {
    pub fn new(settings: &Scale) -> Self {
        let state = match &settings.rule {
            Rule::AwsSimple(rule) => State::AwsSimple(aws_simple::AwsSimple::new(rule)),
            Rule::AwsStep(rule) => State::AwsStep(aws_step::AwsStep::new(rule)),
            Rule::AwsTargetTracking(rule) => {
                State::AwsTargetTracking(aws_target_tracking::AwsTargetTracking::new(rule))
            }
            Rule::Hpa(rule) => State::Hpa(hpa::Hpa::new(rule)),
            Rule::Kpa(rule) => State::Kpa(kpa::Kpa::new(rule)),
        };
        Self { min: settings.min, max: settings.max.max(settings.min), state }
    }

    /// How often to ask.
    pub fn tick(&self) -> Nanos {
        match &self.state {
            State::AwsSimple(it) => it.tick(),
            State::AwsStep(it) => it.tick(),
            State::AwsTargetTracking(it) => it.tick(),
            State::Hpa(it) => it.tick(),
            State::Kpa(it) => it.tick(),
        }
    }

    pub fn observe(&mut self, now: Nanos, reading: &Reading) {
        match &mut self.state {
            State::AwsSimple(it) => it.observe(now, reading),
            State::AwsStep(it) => it.observe(now, reading),
            State::AwsTargetTracking(it) => it.observe(now, reading),
            State::Hpa(it) => it.observe(reading),
            State::Kpa(it) => it.observe(now, reading),
        }
    }

    /// Knative only: what is left above the burst capacity with so many ready; below zero a buffer stays in the path.
    pub fn excess_burst(&self, now: Nanos, ready: u32) -> Option<f64> {
        match &self.state {
            State::Kpa(it) => Some(it.excess_burst(now, ready)),
            _ => None,
        }
    }

    pub fn decide(&mut self, now: Nanos, fleet: Fleet) -> Advice {
        let advice = match &mut self.state {
            State::AwsSimple(it) => it.decide(now, fleet),
            State::AwsStep(it) => it.decide(now, fleet),
            State::AwsTargetTracking(it) => it.decide(now, fleet),
            State::Hpa(it) => it.decide(now, fleet, self.min, self.max),
            State::Kpa(it) => it.decide(now, fleet),
        };
        let desired = advice.desired.clamp(self.min, self.max);
        let because = if desired == advice.desired { advice.because } else { Because::Bounds };
        Advice { desired, because }
    }
}

const fn steady(fleet: Fleet) -> Advice {
    Advice { desired: fleet.desired, because: Because::Steady }
}

/// EC2's adjustment of a capacity.
///
/// ```text
/// per cent of capacity:  > 1 → down     0 to 1 → 1     −1 to 0 → −1     < −1 → toward zero
/// then at least min_adjustment_magnitude, in the same direction
/// ```
fn adjusted(kind: AdjustmentType, by: i32, capacity: u32, magnitude_min: Option<u32>) -> u32 {
    let change = match kind {
        AdjustmentType::ExactCapacity => return by.max(0) as u32,
        AdjustmentType::ChangeInCapacity => i64::from(by),
        AdjustmentType::PercentChangeInCapacity => {
            let product = i64::from(capacity) * i64::from(by);
            // Division truncates toward zero, which is the rule for both signs beyond one.
            let change = if product.abs() < 100 { product.signum() } else { product / 100 };
            let least = i64::from(magnitude_min.unwrap_or(0));
            if change == 0 { 0 } else { change.signum() * change.abs().max(least) }
        }
    };
    u32::try_from((i64::from(capacity) + change).max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
