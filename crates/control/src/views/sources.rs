//! From what is known at one moment to rows: services, their parts, and who calls whom.

use super::rows::{By, Condition, EdgeRow, HandsOn, Measures, SloState, StatRow};
use super::window::{Sum, Window};
use super::{finite, short};
use crate::handing::Handed;
use crate::live::{NodeRecord, flag};
use crate::map::{GATEWAY, Map};
use crate::numbers::{Counts, Numbers};
use crate::status::{InstanceStatus, ServiceStatus, Status};
use std::collections::HashMap;
use units::Nanos;

/// Seconds of the small line beside a row.
const SPARK_SECONDS: usize = 30;

/// Everything rows are made of, at one moment.
#[derive(Debug)]
pub struct Sources<'a> {
    pub map: &'a Map,
    pub window: &'a Window,
    /// Breakers, instances, and the line of a rate.
    pub numbers: &'a Numbers,
    /// In the order of the map.
    pub records: &'a [NodeRecord],
    /// What each instance answered lately, by port.
    pub ports: &'a HashMap<u16, Counts>,
    pub status: &'a Status,
    /// How callers hand on traces.
    pub handed: &'a [Handed],
}

/// The last seconds of a rate, the newest last.
fn newest(rates: impl DoubleEndedIterator<Item = f32>) -> Vec<f64> {
    let mut newest: Vec<f64> = rates.rev().take(SPARK_SECONDS).map(|it| short(f64::from(it))).collect();
    newest.reverse();
    newest
}

