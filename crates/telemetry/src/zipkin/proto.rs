//! Zipkin v2 spans as protobuf (`zipkin.proto3.ListOfSpans`).

use super::json::to_micros;
use crate::ids::{SpanId, TraceId};
use crate::protobuf::{ProtobufError, Reader, Writer};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value, lower};
use std::net::IpAddr;
use units::Nanos;

/// Why bytes are no list of spans.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Wire(#[from] ProtobufError),
    #[error("span {0}: {1}")]
    Span(usize, &'static str),
}

pub fn read_spans(body: &[u8]) -> Result<Vec<Span>, ReadError> {
    let mut reader = Reader::new(body);
    let mut spans = Vec::new();
    while let Some((number, field)) = reader.field()? {
        if number == 1 {
            let span = read_span(field.message(1)?)?.map_err(|why| ReadError::Span(spans.len(), why))?;
            spans.push(span);
        }
    }
    Ok(spans)
}

/// The outer error is the wire's, the inner one the span's.
fn read_span(mut reader: Reader<'_>) -> Result<Result<Span, &'static str>, ProtobufError> {
    let (mut trace_id, mut id) = (None, None);
    let mut span =
        Span::new(TraceId::new(1).expect("one is not zero"), SpanId::new(1).expect("one is not zero"));
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => match TraceId::from_bytes(field.bytes(1)?) {
                Some(read) => trace_id = Some(read),
                None => return Ok(Err("trace_id is not 8 or 16 bytes, or all zeros")),
            },
            2 => match field.bytes(2)? {
                [] => {}
                bytes if bytes.len() == 8 => span.parent = SpanId::from_bytes(bytes),
                _ => return Ok(Err("parent_id is not 8 bytes")),
            },
            3 => match SpanId::from_bytes(field.bytes(3)?) {
                Some(read) => id = Some(read),
                None => return Ok(Err("id is not 8 bytes, or all zeros")),
            },
            4 => match field.varint(4)? {
                0 => span.kind = None,
                kind => match SpanKind::from_number(kind) {
                    Some(kind) => span.kind = Some(kind),
                    None => return Ok(Err("kind is none of the four")),
                },
            },
            5 => span.name = lower(field.text(5)?),
            6 => match micros(field.fixed64(6)?) {
                Ok(start) => span.start = start,
                Err(why) => return Ok(Err(why)),
            },
            7 => match micros(field.varint(7)?) {
                Ok(duration) => span.duration = duration,
                Err(why) => return Ok(Err(why)),
            },
            8 => span.local = read_endpoint(field.message(8)?)?,
            9 => span.remote = read_endpoint(field.message(9)?)?,
            10 => {
                let mut inner = field.message(10)?;
                let (mut at, mut value) = (None, None);
                while let Some((number, field)) = inner.field()? {
                    match number {
                        1 => match micros(field.fixed64(1)?) {
                            Ok(time) => at = time,
                            Err(why) => return Ok(Err(why)),
                        },
                        2 => value = Some(field.text(2)?.into()),
                        _ => {}
                    }
                }
                if let (Some(at), Some(value)) = (at, value) {
                    span.annotations.push(Annotation { at, value });
                }
            }
            11 => {
                let mut entry = field.message(11)?;
                let (mut key, mut value) = ("", "");
                while let Some((number, field)) = entry.field()? {
                    match number {
                        1 => key = field.text(1)?,
                        2 => value = field.text(2)?,
                        _ => {}
                    }
                }
                span.tags.push((key.into(), Value::Text(value.into())));
            }
            12 => span.debug = field.bool(12)?,
            13 => span.shared = field.bool(13)?,
            _ => {}
        }
    }
    let (Some(trace_id), Some(id)) = (trace_id, id) else {
        return Ok(Err("trace_id and id are required"));
    };
    (span.trace_id, span.id) = (trace_id, id);
    span.normalise();
    Ok(Ok(span))
}

fn micros(micros: u64) -> Result<Option<Nanos>, &'static str> {
    match micros {
        0 => Ok(None),
        // What a signed reader sees as negative is absent, as in JSON.
        micros if micros > i64::MAX as u64 => Ok(None),
        micros if micros > u64::MAX / 1_000 => Err("a time after the year 2554"),
        micros => Ok(Some(Nanos::from_micros(micros))),
    }
}

