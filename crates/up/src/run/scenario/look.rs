//! What is seen of the running system while a scenario plays: requests, traffic, and who was well, ten times a second.
use super::record::{Recording, Whereabouts};
use super::report::Slice;
use super::{Playing, RECORDS_MAX};
use crate::load::Tally;
use crate::run::{Runner, slot, unix_nanos};
use crate::supervisor::Phase;
use proxy::observe::GuardReading;
use std::collections::BTreeMap;
use units::Nanos;

impl Runner {
    /// Takes what was seen since the last look.
    pub(super) fn look(&mut self, now: Nanos, it: &mut Playing) {
        if it.recording.is_none() && it.play.zero() <= now {
            let began = Nanos(unix_nanos().saturating_sub(now.saturating_sub(it.play.zero()).as_u64()));
            it.recording =
                Some(Recording::new(&it.system, it.groups, self.options.places, began, &it.expect));
            it.sliced = it.play.zero();
            it.tallies = self.tallies();
            it.guards.begin(&self.guard_readings());
        }
        if let Some(observer) = self.watched.observer() {
            let (_, names) = observer.edge_names();
            it.edges.resize(it.edges.len().max(names.len()), None);
            for (known, new) in it.edges.iter_mut().zip(names) {
                if let Some(new) = new
                    && known.as_deref() != Some(new.name.as_str())
                {
                    *known = Some(new.name.clone());
                }
            }
        }
        let Playing { tap, recording, edges, .. } = it;
        for finished in tap.try_iter().take(RECORDS_MAX) {
            if let Some(recording) = recording {
                let edge = edges.get(finished.edge as usize).and_then(Option::as_deref);
                recording.take(&finished, edge, &self.scenarios.whereabouts, &self.scenarios.places);
            }
        }
        let second = now.saturating_sub(it.play.zero()).as_u64() / 1_000_000_000;
        if it.recording.is_some() && second > it.seconds {
            it.seconds = second;
            self.slice(now, it);
            for (service, instance) in self.supervisor.instances() {
                let looked = it.looked.entry(slot(service, instance.index)).or_default();
                let force = self.scenarios.forces.slots.get(&(service.to_owned(), instance.index));
                let well = force.is_none_or(|it| !it.down && !it.frozen);
                looked.times += 1;
                looked.ready += u32::from(well && matches!(instance.phase, Phase::Ready { .. }));
            }
        }
    }

    fn guard_readings(&self) -> Vec<GuardReading> {
        self.watched.observer().map(|it| it.guards()).unwrap_or_default()
    }

    fn tallies(&self) -> BTreeMap<String, Tally> {
        let names = self.system.traffic.iter().map(|it| it.name.value.clone());
        names.filter_map(|name| Some((name.clone(), self.traffic.tally(&name)?))).collect()
    }

    /// What traffic saw, and what guards did, since the last slice.
    pub(super) fn slice(&mut self, now: Nanos, it: &mut Playing) {
        let tallies = self.tallies();
        for (name, tally) in &tallies {
            let before = it.tallies.get(name).cloned().unwrap_or_default();
            // A traffic that was started anew counts from nothing again.
            let before = if before.sent > tally.sent { Tally::default() } else { before };
            let slice = Slice {
                at: it.sliced.saturating_sub(it.play.zero()),
                lasted: now.saturating_sub(it.sliced),
                sent: (tally.sent + tally.not_sent).saturating_sub(before.sent + before.not_sent),
                failed: (tally.failed + tally.not_sent).saturating_sub(before.failed + before.not_sent),
                latency: tally.latency.since(&before.latency).unwrap_or_else(|| tally.latency.clone()),
            };
            it.traffic.entry(name.clone()).or_default().slices.push(slice);
        }
        it.tallies = tallies;
        if it.recording.is_some() {
            it.guards.take(&self.guard_readings());
        }
        it.sliced = now;
    }

    pub(super) fn learn_whereabouts(&mut self) {
        for live in self.live.values() {
            let Some(address) = live.address else { continue };
            let name = slot(&live.service, live.index);
            self.scenarios.places.insert(name.clone(), live.seat.place());
            self.scenarios.whereabouts.insert(
                address,
                Whereabouts { service: live.service.clone(), slot: name, place: live.seat.place() },
            );
        }
    }
}
