//! How high everything stands: as level with its neighbours as the order allows.

use super::order::{Ladder, Token};
use super::separate::{Rule, Separation};
use super::{BOX_GAP, Graph, Hold};

const BOX_TO_LINE: f64 = BOX_GAP / 2.0;
const LINE_GAP: f64 = 8.0;
/// When positions are kept, lines squeeze through what is there rather than push boxes apart.
const SQUEEZE: f64 = 0.2;
/// Inside a group's border; its label is written above the topmost thing in it.
pub(super) const PAD: f64 = 12.0;
pub(super) const LABEL: f64 = 26.0;
const GROUP_GAP: f64 = 16.0;

/// Rounds of pulling everything towards its neighbours. News travels a layer a round, and call graphs are shallow.
const ROUNDS: usize = 24;
/// Then rounds that level each item with the middle one of its neighbours, which straightens arrows.
const LEVELLING_ROUNDS: usize = 6;
/// How much taller than stacked columns a drawing may become for the sake of level lines.
const STRETCH_MAX: f64 = 1.4;
/// Bends of a trunk that lie this close become one level line.
const NEARLY_LEVEL: f64 = 14.0;
/// A node that was somewhere already outweighs any number of new arrows that would pull it elsewhere.
const HELD_WEIGHT: f64 = 1e5;

pub(super) struct Rows {
    /// The row of each item: a node's centre, a bend's line.
    pub(super) of: Vec<f64>,
    /// Where each group's upper border may be.
    pub(super) tops: Vec<f64>,
}

/// What moves as one: a node, the straight part of a trunk, a group's upper or lower border.
struct Variables {
    of_item: Vec<u32>,
    tops: u32,
    count: usize,
}

pub(super) fn assign(graph: &Graph, ladder: &Ladder) -> Rows {
    let mut kinked = kinks(graph, ladder);
    if let Some(hint) = &ladder.rows_hint {
        kink_around_what_stays(graph, ladder, hint, &mut kinked);
        let variables = Variables::new(graph, ladder, &kinked);
        return relax(graph, ladder, &variables, wishes_at(graph, &variables, hint), ROUNDS);
    }
    let variables = Variables::new(graph, ladder, &kinked);
    let stacked = stacked(graph, ladder, &variables);
    if extent(&settle_once(graph, ladder, &variables, &stacked)) <= extent(&stacked) * STRETCH_MAX {
        return relax(graph, ladder, &variables, stacked, ROUNDS);
    }
    // A crowd. Level lines hold each other up like planks across scaffolds, and the drawing would grow far beyond its
    // fullest column. So first find out how things lie with lines that bend freely, then straighten what is nearly so.
    let loose = Variables::new(graph, ladder, &vec![true; ladder.items.len()]);
    let lying = relax(graph, ladder, &loose, self::stacked(graph, ladder, &loose), ROUNDS).of;
    for trunk in &ladder.trunks {
        let mut level = f64::NAN;
        for (index, &bend) in trunk.iter().enumerate() {
            let row = lying[bend as usize];
            let starts =
                index == 0 || kinked[trunk[index - 1] as usize] || (row - level).abs() > NEARLY_LEVEL;
            if starts {
                level = row;
                if index > 0 {
                    kinked[trunk[index - 1] as usize] = true;
                }
            }
        }
    }
    let variables = Variables::new(graph, ladder, &kinked);
    relax(graph, ladder, &variables, wishes_at(graph, &variables, &lying), 0)
}

fn extent(rows: &[f64]) -> f64 {
    let lowest = rows.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let highest = rows.iter().copied().fold(f64::INFINITY, f64::min);
    (lowest - highest).max(0.0)
}

fn settle_once(graph: &Graph, ladder: &Ladder, variables: &Variables, wish: &[f64]) -> Vec<f64> {
    let rules = rules(graph, ladder, variables, &[Among::Neighbours]);
    Separation::new(variables.count, rules).solve(wish, &vec![1.0; variables.count])
}

