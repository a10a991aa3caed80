//! Upstreams that do what no upstream should. Whatever they do, every request is answered and nothing is left behind.

use crate::support::{
    Client, answering, config, counter, eventually, ok, read_message, start, upstream, with_edge,
};
use policy::settings::{Backoff, Breaker, Jitter, Retry, Trip};
use proxy::Proxy;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use units::Nanos;

/// Nothing is in progress and nothing leaked: requests, connections and buffers are back where they were.
#[track_caller]
fn check_calm(proxy: &Proxy) {
    eventually("no requests in flight", || counter(proxy, "isobar_proxy_requests_in_flight") == 0);
    eventually("no client connections", || counter(proxy, "isobar_proxy_connections") == 0);
    eventually("only idle connections to instances", || {
        counter(proxy, "isobar_proxy_upstream_connections") == counter(proxy, "isobar_proxy_upstream_idle")
    });
}

#[test]
fn an_upstream_that_closes_at_any_byte_costs_its_own_request_only() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nX-A: b\r\n\r\n0123456789";
    let head = whole.len() - 10;
    let at = Arc::new(AtomicUsize::new(0));
    let cut = at.clone();
    let address = upstream(move |_, mut stream| {
        let mut left = Vec::new();
        while read_message(&mut stream, &mut left, true).is_some() {
            let end = cut.load(Ordering::SeqCst);
            let _ = stream.write_all(&whole[..end]);
            if end < whole.len() {
                return;
            }
        }
    });
    let (proxy, address) = start(with_edge(config(&[address]), |edge| edge.eject = None));
    for end in 0..=whole.len() {
        at.store(end, Ordering::SeqCst);
        let mut client = Client::new(address);
        let reply = client.get("/");
        if end < head {
            assert_eq!((reply.status(), reply.cut_short), (502, false), "closed after {end} bytes");
            assert_eq!(reply.get("x-isobar-error"), Some("connection-lost edge->api"));
        } else {
            assert_eq!(
                (reply.status(), reply.cut_short),
                (200, end < whole.len()),
                "closed after {end} bytes"
            );
        }
    }
    check_calm(&proxy);
    let sum: u64 = ["2xx", "5xx"]
        .iter()
        .map(|class| {
            counter(&proxy, &format!("isobar_edge_requests_total{{edge=\"edge->api\",class=\"{class}\"}}"))
        })
        .sum();
    assert_eq!(sum, whole.len() as u64 + 1, "every request is counted once");
}

#[test]
fn garbage_is_a_bad_gateway() {
    for garbage in [
        &b"\0\0\0\0\0\0\0\0"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\na: b\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        let address = upstream(move |_, mut stream| {
            let mut left = Vec::new();
            if read_message(&mut stream, &mut left, true).is_some() {
                let _ = stream.write_all(garbage);
                // Stays open: the proxy must not wait for more.
                let _ = read_message(&mut stream, &mut left, true);
            }
        });
        let (proxy, address) = start(config(&[address]));
        let reply = Client::new(address).get("/");
        assert_eq!(reply.status(), 502, "{:?}", String::from_utf8_lossy(garbage));
        check_calm(&proxy);
    }
    let flood = upstream(|_, mut stream| {
        let mut left = Vec::new();
        if read_message(&mut stream, &mut left, true).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"x-flood: yes, a lot of it\r\n").is_ok() {}
        }
    });
    let (_proxy, address) = start(config(&[flood]));
    assert_eq!(Client::new(address).get("/").status(), 502);
}

#[test]
fn bad_chunks_are_a_bad_gateway_or_a_reply_that_is_visibly_cut_short() {
    let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec();
    let address = answering(move |_| [&chunks[..], b"zz\r\n"].concat());
    let (proxy, address) = start(config(&[address]));
    assert_eq!(Client::new(address).get("/").status(), 502, "nothing had been sent yet");
    check_calm(&proxy);
    let address = upstream(|_, mut stream| {
        let mut left = Vec::new();
        read_message(&mut stream, &mut left, true);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        // The client has read these before the rest comes: it asks for that by its second request.
        read_message(&mut stream, &mut left, true);
    });
    let (proxy, address) = start(config(&[address]));
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.status(), 200);
    drop(client);
    check_calm(&proxy);
}

