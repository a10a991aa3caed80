//! A system as a diagram, at the level asked for: the whole in its world, teams, services, or instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{Diagram, Edge, Group, Line, Node, Shape};
use crate::place::{self, Dependency, TooMany};
use crate::system::{Caller, Kind, Load, Placement, Service, ServiceId, System};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// The system as one box, with what calls it and what it calls outside.
    System,
    /// Teams, and the calls between their services: who waits for whom.
    Team,
    #[default]
    Service,
    Instance,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::System, Level::Team, Level::Service, Level::Instance];

    pub fn word(self) -> &'static str {
        match self {
            Level::System => "system",
            Level::Team => "team",
            Level::Service => "service",
            Level::Instance => "instance",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Level::ALL.into_iter().find(|it| it.word() == text).ok_or_else(|| {
            format!("no level is called `{text}`: there are {}", Level::ALL.map(Level::word).join(", "))
        })
    }
}

pub fn diagram(system: &System, level: Level) -> Result<Diagram, TooMany> {
    let mut diagram = match level {
        Level::System => of_system(system),
        Level::Team => of_teams(system),
        Level::Service => of_services(system),
        Level::Instance => of_instances(system)?,
    };
    diagram.title.clone_from(&system.name);
    Ok(diagram)
}

/// The label an importer leaves so that exporters can name the package again.
pub const PACKAGE_LABEL: &str = "spigo.package";

