//! The waiting room: which finished requests become spans.
//!
//! Making spans of a request and writing them down costs several times what counting it does, and of most traces
//! nobody will ever ask. So up to a number of spans a second all requests become spans; beyond, those of a share of all
//! traces, chosen by the trace's id so that every part of a trace is chosen alike, and those of every trace in which
//! something happened: a failure, a retry, a breaker, a fault, or one of the slowest calls of an edge. What happened may
//! be known last, so requests outside the share wait here for a moment, as plain records; if any of their trace turns
//! out to matter, all of them become spans.
//!
//! A request that leaves the room without becoming a span is in all numbers, and in the dependency links: those are
//! counted here by edge.
//!
//! Bounded: so many records (the oldest leave first), so long; ids of traces that matter, as many.

use crate::edges::EdgeNames;
use proxy::record::Finished;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use telemetry::ids::TraceId;
use telemetry::traces::in_share;
use units::Nanos;

#[derive(Clone, Copy, Debug)]
pub struct RoomSettings {
    /// Unremarkable requests that become spans, a second. Below, all do.
    pub plain_a_second: f64,
    pub records_max: usize,
    /// How long a record waits for something to happen in its trace.
    pub hold: Nanos,
    /// Slowest calls of each edge that matter, within each window.
    pub slowest: usize,
    pub window: Nanos,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            plain_a_second: 2_000.0,
            records_max: 32_768,
            hold: Nanos::from_secs(3),
            slowest: 3,
            window: Nanos::from_secs(60),
        }
    }
}

/// Records as they came, in the list they came in: they wait where a worker wrote them, for moving them would cost more
/// than all that is decided about nearly all of them.
#[derive(Debug)]
struct List {
    /// Number of its first record; numbers begin at one and go up.
    first: u64,
    since: Nanos,
    generation: u64,
    records: Vec<Finished>,
    places: Vec<Place>,
}

/// A record's place in the room.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// It became no spans so far, and may still.
    waits: bool,
    /// It is a call over `edge`.
    called: bool,
    edge: u32,
    /// Number of the one before it whose trace falls into the same of [`Room::newest`]; zero: none.
    before: u64,
}

/// Calls and errors over one edge that became no spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncounted {
    pub calls: u64,
    pub errors: u64,
}

/// Records that a list may have room for and does not hold, beyond as many as it holds.
const SLACK: usize = 64;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    share: f64,
    /// Unremarkable requests since `second_began`.
    seen: u64,
    second_began: Nanos,
    lists: VecDeque<List>,
    /// Records in all lists.
    held: usize,
    /// Number of the next record.
    next: u64,
    /// Number of the newest record that waits, by its trace's hash; one that is gone is none.
    newest: Box<[u64]>,
    hasher: foldhash::fast::RandomState,
    /// Traces that matter, and since when.
    wanted: Map<u128, Nanos>,
    wanted_order: VecDeque<(u128, Nanos)>,
    slowest: Slowest,
    generation: u64,
    before: Option<u64>,
    uncounted: Vec<Uncounted>,
    /// Lists that nobody needs any more; take them, for their memory.
    pub spare: Vec<Vec<Finished>>,
    /// Requests that became no spans, ever.
    pub passed_over: u64,
    /// Of these, pushed out before their time.
    pub pushed_out: u64,
}

/// The slowest calls of each edge within a window.
#[derive(Debug)]
struct Slowest {
    each: usize,
    window: Nanos,
    window_ends: Nanos,
    /// By edge, ascending.
    edges: Vec<Vec<Nanos>>,
}

impl Slowest {
    fn is_among(&mut self, record: &Finished, now: Nanos) -> bool {
        if now >= self.window_ends {
            self.edges.iter_mut().for_each(Vec::clear);
            self.window_ends = now + self.window;
        }
        let Some(edge) = self.edges.get_mut(record.edge as usize) else { return false };
        if edge.len() == self.each {
            if edge.first().is_none_or(|fastest| record.duration <= *fastest) {
                return false;
            }
            edge.remove(0);
        }
        let at = edge.partition_point(|it| *it < record.duration);
        edge.insert(at, record.duration);
        true
    }
}

/// Whether this request alone is reason enough.
fn matters(record: &Finished) -> bool {
    crate::spans::failed(record)
        || !record.error.is_empty()
        || !record.fault.is_empty()
        || record.attempts > 1
        || record.tries.is_some()
        || record.breaker_open
        || record.ejected
}

