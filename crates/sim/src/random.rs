//! Luck that belongs to a request.
//!
//! Two designs can only be compared with the same luck if what a request draws does not depend on what happened around it. So
//! nothing draws from a shared stream: a request is a key, each call it makes is a child key, and a draw is a hash of
//! (key, purpose). Adding a service, an instance or a retry moves no other draw.

use units::{Purpose, Rng};

/// A point in the tree of keys: a run, a traffic's n-th request, the second call of its third hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw(u64);

/// Steele and Vigna's variant 13 of the splitmix finaliser: every input bit reaches every output bit.
#[inline]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN)))
    }

    /// The `n`-th below this one.
    #[inline]
    pub(crate) const fn child(self, n: u64) -> Self {
        Self(mix(self.0 ^ mix(n.wrapping_mul(GOLDEN).wrapping_add(0x5851_F42D_4C95_7F2D))))
    }

    #[inline]
    pub(crate) const fn for_purpose(self, purpose: Purpose) -> Self {
        Self(mix(self.0.wrapping_add((purpose as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93))))
    }

    /// Uniform in [0, 1).
    #[inline]
    pub(crate) fn unit(self) -> f64 {
        (self.0 >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in (0, 1]: the tail a sampler takes.
    #[inline]
    pub(crate) fn tail(self) -> f64 {
        ((self.0 >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole generator, for a policy that wants several numbers.
    #[inline]
    pub(crate) fn rng(self) -> Rng {
        Rng::from_seed(self.0)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_golden() {
        let root = Draw::new(7);
        let drawn =
            [root, root.child(0), root.child(1), root.child(0).for_purpose(Purpose::Work)].map(Draw::bits);
        assert_eq!(drawn, GOLDEN_DRAWS, "a change here changes every recorded forecast");
    }

    const GOLDEN_DRAWS: [u64; 4] =
        [0x63CB_E1E4_5932_0DD7, 0x5EA2_DE57_1094_074A, 0x5A2B_1252_468A_A7D7, 0xCE55_93ED_3E17_943F];

    #[test]
    fn children_are_uniform_and_unrelated() {
        let root = Draw::new(1);
        let mut cells = [[0u32; 16]; 16];
        for n in 0..256_000 {
            let child = root.child(n);
            let (a, b) =
                (child.for_purpose(Purpose::Work).unit(), child.for_purpose(Purpose::Network).unit());
            cells[(a * 16.0) as usize][(b * 16.0) as usize] += 1;
        }
        // 1,000 expected in each of 256 cells: χ² has mean 255 and standard deviation 22.6.
        let chi: f64 = cells.iter().flatten().map(|n| (f64::from(*n) - 1_000.0).powi(2) / 1_000.0).sum();
        assert!((255.0 - 5.0 * 22.6..255.0 + 5.0 * 22.6).contains(&chi), "{chi}");
    }
}
