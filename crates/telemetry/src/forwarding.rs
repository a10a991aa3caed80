//! Which services forward trace context, and what can still be linked where they do not.
//!
//! A proxy in front of each instance sees what comes in and what goes out, but not which of the one caused which of the
//! other: only the application's forwarded headers say that. So we count: of the calls an instance makes while it is
//! serving, how many carry the trace of a request it is serving? A service below the mark is reported by name.
//!
//! A call without context is linked only when there is nothing to guess: exactly one request was in flight in that
//! instance for the whole call. Such a link is marked as inferred. Among several requests we never choose.

use crate::ids::{SpanId, TraceId};
use std::collections::{HashMap, VecDeque};
use units::Nanos;

/// One instance, numbered by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceKey(pub u64);

/// A request that an instance is serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    pub trace_id: TraceId,
    /// The server span: parent of the calls made for it.
    pub span_id: SpanId,
}

/// Names a started request until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundToken(u64);

/// A call under way; hand it back at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    joined: bool,
    /// The only request in flight when the call began, and how many had been started by then.
    alone: Option<(InboundToken, Serving)>,
    started: u64,
    counted: bool,
}

/// What is known of a call's cause when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its headers say so.
    Joined,
    /// Nothing else was in flight: link it and mark it as inferred.
    Inferred(Serving),
    /// Several requests were in flight, or none: a trace of its own.
    Unknown,
}

#[derive(Debug, Default)]
struct Instance {
    service: Box<str>,
    /// Few at a time nearly always; a limit on concurrency bounds it where it is not.
    in_flight: Vec<(InboundToken, Serving)>,
    /// Traces that it served lately: what an application does after its answer belongs to them.
    served: VecDeque<TraceId>,
    started: u64,
}

/// How a service forwards: in all its calls, or in those to one other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceForwarding {
    pub service: Box<str>,
    /// Whom it called; empty for all.
    pub callee: Box<str>,
    /// Calls made while serving.
    pub calls: u64,
    pub joined: u64,
    pub inferred: u64,
}

impl ServiceForwarding {
    fn add(&mut self, [now, before]: &[Counts; 2]) {
        self.calls += now.calls + before.calls;
        self.joined += now.joined + before.joined;
        self.inferred += now.inferred + before.inferred;
    }

    pub fn share(&self) -> f64 {
        if self.calls == 0 { 1.0 } else { self.joined as f64 / self.calls as f64 }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    joined: u64,
    inferred: u64,
}

#[derive(Debug)]
pub struct Forwarding {
    instances: HashMap<InstanceKey, Instance>,
    /// By caller, then callee. This slot and the one before: five to ten minutes of evidence, so that a fixed service
    /// is soon believed.
    services: HashMap<Box<str>, HashMap<Box<str>, [Counts; 2]>>,
    slot_ends: Nanos,
    services_max: usize,
}

const SLOT: Nanos = Nanos::from_secs(300);
/// Requests of one instance watched at a time; beyond, calls are simply not linked.
const IN_FLIGHT_MAX: usize = 10_000;
/// Answered requests of one instance that are remembered.
const SERVED_MAX: usize = 256;
/// Others that one service calls; calls to more are not counted.
const CALLEES_MAX: usize = 1_000;

impl Forwarding {
    pub fn new(services_max: usize) -> Self {
        Self { instances: HashMap::new(), services: HashMap::new(), slot_ends: Nanos::ZERO, services_max }
    }

    pub fn inbound_started(
        &mut self,
        instance: InstanceKey,
        service: &str,
        serving: Serving,
    ) -> InboundToken {
        let known = self.instances.entry(instance).or_default();
        if *known.service != *service {
            known.service = service.into();
        }
        known.started += 1;
        let token = InboundToken(known.started);
        if known.in_flight.len() < IN_FLIGHT_MAX {
            known.in_flight.push((token, serving));
        }
        token
    }

