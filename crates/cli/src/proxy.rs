//! `isobar proxy`: the data plane alone, from the file's gateways. A reverse proxy that reads the file everybody reads.
//!
//! This process watches the file and passes signals on; everything about a request happens in the proxy's own threads.
//! A bad edit is refused whole and said; what ran goes on. See `docs/proxy.md`.

use crate::output::{self, Terminal};
use crate::{exit, input};
use anyhow::Context;
use control::compile::{Compiler, Topology};
use model::system::System;
use proxy::config::{AccessLog, Config, Limits, Timeouts};
use proxy::{Level, Options, Proxy};
use rustix::fs::inotify;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use units::{Bytes, Nanos, Percent};

/// Serve the file's gateways: a reverse proxy, alone
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
An edit of the file is in force at once, and so is one of a certificate; SIGHUP makes sure. A bad edit is refused and
nothing changes. SIGTERM and ctrl-c finish what is in progress and end; a second one ends at once.

For example:
  isobar proxy p.yaml                              the file's gateways, one worker for each processor
  isobar proxy p.yaml --admin 127.0.0.1:8101       curl localhost:8101/stats, /endpoints, /config, /tap
  isobar proxy p.yaml --access-log 1%              every failure and one request in a hundred, as JSON on stdout
  isobar proxy p.yaml --limit connections=20000 --limit memory=512MiB --timeout request=15s")]
pub(crate) struct Args {
    /// A file, or a folder that holds isobar.yaml
    #[arg(default_value = ".")]
    file: PathBuf,

    /// Threads that serve; left out, as many as the processor quota allows
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// Where to answer questions about the proxy: ADDRESS:PORT, unix:PATH, or none
    #[arg(long, default_value = "127.0.0.1:0", value_name = "WHERE")]
    admin: Admin,

    /// Write a JSON line for each request to stdout, or for a share of them and every failure
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "100%")]
    access_log: Option<Percent>,

    /// A limit of the whole process, as NAME=VALUE; may be given often
    #[arg(long, value_name = "NAME=VALUE", long_help = LIMITS_HELP)]
    limit: Vec<String>,

    /// How long to wait for a peer, as NAME=DURATION; may be given often
    #[arg(long, value_name = "NAME=DURATION", long_help = TIMEOUTS_HELP)]
    timeout: Vec<String>,

    /// How much to say on stderr: error, info (what changes), debug (each failed request)
    #[arg(long, default_value = "info", value_name = "LEVEL", value_parser = level)]
    log: Level,

    /// Share of the traces that begin here
    #[arg(long, default_value = "100%", value_name = "SHARE")]
    traces: Percent,

    /// Believe what callers say of themselves (ids, deadlines, pins, X-Forwarded-*): only behind a proxy of your own
    #[arg(long)]
    trust_headers: bool,

    /// Where this proxy stands, for edges that prefer their own zone: REGION or REGION/ZONE
    #[arg(long, value_name = "PLACE")]
    place: Option<String>,

    /// Do not watch the file; SIGHUP still reads it again
    #[arg(long)]
    no_watch: bool,
}

const LIMITS_HELP: &str = "\
A limit of the whole process, as NAME=VALUE; may be given often:
  connections                65536    client connections; more are closed
  connections-per-source     none     of one address
  streams-per-connection     256      HTTP/2
  head                       16KiB    of a request or a reply
  target                     8KiB     of a request's path and query
  headers                    100      lines
  request-body               none     longer ones are answered 413
  replay-per-request         64KiB    of a body, kept for retries
  replay                     32MiB    the same, in all
  requests-per-instance      16384    in flight to one instance
  pending                    1024     waiting for one instance
  retries                    256      in flight
  mirrors                    64       in flight
  requests-per-connection    none     then the connection closes
  memory                     none     above it keep-alive ends, at 105 % new requests, at 110 % new connections";

