//! The doors through which applications send us their telemetry, and other people's tools read ours: Zipkin and OTLP.
//!
//! One address takes HTTP/1.1 and HTTP/2 alike, so OTLP over HTTP and over gRPC need no second port; which format a
//! request speaks follows from its path. The formats are functions of the telemetry crate; here are the wires, and what
//! keeps strangers from using up the machine: so many connections, so many bytes under way, so much decoded at a time,
//! so long for a body that does not come. Whoever finds a limit reached is told to come back later, and counted.
//!
//! Zipkin's read API may be asked by any page (its own tools expect that), so nothing here changes anything but traces.

pub mod counters;

use crate::api::lock;
use crate::watched::Watched;
use bytes::{Bytes, BytesMut};
use counters::DoorCounters;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use telemetry::exposition::Format;
use telemetry::http::{Limits, Request, Response};
use telemetry::otlp::{self, LogRecord, MetricPoint, Sink, Taken};
use telemetry::span::Span;
use telemetry::traces::TraceStore;
use telemetry::zipkin::api::{self as zipkin, ZipkinSettings};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A laptop's services with their exporters' pools, several times over. More wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// Bodies on their way in, all together.
const IN_FLIGHT_BYTES_MAX: usize = 160 << 20;
/// What may be decoded at a time, in units of about a mebibyte of text: one body of the largest size, or many small.
const DECODING_MAX: u32 = 64;
/// A body that packs better than this is counted as the largest, which it may become.
const PACKED_TIMES: usize = 16;
/// From a request's head to the last byte of its body.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long a request waits for others to be decoded.
const TURN_TIME: Duration = Duration::from_secs(5);
/// A body that is too large is read to its end, and thrown away, so that its sender can hear why; up to here.
const DISCARDED_MAX: usize = 256 << 20;
const HEAD_TIME: Duration = Duration::from_secs(20);
const PING_EVERY: Duration = Duration::from_secs(30);

type Answer = hyper::Response<BoxBody<Bytes, Infallible>>;

/// What all doors stand on.
#[derive(Debug)]
pub struct Doors {
    watched: Arc<Watched>,
    limits: Limits,
    zipkin: ZipkinSettings,
    places: Arc<Semaphore>,
    decoding: Semaphore,
    in_flight: AtomicUsize,
}

/// Why a request's body is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoBody {
    TooLarge,
    Busy,
    TooSlow,
    Gone,
}

/// Bytes counted against the budget of all bodies, until dropped.
struct Reserved<'a> {
    budget: &'a AtomicUsize,
    bytes: usize,
}

impl Reserved<'_> {
    fn more(&mut self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= IN_FLIGHT_BYTES_MAX);
        let taken = self.budget.fetch_update(Relaxed, Relaxed, fits).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Relaxed);
    }
}

impl Doors {
    pub fn new(watched: Arc<Watched>) -> Arc<Self> {
        Self::with_limits(watched, Limits::default())
    }

