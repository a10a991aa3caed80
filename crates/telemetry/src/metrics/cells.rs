//! Counting on the way of a request.
//!
//! A cell belongs to one worker and one series. Its worker alone writes it, with a relaxed load and a relaxed store: no
//! read-modify-write, no line bouncing between cores. The collector reads at any time and sees each number either before
//! or after; it subtracts what it saw before, so nothing is counted twice and nothing is lost.
//!
//! Latency buckets are 4,097, of which an edge uses some hundred: pages of 64 (one octave) are made when first touched.

use super::series::{Registry, SeriesId, SeriesKey};
use super::{Counter, Counters};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use units::{Histogram, Nanos};

const PAGE: usize = 64;
const PAGES_PER_GROUP: usize = 8;
/// The lowest index [`Histogram::index_of`] gives: the bucket that ends at one nanosecond.
const LOWEST: i32 = -(29 * 64 + 57);
const GROUPS: usize = (4_097usize).div_ceil(PAGE * PAGES_PER_GROUP);

/// Wrapping: the collector comes every 250 ms, long before a bucket has seen four billion more.
type Page = [AtomicU32; PAGE];
type Group = [OnceLock<Box<Page>>; PAGES_PER_GROUP];

#[derive(Debug)]
pub(super) struct Cell {
    groups: [OnceLock<Box<Group>>; GROUPS],
    zero: AtomicU32,
    sum: AtomicU64,
    counters: [AtomicU64; Counter::COUNT],
}

/// The single writer's addition.
#[inline]
fn add64(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

#[inline]
fn add32(cell: &AtomicU32, more: u32) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Cell {
    fn new() -> Self {
        Self {
            groups: [const { OnceLock::new() }; GROUPS],
            zero: AtomicU32::new(0),
            sum: AtomicU64::new(0),
            counters: [const { AtomicU64::new(0) }; Counter::COUNT],
        }
    }

    #[inline]
    fn record(&self, value: Nanos) {
        add64(&self.sum, value.0);
        let Some(index) = Histogram::index_of(value) else {
            add32(&self.zero, 1);
            return;
        };
        let place = (i32::from(index) - LOWEST) as usize;
        let (page, slot) = (place / PAGE, place % PAGE);
        let group = self.groups[page / PAGES_PER_GROUP]
            .get_or_init(|| Box::new([const { OnceLock::new() }; PAGES_PER_GROUP]));
        let page =
            group[page % PAGES_PER_GROUP].get_or_init(|| Box::new([const { AtomicU32::new(0) }; PAGE]));
        add32(&page[slot], 1);
    }

    pub(super) fn bytes(&self) -> usize {
        let groups = self.groups.iter().filter_map(OnceLock::get);
        let inner = groups.map(|group| {
            size_of::<Group>() + group.iter().filter(|page| page.get().is_some()).count() * size_of::<Page>()
        });
        size_of::<Self>() + inner.sum::<usize>()
    }
}

/// What the collector read from a cell last time.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pages: Vec<(u8, Box<[u32; PAGE]>)>,
    zero: u32,
    sum: u64,
    counters: Counters,
}

