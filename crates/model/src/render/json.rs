//! For a program: one JSON object a line.
//!
//! ```json
//! {"kind":"diagnostic","severity":"error","code":"E0301","message":"no service is called `checkuot`",
//!  "file":"shop.yaml","line":14,"column":9,"end_line":14,"end_column":17,"text":"checkuot","label":"not defined",
//!  "help":"did you mean `checkout`?","replacement":"checkout","related":[],"page":"https://..."}
//! ```
//! Lines and columns count from 1, columns in characters; `end_column` is just behind the last one. `help`,
//! `replacement` and the place may be `null`.

use super::place::Places;
use super::{page_of, severity_word};
use crate::diagnostic::Diagnostic;
use crate::span::{Sources, Span};
use serde_json::{Map, Value, json};

/// Longer values are cut: a consumer that wants all of it has the file.
const TEXT_MAX: usize = 200;

/// All diagnostics, a line each.
pub fn json(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let places = Places::new(sources);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&json_line(&places, diagnostic).to_string());
        out.push('\n');
    }
    out
}

/// One diagnostic.
pub fn json_line(places: &Places<'_>, diagnostic: &Diagnostic) -> Value {
    let mut object = Map::new();
    object.insert("kind".into(), "diagnostic".into());
    object.insert("severity".into(), severity_word(diagnostic.severity).into());
    object.insert("code".into(), diagnostic.code.into());
    object.insert("message".into(), diagnostic.message.as_str().into());
    put_place(places, diagnostic.span, &mut object);
    object.insert("label".into(), diagnostic.label.as_str().into());
    object.insert("help".into(), json!(diagnostic.help));
    object.insert("replacement".into(), json!(diagnostic.replacement));
    let related = diagnostic.related.iter().map(|(span, words)| {
        let mut object = Map::new();
        object.insert("message".into(), words.as_str().into());
        put_place(places, *span, &mut object);
        Value::Object(object)
    });
    object.insert("related".into(), related.collect());
    object.insert("page".into(), page_of(diagnostic.code).into());
    Value::Object(object)
}

fn put_place(places: &Places<'_>, span: Span, object: &mut Map<String, Value>) {
    let Some(place) = places.of(span) else {
        object.insert("file".into(), Value::Null);
        return;
    };
    let end = place.text.char_indices().nth(TEXT_MAX).map_or(place.text.len(), |(at, _)| at);
    object.insert("file".into(), place.path.to_string_lossy().into());
    object.insert("line".into(), place.line.into());
    object.insert("column".into(), place.column.into());
    object.insert("end_line".into(), place.end_line.into());
    object.insert("end_column".into(), place.end_column.into());
    object.insert("text".into(), place.text[..end].into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;

    #[test]
    fn every_line_is_an_object_with_a_place() {
        let loaded = load_str("isobar: 1\nservices:\n  checkout: {}\n  web: {needs: [checkuot], tame: 1}\n");
        let text = json(&loaded.sources, &loaded.diagnostics);
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["code"], "E0301");
        assert_eq!(lines[0]["line"], 4);
        assert_eq!(lines[0]["column"], 17);
        assert_eq!(lines[0]["end_column"], 25);
        assert_eq!(lines[0]["text"], "checkuot");
        assert_eq!(lines[0]["replacement"], "checkout");
        assert_eq!(lines[1]["code"], "E0201");
    }
}
