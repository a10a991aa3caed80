//! One request's way: identify, route, admit, pick, send, wait, judge, reply, record.
//!
//! Each phase is a function of that name. What goes wrong on the way becomes either another attempt or a reply of our
//! own; a request that was read is always answered, unless its client has left.

use crate::config::{AbortKind, Action, Fault};
use crate::connect::NoConnection;
use crate::edge::{EdgeState, Pick, Refused};
use crate::heads::{BodyOut, Own, Passport, write_request, write_response};
use crate::http1::{
    BodyReader, Framing, Kind, Method, Progress, Refusal, decimal, parse_response, write_chunk,
    write_chunk_head,
};
use crate::identity::{Trace, is_sane_id, new_request_id, time_left};
use crate::plan::{RoutePlan, TargetPlan};
use crate::record::{Finished, PATH_BYTES};
use crate::serve::{BodyPlace, Client, Run, head_limits};
use crate::socket::Socket;
use crate::stats::class_of;
use crate::upstream::Connection;
use crate::worker::{LARGE, Worker};
use policy::{Ask, Attempt, Deadline, Hint, Next, Outcome, RetryState, retry};
use smallvec::SmallVec;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// What the connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Next,
    Close,
    /// Close, but let the client read its reply first.
    Linger,
}

/// What is known about a request before it goes anywhere.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) started: Nanos,
    pub(crate) trace: Trace,
    pub(crate) request_id: Option<[u8; 36]>,
    pub(crate) deadline: Deadline,
    /// The deadline was asked for, by the client or the file, and so covers the reply's body, too.
    pub(crate) strict: bool,
    pub(crate) keep_alive: bool,
    pub(crate) attempts: u8,
    pub(crate) client_span: u64,
    /// The instance asked last, and its version.
    pub(crate) instance: Option<(std::net::SocketAddr, u16)>,
    pub(crate) upstream: Nanos,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// The share of the response's bandwidth, if a fault limits it.
    pub(crate) bytes_per_second: Option<u64>,
}

/// A reply of our own, in the making.
struct Answer<'a> {
    status: u16,
    error: &'static str,
    edge: &'a str,
    detail: &'a str,
    retry_after_secs: Option<u32>,
}

impl<'a> Answer<'a> {
    fn new(status: u16, error: &'static str, edge: &'a str) -> Self {
        Self { status, error, edge, detail: "", retry_after_secs: None }
    }
}

/// The request's body on its way to the instance.
#[derive(Debug)]
struct Upload {
    reader: BodyReader,
    chunked: bool,
    /// Bytes of `out` that are written.
    written: usize,
    /// The whole request is in `out`.
    complete: bool,
    done: bool,
    failed: bool,
    replay_max: usize,
    /// Bytes written to instances, over all attempts.
    moved: u64,
    /// Everything taken from the client so far is still at hand.
    replayable: bool,
}

/// How waiting for a reply's head ended.
enum Waited {
    Head,
    Failed(Outcome),
    /// The instance answered something that is no reply.
    Invalid,
    ClientGone,
    ClientRefused(Refusal),
    ClientTimedOut,
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

