//! Clients that leave in the middle: at every byte of a request, by ending, by resetting and by falling silent. Whatever
//! they do, what was whole is answered, the rest is let go, and everything is back where it was.

use crate::streams::{self, Raw};
use crate::support::{answering, config, counter, eventually, ok, read_message, start, upstream};
use proxy::Proxy;
use proxy::config::Config;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use units::Nanos;

/// What is in use while nothing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Baseline {
    connections: u64,
    in_flight: u64,
    busy_upstream: u64,
    replay_bytes: u64,
    /// Kept by runners and by connections that wait for their next request.
    buffers: u64,
    timers: u64,
}

fn read_baseline(proxy: &Proxy) -> Baseline {
    let of = |name: &str| counter(proxy, &format!("isobar_proxy_{name}"));
    Baseline {
        connections: of("connections"),
        in_flight: of("requests_in_flight"),
        busy_upstream: of("upstream_connections") - of("upstream_idle").min(of("upstream_connections")),
        replay_bytes: of("replay_bytes"),
        buffers: of("buffers_lent"),
        timers: of("timers"),
    }
}

/// Nothing is under way. Runners keep a timer and two buffers each for the next burst, and there are so many of them.
#[track_caller]
fn check_settled(proxy: &Proxy, runners_max: u64) {
    eventually("everything is back", || {
        let now = read_baseline(proxy);
        (now.connections, now.in_flight, now.busy_upstream, now.replay_bytes) == (0, 0, 0, 0)
            && now.timers <= runners_max
            && now.buffers <= 2 * runners_max
    });
}

/// Every request that was read ended in exactly one way.
#[track_caller]
fn check_sums(proxy: &Proxy) {
    let requests = counter(proxy, "isobar_proxy_requests_total");
    let told: u64 = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
        .iter()
        .map(|class| {
            counter(proxy, &format!("isobar_edge_requests_total{{edge=\"edge->api\",class=\"{class}\"}}"))
        })
        .sum();
    assert_eq!(requests, told, "requests read and requests ended");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Ends,
    Resets,
    FallsSilent,
}

/// Sends the first bytes and leaves. What came back, if somebody was there to read it.
fn leave(address: SocketAddr, bytes: &[u8], how: Leaving) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("settable");
    stream.write_all(bytes).expect("a few bytes");
    match how {
        Leaving::Resets => {
            let now = Some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(now).expect("settable");
            return Vec::new();
        }
        Leaving::Ends => stream.shutdown(Shutdown::Write).expect("open"),
        Leaving::FallsSilent => {}
    }
    // Until the proxy closes: after its answer, or when its patience ends.
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said
}

/// Time-outs short enough to wait for.
fn impatient(address: SocketAddr) -> Config {
    let mut config = config(&[address]);
    config.timeouts.header_read = Nanos::from_millis(60);
    config.timeouts.body_read = Nanos::from_millis(60);
    config.timeouts.keep_alive = Nanos::from_millis(60);
    config
}

