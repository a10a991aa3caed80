//! The last fifteen minutes by the second and the last six hours by ten seconds.
//!
//! A frame of history is one blob: series in ascending order, each a handful of varints. One byte budget for each of the
//! two rings. When a ring is over its budget, its oldest frames first give up resolution (a quarter of the buckets, then
//! a sixteenth, then one per octave: see [`Sparse`]; byte counts become KiB), and only when nothing is left to give up does the oldest go before
//! its time. Every answer says how far its percentiles may be off.

use super::{Counter, Counters, Delta, Frame, SeriesId, Sparse};
use crate::protobuf::{Reader, put_varint};
use std::collections::VecDeque;
use units::{Histogram, Nanos};

#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    pub fine: Nanos,
    pub fine_frames: usize,
    pub fine_bytes_max: usize,
    pub coarse: Nanos,
    pub coarse_frames: usize,
    pub coarse_bytes_max: usize,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            fine: Nanos::from_secs(1),
            fine_frames: 900,
            fine_bytes_max: 64 << 20,
            coarse: Nanos::from_secs(10),
            coarse_frames: 2_160,
            coarse_bytes_max: 160 << 20,
        }
    }
}

/// What happened in one step of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    pub from: Nanos,
    pub to: Nanos,
    pub requests: u64,
    pub errors: u64,
    pub latency: Sparse,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryUsage {
    pub bytes: usize,
    pub fine_frames: usize,
    pub coarse_frames: usize,
    /// Frames that gave up resolution, and frames that left before their time.
    pub coarsened: u64,
    pub dropped_early: u64,
    /// Of the two rings, and what they may have.
    pub ring_bytes: usize,
    pub ring_bytes_max: usize,
}

/// One stored frame.
#[derive(Debug)]
struct Stored {
    /// Its number: time divided by the ring's step.
    turn: u64,
    shift: u8,
    blob: Box<[u8]>,
    /// The series and the offset at every 64th entry, so that one series is found without reading all.
    index: Box<[(u32, u32)]>,
}

const INDEX_EVERY: usize = 64;
/// How far resolution may fall (one bucket per octave) and in what steps.
const SHIFT_MAX: u8 = 6;
const SHIFT_STEP: u8 = 2;
/// Frames that give up resolution at each frame taken: eight a second, while a ring takes at most one.
const GENTLE: usize = 2;

impl Stored {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.blob.len() + self.index.len() * size_of::<(u32, u32)>()
    }

    fn encode<'a>(
        turn: u64,
        entries: impl Iterator<Item = (SeriesId, &'a Sparse, &'a Counters)> + Clone,
    ) -> Self {
        // Latencies that arrived coarse make the whole frame coarse: one resolution a frame needs no byte an entry.
        let shift = entries.clone().map(|(_, latency, _)| latency.shift).max().unwrap_or(0);
        let mut encoder = Encoder::new(turn, shift);
        for (series, latency, counters) in entries {
            if latency.shift == shift {
                encoder.push(series, latency, counters);
            } else {
                let mut coarse = latency.clone();
                coarse.coarsen(shift);
                encoder.push(series, &coarse, counters);
            }
        }
        encoder.finish()
    }

    /// Calls `each` for the series wanted (ascending), passing over what lies between them block by block.
    fn decode_some(&self, wanted: &[(SeriesId, bool)], mut each: impl FnMut(bool, Sparse, Counters)) {
        let mut left = wanted;
        while let [(first, _), ..] = left {
            // All that may lie in the same block as the first, so that no block is read twice.
            let block = self.index.partition_point(|(series, _)| *series <= first.0);
            let end = self.index.get(block).map_or(u32::MAX, |(series, _)| series - 1);
            let (here, rest) = left.split_at(left.partition_point(|(series, _)| series.0 <= end));
            let last = here.last().map_or(first.0, |(series, _)| series.0);
            let mut open = here.iter().peekable();
            let wants = |series: SeriesId| {
                while open.next_if(|(wanted, _)| *wanted < series).is_some() {}
                open.next_if(|(wanted, _)| *wanted == series).map(|(_, failed)| *failed)
            };
            self.walk(first.0, last, wants, &mut each);
            left = rest;
        }
    }

    /// Calls `each` for every series within `from..=to`.
    fn decode(&self, from: u32, to: u32, each: impl FnMut(SeriesId, Sparse, Counters)) {
        self.walk(from, to, Some, each);
    }

    /// Calls `each` for the series within `from..=to` of which `wants` says as what; the others are only passed over.
    fn walk<T>(
        &self,
        from: u32,
        to: u32,
        mut wants: impl FnMut(SeriesId) -> Option<T>,
        mut each: impl FnMut(T, Sparse, Counters),
    ) {
        let block = self.index.partition_point(|(series, _)| *series <= from).saturating_sub(1);
        let Some((_, offset)) = self.index.get(block) else { return };
        let mut reader = Reader::new(&self.blob[*offset as usize..]);
        let (mut at, mut series) = (block * INDEX_EVERY, 0u32);
        while !reader.is_empty() {
            if at % INDEX_EVERY == 0 {
                series = 0;
            }
            at += 1;
            let read = read_gap(&mut reader).and_then(|gap| {
                series = series.wrapping_add(gap);
                if series > to {
                    return Some(false);
                }
                match (series >= from).then(|| wants(SeriesId(series))).flatten() {
                    Some(as_what) => {
                        let (latency, counters) = read_entry(&mut reader, self.shift)?;
                        each(as_what, latency, counters);
                    }
                    None => skip_entry(&mut reader)?,
                }
                Some(true)
            });
            match read {
                Some(true) => {}
                Some(false) => return,
                None => {
                    debug_assert!(false, "history holds bytes it cannot read");
                    return;
                }
            }
        }
    }
}

