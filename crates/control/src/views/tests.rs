use super::*;
use crate::handing::Handed;
use crate::live::flag;
use crate::map::{Edge, GATEWAY, Map, Node, Slo, Team};
use crate::measures::Measures as Counted;
use crate::numbers::{Counts, Index, Numbers};
use crate::status::{InstanceStatus, ServiceStatus, Status};
use proxy::observe::{BreakerSeen, Census, InstanceSeen};
use std::collections::HashMap;
use telemetry::metrics::{Class, Counter, Recorder, Registry, SeriesKey, SeriesSettings, Sparse};

/// A gateway calls web, web calls cart of two versions; web has an objective and a team.
fn map() -> Map {
    let node = |id, name: &str, kind| Node { id, name: name.to_owned(), kind, ..Node::default() };
    let mut map = Map {
        system: "shop".to_owned(),
        teams: vec![Team { name: "storefront".to_owned(), contact: None, oncall: None }],
        nodes: vec![node(0, "edge", GATEWAY), node(1, "web", "http"), node(2, "cart", "http")],
        edges: vec![
            Edge { id: 0, from: 0, to: 1, optional: false, path: Vec::new() },
            Edge { id: 1, from: 1, to: 2, optional: true, path: Vec::new() },
        ],
        ..Map::default()
    };
    map.nodes[1].team = Some(0);
    map.nodes[1].slo =
        Some(Slo { availability: Some(0.999), latency: Vec::new(), window: Nanos::from_secs(86_400) });
    map.nodes[1].concurrency = Some(4);
    map.nodes[2].versions = vec!["v1".to_owned(), "v2".to_owned()];
    map
}

fn status() -> Status {
    let instance = |service: &str, index: u32, port: u16, version: &str, place: &str| InstanceStatus {
        name: format!("{service}#{index}"),
        index,
        state: "ready".to_owned(),
        detail: String::new(),
        pid: None,
        port: Some(port),
        version: version.to_owned(),
        place: place.to_owned(),
        restarts: 0,
        age_ms: 0,
        cpu_ms: None,
        memory_bytes: None,
        cpu_cores: None,
        shared_by: None,
    };
    let service = |name: &str, instances: Vec<InstanceStatus>| ServiceStatus {
        name: name.to_owned(),
        kind: "http".to_owned(),
        team: None,
        wanted: 2,
        synthetic: true,
        waits_for: Vec::new(),
        instances,
    };
    let web =
        service("web", vec![instance("web", 0, 4_000, "", "eu/a"), instance("web", 1, 4_001, "", "eu/b")]);
    let cart = service(
        "cart",
        vec![instance("cart", 0, 5_000, "v1", "eu/a"), instance("cart", 1, 5_001, "v2", "eu/b")],
    );
    Status { services: vec![web, cart], ..Status::default() }
}

fn latency(ms: u64, times: u64) -> Sparse {
    let mut latency = Sparse::default();
    (0..times).for_each(|_| latency.record(Nanos::from_millis(ms)));
    latency
}

/// One second of 100 requests on either edge; the newer version of cart fails half of its own.
fn count(registry: &Registry, worker: &mut Recorder) {
    let mut add = |from: &str, to: &str, version: &str, zone: &str, class, ms, times: u64, retries| {
        let series = worker.series(&SeriesKey {
            source: registry.label(from),
            destination: registry.label(to),
            operation: registry.label("GET /"),
            version: registry.label(version),
            source_zone: registry.label("eu/a"),
            destination_zone: registry.label(zone),
            class,
        });
        (0..times).for_each(|_| worker.record(series, Nanos::from_millis(ms)));
        worker.add(series, Counter::Retries, retries);
    };
    add("", "edge", "", "", Class::Success, 41, 100, 0);
    add("edge", "web", "", "eu/a", Class::Success, 40, 100, 0);
    add("web", "cart", "v1", "eu/a", Class::Success, 10, 80, 0);
    add("web", "cart", "v2", "eu/b", Class::Success, 10, 10, 10);
    add("web", "cart", "v2", "eu/b", Class::ServerError, 10, 10, 10);
}

fn census(second: u64) -> Census {
    let instance = |port: u16, ejected, requests: u64, failures: u64| InstanceSeen {
        address: ([127, 0, 0, 1], port).into(),
        healthy: true,
        ejected,
        verdict: ejected.then(|| "half of its answers fail".to_owned()),
        in_flight: 1,
        requests: requests * second,
        failures: failures * second,
    };
    let breaker = |open| BreakerSeen { edge: "web#0->cart".to_owned(), open };
    Census {
        instances: vec![
            instance(5_000, false, 80, 0),
            instance(5_001, true, 20, 10),
            instance(4_000, false, 100, 0),
        ],
        breakers: vec![breaker(true), breaker(false)],
        ..Census::default()
    }
}

