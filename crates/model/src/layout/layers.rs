//! Which layer (column) each node stands in: callers left of what they call.

use super::{Graph, Hold};

pub(super) struct Layers {
    pub(super) of: Vec<usize>,
    pub(super) count: usize,
    /// Where the layers stood in the earlier drawing, when that one is kept; new layers have none.
    pub(super) centres: Vec<Option<f64>>,
}

pub(super) fn assign(graph: &Graph) -> Layers {
    let classes = Classes::new(graph);
    if graph.keeps_positions() { from_positions(graph, &classes) } else { from_calls(graph, &classes) }
}

/// Nodes that must share a layer, and the calls between such sets with cycles broken: an acyclic graph.
struct Classes {
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
    calls: Vec<Vec<usize>>,
    callers: Vec<Vec<usize>>,
    /// Callers before callees.
    order: Vec<usize>,
}

impl Classes {
    fn new(graph: &Graph) -> Self {
        let mut of = vec![0; graph.nodes.len()];
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut class_of_alike = std::collections::BTreeMap::new();
        for (node, it) in graph.nodes.iter().enumerate() {
            let class = match it.alike {
                Some(alike) => *class_of_alike.entry(alike).or_insert(members.len()),
                None => members.len(),
            };
            if class == members.len() {
                members.push(Vec::new());
            }
            members[class].push(node);
            of[node] = class;
        }

        let mut calls = vec![Vec::new(); members.len()];
        for edge in &graph.edges {
            if of[edge.from] != of[edge.to] {
                calls[of[edge.from]].push(of[edge.to]);
            }
        }
        for list in &mut calls {
            // Keeps the first of each, in the order they were written.
            let mut seen = std::collections::BTreeSet::new();
            list.retain(|it| seen.insert(*it));
        }
        let order = break_cycles(&mut calls);
        let mut callers = vec![Vec::new(); members.len()];
        for (from, list) in calls.iter().enumerate() {
            for &to in list {
                callers[to].push(from);
            }
        }
        Self { of, members, calls, callers, order }
    }
}

/// Turns around the calls that close a cycle and returns an order in which callers precede callees.
///
/// Only inside a strongly connected part can anything be turned, so a system without cycles never has a backward
/// arrow. There the greedy order of Eades, Lin and Smyth decides, which turns few; a depth-first search would be
/// simpler, but its deep walks make long chains of what a person would draw side by side.
fn break_cycles(calls: &mut [Vec<usize>]) -> Vec<usize> {
    let (component, count) = strong_components(calls);
    let mut members = vec![Vec::new(); count];
    for (node, &component) in component.iter().enumerate() {
        members[component].push(node);
    }
    let depth = depths(calls);
    let mut place = vec![0; calls.len()];
    for members in members.iter().filter(|it| it.len() > 1) {
        for (at, node) in fewest_backward(calls, &component, members, &depth).into_iter().enumerate() {
            place[node] = at;
        }
    }
    let mut turned = Vec::new();
    for from in 0..calls.len() {
        calls[from].retain(|&to| {
            let backward = component[from] == component[to] && place[to] < place[from];
            if backward {
                turned.push((from, to));
            }
            !backward
        });
    }
    for (from, to) in turned {
        calls[to].push(from);
    }
    // Components come callees first, so this is a topological order.
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&it| (std::cmp::Reverse(component[it]), place[it]));
    order
}

/// The component of each node, numbered so that callees' components come before their callers' (Tarjan).
pub(crate) fn strong_components(calls: &[Vec<usize>]) -> (Vec<usize>, usize) {
    const NONE: usize = usize::MAX;
    let mut component = vec![NONE; calls.len()];
    let mut number = vec![NONE; calls.len()];
    let mut lowest = vec![NONE; calls.len()];
    let mut stack = Vec::new();
    let (mut numbered, mut components) = (0, 0);
    for start in 0..calls.len() {
        if number[start] != NONE {
            continue;
        }
        let mut path = vec![(start, 0)]; // Not recursion: a chain may be longer than the stack is deep.
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if *next == 0 {
                (number[node], lowest[node]) = (numbered, numbered);
                numbered += 1;
                stack.push(node);
            }
            if let Some(&to) = calls[node].get(*next) {
                *next += 1;
                if number[to] == NONE {
                    path.push((to, 0));
                } else if component[to] == NONE {
                    lowest[node] = lowest[node].min(number[to]);
                }
                continue;
            }
            if lowest[node] == number[node] {
                while let Some(it) = stack.pop() {
                    component[it] = components;
                    if it == node {
                        break;
                    }
                }
                components += 1;
            }
            path.pop();
            if let Some((caller, _)) = path.last() {
                lowest[*caller] = lowest[*caller].min(lowest[node]);
            }
        }
    }
    (component, components)
}