/// Builds a frame, series in ascending order.
struct Encoder {
    turn: u64,
    shift: u8,
    blob: Vec<u8>,
    index: Vec<(u32, u32)>,
    entries: usize,
    last: u32,
}

impl Encoder {
    fn new(turn: u64, shift: u8) -> Self {
        Self { turn, shift, blob: Vec::new(), index: Vec::new(), entries: 0, last: 0 }
    }

    fn push(&mut self, series: SeriesId, latency: &Sparse, counters: &Counters) {
        debug_assert_eq!(latency.shift, self.shift, "one resolution a frame");
        if self.entries.is_multiple_of(INDEX_EVERY) {
            self.index.push((series.0, self.blob.len() as u32));
            self.last = 0;
        }
        self.entries += 1;
        put_varint(&mut self.blob, u64::from(series.0 - self.last));
        self.last = series.0;
        put_entry(&mut self.blob, latency, counters);
    }

    fn finish(self) -> Stored {
        Stored { turn: self.turn, shift: self.shift, blob: self.blob.into(), index: self.index.into() }
    }
}

/// Counters that are stored in KiB once a frame gave up resolution: nobody reads the last bytes of an hour ago.
const BYTE_COUNTERS: usize = 2;
const _: () = assert!(Counter::RequestBytes as usize == 0 && Counter::ResponseBytes as usize == 1);

/// Which counters an entry has: none, just the two of bytes (nearly every entry), or those of a bit set.
const NO_COUNTERS: u64 = 0;
const BYTES_ONLY: u64 = 1;
const COUNTER_SET: u64 = 2;

