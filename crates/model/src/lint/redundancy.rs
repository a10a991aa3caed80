//! Rules about what is left when something is gone.

use super::Facts;
use super::capacity::instances;
use super::graph::Via;
use super::place::{instances_by_zone, zone_name};
use super::report::{Groups, Report, Subject, Tell};
use super::words;
use crate::span::Span;
use crate::system::{Caller, Discovery, Kind, Placement, Reach, RegionId, Service, ServiceId, System};
use indexmap::IndexMap;
use policy::settings::Locality;
use std::collections::BTreeSet;

/// Whether this file decides how many instances there are and where.
fn placed_here(service: &Service) -> bool {
    service.kind != Kind::External
        && service.endpoints.is_empty()
        && service.placement == Placement::Zones
        && !service.run.as_ref().is_some_and(|it| it.job)
}

/// L007. One instance: every crash, update and move of it is an outage.
pub(super) fn one_replica(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut unsaid = Vec::new();
    for (id, service) in facts.system.services.enumerate() {
        let scaled = service.autoscale.as_ref().is_some_and(|it| it.min > 1);
        if !placed_here(service)
            || service.replicas.total() != 1
            || scaled
            || report.accepts(Subject::Service(id))
        {
            continue;
        }
        match service.replicas.span {
            Some(place) => {
                report
                    .push(
                        place,
                        format!(
                            "`{}` has one instance: every restart of it is an outage",
                            service.name.value
                        ),
                    )
                    .say("one instance")
                    .fix("say `replicas: 2` or more, at best one for each zone");
            }
            None => unsaid.push(service),
        }
    }
    if let Some(first) = unsaid.first() {
        let names = words::list(unsaid.iter().map(|it| &it.name.value));
        let has = if unsaid.len() == 1 { "has" } else { "have" };
        report
            .push(
                first.name.span,
                format!(
                    "{names} {has} one instance, because the file does not \
                    say how many: every restart is an outage"
                ),
            )
            .say("no `replicas`, so one")
            .fix("say `replicas: 2` or more, at best one for each zone");
    }
}

fn says_nothing_of_places(system: &System) -> bool {
    match system.regions.as_slice() {
        [only] => only.name.value == "local" && only.zones.len() == 1 && only.zones[0].value == "a",
        _ => false,
    }
}

fn promises_availability(service: &Service) -> bool {
    service.slo.as_ref().is_some_and(|it| it.availability.is_some())
}

/// L008. Zones fail: power, network, a bad change. What stands in one goes with it.
pub(super) fn one_zone(facts: &Facts<'_>, report: &mut Report<'_>) {
    let system = facts.system;
    if says_nothing_of_places(system) && system.services.iter().all(|it| !promises_availability(it)) {
        return; // A file for one machine. Whoever promises an availability thinks of more than one.
    }
    // Where a region has no second zone that is one cause, however many services stand in it.
    let mut by_region: Groups<RegionId, ServiceId> = Groups::new();
    for (id, service) in system.services.enumerate() {
        let zones = instances_by_zone(system, service);
        let [(zone, count)] = zones.as_slice() else { continue };
        let told_as_quorum = super::data::quorum_at_risk(system, service).is_some();
        if !placed_here(service) || *count < 2 || told_as_quorum || report.accepts(Subject::Service(id)) {
            continue;
        }
        if system.regions[zone.region].zones.len() == 1 {
            by_region.add(zone.region, id);
            continue;
        }
        report
            .push(
                service.replicas.span.unwrap_or(service.name.span),
                format!(
                    "all {count} instances of `{}` stand in zone `{}`",
                    service.name.value,
                    zone_name(system, *zone)
                ),
            )
            .say("one zone")
            .fix("spread them over the region's zones: write the region alone, or no place at all");
    }
    for (region, services) in by_region {
        let name = &system.regions[region].name;
        let names = words::list(services.iter().map(|it| facts.name(*it)));
        let (place, message) = if says_nothing_of_places(system) {
            (
                system.services[services[0]].name.span,
                format!("the file promises an availability but names no `places`: {names} in one zone"),
            )
        } else {
            (name.span, format!("`{}` has one zone, and nothing of {names} stands elsewhere", name.value))
        };
        report
            .push(place, message)
            .say("when this zone goes, everything goes")
            .fix("give the region three zones (`zones: [a, b, c]`); instances are dealt to them in turn");
    }
}