    pub fn inbound_ended(&mut self, instance: InstanceKey, token: InboundToken) {
        if let Some(known) = self.instances.get_mut(&instance)
            && let Some(at) = known.in_flight.iter().position(|(started, _)| *started == token)
        {
            let (_, serving) = known.in_flight.swap_remove(at);
            if known.served.len() >= SERVED_MAX {
                known.served.pop_front();
            }
            known.served.push_back(serving.trace_id);
        }
    }

    /// An instance starts a call; `incoming` is the trace its headers name.
    pub fn outbound_started(&self, instance: InstanceKey, incoming: Option<TraceId>) -> Outbound {
        let Some(known) = self.instances.get(&instance) else {
            return Outbound { joined: false, alone: None, started: 0, counted: false };
        };
        let joined = incoming.is_some_and(|id| {
            known.in_flight.iter().any(|(_, serving)| serving.trace_id == id) || known.served.contains(&id)
        });
        Outbound {
            joined,
            // With headers of another trace the application has said what it belongs to.
            alone: match known.in_flight.as_slice() {
                [only] if incoming.is_none() => Some(*only),
                _ => None,
            },
            started: known.started,
            // Work in the background has no request to forward from.
            counted: !known.in_flight.is_empty(),
        }
    }

    pub fn outbound_ended(
        &mut self,
        instance: InstanceKey,
        callee: &str,
        call: Outbound,
        now: Nanos,
    ) -> Cause {
        let Some(known) = self.instances.get(&instance) else { return Cause::Unknown };
        let still_alone =
            call.alone.filter(|only| known.started == call.started && known.in_flight.as_slice() == [*only]);
        let cause = match (call.joined, still_alone) {
            (true, _) => Cause::Joined,
            (false, Some((_, serving))) => Cause::Inferred(serving),
            (false, None) => Cause::Unknown,
        };
        let service = known.service.clone();
        self.turn(now);
        if call.counted && (self.services.contains_key(&service) || self.services.len() < self.services_max) {
            let callees = self.services.entry(service).or_default();
            if !callees.contains_key(callee) && callees.len() < CALLEES_MAX {
                callees.insert(callee.into(), Default::default());
            }
            if let Some([counts, _]) = callees.get_mut(callee) {
                counts.calls += 1;
                counts.joined += u64::from(cause == Cause::Joined);
                counts.inferred += u64::from(matches!(cause, Cause::Inferred(_)));
            }
        }
        cause
    }

    /// Forgets instances that are gone.
    pub fn retain(&mut self, is_there: impl Fn(InstanceKey) -> bool) {
        self.instances.retain(|it, _| is_there(*it));
    }

    /// How many are known.
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    fn turn(&mut self, now: Nanos) {
        if now < self.slot_ends {
            return;
        }
        self.slot_ends = now + SLOT;
        for callees in self.services.values_mut() {
            callees.values_mut().for_each(|counts| *counts = [Counts::default(), counts[0]]);
            callees.retain(|_, counts| counts[1].calls > 0);
        }
        self.services.retain(|_, callees| !callees.is_empty());
    }

    /// Every service that made calls while serving, worst first.
    pub fn services(&self) -> Vec<ServiceForwarding> {
        let mut services: Vec<ServiceForwarding> = self
            .services
            .iter()
            .map(|(service, callees)| {
                let mut all = ServiceForwarding { service: service.clone(), ..ServiceForwarding::default() };
                callees.values().for_each(|counts| all.add(counts));
                all
            })
            .collect();
        services.sort_by(|a, b| a.share().total_cmp(&b.share()).then_with(|| a.service.cmp(&b.service)));
        services
    }

    /// The same for each pair of caller and callee, by name.
    pub fn edges(&self) -> Vec<ServiceForwarding> {
        let mut edges: Vec<ServiceForwarding> = Vec::new();
        for (service, callees) in &self.services {
            for (callee, counts) in callees {
                let (service, callee) = (service.clone(), callee.clone());
                let mut edge = ServiceForwarding { service, callee, ..ServiceForwarding::default() };
                edge.add(counts);
                edges.push(edge);
            }
        }
        edges.sort_by(|a, b| (&a.service, &a.callee).cmp(&(&b.service, &b.callee)));
        edges
    }

