//! The curves of the arrows, the rectangles of the groups, and the picture as a whole.

use super::columns::Columns;
use super::order::Ladder;
use super::rows::{self, LABEL, PAD, Rows};
use super::{Graph, Picture, Point, Rect, Route};

/// Arrows that meet at one side of a box stand this far apart, or closer where that many do not fit.
const PORT_GAP: f64 = 9.0;
/// Only the middle of a side takes arrows: some shapes have slanted or round corners.
const PORT_SHARE: f64 = 0.6;

pub(super) fn draw(graph: &Graph, ladder: &Ladder, columns: &Columns, rows: &Rows) -> Picture {
    let mut nodes: Vec<Point> = (0..graph.nodes.len())
        .map(|node| {
            let free = Point { x: columns.centre[ladder.items[node].layer], y: rows.of[node] };
            rows::pinned(graph, node).unwrap_or(free)
        })
        .collect();
    let ports = Ports::new(graph, ladder, rows, &nodes);
    let mut edges: Vec<Route> = (0..graph.edges.len())
        .map(|edge| {
            let ends = graph.edges[edge];
            let (from, to) = (ladder.items[ends.from].layer, ladder.items[ends.to].layer);
            let points = if from == to {
                bow(graph, &nodes, ends.from, ends.to)
            } else {
                through(graph, ladder, columns, rows, &nodes, &ports, edge)
            };
            Route { points, backward: from > to }
        })
        .collect();
    let mut groups = frames(graph, ladder, columns, rows, &nodes);

    if !graph.keeps_positions() {
        // A fresh drawing starts at the origin; one that keeps positions keeps its origin too.
        let bounds = bounds(graph, &nodes, &edges, &groups);
        let shift = |point: &mut Point| {
            point.x -= bounds.left;
            point.y -= bounds.top;
        };
        nodes.iter_mut().for_each(shift);
        edges.iter_mut().flat_map(|it| &mut it.points).for_each(shift);
        for group in &mut groups {
            group.left -= bounds.left;
            group.right -= bounds.left;
            group.top -= bounds.top;
            group.bottom -= bounds.top;
        }
    }
    let bounds = bounds(graph, &nodes, &edges, &groups);
    Picture { nodes, edges, groups, bounds }
}

fn box_of(graph: &Graph, nodes: &[Point], node: usize) -> Rect {
    let (Point { x, y }, size) = (nodes[node], &graph.nodes[node]);
    Rect {
        left: x - size.width / 2.0,
        top: y - size.height / 2.0,
        right: x + size.width / 2.0,
        bottom: y + size.height / 2.0,
    }
}

/// Where on a box's side each arrow ends, so that arrows do not pile up on one point.
struct Ports {
    /// For each edge: how far from the centre its left and its right end are.
    offsets: Vec<[f64; 2]>,
}

/// One end of an arrow, before it has a port.
struct End {
    node: u32,
    /// 0: on the left side of its box, 1: on the right.
    side: usize,
    /// The thing next on the path, and its row.
    next: u32,
    row: f64,
    backward: bool,
    edge: usize,
    /// Which end of the edge's path this is: 0 its left, 1 its right one.
    end: usize,
}

