//! A service's last quarter of an hour, read from the one store of numbers when somebody looks at its page.
//!
//! Nothing is kept for it: what a thousand services did each second is in the history once, and a page is looked at for one
//! of them at a time.

use crate::map::{GATEWAY, Map, Node};
use crate::measures::Measures;
use crate::numbers::Counts;
use std::collections::HashMap;
use telemetry::metrics::{Counter, Point, SeriesId, Sparse};
use units::Nanos;

/// Seconds shown, as many as the history has by the second.
pub const SECONDS: usize = 900;
/// Seconds behind the numbers of a call or a version.
const LATELY: u64 = 10;
/// A column of the heatmap.
const COLUMN_SECONDS: u64 = 10;
/// Upper bounds of the heatmap's rows, milliseconds; what is slower is in the last.
pub const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 20, 35, 50, 75, 100, 200, 500, 1_000, 2_000, 5_000];
pub const COLUMNS: usize = SECONDS / COLUMN_SECONDS as usize;

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub since_start: Nanos,
    /// By row of [`BOUNDS_MS`].
    pub counts: [u64; BOUNDS_MS.len()],
}

#[derive(Debug, Default)]
pub struct Past {
    /// Of the first of `seconds`, since isobar started.
    pub first: u64,
    pub seconds: Vec<Counts>,
    pub columns: Vec<Column>,
    /// How many seconds are behind the rest.
    pub lately: u64,
    /// Calls from and to it, by both names.
    calls: HashMap<(String, String), Counts>,
    /// By version; the empty name is all of them.
    versions: HashMap<String, Counts>,
}

impl Past {
    pub fn read(measures: &Measures, map: &Map, node: &Node) -> Self {
        // The second that has begun is not over.
        let end = measures.collected_at().as_u64() / 1_000_000_000;
        let first = end.saturating_sub(SECONDS as u64);
        let lately = end.min(LATELY);
        let is_gateway = node.kind == GATEWAY;
        let is_service = |name: &str| map.nodes.iter().any(|it| it.kind != GATEWAY && it.name == name);
        // What came in by a gateway's door is its own; how long that took is how long what is behind it took.
        let (mut counted, mut timed) = (Wanted::new(), Wanted::new());
        let mut calls: HashMap<(String, String), Wanted> = HashMap::new();
        let mut versions: HashMap<String, Wanted> = HashMap::new();
        let behind = is_gateway && !is_service(&node.name);
        for (series, text) in measures.texts() {
            let it = (series, text.class.failed());
            let (to_it, from_it) = (*text.destination == *node.name, *text.source == *node.name);
            if to_it && text.source.is_empty() == is_gateway {
                counted.push(it);
                if !text.version.is_empty() {
                    versions.entry(text.version.to_string()).or_default().push(it);
                }
            }
            if behind && from_it && is_service(&text.destination) {
                timed.push(it);
            }
            if (to_it || from_it) && !text.source.is_empty() {
                calls.entry((text.source.to_string(), text.destination.to_string())).or_default().push(it);
            }
        }
        let range = |from: u64, step: u64, wanted: &[(SeriesId, bool)]| {
            let at = Nanos::from_secs;
            if end == from {
                Vec::new()
            } else {
                measures.history().range(at(from), at(end), at(step), wanted)
            }
        };
        let mut seconds: Vec<Counts> = range(first, 1, &counted).into_iter().map(counts).collect();
        if is_gateway {
            seconds.iter_mut().for_each(|it| it.latency = Sparse::default());
            for (it, timed) in seconds.iter_mut().zip(range(first, 1, &timed)) {
                it.latency = timed.latency;
            }
        }
        let recent = |wanted: &Wanted| {
            let mut all = Counts::default();
            range(end - lately, 1, wanted).into_iter().for_each(|it| all.add(&counts(it)));
            all
        };
        let mut by_version: HashMap<String, Counts> =
            versions.iter().map(|(version, wanted)| (version.clone(), recent(wanted))).collect();
        by_version.insert(String::new(), recent(&counted));
        Self {
            first,
            columns: columns(first, &seconds),
            seconds,
            lately,
            calls: calls.iter().map(|(ends, wanted)| (ends.clone(), recent(wanted))).collect(),
            versions: by_version,
        }
    }

    pub fn call(&self, from: &str, to: &str) -> Counts {
        self.calls.get(&(from.to_owned(), to.to_owned())).cloned().unwrap_or_default()
    }

    /// The empty name is all of them.
    pub fn version(&self, name: &str) -> Counts {
        self.versions.get(name).cloned().unwrap_or_default()
    }
}

/// Series, each with whether it counts failures.
type Wanted = Vec<(SeriesId, bool)>;