/// What is seen after `seconds` through a window of `over`.
fn see<R>(seconds: u64, over: u64, ask: impl Fn(&Sources<'_>) -> R) -> R {
    let (map, status, index) = (map(), status(), Index::of(&map()));
    let registry = Registry::new(SeriesSettings::default());
    let mut worker = registry.recorder();
    let mut measures = Counted::new(registry.clone(), Nanos::ZERO);
    let mut numbers = Numbers::default();
    let mut records = Vec::new();
    for second in 1..=seconds {
        let now = Nanos::from_secs(second);
        count(&registry, &mut worker);
        let frame = measures.collect(now);
        let text = |series| measures.text(series);
        records = numbers.advance(now, &map, &index, &frame, text, &census(second), &status).0;
    }
    let counts = Counts { requests: 20, failed: 10, latency: latency(30, 20), ..Counts::default() };
    let ports = HashMap::from([(5_001, counts)]);
    let window = Window::read(&measures, Nanos::from_secs(over));
    ask(&Sources {
        map: &map,
        window: &window,
        numbers: &numbers,
        records: &records,
        ports: &ports,
        status: &status,
        handed: &[Handed { from: "web".into(), to: "cart".into(), calls: 40, joined: 10, inferred: 5 }],
    })
}

#[test]
fn who_forgets_traces_is_said_of_the_caller_and_of_the_call() {
    let expected = HandsOn { calls: 40, joined: 10, inferred: 5 };
    let rows = see(2, 2, |it| it.stat(By::Service));
    let told: Vec<_> = rows.iter().map(|it| (it.service.as_str(), it.hands_on)).collect();
    assert_eq!(told, [("edge", None), ("web", Some(expected)), ("cart", None)]);
    let edges = see(2, 2, |it| it.edges());
    let told: Vec<_> = edges.iter().map(|it| (it.to.as_str(), it.hands_on)).collect();
    assert_eq!(told, [("web", None), ("cart", Some(expected))]);
    assert!(!expected.ok() && expected.share() == Some(0.25));
}

fn known_or_dash(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |it| format!("{}", (it * 100.0).round() / 100.0))
}

