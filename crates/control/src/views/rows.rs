//! What a row says: the plain types that those who give and those who read share, and how a filter sees them.

use crate::handing::Handed;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use telemetry::filter::{Number, Row, Word};

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

/// Of the calls made while serving, over the last five to ten minutes: how many carried the trace of a request that was
/// being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandsOn {
    pub calls: u64,
    pub joined: u64,
    /// Without context, but only one request can have caused them.
    pub inferred: u64,
}

impl HandsOn {
    pub fn share(self) -> Option<f64> {
        (self.calls > 0).then(|| self.joined as f64 / self.calls as f64)
    }

    /// False when traces break here, on enough calls to say so.
    pub fn ok(self) -> bool {
        !crate::handing::breaks(self.calls, self.joined)
    }

    pub(super) fn add(&mut self, it: &Handed) {
        self.calls += it.calls;
        self.joined += it.joined;
        self.inferred += it.inferred;
    }
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
    /// How it hands on the traces of what it serves to those it calls; `None` if it calls nobody.
    #[serde(default)]
    pub hands_on: Option<HandsOn>,
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
    /// In calls over this edge.
    #[serde(default)]
    pub hands_on: Option<HandsOn>,
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
