//! Finished requests as spans, for the trace store.
//!
//! A proxy's record is one request over one edge. It becomes the caller's client span; what a gateway let in becomes
//! the gateway's server span as well, for nobody else can say when it began. What went on inside an instance is not
//! ours to tell: applications send spans of their own, and they join ours by the ids that the proxy handed down.

use crate::compile::parties;
use policy::Outcome;
use proxy::http1::Method;
use proxy::record::{Finished, Try};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use telemetry::ids::{SpanId, TraceId};
use telemetry::metrics::{Label, Registry, SeriesKey, SeriesText};
use telemetry::span::{Endpoint, Span, SpanKind, tag};
use units::Nanos;

/// Names of the labels that records carry, looked up once each.
#[derive(Debug)]
pub struct Names {
    registry: Registry,
    known: HashMap<SeriesKey, SeriesText>,
    routes: HashMap<Label, Arc<str>>,
}

/// More than a system has; then all are looked up again.
const NAMES_MAX: usize = 100_000;

impl Names {
    pub fn new(registry: Registry) -> Self {
        Self { registry, known: HashMap::new(), routes: HashMap::new() }
    }

    fn series(&mut self, key: &SeriesKey) -> &SeriesText {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.entry(*key).or_insert_with(|| self.registry.key_text(key))
    }

    fn route(&mut self, label: Label) -> &str {
        if self.routes.len() >= NAMES_MAX {
            self.routes.clear();
        }
        self.routes.entry(label).or_insert_with(|| self.registry.label_text(label))
    }
}

/// Who took part in a request, by name.
#[derive(Clone, Debug, Default)]
struct Parties {
    caller: String,
    callee: String,
    operation: String,
    version: String,
    caller_zone: String,
    callee_zone: String,
    route: String,
    from_gateway: bool,
}

impl Parties {
    /// From what the request was counted as, or else from the name of its edge.
    fn of(record: &Finished, edge: &str, names: &mut Names) -> Option<Self> {
        let (caller, callee) = parties(edge)?;
        let from_gateway = edge.split("->").next().is_some_and(|slot| !slot.contains('#'));
        let plain = Self { caller: caller.into(), callee: callee.into(), from_gateway, ..Self::default() };
        let Some(counted) = record.counted else { return Some(plain) };
        let route = names.route(counted.route).to_owned();
        let text = names.series(&counted.series);
        Some(Self {
            operation: text.operation.to_string(),
            version: text.version.to_string(),
            caller_zone: text.source_zone.to_string(),
            callee_zone: text.destination_zone.to_string(),
            route,
            ..plain
        })
    }
}

/// `edge` is the name of the edge that the record was counted on.
///
/// ```text
/// SERVER edge            what came in by a gateway; nobody else can say when that began
/// └ CLIENT edge → web    the call, however often it was tried
///   └ CLIENT attempt     each attempt, if there was more than one: retries and hedges
///     └ SERVER web       as the instance sees it, if it says so
/// ```
/// A call that was tried once is one client span: its only attempt says nothing that the call does not.
pub fn spans_of(record: &Finished, edge: &str, names: &mut Names, out: &mut Vec<Span>) {
    let Some(trace) = TraceId::new(record.trace_id) else { return };
    let Some(them) = Parties::of(record, edge, names) else { return };
    let parent = SpanId::new(record.parent_span);
    let server = them.from_gateway.then(|| SpanId::new(record.server_span)).flatten();
    let above = server.or(parent);
    let tries = record.tries.as_deref().unwrap_or_default();
    // Several attempts hang under a span that no instance was told of; a single one is the call itself.
    let own = if tries.is_empty() { record.client_span } else { call_span(record) };
    if let Some(own) = SpanId::new(own) {
        let mut span = client(record, &them, trace, own, above);
        span.set_tag(tag::ATTEMPT, i64::from(record.attempts));
        if let (true, Some(only)) = (tries.is_empty(), &record.last) {
            waits(&mut span, only);
        }
        trouble(&mut span, record);
        finish(span, record, &them, out);
        for (at, it) in tries.iter().enumerate() {
            if let Some(id) = SpanId::new(it.span) {
                out.push(attempt(record, &them, trace, (id, own), it, at));
            }
        }
    } else if !record.error.is_empty() {
        // Refused before it went anywhere: the caller's proxy still spent time on it, and somebody asks why.
        if let Some(own) = SpanId::new(record.server_span).filter(|_| server.is_none()) {
            let mut span = client(record, &them, trace, own, above);
            trouble(&mut span, record);
            finish(span, record, &them, out);
        }
    }
    if let Some(own) = server {
        let mut span = Span::new(trace, own);
        span.parent = parent;
        span.kind = Some(SpanKind::Server);
        span.local = Endpoint::named(&them.caller);
        trouble(&mut span, record);
        finish(span, record, &them, out);
    }
}

