//! Rules about promises: what an SLO says against what the parts can give.

use super::Facts;
use super::graph::{Node, Via};
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use super::work::miss_share;
use crate::span::Span;
use crate::system::{Caller, ServiceId};
use policy::settings::Priority;

/// L010. In series, availabilities multiply: a promise above the product is kept by luck.
pub(super) fn above_dependencies(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    // What each operation can give, its callees keeping exactly their promises.
    let mut possible = vec![1.0f64; graph.node_count()];
    for index in &facts.waiting.callees_first {
        let node = Node(*index);
        let own = graph.operation(node).map_or(1.0, |it| 1.0 - it.errors.fraction().min(1.0));
        possible[node.index()] =
            own * hard_callees(facts, node).map(|at| of_edge(facts, at, &possible)).product::<f64>();
    }
    for (id, service) in facts.system.services.enumerate() {
        let Some(target) = service.slo.as_ref().and_then(|it| it.availability.as_ref()) else { continue };
        let nodes = || graph.nodes_of(id).map(Node);
        let rate: f64 = nodes().map(|it| facts.flow.node_rate(it)).sum();
        let reachable = if rate > 0.0 {
            nodes().map(|it| possible[it.index()] * facts.flow.node_rate(it)).sum::<f64>() / rate
        } else {
            nodes().map(|it| possible[it.index()]).fold(1.0, f64::min)
        };
        if target.value.fraction() <= reachable + 5e-7 || report.accepts(Subject::Service(id)) {
            continue;
        }
        // The operation that loses the most requests, or without traffic the most of each.
        let lost = |node: Node| {
            let each = 1.0 - possible[node.index()];
            if rate > 0.0 { each * facts.flow.node_rate(node) } else { each }
        };
        let worst =
            nodes().reduce(|a, b| if lost(b) > lost(a) { b } else { a }).expect("a service has a node");
        let mut parts: Vec<(f64, ServiceId)> = hard_callees(facts, worst)
            .map(|at| (of_edge(facts, at, &possible), graph.edges[at].callee))
            .collect();
        parts.retain(|it| it.0 < 1.0);
        parts.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        parts.dedup_by_key(|it| it.1);
        let told: Vec<String> = parts
            .iter()
            .take(4)
            .map(|(share, callee)| format!("`{}` {}", facts.name(*callee), words::share(*share)))
            .collect();
        let own = graph.operation(worst).map_or(0.0, |it| it.errors.fraction());
        let mut why = told.join(" × ");
        if own > 0.0 {
            let errors = format!("its own errors {}", words::share(1.0 - own));
            why = if why.is_empty() { errors } else { format!("{why} × {errors}") };
        }
        if parts.len() > 4 {
            why.push_str(" × ...");
        }
        let found = report.push(
            target.span,
            format!(
                "`{}` promises {}, but what it cannot do without gives {} at best: {why}",
                service.name.value,
                target.value,
                words::share(reachable)
            ),
        );
        found
            .say("higher than its hard dependencies allow")
            .fix("make a dependency optional with a fallback, raise its target, or promise less");
        for (_, callee) in parts.iter().take(2) {
            let slo = facts.system.services[*callee].slo.as_ref().and_then(|it| it.availability.as_ref());
            found.see(slo.map(|it| it.span), format!("`{}` promises this", facts.name(*callee)));
        }
    }
}

/// Edges that a run of this operation cannot do without, its own cycle aside.
fn hard_callees<'f>(facts: &'f Facts<'_>, node: Node) -> impl Iterator<Item = usize> + 'f {
    facts.graph.edges_of(node).filter(move |at| {
        let edge = &facts.graph.edges[*at];
        edge.hard() && edge.via == Via::Call && !facts.waiting.same_cycle(node, edge.to)
    })
}

/// The availability that a run of the caller sees of this edge.
fn of_edge(facts: &Facts<'_>, at: usize, possible: &[f64]) -> f64 {
    let edge = &facts.graph.edges[at];
    let promised = facts.system.services[edge.callee].slo.as_ref().and_then(|it| it.availability.as_ref());
    let one = promised.map_or(possible[edge.to.index()], |it| it.value.fraction());
    let call = edge.call.map_or((1.0, 1.0), |it| (it.chance.fraction(), f64::from(it.times)));
    // Calls of one service within a request succeed or fail together, so `times` does not multiply.
    let asks = edge.from.and_then(|from| {
        let service = &facts.system.services[facts.graph.service(from)];
        facts.graph.operation(from).map(|it| miss_share(service, it, facts.flow.node_rate(from)))
    });
    1.0 - asks.unwrap_or(1.0) * call.0.min(1.0) * call.1.min(1.0) * (1.0 - one)
}

