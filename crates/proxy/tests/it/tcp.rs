//! Bytes both ways, unread: small ones are copied, many at once are spliced, and an end on one side is an end on the other.

use crate::support::{PATIENCE, config, counter, eventually, start, upstream};
use proxy::Proxy;
use proxy::config::ListenerKind;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

fn tunnel(to: SocketAddr) -> (Proxy, SocketAddr) {
    let mut config = config(&[to]);
    let mut listener = (*config.listeners[0]).clone();
    listener.kind = ListenerKind::Tcp { edge: "edge->api".into() };
    listener.routes.clear();
    config.listeners[0] = Arc::new(listener);
    start(config)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn whatever_goes_in_comes_out_whole_and_in_order() {
    // Reads all, then says it all again.
    let echo = upstream(|_, mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&all);
        }
    });
    let (proxy, address) = tunnel(echo);
    for len in [0, 1, 1_000, 32 << 10, (64 << 10) + 1, 300_000, 12 << 20] {
        let sent = bytes(len);
        let mut client = connect(address);
        client.write_all(&sent).expect("taken");
        client.shutdown(Shutdown::Write).expect("still open");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("an end");
        assert!(got == sent, "{len} bytes: {} came back", got.len());
    }
    eventually("all is closed", || counter(&proxy, "isobar_proxy_connections") == 0);
    eventually("nothing is held", || counter(&proxy, "isobar_proxy_buffers_lent") == 0);
}

#[test]
fn a_rush_between_small_words_and_both_ways_at_once() {
    // Says back what it hears, piece by piece, so that bulk goes both ways at the same time.
    let echo = upstream(|_, mut stream| {
        let mut piece = vec![0; 100_000];
        while let Ok(read) = stream.read(&mut piece) {
            if read == 0 || stream.write_all(&piece[..read]).is_err() {
                return;
            }
        }
    });
    let (_proxy, address) = tunnel(echo);
    let mut client = connect(address);
    for len in [1, 5, 3 << 20, 7, 1 << 20, 1, 40_000, 40_000, 2] {
        let sent = bytes(len);
        let mut writer = client.try_clone().expect("a second handle");
        let copy = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&copy).expect("taken"));
        let mut got = vec![0; len];
        client.read_exact(&mut got).expect("as much came back");
        writing.join().expect("it wrote");
        assert!(got == sent, "{len} bytes");
    }
}

#[test]
fn who_does_not_read_stops_the_sender_and_who_leaves_is_missed() {
    let (told, sent) = std::sync::mpsc::sync_channel(10);
    let fast = upstream(move |_, mut stream| {
        let _ = stream.set_nonblocking(true);
        let piece = vec![b'x'; 64 << 10];
        let (mut total, mut refused) = (0u64, 0);
        // Until nothing is taken any more, a thousand times in a row.
        while refused < 1_000 {
            match stream.write(&piece) {
                Ok(wrote) => (total, refused) = (total + wrote as u64, 0),
                Err(_) => {
                    refused += 1;
                    std::thread::yield_now();
                }
            }
        }
        let _ = stream.set_nonblocking(false);
        let _ = told.send(total);
        // Now it is noticed that the other side is gone.
        while stream.write_all(&piece).is_ok() {}
        let _ = told.send(0);
    });
    let (proxy, address) = tunnel(fast);
    let client = connect(address);
    let held = sent.recv_timeout(PATIENCE).expect("it was stopped");
    assert!(held < 32 << 20, "{held} bytes are on the way to nobody");
    drop(client);
    assert_eq!(sent.recv_timeout(PATIENCE), Ok(0), "the end reached the sender");
    eventually("all is closed", || counter(&proxy, "isobar_proxy_connections") == 0);
}
