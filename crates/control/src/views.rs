//! Answers for terminals and scripts: services, edges, traces and live requests, all by one filter (docs/live.md).
//!
//! `isobar stat`, `edges`, `top`, `tap` and `trace` ask here, and so may anybody. The rows are plain types that those
//! who give and those who read share. What a row is made of is read from [`crate::measures`] in one place, [`Window`];
//! everything else is pure: rows in, rows out.
//!
//! What nobody measured is `null`, never a number that looks measured. Every answer says how old it is, which window
//! was asked for and how much of it there is.

pub mod tap;
pub mod traces;

use crate::api::{Api, Refusal, lock};
use crate::live::{NodeRecord, flag};
use crate::map::{GATEWAY, Map, Node};
use crate::numbers::{Counts, Numbers};
use crate::status::{InstanceStatus, ServiceStatus, Status};
use crate::table::Table;
use crate::watch::Watched;
use axum::extract::{RawQuery, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use telemetry::filter::{Filter, Number, Row, Word};
use telemetry::http::percent_decode;
use telemetry::metrics::{Counter, Counters};
use units::{Histogram, Nanos};

/// Behind every rate, unless a window is asked for.
pub const WINDOW: Nanos = Nanos::from_secs(30);
const WINDOW_MIN: Nanos = Nanos::from_secs(1);
const WINDOW_MAX: Nanos = Nanos::from_secs(900);
/// Seconds of the small line beside a row.
const SPARK_SECONDS: usize = 30;

/// What every answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Of this form of answer.
    pub version: u32,
    pub system: String,
    /// The end of the window, wall-clock milliseconds since 1970.
    pub unix_ms: u64,
    /// How long ago that was when the answer was written.
    pub age_ms: f64,
    pub window_ms: u64,
    /// How much of the window there is: less after a start, and never more than is kept.
    pub covered_ms: u64,
    /// A percentile may be off by this share.
    pub percentile_error: f64,
    /// Rows before the filter.
    pub rows_in_all: usize,
}

/// `GET /v1/stat`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    #[serde(flatten)]
    pub about: About,
    pub rows: Vec<StatRow>,
}

/// `GET /v1/edges`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    #[serde(flatten)]
    pub about: About,
    pub rows: Vec<EdgeRow>,
}

/// Requests over the window, as callers saw them end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Requests a second.
    pub rate: Option<f64>,
    pub success: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    /// For each request.
    pub retries: Option<f64>,
    /// These three a second: attempts that took too long, requests that a limit or a breaker refused, trouble made on
    /// purpose.
    pub timeouts: Option<f64>,
    pub refused: Option<f64>,
    pub faults: Option<f64>,
    /// Requests a second, one value a second, the newest last.
    pub spark: Vec<f64>,
}

/// How the instances of a service are now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    pub healthy: u32,
    pub instances: u32,
    pub ejected: u32,
    /// Breakers on the way to it: open, of all.
    pub breakers_open: u32,
    pub breakers: u32,
    /// Share in use.
    pub concurrency: Option<f64>,
    pub queue: Option<f64>,
    /// Whether its objective holds; `None` if it has none.
    pub slo: Option<SloState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SloState {
    Kept,
    Burns,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatRow {
    /// Empty in a team's row.
    pub service: String,
    /// Which version, zone, team or instance of it, when asked by one.
    pub part: Option<String>,
    pub kind: String,
    pub team: Option<String>,
    #[serde(flatten)]
    pub measures: Measures,
    #[serde(flatten)]
    pub condition: Condition,
    pub operations: Vec<String>,
    pub versions: Vec<String>,
    pub zones: Vec<String>,
    /// An instance's state, and why it is not ready or not used.
    pub state: Option<String>,
    pub why: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeRow {
    pub from: String,
    pub to: String,
    pub optional: bool,
    #[serde(flatten)]
    pub measures: Measures,
    /// Of the service called; breakers are those of this edge alone.
    #[serde(flatten)]
    pub condition: Condition,
    pub operations: Vec<String>,
    pub versions: Vec<String>,
    pub zones: Vec<String>,
    pub team: Option<String>,
    pub kind: String,
}

/// What a row is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    #[default]
    Service,
    Version,
    Zone,
    Team,
    Instance,
}

impl By {
    pub const ALL: [(&'static str, Self); 5] = [
        ("service", Self::Service),
        ("version", Self::Version),
        ("zone", Self::Zone),
        ("team", Self::Team),
        ("instance", Self::Instance),
    ];
}

fn quantile_number(measures: &Measures, number: Number) -> Option<f64> {
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    match number {
        Number::P50 => seconds(measures.p50_ms),
        Number::P90 => seconds(measures.p90_ms),
        Number::P95 => seconds(measures.p95_ms),
        Number::P99 => seconds(measures.p99_ms),
        Number::P999 => seconds(measures.p999_ms),
        Number::Rate => measures.rate,
        Number::Errors => measures.success.map(|it| 1.0 - it),
        Number::Retries => measures.retries,
        Number::Status | Number::Duration | Number::Spans | Number::Attempts => None,
    }
}

/// What of "has" a row can answer.
fn marks(measures: &Measures, breakers_open: u32) -> Vec<Cow<'static, str>> {
    let some = |it: Option<f64>| it.is_some_and(|it| it > 0.0);
    let marks = [
        ("error", measures.success.is_some_and(|it| it < 1.0)),
        ("retry", some(measures.retries)),
        ("timeout", some(measures.timeouts)),
        ("fault", some(measures.faults)),
        ("breaker", breakers_open > 0),
    ];
    marks.into_iter().filter(|(_, is_so)| *is_so).map(|(word, _)| Cow::Borrowed(word)).collect()
}

fn texts(list: &[String]) -> Vec<Cow<'_, str>> {
    list.iter().map(|it| Cow::Borrowed(it.as_str())).collect()
}

