//! Threads, doors and messages.
//!
//! Each worker is a thread with a runtime of its own and a listening socket of its own for each door (`SO_REUSEPORT`),
//! so the kernel spreads connections and workers share nothing. The control side, a thread of its own, makes plans and
//! sends them; a worker that is busy serving takes a message between two polls. Measuring, checking health and
//! resolving names happen over there, where they cannot make a request wait.

use crate::clock::Clock;
use crate::config::{Config, ListenerKind, Mistake};
use crate::log;
use crate::observe::{Census, Observer};
use crate::plan::{Changes, Plan, Planner, Tls};
use crate::record::Finished;
use crate::serve::{Client, Runners, connection};
use crate::socket::Socket;
use crate::stats::WorkerCells;
use crate::upstream::Located;
use crate::worker::{Door, InstanceReport, Worker};
use hashbrown::HashMap;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use units::Nanos;

/// What a person decides when starting a proxy, apart from its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Zero is as many as the control group's processor quota allows.
    pub workers: usize,
    /// Where to answer questions about ourselves. Anybody who reaches it may drain us: keep it on loopback.
    pub admin: Option<SocketAddr>,
    /// The same on a Unix socket, which only its owner may open.
    pub admin_socket: Option<std::path::PathBuf>,
    /// Refuse an address that another process listens on, instead of sharing its connections with it.
    pub exclusive: bool,
    /// How much is said on stderr at first.
    pub log: log::Level,
    /// Of all random choices. Proxies should differ in it.
    pub seed: u64,
    /// Where finished requests are counted, by edge, operation, version, zones and outcome; nowhere if `None`.
    pub series: Option<telemetry::metrics::Registry>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 0,
            admin: None,
            admin_socket: None,
            exclusive: false,
            log: log::Level::Error,
            seed: u64::from(std::process::id()),
            series: None,
        }
    }
}

/// Why a proxy did not start, or did not take a new configuration.
#[derive(Debug)]
pub enum Error {
    /// The configuration has these mistakes. What ran before runs on.
    Config(Vec<Mistake>),
    /// A listener's address cannot be used.
    Bind {
        listener: String,
        address: SocketAddr,
        error: io::Error,
    },
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(mistakes) => {
                write!(f, "{} mistake(s) in the configuration", mistakes.len())?;
                mistakes.iter().try_for_each(|mistake| write!(f, "; {mistake}"))
            }
            Self::Bind { listener, address, error } => {
                write!(f, "listener `{listener}` cannot listen on {address}: {error}")
            }
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// What the control side tells a worker.
#[derive(Debug)]
pub(crate) enum Message {
    Swap {
        plan: Arc<Plan>,
        changes: Arc<Changes>,
        open: Vec<(String, std::net::TcpListener)>,
        close: Vec<String>,
    },
    Located {
        service: u32,
        located: Vec<Located>,
    },
    Health {
        service: u32,
        address: SocketAddr,
        healthy: bool,
    },
    Describe {
        service: u32,
        reply: oneshot::Sender<Vec<InstanceReport>>,
    },
    Events(crossbeam_channel::Sender<Finished>),
    Census(oneshot::Sender<Census>),
    Ended(crate::observe::AskEnded),
    Drain {
        within: Nanos,
    },
}

/// A worker, seen from outside.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    sender: mpsc::Sender<Message>,
    pub(crate) cells: Arc<WorkerCells>,
    pub(crate) applied: Arc<AtomicU64>,
}

/// Messages a worker may be behind. It takes them between two polls, so a full box means a stuck worker.
const INBOX: usize = 1_024;

