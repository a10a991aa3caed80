//! What a system does when something happens to it: shapes that must come out, not digits.

use crate::common::{plan, run};
use sim::{Options, Report, report::ServiceReport};
use units::Nanos;

fn play(text: &str, scenario: Option<&str>, seconds: u64) -> Report {
    let plan = plan(text);
    let options = Options {
        runs: 3,
        threads: 2,
        scenario: scenario.map(str::to_owned),
        duration: Some(Nanos::from_secs(seconds)),
        warm_up: Some(Nanos::ZERO),
        allow_unstable: true,
        ..Options::default()
    };
    Report::of(&run(&plan, &options))
}

#[track_caller]
fn service<'r>(report: &'r Report, name: &str) -> &'r ServiceReport {
    report.services.iter().find(|it| it.name == name).expect("the service is in the file")
}

/// Mean share of requests that fail between two moments of a traffic's series.
fn failing(report: &Report, from: u64, to: u64) -> f64 {
    let inside = |at: Nanos| Nanos::from_secs(from) <= at && at < Nanos::from_secs(to);
    let series = report.traffic[0].series.iter().filter(|it| inside(it.at));
    let (ok, failed) =
        series.fold((0.0, 0.0), |sum, it| (sum.0 + it.ok_per_second, sum.1 + it.failed_per_second));
    failed / (ok + failed).max(1e-9)
}

#[test]
fn a_lost_zone_hurts_until_its_callers_have_learnt_it() {
    let text = r#"
isobar: 1
places: {north: {zones: [a, b, c]}}
services:
  web: {replicas: 3, concurrency: 16, health: {tcp: true, every: 1s, timeout: 1s, unhealthy_after: 2}, operations: {"GET /": {work: 5ms}}}
edges:
  default: {timeout: 500ms, eject: none, balance: round-robin, locality: any}
gateways:
  edge: {listen: "127.0.0.1:8080", routes: [{path: /, to: web}]}
traffic:
  users: {to: edge "GET /", rate: 300/s}
scenarios:
  zone-lost: {at: 10s, for: 20s, do: [lose north/b], expect: [edge availability >= 99%]}
"#;
    let report = play(text, Some("zone-lost"), 40);
    assert_eq!(failing(&report, 0, 10), 0.0);
    let hurt = failing(&report, 10, 12);
    assert!((0.2..0.4).contains(&hurt), "a third goes to the lost zone at first: {hurt}");
    assert!(failing(&report, 14, 30) < 0.001, "then nobody asks it: {}", failing(&report, 14, 30));
    assert!(failing(&report, 33, 40) < 0.001);
    assert!(!report.is_good() && report.objectives.len() == 1);
}

#[test]
fn retries_hide_what_a_lost_zone_breaks() {
    let text = |retry: &str| {
        format!(
            r#"
isobar: 1
places: {{north: {{zones: [a, b, c]}}}}
services:
  web: {{replicas: 3, concurrency: 16, operations: {{"GET /": {{work: 5ms}}}}}}
edges:
  default: {{timeout: 500ms, eject: none, balance: round-robin, locality: any, retry: {retry}}}
gateways:
  edge: {{listen: "127.0.0.1:8080", routes: [{{path: /, to: web}}]}}
traffic:
  users: {{to: edge "GET /", rate: 300/s}}
scenarios:
  stopped: {{at: 5s, do: [stop 1 of web]}}
"#
        )
    };
    let without = play(&text("none"), Some("stopped"), 20);
    let with = play(&text("{attempts: 2, budget: 50%}"), Some("stopped"), 20);
    assert!(failing(&without, 5, 8) > 0.1, "{}", failing(&without, 5, 8));
    assert!(failing(&with, 5, 8) < 0.001, "{}", failing(&with, 5, 8));
}

