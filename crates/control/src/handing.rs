//! Who hands on trace context, and who does not.
//!
//! A proxy sees what comes into an instance and what goes out of it; only the application's headers say which of the
//! one caused which of the other. Finished requests are replayed in the order of their beginnings and ends, a little
//! late, so that [`telemetry::forwarding`] can count which calls made while serving carry the trace of a request being
//! served. A service that hands on too little is said once, and stays in the status until it does better.
//!
//! It is a sample: when there is more than can be replayed, only some instances are watched at a time, each for a while and
//! then completely, since a request that was not seen would make its calls look forgotten.
//!
//! A call without context whose instance was serving exactly one request for as long as it lasted was made for that one:
//! its span is told so, as `isobar.inferred`. It keeps its own trace, for that trace has been given to others already.

use crate::edges::{EdgeName, EdgeNames};
use crate::status::{Handing, Status};
use proxy::record::Finished;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use telemetry::forwarding::{Cause, Forwarding, InboundToken, InstanceKey, Outbound, Serving};
use telemetry::ids::{SpanId, TraceId};
use units::Nanos;

/// A request that lasts longer than this is still under way when its calls are judged: they count as work in the
/// background, which says nothing for or against anybody.
const LATE: Nanos = Nanos::from_secs(3);
/// Beginnings and ends waiting. More are passed over: this is a sample, not a count.
const WAITING_MAX: usize = 50_000;
const SERVICES_MAX: usize = 10_000;
/// Calls of one tick whose spans are told what caused them.
const INFERRED_MAX: usize = 200;
/// Fewer calls prove nothing.
const CALLS_MIN: u64 = 20;
/// Headers get lost now and then; a service that forgets them forgets nearly all.
const SHARE_MIN: f64 = 0.9;

/// Finished requests replayed, a second. Enough to know a service by in a minute.
const NOTED_A_SECOND: f64 = 2_000.0;
/// How long the same instances are watched.
const TURN: Nanos = Nanos::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    // In this order at one moment: a request comes before the calls it causes, and ends after them.
    RequestBegins,
    CallBegins,
    CallEnds,
    RequestEnds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    at: Nanos,
    what: What,
    request: u64,
}

#[derive(Debug)]
struct Request {
    instance: InstanceKey,
    service: Arc<str>,
    /// Of the request itself, or what a call says it belongs to.
    trace: Option<TraceId>,
    /// Its own span, with the trace that this is in.
    span: Option<(TraceId, SpanId)>,
    /// Whom a call went to.
    callee: Box<str>,
    token: Option<InboundToken>,
    call: Option<Outbound>,
}

/// A call that began a trace of its own although another caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inferred {
    pub trace: TraceId,
    pub span: SpanId,
    /// The trace that it belongs to.
    pub cause: TraceId,
}

#[derive(Debug)]
pub struct HandingOn {
    forwarding: Forwarding,
    moments: BinaryHeap<Reverse<Moment>>,
    requests: HashMap<u64, Request, foldhash::fast::RandomState>,
    next: u64,
    /// Services that were said to hand on too little.
    said: Vec<Box<str>>,
    /// Of all instances: how many are watched.
    share: f64,
    turn: u64,
    turn_began: Nanos,
    /// Since when everybody is.
    all_since: Option<Nanos>,
    /// Requests since then, noted or not.
    came: u64,
    inferred: Vec<Inferred>,
}

impl Default for HandingOn {
    fn default() -> Self {
        Self {
            forwarding: Forwarding::new(SERVICES_MAX),
            moments: BinaryHeap::new(),
            requests: HashMap::default(),
            next: 0,
            said: Vec::new(),
            share: 1.0,
            turn: 0,
            turn_began: Nanos::ZERO,
            all_since: Some(Nanos::ZERO),
            came: 0,
            inferred: Vec::new(),
        }
    }
}

/// Everybody's number: by name for those who call, by port for those who answer.
#[derive(Debug, Default)]
pub struct Seats {
    by_name: HashMap<String, u16>,
    services: HashMap<u16, Arc<str>, foldhash::fast::RandomState>,
    /// Of those who call, by edge of a snapshot: there are thousands of requests for each.
    generation: u64,
    callers: Vec<Option<u16>>,
}

impl Seats {
    pub fn of(status: &Status) -> Self {
        let mut seats = Self::default();
        for service in &status.services {
            for it in &service.instances {
                if let Some(port) = it.port {
                    seats.by_name.insert(it.name.clone(), port);
                    seats.services.insert(port, service.name.as_str().into());
                }
            }
        }
        seats
    }

