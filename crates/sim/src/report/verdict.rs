//! The verdict, which comes first: what breaks first, why, and the cheapest change that would help.
//!
//! It reasons from measured counts, not from the model: the station where failures began (a failure carries its root up),
//! what was scarce there, and how much more of it would have been enough.

use super::{EdgeReport, Objective, ServiceReport, View};
use crate::meter::Cause;
use crate::plan::StationKind;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Everything that must hold does, and fewer than one request in a thousand fails.
    pub holds: bool,
    pub headline: String,
    /// Most important first.
    pub findings: Vec<Finding>,
}

/// One thing that breaks, or would first.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub service: String,
    pub what: String,
    pub why: String,
    pub change: Option<Change>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub text: String,
    /// Dollars a month more, where instances have a price.
    pub cost_per_month: Option<f64>,
}

/// Failures below this share of requests are weather, not a verdict.
const FAILURES_MIN: f64 = 0.001;
/// What a service is scaled to when it has too little: the load at which waiting is still shorter than working.
const UTILISATION_GOAL: f64 = 0.7;
/// From here on a queue's length is its own and not its work's.
const UTILISATION_HIGH: f64 = 0.85;
const FINDINGS_MAX: usize = 5;

pub(super) fn of(
    view: &View<'_>,
    services: &[ServiceReport],
    edges: &[EdgeReport],
    objectives: &[Objective],
) -> Verdict {
    let missed: Vec<&Objective> = objectives.iter().filter(|it| !it.met).collect();
    let total: f64 = view
        .plan
        .loads
        .iter()
        .enumerate()
        .map(|(n, _)| view.rate(|it| it.loads[n].requests.total()).value)
        .sum();
    let failing: f64 = view
        .plan
        .loads
        .iter()
        .enumerate()
        .map(|(n, _)| view.rate(|it| it.loads[n].requests.failures.total()).value)
        .sum();
    let share = if total > 0.0 { failing / total } else { 0.0 };
    let mut findings = Vec::new();
    if share >= FAILURES_MIN || !missed.is_empty() {
        failures(view, services, edges, &mut findings);
        saturation(view, services, &mut findings);
        slowness(view, services, &missed, &mut findings);
    }
    let amplified = edges.iter().filter(|it| it.attempts_per_call.value >= 1.5);
    for edge in amplified.take(2) {
        findings.push(Finding {
            service: edge.to.clone(),
            what: format!(
                "{} sends {:.1} tries for each call to {}",
                edge.from, edge.attempts_per_call.value, edge.to
            ),
            why: "retries add load exactly where there is too little capacity".to_owned(),
            change: Some(Change {
                text: format!("set a retry budget of 10% on `{} -> {}`", edge.from, edge.to),
                cost_per_month: Some(0.0),
            }),
        });
    }
    dedup(&mut findings);
    findings.truncate(FINDINGS_MAX);
    let holds = missed.is_empty() && share < FAILURES_MIN;
    let headline = if let (false, Some(first)) = (holds, findings.first()) {
        format!("{}: {}", first.what, first.why)
    } else if !holds {
        match missed.first() {
            Some(it) => format!("`{}` does not hold", it.text),
            None => format!("{:.2} % of requests fail", share * 100.0),
        }
    } else {
        headroom(services)
    };
    if holds && let Some(finding) = first_to_break(view, services) {
        findings.insert(0, finding);
    }
    Verdict { holds, headline, findings }
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
                Cause::Connect | Cause::Reset | Cause::NoInstance | Cause::Breaker | Cause::Limit
            ) || *cause == Cause::Timeout && edge.timeouts_per_second > 0.0;
            if began_here && !users {
                origins.push((*rate, to, *cause));
            }
        }
    }
    origins.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for (rate, index, cause) in origins.into_iter().take(FINDINGS_MAX) {
        findings.push(explain(view, &services[index], cause, rate));
    }
}

fn explain(view: &View<'_>, service: &ServiceReport, cause: Cause, rate: f64) -> Finding {
    let name = &service.name;
    let utilisation = service.utilisation.map_or(0.0, |it| it.value);
    let busy = utilisation >= UTILISATION_HIGH;
    let (what, why, change) = match cause {
        Cause::QueueFull => (
            format!("`{name}` refuses {rate:.1}/s"),
            format!("its queue is full, at utilisation {utilisation:.2}"),
            more_replicas(view, service),
        ),
        Cause::Timeout if busy => (
            format!("`{name}` answers too late {rate:.1} times a second"),
            format!("its instances are busy {:.0} % of the time, so requests wait", utilisation * 100.0),
            more_replicas(view, service),
        ),
        Cause::Timeout => (
            format!("calls to `{name}` time out {rate:.1} times a second"),
            format!("its p99 is {:.0} ms without being saturated", service.requests.latency.p99.value * 1e3),
            Some(free(format!("give calls to `{name}` more time, or make them optional with a fallback"))),
        ),
        Cause::Own => (
            format!("`{name}` fails by itself {rate:.1} times a second"),
            "its own errors, not its load".to_owned(),
            Some(free(format!("retry idempotent calls to `{name}` on `5xx` within a budget of 20%"))),
        ),
        Cause::Connect | Cause::Reset => (
            format!("`{name}` loses {rate:.1} requests a second"),
            "instances are gone and their callers have not learnt it yet".to_owned(),
            Some(free(format!("retry calls to `{name}`, and check its health more often"))),
        ),
        Cause::NoInstance => (
            format!("`{name}` has nobody to ask {rate:.1} times a second"),
            "no instance that may be used is left for some callers".to_owned(),
            more_places(view, service),
        ),
        Cause::Breaker => (
            format!("breakers refuse {rate:.1} calls to `{name}` a second"),
            "it failed too often for its callers to go on asking".to_owned(),
            if busy { more_replicas(view, service) } else { None },
        ),
        Cause::Limit => (
            format!("callers hold back {rate:.1} calls to `{name}` a second"),
            "their own rate, concurrency or throttling limit".to_owned(),
            Some(free(format!("raise the limit on calls to `{name}`, if it can take more"))),
        ),
        Cause::Consistency => (
            format!("`{name}` refuses {rate:.1} requests a second"),
            "too few copies can be reached for its consistency".to_owned(),
            Some(free(format!("consistency `one` on `{name}` would answer, with reads that may be stale"))),
        ),
        Cause::Dependency | Cause::Cancelled => {
            (format!("`{name}` fails {rate:.1}/s"), "a dependency".to_owned(), None)
        }
    };
    Finding { service: name.clone(), what, why, change }
}

