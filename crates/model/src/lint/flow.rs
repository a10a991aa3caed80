//! How many requests a second reach every operation and pass along every call at the declared traffic.
//!
//! Arithmetic, not simulation: nothing fails, nothing is retried, queues are empty. It answers "what is asked of
//! whom", which the capacity rules compare with what there is, the simulator can check itself against, and the map
//! can draw before anything runs. One pass over the calls, callers first; only inside a cycle it iterates.

use super::graph::{Edge, Graph, Node, Via, operation_for, segments, templates_may_agree};
use super::work::{Unloaded, miss_share};
use crate::system::{
    Action, Caller, GatewayId, Load, OperationId, PathMatch, Route, ServiceId, Shape, System, TrafficId,
};

/// Which moment of a load that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As the traffic begins.
    Start,
    /// The highest rate that lasts: the top of a ramp or a day, but the average over short bursts.
    Sustained,
    /// The highest rate of all.
    Peak,
}

/// Rounds of a cycle's iteration. Its rates shrink by the cycle's own gain each time, so this settles any cycle that
/// a running system could survive; one that still grows is reported in [`Flow::unbounded`].
const CYCLE_ROUNDS: usize = 64;

/// Requests a second, everywhere.
#[derive(Clone, Debug)]
pub struct Flow {
    /// By node.
    node: Vec<f64>,
    /// By node, from open loads only: users of a closed loop wait, so they cannot overload anybody for long.
    node_open: Vec<f64>,
    /// By edge of the graph.
    edge: Vec<f64>,
    /// By service.
    service: Vec<f64>,
    service_open: Vec<f64>,
    first_node: Vec<u32>,
    /// Traffic whose request no route of its gateway takes.
    pub unrouted: Vec<TrafficId>,
    /// Services in a cycle of calls in which every request makes at least one more.
    pub unbounded: Vec<ServiceId>,
    /// Some traffic is a recording, so the rates are a lower bound.
    pub has_recorded: bool,
}

impl Flow {
    pub fn of(system: &System, moment: Moment) -> Self {
        let graph = Graph::of(system);
        let order = super::Order::of(&graph);
        Self::over(&graph, &order, &Unloaded::of(&graph, &order), moment)
    }

    pub(super) fn over(graph: &Graph<'_>, order: &super::Order, unloaded: &Unloaded, moment: Moment) -> Self {
        let system = graph.system;
        let mut flow = Self {
            node: vec![0.0; graph.node_count()],
            node_open: vec![0.0; graph.node_count()],
            edge: vec![0.0; graph.edges.len()],
            service: vec![0.0; system.services.len()],
            service_open: vec![0.0; system.services.len()],
            first_node: system.services.ids().map(|id| graph.nodes_of(id).start).collect(),
            unrouted: Vec::new(),
            unbounded: Vec::new(),
            has_recorded: system.traffic.iter().any(|it| matches!(it.load, Load::Recorded { .. })),
        };
        flow.add_traffic(graph, unloaded, moment);
        flow.spread(graph, order);
        for node in graph.nodes() {
            let service = graph.service(node).index();
            flow.service[service] += flow.node[node.index()];
            flow.service_open[service] += flow.node_open[node.index()];
        }
        flow
    }

    pub fn service_rate(&self, service: ServiceId) -> f64 {
        self.service[service.index()]
    }

    pub fn service_rate_open(&self, service: ServiceId) -> f64 {
        self.service_open[service.index()]
    }

    pub fn operation_rate(&self, service: ServiceId, operation: OperationId) -> f64 {
        let node = self.first_node[service.index()] + operation.as_u32();
        self.node.get(node as usize).copied().unwrap_or(0.0)
    }

    pub fn node_rate(&self, node: Node) -> f64 {
        self.node[node.index()]
    }

    pub fn node_rate_open(&self, node: Node) -> f64 {
        self.node_open[node.index()]
    }

    /// Requests a second along each edge of [`Graph::edges`], in that order.
    pub fn edge_rates(&self) -> &[f64] {
        &self.edge
    }