/// Pulls everything towards its neighbours, within the rules, from a first guess.
fn relax(graph: &Graph, ladder: &Ladder, variables: &Variables, first: Vec<f64>, rounds: usize) -> Rows {
    let mut around: Vec<Vec<u32>> = vec![Vec::new(); variables.count];
    for (item, neighbours) in ladder.right.iter().enumerate() {
        let left = variables.of_item[item];
        for &neighbour in neighbours {
            let right = variables.of_item[neighbour as usize];
            if left != right {
                around[left as usize].push(right);
                around[right as usize].push(left);
            }
        }
    }
    let settled = ladder.rows_hint.is_some().then(|| keep(graph, ladder, variables, &first));
    let is_settled = |variable: usize| settled.is_some() && variable < graph.nodes.len();
    let weight: Vec<f64> = (0..variables.count)
        .map(|variable| match around[variable].len() {
            _ if is_settled(variable) => HELD_WEIGHT,
            0 => 0.05, // Borders and the lonely give way to everybody.
            arrows => arrows as f64,
        })
        .collect();

    let rules = rules(graph, ladder, variables, &[Among::Neighbours, Among::Solid]);
    let separation = Separation::new(variables.count, rules);
    let mut rows = separation.solve(&first, &weight);
    let mut wish = rows.clone();
    let mut sorted = Vec::new();
    for round in 0..rounds + LEVELLING_ROUNDS {
        for (variable, neighbours) in around.iter().enumerate() {
            wish[variable] = if let (true, Some(settled)) = (is_settled(variable), &settled) {
                settled[variable]
            } else if neighbours.is_empty() {
                rows[variable]
            } else if round < rounds {
                let mean =
                    neighbours.iter().map(|&it| rows[it as usize]).sum::<f64>() / neighbours.len() as f64;
                // Half way, or callers and callees would swap places for ever.
                (rows[variable] + mean) / 2.0
            } else {
                sorted.clear();
                sorted.extend(neighbours.iter().map(|&it| rows[it as usize]));
                sorted.sort_by(f64::total_cmp);
                let middle = sorted.len() / 2;
                let median = if sorted.len() % 2 == 1 {
                    sorted[middle]
                } else {
                    (sorted[middle - 1] + sorted[middle]) / 2.0
                };
                (rows[variable] + median) / 2.0
            };
        }
        hug(graph, variables, &rows, &mut wish);
        rows = separation.solve(&wish, &weight);
    }
    if let Some(settled) = settled {
        // In a crowd a line may then pass a little close to a box: better than boxes that jump.
        rows[..graph.nodes.len()].copy_from_slice(&settled[..graph.nodes.len()]);
    }
    Rows {
        of: variables.of_item.iter().map(|&it| rows[it as usize]).collect(),
        tops: (0..graph.groups.len()).map(|it| rows[variables.top(it) as usize]).collect(),
    }
}

/// Where the boxes of a kept drawing stand: where they were, but for what must make room for new ones. Lines have no
/// say in it.
fn keep(graph: &Graph, ladder: &Ladder, variables: &Variables, first: &[f64]) -> Vec<f64> {
    let weight: Vec<f64> = (0..variables.count)
        .map(|variable| match variable < graph.nodes.len() {
            true if graph.near(variable).is_some() => HELD_WEIGHT,
            true => 1.0,
            false => 0.05,
        })
        .collect();
    let separation = Separation::new(variables.count, rules(graph, ladder, variables, &[Among::Solid]));
    let mut wish = first.to_vec();
    let rows = separation.solve(&wish, &weight);
    // Once more with borders that know where their boxes came to stand.
    hug(graph, variables, &rows, &mut wish);
    separation.solve(&wish, &weight)
}

impl Variables {
    fn new(graph: &Graph, ladder: &Ladder, kinked: &[bool]) -> Self {
        let nodes = graph.nodes.len();
        let mut of_item: Vec<u32> = (0..ladder.items.len() as u32).collect();
        let mut next = nodes as u32;
        for trunk in &ladder.trunks {
            for (index, &bend) in trunk.iter().enumerate() {
                if index == 0 || kinked[trunk[index - 1] as usize] {
                    next += 1;
                }
                of_item[bend as usize] = next - 1;
            }
        }
        Self { of_item, tops: next, count: next as usize + 2 * graph.groups.len() }
    }

