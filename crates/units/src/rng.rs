//! Random numbers that belong to somebody.
//!
//! A simulation that shares one generator changes every draw when one event moves: two designs can then not be
//! compared with the same luck. So each stream is keyed by (seed, entity, purpose): what `cart` draws for its work
//! does not depend on what `web` drew before, nor on the order of events.
//!
//! The generator is PCG XSL-RR 128/64. Its output for a key is part of our file format: golden values below must
//! never change, or every recorded forecast would.

/// What a stream of random numbers is for. Numbers are part of the golden values: add at the end, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Purpose {
    Arrival = 1,
    Work = 2,
    Route = 3,
    Balance = 4,
    Network = 5,
    Error = 6,
    Backoff = 7,
    Fault = 8,
    Cache = 9,
    Sampling = 10,
    Layout = 11,
    Shuffle = 12,
    Think = 13,
    Scale = 14,
    Test = 15,
}

/// A seeded generator. Cheap to make, so make one for each (entity, purpose) and not one for the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u128,
    increment: u128,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// One round of splitmix64: turns close keys (seed 1, seed 2) into unrelated states.
const fn scramble(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    pub fn from_seed(seed: u64) -> Self {
        Self::keyed(seed, 0, 0)
    }

    /// The stream of `entity` (its stable number) for `purpose` under `seed`.
    pub fn stream(seed: u64, entity: u64, purpose: Purpose) -> Self {
        Self::keyed(seed, entity, purpose as u64)
    }

    fn keyed(seed: u64, entity: u64, purpose: u64) -> Self {
        let a = scramble(seed);
        let b = scramble(a ^ scramble(entity.wrapping_add(0x51_7C_C1_B7_27_22_0A_95)));
        let c = scramble(b ^ scramble(purpose.wrapping_add(0x2545_F491_4F6C_DD1D)));
        let d = scramble(c);
        let mut rng = Self { state: 0, increment: ((u128::from(c) << 64 | u128::from(d)) << 1) | 1 };
        rng.state = rng.increment.wrapping_add(u128::from(a) << 64 | u128::from(b));
        rng.next_u64();
        rng
    }

    /// An independent stream for the `n`th child: a request, a replication.
    pub fn split(&self, n: u64) -> Self {
        Self::keyed((self.state >> 64) as u64 ^ self.state as u64, n, (self.increment >> 1) as u64)
    }

    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in (0, 1]: safe to take a logarithm of.
    #[inline]
    pub fn unit_open(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n without bias (Lemire's method). Zero for n = 0, so that an empty set needs no special case.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    #[inline]
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_golden() {
        let mut rng = Rng::stream(7, 3, Purpose::Work);
        let drawn: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, GOLDEN, "a change here changes every recorded forecast");
    }

    #[test]
    fn streams_do_not_overlap() {
        let mut seen = std::collections::HashSet::new();
        for entity in 0..200 {
            for purpose in [Purpose::Arrival, Purpose::Work, Purpose::Route] {
                assert!(seen.insert(Rng::stream(1, entity, purpose).next_u64()));
            }
        }
    }

    #[test]
    fn below_is_uniform_and_total() {
        let mut rng = Rng::from_seed(1);
        assert_eq!(rng.below(0), 0);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    const GOLDEN: [u64; 4] =
        [16474886056424705340, 6781199452216991284, 6731473808408250670, 7922704351897187225];
}
