//! Counting over the recent past in a fixed number of slots: no allocation, no list of events, no drift.
//!
//! A window of `W` in `N` slots covers between `W·(N−1)/N` and `W`: the slot in progress and the `N−1` before it.
//! Time that steps back counts in the slot in progress, because a clock that is corrected must not erase history.

use units::Nanos;

/// `K` counters over `N` slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window<const N: usize, const K: usize> {
    slot: Nanos,
    /// Number of the slot in progress since time zero.
    head: u64,
    cells: [[u64; K]; N],
    sums: [u64; K],
}

impl<const N: usize, const K: usize> Window<N, K> {
    pub(crate) fn new(length: Nanos) -> Self {
        // A window of zero length would divide by zero; a nanosecond per slot is what it means in practice.
        let slot = Nanos((length.0 / N as u64).max(1));
        Self { slot, head: 0, cells: [[0; K]; N], sums: [0; K] }
    }

    /// Starts the slot of `now`, forgetting what is too old. True when a new slot began.
    pub(crate) fn advance(&mut self, now: Nanos) -> bool {
        let target = now.0 / self.slot.0;
        if target <= self.head {
            return false;
        }
        if target - self.head >= N as u64 {
            self.cells = [[0; K]; N];
            self.sums = [0; K];
        } else {
            for slot in self.head + 1..=target {
                let cell = std::mem::replace(&mut self.cells[(slot % N as u64) as usize], [0; K]);
                for (sum, gone) in self.sums.iter_mut().zip(cell) {
                    *sum -= gone;
                }
            }
        }
        self.head = target;
        true
    }

    pub(crate) fn add(&mut self, now: Nanos, counts: [u64; K]) {
        self.advance(now);
        let cell = &mut self.cells[(self.head % N as u64) as usize];
        for k in 0..K {
            cell[k] = cell[k].saturating_add(counts[k]);
            self.sums[k] = self.sums[k].saturating_add(counts[k]);
        }
    }

    /// The sums at `now`, without writing.
    pub(crate) fn peek(&self, now: Nanos) -> [u64; K] {
        let target = now.0 / self.slot.0;
        let expired = target.saturating_sub(self.head).min(N as u64);
        let mut sums = self.sums;
        for slot in self.head + 1..=self.head + expired {
            for (sum, gone) in sums.iter_mut().zip(self.cells[(slot % N as u64) as usize]) {
                *sum -= gone;
            }
        }
        sums
    }

    /// The sums without the slot in progress.
    pub(crate) fn completed(&self) -> [u64; K] {
        let mut sums = self.sums;
        for (sum, open) in sums.iter_mut().zip(self.cells[(self.head % N as u64) as usize]) {
            *sum -= open;
        }
        sums
    }

    pub(crate) fn clear(&mut self) {
        self.cells = [[0; K]; N];
        self.sums = [0; K];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The window against a list of events, which is slow and obviously right.
        #[test]
        fn sums_are_those_of_the_covered_slots(steps in proptest::collection::vec((0u64..40, 0u64..5), 1..80)) {
            let mut window = Window::<10, 1>::new(Nanos(100));
            let (mut now, mut events) = (0, Vec::new());
            for (wait, count) in steps {
                now += wait;
                let before = window.peek(Nanos(now));
                window.add(Nanos(now), [count]);
                proptest::prop_assert_eq!(window.peek(Nanos(now))[0], before[0] + count);
                events.push((now, count));
                let covered = |at: u64| at / 10 + 10 > now / 10;
                let expected: u64 = events.iter().filter(|(at, _)| covered(*at)).map(|(_, n)| n).sum();
                proptest::prop_assert_eq!(window.peek(Nanos(now)), [expected]);
            }
        }
    }
}
