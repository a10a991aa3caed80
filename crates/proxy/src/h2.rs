//! HTTP/2 on either side, as translation.
//!
//! A stream becomes an HTTP/1 message on a [pipe](crate::pipe) and is carried by the code that carries all messages, so
//! every decision and every check exists once; towards an instance that speaks HTTP/2 the message becomes a stream again.
//! What is gained is that nothing behaves differently because of the version; what is paid is writing and reading a head.
//!
//! The h2 crate does frames, HPACK and flow control, with its limits set on purpose: streams, header list, resets and small
//! DATA frames are bounded. A pipe holds little, and capacity is released only as bytes leave it, so a slow reader slows
//! its sender and memory stays bounded.

use crate::heads::reason;
use crate::http1::{
    BodyReader, Framing, HeadLimits, Kind, Method, Progress, RequestHead, ResponseHead, classify,
    parse_request, parse_response, write_chunk,
};
use crate::identity::write_decimal;
use crate::pipe::{Pipe, pipe, put_spare, take_spare};
use crate::serve::{Client, Runners, connection};
use crate::socket::Socket;
use crate::worker::{Door, Worker};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use policy::Outcome;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One megabyte keeps a fast reader busy over a long way.
const WINDOW: u32 = 1 << 20;

/// Small DATA frames a peer may send before it is told to calm down. gRPC sends many and means no harm.
const SMALL_FRAMES: usize = 1 << 20;

/// How long a gRPC reply's head waits for what follows: a status right behind it can still be retried.
const STATUS_WAIT: Duration = Duration::from_millis(3);

