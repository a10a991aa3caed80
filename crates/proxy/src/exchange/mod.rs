//! One request's way: identify, route, admit, pick, send, wait, judge, reply, record.
//!
//! ```text
//! mod     the way itself, over HTTP/1 bytes      send     the request out, the reply's head in
//! call    identity, deadline, conclusion         upload   the request's body
//! admit   limits, faults, targets                relay    the reply's body
//! tries   attempts and their verdicts            answer   replies of our own
//! race    several copies where an edge hedges     streams  all of that from stream to stream
//! ```
//! `call`, `admit` and `tries` decide and move no bytes, so that HTTP/2 streams are carried by the same decisions.
//! What goes wrong on the way becomes either another attempt or a reply of our own; a request that was read is always
//! answered, unless its client has left.

pub(crate) mod admit;
pub(crate) mod answer;
pub(crate) mod call;
mod race;
mod relay;
mod send;
mod streams;
pub(crate) mod tries;
mod upload;

use crate::config::{AbortKind, Action};
use crate::edge::EdgeState;
use crate::plan::RoutePlan;
use crate::serve::{BodyPlace, Client, Run};
use crate::worker::Worker;
use admit::{Destination, Trouble};
use answer::{Answer, failed_answer, refused_answer};
pub(crate) use call::{Asked, Call};
use policy::{Hint, Outcome};
use send::Waited;
use std::rc::Rc;
use tries::{Tries, Verdict, hint_of, outcome_of, rest};
use upload::Upload;

/// What the connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Next,
    Close,
    /// Close, but let the client read its reply first.
    Linger,
}

impl Run {
    /// Carries the request whose head was read.
    pub(crate) async fn exchange(&mut self, client: &mut Client) -> After {
        let worker = self.worker.clone();
        let cells = &worker.cells;
        cells.requests.add(1);
        cells.requests_in_flight.add(1);
        let after = self.carry(client, &worker).await;
        cells.requests_in_flight.sub(1);
        after
    }

    /// The request in progress, as decisions see it.
    pub(crate) fn asked<'a>(&'a self, client: &'a Client) -> Asked<'a> {
        Asked {
            head: &self.request,
            buffer: self.inb.filled(),
            door: &client.door,
            peer: client.peer,
            tls: client.tls,
        }
    }

    async fn carry(&mut self, client: &mut Client, worker: &Rc<Worker>) -> After {
        self.body = BodyPlace::Buffer;
        let door = client.door.plan();
        let max = worker.plan().config.limits.requests_per_connection;
        let last = max.is_some_and(|max| client.served >= max);
        // A client that ended its side may have sent more requests before: they are served, and then there are no more.
        let keep_alive = self.request.keep_alive && !last;
        let mut call = Call::identify(worker, self.asked(client), keep_alive);
        let Some(entry) = door.router.find(&self.request, self.inb.filled()) else {
            worker.cells.no_route.add(1);
            let answer = Answer::new(404, "no-route", "");
            return self.answer(client, &call, None, None, answer).await;
        };
        let route = &entry.item;
        if let Some(answer) = admit::refusal(worker, self.asked(client), route, &call) {
            return self.answer(client, &call, Some(route), None, answer).await;
        }
        if route.has_fault
            && let Some(after) = self.suffer(client, worker, route, &mut call).await
        {
            return after;
        }
        match &route.route.action {
            Action::Forward(_) => match Destination::choose(worker, self.asked(client), route) {
                Ok(destination) => self.forward(client, &mut call, route, &destination).await,
                Err(answer) => self.answer(client, &call, Some(route), None, answer).await,
            },
            Action::Redirect(redirect) => {
                let redirect = redirect.clone();
                self.redirect(client, &call, route, &redirect).await
            }
            Action::Reply(reply) => {
                let reply = reply.clone();
                self.direct(client, &call, route, &reply).await
            }
        }
    }

    /// Trouble made on purpose.
    async fn suffer(
        &mut self,
        client: &mut Client,
        worker: &Rc<Worker>,
        route: &RoutePlan,
        call: &mut Call,
    ) -> Option<After> {
        let trouble = Trouble::draw(worker, self.asked(client), route);
        call.bytes_per_second = trouble.bytes_per_second;
        call.fault = trouble.name();
        if let Some(delay) = trouble.delay {
            // Exact to a millisecond: a delay is what somebody measures.
            tokio::time::sleep_until(worker.clock.instant(worker.now() + delay)).await;
        }
        match trouble.abort? {
            AbortKind::Reset => {
                client.socket.reset_on_close();
                call.conclude(worker, self.asked(client), Some(route), None, 0, "fault-abort");
                Some(After::Close)
            }
            AbortKind::Status(status) => {
                let answer = Answer::new(status, "fault-abort", "");
                Some(self.answer(client, call, Some(route), None, answer).await)
            }
            AbortKind::Grpc(code) => {
                call.note_grpc(Outcome::Grpc(code));
                Some(self.direct(client, call, route, &admit::grpc_abort(code)).await)
            }
        }
    }

