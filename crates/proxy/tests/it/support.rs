//! A scripted upstream, a plain client and a proxy between them. Blocking sockets in threads: what a test sends is
//! exactly what goes out, byte for byte. Every read has a time limit, so a hang is a failure and not a hang.

use policy::settings::EdgeSettings;
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use proxy::{Options, Proxy};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `serve` with each connection and its number, each in a thread of its own.
pub fn upstream(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.set_nodelay(true);
            let serve = serve.clone();
            std::thread::spawn(move || serve(number, stream));
        }
    });
    address
}

/// Answers every request with what `reply` makes of its head and body.
pub fn answering(reply: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    upstream(move |_, mut stream| {
        let mut left = Vec::new();
        while let Some(message) = read_message(&mut stream, &mut left, true) {
            if stream.write_all(&reply(&message)).is_err() {
                return;
            }
        }
    })
}

pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A message as it was read: the first line, the header lines, and the body without its framing.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub first: String,
    pub lines: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailer: Vec<u8>,
    /// The connection ended before the message did.
    pub cut_short: bool,
}

impl Message {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads one message. `left` holds what was read beyond it. `None` if the connection ended before its first byte.
pub fn read_message(stream: &mut TcpStream, left: &mut Vec<u8>, with_body: bool) -> Option<Message> {
    let mut more = |left: &mut Vec<u8>| {
        let mut piece = [0; 64 << 10];
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => {
                left.extend_from_slice(&piece[..read]);
                true
            }
            _ => false,
        }
    };
    let head = loop {
        if let Some(at) = left.windows(4).position(|end| end == b"\r\n\r\n") {
            break left.drain(..at + 4).collect::<Vec<u8>>();
        }
        if !more(left) {
            return (!left.is_empty()).then(|| Message { cut_short: true, ..Message::default() });
        }
    };
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut rows = text.trim_end().split("\r\n");
    let mut message = Message { first: rows.next().unwrap_or_default().to_owned(), ..Message::default() };
    for row in rows {
        let (name, value) = row.split_once(':').unwrap_or((row, ""));
        message.lines.push((name.to_owned(), value.trim().to_owned()));
    }
    let status = message.status();
    if !with_body || (100..200).contains(&status) || matches!(status, 204 | 304) {
        return Some(message);
    }
    if message.get("transfer-encoding").is_some() {
        loop {
            let Some(at) = left.windows(2).position(|end| end == b"\r\n") else {
                if !more(left) {
                    message.cut_short = true;
                    return Some(message);
                }
                continue;
            };
            let size =
                usize::from_str_radix(String::from_utf8_lossy(&left[..at]).trim(), 16).expect("a chunk size");
            if size == 0 {
                let Some(end) = left[at..].windows(4).position(|end| end == b"\r\n\r\n") else {
                    if !more(left) {
                        message.cut_short = true;
                        return Some(message);
                    }
                    continue;
                };
                message.trailer = left[at + 2..at + end + 2].to_vec();
                left.drain(..at + end + 4);
                return Some(message);
            }
            while left.len() < at + 2 + size + 2 {
                if !more(left) {
                    message.cut_short = true;
                    return Some(message);
                }
            }
            message.body.extend_from_slice(&left[at + 2..at + 2 + size]);
            left.drain(..at + 2 + size + 2);
        }
    }
    let length = message.get("content-length").and_then(|value| value.parse::<usize>().ok());
    let is_request = status == 0;
    match length {
        Some(length) => {
            while left.len() < length {
                if !more(left) {
                    message.cut_short = true;
                    message.body = std::mem::take(left);
                    return Some(message);
                }
            }
            message.body = left.drain(..length).collect();
        }
        None if is_request => {}
        None => {
            while more(left) {}
            message.body = std::mem::take(left);
        }
    }
    Some(message)
}

/// A client's connection.
pub struct Client {
    pub stream: TcpStream,
    left: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, left: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("the proxy reads");
        self
    }

    pub fn read(&mut self) -> Message {
        read_message(&mut self.stream, &mut self.left, true).expect("a reply")
    }

    pub fn read_head(&mut self) -> Message {
        read_message(&mut self.stream, &mut self.left, false).expect("a reply")
    }

    /// What was read beyond the last message.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.left)
    }

    pub fn try_read(&mut self) -> Option<Message> {
        read_message(&mut self.stream, &mut self.left, true)
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).read()
    }

    pub fn end(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("still open");
        self
    }

    /// True if the proxy has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut piece = [0; 1];
        matches!(self.stream.read(&mut piece), Ok(0)) || self.stream.peer_addr().is_err()
    }
}

/// The shortest configuration that forwards everything.
pub fn config(upstreams: &[SocketAddr]) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        services: vec![Arc::new(Service::http1("api", upstreams))],
        edges: vec![Arc::new(Edge::new("edge", "api", EdgeSettings::default()))],
        listeners: vec![Arc::new(Listener::http(
            "edge",
            any,
            vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")],
        ))],
        ..Config::default()
    }
}

pub fn with_edge(mut config: Config, change: impl FnOnce(&mut EdgeSettings)) -> Config {
    let mut edge = (*config.edges[0]).clone();
    change(&mut edge.settings);
    config.edges[0] = Arc::new(edge);
    config
}

pub fn with_route(mut config: Config, change: impl FnOnce(&mut Route)) -> Config {
    let mut listener = (*config.listeners[0]).clone();
    let mut route = (*listener.routes[0]).clone();
    change(&mut route);
    listener.routes[0] = Arc::new(route);
    config.listeners[0] = Arc::new(listener);
    config
}

pub fn start(config: Config) -> (Proxy, SocketAddr) {
    let options = Options {
        workers: 1,
        admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        seed: 1,
        ..Options::default()
    };
    let proxy = Proxy::start(config, options).expect("it starts");
    let address = proxy.address("edge").expect("it listens");
    (proxy, address)
}

/// A counter of the proxy's, by the name and labels it has in Prometheus text.
pub fn counter(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.stats_text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Waits for something that another thread does; looks often and gives up late.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never happened: {what}");
}
