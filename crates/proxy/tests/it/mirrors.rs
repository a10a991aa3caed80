//! Routes whose replies and copies go by way of a pipe, whatever is spoken in front and behind.

use crate::streams;
use crate::support::{Client, answering, config, counter, eventually, ok, start, with_route};
use bytes::Bytes;
use proxy::config::{Config, Edge, FaultBandwidth, Mirror, Protocol, Service};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use units::Percent;

type Seen = Arc<Mutex<Vec<String>>>;

/// An instance of either protocol that notes what it was asked and says it back.
fn noting(protocol: Protocol) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let note = seen.clone();
    let address = match protocol {
        Protocol::Http2 => streams::upstream(100, move |_, (request, mut respond)| {
            let note = note.clone();
            async move {
                let asked = format!("{} {}", request.method(), request.uri().path());
                let Ok((body, _)) = streams::read(request.into_body()).await else { return };
                let said = format!("{asked} {}", String::from_utf8_lossy(&body));
                note.lock().expect("one at a time").push(said.clone());
                if let Ok(mut stream) = respond.send_response(http::Response::new(()), false) {
                    streams::send(&mut stream, Bytes::from(said), true).await;
                }
            }
        }),
        _ => answering(move |request| {
            let asked = request.first.trim_end_matches(" HTTP/1.1");
            let said = format!("{asked} {}", request.text());
            note.lock().expect("one at a time").push(said.clone());
            ok(&said)
        }),
    };
    (address, seen)
}

fn service(name: &str, protocol: Protocol, address: SocketAddr) -> Arc<Service> {
    Arc::new(Service { protocol, ..Service::http1(name, &[address]) })
}

fn mirrored(protocols: (Protocol, Protocol), main: SocketAddr, copy: SocketAddr) -> Config {
    let mut config = with_route(config(&[main]), |route| {
        route.mirror = Some(Mirror { edge: "edge->shadow".into(), share: Percent::WHOLE });
    });
    config.services = vec![service("api", protocols.0, main), service("shadow", protocols.1, copy)];
    config.edges.push(Arc::new(Edge::new("edge", "shadow", Default::default())));
    config
}

#[test]
fn copies_arrive_whole_whatever_is_spoken() {
    const ONE: Protocol = Protocol::Http1;
    const TWO: Protocol = Protocol::Http2;
    for (main, shadow) in [(ONE, ONE), (ONE, TWO), (TWO, ONE), (TWO, TWO)] {
        let ((there, _), (copy, seen)) = (noting(main), noting(shadow));
        let (proxy, address) = start(mirrored((main, shadow), there, copy));
        let mut client = Client::new(address);
        assert_eq!(client.get("/h1").text(), "GET /h1 ", "{main:?} {shadow:?}");
        let post = "POST /h1 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(client.send(post).read().text(), "POST /h1 hello");
        streams::block_on(async {
            let sender = streams::client(address).await;
            let (status, said) = streams::ask(&sender, "/h2").await.expect("an answer");
            assert_eq!((status, said.as_str()), (200, "GET /h2 "), "{main:?} {shadow:?}");
        });
        eventually("three copies", || seen.lock().is_ok_and(|it| it.len() == 3));
        let mut copies = seen.lock().expect("nobody else").clone();
        copies.sort();
        assert_eq!(copies, ["GET /h1 ", "GET /h2 ", "POST /h1 hello"], "{main:?} {shadow:?}");
        assert_eq!(counter(&proxy, "isobar_edge_mirrored_total{edge=\"edge->shadow\"}"), 3);
        let well = "isobar_edge_requests_total{edge=\"edge->shadow\",class=\"2xx\"}";
        eventually("they were answered", || counter(&proxy, well) == 3);
    }
}

#[test]
fn a_slowed_reply_is_whole_for_streams_too() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (there, _) = noting(protocol);
        let mut config = with_route(config(&[there]), |route| {
            // Enough for the whole of it within a moment, and not at once.
            let slow = FaultBandwidth { bytes_per_second: 400_000, share: Percent::WHOLE };
            route.fault.bandwidth = Some(slow);
        });
        config.services = vec![service("api", protocol, there)];
        let (proxy, address) = start(config);
        let body = "x".repeat(40_000);
        let post = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(Client::new(address).send(post).read().text(), format!("POST / {body}"), "{protocol:?}");
        streams::block_on(async {
            let mut sender = streams::client(address).await.ready().await.expect("a stream");
            let (response, mut stream) =
                sender.send_request(streams::request("POST", "/", &[]), false).expect("sent");
            assert!(streams::send(&mut stream, Bytes::from(body.clone()), true).await);
            let (said, _) = streams::read(response.await.expect("a reply").into_body()).await.expect("whole");
            assert_eq!(String::from_utf8_lossy(&said), format!("POST / {body}"), "{protocol:?}");
        });
        eventually("nothing is left", || counter(&proxy, "isobar_proxy_requests_in_flight") == 0);
    }
}