    /// Picks, sends, waits and judges until there is a reply; then relays it.
    async fn forward(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        destination: &Destination,
    ) -> After {
        let worker = self.worker.clone();
        let (edge, edge_slot) = (&destination.edge, destination.slot);
        if let Err(answer) = call.take_edge(&worker, self.asked(client), edge) {
            return self.answer(client, call, Some(route), Some(edge), answer).await;
        }
        if route.mirror_edge.is_some() {
            let body = self.whole_len().map(|end| &self.inb.filled()[self.request.len..end]);
            crate::mirror::mirror(&worker, self.asked(client), route, call, body);
        }
        self.replay.forget();
        let mut upload = Upload::new(self.request.framing, &worker.plan().config.limits);
        let mut tries = Tries::new(destination.version, call::hash_of(edge, self.asked(client)));
        let mut hedging = match edge.settings().hedge {
            Some(_) => Box::pin(self.gather(client, edge, &mut upload)).await,
            None => None,
        };
        loop {
            let (mut pick, deadline) = match tries.pick(&worker, edge, call) {
                Ok(picked) => picked,
                Err(refused) => {
                    let answer = refused_answer(refused, edge);
                    return self.answer(client, call, Some(route), Some(edge), answer).await;
                }
            };
            let (connection, waited) = match &mut hedging {
                None => {
                    self.attempt(client, call, route, edge, &mut pick, deadline, &mut upload, tries.retried())
                        .await
                }
                Some(hedging) => {
                    let first = (pick, deadline);
                    let race = self.race(client, call, route, edge, first, &mut tries, hedging, &mut upload);
                    // Its state is large, and few edges hedge.
                    let Some(ended) = Box::pin(race).await else {
                        return self.client_left(client, call, route, (edge, edge_slot));
                    };
                    let (connection, waited);
                    (pick, connection, waited) = ended;
                    (connection, waited)
                }
            };
            pick.is_stream |= upload.kept_waiting();
            let now = worker.now();
            let elapsed = pick.elapsed(now);
            let invalid = matches!(waited, Waited::Invalid);
            let answered = matches!(waited, Waited::Head);
            let outcome = match waited {
                Waited::Head => outcome_of(&self.response, self.upb.filled()),
                Waited::Failed(outcome) => outcome,
                Waited::Invalid => Outcome::Reset,
                Waited::ClientGone => {
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    return self.client_left(client, call, route, (edge, edge_slot));
                }
                Waited::ClientRefused(refusal) => {
                    worker.cells.refused(refusal);
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    call.keep_alive = false;
                    let answer = Answer::new(refusal.status(), refusal.name(), "");
                    return self.answer(client, call, Some(route), Some(edge), answer).await;
                }
                Waited::NoTurn => {
                    // The instance has a part of it, so it cannot be said that sending it elsewhere would do no harm.
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    call.keep_alive = false;
                    let answer = failed_answer(Outcome::Shed, edge);
                    return self.answer(client, call, Some(route), Some(edge), answer).await;
                }
                Waited::ClientTimedOut => {
                    worker.cells.body_timeouts.add(1);
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    call.keep_alive = false;
                    let answer = Answer::new(408, "body-timeout", "");
                    return self.answer(client, call, Some(route), Some(edge), answer).await;
                }
            };
            call.try_ends(now, outcome);
            let hint =
                if answered { hint_of(&self.response, self.upb.filled(), outcome) } else { Hint::None };
            let once_more = (self.request.method.is_idempotent(), upload.replayable);
            if let Verdict::Again { wait } =
                tries.judge(&worker, edge, outcome, hint, once_more, call.deadline)
            {
                edge.finish(pick, outcome, elapsed, rest(hint), now);
                drop(connection);
                upload.again();
                Tries::rest(&worker, wait).await;
                continue;
            }
            if upload.done {
                // What is answered is not sent again, and a long answer must not hold on to it.
                upload.replayable = false;
                self.replay.forget();
            }
            call.upstream = elapsed;
            call.request_bytes = upload.moved;
            self.note_streamed(&upload);
            let Some(connection) = connection.filter(|_| answered) else {
                edge.finish(pick, outcome, elapsed, None, now);
                let answer = if invalid {
                    Answer::new(502, "invalid-reply", edge.name())
                } else {
                    failed_answer(outcome, edge)
                };
                return self.answer(client, call, Some(route), Some(edge), answer).await;
            };
            if connection.socket.stream().is_some() {
                return self
                    .reply_stream(client, call, route, destination, pick, connection, elapsed, hint, upload)
                    .await;
            }
            return self
                .reply(client, call, route, edge, edge_slot, pick, connection, elapsed, hint, upload)
                .await;
        }
    }

    /// Nobody waits for the answer any more.
    fn client_left(
        &self,
        client: &Client,
        call: &Call,
        route: &RoutePlan,
        (edge, slot): (&Rc<EdgeState>, u32),
    ) -> After {
        edge.cells().cancelled.add(1);
        self.worker.cells.client_gone.add(1);
        call.conclude(&self.worker, self.asked(client), Some(route), Some((edge, slot)), 0, "client-gone");
        After::Close
    }
}
