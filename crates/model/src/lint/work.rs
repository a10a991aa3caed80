//! How long work takes when nobody queues: means and medians of operations, and of all they wait for.

use super::Order;
use super::graph::{Graph, Node};
use crate::system::{Cache, Operation, Service, Step};

/// Mean work of one run of an operation on its own instance, in seconds: its work and the work between its calls,
/// averaged over the service's versions.
fn own_work_mean(service: &Service, operation: &Operation) -> f64 {
    let nanos = operation.work.mean_nanos() + work_between(&operation.calls, &|it| it.mean_nanos());
    nanos / 1e9 * version_factor(service)
}

/// A part of the work that every percentile must at least wait for: the medians of its pieces.
fn own_work_median(operation: &Operation) -> f64 {
    let median = |it: &units::Dist| it.quantile(0.5).map_or(0.0, |it| it.as_u64() as f64);
    (median(&operation.work) + work_between(&operation.calls, &median)) / 1e9
}

fn work_between(steps: &[Step], of: &dyn Fn(&units::Dist) -> f64) -> f64 {
    let each = steps.iter().map(|step| match step {
        Step::Work(work) => of(work),
        Step::All(steps) => work_between(steps, of),
        Step::Call(_) => 0.0,
    });
    each.sum()
}

fn version_factor(service: &Service) -> f64 {
    if service.versions.is_empty() {
        return 1.0;
    }
    let weighted = service
        .versions
        .iter()
        .map(|it| it.weight.fraction() * it.work.map_or(1.0, units::Percent::fraction));
    let total: f64 = service.versions.iter().map(|it| it.weight.fraction()).sum();
    if total > 0.0 { weighted.sum::<f64>() / total } else { 1.0 }
}

/// Response times without queues, in seconds, by node.
#[derive(Debug)]
pub(super) struct Unloaded {
    mean: Vec<f64>,
    median: Vec<f64>,
}

impl Unloaded {
    pub(super) fn of(graph: &Graph<'_>, order: &Order) -> Self {
        let mut it = Self { mean: vec![0.0; graph.node_count()], median: vec![0.0; graph.node_count()] };
        for index in &order.callees_first {
            let node = Node(*index);
            let Some(operation) = graph.operation(node) else { continue };
            let service = &graph.system.services[graph.service(node)];
            let mut calls = WaitedCalls { graph, order, node, next_edge: graph.edges_of(node).start };
            let mean = calls.total(&operation.calls, &|at| {
                graph.edges[at].per_run() * it.mean[graph.edges[at].to.index()]
            });
            let mut calls = WaitedCalls { graph, order, node, next_edge: graph.edges_of(node).start };
            let median = calls.total(&operation.calls, &|at| {
                // A call that some requests do not make, or that they do not need, is not in everybody's way.
                let certain = graph.edges[at].hard() && graph.edges[at].per_run() >= 1.0;
                if certain { graph.edges[at].per_run() * it.median[graph.edges[at].to.index()] } else { 0.0 }
            });
            let misses = miss_share(service, operation, f64::INFINITY);
            it.mean[node.index()] = own_work_mean(service, operation) + misses * mean;
            // When most requests find what they want, the median asks nobody.
            let asks = if misses > 0.5 { median } else { 0.0 };
            it.median[node.index()] = own_work_median(operation) + asks;
        }
        it
    }

    pub(super) fn mean(&self, node: Node) -> f64 {
        self.mean[node.index()]
    }

    pub(super) fn median(&self, node: Node) -> f64 {
        self.median[node.index()]
    }
}

/// Adds up what an operation waits for: calls in sequence add, calls made together take as long as the longest.
/// Calls into the operation's own cycle count nothing, so that the sum is finite.
#[derive(Debug)]
pub(super) struct WaitedCalls<'g, 's> {
    pub(super) graph: &'g Graph<'s>,
    pub(super) order: &'g Order,
    pub(super) node: Node,
    /// The edges of a node stand in the order its calls are written; this is the next one.
    pub(super) next_edge: usize,
}

impl<'g, 's> WaitedCalls<'g, 's> {
    pub(super) fn of(graph: &'g Graph<'s>, order: &'g Order, node: Node) -> Self {
        Self { graph, order, node, next_edge: graph.edges_of(node).start }
    }

    pub(super) fn total(&mut self, steps: &[Step], cost_of_edge: &dyn Fn(usize) -> f64) -> f64 {
        let mut sum = 0.0;
        for step in steps {
            sum += self.step(step, cost_of_edge);
        }
        sum
    }

