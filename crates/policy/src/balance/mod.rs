//! Which instance gets the next request.
//!
//! ```text
//! round robin     smooth weighted: a cycle worked out ahead, one step per request
//! random          in proportion to weight (alias method)
//! least request   draw two in proportion to weight, take the lower  in_flight/weight          (power of two choices)
//! peak EWMA       draw two in proportion to weight, take the lower  cost·(in_flight + 1)      (see `Latency`)
//! ring, Maglev    by the request's hash; when an instance leaves, (almost) only its own keys move
//! ```
//! Two choices and not the minimum of all: callers that all know the same minimum all pick it. Weight enters when
//! drawing, so that at low load, where every comparison is a tie, shares are the weights.
//!
//! A [`Balancer`] holds tables, built by [`Balancer::refresh`] whenever membership, health, ejection or weights change.
//! [`Balancer::pick`] reads them and the caller's slice: it takes constant time and never allocates. What changes
//! with every request (in flight, latency) is only in the slice.
//!
//! **Panic.** When fewer than `panic` of the instances by weight are available, health is ignored and locality with
//! it: if most of a service looks dead, the few survivors would be drowned next, and the likelier truth is that the
//! observer is wrong. **Slow start**: for `slow_start` after joining, an instance that was drawn is taken with
//! probability `max(10 %, t/window)`, else another is drawn. Hashing kinds ignore it: a key has one place.
//! **Spill by load**: when the instance drawn at home is filled (`in_flight ≥ capacity`, if known), another zone is
//! asked once.

mod table;

use crate::endpoint::{Endpoint, Place};
use crate::locality::{self, Offer};
use crate::math::scatter;
use crate::settings::{self, BalanceKind};
use table::Table;
use units::{Nanos, Percent, Rng};

/// Chooses for one caller among the instances of one service.
#[derive(Clone, Debug)]
pub struct Balancer {
    settings: settings::Balance,
    locality: settings::Locality,
    home: Place,
    /// Where the callers of this service are and how many; empty is unknown. Counts for zone-aware shares.
    callers: Vec<(Place, u64)>,
    /// All versions together, then one view for each version.
    views: Vec<View>,
    /// Round robin of many callers must not march in step: each starts at its own place.
    phase: Option<u64>,
}

/// The instances of one version (or of all), by zone.
#[derive(Clone, Debug, Default)]
struct View {
    version: u16,
    panic: bool,
    known: u32,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    /// Upper end of this group's part of 0..2^32.
    until: u64,
    home: bool,
    members: Vec<u32>,
    table: Table,
    position: usize,
}

/// What matters about one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    pub now: Nanos,
    /// For ring hash and Maglev; a request without one is placed at random.
    pub hash: Option<u64>,
    /// Only this release; `None` is any.
    pub version: Option<u16>,
    /// Instances that this request has been sent to already. They are not asked again.
    pub tried: &'a [u32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Position in the caller's slice.
    pub index: u32,
    /// Health was ignored, because too few instances are healthy.
    pub panic: bool,
    /// In the caller's own zone.
    pub home: bool,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoPick {
    /// The service has no instances, or none of this version.
    NoInstance,
    /// There are instances, and none may be used (health, ejection, draining, or locality forbids it).
    NoneAvailable,
    /// Every usable instance was tried by this request before.
    AllTried,
}

/// Draws before giving up on luck and looking at everybody once.
const DRAWS_MAX: usize = 8;

impl Balancer {
    pub fn new(settings: settings::Balance, locality: settings::Locality, home: Place) -> Self {
        Self { settings, locality, home, callers: Vec::new(), views: Vec::new(), phase: None }
    }

    /// Tells where this service's callers are, for zone-aware shares. Takes effect at the next refresh.
    pub fn set_callers(&mut self, callers: &[(Place, u64)]) {
        self.callers.clear();
        self.callers.extend_from_slice(callers);
    }

