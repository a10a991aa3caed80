//! What caches, stores and queues remember. All of it is bounded, and says so when it is full.

use super::behaviour::Cache;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};
use units::Rng;

/// A cache with real keys, drawn by Zipf's law and evicted when it is full; or, if only a hit rate is known, a coin.
#[derive(Debug)]
pub(crate) struct CacheState {
    settings: Cache,
    /// Key to (when it was filled, when it was last used).
    entries: HashMap<u64, (Instant, u64)>,
    /// Last use to key: the first is the one to evict.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    /// It starts warm, as its forecast does: the most popular keys, below this, are there although nobody asked for them
    /// yet. They are older than every entry, the least popular the oldest, so they need no entries to leave in order.
    warm_end: u64,
    warm_left: usize,
    /// When those were filled.
    born: Option<Instant>,
    zipf: Zipf,
    /// With only a hit rate, a flush is remembered as the share of the content that is still missing.
    missing: f64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

impl CacheState {
    pub(crate) fn new(settings: Cache) -> Self {
        let zipf = Zipf::new(settings.keys, settings.zipf);
        let warm = settings.capacity.min(usize::try_from(settings.keys).unwrap_or(usize::MAX));
        Self {
            settings,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            warm_end: warm as u64,
            warm_left: warm,
            born: None,
            zipf,
            missing: 0.0,
            hits: 0,
            misses: 0,
        }
    }

    /// One look-up of a key of luck's choosing. A miss fills the entry: its caller fetches what was missing.
    pub(crate) fn look_up(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let hit = match self.settings.hit_rate {
            Some(rate) => {
                let hit = rng.chance(rate.fraction() * (1.0 - self.missing));
                // Every miss brings one of about a thousand hot keys back.
                if !hit {
                    self.missing = (self.missing - 0.001).max(0.0);
                }
                hit
            }
            None => self.look_up_key(now, rng),
        };
        *if hit { &mut self.hits } else { &mut self.misses } += 1;
        hit
    }

    fn look_up_key(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let key = self.zipf.draw(rng);
        self.uses += 1;
        let ttl = self.settings.ttl.map(|it| Duration::from_nanos(it.as_u64()));
        let born = *self.born.get_or_insert(now);
        let known = self.entries.get(&key).copied();
        let is_warm = known.is_none() && key < self.warm_end;
        let filled = known.map(|(filled, _)| filled).or(is_warm.then_some(born));
        let filled = filled.filter(|it| ttl.is_none_or(|ttl| now.saturating_duration_since(*it) < ttl));
        let (fresh, filled) = (filled.is_some(), filled.unwrap_or(now));
        if let Some((_, used)) = known {
            self.by_use.remove(&used);
        } else if is_warm {
            self.warm_left -= 1;
        } else if self.entries.len() + self.warm_left >= self.settings.capacity {
            self.evict();
        }
        self.entries.insert(key, (filled, self.uses));
        self.by_use.insert(self.uses, key);
        fresh
    }

    /// The least recently used goes.
    fn evict(&mut self) {
        while self.warm_left > 0 && self.warm_end > 0 {
            self.warm_end -= 1;
            if !self.entries.contains_key(&self.warm_end) {
                self.warm_left -= 1;
                return;
            }
        }
        (self.warm_left, self.warm_end) = (0, 0);
        if let Some((_, oldest)) = self.by_use.pop_first() {
            self.entries.remove(&oldest);
        }
    }

    pub(crate) fn flush(&mut self) {
        (self.warm_left, self.warm_end) = (0, 0);
        self.entries.clear();
        self.by_use.clear();
        self.missing = 1.0;
    }
}

/// Draws 0..n with P(k) proportional to 1/(k+1)^s, exactly and without a table of n entries: a point is drawn under the
/// curve x^-s, which lies above the bars of the law, and is drawn again if it is not inside its bar (rejection-inversion,
/// Hörmann and Derflinger 1996). It takes less than one and a half draws whatever the exponent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipf {
    n: f64,
    exponent: f64,
    /// The areas where the first bar begins and the last one ends.
    area_first: f64,
    area_last: f64,
    /// Nearer than this to its rank, a point is inside the bar for certain.
    certain: f64,
}

