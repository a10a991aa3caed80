//! A request's body on its way to the instance: from the client's buffer, again from memory for a retry.

use super::relay::STREAMS_AFTER;
use crate::http1::{BodyReader, Framing, Refusal, write_chunk, write_chunk_head};
use crate::replay::Replay;
use crate::serve::{BodyPlace, Run};
use crate::socket::Socket;
use std::task::{Context, Poll, ready};
use units::Nanos;

/// The request's body on its way to the instance.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) reader: BodyReader,
    chunked: bool,
    /// Bytes of `out` that are written.
    pub(super) written: usize,
    /// The whole request is in `out`.
    pub(super) complete: bool,
    pub(super) done: bool,
    pub(super) failed: bool,
    pub(super) replay_max: usize,
    /// Bytes written to instances, over all attempts.
    pub(super) moved: u64,
    /// Everything taken from the client so far is still at hand.
    pub(super) replayable: bool,
    /// Some of this attempt left this process.
    pub(super) sent: bool,
    /// The instance had taken all there was, and the client had no more yet.
    pub(super) starved: bool,
    /// So it is now.
    pub(super) hungry: bool,
    /// That went on for so long that the attempt's time says more about the client than about the instance.
    dragged: bool,
}

pub(super) enum UploadError {
    Upstream,
    ClientGone,
    Refused(Refusal),
}

impl Upload {
    /// How the body will be sent, and whether it can be sent twice.
    pub(super) fn new(framing: Framing, limits: &crate::config::Limits) -> Self {
        Self {
            done: false,
            complete: false,
            written: 0,
            failed: false,
            chunked: framing == Framing::Chunked,
            reader: BodyReader::new(framing),
            replay_max: limits.replay_bytes.as_u64() as usize,
            moved: 0,
            replayable: true,
            sent: false,
            starved: false,
            hungry: false,
            dragged: false,
        }
    }

    /// All of it is on its way. `took` since the attempt began is asked for only if the client may be why.
    pub(super) fn ends(&mut self, took: impl FnOnce() -> Nanos) {
        self.done = true;
        self.hungry = false;
        self.dragged = self.starved && took() > STREAMS_AFTER;
    }

    /// Whether it was the client who took its time. Then how long the attempt took is no sign of a busy instance: else
    /// some clients that stall would have the requests of all others refused.
    pub(super) fn kept_waiting(&self) -> bool {
        self.dragged || (self.starved && !self.done)
    }

    /// Puts what is at hand of the body behind the head in `out`: all of it if it is all there, which it usually is.
    pub(super) fn begin(&mut self, run: &mut Run) {
        if run.request.framing == Framing::None {
            self.complete = true;
            return;
        }
        if matches!(run.body, BodyPlace::Streamed { .. }) {
            // A retry of a streamed body: what was sent before is sent again.
            if !run.replay.is_empty() {
                self.write_data(&run.replay, &mut run.out);
            }
            if self.reader.is_done() {
                self.write_end(&[], &mut run.out);
                self.complete = true;
            }
            return;
        }
        let mut reader = self.reader;
        let mut at = run.request.len;
        let start = run.out.len();
        // What is wrong in it is found again, and reported, when the body is streamed.
        while let Ok(step) = reader.step(&run.inb.filled()[at..]) {
            let data = &run.inb.filled()[at + step.data.start..at + step.data.end];
            if !data.is_empty() {
                self.write_data(data, &mut run.out);
            }
            if step.done {
                self.write_end(
                    &run.inb.filled()[at + step.trailer.start..at + step.trailer.end],
                    &mut run.out,
                );
                self.complete = true;
                return;
            }
            at += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        run.out.truncate(start);
        run.body = BodyPlace::Streamed { whole: false };
    }

    /// Makes ready to send the request once more.
    pub(super) fn again(&mut self) {
        self.written = 0;
        self.sent = false;
        self.done = false;
        self.failed = false;
        self.complete = false;
        (self.starved, self.hungry, self.dragged) = (false, false, false);
    }

    fn write_data(&self, data: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            write_chunk(out, data);
        } else {
            out.extend_from_slice(data);
        }
    }

    fn write_end(&self, trailer: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            write_chunk_head(out, 0);
            out.extend_from_slice(trailer);
            out.extend_from_slice(b"\r\n");
        }
    }

    pub(super) fn waits_for_upstream(&self, out: &[u8]) -> bool {
        self.written < out.len()
    }

    /// Moves the request towards the instance. Ready when all of it is written.
    #[allow(clippy::too_many_arguments, reason = "the parts of a request that an upload touches")]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Socket,
        up: &Socket,
        inb: &mut crate::buffer::Buffer,
        head_len: usize,
        out: &mut Vec<u8>,
        replay: &mut Replay,
        half_closed: &mut bool,
    ) -> Poll<Result<(), UploadError>> {
        self.hungry = false;
        loop {
            while self.written < out.len() {
                match up.poll_write(cx, &out[self.written..]) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                        return Poll::Ready(Err(UploadError::Upstream));
                    }
                    Poll::Ready(Ok(wrote)) => {
                        self.written += wrote;
                        self.sent = true;
                        self.moved += wrote as u64;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.complete {
                return match up.poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                    Poll::Ready(Err(_)) => Poll::Ready(Err(UploadError::Upstream)),
                    Poll::Pending => Poll::Pending,
                };
            }
            out.clear();
            self.written = 0;
            let step = match self.reader.step(&inb.filled()[head_len..]) {
                Ok(step) => step,
                Err(refusal) => return Poll::Ready(Err(UploadError::Refused(refusal))),
            };
            let body = &inb.filled()[head_len..];
            let data = &body[step.data.clone()];
            if !data.is_empty() {
                self.replayable = self.replayable && replay.keep(data, self.replay_max);
                self.write_data(data, out);
            }
            if step.done {
                self.write_end(&body[step.trailer.clone()], out);
                self.complete = true;
            }
            inb.remove(head_len, head_len + step.consumed);
            if step.consumed > 0 || step.done {
                continue;
            }
            ready!(self.poll_client(cx, client, inb, half_closed))?;
        }
    }

    /// Takes more of the body from the client, and moves none of it.
    pub(super) fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &Socket,
        inb: &mut crate::buffer::Buffer,
        half_closed: &mut bool,
    ) -> Poll<Result<(), UploadError>> {
        // A client that ended its side in the middle of its request: nothing whole can come of it.
        let read = if *half_closed {
            Ok(0)
        } else {
            match client.poll_read(cx, inb.space()) {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    (self.starved, self.hungry) = (true, true);
                    return Poll::Pending;
                }
            }
        };
        match read {
            Ok(read) if read > 0 => {
                inb.advance(read);
                Poll::Ready(Ok(()))
            }
            ended => {
                *half_closed |= ended.is_ok();
                self.starved = true;
                Poll::Ready(Err(UploadError::ClientGone))
            }
        }
    }
}
