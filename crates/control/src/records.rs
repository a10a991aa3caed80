//! Finished requests for tests.

use proxy::record::Finished;
use units::Nanos;

/// A request that was answered well by an instance on port 4000, on edge 0 of generation 1.
pub(crate) fn finished(started_unix: Nanos, duration: Nanos, trace_id: u128) -> Finished {
    Finished {
        started_unix,
        duration,
        edge: 0,
        generation: 1,
        status: 200,
        attempts: 1,
        trace_id,
        server_span: 8,
        client_span: 9,
        sampled: true,
        instance: Some(([127, 0, 0, 1], 4_000).into()),
        ..Finished::default()
    }
}
