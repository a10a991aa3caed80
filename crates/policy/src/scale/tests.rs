use super::*;

#[test]
fn adjustments_round_as_documented() {
    use AdjustmentType::*;
    for (kind, by, capacity, magnitude, expected) in [
        (ChangeInCapacity, 3, 10, None, 13),
        (ChangeInCapacity, -30, 10, None, 0),
        (ExactCapacity, 5, 10, None, 5),
        (PercentChangeInCapacity, 25, 10, None, 12), // 2.5 → 2
        (PercentChangeInCapacity, 5, 10, None, 11),  // 0.5 → 1
        (PercentChangeInCapacity, -5, 10, None, 9),  // −0.5 → −1
        (PercentChangeInCapacity, -25, 10, None, 8), // −2.5 → −2
        (PercentChangeInCapacity, 10, 0, None, 0),
        (PercentChangeInCapacity, 10, 10, Some(4), 14),
        (PercentChangeInCapacity, -10, 10, Some(4), 6),
    ] {
        assert_eq!(adjusted(kind, by, capacity, magnitude), expected, "{kind:?} {by} of {capacity}");
    }
}

use crate::settings::scale::*;
use proptest::prelude::*;

const SECOND: fn(u64) -> Nanos = Nanos::from_secs;

fn reading(metric: Metric, mean: f64, reported: u32) -> Reading {
    Reading { metric, mean: Some(mean), reported, missing: 0, not_ready: 0 }
}

fn scaler(rule: Rule) -> Scaler {
    Scaler::new(&Scale { min: 1, max: 100, start_time: SECOND(30), rule })
}

fn alarm(comparison_operator: Comparison, threshold: f64, periods: u32) -> Alarm {
    Alarm {
        metric: Metric::CpuUtilization,
        statistic: Statistic::Average,
        period: SECOND(60),
        comparison_operator,
        threshold,
        evaluation_periods: periods,
        datapoints_to_alarm: periods,
        treat_missing_data: Missing::Missing,
    }
}

/// A minute of readings, then a decision: for each (CPU or no data, ready), what is wanted. The fleet follows at once unless
/// `ready` says otherwise.
#[track_caller]
fn check(rule: Rule, start: u32, minutes: &[(Option<f64>, Option<u32>)], expected: &[u32]) {
    let mut scaler = scaler(rule);
    let (mut desired, mut got) = (start, Vec::new());
    for (minute, (cpu, ready)) in (0u64..).zip(minutes) {
        let ready = ready.unwrap_or(desired);
        for second in [0, 15, 30, 45] {
            if let Some(cpu) = cpu {
                scaler.observe(SECOND(minute * 60 + second), &reading(Metric::CpuUtilization, *cpu, ready));
            }
        }
        desired = scaler.decide(SECOND(minute * 60 + 60), Fleet { desired, ready }).desired;
        got.push(desired);
    }
    assert_eq!(got, expected);
}

fn steady_cpu(cpu: f64, minutes: usize) -> Vec<(Option<f64>, Option<u32>)> {
    vec![(Some(cpu), None); minutes]
}

#[test]
fn simple_scaling_waits_for_its_activity_and_its_cooldown() {
    let policy = SimplePolicy {
        alarm: alarm(Comparison::GreaterThanThreshold, 80.0, 2),
        adjustment_type: AdjustmentType::ChangeInCapacity,
        scaling_adjustment: 2,
        min_adjustment_magnitude: None,
        cooldown: SECOND(300),
    };
    let rule = || Rule::AwsSimple(AwsSimple { policies: vec![policy.clone()] });
    // Two periods to the alarm; then the five minutes of the cooldown begin at the next look, when all are in service.
    check(rule(), 4, &steady_cpu(90.0, 10), &[4, 6, 6, 6, 6, 6, 6, 8, 8, 8]);
    // While instances start the cooldown has not even begun.
    let mut slow = steady_cpu(90.0, 10);
    slow[2].1 = Some(4);
    slow[3].1 = Some(4);
    check(rule(), 4, &slow, &[4, 6, 6, 6, 6, 6, 6, 6, 6, 8]);
    check(rule(), 4, &steady_cpu(80.0, 5), &[4; 5]);
}

