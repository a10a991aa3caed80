//! From reports to a tree: clean a trace's spans, then find who is whose child.
//!
//! Reports arrive late, twice, in pieces, with two lengths of trace id and sometimes with one span id for both sides of
//! a call. The rules here are Zipkin's, because dependency links must come out equal to the reference's; the waterfall
//! uses the same tree, so that a picture and a number never disagree.
//!
//! Loops cannot be reached from a root. Links leave them out, as the reference does; [`Tree::depth_first`] appends them
//! under the root, because a person must see every span that was reported.

use crate::ids::{SpanId, TraceId};
use crate::span::{Endpoint, Span, SpanKind};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Merges what was sent in pieces and repairs what is known to be left out.
pub fn clean(mut spans: Vec<Span>) -> Vec<Span> {
    if spans.len() <= 1 {
        return spans;
    }
    spans.sort_by(cleaning_order);
    let wide = |span: &Span| span.trace_id.get() >> 64 != 0;
    // With no 128-bit id at all, the last one: they are the same anyway unless two traces were mixed.
    let trace_id = spans.iter().find(|span| wide(span)).or(spans.last()).map(|span| span.trace_id);
    let mut cleaned: Vec<Span> = Vec::with_capacity(spans.len());
    let mut reports = spans.into_iter().peekable();
    while let Some(mut span) = reports.next() {
        let mut endpoint = span.local.clone();
        while let Some(next) = reports.next_if(|next| {
            next.id == span.id && next.shared == span.shared && agree(&mut endpoint, &next.local)
        }) {
            merge(&mut span, next);
        }
        if let Some(last) = cleaned.last().filter(|last| last.id == span.id) {
            if last.kind == Some(SpanKind::Client) && span.kind == Some(SpanKind::Server) {
                span.shared = true;
            }
            if span.shared && span.parent.is_none() {
                span.parent = last.parent;
            }
        }
        span.trace_id = trace_id.unwrap_or(span.trace_id);
        cleaned.push(span);
    }
    cleaned
}

/// By id; then what is not shared; of that, clients; then by endpoint, the absent first.
fn cleaning_order(left: &Span, right: &Span) -> Ordering {
    let side = |span: &Span| match (span.shared, span.kind) {
        (true, _) => 2,
        (false, Some(SpanKind::Client)) => 0,
        (false, _) => 1,
    };
    let place = |span: &Span| {
        let known = !span.local.is_empty();
        let ip = (span.local.ipv4.map(|ip| ip.to_string()), span.local.ipv6.map(|ip| ip.to_string()));
        (known, span.local.service.clone(), ip)
    };
    (left.id, side(left)).cmp(&(right.id, side(right))).then_with(|| {
        // Most ids are unique, so this is rarely reached.
        place(left).cmp(&place(right))
    })
}

/// Whether two reports of an endpoint may be of one; if so, what they know together stays in `known`.
fn agree(known: &mut Endpoint, more: &Endpoint) -> bool {
    fn clash<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }
    let port = |endpoint: &Endpoint| (endpoint.port != 0).then_some(endpoint.port);
    if clash(known.service(), more.service())
        || clash(known.ipv4, more.ipv4)
        || clash(known.ipv6, more.ipv6)
        || clash(port(known), port(more))
    {
        return false;
    }
    fill(known, more);
    true
}

fn fill(known: &mut Endpoint, more: &Endpoint) {
    if known.service.is_empty() {
        known.service = more.service.clone();
    }
    known.ipv4 = known.ipv4.or(more.ipv4);
    known.ipv6 = known.ipv6.or(more.ipv6);
    if known.port == 0 {
        known.port = more.port;
    }
}

fn merge(span: &mut Span, more: Span) {
    span.parent = span.parent.or(more.parent);
    span.kind = span.kind.or(more.kind);
    if span.name.is_empty() {
        span.name = more.name;
    }
    span.start = span.start.or(more.start);
    span.duration = span.duration.or(more.duration);
    fill(&mut span.local, &more.local);
    fill(&mut span.remote, &more.remote);
    span.annotations.extend(more.annotations);
    span.tags.extend(more.tags);
    span.debug |= more.debug;
    span.shared |= more.shared;
    span.normalise();
}

/// A node's place in [`Tree::nodes`].
pub type NodeIndex = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Absent for the root made up when a trace has none.
    pub span: Option<usize>,
    pub parent: Option<NodeIndex>,
    pub children: Vec<NodeIndex>,
}

