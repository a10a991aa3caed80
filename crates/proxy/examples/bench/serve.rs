//! Our side, as a child of ours: the data plane with what everybody gets by default.

use crate::{BACK_GRPC, BACK_H1, BACK_H2, BACK_OVERLOAD, FRONT, Fallible};
use proxy::config::{
    Certificate, Config, Edge, Listener, ListenerKind, PathMatch, Protocol, Route, Service, TlsServer,
};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Our side, as a child of ours.
pub(crate) fn serve(mode: &str, dir: &Path) -> Fallible<()> {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut routes = vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")];
    let mut service = Service::http1("api", &[address(BACK_H1)]);
    if mode == "h2" {
        service = Service::http1("api", &[address(BACK_H2)]);
        service.protocol = Protocol::Http2;
    }
    if mode == "grpc" {
        service = Service::http1("api", &[address(BACK_GRPC)]);
        service.protocol = Protocol::Http2;
    }
    if mode.starts_with("overload") {
        service = Service::http1("api", &[address(BACK_OVERLOAD)]);
    }
    if mode == "routes" {
        routes.extend(
            (0..5_000).map(|n| {
                Route::forward(&format!("r{n}"), PathMatch::Prefix(format!("/r/{n:04}")), "edge->api")
            }),
        );
    }
    let mut listener = Listener::http("edge", address(FRONT), routes);
    match mode {
        "tls" => {
            let certificates = vec![Certificate { chain: dir.join("c.pem"), key: dir.join("k.pem") }];
            listener.tls = Some(TlsServer { certificates, client_roots: None, client_required: false });
        }
        "tcp" => listener.kind = ListenerKind::Tcp { edge: "edge->api".into() },
        _ => {}
    }
    let config = Config {
        services: vec![Arc::new(service)],
        edges: vec![Arc::new(Edge::new("edge", "api", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener)],
        ..Config::default()
    };
    let workers = if mode == "overload-2" { 2 } else { 1 };
    let options = proxy::Options { workers, admin: Some(address(FRONT + 1)), seed: 1, ..Default::default() };
    let proxy = proxy::Proxy::start(config, options)?;
    while !proxy.is_drained() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