    fn top(&self, group: usize) -> u32 {
        self.tops + 2 * group as u32
    }

    fn bottom(&self, group: usize) -> u32 {
        self.top(group) + 1
    }

    fn of_token(&self, token: Token) -> u32 {
        match token {
            Token::Item(item) => self.of_item[item as usize],
            Token::Open(group) => self.top(group as usize),
            Token::Close(group) => self.bottom(group as usize),
        }
    }
}

/// The bends after which a trunk (walked from its target) must change its row. Two trunks that cross between two
/// layers cannot both be straight there, nor can one that passes a group above in one layer and below in the next.
/// As many as possible stay straight: a longest increasing subsequence.
///
/// What is left agrees pairwise, and things that span consecutive layers and agree pairwise agree as a whole (they
/// are intervals, whose overlaps have no circles without a shortcut), so the rules cannot contradict each other.
fn kinks(graph: &Graph, ladder: &Ladder) -> Vec<bool> {
    const GROUP: u32 = u32::MAX;
    struct Strand {
        parent: Option<usize>,
        left: u32,
        right: u32,
        nearer: u32,
    }
    let mut place = vec![0u32; ladder.items.len()];
    let mut opened_at = vec![0u32; graph.groups.len()];
    let mut strands: Vec<Vec<Strand>> = (0..ladder.layers.len()).map(|_| Vec::new()).collect();
    for (layer, order) in ladder.layers.iter().enumerate() {
        for (at, token) in order.iter().enumerate() {
            match *token {
                Token::Item(item) => place[item as usize] = at as u32,
                Token::Open(group) => {
                    let before = &mut opened_at[group as usize];
                    if ladder.spans[group as usize].0 < layer {
                        strands[layer - 1].push(Strand {
                            parent: graph.groups[group as usize].parent,
                            left: *before,
                            right: at as u32,
                            nearer: GROUP,
                        });
                    }
                    *before = at as u32;
                }
                Token::Close(_) => {}
            }
        }
    }
    for trunk in &ladder.trunks {
        for pair in trunk.windows(2) {
            let (nearer, farther) = (pair[0] as usize, pair[1] as usize);
            let (left, right) = if ladder.items[nearer].layer < ladder.items[farther].layer {
                (nearer, farther)
            } else {
                (farther, nearer)
            };
            strands[ladder.items[left].layer].push(Strand {
                parent: ladder.items[nearer].group,
                left: place[left],
                right: place[right],
                nearer: pair[0],
            });
        }
    }

    let mut kinked = vec![false; ladder.items.len()];
    for strands in &mut strands {
        strands.sort_by_key(|it| (it.parent, it.left));
        for family in strands.chunk_by(|a, b| a.parent == b.parent) {
            let groups: Vec<u32> = family.iter().filter(|it| it.nearer == GROUP).map(|it| it.right).collect();
            let mut groups_above = 0;
            // The lowest right end of an increasing run of each length, and each strand's predecessor in its run.
            let mut runs: Vec<usize> = Vec::new();
            let mut previous = vec![usize::MAX; family.len()];
            for (index, strand) in family.iter().enumerate() {
                if strand.nearer == GROUP {
                    groups_above += 1;
                    continue;
                }
                kinked[strand.nearer as usize] = true; // Until it is found in the longest run.
                if groups.partition_point(|&it| it < strand.right) == groups_above {
                    let length = runs.partition_point(|&it| family[it].right < strand.right);
                    previous[index] = if length == 0 { usize::MAX } else { runs[length - 1] };
                    if length == runs.len() {
                        runs.push(index);
                    } else {
                        runs[length] = index;
                    }
                }
            }
            let mut at = runs.last().copied();
            while let Some(index) = at {
                kinked[family[index].nearer as usize] = false;
                at = (previous[index] != usize::MAX).then(|| previous[index]);
            }
        }
    }
    kinked
}

