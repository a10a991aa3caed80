//! Traces in memory, within a byte budget.
//!
//! A trace is one blob of encoded spans and one small index entry. Everything counts against one budget: blobs, entries,
//! names; when it is reached the oldest trace goes, whole. A trace can be read and searched from its first span on;
//! whether it stays is decided once its root completed and a grace for stragglers passed (or nothing came for a while).
//! What is decided against or pushed out still counts in dependency links, which live in a small table by the minute.

use super::keep::{Reasons, Slowest, in_share};
use super::names::{NameId, Names};
use super::outline::{self, Outline};
use super::query::moment;
use super::{Added, KeepSettings, Map, Order, TraceQuery, TraceStore, codec};
use crate::ids::TraceId;
use crate::report::Report;
use crate::span::{Span, SpanKind, lower};
use crate::tree::{Link, Linker};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use units::Nanos;

#[derive(Clone, Debug)]
pub struct TraceSettings {
    pub keep: KeepSettings,
    /// All memory of the store.
    pub bytes_max: usize,
    pub traces_max: usize,
    /// More spans of one trace are counted and dropped.
    pub spans_per_trace_max: usize,
    /// No trace may push out all others.
    pub bytes_per_trace_max: usize,
    /// Between the root's completion and the decision.
    pub grace: Nanos,
    /// A trace without a complete root is decided after this much silence.
    pub silence: Nanos,
    /// How long names of services and spans are offered after they were last seen.
    pub names_live: Nanos,
    pub span_names_per_service_max: usize,
    /// Tags whose values are offered for completion.
    pub completed_tags: Vec<Box<str>>,
    pub completions_max: usize,
    pub completions_live: Nanos,
    /// Links of dropped traces are remembered this long.
    pub links_live: Nanos,
    pub links_per_minute_max: usize,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            keep: KeepSettings::default(),
            bytes_max: 192 << 20,
            traces_max: 100_000,
            spans_per_trace_max: 100_000,
            bytes_per_trace_max: 32 << 20,
            grace: Nanos::from_secs(2),
            silence: Nanos::from_secs(10),
            names_live: Nanos::from_secs(24 * 3600),
            span_names_per_service_max: 1_000,
            completed_tags: [crate::span::tag::VERSION, crate::span::tag::ZONE, crate::span::tag::ROUTE]
                .map(Box::from)
                .to_vec(),
            completions_max: 20_000,
            completions_live: Nanos::from_secs(3600),
            links_live: Nanos::from_secs(24 * 3600),
            links_per_minute_max: 20_000,
        }
    }
}

/// What the store holds and what it had to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: usize,
    pub traces: usize,
    pub undecided: usize,
    pub spans: usize,
    pub kept: u64,
    pub not_kept: u64,
    pub pushed_out: u64,
    pub spans_too_late: u64,
    pub spans_too_many: u64,
    pub names_refused: u64,
}

type Slot = u32;
const NO_SLOT: Slot = Slot::MAX;
/// Stands for a service whose name found the table full; its traces must be opened to be searched.
const UNNAMED: NameId = NameId(u32::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Undecided,
    Kept,
}

#[derive(Debug)]
struct Entry {
    id: TraceId,
    blob: Vec<u8>,
    spans: u32,
    state: State,
    reasons: Reasons,
    /// One of how many like it: the inverse of the share it was kept under.
    weight: f32,
    arrived: Nanos,
    changed: Nanos,
    /// The root's start, else the earliest.
    moment: Option<Nanos>,
    has_root_moment: bool,
    root_complete: Option<Nanos>,
    /// Longest span of each service in the trace.
    services: Vec<(NameId, Nanos)>,
    /// Tells a reused slot's old places in queues from its new ones.
    sequence: u64,
    /// The next trace whose id has the same low half.
    next_alike: Slot,
    /// Who called whom in it, once it was decided for; gone again when another span comes.
    links: Option<Box<[LinkCount]>>,
}

/// Caller, callee, calls and errors.
type LinkCount = (NameId, NameId, u32, u32);

impl Entry {
    fn bytes(&self) -> usize {
        // An entry, its places in the two queues, the maps by id and by time.
        const FIXED: usize = size_of::<Entry>() + 16 + 16 + 48 + 48;
        let links = self.links.as_ref().map_or(0, |links| links.len() * size_of::<LinkCount>());
        FIXED + links + self.blob.capacity() + self.services.capacity() * size_of::<(NameId, Nanos)>()
    }
}

