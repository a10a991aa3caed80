//! What one caller instance's proxy knows of one service it calls: its view of the instances, and its policies' state.

use super::*;
use policy::settings::{self, Locality};
use policy::{
    Balancer, Breaker, BreakerState, Budget, Endpoint, Health, Limiter, Place, RateLimit, Throttle, eject,
};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) pair: u32,
    pub(super) balancer: Balancer,
    pub(super) endpoints: Vec<Endpoint>,
    /// The instance behind each endpoint.
    pub(super) instance_of: Vec<u32>,
    pub(super) pool: Vec<Pool>,
    pub(super) budget: Option<Budget>,
    pub(super) hedge_budget: Option<Budget>,
    pub(super) breaker: Option<Breaker>,
    pub(super) limiter: Option<Limiter>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) throttle: Option<Throttle>,
    pub(super) name: Name,
    trips_seen: u64,
    open_since: Option<Nanos>,
    ejected_now: u32,
    ejected_since: Nanos,
}

/// One zone, its region, everywhere and outside.
const ONE_PLACE: usize = 4;

/// What a throttle takes for the longest call where the file sets no time-out.
const CALL_MAX: Nanos = Nanos::from_secs(10);

/// Connections to one instance.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) active: u32,
    pub(super) waiting: VecDeque<Key>,
    /// Secured and not closed again; counted only where securing costs something.
    pub(super) open: u32,
    pub(super) used: Nanos,
    /// Time that connections were in use.
    pub(super) held: Nanos,
}

/// What a caller's resolver knows of one service's name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name {
    /// From when the answer is there, and until when it is good.
    pub(super) known: Nanos,
    pub(super) until: Nanos,
    pub(super) lookups: u64,
}

pub(super) fn place_of(plan: &Plan, location: u16) -> Place {
    let location = &plan.locations[location as usize];
    Place { region: location.region.unwrap_or(u16::MAX), zone: location.zone.unwrap_or(u16::MAX) }
}

/// Whether a caller's registries know an instance, and its reach allows it.
fn knows(plan: &Plan, caller: u32, instance: u32) -> bool {
    let (a, b) = (&plan.instances[caller as usize], &plan.instances[instance as usize]);
    let (of_a, of_b) = (&plan.stations[a.station as usize], &plan.stations[b.station as usize]);
    let (at_a, at_b) = (&plan.locations[a.location as usize], &plan.locations[b.location as usize]);
    let everywhere = |station: &crate::plan::Station, location: &crate::plan::Location| {
        station.everywhere || location.region.is_none()
    };
    let met = everywhere(of_a, at_a) || everywhere(of_b, at_b) || at_a.region == at_b.region;
    caller != instance && met && (!of_a.same_zone || at_a.zone_name == at_b.zone_name)
}