    async fn carry(&mut self, client: &mut Client, worker: &Rc<Worker>) -> After {
        let now = worker.now();
        self.body = BodyPlace::Buffer;
        let door = client.door.plan();
        let plan = worker.plan();
        let mut call = self.identify(client, worker, now, door.config.trusts_headers, &plan.config);
        let Some(entry) = door.router.find(&self.request, self.inb.filled()) else {
            worker.cells.no_route.add(1);
            let answer = Answer::new(404, "no-route", "");
            return self.answer(client, &call, None, None, answer).await;
        };
        let route = &entry.item;
        if let Some(after) = self.admit(client, worker, route, &mut call).await {
            return after;
        }
        match &route.route.action {
            Action::Forward(_) => {
                let Some(target) = choose(route, worker) else {
                    return self
                        .answer(client, &call, Some(route), None, Answer::new(503, "no-target", ""))
                        .await;
                };
                let Some(edge) = worker.edge(target.edge) else {
                    return self
                        .answer(client, &call, Some(route), None, Answer::new(503, "no-edge", ""))
                        .await;
                };
                let edge_slot = target.edge;
                let version = self.version(&edge, target, door.config.trusts_headers);
                self.forward(client, &mut call, route, &edge, edge_slot, version).await
            }
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

    /// Who is it, since when, until when, and does the connection stay?
    fn identify(
        &mut self,
        client: &Client,
        worker: &Worker,
        now: Nanos,
        trusted: bool,
        config: &crate::config::Config,
    ) -> Call {
        let buffer = self.inb.filled();
        let mut rng = worker.rng.borrow_mut();
        let trace = Trace::read(&self.request, buffer, &mut rng, config.trace_share.fraction());
        let given = self.request.find(Kind::RequestId, buffer).is_some_and(is_sane_id);
        let request_id = (!given).then(|| new_request_id(&mut rng));
        let left = if trusted { time_left(&self.request, buffer) } else { None };
        let last = config.limits.requests_per_connection.is_some_and(|max| client.served >= max);
        Call {
            started: now,
            trace,
            request_id,
            deadline: left.map_or(Deadline::NEVER, |left| Deadline::within(now, left)),
            strict: left.is_some(),
            keep_alive: self.request.keep_alive
                && !last
                && !client.half_closed
                && !worker.draining.get()
                && !client.door.closing.get()
                && crate::limits::allows_keep_alive(worker),
            attempts: 0,
            client_span: 0,
            instance: None,
            upstream: Nanos::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            bytes_per_second: None,
        }
    }

    /// Limits and faults that end a request before it goes anywhere.
    async fn admit(
        &mut self,
        client: &mut Client,
        worker: &Rc<Worker>,
        route: &RoutePlan,
        call: &mut Call,
    ) -> Option<After> {
        if crate::limits::refuses_requests(worker) {
            worker.cells.memory_refused.add(1);
            return Some(
                self.answer(client, call, Some(route), None, Answer::new(503, "out-of-memory", "")).await,
            );
        }
        let max = worker.plan().config.limits.request_body_bytes;
        if let (Some(max), Framing::Length(length)) = (max, self.request.framing)
            && length > max.as_u64()
        {
            worker.cells.refused(Refusal::BodyTooLong);
            let answer = Answer::new(413, Refusal::BodyTooLong.name(), "");
            return Some(self.answer(client, call, Some(route), None, answer).await);
        }
        if let Some(limit) = &route.route.rate_limit
            && !worker.allow_rate(route, limit, call.started)
        {
            route.cells.of(worker.index).limited.add(1);
            let answer = Answer { retry_after_secs: Some(1), ..Answer::new(429, "rate-limited", "") };
            return Some(self.answer(client, call, Some(route), None, answer).await);
        }
        if route.has_fault {
            return self.fault(client, worker, route, call).await;
        }
        None
    }

    /// Trouble made on purpose.
    async fn fault(
        &mut self,
        client: &mut Client,
        worker: &Rc<Worker>,
        route: &RoutePlan,
        call: &mut Call,
    ) -> Option<After> {
        if !route.fault_only.iter().all(|rule| rule.holds(&self.request, self.inb.filled())) {
            return None;
        }
        let fault = &route.route.fault;
        let (mut delay, mut abort) = (None, None);
        {
            let mut rng = worker.rng.borrow_mut();
            let mut hit = |share: units::Percent| share.fraction() > 0.0 && rng.chance(share.fraction());
            if let Some(planned) = &fault.delay {
                delay = hit(planned.share).then_some(planned.delay);
            }
            if let Some(planned) = &fault.abort {
                abort = hit(planned.share).then_some(planned.kind);
            }
            if let Some(planned) = &fault.bandwidth {
                call.bytes_per_second = hit(planned.share).then_some(planned.bytes_per_second);
            }
            if fault.from_headers.is_some() && self.request.has(Kind::EnvoyFault) {
                self.envoy_faults(fault, &mut hit, &mut delay, &mut abort);
            }
        }
        if delay.is_some() || abort.is_some() || call.bytes_per_second.is_some() {
            route.cells.of(worker.index).faults.add(1);
        }
        if let Some(delay) = delay {
            // Exact to a millisecond: a delay is what somebody measures.
            tokio::time::sleep_until(worker.clock.instant(worker.now() + delay)).await;
        }
        match abort? {
            AbortKind::Reset => {
                client.socket.reset_on_close();
                self.conclude(client, call, Some(route), None, 0, "fault-abort");
                Some(After::Close)
            }
            AbortKind::Status(status) => Some(
                self.answer(client, call, Some(route), None, Answer::new(status, "fault-abort", "")).await,
            ),
            AbortKind::Grpc(code) => {
                let reply = crate::config::Reply {
                    status: 200,
                    headers: vec![
                        ("content-type".into(), "application/grpc".into()),
                        ("grpc-status".into(), code.to_string()),
                        ("grpc-message".into(), "fault-abort".into()),
                    ],
                    body: String::new(),
                };
                Some(self.direct(client, call, route, &reply).await)
            }
        }
    }

    /// `x-envoy-fault-*`: what the client asks for, capped by what the route allows.
    fn envoy_faults(
        &self,
        fault: &Fault,
        hit: &mut impl FnMut(units::Percent) -> bool,
        delay: &mut Option<Nanos>,
        abort: &mut Option<AbortKind>,
    ) {
        let buffer = self.inb.filled();
        let cap = fault.from_headers.unwrap_or_default();
        let number = |name: &str| self.request.find_name(name, buffer).and_then(decimal);
        let share = |name: &str| {
            let asked = number(name)
                .map_or(units::Percent::WHOLE, |percent| units::Percent::from_whole(percent.min(100)));
            asked.min(cap)
        };
        if let Some(ms) = number("x-envoy-fault-delay-request")
            && hit(share("x-envoy-fault-delay-request-percentage"))
        {
            *delay = Some(Nanos::from_millis(ms.min(3_600_000)));
        }
        let status = number("x-envoy-fault-abort-request").filter(|status| (200..600).contains(status));
        let grpc = number("x-envoy-fault-abort-grpc-request").filter(|code| *code <= 16);
        if (status.is_some() || grpc.is_some()) && hit(share("x-envoy-fault-abort-request-percentage")) {
            *abort = grpc
                .map(|code| AbortKind::Grpc(code as u8))
                .or(status.map(|status| AbortKind::Status(status as u16)));
        }
    }

    /// The version a request is for: its pin, if the service has that version, else the target's.
    /// A pin is `v2` for every service, or `cart=v2, web=v1`.
    fn version(&self, edge: &EdgeState, target: &TargetPlan, trusted: bool) -> Option<u16> {
        let plan = edge.service.plan.borrow();
        let index = |name: &str| plan.versions.iter().position(|version| version == name).map(|at| at as u16);
        if trusted && let Some(pin) = self.request.find(Kind::Version, self.inb.filled()) {
            let pinned = crate::http1::tokens(pin).find_map(|token| {
                let token = std::str::from_utf8(token).ok()?;
                match token.split_once('=') {
                    Some((service, version)) => index(version).filter(|_| service == plan.config.name),
                    None => index(token),
                }
            });
            if pinned.is_some() {
                return pinned;
            }
        }
        target.version.as_deref().map(|version| index(version).unwrap_or(u16::MAX))
    }

    /// Picks, sends, waits and judges until there is a reply; then relays it.
    async fn forward(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        edge: &Rc<EdgeState>,
        edge_slot: u32,
        version: Option<u16>,
    ) -> After {
        let worker = self.worker.clone();
        let settings = edge.settings();
        let plan = worker.plan();
        if let Some(timeout) = settings.timeout {
            call.deadline = call.deadline.tighten(call.started, timeout);
            call.strict = true;
        } else if call.deadline.is_never() {
            call.deadline = Deadline::within(call.started, plan.config.timeouts.request);
        }
        edge.on_request(call.started);
        if call.deadline.has_passed(call.started) {
            edge.cells().deadline_refused.add(1);
            let answer = Answer::new(504, "deadline-passed", edge.name());
            return self.answer(client, call, Some(route), Some(edge), answer).await;
        }
        if route.mirror_edge.is_some() {
            crate::mirror::mirror(self, client, route, call);
        }
        let mut upload = self.upload(&edge.plan.config);
        let mut retries = RetryState::default();
        let mut tried: SmallVec<[u32; 4]> = SmallVec::new();
        let mut transparent = false;
        loop {
            let now = worker.now();
            let picked = {
                let ask = Ask { now, hash: None, version, tried: if transparent { &[] } else { &tried } };
                let mut rng = worker.rng.borrow_mut();
                match edge.pick(&ask, &mut rng) {
                    // Everybody was tried: again with the same rather than not at all.
                    Err(Refused::AllTried) => edge.pick(&Ask { tried: &[], ..ask }, &mut rng),
                    picked => picked,
                }
            };
            let mut pick = match picked {
                Ok(pick) => pick,
                Err(refused) => {
                    let answer = refused_answer(refused, edge);
                    return self.answer(client, call, Some(route), Some(edge), answer).await;
                }
            };
            let deadline = retry::attempt_deadline(settings.retry.as_ref(), call.deadline, now);
            tried.push(pick.index);
            call.attempts = call.attempts.saturating_add(1);
            edge.cells().attempts.add(1);
            let (connection, waited) =
                self.attempt(client, call, route, edge, &mut pick, deadline, &mut upload, &retries).await;
            let now = worker.now();
            let elapsed = now.saturating_sub(pick.started);
            call.instance = Some((pick.instance.address, pick.instance.version));
            let invalid = matches!(waited, Waited::Invalid);
            let answered = matches!(waited, Waited::Head);
            let outcome = match waited {
                Waited::Head => self.outcome(),
                Waited::Failed(outcome) => outcome,
                Waited::Invalid => Outcome::Reset,
                Waited::ClientGone => {
                    edge.cells().cancelled.add(1);
                    worker.cells.client_gone.add(1);
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    self.conclude(client, call, Some(route), Some((edge, edge_slot)), 0, "client-gone");
                    return After::Close;
                }
                Waited::ClientRefused(refusal) => {
                    worker.cells.refused(refusal);
                    edge.finish(pick, Outcome::Cancelled, elapsed, None, now);
                    call.keep_alive = false;
                    let answer = Answer::new(refusal.status(), refusal.name(), "");
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
            count_outcome(edge, outcome);
            let hint = if answered { self.hint(outcome) } else { Hint::None };
            if outcome.is_failure() || !outcome.is_counted() {
                let attempt = Attempt {
                    outcome,
                    hint,
                    idempotent: self.request.method.is_idempotent(),
                    replayable: upload.replayable,
                    committed: false,
                    deadline: call.deadline,
                    expected: Nanos::ZERO,
                };
                let next = edge.next(&mut retries, &attempt, now, &mut worker.rng.borrow_mut());
                match next {
                    Next::Retry { wait, transparent: again }
                        if again
                            || worker.retries.get() < worker.share(plan.config.limits.retries_in_flight) =>
                    {
                        transparent = again;
                        edge.finish(pick, outcome, elapsed, rest(hint), now);
                        drop(connection);
                        let cell = if again { &edge.cells().replays } else { &edge.cells().retries };
                        cell.add(1);
                        upload.again();
                        if again {
                            tried.pop();
                        } else if !wait.is_zero() {
                            let _guard = worker.retry_in_flight();
                            tokio::time::sleep_until(worker.clock.instant(now + wait)).await;
                        }
                        continue;
                    }
                    Next::Retry { .. } | Next::Stop(policy::Why::BudgetEmpty) => {
                        edge.cells().retries_refused.add(1)
                    }
                    Next::Stop(_) => {}
                }
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
                if !upload.done {
                    call.keep_alive = false;
                }
                return self.answer(client, call, Some(route), Some(edge), answer).await;
            };
            return self
                .reply(client, call, route, edge, edge_slot, pick, connection, elapsed, hint, upload)
                .await;
        }
    }

    /// How the body will be sent, and whether it can be sent twice.
    fn upload(&mut self, edge: &crate::config::Edge) -> Upload {
        let reader = BodyReader::new(self.request.framing);
        self.replay.clear();
        Upload {
            done: false,
            complete: false,
            written: 0,
            failed: false,
            chunked: self.request.framing == Framing::Chunked,
            reader,
            replay_max: edge.replay_bytes_max.as_u64() as usize,
            moved: 0,
            replayable: true,
        }
    }

    /// One attempt: a connection, the request, and the reply's head.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    async fn attempt(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        route: &RoutePlan,
        edge: &EdgeState,
        pick: &mut Pick,
        deadline: Deadline,
        upload: &mut Upload,
        retries: &RetryState,
    ) -> (Option<Connection>, Waited) {
        let worker = self.worker.clone();
        let connection = match crate::connect::connect(&worker, client, edge, pick, deadline).await {
            Ok(connection) => connection,
            Err(NoConnection::ClientGone) => return (None, Waited::ClientGone),
            Err(NoConnection::Failed(outcome)) => return (None, Waited::Failed(outcome)),
        };
        let plan = worker.plan();
        call.client_span = worker.rng.borrow_mut().next_u64() | 1;
        let passport = Passport {
            peer: client.peer,
            tls: client.tls,
            trusted: client.door.plan.borrow().config.trusts_headers,
            request_id: call.request_id.as_ref(),
            trace: &call.trace,
            span: call.client_span,
            deadline,
            attempt: retries.attempt(),
            via: &plan.config.node.name,
        };
        self.out.clear();
        write_request(&self.request, self.inb.filled(), route, &passport, pick.started, &mut self.out);
        upload.written = 0;
        upload.begin(self);
        self.upb.clear();
        let waited = self.wait(client, call, &connection.socket, connection.reused, upload, deadline).await;
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
        let Client { socket, timer, half_closed, .. } = client;
        let Self { inb, upb, out, replay, request, response, .. } = self;
        let head_len = request.len;
        let mut sent_before = 0;
        let mut informed = false;
        poll_fn(|cx| {
            if !upload.done && !upload.failed {
                match upload.poll(cx, socket, up, inb, head_len, out, replay, half_closed) {
                    Poll::Ready(Ok(())) => {
                        upload.done = true;
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
                            // Nobody asked for another protocol: an instance that changes it anyway is broken.
                            if !request.upgrade || !response.upgrade {
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

    fn note_streamed(&mut self, upload: &Upload) {
        if let BodyPlace::Streamed { whole } = &mut self.body {
            *whole = upload.reader.is_done();
        }
    }

    /// What the reply's head says. A gRPC status in it is the truth, whatever HTTP says.
    fn outcome(&self) -> Outcome {
        let grpc = self.response.find(Kind::GrpcStatus, self.upb.filled()).and_then(decimal);
        grpc.map_or(Outcome::Status(self.response.status), |code| Outcome::Grpc(code.min(255) as u8))
    }

    /// What the peer said about trying again.
    fn hint(&self, outcome: Outcome) -> Hint {
        let buffer = self.upb.filled();
        if let Some(pushback) = self.response.find(Kind::GrpcPushback, buffer) {
            return decimal(pushback)
                .map_or(Hint::Never, |ms| Hint::Exactly(Nanos::from_millis(ms.min(3_600_000))));
        }
        if !matches!(outcome, Outcome::Status(429 | 503)) {
            return Hint::None;
        }
        if self.response.has(Kind::IsobarError) {
            // Another proxy has tried already. Trying here as well would multiply.
            return Hint::Never;
        }
        let after = self.response.find(Kind::RetryAfter, buffer).and_then(decimal);
        after.map_or(Hint::None, |secs| Hint::AtLeast(Nanos::from_secs(secs.min(3_600))))
    }

    /// Relays the reply whose head is in `upb`, and keeps the connections that may be kept.
    #[allow(clippy::too_many_arguments, reason = "the phases of one request share its parts")]
    async fn reply(
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
        let judged = self.outcome();
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
        call.keep_alive &=
            body != BodyOut::UntilClose && !early && !client.half_closed && !worker.draining.get();
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
        let relayed = self.relay(client, call, &connection.socket, &mut upload, body, head_len).await;
        self.note_streamed(&upload);
        let now = worker.now();
        // A body that follows its head closely was ready with it; one that trickles is a stream.
        let relaying = now.saturating_sub(pick.started).saturating_sub(elapsed);
        pick.is_stream = relaying > elapsed.max(STREAMS_AFTER);
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
        self.conclude(client, call, Some(route), Some((edge, edge_slot)), status, error);
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
    async fn relay(
        &mut self,
        client: &mut Client,
        call: &mut Call,
        up: &Socket,
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
                            timer.set(limit.min(worker.now() + timeouts.stream_idle));
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

    /// A reply from the file.
    async fn direct(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: &RoutePlan,
        reply: &crate::config::Reply,
    ) -> After {
        let keep_alive = call.keep_alive && self.whole_len().is_some();
        self.reply.clear();
        self.reply.extend_from_slice(b"HTTP/1.1 ");
        crate::identity::write_decimal(u64::from(reply.status), &mut self.reply);
        self.reply.push(b' ');
        self.reply.extend_from_slice(crate::heads::reason(reply.status).as_bytes());
        self.reply.extend_from_slice(b"\r\n");
        for (name, value) in &reply.headers {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.reply.extend_from_slice(part);
            }
        }
        let date = self.date();
        self.reply.extend_from_slice(b"date: ");
        self.reply.extend_from_slice(&date);
        if reply.status != 204 && reply.status != 304 {
            self.reply.extend_from_slice(b"\r\ncontent-length: ");
            crate::identity::write_decimal(reply.body.len() as u64, &mut self.reply);
        }
        self.reply.extend_from_slice(b"\r\n");
        crate::heads::write_connection(self.request.minor, keep_alive, &mut self.reply);
        self.reply.extend_from_slice(b"\r\n");
        if self.request.method != Method::Head && reply.status != 204 && reply.status != 304 {
            self.reply.extend_from_slice(reply.body.as_bytes());
        }
        let ok = self.write_reply(client).await;
        self.conclude(client, call, Some(route), None, reply.status, "");
        self.after_own(ok, keep_alive)
    }

    async fn redirect(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: &RoutePlan,
        redirect: &crate::config::Redirect,
    ) -> After {
        let buffer = self.inb.filled();
        let scheme = redirect.scheme.as_deref().unwrap_or(if client.tls { "https" } else { "http" });
        let host = redirect.host.as_deref().map_or(self.request.host.get(buffer), str::as_bytes);
        let mut location = Vec::new();
        for part in [scheme.as_bytes(), b"://", host] {
            location.extend_from_slice(part);
        }
        match &redirect.path {
            Some(edit) => crate::heads::write_path(&self.request, buffer, route, edit, &mut location),
            None => location.extend_from_slice(self.request.target.get(buffer)),
        }
        let reply = crate::config::Reply {
            status: redirect.status,
            headers: vec![("location".into(), String::from_utf8_lossy(&location).into_owned())],
            body: String::new(),
        };
        self.direct(client, call, route, &reply).await
    }

    /// A reply of our own because something is wrong.
    async fn answer(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: Option<&RoutePlan>,
        edge: Option<&Rc<EdgeState>>,
        answer: Answer<'_>,
    ) -> After {
        let keep_alive = call.keep_alive && self.whole_len().is_some();
        self.reply.clear();
        let own = Own {
            status: answer.status,
            error: answer.error,
            edge: answer.edge,
            detail: answer.detail,
            retry_after_secs: answer.retry_after_secs,
            with_body: self.request.method != Method::Head,
        };
        own.write((self.request.minor, keep_alive), self.date(), &mut self.reply);
        let ok = self.write_reply(client).await;
        let slot = edge.map(|edge| (edge, u32::MAX));
        self.conclude(client, call, route, slot, answer.status, answer.error);
        self.after_own(ok, keep_alive)
    }

    /// After a reply of our own: on to the next request, if this one has arrived whole.
    fn after_own(&mut self, written: bool, keep_alive: bool) -> After {
        match self.whole_len() {
            _ if !written => After::Close,
            Some(len) if keep_alive => {
                self.inb.remove(0, len);
                After::Next
            }
            _ => After::Linger,
        }
    }

    /// Bytes of the buffer that belong to the request in progress, once all of it has arrived.
    pub(crate) fn whole_len(&self) -> Option<usize> {
        match self.body {
            BodyPlace::Streamed { whole } => return whole.then_some(self.request.len),
            BodyPlace::Buffer => {}
        }
        let mut reader = BodyReader::new(self.request.framing);
        let mut at = self.request.len;
        while !reader.is_done() {
            match reader.step(&self.inb.filled()[at.min(self.inb.len())..]) {
                Ok(step) if step.consumed > 0 => at += step.consumed,
                _ => return None,
            }
        }
        Some(at)
    }

    /// Counts, logs and tells whoever listens. Every request ends here exactly once.
    pub(crate) fn conclude(
        &mut self,
        client: &Client,
        call: &Call,
        route: Option<&RoutePlan>,
        edge: Option<(&Rc<EdgeState>, u32)>,
        status: u16,
        error: &'static str,
    ) {
        let worker = &self.worker;
        let duration = worker.now().saturating_sub(call.started);
        let class = class_of(status);
        if let Some(route) = route {
            route.cells.of(worker.index).classes[class].add(1);
        }
        if let Some((edge, _)) = edge {
            let cells = edge.cells();
            cells.classes[class].add(1);
            cells.latency.record(duration);
            cells.response_bytes.add(call.response_bytes);
            cells.request_bytes.add(call.request_bytes);
            if let Some((_, version)) = call.instance {
                edge.count_version(version, class, duration);
            }
        }
        let log = worker.plan().config.access_log.is_some();
        let mut events = worker.events.borrow_mut();
        if !log && events.is_empty() {
            return;
        }
        if log {
            crate::access::line(self, client, call, edge.map(|(edge, _)| &**edge), status, duration, error);
        }
        if !events.is_empty() {
            let mut event = Finished {
                started_unix: worker.clock.unix(call.started),
                duration,
                upstream: call.upstream,
                worker: worker.index as u16,
                edge: edge.map_or(u32::MAX, |(_, slot)| slot),
                generation: worker.plan().generation,
                status,
                attempts: call.attempts,
                method: self.request.method,
                trace_id: call.trace.id,
                parent_span: call.trace.parent,
                server_span: call.trace.span,
                client_span: call.client_span,
                sampled: call.trace.sampled,
                instance: call.instance.map(|(address, _)| address),
                request_bytes: call.request_bytes,
                response_bytes: call.response_bytes,
                error,
                path_len: 0,
                path: [0; PATH_BYTES],
            };
            event.set_path(self.request.path(self.inb.filled()));
            events.retain(|receiver| match receiver.try_send(event) {
                Ok(()) => true,
                Err(crossbeam_channel::TrySendError::Full(_)) => {
                    worker.cells.events_dropped.add(1);
                    true
                }
                // Nobody listens any more.
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => false,
            });
        }
    }
}

/// A reply whose body takes this much longer than its head is a stream.
const STREAMS_AFTER: Nanos = Nanos::from_millis(100);

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

enum UploadError {
    Upstream,
    ClientGone,
    Refused(Refusal),
}

impl Upload {
    /// Puts what is at hand of the body behind the head in `out`: all of it if it is all there, which it usually is.
    fn begin(&mut self, run: &mut Run) {
        if run.request.framing == Framing::None {
            self.complete = true;
            return;
        }
        if matches!(run.body, BodyPlace::Streamed { .. }) {
            // A retry of a streamed body: what was sent before is sent again.
            let replay = std::mem::take(&mut run.replay);
            if !replay.is_empty() {
                self.write_data(&replay, &mut run.out);
            }
            run.replay = replay;
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
    fn again(&mut self) {
        self.written = 0;
        self.done = false;
        self.failed = false;
        self.complete = false;
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

    fn waits_for_upstream(&self, out: &[u8]) -> bool {
        self.written < out.len()
    }

    /// Moves the request towards the instance. Ready when all of it is written.
    #[allow(clippy::too_many_arguments, reason = "the parts of a request that an upload touches")]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Socket,
        up: &Socket,
        inb: &mut crate::buffer::Buffer,
        head_len: usize,
        out: &mut Vec<u8>,
        replay: &mut Vec<u8>,
        half_closed: &mut bool,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            while self.written < out.len() {
                match up.poll_write(cx, &out[self.written..]) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => {
                        return Poll::Ready(Err(UploadError::Upstream));
                    }
                    Poll::Ready(Ok(wrote)) => {
                        self.written += wrote;
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
                if self.replayable {
                    if replay.len() + data.len() <= self.replay_max {
                        replay.extend_from_slice(data);
                    } else {
                        self.replayable = false;
                        *replay = Vec::new();
                    }
                }
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
            if *half_closed {
                return Poll::Ready(Err(UploadError::ClientGone));
            }
            match client.poll_read(cx, inb.space()) {
                Poll::Ready(Ok(0)) => {
                    // The client ended its side in the middle of its request: nothing whole can come of it.
                    *half_closed = true;
                    return Poll::Ready(Err(UploadError::ClientGone));
                }
                Poll::Ready(Ok(read)) => inb.advance(read),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(UploadError::ClientGone)),
                Poll::Pending => return Poll::Pending,
            }
        }
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

fn rest(hint: Hint) -> Option<Nanos> {
    match hint {
        Hint::AtLeast(rest) | Hint::Exactly(rest) => Some(rest),
        Hint::None | Hint::Never => None,
    }
}

fn count_outcome(edge: &EdgeState, outcome: Outcome) {
    let cells = edge.cells();
    match outcome {
        Outcome::ConnectFailed => cells.connect_failures.add(1),
        Outcome::Reset | Outcome::Stale => cells.resets.add(1),
        Outcome::Timeout => cells.timeouts.add(1),
        _ => {}
    }
}

/// One of the targets, by weight.
fn choose<'r>(route: &'r RoutePlan, worker: &Worker) -> Option<&'r TargetPlan> {
    if let [only] = route.targets.as_slice() {
        return Some(only);
    }
    let mut point = worker.rng.borrow_mut().below(u64::from(route.weight_total)) as u32;
    route.targets.iter().find(|target| {
        let hit = point < target.weight;
        point = point.saturating_sub(target.weight);
        hit
    })
}

fn refused_answer<'e>(refused: Refused, edge: &'e EdgeState) -> Answer<'e> {
    match refused {
        Refused::NoInstance => {
            edge.cells().no_endpoint.add(1);
            Answer::new(503, "no-instance", edge.name())
        }
        Refused::NoneHealthy | Refused::AllTried => {
            edge.cells().no_endpoint.add(1);
            Answer::new(503, "no-healthy-instance", edge.name())
        }
        Refused::BreakerOpen => {
            edge.cells().breaker_refused.add(1);
            Answer { retry_after_secs: Some(1), ..Answer::new(503, "breaker-open", edge.name()) }
        }
    }
}

fn failed_answer<'e>(outcome: Outcome, edge: &'e EdgeState) -> Answer<'e> {
    match outcome {
        Outcome::ConnectFailed => Answer::new(503, "connect-failed", edge.name()),
        Outcome::Timeout => Answer::new(504, "timeout", edge.name()),
        Outcome::Shed => {
            edge.cells().limit_refused.add(1);
            Answer { retry_after_secs: Some(1), ..Answer::new(503, "overloaded", edge.name()) }
        }
        _ => Answer::new(502, "connection-lost", edge.name()),
    }
}
