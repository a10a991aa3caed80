//! The tree: scalars, sequences and mappings, each with the bytes it came from.

use crate::span::Span;

/// One value of a YAML text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Map),
    /// Could not be read and was reported; readers pass over it in silence, so that one mistake stays one.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// After escapes and folding, otherwise as written: `0x1F` stays `0x1F`.
    pub text: Box<str>,
    /// Written without quotes and not as a block: only such a scalar may mean null, a number or a truth value.
    pub plain: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// In file order, merge keys resolved, keys unique.
    pub entries: Vec<Entry>,
    /// A syntax error lies inside: entries may be missing, so nobody may conclude anything from an absence.
    pub hole: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Box<str>,
    pub key_span: Span,
    pub value: Node,
}

impl Entry {
    /// From the key's first byte to the value's last.
    pub fn span(&self) -> Span {
        if self.value.span.file == self.key_span.file && self.value.span.end > self.key_span.start {
            Span { end: self.value.span.end.max(self.key_span.end), ..self.key_span }
        } else {
            // The value was defined elsewhere, by an anchor.
            self.key_span
        }
    }
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value)
    }
}

impl Node {
    pub fn broken(span: Span) -> Self {
        Self { span, value: Value::Broken }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a scalar, quoted or not.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// `key:` with nothing behind it, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar)
            if scalar.plain && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn is_broken(&self) -> bool {
        matches!(self.value, Value::Broken)
    }

    /// For messages: what stands here, in a person's words.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar(_) if self.is_null() => "nothing",
            Value::Scalar(_) => "a text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Broken => "something unreadable",
        }
    }
}
