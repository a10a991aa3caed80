//! In which order the items of each layer stand above each other, so that few arrows cross.

use std::collections::BTreeMap;

use super::layers::Layers;
use super::{BENDS_MAX, BOX_GAP, Graph};

/// The layered graph: every node, and a bend wherever a long arrow passes a layer. Items `0..nodes` are the nodes.
pub(super) struct Ladder {
    pub(super) items: Vec<Item>,
    /// Neighbours in the layer to the left and to the right.
    pub(super) left: Vec<Vec<u32>>,
    pub(super) right: Vec<Vec<u32>>,
    /// What stands in each layer, from the top.
    pub(super) layers: Vec<Vec<Token>>,
    /// The items an edge passes, from the left to the right; both ends in one layer for a flat edge.
    pub(super) paths: Vec<Vec<u32>>,
    /// The bends of each trunk, from its target outwards.
    pub(super) trunks: Vec<Vec<u32>>,
    /// First and last layer of each group.
    pub(super) spans: Vec<(usize, usize)>,
    pub(super) centres: Vec<Option<f64>>,
    /// About where each item should stand, when an earlier drawing says so.
    pub(super) rows_hint: Option<Vec<f64>>,
}

pub(super) struct Item {
    pub(super) layer: usize,
    pub(super) group: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token {
    Item(u32),
    Open(u32),
    Close(u32),
}

/// Sweeps end when this many in a row did not help, or at the limit.
const SWEEPS_MAX: usize = 16;
const SWEEPS_WITHOUT_GAIN_MAX: usize = 4;
/// Passes of swapping neighbours; each is linear, and what the first few do not find is rarely there.
const SWAPS_MAX: usize = 6;

impl Ladder {
    pub(super) fn new(graph: &Graph, layers: &Layers) -> Self {
        let nodes = graph.nodes.len();
        let items =
            (0..nodes).map(|it| Item { layer: layers.of[it], group: graph.nodes[it].group }).collect();
        let mut ladder = Self {
            items,
            left: vec![Vec::new(); nodes],
            right: vec![Vec::new(); nodes],
            layers: vec![Vec::new(); layers.count],
            paths: vec![Vec::new(); graph.edges.len()],
            trunks: Vec::new(),
            spans: spans(graph, layers),
            centres: layers.centres.clone(),
            rows_hint: None,
        };
        ladder.thread_edges(graph);
        ladder
    }

    fn thread_edges(&mut self, graph: &Graph) {
        let span = |edge: usize| {
            let edge = graph.edges[edge];
            self.items[edge.from].layer.abs_diff(self.items[edge.to].layer)
        };
        let mut shortest_first: Vec<usize> = (0..graph.edges.len()).collect();
        shortest_first.sort_by_key(|&edge| span(edge));
        let spans: Vec<usize> = (0..graph.edges.len()).map(span).collect();

        let mut trunk_of = BTreeMap::new();
        for edge in shortest_first {
            let (from, to) = (graph.edges[edge].from, graph.edges[edge].to);
            let backward = self.items[from].layer > self.items[to].layer;
            let mut path = vec![to as u32];
            let fits = self.items.len() + spans[edge] <= BENDS_MAX + graph.nodes.len();
            if spans[edge] > 1 && fits {
                let group = common_group(graph, graph.nodes[from].group, graph.nodes[to].group);
                let trunk = *trunk_of.entry((to, group, backward)).or_insert(self.trunks.len());
                if trunk == self.trunks.len() {
                    self.trunks.push(Vec::new());
                }
                for distance in self.trunks[trunk].len()..spans[edge] - 1 {
                    let layer = self.items[to].layer;
                    let layer = if backward { layer + distance + 1 } else { layer - distance - 1 };
                    let bend = self.items.len() as u32;
                    self.items.push(Item { layer, group });
                    self.left.push(Vec::new());
                    self.right.push(Vec::new());
                    let nearer = self.trunks[trunk].last().copied().unwrap_or(to as u32);
                    self.link(bend, nearer);
                    self.trunks[trunk].push(bend);
                }
                path.extend(&self.trunks[trunk][..spans[edge] - 1]);
            }
            let near_end = *path.last().expect("a path begins with its target");
            if spans[edge] > 0 && (spans[edge] == 1 || fits) {
                self.link(from as u32, near_end);
            }
            path.push(from as u32);
            if !backward {
                path.reverse();
            }
            self.paths[edge] = path;
        }
    }

