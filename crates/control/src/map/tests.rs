use super::*;
use crate::status::{InstanceStatus, ServiceStatus, TrafficStatus};

const SHOP: &str = r##"isobar: 1
system: shop
teams: {front: {contact: "#front"}}
places: {eu: {zones: [a, b]}}
services:
  web:
    team: front
    replicas: 1
    concurrency: 8
    operations:
      "GET /": {work: 1ms, calls: [cart, {call: ads, optional: true}]}
    slo: {availability: 99.9%, latency: {p99: 250ms}}
  cart: {replicas: 2, versions: {v1.0.0: {weight: 90%}, v1.1.0: {weight: 10%}}}
  ads: {replicas: 2}
  batch: {needs: [cart]}
edges:
  web -> cart: {timeout: 300ms}
gateways:
  edge: {listen: "127.0.0.1:8080", routes: [{path: /, to: web}]}
traffic:
  shoppers: {to: edge "GET /", rate: 20/s}
  staff: {to: edge "GET /", users: 3, think: 1s}
scenarios:
  ads-lost: {at: 20s, do: [stop ads], lasts: 1min, expect: [web availability >= 99%]}
  cart-slow: {at: 20s, for: 10s, do: [slow cart x2], expect: [web availability >= 99%]}
  for-good: {at: 20s, do: [stop ads], expect: [web availability >= 99%]}
"##;

const TODAY: (u16, u8, u8) = (2026, 11, 20);

fn map(text: &str, before: Option<&Map>) -> Map {
    let loaded = model::load::load_str(text);
    let mistakes = format!("{:?}", loaded.diagnostics);
    Map::of(&loaded.into_system().unwrap_or_else(|| panic!("{mistakes}")), TODAY, before)
}

#[test]
fn a_map_says_who_calls_whom() {
    let map = map(SHOP, None);
    let name = |id: u32| map.nodes[id as usize].name.as_str();
    let edges: Vec<_> = map.edges.iter().map(|it| (name(it.from), name(it.to), it.optional)).collect();
    let expected = [("edge", "web", false), ("web", "cart", false), ("web", "ads", true)];
    assert_eq!(edges, expected, "what is only needed to start is no call");
    assert!(map.nodes.iter().enumerate().all(|(at, it)| it.id as usize == at));
    let web = map.find("web").expect("web");
    assert_eq!((web.kind, web.team, web.concurrency), ("http", Some(0), Some(8)));
    let promised = web.slo.as_ref().map(|it| (it.availability, it.latency.as_slice()));
    assert_eq!(promised, Some((Some(0.999), &[(0.99, 250.0)][..])));
    assert!(web.lints.iter().any(|it| it.code == "L007"), "one replica: {:?}", web.lints);
    assert!(map.find("cart").expect("cart").lints.iter().all(|it| it.code != "L007"));
    let timeout = web.policy.iter().find(|it| it.edge == "web -> cart" && it.key == "timeout");
    let timeout = timeout.map(|it| (it.value.as_str(), it.place.as_deref()));
    assert_eq!(timeout, Some(("300ms", Some("isobar.yaml:17"))));
    let rates: Vec<_> = map.traffic.iter().map(|it| (it.to.as_str(), it.rate_per_second)).collect();
    assert_eq!(rates, [("edge \"GET /\"", Some(20.0)), ("edge \"GET /\"", None)]);
    let lasts: Vec<_> = map.scenarios.iter().map(|it| it.lasts_ms).collect();
    assert_eq!(lasts, [Some(60_000), Some(30_000), None]);
}

#[test]
fn arrows_begin_and_end_at_their_nodes() {
    let map = map(SHOP, None);
    for edge in &map.edges {
        assert!(edge.path.len() >= 4 && edge.path.len() % 3 == 1, "{edge:?}");
        let (start, end) = (edge.path[0], edge.path[edge.path.len() - 1]);
        let touches = |node: &Node, (x, y): (f64, f64)| {
            (x - node.x).abs() <= node.width / 2.0 + 1.0 && (y - node.y).abs() <= node.height / 2.0 + 1.0
        };
        assert!(touches(&map.nodes[edge.from as usize], start), "{edge:?}");
        assert!(touches(&map.nodes[edge.to as usize], end), "{edge:?}");
    }
}

#[test]
fn who_stays_stays_where_it_was() {
    let before = map(SHOP, None);
    let after = map(
        &SHOP.replace("  batch: {needs: [cart]}\n", "  batch: {needs: [cart]}\n  new: {}\n"),
        Some(&before),
    );
    assert_eq!(after.revision, before.revision + 1);
    for node in &before.nodes {
        let now = after.find(&node.name).expect("it is still there");
        assert!((now.x - node.x).abs() < 1.0, "{} moved from {} to {}", node.name, node.x, now.x);
    }
}

fn instance(name: &str, state: &str, place: &str, version: &str) -> InstanceStatus {
    InstanceStatus {
        name: name.to_owned(),
        index: 0,
        state: state.to_owned(),
        detail: String::new(),
        pid: None,
        port: None,
        version: version.to_owned(),
        place: place.to_owned(),
        restarts: 0,
        age_ms: 0,
        cpu_ms: None,
        cpu_cores: None,
        memory_bytes: None,
        shared_by: None,
    }
}

#[test]
fn instances_come_and_go_with_a_new_revision() {
    let mut map = map(SHOP, None);
    let mut status = Status {
        services: vec![ServiceStatus {
            name: "cart".to_owned(),
            kind: "http".to_owned(),
            team: None,
            wanted: 2,
            synthetic: true,
            waits_for: Vec::new(),
            instances: vec![
                instance("cart#0", "ready", "eu/b", "v1.1.0"),
                instance("cart#1", "stopped", "eu/a", "v1.0.0"),
            ],
        }],
        ..Status::default()
    };
    assert!(map.place(&status));
    assert_eq!(map.revision, 2);
    let cart = &map.find("cart").expect("cart").instances;
    assert_eq!(*cart, [Instance { id: "cart#0".to_owned(), zone: Some(1), version: Some(1) }]);
    assert!(!map.place(&status), "the same again is no change");
    status.services[0].instances[0].state = "unhealthy".to_owned();
    assert!(!map.place(&status), "health is in the frames");
    status.traffic.push(TrafficStatus {
        name: "shoppers".to_owned(),
        to: String::new(),
        running: true,
        rate_per_second: 40.0,
        sent: 0,
        failed: 0,
        not_sent: 0,
        p50_ms: None,
        p99_ms: None,
    });
    assert!(map.place(&status));
    assert_eq!((map.traffic[0].running, map.traffic[0].rate_per_second), (true, Some(40.0)));
    status.services.clear();
    assert!(map.place(&status));
    assert!(map.find("cart").expect("cart").instances.is_empty());
    assert_eq!(map.revision, 4);
}
