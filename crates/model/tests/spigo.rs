//! Imported architectures must have exactly the instances and wires that spigo gave them.

use std::collections::BTreeSet;

use model::draw::levels::{self, Level};
use model::import::spigo::{Options, import};
use model::load::load_str;
use model::system::System;
use proptest::prelude::*;
use serde_json::Value;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("data/spigo/", $name, ".json"))
    };
}

#[track_caller]
fn imported(json: &str, options: Options) -> System {
    let imported = import(json.as_bytes(), options).unwrap_or_else(|error| panic!("{error}"));
    let loaded = load_str(&imported.text);
    assert!(loaded.is_good(), "{}\n{:#?}", imported.text, loaded.diagnostics);
    loaded.into_system().expect("a good file has a system")
}

/// (nodes, edges) as names.
#[track_caller]
fn graph(json: &str, options: Options) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    let diagram = levels::diagram(&imported(json, options), Level::Instance).expect("few enough");
    let nodes: BTreeSet<String> = diagram.nodes.iter().map(|it| it.id.clone()).collect();
    assert_eq!(nodes.len(), diagram.nodes.len(), "every instance has a name of its own");
    let name = |it: usize| diagram.nodes[it].id.clone();
    let edges: BTreeSet<_> = diagram.edges.iter().map(|it| (name(it.from), name(it.to))).collect();
    assert_eq!(edges.len(), diagram.edges.len(), "every pair counts once");
    (nodes, edges)
}

#[track_caller]
fn check(json: &str, options: Options, nodes: usize, edges: usize) {
    let graph = graph(json, options);
    assert_eq!((graph.0.len(), graph.1.len()), (nodes, edges));
    assert_eq!(graph, reference(json, options));
}

const PLAIN: Options = Options { regions: 1, scale: 100 };

#[test]
fn golden_counts() {
    check(data!("lamp"), PLAIN, 23, 73);
    check(data!("storage"), PLAIN, 6, 5);
    check(data!("testyaml"), PLAIN, 9, 18);
    check(data!("riak"), PLAIN, 51, 165);
}

#[test]
fn golden_counts_of_the_migration() {
    check(data!("migration0"), PLAIN, 13, 30);
    check(data!("migration1"), PLAIN, 14, 39);
    check(data!("migration2"), PLAIN, 23, 66);
    check(data!("migration3"), PLAIN, 31, 87);
    check(data!("migration4"), PLAIN, 40, 132);
    check(data!("migration5"), PLAIN, 52, 336);
    check(data!("migration6"), PLAIN, 50, 322);
    check(data!("migration7"), PLAIN, 99, 644);
    check(data!("migration8"), PLAIN, 99, 1076);
    check(data!("migration9"), PLAIN, 148, 2262);
}

#[test]
fn scaling_divides_whole_numbers() {
    // 2, 1 and 18 at 50 % are 1, none (a zone-less node) and 9.
    check(data!("lamp"), Options { regions: 1, scale: 50 }, 13, 28);
    // Each region has its own; only the global www reaches both balancers.
    check(data!("lamp"), Options { regions: 2, scale: 100 }, 45, 146);
    let (nodes, _) = graph(data!("lamp"), Options { regions: 2, scale: 100 });
    for name in [
        "lamp.*.*.www00",
        "lamp.us-west-2.*.webserver-elb00",
        "lamp.us-east-1.zoneC.webserver17",
        "lamp.us-west-2.zoneA.webserver18",
        // The index runs on, so the second region of two begins in the third zone.
        "lamp.us-west-2.zoneC.rds-mysql02",
    ] {
        assert!(nodes.contains(name), "{name} in {nodes:?}");
    }
}

#[test]
fn the_victim_becomes_a_scenario_and_the_last_service_gets_the_load() {
    let system = imported(data!("lamp"), PLAIN);
    assert_eq!(system.scenarios[0].name.value, "chaos-monkey");
    assert_eq!(system.traffic.len(), 2);
}

