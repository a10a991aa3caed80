//! A whole small system in virtual time: callers that give up, the admission, and an instance that works on for those who
//! left. Goodput is what arrives in time, as a share of what the instance could do.

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use units::{Purpose, Rng};

/// How long work takes, given its mean.
#[derive(Clone, Copy, Debug)]
enum Work {
    Constant,
    Exponential,
    /// Nine of ten take half of the mean, one takes 5.5 times the mean.
    Tailed,
}

#[derive(Clone, Copy)]
struct Case {
    slots: u32,
    work: Work,
    /// Mean work from the start, and from `changes_at` on.
    work_ms: [u64; 2],
    /// Requests a second from the start, and from `changes_at` on.
    rate: [f64; 2],
    changes_at: Nanos,
    ends: Nanos,
    gives_up: Nanos,
    with_admission: bool,
}

const STEADY: Case = Case {
    slots: 10,
    work: Work::Constant,
    work_ms: [10, 10],
    rate: [3_000.0, 3_000.0],
    changes_at: Nanos::from_secs(1),
    ends: Nanos::from_secs(12),
    gives_up: Nanos::from_secs(1),
    with_admission: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    GiveUp(usize),
    WorkEnds(usize),
    Due,
}

#[derive(Clone, Copy)]
enum State {
    /// Sent past the admission.
    Unguarded,
    Waiting(Ticket),
    Sent(Started),
    Over,
}

struct Request {
    at: Nanos,
    state: State,
}

/// For every second: arrivals, answers in time, refusals.
type Seconds = Vec<[u32; 3]>;

fn run(case: Case, seed: u64) -> Seconds {
    let mut arrivals = Rng::stream(seed, 1, Purpose::Arrival);
    let mut work = Rng::stream(seed, 2, Purpose::Work);
    let mut door = Overload::new(settings::Overload::default());
    let mut seconds: Seconds = vec![[0; 3]; case.ends.0.div_ceil(1_000_000_000) as usize + 2];
    let mut events = BinaryHeap::from([Reverse((Nanos::ZERO, 0u64, Event::Arrive))]);
    let (mut requests, mut sequence) = (Vec::<Request>::new(), 0u64);
    // The instance: its own queue without bound, in order, and whoever left stays in it.
    let (mut backlog, mut busy) = (VecDeque::new(), 0);
    while let Some(Reverse((now, _, event))) = events.pop() {
        if now > case.ends {
            break;
        }
        let mut later = |at: Nanos, event: Event| {
            sequence += 1;
            events.push(Reverse((at, sequence, event)));
        };
        let phase = usize::from(now >= case.changes_at);
        let second = (now.0 / 1_000_000_000) as usize;
        match event {
            Event::Arrive => {
                seconds[second][0] += 1;
                let id = requests.len();
                later(
                    now + Nanos::from_secs_f64(-units::math::ln(arrivals.unit_open()) / case.rate[phase]),
                    Event::Arrive,
                );
                later(now + case.gives_up, Event::GiveUp(id));
                let arrival =
                    case.with_admission.then(|| door.arrive(now, id, Priority::Critical, Deadline::NEVER));
                let state = match arrival {
                    None => {
                        backlog.push_back(id);
                        State::Unguarded
                    }
                    Some(Arrival::Start(started)) => {
                        backlog.push_back(id);
                        State::Sent(started)
                    }
                    Some(Arrival::Wait(ticket)) => State::Waiting(ticket),
                    Some(Arrival::WaitInstead(ticket, other)) => {
                        requests[other].state = State::Over;
                        seconds[second][2] += 1;
                        State::Waiting(ticket)
                    }
                    Some(Arrival::Refuse(..)) => {
                        seconds[second][2] += 1;
                        State::Over
                    }
                };
                requests.push(Request { at: now, state });
            }
            Event::GiveUp(id) => match std::mem::replace(&mut requests[id].state, State::Over) {
                State::Waiting(ticket) => drop(door.cancel(ticket)),
                State::Sent(started) => door.finish(now, started, Sample::Abandoned),
                State::Over | State::Unguarded => {}
            },
            Event::WorkEnds(id) => {
                busy -= 1;
                let state = std::mem::replace(&mut requests[id].state, State::Over);
                if let State::Sent(started) = state {
                    door.finish(now, started, Sample::Ok);
                }
                if !matches!(state, State::Over) {
                    seconds[second][1] += u32::from(now - requests[id].at <= case.gives_up);
                }
            }
            Event::Due => {}
        }
        while let Some(turn) = door.next(now) {
            match turn {
                Turn::Start(id, started) => {
                    requests[id].state = State::Sent(started);
                    backlog.push_back(id);
                }
                Turn::Refuse(id, _) => {
                    requests[id].state = State::Over;
                    seconds[second][2] += 1;
                }
            }
        }
        // A wake-up per arrival is plenty, and keeps the list of events short.
        if event == Event::Arrive
            && let Some(due) = door.due(now)
        {
            later(due.max(now + Nanos(1)), Event::Due);
        }
        while busy < case.slots
            && let Some(id) = backlog.pop_front()
        {
            busy += 1;
            let mean = Nanos::from_millis(case.work_ms[phase]);
            let takes = match case.work {
                Work::Constant => mean,
                Work::Exponential => mean.mul_f64(-units::math::ln(work.unit_open())),
                Work::Tailed => mean.mul_f64(if work.chance(0.1) { 5.5 } else { 0.5 }),
            };
            later(now + takes, Event::WorkEnds(id));
        }
    }
    seconds
}