    fn add_traffic(&mut self, graph: &Graph<'_>, unloaded: &Unloaded, moment: Moment) {
        for (id, traffic) in graph.system.traffic.enumerate() {
            let request = traffic.request.as_ref().map(|it| it.value.as_str());
            let arrives_at: Vec<(Node, f64, Option<usize>)> = match traffic.to.value {
                Caller::Service(service) => {
                    let operation = request.and_then(|it| operation_for(&graph.system.services[service], it));
                    vec![(graph.node(service, operation), 1.0, None)]
                }
                Caller::Gateway(gateway) => match through_gateway(graph, gateway, request.unwrap_or("GET /"))
                {
                    Some(found) => found,
                    None => {
                        self.unrouted.push(id);
                        continue;
                    }
                },
            };
            let response: f64 = arrives_at.iter().map(|(node, share, _)| share * unloaded.mean(*node)).sum();
            let (rate, open) = rate_of(&traffic.load, moment, response);
            for (node, share, edge) in arrives_at {
                self.node[node.index()] += rate * share;
                if open {
                    self.node_open[node.index()] += rate * share;
                }
                if let Some(edge) = edge {
                    self.edge[edge] += rate * share;
                }
            }
        }
    }

    /// From callers to callees, component by component.
    fn spread(&mut self, graph: &Graph<'_>, order: &super::Order) {
        let mut end = order.callees_first.len();
        while end > 0 {
            let component = order.component[order.callees_first[end - 1] as usize];
            let mut start = end;
            while start > 0 && order.component[order.callees_first[start - 1] as usize] == component {
                start -= 1;
            }
            let members = &order.callees_first[start..end];
            if members.len() > 1 || order.calls_itself(graph, Node(members[0])) {
                self.settle_cycle(graph, order, members);
            }
            for member in members {
                let from = Node(*member);
                for at in graph.edges_of(from) {
                    let edge = graph.edges[at];
                    let gain = self.gain(graph, &edge);
                    self.edge[at] = self.node[from.index()] * gain;
                    if order.component[edge.to.index()] != component {
                        self.node[edge.to.index()] += self.edge[at];
                        self.node_open[edge.to.index()] += self.node_open[from.index()] * gain;
                    }
                }
            }
            end = start;
        }
    }

    /// Rates inside a cycle: what comes from outside, plus what it sends itself, until that no longer grows.
    fn settle_cycle(&mut self, graph: &Graph<'_>, order: &super::Order, members: &[u32]) {
        let outside: Vec<(f64, f64)> =
            members.iter().map(|it| (self.node[*it as usize], self.node_open[*it as usize])).collect();
        let total: f64 = outside.iter().map(|it| it.0).sum();
        let mut adding = outside.clone();
        let at_of = |node: Node| members.binary_search(&node.0).ok();
        for round in 0.. {
            let mut next = vec![(0.0, 0.0); members.len()];
            for (at, member) in members.iter().enumerate() {
                for edge_at in graph.edges_of(Node(*member)) {
                    let edge = graph.edges[edge_at];
                    if order.component[edge.to.index()] != order.component[*member as usize] {
                        continue;
                    }
                    let Some(to) = at_of(edge.to) else { continue };
                    let gain = self.gain(graph, &edge);
                    next[to].0 += adding[at].0 * gain;
                    next[to].1 += adding[at].1 * gain;
                }
            }
            let growth: f64 = next.iter().map(|it| it.0).sum();
            if growth <= total * 1e-9 {
                break;
            }
            if round == CYCLE_ROUNDS {
                if growth > total * 1e-3 {
                    self.unbounded.extend(members.iter().map(|it| graph.service(Node(*it))));
                    self.unbounded.dedup();
                }
                break;
            }
            for (at, member) in members.iter().enumerate() {
                self.node[*member as usize] += next[at].0;
                self.node_open[*member as usize] += next[at].1;
            }
            adding = next;
        }
    }

    /// Calls along this edge for each run of its caller.
    fn gain(&self, graph: &Graph<'_>, edge: &Edge<'_>) -> f64 {
        let Some(from) = edge.from else { return 0.0 };
        match edge.via {
            Via::Fallback | Via::Route | Via::Mirror => 0.0,
            Via::Consume => 1.0,
            Via::Call => {
                let service = &graph.system.services[graph.service(from)];
                let rate = self.node[from.index()];
                edge.per_run() * graph.operation(from).map_or(1.0, |it| miss_share(service, it, rate))
            }
        }
    }
}

