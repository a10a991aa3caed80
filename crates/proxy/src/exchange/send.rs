//! Sending a request and waiting for its reply's head.

use super::call::Call;
use super::upload::{Upload, UploadError};
use crate::connect::{Caller, NoConnection};
use crate::edge::{EdgeState, Pick};
use crate::heads::write_request;
use crate::http1::{Framing, Progress, Refusal, parse_response};
use crate::plan::RoutePlan;
use crate::serve::{Client, Run, head_limits};
use crate::socket::Socket;
use crate::upstream::Connection;
use crate::way::Lost;
use policy::{Deadline, Outcome};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use units::Nanos;

/// How waiting for a reply's head ended.
pub(super) enum Waited {
    Head,
    Failed(Outcome),
    /// The instance answered something that is no reply.
    Invalid,
    ClientGone,
    ClientRefused(Refusal),
    ClientTimedOut,
}

impl Run {
    /// One attempt: a connection, the request, and the reply's head.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    pub(super) async fn attempt(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        edge: &EdgeState,
        pick: &mut Pick,
        deadline: Deadline,
        upload: &mut Upload,
        attempt: u8,
    ) -> (Option<Connection>, Waited) {
        let worker = self.worker.clone();
        let connection =
            match crate::connect::connect(&worker, Caller::of(client), edge, pick, deadline).await {
                Ok(connection) => connection,
                Err(NoConnection::ClientGone) => return (None, Waited::ClientGone),
                Err(NoConnection::Failed(outcome)) => return (None, Waited::Failed(outcome)),
            };
        match crate::way::travel(&worker, Caller::of(client), edge, pick, deadline).await {
            Ok(()) => {}
            // The connection was not used, and goes.
            Err(Lost::ClientGone) => return (None, Waited::ClientGone),
            Err(Lost::To(outcome)) => return (None, Waited::Failed(outcome)),
        }
        let plan = worker.plan();
        // A connection that was kept took no time to get.
        let now = if connection.reused { worker.lately() } else { worker.now() };
        call.try_sets_out(now, pick, deadline);
        let passport =
            call.passport(self.asked(client), call.client_span, deadline, attempt, &plan.config.node.name);
        self.out.clear();
        write_request(&self.request, self.inb.filled(), route, &passport, pick.started, &mut self.out);
        upload.written = 0;
        if let Some(up) = connection.socket.stream() {
            let waited = self.wait_stream(client, call, up, upload, deadline).await;
            return (Some(connection), waited);
        }
        upload.begin(self);
        self.upb.clear();
        let mut waited =
            self.wait(client, call, &connection.socket, connection.reused, upload, deadline).await;
        if matches!(waited, Waited::Failed(Outcome::Stale))
            && upload.replayable
            && (!upload.sent || connection.socket.reached_nobody().await)
        {
            // Proof, so that even what must not be done twice is sent again.
            waited = Waited::Failed(Outcome::NeverSent);
        }
        (Some(connection), waited)
    }

    /// Sends the rest of the request and waits for the reply's head, both at once: an instance may answer early.
    async fn wait(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        up: &Socket,
        reused: bool,
        upload: &mut Upload,
        deadline: Deadline,
    ) -> Waited {
        let worker = self.worker.clone();
        let plan = worker.plan();
        let timeouts = &plan.config.timeouts;
        let limits = {
            let mut limits = head_limits(&plan.config.limits);
            limits.bytes = limits.bytes.min(self.upb.size());
            limits
        };
        // A body that is still arriving may take its time, as long as it moves.
        let strict = call.strict;
        let patience = |upload: &Upload, now: Nanos| {
            if upload.complete || strict { deadline.instant() } else { now + timeouts.body_read }
        };
        client.timer.set(patience(upload, call.started));
        let began = worker.lately();
        let Client { socket, timer, half_closed, .. } = client;
        let Self { inb, upb, out, replay, request, response, .. } = self;
        let head_len = request.len;
        let mut sent_before = 0;
        let mut informed = false;
        poll_fn(|cx| {
            if !upload.done && !upload.failed {
                match upload.poll(cx, socket, up, inb, head_len, out, replay, half_closed) {
                    Poll::Ready(Ok(())) => {
                        upload.ends(|| worker.now().saturating_sub(began));
                        if !strict && request.framing != Framing::None {
                            timer.set(deadline.instant().max(worker.now() + timeouts.request));
                        }
                    }
                    Poll::Ready(Err(UploadError::Upstream)) => upload.failed = true,
                    Poll::Ready(Err(UploadError::ClientGone)) => return Poll::Ready(Waited::ClientGone),
                    Poll::Ready(Err(UploadError::Refused(refusal))) => {
                        return Poll::Ready(Waited::ClientRefused(refusal));
                    }
                    Poll::Pending => {
                        if upload.moved != sent_before {
                            sent_before = upload.moved;
                            timer.set(patience(upload, worker.now()));
                        }
                    }
                }
            }
            loop {
                match up.poll_read(cx, upb.space()) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                        // Nothing came back on a connection that had been idle: most likely it was closed while our
                        // request was on its way.
                        let outcome = if reused && upb.is_empty() && !informed {
                            Outcome::Stale
                        } else {
                            Outcome::Reset
                        };
                        let said = up.fault().filter(|_| upb.is_empty());
                        return Poll::Ready(Waited::Failed(said.unwrap_or(outcome)));
                    }
                    Poll::Ready(Ok(read)) => upb.advance(read),
                    Poll::Pending => break,
                }
                loop {
                    match parse_response(upb.filled(), &limits, request.method, response) {
                        Ok(Progress::Partial) => break,
                        Ok(Progress::Complete) if response.status == 101 => {
                            // Nobody asked for another protocol, or not all of the asking has arrived: an instance that
                            // changes it anyway is broken.
                            if !request.upgrade || !response.upgrade || !upload.done {
                                worker.cells.upstream_invalid.add(1);
                                return Poll::Ready(Waited::Invalid);
                            }
                            return Poll::Ready(Waited::Head);
                        }
                        Ok(Progress::Complete) if response.status < 200 => {
                            // Informational replies are passed on as they are; HTTP/1.0 has none.
                            informed = true;
                            if request.minor == 1
                                && write_informational(cx, socket, &upb.filled()[..response.len]).is_err()
                            {
                                return Poll::Ready(Waited::ClientGone);
                            }
                            upb.remove(0, response.len);
                        }
                        Ok(Progress::Complete) => return Poll::Ready(Waited::Head),
                        Err(_) => {
                            worker.cells.upstream_invalid.add(1);
                            return Poll::Ready(Waited::Invalid);
                        }
                    }
                    if upb.is_empty() {
                        break;
                    }
                }
            }
            // A client that leaves while its request is under way is noticed here; what it sends meanwhile is kept.
            if upload.done && !*half_closed && inb.has_space() {
                match socket.poll_read(cx, inb.space()) {
                    Poll::Ready(Ok(0)) if socket.ends_both_ways() => {
                        return Poll::Ready(Waited::ClientGone);
                    }
                    Poll::Ready(Ok(0)) => *half_closed = true,
                    Poll::Ready(Ok(read)) => {
                        inb.advance(read);
                        worker.cells.bytes_in.add(read as u64);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Waited::ClientGone),
                    Poll::Pending => {}
                }
            }
            match timer.poll(cx) {
                Poll::Ready(()) if !upload.done && !strict && !upload.waits_for_upstream(out) => {
                    Poll::Ready(Waited::ClientTimedOut)
                }
                Poll::Ready(()) => Poll::Ready(Waited::Failed(Outcome::Timeout)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Informational replies are short. One that does not fit into the socket's buffer is dropped: they are hints.
fn write_informational(cx: &mut Context<'_>, client: &Socket, bytes: &[u8]) -> io::Result<()> {
    match client.poll_write(cx, bytes) {
        Poll::Ready(Ok(wrote)) if wrote == bytes.len() => Ok(()),
        Poll::Ready(Ok(_)) => Err(io::ErrorKind::WriteZero.into()),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(()),
    }
}
