//! The few functions of analysis a policy needs, written with IEEE additions and multiplications only.
//!
//! The platform's `exp` differs in its last bit between machines. One bit decides which of two instances is the
//! cheaper one, one decision moves every event after it, and then the same seed no longer gives the same report.

/// e^−x for x ≥ 0, within two units in the last place; 1 for negative or not-a-number input.
pub(crate) fn decay(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return 1.0;
    }
    if x > 700.0 {
        return 0.0;
    }
    let halvings = (x * std::f64::consts::LOG2_E).round();
    // ln 2 in two parts, so that the reduction itself loses nothing.
    let rest = -((x - halvings * 6.931_471_803_691_238e-1) - halvings * 1.908_214_929_270_587_7e-10);
    let mut sum = 1.0;
    // Horner's scheme of the Taylor series: |rest| ≤ 0.35, so the fourteenth term is below 1e-17.
    for n in (1..=14u32).rev() {
        sum = 1.0 + sum * rest / f64::from(n);
    }
    sum * f64::from_bits((1023 - halvings as u64) << 52)
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
    fn decay_agrees_with_the_platform_to_the_last_digits() {
        for step in 0..70_000 {
            let x = f64::from(step) / 100.0;
            let (ours, theirs) = (decay(x), (-x).exp());
            assert!((ours - theirs).abs() <= theirs * 1e-15 + 1e-320, "e^-{x}: {ours:e} against {theirs:e}");
        }
        assert_eq!(decay(0.0), 1.0);
        assert_eq!(decay(f64::NAN), 1.0);
        assert_eq!(decay(-3.0), 1.0);
        assert_eq!(decay(f64::INFINITY), 0.0);
    }
}
