//! What a large system costs the watcher in memory: 1,000 services that call each other over 5,000 edges, watched for six
//! hours, with a full store of traces.
//!
//! All of it is measured, as the system sees it: the process' resident memory, before and after. Hours pass by a clock that
//! is told what time it is; what is counted, kept and drawn is what [`control::watch`] keeps, by the same code.

use crate::house::Fallible;
use control::edges::EdgeName;
use control::ended::Group;
use control::live::Moment;
use control::map::{Edge, Map, Node};
use control::numbers::Index;
use control::status::{InstanceStatus, ServiceStatus, Status};
use control::tally::Places;
use control::watched::{Clocks, Watched};
use proxy::observe::Census;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use telemetry::ids::{SpanId, TraceId};
use telemetry::metrics::{Class, Counter, SeriesHandle, SeriesKey};
use telemetry::report::{Draft, End};
use telemetry::span::SpanKind;
use units::{Nanos, Rng};

const SERVICES: u32 = 1_000;
const EDGES: u32 = 5_000;
const HOURS: u64 = 6;
/// Of the end: frames four times a second, and everything that is drawn, as in a run.
const WATCHED: Nanos = Nanos::from_secs(130);
const FINE: Nanos = Nanos::from_secs(910);

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) resident_mb: f64,
    pub(crate) history_mb: f64,
    pub(crate) cells_mb: f64,
    pub(crate) traces_mb: f64,
    pub(crate) traces: usize,
    pub(crate) seconds_held: usize,
    pub(crate) tens_held: usize,
    pub(crate) page_ms: f64,
}

pub(crate) fn resident() -> Fallible<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).ok_or("no resident size")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6)
}

fn port(service: u32, instance: u16) -> u16 {
    10_000 + service as u16 * 2 + instance
}

fn system(rng: &mut Rng) -> (Map, Status) {
    let name = |service: u32| format!("service-{service}");
    let nodes = (0..SERVICES).map(|id| Node { id, name: name(id), kind: "http", ..Node::default() });
    let edges = (0..EDGES).map(|id| Edge {
        id,
        from: id / 5,
        to: rng.below(u64::from(SERVICES)) as u32,
        optional: false,
        path: Vec::new(),
    });
    let zones = vec!["eu-west/a".to_owned(), "eu-west/b".to_owned()];
    let map = Map { nodes: nodes.collect(), edges: edges.collect(), zones, ..Map::default() };
    let instance = |service: u32, at: u16| InstanceStatus {
        name: format!("service-{service}#{at}"),
        state: "ready".to_owned(),
        port: Some(port(service, at)),
        place: format!("eu-west/{}", ["a", "b"][usize::from(at)]),
        version: "v1.3".to_owned(),
        ..InstanceStatus::default()
    };
    let services = (0..SERVICES).map(|id| ServiceStatus {
        name: name(id),
        instances: vec![instance(id, 0), instance(id, 1)],
        ..ServiceStatus::default()
    });
    (map, Status { services: services.collect(), ..Status::default() })
}

/// About lognormal: medians of 2 to 76 ms, each with a tail of up to seven times that.
fn latency(rng: &mut Rng, edge: usize) -> Nanos {
    let spread = (0..4).map(|_| rng.unit()).sum::<f64>() - 2.0;
    Nanos::from_secs_f64(0.002 * (1.0 + (edge % 37) as f64) * spread.exp())
}