fn shape(kind: Kind) -> Shape {
    match kind {
        Kind::Http => Shape::Http,
        Kind::Grpc => Shape::Grpc,
        Kind::Tcp => Shape::Tcp,
        Kind::Cache => Shape::Cache,
        Kind::Store => Shape::Store,
        Kind::Queue => Shape::Queue,
        Kind::External => Shape::External,
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn line(dependency: &Dependency) -> Line {
    match dependency {
        Dependency { waits: true, .. } => Line::Waits,
        Dependency { calls: 0, .. } => Line::Needs,
        _ => Line::Optional,
    }
}

fn note(dependency: &Dependency) -> String {
    /// A tooltip is not a page.
    const OPERATIONS_MAX: usize = 6;
    let mut shown: Vec<&str> =
        dependency.operations.iter().take(OPERATIONS_MAX).map(String::as_str).collect();
    if dependency.operations.len() > OPERATIONS_MAX {
        shown.push("...");
    }
    shown.join(", ")
}

fn facts_of(system: &System, service: &Service) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(package) = service.labels.get(PACKAGE_LABEL) {
        facts.push(("package", package.clone()));
    }
    if let Some(team) = &service.team {
        facts.push(("team", system.teams[team.value].name.value.clone()));
    }
    facts
}

fn of_services(system: &System) -> Diagram {
    let mut diagram = Diagram::default();
    let teams: BTreeSet<_> =
        system.services.iter().filter_map(|it| it.team.as_ref().map(|team| team.value)).collect();
    let group_of: BTreeMap<_, _> = teams.iter().enumerate().map(|(group, team)| (*team, group)).collect();
    for team in &teams {
        let name = system.teams[*team].name.value.clone();
        diagram.groups.push(Group { name, what: "team", parent: None });
    }
    for (_, gateway) in system.gateways.enumerate() {
        diagram.nodes.push(Node {
            // Services and gateways may share a name; a service's has no slash.
            id: format!("gateway/{}", gateway.name.value),
            name: gateway.name.value.clone(),
            note: format!("gateway · {}", gateway.listen.value),
            shape: Shape::Gateway,
            group: gateway.team.as_ref().and_then(|team| group_of.get(&team.value)).copied(),
            alike: None,
            facts: vec![("listen", gateway.listen.value.clone())],
        });
    }
    let first = diagram.nodes.len();
    for service in &system.services {
        let shape = shape(service.kind);
        let mut note = shape.word().to_string();
        let replicas = service.replicas.total();
        if service.kind != Kind::External && service.placement == Placement::Zones {
            note.push_str(&format!(" · ×{replicas}"));
        }
        if service.versions.len() > 1 {
            note.push_str(&format!(" · {}", count(service.versions.len(), "version")));
        }
        let mut facts = facts_of(system, service);
        facts.push(("replicas", replicas.to_string()));
        diagram.nodes.push(Node {
            id: service.name.value.clone(),
            name: service.name.value.clone(),
            note,
            shape,
            group: service.team.as_ref().and_then(|team| group_of.get(&team.value)).copied(),
            alike: None,
            facts,
        });
    }
    for (index, id) in system.gateways.ids().enumerate() {
        for dependency in place::gateway_dependencies(system, id) {
            diagram.edges.push(edge(index, first, &dependency));
        }
    }
    for id in system.services.ids() {
        for dependency in place::dependencies(system, id) {
            diagram.edges.push(edge(first + id.index(), first, &dependency));
        }
    }
    let mut parts = vec![count(system.services.len(), "service")];
    if !teams.is_empty() {
        parts.push(count(teams.len(), "team"));
    }
    parts.push(count(diagram.edges.len(), "dependency").replace("dependencys", "dependencies"));
    diagram.subtitle = parts.join(" · ");
    diagram
}

fn edge(from: usize, first: usize, dependency: &Dependency) -> Edge {
    Edge {
        from,
        to: first + dependency.to.index(),
        line: line(dependency),
        note: note(dependency),
        calls: dependency.calls,
    }
}

fn of_instances(system: &System) -> Result<Diagram, TooMany> {
    let placed = place::place(system)?;
    let mut diagram = Diagram::default();
    // Frames only where they say something: around regions if there are several, around zones that hold anything.
    let mut group_of_region = BTreeMap::new();
    let mut group_of_zone = BTreeMap::new();
    let used: BTreeSet<_> = placed.instances.iter().filter_map(|it| it.region.zip(Some(it.zone))).collect();
    for (region, zone) in used {
        let place = &system.regions[region];
        let parent = *group_of_region.entry(region).or_insert_with(|| {
            diagram.groups.push(Group { name: place.name.value.clone(), what: "region", parent: None });
            diagram.groups.len() - 1
        });
        if let (Some(zone), true) = (zone, place.zones.len() > 1) {
            group_of_zone.entry((region, zone)).or_insert_with(|| {
                let name = place.zones[zone as usize].value.clone();
                diagram.groups.push(Group { name, what: "zone", parent: Some(parent) });
                diagram.groups.len() - 1
            });
        }
    }
    for instance in &placed.instances {
        let service = &system.services[instance.service];
        let region = instance.region.map(|it| &system.regions[it]);
        let zone = region.zip(instance.zone).map(|(region, zone)| region.zones[zone as usize].value.as_str());
        let region_name = region.map(|it| it.name.value.as_str());
        let name = format!("{}{:02}", service.name.value, instance.index);
        let group = instance.region.and_then(|region| {
            let zone = instance.zone.and_then(|zone| group_of_zone.get(&(region, zone)));
            zone.or(group_of_region.get(&region)).copied()
        });
        let mut facts = vec![("service", service.name.value.clone())];
        facts.extend(facts_of(system, service));
        facts.extend(region_name.map(|it| ("region", it.to_string())));
        facts.extend(zone.map(|it| ("zone", it.to_string())));
        facts.push(("index", instance.index.to_string()));
        let place = [system.name.as_str(), region_name.unwrap_or("*"), zone.unwrap_or("*")];
        diagram.nodes.push(Node {
            id: format!("{}.{name}", place.join(".")),
            name,
            note: service
                .labels
                .get(PACKAGE_LABEL)
                .cloned()
                .unwrap_or_else(|| shape(service.kind).word().into()),
            shape: shape(service.kind),
            group,
            alike: Some(instance.service.index()),
            facts,
        });
    }
    let lines: Vec<BTreeMap<ServiceId, Line>> = system
        .services
        .ids()
        .map(|id| place::dependencies(system, id).iter().map(|it| (it.to, line(it))).collect())
        .collect();
    for &(from, to) in &placed.wires {
        let (caller, callee) = (placed.instances[from].service, placed.instances[to].service);
        let line = lines[caller.index()].get(&callee).copied().unwrap_or(Line::Waits);
        diagram.edges.push(Edge { from, to, line, note: String::new(), calls: 1 });
    }
    diagram.subtitle = [
        count(placed.instances.len(), "instance"),
        format!("of {}", count(system.services.len(), "service")),
        count(placed.wires.len(), "connection"),
    ]
    .join(" · ")
    .replace(" · of", " of");
    Ok(diagram)
}

fn of_teams(system: &System) -> Diagram {
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Owner {
        Team(usize),
        Nobody,
        /// Somebody else's: no team of this organisation.
        Outside(usize),
    }
    let owner = |id: ServiceId| match (&system.services[id].team, system.services[id].kind) {
        (Some(team), _) => Owner::Team(team.value.index()),
        (None, Kind::External) => Owner::Outside(id.index()),
        (None, _) => Owner::Nobody,
    };
    let mut owned: BTreeMap<Owner, usize> = (0..system.teams.len()).map(|it| (Owner::Team(it), 0)).collect();
    for id in system.services.ids() {
        *owned.entry(owner(id)).or_default() += 1;
    }
    let mut diagram = Diagram::default();
    let mut node_of = BTreeMap::new();
    for (&owner, &services) in &owned {
        node_of.insert(owner, diagram.nodes.len());
        let (id, name, note, shape) = match owner {
            Owner::Team(team) => {
                let team = &system.teams.as_slice()[team];
                let contact = team.contact.as_ref().map(|it| format!(" · {}", it.value)).unwrap_or_default();
                let name = team.name.value.clone();
                (name.clone(), name, format!("{}{contact}", count(services, "service")), Shape::Team)
            }
            Owner::Nobody => (
                "*".into(),
                "(no team)".into(),
                format!("{}, owned by nobody", count(services, "service")),
                Shape::Tcp,
            ),
            Owner::Outside(service) => {
                let name = system.services.as_slice()[service].name.value.clone();
                (format!("external/{name}"), name, "external".into(), Shape::External)
            }
        };
        let facts = vec![("services", services.to_string())];
        diagram.nodes.push(Node { id, name, note, shape, group: None, alike: None, facts });
    }

    let mut between: BTreeMap<(usize, usize), Edge> = BTreeMap::new();
    let mut add = |from: Owner, from_name: &str, dependency: &Dependency| {
        let to = owner(dependency.to);
        let (Some(&from_node), Some(&to_node)) = (node_of.get(&from), node_of.get(&to)) else { return };
        if from == to {
            return; // Within a team nobody waits for another team.
        }
        let edge = between.entry((from_node, to_node)).or_insert_with(|| Edge {
            from: from_node,
            to: to_node,
            line: Line::Needs,
            note: String::new(),
            calls: 0,
        });
        edge.line = edge.line.min(line(dependency));
        edge.calls += dependency.calls;
        if !edge.note.is_empty() {
            edge.note.push_str(", ");
        }
        edge.note.push_str(&format!("{from_name} → {}", system.services[dependency.to].name.value));
    };
    for (id, gateway) in system.gateways.enumerate() {
        if let Some(team) = &gateway.team {
            for dependency in place::gateway_dependencies(system, id) {
                add(Owner::Team(team.value.index()), &gateway.name.value, &dependency);
            }
        }
    }
    for (id, service) in system.services.enumerate() {
        for dependency in place::dependencies(system, id) {
            add(owner(id), &service.name.value, &dependency);
        }
    }
    diagram.edges = between.into_values().collect();
    diagram.subtitle = format!(
        "{} · {} · who calls whose services",
        count(system.teams.len(), "team"),
        count(system.services.len(), "service")
    );
    diagram
}

fn of_system(system: &System) -> Diagram {
    let mut diagram = Diagram::default();
    let outside: Vec<ServiceId> =
        system.services.ids().filter(|&id| system.services[id].kind == Kind::External).collect();
    let node = |id: String, name: &str, note: String, shape| Node {
        id,
        name: name.to_string(),
        note,
        shape,
        group: None,
        alike: None,
        facts: Vec::new(),
    };
    let own = system.services.len() - outside.len();
    let words =
        [count(own, "service"), count(system.teams.len(), "team"), count(system.regions.len(), "region")];
    diagram.nodes.push(node("system".into(), &system.name, words.join(" · "), Shape::System));
    let edge = |from, to, calls| Edge { from, to, line: Line::Waits, note: String::new(), calls };
    let mut gateways = Vec::new();
    for gateway in &system.gateways {
        gateways.push(diagram.nodes.len());
        let id = format!("gateway/{}", gateway.name.value);
        diagram.edges.push(edge(diagram.nodes.len(), 0, gateway.routes.len()));
        diagram.nodes.push(node(
            id,
            &gateway.name.value,
            format!("gateway · {}", gateway.listen.value),
            Shape::Gateway,
        ));
    }
    for traffic in &system.traffic {
        let note = match &traffic.load {
            Load::Open { rate, .. } => format!("traffic · {}", rate.value),
            Load::Closed { users, .. } => format!("traffic · {}", count(users.value as usize, "user")),
            Load::Recorded { .. } => "traffic · recorded".to_string(),
        };
        let to = match traffic.to.value {
            Caller::Gateway(id) => gateways[id.index()],
            Caller::Service(_) => 0,
        };
        diagram.edges.push(edge(diagram.nodes.len(), to, 1));
        diagram.nodes.push(node(
            format!("traffic/{}", traffic.name.value),
            &traffic.name.value,
            note,
            Shape::External,
        ));
    }
    let mut calls: BTreeMap<ServiceId, usize> = BTreeMap::new();
    for id in system.services.ids() {
        for dependency in place::dependencies(system, id) {
            if system.services[dependency.to].kind == Kind::External {
                *calls.entry(dependency.to).or_default() += dependency.calls;
            }
        }
    }
    for id in outside {
        let name = &system.services[id].name.value;
        diagram.edges.push(edge(0, diagram.nodes.len(), calls.get(&id).copied().unwrap_or(0)));
        diagram.nodes.push(node(format!("external/{name}"), name, "external".into(), Shape::External));
    }
    diagram.subtitle = words.join(" · ");
    diagram
}
