//! Rules about who is asked when it breaks.

use super::Facts;
use super::report::{Report, Subject, Tell};
use super::words;
use crate::diagnostic::Severity;
use crate::system::{Kind, Service, ServiceId};

/// Running services a team can know well enough to be woken for. Stores and queues belong to services and do not
/// count.
const OWNED_MAX: usize = 12;

fn is_running_code(service: &Service) -> bool {
    matches!(service.kind, Kind::Http | Kind::Grpc | Kind::Tcp)
}

/// L024. Beyond a dozen, a team owns services that nobody in it remembers.
pub(super) fn too_much(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut owned: Vec<Vec<ServiceId>> = vec![Vec::new(); facts.system.teams.len()];
    for (id, service) in facts.system.services.enumerate() {
        if let Some(team) = service.team.as_ref().filter(|_| is_running_code(service)) {
            owned[team.value.index()].push(id);
        }
    }
    for (id, team) in facts.system.teams.enumerate() {
        let services = &owned[id.index()];
        if services.len() <= OWNED_MAX || report.accepts(Subject::Team(id)) {
            continue;
        }
        report
            .push(
                team.name.span,
                format!("`{}` owns {}", team.name.value, words::count(services.len(), "service")),
            )
            .say(format!("more than {OWNED_MAX}"))
            .fix("split the team, merge services that change together, or hand some over");
    }
}

/// L026. When it breaks at night, whom do you call?
pub(super) fn no_owner(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut ownerless: Vec<&Service> = Vec::new();
    for (id, service) in facts.system.services.enumerate() {
        if service.team.is_none() && service.kind != Kind::External && !report.accepts(Subject::Service(id)) {
            ownerless.push(service);
        }
    }
    let Some(first) = ownerless.first() else { return };
    let names = words::list(ownerless.iter().map(|it| &it.name.value));
    if facts.system.teams.is_empty() {
        report
            .push(first.name.span, format!("nobody owns {names}: the file names no teams"))
            .say("no `team`")
            .fix(
                "say who is asked: `teams: {shop: {contact: \"#shop\"}}`, and `team: shop` on each \
                service",
            )
            .grade(Severity::Note);
        return;
    }
    // Some services have owners, so each of these was forgotten by itself.
    for service in ownerless {
        let name = &service.name;
        report.push(name.span, format!("nobody owns `{}`", name.value)).say("no `team`").fix(format!(
            "add `team:` with one of {}",
            words::list(facts.system.teams.iter().map(|it| &it.name.value))
        ));
    }
}

/// L027. An owner who cannot be reached is no owner.
pub(super) fn without_contact(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, team) in facts.system.teams.enumerate() {
        if team.contact.is_some() || team.oncall.is_some() || report.accepts(Subject::Team(id)) {
            continue;
        }
        report
            .push(
                team.name.span,
                format!("team `{}` has neither a contact nor an on-call address", team.name.value),
            )
            .say("how is it reached?")
            .fix("add `contact: \"#channel\"` or `oncall: https://...`");
    }
}
