//! One running system: the supervisor's decisions carried out, the proxy fed, the person told, the API answered.
//!
//! Everything that decides is elsewhere and pure; this is the edge, one loop on one thread that lives as long as
//! isobar does (a service dies with the *thread* that started it). What the loop waits for comes in through one inbox:
//! ends of processes, answers of checks, words of synthetic instances, wishes over the API, signals, time.

mod instances;
mod plane;
mod traffic;
mod watch;
mod wishes;
mod words;

use plane::Plane;

use crate::logs::{Limits, Stream, Writer};
use crate::plan::{self, Seat};
use crate::ports::{self, NoPort, Ports};
use crate::process::{adopt_orphans, kill_marked, reap_orphans};
use crate::state::{Folder, Found, Held};
use crate::supervisor::{Action, Event, Key, Notice, Phase, Supervisor};
use crate::synthetic::{Host, Told};
use control::api::{self, Api, Request, lock};
use control::compile::{Compiler, Door, Instance, Topology};
use control::history::{Change, History};
use control::map::Map;
use control::page::LogLine;
use control::registry::Registry;
use control::status::{Address, InstanceStatus, ServiceStatus, Status};
use control::watch::{Clocks, Watched, watch as watch_over};
use control::web;
use instances::{Body, Live};
use model::system::{ServiceId, System};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch as latest};
use units::Nanos;

/// Reports waiting for the loop. Each instance has a handful at most; more means that the loop hangs.
const INBOX_MAX: usize = 65_536;
/// Wishes over the API waiting for the loop.
const WISHES_MAX: usize = 256;
/// How often processor time and memory are looked at, files are compared and leases end.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// What the person asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, or the folder it is in.
    pub file: PathBuf,
    pub name: String,
    pub state_root: PathBuf,
    pub without: BTreeSet<String>,
    /// Our own binary: what services are started through.
    pub trampoline: PathBuf,
    pub seed: u64,
    pub watch: bool,
    /// Start the file's traffic at once.
    pub load: bool,
    /// The web map's files.
    pub page: web::Page,
    /// The date, for risks that were accepted until a day.
    pub today: fn() -> (u16, u8, u8),
}

/// Reads the file again: the system, or its mistakes as a person should see them; and the files it is made of.
pub type Reload = dyn Fn() -> (Result<System, String>, Vec<PathBuf>);

