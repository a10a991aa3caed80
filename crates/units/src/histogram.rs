//! The one histogram of the whole product: simulator, proxy, store, reports and exports count into the same buckets.
//!
//! Averages of percentiles are not percentiles, so what travels between machines, seconds and replications must be
//! counts in agreed buckets, and adding them up must lose nothing. Each octave (a doubling) is cut into 64 buckets
//! that grow by the same factor, 2^(1/64): the OTLP exponential histogram of scale 6, which is also a Prometheus
//! native histogram of schema 6. Merging is addition of integers: exact, in any order.
//!
//! Values are nanoseconds, but the buckets are those of *seconds*, the unit that both formats export: a second is not a
//! power of two of nanoseconds, so buckets cut in nanoseconds could not be handed on without guessing.
//!
//! It refuses to be clever about range: there is no rescaling while recording, because two histograms that rescaled at
//! different moments would disagree about the same numbers. Coarser scales exist only on the way out ([`Histogram::export`]).
//!
//! ```
//! use units::{Histogram, Nanos};
//! let mut latency = Histogram::new();
//! (1..=1_000).for_each(|ms| latency.record(Nanos::from_millis(ms)));
//! let p99 = latency.quantile(0.99).unwrap().as_millis_f64();
//! assert!((p99 - 990.0).abs() <= 990.0 * Histogram::RELATIVE_ERROR);
//! ```

use crate::Nanos;
use std::fmt;

/// Buckets per octave; with 64 the bounds are those of OTLP scale 6.
const PER_OCTAVE: usize = 64;
const OCTAVE_BITS: u32 = PER_OCTAVE.trailing_zeros();

/// The last place ends beyond 2^64, so that every `u64` has one.
const INDEX_MAX: usize = 64 * PER_OCTAVE;

/// The place of the bucket that ends at exactly one second: 29 octaves and 57 buckets above a nanosecond.
const ONE_SECOND: usize = 29 * PER_OCTAVE + 57;

/// Counts of durations in buckets of equal relative width, exactly mergeable.
///
/// Bucket `i` holds the values v with 2^((i−1)/64) < v ≤ 2^(i/64) seconds; zero has a bucket of its own. Inside, a bucket's
/// place is counted from the shortest, one nanosecond.
#[derive(Clone, Default)]
pub struct Histogram {
    /// Counts of the buckets `first..first + counts.len()`; grown by whole octaves and only where values were seen.
    counts: Vec<u64>,
    first: usize,
    zero: u64,
    total: u64,
    /// 128 bits hold 2^64 values of 2^64 each, so the mean never drifts and never overflows.
    sum: u128,
    min: u64,
    max: u64,
}

/// One bucket that holds something: `count` values in `low..=high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The Prometheus native index: the bucket ends at 2^(index/64) seconds. OTLP's index is one less. `None` is the zero
    /// bucket.
    pub index: Option<i16>,
    pub low: Nanos,
    pub high: Nanos,
    pub count: u64,
}

/// What OTLP and Prometheus write down: `counts[k]` belongs to the bucket (base^(offset + k), base^(offset + k + 1)],
/// base = 2^(2^−scale), in seconds. Prometheus counts its indices from one: `offset + k + 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exponential {
    pub scale: i32,
    pub offset: i32,
    pub counts: Vec<u64>,
    pub zero_count: u64,
    pub count: u64,
    pub sum: u128,
}

impl Histogram {
    /// The scale of OTLP and the schema of Prometheus native histograms.
    pub const SCALE: i32 = OCTAVE_BITS as i32;

    /// A quantile is off by at most this share of the value that truly holds that rank: one bucket's width, 2^(1/64) − 1,
    /// rounded up. With many values in a bucket the interpolation is usually some ten times better.
    pub const RELATIVE_ERROR: f64 = 0.0109;