    /// Whose edges requests come over from now on. Call it whenever either changed.
    pub fn follow(&mut self, edges: &EdgeNames) {
        let caller = |at| self.by_name.get(&*edges.get(edges.generation, at)?.slot).copied();
        self.generation = edges.generation;
        self.callers = (0..edges.len() as u32).map(caller).collect();
    }
}

impl HandingOn {
    /// Other instances are there: nothing is kept of who is gone, for every start of an instance has a port of its own.
    pub fn follow(&mut self, seats: &Seats) {
        self.forwarding.retain(|it| u16::try_from(it.0).is_ok_and(|port| seats.services.contains_key(&port)));
    }

    /// Takes a finished request.
    pub fn note(&mut self, record: &Finished, edge: &EdgeName, seats: &Seats) {
        self.came += 1;
        if self.moments.len() + 4 > WAITING_MAX {
            return;
        }
        let (from, to) = (record.started_unix, record.started_unix + record.duration);
        let answerer = record.instance.filter(|it| it.ip().is_loopback()).map(|it| it.port());
        let answerer = answerer.filter(|it| self.watches(*it));
        let caller = seats.callers.get(record.edge as usize).copied().flatten();
        let caller = caller.filter(|_| record.generation == seats.generation);
        if answerer.is_none() && caller.is_none() {
            return;
        }
        // What an instance did before it was watched may be what its calls are made for, and was not seen.
        let watched_since = self.all_since.unwrap_or(self.turn_began);
        let seen_whole = watched_since == Nanos::ZERO || from >= watched_since + LATE;
        let caller = caller.filter(|it| seen_whole && self.watches(*it));
        let trace = TraceId::new(record.trace_id);
        let span = trace.zip(SpanId::new(record.client_span));
        let request = |port: u16, service: &Arc<str>, trace, callee: &str| Request {
            instance: InstanceKey(u64::from(port)),
            service: Arc::clone(service),
            trace,
            span,
            callee: callee.into(),
            token: None,
            call: None,
        };
        if let Some((port, service)) = answerer.and_then(|port| Some((port, seats.services.get(&port)?))) {
            let it = request(port, service, trace, "");
            self.wait(it, (What::RequestBegins, from), (What::RequestEnds, to));
        }
        if let Some((port, service)) = caller.and_then(|port| Some((port, seats.services.get(&port)?))) {
            // Without a parent the trace began with this call: nobody handed anything on.
            let given = trace.filter(|_| record.parent_span != 0);
            let it = request(port, service, given, &edge.callee_as_written);
            self.wait(it, (What::CallBegins, from), (What::CallEnds, to));
        }
    }