impl Ports {
    fn new(graph: &Graph, ladder: &Ladder, rows: &Rows, nodes: &[Point]) -> Self {
        let mut ends = Vec::new();
        let row = |item: u32| nodes.get(item as usize).map_or(rows.of[item as usize], |it| it.y);
        for (edge, path) in ladder.paths.iter().enumerate() {
            let (from, to) = (graph.edges[edge].from, graph.edges[edge].to);
            let (from, to) = (ladder.items[from].layer, ladder.items[to].layer);
            if from == to {
                continue;
            }
            if let ([first, second, ..], [.., before_last, last]) = (&path[..], &path[..]) {
                for (node, side, next, end) in [(*first, 1, *second, 0), (*last, 0, *before_last, 1)] {
                    ends.push(End { node, side, next, row: row(next), backward: from > to, edge, end });
                }
            }
        }
        // Arrows of one trunk share a port; one there and one back do not.
        let same_port = |a: &End, b: &End| (a.next, a.backward) == (b.next, b.backward);
        ends.sort_by(|a, b| {
            (a.node, a.side)
                .cmp(&(b.node, b.side))
                .then(a.row.total_cmp(&b.row))
                .then((a.next, a.backward, a.edge).cmp(&(b.next, b.backward, b.edge)))
        });
        let mut offsets = vec![[0.0; 2]; graph.edges.len()];
        let mut alone = vec![[false; 2]; graph.edges.len()];
        for side in ends.chunk_by(|a, b| (a.node, a.side) == (b.node, b.side)) {
            let ports = 1 + side.windows(2).filter(|pair| !same_port(&pair[0], &pair[1])).count();
            let room = graph.nodes[side[0].node as usize].height * PORT_SHARE;
            let gap = if ports == 1 { 0.0 } else { PORT_GAP.min(room / (ports - 1) as f64) };
            let mut at = -gap * (ports - 1) as f64 / 2.0;
            for (index, end) in side.iter().enumerate() {
                if index > 0 && !same_port(&side[index - 1], end) {
                    at += gap;
                }
                offsets[end.edge][end.end] = at;
                alone[end.edge][end.end] = ports == 1 && side.len() == 1;
            }
        }
        // An arrow that has a side to itself need not end in its middle: it is straight if that is all it takes.
        for (edge, path) in ladder.paths.iter().enumerate() {
            let ([left, right], [left_alone, right_alone]) = (&path[..], alone[edge]) else { continue };
            let (left, right) = (*left as usize, *right as usize);
            let reach = |node: usize| graph.nodes[node].height * PORT_SHARE / 2.0;
            let (left_row, right_row) = (nodes[left].y + offsets[edge][0], nodes[right].y + offsets[edge][1]);
            let level = match (left_alone, right_alone) {
                (true, true) => (left_row + right_row) / 2.0,
                (false, true) => left_row,
                (true, false) => right_row,
                (false, false) => continue,
            };
            let (to_left, to_right) = (level - nodes[left].y, level - nodes[right].y);
            if (!left_alone || to_left.abs() <= reach(left))
                && (!right_alone || to_right.abs() <= reach(right))
            {
                offsets[edge] = [to_left, to_right];
            }
        }
        Self { offsets }
    }
}

/// An arrow from layer to layer: level through each layer it passes, an S between two levels.
fn through(
    graph: &Graph,
    ladder: &Ladder,
    columns: &Columns,
    rows: &Rows,
    nodes: &[Point],
    ports: &Ports,
    edge: usize,
) -> Vec<Point> {
    let path = &ladder.paths[edge];
    let (first, last) = (path[0] as usize, path[path.len() - 1] as usize);
    let start = Point { x: box_of(graph, nodes, first).right, y: nodes[first].y + ports.offsets[edge][0] };
    let end = Point { x: box_of(graph, nodes, last).left, y: nodes[last].y + ports.offsets[edge][1] };
    let mut points = vec![start];
    let mut bends = path[1..path.len() - 1].iter().map(|&it| it as usize).peekable();
    while let Some(bend) = bends.next() {
        let mut exit = bend;
        while let Some(next) = bends.next_if(|&next| rows.of[next] == rows.of[bend]) {
            exit = next;
        }
        let row = rows.of[bend];
        curve(&mut points, Point { x: columns.left(ladder.items[bend].layer), y: row });
        line(&mut points, Point { x: columns.right(ladder.items[exit].layer), y: row });
    }
    curve(&mut points, end);
    if graph.edges[edge].from != first {
        points.reverse();
    }
    points
}