    pub const fn new() -> Self {
        Self { counts: Vec::new(), first: 0, zero: 0, total: 0, sum: 0, min: 0, max: 0 }
    }

    #[inline]
    pub fn record(&mut self, value: Nanos) {
        self.record_n(value, 1);
    }

    /// Counts `value` as if it had been recorded `times` times.
    #[inline]
    pub fn record_n(&mut self, value: Nanos, times: u64) {
        if times == 0 {
            return;
        }
        let value = value.0;
        self.widen_range(value, value);
        self.total += times;
        self.sum += u128::from(value) * u128::from(times);
        if value == 0 {
            self.zero += times;
            return;
        }
        let index = bucket_of(value);
        match self.counts.get_mut(index.wrapping_sub(self.first)) {
            Some(count) => *count += times,
            None => *self.slot(index) += times,
        }
    }

    /// The [`Bucket::index`] a value is counted under, for those who keep counts where this type cannot go (a worker's
    /// atomics) and hand them back through [`Histogram::from_buckets`].
    #[inline]
    pub fn index_of(value: Nanos) -> Option<i16> {
        (!value.is_zero()).then(|| (bucket_of(value.0) as i32 - ONE_SECOND as i32) as i16)
    }

    /// Adds everything `other` counted. Exact, so the order of merging cannot show in a result.
    pub fn merge(&mut self, other: &Self) {
        if other.total == 0 {
            return;
        }
        self.widen_range(other.min, other.max);
        self.total += other.total;
        self.sum += other.sum;
        self.zero += other.zero;
        for (index, count) in other.filled() {
            *self.slot(index) += count;
        }
    }

