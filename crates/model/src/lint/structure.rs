//! Rules about the shape of the calls.

use super::Facts;
use super::graph::{Node, Via, components};
use super::report::{Report, Subject, Tell};
use super::words;
use crate::diagnostic::Severity;
use crate::system::{Caller, Kind, ServiceId};

/// Calls in a row; a sixth waits for five others.
const DEPTH_MAX: u32 = 5;
/// Calls of one request.
const FAN_OUT_MAX: u64 = 50;

/// L011. Latencies add along a chain and availabilities multiply.
pub(super) fn deep_chain(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    let counts = |at: usize, from: Node| {
        let edge = &graph.edges[at];
        edge.waits() && edge.via == Via::Call && !facts.waiting.same_cycle(from, edge.to)
    };
    let mut depth = vec![0u32; graph.node_count()];
    let mut called = vec![false; graph.node_count()];
    for index in &facts.waiting.callees_first {
        let node = Node(*index);
        for at in graph.edges_of(node).filter(|at| counts(*at, node)) {
            let to = graph.edges[at].to;
            called[to.index()] = true;
            depth[node.index()] = depth[node.index()].max(depth[to.index()] + 1);
        }
    }
    // Chains are told from where they begin, and together: they usually share their depths.
    let mut heads: Vec<Node> =
        graph.nodes().filter(|it| depth[it.index()] > DEPTH_MAX && !called[it.index()]).collect();
    heads.retain(|it| !report.accepts(Subject::Service(graph.service(*it))));
    let Some(deepest) =
        heads.iter().copied().reduce(|a, b| if depth[b.index()] > depth[a.index()] { b } else { a })
    else {
        return;
    };
    let mut chain = vec![graph.service(deepest)];
    let mut first_call = None;
    let mut node = deepest;
    while let Some(at) = graph
        .edges_of(node)
        .filter(|at| counts(*at, node))
        .find(|at| depth[graph.edges[*at].to.index()] + 1 == depth[node.index()])
    {
        first_call.get_or_insert(graph.edges[at].span);
        node = graph.edges[at].to;
        chain.push(graph.service(node));
    }
    let names: Vec<&str> = chain.iter().map(|it| facts.name(*it)).collect();
    let told = if names.len() > 9 {
        format!("{} -> ... -> {}", names[..5].join(" -> "), names[names.len() - 2..].join(" -> "))
    } else {
        names.join(" -> ")
    };
    let others = heads.len() - 1;
    let also = if others > 0 {
        format!(" ({} begin other chains as deep)", words::count(others, "more operation"))
    } else {
        String::new()
    };
    report
        .push(
            first_call.unwrap_or(facts.system.services[chain[0]].span),
            format!(
                "{} wait for each other in a row: \
                {told}{also}",
                words::count(depth[deepest.index()] as usize, "call")
            ),
        )
        .say(format!("the first of {}", words::count(depth[deepest.index()] as usize, "call")))
        .fix(
            "let a caller call two of them itself, keep a copy of the data nearer, or hand the \
            work to a queue",
        );
}

