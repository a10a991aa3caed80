use super::*;
use crate::watched::Clocks;
use hyper::Method;
use hyper::client::conn::{http1, http2};
use std::io::Write as _;
use units::Nanos;

/// Small, so that "too large" needs no minute of a test.
const LIMIT: usize = 200_000;

struct House {
    watched: Arc<Watched>,
    address: std::net::SocketAddr,
}

struct Heard {
    status: u16,
    body: String,
    headers: HeaderMap,
    trailers: HeaderMap,
}

impl House {
    async fn open() -> Self {
        let clocks = Clocks { now: Arc::new(|| Nanos::from_secs(5)), started_unix_ms: 1_600_000_000_000 };
        let watched = Watched::new(clocks);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let doors = Doors::with_limits(Arc::clone(&watched), Limits { body_bytes: LIMIT });
        tokio::spawn(doors.serve(listener));
        Self { watched, address }
    }

    async fn ask(
        &self,
        http2: bool,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Heard {
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("the door is open");
        let uri = format!("http://{}{target}", self.address);
        let mut request = hyper::Request::builder().method(method).uri(uri).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a good request");
        let io = TokioIo::new(stream);
        let answer = if http2 {
            let (mut send, wire) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(wire);
            send.send_request(request).await
        } else {
            let (mut send, wire) = http1::handshake(io).await.expect("HTTP/1");
            tokio::spawn(wire);
            send.send_request(request).await
        };
        let (parts, body) = answer.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole answer");
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Heard { status: parts.status.as_u16(), body, headers: parts.headers, trailers }
    }

    async fn get(&self, target: &str) -> String {
        let heard = self.ask(false, Method::GET, target, &[], b"").await;
        format!("{} {}", heard.status, heard.body)
    }

    /// `status body` of a POST.
    async fn post(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let heard = self.ask(false, Method::POST, target, headers, body).await;
        format!("{} {}", heard.status, heard.body)
    }

    /// `grpc-status`, from wherever it was said.
    async fn call(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let headers: Vec<_> = [("content-type", "application/grpc"), ("te", "trailers")]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        let heard = self.ask(true, Method::POST, path, &headers, body).await;
        assert_eq!(heard.status, 200, "gRPC says how it went in its own words");
        let status = heard.trailers.get("grpc-status").or_else(|| heard.headers.get("grpc-status"));
        status.map_or_else(String::new, |it| String::from_utf8_lossy(it.as_bytes()).into_owned())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    out.extend(message);
    out
}

/// An `ExportTraceServiceRequest` with one span of service `name`.
fn otlp_span(name: &str) -> Vec<u8> {
    use telemetry::ids::{SpanId, TraceId};
    use telemetry::span::{Endpoint, SpanKind};
    let ids = TraceId::new(0xdef).zip(SpanId::new(7)).expect("neither is zero");
    let mut span = Span::new(ids.0, ids.1);
    span.kind = Some(SpanKind::Server);
    span.local = Endpoint::named(name);
    (span.start, span.duration) = (Some(Nanos::from_secs(1_600_000_000)), Some(Nanos::from_millis(3)));
    otlp::export::traces(&[span])
}

const ZIPKIN: &[u8] =
    br#"[{"traceId":"abc","id":"1","kind":"CLIENT","name":"get","timestamp":1600000000000000,"duration":9000,
    "localEndpoint":{"serviceName":"Web"},"remoteEndpoint":{"serviceName":"cart"}}]"#;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