const TIMEOUTS_HELP: &str = "\
How long to wait for a peer, as NAME=DURATION; may be given often:
  header-read    10s    from a request's first byte to the end of its head
  body-read      30s    between two reads of a request's body
  write          30s    between two writes that a client takes
  keep-alive     75s    a client's connection without a request
  stream-idle    5min   a reply or a tunnel without a byte
  silence        15s    an HTTP/2 instance that owes an answer, until it is asked whether it is there, and again until it is given up
  request        60s    the whole request, where no edge says otherwise
  drain          30s    from SIGTERM until busy connections are cut";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Admin {
    None,
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path, as in unix:/run/isobar.sock".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == "none" => Ok(Self::None),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is neither an address and a port, as in 127.0.0.1:9901, nor unix:PATH, nor none"
                )
            }),
        }
    }
}

fn level(text: &str) -> Result<Level, String> {
    Level::of(text).ok_or_else(|| format!("`{text}` is none of error, info, debug"))
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let mut base = Config { trace_share: args.traces, ..Config::default() };
    args.limit.iter().try_for_each(|it| set_limit(&mut base.limits, it)).map_err(anyhow::Error::msg)?;
    args.timeout.iter().try_for_each(|it| set_timeout(&mut base.timeouts, it)).map_err(anyhow::Error::msg)?;
    base.access_log = args.access_log.map(|share| AccessLog { share, ..AccessLog::default() });
    if let Some(place) = &args.place {
        let (region, zone) = place.split_once('/').unwrap_or((place, ""));
        (base.node.region, base.node.zone) = (region.to_owned(), zone.to_owned());
    }
    let mut source =
        Source { file: args.file.clone(), base, trust: args.trust_headers, compiler: Compiler::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    // Before the first look into the file, so that an edit in between is not missed.
    let mut watch = Watch::new(!args.no_watch);
    watch.follow(&[if args.file.is_dir() { args.file.join("isobar.yaml") } else { args.file.clone() }]);
    let read = match source.read()? {
        Ok(read) => read,
        Err(words) => {
            output::words(&words.drawn(terminal));
            return Ok(exit::USAGE);
        }
    };
    watch.follow(&read.files);
    let options = Options {
        workers: args.workers.map_or(0, usize::from),
        admin: match &args.admin {
            Admin::Tcp(address) => Some(*address),
            Admin::None | Admin::Unix(_) => None,
        },
        admin_socket: match &args.admin {
            Admin::Unix(path) => Some(path.clone()),
            Admin::None | Admin::Tcp(_) => None,
        },
        exclusive: true,
        log: args.log,
        ..Options::default()
    };
    let proxy = Proxy::start(read.config.clone(), options).map_err(|error| words_of(&error))?;
    say_ready(args, &read, &proxy)?;
    runtime.block_on(attend(watch, terminal, &mut source, read, &proxy))
}

fn words_of(error: &proxy::Error) -> anyhow::Error {
    match error {
        proxy::Error::Config(mistakes) => {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n       "))
        }
        proxy::Error::Bind { listener, address, error } if error.kind() == io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "`{listener}` cannot listen on {address}: another process does (ss -ltnp says which)"
            )
        }
        proxy::Error::Bind { listener, address, error }
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            anyhow::anyhow!(
                "`{listener}` cannot listen on {address}: {error}; ports below 1024 need CAP_NET_BIND_SERVICE"
            )
        }
        other => anyhow::anyhow!("{other}"),
    }
}

/// Addresses are data and go to stdout, unless stdout is the access log.
fn say_ready(args: &Args, read: &Read, proxy: &Proxy) -> anyhow::Result<()> {
    let mut lines = String::new();
    for gateway in read.system.gateways.iter() {
        let name = &gateway.name.value;
        let Some(address) = proxy.address(name) else { continue };
        let scheme = if gateway.tls.is_some() { "https" } else { "http" };
        lines.push_str(&format!("gateway  {name:<12} {scheme}://{address}\n"));
    }
    match (&args.admin, proxy.admin_address()) {
        (Admin::Unix(path), _) => lines.push_str(&format!("admin    {:<12} unix:{}\n", "", path.display())),
        (_, Some(address)) => lines.push_str(&format!("admin    {:<12} http://{address}\n", "")),
        (_, None) => {}
    }
    for service in read.without_endpoints() {
        output::words(&format!(
            "warning: `{service}` has no `endpoints`, and a proxy alone starts nothing: its requests are answered 503\n"
        ));
    }
    if args.access_log.is_some() {
        output::words(&lines);
        return Ok(());
    }
    // Nobody may be reading any more; the proxy serves on.
    let _ = output::print(&lines);
    Ok(())
}

