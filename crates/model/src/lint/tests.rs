//! Every rule finds what it is for and leaves its nearest neighbour alone. The cases are files in `tests/lints`:
//! `L007.yaml` is reported once, by L007 and nobody else; `L007-near-miss.yaml` is reported by nobody.

use super::*;
use crate::load::{Disk, load, load_str};
use std::path::{Path, PathBuf};

const TODAY: (u16, u8, u8) = (2026, 1, 1);

/// The codes of all findings, in order.
#[track_caller]
fn findings(path: &Path) -> Vec<Diagnostic> {
    let loaded = load(&Disk, path);
    let mistakes: Vec<_> = loaded.diagnostics.iter().map(|it| (it.code, &it.message)).collect();
    let system = loaded.system().unwrap_or_else(|| panic!("{}: {mistakes:?}", path.display()));
    run(system, TODAY)
}

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// What differs from the expected codes, in words; empty when nothing does.
fn difference(path: &Path, expected: &[&str]) -> String {
    let found = findings(path);
    if found.iter().map(|it| it.code).eq(expected.iter().copied()) {
        return String::new();
    }
    let told: Vec<_> = found.iter().map(|it| format!("  {}: {}\n", it.code, it.message)).collect();
    format!("{}: expected {expected:?}, found\n{}", path.display(), told.concat())
}