/// A trace's cleaned spans and their tree. Node 0 is the root.
#[derive(Clone, Debug)]
pub struct Tree {
    pub spans: Vec<Span>,
    pub nodes: Vec<Node>,
}

/// How a span is found by its children: a shared server by its endpoint too, since several servers may share one id.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Plain(SpanId),
    Shared(SpanId, Endpoint),
}

fn key(id: SpanId, shared: bool, endpoint: &Endpoint) -> Key {
    if shared { Key::Shared(id, endpoint.clone()) } else { Key::Plain(id) }
}

impl Tree {
    /// Cleans and builds. Needs at least one span to have anything but a made-up root.
    pub fn build(spans: Vec<Span>) -> Self {
        let spans = clean(spans);
        // Which key hangs under which, in order of first mention.
        let mut order: Vec<Key> = Vec::with_capacity(spans.len());
        let mut parents: HashMap<Key, Option<Key>> = HashMap::with_capacity(spans.len());
        for span in &spans {
            let own = key(span.id, span.shared, &span.local);
            let parent = if span.shared { Some(Key::Plain(span.id)) } else { span.parent.map(Key::Plain) };
            if parents.insert(own.clone(), parent).is_none() {
                order.push(own);
            }
        }
        let mut nodes = vec![Node { span: None, parent: None, children: Vec::new() }];
        let mut by_key: HashMap<Key, NodeIndex> = HashMap::with_capacity(spans.len());
        for (at, span) in spans.iter().enumerate() {
            let own = key(span.id, span.shared, &span.local);
            if !span.shared && span.parent.is_none() && nodes[0].span.is_none() {
                nodes[0].span = Some(at);
                parents.remove(&own);
                continue;
            }
            if let (false, Some(parent)) = (span.shared, span.parent) {
                // A child at the server's own endpoint belongs to the server's half of a shared id, not the client's.
                let server = Key::Shared(parent, span.local.clone());
                if parents.contains_key(&server) {
                    parents.insert(own.clone(), Some(server));
                }
            }
            let node = nodes.len();
            nodes.push(Node { span: Some(at), parent: None, children: Vec::new() });
            if span.shared {
                // Also without endpoint, for children that do not say where they ran.
                by_key.insert(key(span.id, true, &Endpoint::default()), node);
            }
            by_key.insert(own, node);
        }
        for own in &order {
            let (Some(parent), Some(&child)) = (parents.get(own), by_key.get(own)) else { continue };
            let parent = parent.as_ref().and_then(|key| by_key.get(key)).copied().unwrap_or(0);
            if parent != child && nodes[child].parent.is_none() {
                nodes[child].parent = Some(parent);
                nodes[parent].children.push(child);
            }
        }
        let mut tree = Self { spans, nodes };
        tree.sort_children();
        tree
    }

    fn sort_children(&mut self) {
        for at in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[at].children);
            children.sort_by_key(|child| self.span(*child).and_then(|span| span.start));
            self.nodes[at].children = children;
        }
    }

    pub fn span(&self, node: NodeIndex) -> Option<&Span> {
        self.nodes[node].span.map(|at| &self.spans[at])
    }

    /// Level by level from the root.
    pub fn breadth_first(&self) -> Vec<NodeIndex> {
        let mut order = Vec::with_capacity(self.nodes.len());
        order.push(0);
        let mut at = 0;
        while at < order.len() {
            order.extend(&self.nodes[order[at]].children);
            at += 1;
        }
        order
    }

    /// As a waterfall draws it, with each node's depth. What no root reaches (loops, spans that lost their place to a
    /// duplicate id) follows at depth one. Iterative: 50,000 spans may be one chain.
    pub fn depth_first(&self) -> Vec<(NodeIndex, usize)> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut seen = vec![false; self.nodes.len()];
        let mut todo = vec![(0, 0)];
        let mut lost = 1;
        loop {
            while let Some((node, depth)) = todo.pop() {
                if std::mem::replace(&mut seen[node], true) {
                    continue;
                }
                order.push((node, depth));
                todo.extend(self.nodes[node].children.iter().rev().map(|child| (*child, depth + 1)));
            }
            match (lost..self.nodes.len()).find(|node| !seen[*node]) {
                Some(node) => {
                    todo.push((node, 1));
                    lost = node + 1;
                }
                None => return order,
            }
        }
    }
}

/// Calls from one service to another, as traces show them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub parent: Box<str>,
    pub child: Box<str>,
    pub calls: u64,
    pub errors: u64,
}

/// Calls and errors by the service called.
type Callees = HashMap<Box<str>, (u64, u64)>;