#[test]
fn a_client_may_leave_at_any_byte_of_a_request() {
    let messages: [(&str, &[u8]); 3] = [
        ("GET", b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n"),
        ("POST with a length", b"POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nabcdef"),
        (
            "POST in chunks",
            b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
        ),
    ];
    let (proxy, address) = start(impatient(answering(|request| ok(&request.first))));
    let mut came = 0;
    for (what, whole) in messages {
        for how in [Leaving::Ends, Leaving::Resets, Leaving::FallsSilent] {
            std::thread::scope(|scope| {
                for end in 1..=whole.len() {
                    scope.spawn(move || {
                        let said = String::from_utf8_lossy(&leave(address, &whole[..end], how)).into_owned();
                        let status = said.split(' ').nth(1).unwrap_or("none");
                        let expected: &[&str] = match (how, end == whole.len()) {
                            (Leaving::Resets, _) => &["none"],
                            (_, true) => &["200"],
                            // Nothing whole can come of it any more, and who has ended expects nothing. However many bodies
                            // stall at once, that is no sign of an instance that has enough to do.
                            (Leaving::Ends, false) => &["none"],
                            (Leaving::FallsSilent, false) => &["408"],
                        };
                        assert!(expected.contains(&status), "{what}, {how:?} after {end} bytes: {said:?}");
                    });
                }
            });
            // Who is gone may still stand before the door.
            came += whole.len() as u64;
            eventually("all were let in", || {
                counter(&proxy, "isobar_proxy_connections_accepted_total") == came
            });
            // A connection of HTTP/1 takes its timer along; its runner's buffers stay.
            check_settled(&proxy, 100);
            eventually("no timer is left", || counter(&proxy, "isobar_proxy_timers") == 0);
            check_sums(&proxy);
        }
    }
}

#[test]
fn a_client_of_http2_may_leave_at_any_byte_too() {
    let whole = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        streams::frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
        streams::frame(1, 4, 1, &streams::get(&[("content-length", "6")])),
        streams::frame(0, 0, 1, b"abc"),
        streams::frame(0, 1, 1, b"def"),
    ]
    .concat();
    let h1 = answering(|request| ok(&request.text()));
    let h2 = streams::upstream(100, |_, (request, mut respond)| async move {
        if let Ok((body, _)) = streams::read(request.into_body()).await
            && let Ok(mut stream) = respond.send_response(http::Response::new(()), false)
        {
            let _ = stream.send_data(body.into(), true);
        }
    });
    let mut to_streams = streams::http2(h2);
    to_streams.timeouts = impatient(h1).timeouts;
    for (what, config) in [("to HTTP/1", impatient(h1)), ("to HTTP/2", to_streams)] {
        let (proxy, address) = start(config);
        for how in [Leaving::Ends, Leaving::Resets, Leaving::FallsSilent] {
            std::thread::scope(|scope| {
                for end in 1..=whole.len() {
                    let whole = &whole;
                    scope.spawn(move || {
                        let said = leave(address, &whole[..end], how);
                        // Whoever stays is answered: a reply to the whole request, and a goodbye at the least.
                        if how == Leaving::FallsSilent {
                            assert!(!said.is_empty(), "{what}, silent after {end} bytes");
                        }
                        if how == Leaving::FallsSilent && end == whole.len() {
                            assert!(said.windows(6).any(|it| it == b"abcdef"), "{what}: {said:?}");
                        }
                    });
                }
            });
            eventually("no client is left", || counter(&proxy, "isobar_proxy_connections") == 0);
            eventually("no request is left", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
            check_sums(&proxy);
        }
    }
}

#[test]
fn an_instance_may_leave_at_any_byte_while_the_client_still_sends() {
    // It reads so much of a request whose body goes on, and then ends or resets, without an answer or with one.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let address = upstream(move |number, mut stream| {
        let mut some = vec![0; 1 + number * 7 % 200];
        let _ = stream.read_exact(&mut some);
        if number.is_multiple_of(3) {
            let _ = stream.write_all(head);
        }
        if number.is_multiple_of(2) {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    });
    let mut config = impatient(address);
    config.timeouts.body_read = Nanos::from_secs(5);
    let config = crate::support::with_edge(config, |edge| edge.eject = None);
    let (proxy, address) = start(config);
    for number in 0..120usize {
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("settable");
        let body = vec![b'x'; 40_000];
        let _ = stream.write_all(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 40000\r\n\r\n");
        let _ = stream.write_all(&body[..20_000]);
        let _ = stream.write_all(&body[20_000..]);
        let reply =
            read_message(&mut stream, &mut Vec::new(), true).expect("an answer, whatever happened behind");
        assert!([200, 502].contains(&reply.status()) && !reply.cut_short, "request {number}: {reply:?}");
    }
    check_settled(&proxy, 10);
    check_sums(&proxy);
}

/// Hand-made frames as often as they are taken, until the proxy hangs up.
fn flood(address: SocketAddr, of: impl Fn(u32) -> Vec<u8>, count: u32) {
    let mut raw = Raw::new(address);
    for batch in 0..count / 50 {
        let frames: Vec<u8> = (batch * 50..batch * 50 + 50).flat_map(&of).collect();
        raw.send(&frames);
    }
    while raw.read().is_some() {}
}

#[test]
fn floods_and_slow_heads_leave_nothing_behind() {
    let (proxy, address) = start(impatient(answering(|_| ok("fine"))));
    let open = |id: u32| streams::frame(1, 5, 2 * id + 1, &streams::get(&[]));
    let one_of_each = || {
        flood(address, |n| [open(n), streams::frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat(), 3_000);
        flood(address, |_| streams::frame(6, 0, 0, &[0; 8]), 3_000);
        flood(address, |_| streams::frame(4, 0, 0, &[0, 4, 0, 0, 1, 0]), 3_000);
        flood(address, |n| streams::frame(if n == 0 { 1 } else { 9 }, 0, 1, &[0x82; 8]), 200);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                // One byte of a head at a time, until patience ends.
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(address).expect("the proxy listens");
                    for byte in b"GET / HTTP/1.1\r\nHost: slow\r\nX-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                    {
                        if stream.write_all(&[*byte]).is_err() {
                            return;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        // As many runners of streams are kept as a burst may need, however many bursts there were.
        check_settled(&proxy, 512);
    };
    (0..3).for_each(|_| one_of_each());
    assert!(counter(&proxy, "isobar_proxy_h2_calmed_total") >= 12);
    assert!(counter(&proxy, "isobar_proxy_header_timeouts_total") >= 100);
    assert_eq!(crate::support::Client::new(address).get("/").text(), "fine");
}
