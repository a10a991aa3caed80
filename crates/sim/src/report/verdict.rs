//! The verdict, which comes first: what breaks first, why, and the cheapest change that would help.
//!
//! It reasons from measured counts, not from the model: where failures began (a failure carries its root up), what a
//! scenario made fail first, what was scarce there. Changes are only named here; [`crate::advice`] tries them, and what was
//! not tried is not suggested.

use super::first::{self, First};
use super::timeline;
use super::{EdgeReport, Objective, ServiceReport, View};
use crate::advice::Remedy;
use crate::meter::Cause;
use crate::plan::StationKind;
use crate::record::Change as Changed;
use policy::settings::{BalanceKind, Concurrency, RetryOn};
use units::Nanos;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Everything that must hold does, and fewer than one request in a thousand fails.
    pub holds: bool,
    pub headline: String,
    /// Most important first.
    pub findings: Vec<Finding>,
    /// Changes come to mind, and trying them would take longer than an answer may.
    pub untried: bool,
}

/// One thing that breaks, or would first.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub service: String,
    pub what: String,
    pub why: String,
    /// Tried, and it helped.
    pub change: Option<Change>,
    /// Changes that were tried.
    pub tried: u32,
    pub(crate) remedies: Vec<Remedy>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub text: String,
    /// Dollars a month more, where instances have a price.
    pub cost_per_month: Option<f64>,
    /// What it did in the runs that tried it.
    pub effect: String,
}

/// Failures below this share of requests are weather, not a verdict.
const FAILURES_MIN: f64 = 0.001;
/// What a service is scaled to when it has too little: the load at which waiting is still shorter than working.
const UTILISATION_GOAL: f64 = 0.7;
/// From here on a queue's length is its own and not its work's.
const UTILISATION_HIGH: f64 = 0.85;
/// Tries a call from which retries are load of their own.
const AMPLIFIED: f64 = 1.3;
const FINDINGS_MAX: usize = 5;

pub(super) fn of(
    view: &View<'_>,
    services: &[ServiceReport],
    edges: &[EdgeReport],
    objectives: &[Objective],
) -> Verdict {
    let missed: Vec<&Objective> = objectives.iter().filter(|it| !it.met).collect();
    let sum = |of: &dyn Fn(&crate::meter::Requests) -> u64| -> f64 {
        (0..view.plan.loads.len()).map(|n| view.rate(|it| of(&it.loads[n].requests)).value).sum()
    };
    let (total, failing) = (sum(&|it| it.total()), sum(&|it| it.failures.total()));
    let share = if total > 0.0 { failing / total } else { 0.0 };
    let holds = missed.is_empty() && share < FAILURES_MIN;
    let first = first::to_break(view);
    let mut findings = Vec::new();
    if !holds {
        if let Some(first) = &first {
            findings.extend(because(view, services, edges, first));
        }
        failures(view, services, edges, &mut findings);
        saturation(view, services, edges, &mut findings);
        slowness(view, services, &missed, &mut findings);
        amplification(edges, &mut findings);
    }
    dedup(&mut findings);
    findings.truncate(FINDINGS_MAX);
    let headline = match (holds, findings.first()) {
        (false, Some(first)) => format!("{}: {}", first.what, first.why),
        (false, None) => match missed.first() {
            Some(it) => format!("`{}` does not hold", it.text),
            None => format!("{:.2} % of requests fail", share * 100.0),
        },
        (true, _) => {
            let tightest = tightest(view, services);
            findings.extend(tightest.as_ref().map(Tight::finding));
            let weathered = first.map(|it| weathered(view, &it));
            let room = headroom(tightest.as_ref());
            weathered.map_or(format!("holds; {room}"), |it| format!("holds; {it}; {room}"))
        }
    };
    Verdict { holds, headline, findings, untried: false }
}

/// A scenario that broke something for a while and no promise.
fn weathered(view: &View<'_>, first: &First) -> String {
    let edge = &view.plan.edges[first.edge];
    format!(
        "{} makes up to {:.0} % of calls to `{}` fail, and no promise",
        first.fault,
        first.worst * 100.0,
        view.plan.stations[edge.callee as usize].name
    )
}

