//! `cargo xtask bench sim`: events per second, as ratios to a plain loop measured in the same run.
//!
//! Each line of `--json` is one measurement: {"bench", "events_per_second", "ratio", "spread"}. `ratio` is against the
//! baseline `plain M/M/1 loop`: a binary heap, a queue of arrival times and a sum of waits, with nothing else to carry.
//!
//! After the measurements come the marks this crate promises, each with what was measured and whether it was met; one that
//! was not makes the bench exit with 1. They are promises about a release build on a machine that is doing nothing else.

use sim::{Event, EventQueue, Options, Plan};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;
use units::{Histogram, Nanos, Rng};

/// Requests a run; long enough that caches are warm and a run takes tens of milliseconds.
const REQUESTS: u64 = 1_000_000;
const LOAD: f64 = 0.8;
const SERVICE_NANOS: f64 = 1e6;

/// What every simulator of M/M/1 does at least: two events a request.
fn plain_loop(seed: u64) -> u64 {
    let mut rng = Rng::from_seed(seed);
    let mut heap = BinaryHeap::new();
    let (mut queue, mut waited, mut left, mut sequence) = (VecDeque::new(), 0u64, REQUESTS, 0u64);
    let mut draw = |mean: f64| (-mean * rng.unit_open().ln()) as u64;
    heap.push(std::cmp::Reverse((0u64, 0u64, false)));
    while let Some(std::cmp::Reverse((now, _, is_departure))) = heap.pop() {
        let mut push = |at: u64, is_departure| {
            sequence += 1;
            heap.push(std::cmp::Reverse((at, sequence, is_departure)));
        };
        if is_departure {
            waited += now - queue.pop_front().unwrap_or(now);
            if !queue.is_empty() {
                push(now + draw(SERVICE_NANOS), true);
            }
        } else {
            queue.push_back(now);
            if queue.len() == 1 {
                push(now + draw(SERVICE_NANOS), true);
            }
            left -= 1;
            if left > 0 {
                push(now + draw(SERVICE_NANOS / LOAD), false);
            }
        }
    }
    std::hint::black_box(waited);
    2 * REQUESTS
}

/// The same system on the engine, with what a report needs: portable samplers and a histogram of every wait.
fn engine(seed: u64, with_timers: bool) -> u64 {
    const ARRIVE: u8 = 0;
    const DEPART: u8 = 1;
    const TIME_OUT: u8 = 2;
    let sampler = |mean: f64| {
        let law = units::Dist::Exponential { mean: Nanos(mean as u64) };
        law.sampler().expect("an exponential needs no values")
    };
    let (between, work) = (sampler(SERVICE_NANOS / LOAD), sampler(SERVICE_NANOS));
    let (mut arrivals, mut works) = (Rng::from_seed(seed), Rng::from_seed(seed + 1));
    let mut events = EventQueue::new();
    let mut queue = VecDeque::new();
    let mut latency = Histogram::new();
    let (mut left, mut count) = (REQUESTS, 0u64);
    events.schedule(Nanos::ZERO, Event::new(ARRIVE, 0, 0));
    while let Some((now, event)) = events.pop_until(Nanos::MAX) {
        count += 1;
        match event.kind() {
            ARRIVE => {
                let timer = if with_timers {
                    events.schedule_timer(now + Nanos::from_secs(1), Event::new(TIME_OUT, 0, 0))
                } else {
                    sim::TimerId::NONE
                };
                queue.push_back((now, timer));
                if queue.len() == 1 {
                    events.schedule(now + work.sample(&mut works), Event::new(DEPART, 0, 0));
                }
                left -= 1;
                if left > 0 {
                    events.schedule(now + between.sample(&mut arrivals), Event::new(ARRIVE, 0, 0));
                }
            }
            DEPART => {
                if let Some((arrived, timer)) = queue.pop_front() {
                    latency.record(now - arrived);
                    events.cancel(timer);
                }
                if !queue.is_empty() {
                    events.schedule(now + work.sample(&mut works), Event::new(DEPART, 0, 0));
                }
            }
            _ => {}
        }
    }
    std::hint::black_box(latency.count());
    count
}

