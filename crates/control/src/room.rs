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

#[derive(Debug)]
struct Waiting {
    since: Nanos,
    /// `None` once it became spans.
    record: Option<Finished>,
    /// The one of the same trace that came before it.
    before: Option<u64>,
}

/// Calls and errors over one edge that became no spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncounted {
    pub calls: u64,
    pub errors: u64,
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug)]
pub struct Room {
    settings: RoomSettings,
    share: f64,
    /// Unremarkable requests since `second_began`.
    seen: u64,
    second_began: Nanos,
    waiting: VecDeque<Waiting>,
    /// Number of the first that waits.
    first: u64,
    /// The newest record of each trace that waits.
    newest: Map<u128, u64>,
    /// Traces that matter, and since when.
    wanted: Map<u128, Nanos>,
    wanted_order: VecDeque<(u128, Nanos)>,
    /// Slowest calls by edge, ascending.
    slowest: Vec<Vec<Nanos>>,
    window_ends: Nanos,
    generation: u64,
    uncounted: Vec<Uncounted>,
    /// Requests that became no spans, ever.
    pub passed_over: u64,
    /// Of these, pushed out before their time.
    pub pushed_out: u64,
}

impl Room {
    pub fn new(settings: RoomSettings) -> Self {
        Self {
            settings,
            share: 1.0,
            seen: 0,
            second_began: Nanos::ZERO,
            waiting: VecDeque::new(),
            first: 0,
            newest: Map::default(),
            wanted: Map::default(),
            wanted_order: VecDeque::new(),
            slowest: Vec::new(),
            window_ends: Nanos::ZERO,
            generation: 0,
            uncounted: Vec::new(),
            passed_over: 0,
            pushed_out: 0,
        }
    }

    /// Of all traces in which nothing happened: how many become spans.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// A finished request comes in; what becomes spans on account of it is added to `chosen`.
    pub fn take(&mut self, record: Finished, now: Nanos, chosen: &mut Vec<Finished>) {
        let Some(trace) = TraceId::new(record.trace_id) else { return };
        if self.matters(&record, now) {
            self.want(record.trace_id, now, chosen);
            chosen.push(record);
            return;
        }
        self.seen += 1;
        if in_share(trace, self.share) || self.wanted.contains_key(&record.trace_id) {
            chosen.push(record);
            return;
        }
        if self.waiting.len() >= self.settings.records_max {
            self.pushed_out += 1;
            self.leave();
        }
        let number = self.first + self.waiting.len() as u64;
        let before = self.newest.insert(record.trace_id, number);
        self.waiting.push_back(Waiting { since: now, record: Some(record), before });
    }

    /// Whether this request alone is reason enough.
    fn matters(&mut self, record: &Finished, now: Nanos) -> bool {
        // Said of all, so that a slow call is compared with all others.
        let slow = self.is_slow(record, now);
        slow || crate::spans::failed(record)
            || !record.error.is_empty()
            || !record.fault.is_empty()
            || record.attempts > 1
            || record.tries.is_some()
            || record.breaker_open
            || record.ejected
    }

    fn is_slow(&mut self, record: &Finished, now: Nanos) -> bool {
        if now >= self.window_ends || record.generation != self.generation {
            if record.generation < self.generation {
                return false; // Of a snapshot that is gone: its numbers name other edges.
            }
            self.slowest.iter_mut().for_each(Vec::clear);
            self.window_ends = now + self.settings.window;
            self.generation = record.generation;
        }
        let Some(edge) = self.slowest.get_mut(record.edge as usize) else { return false };
        if edge.len() == self.settings.slowest {
            if edge.first().is_none_or(|fastest| record.duration <= *fastest) {
                return false;
            }
            edge.remove(0);
        }
        let at = edge.partition_point(|it| *it < record.duration);
        edge.insert(at, record.duration);
        true
    }

    /// Every part of this trace becomes spans, those that wait and those to come.
    fn want(&mut self, trace: u128, now: Nanos, chosen: &mut Vec<Finished>) {
        if self.share >= 1.0 && self.waiting.is_empty() {
            return; // All do anyway.
        }
        let mut next = self.newest.remove(&trace);
        while let Some(waiting) = next.and_then(|it| self.at(it)) {
            chosen.extend(waiting.record.take());
            next = waiting.before;
        }
        if self.wanted.len() < self.settings.records_max && self.wanted.insert(trace, now).is_none() {
            self.wanted_order.push_back((trace, now));
        }
    }

