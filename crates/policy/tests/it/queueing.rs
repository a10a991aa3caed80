//! Known results of queueing theory, reproduced by a small simulation that only asks the policies.

use policy::settings::{self, Balance, BalanceKind, Locality};
use policy::{Ask, Attempt, Balancer, Budget, Deadline, Endpoint, Next, Outcome, Place, RetryState};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use units::{Nanos, Percent, Purpose, Rate, Rng, math};

/// Mean time in the system, in service times, of `servers` exponential servers at utilisation `rho`.
fn mean_time(kind: BalanceKind, servers: usize, rho: f64, requests: usize) -> f64 {
    const SERVICE: f64 = 1e6;
    let mut arrivals = Rng::stream(1, 1, Purpose::Arrival);
    let mut work = Rng::stream(1, 2, Purpose::Work);
    let mut luck = Rng::stream(1, 3, Purpose::Balance);
    let exponential = |rng: &mut Rng, mean: f64| Nanos((-math::ln(rng.unit_open()) * mean) as u64 + 1);
    let mut endpoints: Vec<Endpoint> =
        (0..servers as u64).map(|it| Endpoint::new(it, Place::default())).collect();
    let settings = Balance { kind, ..Balance::default() };
    let mut balancer = Balancer::new(settings, Locality::Any, Place::default());
    balancer.refresh(&endpoints);
    let mut lines: Vec<VecDeque<Nanos>> = vec![VecDeque::new(); servers];
    let mut ends = BinaryHeap::<Reverse<(Nanos, u32)>>::new();
    let (mut next, mut sum, mut count, mut came) = (Nanos::ZERO, 0.0, 0u64, 0);
    while came < requests {
        if let Some(Reverse((now, server))) = ends.peek().copied().filter(|it| it.0.0 <= next) {
            ends.pop();
            let line = &mut lines[server as usize];
            let since = line.pop_front().expect("somebody was served");
            endpoints[server as usize].on_finish(now, now - since, Outcome::Status(200), None);
            if !line.is_empty() {
                ends.push(Reverse((now + exponential(&mut work, SERVICE), server)));
            }
            // The first fifth fills the system.
            if came > requests / 5 {
                sum += (now - since).0 as f64 / SERVICE;
                count += 1;
            }
            continue;
        }
        let now = next;
        came += 1;
        let picked =
            balancer.pick(&endpoints, &Ask { now, ..Ask::default() }, &mut luck).expect("all are well");
        endpoints[picked.index as usize].on_start();
        let line = &mut lines[picked.index as usize];
        line.push_back(now);
        if line.len() == 1 {
            ends.push(Reverse((now + exponential(&mut work, SERVICE), picked.index)));
        }
        next = now + exponential(&mut arrivals, SERVICE / (rho * servers as f64));
    }
    sum / count as f64
}

#[test]
fn two_choices_take_what_theory_says() {
    // Σ ρ^(2^i − 2): 2.61 at 0.9 with many servers, against 1/(1 − ρ) = 10 for a choice at random.
    let theory = |rho: f64| (1..30).map(|i| rho.powi((1i32 << i.min(20)) - 2)).sum::<f64>();
    assert!((theory(0.9) - 2.61).abs() < 0.01);
    for (rho, requests) in [(0.5, 60_000), (0.9, 250_000)] {
        let seen = mean_time(BalanceKind::LeastRequest, 250, rho, requests);
        assert!((seen / theory(rho) - 1.0).abs() < 0.05, "{rho}: {seen} against {}", theory(rho));
    }
    let at_random = mean_time(BalanceKind::Random, 100, 0.5, 100_000);
    assert!((at_random / 2.0 - 1.0).abs() < 0.05, "{at_random} against 2");
}

#[test]
fn round_robin_beats_chance_and_two_choices_beat_round_robin() {
    let [chance, turns, two] = [BalanceKind::Random, BalanceKind::RoundRobin, BalanceKind::LeastRequest]
        .map(|kind| mean_time(kind, 50, 0.8, 60_000));
    assert!(two < turns && turns < chance, "{two} {turns} {chance}");
}

/// Every attempt fails: attempts for each request.
fn amplification(attempts: u8, budget: Option<settings::Budget>, rate: u64) -> f64 {
    let settings = settings::Retry { attempts, budget, ..settings::Retry::default() };
    let mut budget = budget.map(|it| Budget::new(&it, 1));
    let (mut rng, mut sent, requests) = (Rng::from_seed(1), 0u64, 30 * rate);
    for n in 0..requests {
        let now = Nanos(n * 1_000_000_000 / rate);
        if let Some(it) = &mut budget {
            it.on_request(now);
        }
        let attempt = Attempt { idempotent: true, ..Attempt::ended(Outcome::Status(503), Deadline::NEVER) };
        let mut state = RetryState::default();
        sent += 1;
        while let Next::Retry { .. } = state.next(&settings, &attempt, budget.as_mut(), now, &mut rng) {
            sent += 1;
        }
    }
    sent as f64 / requests as f64
}

#[test]
fn a_budget_turns_four_times_into_one_and_a_fifth() {
    let budget = |ratio, floor| {
        Some(settings::Budget {
            ratio: Percent::from_whole(ratio),
            floor: Rate::per_second_whole(floor),
            window: Nanos::from_secs(10),
        })
    };
    for (attempts, budget, rate, expected) in [
        (4, None, 100, 4.0),
        (4, budget(20, 0), 100, 1.2),
        (4, budget(10, 0), 100, 1.1),
        (4, budget(20, 10), 100, 1.3), // 1 + ratio + floor/λ
        (4, budget(20, 10), 1_000, 1.21),
    ] {
        let seen = amplification(attempts, budget, rate);
        assert!((seen - expected).abs() < 0.01, "{budget:?} at {rate}/s: {seen} against {expected}");
    }
}
