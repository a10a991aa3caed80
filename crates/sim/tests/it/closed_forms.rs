//! Forecasts of whole files against what queueing theory says, within three standard errors of twenty runs.
//!
//! In a debug build these are quick checks; in a release build the same tests run twenty-four times longer, so the same three
//! standard errors are some five times tighter (`cargo test --release -p sim --test it closed_forms`).

use crate::common::{plan, run};
use sim::{Bias, Forecast, Options, meter::Meters, stats};
use units::Nanos;

const RUNS: u32 = 20;
/// Simulated seconds a run. Work is measured in milliseconds, so even this is thousands of requests.
const SECONDS: u64 = if cfg!(debug_assertions) { 5 } else { 120 };
const LOADS: [f64; 3] = [0.5, 0.8, 0.95];

/// One service `api`, with no network in the way, and connections enough that nobody waits before the queue under test.
fn one_service(service: &str, traffic: &str) -> String {
    one_service_with(service, traffic, "eject: none")
}

fn one_service_with(service: &str, traffic: &str, edge: &str) -> String {
    format!(
        "isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  api: {{{service}}}
edges:
  default: {{connections: 100000, {edge}}}
traffic:
  users: {{to: api \"read\", {traffic}}}
"
    )
}

fn options() -> Options {
    Options {
        seed: 1,
        runs: RUNS,
        threads: 2,
        duration: Some(Nanos::from_secs(SECONDS)),
        warm_up: Some(Nanos::from_secs(if cfg!(debug_assertions) { 4 } else { 20 })),
        ..Options::default()
    }
}

/// How far the mean of the runs is from `exact`, in standard errors.
fn distance(forecast: &Forecast<'_>, exact: f64, of: impl Fn(&Meters) -> f64) -> f64 {
    let values: Vec<f64> = forecast.runs.iter().map(|it| of(&it.meters)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    // A value that is the same in every run has no standard error; then only rounding may separate it from the exact one.
    let error = stats::standard_error(&values).max(exact.abs() * 1e-9);
    (mean - exact) / error
}

#[track_caller]
fn agrees(what: &str, forecast: &Forecast<'_>, exact: f64, of: impl Fn(&Meters) -> f64) {
    let distance = distance(forecast, exact, of);
    assert!(distance.abs() <= 3.0, "{what}: {distance:.2} standard errors from {exact}");
}

fn mean_ms(meters: &Meters) -> f64 {
    meters.loads[0].requests.latency.mean().unwrap_or(0.0) / 1e6
}

fn quantile_ms(q: f64) -> impl Fn(&Meters) -> f64 {
    move |meters| meters.loads[0].requests.latency.quantile(q).map_or(0.0, Nanos::as_millis_f64)
}

fn wait_ms(meters: &Meters) -> f64 {
    meters.operations[0].waiting.mean().unwrap_or(0.0) / 1e6
}

/// Mean number at the first service's instances, by the integrals.
fn present(instances: std::ops::Range<usize>) -> impl Fn(&Meters) -> f64 {
    let nanos = SECONDS as f64 * 1e9;
    move |meters| {
        meters.instances[instances.clone()].iter().map(|it| (it.busy + it.waiting) as f64).sum::<f64>()
            / nanos
    }
}

fn lost_share(meters: &Meters) -> f64 {
    let requests = &meters.operations[0].requests;
    requests.failures.total() as f64 / requests.total() as f64
}

#[test]
fn closed_forms_mm1_mean_quantiles_and_littles_law() {
    for rho in LOADS {
        let text = one_service(
            "concurrency: 1, queue: unbounded, operations: {read: exponential(mean 1ms)}",
            &format!("rate: {}/s", rho * 1_000.0),
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let mean = 1.0 / (1.0 - rho);
        agrees(&format!("M/M/1 {rho} mean"), &forecast, mean, mean_ms);
        agrees(&format!("M/M/1 {rho} number"), &forecast, rho / (1.0 - rho), present(0..1));
        for q in [0.5, 0.9, 0.99] {
            if cfg!(debug_assertions) && rho > 0.9 && q > 0.9 {
                continue; // A few seconds hold too few of the long busy periods that make this tail.
            }
            // By the share beyond the exact quantile: a mean over requests, so it is unbiased however short the runs.
            let limit = Nanos::from_secs_f64(-(1.0f64 - q).ln() * mean / 1e3);
            agrees(&format!("M/M/1 {rho} share beyond p{q}"), &forecast, 1.0 - q, |meters| {
                let latency = &meters.loads[0].requests.latency;
                1.0 - latency.count_at_most(limit) as f64 / latency.count() as f64
            });
        }
    }
}

/// The alarm rings: two percent more work than the file says is noticed.
#[test]
fn closed_forms_notice_an_engine_that_is_two_percent_off() {
    let text = one_service(
        "concurrency: 1, queue: unbounded, operations: {read: exponential(mean 1ms)}",
        "rate: 800/s",
    );
    let plan = plan(&text);
    let long = Options { duration: Some(Nanos::from_secs(SECONDS.max(60))), ..options() };
    let honest = run(&plan, &long);
    agrees("unbiased", &honest, 5.0, mean_ms);
    let biased = run(&plan, &Options { bias: Bias { work: 1.02, ..Bias::default() }, ..long });
    let distance = distance(&biased, 5.0, mean_ms);
    assert!(distance > 3.0, "2 % more work went unnoticed: {distance:.2} standard errors");
}

#[test]
fn closed_forms_mm1k_loss() {
    for rho in LOADS {
        for k in [1, 5, 20] {
            let text = one_service(
                &format!("concurrency: 1, queue: {}, operations: {{read: exponential(mean 1ms)}}", k - 1),
                &format!("rate: {}/s", rho * 1_000.0),
            );
            let plan = plan(&text);
            let forecast = run(&plan, &options());
            let exact = (1.0 - rho) * rho.powi(k) / (1.0 - rho.powi(k + 1));
            if exact > 1e-4 {
                agrees(&format!("M/M/1/{k} {rho} loss"), &forecast, exact, lost_share);
            }
        }
    }
}

fn erlang_b(servers: u32, offered: f64) -> f64 {
    (1..=servers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b))
}

#[test]
fn closed_forms_mmc_waiting() {
    for rho in LOADS {
        let servers = 4;
        let text = one_service(
            "concurrency: 4, queue: unbounded, operations: {read: exponential(mean 4ms)}",
            &format!("rate: {}/s", rho * 1_000.0),
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let b = erlang_b(servers, rho * f64::from(servers));
        let c = b / (1.0 - rho * (1.0 - b));
        let rest = 1.0 - rho; // cµ − λ, per millisecond
        agrees(&format!("M/M/4 {rho} wait"), &forecast, c / rest, wait_ms);
        let late = Nanos::from_millis(3);
        agrees(
            &format!("M/M/4 {rho} share that waits over 3 ms"),
            &forecast,
            c * (-rest * 3.0).exp(),
            |meters| {
                let waiting = &meters.operations[0].waiting;
                1.0 - waiting.count_at_most(late) as f64 / waiting.count() as f64
            },
        );
    }
}

#[test]
fn closed_forms_mgcc_loss_is_erlang_b_whatever_the_law() {
    for law in ["exponential(mean 4ms)", "fixed(4ms)", "hyper(mean 4ms, cv 3)"] {
        for rho in LOADS {
            let text = one_service(
                &format!("concurrency: 4, queue: 0, operations: {{read: \"{law}\"}}"),
                &format!("rate: {}/s", rho * 1_000.0),
            );
            let plan = plan(&text);
            let forecast = run(&plan, &options());
            agrees(&format!("M/G/4/4 {law} {rho}"), &forecast, erlang_b(4, 4.0 * rho), lost_share);
        }
    }
}

#[test]
fn closed_forms_mg_infinite_number_present() {
    for law in ["exponential(mean 20ms)", "lognormal(p50 10ms, p99 50ms)"] {
        let text = one_service(&format!("operations: {{read: \"{law}\"}}"), "rate: 400/s");
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let mean = law.parse::<units::Dist>().unwrap().mean_nanos() / 1e9;
        agrees(&format!("M/G/∞ {law}"), &forecast, 400.0 * mean, present(0..1));
    }
}

#[test]
fn closed_forms_mg1_pollaczek_khinchine() {
    for law in [
        "fixed(1ms)",
        "uniform(0.5ms, 1.5ms)",
        "gamma(mean 1ms, cv 0.5)",
        "lognormal(p50 0.8ms, p99 4ms)",
        "weibull(mean 1ms, shape 0.7)",
        "hyper(mean 1ms, cv 2)",
    ] {
        let dist: units::Dist = law.parse().unwrap();
        let mean = dist.mean_nanos() / 1e6;
        for rho in LOADS {
            if cfg!(debug_assertions) && rho > 0.9 && dist.squared_cv().is_some_and(|it| it > 1.5) {
                continue; // So variable and so full, a few seconds say nothing; the long run covers it.
            }
            let rate = rho / mean * 1_000.0;
            let text = one_service(
                &format!("concurrency: 1, queue: unbounded, operations: {{read: \"{law}\"}}"),
                &format!("rate: {rate:.3}/s"),
            );
            let plan = plan(&text);
            let forecast = run(&plan, &options());
            let exact = rho / (1.0 - rho) * (1.0 + dist.squared_cv().unwrap()) / 2.0 * mean;
            agrees(&format!("M/G/1 {law} {rho} wait"), &forecast, exact, wait_ms);
        }
    }
}

#[test]
fn closed_forms_two_priorities_without_preemption() {
    for rho in LOADS {
        let half = rho * 500.0;
        let text = format!(
            r#"
isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  api:
    concurrency: 1
    queue: unbounded
    operations:
      first: {{work: exponential(mean 1ms), priority: critical}}
      second: {{work: exponential(mean 1ms), priority: sheddable}}
edges: {{default: {{connections: 100000}}}}
traffic:
  a: {{to: api "first", rate: {half}/s}}
  b: {{to: api "second", rate: {half}/s}}
"#
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        // W₀ = ½ Σ λ E[S²] = ρ·1 ms for exponential work of 1 ms.
        let (w0, s1) = (rho, 0.5 * rho);
        let wait = |n: usize| move |meters: &Meters| meters.operations[n].waiting.mean().unwrap_or(0.0) / 1e6;
        agrees(&format!("first class {rho}"), &forecast, w0 / (1.0 - s1), wait(0));
        agrees(&format!("second class {rho}"), &forecast, w0 / ((1.0 - s1) * (1.0 - rho)), wait(1));
    }
}

/// Callers who give up after T: a customer is lost if the work in front of it is more than T. The density of the work
/// found is λp₀e^(−(µ−λ)x) up to T and falls by e^(−µ(x−T)) beyond, which fixes p₀.
#[test]
fn closed_forms_patience_of_fixed_length() {
    for rho in [0.5, 0.8, 0.95, 1.3] {
        let patience = 4.0;
        let text = one_service_with(
            "concurrency: 1, queue: unbounded, operations: {read: exponential(mean 1ms)}",
            &format!("rate: {}/s", rho * 1_000.0),
            "timeout: 4ms, eject: none",
        );
        let plan = plan(&text);
        let forecast = run(&plan, &Options { allow_unstable: true, ..options() });
        let tail = (-(1.0f64 - rho) * patience).exp();
        let p0 = 1.0 / (1.0 + rho * (1.0 - tail) / (1.0 - rho) + rho * tail);
        let lost = p0 * rho * tail;
        agrees(&format!("M/M/1 with patience {rho}"), &forecast, lost, |meters| {
            let operation = &meters.operations[0];
            1.0 - operation.waiting.count() as f64 / operation.arrivals as f64
        });
    }
}

#[test]
fn closed_forms_jackson_network_with_feedback() {
    for rho in LOADS {
        // λ₁ = γ + 0.2 λ₂, λ₂ = 0.5 λ₁: λ₁ = γ/0.9. Detached calls, so that nobody holds a place while others work.
        let gamma = rho * 900.0;
        let text = format!(
            r#"
isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  one:
    concurrency: 1
    queue: unbounded
    operations:
      read: {{work: exponential(mean 1ms), calls: [{{call: two "read", chance: 50%, detached: true}}]}}
  two:
    concurrency: 1
    queue: unbounded
    operations:
      read: {{work: exponential(mean 1.5ms), calls: [{{call: one "read", chance: 20%, detached: true}}]}}
edges: {{default: {{connections: 100000}}}}
traffic:
  users: {{to: one "read", rate: {gamma:.3}/s}}
"#
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let second = 0.5 * rho * 1.5;
        agrees(&format!("Jackson {rho} first"), &forecast, rho / (1.0 - rho), present(0..1));
        agrees(&format!("Jackson {rho} second"), &forecast, second / (1.0 - second), present(1..2));
    }
}

#[test]
fn closed_forms_closed_network_by_mean_value_analysis() {
    for users in [1u32, 4, 12] {
        let text = format!(
            r#"
isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  front:
    operations:
      read: {{work: 0, calls: [one "read", two "read"]}}
  one: {{concurrency: 1, queue: unbounded, operations: {{read: exponential(mean 1ms)}}}}
  two: {{concurrency: 1, queue: unbounded, operations: {{read: exponential(mean 2ms)}}}}
traffic:
  users: {{to: front "read", users: {users}, think: exponential(mean 5ms)}}
"#
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let (demands, think) = ([1.0, 2.0], 5.0);
        let mut queues = [0.0; 2];
        let (mut response, mut throughput) = (0.0, 0.0);
        for n in 1..=users {
            let residence = [demands[0] * (1.0 + queues[0]), demands[1] * (1.0 + queues[1])];
            response = residence[0] + residence[1];
            throughput = f64::from(n) / (think + response);
            queues = [throughput * residence[0], throughput * residence[1]];
        }
        agrees(&format!("MVA {users} response"), &forecast, response, mean_ms);
        agrees(&format!("MVA {users} throughput"), &forecast, throughput, |meters| {
            meters.loads[0].requests.total() as f64 / (SECONDS as f64 * 1e3)
        });
    }
}

#[test]
fn closed_forms_fork_join_of_two() {
    for rho in LOADS {
        let text = format!(
            r#"
isobar: 1
network: {{in-zone: {{rtt: 0, jitter: 0%}}}}
services:
  front:
    operations:
      read: {{work: 0, calls: [{{all: [one "read", two "read"]}}]}}
  one: {{concurrency: 1, queue: unbounded, operations: {{read: exponential(mean 1ms)}}}}
  two: {{concurrency: 1, queue: unbounded, operations: {{read: exponential(mean 1ms)}}}}
traffic:
  users: {{to: front "read", rate: {}/s}}
"#,
            rho * 1_000.0
        );
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        agrees(&format!("fork-join {rho}"), &forecast, (12.0 - rho) / 8.0 / (1.0 - rho), mean_ms);
    }
}

#[test]
fn closed_forms_fan_out_takes_the_slowest_of_k() {
    let text = r#"
isobar: 1
network: {in-zone: {rtt: 0, jitter: 0%}}
services:
  front:
    operations:
      read: {work: 0, calls: [{all: [leaf "read", leaf "read", leaf "read", leaf "read"]}]}
  leaf: {operations: {read: exponential(mean 10ms)}}
traffic:
  users: {to: front "read", rate: 200/s}
"#;
    let plan = plan(text);
    let forecast = run(&plan, &options());
    // The mean of the largest of four exponentials is the mean times 1 + ½ + ⅓ + ¼.
    agrees("fan-out mean", &forecast, 10.0 * 25.0 / 12.0, mean_ms);
    for q in [0.5f64, 0.99] {
        let exact = -10.0 * (1.0 - q.powf(0.25)).ln();
        agrees(&format!("fan-out p{q}"), &forecast, exact, quantile_ms(q));
    }
}

#[test]
fn closed_forms_mean_attempts_of_retries() {
    for (errors, attempts) in [(10, 2), (30, 4), (50, 4)] {
        let text = format!(
            "retry: {{attempts: {attempts}, budget: none, on: [5xx], backoff: {{base: 1us, max: 1us}}}}, eject: none"
        );
        let service = format!("operations: {{read: {{work: 1ms, errors: {errors}%}}}}");
        let text = one_service_with(&service, "rate: 500/s", &text);
        let plan = plan(&text);
        let forecast = run(&plan, &options());
        let p = f64::from(errors) / 100.0;
        let exact = (1.0 - p.powi(attempts)) / (1.0 - p);
        agrees(&format!("attempts at {errors} %"), &forecast, exact, |meters| {
            let edge = &meters.edges[0];
            edge.attempts as f64 / (edge.attempts - edge.retries) as f64
        });
    }
}

/// Of two instances drawn the one with fewer requests: E[T] = Σ ρ^(2^i − 2) for very many instances. With 200 it is
/// some half a percent longer at 0.9, so the bound allows two percent beside the noise.
#[test]
fn closed_forms_power_of_two_choices() {
    for (rho, exact) in [(0.5, 1.265_7), (0.8, 1.947_4), (0.9, 2.614_0)] {
        let text = one_service_with(
            "replicas: 200, concurrency: 1, queue: unbounded, operations: {read: exponential(mean 100ms)}",
            &format!("rate: {}/s", rho * 2_000.0),
            "balance: least-request, eject: none",
        );
        let plan = plan(&text);
        let forecast = run(&plan, &Options { runs: 8, ..options() });
        let means: Vec<f64> = forecast.runs.iter().map(|it| mean_ms(&it.meters) / 100.0).collect();
        let mean = means.iter().sum::<f64>() / means.len() as f64;
        let slack = 3.0 * stats::standard_error(&means) + 0.02 * exact;
        assert!((mean - exact).abs() <= slack, "power of two choices {rho}: {mean} for {exact} ± {slack}");
    }
}
