//! What was counted over a window, added up by what rows are about.

use super::rows::Measures;
use super::short;
use crate::map::{GATEWAY, Node};
use crate::numbers::Counts;
use std::collections::{BTreeSet, HashMap};
use telemetry::metrics::{Counter, Counters, Sparse};
use units::{Histogram, Nanos};

/// The one place that reads what was counted: the series of a window, added up by what rows are about.
#[derive(Debug, Default)]
pub struct Window {
    /// How much of what was asked for there is: whole seconds, and the one that has begun.
    pub(super) covered: Nanos,
    pub(super) percentile_error: f64,
    services: HashMap<String, Sum>,
    gateways: HashMap<String, Sum>,
    pub(super) edges: HashMap<(String, String), Sum>,
    /// By service and version, and by service and zone.
    pub(super) versions: HashMap<(String, String), Sum>,
    pub(super) zones: HashMap<(String, String), Sum>,
}

/// Everything of some series together. Histograms are added, never percentiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) counts: Counts,
    pub(super) counters: Counters,
    pub(super) operations: BTreeSet<String>,
}

/// Operations that a row names; their number has a limit of its own where they are counted.
const OPERATIONS_MAX: usize = 100;

impl Sum {
    pub(super) fn add(&mut self, counts: &Counts, counters: &Counters, operation: &str) {
        self.counts.add(counts);
        (0..Counter::COUNT).for_each(|at| self.counters[at] += counters[at]);
        if !operation.is_empty()
            && self.operations.len() < OPERATIONS_MAX
            && !self.operations.contains(operation)
        {
            self.operations.insert(operation.to_owned());
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.add(&other.counts, &other.counters, "");
    }

    pub(super) fn measures(&self, over: Nanos, spark: Vec<f64>) -> Measures {
        let (counts, seconds) = (&self.counts, over.as_secs_f64());
        let [p50_ms, p90_ms, p95_ms, p99_ms, p999_ms] =
            counts.quantiles_ms([0.5, 0.9, 0.95, 0.99, 0.999]).map(|it| it.map(short));
        let rate = |count: u64| (seconds > 0.0).then(|| short(count as f64 / seconds));
        Measures {
            rate: rate(counts.requests),
            success: counts.errors().map(|it| 1.0 - it),
            p50_ms,
            p90_ms,
            p95_ms,
            p99_ms,
            p999_ms,
            retries: counts.retries_per_request().map(short),
            timeouts: rate(self.counters[Counter::Timeouts as usize]),
            refused: rate(
                self.counters[Counter::Shed as usize] + self.counters[Counter::BreakerRefused as usize],
            ),
            faults: rate(self.counters[Counter::Faults as usize]),
            spark,
        }
    }
}

impl Window {
    pub fn read(measures: &crate::measures::Measures, window: Nanos) -> Self {
        let now = measures.collected_at();
        // The history gives whole seconds: the first one that lies within is where the window begins.
        let second = Nanos::from_secs(1).as_u64();
        let from = now.saturating_sub(window).as_u64().div_ceil(second) * second;
        let mut read = Self {
            covered: now.saturating_sub(Nanos(from)),
            percentile_error: Histogram::RELATIVE_ERROR,
            ..Self::default()
        };
        for (text, latency, counters) in measures.window(window, now) {
            read.percentile_error = read.percentile_error.max(latency.relative_error());
            let requests = latency.count();
            let mut counts = Counts {
                requests,
                failed: if text.class.failed() { requests } else { 0 },
                retries: counters[Counter::Retries as usize],
                latency,
            };
            let (from, to) = (text.source.to_string(), text.destination.to_string());
            if from.is_empty() {
                // How long a gateway's requests take is how long what is behind it takes, which its edges say.
                counts.latency = Sparse::default();
                read.gateways.entry(to).or_default().add(&counts, &counters, &text.operation);
                continue;
            }
            read.services.entry(to.clone()).or_default().add(&counts, &counters, &text.operation);
            for (by, part) in [(&mut read.versions, &text.version), (&mut read.zones, &text.destination_zone)]
            {
                if !part.is_empty() {
                    by.entry((to.clone(), part.to_string())).or_default().add(
                        &counts,
                        &counters,
                        &text.operation,
                    );
                }
            }
            read.edges.entry((from, to)).or_default().add(&counts, &counters, &text.operation);
        }
        for ((from, _), sum) in &read.edges {
            if let Some(gateway) = read.gateways.get_mut(from) {
                gateway.counts.latency.merge(&sum.counts.latency);
            }
        }
        read
    }

    pub(super) fn node(&self, node: &Node) -> Sum {
        let by = if node.kind == GATEWAY { &self.gateways } else { &self.services };
        by.get(&node.name).cloned().unwrap_or_default()
    }

    pub(super) fn of(by: &HashMap<(String, String), Sum>, a: &str, b: &str) -> Sum {
        by.get(&(a.to_owned(), b.to_owned())).cloned().unwrap_or_default()
    }
}
