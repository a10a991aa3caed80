//! How many spans a second of one core applications may send, through the door: sockets, HTTP, gzip, decoding, the store.
//!
//! Processor time of the door's threads alone, so that neither the sender nor the machine's other work counts.

use crate::house::{self, Fallible};
use bytes::Bytes;
use control::doors::Doors;
use control::watched::{Clocks, Watched};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use telemetry::ids::{SpanId, TraceId};
use telemetry::otlp::export;
use telemetry::span::{Endpoint, Span, SpanKind};
use telemetry::traces::TraceStore;
use telemetry::zipkin;
use tokio::net::TcpStream;
use units::{Nanos, Rng};

const BODIES: usize = 300;
const TRACES_A_BODY: usize = 64;
const SPANS_A_TRACE: u64 = 8;
/// Also the beginning of the names of its threads.
const DOORS: &str = "doors";

/// Eight spans with six tags each: about what an application's tracer writes.
fn trace(rng: &mut Rng, at: Nanos) -> Vec<Span> {
    let id = TraceId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1));
    let Some(id) = id else { return Vec::new() };
    let mut parent = None;
    let span = |depth: u64| {
        let mut span = Span::new(id, SpanId::new(rng.next_u64() | 1)?);
        span.parent = parent.replace(span.id);
        let server = depth.is_multiple_of(2);
        span.kind = Some(if server { SpanKind::Server } else { SpanKind::Client });
        span.name = format!("GET /things/{{id}}/{}", rng.below(5)).into();
        span.local = Endpoint::named(&format!("service-{}", rng.below(200)));
        span.start = Some(at + Nanos::from_micros(depth * 100));
        let magnitude = 8 + rng.below(12);
        span.duration = Some(Nanos::from_micros(rng.below(1 << magnitude)));
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.route", "/things/{id}"),
            ("service.version", "v1.3"),
            ("cloud.availability_zone", "eu-west/b"),
            ("network.peer.address", "10.0.0.17:8080"),
        ] {
            span.set_tag(key, value);
        }
        span.set_tag("http.response.status_code", 200);
        Some(span)
    };
    (0..SPANS_A_TRACE).filter_map(span).collect()
}

fn gzip(body: &[u8]) -> Fallible<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body)?;
    Ok(packed.finish()?)
}

/// A way in: its path, its content type, and how spans are written there.
struct Way {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    is_grpc: bool,
    packed: bool,
    write: fn(&[Span]) -> Vec<u8>,
}

fn zipkin_protobuf(spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::new();
    zipkin::proto::write_spans(&mut out, spans);
    out
}

fn zipkin_json(spans: &[Span]) -> Vec<u8> {
    let mut json = telemetry::json::Writer::new();
    zipkin::json::write_spans(&mut json, spans);
    json.into_bytes()
}