    /// Whether this instance is one of those that are watched now.
    fn watches(&self, port: u16) -> bool {
        if self.share >= 1.0 {
            return true;
        }
        let mixed = (u64::from(port) ^ self.turn << 16).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed >> 32) as f64) < self.share * f64::from(u32::MAX)
    }

    /// Others are watched, as many as can be.
    fn turn(&mut self, unix: Nanos) {
        let over = unix.saturating_sub(self.turn_began);
        if over < TURN {
            return;
        }
        // Of the first turn nobody knows how long it was.
        if self.turn_began > Nanos::ZERO {
            let rate = self.came as f64 / over.as_secs_f64();
            self.share = if rate > NOTED_A_SECOND { NOTED_A_SECOND / rate } else { 1.0 };
        }
        if self.share < 1.0 {
            self.all_since = None;
        } else {
            self.all_since.get_or_insert(unix);
        }
        (self.turn, self.turn_began, self.came) = (self.turn + 1, unix, 0);
    }

    fn wait(&mut self, it: Request, begins: (What, Nanos), ends: (What, Nanos)) {
        let request = self.next;
        self.next += 1;
        self.requests.insert(request, it);
        for (what, at) in [begins, ends] {
            self.moments.push(Reverse(Moment { at, what, request }));
        }
    }

    /// Replays what is old enough, and says which services turned out to hand on too little.
    pub fn tick(&mut self, unix: Nanos) -> Vec<(String, String)> {
        self.turn(unix);
        let until = unix.saturating_sub(LATE);
        while self.moments.peek().is_some_and(|it| it.0.at <= until) {
            let Some(Reverse(moment)) = self.moments.pop() else { break };
            self.play(moment);
        }
        let mut news = Vec::new();
        for it in self.forwarding.services() {
            let bad = breaks(it.calls, it.joined);
            let known = self.said.iter().position(|said| *said == it.service);
            match (bad, known) {
                (true, None) => {
                    news.push((it.service.to_string(), sentence(&it.service, it.calls, it.joined)));
                    self.said.push(it.service);
                }
                (false, Some(at)) if it.calls >= CALLS_MIN => {
                    self.said.swap_remove(at);
                }
                _ => {}
            }
        }
        news
    }

    fn play(&mut self, moment: Moment) {
        let Some(request) = self.requests.get_mut(&moment.request) else { return };
        let instance = request.instance;
        match moment.what {
            What::RequestBegins => {
                if let Some((trace_id, span_id)) = request.span {
                    let serving = Serving { trace_id, span_id };
                    request.token =
                        Some(self.forwarding.inbound_started(instance, &request.service, serving));
                }
            }
            What::CallBegins => {
                request.call = Some(self.forwarding.outbound_started(instance, request.trace))
            }
            What::CallEnds => {
                if let Some(call) = request.call.take() {
                    let cause = self.forwarding.outbound_ended(instance, &request.callee, call, moment.at);
                    if let (Cause::Inferred(serving), Some((trace, span))) = (cause, request.span)
                        && self.inferred.len() < INFERRED_MAX
                    {
                        self.inferred.push(Inferred { trace, span, cause: serving.trace_id });
                    }
                }
                self.requests.remove(&moment.request);
            }
            What::RequestEnds => {
                if let Some(token) = request.token.take() {
                    self.forwarding.inbound_ended(instance, token);
                }
                self.requests.remove(&moment.request);
            }
        }
    }

    /// Calls since the call before whose cause was inferred.
    pub fn inferred(&mut self) -> Vec<Inferred> {
        std::mem::take(&mut self.inferred)
    }

    /// How each pair of caller and callee hands on.
    pub fn edges(&self) -> Vec<Handed> {
        let row = |it: telemetry::forwarding::ServiceForwarding| Handed {
            from: it.service.into(),
            to: it.callee.into(),
            calls: it.calls,
            joined: it.joined,
            inferred: it.inferred,
        };
        self.forwarding.edges().into_iter().map(row).collect()
    }

    /// How every service that calls others hands on, for the status.
    pub fn rows(&self) -> Vec<Handing> {
        let row = |it: telemetry::forwarding::ServiceForwarding| Handing {
            ok: !breaks(it.calls, it.joined),
            service: it.service.into(),
            calls: it.calls,
            joined: it.joined,
            inferred: it.inferred,
        };
        self.forwarding.services().into_iter().map(row).collect()
    }
}

/// Calls of one service to another that were made while serving, and how many carried the trace of what was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    pub from: String,
    pub to: String,
    pub calls: u64,
    pub joined: u64,
    pub inferred: u64,
}

/// Enough is known to say that traces break here.
pub fn breaks(calls: u64, joined: u64) -> bool {
    calls >= CALLS_MIN && (joined as f64) < calls as f64 * SHARE_MIN
}

