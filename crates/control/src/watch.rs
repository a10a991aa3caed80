//! The watcher: every 250 ms it reads the proxy and makes the next frame, for as long as isobar runs.
//!
//! It owns what the map's doors ([`crate::web`]) answer from, each part behind a lock that is held for a copy and
//! never across a wait. The data plane does not know that it is watched, but for one message a worker and tick.

use crate::api::lock;
use crate::live::{Frame, Live, Moment};
use crate::map::Map;
use crate::numbers::{Index, Numbers};
use crate::spans::spans_of;
use crate::status::Status;
use crate::tally::{Places, Tally};
use proxy::observe::Observer;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use telemetry::traces::{MemoryTraces, TraceSettings, TraceStore};
use tokio::sync::{broadcast, watch};
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
const TRACES_MAX: usize = 50_000;

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
    /// Ages that pages measured.
    pub ages: Mutex<Histogram>,
    observer: Mutex<Option<Observer>>,
}

impl Watched {
    pub fn new(clocks: Clocks) -> Arc<Self> {
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
            ages: Mutex::default(),
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
    let mut tap = None;
    let mut spans = Vec::new();
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
        }
        if moved {
            place(&watched, &said);
            places = Places::of(&watched.map(), &said);
        }
        let Some(observer) = watched.observer() else { continue };
        let census = observer.census(PATIENCE).await;
        let now = watched.clocks.now();
        let reading = observer.read();
        let map = watched.map();
        let (nodes, edges) = lock(&watched.numbers).advance(now, &map, &index, reading, &census, &said);
        let moment =
            Moment { since_start_ms: now.as_millis_f64(), unix_ms: watched.clocks.unix().as_millis_f64() };
        let frame = lock(&watched.live).push(moment, map.revision, nodes, edges);
        // Nobody looking is no mistake.
        let _ = watched.frames.send(frame);

        let tap = tap.get_or_insert_with(|| observer.events(RECORDS_MAX));
        let (generation, names) = observer.edge_names();
        let mut tally = lock(&watched.tally);
        for record in tap.try_iter().take(RECORDS_MAX) {
            // A slot means another edge in another snapshot: such a record is left out rather than misnamed.
            if record.generation != generation {
                continue;
            }
            if let Some(Some(edge)) = names.get(record.edge as usize) {
                spans_of(&record, &edge.name, &mut spans);
                tally.add(now, &map, &places, &record, &edge.name);
            }
        }
        tally.tick(now);
        drop(tally);
        let unix = watched.clocks.unix();
        let mut traces = lock(&watched.traces);
        traces.add(&spans, unix);
        traces.tick(unix);
        spans.clear();
    }
}

/// Another file: positions are new, what is known of who stayed is kept.
fn take_over(watched: &Watched, map: &Map) -> Index {
    let before = watched.map();
    let map = Map { revision: before.revision.wrapping_add(1), ..map.clone() };
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
