//! A proxy that changes, drains and answers questions while it serves.

use crate::support::{Client, answering, config, counter, eventually, ok, start, with_route};
use proxy::config::{Action, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn reloads_lose_no_request_and_are_seen() {
    let echo = answering(|request| ok(&request.first));
    let base = config(&[echo]);
    let (proxy, address) = start(base.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.get("/x");
                    assert!(matches!(reply.status(), 200 | 299), "{reply:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..60 {
        let changed = with_route(base.clone(), |route| {
            if n % 2 == 0 {
                route.action = Action::Reply(Reply { status: 299, headers: Vec::new(), body: n.to_string() });
            }
        });
        proxy.reload(changed).expect("a good configuration");
        eventually("the reload", || proxy.is_applied());
        let reply = Client::new(address).get("/");
        assert_eq!(reply.status(), if n % 2 == 0 { 299 } else { 200 });
    }
    let mut wrong = base;
    wrong.edges.clear();
    assert!(proxy.reload(wrong).expect_err("no edge").to_string().contains("no edge is called `edge->api`"));
    assert_eq!(Client::new(address).get("/").status(), 200, "what ran runs on");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request was lost");
    }
    assert!(served.load(Ordering::Relaxed) > 100);
}

#[test]
fn a_drain_lets_requests_end_and_idle_connections_go() {
    let slow = answering(|request| {
        std::thread::sleep(std::time::Duration::from_millis(150));
        ok(&request.first)
    });
    let (proxy, address) = start(config(&[slow]));
    let (mut busy, mut idle) = (Client::new(address), Client::new(address));
    assert_eq!(idle.get("/").status(), 200);
    busy.send("GET /busy HTTP/1.1\r\nhost: x\r\n\r\n");
    eventually("the request is under way", || counter(&proxy, "isobar_proxy_requests_in_flight") == 1);
    proxy.drain();
    assert!(idle.is_closed());
    let reply = busy.read();
    assert_eq!((reply.status(), reply.get("connection")), (200, Some("close")));
    eventually("the workers end", || proxy.is_drained());
    proxy.stop();
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn the_admin_door_answers() {
    let echo = answering(|request| ok(&request.first));
    let (proxy, address) = start(config(&[echo]));
    let admin = proxy.admin_address().expect("it was asked for");
    assert_eq!(Client::new(address).get("/").status(), 200);
    let get = |path: &str| Client::new(admin).get(path);
    assert_eq!(get("/healthz").status(), 200);
    assert_eq!(get("/readyz").status(), 200);
    eventually("it is counted", || {
        get("/stats").text().contains("isobar_edge_requests_total{edge=\"edge->api\",class=\"2xx\"} 1")
    });
    assert!(
        get("/stats?format=json").text().contains("\"edge\":\"edge->api\",\"none\":0,\"1xx\":0,\"2xx\":1")
    );
    assert!(get("/config").text().contains("\"generation\":1"));
    assert!(get("/endpoints").text().contains("\"health\":\"healthy\""));
    assert_eq!(get("/nowhere").status(), 404);
    let events = proxy.events(16);
    assert_eq!(Client::new(address).get("/seen?secret=1").status(), 200);
    let event = events.recv_timeout(crate::support::PATIENCE).expect("an event");
    assert_eq!((event.path(), event.status, event.attempts), ("/seen", 200, 1));
    assert_eq!(Client::new(admin).send("POST /drain HTTP/1.1\r\nhost: x\r\n\r\n").read().status(), 202);
    eventually("the workers end", || proxy.is_drained());
}

#[test]
fn who_asks_in_the_moment_of_a_drain_is_answered() {
    let (proxy, address) = start(config(&[answering(|_| ok("fine"))]));
    let mut clients: Vec<Client> = (0..30).map(|_| Client::new(address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    // These have only knocked.
    clients.extend((0..30).map(|_| Client::new(address)));
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    proxy.drain();
    for client in &mut clients {
        let reply = client.read();
        assert_eq!(reply.status(), 200);
        assert!(client.is_closed());
    }
    eventually("the workers end", || proxy.is_drained());
}
