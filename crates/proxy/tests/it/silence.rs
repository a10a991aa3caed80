//! Instances that are there and say nothing: connections of HTTP/2 whose peer is gone without having said so.

use crate::streams::{Raw, ask, block_on, client, frame, http2};
use crate::support::{Client, counter, eventually, start, with_edge};
use policy::settings::Retry;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use units::Nanos;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An upstream of HTTP/2 whose first connection answers so many requests and then, without a word, nothing more: no
/// request, no ping, and it does not close either. Later ones answer everything. Says when the first was closed on it.
fn falls_silent(answers: usize) -> (SocketAddr, Arc<AtomicBool>) {
    let closed = Arc::new(AtomicBool::new(false));
    let ended = closed.clone();
    let address = crate::support::upstream(move |number, stream| {
        let mut raw = Raw(stream);
        let _ = raw.0.read_exact(&mut [0; 24]);
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        let mut left = if number == 0 { answers } else { usize::MAX };
        while let Some((kind, flags, stream, payload)) = raw.read() {
            match kind {
                HEADERS if left > 0 => {
                    left -= 1;
                    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]));
                }
                PING if left > 0 && flags == 0 => raw.send(&frame(PING, 1, 0, &payload)),
                SETTINGS if flags == 0 => raw.send(&frame(SETTINGS, 1, 0, &[])),
                _ => {}
            }
        }
        ended.fetch_or(number == 0, SeqCst);
    });
    (address, closed)
}

#[test]
fn a_connection_whose_peer_fell_silent_is_given_up_and_replaced() {
    let check = |answers: usize, timeout: Nanos, expected: &str| {
        let (address, closed) = falls_silent(answers);
        let mut config = with_edge(http2(address), |edge| edge.timeout = Some(timeout));
        config.timeouts.silence = Nanos::from_millis(200);
        let (proxy, address) = start(config);
        let mut asking = Client::new(address);
        for _ in 0..answers {
            assert_eq!(asking.get("/").status(), 200);
        }
        let first = asking.get("/");
        assert_eq!(first.get("x-isobar-error"), Some(expected), "after {answers}");
        eventually("another is made", || Client::new(address).get("/").status() == 200);
        eventually("the old one is closed", || closed.load(SeqCst));
        assert_eq!(counter(&proxy, "isobar_proxy_upstream_silent_total"), 1);
        assert_eq!(counter(&proxy, "isobar_edge_connections_total{edge=\"edge->api\"}"), 2);
        drop(asking);
        eventually("no request is left", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
    };
    // Its requests fail with it, or by their own time, whichever is first.
    check(3, Nanos::from_secs(60), "connection-lost edge->api");
    check(1, Nanos::from_millis(50), "timeout edge->api");
    check(0, Nanos::from_millis(50), "timeout edge->api");
}

#[test]
fn what_is_lost_with_a_silent_connection_is_asked_of_another() {
    let (address, _) = falls_silent(2);
    let mut config = with_edge(http2(address), |edge| {
        edge.retry = Some(Retry { attempts: 2, ..Retry::default() });
    });
    config.timeouts.silence = Nanos::from_millis(200);
    let (proxy, address) = start(config);
    let mut asking = Client::new(address);
    for _ in 0..5 {
        assert_eq!(asking.get("/").status(), 200);
    }
    block_on(async {
        let sender = client(address).await;
        assert_eq!(ask(&sender, "/").await.expect("answered").0, 200);
    });
    assert_eq!(counter(&proxy, "isobar_proxy_upstream_silent_total"), 1);
    assert_eq!(counter(&proxy, "isobar_edge_retries_total{edge=\"edge->api\"}"), 1);
}
