//! From what happened to what is true now: rates, shares and percentiles of nodes and edges.
//!
//! Pure: frames of [`crate::measures`], a census, a status and a moment in; records of [`crate::live`] out. Percentiles come from merged histograms, never from averages of percentiles. A request is in the first
//! frame after its end; the window behind a rate is a second long and slides with every frame, so a number is steady
//! and no request is older than one frame when it is first seen.
//!
//! Bounded: a window of a second, and two minutes of rates, for the small lines beside rows. What was longer ago, and more
//! than a rate, is in the history ([`crate::past`] reads it).

use crate::compile::parties;
use crate::live::{EdgeRecord, NodeRecord, flag};
use crate::map::{GATEWAY, Map};
use crate::status::Status;
use proxy::observe::{Census, InstanceSeen};
use std::collections::{HashMap, HashSet, VecDeque};
use telemetry::metrics::{Counter, Delta, Frame, SeriesId, SeriesText, Sparse};
use units::Nanos;

/// The window behind every number of a frame.
pub const WINDOW: Nanos = Nanos::from_secs(1);
/// Seconds of rates kept of a node and of an edge.
pub const RATE_SECONDS: usize = 120;
/// Seconds between the two censuses that an instance's rate is counted from.
const RECENT_SECONDS: usize = 10;

/// What happened between two moments.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub requests: u64,
    pub failed: u64,
    pub retries: u64,
    /// Thousands of these are kept, of which most saw a handful of values: only buckets that hold something take room.
    pub latency: Sparse,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.retries += other.retries;
        self.latency.merge(&other.latency);
    }

    /// Unknown without requests.
    pub fn errors(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }

    pub fn retries_per_request(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.retries as f64 / self.requests as f64)
    }

    /// Several at a time, for the buckets are laid out once for all of them.
    pub fn quantiles_ms<const N: usize>(&self, shares: [f64; N]) -> [Option<f64>; N] {
        if self.latency.is_empty() {
            return [None; N];
        }
        let latency = self.latency.histogram();
        shares.map(|q| latency.quantile(q).map(Nanos::as_millis_f64))
    }
}

fn counts_of(delta: &Delta, text: &SeriesText) -> Counts {
    let requests = delta.latency.count();
    Counts {
        requests,
        // No answer at all, or an answer that says the server is at fault.
        failed: if text.class.failed() { requests } else { 0 },
        retries: delta.counters[Counter::Retries as usize],
        latency: delta.latency.clone(),
    }
}

/// What one frame added.
#[derive(Debug)]
struct Tick {
    from: Nanos,
    nodes: HashMap<usize, Counts>,
    edges: HashMap<usize, Counts>,
    /// By node and version.
    versions: HashMap<(usize, String), Counts>,
}

/// The rate of each of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub rates: VecDeque<f32>,
    now: u64,
}

/// An instance as all workers together see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceNow {
    pub ejected: bool,
    pub verdict: Option<String>,
    pub in_flight: u32,
    /// Over about ten seconds; `None` until two censuses are that far apart.
    pub rate: Option<f64>,
    pub errors: Option<f64>,
}

/// By loopback port.
type Totals = HashMap<u16, (u64, u64)>;

/// What the calls between two services may still do, all workers and all slots of the caller together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallNow {
    /// Share of the retry budget that is left; `None` without one, and while nothing was sent.
    pub budget: Option<f64>,
    pub pool: PoolNow,
}

/// Connections to the callee, which all its callers in one place share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNow {
    pub open: u32,
    pub idle: u32,
    pub waiting: u32,
    /// Of one caller to one instance; `None`: as many as it takes.
    pub most: Option<u32>,
}