/// The id of a call that was tried more than once. Made from the last attempt's, so that it needs no luck of its own.
fn call_span(record: &Finished) -> u64 {
    record.client_span.rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15
}

fn client(record: &Finished, them: &Parties, trace: TraceId, own: SpanId, above: Option<SpanId>) -> Span {
    let mut span = Span::new(trace, own);
    span.parent = above;
    span.kind = Some(SpanKind::Client);
    span.local = Endpoint::named(&them.caller);
    span.remote = Endpoint::named(&them.callee);
    if let Some(instance) = record.instance {
        to_instance(&mut span, instance);
    }
    for (key, value) in [
        (tag::VERSION, &them.version),
        (tag::ZONE, &them.caller_zone),
        (tag::UPSTREAM_ZONE, &them.callee_zone),
    ] {
        if !value.is_empty() {
            span.set_tag(key, value.as_str());
        }
    }
    span
}

fn to_instance(span: &mut Span, instance: SocketAddr) {
    span.remote.set_ip(instance.ip());
    span.remote.port = instance.port();
    span.set_tag(tag::UPSTREAM, instance.to_string().as_str());
}

/// One attempt of several, below the call.
fn attempt(
    record: &Finished,
    them: &Parties,
    trace: TraceId,
    (id, call): (SpanId, SpanId),
    it: &Try,
    at: usize,
) -> Span {
    let mut span = Span::new(trace, id);
    span.parent = Some(call);
    span.kind = Some(SpanKind::Client);
    span.local = Endpoint::named(&them.caller);
    span.remote = Endpoint::named(&them.callee);
    to_instance(&mut span, it.instance);
    span.name = name_of(record, them).into();
    span.start = Some(record.started_unix + it.began);
    span.duration = Some(it.lasted);
    span.set_tag(tag::ATTEMPT, at as i64 + 1);
    if at > 0 && !it.is_hedge {
        let before = record.tries.as_deref().and_then(|tries| tries.get(at - 1));
        span.set_tag(tag::RETRY_REASON, outcome_word(before.map_or(it.outcome, |it| it.outcome)).as_str());
    }
    if it.is_hedge {
        span.set_tag(tag::HEDGE, true);
    }
    if it.outcome.is_failure() {
        span.set_tag(tag::ERROR, outcome_word(it.outcome).as_str());
    }
    if let Outcome::Status(status) = it.outcome {
        span.set_tag(tag::STATUS, i64::from(status));
    }
    waits(&mut span, it);
    span.normalise();
    span
}

fn outcome_word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Grpc(code) => format!("grpc {code}"),
        Outcome::NeverSent => "never-sent".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Stale => "stale-connection".to_owned(),
        Outcome::ConnectFailed => "connect-failed".to_owned(),
        Outcome::Reset => "connection-lost".to_owned(),
        Outcome::Timeout => "timeout".to_owned(),
        Outcome::Shed => "overloaded".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
    }
}

/// Where the time went before an instance had the request, and what it was left.
fn waits(span: &mut Span, it: &Try) {
    let micros = |time: Nanos| i64::try_from(time.as_u64() / 1_000).unwrap_or(i64::MAX);
    for (key, wait) in [(tag::QUEUE_WAIT_US, it.queue_wait), (tag::POOL_WAIT_US, it.pool_wait)] {
        // What took no microsecond is no wait.
        if micros(wait) > 0 {
            span.set_tag(key, micros(wait));
        }
    }
    if let Some(left) = it.deadline_left {
        span.set_tag(tag::DEADLINE_LEFT_US, micros(left));
    }
    if let Outcome::Grpc(code) = it.outcome {
        span.set_tag(tag::GRPC_STATUS, i64::from(code));
    }
}

