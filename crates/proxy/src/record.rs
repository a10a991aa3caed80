//! What is known about a request when it is over: plain data for spans, logs and live views.
//!
//! Whoever wants these asks the proxy for a receiver. Until then nothing is made; when the receiver is slow, events are
//! dropped and counted. An event has a fixed size and owns no memory, so that making one allocates nothing: names are
//! labels of the series the request was counted in, and the path is cut. Only a request that was tried more than once
//! brings a list along, and those are few.

use policy::Outcome;
use std::net::SocketAddr;
use std::sync::Arc;
use telemetry::metrics::{Label, SeriesKey};
use units::Nanos;

/// Bytes of the path that an event keeps.
pub const PATH_BYTES: usize = 64;

/// One attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Try {
    /// What the instance was told as its parent.
    pub span: u64,
    /// Since the request began.
    pub began: Nanos,
    pub lasted: Nanos,
    /// Waiting for its turn at the instance, and then for a connection.
    pub queue_wait: Nanos,
    pub pool_wait: Nanos,
    /// When it was sent; `None` if it may take for ever, or was not sent.
    pub deadline_left: Option<Nanos>,
    pub instance: SocketAddr,
    pub outcome: Outcome,
    /// A second copy, sent before the first was answered.
    pub is_hedge: bool,
}

/// What a request was counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub series: SeriesKey,
    pub route: Label,
}

/// One finished request, with the attempt that answered it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Nanoseconds since 1970.
    pub started_unix: Nanos,
    pub duration: Nanos,
    /// Until the reply's head arrived from the instance; zero if none did.
    pub upstream: Nanos,
    pub worker: u16,
    /// Of the snapshot named by `generation`; `u32::MAX` if no edge was chosen.
    pub edge: u32,
    pub generation: u64,
    /// Of a gRPC call the status that its code stands for.
    pub status: u16,
    /// The code of a gRPC call; HTTP said 200.
    pub grpc: Option<u8>,
    pub attempts: u8,
    pub method: crate::http1::Method,
    pub trace_id: u128,
    pub parent_span: u64,
    pub server_span: u64,
    pub client_span: u64,
    pub sampled: bool,
    /// The instance that answered last.
    pub instance: Option<SocketAddr>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Why we answered ourselves; empty if the instance did.
    pub error: &'static str,
    /// The last attempt, if one was made; of several copies the one that was answered.
    pub last: Option<Try>,
    /// All attempts, if there was more than one.
    pub tries: Option<Arc<[Try]>>,
    /// `None` if nobody counts series, or no edge was chosen.
    pub counted: Option<Counted>,
    /// The edge's breaker keeps some requests out.
    pub breaker_open: bool,
    /// The instance that answered is ejected now.
    pub ejected: bool,
    /// Trouble made on purpose: `delay`, `abort`, `bandwidth`; empty if none.
    pub fault: &'static str,
    pub path_len: u8,
    pub path: [u8; PATH_BYTES],
}

impl Default for Finished {
    /// Of a request that nobody knows anything about: it was never tried, on no edge, and nothing was answered.
    fn default() -> Self {
        Self {
            started_unix: Nanos::ZERO,
            duration: Nanos::ZERO,
            upstream: Nanos::ZERO,
            worker: 0,
            edge: u32::MAX,
            generation: 0,
            status: 0,
            grpc: None,
            attempts: 0,
            method: crate::http1::Method::Get,
            trace_id: 0,
            parent_span: 0,
            server_span: 0,
            client_span: 0,
            sampled: false,
            instance: None,
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
}

impl Finished {
    /// The path, or its first bytes.
    pub fn path(&self) -> &str {
        let bytes = &self.path[..usize::from(self.path_len).min(PATH_BYTES)];
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    pub fn set_path(&mut self, path: &[u8]) {
        let len = path.len().min(PATH_BYTES);
        self.path[..len].copy_from_slice(&path[..len]);
        self.path_len = len as u8;
    }
}
