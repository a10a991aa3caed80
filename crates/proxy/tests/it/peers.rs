//! Real peers of other people's making on both sides. Where one is not installed, its test says so and passes.

use crate::support::{Client, answering, config, counter, eventually, start, with_edge};
use policy::settings::{Backoff, Jitter, Retry};
use proxy::config::{Certificate, Config, Edge, Listener, ListenerKind, Protocol, Service, TlsServer};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use units::Nanos;

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A peer's process and its folder, gone when dropped.
pub struct Peer {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Nobody listens there now.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port")
}

/// Starts a peer that is to listen on a free port, with `file` as its configuration.
pub fn peer(program: &str, file: impl Fn(SocketAddr, &Path) -> String, words: &[&str]) -> Option<Peer> {
    if !has(program) {
        return None;
    }
    let address = free_address();
    let name = format!("isobar-peer-{}-{}", std::process::id(), address.port());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("conf"), file(address, &folder)).expect("it can be written");
    let mut command = Command::new(program);
    command.current_dir(&folder).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let peer = Peer { child: command.spawn().expect("it starts"), folder, address };
    eventually(program, || TcpStream::connect(address).is_ok());
    Some(peer)
}

pub fn nginx() -> Option<Peer> {
    let file = |address: SocketAddr, folder: &Path| {
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|it| format!("{it}_temp_path {}/{it};\n", folder.display()))
            .concat();
        format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; worker_processes 1;\nevents {{}}\nhttp {{\n{temp}access_log off;\n\
             keepalive_timeout 75; client_max_body_size 0;\nserver {{ listen {address};\n\
             location / {{ return 200 \"nginx $request_method $request_uri\\n\"; }}\n\
             location /big {{ root {0}; }}\nlocation /gone {{ return 204; }} }} }}\n",
            folder.display()
        )
    };
    peer("nginx", file, &["-p", ".", "-c", "conf"])
}

fn haproxy() -> Option<Peer> {
    let file = |address: SocketAddr, _: &Path| {
        format!(
            "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\nfrontend f\n bind {address}\n \
             http-request return status 200 content-type text/plain string \"haproxy\\n\"\n"
        )
    };
    peer("haproxy", file, &["-db", "-f", "conf"])
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check_no_failures(proxy: &proxy::Proxy) {
    assert_eq!(counter(proxy, "isobar_edge_requests_total{edge=\"edge->api\",class=\"5xx\"}"), 0);
    eventually("calm", || counter(proxy, "isobar_proxy_requests_in_flight") == 0);
}

#[test]
fn nginx_behind_curl_wrk_and_h2load_in_front() {
    let Some(nginx) = nginx() else { return };
    std::fs::create_dir_all(nginx.folder.join("big")).expect("a folder");
    let big: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    std::fs::write(nginx.folder.join("big/file"), &big).expect("it can be written");
    let (proxy, address) = start(config(&[nginx.address]));
    let url = |path: &str| format!("http://{address}{path}");
    let copy = nginx.folder.join("copy");
    let copied = copy.to_str().expect("a path");
    if has("curl") {
        for version in ["--http1.1", "--http2-prior-knowledge", "--http1.0"] {
            let get = |words: &[&str]| run("curl", &[&["-sS", version][..], words].concat());
            assert_eq!(get(&[&url("/a?b=c")]), "nginx GET /a?b=c\n", "{version}");
            assert_eq!(get(&["-X", "POST", "--data", "x", &url("/p")]), "nginx POST /p\n", "{version}");
            let head = get(&["-I", &url("/")]).to_lowercase();
            assert!(
                head.contains(" 200") && head.contains("via: ") | head.contains("server: nginx"),
                "{head}"
            );
            assert_eq!(get(&["-o", "-", "-w", "%{http_code}", &url("/gone")]), "204", "{version}");
            assert_eq!(get(&["-o", copied, &url("/big/file")]), "", "{version}");
            assert!(
                std::fs::read(&copy).expect("it was written") == big,
                "{version}: 3 MB arrive as they are"
            );
            let part = get(&["-r", "5-9", "-o", "-", &url("/big/file")]);
            assert_eq!(part.as_bytes(), [5, 6, 7, 8, 9], "{version}: ranges");
        }
        let upload = run("curl", &["-sS", "-T", copied, "-H", "Expect: 100-continue", &url("/up")]);
        assert_eq!(upload, "nginx PUT /up\n", "a large upload that asks first");
    }
    if has("wrk") {
        let said = run("wrk", &["-t1", "-c16", "-d1s", &url("/")]);
        assert!(
            said.contains("requests in") && !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "{said}"
        );
    }
    if has("h2load") {
        let said = run("h2load", &["-n2000", "-c4", "-m16", &url("/")]);
        assert!(said.contains("2000 succeeded, 0 failed"), "{said}");
        let said = run("h2load", &["--h1", "-n1000", "-c4", &url("/")]);
        assert!(said.contains("1000 succeeded, 0 failed"), "{said}");
    }
    check_no_failures(&proxy);
}

#[test]
fn haproxy_behind() {
    let Some(haproxy) = haproxy() else { return };
    let (proxy, address) = start(config(&[haproxy.address]));
    let mut client = Client::new(address);
    for _ in 0..50 {
        assert_eq!(client.get("/").text(), "haproxy\n");
    }
    check_no_failures(&proxy);
}

#[test]
fn one_peer_dies_and_the_other_answers() {
    let (Some(nginx), Some(haproxy)) = (nginx(), haproxy()) else { return };
    let retry = Retry { attempts: 3, budget: None, ..Retry::default() };
    let (_proxy, address) = start(with_edge(config(&[nginx.address, haproxy.address]), |edge| {
        edge.retry = Some(Retry {
            backoff: Backoff {
                base: Nanos::from_millis(1),
                max: Nanos::from_millis(5),
                jitter: Jitter::Full,
            },
            ..retry
        });
    }));
    let mut client = Client::new(address);
    let dies = std::cell::RefCell::new(Some(nginx));
    for n in 0..200 {
        if n == 50 {
            dies.take();
        }
        assert_eq!(client.get("/").status(), 200, "request {n}");
    }
}

#[test]
fn redis_through_tcp() {
    let file =
        |address: SocketAddr, _: &Path| format!("bind 127.0.0.1\nport {}\nsave \"\"\n", address.port());
    let Some(redis) = peer("redis-server", file, &["conf"]) else { return };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let service = Service { protocol: Protocol::Tcp, ..Service::http1("api", &[redis.address]) };
    let kind = ListenerKind::Tcp { edge: "edge->api".into() };
    let (proxy, address) = start(Config {
        services: vec![Arc::new(service)],
        edges: vec![Arc::new(Edge::new("edge", "api", Default::default()))],
        listeners: vec![Arc::new(Listener { kind, ..Listener::http("edge", any, Vec::new()) })],
        ..Config::default()
    });
    let port = address.port().to_string();
    let ask = |words: &[&str]| run("redis-cli", &[&["-p", &port][..], words].concat());
    assert_eq!(ask(&["PING"]), "PONG\n");
    assert_eq!(ask(&["SET", "k", "v"]), "OK\n");
    assert_eq!(ask(&["GET", "k"]), "v\n");
    if has("redis-benchmark") {
        let said = run(
            "redis-benchmark",
            &["-p", &port, "-n", "5000", "-c", "20", "-P", "16", "-q", "-t", "set,get"],
        );
        assert!(said.contains("GET:") && !said.contains("Error"), "{said}");
    }
    eventually("no tunnel is left", || counter(&proxy, "isobar_proxy_connections") == 0);
    assert!(counter(&proxy, "isobar_proxy_tunnels_total") >= 3);
}

fn python() -> Option<String> {
    let python = std::env::var("ISOBAR_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import grpc"]).output();
    if found.is_ok_and(|it| it.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: grpcio is not installed for {python}");
    None
}

#[test]
fn grpcio_on_both_sides() {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/grpc_peers.py");
    let mut server = Command::new(&python)
        .arg(&script)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut port).expect("its port");
    let upstream = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().expect("a port")));
    let http2 = |to: SocketAddr| {
        let mut config = with_edge(config(&[to]), |edge| {
            edge.retry = Some(Retry { attempts: 4, budget: None, non_idempotent: true, ..Retry::default() });
            edge.eject = None;
        });
        let service = Service { protocol: Protocol::Http2, ..Service::http1("api", &[to]) };
        config.services = vec![Arc::new(service)];
        config
    };
    let (proxy, address) = start(http2(upstream));
    let (_dead_proxy, dead) = start(http2(free_address()));
    let said =
        run(&python, &[script.to_str().expect("a path"), "ask", &address.to_string(), &dead.to_string()]);
    let good = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(good == 16 && !said.contains("WRONG"), "{good} of 16:\n{said}");
    eventually("nothing is left in flight", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
    drop(server.stdin.take());
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn a_browser_through_tls() {
    if !has("chromium") {
        return;
    }
    let page = answering(|request| {
        let agent = request.get("user-agent").unwrap_or("").contains("Chrom");
        let body = format!("<p>chromium {agent} {}</p>", request.get("x-forwarded-proto").unwrap_or(""));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body.into_bytes()].concat()
    });
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    let mut config = config(&[page]);
    let mut listener = (*config.listeners[0]).clone();
    listener.tls = Some(TlsServer {
        certificates: vec![Certificate { chain: data.join("cert.pem"), key: data.join("key.pem") }],
        client_roots: None,
        client_required: false,
    });
    config.listeners[0] = Arc::new(listener);
    let (proxy, address) = start(config);
    let profile = std::env::temp_dir().join(format!("isobar-browser-{}", std::process::id()));
    let said = run(
        "chromium",
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            &format!("--user-data-dir={}", profile.display()),
            "--dump-dom",
            &format!("https://{address}/"),
        ],
    );
    let _ = std::fs::remove_dir_all(profile);
    assert!(said.contains("chromium true https"), "{said}");
    assert!(counter(&proxy, "isobar_proxy_h2_streams_total") > 0, "a browser speaks HTTP/2 where it may");
}

#[test]
fn websocket_frames_both_ways() {
    // The handshake of RFC 6455, section 1.3, and frames that the proxy must not care about.
    let accept = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: \
                  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let echo = crate::support::upstream(move |_, mut stream| {
        let mut left = Vec::new();
        let Some(request) = crate::support::read_message(&mut stream, &mut left, false) else { return };
        let good = request.get("sec-websocket-key") == Some("dGhlIHNhbXBsZSBub25jZQ==")
            && request.get("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
        let _ = stream.write_all(if good {
            accept.as_bytes()
        } else {
            &b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"[..]
        });
        let mut reader = stream.try_clone().expect("a clone");
        let _ = std::io::copy(&mut reader, &mut stream);
    });
    let (proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    let asked = "GET /chat HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: keep-alive, Upgrade\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    let head = client.send(asked).read_head();
    assert_eq!(
        (head.status(), head.get("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    let mut stream = client.stream.try_clone().expect("a clone");
    for size in [1usize, 125, 126, 70_000] {
        let frame: Vec<u8> = (0..size).map(|n| (n * 7) as u8).collect();
        let writing = std::thread::spawn({
            let (mut stream, frame) = (stream.try_clone().expect("a clone"), frame.clone());
            move || stream.write_all(&frame)
        });
        let mut back = vec![0; size];
        std::io::Read::read_exact(&mut stream, &mut back).expect("the same bytes");
        writing.join().expect("no panic").expect("written");
        assert!(back == frame);
    }
    client.end();
    assert!(client.is_closed());
    eventually("the tunnel is gone", || counter(&proxy, "isobar_proxy_connections") == 0);
}
