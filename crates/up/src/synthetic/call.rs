//! How a synthetic instance calls others: HTTP/1 and HTTP/2 over its own doors, context passed on.

use super::answer::Payload;
use super::behaviour::{RequestLine, Wire};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Idle connections kept for each callee. More than this are only needed in a burst, and then opened.
const IDLE_MAX: usize = 64;

/// Runs hyper's own tasks on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    idle: RefCell<HashMap<SocketAddr, Vec<http1::SendRequest<Payload>>>>,
    shared: RefCell<HashMap<SocketAddr, http2::SendRequest<Payload>>>,
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no such request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("gRPC status {0}")]
    Grpc(String),
}

/// One request to one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) host: &'a str,
    pub(crate) wire: Wire,
    pub(crate) line: &'a RequestLine,
    pub(crate) path: &'a str,
    pub(crate) body_bytes: u64,
    pub(crate) context: &'a HeaderMap,
}

impl Client {
    /// Sends one request and reads the whole answer; `Ok` only for an answer that means success.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<(), CallError> {
        let response = match ask.wire {
            Wire::Http1 => self.ask_http1(ask).await?,
            Wire::Http2 => self.ask_http2(ask).await?,
        };
        judge(response, ask.line.grpc)
    }

    async fn ask_http1(&self, ask: Ask<'_>) -> Result<Judged, CallError> {
        loop {
            let reused = self.idle.borrow_mut().get_mut(&ask.to).and_then(Vec::pop);
            let was_reused = reused.is_some();
            let mut sender = match reused {
                Some(sender) if sender.is_closed() => continue,
                Some(sender) => sender,
                None => {
                    let (sender, connection) = http1::handshake(TokioIo::new(connect(ask.to).await?)).await?;
                    tokio::task::spawn_local(async move {
                        let _ = connection.await;
                    });
                    sender
                }
            };
            match sender.send_request(request(ask)?).await {
                Ok(response) => {
                    let judged = drain(response).await?;
                    let mut idle = self.idle.borrow_mut();
                    let idle = idle.entry(ask.to).or_default();
                    if idle.len() < IDLE_MAX {
                        idle.push(sender);
                    }
                    return Ok(judged);
                }
                // The other side closed it while it was idle; nothing was sent, so asking again is safe.
                Err(error) if was_reused && error.is_canceled() => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ask_http2(&self, ask: Ask<'_>) -> Result<Judged, CallError> {
        let known = self.shared.borrow().get(&ask.to).filter(|it| !it.is_closed()).cloned();
        let mut sender = match known {
            Some(sender) => sender,
            None => {
                let io = TokioIo::new(connect(ask.to).await?);
                let (sender, connection) = http2::Builder::new(Local)
                    .initial_connection_window_size(4 << 20)
                    .initial_stream_window_size(1 << 20)
                    .handshake(io)
                    .await?;
                tokio::task::spawn_local(async move {
                    let _ = connection.await;
                });
                self.shared.borrow_mut().insert(ask.to, sender.clone());
                sender
            }
        };
        sender.ready().await?;
        let response = sender.send_request(request(ask)?).await?;
        drain(response).await
    }
}

/// An answer, read to its end.
struct Judged {
    status: u16,
    grpc_status: Option<String>,
}

async fn drain(response: Response<Incoming>) -> Result<Judged, CallError> {
    let (parts, mut body) = response.into_parts();
    let text =
        |headers: &HeaderMap| headers.get("grpc-status").and_then(|it| Some(it.to_str().ok()?.to_owned()));
    let mut grpc_status = text(&parts.headers);
    while let Some(frame) = body.frame().await {
        if let Some(trailers) = frame?.trailers_ref() {
            grpc_status = text(trailers).or(grpc_status);
        }
    }
    Ok(Judged { status: parts.status.as_u16(), grpc_status })
}

fn judge(judged: Judged, grpc: bool) -> Result<(), CallError> {
    match (judged.status, grpc, judged.grpc_status) {
        (200..400, false, _) => Ok(()),
        (200, true, Some(status)) if status == "0" => Ok(()),
        (200, true, status) => Err(CallError::Grpc(status.unwrap_or_else(|| "missing".to_owned()))),
        (status, _, _) => Err(CallError::Status(status)),
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, CallError> {
    let stream = TcpStream::connect(to).await.map_err(CallError::Connect)?;
    // Small requests must not wait for an acknowledgement of the one before.
    stream.set_nodelay(true).map_err(CallError::Connect)?;
    Ok(stream)
}

fn request(ask: Ask<'_>) -> Result<Request<Payload>, hyper::http::Error> {
    let carries_body =
        ask.line.grpc || !matches!(ask.line.method.as_str(), "GET" | "HEAD" | "DELETE" | "OPTIONS");
    let uri = match ask.wire {
        Wire::Http1 => ask.path.to_owned(),
        Wire::Http2 => format!("http://{}{}", ask.host, ask.path),
    };
    let mut request = Request::builder().method(ask.line.method.as_str()).uri(uri);
    if let Some(headers) = request.headers_mut() {
        headers.extend(ask.context.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let (Wire::Http1, Ok(host)) = (ask.wire, HeaderValue::from_str(ask.host)) {
            headers.insert("host", host);
        }
        if ask.line.grpc {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("te", HeaderValue::from_static("trailers"));
        }
    }
    let body = match (carries_body, ask.line.grpc) {
        (true, true) => Payload::grpc_message(ask.body_bytes),
        (true, false) => Payload::of(Bytes::new(), ask.body_bytes),
        (false, _) => Payload::empty(),
    };
    request.body(body)
}

/// What a request hands on to the calls it makes: who asked, until when it matters, and which traces and routes it
/// belongs to.
pub(crate) fn context_of(headers: &HeaderMap) -> HeaderMap {
    const WHOLE: [&str; 8] = [
        "x-request-id",
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "grpc-timeout",
        "x-cloud-trace-context",
        "sd-routing-key",
    ];
    const BEGINNINGS: [&str; 5] = ["isobar-", "x-b3-", "x-ot-", "x-envoy-expected-", "uberctx-"];
    let is_context = |name: &HeaderName| {
        let name = name.as_str();
        // Which attempt it is, is between one caller and one callee.
        name != "isobar-attempt"
            && (WHOLE.contains(&name) || BEGINNINGS.iter().any(|it| name.starts_with(it)))
    };
    headers
        .iter()
        .filter(|(name, _)| is_context(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