#[derive(Debug, Default)]
pub struct Numbers {
    window: VecDeque<Tick>,
    last: Nanos,
    pub nodes: Vec<Rates>,
    pub edges: Vec<Rates>,
    phases: Vec<f32>,
    speeds: Vec<f32>,
    /// By loopback port.
    pub instances: HashMap<u16, InstanceNow>,
    totals: VecDeque<(Nanos, Totals)>,
    /// By edge of the map: open and all.
    pub breakers: HashMap<usize, (u16, u16)>,
    /// By edge of the map; empty while a worker does not answer, for half of them is no number.
    pub calls: HashMap<usize, CallNow>,
    second: u64,
}

/// Names to positions in a map.
#[derive(Debug)]
pub struct Index {
    services: HashMap<String, usize>,
    gateways: HashMap<String, usize>,
    edges: HashMap<(usize, usize), usize>,
}

impl Index {
    pub fn of(map: &Map) -> Self {
        let of = |gateway: bool| {
            map.nodes
                .iter()
                .enumerate()
                .filter(|(_, it)| (it.kind == GATEWAY) == gateway)
                .map(|(at, it)| (it.name.clone(), at))
                .collect()
        };
        let edges = map.edges.iter().enumerate();
        Self {
            services: of(false),
            gateways: of(true),
            edges: edges.map(|(at, it)| ((it.from as usize, it.to as usize), at)).collect(),
        }
    }

    /// Caller and callee of a series. Nobody calls what came in by a gateway.
    fn ends(&self, text: &SeriesText) -> Option<(Option<usize>, usize)> {
        if text.source.is_empty() {
            return Some((None, *self.gateways.get(&*text.destination)?));
        }
        let caller = self.services.get(&*text.source).or_else(|| self.gateways.get(&*text.source));
        Some((caller.copied(), *self.services.get(&*text.destination)?))
    }

    /// Caller and callee of a proxy's edge.
    fn ends_of_edge(&self, edge: &str) -> Option<(Option<usize>, usize)> {
        let (caller, callee) = parties(edge)?;
        // Services call from numbered slots, gateways from themselves.
        let from_service = edge.split("->").next().is_some_and(|slot| slot.contains('#'));
        let callers = if from_service { &self.services } else { &self.gateways };
        Some((callers.get(caller).copied(), *self.services.get(callee)?))
    }
}

impl Numbers {
    /// Another map is in force: what is known of nodes and edges that stayed is kept under their new positions.
    pub fn follow(&mut self, before: &Map, map: &Map) {
        let (old, new) = (Index::of(before), Index::of(map));
        let node_of = |at: usize| {
            let node = map.nodes.get(at)?;
            let known = if node.kind == GATEWAY { &old.gateways } else { &old.services };
            known.get(&node.name).copied()
        };
        let mut nodes = vec![Rates::default(); map.nodes.len()];
        for (at, past) in nodes.iter_mut().enumerate() {
            if let Some(kept) = node_of(at).and_then(|it| self.nodes.get_mut(it)) {
                *past = std::mem::take(kept);
            }
        }
        let mut edges = vec![Rates::default(); map.edges.len()];
        for ((from, to), at) in &new.edges {
            let known = node_of(*from).zip(node_of(*to)).and_then(|ends| old.edges.get(&ends));
            if let Some(kept) = known.and_then(|it| self.edges.get_mut(*it)) {
                edges[*at] = std::mem::take(kept);
            }
        }
        (self.nodes, self.edges) = (nodes, edges);
        (self.phases, self.speeds) = (vec![0.0; map.edges.len()], vec![0.0; map.edges.len()]);
        self.window.clear();
        self.breakers.clear();
        self.calls.clear();
    }