/// L032. Ejection takes a bad instance out; with one instance there is nothing left to take its place.
pub(super) fn eject_with_one(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut groups: Groups<Span, (Caller, ServiceId)> = Groups::new();
    for at in facts.policed_edges() {
        let edge = &facts.graph.edges[at];
        let callee = &facts.system.services[edge.callee];
        let link = facts.link(at);
        // Said for this callee, not in passing for all.
        let set_by =
            link.set_by("eject").filter(|it| facts.rule_at.get(it).is_some_and(|rule| rule.to.is_some()));
        let (Some(place), Some(_)) = (set_by, link.in_force.settings.eject) else { continue };
        let grows = callee.autoscale.as_ref().is_some_and(|it| it.max > 1);
        if callee.kind == Kind::External || instances(callee) != 1 || grows {
            continue;
        }
        if !report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            groups.add(place, (edge.caller, edge.callee));
        }
    }
    for (place, pairs) in groups {
        let callee = facts.name(pairs[0].1);
        report
            .push(place, format!("`{callee}` has one instance, and the last instance is never ejected"))
            .say("does nothing")
            .fix("give it more replicas, or leave `eject` out and use a `breaker`");
    }
}

/// Which places of callers lack a callee they may use.
struct Gap {
    places: BTreeSet<String>,
    why: &'static str,
    place: Span,
}

/// L033. A caller that may not leave its zone or region, and a callee that is not in it: those callers always fail.
pub(super) fn locality_gap(facts: &Facts<'_>, report: &mut Report<'_>) {
    let mut gaps: IndexMap<(ServiceId, ServiceId), Gap> = IndexMap::new();
    let mut zones_of = ZonesOf::new(facts.system);
    for at in facts.policed_edges().filter(|at| facts.graph.edges[*at].via != Via::Fallback) {
        let edge = &facts.graph.edges[at];
        let Caller::Service(caller_id) = edge.caller else { continue };
        if caller_id == edge.callee || gaps.contains_key(&(caller_id, edge.callee)) {
            continue;
        }
        if let Some(gap) = gap_between(facts, at, caller_id, edge.callee, &mut zones_of) {
            gaps.insert((caller_id, edge.callee), gap);
        }
    }
    for ((caller, callee), gap) in gaps {
        if report.accepts(Subject::Edge(Caller::Service(caller), callee)) {
            continue;
        }
        let (caller_name, callee_name) = (facts.name(caller), facts.name(callee));
        report
            .push(
                gap.place,
                format!(
                    "in {}, `{caller_name}` has no `{callee_name}` that it \
                    may call",
                    words::list(&gap.places)
                ),
            )
            .say(gap.why)
            .fix(format!(
                "place `{callee_name}` wherever `{caller_name}` stands, or let the call \
                leave (`locality: prefer-zone`, `reach: any`, `discovery: everywhere`)"
            ))
            .see(
                Some(
                    facts.system.services[callee]
                        .replicas
                        .span
                        .unwrap_or(facts.system.services[callee].name.span),
                ),
                "its instances",
            );
    }
}

