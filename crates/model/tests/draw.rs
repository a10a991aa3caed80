//! Drawings: one diagram in every format, at every level.

use model::draw::levels::{self, Level};
use model::draw::{Diagram, Edge, Format, Group, Line, Node, Shape, Stamp};
use model::load::load_str;
use model::system::System;
use serde_json::Value;

const SHOP: &str = r##"
isobar: 1
system: shop
teams: {front: {contact: "#front"}, money: {}}
places: {eu: {zones: [a, b]}, us: {zones: [a]}}
services:
  web:
    team: front
    replicas: {eu: 2, us: 1}
    operations:
      "GET /":
        calls:
          - all: [cart "GET /cart", {call: ads, optional: true}]
          - {call: cards "charge", fallback: {call: later}}
  cart: {team: front, reach: same-zone, replicas: {eu: 2, us: 1}, operations: {"GET /cart": {calls: [db]}}}
  ads: {replicas: {us: 1}, discovery: everywhere}
  db: {team: money, kind: store, replicas: {eu/b: 2}}
  later: {team: money, kind: queue, topic: {consumers: [mailer]}}
  mailer: {team: front, needs: [db]}
  cards: {kind: external, operations: {charge: 5ms}}
gateways:
  edge: {listen: "127.0.0.1:8080", team: front, routes: [{path: /, to: web, mirror: {to: ads, share: 1%}}]}
traffic:
  people: {to: edge "GET /", rate: 20/s}
"##;

#[track_caller]
fn system(text: &str) -> System {
    let loaded = load_str(text);
    assert!(loaded.is_good(), "{:#?}", loaded.diagnostics);
    loaded.into_system().expect("a good file has a system")
}

/// The arrows of a level as `from > to line`, in order.
#[track_caller]
fn check(level: Level, nodes: &str, expected: &str) {
    let diagram = levels::diagram(&system(SHOP), level).expect("few instances");
    let ids: Vec<&str> = diagram.nodes.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids.join(" "), nodes);
    let arrow = |it: &Edge| format!("{} > {} {}", ids[it.from], ids[it.to], it.line.word());
    let arrows: Vec<String> = diagram.edges.iter().map(arrow).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(arrows, expected);
}

#[test]
fn services_call_wait_and_need() {
    check(
        Level::Service,
        "gateway/edge web cart ads db later mailer cards",
        "gateway/edge > web waits
        gateway/edge > ads optional
        web > cart waits
        web > ads optional
        web > cards optional
        web > later optional
        cart > db waits
        later > mailer optional
        mailer > db needs",
    );
}

#[test]
fn teams_wait_for_teams() {
    check(
        Level::Team,
        "front money * external/cards",
        "front > money waits
        front > * optional
        front > external/cards optional
        money > front optional",
    );
}

#[test]
fn a_system_stands_between_those_who_call_it_and_those_it_calls() {
    check(
        Level::System,
        "system gateway/edge traffic/people external/cards",
        "gateway/edge > system waits
        traffic/people > gateway/edge waits
        system > external/cards waits",
    );
}

#[test]
fn instances_are_placed_and_wired() {
    check(
        Level::Instance,
        "shop.eu.a.web00 shop.eu.b.web01 shop.us.a.web02 shop.eu.a.cart00 shop.eu.b.cart01 shop.us.a.cart02 \
         shop.us.a.ads00 shop.eu.b.db00 shop.eu.b.db01 shop.eu.a.later00 shop.eu.a.mailer00 shop.*.*.cards00",
        "shop.eu.a.web00 > shop.eu.a.cart00 waits
        shop.eu.a.web00 > shop.eu.b.cart01 waits
        shop.eu.a.web00 > shop.us.a.ads00 optional
        shop.eu.a.web00 > shop.*.*.cards00 optional
        shop.eu.a.web00 > shop.eu.a.later00 optional
        shop.eu.b.web01 > shop.eu.a.cart00 waits
        shop.eu.b.web01 > shop.eu.b.cart01 waits
        shop.eu.b.web01 > shop.us.a.ads00 optional
        shop.eu.b.web01 > shop.*.*.cards00 optional
        shop.eu.b.web01 > shop.eu.a.later00 optional
        shop.us.a.web02 > shop.us.a.cart02 waits
        shop.us.a.web02 > shop.us.a.ads00 optional
        shop.us.a.web02 > shop.*.*.cards00 optional
        shop.eu.b.cart01 > shop.eu.b.db00 waits
        shop.eu.b.cart01 > shop.eu.b.db01 waits
        shop.eu.a.later00 > shop.eu.a.mailer00 optional
        shop.eu.a.mailer00 > shop.eu.b.db00 needs
        shop.eu.a.mailer00 > shop.eu.b.db01 needs",
    );
}

fn shop(level: Level) -> Diagram {
    levels::diagram(&system(SHOP), level).expect("few instances")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("what claims to be JSON is JSON")
}

