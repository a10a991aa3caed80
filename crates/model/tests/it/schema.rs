//! The schema and `check` agree as far as a schema can: what one accepts the other accepts, what breaks the form both
//! refuse. The validator below knows the keywords our schema uses and panics on any other; where Python has its
//! `jsonschema`, that one judges every case too.

use crate::anything::{GOOD, keys};
use model::load::{Disk, load, load_str};
use model::schema::schema;
use model::text::{Limits, Node, Tags, Value as Yaml, parse};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A text as an editor's YAML parser would type it (core schema).
fn to_json(node: &Node) -> Value {
    match &node.value {
        Yaml::Scalar(scalar) if scalar.plain => match &*scalar.text {
            "" | "~" | "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => json!(number),
                (_, Ok(number)) if number.is_finite() => json!(number),
                _ => json!(text),
            },
        },
        Yaml::Scalar(scalar) => json!(scalar.text),
        Yaml::Seq(items) => items.iter().map(to_json).collect(),
        Yaml::Map(map) => {
            Value::Object(map.entries.iter().map(|it| (it.key.to_string(), to_json(&it.value))).collect())
        }
        Yaml::Broken => Value::Null,
    }
}

/// `None` if the text is no YAML: then there is nothing to validate.
fn document(text: &str) -> Option<Value> {
    let parsed = parse(0, text, Tags::Refuse, &mut Limits::default());
    parsed.diagnostics.is_empty().then(|| parsed.root.as_ref().map(to_json))?
}

struct Validator {
    /// Leaked, so that a reference into it can be followed while patterns are compiled.
    root: &'static Value,
    patterns: HashMap<String, regex::Regex>,
}

impl Validator {
    fn new() -> Self {
        Self { root: Box::leak(Box::new(schema())), patterns: HashMap::new() }
    }

    fn accepts(&mut self, value: &Value) -> bool {
        self.fits(self.root, value)
    }

    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let compiled = self.patterns.entry(pattern.to_owned());
        compiled.or_insert_with(|| regex::Regex::new(pattern).expect("our own pattern")).is_match(text)
    }

    fn fits(&mut self, schema: &Value, value: &Value) -> bool {
        let schema = schema.as_object().expect("a schema is an object");
        schema.iter().all(|(keyword, argument)| self.keyword(schema, keyword, argument, value))
    }

    fn keyword(
        &mut self,
        schema: &Map<String, Value>,
        keyword: &str,
        argument: &Value,
        value: &Value,
    ) -> bool {
        let list = || argument.as_array().expect("a list");
        let number = || argument.as_f64().expect("a number");
        match keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = argument.as_str().expect("a text").trim_start_matches('#').to_owned();
                let target = self.root.pointer(&pointer).unwrap_or_else(|| panic!("{pointer}"));
                self.fits(target, value)
            }
            "type" => match argument {
                Value::Array(types) => types.iter().any(|it| has_type(value, it)),
                one => has_type(value, one),
            },
            "const" => value == argument,
            "enum" => list().contains(value),
            "pattern" => {
                value.as_str().is_none_or(|text| self.matches(argument.as_str().expect("a text"), text))
            }
            "minimum" => value.as_f64().is_none_or(|it| it >= number()),
            "maximum" => value.as_f64().is_none_or(|it| it <= number()),
            "minItems" => value.as_array().is_none_or(|it| it.len() as f64 >= number()),
            "uniqueItems" => value
                .as_array()
                .is_none_or(|it| it.iter().enumerate().all(|(n, item)| !it[..n].contains(item))),
            "items" => value.as_array().is_none_or(|it| it.iter().all(|item| self.fits(argument, item))),
            "required" => value
                .as_object()
                .is_none_or(|it| list().iter().all(|key| it.contains_key(key.as_str().expect("a text")))),
            "anyOf" => list().iter().any(|it| self.fits(it, value)),
            "allOf" => list().iter().all(|it| self.fits(it, value)),
            "oneOf" => list().iter().filter(|it| self.fits(it, value)).count() == 1,
            "not" => !self.fits(argument, value),
            "properties" | "patternProperties" | "additionalProperties" if !value.is_object() => true,
            "properties" => {
                let properties = argument.as_object().expect("a mapping");
                let object = value.as_object().expect("checked above");
                object.iter().all(|(key, value)| properties.get(key).is_none_or(|it| self.fits(it, value)))
            }
            "patternProperties" => {
                let patterns = argument.as_object().expect("a mapping");
                let object = value.as_object().expect("checked above");
                object.iter().all(|(key, value)| {
                    patterns.iter().all(|(pattern, it)| !self.matches(pattern, key) || self.fits(it, value))
                })
            }
            "additionalProperties" => {
                let empty = Map::new();
                let named = |keyword| schema.get(keyword).and_then(Value::as_object).unwrap_or(&empty);
                let (properties, patterns) = (named("properties"), named("patternProperties"));
                let object = value.as_object().expect("checked above");
                object.iter().all(|(key, value)| {
                    properties.contains_key(key)
                        || patterns.keys().any(|it| self.matches(it, key))
                        || match argument {
                            Value::Bool(allowed) => *allowed,
                            schema => self.fits(schema, value),
                        }
                })
            }
            unknown => panic!("the validator does not know `{unknown}`"),
        }
    }
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a text") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|it| it.fract() == 0.0),
        unknown => panic!("the validator does not know the type `{unknown}`"),
    }
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|it| it == "yaml") {
            found.push(path);
        }
    }
    found.sort();
}