/// Signals, edits and the end.
async fn attend(
    mut watch: Watch,
    terminal: Terminal,
    source: &mut Source,
    mut running: Read,
    proxy: &Proxy,
) -> anyhow::Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leaving = false;
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = terminate.recv() => {
                if leave(proxy, &mut leaving) { return Ok(exit::FAILED) }
                continue;
            }
            _ = interrupt.recv() => {
                if leave(proxy, &mut leaving) { return Ok(exit::INTERRUPTED) }
                continue;
            }
            () = watch.changed() => false,
            _ = tick.tick() => {
                if proxy.is_drained() {
                    output::words("isobar proxy: every request is answered; the end\n");
                    return Ok(exit::OK);
                }
                continue;
            }
        };
        if leaving {
            continue;
        }
        let began = Instant::now();
        let read = match source.read()? {
            Ok(read) => read,
            Err(words) => {
                output::words(&words.drawn(terminal));
                output::words("isobar proxy: this edit is refused; what ran before runs on\n");
                watch.follow(&words.files);
                continue;
            }
        };
        watch.follow(&read.files);
        if read.config == running.config {
            if asked {
                output::words("isobar proxy: nothing has changed\n");
            }
            continue;
        }
        match proxy.reload(read.config.clone()) {
            Ok(()) => {
                let took = began.elapsed().as_secs_f64() * 1e3;
                let routes: usize = read.config.listeners.iter().map(|it| it.routes.len()).sum();
                output::words(&format!(
                    "isobar proxy: {} is in force ({routes} routes, {took:.1} ms)\n",
                    read.config.source
                ));
                running = read;
            }
            Err(error) => {
                terminal.error(&words_of(&error));
                output::words("isobar proxy: this edit is refused; what ran before runs on\n");
            }
        }
    }
}

/// The first time: finish what is in progress. True the second time: end now.
fn leave(proxy: &Proxy, leaving: &mut bool) -> bool {
    if std::mem::replace(leaving, true) {
        return true;
    }
    output::words("isobar proxy: finishing what is in progress; once more ends at once\n");
    proxy.drain();
    false
}

/// The file, read again and again into snapshots that share what did not change.
struct Source {
    file: PathBuf,
    base: Config,
    trust: bool,
    compiler: Compiler,
}

/// A good file.
struct Read {
    system: System,
    config: Config,
    files: Vec<PathBuf>,
}

/// A bad one: its mistakes, or what else is in the way.
struct Refused {
    loaded: Option<model::load::Loaded>,
    other: String,
    files: Vec<PathBuf>,
}

impl Refused {
    fn drawn(&self, terminal: Terminal) -> String {
        match &self.loaded {
            Some(loaded) => input::drawn(loaded, terminal),
            None => format!("{}\n", self.other),
        }
    }
}

