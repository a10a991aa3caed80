//! What goes in comes out: methods, bodies, framings, heads.

use crate::support::{Client, answering, config, counter, ok, read_message, start, upstream, with_route};
use proxy::config::{AbortKind, FaultAbort, FaultDelay, HeaderEdit, PathEdit, PathMatch};
use std::io::{Read, Write};
use units::{Nanos, Percent};

#[test]
fn requests_on_one_connection_one_after_another_and_all_at_once() {
    let echo = answering(|request| ok(&request.first));
    let (proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    for n in 0..5 {
        let reply = client.get(&format!("/{n}?q={n}"));
        assert_eq!((reply.status(), reply.text()), (200, format!("GET /{n}?q={n} HTTP/1.1")));
        assert!(reply.get("date").is_some(), "a date is added: {reply:?}");
    }
    let all: String = (0..20).map(|n| format!("GET /p{n} HTTP/1.1\r\nhost: x\r\n\r\n")).collect();
    client.send(all);
    for n in 0..20 {
        assert_eq!(client.read().text(), format!("GET /p{n} HTTP/1.1"));
    }
    // A reply is counted right after it was sent, which may be after it was read here.
    let name = "isobar_edge_requests_total{edge=\"edge->api\",class=\"2xx\"}";
    crate::support::eventually("all are counted", || counter(&proxy, name) == 25);
    assert_eq!(
        counter(&proxy, "isobar_edge_connections_total{edge=\"edge->api\"}"),
        1,
        "one connection carried all"
    );
}

#[test]
fn one_byte_at_a_time_is_the_same_request() {
    let echo = answering(|request| ok(&format!("{}{}", request.first, request.text())));
    let (_proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    for request in [
        "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ] {
        for byte in request.as_bytes() {
            client.send([*byte]);
        }
        assert_eq!(client.read().text(), "POST /a HTTP/1.1hello");
    }
}

#[test]
fn bodies_of_every_size_and_framing_arrive_whole() {
    let echo = answering(|request| {
        let mut reply =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()).into_bytes();
        reply.extend_from_slice(&request.body);
        reply
    });
    let (_proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    for size in [0, 1, 100, 5_000, 16_384, 24_576, 40_000, 70_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let mut plain = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        plain.extend_from_slice(&body);
        assert!(client.send(plain).read().body == body, "{size}");
        let mut chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(7_001) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        assert!(client.send(chunked).read().body == body, "{size} in chunks");
    }
}

#[test]
fn replies_of_every_framing_reach_clients_of_both_versions() {
    let by_path = upstream(|_, mut stream| {
        let mut left = Vec::new();
        while let Some(request) = read_message(&mut stream, &mut left, true) {
            let path = request.first.split(' ').nth(1).unwrap_or_default().to_owned();
            let reply: &[u8] = match path.as_str() {
                "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n",
                "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nabcdefg",
                "/close" => b"HTTP/1.1 200 OK\r\n\r\nabcdefg",
                "/old" => b"HTTP/1.0 200 OK\r\ncontent-length: 7\r\n\r\nabcdefg",
                "/empty" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/not-modified" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
                _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            };
            if stream.write_all(reply).is_err() || path == "/close" || path == "/old" {
                return;
            }
        }
    });
    let (_proxy, address) = start(config(&[by_path]));
    let mut client = Client::new(address);
    for path in ["/chunked", "/length", "/close", "/old", "/chunked"] {
        let reply = client.get(path);
        assert_eq!(
            (reply.status(), reply.text().as_str(), reply.cut_short),
            (200, "abcdefg", false),
            "{path}: {reply:?}"
        );
    }
    assert_eq!(client.send("GET /chunked HTTP/1.1\r\nhost: x\r\n\r\n").read().trailer, b"x-sum: 7\r\n");
    assert_eq!(client.get("/empty").status(), 204);
    assert_eq!(client.get("/not-modified").status(), 304);
    let head = client.send("HEAD /length HTTP/1.1\r\nhost: x\r\n\r\n").read_head();
    assert_eq!(head.get("content-length"), Some("7"));
    for path in ["/chunked", "/length", "/close"] {
        let mut old = Client::new(address);
        let reply = old.send(format!("GET {path} HTTP/1.0\r\n\r\n")).read();
        assert_eq!((reply.text().as_str(), reply.get("transfer-encoding")), ("abcdefg", None), "{path}");
        assert!(old.is_closed());
    }
    let mut old = Client::new(address);
    for _ in 0..3 {
        let reply = old.send("GET /length HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").read();
        assert_eq!((reply.text().as_str(), reply.get("connection")), ("abcdefg", Some("keep-alive")));
    }
}

#[test]
fn heads_say_who_where_and_until_when() {
    let head = answering(|request| {
        ok(&request
            .lines
            .iter()
            .map(|(name, value)| format!("{}: {value}\n", name.to_lowercase()))
            .collect::<String>())
    });
    let (_proxy, address) = start(config(&[head]));
    let mut client = Client::new(address);
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                   X-Keep: yes\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-Id: abc-1\r\nisobar-deadline: 2000000\r\n\
                   traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTE: gzip\r\n\r\n";
    let text = client.send(request).read().text();
    let line =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned);
    assert_eq!(line("host").as_deref(), Some("shop"));
    assert_eq!(line("x-keep").as_deref(), Some("yes"));
    assert_eq!(line("x-forwarded-for").as_deref(), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(line("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(line("x-request-id").as_deref(), Some("abc-1"));
    assert_eq!(line("via").as_deref(), Some("1.1 isobar"));
    for gone in ["connection", "keep-alive", "x-hop", "te"] {
        assert_eq!(line(gone), None, "{gone} belongs to one hop: {text}");
    }
    let trace = line("traceparent").expect("a trace");
    assert!(
        trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !trace.contains("00f067aa0ba902b7"),
        "{trace}"
    );
    let left: u64 = line("isobar-deadline").and_then(|left| left.parse().ok()).expect("a deadline");
    assert!((1_000_000..=2_000_000).contains(&left), "{left}");
    let fresh = client.get("/").text();
    assert!(fresh.contains("x-request-id: ") && fresh.contains("traceparent: 00-"), "{fresh}");
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let echo = upstream(|_, mut stream| {
        let mut left = Vec::new();
        let head = read_message(&mut stream, &mut left, false).expect("a head");
        assert_eq!(head.get("expect"), Some("100-continue"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
        let mut body = [0; 5];
        stream.read_exact(&mut body).expect("the body");
        stream.write_all(&ok(&String::from_utf8_lossy(&body))).expect("written");
    });
    let (_proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    client.send("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head().status(), 100);
    assert_eq!(client.send("hello").read().text(), "hello");
}

#[test]
fn a_connection_may_change_its_protocol() {
    let echo = upstream(|_, mut stream| {
        let mut left = Vec::new();
        let head = read_message(&mut stream, &mut left, false).expect("a head");
        assert_eq!(head.get("upgrade"), Some("websocket"));
        let reply =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhi!";
        stream.write_all(reply).expect("written");
        let mut piece = [0; 64];
        while let Ok(read) = stream.read(&mut piece) {
            if read == 0 || stream.write_all(&piece[..read]).is_err() {
                return;
            }
        }
    });
    let (proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    let reply = client
        .send("GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\nearly")
        .read_head();
    assert_eq!((reply.status(), reply.get("upgrade")), (101, Some("websocket")));
    client.send(" bytes").end();
    let mut all = Vec::new();
    client.stream.read_to_end(&mut all).expect("until the end");
    // What came with the head was read by `read_head`.
    assert!("hi!early bytes".ends_with(&*String::from_utf8_lossy(&all)) && all.ends_with(b" bytes"));
    assert_eq!(counter(&proxy, "isobar_proxy_upgrades_total"), 1);
}

#[test]
fn a_client_that_ended_its_side_still_gets_its_reply() {
    let echo = answering(|request| ok(&request.first));
    let (_proxy, address) = start(config(&[echo]));
    let mut client = Client::new(address);
    assert_eq!(
        client.send("GET /half HTTP/1.1\r\nhost: x\r\n\r\n").end().read().text(),
        "GET /half HTTP/1.1"
    );
    assert!(client.is_closed());
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let early = upstream(|_, mut stream| {
        let mut left = Vec::new();
        read_message(&mut stream, &mut left, false);
        let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nbig!");
        let mut sink = [0; 4096];
        while stream.read(&mut sink).is_ok_and(|read| read > 0) {}
    });
    let (_proxy, address) = start(config(&[early]));
    let mut client = Client::new(address);
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\npart");
    let reply = client.read();
    assert_eq!(
        (reply.status(), reply.text().as_str(), reply.get("connection")),
        (413, "big!", Some("close"))
    );
}

#[test]
fn routes_rewrite_redirect_reply_and_break() {
    let echo = answering(|request| {
        ok(&format!(
            "{} {} {}",
            request.first,
            request.get("host").unwrap_or(""),
            request.get("x-set").unwrap_or("")
        ))
    });
    let rewritten = with_route(config(&[echo]), |route| {
        route.matches.path = PathMatch::Prefix("/old".into());
        route.rewrite.path = Some(PathEdit::ReplacePrefix("/new".into()));
        route.rewrite.host = Some("inner".into());
        route.rewrite.request.set = vec![("x-set".into(), "1".into())];
        route.rewrite.response = HeaderEdit { remove: vec!["content-type".into()], ..HeaderEdit::default() };
    });
    let (proxy, address) = start(rewritten.clone());
    let mut client = Client::new(address);
    assert_eq!(client.get("/old/a?b=c").text(), "GET /new/a?b=c HTTP/1.1 inner 1");
    assert_eq!(client.get("/old").text(), "GET /new HTTP/1.1 inner 1");
    let missing = client.get("/elsewhere");
    assert_eq!((missing.status(), missing.get("x-isobar-error")), (404, Some("no-route")));
    assert_eq!(missing.get("content-type"), Some("application/problem+json"));

    let redirect = with_route(rewritten.clone(), |route| {
        route.action = proxy::config::Action::Redirect(proxy::config::Redirect {
            status: 308,
            scheme: Some("https".into()),
            host: None,
            path: None,
        });
    });
    proxy.reload(redirect).expect("a good configuration");
    crate::support::eventually("the reload", || proxy.is_applied());
    let reply = client.get("/old/a?b=c");
    assert_eq!((reply.status(), reply.get("location")), (308, Some("https://test/old/a?b=c")));

    let broken = with_route(rewritten.clone(), |route| {
        route.fault.abort = Some(FaultAbort { kind: AbortKind::Status(418), share: Percent::WHOLE });
        route.fault.delay = Some(FaultDelay { delay: Nanos::from_millis(20), share: Percent::WHOLE });
    });
    proxy.reload(broken).expect("a good configuration");
    crate::support::eventually("the reload", || proxy.is_applied());
    assert_eq!(client.get("/old").status(), 418);

    let asked = with_route(rewritten, |route| route.fault.from_headers = Some(Percent::WHOLE));
    proxy.reload(asked).expect("a good configuration");
    crate::support::eventually("the reload", || proxy.is_applied());
    let request = "GET /old HTTP/1.1\r\nhost: x\r\nx-envoy-fault-abort-request: 503\r\n\r\n";
    assert_eq!(client.send(request).read().status(), 503);
    assert_eq!(client.get("/old").status(), 200);
}

#[test]
fn a_client_that_ended_its_side_gets_all_its_replies() {
    let (proxy, address) = start(config(&[answering(|request| ok(&request.first))]));
    let mut client = Client::new(address);
    client.send("GET /1 HTTP/1.1\r\nhost: t\r\n\r\nGET /2 HTTP/1.1\r\nhost: t\r\n\r\nGET /3 HTTP/1.1\r\nhost: t\r\n a: b\r\n\r\n");
    client.end();
    let said = [client.read(), client.read(), client.read()].map(|it| it.status());
    assert_eq!(said, [200, 200, 400], "what was sent before the end is answered, in order");
    assert!(client.is_closed());
    assert_eq!(counter(&proxy, "isobar_proxy_requests_total"), 2);
}

#[test]
fn our_own_replies_keep_the_connection() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let (_proxy, address) = start(config(&[nobody]));
    let mut client = Client::new(address);
    for request in
        ["GET / HTTP/1.1\r\nhost: t\r\n\r\n", "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi"]
    {
        let reply = client.send(request).read();
        assert_eq!((reply.status(), reply.get("connection")), (503, None), "{request:?}");
        let length = reply.get("content-length").expect("a length");
        assert_eq!(length, reply.body.len().to_string(), "without zeros in front");
    }
}

#[test]
fn a_body_before_another_protocol_is_sent_once() {
    let address = upstream(|_, mut stream| {
        let mut left = Vec::new();
        let request = read_message(&mut stream, &mut left, true).expect("a request");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        let _ = stream.write_all(&[&switch[..], b"had ", &request.body, b", then "].concat());
        let _ = stream.write_all(&left);
        let _ = std::io::copy(&mut stream.try_clone().expect("a handle"), &mut stream);
    });
    let (_proxy, address) = start(config(&[address]));
    let mut client = Client::new(address);
    client.send("POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 3\r\n\r\nabcEARLY");
    assert_eq!(client.read_head().status(), 101);
    client.end();
    let mut said = client.rest();
    let _ = client.stream.read_to_end(&mut said);
    assert_eq!(String::from_utf8_lossy(&said), "had abc, then EARLY");
}

#[test]
fn what_has_no_body_announces_none_and_somebody_is_always_asked() {
    let address = answering(|request| match request.first.split(' ').nth(1) {
        Some("/none") => b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n".to_vec(),
        Some(target) if target.contains("%00") => ok(target),
        _ => ok(request.get("host").unwrap_or("nobody")),
    });
    let (_proxy, door) = start(config(&[address]));
    let mut client = Client::new(door);
    let reply = client.get("/none");
    assert_eq!((reply.status(), reply.get("content-length")), (204, None));
    assert_eq!(client.get("/").text(), "test", "the connection is at the next request");
    assert_eq!(
        client.get("/a%00b?c=%00").text(),
        "/a%00b?c=%00",
        "an encoded zero is three bytes like any others"
    );
    for (target, line, host) in [
        ("http://Test:80/x", "test", "Test:80"),
        ("HTTPS://test/x?y", "TEST:443", "test"),
        ("https://test:443/x", "test", "test:443"),
        ("http://test", "test", "test"),
        ("https://test:1", "test:1", "test:1"),
    ] {
        let same = format!("GET {target} HTTP/1.1\r\nhost: {line}\r\n\r\n");
        assert_eq!(client.send(same).read().text(), host, "the target's authority is the host: {target}");
    }
    let reply = Client::new(door).send("GET / HTTP/1.0\r\n\r\n").read();
    assert_eq!(reply.text(), address.to_string(), "HTTP/1.0 without a host");
}
