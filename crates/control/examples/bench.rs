//! What statistics and spans cost: processor time of a proxy's worker for each request, with and without, by turns, and
//! that of the watcher and the trace store beside it. How old a number is when the API gives it; how much memory a large
//! system takes; how many spans of others come in through the doors.
//!
//! `cargo xtask bench control` (and `telemetry`, which includes it); `--only=cost` (or `age`, `memory`, `ingest`) measures
//! a part. The same proxy carries the same keep-alive
//! requests to the same instance; with statistics on, its workers count series and tell of every request, and the
//! watcher collects, keeps spans and decides about traces, as under `isobar up`. Prints figures with their marks, writes
//! them as JSON where `ISOBAR_BENCH_JSON` says, and exits 1 if one is missed. A ratio within one run holds on a busy
//! machine; the seconds do not.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[allow(dead_code, reason = "the soak needs the rest of it")]
mod house;
#[path = "bench/ingest.rs"]
mod ingest;
#[path = "bench/memory.rs"]
mod memory;

use house::{Fallible, house, instance, load};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 7;
/// Processor time with statistics and spans over without: of the worker alone, and with everything beside it.
const MARK: f64 = 1.05;
const AGE_MARK_MS: f64 = 500.0;

/// The binary's own: what another one does with the same requests is another one's matter.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MEMORY_MARK_MB: f64 = 300.0;
const INGEST_MARK: f64 = 100_000.0;

/// Processor time of this thread.
fn own_cpu() -> Fallible<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or("0").parse()?))
}