    pub fn with_limits(watched: Arc<Watched>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            watched,
            limits,
            zipkin: ZipkinSettings { limits, ..ZipkinSettings::default() },
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            decoding: Semaphore::new(DECODING_MAX as usize),
            in_flight: AtomicUsize::new(0),
        })
    }

    /// Serves one address for as long as it is polled. Any number of addresses may share the doors.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // No descriptor is free, or the peer left already: neither is better at once.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            self.counters().connections.fetch_add(1, Relaxed);
            let doors = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                let answer = |request| {
                    let doors = Arc::clone(&doors);
                    async move { Ok::<_, Infallible>(doors.answer(request).await) }
                };
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
                server
                    .http2()
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_EVERY)
                    .max_concurrent_streams(64)
                    .max_header_list_size(16 << 10)
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(4 << 20);
                // A connection that ends badly has nobody left to tell.
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    }

    fn counters(&self) -> &DoorCounters {
        &self.watched.door_counters
    }

    async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Answer {
        self.counters().requests.fetch_add(1, Relaxed);
        let (parts, body) = request.into_parts();
        let is_grpc =
            parts.headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
        let mut reserved = Reserved { budget: &self.in_flight, bytes: 0 };
        let read = tokio::time::timeout(BODY_TIME, self.read(body, &mut reserved, is_grpc)).await;
        let body = match read.unwrap_or(Err(NoBody::TooSlow)) {
            Ok(body) => body,
            Err(why) => return self.refuse(why, &parts, is_grpc),
        };
        let bytes = reserved.bytes;
        self.counters().bytes.fetch_add(bytes as u64, Relaxed);
        let packed = ["content-encoding", "grpc-encoding"]
            .iter()
            .any(|name| parts.headers.get(*name).is_some_and(|it| it != "identity"));
        let unpacked = if packed { bytes.saturating_mul(PACKED_TIMES) } else { bytes };
        let turn = u32::try_from(unpacked >> 20).unwrap_or(u32::MAX).saturating_add(1).min(DECODING_MAX);
        let Ok(Ok(_turn)) = tokio::time::timeout(TURN_TIME, self.decoding.acquire_many(turn)).await else {
            return self.refuse(NoBody::Busy, &parts, is_grpc);
        };
        let doors = Arc::clone(&self);
        // Decoding, and searching for what is asked, take their time; frames of the map must not wait for them.
        let done = tokio::task::spawn_blocking(move || {
            if is_grpc { doors.grpc(&parts, &body) } else { from_telemetry(doors.http(&parts, &body)) }
        });
        done.await.unwrap_or_else(|_| from_telemetry(Response::text(500, "a mistake of isobar's")))
    }

    async fn read(
        &self,
        mut body: Incoming,
        reserved: &mut Reserved<'_>,
        is_grpc: bool,
    ) -> Result<Bytes, NoBody> {
        // A gRPC message has five bytes before it that are none of its own.
        let max = self.limits.body_bytes + if is_grpc { 5 } else { 0 };
        let mut whole = BytesMut::new();
        let mut discarded = 0;
        let mut refused = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| NoBody::Gone)?.into_data() else { continue };
            if refused.is_none() {
                if whole.len() + data.len() > max {
                    refused = Some(NoBody::TooLarge);
                } else if !reserved.more(data.len()) {
                    refused = Some(NoBody::Busy);
                }
            }
            match refused {
                None => whole.extend_from_slice(&data),
                Some(why) => {
                    whole = BytesMut::new();
                    discarded += data.len();
                    if discarded > DISCARDED_MAX {
                        return Err(why);
                    }
                }
            }
        }
        match refused {
            None => Ok(whole.freeze()),
            Some(why) => Err(why),
        }
    }

    fn refuse(&self, why: NoBody, parts: &hyper::http::request::Parts, is_grpc: bool) -> Answer {
        let counters = self.counters();
        let max = self.limits.body_bytes;
        // The gRPC codes: RESOURCE_EXHAUSTED without a delay is final, UNAVAILABLE may be tried again.
        let (cell, status, code, message) = match why {
            NoBody::TooLarge => (&counters.too_large, 413, 8, format!("the body is larger than {max} bytes")),
            NoBody::Busy => (&counters.busy, 503, 14, "too much telemetry at once; try again".to_owned()),
            NoBody::TooSlow => {
                (&counters.too_slow, 408, 14, format!("the body did not come within {BODY_TIME:?}"))
            }
            NoBody::Gone => (&counters.malformed, 400, 3, "the body broke off".to_owned()),
        };
        cell.fetch_add(1, Relaxed);
        if is_grpc {
            return from_grpc(otlp::server::GrpcResponse { body: Vec::new(), status: code, message });
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("");
        let response = otlp::server::refusal(parts.uri.path(), content_type, status, &message)
            .unwrap_or_else(|| Response::text(status, message));
        from_telemetry(if why == NoBody::Busy { response.with("retry-after", "1") } else { response })
    }

    fn http(&self, parts: &hyper::http::request::Parts, body: &[u8]) -> Response {
        let headers: Vec<(&str, &str)> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let request = Request {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &headers,
            body,
        };
        let response = self.route(&request);
        let cell = match response.status {
            413 => &self.counters().too_large,
            400 | 415 => &self.counters().malformed,
            _ => return response,
        };
        cell.fetch_add(1, Relaxed);
        response
    }

    fn route(&self, request: &Request<'_>) -> Response {
        if let Some(response) = otlp::handle(request, self.limits, &mut self.sink()) {
            return response;
        }
        if request.method == "POST" && matches!(request.path, "/api/v1/spans" | "/api/v2/spans") {
            // Read before the store is locked: nobody waits for somebody else's JSON.
            return match zipkin::read_post(request, self.limits) {
                Ok(spans) => {
                    self.sink().spans(spans);
                    Response::empty(202).with("access-control-allow-origin", "*")
                }
                Err(response) => response.with("access-control-allow-origin", "*"),
            };
        }
        match (request.method, request.path) {
            ("GET" | "HEAD", "/metrics") => return self.counters().zipkin(),
            ("GET" | "HEAD", "/prometheus") => {
                let format = Format::negotiate(request.header("accept").unwrap_or(""));
                let page = crate::exports::page(&self.watched, format);
                return Response::new(200, format.content_type(), page);
            }
            ("GET" | "HEAD", "/") => return Response::empty(302).with("location", "/zipkin/"),
            ("GET" | "HEAD", "/zipkin/") => return Response::text(200, WELCOME),
            ("TRACE", _) => return Response::text(405, "TRACE is not allowed here"),
            _ => {}
        }
        let unix = self.watched.clocks.unix();
        let answer = zipkin::handle(&self.zipkin, &mut *lock(&self.watched.traces), request, unix);
        answer.unwrap_or_else(|| Response::text(404, WELCOME))
    }

    fn grpc(&self, parts: &hyper::http::request::Parts, body: &[u8]) -> Answer {
        if parts.version != hyper::Version::HTTP_2 {
            return from_telemetry(Response::text(415, "gRPC needs HTTP/2"));
        }
        let encoding = parts.headers.get("grpc-encoding").and_then(|it| it.to_str().ok());
        let answer = otlp::handle_grpc(parts.uri.path(), encoding, body, self.limits, &mut self.sink());
        let cell = match answer.status {
            0 => return from_grpc(answer),
            8 => &self.counters().too_large,
            _ => &self.counters().malformed,
        };
        cell.fetch_add(1, Relaxed);
        from_grpc(answer)
    }

    fn sink(&self) -> DoorSink<'_> {
        DoorSink { watched: &self.watched }
    }
}