/// What was done, what broke first because of it, and why.
fn because(
    view: &View<'_>,
    services: &[ServiceReport],
    edges: &[EdgeReport],
    first: &First,
) -> Option<Finding> {
    let edge = &edges[first.edge];
    let service = services.iter().find(|it| it.name == edge.to)?;
    let after = first.at.saturating_sub(first.fault_at);
    let soon = if after <= view.forecast.total.slice {
        "at once".to_owned()
    } else {
        format!("{:.1} s later", after.as_secs_f64())
    };
    let (_, why, remedies) = explain(view, service, edges, first.cause, 0.0);
    Some(Finding {
        service: service.name.clone(),
        what: format!(
            "{} at {:.0} s makes calls from `{}` to `{}` fail first, {soon}, up to {:.0} % of them",
            first.fault,
            first.fault_at.as_secs_f64(),
            edge.from,
            edge.to,
            first.worst * 100.0
        ),
        why,
        change: None,
        tried: 0,
        remedies,
    })
}

/// Where failures began, the most frequent first.
fn failures(view: &View<'_>, services: &[ServiceReport], edges: &[EdgeReport], findings: &mut Vec<Finding>) {
    let mut origins: Vec<(f64, usize, Cause)> = Vec::new();
    for (index, service) in services.iter().enumerate() {
        for operation in &service.operations {
            for (cause, rate) in &operation.requests.errors {
                if matches!(cause, Cause::Own | Cause::QueueFull | Cause::Consistency) {
                    origins.push((*rate, index, *cause));
                }
            }
        }
    }
    for edge in edges {
        let Some(to) = services.iter().position(|it| it.name == edge.to) else { continue };
        let users = view.plan.stations.iter().any(|it| it.kind == StationKind::Users && it.name == edge.from);
        for (cause, rate) in &edge.calls.errors {
            let began_here = matches!(
                cause,
                Cause::Connect
                    | Cause::Reset
                    | Cause::NoInstance
                    | Cause::Breaker
                    | Cause::Limit
                    | Cause::Dns
            ) || *cause == Cause::Timeout && edge.timeouts_per_second > 0.0;
            if began_here && !users {
                origins.push((*rate, to, *cause));
            }
        }
    }
    origins.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // Below a hundredth of the worst it is another story, and a small one.
    let worst = origins.first().map_or(0.0, |it| it.0);
    for (rate, index, cause) in origins.into_iter().filter(|it| it.0 >= worst * 0.01).take(FINDINGS_MAX) {
        let (what, why, remedies) = explain(view, &services[index], edges, cause, rate);
        let service = services[index].name.clone();
        findings.push(Finding { service, what, why, change: None, tried: 0, remedies });
    }
}

