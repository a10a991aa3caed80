//! The watcher: every 250 ms it reads the proxy and makes the next frame, for as long as isobar runs.
//!
//! It owns what the map's doors ([`crate::web`]) answer from, each part behind a lock that is held for a copy and
//! never across a wait. The data plane does not know that it is watched, but for one message a worker and tick.

use crate::api::lock;
use crate::doors::DoorCounters;
use crate::edges::EdgeNames;
use crate::ended::Ended;
use crate::handing::{Handed, HandingOn, Seats};
use crate::keeper::{self, HandOver, hand_over};
use crate::live::{Frame, Live, Moment, NodeRecord, flag};
use crate::logins::Logins;
use crate::map::Map;
use crate::measures::Measures;
use crate::numbers::{Index, Numbers};
use crate::promises::{Promises, Said};
use crate::send::{Exporter, SendCounters, Settings};
use crate::status::{Handing, Status};
use crate::tally::{Places, Tally};
use crate::views::tap::{Stands, Taps, tapped};
use proxy::observe::Observer;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use telemetry::app::{AppMetrics, LogRing};
use telemetry::freshness::Freshness;
use telemetry::metrics::{Frame as Counted, Registry, SeriesSettings};
use telemetry::span::Span;
use telemetry::traces::{MemoryTraces, TraceSettings};
use tokio::sync::{broadcast, mpsc, watch};
use units::{Histogram, Nanos};

pub const TICK: Duration = Duration::from_millis(250);
/// How long a worker may take to answer a census; it does so between two polls.
const PATIENCE: Duration = Duration::from_millis(100);
/// Frames that a slow page may be behind before it gets a keyframe instead.
const BEHIND_MAX: usize = 16;
/// Finished requests between two ticks. More are dropped by the proxy, and counted there.
const RECORDS_MAX: usize = 16_384;
/// The store's budgets on a machine that has other things to do.
const TRACE_BYTES_MAX: usize = 64 << 20;
const TRACES_MAX: usize = 100_000;
/// Applications' own log lines and metrics.
const LOG_BYTES_MAX: usize = 16 << 20;
const APP_SERIES_MAX: usize = 20_000;
const APP_SERIES_BYTES_MAX: usize = 16 << 20;

/// Alerts that whoever tells them on may be behind.
const ALERTS_BEHIND_MAX: usize = 256;
/// What a marker's door is counted as; see [`crate::marker`].
pub const MARKER: &str = "isobar-marker";

/// The edge's clocks.
#[derive(Clone)]
pub struct Clocks {
    /// Since isobar started.
    pub now: Arc<dyn Fn() -> Nanos + Send + Sync>,
    pub started_unix_ms: u64,
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").field("started_unix_ms", &self.started_unix_ms).finish_non_exhaustive()
    }
}

impl Clocks {
    pub fn now(&self) -> Nanos {
        (self.now)()
    }

    /// Wall-clock time that never runs backwards: the wall at the start and a steady clock since.
    pub fn unix(&self) -> Nanos {
        Nanos::from_millis(self.started_unix_ms) + self.now()
    }
}

/// What applications say of themselves.
#[derive(Debug)]
pub struct App {
    pub logs: LogRing,
    pub metrics: AppMetrics,
}

