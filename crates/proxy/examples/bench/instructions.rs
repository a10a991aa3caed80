//! Instructions for one request, counted and not timed: the one number that a busy machine does not move.
//!
//! The proxy runs under valgrind twice, with more requests the second time; the difference is what the requests cost.
//! The kernel's part is not in it, and neither is waiting.

use crate::cases::GRPC_CALL;
use crate::process::{Paths, Running, completed};
use crate::report::{Limit, Report};
use crate::{FRONT, Fallible};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a request may cost. A change that needs more says so here, and why.
const GATES: &[(&str, &str, &str, u64)] =
    &[("h1", "h1", "/", 18_500), ("h2-h2", "h2", "/", 32_500), ("grpc-unary", "grpc", "/unary", 36_000)];

/// The last of 5,000 routes may cost this much more than the first, in instructions.
const LAST_ROUTE: f64 = 1.05;

const FEW: u64 = 1_000;
const MANY: u64 = 5_000;

/// Counts, and says which gates were run over.
pub(crate) fn measure(paths: &Paths, report: &mut Report) -> Vec<String> {
    count_all(paths, report)
        .unwrap_or_else(|error| vec![format!("instructions could not be counted: {error}")])
}

fn count_all(paths: &Paths, report: &mut Report) -> Fallible<Vec<String>> {
    if !is_possible() {
        println!("instructions   skipped: valgrind is not installed");
        return Ok(Vec::new());
    }
    let mut over = Vec::new();
    for (name, mode, path, gate) in GATES {
        let count = per_request(paths, mode, path)?;
        println!("instructions   {name:10} {count:.0} a request");
        if !report.judge(&format!("instructions {name}"), count, Limit::AtMost(*gate as f64), "") {
            over.push(format!("{name} costs {count:.0} instructions a request, and {gate} is the gate"));
        }
    }
    let first = per_request(paths, "routes", "/r/0000")?;
    let ratio = per_request(paths, "routes", "/r/4999")? / first;
    println!("instructions   the last of 5,000 routes costs {ratio:.3} x the first");
    if !report.judge("instructions last route / first", ratio, Limit::AtMost(LAST_ROUTE), "x") {
        over.push(format!("the last of 5,000 routes costs {ratio:.3} x another"));
    }
    Ok(over)
}

fn is_possible() -> bool {
    Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success())
}

/// Instructions of the worker for one request.
fn per_request(paths: &Paths, mode: &str, path: &str) -> Fallible<f64> {
    let (few, many) = (total(paths, mode, path, FEW)?, total(paths, mode, path, MANY)?);
    Ok(many.saturating_sub(few) as f64 / (MANY - FEW) as f64)
}

fn total(paths: &Paths, mode: &str, path: &str, requests: u64) -> Fallible<u64> {
    let out = paths.dir.join("callgrind.out");
    for old in std::fs::read_dir(&paths.dir)?.flatten() {
        if old.file_name().to_string_lossy().starts_with("callgrind.out") {
            std::fs::remove_file(old.path())?;
        }
    }
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "-q", &format!("--callgrind-out-file={}", out.display())])
        .arg(&paths.this)
        .args(["serve", mode])
        .arg(&paths.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut running = Running(command.spawn()?);
    for _ in 0..400 {
        if TcpStream::connect(("127.0.0.1", FRONT + 1)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut load = Command::new("h2load");
    load.args(["-c4", "-t1", &format!("-n{requests}")]);
    match mode {
        // Few at once: slowed down so much, an instance looks overloaded and is spared.
        "h2" => load.arg("-m8"),
        "grpc" => load.arg("-m8").args(GRPC_CALL).arg(paths.dir.join("message")),
        _ => load.arg("--h1"),
    };
    let output = load.arg(format!("http://127.0.0.1:{FRONT}{path}")).stderr(Stdio::null()).output()?;
    let done = completed(&String::from_utf8_lossy(&output.stdout)).unwrap_or(0);
    if done != requests {
        return Err(format!("{done} of {requests} requests were answered").into());
    }
    // Ended in order, so that it writes down what it counted.
    Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status()?;
    running.0.wait()?;
    let text = std::fs::read_to_string(&out)?;
    let summary =
        text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    Ok(summary.ok_or("valgrind wrote no summary")?.trim().parse()?)
}
