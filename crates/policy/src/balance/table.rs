//! The tables a group of instances is drawn from, built when membership changes so that drawing is a look-up.

use crate::Endpoint;
use crate::math::scatter;
use crate::settings::BalanceKind;
use units::Rng;

/// Slots of a Maglev table: prime, and at least 100 times as many as instances so that shares stay within 1 %.
const MAGLEV_SLOTS: usize = 65_537;
/// Ring points of the heaviest instance. Its share then has a relative deviation of about 1/√256 = 6 %.
const RING_POINTS: u64 = 256;
/// Above these many slots weights are rounded: a table must not grow with how large somebody's numbers are.
const SLOTS_MAX: u64 = 65_536;

#[derive(Clone, Debug)]
pub(super) enum Table {
    /// Members in order: equal weights need nothing more.
    Even,
    /// Walker's alias method, one draw and one comparison: slot i is itself below its threshold, else its alias.
    Alias {
        slots: Box<[(u32, u32)]>,
    },
    /// One full cycle of weighted round robin.
    Cycle {
        order: Box<[u32]>,
    },
    /// Points on a circle of 2^64, each the start of somebody's arc, sorted.
    Ring {
        points: Box<[(u64, u32)]>,
    },
    Maglev {
        slots: Box<[u32]>,
    },
}

impl Table {
    /// `members` index `endpoints`; what the table gives back are positions in `members`.
    pub(super) fn build(kind: BalanceKind, endpoints: &[Endpoint], members: &[u32]) -> Self {
        let weights: Vec<u64> = members.iter().map(|it| u64::from(endpoints[*it as usize].weight)).collect();
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let keys = || members.iter().map(|it| endpoints[*it as usize].key).collect::<Vec<u64>>();
        match kind {
            _ if members.is_empty() => Self::Even,
            BalanceKind::RingHash => Self::Ring { points: ring(&keys(), &weights) },
            BalanceKind::Maglev => Self::Maglev { slots: maglev(&keys(), &weights) },
            _ if even => Self::Even,
            BalanceKind::RoundRobin => Self::Cycle { order: cycle(&weights) },
            BalanceKind::LeastRequest | BalanceKind::PeakEwma | BalanceKind::Random => {
                Self::Alias { slots: alias(&weights) }
            }
        }
    }

    /// One member in proportion to weight.
    pub(super) fn draw(&self, members: usize, rng: &mut Rng) -> usize {
        let slot = rng.below(members as u64) as usize;
        match self {
            Self::Alias { slots } => {
                let (threshold, alias) = slots[slot];
                if (rng.next_u64() >> 32) as u32 <= threshold { slot } else { alias as usize }
            }
            _ => slot,
        }
    }

    /// The member whose turn it is, of a sequence that is `length` long.
    pub(super) fn turn(&self, position: usize) -> usize {
        match self {
            Self::Cycle { order } => order[position] as usize,
            _ => position,
        }
    }

    pub(super) fn turns(&self, members: usize) -> usize {
        match self {
            Self::Cycle { order } => order.len(),
            _ => members,
        }
    }

    /// The slot of a hash, and how many slots there are. Walking on from it meets every member.
    pub(super) fn locate(&self, hash: u64) -> (usize, usize) {
        match self {
            Self::Ring { points } => {
                (points.partition_point(|(at, _)| *at < hash) % points.len(), points.len())
            }
            Self::Maglev { slots } => {
                // The high half of a product is the hash scaled to the table: no division.
                (((u128::from(hash) * slots.len() as u128) >> 64) as usize, slots.len())
            }
            _ => (0, 0),
        }
    }

    pub(super) fn at(&self, slot: usize) -> usize {
        match self {
            Self::Ring { points } => points[slot].1 as usize,
            Self::Maglev { slots } => slots[slot] as usize,
            _ => slot,
        }
    }
}

/// Vose's construction in integers: every slot holds the same mass, filled from one member or two.
fn alias(weights: &[u64]) -> Box<[(u32, u32)]> {
    let n = weights.len() as u128;
    let total: u128 = weights.iter().map(|it| u128::from(*it)).sum::<u128>().max(1);
    // Scaled so that a full slot is exactly `total`.
    let mut mass: Vec<u128> = weights.iter().map(|it| u128::from(*it) * n).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|it| mass[*it] < total);
    let mut slots: Vec<(u32, u32)> = (0..weights.len() as u32).map(|it| (u32::MAX, it)).collect();
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        slots[poor] = ((mass[poor] * u128::from(u32::MAX) / total) as u32, rich as u32);
        mass[rich] -= total - mass[poor];
        if mass[rich] < total {
            large.pop();
            small.push(rich);
        }
    }
    slots.into_boxed_slice()
}

/// Reduced so that the sum is bounded; never to zero.
fn reduced(weights: &[u64]) -> Vec<u64> {
    fn common(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { common(b, a % b) }
    }
    let divisor = weights.iter().copied().fold(0, common).max(1);
    let sum: u128 = weights.iter().map(|it| u128::from(it / divisor)).sum::<u128>().max(1);
    let slots = u128::from(SLOTS_MAX);
    let scaled = |it: &u64| {
        let it = u128::from(it / divisor);
        if sum <= slots { it as u64 } else { ((it * slots + sum / 2) / sum).max(1) as u64 }
    };
    weights.iter().map(scaled).collect()
}