/// What the watcher knows.
#[derive(Debug)]
pub struct Watched {
    pub clocks: Clocks,
    pub map: Mutex<Arc<Map>>,
    pub live: Mutex<Live>,
    pub numbers: Mutex<Numbers>,
    pub tally: Mutex<Tally>,
    pub frames: broadcast::Sender<Frame>,
    pub traces: Mutex<MemoryTraces>,
    /// The map says so, and its buttons are off.
    pub read_only: AtomicBool,
    /// What applications say over OTLP beside traces.
    pub app: Mutex<App>,
    pub door_counters: DoorCounters,
    /// What the proxy's workers count into.
    pub registry: Registry,
    pub measures: Mutex<Measures>,
    pub promises: Mutex<Promises>,
    /// Services one of whose alerts is firing.
    pub burning: Mutex<Vec<String>>,
    pub alerts: broadcast::Sender<Said>,
    /// Finished requests on their way to the keeper.
    pub waiting: AtomicUsize,
    /// Finished requests that the keeper had no time for.
    pub requests_dropped: AtomicU64,
    /// Requests that became no spans because nothing happened in them, and the share of such traces that do, in
    /// millionths.
    pub passed_over: AtomicU64,
    pub trace_share_millionths: AtomicU64,
    /// How services hand on traces, for the status.
    pub handing: Mutex<Vec<Handing>>,
    /// The same for each pair of caller and callee.
    pub handed: Mutex<Vec<Handed>>,
    /// What people should read that is no alert: a service and a sentence about it.
    pub notes: broadcast::Sender<(String, String)>,
    pub settings: Settings,
    pub exporter: Exporter,
    pub webhook_counters: Arc<SendCounters>,
    pub freshness: Mutex<Freshness>,
    /// Markers on their way, oldest first.
    pub markers: Mutex<VecDeque<u64>>,
    /// Spans for the collector, until somebody begins to send them.
    pub(crate) outbox: Mutex<Option<mpsc::Receiver<Vec<Span>>>>,
    /// Ages that pages measured.
    pub ages: Mutex<Histogram>,
    /// Who looks at requests as they end.
    pub taps: Taps,
    /// Browsers from elsewhere.
    pub logins: Mutex<Logins>,
    observer: Mutex<Option<Observer>>,
}

impl Watched {
    pub fn new(clocks: Clocks) -> Arc<Self> {
        Self::with(clocks, Settings { slo_time_scale: 1.0, ..Settings::default() })
    }

    pub fn with(clocks: Clocks, outward: Settings) -> Arc<Self> {
        let registry = Registry::new(SeriesSettings::default());
        let (exporter, outbox) = Exporter::new(&outward);
        let settings =
            TraceSettings { bytes_max: TRACE_BYTES_MAX, traces_max: TRACES_MAX, ..TraceSettings::default() };
        Arc::new(Self {
            // Grows from life to life, so that a page which outlives isobar sees that its map is another's.
            map: Mutex::new(Arc::new(Map {
                version: 1,
                revision: u32::try_from(clocks.started_unix_ms / 1_000).unwrap_or(1),
                ..Map::default()
            })),
            clocks,
            live: Mutex::default(),
            numbers: Mutex::default(),
            tally: Mutex::default(),
            frames: broadcast::channel(BEHIND_MAX).0,
            traces: Mutex::new(MemoryTraces::new(settings)),
            app: Mutex::new(App {
                logs: LogRing::new(LOG_BYTES_MAX),
                metrics: AppMetrics::new(APP_SERIES_MAX, APP_SERIES_BYTES_MAX),
            }),
            read_only: AtomicBool::new(false),
            door_counters: DoorCounters::default(),
            measures: Mutex::new(Measures::new(registry.clone(), Nanos::ZERO)),
            registry,
            promises: Mutex::new(Promises::new(outward.slo_time_scale)),
            burning: Mutex::default(),
            alerts: broadcast::channel(ALERTS_BEHIND_MAX).0,
            waiting: AtomicUsize::new(0),
            requests_dropped: AtomicU64::new(0),
            passed_over: AtomicU64::new(0),
            trace_share_millionths: AtomicU64::new(1_000_000),
            handing: Mutex::default(),
            handed: Mutex::default(),
            notes: broadcast::channel(ALERTS_BEHIND_MAX).0,
            settings: outward,
            exporter,
            webhook_counters: Arc::default(),
            freshness: Mutex::default(),
            markers: Mutex::default(),
            outbox: Mutex::new(outbox),
            ages: Mutex::default(),
            taps: Taps::default(),
            logins: Mutex::default(),
            observer: Mutex::default(),
        })
    }