    /// Services that fail the rule "99 % of child calls join the parent's trace", on enough calls to say so.
    pub fn not_forwarding(&self, share: f64, calls_min: u64) -> Vec<ServiceForwarding> {
        self.services()
            .into_iter()
            .filter(|service| service.calls >= calls_min && service.share() < share)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: InstanceKey = InstanceKey(1);

    fn serving(trace: u128) -> Serving {
        Serving { trace_id: TraceId::new(trace).unwrap(), span_id: SpanId::new(trace as u64).unwrap() }
    }

    /// `+3`: request of trace 3 comes in; `-3`: it ends; `(3`: a call with trace 3's headers, `(`: with none; `)`: the
    /// oldest call ends. The causes, in order.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let mut forwarding = Forwarding::new(10);
        let (mut tokens, mut calls, mut causes) = (HashMap::new(), Vec::new(), Vec::new());
        for word in script.split(' ') {
            let trace = word[1..].parse::<u128>().ok();
            match (&word[..1], trace) {
                ("+", Some(id)) => {
                    let token = forwarding.inbound_started(ONE, "web", serving(id));
                    tokens.insert(id, token);
                }
                ("-", Some(id)) => forwarding.inbound_ended(ONE, tokens[&id]),
                ("(", trace) => calls.push(forwarding.outbound_started(ONE, trace.and_then(TraceId::new))),
                _ => causes.push(match forwarding.outbound_ended(ONE, "cart", calls.remove(0), Nanos(1)) {
                    Cause::Joined => "joined".to_owned(),
                    Cause::Inferred(serving) => format!("inferred {}", serving.trace_id.get()),
                    Cause::Unknown => "unknown".to_owned(),
                }),
            }
        }
        let services = forwarding.services();
        let counts = services.first().map_or((0, 0), |it| (it.calls, it.joined));
        assert_eq!(format!("{} {}/{}", causes.join(", "), counts.1, counts.0), expected, "{script}");
        let edges = forwarding.edges();
        let of_edge = edges.first().map_or((0, 0), |it| (it.calls, it.joined));
        assert_eq!(of_edge, counts, "all of them went to one other");
    }

    #[test]
    fn a_call_is_linked_only_when_there_is_nothing_to_guess() {
        check("+3 (3 ) -3", "joined 1/1");
        check("+3 ( ) -3", "inferred 3 0/1");
        check("+3 +4 ( ) -3 -4", "unknown 0/1");
        check("+3 ( +4 -4 ) -3", "unknown 0/1");
        check("+3 ( -3 )", "unknown 0/1");
        check("+3 ( -3 +4 )", "unknown 0/1");
        check("+3 (9 )", "unknown 0/1");
        check("+3 +4 (4 ) ( )", "joined, unknown 1/2");
        check("+3 -3 ( )", "unknown 0/0");
        // After its answer an application may still work for it, whatever else it serves by then.
        check("+3 -3 +4 (3 ) -4", "joined 1/1");
        check("+3 -3 +4 (9 ) -4", "unknown 0/1");
        check("( )", "unknown 0/0");
    }

    #[test]
    fn services_that_do_not_forward_are_named_and_forgiven() {
        let mut forwarding = Forwarding::new(10);
        let mut play = |service: &str, instance: u64, forwards: bool, at: u64| {
            let key = InstanceKey(instance);
            for n in 1..=50u64 {
                let token = forwarding.inbound_started(key, service, serving(u128::from(n)));
                let call =
                    forwarding.outbound_started(key, forwards.then(|| TraceId::new(u128::from(n)).unwrap()));
                forwarding.outbound_ended(key, "cart", call, Nanos::from_secs(at));
                forwarding.inbound_ended(key, token);
            }
            forwarding.not_forwarding(0.99, 30).iter().map(|it| it.service.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(play("web", 1, true, 1), [""; 0]);
        assert_eq!(play("cart", 2, false, 1), ["cart"]);
        assert_eq!(play("cart", 2, true, 400), ["cart"], "the slot before still counts");
        assert_eq!(play("cart", 2, true, 800), [""; 0]);
    }
}
