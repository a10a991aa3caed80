//! HTTP/2 from stream to stream, and clients that mean no good: hand-made frames in, and what comes back.

use crate::support::{answering, config, counter, eventually, ok, start, with_edge};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use proxy::Proxy;
use proxy::config::{Config, Protocol, Service};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A literal field that is not indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, name.len() as u8];
    out.extend_from_slice(name.as_bytes());
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
    out
}

/// `GET / http test` and more.
pub fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    block.extend(field(":authority", "test"));
    more.iter().for_each(|(name, value)| block.extend(field(name, value)));
    block
}

/// A client that writes frames by hand.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn new(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a time-out");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("sent");
        Self(stream)
    }

    /// The proxy may hang up in the middle of it.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// What the proxy says about this stream or the connection first: `end 1 status`, `reset 1 code`, `goaway code`, or
    /// `closed`.
    fn verdict(&mut self) -> String {
        let mut status = String::new();
        loop {
            let Some((kind, flags, stream, payload)) = self.read() else { return "closed".into() };
            let code =
                |from: usize| u32::from_be_bytes(payload[from..from + 4].try_into().expect("four bytes"));
            match kind {
                RST_STREAM => return format!("reset {stream} {}", code(0)),
                GOAWAY => return format!("goaway {}", code(4)),
                HEADERS => {
                    status = match payload.iter().find(|byte| **byte != 0x20) {
                        Some(0x88) => "200".into(),
                        // `:status`, not indexed, three digits.
                        Some(0x08) => {
                            let at = payload.iter().position(|byte| *byte == 0x08).expect("found") + 2;
                            String::from_utf8_lossy(&payload[at..at + 3]).into_owned()
                        }
                        Some(0x8c) => "400".into(),
                        other => format!("{other:?}"),
                    };
                }
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return format!("end {stream} {status}");
            }
        }
    }
}

pub fn http2(upstream: SocketAddr) -> Config {
    let mut config = config(&[upstream]);
    let mut service = Service::http1("api", &[upstream]);
    service.protocol = Protocol::Http2;
    config.services = vec![Arc::new(service)];
    config
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(crate::support::PATIENCE, future).await.expect("in time") })
}

pub type Asked = (Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

/// An upstream of HTTP/2: `serve` gets each stream with the number of its connection.
pub fn upstream<F>(streams: u32, serve: impl Fn(usize, Asked) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("settable");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let serve = std::rc::Rc::new(serve);
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let (serve, of) = (serve.clone(), number);
                number += 1;
                tokio::task::spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    let handshake = builder.max_concurrent_streams(streams).handshake::<_, Bytes>(stream);
                    let Ok(mut connection) = handshake.await else { return };
                    while let Some(Ok(asked)) = connection.accept().await {
                        if asked.0.uri().path() == "/go-away" {
                            connection.graceful_shutdown();
                        }
                        tokio::task::spawn_local(serve(of, asked));
                    }
                });
            }
        });
    });
    address
}

pub async fn read(mut body: h2::RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok((all, body.trailers().await?))
}

/// Sends data as there is room. False if the stream ended meanwhile.
pub async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        let piece = data.split_to(room.min(data.len()));
        if stream.send_data(piece, end && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}

pub async fn client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

pub async fn ask(sender: &h2::client::SendRequest<Bytes>, path: &str) -> Result<(u16, String), h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, _) = sender.send_request(request("GET", path, &[]), true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    Ok((status, String::from_utf8_lossy(&read(response.into_body()).await?.0).into_owned()))
}

fn reply(body: impl Into<Bytes>) -> impl FnOnce(h2::server::SendResponse<Bytes>) {
    let body = body.into();
    move |mut respond| {
        if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
            let _ = stream.send_data(body, true);
        }
    }
}

fn is_quiet(proxy: &Proxy) {
    eventually("no request is left", || counter(proxy, "isobar_proxy_requests_in_flight") == 0);
}

