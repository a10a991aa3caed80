//! The report: what a forecast says, as plain data. Every number that varies from run to run carries its interval.
//!
//! Two views of a service, because they differ when things go wrong. Its *callers* see calls: with their retries, the
//! time on the way, and the refusals that never arrived. Its *instances* see jobs: from arrival to answer. Objectives are
//! judged by what callers see.

mod cost;
mod first;
mod json;
mod timeline;
mod verdict;

pub use cost::{Cost, Transfer};
pub use timeline::{Came, Happened};
pub use verdict::{Change, Finding, Verdict};

use crate::meter::{Cause, EdgeMeter, Failures, Meters, Requests};
use crate::plan::{Plan, Station, StationKind};
use crate::run::{Forecast, Run};
use crate::stats::Estimate;
use model::system::{Expectation, Limit, Measure};
use units::{Histogram, Nanos, Percent};

/// Everything one forecast found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub system: String,
    pub scenario: Option<String>,
    pub seed: u64,
    /// Runs that are in the numbers.
    pub runs: u32,
    /// Of these, runs that came to their end; fewer only when it was stopped before any had.
    pub runs_ended: u32,
    /// It was stopped before all runs had ended.
    pub partial: bool,
    pub warm_up: Nanos,
    /// The system had not settled when the measuring began.
    pub unsettled: bool,
    pub measured: Nanos,
    pub events: u64,
    pub verdict: Verdict,
    pub timeline: Vec<Happened>,
    pub came: Vec<Came>,
    pub traffic: Vec<TrafficReport>,
    pub services: Vec<ServiceReport>,
    pub edges: Vec<EdgeReport>,
    pub instances: Vec<InstanceReport>,
    pub zones: Vec<ZoneReport>,
    pub consumers: Vec<ConsumerReport>,
    pub objectives: Vec<Objective>,
    pub cost: Cost,
}

/// Requests, calls or jobs: how many, how they ended, how long they took.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestsReport {
    /// All that ended, a second.
    pub rate: Estimate,
    /// Those that went well, a second.
    pub goodput: Estimate,
    /// Share that went well of those somebody waited for.
    pub availability: Estimate,
    /// Per second, those that happened, most frequent first.
    pub errors: Vec<(Cause, f64)>,
    pub latency: LatencyReport,
}

/// In seconds, of what went well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyReport {
    pub mean: Estimate,
    pub p50: Estimate,
    pub p90: Estimate,
    pub p99: Estimate,
    pub p999: Estimate,
    /// All runs' samples together, for charts and exports.
    pub histogram: Histogram,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TrafficReport {
    pub name: String,
    pub sent_per_second: Estimate,
    pub requests: RequestsReport,
    pub series: Vec<Moment>,
}

