//! Finding traces: by the index as far as it goes, then by opening what is left.

use super::super::names::NameId;
use super::super::{Order, TraceQuery};
use super::MemoryTraces;
use super::entry::{Entry, NO_SLOT, UNNAMED};
use crate::ids::TraceId;
use crate::span::{Span, lower};
use units::Nanos;

/// A search never answers with more spans than this: the page could not show them and the answer would not fit.
const SPANS_PER_ANSWER_MAX: usize = 500_000;
/// Traces opened to find an alert's cause: while something fails, it is among the newest.
const CAUSES_OPENED_MAX: usize = 5_000;

impl MemoryTraces {
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

    pub(super) fn found(&self, query: &TraceQuery) -> Vec<Vec<Span>> {
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
