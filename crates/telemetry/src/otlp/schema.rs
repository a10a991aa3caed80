//! OTLP's messages as tables, and its JSON as a way to write the same bytes.
//!
//! OTLP's JSON is protobuf's with three exceptions: trace and span ids are hex and not base64, enums are numbers only,
//! and only the camel-case spelling of a key counts. So JSON is turned into protobuf by these tables and read by the one
//! decoder; answers go back the same way. A second decoder would be a second set of mistakes.

use crate::ids::{Case, hex};
use crate::json::{JsonError, Kind, Reader as Json, Writer as JsonWriter};
use crate::protobuf::{Field, ProtobufError, Reader, Writer};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    Text,
    Bool,
    /// Varints; the 64-bit ones JSON may write as text.
    Uint32,
    Int64,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number; its names are not taken.
    Enum,
    /// Bytes that JSON writes as hex.
    Id,
    /// Bytes that JSON writes as base64.
    Bytes,
    Message(&'static Message),
    /// A message that stands for itself: wrong, it is refused alone, and its neighbours are read on.
    Item(&'static Message),
}

#[derive(Debug)]
pub(crate) struct Message(&'static [(&'static str, u32, Type, Many)]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    One,
    Repeated,
}
use Many::{One, Repeated};
use Type::{Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int64, Sfixed64, Sint32, Text, Uint32, Uint64};

static ANY_VALUE: Message = Message(&[
    ("stringValue", 1, Text, One),
    ("boolValue", 2, Bool, One),
    ("intValue", 3, Int64, One),
    ("doubleValue", 4, Double, One),
    ("arrayValue", 5, Type::Message(&ARRAY_VALUE), One),
    ("kvlistValue", 6, Type::Message(&KEY_VALUE_LIST), One),
    ("bytesValue", 7, Bytes, One),
]);
static ARRAY_VALUE: Message = Message(&[("values", 1, Type::Message(&ANY_VALUE), Repeated)]);
static KEY_VALUE_LIST: Message = Message(&[("values", 1, Type::Message(&KEY_VALUE), Repeated)]);
static KEY_VALUE: Message = Message(&[("key", 1, Text, One), ("value", 2, Type::Message(&ANY_VALUE), One)]);
static SCOPE: Message = Message(&[
    ("name", 1, Text, One),
    ("version", 2, Text, One),
    ("attributes", 3, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 4, Uint32, One),
]);
static RESOURCE: Message = Message(&[
    ("attributes", 1, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 2, Uint32, One),
]);
pub(crate) static TRACES: Message =
    Message(&[("resourceSpans", 1, Type::Message(&RESOURCE_SPANS), Repeated)]);
