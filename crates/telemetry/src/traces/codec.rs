//! A span in the store: about a hundred bytes instead of five hundred.
//!
//! Traces are written once, searched by their index and read rarely, so they rest as bytes: exact to account for, free
//! of pointers, and the shape a log on disk will want. Names are ids into [`Names`]; everything else is a varint.

use super::names::{NameId, Names};
use super::outline::Outline;
use crate::ids::{SpanId, TraceId};
use crate::protobuf::{Reader, put_varint};
use crate::report::{End, Report, ValueRef};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value, tag};
use std::net::{Ipv4Addr, Ipv6Addr};
use units::Nanos;

const DEBUG: u8 = 1 << 3;
const SHARED: u8 = 1 << 4;
const PARENT: u8 = 1 << 5;
const START: u8 = 1 << 6;
const DURATION: u8 = 1 << 7;

/// In the second byte of flags.
const FAILED: u8 = 1;

/// Names that a span brought along, as far as the table had room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) name: Option<NameId>,
    pub(super) local: Option<NameId>,
    pub(super) remote: Option<NameId>,
}

/// Appends a span, its length first.
pub(super) fn put(out: &mut Vec<u8>, names: &mut Names, span: &impl Report) -> Placed {
    let start = out.len();
    // Most spans are under 16 KiB; for those two bytes of length are exact and nothing has to move.
    out.extend_from_slice(&[0, 0]);
    let placed = put_body(out, names, span);
    let len = out.len() - start - 2;
    if len < 1 << 14 {
        out[start] = len as u8 | 0x80;
        out[start + 1] = (len >> 7) as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        put_varint(&mut prefix, len as u64);
        out.splice(start..start + 2, prefix);
    }
    placed
}

fn put_body(out: &mut Vec<u8>, names: &mut Names, span: &impl Report) -> Placed {
    let flag = |yes: bool, bit: u8| if yes { bit } else { 0 };
    let head = span.head();
    out.push(
        head.kind.map_or(0, |kind| kind as u8)
            | flag(head.debug, DEBUG)
            | flag(head.shared, SHARED)
            | flag(head.parent.is_some(), PARENT)
            | flag(head.start.is_some(), START)
            | flag(head.duration.is_some(), DURATION),
    );
    let more_flags = out.len();
    out.push(0);
    out.extend_from_slice(&head.id.get().to_le_bytes());
    if let Some(parent) = head.parent {
        out.extend_from_slice(&parent.get().to_le_bytes());
    }
    if let Some(start) = head.start {
        out.extend_from_slice(&start.0.to_le_bytes());
    }
    if let Some(duration) = head.duration {
        put_varint(out, duration.0);
    }
    let placed = Placed {
        name: put_name(out, names.intern(head.name), head.name),
        local: put_end(out, names, &head.local),
        remote: put_end(out, names, &head.remote),
    };
    put_varint(out, span.annotations().len() as u64);
    for annotation in span.annotations() {
        out.extend_from_slice(&annotation.at.0.to_le_bytes());
        put_text(out, &annotation.value);
    }
    let tags = span.tags();
    put_varint(out, tags.len() as u64);
    for (key, value) in tags {
        if key == tag::ERROR {
            out[more_flags] |= FAILED;
        }
        put_name(out, names.intern(key), key);
        match value {
            ValueRef::Text(text) => {
                out.push(0);
                put_text(out, text);
            }
            ValueRef::Int(int) => {
                out.push(1);
                put_varint(out, (int << 1 ^ int >> 63) as u64);
            }
            ValueRef::Float(float) => {
                out.push(2);
                out.extend_from_slice(&float.to_bits().to_le_bytes());
            }
            ValueRef::Bool(yes) => out.push(if yes { 3 } else { 4 }),
        }
    }
    placed
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A name: its id plus one, or zero and the text itself.
fn put_name(out: &mut Vec<u8>, id: Option<NameId>, text: &str) -> Option<NameId> {
    match id {
        Some(id) => put_varint(out, u64::from(id.0) + 1),
        None => {
            out.push(0);
            put_text(out, text);
        }
    }
    id
}

fn put_end(out: &mut Vec<u8>, names: &mut Names, end: &End<'_>) -> Option<NameId> {
    let at = out.len();
    out.push(0);
    let mut placed = None;
    if !end.service.is_empty() {
        out[at] |= 1;
        placed = put_name(out, names.intern_service(end.service), end.service);
    }
    if let Some(ip) = end.ipv4 {
        out[at] |= 2;
        out.extend_from_slice(&ip.octets());
    }
    if let Some(ip) = end.ipv6 {
        out[at] |= 4;
        out.extend_from_slice(&ip.octets());
    }
    if end.port != 0 {
        out[at] |= 8;
        out.extend_from_slice(&end.port.to_le_bytes());
    }
    placed
}

/// Every span of a blob that [`put`] wrote.
pub(super) fn spans(blob: &[u8], names: &Names, trace_id: TraceId) -> Vec<Span> {
    decode(blob, names, trace_id)
}

fn decode(blob: &[u8], names: &Names, trace_id: TraceId) -> Vec<Span> {
    let mut reader = Reader::new(blob);
    let mut spans = Vec::new();
    while !reader.is_empty() {
        let span = read(&mut reader, names, trace_id);
        debug_assert!(span.is_some(), "the store holds bytes it cannot read");
        match span {
            Some(span) => spans.push(span),
            None => break,
        }
    }
    spans
}

/// One span's bytes.
fn body<'a>(reader: &mut Reader<'a>) -> Option<Reader<'a>> {
    let len = reader.varint().ok()?;
    Some(Reader::new(reader.take(usize::try_from(len).ok()?).ok()?))
}

