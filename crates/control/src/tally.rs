//! What single finished requests tell and counters cannot: who answered whom between zones and between versions, how
//! quick each instance was, and one request to look at for every cell of a heatmap.
//!
//! Pure: finished requests and where everybody stands in, rates and examples out. A record that the proxy had to drop
//! is missing here and counted there; the map's own numbers come from the counters, which drop nothing.
//!
//! Bounded: ten seconds of sums, a quarter of an hour of examples, one for each cell.

use crate::edges::EdgeName;
use crate::ended::Group;
use crate::map::{GATEWAY, Map};
use crate::numbers::Counts;
use crate::past::{BOUNDS_MS, COLUMNS};
use crate::status::Status;
use proxy::record::Finished;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet, VecDeque};
use telemetry::ids::TraceId;
use units::Nanos;

/// For what is looked at from afar, as in a frame.
const NEAR: Nanos = Nanos::from_secs(1);
/// For single instances, which answer seldom.
const FAR: Nanos = Nanos::from_secs(10);
const COLUMN: Nanos = Nanos::from_secs(10);

/// Where an instance stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stand {
    node: u32,
    zone: Option<u32>,
    version: u32,
}

/// Everybody's place, by name (`web#0`) for those who call and by port for those who answer.
#[derive(Debug, Default)]
pub struct Places {
    callers: HashMap<String, Stand>,
    answerers: HashMap<u16, Stand>,
    edges: HashMap<(u32, u32), u32>,
}

impl Places {
    pub fn of(map: &Map, status: &Status) -> Self {
        let mut places =
            Self { edges: map.edges.iter().map(|it| ((it.from, it.to), it.id)).collect(), ..Self::default() };
        for node in &map.nodes {
            if node.kind == GATEWAY {
                let stand = Stand { node: node.id, ..Stand::default() };
                places.callers.insert(node.name.clone(), stand);
                continue;
            }
            let Some(service) = status.services.iter().find(|it| it.name == node.name) else { continue };
            for it in &service.instances {
                let zone = map.zones.iter().position(|zone| *zone == it.place).map(|it| it as u32);
                let version = node.versions.iter().position(|name| *name == it.version).unwrap_or(0) as u32;
                let stand = Stand { node: node.id, zone, version };
                places.callers.insert(it.name.clone(), stand);
                if let Some(port) = it.port {
                    places.answerers.insert(port, stand);
                }
            }
        }
        places
    }
}

type Zones = (Option<u32>, Option<u32>);
/// An edge of the map, and the versions at its ends.
type Versions = (u32, u32, u32);

#[derive(Debug, Default)]
struct Tick {
    at: Nanos,
    zones: HashMap<Zones, Counts>,
    versions: HashMap<Versions, Counts>,
    ports: HashMap<u16, Counts>,
    /// Services that somebody was kept from reaching as they are.
    faults: HashSet<String>,
}

/// A kept trace for each row of one column of a heatmap.
#[derive(Debug)]
struct Examples {
    since_start: Nanos,
    /// Zero: none.
    ids: [u128; BOUNDS_MS.len()],
    /// Rows whose example failed, as bits; failures are looked for first.
    failed: u16,
}

const _: () = assert!(BOUNDS_MS.len() <= u16::BITS as usize, "each row has its bit");

#[derive(Debug, Default)]
pub struct Tally {
    ticks: VecDeque<Tick>,
    open: Tick,
    examples: HashMap<String, VecDeque<Examples>>,
}

