use super::*;
use crate::settings::{Balance, Locality};
use crate::{Health, Outcome};
use proptest::prelude::*;
use std::collections::BTreeMap;
use units::Rng;

const HOME: Place = Place { region: 0, zone: 0 };

fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    (0u64..)
        .zip(weights)
        .map(|(key, weight)| Endpoint { weight: *weight, ..Endpoint::new(key, HOME) })
        .collect()
}

fn balancer(kind: BalanceKind, endpoints: &[Endpoint]) -> Balancer {
    let mut balancer = Balancer::new(Balance { kind, ..Balance::default() }, Locality::PreferZone, HOME);
    balancer.refresh(endpoints);
    balancer
}

/// How often each instance is picked in `n` requests that end at once.
fn count(balancer: &mut Balancer, endpoints: &[Endpoint], n: usize) -> Vec<usize> {
    let (mut counts, mut rng) = (vec![0; endpoints.len()], Rng::from_seed(7));
    for _ in 0..n {
        counts[balancer.pick(endpoints, &Ask::default(), &mut rng).expect("somebody").index as usize] += 1;
    }
    counts
}

const KINDS: [BalanceKind; 6] = [
    BalanceKind::RoundRobin,
    BalanceKind::LeastRequest,
    BalanceKind::PeakEwma,
    BalanceKind::Random,
    BalanceKind::RingHash,
    BalanceKind::Maglev,
];

#[test]
fn weights_are_respected() {
    for weights in [vec![1, 1, 1, 1], vec![5, 1, 1], vec![10, 20, 30, 40], vec![1_000_000, 3_000_000]] {
        let total: u32 = weights.iter().sum();
        for kind in KINDS {
            let endpoints = endpoints(&weights);
            let counts = count(&mut balancer(kind, &endpoints), &endpoints, 70_000);
            for (count, weight) in counts.iter().zip(&weights) {
                let (seen, share) = (*count as f64 / 70_000.0, f64::from(*weight) / f64::from(total));
                // A ring's arcs are random: that is its price, and why Maglev exists.
                let tolerance = match kind {
                    BalanceKind::RoundRobin => 0.001,
                    BalanceKind::RingHash => 0.4,
                    _ => 0.03,
                };
                assert!((seen / share - 1.0).abs() < tolerance, "{kind:?} {weights:?}: {counts:?}");
            }
        }
    }
}

#[test]
fn two_choices_prefer_the_one_with_less_to_do() {
    let mut endpoints = endpoints(&[1, 1, 2]);
    endpoints[0].in_flight = 10;
    endpoints[1].in_flight = 2;
    endpoints[2].in_flight = 6; // three for each unit of weight
    let counts = count(&mut balancer(BalanceKind::LeastRequest, &endpoints), &endpoints, 10_000);
    assert_eq!(counts[0], 0, "loses against either");
    assert!(counts[1] > counts[2] / 2, "{counts:?}");
}

#[test]
fn peak_ewma_avoids_the_slow_and_the_failing() {
    let mut endpoints = endpoints(&[1, 1, 1]);
    for _ in 0..50 {
        for (index, (micros, outcome)) in [(10_000, 200), (40_000, 200), (50, 503)].into_iter().enumerate() {
            endpoints[index].on_start();
            endpoints[index].on_finish(Nanos(1), Nanos::from_micros(micros), Outcome::Status(outcome), None);
        }
    }
    let counts = count(&mut balancer(BalanceKind::PeakEwma, &endpoints), &endpoints, 9_000);
    assert!(counts[2] < 10, "failing fast is not fast: {counts:?}");
    assert!(counts[0] > 5_500, "{counts:?}");
    // Load outweighs speed in the end.
    endpoints[0].in_flight = 9;
    let counts = count(&mut balancer(BalanceKind::PeakEwma, &endpoints), &endpoints, 9_000);
    assert!(counts[1] > counts[0], "{counts:?}");
}