/// Latency (buckets as gap and count in one varint, sum in microseconds), then the counters that are not zero.
/// Microseconds, because two bytes an entry are worth more than the sum's last three digits.
fn put_entry(blob: &mut Vec<u8>, latency: &Sparse, counters: &Counters) {
    let set = counters.iter().enumerate().fold(0u64, |set, (at, count)| set | u64::from(*count > 0) << at);
    let which = match set {
        0 => NO_COUNTERS,
        0b11 => BYTES_ONLY,
        _ => COUNTER_SET,
    };
    let flags = which | u64::from(latency.zero > 0) << 2 | (latency.buckets.len() as u64) << 3;
    put_varint(blob, flags);
    if latency.zero > 0 {
        put_varint(blob, latency.zero);
    }
    if !latency.buckets.is_empty() || latency.zero > 0 {
        put_varint(blob, u64::try_from(latency.sum / 1_000).unwrap_or(u64::MAX));
    }
    let mut last: Option<i16> = None;
    for (index, count) in &latency.buckets {
        match last {
            None => {
                let index = i64::from(*index);
                put_varint(blob, (index << 1 ^ index >> 63) as u64);
                put_varint(blob, *count);
            }
            Some(last) => {
                let gap = (index - last - 1) as u64;
                put_varint(blob, count << 2 | gap.min(3));
                if gap >= 3 {
                    put_varint(blob, gap - 3);
                }
            }
        }
        last = Some(*index);
    }
    if which == COUNTER_SET {
        put_varint(blob, set);
    }
    for (at, count) in counters.iter().enumerate().filter(|(_, count)| **count > 0) {
        let in_kib = at < BYTE_COUNTERS && latency.shift > 0;
        put_varint(blob, if in_kib { count.div_ceil(1024) } else { *count });
    }
}

fn read_gap(reader: &mut Reader<'_>) -> Option<u32> {
    u32::try_from(reader.varint().ok()?).ok()
}

/// Passes over what [`read_entry`] reads: of a frame's thousands of entries somebody wants a few.
fn skip_entry(reader: &mut Reader<'_>) -> Option<()> {
    let flags = reader.varint().ok()?;
    let (buckets, has_zero) = (flags >> 3, flags & 4 != 0);
    let sums = u64::from(has_zero) + u64::from(has_zero || buckets > 0);
    // The first bucket is two numbers.
    for _ in 0..sums + u64::from(buckets > 0) {
        reader.varint().ok()?;
    }
    for at in 0..buckets {
        if reader.varint().ok()? & 3 == 3 && at > 0 {
            reader.varint().ok()?;
        }
    }
    let counters = match flags & 3 {
        NO_COUNTERS => 0,
        BYTES_ONLY => 2,
        _ => reader.varint().ok()?.count_ones(),
    };
    for _ in 0..counters {
        reader.varint().ok()?;
    }
    Some(())
}

fn read_entry(reader: &mut Reader<'_>, shift: u8) -> Option<(Sparse, Counters)> {
    let flags = reader.varint().ok()?;
    let buckets = usize::try_from(flags >> 3).ok()?;
    let mut latency = Sparse { shift, ..Sparse::default() };
    if flags & 4 != 0 {
        latency.zero = reader.varint().ok()?;
    }
    if buckets > 0 || latency.zero > 0 {
        latency.sum = u128::from(reader.varint().ok()?) * 1_000;
    }
    latency.buckets.reserve_exact(buckets.min(5_000));
    let mut index = 0i64;
    for at in 0..buckets {
        let count = if at == 0 {
            let raw = reader.varint().ok()?;
            index = (raw >> 1) as i64 ^ -((raw & 1) as i64);
            reader.varint().ok()?
        } else {
            let raw = reader.varint().ok()?;
            let gap = match raw & 3 {
                3 => reader.varint().ok()?.checked_add(3)?,
                gap => gap,
            };
            index = index.checked_add(i64::try_from(gap).ok()?)?.checked_add(1)?;
            raw >> 2
        };
        latency.buckets.push((i16::try_from(index).ok()?, count));
    }
    let mut counters = Counters::default();
    let set = match flags & 3 {
        NO_COUNTERS => 0,
        BYTES_ONLY => 0b11,
        _ => reader.varint().ok()?,
    };
    for (at, counter) in counters.iter_mut().enumerate().filter(|(at, _)| set & 1 << at != 0) {
        let count = reader.varint().ok()?;
        *counter = if at < BYTE_COUNTERS && shift > 0 { count.saturating_mul(1024) } else { count };
    }
    Some((latency, counters))
}

/// One of the two rings, with the frame it is filling.
#[derive(Debug)]
struct Ring {
    step: Nanos,
    frames_max: usize,
    bytes_max: usize,
    frames: VecDeque<Stored>,
    bytes: usize,
    turn: u64,
    /// Being added up, by series; emptied at every turn.
    open: Vec<(Sparse, Counters)>,
    touched: Vec<u32>,
    coarsened: u64,
    dropped_early: u64,
}

