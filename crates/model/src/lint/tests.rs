//! Every rule finds what it is for and leaves its nearest neighbour alone. The cases are files in `tests/lints`:
//! `L007.yaml` is reported once, by L007 and nobody else; `L007-near-miss.yaml` is reported by nobody.

use super::*;
use crate::load::{Disk, load};
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
