//! Rules that compare what is asked with what there is.

use super::Facts;
use super::graph::{Node, Via};
use super::place::{instances_by_zone, zone_name};
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use super::work::hit_rate;
use crate::diagnostic::Severity;
use crate::span::Span;
use crate::system::{Caller, Kind, Service, ServiceId};
use indexmap::IndexMap;
use policy::settings::Trip;

/// Above this the wait for a free slot grows faster than the load.
const UTILISATION_HIGH: f64 = 0.8;
/// What the advice aims for.
const UTILISATION_AIM: f64 = 0.7;

/// Instances that can be there at once: an autoscaler may use all it is allowed.
fn instances_max(service: &Service) -> u32 {
    let declared = instances(service);
    service.autoscale.as_ref().map_or(declared, |it| it.max.max(declared))
}

pub(super) fn instances(service: &Service) -> u32 {
    if service.endpoints.is_empty() { service.replicas.total() } else { service.endpoints.len() as u32 }
}

/// Slots that the declared traffic keeps busy on average (Little's law: rate × time held), and how many of them because
/// of open loads, which do not slow down when the service does. A slot is held while callees are waited for.
fn busy_slots(facts: &Facts<'_>, id: ServiceId) -> (f64, f64) {
    let mut busy = (0.0, 0.0);
    for node in facts.graph.nodes_of(id).map(Node) {
        let held = facts.unloaded.mean(node);
        busy.0 += facts.flow.node_rate(node) * held;
        busy.1 += facts.flow.node_rate_open(node) * held;
    }
    busy
}

/// Services whose capacity is ours to judge: limited, and not somebody else's.
fn judged(service: &Service) -> Option<f64> {
    let slots = service.concurrency.as_ref()?.value;
    (service.kind != Kind::External && slots > 0).then_some(f64::from(slots))
}

/// L021. Above its capacity a queue only grows; close to it, small bursts become long waits.
pub(super) fn over_capacity(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let Some(slots) = judged(service) else { continue };
        let instances = f64::from(instances_max(service).max(1));
        let (busy, busy_open) = busy_slots(facts, id);
        let utilisation = busy / (slots * instances);
        if utilisation <= UTILISATION_HIGH || report.accepts(Subject::Service(id)) {
            continue;
        }
        let needed = (busy / (slots * UTILISATION_AIM)).ceil();
        let rate = words::rate(facts.flow.service_rate(id));
        let name = &service.name.value;
        let found = report.push(
            service.name.span,
            format!(
                "`{name}` is asked {rate}, which keeps {:.1} of its {} slots busy: {} of its capacity",
                busy,
                slots * instances,
                words::share(utilisation)
            ),
        );
        found
            .say(if utilisation > 1.0 { "more work than it can do" } else { "close to its limit" })
            .fix(format!(
                "{} replicas would be {} busy; or do less work for each request, or raise \
                `concurrency` if its machine has room",
                needed,
                words::share(busy / (slots * needed))
            ))
            .see(Some(service.replicas.span.unwrap_or(service.name.span)), "its instances")
            .see(service.concurrency.as_ref().map(|it| it.span), "requests one instance works on at once");
        // Users who wait for an answer before they ask again slow down with the service; others do not.
        if busy_open / (slots * instances) <= 1.0 {
            found.grade(Severity::Warning);
        }
    }
}

/// L009. Capacity arithmetic: what is left when the fullest zone is gone, against the same traffic.
pub(super) fn zone_loss(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let Some(slots) = judged(service) else { continue };
        if !service.endpoints.is_empty() {
            continue;
        }
        let total = f64::from(service.replicas.total());
        let zones = instances_by_zone(facts.system, service);
        let Some((fullest, lost)) = zones.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }) else {
            continue;
        };
        // An autoscaler makes up for lost instances as far as it may.
        let most = f64::from(instances_max(service));
        let left = (most * (1.0 - f64::from(lost) / total)).max(total - f64::from(lost));
        let (busy, _) = busy_slots(facts, id);
        let overload = busy / (slots * left);
        if left < 1.0
            || busy / (slots * most) > 1.0
            || overload <= 1.0
            || report.accepts(Subject::Service(id))
        {
            continue;
        }
        let name = &service.name.value;
        let target = service.slo.as_ref().and_then(|it| it.availability.as_ref());
        let found = report.push(
            service.replicas.span.unwrap_or(service.name.span),
            format!(
                "without zone `{}`, `{name}` has {} of {total} instances left, and the declared \
                traffic is {} of what they can do",
                zone_name(facts.system, fullest),
                total - f64::from(lost),
                words::share(overload)
            ),
        );
        found.say("too few to lose a zone");
        // Enough that the zones which remain carry everything.
        let share_left = 1.0 - f64::from(lost) / total;
        found.fix(format!(
            "{} replicas carry the traffic without any one zone",
            (busy / (slots * share_left) / UTILISATION_HIGH).ceil()
        ));
        found.see(target.map(|it| it.span), "this target goes with the zone");
    }
}

