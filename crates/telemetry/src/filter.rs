//! The filter language: one line that the terminal, the map's find box and the API all read alike.
//!
//! ```text
//! service:cart status>=500 p99>200ms zone:b version:v1.3
//! ```
//! A filter is terms separated by spaces; all must hold (`or` and parentheses are left out: two filters are clearer).
//!
//! | term | meaning |
//! |---|---|
//! | `service:cart` | the word equals; `cart*`, `*-db` and `*cart*` match ends and middles; `a,b` either |
//! | `service:web->cart` | the edge from web to cart (each side may be a pattern) |
//! | `-zone:b` or `zone!:b` | not |
//! | `status:5xx`, `status:503`, `status>=500` | class or number |
//! | `p50>20ms`, `p99>=0.2s` | a quantile, with its unit |
//! | `rate>10/s`, `errors>1%`, `retries>5%` | with their units |
//! | `duration>200ms` | one request's or trace's own time |
//! | `has:error`, `has:retry`, `has:fault`, `has:breaker` | something happened |
//! | `tag.http.route:/cart` | a tag of a trace |
//! | `cart` | a bare word: anywhere in a name |
//!
//! Values with spaces are quoted: `operation:"GET /cart"`. Names compare without regard to case.
//!
//! A term about something the row at hand does not have (the p99 of a single request) is not met: see [`Row`].

use std::borrow::Cow;
use std::fmt;
use units::Nanos;

/// What a word term looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Any,
    Service,
    Source,
    Destination,
    Operation,
    Version,
    Zone,
    Instance,
    Team,
    Kind,
    Has,
    Trace,
    Tag(Box<str>),
}

/// What a number term looks at. Durations are in seconds, shares in fractions, rates per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Status,
    P50,
    P90,
    P95,
    P99,
    P999,
    Rate,
    Errors,
    Retries,
    Duration,
    Spans,
    Attempts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// Any of the patterns.
    Word(Word, Vec<Pattern>),
    Edge(Pattern, Pattern),
    Number(Number, Compare, f64),
    /// A status class: 5 for `5xx`; 0 for `none`, no answer at all.
    StatusClass(u16),
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    not: bool,
    test: Test,
}

/// A parsed filter. The empty one takes everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// What a filter asks of a row. Rows answer what they know and leave the rest at `None`.
pub trait Row {
    /// Every value a word has here: a trace has many services.
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>>;
    fn number(&self, number: Number) -> Option<f64>;
    /// (source, destination) pairs.
    fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        Vec::new()
    }
}

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Byte offset and length of the term in question.
    pub at: usize,
    pub len: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {})", self.message, self.at + 1)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FilterError {}

const WORDS: [(&str, Word); 11] = [
    ("service", Word::Service),
    ("from", Word::Source),
    ("to", Word::Destination),
    ("operation", Word::Operation),
    ("version", Word::Version),
    ("zone", Word::Zone),
    ("instance", Word::Instance),
    ("team", Word::Team),
    ("kind", Word::Kind),
    ("has", Word::Has),
    ("trace", Word::Trace),
];

const NUMBERS: [(&str, Number); 12] = [
    ("status", Number::Status),
    ("p50", Number::P50),
    ("p90", Number::P90),
    ("p95", Number::P95),
    ("p99", Number::P99),
    ("p99.9", Number::P999),
    ("rate", Number::Rate),
    ("errors", Number::Errors),
    ("retries", Number::Retries),
    ("duration", Number::Duration),
    ("spans", Number::Spans),
    ("attempts", Number::Attempts),
];

const HAS: [&str; 8] = ["error", "retry", "hedge", "fault", "breaker", "timeout", "canary", "inferred"];

/// Longer filters are not typed by people.
const TERMS_MAX: usize = 64;
const TEXT_MAX: usize = 4_096;