impl Tally {
    /// Requests that one instance answered over one edge of the proxy since the tick before.
    pub fn add(&mut self, map: &Map, places: &Places, edge: &EdgeName, port: Option<u16>, group: &Group) {
        let to = port.and_then(|it| places.answerers.get(&it));
        let from = places.callers.get(&*edge.slot);
        let more = Counts {
            requests: group.requests,
            failed: group.failed,
            retries: 0,
            latency: group.latency.clone(),
        };
        if let (Some(port), Some(_)) = (port, to) {
            self.open.ports.entry(port).or_default().add(&more);
        }
        if let (Some(from), Some(to)) = (from, to) {
            self.open.zones.entry((from.zone, to.zone)).or_default().add(&more);
            let split = |node: u32| map.nodes.get(node as usize).is_some_and(|it| it.versions.len() > 1);
            if let Some(edge) = places.edges.get(&(from.node, to.node))
                && (split(from.node) || split(to.node))
            {
                self.open.versions.entry((*edge, from.version, to.version)).or_default().add(&more);
            }
        }
        if group.faulted && !self.open.faults.contains(&*edge.callee_as_written) {
            self.open.faults.insert(edge.callee_as_written.to_string());
        }
    }

    /// A request whose trace is likely to stay, as what a cell of its callee's heatmap looks like.
    pub fn example(&mut self, now: Nanos, callee: &str, record: &Finished) {
        let failed = crate::spans::failed(record);
        let since_start = Nanos(now.as_u64() / COLUMN.as_u64() * COLUMN.as_u64());
        let row = BOUNDS_MS.iter().position(|it| record.duration <= Nanos::from_millis(*it));
        let row = row.unwrap_or(BOUNDS_MS.len() - 1);
        if !self.examples.contains_key(callee) {
            self.examples.insert(callee.to_owned(), VecDeque::new());
        }
        let Some(columns) = self.examples.get_mut(callee) else { return };
        if columns.back().is_none_or(|it| it.since_start != since_start) {
            if columns.len() >= COLUMNS {
                columns.pop_front();
            }
            columns.push_back(Examples { since_start, ids: [0; BOUNDS_MS.len()], failed: 0 });
        }
        if let Some(it) = columns.back_mut().filter(|it| failed || it.failed & 1 << row == 0) {
            it.ids[row] = record.trace_id;
            it.failed |= u16::from(failed) << row;
        }
    }

    /// Closes what was added since the last time.
    pub fn tick(&mut self, now: Nanos) {
        self.open.at = now;
        self.ticks.push_back(std::mem::take(&mut self.open));
        while self.ticks.front().is_some_and(|it| it.at + FAR < now) {
            self.ticks.pop_front();
        }
    }

    /// Services that are gone have no page to show examples on.
    pub fn follow(&mut self, map: &Map) {
        self.examples.retain(|name, _| map.nodes.iter().any(|it| it.name == *name));
    }

    /// A trace for each row of the column that began at `since_start`, if `kept` says it can still be looked at.
    pub fn examples(&self, service: &str, since_start: Nanos, kept: &dyn Fn(TraceId) -> bool) -> Vec<Value> {
        let columns = self.examples.get(service).into_iter().flatten();
        let found = columns.rev().find(|it| it.since_start == since_start);
        let ids = found.map_or([0; BOUNDS_MS.len()], |it| it.ids);
        ids.iter()
            .map(|id| match TraceId::new(*id).filter(|it| kept(*it)) {
                Some(id) => json!(id.to_string()),
                None => Value::Null,
            })
            .collect()
    }

