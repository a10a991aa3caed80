//! What is known of one call, and how it is told when it is over.
//!
//! Nothing here touches a socket: a call that came as an HTTP/2 stream is begun, bounded in time and concluded by the
//! same functions as one that came over HTTP/1.

use super::answer::Answer;
use crate::edge::{EdgeState, Pick};
use crate::h2::status_of_grpc;
use crate::heads::Passport;
use crate::http1::{Kind, RequestHead};
use crate::identity::{Trace, is_sane_id, new_request_id, time_left};
use crate::plan::RoutePlan;
use crate::quota::{Admission, Full, retry_after};
use crate::record::{Counted, Finished, PATH_BYTES, Try};
use crate::router::find_pair;
use crate::series::Ended;
use crate::stats::class_of;
use crate::upstream::stable_hash;
use crate::worker::{Door, Worker};
use policy::settings::{BalanceKind, HashOn, Priority};
use policy::{Deadline, Outcome};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use units::Nanos;

/// What was asked, by whom, and through which door: a request's head with the bytes it points into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) buffer: &'a [u8],
    pub(crate) door: &'a Door,
    pub(crate) peer: SocketAddr,
    pub(crate) tls: bool,
}

impl<'a> Asked<'a> {
    pub(crate) fn find(&self, kind: Kind) -> Option<&'a [u8]> {
        self.head.find(kind, self.buffer)
    }

    /// Whether what the request says about itself is believed.
    pub(crate) fn is_trusted(&self) -> bool {
        self.door.plan.borrow().config.trusts_headers
    }
}

/// What is known about a request before it goes anywhere, and what is learnt on its way.
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
    /// Every attempt so far, the last one perhaps under way.
    pub(crate) tries: SmallVec<[Try; 1]>,
    /// The one among them that counts: the last, but where a copy sent earlier was answered first.
    pub(crate) current: usize,
    /// Trouble made on purpose that this call met.
    pub(crate) fault: &'static str,
    /// The instance asked last, and its version.
    pub(crate) instance: Option<(SocketAddr, u16)>,
    pub(crate) upstream: Nanos,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// The code that an answer over gRPC ended with.
    pub(crate) grpc: Option<u8>,
    /// The share of the response's bandwidth, if a fault limits it.
    pub(crate) bytes_per_second: Option<u64>,
    /// How unwillingly it is dropped; its next hop is told.
    pub(crate) priority: Priority,
    /// Its place among the calls that the edge allows at once; given back when it ends.
    admission: RefCell<Option<Admission>>,
}

impl Call {
    /// Who is it, since when, and until when? `keep_alive` is what the connection's own rules say.
    pub(crate) fn identify(worker: &Worker, asked: Asked<'_>, keep_alive: bool) -> Self {
        let now = worker.now();
        let plan = worker.plan();
        let mut rng = worker.rng.borrow_mut();
        let trace = Trace::read(asked.head, asked.buffer, &mut rng, plan.config.trace_share.fraction());
        let given = asked.find(Kind::RequestId).is_some_and(is_sane_id);
        let left = if asked.is_trusted() { time_left(asked.head, asked.buffer) } else { None };
        let keep_alive = keep_alive && !worker.draining.get() && !asked.door.closing.get();
        let room = crate::limits::allows_keep_alive(worker);
        worker.cells.keep_alive_refused.add(u64::from(keep_alive && !room));
        Self {
            started: now,
            trace,
            request_id: (!given).then(|| new_request_id(&mut rng)),
            deadline: left.map_or(Deadline::NEVER, |left| Deadline::within(now, left)),
            strict: left.is_some(),
            keep_alive: keep_alive && room,
            attempts: 0,
            client_span: 0,
            tries: SmallVec::new(),
            current: 0,
            fault: "",
            instance: None,
            upstream: Nanos::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            grpc: None,
            bytes_per_second: None,
            priority: stated_priority(asked).unwrap_or_default(),
            admission: RefCell::new(None),
        }
    }

