//! Several copies of one request, where the edge hedges: when the first is silent for too long another is sent elsewhere,
//! and whichever is answered well first is the answer.
//!
//! ```text
//! gather → first copy ──────── silent ─────────┬→ its answer, or the other's: the rest are given up
//!                                after `hedge` └→ second copy
//! ```
//! Only for requests that may be done twice and are at hand whole, because a copy needs all of it. Each copy has its own
//! turn at its instance, its own connection and its own place for a reply's head, so that dropping it gives back all of
//! that: its connection is closed, its stream reset, its turn given to the next. A copy that fails while another runs is
//! no answer; the last one to fail is, and may be retried. Informational replies are not passed on: nobody could tell
//! which copy they belong to. *Whether* another copy is sent is the policy crate's decision, with a budget of its own.

use super::call::{Asked, Call};
use super::send::Waited;
use super::streams::read_reply;
use super::tries::{Tries, count_outcome, hint_of, outcome_of, rest};
use super::upload::Upload;
use crate::buffer::Buffer;
use crate::connect::{Caller, NoConnection};
use crate::edge::{EdgeState, Pick};
use crate::h2::{Body, Stream, status_behind};
use crate::heads::{Passport, write_request};
use crate::http1::{Framing, HeadLimits, Kind, Progress, RequestHead, ResponseHead, parse_response};
use crate::identity::Trace;
use crate::pipe::{put_spare, take_spare};
use crate::plan::RoutePlan;
use crate::serve::{Client, Run, head_limits};
use crate::socket::Socket;
use crate::timers::Timer;
use crate::upstream::Connection;
use crate::way::Lost;
use crate::worker::Worker;
use policy::settings::{Hedge, Priority};
use policy::{Deadline, HedgeNext, HedgeState, Outcome};
use smallvec::SmallVec;
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// What one request remembers of its copies, over all retries.
#[derive(Debug)]
pub(super) struct Hedging {
    settings: Hedge,
    state: HedgeState,
    sent: u8,
    /// The request's body, framed for HTTP/1 or as it goes into a stream.
    body: Vec<u8>,
}

/// What every copy is made of.
struct Question<'a> {
    head: &'a RequestHead,
    bytes: Vec<u8>,
    body: &'a [u8],
    route: &'a RoutePlan,
    peer: SocketAddr,
    tls: bool,
    trusted: bool,
    request_id: Option<[u8; 36]>,
    trace: Trace,
    priority: Priority,
    via: &'a str,
    direct: bool,
    grpc: bool,
    retried: u8,
}

/// One copy under way.
struct Running<'a> {
    /// Its place in the call's list of attempts.
    at: usize,
    address: (SocketAddr, u16),
    set_out: Rc<Cell<Option<SetOut>>>,
    future: Pin<Box<dyn Future<Output = Ended> + 'a>>,
}

/// When a copy's turn came and when it had a connection.
#[derive(Clone, Copy, Debug)]
struct SetOut {
    turn: Nanos,
    connected: Nanos,
}

/// A copy that came to an end by itself.
pub(super) struct Ended {
    pub(super) pick: Pick,
    pub(super) connection: Option<Connection>,
    pub(super) waited: Waited,
    buffer: Buffer,
    response: ResponseHead,
}

/// Finishes the pick of a copy that is given up.
struct Picked<'a> {
    worker: &'a Worker,
    edge: &'a EdgeState,
    pick: Option<Pick>,
}

impl Drop for Picked<'_> {
    fn drop(&mut self) {
        if let Some(pick) = self.pick.take() {
            let now = self.worker.now();
            let elapsed = now.saturating_sub(pick.started);
            self.edge.cells().hedges_cancelled.add(1);
            self.edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
        }
    }
}