fn read_endpoint(mut reader: Reader<'_>) -> Result<Endpoint, ProtobufError> {
    let mut endpoint = Endpoint::default();
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => endpoint.service = lower(field.text(1)?),
            2 => {
                if let Ok(octets) = <[u8; 4]>::try_from(field.bytes(2)?) {
                    endpoint.set_ip(IpAddr::from(octets));
                }
            }
            3 => {
                if let Ok(octets) = <[u8; 16]>::try_from(field.bytes(3)?) {
                    endpoint.set_ip(IpAddr::from(octets));
                }
            }
            4 => endpoint.port = u16::try_from(field.varint(4)?).unwrap_or(0),
            _ => {}
        }
    }
    Ok(endpoint)
}

pub fn write_spans(out: &mut Vec<u8>, spans: &[Span]) {
    let mut writer = Writer::new(out);
    for span in spans {
        writer.message(1, |writer| write_span(writer, span));
    }
}

fn write_span(writer: &mut Writer<'_>, span: &Span) {
    let trace_id = span.trace_id.get().to_be_bytes();
    writer.bytes(1, if span.trace_id.get() >> 64 == 0 { &trace_id[8..] } else { &trace_id });
    if let Some(parent) = span.parent {
        writer.bytes(2, &parent.get().to_be_bytes());
    }
    writer.bytes(3, &span.id.get().to_be_bytes());
    if let Some(kind) = span.kind {
        writer.varint(4, kind as u64);
    }
    if !span.name.is_empty() {
        writer.text(5, &lower(&span.name));
    }
    if let Some(start) = span.start {
        writer.fixed64(6, to_micros(start));
    }
    if let Some(duration) = span.duration {
        writer.varint(7, to_micros(duration));
    }
    for (number, endpoint) in [(8, &span.local), (9, &span.remote)] {
        if !endpoint.is_empty() {
            writer.message(number, |writer| write_endpoint(writer, endpoint));
        }
    }
    for annotation in &span.annotations {
        writer.message(10, |writer| {
            writer.fixed64(1, to_micros(annotation.at));
            writer.text(2, &annotation.value);
        });
    }
    for (key, value) in &span.tags {
        writer.message(11, |writer| {
            writer.text(1, key);
            writer.text(2, &value.text());
        });
    }
    if span.debug {
        writer.bool(12, true);
    }
    if span.shared {
        writer.bool(13, true);
    }
}

fn write_endpoint(writer: &mut Writer<'_>, endpoint: &Endpoint) {
    if let Some(service) = endpoint.service() {
        writer.text(1, service);
    }
    if let Some(ip) = endpoint.ipv4 {
        writer.bytes(2, &ip.octets());
    }
    if let Some(ip) = endpoint.ipv6 {
        writer.bytes(3, &ip.octets());
    }
    if endpoint.port != 0 {
        writer.varint(4, u64::from(endpoint.port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_survive_protobuf_as_they_survive_json() {
        let json = br#"[{"traceId":"7180c278b62e8f6a216a2aea45d08fc9","parentId":"6b221d5bc9e6496c","id":"5b4185666d50f68b","kind":"SERVER","name":"get","timestamp":1472470996199000,"duration":207000,"localEndpoint":{"serviceName":"frontend","ipv4":"127.0.0.1"},"remoteEndpoint":{"serviceName":"backend","ipv6":"2001:db8::c001","port":9000},"annotations":[{"timestamp":1472470996238000,"value":"foo"}],"tags":{"clnt/finagle.version":"6.45.0","error":""},"debug":true,"shared":true},{"traceId":"1","id":"2"}]"#;
        let spans = super::super::json::read_spans(json).unwrap();
        let mut out = Vec::new();
        write_spans(&mut out, &spans);
        assert_eq!(read_spans(&out).unwrap(), spans);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |write: fn(&mut Writer<'_>)| {
            let mut out = Vec::new();
            Writer::new(&mut out).message(1, write);
            read_spans(&out)
        };
        assert_eq!(
            with(|span| span.bytes(1, &[0; 16])),
            Err(ReadError::Span(0, "trace_id is not 8 or 16 bytes, or all zeros"))
        );
        assert_eq!(
            with(|span| span.bytes(1, &[1; 16])),
            Err(ReadError::Span(0, "trace_id and id are required"))
        );
        assert_eq!(with(|span| span.varint(4, 9)), Err(ReadError::Span(0, "kind is none of the four")));
        assert_eq!(with(|span| span.varint(1, 9)), Err(ReadError::Wire(ProtobufError::WrongType(1))));
        assert_eq!(with(|span| span.bytes(5, &[0xff])), Err(ReadError::Wire(ProtobufError::NotUtf8(5))));
        assert_eq!(read_spans(&[]), Ok(vec![]));
    }
}
