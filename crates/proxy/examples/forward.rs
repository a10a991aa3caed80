//! The smallest reverse proxy: `forward LISTEN UPSTREAM[,UPSTREAM...] [ADMIN] [WORKERS]`.
//! `H2=1` speaks HTTP/2 to the upstream, `TCP=1` passes bytes through, `CERT=c.pem KEY=k.pem` opens TLS in front.
//!
//! ```text
//! cargo run --release -p proxy --example forward -- 127.0.0.1:8100 127.0.0.1:9001 127.0.0.1:8101 1
//! curl -i localhost:8100/ ; curl -s localhost:8101/stats ; wrk -c64 -d5 http://localhost:8100/
//! ```

use proxy::config::{
    Certificate, Config, Edge, Listener, ListenerKind, PathMatch, Protocol, Route, Service, TlsServer,
};
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstreams, rest @ ..] = args.as_slice() else {
        return Err("usage: forward LISTEN UPSTREAM[,UPSTREAM...] [ADMIN] [WORKERS]".into());
    };
    let addresses = upstreams.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
    let set = |name: &str| std::env::var(name).ok();
    let mut service = Service::http1("api", &addresses);
    if set("H2").is_some() {
        service.protocol = Protocol::Http2;
    }
    let mut listener = Listener::http(
        "edge",
        listen.parse()?,
        vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")],
    );
    if set("TCP").is_some() {
        listener.kind = ListenerKind::Tcp { edge: "edge->api".into() };
    }
    if let (Some(chain), Some(key)) = (set("CERT"), set("KEY")) {
        let certificates = vec![Certificate { chain: chain.into(), key: key.into() }];
        listener.tls = Some(TlsServer { certificates, client_roots: None, client_required: false });
    }
    let config = Config {
        source: "the command line".into(),
        services: vec![Arc::new(service)],
        edges: vec![Arc::new(Edge::new("edge", "api", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener)],
        ..Config::default()
    };
    let options = proxy::Options {
        admin: rest.first().map(|admin| admin.parse()).transpose()?,
        workers: rest.get(1).map_or(Ok(0), |workers| workers.parse())?,
        ..proxy::Options::default()
    };
    let proxy = proxy::Proxy::start(config, options)?;
    // Until somebody asks for the end at /drain.
    while !proxy.is_drained() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    proxy.stop();
    Ok(())
}