    /// What was recorded since `earlier`, when `self` is a later reading of the same counters. `None` if some count
    /// went down: the counters were reset in between, and a difference would be a lie.
    ///
    /// The smallest and largest of the difference are known only to a bucket.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut left = self.clone();
        left.zero = self.zero.checked_sub(earlier.zero)?;
        left.total = self.total.checked_sub(earlier.total)?;
        left.sum = self.sum.checked_sub(earlier.sum)?;
        for (index, count) in earlier.filled() {
            let slot = left.counts.get_mut(index.checked_sub(left.first)?)?;
            *slot = slot.checked_sub(count)?;
        }
        let (mut min, mut max) = (0, 0);
        if let Some(first) = left.buckets().next() {
            min = first.low.0.max(self.min);
        }
        if let Some(last) = left.buckets().last() {
            max = last.high.0.min(self.max);
        }
        (left.min, left.max) = (min, max);
        Some(left)
    }

    /// Forgets everything and keeps the memory, for a window that starts anew every second.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.zero, self.total, self.sum, self.min, self.max) = (0, 0, 0, 0, 0);
    }

    pub fn count(&self) -> u64 {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The exact sum in nanoseconds.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// The mean in nanoseconds; exact but for one rounding.
    pub fn mean(&self) -> Option<f64> {
        (self.total > 0).then(|| self.sum as f64 / self.total as f64)
    }

    pub fn min(&self) -> Option<Nanos> {
        (self.total > 0).then_some(Nanos(self.min))
    }

    pub fn max(&self) -> Option<Nanos> {
        (self.total > 0).then_some(Nanos(self.max))
    }

    /// The value below or at which a share `q` of all values lies, interpolated inside its bucket. `None` when empty;
    /// `q` outside 0..=1 is taken as the nearer end.
    pub fn quantile(&self, q: f64) -> Option<Nanos> {
        let (bucket, before, rank) = self.bucket_at(q)?;
        // The rank-th of the values of this bucket, spread evenly over it, each in the middle of its share.
        let width = u128::from(bucket.high.0 - bucket.low.0);
        let position = u128::from(2 * (rank - before) - 1);
        let inside = width * position / (2 * u128::from(bucket.count));
        let value = bucket.low.0 + u64::try_from(inside).unwrap_or(0);
        Some(Nanos(value.clamp(self.min, self.max)))
    }

    /// The bounds between which the quantile of the recorded values certainly lies.
    pub fn quantile_bounds(&self, q: f64) -> Option<(Nanos, Nanos)> {
        let (bucket, _, _) = self.bucket_at(q)?;
        Some((Nanos(bucket.low.0.max(self.min)), Nanos(bucket.high.0.min(self.max))))
    }

    /// How many values are at most `limit`, to within the bucket that `limit` falls into (interpolated inside it).
    pub fn count_at_most(&self, limit: Nanos) -> u64 {
        if limit.0 >= self.max {
            return self.total;
        }
        let mut at_most = 0;
        for bucket in self.buckets() {
            if bucket.high <= limit {
                at_most += bucket.count;
            } else if bucket.low <= limit {
                let share = u128::from(limit.0 - bucket.low.0 + 1) * u128::from(bucket.count);
                let width = u128::from(bucket.high.0 - bucket.low.0) + 1;
                at_most += u64::try_from(share / width).unwrap_or(0);
            }
        }
        at_most
    }

    /// The buckets that hold something, smallest first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let zero = (self.zero > 0).then_some(Bucket {
            index: None,
            low: Nanos::ZERO,
            high: Nanos::ZERO,
            count: self.zero,
        });
        zero.into_iter().chain(self.filled().map(|(index, count)| Bucket {
            index: Some((index as i32 - ONE_SECOND as i32) as i16),
            low: Nanos(lowest(index)),
            high: Nanos(highest(index)),
            count,
        }))
    }

    /// Rebuilds a histogram from stored [`Bucket`]s. `min` and `max` become those of the outermost buckets.
    ///
    /// A bucket whose index is beyond the last is ignored rather than trusted: stored bytes are input.
    pub fn from_buckets(buckets: impl IntoIterator<Item = (Option<i16>, u64)>, sum: u128) -> Self {
        let mut histogram = Self::new();
        for (index, count) in buckets {
            let place = index.map(|index| usize::try_from(i32::from(index) + ONE_SECOND as i32));
            match place {
                _ if count == 0 => continue,
                None => {
                    histogram.widen_range(0, 0);
                    histogram.zero = histogram.zero.saturating_add(count);
                }
                Some(Ok(index)) if index <= INDEX_MAX && lowest(index) <= highest(index) => {
                    histogram.widen_range(lowest(index), highest(index));
                    let slot = histogram.slot(index);
                    *slot = slot.saturating_add(count);
                }
                Some(_) => continue,
            }
            histogram.total = histogram.total.saturating_add(count);
        }
        histogram.sum = sum;
        histogram
    }

    /// The bucket a value falls into, as in [`Bucket::index`]; zero has a bucket of its own, `None`. For whoever keeps the
    /// counts elsewhere (the proxy, in atomics that only one thread writes) and rebuilds with [`Self::from_buckets`].
    #[inline]
    pub fn bucket_index(value: Nanos) -> Option<i16> {
        (value.0 > 0).then(|| (bucket_of(value.0) as i32 - ONE_SECOND as i32) as i16)
    }

    /// The form OTLP and Prometheus exchange, at the finest scale that needs no more than `buckets_max` buckets
    /// (at least two: values on either side of one second stay apart at every scale). Coarsening adds
    /// neighbours in pairs, so it loses resolution and never a count.
    pub fn export(&self, buckets_max: usize) -> Exponential {
        let filled = || self.filled().map(|(index, count)| (index as i32 - ONE_SECOND as i32 - 1, count));
        let (low, high) = match (filled().next(), filled().last()) {
            (Some((low, _)), Some((high, _))) => (low, high),
            _ => (0, -1),
        };
        let mut shift = 0;
        while high >= low && ((high >> shift) - (low >> shift)) as usize >= buckets_max.max(2) {
            shift += 1;
        }
        let offset = low >> shift;
        let mut counts = vec![0; ((high >> shift) - offset + 1).max(0) as usize];
        for (index, count) in filled() {
            counts[((index >> shift) - offset) as usize] += count;
        }
        let offset = if counts.is_empty() { 0 } else { offset };
        Exponential {
            scale: Self::SCALE - shift,
            offset,
            counts,
            zero_count: self.zero,
            count: self.total,
            sum: self.sum,
        }
    }

    /// The bytes this histogram holds on the heap: 512 for each octave between its smallest and largest value.
    pub fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }

    #[inline]
    fn widen_range(&mut self, low: u64, high: u64) {
        if self.total == 0 {
            (self.min, self.max) = (low, high);
        } else {
            self.min = self.min.min(low);
            self.max = self.max.max(high);
        }
    }

    /// The bucket that holds the quantile, how many values lie before it, and the quantile's rank from 1.
    fn bucket_at(&self, q: f64) -> Option<(Bucket, u64, u64)> {
        if self.total == 0 {
            return None;
        }
        // The nearest-rank rule: the smallest rank that covers a share q. `as` saturates, and NaN becomes rank 1.
        let rank = ((q.clamp(0.0, 1.0) * self.total as f64).ceil() as u64).clamp(1, self.total);
        let mut before = 0;
        for bucket in self.buckets() {
            if before + bucket.count >= rank {
                return Some((bucket, before, rank));
            }
            before += bucket.count;
        }
        None
    }

    fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let first = self.first;
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(at, count)| (first + at, *count))
    }

    /// Grows by whole octaves, so that a stream of ever larger values allocates a few times and not at each of them.
    #[cold]
    fn grow(&mut self, index: usize) {
        let octave = index / PER_OCTAVE * PER_OCTAVE;
        if self.counts.is_empty() {
            self.first = octave;
        }
        if octave < self.first {
            let more = self.first - octave;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = octave;
        }
        let len = octave + PER_OCTAVE - self.first;
        if self.counts.len() < len {
            self.counts.resize(len, 0);
        }
    }

    fn slot(&mut self, index: usize) -> &mut u64 {
        if index < self.first || index - self.first >= self.counts.len() {
            self.grow(index);
        }
        &mut self.counts[index - self.first]
    }
}