/// Rows of a filter as `service/part rate success p99 open/breakers ejected/instances`.
#[track_caller]
fn check(by: By, filter: &str, expected: &[&str]) {
    let filter = Filter::parse(filter).expect("a filter");
    let rows = see(5, 5, |it| it.stat(by));
    let told: Vec<String> = rows
        .iter()
        .filter(|it| filter.matches(*it))
        .map(|it| {
            let (measures, now) = (&it.measures, &it.condition);
            format!(
                "{}/{} {} {} {} {}/{} {}/{}",
                it.service,
                it.part.as_deref().unwrap_or("-"),
                known_or_dash(measures.rate),
                known_or_dash(measures.success),
                measures.p99_ms.map_or("-".to_owned(), |it| format!("{it:.0}")),
                now.breakers_open,
                now.breakers,
                now.ejected,
                now.instances
            )
        })
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn services_have_numbers_and_a_condition() {
    check(
        By::Service,
        "",
        &["edge/- 100 1 40 0/0 0/0", "web/- 100 1 40 0/0 0/2", "cart/- 100 0.9 10 1/2 1/2"],
    );
    check(By::Service, "service:cart status>=500", &[]);
    check(By::Service, "errors>5% retries>10% has:breaker", &["cart/- 100 0.9 10 1/2 1/2"]);
    check(By::Service, "team:storefront", &["web/- 100 1 40 0/0 0/2"]);
    check(By::Service, "p99>20ms kind:http", &["web/- 100 1 40 0/0 0/2"]);
    check(By::Service, "version:v2", &["cart/- 100 0.9 10 1/2 1/2"]);
    check(
        By::Service,
        "operation:get* -service:cart",
        &["edge/- 100 1 40 0/0 0/0", "web/- 100 1 40 0/0 0/2"],
    );
    check(By::Service, "ca", &["cart/- 100 0.9 10 1/2 1/2"]);
}

#[test]
fn a_service_falls_into_parts() {
    check(By::Version, "service:cart", &["cart/v1 80 1 10 0/0 0/1", "cart/v2 20 0.5 10 0/0 1/1"]);
    check(By::Version, "errors>10%", &["cart/v2 20 0.5 10 0/0 1/1"]);
    check(By::Zone, "zone:b", &["web/eu/b 0 - - 0/0 0/1", "cart/eu/b 20 0.5 10 0/0 1/1"]);
    check(By::Zone, "zone:eu/a service:cart", &["cart/eu/a 80 1 10 0/0 0/1"]);
    check(By::Instance, "instance:cart#1", &["cart/cart#1 20 0.5 30 0/0 1/1"]);
    check(By::Team, "", &["/storefront 100 1 40 0/0 0/2", "/nobody's 100 0.9 10 1/2 1/2"]);
    let why = see(5, 5, |it| it.stat(By::Instance)[3].why.clone());
    assert_eq!(why.as_deref(), Some("half of its answers fail"));
}

#[test]
fn edges_have_both_ends_and_their_own_breakers() {
    let rows = see(5, 3, |it| it.edges());
    let cart = &rows[1];
    assert_eq!((cart.from.as_str(), cart.to.as_str(), cart.optional), ("web", "cart", true));
    assert_eq!((cart.measures.rate, cart.measures.retries), (Some(100.0), Some(0.2)));
    assert_eq!((cart.condition.breakers_open, cart.condition.breakers, cart.condition.ejected), (1, 2, 1));
    let names = |filter: &str| -> Vec<&str> {
        let filter = Filter::parse(filter).expect("a filter");
        rows.iter().filter(|it| filter.matches(*it)).map(|it| it.to.as_str()).collect()
    };
    assert_eq!(names("service:web->cart"), ["cart"]);
    assert_eq!(names("from:edge"), ["web"]);
    assert_eq!(names("service:web"), ["web", "cart"], "either end");
    assert_eq!(names("has:breaker errors>1%"), ["cart"]);
}

#[test]
fn a_window_says_how_much_of_it_there_is() {
    let covered = |seconds, over| see(seconds, over, |it| it.window.covered);
    assert_eq!(covered(3, 30), Nanos::from_secs(3));
    assert_eq!(covered(9, 2), Nanos::from_secs(2));
    let rate = |seconds, over| see(seconds, over, |it| it.stat(By::Service)[1].measures.rate);
    assert_eq!(rate(0, 30), None, "nothing was read yet");
    assert_eq!((rate(1, 30), rate(20, 7)), (Some(100.0), Some(100.0)));
}

#[test]
fn an_objective_is_kept_or_burns_or_absent() {
    let slo = see(1, 30, |it| {
        let mut records = it.records.to_vec();
        records[1].flags |= flag::SLO_BURNS;
        let burning = Sources { records: &records, ..Sources { ..*it } };
        [it, &burning].map(|it| it.stat(By::Service).iter().map(|it| it.condition.slo).collect::<Vec<_>>())
    });
    assert_eq!(slo, [vec![None, Some(SloState::Kept), None], vec![None, Some(SloState::Burns), None]]);
}

#[test]
fn questions_are_read_strictly() {
    #[track_caller]
    fn check(query: &str, expected: &str) {
        let read = || {
            let asked = Asked::read(Some(query), &["filter", "window", "by", "limit"])?;
            let _ = (asked.filter()?, asked.window()?, asked.by()?);
            asked.count("limit", 10, 100)
        };
        match read() {
            Ok(limit) => assert_eq!(format!("{limit}"), expected, "{query}"),
            Err(refusal) => {
                assert_eq!(refusal.status, 422);
                assert!(
                    !expected.is_empty() && refusal.message.contains(expected),
                    "{query}: {}",
                    refusal.message
                );
            }
        }
    }
    check("", "10");
    check("filter=service%3Acart+status%3E%3D500&window=30s&by=zone&limit=7", "7");
    check("filtre=x", "`filtre` is not asked here; known are filter, window");
    check("filter=sevice:cart", "did you mean `service`?");
    check("window=30", "without its unit");
    check("window=2h", "goes from 1s to");
    check("by=colour", "it is one of service, version, zone, team, instance");
    check("limit=0", "whole number from 1 to 100");
    check("by=zone&by=team", "given twice");
}

#[test]
fn answers_come_back_as_they_went() {
    let rows = see(2, 30, |it| it.stat(By::Instance));
    let stat = Stat { about: About { version: 1, system: "shop".to_owned(), ..About::default() }, rows };
    let text = serde_json::to_string(&stat).expect("it is plain data");
    assert_eq!(serde_json::from_str::<Stat>(&text).expect("as written"), stat);
    assert!(text.contains(r#""system":"shop""#) && text.contains(r#""p99_ms":null"#), "{text}");
}
