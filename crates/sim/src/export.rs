//! A forecast in the formats of others: spigo's own outputs, and what today's tools read.
//!
//! Everything is made from the [`Report`], so an export can say nothing the report does not.

use crate::report::{Report, RequestsReport};
use serde_json::{Value, json};
use std::fmt::Write as _;
use units::{Nanos, Purpose, Rng};

/// The kinds, as the command line names them.
pub const KINDS: &[&str] = &["graph", "histograms", "guesstimate", "prometheus"];

/// `None` for a kind there is not.
pub fn export(report: &Report, kind: &str) -> Option<String> {
    match kind {
        "graph" => Some(graph(report)),
        "histograms" => Some(histograms(report)),
        "guesstimate" => Some(guesstimate(report)),
        "prometheus" => Some(prometheus(report)),
        _ => None,
    }
}

/// Records of nodes and edges with the moment they came and what passed through them. Time is simulated time.
fn graph(report: &Report) -> String {
    let mut records: Vec<Value> = Vec::new();
    let begin = "1970-01-01T00:00:00Z";
    for it in &report.instances {
        records.push(json!({"node": format!("{}.{}.{}", report.system, it.place.replace('/', "."), it.name), "service": it.service, "timestamp": begin,
            "rate_per_s": it.rate.value, "failed_per_s": it.failed_per_second, "utilisation": it.utilisation.map(|it| it.value)}));
    }
    for (n, it) in report.edges.iter().enumerate() {
        records.push(json!({"edge": format!("e{}", n + 1), "source": it.from, "target": it.to, "operation": it.operation, "timestamp": begin,
            "rate_per_s": it.calls.rate.value, "availability": it.calls.availability.value, "p99_ms": it.calls.latency.p99.value * 1e3}));
    }
    let document = json!({"arch": report.system, "version": "isobar-1", "seed": report.seed, "scenario": report.scenario, "graph": records});
    format!("{document:#}\n")
}

/// Everything that has a latency: `(what, name, its requests)`.
fn all(report: &Report) -> Vec<(&'static str, String, &RequestsReport)> {
    let mut found = Vec::new();
    report.traffic.iter().for_each(|it| found.push(("traffic", it.name.clone(), &it.requests)));
    report.services.iter().for_each(|it| found.push(("service", it.name.clone(), &it.requests)));
    for service in &report.services {
        let operations = service.operations.iter();
        operations
            .for_each(|it| found.push(("operation", format!("{} {}", service.name, it.name), &it.requests)));
    }
    let edges = report.edges.iter();
    edges
        .for_each(|it| found.push(("edge", format!("{} -> {} {}", it.from, it.to, it.operation), &it.calls)));
    found
}

/// One line a bucket: what, name, bounds in nanoseconds, how many.
fn histograms(report: &Report) -> String {
    let mut text = String::from("what,name,from_ns,to_ns,count\n");
    for (what, name, requests) in all(report) {
        for bucket in requests.latency.histogram.buckets() {
            let name = name.replace('"', "\"\"");
            let _ = writeln!(
                text,
                "{what},\"{name}\",{},{},{}",
                bucket.low.as_u64(),
                bucket.high.as_u64(),
                bucket.count
            );
        }
    }
    text
}

/// Guesstimate's grid is 26 columns by 26 rows, and a thousand samples each are what it takes.
const GRID: usize = 26;
const SAMPLES: u64 = 1_000;

/// A space of samples, a metric for each service and traffic, in milliseconds.
fn guesstimate(report: &Report) -> String {
    let chosen: Vec<_> = all(report)
        .into_iter()
        .filter(|(what, _, it)| {
            (*what == "traffic" || *what == "service") && !it.latency.histogram.is_empty()
        })
        .take(GRID * GRID)
        .collect();
    let (mut metrics, mut guesses) = (Vec::new(), Vec::new());
    for (n, (_, name, requests)) in chosen.into_iter().enumerate() {
        let letter = |n: usize| char::from(b'A' + (n % GRID) as u8);
        let id = format!("{}{}", letter(n / GRID), letter(n));
        let mut rng = Rng::stream(report.seed, n as u64, Purpose::Sampling);
        let data: Vec<f64> = (0..SAMPLES.min(requests.latency.histogram.count()))
            .filter_map(|_| requests.latency.histogram.quantile(rng.unit()))
            .map(Nanos::as_millis_f64)
            .collect();
        metrics.push(json!({"id": id, "readableId": id, "name": name, "location": {"row": n / GRID + 1, "column": n % GRID + 1}}));
        guesses.push(json!({"metric": id, "input": "", "guesstimateType": "DATA", "data": data}));
    }
    let space = json!({"space": {"name": report.system, "description": "latencies of a forecast, in milliseconds", "is_private": "true",
        "graph": {"metrics": metrics, "guesstimates": guesses}}});
    format!("{space:#}\n")
}

/// Bounds of the classic histogram, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What a scrape at the end of all runs would have found.
fn prometheus(report: &Report) -> String {
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = String::from(
        "# HELP http_server_request_duration_seconds Time that callers waited for an answer.\n# TYPE http_server_request_duration_seconds histogram\n",
    );
    for it in &report.services {
        let (histogram, name) = (&it.requests.latency.histogram, label(&it.name));
        for bound in BOUNDS {
            let count = histogram.count_at_most(Nanos::from_secs_f64(bound));
            let _ = writeln!(
                text,
                "http_server_request_duration_seconds_bucket{{service=\"{name}\",le=\"{bound}\"}} {count}"
            );
        }
        let _ = writeln!(
            text,
            "http_server_request_duration_seconds_bucket{{service=\"{name}\",le=\"+Inf\"}} {}",
            histogram.count()
        );
        let _ = writeln!(
            text,
            "http_server_request_duration_seconds_sum{{service=\"{name}\"}} {}",
            histogram.sum() as f64 / 1e9
        );
        let _ = writeln!(
            text,
            "http_server_request_duration_seconds_count{{service=\"{name}\"}} {}",
            histogram.count()
        );
    }
    text.push_str("# HELP isobar_utilisation Share of places in use.\n# TYPE isobar_utilisation gauge\n");
    for it in report.services.iter().filter_map(|it| Some((label(&it.name), it.utilisation?.value))) {
        let _ = writeln!(text, "isobar_utilisation{{service=\"{}\"}} {}", it.0, it.1);
    }
    text.push_str("# HELP isobar_failed_per_second Requests that failed, by cause.\n# TYPE isobar_failed_per_second gauge\n");
    for service in &report.services {
        for (cause, rate) in &service.requests.errors {
            let _ = writeln!(
                text,
                "isobar_failed_per_second{{service=\"{}\",cause=\"{}\"}} {rate}",
                label(&service.name),
                cause.word()
            );
        }
    }
    text
}