#[test]
fn an_upstream_that_drops_idle_connections_is_not_noticed() {
    // Closes after each reply without saying so: every reuse is a race that the proxy must win.
    let address = upstream(|_, mut stream| {
        let mut left = Vec::new();
        if let Some(request) = read_message(&mut stream, &mut left, true) {
            let _ = stream.write_all(&ok(&request.first));
        }
    });
    let (proxy, address) = start(config(&[address]));
    let mut client = Client::new(address);
    for n in 0..300 {
        assert_eq!(client.get(&format!("/{n}")).status(), 200, "request {n}");
    }
    drop(client);
    check_calm(&proxy);
}

#[test]
fn retries_go_elsewhere_and_stop_when_told() {
    let bad = answering(|_| b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec());
    let good = answering(|request| ok(&request.text()));
    let retry = Retry {
        backoff: Backoff { base: Nanos::ZERO, max: Nanos::ZERO, jitter: Jitter::None },
        budget: None,
        ..Retry::default()
    };
    let config = with_edge(config(&[bad, good]), |edge| {
        edge.retry = Some(retry);
        edge.eject = None;
    });
    let (proxy, address) = start(config);
    let mut client = Client::new(address);
    for _ in 0..50 {
        assert_eq!(client.get("/").status(), 200);
        let put = "PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(client.send(put).read().text(), "hello", "the body is sent again");
    }
    let mut refused = 0;
    for _ in 0..50 {
        let post = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
        refused += u32::from(client.send(post).read().status() == 503);
    }
    assert!(counter(&proxy, "isobar_edge_retries_total{edge=\"edge->api\"}") > 0);
    assert!(refused <= 50, "a POST that was answered is not sent again");
}

#[test]
fn streamed_bodies_are_replayed_too() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let address = answering(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        _ => ok(&request.body.len().to_string()),
    });
    let config = with_edge(config(&[address]), |edge| {
        edge.retry = Some(Retry { budget: None, ..Retry::default() });
        edge.eject = None;
    });
    let (_proxy, address) = start(config);
    let mut client = Client::new(address);
    let size = 50_000;
    client.send(format!("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"));
    for piece in vec![b'x'; size].chunks(1_000) {
        client.send(piece);
    }
    assert_eq!(client.read().text(), size.to_string());
    assert_eq!(client.get("/").status(), 200, "the connection is at the next request");
}

#[test]
fn no_instance_no_connection_no_time() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let check = |upstreams: &[SocketAddr], status: u16, error: &str| {
        let config = with_edge(config(upstreams), |edge| edge.timeout = Some(Nanos::from_millis(80)));
        let (proxy, address) = start(config);
        let reply = Client::new(address).get("/");
        assert_eq!((reply.status(), reply.get("x-isobar-error")), (status, Some(error)));
        check_calm(&proxy);
    };
    check(&[], 503, "no-instance edge->api");
    check(&[closed], 503, "connect-failed edge->api");
    let silent = upstream(|_, mut stream| {
        let mut left = Vec::new();
        while read_message(&mut stream, &mut left, true).is_some() {}
    });
    check(&[silent], 504, "timeout edge->api");
}

#[test]
fn an_open_breaker_refuses_at_once() {
    let bad = answering(|_| b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec());
    let config = with_edge(config(&[bad]), |edge| {
        edge.breaker = Some(Breaker { trip: Trip::Consecutive { failures: 3 }, ..Breaker::default() });
    });
    let (proxy, address) = start(config);
    let mut client = Client::new(address);
    let statuses: Vec<u16> = (0..5).map(|_| client.get("/").status()).collect();
    assert_eq!(statuses, [500, 500, 500, 503, 503]);
    assert_eq!(counter(&proxy, "isobar_edge_breaker_refused_total{edge=\"edge->api\"}"), 2);
}

#[test]
fn a_failing_instance_is_ejected() {
    let bad = answering(|_| b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec());
    let good = answering(|_| ok("fine"));
    let (_proxy, address) = start(config(&[bad, good]));
    let mut client = Client::new(address);
    let statuses: Vec<u16> = (0..100).map(|_| client.get("/").status()).collect();
    let failed = statuses.iter().filter(|status| **status != 200).count();
    assert!(failed <= 10, "five in a row eject, and before that failures are avoided: {statuses:?}");
}