const WELCOME: &str = "isobar speaks Zipkin and OTLP here: POST /api/v2/spans, /api/v1/spans, /v1/traces, /v1/metrics, \
/v1/logs or gRPC; GET /api/v2/services and the rest of Zipkin's read API.\n";

/// Locks what it needs for as long as it adds, and not while somebody's body is decoded.
struct DoorSink<'a> {
    watched: &'a Watched,
}

impl DoorSink<'_> {
    fn count(&self, cell: &AtomicU64, many: usize, taken: Taken) -> Taken {
        cell.fetch_add(many as u64, Relaxed);
        self.watched.door_counters.rejected.fetch_add(taken.rejected as u64, Relaxed);
        taken
    }
}

/// Spans added under one lock. A store that is busy for a tenth of a second is a map that stands still.
const BATCH: usize = 1_000;

impl Sink for DoorSink<'_> {
    fn spans(&mut self, spans: Vec<Span>) -> Taken {
        let many = spans.len();
        let now = self.watched.clocks.unix();
        let mut too_many = 0;
        for batch in spans.chunks(BATCH) {
            too_many += lock(&self.watched.traces).add(batch, now).too_many;
        }
        let why = (too_many > 0).then_some("the trace is as large as a trace may be".into());
        self.count(&self.watched.door_counters.spans, many, Taken { rejected: too_many, why })
    }

    fn metrics(&mut self, points: Vec<MetricPoint>) -> Taken {
        let many = points.len();
        let taken = lock(&self.watched.app).metrics.take(&points);
        self.count(&self.watched.door_counters.points, many, taken)
    }

    fn logs(&mut self, records: Vec<LogRecord>) -> Taken {
        let many = records.len();
        let taken = lock(&self.watched.app).logs.take(records);
        self.count(&self.watched.door_counters.logs, many, taken)
    }
}

fn from_telemetry(response: Response) -> Answer {
    let mut answer = hyper::Response::new(Full::new(Bytes::from(response.body)).boxed());
    *answer.status_mut() =
        hyper::StatusCode::from_u16(response.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = pair {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

/// The message, then its status in trailers; a failure has no message and says so in its head.
fn from_grpc(response: otlp::server::GrpcResponse) -> Answer {
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from(response.status));
    if !response.message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encode(&response.message))
    {
        status.insert("grpc-message", message);
    }
    let mut answer = if response.body.is_empty() {
        let mut answer = hyper::Response::new(Full::default().boxed());
        answer.headers_mut().extend(status);
        answer
    } else {
        let body = Full::new(Bytes::from(response.body));
        hyper::Response::new(body.with_trailers(std::future::ready(Some(Ok(status)))).boxed())
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// As gRPC writes messages: what is not plain ASCII, and the percent sign, in hexadecimal.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