/// L019. A queue without end turns a short overload into a long one: everything in it is answered too late.
pub(super) fn unbounded_queue(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        if service.queue.value.max.is_some()
            || service.kind == Kind::External
            || report.accepts(Subject::Service(id))
        {
            continue;
        }
        let name = &service.name.value;
        report
            .push(service.queue.span, format!("the queue in front of `{name}` has no bound"))
            .say("grows until memory ends")
            .fix(
                "bound it to what can be answered in time, about `concurrency` × timeout ÷ work, \
                such as `queue: 128`",
            );
    }
}

/// L020. A breaker that waits for more requests than its window brings is no breaker.
pub(super) fn breaker_never_trips(facts: &Facts<'_>, report: &mut Report<'_>) {
    if facts.flow.has_recorded {
        return;
    }
    let mut groups: Groups<Option<Span>, (Caller, ServiceId, f64)> = Groups::new();
    for ((caller, callee), (rate, at)) in rates_by_pair(facts) {
        let Some(breaker) = facts.link(at).in_force.settings.breaker else { continue };
        let Trip::Rate { requests_min, window, .. } = breaker.trip else { continue };
        let of_one = rate / caller_instances(facts, caller);
        let seen = of_one * window.as_secs_f64();
        if rate > 0.0 && seen < f64::from(requests_min) && !report.accepts(Subject::Edge(caller, callee)) {
            groups.add(facts.link(at).set_by("breaker"), (caller, callee, seen));
        }
    }
    for (set_by, pairs) in groups {
        let (caller, callee, seen) = pairs[0];
        let Some(place) = set_by else { continue };
        let names = words::list(pairs.iter().map(|it| facts.pair_name(it.0, it.1)));
        let breaker = facts
            .links
            .iter()
            .find(|it| it.caller == caller && it.callee == callee && it.set_by("breaker") == set_by);
        let Some(Trip::Rate { requests_min, window, .. }) =
            breaker.and_then(|it| it.in_force.settings.breaker).map(|it| it.trip)
        else {
            continue;
        };
        report
            .push(
                place,
                format!(
                    "the breaker of {names} can never trip: an instance of `{}` makes about {} \
                    calls in {window}, and it asks for {requests_min}",
                    facts.graph.caller_name(caller),
                    words::figure(seen)
                ),
            )
            .say("more requests than the declared traffic brings")
            .fix("count failures in a row (`failures: 5`), or lower `requests`, or widen `window`");
    }
}

/// The declared traffic between each caller and callee, with one edge of each pair.
fn rates_by_pair(facts: &Facts<'_>) -> IndexMap<(Caller, ServiceId), (f64, usize)> {
    let mut pairs: IndexMap<(Caller, ServiceId), (f64, usize)> = IndexMap::new();
    for at in facts.policed_edges().filter(|at| facts.graph.edges[*at].via != Via::Fallback) {
        let edge = &facts.graph.edges[at];
        pairs.entry((edge.caller, edge.callee)).or_insert((0.0, at)).0 += facts.flow.edge_rates()[at];
    }
    pairs
}

fn caller_instances(facts: &Facts<'_>, caller: Caller) -> f64 {
    match caller {
        Caller::Service(id) => f64::from(instances(&facts.system.services[id]).max(1)),
        Caller::Gateway(_) => 1.0,
    }
}

