//! Compose files of every age become files that pass check; what is lost is listed.

use std::path::Path;

use model::import::compose::import;
use model::import::{ImportError, Imported};
use model::load::load_str;
use model::system::{Check, Kind, System, Until};
use proptest::prelude::*;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("data/compose/", $name, ".yaml"))
    };
}

#[track_caller]
fn imported(text: &str) -> (Imported, System) {
    let imported = import(text.as_bytes(), "folder").unwrap_or_else(|error| panic!("{error}"));
    let loaded = load_str(&imported.text);
    assert!(loaded.is_good(), "{}\n{:#?}", imported.text, loaded.diagnostics);
    let system = loaded.into_system().expect("a good file has a system");
    (imported, system)
}

/// The whole outcome, as a file beside the data. `ISOBAR_BLESS=1` writes it anew for review.
#[track_caller]
fn check(name: &str, text: &str) {
    let (imported, _) = imported(text);
    let file = format!("{}/tests/data/compose/{name}.isobar.yaml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("ISOBAR_BLESS").is_some() {
        std::fs::write(&file, &imported.text).expect("the test data can be written");
    }
    let expected = std::fs::read_to_string(Path::new(&file)).unwrap_or_default();
    assert_eq!(imported.text, expected, "{file}");
    for dropped in &imported.dropped {
        assert!(imported.text.contains(&dropped.path), "{dropped} is listed in the file too");
    }
}

#[test]
fn every_age_of_compose_comes_through() {
    check("first-format", data!("first-format"));
    check("second-version", data!("second-version"));
    check("third-version", data!("third-version"));
    check("present", data!("present"));
}

#[test]
fn what_matters_arrives() {
    let (_, system) = imported(data!("third-version"));
    let service = |name: &str| {
        let found = system.services.iter().find(|it| it.name.value == name);
        found.unwrap_or_else(|| panic!("`{name}` was imported"))
    };
    let api = service("api");
    assert_eq!(api.replicas.total(), 3);
    let run = api.run.as_ref().expect("a build with a command runs");
    assert_eq!(run.command.value, "python -m api --port 8000");
    assert_eq!(run.env.get("QUEUE_URL").map(String::as_str), Some("amqp://queue:5672"));
    assert!(!run.env.contains_key("CACHE_URL"), "what the environment decides is not guessed");
    assert_eq!(run.port, Some(8000));
    assert_eq!(api.health.check, Check::Http { path: "/healthz?deep=1".into() });
    assert_eq!(api.health.every.to_string(), "1.5min");
    assert_eq!(api.needs[0].until, Until::Healthy);
    assert!(service("migrate").run.as_ref().is_some_and(|it| it.job), "what others await is a job");
    assert_eq!((service("queue").kind, service("cache").kind), (Kind::Queue, Kind::Cache));
    assert_eq!(system.gateways.len(), 1);
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = import(text.as_bytes(), "x").expect_err(text).to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn mistakes_name_the_place_the_value_and_the_fix() {
    refused("", "the file is empty");
    refused("[]", "the file holds a list");
    refused("version: '3'", "services: there are none");
    refused("services: {}", "services: there are none");
    refused("services: [web]", "services: expected a mapping");
    refused("services: {web: nginx}", "services.web: expected a mapping, found a text");
    refused("services: {a: {extends: {service: b}}}", "services.a.extends: no service is called `b`");
    refused("services: {a: {extends: b}, b: {extends: a}}", "extend each other without end");
    refused("services: {a: {image: x}\n", "");
    assert!(matches!(import(b"services: {a: &a {b: *c}}", "x"), Err(ImportError::Text { .. })));
    assert!(import(b"\xff\xfe", "x").is_err());
}

/// Compose files as a careless person writes them.
fn file() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "",
        "x",
        "web",
        "db",
        "null",
        "5",
        "${A:-b}",
        "$$x",
        "8080:80",
        "80",
        "1m",
        "'a: b'",
        "\"\\n\"",
        "true",
        "::",
        "[]",
        "{}",
        "[web, db]",
        "{web: {condition: service_healthy}}",
        "{web: 1, db: {condition: service_completed_successfully}}",
        "{context: ., target: x}",
        "{replicas: 2}",
        "[\"CMD\", curl, \"http://localhost/x\"]",
        "{test: [CMD, true], interval: 5s}",
        "['A=b', C, 'D=${E}']",
        "[{target: 80, published: 8080}, '9000-9002:80-82', '1:2:3:4']",
        "redis",
        "postgres:16",
        "-1",
        "{service: db}",
    ]);
    let key = prop::sample::select(vec![
        "image",
        "build",
        "command",
        "entrypoint",
        "environment",
        "env_file",
        "healthcheck",
        "ports",
        "deploy",
        "scale",
        "depends_on",
        "links",
        "labels",
        "profiles",
        "networks",
        "volumes",
        "restart",
        "extends",
        "stop_grace_period",
        "x-y",
        "z",
    ]);
    let service = prop::collection::btree_map(key, scalar, 0..6);
    let name = prop::sample::select(vec![
        "web",
        "db",
        "_a",
        "a b",
        "'1'",
        "web-2",
        "long-long-long-long-long-long-long-long-long-long-long-long-long-name",
    ]);
    prop::collection::btree_map(name, service, 1..5).prop_map(|services| {
        let mut text = String::from("services:\n");
        for (name, keys) in services {
            text.push_str(&format!("  {name}:\n"));
            for (key, value) in keys {
                text.push_str(&format!("    {key}: {value}\n"));
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_careless_file_is_refused_or_imported_well(text in file()) {
        if let Ok(imported) = import(text.as_bytes(), "folder") {
            let loaded = load_str(&imported.text);
            prop_assert!(loaded.is_good(), "{}\n{}\n{:#?}", text, imported.text, loaded.diagnostics);
        }
    }

    #[test]
    fn a_changed_file_is_refused_or_imported_well(at in 0usize..2_000, with in "[\\x09-\\x7e]{0,4}", which in 0usize..4) {
        let mut text = [data!("first-format"), data!("second-version"), data!("third-version"), data!("present")][which].to_string();
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) { at -= 1; }
        text.insert_str(at, &with);
        if let Ok(imported) = import(text.as_bytes(), "folder") {
            let loaded = load_str(&imported.text);
            prop_assert!(loaded.is_good(), "{}\n{:#?}", imported.text, loaded.diagnostics);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = import(&bytes, "x");
    }
}
