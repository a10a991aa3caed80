//! Our reading of HTTP/1 beside those of others: hyper's in this process, HAProxy's and nginx's as they are installed.
//!
//! Thousands of odd inputs are made from a seed: good requests, requests with one thing wrong, and either with a byte
//! changed, left out or put in. Two readers of one connection that disagree about where a message ends are how requests
//! are smuggled, so the law is: **what we take, the other takes in the same way**: the same method, target and body, in
//! the same order. Refusing what another takes is fine, and the reason to be strict. The few places where we take what
//! another refuses are in [`allowed`], each with its reason.

use crate::peers::{Peer, nginx, peer};
use crate::support::{answering, ok};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proxy::http1::{BodyReader, HeadLimits, Kind, Progress, RequestHead, parse_request};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use units::{Purpose, Rng};

/// One message as a reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read1 {
    method: String,
    /// Path and query; of an absolute target, too.
    target: String,
    body: Vec<u8>,
}

/// What was taken, in order, and how it ended: `refused`, or `more` where the end is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reading {
    taken: Vec<Read1>,
    refused: bool,
}

fn ours(bytes: &[u8]) -> Reading {
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    let mut reading = Reading::default();
    let mut rest = bytes;
    loop {
        // As a connection does: one empty line is forgiven before a request.
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        if rest.is_empty() {
            return reading;
        }
        match parse_request(rest, &limits, &mut head) {
            Ok(Progress::Complete) => {}
            Ok(Progress::Partial) => return reading,
            Err(_) => return Reading { refused: true, ..reading },
        }
        let text = |span: proxy::http1::Span| String::from_utf8_lossy(span.get(rest)).into_owned();
        let (method, target) = (text(head.method_text), text(head.target));
        let mut body = Vec::new();
        let mut reader = BodyReader::new(head.framing);
        let mut at = head.len;
        while !reader.is_done() {
            let Ok(step) = reader.step(&rest[at..]) else {
                return Reading { refused: true, ..reading };
            };
            body.extend_from_slice(&rest[at..][step.data.clone()]);
            at += step.consumed;
            if step.consumed == 0 && !reader.is_done() {
                return reading;
            }
        }
        reading.taken.push(Read1 { method, target, body });
        if !head.keep_alive || head.upgrade {
            return reading;
        }
        rest = &rest[at..];
    }
}

/// hyper's server over a pipe in memory. A request counts once its body is whole.
async fn hypers(bytes: &[u8]) -> Reading {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let seen = taken.clone();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let (method, target) = (
                request.method().to_string(),
                request.uri().path_and_query().map_or_else(String::new, |it| it.as_str().to_owned()),
            );
            let body = request.into_body().collect().await?.to_bytes().to_vec();
            seen.lock().expect("one at a time").push(Read1 { method, target, body });
            Ok::<_, hyper::Error>(http::Response::new(Full::<bytes::Bytes>::default()))
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(far), service);
    let (result, answers) = tokio::join!(serving, async {
        near.write_all(bytes).await.expect("a pipe that is read");
        near.shutdown().await.expect("open");
        let mut answers = Vec::new();
        let _ = near.read_to_end(&mut answers).await;
        answers
    });
    let refused = result.is_err() || answers.windows(12).any(|it| it == b"HTTP/1.1 400");
    let taken = std::mem::take(&mut *taken.lock().expect("one at a time"));
    Reading { taken, refused }
}

/// HAProxy with somebody behind it: what it answers by itself it does not read to the end.
fn haproxy() -> Option<Peer> {
    let behind = answering(|_| ok("fine"));
    let file = |address: SocketAddr, _: &std::path::Path| {
        format!(
            "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
             frontend f\n bind {address}\n default_backend b\nbackend b\n server s {behind}\n"
        )
    };
    peer("haproxy", file, &["-db", "-f", "conf"])
}