/// A file's text, ready to run.
fn plan(text: &str) -> Plan {
    let loaded = model::load::load_str(text);
    let system = loaded.system().unwrap_or_else(|| panic!("a bench's own file: {:?}", loaded.diagnostics));
    sim::compile(system, &|file| Err(format!("`{file}` is not read")))
        .expect("a bench's own file can be forecast")
}

fn world(plan: &Plan, seed: u64, seconds: u64) -> u64 {
    let options = Options {
        seed,
        runs: 1,
        duration: Some(Nanos::from_secs(seconds)),
        warm_up: Some(Nanos::ZERO),
        ..Options::default()
    };
    sim::forecast(plan, &options, &|_| true).expect("it is stable").total.events
}

/// M/M/1 as a file would say it: users, a policy, a network and a service.
const WORLD_MM1: &str = "isobar: 1
services:
  api: {concurrency: 1, queue: unbounded, operations: {read: exponential(mean 1ms)}}
traffic:
  users: {to: api \"read\", rate: 800/s}
";

const SHOP: &str = include_str!("../../../examples/shop/isobar.yaml");

/// Somewhere to stand in six regions, at the rate of the promise.
fn six_regions() -> Plan {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/streaming");
    let loaded = model::load::load(&model::load::Disk, &folder);
    let system =
        loaded.system().unwrap_or_else(|| panic!("the example has a mistake: {:?}", loaded.diagnostics));
    sim::compile(system, &|file| Err(format!("`{file}` is not read"))).expect("the example can be forecast")
}

/// Requests a second of the file's own traffic.
fn rate_of(plan: &Plan) -> f64 {
    plan.loads
        .iter()
        .map(|it| match &it.kind {
            sim::plan::LoadKind::Open { rate, .. } => *rate,
            _ => 0.0,
        })
        .sum()
}

/// The most memory this process ever had, in bytes, where the system says so.
fn memory_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|it| it.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|it| it << 10)
}

