//! OTLP protobuf into our spans, metric points and log records.

use super::{LogRecord, MetricPoint, MetricValue};
use crate::ids::{SpanId, TraceId};
use crate::json::Writer as JsonWriter;
use crate::protobuf::{ProtobufError, Reader};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value, lower, tag};
use std::borrow::Cow;
use units::Nanos;

type Result<T> = std::result::Result<T, ProtobufError>;
type Attributes = Vec<(Box<str>, Value)>;

/// What a request held: the good, and how many were not.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<T> {
    pub items: Vec<T>,
    pub rejected: usize,
    /// How many of the rejected could not even be read.
    pub unread: usize,
    /// Why the first one was.
    pub why: Option<Cow<'static, str>>,
}

impl<T> Default for Decoded<T> {
    fn default() -> Self {
        Self { items: Vec::new(), rejected: 0, unread: 0, why: None }
    }
}

impl<T> Decoded<T> {
    fn reject(&mut self, why: &'static str) {
        self.rejected += 1;
        self.why.get_or_insert(why.into());
    }

    /// Items lie between lengths of their own, so what is wrong inside one says nothing about the next.
    fn unread(&mut self, many: usize, what: &str, error: ProtobufError) {
        self.rejected += many;
        self.unread += many;
        self.why.get_or_insert_with(|| format!("a {what} cannot be read: {error}").into());
    }
}

/// Walks the two wrappers every signal has: resource, then scope, then items.
fn each_item(request: &[u8], mut item: impl FnMut(&Attributes, &Attributes, Reader<'_>)) -> Result<()> {
    let mut request = Reader::new(request);
    while let Some((number, field)) = request.field()? {
        if number != 1 {
            continue;
        }
        let group = field.message(1)?;
        // The resource may come after what it describes, so it is looked for first.
        let mut resource = Attributes::new();
        let mut fields = group.clone();
        while let Some((number, field)) = fields.field()? {
            if number == 1 {
                let mut inner = field.message(1)?;
                while let Some((number, field)) = inner.field()? {
                    if number == 1 {
                        resource.push(key_value(field.message(1)?)?);
                    }
                }
            }
        }
        let mut fields = group;
        while let Some((number, field)) = fields.field()? {
            if number == 2 {
                each_in_scope(field.message(2)?, |scope, reader| item(&resource, scope, reader))?;
            }
        }
    }
    Ok(())
}

fn each_in_scope(group: Reader<'_>, mut item: impl FnMut(&Attributes, Reader<'_>)) -> Result<()> {
    let mut scope = Attributes::new();
    let mut fields = group.clone();
    while let Some((number, field)) = fields.field()? {
        if number == 1 {
            let mut inner = field.message(1)?;
            while let Some((number, field)) = inner.field()? {
                match number {
                    1 if !field.bytes(1)?.is_empty() => {
                        scope.push(("otel.scope.name".into(), field.text(1)?.into()))
                    }
                    2 if !field.bytes(2)?.is_empty() => {
                        scope.push(("otel.scope.version".into(), field.text(2)?.into()))
                    }
                    _ => {}
                }
            }
        }
    }
    let mut fields = group;
    while let Some((number, field)) = fields.field()? {
        if number == 2 {
            item(&scope, field.message(2)?);
        }
    }
    Ok(())
}

fn key_value(mut reader: Reader<'_>) -> Result<(Box<str>, Value)> {
    let (mut key, mut value) = ("", Value::Text("".into()));
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => key = field.text(1)?,
            2 => value = any_value(field.message(2)?)?,
            _ => {}
        }
    }
    Ok((key.into(), value))
}

/// Lists, maps and bytes become JSON text: Zipkin and our store know plain values only.
fn any_value(reader: Reader<'_>) -> Result<Value> {
    let mut fields = reader.clone();
    while let Some((number, field)) = fields.field()? {
        return Ok(match number {
            1 => Value::Text(field.text(1)?.into()),
            2 => Value::Bool(field.bool(2)?),
            3 => Value::Int(field.varint(3)? as i64),
            4 => Value::Float(field.double(4)?),
            5..=7 => {
                let mut json = JsonWriter::new();
                value_json(reader, &mut json, 0)?;
                Value::Text(json.into_text().into())
            }
            _ => continue,
        });
    }
    Ok(Value::Text("".into()))
}

const VALUE_DEPTH_MAX: u32 = 32;

