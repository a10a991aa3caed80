//! Where each layer stands from left to right, with room between for the arrows and the groups' borders.

use super::order::Ladder;
use super::rows::PAD;
use super::{Graph, rows};

pub(super) struct Columns {
    pub(super) centre: Vec<f64>,
    pub(super) width: Vec<f64>,
}

impl Columns {
    pub(super) fn left(&self, layer: usize) -> f64 {
        self.centre[layer] - self.width[layer] / 2.0
    }

    pub(super) fn right(&self, layer: usize) -> f64 {
        self.centre[layer] + self.width[layer] / 2.0
    }
}

/// Between two columns at least: an arrow needs this much to turn and to show its head.
const GAP: f64 = 56.0;
/// More arrows need more room, up to a point: beyond it they are a texture whatever the room.
const GAP_PER_ARROW: f64 = 1.6;
const GAP_FOR_ARROWS_MAX: f64 = 90.0;
/// For arrows within a column, which bulge out of it.
const GAP_FOR_FLAT: f64 = 26.0;

pub(super) fn assign(graph: &Graph, ladder: &Ladder) -> Columns {
    let layers = ladder.layers.len();
    let mut width = vec![0.0f64; layers];
    for (node, it) in graph.nodes.iter().enumerate() {
        if rows::pinned(graph, node).is_none() {
            let layer = ladder.items[node].layer;
            width[layer] = width[layer].max(it.width);
        }
    }
    let depth = |group: usize| graph.ancestors(Some(group)).count() as f64;
    let mut opening = vec![0.0f64; layers];
    let mut closing = vec![0.0f64; layers];
    for (group, it) in graph.groups.iter().enumerate() {
        let (first, last) = ladder.spans[group];
        if first >= layers {
            continue; // A drawing of nothing has no layers.
        }
        opening[first] = opening[first].max(depth(group));
        closing[last] = closing[last].max(depth(group));
        if first == last {
            width[first] = width[first].max(it.label_width - 2.0 * PAD);
        }
    }
    let mut arrows = vec![0.0; layers];
    for (item, right) in ladder.right.iter().enumerate() {
        arrows[ladder.items[item].layer] += right.len() as f64;
    }
    let mut flat = vec![0.0; layers];
    for edge in &graph.edges {
        let layer = ladder.items[edge.from].layer;
        if layer == ladder.items[edge.to].layer {
            flat[layer] = GAP_FOR_FLAT;
        }
    }

    let mut centre = vec![0.0; layers];
    let mut edge = 0.0; // The right side of the column before.
    for layer in 0..layers {
        let borders = if layer == 0 { 0.0 } else { (closing[layer - 1] + opening[layer]) * PAD };
        let needed = if layer == 0 { 0.0 } else { GAP + flat[layer - 1] + borders };
        centre[layer] = match ladder.centres[layer] {
            // Where it was, unless that has become too close.
            Some(earlier) if layer == 0 || edge + GAP / 2.0 <= earlier - width[layer] / 2.0 => earlier,
            _ => {
                let room = match layer {
                    0 => 0.0,
                    _ => (arrows[layer - 1] * GAP_PER_ARROW).min(GAP_FOR_ARROWS_MAX),
                };
                edge + needed + room + width[layer] / 2.0
            }
        };
        // A new column to the left of all earlier ones: as far left as the first of those allows.
        if layer == 0
            && ladder.centres[0].is_none()
            && let Some(ahead) = ladder.centres.iter().position(Option::is_some)
        {
            let first = ladder.centres[ahead].unwrap_or_default() - width[ahead] / 2.0;
            let taken: f64 = (0..ahead).map(|it| width[it] + GAP + GAP_FOR_FLAT).sum();
            centre[0] = first - taken + width[0] / 2.0;
        }
        edge = centre[layer] + width[layer] / 2.0;
    }
    Columns { centre, width }
}
