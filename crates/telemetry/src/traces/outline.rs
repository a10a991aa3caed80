//! What deciding about a trace needs of its spans: numbers, no text.
//!
//! Every trace is looked at once when it is decided: for the slowest of an edge, and for who called whom. Both are asked
//! of all traces and nearly all traces are plain: a few spans, each id once, nobody sharing. For those the links follow
//! from the outlines alone by the rules of [`crate::tree::links_of`]; whatever is not plain is left to that.

use super::names::NameId;
use crate::span::SpanKind;
use units::Nanos;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) id: u64,
    /// Zero for none.
    pub(super) parent: u64,
    pub(super) kind: Option<SpanKind>,
    pub(super) shared: bool,
    pub(super) failed: bool,
    pub(super) local: Option<NameId>,
    pub(super) remote: Option<NameId>,
    pub(super) duration: Option<Nanos>,
}

/// Looking for parents among more than this takes a table, which the general way has.
const PLAIN_MAX: usize = 32;
/// Parent of the root, and of nobody else.
const NOBODY: usize = usize::MAX;

/// Calls `add(caller, callee, failed)` for each call; `false`, before any, if the trace is not plain.
pub(super) fn links(spans: &[Outline], mut add: impl FnMut(NameId, NameId, bool)) -> bool {
    let Some(parents) = parents(spans) else { return false };
    for (at, span) in spans.iter().enumerate() {
        if span.kind == Some(SpanKind::Client) && parents.contains(&at) {
            continue;
        }
        let kind = match span.kind {
            Some(kind) => kind,
            None if span.local.is_some() && span.remote.is_some() => SpanKind::Client,
            None => continue,
        };
        let is_inbound = matches!(kind, SpanKind::Server | SpanKind::Consumer);
        let (mut parent, child) =
            if is_inbound { (span.remote, span.local) } else { (span.local, span.remote) };
        if parents[at] == NOBODY && is_inbound && parent.is_none() {
            continue;
        }
        let mut failed = span.failed;
        if matches!(kind, SpanKind::Server | SpanKind::Client) {
            let above = nearest_with_kind(spans, &parents, at);
            if let Some((above, name)) = above.and_then(|it| Some((it, it.local?))) {
                if let (SpanKind::Client, Some(local)) = (kind, span.local)
                    && local != name
                {
                    add(name, local, false);
                }
                if kind == SpanKind::Server || parent.is_none() {
                    parent = Some(name);
                }
                if above.kind == Some(SpanKind::Client) && span.parent == above.id {
                    failed |= above.failed;
                }
            }
        }
        if let (Some(parent), Some(child)) = (parent, child) {
            add(parent, child, failed);
        }
    }
    true
}

type Parents = [usize; PLAIN_MAX];

/// Each span's parent by position; `None` if the trace is not plain.
fn parents(spans: &[Outline]) -> Option<Parents> {
    let mut parents = [NOBODY - 1; PLAIN_MAX];
    if spans.is_empty() || spans.len() > PLAIN_MAX {
        return None;
    }
    let mut root: Option<usize> = None;
    for (at, span) in spans.iter().enumerate() {
        if span.shared || spans[..at].iter().any(|it| it.id == span.id) {
            return None;
        }
        if span.parent == 0 && root.is_none_or(|it| span.id < spans[it].id) {
            root = Some(at);
        }
    }
    // Without a root one would have to be made up.
    let root = root?;
    for (at, span) in spans.iter().enumerate() {
        parents[at] = if at == root {
            NOBODY
        } else {
            // Whose parent is not here hangs under the root.
            spans.iter().position(|it| it.id == span.parent).unwrap_or(root)
        };
    }
    // A loop is reached by no root.
    let reaches = |mut at: usize| {
        for _ in 0..spans.len() {
            if parents[at] == NOBODY {
                return true;
            }
            at = parents[at];
        }
        false
    };
    (0..spans.len()).all(reaches).then_some(parents)
}

fn nearest_with_kind<'a>(spans: &'a [Outline], parents: &Parents, mut at: usize) -> Option<&'a Outline> {
    loop {
        at = parents[at];
        let above = spans.get(at)?;
        if above.kind.is_some() {
            return Some(above);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::super::names::Names;
    use super::*;
    use crate::ids::{SpanId, TraceId};
    use crate::span::{Endpoint, Span, tag};
    use crate::tree::Linker;
    use proptest::prelude::*;

    fn any_span() -> impl Strategy<Value = Span> {
        let service = || "[ab]?";
        (1u64..9, 0u64..9, 0u64..5, service(), service(), any::<bool>(), 0u8..10).prop_map(
            |(id, parent, kind, local, remote, failed, shared)| {
                let mut span =
                    Span::new(TraceId::new(1).expect("not zero"), SpanId::new(id).expect("not zero"));
                span.parent = SpanId::new(parent);
                span.kind = SpanKind::from_number(kind);
                (span.local, span.remote) = (Endpoint::named(&local), Endpoint::named(&remote));
                span.shared = shared == 0;
                if failed {
                    span.set_tag(tag::ERROR, "");
                }
                span.normalise();
                span
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn plain_traces_have_the_links_that_their_trees_have(spans in proptest::collection::vec(any_span(), 1..7)) {
            let (mut names, mut blob) = (Names::new(10_000), Vec::new());
            spans.iter().for_each(|span| { codec::put(&mut blob, &mut names, span); });
            let mut outlines = Vec::new();
            prop_assert!(codec::outlines(&blob, &mut outlines));
            let mut quick = Linker::default();
            let plain = links(&outlines, |parent, child, failed| {
                quick.add(names.text(parent), names.text(child), 1, u64::from(failed));
            });
            let mut slow = Linker::default();
            slow.add_trace(spans.clone());
            if plain {
                prop_assert_eq!(quick.links(), slow.links());
            } else {
                prop_assert!(quick.links().is_empty(), "nothing is said before it is known to be plain");
            }
        }
    }
}
