//! The keeper: the one thread that puts the proxy's spans into the trace store, decides which traces stay, and watches
//! the promises.
//!
//! A search may hold the store for longer than a frame of the map can wait, so the watcher only hands over and goes on.
//! What it hands over waits in a queue with an end: when the store cannot keep up, spans are dropped and counted, never
//! frames. Alerts go out by a broadcast to whoever tells them on: the history, the log, webhooks.

use crate::api::lock;
use crate::map::Map;
use crate::promises::{Bad, CAUSES_MAX, Said};
use crate::watch::Watched;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use telemetry::ids::TraceId;
use telemetry::metrics::Frame;
use telemetry::span::Span;
use telemetry::traces::{Order, TraceQuery, TraceStore};
use units::Nanos;

/// Hand-overs waiting: some seconds of them.
const WAITING_MAX: usize = 32;
/// Decisions about traces are due even when nobody hands anything over.
const TICK: Duration = Duration::from_millis(250);
/// Spans added under one lock, so that nobody who reads waits long.
const BATCH: usize = 1_000;
/// An alert's cause is looked for among the traces of this long.
const CAUSES_WITHIN: Nanos = Nanos::from_secs(60);

/// What happened since the hand-over before.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) spans: Vec<Span>,
    pub(crate) frame: Frame,
    /// Another map is in force since.
    pub(crate) map: Option<Arc<Map>>,
}

/// Starts the thread. It ends when the sender is dropped.
pub(crate) fn start(watched: Arc<Watched>) -> std::io::Result<SyncSender<HandOver>> {
    let (sender, inbox) = sync_channel(WAITING_MAX);
    std::thread::Builder::new().name("traces".to_owned()).spawn(move || keep(&watched, &inbox))?;
    Ok(sender)
}

fn keep(watched: &Watched, inbox: &Receiver<HandOver>) {
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(it) => take(watched, it),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        lock(&watched.traces).tick(watched.clocks.unix());
        for said in evaluate(watched) {
            // Nobody listening is no mistake: it is kept for whoever asks.
            let _ = watched.alerts.send(said);
        }
        let burning: Vec<String> = lock(&watched.promises).burning().map(str::to_owned).collect();
        *lock(&watched.burning) = burning;
    }
}

fn take(watched: &Watched, handed: HandOver) {
    if let Some(map) = &handed.map {
        lock(&watched.promises).follow(map);
    }
    {
        let measures = lock(&watched.measures);
        lock(&watched.promises).count(&handed.frame, |series| measures.text(series));
    }
    let unix = watched.clocks.unix();
    for batch in handed.spans.chunks(BATCH) {
        lock(&watched.traces).add(batch, unix);
    }
    watched.exporter.spans(handed.spans);
}

fn evaluate(watched: &Watched) -> Vec<Said> {
    let unix = watched.clocks.unix();
    let causes = |service: &str, bad: Bad| causes(watched, service, bad, unix);
    lock(&watched.promises).tick(watched.clocks.now(), unix.as_u64() / 1_000_000, causes)
}

fn causes(watched: &Watched, service: &str, bad: Bad, unix: Nanos) -> Vec<TraceId> {
    let since = unix.saturating_sub(CAUSES_WITHIN);
    let traces = lock(&watched.traces);
    match bad {
        Bad::Failed => traces.failures(service, since, CAUSES_MAX),
        Bad::SlowerThan(limit) => {
            let mut query = TraceQuery::between(since, unix, CAUSES_MAX);
            (query.service, query.min_duration, query.order) =
                (Some(service.into()), Some(limit), Order::Slowest);
            let found = traces.search(&query);
            found.iter().filter_map(|spans| Some(spans.first()?.trace_id)).collect()
        }
    }
}

/// Hands over, or counts what is lost.
pub(crate) fn hand_over(watched: &Watched, keeper: &SyncSender<HandOver>, it: HandOver) {
    let spans = it.spans.len() as u64;
    if keeper.try_send(it).is_err() {
        watched.spans_dropped.fetch_add(spans, Relaxed);
    }
}