/// Adds up links over traces.
#[derive(Clone, Debug, Default)]
pub struct Linker {
    /// By parent, then child: a known pair is found without making an owned key.
    counts: HashMap<Box<str>, Callees>,
}

impl Linker {
    /// Adds one trace: all spans whose trace ids agree in their low 64 bits.
    pub fn add_trace(&mut self, spans: Vec<Span>) {
        if !spans.is_empty() {
            links_of(&Tree::build(spans), |parent, child, failed| {
                self.add(parent, child, 1, u64::from(failed))
            });
        }
    }

    pub fn add(&mut self, parent: &str, child: &str, calls: u64, errors: u64) {
        if !self.counts.contains_key(parent) {
            self.counts.insert(parent.into(), HashMap::new());
        }
        let Some(children) = self.counts.get_mut(parent) else { return };
        if let Some(sums) = children.get_mut(child) {
            sums.0 += calls;
            sums.1 += errors;
        } else {
            children.insert(child.into(), (calls, errors));
        }
    }

    /// Sorted, so that the same traces give the same text.
    pub fn links(self) -> Vec<Link> {
        let mut links = Vec::new();
        for (parent, children) in self.counts {
            for (child, (calls, errors)) in children {
                links.push(Link { parent: parent.clone(), child, calls, errors });
            }
        }
        links.sort_unstable();
        links
    }
}

/// Calls `add(parent, child, failed)` for every call a trace shows.
pub fn links_of(tree: &Tree, mut add: impl FnMut(&str, &str, bool)) {
    // The nearest ancestor that has a kind, remembered per node: walking up from each would be quadratic in a chain.
    let mut remote_above: Vec<Option<NodeIndex>> = vec![None; tree.nodes.len()];
    for node in tree.breadth_first() {
        if let Some(above) = tree.nodes[node].parent {
            let has_kind = tree.span(above).is_some_and(|span| span.kind.is_some());
            remote_above[node] = if has_kind { Some(above) } else { remote_above[above] };
        }
        let Some(span) = tree.span(node) else { continue };
        if span.kind == Some(SpanKind::Client) && !tree.nodes[node].children.is_empty() {
            continue; // The server knows its own name better.
        }
        let (local, remote) = (span.local.service(), span.remote.service());
        let kind = match span.kind {
            Some(kind) => kind,
            None if local.is_some() && remote.is_some() => SpanKind::Client,
            None => continue,
        };
        let (mut parent, child) = match kind {
            SpanKind::Server | SpanKind::Consumer => (remote, local),
            SpanKind::Client | SpanKind::Producer => (local, remote),
        };
        if node == 0 && matches!(kind, SpanKind::Server | SpanKind::Consumer) && parent.is_none() {
            continue;
        }
        let mut failed = span.failed();
        if matches!(kind, SpanKind::Producer | SpanKind::Consumer) {
            // The far end is the broker; who reads from it is another trace's business.
            if let (Some(parent), Some(child)) = (parent, child) {
                add(parent, child, failed);
            }
            continue;
        }
        let ancestor = remote_above[node].and_then(|above| tree.span(above));
        if let Some((ancestor, name)) = ancestor.and_then(|span| Some((span, span.local.service()?))) {
            if let (SpanKind::Client, Some(local)) = (kind, local)
                && local != name
            {
                add(name, local, false); // The call to us that nobody reported.
            }
            if kind == SpanKind::Server || parent.is_none() {
                parent = Some(name);
            }
            if !failed && ancestor.kind == Some(SpanKind::Client) && span.parent == Some(ancestor.id) {
                failed = ancestor.failed();
            }
        }
        if let (Some(parent), Some(child)) = (parent, child) {
            add(parent, child, failed);
        }
    }
}

