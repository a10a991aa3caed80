//! Traces in memory, within a byte budget.
//!
//! A trace is one blob of encoded spans and one small index entry. Everything counts against one budget: blobs, entries,
//! names; when it is reached the oldest trace goes, whole. A trace can be read and searched from its first span on;
//! whether it stays is decided once its root completed and a grace for stragglers passed (or nothing came for a while).
//! What is decided against or pushed out still counts in dependency links, which live in a small table by the minute.

mod entry;
mod links;
mod offered;
mod search;

use super::keep::{Reasons, Slowest, in_share};
use super::names::{NameId, Names};
use super::outline::Outline;
use super::query::moment;
use super::settings::{TraceSettings, Usage};
use super::{Added, Map, TraceQuery, TraceStore, codec};
use crate::ids::TraceId;
use crate::report::Report;
use crate::span::{Span, SpanKind};
use crate::tree::Link;
use entry::{Entry, LinkCount, NO_SLOT, Slot, State, UNNAMED};
pub use links::GONE_LINKS_MAX;
use links::Gone;
use offered::Offered;
use std::collections::{BTreeSet, HashSet, VecDeque};
use units::Nanos;

#[derive(Debug)]
pub struct MemoryTraces {
    settings: TraceSettings,
    names: Names,
    slots: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_low_id: Map<u64, Slot>,
    by_moment: BTreeSet<(Nanos, Slot)>,
    /// Oldest first; a place whose sequence no longer fits its slot is skipped.
    by_arrival: VecDeque<(Slot, u64)>,
    undecided: VecDeque<(Slot, u64)>,
    slowest: Slowest,
    /// Ids decided against, so that stragglers do not start them again.
    not_kept: Map<TraceId, u64>,
    not_kept_order: VecDeque<(TraceId, u64)>,
    speakers: HashSet<Box<str>>,
    offered: Offered,
    gone: Gone,
    bytes: usize,
    next_sequence: u64,
    next_sweep: Nanos,
    /// Scratch for the trace that is being decided.
    sketch: Vec<Outline>,
    usage: Usage,
}

/// Decisions remembered: at 10,000 traces a second, some seconds of them.
const NOT_KEPT_MAX: usize = 65_536;
/// Room for a first span or two, so that small traces grow once at most; what is left over is given back when a trace
/// is kept.
const BLOB_BYTES: usize = 256;
/// Services that send spans, remembered by name: more than a system has, and longer than it calls them.
const SPEAKERS_MAX: usize = 10_000;
const SPEAKER_BYTES_MAX: usize = 200;
/// Traces whose ids have the same low half. Two lengths of one id are such; a client whose random numbers are not makes
/// all its traces so, and each of them is looked for among the others.
const ALIKE_MAX: usize = 16;
/// Services a trace is found by; one with more is opened to be searched.
const SERVICES_PER_TRACE_MAX: usize = 256;

impl MemoryTraces {
    pub fn new(settings: TraceSettings) -> Self {
        Self {
            // An eighth for names: they are shared by all traces, and past that they cost only their own trace.
            names: Names::new(settings.bytes_max / 8),
            slowest: Slowest::new(settings.keep),
            slots: Vec::new(),
            free: Vec::new(),
            by_low_id: Map::default(),
            by_moment: BTreeSet::new(),
            by_arrival: VecDeque::new(),
            undecided: VecDeque::new(),
            not_kept: Map::default(),
            not_kept_order: VecDeque::new(),
            speakers: HashSet::new(),
            offered: Offered::default(),
            sketch: Vec::new(),
            gone: Gone::default(),
            bytes: 0,
            next_sequence: 0,
            next_sweep: Nanos::ZERO,
            usage: Usage::default(),
            settings,
        }
    }

    /// What it may hold at most.
    pub fn settings(&self) -> &TraceSettings {
        &self.settings
    }

    pub fn usage(&self) -> Usage {
        let decided = self.not_kept_order.len() * 2 * size_of::<(TraceId, u64)>();
        Usage {
            bytes: self.bytes
                + self.names.bytes()
                + self.slowest.bytes()
                + decided
                + self.offered.bytes
                + self.gone.bytes(),
            budgeted: self.bytes + self.names.bytes(),
            traces: self.by_arrival_len(),
            undecided: self.undecided.len(),
            names_refused: self.names.refused + self.offered.refused,
            names_bytes: self.names.bytes(),
            edges: self.slowest.len(),
            links: self.gone.len(),
            links_refused: self.gone.refused,
            values: self.offered.values_len,
            values_refused: self.offered.values_refused,
            untracked: self.slowest.untracked,
            ..self.usage
        }
    }