fn total(seconds: &[[u32; 3]], what: usize) -> f64 {
    seconds.iter().map(|it| f64::from(it[what])).sum()
}

/// Answers in time as a share of capacity, from that second on.
fn goodput(case: Case, from: usize, seed: u64) -> f64 {
    let capacity = f64::from(case.slots) * 1e3 / case.work_ms[0] as f64;
    let seconds = case.ends.0 as usize / 1_000_000_000 - from;
    total(&run(case, seed)[from..from + seconds], 1) / (capacity * seconds as f64)
}

#[test]
fn without_admission_everything_is_lost() {
    let seen = goodput(Case { with_admission: false, ..STEADY }, 0, 1);
    assert!(seen < 0.15, "{seen}: half a second of a cold start, and then nothing");
}

#[test]
fn at_three_times_capacity_nine_tenths_are_kept_from_the_cold_start_on() {
    for work in [Work::Constant, Work::Exponential, Work::Tailed] {
        // Callers of little patience are lost while the cold start is found out, which takes a second or two.
        for (gives_up_ms, from) in [(1_000, 0), (300, 3)] {
            let seen = goodput(Case { work, gives_up: Nanos::from_millis(gives_up_ms), ..STEADY }, from, 1);
            assert!(seen >= 0.90, "{work:?}, patience {gives_up_ms} ms: {seen}");
        }
    }
}

#[test]
fn whatever_the_instance_and_the_overload() {
    for (slots, work_ms) in [(1, 10), (4, 50), (100, 50), (1, 100)] {
        for work in [Work::Constant, Work::Exponential, Work::Tailed] {
            for overload in [1.1, 3.0, 10.0] {
                let capacity = f64::from(slots) * 1e3 / work_ms as f64;
                let rate = [capacity * overload; 2];
                let seconds = (4_000.0 / rate[0]).clamp(7.0, 30.0) as u64;
                let case = Case {
                    slots,
                    work,
                    work_ms: [work_ms; 2],
                    rate,
                    ends: Nanos::from_secs(seconds),
                    ..STEADY
                };
                let seen = goodput(case, 5, 1);
                // Ten a second, some of them half a second long: eight samples are most of a second.
                let least = if capacity < 50.0 { 0.65 } else { 0.85 };
                assert!(seen >= least, "{slots} slots of {work_ms} ms, {work:?}, {overload} times: {seen}");
            }
        }
    }
}

#[test]
fn it_recovers_within_five_seconds() {
    for (slots, work_ms) in [(10, 10), (2, 50)] {
        let capacity = f64::from(slots) * 1e3 / work_ms as f64;
        let rate = [3.0 * capacity, 0.5 * capacity];
        let case = Case {
            slots,
            work_ms: [work_ms; 2],
            rate,
            changes_at: Nanos::from_secs(20),
            ends: Nanos::from_secs(35),
            ..STEADY
        };
        let seconds = run(case, 1);
        let after = &seconds[21..34];
        assert_eq!(total(after, 2), 0.0, "refused after one second of half load: {after:?}");
        assert!(total(after, 1) > 0.98 * total(after, 0), "{after:?}");
    }
}

