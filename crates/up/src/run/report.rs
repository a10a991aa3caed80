//! What is true now, published for everybody who asks: `isobar ps`, the map, a script.

use super::instances::Body;
use super::{Runner, Say, slot, unix_nanos};
use crate::plan;
use crate::supervisor::Phase;
use crate::synthetic::SYNTHETIC_THREADS;
use crate::usage::{self, Usage};
use control::api::lock;
use control::status::{InstanceStatus, ServiceStatus, Status};
use std::sync::Arc;
use units::Nanos;

impl Runner {
    pub(super) fn publish(&mut self) {
        let settled = self.supervisor.is_settled();
        let revision = self.status.borrow().revision + 1;
        let status = self.make_status(revision, settled);
        self.status.send_replace(Arc::new(status));
        // Where something is given up one wants to look at the map, and the rest is to be used.
        if !self.all_told && (settled || self.supervisor.is_at_its_end()) {
            self.all_told = true;
            if self.options.load {
                self.start_all_traffic();
            }
            for address in &self.addresses {
                (self.say)(Say::Address(address.clone()));
            }
        }
    }

    pub(super) fn make_status(&self, revision: u64, settled: bool) -> Status {
        let now = self.now();
        let services = self
            .system
            .services
            .iter()
            .filter_map(|service| {
                let name = &service.name.value;
                let wanted = self.supervisor.instances_wanted(name)?;
                let instances = self
                    .supervisor
                    .instances()
                    .filter(|(of, _)| *of == name)
                    .map(|(_, it)| self.instance_status(now, service, it))
                    .collect();
                Some(ServiceStatus {
                    name: name.clone(),
                    kind: service.kind.word().to_owned(),
                    team: service
                        .team
                        .as_ref()
                        .and_then(|it| Some(self.system.teams.get(it.value)?.name.value.clone())),
                    wanted,
                    synthetic: service.run.is_none(),
                    waits_for: self.supervisor.awaiting(name).iter().map(ToString::to_string).collect(),
                    instances,
                })
            })
            .collect();
        Status {
            name: self.options.name.clone(),
            system: self.system.name.clone(),
            file: self.options.file.display().to_string(),
            pid: std::process::id(),
            started_unix_ms: self.started_unix_ms,
            unix_ms: unix_nanos() / 1_000_000,
            revision,
            settled,
            addresses: self.addresses.clone(),
            services,
            traffic: self.traffic_status(),
            scenario: self.scenario_status(),
            refused: self.refused.clone(),
            handing: lock(&self.watched.handing).clone(),
        }
    }

    pub(super) fn instance_status(
        &self,
        now: Nanos,
        service: &model::system::Service,
        it: &crate::supervisor::Instance,
    ) -> InstanceStatus {
        let live = self.live.get(&it.key);
        let seat = live.map_or_else(|| plan::seat(&self.system, service, it.index), |it| it.seat.clone());
        let detail = match &it.phase {
            Phase::Unhealthy { detail, .. } | Phase::Pausing { detail, .. } | Phase::Failed { detail } => {
                detail.clone()
            }
            Phase::Starting { .. } => {
                it.last_answer.clone().map_or_else(String::new, |said| format!("not ready yet: {said}"))
            }
            _ => String::new(),
        };
        let (usage, shared_by) = match live.map(|it| &it.body) {
            Some(Body::Process { .. }) => (live.and_then(|it| it.usage), None),
            Some(Body::Synthetic) => (self.synthetic_usage, Some(self.synthetic_count())),
            None => (None, None),
        };
        // An instance that shares is told its share, and by how many it was divided.
        let share = f64::from(shared_by.unwrap_or(1).max(1));
        let part = |whole: u64| (whole as f64 / share) as u64;
        InstanceStatus {
            name: slot(&service.name.value, it.index),
            index: it.index,
            state: it.phase.word().to_owned(),
            detail,
            pid: live.and_then(|it| match it.body {
                Body::Process { pid, .. } => Some(pid),
                Body::Synthetic => None,
            }),
            port: live.and_then(|it| Some(it.address?.port())),
            version: seat.version.clone(),
            place: seat.place(),
            restarts: it.restarts,
            age_ms: live.map_or(0, |it| now.saturating_sub(it.since).as_u64() / 1_000_000),
            cpu_ms: usage.map(|it| part(it.now.cpu_nanos / 1_000_000)),
            cpu_cores: usage.and_then(|it| it.cores).map(|it| it / share),
            memory_bytes: usage.map(|it| part(it.now.memory_bytes)),
            shared_by: usage.and(shared_by),
        }
    }

    fn synthetic_count(&self) -> u32 {
        self.live.values().filter(|it| matches!(it.body, Body::Synthetic)).count() as u32
    }

    /// Looks at what everybody costs. A walk over the process table, so not at every turn; without processes of ours
    /// there is nothing to walk for.
    pub(super) fn measure(&mut self) {
        let at = self.now();
        let leaders: Vec<u32> = self
            .live
            .values()
            .filter_map(|it| match it.body {
                Body::Process { pid, .. } => Some(pid),
                Body::Synthetic => None,
            })
            .collect();
        let trees = usage::of_trees(&leaders);
        for live in self.live.values_mut() {
            if let Body::Process { pid, .. } = live.body {
                live.usage = trees.get(&pid).map(|now| Measured::after(live.usage, (live.since, at), *now));
            }
        }
        let own = if self.synthetic_count() > 0 { usage::of_own_threads(&SYNTHETIC_THREADS) } else { None };
        self.synthetic_usage = own.map(|now| Measured::after(self.synthetic_usage, (Nanos::ZERO, at), now));
    }
}

/// What something costs, and how fast it costs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    at: Nanos,
    now: Usage,
    /// Processor time over time, since it was measured before or began.
    cores: Option<f64>,
}

impl Measured {
    fn after(before: Option<Self>, (began, at): (Nanos, Nanos), now: Usage) -> Self {
        let (since, spent) = before.map_or((began, 0), |it| (it.at, it.now.cpu_nanos));
        let time = at.saturating_sub(since);
        let cpu = now.cpu_nanos.saturating_sub(spent);
        let cores = (!time.is_zero()).then(|| cpu as f64 / time.as_u64() as f64);
        Self { at, now, cores }
    }
}