    fn by_arrival_len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Why a trace was kept and how many it stands for; `None` while undecided or unknown.
    pub fn reasons(&self, id: TraceId) -> Option<(Reasons, f32)> {
        let entry = self.entry(self.find(id)?)?;
        (entry.state == State::Kept).then_some((entry.reasons, entry.weight))
    }

    /// Services that have sent spans themselves, and not only through a proxy's reports.
    pub fn speakers(&self) -> &HashSet<Box<str>> {
        &self.speakers
    }

    /// Whether a trace can be read.
    pub fn holds(&self, id: TraceId) -> bool {
        self.find(id).is_some()
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn find(&self, id: TraceId) -> Option<Slot> {
        self.alike(id.low()).find(|slot| self.entry(*slot).is_some_and(|entry| entry.id == id))
    }

    /// Traces whose ids have the same low half.
    fn alike(&self, low: u64) -> impl Iterator<Item = Slot> + '_ {
        let first = self.by_low_id.get(&low).copied();
        std::iter::successors(first, |slot| self.entry(*slot).map(|entry| entry.next_alike))
            .take_while(|slot| *slot != NO_SLOT)
    }

    fn decode(&self, entry: &Entry) -> Vec<Span> {
        codec::spans(&entry.blob, &self.names, entry.id)
    }

