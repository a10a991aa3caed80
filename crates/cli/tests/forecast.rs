//! Is the forecast right? The shop, forecast and run for real from the same file, operation by operation.
//!
//! It needs a machine that does nothing else, so it is not among the tests that run beside builds. Alone:
//! `cargo test --profile quick -p cli --test forecast -- --ignored --nocapture`. Retries are forbidden in both, so that
//! what is compared is work, waiting and distance and not the luck of a second try. Distances are left out of both
//! (`--here`): one machine has none.
//!
//! **Tolerance.** p50 and p99 of an operation, as its callers see it, are within 10 % of the forecast, or within half a
//! millisecond: a hop through a proxy on the loopback and the millisecond of its timer are of that size, and an operation of
//! 0.2 ms is mostly that. What is compared is the median of [`ROUNDS`] measurements; of operations with fewer than
//! [`CALLS_MIN`] calls a round, a p99 rests on a handful of requests (its standard error alone is a tenth) and is not
//! compared. Shares that failed are within the forecast's interval and the run's taken together, or both below one in a
//! thousand.
//!
//! A machine that others use as well says so: `ISOBAR_FORECAST_SLACK=2` doubles the tolerance of times.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const ROUNDS: usize = 3;
const ROUND: &str = "60s";
const CALLS_MIN: f64 = 2_000.0;
const RELATIVE: f64 = 0.10;
const ABSOLUTE_MS: f64 = 0.5;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn ask(&self, words: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_isobar"))
            .args(words)
            .current_dir(self.folder.path())
            .env("ISOBAR_STATE", self.folder.path().join("state"))
            .stdin(Stdio::null())
            .output();
        output.expect("isobar runs")
    }

    fn report(&self, words: &[&str]) -> Value {
        let output = self.ask(words);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ask(&["down"]);
    }
}

/// The shop, with no retry anywhere.
fn shop() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/isobar.yaml");
    let text = std::fs::read_to_string(path).expect("the example is there");
    let mut file = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("retry: {") {
        let end = at + rest[at..].find('}').expect("it is closed") + 1;
        file.push_str(&rest[..at]);
        file.push_str("retry: none");
        rest = &rest[end..];
    }
    file.push_str(rest);
    assert!(!file.contains("attempts"), "every retry is forbidden");
    file
}

/// One operation as one of its callers sees it.
#[derive(Clone, Debug, Default)]
struct Seen {
    calls: f64,
    p50_ms: f64,
    p99_ms: f64,
    failed: f64,
    /// Half of the interval of what was answered.
    failed_half: f64,
}

fn seen(report: &Value) -> BTreeMap<String, Seen> {
    let seconds = report["measured_s"].as_f64().unwrap_or(0.0);
    let edges = report["edges"].as_array().into_iter().flatten();
    let one = |it: &Value| {
        let calls = &it["calls"];
        let value = |it: &Value| it["value"].as_f64().unwrap_or(f64::NAN);
        let answered = &calls["availability"];
        let seen = Seen {
            calls: value(&calls["rate_per_s"]) * seconds,
            p50_ms: value(&calls["latency_ms"]["p50"]),
            p99_ms: value(&calls["latency_ms"]["p99"]),
            failed: 1.0 - value(answered),
            failed_half: value(answered) - answered["low"].as_f64().unwrap_or(f64::NAN),
        };
        Some((
            format!("{} -> {} {}", it["from"].as_str()?, it["to"].as_str()?, it["operation"].as_str()?),
            seen,
        ))
    };
    edges.filter_map(one).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the tolerance is multiplied with.
fn slack() -> f64 {
    let said = std::env::var("ISOBAR_FORECAST_SLACK").ok();
    let slack: f64 = said.map_or(1.0, |it| it.parse().expect("ISOBAR_FORECAST_SLACK is a number"));
    assert!((1.0..=2.0).contains(&slack), "with a slack of {slack} nothing would be compared");
    slack
}

#[test]
#[ignore = "it measures, and so needs the machine for itself"]
fn the_shop_runs_as_it_was_forecast() {
    let slack = slack();
    let place = Place { folder: tempfile::tempdir().expect("a folder") };
    std::fs::write(place.folder.path().join("isobar.yaml"), shop()).expect("it can be written");
    let forecast = seen(&place.report(&["sim", "--here", "--json", "--duration", ROUND, "--runs", "20"]));
    let said = place.ask(&["up", "-d", "--no-watch", "--load"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let rounds: Vec<BTreeMap<String, Seen>> = (0..ROUNDS)
        .map(|_| {
            let ran = place.ask(&[
                "scenario",
                "run",
                "--steady",
                ROUND,
                "--warm-up",
                "5s",
                "--report",
                "actual.json",
            ]);
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            let text = std::fs::read_to_string(place.folder.path().join("actual.json")).expect("a report");
            seen(&serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    let (mut lines, mut wrong) = (Vec::new(), 0);
    for (name, expected) in forecast.iter().filter(|(_, it)| it.calls > 0.0 && !it.p50_ms.is_nan()) {
        let of = |number: fn(&Seen) -> f64| {
            median(rounds.iter().filter_map(|it| it.get(name)).map(number).collect())
        };
        let calls = of(|it| it.calls);
        let near = |actual: f64, forecast: f64| {
            (actual - forecast).abs() <= slack * (RELATIVE * forecast).max(ABSOLUTE_MS)
        };
        let (p50, p99, failed) = (of(|it| it.p50_ms), of(|it| it.p99_ms), of(|it| it.failed));
        let interval = expected.failed_half + of(|it| it.failed_half).max(0.0);
        let good = near(p50, expected.p50_ms)
            && (calls < CALLS_MIN || near(p99, expected.p99_ms))
            && ((failed - expected.failed).abs() <= interval || failed.max(expected.failed) < 0.001);
        wrong += u32::from(!good);
        lines.push(format!(
            "{} {name:<44} p50 {:>7.2} -> {p50:>7.2} ({:+5.1}%)   p99 {:>7.2} -> {p99:>7.2} ({:+5.1}%)   failed {:.4} -> {failed:.4}   {calls:.0} calls",
            if good { "  " } else { "NO" },
            expected.p50_ms,
            (p50 / expected.p50_ms - 1.0) * 100.0,
            expected.p99_ms,
            (p99 / expected.p99_ms - 1.0) * 100.0,
            expected.failed,
        ));
    }
    let table = lines.join("\n");
    eprintln!("{table}");
    assert!(lines.len() >= 10, "the shop has more operations than these:\n{table}");
    assert_eq!(wrong, 0, "outside of the tolerance:\n{table}");
}