/// One service's names, offered by the read API.
#[derive(Debug, Default)]
struct Known {
    seen: Nanos,
    spans: BTreeMap<Box<str>, Nanos>,
    remotes: BTreeMap<Box<str>, Nanos>,
}

#[derive(Debug, Default)]
struct MinuteLinks {
    counts: Map<(NameId, NameId), (u64, u64)>,
}

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
    known: BTreeMap<Box<str>, Known>,
    known_bytes: usize,
    /// Names that are not offered because too many are.
    known_refused: u64,
    /// Values by key.
    completions: BTreeMap<Box<str>, BTreeMap<Box<str>, Nanos>>,
    completions_len: usize,
    /// Service, span and remote service that were learnt lately, so that a span which says nothing new costs nothing.
    learnt: Map<[Option<NameId>; 3], Nanos>,
    gone_links: BTreeMap<u64, MinuteLinks>,
    /// Pairs in all minutes.
    gone_len: usize,
    bytes: usize,
    next_sequence: u64,
    next_sweep: Nanos,
    /// Scratch for the trace that is being decided.
    sketch: Vec<Outline>,
    usage: Usage,
}

/// Names seen again are written down again only after this long: they live for hours.
const LEARNT_FOR: Nanos = Nanos::from_secs(20);
/// More are learnt anew.
const LEARNT_MAX: usize = 50_000;
/// Decisions remembered: at 10,000 traces a second, some seconds of them.
const NOT_KEPT_MAX: usize = 65_536;
/// Room for a first span or two, so that small traces grow once at most; what is left over is given back when a trace
/// is kept.
const BLOB_BYTES: usize = 256;
/// What a name that is offered costs beside its text: its place in a tree, and when it was seen.
const OFFERED_BYTES: usize = 48;
/// Longer values of tags are not offered for completion: nobody chooses among them.
const COMPLETED_BYTES_MAX: usize = 200;
/// Pairs of caller and callee remembered of traces that are gone, in all minutes; then the oldest minutes go.
const GONE_LINKS_MAX: usize = 200_000;
/// What such a pair costs.
const GONE_LINK_BYTES: usize = 48;
/// Traces opened to find an alert's cause: while something fails, it is among the newest.
const CAUSES_OPENED_MAX: usize = 5_000;
/// Services offered by the read API; the names of more are still found by those who know them.
const SERVICES_MAX: usize = 10_000;
const MINUTE: u64 = 60_000_000_000;