    fn start_trace(&mut self, id: TraceId, now: Nanos) -> Slot {
        let oldest = self.alike(id.low()).nth(ALIKE_MAX - 1);
        if let Some(oldest) = oldest {
            self.drop_trace(oldest, None);
            self.usage.pushed_out += 1;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                Slot::try_from(self.slots.len() - 1).expect("traces_max is far below four billion")
            }
        };
        let next_alike = self.by_low_id.insert(id.low(), slot).unwrap_or(NO_SLOT);
        let entry = Entry {
            id,
            blob: Vec::with_capacity(BLOB_BYTES),
            spans: 0,
            state: State::Undecided,
            reasons: Reasons::default(),
            weight: 1.0,
            arrived: now,
            changed: now,
            moment: None,
            has_root_moment: false,
            root_complete: None,
            services: Vec::new(),
            sequence,
            next_alike,
            links: None,
        };
        self.bytes += entry.bytes();
        self.slots[slot as usize] = Some(entry);
        self.by_arrival.push_back((slot, sequence));
        self.undecided.push_back((slot, sequence));
        slot
    }

    fn append(&mut self, slot: Slot, span: &impl Report, now: Nanos, added: &mut Added) {
        let Some(entry) = self.slots[slot as usize].as_mut() else { return };
        let full = entry.spans as usize >= self.settings.spans_per_trace_max
            || entry.blob.len() >= self.settings.bytes_per_trace_max;
        if full {
            added.too_many += 1;
            return;
        }
        let before = entry.bytes();
        let placed = codec::put(&mut entry.blob, &mut self.names, span);
        let head = span.head();
        entry.links = None;
        entry.spans += 1;
        entry.changed = now;
        entry.reasons = entry.reasons.with(Reasons::of(span));
        let is_root = head.parent.is_none() && !head.shared;
        if is_root && head.duration.is_some() {
            entry.root_complete.get_or_insert(now);
        }
        let old_moment = entry.moment;
        if !entry.has_root_moment {
            let of_span = moment([(is_root, head.start)].into_iter());
            entry.has_root_moment = is_root && head.start.is_some();
            entry.moment = match (entry.moment, of_span) {
                (Some(known), Some(new)) if !entry.has_root_moment => Some(known.min(new)),
                (known, new) => new.or(known),
            };
        }
        if !head.local.service.is_empty() {
            let service = placed.local.unwrap_or(UNNAMED);
            let duration = head.duration.unwrap_or(Nanos::ZERO);
            let full = entry.services.len() >= SERVICES_PER_TRACE_MAX;
            let same = |known: NameId| known == service || (full && known == UNNAMED);
            match entry.services.iter_mut().find(|(known, _)| same(*known)) {
                Some((_, longest)) => *longest = (*longest).max(duration),
                None => entry.services.push((if full { UNNAMED } else { service }, duration)),
            }
        }
        let (new_moment, after) = (entry.moment, entry.bytes());
        if old_moment != new_moment {
            if let Some(old) = old_moment {
                self.by_moment.remove(&(old, slot));
            }
            if let Some(new) = new_moment {
                self.by_moment.insert((new, slot));
            }
        }
        self.bytes = self.bytes + after - before;
        added.stored += 1;
        self.usage.spans += 1;
        self.offered.learn(&self.settings, span, placed, now);
    }

    /// Takes a trace out of every index.
    fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.bytes -= entry.bytes();
        self.usage.spans -= entry.spans as usize;
        if let Some(moment) = entry.moment {
            self.by_moment.remove(&(moment, slot));
        }
        let low = entry.id.low();
        if self.by_low_id.get(&low) == Some(&slot) {
            if entry.next_alike == NO_SLOT {
                self.by_low_id.remove(&low);
            } else {
                self.by_low_id.insert(low, entry.next_alike);
            }
        } else {
            let before = self.alike(low).find(|it| self.entry(*it).is_some_and(|it| it.next_alike == slot));
            if let Some(before) = before.and_then(|it| self.slots[it as usize].as_mut()) {
                before.next_alike = entry.next_alike;
            }
        }
        Some(entry)
    }

    /// Forgets a trace but not who called whom in it. `known`: as [`Self::link_counts`] found it just now.
    fn drop_trace(&mut self, slot: Slot, known: Option<Box<[LinkCount]>>) {
        let Some(mut entry) = self.remove(slot) else { return };
        let Some(moment) = entry.moment else { return };
        let known = known.or_else(|| entry.links.take()).or_else(|| self.link_counts(&entry));
        // Where a name has no number, calls of others are counted all the same.
        let links = known.unwrap_or_else(|| self.tree_links(&entry).into_iter().flatten().collect());
        for (parent, child, calls, errors) in &links {
            let counts = (u64::from(*calls), u64::from(*errors));
            self.gone.add(&self.settings, moment, (*parent, *child), counts.0, counts.1);
        }
    }

    fn stay_within_budget(&mut self) {
        while self.bytes + self.names.bytes() > self.settings.bytes_max
            || self.by_arrival_len() > self.settings.traces_max
        {
            let Some((slot, sequence)) = self.by_arrival.pop_front() else { break };
            if self.entry(slot).is_some_and(|entry| entry.sequence == sequence) {
                self.drop_trace(slot, None);
                self.usage.pushed_out += 1;
            }
        }
    }

    /// Whether the sketched trace has a call among the slowest of its edge.
    fn is_slow(&mut self, now: Nanos) -> bool {
        let mut slow = false;
        for span in &self.sketch {
            if let Some(duration) =
                span.duration.filter(|_| matches!(span.kind, Some(SpanKind::Client | SpanKind::Server)))
            {
                let id = |name: Option<NameId>| name.unwrap_or(UNNAMED).0;
                let edge = (id(span.local), id(span.remote), span.kind);
                slow |= self.slowest.is_among(edge, duration, now);
            }
        }
        slow
    }

    fn decide(&mut self, slot: Slot, now: Nanos) {
        let Some(mut entry) = self.slots[slot as usize].take() else { return };
        self.sketch.clear();
        // Names spelt out have no numbers to compare or to count by: such a trace is opened when links are asked for.
        let sketched = codec::outlines(&entry.blob, &mut self.sketch);
        if self.is_slow(now) {
            entry.reasons = entry.reasons.with(Reasons::SLOW);
        }
        let share = self.settings.keep.share;
        if entry.reasons.is_empty() && in_share(entry.id, share) {
            entry.reasons = Reasons::SHARE;
            entry.weight = (1.0 / share.clamp(1e-9, 1.0)) as f32;
        }
        let links = if sketched { self.links_of_sketch(&entry) } else { None };
        let keep = !entry.reasons.is_empty();
        if keep {
            let before = entry.bytes();
            entry.links = links;
            entry.state = State::Kept;
            entry.blob.shrink_to_fit();
            entry.services.shrink_to_fit();
            self.bytes = self.bytes + entry.bytes() - before;
            self.usage.kept += 1;
            self.slots[slot as usize] = Some(entry);
            return;
        }
        let (id, sequence) = (entry.id, entry.sequence);
        self.slots[slot as usize] = Some(entry);
        self.drop_trace(slot, links);
        self.usage.not_kept += 1;
        self.not_kept.insert(id, sequence);
        self.not_kept_order.push_back((id, sequence));
        if self.not_kept_order.len() > NOT_KEPT_MAX
            && let Some((id, sequence)) = self.not_kept_order.pop_front()
            && self.not_kept.get(&id) == Some(&sequence)
        {
            self.not_kept.remove(&id);
        }
    }
}

