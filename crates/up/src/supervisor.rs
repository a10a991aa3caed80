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

use std::collections::{BTreeMap, VecDeque};
use units::Nanos;

/// One life of one instance. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// What is wanted of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub name: String,
    pub instances: u32,
    /// Runs to its end; exit 0 is success.
    pub job: bool,
    /// A command runs first whenever new code should run.
    pub build: bool,
    pub needs: Vec<Need>,
    /// Without a check a started instance is a healthy one.
    pub checked: bool,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    /// How long a start may take; an instance that is unhealthy for as long is replaced.
    pub startup: Nanos,
    /// Between the polite signal and the hard one.
    pub stop_timeout: Nanos,
    /// Between leaving the balancers and the polite signal, so that requests on their way still arrive.
    pub drain: Nanos,
    /// It insists on a port of its own, so the old instance must be gone before the new one starts.
    pub exclusive: bool,
    /// Changes when the service must be started anew to be as wanted: a hash of its command, environment, behaviour.
    pub fingerprint: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub service: String,
    pub until: Until,
    /// For people: "it calls db", "needs: db".
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Started,
    Healthy,
    Completed,
}

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(9) => write!(f, "signal 9 (killed)"),
            Self::Signal(11) => write!(f, "signal 11 (segmentation fault)"),
            Self::Signal(15) => write!(f, "signal 15 (terminated)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The process runs.
    Started(Key),
    /// It could not be started at all.
    StartFailed(Key, String),
    Exited(Key, Exit),
    /// A readiness or liveness check answered. Checks run for as long as the instance does.
    Health(Key, Result<(), String>),
    Built(String, Result<(), String>),
    /// The person restarts, stops or starts a service.
    Restart(String),
    Stop(String),
    Start(String),
    /// Its source changed: build if there is a build, then replace one instance after another.
    Replace(String),
    /// Everything stops, dependents first.
    Shutdown,
    /// The person is impatient: everything stops hard and now.
    ShutdownNow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Build(String),
    /// Start the process (or the synthetic instance) of this slot, and its checks.
    Start {
        key: Key,
        service: String,
        index: u32,
    },
    /// It is ready: let traffic come.
    Admit(Key),
    /// No new traffic; what is on its way may finish.
    Retire(Key),
    /// The polite signal, to the whole group.
    Terminate(Key),
    /// The hard signal, to the whole group.
    Kill(Key),
    Tell(Notice),
    /// Everything is gone.
    Finished,
}

/// Something a person may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Waiting {
        instance: String,
        on: Vec<Awaited>,
    },
    Building {
        service: String,
    },
    BuildFailed {
        service: String,
        detail: String,
        kept: bool,
    },
    Ready {
        instance: String,
        after: Nanos,
    },
    Unhealthy {
        instance: String,
        detail: String,
    },
    Recovered {
        instance: String,
    },
    /// It ended by itself; it is started again after `pause`.
    Crashed {
        instance: String,
        detail: String,
        pause: Nanos,
        attempt: u32,
    },
    /// It ended by itself once too often. The edge adds the last lines of its output.
    GaveUp {
        instance: String,
        key: Key,
        detail: String,
        attempts: u32,
    },
    Completed {
        job: String,
    },
    Stopped {
        instance: String,
        hard: bool,
    },
}

