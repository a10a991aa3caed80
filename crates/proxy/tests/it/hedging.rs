//! Copies of requests: a slow instance and a fast one, and what is left when one of two was answered.

use crate::streams;
use crate::support::{
    Client, PATIENCE, answering, config, counter, eventually, ok, read_message, start, upstream, with_edge,
};
use bytes::Bytes;
use http::{HeaderMap, Response};
use policy::Outcome;
use policy::settings::{Balance, BalanceKind, Budget, EdgeSettings, Hedge, Retry};
use proxy::Proxy;
use proxy::config::{Config, Protocol, Service};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use units::{Nanos, Percent, Rate};

const NAME: &str = "{edge=\"edge->api\"}";

fn count(proxy: &Proxy, name: &str) -> u64 {
    counter(proxy, &format!("isobar_edge_{name}_total{NAME}"))
}

/// Copies after 20 ms, in turn, and nothing else that would send elsewhere.
fn hedging(edge: &mut EdgeSettings, floor: u64) {
    let budget =
        Budget { ratio: Percent::ZERO, floor: Rate::per_second_whole(floor), window: Nanos::from_secs(1) };
    edge.hedge = Some(Hedge { after: Nanos::from_millis(20), copies: 2, budget });
    edge.balance = Balance { kind: BalanceKind::RoundRobin, ..edge.balance };
    (edge.retry, edge.eject, edge.timeout) = (None, None, None);
}

fn hedged(upstreams: &[SocketAddr], floor: u64) -> Config {
    with_edge(config(upstreams), |edge| hedging(edge, floor))
}

/// Takes requests and never answers. Counts those whose connection was closed without an answer.
fn silent() -> (SocketAddr, Arc<AtomicU64>) {
    let given_up = Arc::new(AtomicU64::new(0));
    let count = given_up.clone();
    let address = upstream(move |_, mut stream| {
        let mut left = Vec::new();
        if read_message(&mut stream, &mut left, true).is_some() {
            let mut rest = [0; 16];
            if matches!(stream.read(&mut rest), Ok(0) | Err(_)) {
                count.fetch_add(1, SeqCst);
            }
        }
    });
    (address, given_up)
}

/// Nothing is at any instance any more, as the balancers and the gates count it.
#[track_caller]
fn check_slots_free(proxy: &Proxy) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let observer = proxy.observer();
    eventually("every copy has given back its place", || {
        let census = runtime.block_on(observer.census(PATIENCE));
        census.silent_workers == 0 && census.instances.iter().all(|it| it.in_flight == 0)
    });
    eventually("no request is left", || counter(proxy, "isobar_proxy_requests_in_flight") == 0);
    eventually("no connection is busy", || {
        counter(proxy, "isobar_proxy_upstream_connections") == counter(proxy, "isobar_proxy_upstream_idle")
    });
}