fn value_json(mut reader: Reader<'_>, json: &mut JsonWriter, depth: u32) -> Result<()> {
    if depth > VALUE_DEPTH_MAX {
        return Err(ProtobufError::TooDeep(VALUE_DEPTH_MAX));
    }
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => json.text(field.text(1)?),
            2 => json.bool(field.bool(2)?),
            3 => json.i64(field.varint(3)? as i64),
            4 => json.f64(field.double(4)?),
            5 => {
                let mut values = field.message(5)?;
                let mut outcome = Ok(());
                json.array(|json| {
                    outcome = (|| {
                        while let Some((number, field)) = values.field()? {
                            if number == 1 {
                                value_json(field.message(1)?, json, depth + 1)?;
                            }
                        }
                        Ok(())
                    })();
                });
                outcome?;
            }
            6 => {
                let values = field.message(6)?;
                let mut outcome = Ok(());
                json.object(|json| outcome = map_json(values, json, depth));
                outcome?;
            }
            7 => json.text(&super::schema::base64(field.bytes(7)?)),
            _ => continue,
        }
        return Ok(());
    }
    json.raw(b"null");
    Ok(())
}

fn map_json(mut values: Reader<'_>, json: &mut JsonWriter, depth: u32) -> Result<()> {
    while let Some((number, field)) = values.field()? {
        if number != 1 {
            continue;
        }
        let mut entry = field.message(1)?;
        let (mut key, mut value) = ("", Reader::new(&[]));
        while let Some((number, field)) = entry.field()? {
            match number {
                1 => key = field.text(1)?,
                2 => value = field.message(2)?,
                _ => {}
            }
        }
        value_json(value, json.key(key), depth + 1)?;
    }
    Ok(())
}

fn service_of(resource: &Attributes) -> Box<str> {
    let named =
        resource.iter().find(|(key, _)| &**key == "service.name").map(|(_, value)| lower(&value.text()));
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown_service".into())
}

/// Spans of an `ExportTraceServiceRequest`.
pub fn spans(request: &[u8]) -> Result<Decoded<Span>> {
    let mut decoded = Decoded::default();
    each_item(request, |resource, scope, reader| match span(reader, resource, scope) {
        Ok(Ok(span)) => decoded.items.push(span),
        Ok(Err(why)) => decoded.reject(why),
        Err(error) => decoded.unread(1, "span", error),
    })?;
    Ok(decoded)
}

