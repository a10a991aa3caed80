//! Percentiles by the whole way, from a worker's cell by the collector and the history to the API's answer, against those of
//! the very requests, on a mix with a long tail. Nothing is timed: whatever a request took is what both sides are told.

use control::admit::Gate;
use control::api::Api;
use control::map::{Edge as Line, GATEWAY, Map, Node};
use control::status::Status;
use control::watch::watch;
use control::watched::{Clocks, Watched};
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use proxy::{Options, Proxy};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use units::{Nanos, Rng};

const REQUESTS: usize = 600;
const CONNECTIONS: usize = 24;
/// The API prints four digits.
const PRINTED: f64 = 0.0006;

#[allow(clippy::disallowed_methods, reason = "a test's edge has a clock")]
fn clocks() -> Clocks {
    let started = std::time::Instant::now();
    let now = move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    Clocks { now: Arc::new(now), started_unix_ms: 1_700_000_000_000 }
}

/// Answers after a while: most within two milliseconds, one in a hundred after fifty times that.
async fn instance(listener: TcpListener) {
    let mut seed = 0;
    while let Ok((mut stream, _)) = listener.accept().await {
        seed += 1;
        let mut rng = Rng::from_seed(seed);
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                let pareto = (1.0 - rng.unit()).powf(-1.0 / 1.1);
                tokio::time::sleep(Duration::from_secs_f64((0.0007 * pareto).min(0.2))).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(door: std::net::SocketAddr, head: &str) -> Value {
    let mut stream = TcpStream::connect(door).await.expect("it listens");
    let request = format!("GET {head} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn proxy(watched: &Watched, instance: std::net::SocketAddr) -> Proxy {
    let door = ([127, 0, 0, 1], 0).into();
    let route = Route::forward("all", PathMatch::default(), "edge->cart");
    let listener = Listener { gateway: Some("edge".into()), ..Listener::http("edge", door, vec![route]) };
    let config = Config {
        services: vec![Arc::new(Service::http1("cart", &[instance]))],
        edges: vec![Arc::new(Edge::new("edge", "cart", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener)],
        ..Config::default()
    };
    let series = Some(watched.registry.clone());
    Proxy::start(config, Options { workers: 2, seed: 1, series, ..Options::default() }).expect("it starts")
}

fn api(now: &Clocks, watched: &Arc<Watched>) -> Api {
    Api {
        requests: mpsc::channel(1).0,
        status: tokio::sync::watch::channel(Arc::default()).1,
        history: Arc::default(),
        changes: broadcast::channel(1).0,
        registry: Arc::default(),
        registry_changed: Arc::default(),
        gate: Arc::new(Gate::new(String::new(), false, Arc::clone(watched), || Ok(String::new()))),
        now: Arc::clone(&now.now),
    }
}

#[test]
fn the_apis_percentiles_are_those_of_the_requests() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(instance(listener));
        let clocks = clocks();
        let watched = Watched::new(clocks.clone());
        let proxy = proxy(&watched, address);
        let door = proxy.address("edge").expect("it listens");
        let records = proxy.events(2 * REQUESTS);
        watched.observe(proxy.observer());
        let node = |id, name: &str, kind| Node { id, name: name.into(), kind, ..Node::default() };
        let line = Line { id: 0, from: 0, to: 1, optional: false, path: Vec::new() };
        let nodes = vec![node(0, "edge", GATEWAY), node(1, "cart", "http")];
        let map = Map { nodes, edges: vec![line], ..Map::default() };
        let (_maps, maps_end) = tokio::sync::watch::channel(Arc::new(map));
        let (_status, status_end) = tokio::sync::watch::channel(Arc::new(Status::default()));
        tokio::spawn(watch(Arc::clone(&watched), maps_end, status_end));
        let router = control::web::router(
            api(&clocks, &watched),
            Arc::clone(&watched),
            |_, _, _| (404, Vec::new(), &[][..]),
            Arc::new(|_: &str, _: usize| Vec::new()),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let api = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, router).await });

        let mut customers = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            customers.spawn(async move {
                let mut stream = TcpStream::connect(door).await.expect("it listens");
                let mut buffer = [0; 4_096];
                for _ in 0..REQUESTS / CONNECTIONS {
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.expect("it reads");
                    assert!(stream.read(&mut buffer).await.expect("it answers") > 0);
                }
            });
        }
        while let Some(ended) = customers.join_next().await {
            ended.expect("a customer is content");
        }
        let edges = async {
            loop {
                // A window that holds all of it.
                let edges = ask(api, "/v1/edges?window=15min").await;
                let row = &edges["rows"][0];
                let seconds = edges["covered_ms"].as_f64().unwrap_or(0.0) / 1e3;
                let seen = row["rate"].as_f64().unwrap_or(0.0) * seconds;
                if (seen - REQUESTS as f64).abs() < REQUESTS as f64 * 2.0 * PRINTED {
                    return edges;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let edges = tokio::time::timeout(Duration::from_secs(20), edges).await.expect("all are counted");
        let mut exact: Vec<Nanos> = records.try_iter().map(|it| it.duration).collect();
        assert_eq!(exact.len(), REQUESTS);
        exact.sort_unstable();
        let slack = edges["percentile_error"].as_f64().expect("the bound is printed");
        assert!((slack - units::Histogram::RELATIVE_ERROR).abs() < 1e-9);
        for (key, share) in
            [("p50_ms", 0.5), ("p90_ms", 0.9), ("p95_ms", 0.95), ("p99_ms", 0.99), ("p999_ms", 0.999)]
        {
            let rank = (share * REQUESTS as f64).ceil() as usize;
            let truth = exact[rank - 1].as_millis_f64();
            let told = edges["rows"][0][key].as_f64().unwrap_or(f64::NAN);
            assert!((told / truth - 1.0).abs() <= slack + PRINTED, "{key}: {told} for {truth}");
        }
        let tail = exact[REQUESTS * 99 / 100] / exact[REQUESTS / 2].as_u64().max(1);
        assert!(tail.as_u64() > 5, "the mix is skewed: p99 is {tail:?} times p50");
        proxy.stop();
    });
}
