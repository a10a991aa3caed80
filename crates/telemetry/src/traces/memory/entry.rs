//! One trace at rest: its spans as bytes, and what is asked of it without opening them.

use super::super::keep::Reasons;
use super::super::names::NameId;
use crate::ids::TraceId;
use units::Nanos;

/// A trace's place in the store.
pub(super) type Slot = u32;
pub(super) const NO_SLOT: Slot = Slot::MAX;
/// Stands for a service whose name found the table full; its traces must be opened to be searched.
pub(super) const UNNAMED: NameId = NameId(u32::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Undecided,
    Kept,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: TraceId,
    pub(super) blob: Vec<u8>,
    pub(super) spans: u32,
    pub(super) state: State,
    pub(super) reasons: Reasons,
    /// One of how many like it: the inverse of the share it was kept under.
    pub(super) weight: f32,
    pub(super) arrived: Nanos,
    pub(super) changed: Nanos,
    /// The root's start, else the earliest.
    pub(super) moment: Option<Nanos>,
    pub(super) has_root_moment: bool,
    pub(super) root_complete: Option<Nanos>,
    /// Longest span of each service in the trace.
    pub(super) services: Vec<(NameId, Nanos)>,
    /// Tells a reused slot's old places in queues from its new ones.
    pub(super) sequence: u64,
    /// The next trace whose id has the same low half.
    pub(super) next_alike: Slot,
    /// Who called whom in it, once it was decided for; gone again when another span comes.
    pub(super) links: Option<Box<[LinkCount]>>,
}

/// Caller, callee, calls and errors.
pub(super) type LinkCount = (NameId, NameId, u32, u32);

impl Entry {
    pub(super) fn bytes(&self) -> usize {
        // An entry, its places in the two queues, the maps by id and by time.
        const FIXED: usize = size_of::<Entry>() + 16 + 16 + 48 + 48;
        let links = self.links.as_ref().map_or(0, |links| links.len() * size_of::<LinkCount>());
        FIXED + links + self.blob.capacity() + self.services.capacity() * size_of::<(NameId, Nanos)>()
    }
}
