//! A long run under trouble: `soak [--seconds N]` (600 by default).
//!
//! The proxy runs in a process of its own and takes over a new snapshot every 100 ms. Around it, instances die and come
//! back, clients that behave ask over HTTP/1 and HTTP/2 and check every byte of what they get, and clients that do not
//! behave break off, fall silent, flood and talk nonsense. At half time and at the end everybody leaves. What is wanted:
//! every request of those who behave was answered as asked, or refused with a reason that the deaths explain; and at the
//! end the proxy holds what it held at half time, in bytes that it asked for, connections, timers and buffers. Exits with
//! 1 and says what was found if not.
//!
//! Resident memory is not what is compared in a short run: it is the highest tide of what was held at once, which
//! a longer run of luck keeps raising. What was asked for and not given back shows a leak of 100 bytes a request in
//! seconds, on any machine.

#![allow(clippy::print_stdout, reason = "its report is its output")]
#![allow(
    unsafe_code,
    reason = "counting what is held needs an allocator, and that trait is unsafe to implement"
)]

use policy::settings::{EdgeSettings, Retry};
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use proxy::{Options, Proxy};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tikv_jemallocator::Jemalloc;
use units::{Nanos, Purpose, Rng};

/// The binary's allocator, which also counts what was asked for and not given back.
struct Counting;

static HELD_BYTES: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to jemalloc with what it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { Jemalloc.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD_BYTES.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { Jemalloc.realloc(pointer, layout, size) }
    }
}

const INSTANCES: usize = 3;
const RELOAD_EVERY: Duration = Duration::from_millis(100);
/// Longer than any answer here may take, deaths included.
const PATIENCE: Duration = Duration::from_secs(10);
/// From this length on the highest tide has been seen by half time.
const LONG: Duration = Duration::from_secs(300);

/// Refusals that follow from an instance that died under or before a request, or from a flood. Any other is a finding.
const EXPLAINED: [&str; 5] =
    ["connection-lost", "possibly-processed", "connect-failed", "no-healthy-instance", "overloaded"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| args.iter().position(|it| it == flag).and_then(|at| args.get(at + 1));
    if let Some(instances) = after("--serve") {
        serve(instances);
        return ExitCode::SUCCESS;
    }
    let seconds = match after("--seconds").map(|it| it.parse::<u64>()) {
        None => 600,
        Some(Ok(seconds)) if seconds >= 5 => seconds,
        Some(_) => {
            eprintln!("soak: --seconds is a number of at least 5");
            return ExitCode::from(2);
        }
    };
    match soak(Duration::from_secs(seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("soak: {finding}"));
            ExitCode::FAILURE
        }
    }
}

// The proxy's own process.

fn config(instances: &[SocketAddr], turn: u64) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = EdgeSettings {
        retry: Some(Retry { attempts: 3, ..Retry::default() }),
        timeout: Some(Nanos::from_secs(5)),
        ..EdgeSettings::default()
    };
    let mut edge = Edge::new("edge", "api", settings);
    // Something changes each time: a route comes and goes, and now and then the edge is another.
    edge.settings.timeout = Some(Nanos::from_secs(5) + Nanos::from_millis(turn % 7));
    let mut routes = vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")];
    routes.insert(
        0,
        Route::forward(&format!("turn-{}", turn % 5), PathMatch::Prefix("/turn".into()), "edge->api"),
    );
    let mut config = Config {
        services: vec![Arc::new(Service::http1("api", instances))],
        edges: vec![Arc::new(edge)],
        listeners: vec![Arc::new(Listener::http("edge", any, routes))],
        ..Config::default()
    };
    // Those who fall silent are to be let go within the run.
    config.timeouts.header_read = Nanos::from_secs(1);
    config.timeouts.body_read = Nanos::from_secs(1);
    config
}

