//! Answers for terminals and scripts: services, edges, traces and live requests, all by one filter (docs/live.md).
//!
//! `isobar stat`, `edges`, `top`, `tap` and `trace` ask here, and so may anybody. The rows are plain types that those
//! who give and those who read share. What a row is made of is read from [`crate::measures`] in one place, [`Window`];
//! everything else is pure: rows in, rows out.
//!
//! What nobody measured is `null`, never a number that looks measured. Every answer says how old it is, which window
//! was asked for and how much of it there is.

mod rows;
mod sources;
pub mod tap;
mod tapping;
pub mod traces;
mod window;

pub use rows::{About, By, Condition, EdgeRow, Edges, HandsOn, Measures, SloState, Stat, StatRow};
pub use sources::Sources;
pub use window::Window;

use crate::api::{Api, Refusal, lock};
use crate::table::Table;
use crate::watched::Watched;
use axum::extract::{RawQuery, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;
use telemetry::filter::{Filter, Row};
use telemetry::http::percent_decode;
use units::Nanos;

/// Behind every rate, unless a window is asked for.
pub const WINDOW: Nanos = Nanos::from_secs(30);
const WINDOW_MIN: Nanos = Nanos::from_secs(1);
const WINDOW_MAX: Nanos = Nanos::from_secs(900);
/// Behind the numbers of single instances, whatever is asked: they are looked at one by one, and kept no longer.
const INSTANCES_WINDOW: Nanos = Nanos::from_secs(10);

/// Four digits: more than a percentile's own error, and half the bytes.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn finite(value: f32) -> Option<f64> {
    value.is_finite().then(|| short(f64::from(value)))
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
        .raw(read, "/v1/tap", "Requests as they finish.", "text/event-stream", get(tapping::tap))
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
        let handed = lock(&self.watched.handed).clone();
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
                handed: &handed,
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
    let (mut about, rows) = views.rows(&asked, |sources| sources.stat(by))?;
    if by == By::Instance {
        about.window_ms = INSTANCES_WINDOW.as_u64() / 1_000_000;
        about.covered_ms = about.covered_ms.min(about.window_ms);
    }
    Ok(fresh(Stat { about, rows }))
}

async fn edges(State(views): State<Views>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let asked = Asked::read(query.as_deref(), &["filter", "window"])?;
    let (about, rows) = views.rows(&asked, |sources| sources.edges())?;
    Ok(fresh(Edges { about, rows }))
}

#[cfg(test)]
mod tests;
