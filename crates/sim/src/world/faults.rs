//! Scenarios: what goes wrong, when, and how it is undone.

use super::*;
use crate::plan::InstancePlan;
use model::system::{Fault, Place, Selection, Which};
use units::{Percent, Purpose};

/// How to take one fault back.
#[derive(Debug)]
pub(super) enum Undo {
    Standing(Vec<(u32, Standing)>),
    Slow(Vec<(u32, f64)>),
    Delay(Vec<(u32, Nanos)>),
    Errors(Vec<(u32, f64)>),
    Links { from: Place, to: Place, both_ways: bool, change: LinkChange },
    Load(Vec<(usize, f64)>),
    Versions(Vec<(u32, u16)>),
    Dns,
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LinkChange {
    Cut,
    Delay(Nanos),
    Loss(f64),
}

impl World<'_> {
    pub(super) fn schedule_faults(&mut self) {
        let Some(scenario) = self.scenario.and_then(|it| self.plan.scenarios.get(it)) else { return };
        for (index, event) in scenario.events.iter().enumerate() {
            self.events.schedule(event.at, Event::new(kind::FAULT, index as u32, 0));
        }
    }

    pub(super) fn on_fault(&mut self, now: Nanos, index: u32) {
        let plan = self.plan;
        let Some(scenario) = self.scenario.and_then(|it| plan.scenarios.get(it)) else { return };
        let Some(event) = scenario.events.get(index as usize) else { return };
        self.note(now, Change::Fault(index));
        let undo = self.inject(now, index, &event.fault.value);
        if let Some(lasting) = event.lasting {
            self.undo.push((index, undo));
            let slot = self.undo.len() as u32 - 1;
            self.events.schedule(now + lasting, Event::new(kind::UNDO, slot, 0));
        }
    }

    fn inject(&mut self, now: Nanos, index: u32, fault: &Fault) -> Undo {
        match fault {
            Fault::Stop(selection) => {
                self.set_standing(now, &self.select(index, selection), Standing::Stopped)
            }
            Fault::Pause(selection) => {
                self.set_standing(now, &self.select(index, selection), Standing::Paused)
            }
            Fault::SlowBy(selection, by) => {
                let chosen = self.select(index, selection);
                chosen.iter().for_each(|it| self.instances[*it as usize].delay += *by);
                Undo::Delay(chosen.into_iter().map(|it| (it, *by)).collect())
            }
            Fault::SlowTimes(selection, times) => {
                let chosen = self.select(index, selection);
                let factor = times.fraction();
                chosen.iter().for_each(|it| self.instances[*it as usize].slow *= factor);
                Undo::Slow(chosen.into_iter().map(|it| (it, factor)).collect())
            }
            Fault::Error(selection, share) => {
                let chosen = self.select(index, selection);
                let before = chosen.iter().map(|it| (*it, self.instances[*it as usize].errors)).collect();
                for it in chosen {
                    let errors = &mut self.instances[it as usize].errors;
                    *errors = 1.0 - (1.0 - *errors) * (1.0 - share.fraction().min(1.0));
                }
                Undo::Errors(before)
            }
            Fault::Lose(place) => {
                let here = |it: &InstancePlan| {
                    self.plan.locations[it.location as usize].region.is_some()
                        && crate::plan::is_in(&self.plan.locations[it.location as usize], *place)
                };
                let chosen: Vec<u32> =
                    (0u32..).zip(&self.plan.instances).filter(|(_, it)| here(it)).map(|it| it.0).collect();
                self.set_standing(now, &chosen, Standing::Silent)
            }
            Fault::Partition { from, to, both_ways } => {
                self.change_links(now, *from, *to, *both_ways, LinkChange::Cut)
            }
            Fault::Delay { from, to, by, both_ways } => {
                self.change_links(now, *from, *to, *both_ways, LinkChange::Delay(*by))
            }
            Fault::Loss { from, to, share, both_ways } => {
                self.change_links(now, *from, *to, *both_ways, LinkChange::Loss(share.fraction().min(1.0)))
            }
            Fault::Flush(service) => {
                if let Some(cache) = &mut self.caches[service.index()] {
                    cache.flush();
                }
                Undo::Nothing
            }
            Fault::LoadTimes(traffic, times) => {
                let chosen: Vec<usize> = match traffic {
                    Some(traffic) => vec![traffic.index()],
                    None => (0..self.loads.len()).collect(),
                };
                let before = chosen.iter().map(|it| (*it, self.loads[*it].factor)).collect();
                for it in chosen {
                    self.change_load(now, it, self.loads[it].factor * times.fraction());
                }
                Undo::Load(before)
            }
            Fault::LoadTo(traffic, rate) => {
                let index = traffic.index();
                let before = vec![(index, self.loads[index].factor)];
                if let crate::plan::LoadKind::Open { rate: base, .. } = &self.plan.loads[index].kind
                    && *base > 0.0
                {
                    self.change_load(now, index, rate.per_second() / base);
                }
                Undo::Load(before)
            }
            Fault::Release { service, version, share } => {
                self.release(now, service.as_u32(), version, *share)
            }
            Fault::Remove(service) => {
                let all: Vec<u32> = self.plan.stations[service.index()].instances.iter().collect();
                self.set_standing(now, &all, Standing::Stopped)
            }
            Fault::Scale(service, count) => self.scale(now, service.as_u32(), *count),
            Fault::FailDns => {
                self.dns_faults += 1;
                Undo::Dns
            }
        }
    }