/// Root files of examples that `check` accepts.
fn good_texts() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    yaml_files(Path::new("../../examples"), &mut paths);
    yaml_files(Path::new("tests/lints"), &mut paths);
    let mut good = vec![("everything.yaml".to_owned(), GOOD.to_owned())];
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.contains("isobar: 1") && load(&Disk, &path).is_good() {
            good.push((path.display().to_string(), text));
        }
    }
    good
}

/// Texts whose form is wrong, so that a schema can tell: mistakes of keys, shapes, quantities and words.
fn misshapen_texts() -> Vec<(String, String)> {
    let of_form = ["E0201", "E0203", "E0204", "E0208", "E0210"];
    let mut texts = Vec::new();
    for (_, end) in keys(GOOD) {
        let text = format!("{}Qz{}", &GOOD[..end], &GOOD[end..]);
        if load_str(&text).diagnostics.iter().any(|it| it.code == "E0201") {
            texts.push((format!("everything.yaml, byte {end}"), text));
        }
    }
    let mut paths = Vec::new();
    yaml_files(Path::new("../../examples/bad"), &mut paths);
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        // The small languages inside a text are beyond a schema.
        let inner = ["scenario", "expectation", "distribution", "action"];
        let name = path.display().to_string();
        let found = load(&Disk, &path).diagnostics;
        // Of an include, the file that is wrong is another one.
        let found = found.iter().filter(|it| it.span.file == 0);
        let mut found = found;
        if found.any(|it| of_form.contains(&it.code)) && !inner.iter().any(|it| name.contains(it)) {
            texts.push((name, text));
        }
    }
    texts
}

#[test]
fn what_check_accepts_the_schema_accepts() {
    let mut validator = Validator::new();
    let good = good_texts();
    assert!(good.len() > 60, "only {}", good.len());
    for (name, text) in good {
        let document = document(&text).unwrap_or_else(|| panic!("{name} is YAML"));
        assert!(validator.accepts(&document), "{name}");
    }
}

#[test]
fn what_is_misshapen_the_schema_refuses() {
    let mut validator = Validator::new();
    let mut accepted = Vec::new();
    let mut count = 0;
    for (name, text) in misshapen_texts() {
        let Some(document) = document(&text) else { continue };
        count += 1;
        if validator.accepts(&document) {
            accepted.push(name);
        }
    }
    assert!(count > 250, "only {count}");
    assert!(accepted.is_empty(), "{accepted:#?}");
}

/// The same verdicts by somebody else's validator, where there is one.
#[test]
fn another_validator_agrees() {
    const SCRIPT: &str = "
import json, sys
try:
    import jsonschema
    validator = jsonschema.Draft202012Validator
except (ImportError, AttributeError):
    print('absent'); sys.exit()
given = json.load(sys.stdin)
validator.check_schema(given['schema'])
judge = validator(given['schema'])
print(json.dumps([judge.is_valid(it) for it in given['documents']]))
";
    let texts: Vec<(String, String)> = good_texts().into_iter().chain(misshapen_texts()).collect();
    let documents: Vec<(String, Value)> =
        texts.into_iter().filter_map(|(name, text)| Some((name, document(&text)?))).collect();
    let python =
        Command::new("python3").args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return };
    let given =
        json!({"schema": schema(), "documents": documents.iter().map(|it| &it.1).collect::<Vec<_>>()});
    let mut input = python.stdin.take().expect("a pipe");
    input.write_all(given.to_string().as_bytes()).expect("it reads");
    drop(input);
    let output = python.wait_with_output().expect("it ends");
    let answer = String::from_utf8_lossy(&output.stdout);
    if answer.trim() == "absent" {
        return;
    }
    let verdicts: Vec<bool> = serde_json::from_str(&answer).expect("a list of verdicts");
    let mut validator = Validator::new();
    for ((name, document), verdict) in documents.iter().zip(&verdicts) {
        assert_eq!(validator.accepts(document), *verdict, "{name}");
    }
    assert_eq!(verdicts.len(), documents.len());
}