/// How many calls each node is away from where requests enter.
fn depths(calls: &[Vec<usize>]) -> Vec<usize> {
    let mut called = vec![false; calls.len()];
    calls.iter().flatten().for_each(|&to| called[to] = true);
    let mut depth = vec![usize::MAX; calls.len()];
    let entries = (0..calls.len()).filter(|&it| !called[it]);
    for start in entries.chain(0..calls.len()) {
        if depth[start] != usize::MAX {
            continue;
        }
        depth[start] = 0;
        let mut queue = std::collections::VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for &to in &calls[node] {
                if depth[to] > depth[node] + 1 {
                    depth[to] = depth[node] + 1;
                    queue.push_back(to);
                }
            }
        }
    }
    depth
}

/// An order of a component's nodes against which few of its calls run: whoever only calls goes first, whoever is only
/// called goes last, and when neither is left, whoever calls most for being called; of equals the one nearest to
/// where requests enter.
fn fewest_backward(
    calls: &[Vec<usize>],
    component: &[usize],
    members: &[usize],
    depth: &[usize],
) -> Vec<usize> {
    let inside =
        |from: usize| calls[from].iter().copied().filter(move |&to| component[to] == component[from]);
    let mut callers = std::collections::BTreeMap::<usize, Vec<usize>>::new();
    for &from in members {
        for to in inside(from) {
            callers.entry(to).or_default().push(from);
        }
    }
    let mut degree: std::collections::BTreeMap<usize, (i64, i64)> = members
        .iter()
        .map(|&it| (it, (inside(it).count() as i64, callers.get(&it).map_or(0, |it| it.len()) as i64)))
        .collect();
    // What comes first in this order is taken first.
    let key = |node: usize, (out, into): (i64, i64)| {
        let rank = if into == 0 {
            0
        } else if out == 0 {
            1
        } else {
            2
        };
        (rank, into - out, depth[node], node)
    };
    let mut waiting: std::collections::BTreeSet<_> =
        degree.iter().map(|(&node, &it)| key(node, it)).collect();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    while let Some((rank, _, _, node)) = waiting.pop_first() {
        if rank == 1 {
            last.push(node)
        } else {
            first.push(node)
        }
        degree.remove(&node);
        for to in inside(node) {
            if let Some(it) = degree.get_mut(&to) {
                waiting.remove(&key(to, *it));
                it.1 -= 1;
                waiting.insert(key(to, *it));
            }
        }
        for &from in callers.get(&node).map_or(&[][..], |it| it) {
            if let Some(it) = degree.get_mut(&from) {
                waiting.remove(&key(from, *it));
                it.0 -= 1;
                waiting.insert(key(from, *it));
            }
        }
    }
    first.extend(last.into_iter().rev());
    first
}

fn from_calls(graph: &Graph, classes: &Classes) -> Layers {
    let mut layer = fill_columns(classes);
    pull_callers(classes, &mut layer);
    spread_the_lonely(graph, classes, &mut layer);

    // No empty columns.
    let mut used = vec![false; layer.iter().max().map_or(0, |max| max + 1)];
    layer.iter().for_each(|&it| used[it] = true);
    let rank: Vec<usize> = used
        .iter()
        .scan(0, |next, &used| {
            let rank = *next;
            *next += usize::from(used);
            Some(rank)
        })
        .collect();
    let count = used.iter().filter(|used| **used).count();
    let of = classes.of.iter().map(|&class| rank[layer[class]]).collect();
    Layers { of, count, centres: vec![None; count] }
}

/// A column far taller than the drawing is wide cannot be read: this many nodes fill it.
fn column_size(nodes: usize) -> usize {
    ((nodes as f64).sqrt() * 2.2).max(24.0) as usize
}

/// As far left as the calls allow and the columns have room; whoever stands at the head of the longest chain of calls
/// goes first, so that a full column delays what matters least.
fn fill_columns(classes: &Classes) -> Vec<usize> {
    let Classes { calls, callers, order, members, .. } = classes;
    let mut chain = vec![0usize; members.len()];
    for &class in order.iter().rev() {
        chain[class] = calls[class].iter().map(|&to| chain[to] + 1).max().unwrap_or(0);
    }
    let size = column_size(members.iter().map(Vec::len).sum());
    let mut waits_for: Vec<usize> = callers.iter().map(Vec::len).collect();
    let mut ready: std::collections::BTreeSet<_> = (0..members.len())
        .filter(|&it| waits_for[it] == 0 && !calls[it].is_empty())
        .map(|it| (std::cmp::Reverse(chain[it]), it))
        .collect();
    let mut layer = vec![0; members.len()];
    for column in 0.. {
        let mut taken = Vec::new();
        let mut used = 0;
        while let Some(&next) = ready.first() {
            let more = members[next.1].len();
            if used > 0 && used + more > size {
                break;
            }
            ready.pop_first();
            used += more;
            taken.push(next.1);
        }
        if taken.is_empty() {
            break;
        }
        for class in taken {
            layer[class] = column;
            for &to in &calls[class] {
                waits_for[to] -= 1;
                if waits_for[to] == 0 {
                    ready.insert((std::cmp::Reverse(chain[to]), to));
                }
            }
        }
    }
    layer
}

