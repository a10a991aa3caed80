//! A request from stream to stream: the same attempts, the same judgement, and no bytes in between.

use super::After;
use super::admit::Destination;
use super::call::Call;
use super::relay::STREAMS_AFTER;
use super::send::{Step, Waited, resume};
use super::tries::{outcome_of, rest};
use super::upload::{Upload, UploadError};
use crate::buffer::Buffer;
use crate::edge::Pick;
use crate::h2::{Body, Forward, Stream, code_in, status_behind};
use crate::heads::{BodyOut, write_response};
use crate::http1::{Framing, HeadLimits, Kind, Method, Progress, ResponseHead, parse_response};
use crate::pipe::put_spare;
use crate::plan::RoutePlan;
use crate::replay::Replay;
use crate::serve::{Client, Run, head_limits};
use crate::upstream::Connection;
use crate::worker::Worker;
use policy::{Deadline, Hint, Outcome};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use units::Nanos;

/// Moves the request's body on: what an earlier attempt took of it first, then what arrives.
fn poll_upload(
    upload: &mut Upload,
    replay: &mut Replay,
    from: &Stream,
    to: &Stream,
    cx: &mut Context<'_>,
) -> Poll<Result<(), UploadError>> {
    while upload.written < replay.len() && upload.replayable {
        let last = from.is_at_end();
        match ready!(to.poll_send(cx, &replay[upload.written..], last)) {
            Ok(sent) => {
                upload.written += sent;
                upload.moved += sent as u64;
                if last && upload.written == replay.len() {
                    return Poll::Ready(Ok(()));
                }
            }
            Err(_) => return Poll::Ready(Err(UploadError::Upstream)),
        }
    }
    let Upload { replayable, replay_max, moved, written, .. } = upload;
    let forwarded = ready!(from.poll_forward(cx, to, |bytes| {
        *moved += bytes.len() as u64;
        *replayable = *replayable && replay.keep(bytes, *replay_max);
        *written = replay.len();
    }));
    // A trailer cannot be sent twice: it is not kept.
    *replayable &= !matches!(forwarded, Ok(Some(_)));
    Poll::Ready(match forwarded {
        Ok(_) => Ok(()),
        Err(Forward::From(_)) => Err(UploadError::ClientGone),
        Err(Forward::To(_)) => Err(UploadError::Upstream),
    })
}

/// Reads a reply's head from its text, without its last, empty line. False if it is none.
pub(super) fn read_reply(
    worker: &Worker,
    text: &[u8],
    method: Method,
    into: &mut Buffer,
    response: &mut ResponseHead,
) -> bool {
    into.clear();
    into.put(text);
    into.put(b"\r\n");
    let limits = head_limits(&worker.plan().config.limits);
    let limits = HeadLimits { bytes: into.size(), ..limits };
    parse_response(into.filled(), &limits, method, response) == Ok(Progress::Complete)
}

/// How relaying a reply from stream to stream ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relayed {
    Whole,
    CutShort,
    ClientGone,
}