/// Something an instance waits for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    pub service: String,
    pub until: Until,
    pub why: String,
    /// The state it is in now: "starting", "failed: exit status 1".
    pub state: String,
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to be {} ({}, it is {})", self.service, self.until, self.why, self.state)
    }
}

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
enum Then {
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
    then: Then,
    crash_detail: Option<String>,
    /// Crashes without a stable time in between.
    crashes: u32,
    passes: u32,
    fails: u32,
    /// The key of the older instance that goes once this one is ready.
    replaces: Option<Key>,
    told_waiting: Vec<Awaited>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Build {
    /// Nothing to build, or built.
    Fresh,
    Wanted,
    Running,
    Failed(String),
}

#[derive(Debug)]
struct Service {
    wanted: Wanted,
    instances: Vec<Instance>,
    build: Build,
    /// Stopped by the person: no instance starts.
    held: bool,
    /// Gone from the file: it disappears when its last process has.
    leaving: bool,
    /// Slots that still run old code, to be replaced one after another.
    to_replace: VecDeque<Key>,
}

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
                until: Until::Completed,
                why: "its build".to_owned(),
                state: "building".to_owned(),
            }),
            Build::Failed(why) => awaited.push(Awaited {
                service: service.to_owned(),
                until: Until::Completed,
                why: "its build".to_owned(),
                state: format!("failed: {why}"),
            }),
            Build::Fresh => {}
        }
        awaited
    }

    fn on_started(&mut self, now: Nanos, key: Key) {
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

    fn on_health(&mut self, now: Nanos, key: Key, result: Result<(), String>) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let (healthy_after, unhealthy_after) = (service.wanted.healthy_after, service.wanted.unhealthy_after);
        let name = label(service, at);
        let instance = &mut service.instances[at];
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

    fn ready(&mut self, now: Nanos, key: Key) {
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
    fn retire(&mut self, now: Nanos, key: Key, drain: Nanos, then: Then) {
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

    fn on_gone(&mut self, now: Nanos, key: Key, detail: String, exit: Option<Exit>) {
        let Some((service, at)) = locate(&mut self.services, key) else { return };
        let job = service.wanted.job;
        let name = label(service, at);
        let instance = &mut service.instances[at];
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
                    self.crashed(now, key, why, Nanos::ZERO);
                    return;
                }
            }
            self.actions.push_back(Action::Tell(Notice::Stopped { instance: name, hard }));
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
        self.crashed(now, key, detail, stable);
    }

    fn crashed(&mut self, now: Nanos, key: Key, detail: String, stable: Nanos) {
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
                detail,
                pause,
                attempt: attempts,
            }));
        }
    }

    fn on_built(&mut self, now: Nanos, name: &str, result: Result<(), String>) {
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

    fn restart(&mut self, now: Nanos, name: &str) {
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

    fn hold(&mut self, now: Nanos, name: &str) {
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

    fn release(&mut self, name: &str) {
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

    fn replace(&mut self, now: Nanos, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.wanted.build {
            service.build = Build::Wanted;
        } else {
            service.build = Build::Fresh;
            self.queue_replacements(now, name);
        }
    }

    /// Live instances are replaced one after another; those that are down just start as the new thing.
    fn queue_replacements(&mut self, now: Nanos, name: &str) {
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

    fn kill_all(&mut self) {
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

    /// Brings what is closer to what is wanted, as far as time and events allow.
    fn settle(&mut self, now: Nanos) {
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
    fn expire(&mut self, now: Nanos) {
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
                        crashes.push((instance.key, format!("not ready within {}", wanted.startup)));
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

    fn settle_count(&mut self, now: Nanos, name: &str) {
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
    fn settle_replacements(&mut self, now: Nanos, name: &str) {
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

    fn settle_starts(&mut self, now: Nanos, name: &str) {
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
        let held = service.held;
        let fingerprint = service.wanted.fingerprint;
        for at in 0..service.instances.len() {
            let label = label(service, at);
            let instance = &mut service.instances[at];
            if instance.phase != Phase::Waiting || held {
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
    fn settle_shutdown(&mut self, now: Nanos) {
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

impl Instance {
    fn new(key: Key, index: u32, now: Nanos) -> Self {
        Self {
            key,
            index,
            phase: Phase::Waiting,
            restarts: 0,
            fingerprint: 0,
            born: now,
            last_end: None,
            then: Then::Crash,
            crash_detail: None,
            crashes: 0,
            passes: 0,
            fails: 0,
            replaces: None,
            told_waiting: Vec::new(),
        }
    }

    fn started_before(&self) -> bool {
        self.fingerprint != 0
    }

    fn begin(&mut self, now: Nanos, fingerprint: u64) {
        self.phase = Phase::Starting { since: now, running: false };
        self.then = Then::Crash;
        self.crash_detail = None;
        // Zero means "never started", so a fingerprint that happens to be zero becomes its neighbour.
        self.fingerprint = fingerprint.max(1);
        (self.passes, self.fails) = (0, 0);
        self.told_waiting.clear();
        if self.crashes == 0 {
            self.born = now;
        }
    }

    fn may_retire(&self) -> bool {
        self.phase.is_live() && !matches!(self.phase, Phase::Draining { .. } | Phase::Stopping { .. })
    }
}

impl Service {
    fn satisfies(&self, until: Until) -> bool {
        let any = |test: fn(&Phase) -> bool| self.instances.iter().any(|it| test(&it.phase));
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
        }
    }

    /// The most telling state among its instances.
    fn state(&self) -> String {
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

fn locate(services: &mut BTreeMap<String, Service>, key: Key) -> Option<(&mut Service, usize)> {
    services.values_mut().find_map(|service| {
        let at = service.instances.iter().position(|it| it.key == key)?;
        Some((service, at))
    })
}

fn label(service: &Service, at: usize) -> String {
    format!("{}#{}", service.wanted.name, service.instances[at].index)
}

#[cfg(test)]
mod tests;