/// A word with stars at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: Box<str>,
    open_start: bool,
    open_end: bool,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let (open_start, rest) = text.strip_prefix('*').map_or((false, text), |rest| (true, rest));
        let (open_end, rest) = rest.strip_suffix('*').map_or((false, rest), |rest| (true, rest));
        Self { text: rest.to_lowercase().into(), open_start, open_end }
    }

    fn matches(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        match (self.open_start, self.open_end) {
            (false, false) => word == *self.text,
            (true, false) => word.ends_with(&*self.text),
            (false, true) => word.starts_with(&*self.text),
            (true, true) => word.contains(&*self.text),
        }
    }
}

impl Filter {
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_MAX {
            let message = format!("a filter of {} characters; at most {TEXT_MAX} fit", text.len());
            return Err(FilterError { at: 0, len: text.len(), message, hint: None });
        }
        let mut terms = Vec::new();
        for (at, raw) in split(text)? {
            if terms.len() == TERMS_MAX {
                let message = format!("more than {TERMS_MAX} terms");
                return Err(FilterError { at, len: raw.len(), message, hint: None });
            }
            let term =
                term(&raw).map_err(|(message, hint)| FilterError { at, len: raw.len(), message, hint })?;
            terms.push(term);
        }
        Ok(Self { terms })
    }

    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, row: &(impl Row + ?Sized)) -> bool {
        self.terms.iter().all(|term| term.test.holds(row) != term.not)
    }
}

impl Test {
    fn holds(&self, row: &(impl Row + ?Sized)) -> bool {
        match self {
            Self::Word(word, patterns) => {
                row.words(word).iter().any(|value| patterns.iter().any(|pattern| pattern.matches(value)))
            }
            Self::Edge(from, to) => row
                .edges()
                .iter()
                .any(|(source, destination)| from.matches(source) && to.matches(destination)),
            Self::Number(number, compare, wanted) => row.number(*number).is_some_and(|value| match compare {
                Compare::Less => value < *wanted,
                Compare::AtMost => value <= *wanted,
                Compare::Equal => value == *wanted,
                Compare::AtLeast => value >= *wanted,
                Compare::More => value > *wanted,
            }),
            Self::StatusClass(class) => {
                row.number(Number::Status).is_some_and(|status| (status as u16) / 100 == *class)
            }
        }
    }
}

/// Terms with their offsets; quotes keep spaces and are taken away.
fn split(text: &str) -> Result<Vec<(usize, String)>, FilterError> {
    let mut terms = Vec::new();
    let mut current: Option<(usize, String)> = None;
    let mut quote: Option<usize> = None;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => {
                quote = if quote.is_some() { None } else { Some(at) };
                current.get_or_insert_with(|| (at, String::new()));
            }
            letter if letter.is_whitespace() && quote.is_none() => terms.extend(current.take()),
            letter => current.get_or_insert_with(|| (at, String::new())).1.push(letter),
        }
    }
    if let Some(at) = quote {
        let message = "a quote that is never closed".to_owned();
        return Err(FilterError { at, len: text.len() - at, message, hint: None });
    }
    terms.extend(current);
    Ok(terms)
}

type Complaint = (String, Option<String>);

