//! The one store of numbers: what every worker counted, collected four times a second, kept by the second for a quarter
//! of an hour and by ten seconds for six.
//!
//! The map's frames, the pages, the promises, `/metrics` and the exports all read what [`Measures::collect`] handed out
//! or what its history keeps, so no two of them can disagree. Which request belongs to which series was decided by the
//! worker that carried it; here series only get their names back.
//!
//! Bounded: series by their registry's budget (past it requests are counted under `other`), history by its bytes,
//! instances by their number, exemplars by theirs.

use std::collections::HashMap;
use telemetry::exposition::Exemplar;
use telemetry::ids::TraceId;
use telemetry::metrics::{
    Collector, Counters, Frame, History, HistorySettings, InstanceSettings, InstanceStore, Maker, Registry,
    SeriesId, SeriesKey, SeriesText, SeriesUsage, Sparse,
};
use units::Nanos;

/// Bounds of a histogram's coarse buckets in powers of two of a second: what an exemplar is kept for.
const EXPONENTS: std::ops::RangeInclusive<i32> = -10..=6;
const EXEMPLARS_MAX: usize = 20_000;

#[derive(Debug)]
pub struct Measures {
    registry: Registry,
    collector: Collector,
    history: History,
    pub instances: InstanceStore,
    texts: Vec<SeriesText>,
    exemplars: HashMap<(SeriesId, i32), Exemplar>,
    exemplars_refused: u64,
    last: Nanos,
}

impl Measures {
    /// `now` is since isobar started, as everywhere here.
    pub fn new(registry: Registry, now: Nanos) -> Self {
        Self {
            collector: Collector::new(registry.clone(), now),
            history: History::new(HistorySettings::default()),
            instances: InstanceStore::new(InstanceSettings::default()),
            texts: registry.texts_from(0),
            exemplars: HashMap::new(),
            exemplars_refused: 0,
            last: now,
            registry,
        }
    }

    /// What happened since the call before. Call it every 250 ms, from one place.
    pub fn collect(&mut self, now: Nanos) -> Frame {
        let frame = self.collector.collect(now);
        self.history.add(&frame);
        // Names after the frame: whatever is in it was opened before it was read.
        self.texts.extend(self.registry.texts_from(self.texts.len()));
        self.last = now;
        frame
    }

    /// When the cells were read last.
    pub fn collected_at(&self) -> Nanos {
        self.last
    }

    pub fn text(&self, series: SeriesId) -> Option<&SeriesText> {
        self.texts.get(series.0 as usize)
    }

    /// Every series by number, ascending.
    pub fn texts(&self) -> impl Iterator<Item = (SeriesId, &SeriesText)> {
        self.texts.iter().enumerate().map(|(at, text)| (SeriesId(at as u32), text))
    }

    /// Each series over the last `window`, by name.
    pub fn window(&self, window: Nanos, now: Nanos) -> Vec<(&SeriesText, Sparse, Counters)> {
        let named = |(series, latency, counters)| Some((self.text(series)?, latency, counters));
        self.history.window(window, now).into_iter().filter_map(named).collect()
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Series that `wanted` names, as [`History::range`] takes them: each with whether it counts failures.
    pub fn series_where(&self, wanted: impl Fn(&SeriesText) -> bool) -> Vec<(SeriesId, bool)> {
        let numbered = self.texts.iter().enumerate().filter(|(_, text)| wanted(text));
        numbered.map(|(at, text)| (SeriesId(at as u32), text.class.failed())).collect()
    }

    /// A trace that shows what a bucket of a series looks like; the newest stays.
    pub fn exemplify(&mut self, key: &SeriesKey, trace_id: TraceId, value: Nanos, at: Nanos) {
        let Some(series) = self.registry.find(key) else { return };
        let place = (series, exponent(value));
        if self.exemplars.len() < EXEMPLARS_MAX || self.exemplars.contains_key(&place) {
            self.exemplars.insert(place, Exemplar { trace_id, value, at });
        } else {
            self.exemplars_refused += 1;
        }
    }

    pub fn exemplars(&self) -> impl Iterator<Item = ((SeriesId, i32), Exemplar)> + '_ {
        self.exemplars.iter().map(|(place, it)| (*place, *it))
    }

    /// How many exemplars there are and may be, and how many found no room.
    pub fn exemplar_usage(&self) -> (usize, usize, u64) {
        (self.exemplars.len(), EXEMPLARS_MAX, self.exemplars_refused)
    }

    pub fn series_usage(&self) -> SeriesUsage {
        self.registry.usage()
    }

    pub fn makers(&self) -> Vec<Maker> {
        self.registry.makers()
    }

    pub fn series_count(&self) -> usize {
        self.texts.len()
    }

    /// All memory of it.
    pub fn bytes(&self) -> usize {
        self.history.usage().bytes
            + self.collector.bytes()
            + self.texts.capacity() * size_of::<SeriesText>()
            + self.exemplars.capacity() * size_of::<((SeriesId, i32), Exemplar)>()
    }
}

/// The smallest bound of a bucket that holds `value`.
fn exponent(value: Nanos) -> i32 {
    let exact = value.as_secs_f64().log2().ceil();
    if exact.is_finite() {
        (exact as i32).clamp(*EXPONENTS.start(), *EXPONENTS.end())
    } else {
        *EXPONENTS.start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::metrics::{Class, Label, SeriesSettings};

    #[test]
    fn what_workers_count_is_found_by_name_and_over_time() {
        let registry = Registry::new(SeriesSettings::default());
        let mut measures = Measures::new(registry.clone(), Nanos::ZERO);
        let mut worker = registry.recorder();
        let key = SeriesKey {
            source: registry.label("web"),
            destination: registry.label("cart"),
            operation: registry.label("GET /cart"),
            version: Label::NONE,
            source_zone: Label::NONE,
            destination_zone: Label::NONE,
            class: Class::ServerError,
        };
        let series = worker.series(&key);
        for second in 1..=20u64 {
            worker.record(series, Nanos::from_millis(second));
            let frame = measures.collect(Nanos::from_secs(second));
            assert_eq!(frame.deltas.len(), 1);
        }
        let now = Nanos::from_secs(20);
        let rows = measures.window(Nanos::from_secs(5), now);
        assert_eq!((&*rows[0].0.source, &*rows[0].0.destination, rows[0].1.count()), ("web", "cart", 5));
        let wanted = measures.series_where(|it| &*it.destination == "cart");
        let points = measures.history().range(Nanos::ZERO, now, Nanos::from_secs(10), &wanted);
        assert_eq!(
            points.iter().map(|it| (it.requests, it.errors)).collect::<Vec<_>>(),
            [(10, 10), (10, 10)]
        );
        let trace = TraceId::new(7).expect("not zero");
        measures.exemplify(&key, trace, Nanos::from_millis(3), now);
        let shown: Vec<_> = measures.exemplars().map(|(place, it)| (place, it.trace_id)).collect();
        assert_eq!(shown, [((wanted[0].0, -8), trace)], "3 ms is below 2^-8 s");
    }

    #[test]
    fn buckets_end_at_powers_of_two() {
        for (nanos, expected) in
            [(0, -10), (1, -10), (976_562, -10), (976_563, -9), (1_000_000_000, 0), (u64::MAX, 6)]
        {
            assert_eq!(exponent(Nanos(nanos)), expected, "{nanos}");
        }
    }
}
