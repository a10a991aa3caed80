//! Rules about versions and pins.

use super::Facts;
use super::graph::Via;
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use crate::span::{At, Span};
use crate::system::{Action, Caller, Service, ServiceId};
use std::collections::BTreeSet;

/// With fewer pinned services than this, equal numbers are chance.
const LOCKSTEP_MIN: usize = 3;

/// L022. A pin to a version without instances is a call that always fails.
pub(super) fn nobody_serves(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut groups: Groups<(ServiceId, String), (Caller, Span)> = Groups::new();
    for edge in facts.graph.edges.iter().filter(|it| it.via == Via::Call) {
        if let Some(pin) = edge.call.and_then(|it| it.version.as_ref()) {
            check_pin(facts, report, edge.caller, edge.callee, pin, &mut groups);
        }
    }
    for (id, gateway) in facts.system.gateways.enumerate() {
        for route in &gateway.routes {
            let Action::To(targets) = &route.action else { continue };
            for target in targets {
                if let Some(pin) = &target.version {
                    check_pin(facts, report, Caller::Gateway(id), target.service.value, pin, &mut groups);
                }
            }
        }
    }
    for ((callee, version), pins) in groups {
        let service = &facts.system.services[callee];
        let callers = words::list(pins.iter().map(|it| facts.graph.caller_name(it.0)));
        let served: Vec<&str> = service
            .versions
            .iter()
            .filter(|it| has_instances(service, &it.name.value))
            .map(|it| it.name.value.as_str())
            .collect();
        let fix = if served.is_empty() {
            format!(
                "`{}` says nothing of versions: add `versions:` to it, or take the pin away",
                service.name.value
            )
        } else {
            format!("pin {} instead, or give `{version}` a weight or replicas", words::list(served))
        };
        report
            .push(
                pins[0].1,
                format!("{callers} insists on `{}` {version}, which nobody serves", service.name.value),
            )
            .say("every such call fails")
            .fix(fix)
            .see(Some(service.versions.first().map_or(service.name.span, |it| it.span)), "its versions");
    }
}

fn check_pin(
    facts: &Facts<'_>,
    report: &mut Report<'_>,
    caller: Caller,
    callee: ServiceId,
    pin: &At<String>,
    groups: &mut Groups<(ServiceId, String), (Caller, Span)>,
) {
    if !has_instances(&facts.system.services[callee], &pin.value)
        && !report.accepts(Subject::Edge(caller, callee))
    {
        groups.add((callee, pin.value.clone()), (caller, pin.span));
    }
}

/// A version has instances when it is listed and somebody runs it: a weight, or replicas of its own.
fn has_instances(service: &Service, version: &str) -> bool {
    service
        .versions
        .iter()
        .find(|it| it.name.value == version)
        .is_some_and(|it| it.replicas.map_or(it.weight.millionths() > 0, |replicas| replicas > 0))
}

/// L025. When everybody pins the same version of everybody, no service can be released alone.
pub(super) fn lockstep(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut pinned: BTreeSet<ServiceId> = BTreeSet::new();
    let mut versions: BTreeSet<&str> = BTreeSet::new();
    let mut first: Option<Span> = None;
    for edge in facts.graph.edges.iter().filter(|it| it.via == Via::Call) {
        let callee = &facts.system.services[edge.callee];
        match edge.call.and_then(|it| it.version.as_ref()) {
            Some(pin) => {
                pinned.insert(edge.callee);
                versions.insert(&pin.value);
                first.get_or_insert(pin.span);
            }
            // One call that takes any version of a versioned service, and that service can move.
            None if !callee.versions.is_empty() => return,
            None => {}
        }
    }
    let (Some(place), Some(version)) = (first, versions.first()) else { return };
    if pinned.len() < LOCKSTEP_MIN || versions.len() > 1 || report.accepts(Subject::System) {
        return;
    }
    let names = words::list(pinned.iter().map(|it| facts.name(*it)));
    report
        .push(
            place,
            format!(
                "every call of {names} is pinned to {version}: none of them can be \
                released without the others"
            ),
        )
        .say("the same pin everywhere")
        .fix(
            "leave `version` out where the interface has not changed, and let both versions run \
            during a release",
        );
}