pub(crate) fn measure() -> Fallible<Figures> {
    let before = resident()?;
    let mut rng = Rng::from_seed(3);
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let now = Arc::new(move || Nanos(clock.load(Relaxed)));
    let watched = Watched::new(Clocks { now, started_unix_ms: 1_700_000_000_000 });
    let (map, status) = system(&mut rng);
    let (index, places) = (Index::of(&map), Places::of(&map, &status));
    let registry = &watched.registry;
    let key = |edge: &Edge, class| SeriesKey {
        source: registry.label(&map.nodes[edge.from as usize].name),
        destination: registry.label(&map.nodes[edge.to as usize].name),
        operation: registry.label("GET /things/{id}"),
        version: registry.label("v1.3"),
        source_zone: registry.label("eu-west/a"),
        destination_zone: registry.label("eu-west/b"),
        class,
    };
    let mut workers = [registry.recorder(), registry.recorder()];
    let handles: Vec<Vec<(SeriesHandle, SeriesHandle)>> = workers
        .iter_mut()
        .map(|worker| {
            let both = |edge| (key(edge, Class::Success), key(edge, Class::ServerError));
            map.edges
                .iter()
                .map(both)
                .map(|(good, bad)| (worker.series(&good), worker.series(&bad)))
                .collect()
        })
        .collect();
    let edge_names: Vec<EdgeName> = map
        .edges
        .iter()
        .filter_map(|it| {
            let (from, to) = (&map.nodes[it.from as usize].name, &map.nodes[it.to as usize].name);
            EdgeName::of(&format!("{from}#0->{to}"))
        })
        .collect();
    let lock =
        |what| -> Box<dyn std::error::Error + Send + Sync> { format!("{what}: a thread panicked").into() };
    let end = Nanos::from_secs(HOURS * 3_600);
    let (mut at, mut requests) = (Nanos::ZERO, 0u64);
    while at < end {
        let is_watched = at + WATCHED >= end;
        let step = match at {
            at if is_watched => (end - at).min(Nanos::from_millis(250)),
            at if at + FINE >= end => Nanos::from_secs(1),
            _ => Nanos::from_secs(10),
        };
        at += step;
        time.store(at.as_u64(), Relaxed);
        // A request a second on each edge; one edge in ten fails now and then.
        let due = at.as_u64() * u64::from(EDGES) / 1_000_000_000;
        for request in requests..due {
            let (edge, turn) = ((request % u64::from(EDGES)) as usize, request / u64::from(EDGES));
            let (worker, took) = ((turn % 2) as usize, latency(&mut rng, edge));
            let (good, bad) = handles[worker][edge];
            let fails = edge % 10 == 0 && turn.is_multiple_of(4);
            let series = if fails { bad } else { good };
            workers[worker].record(series, took);
            workers[worker].add(series, Counter::RequestBytes, 300);
            workers[worker].add(series, Counter::ResponseBytes, 2_000);
            if is_watched {
                let mut group = Group { requests: 1, ..Group::default() };
                group.latency.record(took);
                let port = port(map.edges[edge].to, (turn % 2) as u16);
                let mut tally = watched.tally.lock().map_err(|_| lock("tally"))?;
                tally.add(&map, &places, &edge_names[edge], Some(port), &group);
                let mut measures = watched.measures.lock().map_err(|_| lock("measures"))?;
                let service = &map.nodes[map.edges[edge].to as usize].name;
                measures.instances.add(&format!("{service}#{}", turn % 2), service, &group.latency, 0, at);
            }
        }
        requests = due;
        let mut measures = watched.measures.lock().map_err(|_| lock("measures"))?;
        let frame = measures.collect(at);
        if is_watched {
            let text = |series| measures.text(series);
            let mut numbers = watched.numbers.lock().map_err(|_| lock("numbers"))?;
            let census = Census::default();
            let (nodes, edges) = numbers.advance(at, &map, &index, &frame, text, &census, &status);
            let moment =
                Moment { since_start_ms: at.as_millis_f64(), unix_ms: watched.clocks.unix().as_millis_f64() };
            let frame = watched.live.lock().map_err(|_| lock("live"))?.push(moment, 1, nodes, edges);
            let _ = watched.frames.send(frame);
            watched.tally.lock().map_err(|_| lock("tally"))?.tick(at);
        }
    }
    let began = crate::house::clock();
    let measures = watched.measures.lock().map_err(|_| lock("measures"))?;
    let past = control::past::Past::read(&measures, &map, &map.nodes[7]);
    let page_ms = began.elapsed().as_secs_f64() * 1e3;
    std::hint::black_box(past);
    let usage = measures.history().usage();
    let cells_mb = (measures.bytes() - usage.bytes) as f64 / 1e6;
    drop(measures);
    let traces = fill(&watched, &map, &mut rng)?;
    Ok(Figures {
        resident_mb: resident()? - before,
        history_mb: usage.bytes as f64 / 1e6,
        cells_mb,
        traces_mb: traces.0 as f64 / 1e6,
        traces: traces.1,
        seconds_held: usage.fine_frames,
        tens_held: usage.coarse_frames,
        page_ms,
    })
}

/// Traces until the oldest are pushed out: their bytes and their number.
fn fill(watched: &Watched, map: &Map, rng: &mut Rng) -> Fallible<(usize, usize)> {
    let unix = watched.clocks.unix();
    let mut traces = watched.traces.lock().map_err(|_| "traces: a thread panicked")?;
    while traces.usage().pushed_out < 1_000 {
        let mut drafts = Vec::new();
        let id = TraceId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1));
        let (Some(id), mut parent) = (id, None) else { continue };
        for depth in 0..8u64 {
            let edge = &map.edges[rng.below(u64::from(EDGES)) as usize];
            let Some(own) = SpanId::new(rng.next_u64() | 1) else { continue };
            let mut span = Draft::new(id, own);
            span.head.parent = parent;
            span.head.kind = Some(if depth % 2 == 0 { SpanKind::Server } else { SpanKind::Client });
            span.head.local = End::named(&map.nodes[edge.from as usize].name);
            span.head.remote = End::named(&map.nodes[edge.to as usize].name);
            span.head.name = "get /things/{id}";
            span.head.start = Some(unix);
            span.head.duration = Some(Nanos::from_micros(rng.below(100_000)));
            span.set_tag("service.version", "v1.3");
            span.set_tag("http.response.status_code", 200i64);
            parent = Some(own);
            drafts.push(span);
        }
        traces.add_reports(&drafts, unix);
    }
    let usage = traces.usage();
    Ok((usage.bytes, usage.traces))
}
