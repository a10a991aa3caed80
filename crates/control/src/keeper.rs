//! The keeper: the one thread that makes spans of finished requests, puts them into the trace store, decides which
//! traces stay, and watches the promises.
//!
//! A search may hold the store for longer than a frame of the map can wait, so the watcher only hands over and goes on.
//! What it hands over waits in a queue with an end: when the store cannot keep up, requests make no spans and are
//! counted, never frames. Which requests make spans at all is for [`crate::room`] to say. Alerts go out by a broadcast to whoever tells them on: the history, the log, webhooks.

use crate::api::lock;
use crate::edges::EdgeNames;
use crate::handing::Inferred;
use crate::map::Map;
use crate::promises::{Bad, CAUSES_MAX, Said};
use crate::room::{Room, RoomSettings};
use crate::spans::{Names, spans_of};
use crate::status::ScenarioStatus;
use crate::watched::Watched;
use proxy::record::Finished;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use telemetry::ids::TraceId;
use telemetry::metrics::Frame;
use telemetry::report::Draft;
use telemetry::span::{Span, tag};
use telemetry::traces::TraceStore;
use units::Nanos;

/// Hand-overs waiting: some seconds of them.
const WAITING_MAX: usize = 32;
/// Requests waiting: a second of a great many. They are what is large in a hand-over.
pub(crate) const RECORDS_WAITING_MAX: usize = 65_536;
/// Empty lists kept for the next ticks.
const SPARE_MAX: usize = 16;
/// Decisions about traces are due even when nobody hands anything over.
const TICK: Duration = Duration::from_millis(250);
/// Requests whose spans are added under one lock, so that nobody who reads waits long.
const BATCH: usize = 500;
/// Requests of one hand-over that may show what a bucket of a series looks like.
const EXEMPLARS_MAX: usize = 1_000;
/// An alert's cause is looked for among the traces of this long.
const CAUSES_WITHIN: Nanos = Nanos::from_secs(60);

/// What happened since the hand-over before.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// As the workers wrote them.
    pub(crate) records: Vec<Vec<Finished>>,
    /// What their edges are called.
    pub(crate) edges: Arc<EdgeNames>,
    pub(crate) scenario: Option<ScenarioStatus>,
    /// Calls that are known now to belong to other traces.
    pub(crate) inferred: Vec<Inferred>,
    pub(crate) frame: Frame,
    /// Another map is in force since.
    pub(crate) map: Option<Arc<Map>>,
}

/// The way to the keeper, and its empty lists on their way back: a list of records is megabytes, which would be new
/// pages for every tick.
#[derive(Debug)]
pub(crate) struct Ways {
    to_keeper: SyncSender<HandOver>,
    spare: Receiver<Vec<Finished>>,
}

impl Ways {
    /// Lists whose memory can be used again.
    pub(crate) fn spare(&self) -> Vec<Vec<Finished>> {
        self.spare.try_iter().collect()
    }
}

/// Starts the thread. It ends when the way to it is dropped.
pub(crate) fn start(watched: Arc<Watched>) -> std::io::Result<Ways> {
    let (to_keeper, inbox) = sync_channel(WAITING_MAX);
    let (back, spare) = sync_channel(SPARE_MAX);
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || keep(&watched, &inbox, back))?;
    Ok(Ways { to_keeper, spare })
}

/// What the thread remembers from one hand-over to the next.
struct Keeper {
    room: Room,
    names: Names,
    edges: Arc<EdgeNames>,
    scenario: Option<ScenarioStatus>,
    chosen: Vec<Finished>,
    /// Services that send spans of their own, as the store knew when it was last asked.
    speakers: HashSet<Box<str>>,
    back: SyncSender<Vec<Finished>>,
}