#[test]
fn what_is_not_overloaded_is_not_limited() {
    for (slots, work_ms, rate) in [(10, 10, 800.0), (100, 1_000, 80.0), (2_000, 500, 3_000.0), (1, 2, 300.0)]
    {
        for work in [Work::Constant, Work::Exponential, Work::Tailed] {
            let case = Case {
                slots,
                work,
                work_ms: [work_ms; 2],
                rate: [rate; 2],
                ends: Nanos::from_secs(20),
                gives_up: Nanos::from_secs(60),
                ..STEADY
            };
            let seconds = run(case, 1);
            let refused = total(&seconds, 2) / total(&seconds, 0);
            // A cold start of slow work that is scattered widely is taken for overload until that has been tried out.
            // Fifteen hundred at once are more than the limit at the start, and it takes a second to see that they do no harm.
            let most = match work {
                _ if work_ms < 500 => 0.0,
                Work::Constant => 0.02,
                _ => 0.3,
            };
            assert!(refused <= most, "{slots} slots of {work_ms} ms, {work:?}: {refused}");
            let later = total(&seconds[10..], 2) / total(&seconds[10..], 0);
            assert!(later < 0.05, "{slots} slots of {work_ms} ms, {work:?}: {later}");
        }
    }
}

#[test]
fn work_that_gets_slower_is_not_taken_for_overload_for_long() {
    // From 10 to 300 ms with slots to spare: an admission that held on to its 10 ms would let a sixth through.
    for work in [Work::Constant, Work::Exponential, Work::Tailed] {
        let case = Case {
            slots: 1_000,
            work,
            work_ms: [10, 300],
            rate: [1_000.0; 2],
            changes_at: Nanos::from_secs(5),
            ends: Nanos::from_secs(20),
            gives_up: Nanos::from_secs(60),
            ..STEADY
        };
        let seconds = run(case, 1);
        assert!(total(&seconds, 2) < 4.0 * case.rate[0], "{work:?}: {seconds:?}");
        assert_eq!(total(&seconds[11..], 2), 0.0, "{work:?}: {seconds:?}");
    }
}

#[test]
fn the_important_come_first() {
    let mut door =
        Overload::new(settings::Overload { limit_max: 1, queue_max: 2, wait_max: Nanos::from_secs(1) });
    let arrive = |door: &mut Overload<&'static str>, name, priority| {
        door.arrive(Nanos(1), name, priority, Deadline::NEVER)
    };
    let Arrival::Start(first) = arrive(&mut door, "first", Priority::Sheddable) else {
        panic!("there is room")
    };
    assert!(matches!(arrive(&mut door, "batch", Priority::Sheddable), Arrival::Wait(_)));
    assert!(matches!(arrive(&mut door, "user", Priority::Critical), Arrival::Wait(_)));
    assert!(matches!(arrive(&mut door, "pay", Priority::CriticalPlus), Arrival::WaitInstead(_, "batch")));
    assert_eq!(arrive(&mut door, "more", Priority::Sheddable), Arrival::Refuse("more", Refusal::QueueFull));
    assert!(door.next(Nanos(2)).is_none());
    door.finish(Nanos(3), first, Sample::Ok);
    assert!(matches!(door.next(Nanos(3)), Some(Turn::Start("pay", _))));
    assert_eq!(door.due(Nanos(3)), Some(Nanos::from_secs(1) + Nanos(1)));
    assert_eq!(door.refused(), 2);
}