/// How many requests an installed peer answers with 200, looking until it hangs up or has nothing more to say.
fn peers(address: SocketAddr, bytes: &[u8], patience: std::time::Duration) -> usize {
    let mut stream = TcpStream::connect(address).expect("the peer listens");
    stream.set_read_timeout(Some(patience)).expect("settable");
    let _ = stream.write_all(bytes);
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    answers.windows(12).filter(|it| *it == b"HTTP/1.1 200").count()
}

/// Inputs from a seed, the same on every machine.
struct Odd {
    rng: Rng,
}

const METHODS: &[&str] = &[
    "GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "get", "G@T", "", "GET ",
    "POST\t",
];
const TARGETS: &[&str] = &[
    "/",
    "/",
    "/",
    "/a/b?c=d",
    "/a%00b",
    "/a//b",
    "/a b",
    "/a\tb",
    "/a#b",
    "http://b/x",
    "http://b",
    "*",
    "a",
    "",
    "/\u{7f}",
    "/a\\b",
    "/?",
    "//a",
    "/%2e%2e/",
    "https://b:1/x?y",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1",
    "HTTP/01.1",
    "",
];
const HOSTS: &[&str] = &[
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "host:a\r\n",
    "",
    "Host: a\r\nHost: b\r\n",
    "Host: a, b\r\n",
    "Host : a\r\n",
    "Host: a@b\r\n",
];
const LINES: &[&str] = &[
    "X: y\r\n",
    "X:\r\n",
    "X: \t y \t\r\n",
    "X : y\r\n",
    " X: y\r\n",
    "X: a\r\n b\r\n",
    "X: a\r\n\tb\r\n",
    "X: a\0b\r\n",
    "X: a\rb\r\n",
    "X: a\nY: b\r\n",
    "X\r\n",
    ": x\r\n",
    "X y: z\r\n",
    "X(): y\r\n",
    "X: \u{e9}\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: x, close\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "TE: trailers\r\n",
    "Trailer: x\r\n",
    "Content-Type: a/b\r\n",
    "Upgrade: x\r\n",
    "Keep-Alive: timeout=5\r\n",
];
const LENGTHS: &[&str] = &[
    "Content-Length: {}\r\n",
    "Content-Length: {}\r\n",
    "Content-Length: {}\r\n",
    "content-length:{}\r\n",
    "Content-Length: 0{}\r\n",
    "Content-Length: +{}\r\n",
    "Content-Length: -{}\r\n",
    "Content-Length: {}, {}\r\n",
    "Content-Length: {}\r\nContent-Length: {}\r\n",
    "Content-Length: {}\r\nContent-Length: 1{}\r\n",
    "Content-Length : {}\r\n",
    "Content-Length: {} \r\n",
    "Content-Length: 0x{}\r\n",
    "Content-Length: {};\r\n",
    "Content-Length: \r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: {}\r\n",
    "Content\u{2d}Length: {}.0\r\n",
];
const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:chunked\r\n",
    "Transfer-Encoding: CHUNKED\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding:\tchunked\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
];
const CHUNKS: &[&str] = &[
    "3\r\nabc\r\n",
    "3\r\nabc\r\n",
    "3\r\nabc\r\n",
    "0003\r\nabc\r\n",
    "3;x=y\r\nabc\r\n",
    "3 ;x\r\nabc\r\n",
    "3 \r\nabc\r\n",
    " 3\r\nabc\r\n",
    "3\nabc\r\n",
    "3\r\nabc\n",
    "3\r\nabcd\r\n",
    "3\r\nab\r\n",
    "0x3\r\nabc\r\n",
    "+3\r\nabc\r\n",
    "-3\r\nabc\r\n",
    "A\r\n0123456789\r\n",
    "a\r\n0123456789\r\n",
    "G\r\nabc\r\n",
    "\r\n",
    "FFFFFFFFFFFFFFFFF\r\nabc\r\n",
    "3;x=\"\r\n\"\r\nabc\r\n",
    "3;\r\nabc\r\n",
    "3\r\r\nabc\r\n",
];
const ENDS: &[&str] = &[
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "00\r\n\r\n",
    "0\r\nx: y\r\n\r\n",
    "0;a\r\n\r\n",
    "0\n\n",
    "0\r\n\n",
    "0\r\nContent-Length: 3\r\n\r\n",
    "0\r\nx\r\n\r\n",
    "0\r\n x: y\r\n\r\n",
    "",
    "0\r\n",
    "0\r\nx: y\r\n",
];