impl Ring {
    fn new(step: Nanos, frames_max: usize, bytes_max: usize) -> Self {
        Self {
            step: Nanos(step.0.max(1)),
            frames_max,
            bytes_max,
            frames: VecDeque::with_capacity(frames_max + 1),
            bytes: 0,
            turn: 0,
            open: Vec::new(),
            touched: Vec::new(),
            coarsened: 0,
            dropped_early: 0,
        }
    }

    fn add(&mut self, frame: &Frame) {
        // A frame belongs to the step its end lies in; at 250 ms a frame that is at most a quarter second early.
        let turn = frame.to.0.saturating_sub(1) / self.step.0;
        if turn != self.turn {
            self.close();
            self.turn = turn;
        }
        for delta in &frame.deltas {
            let at = delta.series.0 as usize;
            if at >= self.open.len() {
                self.open.resize_with(at + 1, Default::default);
            }
            let (latency, counters) = &mut self.open[at];
            if latency.is_empty() && counters.iter().all(|count| *count == 0) {
                self.touched.push(delta.series.0);
            }
            latency.merge(&delta.latency);
            (0..Counter::COUNT).for_each(|at| counters[at] += delta.counters[at]);
        }
        self.give_up_gently();
    }

    /// Stores the frame that was being filled.
    fn close(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        let open = &self.open;
        let entries = self.touched.iter().map(|series| {
            let (latency, counters) = &open[*series as usize];
            (SeriesId(*series), latency, counters)
        });
        let stored = Stored::encode(self.turn, entries);
        for series in self.touched.drain(..) {
            let (latency, counters) = &mut self.open[series as usize];
            latency.buckets.clear();
            (latency.zero, latency.sum) = (0, 0);
            *counters = Counters::default();
        }
        self.bytes += stored.bytes();
        self.frames.push_back(stored);
        let oldest = (self.turn + 1).saturating_sub(self.frames_max as u64);
        while self.frames.front().is_some_and(|frame| frame.turn < oldest) {
            self.drop_oldest();
        }
        self.stay_within_budget();
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.bytes();
        }
    }

    fn stay_within_budget(&mut self) {
        while self.bytes > self.bytes_max {
            // From the oldest on, each gives up one step before any gives up the next: the picture stays even.
            let coarsest = self.frames.iter().map(|frame| frame.shift).min().unwrap_or(SHIFT_MAX);
            match self.frames.iter().position(|frame| frame.shift == coarsest && coarsest < SHIFT_MAX) {
                Some(at) => self.coarsen(at),
                None if self.frames.len() > 1 => {
                    self.drop_oldest();
                    self.dropped_early += 1;
                }
                None => break,
            }
        }
    }

    /// A little at every frame once the ring is nearly full, so that no frame has to pay for many.
    fn give_up_gently(&mut self) {
        for _ in 0..GENTLE {
            if self.bytes <= self.bytes_max / 32 * 31 {
                return;
            }
            let coarsest = self.frames.iter().map(|frame| frame.shift).min().unwrap_or(SHIFT_MAX);
            match self.frames.iter().position(|frame| frame.shift == coarsest && coarsest < SHIFT_MAX) {
                Some(at) => self.coarsen(at),
                None => return,
            }
        }
    }

    fn coarsen(&mut self, at: usize) {
        let frame = &self.frames[at];
        let shift = frame.shift + SHIFT_STEP;
        let mut encoder = Encoder::new(frame.turn, shift);
        frame.decode(0, u32::MAX, |series, mut latency, counters| {
            latency.coarsen(shift);
            encoder.push(series, &latency, &counters);
        });
        let coarse = encoder.finish();
        self.bytes = self.bytes + coarse.bytes() - frame.bytes();
        self.frames[at] = coarse;
        self.coarsened += 1;
    }

    fn open_bytes(&self) -> usize {
        let heap: usize = self.open.iter().map(|(latency, _)| latency.heap_bytes()).sum();
        heap + self.open.capacity() * size_of::<(Sparse, Counters)>() + self.touched.capacity() * 4
    }
}