#[test]
fn an_instance_that_was_stuck_is_not_shut_out_for_ever() {
    let patience = Nanos::from_millis(500);
    // Stuck from the beginning, and after a life in good health, wherever in a window that ends.
    for healthy in [0, 100, 101, 102, 103, 104, 105, 106, 107] {
        let mut door = Overload::<()>::new(settings::Overload::default());
        let mut now = Nanos::from_secs(1);
        let mut ask = |takes_ms, sample| {
            now += Nanos::from_secs(1);
            let takes = Nanos::from_millis(takes_ms);
            match door.arrive(now, (), Priority::default(), Deadline::within(now, patience)) {
                Arrival::Start(started) => door.finish(now + takes, started, sample),
                other => panic!("whoever finds nobody there is let in: {other:?}"),
            }
            door.base()
        };
        let _ = (0..healthy).filter_map(|_| ask(2, Sample::Ok)).last();
        let stuck = (0..50).filter_map(|_| ask(501, Sample::Dropped)).last();
        assert!(healthy > 0 || stuck > Some(patience), "nobody would be in time: {stuck:?}");
        let again = (0..500).filter_map(|_| ask(2, Sample::Ok)).last();
        assert!(again < Some(patience), "and those who are let in correct it: {again:?}");
    }
}

#[test]
fn what_cannot_be_in_time_is_refused_at_the_door() {
    let mut door = Overload::<u8>::new(settings::Overload::default());
    for n in 0..20 {
        let now = Nanos::from_millis(n * 20);
        let Arrival::Start(started) = door.arrive(now, 0, Priority::Critical, Deadline::NEVER) else {
            panic!("room")
        };
        door.finish(now + Nanos::from_millis(10), started, Sample::Ok);
    }
    let now = Nanos::from_secs(1);
    assert_eq!(door.base(), Some(Nanos::from_millis(10)));
    let tight = Deadline::within(now, Nanos::from_millis(9));
    let alone = door.arrive(now, 1, Priority::Critical, tight);
    assert!(matches!(alone, Arrival::Start(_)), "it takes nobody's place");
    assert_eq!(door.arrive(now, 1, Priority::Critical, tight), Arrival::Refuse(1, Refusal::Late));
}

proptest::proptest! {
    /// Everybody who came is started, refused, cancelled or still there; and what runs never exceeds the limit it met.
    #[test]
    fn everybody_is_accounted_for(
        limit_max in 1u32..6,
        queue_max in 0u32..6,
        steps in proptest::collection::vec((0u64..80, 0u8..6, 0u8..4), 1..300),
    ) {
        let mut door = Overload::new(settings::Overload { limit_max, queue_max, wait_max: Nanos::from_millis(200) });
        let priorities = [Priority::Sheddable, Priority::SheddablePlus, Priority::Critical, Priority::CriticalPlus];
        let (mut now, mut came, mut over) = (Nanos::ZERO, 0u32, 0u32);
        let (mut running, mut tickets) = (Vec::new(), Vec::new());
        for (wait, what, priority) in steps {
            now += Nanos::from_millis(wait);
            match what {
                0..=2 => {
                    came += 1;
                    match door.arrive(now, came, priorities[usize::from(priority)], Deadline::NEVER) {
                        Arrival::Start(started) => running.push(started),
                        Arrival::Wait(ticket) => tickets.push(ticket),
                        Arrival::WaitInstead(ticket, _) => {
                            tickets.push(ticket);
                            over += 1;
                        }
                        Arrival::Refuse(..) => over += 1,
                    }
                }
                3 if !tickets.is_empty() => {
                    let ticket = tickets.swap_remove(usize::from(priority) % tickets.len());
                    over += u32::from(door.cancel(ticket).is_some());
                }
                _ if !running.is_empty() => {
                    let started = running.swap_remove(usize::from(priority) % running.len());
                    let sample = [Sample::Ok, Sample::Dropped, Sample::Abandoned, Sample::Ignored][usize::from(priority)];
                    door.finish(now, started, sample);
                    over += 1;
                }
                _ => {}
            }
            while let Some(turn) = door.next(now) {
                match turn {
                    Turn::Start(_, started) => running.push(started),
                    Turn::Refuse(..) => over += 1,
                }
            }
            proptest::prop_assert_eq!(came, over + running.len() as u32 + door.waiting() as u32);
            proptest::prop_assert_eq!(door.in_flight() as usize, running.len());
            proptest::prop_assert!(door.in_flight() <= limit_max && door.waiting() <= queue_max as usize);
            proptest::prop_assert!(door.due(now).is_none_or(|due| due > now));
        }
    }
}