/// One slice of time, all runs together.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub at: Nanos,
    pub ok_per_second: f64,
    pub failed_per_second: f64,
    /// Seconds; `None` when nothing went well.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceReport {
    pub name: String,
    /// `http`, `cache`, `gateway` ...
    pub kind: &'static str,
    pub instances: u32,
    /// As its callers see it.
    pub requests: RequestsReport,
    /// Places in use over places there are; `None` where concurrency has no limit.
    pub utilisation: Option<Estimate>,
    /// Places in use, all instances together.
    pub busy: Estimate,
    /// Requests waiting, all instances together.
    pub waiting: Estimate,
    pub waiting_max: u32,
    pub operations: Vec<OperationReport>,
    pub lost_writes: u64,
    pub cost_per_month: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OperationReport {
    pub name: String,
    /// As its instances see it.
    pub requests: RequestsReport,
    /// Seconds from arrival to the start of work.
    pub wait: LatencyReport,
    pub cache_hit_share: Option<f64>,
    pub stale_reads_per_second: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EdgeReport {
    pub from: String,
    pub to: String,
    pub operation: String,
    /// When the first run first used it.
    pub first: Option<Nanos>,
    pub calls: RequestsReport,
    /// Tries a call, the first included.
    pub attempts_per_call: Estimate,
    pub retries_per_second: f64,
    pub hedges_per_second: f64,
    pub budget_refused_per_second: f64,
    pub timeouts_per_second: f64,
    /// Failures that an optional call or a fallback hid.
    pub degraded_per_second: f64,
    pub pool_waits_per_second: f64,
    pub in_zone_share: f64,
    pub breaker_trips: f64,
    /// Mean share of time that a caller's breaker refused.
    pub breaker_open_share: f64,
    pub ejections: f64,
    /// Mean number of instances a caller had ejected.
    pub ejected: f64,
    pub ejections_withheld: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstanceReport {
    pub name: String,
    pub service: String,
    /// The service's kind.
    pub kind: &'static str,
    /// It stood from the start.
    pub initial: bool,
    pub place: String,
    pub rate: Estimate,
    pub failed_per_second: f64,
    pub utilisation: Option<Estimate>,
    pub waiting: Estimate,
    pub up_share: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ZoneReport {
    pub name: String,
    pub instances: u32,
    pub rate: Estimate,
    pub failed_per_second: f64,
    pub bytes_out_per_second: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerReport {
    pub topic: String,
    pub consumer: String,
    pub published_per_second: Estimate,
    pub delivered_per_second: Estimate,
    pub expired: u64,
    pub lag_max: u64,
    /// Seconds from publishing to handled.
    pub age: LatencyReport,
}

/// Something that must hold: an SLO of a service, or an expectation of the scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pub text: String,
    pub service: String,
    pub measured: Estimate,
    pub limit: f64,
    pub at_least: bool,
    pub met: bool,
    /// How many times faster than allowed the error budget is used; `None` where there is no budget.
    pub burn: Option<f64>,
    /// From the scenario played; otherwise from the service's `slo`.
    pub of_scenario: bool,
}

impl Objective {
    /// Whether it was met, and how fast its budget went.
    pub fn of(
        text: String,
        service: &str,
        measured: Estimate,
        limit: f64,
        at_least: bool,
        of_scenario: bool,
    ) -> Self {
        let met = if at_least { measured.value >= limit } else { measured.value <= limit };
        let budget = at_least && limit < 1.0 && limit > 0.0 && measured.value <= 1.0;
        let burn = budget.then(|| (1.0 - measured.value) / (1.0 - limit));
        Self { text, service: service.to_owned(), measured, limit, at_least, met, burn, of_scenario }
    }
}

impl Report {
    pub fn of(forecast: &Forecast<'_>) -> Self {
        let plan = forecast.plan;
        let view = View { forecast, plan, seconds: forecast.measured.as_secs_f64().max(1e-9) };
        let services = view.services();
        let edges = view.edges();
        let objectives = view.objectives();
        let cost = cost::of(&view);
        let verdict = verdict::of(&view, &services, &edges, &objectives);
        Self {
            system: plan.system.clone(),
            scenario: forecast.scenario.map(|it| plan.scenarios[it].name.clone()),
            seed: forecast.options.seed,
            runs: forecast.runs.len() as u32,
            runs_ended: forecast.ended,
            partial: forecast.partial,
            warm_up: forecast.warm_up,
            unsettled: forecast.unsettled,
            measured: forecast.measured,
            events: forecast.total.events,
            verdict,
            timeline: timeline::of(&view),
            came: timeline::came(&view),
            traffic: view.traffic(),
            services,
            edges,
            instances: view.instances(),
            zones: view.zones(),
            consumers: view.consumers(),
            objectives,
            cost,
        }
    }

    /// Everything that must hold does.
    pub fn is_good(&self) -> bool {
        self.objectives.iter().all(|it| it.met)
    }
}

/// A forecast being read.
pub(crate) struct View<'f> {
    pub(crate) forecast: &'f Forecast<'f>,
    pub(crate) plan: &'f Plan,
    pub(crate) seconds: f64,
}

impl View<'_> {
    /// A number of each run, as an estimate.
    pub(crate) fn each(&self, of: impl Fn(&Meters) -> f64) -> Estimate {
        let values: Vec<f64> = self.forecast.runs.iter().map(|run: &Run| of(&run.meters)).collect();
        Estimate::of_runs(&values)
    }

    /// A count of each run, per second.
    pub(crate) fn rate(&self, of: impl Fn(&Meters) -> u64) -> Estimate {
        self.each(|it| of(it) as f64 / self.seconds).within(0.0, f64::INFINITY)
    }

    /// The mean over runs of a count, per second.
    fn mean_rate(&self, of: impl Fn(&Meters) -> u64) -> f64 {
        self.rate(of).value
    }

    fn requests(&self, of: impl Fn(&Meters) -> Requests) -> RequestsReport {
        let runs: Vec<Requests> = self.forecast.runs.iter().map(|run| of(&run.meters)).collect();
        let each =
            |of: &dyn Fn(&Requests) -> f64| Estimate::of_runs(&runs.iter().map(of).collect::<Vec<f64>>());
        let mut failures = Failures::default();
        runs.iter().for_each(|it| it.failures.0.iter().zip(&mut failures.0).for_each(|(a, b)| *b += a));
        let per_second = |count: u64| count as f64 / self.seconds / runs.len().max(1) as f64;
        let mut errors: Vec<(Cause, f64)> = Cause::ALL
            .into_iter()
            .filter(|cause| failures.of(*cause) > 0)
            .map(|cause| (cause, per_second(failures.of(cause))))
            .collect();
        errors.sort_by(|a, b| b.1.total_cmp(&a.1));
        RequestsReport {
            rate: each(&|it| it.total() as f64 / self.seconds).within(0.0, f64::INFINITY),
            goodput: each(&|it| it.ok as f64 / self.seconds).within(0.0, f64::INFINITY),
            availability: each(&availability).within(0.0, 1.0),
            errors,
            latency: latency(runs.iter().map(|it| &it.latency)),
        }
    }

    fn histogram(&self, of: impl Fn(&Meters) -> &Histogram) -> LatencyReport {
        latency(self.forecast.runs.iter().map(|run| of(&run.meters)))
    }

    /// What callers see of a station, or of one of its operations.
    pub(crate) fn calls_to(&self, station: u32, operation: Option<u32>) -> RequestsReport {
        let edges: Vec<usize> = (0..self.plan.edges.len())
            .filter(|it| {
                let edge = &self.plan.edges[*it];
                edge.callee == station && operation.is_none_or(|wanted| edge.operation == wanted)
            })
            .collect();
        self.requests(|meters| {
            let mut sum = Requests::default();
            edges.iter().for_each(|it| sum.merge(&meters.edges[*it].calls));
            sum
        })
    }

    fn traffic(&self) -> Vec<TrafficReport> {
        let runs = self.forecast.runs.len().max(1) as f64;
        let total = &self.forecast.total;
        let slice_seconds = total.slice.as_secs_f64().max(1e-9);
        self.plan
            .loads
            .iter()
            .enumerate()
            .map(|(index, load)| TrafficReport {
                name: load.name.clone(),
                sent_per_second: self.rate(|it| it.loads[index].sent),
                requests: self.requests(|it| it.loads[index].requests.clone()),
                series: (0u64..)
                    .zip(&total.slices[index])
                    .map(|(n, slice)| Moment {
                        at: total.slice * n,
                        ok_per_second: slice.ok as f64 / slice_seconds / runs,
                        failed_per_second: slice.failed as f64 / slice_seconds / runs,
                        p50: slice.latency.quantile(0.5).map(Nanos::as_secs_f64),
                        p99: slice.latency.quantile(0.99).map(Nanos::as_secs_f64),
                    })
                    .collect(),
            })
            .collect()
    }

    /// The share in use of what a range of instances has least of, run by run: its places, or its cores.
    fn utilisation(&self, instances: std::ops::Range<u32>, station: &Station) -> Option<Estimate> {
        let (concurrency, cores) = (station.concurrency, station.cores);
        (concurrency != u32::MAX || cores.is_some()).then(|| {
            self.each(|meters| {
                let mine = &meters.instances[instances.start as usize..instances.end as usize];
                let up = mine.iter().map(|it| it.up).sum::<u128>() as f64;
                let used = |busy: u128, of: u32| busy as f64 / (up * f64::from(of)).max(1.0);
                let places = match concurrency {
                    u32::MAX => 0.0,
                    _ => used(mine.iter().map(|it| it.busy).sum(), concurrency),
                };
                cores.map_or(places, |it| places.max(used(mine.iter().map(|it| it.working).sum(), it)))
            })
            .within(0.0, 1.0)
        })
    }

    fn services(&self) -> Vec<ServiceReport> {
        let shown = self.plan.stations.iter().enumerate().filter(|(_, it)| it.kind != StationKind::Users);
        shown
            .map(|(index, station)| {
                let nanos = self.seconds * 1e9;
                let sum = |meters: &Meters, of: &dyn Fn(&crate::meter::InstanceMeter) -> u128| {
                    station.instances.iter().map(|it| of(&meters.instances[it as usize])).sum::<u128>() as f64
                        / nanos
                };
                let total = &self.forecast.total;
                ServiceReport {
                    name: station.name.clone(),
                    kind: kind_word(station.kind),
                    instances: station
                        .instances
                        .iter()
                        .filter(|it| self.plan.instances[*it as usize].initial)
                        .count() as u32,
                    requests: self.calls_to(index as u32, None),
                    utilisation: self.utilisation(station.instances.iter(), station),
                    busy: self.each(|it| sum(it, &|it| it.busy)),
                    waiting: self.each(|it| sum(it, &|it| it.waiting)),
                    waiting_max: station
                        .instances
                        .iter()
                        .map(|it| total.instances[it as usize].waiting_max)
                        .max()
                        .unwrap_or(0),
                    operations: station.operations.iter().map(|it| self.operation(it as usize)).collect(),
                    lost_writes: total.lost_writes[index],
                    cost_per_month: cost::of_station(self, index as u32),
                }
            })
            .collect()
    }

    fn operation(&self, index: usize) -> OperationReport {
        let total = &self.forecast.total.operations[index];
        let looked_up = total.cache_hits + total.cache_misses;
        OperationReport {
            name: self.plan.operations[index].name.clone(),
            requests: self.requests(|it| it.operations[index].requests.clone()),
            wait: self.histogram(|it| &it.operations[index].waiting),
            cache_hit_share: (looked_up > 0).then(|| total.cache_hits as f64 / looked_up as f64),
            stale_reads_per_second: self.mean_rate(|it| it.operations[index].stale_reads),
        }
    }

    fn edges(&self) -> Vec<EdgeReport> {
        let plan = self.plan;
        let record = self.forecast.runs.first().and_then(|it| it.record.as_ref());
        plan.edges
            .iter()
            .enumerate()
            .map(|(index, edge)| {
                let rate = |of: &dyn Fn(&EdgeMeter) -> u64| self.mean_rate(|it| of(&it.edges[index]));
                let total = &self.forecast.total.edges[index];
                let runs = self.forecast.runs.len().max(1) as f64;
                let pair = &self.forecast.total.pairs[edge.pair as usize];
                let callers = f64::from(plan.stations[edge.caller as usize].instances.len().max(1));
                let time = self.seconds * 1e9 * runs * callers;
                EdgeReport {
                    from: plan.stations[edge.caller as usize].name.clone(),
                    to: plan.stations[edge.callee as usize].name.clone(),
                    operation: plan.operations[edge.operation as usize].name.clone(),
                    first: record.and_then(|it| it.edge_first.get(index).copied().flatten()),
                    calls: self.requests(|it| it.edges[index].calls.clone()),
                    attempts_per_call: self.each(|it| {
                        let edge = &it.edges[index];
                        edge.attempts as f64 / (edge.attempts - edge.retries - edge.hedges).max(1) as f64
                    }),
                    retries_per_second: rate(&|it| it.retries),
                    hedges_per_second: rate(&|it| it.hedges),
                    budget_refused_per_second: rate(&|it| it.budget_refused),
                    timeouts_per_second: rate(&|it| it.timeouts),
                    degraded_per_second: rate(&|it| it.degraded),
                    pool_waits_per_second: rate(&|it| it.pool_waits),
                    in_zone_share: total.in_zone as f64 / total.attempts.max(1) as f64,
                    breaker_trips: pair.breaker_trips as f64 / runs,
                    breaker_open_share: pair.breaker_open.0 as f64 / time,
                    ejections: pair.ejections as f64 / runs,
                    ejected: pair.ejected.0 as f64 / time,
                    ejections_withheld: pair.ejections_withheld as f64 / runs,
                }
            })
            .collect()
    }

    fn instances(&self) -> Vec<InstanceReport> {
        let plan = self.plan;
        let runs = self.forecast.runs.len().max(1) as f64;
        let shown = plan
            .instances
            .iter()
            .enumerate()
            .filter(|(_, it)| plan.stations[it.station as usize].kind != StationKind::Users);
        shown
            .map(|(index, it)| {
                let station = &plan.stations[it.station as usize];
                let total = &self.forecast.total.instances[index];
                InstanceReport {
                    name: it.name.clone(),
                    service: station.name.clone(),
                    kind: kind_word(station.kind),
                    initial: it.initial,
                    place: plan.locations[it.location as usize].name.clone(),
                    rate: self.rate(|meters| meters.instances[index].arrivals),
                    failed_per_second: self.mean_rate(|meters| meters.instances[index].failed),
                    utilisation: self.utilisation(index as u32..index as u32 + 1, station),
                    waiting: self
                        .each(|meters| meters.instances[index].waiting as f64 / (self.seconds * 1e9)),
                    up_share: total.up as f64 / (self.seconds * 1e9 * runs),
                }
            })
            .collect()
    }

    fn zones(&self) -> Vec<ZoneReport> {
        let plan = self.plan;
        let count = plan.locations.len();
        let mut zones = Vec::new();
        for (location, it) in plan.locations.iter().enumerate() {
            let here: Vec<usize> = (0..plan.instances.len())
                .filter(|n| {
                    let instance = &plan.instances[*n];
                    instance.location as usize == location
                        && plan.stations[instance.station as usize].kind != StationKind::Users
                })
                .collect();
            if here.is_empty() {
                continue;
            }
            zones.push(ZoneReport {
                name: it.name.clone(),
                instances: here.len() as u32,
                rate: self.rate(|meters| here.iter().map(|n| meters.instances[*n].arrivals).sum()),
                failed_per_second: self
                    .mean_rate(|meters| here.iter().map(|n| meters.instances[*n].failed).sum()),
                bytes_out_per_second: self.mean_rate(|meters| {
                    (0..count)
                        .filter(|to| *to != location)
                        .map(|to| meters.bytes[location * count + to])
                        .sum()
                }),
            });
        }
        zones
    }

    fn consumers(&self) -> Vec<ConsumerReport> {
        let plan = self.plan;
        let mut consumers = Vec::new();
        for station in &plan.stations {
            let Some(topic) = &station.topic else { continue };
            for call in topic.consumers.iter() {
                let call = call as usize;
                let target = plan.targets[plan.calls[call].targets.from as usize];
                let total = &self.forecast.total.consumers[call];
                consumers.push(ConsumerReport {
                    topic: station.name.clone(),
                    consumer: plan.stations[plan.edges[target.edge as usize].callee as usize].name.clone(),
                    published_per_second: self.rate(|it| it.consumers[call].published),
                    delivered_per_second: self.rate(|it| it.consumers[call].delivered),
                    expired: total.expired,
                    lag_max: total.lag_max,
                    age: self.histogram(|it| &it.consumers[call].age),
                });
            }
        }
        consumers
    }

    fn objectives(&self) -> Vec<Objective> {
        let mut objectives = Vec::new();
        for (index, station) in self.plan.stations.iter().enumerate() {
            if station.availability.is_none() && station.latency.is_empty() {
                continue;
            }
            let seen = self.calls_to(index as u32, None);
            if let Some(target) = station.availability {
                objectives.push(Objective::of(
                    format!("{} availability >= {target}", station.name),
                    &station.name,
                    seen.availability,
                    target.fraction(),
                    true,
                    false,
                ));
            }
            for (share, limit) in &station.latency {
                objectives.push(Objective::of(
                    format!("{} p{} <= {limit}", station.name, percent_number(*share)),
                    &station.name,
                    self.quantile(&seen.latency, index as u32, None, *share),
                    limit.as_secs_f64(),
                    false,
                    false,
                ));
            }
        }
        let scenario = self.forecast.scenario.map(|it| &self.plan.scenarios[it]);
        for expected in scenario.iter().flat_map(|it| &it.expect) {
            objectives.push(self.expectation(expected));
        }
        objectives
    }

    fn expectation(&self, expected: &Expectation) -> Objective {
        let station = self.plan.station_of(expected.service);
        let plan = self.plan;
        let operation = expected.operation.as_ref().and_then(|name| {
            plan.stations[station as usize]
                .operations
                .iter()
                .find(|it| plan.operations[*it as usize].name == *name)
        });
        let seen = self.calls_to(station, operation);
        let measured = match expected.measure {
            Measure::Availability => seen.availability,
            Measure::Errors => {
                let ok = seen.availability;
                Estimate { value: 1.0 - ok.value, low: 1.0 - ok.high, high: 1.0 - ok.low }
            }
            Measure::Latency(share) => self.quantile(&seen.latency, station, operation, share),
            Measure::Throughput => seen.rate,
            Measure::Goodput => seen.goodput,
        };
        let limit = match expected.limit {
            Limit::Share(share) => share.fraction(),
            Limit::Time(time) => time.as_secs_f64(),
            Limit::Rate(rate) => rate.per_second(),
        };
        let name = plan.stations[station as usize].name.clone();
        Objective::of(expected.text.clone(), &name, measured, limit, expected.at_least, true)
    }

    /// A quantile of any share, with the interval of how it differs between runs.
    fn quantile(
        &self,
        latency: &LatencyReport,
        station: u32,
        operation: Option<u32>,
        share: Percent,
    ) -> Estimate {
        let q = share.fraction();
        let runs = self.each(|meters| {
            let mut sum = Histogram::new();
            for (index, edge) in self.plan.edges.iter().enumerate() {
                if edge.callee == station && operation.is_none_or(|it| edge.operation == it) {
                    sum.merge(&meters.edges[index].calls.latency);
                }
            }
            sum.quantile(q).map_or(0.0, Nanos::as_secs_f64)
        });
        runs.about(latency.histogram.quantile(q).map_or(0.0, Nanos::as_secs_f64)).within(0.0, f64::INFINITY)
    }
}

/// Of those that somebody waited for: whoever left counts neither way. Nothing asked is nothing failed.
fn availability(requests: &Requests) -> f64 {
    let waited = requests.total() - requests.failures.of(Cause::Cancelled);
    if waited == 0 { 1.0 } else { requests.ok as f64 / waited as f64 }
}

fn latency<'h>(runs: impl Iterator<Item = &'h Histogram> + Clone) -> LatencyReport {
    let mut histogram = Histogram::new();
    runs.clone().for_each(|it| histogram.merge(it));
    let mean = Estimate::of_runs(
        &runs.clone().filter_map(Histogram::mean).map(|nanos| nanos / 1e9).collect::<Vec<f64>>(),
    );
    let quantile = |q: f64| {
        let each: Vec<f64> = runs.clone().filter_map(|it| it.quantile(q)).map(Nanos::as_secs_f64).collect();
        let all = histogram.quantile(q).map_or(0.0, Nanos::as_secs_f64);
        Estimate::of_runs(&each).about(all).within(0.0, f64::INFINITY)
    };
    LatencyReport {
        mean: mean.within(0.0, f64::INFINITY),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        histogram,
    }
}

fn kind_word(kind: StationKind) -> &'static str {
    match kind {
        StationKind::Gateway => "gateway",
        StationKind::Users => "users",
        StationKind::Service(kind) => kind.word(),
    }
}

/// 99.9 % is the 99.9 of p99.9.
fn percent_number(share: Percent) -> String {
    share.to_string().trim_end_matches('%').to_owned()
}