    pub fn map(&self) -> Arc<Map> {
        Arc::clone(&lock(&self.map))
    }

    /// The proxy to watch, once it runs.
    pub fn observe(&self, observer: Observer) {
        *lock(&self.observer) = Some(observer);
    }

    pub fn observer(&self) -> Option<Observer> {
        lock(&self.observer).clone()
    }
}

/// Watches until nobody publishes a status any more.
pub async fn watch(
    watched: Arc<Watched>,
    mut maps: watch::Receiver<Arc<Map>>,
    mut status: watch::Receiver<Arc<Status>>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut index = Index::of(&watched.map());
    let mut places = Places::default();
    let mut edges_now = Arc::new(EdgeNames::default());
    let mut ended = Ended::default();
    let mut new_map = None;
    let mut handing = HandingOn::default();
    let mut seats = Seats::default();
    // Without its thread nothing is kept, and everything else goes on.
    let keeper = keeper::start(Arc::clone(&watched)).ok();
    crate::send::start(&watched);
    maps.mark_changed();
    loop {
        tick.tick().await;
        if status.has_changed().is_err() {
            return;
        }
        let mut moved = status.has_changed().unwrap_or(false);
        let said = Arc::clone(&status.borrow_and_update());
        if maps.has_changed().unwrap_or(false) {
            let map = Arc::clone(&maps.borrow_and_update());
            index = take_over(&watched, &map);
            moved = true;
            new_map = Some(map);
        }
        if moved {
            place(&watched, &said);
            places = Places::of(&watched.map(), &said);
            seats = Seats::of(&said);
            seats.follow(&edges_now);
            handing.follow(&seats);
        }
        let Some(observer) = watched.observer() else { continue };
        let mut spare = keeper.as_ref().map(keeper::Ways::spare).unwrap_or_default();
        let (census, records) =
            tokio::join!(observer.census(PATIENCE), observer.ended(PATIENCE, RECORDS_MAX, &mut spare));
        let now = watched.clocks.now();
        let map = watched.map();
        let (counted, (mut nodes, edges)) = {
            let mut measures = lock(&watched.measures);
            let counted = measures.collect(now);
            let text = |series| measures.text(series);
            let records = lock(&watched.numbers).advance(now, &map, &index, &counted, text, &census, &said);
            (counted, records)
        };
        flag_burning(&watched, &map, &mut nodes);
        flag_faults(&watched, &map, &said, &mut nodes);
        let moment =
            Moment { since_start_ms: now.as_millis_f64(), unix_ms: watched.clocks.unix().as_millis_f64() };
        let frame = lock(&watched.live).push(moment, map.revision, nodes, edges);
        // Nobody looking is no mistake.
        let _ = watched.frames.send(frame);
        acknowledge_markers(&watched, &counted);

        if observer.generation() != edges_now.generation || edges_now.is_empty() {
            edges_now = Arc::new(EdgeNames::read(&observer).after(&edges_now));
            seats.follow(&edges_now);
        }
        let stands = watched.taps.are_open().then(|| Stands::of(&said));
        let mut looked_at = Vec::new();
        for record in records.iter().flatten() {
            ended.add(record);
            if let Some(edge) = edges_now.get(record.generation, record.edge) {
                looked_at.extend(stands.as_ref().and_then(|it| tapped(record, &edge.whole, it)));
                handing.note(record, edge, &seats);
            }
        }
        tell_groups(&watched, &mut ended, &map, &places, &edges_now, &said, now);
        if stands.is_some() {
            watched.taps.offer(&looked_at, now);
        }
        for (service, sentence) in handing.tick(watched.clocks.unix()) {
            // Nobody listening is no mistake: the status says it, too.
            let _ = watched.notes.send((service, sentence));
        }
        *lock(&watched.handing) = handing.rows();
        *lock(&watched.handed) = handing.edges();
        let inferred = handing.inferred();
        if let Some(keeper) = &keeper {
            let edges = Arc::clone(&edges_now);
            let scenario = said.scenario.clone();
            let map = new_map.take();
            let it = HandOver { records, edges, scenario, inferred, frame: counted, map };
            new_map = hand_over(&watched, keeper, it);
        }
    }
}

