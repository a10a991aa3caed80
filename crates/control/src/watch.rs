//! The watcher: every 250 ms it reads the proxy and makes the next frame, for as long as isobar runs.
//!
//! It writes what everybody else reads ([`crate::watched`]). The data plane does not know that it is watched, but for one
//! message a worker and tick.

use crate::api::lock;
use crate::compile::MARKER;
use crate::edges::EdgeNames;
use crate::ended::Ended;
use crate::handing::{HandingOn, Seats};
use crate::keeper::{self, HandOver, hand_over};
use crate::live::{Moment, NodeRecord, flag};
use crate::map::Map;
use crate::numbers::Index;
use crate::status::Status;
use crate::tally::Places;
use crate::views::tap::{Stands, tapped};
use crate::watched::Watched;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use telemetry::metrics::Frame as Counted;
use tokio::sync::watch;
use units::Nanos;

pub const TICK: Duration = Duration::from_millis(250);
/// How long a worker may take to answer a census; it does so between two polls.
const PATIENCE: Duration = Duration::from_millis(100);
/// Finished requests between two ticks. More are dropped by the proxy, and counted there.
const RECORDS_MAX: usize = 16_384;

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
