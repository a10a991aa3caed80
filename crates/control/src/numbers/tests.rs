use super::*;
use crate::map::{Edge, Node};
use crate::status::{InstanceStatus, ServiceStatus};
use policy::settings::EdgeSettings;
use proxy::config;
use proxy::observe::{BreakerSeen, CallSeen, PoolSeen};
use std::sync::Arc;
use telemetry::metrics::{Class, Counters, Sparse};

/// A gateway calls web, web calls cart.
fn map() -> Map {
    let node = |id, name: &str, kind| Node {
        id,
        name: name.to_owned(),
        kind,
        concurrency: Some(4),
        queue: Some(10),
        ..Node::default()
    };
    let edge = |id, from, to| Edge { id, from, to, optional: false, path: Vec::new() };
    Map {
        nodes: vec![node(0, "edge", GATEWAY), node(1, "web", "http"), node(2, "cart", "http")],
        edges: vec![edge(0, 0, 1), edge(1, 1, 2)],
        ..Map::default()
    }
}

fn status() -> Status {
    let instance = |index: u32, state: &str| InstanceStatus {
        name: format!("web#{index}"),
        index,
        state: state.to_owned(),
        detail: String::new(),
        pid: None,
        port: Some(4_000 + index as u16),
        version: String::new(),
        place: String::new(),
        restarts: 0,
        age_ms: 0,
        cpu_ms: None,
        cpu_cores: None,
        memory_bytes: None,
        shared_by: None,
    };
    let web = ServiceStatus {
        name: "web".to_owned(),
        kind: "http".to_owned(),
        team: None,
        wanted: 3,
        synthetic: true,
        waits_for: Vec::new(),
        instances: vec![instance(0, "ready"), instance(1, "starting"), instance(2, "stopped")],
    };
    Status { services: vec![web], ..Status::default() }
}

/// Caller, callee, good answers, bad answers, retries, and the latency of each in milliseconds.
type Row = (&'static str, &'static str, u64, u64, u64, u64);

/// What happened, and the names of its series. Nobody's calls are what the gateway let in.
fn frame(rows: &[Row]) -> (Frame, Vec<SeriesText>) {
    let (mut frame, mut texts) = (Frame::default(), Vec::new());
    for (source, destination, good, bad, retries, ms) in rows {
        for (class, many) in [(Class::Success, *good), (Class::ServerError, *bad)] {
            let mut latency = Sparse::default();
            (0..many).for_each(|_| latency.record(Nanos::from_millis(*ms)));
            let mut counters = Counters::default();
            counters[Counter::Retries as usize] = if class == Class::Success { *retries } else { 0 };
            frame.deltas.push(Delta { series: SeriesId(texts.len() as u32), latency, counters });
            let none: Arc<str> = "".into();
            texts.push(SeriesText {
                source: (*source).into(),
                destination: (*destination).into(),
                operation: "GET /".into(),
                version: none.clone(),
                source_zone: none.clone(),
                destination_zone: none,
                class,
            });
        }
    }
    (frame, texts)
}

struct Watch {
    numbers: Numbers,
    map: Map,
    ticks: u64,
}

impl Watch {
    fn new() -> Self {
        Self { numbers: Numbers::default(), map: map(), ticks: 0 }
    }

    fn tick(&mut self, rows: &[Row], census: &Census) -> (Vec<NodeRecord>, Vec<EdgeRecord>) {
        self.ticks += 1;
        let now = Nanos::from_millis(250 * self.ticks);
        let index = Index::of(&self.map);
        let (frame, texts) = frame(rows);
        let text = |series: SeriesId| texts.get(series.0 as usize);
        self.numbers.advance(now, &self.map, &index, &frame, text, census, &status())
    }
}

#[test]
fn series_of_one_pair_are_one_edge() {
    let mut watch = Watch::new();
    let rows = [
        ("web", "cart", 6, 0, 0, 10),
        ("web", "cart", 2, 2, 5, 10),
        ("edge", "web", 5, 0, 0, 40),
        ("", "edge", 7, 0, 0, 99),
        ("nobody", "nowhere", 1, 0, 0, 1),
    ];
    let (nodes, edges) = watch.tick(&rows, &Census::default());
    assert_eq!((nodes[2].rate, nodes[2].errors), (40.0, 0.2));
    assert_eq!((edges[1].rate, edges[1].errors, edges[1].retries), (40.0, 0.2, 0.5));
    assert_eq!(nodes[0].rate, 28.0, "a gateway also counts what it answers itself");
    assert!((nodes[0].p99_ms - 40.0).abs() < 1.0, "{}", nodes[0].p99_ms);
    assert!(edges[1].budget_left.is_nan());
}

