//! Reading mappings and scalars strictly: each reader either returns the value or has reported why not.
//!
//! `None` always means "already reported" (or "was broken before"), so callers just go on with the next key.

use super::Resolver;
use super::suggest::did_you_mean;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::text::{Entry, Map, Node};
use std::ops::RangeInclusive;
use std::str::FromStr;
use units::QuantityError;

/// What is said of calls, under `edges`, and often looked for at the service that is called or calls.
const POLICY_OF_CALLS: [&str; 9] =
    ["timeout", "retry", "hedge", "breaker", "eject", "balance", "locality", "rate_limit", "throttle"];

/// Words that later versions will know. Refused aloud: a silently ignored `secrets:` is worse than an error.
const RESERVED: [&str; 11] = [
    "journal",
    "mesh",
    "faults",
    "secrets",
    "compression",
    "cors",
    "udp",
    "http3",
    "grpc_web",
    "proxy_protocol",
    "connect",
];

/// A mapping being read. It notes which keys were asked for; [`Fields::finish`] reports all others, so the list of
/// known keys can never differ from what is really read.
pub(super) struct Fields<'n> {
    what: &'static str,
    map: &'n Map,
    pub(super) span: Span,
    asked: Vec<&'static str>,
    /// `x-...` keys are the user's own here.
    pub(super) own_keys: bool,
}

impl<'n> Fields<'n> {
    pub(super) fn new(what: &'static str, map: &'n Map, span: Span) -> Self {
        Self { what, map, span, asked: Vec::with_capacity(16), own_keys: false }
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.asked.push(key);
        self.map.entries.iter().find(|entry| &*entry.key == key)
    }

    /// The value of a key that must be there; reports its absence.
    pub(super) fn require(
        &mut self,
        r: &mut Resolver<'n, '_>,
        key: &'static str,
        example: &str,
    ) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && !self.map.hole {
            r.report(
                Diagnostic::error("E0202", self.span, format!("{} needs `{key}`", self.what))
                    .label(format!("`{key}` is missing"))
                    .help(format!("add for example `{key}: {example}`")),
            );
        }
        found
    }

    /// Reports two or more of `keys` standing together; returns the first that is there.
    pub(super) fn only_one(&mut self, r: &mut Resolver<'n, '_>, keys: &[&'static str]) -> Option<&'n Entry> {
        let mut first: Option<&'n Entry> = None;
        for key in keys {
            let Some(entry) = self.entry(key) else { continue };
            match first {
                None => first = Some(entry),
                Some(first) => r.report(
                    Diagnostic::error(
                        "E0211",
                        entry.key_span,
                        format!("`{}` and `{key}` exclude each other", first.key),
                    )
                    .label("cannot stand beside the other")
                    .related(first.key_span, "the other one")
                    .help(format!("{} has one of {}", self.what, quoted_list(keys))),
                ),
            }
        }
        first
    }

    /// As [`Fields::only_one`], and one of them must be there.
    pub(super) fn exactly_one(
        &mut self,
        r: &mut Resolver<'n, '_>,
        keys: &[&'static str],
    ) -> Option<&'n Entry> {
        let found = self.only_one(r, keys);
        if found.is_none() && !self.map.hole {
            r.report(
                Diagnostic::error(
                    "E0202",
                    self.span,
                    format!("{} needs one of {}", self.what, quoted_list(keys)),
                )
                .label("none of them is here"),
            );
        }
        found
    }

    pub(super) fn finish(self, r: &mut Resolver<'n, '_>) {
        for entry in &self.map.entries {
            let key = &*entry.key;
            if self.asked.contains(&key) || (self.own_keys && key.starts_with("x-")) {
                continue;
            }
            r.unknown_key(self.what, entry, &self.asked);
        }
    }
}

pub(super) fn quoted_list(words: &[&str]) -> String {
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            text.push_str(if i + 1 == words.len() { " or " } else { ", " });
        }
        text.push('`');
        text.push_str(word);
        text.push('`');
    }
    text
}