impl Reading {
    /// Calls `bucket` for each bucket that grew and returns (zeros, sum, counters) since the last reading, or `None` if
    /// nothing did.
    pub(super) fn advance(
        &mut self,
        cell: &Cell,
        mut bucket: impl FnMut(i16, u64),
    ) -> Option<(u64, u64, Counters)> {
        // The sum is read before the buckets: a request in between is then counted next time but for its sum, never
        // the other way round, so a mean is never above its largest value by a phantom.
        let sum = cell.sum.load(Relaxed);
        let mut changed = sum != self.sum;
        let sum_grown = sum.wrapping_sub(self.sum);
        self.sum = sum;
        let zero = cell.zero.load(Relaxed);
        let zeros = zero.wrapping_sub(self.zero);
        self.zero = zero;
        let mut grown = [0; Counter::COUNT];
        for (at, counter) in cell.counters.iter().enumerate() {
            let value = counter.load(Relaxed);
            grown[at] = value.wrapping_sub(self.counters[at]);
            self.counters[at] = value;
            changed |= grown[at] > 0;
        }
        changed |= zeros > 0;
        for (number, group) in cell.groups.iter().enumerate() {
            let Some(group) = group.get() else { continue };
            for (inner, page) in group.iter().enumerate() {
                let Some(page) = page.get() else { continue };
                let number = number * PAGES_PER_GROUP + inner;
                let known = match self.pages.iter().position(|(known, _)| usize::from(*known) == number) {
                    Some(at) => at,
                    None => {
                        self.pages.push((number as u8, Box::new([0; PAGE])));
                        self.pages.len() - 1
                    }
                };
                let known = &mut self.pages[known].1;
                for (slot, counter) in page.iter().enumerate() {
                    let value = counter.load(Relaxed);
                    if value != known[slot] {
                        let index = (number * PAGE + slot) as i32 + LOWEST;
                        bucket(index as i16, u64::from(value.wrapping_sub(known[slot])));
                        known[slot] = value;
                        changed = true;
                    }
                }
            }
        }
        changed.then_some((u64::from(zeros), sum_grown, grown))
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.pages.len() * size_of::<[u32; PAGE]>() + self.pages.capacity() * 16
    }
}

const _: () = assert!(GROUPS * PAGES_PER_GROUP <= 256, "a page's number fits a byte");

/// One worker's way to count. Not `Clone`: a cell has one writer.
#[derive(Debug)]
pub struct Recorder {
    registry: Registry,
    worker: usize,
    handles: HashMap<SeriesKey, SeriesHandle>,
    cells: Vec<Arc<Cell>>,
    by_series: HashMap<SeriesId, SeriesHandle>,
    /// Keys that were folded, so that a flood of them does not take the lock each time.
    folded: HashMap<SeriesKey, SeriesHandle>,
}

/// A series as one recorder knows it. Good for that recorder only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesHandle(u32);

const FOLDED_MAX: usize = 4_096;

impl Recorder {
    pub(super) fn new(registry: Registry, worker: usize) -> Self {
        Self {
            registry,
            worker,
            handles: HashMap::new(),
            cells: Vec::new(),
            by_series: HashMap::new(),
            folded: HashMap::new(),
        }
    }

    /// The series to count a key in. A hash look-up when known; keep the handle where the key is known beforehand.
    pub fn series(&mut self, key: &SeriesKey) -> SeriesHandle {
        if let Some(handle) = self.handles.get(key).or_else(|| self.folded.get(key)) {
            return *handle;
        }
        let mut inner = self.registry.lock();
        let (id, own) = inner.open(key);
        let handle = match self.by_series.get(&id) {
            Some(handle) => *handle,
            None => {
                let cell = Arc::new(Cell::new());
                inner.workers[self.worker].push((id, cell.clone()));
                let handle =
                    SeriesHandle(u32::try_from(self.cells.len()).expect("no more cells than series"));
                self.cells.push(cell);
                self.by_series.insert(id, handle);
                handle
            }
        };
        drop(inner);
        if own {
            self.handles.insert(*key, handle);
        } else {
            if self.folded.len() >= FOLDED_MAX {
                self.folded.clear();
            }
            self.folded.insert(*key, handle);
        }
        handle
    }

    /// Counts one finished request.
    #[inline]
    pub fn record(&mut self, series: SeriesHandle, latency: Nanos) {
        if let Some(cell) = self.cells.get(series.0 as usize) {
            cell.record(latency);
        }
    }

    #[inline]
    pub fn add(&mut self, series: SeriesHandle, counter: Counter, more: u64) {
        if let Some(cell) = self.cells.get(series.0 as usize) {
            add64(&cell.counters[counter as usize], more);
        }
    }
}