impl Sources<'_> {
    fn condition(&self, node: usize) -> Condition {
        let Some((record, drawn)) = self.records.get(node).zip(self.map.nodes.get(node)) else {
            return Condition::default();
        };
        let ways = self.map.edges.iter().enumerate().filter(|(_, it)| it.to as usize == node);
        let (open, all) = ways.fold((0, 0), |(open, all), (at, _)| {
            let (open_here, here) = self.breakers(at);
            (open + open_here, all + here)
        });
        let burns = record.flags & flag::SLO_BURNS != 0;
        Condition {
            healthy: u32::from(record.healthy),
            instances: u32::from(record.instances),
            ejected: u32::from(record.ejected),
            breakers_open: open,
            breakers: all,
            concurrency: finite(record.concurrency),
            queue: finite(record.queue),
            slo: drawn.slo.as_ref().map(|_| if burns { SloState::Burns } else { SloState::Kept }),
        }
    }

    fn breakers(&self, edge: usize) -> (u32, u32) {
        self.numbers.breakers.get(&edge).map_or((0, 0), |(open, all)| (u32::from(*open), u32::from(*all)))
    }

    fn service(&self, name: &str) -> Option<&ServiceStatus> {
        self.status.services.iter().find(|it| it.name == name)
    }

    /// How a caller hands on, to one callee or to all.
    fn hands_on(&self, from: &str, to: Option<&str>) -> Option<HandsOn> {
        let wanted = |it: &&Handed| it.from == from && to.is_none_or(|to| it.to == to);
        let mut calls = self.handed.iter().filter(wanted).peekable();
        calls.peek()?;
        let mut all = HandsOn::default();
        calls.for_each(|it| all.add(it));
        Some(all)
    }

    fn zones(&self, name: &str) -> Vec<String> {
        let mut zones: Vec<String> =
            self.service(name).into_iter().flat_map(|it| &it.instances).map(|it| it.place.clone()).collect();
        zones.retain(|it| !it.is_empty());
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    fn team(&self, node: usize) -> Option<String> {
        let team = self.map.nodes.get(node)?.team?;
        self.map.teams.get(team).map(|it| it.name.clone())
    }

    /// Rows before any filter, in the order of the map.
    pub fn stat(&self, by: By) -> Vec<StatRow> {
        match by {
            By::Service => (0..self.map.nodes.len()).map(|it| self.service_row(it)).collect(),
            By::Version => (0..self.map.nodes.len()).flat_map(|it| self.version_rows(it)).collect(),
            By::Team => self.team_rows(),
            By::Zone => (0..self.map.nodes.len()).flat_map(|it| self.zone_rows(it)).collect(),
            By::Instance => (0..self.map.nodes.len()).flat_map(|it| self.instance_rows(it)).collect(),
        }
    }

    fn service_row(&self, at: usize) -> StatRow {
        let node = &self.map.nodes[at];
        let sum = self.window.node(node);
        let past = self.numbers.nodes.get(at);
        let spark = past.map_or_else(Vec::new, |it| newest(it.rates.iter().copied()));
        StatRow {
            service: node.name.clone(),
            kind: node.kind.to_owned(),
            team: self.team(at),
            measures: sum.measures(self.window.covered, spark),
            operations: sum.operations.into_iter().collect(),
            condition: self.condition(at),
            hands_on: self.hands_on(&node.name, None),
            versions: node.versions.clone(),
            zones: self.zones(&node.name),
            ..StatRow::default()
        }
    }

    fn version_rows(&self, at: usize) -> Vec<StatRow> {
        let node = &self.map.nodes[at];
        let whole = self.service_row(at);
        if node.versions.len() < 2 {
            // One version is the service; nobody counts it apart.
            return vec![StatRow { part: node.versions.first().cloned(), ..whole }];
        }
        let instances = self.service(&node.name).map_or(&[][..], |it| &it.instances);
        let row = |version: &String| {
            let sum = Window::of(&self.window.versions, &node.name, version);
            let own: Vec<&InstanceStatus> = instances.iter().filter(|it| it.version == *version).collect();
            StatRow {
                part: Some(version.clone()),
                measures: sum.measures(self.window.covered, Vec::new()),
                condition: self.condition_of(&own),
                versions: vec![version.clone()],
                ..whole.clone()
            }
        };
        node.versions.iter().map(row).collect()
    }

    fn team_rows(&self) -> Vec<StatRow> {
        let teams = self.map.teams.iter().enumerate().map(|(at, team)| (Some(at), team.name.clone()));
        let rows = teams.chain([(None, String::new())]).filter_map(|(team, name)| {
            let own: Vec<usize> = (0..self.map.nodes.len())
                .filter(|it| self.map.nodes[*it].team == team && self.map.nodes[*it].kind != GATEWAY)
                .collect();
            let mut all = Sum::default();
            let mut condition = Condition::default();
            let (mut versions, mut zones) = (Vec::new(), Vec::new());
            for at in &own {
                all.merge(&self.window.node(&self.map.nodes[*at]));
                add_condition(&mut condition, &self.condition(*at));
                versions.extend(self.map.nodes[*at].versions.iter().cloned());
                zones.extend(self.zones(&self.map.nodes[*at].name));
            }
            zones.sort_unstable();
            zones.dedup();
            (!own.is_empty()).then(|| StatRow {
                part: Some(if team.is_some() { name.clone() } else { "nobody's".to_owned() }),
                team: team.map(|_| name),
                measures: all.measures(self.window.covered, Vec::new()),
                condition,
                versions,
                zones,
                ..StatRow::default()
            })
        });
        rows.collect()
    }

    /// Rates are the workers' own counts, which miss nothing; latencies are those of requests that were looked at singly.
    fn instance_measures(&self, own: &[&InstanceStatus]) -> Measures {
        let mut looked_at = Counts::default();
        own.iter().filter_map(|it| self.ports.get(&it.port?)).for_each(|it| looked_at.add(it));
        let seen: Vec<_> = own.iter().filter_map(|it| self.numbers.instances.get(&it.port?)).collect();
        let rates: Vec<f64> = seen.iter().filter_map(|it| it.rate).collect();
        let rate: f64 = rates.iter().sum();
        let failed: f64 = seen.iter().filter_map(|it| Some(it.rate? * it.errors?)).sum();
        Measures {
            rate: (!rates.is_empty()).then(|| short(rate)),
            success: (rate > 0.0).then(|| 1.0 - failed / rate),
            retries: None,
            ..Sum { counts: looked_at, ..Sum::default() }.measures(Nanos(0), Vec::new())
        }
    }

    fn condition_of(&self, own: &[&InstanceStatus]) -> Condition {
        let lives = || own.iter().filter(|it| !matches!(it.state.as_str(), "stopped" | "completed"));
        let ejected = lives().filter_map(|it| self.numbers.instances.get(&it.port?)).filter(|it| it.ejected);
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Condition {
            healthy: small(lives().filter(|it| it.state == "ready").count()),
            instances: small(lives().count()),
            ejected: small(ejected.count()),
            ..Condition::default()
        }
    }

    /// A service's row without its numbers, for the rows of its parts.
    fn part_row(&self, at: usize, part: String) -> StatRow {
        let node = &self.map.nodes[at];
        StatRow {
            service: node.name.clone(),
            part: Some(part),
            kind: node.kind.to_owned(),
            team: self.team(at),
            ..StatRow::default()
        }
    }

    fn zone_rows(&self, at: usize) -> Vec<StatRow> {
        let name = &self.map.nodes[at].name;
        let Some(service) = self.service(name).filter(|_| self.map.nodes[at].kind != GATEWAY) else {
            return Vec::new();
        };
        let row = |zone: String| {
            let own: Vec<&InstanceStatus> = service.instances.iter().filter(|it| it.place == zone).collect();
            let mut versions: Vec<String> = own.iter().map(|it| it.version.clone()).collect();
            versions.retain(|it| !it.is_empty());
            versions.sort_unstable();
            versions.dedup();
            StatRow {
                measures: Window::of(&self.window.zones, name, &zone)
                    .measures(self.window.covered, Vec::new()),
                condition: self.condition_of(&own),
                versions,
                zones: vec![zone.clone()],
                ..self.part_row(at, zone)
            }
        };
        self.zones(name).into_iter().map(row).collect()
    }

    fn instance_rows(&self, at: usize) -> Vec<StatRow> {
        let node = &self.map.nodes[at];
        let Some(service) = self.service(&node.name).filter(|_| node.kind != GATEWAY) else {
            return Vec::new();
        };
        let one = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        let row = |it: &InstanceStatus| {
            let seen = it.port.and_then(|port| self.numbers.instances.get(&port));
            let verdict = seen.and_then(|it| it.verdict.clone());
            let mut condition = self.condition_of(&[it]);
            condition.concurrency = seen
                .zip(node.concurrency.filter(|it| *it > 0))
                .map(|(seen, limit)| short(f64::from(seen.in_flight.min(limit)) / f64::from(limit)));
            StatRow {
                measures: self.instance_measures(&[it]),
                condition,
                versions: one(&it.version),
                zones: one(&it.place),
                state: Some(it.state.clone()),
                why: Some(it.detail.clone()).filter(|it| !it.is_empty()).or(verdict),
                ..self.part_row(at, it.name.clone())
            }
        };
        service.instances.iter().map(row).collect()
    }

    /// Edges before any filter, in the order of the map.
    pub fn edges(&self) -> Vec<EdgeRow> {
        let row = |(at, edge): (usize, &crate::map::Edge)| {
            let (from, to) = (self.map.nodes.get(edge.from as usize)?, self.map.nodes.get(edge.to as usize)?);
            let sum = Window::of(&self.window.edges, &from.name, &to.name);
            let past = self.numbers.edges.get(at);
            let spark = past.map_or_else(Vec::new, |it| newest(it.rates.iter().copied()));
            let (breakers_open, breakers) = self.breakers(at);
            Some(EdgeRow {
                from: from.name.clone(),
                to: to.name.clone(),
                optional: edge.optional,
                measures: sum.measures(self.window.covered, spark),
                operations: sum.operations.into_iter().collect(),
                condition: Condition { breakers_open, breakers, ..self.condition(edge.to as usize) },
                hands_on: self.hands_on(&from.name, Some(&to.name)),
                versions: to.versions.clone(),
                zones: self.zones(&to.name),
                team: self.team(edge.to as usize),
                kind: to.kind.to_owned(),
            })
        };
        self.map.edges.iter().enumerate().filter_map(row).collect()
    }
}

fn add_condition(all: &mut Condition, more: &Condition) {
    all.healthy += more.healthy;
    all.instances += more.instances;
    all.ejected += more.ejected;
    all.breakers_open += more.breakers_open;
    all.breakers += more.breakers;
    // The fullest is the one that matters: an average would hide it.
    let most = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    all.concurrency = most(all.concurrency, more.concurrency);
    all.queue = most(all.queue, more.queue);
    all.slo = match (all.slo, more.slo) {
        (Some(SloState::Burns), _) | (_, Some(SloState::Burns)) => Some(SloState::Burns),
        (a, b) => a.or(b),
    };
}
