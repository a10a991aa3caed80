//! Rules about how long callers wait.

use super::Facts;
use super::graph::{Node, Via};
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use super::work::WaitedCalls;
use crate::diagnostic::Severity;
use crate::span::Span;
use policy::settings::Retry;
use units::Nanos;

/// L001. A caller that gives up before its callee can leaves the callee working for nobody, and under stress that is
/// most of the work there is.
///
/// What a callee may wait for is the sum over its calls in sequence, the largest of those made together, of each
/// call's own limit: its timeout, or its attempts and back-off where those are shorter. A call without a timeout is
/// as patient as what it calls.
pub(super) fn inversion(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    // How long each operation may wait for others: as isobar runs it, and if each attempt got the whole timeout.
    let mut waits = vec![Patience::default(); graph.node_count()];
    for index in &facts.waiting.callees_first {
        let node = Node(*index);
        let Some(operation) = graph.operation(node) else { continue };
        let strict = |at: usize| patience(facts, at, &waits).strict;
        let naive = |at: usize| patience(facts, at, &waits).naive;
        waits[node.index()] = Patience {
            strict: WaitedCalls::of(graph, &facts.waiting, node).total(&operation.calls, &strict),
            naive: WaitedCalls::of(graph, &facts.waiting, node).total(&operation.calls, &naive),
        };
    }

    let mut certain: Groups<Option<Span>, usize> = Groups::new();
    let mut per_attempt: Groups<Option<Span>, usize> = Groups::new();
    for at in facts.policed_edges() {
        let edge = &graph.edges[at];
        let (Some(timeout), span) = facts.timeout(at) else { continue };
        let in_cycle = edge.from.is_some_and(|from| facts.waiting.same_cycle(from, edge.to));
        let callee = waits[edge.to.index()];
        let limit = timeout.as_secs_f64();
        if !edge.waits() || in_cycle || callee.naive < limit || callee.naive == 0.0 {
            continue;
        }
        if report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            continue;
        }
        if callee.strict >= limit { certain.add(span, at) } else { per_attempt.add(span, at) }
    }
    for (span, edges) in certain {
        let worst = longest(&edges, |at| waits[graph.edges[at].to.index()].strict);
        let place = span.unwrap_or(graph.edges[worst].span);
        let limit = facts.timeout(worst).0.unwrap_or_default();
        let callee = facts.name(graph.edges[worst].callee);
        let caller = graph.caller_name(graph.edges[worst].caller);
        let may_wait = words::time(waits[graph.edges[worst].to.index()].strict);
        let waited_for = waited_for(facts, graph.edges[worst].to);
        let pairs: std::collections::HashSet<_> =
            edges.iter().map(|at| (graph.edges[*at].caller, graph.edges[*at].callee)).collect();
        let (message, label) = if pairs.len() == 1 {
            (
                format!(
                    "`{caller}` gives up on `{callee}` after {limit}, but `{callee}` may itself \
                    wait {may_wait} for {waited_for}"
                ),
                "not longer than what it waits for".to_string(),
            )
        } else {
            (
                format!(
                    "a timeout of {limit} is not longer than what {} of its callees may wait for",
                    pairs.len()
                ),
                format!("`{caller}` gives up on `{callee}`, which may wait {may_wait} for {waited_for}"),
            )
        };
        let below = first_limit_below(facts, graph.edges[worst].to);
        let names = words::list(edges.iter().map(|at| facts.edge_name(*at)));
        let found = report.push(place, message);
        found.say(label).fix(format!(
            "give callers more time than their callees: more than {may_wait} for `{}`, or less for \
            the calls below it{}",
            facts.edge_name(worst),
            if pairs.len() == 1 { String::new() } else { format!(" (it concerns {names})") },
        ));
        found.see(below, "the callee waits this long");
    }
    for (span, edges) in per_attempt {
        let worst = longest(&edges, |at| waits[graph.edges[at].to.index()].naive);
        let limit = facts.timeout(worst).0.unwrap_or_default();
        let edge = &graph.edges[worst];
        let callee = facts.name(edge.callee);
        let found = report.push(
            span.unwrap_or(edge.span),
            format!(
                "`{}` gives up on `{callee}` after {limit}, less than the attempts `{callee}` is \
                allowed for {} if each took its whole timeout ({})",
                graph.caller_name(edge.caller),
                waited_for(facts, edge.to),
                words::time(waits[edge.to.index()].naive),
            ),
        );
        found
            .say("shorter than all attempts below it")
            .fix(
                "a timeout covers all attempts together, so today the first slow attempt uses it \
                up: say `per_try` on the retry, and give the caller more time than `attempts` × `per_try`",
            )
            .see(first_limit_below(facts, edge.to), "the callee waits this long, all attempts included")
            .grade(Severity::Note);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    /// As isobar runs it: a timeout covers all attempts.
    strict: f64,
    /// If every attempt were given the whole timeout, as many libraries do.
    naive: f64,
}

