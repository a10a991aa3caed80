//! What the file says of an edge or a listener holds exactly, is counted, and is given back.

use crate::support::{
    Client, Message, answering, config, counter, eventually, ok, start, upstream, with_edge, with_route,
};
use policy::settings::{Balance, BalanceKind, Concurrency, HashOn, Priority, Queue, RateLimit};
use proxy::config::Config;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use units::{Bytes, Nanos, Rate};

/// An upstream that answers once it is told to, and knows how many wait for that.
#[derive(Clone, Default)]
struct Held(Arc<(Mutex<bool>, Condvar, AtomicUsize)>);

impl Held {
    fn upstream(&self) -> SocketAddr {
        let held = self.clone();
        answering(move |_| {
            let (open, told, waiting) = &*held.0;
            waiting.fetch_add(1, Ordering::SeqCst);
            let mut open = open.lock().expect("no panic");
            while !*open {
                open = told.wait(open).expect("no panic");
            }
            waiting.fetch_sub(1, Ordering::SeqCst);
            ok("held")
        })
    }

    fn waiting(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

fn ask(address: SocketAddr, more: &str) -> Client {
    let mut client = Client::new(address);
    client.send(format!("GET / HTTP/1.1\r\nhost: test\r\n{more}\r\n"));
    client
}

fn said(message: &Message) -> (u16, &str) {
    (message.status(), message.get("x-isobar-error").unwrap_or(""))
}

#[test]
fn calls_at_once_are_limited_and_places_come_back() {
    let held = Held::default();
    let (proxy, address) = start(with_edge(config(&[held.upstream()]), |edge| {
        edge.concurrency = Some(Concurrency::Static { max: 2 });
    }));
    let mut inside = [ask(address, ""), ask(address, "")];
    eventually("both are inside", || held.waiting() == 2);
    let refused = ask(address, "").read();
    assert_eq!(said(&refused), (503, "concurrency-limit edge->api"));
    assert_eq!(refused.get("retry-after"), Some("1"));
    // One that gives up leaves its place.
    let gone = inside[0].stream.try_clone().expect("a clone");
    socket2::SockRef::from(&gone).set_linger(Some(std::time::Duration::ZERO)).expect("settable");
    drop(gone);
    held.open();
    for client in &mut inside {
        assert_eq!(client.read().status(), 200);
    }
    for _ in 0..3 {
        assert_eq!(ask(address, "").read().status(), 200);
    }
    assert_eq!(counter(&proxy, "isobar_edge_quota_refused_total{edge=\"edge->api\"}"), 1);
}

#[test]
fn rates_hold_for_edges_and_routes_and_survive_reloads() {
    let limit = RateLimit { rate: Rate::from_per_second(0.1), burst: 2 };
    for on_edge in [true, false] {
        let config = config(&[answering(|_| ok("fine"))]);
        let config = if on_edge {
            with_edge(config, |edge| edge.rate_limit = Some(limit))
        } else {
            with_route(config, |route| route.rate_limit = Some(limit))
        };
        let (proxy, address) = start(config.clone());
        let mut client = Client::new(address);
        assert_eq!([client.get("/").status(), client.get("/").status()], [200, 200], "the burst");
        let refused = client.get("/");
        assert_eq!(refused.status(), 429);
        assert!(refused.get("x-isobar-error").is_some_and(|it| it.starts_with("rate-limited")));
        let wait: u32 = refused.get("retry-after").and_then(|it| it.parse().ok()).expect("seconds");
        assert!((1..=10).contains(&wait), "{wait}");
        // Another route comes in: what was used up is used up.
        let mut more = config;
        more.source = "again".into();
        let extra = proxy::config::Route::forward(
            "more",
            proxy::config::PathMatch::Prefix("/more".into()),
            "edge->api",
        );
        let mut listener = (*more.listeners[0]).clone();
        listener.routes.push(Arc::new(extra));
        more.listeners[0] = Arc::new(listener);
        proxy.reload(more).expect("it is good");
        eventually("it is in force", || proxy.is_applied());
        assert_eq!(client.get("/").status(), 429, "a reload refills nothing (on_edge: {on_edge})");
    }
}

#[test]
fn a_priority_is_read_lowered_and_passed_on() {
    let api = answering(|request| ok(request.get("isobar-priority").unwrap_or("none")));
    let check = |edges: Priority, trusted: bool, line: &str, expected: &str| {
        let mut config = with_edge(config(&[api]), |edge| edge.priority = edges);
        let mut listener = (*config.listeners[0]).clone();
        listener.trusts_headers = trusted;
        config.listeners[0] = Arc::new(listener);
        let (_proxy, address) = start(config);
        assert_eq!(ask(address, line).read().text(), expected, "{edges:?} {trusted} {line:?}");
    };
    let sheddable = "isobar-priority: sheddable\r\n";
    check(Priority::Critical, true, "", "none");
    check(Priority::Critical, true, sheddable, "sheddable");
    check(Priority::Critical, true, "isobar-priority: Critical-Plus\r\n", "critical-plus");
    check(Priority::Critical, true, "isobar-priority: most important\r\n", "none");
    check(Priority::SheddablePlus, true, "isobar-priority: critical-plus\r\n", "sheddable-plus");
    check(Priority::SheddablePlus, true, sheddable, "sheddable");
    check(Priority::SheddablePlus, false, "", "sheddable-plus");
    check(Priority::Critical, false, sheddable, "none");
}

#[test]
fn the_sheddable_leave_room_for_the_critical() {
    let held = Held::default();
    let (_proxy, address) = start(with_edge(config(&[held.upstream()]), |edge| {
        edge.concurrency = Some(Concurrency::Static { max: 5 });
    }));
    let mut inside: Vec<Client> = (0..3).map(|_| ask(address, "")).collect();
    eventually("three are inside", || held.waiting() == 3);
    assert_eq!(said(&ask(address, "isobar-priority: sheddable\r\n").read()).0, 503, "60 % of five are three");
    inside.push(ask(address, ""));
    eventually("the critical one is inside", || held.waiting() == 4);
    held.open();
    assert!(inside.iter_mut().all(|client| client.read().status() == 200));
}

#[test]
fn the_same_key_meets_the_same_instance() {
    let instances: Vec<SocketAddr> =
        ["a", "b", "c", "d", "e"].map(|name| answering(move |_| ok(name))).to_vec();
    for kind in [BalanceKind::RingHash, BalanceKind::Maglev] {
        for (hash, key) in [
            (HashOn::Header("x-user".into()), |n: usize| format!("GET / HTTP/1.1\r\nX-User: {n}\r\n")),
            (HashOn::Cookie("sid".into()), |n| format!("GET / HTTP/1.1\r\ncookie: a=1; sid={n}\r\n")),
            (HashOn::Path, |n| format!("GET /user/{n}?other={n} HTTP/1.1\r\n")),
            (HashOn::Source, |_| "GET / HTTP/1.1\r\n".to_owned()),
        ] as [(HashOn, fn(usize) -> String); 4]
        {
            let (_proxy, address) = start(with_edge(config(&instances), |edge| {
                edge.balance = Balance { kind, ..Balance::default() };
                edge.hash = hash.clone();
            }));
            let mut client = Client::new(address);
            let mut ask = |n| client.send(format!("{}host: test\r\n\r\n", key(n))).read().text();
            let first: Vec<String> = (0..40).map(&mut ask).collect();
            let again: Vec<String> = (0..40).map(&mut ask).collect();
            assert_eq!(first, again, "{kind:?} {hash:?}");
            let spread = first.iter().collect::<BTreeSet<_>>().len();
            assert!(
                if hash == HashOn::Source { spread == 1 } else { spread >= 4 },
                "{kind:?} {hash:?}: {spread}"
            );
        }
    }
}

/// The proxy gives each instance one request at a time, and so many may wait.
fn one_at_a_time(mut config: Config, waiting: u32) -> Config {
    (config.limits.requests_per_instance, config.limits.pending) = (1, waiting);
    config
}

const ATTEMPTS: &str = "isobar_edge_attempts_total{edge=\"edge->api\"}";
const SHED: &str = "isobar_edge_overload_refused_total{edge=\"edge->api\"}";
const IN_FLIGHT: &str = "isobar_proxy_requests_in_flight";

#[test]
fn who_falls_silent_in_a_body_gives_the_turn_back_and_gets_another() {
    let check = |strict: bool, framing: &str, begin: &str, rest: &str| {
        let config = config(&[answering(|request| ok(&String::from_utf8_lossy(&request.body)))]);
        let config = with_edge(config, |edge| edge.timeout = strict.then_some(Nanos::from_secs(60)));
        let (proxy, address) = start(one_at_a_time(config, 8));
        let mut silent = Client::new(address);
        silent.send(format!("PUT / HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n{begin}"));
        eventually("it is under way", || counter(&proxy, ATTEMPTS) == 1);
        for _ in 0..3 {
            assert_eq!(
                ask(address, "").read().status(),
                200,
                "nobody waits for the silent: {framing} {begin:?}"
            );
        }
        assert_eq!(silent.send(rest).read().text(), "helloworld", "{framing} {begin:?}");
        assert_eq!(silent.get("/").status(), 200, "its connection goes on");
        assert_eq!((counter(&proxy, SHED), counter(&proxy, ATTEMPTS)), (0, 5));
        eventually("nothing is left", || counter(&proxy, IN_FLIGHT) == 0);
    };
    for strict in [false, true] {
        check(strict, "content-length: 10", "", "helloworld");
        check(strict, "content-length: 10", "hello", "world");
        check(strict, "transfer-encoding: chunked", "5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n");
        check(strict, "transfer-encoding: chunked", "a\r\nhello", "world\r\n0\r\n\r\n");
        check(strict, "transfer-encoding: chunked", "a\r\nhelloworld\r\n0\r\n", "\r\n");
    }
}

#[test]
fn who_goes_on_when_there_is_no_turn_is_told_so() {
    let held = Held::default();
    let (proxy, address) = start(one_at_a_time(config(&[held.upstream()]), 1));
    let mut silent = Client::new(address);
    silent.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
    eventually("it is under way", || counter(&proxy, ATTEMPTS) == 1);
    let mut inside = ask(address, "");
    eventually("another has the turn", || held.waiting() == 1);
    let _waits = ask(address, "");
    eventually("and one waits for it", || counter(&proxy, IN_FLIGHT) == 3);
    let reply = silent.send("world").read();
    assert_eq!(said(&reply), (503, "overloaded edge->api"));
    assert_eq!(reply.get("connection"), Some("close"));
    held.open();
    assert_eq!(inside.read().status(), 200);
    eventually("nothing is left", || counter(&proxy, IN_FLIGHT) == 0);
}

#[test]
fn a_client_that_never_goes_on_is_not_the_instances_fault() {
    for strict in [false, true] {
        let config = config(&[answering(|_| ok("fine"))]);
        let mut config = with_edge(config, |edge| edge.timeout = strict.then_some(Nanos::from_millis(300)));
        config.timeouts.body_read = Nanos::from_millis(300);
        let (proxy, address) = start(config);
        let mut silent = Client::new(address);
        silent.send("PUT / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
        let reply = silent.read();
        assert_eq!(said(&reply), (408, "body-timeout"), "strict: {strict}");
        assert!(silent.is_closed());
        assert_eq!(counter(&proxy, "isobar_proxy_body_timeouts_total"), 1);
        assert_eq!(counter(&proxy, "isobar_edge_timeouts_total{edge=\"edge->api\"}"), 0);
        eventually("nothing is left", || counter(&proxy, IN_FLIGHT) == 0);
    }
}

#[test]
fn what_lasts_without_being_work_keeps_nobody_out() {
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    let events = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
    for (begins, asking) in [(upgraded, "connection: upgrade\r\nupgrade: x\r\n"), (events, "")] {
        let address = upstream(move |number, mut stream| {
            let mut left = Vec::new();
            while crate::support::read_message(&mut stream, &mut left, true).is_some() {
                let reply = if number == 0 { begins.as_bytes().to_vec() } else { ok("fine") };
                let _ = stream.write_all(&reply);
            }
        });
        let (proxy, address) = start(one_at_a_time(config(&[address]), 8));
        let mut listens = ask(address, asking);
        let status = listens.read_head().status();
        for _ in 0..3 {
            assert_eq!(ask(address, "").read().text(), "fine", "beside {status}");
        }
        drop(listens);
        eventually("nothing is left", || counter(&proxy, IN_FLIGHT) == 0);
        assert_eq!(counter(&proxy, SHED), 0);
    }
}

#[test]
fn a_stream_that_is_reset_leaves_the_queue() {
    let held = Held::default();
    let (proxy, address) = start(one_at_a_time(config(&[held.upstream()]), 1));
    let mut inside = ask(address, "");
    eventually("one is inside", || held.waiting() == 1);
    let mut streams = crate::streams::Raw::new(address);
    for number in 0..5u32 {
        // The queue has room for one: each takes it over from the one before, which was reset.
        let stream = 2 * number + 1;
        streams.send(&crate::streams::frame(1, 5, stream, &crate::streams::get(&[])));
        eventually("it waits", || counter(&proxy, IN_FLIGHT) == 2);
        streams.send(&crate::streams::frame(3, 0, stream, &[0, 0, 0, 8]));
        eventually("it has left", || counter(&proxy, IN_FLIGHT) == 1);
    }
    assert_eq!(counter(&proxy, SHED), 0);
    held.open();
    assert_eq!(inside.read().status(), 200);
    assert_eq!(counter(&proxy, "isobar_proxy_client_gone_total"), 5);
}

#[test]
fn an_edge_opens_no_more_connections_than_it_may_and_the_rest_wait() {
    let held = Held::default();
    let mut config = with_edge(config(&[held.upstream()]), |edge| edge.connections = 2);
    let mut service = (*config.services[0]).clone();
    service.queue = Queue { max: Some(1), ..Queue::default() };
    config.services[0] = Arc::new(service);
    let (proxy, address) = start(config);
    let mut inside: Vec<Client> = (0..2).map(|_| ask(address, "")).collect();
    eventually("two are inside", || held.waiting() == 2);
    inside.push(ask(address, ""));
    eventually("the third waits", || counter(&proxy, "isobar_proxy_requests_in_flight") == 3);
    assert_eq!(said(&ask(address, "").read()), (503, "overloaded edge->api"), "one may wait");
    assert_eq!(held.waiting(), 2);
    held.open();
    assert!(inside.iter_mut().all(|client| client.read().status() == 200));
    assert!(counter(&proxy, "isobar_proxy_upstream_connections") <= 2);
}

#[test]
fn connections_are_limited_in_all_and_for_each_source() {
    let api = answering(|_| ok("fine"));
    for limit in [
        |config: &mut Config| config.limits.connections = 2,
        |config: &mut Config| config.limits.connections_per_source = 2,
    ] {
        let mut config = config(&[api]);
        limit(&mut config);
        let (proxy, address) = start(config);
        let mut first: Vec<Client> = (0..2).map(|_| Client::new(address)).collect();
        assert!(first.iter_mut().all(|client| client.get("/").status() == 200));
        let mut third = Client::new(address);
        let _ = third.stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        assert!(third.try_read().is_none(), "closed without an answer");
        assert_eq!(counter(&proxy, "isobar_proxy_connections_refused_total"), 1);
        drop(first);
        eventually("places are free again", || {
            let mut client = Client::new(address);
            let _ = client.stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
            client.try_read().is_some_and(|reply| reply.status() == 200)
        });
    }
}

#[test]
fn above_the_memory_mark_keep_alive_goes_first() {
    let api = answering(|_| ok("fine"));
    // Any process is above a mark of one kibibyte, by so much that new connections are refused, too.
    let mut config = config(&[api]);
    config.limits.memory = Some(Bytes::from_mib(1 << 20));
    let (proxy, address) = start(config.clone());
    let mut client = Client::new(address);
    assert_eq!(client.get("/").get("connection"), None, "far below the mark");
    let mut streams = crate::streams::Raw::new(address);
    config.limits.memory = Some(Bytes::from_kib(1));
    proxy.reload(config).expect("it is good");
    eventually("requests are refused", || {
        let Some(reply) = client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").try_read() else { return true };
        reply.status() == 503 && reply.get("connection") == Some("close")
    });
    eventually("and then connections", || {
        let mut late = Client::new(address);
        let _ = late.stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        late.try_read().is_none()
    });
    assert!(counter(&proxy, "isobar_proxy_connections_refused_total") > 0);
    assert!(counter(&proxy, "isobar_proxy_memory_refused_total") > 0);
    assert!(counter(&proxy, "isobar_proxy_keep_alive_refused_total") > 0);
    // A connection of HTTP/2 is told that there will be no more of it, and what it asks is refused.
    streams.send(&crate::streams::frame(1, 5, 1, &crate::streams::get(&[])));
    let mut kinds = std::iter::from_fn(|| streams.read()).map(|(kind, ..)| kind);
    assert!(kinds.any(|kind| kind == 7), "it goes away");
}

#[test]
fn a_post_on_a_connection_that_ended_says_that_it_may_have_been_done() {
    // The first request is answered; the second is read, and then the connection ends without a word.
    let second = Arc::new(AtomicBool::new(false));
    let taken = second.clone();
    let address = upstream(move |_, mut stream| {
        let mut left = Vec::new();
        while let Some(_request) = crate::support::read_message(&mut stream, &mut left, true) {
            if taken.swap(true, Ordering::SeqCst) {
                return;
            }
            let _ = stream.write_all(&ok("first"));
        }
    });
    let (proxy, front) = start(config(&[address]));
    let mut client = Client::new(front);
    assert_eq!(client.get("/").text(), "first");
    let reply = client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi").read();
    assert_eq!(said(&reply), (502, "possibly-processed edge->api"));
    assert!(reply.text().contains("may have been processed"), "{}", reply.text());
    assert_eq!(counter(&proxy, "isobar_edge_replays_total{edge=\"edge->api\"}"), 0);
}