    /// Rebuilds the tables. Call it after any change to who is in the slice or who is available; the only part of a
    /// balancer that allocates.
    pub fn refresh(&mut self, endpoints: &[Endpoint]) {
        let mut versions: Vec<u16> = endpoints.iter().map(|it| it.version).collect();
        versions.sort_unstable();
        versions.dedup();
        let turned = self.views.iter().flat_map(|it| &it.groups).map(|it| it.position).sum::<usize>() as u64;
        let mut views = vec![self.view(endpoints, 0, &|_| true)];
        if versions.len() > 1 {
            views.extend(
                versions.iter().map(|version| self.view(endpoints, *version, &|it| it.version == *version)),
            );
        } else if let Some(only) = versions.first() {
            // One version: the view of all is the view of that one.
            views[0].version = *only;
        }
        self.views = views;
        if let Some(phase) = self.phase {
            // A refresh in the middle of a cycle must not send everybody back to the first instance.
            self.stagger(phase.wrapping_add(turned));
        }
    }

    fn view(&self, endpoints: &[Endpoint], version: u16, belongs: &dyn Fn(&Endpoint) -> bool) -> View {
        // "Never leaves the zone" is a promise that panic does not break.
        let allowed = |it: &Endpoint| match self.locality {
            settings::Locality::ZoneOnly => it.place == self.home,
            settings::Locality::RegionOnly => it.place.region == self.home.region,
            _ => true,
        };
        let all = || (0u32..).zip(endpoints).filter(|(_, it)| belongs(it) && allowed(it));
        let weigh = |usable: &dyn Fn(&Endpoint) -> bool| {
            all().filter(|(_, it)| usable(it)).map(|(_, it)| u64::from(it.weight)).sum::<u64>()
        };
        let (available, total) = (weigh(&Endpoint::is_available), weigh(&Endpoint::is_last_resort));
        let panic = u128::from(available) * u128::from(Percent::WHOLE.millionths())
            < u128::from(total) * u128::from(self.settings.panic.millionths());
        let usable = |it: &Endpoint| if panic { it.is_last_resort() } else { it.is_available() };

        let mut places: Vec<Place> = all().map(|(_, it)| it.place).collect();
        places.sort_unstable();
        places.dedup();
        // Without a preference there is nothing to tell zones apart for; one group is one table.
        let apart = self.locality != settings::Locality::Any && !panic;
        let mut groups: Vec<(Offer, Vec<u32>)> = Vec::new();
        for place in &places {
            let inside: Vec<(u32, &Endpoint)> = all().filter(|(_, it)| it.place == *place).collect();
            let weigh = |usable: &dyn Fn(&Endpoint) -> bool| {
                inside.iter().filter(|(_, it)| usable(it)).map(|(_, it)| u64::from(it.weight)).sum::<u64>()
            };
            let offer =
                Offer { place: *place, available: weigh(&usable), total: weigh(&Endpoint::is_last_resort) };
            let members = inside.iter().filter(|(_, it)| usable(it)).map(|(index, _)| *index);
            match groups.first_mut() {
                Some((first, together)) if !apart => {
                    first.available += offer.available;
                    first.total += offer.total;
                    together.extend(members);
                }
                _ => groups.push((offer, members.collect())),
            }
        }
        let offers: Vec<Offer> = groups.iter().map(|(offer, _)| *offer).collect();
        let shares = if apart {
            locality::shares(self.locality, self.home, &self.callers, &offers)
        } else {
            // All in one group, or in none.
            offers.iter().map(|_| 1.0).collect()
        };
        let whole = (1u64 << 32) as f64;
        let mut sum = 0.0;
        let mut groups: Vec<Group> = groups
            .into_iter()
            .zip(shares)
            .filter(|((_, members), _)| !members.is_empty())
            .map(|((offer, mut members), share)| {
                // Slices of two callers may be ordered differently; tables of hashing kinds must not be.
                members.sort_unstable_by_key(|it| endpoints[*it as usize].key);
                sum += share;
                let table = Table::build(self.settings.kind, endpoints, &members);
                let home = offer.place == self.home;
                Group { until: (sum * whole) as u64, home, members, table, position: 0 }
            })
            .collect();
        // Zones that nobody is sent to stay as a last resort: for retries, and when those at home are filled.
        let end = groups.last().map_or(0, |it| it.until);
        groups.iter_mut().filter(|it| it.until == end).for_each(|it| it.until = 1 << 32);
        let known = endpoints.iter().filter(|it| belongs(it)).count() as u32;
        View { version, panic, known, groups }
    }

