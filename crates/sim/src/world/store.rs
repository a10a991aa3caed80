//! Stores: copies of each item in several places, and what a partition makes of them.
//!
//! Items are grouped into shards; a shard's copies stand on consecutive instances, which the plan has dealt to zones in
//! turn. The instance that a request reached coordinates: it asks the copies and waits for as many answers as the
//! consistency wants. `one` answers soonest and may answer with something old; `quorum` and `leader` refuse when the
//! copies they need cannot be reached. That is the choice a partition forces, and the counters show which way it went.
//!
//! It refuses to model how copies agree: an election takes [`ELECTION`], a copy that missed a write has it back with the
//! next write to its shard.

use super::*;
use crate::plan::{Span32, StorePlan};
use model::system::Consistency;
use units::Purpose;

/// How long a shard has no leader after the old one went out of reach.
const ELECTION: Nanos = Nanos::from_secs(5);
const SHARDS: usize = 64;
/// Copies of one item that are told apart; more than these nobody keeps.
const COPIES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct StoreState {
    plan: StorePlan,
    instances: Span32,
    copies: usize,
    shards: Vec<Shard>,
    /// When an instance or a link last changed: the moment an election may have begun.
    pub(super) disturbed: Option<Nanos>,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    /// Number of the last write that was acknowledged to a caller.
    acknowledged: u64,
    copies: Vec<CopyState>,
}

/// What one copy holds: the last write and, until that one has arrived, the one before.
#[derive(Clone, Copy, Debug, Default)]
struct CopyState {
    holds: u64,
    before: u64,
    arrives: Nanos,
}

impl CopyState {
    fn at(&self, now: Nanos) -> u64 {
        if self.arrives <= now { self.holds } else { self.before }
    }
}

impl StoreState {
    pub(super) fn new(plan: StorePlan, instances: Span32) -> Self {
        let copies = (plan.copies.max(1) as usize).min(instances.len().max(1) as usize).min(COPIES_MAX);
        let shard = Shard { acknowledged: 0, copies: vec![CopyState::default(); copies] };
        Self { plan, instances, copies, shards: vec![shard; SHARDS], disturbed: None }
    }

    /// The instance that holds a copy of a shard, spread as far apart as the instances are.
    fn holder(&self, shard: usize, copy: usize) -> u32 {
        let count = self.instances.len() as usize;
        let apart = (count / self.copies).max(1);
        self.instances.from + ((shard + copy * apart) % count) as u32
    }
}

