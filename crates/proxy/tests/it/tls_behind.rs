//! TLS towards instances: another proxy plays the instance, with a certificate for `localhost` that signs itself.

use crate::streams;
use crate::support::{Client, answering, config, counter, eventually, ok, start, upstream, with_edge};
use proxy::config::{
    Address, Certificate, Config, Endpoint, HealthCheck, HealthKind, Protocol, Service, TlsClient, TlsServer,
};
use proxy::{Options, Proxy};
use rustls_pki_types::pem::PemObject;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use units::Nanos;

fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(file)
}

fn pair() -> Certificate {
    Certificate { chain: data("cert.pem"), key: data("key.pem") }
}

/// An instance that speaks HTTP/1 and HTTP/2 over TLS, and wants to see a certificate if it is to be strict.
fn instance(strict: bool) -> (Proxy, SocketAddr) {
    let echo = answering(|request| {
        ok(&format!("{} {}", request.get("x-forwarded-proto").unwrap_or(""), request.text()))
    });
    let mut config = config(&[echo]);
    let mut listener = (*config.listeners[0]).clone();
    listener.trusts_headers = false;
    listener.tls = Some(TlsServer {
        certificates: vec![pair()],
        client_roots: strict.then(|| data("cert.pem")),
        client_required: strict,
    });
    config.listeners[0] = Arc::new(listener);
    start(config)
}

fn behind(instance: SocketAddr, protocol: Protocol, tls: TlsClient) -> Config {
    let mut config = with_edge(config(&[instance]), |edge| edge.eject = None);
    config.services =
        vec![Arc::new(Service { protocol, tls: Some(tls), ..Service::http1("api", &[instance]) })];
    config
}

fn trusting() -> TlsClient {
    TlsClient { server_name: "localhost".into(), roots: Some(data("cert.pem")), ..TlsClient::default() }
}

/// The request comes in one write with the end of the handshake, so that both are there when the handshake is read.
#[test]
fn a_request_right_behind_the_handshake_is_answered() {
    let (_instance, address) = instance(false);
    for _ in 0..10 {
        let (_proxy, door) = start(behind(address, Protocol::Http1, trusting()));
        assert_eq!(Client::new(door).get("/").status(), 200);
    }
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls_pki_types::CertificateDer::from_pem_file(data("cert.pem")).expect("a certificate");
    roots.add(root).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("settable");
    session.write_tls(&mut stream).expect("a hello");
    while session.is_handshaking() {
        session.read_tls(&mut stream).expect("a hello");
        session.process_new_packets().expect("good");
    }
    session.writer().write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("taken");
    let mut both = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut both).expect("memory");
    }
    stream.write_all(&both).expect("sent");
    let mut said = String::new();
    while !said.contains("https") {
        assert!(session.read_tls(&mut stream).expect("an answer in time") > 0);
        session.process_new_packets().expect("good");
        let mut piece = [0; 4096];
        if let Ok(read) = session.reader().read(&mut piece) {
            said.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    }
}

const POST: &str = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";

#[test]
fn both_versions_are_spoken_over_tls_and_kept_open() {
    let (_instance, address) = instance(false);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (proxy, door) = start(behind(address, protocol, trusting()));
        let mut client = Client::new(door);
        for _ in 0..5 {
            assert_eq!(client.send(POST).read().text(), "https hello", "{protocol:?}");
        }
        streams::block_on(async {
            let sender = streams::client(door).await;
            let (status, body) = streams::ask(&sender, "/").await.expect("an answer");
            assert_eq!((status, body.as_str()), (200, "https "), "{protocol:?}");
        });
        let made = counter(&proxy, "isobar_edge_connections_total{edge=\"edge->api\"}");
        assert!(made <= 2, "connections are kept: {made} were made for six requests");
        assert_eq!(counter(&proxy, "isobar_proxy_upstream_tls_failures_total"), 0);
    }
}

