//! Our spans and latencies as OTLP, for whoever collects them.

use super::schema::{METRICS, TRACES, to_json};
use crate::json::Writer as JsonWriter;
use crate::metrics::{Counters, SeriesText};
use crate::protobuf::Writer;
use crate::span::{Span, SpanKind, Value, tag};
use std::collections::BTreeMap;
use units::{Histogram, Nanos};

fn attribute(writer: &mut Writer<'_>, number: u32, key: &str, value: &Value) {
    writer.message(number, |writer| {
        writer.text(1, key);
        writer.message(2, |writer| match value {
            Value::Text(text) => writer.text(1, text),
            Value::Bool(yes) => writer.bool(2, *yes),
            Value::Int(int) => writer.int64(3, *int),
            Value::Float(float) => writer.double(4, *float),
        });
    });
}

fn text_attribute(writer: &mut Writer<'_>, number: u32, key: &str, text: &str) {
    writer.message(number, |writer| {
        writer.text(1, key);
        writer.message(2, |writer| writer.text(1, text));
    });
}

/// An `ExportTraceServiceRequest`: spans grouped by the service that made them.
pub fn traces(spans: &[Span]) -> Vec<u8> {
    let mut services: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        services.entry(&span.local.service).or_default().push(span);
    }
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    for (service, spans) in services {
        writer.message(1, |writer| {
            writer.message(1, |writer| text_attribute(writer, 1, "service.name", service));
            writer.message(2, |writer| {
                spans.iter().for_each(|span| writer.message(2, |writer| write_span(writer, span)))
            });
        });
    }
    out
}

/// The same as OTLP JSON: also what Jaeger's `/api/v3` answers with.
pub fn traces_json(spans: &[Span]) -> String {
    let mut json = JsonWriter::new();
    to_json(&traces(spans), &TRACES, &mut json).expect("we wrote these bytes");
    json.into_text()
}

fn write_span(writer: &mut Writer<'_>, span: &Span) {
    writer.bytes(1, &span.trace_id.get().to_be_bytes());
    writer.bytes(2, &span.id.get().to_be_bytes());
    if let Some(parent) = span.parent {
        writer.bytes(4, &parent.get().to_be_bytes());
    }
    writer.text(5, &span.name);
    let kind = match span.kind {
        None => 1,
        Some(SpanKind::Server) => 2,
        Some(SpanKind::Client) => 3,
        Some(SpanKind::Producer) => 4,
        Some(SpanKind::Consumer) => 5,
    };
    writer.varint(6, kind);
    if let Some(start) = span.start {
        writer.fixed64(7, start.0);
        if let Some(duration) = span.duration {
            writer.fixed64(8, (start + duration).0);
        }
    }
    for (key, value) in &span.tags {
        if !matches!(&**key, "otel.status_code" | tag::ERROR) {
            attribute(writer, 9, key, value);
        }
    }
    if let Some(remote) = span.remote.service().filter(|_| span.tag("peer.service").is_none()) {
        text_attribute(writer, 9, "peer.service", remote);
    }
    for annotation in &span.annotations {
        writer.message(11, |writer| {
            writer.fixed64(1, annotation.at.0);
            writer.text(2, &annotation.value);
        });
    }
    match (span.tag(tag::ERROR), span.tag("otel.status_code")) {
        (Some(error), _) => writer.message(15, |writer| {
            writer.text(2, &error.text());
            writer.varint(3, 2);
        }),
        (None, Some(code)) if &*code.text() == "OK" => writer.message(15, |writer| writer.varint(3, 1)),
        _ => {}
    }
}

/// OTLP asks for at most 160 buckets from those who do not know the receiver.
const BUCKETS_MAX: usize = 160;

