//! Starting, watching and ending instances: the runner's hands.

use super::{Inner, Runner, slot, unix_nanos};
use crate::environment::{Environment, os_words, variable_stem};
use crate::listening;
use crate::logs::{Lines, Stream};
use crate::plan::{self, Seat};
use crate::probe::{self, Probe};
use crate::process::{Launch, MARK, Output, launch, marked};
use crate::supervisor::{Event, Exit, Key};
use crate::synthetic::{Behaviour, Identity, Start};
use crate::words;
use control::status::Address;
use model::system::{Check, Run, Service};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use units::Nanos;

/// Signals on their way to one process: the polite one, the hard one, and a pause or two.
const SIGNALS_MAX: usize = 16;
/// Between the first checks of a start; it doubles until it is the file's `every`.
const FIRST_CHECK: Duration = Duration::from_millis(10);
/// A start is looked at this often at least, however seldom a running instance is.
const SLOWEST_FIRST_CHECK: Duration = Duration::from_millis(250);

/// One life of one instance.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) service: String,
    pub(super) index: u32,
    /// `None` for jobs: nobody calls them.
    pub(super) address: Option<SocketAddr>,
    pub(super) seat: Seat,
    pub(super) body: Body,
    pub(super) since: Nanos,
    /// What it costs, as seen last.
    pub(super) usage: Option<super::report::Measured>,
    check: Option<AbortHandle>,
}

#[derive(Debug)]
pub(super) enum Body {
    Synthetic,
    Process { pid: u32, signals: mpsc::Sender<Signal> },
}

impl Runner {
    pub(super) fn start(&mut self, key: Key, name: &str, index: u32) {
        match self.try_start(key, name, index) {
            Ok(()) => self.on_new_life(key),
            Err(why) => self.post(Event::StartFailed(key, why)),
        }
    }

    /// Events of our own go through the inbox like all others, so that the supervisor is never entered twice.
    fn post(&self, event: Event) {
        let inbox = self.inbox.clone();
        tokio::task::spawn_local(async move { inbox.send(Inner::Event(event)).await });
    }