fn keep(watched: &Watched, inbox: &Receiver<HandOver>, back: SyncSender<Vec<Finished>>) {
    let mut keeper = Keeper {
        room: Room::new(RoomSettings::default()),
        names: Names::new(watched.registry.clone()),
        edges: Arc::default(),
        scenario: None,
        chosen: Vec::new(),
        speakers: HashSet::new(),
        back,
    };
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(it) => {
                watched.waiting.fetch_sub(it.requests(), Relaxed);
                keeper.take(watched, it);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        lock(&watched.traces).tick(watched.clocks.unix());
        lock(&watched.app).metrics.tick(watched.clocks.now());
        for said in evaluate(watched) {
            // Nobody listening is no mistake: it is kept for whoever asks.
            let _ = watched.alerts.send(said);
        }
        let burning: Vec<String> = lock(&watched.promises).burning().map(str::to_owned).collect();
        *lock(&watched.burning) = burning;
    }
}

impl Keeper {
    fn take(&mut self, watched: &Watched, handed: HandOver) {
        if let Some(map) = &handed.map {
            lock(&watched.promises).follow(map);
        }
        {
            let measures = lock(&watched.measures);
            lock(&watched.promises).count(&handed.frame, |series| measures.text(series));
        }
        let (now, unix) = (watched.clocks.now(), watched.clocks.unix());
        let before = self.room.follow(&handed.edges);
        let before = before.into_iter().enumerate().map(|(edge, it)| (edge as u32, it)).collect::<Vec<_>>();
        count_calls(watched, &self.edges, before.into_iter(), unix);
        (self.edges, self.scenario) = (handed.edges, handed.scenario);
        for list in handed.records {
            self.room.take(list, now, &mut self.chosen);
        }
        {
            let mut traces = lock(&watched.traces);
            self.room.tick(now, |trace| traces.holds(trace), &mut self.chosen);
            // What applications say alone is kept in the same share, and each trace knows how many it stands for.
            traces.set_share(self.room.share());
            // It only ever grows.
            if traces.speakers().len() != self.speakers.len() {
                self.speakers.clone_from(traces.speakers());
            }
        }
        for list in self.room.spare.drain(..) {
            // Enough are kept.
            let _ = self.back.try_send(list);
        }
        count_calls(watched, &self.edges, self.room.uncounted(), unix);
        self.write_down(watched, now, unix);
        tell_causes(watched, &handed.inferred, unix);
        watched.passed_over.store(self.room.passed_over, Relaxed);
        watched.trace_share_millionths.store((self.room.share() * 1e6) as u64, Relaxed);
    }

    /// Makes spans of what was chosen.
    fn write_down(&mut self, watched: &Watched, now: Nanos, unix: Nanos) {
        let chosen = std::mem::take(&mut self.chosen);
        for batch in chosen.chunks(BATCH) {
            batch.iter().for_each(|record| self.names.note(record));
            let mut drafts = Vec::with_capacity(3 * batch.len());
            for record in batch {
                // A record that waited may be of a snapshot that is gone: it is left out rather than misnamed.
                if let Some(edge) = self.edges.get(record.generation, record.edge) {
                    let scenario = self.scenario.as_ref().filter(|it| {
                        let meant = |name: &str| it.troubled.iter().any(|it| it.eq_ignore_ascii_case(name));
                        !record.fault.is_empty() || meant(&edge.caller) || meant(&edge.callee)
                    });
                    let scenario = scenario.map(|it| it.name.as_str());
                    let speaks = self.speakers.contains(&edge.callee);
                    spans_of(record, edge, &self.names, (scenario, speaks), &mut drafts);
                }
            }
            lock(&watched.traces).add_reports(&drafts, unix);
            if watched.exporter.is_wanted() {
                watched.exporter.spans(drafts.iter().map(Draft::span).collect());
            }
        }
        self.show(watched, &chosen, now);
        // Its memory is used again.
        self.chosen = chosen;
        self.chosen.clear();
    }

