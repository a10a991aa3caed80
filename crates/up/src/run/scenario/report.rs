//! From what was seen to the report: the forecast's own types, filled with what was measured.
//!
//! A number that nothing here can know (waiting inside a real process, money) is not a number, and `null` in JSON.
//! Utilisation is by Little's law: requests at an instance on average, over its places.

use super::guards::Guards;
use super::record::{CallSeen, GROUPS, Groups, Recording, merge};
use model::system::{Caller, Expectation, Measure, System};
use serde_json::{Value, json};
use sim::Estimate;
use sim::meter::{Cause, Requests};
use sim::report::{
    Cost, EdgeReport, InstanceReport, LatencyReport, Moment, Objective, OperationReport, Report,
    RequestsReport, ServiceReport, TrafficReport, Verdict, ZoneReport,
};
use std::collections::{BTreeMap, BTreeSet};
use units::{Histogram, Nanos, Percent};

/// One traffic, as its users saw it: a slice a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficSeen {
    pub(crate) slices: Vec<Slice>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) at: Nanos,
    pub(crate) lasted: Nanos,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Histogram,
}

impl TrafficSeen {
    /// Its requests, and how many were sent, in each group.
    fn grouped(&self, groups: Groups) -> (Vec<Requests>, [u64; GROUPS]) {
        let mut requests = vec![Requests::default(); GROUPS];
        let mut sent = [0; GROUPS];
        for slice in &self.slices {
            let group = groups.of(slice.at);
            sent[group] += slice.sent;
            let requests = &mut requests[group];
            requests.ok += slice.latency.count();
            requests.latency.merge(&slice.latency);
            // Users see that it failed and not why; the edges say that.
            requests.failures.0[Cause::Dependency as usize] += slice.failed;
        }
        (requests, sent)
    }
}

/// How often an instance was looked at, and how often it could work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) times: u32,
    pub(crate) ready: u32,
}

/// Everything a report is made of.
pub(crate) struct Facts<'f> {
    pub(crate) system: &'f System,
    /// `None`: the system as it is, undisturbed.
    pub(crate) scenario: Option<&'f str>,
    pub(crate) expect: &'f [Expectation],
    pub(crate) seed: u64,
    /// Instances are as far apart as their places.
    pub(crate) distances: bool,
    pub(crate) partial: bool,
    pub(crate) warm_up: Nanos,
    pub(crate) measured: Nanos,
    pub(crate) groups: Groups,
    pub(crate) recording: &'f Recording,
    pub(crate) guards: &'f Guards,
    pub(crate) traffic: &'f BTreeMap<String, TrafficSeen>,
    /// By `web#0`.
    pub(crate) looked: &'f BTreeMap<String, Looked>,
}

/// Fewer failures than this among all requests is weather.
const FAILURES_MIN: f64 = 0.001;

const METHOD: &str = "one run, measured at the proxies; values are of everything that was measured; 95 % intervals by Student's t over ten groups";