/// The totals since start, and both rings.
#[derive(Debug)]
pub struct History {
    fine: Ring,
    coarse: Ring,
    totals: Vec<(Histogram, Counters)>,
}

impl History {
    pub fn new(settings: HistorySettings) -> Self {
        Self {
            fine: Ring::new(settings.fine, settings.fine_frames, settings.fine_bytes_max),
            coarse: Ring::new(settings.coarse, settings.coarse_frames, settings.coarse_bytes_max),
            totals: Vec::new(),
        }
    }

    pub fn add(&mut self, frame: &Frame) {
        self.fine.add(frame);
        self.coarse.add(frame);
        for Delta { series, latency, counters } in &frame.deltas {
            let at = series.0 as usize;
            if at >= self.totals.len() {
                self.totals.resize_with(at + 1, || (Histogram::new(), Counters::default()));
            }
            let (total, sums) = &mut self.totals[at];
            total.merge(&latency.histogram());
            (0..Counter::COUNT).for_each(|at| sums[at] += counters[at]);
        }
    }

    /// Everything since start, by series: what a scrape shows. Never shrinks.
    pub fn totals(&self) -> impl Iterator<Item = (SeriesId, &Histogram, &Counters)> {
        self.totals
            .iter()
            .enumerate()
            .map(|(at, (latency, counters))| (SeriesId(at as u32), latency, counters))
    }

    /// Some series (ascending, each with whether it counts failures) added up in steps of at least the ring's
    /// resolution. Reaches back 15 minutes by the second, further by ten.
    pub fn range(&self, from: Nanos, to: Nanos, step: Nanos, wanted: &[(SeriesId, bool)]) -> Vec<Point> {
        debug_assert!(wanted.is_sorted_by(|a, b| a.0 < b.0), "series are asked for in order");
        let fine_reach = self.fine.turn.saturating_sub(self.fine.frames_max as u64) * self.fine.step.0;
        let ring = if from.0 >= fine_reach { &self.fine } else { &self.coarse };
        let step = Nanos(step.0.max(ring.step.0).div_ceil(ring.step.0) * ring.step.0);
        let first = from.0 / step.0;
        let last = to.0.saturating_sub(1).max(from.0) / step.0;
        // A page cannot draw more; whoever asks for more wants a coarser step.
        let steps = (last - first + 1).min(10_000);
        let mut points: Vec<Point> = (0..steps)
            .map(|at| Point {
                from: Nanos((first + at) * step.0),
                to: Nanos((first + at + 1) * step.0),
                ..Point::default()
            })
            .collect();
        for frame in &ring.frames {
            let at = (frame.turn * ring.step.0 / step.0).checked_sub(first);
            let Some(point) = at.and_then(|at| points.get_mut(at as usize)) else { continue };
            frame.decode_some(wanted, |failed, latency, counters| add(point, failed, &latency, &counters));
        }
        // The step being filled right now counts too: a second old is the promise.
        if let Some(point) =
            (ring.turn * ring.step.0 / step.0).checked_sub(first).and_then(|at| points.get_mut(at as usize))
        {
            for (series, failed) in wanted {
                if let Some((latency, counters)) = ring.open.get(series.0 as usize) {
                    add(point, *failed, latency, counters);
                }
            }
        }
        points
    }

