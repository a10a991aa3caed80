use super::*;

const SHOP: &str = r#"isobar: 1
places: {eu: {zones: [a, b]}, us: {zones: [a]}}
services:
  web:
    replicas: {eu: 2, us: 1}
    operations:
      "GET /": {work: 1ms, calls: ['cart "GET /cart/{id}"', old, db]}
  cart:
    replicas: {eu: 1, us: 1}
    operations:
      "GET /cart/{id}": 1ms
      "POST /cart": {work: 1ms, idempotent: true}
    versions: {v1.0.0: {weight: 90%}, v1.1.0: {weight: 10%}}
  old: {endpoints: ["127.0.0.1:9", "old.internal:80"], tls: {ca: pki/ca.pem, server_name: old.example}}
  db: {kind: tcp, run: ./db, discovery: everywhere}
edges:
  default: {timeout: 1s, retry: {attempts: 2}}
  web -> cart: {timeout: 300ms}
  web -> cart "POST /cart": {timeout: 2s}
gateways:
  edge:
    listen: "127.0.0.1:8080"
    routes:
      - {path: /old, to: old, timeout: 5s}
      - {path: /ping, reply: {status: 200, body: pong}}
      - {path: /, to: web}
"#;

fn system(text: &str) -> System {
    let loaded = model::load::load_str(text);
    let mistakes = format!("{:?}", loaded.diagnostics);
    loaded.into_system().unwrap_or_else(|| panic!("{mistakes}"))
}

fn instance(service: &str, port: u16, version: &str, place: &str) -> Instance {
    let (region, zone) = place.split_once('/').expect("region/zone");
    Instance {
        service: service.to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        version: version.to_owned(),
        region: region.to_owned(),
        zone: zone.to_owned(),
        weight: 1,
    }
}

fn door(slot: &str, place: &str, callee: &str, port: u16) -> Door {
    let (region, zone) = place.split_once('/').expect("region/zone");
    Door {
        caller: slot.split('#').next().map(str::to_owned),
        slot: slot.to_owned(),
        region: region.to_owned(),
        zone: zone.to_owned(),
        callee: callee.to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], port)),
    }
}

fn topology() -> Topology {
    Topology {
        instances: vec![
            instance("web", 1, "", "eu/a"),
            instance("cart", 2, "v1.0.0", "eu/a"),
            instance("cart", 3, "v1.1.0", "us/a"),
            instance("db", 4, "", "us/a"),
        ],
        doors: vec![
            door("web#0", "eu/a", "cart", 10),
            door("web#2", "us/a", "cart", 11),
            door("web#0", "eu/a", "old", 12),
            door("web#0", "eu/a", "db", 13),
        ],
        gateways: BTreeMap::from([("edge".to_owned(), SocketAddr::from(([127, 0, 0, 1], 8080)))]),
        ..Topology::default()
    }
}

fn compile(topology: &Topology) -> Config {
    let config = Compiler::default().compile(&system(SHOP), topology);
    config.check().expect("a snapshot that a proxy can run");
    config
}

fn ports_of(config: &Config, service: &str) -> Vec<u16> {
    let service =
        config.services.iter().find(|it| it.name == service).unwrap_or_else(|| panic!("no view {service}"));
    service
        .endpoints
        .iter()
        .map(|it| match &it.address {
            config::Address::Ip(address) => address.port(),
            config::Address::Name(_, port) => *port,
        })
        .collect()
}

#[test]
fn every_caller_has_its_own_door_and_edge() {
    let config = compile(&topology());
    let listeners: Vec<&str> = config.listeners.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(listeners, ["edge", "web#0->cart", "web#0->db", "web#0->old", "web#2->cart"]);
    let edges: Vec<&str> = config.edges.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        edges,
        [
            "edge->old!0",
            "edge->web",
            "web#0->cart",
            "web#0->cart \"POST /cart\"",
            "web#0->db",
            "web#0->old",
            "web#2->cart",
            "web#2->cart \"POST /cart\"",
        ]
    );
    assert_eq!(parties("web#0->cart \"POST /cart\""), Some(("web", "cart")));
    assert_eq!(parties("edge->old!0"), Some(("edge", "old")));
}

#[test]
fn a_region_knows_its_own_and_what_is_everywhere() {
    let config = compile(&topology());
    assert_eq!(ports_of(&config, "cart in eu"), [2]);
    assert_eq!(ports_of(&config, "cart in us"), [3]);
    assert_eq!(ports_of(&config, "db"), [4], "it lets itself be known everywhere");
    assert_eq!(ports_of(&config, "old in eu"), [9, 80]);
    assert_eq!(ports_of(&config, "web"), [1], "a gateway sees all regions");
}

#[test]
fn what_runs_elsewhere_is_spoken_to_as_the_file_says() {
    let topology = topology();
    let config = compile(&topology);
    let tls = |name: &str| {
        let service = config.services.iter().find(|it| it.name == name);
        service.unwrap_or_else(|| panic!("no {name}")).tls.clone()
    };
    let expected = config::TlsClient {
        server_name: "old.example".into(),
        roots: Some(topology.folder.join("pki/ca.pem")),
        ..config::TlsClient::default()
    };
    assert_eq!(tls("old in eu"), Some(expected));
    assert_eq!(tls("db"), None);
}