/// What single requests tell of zones, versions and instances.
fn tell_groups(
    watched: &Watched,
    ended: &mut Ended,
    map: &Map,
    places: &Places,
    edges: &EdgeNames,
    status: &Status,
    now: Nanos,
) {
    let ours = status.services.iter().flat_map(|service| {
        service.instances.iter().filter_map(move |it| Some((it.port?, &it.name, &service.name)))
    });
    let by_port: HashMap<u16, (&String, &String)> =
        ours.map(|(port, name, service)| (port, (name, service))).collect();
    let mut tally = lock(&watched.tally);
    let mut measures = lock(&watched.measures);
    for ((generation, edge, address), group) in ended.drain() {
        let port = address.filter(|it| it.ip().is_loopback()).map(|it| it.port());
        if let Some((name, service)) = port.and_then(|it| by_port.get(&it)) {
            measures.instances.add(name, service, &group.latency, group.failed, now);
        }
        if let Some(edge) = edges.get(generation, edge) {
            tally.add(map, places, edge, port, &group);
        }
    }
    drop(measures);
    tally.tick(now);
}

fn flag_burning(watched: &Watched, map: &Map, nodes: &mut [NodeRecord]) {
    let burning = lock(&watched.burning);
    if burning.is_empty() {
        return;
    }
    for record in nodes {
        let name = map.nodes.get(record.id as usize).map(|it| &it.name);
        if name.is_some_and(|it| burning.contains(it)) {
            record.flags |= flag::SLO_BURNS;
        }
    }
}

/// What a scenario does to a service, and faults that its callers met, in the last second.
fn flag_faults(watched: &Watched, map: &Map, status: &Status, nodes: &mut [NodeRecord]) {
    let tally = lock(&watched.tally);
    let met = tally.faulted();
    // In the file's words, `slow cart x2`: services are words of their own.
    let told = status.scenario.iter().flat_map(|it| &it.in_force);
    let told: HashSet<&str> = told.flat_map(|it| it.split([' ', ','])).collect();
    if met.is_empty() && told.is_empty() {
        return;
    }
    for record in nodes {
        let Some(name) = map.nodes.get(record.id as usize).map(|it| it.name.as_str()) else { continue };
        if met.contains(name) || told.contains(name) {
            record.flags |= flag::FAULT;
        }
    }
}

/// Markers that this frame counted are in the numbers that anybody may ask for now.
fn acknowledge_markers(watched: &Watched, counted: &Counted) {
    let measures = lock(&watched.measures);
    let is_marker = |series| measures.text(series).is_some_and(|it| &*it.destination == MARKER);
    let came: u64 =
        counted.deltas.iter().filter(|it| is_marker(it.series)).map(|it| it.latency.count()).sum();
    drop(measures);
    let now = watched.clocks.now();
    for _ in 0..came {
        let Some(marker) = lock(&watched.markers).pop_front() else { return };
        lock(&watched.freshness).acknowledge(marker, now, Nanos::ZERO);
    }
}

/// Another file: positions are new, what is known of who stayed is kept.
fn take_over(watched: &Watched, map: &Map) -> Index {
    let before = watched.map();
    let read_only = watched.read_only.load(Relaxed);
    let map = Map { revision: before.revision.wrapping_add(1), read_only, ..map.clone() };
    lock(&watched.numbers).follow(&before, &map);
    lock(&watched.tally).follow(&map);
    let index = Index::of(&map);
    *lock(&watched.map) = Arc::new(map);
    index
}

fn place(watched: &Watched, status: &Status) {
    let mut map = (*watched.map()).clone();
    if map.place(status) {
        *lock(&watched.map) = Arc::new(map);
    }
}