#[test]
fn nobody_is_asked_twice() {
    for kind in KINDS {
        let endpoints = endpoints(&[1; 12]);
        let (mut balancer, mut rng) = (balancer(kind, &endpoints), Rng::from_seed(3));
        let mut tried = Vec::new();
        for _ in 0..12 {
            let ask = Ask { tried: &tried, hash: Some(9), ..Ask::default() };
            let picked = balancer.pick(&endpoints, &ask, &mut rng).expect("some are left");
            assert!(!tried.contains(&picked.index), "{kind:?}");
            tried.push(picked.index);
        }
        let ask = Ask { tried: &tried, ..Ask::default() };
        assert_eq!(balancer.pick(&endpoints, &ask, &mut rng), Err(NoPick::AllTried), "{kind:?}");
    }
}

#[test]
fn a_key_keeps_its_instance() {
    for kind in [BalanceKind::RingHash, BalanceKind::Maglev] {
        let forwards = endpoints(&[1, 2, 3, 1, 2]);
        let mut backwards = forwards.clone();
        backwards.reverse();
        let (mut a, mut b) = (balancer(kind, &forwards), balancer(kind, &backwards));
        let mut rng = Rng::from_seed(1);
        for key in 0..500 {
            let ask = Ask { hash: Some(key), ..Ask::default() };
            let one = a.pick(&forwards, &ask, &mut rng).unwrap().index as usize;
            let two = b.pick(&backwards, &ask, &mut rng).unwrap().index as usize;
            assert_eq!(forwards[one].key, backwards[two].key, "{kind:?}: every caller agrees");
        }
    }
}

#[test]
fn losing_an_instance_moves_few_other_keys() {
    for (kind, moved_max) in [(BalanceKind::RingHash, 0.0), (BalanceKind::Maglev, 0.03)] {
        let mut all = endpoints(&[1; 10]);
        let mut balancer = balancer(kind, &all);
        let mut rng = Rng::from_seed(1);
        let mut place = |balancer: &mut Balancer, all: &[Endpoint]| {
            (0..20_000)
                .map(|key| {
                    let ask = Ask { hash: Some(key), ..Ask::default() };
                    balancer.pick(all, &ask, &mut rng).unwrap().index
                })
                .collect::<Vec<u32>>()
        };
        let before = place(&mut balancer, &all);
        all[4].health = Health::Unhealthy;
        balancer.refresh(&all);
        let after = place(&mut balancer, &all);
        let moved = before.iter().zip(&after).filter(|(a, b)| **a != 4 && a != b).count();
        assert!(moved as f64 <= moved_max * 20_000.0, "{kind:?}: {moved} of 20000 moved for nothing");
        assert!(!after.contains(&4));
    }
}

#[test]
fn versions_are_subsets() {
    let mut all = endpoints(&[1; 6]);
    (0..6).for_each(|it| all[it].version = (it % 2) as u16 + 1);
    all[5].health = Health::Unhealthy;
    let (mut balancer, mut rng) = (balancer(BalanceKind::LeastRequest, &all), Rng::from_seed(1));
    for _ in 0..200 {
        let ask = Ask { version: Some(2), ..Ask::default() };
        assert!([1, 3].contains(&balancer.pick(&all, &ask, &mut rng).unwrap().index));
    }
    let ask = Ask { version: Some(3), ..Ask::default() };
    assert_eq!(balancer.pick(&all, &ask, &mut rng), Err(NoPick::NoInstance));
}

#[test]
fn with_too_few_left_health_is_ignored() {
    let mut all = endpoints(&[1; 10]);
    (0..8).for_each(|it| all[it].health = Health::Unhealthy);
    all[0].health = Health::Draining;
    let mut balancer = balancer(BalanceKind::Random, &all);
    let counts = count(&mut balancer, &all, 10_000);
    assert_eq!(counts.iter().filter(|it| **it > 0).count(), 9, "all but the draining one: {counts:?}");
    assert!(balancer.pick(&all, &Ask::default(), &mut Rng::from_seed(1)).unwrap().panic);
    // Three of ten (of nine that count) are enough.
    all[1].health = Health::Healthy;
    balancer.refresh(&all);
    assert_eq!(count(&mut balancer, &all, 10_000).iter().filter(|it| **it > 0).count(), 3);
}

