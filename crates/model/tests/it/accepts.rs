//! Everything that `docs/file.md` says is accepted is accepted.

use model::load::{Loaded, load_str};

#[track_caller]
fn accepted(text: &str) -> Loaded {
    let loaded = load_str(text);
    let problems: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|it| format!("{} {} ({:?}) {:?}", it.code, it.message, it.span, it.help))
        .collect();
    assert!(loaded.is_good(), "{}", problems.join("\n"));
    loaded
}

#[test]
fn the_smallest_file_is_a_system() {
    let loaded = accepted("isobar: 1\nservices:\n  hello:\n    operations:\n      \"GET /\": {work: 5ms}\n");
    let system = loaded.system().expect("it is good");
    assert_eq!(system.services.len(), 1);
    assert_eq!(system.regions.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["local"]);
}

#[test]
fn every_key_of_the_documentation_is_known() {
    let loaded = accepted(include_str!("everything.yaml"));
    let system = loaded.system().expect("it is good");
    assert_eq!(system.name, "shop");
    assert_eq!(system.edges.rules.len(), 5);
    assert_eq!(system.edges.rules[0].specificity(), 0, "most general first");
    assert_eq!(system.edges.rules[4].specificity(), 5);
    assert_eq!(system.network.pairs.len(), 3);
}
