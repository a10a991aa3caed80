//! The map: who there is, where each stands in the drawing, and who may call whom (`GET /v1/map`, docs/live.md).
//!
//! Pure: a system and the map before it give the next one. What stayed keeps its place, so a picture does not jump when
//! a file changes a little. Instances come from what the running system says of itself and are put in afterwards.
//!
//! What only readers on this side need (names of callers, limits, policies in force) is kept beside what is serialised.

use crate::status::Status;
use model::layout::{Graph, Hold, Point};
use model::place;
use model::system::{Caller, Event, Load, Service, ServiceId, System};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;

mod roads;
pub mod view;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Map {
    pub version: u32,
    pub revision: u32,
    pub system: String,
    pub read_only: bool,
    pub teams: Vec<Team>,
    pub zones: Vec<String>,
    pub scenarios: Vec<Scenario>,
    pub traffic: Vec<Traffic>,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Team {
    pub name: String,
    pub contact: Option<String>,
    pub oncall: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scenario {
    pub name: String,
    pub description: Option<String>,
    pub lasts_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traffic {
    pub name: String,
    pub to: String,
    /// `None`: it has no rate (users who wait, a recording).
    pub rate_per_second: Option<f64>,
    pub running: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Node {
    pub id: u32,
    pub name: String,
    pub kind: &'static str,
    pub team: Option<usize>,
    /// The middle.
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    pub versions: Vec<String>,
    pub slo: Option<Slo>,
    pub lints: Vec<Lint>,
    pub instances: Vec<Instance>,
    #[serde(skip)]
    pub description: Option<String>,
    /// Requests one instance works on at once.
    #[serde(skip)]
    pub concurrency: Option<u32>,
    /// Requests that may wait in one instance.
    #[serde(skip)]
    pub queue: Option<u32>,
    #[serde(skip)]
    pub policy: Arc<[PolicyRow]>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slo {
    pub availability: Option<f64>,
    /// (share of requests, milliseconds).
    pub latency: Vec<(f64, f64)>,
    /// How long a budget lasts.
    #[serde(skip)]
    pub window: units::Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lint {
    pub code: &'static str,
    pub severity: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub id: String,
    pub zone: Option<usize>,
    pub version: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    pub id: u32,
    pub from: u32,
    pub to: u32,
    pub optional: bool,
    /// A start, then three points for each cubic piece.
    pub path: Vec<(f64, f64)>,
}

/// One part of a policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyRow {
    pub edge: String,
    pub key: &'static str,
    pub value: String,
    /// `isobar.yaml:12`; `None`: nobody wrote it, it is built in.
    pub place: Option<String>,
}

pub const GATEWAY: &str = "gateway";

/// Room for a name and a line of numbers, in the layout's units.
const WIDTH_MIN: f64 = 150.0;
const WIDTH_MAX: f64 = 240.0;
pub(crate) const HEIGHT: f64 = 58.0;
const LETTER: f64 = 8.4;

impl Map {
    /// `today` is for risks that were accepted until a day.
    pub fn of(system: &System, today: (u16, u8, u8), before: Option<&Self>) -> Self {
        let teams = system.teams.iter().map(|team| Team {
            name: team.name.value.clone(),
            contact: team.contact.as_ref().map(|it| it.value.clone()),
            oncall: team.oncall.as_ref().map(|it| it.value.clone()),
        });
        let zones = system.regions.iter().flat_map(|region| {
            region.zones.iter().map(|zone| format!("{}/{}", region.name.value, zone.value))
        });
        let mut map = Self {
            version: 1,
            revision: before.map_or(1, |it| it.revision.wrapping_add(1)),
            system: system.name.clone(),
            read_only: false,
            teams: teams.collect(),
            zones: zones.collect(),
            scenarios: system.scenarios.iter().map(scenario).collect(),
            traffic: system.traffic.iter().map(|it| traffic(system, it)).collect(),
            nodes: Vec::new(),
            edges: Vec::new(),
        };
        map.add_nodes(system, today);
        map.add_edges(system);
        map.lay_out(before);
        map
    }

    fn add_nodes(&mut self, system: &System, today: (u16, u8, u8)) {
        let team_index = |it: &Option<model::span::At<model::system::TeamId>>| it.map(|it| it.value.index());
        for gateway in system.gateways.iter() {
            self.nodes.push(Node {
                name: gateway.name.value.clone(),
                kind: GATEWAY,
                team: team_index(&gateway.team),
                ..Node::default()
            });
        }
        for (id, service) in system.services.enumerate() {
            self.nodes.push(Node {
                name: service.name.value.clone(),
                kind: service.kind.word(),
                team: team_index(&service.team),
                versions: service.versions.iter().map(|it| it.name.value.clone()).collect(),
                slo: slo(service),
                description: service.description.clone(),
                concurrency: service.concurrency.map(|it| it.value),
                queue: service.queue.value.max,
                policy: policies(system, id),
                ..Node::default()
            });
        }
        let spans = system
            .gateways
            .iter()
            .map(|it| it.span)
            .chain(system.services.iter().map(|it| it.span))
            .collect::<Vec<_>>();
        for finding in model::lint::run(system, today) {
            let holds = |span: &&model::span::Span| {
                span.file == finding.span.file
                    && span.start <= finding.span.start
                    && finding.span.end <= span.end
            };
            // A finding elsewhere (an edge's policy, a scenario) belongs to no single node.
            let Some(at) = spans.iter().position(|span| holds(&span)) else { continue };
            self.nodes[at].lints.push(Lint {
                code: finding.code,
                severity: format!("{:?}", finding.severity).to_lowercase(),
                message: finding.message,
            });
        }
        for (id, node) in self.nodes.iter_mut().enumerate() {
            node.id = id as u32;
        }
    }

    fn add_edges(&mut self, system: &System) {
        let first = system.gateways.len();
        let gateways =
            system.gateways.enumerate().map(|(id, _)| (id.index(), place::gateway_dependencies(system, id)));
        let services =
            system.services.enumerate().map(|(id, _)| (first + id.index(), place::dependencies(system, id)));
        for (from, dependencies) in gateways.chain(services) {
            // What is only needed to start is never called.
            for dependency in dependencies.into_iter().filter(|it| it.calls > 0) {
                self.edges.push(Edge {
                    id: self.edges.len() as u32,
                    from: from as u32,
                    to: (first + dependency.to.index()) as u32,
                    optional: !dependency.waits,
                    path: Vec::new(),
                });
            }
        }
    }

    fn lay_out(&mut self, before: Option<&Self>) {
        let known: HashMap<(&str, bool), Point> = before
            .iter()
            .flat_map(|it| &it.nodes)
            .map(|it| ((it.name.as_str(), it.kind == GATEWAY), Point { x: it.x, y: it.y }))
            .collect();
        let longest = self.nodes.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
        let width = (longest as f64 * LETTER + 24.0).clamp(WIDTH_MIN, WIDTH_MAX);
        let mut graph = Graph::default();
        for node in &self.nodes {
            let place = known.get(&(node.name.as_str(), node.kind == GATEWAY));
            graph.add_node(width, HEIGHT, None, place.map_or(Hold::Free, |it| Hold::Near(*it)));
        }
        for edge in &self.edges {
            graph.add_edge(edge.from as usize, edge.to as usize);
        }
        let picture = graph.lay_out();
        for (node, at) in self.nodes.iter_mut().zip(&picture.nodes) {
            (node.x, node.y, node.width, node.height) = (round(at.x), round(at.y), width, HEIGHT);
        }
        for (edge, route) in self.edges.iter_mut().zip(&picture.edges) {
            edge.path = route.points.iter().map(|it| (round(it.x), round(it.y))).collect();
        }
    }

    /// Puts in the instances and the traffic that run. True if anything is not as it was; then the revision has grown.
    pub fn place(&mut self, status: &Status) -> bool {
        let zones: HashMap<&str, usize> =
            self.zones.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let mut changed = false;
        for node in self.nodes.iter_mut().filter(|it| it.kind != GATEWAY) {
            let Some(service) = status.services.iter().find(|it| it.name == node.name) else {
                changed |= !std::mem::take(&mut node.instances).is_empty();
                continue;
            };
            let gone = |state: &str| matches!(state, "stopped" | "completed");
            let instances: Vec<Instance> = service
                .instances
                .iter()
                .filter(|it| !gone(&it.state))
                .map(|it| Instance {
                    id: it.name.clone(),
                    zone: zones.get(it.place.as_str()).copied(),
                    version: node.versions.iter().position(|name| *name == it.version),
                })
                .collect();
            changed |= instances != node.instances;
            node.instances = instances;
        }
        for traffic in &mut self.traffic {
            let Some(said) = status.traffic.iter().find(|it| it.name == traffic.name) else { continue };
            changed |= traffic.running != said.running;
            traffic.running = said.running;
            if said.running && traffic.rate_per_second != Some(said.rate_per_second) {
                traffic.rate_per_second = Some(said.rate_per_second);
                changed = true;
            }
        }
        if changed {
            self.revision = self.revision.wrapping_add(1);
        }
        changed
    }

    /// The node of a name; a service before a gateway of the same name.
    pub fn find(&self, name: &str) -> Option<&Node> {
        let named = || self.nodes.iter().filter(|it| it.name == name);
        named().find(|it| it.kind != GATEWAY).or_else(|| named().next())
    }
}

/// A tenth of a unit is less than anyone sees and saves half of the document.
pub(crate) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn slo(service: &Service) -> Option<Slo> {
    let slo = service.slo.as_ref()?;
    Some(Slo {
        availability: slo.availability.map(|it| it.value.fraction()),
        latency: slo
            .latency
            .iter()
            .map(|(share, limit)| (share.fraction(), limit.value.as_millis_f64()))
            .collect(),
        window: slo.window,
    })
}

fn scenario(scenario: &model::system::Scenario) -> Scenario {
    let end = |event: &Event| Some(event.at + event.lasting?);
    // Without a word on the whole, it is over when its last event is undone; if one never is, nobody knows.
    let events_end: Option<Vec<_>> = scenario.events.iter().map(end).collect();
    let lasts = scenario.lasts.or_else(|| events_end?.into_iter().max());
    Scenario {
        name: scenario.name.value.clone(),
        description: scenario.description.clone(),
        lasts_ms: lasts.map(|it| it.as_u64() / 1_000_000),
    }
}

fn traffic(system: &System, traffic: &model::system::Traffic) -> Traffic {
    let target = match traffic.to.value {
        Caller::Service(id) => &system.services[id].name.value,
        Caller::Gateway(id) => &system.gateways[id].name.value,
    };
    let request = traffic.request.as_ref().map_or(String::new(), |it| format!(" \"{}\"", it.value));
    Traffic {
        name: traffic.name.value.clone(),
        to: format!("{target}{request}"),
        rate_per_second: match &traffic.load {
            Load::Open { rate, .. } => Some(rate.value.per_second()),
            Load::Closed { .. } | Load::Recorded { .. } => None,
        },
        running: false,
    }
}

/// The policies of all calls that a service makes.
fn policies(system: &System, id: ServiceId) -> Arc<[PolicyRow]> {
    let name = &system.services[id].name.value;
    let mut rows = Vec::new();
    for dependency in place::dependencies(system, id).into_iter().filter(|it| it.calls > 0) {
        let in_force = system.policy(Caller::Service(id), dependency.to, None);
        let edge = format!("{name} -> {}", system.services[dependency.to].name.value);
        for (key, value) in model::policy_words::in_words(&in_force.settings) {
            let at = in_force.set_by.get(key).and_then(|span| system.origins.line(*span));
            let place = at.map(|(path, line)| format!("{}:{line}", path.display()));
            // What is off because nobody asked for it is no part of what governs a call.
            if place.is_some() || value != "none" {
                rows.push(PolicyRow { edge: edge.clone(), key, value, place });
            }
        }
    }
    rows.into()
}

#[cfg(test)]
mod tests;