const fn way(
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    packed: bool,
    write: fn(&[Span]) -> Vec<u8>,
) -> Way {
    Way { name, path, content_type, is_grpc: false, packed, write }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const GRPC: Way = Way {
    is_grpc: true,
    ..way(
        "OTLP over gRPC",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "application/grpc",
        false,
        export::traces,
    )
};
const WAYS: [Way; 8] = [
    way("OTLP protobuf", "/v1/traces", PROTOBUF, false, export::traces),
    way("OTLP protobuf, gzip", "/v1/traces", PROTOBUF, true, export::traces),
    GRPC,
    Way { name: "OTLP over gRPC, gzip", packed: true, ..GRPC },
    way("Zipkin protobuf", "/api/v2/spans", PROTOBUF, false, zipkin_protobuf),
    way("Zipkin protobuf, gzip", "/api/v2/spans", PROTOBUF, true, zipkin_protobuf),
    way("Zipkin JSON, gzip", "/api/v2/spans", JSON, true, zipkin_json),
    way("OTLP JSON, gzip", "/v1/traces", JSON, true, |spans| export::traces_json(spans).into_bytes()),
];

impl Way {
    fn body(&self, spans: &[Span]) -> Fallible<Bytes> {
        let body = (self.write)(spans);
        let body = if self.packed { gzip(&body)? } else { body };
        if !self.is_grpc {
            return Ok(body.into());
        }
        let mut message = vec![u8::from(self.packed)];
        message.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
        message.extend_from_slice(&body);
        Ok(message.into())
    }

    fn request(&self, door: SocketAddr, body: Bytes) -> Fallible<hyper::Request<Full<Bytes>>> {
        let uri = if self.is_grpc { format!("http://{door}{}", self.path) } else { self.path.to_owned() };
        let mut request = hyper::Request::post(uri).header("content-type", self.content_type);
        if !self.is_grpc {
            request = request.header("host", "doors");
        }
        if self.packed {
            let name = if self.is_grpc { "grpc-encoding" } else { "content-encoding" };
            request = request.header(name, "gzip");
        }
        Ok(request.body(Full::new(body))?)
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(door: SocketAddr, is_grpc: bool) -> Fallible<Self> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        if is_grpc {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Self::Two(sender));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    async fn send(&mut self, request: hyper::Request<Full<Bytes>>) -> Fallible<()> {
        let answer = match self {
            Self::One(sender) => sender.send_request(request).await?,
            Self::Two(sender) => sender.send_request(request).await?,
        };
        let status = answer.status();
        let body = answer.into_body().collect().await?;
        let grpc = body.trailers().and_then(|it| it.get("grpc-status")).is_none_or(|it| it == "0");
        if status.is_success() && grpc { Ok(()) } else { Err(format!("{status}: refused").into()) }
    }
}

/// Spans a second of processor time.
fn one(way: &Way, batches: &[Vec<Span>]) -> Fallible<f64> {
    let started = house::clock();
    let clocks = Clocks {
        now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        started_unix_ms: 1_700_000_000_000,
    };
    let watched = Watched::new(clocks);
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(DOORS)
        .enable_all()
        .build()?;
    let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let door = listener.local_addr()?;
    server.spawn(Doors::new(Arc::clone(&watched)).serve(listener));
    let bodies: Vec<Bytes> = batches.iter().map(|spans| way.body(spans)).collect::<Fallible<_>>()?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut ticks = Duration::ZERO;
    let taken = client.block_on(async {
        let mut sender = Sender::connect(door, way.is_grpc).await?;
        sender.send(way.request(door, bodies[0].clone())?).await?;
        let before = crate::cpu(DOORS)?;
        for (at, body) in bodies.iter().enumerate() {
            sender.send(way.request(door, body.clone())?).await?;
            if at % 50 == 0 {
                // What keeping them costs belongs to it.
                let began = crate::own_cpu()?;
                let unix = watched.clocks.unix();
                watched.traces.lock().map_err(|_| "a thread panicked")?.tick(unix);
                ticks += crate::own_cpu()?.saturating_sub(began);
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(crate::cpu(DOORS)?.saturating_sub(before))
    })?;
    let held = watched.traces.lock().map_err(|_| "a thread panicked")?.usage().spans;
    if held == 0 {
        return Err(format!("{}: nothing came in", way.name).into());
    }
    server.shutdown_timeout(Duration::from_secs(1));
    Ok((BODIES * TRACES_A_BODY) as f64 * SPANS_A_TRACE as f64 / (taken + ticks).as_secs_f64())
}

/// Each way in, and the best of three rounds.
pub(crate) fn measure() -> Fallible<Vec<(&'static str, f64)>> {
    let mut rng = Rng::from_seed(1);
    let at = |n: usize| Nanos::from_millis(1_700_000_000_000) + Nanos::from_millis(n as u64 * 5);
    let batches: Vec<Vec<Span>> =
        (0..BODIES).map(|n| (0..TRACES_A_BODY).flat_map(|_| trace(&mut rng, at(n))).collect()).collect();
    let mut figures = Vec::new();
    for way in &WAYS {
        let mut best = 0.0f64;
        for _ in 0..3 {
            best = best.max(one(way, &batches)?);
            // Its threads must be gone before the next one looks for its own by name.
            std::thread::sleep(Duration::from_millis(50));
        }
        figures.push((way.name, best));
    }
    Ok(figures)
}