impl WorkerHandle {
    /// A worker that is gone needs no message; one whose box is full is waited for.
    pub(crate) fn send(&self, mut message: Message) {
        for _ in 0..5_000 {
            match self.sender.try_send(message) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(back)) => message = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl WorkerHandle {
    /// Never waits. False if the worker is gone or behind.
    pub(crate) fn offer(&self, message: Message) -> bool {
        self.sender.try_send(message).is_ok()
    }
}

/// What the control side shares among its own threads. No worker touches its locks.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) clock: Clock,
    pub(crate) workers: Vec<WorkerHandle>,
    state: Mutex<State>,
    pub(crate) pressure: Arc<AtomicU64>,
    pub(crate) draining: AtomicBool,
    pub(crate) stopped: AtomicBool,
    /// Told when the plan changes, so that health checks and names are looked at again.
    pub(crate) changed: tokio::sync::Notify,
    pub(crate) health: crate::health::Board,
    pub(crate) voice: log::Voice,
    exclusive: bool,
}

#[derive(Debug)]
struct State {
    planner: Planner,
    plan: Arc<Plan>,
    /// Plans that workers may still hold. Whoever lets one go last frees its thousands of parts, and that should be us.
    retired: Vec<Arc<Plan>>,
    /// Where each listener really listens, which matters when it was asked to choose a port.
    bound: HashMap<String, Bound, foldhash::fast::FixedState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    asked: SocketAddr,
    got: SocketAddr,
}

/// A running proxy. Dropping it stops it at once; [`Proxy::stop`] lets requests end first.
#[derive(Debug)]
pub struct Proxy {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    admin: Option<SocketAddr>,
}

impl Proxy {
    /// Starts serving. Returns when every door is open.
    pub fn start(config: Config, options: Options) -> Result<Self, Error> {
        config.check().map_err(Error::Config)?;
        let workers = if options.workers == 0 { crate::limits::worker_count() } else { options.workers };
        let clock = Clock::start();
        let mut planner = Planner::new(workers);
        let lines = config.access_log.as_ref().map_or(64, |log| (log.lines_max / 128).max(4) as usize);
        let writer = log::start_writer(lines).map_err(Error::Thread)?;
        let tls = load_tls(&config).map_err(|mistake| Error::Config(vec![mistake]))?;
        let (plan, _) = planner.plan(config, tls, clock.now());
        let mut bound = HashMap::default();
        let mut doors = Vec::new();
        for listener in &plan.listeners {
            let (sockets, got) =
                bind(&listener.config.name, listener.config.address, workers, options.exclusive)?;
            bound.insert(listener.config.name.clone(), Bound { asked: listener.config.address, got });
            doors.push((listener.config.name.clone(), sockets));
        }
        let pressure = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        let mut handles = Vec::new();
        for index in 0..workers {
            let (sender, inbox) = mpsc::channel(INBOX);
            let cells = Arc::new(WorkerCells::default());
            let applied = Arc::new(AtomicU64::new(0));
            handles.push(WorkerHandle { sender, cells: cells.clone(), applied: applied.clone() });
            let open: Vec<_> =
                doors.iter_mut().filter_map(|(name, sockets)| Some((name.clone(), sockets.pop()?))).collect();
            let (plan, pressure, writer) = (plan.clone(), pressure.clone(), writer.clone());
            let seed = options.seed;
            let series = options.series.clone();
            let thread =
                std::thread::Builder::new().name(format!("isobar-worker-{index}")).spawn(move || {
                    let make = move || {
                        let log = log::Batch::new(writer);
                        Worker::new(
                            (index, workers),
                            clock,
                            seed,
                            plan,
                            cells,
                            applied,
                            pressure,
                            log,
                            series,
                        )
                    };
                    run_worker(make, open, inbox);
                });
            threads.push(thread.map_err(Error::Thread)?);
        }
        let control = Arc::new(Control {
            clock,
            workers: handles,
            state: Mutex::new(State { planner, plan, retired: Vec::new(), bound }),
            pressure,
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: tokio::sync::Notify::new(),
            health: crate::health::Board::default(),
            voice: log::Voice::new(options.log),
            exclusive: options.exclusive,
        });
        let (thread, admin) = crate::control::start(control.clone(), options.admin, options.admin_socket)?;
        threads.push(thread);
        Ok(Self { control, threads, admin })
    }

    /// Takes a new configuration: all of it, or, if it has a mistake, none of it.
    pub fn reload(&self, config: Config) -> Result<(), Error> {
        self.control.reload(config)
    }

    /// Where a listener listens.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.control.lock().bound.get(listener).map(|bound| bound.got)
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The running configuration, its generation, and how long it has been running.
    pub fn running(&self) -> (Arc<Config>, u64, Nanos) {
        let plan = self.control.plan();
        (plan.config.clone(), plan.generation, self.control.clock.now().saturating_sub(plan.applied_at))
    }

