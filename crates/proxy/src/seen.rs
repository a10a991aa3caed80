//! What one worker knows of its edges beside their numbers: how many retries they may still send, and the connections
//! their requests ride on. For people who look; nothing decides by it.

use crate::config;
use crate::edge::EdgeState;
use crate::upstream::ServiceState;
use std::sync::Arc;
use units::Nanos;

/// One edge's retry budget and its queue for connections.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSeen {
    pub edge: Arc<config::Edge>,
    /// Millionths of a retry that are left, and that the recent past allows in all. `None`: no budget.
    pub budget: Option<(u64, u64)>,
    /// Requests that wait because the edge has as many connections as it may.
    pub waiting: u32,
}

/// The connections to one service's instances, which everybody on this worker who calls them shares.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSeen {
    pub service: Arc<config::Service>,
    /// Connections that exist or are being made, idle ones included; over HTTP/2, streams.
    pub open: u32,
    pub idle: u32,
    /// Requests that wait for their turn at an instance.
    pub waiting: u32,
}

impl CallSeen {
    pub(crate) fn of(edge: &EdgeState, now: Nanos) -> Self {
        Self { edge: edge.plan.config.clone(), budget: edge.budget_level(now), waiting: edge.lanes.waiting() }
    }
}

impl PoolSeen {
    pub(crate) fn of(service: &ServiceState) -> Self {
        let rows = service.instances.borrow();
        let small = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
        Self {
            service: service.plan.borrow().config.clone(),
            open: rows.iter().map(|it| it.connections()).sum(),
            idle: small(rows.iter().map(|it| it.idle_len()).sum()),
            waiting: small(rows.iter().map(|it| it.gate_report().2).sum()),
        }
    }
}