#[test]
fn frames_that_break_a_rule_end_the_stream_or_the_connection() {
    let h1 = answering(|_| ok("fine"));
    let (proxy, address) = start(config(&[h1]));
    let check = |what: &str, bytes: Vec<u8>, expected: &str| {
        let mut raw = Raw::new(address);
        raw.send(&bytes);
        assert_eq!(raw.verdict(), expected, "{what}");
    };
    let open = |stream, more: &[(&str, &str)]| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(more));
    let post = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &get(more));
    check("a request", open(1, &[]), "end 1 200");
    check(
        "in two pieces",
        [frame(HEADERS, END_STREAM, 1, &get(&[])[..5]), frame(CONTINUATION, END_HEADERS, 1, &get(&[])[5..])]
            .concat(),
        "end 1 200",
    );
    check(
        "with padding",
        frame(HEADERS, END_STREAM | END_HEADERS | 8, 1, &[&[2][..], &get(&[]), &[0, 0]].concat()),
        "end 1 200",
    );
    check("capitals", open(1, &[("Name", "x")]), "reset 1 1");
    check("a connection's header", open(1, &[("connection", "close")]), "reset 1 1");
    check("a coding", open(1, &[("transfer-encoding", "chunked")]), "reset 1 1");
    check("a line end", open(1, &[("x", "a\r\nhost: other")]), "reset 1 1");
    check("another host", open(1, &[("host", "other")]), "reset 1 1");
    check("a length and no body", open(1, &[("content-length", "5")]), "reset 1 1");
    check(
        "dots",
        frame(
            HEADERS,
            5,
            1,
            &[&[0x82, 0x86][..], &field(":path", "/a/../b"), &field(":authority", "t")].concat(),
        ),
        "end 1 400",
    );
    check("no path", frame(HEADERS, 5, 1, &[0x82, 0x86]), "reset 1 1");
    check(
        "less body than announced",
        [post(&[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"abc")].concat(),
        "reset 1 1",
    );
    check(
        "more body than announced",
        [post(&[("content-length", "2")]), frame(DATA, END_STREAM, 1, b"abc")].concat(),
        "reset 1 1",
    );
    check("a trailer that goes on", [post(&[]), post(&[])].concat(), "reset 1 1");
    check("an even stream", open(2, &[]), "goaway 1");
    check("stream zero", open(0, &[]), "goaway 1");
    check("data nobody opened", frame(DATA, 0, 5, b"x"), "goaway 1");
    check("a reset nobody opened", frame(RST_STREAM, 0, 5, &[0; 4]), "goaway 1");
    check("a priority of nobody's", frame(2, 0, 0, &[0; 5]), "goaway 1");
    check("a short priority", frame(2, 0, 1, &[0; 4]), "goaway 6");
    check("a goodbye on a stream", frame(GOAWAY, 0, 1, &[0; 8]), "goaway 1");
    check("a stream left out", [open(5, &[]), open(3, &[])].concat(), "goaway 1");
    check("data for a stream left out", [open(5, &[]), frame(DATA, 0, 3, b"x")].concat(), "goaway 1");
    check("no step", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), "goaway 1");
    check("too wide a window", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), "goaway 3");
    check("too large a frame", frame(DATA, 0, 1, &vec![0; 16_385]), "goaway 6");
    check("a short ping", frame(PING, 0, 0, &[0; 7]), "goaway 6");
    check("a pushed stream", frame(PUSH_PROMISE, 4, 1, &[0; 4]), "goaway 1");
    check("settings in pieces", frame(SETTINGS, 0, 0, &[0; 5]), "goaway 6");
    check(
        "a head cut by another frame",
        [frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
        "goaway 1",
    );
    check("a head that goes on alone", frame(CONTINUATION, 4, 1, &[0x82]), "goaway 1");
    check("no header compression", frame(HEADERS, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]), "goaway 9");
    let mut raw = TcpStream::connect(address).expect("open");
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
    raw.write_all(&frame(PING, 0, 0, &[0; 8])).expect("sent");
    assert_eq!(Raw(raw).verdict(), "goaway 1", "settings come first");
    is_quiet(&proxy);
    assert_eq!(block_on(async { ask(&client(address).await, "/").await.expect("answered") }).0, 200);
}