impl Run {
    /// Whether copies of this request may be sent. If so, its body is at hand whole, for which it is waited until a copy
    /// would be due. One that is too long, or still on its way then, is carried as it comes.
    pub(super) async fn gather(
        &mut self,
        client: &mut Client,
        edge: &EdgeState,
        upload: &mut Upload,
    ) -> Option<Hedging> {
        let settings = edge.settings().hedge.filter(|hedge| hedge.copies > 1)?;
        let may_repeat = self.request.method.is_idempotent() || edge.retry_settings().non_idempotent;
        let too_long =
            matches!(self.request.framing, Framing::Length(length) if length > upload.replay_max as u64);
        if !may_repeat || too_long || self.request.upgrade || self.request.expects_continue {
            return None;
        }
        let worker = self.worker.clone();
        client.timer.set(worker.now() + settings.after);
        let mut body = Vec::new();
        if let Some(from) = client.socket.stream() {
            let (replay, max) = (&mut self.replay, upload.replay_max);
            let timer = &client.timer;
            let framing = self.request.framing;
            let whole = framing == Framing::None
                || poll_fn(|cx| {
                    loop {
                        match from.poll_body(cx) {
                            Poll::Ready(Body::Data) => {
                                let kept = from.take_body(|bytes| {
                                    let fits = replay.len() + bytes.len() <= max && replay.keep(bytes, max);
                                    (if fits { bytes.len() } else { 0 }, fits)
                                });
                                if !kept {
                                    return Poll::Ready(false);
                                }
                            }
                            // A trailer cannot be sent twice.
                            Poll::Ready(Body::End) => return Poll::Ready(from.is_at_end()),
                            Poll::Ready(Body::Broken(_)) => return Poll::Ready(false),
                            Poll::Pending => return timer.poll(cx).map(|()| false),
                        }
                    }
                })
                .await;
            if !whole {
                return None;
            }
            body.extend_from_slice(replay);
        } else {
            while self.whole_len().is_none() {
                let (inb, timer, socket) = (&mut self.inb, &client.timer, &client.socket);
                if client.half_closed || !inb.has_space() {
                    return None;
                }
                let read = poll_fn(|cx| match socket.poll_read(cx, inb.space()) {
                    Poll::Ready(read) => Poll::Ready(read.ok()),
                    Poll::Pending => timer.poll(cx).map(|()| None),
                });
                match read.await {
                    None => return None,
                    Some(0) => client.half_closed = true,
                    Some(read) => {
                        worker.cells.bytes_in.add(read as u64);
                        self.inb.advance(read);
                    }
                }
            }
            self.out.clear();
            upload.begin(self);
            if !upload.complete {
                return None;
            }
            body.extend_from_slice(&self.out);
        }
        let state = HedgeState::start(worker.now());
        Some(Hedging { settings, state, sent: 1, body })
    }

    /// Sends the request to the picked instance and, as time goes by, to others. `None` when the client has left; every
    /// copy is given up then.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    pub(super) async fn race(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        edge: &Rc<EdgeState>,
        (pick, deadline): (Pick, Deadline),
        tries: &mut Tries,
        hedging: &mut Hedging,
        upload: &mut Upload,
    ) -> Option<(Pick, Option<Connection>, Waited)> {
        let worker = self.worker.clone();
        let plan = worker.plan();
        let asked = Asked {
            head: &self.request,
            buffer: self.inb.filled(),
            door: &client.door,
            peer: client.peer,
            tls: client.tls,
        };
        let trusted = asked.is_trusted();
        let grpc = self.is_grpc();
        let Self { inb, request, .. } = self;
        let question = Question {
            head: request,
            bytes: inb.filled()[..request.len].to_vec(),
            body: &hedging.body,
            route,
            peer: client.peer,
            tls: client.tls,
            trusted,
            request_id: call.request_id,
            trace: call.trace,
            priority: call.priority,
            via: &plan.config.node.name,
            direct: client.socket.stream().is_some(),
            grpc,
            retried: tries.retried(),
        };
        let start = |call: &Call, pick: Pick, deadline: Deadline| {
            Running {
                at: call.current,
                address: (pick.instance.address, pick.instance.version),
                set_out: Rc::default(),
                future: Box::pin(std::future::pending()),
            }
            .on_its_way(&worker, edge, &question, pick, (call.client_span, deadline))
        };
        let Client { socket, timer, half_closed, .. } = client;
        let mut copies = SmallVec::<[Running<'_>; 2]>::new();
        copies.push(start(call, pick, deadline));
        let after = hedging.settings.after;
        timer.set(worker.now() + after);
        let ended = poll_fn(|cx| {
            if has_left(cx, socket, inb, half_closed, &worker) {
                return Poll::Ready(None);
            }
            loop {
                if let Some(ended) = first_answer(cx, &mut copies, &worker, edge, call) {
                    return Poll::Ready(Some(ended));
                }
                if timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = worker.now();
                let next = edge.hedge(&mut hedging.state, call.deadline, now);
                timer.set(match next {
                    HedgeNext::Send => now + after,
                    HedgeNext::WaitUntil(at) => at,
                    HedgeNext::Wait | HedgeNext::Finish => Nanos::MAX,
                });
                if next == HedgeNext::Send {
                    hedging.sent += 1;
                    // Where nobody else is left, one more of the same to the same would only be more load.
                    if let Some((pick, deadline)) = tries.pick_hedge(&worker, edge, call) {
                        edge.cells().hedges.add(1);
                        copies.push(start(call, pick, deadline));
                    }
                } else if hedging.sent < hedging.settings.copies && !call.deadline.has_passed(now) {
                    edge.cells().hedges_refused.add(u64::from(next == HedgeNext::Wait));
                }
            }
        })
        .await;
        let now = worker.now();
        for copy in copies.drain(..) {
            copy.note(call, now, Outcome::Cancelled);
        }
        drop(copies);
        let ended = ended?;
        let sent = question.bytes.len() + question.body.len();
        (upload.done, upload.complete, upload.sent) = (true, true, true);
        upload.moved += sent as u64;
        let hedged = call.tries.get(call.current).is_some_and(|it| it.is_hedge);
        edge.cells().hedges_won.add(u64::from(hedged && matches!(ended.waited, Waited::Head)));
        self.upb = ended.buffer;
        self.response = ended.response;
        Some((ended.pick, ended.connection, ended.waited))
    }
}

