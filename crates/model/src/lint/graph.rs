//! Who calls whom, operation by operation: the one shape that every rule about calls walks over.
//!
//! A node is an operation of a service (a service without operations is one node). Everything is an index into a
//! flat vector and a node's calls lie side by side, because a large file has a hundred thousand calls and the rules
//! pass over them many times. Nothing here recurses over the graph: a chain of ten thousand services is legal.

use crate::system::{
    Action, Call, Caller, Fallback, GatewayId, Operation, OperationId, PathMatch, Route, Service, ServiceId,
    Step, System,
};
use std::ops::Range;

/// An operation of a service, counted over the whole system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);

impl Node {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why one node reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A call written in an operation's script.
    Call,
    /// Asked only when the call it stands in for has failed.
    Fallback,
    /// A gateway's route.
    Route,
    /// A copy of a route's traffic; nobody waits for it.
    Mirror,
    /// A message handed on by a queue.
    Consume,
}

/// One way from a caller to an operation.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'s> {
    pub caller: Caller,
    /// The calling operation; gateways have none.
    pub from: Option<Node>,
    pub callee: ServiceId,
    pub operation: Option<OperationId>,
    pub to: Node,
    pub via: Via,
    /// As written, when it was written as a call.
    pub call: Option<&'s Call>,
    /// As written, when it is a gateway's.
    pub route: Option<&'s Route>,
    pub span: crate::span::Span,
}

impl Edge<'_> {
    /// The caller waits for the answer: it is as slow as its callee.
    pub fn waits(&self) -> bool {
        match self.via {
            Via::Call => self.call.is_some_and(|call| !call.detached),
            Via::Route | Via::Fallback => true,
            Via::Mirror | Via::Consume => false,
        }
    }

    /// The caller fails when this fails.
    pub fn hard(&self) -> bool {
        match self.call {
            Some(call) => {
                self.via == Via::Call
                    && !call.detached
                    && !call.optional
                    && call.fallback.is_none()
                    && !call.chance.fraction().eq(&0.0)
            }
            None => self.via == Via::Route,
        }
    }

    /// Calls for each run of the caller, on average.
    pub fn per_run(&self) -> f64 {
        self.call.map_or(1.0, |call| call.chance.fraction() * f64::from(call.times))
    }
}

#[derive(Debug)]
pub struct Graph<'s> {
    pub system: &'s System,
    /// Grouped by caller: first every node's calls in node order, then every gateway's.
    pub edges: Vec<Edge<'s>>,
    /// The first node of each service, and one past the last node of the last.
    first_node: Vec<u32>,
    service_of: Vec<ServiceId>,
    /// Where each node's edges begin, and the end of the last.
    first_edge: Vec<u32>,
    gateway_edges: Vec<Range<usize>>,
}

impl<'s> Graph<'s> {
    pub fn of(system: &'s System) -> Self {
        let mut first_node = Vec::with_capacity(system.services.len() + 1);
        let mut service_of = Vec::new();
        for (id, service) in system.services.enumerate() {
            first_node.push(service_of.len() as u32);
            service_of.extend(std::iter::repeat_n(id, service.operations.len().max(1)));
        }
        first_node.push(service_of.len() as u32);
        let mut graph = Self {
            system,
            edges: Vec::new(),
            first_node,
            service_of,
            first_edge: Vec::new(),
            gateway_edges: Vec::new(),
        };
        for node in 0..graph.service_of.len() {
            graph.first_edge.push(graph.edges.len() as u32);
            graph.add_calls_of(Node(node as u32));
        }
        graph.first_edge.push(graph.edges.len() as u32);
        for (id, gateway) in system.gateways.enumerate() {
            let start = graph.edges.len();
            for route in &gateway.routes {
                graph.add_route(id, route);
            }
            graph.gateway_edges.push(start..graph.edges.len());
        }
        graph
    }

