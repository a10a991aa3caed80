//! For a code host: SARIF 2.1.0, one run, relative paths, a rule with a page for each code that occurs.

use super::page_of;
use super::place::Places;
use crate::codes;
use crate::diagnostic::{Diagnostic, Severity};
use crate::span::{Sources, Span};
use serde_json::{Value, json};
use std::path::{Component, Path};

/// The whole log as one JSON document. `version` is the tool's.
pub fn sarif(sources: &Sources, diagnostics: &[Diagnostic], version: &str) -> Value {
    let places = Places::new(sources);
    let mut codes: Vec<&'static str> = diagnostics.iter().map(|it| it.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules = codes.iter().map(|code| {
        let first = diagnostics.iter().find(|it| it.code == *code);
        let level = first.map_or("error", |it| level(it.severity));
        let title = codes::title(code).unwrap_or(code);
        json!({
            "id": code,
            "shortDescription": {"text": title},
            "helpUri": page_of(code),
            "defaultConfiguration": {"level": level},
        })
    });
    let rules: Vec<Value> = rules.collect();
    let results = diagnostics.iter().map(|diagnostic| {
        let mut text = diagnostic.message.clone();
        if let Some(help) = &diagnostic.help {
            text.push_str(". ");
            text.push_str(help);
        }
        let mut result = json!({
            "ruleId": diagnostic.code,
            "ruleIndex": codes.binary_search(&diagnostic.code).unwrap_or(0),
            "level": level(diagnostic.severity),
            "message": {"text": text},
        });
        if let Some(location) = location(&places, diagnostic.span, None) {
            result["locations"] = json!([location]);
        }
        let related =
            diagnostic.related.iter().filter_map(|(span, words)| location(&places, *span, Some(words)));
        let related: Vec<Value> = related.collect();
        if !related.is_empty() {
            result["relatedLocations"] = Value::Array(related);
        }
        if let Some(fix) = fix(&places, diagnostic) {
            result["fixes"] = json!([fix]);
        }
        result
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "isobar",
                "version": version,
                "informationUri": super::DOCS_URL,
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn location(places: &Places<'_>, span: Span, words: Option<&str>) -> Option<Value> {
    let place = places.of(span)?;
    let mut location = json!({"physicalLocation": {
        "artifactLocation": artifact(place.path),
        "region": region(places, span)?,
    }});
    if let Some(words) = words {
        location["message"] = json!({"text": words});
    }
    Some(location)
}

fn region(places: &Places<'_>, span: Span) -> Option<Value> {
    let place = places.of(span)?;
    Some(json!({
        "startLine": place.line,
        "startColumn": place.column,
        "endLine": place.end_line,
        "endColumn": place.end_column,
    }))
}

fn fix(places: &Places<'_>, diagnostic: &Diagnostic) -> Option<Value> {
    let replacement = diagnostic.replacement.as_ref()?;
    let place = places.of(diagnostic.span)?;
    Some(json!({
        "description": {"text": format!("replace with `{replacement}`")},
        "artifactChanges": [{
            "artifactLocation": artifact(place.path),
            "replacements": [{
                "deletedRegion": region(places, diagnostic.span)?,
                "insertedContent": {"text": replacement},
            }],
        }],
    }))
}

/// A relative path stays relative to wherever the host checked the repository out; an absolute one is a `file:` URI.
fn artifact(path: &Path) -> Value {
    let relative = path.is_relative();
    let mut uri = if relative { String::new() } else { "file://".to_owned() };
    let mut first = relative;
    for component in path.components() {
        let part = match component {
            Component::Normal(part) => part.to_string_lossy().into_owned(),
            Component::ParentDir => "..".to_owned(),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => continue,
        };
        if !std::mem::take(&mut first) {
            uri.push('/');
        }
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if relative { json!({"uri": uri, "uriBaseId": "%SRCROOT%"}) } else { json!({"uri": uri}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;

    #[test]
    fn results_point_to_their_rules_and_places() {
        let loaded = load_str("isobar: 1\nservices:\n  checkout: {}\n  web: {needs: [checkuot], tame: 1}\n");
        let log = sarif(&loaded.sources, &loaded.diagnostics, "0.0.0");
        let run = &log["runs"][0];
        assert_eq!(log["version"], "2.1.0");
        for result in run["results"].as_array().expect("results") {
            let index = result["ruleIndex"].as_u64().expect("an index") as usize;
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        }
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "isobar.yaml");
        assert_eq!(place["region"]["startColumn"], 17);
        assert_eq!(
            run["results"][0]["fixes"][0]["artifactChanges"][0]["replacements"][0]["insertedContent"]["text"],
            "checkout"
        );
    }

    #[test]
    fn paths_become_uris() {
        for (path, expected) in [
            ("./teams/a b.yaml", "teams/a%20b.yaml"),
            ("../x.yaml", "../x.yaml"),
            ("/etc/x#y.yaml", "file:///etc/x%23y.yaml"),
            ("ü.yaml", "%C3%BC.yaml"),
        ] {
            assert_eq!(artifact(Path::new(path))["uri"], expected);
        }
    }
}
