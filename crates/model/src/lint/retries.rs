//! Rules about trying again: retries, their budgets and waits, and hedges.

use super::Facts;
use super::graph::{Node, Via};
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use crate::diagnostic::Severity;
use crate::span::Span;
use policy::settings::{Hedge, Jitter, Retry};

/// More than this many attempts at the end of a path for one request at its beginning is a storm in waiting.
const ATTEMPTS_MAX: f64 = 3.0;

/// Attempts the policy really makes: it never repeats what is not idempotent unless told to.
fn attempts(facts: &Facts<'_>, at: usize) -> f64 {
    let edge = &facts.graph.edges[at];
    let Some(retry) = &facts.link(at).in_force.settings.retry else { return 1.0 };
    let repeatable = retry.non_idempotent || facts.graph.operation(edge.to).is_none_or(|it| it.idempotent);
    if repeatable { f64::from(retry.attempts.max(1)) } else { 1.0 }
}

/// L004. Each layer that retries multiplies the attempts of the layers above it.
pub(super) fn multiply(facts: &Facts<'_>, report: &mut Report<'_>) {
    let graph = &facts.graph;
    // The most attempts that one request may become on its way to each node, and the edge it comes by.
    let mut most = vec![(1.0f64, None::<usize>); graph.node_count()];
    let mut groups: Groups<Option<Span>, (f64, usize)> = Groups::new();
    let gateway_edges = facts.system.gateways.ids().flat_map(|it| graph.edges_of_gateway(it));
    let node_edges = facts.waiting.callees_first.iter().rev().flat_map(|it| graph.edges_of(Node(*it)));
    for at in gateway_edges.chain(node_edges) {
        let edge = &graph.edges[at];
        let before = edge.from.map_or(1.0, |from| most[from.index()].0);
        let in_cycle = edge.from.is_some_and(|from| facts.waiting.same_cycle(from, edge.to));
        if !edge.waits() || in_cycle || edge.via == Via::Fallback {
            continue;
        }
        let here = attempts(facts, at);
        let after = before * here;
        if after > most[edge.to.index()].0 {
            most[edge.to.index()] = (after, Some(at));
        }
        if after > ATTEMPTS_MAX && here > 1.0 && !report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            groups.add(facts.link(at).set_by("retry"), (after, at));
        }
    }
    for (set_by, edges) in groups {
        let (product, at) =
            edges.iter().copied().reduce(|a, b| if b.0 > a.0 { b } else { a }).expect("a group has members");
        let path = path_to(facts, at, &most);
        let budgeted = path
            .iter()
            .all(|at| facts.link(*at).in_force.settings.retry.as_ref().is_none_or(|it| it.budget.is_some()));
        let callee = facts.name(graph.edges[at].callee);
        let told = path_in_words(facts, &path);
        let place = set_by.unwrap_or(graph.edges[at].span);
        let layers = path.iter().filter(|at| attempts(facts, **at) > 1.0).count();
        let found = report.push(
            place,
            format!(
                "when `{callee}` fails, one request becomes {} attempts at it: {told}",
                words::figure(product)
            ),
        );
        found.say(match layers {
            1 => format!("{} attempts", words::figure(product)),
            _ => format!("the last of {layers} layers that retry"),
        });
        found.fix(if budgeted {
            "retry in one layer only, the one next to the failure (`retry: none` elsewhere); \
            budgets keep the sum bounded meanwhile"
        } else {
            "retry in one layer only, the one next to the failure (`retry: none` elsewhere), and \
            give it a budget"
        });
        if budgeted {
            found.grade(Severity::Note);
        }
    }
}

/// The edges that lead to this one with the most attempts, first to last. As long as the longest path at most.
fn path_to(facts: &Facts<'_>, last: usize, most: &[(f64, Option<usize>)]) -> Vec<usize> {
    let mut path = vec![last];
    let mut from = facts.graph.edges[last].from;
    while let Some(at) = from.and_then(|it| most[it.index()].1) {
        path.push(at);
        from = facts.graph.edges[at].from;
    }
    path.reverse();
    path
}

/// `edge -> web ×2 -> cart ×2 -> db ×2`, the middle left out when it is long.
fn path_in_words(facts: &Facts<'_>, path: &[usize]) -> String {
    const SHOWN: usize = 3;
    let graph = &facts.graph;
    let mut told =
        path.first().map_or(String::new(), |at| graph.caller_name(graph.edges[*at].caller).to_string());
    for (nth, at) in path.iter().enumerate() {
        if path.len() > 2 * SHOWN && (SHOWN..path.len() - SHOWN).contains(&nth) {
            if nth == SHOWN {
                told.push_str(" -> ...");
            }
            continue;
        }
        let times = attempts(facts, *at);
        let by = if times > 1.0 { format!(" ×{times}") } else { String::new() };
        told.push_str(&format!(" -> {}{by}", facts.name(graph.edges[*at].callee)));
    }
    told
}

