//! What to start, what to stop, and when: the supervisor's decisions, without a process in sight.
//!
//! In: what is wanted ([`Wanted`]), what happened ([`Event`]) and the time. Out: what to do next ([`Action`]) and what
//! to tell the person who watches ([`Notice`]). There is no process, clock or socket here, so a test can let a service
//! hang at stop for an hour in a microsecond. `processes` carries the actions out.
//!
//! **Order is readiness.** An instance starts once everything it needs is there, and until then [`Supervisor::awaiting`]
//! names each thing that is missing, in which state it is and why it is needed. Needs that form a circle through calls
//! cannot all come first; [`order`](crate::plan) has removed them before they get here.
//!
//! **A name is for ever, a key is for once.** `web#0` is what people see, and stays through restarts. Its [`Key`] is
//! new for every start, so a late report from the last process can never be taken for one from the next.
//!
//! It refuses to be optimistic: an instance whose process runs is *starting* until its check passes, an instance whose
//! check fails is *unhealthy* although its process runs, and a service that crashes again and again is *failed* and
//! stays so until somebody does something.

mod events;
mod settle;
mod slots;
mod vocabulary;

pub use slots::{Instance, Phase};
pub use vocabulary::{Action, Awaited, Event, Exit, How, Key, Need, Notice, Until, Wanted};

use slots::{Build, Service, Then};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::Nanos;

/// First pause after a crash; doubles with every crash without a stable time in between.
pub const PAUSE_FIRST: Nanos = Nanos::from_millis(250);
/// Longer pauses make a person wait at the screen for nothing.
pub const PAUSE_MAX: Nanos = Nanos::from_secs(10);
/// A crash after this long as ready is the first of a new series.
pub const STABLE_AFTER: Nanos = Nanos::from_secs(10);
/// With these pauses five crashes take about four seconds: long enough for a slow neighbour, short enough to notice.
pub const CRASHES_MAX: u32 = 5;

#[derive(Debug, Default)]
pub struct Supervisor {
    services: BTreeMap<String, Service>,
    next_key: u64,
    actions: VecDeque<Action>,
    stopping: bool,
    finished: bool,
}

impl Supervisor {
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole of what is wanted, every time. What is no longer wanted stops; what changed is replaced.
    pub fn want(&mut self, now: Nanos, wanted: Vec<Wanted>) {
        let mut left: Vec<String> = self.services.keys().cloned().collect();
        for new in wanted {
            left.retain(|name| *name != new.name);
            match self.services.get_mut(&new.name) {
                None => {
                    let build = if new.build { Build::Wanted } else { Build::Fresh };
                    self.services.insert(
                        new.name.clone(),
                        Service {
                            wanted: new,
                            instances: Vec::new(),
                            build,
                            held: false,
                            halted: BTreeSet::new(),
                            leaving: false,
                            to_replace: VecDeque::new(),
                        },
                    );
                }
                Some(service) => {
                    let changed = service.wanted.fingerprint != new.fingerprint;
                    service.leaving = false;
                    service.wanted = new;
                    if changed {
                        let name = service.wanted.name.clone();
                        self.replace(now, &name);
                    }
                }
            }
        }
        for name in left {
            if let Some(service) = self.services.get_mut(&name) {
                service.leaving = true;
                service.wanted.instances = 0;
            }
        }
        self.settle(now);
    }

    /// Changes the number of instances of one service; false when there is no such service.
    pub fn scale(&mut self, now: Nanos, service: &str, instances: u32) -> bool {
        let Some(it) = self.services.get_mut(service) else { return false };
        it.wanted.instances = instances;
        self.settle(now);
        true
    }

    /// One instance ends now, as if its machine had, and stays away until it is [let go](Self::let_go). Nobody is told
    /// to send it nothing any more: callers find out as they would.
    pub fn halt(&mut self, now: Nanos, service: &str, index: u32) {
        let Some(it) = self.services.get_mut(service) else { return };
        it.halted.insert(index);
        for instance in it.instances.iter_mut().filter(|it| it.index == index) {
            // Its successor, if it is being replaced, goes for good; the slot needs one instance.
            let then = if instance.replaces.is_some() { Then::Forget } else { Then::Rest };
            if instance.phase.is_live() {
                instance.then = then;
                instance.phase = Phase::Stopping { until: Nanos::MAX, hard: true };
                self.actions.push_back(Action::Kill(instance.key));
            } else if !matches!(instance.phase, Phase::Completed) {
                instance.phase = Phase::Stopped;
            }
        }
        self.settle(now);
    }

    /// What was halted starts again.
    pub fn let_go(&mut self, now: Nanos, service: &str, index: u32) {
        let Some(it) = self.services.get_mut(service) else { return };
        it.halted.remove(&index);
        let held = it.held;
        for instance in it.instances.iter_mut().filter(|it| it.index == index && !held) {
            instance.crashes = 0;
            match instance.phase {
                Phase::Stopped => instance.phase = Phase::Waiting,
                // Not gone yet: it comes back as soon as it is.
                Phase::Stopping { .. } if instance.then == Then::Rest => instance.then = Then::Again,
                _ => {}
            }
        }
        self.settle(now);
    }

