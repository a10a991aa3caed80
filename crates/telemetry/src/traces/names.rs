//! Strings that repeat, stored once: service names, span names, tag keys.
//!
//! The table only grows, so it has a hard end. Past it a name is stored beside the span that carries it: a client that
//! puts ids into span names costs its own traces space and nobody else's. The last quarter is for names of services: by
//! them traces are searched and calls counted, and a client that makes up tag keys must not take that from the others.

use super::Map;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameId(pub(super) u32);

#[derive(Debug)]
pub(super) struct Names {
    ids: Map<Box<str>, NameId>,
    texts: Vec<Box<str>>,
    bytes: usize,
    bytes_max: usize,
    /// Names that found the table full.
    pub(super) refused: u64,
}

/// What an entry costs beside its text, twice (it is key and value): two fat pointers, an id, the table's slack.
const ENTRY_BYTES: usize = 64;

impl Names {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { ids: Map::default(), texts: Vec::new(), bytes: 0, bytes_max, refused: 0 }
    }

    /// The number of a span's name or a tag's key.
    pub(super) fn intern(&mut self, text: &str) -> Option<NameId> {
        self.intern_within(text, self.bytes_max / 4 * 3)
    }

    pub(super) fn intern_service(&mut self, text: &str) -> Option<NameId> {
        self.intern_within(text, self.bytes_max)
    }

    fn intern_within(&mut self, text: &str, bytes_max: usize) -> Option<NameId> {
        if let Some(id) = self.ids.get(text) {
            return Some(*id);
        }
        let cost = text.len() * 2 + ENTRY_BYTES;
        if self.bytes + cost > bytes_max {
            self.refused += 1;
            return None;
        }
        self.bytes += cost;
        let id = NameId(u32::try_from(self.texts.len()).ok()?);
        self.texts.push(text.into());
        self.ids.insert(text.into(), id);
        Some(id)
    }

    pub(super) fn find(&self, text: &str) -> Option<NameId> {
        self.ids.get(text).copied()
    }

    pub(super) fn text(&self, id: NameId) -> &str {
        self.texts.get(id.0 as usize).map_or("", |text| text)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