const TRACE_EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::test]
async fn spans_of_every_format_meet_in_one_store() {
    let house = House::open().await;
    assert_eq!(house.post("/api/v2/spans", JSON, ZIPKIN).await, "202 ");
    let packed = [JSON[0], ("content-encoding", "gzip")];
    assert_eq!(house.post("/api/v2/spans", &packed, &gzip(ZIPKIN)).await, "202 ");
    assert_eq!(house.post("/v1/traces", PROTOBUF, &otlp_span("over-http")).await, "200 ");
    assert_eq!(house.call(TRACE_EXPORT, &[], &framed(0, &otlp_span("over-grpc"))).await, "0");
    let packed = framed(1, &gzip(&otlp_span("packed")));
    assert_eq!(house.call(TRACE_EXPORT, &[("grpc-encoding", "gzip")], &packed).await, "0");
    assert_eq!(house.get("/api/v2/services").await, r#"200 ["over-grpc","over-http","packed","web"]"#);
    assert_eq!(
        house.get("/zipkin/api/v2/dependencies?endTs=1600000010000&lookback=60000").await,
        r#"200 [{"parent":"web","child":"cart","callCount":1}]"#
    );
    assert!(house.get("/api/v2/trace/abc").await.starts_with("200 ["));
    assert_eq!(house.watched.door_counters.spans.load(Relaxed), 5);
    let heard = house.ask(false, Method::GET, "/", &[], b"").await;
    assert_eq!(
        (heard.status, heard.headers.get("location").map(|it| it.as_bytes())),
        (302, Some(&b"/zipkin/"[..]))
    );
}

#[tokio::test]
async fn metrics_and_logs_are_taken_too() {
    let house = House::open().await;
    let metrics = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"heap","gauge":{"dataPoints":[{"asInt":"5"}]}}]}]}]}"#;
    assert_eq!(house.post("/v1/metrics", JSON, metrics).await, "200 {}");
    let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    assert_eq!(house.post("/v1/logs", JSON, logs).await, "200 {}");
    let app = lock(&house.watched.app);
    assert_eq!((app.metrics.families().len(), app.logs.newest(None, None).count()), (1, 1));
}

#[tokio::test]
async fn what_is_wrong_is_answered_as_its_format_demands() {
    let house = House::open().await;
    let bomb = gzip(&vec![0; 50_000_000]);
    let packed_json = [JSON[0], ("content-encoding", "gzip")];
    let starts = |answer: String, with: &str| assert!(answer.starts_with(with), "{answer} is not {with}");
    starts(house.post("/v1/traces", &packed_json, &bomb).await, "413 {\"code\":8");
    starts(house.post("/api/v2/spans", &packed_json, &bomb).await, "413 ");
    starts(house.post("/api/v2/spans", JSON, &vec![b' '; LIMIT * 20]).await, "413 ");
    starts(house.post("/api/v2/spans", JSON, b"{}").await, "400 Cannot read spans");
    starts(house.post("/api/v2/spans", JSON, br#"[{"traceId":"XYZ","id":"1"}]"#).await, "400 ");
    starts(house.post("/api/v2/spans", JSON, br#"[{"traceId":"1","id":"1","kind":"FRIEND"}]"#).await, "400 ");
    starts(house.post("/v1/traces", JSON, b"[").await, "400 {\"code\":3");
    starts(house.post("/v1/traces", &[("content-type", "text/html")], b"x").await, "415 ");
    starts(house.post("/v1/traces", PROTOBUF, b"").await, "200 ");
    starts(house.get("/v1/traces").await, "405 ");
    starts(house.get("/nowhere").await, "404 ");
    starts(house.get("/api/v2/trace/zz").await, "400 ");
    starts(house.get("/api/v2/traces?endTs=-1").await, "400 endTs <= 0");
    let grpc_bomb = framed(1, &bomb);
    assert_eq!(house.call(TRACE_EXPORT, &[("grpc-encoding", "gzip")], &grpc_bomb).await, "8");
    assert_eq!(house.call(TRACE_EXPORT, &[], &vec![0; LIMIT * 2]).await, "8");
    assert_eq!(house.call(TRACE_EXPORT, &[], b"").await, "3");
    assert_eq!(house.call("/no.Such/Method", &[], &framed(0, b"")).await, "12");
    let counters = &house.watched.door_counters;
    assert_eq!((counters.too_large.load(Relaxed), counters.spans.load(Relaxed)), (5, 0));
    assert_eq!(house.get("/api/v2/services").await, "200 []", "the doors still answer");
}

#[tokio::test]
async fn the_budget_of_all_bodies_is_given_back() {
    let house = House::open().await;
    let doors = Doors::new(Arc::clone(&house.watched));
    {
        let mut one = Reserved { budget: &doors.in_flight, bytes: 0 };
        let mut two = Reserved { budget: &doors.in_flight, bytes: 0 };
        assert!(one.more(IN_FLIGHT_BYTES_MAX - 10) && two.more(10) && !two.more(1) && !one.more(usize::MAX));
    }
    assert_eq!(doors.in_flight.load(Relaxed), 0);
}

#[test]
fn grpc_messages_are_percent_encoded() {
    assert_eq!(percent_encode("100% of\n`é`"), "100%25 of%0A`%C3%A9`");
}
