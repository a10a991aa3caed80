//! Autoscaling rules with the field names of those who made them (in snake case), so that a real rule can be pasted in.

use units::Nanos;

/// How many instances a service has over time. `min` and `max` hold for every rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    pub min: u32,
    pub max: u32,
    /// From the decision until the instance serves.
    pub start_time: Nanos,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    AwsSimple(AwsSimple),
    AwsStep(AwsStep),
    AwsTargetTracking(AwsTargetTracking),
    Hpa(Hpa),
    Kpa(Kpa),
}

/// What is measured. The caller supplies readings in these units, as the mean over instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Per cent of capacity, 0 to 100.
    CpuUtilization,
    /// Requests in the metric's period, per instance.
    RequestCountPerTarget,
    /// Requests per second, per instance.
    RequestsPerSecond,
    /// Requests in progress, per instance.
    Concurrency,
}

/// A CloudWatch alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    pub metric: Metric,
    pub statistic: Statistic,
    pub period: Nanos,
    pub comparison_operator: Comparison,
    pub threshold: f64,
    /// N of "M of N": periods looked at.
    pub evaluation_periods: u32,
    /// M of "M of N": breaching periods that raise the alarm.
    pub datapoints_to_alarm: u32,
    pub treat_missing_data: Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    Average,
    Sum,
    Minimum,
    Maximum,
    SampleCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    GreaterThanThreshold,
    GreaterThanOrEqualToThreshold,
    LessThanThreshold,
    LessThanOrEqualToThreshold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Looks at the data there is; with none at all the alarm is not raised.
    Missing,
    /// The alarm stays as it is.
    Ignore,
    Breaching,
    NotBreaching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustmentType {
    ChangeInCapacity,
    ExactCapacity,
    PercentChangeInCapacity,
}

/// EC2 Auto Scaling, simple scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsSimple {
    pub policies: Vec<SimplePolicy>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SimplePolicy {
    pub alarm: Alarm,
    pub adjustment_type: AdjustmentType,
    pub scaling_adjustment: i32,
    pub min_adjustment_magnitude: Option<u32>,
    pub cooldown: Nanos,
}

/// EC2 Auto Scaling, step scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsStep {
    pub policies: Vec<StepPolicy>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StepPolicy {
    pub alarm: Alarm,
    pub adjustment_type: AdjustmentType,
    pub step_adjustments: Vec<StepAdjustment>,
    pub min_adjustment_magnitude: Option<u32>,
    pub estimated_instance_warmup: Nanos,
}

/// Bounds are relative to the alarm's threshold; `None` is without end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepAdjustment {
    pub metric_interval_lower_bound: Option<f64>,
    pub metric_interval_upper_bound: Option<f64>,
    pub scaling_adjustment: i32,
}

/// EC2 Auto Scaling, target tracking.
#[derive(Clone, Debug, PartialEq)]
pub struct AwsTargetTracking {
    /// Each may scale out; all must agree to scale in.
    pub policies: Vec<TargetPolicy>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TargetPolicy {
    pub metric: Metric,
    pub target_value: f64,
    pub disable_scale_in: bool,
    pub estimated_instance_warmup: Nanos,
    /// Of the metric, and so of the decisions.
    pub period: Nanos,
    /// After any change, the time in which nothing shrinks. Growing never waits for it.
    pub scale_in_cooldown: Nanos,
}

/// Kubernetes HorizontalPodAutoscaler, autoscaling/v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    pub metrics: Vec<HpaMetric>,
    pub behavior: HpaBehavior,
    pub sync_period: Nanos,
    /// Thousandths.
    pub tolerance: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HpaMetric {
    pub metric: Metric,
    /// averageUtilization or averageValue.
    pub target: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HpaBehavior {
    pub scale_up: HpaRules,
    pub scale_down: HpaRules,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HpaRules {
    pub stabilization_window: Nanos,
    pub select_policy: SelectPolicy,
    pub policies: Vec<HpaPolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectPolicy {
    Max,
    Min,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaPolicy {
    pub kind: HpaPolicyKind,
    pub value: u32,
    pub period: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaPolicyKind {
    Pods,
    Percent,
}

/// Knative's pod autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Kpa {
    pub metric: Metric,
    /// container-concurrency-target-default times its percentage, or requests-per-second-target-default.
    pub target: f64,
    pub tick_interval: Nanos,
    pub stable_window: Nanos,
    pub panic_window_percentage: u32,
    pub panic_threshold_percentage: u32,
    pub max_scale_up_rate: f64,
    pub max_scale_down_rate: f64,
    pub scale_to_zero_grace_period: Nanos,
    pub target_burst_capacity: f64,
}

impl Default for HpaBehavior {
    /// Kubernetes': up at once by 100 % or 4 pods in 15 s, whichever is more; down after five minutes, as far as needed.
    fn default() -> Self {
        let period = Nanos::from_secs(15);
        let policy = |kind, value| HpaPolicy { kind, value, period };
        Self {
            scale_up: HpaRules {
                stabilization_window: Nanos::ZERO,
                select_policy: SelectPolicy::Max,
                policies: vec![policy(HpaPolicyKind::Percent, 100), policy(HpaPolicyKind::Pods, 4)],
            },
            scale_down: HpaRules {
                stabilization_window: Nanos::from_secs(300),
                select_policy: SelectPolicy::Max,
                policies: vec![policy(HpaPolicyKind::Percent, 100)],
            },
        }
    }
}

impl Default for Hpa {
    /// 80 % of CPU, as Kubernetes does when no metric is given.
    fn default() -> Self {
        Self {
            metrics: vec![HpaMetric { metric: Metric::CpuUtilization, target: 80.0 }],
            behavior: HpaBehavior::default(),
            sync_period: Nanos::from_secs(15),
            tolerance: 100,
        }
    }
}

impl Default for Kpa {
    fn default() -> Self {
        Self {
            metric: Metric::Concurrency,
            target: 70.0,
            tick_interval: Nanos::from_secs(2),
            stable_window: Nanos::from_secs(60),
            panic_window_percentage: 10,
            panic_threshold_percentage: 200,
            max_scale_up_rate: 1_000.0,
            max_scale_down_rate: 2.0,
            scale_to_zero_grace_period: Nanos::from_secs(30),
            target_burst_capacity: 200.0,
        }
    }
}
