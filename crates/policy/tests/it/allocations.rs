//! Deciding never allocates. Counted, not timed, so the test does not flicker.

use policy::settings::{self, Balance, BalanceKind, Concurrency, Discipline, Locality, Priority, Trip};
use policy::{
    Arrival, Ask, Attempt, Backoff, Balancer, Breaker, Budget, Bulkheads, Deadline, Endpoint, HedgeState,
    Limiter, Next, Outcome, Overload, Place, Popped, Pushed, Queue, RateLimit, RetryState, Sample, Throttle,
    Turn, eject, shed, subset,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use units::{Nanos, Percent, Rate, Rng};

thread_local! {
    // Per thread, because other tests of this binary allocate meanwhile.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// Counting what is asked of the system's allocator is only possible by being the allocator. Every call is passed on
// unchanged, and the counter neither allocates nor has a destructor.
#[allow(unsafe_code, reason = "a global allocator cannot be written without it")]
// SAFETY: see above; the contract of each method is that of `System`, to which its arguments go unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|it| it.set(it.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|it| it.set(it.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `work` a thousand times after a warm-up in which queues may grow to their length.
#[track_caller]
fn check(what: &str, mut work: impl FnMut(Nanos)) {
    (0..1_000).for_each(|n| work(Nanos::from_millis(n)));
    let before = ALLOCATIONS.with(Cell::get);
    (1_000..2_000).for_each(|n| work(Nanos::from_millis(n)));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{what} allocates");
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.with(Cell::get);
    std::hint::black_box(Box::new(7u64));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1);
}

fn endpoints() -> Vec<Endpoint> {
    let place = |n: u64| Place { region: 0, zone: (n % 3) as u16 };
    (0..64)
        .map(|n| Endpoint { weight: n as u32 % 5 + 1, version: n as u16 % 2, ..Endpoint::new(n, place(n)) })
        .collect()
}

#[test]
fn picking_does_not_allocate() {
    use BalanceKind::*;
    for kind in [RoundRobin, LeastRequest, PeakEwma, Random, RingHash, Maglev] {
        for locality in [Locality::Any, Locality::PreferZone, Locality::ZoneOnly] {
            let settings = Balance { kind, slow_start: Nanos::from_secs(5), ..Balance::default() };
            let mut endpoints = endpoints();
            endpoints[7].joined = Some(Nanos::ZERO);
            let mut balancer = Balancer::new(settings, locality, Place::default());
            balancer.refresh(&endpoints);
            let (mut rng, eject) = (Rng::from_seed(1), settings::Eject::default());
            let mut tried = [0; 3];
            check(&format!("{kind:?} {locality:?}"), |now| {
                let ask = Ask { now, hash: Some(now.0), version: Some((now.0 % 2) as u16), tried: &tried };
                let index = balancer.pick(&endpoints, &ask, &mut rng).expect("many are left").index;
                tried[now.0 as usize % 3] = index;
                let outcome = if rng.chance(0.3) { Outcome::Status(503) } else { Outcome::Status(200) };
                endpoints[index as usize].on_start();
                endpoints[index as usize].on_finish(now, Nanos::from_millis(5), outcome, None);
                eject::on_outcome(&eject, &mut endpoints, index as usize, outcome, now);
                eject::sweep(&eject, &mut endpoints, now);
                eject::restore(&mut endpoints, now);
            });
        }
    }
}

#[test]
fn trying_again_does_not_allocate() {
    let settings = settings::Retry::default();
    let hedge = settings::Hedge { after: Nanos(1), copies: 2, budget: settings::Budget::default() };
    let (mut budget, mut rng) = (Budget::new(&settings::Budget::default(), 1), Rng::from_seed(1));
    let mut consecutive = Breaker::new(settings::Breaker::default());
    let trip =
        Trip::Rate { errors: Percent::from_whole(50), requests_min: 5, window: Nanos::from_millis(100) };
    let mut rate = Breaker::new(settings::Breaker { trip, ..settings::Breaker::default() });
    check("retry, hedge, breaker", |now| {
        budget.on_request(now);
        let deadline = Deadline::within(now, Nanos::from_secs(1)).tighten(now, Nanos::from_millis(200));
        let attempt = Attempt { idempotent: true, ..Attempt::ended(Outcome::Status(503), deadline) };
        let mut state = RetryState::default();
        while let Next::Retry { .. } = state.next(&settings, &attempt, Some(&mut budget), now, &mut rng) {}
        Backoff::default().next(&settings.backoff, true, &mut rng);
        let mut copies = HedgeState::start(now);
        copies.on_time(&hedge, true, deadline, &mut budget, now + Nanos(2));
        copies.on_end(&hedge, &attempt, true, &mut budget, now + Nanos(3));
        for breaker in [&mut consecutive, &mut rate] {
            if let Some(permit) = breaker.admit(now) {
                breaker.on_result(now, permit, attempt.outcome);
            }
        }
    });
}

#[test]
fn limits_and_queues_do_not_allocate() {
    let mut rng = Rng::from_seed(1);
    let mut limiters = [
        Concurrency::Static { max: 4 },
        Concurrency::Gradient { min: 1, max: 9 },
        Concurrency::Vegas { max: 9 },
        Concurrency::Aimd { min: 1, max: 9 },
    ]
    .map(Limiter::new);
    let mut bulkheads = Bulkheads::new(8, &[Percent::from_whole(50); 2]);
    let mut rate = RateLimit::new(settings::RateLimit { rate: Rate::per_second_whole(100), burst: 3 });
    let settings = settings::Throttle { k_thousandths: 2_000, window: Nanos::from_secs(120) };
    let mut throttle = Throttle::new(settings, Nanos::from_millis(1));
    let codel = Discipline::CoDel { target: Nanos::from_millis(5), interval: Nanos::from_millis(100) };
    let mut queues = [Discipline::Fifo, Discipline::Lifo, Discipline::AdaptiveLifo, codel]
        .map(|discipline| Queue::<u64>::new(settings::Queue { max: Some(8), discipline }));
    check("limits and queues", |now| {
        for limiter in &mut limiters {
            if limiter.try_start() {
                limiter.finish(now, Nanos::from_millis(3), Sample::Ok, &mut rng);
            }
        }
        if bulkheads.try_start(1) {
            bulkheads.finish(1);
        }
        let _ = rate.take(now, 1);
        if throttle.admit(now, Priority::Critical, &mut rng) && rng.chance(0.4) {
            throttle.on_accept(now, Priority::Critical);
        }
        std::hint::black_box(shed::admits(Priority::Sheddable, 3, 4));
        std::hint::black_box(subset::by_weight(&[(1, 10), (2, 90)], now.0));
        for queue in &mut queues {
            for item in 0..3 {
                if let Pushed::Waits(ticket) = queue.push(now, item, Priority::Critical, Deadline::NEVER)
                    && item == 1
                {
                    queue.cancel(ticket);
                }
            }
            while let Some(Popped::Drop { .. }) = queue.pop(now) {}
        }
    });
    std::hint::black_box(Sample::from(Outcome::Timeout));
}

#[test]
fn admission_does_not_allocate() {
    let mut door = Overload::<u64>::new(settings::Overload::default());
    let mut running = std::collections::VecDeque::with_capacity(4_096);
    check("overload", |now| {
        for item in 0..3 {
            if let Arrival::Start(started) = door.arrive(now, item, Priority::Critical, Deadline::NEVER) {
                running.push_back(started);
            }
        }
        // One a millisecond ends: overload, so that all parts are at work.
        if let Some(started) = running.pop_front() {
            let sample = if now.0 % 7 == 0 { Sample::Abandoned } else { Sample::Ok };
            door.finish(now, started, sample);
        }
        while let Some(turn) = door.next(now) {
            if let Turn::Start(_, started) = turn {
                running.push_back(started);
            }
        }
    });
}
