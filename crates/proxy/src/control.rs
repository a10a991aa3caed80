//! The control side's thread: admin, health checks, names and memory. Nothing a request waits for.

use crate::engine::{Control, Error, Message};
use crate::log::Level;
use crate::upstream::located;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;
use units::Nanos;

/// Starts the thread, and the admin's listener with it.
pub(crate) fn start(
    control: Arc<Control>,
    admin: Option<SocketAddr>,
    admin_socket: Option<PathBuf>,
) -> Result<(JoinHandle<()>, Option<SocketAddr>), Error> {
    let socket = match admin {
        None => None,
        Some(address) => {
            let fail = |error| Error::Bind { listener: "admin".into(), address, error };
            let socket = std::net::TcpListener::bind(address).map_err(fail)?;
            socket.set_nonblocking(true).map_err(fail)?;
            Some(socket)
        }
    };
    let address = socket.as_ref().and_then(|socket| socket.local_addr().ok());
    let local = match &admin_socket {
        None => None,
        Some(path) => {
            let fail = |error| {
                Error::Thread(std::io::Error::other(format!("admin socket {}: {error}", path.display())))
            };
            let socket = bind_local(path).map_err(fail)?;
            socket.set_nonblocking(true).map_err(fail)?;
            Some(socket)
        }
    };
    let thread = std::thread::Builder::new().name("isobar-control".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        match runtime {
            Ok(runtime) => runtime.block_on(run(control, socket, local)),
            Err(error) => eprintln!("isobar: the control thread cannot start its runtime: {error}"),
        }
        if let Some(path) = admin_socket {
            // It may be gone, or somebody else's by now; nobody needs it any more either way.
            let _ = std::fs::remove_file(path);
        }
    });
    Ok((thread.map_err(Error::Thread)?, address))
}

/// A socket that only its owner may open. One that a proxy left behind when it was killed is replaced; one that
/// somebody answers on is not.
fn bind_local(path: &Path) -> std::io::Result<UnixListener> {
    if UnixStream::connect(path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

async fn run(control: Arc<Control>, admin: Option<std::net::TcpListener>, local_admin: Option<UnixListener>) {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            if let Some(socket) = admin {
                tokio::task::spawn_local(crate::admin::serve(control.clone(), socket));
            }
            if let Some(socket) = local_admin {
                tokio::task::spawn_local(crate::admin::serve_local(control.clone(), socket));
            }
            tokio::task::spawn_local(watch_memory(control.clone()));
            tokio::task::spawn_local(watch_certificates(control.clone()));
            tokio::task::spawn_local(tell_failures(control.clone()));
            let mut resolver = Resolver::default();
            let mut checks = crate::health::Checks::default();
            while !control.stopped.load(Relaxed) {
                let wait = resolver.refresh(&control).await;
                checks.refresh(&control, &resolver);
                // Woken by a reload; otherwise when a name is due.
                let _ = tokio::time::timeout(wait, control.changed.notified()).await;
            }
        })
        .await;
}

