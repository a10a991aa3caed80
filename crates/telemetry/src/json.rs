//! A pull reader and a writer for JSON.
//!
//! Span bodies come from strangers, up to 64 MiB at a time. A tree of values would cost ten times the body in memory
//! before the first check; a derive would hide the rules that differ between formats (numbers as text, `null` as absent,
//! keys that matter by case). So the formats pull what they want, borrowing from the body, and skip the rest.
//!
//! Strict JSON (RFC 8259), nested at most [`DEPTH_MAX`] deep. It is compared with `serde_json` by property tests.

use std::borrow::Cow;

/// Deeper than any telemetry is, shallower than any stack: attributes nest, attacks nest further.
pub const DEPTH_MAX: u8 = 64;

/// Why text is not the JSON we want, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {offset}")]
pub struct JsonError {
    pub offset: usize,
    pub message: Cow<'static, str>,
}

/// What the next value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
}

/// A place in the text, of [`Reader::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: usize,
    depth: u8,
}

type Result<T> = std::result::Result<T, JsonError>;

impl<'a> Reader<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(text)),
            Err(error) => Err(JsonError { offset: error.valid_up_to(), message: "not UTF-8".into() }),
        }
    }

    /// Where the reader stands, to come back to.
    pub const fn mark(&self) -> Mark {
        Mark { at: self.at, depth: self.depth }
    }

    /// Goes back, so that a value which could not be used can be passed over instead.
    pub const fn rewind(&mut self, mark: Mark) {
        (self.at, self.depth) = (mark.at, mark.depth);
    }

    pub fn error<T>(&self, message: impl Into<Cow<'static, str>>) -> Result<T> {
        Err(JsonError { offset: self.at, message: message.into() })
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.byte() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.error(format!("expected `{}`", byte as char))
    }

    /// What comes next, without consuming it.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.error("expected a value"),
            None => self.error("the text ends where a value should be"),
        }
    }

    /// Consumes a `null` if that is what comes next.
    pub fn null(&mut self) -> Result<bool> {
        if self.peek()? != Kind::Null {
            return Ok(false);
        }
        self.word("null")?;
        Ok(true)
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.error(format!("expected `{word}`"));
        }
        self.at += word.len();
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        if self.depth == DEPTH_MAX {
            return self.error(format!("nested deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        Ok(())
    }

    /// Calls `each` with every key; `each` must consume the value (or [`Reader::skip`] it).
    pub fn object(&mut self, mut each: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.skip_space();
        if self.byte() != Some(b'{') {
            return self.error("expected an object");
        }
        self.enter()?;
        self.at += 1;
        self.skip_space();
        if self.byte() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = self.text_value()?;
            self.skip_space();
            self.expect(b':')?;
            each(self, &key)?;
            self.skip_space();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    self.depth -= 1;
                    return Ok(());
                }
                _ => return self.error("expected `,` or `}`"),
            }
        }
    }

    /// Calls `each` before every element; `each` must consume it.
    pub fn array(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.skip_space();
        if self.byte() != Some(b'[') {
            return self.error("expected a list");
        }
        self.enter()?;
        self.at += 1;
        self.skip_space();
        if self.byte() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            each(self)?;
            self.skip_space();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    self.depth -= 1;
                    return Ok(());
                }
                _ => return self.error("expected `,` or `]`"),
            }
        }
    }

    /// A string, borrowed unless it has escapes.
    pub fn text(&mut self) -> Result<Cow<'a, str>> {
        if self.peek()? != Kind::Text {
            return self.error("expected a string");
        }
        self.text_value()
    }

    fn text_value(&mut self) -> Result<Cow<'a, str>> {
        if self.byte() != Some(b'"') {
            return self.error("expected a string");
        }
        self.at += 1;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => return self.text_with_escapes(start),
                Some(0..=0x1f) => return self.error("a control character inside a string"),
                Some(_) => self.at += 1,
                None => return self.error("the text ends inside a string"),
            }
        }
    }

    fn text_with_escapes(&mut self, start: usize) -> Result<Cow<'a, str>> {
        let mut text = self.text[start..self.at].to_owned();
        loop {
            let plain = self.at;
            while !matches!(self.byte(), Some(b'"' | b'\\' | 0..=0x1f) | None) {
                self.at += 1;
            }
            text.push_str(&self.text[plain..self.at]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escaped = match self.byte() {
                        Some(b'n') => '\n',
                        Some(b't') => '\t',
                        Some(b'r') => '\r',
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(byte @ (b'"' | b'\\' | b'/')) => byte as char,
                        Some(b'u') => {
                            self.at += 1;
                            text.push(self.unicode_escape()?);
                            continue;
                        }
                        _ => return self.error("an unknown escape"),
                    };
                    self.at += 1;
                    text.push(escaped);
                }
                Some(_) => return self.error("a control character inside a string"),
                None => return self.error("the text ends inside a string"),
            }
        }
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let high = self.four_hex()?;
        if !(0xd800..0xe000).contains(&high) {
            return char::from_u32(high).map_or_else(|| self.error("a bad \\u escape"), Ok);
        }
        if high >= 0xdc00 || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return self.error("half a surrogate pair");
        }
        self.at += 2;
        let low = self.four_hex()?;
        if !(0xdc00..0xe000).contains(&low) {
            return self.error("half a surrogate pair");
        }
        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        char::from_u32(code).map_or_else(|| self.error("a bad \\u escape"), Ok)
    }

    fn four_hex(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        match digits.and_then(|digits| crate::ids::hex(digits, crate::ids::Case::Any)) {
            Some(value) => {
                self.at += 4;
                Ok(value as u32)
            }
            None => self.error("a bad \\u escape"),
        }
    }

    /// A number as written: integers keep all 64 bits, which a float would not.
    pub fn number(&mut self) -> Result<&'a str> {
        if self.peek()? != Kind::Number {
            return self.error("expected a number");
        }
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.error("a bad number"),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) {
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<()> {
        if !matches!(self.byte(), Some(b'0'..=b'9')) {
            return self.error("a bad number");
        }
        self.digits();
        Ok(())
    }

    /// An integer, written as a number or (`or_text`, as OTLP does for 64 bits) as a string.
    pub fn int(&mut self, or_text: bool) -> Result<i128> {
        let from_text;
        let digits = match self.peek()? {
            Kind::Text if or_text => {
                from_text = self.text()?;
                &*from_text
            }
            _ => self.number()?,
        };
        if let Ok(value) = digits.parse::<i128>() {
            return Ok(value);
        }
        // `1e3` and `5.0` are integers too, and some serialisers write them.
        match digits.parse::<f64>() {
            Ok(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => Ok(value as i128),
            _ => self.error("expected an integer"),
        }
    }

    pub fn u64(&mut self, or_text: bool) -> Result<u64> {
        let value = self.int(or_text)?;
        u64::try_from(value).or_else(|_| self.error("expected an integer from 0 to 2^64 - 1"))
    }

    pub fn i64(&mut self, or_text: bool) -> Result<i64> {
        let value = self.int(or_text)?;
        i64::try_from(value).or_else(|_| self.error("expected a 64-bit integer"))
    }

    /// A float; OTLP also writes `"NaN"`, `"Infinity"` and `"-Infinity"`, since JSON has no word for them.
    pub fn f64(&mut self) -> Result<f64> {
        if self.peek()? == Kind::Text {
            return match &*self.text()? {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                text => text.parse().or_else(|_| self.error("expected a number")),
            };
        }
        let number = self.number()?;
        number.parse().or_else(|_| self.error("expected a number"))
    }

    pub fn bool(&mut self) -> Result<bool> {
        if self.peek()? != Kind::Bool {
            return self.error("expected `true` or `false`");
        }
        let value = self.byte() == Some(b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Passes over one value of any shape, checking it on the way.
    pub fn skip(&mut self) -> Result<()> {
        match self.peek()? {
            Kind::Object => self.object(|reader, _| reader.skip()),
            Kind::Array => self.array(Self::skip),
            Kind::Text => self.text_value().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::Bool => self.bool().map(drop),
            Kind::Null => self.null().map(drop),
        }
    }

    /// The text of one value, skipped over.
    pub fn raw(&mut self) -> Result<&'a str> {
        self.skip_space();
        let start = self.at;
        self.skip()?;
        Ok(&self.text[start..self.at])
    }

    /// Nothing but space may follow.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.error("text after the end of the value") }
    }
}

/// Appends `text` as a JSON string. `<` and U+2028/9 are escaped as well, so that a document set inside a page stays
/// data; every name from telemetry is hostile text.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'<' => b"\\u003c",
            0..=0x1f => b"",
            // The only UTF-8 that starts so and matters is E2 80 A8 / A9.
            0xe2 if bytes[at..].starts_with(&[0xe2, 0x80, 0xa8])
                || bytes[at..].starts_with(&[0xe2, 0x80, 0xa9]) =>
            {
                b""
            }
            _ => continue,
        };
        if plain > at {
            continue; // Inside a separator that is already written.
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if !escape.is_empty() {
            out.extend_from_slice(escape);
        } else if byte == 0xe2 {
            out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            plain = at + 3;
        } else {
            out.extend_from_slice(b"\\u00");
            crate::ids::push_hex(out, u128::from(byte), 2);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Writes objects and lists, minding the commas.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    /// A value was written in the innermost open object or list.
    comma: bool,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub fn into_text(self) -> String {
        String::from_utf8(self.out).expect("only text is written")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    pub fn object(&mut self, body: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
        body(self);
        self.out.push(b'}');
        self.comma = true;
    }

    pub fn array(&mut self, body: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
        body(self);
        self.out.push(b']');
        self.comma = true;
    }

    /// A key; the next call writes its value.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        push_text(&mut self.out, key);
        self.out.push(b':');
        self.comma = false;
        self
    }

    pub fn text(&mut self, text: &str) {
        self.separate();
        push_text(&mut self.out, text);
    }

    pub fn hex(&mut self, value: u128, digits: usize) {
        self.separate();
        self.out.push(b'"');
        crate::ids::push_hex(&mut self.out, value, digits);
        self.out.push(b'"');
    }

    pub fn u64(&mut self, value: u64) {
        self.separate();
        push_u64(&mut self.out, value);
    }

    pub fn i64(&mut self, value: i64) {
        self.separate();
        if value < 0 {
            self.out.push(b'-');
        }
        push_u64(&mut self.out, value.unsigned_abs());
    }

    /// The shortest decimal that reads back the same; JSON has no NaN, so that is `null`.
    pub fn f64(&mut self, value: f64) {
        self.separate();
        let text = if value.is_finite() { format!("{value}") } else { "null".to_owned() };
        self.out.extend_from_slice(text.as_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Text that is JSON already.
    pub fn raw(&mut self, json: &[u8]) {
        self.separate();
        self.out.extend_from_slice(json);
    }

    pub fn texts<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.array(|json| texts.into_iter().for_each(|text| json.text(text.as_ref())));
    }
}

pub(crate) fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().and_then(|()| reader.end()).is_ok()
    }

    #[track_caller]
    fn check(text: &str) {
        assert_eq!(accepts(text), serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }

    #[test]
    fn the_same_texts_are_json_as_for_serde_json() {
        for text in [
            "{}",
            "[]",
            "[1,2]",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "nul",
            "null",
            "true",
            "tru",
            "01",
            "-",
            "-0",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1e5",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"\\udc00\"",
            "\"\\x\"",
            "\"a",
            "\"\n\"",
            "[1] 2",
            "",
            " ",
            "{\"a\":{\"b\":[{}]}}",
            "{1:2}",
            "\u{feff}1",
            "\"\u{7f}\"",
        ] {
            check(text);
        }
    }

    #[test]
    fn depth_is_bounded_without_using_the_stack_up() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(accepts(&nested(64)));
        assert!(!accepts(&nested(65)));
        assert!(!accepts(&"[".repeat(1_000_000)));
        assert!(!accepts(&"{\"a\":".repeat(1_000_000)));
    }

    #[test]
    fn integers_keep_their_bits_and_may_be_text_where_asked() {
        let int = |text: &str, or_text| Reader::new(text).int(or_text).ok();
        assert_eq!(int("18446744073709551615", false), Some(i128::from(u64::MAX)));
        assert_eq!(int("\"1544712660300000000\"", true), Some(1_544_712_660_300_000_000));
        assert_eq!(int("\"7\"", false), None);
        assert_eq!(int("1e3", false), Some(1000));
        assert_eq!(int("1.5", false), None);
        assert_eq!(Reader::new("-1").u64(false).ok(), None);
    }

    proptest! {
        #[test]
        fn strings_survive(text in any::<String>()) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            let ours = std::str::from_utf8(&out).unwrap();
            prop_assert_eq!(&serde_json::from_str::<String>(ours).unwrap(), &text);
            prop_assert_eq!(&*Reader::new(ours).text().unwrap(), &*text);
            let hostile = ours.contains(['<', '\u{2028}', '\u{2029}']);
            prop_assert!(!hostile);
            let theirs = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(&*Reader::new(&theirs).text().unwrap(), &*text);
        }

        #[test]
        fn acceptance_equals_serde_json(text in "[\\[\\]{}\",:0-9eE+.a-u \\\\-]{0,14}") {
            prop_assert_eq!(accepts(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