fn steps(warmup: u64) -> Rule {
    let step = |low: Option<f64>, high: Option<f64>, by| StepAdjustment {
        metric_interval_lower_bound: low,
        metric_interval_upper_bound: high,
        scaling_adjustment: by,
    };
    let policy = |alarm, step_adjustments| StepPolicy {
        alarm,
        adjustment_type: AdjustmentType::PercentChangeInCapacity,
        step_adjustments,
        min_adjustment_magnitude: None,
        estimated_instance_warmup: SECOND(warmup),
    };
    Rule::AwsStep(AwsStep {
        policies: vec![
            policy(
                alarm(Comparison::GreaterThanThreshold, 60.0, 1),
                vec![step(Some(0.0), Some(10.0), 10), step(Some(10.0), None, 30)],
            ),
            policy(
                alarm(Comparison::LessThanThreshold, 40.0, 1),
                vec![step(Some(-10.0), Some(0.0), -10), step(None, Some(-10.0), -30)],
            ),
        ],
    })
}

#[test]
fn steps_count_from_what_is_warm() {
    let cpu = |values: &[f64]| values.iter().map(|it| (Some(*it), None)).collect::<Vec<_>>();
    // The same step again adds nothing; the higher step adds the difference; after the warm-up it starts from the new.
    check(steps(600), 10, &cpu(&[65.0, 65.0, 75.0, 75.0]), &[11, 11, 13, 13]);
    check(steps(90), 10, &cpu(&[65.0, 65.0, 65.0]), &[11, 11, 12]);
    // The bound belongs to the step nearer to the threshold above, and below it.
    check(steps(0), 10, &cpu(&[70.0]), &[13]);
    check(steps(0), 10, &cpu(&[60.0]), &[10]);
    check(steps(0), 10, &cpu(&[30.0]), &[7]);
    check(steps(0), 10, &cpu(&[30.1]), &[9]);
    // Nothing shrinks while something warms up.
    check(steps(150), 10, &cpu(&[75.0, 20.0, 20.0, 20.0]), &[13, 13, 13, 10]);
}

fn tracking(targets: &[(Metric, f64)]) -> Rule {
    let policy = |(metric, target_value): &(Metric, f64)| TargetPolicy {
        metric: *metric,
        target_value: *target_value,
        disable_scale_in: false,
        estimated_instance_warmup: SECOND(120),
        period: SECOND(60),
        scale_in_cooldown: Nanos::ZERO,
    };
    Rule::AwsTargetTracking(AwsTargetTracking { policies: targets.iter().map(policy).collect() })
}

#[test]
fn target_tracking_grows_fast_and_shrinks_slowly() {
    let rule = || tracking(&[(Metric::CpuUtilization, 50.0)]);
    check(rule(), 10, &steady_cpu(75.0, 4), &[10, 10, 15, 15]);
    let mut expected = vec![10; 14];
    expected.push(5);
    check(rule(), 10, &steady_cpu(22.0, 15), &expected);
    check(rule(), 10, &steady_cpu(46.0, 30), &[10; 30]); // above 90 % of the target
    check(rule(), 10, &[(None, None); 30], &[10; 30]); // no data
    // A second metric that has no data, or no slack, forbids shrinking.
    let two = tracking(&[(Metric::CpuUtilization, 50.0), (Metric::RequestCountPerTarget, 100.0)]);
    check(two, 10, &steady_cpu(22.0, 20), &[10; 20]);
}

#[test]
fn target_tracking_keeps_its_period_and_its_cooldown() {
    let rule = |period, cooldown| {
        let policy = TargetPolicy {
            metric: Metric::CpuUtilization,
            target_value: 50.0,
            disable_scale_in: false,
            estimated_instance_warmup: Nanos::ZERO,
            period: SECOND(period),
            scale_in_cooldown: SECOND(cooldown),
        };
        Rule::AwsTargetTracking(AwsTargetTracking { policies: vec![policy] })
    };
    // Two hours of a quiet service asked every `period`: when it shrank, in seconds.
    let shrinks = |period: u64, cooldown: u64| {
        let mut scaler = scaler(rule(period, cooldown));
        assert_eq!(scaler.tick(), SECOND(period));
        let (mut desired, mut at) = (64, Vec::new());
        for tick in 0..7_200 / period {
            let now = SECOND(tick * period);
            scaler.observe(now, &reading(Metric::CpuUtilization, 25.0, desired));
            let advice = scaler.decide(now, Fleet { desired, ready: desired });
            if advice.desired < desired {
                at.push(tick * period);
            }
            desired = advice.desired;
        }
        at
    };
    let (minute, ten) = (shrinks(60, 0), shrinks(10, 0));
    assert_eq!((minute[0], ten[0]), (15 * 60, 15 * 10), "fifteen periods, whatever a period is");
    assert_eq!(minute[1] - minute[0], 60, "without a cooldown it goes on at once");
    let calm = shrinks(60, 300);
    assert_eq!((calm[0], calm[1] - calm[0]), (15 * 60, 300));
}

