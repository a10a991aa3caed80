//! Who called whom: in the traces that are here, and in those that are gone.

use super::super::names::NameId;
use super::super::settings::TraceSettings;
use super::super::{Map, codec, outline};
use super::MemoryTraces;
use super::entry::{Entry, LinkCount, NO_SLOT, Slot};
use crate::span::lower;
use crate::tree::{Link, Linker};
use std::collections::BTreeMap;
use units::Nanos;

/// Pairs of caller and callee remembered of traces that are gone, in all minutes; then the oldest minutes go.
pub const GONE_LINKS_MAX: usize = 200_000;
/// What such a pair costs.
const PAIR_BYTES: usize = 48;
const MINUTE: u64 = 60_000_000_000;

/// Calls and errors by caller and callee.
type Sums = Map<(NameId, NameId), (u64, u64)>;

/// Calls in traces that are gone, by the minute.
#[derive(Debug, Default)]
pub(super) struct Gone {
    minutes: BTreeMap<u64, Sums>,
    /// Pairs in all minutes.
    len: usize,
    /// That found no room, or made it.
    pub(super) refused: u64,
}

impl Gone {
    pub(super) fn add(
        &mut self,
        settings: &TraceSettings,
        moment: Nanos,
        ends: (NameId, NameId),
        calls: u64,
        errors: u64,
    ) {
        let minute = self.minutes.entry(moment.0 / MINUTE).or_default();
        if let Some(sums) = minute.get_mut(&ends) {
            *sums = (sums.0 + calls, sums.1 + errors);
        } else if minute.len() < settings.links_per_minute_max {
            minute.insert(ends, (calls, errors));
            self.len += 1;
        } else {
            self.refused += 1;
        }
        while self.len > GONE_LINKS_MAX {
            let Some((_, oldest)) = self.minutes.pop_first() else { break };
            self.len -= oldest.len();
            self.refused += oldest.len() as u64;
        }
    }

    fn between(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = (&(NameId, NameId), &(u64, u64))> {
        self.minutes.range(from.0 / MINUTE..=to.0 / MINUTE).flat_map(|(_, sums)| sums)
    }

    pub(super) fn sweep(&mut self, settings: &TraceSettings, now: Nanos) {
        let oldest = now.saturating_sub(settings.links_live).0 / MINUTE;
        self.minutes = self.minutes.split_off(&oldest);
        self.len = self.minutes.values().map(Map::len).sum();
    }

    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.minutes.values().map(Map::len).sum()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * PAIR_BYTES
    }
}

impl MemoryTraces {
    /// Calls that belong to no trace here, for nobody made one of them: links count them all the same.
    pub fn count_calls(&mut self, moment: Nanos, parent: &str, child: &str, calls: u64, errors: u64) {
        let ends = self.names.intern_service(&lower(parent)).zip(self.names.intern_service(&lower(child)));
        if let Some(ends) = ends {
            self.gone.add(&self.settings, moment, ends, calls, errors);
        }
    }

    /// What a trace adds to links, so that nobody has to read it again for that. `None` if a name has no number.
    pub(super) fn link_counts(&mut self, entry: &Entry) -> Option<Box<[LinkCount]>> {
        self.sketch.clear();
        if !codec::outlines(&entry.blob, &mut self.sketch) {
            return None;
        }
        self.links_of_sketch(entry)
    }

    pub(super) fn links_of_sketch(&self, entry: &Entry) -> Option<Box<[LinkCount]>> {
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
    pub(super) fn tree_links(&self, entry: &Entry) -> Vec<Option<LinkCount>> {
        let mut linker = Linker::default();
        linker.add_trace(self.decode(entry));
        let count = |link: Link| {
            let narrow = |count: u64| u32::try_from(count).ok();
            let names = self.names.find(&link.parent).zip(self.names.find(&link.child))?;
            Some((names.0, names.1, narrow(link.calls)?, narrow(link.errors)?))
        };
        linker.links().into_iter().map(count).collect()
    }

    pub(super) fn all_links(&self, from: Nanos, to: Nanos) -> Vec<Link> {
        let mut linker = Linker::default();
        let mut sums = Sums::default();
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
        for ((parent, child), (calls, errors)) in self.gone.between(from, to) {
            linker.add(self.names.text(*parent), self.names.text(*child), *calls, *errors);
        }
        linker.links()
    }

    fn in_time(&self, slot: Slot, from: Nanos, to: Nanos) -> bool {
        let moment = self.entry(slot).and_then(|entry| entry.moment);
        moment.is_some_and(|moment| (from..=to).contains(&moment))
    }
}