/// How much of their usual room lines get. Where hundreds pass, the drawing would be mostly lines: they come closer,
/// down to a bundle in which one can still be followed.
fn line_share(graph: &Graph, ladder: &Ladder) -> f64 {
    const AT_EASE: usize = 24;
    const BUNDLED: f64 = 0.28;
    if ladder.rows_hint.is_some() {
        return SQUEEZE;
    }
    let mut lines = vec![0usize; ladder.layers.len()];
    ladder.items[graph.nodes.len()..].iter().for_each(|bend| lines[bend.layer] += 1);
    let most = lines.into_iter().max().unwrap_or(0).max(AT_EASE);
    (AT_EASE as f64 / most as f64).max(BUNDLED)
}

#[derive(Clone, Copy, PartialEq)]
enum Among {
    /// Whatever stands directly above each other.
    Neighbours,
    /// Boxes and borders, as if no lines passed between them: squeezed lines must not let them come too close.
    Solid,
}

fn rules(graph: &Graph, ladder: &Ladder, variables: &Variables, among: &[Among]) -> Vec<Rule> {
    let is_line = |token: &Token| matches!(token, Token::Item(it) if *it as usize >= graph.nodes.len());
    let line_share = line_share(graph, ladder);
    let gap = |upper: &Token, lower: &Token| {
        let half = |token: &Token| match token {
            Token::Item(it) if !is_line(token) => graph.nodes[*it as usize].height / 2.0,
            _ => 0.0,
        };
        let between = match (upper, lower) {
            (Token::Item(_), Token::Item(_)) => match (is_line(upper), is_line(lower)) {
                (false, false) => BOX_GAP,
                (true, true) => LINE_GAP,
                _ => BOX_TO_LINE,
            },
            (Token::Open(_), Token::Item(_) | Token::Open(_)) => LABEL,
            (Token::Open(_), Token::Close(_)) => LABEL + PAD,
            (Token::Close(_), Token::Open(_)) => GROUP_GAP,
            _ => PAD,
        };
        let share = if is_line(upper) || is_line(lower) { line_share } else { 1.0 };
        half(upper) + between * share + half(lower)
    };
    let mut rules = Vec::new();
    let mut column: Vec<&Token> = Vec::new();
    for order in &ladder.layers {
        for &among in among {
            column.clear();
            column.extend(order.iter().filter(|it| among == Among::Neighbours || !is_line(it)));
            rules.extend(column.windows(2).map(|pair| Rule {
                above: variables.of_token(*pair[0]),
                below: variables.of_token(*pair[1]),
                gap: gap(pair[0], pair[1]),
            }));
        }
    }
    // The same two may meet in many layers; the widest gap says it all.
    rules.sort_by(|a, b| (a.above, a.below).cmp(&(b.above, b.below)).then(b.gap.total_cmp(&a.gap)));
    rules.dedup_by_key(|it| (it.above, it.below));
    rules
}

/// Every layer stacked tightly and centred.
fn stacked(graph: &Graph, ladder: &Ladder, variables: &Variables) -> Vec<f64> {
    let mut wish = vec![0.0; variables.count];
    let share = line_share(graph, ladder);
    for order in &ladder.layers {
        let mut at = 0.0;
        for token in order {
            at += match *token {
                Token::Item(it) if (it as usize) < graph.nodes.len() => {
                    graph.nodes[it as usize].height + BOX_GAP
                }
                Token::Item(_) => LINE_GAP * share,
                Token::Open(_) => LABEL,
                Token::Close(_) => PAD,
            };
            wish[variables.of_token(*token) as usize] = at;
        }
        for token in order {
            wish[variables.of_token(*token) as usize] -= at / 2.0;
        }
    }
    wish
}

