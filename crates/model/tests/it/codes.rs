//! Every code that the source mentions is in the table, has a page, and occurs; and the table has no others.

use model::codes::CODES;
use std::collections::BTreeSet;
use std::path::Path;

fn codes_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            codes_in(&path, found);
        } else if !path.ends_with("codes.rs") {
            let text = std::fs::read_to_string(&path).expect("source is text");
            for (at, _) in text.match_indices("\"E0") {
                let code = &text[at + 1..(at + 6).min(text.len())];
                if text[at + 6..].starts_with('"') && code[1..].bytes().all(|it| it.is_ascii_digit()) {
                    found.insert(code.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_code_is_used_titled_and_explained() {
    let mut used = BTreeSet::new();
    codes_in(Path::new("src"), &mut used);
    let listed: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert!(listed.is_sorted(), "the table is searched by halves");
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), listed);
    for (code, title) in CODES {
        let page = std::fs::read_to_string(format!("../../docs/errors/{code}.md")).unwrap_or_default();
        assert!(page.starts_with(&format!("# {code}: {title}\n")), "docs/errors/{code}.md");
        assert_eq!(model::codes::title(code), Some(*title));
    }
}

#[test]
fn an_unknown_code_has_no_title() {
    assert_eq!(model::codes::title("E9999"), None);
    assert!(model::codes::title("L007").is_some());
}