impl Source {
    fn read(&mut self) -> anyhow::Result<Result<Read, Refused>> {
        let loaded = input::read(&self.file)?;
        let mut files: Vec<PathBuf> = loaded.sources.files.iter().map(|it| it.path.clone()).collect();
        if files.is_empty() {
            files.push(self.file.clone());
        }
        if !loaded.is_good() {
            return Ok(Err(Refused { loaded: Some(loaded), other: String::new(), files }));
        }
        let source = files.first().map(|it| it.display().to_string()).unwrap_or_default();
        let folder = files.first().and_then(|it| it.parent()).unwrap_or(Path::new("")).to_owned();
        let system = loaded.into_system().context("a good file is a system")?;
        match Topology::of_gateways(&system, folder) {
            Ok(topology) => {
                let topology = Topology { gateways_trust: self.trust, ..topology };
                let compiled = self.compiler.compile(&system, &topology);
                let config = Config {
                    source,
                    listeners: compiled.listeners,
                    edges: compiled.edges,
                    services: compiled.services,
                    ..self.base.clone()
                };
                Ok(Ok(Read { system, config, files }))
            }
            Err(other) => Ok(Err(Refused { loaded: None, other: format!("{source}: {other}"), files })),
        }
    }
}

impl Read {
    fn without_endpoints(&self) -> Vec<String> {
        let services = self.config.services.iter().filter(|it| it.endpoints.is_empty());
        services.map(|it| it.name.clone()).collect()
    }
}

fn set_limit(limits: &mut Limits, text: &str) -> Result<(), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("--limit {text}: it is written NAME=VALUE"))?;
    let number = || value.parse::<u32>().map_err(|_| format!("--limit {text}: `{value}` is no whole number"));
    let bytes = || {
        value.parse::<Bytes>().map_err(|error| format!("--limit {text}: {error} (sizes are written 16KiB)"))
    };
    match name {
        "connections" => limits.connections = number()?,
        "connections-per-source" => limits.connections_per_source = number()?,
        "streams-per-connection" => limits.streams_per_connection = number()?,
        "head" => limits.head_bytes = bytes()?,
        "target" => limits.target_bytes = bytes()?,
        "headers" => limits.headers = number()?,
        "request-body" => limits.request_body_bytes = Some(bytes()?),
        "replay-per-request" => limits.replay_bytes = bytes()?,
        "replay" => limits.replay_bytes_total = bytes()?,
        "requests-per-instance" => limits.requests_per_instance = number()?,
        "pending" => limits.pending = number()?,
        "retries" => limits.retries_in_flight = number()?,
        "mirrors" => limits.mirrors_in_flight = number()?,
        "requests-per-connection" => limits.requests_per_connection = Some(u64::from(number()?)),
        "memory" => limits.memory = Some(bytes()?),
        _ => return Err(format!("--limit {name}: there is no such limit; `isobar proxy --help` lists them")),
    }
    Ok(())
}

fn set_timeout(timeouts: &mut Timeouts, text: &str) -> Result<(), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("--timeout {text}: it is written NAME=DURATION"))?;
    let duration: Nanos =
        value.parse().map_err(|error| format!("--timeout {text}: {error} (durations are written 10s)"))?;
    let which = match name {
        "header-read" => &mut timeouts.header_read,
        "body-read" => &mut timeouts.body_read,
        "write" => &mut timeouts.write,
        "keep-alive" => &mut timeouts.keep_alive,
        "stream-idle" => &mut timeouts.stream_idle,
        "silence" => &mut timeouts.silence,
        "request" => &mut timeouts.request,
        "drain" => &mut timeouts.drain,
        _ => return Err(format!("--timeout {name}: there is no such one; `isobar proxy --help` lists them")),
    };
    if duration.is_zero() {
        return Err(format!("--timeout {text}: a peer needs more time than none"));
    }
    *which = duration;
    Ok(())
}

/// Tells when a file was written, or replaced by another of its name.
///
/// The kernel tells about the files' folders, so an edit is seen in the moment its writer closes the file, and one that
/// is half written is not. Where it cannot (a network drive), a look at sizes and moments twice a second does.
struct Watch {
    inotify: Option<Arc<OwnedFd>>,
    happened: Arc<Notify>,
    /// Of the files, without their folders.
    names: Arc<Mutex<Vec<OsString>>>,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    look: Vec<Option<(u64, std::time::SystemTime)>>,
    next_look: tokio::time::Interval,
    on: bool,
}