/// Equal when they count the same, however the memory came to be laid out.
impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        (self.zero, self.total, self.sum) == (other.zero, other.total, other.sum)
            && (self.min, self.max) == (other.min, other.max)
            && self.filled().eq(other.filled())
    }
}

impl Eq for Histogram {}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.total)
            .field("min", &self.min())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

/// The bucket of a value above zero, by shifts, one table and one comparison: no logarithm.
#[inline]
fn bucket_of(value: u64) -> usize {
    let leading = value.leading_zeros();
    let octave = 63 - leading as usize;
    let mantissa = value << leading;
    // The seven bits after the leading one pick a linear slice that is narrower than any bucket, so that at most
    // one bound lies inside it and one comparison settles the matter.
    let slice = (mantissa >> 56) as usize & 0x7F;
    let below = SLICES[slice] as usize;
    let beyond = usize::from(below < PER_OCTAVE && mantissa > BOUNDS[below % PER_OCTAVE]);
    octave * PER_OCTAVE + below + beyond
}

/// The largest integer in a bucket.
fn highest(index: usize) -> u64 {
    if index >= INDEX_MAX {
        return u64::MAX;
    }
    BOUNDS[index % PER_OCTAVE] >> (63 - index / PER_OCTAVE)
}

/// The smallest integer in a bucket; above its `highest` for the narrow buckets below 64 ns that hold no integer.
fn lowest(index: usize) -> u64 {
    match index.checked_sub(1) {
        Some(before) => highest(before) + 1,
        None => 1,
    }
}