    /// Each series over the last `window`: what tables show. Uses whole steps, and says so in the points' bounds.
    pub fn window(&self, window: Nanos, now: Nanos) -> Vec<(SeriesId, Sparse, Counters)> {
        let from = now.saturating_sub(window);
        let ring = if window.0 <= self.fine.step.0 * self.fine.frames_max as u64 {
            &self.fine
        } else {
            &self.coarse
        };
        let mut sums: Vec<(Sparse, Counters)> = Vec::new();
        sums.resize_with(ring.open.len(), Default::default);
        let mut sum = |series: SeriesId, latency: &Sparse, counters: &Counters| {
            if let Some((total, totals)) = sums.get_mut(series.0 as usize) {
                total.merge(latency);
                (0..Counter::COUNT).for_each(|at| totals[at] += counters[at]);
            }
        };
        for frame in ring.frames.iter().filter(|frame| frame.turn * ring.step.0 >= from.0) {
            frame.decode(0, u32::MAX, |series, latency, counters| sum(series, &latency, &counters));
        }
        for series in &ring.touched {
            let (latency, counters) = &ring.open[*series as usize];
            sum(SeriesId(*series), latency, counters);
        }
        let filled = |(latency, counters): &(Sparse, Counters)| {
            !latency.is_empty() || counters.iter().any(|it| *it > 0)
        };
        let numbered = sums.into_iter().enumerate().filter(|(_, sums)| filled(sums));
        numbered.map(|(at, (latency, counters))| (SeriesId(at as u32), latency, counters)).collect()
    }

    pub fn usage(&self) -> HistoryUsage {
        let totals: usize = self.totals.iter().map(|(latency, _)| latency.heap_bytes()).sum();
        HistoryUsage {
            bytes: self.fine.bytes
                + self.coarse.bytes
                + self.fine.open_bytes()
                + self.coarse.open_bytes()
                + totals
                + self.totals.capacity() * size_of::<(Histogram, Counters)>(),
            fine_frames: self.fine.frames.len(),
            coarse_frames: self.coarse.frames.len(),
            coarsened: self.fine.coarsened + self.coarse.coarsened,
            dropped_early: self.fine.dropped_early + self.coarse.dropped_early,
            ring_bytes: self.fine.bytes + self.coarse.bytes,
            ring_bytes_max: self.fine.bytes_max + self.coarse.bytes_max,
        }
    }
}

