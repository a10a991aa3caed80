//! How much traffic stays at home: which share of a caller's requests goes to which zone and region.
//!
//! Staying in the own zone is faster and free of transfer cost, until the zone has more callers than instances: then
//! "always local" drowns two instances beside ten idle ones. So a zone keeps what its instances can carry and spills
//! the rest to where capacity is left over.
//!
//! ```text
//! region:  kept = min(1, 1.4 · available/total) of the own region, while it has any instance; the rest by capacity
//! zone:    L_i = share of callers in zone i, U_i = share of available instances in zone i (both inside the region)
//!          U_0 ≥ L_0: everything stays.   Otherwise keep U_0/L_0, and spread the rest by max(0, U_i − L_i),
//!          or by U_i when no zone has anything left over.
//! ```
//! Every caller computes this alone and the sums still come out even: that is what the `L_i` are for. A caller that
//! does not know where the other callers are takes them to be spread evenly over all zones that exist.

use crate::endpoint::Place;
use crate::settings::Locality;

/// What one zone offers: the weights of its instances that are available, and of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub place: Place,
    pub available: u64,
    pub total: u64,
}

/// Traffic stays in the region until fewer than 1/1.4 of its instances are left.
const OVERPROVISIONED: f64 = 1.4;

/// The share of requests for each offer, in the same order; they sum to 1, or to 0 where nothing may be used.
///
/// Not on the decision path: computed when membership or health changes.
pub fn shares(locality: Locality, home: Place, callers: &[(Place, u64)], offers: &[Offer]) -> Vec<f64> {
    let in_region = |offer: &Offer| offer.place.region == home.region;
    let spread = |allowed: &dyn Fn(&Offer) -> bool| {
        let sum: u64 = offers.iter().filter(|it| allowed(it)).map(|it| it.available).sum();
        let share = |it: &Offer| if allowed(it) && sum > 0 { it.available as f64 / sum as f64 } else { 0.0 };
        offers.iter().map(share).collect::<Vec<f64>>()
    };
    match locality {
        Locality::Any => spread(&|_| true),
        Locality::ZoneOnly => spread(&|it| it.place == home),
        Locality::RegionOnly => spread(&in_region),
        Locality::PreferRegion | Locality::PreferZone => {
            let here =
                |field: fn(&Offer) -> u64| offers.iter().filter(|it| in_region(it)).map(field).sum::<u64>();
            let (available, total) = (here(|it| it.available), here(|it| it.total));
            let elsewhere: u64 = offers.iter().map(|it| it.available).sum::<u64>() - available;
            let kept = match (available, elsewhere) {
                (0, _) => 0.0,
                (_, 0) => 1.0,
                _ => (OVERPROVISIONED * available as f64 / total as f64).min(1.0),
            };
            let near = if locality == Locality::PreferZone {
                zones(home, callers, offers)
            } else {
                spread(&in_region)
            };
            let far = spread(&|it| !in_region(it));
            near.iter().zip(far).map(|(near, far)| kept * near + (1.0 - kept) * far).collect()
        }
    }
}