fn explain(
    view: &View<'_>,
    service: &ServiceReport,
    edges: &[EdgeReport],
    cause: Cause,
    rate: f64,
) -> (String, String, Vec<Remedy>) {
    let name = &service.name;
    let utilisation = service.utilisation.map_or(0.0, |it| it.value);
    let busy = utilisation >= UTILISATION_HIGH;
    let amplified = edges.iter().any(|it| it.to == *name && it.attempts_per_call.value >= AMPLIFIED);
    let storm = if amplified { "; retries add to what is asked of it" } else { "" };
    let uneven = view.plan.station_named(name).and_then(|it| overworked(view, it));
    let (what, why) = match cause {
        Cause::QueueFull if !busy && uneven.is_some() => (
            format!("`{name}` refuses {rate:.1}/s"),
            format!(
                "the queue of `{}` is full while others of its instances have room{storm}",
                uneven.unwrap_or_default()
            ),
        ),
        Cause::QueueFull => (
            format!("`{name}` refuses {rate:.1}/s"),
            format!("its queue is full, at utilisation {utilisation:.2} on average{storm}"),
        ),
        Cause::Timeout if busy => (
            format!("`{name}` answers too late {rate:.1} times a second"),
            format!(
                "its instances are busy {:.0} % of the time, so requests wait{storm}",
                utilisation * 100.0
            ),
        ),
        Cause::Timeout => (
            format!("calls to `{name}` time out {rate:.1} times a second"),
            match (gone(view, name), waits_for_connections(view, name, edges)) {
                (count, _) if count > 0 => format!(
                    "{count} of its instances went without a word, and callers wait for them until they have learnt it"
                ),
                _ if uneven.is_some() => format!(
                    "`{}` is busy all the time while others of its instances have room{storm}",
                    uneven.unwrap_or_default()
                ),
                (_, Some(edge)) => {
                    format!("calls from `{}` wait for one of its connections, not for its places", edge.from)
                }
                _ => format!(
                    "those that are answered take {} at p99, and its places are not full{storm}",
                    timeline::time(service.requests.latency.p99.value)
                ),
            },
        ),
        Cause::Own => (
            format!("`{name}` fails by itself {rate:.1} times a second"),
            format!("its own errors, not its load{storm}"),
        ),
        Cause::Connect | Cause::Reset => (
            format!("`{name}` loses {rate:.1} requests a second"),
            "instances are gone and their callers have not learnt it yet".to_owned(),
        ),
        Cause::NoInstance => (
            format!("`{name}` has nobody to ask {rate:.1} times a second"),
            "no instance that may be used is left for some callers".to_owned(),
        ),
        Cause::Breaker => (
            format!("breakers refuse {rate:.1} calls to `{name}` a second"),
            "it failed too often for its callers to go on asking".to_owned(),
        ),
        Cause::Limit => (
            format!("callers hold back {rate:.1} calls to `{name}` a second"),
            "their own rate, concurrency or throttling limit".to_owned(),
        ),
        Cause::Consistency => (
            format!("`{name}` refuses {rate:.1} requests a second"),
            "too few copies can be reached for its consistency".to_owned(),
        ),
        Cause::Dns => (
            format!("the name of `{name}` cannot be resolved {rate:.1} times a second"),
            "the resolver does not answer, and names that were known have expired".to_owned(),
        ),
        Cause::Dependency | Cause::Cancelled => {
            (format!("`{name}` fails {rate:.1}/s"), "a dependency".to_owned())
        }
    };
    (what, why, remedies(view, service, edges, cause, busy, amplified))
}

/// What might help, the least intrusive first.
fn remedies(
    view: &View<'_>,
    service: &ServiceReport,
    edges: &[EdgeReport],
    cause: Cause,
    busy: bool,
    amplified: bool,
) -> Vec<Remedy> {
    let Some(station) = view.plan.station_named(&service.name) else { return Vec::new() };
    let to_it = || edges.iter().zip(&view.plan.edges).filter(|(it, _)| it.to == service.name);
    let most = |of: &dyn Fn(&EdgeReport) -> f64| {
        to_it().filter(|(it, _)| of(it) > 0.0).max_by(|a, b| of(a.0).total_cmp(&of(b.0)))
    };
    let mut found = Vec::new();
    if overworked(view, station).is_some()
        && let Some((_, edge)) = to_it()
            .filter(|(_, it)| {
                matches!(it.settings.balance.kind, BalanceKind::RoundRobin | BalanceKind::Random)
            })
            .max_by(|a, b| a.0.calls.rate.value.total_cmp(&b.0.calls.rate.value))
    {
        found.push(Remedy::Balance { pair: edge.pair });
    }
    if amplified {
        found.push(Remedy::Budgets);
    }
    let unretried = to_it().any(|(_, edge)| edge.settings.retry.is_none());
    let retry = |on: RetryOn, per_try| unretried.then_some(Remedy::Retry { station, on, per_try });
    let lost = RetryOn { timeout: true, ..RetryOn::default() };
    // Twice what nearly all answers take: late enough to be sure, early enough to try again.
    let twice = Nanos::from_millis((service.requests.latency.p99.value * 2e3).ceil().max(10.0) as u64);
    match cause {
        Cause::QueueFull | Cause::Breaker => found.extend(more_replicas(view, service)),
        Cause::Timeout if busy => found.extend(more_replicas(view, service)),
        Cause::Timeout => {
            if let Some((_, edge)) = most(&|it| it.pool_waits_per_second) {
                let from = edge.settings.connections;
                found.push(Remedy::Connections { pair: edge.pair, from, to: from.saturating_mul(4) });
            }
            found.extend(retry(lost, Some(twice)));
            found.push(Remedy::Checks { station });
            if let Some((_, edge)) = most(&|it| it.timeouts_per_second)
                && let Some(from) = edge.settings.timeout
            {
                found.push(Remedy::Timeout { pair: edge.pair, from, to: from * 2 });
            }
        }
        Cause::Own => found.extend(retry(RetryOn { server_error: true, ..RetryOn::default() }, None)),
        Cause::Connect | Cause::Reset => {
            found.extend(retry(lost, Some(twice)));
            found.push(Remedy::Checks { station });
        }
        Cause::NoInstance => {
            if !view.plan.stations[station as usize].everywhere {
                found.push(Remedy::Everywhere { station });
            }
            let from = service.instances;
            found.push(Remedy::Replicas { station, from, to: from + 1 });
        }
        Cause::Limit => {
            if let Some((_, edge)) =
                most(&|it| it.calls.errors.iter().filter(|it| it.0 == Cause::Limit).map(|it| it.1).sum())
            {
                found.push(Remedy::Limit { pair: edge.pair });
            }
        }
        Cause::Consistency => found.push(Remedy::ConsistencyOne { station }),
        Cause::Dns | Cause::Dependency | Cause::Cancelled => {}
    }
    if to_it().any(|(_, edge)| is_service(view, edge.caller)) {
        found.push(Remedy::Optional { station });
    }
    found
}