impl<'a> Running<'a> {
    /// The same copy, with somebody who carries it.
    fn on_its_way(
        mut self,
        worker: &'a Rc<Worker>,
        edge: &'a Rc<EdgeState>,
        question: &'a Question<'a>,
        pick: Pick,
        (span, deadline): (u64, Deadline),
    ) -> Self {
        let set_out = self.set_out.clone();
        self.future = Box::pin(carry(worker, edge, question, pick, span, deadline, set_out));
        self
    }

    /// Tells the call what became of it.
    fn note(&self, call: &mut Call, now: Nanos, outcome: Outcome) {
        let since_start = now.saturating_sub(call.started);
        let (deadline, started) = (call.deadline, call.started);
        let Some(it) = call.tries.get_mut(self.at) else { return };
        it.lasted = since_start.saturating_sub(it.began);
        it.outcome = outcome;
        if let Some(SetOut { turn, connected }) = self.set_out.get() {
            it.queue_wait = turn.saturating_sub(started).saturating_sub(it.began);
            it.pool_wait = connected.saturating_sub(turn);
            it.deadline_left = (!deadline.is_never()).then(|| deadline.left(connected));
        }
    }
}

/// Lets every copy move on. One that is answered well ends the race, and so does the last one that fails.
fn first_answer(
    cx: &mut Context<'_>,
    copies: &mut SmallVec<[Running<'_>; 2]>,
    worker: &Worker,
    edge: &EdgeState,
    call: &mut Call,
) -> Option<Ended> {
    let mut at = 0;
    while at < copies.len() {
        let Poll::Ready(ended) = copies[at].future.as_mut().poll(cx) else {
            at += 1;
            continue;
        };
        let copy = copies.remove(at);
        let outcome = match ended.waited {
            Waited::Head => outcome_of(&ended.response, ended.buffer.filled()),
            Waited::Failed(outcome) => outcome,
            _ => Outcome::Reset,
        };
        let now = worker.now();
        copy.note(call, now, outcome);
        if copies.is_empty() || !outcome.is_failure() && outcome.is_counted() {
            call.current = copy.at;
            call.instance = Some(copy.address);
            call.client_span = call.tries.get(copy.at).map_or(call.client_span, |it| it.span);
            return Some(ended);
        }
        count_outcome(edge, outcome);
        let hint = match ended.waited {
            Waited::Head => hint_of(&ended.response, ended.buffer.filled(), outcome),
            _ => policy::Hint::None,
        };
        let elapsed = now.saturating_sub(ended.pick.started);
        edge.finish(ended.pick, outcome, elapsed, rest(hint), now);
    }
    None
}

/// Nobody waits for the answer any more. What the client sends meanwhile is kept.
fn has_left(
    cx: &mut Context<'_>,
    socket: &Socket,
    inb: &mut Buffer,
    half_closed: &mut bool,
    worker: &Worker,
) -> bool {
    if let Some(from) = socket.stream() {
        return from.poll_broken(cx).is_ready();
    }
    while !*half_closed && inb.has_space() {
        match socket.poll_read(cx, inb.space()) {
            Poll::Ready(Ok(0)) if socket.ends_both_ways() => return true,
            Poll::Ready(Ok(0)) => *half_closed = true,
            Poll::Ready(Ok(read)) => {
                inb.advance(read);
                worker.cells.bytes_in.add(read as u64);
            }
            Poll::Ready(Err(_)) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

/// One copy's way: its turn, a connection, the request, and the head of its reply.
async fn carry(
    worker: &Rc<Worker>,
    edge: &Rc<EdgeState>,
    question: &Question<'_>,
    pick: Pick,
    span: u64,
    deadline: Deadline,
    set_out: Rc<Cell<Option<SetOut>>>,
) -> Ended {
    let mut picked = Picked { worker, edge, pick: Some(pick) };
    let timer = worker.timers.timer();
    let mut buffer = worker.buffers.take();
    let mut response = ResponseHead::default();
    let mut connection = None;
    let waited = match picked.pick.as_mut() {
        Some(pick) => {
            let caller = Caller { timer: &timer, socket: None, half_closed: false, direct: question.direct };
            let (lent, waited) = ask(
                worker,
                edge,
                question,
                pick,
                (span, deadline),
                caller,
                &set_out,
                &mut buffer,
                &mut response,
            )
            .await;
            connection = lent;
            waited
        }
        None => Waited::Failed(Outcome::Cancelled),
    };
    let pick = picked.pick.take().expect("only this takes it, and only here");
    Ended { pick, connection, waited, buffer, response }
}

#[allow(clippy::too_many_arguments, reason = "the phases of one copy share its parts")]
async fn ask(
    worker: &Rc<Worker>,
    edge: &EdgeState,
    question: &Question<'_>,
    pick: &mut Pick,
    (span, deadline): (u64, Deadline),
    caller: Caller<'_>,
    set_out: &Cell<Option<SetOut>>,
    buffer: &mut Buffer,
    response: &mut ResponseHead,
) -> (Option<Connection>, Waited) {
    let connection = match crate::connect::connect(worker, caller, edge, pick, deadline).await {
        Ok(connection) => connection,
        Err(NoConnection::ClientGone) => return (None, Waited::Failed(Outcome::Timeout)),
        Err(NoConnection::Failed(outcome)) => return (None, Waited::Failed(outcome)),
    };
    match crate::way::travel(worker, caller, edge, pick, deadline).await {
        Ok(()) => {}
        Err(Lost::ClientGone) => return (None, Waited::Failed(Outcome::Timeout)),
        Err(Lost::To(outcome)) => return (None, Waited::Failed(outcome)),
    }
    set_out.set(Some(SetOut { turn: pick.started, connected: worker.now() }));
    let passport = Passport {
        peer: question.peer,
        tls: question.tls,
        trusted: question.trusted,
        request_id: question.request_id.as_ref(),
        trace: &question.trace,
        span,
        deadline,
        attempt: question.retried,
        priority: question.priority,
        instance: Some(pick.instance.address),
        via: question.via,
    };
    let mut message = take_spare();
    write_request(question.head, &question.bytes, question.route, &passport, pick.started, &mut message);
    caller.timer.set(deadline.instant());
    let waited = match connection.socket.stream() {
        Some(up) => hear_stream(worker, up, question, &message, caller.timer, buffer, response).await,
        None => {
            message.extend_from_slice(question.body);
            hear(worker, &connection, question, &message, caller.timer, buffer, response).await
        }
    };
    put_spare(message);
    (Some(connection), waited)
}

/// Writes the message and reads until the head of its reply is here, both at once.
async fn hear(
    worker: &Worker,
    connection: &Connection,
    question: &Question<'_>,
    message: &[u8],
    timer: &Timer,
    buffer: &mut Buffer,
    response: &mut ResponseHead,
) -> Waited {
    let up = &connection.socket;
    let limits = head_limits(&worker.plan().config.limits);
    let limits = HeadLimits { bytes: limits.bytes.min(buffer.size()), ..limits };
    let (mut written, mut broken, mut informed) = (0, false, false);
    let waited = poll_fn(|cx| {
        while written < message.len() && !broken {
            match up.poll_write(cx, &message[written..]) {
                Poll::Ready(Ok(wrote)) if wrote > 0 => written += wrote,
                Poll::Ready(_) => broken = true,
                Poll::Pending => break,
            }
        }
        if written == message.len() {
            broken |= matches!(up.poll_flush(cx), Poll::Ready(Err(_)));
        }
        loop {
            match up.poll_read(cx, buffer.space()) {
                Poll::Ready(Ok(0) | Err(_)) => {
                    let nothing = buffer.is_empty();
                    let stale = connection.reused && nothing && !informed;
                    let said = up.fault().filter(|_| nothing);
                    let guess = if stale { Outcome::Stale } else { Outcome::Reset };
                    return Poll::Ready(Waited::Failed(said.unwrap_or(guess)));
                }
                Poll::Ready(Ok(read)) => buffer.advance(read),
                Poll::Pending => return timer.poll(cx).map(|()| Waited::Failed(Outcome::Timeout)),
            }
            while !buffer.is_empty() {
                match parse_response(buffer.filled(), &limits, question.head.method, response) {
                    Ok(Progress::Partial) => break,
                    Ok(Progress::Complete)
                        if (100..200).contains(&response.status) && response.status != 101 =>
                    {
                        informed = true;
                        buffer.remove(0, response.len);
                    }
                    Ok(Progress::Complete) if response.status != 101 => return Poll::Ready(Waited::Head),
                    Ok(Progress::Complete) | Err(_) => {
                        worker.cells.upstream_invalid.add(1);
                        return Poll::Ready(Waited::Invalid);
                    }
                }
            }
        }
    })
    .await;
    let unsent = || async { written == 0 || up.reached_nobody().await };
    match waited {
        Waited::Failed(Outcome::Stale) if unsent().await => Waited::Failed(Outcome::NeverSent),
        waited => waited,
    }
}

/// The same with a stream.
async fn hear_stream(
    worker: &Worker,
    up: &Stream,
    question: &Question<'_>,
    head: &[u8],
    timer: &Timer,
    buffer: &mut Buffer,
    response: &mut ResponseHead,
) -> Waited {
    if let Err(broken) = up.send_request(head, question.body.is_empty()) {
        return Waited::Failed(broken.outcome());
    }
    let mut left = question.body;
    loop {
        let said = poll_fn(|cx| {
            while !left.is_empty() {
                match up.poll_send(cx, left, true) {
                    Poll::Ready(Ok(sent)) => left = &left[sent..],
                    Poll::Ready(Err(_)) => left = &[],
                    Poll::Pending => break,
                }
            }
            match up.poll_head(cx) {
                Poll::Ready(said) => Poll::Ready(said.map_err(|broken| broken.outcome())),
                Poll::Pending => timer.poll(cx).map(|()| Err(Outcome::Timeout)),
            }
        })
        .await;
        let mut text = match said {
            Ok(text) => text,
            Err(outcome) => return Waited::Failed(outcome),
        };
        let mut good = read_reply(worker, &text, question.head.method, buffer, response);
        if good && response.status < 200 {
            put_spare(text);
            continue;
        }
        if good && question.grpc && !up.is_at_end() && !response.has(Kind::GrpcStatus) {
            let before = text.len();
            status_behind(up, &mut text).await;
            good = text.len() == before || read_reply(worker, &text, question.head.method, buffer, response);
        }
        put_spare(text);
        if !good {
            worker.cells.upstream_invalid.add(1);
            return Waited::Invalid;
        }
        return Waited::Head;
    }
}