#[test]
fn floods_are_ended_and_counted() {
    let (proxy, address) = start(config(&[answering(|_| ok("fine"))]));
    let open = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(&[]));
    let many = |count: u32, one: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(one).collect::<Vec<u8>>();
    let floods: [(&str, Vec<u8>); 6] = [
        (
            "resets",
            many(3_000, &|n| [open(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()),
        ),
        ("pings", many(3_000, &|_| frame(PING, 0, 0, &[0; 8]))),
        ("settings", many(3_000, &|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))),
        (
            "empty bodies",
            [frame(HEADERS, END_HEADERS, 1, &get(&[])), many(3_000, &|_| frame(DATA, 0, 1, &[]))].concat(),
        ),
        (
            "pieces of a head",
            [frame(HEADERS, 0, 1, &[]), many(100, &|_| frame(CONTINUATION, 0, 1, &[]))].concat(),
        ),
        (
            "a head without end",
            [frame(HEADERS, 0, 1, &[]), many(20, &|_| frame(CONTINUATION, 0, 1, &[0x82; 16_000]))].concat(),
        ),
    ];
    for (at, (what, bytes)) in floods.iter().enumerate() {
        let mut raw = Raw::new(address);
        raw.send(bytes);
        let verdict = loop {
            match raw.verdict() {
                other if other.starts_with("end") || other.starts_with("reset") => {}
                verdict => break verdict,
            }
        };
        assert!(verdict == "goaway 11" || verdict == "closed", "{what}: {verdict}");
        eventually(what, || counter(&proxy, "isobar_proxy_h2_calmed_total") == at as u64 + 1);
        is_quiet(&proxy);
    }
    // One field of four thousand bytes, filed once and named a thousand times: four megabytes in a thousand bytes.
    let mut block = get(&[]);
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1d]);
    block.extend_from_slice(&[b'y'; 3_872]);
    block.extend_from_slice(&[0xbe; 1_000]);
    let mut raw = Raw::new(address);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    assert_eq!(raw.verdict(), "end 1 431");
    raw.send(&open(3));
    assert_eq!(raw.verdict(), "end 3 200", "its connection goes on");
    is_quiet(&proxy);
}

#[test]
fn streams_beyond_the_limit_are_refused_and_the_rest_served() {
    let stuck = upstream(1_000, |_, (request, respond)| async move {
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        reply("fine")(respond);
    });
    let mut config = http2(stuck);
    config.limits.streams_per_connection = 5;
    let (proxy, address) = start(config);
    let mut raw = Raw::new(address);
    let wait = |stream| {
        let block = [&[0x82, 0x86][..], &field(":path", "/wait"), &field(":authority", "t")].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    };
    (0..7).for_each(|n| raw.send(&wait(2 * n + 1)));
    assert_eq!((raw.verdict(), raw.verdict()), ("reset 11 7".into(), "reset 13 7".into()));
    eventually("both are counted", || counter(&proxy, "isobar_proxy_h2_streams_refused_total") == 2);
    raw.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    eventually("one is let go", || counter(&proxy, "isobar_proxy_requests_in_flight") == 4);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 15, &get(&[])));
    assert_eq!(raw.verdict(), "end 15 200");
    drop(raw);
    is_quiet(&proxy);
}

#[test]
fn bodies_go_both_ways_whole_and_more_connections_are_made_when_streams_run_out() {
    let seen = Arc::new(AtomicU64::new(0));
    let most = seen.clone();
    let address = upstream(3, move |connection, (request, mut respond)| {
        most.fetch_max(connection as u64 + 1, SeqCst);
        async move {
            let (body, trailers) = read(request.into_body()).await.expect("whole");
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            send(&mut stream, Bytes::from(body), false).await;
            stream.send_trailers(trailers.unwrap_or_default()).expect("sent");
        }
    });
    let (proxy, address) = start(http2(address));
    block_on(async {
        let sender = client(address).await;
        let calls: Vec<_> = [0usize, 1, 100, 16_384, 65_536, 300_000, 2_000_000, 5_000_000, 7, 70_000]
            .into_iter()
            .map(|size| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let body: Bytes = (0..size).map(|at| (at * 7 + size) as u8).collect::<Vec<u8>>().into();
                    let mut sender = sender.ready().await.expect("a stream");
                    let (response, mut stream) =
                        sender.send_request(request("POST", "/", &[]), false).expect("sent");
                    let sending = async {
                        assert!(send(&mut stream, body.clone(), false).await);
                        let mut trailers = HeaderMap::new();
                        trailers.insert("x-size", size.to_string().parse().expect("a value"));
                        stream.send_trailers(trailers).expect("sent");
                    };
                    let reading = async {
                        let response = response.await.expect("a reply");
                        read(response.into_body()).await.expect("whole")
                    };
                    let ((), (got, trailers)) = tokio::join!(sending, reading);
                    assert!(got == body, "{size}: {} bytes came back", got.len());
                    let said = trailers.expect("a trailer")["x-size"].to_str().expect("text").to_owned();
                    assert_eq!(said, size.to_string());
                })
            })
            .collect();
        for call in calls {
            call.await.expect("it ended well");
        }
    });
    assert!(seen.load(SeqCst) >= 2, "ten streams at once and three on a connection");
    is_quiet(&proxy);
}

