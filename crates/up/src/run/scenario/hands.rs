//! The running system brought under the forces in force, and out of them again.
//!
//! Only differences are made, between what was in force and what shall be, so that it does not matter which scenario
//! brought a force or which one ended.
use super::Ghost;
use super::deed::{Force, Forces, Slot};
use crate::run::instances::{Body, Live};
use crate::run::{Runner, Say};
use crate::supervisor::{Event, Key, Phase};
use crate::synthetic::Trouble;
use control::compile::{self, Instance};
use model::system::Check;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use units::Nanos;

impl Runner {
    /// Makes the difference between what was in force and what shall be.
    pub(super) fn set_forces(&mut self, now: Nanos, forces: Forces) {
        if forces == self.scenarios.forces {
            return;
        }
        let before = std::mem::replace(&mut self.scenarios.forces, forces);
        let after = self.scenarios.forces.clone();
        let slots: BTreeSet<&Slot> = before.slots.keys().chain(after.slots.keys()).collect();
        for own in slots {
            let (was, is) = (force_of(&before, own), force_of(&after, own));
            if was == is {
                continue;
            }
            match (was.down, is.down) {
                (false, true) => self.supervisor.halt(now, &own.0, own.1),
                (true, false) => {
                    self.exorcise(own);
                    self.supervisor.let_go(now, &own.0, own.1);
                }
                _ => {}
            }
            let keys: Vec<Key> =
                self.live.iter().filter(|(_, it)| is_at(it, own)).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.bring_under(key, was, is));
            let given_up = self.supervisor.instances().any(|(name, it)| {
                name == own.0 && it.index == own.1 && matches!(it.phase, Phase::Failed { .. })
            });
            // Frozen for so long that its supervisor gave it up: that was the scenario's doing.
            if is == Force::default() && given_up {
                self.supervisor.on(now, Event::Start(own.0.clone()));
            }
        }
        self.dirty = true;
        self.change_load(&before, &after);
        for (own, _) in before
            .versions
            .iter()
            .chain(&after.versions)
            .filter(|(own, _)| before.versions.get(*own) != after.versions.get(*own))
        {
            self.supervisor.replace_one(now, &own.0, own.1);
        }
        let scaled: BTreeSet<&String> = before.scale.keys().chain(after.scale.keys()).collect();
        for name in scaled {
            let wanted = match after.scale.get(name) {
                Some(count) => {
                    let standing = self.supervisor.instances_wanted(name).unwrap_or(0);
                    self.scenarios.scale_before.entry(name.clone()).or_insert(standing);
                    *count
                }
                None => match self.scenarios.scale_before.remove(name) {
                    Some(count) => count,
                    None => continue,
                },
            };
            self.supervisor.scale(now, name, wanted);
        }
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
    }

    fn change_load(&mut self, before: &Forces, after: &Forces) {
        let names: BTreeSet<&String> = before.load.keys().chain(after.load.keys()).collect();
        for name in names {
            let Some(now) = self.traffic.factor(name) else { continue };
            match after.load.get(name) {
                Some(times) => {
                    let base = *self.scenarios.load_before.entry(name.clone()).or_insert(now);
                    self.set_traffic_factor(name, base * times);
                }
                None => {
                    if let Some(base) = self.scenarios.load_before.remove(name) {
                        self.set_traffic_factor(name, base);
                    }
                }
            }
        }
    }

    fn bring_under(&mut self, key: Key, was: Force, is: Force) {
        let Some(live) = self.live.get(&key) else { return };
        match &live.body {
            Body::Synthetic => self.host.trouble(
                key,
                Trouble {
                    paused: is.frozen,
                    slow_by: is.slow_by,
                    slow_times: is.slow_times,
                    errors: is.errors,
                },
            ),
            Body::Process { signals, .. } => {
                if was.frozen != is.frozen {
                    // A full queue means that it is being signalled to death.
                    let _ = signals.try_send(if is.frozen { Signal::STOP } else { Signal::CONT });
                }
                self.dirty = true;
            }
        }
    }

    /// An instance started while something is in force at its place.
    pub(in crate::run) fn on_new_life(&mut self, key: Key) {
        let Some(live) = self.live.get(&key) else { return };
        let is = force_of(&self.scenarios.forces, &(live.service.clone(), live.index));
        if is != Force::default() {
            self.bring_under(key, Force::default(), is);
        }
    }

    /// The version an instance runs for as long as a scenario says so.
    pub(in crate::run) fn version_forced(&self, service: &str, index: u32) -> Option<&String> {
        if self.scenarios.forces.versions.is_empty() {
            return None;
        }
        self.scenarios.forces.versions.get(&(service.to_owned(), index))
    }

    /// An instance ended. If it was struck down, its callers still ask where it was; true: its port stays taken.
    pub(in crate::run) fn becomes_ghost(&mut self, live: &Live) -> bool {
        let own = (live.service.clone(), live.index);
        let is_down = self.scenarios.forces.slots.get(&own).is_some_and(|it| it.down);
        let (Some(address), true) = (live.address, is_down) else { return false };
        let Some(service) = self.find(&live.service).map(|id| &self.system.services[id]) else {
            return false;
        };
        let health = &service.health;
        let until = match health.check {
            Check::None | Check::Log { .. } => Nanos::MAX,
            // Some checks in a row, the first after half a pause on average.
            _ => self.now() + health.every * u64::from(health.unhealthy_after.max(1) - 1) + health.every / 2,
        };
        let instance = Instance {
            service: live.service.clone(),
            address,
            version: live.seat.version.clone(),
            region: live.seat.region.clone(),
            zone: live.seat.zone.clone(),
            weight: 1,
        };
        self.scenarios.ghosts.push(Ghost { slot: own, instance, until });
        true
    }

    fn exorcise(&mut self, own: &Slot) {
        let (gone, kept) =
            std::mem::take(&mut self.scenarios.ghosts).into_iter().partition(|it| it.slot == *own);
        self.scenarios.ghosts = kept;
        let gone: Vec<Ghost> = gone;
        gone.iter().for_each(|it| self.ports.release(it.instance.address.port()));
    }

    pub(in crate::run) fn ghosts(&self) -> impl Iterator<Item = Instance> + '_ {
        self.scenarios.ghosts.iter().map(|it| it.instance.clone())
    }

    pub(in crate::run) fn forced_links(&self) -> &[compile::Link] {
        &self.scenarios.forces.links
    }

    /// What is in the way to processes: their own work cannot be slowed, and their own answers not spoilt.
    pub(in crate::run) fn forced_troubles(&self) -> BTreeMap<SocketAddr, compile::Trouble> {
        let slots = &self.scenarios.forces.slots;
        if slots.is_empty() {
            return BTreeMap::new();
        }
        let processes = self.live.values().filter(|it| matches!(it.body, Body::Process { .. }));
        let troubles = processes.filter_map(|live| {
            let force = slots.get(&(live.service.clone(), live.index))?;
            let trouble = compile::Trouble { delay: force.slow_by, errors: force.errors };
            (trouble != compile::Trouble::default()).then_some((live.address?, trouble))
        });
        troubles.collect()
    }

    pub(super) fn flush(&mut self, slots: &[Slot]) {
        for (key, _) in self.live.iter().filter(|(_, live)| slots.iter().any(|it| is_at(live, it))) {
            self.host.flush(*key);
        }
    }
}

fn force_of(forces: &Forces, own: &Slot) -> Force {
    forces.slots.get(own).copied().unwrap_or_default()
}

fn is_at(live: &Live, own: &Slot) -> bool {
    live.service == own.0 && live.index == own.1
}
