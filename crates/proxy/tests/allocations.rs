//! A keep-alive HTTP/1 request allocates nothing once its connection is warm. A binary of its own, because it counts what
//! the whole process allocates.
#![allow(
    unsafe_code,
    reason = "counting allocations needs an allocator, and that trait is unsafe to implement"
)]

use policy::settings::EdgeSettings;
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator; only a number is added to.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Answers each read with the same bytes and allocates nothing while it does.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    let reply = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 11\r\n\r\nhello world";
                    if stream.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Sends so many requests and reads so many replies, without allocating.
fn exchange(client: &mut TcpStream, request: &[u8], times: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..times {
        client.write_all(request).expect("sent");
        let mut have = 0;
        while !buffer[..have].ends_with(b"hello world") {
            let read = client.read(&mut buffer[have..]).expect("read");
            assert!(read > 0, "the proxy closed");
            have += read;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn a_warm_keep_alive_request_allocates_nothing() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        services: vec![Arc::new(Service::http1("api", &[upstream(), upstream()]))],
        edges: vec![Arc::new(Edge::new("edge", "api", EdgeSettings::default()))],
        listeners: vec![Arc::new(Listener::http(
            "edge",
            any,
            vec![Route::forward("all", PathMatch::Prefix("/".into()), "edge->api")],
        ))],
        ..Config::default()
    };
    let options = proxy::Options { workers: 1, ..proxy::Options::default() };
    let proxy = proxy::Proxy::start(config, options).expect("it starts");
    let mut client = TcpStream::connect(proxy.address("edge").expect("open")).expect("connected");
    let get = b"GET /some/path?q=1 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: test\r\naccept: */*\r\ncookie: a=b\r\n\r\n";
    let post = b"POST /some/path HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 5\r\n\r\nhello";
    for request in [&get[..], &post[..]] {
        exchange(&mut client, request, 500);
        // The control side looks around a few times a second and allocates; the requests themselves get nothing, so of
        // many short batches some see no allocation at all.
        let batches = (0..20).map(|_| {
            let before = ALLOCATIONS.load(Relaxed);
            exchange(&mut client, request, 100);
            ALLOCATIONS.load(Relaxed) - before
        });
        let batches: Vec<u64> = batches.collect();
        assert!(batches.contains(&0), "allocations for 100 requests each: {batches:?}");
    }
}