    /// The call takes this edge: its time-out and its limits hold from here on. The answer is for a call that may not.
    pub(crate) fn take_edge<'e>(
        &mut self,
        worker: &Worker,
        asked: Asked<'_>,
        edge: &'e EdgeState,
    ) -> Result<(), Answer<'e>> {
        // What enters has the edge's priority; what says its own is lowered by an edge and never raised.
        let edges = edge.settings().priority;
        self.priority = match stated_priority(asked) {
            None => edges,
            Some(stated) if edges == Priority::default() => stated,
            Some(stated) => stated.min(edges),
        };
        if let Some(timeout) = edge.settings().timeout {
            self.deadline = self.deadline.tighten(self.started, timeout);
            self.strict = true;
        } else if self.deadline.is_never() {
            self.deadline = Deadline::within(self.started, worker.plan().config.timeouts.request);
        }
        edge.on_request(self.started);
        if self.deadline.has_passed(self.started) {
            edge.cells().deadline_refused.add(1);
            return Err(Answer::new(504, "deadline-passed", edge.name()));
        }
        if let Some(quota) = &edge.plan.quota {
            let entered = quota.enter(self.started, self.priority, &mut worker.rng.borrow_mut());
            match entered {
                Ok(admission) => *self.admission.borrow_mut() = Some(admission),
                Err(full) => {
                    edge.cells().quota_refused.add(1);
                    return Err(match full {
                        Full::Rate(wait) => Answer {
                            retry_after_secs: Some(retry_after(wait)),
                            ..Answer::new(429, "rate-limited", edge.name())
                        },
                        Full::Throttled => {
                            Answer { retry_after_secs: Some(1), ..Answer::new(503, "throttled", edge.name()) }
                        }
                        Full::Concurrency => Answer {
                            retry_after_secs: Some(1),
                            ..Answer::new(503, "concurrency-limit", edge.name())
                        },
                    });
                }
            }
        }
        Ok(())
    }

    /// Another attempt begins.
    pub(crate) fn try_begins(&mut self, worker: &Worker, pick: &Pick, is_hedge: bool) {
        self.attempts = self.attempts.saturating_add(1);
        self.instance = Some((pick.instance.address, pick.instance.version));
        self.client_span = worker.rng.borrow_mut().next_u64() | 1;
        self.current = self.tries.len();
        self.tries.push(Try {
            span: self.client_span,
            began: pick.started.saturating_sub(self.started),
            lasted: Nanos::ZERO,
            queue_wait: Nanos::ZERO,
            pool_wait: Nanos::ZERO,
            deadline_left: None,
            instance: pick.instance.address,
            outcome: Outcome::Cancelled,
            is_hedge,
        });
    }

    /// It has a connection now.
    pub(crate) fn try_sets_out(&mut self, now: Nanos, pick: &Pick, deadline: Deadline) {
        let since_start = pick.started.saturating_sub(self.started);
        if let Some(it) = self.tries.get_mut(self.current) {
            it.queue_wait = since_start.saturating_sub(it.began);
            it.pool_wait = now.saturating_sub(pick.started);
            it.deadline_left = (!deadline.is_never()).then(|| deadline.left(now));
        }
    }

    /// Its reply's head is here, or whatever happened instead.
    pub(crate) fn try_ends(&mut self, now: Nanos, outcome: Outcome) {
        let since_start = now.saturating_sub(self.started);
        if let Some(it) = self.tries.get_mut(self.current) {
            it.lasted = since_start.saturating_sub(it.began);
            it.outcome = outcome;
        }
    }

    /// What the next hop is told, by the attempt that carries it.
    pub(crate) fn passport<'p>(
        &'p self,
        asked: Asked<'_>,
        span: u64,
        deadline: Deadline,
        attempt: u8,
        via: &'p str,
    ) -> Passport<'p> {
        Passport {
            peer: asked.peer,
            tls: asked.tls,
            trusted: asked.is_trusted(),
            request_id: self.request_id.as_ref(),
            trace: &self.trace,
            span,
            deadline,
            attempt,
            priority: self.priority,
            instance: self.instance.map(|(address, _)| address),
            via,
        }
    }

    /// An answer's head may hold its code already.
    pub(crate) fn note_grpc(&mut self, judged: Outcome) {
        if let Outcome::Grpc(code) = judged {
            self.grpc = Some(code);
        }
    }

    /// Counts, logs and tells whoever listens. Every request ends here exactly once.
    ///
    /// Over gRPC every answer is a 200 and says in its last line how it went: it is counted as the status that its code
    /// stands for, else a service that fails every call would look well.
    pub(crate) fn conclude(
        &self,
        worker: &Worker,
        asked: Asked<'_>,
        route: Option<&RoutePlan>,
        edge: Option<(&Rc<EdgeState>, u32)>,
        status: u16,
        error: &'static str,
    ) {
        let duration = worker.now().saturating_sub(self.started);
        let grpc = self.grpc.filter(|_| status == 200);
        let status = grpc.map_or(status, status_of_grpc);
        let class = class_of(status);
        let admission = self.admission.borrow_mut().take();
        if let Some(admission) = admission {
            let outcome = match (error, status) {
                ("client-gone", _) => Outcome::Cancelled,
                ("reply-cut-short", _) => Outcome::Reset,
                ("timeout", _) => Outcome::Timeout,
                (_, status) => Outcome::Status(status),
            };
            admission.finish(worker.now(), outcome, &mut worker.rng.borrow_mut());
        }
        if let Some(route) = route {
            let cells = route.cells.of(worker.index);
            cells.classes[class].add(1);
            cells.latency.record(class, duration);
        }
        if let Some((edge, _)) = edge {
            let cells = edge.cells();
            cells.classes[class].add(1);
            cells.latency.record(class, duration);
            cells.response_bytes.add(self.response_bytes);
            cells.request_bytes.add(self.request_bytes);
            if let Some((_, version)) = self.instance {
                edge.count_version(version, class, duration);
            }
        }
        // An abort made on purpose ends a request before its edge is chosen; who called still saw that edge fail.
        let meant = match (edge, route.and_then(|it| it.targets.first())) {
            (None, Some(target)) if error == "fault-abort" => {
                worker.edge(target.edge).map(|edge| (edge, target.edge))
            }
            _ => None,
        };
        let edge = edge.or(meant.as_ref().map(|(edge, slot)| (edge, *slot)));
        let counted = self.count(worker, asked, route, edge, status, error, duration);
        let log = worker.plan().config.access_log.is_some();
        let (mut events, mut ended) = (worker.events.borrow_mut(), worker.ended.borrow_mut());
        let told = !events.is_empty() || ended.is_wanted();
        if !log && !told {
            return;
        }
        if log {
            crate::access::line(worker, asked, self, edge.map(|(edge, _)| &**edge), status, duration, error);
        }
        if told {
            let mut last = self.tries.get(self.current).copied();
            if let Some(it) = &mut last {
                // The reply's body is a part of it.
                it.lasted = duration.saturating_sub(it.began);
            }
            let mut event = Finished {
                started_unix: worker.clock.unix(self.started),
                duration,
                upstream: self.upstream,
                worker: worker.index as u16,
                edge: edge.map_or(u32::MAX, |(_, slot)| slot),
                generation: worker.plan().generation,
                status,
                grpc,
                attempts: self.attempts,
                method: asked.head.method,
                trace_id: self.trace.id,
                parent_span: self.trace.parent,
                server_span: self.trace.span,
                client_span: self.client_span,
                sampled: self.trace.sampled,
                instance: self.instance.map(|(address, _)| address),
                request_bytes: self.request_bytes,
                response_bytes: self.response_bytes,
                error,
                last,
                tries: (self.tries.len() > 1).then(|| self.tries.as_slice().into()),
                counted,
                breaker_open: edge.is_some_and(|(it, _)| it.breaker_is_open(worker.now()) == Some(true)),
                ejected: status >= 500
                    && edge.zip(last).is_some_and(|((edge, _), last)| edge.has_ejected(last.instance)),
                fault: self.fault,
                path_len: 0,
                path: [0; PATH_BYTES],
            };
            event.set_path(asked.head.path(asked.buffer));
            events.retain(|receiver| match receiver.try_send(event.clone()) {
                Ok(()) => true,
                Err(crossbeam_channel::TrySendError::Full(_)) => {
                    worker.cells.events_dropped.add(1);
                    true
                }
                // Nobody listens any more.
                Err(crossbeam_channel::TrySendError::Disconnected(_)) => false,
            });
            if ended.is_wanted() && !ended.push(event) {
                worker.cells.events_dropped.add(1);
            }
        }
    }

    /// Into the series of its edge, and of its door if that is a door of the whole system.
    fn count(
        &self,
        worker: &Worker,
        asked: Asked<'_>,
        route: Option<&RoutePlan>,
        edge: Option<(&Rc<EdgeState>, u32)>,
        status: u16,
        error: &'static str,
        duration: Nanos,
    ) -> Option<Counted> {
        let mut series = worker.series.borrow_mut();
        let series = series.as_mut()?;
        let ended = Ended {
            generation: worker.plan().generation,
            route,
            instance: self.instance.map(|(address, _)| address),
            status,
            error,
            duration,
            attempts: self.attempts,
            queue_wait: self.tries.iter().fold(Nanos::ZERO, |sum, it| sum + it.queue_wait),
            pool_wait: self.tries.iter().fold(Nanos::ZERO, |sum, it| sum + it.pool_wait),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        };
        series.count_door(&asked.door.plan(), &ended);
        let (edge, slot) = edge?;
        Some(series.count(edge, slot, &ended))
    }
}