    fn stagger(&mut self, phase: u64) {
        self.phase = Some(phase);
        for group in self.views.iter_mut().flat_map(|it| &mut it.groups) {
            group.position = (phase % group.table.turns(group.members.len()).max(1) as u64) as usize;
        }
    }

    /// Chooses. The caller then calls [`Endpoint::on_start`] and, in the end, [`Endpoint::on_finish`].
    pub fn pick(&mut self, endpoints: &[Endpoint], ask: &Ask<'_>, rng: &mut Rng) -> Result<Picked, NoPick> {
        if self.phase.is_none() {
            let phase = rng.next_u64() >> 16;
            self.stagger(phase);
        }
        let settings = &self.settings;
        let found = match ask.version {
            Some(version) if self.views.len() > 1 => {
                self.views[1..].iter_mut().find(|it| it.version == version)
            }
            Some(version) => self.views.first_mut().filter(|it| it.version == version),
            None => self.views.first_mut(),
        };
        let view = found.filter(|it| it.known > 0).ok_or(NoPick::NoInstance)?;
        let hashing = matches!(settings.kind, BalanceKind::RingHash | BalanceKind::Maglev);
        let hash = if hashing { ask.hash.map_or_else(|| rng.next_u64(), scatter) } else { 0 };
        let chosen = match view.groups.len() {
            0 => return Err(NoPick::NoneAvailable),
            _ if view.groups[0].until == 1 << 32 => 0,
            _ => {
                // A key keeps its zone as well as its instance.
                let point = (if hashing { scatter(hash) } else { rng.next_u64() }) >> 32;
                view.groups.iter().position(|it| point < it.until).unwrap_or(0)
            }
        };
        let panic = view.panic;
        let mut chooser = Chooser { endpoints, ask, settings, hash, panic };
        let picked = |view: &View, group: usize, index: u32| {
            Ok(Picked { index, panic, home: view.groups[group].home })
        };
        if let Some(index) = chooser.choose(&mut view.groups[chosen], rng) {
            let full = |index: u32| {
                endpoints.get(index as usize).is_some_and(|it| it.capacity > 0 && it.in_flight >= it.capacity)
            };
            if full(index) && !hashing && view.groups.len() > 1 {
                let other =
                    (chosen + 1 + rng.below(view.groups.len() as u64 - 1) as usize) % view.groups.len();
                if let Some(instead) = chooser.choose(&mut view.groups[other], rng).filter(|it| !full(*it)) {
                    return picked(view, other, instead);
                }
            }
            return picked(view, chosen, index);
        }
        // The group that was drawn is used up; any other that may be used at all will do.
        for group in (0..view.groups.len()).filter(|it| *it != chosen) {
            if let Some(index) = chooser.choose(&mut view.groups[group], rng) {
                return picked(view, group, index);
            }
        }
        let usable = |it: &u32| endpoints.get(*it as usize).is_some_and(|it| chooser.is_usable(it));
        let any = view.groups.iter().flat_map(|it| &it.members).any(usable);
        Err(if any { NoPick::AllTried } else { NoPick::NoneAvailable })
    }
}

/// One decision's view of the world.
struct Chooser<'a> {
    endpoints: &'a [Endpoint],
    ask: &'a Ask<'a>,
    settings: &'a settings::Balance,
    hash: u64,
    panic: bool,
}

