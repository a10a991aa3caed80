//! Bringing what is closer to what is wanted, as far as time and events allow: after every event, and when time alone
//! has something to say.

use super::Supervisor;
use super::slots::{Build, Instance, Phase, Then, label, locate};
use super::vocabulary::{Action, Awaited, Key, Notice};
use units::Nanos;

impl Supervisor {
    /// Brings what is closer to what is wanted, as far as time and events allow.
    pub(super) fn settle(&mut self, now: Nanos) {
        self.expire(now);
        if self.stopping {
            self.settle_shutdown(now);
            return;
        }
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in &names {
            self.settle_count(now, name);
            self.settle_replacements(now, name);
        }
        // Starting one service can only satisfy others through an event, so one pass is enough.
        for name in &names {
            self.settle_starts(now, name);
        }
        self.services.retain(|_, it| !(it.leaving && it.instances.is_empty()));
    }

    /// What time alone decides: drains that end, stops that hang, starts that take too long.
    pub(super) fn expire(&mut self, now: Nanos) {
        let mut signals = Vec::new();
        let mut crashes = Vec::new();
        for service in self.services.values_mut() {
            let wanted = &service.wanted;
            for instance in &mut service.instances {
                match &instance.phase {
                    Phase::Draining { until } if *until <= now => {
                        instance.phase =
                            Phase::Stopping { until: now.saturating_add(wanted.stop_timeout), hard: false };
                        signals.push(Action::Terminate(instance.key));
                    }
                    Phase::Stopping { until, hard: false } if *until <= now => {
                        instance.phase = Phase::Stopping { until: Nanos::MAX, hard: true };
                        signals.push(Action::Kill(instance.key));
                    }
                    Phase::Starting { since, .. }
                        if !wanted.job && since.saturating_add(wanted.startup) <= now =>
                    {
                        let said =
                            instance.last_answer.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
                        crashes.push((instance.key, format!("not ready within {}{said}", wanted.startup)));
                    }
                    Phase::Unhealthy { since, detail } if since.saturating_add(wanted.startup) <= now => {
                        crashes.push((instance.key, format!("unhealthy for {}: {detail}", wanted.startup)));
                    }
                    Phase::Pausing { until, .. } if *until <= now => {
                        instance.phase = Phase::Waiting;
                        instance.restarts = instance.restarts.saturating_add(1);
                    }
                    _ => {}
                }
            }
        }
        self.actions.extend(signals);
        for (key, why) in crashes {
            if let Some((service, at)) = locate(&mut self.services, key) {
                service.instances[at].crash_detail = Some(why);
            }
            self.retire(now, key, Nanos::ZERO, Then::Crash);
        }
    }

    pub(super) fn settle_count(&mut self, now: Nanos, name: &str) {
        let mut surplus = Vec::new();
        let Some(service) = self.services.get_mut(name) else { return };
        let wanted = service.wanted.instances;
        let drain = service.wanted.drain;
        for instance in service.instances.iter().filter(|it| it.index >= wanted) {
            if !(instance.then == Then::Forget
                && matches!(instance.phase, Phase::Draining { .. } | Phase::Stopping { .. }))
            {
                surplus.push(instance.key);
            }
        }
        for index in 0..wanted {
            if !service.instances.iter().any(|it| it.index == index) {
                self.next_key += 1;
                let key = Key(self.next_key);
                let at = service.instances.partition_point(|it| it.index < index);
                service.instances.insert(at, Instance::new(key, index, now));
            }
        }
        for key in surplus {
            self.retire(now, key, drain, Then::Forget);
        }
    }

