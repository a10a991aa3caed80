//! A file's autoscaling rule as the policy crate's: the vendor's field names with the vendor's defaults for what the
//! file does not say.

use model::system::{Autoscale, ScaleRule};
use policy::settings::scale::{
    AdjustmentType, Alarm, AwsSimple, AwsStep, AwsTargetTracking, Comparison, Hpa, HpaBehavior, HpaMetric,
    Kpa, Metric, Missing, Rule, Scale, SimplePolicy, Statistic, StepAdjustment, StepPolicy, TargetPolicy,
};
use units::{Nanos, Percent};

/// From the decision until a new instance serves.
const START_TIME: Nanos = Nanos::from_secs(10);

pub(super) fn scale(autoscale: &Autoscale) -> Scale {
    let percent = |share: Percent| share.fraction() * 100.0;
    let alarm = |threshold: Percent, period: Nanos, evaluation_periods: u32, comparison_operator| Alarm {
        metric: Metric::CpuUtilization,
        statistic: Statistic::Average,
        period,
        comparison_operator,
        threshold: percent(threshold),
        evaluation_periods,
        datapoints_to_alarm: evaluation_periods,
        treat_missing_data: Missing::Missing,
    };
    let rule = match &autoscale.rule {
        ScaleRule::Hpa { target, sync, tolerance, down_window } => {
            let mut behavior = HpaBehavior::default();
            behavior.scale_down.stabilization_window = *down_window;
            Rule::Hpa(Hpa {
                metrics: vec![HpaMetric { metric: Metric::CpuUtilization, target: percent(*target) }],
                behavior,
                sync_period: *sync,
                tolerance: (tolerance.fraction() * 1e3).round() as u32,
            })
        }
        ScaleRule::Knative { target_concurrency, utilization, stable_window, panic_window } => {
            Rule::Kpa(Kpa {
                target: f64::from(*target_concurrency) * utilization.fraction(),
                stable_window: *stable_window,
                panic_window_percentage: percent(*panic_window).round() as u32,
                ..Kpa::default()
            })
        }
        ScaleRule::TargetTracking { target, period, cooldown, warmup } => {
            Rule::AwsTargetTracking(AwsTargetTracking {
                policies: vec![TargetPolicy {
                    metric: Metric::CpuUtilization,
                    target_value: percent(*target),
                    disable_scale_in: false,
                    estimated_instance_warmup: *warmup,
                    period: *period,
                    scale_in_cooldown: *cooldown,
                }],
            })
        }
        ScaleRule::Simple { above, adjustment, period, evaluation_periods, cooldown } => {
            Rule::AwsSimple(AwsSimple {
                policies: vec![SimplePolicy {
                    alarm: alarm(*above, *period, *evaluation_periods, Comparison::GreaterThanThreshold),
                    adjustment_type: AdjustmentType::ChangeInCapacity,
                    scaling_adjustment: *adjustment,
                    min_adjustment_magnitude: None,
                    cooldown: *cooldown,
                }],
            })
        }
        ScaleRule::Step { threshold, steps, period, evaluation_periods, warmup } => Rule::AwsStep(AwsStep {
            policies: vec![StepPolicy {
                alarm: alarm(
                    *threshold,
                    *period,
                    *evaluation_periods,
                    Comparison::GreaterThanOrEqualToThreshold,
                ),
                adjustment_type: AdjustmentType::ChangeInCapacity,
                step_adjustments: steps
                    .iter()
                    .map(|step| StepAdjustment {
                        metric_interval_lower_bound: step.lower.map(f64::from),
                        metric_interval_upper_bound: step.upper.map(f64::from),
                        scaling_adjustment: step.adjustment,
                    })
                    .collect(),
                min_adjustment_magnitude: None,
                estimated_instance_warmup: *warmup,
            }],
        }),
    };
    Scale { min: autoscale.min, max: autoscale.max, start_time: START_TIME, rule }
}