/// Everything where it already lies.
fn wishes_at(graph: &Graph, variables: &Variables, rows: &[f64]) -> Vec<f64> {
    let mut wish = vec![0.0; variables.count];
    for (item, row) in rows.iter().enumerate() {
        wish[variables.of_item[item] as usize] = *row;
    }
    hug(graph, variables, &wish.clone(), &mut wish);
    wish
}

/// Borders follow what they hold.
fn hug(graph: &Graph, variables: &Variables, rows: &[f64], wish: &mut [f64]) {
    for (group, reach) in reaches(graph, rows).into_iter().enumerate() {
        if let Some((top, bottom)) = reach {
            wish[variables.top(group) as usize] = top;
            wish[variables.bottom(group) as usize] = bottom;
        }
    }
}

/// From where to where each group reaches that holds anything, given its nodes' rows.
fn reaches(graph: &Graph, rows: &[f64]) -> Vec<Option<(f64, f64)>> {
    let mut reaches: Vec<Option<(f64, f64)>> = vec![None; graph.groups.len()];
    let grow = |reach: &mut Option<(f64, f64)>, top: f64, bottom: f64| {
        let (above, below) = reach.unwrap_or((top, bottom));
        *reach = Some((top.min(above), bottom.max(below)));
    };
    for (node, it) in graph.nodes.iter().enumerate() {
        if let Some(group) = it.group {
            grow(&mut reaches[group], rows[node] - it.height / 2.0, rows[node] + it.height / 2.0);
        }
    }
    // A parent comes before its children, so inner borders are known when the outer ones ask.
    for group in (0..graph.groups.len()).rev() {
        if let Some((top, bottom)) = reaches[group] {
            let (top, bottom) = (top - LABEL, bottom + PAD);
            reaches[group] = Some((top, bottom));
            if let Some(parent) = graph.groups[group].parent {
                grow(&mut reaches[parent], top, bottom);
            }
        }
    }
    reaches
}

/// Kinks a kept drawing needs besides: where boxes that stay leave a trunk no level way through. Without them a line
/// that is straight past two columns would push the boxes of one against those of the other.
fn kink_around_what_stays(graph: &Graph, ladder: &Ladder, hint: &[f64], kinked: &mut [bool]) {
    let reaches = reaches(graph, &hint[..graph.nodes.len()]);
    let mut free = vec![(f64::NEG_INFINITY, f64::INFINITY); ladder.items.len()];
    for order in &ladder.layers {
        let mut above = f64::NEG_INFINITY;
        let mut since = 0;
        for (at, token) in order.iter().enumerate() {
            let (top, bottom) = match *token {
                Token::Item(it) if (it as usize) < graph.nodes.len() => {
                    let (row, half) = (hint[it as usize], graph.nodes[it as usize].height / 2.0);
                    (row - half, row + half)
                }
                Token::Item(bend) => {
                    free[bend as usize].0 = above;
                    continue;
                }
                Token::Open(group) => reaches[group as usize].map_or((above, above), |(top, _)| (top, top)),
                Token::Close(group) => reaches[group as usize].map_or((above, above), |(_, end)| (end, end)),
            };
            for passed in &order[since..at] {
                if let Token::Item(bend) = *passed {
                    free[bend as usize].1 = top;
                }
            }
            (above, since) = (bottom, at + 1);
        }
    }
    for trunk in &ladder.trunks {
        let mut level = (f64::NEG_INFINITY, f64::INFINITY);
        for (index, &bend) in trunk.iter().enumerate() {
            let own = free[bend as usize];
            if index > 0 && kinked[trunk[index - 1] as usize] {
                level = own;
                continue;
            }
            level = (level.0.max(own.0), level.1.min(own.1));
            if level.0 + BOX_TO_LINE > level.1 && index > 0 {
                kinked[trunk[index - 1] as usize] = true;
                level = own;
            }
        }
    }
}

/// Where a person put it, if one did.
pub(super) fn pinned(graph: &Graph, node: usize) -> Option<super::Point> {
    match graph.nodes[node].hold {
        Hold::Pinned(point) if point.x.is_finite() && point.y.is_finite() => Some(point),
        _ => None,
    }
}