    pub(super) fn on_undo(&mut self, now: Nanos, slot: u32) {
        let (index, undo) = std::mem::replace(&mut self.undo[slot as usize], (0, Undo::Nothing));
        self.note(now, Change::Undone(index));
        match undo {
            Undo::Nothing => {}
            Undo::Dns => self.dns_faults -= 1,
            Undo::Standing(before) => {
                for (instance, standing) in before {
                    self.set_standing(now, &[instance], standing);
                }
            }
            Undo::Slow(chosen) => chosen.into_iter().for_each(|(it, factor)| {
                if factor > 0.0 {
                    self.instances[it as usize].slow /= factor;
                }
            }),
            Undo::Delay(chosen) => chosen.into_iter().for_each(|(it, by)| {
                let delay = &mut self.instances[it as usize].delay;
                *delay = delay.saturating_sub(by);
            }),
            Undo::Errors(before) => {
                before.into_iter().for_each(|(it, errors)| self.instances[it as usize].errors = errors);
            }
            Undo::Links { from, to, both_ways, change } => {
                self.each_link(from, to, both_ways, |fault| match change {
                    LinkChange::Cut => fault.cut -= 1,
                    LinkChange::Delay(by) => fault.delay = fault.delay.saturating_sub(by),
                    LinkChange::Loss(share) if share < 1.0 => fault.passes.0 /= 1.0 - share,
                    LinkChange::Loss(_) => fault.passes.0 = 1.0,
                })
            }
            Undo::Load(before) => {
                before.into_iter().for_each(|(index, factor)| self.change_load(now, index, factor));
            }
            Undo::Versions(before) => {
                for (instance, version) in before {
                    self.instances[instance as usize].version = version;
                    self.on_health(now, instance);
                }
            }
        }
        self.disturb_stores(now);
    }

    /// The standing instances a fault takes; which ones, where it says only how many, is drawn.
    fn select(&self, index: u32, selection: &Selection) -> Vec<u32> {
        let station = &self.plan.stations[selection.service.index()];
        let standing: Vec<u32> = station
            .instances
            .iter()
            .filter(|it| self.instances[*it as usize].standing != Standing::Absent)
            .collect();
        let some = |count: usize| {
            let draw = self.root.child(0xFA17).child(u64::from(index));
            let mut dealt: Vec<(u64, u32)> = standing
                .iter()
                .map(|it| (draw.child(u64::from(*it)).for_purpose(Purpose::Fault).bits(), *it))
                .collect();
            dealt.sort_unstable();
            dealt.into_iter().take(count).map(|it| it.1).collect()
        };
        match selection.which {
            Which::All => standing,
            Which::Count(count) => some(count as usize),
            Which::Share(share) => some((standing.len() as f64 * share.fraction()).ceil() as usize),
            Which::Index(number) => station.instances.iter().skip(number as usize).take(1).collect(),
            Which::In(place) => {
                let here = |it: &u32| {
                    let location = self.instances[*it as usize].location;
                    crate::plan::is_in(&self.plan.locations[location as usize], place)
                };
                standing.into_iter().filter(here).collect()
            }
        }
    }

