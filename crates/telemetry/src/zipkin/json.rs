//! Zipkin v2 spans as JSON.

use crate::ids::{IdError, SpanId, TraceId};
use crate::json::{JsonError, Reader, Writer};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value, lower};
use std::borrow::Cow;
use units::Nanos;

/// Reads a list of spans. Unknown fields are skipped, `null` is absent, and one bad span refuses the whole list: the
/// client then learns of its mistake instead of missing a span now and then.
pub fn read_spans(body: &[u8]) -> Result<Vec<Span>, JsonError> {
    let mut reader = Reader::from_bytes(body)?;
    // A span is rarely under 200 bytes; reserving more would let a short body ask for much memory.
    let mut spans = Vec::with_capacity(body.len() / 512);
    reader.array(|reader| {
        spans.push(read_span(reader)?);
        Ok(())
    })?;
    reader.end()?;
    Ok(spans)
}

pub(super) fn id<T>(
    reader: &mut Reader<'_>,
    what: &str,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, JsonError> {
    let text = reader.text()?;
    parse(&text).or_else(|error| {
        let text: Cow<'_, str> = text.chars().take(40).collect();
        reader.error(format!("{what} `{text}` {error}"))
    })
}

/// Zero and negative times are absent.
pub(super) fn micros(reader: &mut Reader<'_>) -> Result<Option<Nanos>, JsonError> {
    if reader.null()? {
        return Ok(None);
    }
    let micros = reader.int(true)?;
    match u64::try_from(micros) {
        Ok(0) | Err(_) if micros <= 0 => Ok(None),
        Ok(micros) if micros <= u64::MAX / 1_000 => Ok(Some(Nanos::from_micros(micros))),
        _ => reader.error("a time after the year 2554"),
    }
}

fn read_span(reader: &mut Reader<'_>) -> Result<Span, JsonError> {
    let (mut trace_id, mut span_id) = (None, None);
    // Ids may come in any order among the keys, so the span starts with stand-ins.
    let mut span =
        Span::new(TraceId::new(1).expect("one is not zero"), SpanId::new(1).expect("one is not zero"));
    reader.object(|reader, key| {
        match key {
            "traceId" => trace_id = Some(id(reader, "traceId", TraceId::from_zipkin)?),
            "id" => span_id = Some(id(reader, "id", SpanId::from_zipkin)?),
            _ if reader.null()? => {}
            "parentId" => {
                span.parent = id(reader, "parentId", |text| match SpanId::from_zipkin(text) {
                    Err(IdError::Zero) => Ok(None),
                    other => other.map(Some),
                })?;
            }
            "kind" => {
                let name = reader.text()?;
                span.kind = match SpanKind::from_name(&name) {
                    Some(kind) => Some(kind),
                    None => return reader.error("kind is none of CLIENT, SERVER, PRODUCER, CONSUMER"),
                };
            }
            "name" => span.name = lower(&reader.text()?),
            "timestamp" => span.start = micros(reader)?,
            "duration" => span.duration = micros(reader)?,
            "localEndpoint" => span.local = read_endpoint(reader)?,
            "remoteEndpoint" => span.remote = read_endpoint(reader)?,
            "annotations" => reader.array(|reader| {
                let annotation = read_annotation(reader)?;
                span.annotations.extend(annotation);
                Ok(())
            })?,
            "tags" => reader.object(|reader, key| {
                if reader.null()? {
                    return reader.error(format!("tag `{key}` has no value"));
                }
                let value = reader.text()?;
                span.tags.push((key.into(), Value::Text(value.into())));
                Ok(())
            })?,
            "debug" => span.debug = reader.bool()?,
            "shared" => span.shared = reader.bool()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (trace_id, span_id) {
        (Some(trace_id), Some(span_id)) => (span.trace_id, span.id) = (trace_id, span_id),
        (None, _) => return reader.error("a span without traceId"),
        (_, None) => return reader.error("a span without id"),
    }
    span.normalise();
    Ok(span)
}

pub(super) fn read_endpoint(reader: &mut Reader<'_>) -> Result<Endpoint, JsonError> {
    let mut endpoint = Endpoint::default();
    reader.object(|reader, key| {
        match key {
            _ if reader.null()? => {}
            "serviceName" => endpoint.service = lower(&reader.text()?),
            "ipv4" | "ipv6" => {
                endpoint.set_ip_text(&reader.text()?);
            }
            "port" => {
                let port = reader.int(true)?;
                endpoint.port = match u16::try_from(port) {
                    Ok(port) => port,
                    Err(_) => return reader.error("port is not between 0 and 65535"),
                };
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(endpoint)
}

/// An annotation at time zero is no annotation, as for every other time.
fn read_annotation(reader: &mut Reader<'_>) -> Result<Option<Annotation>, JsonError> {
    let (mut at, mut value) = (None, None);
    reader.object(|reader, key| {
        match key {
            "timestamp" => at = Some(micros(reader)?),
            "value" => value = Some(reader.text()?.into()),
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (at, value) {
        (Some(at), Some(value)) => Ok(at.map(|at| Annotation { at, value })),
        _ => reader.error("an annotation needs both timestamp and value"),
    }
}

/// Nanoseconds in the unit Zipkin speaks: whole microseconds, cut, but never zero, because zero means "unknown" there.
pub fn to_micros(time: Nanos) -> u64 {
    (time.0 / 1_000).max(1)
}

pub fn write_spans(json: &mut Writer, spans: &[Span]) {
    json.array(|json| spans.iter().for_each(|span| write_span(json, span)));
}

/// Keys in the reference's order, absent fields left out: people diff these.
pub fn write_span(json: &mut Writer, span: &Span) {
    json.object(|json| {
        write_trace_id(json.key("traceId"), span.trace_id);
        if let Some(parent) = span.parent {
            json.key("parentId").hex(u128::from(parent.get()), 16);
        }
        json.key("id").hex(u128::from(span.id.get()), 16);
        if let Some(kind) = span.kind {
            json.key("kind").text(kind.name());
        }
        if !span.name.is_empty() {
            json.key("name").text(&lower(&span.name));
        }
        if let Some(start) = span.start {
            json.key("timestamp").u64(to_micros(start));
        }
        if let Some(duration) = span.duration {
            json.key("duration").u64(to_micros(duration));
        }
        write_endpoint(json, "localEndpoint", &span.local);
        write_endpoint(json, "remoteEndpoint", &span.remote);
        if !span.annotations.is_empty() {
            json.key("annotations").array(|json| {
                for annotation in &span.annotations {
                    json.object(|json| {
                        json.key("timestamp").u64(to_micros(annotation.at));
                        json.key("value").text(&annotation.value);
                    });
                }
            });
        }
        if !span.tags.is_empty() {
            json.key("tags").object(|json| {
                for (key, value) in &span.tags {
                    json.key(key).text(&value.text());
                }
            });
        }
        if span.debug {
            json.key("debug").bool(true);
        }
        if span.shared {
            json.key("shared").bool(true);
        }
    });
}

fn write_trace_id(json: &mut Writer, id: TraceId) {
    json.hex(id.get(), if id.get() >> 64 == 0 { 16 } else { 32 });
}

fn write_endpoint(json: &mut Writer, key: &str, endpoint: &Endpoint) {
    if endpoint.is_empty() {
        return;
    }
    json.key(key).object(|json| {
        if let Some(service) = endpoint.service() {
            json.key("serviceName").text(service);
        }
        if let Some(ip) = endpoint.ipv4 {
            json.key("ipv4").text(&ip.to_string());
        }
        if let Some(ip) = endpoint.ipv6 {
            json.key("ipv6").text(&ip.to_string());
        }
        if endpoint.port != 0 {
            json.key("port").u64(u64::from(endpoint.port));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one span and writes it again; an error is its message.
    #[track_caller]
    fn check(json: &str, expected: &str) {
        let got = match read_spans(format!("[{json}]").as_bytes()) {
            Ok(spans) => {
                let mut out = Writer::new();
                write_span(&mut out, &spans[0]);
                out.into_text()
            }
            Err(error) => error.to_string(),
        };
        if expected.starts_with('{') {
            assert_eq!(got, expected);
        } else {
            assert!(
                !got.starts_with('{') && got.contains(expected),
                "{json}\n  gave {got}\n  not  {expected}"
            );
        }
    }

    #[test]
    fn a_full_span_is_written_as_the_reference_does() {
        let full = r#"{"traceId":"7180c278b62e8f6a216a2aea45d08fc9","parentId":"6b221d5bc9e6496c","id":"5b4185666d50f68b","kind":"CLIENT","name":"get","timestamp":1472470996199000,"duration":207000,"localEndpoint":{"serviceName":"frontend","ipv4":"127.0.0.1"},"remoteEndpoint":{"serviceName":"backend","ipv4":"192.168.99.101","port":9000},"annotations":[{"timestamp":1472470996238000,"value":"foo"},{"timestamp":1472470996403000,"value":"bar"}],"tags":{"clnt/finagle.version":"6.45.0","http.path":"/api"}}"#;
        check(full, full);
    }

    #[test]
    fn fields_follow_the_table() {
        let with = |field: &str| format!(r#"{{"traceId":"1","id":"2",{field}}}"#);
        let bare = r#"{"traceId":"0000000000000001","id":"0000000000000002"}"#;
        let wrote =
            |field: &str| format!(r#"{{"traceId":"0000000000000001","id":"0000000000000002",{field}}}"#);
        for absent in [
            r#""parentId":null"#,
            r#""parentId":"0""#,
            r#""parentId":"2""#,
            r#""name":"""#,
            r#""name":null"#,
            r#""timestamp":0"#,
            r#""duration":-5"#,
            r#""duration":null"#,
            r#""localEndpoint":{}"#,
            r#""localEndpoint":{"serviceName":"","port":0}"#,
            r#""remoteEndpoint":null"#,
            r#""kind":null"#,
            r#""debug":false"#,
            r#""shared":false"#,
            r#""tags":{}"#,
            r#""annotations":[]"#,
            r#""unknown":{"a":[1,{}]}"#,
            r#""localEndpoint":{"ipv4":"db.example"}"#,
        ] {
            check(&with(absent), bare);
        }
        check(&with(r#""name":"GET /Ö""#), &wrote(r#""name":"get /ö""#));
        check(&with(r#""kind":"CLIENT","shared":true"#), &wrote(r#""kind":"CLIENT""#));
        check(&with(r#""kind":"SERVER","shared":true"#), &wrote(r#""kind":"SERVER","shared":true"#));
        check(
            &with(r#""localEndpoint":{"serviceName":"Cart","ipv6":"::ffff:1.2.3.4","port":80}"#),
            &wrote(r#""localEndpoint":{"serviceName":"cart","ipv4":"1.2.3.4","port":80}"#),
        );
        check(&with(r#""timestamp":"1472470996199000""#), &wrote(r#""timestamp":1472470996199000"#));
        check(&with(r#""tags":{"b":"1","a":"2","b":"3"}"#), &wrote(r#""tags":{"a":"2","b":"3"}"#));
        check(r#"{"traceId":"ABC","id":"2"}"#, "not lower-case hex");
        check(r#"{"traceId":"0","id":"2"}"#, "all zeros");
        check(r#"{"traceId":"1","id":"0"}"#, "all zeros");
        check(r#"{"traceId":"1","id":"00000000000000001"}"#, "at most 16");
        check(r#"{"traceId":"1"}"#, "without id");
        check(r#"{"id":"1"}"#, "without traceId");
        check(r#"{"traceId":null,"id":"1"}"#, "expected a string");
        check(&with(r#""kind":"client""#), "none of CLIENT");
        check(&with(r#""kind":3"#), "expected a string");
        check(&with(r#""tags":{"a":null}"#), "has no value");
        check(&with(r#""tags":{"a":1}"#), "expected a string");
        check(&with(r#""annotations":[{"timestamp":1}]"#), "needs both");
        check(&with(r#""timestamp":1.5"#), "integer");
        check(&with(r#""timestamp":99999999999999999999"#), "2554");
        check(&with(r#""localEndpoint":{"port":65536}"#), "65535");
        check("{", "expected");
        assert!(read_spans(b"{}").is_err());
        assert_eq!(read_spans(b" [] ").map(|spans| spans.len()), Ok(0));
    }

    #[test]
    fn nanoseconds_are_cut_but_never_to_zero() {
        assert_eq!((to_micros(Nanos(1_999)), to_micros(Nanos(999)), to_micros(Nanos(0))), (1, 1, 1));
    }
}
