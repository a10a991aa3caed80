//! What statistics and spans cost: processor time of a proxy's worker for each request, with and without, by turns.
//!
//! `cargo xtask bench control` (and `telemetry`, which includes it). The same proxy carries the same keep-alive
//! requests to the same instance; with statistics on, its workers count series and tell of every request, and the
//! watcher collects, keeps spans and decides about traces, as under `isobar up`. Prints figures with their marks and
//! exits 1 if one is missed. A ratio within one run holds on a busy machine; the seconds do not.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use control::map::{GATEWAY, Map, Node};
use control::status::Status;
use control::watch::{Clocks, Watched, watch};
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use proxy::{Options, Proxy};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use units::Nanos;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 7;
const REQUEST: &[u8] = b"GET /cart/17 HTTP/1.1\r\nhost: shop\r\nuser-agent: bench\r\n\r\n";
/// Worker time with statistics over without.
const MARK: f64 = 1.05;

#[allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

/// Processor time of every thread of ours whose name begins so.
fn cpu(of: &str) -> Fallible<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        // A thread that just ended has no files any more.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        if name.starts_with(of)
            && let Ok(text) = std::fs::read_to_string(path.join("schedstat"))
        {
            nanos += text.split(' ').next().unwrap_or("0").parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// An instance that answers everything at once, on a thread of its own.
fn instance() -> Fallible<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    thread("instance", move || async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 128\r\n\r\n{}", "x".repeat(128));
                let mut buffer = [0; 4_096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    })?;
    Ok(address)
}

fn thread<F>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Fallible<()>
where
    F: Future<Output = Fallible<()>>,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                let _ = runtime.block_on(run());
            }
            Err(error) => eprintln!("no runtime: {error}"),
        }
    })?;
    Ok(())
}

/// Asks as fast as it is answered, until told to stop.
fn load(door: SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Fallible<()> {
    thread("load", move || async move {
        for _ in 0..CONNECTIONS {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let Ok(mut stream) = TcpStream::connect(door).await else { return };
                let _ = stream.set_nodelay(true);
                let mut buffer = [0; 4_096];
                while !stop.load(Relaxed) {
                    if stream.write_all(REQUEST).await.is_err() {
                        return;
                    }
                    // A reply is one segment: its head and 128 bytes.
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 128 => done.fetch_add(1, Relaxed),
                        _ => return,
                    };
                }
            });
        }
        while !stop.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    })
}

fn config(instance: SocketAddr) -> Config {
    let route = Route {
        operation: "GET /cart/{id}".into(),
        ..Route::forward("all", PathMatch::Template("/cart/{id}".into()), "edge->cart")
    };
    let door = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener { gateway: Some("edge".into()), ..Listener::http("edge", door, vec![route]) };
    Config {
        services: vec![Arc::new(Service::http1("cart", &[instance]))],
        edges: vec![Arc::new(Edge::new("edge", "cart", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener)],
        ..Config::default()
    }
}

/// Worker time, and everything the watcher took, for each request.
fn round(instance: SocketAddr, with: bool, seconds: u64) -> Fallible<(f64, f64)> {
    let started = clock();
    let clocks = Clocks {
        now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        started_unix_ms: 1_700_000_000_000,
    };
    let watched = Watched::new(clocks);
    let series = with.then(|| watched.registry.clone());
    let proxy =
        Proxy::start(config(instance), Options { workers: 1, seed: 1, series, ..Options::default() })?;
    let door = proxy.address("edge").ok_or("it does not listen")?;
    let (status, status_end) = tokio::sync::watch::channel(Arc::new(Status::default()));
    if with {
        let node = |id, name: &str, kind| Node { id, name: name.into(), kind, ..Node::default() };
        let map = Map { nodes: vec![node(0, "edge", GATEWAY), node(1, "cart", "http")], ..Map::default() };
        let (maps, maps_end) = tokio::sync::watch::channel(Arc::new(map));
        watched.observe(proxy.observer());
        let watched = Arc::clone(&watched);
        thread("watcher", move || async move {
            let _maps = maps;
            watch(watched, maps_end, status_end).await;
            Ok(())
        })?;
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    load(door, Arc::clone(&stop), Arc::clone(&done))?;
    std::thread::sleep(Duration::from_millis(700));
    let before = (cpu("isobar-worker")?, cpu("watcher")? + cpu("traces")?, done.load(Relaxed));
    std::thread::sleep(Duration::from_secs(seconds));
    let after = (cpu("isobar-worker")?, cpu("watcher")? + cpu("traces")?, done.load(Relaxed));
    stop.store(true, Relaxed);
    drop(status);
    let requests = (after.2 - before.2) as f64;
    if requests < 1_000.0 {
        return Err(format!("only {requests} requests came through").into());
    }
    let micros = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / requests;
    proxy.stop();
    // Threads of this round must be gone before the next one looks for its own by name.
    std::thread::sleep(Duration::from_millis(600));
    Ok((micros(before.0, after.0), micros(before.1, after.1)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Fallible<()> {
    let seconds =
        std::env::args().skip(1).find_map(|it| it.strip_prefix("--seconds=")?.parse().ok()).unwrap_or(2);
    let instance = instance()?;
    let (mut off, mut on, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(round(instance, false, seconds)?.0);
        let (worker, watcher) = round(instance, true, seconds)?;
        on.push(worker);
        beside.push(watcher);
    }
    // Neighbours in time share whatever else the machine did.
    let ratio = median(on.iter().zip(&off).map(|(on, off)| on / off).collect());
    let met = ratio <= MARK;
    println!("worker, statistics and spans off  {:>8.2} us a request", median(off));
    println!("worker, statistics and spans on   {:>8.2} us a request", median(on));
    println!("watcher and trace store beside    {:>8.2} us a request", median(beside));
    println!(
        "on over off                       {ratio:>8.3}    mark <= {MARK} {}",
        if met { "met" } else { "MISSED" }
    );
    if met { Ok(()) } else { Err("a mark is missed".into()) }
}
