//! What was promised, what was said about it, who makes series, and how applications hand on their traces (docs/live.md).

use crate::api::{Api, lock};
use crate::limits::limits;
use crate::table::Table;
use crate::watched::Watched;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::broadcast;

pub(crate) fn routes(watched: Arc<Watched>) -> Table {
    let (read, json) = (&Method::GET, "application/json");
    Table::new()
        .raw(read, "/v1/slo", "What was promised, and how much of it is left.", json, get(slo))
        .raw(read, "/v1/alerts", "What was said about promises.", json, get(alerts))
        .raw(read, "/v1/series", "Who makes how many series.", json, get(series))
        .raw(read, "/v1/freshness", "How old what is shown is.", json, get(freshness))
        .with_state(watched)
}

/// Tells alerts on for as long as isobar runs: into the history and its stream of events, and to whoever prints.
pub async fn tell(api: Api, watched: Arc<Watched>, say: impl Fn(String)) {
    let (mut alerts, mut notes) = (watched.alerts.subscribe(), watched.notes.subscribe());
    loop {
        let (kind, subject, unix_ms, line) = tokio::select! {
            said = alerts.recv() => match said {
                Ok(said) => ("alert", said.alert.service.to_string(), said.unix_ms, said.alert.line()),
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            note = notes.recv() => match note {
                Ok((service, line)) => ("traces", service, unix_ms(&watched), line),
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
        };
        let change = lock(&api.history).record(unix_ms, "isobar", kind, &subject, line.clone());
        // Nobody listening is no mistake.
        let _ = api.changes.send(change);
        say(line);
    }
}

fn answer(document: Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}

fn unix_ms(watched: &Watched) -> u64 {
    watched.clocks.unix().as_u64() / 1_000_000
}

/// How old the newest numbers are, in milliseconds.
fn age_ms(watched: &Watched) -> f64 {
    let collected = lock(&watched.measures).collected_at();
    watched.clocks.now().saturating_sub(collected).as_millis_f64()
}

async fn slo(State(watched): State<Arc<Watched>>) -> Response {
    let mut document = lock(&watched.promises).document(unix_ms(&watched));
    document["age_ms"] = json!(age_ms(&watched));
    answer(document)
}

async fn alerts(State(watched): State<Arc<Watched>>) -> Response {
    answer(lock(&watched.promises).alerts())
}

/// Who makes series, most first: what to look at when the budget is used up.
async fn series(State(watched): State<Arc<Watched>>) -> Response {
    let (makers, count, bytes) = {
        let measures = lock(&watched.measures);
        (measures.makers(), measures.series_count(), measures.bytes())
    };
    let budget = telemetry::metrics::SeriesSettings::default().series_max;
    let rows: Vec<Value> = makers
        .iter()
        .map(|it| {
            json!({
                "from": &*it.source, "to": &*it.destination, "series": it.series, "operations": it.operations,
                "versions": it.versions, "zone_pairs": it.zone_pairs, "folded": it.folded,
            })
        })
        .collect();
    let stores: Vec<Value> = limits(&watched)
        .iter()
        .map(|it| {
            json!({"store": it.store, "used": it.used, "max": it.max, "refused": it.refused, "then": it.then})
        })
        .collect();
    answer(json!({
        "version": 1, "unix_ms": unix_ms(&watched), "age_ms": age_ms(&watched), "series": count,
        "series_max": budget, "memory_bytes": bytes, "makers": rows, "stores": stores,
    }))
}

/// How old what is shown is, measured by marker requests.
async fn freshness(State(watched): State<Arc<Watched>>) -> Response {
    let now = watched.clocks.now();
    let markers = lock(&watched.freshness);
    let ages = markers.ages();
    let quantile = |q: f64| ages.quantile(q).map(|it| it.as_millis_f64());
    let document = json!({
        "version": 1, "age_ms": markers.age(now).map(|it| it.as_millis_f64()), "markers": ages.count(),
        "lost": markers.lost, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "max_ms": quantile(1.0),
    });
    drop(markers);
    answer(document)
}