#[test]
fn a_slow_reader_stops_a_fast_sender() {
    let sent = Arc::new(AtomicU64::new(0));
    let total = sent.clone();
    let fast = upstream(1_000, move |_, (request, mut respond)| {
        let total = total.clone();
        async move {
            if request.uri().path() == "/short" {
                return reply("short")(respond);
            }
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            while send(&mut stream, Bytes::from_static(&[b'x'; 16_384]), false).await {
                total.fetch_add(16_384, SeqCst);
            }
        }
    });
    let (proxy, address) = start(http2(fast));
    block_on(async {
        let sender = client(address).await;
        let mut slow = sender.clone().ready().await.expect("a stream");
        let (response, _) = slow.send_request(request("GET", "/endless", &[]), true).expect("sent");
        let response = response.await.expect("a head");
        // Its window is full and nothing is taken of it. Others are served meanwhile, on the same connections.
        let other = client(address).await;
        for _ in 0..200 {
            assert_eq!(ask(&other, "/short").await.expect("answered").1, "short");
        }
        let held = sent.load(SeqCst);
        assert!(held < 1 << 20, "{held} bytes were taken for somebody who reads nothing");
        let mut body = response.into_body();
        let mut taken = 0;
        while taken < 4 << 20 {
            let data = body.data().await.expect("more").expect("whole so far");
            taken += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        drop(body);
    });
    // Who leaves is noticed at the other end.
    is_quiet(&proxy);
    let held = sent.load(SeqCst);
    assert!((4 << 20..6 << 20).contains(&held), "{held} bytes for four megabytes read");
}

#[test]
fn resets_and_goodbyes_reach_the_other_side() {
    let cancelled = Arc::new(AtomicU64::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (count, open) = (cancelled.clone(), gate.clone());
    let address = upstream(1_000, move |connection, (request, mut respond)| {
        let (count, open) = (count.clone(), open.clone());
        async move {
            match request.uri().path() {
                "/wait" => {
                    let reason = poll_fn(|cx| respond.poll_reset(cx)).await;
                    assert_eq!(reason.ok(), Some(h2::Reason::CANCEL));
                    count.fetch_add(1, SeqCst);
                }
                "/broken" => {
                    let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                    send(&mut stream, Bytes::from_static(b"some"), false).await;
                    let _seen = open.acquire().await.expect("open");
                    stream.send_reset(h2::Reason::INTERNAL_ERROR);
                }
                "/early" => {
                    // An answer before the whole request: the rest of it is not wanted.
                    reply("early")(respond);
                }
                _ => reply(connection.to_string())(respond),
            }
        }
    });
    let (proxy, address) = start(http2(address));
    block_on(async {
        let sender = client(address).await;
        let mut ready = sender.clone().ready().await.expect("a stream");
        let (response, mut stream) = ready.send_request(request("GET", "/wait", &[]), true).expect("sent");
        assert_eq!(ask(&sender, "/").await.expect("answered").1, "0");
        stream.send_reset(h2::Reason::CANCEL);
        drop((response, stream));
        let mut ready = sender.clone().ready().await.expect("a stream");
        let (response, _) = ready.send_request(request("GET", "/broken", &[]), true).expect("sent");
        let mut body = response.await.expect("a head").into_body();
        assert_eq!(body.data().await.expect("some").expect("whole so far"), "some");
        gate.add_permits(1);
        let broken = body.data().await.expect("an end").expect_err("it was cut short");
        assert!(broken.is_reset(), "{broken}");
        let (response, mut stream) =
            sender.clone().send_request(request("POST", "/early", &[]), false).expect("sent");
        let response = response.await.expect("a reply");
        assert_eq!(read(response.into_body()).await.expect("whole").0, b"early");
        let _ = send(&mut stream, Bytes::from_static(b"late"), true).await;
        // The instance goes away after this one; nobody notices but the next connection.
        assert_eq!(ask(&sender, "/go-away").await.expect("answered").1, "0");
        for _ in 0..20 {
            assert_eq!(ask(&sender, "/").await.expect("answered").0, 200);
        }
        assert_eq!(ask(&sender, "/").await.expect("answered").1, "1");
    });
    eventually("the instance was told", || cancelled.load(SeqCst) == 1);
    is_quiet(&proxy);
}

#[test]
fn what_was_refused_is_sent_again_body_and_all() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let address = upstream(1_000, move |_, (request, mut respond)| {
        let first = count.fetch_add(1, SeqCst).is_multiple_of(2);
        async move {
            if first && request.uri().path() == "/refused" {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            let grpc = request.headers().get("content-type").is_some();
            let (body, _) = read(request.into_body()).await.expect("whole");
            let mut response = Response::new(());
            if grpc {
                response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            }
            let mut stream = respond.send_response(response, false).expect("sent");
            let mut status = HeaderMap::new();
            status.insert("grpc-status", if first { "14" } else { "0" }.parse().expect("a value"));
            if !(grpc && first) {
                send(&mut stream, Bytes::from(body), false).await;
            }
            stream.send_trailers(status).expect("sent");
        }
    });
    let config = with_edge(http2(address), |edge| {
        edge.retry = Some(policy::settings::Retry {
            attempts: 2,
            per_try: None,
            on: policy::settings::RetryOn {
                connect_failure: true,
                reset: true,
                timeout: false,
                unavailable: true,
                server_error: false,
                throttled: false,
            },
            backoff: policy::settings::Backoff {
                base: units::Nanos::from_millis(1),
                max: units::Nanos::from_millis(1),
                jitter: policy::settings::Jitter::None,
            },
            budget: None,
            non_idempotent: true,
        });
    });
    let (proxy, address) = start(config);
    block_on(async {
        let sender = client(address).await;
        for (path, more) in
            [("/refused", &[][..]), ("/status", &[("content-type", "application/grpc"), ("te", "trailers")])]
        {
            let mut ready = sender.clone().ready().await.expect("a stream");
            let (response, mut stream) =
                ready.send_request(request("POST", path, more), false).expect("sent");
            send(&mut stream, Bytes::from_static(b"a body to be sent twice"), true).await;
            let response = response.await.expect("a reply");
            let (body, trailers) = read(response.into_body()).await.expect("whole");
            assert_eq!(body, b"a body to be sent twice", "{path}");
            assert_eq!(trailers.expect("a trailer")["grpc-status"], "0", "{path}");
        }
    });
    assert_eq!(asked.load(SeqCst), 4, "each was asked twice");
    is_quiet(&proxy);
}

#[test]
fn a_grpc_call_is_counted_as_what_its_code_says() {
    // The path says where the code stands (in the head, right behind it, after a long body) and which it is.
    let address = upstream(1_000, move |_, (request, mut respond)| async move {
        let (place, code) = request.uri().path()[1..].split_once('/').expect("two parts");
        let mut status = HeaderMap::new();
        status.insert("grpc-status", code.parse().expect("a value"));
        let mut response = Response::new(());
        if place == "head" {
            *response.headers_mut() = status.clone();
        }
        response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        let mut stream = respond.send_response(response, place == "head").expect("sent");
        if place == "late" {
            send(&mut stream, Bytes::from(vec![0; 300_000]), false).await;
        }
        if place != "head" {
            stream.send_trailers(status).expect("sent");
        }
    });
    let (proxy, address) = start(with_edge(http2(address), |edge| edge.retry = None));
    let events = proxy.events(64);
    block_on(async {
        let sender = client(address).await;
        for (path, status) in [
            ("/head/0", 200),
            ("/head/14", 503),
            ("/soon/0", 200),
            ("/soon/5", 404),
            ("/soon/13", 500),
            ("/late/0", 200),
            ("/late/4", 504),
            ("/late/14", 503),
        ] {
            let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
            let mut ready = sender.clone().ready().await.expect("a stream");
            let (response, _) = ready.send_request(request("POST", path, &grpc), true).expect("sent");
            let response = response.await.expect("a reply");
            assert_eq!(response.status().as_u16(), 200, "{path}");
            read(response.into_body()).await.expect("whole");
            let event = events.recv_timeout(crate::support::PATIENCE).expect("it is told");
            let code = path.rsplit('/').next().and_then(|it| it.parse().ok());
            assert_eq!((event.status, event.grpc), (status, code), "{path}");
        }
    });
    is_quiet(&proxy);
}

#[test]
fn our_own_refusals_are_said_in_the_callers_words() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let (proxy, address) = start(http2(gone));
    block_on(async {
        let sender = client(address).await;
        let (status, body) = ask(&sender, "/").await.expect("answered");
        assert!(status == 503 && body.contains("connect-failed"), "{status} {body}");
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let mut ready = sender.clone().ready().await.expect("a stream");
        let (response, _) = ready.send_request(request("POST", "/a/b", &grpc), true).expect("sent");
        let response = response.await.expect("a reply");
        let said = |name: &str| {
            response.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or("").to_owned()
        };
        assert_eq!((response.status().as_u16(), said("grpc-status")), (200, "14".into()));
        assert!(said("grpc-message").contains("edge->api"), "{}", said("grpc-message"));
    });
    is_quiet(&proxy);
}

#[test]
fn a_drain_lets_streams_end_and_says_goodbye() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = gate.clone();
    let address = upstream(1_000, move |_, (_, respond)| {
        let open = open.clone();
        async move {
            let _turn = open.acquire().await.expect("open");
            reply("done")(respond);
        }
    });
    let (proxy, address) = start(http2(address));
    let (sender, pending) = std::sync::mpsc::sync_channel(10);
    let calling = std::thread::spawn(move || {
        block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
            let (send, connection) = h2::client::handshake::<_>(stream).await.expect("HTTP/2");
            let ended = tokio::spawn(connection);
            let mut ready = send.ready().await.expect("a stream");
            let (response, _) = ready.send_request(request("GET", "/", &[]), true).expect("sent");
            sender.send(()).expect("somebody waits");
            let response = response.await.expect("a reply");
            assert_eq!(read(response.into_body()).await.expect("whole").0, b"done");
            drop(ready);
            // Ended by the proxy, in good order.
            ended.await.expect("it ran").expect("no error");
        });
    });
    pending.recv().expect("it is on its way");
    eventually("it arrived", || counter(&proxy, "isobar_proxy_requests_in_flight") == 1);
    proxy.drain();
    gate.add_permits(1);
    calling.join().expect("its call ended well");
    eventually("all workers ended", || proxy.is_drained());
}