/// An `ExportMetricsServiceRequest` with `http.client.request.duration` since `start`, one point a series, cumulative.
pub fn latencies<'a>(
    series: impl Iterator<Item = (&'a SeriesText, &'a Histogram, &'a Counters)>,
    start: Nanos,
    now: Nanos,
) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).message(1, |writer| {
        writer.message(1, |writer| text_attribute(writer, 1, "service.name", "isobar"));
        writer.message(2, |writer| {
            writer.message(1, |writer| writer.text(1, "isobar"));
            writer.message(2, |writer| {
                writer.text(1, "http.client.request.duration");
                writer.text(2, "Duration of requests, seen by the caller's proxy.");
                writer.text(3, "s");
                writer.message(10, |writer| {
                    for (text, latency, _) in series.filter(|(_, latency, _)| !latency.is_empty()) {
                        writer.message(1, |writer| write_point(writer, text, latency, start, now));
                    }
                    writer.varint(2, 2); // Cumulative.
                });
            });
        });
    });
    out
}

pub fn latencies_json<'a>(
    series: impl Iterator<Item = (&'a SeriesText, &'a Histogram, &'a Counters)>,
    start: Nanos,
    now: Nanos,
) -> String {
    let mut json = JsonWriter::new();
    to_json(&latencies(series, start, now), &METRICS, &mut json).expect("we wrote these bytes");
    json.into_text()
}

fn write_point(writer: &mut Writer<'_>, text: &SeriesText, latency: &Histogram, start: Nanos, now: Nanos) {
    for (key, value) in crate::exposition::labels(text) {
        text_attribute(writer, 1, key.otel, value);
    }
    let exported = latency.export(BUCKETS_MAX);
    writer.fixed64(2, start.0);
    writer.fixed64(3, now.0);
    writer.fixed64(4, exported.count);
    writer.double(5, exported.sum as f64 / 1e9);
    writer.sint32(6, exported.scale);
    if exported.zero_count > 0 {
        writer.fixed64(7, exported.zero_count);
    }
    writer.message(8, |writer| {
        writer.sint32(1, exported.offset);
        writer.packed_varints(2, exported.counts.iter().copied());
    });
    if let (Some(min), Some(max)) = (latency.min(), latency.max()) {
        writer.double(12, min.as_secs_f64());
        writer.double(13, max.as_secs_f64());
    }
    // The zero bucket holds exactly the zeros.
    writer.double(14, 0.0);
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use crate::tree::tests::trace;

    #[test]
    fn spans_survive_otlp() {
        let mut spans = trace(
            "1 SERVER web->- @1000 +100 get \n 2<1 CLIENT web->cart @1010 +80 error post \n 3<2 LOCAL cart->- @1020 +0 x",
        );
        spans[0].set_tag("http.response.status_code", 200);
        spans[0].set_tag("cpu", Value::Float(0.5));
        spans[0].set_tag("ok", true);
        spans[1].set_tag("peer.service", "cart");
        spans[1].set_tag("otel.status_code", "ERROR");
        spans.iter_mut().for_each(Span::normalise);
        let mut back = decode::spans(&traces(&spans)).unwrap();
        assert_eq!(back.rejected, 0);
        back.items.sort_by_key(|span| span.id);
        assert_eq!(back.items, spans);
        assert!(traces_json(&spans).contains(r#""startTimeUnixNano":"1000000""#));
    }

    #[test]
    fn latencies_keep_every_count() {
        let mut latency = Histogram::new();
        (0..5_000u64).for_each(|n| latency.record(Nanos(n * n * 1_000)));
        let text = crate::exposition::tests::series("web", "cart", "GET /");
        let bytes = latencies([(&text, &latency, &Counters::default())].into_iter(), Nanos(1), Nanos(2));
        let points = decode::metrics(&bytes).unwrap().items;
        let super::super::MetricValue::Exponential { count, zero_count, counts, .. } = &points[0].value
        else {
            panic!("{points:?}");
        };
        assert_eq!((*count, *zero_count), (5_000, 1));
        assert_eq!(counts.iter().sum::<u64>() + zero_count, 5_000);
        assert!(counts.len() <= BUCKETS_MAX);
        assert!(
            points[0]
                .attributes
                .iter()
                .any(|(key, value)| &**key == "server.address" && &*value.text() == "cart"),
            "{:?}",
            points[0].attributes
        );
    }
}