impl Run {
    /// Sends the request whose head is in `out`, and waits for the head of its reply.
    pub(super) async fn wait_stream(
        &mut self,
        client: &mut Client,
        call: &Call,
        up: &Stream,
        pick: &mut Pick,
        upload: &mut Upload,
        deadline: Deadline,
    ) -> Waited {
        let worker = self.worker.clone();
        let Some(from) = client.socket.stream() else { return Waited::ClientGone };
        let framing = self.request.framing;
        upload.done = framing == Framing::None;
        if let Err(broken) = up.send_request(&self.out, upload.done) {
            return Waited::Failed(broken.outcome());
        }
        let timeouts = worker.plan().config.timeouts.clone();
        // A body that is still arriving may take its time, as long as it moves.
        let strict = call.strict;
        let patience = |upload: &Upload, now: Nanos| {
            if upload.done || strict { deadline.instant() } else { now + timeouts.body_read }
        };
        let timer = &client.timer;
        let mut until = patience(upload, call.started);
        timer.set(until);
        let mut sent_before = upload.moved;
        let began = worker.lately();
        loop {
            let replay = &mut self.replay;
            let paused = pick.is_paused();
            let step = poll_fn(|cx| {
                let over = |waited| Poll::Ready(Step::Over(Err(waited)));
                if paused {
                    match from.poll_body(cx) {
                        Poll::Ready(Body::Broken(_)) => return over(Waited::ClientGone),
                        Poll::Ready(_) => return Poll::Ready(Step::Resumed),
                        Poll::Pending => {}
                    }
                } else if !upload.done && !upload.failed {
                    match poll_upload(upload, replay, from, up, cx) {
                        Poll::Ready(Ok(())) => {
                            upload.ends(|| worker.now().saturating_sub(began));
                            if !strict {
                                until = deadline.instant().max(worker.now() + timeouts.request);
                            }
                            timer.set(until);
                        }
                        Poll::Ready(Err(UploadError::Upstream)) => upload.failed = true,
                        Poll::Ready(Err(_)) => {
                            upload.starved = true;
                            return over(Waited::ClientGone);
                        }
                        Poll::Pending => {
                            upload.hungry = from.is_empty();
                            upload.starved |= upload.hungry;
                            if upload.moved != sent_before {
                                sent_before = upload.moved;
                                let now = worker.now();
                                until = patience(upload, now);
                                timer.set(if upload.hungry { until.min(now + STREAMS_AFTER) } else { until });
                            }
                        }
                    }
                }
                match up.poll_head(cx) {
                    Poll::Ready(Ok(text)) => return Poll::Ready(Step::Over(Ok(text))),
                    Poll::Ready(Err(broken)) => return over(Waited::Failed(broken.outcome())),
                    Poll::Pending => {}
                }
                if from.poll_broken(cx).is_ready() {
                    return over(Waited::ClientGone);
                }
                match timer.poll(cx) {
                    Poll::Ready(()) if upload.hungry && worker.now() < until => Poll::Ready(Step::Stalled),
                    Poll::Ready(()) if !upload.done && !strict && from.is_empty() => {
                        over(Waited::ClientTimedOut)
                    }
                    Poll::Ready(()) => over(Waited::Failed(Outcome::Timeout)),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            let mut text = match step {
                Step::Over(Ok(text)) => text,
                Step::Over(Err(waited)) => return waited,
                Step::Stalled => {
                    pick.pause(worker.now());
                    timer.set(until);
                    continue;
                }
                Step::Resumed => {
                    if let Err(waited) = resume(&worker, client, pick, deadline, strict).await {
                        return waited;
                    }
                    until = patience(upload, worker.now());
                    timer.set(until);
                    continue;
                }
            };
            if !self.read_reply(&text) {
                worker.cells.upstream_invalid.add(1);
                return Waited::Invalid;
            }
            if self.response.status < 200 {
                from.send_response(self.upb.filled(), false);
                put_spare(text);
                continue;
            }
            if !up.is_at_end() && !self.response.has(Kind::GrpcStatus) && self.is_grpc() {
                let head = text.len();
                status_behind(up, &mut text).await;
                if text.len() > head && !self.read_reply(&text) {
                    worker.cells.upstream_invalid.add(1);
                    return Waited::Invalid;
                }
            }
            put_spare(text);
            return Waited::Head;
        }
    }

    /// Reads a reply's head from its text. False if it is none.
    fn read_reply(&mut self, text: &[u8]) -> bool {
        if text.len() + 2 > self.upb.size() {
            self.upb = self.worker.buffers.take();
        }
        read_reply(&self.worker, text, self.request.method, &mut self.upb, &mut self.response)
    }

    /// Relays the reply whose head was read, and what is left of the request the other way.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    pub(super) async fn reply_stream(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        to: &Destination,
        mut pick: Pick,
        connection: Connection,
        elapsed: Nanos,
        hint: Hint,
        mut upload: Upload,
    ) -> After {
        let worker = self.worker.clone();
        let judged = outcome_of(&self.response, self.upb.filled());
        call.note_grpc(judged);
        let status = self.response.status;
        self.reply.clear();
        let date = || worker.date.get(worker.clock.unix(worker.now()));
        let form = (1, true);
        write_response(&self.response, self.upb.filled(), route, form, date, BodyOut::Plain, &mut self.reply);
        let relayed = self.relay_stream(client, call, &connection, &mut pick, &mut upload).await;
        let now = worker.now();
        // A body that follows its head closely was ready with it; one that trickles is a stream.
        let relaying = now.saturating_sub(pick.started).saturating_sub(elapsed);
        pick.is_stream |= relaying > elapsed.max(STREAMS_AFTER);
        let (outcome, error) = match relayed {
            Relayed::Whole => (call.grpc.map_or(judged, Outcome::Grpc), ""),
            Relayed::ClientGone => (Outcome::Cancelled, "client-gone"),
            Relayed::CutShort => (Outcome::Reset, "reply-cut-short"),
        };
        if relayed == Relayed::CutShort {
            to.edge.cells().resets.add(1);
        }
        to.edge.finish(pick, outcome, elapsed, rest(hint), now);
        drop(connection);
        call.conclude(&worker, self.asked(client), Some(route), Some((&to.edge, to.slot)), status, error);
        After::Close
    }

    async fn relay_stream(
        &mut self,
        client: &Client,
        call: &mut Call,
        connection: &Connection,
        pick: &mut Pick,
        upload: &mut Upload,
    ) -> Relayed {
        let (Some(to), Some(from)) = (client.socket.stream(), connection.socket.stream()) else {
            return Relayed::ClientGone;
        };
        let head_only = from.is_at_end();
        to.send_response(&self.reply, head_only);
        if head_only {
            return if to.is_broken() { Relayed::ClientGone } else { Relayed::Whole };
        }
        let worker = self.worker.clone();
        let timeouts = worker.plan().config.timeouts.clone();
        let limit = if call.strict { call.deadline.instant() } else { Nanos::MAX };
        let timer = &client.timer;
        let replay = &mut self.replay;
        let mut moved = 0u64;
        let mut noted = (u64::MAX, 0);
        let mut until = Nanos::MAX;
        let relayed = poll_fn(|cx| {
            if !upload.done && !upload.failed {
                match poll_upload(upload, replay, to, from, cx) {
                    Poll::Ready(Ok(())) => upload.done = true,
                    Poll::Ready(Err(_)) => upload.failed = true,
                    Poll::Pending => {}
                }
            }
            match from.poll_forward(cx, to, |bytes| moved += bytes.len() as u64) {
                Poll::Ready(Ok(trailer)) => {
                    call.grpc = trailer.and_then(|lines| code_in(&lines)).or(call.grpc);
                    return Poll::Ready(Relayed::Whole);
                }
                Poll::Ready(Err(Forward::From(_))) => return Poll::Ready(Relayed::CutShort),
                Poll::Ready(Err(Forward::To(_))) => return Poll::Ready(Relayed::ClientGone),
                Poll::Pending => {}
            }
            if to.poll_broken(cx).is_ready() {
                return Poll::Ready(Relayed::ClientGone);
            }
            // Whoever has something to take and does not take it is slow; otherwise the instance is.
            let client_is_slow = matches!(from.poll_body(cx), Poll::Ready(Body::Data));
            if noted != (moved, upload.moved) {
                noted = (moved, upload.moved);
                let patience = if client_is_slow { timeouts.write } else { timeouts.stream_idle };
                let now = worker.now();
                until = limit.min(now + patience);
                let quiet = !client_is_slow && !pick.is_paused();
                timer.set(if quiet { until.min(now + STREAMS_AFTER) } else { until });
            }
            if !pick.is_paused() && timer.poll(cx).is_ready() && worker.now() < until {
                // Nobody said anything for so long: whatever goes on, it is not work.
                pick.pause(worker.now());
                timer.set(until);
            }
            timer.poll(cx).map(|()| {
                if client_is_slow {
                    worker.cells.write_timeouts.add(1);
                    Relayed::ClientGone
                } else {
                    Relayed::CutShort
                }
            })
        })
        .await;
        call.response_bytes = moved;
        worker.cells.bytes_out.add(moved);
        relayed
    }
}
