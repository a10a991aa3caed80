//! Verdicts: what was done, what broke first because of it, and changes that were tried before they were suggested.

use crate::common::{plan, run};
use sim::advice::advise;
use sim::report::Finding;
use sim::{Options, Report};
use units::Nanos;

fn advised(text: &str, scenario: Option<&str>, load: f64) -> Report {
    let plan = plan(text);
    let mut options = Options {
        runs: 3,
        threads: 2,
        scenario: scenario.map(str::to_owned),
        duration: Some(Nanos::from_secs(40)),
        warm_up: Some(Nanos::ZERO),
        allow_unstable: true,
        ..Options::default()
    };
    options.bias.load = load;
    let forecast = run(&plan, &options);
    let mut report = Report::of(&forecast);
    advise(&forecast, &mut report, &|_| true);
    report
}

/// The first finding's words, and what is suggested (or that nothing is).
#[track_caller]
fn check(report: &Report, what: &[&str], change: Option<&str>) {
    let first: &Finding = report.verdict.findings.first().expect("something is wrong");
    for words in what {
        assert!(report.verdict.headline.contains(words), "{words:?} is not in {first:#?}");
    }
    match (change, &first.change) {
        (None, None) => {}
        (Some(words), Some(change)) => assert!(change.text.contains(words), "{words:?} is not in {first:#?}"),
        _ => panic!("{change:?} is not what is suggested in {:#?}", report.verdict),
    }
}

const CHAIN: &str = r#"
isobar: 1
services:
  web: {replicas: 4, concurrency: 64, operations: {"GET /": {work: 1ms, calls: [cart "read"]}}}
  cart: {replicas: 4, concurrency: 16, operations: {read: {work: 1ms, calls: [db "read"]}}}
  db: {replicas: 3, concurrency: 8, health: {tcp: true, every: 4s, unhealthy_after: 3}, operations: {read: {work: exponential(mean 4ms), idempotent: true}}}
edges: {default: {timeout: 1s, eject: none}, "* -> db": {timeout: 300ms, balance: round-robin}}
gateways: {edge: {listen: "127.0.0.1:8080", routes: [{path: /, to: web}]}}
traffic: {users: {to: edge "GET /", rate: 400/s}}
scenarios:
  db-gone: {at: 10s, for: 10s, do: [stop 1 of db], expect: [edge availability >= 99.9%], lasts: 40s}
  db-breaks: {at: 10s, do: [error db 100%], expect: [edge availability >= 50%], lasts: 40s}
  surge: {at: 10s, for: 10s, do: [load x20], expect: [edge availability >= 99.9%], lasts: 40s}
"#;

#[test]
fn the_fault_is_named_and_what_broke_first_is_furthest_down() {
    let report = advised(CHAIN, Some("db-gone"), 1.0);
    // A retry budget of a fifth cannot make up for a third that fails; learning it sooner can.
    check(
        &report,
        &["`stop 1 of db` at 10 s", "from `cart` to `db` fail first"],
        Some("health checks of `db`"),
    );
    let change = report.verdict.findings[0].change.as_ref().unwrap();
    assert!(change.effect.contains("answered"), "{change:?}");
}

/// Retries of what fails every time would only make it worse, and nothing else helps either but to do without.
#[test]
fn a_change_that_does_not_help_is_not_suggested() {
    let report = advised(CHAIN, Some("db-breaks"), 1.0);
    check(&report, &["`error db 100%`", "its own errors"], Some("optional"));
    assert!(report.verdict.findings[0].tried >= 2, "{:?}", report.verdict.findings[0]);
}

#[test]
fn too_little_is_answered_with_more_replicas_and_their_price() {
    let text = r#"
isobar: 1
services:
  api: {replicas: 2, concurrency: 1, queue: 20, price: $0.10, operations: {op: exponential(mean 10ms)}, slo: {availability: 99.9%}}
edges: {default: {balance: least-request, eject: none, connections: 1000}}
traffic: {users: {to: api "op", rate: 100/s}}
"#;
    let report = advised(text, None, 3.0);
    check(&report, &["`api` refuses", "its queue is full"], Some("replicas instead of 2"));
    let change = report.verdict.findings[0].change.as_ref().unwrap();
    // At 300/s three places are full all of the time, four hold; each costs 73 dollars a month.
    let cost = change.cost_per_month.unwrap();
    assert!((100.0..600.0).contains(&cost) && change.effect.contains("holds"), "{change:?}");
}

#[test]
fn the_limit_that_binds_first_is_named_whatever_it_is() {
    let text = |edge: &str| {
        format!(
            r#"
isobar: 1
services:
  web: {{replicas: 2, operations: {{op: {{work: 1ms, calls: [api "op"]}}}}}}
  api: {{replicas: 2, concurrency: 40, operations: {{op: fixed(50ms)}}}}
edges: {{default: {{eject: none, balance: round-robin}}, "* -> web": {{connections: 100000}}, web -> api: {{{edge}}}}}
traffic: {{users: {{to: web "op", rate: 40/s}}}}
"#
        )
    };
    for (edge, words) in [
        // 20/s for 50 ms each is one request of each caller at once, half of it at each of two instances of forty places.
        ("connections: 64", "`api` would break first, at about"),
        ("connections: 2", "the connections of `web -> api` would break first, at about"),
        (
            "connections: 64, concurrency: 12",
            "the concurrency limit of `web -> api` would break first, at about",
        ),
        (
            "connections: 64, rate_limit: 25/s",
            "the rate limit of `web -> api` would break first, at about 1.",
        ),
    ] {
        let headline = advised(&text(edge), None, 1.0).verdict.headline;
        assert!(headline.contains(words), "{edge}: {headline}");
    }
}

/// The story of a surge: it begins, people feel it, it ends, people do not feel it any more; in this order.
#[test]
fn the_time_line_tells_cause_before_effect() {
    let report = advised(CHAIN, Some("surge"), 1.0);
    let lines: Vec<String> =
        report.timeline.iter().map(|it| format!("{:.0} {}", it.at.as_secs_f64(), it.text)).collect();
    let at = |words: &str| {
        lines.iter().position(|it| it.contains(words)).unwrap_or_else(|| panic!("no {words:?} in {lines:#?}"))
    };
    assert!(lines.iter().any(|it| it.starts_with("10 `load x20` begins")), "{lines:#?}");
    assert!(at("begins") < at("% fail") && at("% fail") < at("`load x20` ends"), "{lines:#?}");
    assert!(at("% fail") < at("fewer than 1 % fail again"), "{lines:#?}");
}