#[test]
fn every_format_holds_every_node_and_edge() {
    for level in Level::ALL {
        let diagram = shop(level);
        let (nodes, edges) = (diagram.nodes.len(), diagram.edges.len());
        let written = |format| diagram.write(format, &Stamp::default());
        let count = |format, what: &str| written(format).matches(what).count();
        assert_eq!(count(Format::Svg, "<g class=\"node "), nodes);
        assert_eq!(count(Format::Svg, "<title>"), nodes + edges);
        assert_eq!(count(Format::Dot, " [shape="), nodes);
        assert_eq!(count(Format::Dot, " -> "), edges);
        assert_eq!(count(Format::Mermaid, "->"), edges);
        assert_eq!(count(Format::GraphMl, "<node "), nodes);
        assert_eq!(count(Format::GraphMl, "<edge "), edges);
        let plain = json(&written(Format::Json));
        assert_eq!(plain["nodes"].as_array().map(Vec::len), Some(nodes));
        assert_eq!(plain["edges"].as_array().map(Vec::len), Some(edges));
        let d3 = json(&written(Format::D3));
        assert_eq!(
            (d3["nodes"].as_array().map(Vec::len), d3["links"].as_array().map(Vec::len)),
            (Some(nodes), Some(edges))
        );
        let spigo = json(&written(Format::Spigo));
        assert_eq!(spigo["graph"].as_array().map(Vec::len), Some(nodes + edges));
    }
}

#[test]
fn every_key_that_graphml_uses_is_declared() {
    let written = shop(Level::Instance).write(Format::GraphMl, &Stamp::default());
    let declared: Vec<&str> =
        written.split("<key id=\"").skip(1).filter_map(|it| it.split('"').next()).collect();
    for used in written.split("<data key=\"").skip(1).filter_map(|it| it.split('"').next()) {
        assert!(declared.contains(&used), "{used} in {declared:?}");
    }
}

#[test]
fn spigo_reads_its_own_names() {
    let stamp = Stamp { date: "2026-11-20T10:00:00Z".into(), args: "[isobar]".into() };
    let written = json(&shop(Level::Instance).write(Format::Spigo, &stamp));
    assert_eq!((&written["arch"], &written["version"]), (&"shop".into(), &"spigo-0.4".into()));
    assert_eq!(written["graph"][7]["node"], "shop.eu.b.db00");
    assert_eq!(written["graph"][7]["package"], "store");
    assert_eq!(written["graph"][12]["edge"], "e1");
    assert_eq!(written["graph"][12]["source"], "shop.eu.a.web00");
    assert_eq!(written["graph"][12]["timestamp"], "2026-11-20T10:00:00Z");
}

/// A picture must not load, run or refer to anything, whatever is in it.
#[test]
fn a_picture_is_self_contained_and_inert() {
    let evil =
        r#""/><script>alert(1)</script><image href="http://evil"/><style>@import url(x)</style>&x;]]>"#;
    let node = |id: &str| Node {
        id: id.into(),
        name: evil.into(),
        note: evil.into(),
        shape: Shape::Http,
        group: Some(0),
        alike: None,
        facts: vec![("team", evil.into())],
    };
    let diagram = Diagram {
        title: evil.into(),
        subtitle: evil.into(),
        nodes: vec![node("a"), node("b")],
        edges: vec![Edge { from: 0, to: 1, line: Line::Waits, note: evil.into(), calls: 2 }],
        groups: vec![Group { name: evil.into(), what: "team", parent: None }],
    };
    let svg = diagram.write(Format::Svg, &Stamp::default());
    let known = ["svg", "title", "desc", "style", "defs", "marker", "path", "rect", "text", "g"];
    for tag in svg.split('<').skip(1) {
        let name = tag.trim_start_matches('/').split([' ', '>', '/']).next().unwrap_or_default();
        assert!(known.contains(&name), "<{tag}");
        let attributes = tag.split('>').next().unwrap_or_default();
        // Every attribute is ours: a name cannot end its quotes.
        assert!(!["href", "onload", "script"].iter().any(|it| attributes.contains(it)), "<{tag}");
    }
    assert_eq!((svg.matches("<style>").count(), svg.matches("url(http").count()), (1, 0));
    assert!(!svg.contains("&x;"), "no entity of theirs");
    assert!(
        svg.contains("prefers-color-scheme:dark") && svg.contains("role=\"img\"") && svg.contains("<desc")
    );
}

#[test]
fn too_much_is_said_not_drawn() {
    let text = "isobar: 1\nservices:\n  a: {replicas: 100000}\n  b: {replicas: 100000, operations: {\"GET /\": {calls: [a]}}}\n";
    let error = levels::diagram(&system(text), Level::Instance).expect_err("ten thousand million wires");
    assert!(error.to_string().contains("--level service"), "{error}");
}