impl Facts<'_> {
    pub(crate) fn to_json(&self) -> Value {
        let mut value = self.report().to_json();
        let dealt = match self.groups {
            Groups::InTurn => "to which its seconds were dealt in turn",
            Groups::InARow { .. } => "which are its tenths in a row",
        };
        value["method"] = json!(format!("{METHOD}, {dealt}"));
        value["source"] = json!("run");
        value["distances"] = json!(self.distances);
        value["records_lost"] = json!(self.recording.unknown);
        value
    }

    pub(crate) fn report(&self) -> Report {
        let services = self.services();
        let objectives = self.objectives();
        let traffic = self.traffic();
        let verdict = verdict(&traffic, &services, &objectives);
        Report {
            system: self.system.name.clone(),
            scenario: self.scenario.map(str::to_owned),
            seed: self.seed,
            runs: 1,
            runs_ended: u32::from(!self.partial),
            partial: self.partial,
            warm_up: self.warm_up,
            unsettled: false,
            measured: self.measured,
            events: self.recording.calls.values().flat_map(|it| &it.requests).map(Requests::total).sum(),
            verdict,
            timeline: Vec::new(),
            came: Vec::new(),
            traffic,
            services,
            edges: self.edges().into_iter().chain(self.edges_of_users()).collect(),
            instances: self.instances(),
            zones: self.zones(),
            consumers: Vec::new(),
            objectives,
            cost: Cost {
                per_month: f64::NAN,
                instances: f64::NAN,
                transfer: f64::NAN,
                transfers: Vec::new(),
            },
        }
    }

    fn seconds(&self) -> f64 {
        self.measured.as_secs_f64().max(1e-9)
    }

    /// Seconds of one group.
    fn seconds_of(&self, group: usize) -> f64 {
        match self.groups {
            Groups::InTurn => {
                let whole = self.measured.as_u64() / 1_000_000_000;
                let (turns, rest) = (whole / GROUPS as u64, whole % GROUPS as u64);
                (turns + u64::from((group as u64) < rest)) as f64
            }
            Groups::InARow { lasts } => {
                let tenth = lasts.as_secs_f64() / GROUPS as f64;
                (self.seconds() - tenth * group as f64).clamp(0.0, tenth)
            }
        }
    }

    /// A value, and how it differs between groups that saw enough time to have one.
    fn estimate(&self, value: f64, of: impl Fn(usize) -> Option<f64>) -> Estimate {
        let each: Vec<f64> = (0..GROUPS).filter(|it| self.seconds_of(*it) > 0.0).filter_map(of).collect();
        Estimate::of_runs(&each).about(value)
    }

    fn rate(&self, of: impl Fn(usize) -> u64) -> Estimate {
        let all: u64 = (0..GROUPS).map(&of).sum();
        self.estimate(all as f64 / self.seconds(), |group| Some(of(group) as f64 / self.seconds_of(group)))
            .within(0.0, f64::INFINITY)
    }

    fn requests(&self, groups: &[Requests]) -> RequestsReport {
        let mut all = Requests::default();
        groups.iter().for_each(|it| merge(&mut all, it));
        let mut errors: Vec<(Cause, f64)> = Cause::ALL
            .into_iter()
            .filter(|cause| all.failures.of(*cause) > 0)
            .map(|cause| (cause, all.failures.of(cause) as f64 / self.seconds()))
            .collect();
        errors.sort_by(|a, b| b.1.total_cmp(&a.1));
        RequestsReport {
            rate: self.rate(|group| groups[group].total()),
            goodput: self.rate(|group| groups[group].ok),
            availability: self
                .estimate(availability(&all).unwrap_or(1.0), |group| availability(&groups[group]))
                .within(0.0, 1.0),
            errors,
            latency: match (all.ok, all.latency.count()) {
                // Answered, and nobody here could tell how fast.
                (1.., 0) => unknown_latency(),
                _ => self.latency(&groups.iter().map(|it| it.latency.clone()).collect::<Vec<_>>()),
            },
        }
    }

    fn latency(&self, groups: &[Histogram]) -> LatencyReport {
        let mut histogram = Histogram::new();
        groups.iter().for_each(|it| histogram.merge(it));
        let seconds = |it: &Histogram, q| it.quantile(q).map(Nanos::as_secs_f64);
        let quantile = |q: f64| {
            self.estimate(seconds(&histogram, q).unwrap_or(0.0), |group| seconds(&groups[group], q))
                .within(0.0, f64::INFINITY)
        };
        LatencyReport {
            mean: self
                .estimate(histogram.mean().unwrap_or(0.0) / 1e9, |group| {
                    groups[group].mean().map(|it| it / 1e9)
                })
                .within(0.0, f64::INFINITY),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            histogram,
        }
    }

    /// All calls that fit, added up group by group.
    fn sum(
        &self,
        fits: impl Fn(&str, &str, &str) -> bool,
        of: impl Fn(&CallSeen) -> &[Requests],
    ) -> Vec<Requests> {
        let mut sum = vec![Requests::default(); GROUPS];
        for ((from, to, operation), seen) in &self.recording.calls {
            if fits(from, to, operation) {
                sum.iter_mut().zip(of(seen)).for_each(|(sum, it)| merge(sum, it));
            }
        }
        sum
    }

    fn services(&self) -> Vec<ServiceReport> {
        let unknown = UNKNOWN;
        let gateways = self.system.gateways.iter().map(|gateway| {
            let name = &gateway.name.value;
            ServiceReport {
                name: name.clone(),
                kind: "gateway",
                instances: 1,
                requests: self.requests(&self.sum(|from, _, _| from == name, |it| &it.requests)),
                utilisation: None,
                busy: unknown,
                waiting: unknown,
                waiting_max: 0,
                operations: Vec::new(),
                lost_writes: 0,
                cost_per_month: f64::NAN,
            }
        });
        let services = self.system.services.iter().map(|service| {
            let name = &service.name.value;
            let mine = || self.recording.instances.values().filter(|it| it.service == *name);
            let held = |group: usize| mine().map(|it| it.held[group]).sum::<u64>() as f64 / 1e9;
            let busy = (0..GROUPS).map(held).sum::<f64>() / self.seconds();
            let busy = self
                .estimate(busy, |group| Some(held(group) / self.seconds_of(group)))
                .within(0.0, f64::INFINITY);
            let count = self.looked.keys().filter(|it| it.split('#').next() == Some(name)).count();
            let utilisation = service.concurrency.as_ref().filter(|_| count > 0).map(|places| {
                let places = f64::from(places.value) * count as f64;
                let share = |it: f64| (it / places).min(1.0);
                Estimate { value: share(busy.value), low: share(busy.low), high: share(busy.high) }
            });
            let operations = service.operations.iter().map(|operation| {
                let name_of = &operation.name.value;
                OperationReport {
                    name: name_of.clone(),
                    requests: self
                        .requests(&self.sum(|_, to, it| to == name && it == name_of, |it| &it.at_instance)),
                    wait: unknown_latency(),
                    cache_hit_share: None,
                    stale_reads_per_second: f64::NAN,
                }
            });
            ServiceReport {
                name: name.clone(),
                kind: service.kind.word(),
                instances: count as u32,
                requests: self.requests(&self.sum(|_, to, _| to == name, |it| &it.requests)),
                utilisation,
                busy,
                waiting: unknown,
                waiting_max: 0,
                operations: operations.collect(),
                lost_writes: 0,
                cost_per_month: f64::NAN,
            }
        });
        services.chain(gateways).collect()
    }

    fn edges(&self) -> Vec<EdgeReport> {
        let edges = self.recording.calls.iter().map(|((from, to, operation), seen)| {
            let (attempts, calls): (u64, u64) = (seen.attempts.iter().sum(), seen.calls.iter().sum());
            let per_call = |attempts: u64, calls: u64| attempts as f64 / calls.max(1) as f64;
            let between = self.recording.calls.keys().filter(|it| it.0 == *from && it.1 == *to).count();
            let guarded = self.guards.of(from, to, operation, between == 1, self.measured);
            EdgeReport {
                from: from.clone(),
                to: to.clone(),
                operation: operation.clone(),
                first: None,
                calls: self.requests(&seen.requests),
                attempts_per_call: self
                    .estimate(per_call(attempts, calls), |group| {
                        (seen.calls[group] > 0).then(|| per_call(seen.attempts[group], seen.calls[group]))
                    })
                    .within(0.0, f64::INFINITY),
                retries_per_second: attempts.saturating_sub(calls + seen.hedges) as f64 / self.seconds(),
                hedges_per_second: seen.hedges as f64 / self.seconds(),
                budget_refused_per_second: guarded.budget_refused / self.seconds(),
                timeouts_per_second: seen.timeouts as f64 / self.seconds(),
                degraded_per_second: seen.degraded().map_or(f64::NAN, |it| it as f64 / self.seconds()),
                pool_waits_per_second: guarded.pool_waits / self.seconds(),
                in_zone_share: if seen.placed > 0 {
                    seen.in_zone as f64 / seen.placed as f64
                } else {
                    f64::NAN
                },
                breaker_trips: guarded.breaker_trips,
                breaker_open_share: guarded.breaker_open_share,
                ejections: guarded.ejections,
                ejected: guarded.ejected,
                ejections_withheld: guarded.ejections_withheld,
            }
        });
        edges.collect()
    }

    /// What the users of a gateway asked, as they saw it. Users who ask a service itself have a door of their own, and
    /// are among the callers already.
    fn edges_of_users(&self) -> Vec<EdgeReport> {
        let unknown = f64::NAN;
        let edges = self.system.traffic.iter().filter_map(|it| {
            let Caller::Gateway(gateway) = it.to.value else { return None };
            let (groups, _) = self.traffic.get(&it.name.value)?.grouped(self.groups);
            Some(EdgeReport {
                from: it.name.value.clone(),
                to: self.system.gateways[gateway].name.value.clone(),
                operation: it.request.as_ref().map_or("GET /", |it| it.value.as_str()).to_owned(),
                first: None,
                calls: self.requests(&groups),
                // Users ask once, and nothing stands between them and the gateway.
                attempts_per_call: Estimate { value: 1.0, low: 1.0, high: 1.0 },
                retries_per_second: 0.0,
                hedges_per_second: 0.0,
                budget_refused_per_second: 0.0,
                timeouts_per_second: unknown,
                degraded_per_second: 0.0,
                pool_waits_per_second: 0.0,
                in_zone_share: unknown,
                breaker_trips: 0.0,
                breaker_open_share: 0.0,
                ejections: 0.0,
                ejected: 0.0,
                ejections_withheld: 0.0,
            })
        });
        edges.collect()
    }

    fn instances(&self) -> Vec<InstanceReport> {
        let concurrency = |service: &str| {
            let found = self.system.services.iter().find(|it| it.name.value == service)?;
            found.concurrency.as_ref().map(|it| f64::from(it.value))
        };
        let kind = |service: &str| {
            let found = self.system.services.iter().find(|it| it.name.value == service);
            found.map_or("gateway", |it| it.kind.word())
        };
        let seen = self.recording.instances.iter().map(|(name, it)| {
            let looked = self.looked.get(name).copied().unwrap_or_default();
            let held = |group: usize| it.held[group] as f64 / 1e9;
            let busy = (0..GROUPS).map(held).sum::<f64>() / self.seconds();
            let busy = self.estimate(busy, |group| Some(held(group) / self.seconds_of(group)));
            InstanceReport {
                name: name.clone(),
                service: it.service.clone(),
                kind: kind(&it.service),
                initial: true,
                place: it.place.clone(),
                rate: self.rate(|group| it.arrivals[group]),
                failed_per_second: it.failed as f64 / self.seconds(),
                utilisation: concurrency(&it.service).map(|places| {
                    let share = |it: f64| (it / places).clamp(0.0, 1.0);
                    Estimate { value: share(busy.value), low: share(busy.low), high: share(busy.high) }
                }),
                waiting: UNKNOWN,
                up_share: if looked.times > 0 {
                    f64::from(looked.ready) / f64::from(looked.times)
                } else {
                    f64::NAN
                },
            }
        });
        seen.collect()
    }

    fn zones(&self) -> Vec<ZoneReport> {
        let places: BTreeSet<&str> = self.recording.instances.values().map(|it| it.place.as_str()).collect();
        let zone = |place: &str| {
            let here = || self.recording.instances.values().filter(move |it| it.place == place);
            ZoneReport {
                name: place.to_owned(),
                instances: here().count() as u32,
                rate: self.rate(|group| here().map(|it| it.arrivals[group]).sum()),
                failed_per_second: here().map(|it| it.failed).sum::<u64>() as f64 / self.seconds(),
                bytes_out_per_second: self.recording.bytes_out.get(place).copied().unwrap_or(0) as f64
                    / self.seconds(),
            }
        };
        places.into_iter().map(zone).collect()
    }

    fn traffic(&self) -> Vec<TrafficReport> {
        let traffic = self.traffic.iter().map(|(name, seen)| {
            let (groups, sent) = seen.grouped(self.groups);
            let series = seen.slices.iter().map(|it| {
                let lasted = it.lasted.as_secs_f64().max(1e-9);
                let quantile = |q| it.latency.quantile(q).map(Nanos::as_secs_f64);
                Moment {
                    at: it.at,
                    ok_per_second: it.latency.count() as f64 / lasted,
                    failed_per_second: it.failed as f64 / lasted,
                    p50: quantile(0.5),
                    p99: quantile(0.99),
                }
            });
            TrafficReport {
                name: name.clone(),
                sent_per_second: self.rate(|group| sent[group]),
                requests: self.requests(&groups),
                series: series.collect(),
            }
        });
        traffic.collect()
    }

    fn objectives(&self) -> Vec<Objective> {
        let mut objectives = Vec::new();
        for service in self.system.services.iter() {
            let name = &service.name.value;
            let Some(slo) = &service.slo else { continue };
            let seen = self.sum(|_, to, _| to == name, |it| &it.requests);
            let report = self.requests(&seen);
            if let Some(target) = slo.availability.as_ref().map(|it| it.value) {
                let text = format!("{name} availability >= {target}");
                objectives.push(Objective::of(
                    text,
                    name,
                    report.availability,
                    target.fraction(),
                    true,
                    false,
                ));
            }
            for (share, limit) in &slo.latency {
                let limit = limit.value;
                let text = format!("{name} p{} <= {limit}", percent_number(*share));
                let measured = self.quantile(&seen, *share);
                objectives.push(Objective::of(text, name, measured, limit.as_secs_f64(), false, false));
            }
        }
        for expected in self.expect {
            let (name, is_gateway) = match expected.service {
                Caller::Service(id) => (&self.system.services[id].name.value, false),
                Caller::Gateway(id) => (&self.system.gateways[id].name.value, true),
            };
            let seen = self.sum(
                |from, to, it| {
                    (if is_gateway { from } else { to }) == name
                        && expected.operation.as_deref().is_none_or(|wanted| wanted == it)
                },
                |it| &it.requests,
            );
            let report = self.requests(&seen);
            let measured = match expected.measure {
                Measure::Availability => report.availability,
                Measure::Errors => {
                    let ok = report.availability;
                    Estimate { value: 1.0 - ok.value, low: 1.0 - ok.high, high: 1.0 - ok.low }
                }
                Measure::Latency(share) => self.quantile(&seen, share),
                Measure::Throughput => report.rate,
                Measure::Goodput => report.goodput,
            };
            let limit = super::record::limit(expected.limit);
            objectives.push(Objective::of(
                expected.text.clone(),
                name,
                measured,
                limit,
                expected.at_least,
                true,
            ));
        }
        objectives
    }

    fn quantile(&self, groups: &[Requests], share: Percent) -> Estimate {
        let q = share.fraction();
        let mut all = Histogram::new();
        groups.iter().for_each(|it| all.merge(&it.latency));
        let seconds = |it: &Histogram| it.quantile(q).map(Nanos::as_secs_f64);
        self.estimate(seconds(&all).unwrap_or(0.0), |group| seconds(&groups[group].latency))
            .within(0.0, f64::INFINITY)
    }
}