/// 80 % load, work tripled for five seconds. Retries without a budget keep the queue full of work nobody waits for.
#[test]
fn a_retry_storm_outlives_its_trigger_without_a_budget_and_not_with_one() {
    let text = |budget: &str| {
        format!(
            r#"
isobar: 1
services:
  front: {{operations: {{op: {{work: 0, idempotent: true, calls: [back "op"]}}}}}}
  back: {{concurrency: 10, queue: 400, operations: {{op: {{work: exponential(mean 10ms), idempotent: true}}}}}}
edges:
  default: {{eject: none, connections: 10000}}
  front -> back: {{timeout: 1s, retry: {{attempts: 4, per_try: 200ms, budget: {budget}, on: [timeout, unavailable], backoff: {{base: 1ms, max: 2ms}}}}}}
traffic:
  users: {{to: front "op", rate: 750/s}}
scenarios:
  slow: {{at: 10s, for: 5s, do: [slow back x3]}}
"#
        )
    };
    let without = play(&text("none"), Some("slow"), 60);
    let with = play(&text("{ratio: 10%, floor: 1/s}"), Some("slow"), 60);
    assert_eq!(failing(&without, 0, 10), 0.0);
    assert!(failing(&without, 10, 15) > 0.3);
    assert!(failing(&without, 45, 60) > 0.3, "stuck: {}", failing(&without, 45, 60));
    assert!(failing(&with, 45, 60) < 0.01, "recovered: {}", failing(&with, 45, 60));
}

#[test]
fn a_partition_makes_the_consistency_visible() {
    let text = |consistency: &str| {
        format!(
            r#"
isobar: 1
places: {{east: {{zones: [a]}}, west: {{zones: [a]}}, south: {{zones: [a]}}}}
services:
  db:
    kind: store
    replicas: {{east: 1, west: 1, south: 1}}
    discovery: everywhere
    store: {{copies: 3, consistency: {consistency}}}
    operations: {{read: {{work: 1ms}}, write: {{work: 1ms, writes: true}}}}
edges:
  default: {{eject: none, locality: prefer-zone, timeout: 2s}}
  "* -> db": {{locality: zone-only}}
gateways: {{}}
traffic:
  readers: {{to: app "get", rate: 100/s, from: east}}
  writers: {{to: app "put", rate: 100/s, from: west}}
scenarios:
  split: {{at: 10s, do: [partition east <-> west, partition east <-> south]}}
"#
        )
        .replace(
            "edges:",
            "  app: {replicas: {east: 1, west: 1, south: 1}, operations: {get: {work: 0, calls: [db \"read\"]}, put: {work: 0, calls: [db \"write\"]}}}\nedges:",
        )
        .replace("gateways: {}\n", "")
    };
    let stale = |report: &Report| {
        service(report, "db").operations.iter().map(|it| it.stale_reads_per_second).sum::<f64>()
    };
    let refused = |report: &Report| {
        let causes = service(report, "db").operations.iter().flat_map(|it| &it.requests.errors);
        causes.filter(|it| it.0.word() == "consistency").map(|it| it.1).sum::<f64>()
    };
    let one = play(&text("one"), Some("split"), 30);
    let quorum = play(&text("quorum"), Some("split"), 30);
    assert!(stale(&one) > 10.0 && refused(&one) == 0.0, "{} {}", stale(&one), refused(&one));
    assert!(stale(&quorum) < 0.5 && refused(&quorum) > 10.0, "{} {}", stale(&quorum), refused(&quorum));
}

#[test]
fn an_autoscaled_service_grows_into_its_load() {
    let text = r#"
isobar: 1
services:
  api:
    replicas: 2
    concurrency: 10
    queue: 100
    operations: {op: exponential(mean 20ms)}
    autoscale: {min: 2, max: 10, hpa: {target: 60%, sync: 15s, tolerance: 10%, down_window: 5min}}
edges:
  default: {eject: none, balance: least-request, connections: 10000}
traffic:
  users: {to: api "op", rate: 500/s}
scenarios:
  busier: {at: 30s, do: [load x5]}
"#;
    let report = play(text, Some("busier"), 180);
    assert!(failing(&report, 0, 29) < 0.001);
    assert!(failing(&report, 31, 40) > 0.3, "two of ten cannot: {}", failing(&report, 31, 40));
    assert!(failing(&report, 120, 180) < 0.01, "ten can: {}", failing(&report, 120, 180));
}

#[test]
fn a_flushed_cache_sends_everything_to_the_store() {
    let text = r#"
isobar: 1
services:
  shelf: {kind: cache, cache: {keys: 20000, capacity: 5000, zipf: 1.0}, operations: {get: {work: 0.1ms, calls: [db "read"]}}}
  db: {concurrency: 4, queue: 20, operations: {read: 5ms}}
edges:
  default: {eject: none, timeout: 1s, connections: 10000}
traffic:
  users: {to: shelf "get", rate: 2000/s}
scenarios:
  cold: {at: 20s, do: [flush shelf]}
"#;
    let report = play(text, Some("cold"), 60);
    assert!(failing(&report, 10, 19) < 0.001);
    assert!(failing(&report, 20, 21) > 0.05, "{}", failing(&report, 20, 21));
    assert!(failing(&report, 50, 60) < 0.001);
}