/// Smooth weighted round robin, one cycle ahead: turn k of member i falls at (k + offset_i)/weight_i of the cycle, so
/// a member's turns are evenly spaced. Offsets by the golden ratio keep members of equal weight apart.
fn cycle(weights: &[u64]) -> Box<[u32]> {
    let weights = reduced(weights);
    let mut turns = Vec::with_capacity(weights.iter().sum::<u64>() as usize);
    for (member, weight) in weights.iter().enumerate() {
        let offset = scatter_golden(member as u64);
        turns.extend(
            (0..*weight).map(|k| (((u128::from(k) << 32) + offset) / u128::from(*weight), member as u32)),
        );
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, member)| member).collect()
}

/// The fractional part of n times the golden ratio, in 2^-32.
const fn scatter_golden(n: u64) -> u128 {
    ((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u128
}

fn ring(keys: &[u64], weights: &[u64]) -> Box<[(u64, u32)]> {
    let heaviest = u128::from(weights.iter().copied().max().unwrap_or(1).max(1));
    let per_member = RING_POINTS.min(SLOTS_MAX / keys.len() as u64).max(1);
    let mut points = Vec::new();
    for (member, (key, weight)) in keys.iter().zip(weights).enumerate() {
        let count = (u128::from(*weight) * u128::from(per_member)).div_ceil(heaviest) as u64;
        points.extend((0..count).map(|n| (scatter(scatter(*key) ^ n), member as u32)));
    }
    // Two points on one spot (one in 2^50) are ordered by key, not by the caller's order of instances.
    points.sort_unstable_by_key(|(at, member)| (*at, keys[*member as usize]));
    points.into_boxed_slice()
}

/// Maglev: members take turns claiming the next free slot of their own permutation; heavier ones get more turns.
fn maglev(keys: &[u64], weights: &[u64]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let slots = MAGLEV_SLOTS as u64;
    let heaviest = weights.iter().copied().max().unwrap_or(1).max(1);
    struct Claim {
        next: u64,
        skip: u64,
        earned: u64,
    }
    // In the order of keys, so that every caller builds the same table whatever order its slice has.
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_unstable_by_key(|it| keys[*it as usize]);
    let mut claims: Vec<Claim> = keys
        .iter()
        .map(|key| {
            let (a, b) = (scatter(*key), scatter(scatter(*key) ^ 0x6d61_676c_6576));
            Claim { next: a % slots, skip: b % (slots - 1) + 1, earned: 0 }
        })
        .collect();
    let mut table = vec![FREE; MAGLEV_SLOTS];
    let mut filled = 0;
    while filled < MAGLEV_SLOTS {
        for member in &order {
            let claim = &mut claims[*member as usize];
            claim.earned += weights[*member as usize];
            if claim.earned < heaviest {
                continue;
            }
            claim.earned -= heaviest;
            while table[claim.next as usize] != FREE {
                claim.next = (claim.next + claim.skip) % slots;
            }
            table[claim.next as usize] = *member;
            filled += 1;
            if filled == MAGLEV_SLOTS {
                break;
            }
        }
    }
    table.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cycle_gives_each_its_turns_and_spaces_them() {
        for weights in [vec![5, 1, 1], vec![3, 2, 1], vec![10, 10, 1], vec![300, 200]] {
            let order = cycle(&weights);
            let least = reduced(&weights);
            for (member, weight) in least.iter().enumerate() {
                let turns: Vec<usize> = (0..order.len()).filter(|it| order[*it] == member as u32).collect();
                assert_eq!(turns.len() as u64, *weight, "{weights:?} {order:?}");
                let widest = turns.windows(2).map(|it| it[1] - it[0]).max().unwrap_or(0);
                assert!(widest <= order.len() / turns.len() + weights.len(), "{weights:?} {order:?}");
            }
        }
        assert!(
            cycle(&[1, 4_000_000_000]).len() <= SLOTS_MAX as usize + 2,
            "bounded by us, not by the weights"
        );
    }

    proptest! {
        #[test]
        fn alias_thresholds_add_up_to_the_weights(weights in prop::collection::vec(0u64..1_000, 1..40)) {
            prop_assume!(weights.iter().any(|it| *it > 0));
            let slots = alias(&weights);
            let mut share = vec![0.0; weights.len()];
            for (slot, (threshold, other)) in slots.iter().enumerate() {
                let own = (f64::from(*threshold) + 1.0) / 2f64.powi(32);
                share[slot] += own / weights.len() as f64;
                share[*other as usize] += (1.0 - own) / weights.len() as f64;
            }
            let total: u64 = weights.iter().sum();
            for (share, weight) in share.iter().zip(&weights) {
                prop_assert!((share - *weight as f64 / total as f64).abs() < 1e-6);
            }
        }
    }
}