/// Measures resident memory against the mark.
async fn watch_memory(control: Arc<Control>) {
    loop {
        let mark = control.plan().config.limits.memory.map(|mark| mark.as_u64()).filter(|mark| *mark > 0);
        let pressure = mark
            .and_then(|mark| Some(crate::limits::resident_bytes()?.saturating_mul(100) / mark))
            .unwrap_or(0);
        control.pressure.store(pressure, Relaxed);
        control.bury();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// While the level says so, tells of each request that failed.
async fn tell_failures(control: Arc<Control>) {
    const A_SECOND_MAX: usize = 100;
    let mut events = None;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if control.voice.level() < Level::Debug {
            // Workers stop sending when nobody receives.
            events = None;
            continue;
        }
        let events = events.get_or_insert_with(|| {
            let (sender, receiver) = crossbeam_channel::bounded(1_024);
            for worker in &control.workers {
                worker.send(Message::Events(sender.clone()));
            }
            receiver
        });
        let plan = control.plan();
        let failed = |it: &crate::record::Finished| it.status >= 500 || it.status == 0;
        for event in events.try_iter().filter(failed).take(A_SECOND_MAX / 5) {
            let edge = plan.edges.get(event.edge as usize).and_then(Option::as_ref);
            let mut line = String::new();
            crate::admin::write_event(&mut line, &event, edge.map_or("", |it| &it.config.name));
            control.voice.say(Level::Debug, format_args!("{}", line.trim_end()));
        }
    }
}

/// Reads certificates again when their files change.
async fn watch_certificates(control: Arc<Control>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let plan = control.plan();
        for service in plan.services.iter().flatten() {
            let name = &service.config.name;
            match service.tls.as_ref().map_or(Ok(false), crate::tls::ClientSide::refresh) {
                Ok(false) => {}
                Ok(true) => {
                    control.voice.say(Level::Info, format_args!("service `{name}` has new certificates"));
                }
                Err(message) => {
                    let words = format_args!("service `{name}` keeps its certificates: {message}");
                    control.voice.say(Level::Error, words);
                }
            }
        }
        for listener in &plan.listeners {
            let Some(tls) = &listener.tls else { continue };
            let name = &listener.config.name;
            match tls.certificates.refresh() {
                Ok(false) => {}
                Ok(true) => {
                    control.voice.say(Level::Info, format_args!("listener `{name}` has new certificates"));
                }
                Err(message) => {
                    let words = format_args!("listener `{name}` keeps its certificates: {message}");
                    control.voice.say(Level::Error, words);
                }
            }
        }
    }
}

/// Names and what they resolved to last. A name that stops resolving keeps its addresses: discovery may be what is
/// broken, and the health checks will tell.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    names: hashbrown::HashMap<(String, u16), Vec<SocketAddr>, foldhash::fast::FixedState>,
    due: hashbrown::HashMap<u32, (Nanos, u64), foldhash::fast::FixedState>,
}

impl Resolver {
    pub(crate) fn addresses(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        self.names.get(&(name.to_owned(), port)).cloned().unwrap_or_default()
    }

    /// Resolves what is due and tells the workers what changed. Returns how long until the next name is due.
    async fn refresh(&mut self, control: &Control) -> Duration {
        let plan = control.plan();
        let now = control.clock.now();
        let mut next = Nanos::from_secs(3_600);
        for (slot, service) in plan.services.iter().enumerate() {
            let slot = slot as u32;
            let Some(service) = service else {
                self.due.remove(&slot);
                continue;
            };
            let names: Vec<(String, u16)> = service
                .config
                .endpoints
                .iter()
                .filter_map(|endpoint| match &endpoint.address {
                    crate::config::Address::Name(name, port) => Some((name.clone(), *port)),
                    crate::config::Address::Ip(_) => None,
                })
                .collect();
            if names.is_empty() {
                continue;
            }
            // A new plan for the service is told to the workers even if its names are not due.
            let identity = Arc::as_ptr(service) as u64;
            let (due, told) = self.due.get(&slot).copied().unwrap_or((Nanos::ZERO, 0));
            let mut changed = told != identity;
            let mut due_next = due;
            if due <= now {
                for (name, port) in names {
                    let resolved = self.resolve(name.clone(), port).await;
                    if resolved {
                        let addresses = self.addresses(&name, port);
                        control.voice.say(Level::Info, format_args!("{name}:{port} is now {addresses:?}"));
                    }
                    changed |= resolved;
                }
                due_next = now + service.config.dns_refresh.max(Nanos::from_millis(100));
            }
            if changed {
                let located = located(service, &|name, port| self.addresses(name, port));
                for worker in &control.workers {
                    worker.send(Message::Located { service: slot, located: located.clone() });
                }
            }
            self.due.insert(slot, (due_next, identity));
            next = next.min(due_next.saturating_sub(now));
        }
        Duration::from(next.max(Nanos::from_millis(10)))
    }

    async fn resolve(&mut self, name: String, port: u16) -> bool {
        let answer =
            tokio::time::timeout(Duration::from_secs(5), tokio::net::lookup_host((name.clone(), port))).await;
        let Ok(Ok(addresses)) = answer else { return false };
        let mut addresses: Vec<SocketAddr> = addresses.collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return false;
        }
        let known = self.names.entry((name, port)).or_default();
        let changed = *known != addresses;
        *known = addresses;
        changed
    }
}