fn add(point: &mut Point, failed: bool, latency: &Sparse, counters: &Counters) {
    let count = latency.count();
    point.requests += count;
    point.errors += if failed { count } else { 0 };
    point.latency.merge(latency);
    (0..Counter::COUNT).for_each(|at| point.counters[at] += counters[at]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(to_ms: u64, deltas: &[(u32, &[u64])]) -> Frame {
        let deltas = deltas
            .iter()
            .map(|(series, values)| {
                let mut latency = Sparse::default();
                values.iter().for_each(|value| latency.record(Nanos(*value)));
                Delta { series: SeriesId(*series), latency, counters: [values.len() as u64; Counter::COUNT] }
            })
            .collect();
        Frame {
            sequence: to_ms,
            from: Nanos::from_millis(to_ms - 250),
            to: Nanos::from_millis(to_ms),
            deltas,
        }
    }

    /// Every series the tests use.
    fn all() -> Vec<(SeriesId, bool)> {
        (0..100).map(|series| (SeriesId(series), false)).collect()
    }

    #[test]
    fn seconds_and_tens_of_seconds_add_up() {
        let mut history = History::new(HistorySettings::default());
        for quarter in 1..=4 * 1_000u64 {
            history.add(&frame(quarter * 250, &[(0, &[5_000_000]), (70, &[7_000_000, 9_000_000])]));
        }
        let points =
            history.range(Nanos::from_secs(990), Nanos::from_secs(1_000), Nanos::from_secs(1), &all());
        assert_eq!(points.iter().map(|point| point.requests).collect::<Vec<_>>(), [12; 10]);
        let only = &[(SeriesId(70), true)];
        let points = history.range(Nanos::from_secs(985), Nanos::from_secs(1_000), Nanos::from_secs(5), only);
        assert_eq!(
            points.iter().map(|point| (point.requests, point.errors)).collect::<Vec<_>>(),
            [(40, 40); 3]
        );
        assert_eq!(points[0].counters[0], 40);
        // Older than the fine ring: tens of seconds, whatever was asked.
        let points = history.range(Nanos::from_secs(20), Nanos::from_secs(50), Nanos::from_secs(1), &all());
        assert_eq!(points.iter().map(|point| point.requests).collect::<Vec<_>>(), [120; 3]);
        assert_eq!((history.usage().fine_frames, history.usage().coarse_frames), (900, 99));
        let window = history.window(Nanos::from_secs(10), Nanos::from_secs(1_000));
        let counts: Vec<_> = window.iter().map(|(series, latency, _)| (series.0, latency.count())).collect();
        assert_eq!(counts, [(0, 40), (70, 80)]);
        assert_eq!(history.totals().map(|(_, total, _)| total.count()).sum::<u64>(), 12_000);
    }

    #[test]
    fn a_full_ring_gives_up_resolution_before_it_gives_up_time() {
        let run = |bytes: usize| {
            let settings = HistorySettings { fine_bytes_max: bytes, ..HistorySettings::default() };
            let mut history = History::new(settings);
            for second in 1..=300u64 {
                let values: Vec<u64> = (0..60).map(|n| 1_000_000 + n * n * 40_000).collect();
                history.add(&frame(second * 1_000, &[(1, &values), (2, &values)]));
            }
            history
        };
        let free = run(1 << 30);
        let needed = free.fine.bytes;
        let tight = run(needed / 2);
        assert!(tight.fine.bytes <= needed / 2);
        assert_eq!(tight.usage().fine_frames, 299, "all of them are still there");
        let requests = |history: &History| {
            let points = history.range(Nanos::ZERO, Nanos::from_secs(300), Nanos::from_secs(300), &all());
            points.iter().map(|point| point.requests).sum::<u64>()
        };
        assert_eq!(requests(&tight), requests(&free), "and no count is lost");
        let (a, b) = (
            &free.range(Nanos::ZERO, Nanos::from_secs(300), Nanos::from_secs(300), &all())[0].latency,
            &tight.range(Nanos::ZERO, Nanos::from_secs(300), Nanos::from_secs(300), &all())[0].latency,
        );
        let p99 = |sparse: &Sparse| sparse.histogram().quantile(0.99).unwrap().0 as f64;
        assert!((p99(b) / p99(a) - 1.0).abs() <= b.relative_error(), "{} {}", p99(a), p99(b));
        assert!(b.relative_error() > a.relative_error());
        let tiny = run(4_000);
        assert!(tiny.fine.bytes <= 4_000 && tiny.usage().dropped_early > 0);
        assert_eq!(tiny.fine.bytes, tiny.fine.frames.iter().map(Stored::bytes).sum::<usize>());
    }

    proptest! {
        #[test]
        fn entries_survive_their_bytes(values in proptest::collection::vec(0u64..1 << 45, 0..50), counters: Counters, shift in 0u8..7, series in proptest::collection::btree_set(0u32..5_000, 1..200)) {
            let mut latency = Sparse::default();
            values.iter().for_each(|value| latency.record(Nanos(*value)));
            latency.coarsen(shift);
            latency.sum = latency.sum / 1_000 * 1_000;
            let mut counters = counters;
            let rounded = |count: u64| count.div_ceil(1024).saturating_mul(1024);
            if shift > 0 {
                counters[..BYTE_COUNTERS].iter_mut().for_each(|count| *count = rounded(*count));
            }
            let stored = Stored::encode(1, series.iter().map(|series| (SeriesId(*series), &latency, &counters)));
            let mut got = Vec::new();
            stored.decode(0, u32::MAX, |series, read, sums| { assert_eq!((&read, &sums), (&latency, &counters)); got.push(series.0); });
            prop_assert_eq!(got, series.iter().copied().collect::<Vec<_>>());
            let (low, high) = (1_000, 3_000);
            let mut some = Vec::new();
            stored.decode(low, high, |series, _, _| some.push(series.0));
            prop_assert_eq!(some, series.range(low..=high).copied().collect::<Vec<_>>());
            let wanted: Vec<_> = (0..5_000).step_by(3).map(|series| (SeriesId(series), series % 2 == 0)).collect();
            let mut found = Vec::new();
            stored.decode_some(&wanted, |failed, _, _| found.push(failed));
            let expected: Vec<_> = series.iter().filter(|it| *it % 3 == 0).map(|it| it % 2 == 0).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn torn_entries_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_entry(&mut Reader::new(&bytes), 0);
            let _ = skip_entry(&mut Reader::new(&bytes));
        }
    }
}