/// Outer error: these bytes are no span. Inner: they are, but not one that can be kept.
fn span(
    mut reader: Reader<'_>,
    resource: &Attributes,
    scope: &Attributes,
) -> Result<std::result::Result<Span, &'static str>> {
    let (mut trace_id, mut id) = (None, None);
    let mut span =
        Span::new(TraceId::new(1).expect("one is not zero"), SpanId::new(1).expect("one is not zero"));
    let (mut start, mut end, mut status, mut message) = (0, 0, 0, "");
    let mut explicit_error = false;
    span.tags.reserve(resource.len() + scope.len() + 8);
    // Most general first: of equal keys the last one stays.
    let shared = resource.iter().filter(|(key, _)| &**key != "service.name").chain(scope);
    span.tags.extend(shared.cloned());
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => {
                trace_id = TraceId::from_bytes(field.bytes(1)?)
                    .filter(|_| field.bytes(1).is_ok_and(|it| it.len() == 16))
            }
            2 => id = SpanId::from_bytes(field.bytes(2)?),
            4 => match field.bytes(4)? {
                [] => {}
                bytes if bytes.len() == 8 => span.parent = SpanId::from_bytes(bytes),
                _ => return Ok(Err("parent_span_id is not 8 bytes")),
            },
            5 => span.name = field.text(5)?.into(),
            6 => {
                span.kind = match field.varint(6)? {
                    2 => Some(SpanKind::Server),
                    3 => Some(SpanKind::Client),
                    4 => Some(SpanKind::Producer),
                    5 => Some(SpanKind::Consumer),
                    // 0 unspecified, 1 internal, and what later versions add.
                    _ => None,
                }
            }
            7 => start = field.fixed64(7)?,
            8 => end = field.fixed64(8)?,
            9 => {
                let (key, value) = key_value(field.message(9)?)?;
                // In Zipkin the key alone means failure; "not failed" must not be said that way.
                if &*key == tag::ERROR {
                    if matches!(value, Value::Bool(false)) || value.text() == "false" {
                        continue;
                    }
                    explicit_error = true;
                }
                span.tags.push((key, value));
            }
            11 => span.annotations.push(event(field.message(11)?)?),
            15 => {
                let mut inner = field.message(15)?;
                while let Some((number, field)) = inner.field()? {
                    match number {
                        2 => message = field.text(2)?,
                        3 => status = field.varint(3)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let Some(known_trace) = trace_id else { return Ok(Err("trace_id is not 16 bytes, or all zeros")) };
    let Some(known_id) = id else { return Ok(Err("span_id is not 8 bytes, or all zeros")) };
    (span.trace_id, span.id) = (known_trace, known_id);
    if start > 0 {
        span.start = Some(Nanos(start));
        // An end before the start is a clock that jumped; the span is real, its length is not known.
        span.duration = end.checked_sub(start).filter(|_| end > 0).map(Nanos);
    }
    match status {
        1 => span.tags.push(("otel.status_code".into(), "OK".into())),
        2 => {
            span.tags.push(("otel.status_code".into(), "ERROR".into()));
            if !explicit_error || !message.is_empty() {
                span.tags.push((tag::ERROR.into(), message.into()));
            }
        }
        _ => {}
    }
    span.local.service = service_of(resource);
    if matches!(span.kind, Some(SpanKind::Client | SpanKind::Producer)) {
        span.remote = remote(&span.tags);
    }
    span.normalise();
    Ok(Ok(span))
}

/// `"name": {attributes}`, or the bare name: what Zipkin pages expect of an event.
fn event(mut reader: Reader<'_>) -> Result<Annotation> {
    let (mut at, mut name) = (0, "");
    let mut attributes = JsonWriter::new();
    let mut any = false;
    let mut outcome = Ok(());
    attributes.object(|json| {
        outcome = (|| {
            while let Some((number, field)) = reader.field()? {
                match number {
                    1 => at = field.fixed64(1)?,
                    2 => name = field.text(2)?,
                    3 => {
                        any = true;
                        let mut entry = field.message(3)?;
                        let (mut key, mut value) = ("", Reader::new(&[]));
                        while let Some((number, field)) = entry.field()? {
                            match number {
                                1 => key = field.text(1)?,
                                2 => value = field.message(2)?,
                                _ => {}
                            }
                        }
                        value_json(value, json.key(key), 0)?;
                    }
                    _ => {}
                }
            }
            Ok(())
        })();
    });
    outcome?;
    let value = if any {
        let mut text = JsonWriter::new();
        text.text(name);
        format!("{}: {}", text.into_text(), attributes.into_text()).into()
    } else {
        name.into()
    };
    Ok(Annotation { at: Nanos(at), value })
}

/// Where the far end's name or address is looked for, first hit first, and the port that goes with it.
const REMOTE: [(&str, Option<&str>); 11] = [
    ("peer.service", None),
    ("server.address", Some("server.port")),
    ("net.peer.name", Some("net.peer.port")),
    ("network.peer.address", Some("network.peer.port")),
    ("server.socket.domain", Some("server.socket.port")),
    ("server.socket.address", Some("server.socket.port")),
    ("net.sock.peer.name", Some("net.sock.peer.port")),
    ("net.sock.peer.addr", Some("net.sock.peer.port")),
    ("peer.hostname", None),
    ("peer.address", None),
    ("db.name", None),
];

fn remote(tags: &Attributes) -> Endpoint {
    let get = |key: &str| tags.iter().rev().find(|(known, _)| &**known == key).map(|(_, value)| value);
    let mut endpoint = Endpoint::default();
    for (key, port) in REMOTE {
        let Some(text) = get(key).map(Value::text).filter(|text| !text.is_empty()) else { continue };
        // An address stands for the name as well, or the far end would be nobody in links and searches.
        endpoint.set_ip_text(&text);
        endpoint.service = lower(&text);
        let port = port.and_then(get).and_then(Value::int);
        endpoint.port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        break;
    }
    endpoint
}

/// Data points of an `ExportMetricsServiceRequest`.
pub fn metrics(request: &[u8]) -> Result<Decoded<MetricPoint>> {
    let mut decoded = Decoded::default();
    each_item(request, |resource, _, reader| {
        let parts = match Parts::of(reader.clone()) {
            Ok(parts) => parts,
            Err(error) => return decoded.unread(points_in(reader).max(1), "metric", error),
        };
        let service = service_of(resource);
        for (kind, delta, monotonic, reader) in parts.points {
            if parts.name.is_empty() {
                decoded.reject("a metric without a name");
                continue;
            }
            match point(kind, reader, monotonic) {
                Ok(None) => {}
                Ok(Some((attributes, at, value))) => decoded.items.push(MetricPoint {
                    service: service.clone(),
                    name: parts.name.into(),
                    unit: parts.unit.into(),
                    attributes,
                    at,
                    delta,
                    value,
                }),
                Err(error) => decoded.unread(1, "data point", error),
            }
        }
    })?;
    Ok(decoded)
}

/// A metric's fields: gauge, sum, histogram, exponential histogram, summary.
const DATA: [u32; 5] = [5, 7, 9, 10, 11];

/// What a metric's points have in common, and the points: kind, delta, monotonic, bytes.
#[derive(Default)]
struct Parts<'a> {
    name: &'a str,
    unit: &'a str,
    points: Vec<(u32, bool, bool, Reader<'a>)>,
}

impl<'a> Parts<'a> {
    fn of(mut metric: Reader<'a>) -> Result<Self> {
        let mut parts = Self::default();
        while let Some((number, field)) = metric.field()? {
            match number {
                1 => parts.name = field.text(1)?,
                3 => parts.unit = field.text(3)?,
                kind if DATA.contains(&kind) => {
                    let mut data = field.message(kind)?;
                    let (first, mut delta, mut monotonic) = (parts.points.len(), false, false);
                    while let Some((number, field)) = data.field()? {
                        match number {
                            1 => parts.points.push((kind, false, false, field.message(1)?)),
                            2 => delta = field.varint(2)? == 1,
                            3 => monotonic = field.bool(3)?,
                            _ => {}
                        }
                    }
                    for point in &mut parts.points[first..] {
                        (point.1, point.2) = (delta, monotonic);
                    }
                }
                _ => {}
            }
        }
        Ok(parts)
    }
}

/// How many points a metric has that cannot be read, as far as can be told.
fn points_in(mut metric: Reader<'_>) -> usize {
    let mut many = 0;
    while let Ok(Some((number, field))) = metric.field() {
        let Ok(mut data) = field.message(number) else { continue };
        while DATA.contains(&number)
            && let Ok(Some((number, _))) = data.field()
        {
            many += usize::from(number == 1);
        }
    }
    many
}

/// `None` for a point that says it has no value: its zeros are not measurements.
fn point(
    kind: u32,
    mut reader: Reader<'_>,
    monotonic: bool,
) -> Result<Option<(Attributes, Nanos, MetricValue)>> {
    const NO_RECORDED_VALUE: u64 = 1;
    let (attributes_at, flags_at) = match kind {
        9 => (9, 10),
        10 => (1, 10),
        _ => (7, 8),
    };
    let (mut attributes, mut at, mut has_value) = (Attributes::new(), 0, true);
    let (mut number_value, mut count, mut sum) = (0.0, 0, 0.0);
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    let (mut scale, mut zero_count, mut offset) = (0, 0, 0);
    while let Some((number, field)) = reader.field()? {
        match (kind, number) {
            (_, number) if number == attributes_at => attributes.push(key_value(field.message(number)?)?),
            (_, number) if number == flags_at => {
                has_value &= field.varint(number)? & NO_RECORDED_VALUE == 0;
            }
            (_, 3) => at = field.fixed64(3)?,
            (5 | 7, 4) => number_value = field.double(4)?,
            (5 | 7, 6) => number_value = field.fixed64(6)? as i64 as f64,
            (9..=11, 4) => count = field.fixed64(4)?,
            (9..=11, 5) => sum = field.double(5)?,
            (9, 6) => field.each_fixed64(6, |value| counts.push(value))?,
            (9, 7) => field.each_fixed64(7, |value| bounds.push(f64::from_bits(value)))?,
            (10, 6) => scale = field.sint32(6)?,
            (10, 7) => zero_count = field.fixed64(7)?,
            (10, 8) => {
                let mut inner = field.message(8)?;
                while let Some((number, field)) = inner.field()? {
                    match number {
                        1 => offset = field.sint32(1)?,
                        2 => field.each_varint(2, |value| counts.push(value))?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    let value = match kind {
        5 => MetricValue::Gauge(number_value),
        7 if monotonic => MetricValue::Counter(number_value),
        7 => MetricValue::Gauge(number_value),
        9 => MetricValue::Histogram { count, sum, bounds, counts },
        10 => MetricValue::Exponential { count, sum, scale, zero_count, offset, counts },
        _ => MetricValue::Summary { count, sum },
    };
    Ok(has_value.then_some((attributes, Nanos(at), value)))
}

/// Records of an `ExportLogsServiceRequest`.
pub fn logs(request: &[u8]) -> Result<Decoded<LogRecord>> {
    let mut decoded = Decoded::default();
    each_item(request, |resource, _, reader| match record(reader, resource) {
        Ok(record) => decoded.items.push(record),
        Err(error) => decoded.unread(1, "log record", error),
    })?;
    Ok(decoded)
}

fn record(mut reader: Reader<'_>, resource: &Attributes) -> Result<LogRecord> {
    let mut record = LogRecord {
        service: service_of(resource),
        at: Nanos::ZERO,
        severity: 0,
        body: "".into(),
        attributes: Vec::new(),
        trace_id: None,
        span_id: None,
    };
    let mut observed = 0;
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => record.at = Nanos(field.fixed64(1)?),
            11 => observed = field.fixed64(11)?,
            2 => record.severity = field.varint(2)?.min(24) as u8,
            5 => record.body = any_value(field.message(5)?)?.text().into(),
            6 => record.attributes.push(key_value(field.message(6)?)?),
            9 => record.trace_id = TraceId::from_bytes(field.bytes(9)?),
            10 => record.span_id = SpanId::from_bytes(field.bytes(10)?),
            _ => {}
        }
    }
    if record.at.is_zero() {
        record.at = Nanos(observed);
    }
    Ok(record)
}