/// A zone answers to its whole name and to its last part: `eu-west/b` is `b`, too.
fn zone_words(zones: &[String]) -> Vec<Cow<'_, str>> {
    let short = zones.iter().filter_map(|it| it.rsplit_once('/')).map(|(_, zone)| Cow::Borrowed(zone));
    zones.iter().map(|it| Cow::Borrowed(it.as_str())).chain(short).collect()
}

fn known(text: &str) -> Vec<Cow<'_, str>> {
    if text.is_empty() { Vec::new() } else { vec![Cow::Borrowed(text)] }
}

impl Row for StatRow {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        match word {
            Word::Any => {
                known(&self.service).into_iter().chain(self.part.as_deref().map(Cow::Borrowed)).collect()
            }
            Word::Service | Word::Destination => known(&self.service),
            Word::Version => texts(&self.versions),
            Word::Zone => zone_words(&self.zones),
            Word::Team => self.team.as_deref().map(Cow::Borrowed).into_iter().collect(),
            Word::Kind => known(&self.kind),
            // Only an instance's row has a state.
            Word::Instance => {
                self.state.as_ref().and(self.part.as_deref()).map(Cow::Borrowed).into_iter().collect()
            }
            Word::Has => marks(&self.measures, self.condition.breakers_open),
            Word::Operation => texts(&self.operations),
            Word::Source | Word::Trace | Word::Tag(_) => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        quantile_number(&self.measures, number)
    }
}

impl Row for EdgeRow {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        match word {
            Word::Any | Word::Service => vec![Cow::Borrowed(&self.from), Cow::Borrowed(&self.to)],
            Word::Source => known(&self.from),
            Word::Destination => known(&self.to),
            Word::Version => texts(&self.versions),
            Word::Zone => zone_words(&self.zones),
            Word::Team => self.team.as_deref().map(Cow::Borrowed).into_iter().collect(),
            Word::Kind => known(&self.kind),
            Word::Has => marks(&self.measures, self.condition.breakers_open),
            Word::Operation => texts(&self.operations),
            Word::Instance | Word::Trace | Word::Tag(_) => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        quantile_number(&self.measures, number)
    }

    fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        vec![(Cow::Borrowed(&self.from), Cow::Borrowed(&self.to))]
    }
}

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
}

/// The one place that reads what was counted: the series of a window, added up by what rows are about.
#[derive(Debug, Default)]
pub struct Window {
    /// How much of what was asked for there is: whole seconds, and the one that has begun.
    covered: Nanos,
    percentile_error: f64,
    services: HashMap<String, Sum>,
    gateways: HashMap<String, Sum>,
    edges: HashMap<(String, String), Sum>,
    /// By service and version, and by service and zone.
    versions: HashMap<(String, String), Sum>,
    zones: HashMap<(String, String), Sum>,
}

/// Everything of some series together. Histograms are added, never percentiles.
#[derive(Clone, Debug, Default)]
struct Sum {
    counts: Counts,
    counters: Counters,
    operations: BTreeSet<String>,
}

/// Operations that a row names; their number has a limit of its own where they are counted.
const OPERATIONS_MAX: usize = 100;

