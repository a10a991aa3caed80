//! HTTP/2 in front, behind and on both sides, and TLS in front.

use crate::support::{answering, config, counter, eventually, ok, start};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use proxy::config::{Certificate, Config, Service, TlsServer};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs a client's side to its end.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(crate::support::PATIENCE, future).await.expect("in time") })
}

/// An upstream that speaks HTTP/2, says what it was asked, and puts a trailer behind it.
fn h2_upstream() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("settable");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            if request.uri().path() == "/refused" {
                                return respond.send_reset(h2::Reason::REFUSED_STREAM);
                            }
                            let said = format!("{} {}", request.method(), request.uri().path());
                            let (body, _) = read(request.into_body()).await;
                            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
                            send(&mut stream, Bytes::from(said), false).await;
                            send(&mut stream, Bytes::from(body), false).await;
                            let mut trailer = HeaderMap::new();
                            trailer.insert("x-sum", "7".parse().expect("a value"));
                            stream.send_trailers(trailer).expect("sent");
                        });
                    }
                });
            }
        });
    });
    address
}

async fn read(mut body: h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole body");
        all.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    (all, body.trailers().await.expect("trailers or none"))
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("room");
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, end && data.is_empty()).expect("sent");
    }
}

async fn client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
    let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    send
}

async fn ask(
    sender: &h2::client::SendRequest<Bytes>,
    method: &str,
    path: &str,
    body: Option<Bytes>,
) -> (u16, Vec<u8>, Option<HeaderMap>) {
    let uri = format!("http://test{path}");
    let request = Request::builder().method(method).uri(uri).body(()).expect("a request");
    let mut sender = sender.clone().ready().await.expect("a stream");
    let (response, mut stream) = sender.send_request(request, body.is_none()).expect("sent");
    if let Some(body) = body {
        send(&mut stream, body, true).await;
    }
    let response = response.await.expect("a reply");
    let status = response.status().as_u16();
    let (body, trailers) = read(response.into_body()).await;
    (status, body, trailers)
}

fn http2(upstream: SocketAddr) -> Config {
    let mut config = config(&[upstream]);
    let mut service = Service::http1("api", &[upstream]);
    service.protocol = proxy::config::Protocol::Http2;
    config.services = vec![Arc::new(service)];
    config
}

#[test]
fn every_bridge_carries_bodies_both_ways() {
    let h1 = answering(|request| {
        let target = request.first.trim_end_matches(" HTTP/1.1").to_owned();
        let mut reply = ok(&target);
        reply.clear();
        let body = [target.as_bytes(), &request.body].concat();
        reply.extend_from_slice(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
        );
        reply.extend_from_slice(&body);
        reply
    });
    for (name, config) in [("h2 to h1", config(&[h1])), ("h2 to h2", http2(h2_upstream()))] {
        let (proxy, address) = start(config);
        block_on(async {
            let sender = client(address).await;
            let (status, body, trailers) = ask(&sender, "GET", "/a", None).await;
            assert_eq!((status, &body[..]), (200, &b"GET /a"[..]), "{name}");
            assert_eq!(trailers.is_some(), name == "h2 to h2", "{name}");
            let large = Bytes::from(vec![b'x'; 400_000]);
            let (status, body, _) = ask(&sender, "POST", "/b", Some(large.clone())).await;
            assert!(
                status == 200 && body[..7] == b"POST /b"[..] && body[7..] == large[..],
                "{name}: {} bytes",
                body.len()
            );
            let many: Vec<_> = (0..100)
                .map(|n| {
                    let sender = sender.clone();
                    tokio::spawn(async move { ask(&sender, "GET", &format!("/{n}"), None).await })
                })
                .collect();
            for (n, one) in many.into_iter().enumerate() {
                let (status, body, _) = one.await.expect("it ended");
                assert_eq!((status, body), (200, format!("GET /{n}").into_bytes()), "{name}");
            }
            let bad = ask(&sender, "GET", "/a/../b", None).await;
            assert_eq!(bad.0, 400, "what HTTP/1 refuses, HTTP/2 does not smuggle in");
        });
        eventually("no requests in flight", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
        assert_eq!(counter(&proxy, "isobar_proxy_h2_connections_total"), 1);
    }
    let (proxy, address) = start(http2(h2_upstream()));
    let mut plain = crate::support::Client::new(address);
    for n in 0..20 {
        let reply = plain.get(&format!("/{n}"));
        assert_eq!(
            (reply.status(), reply.text(), &reply.trailer[..]),
            (200, format!("GET /{n}"), &b"x-sum: 7\r\n"[..])
        );
    }
    assert_eq!(
        counter(&proxy, "isobar_edge_connections_total{edge=\"edge->api\"}"),
        1,
        "one connection, many streams"
    );
    assert_eq!(plain.get("/refused").status(), 502);
    assert_eq!(
        counter(&proxy, "isobar_edge_replays_total{edge=\"edge->api\"}"),
        1,
        "refused is tried once more"
    );
}

#[test]
fn tls_in_front_carries_both_versions() {
    let echo = answering(|request| {
        ok(&format!("{} {}", request.first, request.get("x-forwarded-proto").unwrap_or("")))
    });
    let mut config = config(&[echo]);
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    let mut listener = (*config.listeners[0]).clone();
    let certificates = vec![Certificate { chain: data.join("cert.pem"), key: data.join("key.pem") }];
    listener.tls = Some(TlsServer { certificates, client_roots: None, client_required: false });
    config.listeners[0] = Arc::new(listener.clone());
    let (proxy, address) = start(config.clone());
    for alpn in ["http/1.1", "h2"] {
        block_on(async {
            let stream = tls_client(address, &data, alpn).await;
            if alpn == "h2" {
                let (sender, connection) = h2::client::handshake::<_>(stream).await.expect("HTTP/2");
                tokio::spawn(async move {
                    let _ = connection.await;
                });
                let (status, body, _) = ask(&sender, "GET", "/", None).await;
                assert_eq!((status, &body[..]), (200, &b"GET / HTTP/1.1 https"[..]));
            } else {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = stream;
                for _ in 0..3 {
                    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
                    let mut reply = vec![0; 4096];
                    let mut have = 0;
                    while !reply[..have].ends_with(b"https") {
                        have += stream.read(&mut reply[have..]).await.expect("read");
                    }
                }
            }
        });
    }
    assert_eq!(counter(&proxy, "isobar_proxy_tls_handshakes_total"), 2);
    // A certificate that cannot be read is a mistake that changes nothing.
    let certificates = vec![Certificate { chain: data.join("missing.pem"), key: data.join("key.pem") }];
    listener.tls = Some(TlsServer { certificates, client_roots: None, client_required: false });
    config.listeners[0] = Arc::new(listener);
    assert!(proxy.reload(config).expect_err("no file").to_string().contains("missing.pem"));
}

async fn tls_client(
    address: SocketAddr,
    data: &std::path::Path,
    alpn: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls_pki_types::CertificateDer::from_pem_file(data.join("cert.pem")).expect("a certificate");
    roots.add(root).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}
