//! Lints: what the file allows and people regret.
//!
//! In: a [`System`] that has no mistakes, and today's date. Out: its risks, most of them found in outages that other
//! people have already had. A rule is a small function in a file of its theme, a row of [`RULES`], a page in
//! `docs/lints` and two files in `tests/lints` (one that it finds, one that it must leave alone).
//!
//! What keeps them worth reading:
//! - **One cause, one finding.** A missing `edges.default` is one line, however many calls it touches: findings about
//!   the same written value are told together.
//! - **No guesses.** A rule that lacks a number (a rate, a time) says nothing.
//! - **Linear.** A hundred thousand calls are checked in a fraction of a second; no rule compares all pairs.
//!
//! It refuses to judge what cannot run at all: that is `check`'s part, and it comes first.

mod capacity;
mod data;
pub mod flow;
mod gateways;
pub mod graph;
mod health;
mod objectives;
mod ownership;
mod place;
mod redundancy;
mod report;
mod retries;
mod structure;
#[cfg(test)]
mod tests;
mod timeouts;
mod versions;
mod waivers;
mod words;
mod work;

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use crate::system::{Caller, EdgeOverrides, EdgeRule, InForce, OperationId, ServiceId, System};
use graph::{Edge, Graph, Node};
use report::Report;
use std::collections::HashMap;
use units::Nanos;

/// One rule about risk.
#[derive(Debug)]
pub struct Rule {
    /// Never reused and never renumbered: waivers name it.
    pub code: &'static str,
    pub name: &'static str,
    /// The gravest it reports.
    pub severity: Severity,
    /// What it finds, in a line.
    pub summary: &'static str,
    /// Its page, from the root of the repository.
    pub docs: &'static str,
    check: fn(&Facts<'_>, &mut Report<'_>),
}

macro_rules! rules {
    ($($code:literal $name:literal $severity:ident $check:path, $summary:literal;)*) => {
        /// Every rule, in the order of its code.
        pub static RULES: &[Rule] = &[$(Rule {
            code: $code,
            name: $name,
            severity: Severity::$severity,
            summary: $summary,
            docs: concat!("docs/lints/", $code, ".md"),
            check: $check,
        }),*];
    };
}