    fn step(&mut self, step: &Step, cost_of_edge: &dyn Fn(usize) -> f64) -> f64 {
        match step {
            Step::Work(_) => 0.0,
            Step::All(steps) => steps.iter().map(|it| self.step(it, cost_of_edge)).fold(0.0, f64::max),
            Step::Call(_) => {
                let at = self.next_edge;
                self.next_edge += 1;
                let edge = &self.graph.edges[at];
                let in_cycle =
                    self.order.component[edge.to.index()] == self.order.component[self.node.index()];
                let cost = if edge.waits() && !in_cycle { cost_of_edge(at) } else { 0.0 };
                // A call's fallback is the edge after it.
                let has_fallback = self.graph.edges.get(self.next_edge).is_some_and(|next| {
                    next.via == super::graph::Via::Fallback
                        && next.from == Some(self.node)
                        && same_call(next.call, edge.call)
                });
                if has_fallback {
                    self.next_edge += 1;
                }
                cost
            }
        }
    }
}

fn same_call(a: Option<&crate::system::Call>, b: Option<&crate::system::Call>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if std::ptr::eq(a, b))
}

/// The share of an operation's runs that make its calls: a cache asks others only for what it does not hold, at `rate`
/// reads a second; what is written passes through.
pub(super) fn miss_share(service: &Service, operation: &Operation, rate: f64) -> f64 {
    match &service.cache {
        Some(cache) if !operation.writes => 1.0 - hit_rate(cache, rate),
        _ => 1.0,
    }
}

/// What a cache is taken to be where its file does not say; forecasts take the same.
const ZIPF: f64 = 0.9;
const CAPACITY: u64 = 1_000;

/// The share of reads a cache answers itself, at `rate` reads a second. As declared, or by Che's approximation of a
/// least-recently-used cache under independent references with Zipf popularity.
pub(super) fn hit_rate(cache: &Cache, rate: f64) -> f64 {
    if let Some(declared) = cache.hit_rate {
        return declared.fraction().min(1.0);
    }
    let (Some(keys), capacity) = (cache.keys, cache.capacity.unwrap_or(CAPACITY)) else { return 0.0 };
    if keys == 0 || capacity == 0 {
        return 0.0;
    }
    let classes = popularity(keys, cache.zipf.unwrap_or(ZIPF));
    let held = |age: f64| -> f64 { classes.iter().map(|(count, p)| count * -(-p * age).exp_m1()).sum() };
    let mut age = if capacity >= keys {
        f64::INFINITY
    } else {
        let (mut low, mut high) = (0.0, 1.0);
        while held(high) < capacity as f64 && high < 1e18 {
            high *= 2.0;
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if held(middle) < capacity as f64 { low = middle } else { high = middle }
        }
        high
    };
    if let Some(ttl) = cache.ttl {
        age = age.min(ttl.as_secs_f64() * rate);
    }
    classes.iter().map(|(count, p)| count * p * -(-p * age).exp_m1()).sum::<f64>().clamp(0.0, 1.0)
}

/// Keys of about the same popularity, as (how many, chance of each): the first thousand one by one, then in bands a
/// hundredth wide, so that a billion keys cost no more than a few thousand terms.
fn popularity(keys: u64, zipf: f64) -> Vec<(f64, f64)> {
    let mut classes = Vec::new();
    let mut first = 1u64;
    while first <= keys {
        let width = (first / 100).max(1).min(keys - first + 1);
        let middle = first as f64 + (width as f64 - 1.0) / 2.0;
        classes.push((width as f64, middle.powf(-zipf)));
        first += width;
    }
    let total: f64 = classes.iter().map(|(count, weight)| count * weight).sum();
    for (_, weight) in &mut classes {
        *weight /= total;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{Nanos, Percent};

    #[track_caller]
    fn check_hit_rate(cache: Cache, rate: f64, expected: std::ops::RangeInclusive<f64>) {
        let found = hit_rate(&cache, rate);
        assert!(expected.contains(&found), "{cache:?}: {found}");
    }

    fn lru(keys: u64, capacity: u64, zipf: f64, ttl: Option<Nanos>) -> Cache {
        Cache { hit_rate: None, keys: Some(keys), capacity: Some(capacity), zipf: Some(zipf), ttl }
    }

    #[test]
    fn hit_rates_follow_what_is_declared_or_che() {
        let declared = Cache { hit_rate: Some(Percent::from_whole(90)), ..lru(1, 1, 0.0, None) };
        check_hit_rate(declared, 1.0, 0.9..=0.9);
        // Uniform popularity: the share that fits.
        check_hit_rate(lru(1_000, 250, 0.0, None), 1.0, 0.249..=0.251);
        // Everything fits.
        check_hit_rate(lru(1_000, 1_000, 0.9, None), 1.0, 1.0..=1.0);
        // 20,000 Zipf 0.9 keys and 1,000 slots: an exact least-recently-used cache, simulated, hits 0.477.
        check_hit_rate(lru(20_000, 1_000, 0.9, None), 1.0, 0.472..=0.482);
        // At one read a second nothing lives long enough to be read twice within a second.
        check_hit_rate(lru(1_000, 1_000, 0.0, Some(Nanos::from_secs(1))), 1.0, 0.0..=0.01);
    }

    #[test]
    fn a_billion_keys_are_no_more_work_than_a_few_thousand() {
        assert!(popularity(1_000_000_000, 0.9).len() < 3_000);
    }
}
