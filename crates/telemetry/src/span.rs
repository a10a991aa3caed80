//! One span, whoever reported it: our proxy, an application over OTLP, or a Zipkin client.
//!
//! Time is integer nanoseconds since the Unix epoch. Zipkin counts microseconds and OTLP nanoseconds; keeping the finer
//! one loses nothing either way. Absent and zero are different things here (an OTLP span may last 0 ns), while in Zipkin
//! zero *is* absent: its writer rounds up to 1.
//!
//! Service names are lower case from the first moment, because Zipkin compares them so and one service under two
//! spellings is two services on every screen. Span names keep their case; the Zipkin door lowers them on its way out.

use crate::ids::{SpanId, TraceId};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use units::Nanos;

/// Which side of which kind of exchange a span saw. A span without one is local work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpanKind {
    Client = 1,
    Server = 2,
    Producer = 3,
    Consumer = 4,
}

impl SpanKind {
    pub const ALL: [Self; 4] = [Self::Client, Self::Server, Self::Producer, Self::Consumer];

    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "CLIENT",
            Self::Server => "SERVER",
            Self::Producer => "PRODUCER",
            Self::Consumer => "CONSUMER",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Who was at one end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Lower case; empty when unknown.
    pub service: Box<str>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Zero when unknown.
    pub port: u16,
}

impl Endpoint {
    pub fn named(service: &str) -> Self {
        Self { service: lower(service), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.service.is_empty() && self.ipv4.is_none() && self.ipv6.is_none() && self.port == 0
    }

    /// `None` for "unknown", so that callers cannot confuse it with a service whose name is empty.
    pub fn service(&self) -> Option<&str> {
        if self.service.is_empty() { None } else { Some(&self.service) }
    }

    /// Takes an address in text; a v4 address mapped into v6 is a v4 address. Anything else is ignored: clients put
    /// host names there, and refusing the whole span would lose more than the address.
    pub fn set_ip_text(&mut self, text: &str) -> bool {
        match text.parse::<IpAddr>() {
            Ok(ip) => self.set_ip(ip),
            Err(_) => return false,
        }
        true
    }

    pub fn set_ip(&mut self, ip: IpAddr) {
        match ip.to_canonical() {
            IpAddr::V4(v4) => self.ipv4 = Some(v4),
            IpAddr::V6(v6) => self.ipv6 = Some(v6),
        }
    }
}

/// Something that happened at a moment within a span.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Annotation {
    pub at: Nanos,
    pub value: Box<str>,
}

/// A tag's value. Zipkin has only text; OTLP and our proxy know better, and the type matters when it goes out again.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Box<str>),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Value {
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(int) => Cow::Owned(int.to_string()),
            Self::Float(float) => Cow::Owned(float.to_string()),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Text(text) => text.parse().ok(),
            Self::Float(_) | Self::Bool(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub id: SpanId,
    /// Never equal to `id`.
    pub parent: Option<SpanId>,
    pub kind: Option<SpanKind>,
    /// Empty when absent.
    pub name: Box<str>,
    pub start: Option<Nanos>,
    pub duration: Option<Nanos>,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// Sorted by time then text, without duplicates, once [`Span::normalise`] ran.
    pub annotations: Vec<Annotation>,
    /// One value for each key; sorted by key once [`Span::normalise`] ran.
    pub tags: Vec<(Box<str>, Value)>,
    pub debug: bool,
    /// A server span that reuses its client's id (B3 style).
    pub shared: bool,
}

impl Span {
    pub fn new(trace_id: TraceId, id: SpanId) -> Self {
        Self {
            trace_id,
            id,
            parent: None,
            kind: None,
            name: "".into(),
            start: None,
            duration: None,
            local: Endpoint::default(),
            remote: Endpoint::default(),
            annotations: Vec::new(),
            tags: Vec::new(),
            debug: false,
            shared: false,
        }
    }

    pub fn tag(&self, key: &str) -> Option<&Value> {
        self.tags.iter().find(|(known, _)| &**known == key).map(|(_, value)| value)
    }

    pub fn set_tag(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.tags.iter_mut().find(|(known, _)| &**known == key) {
            Some((_, old)) => *old = value,
            None => self.tags.push((key.into(), value)),
        }
    }

    /// Zipkin's rule: the key says it failed, whatever its value.
    pub fn failed(&self) -> bool {
        self.tag(tag::ERROR).is_some()
    }