/// Services that send spans, remembered by name: more than a system has.
const SPEAKERS_MAX: usize = 10_000;

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
            known: BTreeMap::new(),
            known_bytes: 0,
            known_refused: 0,
            completions: BTreeMap::new(),
            completions_len: 0,
            learnt: Map::default(),
            sketch: Vec::new(),
            gone_links: BTreeMap::new(),
            gone_len: 0,
            bytes: 0,
            next_sequence: 0,
            next_sweep: Nanos::ZERO,
            usage: Usage::default(),
            settings,
        }
    }

    pub fn usage(&self) -> Usage {
        let decided = self.not_kept_order.len() * 2 * size_of::<(TraceId, u64)>();
        Usage {
            bytes: self.bytes
                + self.names.bytes()
                + self.slowest.bytes()
                + decided
                + self.known_bytes
                + self.gone_len * GONE_LINK_BYTES,
            traces: self.by_arrival_len(),
            undecided: self.undecided.len(),
            names_refused: self.names.refused + self.known_refused,
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

    /// Whether a trace can be read.
    /// Services that have sent spans themselves, and not only through a proxy's reports.
    pub fn speakers(&self) -> &HashSet<Box<str>> {
        &self.speakers
    }

    pub fn holds(&self, id: TraceId) -> bool {
        self.find(id).is_some()
    }

    /// Ids of the newest traces with a call of a service, or a call to it, that `is_bad`: what an alert shows as its
    /// cause. Callers' spans count, for a service that says nothing of itself is called all the same.
    pub fn causes(
        &self,
        service: &str,
        since: Nanos,
        limit: usize,
        is_bad: impl Fn(&Span) -> bool,
    ) -> Vec<TraceId> {
        let service = lower(service);
        let concerns = |span: &Span| span.local.service == service || span.remote.service == service;
        self.by_moment
            .range((since, 0)..)
            .rev()
            .filter_map(|(_, slot)| self.entry(*slot))
            .take(CAUSES_OPENED_MAX)
            .filter(|entry| self.decode(entry).iter().any(|span| concerns(span) && is_bad(span)))
            .map(|entry| entry.id)
            .take(limit)
            .collect()
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
            match entry.services.iter_mut().find(|(known, _)| *known == service) {
                Some((_, longest)) => *longest = (*longest).max(duration),
                None => entry.services.push((service, duration)),
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
        let names = [placed.local, placed.name, placed.remote];
        if self.learnt.get(&names).is_none_or(|at| now >= *at + LEARNT_FOR) {
            if self.learnt.len() >= LEARNT_MAX {
                self.learnt.clear();
            }
            self.learnt.insert(names, now);
            self.learn_names(span, now);
        }
        self.learn_values(span, now);
    }

    fn learn_names(&mut self, span: &impl Report, now: Nanos) {
        let head = span.head();
        let service = head.local.service;
        if service.is_empty() || (!self.known.contains_key(service) && self.known.len() >= SERVICES_MAX) {
            return;
        }
        if !self.known.contains_key(service) {
            self.known_bytes += service.len() + OFFERED_BYTES;
        }
        let known = self.known.entry(service.into()).or_default();
        known.seen = now;
        let max = self.settings.span_names_per_service_max;
        // A sixteenth for names that are offered: strangers may put ids into them.
        let room = (self.settings.bytes_max / 16).saturating_sub(self.known_bytes);
        for (names, name) in
            [(&mut known.spans, &*lower(head.name)), (&mut known.remotes, head.remote.service)]
        {
            match remember(names, name, now, max, room / 2) {
                Remembered::New => self.known_bytes += name.len() + OFFERED_BYTES,
                Remembered::Refused => self.known_refused += 1,
                Remembered::Known => {}
            }
        }
    }

    fn learn_values(&mut self, span: &impl Report, now: Nanos) {
        for (key, value) in span.tags() {
            if !self.settings.completed_tags.iter().any(|it| **it == *key) {
                continue;
            }
            if !self.completions.contains_key(key) {
                self.completions.insert(key.into(), BTreeMap::new());
            }
            let Some(values) = self.completions.get_mut(key) else { continue };
            let value = value.text();
            if value.len() > COMPLETED_BYTES_MAX {
                continue;
            }
            if let Some(seen) = values.get_mut(&*value) {
                *seen = now;
            } else if self.completions_len < self.settings.completions_max {
                values.insert(value.into(), now);
                self.completions_len += 1;
            }
        }
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
            self.count_gone(moment, (*parent, *child), u64::from(*calls), u64::from(*errors));
        }
    }

    fn count_gone(&mut self, moment: Nanos, ends: (NameId, NameId), calls: u64, errors: u64) {
        let minute = self.gone_links.entry(moment.0 / MINUTE).or_default();
        if let Some(sums) = minute.counts.get_mut(&ends) {
            *sums = (sums.0 + calls, sums.1 + errors);
        } else if minute.counts.len() < self.settings.links_per_minute_max {
            minute.counts.insert(ends, (calls, errors));
            self.gone_len += 1;
        }
        while self.gone_len > GONE_LINKS_MAX {
            let Some((_, oldest)) = self.gone_links.pop_first() else { break };
            self.gone_len -= oldest.counts.len();
        }
    }

    /// Calls that belong to no trace here, for nobody made one of them: links count them all the same.
    pub fn count_calls(&mut self, moment: Nanos, parent: &str, child: &str, calls: u64, errors: u64) {
        let ends = self.names.intern(&lower(parent)).zip(self.names.intern(&lower(child)));
        if let Some(ends) = ends {
            self.count_gone(moment, ends, calls, errors);
        }
    }

    /// What a trace adds to links, so that nobody has to read it again for that. `None` if a name has no number.
    fn link_counts(&mut self, entry: &Entry) -> Option<Box<[LinkCount]>> {
        self.sketch.clear();
        if !codec::outlines(&entry.blob, &mut self.sketch) {
            return None;
        }
        self.links_of_sketch(entry)
    }

    fn links_of_sketch(&self, entry: &Entry) -> Option<Box<[LinkCount]>> {
        let mut counts: Vec<LinkCount> = Vec::new();
        let plain = outline::links(&self.sketch, |parent, child, failed| {
            let errors = u32::from(failed);
            match counts.iter_mut().find(|it| (it.0, it.1) == (parent, child)) {
                Some(it) => (it.2, it.3) = (it.2 + 1, it.3 + errors),
                None => counts.push((parent, child, 1, errors)),
            }
        });
        if plain {
            return Some(counts.into());
        }
        self.tree_links(entry).into_iter().collect()
    }

    /// The same by the trace's tree; `None` for a call between names without numbers.
    fn tree_links(&self, entry: &Entry) -> Vec<Option<LinkCount>> {
        let mut linker = Linker::default();
        linker.add_trace(self.decode(entry));
        let count = |link: Link| {
            let narrow = |count: u64| u32::try_from(count).ok();
            let names = self.names.find(&link.parent).zip(self.names.find(&link.child))?;
            Some((names.0, names.1, narrow(link.calls)?, narrow(link.errors)?))
        };
        linker.links().into_iter().map(count).collect()
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

    /// Names nobody used for long are no longer offered. Once a minute: it walks everything.
    fn sweep(&mut self, now: Nanos) {
        let oldest = now.saturating_sub(self.settings.names_live);
        self.known.retain(|_, known| {
            known.spans.retain(|_, seen| *seen >= oldest);
            known.remotes.retain(|_, seen| *seen >= oldest);
            known.seen >= oldest
        });
        let oldest = now.saturating_sub(self.settings.completions_live);
        self.completions.values_mut().for_each(|values| values.retain(|_, seen| *seen >= oldest));
        self.completions.retain(|_, values| !values.is_empty());
        self.completions_len = self.completions.values().map(BTreeMap::len).sum();
        self.learnt.clear();
        let oldest = now.saturating_sub(self.settings.links_live).0 / MINUTE;
        self.gone_links = self.gone_links.split_off(&oldest);
        self.gone_len = self.gone_links.values().map(|it| it.counts.len()).sum();
        let offered = |names: &BTreeMap<Box<str>, Nanos>| {
            names.keys().map(|name| name.len() + OFFERED_BYTES).sum::<usize>()
        };
        let all = self.known.iter();
        self.known_bytes = all
            .map(|(name, it)| name.len() + OFFERED_BYTES + offered(&it.spans) + offered(&it.remotes))
            .sum();
    }

    /// Traces that may match, by the index alone, in the query's order. Lazy where it can be: the newest ten of a busy
    /// service are found after looking at some hundred.
    fn candidates<'a>(&'a self, query: &'a TraceQuery) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        let service = match &query.service {
            None => None,
            Some(name) => match self.names.find(name) {
                Some(id) => Some(id),
                // Nobody by that name, unless its name found the table full.
                None if self.names.refused == 0 => return Box::new(std::iter::empty()),
                None => Some(UNNAMED),
            },
        };
        let fits = move |entry: &&Entry| {
            let any = |service: Option<NameId>| {
                entry.services.iter().any(|(known, longest)| {
                    service.is_none_or(|wanted| wanted == *known)
                        // Only the longest is known here: enough to refuse by the minimum, not by the maximum.
                        && query.min_duration.is_none_or(|min| *longest >= min)
                })
            };
            match service {
                Some(service) => any(Some(service)) || any(Some(UNNAMED)),
                None => entry.services.is_empty() || any(None),
            }
        };
        let in_time = self.by_moment.range((query.from, 0)..=(query.to, NO_SLOT)).rev();
        let entries = in_time.filter_map(|(_, slot)| self.entry(*slot)).filter(fits);
        if query.order == Order::Newest {
            return Box::new(entries);
        }
        let longest = move |entry: &Entry| {
            let of = entry.services.iter().filter(|(known, _)| service.is_none_or(|it| it == *known));
            of.map(|(_, longest)| *longest).max().unwrap_or(Nanos::ZERO)
        };
        let mut sorted: Vec<(Nanos, &Entry)> = entries.map(|entry| (longest(entry), entry)).collect();
        sorted.sort_by_key(|(longest, _)| std::cmp::Reverse(*longest));
        Box::new(sorted.into_iter().map(|(_, entry)| entry))
    }
}