    fn link(&mut self, a: u32, b: u32) {
        let (left, right) =
            if self.items[a as usize].layer < self.items[b as usize].layer { (a, b) } else { (b, a) };
        self.right[left as usize].push(right);
        self.left[right as usize].push(left);
    }

    pub(super) fn arrange(&mut self, graph: &Graph) {
        let mut arranger = Arranger::new(graph, self);
        if graph.keeps_positions() {
            arranger.as_before(graph);
        } else {
            arranger.fewest_crossings(graph);
        }
        let Arranger { orders, rows_hint, .. } = arranger;
        self.layers = orders;
        self.rows_hint = rows_hint;
    }
}

/// The first and last layer in which each group has a node, its inner groups' included.
fn spans(graph: &Graph, layers: &Layers) -> Vec<(usize, usize)> {
    let mut spans = vec![None; graph.groups.len()];
    for (node, it) in graph.nodes.iter().enumerate() {
        let layer = layers.of[node];
        for group in graph.ancestors(it.group) {
            let (first, last) = spans[group].unwrap_or((layer, layer));
            spans[group] = Some((layer.min(first), layer.max(last)));
        }
    }
    // A group without nodes is drawn as an empty box at the left rather than forgotten; its parents reach there.
    for group in (0..graph.groups.len()).rev() {
        if spans[group].is_none() {
            spans[group] = Some((0, 0));
            for parent in graph.ancestors(graph.groups[group].parent) {
                let (_, last) = spans[parent].unwrap_or((0, 0));
                spans[parent] = Some((0, last));
            }
        }
    }
    spans.into_iter().map(Option::unwrap_or_default).collect()
}

/// The innermost group around both.
fn common_group(graph: &Graph, a: Option<usize>, b: Option<usize>) -> Option<usize> {
    let around: Vec<usize> = graph.ancestors(a).collect();
    graph.ancestors(b).find(|it| around.contains(it))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entity {
    Item(u32),
    Group(u32),
}

/// Works on `orders`; the rest says what may be moved where.
struct Arranger<'a> {
    ladder: &'a Ladder,
    orders: Vec<Vec<Token>>,
    /// For each layer, what belongs directly to the root (entry 0) and to each group present there.
    families: Vec<BTreeMap<usize, Vec<Entity>>>,
    /// Where each item and each group would like to stand, from 0 (top) to 1; in rows when positions are kept.
    item_wish: Vec<f64>,
    group_wish: Vec<f64>,
    /// Where each item stands: its index in its layer, and that divided by the layer's size.
    index: Vec<u32>,
    height: Vec<f64>,
    rows_hint: Option<Vec<f64>>,
}

impl<'a> Arranger<'a> {
    fn new(graph: &Graph, ladder: &'a Ladder) -> Self {
        let mut families = vec![BTreeMap::<usize, Vec<Entity>>::new(); ladder.layers.len()];
        let key = |group: Option<usize>| group.map_or(0, |it| it + 1);
        for (index, item) in ladder.items.iter().enumerate() {
            families[item.layer].entry(key(item.group)).or_default().push(Entity::Item(index as u32));
        }
        for (group, &(first, last)) in ladder.spans.iter().enumerate() {
            let parent = key(graph.groups[group].parent);
            for family in families.iter_mut().take(last + 1).skip(first) {
                family.entry(parent).or_default().push(Entity::Group(group as u32));
            }
        }
        Self {
            ladder,
            orders: ladder.layers.clone(),
            families,
            item_wish: vec![0.0; ladder.items.len()],
            group_wish: vec![0.0; graph.groups.len()],
            index: vec![0; ladder.items.len()],
            height: vec![0.0; ladder.items.len()],
            rows_hint: None,
        }
    }

    /// Writes a layer's order from the wishes.
    fn sort(&mut self, layer: usize) {
        let (items, groups) = (&self.item_wish, &self.group_wish);
        let wish = |entity: &Entity| match entity {
            Entity::Item(it) => items[*it as usize],
            Entity::Group(it) => groups[*it as usize],
        };
        let family = &mut self.families[layer];
        for members in family.values_mut() {
            // Stable: what ties stays as it stood.
            members.sort_by(|a, b| wish(a).total_cmp(&wish(b)));
        }
        let order = &mut self.orders[layer];
        order.clear();
        let mut open = vec![(0, 0)];
        while let Some((group, next)) = open.last_mut() {
            let entity = family.get(group).and_then(|members| members.get(*next)).copied();
            *next += 1;
            match entity {
                Some(Entity::Item(item)) => order.push(Token::Item(item)),
                Some(Entity::Group(inner)) => {
                    order.push(Token::Open(inner));
                    open.push((inner as usize + 1, 0));
                }
                None => {
                    if *group > 0 {
                        order.push(Token::Close(*group as u32 - 1));
                    }
                    open.pop();
                }
            }
        }
        self.number(layer);
    }

