//! What an event changes at once: a start, an answer of a check, an end, a finished build, a person's wish.

use super::slots::{Build, Phase, Then, label, locate};
use super::vocabulary::{Action, Exit, How, Key, Notice};
use super::{CRASHES_MAX, PAUSE_FIRST, PAUSE_MAX, STABLE_AFTER, Supervisor};
use std::collections::VecDeque;
use units::Nanos;

impl Supervisor {
    pub(super) fn on_started(&mut self, now: Nanos, key: Key) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let checked = service.wanted.checked;
        let job = service.wanted.job;
        let instance = &mut service.instances[at];
        if let Phase::Starting { running, .. } = &mut instance.phase {
            *running = true;
            if !checked && !job {
                self.ready(now, key);
            }
        }
    }

    pub(super) fn on_health(&mut self, now: Nanos, key: Key, result: Result<(), String>) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let (healthy_after, unhealthy_after) = (service.wanted.healthy_after, service.wanted.unhealthy_after);
        let name = label(service, at);
        let instance = &mut service.instances[at];
        instance.last_answer = result.as_ref().err().cloned();
        match result {
            Ok(()) => (instance.passes, instance.fails) = (instance.passes.saturating_add(1), 0),
            Err(_) => (instance.passes, instance.fails) = (0, instance.fails.saturating_add(1)),
        }
        match (&instance.phase, result) {
            (Phase::Starting { .. }, Ok(())) if instance.passes >= healthy_after => self.ready(now, key),
            (Phase::Unhealthy { .. }, Ok(())) if instance.passes >= healthy_after => {
                instance.phase = Phase::Ready { since: now };
                self.actions.push_back(Action::Admit(key));
                self.actions.push_back(Action::Tell(Notice::Recovered { instance: name }));
            }
            (Phase::Ready { since }, Err(detail)) if instance.fails >= unhealthy_after => {
                if now.saturating_sub(*since) >= STABLE_AFTER {
                    instance.crashes = 0;
                }
                instance.phase = Phase::Unhealthy { since: now, detail: detail.clone() };
                self.actions.push_back(Action::Retire(key));
                self.actions.push_back(Action::Tell(Notice::Unhealthy { instance: name, detail }));
            }
            _ => {}
        }
    }

    pub(super) fn ready(&mut self, now: Nanos, key: Key) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let name = label(service, at);
        let drain = service.wanted.drain;
        let instance = &mut service.instances[at];
        let after = match instance.phase {
            Phase::Starting { since, .. } => now.saturating_sub(since),
            _ => Nanos::ZERO,
        };
        instance.phase = Phase::Ready { since: now };
        instance.fails = 0;
        let replaced = instance.replaces.take();
        self.actions.push_back(Action::Admit(key));
        self.actions.push_back(Action::Tell(Notice::Ready { instance: name, after }));
        // Only now may the one it replaces go: at no moment was there nobody to answer.
        if let Some(old) = replaced {
            self.retire(now, old, drain, Then::Forget);
        }
    }

    /// The way out of every live instance: out of the balancers, a moment for what is on its way, then the signal.
    pub(super) fn retire(&mut self, now: Nanos, key: Key, drain: Nanos, then: Then) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let instance = &mut service.instances[at];
        instance.then = then;
        match instance.phase {
            Phase::Ready { .. } | Phase::Unhealthy { .. } => {
                // An unhealthy one left the balancers when it became so.
                if matches!(instance.phase, Phase::Ready { .. }) {
                    self.actions.push_back(Action::Retire(key));
                }
                instance.phase = Phase::Draining { until: now.saturating_add(drain) };
            }
            Phase::Starting { .. } => instance.phase = Phase::Draining { until: now },
            // Already on its way out: only what comes after it changes.
            Phase::Draining { .. } | Phase::Stopping { .. } => {}
            _ => match then {
                Then::Forget => {
                    service.instances.remove(at);
                }
                Then::Rest => instance.phase = Phase::Stopped,
                Then::Again | Then::Crash => instance.phase = Phase::Waiting,
            },
        }
    }

    pub(super) fn on_gone(&mut self, now: Nanos, key: Key, detail: String, exit: Option<Exit>) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let job = service.wanted.job;
        let name = label(service, at);
        let instance = &mut service.instances[at];
        let halted = service.halted.contains(&instance.index);
        let was = instance.phase.clone();
        if !was.is_live() {
            return;
        }
        if matches!(was, Phase::Ready { .. }) {
            self.actions.push_back(Action::Retire(key));
        }
        if let (Phase::Draining { .. } | Phase::Stopping { .. }, then) = (&was, instance.then) {
            let hard = matches!(was, Phase::Stopping { hard: true, .. });
            match then {
                Then::Forget => {
                    service.instances.remove(at);
                }
                Then::Rest => instance.phase = Phase::Stopped,
                Then::Again => {
                    instance.phase = Phase::Waiting;
                    instance.restarts = instance.restarts.saturating_add(1);
                }
                Then::Crash => {
                    let why = instance.crash_detail.take().unwrap_or(detail);
                    self.crashed(now, key, How::PutDown, why, Nanos::ZERO);
                    return;
                }
            }
            if !halted {
                self.actions.push_back(Action::Tell(Notice::Stopped { instance: name, hard }));
            }
            return;
        }
        if job && exit == Some(Exit::Code(0)) {
            instance.phase = Phase::Completed;
            instance.crashes = 0;
            let job = service.wanted.name.clone();
            self.actions.push_back(Action::Tell(Notice::Completed { job }));
            return;
        }
        let stable = match was {
            Phase::Ready { since } => now.saturating_sub(since),
            _ => Nanos::ZERO,
        };
        let how = if exit.is_some() { How::Ended } else { How::NeverRan };
        self.crashed(now, key, how, detail, stable);
    }

    pub(super) fn crashed(&mut self, now: Nanos, key: Key, how: How, detail: String, stable: Nanos) {
        let stopping = self.stopping;
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let name = label(service, at);
        let instance = &mut service.instances[at];
        instance.last_end = Some(detail.clone());
        if stable >= STABLE_AFTER {
            instance.crashes = 0;
        }
        instance.crashes += 1;
        let attempts = instance.crashes;
        if stopping {
            instance.phase = Phase::Stopped;
        } else if attempts >= CRASHES_MAX {
            instance.phase = Phase::Failed { detail: detail.clone() };
            self.actions.push_back(Action::Tell(Notice::GaveUp { instance: name, key, detail, attempts }));
        } else {
            let doubled = PAUSE_FIRST.0.saturating_mul(1 << (attempts - 1).min(20));
            let pause = Nanos(doubled.min(PAUSE_MAX.0));
            instance.phase = Phase::Pausing { until: now.saturating_add(pause), detail: detail.clone() };
            self.actions.push_back(Action::Tell(Notice::Crashed {
                instance: name,
                how,
                detail,
                pause,
                attempt: attempts,
            }));
        }
    }

    pub(super) fn on_built(&mut self, now: Nanos, name: &str, result: Result<(), String>) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.build != Build::Running {
            return; // Another change came while it built: that build is already queued.
        }
        match result {
            Ok(()) => {
                service.build = Build::Fresh;
                self.queue_replacements(now, name);
            }
            Err(detail) => {
                let kept = service.instances.iter().any(|it| it.phase.is_live());
                service.build = Build::Failed(detail.clone());
                let service = name.to_owned();
                self.actions.push_back(Action::Tell(Notice::BuildFailed { service, detail, kept }));
            }
        }
    }

    pub(super) fn restart(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.held = false;
        if matches!(service.build, Build::Failed(_)) {
            service.build = Build::Wanted;
        }
        let job = service.wanted.job;
        let mut live = Vec::new();
        for instance in &mut service.instances {
            instance.crashes = 0;
            match instance.phase {
                Phase::Ready { .. } if !job => live.push(instance.key),
                _ if instance.phase.is_live() => {}
                _ => instance.phase = Phase::Waiting,
            }
        }
        let stuck: Vec<Key> = service
            .instances
            .iter()
            .filter(|it| matches!(it.phase, Phase::Starting { .. } | Phase::Unhealthy { .. }))
            .map(|it| it.key)
            .collect();
        let drain = service.wanted.drain;
        service.to_replace = live.into();
        for key in stuck {
            self.retire(now, key, drain, Then::Again);
        }
    }

    pub(super) fn hold(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.held = true;
        service.to_replace.clear();
        let drain = service.wanted.drain;
        let replacements: Vec<Key> =
            service.instances.iter().filter(|it| it.replaces.is_some()).map(|it| it.key).collect();
        let keys: Vec<Key> = service.instances.iter().map(|it| it.key).collect();
        for key in keys {
            let then = if replacements.contains(&key) { Then::Forget } else { Then::Rest };
            self.retire(now, key, drain, then);
        }
    }

    pub(super) fn release(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.held = false;
        for instance in &mut service.instances {
            if matches!(instance.phase, Phase::Stopped | Phase::Failed { .. }) {
                instance.phase = Phase::Waiting;
                instance.crashes = 0;
            }
            if matches!(instance.phase, Phase::Draining { .. } | Phase::Stopping { .. })
                && instance.then == Then::Rest
            {
                instance.then = Then::Again;
            }
        }
    }

    pub(super) fn replace(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.wanted.build {
            service.build = Build::Wanted;
        } else {
            service.build = Build::Fresh;
            self.queue_replacements(now, name);
        }
    }

    /// Live instances are replaced one after another; those that are down just start as the new thing.
    pub(super) fn queue_replacements(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        let drain = service.wanted.drain;
        let fingerprint = service.wanted.fingerprint;
        let mut queue = VecDeque::new();
        let mut stuck = Vec::new();
        for instance in &mut service.instances {
            match instance.phase {
                Phase::Ready { .. } => queue.push_back(instance.key),
                // Not ready yet or no longer: nobody would miss it, so it need not wait for its successor.
                Phase::Starting { .. } | Phase::Unhealthy { .. } => stuck.push(instance.key),
                Phase::Failed { .. } | Phase::Pausing { .. } => {
                    instance.phase = Phase::Waiting;
                    instance.crashes = 0;
                }
                Phase::Completed if instance.fingerprint != fingerprint => instance.phase = Phase::Waiting,
                _ => {}
            }
        }
        service.to_replace = queue;
        for key in stuck {
            self.retire(now, key, drain, Then::Again);
        }
    }

    pub(super) fn kill_all(&mut self) {
        for service in self.services.values_mut() {
            for instance in service.instances.iter_mut().filter(|it| it.phase.is_live()) {
                if !matches!(instance.phase, Phase::Stopping { hard: true, .. }) {
                    instance.phase = Phase::Stopping { until: Nanos::MAX, hard: true };
                    instance.then = Then::Forget;
                    self.actions.push_back(Action::Kill(instance.key));
                }
            }
        }
    }
}