    /// Takes one frame and gives the records of its moment, in the order of the map.
    pub fn advance<'a>(
        &mut self,
        now: Nanos,
        map: &Map,
        index: &Index,
        frame: &Frame,
        text: impl Fn(SeriesId) -> Option<&'a SeriesText>,
        census: &Census,
        status: &Status,
    ) -> (Vec<NodeRecord>, Vec<EdgeRecord>) {
        self.nodes.resize_with(map.nodes.len(), Rates::default);
        self.edges.resize_with(map.edges.len(), Rates::default);
        self.phases.resize(map.edges.len(), 0.0);
        self.speeds.resize(map.edges.len(), 0.0);
        let tick = self.sort(index, frame, text);
        self.keep(now, &tick);
        let step = now.saturating_sub(self.last);
        self.window.push_back(tick);
        while self.window.len() > 1 && self.window.front().is_some_and(|it| it.from + WINDOW < now) {
            self.window.pop_front();
        }
        let over = self.window.front().map_or(step, |it| now.saturating_sub(it.from)).as_secs_f64();
        self.last = now;
        self.count_instances(now, census);
        self.count_breakers(index, census);
        self.count_calls(index, census);
        let whole = census.silent_workers == 0;
        let nodes = (0..map.nodes.len()).map(|at| self.node_record(at, over, map, status, whole)).collect();
        let edges = (0..map.edges.len()).map(|at| self.edge_record(at, over, step, map, whole)).collect();
        (nodes, edges)
    }

    /// A frame by nodes and edges.
    fn sort<'a>(
        &self,
        index: &Index,
        frame: &Frame,
        text: impl Fn(SeriesId) -> Option<&'a SeriesText>,
    ) -> Tick {
        let mut tick =
            Tick { from: self.last, nodes: HashMap::new(), edges: HashMap::new(), versions: HashMap::new() };
        for delta in &frame.deltas {
            let Some(text) = text(delta.series) else { continue };
            let Some((from, to)) = index.ends(text) else { continue };
            let mut counts = counts_of(delta, text);
            if text.source.is_empty() {
                // How long a gateway's requests take is how long what is behind it takes, which its edges say.
                counts.latency = Sparse::default();
            }
            tick.nodes.entry(to).or_default().add(&counts);
            if !text.version.is_empty() {
                tick.versions.entry((to, text.version.to_string())).or_default().add(&counts);
            }
            let Some(from) = from else { continue };
            if let Some(edge) = index.edges.get(&(from, to)) {
                tick.edges.entry(*edge).or_default().add(&counts);
            }
            if index.gateways.values().any(|it| *it == from) {
                tick.nodes.entry(from).or_default().latency.merge(&counts.latency);
            }
        }
        tick
    }

    /// Adds to the current second, and closes it when it is over.
    fn keep(&mut self, now: Nanos, tick: &Tick) {
        let second = now.as_u64() / 1_000_000_000;
        for (rates, ticks) in [(&mut self.nodes, &tick.nodes), (&mut self.edges, &tick.edges)] {
            for (at, counts) in ticks {
                if let Some(it) = rates.get_mut(*at) {
                    it.now += counts.requests;
                }
            }
        }
        if second == self.second {
            return;
        }
        // A collector that was held up for seconds closes one long second: its rate is over the time it really was.
        let long = (second - self.second) as f64;
        self.second = second;
        for it in self.nodes.iter_mut().chain(&mut self.edges) {
            let rate = std::mem::take(&mut it.now) as f64 / long;
            push(&mut it.rates, rate as f32, RATE_SECONDS);
        }
    }

    fn count_instances(&mut self, now: Nanos, census: &Census) {
        let mut instances: HashMap<u16, InstanceNow> = HashMap::new();
        let mut totals = Totals::new();
        let ours = |it: &&InstanceSeen| it.address.ip().is_loopback();
        for seen in census.instances.iter().filter(ours) {
            let port = seen.address.port();
            let it = instances.entry(port).or_default();
            it.ejected |= seen.ejected;
            it.in_flight += seen.in_flight;
            if it.verdict.is_none() || seen.ejected {
                it.verdict.clone_from(&seen.verdict);
            }
            let (requests, failures) = totals.entry(port).or_default();
            *requests += seen.requests;
            *failures += seen.failures;
        }
        if let Some((then, before)) = self.totals.front() {
            let over = now.saturating_sub(*then).as_secs_f64();
            for (port, it) in &mut instances {
                let (Some(now), Some(before)) = (totals.get(port), before.get(port)) else { continue };
                // A view that went took its counts along: then the rate is unknown for a while.
                let Some(requests) = now.0.checked_sub(before.0) else { continue };
                let failures = now.1.saturating_sub(before.1);
                it.rate = (over > 0.0).then(|| requests as f64 / over);
                it.errors = (requests > 0).then(|| failures as f64 / requests as f64);
            }
        }
        self.instances = instances;
        let due = |last: &(Nanos, Totals)| now.saturating_sub(last.0) >= Nanos::from_secs(1);
        if self.totals.back().is_none_or(due) {
            push(&mut self.totals, (now, totals), RECENT_SECONDS);
        }
    }

    fn count_breakers(&mut self, index: &Index, census: &Census) {
        self.breakers.clear();
        for it in &census.breakers {
            let ends = index.ends_of_edge(&it.edge).and_then(|(from, to)| Some((from?, to)));
            let Some(edge) = ends.and_then(|it| index.edges.get(&it)) else { continue };
            let (open, all) = self.breakers.entry(*edge).or_default();
            *open = open.saturating_add(u16::from(it.open));
            *all = all.saturating_add(1);
        }
    }

    fn count_calls(&mut self, index: &Index, census: &Census) {
        self.calls.clear();
        if census.silent_workers > 0 {
            return;
        }
        let mut pools: HashMap<&str, PoolNow> = HashMap::new();
        for it in &census.pools {
            let pool = pools.entry(&it.service.name).or_default();
            pool.open += it.open;
            pool.idle += it.idle;
            pool.waiting += it.waiting;
        }
        let mut levels: HashMap<usize, (u64, u64)> = HashMap::new();
        // Callers in several places see several pools of one service; callers in one place see the same one.
        let mut counted: HashSet<(usize, &str)> = HashSet::new();
        for it in &census.calls {
            let ends = index.ends_of_edge(&it.edge.name).and_then(|(from, to)| Some((from?, to)));
            let Some(edge) = ends.and_then(|it| index.edges.get(&it)) else { continue };
            let pool = &mut self.calls.entry(*edge).or_default().pool;
            pool.waiting += it.waiting;
            pool.most = Some(it.edge.settings.connections).filter(|most| *most < u32::MAX);
            if let Some(own) =
                pools.get(&*it.edge.service).filter(|_| counted.insert((*edge, &it.edge.service)))
            {
                pool.open += own.open;
                pool.idle += own.idle;
                pool.waiting += own.waiting;
            }
            if let Some((left, allowed)) = it.budget {
                let level = levels.entry(*edge).or_default();
                *level = (level.0.saturating_add(left), level.1.saturating_add(allowed));
            }
        }
        for (edge, (left, allowed)) in levels {
            let share = (allowed > 0).then(|| left as f64 / allowed as f64);
            self.calls.entry(edge).or_default().budget = share;
        }
    }

    fn node_record(&self, at: usize, over: f64, map: &Map, status: &Status, whole: bool) -> NodeRecord {
        let node = &map.nodes[at];
        let mut counts = Counts::default();
        self.window.iter().filter_map(|it| it.nodes.get(&at)).for_each(|it| counts.add(it));
        let [p50_ms, p99_ms] = counts.quantiles_ms([0.5, 0.99]).map(float);
        let mut record = NodeRecord {
            id: node.id,
            rate: if over > 0.0 { (counts.requests as f64 / over) as f32 } else { f32::NAN },
            errors: float(counts.errors()),
            p50_ms,
            p99_ms,
            concurrency: f32::NAN,
            queue: f32::NAN,
            healthy: 0,
            instances: 0,
            ejected: 0,
            flags: 0,
            newest_version: f32::NAN,
        };
        if node.versions.len() > 1 {
            record.newest_version = float(self.share_of_newest(at, node.versions.last()));
        }
        let service = status.services.iter().find(|it| it.name == node.name);
        let Some(service) = service.filter(|_| node.kind != GATEWAY) else { return record };
        let lives =
            || service.instances.iter().filter(|it| !matches!(it.state.as_str(), "stopped" | "completed"));
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        record.instances = small(lives().count());
        record.healthy = small(lives().filter(|it| it.state == "ready").count());
        if status.scenario.as_ref().is_some_and(|it| it.troubled.contains(&node.name)) {
            record.flags |= flag::FAULT;
        }
        if lives().any(|it| matches!(it.state.as_str(), "waiting" | "starting")) {
            record.flags |= flag::STARTING;
        }
        let known: Vec<&InstanceNow> = lives().filter_map(|it| self.instances.get(&it.port?)).collect();
        record.ejected = small(known.iter().filter(|it| it.ejected).count());
        if whole && !known.is_empty() {
            // What an instance was given beyond what it works on waits inside it.
            if let Some(limit) = node.concurrency.filter(|it| *it > 0) {
                let busy: u64 = known.iter().map(|it| u64::from(it.in_flight.min(limit))).sum();
                record.concurrency = (busy as f64 / (known.len() as f64 * f64::from(limit))) as f32;
                if let Some(room) = node.queue.filter(|it| *it > 0) {
                    let waiting: u64 =
                        known.iter().map(|it| u64::from(it.in_flight.saturating_sub(limit).min(room))).sum();
                    record.queue = (waiting as f64 / (known.len() as f64 * f64::from(room))) as f32;
                }
            }
        }
        record
    }

    fn share_of_newest(&self, at: usize, newest: Option<&String>) -> Option<f64> {
        let newest = newest?;
        let versions = || self.window.iter().flat_map(|it| &it.versions).filter(|((node, _), _)| *node == at);
        let all: u64 = versions().map(|(_, it)| it.requests).sum();
        let own: u64 = versions().filter(|((_, name), _)| name == newest).map(|(_, it)| it.requests).sum();
        (all > 0).then(|| own as f64 / all as f64)
    }

    fn edge_record(&mut self, at: usize, over: f64, step: Nanos, map: &Map, whole: bool) -> EdgeRecord {
        let mut counts = Counts::default();
        self.window.iter().filter_map(|it| it.edges.get(&at)).for_each(|it| counts.add(it));
        let rate = if over > 0.0 { counts.requests as f64 / over } else { 0.0 };
        // Where particles are now follows from how fast they were until now.
        let moved = f64::from(self.phases[at]) + f64::from(self.speeds[at]) * step.as_secs_f64();
        let (phase, speed) = (moved.fract() as f32, speed(rate));
        (self.phases[at], self.speeds[at]) = (phase, speed);
        // A census with holes would call a breaker closed that nobody asked.
        let (open, all) = self.breakers.get(&at).copied().filter(|_| whole).unwrap_or((0, 0));
        let [p50_ms, p99_ms] = counts.quantiles_ms([0.5, 0.99]).map(float);
        EdgeRecord {
            id: map.edges[at].id,
            rate: rate as f32,
            errors: float(counts.errors()),
            p50_ms,
            p99_ms,
            retries: float(counts.retries_per_request()),
            budget_left: float(self.calls.get(&at).and_then(|it| it.budget)),
            breakers_open: open,
            breakers: all,
            phase,
            speed,
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(item);
}

fn float(value: Option<f64>) -> f32 {
    value.map_or(f32::NAN, |it| it as f32)
}

/// Edge lengths a second. It grows with the logarithm of the rate, as widths do, for rates differ by thousands.
fn speed(rate: f64) -> f32 {
    if rate > 0.0 { (0.1 + 0.1 * rate.ln_1p() / std::f64::consts::LN_10).min(0.5) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests;