/// How long the caller of this edge may wait for it, in seconds.
fn patience(facts: &Facts<'_>, at: usize, waits: &[Patience]) -> Patience {
    let edge = &facts.graph.edges[at];
    let below = waits[edge.to.index()];
    let times = edge.call.map_or(1.0, |it| f64::from(it.times));
    let settings = &facts.link(at).in_force.settings;
    let timeout = facts.timeout(at).0.map(Nanos::as_secs_f64);
    let attempts = settings.retry.as_ref().map_or(1.0, |it| f64::from(it.attempts));
    let pauses = settings.retry.as_ref().map_or(0.0, pauses_between_attempts);
    let per_try = settings.retry.as_ref().and_then(|it| it.per_try).map(Nanos::as_secs_f64);
    let one = match (timeout, per_try) {
        (None, None) => return Patience { strict: below.strict * times, naive: below.naive * times },
        (Some(timeout), None) => Patience { strict: timeout, naive: timeout * attempts + pauses },
        (None, Some(per_try)) => {
            let all = per_try * attempts + pauses;
            Patience { strict: all, naive: all }
        }
        (Some(timeout), Some(per_try)) => {
            let all = timeout.min(per_try * attempts + pauses);
            Patience { strict: all, naive: all }
        }
    };
    Patience { strict: one.strict * times, naive: one.naive * times }
}

/// The longest that back-off may add up to, in seconds.
fn pauses_between_attempts(retry: &Retry) -> f64 {
    let max = retry.backoff.max.as_secs_f64();
    let mut pause = retry.backoff.base.as_secs_f64();
    let mut sum = 0.0;
    for _ in 1..retry.attempts {
        sum += pause.min(max);
        pause *= 2.0;
    }
    sum
}

fn longest(edges: &[usize], of: impl Fn(usize) -> f64) -> usize {
    edges.iter().copied().reduce(|a, b| if of(b) > of(a) { b } else { a }).expect("a group has members")
}

fn waited_for(facts: &Facts<'_>, node: Node) -> String {
    let edges = facts.graph.edges_of(node);
    let waited = edges.filter(|at| facts.graph.edges[*at].waits() && facts.graph.edges[*at].via == Via::Call);
    words::list(waited.map(|at| facts.name(facts.graph.edges[at].callee)))
}

fn first_limit_below(facts: &Facts<'_>, node: Node) -> Option<Span> {
    facts
        .graph
        .edges_of(node)
        .filter(|at| facts.graph.edges[*at].waits())
        .find_map(|at| facts.timeout(at).1.or(facts.link(at).set_by("retry")))
}