    fn try_start(&mut self, key: Key, name: &str, index: u32) -> Result<(), String> {
        let system = Rc::clone(&self.system);
        let id = self.find(name).ok_or("it is no longer in the file")?;
        let service = &system.services[id];
        let mut seat = plan::seat(&system, service, index);
        if let Some(version) = self.version_forced(name, index) {
            seat.version.clone_from(version);
        }
        let slot = slot(name, index);
        let Some(run) = plan::run_of(service, &seat.version) else {
            let listener = self.ports.bind(&slot).map_err(|error| error.to_string())?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let behaviour = Arc::new(Behaviour::of(&system, id, Some(&seat.version)));
            let addresses = self.doors_of(&slot).collect();
            let identity = Identity { key, name: slot, version: seat.version.clone(), place: seat.place() };
            self.live.insert(key, self.new_live(name, index, Some(address), seat, Body::Synthetic));
            self.host.begin(Start { identity, behaviour, listener, addresses });
            self.watch_health(key, service, address, &Environment::default());
            return Ok(());
        };
        let address = match (run.job, run.port) {
            (true, _) => None,
            (false, Some(port)) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                TcpListener::bind(address)
                    .map_err(|error| format!("its port {port} cannot be used: {}", os_words(&error)))?;
                Some(address)
            }
            (false, None) => Some(self.ports.reserve(&slot).map_err(|error| error.to_string())?),
        };
        let result = self.start_process(key, service, run, index, address, &seat);
        if let (Err(_), Some(address)) = (&result, address) {
            self.ports.release(address.port());
        }
        result
    }

    fn start_process(
        &mut self,
        key: Key,
        service: &Service,
        run: &Run,
        index: u32,
        address: Option<SocketAddr>,
        seat: &Seat,
    ) -> Result<(), String> {
        let name = &service.name.value;
        let mut environment = self.environment(service, run, index, address, seat)?;
        environment.set(MARK, self.mark_of(key));
        let launch_it = self.launch_of(run, &run.command.value, environment)?;
        let (mut process, output) =
            launch(&launch_it, Some(&self.options.trampoline)).map_err(|error| error.to_string())?;
        let pid = process.pid();
        let (signals, mut asked) = mpsc::channel(SIGNALS_MAX);
        let live = self.new_live(name, index, address, seat.clone(), Body::Process { pid, signals });
        self.live.insert(key, live);
        self.read_output(key, service, index, output);
        let inbox = self.inbox.clone();
        tokio::task::spawn_local(async move {
            let _ = inbox.send(Inner::Event(Event::Started(key))).await;
            let exit = loop {
                tokio::select! {
                    exit = process.ended() => break exit,
                    Some(signal) = asked.recv() => process.signal(signal),
                }
            };
            let _ = inbox.send(Inner::Left(key)).await;
            let _ = inbox.send(Inner::Event(Event::Exited(key, exit))).await;
        });
        if let Some(address) = address {
            self.watch_health(key, service, address, &launch_it.environment);
        }
        Ok(())
    }

    fn new_live(
        &self,
        service: &str,
        index: u32,
        address: Option<SocketAddr>,
        seat: Seat,
        body: Body,
    ) -> Live {
        Live {
            service: service.to_owned(),
            index,
            address,
            seat,
            body,
            since: self.now(),
            usage: None,
            check: None,
        }
    }

    fn launch_of(&self, run: &Run, command: &str, environment: Environment) -> Result<Launch, String> {
        let words = if run.shell {
            vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()]
        } else {
            words::split(command, |name| environment.get(name).map(str::to_owned))
                .map_err(|error| error.to_string())?
        };
        let folder = self.folder_of_file();
        let dir: PathBuf = run.dir.as_ref().map_or(folder.clone(), |dir| folder.join(dir));
        Ok(Launch { words, dir: std::path::absolute(&dir).unwrap_or(dir), environment })
    }

    fn doors_of<'a>(&'a self, slot: &'a str) -> impl Iterator<Item = (String, SocketAddr)> + 'a {
        let own = self.doors.values().map(|(door, _)| door).filter(move |it| it.slot == slot);
        own.map(|it| (it.callee.clone(), it.address))
    }

    /// What an instance is told about its world.
    pub(super) fn environment(
        &self,
        service: &Service,
        run: &Run,
        index: u32,
        address: Option<SocketAddr>,
        seat: &Seat,
    ) -> Result<Environment, String> {
        let mut environment = Environment::default();
        // A developer's shell is part of how programs are found and built, so what it has goes on to its services.
        for (name, value) in std::env::vars().filter(|(name, _)| !name.starts_with("ISOBAR_")) {
            environment.set(name, value);
        }
        let name = &service.name.value;
        let slot = slot(name, index);
        if let Some(address) = address {
            environment.set("PORT", address.port().to_string());
        }
        environment.set("ISOBAR_SYSTEM", &self.system.name);
        environment.set("ISOBAR_SERVICE", name);
        environment.set("ISOBAR_INSTANCE", &slot);
        environment.set("ISOBAR_VERSION", &seat.version);
        environment.set("ISOBAR_REGION", &seat.region);
        environment.set("ISOBAR_ZONE", &seat.zone);
        for (callee, door) in self.doors_of(&slot) {
            let stem = variable_stem(&callee);
            environment.set(format!("{stem}_URL"), format!("http://{door}"));
            environment.set(format!("{stem}_ADDR"), door.to_string());
        }
        environment.set("OTEL_SERVICE_NAME", name);
        let attributes = format!(
            "service.version={},service.instance.id={slot},cloud.region={},cloud.availability_zone={}",
            seat.version, seat.region, seat.zone
        );
        environment.set("OTEL_RESOURCE_ATTRIBUTES", attributes);
        for (name, value) in observers(&self.addresses) {
            environment.set(name, value);
        }
        for file in &run.env_files {
            let path = self.folder_of_file().join(file);
            let path = std::path::absolute(&path).unwrap_or(path);
            environment.add_file(&path).map_err(|error| error.to_string())?;
        }
        for (name, value) in &run.env {
            environment.set(name, value);
        }
        Ok(environment)
    }

    fn read_output(&self, key: Key, service: &Service, index: u32, output: Output) {
        let awaited = match &service.health.check {
            Check::Log { contains } => Some((contains.clone(), service.health.healthy_after.max(1))),
            _ => None,
        };
        self.read_pipe(key, &service.name.value, index, Stream::Out, output.out.into(), awaited.clone());
        self.read_pipe(key, &service.name.value, index, Stream::Err, output.err.into(), awaited);
    }

    fn read_pipe(
        &self,
        key: Key,
        service: &str,
        index: u32,
        stream: Stream,
        pipe: OwnedFd,
        mut awaited: Option<(String, u32)>,
    ) {
        let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
        let (logs, inbox, service) = (Rc::clone(&self.logs), self.inbox.clone(), service.to_owned());
        tokio::task::spawn_local(async move {
            let mut lines = Lines::default();
            let mut buffer = vec![0; 16 << 10];
            let mut seen = 0;
            loop {
                let read = pipe.read(&mut buffer).await.unwrap_or(0);
                let mut each = |line: &str| {
                    logs.borrow_mut().write(unix_nanos(), &service, index, stream, line);
                    if awaited.as_ref().is_some_and(|(text, _)| line.contains(text.as_str())) {
                        seen = awaited.take().map_or(0, |(_, times)| times);
                    }
                };
                if read == 0 {
                    lines.finish(&mut each);
                } else {
                    lines.push(&buffer[..read], &mut each);
                }
                logs.borrow_mut().flush();
                // A line is said once; it counts as often as a check would have to pass.
                for _ in 0..std::mem::take(&mut seen) {
                    let _ = inbox.send(Inner::Event(Event::Health(key, Ok(())))).await;
                }
                if read == 0 {
                    return;
                }
            }
        });
    }

    /// Checks an instance for as long as it lives: often while it starts, as the file says once it answered.
    fn watch_health(&mut self, key: Key, service: &Service, address: SocketAddr, environment: &Environment) {
        let health = &service.health;
        let folder = self.folder_of_file();
        let probe = match &health.check {
            Check::None | Check::Log { .. } => return,
            Check::Http { path } => Probe::Http { path: path.clone() },
            Check::Grpc { service } => Probe::Grpc { service: service.clone() },
            Check::Tcp => Probe::Tcp,
            Check::Command { command } => {
                match words::split(command, |name| environment.get(name).map(str::to_owned)) {
                    Ok(words) => Probe::Command { words, dir: folder, environment: environment.clone() },
                    Err(error) => {
                        let why = format!("its health command cannot be split: {error}");
                        self.post(Event::Health(key, Err(why)));
                        return;
                    }
                }
            }
        };
        let every = Duration::from_nanos(health.every.as_u64()).max(FIRST_CHECK);
        let timeout = Duration::from_nanos(health.timeout.as_u64());
        let (inbox, trampoline) = (self.inbox.clone(), self.options.trampoline.clone());
        let mark = self.mark_of(key);
        let task = tokio::task::spawn_local(async move {
            let mut pause = FIRST_CHECK;
            let mut answered = false;
            let (mut failures, mut hint) = (0_u32, String::new());
            loop {
                let mut result = probe.ask(address, timeout, Some(&trampoline)).await;
                let nobody = result.as_mut().err().filter(|why| !answered && why.starts_with(probe::NOBODY));
                if let Some(why) = nobody {
                    failures += 1;
                    // A walk over the process table, so not at every turn.
                    if failures >= 4 && failures.is_power_of_two() {
                        hint = listening::words(&listening::ports_of(&marked(&mark)));
                    }
                    why.push_str(&hint);
                }
                answered |= result.is_ok();
                // Before the first good answer a bad one is no news, but its words are what a person needs.
                if inbox.send(Inner::Event(Event::Health(key, result))).await.is_err() {
                    return;
                }
                tokio::time::sleep(if answered { every } else { pause.min(every) }).await;
                pause = (pause * 2).min(SLOWEST_FIRST_CHECK);
            }
        });
        if let Some(live) = self.live.get_mut(&key) {
            live.check = Some(task.abort_handle());
        }
    }

    pub(super) fn signal(&mut self, key: Key, hard: bool) {
        let Some(live) = self.live.get(&key) else {
            // It never ran, so it is already as it should be.
            self.post(Event::Exited(key, Exit::Code(0)));
            return;
        };
        match &live.body {
            Body::Synthetic if hard => self.host.kill(key),
            Body::Synthetic => self.host.stop(key),
            Body::Process { signals, .. } => {
                let _ = signals.try_send(if hard { Signal::KILL } else { Signal::TERM });
                // One that was frozen on purpose must wake up to hear it.
                let _ = signals.try_send(Signal::CONT);
            }
        }
    }

    /// Its process is gone: so are its check and its port.
    pub(super) fn forget(&mut self, key: Key) {
        let was_admitted = self.admitted.remove(&key);
        let Some(live) = self.live.remove(&key) else { return };
        if let Some(check) = &live.check {
            check.abort();
        }
        let is_ghost = was_admitted && self.becomes_ghost(&live);
        if let (Some(address), false) = (live.address, is_ghost) {
            self.ports.release(address.port());
        }
        self.dirty = true;
    }

    pub(super) fn build(&mut self, name: &str) {
        let system = Rc::clone(&self.system);
        let built = |result| Event::Built(name.to_owned(), result);
        let Some(service) = self.find(name).map(|id| &system.services[id]) else { return };
        let Some((run, command)) = service.run.as_ref().and_then(|run| Some((run, run.build.as_ref()?)))
        else {
            self.post(built(Ok(())));
            return;
        };
        let seat = plan::seat(&system, service, 0);
        let started = self.environment(service, run, 0, None, &seat).and_then(|mut environment| {
            environment.set(MARK, format!("{}/{}/build/", self.folder.mark(), self.options.run_id));
            // A build line is often a little script; what a shell can do costs nothing here.
            let run = Run { shell: true, ..run.clone() };
            let it = self.launch_of(&run, command, environment)?;
            launch(&it, Some(&self.options.trampoline)).map_err(|error| error.to_string())
        });
        match started {
            Err(why) => self.post(built(Err(why))),
            Ok((mut process, output)) => {
                self.read_pipe(Key(0), name, 0, Stream::Isobar, output.out.into(), None);
                self.read_pipe(Key(0), name, 0, Stream::Isobar, output.err.into(), None);
                let (inbox, name, logs) = (self.inbox.clone(), name.to_owned(), Rc::clone(&self.logs));
                tokio::task::spawn_local(async move {
                    let result = match process.ended().await {
                        Exit::Code(0) => Ok(()),
                        exit => {
                            let last = logs.borrow().last_lines(&name, 0);
                            Err(format!("{exit}\n  | {}", last.join("\n  | ")))
                        }
                    };
                    let _ = inbox.send(Inner::Event(Event::Built(name, result))).await;
                });
            }
        }
    }
}