fn sentence(service: &str, calls: u64, joined: u64) -> String {
    format!(
        "{service} hands on the trace in {joined} of {calls} calls: its traces break there; copy the request's `traceparent` \
         header to the calls made for it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{InstanceStatus, ServiceStatus};

    fn seats() -> Seats {
        let service = |name: &str, port| {
            let instance =
                InstanceStatus { name: format!("{name}#0"), port: Some(port), ..InstanceStatus::default() };
            ServiceStatus { name: name.into(), instances: vec![instance], ..ServiceStatus::default() }
        };
        let status = Status { services: vec![service("web", 1), service("cart", 2)], ..Status::default() };
        let mut seats = Seats::of(&status);
        seats.follow(&EdgeNames::new(1, EDGES.map(EdgeName::of).into()));
        seats
    }

    const EDGES: [&str; 2] = ["edge->web", "web#0->cart"];

    fn record(port: u16, at: u64, millis: u64, trace_id: u128, parent_span: u64) -> Finished {
        let began = Nanos::from_secs(1_000) + Nanos::from_millis(at);
        let it = crate::records::finished(began, Nanos::from_millis(millis), trace_id);
        Finished { parent_span, instance: Some(([127, 0, 0, 1], port).into()), ..it }
    }

    fn note(handing: &mut HandingOn, record: Finished, seats: &Seats, edge: &str) {
        let number = EDGES.iter().position(|it| *it == edge).expect("an edge") as u32;
        let edge = EdgeName::of(edge).expect("an edge");
        handing.note(&Finished { edge: number, ..record }, &edge, seats);
    }

    /// Forty requests to web, each of which calls cart once within its own time; `given` is the trace the call carries.
    fn play(given: impl Fn(u128) -> (u128, u64)) -> (Vec<(String, String)>, Vec<Handing>) {
        let (mut handing, seats) = (HandingOn::default(), seats());
        for n in 1..=40u64 {
            let (trace, parent) = given(u128::from(n));
            // Calls end first and so are heard of first.
            note(&mut handing, record(2, n * 100 + 10, 20, trace, parent), &seats, "web#0->cart");
            note(&mut handing, record(1, n * 100, 50, u128::from(n), 0), &seats, "edge->web");
        }
        let news = handing.tick(Nanos::from_secs(1_100));
        assert!(handing.tick(Nanos::from_secs(1_101)).is_empty(), "it is said once");
        assert!(handing.requests.is_empty() && handing.moments.is_empty(), "nothing is kept of what is over");
        (news, handing.rows())
    }

    #[test]
    fn who_hands_on_is_not_mentioned() {
        let (news, rows) = play(|trace| (trace, 9));
        assert!(news.is_empty(), "{news:?}");
        assert_eq!(
            (rows[0].service.as_str(), rows[0].calls, rows[0].joined, rows[0].ok),
            ("web", 40, 40, true)
        );
    }

    #[test]
    fn who_forgets_is_said_once_with_what_to_do() {
        let (news, rows) = play(|trace| (trace + 1_000, 0));
        assert!(news[0].1.starts_with("web hands on the trace in 0 of 40 calls"), "{news:?}");
        // One request at a time: each call could have been caused by nothing else.
        assert_eq!((rows[0].joined, rows[0].inferred, rows[0].ok), (0, 40, false));
    }

    #[test]
    fn a_call_that_only_one_request_can_have_caused_is_told_its_cause() {
        let (mut handing, seats) = (HandingOn::default(), seats());
        let span = |id| (TraceId::new(id).expect("not zero"), SpanId::new(9).expect("not zero"));
        note(&mut handing, record(2, 10, 20, 1_007, 0), &seats, "web#0->cart");
        note(&mut handing, record(1, 0, 50, 7, 0), &seats, "edge->web");
        handing.tick(Nanos::from_secs(1_100));
        let (trace, span) = span(1_007);
        let cause = TraceId::new(7).expect("not zero");
        assert_eq!(handing.inferred(), [Inferred { trace, span, cause }]);
        assert!(handing.inferred().is_empty(), "said once");
        let edges = handing.edges();
        assert_eq!((edges[0].from.as_str(), edges[0].to.as_str(), edges[0].inferred), ("web", "cart", 1));
    }

    #[test]
    fn under_load_some_are_watched_at_a_time_and_nobody_is_accused() {
        let (mut handing, seats) = (HandingOn::default(), seats());
        handing.tick(Nanos::from_secs(1_000));
        for n in 1..=200_000u64 {
            // Four requests a millisecond; every call carries what it was made for.
            let trace = u128::from(n);
            note(&mut handing, record(2, n / 4, 1, trace, 9), &seats, "web#0->cart");
            note(&mut handing, record(1, n / 4, 2, trace, 0), &seats, "edge->web");
            if n.is_multiple_of(1_000) {
                let now = Nanos::from_secs(1_000) + Nanos::from_millis(n / 4);
                assert!(handing.tick(now).is_empty());
            }
        }
        assert!(handing.share < 0.5, "{}", handing.share);
        let rows = handing.rows();
        // A call at the end of a turn may be seen without the request it was made for.
        assert!(rows.iter().all(|it| it.ok && it.joined as f64 >= it.calls as f64 * 0.999), "{rows:?}");
    }

    #[test]
    fn nothing_is_kept_of_instances_that_are_gone() {
        let (mut handing, seats) = (HandingOn::default(), seats());
        note(&mut handing, record(1, 0, 50, 7, 0), &seats, "edge->web");
        handing.tick(Nanos::from_secs(1_100));
        handing.follow(&seats);
        assert_eq!(handing.forwarding.instances(), 1);
        handing.follow(&Seats::default());
        assert_eq!(handing.forwarding.instances(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut handing, seats) = (HandingOn::default(), seats());
        for n in 0..WAITING_MAX as u64 {
            note(&mut handing, record(2, n, 1, 1, 1), &seats, "web#0->cart");
        }
        assert!(handing.moments.len() <= WAITING_MAX && handing.requests.len() <= WAITING_MAX);
    }
}
