//! Rules about noticing that something is broken.

use super::Facts;
use super::report::{Report, Subject, Tell};
use super::words;
use crate::diagnostic::Severity;
use crate::system::{Check, Kind, Placement, Service};

fn is_job(service: &Service) -> bool {
    service.run.as_ref().is_some_and(|it| it.job)
}

/// L018. An instance that hangs keeps its share of the traffic until something asks it how it is.
pub(super) fn no_check(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut only_connects = Vec::new();
    for (id, service) in facts.system.services.enumerate() {
        if service.kind == Kind::External || is_job(service) {
            continue;
        }
        let name = &service.name.value;
        match (&service.health.check, service.health.span) {
            (Check::None, place) if !report.accepts(Subject::Service(id)) => {
                report
                    .push(
                        place.unwrap_or(service.name.span),
                        format!("nothing checks the health of `{name}`"),
                    )
                    .say("a hanging instance keeps its traffic")
                    .fix(
                        "ask it something that needs its main work to answer, such as `health: \
                        {path: /healthz, every: 2s}`",
                    );
            }
            // What stands in no zone is a provider's: its names, its balancers, its buckets.
            (Check::Tcp, None)
                if matches!(service.kind, Kind::Http | Kind::Grpc)
                    && service.placement == Placement::Zones
                    && !report.accepts(Subject::Service(id)) =>
            {
                only_connects.push(service);
            }
            _ => {}
        }
    }
    if let Some(first) = only_connects.first() {
        let names = words::list(only_connects.iter().map(|it| &it.name.value));
        let is = if only_connects.len() == 1 { "is" } else { "are" };
        report
            .push(
                first.name.span,
                format!(
                    "{names} {is} only checked by connecting: an instance \
                    that accepts and never answers counts as healthy"
                ),
            )
            .say("no `health`")
            .fix("say `health: {path: /healthz}` for HTTP or `health: {grpc: true}` for gRPC")
            .grade(Severity::Note);
    }
}

/// L048. Checks that outlast their interval pile up on a service that is already slow.
pub(super) fn overlaps(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let health = &service.health;
        let Some(place) = health.span else { continue };
        let asks = !matches!(health.check, Check::None | Check::Log { .. });
        if !asks || health.timeout <= health.every || report.accepts(Subject::Service(id)) {
            continue;
        }
        report
            .push(
                place,
                format!(
                    "a health check of `{}` may take {}, but one starts every {}",
                    service.name.value, health.timeout, health.every
                ),
            )
            .say("checks may overlap")
            .fix("make `timeout` shorter than `every`");
    }
}