/// L037. A limit below the declared traffic is an outage that was configured.
pub(super) fn rate_limit_below_traffic(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut limited: IndexMap<(Span, Caller, ServiceId), (f64, f64)> = IndexMap::new();
    for at in facts.policed_edges() {
        let edge = &facts.graph.edges[at];
        let rate = facts.flow.edge_rates()[at];
        let Some(limit) = facts.link(at).in_force.settings.rate_limit else { continue };
        let Some(place) = facts.link(at).set_by("rate_limit") else { continue };
        let allowed = limit.rate.per_second() * caller_instances(facts, edge.caller);
        limited.entry((place, edge.caller, edge.callee)).or_insert((0.0, allowed)).0 += rate;
    }
    for (gateway, entry) in facts.system.gateways.enumerate() {
        for route in &entry.routes {
            let Some(limit) = route.rate_limit else { continue };
            let edges = facts.graph.edges_of_gateway(gateway);
            let of_route = edges.filter(|at| {
                let edge = &facts.graph.edges[*at];
                edge.via == Via::Route && edge.route.is_some_and(|it| std::ptr::eq(it, route))
            });
            for at in of_route {
                let key = (route.span, Caller::Gateway(gateway), facts.graph.edges[at].callee);
                limited.entry(key).or_insert((0.0, limit.rate.per_second())).0 += facts.flow.edge_rates()[at];
            }
        }
    }
    for ((place, caller, callee), (rate, allowed)) in limited {
        if rate <= allowed || report.accepts(Subject::Edge(caller, callee)) {
            continue;
        }
        report
            .push(
                place,
                format!(
                    "`{}` may ask `{}` {}, but the declared traffic is {}: {} is refused when \
                    nothing is wrong",
                    facts.graph.caller_name(caller),
                    facts.name(callee),
                    words::rate(allowed),
                    words::rate(rate),
                    words::share(1.0 - allowed / rate)
                ),
            )
            .say(format!("{} in all, over every instance of the caller", words::rate(allowed)))
            .fix("raise the limit above the declared traffic, or correct the traffic");
    }
}

/// L036. The load a cache takes off its store comes back all at once when the cache is empty.
pub(super) fn miss_storm(facts: &Facts<'_>, report: &mut Report<'_>) {
    // For each cache and callee behind it: slots that are busy only when nothing is cached.
    let mut cold: IndexMap<(ServiceId, ServiceId), f64> = IndexMap::new();
    let graph = &facts.graph;
    for node in graph.nodes() {
        let rate = facts.flow.node_rate(node);
        let service_id = graph.service(node);
        let service = &facts.system.services[service_id];
        let read_through = graph.operation(node).filter(|it| service.kind == Kind::Cache && !it.writes);
        let held = match (&service.cache, read_through) {
            (Some(cache), Some(_)) => hit_rate(cache, rate),
            _ => 0.0,
        };
        let mut looked_in = None;
        for at in graph.edges_of(node).filter(|at| graph.edges[*at].via == Via::Call) {
            let edge = &graph.edges[at];
            let callee = &facts.system.services[edge.callee];
            let held_for = facts.unloaded.mean(edge.to);
            if held > 0.0 {
                *cold.entry((service_id, edge.callee)).or_default() +=
                    rate * edge.per_run() * held * held_for;
            }
            let chance = edge.call.map_or(1.0, |it| it.chance.fraction());
            match (callee.kind, looked_in) {
                (Kind::Cache, _) => looked_in = Some(edge.callee),
                // Asked now and then, after a cache was: this is where the misses go.
                (Kind::Store, Some(cache)) if chance > 0.0 && chance <= 0.5 => {
                    let extra = rate * edge.per_run() * (1.0 / chance - 1.0);
                    *cold.entry((cache, edge.callee)).or_default() += extra * held_for;
                }
                _ => {}
            }
        }
    }
    for ((cache, behind), extra) in cold {
        let service = &facts.system.services[behind];
        let Some(slots) = judged(service) else { continue };
        let capacity = slots * f64::from(instances_max(service).max(1));
        let (busy, _) = busy_slots(facts, behind);
        let when_cold = (busy + extra) / capacity;
        if busy / capacity > 1.0 || when_cold <= 1.0 || report.accepts(Subject::Service(cache)) {
            continue;
        }
        let (cache_name, name) = (facts.name(cache), facts.name(behind));
        report
            .push(
                facts.system.services[cache].name.span,
                format!(
                    "while `{cache_name}` is empty, `{name}` is asked {} of what it can do ({} when \
                    the cache is warm)",
                    words::share(when_cold),
                    words::share(busy / capacity)
                ),
            )
            .say(format!("without it, `{name}` is overloaded and the cache cannot fill"))
            .fix(format!(
                "limit what reaches `{name}` (`edges: {{\"* -> {name}\": {{concurrency: ...}}}}`) \
                so that it keeps answering, or give it room for a cold start"
            ))
            .see(Some(service.name.span), "behind the cache");
    }
}
