//! What is kept of request bodies so that a retry can send them again.
//!
//! A body that is taken out of its buffer as it arrives is gone once it was sent, so that a failure behind could not be
//! retried. A copy is kept while it is short: each request may keep so much, and a worker's requests together so much.
//! What does not fit is sent on all the same; it is only not sent twice, and that is counted.

use crate::worker::Worker;
use std::ops::Deref;
use std::rc::Rc;

/// Memory kept from request to request.
const KEPT: usize = 16 << 10;

/// The part of one request's body that was sent so far.
#[derive(Debug)]
pub(crate) struct Replay {
    bytes: Vec<u8>,
    worker: Rc<Worker>,
}

impl Replay {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        Self { bytes: Vec::new(), worker }
    }

    /// Keeps more of the body. False if that would be more than `max` or than the worker may hold: then all of it is
    /// forgotten, for half a body is of no use.
    pub(crate) fn keep(&mut self, data: &[u8], max: usize) -> bool {
        let whole = self.bytes.len() + data.len();
        if whole > max || data.len() as u64 > self.worker.replay_room() {
            self.forget();
            self.worker.cells.replays_forgone.add(1);
            return false;
        }
        if self.bytes.capacity() < whole {
            // Doubling, as a vector does by itself, but never beyond what may be kept.
            self.bytes.reserve_exact((2 * whole).min(max) - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        self.worker.cells.replay_bytes.add(data.len() as u64);
        true
    }

    /// The request is over, or will not be sent again.
    pub(crate) fn forget(&mut self) {
        if self.bytes.capacity() == 0 {
            return;
        }
        self.worker.cells.replay_bytes.sub(self.bytes.len() as u64);
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

impl Deref for Replay {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.forget();
    }
}
