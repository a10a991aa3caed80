//! Move things as little as possible so that every "this stays above that" rule holds.
//!
//! Minimises Σ weight·(position − wish)² under rules `position[above] + gap ≤ position[below]`, whose graph has no
//! cycle. This is the satisfying half of the VPSC method (Dwyer, Marriott, Stuckey): variables are taken in an
//! order that respects the rules; one that lands too high is glued to what it hits, and the glued block moves to
//! the mean of its wishes, hitting further blocks. For a plain chain of rules the answer is exactly the least
//! squares one; for richer rules it always satisfies them and is close.

use std::collections::BinaryHeap;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) above: u32,
    pub(super) below: u32,
    pub(super) gap: f64,
}

/// How far a rule may be missed before it counts: far below a pixel, far above rounding.
const SLACK: f64 = 1e-7;

/// A set of rules, prepared once and solved many times.
pub(super) struct Separation {
    rules: Vec<Rule>,
    /// For each variable, the rules in which it is the one below: `into[starts[v]..starts[v + 1]]`.
    into: Vec<u32>,
    starts: Vec<u32>,
    /// Variables, everything above before everything below.
    order: Vec<u32>,
}

impl Separation {
    /// # Panics
    /// If the rules contradict each other in a circle: the caller derives them from one consistent order.
    pub(super) fn new(variables: usize, rules: Vec<Rule>) -> Self {
        let mut starts = vec![0u32; variables + 1];
        for rule in &rules {
            starts[rule.below as usize + 1] += 1;
        }
        for at in 0..variables {
            starts[at + 1] += starts[at];
        }
        let mut into = vec![0u32; rules.len()];
        let mut next = starts.clone();
        for (index, rule) in rules.iter().enumerate() {
            let slot = &mut next[rule.below as usize];
            into[*slot as usize] = index as u32;
            *slot += 1;
        }

        let mut below = vec![Vec::new(); variables];
        let mut waiting = vec![0u32; variables];
        for rule in &rules {
            below[rule.above as usize].push(rule.below);
            waiting[rule.below as usize] += 1;
        }
        let mut order: Vec<u32> = (0..variables as u32).filter(|&it| waiting[it as usize] == 0).collect();
        let mut done = 0;
        while done < order.len() {
            for &it in &below[order[done] as usize] {
                waiting[it as usize] -= 1;
                if waiting[it as usize] == 0 {
                    order.push(it);
                }
            }
            done += 1;
        }
        assert_eq!(order.len(), variables, "rows are ruled by one consistent order");
        Self { rules, into, starts, order }
    }

    pub(super) fn solve(&self, wish: &[f64], weight: &[f64]) -> Vec<f64> {
        let mut blocks = Blocks::new(self, wish, weight);
        for &variable in &self.order {
            blocks.settle(variable);
        }
        (0..wish.len()).map(|it| blocks.position(it as u32)).collect()
    }
}

/// A rule that may pull a block up against another, ordered by how low it forces the block to be.
struct Floor {
    key: f64,
    rule: u32,
}
impl PartialEq for Floor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Floor {}
impl PartialOrd for Floor {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Floor {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.total_cmp(&other.key).then(other.rule.cmp(&self.rule))
    }
}

struct Block {
    position: f64,
    /// Σ weight and Σ weight·(wish − offset): their quotient is where the block wants to be.
    weight: f64,
    moment: f64,
    members: Vec<u32>,
    floors: BinaryHeap<Floor>,
}

struct Blocks<'a> {
    system: &'a Separation,
    wish: &'a [f64],
    weight: &'a [f64],
    block_of: Vec<u32>,
    offset: Vec<f64>,
    blocks: Vec<Block>,
}

impl<'a> Blocks<'a> {
    fn new(system: &'a Separation, wish: &'a [f64], weight: &'a [f64]) -> Self {
        let blocks = (0..wish.len())
            .map(|it| Block {
                position: wish[it],
                weight: weight[it],
                moment: weight[it] * wish[it],
                members: vec![it as u32],
                floors: BinaryHeap::new(),
            })
            .collect();
        let block_of = (0..wish.len() as u32).collect();
        Self { system, wish, weight, block_of, offset: vec![0.0; wish.len()], blocks }
    }

    fn position(&self, variable: u32) -> f64 {
        self.blocks[self.block_of[variable as usize] as usize].position + self.offset[variable as usize]
    }

    /// How low the rule forces the block that holds its lower end to be.
    fn key(&self, rule: u32) -> f64 {
        let Rule { above, below, gap } = self.system.rules[rule as usize];
        self.position(above) + gap - self.offset[below as usize]
    }

    fn settle(&mut self, variable: u32) {
        let (from, to) = (
            self.system.starts[variable as usize] as usize,
            self.system.starts[variable as usize + 1] as usize,
        );
        let mut block = self.block_of[variable as usize] as usize;
        for slot in from..to {
            let rule = self.system.into[slot];
            let key = self.key(rule);
            self.blocks[block].floors.push(Floor { key, rule });
        }
        while let Some(rule) = self.worst_floor(block) {
            block = self.glue(rule);
        }
    }

