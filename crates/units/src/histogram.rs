//! The one histogram of the whole product: simulator, proxy, store, reports and exports count into the same buckets.
//!
//! Averages of percentiles are not percentiles, so what travels between machines, seconds and replications must be
//! counts in agreed buckets, and adding them up must lose nothing. Each octave (a doubling) is cut into 64 buckets
//! that grow by the same factor, 2^(1/64): the OTLP exponential histogram of scale 6, which is also a Prometheus
//! native histogram of schema 6. Merging is addition of integers: exact, in any order.
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

/// The last bucket ends at 2^64, so that every `u64` has one.
const INDEX_MAX: usize = 64 * PER_OCTAVE;

/// Counts of durations in buckets of equal relative width, exactly mergeable.
///
/// Bucket `i` holds the values v with 2^((i−1)/64) < v ≤ 2^(i/64) nanoseconds; zero has a bucket of its own.
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
    /// The Prometheus native index: the bucket ends at 2^(index/64). OTLP's index is one less. `None` is the zero bucket.
    pub index: Option<u16>,
    pub low: Nanos,
    pub high: Nanos,
    pub count: u64,
}

/// What OTLP and Prometheus write down: `counts[k]` belongs to the bucket (base^(offset + k), base^(offset + k + 1)],
/// base = 2^(2^−scale), in nanoseconds. Prometheus counts its indices from one: `offset + k + 1`.
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
            index: Some(index as u16),
            low: Nanos(lowest(index)),
            high: Nanos(highest(index)),
            count,
        }))
    }

    /// Rebuilds a histogram from stored [`Bucket`]s. `min` and `max` become those of the outermost buckets.
    ///
    /// A bucket whose index is beyond the last is ignored rather than trusted: stored bytes are input.
    pub fn from_buckets(buckets: impl IntoIterator<Item = (Option<u16>, u64)>, sum: u128) -> Self {
        let mut histogram = Self::new();
        for (index, count) in buckets {
            match index.map(usize::from) {
                _ if count == 0 => continue,
                None => {
                    histogram.widen_range(0, 0);
                    histogram.zero = histogram.zero.saturating_add(count);
                }
                Some(index) if index <= INDEX_MAX && lowest(index) <= highest(index) => {
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

    /// The form OTLP and Prometheus exchange, at the finest scale that needs no more than `buckets_max` buckets
    /// (at least two: 1 ns and anything longer lie on either side of index zero at every scale). Coarsening adds
    /// neighbours in pairs, so it loses resolution and never a count.
    pub fn export(&self, buckets_max: usize) -> Exponential {
        let filled = || self.filled().map(|(index, count)| (index as i32 - 1, count));
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

/// ⌊2^(63 + j/64)⌋ for j = 0..64. Literals, because no compile-time arithmetic computes them and the tests prove them.
#[rustfmt::skip]
const BOUNDS: [u64; PER_OCTAVE] = [
    0x8000_0000_0000_0000, 0x8164_D1F3_BC03_0773, 0x82CD_8698_AC2B_A1D7, 0x843A_28C3_ACDE_4046,
    0x85AA_C367_CC48_7B14, 0x871F_6196_9E8D_1010, 0x8898_0E80_92DA_8527, 0x8A14_D575_496E_FD9A,
    0x8B95_C1E3_EA8B_D6E6, 0x8D1A_DF5B_7E5B_A9E5, 0x8EA4_398B_45CD_53C0, 0x9031_DC43_1466_B1DC,
    0x91C3_D373_AB11_C336, 0x935A_2B2F_13E6_E92B, 0x94F4_EFA8_FEF7_0961, 0x9694_2D37_2018_5A00,
    0x9837_F051_8DB8_A96F, 0x99E0_4593_20B7_FA64, 0x9B8D_39B9_D54E_5538, 0x9D3E_D9A7_2CFF_B750,
    0x9EF5_3260_91A1_11AD, 0xA0B0_510F_B971_4FC2, 0xA270_4303_0C49_6818, 0xA435_15AE_09E6_809E,
    0xA5FE_D6A9_B151_38EA, 0xA7CD_93B4_E965_3569, 0xA9A1_5AB4_EA7C_0EF8, 0xAB7A_39B5_A93E_D337,
    0xAD58_3EEA_42A1_4AC6, 0xAF3B_78AD_690A_4374, 0xB123_F581_D2AC_258F, 0xB311_C412_A911_2489,
    0xB504_F333_F9DE_6484, 0xB6FD_91E3_28D1_7791, 0xB8FB_AF47_62FB_9EE9, 0xBAFF_5AB2_133E_45FB,
    0xBD08_A39F_580C_36BE, 0xBF17_99B6_7A73_1082, 0xC12C_4CCA_6670_9456, 0xC346_CCDA_2497_6407,
    0xC567_2A11_5506_DADD, 0xC78D_74C8_ABB9_B15C, 0xC9B9_BD86_6E2F_27A2, 0xCBEC_14FE_F272_7C5C,
    0xCE24_8C15_1F84_80E3, 0xD063_33DA_EF2B_2594, 0xD2A8_1D91_F12A_E45A, 0xD4F3_5AAB_CFED_FA1F,
    0xD744_FCCA_D69D_6AF4, 0xD99D_15C2_78AF_D7B5, 0xDBFB_B797_DAF2_3755, 0xDE60_F482_5E0E_9123,
    0xE0CC_DEEC_2A94_E111, 0xE33F_8972_BE8A_5A51, 0xE5B9_06E7_7C83_48A8, 0xE839_6A50_3C4B_DC68,
    0xEAC0_C6E7_DD24_392E, 0xED4F_301E_D994_2B84, 0xEFE4_B99B_DCDA_F5CB, 0xF281_773C_59FF_B139,
    0xF525_7D15_2486_CC2C, 0xF7D0_DF73_0AD1_3BB8, 0xFA83_B2DB_722A_033A, 0xFD3E_0C0C_F486_C174,
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
        assert_eq!(BOUNDS[0], 1 << 63);
        for j in 1..PER_OCTAVE {
            // 2^(j/64) · 2^((64−j)/64) = 2, so the true product of a pair is 2^127, and ours is its floor on both sides.
            let pair = (u128::from(BOUNDS[j]), u128::from(BOUNDS[PER_OCTAVE - j]));
            assert!(pair.0 * pair.1 <= 1 << 127 && (pair.0 + 1) * (pair.1 + 1) > 1 << 127, "{j}");
            let by_float = 2f64.powf(63.0 + j as f64 / 64.0);
            assert!((BOUNDS[j] as f64 - by_float).abs() <= by_float * 1e-15, "{j}");
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
        // At scale 0 the bucket of offset k is (2^k, 2^(k+1)]: 2 is in the first, 3 and 4 in the second.
        let exported = of(&[2, 3, 4, 1_000]).export(10);
        assert_eq!((exported.scale, exported.offset), (0, 0));
        assert_eq!(exported.counts, [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
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
