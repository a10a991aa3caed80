//! Us against the peers, side by side: `bench [--rounds N] [--seconds N] [--only NAME,..] [--json FILE]`.
//!
//! The proxy under test has one core, load and back end the other. What is compared is processor time per request, from
//! the operating system, as the median of alternating rounds: wall time on a shared machine says little, and alternating
//! lets what disturbs one disturb all. Peers that are not installed are skipped by name.
//!
//! It needs `nginx` (as back end), `wrk`, `h2load` and `taskset`; peers are `haproxy`, `nginx` and `envoy`. Marks are
//! printed whether they hold or not; only a gate on instructions, which noise cannot move, makes it fail.
//!
//! ```text
//! cases    loads, and ours beside the peers'     routes        5,000 of them: the last, and changing one
//! peers    how each is set up; back ends         overload      goodput at three times the capacity
//! serve    our side                              memory        empty, 5,000 routes, idle connections
//! process  children and what they used           instructions  counted under valgrind
//! report   marks and JSON                        latency, grpc what is added at 5,000/s; the gRPC back end
//! ```

#![allow(clippy::print_stdout, reason = "its tables are its output")]

#[path = "bench/cases.rs"]
mod cases;
#[path = "bench/grpc.rs"]
mod grpc;
#[path = "bench/instructions.rs"]
mod instructions;
#[path = "bench/latency.rs"]
mod latency;
#[path = "bench/memory.rs"]
mod memory;
#[path = "bench/overload.rs"]
mod overload;
#[path = "bench/peers.rs"]
mod peers;
#[path = "bench/process.rs"]
mod process;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/routes.rs"]
mod routes;
#[path = "bench/serve.rs"]
mod serve;

use process::Paths;
use report::{Limit, Report};
use std::error::Error;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What the command would have to allocate by, too, to be measured fairly.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BACK_H1: u16 = 19_001;
const BACK_H2: u16 = 19_002;
const BACK_OVERLOAD: u16 = 19_003;
const BACK_GRPC: u16 = 19_004;
const FRONT: u16 = 19_100;

/// A part of the bench that is not a case.
type Part = fn(&Paths, (usize, u32), &mut Report) -> Fallible<()>;

const PARTS: &[(&str, Part)] = &[
    ("routes", last_route),
    ("reload", reload),
    ("latency", added_latency),
    ("overload", goodput),
    ("overload-2", goodput_of_two),
    ("memory", memory),
];

fn last_route(paths: &Paths, (rounds, seconds): (usize, u32), report: &mut Report) -> Fallible<()> {
    let ratio = routes::last_route(paths, rounds, seconds)?;
    println!("routes         the last of 5,000 costs {ratio:.3} x the first");
    report.judge("last of 5,000 routes / first", ratio, Limit::AtMost(1.05), "x");
    Ok(())
}

fn reload(_: &Paths, _: (usize, u32), report: &mut Report) -> Fallible<()> {
    let (p50, p99, failed) = routes::reloads()?;
    println!(
        "reload         one of 5,000 routes: p50 {p50:.2} ms, p99 {p99:.2} ms, {failed} requests failed"
    );
    report.number("route change p50 ms", p50);
    report.judge("route change p99", p99, Limit::AtMost(10.0), "ms");
    report.judge("requests failed by route changes", failed as f64, Limit::AtMost(0.0), "");
    Ok(())
}

fn added_latency(paths: &Paths, (rounds, seconds): (usize, u32), report: &mut Report) -> Fallible<()> {
    let rows = latency::added(paths, rounds, seconds)?;
    for (name, p50, p99) in &rows {
        println!("latency        {name:8} adds p50 {p50:.0} us, p99 {p99:.0} us at 5,000 requests a second");
        report.number(&format!("added {name} p50 us"), *p50);
        report.number(&format!("added {name} p99 us"), *p99);
    }
    if let [("isobar", p50, p99), ("haproxy", their_p50, their_p99)] = rows.as_slice() {
        report.judge("added p50, ours less haproxy's", p50 - their_p50, Limit::AtMost(0.0), "us");
        report.judge("added p99, ours less haproxy's", p99 - their_p99, Limit::AtMost(0.0), "us");
    }
    Ok(())
}