    fn add_calls_of(&mut self, node: Node) {
        let system = self.system;
        let service_id = self.service(node);
        if let Some(operation) = self.operation(node) {
            for_each_call(&operation.calls, &mut |call| self.add_call(service_id, node, call));
        }
        if let Some(topic) = &system.services[service_id].topic
            && takes_messages(system, service_id, self.operation(node))
        {
            for (consumer, operation) in &topic.consumers {
                let operation = operation.map(|it| it.value);
                self.edges.push(Edge {
                    caller: Caller::Service(service_id),
                    from: Some(node),
                    callee: consumer.value,
                    operation,
                    to: self.node(consumer.value, operation),
                    via: Via::Consume,
                    call: None,
                    route: None,
                    span: consumer.span,
                });
            }
        }
    }

    fn add_call(&mut self, caller: ServiceId, from: Node, call: &'s Call) {
        let operation = call.operation.map(|it| it.value);
        let edge = Edge {
            caller: Caller::Service(caller),
            from: Some(from),
            callee: call.service.value,
            operation,
            to: self.node(call.service.value, operation),
            via: Via::Call,
            call: Some(call),
            route: None,
            span: call.span,
        };
        self.edges.push(edge);
        if let Some(Fallback::Call(instead)) = call.fallback {
            let to = self.node(instead, None);
            self.edges.push(Edge { callee: instead, operation: None, to, via: Via::Fallback, ..edge });
        }
    }

    fn add_route(&mut self, gateway: GatewayId, route: &'s Route) {
        let Action::To(targets) = &route.action else { return };
        let mirror = route.mirror.map(|(service, _)| (service, Via::Mirror, route.span));
        let targets = targets.iter().map(|target| (target.service.value, Via::Route, target.service.span));
        for (callee, via, span) in targets.chain(mirror) {
            for operation in operations_behind(route, &self.system.services[callee]) {
                self.edges.push(Edge {
                    caller: Caller::Gateway(gateway),
                    from: None,
                    callee,
                    operation,
                    to: self.node(callee, operation),
                    via,
                    call: None,
                    route: Some(route),
                    span,
                });
            }
        }
    }

    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = Node> + use<> {
        (0..self.service_of.len() as u32).map(Node)
    }

    pub fn node_count(&self) -> usize {
        self.service_of.len()
    }

    pub fn service(&self, node: Node) -> ServiceId {
        self.service_of[node.index()]
    }

    /// `None` for the one node of a service that says nothing of operations.
    pub fn operation(&self, node: Node) -> Option<&'s Operation> {
        let service = self.service(node);
        self.system.services[service].operations.get(self.operation_id(node))
    }

    fn operation_id(&self, node: Node) -> OperationId {
        OperationId::new(node.0 - self.first_node[self.service(node).index()])
    }

    /// The node a call of `operation` lands on; a call that names none lands on the first.
    pub fn node(&self, service: ServiceId, operation: Option<OperationId>) -> Node {
        let range = self.nodes_of(service);
        Node((range.start + operation.map_or(0, OperationId::as_u32)).min(range.end - 1))
    }

    pub fn nodes_of(&self, service: ServiceId) -> Range<u32> {
        self.first_node[service.index()]..self.first_node[service.index() + 1]
    }

    pub fn edges_of(&self, node: Node) -> Range<usize> {
        self.first_edge[node.index()] as usize..self.first_edge[node.index() + 1] as usize
    }

    pub fn edges_of_gateway(&self, gateway: GatewayId) -> Range<usize> {
        self.gateway_edges[gateway.index()].clone()
    }

    /// `web` or `web "GET /"`, as a call would name it.
    pub fn node_name(&self, node: Node) -> String {
        let service = &self.system.services[self.service(node)].name.value;
        match self.operation(node) {
            Some(operation) => format!("{service} \"{}\"", operation.name.value),
            None => service.clone(),
        }
    }

    pub fn caller_name(&self, caller: Caller) -> &'s str {
        caller_name(self.system, caller)
    }
}

