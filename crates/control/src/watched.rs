//! What is known of the running system: written by the watcher ([`crate::watch`]), read by every door.
//!
//! Each part is behind a lock that is held for a copy and never across a wait. Nothing here knows who reads or writes.

use crate::api::lock;
use crate::doors::counters::DoorCounters;
use crate::handing::Handed;
use crate::live::{Frame, Live};
use crate::logins::Logins;
use crate::map::Map;
use crate::measures::Measures;
use crate::numbers::Numbers;
use crate::promises::{Promises, Said};
use crate::send::outward::{Exporter, SendCounters, Settings};
use crate::status::Handing;
use crate::tally::Tally;
use crate::views::tap::Taps;
use proxy::observe::Observer;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use telemetry::app::{AppMetrics, LogRing};
use telemetry::freshness::Freshness;
use telemetry::metrics::{Registry, SeriesSettings};
use telemetry::span::Span;
use telemetry::traces::{MemoryTraces, TraceSettings};
use tokio::sync::{broadcast, mpsc};
use units::{Histogram, Nanos};

/// Frames that a slow page may be behind before it gets a keyframe instead.
const BEHIND_MAX: usize = 16;
/// The store's budgets on a machine that has other things to do.
const TRACE_BYTES_MAX: usize = 64 << 20;
const TRACES_MAX: usize = 100_000;
/// Applications' own log lines and metrics.
const LOG_BYTES_MAX: usize = 16 << 20;
const APP_SERIES_MAX: usize = 20_000;
const APP_SERIES_BYTES_MAX: usize = 16 << 20;
/// Alerts that whoever tells them on may be behind.
const ALERTS_BEHIND_MAX: usize = 256;

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