    /// The rule most violated by the block's present position, taken off its heap. Blocks above only ever move up
    /// once settled, so a stale key can only be too low down: refreshing the top until it stays on top is enough.
    fn worst_floor(&mut self, block: usize) -> Option<u32> {
        loop {
            let top = self.blocks[block].floors.pop()?;
            let above = self.system.rules[top.rule as usize].above;
            if self.block_of[above as usize] as usize == block {
                continue; // Glued together already: held by construction.
            }
            let key = self.key(top.rule);
            if key < top.key - SLACK {
                self.blocks[block].floors.push(Floor { key, rule: top.rule });
            } else if key <= self.blocks[block].position + SLACK {
                self.blocks[block].floors.push(top);
                return None;
            } else {
                return Some(top.rule);
            }
        }
    }

    /// Joins the two blocks of a rule at exactly its gap. The smaller one is renumbered, so a variable changes block
    /// at most log n times.
    fn glue(&mut self, rule: u32) -> usize {
        let Rule { above, below, gap } = self.system.rules[rule as usize];
        let upper = self.block_of[above as usize] as usize;
        let lower = self.block_of[below as usize] as usize;
        // In the upper block's frame the lower block starts here.
        let distance = self.offset[above as usize] + gap - self.offset[below as usize];
        let (keep, drop, shift) = if self.blocks[upper].members.len() >= self.blocks[lower].members.len() {
            (upper, lower, distance)
        } else {
            (lower, upper, -distance)
        };
        let members = std::mem::take(&mut self.blocks[drop].members);
        let floors = std::mem::take(&mut self.blocks[drop].floors);
        for &it in &members {
            let it = it as usize;
            self.block_of[it] = keep as u32;
            self.offset[it] += shift;
            let block = &mut self.blocks[keep];
            block.weight += self.weight[it];
            block.moment += self.weight[it] * (self.wish[it] - self.offset[it]);
        }
        self.blocks[keep].members.extend(members);
        self.blocks[keep].position = self.blocks[keep].moment / self.blocks[keep].weight;
        self.blocks[keep]
            .floors
            .extend(floors.into_iter().map(|it| Floor { key: it.key - shift, rule: it.rule }));
        keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(rules: &[(u32, u32, f64)], wish: &[f64], expected: &[f64]) {
        let rules = rules.iter().map(|&(above, below, gap)| Rule { above, below, gap }).collect();
        let found = Separation::new(wish.len(), rules).solve(wish, &vec![1.0; wish.len()]);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn what_has_room_stays() {
        check(&[(0, 1, 10.0)], &[0.0, 10.0], &[0.0, 10.0]);
    }

    #[test]
    fn what_overlaps_shares_the_move() {
        check(&[(0, 1, 10.0)], &[0.0, 0.0], &[-5.0, 5.0]);
        check(&[(0, 1, 10.0), (1, 2, 10.0)], &[0.0, 0.0, 0.0], &[-10.0, 0.0, 10.0]);
        check(&[(0, 1, 1.0), (0, 2, 1.0)], &[0.0, 0.0, 5.0], &[-0.5, 0.5, 5.0]);
    }

    proptest! {
        /// Any acyclic rules are satisfied, and for a chain the result is the exact least-squares one (pooling of
        /// adjacent violators, written out plainly).
        #[test]
        fn every_rule_holds(
            wish in prop::collection::vec(-100.0..100.0f64, 2..40),
            pairs in prop::collection::vec((0usize..40, 0usize..40, 0.0..30.0f64), 0..80),
        ) {
            let n = wish.len();
            let rules: Vec<Rule> = pairs
                .iter()
                .map(|&(a, b, gap)| (a % n, b % n, gap))
                .filter(|(a, b, _)| a != b)
                .map(|(a, b, gap)| Rule { above: a.min(b) as u32, below: a.max(b) as u32, gap })
                .collect();
            let found = Separation::new(n, rules.clone()).solve(&wish, &vec![1.0; n]);
            for rule in rules {
                prop_assert!(found[rule.above as usize] + rule.gap <= found[rule.below as usize] + 1e-5);
            }
        }

        #[test]
        fn a_chain_is_solved_exactly(wish in prop::collection::vec(-100.0..100.0f64, 1..40)) {
            let rules = (1..wish.len() as u32).map(|it| Rule { above: it - 1, below: it, gap: 7.0 }).collect();
            let found = Separation::new(wish.len(), rules).solve(&wish, &vec![1.0; wish.len()]);
            let mut pools: Vec<(f64, usize)> = Vec::new();
            for (index, wish) in wish.iter().enumerate() {
                pools.push((wish - 7.0 * index as f64, 1));
                while let [.., (left, l), (right, r)] = pools[..] {
                    if left / l as f64 <= right / r as f64 { break; }
                    pools.truncate(pools.len() - 2);
                    pools.push((left + right, l + r));
                }
            }
            let exact = pools.iter().flat_map(|&(sum, n)| vec![sum / n as f64; n]).enumerate();
            for (found, (index, exact)) in found.iter().zip(exact) {
                prop_assert!((found - (exact + 7.0 * index as f64)).abs() < 1e-5);
            }
        }
    }
}
