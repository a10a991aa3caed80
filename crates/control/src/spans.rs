//! Finished requests as spans, for the trace store.
//!
//! A proxy's record is one request over one edge. It becomes the caller's client span; what a gateway let in becomes
//! the gateway's server span as well, for nobody else can say when it began. A service that sends spans of its own tells
//! its side itself, better than we can, and they join ours by the ids that the proxy handed down; for one that has never
//! sent any we tell the server's side, too: from when the instance had the request until it was answered.
//!
//! Spans are drafts: they borrow their text from records and from [`Names`], for most of them live only until the store
//! has written them down.

use crate::edges::EdgeName;
use policy::Outcome;
use proxy::http1::Method;
use proxy::record::{Finished, Try};
use std::collections::HashMap;
use std::net::SocketAddr;
use telemetry::ids::{SpanId, TraceId};
use telemetry::metrics::{Label, Registry, SeriesKey};
use telemetry::report::{Draft, End, ValueRef};
use telemetry::span::{SpanKind, lower, tag};
use units::Nanos;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a span says of the series its request was counted in.
#[derive(Debug, Default)]
struct Text {
    /// Lower case, as spans' names are compared.
    name: Box<str>,
    /// The operation without its method.
    template: Box<str>,
    version: Box<str>,
    caller_zone: Box<str>,
    callee_zone: Box<str>,
}

/// Text of labels and addresses that records carry, made once each.
#[derive(Debug)]
pub struct Names {
    registry: Registry,
    series: Map<SeriesKey, Text>,
    routes: Map<Label, Box<str>>,
    instances: Map<SocketAddr, Box<str>>,
}

/// More than a system has; then all are looked up again.
const NAMES_MAX: usize = 100_000;

impl Names {
    pub fn new(registry: Registry) -> Self {
        Self { registry, series: Map::default(), routes: Map::default(), instances: Map::default() }
    }

    /// Looks up what this record's spans will say. Call it for all records of a batch, then ask for their spans.
    pub fn note(&mut self, record: &Finished) {
        if let Some(counted) = record.counted {
            if !self.series.contains_key(&counted.series) {
                make_room(&mut self.series);
                self.series.insert(counted.series, text(&self.registry, &counted.series));
            }
            if !self.routes.contains_key(&counted.route) {
                make_room(&mut self.routes);
                let route = self.registry.label_text(counted.route);
                self.routes.insert(counted.route, route.trim().into());
            }
        }
        let tries = record.tries.as_deref().unwrap_or_default();
        for address in record.instance.into_iter().chain(tries.iter().map(|it| it.instance)) {
            if !self.instances.contains_key(&address) {
                make_room(&mut self.instances);
                self.instances.insert(address, address.to_string().into());
            }
        }
    }
}

fn make_room<K, V>(known: &mut Map<K, V>) {
    if known.len() >= NAMES_MAX {
        known.clear();
    }
}

fn text(registry: &Registry, key: &SeriesKey) -> Text {
    let text = registry.key_text(key);
    let operation = &*text.operation;
    Text {
        name: lower(operation),
        template: operation.split_once(' ').map_or(operation, |(_, path)| path).into(),
        version: (&*text.version).into(),
        caller_zone: (&*text.source_zone).into(),
        callee_zone: (&*text.destination_zone).into(),
    }
}

/// One request, and everything its spans are made of.
struct Told<'a> {
    record: &'a Finished,
    edge: &'a EdgeName,
    names: &'a Names,
    /// `None` when nobody counted it.
    text: Option<&'a Text>,
    /// The scenario that was playing and troubled one of its ends.
    scenario: Option<&'a str>,
}