/// Requests a second, and whether they come whether or not earlier ones were answered.
fn rate_of(load: &Load, moment: Moment, response_seconds: f64) -> (f64, bool) {
    match load {
        Load::Open { rate, shape, .. } => {
            let start = rate.value.per_second();
            let rate = match (shape, moment) {
                (Shape::Steady, _) | (_, Moment::Start) => start,
                (Shape::Ramp { to, .. }, _) => start.max(to.per_second()),
                (Shape::Diurnal { peak, .. }, _) => start.max(peak.per_second()),
                (Shape::Burst { to, .. }, Moment::Peak) => start.max(to.per_second()),
                (Shape::Burst { to, lasting, every }, Moment::Sustained) => {
                    let share = (lasting.as_secs_f64() / every.as_secs_f64().max(1e-9)).min(1.0);
                    start + (to.per_second() - start) * share
                }
            };
            (rate, true)
        }
        Load::Closed { users, think } => {
            let cycle = think.mean_nanos() / 1e9 + response_seconds;
            (f64::from(users.value) / cycle.max(1e-6), false)
        }
        Load::Recorded { .. } => (0.0, true),
    }
}

/// Where a request line ends up: nodes with their shares and the route's edge. `None` when no route takes it.
fn through_gateway(
    graph: &Graph<'_>,
    gateway: GatewayId,
    request: &str,
) -> Option<Vec<(Node, f64, Option<usize>)>> {
    let route = graph.system.gateways[gateway].routes.iter().find(|it| takes(it, request))?;
    let Action::To(targets) = &route.action else { return Some(Vec::new()) };
    let total: f64 = targets.iter().map(|it| f64::from(it.weight)).sum();
    let rewritten = rewritten(route, request);
    let arrivals = targets.iter().filter(|it| it.weight > 0).map(|target| {
        let callee = target.service.value;
        let operation = operation_for(&graph.system.services[callee], &rewritten);
        let node = graph.node(callee, operation);
        let edge = graph.edges_of_gateway(gateway).find(|at| {
            let edge = &graph.edges[*at];
            edge.via == Via::Route && edge.to == node && edge.route.is_some_and(|it| std::ptr::eq(it, route))
        });
        (node, f64::from(target.weight) / total.max(1.0), edge)
    });
    let mut found: Vec<_> = arrivals.collect();
    if let Some((service, share)) = route.mirror {
        let node = graph.node(service, operation_for(&graph.system.services[service], &rewritten));
        found.push((node, share.fraction(), None));
    }
    Some(found)
}

/// Whether a plain request, without special headers or cookies, takes this route.
fn takes(route: &Route, request: &str) -> bool {
    if !route.headers.is_empty() || !route.query.is_empty() || !route.cookies.is_empty() {
        return false;
    }
    let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
    let method_fits =
        route.methods.is_empty() || route.methods.iter().any(|it| it.eq_ignore_ascii_case(method));
    method_fits
        && match &route.path {
            PathMatch::Prefix(prefix) => {
                segments(prefix).enumerate().all(|(at, it)| segments(path).nth(at) == Some(it))
            }
            PathMatch::Exact(exact) => exact == path.split('?').next().unwrap_or(""),
            PathMatch::Template(template) => templates_may_agree(template, path),
            PathMatch::Regex(pattern) => regex::Regex::new(&format!("^(?:{pattern})$"))
                .is_ok_and(|it| it.is_match(path.split('?').next().unwrap_or(""))),
        }
}

fn rewritten(route: &Route, request: &str) -> String {
    let (Some(rewrite), Some((method, path))) = (&route.rewrite, request.split_once(' ')) else {
        return request.to_string();
    };
    let rest = match &route.path {
        PathMatch::Prefix(prefix) => path.get(prefix.trim_end_matches('/').len()..).unwrap_or(""),
        PathMatch::Exact(_) | PathMatch::Template(_) | PathMatch::Regex(_) => "",
    };
    format!("{method} {}{rest}", rewrite.trim_end_matches('/'))
}
