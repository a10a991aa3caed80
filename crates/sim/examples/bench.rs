//! `cargo xtask bench sim`: events per second, as ratios to a plain loop measured in the same run.
//!
//! Each line of `--json` is one measurement: {"bench", "events_per_second", "ratio", "spread"}. `ratio` is against the
//! baseline `plain M/M/1 loop`: a binary heap, a queue of arrival times and a sum of waits, with nothing else to carry.

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
fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let (mm1, shop) = (plan(WORLD_MM1), plan(SHOP));
    let benches: [(&str, &dyn Fn(u64) -> u64); 5] = [
        ("plain M/M/1 loop", &plain_loop),
        ("engine M/M/1", &|seed| engine(seed, false)),
        ("engine M/M/1, a time-out each", &|seed| engine(seed, true)),
        ("world M/M/1 from a file", &|seed| world(&mm1, seed, 300)),
        ("the shop, every policy on", &|seed| world(&shop, seed, 30)),
    ];
    let mut baseline = None;
    for (name, run) in benches {
        let (rate, spread) = measure(run);
        let ratio = rate / *baseline.get_or_insert(rate);
        if json {
            println!(
                r#"{{"bench":"{name}","events_per_second":{rate:.0},"ratio":{ratio:.3},"spread":{spread:.3}}}"#
            );
        } else {
            println!("{name:32} {:8.2} M events/s  {ratio:6.2} x  ±{:4.1} %", rate / 1e6, spread * 100.0);
        }
    }
}
