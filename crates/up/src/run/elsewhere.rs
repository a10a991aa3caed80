//! Instances that isobar did not start: they check in over the API, and are asked how they are as our own are.
//!
//! What they say and what they answer are combined by the registry; here it is only found out what they answer. One
//! that forgets to check in and still answers is kept: then it is not the instance that is broken.
//!
//! Asking is bounded: however many there are, no more than a fixed number of questions goes out in a second.

use super::{Inner, Runner, Say};
use crate::probe::Probe;
use control::api::lock;
use control::registry::{Departure, InstanceId, Left, Registered};
use model::system::Check as Asked;
use policy::health::{Answer, Check, Checker};
use policy::settings::HealthCheck;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::AbortHandle;

/// Questions a second to all of them together. Ten thousand instances are then asked every minute.
const QUESTIONS_PER_SECOND_MAX: usize = 200;
/// Instances named one by one when they come or go; more are counted.
const NAMED_MAX: usize = 4;

/// One of them, as far as we know it.
#[derive(Debug)]
pub(super) struct Stranger {
    address: SocketAddr,
    checker: Checker,
    /// It is asked as the file in force says.
    asked: bool,
    asking: Option<AbortHandle>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

/// Who came and who went at once. A crowd is one change: a fleet that comes in shall not push everything else out of the
/// history.
#[derive(Debug, Default)]
struct Crowd {
    /// By what happened, why, and to which service's: at whose wish, and who.
    groups: BTreeMap<Happened, Vec<(String, String)>>,
}

type Happened = (&'static str, &'static str, String);

impl Crowd {
    fn add(&mut self, who: String, what: &'static str, why: &'static str, id: &InstanceId, name: String) {
        self.groups.entry((what, why, id.service.clone())).or_default().push((who, name));
    }

    /// Who, about which service, and one sentence; of those who left `untold` more.
    fn changes(self, untold: u64) -> Vec<(String, String, String)> {
        let mut changes = Vec::new();
        for ((what, why, service), mut crowd) in self.groups {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            crowd.sort();
            let mut by_whom: Vec<(String, Vec<String>)> = Vec::new();
            for (who, name) in crowd {
                match by_whom.last_mut() {
                    Some((last, names)) if *last == who => names.push(name),
                    _ => by_whom.push((who, vec![name])),
                }
            }
            if by_whom.len() > NAMED_MAX {
                let all = by_whom.iter().flat_map(|(_, names)| names.clone()).collect();
                let who = format!("{} and {} more", by_whom[0].0, by_whom.len() - 1);
                by_whom = vec![(who, all)];
            }
            for (who, names) in by_whom {
                let more = names.len().saturating_sub(NAMED_MAX);
                let named = names[..names.len() - more].join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                changes.push((who, service.clone(), format!("{what}: {named}{more}{why}")));
            }
        }
        if untold > 0 {
            changes.push(("isobar".to_owned(), String::new(), format!("gone: {untold} more")));
        }
        changes
    }
}

/// Can this check be made without having started the instance?
fn probe_of(check: &Asked) -> Option<Probe> {
    match check {
        Asked::Http { path } => Some(Probe::Http { path: path.clone() }),
        Asked::Grpc { service } => Some(Probe::Grpc { service: service.clone() }),
        Asked::Tcp => Some(Probe::Tcp),
        // Its log and its folder are not ours to look into.
        Asked::None | Asked::Log { .. } | Asked::Command { .. } => None,
    }
}

impl Runner {
    /// Tells the registry whose instances are checked: those come in as not known to be well. Done for every new file.
    pub(super) fn say_who_is_checked(&mut self) {
        let checked: BTreeSet<String> = self
            .system
            .services
            .iter()
            .filter(|it| probe_of(&it.health.check).is_some())
            .map(|it| it.name.value.clone())
            .collect();
        let now = self.now();
        lock(&self.registry).set_checked(now, checked);
        for stranger in self.elsewhere.values_mut() {
            // Known as before, but asked anew: how it is asked may have changed.
            stranger.asked = false;
        }
    }

