//! A histogram's counts while they rest or travel: only the buckets that hold something.
//!
//! [`units::Histogram`] is laid out for counting; this is laid out for keeping thousands of them. The same buckets, so
//! nothing is lost between the two, except on purpose: [`Sparse::coarsen`] halves the resolution (neighbours add up),
//! which is what old history pays for its place.

use units::{Histogram, Nanos};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// How often the resolution was halved: bucket `i` ends at 2^(i / (64 >> shift)) seconds.
    pub shift: u8,
    pub zero: u64,
    /// (index, count), ascending, no count zero. Indices as Prometheus counts them.
    pub buckets: Vec<(i16, u64)>,
    /// Nanoseconds.
    pub sum: u128,
}

impl Sparse {
    pub fn count(&self) -> u64 {
        self.zero + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }

    pub fn is_empty(&self) -> bool {
        self.zero == 0 && self.buckets.is_empty()
    }

    pub fn record(&mut self, value: Nanos) {
        self.add(Histogram::index_of(value), 1);
        self.sum += u128::from(value.0);
    }

    /// Counts in a bucket of the finest resolution.
    pub fn add(&mut self, index: Option<i16>, count: u64) {
        let Some(index) = index else {
            self.zero += count;
            return;
        };
        let index = coarser(index, self.shift);
        match self.buckets.binary_search_by_key(&index, |(known, _)| *known) {
            Ok(at) => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (index, count)),
        }
    }

    /// Adds another's counts; the result is as coarse as the coarser of the two.
    pub fn merge(&mut self, other: &Self) {
        if self.shift < other.shift {
            self.coarsen(other.shift);
        }
        let down = self.shift - other.shift;
        self.zero += other.zero;
        self.sum += other.sum;
        if self.buckets.is_empty() && down == 0 {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let mut ours = self.buckets.iter().copied().peekable();
        let mut theirs =
            other.buckets.iter().map(|(index, count)| (coarser(*index, down), *count)).peekable();
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.0 <= b.0 => ours.next(),
                (Some(_), None) => ours.next(),
                (_, Some(_)) => theirs.next(),
                (None, None) => break,
            };
            let Some((index, count)) = next else { break };
            match merged.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => merged.push((index, count)),
            }
        }
        self.buckets = merged;
    }

    /// Halves the resolution until it was halved `shift` times.
    pub fn coarsen(&mut self, shift: u8) {
        if shift <= self.shift {
            return;
        }
        let down = shift - self.shift;
        self.shift = shift;
        let mut kept: Vec<(i16, u64)> = Vec::with_capacity(self.buckets.len());
        for (index, count) in self.buckets.drain(..) {
            let index = coarser(index, down);
            match kept.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                _ => kept.push((index, count)),
            }
        }
        self.buckets = kept;
    }

    /// For quantiles and exports. A coarse bucket's counts go to its middle at the finest resolution, so that the
    /// error stays within [`Sparse::relative_error`].
    pub fn histogram(&self) -> Histogram {
        let middle = |index: i16| {
            let width = 1i32 << self.shift;
            let top = i32::from(index) * width;
            (top - width / 2).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        };
        let zero = (self.zero > 0).then_some((None, self.zero));
        let buckets = self.buckets.iter().map(|(index, count)| (Some(middle(*index)), *count));
        Histogram::from_buckets(zero.into_iter().chain(buckets), self.sum)
    }

    /// How far a quantile may be off, as a share of the true value.
    pub fn relative_error(&self) -> f64 {
        if self.shift == 0 {
            return Histogram::RELATIVE_ERROR;
        }
        // Half a coarse bucket either way, and one fine bucket for having to choose.
        2f64.powf((f64::from(1u32 << self.shift) / 2.0 + 1.0) / 64.0) - 1.0
    }

    pub fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(i16, u64)>()
    }
}

/// Bucket `i` ends where the coarser bucket `ceil(i / 2)` does, or inside it.
const fn coarser(index: i16, halvings: u8) -> i16 {
    let half = (1i32 << halvings) - 1;
    ((index as i32 + half) >> halvings) as i16
}

impl From<&Histogram> for Sparse {
    fn from(histogram: &Histogram) -> Self {
        let mut sparse = Self { sum: histogram.sum(), ..Self::default() };
        for bucket in histogram.buckets() {
            match bucket.index {
                None => sparse.zero += bucket.count,
                Some(index) => sparse.buckets.push((index, bucket.count)),
            }
        }
        sparse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Sparse {
        let mut sparse = Sparse::default();
        values.iter().for_each(|value| sparse.record(Nanos(*value)));
        sparse
    }

    #[test]
    fn coarse_buckets_end_where_fine_ones_do() {
        assert_eq!([-3, -2, -1, 0, 1, 2, 3].map(|index| coarser(index, 1)), [-1, -1, 0, 0, 1, 1, 2]);
        assert_eq!(coarser(64, 6), 1);
        assert_eq!(coarser(65, 6), 2);
    }

    proptest! {
        #[test]
        fn it_is_the_histogram_without_its_holes(values in proptest::collection::vec(0u64..1 << 40, 0..80)) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(Nanos(*value)));
            let sparse = of(&values);
            prop_assert_eq!(&sparse, &Sparse::from(&histogram));
            prop_assert_eq!(Sparse::from(&sparse.histogram()), Sparse::from(&histogram));
        }

        #[test]
        fn merging_commutes_with_coarsening(a in proptest::collection::vec(0u64..1 << 40, 0..40), b in proptest::collection::vec(0u64..1 << 40, 0..40), down in 0u8..7, more in 0u8..7) {
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            let mut expected = of(&both);
            expected.coarsen(down.max(more));
            let (mut a, mut b) = (of(&a), of(&b));
            a.coarsen(down);
            b.coarsen(more);
            a.merge(&b);
            prop_assert_eq!(&a, &expected);
            prop_assert_eq!(a.count(), both.len() as u64);
        }

        #[test]
        fn coarse_quantiles_stay_within_the_printed_error(values in proptest::collection::vec(1_000u64..1 << 40, 1..60), shift in 0u8..7) {
            let mut sparse = of(&values);
            sparse.coarsen(shift);
            let mut sorted = values;
            sorted.sort_unstable();
            for q in [0.01, 0.5, 0.9, 1.0] {
                let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
                let (truth, got) = (sorted[rank - 1] as f64, sparse.histogram().quantile(q).unwrap().0 as f64);
                let error = (got / truth).max(truth / got) - 1.0;
                prop_assert!(error <= sparse.relative_error() + 1e-3, "q {} truth {} got {} error {} shift {}", q, truth, got, error, shift);
            }
        }
    }
}
