//! Who calls whom, without how: the arrows of the drawing.

use crate::system::{Action, Call, Caller, ServiceId, Step, System};
use std::collections::BTreeSet;

/// Every call in a script, at any depth (which the text's limit of nesting bounds).
pub(super) fn for_each_call<'s>(steps: &'s [Step], visit: &mut impl FnMut(&'s Call)) {
    for step in steps {
        match step {
            Step::Call(call) => visit(call),
            Step::All(steps) => for_each_call(steps, visit),
            Step::Work(_) => {}
        }
    }
}

/// Pairs of caller and callee, each once: calls of operations, routes of gateways, consumers of queues.
pub fn edges(system: &System) -> BTreeSet<(Caller, ServiceId)> {
    let mut edges = BTreeSet::new();
    for (id, service) in system.services.enumerate() {
        for operation in &service.operations {
            for_each_call(&operation.calls, &mut |call| {
                edges.insert((Caller::Service(id), call.service.value));
            });
        }
        for (consumer, _) in service.topic.iter().flat_map(|it| &it.consumers) {
            edges.insert((Caller::Service(id), consumer.value));
        }
    }
    for (id, gateway) in system.gateways.enumerate() {
        for route in &gateway.routes {
            let Action::To(targets) = &route.action else { continue };
            edges.extend(targets.iter().map(|it| (Caller::Gateway(id), it.service.value)));
        }
    }
    edges
}
