//! Numbers in other people's formats: `/metrics` for Prometheus, `/hystrix.stream` for Hystrix' dashboards, `/vizceral`.
//!
//! All of them read the one store of numbers ([`crate::measures`]); each is a picture of it at the moment of asking.

use crate::api::{Refusal, lock};
use crate::compile::MARKER;
use crate::map::Map;
use crate::table::Table;
use crate::watched::Watched;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use telemetry::exposition::{Exemplar, Family, Format, Kind, NamedHistogram, Page, Series, write};
use telemetry::hystrix::{self, Command, Pool};
use telemetry::metrics::{Class, Counter, SeriesId};
use telemetry::vizceral::{self, VizEdge};
use tokio::sync::Semaphore;
use units::{Histogram, Nanos};

/// Behind the rates of Hystrix and Vizceral: what their own programs show.
const WINDOW: Nanos = Nanos::from_secs(10);

#[derive(Clone, Debug)]
struct Exports {
    watched: Arc<Watched>,
    streams: Arc<Semaphore>,
}

pub(crate) fn routes(watched: Arc<Watched>) -> Table {
    let streams = Arc::new(Semaphore::new(hystrix::CONNECTIONS_MAX));
    let (read, text, json) = (&Method::GET, "text/plain", "application/json");
    Table::new()
        .raw(read, "/metrics", "All numbers, as Prometheus reads them.", text, get(metrics))
        .raw(
            read,
            "/hystrix.stream",
            "Commands and pools, as the dashboards of Hystrix read them.",
            "text/event-stream",
            get(hystrix_stream),
        )
        .raw(read, "/vizceral", "The traffic, as Vizceral draws it.", json, get(vizceral_document))
        .with_state(Exports { watched, streams })
}