/// Busy places, even where nothing failed yet.
fn saturation(view: &View<'_>, services: &[ServiceReport], findings: &mut Vec<Finding>) {
    let mut busy: Vec<&ServiceReport> =
        services.iter().filter(|it| it.utilisation.is_some_and(|it| it.value >= UTILISATION_HIGH)).collect();
    busy.sort_by(|a, b| {
        b.utilisation
            .map(|it| it.value)
            .partial_cmp(&a.utilisation.map(|it| it.value))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    for service in busy {
        let utilisation = service.utilisation.map_or(0.0, |it| it.value);
        findings.push(Finding {
            service: service.name.clone(),
            what: format!("`{}` is saturated", service.name),
            why: format!(
                "utilisation {utilisation:.2}, {:.0} requests waiting on average",
                service.waiting.value
            ),
            change: more_replicas(view, service),
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
                change: Some(free(format!(
                    "make `{}` faster, cache it, or call it in parallel",
                    slowest.name
                ))),
            });
        }
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

fn headroom(services: &[ServiceReport]) -> String {
    match busiest(services) {
        Some((service, utilisation)) if utilisation > 0.0 => format!(
            "holds; `{}` would break first, at about {:.1} times this load",
            service.name,
            1.0 / utilisation
        ),
        _ => "holds; nothing has a limit that this load comes near to".to_owned(),
    }
}

fn first_to_break(view: &View<'_>, services: &[ServiceReport]) -> Option<Finding> {
    let (service, utilisation) = busiest(services)?;
    (utilisation > 0.0).then(|| Finding {
        service: service.name.clone(),
        what: format!("`{}` would break first", service.name),
        why: format!(
            "utilisation {utilisation:.2} is the highest; it is full at {:.1} times this load",
            1.0 / utilisation
        ),
        change: if utilisation > UTILISATION_GOAL { more_replicas(view, service) } else { None },
    })
}

fn busiest(services: &[ServiceReport]) -> Option<(&ServiceReport, f64)> {
    services.iter().filter_map(|it| Some((it, it.utilisation?.value))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Enough replicas for what was asked, refusals included, at a utilisation that leaves room.
fn more_replicas(view: &View<'_>, service: &ServiceReport) -> Option<Change> {
    let station = &view.plan.stations[view.plan.station_named(&service.name)? as usize];
    if service.instances == 0 || station.concurrency == u32::MAX {
        return None;
    }
    let utilisation = service.utilisation?.value;
    let asked = service.requests.rate.value.max(1e-9);
    let served = service.requests.goodput.value.max(1e-9);
    // What was refused would have needed places too.
    let wanted = (utilisation * (asked / served).clamp(1.0, 10.0)) / UTILISATION_GOAL;
    let replicas = (f64::from(service.instances) * wanted).ceil() as u32;
    if replicas <= service.instances {
        return None;
    }
    let more = replicas - service.instances;
    let price = station.price_per_hour.dollars() * 730.0 * f64::from(more);
    Some(Change {
        text: format!("`{}` with {replicas} replicas instead of {}", service.name, service.instances),
        cost_per_month: (price > 0.0).then_some(price),
    })
}

fn more_places(view: &View<'_>, service: &ServiceReport) -> Option<Change> {
    let station = &view.plan.stations[view.plan.station_named(&service.name)? as usize];
    let mut places: Vec<u16> =
        station.instances.iter().map(|it| view.plan.instances[it as usize].location).collect();
    places.sort_unstable();
    places.dedup();
    Some(free(if places.len() < 2 {
        format!("more than one place for `{}`: all its instances stand in one", service.name)
    } else {
        format!("`discovery: everywhere` on `{}`, so that other regions may answer", service.name)
    }))
}

fn free(text: String) -> Change {
    Change { text, cost_per_month: Some(0.0) }
}

/// One finding a service and kind of trouble: the first is the most important.
fn dedup(findings: &mut Vec<Finding>) {
    let mut seen: Vec<(String, Option<String>)> = Vec::new();
    findings.retain(|it| {
        let key = (it.service.clone(), it.change.as_ref().map(|it| it.text.clone()));
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
}
