//! Rules about stores and queues: who writes, who reads, and how many copies survive.

use super::Facts;
use super::capacity::instances;
use super::graph::Via;
use super::place::{instances_by_zone, zone_name};
use super::report::{Report, Subject, Tell};
use super::words;
use crate::diagnostic::Severity;
use crate::system::{Caller, Consistency, Kind, Placement, Service, ServiceId, System, TeamId};
use std::collections::BTreeMap;

/// Who calls each store: for each caller one edge, and whether any call may write.
fn users_of_stores(
    facts: &Facts<'_>,
    kinds: &[Kind],
) -> BTreeMap<ServiceId, BTreeMap<ServiceId, (usize, bool)>> {
    let mut users: BTreeMap<ServiceId, BTreeMap<ServiceId, (usize, bool)>> = BTreeMap::new();
    for (at, edge) in facts.graph.edges.iter().enumerate() {
        let callee = &facts.system.services[edge.callee];
        let (Caller::Service(caller), Via::Call | Via::Fallback) = (edge.caller, edge.via) else { continue };
        if caller == edge.callee || callee.shared || !kinds.contains(&callee.kind) {
            continue;
        }
        // A store that says nothing of its operations may be written by anyone who calls it.
        let writes = facts.graph.operation(edge.to).is_none_or(|it| it.writes);
        let user = users.entry(edge.callee).or_default().entry(caller).or_insert((at, false));
        if writes && !user.1 {
            *user = (at, true);
        }
    }
    users
}

/// L015. Two writers of one store are coupled through a schema that neither owns.
pub(super) fn two_writers(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (store, users) in users_of_stores(facts, &[Kind::Store]) {
        let writers: Vec<(ServiceId, usize)> =
            users.iter().filter(|it| it.1.1).map(|it| (*it.0, it.1.0)).collect();
        if writers.len() < 2 || report.accepts(Subject::Service(store)) {
            continue;
        }
        let name = facts.name(store);
        let names = words::list(writers.iter().map(|it| facts.name(it.0)));
        let certain = !facts.system.services[store].operations.is_empty();
        let found = report.push(
            facts.graph.edges[writers[1].1].span,
            if certain {
                format!("{names} write the store `{name}`")
            } else {
                format!("{names} use the store `{name}`, which does not say which of its operations write")
            },
        );
        found
            .say("a second writer")
            .fix(format!(
                "let one service own `{name}` and the others ask it, or say `shared: true` \
                on the store if this is meant"
            ))
            .see(Some(facts.graph.edges[writers[0].1].span), "the first writer")
            .see(Some(facts.system.services[store].name.span), "the store");
        if !certain {
            found.grade(Severity::Note);
        }
    }
}

/// L016. A store that several teams use can be changed by none of them.
pub(super) fn several_teams(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (store, users) in users_of_stores(facts, &[Kind::Store, Kind::Cache]) {
        let mut teams: BTreeMap<TeamId, ServiceId> = BTreeMap::new();
        for user in users.keys() {
            if let Some(team) = &facts.system.services[*user].team {
                teams.entry(team.value).or_insert(*user);
            }
        }
        if teams.len() < 2 || report.accepts(Subject::Service(store)) {
            continue;
        }
        let name = &facts.system.services[store].name;
        let names = words::list(teams.keys().map(|it| &facts.system.teams[*it].name.value));
        let services = words::list(teams.values().map(|it| facts.name(*it)));
        report
            .push(name.span, format!("the teams {names} use `{}` directly ({services})", name.value))
            .say("no team can change it alone")
            .fix("put a service with an interface in front of it, or say `shared: true` if this is meant");
    }
}

/// The zone whose loss takes this store's quorum, if any, with how many of the copies it holds.
pub(super) fn quorum_at_risk(system: &System, service: &Service) -> Option<(String, u32, u32)> {
    let store = service.store.as_ref().filter(|it| it.consistency == Consistency::Quorum && it.copies > 1)?;
    let zones = instances_by_zone(system, service);
    if let [(only, _)] = zones.as_slice()
        && system.regions[only.region].zones.len() == 1
    {
        return None; // The region's one zone is the cause, and L008 tells it once for all that stand there.
    }
    let count = u32::try_from(zones.len()).ok().filter(|it| *it > 0)?;
    // Copies go to different zones first, so the fullest zone has its share rounded up.
    let most = store.copies.div_ceil(count);
    let quorum = store.copies / 2 + 1;
    (store.copies - most < quorum).then(|| (zone_name(system, zones[0].0), most, store.copies))
}