/// A socket as the h2 crate wants it, with the bytes that were read before it was known what they are.
struct Io {
    socket: Socket,
    before: Vec<u8>,
    at: usize,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.at < self.before.len() {
            let count = into.remaining().min(self.before.len() - self.at);
            into.put_slice(&self.before[self.at..self.at + count]);
            self.at += count;
            if self.at == self.before.len() {
                self.before = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let read = ready!(self.socket.poll_read(cx, into.initialize_unfilled()))?;
        into.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.socket.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.socket.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}

/// A client's HTTP/2 connection, from its preface to its end.
pub(crate) async fn serve(mut client: Client, before: Vec<u8>, runners: Rc<Runners>) {
    let worker = client.worker.clone();
    let plan = worker.plan();
    let (limits, timeouts) = (&plan.config.limits, &plan.config.timeouts);
    let socket = std::mem::replace(&mut client.socket, Socket::Closed);
    let io = Io { socket, before, at: 0 };
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.head_bytes.as_u64().min(1 << 20) as u32)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_reset_streams(64)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(Some(256))
        .max_send_buffer_size(256 << 10)
        .data_frame_budget(SMALL_FRAMES);
    client.timer.set(worker.now() + timeouts.header_read);
    let Some(Ok(mut connection)) = client.timer.limit(builder.handshake::<_, Bytes>(io)).await else {
        worker.cells.header_timeouts.add(1);
        return;
    };
    worker.cells.h2_connections.add(1);
    let active = Rc::new(Cell::new(0u32));
    let mut leaving = false;
    client.timer.set(worker.now() + timeouts.keep_alive);
    loop {
        let accepted = poll_fn(|cx| {
            if !leaving && (worker.draining.get() || client.door.closing.get()) {
                leaving = true;
                connection.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            if client.timer.poll(cx).is_ready() {
                if active.get() == 0 && !leaving {
                    leaving = true;
                    worker.cells.idle_closed.add(1);
                    connection.graceful_shutdown();
                    let _ = connection.poll_closed(cx);
                }
                client.timer.set(worker.now() + timeouts.keep_alive);
                let _ = client.timer.poll(cx);
            }
            Poll::Pending
        })
        .await;
        let Some(Ok((request, respond))) = accepted else { return };
        worker.cells.h2_streams.add(1);
        client.timer.set(worker.now() + timeouts.keep_alive);
        active.set(active.get() + 1);
        let guard = Guard(active.clone());
        let parts = (worker.clone(), client.door.clone(), client.peer, client.tls);
        let runners = runners.clone();
        tokio::task::spawn_local(async move {
            let _guard = guard;
            stream(parts, request, respond, runners).await;
        });
    }
}

struct Guard(Rc<Cell<u32>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One stream: a client on a pipe, and the translator at the pipe's other end. One task drives both.
async fn stream(
    (worker, door, peer, tls): (Rc<Worker>, Rc<Door>, SocketAddr, bool),
    request: Request<RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
    runners: Rc<Runners>,
) {
    let (near, far) = pipe();
    let client = Client {
        socket: Socket::Pipe(near),
        timer: worker.timers.timer(),
        peer,
        door,
        worker,
        tls,
        served: 0,
        half_closed: false,
        counted: false,
    };
    let mut carried = pin!(connection(client, runners));
    let mut translated = pin!(answer(far, request, respond));
    let (mut carrying, mut translating) = (true, true);
    poll_fn(|cx| {
        if translating && translated.as_mut().poll(cx).is_ready() {
            translating = false;
        }
        if carrying && carried.as_mut().poll(cx).is_ready() {
            carrying = false;
        }
        // What was just carried can often be translated at once, without another turn of the scheduler.
        if translating && translated.as_mut().poll(cx).is_ready() {
            translating = false;
        }
        if translating || carrying { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

async fn write_all(to: &Pipe, mut bytes: &[u8]) -> Result<(), ()> {
    while !bytes.is_empty() {
        let wrote = poll_fn(|cx| to.poll_write(cx, bytes)).await.map_err(drop)?;
        bytes = &bytes[wrote..];
    }
    Ok(())
}

/// Lines that belong to one connection, or that the translation writes itself.
fn is_dropped(kind: Kind) -> bool {
    kind.is_hop_by_hop() || matches!(kind, Kind::Host | Kind::Cookie)
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The head of a stream's request as HTTP/1 writes it. Whether it is a good one is for the reader to say: it is the same
/// reader for everybody.
fn request_head(request: &Request<RecvStream>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| request.headers().get("host").map(HeaderValue::as_bytes));
    write_line(out, "host", host.unwrap_or_default());
    let (mut length, mut cookies, mut trailers) = (false, false, false);
    for (name, value) in request.headers() {
        let kind = classify(name.as_str().as_bytes());
        length |= kind == Kind::ContentLength;
        cookies |= kind == Kind::Cookie;
        trailers |= kind == Kind::Te && value.as_bytes().eq_ignore_ascii_case(b"trailers");
        if !is_dropped(kind) {
            write_line(out, name.as_str(), value.as_bytes());
        }
    }
    if cookies {
        // HTTP/2 may cut cookies into crumbs; HTTP/1 has one line (RFC 9113, 8.2.3).
        let crumbs: Vec<&[u8]> =
            request.headers().get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
        write_line(out, "cookie", &crumbs.join(&b"; "[..]));
    }
    if trailers {
        out.extend_from_slice(b"te: trailers\r\nconnection: close, te\r\n");
    } else {
        out.extend_from_slice(b"connection: close\r\n");
    }
    let chunked = !length && !request.body().is_end_stream();
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    chunked
}

/// Moves a stream's body into a pipe, as chunks or as it is, and lets its sender go on as bytes leave.
async fn body_to_pipe(mut body: RecvStream, to: &Pipe, chunked: bool) -> Result<(), ()> {
    let mut framed = take_spare();
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        let data = data.map_err(drop)?;
        if !data.is_empty() {
            if chunked {
                framed.clear();
                write_chunk(&mut framed, &data);
                write_all(to, &framed).await?;
            } else {
                write_all(to, &data).await?;
            }
        }
        let _ = body.flow_control().release_capacity(data.len());
    }
    if !chunked {
        return Ok(());
    }
    framed.clear();
    framed.extend_from_slice(b"0\r\n");
    if let Some(trailers) = poll_fn(|cx| body.poll_trailers(cx)).await.map_err(drop)? {
        trailers.iter().for_each(|(name, value)| write_line(&mut framed, name.as_str(), value.as_bytes()));
    }
    framed.extend_from_slice(b"\r\n");
    let written = write_all(to, &framed).await;
    put_spare(framed);
    written
}

/// Sends data as the peer's window allows.
async fn send_data(to: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), ()> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = match to.capacity() {
            0 => poll_fn(|cx| to.poll_capacity(cx)).await.ok_or(())?.map_err(drop)?,
            room => room,
        };
        let piece = data.split_to(room.min(data.len()));
        if !piece.is_empty() {
            to.send_data(piece, false).map_err(drop)?;
        }
    }
    Ok(())
}

/// Trailer lines as a map; what is no header line there is left out.
fn trailer_map(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..at].to_ascii_lowercase(), line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

/// Bytes from a pipe, read piece by piece.
struct Reading<'p> {
    from: &'p Pipe,
    bytes: Vec<u8>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        put_spare(std::mem::take(&mut self.bytes));
    }
}

impl<'p> Reading<'p> {
    fn new(from: &'p Pipe) -> Self {
        Self { from, bytes: take_spare() }
    }

    /// Reads more. False at the end.
    async fn more(&mut self) -> bool {
        poll_fn(|cx| self.from.poll_take(cx, &mut self.bytes)).await > 0
    }

    /// Moves a body into a stream, with its trailer.
    async fn body_to(&mut self, framing: Framing, to: &mut SendStream<Bytes>) -> Result<(), ()> {
        let mut reader = BodyReader::new(framing);
        loop {
            let step = reader.step(&self.bytes).map_err(drop)?;
            if !step.data.is_empty() {
                send_data(to, Bytes::copy_from_slice(&self.bytes[step.data.clone()])).await?;
            }
            if step.done {
                let trailer = trailer_map(&self.bytes[step.trailer.clone()]);
                self.bytes.drain(..step.consumed);
                return if trailer.is_empty() {
                    to.send_data(Bytes::new(), true).map_err(drop)
                } else {
                    to.send_trailers(trailer).map_err(drop)
                };
            }
            self.bytes.drain(..step.consumed);
            if step.consumed == 0 && !self.more().await {
                if reader.end_of_stream() {
                    return to.send_data(Bytes::new(), true).map_err(drop);
                }
                return Err(());
            }
        }
    }
}

/// The far end of a client's pipe: puts the request in and turns the reply into frames.
async fn answer(far: Pipe, request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let method = Method::parse(request.method().as_str().as_bytes());
    let grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let mut head = take_spare();
    let chunked = request_head(&request, &mut head);
    let written = write_all(&far, &head).await;
    put_spare(head);
    if written.is_err() {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    }
    let body = request.into_body();
    let has_body = !body.is_end_stream();
    let mut upload = pin!(async {
        if has_body && body_to_pipe(body, &far, chunked).await.is_err() {
            // The client gave up its body; there is nothing whole to send on.
            far.end();
        }
    });
    let mut uploading = true;
    let mut replied = pin!(async {
        if reply(&far, method, grpc, &mut respond).await.is_err() {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    });
    poll_fn(|cx| {
        if uploading && upload.as_mut().poll(cx).is_ready() {
            uploading = false;
        }
        replied.as_mut().poll(cx)
    })
    .await;
}

async fn reply(
    far: &Pipe,
    method: Method,
    grpc: bool,
    respond: &mut h2::server::SendResponse<Bytes>,
) -> Result<(), ()> {
    let (limits, mut head) =
        (HeadLimits { bytes: 1 << 20, ..HeadLimits::default() }, ResponseHead::default());
    let mut reading = Reading::new(far);
    loop {
        match parse_response(&reading.bytes, &limits, method, &mut head).map_err(drop)? {
            Progress::Complete if head.status >= 200 => break,
            Progress::Complete => {
                let mut hint = Response::new(());
                *hint.status_mut() = http::StatusCode::from_u16(head.status).map_err(drop)?;
                if head.status != 101 {
                    let _ = respond.send_informational(hint);
                }
                reading.bytes.drain(..head.len);
            }
            Progress::Partial => {
                let gone = &mut *respond;
                let mut more = pin!(reading.more());
                // A client that resets its stream while it waits ends everything that was done for it.
                let read = poll_fn(|cx| match gone.poll_reset(cx) {
                    Poll::Ready(_) => Poll::Ready(false),
                    Poll::Pending => more.as_mut().poll(cx),
                })
                .await;
                if !read {
                    return Err(());
                }
            }
        }
    }
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(head.status).map_err(drop)?;
    let own_error = head.has(Kind::IsobarError) && head.status != 200;
    for line in &head.lines {
        if line.kind.is_hop_by_hop()
            || (grpc && own_error && matches!(line.kind, Kind::ContentLength | Kind::ContentType))
        {
            continue;
        }
        let name = HeaderName::from_bytes(line.name.get(&reading.bytes));
        let value = HeaderValue::from_bytes(line.value.get(&reading.bytes));
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    if grpc && own_error {
        // Our own refusals, in the words gRPC has for them.
        let message = response.headers().get("x-isobar-error").cloned();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(grpc_status(head.status)));
        if let Some(message) = message {
            headers.insert("grpc-message", message);
        }
        *response.status_mut() = http::StatusCode::OK;
        return respond.send_response(response, true).map(drop).map_err(drop);
    }
    let framing = head.framing;
    reading.bytes.drain(..head.len);
    let empty = framing == Framing::None
        || matches!(BodyReader::new(framing).step(&reading.bytes), Ok(step) if step.done && step.data.is_empty() && step.trailer.is_empty());
    let mut stream = respond.send_response(response, empty).map_err(drop)?;
    if empty {
        return Ok(());
    }
    let mut sending = pin!(reading.body_to(framing, &mut stream));
    sending.as_mut().await
}

/// The code that stands for a status where no gRPC answer came (gRPC over HTTP/2, "HTTP to gRPC status").
fn grpc_status(status: u16) -> u16 {
    match status {
        400 | 431 | 413 | 414 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

/// HTTP/2 connections to one instance.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: RefCell<Vec<Session>>,
    connecting: Cell<bool>,
    connected: tokio::sync::Notify,
}

#[derive(Debug)]
struct Session {
    send: h2::client::SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
    active: Rc<Cell<u32>>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.open.borrow_mut().retain(|session| !session.closed.get());
        self.open.borrow().len()
    }

    /// A pipe whose other end becomes a stream of a connection with room for it; a connection is made if none has.
    pub(crate) async fn open<F, E>(&self, streams_max: usize, connect: impl Fn() -> F) -> Result<Socket, E>
    where
        F: Future<Output = Result<Socket, E>>,
    {
        loop {
            if let Some(socket) = self.try_open(streams_max) {
                return Ok(socket);
            }
            if self.connecting.get() {
                // One is on its way; a hundred callers need one connection and not a hundred.
                self.connected.notified().await;
                continue;
            }
            self.connecting.set(true);
            let guard = Connecting(self);
            let socket = connect().await?;
            let io = Io { socket, before: Vec::new(), at: 0 };
            let mut builder = h2::client::Builder::new();
            builder
                .initial_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_send_buffer_size(256 << 10)
                .max_concurrent_reset_streams(64)
                .max_header_list_size(64 << 10)
                .enable_push(false)
                .data_frame_budget(SMALL_FRAMES);
            let Ok((send, connection)) = builder.handshake::<_, Bytes>(io).await else {
                // Not HTTP/2 after all: the stream fails like any connection that breaks before an answer.
                let (near, far) = pipe();
                far.fail(Outcome::ConnectFailed);
                return Ok(Socket::Pipe(near));
            };
            let closed = Rc::new(Cell::new(false));
            let mark = closed.clone();
            tokio::task::spawn_local(async move {
                let _ = connection.await;
                mark.set(true);
            });
            self.open.borrow_mut().push(Session { send, closed, active: Rc::default() });
            drop(guard);
        }
    }

    fn try_open(&self, streams_max: usize) -> Option<Socket> {
        let mut open = self.open.borrow_mut();
        open.retain(|session| !session.closed.get());
        let room = |session: &&Session| {
            (session.active.get() as usize) < session.send.current_max_send_streams().min(streams_max)
        };
        let session = open.iter().find(room)?;
        session.active.set(session.active.get() + 1);
        let (near, far) = pipe();
        let guard = Guard(session.active.clone());
        let send = session.send.clone();
        tokio::task::spawn_local(async move {
            let _guard = guard;
            ask(far, send).await;
        });
        Some(Socket::Pipe(near))
    }
}

struct Connecting<'s>(&'s Sessions);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

/// What a broken stream means for whoever might try again.
fn outcome_of(error: &h2::Error) -> Outcome {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Outcome::Refused,
        // A connection that is going away says which streams it did not look at, by not counting them.
        Some(Reason::NO_ERROR) if error.is_go_away() => Outcome::Refused,
        _ => Outcome::Reset,
    }
}

/// The far end of an instance's pipe: turns the request into a stream and writes its reply into the pipe.
async fn ask(far: Pipe, send: h2::client::SendRequest<Bytes>) {
    let mut reading = Reading::new(&far);
    let mut head = RequestHead::default();
    let limits = HeadLimits { bytes: 1 << 20, target_bytes: 1 << 20, headers: crate::http1::HEADERS_MAX };
    loop {
        match parse_request(&reading.bytes, &limits, &mut head) {
            Ok(Progress::Complete) => break,
            Ok(Progress::Partial) if reading.more().await => {}
            _ => return,
        }
    }
    let Some(request) = stream_head(&head, &reading.bytes) else { return far.fail(Outcome::Reset) };
    let grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let ready = send.ready().await;
    let Ok(mut send) = ready else { return far.fail(Outcome::NeverSent) };
    let framing = head.framing;
    reading.bytes.drain(..head.len);
    let (response, mut stream) = match send.send_request(request, framing == Framing::None) {
        Ok(sent) => sent,
        Err(_) => return far.fail(Outcome::NeverSent),
    };
    drop(send);
    let mut upload = pin!(async {
        if framing != Framing::None && reading.body_to(framing, &mut stream).await.is_err() {
            stream.send_reset(Reason::CANCEL);
        }
    });
    let mut uploading = true;
    let mut download = pin!(receive(&far, response, head.method, grpc));
    poll_fn(|cx| {
        if uploading && upload.as_mut().poll(cx).is_ready() {
            uploading = false;
        }
        if download.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Nobody waits for the reply any more: dropping the stream tells the instance so.
        far.poll_abandoned(cx)
    })
    .await;
}

fn stream_head(head: &RequestHead, buffer: &[u8]) -> Option<Request<()>> {
    let authority = std::str::from_utf8(head.host.get(buffer)).ok()?;
    let target = std::str::from_utf8(head.target.get(buffer)).ok()?;
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(target).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method_text.get(buffer)).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    for line in &head.lines {
        if line.kind.is_hop_by_hop() || line.kind == Kind::Host {
            continue;
        }
        let name = HeaderName::from_bytes(line.name.get(buffer)).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line.value.get(buffer)).ok()?);
    }
    if head.accepts_trailers {
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    }
    Some(request)
}