#[test]
fn who_cannot_prove_who_it_is_gets_nothing_and_the_caller_is_told_why() {
    let (_instance, address) = instance(false);
    let plain = upstream(|_, mut stream| drop(stream.write_all(b"220 mail.example ready\r\n")));
    let check = |address: SocketAddr, protocol: Protocol, tls: TlsClient, why: &str| {
        let (proxy, door) = start(behind(address, protocol, tls));
        let reply = Client::new(door).get("/");
        assert_eq!(
            (reply.status(), reply.get("x-isobar-error")),
            (503, Some("tls-failed edge->api")),
            "{why}"
        );
        assert!(reply.text().contains(why), "{why}: {}", reply.text());
        assert!(counter(&proxy, "isobar_proxy_upstream_tls_failures_total") > 0);
    };
    let named = |name: &str| TlsClient { server_name: name.into(), ..trusting() };
    check(address, Protocol::Http1, named("other.example"), "for another name");
    check(address, Protocol::Http2, named("other.example"), "for another name");
    // Without a name the address must stand in the certificate, and does not.
    check(address, Protocol::Http1, named(""), "for another name");
    let other = TlsClient { roots: Some(data("other-ca.pem")), ..trusting() };
    check(address, Protocol::Http1, other, "signed by nobody we trust");
    check(plain, Protocol::Http1, trusting(), "does not speak TLS");
}

#[test]
fn a_name_in_the_file_is_the_name_that_is_verified() {
    let (_instance, address) = instance(false);
    let mut config = behind(address, Protocol::Http1, TlsClient { server_name: String::new(), ..trusting() });
    let mut service = (*config.services[0]).clone();
    service.endpoints = vec![Endpoint::at(Address::Name("localhost".into(), address.port()))];
    config.services = vec![Arc::new(service)];
    let (_proxy, door) = start(config);
    // The name is resolved off the data path.
    eventually("it is resolved and answers", || Client::new(door).get("/").status() == 200);
}

#[test]
fn a_certificate_is_shown_to_who_wants_to_see_one() {
    let (instance, address) = instance(true);
    let (_proxy, door) = start(behind(address, Protocol::Http1, trusting()));
    assert!(Client::new(door).get("/").status() >= 502, "nothing was shown");
    // The instance finds out after we have: with TLS 1.3 the caller is ready first.
    eventually("the instance counts it", || counter(&instance, "isobar_proxy_tls_failures_total") > 0);
    let tls = TlsClient { certificate: Some(pair()), ..trusting() };
    let (_proxy, door) = start(behind(address, Protocol::Http1, tls));
    assert_eq!(Client::new(door).send(POST).read().text(), "https hello");
}

#[test]
fn changed_files_are_read_again_and_bad_ones_change_nothing() {
    let (_instance, address) = instance(false);
    let folder = std::env::temp_dir().join(format!("isobar-tls-{}-{}", std::process::id(), address.port()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let roots = folder.join("ca.pem");
    std::fs::copy(data("other-ca.pem"), &roots).expect("copied");
    let tls = TlsClient { roots: Some(roots.clone()), ..trusting() };
    let (proxy, door) = start(behind(address, Protocol::Http1, tls.clone()));
    assert_eq!(Client::new(door).get("/").status(), 503);
    std::fs::copy(data("cert.pem"), &roots).expect("copied");
    eventually("the new roots are trusted", || Client::new(door).get("/").status() == 200);
    std::fs::write(&roots, "half of a").expect("written");
    assert_eq!(Client::new(door).get("/").status(), 200);
    // In a snapshot it is a mistake, with its place.
    let gone = TlsClient { roots: Some(folder.join("gone.pem")), ..tls };
    let mistake = proxy.reload(behind(address, Protocol::Http1, gone)).expect_err("no file").to_string();
    assert!(mistake.contains("service `api` tls") && mistake.contains("gone.pem"), "{mistake}");
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn health_is_asked_for_over_tls_too() {
    let (_instance, address) = instance(false);
    let checked = |kind: HealthKind, tls: TlsClient| {
        let mut config = behind(address, Protocol::Http2, tls);
        let mut service = (*config.services[0]).clone();
        let interval = Nanos::from_millis(50);
        service.health = Some(HealthCheck { kind, interval, unhealthy_after: 1, ..HealthCheck::default() });
        config.services = vec![Arc::new(service)];
        let options = Options { workers: 1, admin: Some(([127, 0, 0, 1], 0).into()), ..Options::default() };
        Proxy::start(config, options).expect("it starts")
    };
    let said = |proxy: &Proxy| Client::new(proxy.admin_address().expect("one")).get("/endpoints").text();
    let http =
        || HealthKind::Http { path: "/".into(), host: String::new(), status_min: 200, status_max: 299 };
    for kind in [HealthKind::Tcp, http()] {
        let proxy = checked(kind.clone(), trusting());
        eventually("it is well", || said(&proxy).contains("\"check\":\"passing\""));
        let other = TlsClient { server_name: "other.example".into(), ..trusting() };
        let proxy = checked(kind, other);
        eventually("it is not", || said(&proxy).contains("its certificate is for another name"));
    }
}