    fn set_standing(&mut self, now: Nanos, chosen: &[u32], to: Standing) -> Undo {
        let mut before = Vec::with_capacity(chosen.len());
        for instance in chosen {
            let index = *instance as usize;
            let was = self.instances[index].standing;
            if was == to
                || self.plan.stations[self.instances[index].station as usize].kind == StationKind::Users
            {
                continue;
            }
            before.push((*instance, was));
            self.measure(now, index);
            self.instances[index].standing = to;
            match (was.works(), to.works()) {
                (false, true) => self.note(now, Change::Up(*instance)),
                (true, false) => self.note(now, Change::Down(*instance)),
                _ => {}
            }
            match to {
                Standing::Stopped | Standing::Silent | Standing::Absent => {
                    self.kill_jobs(now, index, to == Standing::Silent);
                    self.lose_copies(now, *instance);
                }
                Standing::Up => self.wake(now, index),
                Standing::Paused | Standing::Draining => {}
            }
            self.tell_callers(now, *instance, was, to);
        }
        self.disturb_stores(now);
        Undo::Standing(before)
    }

    /// Callers learn it from the checks: some checks in a row, the first at a phase of its own.
    fn tell_callers(&mut self, now: Nanos, instance: u32, was: Standing, to: Standing) {
        let health = self.plan.stations[self.instances[instance as usize].station as usize].health;
        let by_scaling = |it| matches!(it, Standing::Absent | Standing::Draining);
        if by_scaling(to) || by_scaling(was) && to == Standing::Up {
            // Scaling is announced by whoever scales.
            return self.on_health(now, instance);
        }
        if health.every == Nanos::MAX {
            return;
        }
        let checks = if to == Standing::Up { health.healthy_after } else { health.unhealthy_after };
        let phase = self.root.child(0x4EA1).child(u64::from(instance)).for_purpose(Purpose::Fault).unit();
        let mut after = health.every.mul_f64(phase) + health.every * u64::from(checks.max(1) - 1);
        if matches!(to, Standing::Paused | Standing::Silent) {
            after += health.timeout;
        }
        self.events.schedule(now + after, Event::new(kind::HEALTH, instance, 0));
    }

    fn change_links(
        &mut self,
        now: Nanos,
        from: Place,
        to: Place,
        both_ways: bool,
        change: LinkChange,
    ) -> Undo {
        self.any_link_fault = true;
        self.each_link(from, to, both_ways, |fault| match change {
            LinkChange::Cut => fault.cut += 1,
            LinkChange::Delay(by) => fault.delay += by,
            LinkChange::Loss(share) => fault.passes.0 *= 1.0 - share,
        });
        self.disturb_stores(now);
        Undo::Links { from, to, both_ways, change }
    }

    fn each_link(&mut self, from: Place, to: Place, both_ways: bool, change: impl Fn(&mut LinkFault)) {
        let count = self.plan.locations.len();
        for (a, at_a) in self.plan.locations.iter().enumerate() {
            for (b, at_b) in self.plan.locations.iter().enumerate() {
                let forth = crate::plan::is_in(at_a, from) && crate::plan::is_in(at_b, to);
                let back = both_ways && crate::plan::is_in(at_a, to) && crate::plan::is_in(at_b, from);
                if forth || back {
                    change(&mut self.link_faults[a * count + b]);
                }
            }
        }
    }

    /// A version takes a share of the instances, one place after the other.
    fn release(&mut self, now: Nanos, station: u32, version: &str, share: Percent) -> Undo {
        let plan = &self.plan.stations[station as usize];
        let Some(number) = plan.versions.iter().position(|it| it.name == version) else {
            return Undo::Nothing;
        };
        let standing: Vec<u32> = plan
            .instances
            .iter()
            .filter(|it| self.instances[*it as usize].standing == Standing::Up)
            .collect();
        let wanted = (standing.len() as f64 * share.fraction()).round().max(1.0) as usize;
        let mut before = Vec::new();
        for instance in standing.into_iter().take(wanted) {
            before.push((instance, self.instances[instance as usize].version));
            self.instances[instance as usize].version = number as u16;
            self.on_health(now, instance);
        }
        Undo::Versions(before)
    }

    /// Starts spares or takes instances out, the last first.
    pub(super) fn scale(&mut self, now: Nanos, station: u32, count: u32) -> Undo {
        let instances = self.plan.stations[station as usize].instances;
        let mut before = Vec::new();
        for (number, instance) in instances.iter().enumerate() {
            let standing = self.instances[instance as usize].standing;
            let wanted = (number as u32) < count;
            let to = match (standing, wanted) {
                (Standing::Absent | Standing::Draining, true) => Standing::Up,
                (Standing::Absent | Standing::Draining, false) | (_, true) => continue,
                (_, false) => Standing::Draining,
            };
            if let Undo::Standing(mut was) = self.set_standing(now, &[instance], to) {
                before.append(&mut was);
            }
        }
        Undo::Standing(before)
    }
}
