//! What the read API offers for completion: services, their span names and far ends, and values of some tags.
//!
//! Strangers put ids into names, so everything here has an end of its own, and what nobody used for long is forgotten.

use super::super::Map;
use super::super::codec::Placed;
use super::super::names::NameId;
use super::super::settings::TraceSettings;
use crate::report::Report;
use crate::span::lower;
use std::collections::BTreeMap;
use units::Nanos;

/// Names seen again are written down again only after this long: they live for hours.
const LEARNT_FOR: Nanos = Nanos::from_secs(20);
/// More are learnt anew.
const LEARNT_MAX: usize = 50_000;
/// What a name that is offered costs beside its text: its place in a tree, and when it was seen.
const OFFERED_BYTES: usize = 48;
/// Longer values of tags are not offered for completion: nobody chooses among them.
const COMPLETED_BYTES_MAX: usize = 200;
/// Services offered by the read API; the names of more are still found by those who know them.
const SERVICES_MAX: usize = 10_000;

/// One service's names.
#[derive(Debug, Default)]
struct Known {
    seen: Nanos,
    spans: BTreeMap<Box<str>, Nanos>,
    remotes: BTreeMap<Box<str>, Nanos>,
}

#[derive(Debug, Default)]
pub(super) struct Offered {
    services: BTreeMap<Box<str>, Known>,
    pub(super) bytes: usize,
    /// Names that are not offered because too many are.
    pub(super) refused: u64,
    /// Values by key.
    values: BTreeMap<Box<str>, BTreeMap<Box<str>, Nanos>>,
    pub(super) values_len: usize,
    /// Values that found no room.
    pub(super) values_refused: u64,
    /// Service, span and remote service that were learnt lately, so that a span which says nothing new costs nothing.
    learnt: Map<[Option<NameId>; 3], Nanos>,
}

impl Offered {
    pub(super) fn learn(&mut self, settings: &TraceSettings, span: &impl Report, placed: Placed, now: Nanos) {
        let names = [placed.local, placed.name, placed.remote];
        // Names without numbers are not told apart here, so they are learnt each time.
        let head = span.head();
        let numbered = placed.name.is_some()
            && placed.local.is_some() != head.local.service.is_empty()
            && placed.remote.is_some() != head.remote.service.is_empty();
        if !numbered {
            self.learn_names(settings, span, now);
        } else if self.learnt.get(&names).is_none_or(|at| now >= *at + LEARNT_FOR) {
            if self.learnt.len() >= LEARNT_MAX {
                self.learnt.clear();
            }
            self.learnt.insert(names, now);
            self.learn_names(settings, span, now);
        }
        self.learn_values(settings, span, now);
    }

    fn learn_names(&mut self, settings: &TraceSettings, span: &impl Report, now: Nanos) {
        let head = span.head();
        let service = head.local.service;
        if service.is_empty() {
            return;
        }
        // A sixteenth of the store for what is offered: strangers may put ids into names. The second half of it is for
        // services alone.
        let room = settings.bytes_max / 16;
        if !self.services.contains_key(service) {
            let cost = service.len() + OFFERED_BYTES;
            if self.services.len() >= SERVICES_MAX || self.bytes + cost > room {
                self.refused += 1;
                return;
            }
            self.bytes += cost;
        }
        let known = self.services.entry(service.into()).or_default();
        known.seen = now;
        let max = settings.span_names_per_service_max;
        for (names, name) in
            [(&mut known.spans, &*lower(head.name)), (&mut known.remotes, head.remote.service)]
        {
            match remember(names, name, now, max, (room / 2).saturating_sub(self.bytes)) {
                Remembered::New => self.bytes += name.len() + OFFERED_BYTES,
                Remembered::Refused => self.refused += 1,
                Remembered::Known => {}
            }
        }
    }

    fn learn_values(&mut self, settings: &TraceSettings, span: &impl Report, now: Nanos) {
        for (key, value) in span.tags() {
            if !settings.completed_tags.iter().any(|it| **it == *key) {
                continue;
            }
            if !self.values.contains_key(key) {
                self.values.insert(key.into(), BTreeMap::new());
            }
            let Some(values) = self.values.get_mut(key) else { continue };
            let value = value.text();
            if value.len() > COMPLETED_BYTES_MAX {
                continue;
            }
            if let Some(seen) = values.get_mut(&*value) {
                *seen = now;
            } else if self.values_len < settings.completions_max {
                values.insert(value.into(), now);
                self.values_len += 1;
            } else {
                self.values_refused += 1;
            }
        }
    }

    pub(super) fn services(&self) -> Vec<String> {
        self.services.keys().map(|name| name.to_string()).collect()
    }

    pub(super) fn span_names(&self, service: &str) -> Vec<String> {
        self.services.get(&lower(service)).map(|known| list(&known.spans)).unwrap_or_default()
    }

    pub(super) fn remotes(&self, service: &str) -> Vec<String> {
        self.services.get(&lower(service)).map(|known| list(&known.remotes)).unwrap_or_default()
    }

    pub(super) fn values(&self, key: &str) -> Vec<String> {
        self.values.get(key).map(list).unwrap_or_default()
    }

    /// Names nobody used for long are no longer offered.
    pub(super) fn sweep(&mut self, settings: &TraceSettings, now: Nanos) {
        let oldest = now.saturating_sub(settings.names_live);
        self.services.retain(|_, known| {
            known.spans.retain(|_, seen| *seen >= oldest);
            known.remotes.retain(|_, seen| *seen >= oldest);
            known.seen >= oldest
        });
        let oldest = now.saturating_sub(settings.completions_live);
        self.values.values_mut().for_each(|values| values.retain(|_, seen| *seen >= oldest));
        self.values.retain(|_, values| !values.is_empty());
        self.values_len = self.values.values().map(BTreeMap::len).sum();
        self.learnt.clear();
        let offered = |names: &BTreeMap<Box<str>, Nanos>| {
            names.keys().map(|name| name.len() + OFFERED_BYTES).sum::<usize>()
        };
        let all = self.services.iter();
        self.bytes = all
            .map(|(name, it)| name.len() + OFFERED_BYTES + offered(&it.spans) + offered(&it.remotes))
            .sum();
    }
}

fn list(names: &BTreeMap<Box<str>, Nanos>) -> Vec<String> {
    names.keys().map(|name| name.to_string()).collect()
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
