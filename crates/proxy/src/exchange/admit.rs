//! What may end a request before it goes anywhere, and where it goes otherwise: limits, trouble made on purpose, targets.
//!
//! Decisions only; who carries the request does what they say.

use super::answer::Answer;
use super::call::{Asked, Call};
use crate::config::{AbortKind, Fault};
use crate::edge::EdgeState;
use crate::http1::{Framing, Kind, Refusal, decimal, tokens};
use crate::plan::{RoutePlan, TargetPlan};
use crate::quota::retry_after;
use crate::worker::Worker;
use std::rc::Rc;
use units::{Nanos, Percent};

/// The answer for a request that one of our limits keeps out.
pub(crate) fn refusal(
    worker: &Worker,
    asked: Asked<'_>,
    route: &RoutePlan,
    call: &Call,
) -> Option<Answer<'static>> {
    if crate::limits::refuses_requests(worker) {
        worker.cells.memory_refused.add(1);
        return Some(Answer::new(503, "out-of-memory", ""));
    }
    let max = worker.plan().config.limits.request_body_bytes;
    if let (Some(max), Framing::Length(length)) = (max, asked.head.framing)
        && length > max.as_u64()
    {
        worker.cells.refused(Refusal::BodyTooLong);
        return Some(Answer::new(413, Refusal::BodyTooLong.name(), ""));
    }
    if let Some(rate) = &route.rate
        && let Err(wait) = rate.take(call.started)
    {
        route.cells.of(worker.index).limited.add(1);
        return Some(Answer {
            retry_after_secs: Some(retry_after(wait)),
            ..Answer::new(429, "rate-limited", "")
        });
    }
    None
}

/// Trouble made on purpose, as it was drawn for one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) delay: Option<Nanos>,
    pub(crate) abort: Option<AbortKind>,
    pub(crate) bytes_per_second: Option<u64>,
}

impl Trouble {
    /// For spans: the worst of it.
    pub(crate) fn name(&self) -> &'static str {
        match (self.abort, self.delay, self.bytes_per_second) {
            (Some(_), ..) => "abort",
            (None, Some(_), _) => "delay",
            (None, None, Some(_)) => "bandwidth",
            (None, None, None) => "",
        }
    }

    pub(crate) fn draw(worker: &Worker, asked: Asked<'_>, route: &RoutePlan) -> Self {
        let mut trouble = Self::default();
        let meant = || route.fault_only.iter().all(|rule| rule.holds(asked.head, asked.buffer));
        if !route.has_fault || !meant() {
            return trouble;
        }
        let fault = &route.route.fault;
        let mut rng = worker.rng.borrow_mut();
        let mut hit = |share: Percent| share.fraction() > 0.0 && rng.chance(share.fraction());
        if let Some(planned) = &fault.delay {
            trouble.delay = hit(planned.share).then_some(planned.delay);
        }
        if let Some(planned) = &fault.abort {
            trouble.abort = hit(planned.share).then_some(planned.kind);
        }
        if let Some(planned) = &fault.bandwidth {
            trouble.bytes_per_second = hit(planned.share).then_some(planned.bytes_per_second);
        }
        if fault.from_headers.is_some() && asked.head.has(Kind::EnvoyFault) {
            trouble.ask_envoy(asked, fault, &mut hit);
        }
        if trouble.delay.is_some() || trouble.abort.is_some() || trouble.bytes_per_second.is_some() {
            route.cells.of(worker.index).faults.add(1);
        }
        trouble
    }

    /// `x-envoy-fault-*`: what the client asks for, capped by what the route allows.
    fn ask_envoy(&mut self, asked: Asked<'_>, fault: &Fault, hit: &mut impl FnMut(Percent) -> bool) {
        let cap = fault.from_headers.unwrap_or_default();
        let number = |name: &str| asked.head.find_name(name, asked.buffer).and_then(decimal);
        let share = |name: &str| {
            number(name).map_or(Percent::WHOLE, |percent| Percent::from_whole(percent.min(100))).min(cap)
        };
        if let Some(ms) = number("x-envoy-fault-delay-request")
            && hit(share("x-envoy-fault-delay-request-percentage"))
        {
            self.delay = Some(Nanos::from_millis(ms.min(3_600_000)));
        }
        let status = number("x-envoy-fault-abort-request").filter(|status| (200..600).contains(status));
        let grpc = number("x-envoy-fault-abort-grpc-request").filter(|code| *code <= 16);
        if (status.is_some() || grpc.is_some()) && hit(share("x-envoy-fault-abort-request-percentage")) {
            self.abort = grpc
                .map(|code| AbortKind::Grpc(code as u8))
                .or(status.map(|status| AbortKind::Status(status as u16)));
        }
    }
}

/// A gRPC error as a reply of the file's kind.
pub(crate) fn grpc_abort(code: u8) -> crate::config::Reply {
    crate::config::Reply {
        status: 200,
        headers: vec![
            ("content-type".into(), "application/grpc".into()),
            ("grpc-status".into(), code.to_string()),
            ("grpc-message".into(), "fault-abort".into()),
        ],
        body: String::new(),
    }
}

/// Where a request goes: the edge, its slot, and the version it is for.
pub(crate) struct Destination {
    pub(crate) edge: Rc<EdgeState>,
    pub(crate) slot: u32,
    pub(crate) version: Option<u16>,
}

impl Destination {
    pub(crate) fn choose(
        worker: &Worker,
        asked: Asked<'_>,
        route: &RoutePlan,
    ) -> Result<Self, Answer<'static>> {
        let target = weighted(route, worker).ok_or(Answer::new(503, "no-target", ""))?;
        let edge = worker.edge(target.edge).ok_or(Answer::new(503, "no-edge", ""))?;
        let version = version(&edge, target, asked);
        Ok(Self { edge, slot: target.edge, version })
    }
}

/// One of the targets, by weight.
fn weighted<'r>(route: &'r RoutePlan, worker: &Worker) -> Option<&'r TargetPlan> {
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

/// The version a request is for: its pin, if the service has that version, else the target's.
/// A pin is `v2` for every service, or `cart=v2, web=v1`.
fn version(edge: &EdgeState, target: &TargetPlan, asked: Asked<'_>) -> Option<u16> {
    let plan = edge.service.plan.borrow();
    let index = |name: &str| plan.versions.iter().position(|version| version == name).map(|at| at as u16);
    if asked.is_trusted()
        && let Some(pin) = asked.find(Kind::Version)
    {
        let pinned = tokens(pin).find_map(|token| {
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
