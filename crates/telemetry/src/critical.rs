//! The critical path: which span a trace was waiting for at each moment, so that making it faster makes the trace faster.
//!
//! Walked backwards from the root's end: whoever ended last before a moment is who was waited for until then; what no
//! child covers is the span's own time. A child that outlives its parent counts until the parent's end, for nobody
//! waited longer. Spans without times are passed over.
//!
//! ```text
//! web   ━━━━━━━━━━━━━━━━━━━━      web  ##            ##  ####
//! cart    ━━━━━━━━                cart
//! ads     ━━━━━━━━━━━━            ads    ############
//! stock                 ━━        ...
//! ```

use crate::span::{Span, SpanKind};
use crate::tree::{NodeIndex, Tree};
use std::collections::BTreeMap;
use units::Nanos;

/// A stretch of the path that is one span's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub node: NodeIndex,
    pub from: Nanos,
    pub to: Nanos,
}

impl Segment {
    pub fn length(&self) -> Nanos {
        self.to.saturating_sub(self.from)
    }
}

fn times(tree: &Tree, node: NodeIndex) -> Option<(Nanos, Nanos)> {
    let span = tree.span(node)?;
    Some((span.start?, span.start? + span.duration?))
}

/// In the order of time. Empty when the root has no times; without gaps and overlaps otherwise.
pub fn critical_path(tree: &Tree) -> Vec<Segment> {
    /// A span being walked: what is left of it ends at `until`.
    struct Walk {
        node: NodeIndex,
        from: Nanos,
        until: Nanos,
        /// By their ends, the latest last.
        children: Vec<(Nanos, Nanos, NodeIndex)>,
    }
    let open = |node: NodeIndex, from: Nanos, until: Nanos| {
        let mut children: Vec<_> = tree.nodes[node]
            .children
            .iter()
            .filter_map(|it| times(tree, *it).map(|(a, b)| (b, a, *it)))
            .collect();
        children.sort_unstable();
        Walk { node, from, until, children }
    };
    let Some((from, until)) = times(tree, 0) else { return Vec::new() };
    let mut path = Vec::new();
    // Iterative: 50,000 spans may be one chain.
    let mut walks = vec![open(0, from, until)];
    while let Some(walk) = walks.last_mut() {
        let Some((end, start, child)) = walk.children.pop() else {
            if walk.from < walk.until {
                path.push(Segment { node: walk.node, from: walk.from, to: walk.until });
            }
            walks.pop();
            continue;
        };
        let (start, end) = (start.max(walk.from), end.min(walk.until));
        if start >= end {
            continue;
        }
        if end < walk.until {
            path.push(Segment { node: walk.node, from: end, to: walk.until });
        }
        walk.until = start;
        walks.push(open(child, start, end));
    }
    path.reverse();
    path
}

/// Whose work a span's own time is. A call whose other side reported nothing is that other side's; one whose other
/// side did is the way there.
pub fn blame(tree: &Tree, node: NodeIndex) -> String {
    let Some(span) = tree.span(node) else { return "?".to_owned() };
    let own = span.local.service().unwrap_or("?");
    match (span.kind, span.remote.service()) {
        (Some(SpanKind::Client | SpanKind::Producer), Some(remote)) => {
            let answers = |it: &&Span| {
                it.local.service() == Some(remote)
                    && matches!(it.kind, Some(SpanKind::Server | SpanKind::Consumer))
            };
            let reported =
                tree.nodes[node].children.iter().filter_map(|it| tree.span(*it)).any(|it| answers(&it));
            if reported { format!("{own} → {remote}") } else { remote.to_owned() }
        }
        _ => own.to_owned(),
    }
}

/// Time on the critical path by whose it is, the most first.
pub fn shares(tree: &Tree, path: &[Segment]) -> Vec<(String, Nanos)> {
    let mut by_whom: BTreeMap<String, Nanos> = BTreeMap::new();
    for segment in path {
        let whose = by_whom.entry(blame(tree, segment.node)).or_default();
        *whose += segment.length();
    }
    let mut shares: Vec<(String, Nanos)> = by_whom.into_iter().collect();
    shares.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::trace;

    /// The path as `service@from-to`, microseconds of the script.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let tree = Tree::build(trace(script));
        let path = critical_path(&tree);
        let told: Vec<String> = path
            .iter()
            .map(|it| format!("{}@{}-{}", blame(&tree, it.node), it.from.0 / 1_000, it.to.0 / 1_000))
            .collect();
        assert_eq!(told.join(" "), expected);
        if let Some((from, to)) = times(&tree, 0) {
            let whole: u64 = path.iter().map(|it| it.length().0).sum();
            assert_eq!(whole, to.0 - from.0, "a path without gaps");
            assert!(path.windows(2).all(|it| it[0].to == it[1].from), "{path:?}");
        }
    }

    #[test]
    fn the_path_goes_through_who_was_waited_for() {
        check("1 SERVER web->- @0 +100", "web@0-100");
        check(
            "1 SERVER web->- @0 +100 \n 2<1 CLIENT web->cart @10 +40 \n 3<1 CLIENT web->ads @10 +60",
            "web@0-10 ads@10-70 web@70-100",
        );
        check(
            "1 SERVER web->- @0 +100 \n 2<1 CLIENT web->cart @10 +20 \n 3<1 CLIENT web->ads @40 +20",
            "web@0-10 cart@10-30 web@30-40 ads@40-60 web@60-100",
        );
        // Overlapping calls: the later one was waited for from its own start on.
        check(
            "1 SERVER web->- @0 +100 \n 2<1 CLIENT web->cart @10 +50 \n 3<1 CLIENT web->ads @40 +40",
            "web@0-10 cart@10-40 ads@40-80 web@80-100",
        );
        check(
            "1 SERVER web->- @0 +100 \n 2<1 CLIENT web->cart @10 +80 \n 3<2 CLIENT cart->db @20 +30",
            "web@0-10 cart@10-20 db@20-50 cart@50-90 web@90-100",
        );
    }

    #[test]
    fn odd_traces_have_a_path_or_none() {
        check("1 SERVER web->- @0 +100 \n 2<1 CLIENT web->mail @90 +500", "web@0-90 mail@90-100");
        check("1 SERVER web->- @50 +100 \n 2<1 CLIENT web->cart @0 +60", "cart@50-60 web@60-150");
        check("1 SERVER web->- \n 2<1 CLIENT web->cart @0 +60", "");
        check("1 SERVER web->- @0 +10 \n 2<1 CLIENT web->cart @50 +10", "web@0-10");
        let chain: String =
            (2..=20_000).map(|id| format!("{id:x}<{:x} LOCAL web->- @0 +100\n", id - 1)).collect();
        let tree = Tree::build(trace(&format!("1 SERVER web->- @0 +100\n{chain}")));
        assert_eq!(critical_path(&tree).len(), 1, "the innermost");
    }

    #[test]
    fn time_is_whose_it_is() {
        let tree = Tree::build(trace(
            "1 SERVER web->- @0 +100 \n 2<1 CLIENT web->cart @10 +80 \n 3<2 SERVER cart->- @20 +60 \n 4<3 CLIENT cart->db @30 +40",
        ));
        let shares = shares(&tree, &critical_path(&tree));
        let told: Vec<String> =
            shares.iter().map(|(who, time)| format!("{who} {}", time.0 / 1_000)).collect();
        assert_eq!(told, ["db 40", "cart 20", "web 20", "web → cart 20"]);
    }
}
