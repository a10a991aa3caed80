//! Reads every cell and hands out what grew.

use super::cells::Reading;
use super::series::{Registry, SeriesId};
use super::{Counter, Counters, Sparse};
use units::Nanos;

/// What one series did within a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub series: SeriesId,
    pub latency: Sparse,
    pub counters: Counters,
}

/// Everything that happened since the frame before. Frames add up: sums over any run of them are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u64,
    pub from: Nanos,
    pub to: Nanos,
    /// By series, ascending; only those that did something.
    pub deltas: Vec<Delta>,
}

#[derive(Debug)]
pub struct Collector {
    registry: Registry,
    readings: Vec<Vec<(SeriesId, Reading)>>,
    sequence: u64,
    last: Nanos,
}

impl Collector {
    pub fn new(registry: Registry, now: Nanos) -> Self {
        Self { registry, readings: Vec::new(), sequence: 0, last: now }
    }

    /// Call every 250 ms. Two collectors of one registry would each see everything.
    pub fn collect(&mut self, now: Nanos) -> Frame {
        let workers: Vec<Vec<_>> = {
            // Only pointers are copied under the lock; workers that open a series wait for that and no longer.
            let inner = self.registry.lock();
            inner.workers.clone()
        };
        let mut deltas: Vec<Delta> = Vec::new();
        self.readings.resize_with(workers.len(), Vec::new);
        for (cells, readings) in workers.iter().zip(&mut self.readings) {
            for (at, (series, cell)) in cells.iter().enumerate() {
                if at == readings.len() {
                    readings.push((*series, Reading::default()));
                }
                let mut latency = Sparse::default();
                let grown = readings[at].1.advance(cell, |index, count| latency.buckets.push((index, count)));
                if let Some((zero, sum, counters)) = grown {
                    latency.zero = zero;
                    latency.sum = u128::from(sum);
                    deltas.push(Delta { series: *series, latency, counters });
                }
            }
        }
        deltas.sort_by_key(|delta| delta.series);
        deltas.dedup_by(|more, kept| {
            let same = more.series == kept.series;
            if same {
                kept.latency.merge(&more.latency);
                (0..Counter::COUNT).for_each(|at| kept.counters[at] += more.counters[at]);
            }
            same
        });
        self.sequence += 1;
        let frame = Frame { sequence: self.sequence, from: self.last, to: now, deltas };
        self.last = now;
        frame
    }

    /// Cells, readings and tables together.
    pub fn bytes(&self) -> usize {
        let inner = self.registry.lock();
        let cells: usize = inner.workers.iter().flatten().map(|(_, cell)| cell.bytes() + 16 + 64).sum();
        let readings: usize = self.readings.iter().flatten().map(|(_, reading)| reading.bytes() + 8).sum();
        inner.bytes() + cells + readings
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Label, SeriesKey, SeriesSettings};
    use super::*;
    use units::Histogram;

    fn key(registry: &Registry, destination: &str, class: Class) -> SeriesKey {
        SeriesKey {
            source: registry.label("web"),
            destination: registry.label(destination),
            operation: registry.label("GET /"),
            version: Label::NONE,
            source_zone: Label::NONE,
            destination_zone: Label::NONE,
            class,
        }
    }

    #[test]
    fn frames_add_up_to_what_was_recorded() {
        let registry = Registry::new(SeriesSettings::default());
        let mut collector = Collector::new(registry.clone(), Nanos::ZERO);
        let (mut one, mut two) = (registry.recorder(), registry.recorder());
        let key = key(&registry, "cart", Class::Success);
        let (a, b) = (one.series(&key), two.series(&key));
        let mut truth = Histogram::new();
        let mut sum = Sparse::default();
        let mut retries = 0;
        for round in 0..50u64 {
            for n in 0..round {
                let value = Nanos((n * 7919 + round) * 1_003 % 3_000_000_000);
                if n % 2 == 0 {
                    one.record(a, value)
                } else {
                    two.record(b, value)
                }
                truth.record(value);
            }
            two.add(b, Counter::Retries, round);
            let frame = collector.collect(Nanos::from_millis(250 * round));
            assert!(frame.deltas.len() <= 1, "one series, however many workers");
            for delta in &frame.deltas {
                sum.merge(&delta.latency);
                retries += delta.counters[Counter::Retries as usize];
            }
        }
        assert_eq!(sum, Sparse::from(&truth));
        assert_eq!(retries, (0..50).sum::<u64>());
        assert_eq!(collector.collect(Nanos::from_secs(99)).deltas, [], "nothing happened");
    }

    #[test]
    fn values_of_every_size_find_their_cell() {
        let registry = Registry::new(SeriesSettings::default());
        let mut collector = Collector::new(registry.clone(), Nanos::ZERO);
        let mut recorder = registry.recorder();
        let series = recorder.series(&key(&registry, "cart", Class::Success));
        let mut truth = Histogram::new();
        for value in [0, 1, 2, 44, 999, 1_000_000_000, u64::MAX, u64::MAX - 1, 1 << 40] {
            recorder.record(series, Nanos(value));
            truth.record(Nanos(value));
        }
        let frame = collector.collect(Nanos::from_secs(1));
        let counts: Vec<_> = frame.deltas[0].latency.buckets.clone();
        assert_eq!(counts, Sparse::from(&truth).buckets);
        assert_eq!(frame.deltas[0].latency.zero, 1);
    }

    #[test]
    fn a_flood_of_keys_is_counted_in_full_within_the_budget() {
        let settings =
            SeriesSettings { series_max: 50, operations_per_edge_max: 5, ..SeriesSettings::default() };
        let registry = Registry::new(settings);
        let mut collector = Collector::new(registry.clone(), Nanos::ZERO);
        let mut recorder = registry.recorder();
        for n in 0..10_000 {
            let mut key = key(&registry, &format!("svc-{}", n % 300), Class::Success);
            key.operation = registry.label(&format!("GET /{n}"));
            let series = recorder.series(&key);
            recorder.record(series, Nanos::from_millis(1));
        }
        let frame = collector.collect(Nanos::from_secs(1));
        assert_eq!(frame.deltas.iter().map(|delta| delta.latency.count()).sum::<u64>(), 10_000);
        assert!(registry.series_count() <= 50);
    }

    #[test]
    fn a_collector_and_a_worker_may_run_at_once() {
        let registry = Registry::new(SeriesSettings::default());
        let mut collector = Collector::new(registry.clone(), Nanos::ZERO);
        let mut recorder = registry.recorder();
        let key = key(&registry, "cart", Class::Success);
        let worker = std::thread::spawn(move || {
            let series = recorder.series(&key);
            for n in 0..200_000u64 {
                recorder.record(series, Nanos(n * 31));
                recorder.add(series, Counter::RequestBytes, 3);
            }
        });
        let (mut count, mut bytes) = (0, 0);
        let mut frames = 0u64;
        while !worker.is_finished() || frames < 2 {
            let frame = collector.collect(Nanos(frames));
            count += frame.deltas.iter().map(|delta| delta.latency.count()).sum::<u64>();
            bytes +=
                frame.deltas.iter().map(|delta| delta.counters[Counter::RequestBytes as usize]).sum::<u64>();
            frames += 1;
        }
        worker.join().unwrap();
        for delta in collector.collect(Nanos::MAX).deltas {
            count += delta.latency.count();
            bytes += delta.counters[Counter::RequestBytes as usize];
        }
        assert_eq!((count, bytes), (200_000, 600_000));
    }
}