pub fn caller_name(system: &System, caller: Caller) -> &str {
    match caller {
        Caller::Service(id) => &system.services[id].name.value,
        Caller::Gateway(id) => &system.gateways[id].name.value,
    }
}

/// Calls in the order they are written, nested ones included.
pub fn for_each_call<'s>(steps: &'s [Step], each: &mut impl FnMut(&'s Call)) {
    for step in steps {
        match step {
            Step::Call(call) => each(call),
            Step::All(steps) => for_each_call(steps, each),
            Step::Work(_) => {}
        }
    }
}

/// Whether running this operation of a queue puts a message in it: those that write, or all when none says so.
fn takes_messages(system: &System, queue: ServiceId, operation: Option<&Operation>) -> bool {
    let any_writes = system.services[queue].operations.iter().any(|it| it.writes);
    !any_writes || operation.is_none_or(|it| it.writes)
}

/// The operations a route can lead to: those it matches, or the service as a whole when it has none that look like
/// requests.
fn operations_behind(route: &Route, service: &Service) -> Vec<Option<OperationId>> {
    if service.operations.is_empty() {
        return vec![None];
    }
    let requests = service.operations.enumerate().filter_map(|(id, operation)| {
        let (method, path) = operation.name.value.split_once(' ')?;
        let method_fits =
            route.methods.is_empty() || route.methods.iter().any(|it| it.eq_ignore_ascii_case(method));
        let fits = method_fits && path_may_match(route, path);
        fits.then_some(Some(id))
    });
    let found: Vec<_> = requests.collect();
    let spoken_in_requests = service.operations.iter().any(|it| it.name.value.contains(" /"));
    if found.is_empty() && !spoken_in_requests {
        return service.operations.ids().map(Some).collect();
    }
    found
}

/// Whether some request for `template` takes this route. A rewrite changes the path, so then anything may.
fn path_may_match(route: &Route, template: &str) -> bool {
    if route.rewrite.is_some() {
        return true;
    }
    match &route.path {
        PathMatch::Prefix(prefix) => segments(prefix).enumerate().all(|(at, segment)| {
            segments(template).nth(at).is_some_and(|it| segments_may_agree(segment, it))
        }),
        PathMatch::Exact(path) | PathMatch::Template(path) => templates_may_agree(path, template),
        // A regular expression is the author's business; the services it names are what matters here.
        PathMatch::Regex(_) => true,
    }
}

pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('?').next().unwrap_or("").split('/').filter(|it| !it.is_empty())
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

fn segments_may_agree(a: &str, b: &str) -> bool {
    a == b || is_parameter(a) || is_parameter(b)
}

pub fn templates_may_agree(a: &str, b: &str) -> bool {
    segments(a).count() == segments(b).count()
        && segments(a).zip(segments(b)).all(|(a, b)| segments_may_agree(a, b))
}

/// The operation of `service` that a request line asks for: the one with the same name, else the one whose template
/// fits with the fewest parameters.
pub fn operation_for(service: &Service, request: &str) -> Option<OperationId> {
    let by_name = service.operations.enumerate().find(|(_, it)| it.name.value == request);
    if let Some((id, _)) = by_name {
        return Some(id);
    }
    let (method, path) = request.split_once(' ')?;
    service
        .operations
        .enumerate()
        .filter_map(|(id, operation)| {
            let (its_method, template) = operation.name.value.split_once(' ')?;
            let fits = its_method.eq_ignore_ascii_case(method) && templates_may_agree(path, template);
            fits.then(|| (segments(template).filter(|it| is_parameter(it)).count(), id))
        })
        .min()
        .map(|(_, id)| id)
}