fn gap_between(
    facts: &Facts<'_>,
    at: usize,
    caller_id: ServiceId,
    callee_id: ServiceId,
    zones_of: &mut ZonesOf,
) -> Option<Gap> {
    let system = facts.system;
    let (caller, callee) = (&system.services[caller_id], &system.services[callee_id]);
    if !callee.endpoints.is_empty() || caller.placement != Placement::Zones {
        return None;
    }
    let link = facts.link(at);
    let locality = link.in_force.settings.locality;
    let call = facts.graph.edges[at].span;
    if callee.placement != Placement::Zones {
        // It stands in no zone, so whoever compares zones never finds it.
        return (caller.reach == Reach::SameZone).then(|| Gap {
            places: zones_of.names(system, caller_id).iter().map(|it| it.1.clone()).collect(),
            why: "it calls only its own zone, and the callee stands in none",
            place: call,
        });
    }
    let everywhere = caller.discovery == Discovery::Everywhere || callee.discovery == Discovery::Everywhere;
    let callee_zones = zones_of.get(system, callee_id).clone();
    let mut places = BTreeSet::new();
    let mut why = "";
    let mut place = call;
    for (region, zone) in zones_of.get(system, caller_id).clone() {
        let zone_word = &system.regions[RegionId::new(region)].zones[zone as usize].value;
        let same_zone = callee_zones.contains(&(region, zone));
        let same_region = callee_zones.iter().any(|it| it.0 == region);
        let same_zone_name = callee_zones.iter().any(|it| {
            &system.regions[RegionId::new(it.0)].zones[it.1 as usize].value == zone_word
                && (everywhere || it.0 == region)
        });
        let region_word = &system.regions[RegionId::new(region)].name.value;
        if locality == Locality::ZoneOnly && !same_zone {
            places.insert(format!("{region_word}/{zone_word}"));
            (why, place) =
                ("`zone-only`: it may not leave its zone", link.set_by("locality").unwrap_or(call));
        } else if caller.reach == Reach::SameZone && !same_zone_name {
            places.insert(format!("{region_word}/{zone_word}"));
            why = "`reach: same-zone`: it may not leave its zone";
        } else if locality == Locality::RegionOnly && !same_region {
            places.insert(region_word.clone());
            (why, place) =
                ("`region-only`: it may not leave its region", link.set_by("locality").unwrap_or(call));
        } else if !everywhere && !same_region {
            places.insert(region_word.clone());
            why = "it knows only the instances of its own region (`discovery: region`)";
        }
    }
    (!places.is_empty()).then_some(Gap { places, why, place })
}

/// Zones of services, worked out once each.
struct ZonesOf {
    by_service: Vec<Option<BTreeSet<(u32, u32)>>>,
}

impl ZonesOf {
    fn new(system: &System) -> Self {
        Self { by_service: vec![None; system.services.len()] }
    }

    fn get(&mut self, system: &System, id: ServiceId) -> &BTreeSet<(u32, u32)> {
        self.by_service[id.index()].get_or_insert_with(|| {
            let zones = instances_by_zone(system, &system.services[id]);
            zones.iter().map(|(zone, _)| (zone.region.as_u32(), zone.zone)).collect()
        })
    }

    fn names(&mut self, system: &System, id: ServiceId) -> Vec<(RegionId, String)> {
        let zones = instances_by_zone(system, &system.services[id]);
        zones.iter().map(|(zone, _)| (zone.region, zone_name(system, *zone))).collect()
    }
}

/// L040. A call that must cross regions pays a long round trip, and fails with either region.
pub(super) fn cross_region(facts: &Facts<'_>, report: &mut Report<'_>) {
    let system = facts.system;
    if system.regions.len() < 2 {
        return;
    }
    let mut zones_of = ZonesOf::new(system);
    let mut told = BTreeSet::new();
    for edge in facts.graph.edges.iter().filter(|it| it.via == Via::Call && it.waits()) {
        let Caller::Service(caller_id) = edge.caller else { continue };
        let (caller, callee) = (&system.services[caller_id], &system.services[edge.callee]);
        let known = caller.discovery == Discovery::Everywhere || callee.discovery == Discovery::Everywhere;
        if !known || !placed_here(caller) || !placed_here(callee) || !told.insert((caller_id, edge.callee)) {
            continue;
        }
        let callee_regions: BTreeSet<u32> = zones_of.get(system, edge.callee).iter().map(|it| it.0).collect();
        let away: BTreeSet<u32> = zones_of
            .get(system, caller_id)
            .iter()
            .map(|it| it.0)
            .filter(|it| !callee_regions.contains(it))
            .collect();
        if away.is_empty() || report.accepts(Subject::Edge(edge.caller, edge.callee)) {
            continue;
        }
        let regions = words::list(away.iter().map(|it| &system.regions[RegionId::new(*it)].name.value));
        report
            .push(
                edge.span,
                format!(
                    "from {regions}, every call of `{}` to `{}` crosses regions",
                    caller.name.value, callee.name.value
                ),
            )
            .say("no instance in the caller's region")
            .fix(format!(
                "place instances of `{}` there, or ask it less often (a cache, a copy of the data)",
                callee.name.value
            ));
    }
}