/// L034. A majority needs three places: with two, losing the fuller one loses the majority.
pub(super) fn quorum_lost_with_zone(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let Some((zone, most, copies)) = quorum_at_risk(facts.system, service) else { continue };
        if report.accepts(Subject::Service(id)) {
            continue;
        }
        let name = &service.name.value;
        report
            .push(
                service.replicas.span.unwrap_or(service.name.span),
                format!(
                    "losing zone `{zone}` takes {most} of the {copies} copies in `{name}`: no \
                    majority is left, so it stops"
                ),
            )
            .say("too few zones for a quorum")
            .fix("keep 3 copies in 3 zones (replicas in each of them)");
    }
}

/// L049. A majority that is not in the caller's region is a round trip between regions for every read and write.
pub(super) fn quorum_across_regions(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let quorum =
            service.store.as_ref().filter(|it| it.consistency == Consistency::Quorum && it.copies > 1);
        let regions = service.replicas.per_region.iter().filter(|it| **it > 0).count();
        let Some(store) = quorum.filter(|_| service.placement == Placement::Zones && regions > 1) else {
            continue;
        };
        if report.accepts(Subject::Service(id)) {
            continue;
        }
        let name = &service.name.value;
        report
            .push(
                service.replicas.span.unwrap_or(service.name.span),
                format!(
                    "`{name}` asks a majority of its {} copies, and they are spread over {regions} regions: \
                     reads and writes wait for another region",
                    store.copies
                ),
            )
            .say("a majority is seldom in one region")
            .fix(
                "keep a store for each region, or a copy in each region with `consistency: one`; \
                 otherwise give its callers timeouts above the round trip",
            );
    }
}

/// L035. Two copies on one machine are one copy.
pub(super) fn copies_exceed_instances(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, service) in facts.system.services.enumerate() {
        let Some(store) = &service.store else { continue };
        let instances = instances(service);
        if store.copies <= instances || service.kind == Kind::External || report.accepts(Subject::Service(id))
        {
            continue;
        }
        let name = &service.name.value;
        report
            .push(
                service.replicas.span.unwrap_or(service.name.span),
                format!(
                    "`{name}` keeps {} copies but has {}",
                    store.copies,
                    words::count(instances as usize, "instance")
                ),
            )
            .say("fewer instances than copies")
            .fix(format!("say `replicas: {}` or more, or keep fewer copies", store.copies));
    }
}

/// L043. Messages that nobody reads fill a disk.
pub(super) fn without_consumers(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut called = vec![false; facts.system.services.len()];
    for edge in &facts.graph.edges {
        called[edge.callee.index()] = true;
    }
    for (id, service) in facts.system.services.enumerate() {
        let Some(topic) = &service.topic else { continue };
        let published = called[id.index()];
        if !topic.consumers.is_empty() || !published || report.accepts(Subject::Service(id)) {
            continue;
        }
        let name = &service.name;
        report
            .push(name.span, format!("nobody consumes what is published to `{}`", name.value))
            .say("no `consumers`")
            .fix("name them, `topic: {consumers: [billing \"bill\"]}`, or stop publishing");
    }
}

/// L044. A partition is read by one instance of a consumer; more instances than partitions wait for ever.
pub(super) fn idle_consumers(facts: &Facts<'_>, report: &mut Report<'_>) {
    for service in &facts.system.services {
        let Some(topic) = &service.topic else { continue };
        for (consumer, _) in &topic.consumers {
            let callee = &facts.system.services[consumer.value];
            let idle = instances(callee).saturating_sub(topic.partitions);
            if topic.partitions == 0 || idle == 0 || report.accepts(Subject::Service(consumer.value)) {
                continue;
            }
            let (queue, name) = (&service.name.value, &callee.name.value);
            report
                .push(
                    consumer.span,
                    format!(
                        "`{queue}` has {}, so {idle} of the {} instances of `{name}` get nothing from it",
                        words::count(topic.partitions as usize, "partition"),
                        instances(callee)
                    ),
                )
                .say("more instances than partitions")
                .fix(format!("say `partitions: {}` or more, or run fewer instances", instances(callee)));
        }
    }
}