impl Room {
    pub fn new(settings: RoomSettings) -> Self {
        Self {
            settings,
            share: 1.0,
            seen: 0,
            second_began: Nanos::ZERO,
            lists: VecDeque::new(),
            held: 0,
            next: 1,
            newest: vec![0; settings.records_max.next_power_of_two()].into(),
            hasher: foldhash::fast::RandomState::default(),
            wanted: Map::default(),
            wanted_order: VecDeque::new(),
            slowest: Slowest {
                each: settings.slowest,
                window: settings.window,
                window_ends: Nanos::ZERO,
                edges: Vec::new(),
            },
            generation: 0,
            before: None,
            uncounted: Vec::new(),
            spare: Vec::new(),
            passed_over: 0,
            pushed_out: 0,
        }
    }

    /// Of all traces in which nothing happened: how many become spans.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Finished requests come in; what becomes spans on account of them is added to `chosen`. What belongs to edges that
    /// nobody knows, or to a snapshot that is long gone, is left out rather than misnamed.
    pub fn take(&mut self, records: Vec<Finished>, now: Nanos, chosen: &mut Vec<Finished>) {
        if records.is_empty() {
            self.spare.push(records);
            return;
        }
        while self.held > 0 && self.held + records.len() > self.settings.records_max {
            self.pushed_out += self.leave(|_| false, chosen);
        }
        let mut records = records;
        if records.capacity() > 2 * records.len() + SLACK {
            // It was made for more: room that nobody uses waits here with it.
            records.shrink_to_fit();
        }
        let places = Vec::with_capacity(records.len());
        let (first, generation) = (self.next, self.generation);
        let mut list = List { first, since: now, generation, records, places };
        self.next += list.records.len() as u64;
        self.held += list.records.len();
        for at in 0..list.records.len() {
            let record = &list.records[at];
            let place = Place { waits: false, called: record.client_span != 0, edge: record.edge, before: 0 };
            list.places.push(place);
            let is_now = record.generation == generation && (record.edge as usize) < self.uncounted.len();
            let known = is_now || Some(record.generation) == self.before;
            let Some(trace) = TraceId::new(record.trace_id).filter(|_| known) else { continue };
            // Said of all, so that a slow call is compared with all others of its edge.
            if (is_now && self.slowest.is_among(record, now)) || matters(record) {
                chosen.push(record.clone());
                self.want(trace.get(), &mut list, now, chosen);
                continue;
            }
            self.seen += 1;
            if in_share(trace, self.share) || self.wanted.contains_key(&trace.get()) {
                chosen.push(record.clone());
                continue;
            }
            let bucket = self.bucket(trace.get());
            let number = first + at as u64;
            let before = std::mem::replace(&mut self.newest[bucket], number);
            let place = &mut list.places[at];
            (place.waits, place.before) = (true, before);
        }
        if list.places.iter().any(|it| it.waits) {
            self.lists.push_back(list);
        } else {
            self.held -= list.records.len();
            self.spare.push(list.records);
        }
    }

    fn bucket(&self, trace: u128) -> usize {
        self.hasher.hash_one(trace) as usize & (self.newest.len() - 1)
    }

    /// Every part of this trace becomes spans, those that wait and those to come. `open` is the list being taken.
    fn want(&mut self, trace: u128, open: &mut List, now: Nanos, chosen: &mut Vec<Finished>) {
        if self.share >= 1.0 && self.lists.is_empty() {
            return; // All do anyway.
        }
        if self.wanted.contains_key(&trace) {
            return; // Whoever waited was called when it became so, and nobody waits since.
        }
        // Who is called leaves the row: a trace that is wanted again and again is not walked again and again.
        let bucket = self.bucket(trace);
        let (mut number, mut after) = (self.newest[bucket], None);
        while let Some((list, at)) = find(&mut self.lists, open, number) {
            let Place { waits, before, .. } = list.places[at];
            if waits && list.records[at].trace_id == trace {
                chosen.push(list.records[at].clone());
                list.places[at].waits = false;
                let newer = match after {
                    Some(it) => find(&mut self.lists, open, it),
                    None => None,
                };
                match newer {
                    Some((list, at)) => list.places[at].before = before,
                    None => self.newest[bucket] = before,
                }
            } else {
                after = Some(number);
            }
            number = before;
        }
        if self.wanted.len() < self.settings.records_max && self.wanted.insert(trace, now).is_none() {
            self.wanted_order.push_back((trace, now));
        }
    }

