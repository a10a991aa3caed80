//! Caches: which requests hit, cold or warm.
//!
//! With `keys` a cache is simulated key by key: popularity follows Zipf's law, the least recently used key leaves, an
//! entry older than its `ttl` is a miss. A flush is then followed by just the misses a real one would have. With only a
//! `hit_rate` the misses are drawn, and after a flush the rate climbs back as if `capacity` keys had to be fetched again.

use crate::plan::CachePlan;
use crate::random::Draw;
use units::{Nanos, math};

/// Keys simulated one by one; beyond this the popular head is what matters and the table would not fit a cache of ours.
const KEYS_MAX: u32 = 4_000_000;

#[derive(Debug)]
pub(crate) struct Cache {
    mode: Mode,
    ttl: Option<Nanos>,
}

#[derive(Debug)]
enum Mode {
    Drawn { hit_rate: f64, warmth: f64, misses_since_flush: u64 },
    Keyed(Box<Lru>),
}

impl Cache {
    pub(crate) fn new(plan: &CachePlan) -> Self {
        let mode = match (plan.hit_rate, plan.keys) {
            (Some(hit_rate), _) => Mode::Drawn {
                hit_rate,
                warmth: f64::from(plan.capacity.max(1)),
                // A forecast starts warm; only a flush makes it cold.
                misses_since_flush: u64::MAX,
            },
            (None, keys) => {
                let keys = keys.unwrap_or(plan.capacity).clamp(1, KEYS_MAX);
                Mode::Keyed(Box::new(Lru::new(keys, plan.capacity.clamp(1, keys), plan.zipf)))
            }
        };
        Self { mode, ttl: plan.ttl }
    }

    /// Whether this request finds its answer. A miss is filled at once: the fetch that follows is what fills it.
    pub(crate) fn lookup(&mut self, now: Nanos, draw: Draw) -> bool {
        match &mut self.mode {
            Mode::Drawn { hit_rate, warmth, misses_since_flush } => {
                let warm = if *misses_since_flush == u64::MAX {
                    1.0
                } else {
                    1.0 - math::exp(-(*misses_since_flush as f64) / *warmth)
                };
                let hit = draw.unit() < *hit_rate * warm;
                if !hit {
                    *misses_since_flush = misses_since_flush.saturating_add(1);
                }
                hit
            }
            Mode::Keyed(lru) => {
                let key = lru.key(draw.unit());
                lru.lookup(key, now, self.ttl)
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        match &mut self.mode {
            Mode::Drawn { misses_since_flush, .. } => *misses_since_flush = 0,
            Mode::Keyed(lru) => lru.flush(),
        }
    }

    /// The most popular keys are there from the start: what a warm cache of this size would roughly hold.
    pub(crate) fn warm(&mut self, now: Nanos) {
        if let Mode::Keyed(lru) = &mut self.mode {
            for key in (0..lru.capacity).rev() {
                lru.lookup(key, now, None);
            }
        }
    }
}

const NIL: u32 = u32::MAX;

/// A cache of the least recently used, in arrays: no hashing, as keys are small numbers.
#[derive(Debug)]
struct Lru {
    capacity: u32,
    /// Cumulative popularity of keys 0..n, the most popular first.
    popularity: Vec<f64>,
    /// Slot of each key, or NIL.
    slot_of: Vec<u32>,
    slots: Vec<Slot>,
    newest: u32,
    oldest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u32,
    newer: u32,
    older: u32,
    stored: Nanos,
}

impl Lru {
    fn new(keys: u32, capacity: u32, zipf: f64) -> Self {
        let mut sum = 0.0;
        let mut popularity: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += math::pow(f64::from(rank), -zipf);
                sum
            })
            .collect();
        popularity.iter_mut().for_each(|it| *it /= sum);
        Self {
            capacity,
            popularity,
            slot_of: vec![NIL; keys as usize],
            slots: Vec::with_capacity(capacity as usize),
            newest: NIL,
            oldest: NIL,
        }
    }

    fn key(&self, unit: f64) -> u32 {
        (self.popularity.partition_point(|it| *it <= unit) as u32).min(self.slot_of.len() as u32 - 1)
    }

    fn lookup(&mut self, key: u32, now: Nanos, ttl: Option<Nanos>) -> bool {
        let slot = self.slot_of[key as usize];
        if slot != NIL {
            self.unlink(slot);
            self.push_newest(slot);
            let stored = &mut self.slots[slot as usize].stored;
            let fresh = ttl.is_none_or(|ttl| now.saturating_sub(*stored) < ttl);
            if !fresh {
                *stored = now;
            }
            return fresh;
        }
        let slot = if (self.slots.len() as u32) < self.capacity {
            self.slots.push(Slot { key, newer: NIL, older: NIL, stored: now });
            self.slots.len() as u32 - 1
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            self.slot_of[self.slots[slot as usize].key as usize] = NIL;
            self.slots[slot as usize] = Slot { key, newer: NIL, older: NIL, stored: now };
            slot
        };
        self.slot_of[key as usize] = slot;
        self.push_newest(slot);
        false
    }

