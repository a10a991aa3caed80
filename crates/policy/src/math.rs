//! Two functions the policies share.

/// e^−x for x ≥ 0; 1 for what is negative or not a number, because time that runs backwards decays nothing.
///
/// Never the platform's `exp`: its last bit differs between machines, one bit decides which of two instances is the
/// cheaper one, and then the same seed no longer gives the same report.
#[inline]
pub(crate) fn decay(x: f64) -> f64 {
    // Two events on one instance are nearly always this close, and then five terms are exact to the last bit or so.
    if x < 1e-3 {
        let x = if x > 0.0 { x } else { 0.0 };
        return 1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0))));
    }
    if x.is_nan() { 1.0 } else { units::math::exp(-x) }
}

/// Spreads close keys over all 64 bits (one round of splitmix64): where a hash decides a place, this is the hash.
pub(crate) const fn scatter(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_falls_from_one_to_nothing() {
        for (x, expected) in [(0.0, 1.0), (-3.0, 1.0), (f64::NAN, 1.0), (f64::INFINITY, 0.0)] {
            assert_eq!(decay(x), expected, "{x}");
        }
        assert!((decay(0.5) - 0.606_530_659_712_633_4).abs() < 1e-15);
        for step in 1..2_000 {
            let x = f64::from(step) * 1e-6;
            assert!((decay(x) - units::math::exp(-x)).abs() <= 2.3e-16, "{x}");
        }
    }
}
