//! A span as it is reported, whoever owns its text.
//!
//! Spans from outside own what they say ([`Span`]); our proxy's are made of names that are kept anyway, and most of them
//! live only until the store has written them down. A [`Draft`] borrows everything, so making one costs a list of tags
//! and nothing else. The store takes either, by this one trait.

use crate::ids::{SpanId, TraceId};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use units::Nanos;

/// What [`Endpoint`] says, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End<'a> {
    /// Lower case; empty when unknown.
    pub service: &'a str,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub port: u16,
}

impl<'a> End<'a> {
    /// `service` must be lower case already.
    pub fn named(service: &'a str) -> Self {
        Self { service, ..Self::default() }
    }

    pub fn set_ip(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(v4) => self.ipv4 = Some(v4),
            IpAddr::V6(v6) => self.ipv6 = Some(v6),
        }
    }

    fn owned(self) -> Endpoint {
        Endpoint { service: self.service.into(), ipv4: self.ipv4, ipv6: self.ipv6, port: self.port }
    }
}

impl<'a> From<&'a Endpoint> for End<'a> {
    fn from(it: &'a Endpoint) -> Self {
        Self { service: &it.service, ipv4: it.ipv4, ipv6: it.ipv6, port: it.port }
    }
}

/// What [`Value`] says, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    Text(&'a str),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl<'a> ValueRef<'a> {
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(int) => Cow::Owned(int.to_string()),
            Self::Float(float) => Cow::Owned(float.to_string()),
            Self::Bool(yes) => Cow::Borrowed(if yes { "true" } else { "false" }),
        }
    }

    pub fn int(self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(int),
            Self::Text(text) => text.parse().ok(),
            Self::Float(_) | Self::Bool(_) => None,
        }
    }

    fn owned(self) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.into()),
            Self::Int(int) => Value::Int(int),
            Self::Float(float) => Value::Float(float),
            Self::Bool(yes) => Value::Bool(yes),
        }
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(it: &'a Value) -> Self {
        match it {
            Value::Text(text) => Self::Text(text),
            Value::Int(int) => Self::Int(*int),
            Value::Float(float) => Self::Float(*float),
            Value::Bool(yes) => Self::Bool(*yes),
        }
    }
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for ValueRef<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for ValueRef<'_> {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

/// Everything of a span but its lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head<'a> {
    pub trace_id: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: Option<SpanKind>,
    pub name: &'a str,
    pub start: Option<Nanos>,
    pub duration: Option<Nanos>,
    pub local: End<'a>,
    pub remote: End<'a>,
    pub debug: bool,
    pub shared: bool,
}

pub trait Report {
    fn head(&self) -> Head<'_>;
    fn annotations(&self) -> &[Annotation];
    /// Sorted by key, one value for each.
    fn tags(&self) -> impl ExactSizeIterator<Item = (&str, ValueRef<'_>)>;
}

impl Report for Span {
    fn head(&self) -> Head<'_> {
        Head {
            trace_id: self.trace_id,
            id: self.id,
            parent: self.parent,
            kind: self.kind,
            name: &self.name,
            start: self.start,
            duration: self.duration,
            local: (&self.local).into(),
            remote: (&self.remote).into(),
            debug: self.debug,
            shared: self.shared,
        }
    }

    fn annotations(&self) -> &[Annotation] {
        &self.annotations
    }

    fn tags(&self) -> impl ExactSizeIterator<Item = (&str, ValueRef<'_>)> {
        self.tags.iter().map(|(key, value)| (&**key, value.into()))
    }
}

/// A span made of borrowed parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft<'a> {
    pub head: Head<'a>,
    tags: Vec<(&'a str, ValueRef<'a>)>,
}

/// What a proxy's span carries at most, nearly always.
const TAGS: usize = 16;

impl<'a> Draft<'a> {
    pub fn new(trace_id: TraceId, id: SpanId) -> Self {
        let head = Head {
            trace_id,
            id,
            parent: None,
            kind: None,
            name: "",
            start: None,
            duration: None,
            local: End::default(),
            remote: End::default(),
            debug: false,
            shared: false,
        };
        Self { head, tags: Vec::with_capacity(TAGS) }
    }

    /// A tag said again takes the place of the one before.
    pub fn set_tag(&mut self, key: &'a str, value: impl Into<ValueRef<'a>>) {
        let value = value.into();
        match self.tags.binary_search_by(|(known, _)| (*known).cmp(key)) {
            Ok(at) => self.tags[at].1 = value,
            Err(at) => self.tags.insert(at, (key, value)),
        }
    }

    /// The same, owning what it says: for whoever keeps it or sends it away.
    pub fn span(&self) -> Span {
        let head = &self.head;
        Span {
            trace_id: head.trace_id,
            id: head.id,
            parent: head.parent,
            kind: head.kind,
            name: head.name.into(),
            start: head.start,
            duration: head.duration,
            local: head.local.owned(),
            remote: head.remote.owned(),
            annotations: Vec::new(),
            tags: self.tags.iter().map(|(key, value)| ((*key).into(), value.owned())).collect(),
            debug: head.debug,
            shared: head.shared,
        }
    }
}

impl Report for Draft<'_> {
    fn head(&self) -> Head<'_> {
        self.head
    }

    fn annotations(&self) -> &[Annotation] {
        &[]
    }

    fn tags(&self) -> impl ExactSizeIterator<Item = (&str, ValueRef<'_>)> {
        self.tags.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_says_what_the_span_made_of_it_says() {
        let mut draft = Draft::new(TraceId::new(7).expect("not zero"), SpanId::new(8).expect("not zero"));
        draft.head.parent = SpanId::new(9);
        draft.head.kind = Some(SpanKind::Client);
        (draft.head.name, draft.head.local) = ("get /cart", End::named("web"));
        draft.head.remote.set_ip([10, 0, 0, 1].into());
        for (key, value) in [("b", 1), ("a", 2), ("c", 3), ("b", 4)] {
            draft.set_tag(key, i64::from(value));
        }
        draft.set_tag("text", "said");
        let span = draft.span();
        assert_eq!(span.head(), draft.head());
        assert_eq!(span.tags().collect::<Vec<_>>(), draft.tags().collect::<Vec<_>>());
        assert_eq!(span.tag("b"), Some(&Value::Int(4)));
        let mut normal = span.clone();
        normal.normalise();
        assert_eq!(normal, span, "its tags are in order");
    }
}
