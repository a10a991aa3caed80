//! The event queue and the samplers under disciplines that no file can ask for, against their closed forms: processor
//! sharing, preemption and impatience need timers that are set, moved and cancelled all the time.

use sim::{Event, EventQueue, TimerId, stats};
use std::collections::VecDeque;
use units::{Dist, Nanos, Rng, Sampler};

const RUNS: u64 = 20;
const REQUESTS: u64 = if cfg!(debug_assertions) { 20_000 } else { 400_000 };

const ARRIVE: u8 = 0;
const DONE: u8 = 1;
const LEAVE: u8 = 2;

fn exponential(mean: f64) -> Sampler {
    let law = Dist::Exponential { mean: Nanos(mean as u64) };
    law.sampler().expect("an exponential needs no values")
}

#[track_caller]
fn agrees(what: &str, values: &[f64], exact: f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let distance = (mean - exact) / stats::standard_error(values);
    assert!(distance.abs() <= 3.0, "{what}: {mean} is {distance:.2} standard errors from {exact}");
}

/// Customers whose patience ends while they wait; those in service stay. Returns (mean number present, share that left).
fn impatient(seed: u64, arrival: f64, service: f64, patience: f64) -> (f64, f64) {
    let laws = [exponential(arrival), exponential(service), exponential(patience)];
    let mut rngs = [1, 2, 3].map(|n| Rng::from_seed(seed * 10 + n));
    let mut draw = |n: usize| laws[n].sample(&mut rngs[n]);
    let mut events = EventQueue::new();
    let mut waiting: VecDeque<(u32, TimerId)> = VecDeque::new();
    let (mut busy, mut arrived, mut left) = (false, 0u64, 0u64);
    let (mut area, mut last, mut present) = (0u128, Nanos::ZERO, 0u64);
    events.schedule(Nanos::ZERO, Event::new(ARRIVE, 0, 0));
    while let Some((now, event)) = events.pop_until(Nanos::MAX) {
        area += u128::from((now - last).0) * u128::from(present);
        last = now;
        match event.kind() {
            ARRIVE => {
                arrived += 1;
                present += 1;
                if busy {
                    let number = arrived as u32;
                    let timer = events.schedule_timer(now + draw(2), Event::new(LEAVE, number, 0));
                    waiting.push_back((number, timer));
                } else {
                    busy = true;
                    events.schedule(now + draw(1), Event::new(DONE, 0, 0));
                }
                if arrived < REQUESTS {
                    events.schedule(now + draw(0), Event::new(ARRIVE, 0, 0));
                }
            }
            DONE => {
                present -= 1;
                match waiting.pop_front() {
                    Some((_, timer)) => {
                        assert!(events.cancel(timer), "whoever waits has a timer");
                        events.schedule(now + draw(1), Event::new(DONE, 0, 0));
                    }
                    None => busy = false,
                }
            }
            _ => {
                present -= 1;
                left += 1;
                waiting.retain(|(number, _)| *number != event.id);
            }
        }
    }
    (area as f64 / last.0 as f64, left as f64 / arrived as f64)
}

#[test]
fn closed_forms_impatience_mm1m() {
    for (lambda, mu, theta) in [(1.2, 1.0, 0.5), (0.8, 1.0, 0.2), (0.5, 1.0, 1.0)] {
        // Death rates µ + (n − 1)θ; the sums converge long before n = 400.
        let mut p = vec![1.0f64];
        for n in 1..400 {
            let before = p[n - 1];
            p.push(before * lambda / (mu + (n as f64 - 1.0) * theta));
        }
        let whole: f64 = p.iter().sum();
        let number: f64 = p.iter().enumerate().map(|(n, p)| n as f64 * p).sum::<f64>() / whole;
        let leave: f64 = p.iter().enumerate().skip(1).map(|(n, p)| (n as f64 - 1.0) * theta * p).sum::<f64>()
            / whole
            / lambda;
        let runs: Vec<(f64, f64)> =
            (0..RUNS).map(|seed| impatient(seed + 1, 1e6 / lambda, 1e6 / mu, 1e6 / theta)).collect();
        agrees("M/M/1+M number", &runs.iter().map(|it| it.0).collect::<Vec<f64>>(), number);
        agrees("M/M/1+M abandoned", &runs.iter().map(|it| it.1).collect::<Vec<f64>>(), leave);
        if lambda > 1.0 {
            assert!((number - 1.639).abs() < 1e-3 && (leave - 0.366).abs() < 1e-3, "{number} {leave}");
        }
    }
}