/// One decision of the HPA with its windows out of the way.
#[track_caller]
fn check_hpa(reading: Reading, current: u32, expected: u32) {
    let mut hpa = Hpa::default();
    hpa.metrics[0].target = 50.0;
    hpa.behavior.scale_down.stabilization_window = Nanos::ZERO;
    hpa.behavior.scale_up.policies.clear();
    let mut scaler = scaler(Rule::Hpa(hpa));
    scaler.observe(Nanos::ZERO, &reading);
    let advice = scaler.decide(Nanos::ZERO, Fleet { desired: current, ready: current });
    assert_eq!(advice.desired, expected, "{reading:?} of {current}");
}

#[test]
fn hpa_formula() {
    let cpu = |mean, reported, missing, not_ready| Reading {
        missing,
        not_ready,
        ..reading(Metric::CpuUtilization, mean, reported)
    };
    check_hpa(cpu(100.0, 4, 0, 0), 4, 8);
    check_hpa(cpu(75.0, 3, 0, 0), 3, 5);
    check_hpa(cpu(25.0, 4, 0, 0), 4, 2);
    check_hpa(cpu(54.9, 10, 0, 0), 10, 10); // within the tolerance
    check_hpa(cpu(45.1, 10, 0, 0), 10, 10);
    check_hpa(cpu(56.0, 10, 0, 0), 10, 12);
    check_hpa(cpu(100.0, 2, 2, 0), 4, 4); // the missing count as nothing: 50 % of 4
    check_hpa(cpu(200.0, 2, 2, 0), 4, 8);
    check_hpa(cpu(20.0, 2, 2, 0), 4, 3); // the missing count as full: 70 % of 4
    check_hpa(cpu(150.0, 4, 0, 4), 8, 12); // those not ready count as nothing: 1.5 · 8
    check_hpa(cpu(20.0, 4, 0, 4), 8, 2); // and are left out when shrinking
    check_hpa(Reading { mean: None, ..cpu(0.0, 0, 4, 0) }, 4, 4);
    check_hpa(cpu(f64::NAN, 4, 0, 0), 4, 4);
}

#[test]
fn hpa_takes_the_largest_metric_and_does_not_shrink_on_half_the_data() {
    let metrics = vec![
        HpaMetric { metric: Metric::CpuUtilization, target: 50.0 },
        HpaMetric { metric: Metric::RequestsPerSecond, target: 100.0 },
    ];
    let mut behavior = HpaBehavior::default();
    behavior.scale_down.stabilization_window = Nanos::ZERO;
    let rule = Rule::Hpa(Hpa { metrics, behavior, ..Default::default() });
    for (cpu, requests, expected) in [
        (Some(75.0), Some(120.0), 6),
        (Some(10.0), Some(120.0), 5),
        (Some(10.0), None, 4),
        (Some(75.0), None, 6),
        (None, None, 4),
    ] {
        let mut scaler = scaler(rule.clone());
        cpu.into_iter().for_each(|it| scaler.observe(Nanos::ZERO, &reading(Metric::CpuUtilization, it, 4)));
        requests
            .into_iter()
            .for_each(|it| scaler.observe(Nanos::ZERO, &reading(Metric::RequestsPerSecond, it, 4)));
        let advice = scaler.decide(Nanos::ZERO, Fleet { desired: 4, ready: 4 });
        assert_eq!(advice.desired, expected, "{cpu:?} {requests:?}");
    }
}

#[test]
fn hpa_grows_by_its_policies_and_shrinks_after_its_window() {
    let mut scaler = scaler(Rule::Hpa(Hpa::default()));
    let (mut desired, mut got) = (1, Vec::new());
    for step in 0..40u64 {
        let now = SECOND(step * 15);
        let cpu = if step < 5 { 8_000.0 / f64::from(desired) } else { 80.0 / f64::from(desired) };
        scaler.observe(now, &reading(Metric::CpuUtilization, cpu, desired));
        desired = scaler.decide(now, Fleet { desired, ready: desired }).desired;
        got.push(desired);
    }
    // 4 pods or 100 % in 15 s: 1, 5, 10, 20, 40, 80; then five minutes after the last high recommendation, at once.
    assert_eq!(got[..6], [5, 10, 20, 40, 80, 80]);
    assert!(got[5..25].iter().all(|it| *it == 80), "{got:?}");
    assert_eq!(got[25], 1, "{got:?}");
}