#[test]
fn the_window_slides_and_then_forgets() {
    let mut watch = Watch::new();
    let census = Census::default();
    let first: [Row; 1] = [("web", "cart", 100, 0, 0, 5)];
    watch.tick(&first, &census);
    let rates: Vec<f32> = (0..5).map(|_| watch.tick(&[], &census).1[1].rate).collect();
    assert_eq!(rates, [200.0, 400.0 / 3.0, 100.0, 0.0, 0.0]);
    let (nodes, edges) = watch.tick(&[], &census);
    assert!(nodes[2].p99_ms.is_nan() && nodes[2].errors.is_nan(), "nothing asked, nothing known");
    assert_eq!(edges[1].speed, 0.0);
}

#[test]
fn instances_are_counted_once_whoever_sees_them() {
    let seen = |port: u16, in_flight, ejected| InstanceSeen {
        address: ([127, 0, 0, 1], port).into(),
        healthy: true,
        ejected,
        verdict: None,
        in_flight,
        requests: 0,
        failures: 0,
    };
    let breaker = |edge: &str, open| BreakerSeen { edge: edge.to_owned(), open };
    let mut census = Census {
        instances: vec![
            seen(4_000, 2, false),
            seen(4_000, 7, true),
            seen(4_001, 1, false),
            seen(9, 50, true),
        ],
        breakers: vec![
            breaker("web#0->cart", true),
            breaker("web#1->cart", false),
            breaker("nobody#0->cart", true),
        ],
        ..Census::default()
    };
    let mut watch = Watch::new();
    let (nodes, edges) = watch.tick(&[], &census);
    let web = nodes[1];
    assert_eq!((web.healthy, web.instances, web.ejected, web.flags), (1, 2, 1, flag::STARTING));
    // Nine at one with room for four, one at the other: five of eight places, five of twenty seats.
    assert_eq!((web.concurrency, web.queue), (5.0 / 8.0, 5.0 / 20.0));
    assert_eq!((edges[1].breakers_open, edges[1].breakers), (1, 2));
    census.silent_workers = 1;
    let (nodes, edges) = watch.tick(&[], &census);
    assert!(nodes[1].concurrency.is_nan(), "half a census is no number");
    assert_eq!(edges[1].breakers, 0);
}

#[test]
fn budgets_add_up_and_a_shared_pool_is_counted_once() {
    let service = Arc::new(config::Service::http1("cart", &[]));
    let pool = |open, idle, waiting| PoolSeen { service: service.clone(), open, idle, waiting };
    let call = |caller: &str, budget, waiting| {
        let mut edge = config::Edge::new(caller, "cart", EdgeSettings::default());
        edge.settings.connections = 8;
        CallSeen { edge: Arc::new(edge), budget, waiting }
    };
    // Two workers; both slots of web call cart through either.
    let mut census = Census {
        pools: vec![pool(5, 3, 0), pool(4, 4, 1)],
        calls: vec![
            call("web#0", Some((1_000_000, 2_000_000)), 0),
            call("web#1", None, 2),
            call("web#0", Some((2_000_000, 2_000_000)), 0),
            call("nobody#0", Some((1, 1)), 9),
        ],
        ..Census::default()
    };
    let mut watch = Watch::new();
    let (_, edges) = watch.tick(&[], &census);
    assert_eq!(edges[1].budget_left, 0.75);
    let pool = PoolNow { open: 9, idle: 7, waiting: 3, most: Some(8) };
    assert_eq!(watch.numbers.calls.get(&1), Some(&CallNow { budget: Some(0.75), pool }));
    census.calls.truncate(1);
    census.calls[0].budget = Some((0, 0));
    let (_, edges) = watch.tick(&[], &census);
    assert!(edges[1].budget_left.is_nan(), "nobody sent anything: nothing is known");
    census.silent_workers = 1;
    watch.tick(&[], &census);
    assert_eq!(watch.numbers.calls.get(&1), None, "half a census is no number");
}

#[test]
fn seconds_close_and_are_bounded() {
    let mut watch = Watch::new();
    for _ in 1..=4 * (RATE_SECONDS as u64 + 30) {
        watch.tick(&[("web", "cart", 10, 0, 0, 5)], &Census::default());
    }
    for rates in [&watch.numbers.nodes[2].rates, &watch.numbers.edges[1].rates] {
        assert_eq!(rates.len(), RATE_SECONDS);
        assert!(rates.iter().all(|it| *it == 40.0));
    }
}

#[test]
fn a_new_map_keeps_the_past_of_who_stayed() {
    let mut watch = Watch::new();
    for _ in 1..=8 {
        watch.tick(&[("web", "cart", 10, 0, 0, 5)], &Census::default());
    }
    let before = map();
    let mut after = map();
    after.nodes.remove(0);
    after.nodes.swap(0, 1);
    after.edges.remove(0);
    (after.edges[0].from, after.edges[0].to) = (1, 0);
    watch.numbers.follow(&before, &after);
    assert_eq!(watch.numbers.nodes[0].rates.len(), 2, "cart is the first now");
    assert_eq!(watch.numbers.edges[0].rates.len(), 2);
}
