//! What a whole system costs to run, and how fast it follows: each figure with its mark, exit 1 if one is missed.
//!
//! `cargo xtask bench up [--quick] [--json] [--out=FILE] [--only=PART]`: in about two minutes, of which most is waiting.
//! `--out` writes the figures as JSON beside the table, with what the machine had to do already: figures of a busy
//! machine are those of a busy machine. It starts the binary named by `ISOBAR_BIN` as a person would,
//! on generated systems, in a folder of its own, and looks at it from outside: the clock, the kernel's accounts, the
//! gateway and the API.

// A bench measures time.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use up::process::{all_processes, is_marked};
use up::state::Folder;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One figure.
struct Mark {
    name: &'static str,
    figure: f64,
    unit: &'static str,
    at_most: f64,
    note: String,
}

impl Mark {
    fn holds(&self) -> bool {
        self.figure <= self.at_most
    }
}

/// A folder with a system in it, and the binary.
struct Place {
    binary: PathBuf,
    folder: PathBuf,
    name: &'static str,
}

impl Place {
    fn new(root: &Path, binary: &Path, name: &'static str, file: &str) -> Result<Self> {
        let place = Self { binary: binary.to_owned(), folder: root.join(name), name };
        std::fs::create_dir_all(&place.folder)?;
        place.write(file)?;
        Ok(place)
    }

    fn write(&self, file: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.join("isobar.yaml"), file)?)
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(words)
            .current_dir(&self.folder)
            .env("ISOBAR_STATE", self.state())
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("isobar {}: {said}", words.join(" ")).into());
        }
        Ok(format!("{}{said}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Starts it; how long until all of it was healthy.
    fn up(&self) -> Result<Duration> {
        let started = Instant::now();
        self.run(&["up", "-d"])?;
        Ok(started.elapsed())
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["ps", "--json"])?)?)
    }

    fn address(&self, kind: &str) -> Result<String> {
        let status = self.status()?;
        let found = status["addresses"].as_array().into_iter().flatten().find(|it| it["kind"] == kind);
        let url = found.and_then(|it| it["url"].as_str()).ok_or("no such address")?;
        Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
    }

    /// All processes of the run: isobar's own, whose arguments name its parts, and the services'.
    fn processes(&self) -> Result<Vec<i32>> {
        let inner = self.status()?["pid"].as_i64().unwrap_or(0) as i32;
        let all = all_processes();
        let outer = all.iter().find(|it| it.pid == inner).map_or(0, |it| it.parent);
        let mark = format!("{}/", Folder::new(&self.state(), self.name).mark());
        let ours = |it: &&up::process::Found| {
            it.pid == inner || it.pid == outer || it.parent == outer || is_marked(it.pid, &mark)
        };
        Ok(all.iter().filter(ours).map(|it| it.pid).collect())
    }

    /// Memory of all of them, what is shared counted once.
    fn megabytes(&self) -> Result<f64> {
        let mut kib = 0.0;
        for pid in self.processes()? {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
            kib += pss.and_then(|it| it.trim().parse::<f64>().ok()).unwrap_or(0.0);
        }
        Ok(kib / 1024.0)
    }

    fn cpu(&self) -> Result<Duration> {
        let pids: Vec<u32> = self.processes()?.into_iter().map(|pid| pid as u32).collect();
        let inner = self.status()?["pid"].as_u64().unwrap_or(0) as u32;
        // The outer one is a leader whose tree is everything.
        let all = up::usage::of_trees(&pids);
        let most = all.values().map(|it| it.cpu_nanos).max().unwrap_or(0);
        let own = all.get(&inner).map_or(0, |it| it.cpu_nanos);
        Ok(Duration::from_nanos(most.max(own)))
    }

    /// The share of one core that it took while `during` ran.
    fn cores(&self, during: impl FnOnce() -> Result<()>) -> Result<f64> {
        let (before, started) = (self.cpu()?, Instant::now());
        during()?;
        let spent = self.cpu()?.saturating_sub(before);
        Ok(spent.as_secs_f64() / started.elapsed().as_secs_f64())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

/// `services` of three instances each, in chains of five that begin at the gateway's service.
fn generated(name: &str, services: usize, port: u16, more: &str) -> String {
    let mut file = format!("isobar: 1\nsystem: {name}\nservices:\n");
    for n in 0..services {
        let calls = if n % 5 == 4 || n + 1 == services {
            String::new()
        } else {
            format!(", calls: ['s{:03} \"GET /\"']", n + 1)
        };
        let _ = writeln!(file, "  s{n:03}: {{replicas: 3, operations: {{\"GET /\": {{work: 1ms{calls}}}}}}}");
    }
    let _ = write!(
        file,
        "gateways:\n  edge:\n    listen: \"127.0.0.1:{port}\"\n    routes:\n{more}      - {{path: /, to: s000}}\n"
    );
    file
}

/// One connection that is kept, as clients do.
struct Client {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// The status; an error is 0.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let answer = self.try_ask(method, path, body);
        if answer.is_err() {
            self.stream = None;
        }
        answer.unwrap_or(0)
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &str) -> Result<u16> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().ok_or("connected above")?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n{body}",
            self.address
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or("no status")?.parse()?;
        let (mut length, mut closes) = (0, false);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            closes |= header == "connection: close";
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if closes {
            self.stream = None;
        }
        Ok(status)
    }
}

