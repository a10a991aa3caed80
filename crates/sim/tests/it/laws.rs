//! What holds for every model and every fault: nothing is lost, nothing is exceeded, the same seed is the same run.

use crate::common::{plan, run};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest};
use sim::{Options, Report};
use std::fmt::Write;
use units::Nanos;

/// A few numbers from which a whole file is written: services in a line of layers, each calling later ones.
#[derive(Clone, Debug)]
struct Shape {
    services: Vec<[u8; 8]>,
    rate: u16,
    faults: Vec<[u8; 4]>,
    edge: [u8; 8],
}

fn shapes() -> impl Strategy<Value = Shape> {
    let faults = proptest::collection::vec(any::<[u8; 4]>(), 0..4);
    (proptest::collection::vec(any::<[u8; 8]>(), 1..5), 10u16..600, faults, any::<[u8; 8]>())
        .prop_map(|(services, rate, faults, edge)| Shape { services, rate, faults, edge })
}

fn file(shape: &Shape) -> String {
    let mut text =
        String::from("isobar: 1\nplaces: {north: {zones: [a, b]}, south: {zones: [a]}}\nservices:\n");
    let pick = |n: u8, of: &[&str]| of[n as usize % of.len()].to_owned();
    let last = shape.services.len() - 1;
    for (n, it) in shape.services.iter().enumerate() {
        let replicas = 1 + it[0] % 5;
        let concurrency = 1 + it[1] % 6;
        let queue =
            pick(it[2], &["0", "4", "64", "{max: 32, discipline: codel}", "{max: 32, discipline: lifo}"]);
        let work = pick(it[3], &["1ms", "exponential(mean 3ms)", "lognormal(p50 2ms, p99 20ms)", "0"]);
        let errors = pick(it[4], &["0%", "1%", "20%", "100%"]);
        let discovery = pick(it[6], &["region", "everywhere"]);
        let cores = pick(it[6] >> 1, &["", "", "cores: 1, ", "cores: 3, "]);
        let mut calls = String::new();
        for to in n + 1..=last {
            match it[5].wrapping_add(to as u8) % 5 {
                0 => {}
                1 => write!(calls, "s{to} \"op\", ").unwrap(),
                2 => write!(calls, "{{call: s{to} \"op\", optional: true}}, ").unwrap(),
                3 => write!(calls, "{{call: s{to} \"op\", chance: 50%, times: 2}}, ").unwrap(),
                _ => write!(
                    calls,
                    "{{all: [s{to} \"op\", {{call: s{to} \"op\", detached: true}}, {{work: 1ms}}]}}, "
                )
                .unwrap(),
            }
        }
        let kind = match it[7] % 6 {
            0 => "kind: store, store: {copies: 3, consistency: quorum}, ",
            1 => "kind: cache, cache: {keys: 100, capacity: 20}, ",
            _ => "",
        };
        writeln!(
            text,
            "  s{n}: {{{kind}replicas: {replicas}, concurrency: {concurrency}, {cores}queue: {queue}, discovery: {discovery}, operations: {{op: {{work: \"{work}\", errors: {errors}, idempotent: true, request: 1KiB, calls: [{calls}]}}}}}}"
        )
        .unwrap();
    }
    let e = &shape.edge;
    let timeout = pick(e[0], &["none", "5ms", "100ms", "1s"]);
    let retry = pick(
        e[1],
        &[
            "none",
            "{attempts: 3, budget: 20%, on: [5xx, timeout, connect-failure, reset]}",
            "{attempts: 5, budget: none, per_try: 10ms, on: [5xx, timeout], backoff: {base: 1ms, max: 5ms}}",
        ],
    );
    let breaker =
        pick(e[2], &["none", "{failures: 3, pause: 200ms}", "{errors: 50%, requests: 5, window: 1s}"]);
    let hedge = pick(e[3], &["none", "{after: 5ms, copies: 3}"]);
    let balance = pick(e[4], &["round-robin", "least-request", "peak-ewma", "random", "ring-hash", "maglev"]);
    let concurrency = pick(e[5], &["none", "3", "{vegas: {max: 50}}"]);
    let locality = pick(e[6], &["any", "prefer-zone", "prefer-region"]);
    let connections = pick(e[7], &["1", "4", "64"]);
    writeln!(
        text,
        "edges:\n  default: {{timeout: {timeout}, retry: {retry}, breaker: {breaker}, hedge: {hedge}, balance: {balance}, concurrency: {concurrency}, locality: {locality}, connections: {connections}, eject: {{consecutive: 3, interval: 500ms, base: 500ms}}}}"
    )
    .unwrap();
    writeln!(text, "traffic:\n  users: {{to: s0 \"op\", rate: {}/s, from: north}}", shape.rate).unwrap();
    writeln!(text, "  staff: {{to: s0 \"op\", users: 3, think: exponential(mean 20ms)}}").unwrap();
    let mut steps = String::new();
    for it in &shape.faults {
        let service = it[0] as usize % shape.services.len();
        let fault = match it[1] % 11 {
            0 => format!("stop s{service}"),
            1 => format!("stop 50% of s{service}"),
            2 => format!("pause 1 of s{service}"),
            3 => format!("slow s{service} x5"),
            4 => format!("slow s{service} by 20ms"),
            5 => format!("error s{service} 40%"),
            6 => "lose north/a".to_owned(),
            7 => "partition north <-> south".to_owned(),
            8 => "loss north -> south 30%".to_owned(),
            9 => "load x3".to_owned(),
            _ => format!("scale s{service} to {}", 1 + it[2] % 6),
        };
        let at = 300 + u32::from(it[2]) * 5;
        let lasting = 100 + u32::from(it[3]) * 4;
        write!(steps, "{{at: {at}ms, for: {lasting}ms, do: [{fault}]}}, ").unwrap();
    }
    if !shape.faults.is_empty() {
        writeln!(text, "scenarios:\n  trouble: {{steps: [{steps}], lasts: 3s}}").unwrap();
    }
    text
}