    /// One instance is replaced by a new one, which is ready before the old one goes.
    pub fn replace_one(&mut self, now: Nanos, service: &str, index: u32) {
        let Some(it) = self.services.get_mut(service) else { return };
        let keys =
            it.instances.iter().filter(|it| it.index == index && it.replaces.is_none()).map(|it| it.key);
        let keys: Vec<Key> = keys.collect();
        it.to_replace.extend(keys);
        self.settle(now);
    }

    /// Instances asked for, whatever runs.
    pub fn instances_wanted(&self, service: &str) -> Option<u32> {
        self.services.get(service).map(|it| it.wanted.instances)
    }

    pub fn on(&mut self, now: Nanos, event: Event) {
        match event {
            Event::Started(key) => self.on_started(now, key),
            Event::StartFailed(key, why) => self.on_gone(now, key, why, None),
            Event::Exited(key, exit) => self.on_gone(now, key, exit.to_string(), Some(exit)),
            Event::Health(key, result) => self.on_health(now, key, result),
            Event::Built(name, result) => self.on_built(now, &name, result),
            Event::Restart(name) => self.restart(now, &name),
            Event::Stop(name) => self.hold(now, &name),
            Event::Start(name) => self.release(&name),
            Event::Replace(name) => self.replace(now, &name),
            Event::Shutdown => self.stopping = true,
            Event::ShutdownNow => {
                self.stopping = true;
                self.kill_all();
            }
        }
        self.settle(now);
    }

    /// Lets time pass. Call it when [`next_wake`](Self::next_wake) says so; calling it more often does no harm.
    pub fn tick(&mut self, now: Nanos) {
        self.settle(now);
    }

    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When time alone will change something.
    pub fn next_wake(&self) -> Option<Nanos> {
        let waits = |it: &Instance, wanted: &Wanted| match it.phase {
            Phase::Draining { until } | Phase::Pausing { until, .. } => Some(until),
            Phase::Stopping { until, hard: false } => Some(until),
            Phase::Starting { since, .. } if !wanted.job => Some(since.saturating_add(wanted.startup)),
            Phase::Unhealthy { since, .. } => Some(since.saturating_add(wanted.startup)),
            _ => None,
        };
        self.services
            .values()
            .flat_map(|service| service.instances.iter().filter_map(|it| waits(it, &service.wanted)))
            .min()
    }

    /// Every instance with its service, in the order of names and slots.
    pub fn instances(&self) -> impl Iterator<Item = (&str, &Instance)> {
        self.services
            .iter()
            .flat_map(|(name, service)| service.instances.iter().map(move |it| (name.as_str(), it)))
    }

    pub fn services(&self) -> impl Iterator<Item = &Wanted> {
        self.services.values().map(|it| &it.wanted)
    }

    pub fn find(&self, key: Key) -> Option<(&str, &Instance)> {
        self.instances().find(|(_, it)| it.key == key)
    }

    /// Is every service as it should be: ready, completed, or stopped by wish?
    pub fn is_settled(&self) -> bool {
        self.services.values().all(|service| {
            service.held
                || (service.instances.len() >= service.wanted.instances as usize
                    && service.to_replace.is_empty()
                    && service.instances.iter().all(|it| {
                        matches!(it.phase, Phase::Ready { .. } | Phase::Completed | Phase::Stopped)
                    }))
        })
    }

    /// Has any service been given up?
    pub fn has_failed(&self) -> bool {
        self.instances().any(|(_, it)| matches!(it.phase, Phase::Failed { .. }))
    }

    /// Is everything as it should be, but for what was given up and whoever waits for that? Nothing more comes by itself.
    pub fn is_at_its_end(&self) -> bool {
        self.has_failed()
            && self.services.iter().filter(|(_, it)| !it.held).all(|(name, service)| {
                service.to_replace.is_empty()
                    && service.instances.iter().all(|it| match it.phase {
                        Phase::Ready { .. } | Phase::Completed | Phase::Stopped | Phase::Failed { .. } => {
                            true
                        }
                        Phase::Waiting => service.build != Build::Running && !self.awaiting(name).is_empty(),
                        _ => false,
                    })
            })
    }

    /// What this service still waits for before its instances start.
    pub fn awaiting(&self, service: &str) -> Vec<Awaited> {
        let Some(waiting) = self.services.get(service) else { return Vec::new() };
        let mut awaited: Vec<Awaited> = waiting
            .wanted
            .needs
            .iter()
            .filter_map(|need| {
                // A service that was left out on purpose is not waited for: `--without` means "I know".
                let other = self.services.get(&need.service)?;
                (!other.satisfies(need.until)).then(|| Awaited {
                    service: need.service.clone(),
                    until: need.until,
                    why: need.why.clone(),
                    state: other.state(),
                })
            })
            .collect();
        match &waiting.build {
            Build::Running | Build::Wanted => awaited.push(Awaited {
                service: service.to_owned(),
                until: Until::Built,
                why: "its build".to_owned(),
                state: "is under way".to_owned(),
            }),
            Build::Failed(why) => awaited.push(Awaited {
                service: service.to_owned(),
                until: Until::Built,
                why: "its build".to_owned(),
                state: format!("failed: {}", why.lines().next().unwrap_or("")),
            }),
            Build::Fresh => {}
        }
        awaited
    }
}

#[cfg(test)]
mod tests;