    /// Whether every worker runs the newest configuration.
    pub fn is_applied(&self) -> bool {
        let generation = self.control.plan().generation;
        self.control.workers.iter().all(|worker| worker.applied.load(Relaxed) >= generation)
    }

    /// Prometheus text, as `/stats` gives it.
    pub fn stats_text(&self) -> String {
        crate::admin::prometheus(&self.control)
    }

    /// A way to read its numbers, for another thread.
    pub fn observer(&self) -> Observer {
        Observer::new(self.control.clone())
    }

    /// Begins to send finished requests. At most `capacity` wait; more are dropped and counted.
    pub fn events(&self, capacity: usize) -> crossbeam_channel::Receiver<Finished> {
        self.observer().events(capacity)
    }

    /// Finishes what is in progress, tells clients to go elsewhere, and takes nothing new. Returns at once.
    pub fn drain(&self) {
        self.control.drain();
    }

    /// True once every worker has ended after a drain.
    pub fn is_drained(&self) -> bool {
        self.control.workers.iter().all(|worker| worker.sender.is_closed())
    }

    /// Drains and waits for the end, which comes no later than the configured drain time-out.
    pub fn stop(mut self) {
        self.drain();
        self.join();
    }

    fn join(&mut self) {
        let control = self.threads.pop();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
        self.control.stopped.store(true, Relaxed);
        self.control.changed.notify_one();
        if let Some(thread) = control {
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.control.draining.store(true, Relaxed);
            for worker in &self.control.workers {
                worker.send(Message::Drain { within: Nanos::ZERO });
            }
            self.join();
        }
    }
}

impl Control {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while planning leaves the old plan in place, which is what we want to go on with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.lock().plan.clone()
    }