    fn at(&mut self, number: u64) -> Option<&mut Waiting> {
        self.waiting.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The oldest leaves, and is counted if it became no span.
    fn leave(&mut self) {
        let Some(Waiting { record: Some(record), .. }) = self.pop() else { return };
        self.pass_over(&record);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let oldest = self.waiting.pop_front()?;
        if let Some(record) = &oldest.record
            && self.newest.get(&record.trace_id) == Some(&self.first)
        {
            self.newest.remove(&record.trace_id);
        }
        self.first += 1;
        Some(oldest)
    }

    fn pass_over(&mut self, record: &Finished) {
        self.passed_over += 1;
        // What never left its caller called nobody.
        if record.generation == self.generation
            && record.client_span != 0
            && let Some(sum) = self.uncounted.get_mut(record.edge as usize)
        {
            sum.calls += 1;
            sum.errors += u64::from(crate::spans::failed(record));
        }
    }

    /// Lets go of what waited long enough. Applications may have said something of a trace: `holds` knows, and then its
    /// requests belong with that.
    pub fn tick(&mut self, now: Nanos, holds: impl Fn(TraceId) -> bool, chosen: &mut Vec<Finished>) {
        while self
            .waiting
            .front()
            .is_some_and(|it| it.record.is_none() || now >= it.since + self.settings.hold)
        {
            let Some(Waiting { record: Some(record), .. }) = self.pop() else { continue };
            if TraceId::new(record.trace_id).is_some_and(&holds) {
                chosen.push(record);
            } else {
                self.pass_over(&record);
            }
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
        if edges.generation == self.generation && edges.len() == self.slowest.len() {
            return Vec::new();
        }
        let counted = std::mem::take(&mut self.uncounted);
        self.slowest.iter_mut().for_each(Vec::clear);
        self.slowest.resize_with(edges.len(), Vec::new);
        self.uncounted = vec![Uncounted::default(); edges.len()];
        self.generation = edges.generation;
        counted
    }

    /// Calls that became no spans since the call before, by edge.
    pub fn uncounted(&mut self) -> impl Iterator<Item = (u32, Uncounted)> + '_ {
        let all = self.uncounted.iter_mut().enumerate().filter(|(_, it)| it.calls > 0);
        all.map(|(edge, it)| (edge as u32, std::mem::take(it)))
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
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
            room.take(plain(id(at << 32 | n)), second(at), &mut chosen);
            room.take(Finished { edge: 1, ..plain(id(at << 32 | n)) }, second(at), &mut chosen);
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
        for record in [
            Finished { client_span: 1, ..plain(7) },
            plain(8),
            Finished { client_span: 2, ..plain(7) },
            Finished { client_span: 3, status: 503, ..plain(7) },
            Finished { client_span: 4, ..plain(7) },
        ] {
            room.take(record, second(2), &mut chosen);
        }
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
            room.take(reason, second(2), &mut chosen);
            assert_eq!(chosen.len(), 1);
        }
    }

    #[test]
    fn the_slowest_of_an_edge_matter() {
        let mut room = room(0.0, 100_000);
        room.settings.slowest = 2;
        room.share = 0.0;
        let mut take = |millis: u64, edge: u32, at: u64| {
            let mut chosen = Vec::new();
            let record = Finished { edge, duration: Nanos::from_millis(millis), ..plain(id(millis)) };
            room.take(record, second(at), &mut chosen);
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
            room.take(Finished { edge: 1, ..plain(n) }, second(1), &mut chosen);
        }
        assert_eq!((room.len(), room.pushed_out, chosen.len()), (4, 2, 0));
        room.tick(second(3), |_| false, &mut chosen);
        assert_eq!(room.len(), 4, "not yet");
        room.tick(second(4), |trace| trace.get() == 5, &mut chosen);
        assert_eq!(chosen.iter().map(|it| it.trace_id).collect::<Vec<_>>(), [5]);
        assert!(room.is_empty() && room.newest.is_empty());
        assert_eq!(room.uncounted().collect::<Vec<_>>(), [(1, Uncounted { calls: 5, errors: 0 })]);
        assert_eq!(room.uncounted().count(), 0, "said once");
        assert_eq!(room.passed_over, 5);
    }
}