/// What a process of its own needs for one task: no other task's peak is in it.
fn memory_of(task: &str) -> Option<u64> {
    let output =
        std::process::Command::new(std::env::current_exe().ok()?).args(["--task", task]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Tasks that are run in a process of their own.
fn task(name: &str) {
    match name {
        "shop 30 s" => _ = world(&plan(SHOP), 1, 30),
        "shop 300 s" => _ = world(&plan(SHOP), 1, 300),
        "six regions" => _ = minute_of_six_regions(),
        other => panic!("no task is called {other}"),
    }
}

fn minute_of_six_regions() -> f64 {
    let plan = six_regions();
    let mut options = Options {
        runs: 1,
        duration: Some(Nanos::from_secs(60)),
        warm_up: Some(Nanos::ZERO),
        allow_unstable: true,
        ..Options::default()
    };
    options.bias.load = 20_000.0 / rate_of(&plan);
    let began = Instant::now();
    sim::forecast(&plan, &options, &|_| true).expect("its queues have limits");
    began.elapsed().as_secs_f64()
}

/// Seconds a sweep of eight loads takes.
fn sweep(plan: &Plan, threads: u32) -> f64 {
    let options = Options {
        runs: 4,
        threads,
        duration: Some(Nanos::from_secs(30)),
        warm_up: Some(Nanos::ZERO),
        ..Options::default()
    };
    let loads: Vec<f64> = (1..=8).map(|it| f64::from(it) * 0.5).collect();
    let began = Instant::now();
    sim::questions::sweep(plan, &options, &loads, &|_| true).expect("a sweep refuses nothing");
    began.elapsed().as_secs_f64()
}

/// A promise, what was measured, and whether that keeps it.
struct Mark {
    promise: &'static str,
    measured: String,
    met: bool,
}

fn marks(rates: &[(&str, f64)]) -> Vec<Mark> {
    let rate = |name: &str| rates.iter().find(|it| it.0 == name).map_or(0.0, |it| it.1);
    let (engine, ratio) = (rate("engine M/M/1"), rate("engine M/M/1") / rate("plain M/M/1 loop").max(1.0));
    let million = |rate: f64| format!("{:.2} M events/s", rate / 1e6);
    let mut marks = vec![
        Mark {
            promise: "M/M/1 at 80 %: 12 M events/s on one core",
            measured: million(engine),
            met: engine >= 12e6,
        },
        Mark {
            promise: "and 0.7 times the plain loop",
            measured: format!("{ratio:.2} x"),
            met: ratio >= 0.7,
        },
    ];
    let shop_rate = rate("the shop, every policy on");
    marks.push(Mark {
        promise: "the shop: 3 M events/s",
        measured: million(shop_rate),
        met: shop_rate >= 3e6,
    });
    let minute = minute_of_six_regions();
    marks.push(Mark {
        promise: "six regions, a minute at 20,000/s: under 60 s on one core",
        measured: format!("{minute:.1} s"),
        met: minute < 60.0,
    });
    let megabytes = |it: u64| format!("{:.0} MB", it as f64 / 1e6);
    if let Some(memory) = memory_of("six regions") {
        marks.push(Mark {
            promise: "and under 1 GB",
            measured: megabytes(memory),
            met: memory < 1_000_000_000,
        });
    }
    if let (Some(short), Some(long)) = (memory_of("shop 30 s"), memory_of("shop 300 s")) {
        marks.push(Mark {
            promise: "memory is flat: ten times the time, at most a tenth more",
            measured: format!("{} and {}", megabytes(short), megabytes(long)),
            met: long <= short + short / 10,
        });
    }
    let shop = plan(SHOP);
    let (one, two) = (sweep(&shop, 1), sweep(&shop, 2));
    marks.push(Mark {
        promise: "a sweep on two cores: 1.7 times as fast as on one",
        measured: format!("{:.2} x", one / two),
        met: one / two >= 1.7,
    });
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, |it| it.get() as u32);
    let options = Options { threads: cores, ..Options::default() };
    let forecast = sim::forecast(&shop, &options, &|_| true).expect("it is stable");
    std::hint::black_box(sim::Report::of(&forecast).verdict.headline.len());
    let took = began.elapsed().as_secs_f64();
    marks.push(Mark {
        promise: "a forecast of the shop as it stands: under 5 s",
        measured: format!("{took:.2} s"),
        met: took < 5.0,
    });
    marks
}

/// The best and the middle of several runs: the best is the machine, the distance to the middle its noise.
fn measure(run: impl Fn(u64) -> u64) -> (f64, f64) {
    let mut rates: Vec<f64> = (0..7)
        .map(|seed| {
            let began = Instant::now();
            run(seed) as f64 / began.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    let (best, middle) = (rates[rates.len() - 1], rates[rates.len() / 2]);
    (middle, (best - middle) / middle)
}

#[allow(clippy::print_stdout, reason = "a bench talks to a person or to a script")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, name] = arguments.as_slice()
        && word == "--task"
    {
        task(name);
        println!("{}", memory_peak().unwrap_or(0));
        return std::process::ExitCode::SUCCESS;
    }
    let json = std::env::args().any(|arg| arg == "--json");
    let (mm1, shop) = (plan(WORLD_MM1), plan(SHOP));
    let benches: [(&str, &dyn Fn(u64) -> u64); 5] = [
        ("plain M/M/1 loop", &plain_loop),
        ("engine M/M/1", &|seed| engine(seed, false)),
        ("engine M/M/1, a time-out each", &|seed| engine(seed, true)),
        ("world M/M/1 from a file", &|seed| world(&mm1, seed, 300)),
        ("the shop, every policy on", &|seed| world(&shop, seed, 30)),
    ];
    let (mut baseline, mut rates) = (None, Vec::new());
    for (name, run) in benches {
        let (rate, spread) = measure(run);
        rates.push((name, rate));
        let ratio = rate / *baseline.get_or_insert(rate);
        if json {
            println!(
                r#"{{"bench":"{name}","events_per_second":{rate:.0},"ratio":{ratio:.3},"spread":{spread:.3}}}"#
            );
        } else {
            println!("{name:32} {:8.2} M events/s  {ratio:6.2} x  ±{:4.1} %", rate / 1e6, spread * 100.0);
        }
    }
    let marks = marks(&rates);
    for it in &marks {
        let (promise, measured, met) = (it.promise, &it.measured, it.met);
        if json {
            println!(r#"{{"mark":"{promise}","measured":"{measured}","met":{met}}}"#);
        } else {
            println!("{}  {promise}: {measured}", if met { "pass" } else { "FAIL" });
        }
    }
    if marks.iter().all(|it| it.met) {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
