//! Entry points for fuzzers: bytes in, no panic and no runaway memory out.
//!
//! Plain functions, so that any driver can call them on stable Rust and over a saved corpus. Where a format can be
//! written again, what was read must survive that.

use crate::filter::Filter;
use crate::http::{Limits, Query, Request};
use crate::ids::{SpanId, TraceId};
use crate::json::Reader;
use crate::otlp::{LogRecord, MetricPoint, Sink, Taken, decode, export};
use crate::propagation::{TraceState, extract};
use crate::span::Span;
use crate::traces::{MemoryTraces, TraceQuery, TraceSettings, TraceStore};
use crate::tree::{Linker, Tree};
use crate::zipkin::{api, json, proto, v1};
use units::Nanos;

fn survive_zipkin(spans: &[Span]) {
    let mut written = crate::json::Writer::new();
    json::write_spans(&mut written, spans);
    let read = json::read_spans(written.as_bytes()).expect("what we write is good JSON");
    assert_eq!(read.len(), spans.len());
    let mut bytes = Vec::new();
    proto::write_spans(&mut bytes, &read);
    assert_eq!(proto::read_spans(&bytes).as_ref(), Ok(&read), "both encodings say the same");
}

pub fn fuzz_json(data: &[u8]) {
    if let Ok(mut reader) = Reader::from_bytes(data) {
        let _ = reader.skip().and_then(|()| reader.end());
    }
}

pub fn fuzz_zipkin_json(data: &[u8]) {
    if let Ok(spans) = json::read_spans(data) {
        survive_zipkin(&spans);
    }
}

pub fn fuzz_zipkin_v1(data: &[u8]) {
    if let Ok(spans) = v1::read_spans(data) {
        survive_zipkin(&spans);
    }
}

pub fn fuzz_zipkin_protobuf(data: &[u8]) {
    if let Ok(spans) = proto::read_spans(data) {
        survive_zipkin(&spans);
    }
}

pub fn fuzz_otlp_protobuf(data: &[u8]) {
    if let Ok(decoded) = decode::spans(data) {
        let again = decode::spans(&export::traces(&decoded.items)).expect("what we write is good OTLP");
        assert_eq!(again.items.len(), decoded.items.len());
        survive_zipkin(&decoded.items);
    }
    let _ = decode::metrics(data);
    let _ = decode::logs(data);
}

struct Nowhere;

impl Sink for Nowhere {
    fn spans(&mut self, _: Vec<Span>) -> Taken {
        Taken::default()
    }
    fn metrics(&mut self, _: Vec<MetricPoint>) -> Taken {
        Taken::default()
    }
    fn logs(&mut self, _: Vec<LogRecord>) -> Taken {
        Taken::default()
    }
}

/// The first byte picks the door, the rest is the body.
pub fn fuzz_otlp_doors(data: &[u8]) {
    let Some((door, body)) = data.split_first() else { return };
    let limits = Limits { body_bytes: 1 << 20 };
    let path = ["/v1/traces", "/v1/metrics", "/v1/logs"][usize::from(door % 3)];
    let content_type = if door & 4 == 0 { "application/json" } else { "application/x-protobuf" };
    let encoding = if door & 8 == 0 { "identity" } else { "gzip" };
    let headers = [("content-type", content_type), ("content-encoding", encoding)];
    let response = crate::otlp::handle(&Request::post(path, &headers, body), limits, &mut Nowhere);
    assert!(matches!(response.map(|it| it.status), Some(200 | 400 | 413)));
    let grpc = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let _ = crate::otlp::handle_grpc(grpc, Some(encoding), body, limits, &mut Nowhere);
}

pub fn fuzz_propagation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let values: [Option<&str>; 8] = std::array::from_fn(|_| lines.next());
    let names = [
        "traceparent",
        "tracestate",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
    ];
    let _ = extract(|name| names.iter().position(|known| *known == name).and_then(|at| values[at]));
    if let Some(state) = TraceState::parse(text) {
        let mut out = String::new();
        state.write(Some("iso=1"), &mut out);
        assert!(out.len() <= crate::propagation::TRACESTATE_BYTES + 1 && TraceState::parse(&out).is_some());
    }
}