impl World<'_> {
    pub(super) fn make_outbounds(&mut self) {
        let plan = self.plan;
        for (index, pair) in plan.pairs.iter().enumerate() {
            self.first_outbound.push(self.outbounds.len() as u32);
            let callers = plan.stations[pair.caller as usize].instances;
            let callees = plan.stations[pair.callee as usize].instances;
            let mut weights: Vec<(Place, u64)> = Vec::new();
            for caller in callers.iter().filter(|it| plan.instances[*it as usize].initial) {
                let place = place_of(plan, plan.instances[caller as usize].location);
                match weights.iter_mut().find(|(it, _)| *it == place) {
                    Some((_, count)) => *count += 1,
                    None => weights.push((place, 1)),
                }
            }
            let version_weight = version_weights(plan, pair.callee);
            let holders =
                callers.iter().filter(|it| plan.instances[*it as usize].initial).count().max(1) as u32;
            for caller in callers.iter() {
                let home = place_of(plan, plan.instances[caller as usize].location);
                let (mut endpoints, mut instance_of) = (Vec::new(), Vec::new());
                for callee in callees.iter().filter(|it| knows(plan, caller, *it)) {
                    let it = &plan.instances[callee as usize];
                    let mut endpoint = Endpoint::new(u64::from(callee), place_of(plan, it.location));
                    endpoint.version = it.version;
                    endpoint.weight = version_weight.get(it.version as usize).copied().unwrap_or(1);
                    endpoint.health = if it.initial { Health::Healthy } else { Health::Gone };
                    if !pair.multiplexed && pair.settings.connections != u32::MAX {
                        endpoint.capacity = pair.settings.connections;
                    }
                    endpoints.push(endpoint);
                    instance_of.push(callee);
                }
                let settings = &pair.settings;
                // Where only one place can be meant, zone weights would only cost.
                let locality =
                    if plan.locations.len() == ONE_PLACE { Locality::Any } else { settings.locality };
                let mut balancer = Balancer::new(settings.balance, locality, home);
                balancer.set_callers(&weights);
                balancer.refresh(&endpoints);
                let budget = settings.retry.as_ref().and_then(|it| it.budget);
                let pool = endpoints.iter().map(|_| Pool::default()).collect();
                self.outbounds.push(Outbound {
                    pair: index as u32,
                    balancer,
                    endpoints,
                    instance_of,
                    pool,
                    budget: budget.map(|it| Budget::new(&it, holders)),
                    hedge_budget: settings.hedge.map(|it| Budget::new(&it.budget, holders)),
                    breaker: settings.breaker.map(Breaker::new),
                    limiter: settings.concurrency.map(Limiter::new),
                    rate_limit: settings.rate_limit.map(RateLimit::new),
                    throttle: settings
                        .throttle
                        .map(|it| Throttle::new(it, settings.timeout.unwrap_or(CALL_MAX))),
                    name: Name::default(),
                    trips_seen: 0,
                    open_since: None,
                    ejected_now: 0,
                    ejected_since: Nanos::ZERO,
                });
                if let Some(eject) = settings.eject {
                    let id = self.outbounds.len() as u32 - 1;
                    self.schedule_sweep(Nanos::ZERO, id, &eject);
                }
            }
        }
    }

    fn schedule_sweep(&mut self, now: Nanos, outbound: u32, eject: &settings::Eject) {
        self.events
            .schedule(now + eject.interval.max(Nanos::from_millis(1)), Event::new(kind::SWEEP, outbound, 0));
    }

    pub(super) fn on_sweep(&mut self, now: Nanos, id: u32) {
        let pair = self.outbounds[id as usize].pair;
        let Some(eject) = self.plan.pairs[pair as usize].settings.eject else { return };
        let swept = eject::sweep(&eject, &mut self.outbounds[id as usize].endpoints, now);
        let meter = &mut self.meters.pairs[pair as usize];
        meter.ejections += u64::from(swept.ejected);
        meter.ejections_withheld += u64::from(swept.kept);
        if swept.ejected > 0 {
            self.note(now, Change::Ejected(pair));
        }
        if swept.changed() {
            self.membership_changed(now, id);
        }
        self.schedule_sweep(now, id, &eject);
    }

    pub(super) fn on_restore(&mut self, now: Nanos, id: u32) {
        if eject::restore(&mut self.outbounds[id as usize].endpoints, now) > 0 {
            self.membership_changed(now, id);
        }
    }

    /// After an ejection, a return or a change of health.
    pub(super) fn membership_changed(&mut self, now: Nanos, id: u32) {
        let outbound = &mut self.outbounds[id as usize];
        outbound.balancer.refresh(&outbound.endpoints);
        let ejected = outbound.endpoints.iter().filter(|it| it.outlier.is_ejected()).count() as u32;
        self.settle_ejected(now, id);
        let outbound = &mut self.outbounds[id as usize];
        outbound.ejected_now = ejected;
        if ejected > 0 && ejected as usize == outbound.endpoints.len() {
            self.tally.last_ejected += 1;
        }
        if let Some(at) = eject::next_return(&outbound.endpoints) {
            self.events.schedule(at.max(now), Event::new(kind::RESTORE, id, 0));
        }
    }

    fn settle_ejected(&mut self, now: Nanos, id: u32) {
        let outbound = &mut self.outbounds[id as usize];
        let passed = now.saturating_sub(outbound.ejected_since) * u64::from(outbound.ejected_now);
        outbound.ejected_since = now;
        self.meters.pairs[outbound.pair as usize].ejected += passed;
    }

    /// Brings the integrals of all callers up to now.
    pub(super) fn settle_outbounds(&mut self, now: Nanos) {
        for id in 0..self.outbounds.len() as u32 {
            self.settle_ejected(now, id);
            let outbound = &mut self.outbounds[id as usize];
            if let Some(since) = outbound.open_since {
                self.meters.pairs[outbound.pair as usize].breaker_open += now.saturating_sub(since);
                outbound.open_since = Some(now);
            }
        }
    }

    /// The end of the warm-up: connections in use go on being used, and count from now.
    pub(super) fn forget_connections(&mut self) {
        self.outbounds.iter_mut().flat_map(|it| &mut it.pool).for_each(|it| it.held = Nanos::ZERO);
    }

    /// How long connections were in use, those that still are included.
    pub(super) fn measure_connections(&mut self, now: Nanos) {
        let open: Vec<(u32, u32, Nanos)> = self
            .attempts
            .keys()
            .filter(|(_, it)| !it.pooled)
            .map(|(_, it)| (it.outbound, it.endpoint, it.held_since))
            .collect();
        for (outbound, endpoint, since) in open {
            let since = since.max(self.counting_since);
            self.outbounds[outbound as usize].pool[endpoint as usize].held += now.saturating_sub(since);
        }
        for outbound in &self.outbounds {
            let meter = &mut self.meters.pairs[outbound.pair as usize];
            let all = outbound.pool.iter().map(|it| it.held).fold(Nanos::ZERO, |sum, it| sum + it);
            // An instance that gets a fifth of what the busiest gets is one that is used; the others are for bad days.
            let most = outbound.pool.iter().map(|it| it.held).max().unwrap_or(Nanos::ZERO);
            let used = outbound.pool.iter().filter(|it| it.held * 5 >= most).count().max(1) as u64;
            meter.held += all;
            meter.held_busiest = meter.held_busiest.max(all / used);
        }
    }

    /// Notes what the breaker did since it was last looked at.
    pub(super) fn watch_breaker(&mut self, now: Nanos, id: u32) {
        let outbound = &mut self.outbounds[id as usize];
        let Some(breaker) = &outbound.breaker else { return };
        let meter = &mut self.meters.pairs[outbound.pair as usize];
        meter.breaker_trips += breaker.trips() - outbound.trips_seen;
        outbound.trips_seen = breaker.trips();
        let closed = breaker.state(now) == BreakerState::Admitting;
        match (outbound.open_since, closed) {
            (None, false) => {
                outbound.open_since = Some(now);
                let pair = outbound.pair;
                self.note(now, Change::BreakerOpen(pair));
            }
            (Some(since), true) => {
                meter.breaker_open += now.saturating_sub(since);
                outbound.open_since = None;
                let pair = outbound.pair;
                self.note(now, Change::BreakerClosed(pair));
            }
            _ => {}
        }
    }

    /// Callers learn the standing of an instance, from discovery or from failed checks.
    pub(super) fn on_health(&mut self, now: Nanos, instance: u32) {
        let it = &self.instances[instance as usize];
        let health = match it.standing {
            Standing::Up => Health::Healthy,
            Standing::Paused | Standing::Stopped | Standing::Silent => Health::Unhealthy,
            Standing::Draining => Health::Draining,
            Standing::Absent => Health::Gone,
        };
        let (station, version) = (it.station, it.version);
        let weights = version_weights(self.plan, station);
        for pair in self.callers_of[station as usize].clone() {
            let first = self.first_outbound[pair as usize];
            let callers = self.plan.stations[self.plan.pairs[pair as usize].caller as usize].instances.len();
            for id in first..first + callers {
                let outbound = &mut self.outbounds[id as usize];
                let Ok(index) = outbound.instance_of.binary_search(&instance) else { continue };
                let endpoint = &mut outbound.endpoints[index];
                let before = (endpoint.health, endpoint.version);
                if health == Health::Healthy && endpoint.health != Health::Healthy {
                    endpoint.joined = Some(now);
                }
                endpoint.health = health;
                if endpoint.version != version {
                    endpoint.version = version;
                    endpoint.weight = weights.get(version as usize).copied().unwrap_or(1);
                }
                if before != (endpoint.health, endpoint.version) {
                    self.membership_changed(now, id);
                }
            }
        }
    }
}

/// The weight of one instance of each version, so that a version's instances together get its share.
fn version_weights(plan: &Plan, station: u32) -> Vec<u32> {
    let station = &plan.stations[station as usize];
    let count = |version: usize| {
        let mine = &plan.instances[station.instances.from as usize..station.instances.to as usize];
        mine.iter().filter(|it| it.version as usize == version && it.initial).count().max(1) as u64
    };
    let weight = |(version, it): (usize, &crate::plan::VersionPlan)| {
        u32::try_from(it.weight.millionths() / count(version)).unwrap_or(u32::MAX)
    };
    station.versions.iter().enumerate().map(weight).collect()
}