fn term(raw: &str) -> Result<Term, Complaint> {
    let (minus, body) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
    let Some(at) = body.find([':', '<', '>', '=', '!']) else {
        if body.is_empty() {
            return Err(("an empty term".into(), None));
        }
        return Ok(Term {
            not: minus,
            test: Test::Word(Word::Any, vec![Pattern::parse(&format!("*{body}*"))]),
        });
    };
    let key = &body[..at];
    let operator_end = at + body[at..].bytes().take_while(|byte| b":<>=!".contains(byte)).count();
    let (operator, value) = (&body[at..operator_end], &body[operator_end..]);
    let (not, compare) = match operator {
        ":" | "=" => (minus, Compare::Equal),
        "!:" | "!=" => (!minus, Compare::Equal),
        "<" => (minus, Compare::Less),
        "<=" => (minus, Compare::AtMost),
        ">" => (minus, Compare::More),
        ">=" => (minus, Compare::AtLeast),
        other => return Err((format!("`{other}` is no comparison"), Some("use : != < <= > >=".into()))),
    };
    let lower_key = key.to_lowercase();
    if value.is_empty() {
        return Err((format!("`{key}{operator}` has no value"), None));
    }
    if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == lower_key) {
        return Ok(Term { not, test: number_test(*number, key, compare, value)? });
    }
    let word = match lower_key.strip_prefix("tag.") {
        Some("") => {
            return Err(("`tag.` needs the tag's key".into(), Some("as in tag.http.route:/cart".into())));
        }
        // A tag's key keeps its case: keys are compared as they were written.
        Some(_) => Word::Tag(key[4..].into()),
        None => match WORDS.iter().find(|(name, _)| *name == lower_key) {
            Some((_, word)) => word.clone(),
            None => return Err(unknown(key)),
        },
    };
    if compare != Compare::Equal {
        return Err((format!("`{key}` is a word and has no order"), Some(format!("write {key}:{value}"))));
    }
    if word == Word::Service
        && let Some((from, to)) = value.split_once("->")
    {
        if from.is_empty() || to.is_empty() {
            return Err((
                "an edge needs both ends".into(),
                Some("as in service:web->cart, or from:web".into()),
            ));
        }
        return Ok(Term { not, test: Test::Edge(Pattern::parse(from), Pattern::parse(to)) });
    }
    let patterns: Vec<Pattern> =
        value.split(',').filter(|part| !part.is_empty()).map(Pattern::parse).collect();
    if word == Word::Has
        && let Some(bad) = patterns.iter().find(|pattern| !HAS.contains(&&*pattern.text))
    {
        return Err((format!("`has:{}` is not known", bad.text), Some(format!("one of {}", HAS.join(", ")))));
    }
    if patterns.is_empty() {
        return Err((format!("`{key}{operator}` has no value"), None));
    }
    Ok(Term { not, test: Test::Word(word, patterns) })
}

fn number_test(number: Number, key: &str, compare: Compare, value: &str) -> Result<Test, Complaint> {
    let quantity = |what: &str, error: &dyn fmt::Display| (format!("`{key}` wants {what}: {error}"), None);
    let parsed = match number {
        Number::Status => {
            let lower = value.to_lowercase();
            if compare == Compare::Equal && lower == "none" {
                return Ok(Test::StatusClass(0));
            }
            if let Some(class) = lower.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok()) {
                if compare != Compare::Equal || !(1..=5).contains(&class) {
                    return Err((
                        format!("`status{value}` is no class of status"),
                        Some("as in status:5xx or status>=500".into()),
                    ));
                }
                return Ok(Test::StatusClass(class));
            }
            match value.parse::<u16>() {
                Ok(status) if status < 1_000 => f64::from(status),
                _ => {
                    return Err((
                        format!("`{value}` is no status"),
                        Some("as in status:503, status:5xx or status>=500".into()),
                    ));
                }
            }
        }
        Number::P50 | Number::P90 | Number::P95 | Number::P99 | Number::P999 | Number::Duration => {
            value.parse::<Nanos>().map_err(|error| quantity("a duration", &error))?.as_secs_f64()
        }
        Number::Rate => {
            value.parse::<units::Rate>().map_err(|error| quantity("a rate", &error))?.per_second()
        }
        Number::Errors | Number::Retries => {
            value.parse::<units::Percent>().map_err(|error| quantity("a share", &error))?.fraction()
        }
        Number::Spans | Number::Attempts => match value.parse::<u32>() {
            Ok(count) => f64::from(count),
            Err(_) => return Err((format!("`{key}` wants a whole number, not `{value}`"), None)),
        },
    };
    Ok(Test::Number(number, compare, parsed))
}