rules! {
    "L001" "timeout-inversion" Warning timeouts::inversion, "a caller gives up before what it waits for can";
    "L002" "no-timeout" Warning timeouts::missing, "a call may wait for ever";
    "L003" "timeout-below-p99" Warning timeouts::below_p99, "a timeout is shorter than the callee's own work";
    "L004" "retries-multiply" Warning retries::multiply, "retries along a path multiply to more than 3 attempts";
    "L005" "retry-without-budget" Warning retries::without_budget, "retries may add any amount of load";
    "L006" "retry-not-idempotent" Warning retries::not_idempotent, "an operation that must not run twice is retried";
    "L007" "one-replica" Warning redundancy::one_replica, "one instance: every restart is an outage";
    "L008" "one-zone" Warning redundancy::one_zone, "all instances stand in one zone";
    "L009" "zone-loss-overload" Warning capacity::zone_loss, "the instances left after a zone is lost cannot carry the traffic";
    "L010" "slo-above-dependencies" Warning objectives::above_dependencies, "an availability target is higher than its hard dependencies allow";
    "L011" "deep-chain" Warning structure::deep_chain, "more than 5 calls wait for each other in a row";
    "L012" "call-cycle" Warning structure::cycle, "services wait for each other in a circle";
    "L013" "fan-out" Warning structure::fan_out, "one request makes more than 50 calls";
    "L014" "optional-unguarded" Warning structure::optional_unguarded, "an optional call has no fallback or no timeout";
    "L015" "two-writers" Warning data::two_writers, "several services write one store";
    "L016" "store-of-several-teams" Warning data::several_teams, "several teams use one store";
    "L017" "unreachable" Warning structure::unreachable, "no traffic can reach a service";
    "L018" "no-health-check" Warning health::no_check, "nothing notices when an instance stops working";
    "L019" "unbounded-queue" Warning capacity::unbounded_queue, "a queue may grow without end";
    "L020" "breaker-never-trips" Warning capacity::breaker_never_trips, "a breaker asks for more requests than there are";
    "L021" "over-capacity" Error capacity::over_capacity, "the declared traffic is more than the instances can do";
    "L022" "version-nobody-serves" Warning versions::nobody_serves, "a pinned version has no instances";
    "L023" "route-shadowed" Warning gateways::shadowed, "an earlier route takes everything this one matches";
    "L024" "team-owns-too-much" Note ownership::too_much, "a team owns more services than it can know";
    "L025" "lockstep-release" Warning versions::lockstep, "every call pins the same version, so all must be released at once";
    "L026" "no-owner" Warning ownership::no_owner, "nobody owns a service";
    "L027" "owner-without-contact" Warning ownership::without_contact, "a team cannot be reached";
    "L028" "hedge-not-idempotent" Warning retries::hedge_not_idempotent, "an operation that must not run twice is sent twice";
    "L029" "per-try-not-below-timeout" Warning retries::per_try_not_below_timeout, "one attempt may use up the whole timeout";
    "L030" "retry-on-timeout-too-late" Warning retries::on_timeout_too_late, "retries on timeout that can never be sent";
    "L031" "slo-latency-below-work" Warning objectives::latency_below_work, "a latency target is shorter than the work it waits for";
    "L032" "eject-with-one-instance" Note redundancy::eject_with_one, "ejection where there is nothing to eject to";
    "L033" "locality-gap" Warning redundancy::locality_gap, "callers that may not leave their place have no callee in it";
    "L034" "quorum-lost-with-zone" Warning data::quorum_lost_with_zone, "losing one zone loses a store's quorum";
    "L035" "copies-exceed-instances" Warning data::copies_exceed_instances, "a store has fewer instances than copies";
    "L036" "cache-miss-storm" Warning capacity::miss_storm, "what is behind a cache cannot carry the load while it is cold";
    "L037" "rate-limit-below-traffic" Warning capacity::rate_limit_below_traffic, "a rate limit refuses part of the declared traffic";
    "L038" "sheddable-hard-dependency" Warning objectives::sheddable_dependency, "work that must not fail waits for work that is dropped first";
    "L039" "backoff-without-jitter" Warning retries::without_jitter, "clients that failed together retry together";
    "L040" "cross-region-call" Note redundancy::cross_region, "a call must leave its region every time";
    "L041" "waiver-expired" Warning waivers::expired, "a risk was accepted until a day that has passed";
    "L042" "waiver-waives-nothing" Warning waivers::nothing, "a waiver matches no finding";
    "L043" "topic-without-consumers" Warning data::without_consumers, "messages that nobody reads";
    "L044" "idle-consumers" Note data::idle_consumers, "more consumers than partitions";
    "L045" "traffic-without-route" Warning gateways::without_route, "declared traffic that no route takes";
    "L046" "hedge-too-late" Warning retries::hedge_too_late, "a hedge that is sent when the caller has given up";
    "L047" "scenario-expects-nothing" Note objectives::scenario_expects_nothing, "a scenario that cannot fail";
    "L048" "health-check-overlaps" Note health::overlaps, "a health check may take longer than the time between two";
    "L049" "quorum-across-regions" Warning data::quorum_across_regions, "a store's majority is in another region";
}

const ABOUT_WAIVERS: [&str; 2] = ["L041", "L042"];

/// The rule of this code.
pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|it| it.code == code)
}

/// Every risk in the system that nobody accepted, in the order of the file. `today` is year, month, day.
pub fn run(system: &System, today: (u16, u8, u8)) -> Vec<Diagnostic> {
    let facts = Facts::of(system);
    let mut report = Report::new(system, today);
    // What is said about waivers depends on what every other rule has asked.
    let (about_waivers, about_risks): (Vec<_>, Vec<_>) =
        RULES.iter().partition(|it| ABOUT_WAIVERS.contains(&it.code));
    for rule in about_risks.into_iter().chain(about_waivers) {
        report.begin(rule);
        (rule.check)(&facts, &mut report);
    }
    report.finish()
}

/// An order of the nodes in which every callee comes before its callers, cycles aside.
#[derive(Debug)]
pub(crate) struct Order {
    /// Two nodes of one component are on a cycle.
    component: Vec<u32>,
    callees_first: Vec<u32>,
}

impl Order {
    /// Over every edge that an operation makes.
    fn of(graph: &Graph<'_>) -> Self {
        Self::over(graph, |_| true)
    }

    /// Over the edges that are waited for.
    fn waiting(graph: &Graph<'_>) -> Self {
        Self::over(graph, |edge| edge.waits())
    }

    fn over(graph: &Graph<'_>, counts: impl Fn(&Edge<'_>) -> bool) -> Self {
        let (component, components) = graph::components(graph.node_count(), |node, at| {
            let range = graph.edges_of(Node(node));
            let edge = graph.edges[range].get(at)?;
            // An edge from a node to itself changes nothing, so it stands in for those that do not count.
            Some(if counts(edge) { edge.to.0 } else { node })
        });
        let callees_first = graph::callees_first(graph.node_count(), &component, components);
        Self { component, callees_first }
    }

    fn calls_itself(&self, graph: &Graph<'_>, node: Node) -> bool {
        graph.edges[graph.edges_of(node)].iter().any(|it| it.to == node)
    }

    fn same_cycle(&self, a: Node, b: Node) -> bool {
        self.component[a.index()] == self.component[b.index()]
    }
}