    fn sums<K: Copy + Eq + std::hash::Hash + Ord>(
        &self,
        window: Nanos,
        of: impl Fn(&Tick) -> &HashMap<K, Counts>,
    ) -> (f64, Vec<(K, Counts)>) {
        let Some(last) = self.ticks.back() else { return (0.0, Vec::new()) };
        let within = |it: &&Tick| it.at + window > last.at;
        let mut sums: HashMap<K, Counts> = HashMap::new();
        for tick in self.ticks.iter().filter(within) {
            for (key, counts) in of(tick) {
                sums.entry(*key).or_default().add(counts);
            }
        }
        let first =
            self.ticks.iter().rev().find(|it| it.at + window <= last.at).map_or(Nanos::ZERO, |it| it.at);
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(key, _)| *key);
        (last.at.saturating_sub(first).as_secs_f64(), sums)
    }

    /// Services whose requests met an injected fault in the last second.
    pub fn faulted(&self) -> HashSet<&str> {
        let last = self.ticks.back().map_or(Nanos::ZERO, |it| it.at);
        let within = self.ticks.iter().filter(|it| it.at + NEAR > last);
        within.flat_map(|it| &it.faults).map(String::as_str).collect()
    }

    /// What went between zones (by index; null is a gateway), and between versions, in the last second.
    pub fn between(&self) -> (Vec<Value>, Vec<Value>) {
        let (over, zones) = self.sums(NEAR, |it| &it.zones);
        let zones = zones.into_iter().map(|((from, to), counts)| {
            let mut row = numbers(&counts, over);
            (row["from"], row["to"]) = (json!(from), json!(to));
            row
        });
        let (over, versions) = self.sums(NEAR, |it| &it.versions);
        let versions = versions.into_iter().map(|((edge, from, to), counts)| {
            let mut row = numbers(&counts, over);
            (row["edge"], row["from"], row["to"]) = (json!(edge), json!(from), json!(to));
            row
        });
        (zones.collect(), versions.collect())
    }

    /// What each instance answered in the last ten seconds, by loopback port.
    pub fn by_port(&self) -> HashMap<u16, Counts> {
        self.sums(FAR, |it| &it.ports).1.into_iter().collect()
    }

    /// Each instance's own numbers over ten seconds, by loopback port.
    pub fn instances(&self) -> HashMap<u16, Value> {
        let (over, ports) = self.sums(FAR, |it| &it.ports);
        ports.into_iter().map(|(port, counts)| (port, numbers(&counts, over))).collect()
    }
}

