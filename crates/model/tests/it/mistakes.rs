//! Each mistake is one diagnostic, with its code and its place.

use model::load::load_str;

/// `expected`: a line per diagnostic, `LINE:COLUMN CODE underlined text`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let loaded = load_str(text);
    let found: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|it| {
            let text = &loaded.sources.files[it.span.file as usize].text;
            let (start, end) = (it.span.start as usize, it.span.end as usize);
            let line = text[..start].matches('\n').count() + 1;
            let column = start - text[..start].rfind('\n').map_or(0, |at| at + 1) + 1;
            format!("{line}:{column} {} {}", it.code, text[start..end].lines().next().unwrap_or(""))
        })
        .collect();
    assert_eq!(found, expected, "{:#?}", loaded.diagnostics);
}

#[test]
fn one_misspelt_name_is_one_mistake() {
    check(
        "isobar: 1
services:
  web: {operations: {\"GET /\": {work: 1ms, calls: [checkuot]}}}
  checkout: {}
",
        &["3:51 E0301 checkuot"],
    );
}

#[test]
fn a_broken_definition_does_not_spoil_its_references() {
    check(
        "isobar: 1
services:
  web: {operations: {\"GET /\": {work: 1ms, calls: [cart \"GET /\", cart \"GET /x\"]}}}
  cart: 17
",
        &["4:9 E0203 17"],
    );
}

#[test]
fn syntax_errors_do_not_end_the_reading() {
    check(
        "isobar: 1
teams:
  a: {contact: \"#a\"
  b: {contact: \"#b\"}
services:
  web: {team: c, replicas: 0}
  cart: {team: a, tiemout: 3}
",
        &["4:3 E0006 b:", "6:28 E0209 0", "7:19 E0201 tiemout"],
    );
}

#[test]
fn a_mapping_that_never_opened_is_read_from_its_next_line() {
    check(
        "isobar: 1
services: {a: {}, db: {}}
edges:
  * -> db: {timeout: 1s}
  a -> db: {timeout: 3}
scenarios:
  x: {do: [remove b]}
",
        &["4:3 E0006 *", "5:22 E0204 3", "7:12 E0301 remove b"],
    );
}

#[test]
fn a_law_cut_by_a_comma_is_one_mistake() {
    check(
        "isobar: 1
services:
  a: {operations: {read: uniform(1ms, 5ms), write: {work: lognormal(p50 1ms, p99 8ms), calls: []}}}
",
        &["3:26 E0016 uniform(1ms, 5ms)", "3:59 E0016 lognormal(p50 1ms, p99 8ms)"],
    );
}