/// L012. Services that wait for each other in a circle fail together, start badly and can use up each other's slots.
pub(super) fn cycle(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    let services = facts.system.services.len();
    // Service by service: a circle through different operations holds slots all the same.
    let mut calls: Vec<Vec<(u32, usize)>> = vec![Vec::new(); services];
    for (at, edge) in graph.edges.iter().enumerate() {
        let (Caller::Service(from), Via::Call, true) = (edge.caller, edge.via, edge.waits()) else {
            continue;
        };
        if from != edge.callee {
            calls[from.index()].push((edge.callee.as_u32(), at));
        } else if edge.from == Some(edge.to)
            && !matches!(facts.system.services[from].kind, Kind::Store | Kind::Cache | Kind::Queue)
        {
            // Peers of a store talk to each other; anything else that calls itself calls itself again.
            if !report.accepts(Subject::Edge(edge.caller, edge.callee)) {
                report
                    .push(
                        edge.span,
                        format!("{} calls itself and waits for the answer", graph.node_name(edge.to)),
                    )
                    .say("a circle of one")
                    .fix("call another operation, or say how it ends with `chance`");
            }
        }
    }
    let (component, count) = components(services, |node, at| calls[node as usize].get(at).map(|it| it.0));
    let mut first_of = vec![None; count as usize];
    for service in 0..services {
        let members = &mut first_of[component[service] as usize];
        match members {
            None => *members = Some((service, 1)),
            Some((_, size)) => *size += 1,
        }
    }
    let mut circles: Vec<(usize, usize)> = first_of.into_iter().flatten().filter(|it| it.1 > 1).collect();
    circles.sort_unstable();
    for (first, size) in circles {
        let edges = shortest_circle(first as u32, &component, &calls);
        let path: Vec<ServiceId> = edges.iter().map(|at| graph.edges[*at].callee).collect();
        // Whoever accepts one call of the circle, or one service in it, has accepted it.
        let accepted = edges
            .iter()
            .any(|at| report.accepts(Subject::Edge(graph.edges[*at].caller, graph.edges[*at].callee)));
        let Some(last) = edges.last().copied() else { continue };
        if accepted {
            continue;
        }
        let mut told = facts.name(ServiceId::from_usize(first)).to_string();
        for service in &path {
            told.push_str(&format!(" -> {}", facts.name(*service)));
        }
        let more = if size > path.len() {
            format!(", one of the circles among {size} services")
        } else {
            String::new()
        };
        let found = report.push(
            graph.edges[last].span,
            format!(
                "services wait for each other in a circle: \
                {told}{more}"
            ),
        );
        found.say("closes the circle").fix(
            "turn one call around (events through a queue, \
            `detached: true`), or move what both need into a third service",
        );
        if let Some(opens) = edges.first().filter(|it| **it != last) {
            found.see(Some(graph.edges[*opens].span), "it begins here");
        }
    }
}

/// Edges of a shortest way from this service back to itself, within its component.
fn shortest_circle(first: u32, component: &[u32], calls: &[Vec<(u32, usize)>]) -> Vec<usize> {
    let mut came_by: std::collections::HashMap<u32, (u32, usize)> = std::collections::HashMap::new();
    let mut queue = std::collections::VecDeque::from([first]);
    while let Some(service) = queue.pop_front() {
        for (next, at) in &calls[service as usize] {
            if component[*next as usize] != component[first as usize] {
                continue;
            }
            if *next == first {
                let mut edges = vec![*at];
                let mut here = service;
                while let Some((before, at)) = came_by.get(&here) {
                    edges.push(*at);
                    here = *before;
                }
                edges.reverse();
                return edges;
            }
            if !came_by.contains_key(next) {
                came_by.insert(*next, (service, *at));
                queue.push_back(*next);
            }
        }
    }
    Vec::new()
}

/// L013. The slowest of many calls decides, and every one is a chance to fail.
pub(super) fn fan_out(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    for node in graph.nodes() {
        let calls = graph
            .edges_of(node)
            .filter_map(|at| graph.edges[at].call.filter(|_| graph.edges[at].via == Via::Call));
        let total: u64 = calls.map(|it| u64::from(it.times)).sum();
        let Some(operation) = graph.operation(node) else { continue };
        if total <= FAN_OUT_MAX || report.accepts(Subject::Service(graph.service(node))) {
            continue;
        }
        report
            .push(
                operation.name.span,
                format!("one request of {} makes {total} calls", graph.node_name(node)),
            )
            .say("the slowest of them decides")
            .fix("ask for many things in one call, keep what changes seldom, or precompute it");
    }
}