    fn number(&mut self, layer: usize) {
        let items = self.orders[layer].iter().filter_map(|token| match token {
            Token::Item(item) => Some(*item as usize),
            _ => None,
        });
        let count = items.clone().count() as f64;
        for (index, item) in items.enumerate() {
            self.index[item] = index as u32;
            self.height[item] = (index as f64 + 0.5) / count;
        }
    }

    fn mean_height(&self, neighbours: &[u32]) -> Option<f64> {
        let sum: f64 = neighbours.iter().map(|&it| self.height[it as usize]).sum();
        (!neighbours.is_empty()).then(|| sum / neighbours.len() as f64)
    }

    fn fewest_crossings(&mut self, graph: &Graph) {
        let layers = self.orders.len();
        self.start(graph);
        let mut best = self.orders.clone();
        let mut fewest = self.crossings();
        let mut without_gain = 0;
        for _ in 0..SWEEPS_MAX {
            if fewest == 0 || without_gain == SWEEPS_WITHOUT_GAIN_MAX {
                break;
            }
            self.wish_groups(graph);
            for layer in 1..layers {
                self.follow(layer, |ladder| &ladder.left);
            }
            for layer in (0..layers.saturating_sub(1)).rev() {
                self.follow(layer, |ladder| &ladder.right);
            }
            // The first layer moved last, and the groups may have: one more pass makes all layers agree.
            (0..layers).for_each(|layer| self.sort(layer));
            let crossings = self.crossings();
            without_gain += 1;
            if crossings < fewest {
                fewest = crossings;
                best.clone_from(&self.orders);
                without_gain = 0;
            }
        }
        self.orders = best;
        (0..layers).for_each(|layer| self.number(layer));
        self.swap_neighbours();
    }