    /// The oldest list leaves, and who still waits in it becomes no spans, unless `belongs` says otherwise. How many
    /// did not.
    fn leave(&mut self, belongs: impl Fn(TraceId) -> bool, chosen: &mut Vec<Finished>) -> u64 {
        let Some(List { records, places, generation, .. }) = self.lists.pop_front() else { return 0 };
        self.held -= records.len();
        let mut left = 0;
        for (record, place) in records.iter().zip(&places).filter(|(_, place)| place.waits) {
            if TraceId::new(record.trace_id).is_some_and(&belongs) {
                chosen.push(record.clone());
                continue;
            }
            left += 1;
            if place.called
                && generation == self.generation
                && let Some(sum) = self.uncounted.get_mut(place.edge as usize)
            {
                // What failed never waits.
                sum.calls += 1;
            }
        }
        self.passed_over += left;
        self.spare.push(records);
        left
    }

    /// Lets go of what waited long enough. Applications may have said something of a trace: `holds` knows, and then its
    /// requests belong with that.
    pub fn tick(&mut self, now: Nanos, holds: impl Fn(TraceId) -> bool, chosen: &mut Vec<Finished>) {
        while self.lists.front().is_some_and(|it| now >= it.since + self.settings.hold) {
            self.leave(&holds, chosen);
        }
        while let Some((trace, since)) = self.wanted_order.front().copied() {
            if now < since + self.settings.hold {
                break;
            }
            self.wanted_order.pop_front();
            self.wanted.remove(&trace);
        }
        let over = now.saturating_sub(self.second_began);
        if over >= Nanos::from_secs(1) {
            let rate = self.seen as f64 / over.as_secs_f64();
            let fits = if rate > 0.0 { self.settings.plain_a_second / rate } else { 1.0 };
            // Down at once, for work piles up; up by and by, for a moment's silence promises nothing.
            self.share = fits.min(self.share * 1.5).min(1.0);
            (self.seen, self.second_began) = (0, now);
        }
    }

    /// The snapshot whose edges records are of from now on: call it before they come. Gives what was counted over
    /// edges of the one before, by number.
    pub fn follow(&mut self, edges: &EdgeNames) -> Vec<Uncounted> {
        if edges.generation == self.generation && edges.len() == self.uncounted.len() {
            return Vec::new();
        }
        let counted = std::mem::take(&mut self.uncounted);
        self.slowest.edges.iter_mut().for_each(Vec::clear);
        self.slowest.edges.resize_with(edges.len(), Vec::new);
        self.uncounted = vec![Uncounted::default(); edges.len()];
        if self.generation != edges.generation {
            self.before = Some(self.generation);
        }
        self.generation = edges.generation;
        counted
    }

