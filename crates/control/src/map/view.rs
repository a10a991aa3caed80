//! The map at another scale: teams, zones, regions or versions instead of services (`GET /v1/map/view`, docs/live.md).
//!
//! Pure: a map and a wish in, a drawing out. It says who is drawn together, where, and which nodes and edges of the map
//! each thing stands for; the numbers of a group are added up by whoever draws it, from the same frames.
//!
//! No drawing shows more than [`VISIBLE_MAX`] things unless somebody asks for every service by name of that wish: a
//! picture of a thousand boxes is read by nobody. Groups are opened one by one instead.

use crate::map::roads::road;
use crate::map::{GATEWAY, HEIGHT, Map, round};
use model::layout::{Graph, Hold, Point};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

pub const VISIBLE_MAX: usize = 400;

/// What one thing of a view stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Services while few enough of them are there; groups above that.
    Auto,
    Service,
    Team,
    Zone,
    Region,
    Version,
}

impl By {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "auto" => Self::Auto,
            "service" => Self::Service,
            "team" => Self::Team,
            "zone" => Self::Zone,
            "region" => Self::Region,
            "version" => Self::Version,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// Of the map it was made from.
    pub revision: u32,
    pub by: &'static str,
    pub nodes: Vec<Shown>,
    pub edges: Vec<Line>,
    /// Groups that are open: a border around what they hold.
    pub frames: Vec<Frame>,
    /// Groups that were wished open and stay closed, because too much would be seen at once.
    pub kept_closed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shown {
    pub id: u32,
    pub name: String,
    /// `group`, or the kind of the one service it is.
    pub kind: &'static str,
    /// The nodes of the map it stands for.
    pub members: Vec<u32>,
    /// Only their instances in these zones; empty: all of them.
    pub zones: Vec<usize>,
    /// Only their instances of this version.
    pub version: Option<usize>,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    pub id: u32,
    pub from: u32,
    pub to: u32,
    pub optional: bool,
    /// The edges of the map it stands for; none between places, where what was observed is drawn.
    pub members: Vec<u32>,
    pub path: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Frame {
    pub name: String,
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

const GROUP: &str = "group";
const GROUP_WIDTH: f64 = 200.0;
const GROUP_HEIGHT: f64 = 76.0;
/// Between the columns and the rows of places.
const PLACE_GAP: (f64, f64) = (220.0, 90.0);

/// `open`: names of groups, the one opened last at the end.
pub fn of(map: &Map, by: By, open: &[String]) -> View {
    let few = map.nodes.len() <= VISIBLE_MAX;
    let mut view = match by {
        By::Service => services(map),
        By::Auto if few => services(map),
        By::Auto => grouped(map, automatic(map), open),
        By::Team => grouped(map, teams(map), open),
        By::Zone => {
            places(map, (0..map.zones.len()).map(|it| (map.zones[it].clone(), vec![it])).collect(), "zone")
        }
        By::Region => places(map, regions(map), "region"),
        By::Version => versions(map),
    };
    view.revision = map.revision;
    for (id, node) in view.nodes.iter_mut().enumerate() {
        node.id = id as u32;
    }
    for (id, edge) in view.edges.iter_mut().enumerate() {
        edge.id = id as u32;
    }
    view
}

/// The map itself.
fn services(map: &Map) -> View {
    let nodes = map.nodes.iter().map(|it| Shown {
        name: it.name.clone(),
        kind: it.kind,
        members: vec![it.id],
        x: it.x,
        y: it.y,
        width: it.width,
        height: it.height,
        ..Shown::default()
    });
    let edges = map.edges.iter().map(|it| Line {
        from: it.from,
        to: it.to,
        optional: it.optional,
        members: vec![it.id],
        path: it.path.clone(),
        ..Line::default()
    });
    View { by: "service", nodes: nodes.collect(), edges: edges.collect(), ..View::default() }
}

/// Which group each node is in, by the groups' names.
struct Groups {
    by: &'static str,
    names: Vec<String>,
    of: Vec<usize>,
}

fn groups(by: &'static str, names_of: Vec<String>) -> Groups {
    let mut names: Vec<String> = names_of.clone();
    names.sort();
    names.dedup();
    let at: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let of = names_of.iter().map(|it| at[it.as_str()]).collect();
    Groups { by, names, of }
}

fn teams(map: &Map) -> Groups {
    let name = |team: Option<usize>| {
        team.and_then(|it| map.teams.get(it)).map_or_else(|| "nobody's".to_owned(), |it| it.name.clone())
    };
    groups("team", map.nodes.iter().map(|it| name(it.team)).collect())
}

/// For a system too large to be seen at once: its teams; where hardly anything is owned, what names have in common; and
/// where they have nothing in common, the kinds.
fn automatic(map: &Map) -> Groups {
    let owned = map.nodes.iter().filter(|it| it.team.is_some()).count();
    let by_team = teams(map);
    if owned * 2 >= map.nodes.len() && by_team.names.len() > 1 {
        return by_team;
    }
    let prefix = |name: &str| {
        let end = name.find(|it: char| it == '-' || it == '_' || it == '.' || it.is_ascii_digit());
        name[..end.unwrap_or(name.len())].to_owned()
    };
    let by_name = groups("name", map.nodes.iter().map(|it| prefix(&it.name)).collect());
    if (2..=VISIBLE_MAX).contains(&by_name.names.len()) {
        return by_name;
    }
    groups("kind", map.nodes.iter().map(|it| it.kind.to_owned()).collect())
}

fn grouped(map: &Map, groups: Groups, open: &[String]) -> View {
    let mut sizes = vec![0usize; groups.names.len()];
    groups.of.iter().for_each(|it| sizes[*it] += 1);
    let mut is_open = vec![false; groups.names.len()];
    let mut visible = groups.names.len();
    let mut kept_closed = Vec::new();
    for name in open.iter().rev() {
        let Some(at) = groups.names.iter().position(|it| it == name).filter(|at| !is_open[*at]) else {
            continue;
        };
        // One group alone is always shown: there is nothing to close in its favour.
        if visible + sizes[at] - 1 > VISIBLE_MAX && is_open.contains(&true) {
            kept_closed.push(name.clone());
            continue;
        }
        is_open[at] = true;
        visible += sizes[at] - 1;
    }
    let mut nodes: Vec<Shown> = Vec::new();
    let mut shown_of = vec![0u32; map.nodes.len()];
    let mut group_at: Vec<Option<usize>> = vec![None; groups.names.len()];
    for (at, node) in map.nodes.iter().enumerate() {
        let group = groups.of[at];
        if is_open[group] {
            shown_of[at] = nodes.len() as u32;
            let (name, kind) = (node.name.clone(), node.kind);
            let (width, height) = (node.width, node.height);
            nodes.push(Shown { name, kind, members: vec![node.id], width, height, ..Shown::default() });
            continue;
        }
        let shown = *group_at[group].get_or_insert_with(|| {
            nodes.push(Shown {
                name: groups.names[group].clone(),
                kind: GROUP,
                width: GROUP_WIDTH,
                height: GROUP_HEIGHT,
                ..Shown::default()
            });
            nodes.len() - 1
        });
        nodes[shown].members.push(node.id);
        shown_of[at] = shown as u32;
    }
    let mut between: BTreeMap<(u32, u32), Line> = BTreeMap::new();
    for edge in &map.edges {
        let (from, to) = (shown_of[edge.from as usize], shown_of[edge.to as usize]);
        if from == to {
            continue;
        }
        let fresh = || Line { from, to, optional: true, ..Line::default() };
        let line = between.entry((from, to)).or_insert_with(fresh);
        line.optional &= edge.optional;
        line.members.push(edge.id);
    }
    let mut graph = Graph::default();
    let boxes: Vec<Option<usize>> = is_open
        .iter()
        .enumerate()
        .map(|(at, open)| open.then(|| graph.add_group(None, groups.names[at].chars().count() as f64 * 9.0)))
        .collect();
    for node in &nodes {
        let first = node.members.first().map(|it| groups.of[*it as usize]);
        let inside = first.and_then(|it| boxes[it]);
        graph.add_node(node.width, node.height, inside, Hold::Free);
    }
    let mut edges: Vec<Line> = between.into_values().collect();
    for edge in &edges {
        graph.add_edge(edge.from as usize, edge.to as usize);
    }
    let picture = graph.lay_out();
    for (node, at) in nodes.iter_mut().zip(&picture.nodes) {
        (node.x, node.y) = (round(at.x), round(at.y));
    }
    for (edge, route) in edges.iter_mut().zip(&picture.edges) {
        edge.path = points(&route.points);
    }
    let opened = groups.names.iter().zip(&boxes).filter_map(|(name, it)| Some((name, (*it)?)));
    let frames = opened.map(|(name, at)| {
        let frame = picture.groups[at];
        Frame {
            name: name.clone(),
            x: round((frame.left + frame.right) / 2.0),
            y: round((frame.top + frame.bottom) / 2.0),
            width: round(frame.width()),
            height: round(frame.height()),
        }
    });
    View { by: groups.by, frames: frames.collect(), nodes, edges, kept_closed, ..View::default() }
}

fn points(points: &[Point]) -> Vec<(f64, f64)> {
    points.iter().map(|it| (round(it.x), round(it.y))).collect()
}

/// Regions with their zones, in the file's order.
fn regions(map: &Map) -> Vec<(String, Vec<usize>)> {
    let mut regions: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, zone) in map.zones.iter().enumerate() {
        let name = zone.split('/').next().unwrap_or(zone);
        match regions.iter_mut().find(|(known, _)| known == name) {
            Some((_, zones)) => zones.push(at),
            None => regions.push((name.to_owned(), vec![at])),
        }
    }
    regions
}

/// Places stand in columns by region; what goes between them is known only once it was seen, so every pair has a curve.
fn places(map: &Map, places: Vec<(String, Vec<usize>)>, by: &'static str) -> View {
    let mut nodes = Vec::new();
    let gateways: Vec<u32> = map.nodes.iter().filter(|it| it.kind == GATEWAY).map(|it| it.id).collect();
    let column_of = |name: &str| name.split('/').next().unwrap_or(name).to_owned();
    let mut columns: Vec<(String, usize)> = Vec::new();
    let step = (GROUP_WIDTH + PLACE_GAP.0, GROUP_HEIGHT + PLACE_GAP.1);
    for (name, zones) in places {
        let column = column_of(&name);
        let at = columns.iter().position(|(known, _)| *known == column).unwrap_or_else(|| {
            columns.push((column, 0));
            columns.len() - 1
        });
        let row = columns[at].1;
        columns[at].1 += 1;
        let here = |node: &&crate::map::Node| {
            node.instances.iter().any(|it| it.zone.is_some_and(|it| zones.contains(&it)))
        };
        nodes.push(Shown {
            members: map.nodes.iter().filter(here).map(|it| it.id).collect(),
            name,
            kind: GROUP,
            zones,
            x: (at + 1) as f64 * step.0,
            y: row as f64 * step.1,
            width: GROUP_WIDTH,
            height: GROUP_HEIGHT,
            ..Shown::default()
        });
    }
    let rows = columns.iter().map(|(_, rows)| *rows).max().unwrap_or(1);
    for node in &mut nodes {
        let own =
            columns.iter().find(|(name, _)| *name == column_of(&node.name)).map_or(1, |(_, rows)| *rows);
        node.y = round(node.y + (rows - own) as f64 * step.1 / 2.0);
    }
    if !gateways.is_empty() {
        let y = round((rows - 1) as f64 * step.1 / 2.0);
        let (width, height) = (GROUP_WIDTH, GROUP_HEIGHT);
        let name = "gateways".to_owned();
        nodes.push(Shown { name, kind: GATEWAY, members: gateways, y, width, height, ..Shown::default() });
    }
    let mut edges = Vec::new();
    for (from, a) in nodes.iter().enumerate() {
        for (to, b) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
            // Nothing calls a gateway of ours.
            if b.kind != GATEWAY {
                let path = road(a, b, &nodes);
                edges.push(Line { from: from as u32, to: to as u32, path, ..Line::default() });
            }
        }
    }
    View { by, nodes, edges, ..View::default() }
}

/// Services of several versions as one node a version; the others as they are.
fn versions(map: &Map) -> View {
    let mut nodes: Vec<Shown> = Vec::new();
    let mut of: Vec<Vec<usize>> = Vec::new();
    for node in &map.nodes {
        let whole = Shown {
            name: node.name.clone(),
            kind: node.kind,
            members: vec![node.id],
            width: node.width,
            height: HEIGHT,
            ..Shown::default()
        };
        let first = nodes.len();
        if node.versions.len() < 2 {
            nodes.push(whole);
        } else {
            nodes.extend(node.versions.iter().enumerate().map(|(at, version)| Shown {
                name: format!("{} {version}", node.name),
                version: Some(at),
                ..whole.clone()
            }));
        }
        of.push((first..nodes.len()).collect());
    }
    let mut graph = Graph::default();
    for node in &nodes {
        let at = graph.add_node(node.width, node.height, None, Hold::Free);
        graph.set_alike(at, node.members[0] as usize);
    }
    let mut edges = Vec::new();
    for edge in &map.edges {
        for from in &of[edge.from as usize] {
            for to in &of[edge.to as usize] {
                graph.add_edge(*from, *to);
                let (from, to) = (*from as u32, *to as u32);
                edges.push(Line {
                    from,
                    to,
                    optional: edge.optional,
                    members: vec![edge.id],
                    ..Line::default()
                });
            }
        }
    }
    let picture = graph.lay_out();
    for (node, at) in nodes.iter_mut().zip(&picture.nodes) {
        (node.x, node.y) = (round(at.x), round(at.y));
    }
    for (edge, route) in edges.iter_mut().zip(&picture.edges) {
        edge.path = points(&route.points);
    }
    View { by: "version", nodes, edges, ..View::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Edge, Instance, Node, Team};

    /// Services in a line, `teams` of them turn by turn, each with an instance in both zones.
    fn line(count: usize, teams: usize) -> Map {
        let node = |at: usize| Node {
            id: at as u32,
            name: format!("s{at}"),
            kind: if at == 0 { GATEWAY } else { "http" },
            team: (teams > 0).then(|| at % teams.max(1)),
            width: 150.0,
            height: HEIGHT,
            versions: if at == 2 { vec!["v1".into(), "v2".into()] } else { vec![] },
            instances: (0..2)
                .map(|zone| Instance { id: format!("s{at}#{zone}"), zone: Some(zone), version: None })
                .collect(),
            ..Node::default()
        };
        let edge = |at: usize| Edge {
            id: at as u32,
            from: at as u32,
            to: at as u32 + 1,
            optional: at == 1,
            path: vec![(0.0, 0.0); 4],
        };
        Map {
            revision: 7,
            teams: (0..teams)
                .map(|it| Team { name: format!("t{it}"), contact: None, oncall: None })
                .collect(),
            zones: vec!["eu/a".to_owned(), "eu/b".to_owned()],
            nodes: (0..count).map(node).collect(),
            edges: (0..count - 1).map(edge).collect(),
            ..Map::default()
        }
    }

    fn names(view: &View) -> Vec<&str> {
        view.nodes.iter().map(|it| it.name.as_str()).collect()
    }

    /// Every service is in exactly one thing, every edge between two things in exactly one line between them.
    #[track_caller]
    fn check_whole(map: &Map, view: &View) {
        let mut seen = vec![None; map.nodes.len()];
        for shown in &view.nodes {
            for member in &shown.members {
                assert_eq!(
                    seen[*member as usize].replace(shown.id),
                    None,
                    "{member} twice in {:?}",
                    names(view)
                );
            }
        }
        assert!(seen.iter().all(Option::is_some));
        for edge in &map.edges {
            let ends = (seen[edge.from as usize], seen[edge.to as usize]);
            let lines: Vec<_> = view.edges.iter().filter(|it| it.members.contains(&edge.id)).collect();
            if ends.0 == ends.1 {
                assert!(lines.is_empty());
            } else {
                assert_eq!(lines.len(), 1);
                assert_eq!((Some(lines[0].from), Some(lines[0].to)), ends);
            }
        }
    }

    #[test]
    fn teams_are_drawn_as_one_and_open_one_by_one() {
        let map = line(6, 2);
        let closed = of(&map, By::Team, &[]);
        assert_eq!((closed.by, closed.revision, names(&closed)), ("team", 7, vec!["t0", "t1"]));
        check_whole(&map, &closed);
        let open = of(&map, By::Team, &["t1".to_owned(), "unheard of".to_owned()]);
        assert_eq!(names(&open), ["t0", "s1", "s3", "s5"]);
        assert_eq!(open.frames.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["t1"]);
        let frame = &open.frames[0];
        for node in open.nodes.iter().filter(|it| it.kind != GROUP) {
            assert!(
                (node.x - frame.x).abs() <= frame.width / 2.0
                    && (node.y - frame.y).abs() <= frame.height / 2.0
            );
        }
        check_whole(&map, &open);
        let without = line(3, 0);
        assert_eq!(names(&of(&without, By::Team, &[])), ["nobody's"]);
    }

    #[test]
    fn a_large_system_is_never_drawn_whole_by_itself() {
        let small = of(&line(VISIBLE_MAX, 2), By::Auto, &[]);
        assert_eq!((small.by, small.nodes.len()), ("service", VISIBLE_MAX));
        let map = line(3 * VISIBLE_MAX, 6);
        let large = of(&map, By::Auto, &[]);
        assert_eq!((large.by, large.nodes.len()), ("team", 6));
        check_whole(&map, &large);
        let wished: Vec<String> = ["t0", "t1", "t2"].map(str::to_owned).to_vec();
        let open = of(&map, By::Auto, &wished);
        assert!(open.nodes.len() <= VISIBLE_MAX, "{}", open.nodes.len());
        assert_eq!(open.kept_closed, ["t1", "t0"], "the newest wish comes first");
        check_whole(&map, &open);
        assert_eq!(of(&line(500, 0), By::Auto, &[]).by, "kind", "one prefix tells nothing apart");
        assert_eq!(of(&map, By::Service, &[]).nodes.len(), map.nodes.len(), "who asks for all gets all");
        assert_eq!(of(&map, By::Auto, &[]), of(&map, By::Auto, &[]), "the same again");
    }

    #[test]
    fn places_hold_the_instances_that_stand_there() {
        let map = line(3, 1);
        let zones = of(&map, By::Zone, &[]);
        assert_eq!(names(&zones), ["eu/a", "eu/b", "gateways"]);
        assert_eq!((zones.nodes[1].zones.as_slice(), zones.nodes[1].members.len()), (&[1][..], 3));
        let pairs: Vec<_> = zones.edges.iter().map(|it| (it.from, it.to)).collect();
        assert_eq!(pairs, [(0, 1), (1, 0), (2, 0), (2, 1)]);
        let regions = of(&map, By::Region, &[]);
        assert_eq!((names(&regions), regions.nodes[0].zones.clone()), (vec!["eu", "gateways"], vec![0, 1]));
    }

    #[test]
    fn versions_stand_side_by_side() {
        let view = of(&line(4, 1), By::Version, &[]);
        assert_eq!(names(&view), ["s0", "s1", "s2 v1", "s2 v2", "s3"]);
        let pairs: Vec<_> = view.edges.iter().map(|it| (it.from, it.to)).collect();
        assert_eq!(pairs, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)]);
        assert_eq!(view.nodes[2].x, view.nodes[3].x, "in one column");
    }
}