impl World<'_> {
    /// The store's own part of a request, once the coordinator has done its work.
    pub(super) fn store(&mut self, now: Nanos, key: Key) {
        let Some(job) = self.jobs.get(key) else { return };
        let (draw, operation, coordinator) = (job.draw, job.operation as usize, job.instance);
        let station = self.instances[coordinator as usize].station as usize;
        let (writes, bytes) =
            (self.plan.operations[operation].writes, self.plan.operations[operation].request_bytes);
        let Some(store) = &self.stores[station] else { return };
        let (plan, copies, disturbed) = (store.plan, store.copies, store.disturbed);
        let shard = draw.for_purpose(Purpose::Sampling).bits() as usize % SHARDS;
        let mut all = [0u32; COPIES_MAX];
        all.iter_mut().take(copies).enumerate().for_each(|(copy, it)| *it = store.holder(shard, copy));
        let holders = &all[..copies];
        let up = |world: &Self, it: u32| world.instances[it as usize].standing == Standing::Up;
        let near = |world: &Self, a: u32, b: u32| {
            let (from, to) = (world.instances[a as usize].location, world.instances[b as usize].location);
            a == b || world.reaches(from, to) && world.reaches(to, from)
        };
        // The way there and back for each copy that answers; the coordinator's own copy answers at once.
        let mut answered = [(Nanos::MAX, 0usize); COPIES_MAX];
        let mut count = 0;
        for (copy, holder) in holders.iter().enumerate() {
            if !up(self, *holder) || !near(self, coordinator, *holder) {
                continue;
            }
            let way = if *holder == coordinator {
                Some(Nanos::ZERO)
            } else {
                let (from, to) = (
                    self.instances[coordinator as usize].location,
                    self.instances[*holder as usize].location,
                );
                let draw = draw.child(0x57).child(copy as u64);
                let there = self.transit(from, to, bytes, draw);
                there.and_then(|there| Some(there + self.transit(to, from, 0, draw.child(1))?))
            };
            if let Some(way) = way {
                answered[count] = (way, copy);
                count += 1;
            }
        }
        let answers = &mut answered[..count];
        answers.sort_unstable();
        let answers = &*answers;
        let majority = copies / 2 + 1;
        let wait = match plan.consistency {
            Consistency::One => answers.first().map(|it| it.0),
            Consistency::Quorum => answers.get(majority - 1).map(|it| it.0),
            Consistency::Leader => {
                // The first copy that a majority can reach leads; a new one only after an election.
                let leads = |copy: usize| {
                    up(self, holders[copy])
                        && holders
                            .iter()
                            .filter(|it| up(self, **it) && near(self, holders[copy], **it))
                            .count()
                            >= majority
                };
                let leader = (0..copies).find(|it| leads(*it));
                let electing = leader != Some(0) && disturbed.is_some_and(|since| now < since + ELECTION);
                leader
                    .filter(|_| !electing)
                    .and_then(|leader| answers.iter().find(|(_, copy)| *copy == leader))
                    .map(|it| it.0)
            }
        };
        let Some(wait) = wait else {
            return self.finish_job(now, key, Err(Failed::by(Cause::Consistency)), Cause::Consistency);
        };
        let heard = answers.iter().filter(|(way, _)| *way <= wait);
        let Some(store) = &mut self.stores[station] else { return };
        let state = &mut store.shards[shard];
        if writes {
            let write = state.copies.iter().map(|it| it.holds).max().unwrap_or(0) + 1;
            for (way, copy) in answers {
                let it = &mut state.copies[*copy];
                *it = CopyState { before: it.at(now), holds: write, arrives: now + *way / 2 };
            }
            state.acknowledged = write;
        } else {
            let read_at = |copy: &usize, way: Nanos| state.copies[*copy].at(now + way / 2);
            let seen = match plan.consistency {
                Consistency::Leader => state.acknowledged,
                _ => heard.map(|(way, copy)| read_at(copy, *way)).max().unwrap_or(0),
            };
            if seen < state.acknowledged {
                self.meters.operations[operation].stale_reads += 1;
            }
        }
        if wait.is_zero() {
            return self.advance(now, key);
        }
        if let Some(job) = self.jobs.get_mut(key) {
            job.state = JobState::Storing;
        }
        self.events.schedule(now + wait, key.event(kind::STORED));
    }

    /// Enough copies have answered.
    pub(super) fn on_stored(&mut self, now: Nanos, key: Key) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.state = JobState::Calling;
            self.advance(now, key);
        }
    }

    /// An instance of a store is gone for good: acknowledged writes that no other copy holds are lost.
    pub(super) fn lose_copies(&mut self, now: Nanos, instance: u32) {
        let station = self.instances[instance as usize].station as usize;
        let Some(store) = &self.stores[station] else { return };
        let mut lost = 0;
        let mut emptied: Vec<(usize, usize, u64)> = Vec::new();
        for (shard, state) in store.shards.iter().enumerate() {
            let held = |copy: &usize| {
                let holder = store.holder(shard, *copy);
                holder != instance && self.instances[holder as usize].standing == Standing::Up
            };
            let mine = (0..store.copies).find(|copy| store.holder(shard, *copy) == instance);
            let rest =
                (0..store.copies).filter(held).map(|copy| state.copies[copy].at(now)).max().unwrap_or(0);
            if let Some(mine) = mine {
                lost += state.acknowledged.saturating_sub(rest);
                emptied.push((shard, mine, rest));
            }
        }
        self.meters.lost_writes[station] += lost;
        if let Some(store) = &mut self.stores[station] {
            for (shard, copy, rest) in emptied {
                // What nobody holds any more is not missed by later reads: it never was.
                store.shards[shard].acknowledged = store.shards[shard].acknowledged.min(rest);
                store.shards[shard].copies[copy] = CopyState::default();
            }
            store.disturbed = Some(now);
        }
    }

    pub(super) fn disturb_stores(&mut self, now: Nanos) {
        self.stores.iter_mut().flatten().for_each(|it| it.disturbed = Some(now));
    }
}