fn numbers(counts: &Counts, over: f64) -> Value {
    let known = |it: Option<f64>| it.map_or(Value::Null, crate::page::number);
    let [p50, p99] = counts.quantiles_ms([0.5, 0.99]).map(known);
    json!({
        "rate": known((over > 0.0).then(|| counts.requests as f64 / over)),
        "errors": known(counts.errors()),
        "p50": p50,
        "p99": p99,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Edge, Node};
    use crate::status::{InstanceStatus, ServiceStatus};

    fn map() -> Map {
        let node = |id: u32, name: &str, kind, versions: &[&str]| Node {
            id,
            name: name.to_owned(),
            kind,
            versions: versions.iter().map(|it| (*it).to_owned()).collect(),
            ..Node::default()
        };
        let edge = |id, from, to| Edge { id, from, to, optional: false, path: Vec::new() };
        Map {
            zones: vec!["eu/a".to_owned(), "eu/b".to_owned()],
            nodes: vec![
                node(0, "edge", GATEWAY, &[]),
                node(1, "web", "http", &[]),
                node(2, "cart", "http", &["v1", "v2"]),
            ],
            edges: vec![edge(0, 0, 1), edge(1, 1, 2)],
            ..Map::default()
        }
    }

    fn status() -> Status {
        let instance = |name: &str, port, place: &str, version: &str| InstanceStatus {
            name: name.to_owned(),
            index: 0,
            state: "ready".to_owned(),
            detail: String::new(),
            pid: None,
            port: Some(port),
            version: version.to_owned(),
            place: place.to_owned(),
            restarts: 0,
            age_ms: 0,
            cpu_ms: None,
            cpu_cores: None,
            memory_bytes: None,
            shared_by: None,
        };
        let service = |name: &str, instances| ServiceStatus {
            name: name.to_owned(),
            kind: "http".to_owned(),
            team: None,
            wanted: 1,
            synthetic: true,
            waits_for: Vec::new(),
            instances,
        };
        let carts = vec![instance("cart#0", 21, "eu/a", "v1"), instance("cart#1", 22, "eu/b", "v2")];
        Status {
            services: vec![service("web", vec![instance("web#0", 11, "eu/a", "")]), service("cart", carts)],
            ..Status::default()
        }
    }

    fn record(port: u16, status: u16, millis: u64, trace_id: u128) -> Finished {
        let it = crate::records::finished(Nanos::ZERO, Nanos::from_millis(millis), trace_id);
        Finished { status, instance: Some(([127, 0, 0, 1], port).into()), ..it }
    }

    fn add(tally: &mut Tally, record: &Finished, edge: &str) {
        let (map, edge) = (map(), EdgeName::of(edge).expect("an edge"));
        let mut group = Group::default();
        group.add(record);
        let port = record.instance.map(|it| it.port());
        tally.add(&map, &Places::of(&map, &status()), &edge, port, &group);
        if record.trace_id != 0 {
            tally.example(Nanos::from_secs(12), &edge.callee_as_written, record);
        }
    }

    fn told() -> Tally {
        let mut tally = Tally::default();
        let mut add = |record, edge| add(&mut tally, &record, edge);
        add(record(11, 200, 3, 1), "edge->web");
        add(record(21, 200, 3, 2), "web#0->cart \"GET /\"");
        add(record(22, 503, 3, 3), "web#0->cart");
        add(record(22, 200, 4, 4), "web#0->cart");
        add(record(22, 200, 60_000, 5), "web#0->cart");
        add(record(99, 200, 1, 0), "web#0->cart");
        tally.tick(Nanos::from_millis(250));
        tally
    }

    #[test]
    fn requests_are_counted_between_places_and_versions() {
        let (zones, versions) = told().between();
        let ends = |it: &Value| (it["from"].as_u64(), it["to"].as_u64(), it["rate"].as_f64());
        let seen: Vec<_> = zones.iter().map(ends).collect();
        let expected =
            [(None, Some(0), Some(4.0)), (Some(0), Some(0), Some(4.0)), (Some(0), Some(1), Some(12.0))];
        assert_eq!(seen, expected, "a gateway stands in no zone");
        let seen: Vec<_> = versions.iter().map(|it| (it["edge"].as_u64(), ends(it))).collect();
        assert_eq!(
            seen,
            [(Some(1), (Some(0), Some(0), Some(4.0))), (Some(1), (Some(0), Some(1), Some(12.0)))]
        );
        assert_eq!(versions[1]["errors"].as_f64(), Some(0.3333));
    }

    #[test]
    fn a_fault_is_told_for_a_second() {
        let mut tally = Tally::default();
        let hurt = Finished { fault: "delay", ..record(21, 200, 3, 1) };
        add(&mut tally, &hurt, "web#0->cart \"GET /\"");
        tally.tick(Nanos::from_millis(250));
        assert_eq!(tally.faulted().into_iter().collect::<Vec<_>>(), ["cart"]);
        tally.tick(Nanos::from_secs(2));
        assert!(tally.faulted().is_empty());
    }

    #[test]
    fn instances_have_numbers_of_their_own_for_ten_seconds() {
        let mut tally = told();
        assert_eq!(tally.instances()[&22]["errors"].as_f64(), Some(0.3333));
        assert!(!tally.instances().contains_key(&99), "whoever it was is not ours");
        tally.tick(Nanos::from_secs(5));
        assert_eq!(tally.between().0.len(), 0, "a second is over");
        assert!(tally.instances().contains_key(&22));
        tally.tick(Nanos::from_secs(11));
        assert!(tally.instances().is_empty());
    }

    #[test]
    fn a_cell_shows_a_failure_rather_than_a_success_and_only_what_is_kept() {
        let tally = told();
        let column = |service: &str, kept: &dyn Fn(TraceId) -> bool| {
            tally
                .examples(service, Nanos::from_secs(10), kept)
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let all = column("cart", &|_| true);
        assert_eq!(all.len(), 2, "one up to 5 ms, one in the last row");
        assert!(all[0].ends_with('3') && all[1].ends_with('5'), "{all:?}");
        assert_eq!(column("cart", &|_| false), Vec::<String>::new());
        assert_eq!(column("nobody", &|_| true), Vec::<String>::new());
        assert!(tally.examples("cart", Nanos::ZERO, &|_| true).iter().all(Value::is_null));
    }
}