/// Spans from bytes: six each, with few ids, so that duplicates, loops and shared ids are met often.
pub fn fuzz_tree(data: &[u8]) {
    let names = ["", "web", "cart", "db"];
    let spans: Vec<Span> = data
        .chunks_exact(6)
        .filter_map(|bytes| {
            let mut span = Span::new(TraceId::new(1)?, SpanId::new(u64::from(bytes[0] % 16) + 1)?);
            span.parent = SpanId::new(u64::from(bytes[1] % 17));
            span.kind = crate::span::SpanKind::from_number(u64::from(bytes[2] % 5));
            span.local = crate::span::Endpoint::named(names[usize::from(bytes[3] % 4)]);
            span.remote = crate::span::Endpoint::named(names[usize::from(bytes[4] % 4)]);
            span.shared = bytes[5] & 1 == 1;
            span.start = (bytes[5] & 2 == 2).then_some(Nanos(u64::from(bytes[5])));
            span.normalise();
            Some(span)
        })
        .collect();
    let mut linker = Linker::default();
    linker.add_trace(spans.clone());
    let _ = linker.links();
    let tree = Tree::build(spans);
    assert_eq!(tree.depth_first().len(), tree.nodes.len(), "every node is shown once");
    let _ = crate::views::waterfall(&tree, 80, false);
}

pub fn fuzz_filter(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(error) = Filter::parse(text)
    {
        assert!(error.at + error.len <= text.len().max(error.len) && !error.to_string().is_empty());
    }
}

/// A small server: each line of the input is a GET of the read API, after the first line was posted as spans.
pub fn fuzz_zipkin_api(data: &[u8]) {
    let mut store = MemoryTraces::new(TraceSettings { bytes_max: 1 << 20, ..TraceSettings::default() });
    let settings =
        api::ZipkinSettings { limits: Limits { body_bytes: 1 << 20 }, ..api::ZipkinSettings::default() };
    let mut lines = data.split(|byte| *byte == b'\n');
    let now = Nanos::from_secs(1_600_000_000);
    let first = lines.next().unwrap_or_default();
    let _ = api::handle(&settings, &mut store, &Request::post("/api/v2/spans", &[], first), now);
    for line in lines.take(50) {
        if let Ok(target) = std::str::from_utf8(line) {
            let _ = api::handle(&settings, &mut store, &Request::get(target), now);
        }
    }
    store.tick(now + Nanos::from_secs(60));
    let _ = store.search(&TraceQuery::between(Nanos::ZERO, Nanos::MAX, 10));
}

pub fn fuzz_query(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = TraceQuery::from_zipkin(&Query::parse(text), Nanos::from_secs(1), Nanos::from_secs(1));
    }
}

pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("json", fuzz_json),
    ("zipkin_json", fuzz_zipkin_json),
    ("zipkin_v1", fuzz_zipkin_v1),
    ("zipkin_protobuf", fuzz_zipkin_protobuf),
    ("otlp_protobuf", fuzz_otlp_protobuf),
    ("otlp_doors", fuzz_otlp_doors),
    ("propagation", fuzz_propagation),
    ("tree", fuzz_tree),
    ("filter", fuzz_filter),
    ("zipkin_api", fuzz_zipkin_api),
    ("query", fuzz_query),
];

#[cfg(test)]
mod tests {
    use super::*;
    use units::Rng;

    /// Good documents to break.
    const SEEDS: [&[u8]; 6] = [
        br#"[{"traceId":"1463ac35c9f6413ad","id":"1","parentId":"2","kind":"CLIENT","name":"a","timestamp":1,"duration":2,"localEndpoint":{"serviceName":"b","ipv4":"1.2.3.4"},"annotations":[{"timestamp":3,"value":"c"}],"tags":{"d":"e"},"shared":true}]"#,
        br#"[{"traceId":"1","id":"2","annotations":[{"timestamp":1,"value":"sr","endpoint":{"serviceName":"x"}}],"binaryAnnotations":[{"key":"ca","value":true,"endpoint":{"ipv4":"1.1.1.1"}}]}]"#,
        br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","kind":3,"attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":1}]}}}]}]}]}]}"#,
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\na=1,b=2\n80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
        b"service:web->cart -zone:b p99>200ms status:5xx \"a b\"",
        b"\x0a\x2c\x0a\x10\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x1a\x08\x01\x02\x03\x04\x05\x06\x07\x08\x20\x01\x2a\x03get\x31\x01\x00\x00\x00\x00\x00\x00\x00\x38\x05",
    ];

    #[test]
    fn every_target_survives_broken_documents() {
        for (number, (name, target)) in TARGETS.iter().enumerate() {
            let mut rng = Rng::from_seed(number as u64);
            for _ in 0..2_000 {
                let mut data = SEEDS[rng.below(SEEDS.len() as u64) as usize].to_vec();
                for _ in 0..rng.below(6) {
                    let at = rng.below(data.len() as u64) as usize;
                    match rng.below(4) {
                        0 => data[at] = rng.next_u64() as u8,
                        1 => drop(data.remove(at)),
                        2 => data.insert(at, rng.next_u64() as u8),
                        _ => data.truncate(at.max(1)),
                    }
                    if data.is_empty() {
                        data.push(0);
                    }
                }
                assert!(!name.is_empty());
                target(&data);
            }
        }
    }
}