/// Whoever has more arrows going out than coming in shortens more than it lengthens by moving right.
fn pull_callers(classes: &Classes, layer: &mut [usize]) {
    let size = column_size(classes.members.iter().map(Vec::len).sum());
    let mut used = vec![0; layer.iter().max().map_or(0, |max| max + 1)];
    for (class, &it) in layer.iter().enumerate() {
        used[it] += classes.members[class].len();
    }
    for &class in classes.order.iter().rev() {
        let nearest = classes.calls[class].iter().map(|&to| layer[to] - 1).min();
        if let Some(nearest) = nearest
            && classes.calls[class].len() > classes.callers[class].len()
            && used[nearest] + classes.members[class].len() <= size
        {
            used[layer[class]] -= classes.members[class].len();
            used[nearest] += classes.members[class].len();
            layer[class] = nearest;
        }
    }
}

/// Those nobody calls and who call nobody would pile up in the first column; they fill a block instead, beside the
/// layers their group uses already.
fn spread_the_lonely(graph: &Graph, classes: &Classes, layer: &mut [usize]) {
    let is_lonely = |class: usize| classes.calls[class].is_empty() && classes.callers[class].is_empty();
    let groups = graph.groups.len() + 1;
    let group_of = |class: usize| graph.nodes[classes.members[class][0]].group.map_or(0, |it| it + 1);
    let mut lonely = vec![Vec::new(); groups];
    let mut first = vec![usize::MAX; groups];
    let mut last = vec![0; groups];
    for (class, &layer) in layer.iter().enumerate() {
        let group = group_of(class);
        if is_lonely(class) {
            lonely[group].push(class);
        } else {
            first[group] = first[group].min(layer);
            last[group] = last[group].max(layer);
        }
    }
    for group in 0..groups {
        // Boxes are about 2.5 times as wide, gaps included, as they are high: this makes the block about 16 to 10.
        let square = (lonely[group].len() as f64 * 0.5).sqrt().ceil() as usize;
        let (start, span) = match first[group] {
            usize::MAX => (0, square),
            first => (first, (last[group] + 1 - first).max(square)),
        };
        for (index, &class) in lonely[group].iter().enumerate() {
            layer[class] = start + index % span.max(1);
        }
    }
}

/// Keeps the columns of an earlier drawing: nodes that stood above each other do so again, and a new one stands
/// right of its callers, or else left of what it calls.
fn from_positions(graph: &Graph, classes: &Classes) -> Layers {
    /// Centres closer than this belong to one column: far less than the width of any box with its gap.
    const SAME_COLUMN: f64 = 30.0;
    let columns_of = |wanted: fn(&Hold) -> Option<f64>| {
        let mut held: Vec<f64> = graph.nodes.iter().filter_map(|it| wanted(&it.hold)).collect();
        held.sort_by(f64::total_cmp);
        let mut centres: Vec<f64> = Vec::new();
        for x in held {
            if centres.last().is_none_or(|last| last + SAME_COLUMN < x) {
                centres.push(x);
            }
        }
        centres
    };
    // What a person moved aside makes no column of its own.
    let mut centres = columns_of(|hold| match hold {
        Hold::Near(point) if point.x.is_finite() => Some(point.x),
        _ => None,
    });
    if centres.is_empty() {
        centres = columns_of(|hold| match hold {
            Hold::Pinned(point) if point.x.is_finite() => Some(point.x),
            _ => None,
        });
    }
    let column = |x: f64| {
        let right = centres.partition_point(|&centre| centre <= x);
        match (right.checked_sub(1), centres.get(right)) {
            (Some(left), Some(&next)) if next - x < x - centres[left] => left as isize + 1,
            (Some(left), _) => left as isize,
            (None, _) => 0,
        }
    };

    let mut layer: Vec<Option<isize>> = vec![None; classes.members.len()];
    for (class, members) in classes.members.iter().enumerate() {
        layer[class] = members.iter().find_map(|&it| graph.near(it)).map(|point| column(point.x));
    }
    for &class in &classes.order {
        if layer[class].is_none() {
            layer[class] = classes.callers[class].iter().filter_map(|&it| layer[it]).max().map(|it| it + 1);
        }
    }
    for &class in classes.order.iter().rev() {
        if layer[class].is_none() {
            layer[class] = classes.calls[class].iter().filter_map(|&it| layer[it]).min().map(|it| it - 1);
        }
    }
    let layer: Vec<isize> = layer.into_iter().map(Option::unwrap_or_default).collect();
    let first = layer.iter().copied().min().unwrap_or(0).min(0);
    let last = layer.iter().copied().max().unwrap_or(0);
    let of = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(node, _)| {
            // Each held node keeps its own column, even if it once stood apart from others of its kind.
            let own = graph.near(node).map(|point| column(point.x));
            (own.unwrap_or(layer[classes.of[node]]) - first) as usize
        })
        .collect();
    let centres = (first..=last.max(centres.len() as isize - 1))
        .map(|it| usize::try_from(it).ok().and_then(|it| centres.get(it)).copied())
        .collect::<Vec<_>>();
    Layers { of, count: centres.len(), centres }
}