/// `edge` is the one that the record was counted on; then the scenario whose trouble it may have met, and whether the
/// callee sends spans of its own.
///
/// ```text
/// SERVER edge            what came in by a gateway; nobody else can say when that began
/// └ CLIENT edge → web    the call, however often it was tried
///   └ CLIENT attempt     each attempt, if there was more than one: retries and hedges
///     └ SERVER web       as the instance sees it if it says so, and else as we saw it
/// ```
/// A call that was tried once is one client span: its only attempt says nothing that the call does not. An instance's
/// server span, if we tell it, has the id that the instance was told, so that what the instance calls hangs under it.
pub fn spans_of<'a>(
    record: &'a Finished,
    edge: &'a EdgeName,
    names: &'a Names,
    (scenario, speaks): (Option<&'a str>, bool),
    out: &mut Vec<Draft<'a>>,
) {
    let Some(trace) = TraceId::new(record.trace_id) else { return };
    let text = record.counted.and_then(|it| names.series.get(&it.series));
    let told = Told { record, edge, names, text, scenario };
    let parent = SpanId::new(record.parent_span);
    let server = edge.from_gateway.then(|| SpanId::new(record.server_span)).flatten();
    let above = server.or(parent);
    let tries = record.tries.as_deref().unwrap_or_default();
    let answer = record.last.filter(|it| tries.is_empty() && is_told(it, speaks));
    // Several attempts hang under a span that no instance was told of; a single one is the call itself, unless its id
    // is the server's.
    let is_apart = !tries.is_empty() || answer.is_some();
    let own =
        if is_apart && record.client_span != 0 { call_span(record.client_span) } else { record.client_span };
    if let Some(own) = SpanId::new(own) {
        let mut span = told.client(trace, own, above);
        span.set_tag(tag::ATTEMPT, i64::from(record.attempts));
        if let (true, Some(only)) = (tries.is_empty(), &record.last) {
            waits(&mut span, only);
        }
        told.finish(&mut span);
        out.push(span);
        if let (Some(it), Some(id)) = (&answer, SpanId::new(record.client_span)) {
            out.push(told.server(trace, (id, own), it));
        }
        for (at, it) in tries.iter().enumerate() {
            let is_told = is_told(it, speaks);
            let (Some(id), Some(apart)) = (SpanId::new(it.span), SpanId::new(attempt_span(it.span))) else {
                continue;
            };
            let attempt = if is_told { apart } else { id };
            out.push(told.attempt(trace, (attempt, own), it, at));
            if is_told {
                out.push(told.server(trace, (id, attempt), it));
            }
        }
    } else if !record.error.is_empty() {
        // Refused before it went anywhere: the caller's proxy still spent time on it, and somebody asks why. A gateway's
        // own span says nothing of whom it meant to call.
        let own = if server.is_some() { call_span(record.server_span) } else { record.server_span };
        if let Some(own) = SpanId::new(own) {
            let mut span = told.client(trace, own, above);
            told.finish(&mut span);
            out.push(span);
        }
    }
    if let Some(own) = server {
        let mut span = Draft::new(trace, own);
        span.head.parent = parent;
        span.head.kind = Some(SpanKind::Server);
        span.head.local = End::named(&edge.caller);
        told.finish(&mut span);
        out.push(span);
    }
}

/// The id of a call that no instance was told of: made from one that was given out, so that it needs no luck of its own.
fn call_span(given: u64) -> u64 {
    given.rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15
}

/// The same for an attempt, whose instance tells nothing and has its id.
fn attempt_span(given: u64) -> u64 {
    given.rotate_left(16) ^ 0xD1B5_4A32_D192_ED03
}

/// Whether we tell the instance's side of this attempt: somebody has to, and it answered.
fn is_told(it: &Try, speaks: bool) -> bool {
    !speaks && matches!(it.outcome, Outcome::Status(_) | Outcome::Grpc(_))
}