impl Chooser<'_> {
    /// The tables may be older than the slice by one refresh: an instance that became unusable since is passed over.
    fn is_usable(&self, endpoint: &Endpoint) -> bool {
        if self.panic { endpoint.is_last_resort() } else { endpoint.is_available() }
    }

    fn candidate(&self, index: u32) -> Option<&Endpoint> {
        let endpoint = self.endpoints.get(index as usize)?;
        (self.is_usable(endpoint) && !self.ask.tried.contains(&index)).then_some(endpoint)
    }

    /// Slow start: a young instance is accepted more and more often.
    fn is_warm(&self, endpoint: &Endpoint, rng: &mut Rng) -> bool {
        let window = self.settings.slow_start;
        let Some(joined) = endpoint.joined.filter(|_| !window.is_zero()) else { return true };
        let age = self.ask.now.saturating_sub(joined);
        age >= window || rng.chance((age.0 as f64 / window.0 as f64).max(0.1))
    }

    fn choose(&mut self, group: &mut Group, rng: &mut Rng) -> Option<u32> {
        let members = group.members.len();
        if members == 1 {
            return Some(group.members[0]).filter(|it| self.candidate(*it).is_some());
        }
        match self.settings.kind {
            BalanceKind::RingHash | BalanceKind::Maglev => {
                let (start, slots) = group.table.locate(self.hash);
                // Walking meets everybody within the table; the bound keeps a mostly unusable one from being walked
                // to its end on every request.
                for step in 0..slots.min(DRAWS_MAX * 8) {
                    let index = group.members[group.table.at((start + step) % slots)];
                    if self.candidate(index).is_some() {
                        return Some(index);
                    }
                }
            }
            BalanceKind::RoundRobin => {
                let turns = group.table.turns(members);
                for _ in 0..DRAWS_MAX {
                    let index = group.members[group.table.turn(group.position)];
                    group.position = (group.position + 1) % turns;
                    if let Some(endpoint) = self.candidate(index)
                        && self.is_warm(endpoint, rng)
                    {
                        return Some(index);
                    }
                }
            }
            BalanceKind::Random => {
                for _ in 0..DRAWS_MAX {
                    let index = group.members[group.table.draw(members, rng)];
                    if let Some(endpoint) = self.candidate(index)
                        && self.is_warm(endpoint, rng)
                    {
                        return Some(index);
                    }
                }
            }
            BalanceKind::LeastRequest | BalanceKind::PeakEwma => {
                let mut first: Option<u32> = None;
                for _ in 0..DRAWS_MAX {
                    let index = group.members[group.table.draw(members, rng)];
                    let Some(endpoint) = self.candidate(index).filter(|_| Some(index) != first) else {
                        continue;
                    };
                    if !self.is_warm(endpoint, rng) {
                        continue;
                    }
                    match first {
                        None => first = Some(index),
                        Some(other) => return Some(self.lighter(other, index)),
                    }
                }
                if first.is_some() {
                    return first;
                }
            }
        }
        // Luck failed: most are tried or unusable. Look at everybody once, from a random place.
        let hashing = matches!(self.settings.kind, BalanceKind::RingHash | BalanceKind::Maglev);
        let start =
            if hashing { (self.hash % members as u64) as usize } else { rng.below(members as u64) as usize };
        (0..members)
            .map(|step| group.members[(start + step) % members])
            .find(|it| self.candidate(*it).is_some())
    }

    /// The one of two with less to do; the first drawn if they are alike.
    fn lighter(&self, first: u32, second: u32) -> u32 {
        let (a, b) = (&self.endpoints[first as usize], &self.endpoints[second as usize]);
        let by_load =
            || u64::from(b.in_flight) * u64::from(a.weight) < u64::from(a.in_flight) * u64::from(b.weight);
        let second_is_lighter = match self.settings.kind {
            BalanceKind::PeakEwma => match (a.latency.cost(self.ask.now), b.latency.cost(self.ask.now)) {
                (Some(cost_a), Some(cost_b)) => {
                    // In flight per unit of weight relative to the pair, so that weights of 1 and of 100 mean the same.
                    let mean = (f64::from(a.weight) + f64::from(b.weight)) / 2.0;
                    let load = |it: &Endpoint| f64::from(it.in_flight) * mean / f64::from(it.weight) + 1.0;
                    cost_b * load(b) < cost_a * load(a)
                }
                // Nothing is known about one of them: then only the load can be compared.
                _ => by_load(),
            },
            _ => by_load(),
        };
        if second_is_lighter { second } else { first }
    }
}

#[cfg(test)]
mod tests;