/// All share the processor: E[T | x] = x/(1 − ρ) whatever the law. Returns the mean slowdown of short and of long jobs.
fn shared(seed: u64, rho: f64) -> (f64, f64) {
    let (short, long) = (0.5e6, 3.0e6);
    // Four short ones to a long one: a mean of one millisecond.
    let between = exponential(1e6 / rho);
    let (mut arrivals, mut kinds) = (Rng::from_seed(seed * 2), Rng::from_seed(seed * 2 + 1));
    let mut events = EventQueue::new();
    let mut jobs: Vec<(f64, Nanos, bool)> = Vec::new();
    let (mut last, mut arrived, mut timer) = (Nanos::ZERO, 0u64, TimerId::NONE);
    let mut times = [(0.0, 0u64); 2];
    events.schedule(Nanos::ZERO, Event::new(ARRIVE, 0, 0));
    while let Some((now, event)) = events.pop_until(Nanos::MAX) {
        let each = (now - last).0 as f64 / jobs.len().max(1) as f64;
        jobs.iter_mut().for_each(|it| it.0 -= each);
        last = now;
        if event.kind() == ARRIVE {
            arrived += 1;
            let is_long = kinds.chance(0.2);
            jobs.push((if is_long { long } else { short }, now, is_long));
            if arrived < REQUESTS {
                events.schedule(now + between.sample(&mut arrivals), Event::new(ARRIVE, 0, 0));
            }
        }
        // Within a nanosecond of work left it is done: times are whole nanoseconds and shares are not.
        jobs.retain(|(left, began, is_long)| {
            let done = *left <= 1.0;
            if done {
                let slot = &mut times[usize::from(*is_long)];
                *slot = (slot.0 + (now - *began).0 as f64 / if *is_long { long } else { short }, slot.1 + 1);
            }
            !done
        });
        events.cancel(timer);
        timer = match jobs.iter().map(|it| it.0).min_by(f64::total_cmp) {
            Some(least) => {
                let due = (least * jobs.len() as f64).ceil().max(1.0) as u64;
                events.schedule_timer(now + Nanos(due), Event::new(DONE, 0, 0))
            }
            None => TimerId::NONE,
        };
    }
    (times[0].0 / times[0].1 as f64, times[1].0 / times[1].1 as f64)
}

#[test]
fn closed_forms_processor_sharing() {
    for rho in [0.5, 0.8, 0.95] {
        if cfg!(debug_assertions) && rho > 0.9 {
            continue; // Twenty thousand requests hold too few busy periods; the long run covers it.
        }
        let runs: Vec<(f64, f64)> = (0..RUNS).map(|seed| shared(seed + 1, rho)).collect();
        agrees("short jobs", &runs.iter().map(|it| it.0).collect::<Vec<f64>>(), 1.0 / (1.0 - rho));
        agrees("long jobs", &runs.iter().map(|it| it.1).collect::<Vec<f64>>(), 1.0 / (1.0 - rho));
    }
}

/// The first class interrupts the second, which goes on where it was. Returns the mean times of both.
fn preemptive(seed: u64, rho: f64) -> (f64, f64) {
    let between = exponential(2e6 / rho);
    let work = exponential(1e6);
    let mut rngs = [0, 1, 2, 3].map(|n| Rng::from_seed(seed * 4 + n));
    let mut events = EventQueue::new();
    let mut queues: [VecDeque<(f64, Nanos)>; 2] = [VecDeque::new(), VecDeque::new()];
    let (mut last, mut timer, mut arrived) = (Nanos::ZERO, TimerId::NONE, 0u64);
    let mut times = [(0.0, 0u64); 2];
    (0..2).for_each(|class| events.schedule(Nanos::ZERO, Event::new(ARRIVE, class, 0)));
    while let Some((now, event)) = events.pop_until(Nanos::MAX) {
        let served = usize::from(queues[0].is_empty());
        if let Some(front) = queues[served].front_mut() {
            front.0 -= (now - last).0 as f64;
        }
        last = now;
        if event.kind() == ARRIVE {
            let class = event.id as usize;
            arrived += 1;
            queues[class].push_back((work.sample(&mut rngs[2 + class]).0 as f64, now));
            if arrived < REQUESTS {
                events.schedule(now + between.sample(&mut rngs[class]), event);
            }
        } else if let Some((_, began)) = queues[served].pop_front() {
            times[served] = (times[served].0 + (now - began).0 as f64 / 1e6, times[served].1 + 1);
        }
        events.cancel(timer);
        let next = usize::from(queues[0].is_empty());
        timer = match queues[next].front() {
            Some((left, _)) => {
                events.schedule_timer(now + Nanos(left.max(0.0) as u64), Event::new(DONE, 0, 0))
            }
            None => TimerId::NONE,
        };
    }
    (times[0].0 / times[0].1 as f64, times[1].0 / times[1].1 as f64)
}

#[test]
fn closed_forms_two_priorities_with_preemption() {
    for rho in [0.5, 0.8, 0.95] {
        if cfg!(debug_assertions) && rho > 0.9 {
            continue; // As above.
        }
        let half = 0.5 * rho;
        let runs: Vec<(f64, f64)> = (0..RUNS).map(|seed| preemptive(seed + 1, rho)).collect();
        // T_k = E[S]/(1 − σ_{k−1}) + ½Σλ E[S²] / ((1 − σ_{k−1})(1 − σ_k)), and ½λE[S²] = ρ/2 for each class.
        let first = 1.0 + half / (1.0 - half);
        let second = 1.0 / (1.0 - half) + rho / ((1.0 - half) * (1.0 - rho));
        agrees("first class", &runs.iter().map(|it| it.0).collect::<Vec<f64>>(), first);
        agrees("second class", &runs.iter().map(|it| it.1).collect::<Vec<f64>>(), second);
    }
}