struct KpaRun {
    scaler: Scaler,
    second: u64,
    pods: u32,
}

impl KpaRun {
    fn new(pods: u32) -> Self {
        let kpa = Kpa { target: 10.0, ..Default::default() };
        Self {
            scaler: Scaler::new(&Scale { min: 0, max: 1_000, start_time: Nanos::ZERO, rule: Rule::Kpa(kpa) }),
            second: 0,
            pods,
        }
    }

    /// So much concurrency in all for so many seconds; what was wanted at the end and why.
    fn load(&mut self, total: f64, seconds: u64) -> (u32, Because) {
        let mut advice = (self.pods, Because::Steady);
        for _ in 0..seconds {
            let pods = self.pods.max(1);
            let mean = total / f64::from(pods);
            self.scaler.observe(SECOND(self.second), &reading(Metric::Concurrency, mean, pods));
            if self.second.is_multiple_of(2) {
                let got =
                    self.scaler.decide(SECOND(self.second), Fleet { desired: self.pods, ready: self.pods });
                self.pods = got.desired;
                advice = (got.desired, got.because);
            }
            self.second += 1;
        }
        advice
    }
}

#[test]
fn kpa_is_calm_then_panics_and_never_shrinks_in_panic() {
    let mut run = KpaRun::new(1);
    assert_eq!(run.load(9.0, 70), (1, Because::Steady));
    // From 9 to 100: within seconds the short window asks for more than twice what is there.
    let (pods, because) = run.load(100.0, 7);
    assert_eq!((pods, because), (10, Because::Panic));
    // The load falls at once, and still nothing shrinks for a stable window.
    assert_eq!(run.load(9.0, 40), (10, Because::Panic));
    let (pods, because) = run.load(9.0, 60);
    assert!(pods < 10 && because != Because::Panic, "{pods} {because:?}");
    assert_eq!(run.load(9.0, 60).0, 1);
    assert_eq!(run.scaler.excess_burst(SECOND(run.second), 30), Some(300.0 - 200.0 - 9.0));
}

#[test]
fn kpa_goes_to_zero_after_its_grace_and_starts_in_panic() {
    let mut run = KpaRun::new(1);
    run.load(5.0, 60);
    // Until the stable window is empty, one is wanted; then the grace period.
    assert_eq!(run.load(0.0, 61).0, 1);
    assert_eq!(run.load(0.0, 28), (1, Because::Stabilizing));
    assert_eq!(run.load(0.0, 6).0, 0);
    // A restarted scaler that finds five does not shrink them on an empty history.
    let mut restarted = KpaRun::new(5);
    assert_eq!(restarted.load(1.0, 50), (5, Because::Panic));
    assert_eq!(restarted.load(1.0, 30).0, 1);
}

proptest! {
    #[test]
    fn advice_stays_within_bounds_whatever_is_read(
        kind in 0usize..5,
        min in 0u32..5,
        span in 0u32..20,
        looks in prop::collection::vec((0u64..200, -10.0f64..1e4, 0u32..30, 0u32..5, 0u32..5, any::<bool>()), 1..120),
    ) {
        let simple = SimplePolicy {
            alarm: alarm(Comparison::GreaterThanThreshold, 50.0, 1),
            adjustment_type: AdjustmentType::PercentChangeInCapacity,
            scaling_adjustment: 500,
            min_adjustment_magnitude: Some(3),
            cooldown: SECOND(60),
        };
        let rule = [
            Rule::AwsSimple(AwsSimple { policies: vec![simple] }),
            steps(120),
            tracking(&[(Metric::CpuUtilization, 50.0)]),
            Rule::Hpa(Default::default()),
            Rule::Kpa(Kpa { metric: Metric::CpuUtilization, ..Default::default() }),
        ][kind].clone();
        let max = min + span;
        let mut scaler = Scaler::new(&Scale { min, max, start_time: Nanos::ZERO, rule });
        let (mut now, mut desired) = (Nanos::ZERO, min);
        for (wait, mean, reported, missing, not_ready, silent) in looks {
            now += SECOND(wait);
            let mean = (!silent).then_some(mean);
            scaler.observe(now, &Reading { metric: Metric::CpuUtilization, mean, reported, missing, not_ready });
            desired = scaler.decide(now, Fleet { desired, ready: desired.min(reported) }).desired;
            prop_assert!((min..=max).contains(&desired));
        }
    }
}
