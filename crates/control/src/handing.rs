//! Who hands on trace context, and who does not.
//!
//! A proxy sees what comes into an instance and what goes out of it; only the application's headers say which of the
//! one caused which of the other. Finished requests are replayed in the order of their beginnings and ends, a little
//! late, so that [`telemetry::forwarding`] can count which calls made while serving carry the trace of a request being
//! served. A service that hands on too little is said once, and stays in the status until it does better.
//!
//! A call without context whose instance was serving exactly one request is told apart as inferred; its span keeps its
//! own trace, for that trace has been given to others already.

use crate::compile::parties;
use crate::status::{Handing, Status};
use proxy::record::Finished;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use telemetry::forwarding::{Forwarding, InboundToken, InstanceKey, Outbound, Serving};
use telemetry::ids::{SpanId, TraceId};
use units::Nanos;

/// A request that lasts longer than this is still under way when its calls are judged: they count as work in the
/// background, which says nothing for or against anybody.
const LATE: Nanos = Nanos::from_secs(3);
/// Beginnings and ends waiting. More are passed over: this is a sample, not a count.
const WAITING_MAX: usize = 50_000;
const SERVICES_MAX: usize = 10_000;
/// Fewer calls prove nothing.
const CALLS_MIN: u64 = 20;
/// Headers get lost now and then; a service that forgets them forgets nearly all.
const SHARE_MIN: f64 = 0.9;

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
    service: Box<str>,
    /// Of the request itself, or what a call says it belongs to.
    trace: Option<TraceId>,
    span: Option<SpanId>,
    token: Option<InboundToken>,
    call: Option<Outbound>,
}

#[derive(Debug)]
pub struct HandingOn {
    forwarding: Forwarding,
    moments: BinaryHeap<Reverse<Moment>>,
    requests: HashMap<u64, Request>,
    next: u64,
    /// Services that were said to hand on too little.
    said: Vec<Box<str>>,
}

impl Default for HandingOn {
    fn default() -> Self {
        Self {
            forwarding: Forwarding::new(SERVICES_MAX),
            moments: BinaryHeap::new(),
            requests: HashMap::new(),
            next: 0,
            said: Vec::new(),
        }
    }
}

/// Everybody's number: by name for those who call, by port for those who answer.
#[derive(Debug, Default)]
pub struct Seats {
    by_name: HashMap<String, u16>,
    services: HashMap<u16, Box<str>>,
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
}

impl HandingOn {
    /// Takes a finished request. `edge` is the name of its edge.
    pub fn note(&mut self, record: &Finished, edge: &str, seats: &Seats) {
        if self.moments.len() + 4 > WAITING_MAX || parties(edge).is_none() {
            return;
        }
        let (from, to) = (record.started_unix, record.started_unix + record.duration);
        let trace = TraceId::new(record.trace_id);
        let answerer = record.instance.filter(|it| it.ip().is_loopback()).map(|it| it.port());
        if let Some((port, service)) = answerer.and_then(|port| Some((port, seats.services.get(&port)?))) {
            let span = SpanId::new(record.client_span);
            self.wait(port, service, (trace, span), (What::RequestBegins, from), (What::RequestEnds, to));
        }
        let caller = edge.split("->").next().and_then(|slot| seats.by_name.get(slot));
        if let Some((port, service)) = caller.and_then(|port| Some((*port, seats.services.get(port)?))) {
            // Without a parent the trace began with this call: nobody handed anything on.
            let given = trace.filter(|_| record.parent_span != 0);
            self.wait(port, service, (given, None), (What::CallBegins, from), (What::CallEnds, to));
        }
    }

    fn wait(
        &mut self,
        port: u16,
        service: &str,
        (trace, span): (Option<TraceId>, Option<SpanId>),
        begins: (What, Nanos),
        ends: (What, Nanos),
    ) {
        let request = self.next;
        self.next += 1;
        let instance = InstanceKey(u64::from(port));
        let known = Request { instance, service: service.into(), trace, span, token: None, call: None };
        self.requests.insert(request, known);
        for (what, at) in [begins, ends] {
            self.moments.push(Reverse(Moment { at, what, request }));
        }
    }

    /// Replays what is old enough, and says which services turned out to hand on too little.
    pub fn tick(&mut self, unix: Nanos) -> Vec<(String, String)> {
        let until = unix.saturating_sub(LATE);
        while self.moments.peek().is_some_and(|it| it.0.at <= until) {
            let Some(Reverse(moment)) = self.moments.pop() else { break };
            self.play(moment);
        }
        let mut news = Vec::new();
        for it in self.forwarding.services() {
            let bad = it.calls >= CALLS_MIN && it.share() < SHARE_MIN;
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
                if let Some((trace_id, span_id)) = request.trace.zip(request.span) {
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
                    self.forwarding.outbound_ended(instance, call, moment.at);
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

    /// How every service that calls others hands on, for the status.
    pub fn rows(&self) -> Vec<Handing> {
        let row = |it: telemetry::forwarding::ServiceForwarding| Handing {
            ok: it.calls < CALLS_MIN || it.share() >= SHARE_MIN,
            service: it.service.into(),
            calls: it.calls,
            joined: it.joined,
            inferred: it.inferred,
        };
        self.forwarding.services().into_iter().map(row).collect()
    }
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
    use proxy::http1::Method;

    fn seats() -> Seats {
        let service = |name: &str, port| {
            let instance =
                InstanceStatus { name: format!("{name}#0"), port: Some(port), ..InstanceStatus::default() };
            ServiceStatus { name: name.into(), instances: vec![instance], ..ServiceStatus::default() }
        };
        Seats::of(&Status { services: vec![service("web", 1), service("cart", 2)], ..Status::default() })
    }

    fn record(port: u16, at: u64, millis: u64, trace_id: u128, parent_span: u64) -> Finished {
        Finished {
            started_unix: Nanos::from_secs(1_000) + Nanos::from_millis(at),
            duration: Nanos::from_millis(millis),
            upstream: Nanos::ZERO,
            worker: 0,
            edge: 0,
            generation: 1,
            status: 200,
            attempts: 1,
            method: Method::Get,
            trace_id,
            parent_span,
            server_span: 8,
            client_span: 9,
            sampled: true,
            instance: Some(([127, 0, 0, 1], port).into()),
            request_bytes: 0,
            response_bytes: 0,
            error: "",
            last: None,
            tries: None,
            counted: None,
            breaker_open: false,
            ejected: false,
            fault: "",
            path_len: 0,
            path: [0; proxy::record::PATH_BYTES],
        }
    }

    /// Forty requests to web, each of which calls cart once within its own time; `given` is the trace the call carries.
    fn play(given: impl Fn(u128) -> (u128, u64)) -> (Vec<(String, String)>, Vec<Handing>) {
        let (mut handing, seats) = (HandingOn::default(), seats());
        for n in 1..=40u64 {
            let (trace, parent) = given(u128::from(n));
            // Calls end first and so are heard of first.
            handing.note(&record(2, n * 100 + 10, 20, trace, parent), "web#0->cart", &seats);
            handing.note(&record(1, n * 100, 50, u128::from(n), 0), "edge->web", &seats);
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
    fn what_waits_is_bounded() {
        let (mut handing, seats) = (HandingOn::default(), seats());
        for n in 0..WAITING_MAX as u64 {
            handing.note(&record(2, n, 1, 1, 1), "web#0->cart", &seats);
        }
        assert!(handing.moments.len() <= WAITING_MAX && handing.requests.len() <= WAITING_MAX);
    }
}