/// Strongly connected components of a graph given as adjacency ranges: for each node its component, numbered so that
/// a component's successors have smaller numbers, and how many there are. Tarjan's algorithm with its own stack.
pub fn components(node_count: usize, successors: impl Fn(u32, usize) -> Option<u32>) -> (Vec<u32>, u32) {
    const UNSEEN: u32 = u32::MAX;
    let mut order = vec![UNSEEN; node_count];
    let mut low = vec![0u32; node_count];
    let mut component = vec![UNSEEN; node_count];
    let (mut next_order, mut next_component) = (0u32, 0u32);
    let (mut open, mut frames): (Vec<u32>, Vec<(u32, usize)>) = (Vec::new(), Vec::new());
    for root in 0..node_count as u32 {
        if order[root as usize] != UNSEEN {
            continue;
        }
        frames.push((root, 0));
        while let Some((node, at)) = frames.last_mut() {
            let here = *node as usize;
            if *at == 0 && order[here] == UNSEEN {
                order[here] = next_order;
                low[here] = next_order;
                next_order += 1;
                open.push(*node);
            }
            match successors(*node, *at) {
                Some(next) => {
                    *at += 1;
                    if order[next as usize] == UNSEEN {
                        frames.push((next, 0));
                    } else if component[next as usize] == UNSEEN {
                        low[here] = low[here].min(order[next as usize]);
                    }
                }
                None => {
                    let node = *node;
                    frames.pop();
                    if let Some((parent, _)) = frames.last() {
                        low[*parent as usize] = low[*parent as usize].min(low[here]);
                    }
                    if low[here] == order[here] {
                        while let Some(member) = open.pop() {
                            component[member as usize] = next_component;
                            if member == node {
                                break;
                            }
                        }
                        next_component += 1;
                    }
                }
            }
        }
    }
    (component, next_component)
}

/// Node indices so that every component comes after the components it leads to, and the component of each.
pub fn callees_first(node_count: usize, component: &[u32], components: u32) -> Vec<u32> {
    let mut starts = vec![0u32; components as usize + 1];
    for it in component {
        starts[*it as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut order = vec![0u32; node_count];
    for (node, it) in component.iter().enumerate() {
        let slot = &mut starts[*it as usize];
        order[*slot as usize] = node as u32;
        *slot += 1;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_components(edges: &[&[u32]], expected: &[&[u32]]) {
        let (component, count) = components(edges.len(), |node, at| edges[node as usize].get(at).copied());
        let mut found = vec![Vec::new(); count as usize];
        for (node, it) in component.iter().enumerate() {
            found[*it as usize].push(node as u32);
        }
        assert_eq!(found, expected, "{edges:?}");
        for (node, successors) in edges.iter().enumerate() {
            for next in *successors {
                assert!(component[*next as usize] <= component[node], "callees come first: {edges:?}");
            }
        }
    }

    #[test]
    fn components_are_found_callees_first() {
        check_components(&[&[1], &[2], &[]], &[&[2], &[1], &[0]]);
        check_components(&[&[1], &[2], &[0]], &[&[0, 1, 2]]);
        check_components(&[&[1, 3], &[2], &[1], &[]], &[&[1, 2], &[3], &[0]]);
        check_components(&[&[0], &[]], &[&[0], &[1]]);
        check_components(&[&[], &[0], &[1, 0]], &[&[0], &[1], &[2]]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_does_not_recurse() {
        let (_, count) = components(100_000, |node, at| (at == 0 && node + 1 < 100_000).then_some(node + 1));
        assert_eq!(count, 100_000);
    }

    #[test]
    fn templates_agree_segment_by_segment() {
        for (a, b, expected) in [
            ("/cart/{id}", "/cart/42", true),
            ("/cart/{id}", "/cart/{key}", true),
            ("/cart", "/cart/42", false),
            ("/", "/", true),
            ("/a?x=1", "/a", true),
            ("/a/b", "/a/c", false),
        ] {
            assert_eq!(templates_may_agree(a, b), expected, "{a} {b}");
        }
    }
}
