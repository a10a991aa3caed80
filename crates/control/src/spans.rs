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
