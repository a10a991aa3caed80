//! One running system: the supervisor's decisions carried out, the proxy fed, the person told, the API answered.
//!
//! Everything that decides is elsewhere and pure; this is the edge, one loop on one thread that lives as long as
//! isobar does (a service dies with the *thread* that started it). What the loop waits for comes in through one inbox:
//! ends of processes, answers of checks, words of synthetic instances, wishes over the API, signals, time.

mod elsewhere;
mod instances;
mod plane;
mod reload;
mod report;
mod scenario;
mod serve;
mod telling;
mod traffic;
mod watch;
mod wiring;
mod wishes;
mod words;

use plane::Plane;

use crate::logs::{Limits, Stream, Writer};
use crate::plan;
use crate::ports::{self, NoPort, Ports};
use crate::process::{adopt_orphans, kill_marked, reap_orphans};
use crate::state::{Folder, Found, Held};
use crate::supervisor::{Action, Event, Key, Supervisor};
use crate::synthetic::{Host, Told};
use control::api::Request;
use control::compile::{Compiler, Door};
use control::history::{Change, History};
use control::map::Map;
use control::registry::{InstanceId, Registry};
use control::send::outward::Settings as Outward;
use control::status::{Address, Status};
use control::watched::{Clocks, Watched};
use control::web;
use instances::{Body, Live};
use model::system::{ServiceId, System};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
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
/// How often leases end, doors are looked after and what is true is published anyway.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// Turns of housekeeping between two looks at processor time and memory.
const TURNS_PER_USAGE: u32 = 4;
/// How often the system's own files are compared: an edit shall be in force before the eye is back on the terminal.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at the file between two looks at the sources of services, which are many more files.
const LOOKS_PER_SOURCES: u32 = 5;

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
    /// Instances are made to be as far from each other as their places are.
    pub places: bool,
    /// The API and the map are for looking; only who sends the token changes anything.
    pub read_only: bool,
    /// Tells this run's processes from those of a run before it.
    pub run_id: String,
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
    #[error("{what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
    #[error("the proxy refuses what the file means (a mistake of isobar's): {0}")]
    Snapshot(String),
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |error| RunError::Io { what, error }
}

/// What comes into the loop.
#[derive(Debug)]
pub(crate) enum Inner {
    Event(Event),
    Synthetic(Key, Told),
    /// A process ended; what it left behind can be looked for.
    Left(Key),
    /// What an instance that was not started here answered to its check.
    Elsewhere(InstanceId, SocketAddr, Result<(), String>),
    /// Something that a person should read.
    Alert(String),
}