    /// Calls that became no spans since the call before, by edge.
    pub fn uncounted(&mut self) -> impl Iterator<Item = (u32, Uncounted)> + '_ {
        let all = self.uncounted.iter_mut().enumerate().filter(|(_, it)| it.calls > 0);
        all.map(|(edge, it)| (edge as u32, std::mem::take(it)))
    }

    /// Records held, those that became spans included while others of their list wait.
    pub fn len(&self) -> usize {
        self.held
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

/// A record by its number: `None` once it left.
fn find<'a>(lists: &'a mut VecDeque<List>, open: &'a mut List, number: u64) -> Option<(&'a mut List, usize)> {
    let list = if number >= open.first {
        open
    } else {
        let after = lists.partition_point(|it| it.first <= number);
        lists.get_mut(after.checked_sub(1)?)?
    };
    let at = usize::try_from(number.checked_sub(list.first)?).ok()?;
    (at < list.places.len()).then_some((list, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::EdgeName;
    use crate::records::finished;

    fn room(plain_a_second: f64, records_max: usize) -> Room {
        let settings = RoomSettings { plain_a_second, records_max, slowest: 0, ..RoomSettings::default() };
        let mut room = Room::new(settings);
        room.follow(&EdgeNames::new(1, vec![EdgeName::of("edge->web"), EdgeName::of("web#0->cart")]));
        room
    }

    fn second(at: u64) -> Nanos {
        Nanos::from_secs(at)
    }

    fn plain(trace: u128) -> Finished {
        finished(second(0), Nanos::from_millis(1), trace)
    }

    /// Ids as a generator makes them.
    fn id(n: u64) -> u128 {
        u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A second of `many` unremarkable traces of two requests each; how many requests became spans.
    fn flood(room: &mut Room, at: u64, many: u64) -> usize {
        let mut chosen = Vec::new();
        for n in 0..many {
            let own = id(at << 32 | n);
            room.take(vec![plain(own), Finished { edge: 1, ..plain(own) }], second(at), &mut chosen);
        }
        room.tick(second(at), |_| false, &mut chosen);
        chosen.len()
    }

    #[test]
    fn below_the_limit_everything_becomes_spans_and_beyond_a_share_of_whole_traces() {
        let mut room = room(1_000.0, 100_000);
        assert_eq!(flood(&mut room, 1, 400), 800);
        assert_eq!(flood(&mut room, 2, 5_000), 10_000, "nobody knew that so many would come");
        let third = flood(&mut room, 3, 5_000);
        assert!((800..1_200).contains(&third), "{third}");
        assert_eq!(third % 2, 0, "whole traces");
        let shares: Vec<f64> = (4..12)
            .map(|at| {
                flood(&mut room, at, 100);
                room.share()
            })
            .collect();
        assert!(shares.is_sorted() && shares[0] < 0.2 && shares[7] == 1.0, "{shares:?}");
    }

    #[test]
    fn what_happened_last_saves_the_whole_trace() {
        let mut room = room(0.0, 100_000);
        flood(&mut room, 1, 10);
        let mut chosen = Vec::new();
        let earlier = vec![Finished { client_span: 1, ..plain(7) }, plain(8)];
        room.take(earlier, second(2), &mut chosen);
        let later = vec![
            Finished { client_span: 2, ..plain(7) },
            Finished { client_span: 3, status: 503, ..plain(7) },
            Finished { client_span: 4, ..plain(7) },
        ];
        room.take(later, second(2), &mut chosen);
        let mut spans: Vec<_> = chosen.iter().map(|it| (it.trace_id, it.client_span)).collect();
        spans.sort_unstable();
        assert_eq!(spans, [(7, 1), (7, 2), (7, 3), (7, 4)]);
        for reason in [
            Finished { attempts: 2, ..plain(20) },
            Finished { fault: "delay", ..plain(21) },
            Finished { breaker_open: true, ..plain(22) },
            Finished { error: "timeout", ..plain(23) },
        ] {
            let mut chosen = Vec::new();
            room.take(vec![reason], second(2), &mut chosen);
            assert_eq!(chosen.len(), 1);
        }
    }

    #[test]
    fn what_failed_just_before_a_change_matters_after_it() {
        let mut room = room(0.0, 100_000);
        room.share = 0.0;
        let mut failed_of = |generation: u64| {
            let mut chosen = Vec::new();
            room.follow(&EdgeNames::new(3, vec![EdgeName::of("edge->web")]));
            room.take(vec![Finished { status: 503, generation, ..plain(7) }], second(1), &mut chosen);
            chosen.len()
        };
        assert_eq!([failed_of(3), failed_of(1), failed_of(2)], [1, 1, 0], "nobody knew the one between");
    }

    #[test]
    fn the_slowest_of_an_edge_matter() {
        let mut room = room(0.0, 100_000);
        room.slowest.each = 2;
        room.share = 0.0;
        let mut take = |millis: u64, edge: u32, at: u64| {
            let mut chosen = Vec::new();
            let record = Finished { edge, duration: Nanos::from_millis(millis), ..plain(id(millis)) };
            room.take(vec![record], second(at), &mut chosen);
            chosen.len()
        };
        assert_eq!([take(5, 0, 1), take(9, 0, 1), take(3, 0, 1), take(7, 0, 1)], [1, 1, 0, 1]);
        assert_eq!([take(1, 1, 1), take(1, 0, 62)], [1, 1], "another edge, another window");
    }

    #[test]
    fn who_leaves_is_counted_by_edge_unless_somebody_else_speaks_of_its_trace() {
        let mut room = room(0.0, 4);
        room.share = 0.0;
        let mut chosen = Vec::new();
        for n in 1..=6 {
            room.take(vec![Finished { edge: 1, ..plain(n) }], second(1), &mut chosen);
        }
        assert_eq!((room.len(), room.pushed_out, chosen.len()), (4, 2, 0));
        room.tick(second(3), |_| false, &mut chosen);
        assert_eq!(room.len(), 4, "not yet");
        room.tick(second(4), |trace| trace.get() == 5, &mut chosen);
        assert_eq!(chosen.iter().map(|it| it.trace_id).collect::<Vec<_>>(), [5]);
        assert!(room.is_empty() && room.lists.is_empty());
        assert_eq!(room.spare.len(), 6, "their memory is used again");
        assert_eq!(room.uncounted().collect::<Vec<_>>(), [(1, Uncounted { calls: 5, errors: 0 })]);
        assert_eq!(room.uncounted().count(), 0, "said once");
        assert_eq!(room.passed_over, 5);
    }
}