/// Edges that really retry, by the place that says so.
fn retried(
    facts: &Facts<'_>,
    report: &mut Report<'_>,
    risky: impl Fn(usize, &Retry) -> bool,
) -> Groups<Option<Span>, usize> {
    let mut groups = Groups::new();
    for at in facts.policed_edges() {
        let edge = &facts.graph.edges[at];
        let Some(retry) = facts.link(at).in_force.settings.retry.as_ref().filter(|it| it.attempts > 1) else {
            continue;
        };
        if risky(at, retry) && !report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            groups.add(facts.link(at).set_by("retry"), at);
        }
    }
    groups
}

fn place(facts: &Facts<'_>, set_by: Option<Span>, edges: &[usize]) -> Span {
    set_by.unwrap_or(facts.graph.edges[edges[0]].span)
}

fn names(facts: &Facts<'_>, edges: &[usize]) -> String {
    words::list(edges.iter().map(|at| facts.edge_name(*at)))
}

/// L005. Without a budget, retries grow exactly when the callee can least bear it.
pub(super) fn without_budget(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (set_by, edges) in retried(facts, report, |_, retry| retry.budget.is_none()) {
        let names = names(facts, &edges);
        report
            .push(place(facts, set_by, &edges), format!("retries of {names} have no budget"))
            .say("may multiply the load when the callee fails")
            .fix("add `budget: 20%`: retries may then add a fifth of the traffic and no more");
    }
}

/// L006. A second execution of something that changes state may charge a card twice.
pub(super) fn not_idempotent(facts: &Facts<'_>, report: &mut Report<'_>) {
    let forced = |at: usize, retry: &Retry| {
        retry.non_idempotent
            && facts.graph.operation(facts.graph.edges[at].to).is_some_and(|it| !it.idempotent && it.writes)
    };
    for (set_by, edges) in retried(facts, report, forced) {
        let what = words::list(edges.iter().map(|at| facts.graph.node_name(facts.graph.edges[*at].to)));
        let operation = facts.graph.operation(facts.graph.edges[edges[0]].to);
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "{what} is not idempotent, and a failed \
                    attempt is repeated: it may happen twice"
                ),
            )
            .say("`non_idempotent: true` repeats it all the same")
            .fix(
                "make it idempotent (a key the callee remembers) and say `idempotent: true` on the \
                operation, or `retry: none` here",
            )
            .see(operation.map(|it| it.name.span), "declared here");
    }
    // Somebody asked for retries on this very edge and will not get them.
    let in_vain = |at: usize, retry: &Retry| {
        let on_purpose = facts
            .link(at)
            .set_by("retry")
            .and_then(|it| facts.rule_at.get(&it))
            .is_some_and(|rule| rule.to.is_some());
        on_purpose
            && !retry.non_idempotent
            && facts.graph.operation(facts.graph.edges[at].to).is_some_and(|it| !it.idempotent && it.writes)
    };
    let mut vain = retried(facts, report, in_vain).into_iter().collect::<Vec<_>>();
    // An entry for a whole service usually means its reads; only one that retries nothing but writes is a mistake.
    vain.retain(|(set_by, edges)| {
        let covered = facts.policed_edges().filter(|at| facts.link(*at).set_by("retry") == *set_by).count();
        covered == edges.len()
    });
    for (set_by, edges) in vain {
        let what = words::list(edges.iter().map(|at| facts.graph.node_name(facts.graph.edges[*at].to)));
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "a retry is asked for {what}, which is not \
                    idempotent: only attempts that never reached it are repeated"
                ),
            )
            .say("repeats less than it seems to")
            .fix(
                "say `idempotent: true` on the operation if a second execution is harmless, or \
                `retry: none` here",
            )
            .grade(Severity::Note);
    }
}

