//! A forecast in the formats of others: spigo's own outputs, and what today's tools read.
//!
//! Everything is made from the [`Report`], so an export can say nothing the report does not.

use crate::report::{InstanceReport, Report, RequestsReport};
use serde_json::{Value, json};
use std::collections::HashMap;
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

/// Records of what came, was used and went, and when; then what passed through it. Time is simulated: the run begins at
/// the beginning of 1970.
fn graph(report: &Report) -> String {
    let mut records: Vec<(Nanos, Value)> = Vec::new();
    let name_of =
        |it: &InstanceReport| format!("{}.{}.{}", report.system, it.place.replace('/', "."), it.name);
    let names: HashMap<&str, (String, &InstanceReport)> =
        report.instances.iter().map(|it| (it.name.as_str(), (name_of(it), it))).collect();
    let node = |at: Nanos, name: &str, it: &InstanceReport| {
        json!({"node": name, "package": it.kind, "service": it.service, "timestamp": stamp(at),
               "rate_per_s": it.rate.value, "failed_per_s": it.failed_per_second, "utilisation": it.utilisation.map(|it| it.value)})
    };
    // Whoever came later was not there at first; a spare that never came is no node.
    for it in report.instances.iter().filter(|it| it.initial) {
        records.push((Nanos::ZERO, node(Nanos::ZERO, &name_of(it), it)));
    }
    for came in &report.came {
        let Some((name, it)) = names.get(came.instance.as_str()) else { continue };
        let record = if came.up {
            node(came.at, name, it)
        } else {
            json!({"done": name, "exit": "gone", "timestamp": stamp(came.at)})
        };
        records.push((came.at, record));
    }
    for (n, it) in report.edges.iter().enumerate() {
        let Some(first) = it.first else { continue };
        records.push((first, json!({"edge": format!("e{}", n + 1), "source": it.from, "target": it.to, "operation": it.operation, "timestamp": stamp(first),
            "rate_per_s": it.calls.rate.value, "availability": it.calls.availability.value, "p99_ms": it.calls.latency.p99.value * 1e3})));
    }
    records.sort_by_key(|it| it.0);
    let records: Vec<Value> = records.into_iter().map(|it| it.1).collect();
    let document = json!({"arch": report.system, "version": "isobar-1", "seed": report.seed, "scenario": report.scenario, "graph": records});
    format!("{document:#}\n")
}

/// RFC 3339 with nanoseconds, for times since 1970.
fn stamp(at: Nanos) -> String {
    let (seconds, nanos) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date: years that begin in March, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_civil_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(stamp(Nanos::from_secs(seconds)), expected);
        }
        assert_eq!(stamp(Nanos(20_000_000_001)), "1970-01-01T00:00:20.000000001Z");
    }
}
