//! Finished requests as spans, for the trace store.
//!
//! A proxy's record is one request over one edge. It becomes the caller's client span; what a gateway let in becomes
//! the gateway's server span as well, for nobody else can say when it began. What went on inside an instance is not
//! ours to tell: applications send spans of their own, and they join ours by the ids that the proxy handed down.

use crate::compile::parties;
use proxy::http1::Method;
use proxy::record::Finished;
use telemetry::ids::{SpanId, TraceId};
use telemetry::span::{Endpoint, Span, SpanKind, tag};

/// `edge` is the name of the edge that the record was counted on.
pub fn spans_of(record: &Finished, edge: &str, out: &mut Vec<Span>) {
    let (Some(trace), Some((caller, callee))) = (TraceId::new(record.trace_id), parties(edge)) else {
        return;
    };
    let from_gateway = edge.split("->").next().is_some_and(|slot| !slot.contains('#'));
    let parent = SpanId::new(record.parent_span);
    let name = format!("{} {}", method(record.method), record.path()).to_lowercase();
    if let Some(own) = SpanId::new(record.client_span) {
        let mut span = Span::new(trace, own);
        span.parent = if from_gateway { SpanId::new(record.server_span) } else { parent };
        span.kind = Some(SpanKind::Client);
        span.local = Endpoint::named(caller);
        span.remote = Endpoint::named(callee);
        if let Some(instance) = record.instance {
            span.remote.set_ip(instance.ip());
            span.remote.port = instance.port();
        }
        span.set_tag(tag::ATTEMPT, i64::from(record.attempts));
        finish(span, record, &name, out);
    }
    if let (true, Some(own)) = (from_gateway, SpanId::new(record.server_span)) {
        let mut span = Span::new(trace, own);
        span.parent = parent;
        span.kind = Some(SpanKind::Server);
        span.local = Endpoint::named(caller);
        finish(span, record, &name, out);
    }
}

fn finish(mut span: Span, record: &Finished, name: &str, out: &mut Vec<Span>) {
    span.name = name.into();
    span.start = Some(record.started_unix);
    span.duration = Some(record.duration);
    span.set_tag(tag::METHOD, method(record.method));
    span.set_tag(tag::STATUS, i64::from(record.status));
    if !record.error.is_empty() {
        span.set_tag(tag::ERROR, record.error);
    } else if record.status == 0 || record.status >= 500 {
        span.set_tag(tag::ERROR, record.status.to_string().as_str());
    }
    span.normalise();
    out.push(span);
}

fn method(method: Method) -> &'static str {
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
    use units::Nanos;

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
            path_len: 5,
            path,
        }
    }

    /// Each span as `kind local->remote id<parent`, with its error if it has one.
    #[track_caller]
    fn check(record: &Finished, edge: &str, expected: &[&str]) {
        let mut spans = Vec::new();
        spans_of(record, edge, &mut spans);
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
        assert!(
            spans.iter().all(|it| &*it.name == "get /cart" && it.duration == Some(Nanos::from_millis(7)))
        );
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
    fn what_has_no_trace_or_was_never_sent_makes_no_span() {
        check(&Finished { trace_id: 0, ..record(200, "") }, "web#0->cart", &[]);
        check(&Finished { client_span: 0, ..record(503, "no instance") }, "web#0->cart", &[]);
        check(&record(200, ""), "not an edge", &[]);
    }
}