/// Writes a stream's reply into the pipe as HTTP/1.
async fn receive(far: &Pipe, response: h2::client::ResponseFuture, method: Method, grpc: bool) {
    let response = match response.await {
        Ok(response) => response,
        Err(error) => return far.fail(outcome_of(&error)),
    };
    let (parts, mut body) = response.into_parts();
    let mut out = take_spare();
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(parts.status.as_u16()), &mut out);
    out.push(b' ');
    out.extend_from_slice(reason(parts.status.as_u16()).as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut length = false;
    for (name, value) in &parts.headers {
        let kind = classify(name.as_str().as_bytes());
        if !kind.is_hop_by_hop() {
            length |= kind == Kind::ContentLength;
            write_line(&mut out, name.as_str(), value.as_bytes());
        }
    }
    let bodiless = method == Method::Head || matches!(parts.status.as_u16(), 204 | 304);
    // A gRPC error often is a head and a status with nothing between. If the status is right behind, both become one
    // head, so that it can be judged before anything is sent on.
    let mut first = None;
    if grpc && !body.is_end_stream() && !parts.headers.contains_key("grpc-status") {
        first = tokio::time::timeout(STATUS_WAIT, poll_fn(|cx| body.poll_data(cx))).await.ok();
        if matches!(first, Some(None))
            && let Ok(Some(trailers)) = poll_fn(|cx| body.poll_trailers(cx)).await
        {
            trailers.iter().for_each(|(name, value)| write_line(&mut out, name.as_str(), value.as_bytes()));
        }
    }
    let ended = body.is_end_stream() || matches!(first, Some(None));
    if bodiless || (ended && length) {
        out.extend_from_slice(b"\r\n");
    } else if ended {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    } else if length {
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    }
    let chunked = !length;
    if let Some(Some(Ok(data))) = &first {
        if chunked {
            write_chunk(&mut out, data);
        } else {
            out.extend_from_slice(data);
        }
        let _ = body.flow_control().release_capacity(data.len());
    }
    if let Some(Some(Err(error))) = &first {
        return far.fail(outcome_of(error));
    }
    let written = write_all(far, &out).await;
    put_spare(out);
    if written.is_err() {
        return;
    }
    if !ended && !bodiless && body_to_pipe(body, far, chunked).await.is_err() {
        return far.fail(Outcome::Reset);
    }
    far.end();
}