const UNKNOWN: Estimate = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN };

fn unknown_latency() -> LatencyReport {
    let (mean, p50, p90, p99, p999) = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN);
    LatencyReport { mean, p50, p90, p99, p999, histogram: Histogram::new() }
}

fn availability(requests: &Requests) -> Option<f64> {
    let waited = requests.total() - requests.failures.of(Cause::Cancelled);
    (waited > 0).then(|| requests.ok as f64 / waited as f64)
}

fn verdict(traffic: &[TrafficReport], services: &[ServiceReport], objectives: &[Objective]) -> Verdict {
    let all: f64 = traffic.iter().map(|it| it.requests.rate.value).sum();
    let ok: f64 = traffic.iter().map(|it| it.requests.goodput.value).sum();
    let share = if all > 0.0 { 1.0 - ok / all } else { 0.0 };
    let missed = objectives.iter().find(|it| !it.met);
    let busiest = services
        .iter()
        .filter_map(|it| Some((&it.name, it.utilisation?.value)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let headline = match (missed, busiest) {
        (Some(missed), _) => format!("`{}` does not hold", missed.text),
        _ if share >= FAILURES_MIN => format!("{:.2} % of requests failed", share * 100.0),
        (None, Some((name, busy))) => format!("holds; `{name}` was the busiest, at utilisation {busy:.2}"),
        (None, None) => "holds".to_owned(),
    };
    Verdict {
        holds: missed.is_none() && share < FAILURES_MIN,
        headline,
        findings: Vec::new(),
        untried: false,
    }
}

/// 99.9 % is the 99.9 of p99.9.
fn percent_number(share: Percent) -> String {
    share.to_string().trim_end_matches('%').to_owned()
}