    fn unlink(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match newer {
            NIL => self.newest = older,
            _ => self.slots[newer as usize].older = older,
        }
        match older {
            NIL => self.oldest = newer,
            _ => self.slots[older as usize].newer = newer,
        }
    }

    fn push_newest(&mut self, slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        self.slots[slot as usize].newer = NIL;
        self.slots[slot as usize].older = older;
        match older {
            NIL => self.oldest = slot,
            _ => self.slots[older as usize].newer = slot,
        }
    }

    fn flush(&mut self) {
        self.slot_of.fill(NIL);
        self.slots.clear();
        (self.newest, self.oldest) = (NIL, NIL);
    }
}

/// The hit rate of a warm cache: what the file says, or Che's approximation: with T solving Σ(1 − e^(−λᵢT)) = capacity,
/// key i is hit with chance 1 − e^(−λᵢT).
pub(crate) fn expected_hit_rate(plan: &CachePlan) -> f64 {
    if let Some(hit_rate) = plan.hit_rate {
        return hit_rate;
    }
    let keys = plan.keys.unwrap_or(plan.capacity).clamp(1, KEYS_MAX);
    let capacity = f64::from(plan.capacity.clamp(1, keys));
    if capacity >= f64::from(keys) {
        return 1.0;
    }
    // Far from the head neighbours are alike: they are taken in groups that grow with their rank.
    let mut groups: Vec<(f64, f64)> = Vec::new();
    let (mut rank, mut sum) = (1u32, 0.0);
    while rank <= keys {
        let size = (rank / 200).max(1).min(keys - rank + 1);
        let middle = f64::from(rank) + 0.5 * f64::from(size - 1);
        let popularity = math::pow(middle, -plan.zipf);
        sum += popularity * f64::from(size);
        groups.push((popularity, f64::from(size)));
        rank += size;
    }
    let filled = |t: f64| groups.iter().map(|(p, n)| n * (1.0 - math::exp(-p / sum * t))).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    while filled(high) < capacity && high < 1e15 {
        high *= 2.0;
    }
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if filled(middle) < capacity { low = middle } else { high = middle }
    }
    groups.iter().map(|(p, n)| n * p / sum * (1.0 - math::exp(-p / sum * high))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(keys: u32, capacity: u32, zipf: f64) -> CachePlan {
        CachePlan { hit_rate: None, keys: Some(keys), capacity, zipf, ttl: None }
    }

    /// Exact simulation of the least recently used against Che's approximation, which is good to 0.2 %.
    #[test]
    fn lru_under_zipf_hits_as_often_as_che_says() {
        for (keys, capacity, zipf) in [(2_000, 100, 0.9), (2_000, 500, 0.7), (500, 50, 1.2)] {
            let plan = plan(keys, capacity, zipf);
            let mut cache = Cache::new(&plan);
            cache.warm(Nanos::ZERO);
            let draws = 400_000u64;
            let mut hits = 0u64;
            for n in 0..draws + 20_000 {
                let hit = cache.lookup(Nanos(n), Draw::new(1).child(n));
                hits += u64::from(hit && n >= 20_000);
            }
            let (share, expected) = (hits as f64 / draws as f64, expected_hit_rate(&plan));
            assert!((share - expected).abs() < 0.005, "{keys}/{capacity}/{zipf}: {share} for {expected}");
        }
    }

    #[test]
    fn a_flush_makes_it_cold_and_old_entries_miss() {
        let mut cache = Cache::new(&CachePlan { ttl: Some(Nanos(100)), ..plan(1, 1, 0.9) });
        let hit = |cache: &mut Cache, at| cache.lookup(Nanos(at), Draw::new(at));
        assert!(!hit(&mut cache, 0) && hit(&mut cache, 50) && hit(&mut cache, 99));
        assert!(!hit(&mut cache, 100) && hit(&mut cache, 101));
        cache.flush();
        assert!(!hit(&mut cache, 102) && hit(&mut cache, 103));
    }

    #[test]
    fn a_drawn_rate_comes_back_after_a_flush() {
        let plan = CachePlan { hit_rate: Some(0.9), keys: None, capacity: 100, zipf: 0.9, ttl: None };
        let mut cache = Cache::new(&plan);
        let share = |cache: &mut Cache, from: u64| {
            (from..from + 2_000).filter(|n| cache.lookup(Nanos(*n), Draw::new(3).child(*n))).count() as f64
                / 2_000.0
        };
        assert!((share(&mut cache, 0) - 0.9).abs() < 0.03);
        cache.flush();
        assert!(!cache.lookup(Nanos(0), Draw::new(5)), "nothing is there at once");
        assert!(share(&mut cache, 10_000) < 0.87);
        assert!((share(&mut cache, 20_000) - 0.9).abs() < 0.03);
    }
}