fn is_service(view: &View<'_>, station: u32) -> bool {
    matches!(view.plan.stations[station as usize].kind, StationKind::Service(_))
}

/// The instance of a service that has no room left while all of them together have some.
fn overworked<'p>(view: &View<'p>, station: u32) -> Option<&'p str> {
    let plan = view.plan;
    let of = &plan.stations[station as usize];
    if of.concurrency == u32::MAX {
        return None;
    }
    let busy = |instance: u32| {
        let meter = &view.forecast.total.instances[instance as usize];
        meter.busy as f64 / (meter.up as f64 * f64::from(of.concurrency)).max(1.0)
    };
    let standing = || of.instances.iter().filter(|it| view.forecast.total.instances[*it as usize].up > 0);
    let mean = standing().map(busy).sum::<f64>() / standing().count().max(1) as f64;
    let most = standing().max_by(|a, b| busy(*a).total_cmp(&busy(*b)))?;
    (busy(most) >= UTILISATION_HIGH && mean < UTILISATION_HIGH && busy(most) >= mean * 1.2)
        .then(|| plan.instances[most as usize].name.as_str())
}

/// Instances of a service that a scenario took, in the first run.
fn gone(view: &View<'_>, name: &str) -> usize {
    let Some(station) = view.plan.station_named(name) else { return 0 };
    let record = view.forecast.runs.first().and_then(|it| it.record.as_ref());
    let mine = |it: u32| view.plan.instances[it as usize].station == station;
    let mut instances: Vec<u32> = record
        .iter()
        .flat_map(|it| &it.happenings)
        .filter_map(|it| match it.change {
            Changed::Down(instance) if mine(instance) && view.forecast.scenario.is_some() => Some(instance),
            _ => None,
        })
        .collect();
    instances.sort_unstable();
    instances.dedup();
    instances.len()
}

/// The edge to a service whose callers wait for connections although the service has room.
fn waits_for_connections<'e>(view: &View<'_>, name: &str, edges: &'e [EdgeReport]) -> Option<&'e EdgeReport> {
    let waiting =
        edges.iter().zip(&view.plan.edges).filter(|(it, _)| it.to == name && it.pool_waits_per_second > 0.0);
    let full = waiting.filter(|(_, edge)| connection_share(view, edge.pair) >= UTILISATION_HIGH);
    full.map(|it| it.0).max_by(|a, b| a.pool_waits_per_second.total_cmp(&b.pool_waits_per_second))
}