impl Watch {
    fn new(on: bool) -> Self {
        let inotify = if on { inotify::init(inotify::CreateFlags::CLOEXEC).ok().map(Arc::new) } else { None };
        let happened = Arc::new(Notify::new());
        let names = Arc::new(Mutex::new(Vec::new()));
        if let Some(inotify) = inotify.clone() {
            let (happened, names) = (happened.clone(), names.clone());
            // It waits in the kernel for as long as the process lives.
            std::thread::spawn(move || tell(&inotify, &names, &happened));
        }
        let next_look = tokio::time::interval(Duration::from_millis(500));
        Self {
            inotify,
            happened,
            names,
            folders: Vec::new(),
            files: Vec::new(),
            look: Vec::new(),
            next_look,
            on,
        }
    }

    /// From now on about these. What happened to one of them since the last time is not forgotten.
    fn follow(&mut self, files: &[PathBuf]) {
        use inotify::WatchFlags;
        self.files = files.to_vec();
        self.look = look_at(&self.files);
        let Some(inotify) = &self.inotify else { return };
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) =
            files.iter().filter_map(|it| it.file_name()).map(OsStr::to_owned).collect();
        for file in files {
            let folder = match file.parent() {
                Some(folder) if folder != Path::new("") => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            if self.folders.contains(&folder) {
                continue;
            }
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
            // What cannot be watched is looked at.
            if inotify::add_watch(inotify, &folder, flags).is_ok() {
                self.folders.push(folder);
            }
        }
    }

    /// Ready once something happened to a file. Cancel safe: what was not yet reported is reported the next time.
    async fn changed(&mut self) {
        if !self.on {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                () = self.happened.notified() => return,
                _ = self.next_look.tick() => {}
            }
            let look = look_at(&self.files);
            // A file that is missing for a moment is being replaced.
            if look != self.look && look.iter().all(Option::is_some) {
                self.look = look;
                return;
            }
        }
    }
}

/// Passes on what the kernel tells about these names.
fn tell(inotify: &OwnedFd, names: &Mutex<Vec<OsString>>, happened: &Notify) {
    let mut bytes = [std::mem::MaybeUninit::uninit(); 4_096];
    let mut events = inotify::Reader::new(inotify, &mut bytes);
    while let Ok(event) = events.next() {
        let Some(name) = event.file_name() else { continue };
        let name = OsStr::from_bytes(name.to_bytes());
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        // `..data` is the link that a mounted ConfigMap replaces instead of the file.
        if name == "..data" || names.iter().any(|it| it == name) {
            happened.notify_one();
        }
    }
}

fn look_at(files: &[PathBuf]) -> Vec<Option<(u64, std::time::SystemTime)>> {
    let look = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    files.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_timeouts_are_read_or_refused() {
        let check = |text: &str, expected: &str| {
            let mut limits = Limits::default();
            let said = set_limit(&mut limits, text).err().unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{text}: {said:?}");
        };
        check("connections=20", "");
        check("memory=512MiB", "");
        check("memory=512", "written 16KiB");
        check("connections=many", "no whole number");
        check("conections=1", "no such limit");
        check("connections", "NAME=VALUE");
        let mut timeouts = Timeouts::default();
        assert_eq!(set_timeout(&mut timeouts, "request=15s"), Ok(()));
        assert_eq!(timeouts.request, Nanos::from_secs(15));
        for (text, expected) in
            [("request=15", "written 10s"), ("x=1s", "no such"), ("drain=0s", "more time")]
        {
            let said = set_timeout(&mut timeouts, text).expect_err(text);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn an_admin_place_is_an_address_a_socket_or_none() {
        assert_eq!("none".parse(), Ok(Admin::None));
        assert_eq!("unix:/run/a".parse(), Ok(Admin::Unix("/run/a".into())));
        assert_eq!("127.0.0.1:1".parse(), Ok(Admin::Tcp(([127, 0, 0, 1], 1).into())));
        assert!("8080".parse::<Admin>().is_err_and(|it| it.contains("127.0.0.1:9901")));
        assert!("unix:".parse::<Admin>().is_err());
    }
}