fn curve(points: &mut Vec<Point>, to: Point) {
    let from = points[points.len() - 1];
    let reach = (to.x - from.x).abs().max(20.0) * 0.5;
    points.extend([Point { x: from.x + reach, y: from.y }, Point { x: to.x - reach, y: to.y }, to]);
}

fn line(points: &mut Vec<Point>, to: Point) {
    let from = points[points.len() - 1];
    let at = |share: f64| Point { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
    points.extend([at(1.0 / 3.0), at(2.0 / 3.0), to]);
}

/// An arrow between two boxes of one column leaves and enters on the right.
fn bow(graph: &Graph, nodes: &[Point], from: usize, to: usize) -> Vec<Point> {
    let (a, b) = (box_of(graph, nodes, from), box_of(graph, nodes, to));
    if from == to {
        let quarter = a.height() / 4.0;
        let start = Point { x: a.right, y: nodes[from].y - quarter };
        let end = Point { x: a.right, y: nodes[from].y + quarter };
        let out = a.right + 34.0;
        return vec![start, Point { x: out, y: start.y - 6.0 }, Point { x: out, y: end.y + 6.0 }, end];
    }
    let down = if nodes[from].y < nodes[to].y { 1.0 } else { -1.0 };
    let start = Point { x: a.right, y: nodes[from].y + down * a.height() / 5.0 };
    let end = Point { x: b.right, y: nodes[to].y - down * b.height() / 5.0 };
    // The farther apart, the farther out, so that nested arrows nest.
    let out = start.x.max(end.x) + 24.0 + ((end.y - start.y).abs() * 0.12).min(46.0);
    vec![start, Point { x: out, y: start.y }, Point { x: out, y: end.y }, end]
}

fn frames(graph: &Graph, ladder: &Ladder, columns: &Columns, rows: &Rows, nodes: &[Point]) -> Vec<Rect> {
    let mut inner: Vec<Option<Rect>> = vec![None; graph.groups.len()];
    let grow = |inner: &mut Vec<Option<Rect>>, group: usize, with: Rect| match &mut inner[group] {
        Some(rect) => rect.include(&with),
        empty => *empty = Some(with),
    };
    for (index, item) in ladder.items.iter().enumerate() {
        let Some(group) = item.group else { continue };
        let rect = if index < nodes.len() {
            box_of(graph, nodes, index)
        } else {
            let row = rows.of[index];
            Rect { left: columns.left(item.layer), top: row, right: columns.right(item.layer), bottom: row }
        };
        grow(&mut inner, group, rect);
    }
    let mut frames = vec![Rect::default(); graph.groups.len()];
    // A parent comes before its children, so going backwards meets the innermost first.
    for group in (0..graph.groups.len()).rev() {
        // A group with nothing in it is a label on its own.
        let content = inner[group].unwrap_or_else(|| {
            let left = columns.centre.first().map_or(0.0, |_| columns.left(0));
            let top = rows.tops[group] + LABEL;
            Rect { left, top, right: left, bottom: top }
        });
        let mut frame = Rect {
            left: content.left - PAD,
            top: content.top - LABEL,
            right: content.right + PAD,
            bottom: content.bottom + PAD,
        };
        frame.right = frame.right.max(frame.left + graph.groups[group].label_width);
        frames[group] = frame;
        if let Some(parent) = graph.groups[group].parent {
            grow(&mut inner, parent, frame);
        }
    }
    frames
}

fn bounds(graph: &Graph, nodes: &[Point], edges: &[Route], groups: &[Rect]) -> Rect {
    let boxes = (0..nodes.len()).map(|it| box_of(graph, nodes, it)).chain(groups.iter().copied());
    // A curve lies inside the hull of its points.
    let points = edges.iter().flat_map(|it| &it.points);
    let points = points.map(|it| Rect { left: it.x, top: it.y, right: it.x, bottom: it.y });
    boxes
        .chain(points)
        .reduce(|mut all, it| {
            all.include(&it);
            all
        })
        .unwrap_or_default()
}