#[test]
fn every_rule_finds_its_case_once_and_spares_its_near_miss() {
    let mut differences = String::new();
    for rule in RULES {
        let file =
            |name: &str| from_root("crates/model/tests/lints").join(format!("{}{name}.yaml", rule.code));
        differences += &difference(&file(""), &[rule.code]);
        differences += &difference(&file("-near-miss"), &[]);
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn every_rule_has_a_page_and_every_page_a_rule() {
    const HEADINGS: [&str; 4] =
        ["## Why it hurts", "## An outage of this shape", "## How to fix it", "## When to waive it"];
    let readme = std::fs::read_to_string(from_root("docs/lints/README.md")).expect("the index of lints");
    for rule in RULES {
        let page = std::fs::read_to_string(from_root(rule.docs)).expect(rule.docs);
        assert!(page.starts_with(&format!("# {} {}\n", rule.code, rule.name)), "{}", rule.docs);
        let headings: Vec<_> = page.lines().filter(|it| it.starts_with("## ")).collect();
        assert_eq!(headings, HEADINGS, "{}", rule.docs);
        for section in page.split("## ").skip(1) {
            assert!(section.lines().skip(1).any(|it| !it.is_empty()), "an empty section in {}", rule.docs);
        }
        let severity = format!("{:?}", rule.severity).to_lowercase();
        let row =
            format!("| [{}]({}.md) | {} | {severity} | {} |", rule.code, rule.code, rule.name, rule.summary);
        assert!(readme.contains(&row), "docs/lints/README.md lacks: {row}");
    }
    let pages = std::fs::read_dir(from_root("docs/lints")).expect("docs/lints");
    for page in pages {
        let name = page.expect("an entry").file_name().into_string().expect("a plain name");
        let known = name == "README.md" || rule(name.trim_end_matches(".md")).is_some();
        assert!(known, "docs/lints/{name} is about no rule");
    }
    let rows = readme.lines().filter(|it| it.starts_with("| [L")).count();
    assert_eq!(rows, RULES.len(), "docs/lints/README.md");
}

#[test]
fn codes_are_in_order_without_gaps() {
    for (at, rule) in RULES.iter().enumerate() {
        assert_eq!(rule.code, format!("L{:03}", at + 1));
    }
}

#[test]
fn examples_have_the_risks_they_are_meant_to_have() {
    // What is left to say about an example is part of what it shows.
    let examples: &[(&str, &[&str])] = &[
        ("examples/hello", &["L018", "L026"]),
        ("examples/shop", &["L040", "L010", "L018"]),
        ("examples/shop-one-zone", &["L008", "L010", "L018"]),
        ("examples/streaming", &[]),
        ("examples/iot", &[]),
        ("examples/lessons/cold-cache", &["L036"]),
        ("examples/lessons/jitter", &["L004", "L005", "L039", "L004", "L005"]),
        ("examples/lessons/layers", &["L004", "L005", "L004", "L004"]),
        ("examples/lessons/metastable", &["L004", "L005"]),
        ("examples/lessons/mm1", &[]),
        ("examples/lessons/mmc", &[]),
        ("examples/lessons/open-or-closed", &[]),
        ("examples/lessons/retry-budget", &["L004"]),
        ("examples/lessons/retry-collapse", &["L004", "L005"]),
        ("examples/migration/00-lamp.yaml", &[]),
        ("examples/migration/01-cache.yaml", &["L007"]),
        ("examples/migration/02-proxy.yaml", &["L007"]),
        ("examples/migration/03-data-layer.yaml", &[]),
        ("examples/migration/04-second-service.yaml", &[]),
        ("examples/migration/05-cassandra-beside-mysql.yaml", &[]),
        ("examples/migration/06-cassandra-only.yaml", &[]),
        ("examples/migration/07-two-regions.yaml", &[]),
        ("examples/migration/08-one-ring.yaml", &[]),
        ("examples/migration/09-three-regions.yaml", &[]),
    ];
    let mut differences = String::new();
    for (path, expected) in examples {
        differences += &difference(&from_root(path), expected);
    }
    assert!(differences.is_empty(), "{differences}");
}

/// `expected`: a line per service, its requests a second at the moment, as `web 12`.
#[track_caller]
fn check_flow(moment: flow::Moment, text: &str, expected: &[&str]) {
    let loaded = load_str(text);
    let system = loaded.system().unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    let flow = flow::Flow::of(system, moment);
    let rates: Vec<String> = system
        .services
        .enumerate()
        .map(|(id, service)| format!("{} {}", service.name.value, words::figure(flow.service_rate(id))))
        .collect();
    assert_eq!(rates, expected);
}

#[test]
fn traffic_flows_through_routes_chances_caches_and_topics() {
    let text = r#"
isobar: 1
gateways:
  edge:
    listen: "127.0.0.1:8080"
    routes: [{path: /api, to: {old: 90, new: 10}, rewrite: /}, {path: /, to: web}]
services:
  web:
    operations:
      "GET /items/{id}": {work: 1ms, calls: [cart "GET /", {call: cart "GET /", chance: 25%, times: 2}]}
      "GET /idle": {work: 1ms, calls: [{call: cart "GET /", times: 100}]}
  cart: {operations: {"GET /": {work: 1ms, calls: [cache "get"]}}}
  cache: {kind: cache, cache: {hit_rate: 90%}, operations: {get: {work: 1ms, calls: [db "read"]}}}
  db: {kind: store, operations: {read: 1ms}}
  old: {operations: {"GET /x": {work: 1ms, calls: [{call: events "publish", detached: true}]}}}
  new: {operations: {"GET /x": 1ms}}
  events: {kind: queue, operations: {publish: 1ms, read: 1ms}, topic: {partitions: 3, consumers: [mail, bill]}}
  mail: {operations: {send: 1ms}}
  bill: {operations: {send: 1ms}}
traffic:
  shoppers: {to: edge "GET /items/7", rate: 100/s}
  robots: {to: edge "GET /api/x", rate: 50/s}
"#;
    let expected =
        ["web 100", "cart 150", "cache 150", "db 15", "old 45", "new 5", "events 45", "mail 45", "bill 45"];
    check_flow(flow::Moment::Sustained, text, &expected);
}

#[test]
fn loads_that_move_are_taken_at_the_asked_moment() {
    let text = r#"
isobar: 1
services:
  ramp: {operations: {"GET /": 1ms}}
  day: {operations: {"GET /": 1ms}}
  burst: {operations: {"GET /": 1ms}}
  closed: {operations: {"GET /": {work: 100ms, calls: [slow "GET /"]}}}
  slow: {operations: {"GET /": 400ms}}
traffic:
  a: {to: ramp "GET /", rate: 10/s, shape: {ramp: {to: 50/s, over: 1min}}}
  b: {to: day "GET /", rate: 10/s, shape: {diurnal: {peak: 40/s, period: 24h}}}
  c: {to: burst "GET /", rate: 10/s, shape: {burst: {to: 110/s, lasting: 6s, every: 1min}}}
  d: {to: closed "GET /", users: 30, think: 1s}
"#;
    check_flow(flow::Moment::Start, text, &["ramp 10", "day 10", "burst 10", "closed 20", "slow 20"]);
    check_flow(flow::Moment::Sustained, text, &["ramp 50", "day 40", "burst 20", "closed 20", "slow 20"]);
    check_flow(flow::Moment::Peak, text, &["ramp 50", "day 40", "burst 110", "closed 20", "slow 20"]);
}

#[test]
fn cycles_settle_at_their_sum_or_are_named() {
    let circle = |chance: &str| {
        format!(
            r#"
isobar: 1
services:
  a: {{operations: {{"GET /": {{work: 1ms, calls: [b "GET /"]}}}}}}
  b: {{operations: {{"GET /": {{work: 1ms, calls: [{{call: a "GET /", chance: {chance}}}, c "GET /"]}}}}}}
  c: {{operations: {{"GET /": 1ms}}}}
traffic: {{t: {{to: a "GET /", rate: 100/s}}}}
"#
        )
    };
    // 100 + half of it + half of that ...
    check_flow(flow::Moment::Sustained, &circle("50%"), &["a 200", "b 200", "c 200"]);
    let loaded = load_str(&circle("99.99%"));
    let system = loaded.system().expect("a circle with a way out");
    let unbounded = flow::Flow::of(system, flow::Moment::Sustained).unbounded;
    assert_eq!(unbounded.len(), 2, "a request that all but never leaves: {unbounded:?}");
}

#[test]
fn waivers_take_out_what_they_name_and_no_more() {
    let file = |waiver: &str| {
        format!(
            r##"
isobar: 1
teams: {{shop: {{contact: "#shop"}}, other: {{contact: "#other"}}}}
places: {{eu-west: {{zones: [a, b, c]}}}}
x-base: &base {{team: shop, replicas: 3, health: {{path: /healthz}}}}
services:
  web: {{<<: *base, operations: {{"GET /": {{work: 1ms, calls: [cart "GET /", ads "GET /"]}}}}}}
  cart: {{<<: *base, operations: {{"GET /": 1ms}}}}
  ads: {{<<: *base, replicas: 1, operations: {{"GET /": 1ms}}}}
waive: [{{lint: {waiver}, reason: "said", until: 2026-01-01}}]
"##
        )
    };
    for (waiver, expected) in [
        ("L007, on: ads", "L002 2 edges have no timeout: they may wait for ever"),
        ("L007", "L002 2 edges have no timeout: they may wait for ever"),
        ("L007, on: shop", "L002 2 edges have no timeout: they may wait for ever"),
        ("L002, on: web -> ads", "L002 `web -> cart` has no timeout: it may wait for ever; L007"),
        ("L002, on: web", "L007"),
        ("L002, on: cart", "L002 2 edges have no timeout: they may wait for ever; L007; L042"),
        ("L002, on: other", "L002 2 edges have no timeout: they may wait for ever; L007; L042"),
    ] {
        let loaded = load_str(&file(waiver));
        let system = loaded.system().unwrap_or_else(|| panic!("{waiver}: {:#?}", loaded.diagnostics));
        let told: Vec<String> = run(system, TODAY)
            .into_iter()
            .map(|it| if it.code == "L002" { format!("L002 {}", it.message) } else { it.code.to_string() })
            .collect();
        assert_eq!(told.join("; "), expected, "{waiver}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever calls whatever, by whichever policy: every rule ends, none panics, and the answer is the same twice.
    #[test]
    fn any_system_is_judged_and_twice_alike(
        calls in proptest::collection::vec((0usize..6, 0usize..6, 0u32..4, 0u32..3), 0..24),
        policies in proptest::collection::vec((0usize..6, 0usize..6, 1u64..2_000, 1u8..5), 0..12),
        replicas in proptest::collection::vec(1u32..7, 6),
        rate in 1u32..5_000,
    ) {
        use std::fmt::Write;
        let mut text = String::from("isobar: 1\nplaces: {x: {zones: [a, b]}, y: {zones: [a]}}\nservices:\n");
        for service in 0..6 {
            let kind = ["http", "grpc", "cache", "store", "queue", "external"][service];
            let mut steps: Vec<String> = calls
                .iter()
                .filter(|it| it.0 == service)
                .map(|(_, to, how, times)| {
                    let how = ["", ", optional: true", ", detached: true", ", fallback: {call: s0}"][*how as usize];
                    format!("{{call: s{to}, chance: 40%, times: {}{how}}}", times + 1)
                })
                .collect();
            steps.sort();
            let replicas = replicas[service];
            let _ = writeln!(
                text,
                "  s{service}: {{kind: {kind}, replicas: {replicas}, concurrency: 4, slo: {{availability: 99.9%}}, \
                operations: {{op: {{work: 1ms, calls: [{}]}}}}}}",
                steps.join(", ")
            );
        }
        text.push_str("edges:\n  default: {retry: {attempts: 2}}\n");
        let mut said = std::collections::BTreeSet::new();
        for (from, to, timeout, attempts) in policies {
            if said.insert((from, to)) {
                let _ = writeln!(text, "  s{from} -> s{to}: {{timeout: {timeout}ms, retry: {{attempts: {attempts}}}}}");
            }
        }
        let _ = writeln!(text, "traffic: {{t: {{to: s0, rate: {rate}/s}}}}");
        let loaded = load_str(&text);
        // What can never end is refused before any lint sees it.
        if let Some(system) = loaded.system() {
            proptest::prop_assert_eq!(run(system, TODAY), run(system, TODAY));
        } else {
            let codes: Vec<_> = loaded.diagnostics.iter().map(|it| it.code).collect();
            proptest::prop_assert!(codes.iter().all(|it| it.starts_with("E04")), "{text}\n{codes:?}");
        }
    }
}
