//! Mistakes that only the whole system shows: things that wait for each other, calls without end, numbers that
//! contradict each other across entries.
//!
//! These are errors: what they describe cannot run. What runs and will hurt is a lint.

mod cycle;
mod edges;

pub use edges::edges;

use crate::diagnostic::Diagnostic;
use crate::span::Span;
use crate::system::{Fault, Kind, Selection, ServiceId, System, Until, Which};
use cycle::cycles;
use units::Percent;

/// All of them, in no particular order. The system may be incomplete: what could not be read is simply not there.
pub fn check(system: &System) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    needs_in_circles(system, &mut found);
    needs_that_never_come(system, &mut found);
    calls_without_end(system, &mut found);
    for service in &system.services {
        scaled_outside(service, &mut found);
    }
    selections(system, &mut found);
    found
}

fn name(system: &System, service: ServiceId) -> &str {
    &system.services[service].name.value
}

fn needs_in_circles(system: &System, found: &mut Vec<Diagnostic>) {
    let next: Vec<Vec<u32>> = system
        .services
        .iter()
        .map(|it| it.needs.iter().map(|need| need.service.as_u32()).collect())
        .collect();
    for cycle in cycles(&next) {
        let ids: Vec<ServiceId> = cycle.iter().map(|it| ServiceId::new(*it)).collect();
        let place = |from: usize| {
            let to = ids[(from + 1) % ids.len()];
            let needs = &system.services[ids[from]].needs;
            needs
                .iter()
                .find(|need| need.service.value == to)
                .map_or(Span::default(), |need| need.service.span)
        };
        let (message, label) = if ids.len() == 1 {
            (format!("`{}` needs itself before it starts", name(system, ids[0])), "itself")
        } else {
            let mut path: Vec<&str> = ids.iter().map(|it| name(system, *it)).collect();
            path.push(path[0]);
            let path = path.join("` needs `");
            (format!("these services wait for each other: `{path}`"), "never starts")
        };
        let mut diagnostic = Diagnostic::error("E0401", place(0), message)
            .label(label)
            .help("remove one of them; a call that may fail at first needs no `needs`");
        for (nth, id) in ids.iter().enumerate().skip(1) {
            diagnostic = diagnostic.related(place(nth), format!("needed by `{}`", name(system, *id)));
        }
        found.push(diagnostic);
    }
}

fn needs_that_never_come(system: &System, found: &mut Vec<Diagnostic>) {
    for service in &system.services {
        for need in &service.needs {
            let other = &system.services[need.service.value];
            let is_job = other.run.as_ref().is_some_and(|run| run.job);
            if need.until == Until::Completed && !is_job {
                found.push(
                    Diagnostic::error("E0405", need.service.span, format!("`{}` never completes", other.name.value))
                        .label("waits for ever")
                        .related(other.name.span, "runs without end")
                        .help("give it `run: {command: ..., job: true}`, or wait until it is `started` or `healthy`"),
                );
            }
        }
    }
}

/// Operations that surely call themselves in the end. A cycle with a chance below 100 % ends, and is a lint.
fn calls_without_end(system: &System, found: &mut Vec<Diagnostic>) {
    let mut first = Vec::with_capacity(system.services.len());
    let mut total: u32 = 0;
    for service in &system.services {
        first.push(total);
        total += service.operations.len() as u32;
    }
    let mut next: Vec<Vec<u32>> = Vec::with_capacity(total as usize);
    let mut spans: Vec<Vec<Span>> = Vec::with_capacity(total as usize);
    let mut owners: Vec<(u32, u32)> = Vec::with_capacity(total as usize);
    for (id, service) in system.services.enumerate() {
        // A cache asks what is behind it only on a miss.
        let always = service.kind != Kind::Cache;
        for (nth, operation) in service.operations.iter().enumerate() {
            let (mut targets, mut places) = (Vec::new(), Vec::new());
            edges::for_each_call(&operation.calls, &mut |call| {
                if let Some(operation) =
                    call.operation.as_ref().filter(|_| always && call.chance == Percent::WHOLE)
                {
                    targets.push(first[call.service.value.index()] + operation.value.as_u32());
                    places.push(call.span);
                }
            });
            next.push(targets);
            spans.push(places);
            owners.push((id.as_u32(), nth as u32));
        }
    }
    let named = |node: u32| {
        let (service, operation) = owners[node as usize];
        let service = &system.services[ServiceId::new(service)];
        format!("{} \"{}\"", service.name.value, service.operations.as_slice()[operation as usize].name.value)
    };
    for cycle in cycles(&next) {
        let place = |from: usize| {
            let to = cycle[(from + 1) % cycle.len()];
            let at = next[cycle[from] as usize].iter().position(|it| *it == to);
            at.map_or(Span::default(), |at| spans[cycle[from] as usize][at])
        };
        let mut path: Vec<String> = cycle.iter().map(|it| named(*it)).collect();
        path.push(path[0].clone());
        let mut diagnostic =
            Diagnostic::error("E0403", place(0), format!("these calls never end: {}", path.join(" → ")))
                .label("always comes back to itself")
                .help("break the circle, or give one of the calls a `chance` below 100%");
        for (nth, node) in cycle.iter().enumerate().skip(1) {
            diagnostic = diagnostic.related(place(nth), format!("called by {}", named(*node)));
        }
        found.push(diagnostic);
    }
}

fn scaled_outside(service: &crate::system::Service, found: &mut Vec<Diagnostic>) {
    let (Some(scale), Some(span)) = (&service.autoscale, service.replicas.span) else { return };
    let total = service.replicas.total();
    if total < scale.min || total > scale.max {
        let (min, max) = (scale.min, scale.max);
        found.push(
            Diagnostic::error(
                "E0209",
                span,
                format!("{total} replicas lie outside of `autoscale` ({min} to {max})"),
            )
            .label("where it begins")
            .related(scale.span, "where it may go"),
        );
    }
}

/// `stop 5 of web`, `stop web#7`: more instances than there can be.
fn selections(system: &System, found: &mut Vec<Diagnostic>) {
    for event in system.scenarios.iter().flat_map(|it| &it.events) {
        let selection = match &event.fault.value {
            Fault::Stop(it) | Fault::Pause(it) => it,
            Fault::SlowBy(it, _) | Fault::SlowTimes(it, _) | Fault::Error(it, _) => it,
            _ => continue,
        };
        let Selection { service, which } = selection;
        let service = &system.services[*service];
        let total = service.replicas.total();
        let most = service.autoscale.as_ref().map_or(total, |it| it.max.max(total));
        let wrong = match which {
            Which::Count(count) if *count > most => {
                format!("`{}` has no {count} instances", service.name.value)
            }
            Which::Index(index) if *index >= most => {
                format!("`{}` has no instance #{index}; the first is #0", service.name.value)
            }
            _ => continue,
        };
        if most == 0 {
            continue; // Its replicas could not be read.
        }
        let mut diagnostic =
            Diagnostic::error("E0209", event.fault.span, wrong).label(format!("it has {most}"));
        if let Some(span) = service.replicas.span {
            diagnostic = diagnostic.related(span, "its replicas");
        }
        found.push(diagnostic);
    }
}
