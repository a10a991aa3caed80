//! Sending a request and waiting for its reply's head.

use super::call::Call;
use super::relay::STREAMS_AFTER;
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
use crate::worker::Worker;
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
    /// The client went on with its body, and there was no turn at the instance for the rest of it.
    NoTurn,
}

/// Where sending a body and waiting for its reply stands.
pub(super) enum Step<T> {
    Over(T),
    /// The client has been silent in the middle of its request for so long that the turn goes to somebody else.
    Stalled,
    /// It went on.
    Resumed,
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
            let waited = self.wait_stream(client, call, up, pick, upload, deadline).await;
            return (Some(connection), waited);
        }
        upload.begin(self);
        self.upb.clear();
        let mut waited =
            self.wait(client, call, &connection.socket, connection.reused, pick, upload, deadline).await;
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
    ///
    /// A client that falls silent in the middle of its body gives its turn at the instance back, and waits for another
    /// when it goes on: what it sent is kept from the instance until then.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    async fn wait(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        up: &Socket,
        reused: bool,
        pick: &mut Pick,
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
        let mut until = patience(upload, call.started);
        client.timer.set(until);
        let began = worker.lately();
        let mut sent_before = 0;
        let mut informed = false;
        loop {
            let Client { socket, timer, half_closed, .. } = &mut *client;
            let Self { inb, upb, out, replay, request, response, .. } = &mut *self;
            let head_len = request.len;
            let paused = pick.is_paused();
            let step = poll_fn(|cx| {
                if paused {
                    match upload.poll_client(cx, socket, inb, half_closed) {
                        Poll::Ready(Ok(())) => return Poll::Ready(Step::Resumed),
                        Poll::Ready(Err(_)) => return Poll::Ready(Step::Over(Waited::ClientGone)),
                        Poll::Pending => {}
                    }
                } else if !upload.done && !upload.failed {
                    match upload.poll(cx, socket, up, inb, head_len, out, replay, half_closed) {
                        Poll::Ready(Ok(())) => {
                            upload.ends(|| worker.now().saturating_sub(began));
                            if !strict && request.framing != Framing::None {
                                until = deadline.instant().max(worker.now() + timeouts.request);
                            }
                            timer.set(until);
                        }
                        Poll::Ready(Err(UploadError::Upstream)) => upload.failed = true,
                        Poll::Ready(Err(UploadError::ClientGone)) => {
                            return Poll::Ready(Step::Over(Waited::ClientGone));
                        }
                        Poll::Ready(Err(UploadError::Refused(refusal))) => {
                            return Poll::Ready(Step::Over(Waited::ClientRefused(refusal)));
                        }
                        Poll::Pending => {
                            if upload.moved != sent_before {
                                sent_before = upload.moved;
                                let now = worker.now();
                                until = patience(upload, now);
                                timer.set(if upload.hungry { until.min(now + STREAMS_AFTER) } else { until });
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
                            return Poll::Ready(Step::Over(Waited::Failed(said.unwrap_or(outcome))));
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
                                    return Poll::Ready(Step::Over(Waited::Invalid));
                                }
                                return Poll::Ready(Step::Over(Waited::Head));
                            }
                            Ok(Progress::Complete) if response.status < 200 => {
                                // Informational replies are passed on as they are; HTTP/1.0 has none.
                                informed = true;
                                if request.minor == 1
                                    && write_informational(cx, socket, &upb.filled()[..response.len]).is_err()
                                {
                                    return Poll::Ready(Step::Over(Waited::ClientGone));
                                }
                                upb.remove(0, response.len);
                            }
                            Ok(Progress::Complete) => return Poll::Ready(Step::Over(Waited::Head)),
                            Err(_) => {
                                worker.cells.upstream_invalid.add(1);
                                return Poll::Ready(Step::Over(Waited::Invalid));
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
                            return Poll::Ready(Step::Over(Waited::ClientGone));
                        }
                        Poll::Ready(Ok(0)) => *half_closed = true,
                        Poll::Ready(Ok(read)) => {
                            inb.advance(read);
                            worker.cells.bytes_in.add(read as u64);
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Step::Over(Waited::ClientGone)),
                        Poll::Pending => {}
                    }
                }
                match timer.poll(cx) {
                    Poll::Ready(()) if upload.hungry && worker.now() < until => Poll::Ready(Step::Stalled),
                    // It is the client who is late, and the instance must not be blamed for it.
                    Poll::Ready(())
                        if !upload.done && (!strict || upload.hungry) && !upload.waits_for_upstream(out) =>
                    {
                        Poll::Ready(Step::Over(Waited::ClientTimedOut))
                    }
                    Poll::Ready(()) => Poll::Ready(Step::Over(Waited::Failed(Outcome::Timeout))),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            match step {
                Step::Over(waited) => return waited,
                Step::Stalled => {
                    pick.pause(worker.now());
                    client.timer.set(until);
                }
                Step::Resumed => {
                    if let Err(waited) = resume(&worker, client, pick, deadline, strict).await {
                        return waited;
                    }
                    until = patience(upload, worker.now());
                    client.timer.set(until);
                }
            }
        }
    }
}

/// The client goes on with a body in which it had fallen silent: another turn is needed for the rest.
pub(super) async fn resume(
    worker: &Worker,
    client: &Client,
    pick: &mut Pick,
    deadline: Deadline,
    strict: bool,
) -> Result<(), Waited> {
    // Where nobody has said by when there must be an answer, the time for it begins when the request has arrived.
    let longest = worker.now() + worker.plan().config.timeouts.request;
    let deadline = if strict { deadline } else { Deadline::at(deadline.instant().max(longest)) };
    match crate::connect::another_turn(worker, Caller::of(client), pick, deadline).await {
        Ok(()) => Ok(()),
        Err(NoConnection::ClientGone) => Err(Waited::ClientGone),
        Err(NoConnection::Failed(_)) => Err(Waited::NoTurn),
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