    /// Looks at who came and who went since the last time.
    pub(super) fn greet(&mut self) {
        let now = self.now();
        let (here, (departed, untold)): (BTreeMap<InstanceId, Registered>, _) = {
            let mut registry = lock(&self.registry);
            registry.expire(now);
            if registry.revision() == self.registry_revision {
                return;
            }
            self.registry_revision = registry.revision();
            let departures = registry.take_departures();
            (registry.instances(now).map(|it| (it.id.clone(), it)).collect(), departures)
        };
        self.dirty = true;
        let gone: Vec<InstanceId> =
            self.elsewhere.keys().filter(|it| !here.contains_key(*it)).cloned().collect();
        for id in &gone {
            self.elsewhere.remove(id);
        }
        let (mut came, mut told) = (Vec::new(), Crowd::default());
        for (id, it) in &here {
            let known = self.elsewhere.get(id);
            if known.is_some_and(|known| known.asked && known.address == it.said.address) {
                continue;
            }
            if known.is_none() {
                came.push(it);
            }
            let asking = self.ask_from_now_on(id, it.said.address, here.len());
            let stranger =
                Stranger { address: it.said.address, checker: Checker::default(), asked: true, asking };
            self.elsewhere.insert(id.clone(), stranger);
        }
        let described = |it: &Registered| {
            let mut words = vec![it.said.address.to_string()];
            words.extend(
                [&it.said.version, &it.said.region, &it.said.zone, &it.said.team].into_iter().cloned(),
            );
            words.retain(|it| !it.is_empty());
            format!("{}/{} ({})", it.id.service, it.id.id, words.join(", "))
        };
        for it in came {
            let own = format!("{}/{}", it.id.service, it.id.id);
            told.add(it.who.clone().unwrap_or(own), "registered from elsewhere", "", &it.id, described(it));
        }
        for Departure { id, how } in departed {
            let own = format!("{}/{}", id.service, id.id);
            let (who, why) = match how {
                Left::Asked { who } => (who.unwrap_or_else(|| own.clone()), "checked out"),
                Left::Forgotten => ("isobar".to_owned(), "its lease ended"),
                Left::Failing => ("isobar".to_owned(), "its lease ended and it does not answer its check"),
            };
            told.add(who, "gone", why, &id, own);
        }
        for (who, subject, text) in told.changes(untold) {
            (self.say)(Say::Event(text.clone()));
            self.record(&who, "instance", &subject, text);
        }
    }

    fn ask_from_now_on(&self, id: &InstanceId, address: SocketAddr, crowd: usize) -> Option<AbortHandle> {
        let health = &self.system.services[self.find(&id.service)?].health;
        let probe = probe_of(&health.check)?;
        let fewest = Duration::from_millis((crowd * 1_000 / QUESTIONS_PER_SECOND_MAX) as u64);
        let every = Duration::from_nanos(health.every.as_u64()).max(fewest);
        let timeout = Duration::from_nanos(health.timeout.as_u64());
        let (inbox, id) = (self.inbox.clone(), id.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                let answer = probe.ask(address, timeout, None).await;
                if inbox.send(Inner::Elsewhere(id.clone(), address, answer)).await.is_err() {
                    return;
                }
                tokio::time::sleep(every).await;
            }
        });
        Some(task.abort_handle())
    }

    pub(super) fn on_answer_from_elsewhere(
        &mut self,
        id: &InstanceId,
        address: SocketAddr,
        answer: Result<(), String>,
    ) {
        let now = self.now();
        let Some(service) = self.find(&id.service) else { return };
        let health = &self.system.services[service].health;
        let settings = HealthCheck { rise: health.healthy_after.max(1), fall: health.unhealthy_after.max(1) };
        // It may have moved, or gone, while it was asked.
        let Some(stranger) = self.elsewhere.get_mut(id).filter(|it| it.address == address) else { return };
        let heard = if answer.is_ok() { Answer::Pass } else { Answer::Silent };
        let Some(check) = stranger.checker.on_answer(&settings, heard) else { return };
        lock(&self.registry).set_check(now, id, check);
        let text = match (check, answer) {
            (Check::Failing, Err(why)) => format!("{}/{} is unhealthy: {why}", id.service, id.id),
            _ => format!("{}/{} is healthy", id.service, id.id),
        };
        (self.say)(Say::Event(text.clone()));
        self.record("isobar", "instance", &id.service, text);
        // What the balancers may use changed: at once, not at the next look.
        self.greet();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instances by number, who said so, and what the history gets.
    #[track_caller]
    fn check(crowd: &[(u32, &str)], expected: &[(&str, &str)]) {
        let mut told = Crowd::default();
        for (n, who) in crowd {
            let id = InstanceId { service: "web".to_owned(), id: n.to_string() };
            told.add((*who).to_owned(), "gone", "its lease ended", &id, format!("web/{n}"));
        }
        let changes = told.changes(0);
        let said: Vec<(&str, &str)> = changes.iter().map(|it| (it.0.as_str(), it.2.as_str())).collect();
        assert_eq!(said, expected);
        assert!(changes.iter().all(|it| it.1 == "web"));
    }

    #[test]
    fn a_crowd_is_one_change_for_each_who() {
        check(&[], &[]);
        check(&[(1, "ann")], &[("ann", "gone: web/1 (its lease ended)")]);
        check(
            &[(1, "ann"), (2, "bob"), (3, "ann")],
            &[("ann", "gone: web/1, web/3 (its lease ended)"), ("bob", "gone: web/2 (its lease ended)")],
        );
        let many: Vec<(u32, &str)> = (1..8).map(|n| (n, "ann")).collect();
        check(&many, &[("ann", "gone: web/1, web/2, web/3, web/4 and 3 more (its lease ended)")]);
        let each = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
        check(&each, &[("a and 4 more", "gone: web/1, web/2, web/3, web/4 and 1 more (its lease ended)")]);
        assert_eq!(Crowd::default().changes(7)[0].2, "gone: 7 more");
    }
}