#[test]
fn consumers_of_a_topic_lag_and_catch_up() {
    let text = r#"
isobar: 1
services:
  placed: {kind: queue, topic: {partitions: 4, consumers: [mailer "send"]}, operations: {publish: 0.5ms}}
  mailer: {concurrency: 4, operations: {send: 10ms}}
edges:
  default: {eject: none}
traffic:
  users: {to: placed "publish", rate: 200/s}
scenarios:
  stalled: {at: 5s, for: 10s, do: [pause mailer]}
"#;
    let report = play(text, Some("stalled"), 60);
    let consumer = &report.consumers[0];
    assert!((1_500..2_500).contains(&consumer.lag_max), "ten seconds at 200/s: {}", consumer.lag_max);
    let (published, delivered) = (consumer.published_per_second.value, consumer.delivered_per_second.value);
    assert!((published - delivered).abs() < 5.0, "{published} {delivered}");
}

#[test]
fn an_overload_without_bound_is_refused_by_name() {
    let text = "isobar: 1\nservices:\n  audio: {concurrency: 1, queue: unbounded, operations: {op: 10ms}}\ntraffic:\n  users: {to: audio \"op\", rate: 170/s}\n";
    for bound in ["concurrency: 1, queue: unbounded", "cores: 1"] {
        let text = text.replace("concurrency: 1, queue: unbounded", bound);
        let plan = plan(&text);
        let error = sim::forecast(&plan, &Options::default(), &|_| true).unwrap_err().to_string();
        assert!(error.contains("`audio` has utilisation 1.7 at 170/s: "), "{bound}: {error}");
        assert!(error.contains("grows without end"), "{bound}: {error}");
    }
}

#[test]
fn a_stopped_forecast_says_so() {
    let text = "isobar: 1\nservices:\n  api: {operations: {op: 1ms}}\ntraffic:\n  users: {to: api \"op\", rate: 500/s}\n";
    let plan = plan(text);
    let options =
        Options { warm_up: Some(Nanos::ZERO), duration: Some(Nanos::from_secs(600)), ..Options::default() };
    let forecast = sim::forecast(&plan, &options, &|progress| progress.runs_done < 1).unwrap();
    assert!(forecast.partial && forecast.runs.len() == 1);
    assert!(Report::of(&forecast).to_json()["partial"].as_bool().unwrap());
}

fn p50_ms(report: &Report) -> f64 {
    report.traffic[0].requests.latency.p50.value * 1e3
}

#[test]
fn names_expire_and_then_a_resolver_that_is_gone_is_missed() {
    let text = r#"
isobar: 1
network: {dns: {ttl: 10s, latency: 2ms}}
services:
  web: {replicas: 2, operations: {op: {work: 1ms, calls: [db "read"]}}}
  db: {operations: {read: 1ms}}
edges: {default: {eject: none, timeout: none}}
traffic: {users: {to: web "op", rate: 200/s}}
scenarios: {resolver-lost: {at: 12s, for: 20s, do: [fail dns], lasts: 60s}}
"#;
    let report = play(text, Some("resolver-lost"), 60);
    // Looked up at 0, 10 and then not at 20 any more: what was known holds until then. A look-up gives up after five seconds.
    assert!(failing(&report, 0, 20) < 0.001, "{}", failing(&report, 0, 20));
    assert!(failing(&report, 26, 32) > 0.95, "{}", failing(&report, 26, 32));
    assert!(failing(&report, 38, 60) < 0.001, "{}", failing(&report, 38, 60));
    assert!(report.verdict.headline.contains("`fail dns`"), "{}", report.verdict.headline);
    let causes: Vec<&str> =
        report.edges.iter().flat_map(|it| &it.calls.errors).map(|it| it.0.word()).collect();
    assert!(causes.contains(&"dns"), "{causes:?}");
}