static RESOURCE_SPANS: Message = Message(&[
    ("resource", 1, Type::Message(&RESOURCE), One),
    ("scopeSpans", 2, Type::Message(&SCOPE_SPANS), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static SCOPE_SPANS: Message = Message(&[
    ("scope", 1, Type::Message(&SCOPE), One),
    ("spans", 2, Type::Item(&SPAN), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static SPAN: Message = Message(&[
    ("traceId", 1, Id, One),
    ("spanId", 2, Id, One),
    ("traceState", 3, Text, One),
    ("parentSpanId", 4, Id, One),
    ("flags", 16, Fixed32, One),
    ("name", 5, Text, One),
    ("kind", 6, Enum, One),
    ("startTimeUnixNano", 7, Fixed64, One),
    ("endTimeUnixNano", 8, Fixed64, One),
    ("attributes", 9, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 10, Uint32, One),
    ("events", 11, Type::Message(&EVENT), Repeated),
    ("droppedEventsCount", 12, Uint32, One),
    ("links", 13, Type::Message(&LINK), Repeated),
    ("droppedLinksCount", 14, Uint32, One),
    ("status", 15, Type::Message(&SPAN_STATUS), One),
]);
static EVENT: Message = Message(&[
    ("timeUnixNano", 1, Fixed64, One),
    ("name", 2, Text, One),
    ("attributes", 3, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 4, Uint32, One),
]);
static LINK: Message = Message(&[
    ("traceId", 1, Id, One),
    ("spanId", 2, Id, One),
    ("traceState", 3, Text, One),
    ("attributes", 4, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 5, Uint32, One),
    ("flags", 6, Fixed32, One),
]);
static SPAN_STATUS: Message = Message(&[("message", 2, Text, One), ("code", 3, Enum, One)]);
pub(crate) static METRICS: Message =
    Message(&[("resourceMetrics", 1, Type::Message(&RESOURCE_METRICS), Repeated)]);
static RESOURCE_METRICS: Message = Message(&[
    ("resource", 1, Type::Message(&RESOURCE), One),
    ("scopeMetrics", 2, Type::Message(&SCOPE_METRICS), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static SCOPE_METRICS: Message = Message(&[
    ("scope", 1, Type::Message(&SCOPE), One),
    ("metrics", 2, Type::Item(&METRIC), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static METRIC: Message = Message(&[
    ("name", 1, Text, One),
    ("description", 2, Text, One),
    ("unit", 3, Text, One),
    ("gauge", 5, Type::Message(&GAUGE), One),
    ("sum", 7, Type::Message(&SUM), One),
    ("histogram", 9, Type::Message(&HISTOGRAM), One),
    ("exponentialHistogram", 10, Type::Message(&EXPONENTIAL), One),
    ("summary", 11, Type::Message(&SUMMARY), One),
    ("metadata", 12, Type::Message(&KEY_VALUE), Repeated),
]);
static GAUGE: Message = Message(&[("dataPoints", 1, Type::Item(&NUMBER_POINT), Repeated)]);
static SUM: Message = Message(&[
    ("dataPoints", 1, Type::Item(&NUMBER_POINT), Repeated),
    ("aggregationTemporality", 2, Enum, One),
    ("isMonotonic", 3, Bool, One),
]);
static HISTOGRAM: Message = Message(&[
    ("dataPoints", 1, Type::Item(&HISTOGRAM_POINT), Repeated),
    ("aggregationTemporality", 2, Enum, One),
]);
static EXPONENTIAL: Message = Message(&[
    ("dataPoints", 1, Type::Item(&EXPONENTIAL_POINT), Repeated),
    ("aggregationTemporality", 2, Enum, One),
]);
static SUMMARY: Message = Message(&[("dataPoints", 1, Type::Item(&SUMMARY_POINT), Repeated)]);
static NUMBER_POINT: Message = Message(&[
    ("attributes", 7, Type::Message(&KEY_VALUE), Repeated),
    ("startTimeUnixNano", 2, Fixed64, One),
    ("timeUnixNano", 3, Fixed64, One),
    ("asDouble", 4, Double, One),
    ("asInt", 6, Sfixed64, One),
    ("exemplars", 5, Type::Message(&EXEMPLAR), Repeated),
    ("flags", 8, Uint32, One),
]);
static HISTOGRAM_POINT: Message = Message(&[
    ("attributes", 9, Type::Message(&KEY_VALUE), Repeated),
    ("startTimeUnixNano", 2, Fixed64, One),
    ("timeUnixNano", 3, Fixed64, One),
    ("count", 4, Fixed64, One),
    ("sum", 5, Double, One),
    ("bucketCounts", 6, Fixed64, Repeated),
    ("explicitBounds", 7, Double, Repeated),
    ("exemplars", 8, Type::Message(&EXEMPLAR), Repeated),
    ("flags", 10, Uint32, One),
    ("min", 11, Double, One),
    ("max", 12, Double, One),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    ("attributes", 1, Type::Message(&KEY_VALUE), Repeated),
    ("startTimeUnixNano", 2, Fixed64, One),
    ("timeUnixNano", 3, Fixed64, One),
    ("count", 4, Fixed64, One),
    ("sum", 5, Double, One),
    ("scale", 6, Sint32, One),
    ("zeroCount", 7, Fixed64, One),
    ("positive", 8, Type::Message(&BUCKETS), One),
    ("negative", 9, Type::Message(&BUCKETS), One),
    ("flags", 10, Uint32, One),
    ("exemplars", 11, Type::Message(&EXEMPLAR), Repeated),
    ("min", 12, Double, One),
    ("max", 13, Double, One),
    ("zeroThreshold", 14, Double, One),
]);
static BUCKETS: Message = Message(&[("offset", 1, Sint32, One), ("bucketCounts", 2, Uint64, Repeated)]);
static SUMMARY_POINT: Message = Message(&[
    ("attributes", 7, Type::Message(&KEY_VALUE), Repeated),
    ("startTimeUnixNano", 2, Fixed64, One),
    ("timeUnixNano", 3, Fixed64, One),
    ("count", 4, Fixed64, One),
    ("sum", 5, Double, One),
    ("quantileValues", 6, Type::Message(&QUANTILE), Repeated),
    ("flags", 8, Uint32, One),
]);
static QUANTILE: Message = Message(&[("quantile", 1, Double, One), ("value", 2, Double, One)]);
static EXEMPLAR: Message = Message(&[
    ("filteredAttributes", 7, Type::Message(&KEY_VALUE), Repeated),
    ("timeUnixNano", 2, Fixed64, One),
    ("asDouble", 3, Double, One),
    ("asInt", 6, Sfixed64, One),
    ("spanId", 4, Id, One),
    ("traceId", 5, Id, One),
]);
pub(crate) static LOGS: Message = Message(&[("resourceLogs", 1, Type::Message(&RESOURCE_LOGS), Repeated)]);
static RESOURCE_LOGS: Message = Message(&[
    ("resource", 1, Type::Message(&RESOURCE), One),
    ("scopeLogs", 2, Type::Message(&SCOPE_LOGS), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static SCOPE_LOGS: Message = Message(&[
    ("scope", 1, Type::Message(&SCOPE), One),
    ("logRecords", 2, Type::Item(&LOG_RECORD), Repeated),
    ("schemaUrl", 3, Text, One),
]);
static LOG_RECORD: Message = Message(&[
    ("timeUnixNano", 1, Fixed64, One),
    ("observedTimeUnixNano", 11, Fixed64, One),
    ("severityNumber", 2, Enum, One),
    ("severityText", 3, Text, One),
    ("body", 5, Type::Message(&ANY_VALUE), One),
    ("attributes", 6, Type::Message(&KEY_VALUE), Repeated),
    ("droppedAttributesCount", 7, Uint32, One),
    ("flags", 8, Fixed32, One),
    ("traceId", 9, Id, One),
    ("spanId", 10, Id, One),
    ("eventName", 12, Text, One),
]);

/// Items that were left out because they could not be read, and why the first one was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Unread {
    pub many: usize,
    pub why: Option<String>,
}

/// Reads one JSON object as `message` and appends its protobuf form. Unknown keys and nulls are passed over; an item
/// that is good JSON but no good item is left out and counted.
pub(crate) fn from_json(
    json: &mut Json<'_>,
    message: &Message,
    out: &mut Vec<u8>,
    unread: &mut Unread,
) -> Result<(), JsonError> {
    json.object(|json, key| {
        let Some((name, number, kind, many)) = message.0.iter().find(|(name, ..)| *name == key) else {
            return json.skip();
        };
        if json.null()? {
            return Ok(());
        }
        let mut value =
            |json: &mut Json<'_>| value_from_json(json, name, (*number, *kind, *many), out, unread);
        match many {
            Repeated => json.array(value),
            One => value(json),
        }
    })
}

fn item_from_json(
    json: &mut Json<'_>,
    number: u32,
    item: &Message,
    out: &mut Vec<u8>,
    unread: &mut Unread,
) -> Result<(), JsonError> {
    let (mark, written, unread_before) = (json.mark(), out.len(), unread.many);
    let Err(error) = nested_from_json(json, number, item, out, unread) else { return Ok(()) };
    json.rewind(mark);
    out.truncate(written);
    // What is no JSON at all fails here again, and then the whole body does.
    let many = if std::ptr::eq(item, &METRIC) { points_in(json)? } else { json.skip().map(|()| 1)? };
    unread.many = unread_before + many;
    unread.why.get_or_insert_with(|| error.to_string());
    Ok(())
}

/// Passes over a metric and says how many data points it has: they are what senders are told about.
fn points_in(json: &mut Json<'_>) -> Result<usize, JsonError> {
    let mut many = 0;
    if json.peek()? != Kind::Object {
        return json.skip().map(|()| 1);
    }
    json.object(|json, _| match json.peek()? {
        Kind::Object => json.object(|json, key| match json.peek()? {
            Kind::Array if key == "dataPoints" => json.array(|json| {
                many += 1;
                json.skip()
            }),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    Ok(many.max(1))
}

/// Writes a message behind its number and length; says how long it is.
fn nested_from_json(
    json: &mut Json<'_>,
    number: u32,
    message: &Message,
    out: &mut Vec<u8>,
    unread: &mut Unread,
) -> Result<usize, JsonError> {
    Writer::new(out).bytes(number, &[]);
    let body = out.len();
    from_json(json, message, out, unread)?;
    let len = out.len() - body;
    set_length(out, body, len);
    Ok(len)
}

fn value_from_json(
    json: &mut Json<'_>,
    name: &str,
    (number, kind, many): (u32, Type, Many),
    out: &mut Vec<u8>,
    unread: &mut Unread,
) -> Result<(), JsonError> {
    let narrow = |json: &mut Json<'_>, signed: bool| {
        let value = json.i64(true)?;
        let fits = if signed { i32::try_from(value).is_ok() } else { u32::try_from(value).is_ok() };
        if fits { Ok(value as u64) } else { json.error("expected a 32-bit integer") }
    };
    let mut writer = Writer::new(out);
    match kind {
        Text => writer.text(number, &json.text()?),
        Bool => writer.bool(number, json.bool()?),
        Uint32 => writer.varint(number, narrow(json, false)?),
        // A name instead of a number is what the specification forbids: `text` would let it through as digits.
        Enum => writer.varint(number, json.u64(false)?),
        Int64 => writer.int64(number, json.i64(true)?),
        Uint64 => writer.varint(number, json.u64(true)?),
        Sint32 => writer.sint32(number, narrow(json, true)? as i32),
        Fixed32 => {
            let value = narrow(json, false)? as u32;
            writer.fixed32(number, value);
        }
        Fixed64 => writer.fixed64(number, json.u64(true)?),
        Sfixed64 => writer.fixed64(number, json.i64(true)? as u64),
        Double => writer.double(number, json.f64()?),
        Id => {
            let text = json.text()?;
            match unhex(&text) {
                Some(bytes) => writer.bytes(number, &bytes),
                None => return json.error(format!("{name} is not hex")),
            }
        }
        Bytes => {
            let text = json.text()?;
            match unbase64(&text) {
                Some(bytes) => writer.bytes(number, &bytes),
                None => return json.error(format!("{name} is not base64")),
            }
        }
        Type::Message(inner) => {
            let start = out.len();
            let len = nested_from_json(json, number, inner, out, unread)?;
            // An empty nested message says nothing, but an empty value or element of a list still counts.
            if len == 0 && many == One && !std::ptr::eq(inner, &ANY_VALUE) {
                out.truncate(start);
            }
        }
        Type::Item(item) => item_from_json(json, number, item, out, unread)?,
    }
    Ok(())
}

/// Puts the length of a message that was written behind a length of zero. Short ones, nearly all, fit that one byte.
fn set_length(out: &mut Vec<u8>, body: usize, len: usize) {
    if len < 0x80 {
        out[body - 1] = len as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    crate::protobuf::put_varint(&mut prefix, len as u64);
    out.splice(body - 1..body, prefix);
}

/// Appends a message as JSON, in the order of its table.
pub(crate) fn to_json(bytes: &[u8], message: &Message, json: &mut JsonWriter) -> Result<(), ProtobufError> {
    let mut outcome = Ok(());
    json.object(|json| {
        for (name, number, kind, many) in message.0 {
            if outcome.is_err() {
                return;
            }
            outcome = field_to_json(bytes, name, *number, *kind, *many, json);
        }
    });
    outcome
}

fn field_to_json(
    bytes: &[u8],
    name: &str,
    number: u32,
    kind: Type,
    many: Many,
    json: &mut JsonWriter,
) -> Result<(), ProtobufError> {
    let mut fields = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((found, field)) = reader.field()? {
        if found == number {
            fields.push(field);
        }
    }
    match (many, fields.last()) {
        (_, None) => Ok(()),
        (One, Some(field)) => value_to_json(*field, number, kind, json.key(name)),
        (Repeated, Some(_)) => {
            let mut outcome = Ok(());
            json.key(name).array(|json| {
                for field in &fields {
                    let packed = matches!(field, Field::Bytes(_));
                    let written = match kind {
                        Fixed64 | Double if packed => field.each_fixed64(number, |value| match kind {
                            Double => json.f64(f64::from_bits(value)),
                            _ => json.text(&value.to_string()),
                        }),
                        Uint64 if packed => field.each_varint(number, |value| json.text(&value.to_string())),
                        _ => value_to_json(*field, number, kind, json),
                    };
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(written);
                }
            });
            outcome
        }
    }
}

fn value_to_json(
    field: Field<'_>,
    number: u32,
    kind: Type,
    json: &mut JsonWriter,
) -> Result<(), ProtobufError> {
    match kind {
        Text => json.text(field.text(number)?),
        Bool => json.bool(field.bool(number)?),
        Uint32 | Enum => json.u64(field.varint(number)?),
        Int64 => json.text(&(field.varint(number)? as i64).to_string()),
        Uint64 => json.text(&field.varint(number)?.to_string()),
        Sint32 => json.i64(i64::from(field.sint32(number)?)),
        Fixed32 => json.u64(u64::from(field.fixed32(number)?)),
        Fixed64 => json.text(&field.fixed64(number)?.to_string()),
        Sfixed64 => json.text(&(field.fixed64(number)? as i64).to_string()),
        Double => json.f64(field.double(number)?),
        Id => {
            let bytes = field.bytes(number)?;
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json.text(&text);
        }
        Bytes => json.text(&base64(field.bytes(number)?)),
        Type::Message(inner) | Type::Item(inner) => to_json(field.bytes(number)?, inner, json)?,
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 64 {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| hex(pair, Case::Any).map(|byte| byte as u8)).collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

/// Standard or URL-safe, padded or not: protobuf's JSON takes all of them.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let byte = match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        };
        let digit = BASE64.iter().position(|known| *known == byte)?;
        word = word << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round_trip(text: &str, message: &Message, expected: &str) {
        let mut bytes = Vec::new();
        let got = match from_json(&mut Json::new(text), message, &mut bytes, &mut Unread::default()) {
            Err(error) => error.to_string(),
            Ok(()) => {
                let mut json = JsonWriter::new();
                to_json(&bytes, message, &mut json).unwrap();
                json.into_text()
            }
        };
        assert!(
            got == expected || (!expected.starts_with('{') && got.contains(expected)),
            "{text}\n  {got}\n  {expected}"
        );
    }

    #[test]
    fn json_follows_the_three_exceptions() {
        let span = |text: &str, expected: &str| round_trip(text, &SPAN, expected);
        span(
            r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","startTimeUnixNano":"1544712660000000000","kind":2}"#,
            r#"{"traceId":"5b8efff798038103d269b633813fc60c","kind":2,"startTimeUnixNano":"1544712660000000000"}"#,
        );
        span(
            r#"{"startTimeUnixNano":1544712660000000000}"#,
            r#"{"startTimeUnixNano":"1544712660000000000"}"#,
        );
        span(r#"{"kind":"SPAN_KIND_SERVER"}"#, "expected a number");
        span(r#"{"traceId":"zz"}"#, "not hex");
        span(r#"{"traceId":"abc"}"#, "not hex");
        span(r#"{"trace_id":"5b","start_time_unix_nano":1,"new":{"a":[1]}}"#, "{}");
        span(
            r#"{"name":null,"attributes":[{"key":"a","value":{"intValue":"7"}},{"key":"b","value":{"bytesValue":"aGk="}},{"key":"c","value":{}}]}"#,
            r#"{"attributes":[{"key":"a","value":{"intValue":"7"}},{"key":"b","value":{"bytesValue":"aGk="}},{"key":"c","value":{}}]}"#,
        );
        round_trip(
            r#"{"bucketCounts":["1",2],"explicitBounds":[0.5],"sum":"NaN"}"#,
            &HISTOGRAM_POINT,
            r#"{"sum":null,"bucketCounts":["1","2"],"explicitBounds":[0.5]}"#,
        );
        round_trip(
            r#"{"scale":-3,"positive":{"offset":-5,"bucketCounts":["1"]}}"#,
            &EXPONENTIAL_POINT,
            r#"{"scale":-3,"positive":{"offset":-5,"bucketCounts":["1"]}}"#,
        );
        let deep = format!("{}{}{}", r#"{"arrayValue":{"values":["#.repeat(40), "{}", "]}}".repeat(40));
        round_trip(&deep, &ANY_VALUE, "nested deeper");
    }

    proptest::proptest! {
        #[test]
        fn base64_survives(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(unbase64(&base64(&bytes)).unwrap(), bytes);
        }
    }
}
