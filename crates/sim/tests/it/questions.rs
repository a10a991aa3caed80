//! Sweeps, capacity and comparisons.

use crate::common::{plan, run};
use sim::compare::{Measured, compare};
use sim::{Fallacy, Options, Report, questions};
use units::Nanos;

fn api(replicas: u32) -> String {
    format!(
        r#"
isobar: 1
services:
  api:
    replicas: {replicas}
    concurrency: 4
    queue: 50
    operations: {{op: exponential(mean 10ms)}}
    slo: {{availability: 99.9%, latency: {{p99: 100ms}}}}
edges:
  default: {{balance: least-request, eject: none, connections: 10000}}
traffic:
  users: {{to: api "op", rate: 200/s}}
"#
    )
}

fn options() -> Options {
    Options {
        runs: 4,
        threads: 2,
        duration: Some(Nanos::from_secs(20)),
        warm_up: Some(Nanos::from_secs(2)),
        ..Options::default()
    }
}

#[test]
fn a_sweep_shows_goodput_flatten_and_the_knee_before_it() {
    let plan = plan(&api(1));
    let sweep = questions::sweep(&plan, &options(), &[0.5, 1.0, 1.5, 2.0, 3.0], &|_| true).unwrap();
    let goodput: Vec<f64> = sweep.points.iter().map(|it| it.goodput.value).collect();
    assert!((goodput[0] - 100.0).abs() < 5.0 && (goodput[4] - 400.0).abs() < 12.0, "{goodput:?}");
    assert!(sweep.points[4].availability.value < 0.75 && sweep.points[0].holds && !sweep.points[4].holds);
    assert!((0..=2).contains(&sweep.knee.unwrap()), "{:?}", sweep.knee);
}

#[test]
fn capacity_is_found_between_what_holds_and_what_does_not() {
    let plan = plan(&api(1));
    let found = questions::capacity(&plan, &options(), 0.05, &|_| true).unwrap();
    // 400/s is all it can do; the p99 of 100 ms is lost a little before.
    assert!((1.5..2.0).contains(&found.load), "{}", found.load);
    assert!(found.beyond.unwrap().load / found.load <= 1.051);
}

#[test]
fn a_difference_has_an_interval_and_a_direction() {
    // Nine tenths of what one instance can do: a second one is felt, and taking it away more so.
    let mut options = options();
    options.bias.load = 1.8;
    let (two, one) = (plan(&api(2)), plan(&api(1)));
    let (before, after) = (run(&two, &options), run(&one, &options));
    let worse = compare(&before, &after);
    let p99 = worse.differences.iter().find(|it| it.of == "users" && it.measure == Measured::P99).unwrap();
    assert!(p99.regression && worse.is_regression(), "{p99:?}");
    let better = compare(&after, &before);
    assert!(!better.is_regression(), "{:?}", better.differences);
    let same = compare(&before, &before);
    assert!(same.differences.iter().all(|it| it.change.value == 0.0 && !it.regression));
}

#[test]
fn a_fallacy_hides_what_it_denies() {
    let text = r#"
isobar: 1
places: {east: {zones: [a]}, west: {zones: [a]}}
network: {east <-> west: {rtt: 80ms, loss: 1%, price: $0.02}}
services:
  app: {replicas: {east: 1}, operations: {op: {work: 1ms, calls: [db "read"]}}}
  db: {replicas: {west: 1}, discovery: everywhere, operations: {read: {work: 1ms, response: 100KiB}}}
traffic:
  users: {to: app "op", rate: 100/s, from: east}
"#;
    let believe = |fallacy: Option<Fallacy>| {
        let mut plan = plan(text);
        if let Some(fallacy) = fallacy {
            fallacy.assume(&mut plan);
        }
        let report = Report::of(&run(&plan, &options()));
        (
            report.traffic[0].requests.latency.p50.value,
            report.traffic[0].requests.latency.p999.value,
            report.cost.per_month,
        )
    };
    let truth = believe(None);
    let [reliable, latency, bandwidth, cost] =
        [Fallacy::Reliable, Fallacy::Latency, Fallacy::Bandwidth, Fallacy::Cost].map(|it| believe(Some(it)));
    assert!(truth.0 > 0.08 && latency.0 < 0.01, "{truth:?} {latency:?}");
    assert!(truth.1 > 0.25 && reliable.1 < 0.15, "{truth:?} {reliable:?}");
    assert!(bandwidth.0 < truth.0, "{truth:?} {bandwidth:?}");
    assert!(truth.2 > 0.0 && cost.2 == 0.0, "{truth:?} {cost:?}");
    assert_eq!(Fallacy::named("latency"), Some(Fallacy::Latency));
}