#[test]
fn without_panic_nobody_healthy_is_nobody() {
    let mut all = endpoints(&[1; 3]);
    all.iter_mut().for_each(|it| it.health = Health::Unhealthy);
    let settings = Balance { panic: Percent::ZERO, ..Balance::default() };
    let mut balancer = Balancer::new(settings, Locality::Any, HOME);
    let mut rng = Rng::from_seed(1);
    assert_eq!(balancer.pick(&all, &Ask::default(), &mut rng), Err(NoPick::NoInstance), "before any refresh");
    balancer.refresh(&all);
    assert_eq!(balancer.pick(&all, &Ask::default(), &mut rng), Err(NoPick::NoneAvailable));
}

#[test]
fn slow_start_ramps_up() {
    for kind in [BalanceKind::RoundRobin, BalanceKind::LeastRequest, BalanceKind::Random] {
        let mut all = endpoints(&[1; 4]);
        all[0].joined = Some(Nanos::ZERO);
        let settings = Balance { kind, slow_start: Nanos::from_secs(60), ..Balance::default() };
        let mut balancer = Balancer::new(settings, Locality::Any, HOME);
        balancer.refresh(&all);
        for (age, ramp) in [(0, 0.1), (15, 0.25), (30, 0.5), (60, 1.0)] {
            let (mut rng, mut young) = (Rng::from_seed(5), 0);
            for _ in 0..40_000 {
                let ask = Ask { now: Nanos::from_secs(age), ..Ask::default() };
                young += usize::from(balancer.pick(&all, &ask, &mut rng).unwrap().index == 0);
            }
            let (seen, share) = (young as f64 / 40_000.0, ramp / (3.0 + ramp));
            // Two distinct choices with ties going to the first keep the first draw's shares.
            assert!((seen - share).abs() < 0.02, "{kind:?} at {age} s: {seen} against {share}");
        }
    }
}

fn zoned(per_zone: &[u64]) -> Vec<Endpoint> {
    let zones = (0u16..).zip(per_zone).flat_map(|(zone, n)| (0..*n).map(move |it| (zone, it)));
    zones.map(|(zone, it)| Endpoint::new(u64::from(zone) * 100 + it, Place { region: 0, zone })).collect()
}

#[test]
fn zones_share_as_the_callers_are_spread() {
    let all = zoned(&[25, 50, 25]);
    let mut balancer = balancer(BalanceKind::LeastRequest, &all);
    balancer.set_callers(&[
        (HOME, 40),
        (Place { region: 0, zone: 1 }, 40),
        (Place { region: 0, zone: 2 }, 20),
    ]);
    balancer.refresh(&all);
    let counts = count(&mut balancer, &all, 40_000);
    let mut zones = BTreeMap::<u16, usize>::new();
    counts.iter().zip(&all).for_each(|(n, it)| *zones.entry(it.place.zone).or_default() += n);
    for (zone, share) in [(0, 0.625), (1, 0.25), (2, 0.125)] {
        assert!((zones[&zone] as f64 / 40_000.0 - share).abs() < 0.01, "{zones:?}");
    }
}

#[test]
fn a_filled_zone_spills_over() {
    let mut all = zoned(&[2, 2]);
    all.iter_mut().for_each(|it| it.capacity = 4);
    let mut balancer = balancer(BalanceKind::LeastRequest, &all);
    // Every third request goes elsewhere only once the home instances are full.
    let counts = count(&mut balancer, &all, 1_000);
    assert_eq!(counts[2] + counts[3], 0);
    all[0].in_flight = 4;
    all[1].in_flight = 4;
    let mut callers = balancer.clone();
    callers.set_callers(&[(HOME, 2), (Place { region: 0, zone: 1 }, 1)]);
    callers.refresh(&all);
    let counts = count(&mut callers, &all, 1_000);
    assert_eq!(counts[0] + counts[1], 0, "the other zone has room: {counts:?}");
}