    /// Requests to look at: one for a cell of a heatmap, one for a bucket of a series.
    fn show(&self, watched: &Watched, chosen: &[Finished], now: Nanos) {
        let mut tally = lock(&watched.tally);
        for record in chosen {
            if let Some(edge) = self.edges.get(record.generation, record.edge) {
                tally.example(now, &edge.callee_as_written, record);
            }
        }
        drop(tally);
        let mut measures = lock(&watched.measures);
        for record in chosen.iter().rev().take(EXEMPLARS_MAX) {
            if let (Some(counted), Some(trace)) = (record.counted, TraceId::new(record.trace_id)) {
                measures.exemplify(&counted.series, trace, record.duration, record.started_unix);
            }
        }
    }
}

/// A span that is there already is told what caused it, by a second report of it that says only that.
fn tell_causes(watched: &Watched, inferred: &[Inferred], unix: Nanos) {
    if inferred.is_empty() {
        return;
    }
    let causes: Vec<String> = inferred.iter().map(|it| it.cause.zipkin().to_string()).collect();
    let mut traces = lock(&watched.traces);
    for (it, cause) in
        inferred.iter().zip(&causes).filter(|(it, _)| traces.holds(it.trace)).collect::<Vec<_>>()
    {
        let mut report = Draft::new(it.trace, it.span);
        report.set_tag(tag::INFERRED, cause.as_str());
        traces.add_reports(&[report], unix);
    }
}

/// Calls that became no spans are links all the same.
fn count_calls(
    watched: &Watched,
    edges: &EdgeNames,
    calls: impl Iterator<Item = (u32, crate::room::Uncounted)>,
    unix: Nanos,
) {
    let mut calls = calls.filter(|(_, it)| it.calls > 0).peekable();
    if calls.peek().is_none() {
        return;
    }
    let mut traces = lock(&watched.traces);
    for (edge, it) in calls {
        if let Some(edge) = edges.get(edges.generation, edge) {
            traces.count_calls(unix, &edge.caller, &edge.callee, it.calls, it.errors);
        }
    }
}

fn evaluate(watched: &Watched) -> Vec<Said> {
    let unix = watched.clocks.unix();
    let causes = |service: &str, bad: Bad| causes(watched, service, bad, unix);
    lock(&watched.promises).tick(watched.clocks.now(), unix.as_u64() / 1_000_000, causes)
}

fn causes(watched: &Watched, service: &str, bad: Bad, unix: Nanos) -> Vec<TraceId> {
    let since = unix.saturating_sub(CAUSES_WITHIN);
    let is_bad = |span: &Span| match bad {
        Bad::Failed => span.failed(),
        Bad::SlowerThan(limit) => span.duration.is_some_and(|it| it > limit),
    };
    lock(&watched.traces).causes(service, since, CAUSES_MAX, is_bad)
}

impl HandOver {
    fn requests(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

/// Hands over, or counts what is lost: requests first, which are large, and only of a keeper that stands still what is
/// counted and what is in force as well. Gives back a map that has to be handed over again.
pub(crate) fn hand_over(watched: &Watched, keeper: &Ways, mut it: HandOver) -> Option<Arc<Map>> {
    let requests = it.requests();
    let waiting = watched.waiting.fetch_add(requests, Relaxed);
    let mut lost = 0;
    if waiting > 0 && waiting + requests > RECORDS_WAITING_MAX {
        watched.waiting.fetch_sub(requests, Relaxed);
        it.records.clear();
        lost = requests;
    }
    let refused = keeper.to_keeper.try_send(it).err().map(|it| match it {
        TrySendError::Full(it) | TrySendError::Disconnected(it) => it,
    });
    if let Some(it) = &refused {
        watched.waiting.fetch_sub(it.requests(), Relaxed);
        lost = requests;
    }
    if lost > 0 {
        watched.requests_dropped.fetch_add(lost as u64, Relaxed);
    }
    refused.and_then(|it| it.map)
}