/// The id that stands for a trace in links: two lengths of the same id meet here.
pub fn link_group(id: TraceId) -> u64 {
    id.low()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use units::Nanos;

    /// Spans from lines of `id[<parent] KIND local->remote [@start] [+duration] [flags]`; `-` is an unknown name. Trace 1.
    pub(crate) fn trace(lines: &str) -> Vec<Span> {
        lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(span).collect()
    }

    fn span(line: &str) -> Span {
        let mut words = line.split_whitespace();
        let ids = words.next().unwrap();
        let (id, parent) = ids.split_once('<').map_or((ids, None), |(id, parent)| (id, Some(parent)));
        let number = |text: &str| SpanId::new(u64::from_str_radix(text, 16).unwrap()).unwrap();
        let mut span = Span::new(TraceId::new(1).unwrap(), number(id));
        span.parent = parent.map(number);
        span.kind = SpanKind::from_name(words.next().unwrap());
        let (local, remote) = words.next().unwrap().split_once("->").unwrap();
        let endpoint = |name: &str| if name == "-" { Endpoint::default() } else { Endpoint::named(name) };
        (span.local, span.remote) = (endpoint(local), endpoint(remote));
        for word in words {
            match word.split_at(1) {
                ("@", at) => span.start = Some(Nanos::from_micros(at.parse().unwrap())),
                ("+", duration) => span.duration = Some(Nanos::from_micros(duration.parse().unwrap())),
                _ => match word {
                    "shared" => span.shared = true,
                    "error" => span.set_tag("error", ""),
                    "wide" => span.trace_id = TraceId::new(1 << 64 | 1).unwrap(),
                    _ => span.name = word.into(),
                },
            }
        }
        span
    }

    /// `parent->child calls/errors`, comma separated.
    #[track_caller]
    fn check(lines: &str, expected: &str) {
        let mut linker = Linker::default();
        linker.add_trace(trace(lines));
        let got: Vec<String> = linker
            .links()
            .iter()
            .map(|link| format!("{}->{} {}/{}", link.parent, link.child, link.calls, link.errors))
            .collect();
        assert_eq!(got.join(", "), expected, "{lines}");
    }

    #[test]
    fn one_id_for_both_sides_of_a_call() {
        check("1 CLIENT web->app @1 \n 1 SERVER app->- shared @2", "web->app 1/0");
        // The flag was forgotten, and the parent: both are repaired from the client.
        check("2<1 CLIENT web->app \n 2 SERVER app->-", "web->app 1/0");
        check(
            "1 SERVER web->- @1 \n 2<1 CLIENT web->app @2 \n 2<1 SERVER app->- shared error @3",
            "web->app 1/1",
        );
        // Two servers answered one client id.
        check(
            "1 CLIENT web->- \n 1 SERVER app->- shared \n 1 SERVER db->- shared",
            "web->app 1/0, web->db 1/0",
        );
        // A local child of the shared server hangs under the server, not under the client.
        check(
            "1 CLIENT web->app @1 \n 1 SERVER app->web shared @2 \n 2<1 CLIENT app->db @3",
            "app->db 1/0, web->app 1/0",
        );
    }

    #[test]
    fn two_ids_for_a_call() {
        check("1 CLIENT web->app \n 2<1 SERVER app->-", "web->app 1/0");
        check("1 CLIENT web->wrong-name \n 2<1 SERVER app->-", "web->app 1/0");
        // An error only the client saw (a time-out) is the call's error.
        check("1 CLIENT web->app error \n 2<1 SERVER app->-", "web->app 1/1");
        check("1 CLIENT web->app \n 2<1 SERVER app->- error", "web->app 1/1");
        // Not inherited across a local span: that error may be the client's other work.
        check("1 CLIENT web->app error \n 2<1 LOCAL -->- \n 3<2 SERVER app->-", "web->app 1/0");
    }

    #[test]
    fn a_client_alone_is_enough_and_a_root_server_alone_is_not() {
        check("1 CLIENT web->app", "web->app 1/0");
        check("1 CLIENT web->-", "");
        check("1 CLIENT -->app", "");
        check("1 SERVER app->-", "");
        check("1 SERVER app->web", "web->app 1/0");
        check("1 SERVER app->- \n 2<1 SERVER db->-", "app->db 1/0");
    }

    #[test]
    fn spans_without_kind_link_only_when_both_names_are_known() {
        check("1 LOCAL web->app", "web->app 1/0");
        check("1 LOCAL web->-", "");
        check("1 SERVER web->- \n 2<1 LOCAL web->- \n 3<2 LOCAL -->- \n 4<3 CLIENT web->db", "web->db 1/0");
        check("1 SERVER web->- \n 2<1 LOCAL web->- \n 3<2 SERVER app->-", "web->app 1/0");
    }

    #[test]
    fn messages_link_to_the_broker() {
        check("1 PRODUCER web->kafka \n 2<1 CONSUMER app->kafka error", "kafka->app 1/1, web->kafka 1/0");
        check("1 PRODUCER web->- \n 2<1 CONSUMER app->-", "");
        check("1 PRODUCER web->kafka \n 1 CONSUMER app->kafka shared", "kafka->app 1/0, web->kafka 1/0");
        // What the reader calls is linked from the reader.
        check(
            "1 PRODUCER web->kafka \n 2<1 CONSUMER app->kafka \n 3<2 CLIENT app->db",
            "app->db 1/0, kafka->app 1/0, web->kafka 1/0",
        );
    }

    #[test]
    fn a_missing_middle_is_filled_in() {
        // `app` reported no server span, but called `db`: web called app.
        check("1 CLIENT web->- \n 2<1 CLIENT app->db", "app->db 1/0, web->app 1/0");
        check("1 SERVER web->- \n 2<1 CLIENT app->db error", "app->db 1/1, web->app 1/0");
        check("1 SERVER web->- \n 2<1 CLIENT web->db", "web->db 1/0");
        // Two client spans in a row in one service: no call to itself.
        check("1 CLIENT web->- \n 2<1 CLIENT web->db", "web->db 1/0");
    }

    #[test]
    fn a_missing_root_or_none_at_all() {
        check("2<1 CLIENT web->app \n 3<2 SERVER app->-", "web->app 1/0");
        check("2<1 SERVER app->- \n 3<9 SERVER db->-", "");
        check("2<1 SERVER app->web \n 3<9 SERVER db->app", "app->db 1/0, web->app 1/0");
        // Orphans hang under the first parentless span.
        check("1 SERVER web->- \n 3<9 SERVER db->-", "web->db 1/0");
        check("1 SERVER web->- \n 2 SERVER app->-", "web->app 1/0");
    }

    #[test]
    fn loops_end() {
        check("1<2 SERVER web->- \n 2<1 SERVER app->-", "");
        check("1 SERVER web->- \n 2<3 CLIENT app->x \n 3<2 CLIENT db->y \n 4<1 CLIENT web->z", "web->z 1/0");
        check("1<1 CLIENT web->app", "");
        let mut spans = trace("1 CLIENT web->app");
        spans[0].parent = Some(spans[0].id);
        spans[0].normalise();
        let mut linker = Linker::default();
        linker.add_trace(spans);
        assert_eq!(linker.links().len(), 1, "its own parent is no parent");
    }

    #[test]
    fn duplicates_count_once() {
        let twice = "1 CLIENT web->app \n 1 CLIENT web->app \n 2<1 SERVER app->- \n 2<1 SERVER app->- error";
        check(twice, "web->app 1/1");
        // Pieces: one report has the kind, one the names.
        check("1 LOCAL web->- \n 1 CLIENT -->app", "web->app 1/0");
        // Two hosts under one id are not one span: the client keeps the id, the other loses its place.
        check("1 CLIENT web->app \n 2<1 SERVER app->- @5 \n 2<1 SERVER db->- @6", "web->db 1/0");
    }

    #[test]
    fn skewed_clocks_do_not_change_who_called_whom() {
        check("1 SERVER web->- @1000 \n 2<1 CLIENT web->app @2000 \n 3<2 SERVER app->- @5", "web->app 1/0");
    }

    #[test]
    fn both_lengths_of_a_trace_id_are_one_trace() {
        let spans = trace("1 CLIENT web->app wide \n 2<1 SERVER app->-");
        assert_eq!(spans[0].trace_id.low(), spans[1].trace_id.low());
        let cleaned = clean(spans);
        assert!(cleaned.iter().all(|span| span.trace_id.get() == 1 << 64 | 1));
        check("1 CLIENT web->app wide \n 2<1 SERVER app->-", "web->app 1/0");
    }

    #[test]
    fn a_chain_and_a_fan_of_fifty_thousand_spans_are_walked_without_recursion() {
        let chain: String = (2..=50_000).map(|id| format!("{id:x}<{:x} LOCAL -->-\n", id - 1)).collect();
        let chain = format!("1 SERVER web->-\n{chain}c351<c350 SERVER app->-");
        check(&chain, "web->app 1/0");
        let tree = Tree::build(trace(&chain));
        assert_eq!(tree.depth_first().last(), Some(&(50_000, 50_000)));
        let fan: String = (2..=50_000).map(|id| format!("{id:x}<1 CLIENT web->app\n")).collect();
        check(&format!("1 SERVER web->-\n{fan}"), "web->app 49999/0");
        let same: String = (0..50_000).map(|_| "1 CLIENT web->app\n").collect();
        check(&same, "web->app 1/0");
    }

    #[test]
    fn everything_reported_is_shown_even_loops() {
        let tree =
            Tree::build(trace("1 SERVER web->- \n 2<3 LOCAL -->- \n 3<2 LOCAL -->- \n 4<1 LOCAL -->-"));
        let mut nodes: Vec<_> = tree.depth_first().iter().map(|(node, _)| *node).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [0, 1, 2, 3]);
    }
}
