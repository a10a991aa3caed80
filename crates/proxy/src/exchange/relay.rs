//! Relaying a reply to its client, and what is left of the request the other way.

use super::After;
use super::answer::Answer;
use super::call::Call;
use super::tries::{outcome_of, rest};
use super::upload::Upload;
use crate::edge::{EdgeState, Pick};
use crate::heads::{BodyOut, write_response};
use crate::http1::{BodyReader, Framing, write_chunk};
use crate::plan::RoutePlan;
use crate::serve::{BodyPlace, Client, Run};
use crate::socket::Socket;
use crate::upstream::Connection;
use crate::worker::{LARGE, Worker};
use policy::{Hint, Outcome};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// A reply whose body takes this much longer than its head is a stream.
pub(super) const STREAMS_AFTER: Nanos = Nanos::from_millis(100);

const COPIED_MAX: usize = 4 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Client,
    Instance,
}

/// Slows a reply down to so many bytes a second.
struct Pace {
    rate: u64,
    began: Nanos,
    sleep: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Pace {
    fn poll(&mut self, cx: &mut Context<'_>, sent: u64, worker: &Worker) -> Poll<()> {
        let due = self.began
            + Nanos((u128::from(sent) * 1_000_000_000 / u128::from(self.rate)).min(1 << 62) as u64);
        if worker.now() >= due {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(std::time::Duration::ZERO)));
        sleep.as_mut().reset(worker.clock.instant(due));
        sleep.as_mut().poll(cx)
    }
}

/// How relaying a reply ended.
struct Relayed {
    /// The client has all of it.
    complete: bool,
    /// The client has some of it.
    begun: bool,
    /// The instance's connection is at the end of the reply and may carry another request.
    reusable: bool,
    client_gone: bool,
}

impl Run {
    pub(super) fn note_streamed(&mut self, upload: &Upload) {
        if let BodyPlace::Streamed { whole } = &mut self.body {
            *whole = upload.reader.is_done();
        }
    }