impl MemoryTraces {
    /// As [`TraceStore::add`], of spans that nobody owns.
    pub fn add_reports<R: Report>(&mut self, spans: &[R], now: Nanos) -> Added {
        let mut added = Added::default();
        let mut last: Option<(TraceId, Slot)> = None;
        for span in spans {
            let trace_id = span.head().trace_id;
            let slot = match last {
                // Spans of one trace arrive together more often than not.
                Some((id, slot)) if id == trace_id => slot,
                _ => match self.find(trace_id) {
                    Some(slot) => slot,
                    None if self.not_kept.contains_key(&trace_id) => {
                        added.too_late += 1;
                        continue;
                    }
                    None => self.start_trace(trace_id, now),
                },
            };
            last = Some((trace_id, slot));
            self.append(slot, span, now, &mut added);
        }
        self.usage.spans_too_late += added.too_late as u64;
        self.usage.spans_too_many += added.too_many as u64;
        self.stay_within_budget();
        added
    }

    /// The share of unremarkable traces that is kept from now on: whoever feeds the store knows how much there is.
    pub fn set_share(&mut self, share: f64) {
        self.settings.keep.share = share;
    }
}

impl TraceStore for MemoryTraces {
    fn add(&mut self, spans: &[Span], now: Nanos) -> Added {
        for span in spans {
            let name = &span.local.service;
            let sensible = !name.is_empty() && name.len() <= SPEAKER_BYTES_MAX;
            if sensible && self.speakers.len() < SPEAKERS_MAX && !self.speakers.contains(name) {
                self.speakers.insert(name.clone());
            }
        }
        self.add_reports(spans, now)
    }

    fn tick(&mut self, now: Nanos) {
        for _ in 0..self.undecided.len() {
            let Some((slot, sequence)) = self.undecided.pop_front() else { break };
            let Some(entry) = self.entry(slot).filter(|entry| entry.sequence == sequence) else { continue };
            let complete = entry.root_complete.is_some_and(|at| now >= at + self.settings.grace);
            // A trace that never falls silent is decided as well, or it would stay undecided for ever.
            let silent = now >= entry.changed + self.settings.silence
                || now >= entry.arrived + self.settings.silence * 10;
            if complete || silent {
                self.decide(slot, now);
            } else {
                self.undecided.push_back((slot, sequence));
            }
        }
        // Places of traces that are gone pile up at the front only until someone is pushed out; clear them here too.
        while let Some((slot, sequence)) = self.by_arrival.front().copied() {
            if self.entry(slot).is_some_and(|entry| entry.sequence == sequence) {
                break;
            }
            self.by_arrival.pop_front();
        }
        if self.by_arrival.len() > 2 * self.by_arrival_len() + 1024 {
            let slots = &self.slots;
            self.by_arrival.retain(|(slot, sequence)| {
                slots[*slot as usize].as_ref().is_some_and(|entry| entry.sequence == *sequence)
            });
        }
        if now >= self.next_sweep {
            // Once a minute: they walk all they have.
            self.offered.sweep(&self.settings, now);
            self.gone.sweep(&self.settings, now);
            self.next_sweep = now + Nanos::from_secs(60);
        }
        self.stay_within_budget();
    }

    fn trace(&self, id: TraceId) -> Option<Vec<Span>> {
        self.find(id).and_then(|slot| self.entry(slot)).map(|entry| self.decode(entry))
    }

    fn search(&self, query: &TraceQuery) -> Vec<Vec<Span>> {
        self.found(query)
    }

    fn services(&self) -> Vec<String> {
        self.offered.services()
    }

    fn span_names(&self, service: &str) -> Vec<String> {
        self.offered.span_names(service)
    }

    fn remote_services(&self, service: &str) -> Vec<String> {
        self.offered.remotes(service)
    }

    fn tag_values(&self, key: &str) -> Vec<String> {
        self.offered.values(key)
    }

    fn links(&self, from: Nanos, to: Nanos) -> Vec<Link> {
        self.all_links(from, to)
    }
}

#[cfg(test)]
mod tests;