/// Something to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// A word on what happens.
    Event(String),
    /// Something is wrong.
    Problem(String),
    Address(Address),
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Hold(#[from] crate::state::HoldError),
    #[error(transparent)]
    NoPort(#[from] NoPort),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("the proxy refuses what the file means (a mistake of isobar's): {0}")]
    Snapshot(String),
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// Where a gateway listens, and why not where the file says.
#[derive(Debug)]
struct Gateway {
    asked: String,
    held: ports::Held,
    note: Option<String>,
}

/// What comes into the loop.
#[derive(Debug)]
pub(crate) enum Inner {
    Event(Event),
    Synthetic(Key, Told),
    /// A process ended; what it left behind can be looked for.
    Left(Key),
}

pub(crate) struct Runner {
    options: Options,
    folder: Folder,
    _held: Held,
    /// Tells this run's processes from those of a run before it.
    run_id: String,
    system: Rc<System>,
    started: Instant,
    started_unix_ms: u64,
    supervisor: Supervisor,
    host: Host,
    plane: Plane,
    compiler: Compiler,
    ports: Ports,
    /// By (caller's slot, callee).
    doors: BTreeMap<(String, String), (Door, ports::Held)>,
    gateways: BTreeMap<String, Gateway>,
    faults: BTreeMap<String, proxy::config::Fault>,
    traffic: traffic::TrafficDesk,
    live: HashMap<Key, Live>,
    admitted: BTreeSet<Key>,
    logs: Rc<RefCell<Writer>>,
    inbox: mpsc::Sender<Inner>,
    say: Box<dyn Fn(Say)>,
    history: Arc<Mutex<History>>,
    changes: broadcast::Sender<Change>,
    registry: Arc<Mutex<Registry>>,
    registry_revision: u64,
    status: latest::Sender<Arc<Status>>,
    /// The drawing of the file in force, for the watcher.
    maps: latest::Sender<Arc<Map>>,
    watched: Arc<Watched>,
    addresses: Vec<Address>,
    refused: Vec<String>,
    /// The snapshot must be compiled again.
    dirty: bool,
    /// When a service was first told to be ready.
    ready_told: BTreeMap<String, Nanos>,
    all_told: bool,
    /// What each waiting service was last told to wait for.
    waiting_told: BTreeMap<String, String>,
    finished: bool,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Runs a system until it is told to stop. Call it on a thread that lives as long as the process.
pub fn run(options: Options, system: System, reload: &Reload, say: Box<dyn Fn(Say)>) -> Result<(), RunError> {
    let runtime = crate::synthetic::local_runtime().map_err(io("cannot start a runtime"))?;
    runtime.block_on(async {
        // Before anything is started: from here on an end that was asked for is a clean one.
        let signals = Signals::new();
        let folder = Folder::new(&options.state_root, &options.name);
        let held = folder.hold()?;
        adopt_orphans().map_err(io("cannot become the parent of orphans"))?;
        // The lock was free, so whoever carries this folder's mark belongs to a run that is dead.
        let healed = kill_marked(&format!("{}/", folder.mark()), &[]);
        if healed > 0 {
            say(Say::Event(format!(
                "{healed} processes of a run that was killed were still there, and are gone now"
            )));
        }
        let (mut runner, wires) = Runner::new(options, folder, held, system, say)?;
        runner.begin()?;
        runner.drive(wires, signals, reload).await;
        runner.end();
        Ok(())
    })
}

/// The ways in which the world asks us to end.
struct Signals {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| signal(kind).ok();
        Self {
            interrupt: listen(SignalKind::interrupt()),
            terminate: listen(SignalKind::terminate()),
            hangup: listen(SignalKind::hangup()),
        }
    }
}

/// The receiving ends of the loop.
struct Wires {
    inbox: mpsc::Receiver<Inner>,
    wishes: mpsc::Receiver<Request>,
    registry_changed: Arc<tokio::sync::Notify>,
}

impl Runner {
    fn new(
        options: Options,
        folder: Folder,
        held: Held,
        system: System,
        say: Box<dyn Fn(Say)>,
    ) -> Result<(Self, Wires), RunError> {
        let (inbox, inbox_end) = mpsc::channel(INBOX_MAX);
        let (wishes, wishes_end) = mpsc::channel(WISHES_MAX);
        let started_unix_ms = unix_nanos() / 1_000_000;
        let run_id = format!("{:x}-{:x}", started_unix_ms, std::process::id());
        let host = {
            let inbox = inbox.clone();
            Host::start(options.seed, move |key, told| {
                // A line may be lost in a flood; a start or an end may not, and waits for room.
                match (inbox.try_send(Inner::Synthetic(key, told)), &inbox) {
                    (Err(mpsc::error::TrySendError::Full(Inner::Synthetic(_, Told::Line(_)))), _) => {}
                    (Err(mpsc::error::TrySendError::Full(waiting)), inbox) => {
                        let inbox = inbox.clone();
                        tokio::task::spawn_local(async move { inbox.send(waiting).await });
                    }
                    _ => {}
                }
            })
            .map_err(io("cannot start the synthetic services"))?
        };
        let logs = Writer::open(&folder.logs(), Limits::default()).map_err(io("cannot keep logs"))?;
        let plane = Plane::default();
        let registry_changed = Arc::new(tokio::sync::Notify::new());
        let mut salt = u64::from(std::process::id());
        for byte in options.name.bytes() {
            salt = salt.wrapping_mul(31).wrapping_add(u64::from(byte));
        }
        let started = now();
        let watched = Watched::new(Clocks {
            now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
            started_unix_ms,
        });
        let map = Map::of(&system, (options.today)(), None);
        let runner = Self {
            run_id,
            system: Rc::new(system),
            started,
            started_unix_ms,
            supervisor: Supervisor::new(),
            host,
            plane,
            compiler: Compiler::default(),
            ports: Ports::new(salt),
            doors: BTreeMap::new(),
            gateways: BTreeMap::new(),
            faults: BTreeMap::new(),
            traffic: traffic::TrafficDesk::default(),
            live: HashMap::new(),
            admitted: BTreeSet::new(),
            logs: Rc::new(RefCell::new(logs)),
            inbox,
            say,
            history: Arc::default(),
            changes: broadcast::channel(1_024).0,
            registry: Arc::default(),
            registry_revision: 0,
            status: latest::channel(Arc::new(Status::default())).0,
            maps: latest::channel(Arc::new(map)).0,
            watched,
            addresses: Vec::new(),
            refused: Vec::new(),
            dirty: true,
            ready_told: BTreeMap::new(),
            all_told: false,
            waiting_told: BTreeMap::new(),
            finished: false,
            folder,
            _held: held,
            options,
        };
        let mut runner = runner;
        runner.open_gateways()?;
        runner.serve_api(wishes, Arc::clone(&registry_changed))?;
        Ok((runner, Wires { inbox: inbox_end, wishes: wishes_end, registry_changed }))
    }

    /// Since the run began.
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn open_gateways(&mut self) -> Result<(), RunError> {
        let system = Rc::clone(&self.system);
        let mut before = std::mem::take(&mut self.gateways);
        for gateway in system.gateways.iter() {
            let (name, asked) = (&gateway.name.value, &gateway.listen.value);
            if let Some(known) = before.remove(name).filter(|it| it.asked == *asked) {
                self.gateways.insert(name.clone(), known);
                continue;
            }
            let wanted = asked.parse().map_err(|_| format!("`{asked}` is no address of this machine"));
            let held = wanted.and_then(|wanted| {
                ports::hold(wanted).map_err(|error| format!("not at {wanted}: {}", plain(&error)))
            });
            let (held, note) = match held {
                Ok(held) => (held, None),
                // Beside a second copy, say: better elsewhere, and said, than not at all.
                Err(note) => (self.ports.hold(&format!("gateway {name}"))?, Some(note)),
            };
            self.gateways.insert(name.clone(), Gateway { asked: asked.clone(), held, note });
        }
        self.addresses.retain(|it| it.kind != "gateway");
        for (at, (name, Gateway { held, note, .. })) in self.gateways.iter().enumerate() {
            let tls = system.gateways.iter().any(|it| it.name.value == *name && it.tls.is_some());
            let scheme = if tls { "https" } else { "http" };
            let gateway = Address {
                kind: "gateway".to_owned(),
                name: name.clone(),
                url: format!("{scheme}://{}", held.address),
                note: note.clone(),
            };
            self.addresses.insert(at, gateway);
        }
        Ok(())
    }

    fn serve_api(
        &mut self,
        wishes: mpsc::Sender<Request>,
        changed: Arc<tokio::sync::Notify>,
    ) -> Result<(), RunError> {
        let listener = self.ports.bind("api")?;
        let address = listener.local_addr().map_err(io("cannot open the API"))?;
        let token = random_token().map_err(io("cannot make a token"))?;
        let started = self.started;
        let api = Api {
            requests: wishes,
            status: self.status.subscribe(),
            history: Arc::clone(&self.history),
            changes: self.changes.clone(),
            registry: Arc::clone(&self.registry),
            registry_changed: changed,
            token: token.clone().into(),
            now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        };
        listener.set_nonblocking(true).map_err(io("cannot open the API"))?;
        let watched = Arc::clone(&self.watched);
        let watching = watch_over(Arc::clone(&watched), self.maps.subscribe(), self.status.subscribe());
        let router = web::router(api, watched, self.options.page, self.logs_reader());
        let router = api::guard(router, token.clone().into());
        std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || {
                // One thread is plenty: answers are copies of what is already there.
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                let Ok(runtime) = runtime else { return };
                runtime.block_on(async {
                    tokio::spawn(watching);
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        let _ = axum::serve(listener, router).await;
                    }
                });
            })
            .map_err(io("cannot start the API"))?;
        let url = format!("http://{address}");
        self.addresses.push(Address {
            kind: "api".to_owned(),
            name: "api".to_owned(),
            url: url.clone(),
            note: None,
        });
        self.addresses.push(Address {
            kind: "map".to_owned(),
            name: "map".to_owned(),
            url: format!("{url}/"),
            note: None,
        });
        let found = Found {
            name: self.options.name.clone(),
            system: self.system.name.clone(),
            file: std::path::absolute(&self.options.file).unwrap_or_else(|_| self.options.file.clone()),
            pid: std::process::id(),
            api: url,
            token,
        };
        self.folder.publish(&found).map_err(io("cannot say where the API is"))
    }

    fn begin(&mut self) -> Result<(), RunError> {
        let wanted = plan::wanted(&self.system, &self.options.without);
        let now = self.now();
        self.supervisor.want(now, wanted);
        self.open_doors()?;
        self.apply().map_err(RunError::Snapshot)?;
        self.pump();
        Ok(())
    }

    async fn drive(&mut self, mut wires: Wires, mut signals: Signals, reload: &Reload) {
        let mut watcher = watch::Watcher::new(&self.system, &self.folder_of_file(), reload().1);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        while !self.finished {
            let wake = self.supervisor.next_wake().map(|at| self.started + Duration::from_nanos(at.as_u64()));
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(inner) = wires.inbox.recv() => {
                    self.on_inner(inner);
                    // One snapshot for a burst of reports, not one for each.
                    while let Ok(inner) = wires.inbox.try_recv() {
                        self.on_inner(inner);
                    }
                }
                Some(wish) = wires.wishes.recv() => self.on_wish(wish),
                () = wires.registry_changed.notified() => self.dirty = true,
                () = received(&mut signals.interrupt) => self.stop("interrupted", &mut stopping),
                () = received(&mut signals.terminate) => self.stop("asked to end", &mut stopping),
                () = received(&mut signals.hangup) => self.stop("the terminal is gone", &mut stopping),
                () = sleep => {}
                _ = housekeeping.tick() => {
                    self.keep_house();
                    if self.options.watch && !stopping {
                        self.look_at_files(&mut watcher, reload);
                    }
                }
            }
            let now = self.now();
            self.supervisor.tick(now);
            self.pump();
        }
    }

    fn stop(&mut self, why: &str, stopping: &mut bool) {
        let now = self.now();
        if *stopping {
            (self.say)(Say::Event("everything is killed now".to_owned()));
            self.supervisor.on(now, Event::ShutdownNow);
        } else {
            *stopping = true;
            (self.say)(Say::Event(format!("{why}: stopping; once more kills")));
            self.record("isobar", "system", &self.options.name.clone(), format!("{why}: stopping"));
            self.supervisor.on(now, Event::Shutdown);
        }
    }

    fn on_inner(&mut self, inner: Inner) {
        let now = self.now();
        match inner {
            Inner::Event(event) => {
                if let Event::Exited(key, _) | Event::StartFailed(key, _) = &event {
                    self.forget(*key);
                }
                self.supervisor.on(now, event);
            }
            Inner::Synthetic(key, told) => self.on_told(key, told),
            Inner::Left(key) => {
                let known = self.known_pids();
                let strays = kill_marked(&self.mark_of(key), &known);
                if strays > 0 {
                    (self.say)(Say::Event(format!(
                        "{strays} processes that had left their group were ended"
                    )));
                }
            }
        }
    }

    fn on_told(&mut self, key: Key, told: Told) {
        let event = match told {
            Told::Line(line) => {
                if let Some(live) = self.live.get(&key) {
                    let (service, index) = (live.service.clone(), live.index);
                    self.logs.borrow_mut().write(unix_nanos(), &service, index, Stream::Out, &line);
                }
                return;
            }
            Told::Started => Event::Started(key),
            Told::Failed(why) => Event::StartFailed(key, why),
            Told::Exited(exit) => Event::Exited(key, exit),
        };
        self.on_inner(Inner::Event(event));
    }

    /// Carries out what the supervisor decided until it has nothing more to say.
    fn pump(&mut self) {
        while let Some(action) = self.supervisor.next_action() {
            match action {
                Action::Start { key, service, index } => self.start(key, &service, index),
                Action::Build(service) => self.build(&service),
                Action::Admit(key) => {
                    self.admitted.insert(key);
                    self.dirty = true;
                }
                Action::Retire(key) => {
                    self.admitted.remove(&key);
                    // At once: the signal follows a fixed time after this, and nobody may be sent there any more.
                    self.dirty = true;
                    self.apply_and_say();
                }
                Action::Terminate(key) => self.signal(key, false),
                Action::Kill(key) => self.signal(key, true),
                Action::Tell(notice) => self.tell(&notice),
                Action::Finished => self.finished = true,
            }
        }
        if self.dirty {
            self.apply_and_say();
        }
        self.logs.borrow_mut().flush();
        self.publish();
    }

    fn tell(&mut self, notice: &Notice) {
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
            self.logs.borrow_mut().write(unix_nanos(), service, index, Stream::Isobar, &sentence);
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
    fn tell_waiting(&mut self) {
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

    fn record(&self, who: &str, kind: &str, subject: &str, text: String) {
        let change = lock(&self.history).record(unix_nanos() / 1_000_000, who, kind, subject, text);
        // Nobody listening is no mistake.
        let _ = self.changes.send(change);
    }

    /// Every slot has a door for each service it calls, before it starts.
    fn open_doors(&mut self) -> Result<(), RunError> {
        let system = Rc::clone(&self.system);
        let mut wanted = BTreeMap::new();
        for (id, service) in system.services.enumerate() {
            let Some(count) = self.supervisor.instances_wanted(&service.name.value) else { continue };
            let callees = plan::dependencies(&system, id);
            // One that is on its way out may still be calling.
            let live =
                self.live.values().filter(|it| it.service == service.name.value).map(|it| it.index + 1).max();
            for index in 0..count.max(live.unwrap_or(0)) {
                let seat = plan::seat(&system, service, index);
                for callee in &callees {
                    if self.is_callable(callee) {
                        wanted.insert(
                            (slot(&service.name.value, index), callee.clone()),
                            (Some(service.name.value.clone()), seat.clone()),
                        );
                    }
                }
            }
        }
        for (key, caller) in self.traffic_doors() {
            wanted.insert(key, caller);
        }
        let gone: Vec<_> = self.doors.keys().filter(|it| !wanted.contains_key(*it)).cloned().collect();
        for key in gone {
            if let Some((door, _)) = self.doors.remove(&key) {
                self.ports.release(door.address.port());
                self.dirty = true;
            }
        }
        for ((slot, callee), (caller, seat)) in wanted {
            let Seat { region, zone, .. } = seat;
            let key = (slot.clone(), callee.clone());
            let held = match self.doors.remove(&key) {
                Some((_, held)) => held,
                None => {
                    self.dirty = true;
                    self.ports.hold(&format!("{slot}->{callee}"))?
                }
            };
            let door = Door { caller, slot, region, zone, callee, address: held.address };
            self.doors.insert(key, (door, held));
        }
        Ok(())
    }

    fn is_callable(&self, service: &str) -> bool {
        !self.options.without.contains(service)
            && self
                .system
                .services
                .iter()
                .any(|it| it.name.value == service && !it.run.as_ref().is_some_and(|run| run.job))
    }

    fn topology(&self) -> Topology {
        let mut instances: Vec<Instance> = self
            .admitted
            .iter()
            .filter_map(|key| self.live.get(key))
            .filter_map(|live| {
                Some(Instance {
                    service: live.service.clone(),
                    address: live.address?,
                    version: live.seat.version.clone(),
                    region: live.seat.region.clone(),
                    zone: live.seat.zone.clone(),
                    weight: 1,
                })
            })
            .collect();
        let now = self.now();
        instances.extend(
            lock(&self.registry).instances(now).filter(|it| it.health == policy::Health::Healthy).map(|it| {
                Instance {
                    service: it.id.service,
                    address: it.said.address,
                    version: it.said.version,
                    region: it.said.region,
                    zone: it.said.zone,
                    weight: it.said.weight,
                }
            }),
        );
        Topology {
            instances,
            doors: self.doors.values().map(|(door, _)| door.clone()).collect(),
            gateways: self.gateways.iter().map(|(name, it)| (name.clone(), it.held.address)).collect(),
            faults: self.faults.clone(),
            folder: self.folder_of_file(),
        }
    }

    /// Compiles and hands over a snapshot. What the proxy refuses changes nothing.
    fn apply(&mut self) -> Result<(), String> {
        self.dirty = false;
        let config = self.compiler.compile(&self.system, &self.topology());
        let started = self.plane.apply(config)?;
        if let Some(observer) = started {
            self.watched.observe(observer);
        }
        Ok(())
    }

    /// For a service's page: the newest lines of its instances.
    fn logs_reader(&self) -> Arc<web::Logs> {
        let folder = self.folder.logs();
        Arc::new(move |service, max| {
            let line = |it: crate::logs::Record| LogLine {
                at: it.unix_nanos / 1_000_000,
                instance: slot(&it.service, it.instance),
                stream: it.stream.word(),
                line: it.text,
            };
            crate::logs::newest(&folder, service, max).into_iter().map(line).collect()
        })
    }

    fn apply_and_say(&mut self) {
        if let Err(why) = self.apply() {
            (self.say)(Say::Problem(format!("the proxy keeps its last snapshot: {why}")));
        }
    }

    fn folder_of_file(&self) -> PathBuf {
        let file = &self.options.file;
        if file.is_dir() {
            return file.clone();
        }
        match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    fn keep_house(&mut self) {
        reap_orphans(&self.known_pids());
        if !self.supervisor.is_settled() {
            self.tell_waiting();
        }
        let now = self.now();
        let revision = {
            let mut registry = lock(&self.registry);
            registry.expire(now);
            registry.revision()
        };
        if revision != self.registry_revision {
            self.registry_revision = revision;
            self.dirty = true;
        }
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
        for live in self.live.values_mut() {
            if let Body::Process { pid, .. } = live.body {
                live.usage = crate::process::usage(pid);
            }
        }
        if let Some((lost, why)) = self.logs.borrow_mut().take_problem() {
            (self.say)(Say::Problem(format!("{lost} lines of logs are lost: {why}")));
        }
    }

    fn known_pids(&self) -> Vec<u32> {
        let builds = std::iter::empty();
        self.live
            .values()
            .filter_map(|it| match it.body {
                Body::Process { pid, .. } => Some(pid),
                Body::Synthetic => None,
            })
            .chain(builds)
            .collect()
    }

    /// Ends with a slash, so that instance 1 is not mistaken for instance 12.
    fn mark_of(&self, key: Key) -> String {
        format!("{}/{}/{}/", self.folder.mark(), self.run_id, key.0)
    }

    fn look_at_files(&mut self, watcher: &mut watch::Watcher, reload: &Reload) {
        let seen = watcher.look();
        if seen.file {
            let (loaded, files) = reload();
            match loaded {
                Ok(system) => {
                    self.refused.clear();
                    self.take_over(system);
                    watcher.follow(&self.system, &self.folder_of_file(), files);
                }
                Err(mistakes) => {
                    (self.say)(Say::Problem(format!(
                        "{mistakes}\nthe file is refused whole; what runs stays as it is"
                    )));
                    self.refused = mistakes.lines().map(str::to_owned).collect();
                    self.record(
                        "the file",
                        "file",
                        &self.options.name,
                        "refused: it has mistakes".to_owned(),
                    );
                    watcher.follow_files(files);
                }
            }
        }
        for service in seen.services {
            let now = self.now();
            (self.say)(Say::Event(format!("{service} changed")));
            self.record("the files", "service", &service, "its source changed".to_owned());
            self.supervisor.on(now, Event::Replace(service));
        }
    }

    /// A changed file: the plan is told, then carried out.
    fn take_over(&mut self, system: System) {
        let before = plan::wanted(&self.system, &self.options.without);
        let after = plan::wanted(&system, &self.options.without);
        let plan = watch::differences(&before, &after);
        self.system = Rc::new(system);
        let map = Map::of(&self.system, (self.options.today)(), Some(&self.watched.map()));
        self.maps.send_replace(Arc::new(map));
        let told = if plan.is_empty() {
            "only policies, routes or words changed".to_owned()
        } else {
            plan.join("; ")
        };
        (self.say)(Say::Event(format!("the file changed: {told}")));
        self.record("the file", "file", &self.options.name, told);
        if let Err(error) = self.open_gateways() {
            (self.say)(Say::Problem(error.to_string()));
        }
        let now = self.now();
        self.supervisor.want(now, after);
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
        self.dirty = true;
        self.apply_and_say();
    }

    fn find(&self, name: &str) -> Option<ServiceId> {
        self.system.services.enumerate().find(|(_, it)| it.name.value == name).map(|(id, _)| id)
    }

    fn publish(&mut self) {
        let settled = self.supervisor.is_settled();
        let revision = self.status.borrow().revision + 1;
        let status = self.make_status(revision, settled);
        self.status.send_replace(Arc::new(status));
        if settled && !self.all_told {
            self.all_told = true;
            if self.options.load {
                self.start_all_traffic();
            }
            for address in &self.addresses {
                (self.say)(Say::Address(address.clone()));
            }
        }
    }

    fn make_status(&self, revision: u64, settled: bool) -> Status {
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
                    kind: format!("{:?}", service.kind).to_lowercase(),
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
            scenario: None,
            refused: self.refused.clone(),
        }
    }

    fn instance_status(
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
            _ => String::new(),
        };
        let usage = live.and_then(|it| it.usage);
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
            cpu_ms: usage.map(|(nanos, _)| nanos / 1_000_000),
            memory_bytes: usage.map(|(_, bytes)| bytes),
        }
    }

    fn end(mut self) {
        kill_marked(&format!("{}/{}/", self.folder.mark(), self.run_id), &[]);
        self.logs.borrow_mut().flush();
        self.plane.stop();
        self.folder.withdraw();
    }
}

async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// `web`, 0: `web#0`.
pub(crate) fn slot(service: &str, index: u32) -> String {
    format!("{service}#{index}")
}

fn split_slot(slot: &str) -> (&str, u32) {
    let (service, index) = slot.split_once('#').unwrap_or((slot, "0"));
    (service, index.parse().unwrap_or(0))
}

/// The operating system's words without its number for them.
fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn random_token() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The edge's clock: what the supervisor is told.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// The edge's clock: what people are told.
#[allow(clippy::disallowed_methods)]
pub(crate) fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
}