async fn metrics(State(it): State<Exports>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or("");
    let format = Format::negotiate(accept);
    let written = tokio::task::spawn_blocking(move || page(&it.watched, format)).await;
    match written {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The whole of `/metrics`.
pub fn page(watched: &Watched, format: Format) -> Vec<u8> {
    let mut families = own_families(watched);
    // What applications named as we do would be one name with two meanings.
    let taken =
        |name: &str| name.starts_with("isobar_") || name.starts_with("http_client_request_duration_seconds");
    families.extend(lock(&watched.app).metrics.families().into_iter().filter(|it| !taken(&it.name)));
    let ages = lock(&watched.ages).clone();
    let markers = lock(&watched.freshness).ages().clone();
    let histograms = [
        NamedHistogram {
            name: "isobar_map_age_seconds",
            help: "Age of the oldest request that a frame showed first, once it was drawn.",
            values: &ages,
        },
        NamedHistogram {
            name: "isobar_marker_age_seconds",
            help: "From a marker request's start until it was in the numbers that the API gives.",
            values: &markers,
        },
    ];
    let exemplars = exemplars(watched);
    let measures = lock(&watched.measures);
    let exemplar = |series: SeriesId, exponent: i32| exemplars.get(&(series, exponent)).copied();
    let series: Vec<Series<'_>> = measures
        .history()
        .totals()
        .filter(|(_, latency, counters)| !latency.is_empty() || counters.iter().any(|it| *it > 0))
        .filter_map(|(id, latency, counters)| {
            Some(Series { id, text: measures.text(id)?, latency, counters })
        })
        // Our own markers are no traffic of anybody's: a sum over all series must not have them.
        .filter(|it| &*it.text.destination != MARKER)
        .collect();
    write(
        &Page { series: &series, families: &families, histograms: &histograms, exemplar: &exemplar },
        format,
    )
}

/// Only those whose trace can be read: a click must not land on nothing.
fn exemplars(watched: &Watched) -> HashMap<(SeriesId, i32), Exemplar> {
    // One lock at a time: the store may be busy with somebody's search, and numbers must not wait for that.
    let all: Vec<_> = lock(&watched.measures).exemplars().collect();
    let traces = lock(&watched.traces);
    all.into_iter().filter(|(_, it)| traces.holds(it.trace_id)).collect()
}

fn own_families(watched: &Watched) -> Vec<Family> {
    let gauge = |name: &str, help: &str, value: f64| Family::single(name, help, Kind::Gauge, value);
    let counter =
        |name: &str, help: &str, value: u64| Family::single(name, help, Kind::Counter, value as f64);
    let mut families = watched.observer().map_or_else(Vec::new, |it| it.families());
    families.extend(watched.door_counters.families());
    families.extend(watched.exporter.counters.families("otlp_export"));
    families.extend(watched.webhook_counters.families("webhook"));
    let traces = lock(&watched.traces).usage();
    families.extend([
        gauge("isobar_traces", "Traces in the store.", traces.traces as f64),
        gauge("isobar_trace_spans", "Spans in the store.", traces.spans as f64),
        gauge("isobar_trace_memory_bytes", "Memory of the trace store.", traces.bytes as f64),
        counter("isobar_traces_kept", "Traces that were decided for.", traces.kept),
        counter("isobar_traces_not_kept", "Traces that were decided against.", traces.not_kept),
        counter("isobar_traces_pushed_out", "Traces that made room for newer ones.", traces.pushed_out),
        counter("isobar_spans_too_late", "Spans of traces that were decided against.", traces.spans_too_late),
        counter("isobar_spans_too_many", "Spans beyond what a trace may have.", traces.spans_too_many),
        counter(
            "isobar_requests_dropped",
            "Requests of which no spans were made for want of time.",
            watched.requests_dropped.load(Relaxed),
        ),
        counter(
            "isobar_requests_passed_over",
            "Requests of which no spans were made because nothing happened in their traces.",
            watched.passed_over.load(Relaxed),
        ),
        gauge(
            "isobar_trace_share_ratio",
            "Of traces in which nothing happened: the share that is kept.",
            watched.trace_share_millionths.load(Relaxed) as f64 / 1e6,
        ),
    ]);
    {
        let measures = lock(&watched.measures);
        let usage = measures.history().usage();
        let folded = measures.series_usage().folded;
        families.extend([
            gauge("isobar_series", "Series in use.", measures.series_count() as f64),
            counter("isobar_series_folded", "Series that found no room and are counted as other.", folded),
            gauge("isobar_measures_memory_bytes", "Memory of all numbers.", measures.bytes() as f64),
            counter(
                "isobar_history_coarsened",
                "Frames of history that gave up resolution.",
                usage.coarsened,
            ),
            counter(
                "isobar_history_dropped_early",
                "Frames of history that left early.",
                usage.dropped_early,
            ),
        ]);
    }
    let (logins, sessions) = {
        let logins = lock(&watched.logins);
        (logins.counts(), logins.open(watched.clocks.now()))
    };
    families.extend([
        gauge("isobar_login_sessions", "Browsers from elsewhere that are logged in.", sessions as f64),
        counter("isobar_logins", "Logins that were given a session.", logins.given),
        counter(
            "isobar_login_sessions_pushed_out",
            "Sessions that made room for newer ones.",
            logins.pushed_out,
        ),
        counter("isobar_tokens_wrong", "Wrong tokens, at a login or with a request.", logins.wrong),
        counter("isobar_tokens_unheard", "Tokens not looked at: too many wrong ones before.", logins.unheard),
    ]);
    families.extend(crate::limits::families(watched));
    families.extend(instances(watched));
    families.extend(budgets(watched));
    families
}

/// Labels and a value.
type Sample = (Vec<(String, String)>, f64);

fn instances(watched: &Watched) -> Vec<Family> {
    let numbers = lock(&watched.numbers);
    let map = watched.map();
    let records = lock(&watched.live).nodes().to_vec();
    let mut rows: [Vec<Sample>; 3] = Default::default();
    for record in &records {
        let Some(node) = map.nodes.get(record.id as usize).filter(|it| it.kind != crate::map::GATEWAY) else {
            continue;
        };
        let label = vec![("service".to_owned(), node.name.clone())];
        for (row, value) in rows.iter_mut().zip([record.instances, record.healthy, record.ejected]) {
            row.push((label.clone(), f64::from(value)));
        }
    }
    let mut breakers = Vec::new();
    for (edge, (open, all)) in &numbers.breakers {
        let name = |id: u32| map.nodes.get(id as usize).map_or(String::new(), |it| it.name.clone());
        let Some(edge) = map.edges.get(*edge) else { continue };
        for (state, many) in [("open", *open), ("closed", all - open)] {
            let labels = vec![
                ("isobar_source".to_owned(), name(edge.from)),
                ("server_address".to_owned(), name(edge.to)),
                ("state".to_owned(), state.to_owned()),
            ];
            breakers.push((labels, f64::from(many)));
        }
    }
    breakers.sort_by(|a, b| a.0.cmp(&b.0));
    let family = |name: &str, help: &str, samples| Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind: Kind::Gauge,
        samples,
    };
    let [all, healthy, ejected] = rows;
    let mut families = vec![
        family("isobar_instances", "Instances, by service.", all),
        family("isobar_instances_healthy", "Instances that are ready, by service.", healthy),
        family("isobar_instances_ejected", "Instances that get nothing for a while, by service.", ejected),
        family("isobar_breakers", "Breakers of all callers, by edge and state.", breakers),
    ];
    families.retain(|it| !it.samples.is_empty());
    families
}

fn budgets(watched: &Watched) -> Vec<Family> {
    let promises = lock(&watched.promises);
    let samples: Vec<_> = promises
        .budgets()
        .map(|(slo, service, left)| {
            (vec![("service".to_owned(), service.to_owned()), ("slo".to_owned(), slo.to_owned())], left)
        })
        .collect();
    if samples.is_empty() {
        return Vec::new();
    }
    vec![Family {
        name: "isobar_slo_budget_left_ratio".to_owned(),
        help: "Share of the error budget that is left; below 0 when it is overspent.".to_owned(),
        kind: Kind::Gauge,
        samples,
    }]
}

/// Sums of one edge's operation, or of whatever else shares a key.
#[derive(Clone, Debug, Default)]
struct Sum {
    by_class: [u64; 6],
    timeouts: u64,
    short_circuited: u64,
    shed: u64,
    latency: Histogram,
}

fn sums<K: Ord>(
    watched: &Watched,
    key: impl Fn(&telemetry::metrics::SeriesText) -> Option<K>,
) -> BTreeMap<K, Sum> {
    let measures = lock(&watched.measures);
    let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
    for (text, latency, counters) in measures.window(WINDOW, watched.clocks.now()) {
        if &*text.destination == MARKER {
            continue;
        }
        let Some(key) = key(text) else { continue };
        let sum = sums.entry(key).or_default();
        sum.by_class[text.class as usize] += latency.count();
        sum.timeouts += counters[Counter::Timeouts as usize];
        sum.short_circuited += counters[Counter::BreakerRefused as usize];
        sum.shed += counters[Counter::Shed as usize];
        sum.latency.merge(&latency.histogram());
    }
    sums
}

impl Sum {
    fn of(&self, classes: &[Class]) -> u64 {
        classes.iter().map(|it| self.by_class[*it as usize]).sum()
    }
}

/// The events of one moment.
fn hystrix_events(watched: &Watched) -> String {
    let map = watched.map();
    let breakers = lock(&watched.numbers).breakers.clone();
    let unix = watched.clocks.unix();
    let by_operation = sums(watched, |text| {
        (!text.source.is_empty())
            .then(|| (text.source.to_string(), text.destination.to_string(), text.operation.to_string()))
    });
    let mut pools: BTreeMap<&str, Pool> = BTreeMap::new();
    let mut out = String::new();
    for ((source, destination, operation), sum) in &by_operation {
        let failed = sum.of(&[Class::ServerError, Class::NoAnswer]);
        let apart = sum.timeouts + sum.short_circuited + sum.shed;
        let command = Command {
            name: if operation.is_empty() {
                format!("{source} > {destination}")
            } else {
                format!("{source} > {destination} {operation}")
            },
            group: source.clone(),
            pool: destination.clone(),
            breaker_open: open_of(&map, &breakers, source, destination) > 0,
            success: sum.of(&[Class::Success, Class::Redirect, Class::Informational]),
            failure: failed.saturating_sub(apart),
            timeout: sum.timeouts,
            short_circuited: sum.short_circuited,
            rejected: sum.shed,
            bad_request: sum.of(&[Class::ClientError]),
            latency: sum.latency.clone(),
            ..Command::default()
        };
        let pool =
            pools.entry(destination).or_insert_with(|| Pool { name: destination.clone(), ..Pool::default() });
        pool.executed += sum.latency.count();
        pool.rejected += sum.shed;
        out.push_str(&command.event(unix));
    }
    pools.values().for_each(|it| out.push_str(&it.event(unix)));
    out.push_str(hystrix::PING);
    out
}

fn open_of(map: &Map, breakers: &HashMap<usize, (u16, u16)>, source: &str, destination: &str) -> u16 {
    let name = |id: u32| map.nodes.get(id as usize).map(|it| it.name.as_str());
    let edge =
        map.edges.iter().position(|it| name(it.from) == Some(source) && name(it.to) == Some(destination));
    edge.and_then(|it| breakers.get(&it)).map_or(0, |(open, _)| *open)
}

async fn hystrix_stream(State(it): State<Exports>) -> Response {
    let Ok(place) = Arc::clone(&it.streams).try_acquire_owned() else {
        let message = format!("{} dashboards read this stream already", hystrix::CONNECTIONS_MAX);
        return Refusal { status: 503, message }.into_response();
    };
    let every = Duration::from_nanos(hystrix::EVERY.as_u64());
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let state = (it.watched, tick, place);
    let events = futures_util::stream::unfold(state, async |(watched, mut tick, place)| {
        tick.tick().await;
        let text = hystrix_events(&watched);
        Some((Ok::<_, Infallible>(text), (watched, tick, place)))
    });
    let mut response = Response::new(Body::from_stream(events));
    for (name, value) in hystrix::HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn vizceral_document(State(it): State<Exports>) -> Response {
    let watched = &it.watched;
    let map = watched.map();
    let breakers = lock(&watched.numbers).breakers.clone();
    // A zone belongs to a region, which is what Vizceral draws first.
    let region = |zone: &str| match zone.split('/').next() {
        Some(region) if !region.is_empty() => region.to_owned(),
        _ => map.system.clone(),
    };
    let by_edge = sums(watched, |text| {
        let gateway = map.nodes.iter().any(|it| it.kind == crate::map::GATEWAY && *it.name == *text.source);
        let from_nobody = text.source.is_empty() || gateway;
        if text.source.is_empty() {
            return None;
        }
        let source = if from_nobody { String::new() } else { text.source.to_string() };
        Some((
            source,
            region(&text.source_zone),
            text.destination.to_string(),
            region(&text.destination_zone),
        ))
    });
    let rate = |count: u64| count as f64 / WINDOW.as_secs_f64();
    let edges: Vec<VizEdge> = by_edge
        .into_iter()
        .map(|((source, source_region, destination, destination_region), sum)| {
            let open = open_of(&map, &breakers, &source, &destination);
            VizEdge {
                normal: rate(sum.of(&[Class::Success, Class::Redirect, Class::Informational])),
                warning: rate(sum.of(&[Class::ClientError])),
                danger: rate(sum.of(&[Class::ServerError, Class::NoAnswer])),
                notices: (open > 0).then(|| format!("{open} breakers are open")).into_iter().collect(),
                source,
                source_region,
                destination,
                destination_region,
            }
        })
        .collect();
    let body = vizceral::write(&map.system, &edges, watched.clocks.unix());
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}