/// What every span begins with.
struct Start {
    id: SpanId,
    parent: Option<SpanId>,
    kind: Option<SpanKind>,
    debug: bool,
    shared: bool,
    failed: bool,
    start: Option<Nanos>,
    duration: Option<Nanos>,
}

fn start(body: &mut Reader<'_>) -> Option<Start> {
    let [flags, more_flags] = body.array().ok()?;
    let mut start = Start {
        id: SpanId::new(u64::from_le_bytes(body.array().ok()?))?,
        parent: None,
        kind: SpanKind::from_number(u64::from(flags & 7)),
        debug: flags & DEBUG != 0,
        shared: flags & SHARED != 0,
        failed: more_flags & FAILED != 0,
        start: None,
        duration: None,
    };
    if flags & PARENT != 0 {
        start.parent = SpanId::new(u64::from_le_bytes(body.array().ok()?));
    }
    if flags & START != 0 {
        start.start = Some(Nanos(u64::from_le_bytes(body.array().ok()?)));
    }
    if flags & DURATION != 0 {
        start.duration = Some(Nanos(body.varint().ok()?));
    }
    Some(start)
}

/// Outlines of a blob's spans, after those that are there; `false` if a service in it has no number.
pub(super) fn outlines(blob: &[u8], out: &mut Vec<Outline>) -> bool {
    let mut reader = Reader::new(blob);
    while !reader.is_empty() {
        match body(&mut reader).and_then(|mut body| outline(&mut body)) {
            Some(outline) => out.push(outline),
            None => return false,
        }
    }
    true
}

fn outline(body: &mut Reader<'_>) -> Option<Outline> {
    let it = start(body)?;
    if body.varint().ok()? == 0 {
        text(body)?;
    }
    Some(Outline {
        id: it.id.get(),
        parent: it.parent.map_or(0, SpanId::get),
        kind: it.kind,
        shared: it.shared,
        failed: it.failed,
        duration: it.duration,
        local: service_of(body)?,
        remote: service_of(body)?,
    })
}

/// Outer `None`: the name is spelt out.
fn service_of(body: &mut Reader<'_>) -> Option<Option<NameId>> {
    let [flags] = body.array().ok()?;
    let mut service = None;
    if flags & 1 != 0 {
        let id = body.varint().ok()?.checked_sub(1)?;
        service = Some(NameId(u32::try_from(id).ok()?));
    }
    for (bit, bytes) in [(2, 4), (4, 16), (8, 2)] {
        if flags & bit != 0 {
            body.take(bytes).ok()?;
        }
    }
    Some(service)
}

fn read<'a>(reader: &mut Reader<'a>, names: &'a Names, trace_id: TraceId) -> Option<Span> {
    let body = &mut body(reader)?;
    let it = start(body)?;
    let mut span = Span::new(trace_id, it.id);
    (span.parent, span.kind, span.debug, span.shared) = (it.parent, it.kind, it.debug, it.shared);
    (span.start, span.duration) = (it.start, it.duration);
    span.name = name(body, names)?.into();
    span.local = endpoint(body, names)?;
    span.remote = endpoint(body, names)?;
    for _ in 0..body.varint().ok()? {
        let at = Nanos(u64::from_le_bytes(body.array().ok()?));
        span.annotations.push(Annotation { at, value: text(body)?.into() });
    }
    let tags = body.varint().ok()?;
    span.tags.reserve_exact(usize::try_from(tags).ok()?.min(256));
    for _ in 0..tags {
        let key = name(body, names)?;
        let [kind] = body.array().ok()?;
        let value = match kind {
            0 => Value::Text(text(body)?.into()),
            1 => {
                let raw = body.varint().ok()?;
                Value::Int((raw >> 1) as i64 ^ -((raw & 1) as i64))
            }
            2 => Value::Float(f64::from_bits(u64::from_le_bytes(body.array().ok()?))),
            3 => Value::Bool(true),
            4 => Value::Bool(false),
            _ => return None,
        };
        span.tags.push((key.into(), value));
    }
    Some(span)
}