    /// A first order worth improving: as a reader would walk through the calls.
    fn start(&mut self, graph: &Graph) {
        let mut rank = vec![usize::MAX; graph.nodes.len()];
        let mut next = 0;
        let mut calls = vec![Vec::new(); graph.nodes.len()];
        for edge in &graph.edges {
            if self.ladder.items[edge.from].layer < self.ladder.items[edge.to].layer {
                calls[edge.from].push(edge.to);
            }
        }
        let mut by_layer: Vec<usize> = (0..graph.nodes.len()).collect();
        by_layer.sort_by_key(|&it| self.ladder.items[it].layer);
        for start in by_layer {
            let mut walk = vec![start];
            while let Some(node) = walk.pop() {
                if rank[node] == usize::MAX {
                    rank[node] = next;
                    next += 1;
                    walk.extend(calls[node].iter().rev().filter(|&&it| rank[it] == usize::MAX));
                }
            }
        }
        for (node, rank) in rank.iter().enumerate() {
            self.item_wish[node] = *rank as f64;
        }
        for path in &self.ladder.paths {
            for &item in path {
                if item as usize >= graph.nodes.len() {
                    // The last path to pass decides; any end of it is a fair first guess.
                    self.item_wish[item as usize] = rank[path[0] as usize] as f64;
                }
            }
        }
        let mut sums = vec![(0.0, 0.0); graph.groups.len()];
        for (node, it) in graph.nodes.iter().enumerate() {
            for group in graph.ancestors(it.group) {
                sums[group].0 += self.item_wish[node];
                sums[group].1 += 1.0;
            }
        }
        self.group_wish =
            sums.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }).collect();
        self.keep_groups_in_order(graph);
        (0..self.orders.len()).for_each(|layer| self.sort(layer));
    }

    /// Groups stand in one order in all layers, so they ask all their nodes' neighbours at once.
    fn wish_groups(&mut self, graph: &Graph) {
        if graph.groups.is_empty() {
            return;
        }
        let mut sums = vec![(0.0, 0.0); graph.groups.len()];
        for (node, it) in graph.nodes.iter().enumerate() {
            let left = self.mean_height(&self.ladder.left[node]);
            let right = self.mean_height(&self.ladder.right[node]);
            let wish = match (left, right) {
                (Some(left), Some(right)) => (left + right) / 2.0,
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => self.height[node],
            };
            for group in graph.ancestors(it.group) {
                sums[group].0 += wish;
                sums[group].1 += 1.0;
            }
        }
        for (wish, (sum, count)) in self.group_wish.iter_mut().zip(sums) {
            if count > 0.0 {
                *wish = sum / count;
            }
        }
        self.keep_groups_in_order(graph);
    }

    /// Groups that must keep their order take, in that order, the places that they wish for together.
    fn keep_groups_in_order(&mut self, graph: &Graph) {
        let mut siblings: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
        for (group, it) in graph.groups.iter().enumerate().filter(|(_, it)| it.in_order) {
            siblings.entry(it.parent).or_default().push(group);
        }
        for siblings in siblings.into_values() {
            let mut wishes: Vec<f64> = siblings.iter().map(|&it| self.group_wish[it]).collect();
            wishes.sort_by(f64::total_cmp);
            for (group, wish) in siblings.into_iter().zip(wishes) {
                self.group_wish[group] = wish;
            }
        }
    }

    fn follow(&mut self, layer: usize, side: impl Fn(&Ladder) -> &Vec<Vec<u32>>) {
        for at in 0..self.orders[layer].len() {
            if let Token::Item(item) = self.orders[layer][at] {
                let item = item as usize;
                let neighbours = &side(self.ladder)[item];
                self.item_wish[item] = self.mean_height(neighbours).unwrap_or(self.height[item]);
            }
        }
        self.sort(layer);
    }

    fn crossings(&self) -> u64 {
        let mut ends = Vec::new();
        let mut total = 0;
        for order in &self.orders {
            ends.clear();
            for token in order {
                if let Token::Item(item) = token {
                    let from = ends.len();
                    ends.extend(self.ladder.right[*item as usize].iter().map(|&it| self.index[it as usize]));
                    ends[from..].sort_unstable();
                }
            }
            total += inversions(&ends);
        }
        total
    }

    /// Swaps what stands directly above each other wherever that saves a crossing.
    fn swap_neighbours(&mut self) {
        let mut ends = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..SWAPS_MAX {
            let mut gained = false;
            for layer in 0..self.orders.len() {
                for at in 1..self.orders[layer].len() {
                    let (Token::Item(upper), Token::Item(lower)) =
                        (self.orders[layer][at - 1], self.orders[layer][at])
                    else {
                        continue; // A group's border: what stands on its two sides does not mix.
                    };
                    let sides = [&self.ladder.left, &self.ladder.right];
                    for (slot, ends) in ends.iter_mut().enumerate() {
                        let item = if slot < 2 { upper } else { lower };
                        ends.clear();
                        ends.extend(sides[slot % 2][item as usize].iter().map(|&it| self.index[it as usize]));
                        ends.sort_unstable();
                    }
                    let [upper_left, upper_right, lower_left, lower_right] = &ends;
                    let now = crossed(upper_left, lower_left) + crossed(upper_right, lower_right);
                    let swapped = crossed(lower_left, upper_left) + crossed(lower_right, upper_right);
                    if swapped < now {
                        self.orders[layer].swap(at - 1, at);
                        self.index.swap(upper as usize, lower as usize);
                        gained = true;
                    }
                }
            }
            if !gained {
                break;
            }
        }
    }

    /// Keeps an earlier drawing's order: held nodes by their rows, everything else between its neighbours.
    fn as_before(&mut self, graph: &Graph) {
        let mut known: Vec<Option<f64>> = (0..self.ladder.items.len())
            .map(|it| if it < graph.nodes.len() { graph.near(it) } else { None })
            .map(|point| point.map(|it| it.y))
            .collect();
        let held = known.clone();
        // News travels one neighbour a round; after a few rounds, what still knows nothing is not connected.
        for _ in 0..12 {
            let earlier = known.clone();
            for item in 0..known.len() {
                if held[item].is_none() {
                    let around = self.ladder.left[item].iter().chain(&self.ladder.right[item]);
                    let rows: Vec<f64> = around.filter_map(|&it| earlier[it as usize]).collect();
                    if !rows.is_empty() {
                        known[item] = Some(rows.iter().sum::<f64>() / rows.len() as f64);
                    }
                }
            }
        }
        let lowest = held.iter().flatten().copied().fold(0.0, f64::max);
        self.item_wish = known.into_iter().map(|it| it.unwrap_or(lowest + 1.0)).collect();
        self.find_room(graph);
        self.rows_hint = Some(self.item_wish.clone());
        // A group stands where its old members stood; one without any, where its new members would like to.
        let mut old = vec![(0.0, 0.0); graph.groups.len()];
        let mut all = old.clone();
        for (node, it) in graph.nodes.iter().enumerate() {
            for group in graph.ancestors(it.group) {
                for sums in [Some(&mut all), held[node].is_some().then_some(&mut old)].into_iter().flatten() {
                    sums[group].0 += self.item_wish[node];
                    sums[group].1 += 1.0;
                }
            }
        }
        let mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
        self.group_wish = old
            .into_iter()
            .zip(all)
            .map(|(old, all)| mean(old).or(mean(all)).unwrap_or(lowest + 1.0))
            .collect();
        (0..self.orders.len()).for_each(|layer| self.sort(layer));
    }
}