#[test]
fn the_fast_instance_answers_for_the_slow_one() {
    let (slow, given_up) = silent();
    let fast = answering(|request| ok(&format!("{} {}", request.first, request.text())));
    let (proxy, address) = start(hedged(&[slow, fast], 1_000));
    let events = proxy.events(64);
    let mut client = Client::new(address);
    for n in 0..10 {
        let reply = client.get(&format!("/{n}"));
        assert_eq!((reply.status(), reply.text()), (200, format!("GET /{n} HTTP/1.1 ")), "request {n}");
        let put = format!("PUT /{n} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!(client.send(put).read().text(), format!("PUT /{n} HTTP/1.1 hello"), "its body goes along");
        let chunked =
            "PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(client.send(chunked).read().text(), "PUT / HTTP/1.1 hello");
    }
    let hedges = count(&proxy, "hedges");
    assert!((10..=30).contains(&hedges), "in turn, half of them at least go to the slow one first: {hedges}");
    assert_eq!(count(&proxy, "hedges_won"), hedges);
    assert_eq!(count(&proxy, "hedges_cancelled"), hedges);
    assert_eq!(count(&proxy, "attempts"), 30 + hedges);
    assert_eq!(count(&proxy, "retries"), 0, "a copy is no retry");
    eventually("the slow one's connections were closed", || given_up.load(SeqCst) == hedges);
    check_slots_free(&proxy);
    let told: Vec<_> =
        (0..30).map(|_| events.recv_timeout(PATIENCE).expect("every request is told")).collect();
    let twice: Vec<_> = told.iter().filter(|it| it.attempts == 2).collect();
    assert_eq!(twice.len() as u64, hedges);
    for event in twice {
        let tries = event.tries.as_deref().expect("two attempts");
        let of = |at: usize| (tries[at].is_hedge, tries[at].instance, tries[at].outcome);
        assert_eq!(of(0), (false, slow, Outcome::Cancelled));
        assert_eq!(of(1), (true, fast, Outcome::Status(200)));
        assert!(tries[1].began >= Nanos::from_millis(20) && tries[0].lasted >= tries[1].began);
        assert_eq!((event.instance, event.client_span), (Some(fast), tries[1].span));
    }
}

#[test]
fn without_budget_or_for_what_must_not_be_done_twice_there_is_one_copy() {
    let check = |floor: u64, method: &str, refused: u64| {
        let (slow, _) = silent();
        let (other, _) = silent();
        let config = with_edge(hedged(&[slow, other], floor), |edge| {
            edge.timeout = Some(Nanos::from_millis(120));
        });
        let (proxy, address) = start(config);
        let mut client = Client::new(address);
        client.send(format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!(client.read().status(), 504);
        assert_eq!((count(&proxy, "hedges"), count(&proxy, "attempts")), (0, 1), "{method}");
        assert_eq!(count(&proxy, "hedges_refused"), refused, "{method}");
        drop(client);
        check_slots_free(&proxy);
    };
    check(0, "GET", 1);
    check(1_000, "POST", 0);
    // Alone there is nobody to send another copy to.
    let (slow, given_up) = silent();
    let config = with_edge(hedged(&[slow], 1_000), |edge| edge.timeout = Some(Nanos::from_millis(120)));
    let (proxy, address) = start(config);
    assert_eq!(Client::new(address).get("/").status(), 504);
    assert_eq!(count(&proxy, "hedges"), 0);
    eventually("the only copy was given up", || given_up.load(SeqCst) == 1);
    check_slots_free(&proxy);
}

#[test]
fn a_copy_that_fails_leaves_the_answer_to_the_other() {
    // The first is silent until the second was asked, and the second fails: the first good answer wins, not the first.
    let (asked, told) = mpsc::sync_channel::<()>(64);
    let (asked, told) = (Mutex::new(asked), Mutex::new(told));
    let late = answering(move |_| {
        let told = told.lock().expect("one at a time");
        // What was said before this request came is not about it.
        while told.try_recv().is_ok() {}
        let _ = told.recv_timeout(PATIENCE);
        ok("late")
    });
    let failing = answering(move |_| {
        let _ = asked.lock().expect("one at a time").try_send(());
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec()
    });
    let (proxy, address) = start(hedged(&[late, failing], 1_000));
    let mut client = Client::new(address);
    let statuses: Vec<u16> = (0..2).map(|_| client.get("/").status()).collect();
    assert!(statuses.contains(&200), "{statuses:?}");
    assert_eq!((count(&proxy, "hedges").min(1), count(&proxy, "hedges_won")), (1, 0));
    drop(client);
    check_slots_free(&proxy);
    // And where all fail, a retry may follow.
    let failing = || answering(|_| b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec());
    let good = answering(|_| ok("good"));
    let config = with_edge(hedged(&[failing(), failing(), good], 1_000), |edge| {
        edge.retry = Some(Retry { attempts: 3, budget: None, ..Retry::default() });
    });
    let (proxy, address) = start(config);
    let mut client = Client::new(address);
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(count(&proxy, "retries") > 0);
}

#[test]
fn a_client_that_leaves_takes_all_copies_along() {
    let (one, first) = silent();
    let (two, second) = silent();
    let (proxy, address) = start(hedged(&[one, two], 1_000));
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    eventually("there are two copies", || count(&proxy, "hedges") == 1);
    // A reset, for a client that only ends its side may still be reading.
    socket2::SockRef::from(&client.stream).set_linger(Some(std::time::Duration::ZERO)).expect("settable");
    drop(client);
    eventually("both were given up", || first.load(SeqCst) + second.load(SeqCst) == 2);
    assert_eq!(count(&proxy, "cancelled"), 1);
    check_slots_free(&proxy);
}

/// Like [`eventually`], while the client's connection goes on.
async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it never happened: {what}");
}

/// An upstream of HTTP/2 that never answers, and how many of its streams were reset.
fn silent_streams() -> (SocketAddr, Arc<AtomicU64>) {
    let resets = Arc::new(AtomicU64::new(0));
    let count = resets.clone();
    let address = streams::upstream(100, move |_, (request, mut respond)| {
        let count = count.clone();
        async move {
            let _ = streams::read(request.into_body()).await;
            if matches!(poll_fn(|cx| respond.poll_reset(cx)).await, Ok(h2::Reason::CANCEL)) {
                count.fetch_add(1, SeqCst);
            }
        }
    });
    (address, resets)
}

#[test]
fn streams_and_unary_calls_are_hedged_and_the_loser_is_reset() {
    let (slow, resets) = silent_streams();
    let fast = streams::upstream(100, |_, (request, mut respond)| async move {
        let (body, _) = streams::read(request.into_body()).await.expect("a body");
        let reply = Response::builder().header("content-type", "application/grpc");
        let mut stream = respond.send_response(reply.body(()).expect("a reply"), false).expect("sent");
        streams::send(&mut stream, Bytes::from(body), false).await;
        let mut trailer = HeaderMap::new();
        trailer.insert("grpc-status", "0".parse().expect("a value"));
        stream.send_trailers(trailer).expect("sent");
    });
    let mut config = with_edge(config(&[slow, fast]), |edge| {
        hedging(edge, 1_000);
        // Time for the whole call to arrive on a machine that is busy with other things.
        edge.hedge = edge.hedge.map(|hedge| Hedge { after: Nanos::from_millis(150), ..hedge });
        // The file says of this call that it may be done twice.
        edge.retry = Some(Retry { attempts: 1, non_idempotent: true, ..Retry::default() });
    });
    let service = Service { protocol: Protocol::Http2, ..Service::http1("api", &[slow, fast]) };
    config.services = vec![Arc::new(service)];
    let (proxy, address) = start(config);
    streams::block_on(async {
        let sender = streams::client(address).await;
        for n in 0..6 {
            let mut sender = sender.clone().ready().await.expect("a stream");
            let call = streams::request(
                "POST",
                "/a.B/C",
                &[("content-type", "application/grpc"), ("te", "trailers")],
            );
            let (response, mut stream) = sender.send_request(call, false).expect("sent");
            assert!(streams::send(&mut stream, Bytes::from_static(b"\0\0\0\0\x02hi"), true).await);
            let (body, trailer) =
                streams::read(response.await.expect("a reply").into_body()).await.expect("whole");
            assert_eq!(body, b"\0\0\0\0\x02hi", "call {n}");
            assert_eq!(trailer.expect("a trailer")["grpc-status"], "0");
        }
    });
    let hedges = count(&proxy, "hedges");
    assert!((3..=6).contains(&hedges), "{hedges}");
    assert_eq!((count(&proxy, "hedges_won"), count(&proxy, "hedges_cancelled")), (hedges, hedges));
    eventually("the silent one's streams were reset", || resets.load(SeqCst) == hedges);
    eventually("no request is left", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
}

#[test]
fn a_stream_that_takes_its_time_is_not_hedged_and_arrives_whole() {
    let echo = || {
        streams::upstream(100, |_, (request, mut respond)| async move {
            let (body, _) = streams::read(request.into_body()).await.expect("a body");
            let mut stream = respond.send_response(Response::new(()), false).expect("sent");
            streams::send(&mut stream, Bytes::from(body.len().to_string()), true).await;
        })
    };
    let (one, two) = (echo(), echo());
    let mut config = with_edge(config(&[one, two]), |edge| hedging(edge, 1_000));
    let service = Service { protocol: Protocol::Http2, ..Service::http1("api", &[one, two]) };
    config.services = vec![Arc::new(service)];
    let (proxy, address) = start(config);
    streams::block_on(async {
        let sender = streams::client(address).await;
        // Shorter than what is gathered, longer than what is kept, and one whose end comes late.
        for (size, late) in [(10, false), (70_000, false), (300_000, false), (10, true)] {
            let mut sender = sender.clone().ready().await.expect("a stream");
            let (response, mut stream) =
                sender.send_request(streams::request("PUT", "/", &[]), false).expect("sent");
            assert!(streams::send(&mut stream, Bytes::from(vec![b'x'; size]), !late).await);
            if late {
                soon("the request is under way", || count(&proxy, "attempts") == 4).await;
                assert!(streams::send(&mut stream, Bytes::from_static(b"y"), true).await);
            }
            let (body, _) = streams::read(response.await.expect("a reply").into_body()).await.expect("whole");
            assert_eq!(String::from_utf8_lossy(&body), (size + usize::from(late)).to_string());
        }
    });
    assert_eq!(counter(&proxy, "isobar_proxy_replay_bytes"), 0, "nothing is kept of what is over");
    assert_eq!(counter(&proxy, "isobar_proxy_replays_forgone_total"), 2);
}

#[test]
fn a_stream_in_front_of_http1_is_hedged_and_cancelled_too() {
    let (slow, given_up) = silent();
    let fast = answering(|request| ok(&request.text()));
    let (proxy, address) = start(hedged(&[slow, fast], 1_000));
    streams::block_on(async {
        let sender = streams::client(address).await;
        for _ in 0..6 {
            assert_eq!(streams::ask(&sender, "/").await.expect("an answer").0, 200);
        }
    });
    let hedges = count(&proxy, "hedges");
    assert!((2..=6).contains(&hedges), "{hedges}");
    eventually("the slow one's connections were closed", || given_up.load(SeqCst) == hedges);
    // A client that resets its stream is gone, whatever speaks behind.
    let (silent, given_up) = silent();
    let (proxy, address) = start(config(&[silent]));
    streams::block_on(async {
        let mut sender = streams::client(address).await.ready().await.expect("a stream");
        let (response, mut stream) =
            sender.send_request(streams::request("GET", "/", &[]), true).expect("sent");
        soon("it is asked", || count(&proxy, "attempts") == 1).await;
        stream.send_reset(h2::Reason::CANCEL);
        assert!(response.await.is_err());
        soon("its instance is told", || given_up.load(SeqCst) == 1).await;
    });
    assert_eq!((given_up.load(SeqCst), count(&proxy, "cancelled")), (1, 1));
    check_slots_free(&proxy);
}

#[test]
fn bodies_kept_for_retries_have_a_limit_each_and_together() {
    // Refuses the first request of each connection without an answer, so that whoever kept its body is sent again.
    let address = upstream(|number, mut stream| {
        let mut left = Vec::new();
        while let Some(message) = read_message(&mut stream, &mut left, true) {
            let reply = match message.get("isobar-attempt") {
                Some(attempt) if attempt != "0" => ok(&message.body.len().to_string()),
                _ => b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            };
            if stream.write_all(&reply).is_err() || number == usize::MAX {
                return;
            }
        }
    });
    let config = |total: u64| {
        let mut config = with_edge(config(&[address]), |edge| {
            edge.retry = Some(Retry { budget: None, ..Retry::default() });
            edge.eject = None;
        });
        config.limits.replay_bytes_total = units::Bytes::from_kib(total);
        config
    };
    let put = |client: &mut Client, size: usize| {
        client.send(format!("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"));
        for piece in vec![b'x'; size].chunks(8_000) {
            client.send(piece);
        }
        client.read().status()
    };
    let check = |total: u64, size: usize, status: u16, forgone: u64| {
        let (proxy, address) = start(config(total));
        let mut client = Client::new(address);
        assert_eq!(put(&mut client, size), status, "{size} bytes of {total} KiB");
        assert_eq!(counter(&proxy, "isobar_proxy_replays_forgone_total"), forgone, "{size} of {total} KiB");
        assert_eq!(counter(&proxy, "isobar_proxy_replay_bytes"), 0, "it is over");
        assert_eq!(put(&mut client, 10), 200, "the connection is at the next request");
    };
    check(1_024, 50_000, 200, 0);
    check(1_024, 100_000, 503, 1);
    check(40, 50_000, 503, 1);
    // Two together: the second has no room while the first is under way.
    let (proxy, address) = start(config(70));
    let mut first = Client::new(address);
    first.send("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 50001\r\n\r\n").send(vec![b'x'; 50_000]);
    eventually("the first is kept", || counter(&proxy, "isobar_proxy_replay_bytes") == 50_000);
    assert_eq!(put(&mut Client::new(address), 50_000), 503);
    assert_eq!(counter(&proxy, "isobar_proxy_replay_bytes"), 50_000);
    assert_eq!(first.send("x").read().text(), "50001");
    assert_eq!(put(&mut first, 50_000), 200, "there is room again");
    assert_eq!(counter(&proxy, "isobar_proxy_replay_bytes"), 0);
}