impl<'a> Told<'a> {
    /// The instance's side of an attempt: from when it had the request until it was answered.
    fn server(&self, trace: TraceId, (id, above): (SpanId, SpanId), it: &Try) -> Draft<'a> {
        let mut span = Draft::new(trace, id);
        let waited = it.queue_wait + it.pool_wait;
        span.head.parent = Some(above);
        span.head.kind = Some(SpanKind::Server);
        span.head.local = End::named(&self.edge.callee);
        span.head.local.set_ip(it.instance.ip());
        span.head.local.port = it.instance.port();
        span.head.name = self.name();
        span.head.start = Some(self.record.started_unix + it.began + waited);
        span.head.duration = Some(it.lasted.saturating_sub(waited));
        span.set_tag(tag::METHOD, method(self.record.method));
        if let Some(text) = self.text {
            for (key, value) in
                [(tag::ROUTE, &text.template), (tag::VERSION, &text.version), (tag::ZONE, &text.callee_zone)]
            {
                if !value.is_empty() {
                    span.set_tag(key, &**value);
                }
            }
        }
        match it.outcome {
            Outcome::Status(status) => span.set_tag(tag::STATUS, i64::from(status)),
            Outcome::Grpc(code) => span.set_tag(tag::GRPC_STATUS, i64::from(code)),
            _ => {}
        }
        if it.outcome.is_failure() {
            span.set_tag(tag::ERROR, outcome_word(it.outcome));
        }
        if let Some(scenario) = self.scenario {
            span.set_tag(tag::SCENARIO, scenario);
        }
        span
    }

    fn client(&self, trace: TraceId, own: SpanId, above: Option<SpanId>) -> Draft<'a> {
        let mut span = Draft::new(trace, own);
        span.head.parent = above;
        span.head.kind = Some(SpanKind::Client);
        span.head.local = End::named(&self.edge.caller);
        span.head.remote = End::named(&self.edge.callee);
        if let Some(instance) = self.record.instance {
            self.to_instance(&mut span, instance);
        }
        if let Some(text) = self.text {
            for (key, value) in [
                (tag::VERSION, &text.version),
                (tag::ZONE, &text.caller_zone),
                (tag::UPSTREAM_ZONE, &text.callee_zone),
            ] {
                if !value.is_empty() {
                    span.set_tag(key, &**value);
                }
            }
        }
        span
    }

    fn to_instance(&self, span: &mut Draft<'a>, instance: SocketAddr) {
        span.head.remote.set_ip(instance.ip());
        span.head.remote.port = instance.port();
        if let Some(address) = self.names.instances.get(&instance) {
            span.set_tag(tag::UPSTREAM, &**address);
        }
    }

    /// One attempt of several, below the call.
    fn attempt(&self, trace: TraceId, (id, call): (SpanId, SpanId), it: &Try, at: usize) -> Draft<'a> {
        let mut span = Draft::new(trace, id);
        span.head.parent = Some(call);
        span.head.kind = Some(SpanKind::Client);
        span.head.local = End::named(&self.edge.caller);
        span.head.remote = End::named(&self.edge.callee);
        self.to_instance(&mut span, it.instance);
        span.head.name = self.name();
        span.head.start = Some(self.record.started_unix + it.began);
        span.head.duration = Some(it.lasted);
        span.set_tag(tag::ATTEMPT, at as i64 + 1);
        if at > 0 && !it.is_hedge {
            let before = self.record.tries.as_deref().and_then(|tries| tries.get(at - 1));
            span.set_tag(tag::RETRY_REASON, outcome_word(before.map_or(it.outcome, |it| it.outcome)));
        }
        if it.is_hedge {
            span.set_tag(tag::HEDGE, true);
        }
        if it.outcome.is_failure() {
            span.set_tag(tag::ERROR, outcome_word(it.outcome));
        }
        if let Outcome::Status(status) = it.outcome {
            span.set_tag(tag::STATUS, i64::from(status));
        }
        waits(&mut span, it);
        span
    }

    /// The operation's template, or else the method: a path is anybody's text, and one name for each user is no name.
    fn name(&self) -> &'a str {
        match self.text {
            Some(text) if !text.name.is_empty() => &text.name,
            _ => method_name(self.record.method),
        }
    }

    /// What every span says of the whole request, and what policies and people did to it.
    fn finish(&self, span: &mut Draft<'a>) {
        let record = self.record;
        span.head.name = self.name();
        span.head.start = Some(record.started_unix);
        span.head.duration = Some(record.duration);
        span.set_tag(tag::METHOD, method(record.method));
        match record.grpc {
            None => span.set_tag(tag::STATUS, i64::from(record.status)),
            Some(code) => {
                span.set_tag(tag::STATUS, 200i64);
                span.set_tag("rpc.grpc.status_code", i64::from(code));
            }
        }
        span.set_tag("url.path", record.path());
        if let Some(text) = self.text.filter(|it| !it.template.is_empty()) {
            span.set_tag(tag::ROUTE, &*text.template);
        }
        let route = record.counted.and_then(|it| self.names.routes.get(&it.route));
        if let Some(route) = route.filter(|it| !it.is_empty()) {
            span.set_tag("isobar.route", &**route);
        }
        for (key, bytes) in [
            ("http.request.body.size", record.request_bytes),
            ("http.response.body.size", record.response_bytes),
        ] {
            if bytes > 0 {
                span.set_tag(key, i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
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
        if let Some(scenario) = self.scenario {
            span.set_tag(tag::SCENARIO, scenario);
        }
        if !record.error.is_empty() {
            span.set_tag(tag::ERROR, record.error);
        } else if failed(record) {
            span.set_tag(tag::ERROR, i64::from(record.status));
        }
    }
}

/// No answer at all, or one that says the server is at fault.
pub(crate) fn failed(record: &Finished) -> bool {
    record.status == 0 || record.status >= 500
}

/// A status as its number, everything else in a word.
fn outcome_word(outcome: Outcome) -> ValueRef<'static> {
    ValueRef::Text(match outcome {
        Outcome::Status(status) => return ValueRef::Int(i64::from(status)),
        Outcome::Grpc(code) => match GRPC_WORDS.get(code as usize) {
            Some(word) => word,
            None => return ValueRef::Int(i64::from(code)),
        },
        Outcome::NeverSent => "never-sent",
        Outcome::Refused => "refused",
        Outcome::Stale => "stale-connection",
        Outcome::ConnectFailed => "connect-failed",
        Outcome::Reset => "connection-lost",
        Outcome::Timeout => "timeout",
        Outcome::Shed => "overloaded",
        Outcome::Cancelled => "cancelled",
    })
}

const GRPC_WORDS: [&str; 17] = [
    "grpc 0", "grpc 1", "grpc 2", "grpc 3", "grpc 4", "grpc 5", "grpc 6", "grpc 7", "grpc 8", "grpc 9",
    "grpc 10", "grpc 11", "grpc 12", "grpc 13", "grpc 14", "grpc 15", "grpc 16",
];

/// Where the time went before an instance had the request, and what it was left.
fn waits(span: &mut Draft<'_>, it: &Try) {
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

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Head => "head",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
        Method::Options => "options",
        Method::Patch => "patch",
        Method::Trace => "trace",
        Method::Connect => "connect",
        Method::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::metrics::SeriesSettings;
    use telemetry::span::Span;

    fn spans(record: &Finished, edge: &str, names: &mut Names, scenario: Option<&str>) -> Vec<Span> {
        let Some(edge) = EdgeName::of(edge) else { return Vec::new() };
        names.note(record);
        let mut drafts = Vec::new();
        spans_of(record, &edge, names, (scenario, false), &mut drafts);
        drafts.iter().map(Draft::span).collect()
    }

    fn record(status: u16, error: &'static str) -> Finished {
        let it = crate::records::finished(Nanos::from_secs(1_000), Nanos::from_millis(7), 9);
        let mut it = Finished { status, error, attempts: 2, ..it };
        it.path[..5].copy_from_slice(b"/cart");
        (it.path_len, it.parent_span, it.server_span, it.client_span) = (5, 1, 2, 3);
        it
    }

    /// Each span as `kind local->remote id<parent`, with its error if it has one.
    #[track_caller]
    fn check(record: &Finished, edge: &str, expected: &[&str]) {
        let mut names = Names::new(Registry::new(SeriesSettings::default()));
        let spans = spans(record, edge, &mut names, None);
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
        let mut names = Names::new(Registry::new(SeriesSettings::default()));
        let spans = spans(&record, "web#0->cart", &mut names, None);
        let [call, first, second, served] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((call.parent.map(SpanId::get), call.failed()), (Some(1), false));
        assert_eq!((first.parent, second.parent), (Some(call.id), Some(call.id)));
        assert_eq!((first.id.get(), served.id.get()), (5, 3), "as the instances were told");
        assert_eq!((&*served.local.service, served.parent), ("cart", Some(second.id)));
        assert_eq!(
            served.start,
            Some(record.started_unix + Nanos::from_millis(2) + one.queue_wait + one.pool_wait)
        );
        let text = |span: &Span, key: &str| span.tag(key).map(|it| it.text().into_owned());
        assert_eq!(text(first, tag::ERROR).as_deref(), Some("connection-lost"));
        assert_eq!(text(second, tag::RETRY_REASON).as_deref(), Some("connection-lost"));
        assert_eq!(text(second, tag::QUEUE_WAIT_US).as_deref(), Some("30"));
        assert_eq!(text(second, tag::POOL_WAIT_US), None, "less than a microsecond is no wait");
        assert_eq!(text(second, tag::DEADLINE_LEFT_US).as_deref(), Some("100000"));
        assert_eq!(second.start, Some(record.started_unix + Nanos::from_millis(2)));
    }

    /// Links between services, as Zipkin's algorithm reads them from the spans of these records, with those services
    /// telling their own side that `speak`.
    #[track_caller]
    fn check_links(speak: bool) {
        let answered = |parent: u64, told: u64| {
            let mut it = record(200, "");
            (it.parent_span, it.server_span, it.client_span, it.attempts) = (parent, 2, told, 1);
            let outcome = Outcome::Status(200);
            it.last = Some(Try {
                span: told,
                began: Nanos::ZERO,
                lasted: Nanos::from_millis(2),
                queue_wait: Nanos::ZERO,
                pool_wait: Nanos::ZERO,
                deadline_left: None,
                instance: ([127, 0, 0, 1], 4_000).into(),
                outcome,
                is_hedge: false,
            });
            it
        };
        // A service that speaks hands on its own server span, which hangs under the one it was told.
        let parents = if speak { [1, 100, 100, 101] } else { [1, 3, 3, 4] };
        let told = [3, 4, 5, 6];
        let records: Vec<Finished> =
            parents.into_iter().zip(told).map(|(parent, told)| answered(parent, told)).collect();
        let edges = ["edge->web", "web#0->cart", "web#0->ads", "cart#0->db"];
        let edges = edges.map(|it| EdgeName::of(it).expect("an edge"));
        let names = Names::new(Registry::new(SeriesSettings::default()));
        let mut drafts = Vec::new();
        for (record, edge) in records.iter().zip(&edges) {
            spans_of(record, edge, &names, (None, speak), &mut drafts);
        }
        let mut spans: Vec<Span> = drafts.iter().map(Draft::span).collect();
        if speak {
            for (at, (record, edge)) in records.iter().zip(&edges).enumerate() {
                let mut own = Span::new(spans[0].trace_id, SpanId::new(100 + at as u64).expect("not zero"));
                (own.parent, own.kind) = (SpanId::new(record.client_span), Some(SpanKind::Server));
                own.local.service = edge.callee.clone();
                spans.push(own);
            }
        }
        let mut linker = telemetry::tree::Linker::default();
        linker.add_trace(spans);
        let links = linker.links();
        let links: Vec<(&str, &str, u64)> =
            links.iter().map(|it| (&*it.parent, &*it.child, it.calls)).collect();
        let expected = [("cart", "db", 1), ("edge", "web", 1), ("web", "ads", 1), ("web", "cart", 1)];
        assert_eq!(links, expected, "{speak}");
    }

    #[test]
    fn every_call_is_one_link_whoever_tells_the_servers_side() {
        check_links(false);
        check_links(true);
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
        let spans = spans(&record, "web#0->cart", &mut Names::new(registry), Some("slow-cart"));
        let span = &spans[0];
        let text = |key: &str| span.tag(key).map(|it| it.text().into_owned()).unwrap_or_default();
        assert_eq!(&*span.name, "get /cart/{id}");
        let keys =
            [tag::ROUTE, tag::VERSION, tag::ZONE, tag::UPSTREAM_ZONE, tag::FAULT, tag::SCENARIO, "url.path"];
        assert_eq!(keys.map(text), ["/cart/{id}", "v2", "eu/a", "eu/b", "delay", "slow-cart", "/cart"]);
    }

    #[test]
    fn what_has_no_trace_makes_no_span_and_what_was_refused_makes_one() {
        check(&Finished { trace_id: 0, ..record(200, "") }, "web#0->cart", &[]);
        check(&Finished { client_span: 0, ..record(0, "") }, "web#0->cart", &[]);
        let refused = Finished { client_span: 0, ..record(503, "no-instance") };
        check(&refused, "web#0->cart", &["CLIENT web->cart 2<1 no-instance"]);
        check(
            &refused,
            "edge->web",
            &["CLIENT edge->web 9e3779bb7f4a7c15<2 no-instance", "SERVER edge-> 2<1 no-instance"],
        );
        check(&record(200, ""), "not an edge", &[]);
    }
}