/// L002. A call that may wait for ever holds its caller's slot, its caller's caller's slot, and so on up.
pub(super) fn missing(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    let mut groups: Groups<Option<Span>, usize> = Groups::new();
    for at in facts.policed_edges() {
        let edge = &graph.edges[at];
        let optional = edge.call.is_some_and(|it| it.optional);
        let limited_by_attempts =
            facts.link(at).in_force.settings.retry.as_ref().is_some_and(|it| it.per_try.is_some());
        // An optional call without a timeout is L014's: the fix there is another.
        if !edge.waits() || optional || limited_by_attempts || edge.via == Via::Fallback {
            continue;
        }
        if let (None, said_none) = facts.timeout(at)
            && !report.accepts(Subject::Edge(edge.caller, edge.callee))
        {
            groups.add(said_none, at);
        }
    }
    let default = facts.system.edges.rules.iter().find(|it| {
        it.from.is_none() && it.from_gateway.is_none() && it.to.is_none() && it.operation.is_none()
    });
    for (said_none, edges) in groups {
        let names = words::list(edges.iter().map(|at| facts.edge_name(*at)));
        let distinct: std::collections::HashSet<_> =
            edges.iter().map(|at| (graph.edges[*at].caller, graph.edges[*at].callee)).collect();
        let message = match distinct.len() {
            1 => format!("{names} has no timeout: it may wait for ever"),
            more => format!("{} have no timeout: they may wait for ever", words::count(more, "edge")),
        };
        let label = if distinct.len() == 1 { "waits for ever".to_string() } else { names };
        match said_none {
            Some(place) => {
                report.push(place, message).say(label).fix("write a time, such as `timeout: 1s`");
            }
            None => {
                let place = default.map_or(graph.edges[edges[0]].span, |it| it.span);
                let fix = match default {
                    Some(_) => "add a time to `edges.default`, such as `timeout: 1s`",
                    None => "say `edges: {default: {timeout: 1s}}`, then more where it is right",
                };
                report.push(place, message).say(label).fix(fix);
            }
        }
    }
}

/// L003. A timeout below the slowest hundredth of the callee's own work fails healthy requests.
pub(super) fn below_p99(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    let mut p99_of = vec![None; graph.node_count()];
    let mut groups: Groups<(Span, Node), usize> = Groups::new();
    for at in facts.policed_edges() {
        let edge = &graph.edges[at];
        let Some(operation) = graph.operation(edge.to) else { continue };
        let (timeout, timeout_at) = facts.timeout(at);
        let retry = facts.link(at).in_force.settings.retry.as_ref();
        let per_try = retry.and_then(|it| it.per_try).map(|it| (it, facts.link(at).set_by("retry")));
        let Some((limit, place)) =
            timeout.map(|it| (it, timeout_at)).into_iter().chain(per_try).min_by_key(|it| it.0)
        else {
            continue;
        };
        let p99 = *p99_of[edge.to.index()].get_or_insert_with(|| operation.work.quantile(0.99));
        if edge.waits()
            && p99.is_some_and(|p99| limit < p99)
            && !report.accepts(Subject::Edge(edge.caller, edge.callee))
        {
            groups.add((place.unwrap_or(edge.span), edge.to), at);
        }
    }
    for ((place, node), edges) in groups {
        let Some(operation) = graph.operation(node) else { continue };
        let p99 = p99_of[node.index()].flatten().unwrap_or_default();
        let median = operation.work.quantile(0.5).unwrap_or_default();
        let edge = &graph.edges[edges[0]];
        let limit = facts
            .timeout(edges[0])
            .0
            .into_iter()
            .chain(facts.link(edges[0]).in_force.settings.retry.as_ref().and_then(|it| it.per_try))
            .min()
            .unwrap_or_default();
        let how_many = if limit < median { "most requests" } else { "more than 1 request in 100" };
        let callers = words::list(edges.iter().map(|at| graph.caller_name(graph.edges[*at].caller)));
        let callee = graph.node_name(edge.to);
        let found = report.push(
            place,
            format!(
                "{callers} gives up on {callee} after {limit}, which fails {how_many} when nothing is wrong"
            ),
        );
        found
            .say(format!("its own work takes {p99} at p99"))
            .fix(format!(
                "wait longer than its p99, at least {}",
                words::suggest_time(p99.as_secs_f64() * 1.1)
            ))
            .see(Some(operation.name.span), "its work is declared here");
    }
}