impl Odd {
    fn new(number: u64) -> Self {
        Self { rng: Rng::stream(0x15_0BA2, number, Purpose::Sampling) }
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.rng.below(from.len() as u64) as usize]
    }

    fn one(&mut self, out: &mut Vec<u8>) {
        // Most are good but for one place, or nothing about them would ever be seen but the first mistake.
        let wild = self.rng.below(6);
        let of = |it: &mut Self, place: u64, list: &[&'static str]| {
            if place == wild { it.pick(list) } else { list[0] }
        };
        let (method, body) = match self.rng.below(4) {
            0 => ("GET", 0),
            1 => ("POST", 1),
            2 => ("POST", 2),
            _ => ("PUT", 2),
        };
        let method = if wild == 0 { self.pick(METHODS) } else { method };
        let target = of(self, 1, TARGETS);
        let version = of(self, 2, VERSIONS);
        let mut head = format!("{method} {target} {version}\r\n");
        head.push_str(of(self, 3, HOSTS));
        for _ in 0..self.rng.below(3) {
            let line = if wild == 4 { self.pick(LINES) } else { LINES[0] };
            head.push_str(line);
        }
        let mut after = String::new();
        match body {
            1 => {
                let length = self.rng.below(8);
                head.push_str(&of(self, 5, LENGTHS).replace("{}", &length.to_string()));
                after = "abcdefgh"[..length as usize].to_owned();
            }
            2 => {
                head.push_str(of(self, 5, CODINGS));
                for _ in 0..self.rng.below(3) {
                    after.push_str(if self.rng.below(3) == 0 { self.pick(CHUNKS) } else { CHUNKS[0] });
                }
                after.push_str(if self.rng.below(3) == 0 { self.pick(ENDS) } else { ENDS[0] });
            }
            _ => {}
        }
        head.push_str("\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(after.as_bytes());
    }

    /// One or two odd requests and a good one behind them, which is what would be smuggled.
    fn input(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..=self.rng.below(2) {
            self.one(&mut out);
        }
        if self.rng.below(3) == 0 {
            let at = self.rng.below(out.len() as u64) as usize;
            let byte = b"\r\n \t:;,0aZ\0\x0b\x7f\xff"[self.rng.below(14) as usize];
            match self.rng.below(3) {
                0 => out[at] = byte,
                1 => out.insert(at, byte),
                _ => drop(out.remove(at)),
            }
        }
        out.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        out
    }
}

/// Where we may take what another refuses: its name, and why neither can be used to smuggle.
fn allowed(ours: &Read1, bytes: &[u8], other: &str) -> Option<&'static str> {
    let mut head = RequestHead::default();
    let _ = parse_request(bytes, &HeadLimits::default(), &mut head);
    let has = |kind: Kind| head.has(kind);
    match other {
        _ if ours.target.contains('\\') => {
            Some("a backslash is no delimiter to us and is passed on as it is")
        }
        "nginx" if ours.target.contains("%00") => Some("nginx refuses an encoded zero, whatever it serves"),
        "nginx" if head.host.get(bytes).is_empty() && head.minor == 0 => {
            Some("HTTP/1.0 may leave the host out")
        }
        "nginx" if ours.method.bytes().any(|byte| !byte.is_ascii_uppercase()) => {
            Some("a method is any token to us; nginx knows capitals only")
        }
        "nginx" if bytes.windows(2).any(|it| it == b":\t") => {
            Some("a tab before a value is white space (RFC 9110, section 5.6.3); nginx knows spaces only")
        }
        "nginx" if ours.target == "*" => Some("nginx has no answer for the server as a whole"),
        "haproxy" if has(Kind::Expect) => Some("HAProxy answers before the body: the same length is read"),
        _ => None,
    }
}