impl Arranger<'_> {
    /// Gives each new node the free place in its column that is nearest to where it would like to be, so that the old
    /// ones need not make room; within its group's rows if there is one.
    fn find_room(&mut self, graph: &Graph) {
        let mut taken: Vec<Vec<(f64, f64)>> = vec![Vec::new(); self.orders.len()];
        let mut frames = vec![(f64::INFINITY, f64::NEG_INFINITY); graph.groups.len()];
        let half = |node: usize| graph.nodes[node].height / 2.0;
        for node in 0..graph.nodes.len() {
            if let Some(at) = graph.near(node) {
                let (top, bottom) = (at.y - half(node), at.y + half(node));
                taken[self.ladder.items[node].layer].push((top, bottom));
                for group in graph.ancestors(graph.nodes[node].group) {
                    frames[group] = (frames[group].0.min(top), frames[group].1.max(bottom));
                }
            }
        }
        taken.iter_mut().for_each(|boxes| boxes.sort_by(|a, b| a.0.total_cmp(&b.0)));
        for node in (0..graph.nodes.len()).filter(|&it| graph.near(it).is_none()) {
            let boxes = &mut taken[self.ladder.items[node].layer];
            let frame = graph.nodes[node].group.map(|group| frames[group]).filter(|it| it.0 <= it.1);
            let (top, bottom) = frame.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
            // Free stretches in which the node's centre may be.
            let room = half(node) + BOX_GAP;
            let starts = std::iter::once(top + half(node)).chain(boxes.iter().map(|it| it.1 + room));
            let ends = boxes.iter().map(|it| it.0 - room).chain(std::iter::once(bottom - half(node)));
            let wish = self.item_wish[node];
            let nearest = starts
                .zip(ends)
                .map(|(start, end)| (start.max(top + half(node)), end.min(bottom - half(node))))
                .filter(|(start, end)| start <= end)
                .map(|(start, end)| wish.clamp(start, end))
                .min_by(|a, b| (a - wish).abs().total_cmp(&(b - wish).abs()));
            // A group without room grows at its lower end.
            let row = nearest.unwrap_or(bottom + room);
            self.item_wish[node] = row;
            let at = boxes.partition_point(|it| it.0 < row - half(node));
            boxes.insert(at, (row - half(node), row + half(node)));
        }
    }
}

/// Pairs (i, j), i before j, with a greater value at i: a merge sort that counts.
fn inversions(values: &[u32]) -> u64 {
    let Some(max) = values.iter().max() else { return 0 };
    let mut tree = vec![0u32; *max as usize + 2];
    let mut total = 0;
    for (before, &value) in values.iter().enumerate() {
        let mut not_greater = 0;
        let mut at = value as usize + 1;
        while at > 0 {
            not_greater += u64::from(tree[at]);
            at &= at - 1;
        }
        total += before as u64 - not_greater;
        let mut at = value as usize + 1;
        while at < tree.len() {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    total
}

/// Crossings between the arrows of two items when the first stands above the second; both lists sorted.
fn crossed(upper: &[u32], lower: &[u32]) -> u64 {
    let (mut total, mut below) = (0, 0);
    for &end in upper {
        while below < lower.len() && lower[below] < end {
            below += 1;
        }
        total += below as u64;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn inversions_are_those_of_the_plain_count(values in prop::collection::vec(0u32..50, 0..60)) {
            let mut plain = 0;
            for (at, a) in values.iter().enumerate() {
                plain += values[at + 1..].iter().filter(|b| a > b).count() as u64;
            }
            prop_assert_eq!(inversions(&values), plain);
        }

        #[test]
        fn crossed_is_the_plain_count(
            mut upper in prop::collection::vec(0u32..20, 0..20),
            mut lower in prop::collection::vec(0u32..20, 0..20),
        ) {
            upper.sort_unstable();
            lower.sort_unstable();
            let plain = upper.iter().map(|a| lower.iter().filter(|b| *b < a).count() as u64).sum::<u64>();
            prop_assert_eq!(crossed(&upper, &lower), plain);
        }
    }
}