/// Processor time of every thread of ours whose name begins so.
fn cpu(of: &str) -> Fallible<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread that just ended has no files any more.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        if name.starts_with(of)
            && let Ok(text) = std::fs::read_to_string(path.join("schedstat"))
        {
            nanos += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Worker time, and everything the watcher took, for each request.
fn round(instance: SocketAddr, with: bool, seconds: u64) -> Fallible<(f64, f64)> {
    let house = house(instance, with)?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    load(house.door, CONNECTIONS, Duration::ZERO, Arc::clone(&stop), Arc::clone(&done))?;
    // Until the share of traces has settled.
    std::thread::sleep(Duration::from_millis(2_500));
    let before = (cpu("isobar-worker")?, cpu("watcher")? + cpu("traces")?, done.load(Relaxed));
    std::thread::sleep(Duration::from_secs(seconds));
    let after = (cpu("isobar-worker")?, cpu("watcher")? + cpu("traces")?, done.load(Relaxed));
    stop.store(true, Relaxed);
    let requests = (after.2 - before.2) as f64;
    if requests < 1_000.0 {
        return Err(format!("only {requests} requests came through").into());
    }
    let micros = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / requests;
    house.proxy.stop();
    Ok((micros(before.0, after.0), micros(before.1, after.1)))
}

/// Ages of markers, in milliseconds, under a load of some thousand requests a second: median, p99, and how many.
fn ages(instance: SocketAddr, seconds: u64) -> Fallible<(f64, f64, u64)> {
    let house = house(instance, true)?;
    let marker_door = house.proxy.address(control::compile::MARKER).ok_or("no door for markers")?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    load(house.door, 8, Duration::from_millis(4), Arc::clone(&stop), done)?;
    // A marker a second proves little in a short while: several senders, each in its own step.
    for sender in 0..8u64 {
        let watched = Arc::clone(&house.watched);
        house::thread("markers", move || async move {
            tokio::time::sleep(Duration::from_millis(sender * 131)).await;
            control::marker::send(watched, marker_door).await;
            Ok(())
        })?;
    }
    std::thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Relaxed);
    house.proxy.stop();
    let ages = house.watched.freshness.lock().map_err(|_| "a thread panicked")?.ages().clone();
    let ms = |q: f64| ages.quantile(q).map_or(f64::NAN, units::Nanos::as_millis_f64);
    Ok((ms(0.5), ms(0.99), ages.count()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a mark demands.
#[derive(Clone, Copy)]
enum Mark {
    AtMost(f64),
    AtLeast(f64),
}

/// Figures as they are printed, and kept for the file.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    missed: bool,
}

impl Report {
    fn figure(&mut self, what: &str, value: f64, unit: &str) {
        self.line(what, value, unit, None);
    }

    fn marked(&mut self, what: &str, value: f64, unit: &str, mark: Mark) {
        self.line(what, value, unit, Some(mark));
    }

    fn line(&mut self, what: &str, value: f64, unit: &str, mark: Option<Mark>) {
        let (met, side, bound) = match mark {
            None => (true, "", None),
            Some(Mark::AtMost(mark)) => (value <= mark, "<=", Some(mark)),
            Some(Mark::AtLeast(mark)) => (value >= mark, ">=", Some(mark)),
        };
        self.missed |= !met;
        let verdict = bound.map_or(String::new(), |mark| {
            format!("    mark {side} {mark} {}", if met { "met" } else { "MISSED" })
        });
        println!("{what:<58} {value:>9.3} {unit}{verdict}");
        let bound = bound.map_or("null".to_owned(), |it| it.to_string());
        self.lines.push(format!(
            "{{\"bench\": \"{what}\", \"value\": {value:.4}, \"unit\": \"{unit}\", \"mark\": {bound}, \"met\": {met}}}"
        ));
    }
}

fn cost(report: &mut Report, instance: SocketAddr, seconds: u64) -> Fallible<()> {
    let (mut off, mut on, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(round(instance, false, seconds)?.0);
        // Threads of a round must be gone before the next one looks for its own by name.
        std::thread::sleep(Duration::from_millis(600));
        let (worker, watcher) = round(instance, true, seconds)?;
        std::thread::sleep(Duration::from_millis(600));
        on.push(worker);
        beside.push(watcher);
    }
    // Neighbours in time share whatever else the machine did.
    let ratio = median(on.iter().zip(&off).map(|(on, off)| on / off).collect());
    let whole =
        median(on.iter().zip(&beside).zip(&off).map(|((on, beside), off)| (on + beside) / off).collect());
    report.figure("worker, statistics and spans off", median(off), "us a request");
    report.figure("worker, statistics and spans on", median(on), "us a request");
    report.figure("watcher and trace store beside", median(beside), "us a request");
    report.marked("worker, on over off", ratio, "", Mark::AtMost(MARK));
    report.marked("worker and all beside it, on over off", whole, "", Mark::AtMost(MARK));
    Ok(())
}

fn main() -> Fallible<()> {
    let word = |name: &str| std::env::args().skip(1).find_map(|it| it.strip_prefix(name).map(str::to_owned));
    let seconds = word("--seconds=").map_or(Ok(2), |it| it.parse())?;
    let only = word("--only=");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut report = Report::default();
    // First, while nothing else has left its mark on the process.
    if wanted("memory") {
        let it = memory::measure()?;
        let name = "1,000 services x 5,000 edges, six hours: the process";
        report.marked(name, it.resident_mb, "MB resident", Mark::AtMost(MEMORY_MARK_MB));
        report.figure("  of which history", it.history_mb, "MB");
        report.figure("  of which cells of two workers and tables", it.cells_mb, "MB");
        report.figure("  of which traces", it.traces_mb, "MB");
        report.figure("  traces held", it.traces as f64, "");
        report.marked("  seconds held (of 900)", it.seconds_held as f64, "", Mark::AtLeast(899.0));
        report.marked("  tens of seconds held (of 2,160)", it.tens_held as f64, "", Mark::AtLeast(2_159.0));
        report.figure("  a service's page of a quarter of an hour", it.page_ms, "ms");
    }
    if wanted("ingest") {
        for (name, spans) in ingest::measure()? {
            let name = format!("ingest through the door, {name}, one core");
            report.marked(&name, spans, "spans/s", Mark::AtLeast(INGEST_MARK));
        }
    }
    let instance = instance()?;
    if wanted("cost") {
        cost(&mut report, instance, seconds)?;
    }
    if wanted("age") {
        let (p50, p99, markers) = ages(instance, 10 * seconds)?;
        report.figure("markers", markers as f64, "");
        report.figure("age of a number at the API, median", p50, "ms");
        report.marked("age of a number at the API, p99", p99, "ms", Mark::AtMost(AGE_MARK_MS));
    }
    if let Some(path) = std::env::var_os("ISOBAR_BENCH_JSON") {
        std::fs::write(path, format!("[\n{}\n]\n", report.lines.join(",\n")))?;
    }
    if report.missed { Err("a mark is missed".into()) } else { Ok(()) }
}