impl Zipf {
    pub(crate) fn new(n: u64, exponent: f64) -> Self {
        let exponent = exponent.clamp(0.0, 10.0);
        let mut zipf = Self { n: n.max(1) as f64, exponent, area_first: 0.0, area_last: 0.0, certain: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(zipf.n + 0.5);
        zipf.certain = 2.0 - zipf.point(zipf.area(2.5) - 2f64.powf(-exponent));
        zipf
    }

    /// The area under the curve from 1 to `x`.
    fn area(self, x: f64) -> f64 {
        let one_less = 1.0 - self.exponent;
        let log = x.ln();
        // For an exponent near 1 the quotient is nothing by nothing; its limit is the logarithm.
        if (one_less * log).abs() < 1e-9 { log } else { (one_less * log).exp_m1() / one_less }
    }

    /// Where the area from 1 is `area`.
    fn point(self, area: f64) -> f64 {
        let part = area * (1.0 - self.exponent);
        if part.abs() < 1e-9 { area.exp() } else { (part.max(-1.0).ln_1p() / (1.0 - self.exponent)).exp() }
    }

    pub(crate) fn draw(self, rng: &mut Rng) -> u64 {
        // Bounded: the chance to be refused so often is nothing.
        for _ in 0..64 {
            let area = self.area_last + rng.unit() * (self.area_first - self.area_last);
            let point = self.point(area);
            let rank = point.round().clamp(1.0, self.n);
            if rank - point <= self.certain || area >= self.area(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u64 - 1;
            }
        }
        0
    }
}

/// What was written to a store, by path. Beyond its limit the oldest goes, and is counted.
#[derive(Debug, Default)]
pub(crate) struct StoreState {
    entries: HashMap<String, Bytes>,
    order: VecDeque<String>,
    bytes: usize,
    pub(crate) evicted: u64,
}

const STORE_ENTRIES_MAX: usize = 10_000;
const STORE_BYTES_MAX: usize = 16 << 20;

impl StoreState {
    pub(crate) fn put(&mut self, path: &str, value: Bytes) {
        if value.len() > STORE_BYTES_MAX {
            self.evicted += 1;
            return;
        }
        self.bytes += value.len();
        match self.entries.insert(path.to_owned(), value) {
            Some(old) => self.bytes -= old.len(),
            None => self.order.push_back(path.to_owned()),
        }
        while self.entries.len() > STORE_ENTRIES_MAX || self.bytes > STORE_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(old) = self.entries.remove(&oldest) {
                self.bytes -= old.len();
                self.evicted += 1;
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.entries.get(path).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{Nanos, Percent};

    fn cache(hit_rate: Option<u64>, keys: u64, capacity: usize, ttl: Option<Nanos>) -> CacheState {
        let hit_rate = hit_rate.map(Percent::from_whole);
        CacheState::new(Cache { hit_rate, keys, capacity, zipf: 0.9, ttl })
    }

    fn hit_share(cache: &mut CacheState, from: Instant, rng: &mut Rng) -> f64 {
        let hits = (0..10_000u64).filter(|n| cache.look_up(from + Duration::from_millis(*n), rng)).count();
        hits as f64 / 10_000.0
    }

    #[test]
    fn caches_hit_as_often_as_their_law_says() {
        let start = super::super::timer::now();
        let mut rng = Rng::from_seed(1);
        let mut coin = cache(Some(90), 1, 1, None);
        assert!((0.89..0.91).contains(&hit_share(&mut coin, start, &mut rng)));
        coin.flush();
        assert!(!coin.look_up(start, &mut rng));
        assert!(hit_share(&mut coin, start, &mut rng) < 0.88, "a flushed cache is cold first");

        let mut small = cache(None, 1_000, 100, None);
        let mut whole = cache(None, 1_000, 1_000, None);
        let (some, most) = (hit_share(&mut small, start, &mut rng), hit_share(&mut whole, start, &mut rng));
        assert!(some < most && 0.3 < some && 0.9 < most, "{some} {most}");
        assert_eq!((small.entries.len(), small.by_use.len()), (100, 100));

        let mut brief = cache(None, 1_000, 1_000, Some(Nanos::from_millis(50)));
        let stale = hit_share(&mut brief, start, &mut rng);
        assert!(stale < most - 0.2, "{stale} {most}");
    }

    #[test]
    fn a_cache_starts_warm_and_a_flushed_one_is_cold() {
        let start = super::super::timer::now();
        let mut rng = Rng::from_seed(3);
        let hits =
            |cache: &mut CacheState, rng: &mut Rng| (0..1_000).filter(|_| cache.look_up(start, rng)).count();
        // Room for half of a million keys that are nearly equally popular: cold, hardly any of a thousand would hit.
        let large = Cache { hit_rate: None, keys: 1_000_000, capacity: 500_000, zipf: 0.0, ttl: None };
        let mut cache = CacheState::new(large);
        assert!((450..550).contains(&hits(&mut cache, &mut rng)), "half of them are there");
        assert!(cache.entries.len() <= 1_000, "and cost nothing until they are asked for");
        assert_eq!(cache.entries.len() + cache.warm_left, 500_000, "never more than its capacity");
        cache.flush();
        assert!(hits(&mut cache, &mut rng) < 5);
    }

    /// How often each rank is drawn, against the law itself: within five standard errors.
    #[track_caller]
    fn check_zipf(n: u64, exponent: f64) {
        const DRAWS: u32 = 200_000;
        let (zipf, mut rng) = (Zipf::new(n, exponent), Rng::from_seed(2));
        let mut counts = vec![0u32; n as usize];
        (0..DRAWS).for_each(|_| counts[zipf.draw(&mut rng) as usize] += 1);
        let weights: Vec<f64> = (1..=n).map(|rank| (rank as f64).powf(-exponent)).collect();
        let sum: f64 = weights.iter().sum();
        let half = n as usize / 2;
        let of = |counts: &[u32]| f64::from(counts.iter().sum::<u32>()) / f64::from(DRAWS);
        let seen = [counts[0], counts[n as usize / 9]].map(|it| f64::from(it) / f64::from(DRAWS));
        let expected =
            [weights[0] / sum, weights[n as usize / 9] / sum, weights[half..].iter().sum::<f64>() / sum];
        for (seen, expected) in seen.into_iter().chain([of(&counts[half..])]).zip(expected) {
            let error = (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt();
            assert!((seen - expected).abs() <= 5.0 * error + 1e-9, "{n} {exponent}: {seen} for {expected}");
        }
    }

    #[test]
    fn popularity_is_zipfs_law_itself() {
        for exponent in [0.0, 0.5, 0.9, 0.999_999_999_9, 1.0, 1.1, 2.0, 10.0] {
            check_zipf(1_000, exponent);
        }
        check_zipf(1, 1.0);
        check_zipf(2, 0.9);
        check_zipf(200_000, 1.0);
    }

    #[test]
    fn a_store_keeps_the_newest() {
        let mut store = StoreState::default();
        for n in 0..STORE_ENTRIES_MAX + 5 {
            store.put(&n.to_string(), Bytes::from_static(b"x"));
        }
        assert_eq!((store.get("4"), store.evicted), (None, 5));
        assert_eq!(store.get("5"), Some(Bytes::from_static(b"x")));
        store.put("5", Bytes::from_static(b"yy"));
        assert_eq!(store.bytes, STORE_ENTRIES_MAX + 1);
    }
}