/// A caller that asks now and then pays the handshake each time; one that asks all the time keeps its connection.
#[test]
fn a_secured_connection_costs_its_handshake_once() {
    let text = |tls: &str, rate: &str| {
        format!(
            r#"
isobar: 1
network: {{in-zone: {{rtt: 10ms, jitter: 0%}}{tls}}}
services:
  web: {{operations: {{op: {{work: 0, calls: [db "read"]}}}}}}
  db: {{operations: {{read: 1ms}}}}
edges: {{default: {{eject: none}}}}
traffic: {{users: {{to: web "op", rate: {rate}, arrivals: constant}}}}
"#
        )
    };
    // Two round trips of 10 ms and a millisecond of work; secured, one more round trip and the handshake's own 4 ms.
    let tls = ", tls: {handshake: 4ms}";
    let median = |tls: &str, rate: &str, seconds: u64| p50_ms(&play(&text(tls, rate), None, seconds));
    for (tls, rate, seconds, expected) in
        [("", "40/h", 3_600, 21.0), (tls, "40/h", 3_600, 35.0), (tls, "20/s", 20, 21.0)]
    {
        let found = median(tls, rate, seconds);
        assert!((found - expected).abs() < 0.5, "{tls} {rate}: {found} ms for {expected}");
    }
}

/// Users who are in no place come over the internet; in a file without places they are where its services are, and nobody
/// pays for the way.
#[test]
fn users_outside_are_far_away_and_users_of_no_place_are_not() {
    let text = |places: &str, network: &str| {
        format!(
            r#"
isobar: 1
{places}
network: {{in-zone: {{rtt: 0, jitter: 0%}}{network}}}
services:
  web: {{operations: {{op: {{work: 1ms, response: 1MB}}}}}}
traffic: {{users: {{to: web "op", rate: 50/s}}}}
"#
        )
    };
    let places = "places: {north: {zones: [a]}}";
    // A megabyte at a hundred megabits is 80 ms.
    for (places, network, milliseconds, paid) in [
        ("", "", 1.8, false),
        (places, "", 1.0 + 40.0 + 80.0, true),
        (places, ", internet: {rtt: 10ms, jitter: 0%, bandwidth: 1GB/s}", 1.0 + 10.0 + 1.0, true),
    ] {
        let report = play(&text(places, network), None, 20);
        let found = p50_ms(&report);
        assert!((found - milliseconds).abs() < 0.05 * milliseconds, "{places} {network}: {found} ms");
        assert_eq!(report.cost.transfer > 0.0, paid, "{places}: {:?}", report.cost);
    }
}

/// Each fallacy, where the file lets it: assumed, or doubted where the file assumes it by itself, it changes something.
#[test]
fn every_fallacy_hides_something() {
    use sim::Fallacy;
    let text = r#"
isobar: 1
places: {north: {zones: [a, b]}, south: {zones: [a]}}
services:
  web: {replicas: 3, concurrency: 8, operations: {op: {work: 1ms, response: 64KiB, calls: [db "read", bank "pay"]}}}
  db: {kind: store, replicas: 3, discovery: everywhere, operations: {read: {work: 1ms, response: 64KiB}}}
  bank: {kind: external, operations: {pay: 5ms}}
edges: {default: {timeout: 1s, locality: any}}
traffic: {users: {to: web "op", rate: 50/s, from: north}}
"#;
    let base = play(text, None, 60);
    let told = |it: &Report| {
        (
            p50_ms(it),
            it.traffic[0].requests.latency.p999.value,
            it.traffic[0].requests.availability.value,
            it.cost.per_month,
        )
    };
    for (fallacy, name) in Fallacy::ALL {
        let options = Options {
            runs: 3,
            threads: 2,
            duration: Some(Nanos::from_secs(60)),
            warm_up: Some(Nanos::ZERO),
            allow_unstable: true,
            ..Options::default()
        };
        let mut assumed = plan(text);
        fallacy.assume(&mut assumed);
        let with = Report::of(&run(&assumed, &options));
        let mut doubted = plan(text);
        let doubt = fallacy.doubt(&mut doubted, None);
        let without = Report::of(&run(&doubted, &Options { scenario: doubt.scenario, ..options }));
        assert!(told(&with) != told(&base) || told(&without) != told(&base), "{name} hides nothing");
        let better = |a: f64, b: f64| a <= b + 1e-9;
        assert!(
            better(told(&with).0, told(&without).0 * 1.02) && better(told(&without).2, told(&with).2),
            "{name} is no naive thing to assume: {:?} {:?}",
            told(&with),
            told(&without)
        );
    }
}
