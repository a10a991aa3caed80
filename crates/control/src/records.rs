//! Finished requests for tests.

use proxy::http1::Method;
use proxy::record::{Finished, PATH_BYTES};
use units::Nanos;

/// A request that was answered well by an instance on port 4000, on edge 0 of generation 1.
pub(crate) fn finished(started_unix: Nanos, duration: Nanos, trace_id: u128) -> Finished {
    Finished {
        started_unix,
        duration,
        upstream: Nanos::ZERO,
        worker: 0,
        edge: 0,
        generation: 1,
        status: 200,
        attempts: 1,
        method: Method::Get,
        trace_id,
        parent_span: 0,
        server_span: 8,
        client_span: 9,
        sampled: true,
        instance: Some(([127, 0, 0, 1], 4_000).into()),
        request_bytes: 0,
        response_bytes: 0,
        error: "",
        last: None,
        tries: None,
        counted: None,
        breaker_open: false,
        ejected: false,
        fault: "",
        path_len: 0,
        path: [0; PATH_BYTES],
    }
}