/// An answer that comes before the request is whole is not followed by a reset while the rest may still come.
#[test]
fn an_early_answer_waits_for_the_end_of_its_request() {
    let early = || {
        crate::support::upstream(|_, mut stream| {
            let mut left = Vec::new();
            while crate::support::read_message(&mut stream, &mut left, false).is_some() {
                if stream.write_all(&ok("early")).is_err() {
                    return;
                }
            }
        })
    };
    let early_streams = upstream(100, |_, (_request, respond)| async move { reply("early")(respond) });
    for config in [config(&[early()]), http2(early_streams)] {
        let (proxy, address) = start(config);
        let mut raw = Raw::new(address);
        raw.send(&frame(HEADERS, END_HEADERS, 1, &get(&[("content-length", "3")])));
        assert_eq!(raw.verdict(), "end 1 200");
        raw.send(&frame(DATA, END_STREAM, 1, b"abc"));
        // What follows on the stream would be seen before the answer to this.
        raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &get(&[])));
        assert_eq!(raw.verdict(), "end 3 200");
        // One that never ends is reset in the end, without blame.
        raw.send(&frame(HEADERS, END_HEADERS, 5, &get(&[("content-length", "3")])));
        assert_eq!(raw.verdict(), "end 5 200");
        assert_eq!(raw.verdict(), "reset 5 0");
        is_quiet(&proxy);
    }
}