fn text<'a>(body: &mut Reader<'a>) -> Option<&'a str> {
    let len = usize::try_from(body.varint().ok()?).ok()?;
    std::str::from_utf8(body.take(len).ok()?).ok()
}

fn name<'a>(body: &mut Reader<'a>, names: &'a Names) -> Option<&'a str> {
    match body.varint().ok()? {
        0 => text(body),
        id => Some(names.text(NameId(u32::try_from(id - 1).ok()?))),
    }
}

fn endpoint<'a>(body: &mut Reader<'a>, names: &'a Names) -> Option<Endpoint> {
    let [flags] = body.array().ok()?;
    let mut endpoint = Endpoint::default();
    if flags & 1 != 0 {
        endpoint.service = name(body, names)?.into();
    }
    if flags & 2 != 0 {
        endpoint.ipv4 = Some(Ipv4Addr::from(body.array::<4>().ok()?));
    }
    if flags & 4 != 0 {
        endpoint.ipv6 = Some(Ipv6Addr::from(body.array::<16>().ok()?));
    }
    if flags & 8 != 0 {
        endpoint.port = u16::from_le_bytes(body.array().ok()?);
    }
    Some(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_span() -> impl Strategy<Value = Span> {
        let endpoint = || {
            (
                "[a-z]{0,3}",
                proptest::option::of(any::<u32>()),
                proptest::option::of(any::<u128>()),
                any::<u16>(),
            )
                .prop_map(|(service, v4, v6, port)| Endpoint {
                    service: service.into(),
                    ipv4: v4.map(Ipv4Addr::from),
                    ipv6: v6.map(Ipv6Addr::from),
                    port,
                })
        };
        let value = prop_oneof![
            any::<String>().prop_map(|text| Value::Text(text.into())),
            any::<i64>().prop_map(Value::Int),
            (-1e9..1e9f64).prop_map(Value::Float),
            any::<bool>().prop_map(Value::Bool),
        ];
        let tags = proptest::collection::vec(("[a-c]{0,2}", value), 0..4);
        let notes = proptest::collection::vec((any::<u64>(), ".{0,4}"), 0..3);
        let times = (any::<Option<u64>>(), any::<Option<u64>>());
        let flags = (any::<bool>(), any::<bool>());
        ((1u64.., any::<u64>(), 0u64..5, "[a-z ]{0,5}"), times, endpoint(), endpoint(), tags, notes, flags)
            .prop_map(|((id, parent, kind, name), times, local, remote, tags, notes, flags)| {
                let mut span = Span::new(TraceId::new(9).unwrap(), SpanId::new(id).unwrap());
                span.parent = SpanId::new(parent);
                span.kind = SpanKind::from_number(kind);
                span.name = name.into();
                (span.start, span.duration) = (times.0.map(Nanos), times.1.map(Nanos));
                (span.local, span.remote) = (local, remote);
                span.tags = tags.into_iter().map(|(key, value)| (key.into(), value)).collect();
                span.annotations = notes
                    .into_iter()
                    .map(|(at, text)| Annotation { at: Nanos(at), value: text.into() })
                    .collect();
                (span.debug, span.shared) = flags;
                span.normalise();
                span
            })
    }

    proptest! {
        #[test]
        fn spans_survive_the_store(list in proptest::collection::vec(any_span(), 0..6), room in 0usize..400) {
            let mut names = Names::new(room); // Little room: both interned and inline names are met.
            let mut blob = Vec::new();
            list.iter().for_each(|span| { put(&mut blob, &mut names, span); });
            prop_assert_eq!(spans(&blob, &names, TraceId::new(9).unwrap()), list);
        }

        #[test]
        fn torn_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&mut Reader::new(&bytes), &Names::new(0), TraceId::new(1).unwrap());
            outlines(&bytes, &mut Vec::new());
        }
    }

    #[test]
    fn a_long_span_keeps_its_length() {
        let mut span = Span::new(TraceId::new(9).unwrap(), SpanId::new(1).unwrap());
        span.set_tag("stack", &*"x".repeat(40_000));
        let (mut names, mut blob) = (Names::new(1000), Vec::new());
        put(&mut blob, &mut names, &span);
        put(&mut blob, &mut names, &span);
        assert_eq!(spans(&blob, &names, span.trace_id), vec![span.clone(), span]);
    }
}
