//! Detail of single instances, for fifteen minutes.
//!
//! Instances come and go with every deploy, so they are no label of a series: they would multiply the store by their
//! number and never leave it. Here each has one slot a minute, in a ring, and an instance nobody heard of for the whole
//! ring is forgotten.

use super::Sparse;
use std::collections::HashMap;
use units::Nanos;

#[derive(Clone, Copy, Debug)]
pub struct InstanceSettings {
    pub instances_max: usize,
    pub slot: Nanos,
    pub slots: usize,
}

impl Default for InstanceSettings {
    fn default() -> Self {
        Self { instances_max: 20_000, slot: Nanos::from_secs(60), slots: 15 }
    }
}

/// A quarter of an octave: ±9 % is enough to tell a sick instance from its siblings.
const SHIFT: u8 = 4;

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Which turn of the clock it holds; another turn's numbers are stale.
    turn: u64,
    errors: u64,
    latency: Sparse,
}

#[derive(Clone, Debug)]
struct Instance {
    service: Box<str>,
    last_turn: u64,
    slots: Vec<Slot>,
}

/// What an instance did lately.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceView {
    pub instance: Box<str>,
    pub service: Box<str>,
    pub requests: u64,
    pub errors: u64,
    pub latency: Sparse,
}

#[derive(Debug)]
pub struct InstanceStore {
    settings: InstanceSettings,
    instances: HashMap<Box<str>, Instance>,
    /// Reports of instances that found the store full.
    pub refused: u64,
}

impl InstanceStore {
    pub fn new(settings: InstanceSettings) -> Self {
        Self { settings, instances: HashMap::new(), refused: 0 }
    }

    /// Adds what an instance did since its last report.
    pub fn add(&mut self, instance: &str, service: &str, latency: &Sparse, errors: u64, now: Nanos) {
        let turn = now.0 / self.settings.slot.0.max(1);
        if !self.instances.contains_key(instance) {
            if self.instances.len() >= self.settings.instances_max {
                self.forget(now);
            }
            if self.instances.len() >= self.settings.instances_max {
                self.refused += 1;
                return;
            }
            let slots = vec![Slot::default(); self.settings.slots.max(1)];
            self.instances
                .insert(instance.into(), Instance { service: service.into(), last_turn: turn, slots });
        }
        let Some(known) = self.instances.get_mut(instance) else { return };
        known.last_turn = known.last_turn.max(turn);
        let count = known.slots.len() as u64;
        let slot = &mut known.slots[(turn % count) as usize];
        if slot.turn != turn {
            *slot = Slot { turn, errors: 0, latency: Sparse { shift: SHIFT, ..Sparse::default() } };
        }
        slot.errors += errors;
        slot.latency.merge(latency);
    }

    /// Forgets instances silent for the whole ring.
    pub fn forget(&mut self, now: Nanos) {
        let turn = now.0 / self.settings.slot.0.max(1);
        let slots = self.settings.slots as u64;
        self.instances.retain(|_, instance| instance.last_turn + slots > turn);
    }

    /// Every instance of a service (or all), over the last `window`.
    pub fn view(&self, service: Option<&str>, window: Nanos, now: Nanos) -> Vec<InstanceView> {
        let slot = self.settings.slot.0.max(1);
        let turn = now.0 / slot;
        let oldest = now.saturating_sub(window).0 / slot;
        let mut views: Vec<InstanceView> = self
            .instances
            .iter()
            .filter(|(_, instance)| service.is_none_or(|service| *instance.service == *service))
            .map(|(name, instance)| {
                let mut view = InstanceView {
                    instance: name.clone(),
                    service: instance.service.clone(),
                    requests: 0,
                    errors: 0,
                    latency: Sparse::default(),
                };
                for slot in instance.slots.iter().filter(|slot| (oldest..=turn).contains(&slot.turn)) {
                    view.errors += slot.errors;
                    view.latency.merge(&slot.latency);
                }
                view.requests = view.latency.count();
                view
            })
            .collect();
        views.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        views
    }

    /// How many there are, and may be.
    pub fn usage(&self) -> (usize, usize) {
        (self.instances.len(), self.settings.instances_max)
    }

    pub fn bytes(&self) -> usize {
        let slots = |instance: &Instance| {
            instance.slots.iter().map(|slot| size_of::<Slot>() + slot.latency.heap_bytes()).sum::<usize>()
        };
        let names = |name: &str, instance: &Instance| name.len() + instance.service.len() + 24;
        let each = self.instances.iter();
        each.map(|(name, it)| size_of::<Instance>() + names(name, it) + slots(it)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_seen_for_fifteen_minutes_and_then_forgotten() {
        let mut store =
            InstanceStore::new(InstanceSettings { instances_max: 2, ..InstanceSettings::default() });
        let mut one = Sparse::default();
        one.record(Nanos::from_millis(5));
        let minute = |n: u64| Nanos::from_secs(n * 60);
        store.add("web-0", "web", &one, 1, minute(100));
        store.add("web-0", "web", &one, 0, minute(110));
        let requests = |store: &InstanceStore, window: u64, at: u64| {
            store
                .view(Some("web"), minute(window), minute(at))
                .first()
                .map(|view| (view.requests, view.errors))
        };
        assert_eq!(requests(&store, 15, 111), Some((2, 1)));
        assert_eq!(requests(&store, 5, 111), Some((1, 0)));
        assert_eq!(requests(&store, 15, 116), Some((1, 0)), "the ring's first slot is stale");
        store.add("web-1", "web", &one, 0, minute(111));
        store.add("web-2", "web", &one, 0, minute(111));
        assert_eq!(store.refused, 1);
        store.add("web-2", "web", &one, 0, minute(125));
        assert_eq!(store.view(None, minute(15), minute(125)).len(), 2, "web-0 made room");
    }
}