/// For each linear slice of an octave, how many bounds lie below its start.
const SLICES: [u8; 128] = {
    let mut slices = [0u8; 128];
    let mut slice = 0;
    while slice < 128 {
        let start = (1u64 << 63) + ((slice as u64) << 56);
        let mut below = 0;
        while below < PER_OCTAVE && BOUNDS[below] < start {
            below += 1;
        }
        slices[slice] = below as u8;
        slice += 1;
    }
    slices
};

/// ⌊10^9 · 2^(34 + (j−57)/64)⌋ for j = 0..64: the bounds of one octave, scaled to 64 bits; the 57th is one second.
/// Literals, because no compile-time arithmetic computes them and the tests prove them.
#[rustfmt::skip]
const BOUNDS: [u64; PER_OCTAVE] = [
    0x8099_2ABB_83A5_34A2, 0x81FF_A7A9_549C_A6E3, 0x836A_0BEE_9D9D_5401, 0x84D8_626D_3118_D396,
    0x864A_B625_376B_7B77, 0x87C1_1235_836D_16A3, 0x893B_81DB_E7ED_5966, 0x8ABA_1075_8E1E_A3CF,
    0x8C3C_C97F_4CF1_AADD, 0x8DC3_B896_0164_A7D9, 0x8F4E_E976_E7C8_B4CC, 0x90DE_67FF_F600_044C,
    0x9272_4030_36B7_AA56, 0x940A_7E28_259F_B382, 0x95A7_2E2A_0CA4_4F7C, 0x9748_5C9A_622A_DB60,
    0x98EE_1600_2855_A076, 0x9A98_6705_4D51_2391, 0x9C47_5C77_0CAD_E96D, 0x9DFB_0346_51C9_9C68,
    0x9FB3_6888_1B4A_8811, 0xA170_9975_DFB0_6757, 0xA332_A36D_F2FD_8A6A, 0xA4F9_93F3_ED7B_61CA,
    0xA6C5_78B1_139D_848C, 0xA896_5F74_BF06_5071, 0xAA6C_5634_C8B0_4B16, 0xAC47_6B0D_F43F_745F,
    0xAE27_AC44_5C7D_C318, 0xB00D_2843_E106_0DC2, 0xB1F7_EDA0_9520_AA93, 0xB3E8_0B17_2FD5_1AF7,
    0xB5DD_8F8D_7D34_1FFD, 0xB7D8_8A12_D0DD_9EA0, 0xB9D9_09E0_79C5_C456, 0xBBDF_1E5A_373C_E5C6,
    0xBDEA_D70E_AF3D_9B5A, 0xBFFC_43B7_E604_A922, 0xC213_743B_B6F6_4957, 0xC430_78AC_4ED4_7AE7,
    0xC653_6148_A749_FF7D, 0xC87C_3E7D_03CD_BEC3, 0xCAAB_20E3_6FE2_4EE5, 0xCCE0_1944_3EB5_6CE4,
    0xCF1B_3896_8C23_39B8, 0xD15C_9000_BF21_1C1F, 0xD3A4_30D9_0D94_3190, 0xD5F2_2CA6_0197_43E0,
    0xD846_951F_0034_440A, 0xDAA1_7C2C_D195_55DB, 0xDD02_F3EA_2AB1_8362, 0xDF6B_0EA4_3879_3A89,
    0xE1D9_DEDB_2C86_C2B2, 0xE44F_7742_CB56_E3DD, 0xE6CB_EAC2_FC0E_04AA, 0xE94F_4C78_59CE_1066,
    0xEBD9_AFB4_C6A1_8262, 0xEE6B_2800_0000_0000, 0xF103_C918_34F0_F723, 0xF3A3_A6F2_9DD0_C333,
    0xF64A_D5BC_15BC_E751, 0xF8F9_69D9_B5AB_F948, 0xFBAF_77E9_7135_E555, 0xFE6D_14C2_B511_4024,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_assume, proptest};

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|value| histogram.record(Nanos(*value)));
        histogram
    }

    /// Values of every size are equally likely, so that narrow and wide buckets are both visited.
    fn values() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec((any::<u64>(), 0u32..64).prop_map(|(v, shift)| v >> shift), 0..200)
    }

    #[test]
    fn bounds_are_the_exact_powers() {
        let second = 1_000_000_000u128 << 34;
        assert_eq!(u128::from(BOUNDS[57]), second);
        assert!(BOUNDS.is_sorted() && BOUNDS[0] > 1 << 63);
        for (j, bound) in BOUNDS.iter().enumerate() {
            // Two bounds equally far from a second multiply to its square (or, an octave lower, to half of it), so the
            // true product of a pair is known and ours is its floor on both sides.
            let (other, product) =
                if j > 50 { (114 - j, second * second) } else { (50 - j, second * second / 2) };
            let pair = (u128::from(*bound), u128::from(BOUNDS[other]));
            assert!(pair.0 * pair.1 <= product && (pair.0 + 1) * (pair.1 + 1) > product, "{j}");
            let by_float = 1e9 * 2f64.powf(34.0 + (j as f64 - 57.0) / 64.0);
            assert!((*bound as f64 - by_float).abs() <= by_float * 1e-15, "{j}");
        }
    }

    #[test]
    fn every_bound_falls_on_its_own_side() {
        for index in 0..=INDEX_MAX {
            let (low, high) = (lowest(index), highest(index));
            if low <= high {
                assert_eq!(bucket_of(low), index, "low of {index}");
                assert_eq!(bucket_of(high), index, "high of {index}");
                assert!((high - low) as f64 <= low as f64 * Histogram::RELATIVE_ERROR + 1.0, "{index}");
            }
        }
        assert_eq!(highest(INDEX_MAX), u64::MAX);
    }

    #[test]
    fn an_empty_histogram_knows_nothing() {
        let empty = Histogram::new();
        assert_eq!((empty.quantile(0.5), empty.mean(), empty.min()), (None, None, None));
        assert_eq!(empty.export(160).counts, Vec::<u64>::new());
        assert_eq!(empty.count_at_most(Nanos::MAX), 0);
    }

    #[test]
    fn quantiles_follow_the_nearest_rank() {
        let values = of(&[1_000, 2_000, 3_000, 4_000]);
        for (q, expected) in
            [(0.0, 1_000.0), (0.25, 1_000.0), (0.26, 2_000.0), (0.5, 2_000.0), (1.0, 4_000.0)]
        {
            let got = values.quantile(q).unwrap().0 as f64;
            assert!((got - expected).abs() <= expected * Histogram::RELATIVE_ERROR, "{q}: {got}");
        }
        assert_eq!(values.mean(), Some(2_500.0));
        assert_eq!(of(&[7]).quantile(f64::NAN), Some(Nanos(7)));
    }

    #[test]
    fn interpolation_makes_quantiles_of_a_smooth_law_ten_times_better_than_the_bound() {
        let mut rng = Rng::from_seed(11);
        let mut histogram = Histogram::new();
        let mut exact: Vec<u64> = (0..200_000).map(|_| 1_000_000 + rng.below(9_000_000)).collect();
        exact.iter().for_each(|value| histogram.record(Nanos(*value)));
        exact.sort_unstable();
        for q in [0.1, 0.5, 0.9, 0.99] {
            let truth = exact[(q * exact.len() as f64) as usize - 1] as f64;
            let got = histogram.quantile(q).unwrap().0 as f64;
            assert!((got / truth - 1.0).abs() < Histogram::RELATIVE_ERROR / 10.0, "{q}: {got} for {truth}");
        }
    }

    #[test]
    fn a_reset_counter_has_no_difference() {
        assert_eq!(of(&[5]).since(&of(&[5, 5])), None);
        assert_eq!(of(&[5]).since(&of(&[6])), None);
        let later = of(&[0, 5, 5, 900]);
        assert_eq!(later.since(&of(&[5])).unwrap().count(), 3);
        assert_eq!(later.since(&later).unwrap(), Histogram::new());
    }

    #[test]
    fn an_export_names_the_buckets_of_otlp() {
        // At scale 0 the bucket of offset k is (2^k, 2^(k+1)] seconds: 1 s ends the bucket of −1, 2 s that of 0.
        let seconds = |s: u64| s * 1_000_000_000;
        let exported = of(&[seconds(1), seconds(2), seconds(3), seconds(4), seconds(1_000)]).export(11);
        assert_eq!((exported.scale, exported.offset), (0, -1));
        assert_eq!(exported.counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        let one = of(&[seconds(1)]);
        assert_eq!(one.buckets().next().and_then(|bucket| bucket.index), Some(0));
    }

    proptest! {
        #[test]
        fn merging_is_recording_everything_in_one(a in values(), b in values(), c in values()) {
            let all = of(&[a.clone(), b.clone(), c.clone()].concat());
            let mut left = of(&a);
            left.merge(&of(&b));
            left.merge(&of(&c));
            let mut right = of(&b);
            right.merge(&of(&c));
            let mut around = of(&a);
            around.merge(&right);
            let mut backwards = of(&c);
            backwards.merge(&of(&b));
            backwards.merge(&of(&a));
            prop_assert_eq!(&left, &all);
            prop_assert_eq!(&around, &all);
            prop_assert_eq!(&backwards, &all);
        }

        #[test]
        fn a_quantile_is_within_the_stated_error_of_the_true_one(mut v in values(), q in 0.0f64..=1.0) {
            prop_assume!(!v.is_empty());
            let histogram = of(&v);
            v.sort_unstable();
            let truth = v[((q * v.len() as f64).ceil() as usize).clamp(1, v.len()) - 1];
            let got = histogram.quantile(q).unwrap().0;
            prop_assert!(got.abs_diff(truth) as f64 <= truth as f64 * Histogram::RELATIVE_ERROR, "{} {}", got, truth);
            let (low, high) = histogram.quantile_bounds(q).unwrap();
            prop_assert!(low.0 <= truth && truth <= high.0);
        }

        #[test]
        fn what_was_added_can_be_taken_away(a in values(), b in values()) {
            let (before, mut after) = (of(&a), of(&a));
            after.merge(&of(&b));
            let left = after.since(&before).unwrap();
            prop_assert!(left.buckets().eq(of(&b).buckets()));
            prop_assert_eq!(left.sum(), of(&b).sum());
        }

        #[test]
        fn coarser_exports_lose_no_count(v in values(), buckets_max in 2usize..300) {
            let histogram = of(&v);
            let exported = histogram.export(buckets_max);
            prop_assert!(exported.counts.len() <= buckets_max);
            prop_assert_eq!(exported.counts.iter().sum::<u64>() + exported.zero_count, histogram.count());
        }

        #[test]
        fn buckets_can_be_stored_and_read_back(v in values()) {
            let histogram = of(&v);
            let stored = histogram.buckets().map(|bucket| (bucket.index, bucket.count));
            let read = Histogram::from_buckets(stored, histogram.sum());
            prop_assert!(read.buckets().eq(histogram.buckets()));
            prop_assert_eq!(read.count(), histogram.count());
        }

        #[test]
        fn counting_up_to_a_limit_agrees_with_the_list_but_for_one_bucket(v in values(), limit: u64) {
            let histogram = of(&v);
            let inside = |value: u64| v.iter().filter(|it| **it <= value).count() as u64;
            let slack = (limit as f64 * Histogram::RELATIVE_ERROR) as u64 + 1;
            let got = histogram.count_at_most(Nanos(limit));
            prop_assert!(inside(limit.saturating_sub(slack)) <= got && got <= inside(limit.saturating_add(slack)));
        }
    }
}
