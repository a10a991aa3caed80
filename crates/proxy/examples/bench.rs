//! Us against the peers, side by side: `bench [--rounds N] [--seconds N] [--only CASE,..] [--json FILE]`.
//!
//! The proxy under test has one core, load and back end the other. What is compared is processor time per request, from
//! the operating system, as the median of alternating rounds: wall time on a shared machine says little, and alternating
//! lets what disturbs one disturb all. Peers that are not installed are skipped by name.
//!
//! It needs `nginx` (as back end), `wrk`, `h2load` and `taskset`; peers are `haproxy`, `nginx` and `envoy`.

#![allow(clippy::print_stdout, reason = "its tables are its output")]

#[path = "bench/grpc.rs"]
mod grpc;
#[path = "bench/instructions.rs"]
mod instructions;
#[path = "bench/open_loop.rs"]
mod open_loop;

use proxy::config::{
    Certificate, Config, Edge, Listener, ListenerKind, PathMatch, Protocol, Route, Service, TlsServer,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

const PROXY_CORE: &str = "0";
const LOAD_CORE: &str = "1";
const BACK_H1: u16 = 19_001;
const BACK_H2: u16 = 19_002;
const BACK_GRPC: u16 = 19_004;
const FRONT: u16 = 19_100;

/// One thing to measure: how the proxies are set up and how the load is made.
struct Case {
    name: &'static str,
    mark: &'static str,
    mode: &'static str,
    load: fn(&Paths, u32) -> Command,
}

fn wrk(seconds: u32, url: &str, more: &[&str]) -> Command {
    let mut command = pinned(LOAD_CORE, "wrk");
    command.args(["-t1", "-c64", &format!("-d{seconds}")]).args(more).arg(url);
    command
}

const CASES: &[Case] = &[
    Case {
        name: "h1-128B",
        mark: "<= 0.90 haproxy, <= 0.40 envoy",
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/", &[]),
    },
    Case {
        name: "h1-1KiB",
        mark: "",
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/1k", &[]),
    },
    Case {
        name: "h1-64KiB",
        mark: "",
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/64k", &[]),
    },
    Case {
        name: "h1-1MiB",
        mark: "",
        mode: "h1",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/1m", &[]),
    },
    Case {
        name: "h1-post-4KiB",
        mark: "",
        mode: "h1",
        load: |paths, s| {
            wrk(s, "http://127.0.0.1:19100/", &["-s", &paths.dir.join("post.lua").display().to_string()])
        },
    },
    Case {
        name: "h2-h2-8x32",
        mark: "<= 1.0 haproxy, <= 0.25 envoy",
        mode: "h2",
        load: |_, s| {
            let mut command = pinned(LOAD_CORE, "h2load");
            command.args(["-c8", "-m32", "-t1", &format!("-D{s}"), "http://127.0.0.1:19100/"]);
            command
        },
    },
    Case { name: "grpc-unary", mark: "", mode: "grpc", load: |paths, s| grpc_load(paths, s, "/unary") },
    Case { name: "grpc-stream-50", mark: "", mode: "grpc", load: |paths, s| grpc_load(paths, s, "/stream") },
    Case {
        name: "tls13-new",
        mark: "",
        mode: "tls",
        load: |_, s| wrk(s, "https://127.0.0.1:19100/", &["-H", "Connection: close"]),
    },
    Case {
        name: "tls13-h1",
        mark: "<= 1.0 haproxy",
        mode: "tls",
        load: |_, s| wrk(s, "https://127.0.0.1:19100/", &[]),
    },
    Case {
        name: "tcp-64KiB",
        mark: "<= 1.0 haproxy",
        mode: "tcp",
        load: |_, s| wrk(s, "http://127.0.0.1:19100/files/64k", &[]),
    },
];

/// Many calls at once, each with a message of a hundred bytes.
fn grpc_load(paths: &Paths, seconds: u32, path: &str) -> Command {
    let mut command = pinned(LOAD_CORE, "h2load");
    let message = paths.dir.join("message").display().to_string();
    command.args(["-c8", "-m32", "-t1", &format!("-D{seconds}"), "-d", &message]);
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    command.arg(format!("http://127.0.0.1:{FRONT}{path}"));
    command
}

struct Paths {
    dir: PathBuf,
    this: PathBuf,
}

fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// A child that is ended with us, by the id we started it under.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command, port: u16) -> Fallible<Running> {
    let running = Running(command.stdout(Stdio::null()).spawn()?);
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(running);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(format!("nothing listens on {port}").into())
}