#[track_caller]
fn refused(json: &str, expected: &str) {
    let error = import(json.as_bytes(), PLAIN).expect_err(json).to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn mistakes_name_the_place_the_value_and_the_fix() {
    refused("{", "not JSON");
    refused("[]", "holds no object");
    refused("{}", "services: there are none");
    refused(
        r#"{"services":[{"name":"a","package":"lambda"}]}"#,
        "services[0].package: spigo has no package `lambda`",
    );
    refused(r#"{"services":[{"package":"store"}]}"#, "services[0].name: a service has no name");
    refused(r#"{"services":[{"name":"eureka","package":"store"}]}"#, "reserved");
    let twice = r#"{"services":[{"name":"a","package":"store"},{"name":"a","package":"elb"}]}"#;
    refused(twice, "two services are called `a`");
    refused(
        r#"{"services":[{"name":"a","package":"store","dependencies":["b"]}]}"#,
        "no service is called `b`",
    );
    refused(r#"{"services":[{"name":"a","package":"store","count":-1}]}"#, "from 0");
    refused(r#"{"services":[{"name":"a","package":"store","regions":7}]}"#, "more than spigo's 6");
    refused(
        r#"{"services":[{"name":"a","package":"store","regions":1,"count":4000000000}]}"#,
        "more than a system",
    );
}

#[test]
fn what_is_lost_is_listed() {
    let json = r#"{"arch":"x y","colour":"red","victim":"nobody","services":[
        {"name":"a b","package":"riak","regions":1,"count":1,"dependencies":["r"],"useCustomGuesstimate":true},
        {"name":"r","package":"eureka"}]}"#;
    let imported = import(json.as_bytes(), Options { regions: 1, scale: 50 }).expect("it can be imported");
    let paths: Vec<&str> = imported.dropped.iter().map(|it| it.path.as_str()).collect();
    let expected = [
        "services[0].name",
        "services[0].count",
        "services[0].useCustomGuesstimate",
        "services[0].package",
        "services[1]",
        "services[0].dependencies[0]",
        "colour",
        "victim",
    ];
    assert_eq!(paths, expected);
    assert!(imported.text.contains("# - colour: not a field"), "{}", imported.text);
}

/// The rule as the facts state it, pair by pair, straight from the JSON: slow, and sharing nothing with the code.
fn reference(json: &str, options: Options) -> (BTreeSet<String>, BTreeSet<(String, String)>) {
    const REGIONS: [&str; 6] =
        ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1", "ap-southeast-2"];
    #[derive(Clone)]
    struct Node {
        name: String,
        service: String,
        package: String,
        region: String,
        zone: String,
        dependencies: Vec<String>,
        sees_all: bool,
    }
    let json: Value = serde_json::from_str(json).expect("test data");
    let arch = json["arch"].as_str().unwrap_or("");
    let mut nodes = Vec::new();
    for it in json["services"].as_array().expect("test data") {
        let service = it["name"].as_str().expect("test data").to_string();
        let regions = it["regions"].as_u64().unwrap_or(0) * u64::from(options.regions);
        let count = it["count"].as_u64().unwrap_or(0) * u64::from(options.scale) / 100;
        let dependencies: Vec<String> = it["dependencies"]
            .as_array()
            .map(|it| it.iter().filter_map(|it| it.as_str().map(str::to_string)).collect())
            .unwrap_or_default();
        let mut add = |region: &str, zone: &str, index: u64| {
            nodes.push(Node {
                name: format!("{arch}.{region}.{zone}.{service}{index:02}"),
                service: service.clone(),
                package: it["package"].as_str().unwrap_or("").to_string(),
                region: region.to_string(),
                zone: zone.to_string(),
                sees_all: regions == 0 || dependencies.iter().any(|it| it == "eureka"),
                dependencies: dependencies.clone(),
            });
        };
        if regions == 0 {
            add("*", "*", 0);
        }
        for region in 0..regions {
            if count == 0 {
                add(REGIONS[region as usize], "*", 0);
            }
            for index in region * count..(region + 1) * count {
                add(REGIONS[region as usize], ["zoneA", "zoneB", "zoneC"][(index % 3) as usize], index);
            }
        }
    }
    let mut edges = BTreeSet::new();
    for a in &nodes {
        for b in &nodes {
            let wanted = a.dependencies.contains(&b.service) && a.name != b.name;
            let meet = a.sees_all || b.sees_all || a.region == b.region;
            let in_zone = !["karyon", "zuul"].contains(&a.package.as_str()) || a.zone == b.zone;
            if wanted && meet && in_zone {
                edges.insert((a.name.clone(), b.name.clone()));
            }
        }
    }
    (nodes.into_iter().map(|it| it.name).collect(), edges)
}

fn architecture() -> impl Strategy<Value = String> {
    let packages = prop::sample::select(vec![
        "denominator",
        "elb",
        "zuul",
        "karyon",
        "monolith",
        "staash",
        "store",
        "cache",
        "volume",
        "priamCassandra",
        "riak",
        "pirate",
    ]);
    let service = (packages, 0u32..3, 0u32..5, prop::collection::vec(0usize..8, 0..4), any::<bool>());
    prop::collection::vec(service, 1..8).prop_map(|services| {
        let listed: Vec<Value> = services
            .iter()
            .enumerate()
            .map(|(index, (package, regions, count, targets, everywhere))| {
                let mut dependencies: BTreeSet<String> =
                    targets.iter().map(|it| format!("s{}", it % services.len())).collect();
                if *everywhere {
                    dependencies.insert("eureka".into());
                }
                serde_json::json!({
                    "name": format!("s{index}"), "package": package, "regions": regions, "count": count,
                    "dependencies": dependencies.into_iter().collect::<Vec<_>>(),
                })
            })
            .collect();
        serde_json::json!({"arch": "any", "victim": "s0", "services": listed}).to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any architecture imports into a file that passes check and is wired as spigo would have done.
    #[test]
    fn wiring_is_the_rule(json in architecture(), regions in 1u32..3, scale in 30u32..220) {
        let options = Options { regions, scale };
        prop_assert_eq!(graph(&json, options), reference(&json, options));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = import(&bytes, PLAIN);
    }

    /// Whatever single thing is broken in a good file, the outcome is an error or a file that passes check.
    #[test]
    fn a_changed_file_is_refused_or_still_good(at in 0usize..600, with in "[\\x20-\\x7e]{0,3}") {
        let mut text = data!("riak").to_string();
        let at = at.min(text.len());
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        if let Ok(imported) = import(text.as_bytes(), PLAIN) {
            let loaded = load_str(&imported.text);
            prop_assert!(loaded.is_good(), "{}\n{:#?}", imported.text, loaded.diagnostics);
        }
    }
}