/// The policy of one distinct edge, looked up once.
#[derive(Debug)]
pub(crate) struct Link {
    caller: Caller,
    callee: ServiceId,
    in_force: InForce,
}

impl Link {
    fn set_by(&self, part: &str) -> Option<Span> {
        self.in_force.set_by.get(part).copied()
    }
}

/// What the rules have in common, worked out once.
#[derive(Debug)]
pub(crate) struct Facts<'s> {
    system: &'s System,
    graph: Graph<'s>,
    waiting: Order,
    unloaded: work::Unloaded,
    flow: flow::Flow,
    links: Vec<Link>,
    /// By edge of the graph, an index into `links`.
    link_of_edge: Vec<u32>,
    /// The entry of `edges` in which a setting at this place is written.
    rule_at: HashMap<Span, &'s EdgeRule>,
}

impl<'s> Facts<'s> {
    fn of(system: &'s System) -> Self {
        let graph = Graph::of(system);
        let waiting = Order::waiting(&graph);
        let unloaded = work::Unloaded::of(&graph, &waiting);
        let flow = flow::Flow::over(&graph, &Order::of(&graph), &unloaded, flow::Moment::Sustained);
        let mut links = Vec::new();
        let mut link_of_edge = Vec::with_capacity(graph.edges.len());
        let mut known: HashMap<(Caller, ServiceId, Option<OperationId>), u32> = HashMap::new();
        for edge in &graph.edges {
            let key = (edge.caller, edge.callee, edge.operation);
            let link = *known.entry(key).or_insert_with(|| {
                links.push(Link {
                    caller: edge.caller,
                    callee: edge.callee,
                    in_force: system.policy(edge.caller, edge.callee, edge.operation),
                });
                links.len() as u32 - 1
            });
            link_of_edge.push(link);
        }
        let mut rule_at = HashMap::new();
        for rule in &system.edges.rules {
            for span in setting_spans(&rule.set) {
                rule_at.insert(span, rule);
            }
        }
        Self { system, graph, waiting, unloaded, flow, links, link_of_edge, rule_at }
    }

    fn link(&self, edge: usize) -> &Link {
        &self.links[self.link_of_edge[edge] as usize]
    }

    /// How long this edge's caller waits, and where that is written. A route's own timeout wins.
    fn timeout(&self, edge: usize) -> (Option<Nanos>, Option<Span>) {
        if let Some(timeout) = self.graph.edges[edge].route.and_then(|it| it.timeout.as_ref()) {
            return (Some(timeout.value), Some(timeout.span));
        }
        let link = self.link(edge);
        (link.in_force.settings.timeout, link.set_by("timeout"))
    }

    /// `web -> cart`.
    fn edge_name(&self, edge: usize) -> String {
        let edge = &self.graph.edges[edge];
        self.pair_name(edge.caller, edge.callee)
    }

    fn pair_name(&self, caller: Caller, callee: ServiceId) -> String {
        format!("{} -> {}", self.graph.caller_name(caller), self.name(callee))
    }

    fn name(&self, service: ServiceId) -> &'s str {
        &self.system.services[service].name.value
    }

    /// Edges that are policy's business: calls, fallbacks and routes, but not the hand-over of messages.
    fn policed_edges(&self) -> impl Iterator<Item = usize> + '_ {
        self.graph.edges.iter().enumerate().filter(|(_, it)| it.via != graph::Via::Consume).map(|(at, _)| at)
    }
}

/// Where an entry of `edges` says each of the things it says.
fn setting_spans(set: &EdgeOverrides) -> impl Iterator<Item = Span> {
    let EdgeOverrides {
        timeout,
        retry,
        hedge,
        breaker,
        eject,
        balance,
        locality,
        concurrency,
        rate_limit,
        throttle,
        priority,
        connections,
        hash,
    } = set;
    [
        timeout.as_ref().map(|it| it.span),
        retry.as_ref().map(|it| it.span),
        hedge.as_ref().map(|it| it.span),
        breaker.as_ref().map(|it| it.span),
        eject.as_ref().map(|it| it.span),
        balance.as_ref().map(|it| it.span),
        locality.as_ref().map(|it| it.span),
        concurrency.as_ref().map(|it| it.span),
        rate_limit.as_ref().map(|it| it.span),
        throttle.as_ref().map(|it| it.span),
        priority.as_ref().map(|it| it.span),
        connections.as_ref().map(|it| it.span),
        hash.as_ref().map(|it| it.span),
    ]
    .into_iter()
    .flatten()
}