fn goodput(paths: &Paths, _: (usize, u32), report: &mut Report) -> Fallible<()> {
    let percent = overload::goodput(paths, "overload", 8)? * 100.0;
    println!("overload       goodput at 3 x capacity: {percent:.1} % of capacity");
    report.judge("goodput at 3 x capacity", percent, Limit::AtLeast(90.0), "%");
    Ok(())
}

fn goodput_of_two(paths: &Paths, _: (usize, u32), report: &mut Report) -> Fallible<()> {
    let percent = overload::goodput(paths, "overload-2", 8)? * 100.0;
    println!("overload-2     goodput at 3 x capacity, two workers: {percent:.1} % of capacity");
    report.judge("goodput at 3 x, two workers", percent, Limit::AtLeast(90.0), "%");
    Ok(())
}

fn memory(paths: &Paths, _: (usize, u32), report: &mut Report) -> Fallible<()> {
    let (empty, routes, idle) = memory::measure(paths)?;
    println!("memory         empty {empty} KiB, 5,000 routes {routes} KiB, idle connection {idle:.2} KiB");
    report.judge("resident, empty", empty as f64, Limit::AtMost(10.0 * 1024.0), "KiB");
    report.judge("resident, 5,000 routes", routes as f64, Limit::AtMost(25.0 * 1024.0), "KiB");
    report.judge("idle keep-alive connection", idle, Limit::AtMost(1.0), "KiB");
    Ok(())
}

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // What it starts of itself as children, so that each has a processor of its own.
    match words.as_slice() {
        ["serve", mode, dir] => return serve::serve(mode, Path::new(dir)),
        ["grpc-upstream"] => return grpc::upstream(BACK_GRPC),
        ["latencies", port, rate, seconds] => {
            return latency::print_latencies(port.parse()?, rate.parse()?, seconds.parse()?);
        }
        ["overload-upstream"] => return overload::upstream(),
        ["overload-capacity", seconds] => return overload::capacity(seconds.parse()?),
        ["overload-load", rate, seconds] => return overload::load(rate.parse()?, seconds.parse()?),
        _ => {}
    }
    let option = |name: &str| {
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(name)? {
            "" => words.get(at + 1).copied(),
            rest => rest.strip_prefix('='),
        })
    };
    let rounds: usize = option("--rounds").unwrap_or("3").parse()?;
    let seconds: u32 = option("--seconds").unwrap_or("2").parse()?;
    let only: Option<Vec<&str>> = option("--only").map(|names| names.split(',').collect());
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.contains(&name));
    let known = |name: &str| {
        name == "instructions"
            || cases::CASES.iter().any(|it| it.name == name)
            || PARTS.iter().any(|it| it.0 == name)
    };
    if let Some(unknown) = only.iter().flatten().find(|name| !known(name)) {
        return Err(format!("nothing here is called `{unknown}`").into());
    }
    let dir = std::env::temp_dir().join(format!("isobar-bench-{}", std::process::id()));
    let paths = Paths { dir, this: std::env::current_exe()? };
    peers::prepare(&paths)?;
    let back_ends = peers::start_back_ends(&paths)?;
    let mut report = Report::default();
    println!(
        "{:14} {:>10} {:>10} {:>10} {:>10}   ours / haproxy, nginx, envoy",
        "case", "isobar", "haproxy", "nginx", "envoy"
    );
    for case in cases::CASES.iter().filter(|case| wanted(case.name)) {
        cases::measure(case, &paths, (rounds, seconds), &mut report)?;
    }
    for (name, part) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        // One that cannot be measured here is said to be so, and the others are.
        if let Err(error) = part(&paths, (rounds, seconds), &mut report) {
            eprintln!("{name}: {error}");
        }
    }
    let over = if wanted("instructions") { instructions::measure(&paths, &mut report) } else { Vec::new() };
    drop(back_ends);
    report.print_marks();
    if let Some(path) = option("--json") {
        std::fs::write(path, report.json())?;
    }
    let _ = std::fs::remove_dir_all(&paths.dir);
    if over.is_empty() { Ok(()) } else { Err(over.join("; ").into()) }
}