/// A message stays readable whatever was typed.
pub(super) fn shorten(text: &str) -> String {
    const KEEP: usize = 60;
    match text.char_indices().nth(KEEP) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

impl<'n> Resolver<'n, '_> {
    fn unknown_key(&mut self, what: &str, entry: &Entry, known: &[&'static str]) {
        let key = shorten(&entry.key);
        if RESERVED.contains(&&*entry.key) {
            return self.report(
                Diagnostic::error("E0208", entry.key_span, format!("`{key}` is not supported yet"))
                    .label("a word of a later version")
                    .help("remove it; isobar refuses what it cannot do rather than ignore it"),
            );
        }
        let mut sorted: Vec<&str> = known.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut diagnostic = Diagnostic::error("E0201", entry.key_span, format!("{what} has no key `{key}`"))
            .label("unknown key");
        if what == "a service" && POLICY_OF_CALLS.contains(&&*entry.key) {
            let help = format!("it is the policy of calls: `edges: {{\"* -> SERVICE\": {{{key}: ...}}}}`");
            return self.report(diagnostic.label("not said here").help(help));
        }
        match did_you_mean(&entry.key, sorted.iter().copied(), &mut self.comparisons_left) {
            Some(near) => {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?")).replacement(near);
            }
            None if sorted.is_empty() => diagnostic = diagnostic.help(format!("{what} has no keys")),
            None => diagnostic = diagnostic.help(format!("its keys are {}", sorted.join(", "))),
        }
        self.report(diagnostic);
    }

    pub(super) fn wrong_shape(&mut self, node: &Node, expected: &str) {
        if node.is_broken() {
            return;
        }
        let found = node.describe();
        let mut diagnostic =
            Diagnostic::error("E0203", node.span, format!("expected {expected}, found {found}"))
                .label(format!("expected {expected}"));
        if expected.starts_with("a mapping") && node.as_seq().is_some() {
            diagnostic = diagnostic.help("write names with a colon, `name: {...}`, and no `- ` before them");
        }
        self.report(diagnostic);
    }

    /// A mapping's fields. Nothing (`ads:`) counts as an empty mapping.
    pub(super) fn fields(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n>> {
        static EMPTY: Map = Map { entries: Vec::new(), hole: false };
        if let Some(map) = node.as_map() {
            return Some(Fields::new(what, map, node.span));
        }
        if node.is_null() {
            return Some(Fields::new(what, &EMPTY, node.span));
        }
        self.wrong_shape(node, &format!("a mapping ({what})"));
        None
    }

    /// A mapping whose keys are names.
    pub(super) fn entries(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        match node.as_map() {
            Some(map) => &map.entries,
            None if node.is_null() => &[],
            None => {
                self.wrong_shape(node, &format!("a mapping ({what})"));
                &[]
            }
        }
    }

    pub(super) fn list(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match node.as_seq() {
            Some(items) => items,
            None => {
                self.wrong_shape(node, &format!("a list ({what})"));
                &[]
            }
        }
    }

    /// A list, or one item standing for a list of one.
    pub(super) fn one_or_more(&mut self, node: &'n Node) -> &'n [Node] {
        match node.as_seq() {
            Some(items) => items,
            None if node.is_null() => &[],
            None => std::slice::from_ref(node),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, node: &'n Node, what: &str) -> Option<At<&'n str>> {
        match node.as_str() {
            Some(text) if !node.is_null() && !text.trim().is_empty() => Some(At::new(text, node.span)),
            Some(_) => {
                self.report(
                    Diagnostic::error("E0212", node.span, format!("expected {what}, found nothing"))
                        .label("empty")
                        .help("write the value, or remove the key"),
                );
                None
            }
            None => {
                self.wrong_shape(node, what);
                None
            }
        }
    }

    /// A text that may be empty: an environment variable, a body.
    pub(super) fn any_text(&mut self, node: &'n Node, what: &str) -> Option<At<&'n str>> {
        match node.as_str() {
            Some(_) if node.is_null() => Some(At::new("", node.span)),
            Some(text) => Some(At::new(text, node.span)),
            None => {
                self.wrong_shape(node, what);
                None
            }
        }
    }

    pub(super) fn owned(&mut self, node: &'n Node, what: &str) -> Option<At<String>> {
        self.text(node, what).map(|it| it.map(str::to_owned))
    }

    pub(super) fn texts(&mut self, node: &'n Node, what: &str) -> Vec<At<String>> {
        let items = self.one_or_more(node);
        items.iter().filter_map(|item| self.owned(item, what)).collect()
    }

    pub(super) fn quantity<T: FromStr<Err = QuantityError>>(&mut self, node: &'n Node) -> Option<At<T>> {
        let text = self.text(node, "a quantity")?;
        self.quantity_at(text.value, text.span)
    }

    pub(super) fn quantity_at<T: FromStr<Err = QuantityError>>(
        &mut self,
        text: &str,
        span: Span,
    ) -> Option<At<T>> {
        match text.parse() {
            Ok(value) => Some(At::new(value, span)),
            Err(error) => {
                let error: QuantityError = error;
                let label = match &error {
                    QuantityError::NoUnit { .. } => "the unit is missing",
                    QuantityError::UnknownUnit { .. } => "unknown unit",
                    QuantityError::TooLarge { .. } => "too large",
                    QuantityError::TooPrecise { .. } => "too precise",
                    QuantityError::Negative { .. } => "negative",
                    QuantityError::Empty { .. } | QuantityError::NotANumber { .. } => "not a quantity",
                };
                self.report(Diagnostic::error("E0204", span, error.to_string()).label(label));
                None
            }
        }
    }

    /// A quantity that must not be zero: a timeout of 0 fails every call.
    pub(super) fn positive<T>(&mut self, node: &'n Node, what: &str) -> Option<At<T>>
    where
        T: FromStr<Err = QuantityError> + Default + PartialEq,
    {
        let quantity = self.quantity::<T>(node)?;
        if quantity.value == T::default() {
            self.impossible(node.span, format!("{what} cannot be zero"), "zero");
            return None;
        }
        Some(quantity)
    }

    /// A share of a whole: at most 100 %.
    pub(super) fn share(&mut self, node: &'n Node, what: &str) -> Option<At<units::Percent>> {
        let share = self.quantity::<units::Percent>(node)?;
        if share.value > units::Percent::WHOLE {
            self.impossible(
                node.span,
                format!("{what} cannot be more than 100%, found {}", share.value),
                "too much",
            );
            return None;
        }
        Some(share)
    }

    /// A number that contradicts what it counts.
    pub(super) fn impossible(&mut self, span: Span, message: impl Into<String>, label: &str) {
        self.report(Diagnostic::error("E0209", span, message).label(label));
    }

    pub(super) fn whole(
        &mut self,
        node: &'n Node,
        what: &str,
        range: RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let text = self.text(node, what)?;
        let digits: String = text.value.chars().filter(|c| *c != '_').collect();
        let plausible = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse::<u64>() {
            Ok(number) if plausible && range.contains(&number) => Some(At::new(number, text.span)),
            _ if plausible || is_negative_number(text.value) => {
                let (low, high) = (range.start(), range.end());
                let bounds =
                    if *high == u64::MAX { format!("at least {low}") } else { format!("{low} to {high}") };
                self.impossible(
                    text.span,
                    format!("{what} must be {bounds}, found {}", shorten(text.value)),
                    "out of range",
                );
                None
            }
            _ => {
                let found = shorten(text.value);
                self.report(
                    Diagnostic::error(
                        "E0204",
                        text.span,
                        format!("{what} is a whole number, found `{found}`"),
                    )
                    .label("not a whole number"),
                );
                None
            }
        }
    }

    pub(super) fn count(
        &mut self,
        node: &'n Node,
        what: &str,
        range: RangeInclusive<u32>,
    ) -> Option<At<u32>> {
        let number = self.whole(node, what, u64::from(*range.start())..=u64::from(*range.end()))?;
        Some(number.map(|it| u32::try_from(it).unwrap_or(u32::MAX)))
    }

    pub(super) fn signed(&mut self, node: &'n Node, what: &str) -> Option<At<i32>> {
        let text = self.text(node, what)?;
        match text.value.parse::<i32>() {
            Ok(number) => Some(At::new(number, text.span)),
            Err(_) => {
                let found = shorten(text.value);
                self.report(
                    Diagnostic::error(
                        "E0204",
                        text.span,
                        format!("{what} is a whole number, found `{found}`"),
                    )
                    .label("not a whole number"),
                );
                None
            }
        }
    }

    /// A plain decimal number (an exponent, a factor), not negative.
    pub(super) fn decimal(&mut self, node: &'n Node, what: &str) -> Option<At<f64>> {
        let text = self.text(node, what)?;
        let plausible = text.value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.value.parse::<f64>() {
            Ok(number) if plausible && number.is_finite() => Some(At::new(number, text.span)),
            _ => {
                let found = shorten(text.value);
                self.report(
                    Diagnostic::error("E0204", text.span, format!("{what} is a number, found `{found}`"))
                        .label("not a number"),
                );
                None
            }
        }
    }

    pub(super) fn flag(&mut self, node: &'n Node) -> Option<bool> {
        self.choice(node, "a truth value", &[("true", true), ("false", false)]).map(|it| it.value)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        node: &'n Node,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At::new(*value, text.span));
        }
        self.not_a_choice(text.value, text.span, what, words.iter().map(|(word, _)| *word));
        None
    }

    pub(super) fn not_a_choice<'w>(
        &mut self,
        found: &str,
        span: Span,
        what: &str,
        words: impl Iterator<Item = &'w str> + Clone,
    ) {
        let found_short = shorten(found);
        if RESERVED.contains(&found) {
            return self.report(
                Diagnostic::error("E0208", span, format!("`{found_short}` is not supported yet"))
                    .label("a word of a later version"),
            );
        }
        let all: Vec<&str> = words.clone().collect();
        let mut diagnostic =
            Diagnostic::error("E0205", span, format!("`{found_short}` is not {what}")).label("unknown word");
        diagnostic = match did_you_mean(found, words, &mut self.comparisons_left) {
            Some(near) => {
                let rest = all.join(", ");
                diagnostic.help(format!("did you mean `{near}`? It is one of {rest}")).replacement(near)
            }
            None => diagnostic.help(format!("it is one of {}", all.join(", "))),
        };
        self.report(diagnostic);
    }
}

fn is_negative_number(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}