#[test]
fn zone_only_never_leaves_even_in_panic() {
    let mut all = zoned(&[2, 8]);
    all[0].health = Health::Unhealthy;
    all[1].health = Health::Unhealthy;
    let mut balancer = Balancer::new(Balance::default(), Locality::ZoneOnly, HOME);
    balancer.refresh(&all);
    let counts = count(&mut balancer, &all, 100);
    assert_eq!(counts[2..].iter().sum::<usize>(), 0, "{counts:?}");
}

proptest! {
    /// Whatever the state of the slice, a pick is allowed, and there is one whenever somebody is allowed.
    #[test]
    fn picks_are_lawful(
        kind in 0usize..6,
        locality in 0usize..5,
        panic in 0u64..100,
        states in prop::collection::vec((0u32..4, 0u16..4, 0u16..3, 0u8..4, 0u32..9, 0u32..9), 0..20),
        stale in prop::collection::vec(0u8..4, 20),
        tried in prop::collection::vec(0u32..20, 0..6),
        version in prop::option::of(0u16..3),
        seed: u64,
    ) {
        let kind = KINDS[kind];
        use Locality::*;
        let locality = [Any, PreferZone, PreferRegion, ZoneOnly, RegionOnly][locality];
        let health = |it: u8| [Health::Healthy, Health::Unhealthy, Health::Draining, Health::Gone][it as usize];
        let mut all: Vec<Endpoint> = (0u64..)
            .zip(&states)
            .map(|(key, (weight, zone, version, state, in_flight, capacity))| Endpoint {
                weight: *weight,
                version: *version,
                health: health(*state),
                in_flight: *in_flight,
                capacity: *capacity,
                ..Endpoint::new(key, Place { region: zone / 2, zone: *zone })
            })
            .collect();
        let settings = Balance { kind, panic: Percent::from_whole(panic), ..Balance::default() };
        let mut balancer = Balancer::new(settings, locality, HOME);
        let mut rng = Rng::from_seed(seed);
        let ask = Ask { now: Nanos(seed), hash: Some(seed), version, tried: &tried };
        let belongs = |it: &Endpoint| {
            version.is_none_or(|version| it.version == version)
                && match locality {
                    ZoneOnly => it.place == HOME,
                    RegionOnly => it.place.region == 0,
                    _ => true,
                }
        };
        balancer.refresh(&all);
        for round in 0..2 {
            match balancer.pick(&all, &ask, &mut rng) {
                Ok(picked) => {
                    let endpoint = &all[picked.index as usize];
                    prop_assert!(belongs(endpoint) && !tried.contains(&picked.index));
                    let usable = if picked.panic { endpoint.is_last_resort() } else { endpoint.is_available() };
                    prop_assert!(usable);
                }
                Err(why) if round == 0 => {
                    let left = (0u32..).zip(&all).any(|(index, it)| belongs(it) && it.is_available() && !tried.contains(&index));
                    prop_assert!(!left, "{:?} though somebody is left", why);
                }
                Err(_) => {}
            }
            // Health moves on without a refresh: still nobody unusable may be picked.
            all.iter_mut().zip(&stale).for_each(|(it, state)| it.health = health(*state));
        }
    }
}

#[test]
fn a_retry_leaves_the_zone_when_the_zone_is_used_up() {
    // Found by the law above: all shares were at home, and the other zone was forgotten.
    let all = zoned(&[1, 1]);
    let (mut balancer, mut rng) = (balancer(BalanceKind::LeastRequest, &all), Rng::from_seed(1));
    let first = balancer.pick(&all, &Ask::default(), &mut rng).unwrap();
    assert_eq!((first.index, first.home), (0, true));
    let second = balancer.pick(&all, &Ask { tried: &[0], ..Ask::default() }, &mut rng).unwrap();
    assert_eq!((second.index, second.home), (1, false));
}
