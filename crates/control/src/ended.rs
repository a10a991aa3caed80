//! Requests that ended within one tick, by who answered them over which edge.
//!
//! What is told of single requests (zones, versions, instances) depends on nothing but those two and how it ended, so
//! each request costs one look-up here, and names are looked up once for each pair and tick.

use proxy::record::Finished;
use std::collections::HashMap;
use std::net::SocketAddr;
use telemetry::metrics::Sparse;

#[derive(Clone, Debug, Default)]
pub struct Group {
    pub requests: u64,
    pub failed: u64,
    pub latency: Sparse,
    /// Trouble made on purpose was met.
    pub faulted: bool,
}

impl Group {
    pub fn add(&mut self, record: &Finished) {
        self.requests += 1;
        self.failed += u64::from(crate::spans::failed(record));
        self.latency.record(record.duration);
        self.faulted |= !record.fault.is_empty();
    }
}

/// Generation, edge, and who answered.
type Pair = (u64, u32, Option<SocketAddr>);

#[derive(Debug, Default)]
pub struct Ended {
    groups: HashMap<Pair, Group, foldhash::fast::RandomState>,
}

impl Ended {
    pub fn add(&mut self, record: &Finished) {
        self.groups.entry((record.generation, record.edge, record.instance)).or_default().add(record);
    }

    /// Everything since the call before.
    pub fn drain(&mut self) -> impl Iterator<Item = (Pair, Group)> + '_ {
        self.groups.drain()
    }
}