/// L028. A hedge sends a copy on purpose; an operation that must not run twice must not be hedged.
pub(super) fn hedge_not_idempotent(facts: &Facts<'_>, report: &mut Report<'_>) {
    let risky = |at: usize, hedge: &Hedge| {
        hedge.copies > 1 && facts.graph.operation(facts.graph.edges[at].to).is_some_and(|it| !it.idempotent)
    };
    for (set_by, edges) in hedged(facts, report, risky) {
        let what = words::list(edges.iter().map(|at| facts.graph.node_name(facts.graph.edges[*at].to)));
        report
            .push(
                place(facts, set_by, &edges),
                format!("{what} is hedged, but it is not idempotent: it may happen twice"),
            )
            .say("sends the same request again")
            .fix("say `hedge: none` for this operation, or make it idempotent and say so");
    }
}

/// L046. A copy that leaves when the caller has gone helps nobody.
pub(super) fn hedge_too_late(facts: &Facts<'_>, report: &mut Report<'_>) {
    let late = |at: usize, hedge: &Hedge| facts.timeout(at).0.is_some_and(|timeout| hedge.after >= timeout);
    for (set_by, edges) in hedged(facts, report, late) {
        let timeout = facts.timeout(edges[0]).0.unwrap_or_default();
        let after = facts.link(edges[0]).in_force.settings.hedge.map(|it| it.after).unwrap_or_default();
        let names = names(facts, &edges);
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "the hedge of {names} would leave after {after}, but the caller gives up after \
                    {timeout}"
                ),
            )
            .say("never sent")
            .fix("hedge after about the callee's p95, well below the timeout")
            .see(facts.timeout(edges[0]).1, "the timeout");
    }
}

fn hedged(
    facts: &Facts<'_>,
    report: &mut Report<'_>,
    risky: impl Fn(usize, &Hedge) -> bool,
) -> Groups<Option<Span>, usize> {
    let mut groups = Groups::new();
    for at in facts.policed_edges() {
        let edge = &facts.graph.edges[at];
        let Some(hedge) = &facts.link(at).in_force.settings.hedge else { continue };
        if risky(at, hedge) && !report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            groups.add(facts.link(at).set_by("hedge"), at);
        }
    }
    groups
}

/// L029. When one attempt may take as long as all, there is no second one.
pub(super) fn per_try_not_below_timeout(facts: &Facts<'_>, report: &mut Report<'_>) {
    let too_long = |at: usize, retry: &Retry| match (retry.per_try, facts.timeout(at).0) {
        (Some(per_try), Some(timeout)) => per_try >= timeout,
        _ => false,
    };
    for (set_by, edges) in retried(facts, report, too_long) {
        let timeout = facts.timeout(edges[0]).0.unwrap_or_default();
        let retry = facts.link(edges[0]).in_force.settings.retry.as_ref();
        let per_try = retry.and_then(|it| it.per_try).unwrap_or_default();
        let attempts = retry.map_or(2, |it| u64::from(it.attempts.max(1)));
        let names = names(facts, &edges);
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "one attempt at {names} may take {per_try}, and all of them together \
                    {timeout}: a slow first attempt leaves no time for a second"
                ),
            )
            .say(format!("`per_try` is not below the timeout of {timeout}"))
            .fix(format!(
                "set `per_try` to about {}",
                words::time(timeout.as_secs_f64() / attempts as f64 * 0.9)
            ))
            .see(facts.timeout(edges[0]).1, "the timeout, all attempts included");
    }
}

/// L030. The timeout covers all attempts, so when it strikes there is no time left to retry on it.
pub(super) fn on_timeout_too_late(facts: &Facts<'_>, report: &mut Report<'_>) {
    let late = |at: usize, retry: &Retry| {
        retry.on.timeout && retry.per_try.is_none() && facts.timeout(at).0.is_some()
    };
    for (set_by, edges) in retried(facts, report, late) {
        let names = names(facts, &edges);
        let timeout = facts.timeout(edges[0]).0.unwrap_or_default();
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "{names} retries on timeout, but the first \
                    attempt may use up all {timeout}: nothing is left for a second"
                ),
            )
            .say("no `per_try`")
            .fix("add `per_try`, shorter than the timeout divided by `attempts`")
            .see(facts.timeout(edges[0]).1, "the timeout, all attempts included");
    }
}

/// L039. Clients that failed at the same moment come back at the same moment, unless each waits its own time.
pub(super) fn without_jitter(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (set_by, edges) in retried(facts, report, |_, retry| retry.backoff.jitter == Jitter::None) {
        let names = names(facts, &edges);
        report
            .push(
                place(facts, set_by, &edges),
                format!(
                    "retries of {names} wait without jitter: callers that failed together come back \
                    together"
                ),
            )
            .say("`jitter: none`")
            .fix("say `jitter: full`, or leave it out: full is what is built in");
    }
}
