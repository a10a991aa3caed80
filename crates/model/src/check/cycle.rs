//! Circles in a graph: one for each set of nodes that reach each other, and the shortest that goes through its first.

use std::collections::VecDeque;

/// `next[n]` lists where `n` leads. Without recursion: a chain may be as long as a file.
pub(super) fn cycles(next: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let component = components(next);
    let mut size = vec![0u32; next.len()];
    for of in &component {
        size[*of as usize] += 1;
    }
    let mut done = vec![false; next.len()];
    let mut found = Vec::new();
    for node in 0..next.len() {
        let of = component[node] as usize;
        let circular = size[of] > 1 || next[node].contains(&(node as u32));
        if circular && !std::mem::replace(&mut done[of], true) {
            found.push(shortest(next, &component, node as u32));
        }
    }
    found
}

/// Tarjan's strongly connected components; the number of each node's own.
fn components(next: &[Vec<u32>]) -> Vec<u32> {
    const NEW: u32 = u32::MAX;
    let mut order = vec![NEW; next.len()];
    let mut low = vec![0u32; next.len()];
    let mut component = vec![NEW; next.len()];
    let (mut count, mut components) = (0u32, 0u32);
    let mut waiting: Vec<u32> = Vec::new();
    for root in 0..next.len() as u32 {
        if order[root as usize] != NEW {
            continue;
        }
        // A node and which of its ways is taken next.
        let mut path: Vec<(u32, usize)> = vec![(root, 0)];
        while let Some((node, way)) = path.last_mut() {
            let n = *node as usize;
            if *way == 0 {
                (order[n], low[n]) = (count, count);
                count += 1;
                waiting.push(*node);
            }
            if let Some(to) = next[n].get(*way) {
                *way += 1;
                let t = *to as usize;
                if order[t] == NEW {
                    path.push((*to, 0));
                } else if component[t] == NEW {
                    low[n] = low[n].min(order[t]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                let p = *parent as usize;
                low[p] = low[p].min(low[n]);
            }
            if low[n] == order[n] {
                while let Some(member) = waiting.pop() {
                    component[member as usize] = components;
                    if member as usize == n {
                        break;
                    }
                }
                components += 1;
            }
        }
    }
    component
}

fn shortest(next: &[Vec<u32>], component: &[u32], start: u32) -> Vec<u32> {
    let of = component[start as usize];
    let mut came_from: std::collections::HashMap<u32, u32> = std::collections::HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for to in &next[node as usize] {
            if *to == start {
                let mut path = vec![node];
                while let Some(before) = path.last().and_then(|it| came_from.get(it)) {
                    path.push(*before);
                }
                path.reverse();
                return path;
            }
            if component[*to as usize] == of && !came_from.contains_key(to) {
                came_from.insert(*to, node);
                queue.push_back(*to);
            }
        }
    }
    vec![start]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `graph` is `0>1 1>2 ...`.
    #[track_caller]
    fn check(nodes: usize, graph: &str, expected: &[&[u32]]) {
        let mut next = vec![Vec::new(); nodes];
        for edge in graph.split_whitespace() {
            let (from, to) = edge.split_once('>').expect("an edge");
            next[from.parse::<usize>().expect("a node")].push(to.parse().expect("a node"));
        }
        assert_eq!(cycles(&next), expected, "{graph}");
    }

    #[test]
    fn each_circle_is_found_once_and_shortest() {
        check(3, "0>1 1>2", &[]);
        check(1, "0>0", &[&[0]]);
        check(3, "0>1 1>2 2>0", &[&[0, 1, 2]]);
        check(4, "0>1 1>2 2>3 3>0 1>0", &[&[0, 1]]);
        check(5, "0>1 1>0 2>3 3>4 4>2 1>2", &[&[0, 1], &[2, 3, 4]]);
        check(4, "0>1 0>2 1>3 2>3", &[]);
    }

    #[test]
    fn a_chain_of_a_million_needs_no_stack() {
        let next: Vec<Vec<u32>> = (0..1_000_000u32).map(|n| vec![(n + 1) % 1_000_000]).collect();
        assert_eq!(cycles(&next)[0].len(), 1_000_000);
    }
}