/// L014. An optional call that nothing stands in for, or that nothing ends, is not optional.
pub(super) fn optional_unguarded(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    for (at, edge) in graph.edges.iter().enumerate() {
        let (Some(call), Via::Call) = (edge.call, edge.via) else { continue };
        if !call.optional || call.detached {
            continue;
        }
        let endless = facts.timeout(at).0.is_none();
        let bare = call.fallback.is_none();
        if !(endless || bare) || report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            continue;
        }
        let (caller, callee) = (graph.caller_name(edge.caller), facts.name(edge.callee));
        let (lacks, fix) = match (endless, bare) {
            (true, true) => (
                "neither a timeout nor a fallback",
                "say what is shown instead (`fallback: empty`), and give the edge a short `timeout`",
            ),
            (true, false) => (
                "no timeout",
                "give the edge a short `timeout`: an answer that does without it should not wait \
                long for it",
            ),
            (false, _) => (
                "no fallback",
                "say what is shown instead: `fallback: empty`, a word, or `{call: \
                SERVICE}`",
            ),
        };
        let found = report
            .push(edge.span, format!("`{caller}` can do without `{callee}`, but this call has {lacks}"));
        found
            .say(if endless {
                "optional, and waited for without end"
            } else {
                "optional, and nobody says what is shown instead"
            })
            .fix(fix);
        if !endless {
            found.grade(Severity::Note);
        }
    }
}

/// L017. What no traffic reaches costs money and hides mistakes: usually a call or a route was forgotten.
pub(super) fn unreachable(facts: &Facts<'_>, report: &mut Report<'_>) {
    let system = facts.system;
    if system.gateways.is_empty() && system.traffic.is_empty() {
        return; // Nothing comes in at all: a part of a system, or a sketch.
    }
    let mut reached = vec![false; system.services.len()];
    let mut to_visit: Vec<ServiceId> = Vec::new();
    let mut reach = |id: ServiceId, to_visit: &mut Vec<ServiceId>| {
        if !std::mem::replace(&mut reached[id.index()], true) {
            to_visit.push(id);
        }
    };
    for edge in facts.graph.edges.iter().filter(|it| it.from.is_none()) {
        reach(edge.callee, &mut to_visit);
    }
    for traffic in &system.traffic {
        if let Caller::Service(id) = traffic.to.value {
            reach(id, &mut to_visit);
        }
    }
    // Routes lead somewhere even when no operation of the target fits them.
    for route in system.gateways.iter().flat_map(|it| &it.routes) {
        if let crate::system::Action::To(targets) = &route.action {
            for target in targets {
                reach(target.service.value, &mut to_visit);
            }
        }
    }
    for (id, service) in system.services.enumerate() {
        if service.run.as_ref().is_some_and(|it| it.job) {
            reach(id, &mut to_visit);
        }
    }
    while let Some(id) = to_visit.pop() {
        for node in facts.graph.nodes_of(id) {
            for at in facts.graph.edges_of(Node(node)) {
                reach(facts.graph.edges[at].callee, &mut to_visit);
            }
        }
        for need in &system.services[id].needs {
            reach(need.service.value, &mut to_visit);
        }
        if let Some(topic) = &system.services[id].topic {
            for (consumer, _) in &topic.consumers {
                reach(consumer.value, &mut to_visit);
            }
        }
    }
    // Of services that only other unreachable ones call, the callers are the finding.
    let mut called_by_unreached = vec![false; system.services.len()];
    for edge in &facts.graph.edges {
        if let Caller::Service(from) = edge.caller
            && !reached[from.index()]
            && from != edge.callee
        {
            called_by_unreached[edge.callee.index()] = true;
        }
    }
    for (id, service) in system.services.enumerate() {
        if reached[id.index()] || called_by_unreached[id.index()] || report.accepts(Subject::Service(id)) {
            continue;
        }
        let name = &service.name.value;
        report
            .push(
                service.name.span,
                format!("no traffic can reach `{name}`: no call, route, traffic or topic leads to it"),
            )
            .say("nobody asks it anything")
            .fix("call it, route to it, or remove it");
    }
}