fn unknown(key: &str) -> Complaint {
    let known = || WORDS.iter().map(|(name, _)| *name).chain(NUMBERS.iter().map(|(name, _)| *name));
    let near = known().map(|name| (distance(name, &key.to_lowercase()), name)).min();
    let hint = match near {
        Some((distance, name)) if distance <= 2 => format!("did you mean `{name}`?"),
        _ => format!("known are {}, and tag.KEY", known().collect::<Vec<_>>().join(", ")),
    };
    let key: String = key.chars().take(40).collect();
    (format!("`{key}` is nothing to filter by"), Some(hint))
}

/// How many letters must change to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Reader;

    struct Edge;

    /// web -> cart, GET /cart, v1.3, zone b, status 503, p99 250 ms, 12 requests a second, 2 % errors.
    impl Row for Edge {
        fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
            match word {
                Word::Any => vec!["web".into(), "cart".into(), "GET /cart".into()],
                Word::Service => vec!["web".into(), "cart".into()],
                Word::Source => vec!["web".into()],
                Word::Destination => vec!["cart".into()],
                Word::Operation => vec!["GET /cart".into()],
                Word::Version => vec!["v1.3".into()],
                Word::Zone => vec!["b".into()],
                Word::Has => vec!["retry".into()],
                Word::Tag(key) if &**key == "http.Route" => vec!["/x".into()],
                _ => vec![],
            }
        }
        fn number(&self, number: Number) -> Option<f64> {
            match number {
                Number::Status => Some(503.0),
                Number::P99 => Some(0.25),
                Number::Rate => Some(12.0),
                Number::Errors => Some(0.02),
                _ => None,
            }
        }
        fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
            vec![("web".into(), "cart".into())]
        }
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&Edge), expected, "{text}");
    }

    /// The page reads the same table, so that a filter means the same in a terminal and on the map.
    const CASES: &str = include_str!("filter_cases.json");

    #[derive(Default)]
    struct Cases {
        terms: Vec<(String, bool)>,
        mistakes: Vec<(String, u64, String)>,
    }

    fn cases() -> Cases {
        let mut cases = Cases::default();
        let mut reader = Reader::from_bytes(CASES.as_bytes()).expect("the table is text");
        let read = reader.object(|reader, key| match key {
            "terms" => reader.array(|reader| {
                let (mut text, mut expected, mut at) = (String::new(), false, 0);
                reader.array(|reader| {
                    at += 1;
                    if at == 1 {
                        text = reader.text()?.into_owned()
                    } else {
                        expected = reader.bool()?
                    }
                    Ok(())
                })?;
                cases.terms.push((text, expected));
                Ok(())
            }),
            "mistakes" => reader.array(|reader| {
                let (mut text, mut place, mut part, mut at) = (String::new(), 0, String::new(), 0);
                reader.array(|reader| {
                    at += 1;
                    match at {
                        1 => text = reader.text()?.into_owned(),
                        2 => place = reader.u64(false)?,
                        _ => part = reader.text()?.into_owned(),
                    }
                    Ok(())
                })?;
                cases.mistakes.push((text, place, part));
                Ok(())
            }),
            _ => reader.skip(),
        });
        read.expect("the table is what it should be");
        cases
    }

    #[test]
    fn terms_mean_what_the_table_says() {
        let terms = cases().terms;
        assert!(terms.len() > 30, "a table that was not read tests nothing");
        terms.iter().for_each(|(text, expected)| check(text, *expected));
    }

    #[test]
    fn mistakes_are_told_with_place_and_fix() {
        let mistakes = cases().mistakes;
        assert!(mistakes.len() > 10, "a table that was not read tests nothing");
        for (text, at, message) in mistakes {
            let error = Filter::parse(&text).expect_err(&text);
            assert!(error.to_string().contains(&message), "{text}: {error}");
            assert_eq!(error.at as u64, at, "{text}");
        }
        assert!(Filter::parse(&"a ".repeat(65)).is_err());
        assert!(Filter::parse(&"a".repeat(5_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in ".{0,60}") {
            if let Ok(filter) = Filter::parse(&text) {
                let _ = filter.matches(&Edge);
            }
        }
    }
}
