//! OTLP over HTTP and over gRPC, as functions.

use super::decode::{Decoded, logs, metrics, spans};
use super::schema::{LOGS, METRICS, Message, TRACES, Unread, from_json};
use super::{LogRecord, MetricPoint};
use crate::http::{BodyError, JSON, Limits, Request, Response, body, gunzip};
use crate::json::{Reader as Json, Writer as JsonWriter};
use crate::protobuf::Writer;
use crate::span::Span;
use std::borrow::Cow;

/// What a sink refused, with a word for the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub rejected: usize,
    pub why: Option<Cow<'static, str>>,
}

/// Where decoded telemetry goes.
pub trait Sink {
    fn spans(&mut self, spans: Vec<Span>) -> Taken;
    fn metrics(&mut self, points: Vec<MetricPoint>) -> Taken;
    fn logs(&mut self, records: Vec<LogRecord>) -> Taken;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    fn message(self) -> &'static Message {
        match self {
            Self::Traces => &TRACES,
            Self::Metrics => &METRICS,
            Self::Logs => &LOGS,
        }
    }

    const fn rejected_key(self) -> &'static str {
        match self {
            Self::Traces => "rejectedSpans",
            Self::Metrics => "rejectedDataPoints",
            Self::Logs => "rejectedLogRecords",
        }
    }

    /// `unread` is what was lost on the way from JSON.
    fn take(self, request: &[u8], unread: Unread, sink: &mut impl Sink) -> Result<Taken, String> {
        fn then<T>(
            decoded: Result<Decoded<T>, crate::protobuf::ProtobufError>,
            before: Unread,
            give: impl FnOnce(Vec<T>) -> Taken,
        ) -> Result<Taken, String> {
            let Decoded { items, rejected, unread, why } = decoded.map_err(|error| error.to_string())?;
            let why = before.why.map(Cow::Owned).or(why);
            // A success can be partial only if there was one: where nothing is good and something cannot be read, the
            // request as a whole could not be.
            if items.is_empty() && before.many + unread > 0 {
                return Err(why.unwrap_or("nothing in it can be read".into()).into_owned());
            }
            let mut taken = if items.is_empty() { Taken::default() } else { give(items) };
            taken.rejected += before.many + rejected;
            taken.why = why.or(taken.why);
            Ok(taken)
        }
        match self {
            Self::Traces => then(spans(request), unread, |items| sink.spans(items)),
            Self::Metrics => then(metrics(request), unread, |items| sink.metrics(items)),
            Self::Logs => then(logs(request), unread, |items| sink.logs(items)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

const PROTOBUF: &str = "application/x-protobuf";
/// gRPC's and `google.rpc`'s number for "your request is wrong".
const INVALID_ARGUMENT: u32 = 3;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;

/// Answers one HTTP request; `None` if its path is not OTLP's.
pub fn handle(request: &Request<'_>, limits: Limits, sink: &mut impl Sink) -> Option<Response> {
    let signal = match request.path {
        "/v1/traces" => Signal::Traces,
        "/v1/metrics" => Signal::Metrics,
        "/v1/logs" => Signal::Logs,
        _ => return None,
    };
    if request.method != "POST" {
        return Some(Response::text(405, "OTLP is sent by POST").with("allow", "POST"));
    }
    let encoding = match &*request.content_type() {
        PROTOBUF | "application/protobuf" => Encoding::Protobuf,
        JSON => Encoding::Json,
        other => {
            let message =
                format!("content type `{}` is not OTLP's; send {PROTOBUF} or {JSON}", shorten(other));
            return Some(Response::text(415, message));
        }
    };
    Some(match take(signal, encoding, request, limits, sink) {
        Ok(taken) => success(signal, encoding, &taken),
        Err((status, message)) => failure(encoding, status, &message),
    })
}

/// What a client is told whose request was not even read; `None` if its path is not OTLP's.
pub fn refusal(path: &str, content_type: &str, status: u16, message: &str) -> Option<Response> {
    if !matches!(path, "/v1/traces" | "/v1/metrics" | "/v1/logs") {
        return None;
    }
    let encoding =
        if content_type.starts_with("application/json") { Encoding::Json } else { Encoding::Protobuf };
    Some(failure(encoding, status, message))
}

fn take(
    signal: Signal,
    encoding: Encoding,
    request: &Request<'_>,
    limits: Limits,
    sink: &mut impl Sink,
) -> Result<Taken, (u16, String)> {
    let body = body(request, limits).map_err(|error: BodyError| (error.status(), error.to_string()))?;
    let bad = |error: String| (400, error);
    match encoding {
        Encoding::Protobuf => signal.take(&body, Unread::default(), sink).map_err(bad),
        Encoding::Json if body.is_empty() => Ok(Taken::default()),
        Encoding::Json => {
            let mut bytes = Vec::with_capacity(body.len() / 2);
            let mut json = Json::from_bytes(&body).map_err(|error| bad(error.to_string()))?;
            let mut unread = Unread::default();
            from_json(&mut json, signal.message(), &mut bytes, &mut unread)
                .and_then(|()| json.end())
                .map_err(|error| bad(error.to_string()))?;
            signal.take(&bytes, unread, sink).map_err(bad)
        }
    }
}

fn success(signal: Signal, encoding: Encoding, taken: &Taken) -> Response {
    match encoding {
        Encoding::Protobuf => Response::new(200, PROTOBUF, success_bytes(taken)),
        Encoding::Json => {
            let mut json = JsonWriter::new();
            json.object(|json| {
                if taken.rejected > 0 || taken.why.is_some() {
                    json.key("partialSuccess").object(|json| {
                        if taken.rejected > 0 {
                            json.key(signal.rejected_key()).text(&taken.rejected.to_string());
                        }
                        json.key("errorMessage").text(taken.why.as_deref().unwrap_or("rejected"));
                    });
                }
            });
            Response::new(200, JSON, json.into_bytes())
        }
    }
}

/// An `Export*ServiceResponse`: the three have the same fields under the same numbers.
fn success_bytes(taken: &Taken) -> Vec<u8> {
    let mut out = Vec::new();
    if taken.rejected > 0 || taken.why.is_some() {
        Writer::new(&mut out).message(1, |writer| {
            if taken.rejected > 0 {
                writer.varint(1, taken.rejected as u64);
            }
            writer.text(2, taken.why.as_deref().unwrap_or("rejected"));
        });
    }
    out
}

/// A `google.rpc.Status` in the request's encoding.
fn failure(encoding: Encoding, status: u16, message: &str) -> Response {
    let code = if status == 413 { RESOURCE_EXHAUSTED } else { INVALID_ARGUMENT };
    match encoding {
        Encoding::Protobuf => {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.varint(1, u64::from(code));
            writer.text(2, message);
            Response::new(status, PROTOBUF, out)
        }
        Encoding::Json => {
            let mut json = JsonWriter::new();
            json.object(|json| {
                json.key("code").u64(u64::from(code));
                json.key("message").text(message);
            });
            Response::new(status, JSON, json.into_bytes())
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A unary gRPC answer: the framed message, and the trailers to send after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcResponse {
    pub body: Vec<u8>,
    /// `grpc-status`; 0 is success.
    pub status: u32,
    /// `grpc-message`, empty on success.
    pub message: String,
}

/// Answers one unary gRPC call (`:path`, `grpc-encoding`, the whole body with its five-byte prefix). Knows OTLP's three
/// services and Zipkin's `SpanService/Report`.
pub fn handle_grpc(
    path: &str,
    encoding: Option<&str>,
    body: &[u8],
    limits: Limits,
    sink: &mut impl Sink,
) -> GrpcResponse {
    let fail = |status: u32, message: String| GrpcResponse { body: Vec::new(), status, message };
    let known = match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        "/zipkin.proto3.SpanService/Report" => None,
        other => return fail(UNIMPLEMENTED, format!("no method `{}`", shorten(other))),
    };
    let message = match unframe(body, encoding, limits) {
        Ok(message) => message,
        Err((status, message)) => return fail(status, message),
    };
    let answer = match known {
        Some(signal) => signal.take(&message, Unread::default(), sink).map(|taken| success_bytes(&taken)),
        None => match crate::zipkin::proto::read_spans(&message) {
            Ok(spans) => {
                sink.spans(spans);
                Ok(Vec::new())
            }
            Err(error) => Err(error.to_string()),
        },
    };
    match answer {
        Err(message) => fail(INVALID_ARGUMENT, message),
        Ok(bytes) => {
            let mut framed = vec![0; 5];
            framed[1..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            framed.extend(bytes);
            GrpcResponse { body: framed, status: 0, message: String::new() }
        }
    }
}

/// The one message of a unary call: a flag (compressed?), four bytes of length, the message.
pub fn unframe<'a>(
    body: &'a [u8],
    encoding: Option<&str>,
    limits: Limits,
) -> Result<Cow<'a, [u8]>, (u32, String)> {
    let Some((prefix, message)) = body.split_first_chunk::<5>() else {
        return Err((INVALID_ARGUMENT, "the body is shorter than a message's five-byte prefix".into()));
    };
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let too_large = || (RESOURCE_EXHAUSTED, BodyError::TooLarge(limits.body_bytes).to_string());
    if len > limits.body_bytes {
        return Err(too_large());
    }
    if message.len() != len {
        let message = format!("the message says {len} bytes and {} follow", message.len());
        return Err((INVALID_ARGUMENT, message));
    }
    match (prefix[0], encoding) {
        (0, _) => Ok(Cow::Borrowed(message)),
        (1, Some("gzip")) => match gunzip(message, limits.body_bytes) {
            Ok(message) => Ok(Cow::Owned(message)),
            Err(BodyError::TooLarge(_)) => Err(too_large()),
            Err(error) => Err((INVALID_ARGUMENT, error.to_string())),
        },
        (1, other) => {
            let other = shorten(other.unwrap_or("identity"));
            Err((UNIMPLEMENTED, format!("grpc-encoding `{other}` is not spoken here; send gzip or identity")))
        }
        (flag, _) => Err((INVALID_ARGUMENT, format!("a message's first byte is {flag}, not 0 or 1"))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::http::gzip;

    #[derive(Default)]
    pub(crate) struct Collected {
        pub(crate) spans: Vec<Span>,
        pub(crate) points: Vec<MetricPoint>,
        pub(crate) records: Vec<LogRecord>,
    }

    impl Sink for Collected {
        fn spans(&mut self, spans: Vec<Span>) -> Taken {
            self.spans.extend(spans);
            Taken::default()
        }
        fn metrics(&mut self, points: Vec<MetricPoint>) -> Taken {
            self.points.extend(points);
            Taken::default()
        }
        fn logs(&mut self, records: Vec<LogRecord>) -> Taken {
            self.records.extend(records);
            Taken::default()
        }
    }

    pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> (Response, Collected) {
        let mut sink = Collected::default();
        let limits = Limits { body_bytes: 100_000 };
        let response = handle(&Request::post(path, headers, body), limits, &mut sink);
        (response.expect("an OTLP path"), sink)
    }

    const AS_JSON: &[(&str, &str)] = &[("Content-Type", "application/json; charset=utf-8")];
    const AS_PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];

    fn json_to_bytes(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        from_json(&mut Json::new(text), &TRACES, &mut bytes, &mut Unread::default()).unwrap();
        bytes
    }

    /// One span with `fields`, from service Cart.
    fn request(fields: &str) -> String {
        let ids = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174""#;
        let resource = r#"{"attributes":[{"key":"service.name","value":{"stringValue":"Cart"}},{"key":"service.version","value":{"stringValue":"v2"}}]}"#;
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"scope":{{"name":"lib"}},"spans":[{{{ids},{fields}}}]}}],"resource":{resource}}}]}}"#
        )
    }

    /// The span as Zipkin JSON without what all of them share.
    fn zipkin_of(fields: &str) -> String {
        let (response, sink) = post("/v1/traces", AS_JSON, request(fields).as_bytes());
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
        let mut json = JsonWriter::new();
        crate::zipkin::json::write_span(&mut json, &sink.spans[0]);
        json.into_text()
            .replace(r#""traceId":"5b8efff798038103d269b633813fc60c","#, "")
            .replace(r#""id":"eee19b7ec3c1b174","#, "")
            .replace(r#""otel.scope.name":"lib","#, "")
            .replace(r#""service.version":"v2""#, "*")
    }

    #[test]
    fn spans_map_to_zipkin_as_the_specification_says() {
        let cart = r#""localEndpoint":{"serviceName":"cart"}"#;
        let times = r#""startTimeUnixNano":"1544712660000000999","endTimeUnixNano":"1544712661000000999""#;
        assert_eq!(
            zipkin_of(&format!(r#""name":"I","kind":2,"parentSpanId":"EEE19B7EC3C1B173",{times}"#)),
            format!(
                r#"{{"parentId":"eee19b7ec3c1b173","kind":"SERVER","name":"i","timestamp":1544712660000000,"duration":1000000,{cart},"tags":{{*}}}}"#
            )
        );
        assert_eq!(zipkin_of(r#""kind":1"#), format!(r#"{{{cart},"tags":{{*}}}}"#));
        assert_eq!(
            zipkin_of(
                r#""kind":3,"attributes":[{"key":"server.address","value":{"stringValue":"DB"}},{"key":"server.port","value":{"intValue":"5432"}},{"key":"db.name","value":{"stringValue":"orders"}}]"#
            ),
            format!(
                r#"{{"kind":"CLIENT",{cart},"remoteEndpoint":{{"serviceName":"db","port":5432}},"tags":{{"db.name":"orders","server.address":"DB","server.port":"5432",*}}}}"#
            )
        );
        assert_eq!(
            zipkin_of(
                r#""kind":3,"attributes":[{"key":"peer.service","value":{"stringValue":"pay"}},{"key":"network.peer.address","value":{"stringValue":"10.0.0.9"}}]"#
            ),
            format!(
                r#"{{"kind":"CLIENT",{cart},"remoteEndpoint":{{"serviceName":"pay"}},"tags":{{"network.peer.address":"10.0.0.9","peer.service":"pay",*}}}}"#
            )
        );
        assert_eq!(
            zipkin_of(r#""status":{"code":2,"message":"boom"}"#),
            format!(r#"{{{cart},"tags":{{"error":"boom","otel.status_code":"ERROR",*}}}}"#)
        );
        assert_eq!(
            zipkin_of(r#""status":{"code":2}"#),
            format!(r#"{{{cart},"tags":{{"error":"","otel.status_code":"ERROR",*}}}}"#)
        );
        assert_eq!(
            zipkin_of(r#""status":{"code":1}"#),
            format!(r#"{{{cart},"tags":{{"otel.status_code":"OK",*}}}}"#)
        );
        assert_eq!(
            zipkin_of(
                r#""attributes":[{"key":"error","value":{"boolValue":false}},{"key":"b","value":{"boolValue":true}},{"key":"l","value":{"arrayValue":{"values":[{"intValue":1},{"stringValue":"x"}]}}},{"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"doubleValue":1.5}}]}}}]"#
            ),
            format!(r#"{{{cart},"tags":{{"b":"true","l":"[1,\"x\"]","m":"{{\"k\":1.5}}",*}}}}"#)
        );
        assert_eq!(
            zipkin_of(
                r#""events":[{"timeUnixNano":"2000","name":"cut"},{"timeUnixNano":"3000","name":"paid","attributes":[{"key":"n","value":{"intValue":3}}]}]"#
            ),
            format!(
                r#"{{{cart},"annotations":[{{"timestamp":2,"value":"cut"}},{{"timestamp":3,"value":"\"paid\": {{\"n\":3}}"}}],"tags":{{*}}}}"#
            )
        );
        // A clock that jumped back between start and end.
        assert_eq!(
            zipkin_of(r#""startTimeUnixNano":"5000","endTimeUnixNano":"4000""#),
            format!(r#"{{"timestamp":5,{cart},"tags":{{*}}}}"#)
        );
    }

    #[test]
    fn answers_follow_the_obligations() {
        let good = request(r#""name":"a""#);
        let bad_id = good.replace("EEE19B7EC3C1B174", "0000000000000000");
        let text = |response: &Response| String::from_utf8_lossy(&response.body).into_owned();

        let (response, sink) = post("/v1/traces", AS_PROTOBUF, &json_to_bytes(&good));
        assert_eq!((response.status, response.body.len(), sink.spans.len()), (200, 0, 1));
        assert_eq!(response.header("content-type"), Some(PROTOBUF));
        for (path, headers) in
            [("/v1/traces", AS_PROTOBUF), ("/v1/metrics", AS_JSON), ("/v1/logs", AS_PROTOBUF)]
        {
            assert_eq!(post(path, headers, b"").0.status, 200, "empty is success");
        }
        let (response, _) = post("/v1/traces", AS_JSON, good.as_bytes());
        assert_eq!((response.status, text(&response).as_str()), (200, "{}"));

        let (response, sink) = post("/v1/traces", AS_JSON, bad_id.as_bytes());
        let partial = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"span_id is not 8 bytes, or all zeros"}}"#;
        assert_eq!((response.status, text(&response).as_str(), sink.spans.len()), (200, partial, 0));
        let (response, _) = post("/v1/traces", AS_PROTOBUF, &json_to_bytes(&bad_id));
        let mut reader = crate::protobuf::Reader::new(&response.body);
        let mut partial = reader.field().unwrap().unwrap().1.message(1).unwrap();
        assert_eq!(partial.field().unwrap().unwrap().1.varint(1), Ok(1));

        let bad_hex = good.replace("EEE19", "XYZ19");
        let (response, _) = post("/v1/traces", AS_JSON, bad_hex.as_bytes());
        assert!(response.status == 400 && text(&response).contains("not hex"), "{}", text(&response));
        let (response, _) = post("/v1/traces", AS_JSON, request(r#""kind":"SPAN_KIND_CLIENT""#).as_bytes());
        assert_eq!(response.status, 400);
        let (response, sink) =
            post("/v1/traces", AS_JSON, good.replace("resourceSpans", "resource_spans").as_bytes());
        assert_eq!((response.status, sink.spans.len()), (200, 0), "snake case is an unknown key");
        let (response, _) = post("/v1/traces", AS_PROTOBUF, b"\x0a\xff");
        assert!(response.status == 400 && response.header("content-type") == Some(PROTOBUF));

        let gzipped: &[(&str, &str)] = &[AS_PROTOBUF[0], ("content-encoding", "gzip")];
        assert_eq!(post("/v1/traces", gzipped, &gzip(&json_to_bytes(&good))).1.spans.len(), 1);
        assert_eq!(post("/v1/traces", gzipped, &gzip(&vec![0; 10_000_000])).0.status, 413, "a bomb");
        assert_eq!(post("/v1/traces", AS_PROTOBUF, &vec![0; 100_001]).0.status, 413);
        assert_eq!(post("/v1/traces", gzipped, b"junk").0.status, 400);
        assert_eq!(post("/v1/traces", &[("content-type", "text/html")], b"x").0.status, 415);
        let get = handle(&Request::get("/v1/traces"), Limits::default(), &mut Collected::default()).unwrap();
        assert_eq!(get.status, 405);
        assert!(handle(&Request::get("/v2/x"), Limits::default(), &mut Collected::default()).is_none());
    }

    #[test]
    fn sixty_five_mebibytes_are_refused_by_length_alone() {
        let body = vec![b' '; 65 << 20];
        let response =
            handle(&Request::post("/v1/logs", AS_JSON, &body), Limits::default(), &mut Collected::default());
        assert_eq!(response.unwrap().status, 413);
    }

    #[test]
    fn metrics_and_logs_are_read() {
        let metrics = br#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeMetrics":[{"metrics":[
            {"name":"queue.depth","gauge":{"dataPoints":[{"timeUnixNano":"5","asInt":"-7","attributes":[{"key":"q","value":{"stringValue":"a"}}]}]}},
            {"name":"orders","unit":"1","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{"asDouble":3.5}]}},
            {"name":"lat","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},
            {"name":"exp","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":3,"sum":2,"scale":5,"zeroCount":"1","positive":{"offset":-4,"bucketCounts":["2"]}}]}},
            {"gauge":{"dataPoints":[{"asInt":1}]}}]}]}]}"#;
        let (response, sink) = post("/v1/metrics", AS_JSON, metrics);
        assert!(String::from_utf8_lossy(&response.body).contains(r#""rejectedDataPoints":"1""#));
        let values: Vec<_> =
            sink.points.iter().map(|point| (&*point.name, point.delta, &point.value)).collect();
        assert_eq!(
            values,
            [
                ("queue.depth", false, &super::super::MetricValue::Gauge(-7.0)),
                ("orders", false, &super::super::MetricValue::Counter(3.5)),
                (
                    "lat",
                    true,
                    &super::super::MetricValue::Histogram {
                        count: 3,
                        sum: 1.5,
                        bounds: vec![0.5],
                        counts: vec![1, 2]
                    }
                ),
                (
                    "exp",
                    false,
                    &super::super::MetricValue::Exponential {
                        count: 3,
                        sum: 2.0,
                        scale: 5,
                        zero_count: 1,
                        offset: -4,
                        counts: vec![2]
                    }
                ),
            ]
        );
        let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"observedTimeUnixNano":"9","severityNumber":17,"body":{"stringValue":"no"},"traceId":"5b8efff798038103d269b633813fc60c"}]}]}]}"#;
        let (_, sink) = post("/v1/logs", AS_JSON, logs);
        let record = &sink.records[0];
        assert_eq!(
            (&*record.service, record.at.0, record.severity, &*record.body),
            ("unknown_service", 9, 17, "no")
        );
        assert!(record.trace_id.is_some());
    }

    #[test]
    fn grpc_messages_are_unframed_and_answered_with_a_status() {
        const TRACE: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let frame = |flag: u8, message: &[u8]| {
            let mut framed = vec![flag];
            framed.extend((message.len() as u32).to_be_bytes());
            framed.extend(message);
            framed
        };
        let call = |path: &str, encoding: Option<&str>, body: &[u8]| {
            let mut sink = Collected::default();
            let response = handle_grpc(path, encoding, body, Limits { body_bytes: 100_000 }, &mut sink);
            (response.status, sink.spans.len(), response.body)
        };
        let good = json_to_bytes(&request(r#""name":"a""#));
        assert_eq!(call(TRACE, None, &frame(0, &good)), (0, 1, vec![0; 5]));
        assert_eq!(call(TRACE, Some("gzip"), &frame(1, &gzip(&good))), (0, 1, vec![0; 5]));
        assert_eq!(call(TRACE, None, &frame(0, b"")).0, 0);
        assert_eq!(call(TRACE, Some("zstd"), &frame(1, &good)).0, UNIMPLEMENTED);
        assert_eq!(call(TRACE, Some("gzip"), &frame(1, &gzip(&vec![0; 1_000_000]))).0, RESOURCE_EXHAUSTED);
        assert_eq!(call(TRACE, None, &[0, 0, 0, 0, 9, 1]).0, INVALID_ARGUMENT);
        assert_eq!(call(TRACE, None, &[0, 0xff, 0xff, 0xff, 0xff]).0, RESOURCE_EXHAUSTED);
        assert_eq!(call(TRACE, None, &[0]).0, INVALID_ARGUMENT);
        assert_eq!(call(TRACE, None, &frame(7, &good)).0, INVALID_ARGUMENT);
        assert_eq!(call(TRACE, None, &frame(0, b"\xff")).0, INVALID_ARGUMENT);
        assert_eq!(call("/x.Y/Z", None, &frame(0, &good)).0, UNIMPLEMENTED);
        let mut zipkin = Vec::new();
        crate::zipkin::proto::write_spans(&mut zipkin, &spans(&good).unwrap().items);
        assert_eq!(call("/zipkin.proto3.SpanService/Report", None, &frame(0, &zipkin)), (0, 1, vec![0; 5]));
    }
}
