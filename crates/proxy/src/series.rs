//! Finished requests as series of the telemetry crate: who called whom, for what, which version, between which zones,
//! and how it ended.
//!
//! The cells belong to this worker alone, so counting shares nothing and locks nothing. Which series a request belongs
//! to is worked out once for each combination of edge, route, instance and outcome, and remembered; after that a
//! request costs one look-up by numbers and a handful of plain stores. What is remembered is bounded: when there is
//! more, it is forgotten whole and found again.

use crate::config::Address;
use crate::edge::EdgeState;
use crate::plan::{ListenerPlan, RoutePlan};
use crate::record::Counted;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use telemetry::metrics::{Class, Counter, Label, Recorder, Registry, SeriesHandle, SeriesKey};
use units::Nanos;

const KNOWN_MAX: usize = 65_536;
/// Stands for "no edge": what a door answered or let in, whoever served it.
const DOOR: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Series {
    registry: Registry,
    recorder: Recorder,
    known: HashMap<Place, (SeriesHandle, Counted), foldhash::fast::FixedState>,
    /// Of the snapshot that numbers of edges belong to.
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    edge: u32,
    /// The address of the route's cells, which outlive a reload; 0 for none.
    route: usize,
    instance: Option<SocketAddr>,
    class: u8,
}

/// A request that is over, as far as numbers go.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) generation: u64,
    pub(crate) route: Option<&'a RoutePlan>,
    pub(crate) instance: Option<SocketAddr>,
    /// 0: no answer was sent.
    pub(crate) status: u16,
    /// Why we answered ourselves; empty if the instance did.
    pub(crate) error: &'static str,
    pub(crate) duration: Nanos,
    pub(crate) attempts: u8,
    pub(crate) queue_wait: Nanos,
    pub(crate) pool_wait: Nanos,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

impl Series {
    pub(crate) fn new(registry: Registry) -> Self {
        let recorder = registry.recorder();
        Self { registry, recorder, known: HashMap::default(), generation: 0 }
    }

    /// Counts what an edge carried, and says under which key.
    pub(crate) fn count(&mut self, edge: &EdgeState, slot: u32, ended: &Ended<'_>) -> Counted {
        let (handle, counted) = self.of_edge(edge, slot, ended);
        let recorder = &mut self.recorder;
        recorder.record(handle, ended.duration);
        for (counter, more) in [
            (Counter::RequestBytes, ended.request_bytes),
            (Counter::ResponseBytes, ended.response_bytes),
            (Counter::Retries, u64::from(ended.attempts.saturating_sub(1))),
            (Counter::QueueWaitNanos, ended.queue_wait.as_u64()),
            (Counter::PoolWaitNanos, ended.pool_wait.as_u64()),
        ] {
            if more > 0 {
                recorder.add(handle, counter, more);
            }
        }
        if let Some(counter) = counter_of(ended.error) {
            recorder.add(handle, counter, 1);
        }
        counted
    }

    /// Counts what came in by a door of the whole system, answered by whomever.
    pub(crate) fn count_door(&mut self, door: &ListenerPlan, ended: &Ended<'_>) {
        let Some(name) = &door.config.gateway else { return };
        let place = self.place(DOOR, ended);
        let place = Place { instance: None, ..place };
        let (handle, _) = match self.known.get(&place) {
            Some(known) => *known,
            None => {
                let key = SeriesKey {
                    source: Label::NONE,
                    destination: self.registry.label(name),
                    operation: self.operation(ended.route),
                    version: Label::NONE,
                    source_zone: Label::NONE,
                    destination_zone: Label::NONE,
                    class: class_of(ended.status),
                };
                self.remember(place, key, ended.route)
            }
        };
        self.recorder.record(handle, ended.duration);
    }

    fn place(&mut self, edge: u32, ended: &Ended<'_>) -> Place {
        if self.generation != ended.generation {
            self.known.clear();
            self.generation = ended.generation;
        }
        Place {
            edge,
            route: ended.route.map_or(0, |it| Arc::as_ptr(&it.cells) as usize),
            instance: ended.instance,
            class: class_of(ended.status) as u8,
        }
    }

    #[inline]
    fn of_edge(&mut self, edge: &EdgeState, slot: u32, ended: &Ended<'_>) -> (SeriesHandle, Counted) {
        let place = self.place(slot, ended);
        match self.known.get(&place) {
            Some(known) => *known,
            None => self.find(edge, place, ended),
        }
    }

    #[cold]
    fn find(&mut self, edge: &EdgeState, place: Place, ended: &Ended<'_>) -> (SeriesHandle, Counted) {
        let service = edge.service.plan.borrow();
        let config = &edge.plan.config;
        let at = |address: SocketAddr| {
            service
                .config
                .endpoints
                .iter()
                .find(|it| matches!(&it.address, Address::Ip(ip) if *ip == address))
        };
        let (version, destination_zone) =
            ended.instance.and_then(at).map_or((String::new(), String::new()), |it| {
                (it.version.clone(), place_name(&it.region, &it.zone))
            });
        let source_zone =
            config.home.as_ref().map_or_else(String::new, |it| place_name(&it.region, &it.zone));
        let callee = if config.callee.is_empty() { &service.config.name } else { &config.callee };
        let key = SeriesKey {
            source: self.registry.label(&config.caller),
            destination: self.registry.label(callee),
            operation: self.operation(ended.route),
            version: self.registry.label(&version),
            source_zone: self.registry.label(&source_zone),
            destination_zone: self.registry.label(&destination_zone),
            class: class_of(ended.status),
        };
        drop(service);
        self.remember(place, key, ended.route)
    }

    fn remember(
        &mut self,
        place: Place,
        series: SeriesKey,
        route: Option<&RoutePlan>,
    ) -> (SeriesHandle, Counted) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let route = route.map_or(Label::NONE, |it| self.registry.label(&it.route.name));
        let found = (self.recorder.series(&series), Counted { series, route });
        self.known.insert(place, found);
        found
    }

    fn operation(&self, route: Option<&RoutePlan>) -> Label {
        route.map_or(Label::NONE, |it| self.registry.label(&it.route.operation))
    }
}

fn class_of(status: u16) -> Class {
    if status == 0 { Class::NoAnswer } else { Class::of_http(status) }
}

/// What we answered ourselves, by the word that our answers carry.
fn counter_of(error: &str) -> Option<Counter> {
    Some(match error {
        "" => return None,
        "timeout" | "deadline-passed" => Counter::Timeouts,
        "connection-lost" | "connect-failed" | "invalid-reply" => Counter::Resets,
        "breaker-open" => Counter::BreakerRefused,
        "overloaded" => Counter::Shed,
        "fault-abort" => Counter::Faults,
        _ => return None,
    })
}

/// `eu-west/a`
fn place_name(region: &str, zone: &str) -> String {
    match (region, zone) {
        ("", zone) => zone.to_owned(),
        (region, "") => region.to_owned(),
        (region, zone) => format!("{region}/{zone}"),
    }
}
