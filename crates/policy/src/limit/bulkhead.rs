//! Bulkheads: one tenant, route or callee cannot take all of a shared limit.
//!
//! Each compartment owns a share of the limit. While the whole is not full anybody may use what others leave idle; once
//! it is full, a compartment may still start up to its own share. So idle shares are lent and never lost, and the
//! total is bounded by the limit plus the shares of those who arrive late.
//!
//! ```text
//! start(c) ⇔ total < limit  or  in_flight(c) < max(1, ⌈limit·share(c)⌉)
//! ```

use units::Percent;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulkheads {
    limit: u32,
    total: u32,
    compartments: Vec<Compartment>,
    refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Compartment {
    own: u32,
    in_flight: u32,
}

impl Bulkheads {
    /// Shares are per compartment, in the order their numbers will have; together they should be at most 100 %.
    pub fn new(limit: u32, shares: &[Percent]) -> Self {
        let own = |share: &Percent| {
            let own = (u128::from(limit) * u128::from(share.millionths())).div_ceil(1_000_000);
            u32::try_from(own).unwrap_or(u32::MAX).max(1)
        };
        let compartments = shares.iter().map(|share| Compartment { own: own(share), in_flight: 0 }).collect();
        Self { limit, total: 0, compartments, refused: 0 }
    }

    /// False: refused and counted. A number that does not exist is refused too.
    pub fn try_start(&mut self, compartment: usize) -> bool {
        let room = self.total < self.limit;
        match self.compartments.get_mut(compartment) {
            Some(it) if room || it.in_flight < it.own => {
                it.in_flight += 1;
                self.total += 1;
                true
            }
            _ => {
                self.refused += 1;
                false
            }
        }
    }

    pub fn finish(&mut self, compartment: usize) {
        let Some(it) = self.compartments.get_mut(compartment) else { return };
        debug_assert!(it.in_flight > 0, "finished more than was started in compartment {compartment}");
        if it.in_flight > 0 {
            it.in_flight -= 1;
            self.total -= 1;
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.total
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn idle_shares_are_lent_and_claimed_back() {
        let mut bulkheads = Bulkheads::new(10, &[Percent::from_whole(70), Percent::from_whole(30)]);
        assert_eq!(
            (0..20).filter(|_| bulkheads.try_start(0)).count(),
            10,
            "all of it while nobody else comes"
        );
        assert_eq!((0..20).filter(|_| bulkheads.try_start(1)).count(), 3, "its own share, full or not");
        bulkheads.finish(0);
        assert!(!bulkheads.try_start(0), "above its share and the whole is full");
        assert!(!bulkheads.try_start(7));
        assert_eq!(bulkheads.in_flight(), 12);
    }

    proptest! {
        #[test]
        fn a_share_is_always_to_be_had(
            limit in 1u32..40,
            shares in prop::collection::vec(0u64..30, 1..4),
            steps in prop::collection::vec((0usize..4, any::<bool>()), 1..200),
        ) {
            let percents: Vec<Percent> = shares.iter().map(|it| Percent::from_whole(*it)).collect();
            let mut bulkheads = Bulkheads::new(limit, &percents);
            let mut mine = vec![0u32; shares.len()];
            for (which, start) in steps {
                let which = which % shares.len();
                if start {
                    let started = bulkheads.try_start(which);
                    prop_assert!(started || mine[which] >= bulkheads.compartments[which].own);
                    mine[which] += u32::from(started);
                } else if mine[which] > 0 {
                    bulkheads.finish(which);
                    mine[which] -= 1;
                }
                let owned: u32 = bulkheads.compartments.iter().map(|it| it.own).sum();
                prop_assert!(bulkheads.in_flight() <= limit + owned);
                prop_assert_eq!(bulkheads.in_flight(), mine.iter().sum::<u32>());
            }
        }
    }
}