/// Where spans and measurements go, in the words that OpenTelemetry's and Zipkin's libraries look for.
fn observers(addresses: &[Address]) -> Vec<(&'static str, String)> {
    let mut variables = Vec::new();
    for address in addresses {
        let url = address.url.trim_end_matches('/');
        match address.kind.as_str() {
            "otlp" => {
                variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", url.to_owned()));
                variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()));
            }
            "zipkin" => {
                // Some print the whole path in their address, some only the host: both are given what they expect.
                let base = url.trim_end_matches("/api/v2/spans").trim_end_matches("/zipkin");
                let spans = format!("{base}/api/v2/spans");
                variables.push(("OTEL_EXPORTER_ZIPKIN_ENDPOINT", spans.clone()));
                variables.push(("ZIPKIN_ENDPOINT", spans.clone()));
                variables.push(("ZIPKIN_BASE_URL", base.to_owned()));
                variables.push(("MANAGEMENT_ZIPKIN_TRACING_ENDPOINT", spans));
            }
            _ => {}
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observers_are_named_as_libraries_expect() {
        let address = |kind: &str, url: &str| Address {
            kind: kind.to_owned(),
            name: kind.to_owned(),
            url: url.to_owned(),
            note: None,
        };
        let found = observers(&[
            address("gateway", "http://127.0.0.1:1"),
            address("otlp", "http://127.0.0.1:4318/"),
            address("zipkin", "http://127.0.0.1:9411/zipkin/"),
        ]);
        let words: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            words,
            [
                "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
                "OTEL_EXPORTER_ZIPKIN_ENDPOINT=http://127.0.0.1:9411/api/v2/spans",
                "ZIPKIN_ENDPOINT=http://127.0.0.1:9411/api/v2/spans",
                "ZIPKIN_BASE_URL=http://127.0.0.1:9411",
                "MANAGEMENT_ZIPKIN_TRACING_ENDPOINT=http://127.0.0.1:9411/api/v2/spans",
            ]
        );
    }
}
