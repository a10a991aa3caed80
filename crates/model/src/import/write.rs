//! YAML as a person would write it: block style outside, one line where it fits, quotes only where they are needed,
//! keys in the order they were added.

use std::fmt::Write;

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    /// Means what it says without quotes: a number, a truth value, a quantity, one of the format's own words.
    Plain(String),
    /// Any text at all; quoted unless it cannot be misread.
    Text(String),
    List(Vec<Yaml>),
    Map(Map),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Map {
    entries: Vec<(Vec<String>, String, Yaml)>,
}

impl Map {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(&mut self, key: impl Into<String>, value: Yaml) {
        self.entries.push((Vec::new(), key.into(), value));
    }

    /// With lines of comment above it.
    pub(super) fn add_noted(&mut self, notes: Vec<String>, key: impl Into<String>, value: Yaml) {
        self.entries.push((notes, key.into(), value));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

pub(super) fn text(it: impl Into<String>) -> Yaml {
    Yaml::Text(it.into())
}

pub(super) fn plain(it: impl ToString) -> Yaml {
    Yaml::Plain(it.to_string())
}

/// A line this long may hold a whole list or mapping.
const LINE_MAX: usize = 100;

pub(super) fn document(head: &[String], root: &Map) -> String {
    let mut out = String::new();
    for line in head {
        comment(&mut out, 0, line);
    }
    block(&mut out, root, 0);
    out
}

fn comment(out: &mut String, indent: usize, line: &str) {
    // Nothing in a comment may end it or be unprintable.
    let line: String = line.chars().map(|it| if is_printable(it) { it } else { ' ' }).collect();
    let line = line.trim_end();
    let _ = writeln!(out, "{:indent$}#{}{line}", "", if line.is_empty() { "" } else { " " });
}

fn block(out: &mut String, map: &Map, indent: usize) {
    for (notes, key, value) in &map.entries {
        for note in notes {
            comment(out, indent, note);
        }
        let key = quoted_key(key);
        let _ = write!(out, "{:indent$}{key}:", "");
        // The outermost sections are always opened up, or the shortest systems would look unlike all others.
        let fits = |line: &str| {
            (indent > 0 || !matches!(value, Yaml::Map(_))) && indent + key.len() + 2 + line.len() <= LINE_MAX
        };
        match value {
            Yaml::Map(inner) if !inner.is_empty() => match one_line(value, 0).filter(|line| fits(line)) {
                Some(line) => {
                    let _ = writeln!(out, " {line}");
                }
                None => {
                    out.push('\n');
                    block(out, inner, indent + 2);
                }
            },
            Yaml::List(items) if !items.is_empty() => match one_line(value, 0).filter(|line| fits(line)) {
                Some(line) => {
                    let _ = writeln!(out, " {line}");
                }
                None => {
                    out.push('\n');
                    for item in items {
                        list_item(out, item, indent + 2);
                    }
                }
            },
            other => {
                let _ = writeln!(out, " {}", one_line(other, 0).unwrap_or_default());
            }
        }
    }
}

fn list_item(out: &mut String, item: &Yaml, indent: usize) {
    match (item, one_line(item, 0)) {
        (_, Some(line)) if indent + 2 + line.len() <= LINE_MAX => {
            let _ = writeln!(out, "{:indent$}- {line}", "");
        }
        (Yaml::Map(map), _) if !map.is_empty() => {
            let mut inner = String::new();
            block(&mut inner, map, indent + 2);
            // The first key stands beside the dash, which is where its indentation was.
            let first = inner.find(|it: char| it != ' ').unwrap_or(0);
            let _ = write!(out, "{:indent$}- {}", "", &inner[first..]);
        }
        (Yaml::List(items), _) if !items.is_empty() => {
            let _ = writeln!(out, "{:indent$}-", "");
            for item in items {
                list_item(out, item, indent + 2);
            }
        }
        (_, line) => {
            let _ = writeln!(out, "{:indent$}- {}", "", line.unwrap_or_default());
        }
    }
}

/// The value in flow style; none if something in it carries a comment.
fn one_line(value: &Yaml, depth: usize) -> Option<String> {
    /// Nested deeper, a line is a riddle.
    const DEPTH_MAX: usize = 3;
    match value {
        Yaml::Plain(word) => Some(word.clone()),
        Yaml::Text(text) => Some(quoted(text)),
        Yaml::List(items) if items.is_empty() => Some("[]".into()),
        Yaml::Map(map) if map.is_empty() => Some("{}".into()),
        _ if depth == DEPTH_MAX => None,
        Yaml::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(|it| one_line(it, depth + 1)).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Yaml::Map(map) => {
            let mut parts = Vec::new();
            for (notes, key, value) in &map.entries {
                if !notes.is_empty() {
                    return None;
                }
                parts.push(format!("{}: {}", quoted_key(key), one_line(value, depth + 1)?));
            }
            Some(format!("{{{}}}", parts.join(", ")))
        }
    }
}

/// A key of several words is quoted even where it need not be: `"GET /":` reads as one thing.
fn quoted_key(key: &str) -> String {
    let written = quoted(key);
    if written.contains(' ') && !written.starts_with(['"', '\'']) {
        format!("\"{written}\"")
    } else {
        written
    }
}

/// A text as a scalar that reads back as exactly this text, in block and in flow style.
fn quoted(text: &str) -> String {
    let is_safe = |it: char| {
        it.is_ascii_alphanumeric()
            || matches!(it, ' ' | '-' | '_' | '.' | '/' | '$' | '(' | ')' | '+' | '=' | ';' | '~')
    };
    let ends = text
        .chars()
        .next()
        .is_some_and(|it| it.is_ascii_alphanumeric() || matches!(it, '.' | '/' | '$' | '_'))
        && !text.ends_with(' ');
    // What YAML of any version would take for something else than a text.
    let looks_like_other = {
        let lower = text.to_ascii_lowercase();
        matches!(lower.as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n")
            || text.starts_with(|it: char| it.is_ascii_digit() || it == '.')
                && !text.contains(|it: char| {
                    it.is_ascii_alphabetic()
                        && !matches!(it, 'e' | 'E' | 'x' | 'o' | 'b' | 'a'..='f' | 'A'..='F')
                })
    };
    if ends && text.chars().all(is_safe) && !looks_like_other {
        return text.to_string();
    }
    // `'web "GET /"'` is easier to read than one with backslashes.
    if text.contains('"') && !text.contains(['\'', '\\']) && text.chars().all(is_printable) {
        return format!("'{text}'");
    }
    let mut out = String::from('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            it if is_printable(it) => out.push(it),
            it => {
                let code = it as u32;
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// May stand in a YAML text as itself, and is no line break in any version of YAML.
fn is_printable(it: char) -> bool {
    !(it.is_control() || matches!(it, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Limits, Tags, parse};
    use proptest::prelude::*;

    #[track_caller]
    fn read_back(text: &str) -> String {
        let mut map = Map::new();
        map.add("key", Yaml::Text(text.to_string()));
        map.add("flow", Yaml::List(vec![Yaml::Text(text.to_string())]));
        // The reader merges even a quoted `<<`, so importers give no entry that name.
        let name = if text == "<<" { "other" } else { text };
        map.add(name, plain("1"));
        let written = document(&["note".into(), text.into()], &map);
        let parsed = parse(0, &written, Tags::Refuse, &mut Limits::default());
        assert!(parsed.diagnostics.is_empty(), "{written}\n{:?}", parsed.diagnostics);
        let root = parsed.root.expect("a mapping was written");
        let map = root.as_map().expect("a mapping was written");
        assert_eq!(map.get("flow").and_then(|it| it.as_seq()).and_then(|it| it[0].as_str()), Some(text));
        assert!(map.entries.iter().any(|entry| &*entry.key == name), "the key of {written}");
        map.get("key").and_then(|it| it.as_str()).expect("a text was written").to_string()
    }

    #[test]
    fn awkward_texts_survive() {
        for text in [
            "",
            "a",
            "null",
            "~",
            "yes",
            "1",
            "1.5",
            "0x1F",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "{a}",
            "[a]",
            "a,b",
            "'a'",
            "\"",
            "\\",
            "a\nb",
            "\ta",
            " a",
            "a ",
            "é",
            "日本",
            "\u{0}",
            "\u{85}",
            "\u{2028}",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "?",
            ":",
            "a:",
            "---",
            "...",
            "<<",
            "=",
            "\u{feff}",
            "\u{1f600}",
            "./web --port $PORT",
        ] {
            assert_eq!(read_back(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            prop_assume!(!["key", "flow"].contains(&text.as_str()));
            prop_assert_eq!(read_back(&text), text);
        }
    }

    #[test]
    fn layout_is_what_a_person_would_write() {
        let mut service = Map::new();
        service.add("team", text("shop"));
        let mut run = Map::new();
        run.add("command", text("./web --port $PORT"));
        run.add("env", Yaml::Map(Map { entries: vec![(Vec::new(), "A".into(), text("1"))] }));
        service.add("run", Yaml::Map(run));
        service.add_noted(vec!["from depends_on".into()], "needs", Yaml::List(vec![text("db")]));
        let mut services = Map::new();
        services.add("web", Yaml::Map(service));
        let mut root = Map::new();
        root.add("isobar", plain(1));
        root.add("services", Yaml::Map(services));
        let expected = "\
# made by a test
isobar: 1
services:
  web:
    team: shop
    run: {command: ./web --port $PORT, env: {A: \"1\"}}
    # from depends_on
    needs: [db]
";
        assert_eq!(document(&["made by a test".into()], &root), expected);
    }
}
