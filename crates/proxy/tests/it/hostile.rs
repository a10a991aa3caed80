//! Clients that send what no client should.

use crate::support::{Client, answering, config, counter, ok, start};
use proxy::config::Timeouts;
use units::Nanos;

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let echo = answering(|request| ok(&request.first));
    let (proxy, address) = start(config(&[echo]));
    let check = |request: &str, status: u16, reason: &str| {
        let counted = format!("isobar_proxy_refused_total{{reason=\"{reason}\"}}");
        let before = counter(&proxy, &counted);
        let mut client = Client::new(address);
        let reply = client.send(request).read();
        assert_eq!((reply.status(), reply.get("x-isobar-error")), (status, Some(reason)), "{:.200}", request);
        assert_eq!(reply.get("connection"), Some("close"), "{request:?}");
        assert!(client.is_closed(), "{request:?}");
        assert_eq!(counter(&proxy, &counted), before + 1, "{request:?}");
    };
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
    check(&get("content-length: 1\r\ncontent-length: 1\r\n"), 400, "content-length-repeated");
    check(&get("content-length: 1, 1\r\n"), 400, "content-length-repeated");
    check(&get("content-length: +1\r\n"), 400, "content-length-syntax");
    check(&get("content-length: 0x1\r\n"), 400, "content-length-syntax");
    check(&get("content-length: 99999999999999999999\r\n"), 400, "content-length-syntax");
    check(
        &get("content-length: 1 \r\ntransfer-encoding: chunked\r\n"),
        400,
        "content-length-and-transfer-encoding",
    );
    check(
        &get("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        400,
        "transfer-encoding-repeated",
    );
    check(&get("transfer-encoding: gzip, chunked\r\n"), 501, "transfer-encoding-unknown");
    check(&get("transfer-encoding: xchunked\r\n"), 501, "transfer-encoding-unknown");
    check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400, "transfer-encoding-in-http-1.0");
    check(&get("a: b\r\n folded\r\n"), 400, "syntax");
    check(&get("a : b\r\n"), 400, "syntax");
    check(&get("a\0: b\r\n"), 400, "syntax");
    check(&get("a: b\0c\r\n"), 400, "syntax");
    check(&get("a: b\rc\r\n"), 400, "syntax");
    check("GET / HTTP/1.1\nhost: x\n\n", 400, "bare-line-feed");
    check("GET / HTTP/1.1\r\nhost: x\na: b\r\n\r\n", 400, "bare-line-feed");
    check("GET / HTTP/1.1\r\n\r\n", 400, "host-missing");
    check("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n", 400, "host-mismatch");
    check("GET http://a:8080/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "host-mismatch");
    check("GET https://a:80/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "host-mismatch");
    check("GET http://a:443/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "host-mismatch");
    check("GET http://a@x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400, "host-syntax");
    check("GET http:///x HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("GET http://x?y HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("GET ftp://x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("GET x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("OPTIONS http://x HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check(&get("host: y\r\n"), 400, "host-repeated");
    check("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400, "host-syntax");
    check("GET / HTTP/1.1\r\nhost: :a\r\n\r\n", 400, "host-syntax");
    check("GET / HTTP/1.1\r\nhost: a:b\r\n\r\n", 400, "host-syntax");
    check("GET / HTTP/1.1\r\nhost: a:1:2\r\n\r\n", 400, "host-syntax");
    check("GET / HTTP/1.1\r\nhost: [::1]x\r\n\r\n", 400, "host-syntax");
    check("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400, "host-syntax");
    check("GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 400, "syntax");
    check("GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505, "version");
    check("GET / HTTP/1.2\r\nhost: x\r\n\r\n", 505, "version");
    check("GET /a/../b HTTP/1.1\r\nhost: x\r\n\r\n", 400, "dot-segments");
    check("GET /a/%2e%2E/b HTTP/1.1\r\nhost: x\r\n\r\n", 400, "dot-segments");
    check("GET /a/..;x/b HTTP/1.1\r\nhost: x\r\n\r\n", 400, "dot-segments");
    check("GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("GET a HTTP/1.1\r\nhost: x\r\n\r\n", 400, "target-syntax");
    check("CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n", 501, "method-unsupported");
    check(&get("connection: host\r\n"), 400, "connection-nominates-protected-header");
    check(&get("expect: miracles\r\n"), 417, "expect-unknown");
    check(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(9_000)), 414, "target-too-long");
    check(&get(&format!("a: {}\r\n", "b".repeat(17_000))), 431, "head-too-long");
    check(&get(&"a: b\r\n".repeat(101)), 431, "too-many-headers");
    check(
        &get("").replace("GET", "POST").replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\nx\r\n"),
        400,
        "chunk-syntax",
    );
    assert_eq!(Client::new(address).get("/a/...b/.c").status(), 200, "dots in names are no dot segments");
    let served = "isobar_edge_requests_total{edge=\"edge->api\",class=\"2xx\"}";
    crate::support::eventually("only that one was served", || counter(&proxy, served) == 1);
}

#[test]
fn a_smuggled_request_is_not_served() {
    let echo = answering(|request| ok(&request.first));
    let (proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    client.send(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    assert_eq!(client.read().status(), 400);
    assert!(client.try_read().is_none());
    assert_eq!(counter(&proxy, "isobar_edge_attempts_total{edge=\"edge->api\"}"), 0);
}

#[test]
fn slow_clients_are_not_waited_for() {
    let echo = answering(|request| ok(&request.first));
    let mut config = config(&[echo]);
    config.timeouts = Timeouts {
        header_read: Nanos::from_millis(60),
        body_read: Nanos::from_millis(60),
        keep_alive: Nanos::from_millis(60),
        ..Timeouts::default()
    };
    let (proxy, address) = start(config);
    let mut slow_head = Client::new(address);
    assert_eq!(slow_head.send("GET / HT").read().status(), 408);
    let mut slow_body = Client::new(address);
    assert_eq!(
        slow_body.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").read().status(),
        408
    );
    let mut idle = Client::new(address);
    assert_eq!(idle.get("/").status(), 200);
    assert!(idle.is_closed());
    assert_eq!(counter(&proxy, "isobar_proxy_header_timeouts_total"), 1);
    assert_eq!(counter(&proxy, "isobar_proxy_body_timeouts_total"), 1);
    assert_eq!(counter(&proxy, "isobar_proxy_idle_closed_total"), 1);
}
