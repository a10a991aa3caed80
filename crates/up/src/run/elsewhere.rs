//! Instances that isobar did not start: they check in over the API, and are asked how they are as our own are.
//!
//! What they say and what they answer are combined by the registry; here it is only found out what they answer. One
//! that forgets to check in and still answers is kept: then it is not the instance that is broken.
//!
//! Asking is bounded: however many there are, no more than a fixed number of questions goes out in a second.

use super::{Inner, Runner, Say};
use crate::probe::Probe;
use control::api::lock;
use control::registry::{InstanceId, Registered};
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
        let here: BTreeMap<InstanceId, Registered> = {
            let mut registry = lock(&self.registry);
            registry.expire(now);
            if registry.revision() == self.registry_revision {
                return;
            }
            self.registry_revision = registry.revision();
            registry.instances(now).map(|it| (it.id.clone(), it)).collect()
        };
        self.dirty = true;
        let gone: Vec<InstanceId> =
            self.elsewhere.keys().filter(|it| !here.contains_key(*it)).cloned().collect();
        for id in &gone {
            self.elsewhere.remove(id);
        }
        let mut came = Vec::new();
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
        let described = |it: &&Registered| {
            let mut words = vec![it.said.address.to_string()];
            words.extend(
                [&it.said.version, &it.said.region, &it.said.zone, &it.said.team].into_iter().cloned(),
            );
            words.retain(|it| !it.is_empty());
            format!("{}/{} ({})", it.id.service, it.id.id, words.join(", "))
        };
        self.tell_of_strangers("registered from elsewhere", came.iter().map(described).collect());
        self.tell_of_strangers("gone", gone.iter().map(|it| format!("{}/{}", it.service, it.id)).collect());
    }

    fn tell_of_strangers(&mut self, what: &str, who: Vec<String>) {
        if who.is_empty() {
            return;
        }
        let text = if who.len() > NAMED_MAX {
            format!("{what}: {} and {} more", who[..NAMED_MAX].join(", "), who.len() - NAMED_MAX)
        } else {
            format!("{what}: {}", who.join(", "))
        };
        // A crowd is one change: a fleet that comes in shall not push everything else out of the history.
        let subject = who[0].split('/').next().unwrap_or_default().to_owned();
        (self.say)(Say::Event(text.clone()));
        self.record("the instance itself", "instance", &subject, text);
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