impl Sum {
    fn add(&mut self, counts: &Counts, counters: &Counters, operation: &str) {
        self.counts.add(counts);
        (0..Counter::COUNT).for_each(|at| self.counters[at] += counters[at]);
        if !operation.is_empty()
            && self.operations.len() < OPERATIONS_MAX
            && !self.operations.contains(operation)
        {
            self.operations.insert(operation.to_owned());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.add(&other.counts, &other.counters, "");
    }

    fn measures(&self, over: Nanos, spark: Vec<f64>) -> Measures {
        let (counts, seconds) = (&self.counts, over.as_secs_f64());
        let ms = |q: f64| counts.quantile_ms(q).map(short);
        let rate = |count: u64| (seconds > 0.0).then(|| short(count as f64 / seconds));
        Measures {
            rate: rate(counts.requests),
            success: counts.errors().map(|it| 1.0 - it),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            retries: counts.retries_per_request().map(short),
            timeouts: rate(self.counters[Counter::Timeouts as usize]),
            refused: rate(
                self.counters[Counter::Shed as usize] + self.counters[Counter::BreakerRefused as usize],
            ),
            faults: rate(self.counters[Counter::Faults as usize]),
            spark,
        }
    }
}

impl Window {
    pub fn read(measures: &crate::measures::Measures, window: Nanos) -> Self {
        let now = measures.collected_at();
        // The history gives whole seconds: the first one that lies within is where the window begins.
        let second = Nanos::from_secs(1).as_u64();
        let from = now.saturating_sub(window).as_u64().div_ceil(second) * second;
        let mut read = Self {
            covered: now.saturating_sub(Nanos(from)),
            percentile_error: Histogram::RELATIVE_ERROR,
            ..Self::default()
        };
        for (text, latency, counters) in measures.window(window, now) {
            read.percentile_error = read.percentile_error.max(latency.relative_error());
            let requests = latency.count();
            let mut counts = Counts {
                requests,
                failed: if text.class.failed() { requests } else { 0 },
                retries: counters[Counter::Retries as usize],
                latency: latency.histogram(),
            };
            let (from, to) = (text.source.to_string(), text.destination.to_string());
            if from.is_empty() {
                // How long a gateway's requests take is how long what is behind it takes, which its edges say.
                counts.latency.clear();
                read.gateways.entry(to).or_default().add(&counts, &counters, &text.operation);
                continue;
            }
            read.services.entry(to.clone()).or_default().add(&counts, &counters, &text.operation);
            for (by, part) in [(&mut read.versions, &text.version), (&mut read.zones, &text.destination_zone)]
            {
                if !part.is_empty() {
                    by.entry((to.clone(), part.to_string())).or_default().add(
                        &counts,
                        &counters,
                        &text.operation,
                    );
                }
            }
            read.edges.entry((from, to)).or_default().add(&counts, &counters, &text.operation);
        }
        for ((from, _), sum) in &read.edges {
            if let Some(gateway) = read.gateways.get_mut(from) {
                gateway.counts.latency.merge(&sum.counts.latency);
            }
        }
        read
    }

    fn node(&self, node: &Node) -> Sum {
        let by = if node.kind == GATEWAY { &self.gateways } else { &self.services };
        by.get(&node.name).cloned().unwrap_or_default()
    }

    fn of(by: &HashMap<(String, String), Sum>, a: &str, b: &str) -> Sum {
        by.get(&(a.to_owned(), b.to_owned())).cloned().unwrap_or_default()
    }
}

/// The last seconds of a rate, the newest last.
fn newest(rates: impl DoubleEndedIterator<Item = f32>) -> Vec<f64> {
    let mut newest: Vec<f64> = rates.rev().take(SPARK_SECONDS).map(|it| short(f64::from(it))).collect();
    newest.reverse();
    newest
}

/// Four digits: more than a percentile's own error, and half the bytes.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn finite(value: f32) -> Option<f64> {
    value.is_finite().then(|| short(f64::from(value)))
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
        let spark = past.map_or_else(Vec::new, |it| newest(it.seconds.iter().map(|second| second.rate)));
        StatRow {
            service: node.name.clone(),
            kind: node.kind.to_owned(),
            team: self.team(at),
            measures: sum.measures(self.window.covered, spark),
            operations: sum.operations.into_iter().collect(),
            condition: self.condition(at),
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

/// What was asked. Unknown words are refused: a misspelt filter must not answer for everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pairs: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in query.unwrap_or("").split('&').filter(|it| !it.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (percent_decode(name), percent_decode(value));
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(40).collect();
                return Err(Refusal::wrong(format!(
                    "`{name}` is not asked here; known are {}",
                    known.join(", ")
                )));
            }
            if pairs.iter().any(|(it, _)| *it == name) {
                return Err(Refusal::wrong(format!("`{name}` is given twice")));
            }
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        Ok(Self { pairs })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn filter(&self) -> Result<Filter, Refusal> {
        Filter::parse(self.get("filter").unwrap_or(""))
            .map_err(|it| Refusal::wrong(format!("the filter: {it}")))
    }