/// What policies and people did to it.
fn trouble(span: &mut Span, record: &Finished) {
    if record.error == "breaker-open" {
        span.set_tag(tag::BREAKER, "open");
    } else if record.breaker_open {
        span.set_tag(tag::BREAKER, "half-open");
    }
    if record.ejected {
        span.set_tag(tag::EJECTED, true);
    }
    if !record.fault.is_empty() {
        span.set_tag(tag::FAULT, record.fault);
    }
}

/// The operation's template, or else the method: a path is anybody's text, and one name for each user is no name.
fn name_of(record: &Finished, them: &Parties) -> String {
    if them.operation.is_empty() {
        method(record.method).to_lowercase()
    } else {
        them.operation.to_lowercase()
    }
}

fn finish(mut span: Span, record: &Finished, them: &Parties, out: &mut Vec<Span>) {
    span.name = name_of(record, them).into();
    span.start = Some(record.started_unix);
    span.duration = Some(record.duration);
    span.set_tag(tag::METHOD, method(record.method));
    span.set_tag(tag::STATUS, i64::from(record.status));
    span.set_tag("url.path", record.path());
    if !them.operation.is_empty() {
        let template = them.operation.split_once(' ').map_or(them.operation.as_str(), |(_, path)| path);
        span.set_tag(tag::ROUTE, template);
    }
    if !them.route.is_empty() {
        span.set_tag("isobar.route", them.route.trim());
    }
    for (key, bytes) in
        [("http.request.body.size", record.request_bytes), ("http.response.body.size", record.response_bytes)]
    {
        if bytes > 0 {
            span.set_tag(key, i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
    if !record.error.is_empty() {
        span.set_tag(tag::ERROR, record.error);
    } else if record.status == 0 || record.status >= 500 {
        span.set_tag(tag::ERROR, record.status.to_string().as_str());
    }
    span.normalise();
    out.push(span);
}

pub fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Trace => "TRACE",
        Method::Connect => "CONNECT",
        Method::Other => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::metrics::SeriesSettings;

    fn record(status: u16, error: &'static str) -> Finished {
        let mut path = [0; proxy::record::PATH_BYTES];
        path[..5].copy_from_slice(b"/cart");
        Finished {
            started_unix: Nanos::from_secs(1_000),
            duration: Nanos::from_millis(7),
            upstream: Nanos::from_millis(6),
            worker: 0,
            edge: 0,
            generation: 1,
            status,
            attempts: 2,
            method: Method::Get,
            trace_id: 9,
            parent_span: 1,
            server_span: 2,
            client_span: 3,
            sampled: true,
            instance: Some(([127, 0, 0, 1], 4_000).into()),
            request_bytes: 0,
            response_bytes: 0,
            error,
            last: None,
            tries: None,
            counted: None,
            breaker_open: false,
            ejected: false,
            fault: "",
            path_len: 5,
            path,
        }
    }

    /// Each span as `kind local->remote id<parent`, with its error if it has one.
    #[track_caller]
    fn check(record: &Finished, edge: &str, expected: &[&str]) {
        let mut spans = Vec::new();
        let mut names = Names::new(Registry::new(SeriesSettings::default()));
        spans_of(record, edge, &mut names, &mut spans);
        let told: Vec<String> = spans
            .iter()
            .map(|it| {
                let kind = it.kind.map_or("none", SpanKind::name);
                let id = |id: SpanId| id.to_string().trim_start_matches('0').to_owned();
                let parent = it.parent.map_or("none".to_owned(), id);
                let error = it.tag(tag::ERROR).map_or(String::new(), |it| format!(" {}", it.text()));
                format!("{kind} {}->{} {}<{parent}{error}", it.local.service, it.remote.service, id(it.id))
            })
            .collect();
        assert_eq!(told, expected);
        assert!(spans.iter().all(|it| &*it.name == "get" && it.duration == Some(Nanos::from_millis(7))));
    }

    #[test]
    fn a_call_is_its_callers_span_and_a_gateway_has_one_of_its_own() {
        check(&record(200, ""), "web#0->cart \"GET /cart\"", &["CLIENT web->cart 3<1"]);
        check(&record(200, ""), "edge->web", &["CLIENT edge->web 3<2", "SERVER edge-> 2<1"]);
        check(&record(503, ""), "web#0->cart", &["CLIENT web->cart 3<1 503"]);
        check(&record(504, "timeout"), "web#0->cart", &["CLIENT web->cart 3<1 timeout"]);
        check(&record(0, ""), "web#0->cart", &["CLIENT web->cart 3<1 0"]);
    }

    #[test]
    fn what_was_tried_twice_is_a_call_with_two_attempts() {
        let one = Try {
            span: 5,
            began: Nanos::ZERO,
            lasted: Nanos::from_millis(2),
            queue_wait: Nanos::from_micros(30),
            pool_wait: Nanos(999),
            deadline_left: Some(Nanos::from_millis(100)),
            instance: ([127, 0, 0, 1], 4_000).into(),
            outcome: Outcome::Reset,
            is_hedge: false,
        };
        let two = Try { span: 3, began: Nanos::from_millis(2), outcome: Outcome::Status(200), ..one };
        let record = Finished { last: Some(two), tries: Some([one, two].into()), ..record(200, "") };
        let mut spans = Vec::new();
        let mut names = Names::new(Registry::new(SeriesSettings::default()));
        spans_of(&record, "web#0->cart", &mut names, &mut spans);
        let [call, first, second] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((call.parent.map(SpanId::get), call.failed()), (Some(1), false));
        assert_eq!((first.parent, second.parent), (Some(call.id), Some(call.id)));
        assert_eq!((first.id.get(), second.id.get()), (5, 3), "as the instances were told");
        let text = |span: &Span, key: &str| span.tag(key).map(|it| it.text().into_owned());
        assert_eq!(text(first, tag::ERROR).as_deref(), Some("connection-lost"));
        assert_eq!(text(second, tag::RETRY_REASON).as_deref(), Some("connection-lost"));
        assert_eq!(text(second, tag::QUEUE_WAIT_US).as_deref(), Some("30"));
        assert_eq!(text(second, tag::POOL_WAIT_US), None, "less than a microsecond is no wait");
        assert_eq!(text(second, tag::DEADLINE_LEFT_US).as_deref(), Some("100000"));
        assert_eq!(second.start, Some(record.started_unix + Nanos::from_millis(2)));
    }

    #[test]
    fn what_has_a_series_is_named_by_its_template() {
        let registry = Registry::new(SeriesSettings::default());
        let series = SeriesKey {
            source: registry.label("web"),
            destination: registry.label("cart"),
            operation: registry.label("GET /cart/{id}"),
            version: registry.label("v2"),
            source_zone: registry.label("eu/a"),
            destination_zone: registry.label("eu/b"),
            class: telemetry::metrics::Class::Success,
        };
        let counted = Some(proxy::record::Counted { series, route: registry.label("* GET /cart/{id}") });
        let record = Finished { counted, fault: "delay", ..record(200, "") };
        let (mut names, mut spans) = (Names::new(registry), Vec::new());
        spans_of(&record, "web#0->cart", &mut names, &mut spans);
        let span = &spans[0];
        let text = |key: &str| span.tag(key).map(|it| it.text().into_owned()).unwrap_or_default();
        assert_eq!(&*span.name, "get /cart/{id}");
        let keys = [tag::ROUTE, tag::VERSION, tag::ZONE, tag::UPSTREAM_ZONE, tag::FAULT, "url.path"];
        assert_eq!(keys.map(text), ["/cart/{id}", "v2", "eu/a", "eu/b", "delay", "/cart"]);
    }

    #[test]
    fn what_has_no_trace_makes_no_span_and_what_was_refused_makes_one() {
        check(&Finished { trace_id: 0, ..record(200, "") }, "web#0->cart", &[]);
        check(&Finished { client_span: 0, ..record(0, "") }, "web#0->cart", &[]);
        let refused = Finished { client_span: 0, ..record(503, "no-instance") };
        check(&refused, "web#0->cart", &["CLIENT web->cart 2<1 no-instance"]);
        check(&refused, "edge->web", &["SERVER edge-> 2<1 no-instance"]);
        check(&record(200, ""), "not an edge", &[]);
    }
}
