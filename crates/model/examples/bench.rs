//! `cargo xtask bench model`: reading, checking and drawing, as ratios to parsing the same bytes.
//!
//! Each line of `--json` is one measurement: {"bench", "milliseconds", "ratio", "spread", "peak_mb"}. `ratio` is against
//! the baseline `events`: the YAML scanner alone going through the same text and keeping nothing. `spread` is the
//! slowest run over the fastest. `peak_mb` is the process's peak so far, so each line includes those above it.
#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]
#![allow(clippy::print_stdout, reason = "a bench talks to a person")]

use model::draw::levels::{self, Level};
use model::draw::{Format, Stamp};
use model::generate;
use model::lint;
use model::load::load_str;
use model::text::{Limits, Tags, parse};
use std::hint::black_box;
use std::time::Instant;

const RUNS: usize = 5;

/// The fastest of a few runs, and the slowest over the fastest.
fn time(mut work: impl FnMut()) -> (f64, f64) {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    (runs[0], runs[RUNS - 1] / runs[0])
}

/// The most memory this process has held, in MB; zero where the system does not say.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_000
}

struct Bench {
    json: bool,
    baseline: f64,
}

impl Bench {
    fn line(&mut self, name: &str, work: impl FnMut()) {
        let (fastest, spread) = time(work);
        if self.baseline == 0.0 {
            self.baseline = fastest;
        }
        let (ratio, peak) = (fastest / self.baseline, peak_mb());
        if self.json {
            println!(
                r#"{{"bench":"{name}","milliseconds":{fastest:.3},"ratio":{ratio:.3},"spread":{spread:.3},"peak_mb":{peak}}}"#
            );
        } else {
            println!("{name:<44} {fastest:>9.1} ms  {ratio:>7.2} x  spread {spread:>5.2}  peak {peak:>4} MB");
        }
    }
}

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    for (services, calls) in [(1_000, 10_000), (10_000, 100_000)] {
        let text = generate::system(services, calls);
        if !json {
            println!("\n{services} services, {calls} calls, {:.1} MB", text.len() as f64 / 1e6);
        }
        let mut bench = Bench { json, baseline: 0.0 };
        bench.line(&format!("events {services}"), || {
            let events = granit_parser::Parser::new_from_str(&text).filter(Result::is_ok).count();
            assert!(black_box(events) > services as usize);
        });
        bench.line(&format!("tree {services}"), || {
            let parsed = parse(0, &text, Tags::Refuse, &mut Limits::default());
            assert!(parsed.diagnostics.is_empty() && black_box(parsed).root.is_some());
        });
        bench.line(&format!("resolved and checked {services}"), || {
            assert!(black_box(load_str(&text)).is_good());
        });
        bench.line(&format!("isobar check: and linted {services}"), || {
            let loaded = load_str(&text);
            let system = loaded.system().expect("what is generated is valid");
            black_box(lint::run(system, (2026, 1, 1)));
        });
        let loaded = load_str(&text);
        let system = loaded.system().expect("what is generated is valid");
        bench.line(&format!("policy in force of every call {services}"), || {
            let mut set = 0;
            for (caller, callee) in model::check::edges(system) {
                set += system.policy(caller, callee, None).set_by.len();
            }
            assert!(black_box(set) > 0);
        });
    }

    let text = generate::system(500, 1_500);
    if !json {
        println!("\n500 services, 1500 calls, {:.1} MB", text.len() as f64 / 1e6);
    }
    let mut bench = Bench { json, baseline: 0.0 };
    bench.line("events 500", || {
        assert!(black_box(granit_parser::Parser::new_from_str(&text).filter(Result::is_ok).count()) > 500);
    });
    let loaded = load_str(&text);
    let system = loaded.system().expect("what is generated is valid");
    for format in [Format::Svg, Format::Json] {
        bench.line(&format!("isobar graph --format {format} 500"), || {
            let diagram = levels::diagram(system, Level::Service).expect("services are few");
            assert!(!black_box(diagram.write(format, &Stamp::default())).is_empty());
        });
    }
}