/// What a load met.
#[derive(Default)]
struct Met {
    asked: AtomicU64,
    failed: AtomicU64,
    /// Asked later than they should have been by more than a tenth of a second: the load was not what it says.
    late: AtomicU64,
}

/// Asks at a fixed rate from many connections until told to stop, each request at its own appointed time.
fn load(
    address: &str,
    rate: u64,
    connections: u64,
    stop: &AtomicBool,
    met: &Met,
    ask: impl Fn(&mut Client, u64) -> u16 + Sync,
) {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for lane in 0..connections {
            let ask = &ask;
            scope.spawn(move || {
                let mut client = Client::new(address);
                for turn in 0.. {
                    let nth = turn * connections + lane;
                    let due = Duration::from_nanos(nth * 1_000_000_000 / rate);
                    if let Some(wait) = due.checked_sub(started.elapsed()) {
                        std::thread::sleep(wait);
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if started.elapsed() > due + Duration::from_millis(100) {
                        met.late.fetch_add(1, Ordering::Relaxed);
                    }
                    met.asked.fetch_add(1, Ordering::Relaxed);
                    if ask(&mut client, nth) != 200 {
                        met.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > Duration::from_secs(60) {
            return Err(format!("{what}: not within a minute").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(started.elapsed())
}

fn sixty(root: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    let file = |more: &str| generated("sixty", 20, 18_311, more);
    let place = Place::new(root, binary, "sixty", &file(""))?;
    let took = place.up()?;
    let mut mark = |name, figure, unit, at_most, note: String| {
        marks.push(Mark { name, figure, unit, at_most, note });
    };
    mark(
        "60 synthetic instances healthy",
        took.as_secs_f64(),
        "s",
        2.0,
        "from the command to its return".into(),
    );
    // The first seconds are those of the start; idle is what comes after.
    std::thread::sleep(Duration::from_secs(3));
    let memory = place.megabytes()?;
    let processes = place.processes()?.len();
    mark("their memory", memory, "MB", 150.0, format!("{processes} processes, shared pages once"));
    let idle = place.cores(|| {
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    })?;
    mark("idle, of one core", idle * 100.0, "%", 2.0, "over 10 s".into());

    let gateway = place.address("gateway")?;
    let mut client = Client::new(&gateway);
    let mut worst = Duration::ZERO;
    for round in 0..5 {
        let path = format!("/ping{round}");
        place.write(&file(&format!("      - {{exact: {path}, reply: {{status: 200, body: pong}}}}\n")))?;
        worst = worst.max(until("the edit", || {
            Ok(client.ask("GET", &path, "") == 200 && {
                // The path of the round before is the old file's.
                round == 0 || client.ask("GET", &format!("/ping{}", round - 1), "") != 0
            })
        })?);
    }
    mark("edit of the file in force", worst.as_secs_f64(), "s", 1.0, "the slowest of 5".into());
    Ok(())
}

fn replacement(root: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    // Real processes where there is a Python to run, for they take a moment to start and to go.
    let python = Command::new("python3").arg("--version").output().is_ok_and(|it| it.status.success());
    let cart = if python {
        "{replicas: 2, health: {path: /}, run: {command: python3 cart.py}}"
    } else {
        "{replicas: 2, operations: {\"GET /\": 1ms}}"
    };
    let file = |size: &str| {
        format!(
            "isobar: 1\nsystem: swap\nservices:\n  web: {{replicas: 2, operations: {{\"GET /\": {{work: 1ms, calls: [cart], response: {size}}}}}}}\n  cart: {cart}\ngateways:\n  edge: {{listen: \"127.0.0.1:18312\", routes: [{{path: /, to: web}}]}}\n"
        )
    };
    let place = Place::new(root, binary, "swap", &file("100B"))?;
    std::fs::write(place.folder.join("cart.py"), CART)?;
    place.up()?;
    let gateway = place.address("gateway")?;
    let restarts = |service: &str| -> Result<u64> {
        let status = place.status()?;
        let all = status["services"].as_array().into_iter().flatten().filter(|it| it["name"] == service);
        let each = all.flat_map(|it| it["instances"].as_array()).flatten();
        Ok(each.filter(|it| it["state"] == "ready").filter_map(|it| it["restarts"].as_u64()).sum())
    };
    let (stop, met) = (AtomicBool::new(false), Met::default());
    std::thread::scope(|scope| -> Result<()> {
        let loading =
            scope.spawn(|| load(&gateway, 500, 16, &stop, &met, |client, _| client.ask("GET", "/", "")));
        let swapped = (|| {
            std::thread::sleep(Duration::from_secs(1));
            place.run(&["restart", "cart"])?;
            until("cart is replaced", || Ok(restarts("cart")? == 2))?;
            place.run(&["restart", "web"])?;
            until("web is replaced", || Ok(restarts("web")? == 2))?;
            place.write(&file("200B"))?;
            until("the new web", || Ok(restarts("web")? == 4))?;
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let _ = loading.join();
        swapped
    })?;
    let (asked, late) = (met.asked.load(Ordering::Relaxed), met.late.load(Ordering::Relaxed));
    marks.push(Mark {
        name: "failed while instances are replaced",
        figure: met.failed.load(Ordering::Relaxed) as f64,
        unit: "requests",
        at_most: 0.0,
        note: format!(
            "of {asked} at 500/s, {late} late; {}",
            if python { "Python behind synthetic" } else { "synthetic" }
        ),
    });
    Ok(())
}

const CART: &str = "import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Cart(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '4')
        self.end_headers()
        self.wfile.write(b'cart')
    def log_message(self, *words):
        pass

ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Cart).serve_forever()
";

fn three_hundred(root: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    let place = Place::new(root, binary, "many", &generated("many", 100, 18_313, ""))?;
    let took = place.up()?;
    let memory = place.megabytes()?;
    marks.push(Mark {
        name: "300 synthetic instances healthy",
        figure: took.as_secs_f64(),
        unit: "s",
        at_most: 10.0,
        note: format!("{memory:.0} MB"),
    });
    Ok(())
}

fn check_ins(root: &Path, binary: &Path, marks: &mut Vec<Mark>) -> Result<()> {
    const FLEET: u64 = 10_000;
    let file = "isobar: 1\nsystem: fleet\nservices:\n  web: {operations: {\"GET /\": {calls: [fleet]}}}\n  fleet: {health: none, replicas: 0, autoscale: {min: 0, max: 10, hpa: {}}, operations: {\"GET /\": 1ms}}\n";
    let place = Place::new(root, binary, "fleet", file)?;
    place.up()?;
    let api = place.address("api")?;
    let ask = |client: &mut Client, nth: u64| {
        let n = nth % FLEET;
        let body = format!(
            "{{\"address\":\"127.0.{}.{}:9\",\"version\":\"v1\",\"zone\":\"a\",\"region\":\"local\",\"team\":\"us\"}}",
            n / 250,
            n % 250 + 1
        );
        client.ask("PUT", &format!("/v1/instances/fleet/{n}?lease_seconds=60"), &body)
    };
    let run = |rate: u64, seconds: u64| -> Met {
        let (stop, met) = (AtomicBool::new(false), Met::default());
        std::thread::scope(|scope| {
            scope.spawn(|| load(&api, rate, 8, &stop, &met, ask));
            std::thread::sleep(Duration::from_secs(seconds));
            stop.store(true, Ordering::Relaxed);
        });
        met
    };
    // Everybody comes in; then the same ones say it again and again.
    run(1_000, 11);
    std::thread::sleep(Duration::from_secs(2));
    let mut met = Met::default();
    let cores = place.cores(|| {
        met = run(1_000, 10);
        Ok(())
    })?;
    let (asked, failed) = (met.asked.load(Ordering::Relaxed), met.failed.load(Ordering::Relaxed));
    let mut client = Client::new(&api);
    if client.ask("GET", "/v1/status", "") != 200 || failed > 0 {
        return Err(format!("{failed} of {asked} check-ins failed").into());
    }
    marks.push(Mark {
        name: "1,000 check-ins/s of 10,000 instances",
        figure: cores * 100.0,
        unit: "% of a core",
        at_most: 10.0,
        note: format!(
            "{asked} in 10 s, {} late, {:.0} MB",
            met.late.load(Ordering::Relaxed),
            place.megabytes()?
        ),
    });
    Ok(())
}

/// Runs one system and adds what it measured.
type Part = fn(&Path, &Path, &mut Vec<Mark>) -> Result<()>;

fn main() -> ExitCode {
    let Some(binary) = std::env::var_os("ISOBAR_BIN").map(PathBuf::from) else {
        eprintln!("set ISOBAR_BIN to the binary, or use `cargo xtask bench up`");
        return ExitCode::from(2);
    };
    let root = match tempfile::tempdir() {
        Ok(root) => root,
        Err(error) => {
            eprintln!("no folder to work in: {error}");
            return ExitCode::from(2);
        }
    };
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let value = |key: &str| asked.iter().find_map(|it| it.strip_prefix(key));
    let (only, out) = (value("--only="), value("--out="));
    let mut marks = Vec::new();
    let mut broken = Vec::new();
    let parts: [(&str, Part); 4] = [
        ("sixty", sixty),
        ("replacement", replacement),
        ("three_hundred", three_hundred),
        ("check_ins", check_ins),
    ];
    if let Some(unknown) = only.filter(|only| parts.iter().all(|(name, _)| name != only)) {
        let names = parts.map(|(name, _)| name).join(", ");
        eprintln!("no part is called `{unknown}`; there are {names}");
        return ExitCode::from(2);
    }
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    for (name, part) in parts.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        if let Err(error) = part(root.path(), &binary, &mut marks) {
            broken.push(format!("{name}: {error}"));
        }
    }
    let rows: Vec<Value> = marks
        .iter()
        .map(|it| json!({"name": it.name, "figure": it.figure, "unit": it.unit, "at_most": it.at_most, "pass": it.holds(), "note": it.note}))
        .collect();
    let told = json!({"load_before": busy.trim(), "marks": rows, "broken": broken});
    if asked.iter().any(|it| it == "--json") {
        println!("{told}");
    } else {
        for it in &marks {
            let verdict = if it.holds() { "ok  " } else { "MISS" };
            println!(
                "{verdict} {:<38} {:>8.2} {:<11} mark {:<6} {}",
                it.name, it.figure, it.unit, it.at_most, it.note
            );
        }
    }
    if let Some(out) = out
        && let Err(error) = std::fs::write(out, format!("{told:#}\n"))
    {
        broken.push(format!("cannot write {out}: {error}"));
    }
    broken.iter().for_each(|it| eprintln!("broken: {it}"));
    if broken.is_empty() && marks.iter().all(Mark::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
