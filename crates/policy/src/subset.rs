//! Which release a request goes to: by pin, or by weight and by a hash that keeps a user where they are.
//!
//! ```text
//! point = hash scaled to 0..Σ weights; the version in whose part of that line it falls
//! ```
//! Versions are ordered by number, not by their place in the list, so a weight that moves from one version to the next
//! moves only the requests in between: growing a canary from 10 to 20 % keeps the first 10 % on it. The hash should be
//! of the user or session for a sticky split, or drawn for each request for an even one.

use crate::math::scatter;

/// The version for a hash, or `None` if all weights are zero. Weights are relative; versions should differ.
pub fn by_weight(weights: &[(u16, u32)], hash: u64) -> Option<u16> {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let point = ((u128::from(scatter(hash)) * u128::from(total)) >> 64) as u64;
    // Walking the versions in the order of their numbers without sorting: there are a handful, and nothing is allocated.
    let (mut reached, mut after) = (0, None);
    for _ in weights {
        let next = weights.iter().filter(|(version, _)| after.is_none_or(|it| *version > it));
        let version = next.map(|(version, _)| *version).min()?;
        let of_it = weights.iter().filter(|(it, _)| *it == version);
        reached += of_it.map(|(_, weight)| u64::from(*weight)).sum::<u64>();
        if point < reached {
            return Some(version);
        }
        after = Some(version);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(weights: &[(u16, u32)], version: u16) -> f64 {
        (0..20_000).filter(|it| by_weight(weights, *it) == Some(version)).count() as f64 / 20_000.0
    }

    #[test]
    fn shares_are_the_weights() {
        assert!((shares(&[(2, 10), (1, 90)], 2) - 0.10).abs() < 0.01);
        assert!((shares(&[(1, 1), (2, 1), (3, 2)], 3) - 0.50).abs() < 0.01);
        assert_eq!(shares(&[(1, 0), (2, 5)], 1), 0.0);
        assert_eq!(by_weight(&[(1, 0)], 7), None);
        assert_eq!(by_weight(&[], 7), None);
        assert!(
            by_weight(&[(1, u32::MAX), (2, u32::MAX)], u64::MAX).is_some(),
            "large weights do not overflow"
        );
    }

    proptest! {
        #[test]
        fn growing_a_canary_moves_nobody_back(hash: u64, before in 0u32..=100, more in 0u32..=100) {
            let after = (before + more).min(100);
            // The canary has the lower number here, then the higher.
            for canary in [0, 2] {
                let at = |share: u32| by_weight(&[(1, 100 - share), (canary, share)], hash);
                prop_assert!(at(before) != Some(canary) || at(after) == Some(canary));
            }
        }

        #[test]
        fn order_in_the_list_does_not_matter(mut weights in prop::collection::vec((0u16..6, 0u32..9), 0..6), hash: u64) {
            let one = by_weight(&weights, hash);
            weights.reverse();
            prop_assert_eq!(one, by_weight(&weights, hash));
        }
    }
}