pub(crate) struct Runner {
    options: Options,
    folder: Folder,
    held: Held,
    /// What commands find us by.
    found: Option<Found>,
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
    gateways: BTreeMap<String, wiring::Gateway>,
    /// Where marker requests are answered; `None` if no port was left for that.
    marker: Option<ports::Held>,
    traffic: traffic::TrafficDesk,
    scenarios: scenario::Desk,
    live: HashMap<Key, Live>,
    /// What all synthetic instances cost together.
    synthetic_usage: Option<report::Measured>,
    admitted: BTreeSet<Key>,
    logs: Rc<RefCell<Writer>>,
    inbox: mpsc::Sender<Inner>,
    say: Box<dyn Fn(Say)>,
    history: Arc<Mutex<History>>,
    changes: broadcast::Sender<Change>,
    registry: Arc<Mutex<Registry>>,
    registry_revision: u64,
    /// Instances that check in over the API.
    elsewhere: BTreeMap<InstanceId, elsewhere::Stranger>,
    /// Somebody checked in or out.
    greet_due: bool,
    status: latest::Sender<Arc<Status>>,
    /// The drawing of the file in force, for the watcher.
    maps: latest::Sender<Arc<Map>>,
    watched: Arc<Watched>,
    addresses: Vec<Address>,
    refused: Vec<String>,
    /// A child ended: what forked away may have become ours to wait for.
    orphans_due: bool,
    /// Turns of housekeeping until costs are looked at again.
    usage_due_in: u32,
    /// Something happened that the published status does not say yet.
    unpublished: bool,
    /// The snapshot must be compiled again.
    dirty: bool,
    /// When a service was first told to be ready.
    ready_told: BTreeMap<String, Nanos>,
    all_told: bool,
    /// What each waiting service was last told to wait for.
    waiting_told: BTreeMap<String, String>,
    finished: bool,
    /// What was told of our folder, if it is not there.
    folder_lost: Option<String>,
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
    child: Option<tokio::signal::unix::Signal>,
    /// Heard so that it does not kill us: a file that may not grow is as a full disk, and its lines are lost.
    _file_size: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    fn new() -> Self {
        let listen = |kind| signal(kind).ok();
        Self {
            interrupt: listen(SignalKind::interrupt()),
            terminate: listen(SignalKind::terminate()),
            hangup: listen(SignalKind::hangup()),
            child: listen(SignalKind::child()),
            _file_size: listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())),
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
        let clocks = Clocks {
            now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
            started_unix_ms,
        };
        let (outward, mistakes) = Outward::from_environment(|name| std::env::var(name).ok());
        mistakes.into_iter().for_each(|it| say(Say::Problem(it)));
        let watched = Watched::with(clocks, outward);
        watched.read_only.store(options.read_only, std::sync::atomic::Ordering::Relaxed);
        let map = Map::of(&system, (options.today)(), None);
        let runner = Self {
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
            marker: None,
            traffic: traffic::TrafficDesk::default(),
            scenarios: scenario::Desk::default(),
            live: HashMap::new(),
            synthetic_usage: None,
            orphans_due: true,
            usage_due_in: 1,
            admitted: BTreeSet::new(),
            logs: Rc::new(RefCell::new(logs)),
            inbox,
            say,
            history: Arc::default(),
            changes: broadcast::channel(1_024).0,
            registry: Arc::default(),
            registry_revision: 0,
            elsewhere: BTreeMap::new(),
            greet_due: false,
            status: latest::channel(Arc::new(Status::default())).0,
            maps: latest::channel(Arc::new(map)).0,
            watched,
            addresses: Vec::new(),
            refused: Vec::new(),
            dirty: true,
            unpublished: true,
            ready_told: BTreeMap::new(),
            all_told: false,
            waiting_told: BTreeMap::new(),
            finished: false,
            folder_lost: None,
            folder,
            held,
            found: None,
            options,
        };
        let mut runner = runner;
        runner.open_gateways()?;
        runner.marker = runner.ports.hold("marker").ok();
        runner.serve_api(wishes, Arc::clone(&registry_changed))?;
        Ok((runner, Wires { inbox: inbox_end, wishes: wishes_end, registry_changed }))
    }

    /// Since the run began.
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn begin(&mut self) -> Result<(), RunError> {
        self.say_who_is_checked();
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
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks: u32 = 0;
        let mut stopping = false;
        while !self.finished {
            let wake = self
                .supervisor
                .next_wake()
                .into_iter()
                .chain(self.scenario_wake())
                .min()
                .map(|at| self.started + Duration::from_nanos(at.as_u64()));
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
                // Looked at a moment later: a fleet that comes in is one change, not ten thousand.
                () = wires.registry_changed.notified() => self.greet_due = true,
                () = received(&mut signals.interrupt) => self.stop("interrupted", &mut stopping),
                () = received(&mut signals.terminate) => self.stop("asked to end", &mut stopping),
                () = received(&mut signals.hangup) => self.stop("the terminal is gone", &mut stopping),
                () = received(&mut signals.child) => self.orphans_due = true,
                () = sleep => {}
                _ = housekeeping.tick() => self.keep_house(),
                _ = look.tick(), if !stopping => {
                    if std::mem::take(&mut self.greet_due) {
                        self.greet();
                    }
                    if self.options.watch {
                        looks = looks.wrapping_add(1);
                        self.look_at_files(&mut watcher, reload, looks.is_multiple_of(LOOKS_PER_SOURCES));
                    }
                }
            }
            self.play_scenarios();
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
            Inner::Elsewhere(id, address, answer) => self.on_answer_from_elsewhere(&id, address, answer),
            Inner::Alert(line) => (self.say)(Say::Problem(line)),
            Inner::Left(key) => {
                let known = self.known_pids();
                let strays = kill_marked(&self.mark_of(key), &known);
                if let (1.., Some(live)) = (strays, self.live.get(&key)) {
                    let text = words::of_strays(&slot(&live.service, live.index), strays);
                    (self.say)(Say::Event(text));
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
            self.unpublished = true;
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
        // A good answer of a check changes nothing that anybody sees, and there are hundreds of them a second.
        if std::mem::take(&mut self.unpublished) {
            self.publish();
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
        self.unpublished = true;
        if std::mem::take(&mut self.orphans_due) {
            reap_orphans();
        }
        if !self.supervisor.is_settled() {
            self.tell_waiting();
        }
        self.greet();
        self.keep_folder();
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
        self.usage_due_in -= 1;
        if self.usage_due_in == 0 {
            self.usage_due_in = TURNS_PER_USAGE;
            self.measure();
        }
        let news = self.logs.borrow_mut().news();
        for it in news {
            let (service, text) = words::of_lost_lines(it);
            (self.say)(Say::Problem(text.clone()));
            self.record("isobar", "system", &service, text);
        }
    }

    /// Somebody may delete our folder while we run: nobody would find us any more, and a second run could take our name.
    fn keep_folder(&mut self) {
        if self.held.is_of(&self.folder) {
            self.folder_lost = None;
            return;
        }
        let again = self.folder.hold().map_err(|it| it.to_string()).and_then(|held| {
            self.held = held;
            self.logs.borrow_mut().begin_anew();
            let published = self.found.as_ref().map_or(Ok(()), |found| self.folder.publish(found));
            published.map_err(|error| error.to_string())
        });
        let folder = self.folder.path().display();
        let text = match again {
            Ok(()) => format!(
                "the state folder `{folder}` was deleted; it is made anew, without the logs until now"
            ),
            Err(why) => {
                format!("the state folder `{folder}` was deleted, and commands do not find us: {why}")
            }
        };
        // Looked at twice a second, and told when it becomes another.
        if self.folder_lost.as_ref() != Some(&text) {
            (self.say)(Say::Problem(text.clone()));
            self.record("isobar", "system", &self.options.name.clone(), text.clone());
            self.folder_lost = Some(text);
        }
    }

    fn known_pids(&self) -> Vec<u32> {
        let pid = |it: &Live| match it.body {
            Body::Process { pid, .. } => Some(pid),
            Body::Synthetic => None,
        };
        self.live.values().filter_map(pid).collect()
    }

    /// Ends with a slash, so that instance 1 is not mistaken for instance 12.
    fn mark_of(&self, key: Key) -> String {
        format!("{}/{}/{}/", self.folder.mark(), self.options.run_id, key.0)
    }

    fn find(&self, name: &str) -> Option<ServiceId> {
        self.system.services.enumerate().find(|(_, it)| it.name.value == name).map(|(id, _)| id)
    }

    fn end(mut self) {
        kill_marked(&format!("{}/{}/", self.folder.mark(), self.options.run_id), &[]);
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

/// The edge's clock: what the supervisor is told.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970: what a run is named by.
pub fn unix_millis() -> u64 {
    unix_nanos() / 1_000_000
}

/// The edge's clock: what people are told.
#[allow(clippy::disallowed_methods)]
pub(crate) fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
}