    /// One instance at a time: the successor starts, and its readiness sends the old one away.
    pub(super) fn settle_replacements(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        let (exclusive, drain) = (service.wanted.exclusive, service.wanted.drain);
        if service.instances.iter().any(|it| it.replaces.is_some()) {
            return;
        }
        while let Some(old) = service.to_replace.pop_front() {
            let Some(at) = service.instances.iter().position(|it| it.key == old) else { continue };
            if !matches!(service.instances[at].phase, Phase::Ready { .. }) {
                continue;
            }
            if exclusive {
                self.retire(now, old, drain, Then::Again);
                return;
            }
            let (index, restarts) = (service.instances[at].index, service.instances[at].restarts);
            self.next_key += 1;
            let mut successor = Instance::new(Key(self.next_key), index, now);
            successor.replaces = Some(old);
            successor.restarts = restarts.saturating_add(1);
            service.instances.insert(at + 1, successor);
            return;
        }
    }

    pub(super) fn settle_starts(&mut self, now: Nanos, name: &str) {
        let awaited = self.awaiting(name);
        let Some(service) = self.services.get_mut(name) else { return };
        if service.build == Build::Wanted && !service.held {
            // A build may need what its service needs (generated code, a schema), so it waits for the same things.
            if awaited.iter().all(|it| it.service == *name) {
                service.build = Build::Running;
                self.actions.push_back(Action::Build(name.to_owned()));
                self.actions.push_back(Action::Tell(Notice::Building { service: name.to_owned() }));
            }
        }
        let (held, halted) = (service.held, service.halted.clone());
        let fingerprint = service.wanted.fingerprint;
        for at in 0..service.instances.len() {
            let label = label(service, at);
            let instance = &mut service.instances[at];
            if instance.phase != Phase::Waiting || held || halted.contains(&instance.index) {
                continue;
            }
            if awaited.is_empty() {
                // Each start is a new life: a report from the one before carries the old key and finds nobody.
                if instance.started_before() {
                    self.next_key += 1;
                    instance.key = Key(self.next_key);
                }
                instance.begin(now, fingerprint);
                self.actions.push_back(Action::Start {
                    key: instance.key,
                    service: name.to_owned(),
                    index: instance.index,
                });
            } else if instance.told_waiting != awaited {
                let named = |list: &[Awaited]| list.iter().map(|it| it.service.clone()).collect::<Vec<_>>();
                // Said again only when the list changes, not whenever a state in it does.
                if named(&instance.told_waiting) != named(&awaited) {
                    self.actions
                        .push_back(Action::Tell(Notice::Waiting { instance: label, on: awaited.clone() }));
                }
                instance.told_waiting = awaited.clone();
            }
        }
    }

    /// Dependents go first: nobody shall log errors about a database that was merely told to stop.
    pub(super) fn settle_shutdown(&mut self, now: Nanos) {
        for service in self.services.values_mut() {
            service.to_replace.clear();
            service.instances.retain(|it| it.phase.is_live());
            for instance in &mut service.instances {
                if let Phase::Draining { until } = &mut instance.phase {
                    *until = now.min(*until);
                }
            }
        }
        let needed: Vec<String> = self
            .services
            .values()
            .filter(|it| !it.instances.is_empty())
            .flat_map(|it| it.wanted.needs.iter().map(|need| need.service.clone()))
            .collect();
        let mut free: Vec<Key> = Vec::new();
        let leaving = self.services.values().flat_map(|it| &it.instances).any(|it| !it.may_retire());
        for service in self.services.values().filter(|it| !needed.contains(&it.wanted.name)) {
            free.extend(service.instances.iter().filter(|it| it.may_retire()).map(|it| it.key));
        }
        if free.is_empty() && !leaving {
            // A circle of needs: nobody is first, so all go at once.
            free.extend(self.instances().map(|(_, it)| it.key));
        }
        for key in free {
            // No drain: nobody new will come, the gateways have closed first.
            self.retire(now, key, Nanos::ZERO, Then::Forget);
        }
        self.expire(now);
        if self.services.values().all(|it| it.instances.is_empty()) && !self.finished {
            self.finished = true;
            self.actions.push_back(Action::Finished);
        }
    }
}
