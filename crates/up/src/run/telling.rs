//! What the person is told while it happens, and what the history keeps of it.
//!
//! A start of a tenth of a second needs no running commentary: a service is told once, when all of it is there, and a
//! wait is told only once it lasts.

use super::{Runner, Say, split_slot, unix_nanos, words};
use crate::supervisor::{Notice, Phase};
use control::api::lock;
use std::collections::BTreeSet;
use units::Nanos;

impl Runner {
    pub(super) fn tell(&mut self, notice: &Notice) {
        if let Notice::Ready { instance, .. } = notice {
            let service = instance.split('#').next().unwrap_or(instance).to_owned();
            let since = |phase: &Phase| match phase {
                Phase::Ready { since } => Some(*since),
                _ => None,
            };
            let ready: Vec<Option<Nanos>> = self
                .supervisor
                .instances()
                .filter(|(name, _)| *name == service)
                .map(|(_, it)| since(&it.phase))
                .collect();
            match self.ready_told.get(&service) {
                // A service is told once, when all of it is there, and not sixty times.
                None => {
                    if ready.iter().all(Option::is_some) {
                        self.ready_told.insert(service.clone(), self.now());
                        let many = if ready.len() == 1 {
                            String::new()
                        } else {
                            format!(" ({} instances)", ready.len())
                        };
                        let after = words::short(self.now());
                        (self.say)(Say::Event(format!("{service} is ready{many} after {after}")));
                    }
                    return;
                }
                Some(told) => {
                    let (_, index) = split_slot(instance);
                    let lives = self
                        .supervisor
                        .instances()
                        .filter(|(name, it)| *name == service && it.index == index);
                    if lives.filter_map(|(_, it)| since(&it.phase)).all(|since| since <= *told) {
                        return;
                    }
                }
            }
        }
        // A start of a tenth of a second needs no running commentary; `tell_waiting` speaks when it takes longer.
        if matches!(notice, Notice::Waiting { .. }) {
            return;
        }
        let sentence = words::sentence(notice);
        let bad =
            matches!(notice, Notice::GaveUp { .. } | Notice::BuildFailed { .. } | Notice::Crashed { .. });
        (self.say)(if bad { Say::Problem(sentence.clone()) } else { Say::Event(sentence.clone()) });
        if let Notice::GaveUp { instance, .. } | Notice::Crashed { instance, .. } = notice {
            let (service, index) = split_slot(instance);
            let gave_up = matches!(notice, Notice::GaveUp { .. });
            let lines = self.logs.borrow().last_lines(service, index);
            if gave_up && !lines.is_empty() {
                (self.say)(Say::Problem(format!("the last it said:\n  | {}", lines.join("\n  | "))));
            }
            self.logs.borrow_mut().note(unix_nanos(), service, index, &sentence);
        }
        let subject = match notice {
            Notice::Waiting { instance, .. }
            | Notice::Ready { instance, .. }
            | Notice::Unhealthy { instance, .. }
            | Notice::Recovered { instance }
            | Notice::Crashed { instance, .. }
            | Notice::GaveUp { instance, .. }
            | Notice::Stopped { instance, .. } => instance,
            Notice::Building { service } | Notice::BuildFailed { service, .. } => service,
            Notice::Completed { job } => job,
        };
        self.record("isobar", "instance", subject, sentence);
    }

    /// Says for whom services are waiting, once for each service and state of things.
    pub(super) fn tell_waiting(&mut self) {
        let waiting: BTreeSet<String> = self
            .supervisor
            .instances()
            .filter(|(_, it)| it.phase == Phase::Waiting)
            .map(|(service, _)| service.to_owned())
            .collect();
        self.waiting_told.retain(|service, _| waiting.contains(service));
        for service in waiting {
            let on: Vec<String> =
                self.supervisor.awaiting(&service).iter().map(ToString::to_string).collect();
            let text = format!("{service} waits for {}", on.join(" and for "));
            if !on.is_empty() && self.waiting_told.get(&service) != Some(&text) {
                (self.say)(Say::Event(text.clone()));
                self.record("isobar", "instance", &service, text.clone());
                self.waiting_told.insert(service, text);
            }
        }
    }

    pub(super) fn record(&self, who: &str, kind: &str, subject: &str, text: String) {
        let change = lock(&self.history).record(unix_nanos() / 1_000_000, who, kind, subject, text);
        // Nobody listening is no mistake.
        let _ = self.changes.send(change);
    }
}
