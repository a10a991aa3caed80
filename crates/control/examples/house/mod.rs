//! A proxy, an instance behind it, customers before it, and a watcher beside it: what the bench and the soak measure.

use control::compile::MARKER;
use control::map::{Edge as Line, GATEWAY, Map, Node};
use control::status::{InstanceStatus, ServiceStatus, Status};
use control::watch::watch;
use control::watched::{Clocks, Watched};
use proxy::config::{Action, Config, Edge, Listener, PathMatch, Reply, Route, Service};
use proxy::{Options, Proxy};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use units::Nanos;

pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const REQUEST: &[u8] = b"GET /cart/17 HTTP/1.1\r\nhost: shop\r\nuser-agent: bench\r\n\r\n";

#[allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// An instance that answers everything at once, on a thread of its own.
pub(crate) fn instance() -> Fallible<SocketAddr> {
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

pub(crate) fn thread<F>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Fallible<()>
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

/// Asks as fast as it is answered, with a pause after each answer, until told to stop.
pub(crate) fn load(
    door: SocketAddr,
    connections: usize,
    pause: Duration,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Fallible<()> {
    thread("load", move || async move {
        for _ in 0..connections {
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
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            });
        }
        while !stop.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    })
}

pub(crate) fn config(instance: SocketAddr) -> Config {
    let route = Route {
        operation: "GET /cart/{id}".into(),
        ..Route::forward("all", PathMatch::Template("/cart/{id}".into()), "edge->cart")
    };
    let door = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener { gateway: Some("edge".into()), ..Listener::http("edge", door, vec![route]) };
    // Markers are answered by the proxy itself.
    let marker = Route {
        action: Action::Reply(Reply { status: 204, headers: Vec::new(), body: String::new() }),
        ..Route::forward(MARKER, PathMatch::default(), "")
    };
    let marker = Listener { gateway: Some(MARKER.into()), ..Listener::http(MARKER, door, vec![marker]) };
    Config {
        services: vec![Arc::new(Service::http1("cart", &[instance]))],
        edges: vec![Arc::new(Edge::new("edge", "cart", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener), Arc::new(marker)],
        ..Config::default()
    }
}

/// What runs until it is dropped.
pub(crate) struct House {
    pub(crate) proxy: Proxy,
    pub(crate) watched: Arc<Watched>,
    pub(crate) door: SocketAddr,
    // Who watches ends when nobody publishes a status any more.
    _status: tokio::sync::watch::Sender<Arc<Status>>,
}

/// A proxy before this instance; with a watcher, which counts, keeps traces and tells of both, or without.
pub(crate) fn house(instance: SocketAddr, with_watcher: bool) -> Fallible<House> {
    let started = clock();
    let clocks = Clocks {
        now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        started_unix_ms: 1_700_000_000_000,
    };
    let watched = Watched::new(clocks);
    let series = with_watcher.then(|| watched.registry.clone());
    let proxy =
        Proxy::start(config(instance), Options { workers: 1, seed: 1, series, ..Options::default() })?;
    let door = proxy.address("edge").ok_or("it does not listen")?;
    // Somebody who answers, and where: what is told of places and of handing on traces costs as well.
    let cart = InstanceStatus {
        name: "cart#0".to_owned(),
        state: "ready".to_owned(),
        port: Some(instance.port()),
        place: "eu-west/a".to_owned(),
        ..InstanceStatus::default()
    };
    let cart = ServiceStatus { name: "cart".to_owned(), instances: vec![cart], ..ServiceStatus::default() };
    let said = Status { services: vec![cart], ..Status::default() };
    let (status, status_end) = tokio::sync::watch::channel(Arc::new(said));
    if with_watcher {
        let node = |id, name: &str, kind| Node { id, name: name.into(), kind, ..Node::default() };
        let map = Map {
            nodes: vec![node(0, "edge", GATEWAY), node(1, "cart", "http")],
            edges: vec![Line { id: 0, from: 0, to: 1, optional: false, path: Vec::new() }],
            zones: vec!["eu-west/a".to_owned()],
            ..Map::default()
        };
        let (maps, maps_end) = tokio::sync::watch::channel(Arc::new(map));
        watched.observe(proxy.observer());
        let watched = Arc::clone(&watched);
        thread("watcher", move || async move {
            let _maps = maps;
            watch(watched, maps_end, status_end).await;
            Ok(())
        })?;
    }
    Ok(House { proxy, watched, door, _status: status })
}