    pub(crate) fn reload(&self, config: Config) -> Result<(), Error> {
        config.check_since(Some(&self.plan().config)).map_err(Error::Config)?;
        let tls = load_tls(&config).map_err(|mistake| Error::Config(vec![mistake]))?;
        let mut state = self.lock();
        let mut opened = Vec::new();
        let mut bound = state.bound.clone();
        for listener in &config.listeners {
            let asked = listener.address;
            if state.bound.get(&listener.name).is_some_and(|bound| bound.asked == asked) {
                continue;
            }
            let exclusive = self.exclusive && !state.bound.values().any(|bound| bound.got == asked);
            let (sockets, got) = bind(&listener.name, asked, self.workers.len(), exclusive)?;
            bound.insert(listener.name.clone(), Bound { asked, got });
            opened.push((listener.name.clone(), sockets));
        }
        let kept = |name: &str| config.listeners.iter().any(|listener| listener.name == name);
        let close: Vec<String> = state.bound.keys().filter(|name| !kept(name)).cloned().collect();
        bound.retain(|name, _| kept(name));
        let (plan, changes) = state.planner.plan(config, tls, self.clock.now());
        let old = std::mem::replace(&mut state.plan, plan.clone());
        state.retired.retain(|plan| Arc::strong_count(plan) > 1);
        state.retired.push(old);
        state.bound = bound;
        let changes = Arc::new(changes);
        for worker in &self.workers {
            let open = opened
                .iter_mut()
                .filter_map(|(name, sockets): &mut (String, Vec<_>)| Some((name.clone(), sockets.pop()?)))
                .collect();
            worker.send(Message::Swap {
                plan: plan.clone(),
                changes: changes.clone(),
                open,
                close: close.clone(),
            });
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Frees the plans that no worker holds any more.
    pub(crate) fn bury(&self) {
        let mut state = self.lock();
        let (gone, held) =
            std::mem::take(&mut state.retired).into_iter().partition(|plan| Arc::strong_count(plan) == 1);
        state.retired = held;
        drop(state);
        drop::<Vec<Arc<Plan>>>(gone);
    }

    pub(crate) fn drain(&self) {
        if self.draining.swap(true, Relaxed) {
            return;
        }
        let within = self.plan().config.timeouts.drain;
        for worker in &self.workers {
            worker.send(Message::Drain { within });
        }
    }
}

/// Reads every certificate a configuration names, before anything of it takes effect.
fn load_tls(config: &Config) -> Result<Tls, Mistake> {
    let mut tls = Tls::default();
    for listener in &config.listeners {
        if let Some(settings) = &listener.tls {
            let side = crate::tls::ServerSide::new(&listener.name, settings)?;
            tls.listeners.insert(listener.name.clone(), side);
        }
    }
    for service in &config.services {
        if let Some(settings) = &service.tls {
            let http2 = service.protocol == crate::config::Protocol::Http2;
            let side = crate::tls::ClientSide::new(&service.name, settings, http2)?;
            tls.services.insert(service.name.clone(), side);
        }
    }
    Ok(tls)
}

/// One listening socket for each worker, all on one address. Sharing it with another process is no error to the kernel
/// and a riddle to people; `exclusive` refuses it.
fn bind(
    listener: &str,
    address: SocketAddr,
    workers: usize,
    exclusive: bool,
) -> Result<(Vec<std::net::TcpListener>, SocketAddr), Error> {
    let fail = |error| Error::Bind { listener: listener.to_owned(), address, error };
    if exclusive && address.port() != 0 {
        bind_one(address, false).map_err(fail)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    let mut got = address;
    for _ in 0..workers {
        let socket = bind_one(got, true).map_err(fail)?;
        got = socket.local_addr().map_err(fail)?;
        sockets.push(socket);
    }
    Ok((sockets, got))
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

/// An open door. Somebody stands in it until it is shut.
struct Open {
    door: Rc<Door>,
}

fn run_worker(
    make: impl FnOnce() -> Rc<Worker>,
    open: Vec<(String, std::net::TcpListener)>,
    mut inbox: mpsc::Receiver<Message>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isobar: a worker cannot start its runtime: {error}");
            return;
        }
    };
    runtime.block_on(async move {
        let worker = make();
        let runners = Runners::new(worker.clone());
        tokio::task::spawn_local(worker.timers.clone().drive());
        let mut doors: Vec<Open> = Vec::new();
        open_doors(&worker, &runners, open, &mut doors);
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ends_at = Nanos::MAX;
        let mut ticks = 0u64;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    ticks += 1;
                    worker.tick(ticks);
                    let drained = worker.draining.get() && worker.connections.get() == 0;
                    if drained || worker.now() >= ends_at {
                        worker.finish_log();
                        return;
                    }
                }
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    match message {
                        Message::Swap { plan, changes, open, close } => {
                            for gone in doors.extract_if(.., |it| close.contains(&it.door.name)) {
                                shut(&gone, &worker);
                            }
                            // A door that moves to another address is a new door with an old name.
                            for moved in doors.extract_if(.., |it| open.iter().any(|(name, _)| *name == it.door.name)) {
                                shut(&moved, &worker);
                            }
                            worker.swap(plan, &changes);
                            let plan = worker.plan();
                            for open in &doors {
                                if let Some(new) = plan.listeners.iter().find(|new| new.config.name == open.door.name)
                                    && !Arc::ptr_eq(new, &open.door.plan.borrow())
                                {
                                    *open.door.plan.borrow_mut() = Rc::new(new.clone());
                                }
                            }
                            open_doors(&worker, &runners, open, &mut doors);
                        }
                        Message::Located { service, located } => worker.on_located(service, located),
                        Message::Health { service, address, healthy } => worker.on_health(service, address, healthy),
                        Message::Describe { service, reply } => {
                            // Whoever asked may have given up.
                            let _ = reply.send(worker.describe(service));
                        }
                        Message::Census(reply) => {
                            // Whoever asked may have given up.
                            let _ = reply.send(worker.census());
                        }
                        Message::Events(sender) => worker.events.borrow_mut().push(sender),
                        Message::Ended(ask) => worker.ended.borrow_mut().exchange(ask),
                        Message::Drain { within } => {
                            worker.draining.set(true);
                            ends_at = worker.now() + within;
                            for open in doors.drain(..) {
                                shut(&open, &worker);
                            }
                            worker.timers.wake_all();
                        }
                    }
                }
            }
        }
    });
    // Whatever is still running is cut off here, after the time it was given.
}

fn shut(open: &Open, worker: &Worker) {
    open.door.closing.set(true);
    open.door.shut.notify_one();
    worker.timers.wake_all();
}