/// Busy places, even where nothing failed yet.
fn saturation(
    view: &View<'_>,
    services: &[ServiceReport],
    edges: &[EdgeReport],
    findings: &mut Vec<Finding>,
) {
    let mut busy: Vec<(f64, &ServiceReport)> = services
        .iter()
        .filter_map(|it| Some((it.utilisation?.value, it)))
        .filter(|it| it.0 >= UTILISATION_HIGH)
        .collect();
    busy.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (utilisation, service) in busy {
        let amplified =
            edges.iter().any(|it| it.to == service.name && it.attempts_per_call.value >= AMPLIFIED);
        findings.push(Finding {
            service: service.name.clone(),
            what: format!("`{}` is saturated", service.name),
            why: format!(
                "utilisation {utilisation:.2}, {:.0} requests waiting on average",
                service.waiting.value
            ),
            change: None,
            tried: 0,
            remedies: remedies(view, service, edges, Cause::QueueFull, true, amplified),
        });
    }
}

/// An objective on latency that is missed with nothing saturated: the work itself is too slow.
fn slowness(view: &View<'_>, services: &[ServiceReport], missed: &[&Objective], findings: &mut Vec<Finding>) {
    for objective in missed.iter().filter(|it| !it.at_least) {
        if findings.iter().any(|it| it.service == objective.service) {
            continue;
        }
        // Whoever holds most time below it: the slowest operation of all, by what its instances see.
        let slowest = services
            .iter()
            .filter(|it| it.kind != "gateway" && it.requests.rate.value > 0.0)
            .max_by(|a, b| own_time(view, a).total_cmp(&own_time(view, b)));
        if let Some(slowest) = slowest {
            findings.push(Finding {
                service: objective.service.clone(),
                what: format!("`{}` does not hold", objective.text),
                why: format!("nothing is saturated; most of the time is the work of `{}`", slowest.name),
                change: None,
                tried: 0,
                remedies: Vec::new(),
            });
        }
    }
}

/// Retries that are load of their own.
fn amplification(edges: &[EdgeReport], findings: &mut Vec<Finding>) {
    let mut amplified: Vec<&EdgeReport> = edges
        .iter()
        .filter(|it| it.attempts_per_call.value >= AMPLIFIED && it.retries_per_second > 1.0)
        .collect();
    amplified.sort_by(|a, b| b.retries_per_second.total_cmp(&a.retries_per_second));
    if let Some(most) = amplified.first() {
        findings.push(Finding {
            service: most.to.clone(),
            what: format!(
                "`{}` sends {:.1} tries for each call to `{}`",
                most.from, most.attempts_per_call.value, most.to
            ),
            why: match amplified.len() {
                1 => "retries add load exactly where there is too little capacity".to_owned(),
                n => format!("so do {} more edges, and the factors multiply over layers", n - 1),
            },
            change: None,
            tried: 0,
            remedies: vec![Remedy::Budgets],
        });
    }
}

/// Seconds of its own work a second: rate times mean work.
fn own_time(view: &View<'_>, service: &ServiceReport) -> f64 {
    let Some(station) = view.plan.station_named(&service.name) else { return 0.0 };
    let operations = view.plan.stations[station as usize].operations.iter();
    operations
        .zip(&service.operations)
        .map(|(index, it)| {
            view.plan.operations[index as usize].law.mean_nanos() / 1e9 * it.requests.rate.value
        })
        .sum()
}

/// What is used most of what has a limit.
struct Tight {
    service: String,
    /// `web`, or the connections of an edge.
    what: String,
    share: f64,
}

impl Tight {
    fn times(&self) -> f64 {
        1.0 / self.share
    }

    fn finding(&self) -> Finding {
        Finding {
            service: self.service.clone(),
            what: format!("{} would break first", self.what),
            why: format!(
                "{:.1} % in use is the most of all limits; nothing is left at {:.1} times this load",
                self.share * 100.0,
                self.times()
            ),
            change: None,
            tried: 0,
            remedies: Vec::new(),
        }
    }
}