    /// Relays the reply whose head is in `upb`, and keeps the connections that may be kept.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    pub(super) async fn reply(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        edge: &Rc<EdgeState>,
        edge_slot: u32,
        mut pick: Pick,
        connection: Connection,
        elapsed: Nanos,
        hint: Hint,
        mut upload: Upload,
    ) -> After {
        let worker = self.worker.clone();
        let status = self.response.status;
        let judged = outcome_of(&self.response, self.upb.filled());
        call.note_grpc(judged);
        if status == 101 {
            return crate::tunnel::upgraded(
                self,
                client,
                call,
                route,
                (edge, edge_slot),
                pick,
                connection,
                elapsed,
            )
            .await;
        }
        let minor = self.request.minor;
        let body = match self.response.framing {
            Framing::None | Framing::Length(_) => BodyOut::Plain,
            Framing::Chunked | Framing::UntilClose if minor == 1 => BodyOut::Chunked,
            Framing::Chunked | Framing::UntilClose => BodyOut::UntilClose,
        };
        // A request that is not over when its reply is would leave its body on the connection.
        let early = !upload.done;
        call.keep_alive &= body != BodyOut::UntilClose && !early && !worker.draining.get();
        self.reply.clear();
        let date = || worker.date.get(worker.clock.unix(worker.now()));
        write_response(
            &self.response,
            self.upb.filled(),
            route,
            (minor, call.keep_alive),
            date,
            body,
            &mut self.reply,
        );
        let head_len = self.response.len;
        let relayed =
            self.relay(client, call, &connection.socket, &mut pick, &mut upload, body, head_len).await;
        self.note_streamed(&upload);
        let now = worker.now();
        // A body that follows its head closely was ready with it; one that trickles is a stream.
        let relaying = now.saturating_sub(pick.started).saturating_sub(elapsed);
        pick.is_stream |= relaying > elapsed.max(STREAMS_AFTER);
        let outcome = match (relayed.complete, relayed.client_gone) {
            (true, _) => judged,
            (false, true) => Outcome::Cancelled,
            (false, false) => Outcome::Reset,
        };
        if !relayed.complete && !relayed.client_gone {
            edge.cells().resets.add(1);
        }
        edge.finish(pick, outcome, elapsed, rest(hint), now);
        if relayed.reusable && self.response.keep_alive && upload.done && relayed.complete {
            let idle = edge.service.plan.borrow().config.idle_timeout;
            connection.keep(now, idle, self.response.keep_alive_secs);
        } else {
            drop(connection);
        }
        if !relayed.complete && !relayed.begun && !relayed.client_gone {
            // Nothing was sent yet, so the client can still be told what happened.
            call.keep_alive &= upload.done;
            let answer = Answer::new(502, "invalid-reply", edge.name());
            return self.answer(client, call, Some(route), Some(edge), answer).await;
        }
        let error = if relayed.complete {
            ""
        } else if relayed.client_gone {
            "client-gone"
        } else {
            "reply-cut-short"
        };
        call.conclude(&worker, self.asked(client), Some(route), Some((edge, edge_slot)), status, error);
        if !relayed.complete {
            // The client must see that the body is not whole: a reset, or for lack of better the missing last chunk.
            if body == BodyOut::UntilClose {
                client.socket.reset_on_close();
            }
            return After::Close;
        }
        self.after_reply(call, early)
    }

    /// What comes after a reply that was sent whole.
    fn after_reply(&mut self, call: &Call, early: bool) -> After {
        if early {
            return After::Linger;
        }
        match self.whole_len() {
            Some(len) => self.inb.remove(0, len),
            None => return After::Linger,
        }
        if call.keep_alive { After::Next } else { After::Linger }
    }

    /// Moves the reply from the instance to the client, and what is left of the request the other way.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    async fn relay(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        up: &Socket,
        pick: &mut Pick,
        upload: &mut Upload,
        body: BodyOut,
        head_len: usize,
    ) -> Relayed {
        let worker = self.worker.clone();
        let plan = worker.plan();
        let timeouts = &plan.config.timeouts;
        let mut reader = BodyReader::new(self.response.framing);
        let limit = if call.strict { call.deadline.instant() } else { Nanos::MAX };
        let Client { socket, timer, half_closed, .. } = client;
        let Self { inb, upb, out, reply, replay, request, .. } = self;
        let request_len = request.len;
        // Bytes of `upb` that are dealt with, and bytes of `reply` that are written.
        let mut at = head_len;
        let mut written = 0;
        // Of `upb`: body that goes out from where it lies.
        let mut direct = 0..0;
        let mut trailer_written = false;
        let mut total = 0u64;
        let mut in_total = 0u64;
        let mut waiting = Waiting::Nothing;
        let mut until = Nanos::MAX;
        let mut fresh = true;
        let mut pace =
            call.bytes_per_second.map(|rate| Pace { rate: rate.max(1), began: worker.now(), sleep: None });
        let relayed = poll_fn(|cx| {
            loop {
                if !upload.done && !upload.failed {
                    match upload.poll(cx, socket, up, inb, request_len, out, replay, half_closed) {
                        Poll::Ready(Ok(())) => upload.done = true,
                        Poll::Ready(Err(_)) => upload.failed = true,
                        Poll::Pending => {}
                    }
                }
                // 1. What is ready goes out. The head waits for the first of the body, so that both are one write.
                let head_only = fresh && at < upb.len() && !reader.is_done();
                fresh = false;
                while !head_only && written < reply.len() || !direct.is_empty() {
                    if let Some(pace) = &mut pace
                        && pace.poll(cx, total, &worker).is_pending()
                    {
                        return Poll::Pending;
                    }
                    match socket.poll_write_two(cx, &reply[written..], &upb.filled()[direct.clone()]) {
                        Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                            return Poll::Ready(Relayed {
                                complete: false,
                                begun: total > 0,
                                reusable: false,
                                client_gone: true,
                            });
                        }
                        Poll::Ready(Ok(mut wrote)) => {
                            waiting = Waiting::Nothing;
                            total += wrote as u64;
                            let of_reply = wrote.min(reply.len() - written);
                            written += of_reply;
                            wrote -= of_reply;
                            direct.start += wrote;
                        }
                        Poll::Pending => {
                            if waiting != Waiting::Client {
                                waiting = Waiting::Client;
                                timer.set(limit.min(worker.now() + timeouts.write));
                            }
                            return timer.poll(cx).map(|()| {
                                worker.cells.write_timeouts.add(1);
                                Relayed {
                                    complete: false,
                                    begun: total > 0,
                                    reusable: false,
                                    client_gone: true,
                                }
                            });
                        }
                    }
                }
                if !head_only {
                    reply.clear();
                    written = 0;
                    direct = 0..0;
                }
                // 2. What was read becomes ready.
                if reader.is_done() {
                    if body == BodyOut::Chunked && !trailer_written {
                        trailer_written = true;
                        reply.extend_from_slice(b"0\r\n\r\n");
                        continue;
                    }
                    if socket.poll_flush(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // Bytes behind the end belong to no request; such a connection is not trusted with another.
                    let clean = at == upb.len();
                    if !clean {
                        worker.cells.upstream_invalid.add(1);
                    }
                    return Poll::Ready(Relayed {
                        complete: true,
                        begun: true,
                        reusable: clean,
                        client_gone: false,
                    });
                }
                if at < upb.len() {
                    match reader.step(&upb.filled()[at..]) {
                        Ok(step) => {
                            let data = at + step.data.start..at + step.data.end;
                            if !data.is_empty() {
                                in_total += data.len() as u64;
                                match body {
                                    BodyOut::Chunked => write_chunk(reply, &upb.filled()[data]),
                                    // Copying a little is cheaper than telling the kernel about two places.
                                    BodyOut::Plain | BodyOut::UntilClose if data.len() <= COPIED_MAX => {
                                        reply.extend_from_slice(&upb.filled()[data]);
                                    }
                                    BodyOut::Plain | BodyOut::UntilClose => direct = data,
                                }
                            }
                            if step.done && body == BodyOut::Chunked {
                                trailer_written = true;
                                reply.extend_from_slice(b"0\r\n");
                                reply.extend_from_slice(
                                    &upb.filled()[at + step.trailer.start..at + step.trailer.end],
                                );
                                reply.extend_from_slice(b"\r\n");
                            }
                            at += step.consumed;
                            // Nothing consumed and nothing done: the rest of a trailer must arrive first.
                            if step.consumed > 0 || step.done {
                                continue;
                            }
                        }
                        Err(_) => {
                            worker.cells.upstream_invalid.add(1);
                            return Poll::Ready(Relayed {
                                complete: false,
                                begun: total > 0,
                                reusable: false,
                                client_gone: false,
                            });
                        }
                    }
                }
                // 3. More is read.
                if at == upb.len() {
                    upb.clear();
                    at = 0;
                    if upb.size() < LARGE && reader.remaining().is_some_and(|left| left > LARGE as u64 / 4) {
                        *upb = worker.large.take();
                    }
                } else if !upb.has_space() {
                    upb.remove(0, at);
                    at = 0;
                }
                match up.poll_read(cx, upb.space()) {
                    Poll::Ready(Ok(0)) => {
                        if reader.end_of_stream() {
                            continue;
                        }
                        return Poll::Ready(Relayed {
                            complete: false,
                            begun: total > 0,
                            reusable: false,
                            client_gone: false,
                        });
                    }
                    Poll::Ready(Ok(read)) => {
                        waiting = Waiting::Nothing;
                        upb.advance(read);
                    }
                    Poll::Ready(Err(_)) => {
                        return Poll::Ready(Relayed {
                            complete: false,
                            begun: total > 0,
                            reusable: false,
                            client_gone: false,
                        });
                    }
                    Poll::Pending => {
                        if waiting != Waiting::Instance {
                            waiting = Waiting::Instance;
                            let now = worker.now();
                            until = limit.min(now + timeouts.stream_idle);
                            timer.set(if pick.is_paused() { until } else { until.min(now + STREAMS_AFTER) });
                        }
                        // A client that left while nothing was being written to it is noticed by its socket.
                        if upload.done && !*half_closed && inb.has_space() {
                            match socket.poll_read(cx, inb.space()) {
                                Poll::Ready(Ok(0)) => *half_closed = true,
                                Poll::Ready(Ok(read)) => inb.advance(read),
                                Poll::Ready(Err(_)) => {
                                    return Poll::Ready(Relayed {
                                        complete: false,
                                        begun: total > 0,
                                        reusable: false,
                                        client_gone: true,
                                    });
                                }
                                Poll::Pending => {}
                            }
                        }
                        if !pick.is_paused() && timer.poll(cx).is_ready() && worker.now() < until {
                            // An instance with nothing to say for so long is one that waits for something to happen.
                            // A thousand who listen to it must not keep those out who ask it something.
                            pick.pause(worker.now());
                            timer.set(until);
                        }
                        return timer.poll(cx).map(|()| Relayed {
                            complete: false,
                            begun: total > 0,
                            reusable: false,
                            client_gone: false,
                        });
                    }
                }
            }
        })
        .await;
        worker.cells.bytes_out.add(total);
        call.response_bytes = in_total;
        relayed
    }
}