/// L031. Half of the requests take at least their medians; a target below that cannot be met.
pub(super) fn latency_below_work(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    for (id, service) in facts.system.services.enumerate() {
        let Some(slo) = &service.slo else { continue };
        for (share, limit) in &slo.latency {
            let nodes = || graph.nodes_of(id).map(Node);
            let slow = |node: &Node| facts.unloaded.median(*node) > limit.value.as_secs_f64();
            let rate: f64 = nodes().map(|it| facts.flow.node_rate(it)).sum();
            let share_slow = if rate > 0.0 {
                nodes().filter(slow).map(|it| facts.flow.node_rate(it)).sum::<f64>() / rate
            } else {
                f64::from(u8::from(nodes().all(|it| slow(&it))))
            };
            // At least half of those miss the limit.
            let missed_at_least = 0.5 * share_slow;
            if share_slow == 0.0
                || 1.0 - missed_at_least > share.fraction()
                || report.accepts(Subject::Service(id))
            {
                continue;
            }
            let slowest = nodes()
                .reduce(|a, b| if facts.unloaded.median(b) > facts.unloaded.median(a) { b } else { a })
                .expect("a service has a node");
            let below = graph.operation(slowest).is_some_and(|it| !it.calls.is_empty());
            report
                .push(
                    limit.span,
                    format!(
                        "`{}` promises {} for {share} of its requests, but the median work of {} \
                        takes {} already",
                        service.name.value,
                        limit.value,
                        graph.node_name(slowest),
                        words::time(facts.unloaded.median(slowest)),
                    ),
                )
                .say("shorter than the work it waits for")
                .fix(if below {
                    "make calls at the same time (`all`), make some optional or faster, or promise less"
                } else {
                    "make the work faster, or promise less"
                })
                .see(graph.operation(slowest).map(|it| it.name.span), "this operation");
        }
    }
}

/// L038. Under overload the lower class goes first, and whoever needed it fails with it.
pub(super) fn sheddable_dependency(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    let mut groups: Groups<(Caller, ServiceId), (usize, Option<Span>)> = Groups::new();
    for at in 0..graph.edges.len() {
        let edge = &graph.edges[at];
        let (Some(from), true) = (edge.from, edge.hard() && edge.via == Via::Call) else { continue };
        let caller = &facts.system.services[graph.service(from)];
        let needs = graph.operation(from).and_then(|it| it.priority).or(caller.priority).unwrap_or_default();
        let callee = &facts.system.services[edge.callee];
        let by_edge = facts.link(at).set_by("priority");
        let operation = graph.operation(edge.to);
        let (gets, place) = match by_edge {
            Some(place) => (facts.link(at).in_force.settings.priority, Some(place)),
            None => match operation.and_then(|it| it.priority.map(|priority| (priority, it.name.span))) {
                Some((priority, place)) => (priority, Some(place)),
                None => (callee.priority.unwrap_or(needs), None),
            },
        };
        if gets < needs
            && gets <= Priority::SheddablePlus
            && !report.accepts(Subject::Edge(edge.caller, edge.callee))
        {
            groups.add((edge.caller, edge.callee), (at, place));
        }
    }
    for ((caller, callee), edges) in groups {
        let (at, place) = edges[0];
        let (caller, callee_name) = (graph.caller_name(caller), facts.name(callee));
        report
            .push(
                graph.edges[at].span,
                format!(
                    "`{caller}` cannot answer without `{callee_name}`, whose work is dropped \
                    first under overload"
                ),
            )
            .say("a hard dependency on sheddable work")
            .fix("make the call `optional` with a `fallback`, or raise its priority")
            .see(Some(place.unwrap_or(facts.system.services[callee].name.span)), "made sheddable here");
    }
}

/// L047. A scenario without an expectation always passes.
pub(super) fn scenario_expects_nothing(facts: &Facts<'_>, report: &mut Report<'_>) {
    for scenario in facts.system.scenarios.iter().filter(|it| it.expect.is_empty()) {
        if report.accepts(Subject::System) {
            continue;
        }
        report
            .push(
                scenario.name.span,
                format!("the scenario `{}` expects nothing, so it cannot fail", scenario.name.value),
            )
            .say("no `expect`")
            .fix("say what must hold, such as `expect: [web availability >= 99.9%]`");
    }
}