/// What ring hash and Maglev place the request by, as the edge says; `None` where nothing is said or nothing is needed.
pub(crate) fn hash_of(edge: &EdgeState, asked: Asked<'_>) -> Option<u64> {
    let settings = edge.settings();
    if !matches!(settings.balance.kind, BalanceKind::RingHash | BalanceKind::Maglev) {
        return None;
    }
    Some(match &settings.hash {
        HashOn::Source => match asked.peer.ip() {
            std::net::IpAddr::V4(address) => stable_hash(&address.octets()),
            std::net::IpAddr::V6(address) => stable_hash(&address.octets()),
        },
        HashOn::Path => stable_hash(asked.head.path(asked.buffer)),
        HashOn::Header(name) => stable_hash(asked.head.find_name(name, asked.buffer)?),
        HashOn::Cookie(name) => stable_hash(find_pair(asked.find(Kind::Cookie)?, b';', name)?),
    })
}

/// What a trusted caller says of its request's priority. A word we do not know says nothing.
fn stated_priority(asked: Asked<'_>) -> Option<Priority> {
    let said = asked.find(Kind::Priority).filter(|_| asked.is_trusted())?;
    PRIORITIES.iter().find(|(word, _)| said.eq_ignore_ascii_case(word.as_bytes())).map(|(_, it)| *it)
}

/// The words of `isobar-priority`.
pub(crate) const PRIORITIES: [(&str, Priority); 4] = [
    ("sheddable", Priority::Sheddable),
    ("sheddable-plus", Priority::SheddablePlus),
    ("critical", Priority::Critical),
    ("critical-plus", Priority::CriticalPlus),
];