fn open_doors(
    worker: &Rc<Worker>,
    runners: &Rc<Runners>,
    open: Vec<(String, std::net::TcpListener)>,
    doors: &mut Vec<Open>,
) {
    let plan = worker.plan();
    for (name, socket) in open {
        let Some(listener) = plan.listeners.iter().find(|listener| listener.config.name == name) else {
            continue;
        };
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("isobar: listener `{name}` cannot be polled: {error}");
                continue;
            }
        };
        let door = Rc::new(Door {
            name,
            plan: RefCell::new(Rc::new(listener.clone())),
            closing: Cell::new(false),
            shut: tokio::sync::Notify::new(),
        });
        tokio::task::spawn_local(accept(worker.clone(), door.clone(), socket, runners.clone()));
        doors.push(Open { door });
    }
}

/// Stands in a door and lets clients in. When it is shut, those who had knocked before are let in still: the kernel took
/// their connections, and closing the door on them would reset what they believe is open.
async fn accept(worker: Rc<Worker>, door: Rc<Door>, socket: tokio::net::TcpListener, runners: Rc<Runners>) {
    let mut shut = pin!(door.shut.notified());
    loop {
        let next = poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending => shut.as_mut().poll(cx).map(|()| None),
        });
        match next.await {
            None => return,
            Some(Ok((stream, peer))) => {
                let tls = door.plan.borrow().tls.clone();
                if let Some(client) = admit(&worker, &door, stream, peer) {
                    let http = matches!(door.plan.borrow().config.kind, ListenerKind::Http);
                    match tls {
                        Some(tls) => {
                            tokio::task::spawn_local(shake_hands(client, tls, http, runners.clone()));
                        }
                        None if http => {
                            tokio::task::spawn_local(connection(client, runners.clone()));
                        }
                        None => {
                            tokio::task::spawn_local(crate::tunnel::tcp(client));
                        }
                    }
                }
            }
            // Out of file descriptors, or a client that left before we looked. Either passes; spinning would not help.
            Some(Err(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Opens the encrypted side, in the time a head may take, and serves what is inside.
async fn shake_hands(mut client: Client, tls: crate::tls::ServerSide, http: bool, runners: Rc<Runners>) {
    let worker = client.worker.clone();
    let Socket::Plain(stream) = std::mem::replace(&mut client.socket, Socket::Closed) else { return };
    client.timer.set(worker.now() + worker.plan().config.timeouts.header_read);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.config);
    // Boxed: a handshake is large and short, a connection small and long.
    let shaken = client.timer.limit(Box::pin(acceptor.accept(stream.into_inner()))).await;
    let Some(Ok(stream)) = shaken else {
        worker.cells.tls_failures.add(1);
        return;
    };
    worker.cells.tls_handshakes.add(1);
    let inner = stream.get_ref().1;
    if inner.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        worker.cells.tls_resumed.add(1);
    }
    client.tls = true;
    let http2 = inner.alpn_protocol() == Some(b"h2");
    client.socket = Socket::tls(tokio_rustls::TlsStream::Server(stream));
    match (http, http2) {
        (true, true) => Box::pin(crate::h2::serve(client, Vec::new(), runners)).await,
        (true, false) => connection(client, runners).await,
        (false, _) => Box::pin(crate::tunnel::tcp(client)).await,
    }
}

/// Lets one client in, unless a limit forbids it.
fn admit(
    worker: &Rc<Worker>,
    door: &Rc<Door>,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
) -> Option<Client> {
    let plan = worker.plan();
    let limits = &plan.config.limits;
    let full = worker.connections.get() >= worker.share(limits.connections);
    let mut sources = worker.sources.borrow_mut();
    let from_source = sources.entry(peer.ip()).or_insert(0);
    if full
        || *from_source >= worker.share(limits.connections_per_source)
        || crate::limits::refuses_connections(worker)
    {
        if *from_source == 0 {
            sources.remove(&peer.ip());
        }
        worker.cells.connections_refused.add(1);
        return None;
    }
    *from_source += 1;
    drop(sources);
    worker.connections.set(worker.connections.get() + 1);
    worker.cells.accepted.add(1);
    worker.cells.connections.set(u64::from(worker.connections.get()));
    // Small replies must not wait for the client's acknowledgement of the last one.
    let _ = stream.set_nodelay(true);
    Some(Client {
        socket: Socket::plain(stream),
        timer: worker.timers.timer(),
        peer,
        door: door.clone(),
        worker: worker.clone(),
        tls: false,
        served: 0,
        half_closed: false,
        counted: true,
    })
}