fn options(shape: &Shape, threads: u32) -> Options {
    Options {
        runs: 2,
        threads,
        duration: Some(Nanos::from_secs(3)),
        warm_up: Some(Nanos::ZERO),
        scenario: (!shape.faults.is_empty()).then(|| "trouble".to_owned()),
        allow_unstable: true,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 2_000 }))]

    #[test]
    fn nothing_is_lost_and_nothing_is_exceeded(shape in shapes()) {
        let text = file(&shape);
        let plan = plan(&text);
        let forecast = run(&plan, &options(&shape, 1));
        for it in &forecast.runs {
            let tally = it.tally;
            prop_assert_eq!(tally.jobs, tally.ok + tally.failed + tally.cancelled + tally.in_flight, "{}", text);
            prop_assert_eq!(tally.root, tally.root_ok + tally.root_failed + tally.root_in_flight, "{}", text);
            prop_assert_eq!(tally.busy_over_limit, 0, "{}", text);
            prop_assert_eq!(tally.last_ejected, 0, "{}", text);
            prop_assert_eq!(tally.begun_after_cancel, 0, "{}", text);
            for (meter, instance) in it.meters.instances.iter().zip(&plan.instances) {
                let places = u128::from(plan.stations[instance.station as usize].concurrency);
                prop_assert!(meter.busy <= places * 3_000_000_000, "{}", text);
                let cores = u128::from(plan.stations[instance.station as usize].cores.unwrap_or(0));
                prop_assert!(meter.working <= cores * 3_000_000_000, "{}", text);
                prop_assert!(meter.up <= 3_000_000_000);
            }
            for (meter, edge) in it.meters.edges.iter().zip(&plan.edges) {
                let firsts = meter.attempts - meter.retries - meter.hedges;
                let Some(budget) = edge.settings.retry.as_ref().and_then(|it| it.budget) else { continue };
                // The floor is shared by the callers; each keeps at least its whole window of it.
                let callers = f64::from(plan.stations[edge.caller as usize].instances.len());
                let floor = budget.floor.per_second() * (3.0 + budget.window.as_secs_f64());
                let allowed = budget.ratio.fraction() * firsts as f64 + floor + callers;
                prop_assert!(meter.retries as f64 <= allowed, "{} retries of {firsts}: {}", meter.retries, text);
            }
        }
    }

    #[test]
    fn the_same_seed_is_the_same_bytes_on_any_number_of_threads(shape in shapes()) {
        let plan = plan(&file(&shape));
        let [one, two] = [1, 2].map(|threads| {
            Report::of(&run(&plan, &options(&shape, threads))).to_json().to_string()
        });
        prop_assert_eq!(one, two);
    }
}

fn shop(unit: &str) -> String {
    format!(
        r#"
isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  web: {{replicas: 2, concurrency: 2, operations: {{op: {{work: exponential(mean 4{unit}), calls: [db "op"]}}}}}}
  db: {{replicas: 1, concurrency: 4, operations: {{op: "lognormal(p50 2{unit}, p99 9{unit})"}}}}
edges:
  default: {{balance: least-request, eject: none}}
traffic:
"#
    )
}

/// A thousand times slower is the same system: shares and ratios do not move, times are a thousand times longer.
#[test]
fn scaling_time_leaves_ratios_unchanged() {
    let fast = plan(&format!("{}  users: {{to: web \"op\", rate: 400/s}}\n", shop("ms")));
    let slow = plan(&format!("{}  users: {{to: web \"op\", rate: 0.4/s}}\n", shop("s")));
    let options = |secs: u64| Options {
        runs: 2,
        duration: Some(Nanos::from_secs(secs)),
        warm_up: Some(Nanos::ZERO),
        ..Options::default()
    };
    let (fast, slow) = (run(&fast, &options(20)), run(&slow, &options(20_000)));
    for (a, b) in fast.total.operations.iter().zip(&slow.total.operations) {
        assert_eq!((a.arrivals, a.requests.ok), (b.arrivals, b.requests.ok));
        let (a, b) = (a.requests.latency.mean().unwrap_or(0.0), b.requests.latency.mean().unwrap_or(0.0));
        assert!((b / a.max(1e-9) - 1_000.0).abs() < 1.0 || a < 1.0, "{a} {b}");
    }
    for (a, b) in fast.total.instances.iter().zip(&slow.total.instances) {
        let (a, b) = (a.busy as f64, b.busy as f64 / 1_000.0);
        assert!((a - b).abs() <= 1e-3 * a.max(1.0), "{a} {b}");
    }
}

/// A service that nobody calls changes no draw of anybody else.
#[test]
fn an_unused_service_changes_nothing() {
    let with = format!("{}  users: {{to: web \"op\", rate: 400/s}}\n", shop("ms"));
    let without = plan(&with);
    let more = with
        .replace("traffic:", "x-note: more\ntraffic:")
        .replace("  db:", "  spare: {operations: {op: 5ms}}\n  db:");
    let with = plan(&more);
    let options = Options {
        runs: 1,
        duration: Some(Nanos::from_secs(5)),
        warm_up: Some(Nanos::ZERO),
        ..Options::default()
    };
    let (a, b) = (run(&without, &options), run(&with, &options));
    assert_eq!(a.total.loads[0].requests.latency, b.total.loads[0].requests.latency);
}