#[test]
fn the_most_specific_policy_is_in_force() {
    let config = compile(&topology());
    #[track_caller]
    fn check(config: &Config, edge: &str, timeout_ms: u64, non_idempotent: bool) {
        let edge = config.edges.iter().find(|it| it.name == edge).unwrap_or_else(|| panic!("no edge {edge}"));
        let retry = edge.settings.retry.as_ref().expect("retries");
        assert_eq!(
            (edge.settings.timeout, retry.non_idempotent),
            (Some(Nanos::from_millis(timeout_ms)), non_idempotent)
        );
    }
    check(&config, "web#0->cart", 300, false);
    check(&config, "web#0->cart \"POST /cart\"", 2_000, true);
    check(&config, "web#0->old", 1_000, false);
    check(&config, "edge->old!0", 5_000, false);
    let door = config.listeners.iter().find(|it| it.name == "web#0->cart").expect("it is there");
    let routes: Vec<String> = door
        .routes
        .iter()
        .map(|it| {
            let config::Action::Forward(targets) = &it.action else { panic!("{it:?}") };
            format!("{:?} {:?} {} as {}", it.matches.methods, it.matches.path, targets[0].edge, it.operation)
        })
        .collect();
    let expected = [
        "[\"GET\"] Template(\"/cart/{id}\") web#0->cart as GET /cart/{id}",
        "[\"POST\"] Exact(\"/cart\") web#0->cart \"POST /cart\" as POST /cart",
        "[] Prefix(\"/\") web#0->cart as ",
    ];
    assert_eq!(routes, expected, "each operation is told apart, and only one has an edge of its own");
}

#[test]
fn versions_are_dealt_by_weight_among_those_that_are_there() {
    let targets = |topology: &Topology| -> Vec<(Option<String>, u32)> {
        let config = compile(topology);
        let door = config.listeners.iter().find(|it| it.name == "web#0->cart").expect("it is there");
        match &door.routes.last().expect("a route").action {
            config::Action::Forward(targets) => {
                targets.iter().map(|it| (it.version.clone(), it.weight)).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    let both = [(Some("v1.0.0".to_owned()), 9_000), (Some("v1.1.0".to_owned()), 1_000)];
    assert_eq!(targets(&topology()), both);
    let mut one = topology();
    one.instances.retain(|it| it.version != "v1.1.0");
    assert_eq!(targets(&one), [(None, 10_000)]);
}

#[test]
fn raw_tcp_goes_through_unread() {
    let config = compile(&topology());
    let door = config.listeners.iter().find(|it| it.name == "web#0->db").expect("it is there");
    assert_eq!(door.kind, config::ListenerKind::Tcp { edge: "web#0->db".to_owned() });
}

#[test]
fn what_did_not_change_is_the_very_same_part() {
    let system = system(SHOP);
    let mut compiler = Compiler::default();
    let first = compiler.compile(&system, &topology());
    let mut changed = topology();
    changed.instances.push(instance("cart", 5, "v1.0.0", "eu/b"));
    let second = compiler.compile(&system, &changed);
    let same = |name: &str| {
        let find = |config: &Config| {
            config.services.iter().find(|it| it.name == name).cloned().expect("it is there")
        };
        Arc::ptr_eq(&find(&first), &find(&second))
    };
    assert!(same("db") && same("cart in us") && !same("cart in eu"));
    assert!(first.listeners.iter().zip(&second.listeners).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(compiler.compile(&system, &topology()), first, "the same world gives the same snapshot");
}

/// By edge: the ways with anything in them, as `port delay-ms loss cut errors`.
#[track_caller]
fn check_ways(links: Vec<Link>, troubles: &[(u16, Trouble)], expected: &[(&str, &str)]) {
    let system = system(SHOP);
    let topology = Topology {
        instances: vec![
            instance("cart", 1, "v1.0.0", "eu/a"),
            instance("cart", 2, "v1.0.0", "us/a"),
            instance("db", 3, "", "us/a"),
        ],
        doors: vec![door("web#0", "eu/a", "cart", 11), door("web#1", "eu/b", "db", 12)],
        links,
        troubles: troubles
            .iter()
            .map(|(port, it)| (SocketAddr::from(([127, 0, 0, 1], *port)), it.clone()))
            .collect(),
        ..Topology::default()
    };
    let config = Compiler::default().compile(&system, &topology);
    let words = |it: &config::Way| {
        format!("{} {} {} {} {}", it.to.port(), it.delay.as_millis_f64(), it.loss, it.cut, it.errors)
    };
    let found: Vec<(&str, String)> = config
        .edges
        .iter()
        .flat_map(|edge| edge.ways.iter().map(move |way| (edge.name.as_str(), words(way))))
        .collect();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, words)| (*name, words.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn ways_are_what_lies_between_two_places_and_before_an_instance() {
    let area =
        |region: &str, zone: Option<&str>| Area { region: region.into(), zone: zone.map(str::to_owned) };
    let link = |from: Area, to: Area, cut| Link {
        from,
        to,
        delay: Nanos::from_millis(40),
        jitter: Percent::ZERO,
        loss: Percent::from_whole(10),
        cut,
    };
    check_ways(Vec::new(), &[], &[]);
    let (eu, us) = (|| area("eu", None), || area("us", None));
    check_ways(vec![link(eu(), us(), false)], &[], &[("web#1->db", "3 40 10% false 0%")]);
    check_ways(
        vec![link(area("eu", Some("b")), us(), true), link(eu(), us(), false)],
        &[],
        &[("web#1->db", "3 80 19% true 0%")],
    );
    check_ways(vec![link(us(), eu(), true), link(area("eu", Some("a")), us(), true)], &[], &[]);
    let troubled = Trouble { delay: Nanos::from_millis(5), errors: Percent::from_whole(2) };
    check_ways(
        Vec::new(),
        &[(1, troubled)],
        &[("web#0->cart", "1 5 0% false 2%"), ("web#0->cart \"POST /cart\"", "1 5 0% false 2%")],
    );
}
