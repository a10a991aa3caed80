//! What the supervisor remembers: services, their slots, and where each instance is in its life.

use super::vocabulary::{Awaited, Key, Until, Wanted};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::Nanos;

/// Where an instance is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Not started: something it needs, or its build, is not there.
    Waiting,
    /// Its process is being started or runs, and its check has not passed yet.
    Starting {
        since: Nanos,
        running: bool,
    },
    Ready {
        since: Nanos,
    },
    /// It was ready and its check fails.
    Unhealthy {
        since: Nanos,
        detail: String,
    },
    /// Out of the balancers; the polite signal comes at `until`.
    Draining {
        until: Nanos,
    },
    /// The polite signal is out; the hard one comes at `until`.
    Stopping {
        until: Nanos,
        hard: bool,
    },
    /// It ended by itself and is started again at `until`.
    Pausing {
        until: Nanos,
        detail: String,
    },
    /// It ended by itself too often, or could not be started.
    Failed {
        detail: String,
    },
    /// A job that ended well.
    Completed,
    /// Somebody stopped it.
    Stopped,
}

impl Phase {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } => "stopping",
            Self::Pausing { .. } => "restarting",
            Self::Failed { .. } => "failed",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }

    /// Is there, or may there be, a process?
    pub fn is_live(&self) -> bool {
        matches!(
            self,
            Self::Starting { .. }
                | Self::Ready { .. }
                | Self::Unhealthy { .. }
                | Self::Draining { .. }
                | Self::Stopping { .. }
        )
    }
}

/// What becomes of an instance once its process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The slot goes as well: scaled down, replaced, shut down.
    Forget,
    /// It stays visible as stopped.
    Rest,
    /// It starts again at once.
    Again,
    /// It was not our wish that it stops (a failed start): it counts as a crash.
    Crash,
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub key: Key,
    pub index: u32,
    pub phase: Phase,
    /// Starts after the first, by crash or by wish, over the life of this slot.
    pub restarts: u32,
    pub fingerprint: u64,
    /// Since the slot first ran.
    pub born: Nanos,
    /// What ended the last life, if it did not end by wish.
    pub last_end: Option<String>,
    /// What its check said last, if it did not pass.
    pub last_answer: Option<String>,
    pub(super) then: Then,
    pub(super) crash_detail: Option<String>,
    /// Crashes without a stable time in between.
    pub(super) crashes: u32,
    pub(super) passes: u32,
    pub(super) fails: u32,
    /// The key of the older instance that goes once this one is ready.
    pub(super) replaces: Option<Key>,
    pub(super) told_waiting: Vec<Awaited>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Build {
    /// Nothing to build, or built.
    Fresh,
    Wanted,
    Running,
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) wanted: Wanted,
    pub(super) instances: Vec<Instance>,
    pub(super) build: Build,
    /// Stopped by the person: no instance starts.
    pub(super) held: bool,
    /// Struck down by a scenario: these do not start until they are let go.
    pub(super) halted: BTreeSet<u32>,
    /// Gone from the file: it disappears when its last process has.
    pub(super) leaving: bool,
    /// Slots that still run old code, to be replaced one after another.
    pub(super) to_replace: VecDeque<Key>,
}

impl Instance {
    pub(super) fn new(key: Key, index: u32, now: Nanos) -> Self {
        Self {
            key,
            index,
            phase: Phase::Waiting,
            restarts: 0,
            fingerprint: 0,
            born: now,
            last_end: None,
            last_answer: None,
            then: Then::Crash,
            crash_detail: None,
            crashes: 0,
            passes: 0,
            fails: 0,
            replaces: None,
            told_waiting: Vec::new(),
        }
    }

    pub(super) fn started_before(&self) -> bool {
        self.fingerprint != 0
    }

    pub(super) fn begin(&mut self, now: Nanos, fingerprint: u64) {
        self.phase = Phase::Starting { since: now, running: false };
        self.then = Then::Crash;
        self.crash_detail = None;
        self.last_answer = None;
        // Zero means "never started", so a fingerprint that happens to be zero becomes its neighbour.
        self.fingerprint = fingerprint.max(1);
        (self.passes, self.fails) = (0, 0);
        self.told_waiting.clear();
        if self.crashes == 0 {
            self.born = now;
        }
    }

    pub(super) fn may_retire(&self) -> bool {
        self.phase.is_live() && !matches!(self.phase, Phase::Draining { .. } | Phase::Stopping { .. })
    }
}

impl Service {
    pub(super) fn satisfies(&self, until: Until) -> bool {
        let any = |test: fn(&Phase) -> bool| self.instances.iter().any(|it| test(&it.phase));
        if self.wanted.instances == 0 {
            // Scaled to nobody: nobody will ever come, so nobody is waited for.
            return true;
        }
        match until {
            Until::Started => any(|it| {
                matches!(
                    it,
                    Phase::Starting { running: true, .. }
                        | Phase::Ready { .. }
                        | Phase::Unhealthy { .. }
                        | Phase::Completed
                )
            }),
            Until::Healthy if self.wanted.job => any(|it| *it == Phase::Completed),
            Until::Healthy => any(|it| matches!(it, Phase::Ready { .. })),
            Until::Completed => any(|it| *it == Phase::Completed),
            Until::Built => self.build == Build::Fresh,
        }
    }

    /// The most telling state among its instances.
    pub(super) fn state(&self) -> String {
        if self.held {
            return "stopped".to_owned();
        }
        let failed = self.instances.iter().find_map(|it| match &it.phase {
            Phase::Failed { detail } => Some(format!("failed: {detail}")),
            Phase::Pausing { detail, .. } => Some(format!("restarting after {detail}")),
            _ => None,
        });
        failed
            .unwrap_or_else(|| self.instances.first().map_or("not started", |it| it.phase.word()).to_owned())
    }
}

pub(super) fn locate(services: &mut BTreeMap<String, Service>, key: Key) -> Option<(&mut Service, usize)> {
    services.values_mut().find_map(|service| {
        let at = service.instances.iter().position(|it| it.key == key)?;
        Some((service, at))
    })
}

pub(super) fn label(service: &Service, at: usize) -> String {
    format!("{}#{}", service.wanted.name, service.instances[at].index)
}
