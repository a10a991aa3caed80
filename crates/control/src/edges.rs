//! A snapshot's edges, read once: who calls whom by which slot.
//!
//! Records name their edge by its number in a snapshot, and there are thousands of records for each edge: what a name
//! says is worked out when the snapshot comes and not for each of them.

use crate::compile::parties;
use proxy::observe::Observer;
use std::sync::Arc;
use telemetry::span::lower;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeName {
    /// `web#0->cart "GET /"`
    pub whole: Box<str>,
    /// `web#0`; of a gateway, its name.
    pub slot: Box<str>,
    /// Lower case, as services are compared in traces.
    pub caller: Box<str>,
    pub callee: Box<str>,
    /// As the file writes it.
    pub callee_as_written: Box<str>,
    pub from_gateway: bool,
}

impl EdgeName {
    pub fn of(whole: &str) -> Option<Self> {
        let (caller, callee) = parties(whole)?;
        let slot = whole.split("->").next()?;
        Some(Self {
            whole: whole.into(),
            slot: slot.into(),
            caller: lower(caller),
            callee: lower(callee),
            callee_as_written: callee.into(),
            // Services call from numbered slots, gateways from themselves.
            from_gateway: !slot.contains('#'),
        })
    }
}

/// The edges of one snapshot, by number, and of the one before: what ended just before a change is heard of after it, and
/// is what people ask about.
#[derive(Debug, Default)]
pub struct EdgeNames {
    pub generation: u64,
    edges: Arc<[Option<EdgeName>]>,
    before: Option<(u64, Arc<[Option<EdgeName>]>)>,
}

impl EdgeNames {
    pub fn new(generation: u64, edges: Vec<Option<EdgeName>>) -> Self {
        Self { generation, edges: edges.into(), before: None }
    }

    /// As it is after that one.
    pub fn after(self, before: &Self) -> Self {
        Self { before: Some((before.generation, Arc::clone(&before.edges))), ..self }
    }

    pub fn read(observer: &Observer) -> Self {
        let (generation, edges) = observer.edge_names();
        Self::new(generation, edges.iter().map(|it| EdgeName::of(&it.as_ref()?.name)).collect())
    }

    /// A slot means another edge in another snapshot: of older ones it is nobody's.
    pub fn get(&self, generation: u64, edge: u32) -> Option<&EdgeName> {
        let edges = match &self.before {
            _ if generation == self.generation => &self.edges,
            Some((before, edges)) if generation == *before => edges,
            _ => return None,
        };
        edges.get(edge as usize)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.edges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_before_is_known_and_older_ones_are_not() {
        let names = |generation, edge| EdgeNames::new(generation, vec![EdgeName::of(edge)]);
        let edges = names(3, "edge->ads").after(&names(2, "edge->cart").after(&names(1, "edge->web")));
        let callee = |generation, edge| edges.get(generation, edge).map(|it| &*it.callee);
        assert_eq!([callee(3, 0), callee(2, 0), callee(1, 0)], [Some("ads"), Some("cart"), None]);
        assert_eq!(callee(3, 1), None);
    }
}