fn counts(it: Point) -> Counts {
    Counts {
        requests: it.requests,
        failed: it.errors,
        retries: it.counters[Counter::Retries as usize],
        latency: it.latency,
    }
}

fn columns(first: u64, seconds: &[Counts]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (second, counts) in (first..).zip(seconds) {
        let began = Nanos::from_secs(second / COLUMN_SECONDS * COLUMN_SECONDS);
        if columns.last().is_none_or(|it| it.since_start != began) {
            columns.push(Column { since_start: began, counts: [0; BOUNDS_MS.len()] });
        }
        let Some(column) = columns.last_mut().filter(|_| !counts.latency.is_empty()) else { continue };
        let latency = counts.latency.histogram();
        let mut below = 0;
        for (row, bound) in BOUNDS_MS.iter().enumerate() {
            let last = row + 1 == BOUNDS_MS.len();
            let up_to =
                if last { latency.count() } else { latency.count_at_most(Nanos::from_millis(*bound)) };
            column.counts[row] += up_to.saturating_sub(below);
            below = up_to;
        }
    }
    // The oldest column is whole only sometimes.
    let more = columns.len().saturating_sub(COLUMNS);
    columns.split_off(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::metrics::{Class, Label, Registry, SeriesKey, SeriesSettings};

    fn map() -> Map {
        let node = |id, name: &str, kind| Node { id, name: name.to_owned(), kind, ..Node::default() };
        Map { nodes: vec![node(0, "edge", GATEWAY), node(1, "web", "http")], ..Map::default() }
    }

    /// Each second ten good calls from the gateway, of 5 ms, and one bad one by somebody else; what the door counted
    /// took twice as long.
    fn measures(seconds: u64) -> Measures {
        let registry = Registry::new(SeriesSettings::default());
        let mut measures = Measures::new(registry.clone(), Nanos::ZERO);
        let mut worker = registry.recorder();
        let key = |source: &str, destination: &str, version: &str, class| SeriesKey {
            source: registry.label(source),
            destination: registry.label(destination),
            operation: registry.label("GET /"),
            version: registry.label(version),
            source_zone: Label::NONE,
            destination_zone: Label::NONE,
            class,
        };
        let door = worker.series(&key("", "edge", "", Class::Success));
        let good = worker.series(&key("edge", "web", "v2", Class::Success));
        let bad = worker.series(&key("app", "web", "v1", Class::ServerError));
        for second in 0..seconds {
            for _ in 0..10 {
                worker.record(door, Nanos::from_millis(10));
                worker.record(good, Nanos::from_millis(5));
            }
            worker.record(bad, Nanos::from_millis(5));
            worker.add(good, Counter::Retries, 2);
            measures.collect(Nanos::from_secs(second + 1));
        }
        measures
    }

    #[test]
    fn a_quarter_of_an_hour_is_read_by_the_second() {
        let (map, measures) = (map(), measures(SECONDS as u64 + 45));
        let web = Past::read(&measures, &map, &map.nodes[1]);
        assert_eq!((web.first, web.seconds.len(), web.columns.len()), (45, SECONDS, COLUMNS));
        assert!(web.seconds.iter().all(|it| (it.requests, it.failed, it.retries) == (11, 1, 2)));
        assert!(web.seconds[0].quantiles_ms([0.5])[0].is_some_and(|it| (it - 5.0).abs() < 0.1));
        let row = BOUNDS_MS.iter().position(|it| *it == 5).expect("a bound of 5 ms");
        for column in &web.columns[..COLUMNS - 1] {
            assert_eq!(column.counts[row] + column.counts[row + 1], 110, "{column:?}");
        }
        assert_eq!(web.call("edge", "web").requests, 100);
        assert_eq!((web.version("v1").requests, web.version("v2").requests), (10, 100));
        assert_eq!((web.version("").requests, web.lately), (110, 10));
        assert_eq!(web.call("web", "edge").requests, 0);
    }

    #[test]
    fn a_gateway_is_as_slow_as_what_is_behind_it() {
        let (map, measures) = (map(), measures(3));
        let edge = Past::read(&measures, &map, &map.nodes[0]);
        assert_eq!((edge.first, edge.seconds.len(), edge.lately), (0, 3, 3));
        assert_eq!(edge.seconds[1].requests, 10);
        assert!(edge.seconds[1].quantiles_ms([0.5])[0].is_some_and(|it| (it - 5.0).abs() < 0.1));
        assert_eq!(edge.call("edge", "web").requests, 30);
    }

    #[test]
    fn before_the_first_second_there_is_nothing() {
        let (map, measures) = (map(), measures(0));
        let web = Past::read(&measures, &map, &map.nodes[1]);
        assert!(web.seconds.is_empty() && web.columns.is_empty() && web.lately == 0);
    }
}
