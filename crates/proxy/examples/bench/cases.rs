//! Processor time per request, ours and the peers', in alternating rounds.

use crate::peers::{PEERS, peer};
use crate::process::{LOAD_CORE, Paths, completed, cpu_us, median, pinned, start};
use crate::report::{Limit, Report};
use crate::{FRONT, Fallible};
use std::collections::BTreeMap;
use std::process::Command;

/// One thing to measure: how the proxies are set up and how the load is made.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// At most so many times what a peer takes.
    marks: &'static [(&'static str, f64)],
    mode: &'static str,
    load: fn(&Paths, u32) -> Command,
}

pub(crate) fn wrk(seconds: u32, url: &str, more: &[&str]) -> Command {
    let mut command = pinned(LOAD_CORE, "wrk");
    command.args(["-t1", "-c64", &format!("-d{seconds}")]).args(more).arg(url);
    command
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "h1-128B",
        marks: &[("haproxy", 0.90), ("envoy", 0.40)],
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/", &[]),
    },
    Case {
        name: "h1-1KiB",
        marks: &[],
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/1k", &[]),
    },
    Case {
        name: "h1-64KiB",
        marks: &[],
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/64k", &[]),
    },
    Case {
        name: "h1-1MiB",
        marks: &[],
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/1m", &[]),
    },
    Case {
        name: "h1-post-4KiB",
        marks: &[],
        mode: "h1",
        load: |paths, s| {
            wrk(s, "http://127.0.0.1:19100/", &["-s", &paths.dir.join("post.lua").display().to_string()])
        },
    },
    Case {
        name: "h2-h2-8x32",
        marks: &[("haproxy", 1.0), ("envoy", 0.25)],
        mode: "h2",
        load: |_, s| {
            let mut command = pinned(LOAD_CORE, "h2load");
            command.args(["-c8", "-m32", "-t1", &format!("-D{s}"), "http://127.0.0.1:19100/"]);
            command
        },
    },
    Case { name: "grpc-unary", marks: &[], mode: "grpc", load: |paths, s| grpc_load(paths, s, "/unary") },
    Case {
        name: "grpc-stream-50",
        marks: &[],
        mode: "grpc",
        load: |paths, s| grpc_load(paths, s, "/stream"),
    },
    Case {
        name: "tls13-new",
        marks: &[],
        mode: "tls",
        load: |_, s| wrk(s, "https://127.0.0.1:19100/", &["-H", "Connection: close"]),
    },
    Case {
        name: "tls13-h1",
        marks: &[("haproxy", 1.0)],
        mode: "tls",
        load: |_, s| wrk(s, "https://127.0.0.1:19100/", &[]),
    },
    Case {
        name: "tcp-64KiB",
        marks: &[("haproxy", 1.0)],
        mode: "tcp",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/64k", &[]),
    },
];

/// What makes a request of the load generator's a gRPC call; the file with its message comes last.
pub(crate) const GRPC_CALL: [&str; 5] = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"];

/// Many calls at once, each with a message of a hundred bytes.
fn grpc_load(paths: &Paths, seconds: u32, path: &str) -> Command {
    let mut command = pinned(LOAD_CORE, "h2load");
    command.args(["-c8", "-m32", "-t1", &format!("-D{seconds}")]);
    command.args(GRPC_CALL).arg(paths.dir.join("message"));
    command.arg(format!("http://127.0.0.1:{FRONT}{path}"));
    command
}

/// Processor time per request of one proxy under one load.
fn round(case: &Case, name: &str, paths: &Paths, seconds: u32) -> Fallible<Option<f64>> {
    let Some(command) = peer(name, case.mode, paths) else { return Ok(None) };
    let running = start(command, FRONT)?;
    let pid = running.0.id();
    // Connections are made and caches are warm before the clock starts.
    (case.load)(paths, 1).output()?;
    let before = cpu_us(pid)?;
    let output = (case.load)(paths, seconds).output()?;
    let used = cpu_us(pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = completed(&text).filter(|count| *count > 0).ok_or_else(|| format!("no requests: {text}"))?;
    Ok(Some(used as f64 / count as f64))
}

/// One row: every proxy under one load, and the ratios that the marks are about.
pub(crate) fn measure(
    case: &Case,
    paths: &Paths,
    (rounds, seconds): (usize, u32),
    report: &mut Report,
) -> Fallible<()> {
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for name in PEERS {
            match round(case, name, paths, seconds) {
                Ok(Some(us)) => samples.entry(name).or_default().push(us),
                Ok(None) => {}
                Err(error) => eprintln!("{} {name}: {error}", case.name),
            }
        }
    }
    let of: BTreeMap<&str, f64> = samples.iter_mut().map(|(name, values)| (*name, median(values))).collect();
    let ours = of.get("isobar").copied().unwrap_or(f64::NAN);
    let cell = |name: &str| of.get(name).map_or_else(|| "skipped".to_owned(), |us| format!("{us:.2} us"));
    let ratio = |name: &str| of.get(name).map_or_else(|| "-".to_owned(), |us| format!("{:.3}", ours / us));
    println!(
        "{:14} {:>10} {:>10} {:>10} {:>10}   {}  {}  {}",
        case.name,
        cell("isobar"),
        cell("haproxy"),
        cell("nginx"),
        cell("envoy"),
        ratio("haproxy"),
        ratio("nginx"),
        ratio("envoy"),
    );
    for (name, us) in &of {
        report.number(&format!("{}_{name}_us", case.name), *us);
    }
    for (peer, most) in case.marks {
        if let Some(us) = of.get(peer) {
            report.judge(&format!("{} / {peer}", case.name), ours / us, Limit::AtMost(*most), "x");
        }
    }
    Ok(())
}