/// Compares and counts. What the other took must begin with what we took.
fn compare(
    other: &str,
    bytes: &[u8],
    ours: &Reading,
    theirs: &[Read1],
    differences: &mut BTreeMap<&'static str, u32>,
) {
    for (at, mine) in ours.taken.iter().enumerate() {
        if theirs.get(at) == Some(mine) {
            continue;
        }
        if theirs.get(at).is_none()
            && let Some(reason) = allowed(mine, bytes, other)
        {
            *differences.entry(reason).or_default() += 1;
            return;
        }
        panic!(
            "{other} reads another message {at} than we do\n input: {}\n  ours: {ours:?}\ntheirs: {theirs:?}",
            String::from_utf8_lossy(bytes).escape_debug()
        );
    }
}

#[test]
fn hyper_takes_what_we_take_as_we_take_it() {
    const INPUTS: u64 = 6_000;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut differences = BTreeMap::new();
    let (mut taken, mut refused, mut stricter) = (0, 0, 0);
    for number in 0..INPUTS {
        let bytes = Odd::new(number).input();
        let ours = ours(&bytes);
        let theirs = runtime.block_on(hypers(&bytes));
        compare("hyper", &bytes, &ours, &theirs.taken, &mut differences);
        taken += ours.taken.len();
        refused += u64::from(ours.refused);
        stricter += u64::from(ours.refused && theirs.taken.len() > ours.taken.len());
    }
    // A generator whose inputs are all good, or all bad, would compare nothing.
    assert!(
        taken > INPUTS as usize / 2 && refused > INPUTS / 4 && stricter > 0,
        "{taken} {refused} {stricter}"
    );
    eprintln!(
        "hyper: {INPUTS} inputs, {taken} messages taken alike, {refused} refused, {stricter} of them by us alone, {differences:?}"
    );
}

#[test]
fn the_installed_peers_take_what_we_take() {
    const INPUTS: u64 = 400;
    const SHORT: std::time::Duration = std::time::Duration::from_millis(40);
    const LONG: std::time::Duration = std::time::Duration::from_secs(2);
    let mut unexplained = Vec::new();
    for (name, peer) in [("haproxy", haproxy()), ("nginx", nginx())] {
        let Some(peer) = peer else { continue };
        let mut differences = BTreeMap::<_, u32>::new();
        let (mut taken, mut stricter) = (0, 0);
        for number in 0..INPUTS {
            let bytes = Odd::new(1_000_000 + number).input();
            let ours = ours(&bytes);
            // Few wait for more, so a short patience is for them; where it would matter, a long one decides.
            let mut count = peers(peer.address, &bytes, SHORT);
            if count < ours.taken.len() {
                count = peers(peer.address, &bytes, LONG);
            }
            taken += ours.taken.len();
            stricter += u32::from(count > ours.taken.len());
            // Only what they answer with 200 can be told from outside.
            if count < ours.taken.len() {
                match ours.taken.iter().find_map(|mine| allowed(mine, &bytes, name)) {
                    Some(reason) => *differences.entry(reason).or_default() += 1,
                    None => unexplained.push(format!(
                        "{name} takes {count}, we take {ours:?}\n of {}",
                        String::from_utf8_lossy(&bytes).escape_debug()
                    )),
                }
            }
        }
        eprintln!(
            "{name}: {INPUTS} inputs, {taken} messages taken, {stricter} read by us more strictly, {differences:?}"
        );
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n\n"));
}