/// The zone rule inside the home region; other regions get nothing.
fn zones(home: Place, callers: &[(Place, u64)], offers: &[Offer]) -> Vec<f64> {
    let local = |it: &&Offer| it.place.region == home.region;
    let available: u64 = offers.iter().filter(local).map(|it| it.available).sum();
    if available == 0 {
        return vec![0.0; offers.len()];
    }
    let callers_here: u64 = callers.iter().filter(|(it, _)| it.region == home.region).map(|(_, n)| n).sum();
    let known = callers.iter().any(|(it, n)| *it == home && *n > 0);
    let home_offers = offers.iter().any(|it| it.place == home);
    let zones_here = offers.iter().filter(local).count() + usize::from(!home_offers);
    let callers_in = |place: Place| {
        if known {
            callers.iter().filter(|(it, _)| *it == place).map(|(_, n)| *n as f64).sum::<f64>()
                / callers_here as f64
        } else {
            1.0 / zones_here as f64
        }
    };
    let offered = |it: &Offer| it.available as f64 / available as f64;
    let at_home = offers.iter().filter(|it| it.place == home).map(offered).sum::<f64>();
    let wanted = callers_in(home);
    // A hair of tolerance, because 1/3 of the callers and 1/3 of the instances are the same third.
    let kept = if at_home >= wanted - 1e-9 { 1.0 } else { at_home / wanted };
    let left_over = |it: &Offer| (offered(it) - callers_in(it.place)).max(0.0);
    let others = || offers.iter().filter(local).filter(|it| it.place != home);
    let residual: f64 = others().map(left_over).sum();
    let rest: f64 = others().map(offered).sum();
    let share = |it: &Offer| match it.place {
        place if place.region != home.region => 0.0,
        place if place == home => kept,
        _ if residual > 1e-9 => (1.0 - kept) * left_over(it) / residual,
        _ if rest > 0.0 => (1.0 - kept) * offered(it) / rest,
        _ => 0.0,
    };
    offers.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: Place = Place { region: 0, zone: 0 };

    fn place(zone: u16) -> Place {
        Place { region: zone / 10, zone }
    }

    #[track_caller]
    fn check(locality: Locality, callers: &[(u16, u64)], offers: &[(u16, u64, u64)], expected: &[f64]) {
        let callers: Vec<_> = callers.iter().map(|(zone, n)| (place(*zone), *n)).collect();
        let offers: Vec<_> = offers
            .iter()
            .map(|(zone, available, total)| Offer {
                place: place(*zone),
                available: *available,
                total: *total,
            })
            .collect();
        let got = shares(locality, HOME, &callers, &offers);
        let close = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close && got.len() == expected.len(), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn the_published_example() {
        // Callers 40/40/20, instances 25/50/25.
        let callers = [(0, 40), (1, 40), (2, 20)];
        check(
            Locality::PreferZone,
            &callers,
            &[(0, 25, 25), (1, 50, 50), (2, 25, 25)],
            &[0.625, 0.25, 0.125],
        );
    }

    #[test]
    fn traffic_stays_home_while_it_can() {
        use Locality::*;
        let even = [(0, 1, 1), (1, 1, 1), (2, 1, 1)];
        check(PreferZone, &[], &even, &[1.0, 0.0, 0.0]);
        check(PreferRegion, &[], &even, &[1.0 / 3.0; 3]);
        check(Any, &[], &[(0, 1, 1), (11, 3, 3)], &[0.25, 0.75]);
        // The own zone lost half of its instances: half is kept, the rest goes where something is left over.
        check(PreferZone, &[], &[(0, 1, 2), (1, 2, 2), (2, 2, 2)], &[0.6, 0.2, 0.2]);
        // Nothing at home at all: zone 1 has 3/4 of the instances for 1/3 of the callers, zone 2 has nothing left over.
        check(PreferZone, &[], &[(1, 3, 3), (2, 1, 1)], &[1.0, 0.0]);
    }

    #[test]
    fn regions_spill_only_when_badly_hurt() {
        use Locality::*;
        check(PreferZone, &[], &[(0, 8, 10), (11, 10, 10)], &[1.0, 0.0]);
        check(PreferZone, &[], &[(0, 5, 10), (11, 10, 10)], &[0.7, 0.3]);
        check(PreferRegion, &[], &[(0, 0, 10), (11, 10, 10)], &[0.0, 1.0]);
        check(RegionOnly, &[], &[(0, 0, 10), (11, 10, 10)], &[0.0, 0.0]);
        check(ZoneOnly, &[], &[(0, 4, 10), (1, 10, 10)], &[1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_or_nothing_and_only_reach_what_is_available(
            kind in 0usize..5,
            offers in prop::collection::btree_map(0u16..30, (0u64..20, 0u64..20), 0..10),
            callers in prop::collection::btree_map(0u16..30, 0u64..20, 0..10),
        ) {
            use Locality::*;
            let locality = [Any, PreferZone, PreferRegion, ZoneOnly, RegionOnly][kind];
            let callers: Vec<_> = callers.into_iter().map(|(zone, n)| (place(zone), n)).collect();
            let offers: Vec<_> = offers
                .into_iter()
                .map(|(zone, (a, b))| Offer { place: place(zone), available: a.min(b), total: a.max(b) })
                .collect();
            let got = shares(locality, HOME, &callers, &offers);
            let sum: f64 = got.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-9 || sum == 0.0, "{:?}", got);
            for (share, offer) in got.iter().zip(&offers) {
                prop_assert!(*share >= 0.0 && (*share == 0.0 || offer.available > 0), "{:?} {:?}", got, offers);
            }
            let reachable = match locality {
                ZoneOnly => offers.iter().any(|it| it.available > 0 && it.place == HOME),
                RegionOnly => offers.iter().any(|it| it.available > 0 && it.place.region == 0),
                _ => offers.iter().any(|it| it.available > 0),
            };
            prop_assert_eq!(sum > 0.0, reachable);
        }

        /// Each zone's callers decide alone; together every instance gets the same load.
        #[test]
        fn all_callers_together_load_all_instances_alike(
            zones in prop::collection::vec((1u64..20, 1u64..20), 2..6),
        ) {
            let offers: Vec<_> = zones
                .iter()
                .enumerate()
                .map(|(zone, (n, _))| Offer { place: place(zone as u16), available: *n, total: *n })
                .collect();
            let callers: Vec<_> = zones.iter().enumerate().map(|(zone, (_, n))| (place(zone as u16), *n)).collect();
            let mut load = vec![0.0; zones.len()];
            for (home, weight) in &callers {
                let got = shares(Locality::PreferZone, *home, &callers, &offers);
                for (load, share) in load.iter_mut().zip(got) {
                    *load += share * *weight as f64;
                }
            }
            let all: u64 = callers.iter().map(|it| it.1).sum();
            let instances: u64 = offers.iter().map(|it| it.available).sum();
            for (load, offer) in load.iter().zip(&offers) {
                let each = load / offer.available as f64;
                prop_assert!((each - all as f64 / instances as f64).abs() < 1e-6, "{:?} {:?}", load, zones);
            }
        }
    }
}