    pub fn end(&self) -> Option<Nanos> {
        Some(self.start? + self.duration?)
    }

    /// Brings a span from outside into the form every reader here relies on.
    pub fn normalise(&mut self) {
        if self.parent == Some(self.id) {
            self.parent = None;
        }
        if self.kind == Some(SpanKind::Client) {
            self.shared = false;
        }
        self.annotations.sort_unstable();
        self.annotations.dedup();
        if !self.tags.is_sorted_by(|a, b| a.0 < b.0) {
            self.tags.sort_by(|a, b| a.0.cmp(&b.0));
            // The sort is stable, so of equal keys the last one written is the last: keep that.
            self.tags.reverse();
            self.tags.dedup_by(|later, kept| later.0 == kept.0);
            self.tags.reverse();
        }
    }
}

/// Lower case without an allocation more than needed; names are ASCII nearly always.
pub fn lower(text: &str) -> Box<str> {
    if text.is_ascii() { text.to_ascii_lowercase().into() } else { text.to_lowercase().into() }
}

/// Keys of the tags our proxy writes and our views read. OpenTelemetry's names where there is one.
pub mod tag {
    pub const ERROR: &str = "error";
    pub const ROUTE: &str = "http.route";
    pub const METHOD: &str = "http.request.method";
    pub const STATUS: &str = "http.response.status_code";
    pub const GRPC_STATUS: &str = "rpc.grpc.status_code";
    pub const PROTOCOL: &str = "network.protocol.name";
    pub const VERSION: &str = "service.version";
    pub const ZONE: &str = "cloud.availability_zone";
    pub const INSTANCE: &str = "service.instance.id";
    pub const UPSTREAM: &str = "isobar.upstream";
    pub const UPSTREAM_ZONE: &str = "isobar.upstream.zone";
    /// Which try this is: 1 for the first. More than 1 means a retry or a hedge happened.
    pub const ATTEMPT: &str = "isobar.attempt";
    pub const RETRY_REASON: &str = "isobar.retry.reason";
    pub const HEDGE: &str = "isobar.hedge";
    /// `open`, `half-open`; absent while closed.
    pub const BREAKER: &str = "isobar.breaker";
    pub const EJECTED: &str = "isobar.ejected";
    pub const QUEUE_WAIT_US: &str = "isobar.queue_wait_us";
    pub const POOL_WAIT_US: &str = "isobar.pool_wait_us";
    pub const DEADLINE_LEFT_US: &str = "isobar.deadline_left_us";
    pub const FAULT: &str = "isobar.fault";
    /// The scenario that was playing and meant one of the call's ends.
    pub const SCENARIO: &str = "isobar.scenario";
    pub const CANARY: &str = "isobar.canary";
    /// The parent was found by time, not by headers: the application did not forward them.
    pub const INFERRED: &str = "isobar.inferred";
    pub const KEPT: &str = "isobar.kept";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normalised_span_is_canonical() {
        let mut span = Span::new(TraceId::new(1).unwrap(), SpanId::new(2).unwrap());
        span.parent = Some(span.id);
        span.kind = Some(SpanKind::Client);
        span.shared = true;
        let note = |at, value: &str| Annotation { at: Nanos(at), value: value.into() };
        span.annotations = vec![note(2, "b"), note(1, "z"), note(2, "a"), note(2, "b")];
        span.tags = [("b", "1"), ("a", "1"), ("b", "2"), ("a", "3")]
            .map(|(key, value)| (key.into(), value.into()))
            .to_vec();
        span.normalise();
        assert_eq!((span.parent, span.shared), (None, false));
        assert_eq!(span.annotations, vec![note(1, "z"), note(2, "a"), note(2, "b")]);
        let tags: Vec<_> = span.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(tags, ["a=3", "b=2"]);
    }

    #[test]
    fn addresses_are_canonical_or_ignored() {
        let mut endpoint = Endpoint::default();
        assert!(endpoint.set_ip_text("::ffff:10.0.0.1"));
        assert_eq!((endpoint.ipv4, endpoint.ipv6), (Some(Ipv4Addr::new(10, 0, 0, 1)), None));
        assert!(!endpoint.set_ip_text("db.internal"));
        assert!(endpoint.set_ip_text("2001:db8::1"));
        assert!(endpoint.ipv6.is_some());
    }
}