enum Remembered {
    Known,
    New,
    Refused,
}

fn remember(
    names: &mut BTreeMap<Box<str>, Nanos>,
    name: &str,
    now: Nanos,
    max: usize,
    room: usize,
) -> Remembered {
    if name.is_empty() {
        return Remembered::Known;
    }
    if let Some(seen) = names.get_mut(name) {
        *seen = now;
        Remembered::Known
    } else if names.len() < max && name.len() + OFFERED_BYTES <= room {
        names.insert(name.into(), now);
        Remembered::New
    } else {
        Remembered::Refused
    }
}

/// A search never answers with more spans than this: the page could not show them and the answer would not fit.
const SPANS_PER_ANSWER_MAX: usize = 500_000;

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
            if !name.is_empty() && self.speakers.len() < SPEAKERS_MAX && !self.speakers.contains(name) {
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
            self.sweep(now);
            self.next_sweep = now + Nanos::from_secs(60);
        }
        self.stay_within_budget();
    }

    fn trace(&self, id: TraceId) -> Option<Vec<Span>> {
        self.find(id).and_then(|slot| self.entry(slot)).map(|entry| self.decode(entry))
    }

    fn search(&self, query: &TraceQuery) -> Vec<Vec<Span>> {
        let mut found = Vec::new();
        let mut spans_left = SPANS_PER_ANSWER_MAX;
        for entry in self.candidates(query) {
            if found.len() == query.limit {
                break;
            }
            let spans = self.decode(entry);
            if query.matches(&spans) {
                match spans_left.checked_sub(spans.len()) {
                    Some(left) => spans_left = left,
                    None if found.is_empty() => spans_left = 0,
                    None => break,
                }
                found.push(spans);
            }
        }
        found
    }

    fn services(&self) -> Vec<String> {
        self.known.keys().map(|name| name.to_string()).collect()
    }

    fn span_names(&self, service: &str) -> Vec<String> {
        let known = self.known.get(&lower(service));
        known.map(|known| known.spans.keys().map(|name| name.to_string()).collect()).unwrap_or_default()
    }

    fn remote_services(&self, service: &str) -> Vec<String> {
        let known = self.known.get(&lower(service));
        known.map(|known| known.remotes.keys().map(|name| name.to_string()).collect()).unwrap_or_default()
    }

    fn tag_values(&self, key: &str) -> Vec<String> {
        self.completions.get(key).into_iter().flatten().map(|(value, _)| value.to_string()).collect()
    }

    fn links(&self, from: Nanos, to: Nanos) -> Vec<Link> {
        let mut linker = Linker::default();
        let mut sums: Map<(NameId, NameId), (u64, u64)> = Map::default();
        for (_, slot) in self.by_moment.range((from, 0)..=(to, NO_SLOT)) {
            let Some(entry) = self.entry(*slot) else { continue };
            let low = entry.id.low();
            if self.by_low_id.get(&low) == Some(slot) && entry.next_alike == NO_SLOT {
                let Some(links) = &entry.links else {
                    linker.add_trace(self.decode(entry));
                    continue;
                };
                for (parent, child, calls, errors) in links {
                    let sum = sums.entry((*parent, *child)).or_default();
                    sum.0 += u64::from(*calls);
                    sum.1 += u64::from(*errors);
                }
            } else if self.alike(low).filter(|it| self.in_time(*it, from, to)).min() == Some(*slot) {
                // Two lengths of one id: one trace, taken when its first half comes by.
                let halves =
                    self.alike(low).filter(|it| self.in_time(*it, from, to)).filter_map(|it| self.entry(it));
                linker.add_trace(halves.flat_map(|entry| self.decode(entry)).collect());
            }
        }
        for ((parent, child), (calls, errors)) in sums {
            linker.add(self.names.text(parent), self.names.text(child), calls, errors);
        }
        for minute in self.gone_links.range(from.0 / MINUTE..=to.0 / MINUTE).map(|(_, minute)| minute) {
            for ((parent, child), (calls, errors)) in &minute.counts {
                linker.add(self.names.text(*parent), self.names.text(*child), *calls, *errors);
            }
        }
        linker.links()
    }
}

impl MemoryTraces {
    fn in_time(&self, slot: Slot, from: Nanos, to: Nanos) -> bool {
        let moment = self.entry(slot).and_then(|entry| entry.moment);
        moment.is_some_and(|moment| (from..=to).contains(&moment))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