/// Processor time of a process so far, in microseconds, user and system.
fn cpu_us(pid: u32) -> Fallible<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold spaces; what follows it does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11).ok_or("no utime")?.parse::<u64>()?
        + fields.get(12).ok_or("no stime")?.parse::<u64>()?;
    Ok(ticks * 10_000)
}

fn resident_kib(pid: u32) -> Fallible<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The command that runs a peer in a mode, if we know how and it is installed.
fn peer(name: &str, mode: &str, paths: &Paths) -> Option<Command> {
    let installed = |program: &str| {
        let path = std::env::var("PATH").unwrap_or_default();
        path.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
    };
    let file = |name: &str, text: &str| {
        let path = paths.dir.join(name);
        std::fs::write(&path, text).ok().map(|()| path)
    };
    let pem = paths.dir.join("both.pem");
    match name {
        "isobar" => {
            let mut command = pinned(PROXY_CORE, &paths.this.display().to_string());
            command.arg("serve").arg(mode).arg(&paths.dir);
            Some(command)
        }
        "haproxy" => {
            installed("haproxy")
                .or_else(|| Some(PathBuf::from("/usr/sbin/haproxy")).filter(|path| path.is_file()))?;
            let (kind, bind, server) = match mode {
                "h1" => ("http", String::new(), format!("127.0.0.1:{BACK_H1}")),
                "h2" => ("http", " proto h2".into(), format!("127.0.0.1:{BACK_H2} proto h2")),
                "grpc" => ("http", " proto h2".into(), format!("127.0.0.1:{BACK_GRPC} proto h2")),
                "tls" => (
                    "http",
                    format!(" ssl crt {} alpn http/1.1", pem.display()),
                    format!("127.0.0.1:{BACK_H1}"),
                ),
                "tcp" => ("tcp", String::new(), format!("127.0.0.1:{BACK_H1}")),
                _ => return None,
            };
            let splice = if mode == "tcp" { "  option splice-auto\n" } else { "" };
            let text = format!(
                "global\n  nbthread 1\n  maxconn 4000\n  tune.h2.max-concurrent-streams 1000\ndefaults\n  mode {kind}\n{splice}  timeout connect 5s\n  \
                 timeout client 60s\n  timeout server 60s\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{FRONT}{bind}\n  \
                 default_backend b\nbackend b\n  server s {server}\n"
            );
            let path = file("haproxy.cfg", &text)?;
            let mut command = pinned(PROXY_CORE, "haproxy");
            command.arg("-db").arg("-f").arg(path);
            Some(command)
        }
        "nginx" if mode == "h1" || mode == "tls" => {
            let tls = match mode {
                "tls" => format!(
                    "ssl_certificate {d}/c.pem; ssl_certificate_key {d}/k.pem; ssl_protocols TLSv1.3;",
                    d = paths.dir.display()
                ),
                _ => String::new(),
            };
            let ssl = if mode == "tls" { " ssl" } else { "" };
            let text = nginx(
                paths,
                "peer",
                &format!(
                    "upstream u {{ server 127.0.0.1:{BACK_H1}; keepalive 256; keepalive_requests 1000000000; }} server {{ listen \
                     127.0.0.1:{FRONT}{ssl}; {tls} location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header \
                     Connection \"\"; }} }}"
                ),
            );
            let path = file("nginx-peer.conf", &text)?;
            let mut command = pinned(PROXY_CORE, "nginx");
            command.arg("-c").arg(path);
            Some(command)
        }
        "envoy" if matches!(mode, "h1" | "h2" | "grpc") => {
            let envoy = std::env::var("ENVOY").ok().map(PathBuf::from).or_else(|| installed("envoy"))?;
            let (back, options) = match mode {
                "h2" | "grpc" => (
                    if mode == "h2" { BACK_H2 } else { BACK_GRPC },
                    "\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
                     \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
                     explicit_http_config: {http2_protocol_options: {}}",
                ),
                _ => (BACK_H1, ""),
            };
            let text = format!(
                "static_resources:\n  listeners:\n  - address: {{socket_address: {{address: 127.0.0.1, port_value: {FRONT}}}}}\n    \
                 filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
                 \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
                 stat_prefix: f\n          codec_type: AUTO\n          route_config: {{virtual_hosts: [{{name: a, domains: [\"*\"], routes: \
                 [{{match: {{prefix: /}}, route: {{cluster: b}}}}]}}]}}\n          http_filters:\n          - name: \
                 envoy.filters.http.router\n            typed_config: {{\"@type\": \
                 type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n  clusters:\n  - name: b\n    type: STATIC{options}\n    \
                 load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: \
                 127.0.0.1, port_value: {back}}}}}}}}}]}}]}}\n"
            );
            let path = file("envoy.yaml", &text)?;
            let mut command = pinned(PROXY_CORE, &envoy.display().to_string());
            command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"]).arg(path);
            Some(command)
        }
        _ => None,
    }
}

/// An nginx configuration whose files all lie in our directory.
fn nginx(paths: &Paths, name: &str, http: &str) -> String {
    let d = paths.dir.display();
    format!(
        "worker_processes 1; daemon off; master_process off; pid {d}/{name}.pid; error_log /dev/null; events {{ worker_connections 8192; }} \
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; \
         fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5; {http} }}\n"
    )
}

/// Requests that a load generator says it completed.
fn completed(output: &str) -> Option<u64> {
    output.lines().find_map(|line| {
        let line = line.trim();
        if let Some((count, _)) = line.split_once(" requests in ") {
            return count.parse().ok();
        }
        // h2load: "requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, ..."
        let rest = line.strip_prefix("requests: ")?;
        rest.split(", ").find_map(|part| part.strip_suffix(" succeeded")?.parse().ok())
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor time per request of one proxy under one load.
fn round(case: &Case, name: &str, paths: &Paths, seconds: u32) -> Fallible<Option<f64>> {
    let Some(command) = peer(name, case.mode, paths) else { return Ok(None) };
    let running = start(command, FRONT)?;
    let pid = running.0.id();
    // Connections are made and caches are warm before the clock starts.
    (case.load)(paths, 1).output()?;
    let before = cpu_us(pid)?;
    let output = (case.load)(paths, seconds).output()?;
    let used = cpu_us(pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = completed(&text).filter(|count| *count > 0).ok_or_else(|| format!("no requests: {text}"))?;
    Ok(Some(used as f64 / count as f64))
}

/// Our side, as a child of ours.
fn serve(mode: &str, dir: &Path) -> Fallible<()> {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut routes = vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")];
    let mut service = Service::http1("api", &[address(BACK_H1)]);
    if mode == "h2" {
        service = Service::http1("api", &[address(BACK_H2)]);
        service.protocol = Protocol::Http2;
    }
    if mode == "grpc" {
        service = Service::http1("api", &[address(BACK_GRPC)]);
        service.protocol = Protocol::Http2;
    }
    if mode.starts_with("overload") {
        service = Service::http1("api", &[address(19_003)]);
    }
    if mode == "routes" {
        routes.extend(
            (0..5_000).map(|n| {
                Route::forward(&format!("r{n}"), PathMatch::Prefix(format!("/r/{n:04}")), "edge->api")
            }),
        );
    }
    let mut listener = Listener::http("edge", address(FRONT), routes);
    match mode {
        "tls" => {
            let certificates = vec![Certificate { chain: dir.join("c.pem"), key: dir.join("k.pem") }];
            listener.tls = Some(TlsServer { certificates, client_roots: None, client_required: false });
        }
        "tcp" => listener.kind = ListenerKind::Tcp { edge: "edge->api".into() },
        _ => {}
    }
    let config = Config {
        services: vec![Arc::new(service)],
        edges: vec![Arc::new(Edge::new("edge", "api", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener)],
        ..Config::default()
    };
    let options =
        proxy::Options { workers: 1, admin: Some(address(FRONT + 1)), seed: 1, ..Default::default() };
    let proxy = proxy::Proxy::start(config, options)?;
    while !proxy.is_drained() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The instance that the overload case asks too much of: ten at a time, ten milliseconds each, and it works on for
/// callers who have left.
fn overload_upstream() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 19_003)).await?;
        let slots = Arc::new(tokio::sync::Semaphore::new(10));
        loop {
            let (stream, _) = listener.accept().await?;
            let slots = slots.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let (mut read, write) = stream.into_split();
                let write = Arc::new(tokio::sync::Mutex::new(write));
                let mut buffer = vec![0; 4096];
                // One request per read: the proxy does not pipeline.
                while let Ok(count) = read.read(&mut buffer).await {
                    if count == 0 {
                        return;
                    }
                    let (slots, write) = (slots.clone(), write.clone());
                    tokio::spawn(async move {
                        let _slot = slots.acquire_owned().await;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        let _ = write
                            .lock()
                            .await
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                            .await;
                    });
                }
            });
        }
    })
}

/// Open loop: so many requests a second whatever happens, each given up after a second. Prints how many were answered
/// with 200 in time, per second, in the second half of the run.
fn overload_load(rate: u64, seconds: u64) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let good = runtime.block_on(async {
        use std::sync::atomic::{AtomicU64, Ordering};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let good = Arc::new(AtomicU64::new(0));
        let idle = Arc::new(std::sync::Mutex::new(Vec::<tokio::net::TcpStream>::new()));
        let began = Instant::now();
        let half = Duration::from_secs(seconds) / 2;
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let mut sent = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            tick.tick().await;
            let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
            for _ in sent..due {
                let (good, idle) = (good.clone(), idle.clone());
                tokio::spawn(async move {
                    let counted = began.elapsed() >= half;
                    let call = async {
                        let kept = idle.lock().ok()?.pop();
                        let mut stream = match kept {
                            Some(stream) => stream,
                            None => tokio::net::TcpStream::connect(("127.0.0.1", FRONT)).await.ok()?,
                        };
                        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
                        let mut buffer = [0; 4096];
                        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
                        idle.lock().ok()?.push(stream);
                        buffer[..read].starts_with(b"HTTP/1.1 200").then_some(())
                    };
                    let answered =
                        matches!(tokio::time::timeout(Duration::from_secs(1), call).await, Ok(Some(())));
                    if answered && counted {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            sent = due;
        }
        good.load(Ordering::Relaxed) as f64 / half.as_secs_f64()
    });
    println!("{good}");
    Ok(())
}

/// What the instance can do when it is asked for no more: twenty callers, each with one request at a time, straight to it.
/// Timers round up, so this is what the goodput is compared with and not what ten slots of ten milliseconds promise.
fn overload_capacity(seconds: u64) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let done = runtime.block_on(async {
        let callers: Vec<_> = (0..20)
            .map(|_| {
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut done = 0u64;
                    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", 19_003)).await else {
                        return 0;
                    };
                    let began = Instant::now();
                    let mut buffer = [0; 4096];
                    while began.elapsed() < Duration::from_secs(seconds) {
                        if stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err() {
                            break;
                        }
                        match stream.read(&mut buffer).await {
                            Ok(read) if read > 0 => done += 1,
                            _ => break,
                        }
                    }
                    done
                })
            })
            .collect();
        let mut sum = 0;
        for caller in callers {
            sum += caller.await.unwrap_or(0);
        }
        sum
    });
    println!("{}", done as f64 / seconds as f64);
    Ok(())
}

/// Goodput under three times the capacity, as a share of it.
fn overload(paths: &Paths, mode: &str, seconds: u64) -> Fallible<f64> {
    let this = paths.this.display().to_string();
    let mut upstream = pinned(LOAD_CORE, &this);
    upstream.arg("overload-upstream");
    let _upstream = start(upstream, 19_003)?;
    let capacity = pinned(LOAD_CORE, &this).args(["overload-capacity", "3"]).output()?;
    let capacity: f64 = String::from_utf8_lossy(&capacity.stdout).trim().parse()?;
    let command = peer("isobar", mode, paths).ok_or("ourselves")?;
    let _proxy = start(command, FRONT)?;
    let mut load = pinned(LOAD_CORE, &this);
    let output = load.args(["overload-load", "3000", &seconds.to_string()]).output()?;
    let good: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    println!("overload       {good:.0} of {capacity:.0} requests a second were answered in time");
    Ok(good / capacity)
}

/// Resident memory: empty, with 5,000 routes, and per idle connection.
fn memory(paths: &Paths) -> Fallible<(u64, u64, f64)> {
    let settle = Duration::from_millis(700);
    let routes = {
        let running = start(peer("isobar", "routes", paths).ok_or("ourselves")?, FRONT)?;
        std::thread::sleep(settle);
        resident_kib(running.0.id())?
    };
    let running = start(peer("isobar", "h1", paths).ok_or("ourselves")?, FRONT)?;
    std::thread::sleep(settle);
    let empty = resident_kib(running.0.id())?;
    let mut idle = Vec::new();
    for at in 0..10_000u32 {
        // One loopback address has ports for a fraction of this only where they are few.
        let mut stream =
            TcpStream::connect(("127.0.0.1", FRONT)).map_err(|error| format!("connection {at}: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut buffer = [0; 1024];
        if stream.read(&mut buffer)? == 0 {
            return Err(format!("connection {at} was closed").into());
        }
        idle.push(stream);
    }
    std::thread::sleep(settle);
    let full = resident_kib(running.0.id())?;
    Ok((empty, routes, (full.saturating_sub(empty)) as f64 / idle.len() as f64))
}

/// What each proxy adds to p50 and p99 at 5,000 requests a second, in microseconds: medians of alternating rounds, less
/// what the back end takes by itself.
fn latencies(paths: &Paths, rounds: usize, seconds: u32) -> Fallible<Vec<(&'static str, f64, f64)>> {
    let this = paths.this.display().to_string();
    let ask = |port: u16| -> Fallible<(f64, f64)> {
        let mut load = pinned(LOAD_CORE, &this);
        load.args(["latencies", &port.to_string(), "5000", &(seconds + 1).to_string()]);
        let output = load.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (p50, p99) = text.trim().split_once(' ').ok_or("no latencies")?;
        Ok((p50.parse()?, p99.parse()?))
    };
    let mut samples: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..rounds {
        for name in ["none", "isobar", "haproxy"] {
            let running = match name {
                "none" => None,
                name => match peer(name, "h1", paths) {
                    Some(command) => Some(start(command, FRONT)?),
                    None => continue,
                },
            };
            let (p50, p99) = ask(if running.is_some() { FRONT } else { BACK_H1 })?;
            let row = samples.entry(name).or_default();
            row.0.push(p50);
            row.1.push(p99);
        }
    }
    let mut of = |name: &str| samples.get_mut(name).map(|(p50, p99)| (median(p50), median(p99)));
    let (base50, base99) = of("none").ok_or("no back end")?;
    let added = ["isobar", "haproxy"].into_iter().filter_map(|name| {
        let (p50, p99) = of(name)?;
        Some((name, p50 - base50, p99 - base99))
    });
    Ok(added.collect())
}

/// The last of 5,000 routes against the first: processor time per request, the median of alternating rounds.
fn last_route(paths: &Paths, rounds: usize, seconds: u32) -> Fallible<f64> {
    let running = start(peer("isobar", "routes", paths).ok_or("ourselves")?, FRONT)?;
    let pid = running.0.id();
    let mut samples = [Vec::new(), Vec::new()];
    for at in 0..rounds * 2 + 2 {
        let url = ["http://127.0.0.1:19100/r/0000", "http://127.0.0.1:19100/r/4999"][at % 2];
        let before = cpu_us(pid)?;
        let output = wrk(seconds, url, &[]).output()?;
        let used = cpu_us(pid)? - before;
        let count = completed(&String::from_utf8_lossy(&output.stdout)).ok_or("no requests")?;
        // The first of each warms up.
        if at >= 2 {
            samples[at % 2].push(used as f64 / count as f64);
        }
    }
    let [mut first, mut last] = samples;
    Ok(median(&mut last) / median(&mut first))
}

/// From the call that changes one of 5,000 routes until every worker runs it, under load: median and p99 in
/// milliseconds, and requests that failed meanwhile.
fn reloads(paths: &Paths) -> Fallible<(f64, f64, u64)> {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut routes: Vec<Arc<Route>> = (0..5_000)
        .map(|n| {
            Arc::new(Route::forward(&format!("r{n}"), PathMatch::Prefix(format!("/r/{n:04}")), "edge->api"))
        })
        .collect();
    let mut listener = Listener::http("edge", address(FRONT), Vec::new());
    listener.routes.clone_from(&routes);
    let mut config = Config {
        services: vec![Arc::new(Service::http1("api", &[address(BACK_H1)]))],
        edges: vec![Arc::new(Edge::new("edge", "api", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener.clone())],
        ..Config::default()
    };
    let options = proxy::Options { workers: 1, admin: None, seed: 1, ..Default::default() };
    let proxy = proxy::Proxy::start(config.clone(), options)?;
    let _ = paths;
    let load = wrk(6, "http://127.0.0.1:19100/r/0007", &[]).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let mut took = Vec::new();
    for n in 0..200 {
        let mut route = (*routes[4_321]).clone();
        route.rewrite.request.set = vec![("x-change".into(), n.to_string())];
        routes[4_321] = Arc::new(route);
        listener.routes.clone_from(&routes);
        config.listeners[0] = Arc::new(listener.clone());
        let began = Instant::now();
        proxy.reload(config.clone())?;
        while !proxy.is_applied() {
            // Looking without a pause would take the core from the worker that is waited for.
            std::thread::sleep(Duration::from_micros(100));
        }
        took.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(15));
    }
    let output = load.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: ")?.parse().ok())
        .unwrap_or(0);
    took.sort_by(f64::total_cmp);
    Ok((took[took.len() / 2], took[took.len() * 99 / 100], failed))
}

fn prepare(paths: &Paths) -> Fallible<()> {
    std::fs::create_dir_all(paths.dir.join("files"))?;
    for (name, size) in [("1k", 1 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
        std::fs::write(paths.dir.join("files").join(name), vec![b'x'; size])?;
    }
    std::fs::write(paths.dir.join("message"), [0; 105])?;
    let body = "x".repeat(4 << 10);
    std::fs::write(paths.dir.join("post.lua"), format!("wrk.method = \"POST\"\nwrk.body = \"{body}\"\n"))?;
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(paths.dir.join("k.pem"))
        .arg("-out")
        .arg(paths.dir.join("c.pem"))
        .stderr(Stdio::null())
        .status();
    if made.is_ok_and(|status| status.success()) {
        let both =
            [std::fs::read(paths.dir.join("c.pem"))?, std::fs::read(paths.dir.join("k.pem"))?].concat();
        std::fs::write(paths.dir.join("both.pem"), both)?;
    }
    let text = "0".repeat(128);
    let files = paths.dir.join("files");
    let back = |name: &str, listen: &str| -> Fallible<()> {
        let http = format!(
            "server {{ listen 127.0.0.1:{listen} backlog=4096; http2_max_concurrent_streams 1000; location / {{ return 200 \"{text}\"; }} \
             location /files/ {{ alias {}/; }} }}",
            files.display()
        );
        Ok(std::fs::write(paths.dir.join(name), nginx(paths, name, &http))?)
    };
    back("back1.conf", &BACK_H1.to_string())?;
    back("back2.conf", &format!("{BACK_H2} http2"))
}

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", mode, dir] => return serve(mode, Path::new(dir)),
        ["grpc-upstream"] => return grpc::upstream(BACK_GRPC),
        ["latencies", port, rate, seconds] => {
            return open_loop::print_latencies(port.parse()?, rate.parse()?, seconds.parse()?);
        }
        ["overload-upstream"] => return overload_upstream(),
        ["overload-capacity", seconds] => return overload_capacity(seconds.parse()?),
        ["overload-load", rate, seconds] => return overload_load(rate.parse()?, seconds.parse()?),
        _ => {}
    }
    let option =
        |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1).copied());
    let rounds: usize = option("--rounds").unwrap_or("5").parse()?;
    let seconds: u32 = option("--seconds").unwrap_or("3").parse()?;
    let only: Option<Vec<&str>> = option("--only").map(|names| names.split(',').collect());
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.contains(&name));
    let dir = std::env::temp_dir().join(format!("isobar-bench-{}", std::process::id()));
    let paths = Paths { dir, this: std::env::current_exe()? };
    prepare(&paths)?;
    let back = |name: &str, port| {
        let mut command = pinned(LOAD_CORE, "nginx");
        command.arg("-c").arg(paths.dir.join(name));
        start(command, port)
    };
    let _back1 = back("back1.conf", BACK_H1)?;
    let _back2 = back("back2.conf", BACK_H2)?;

    let mut back3 = pinned(LOAD_CORE, &paths.this.display().to_string());
    back3.arg("grpc-upstream");
    let _back3 = start(back3, BACK_GRPC)?;
    let peers = ["isobar", "haproxy", "nginx", "envoy"];
    let mut json = String::from("{");
    println!(
        "{:14} {:>10} {:>10} {:>10} {:>10}   ours / haproxy, nginx, envoy",
        "case", "isobar", "haproxy", "nginx", "envoy"
    );
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for _ in 0..rounds {
            for name in peers {
                match round(case, name, &paths, seconds) {
                    Ok(Some(us)) => samples.entry(name).or_default().push(us),
                    Ok(None) => {}
                    Err(error) => eprintln!("{} {name}: {error}", case.name),
                }
            }
        }
        let of: BTreeMap<&str, f64> =
            samples.iter_mut().map(|(name, values)| (*name, median(values))).collect();
        let cell = |name: &str| of.get(name).map_or_else(|| "skipped".to_owned(), |us| format!("{us:.2} us"));
        let ours = of.get("isobar").copied().unwrap_or(f64::NAN);
        let ratio =
            |name: &str| of.get(name).map_or_else(|| "-".to_owned(), |us| format!("{:.3}", ours / us));
        println!(
            "{:14} {:>10} {:>10} {:>10} {:>10}   {}  {}  {}   {}",
            case.name,
            cell("isobar"),
            cell("haproxy"),
            cell("nginx"),
            cell("envoy"),
            ratio("haproxy"),
            ratio("nginx"),
            ratio("envoy"),
            case.mark
        );
        let fields: Vec<String> = of.iter().map(|(name, us)| format!("\"{name}_us\":{us:.3}")).collect();
        let comma = if json.len() > 1 { "," } else { "" };
        write!(json, "{comma}\"{}\":{{{}}}", case.name, fields.join(","))?;
    }
    if wanted("routes") {
        let ratio = last_route(&paths, rounds, seconds)?;
        println!("routes         the last of 5,000 costs {ratio:.3} x the first (<= 1.05)");
        let comma = if json.len() > 1 { "," } else { "" };
        write!(json, "{comma}\"last_route_ratio\":{ratio:.4}")?;
    }
    if wanted("reload") {
        let (p50, p99, failed) = reloads(&paths)?;
        println!(
            "reload         one of 5,000 routes under load: p50 {p50:.2} ms, p99 {p99:.2} ms (<= 10), {failed} requests failed (0)"
        );
        let comma = if json.len() > 1 { "," } else { "" };
        write!(
            json,
            "{comma}\"reload_p50_ms\":{p50:.3},\"reload_p99_ms\":{p99:.3},\"reload_failed\":{failed}"
        )?;
    }
    if wanted("latency") {
        let comma = if json.len() > 1 { "," } else { "" };
        let rows = latencies(&paths, rounds, seconds)?;
        let fields: Vec<String> = rows
            .iter()
            .map(|(name, p50, p99)| {
                println!(
                    "latency        {name:8} adds p50 {p50:.0} us, p99 {p99:.0} us at 5,000 requests a second"
                );
                format!("\"added_{name}_p50_us\":{p50:.1},\"added_{name}_p99_us\":{p99:.1}")
            })
            .collect();
        write!(json, "{comma}{}", fields.join(","))?;
    }
    for (name, mode) in [("overload", "overload"), ("overload-2", "overload-2")] {
        if wanted(name) {
            let share = overload(&paths, mode, 8)?;
            println!("{name:14} goodput at 3 x capacity: {:.1} % of capacity   >= 90 %", share * 100.0);
            let comma = if json.len() > 1 { "," } else { "" };
            write!(json, "{comma}\"{}_goodput_share\":{share:.4}", name.replace('-', "_"))?;
        }
    }
    let mut over = Vec::new();
    if wanted("instructions") && !instructions::is_possible() {
        println!("instructions   skipped: valgrind is not installed");
    } else if wanted("instructions") {
        for (name, mode, path, gate) in instructions::GATES {
            let count = instructions::per_request(&paths, mode, path)?;
            println!("instructions   {name:8} {count:.0} a request (<= {gate})");
            let comma = if json.len() > 1 { "," } else { "" };
            write!(json, "{comma}\"instructions_{}\":{count:.0}", name.replace('-', "_"))?;
            if count > *gate as f64 {
                over.push(format!("{name} costs {count:.0} instructions a request, and {gate} is the gate"));
            }
        }
        let first = instructions::per_request(&paths, "routes", "/r/0000")?;
        let ratio = instructions::per_request(&paths, "routes", "/r/4999")? / first;
        println!(
            "instructions   the last of 5,000 routes costs {ratio:.3} x the first (<= {})",
            instructions::LAST_ROUTE
        );
        let comma = if json.len() > 1 { "," } else { "" };
        write!(json, "{comma}\"instructions_last_route_ratio\":{ratio:.4}")?;
        if ratio > instructions::LAST_ROUTE {
            over.push(format!("the last of 5,000 routes costs {ratio:.3} x another"));
        }
    }
    if wanted("memory") {
        let (empty, routes, idle) = memory(&paths)?;
        println!(
            "memory         empty {empty} KiB (<= 10 MB), 5,000 routes {routes} KiB (<= 25 MB), idle connection {idle:.2} KiB (<= 1)"
        );
        let comma = if json.len() > 1 { "," } else { "" };
        write!(
            json,
            "{comma}\"empty_kib\":{empty},\"routes_kib\":{routes},\"idle_connection_kib\":{idle:.3}"
        )?;
    }
    json.push_str("}\n");
    if let Some(path) = option("--json") {
        std::fs::write(path, json)?;
    }
    let _ = std::fs::remove_dir_all(&paths.dir);
    if over.is_empty() { Ok(()) } else { Err(over.join("; ").into()) }
}