/// Serves and reloads until its input ends; answers each line of it with the bytes that are held.
fn serve(instances: &str) {
    let instances: Vec<SocketAddr> = instances.split(',').filter_map(|it| it.parse().ok()).collect();
    let options = Options { workers: 1, admin: Some(([127, 0, 0, 1], 0).into()), ..Options::default() };
    let proxy = match Proxy::start(config(&instances, 0), options) {
        Ok(proxy) => proxy,
        Err(error) => return eprintln!("soak: {error}"),
    };
    let (Some(door), Some(admin)) = (proxy.address("edge"), proxy.admin_address()) else { return };
    println!("{door} {admin}");
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("{}", HELD_BYTES.load(SeqCst));
        }
        ended.store(true, SeqCst);
    });
    let mut turn = 0;
    while !over.load(SeqCst) {
        turn += 1;
        if let Err(error) = proxy.reload(config(&instances, turn)) {
            eprintln!("soak: reload {turn}: {error}");
        }
        std::thread::sleep(RELOAD_EVERY);
    }
    proxy.stop();
}

// Instances that die and come back.

/// Answers with the request's path and body while it lives.
struct Instance {
    address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
    alive: Arc<AtomicBool>,
}

impl Instance {
    fn start() -> std::io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let it = Self { address, open: Arc::default(), alive: Arc::default() };
        it.live()?;
        Ok(it)
    }

    fn live(&self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        self.alive.store(true, SeqCst);
        let (open, alive) = (self.open.clone(), self.alive.clone());
        std::thread::spawn(move || {
            while alive.load(SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let _ = stream.set_nonblocking(false);
                        let _ = stream.set_nodelay(true);
                        if let (Ok(mut open), Ok(copy)) = (open.lock(), stream.try_clone()) {
                            open.push(copy);
                        }
                        std::thread::spawn(move || echo(stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(())
    }

    /// Nobody listens any more, and every connection breaks.
    fn die(&self) {
        self.alive.store(false, SeqCst);
        if let Ok(mut open) = self.open.lock() {
            open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut left = Vec::new();
    while let Some((head, body)) = read_message(&mut stream, &mut left) {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let said = [path.as_bytes(), b" ", &body].concat();
        let reply = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", said.len()).into_bytes(), said]
            .concat();
        if stream.write_all(&reply).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// One message with a length or none; its head as text.
fn read_message(stream: &mut TcpStream, left: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut more = |left: &mut Vec<u8>| {
        let mut piece = [0; 16 << 10];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        left.extend_from_slice(&piece[..read]);
        Some(())
    };
    let end = loop {
        if let Some(at) = left.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        more(left)?;
    };
    let head = String::from_utf8_lossy(&left[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = end + length.unwrap_or(0);
    while left.len() < whole {
        more(left)?;
    }
    let body = left[end..whole].to_vec();
    left.drain(..whole);
    Some((head, body))
}

// Clients.

/// What is counted over the whole run.
#[derive(Default)]
struct Tally {
    good: AtomicU64,
    misbehaved: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    findings: Mutex<Vec<String>>,
}

impl Tally {
    fn find(&self, finding: String) {
        if let Ok(mut findings) = self.findings.lock()
            && findings.len() < 20
        {
            findings.push(finding);
        }
    }

    /// Judges one answer to somebody who behaves.
    fn judge(&self, asked: &str, expected: &str, status: u16, error: &str, body: &[u8]) {
        let name = error.split(' ').next().unwrap_or_default();
        if status == 200 && body == expected.as_bytes() {
            self.good.fetch_add(1, SeqCst);
        } else if EXPLAINED.contains(&name) {
            if let Ok(mut refused) = self.refused.lock() {
                *refused.entry(name.to_owned()).or_default() += 1;
            }
        } else {
            self.find(format!("{asked} was answered {status} `{error}` {:?}", String::from_utf8_lossy(body)));
        }
    }
}

/// Asks over kept connections of HTTP/1: a GET, and a PUT whose body comes in two pieces.
fn well_behaved(door: SocketAddr, number: u64, over: &AtomicBool, tally: &Tally) {
    let mut rng = Rng::stream(7, number, Purpose::Think);
    let mut asked = 0u64;
    while !over.load(SeqCst) {
        let Ok(mut stream) = TcpStream::connect(door) else {
            tally.find("the door was closed".into());
            return;
        };
        let _ = (stream.set_read_timeout(Some(PATIENCE)), stream.set_nodelay(true));
        let mut left = Vec::new();
        for _ in 0..1 + rng.below(200) {
            asked += 1;
            let path = format!("/{}/{number}-{asked}", ["a", "turn"][rng.below(2) as usize]);
            let body =
                if rng.below(3) == 0 { vec![b'x'; 1 + rng.below(20_000) as usize] } else { Vec::new() };
            let method = if body.is_empty() { "GET" } else { "PUT" };
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: soak\r\ncontent-length: {}\r\n\r\n", body.len());
            let half = body.len() / 2;
            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..half]));
            let sent = sent.and_then(|()| stream.write_all(&body[half..]));
            let Some((head, said)) = sent.ok().and_then(|()| read_message(&mut stream, &mut left)) else {
                tally.find(format!("{method} {path} was not answered"));
                break;
            };
            let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
            let error =
                head.lines().find_map(|line| line.strip_prefix("x-isobar-error: ")).unwrap_or_default();
            let expected = format!("{path} {}", String::from_utf8_lossy(&body));
            tally.judge(&format!("{method} {path}"), &expected, status, error, &said);
            if head.contains("connection: close") || over.load(SeqCst) {
                break;
            }
            std::thread::sleep(Duration::from_millis(rng.below(4)));
        }
    }
}

/// The same over streams.
fn well_behaved_streams(door: SocketAddr, over: &AtomicBool, tally: &Tally) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() else {
        return;
    };
    runtime.block_on(async {
        let mut asked = 0u64;
        while !over.load(SeqCst) {
            let Ok(stream) = tokio::net::TcpStream::connect(door).await else {
                return tally.find("the door was closed to HTTP/2".into());
            };
            let Ok((sender, connection)) = h2::client::handshake(stream).await else {
                return tally.find("no handshake of HTTP/2".into());
            };
            tokio::spawn(async move {
                let _ = connection.await;
            });
            for _ in 0..500 {
                asked += 1;
                let path = format!("/stream/{asked}");
                match tokio::time::timeout(PATIENCE, ask_stream(&sender, &path)).await {
                    Ok(Ok((status, error, body))) => {
                        tally.judge(&format!("stream {path}"), &format!("{path} "), status, &error, &body);
                    }
                    Ok(Err(error)) => {
                        tally.find(format!("stream {path}: {error}"));
                        break;
                    }
                    Err(_) => {
                        tally.find(format!("stream {path} was not answered"));
                        break;
                    }
                }
                if over.load(SeqCst) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
}

async fn ask_stream(
    sender: &h2::client::SendRequest<bytes::Bytes>,
    path: &str,
) -> Result<(u16, String, Vec<u8>), h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let request =
        http::Request::get(format!("http://soak{path}")).body(()).map_err(|_| h2::Reason::INTERNAL_ERROR)?;
    let (response, _) = sender.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let error = response
        .headers()
        .get("x-isobar-error")
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut body = response.into_body();
    let mut said = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        said.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok((status, error, said))
}

/// Everything that people and programs do to a server that they should not.
fn misbehave(door: SocketAddr, number: u64, over: &AtomicBool, tally: &Tally) {
    let mut rng = Rng::stream(8, number, Purpose::Fault);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    while !over.load(SeqCst) {
        let Ok(mut stream) = TcpStream::connect(door) else {
            return tally.find("the door was closed".into());
        };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
        let mut say = |bytes: &[u8]| drop(stream.write_all(bytes));
        // Mostly mistakes, and now and then an attack.
        let kind =
            if rng.below(20) == 0 { 6 + rng.below(2) } else { [0, 1, 2, 3, 4, 5, 8][rng.below(7) as usize] };
        match kind {
            0 => {
                let whole = b"POST /x HTTP/1.1\r\nhost: s\r\ncontent-length: 5\r\n\r\nhello";
                say(&whole[..rng.below(whole.len() as u64) as usize]);
            }
            1 => say(b"GET /slow HTTP/1.1\r\nhost: s\r\nx: "),
            2 => {
                let garbage: Vec<u8> = (0..200).map(|_| rng.below(256) as u8).collect();
                say(&garbage);
            }
            3 => (0..20).for_each(|_| say(b"GET /many HTTP/1.1\r\nhost: s\r\n\r\n")),
            4 => say(&[b"GET / HTTP/1.1\r\nhost: s\r\nx: ".to_vec(), vec![b'x'; 40_000]].concat()),
            5 => say(b"POST / HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
            6 => {
                // Streams opened and reset as fast as they can be written.
                say(preface);
                for id in 0..300u32 {
                    let id = (2 * id + 1).to_be_bytes();
                    let open = [&[0, 0, 9, 1, 5][..], &id, &[0x82, 0x86, 0x84, 0x41, 4], b"soak"].concat();
                    say(&[&open[..], &[0, 0, 4, 3, 0], &id, &[0, 0, 0, 8]].concat());
                }
            }
            7 => {
                say(preface);
                (0..300).for_each(|_| say(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]));
            }
            _ => say(b"GET /never-read HTTP/1.1\r\nhost: s\r\n\r\n"),
        }
        match rng.below(3) {
            0 => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
            1 => drop(stream.shutdown(Shutdown::Write)),
            _ => {
                let _ = stream.read(&mut [0; 512]);
            }
        }
        tally.misbehaved.fetch_add(1, SeqCst);
        std::thread::sleep(Duration::from_millis(rng.below(8)));
    }
}

// The run.

/// The proxy's process, and the two doors it told.
struct Served {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    door: SocketAddr,
    admin: SocketAddr,
}

/// What the proxy holds: resident and asked for, and what it says of itself.
#[derive(Clone, Debug)]
struct Held {
    resident_kib: u64,
    asked_kib: u64,
    timers: u64,
    buffers: u64,
    connections: u64,
    in_flight: u64,
}

impl Served {
    fn start(instances: &[Instance]) -> std::io::Result<Self> {
        let addresses: Vec<String> = instances.iter().map(|it| it.address.to_string()).collect();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", &addresses.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let nothing = || std::io::Error::other("the proxy did not start");
        let mut said = BufReader::new(child.stdout.take().ok_or_else(nothing)?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let doors: Vec<SocketAddr> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let &[door, admin] = doors.as_slice() else { return Err(nothing()) };
        Ok(Self { child, said, door, admin })
    }

    fn held(&mut self) -> Option<Held> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        self.child.stdin.as_mut()?.write_all(b"\n").ok()?;
        let mut asked = String::new();
        self.said.read_line(&mut asked).ok()?;
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nhost: soak\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("isobar_proxy_{name} ")));
            line.and_then(|value| value.parse().ok())
        };
        Some(Held {
            resident_kib: resident.trim().trim_end_matches(" kB").parse().ok()?,
            asked_kib: asked.trim().parse::<u64>().ok()? / 1024,
            timers: of("timers")?,
            buffers: of("buffers_lent")?,
            connections: of("connections")?,
            in_flight: of("requests_in_flight")?,
        })
    }

    /// What is held once nobody is there any more; nothing if that never comes.
    fn at_rest(&mut self) -> Option<Held> {
        // Those who fell silent are let go by time-outs of a second. Runners that are kept for the next streams have a timer
        // each.
        (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(100));
            self.held().filter(|held| held.connections == 0 && held.in_flight == 0 && held.timers <= 600)
        })
    }
}

/// Trouble for this long; the luck is the number's. What was held now and then goes to `rows`.
fn trouble(
    number: u64,
    length: Duration,
    served: &mut Served,
    instances: &[Instance],
    tally: &Tally,
    rows: &mut Vec<(Duration, Held)>,
) {
    let (over, door, began) = (AtomicBool::new(false), served.door, Instant::now());
    std::thread::scope(|scope| {
        let over = &over;
        for client in 0..4 {
            scope.spawn(move || well_behaved(door, 10 * number + client, over, tally));
        }
        for client in 0..3 {
            scope.spawn(move || misbehave(door, 10 * number + client, over, tally));
        }
        scope.spawn(move || well_behaved_streams(door, over, tally));
        let mut rng = Rng::stream(9, number, Purpose::Shuffle);
        let mut next_look = length / 5;
        while began.elapsed() < length {
            // One at a time, so that there is always somebody to go to.
            let victim = &instances[rng.below(INSTANCES as u64) as usize];
            std::thread::sleep(Duration::from_millis(200 + rng.below(300)));
            victim.die();
            std::thread::sleep(Duration::from_millis(100 + rng.below(200)));
            while victim.live().is_err() && began.elapsed() < length {
                std::thread::sleep(Duration::from_millis(20));
            }
            if began.elapsed() >= next_look {
                next_look += (length / 5).max(Duration::from_secs(1));
                match served.held() {
                    Some(held) => rows.push((began.elapsed(), held)),
                    None => tally.find("the proxy does not say how it is".into()),
                }
            }
        }
        over.store(true, SeqCst);
    });
}

fn soak(length: Duration) -> Result<(), Vec<String>> {
    let fail = |error: &dyn std::fmt::Display| vec![error.to_string()];
    let instances: Result<Vec<Instance>, _> = (0..INSTANCES).map(|_| Instance::start()).collect();
    let instances = instances.map_err(|error| fail(&error))?;
    let mut served = Served::start(&instances).map_err(|error| fail(&error))?;
    let tally = Tally::default();
    let began = Instant::now();
    let (mut rows, mut rests) = (Vec::new(), Vec::new());
    for half in 0..2 {
        println!("{}", ["the first half", "the second half"][half as usize]);
        trouble(half, length / 2, &mut served, &instances, &tally, &mut rows);
        for (at, held) in rows.drain(..) {
            println!("{:>5.0} s  {held:?}", at.as_secs_f64());
        }
        match served.at_rest() {
            Some(rest) => {
                println!("at rest  {rest:?}");
                rests.push(rest);
            }
            None => tally.find(format!("something is left over after half {half}: {:?}", served.held())),
        }
    }
    report(&tally, began.elapsed());
    let mut findings = tally.findings.lock().map(|it| it.clone()).unwrap_or_default();
    if let [half, end] = rests.as_slice() {
        let grew = |what: &str, from: u64, to: u64, play: u64| {
            (to > from + from / 10 + play).then(|| format!("{what} grew from {from} to {to}"))
        };
        findings.extend(grew("what is held at rest, in KiB,", half.asked_kib, end.asked_kib, 1_024));
        findings.extend(grew("buffers at rest", half.buffers, end.buffers, 100));
        if length >= LONG {
            findings.extend(grew("resident KiB", half.resident_kib, end.resident_kib, 8_192));
        }
    }
    if tally.good.load(SeqCst) < 10 * length.as_secs() {
        findings.push("too few requests were answered for this to mean anything".into());
    }
    drop(served.child.stdin.take());
    match served.child.wait() {
        Ok(status) if status.success() => {}
        ended => findings.push(format!("the proxy did not end well: {ended:?}")),
    }
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn report(tally: &Tally, took: Duration) {
    println!("{:.0} s, {} reloads", took.as_secs_f64(), took.as_millis() / RELOAD_EVERY.as_millis());
    println!("{} requests answered as asked", tally.good.load(SeqCst));
    println!("{} clients misbehaved", tally.misbehaved.load(SeqCst));
    if let Ok(refused) = tally.refused.lock() {
        println!("refused with a reason that deaths and floods explain: {refused:?}");
    }
}