fn headroom(tightest: Option<&Tight>) -> String {
    match tightest {
        Some(it) => format!("{} would break first, at about {:.1} times this load", it.what, it.times()),
        None => "nothing has a limit that this load comes near to".to_owned(),
    }
}

/// Places of services, connections of callers, and callers' own limits: whatever is full first, breaks first.
fn tightest(view: &View<'_>, services: &[ServiceReport]) -> Option<Tight> {
    let places = services.iter().filter_map(|it| {
        let share = it.utilisation?.value;
        Some(Tight { service: it.name.clone(), what: format!("`{}`", it.name), share })
    });
    let pairs = (0u32..).zip(&view.plan.pairs).flat_map(|(index, pair)| {
        let name = |station: u32| view.plan.stations[station as usize].name.clone();
        let (from, to) = (name(pair.caller), name(pair.callee));
        let mut limits = Vec::new();
        if !pair.multiplexed && pair.settings.connections != u32::MAX {
            limits.push((connection_share(view, index), format!("the connections of `{from} -> {to}`")));
        }
        let callers = f64::from(view.plan.stations[pair.caller as usize].instances.len().max(1));
        if let Some(Concurrency::Static { max }) = pair.settings.concurrency {
            let held = view.each(|it| it.pairs[index as usize].held.as_secs_f64()).value;
            let share = held / view.seconds / callers / f64::from(max.max(1));
            limits.push((share, format!("the concurrency limit of `{from} -> {to}`")));
        }
        if let Some(limit) = pair.settings.rate_limit {
            let edges = view.plan.edges.iter().zip(0usize..).filter(|(edge, _)| edge.pair == index);
            let rate: f64 = edges.map(|(_, n)| view.rate(|it| it.edges[n].calls.total()).value).sum();
            let share = rate / callers / limit.rate.per_second().max(1e-9);
            limits.push((share, format!("the rate limit of `{from} -> {to}`")));
        }
        limits.into_iter().map(move |(share, what)| Tight { service: to.clone(), what, share })
    });
    places.chain(pairs).filter(|it| it.share > 0.0).max_by(|a, b| a.share.total_cmp(&b.share))
}

/// Connections in use of the busiest caller of a pair.
fn connection_share(view: &View<'_>, pair: u32) -> f64 {
    let connections = f64::from(view.plan.pairs[pair as usize].settings.connections.max(1));
    view.each(|it| it.pairs[pair as usize].held_busiest.as_secs_f64()).value / view.seconds / connections
}

/// Enough replicas for what was asked, refusals included, at a utilisation that leaves room; and half of the step, and twice
/// it, since the cheapest that helps is wanted.
fn more_replicas(view: &View<'_>, service: &ServiceReport) -> Vec<Remedy> {
    let Some(station) = view.plan.station_named(&service.name) else { return Vec::new() };
    let limited = {
        let station = &view.plan.stations[station as usize];
        station.concurrency != u32::MAX || station.cores.is_some()
    };
    let Some(utilisation) =
        service.utilisation.map(|it| it.value).filter(|_| limited && service.instances > 0)
    else {
        return Vec::new();
    };
    // What was refused would have needed places too.
    let asked = service.operations.iter().map(|it| it.requests.rate.value).sum::<f64>().max(1e-9);
    let served = service.operations.iter().map(|it| it.requests.goodput.value).sum::<f64>().max(1e-9);
    let wanted = (utilisation * (asked / served).clamp(1.0, 10.0)) / UTILISATION_GOAL;
    let more = (f64::from(service.instances) * wanted).ceil() as u32;
    let more = more.saturating_sub(service.instances).max(1);
    let mut steps = vec![more.div_ceil(2), more, more * 2];
    steps.dedup();
    let from = service.instances;
    steps.into_iter().map(|more| Remedy::Replicas { station, from, to: from + more }).collect()
}

/// One finding a service and kind of trouble: the first is the most important.
fn dedup(findings: &mut Vec<Finding>) {
    let mut seen: Vec<(String, String)> = Vec::new();
    findings.retain(|it| {
        let key = (it.service.clone(), it.why.clone());
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
}