    pub(crate) fn duration(&self, name: &str) -> Result<Option<Nanos>, Refusal> {
        let read = |text: &str| text.parse().map_err(|it| Refusal::wrong(format!("`{name}`: {it}")));
        self.get(name).map(read).transpose()
    }

    pub(crate) fn window(&self) -> Result<Nanos, Refusal> {
        let window = self.duration("window")?.unwrap_or(WINDOW);
        if window < WINDOW_MIN || window > WINDOW_MAX {
            return Err(Refusal::wrong(format!(
                "`window` is {window}; it goes from {WINDOW_MIN} to {WINDOW_MAX}"
            )));
        }
        Ok(window)
    }

    pub(crate) fn count(&self, name: &str, absent: usize, max: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get(name) else { return Ok(absent) };
        match text.parse() {
            Ok(count) if (1..=max).contains(&count) => Ok(count),
            _ => Err(Refusal::wrong(format!("`{name}` is `{text}`; it is a whole number from 1 to {max}"))),
        }
    }

    fn by(&self) -> Result<By, Refusal> {
        let Some(text) = self.get("by") else { return Ok(By::Service) };
        let names = || By::ALL.map(|(name, _)| name).join(", ");
        let found = By::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, by)| by);
        found.ok_or_else(|| Refusal::wrong(format!("`by` is `{text}`; it is one of {}", names())))
    }
}

/// What the doors stand on.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) api: Api,
    pub(crate) watched: Arc<Watched>,
}

/// The paths of this module.
pub(crate) fn routes(api: Api, watched: Arc<Watched>) -> Table {
    let (read, json) = (&Method::GET, "application/json");
    Table::new()
        .raw(read, "/v1/stat", "Services by one filter, a row each (docs/live.md).", json, get(stat))
        .raw(read, "/v1/edges", "Who calls whom, a row each.", json, get(edges))
        .raw(read, "/v1/tap", "Requests as they finish.", "text/event-stream", get(tap::tap))
        .raw(read, "/v1/traces", "Traces by one filter.", json, get(traces::traces))
        .with_state(Views { api, watched })
}

impl Views {
    /// Rows of one moment, and what is to be said of them.
    fn rows<R: Row>(
        &self,
        asked: &Asked,
        make: impl FnOnce(&Sources<'_>) -> Vec<R>,
    ) -> Result<(About, Vec<R>), Refusal> {
        let (filter, window) = (asked.filter()?, asked.window()?);
        let map = self.watched.map();
        let status = Arc::clone(&self.api.status.borrow());
        let records = lock(&self.watched.live).nodes().to_vec();
        let ports = lock(&self.watched.tally).by_port();
        let (counted, read_at) = {
            let measures = lock(&self.watched.measures);
            (Window::read(&measures, window), measures.collected_at())
        };
        let mut rows = {
            let numbers = lock(&self.watched.numbers);
            make(&Sources {
                map: &map,
                window: &counted,
                numbers: &numbers,
                records: &records,
                ports: &ports,
                status: &status,
            })
        };
        let rows_in_all = rows.len();
        rows.retain(|it| filter.matches(it));
        let clocks = &self.watched.clocks;
        let about = About {
            version: 1,
            system: map.system.clone(),
            unix_ms: clocks.started_unix_ms + read_at.as_u64() / 1_000_000,
            age_ms: short(clocks.now().saturating_sub(read_at).as_millis_f64()),
            window_ms: window.as_u64() / 1_000_000,
            covered_ms: counted.covered.min(window).as_u64() / 1_000_000,
            percentile_error: counted.percentile_error,
            rows_in_all,
        };
        Ok((about, rows))
    }
}

pub(crate) fn fresh<T: Serialize>(body: T) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn stat(State(views): State<Views>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let asked = Asked::read(query.as_deref(), &["filter", "window", "by"])?;
    let by = asked.by()?;
    let (about, rows) = views.rows(&asked, |sources| sources.stat(by))?;
    Ok(fresh(Stat { about, rows }))
}

async fn edges(State(views): State<Views>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let asked = Asked::read(query.as_deref(), &["filter", "window"])?;
    let (about, rows) = views.rows(&asked, |sources| sources.edges())?;
    Ok(fresh(Edges { about, rows }))
}

#[cfg(test)]
mod tests;
