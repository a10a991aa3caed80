//! Questions to a running proxy, sensible and odd ones.

use crate::support::{
    Client, Message, PATIENCE, answering, config, counter, eventually, ok, start, with_route,
};
use proxy::Proxy;
use proxy::config::HeaderEdit;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

fn ask(proxy: &Proxy, request: &str) -> Message {
    Client::new(proxy.admin_address().expect("it has one")).send(request).read()
}

fn get(proxy: &Proxy, path: &str) -> Message {
    ask(proxy, &format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n"))
}

fn json(proxy: &Proxy, path: &str) -> Value {
    let reply = get(proxy, path);
    assert_eq!((reply.status(), reply.get("content-type")), (200, Some("application/json")), "{path}");
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{path}: {error}\n{}", reply.text()))
}

#[test]
fn what_is_asked_oddly_is_refused_with_a_word_about_it() {
    let (proxy, _) = start(config(&[]));
    let check = |request: &str, status: u16, said: &str| {
        let reply = ask(&proxy, &format!("{request} HTTP/1.1\r\nhost: admin\r\n\r\n"));
        assert_eq!(reply.status(), status, "{request}: {}", reply.text());
        assert!(reply.text().contains(said), "{request}: {}", reply.text());
    };
    check("GET /healthz", 200, "ok");
    check("GET /readyz", 200, "ready");
    check("GET /stats?format=prometheus", 200, "isobar_proxy_requests_total 0");
    check("GET /stats?format=xml", 400, "format=xml");
    check("GET /tap?status=abc", 400, "status=abc");
    check("GET /tap?status=9xx", 400, "status=9xx");
    check("GET /tap?count=-1", 400, "count=-1");
    check("GET /tap?sample=lots", 400, "sample=lots");
    check("POST /log?level=loud", 400, "error, info or debug");
    check("POST /log?level=error", 200, "error");
    check("GET /log", 200, "error");
    check("PUT /stats", 405, "GET");
    check("GET /drain", 405, "POST");
    check("GET /", 404, "/endpoints");
    check("GET //healthz", 404, "try");
    check("GET /a b", 505, "version");
    let head = Client::new(proxy.admin_address().expect("one"))
        .send("HEAD /stats HTTP/1.1\r\nhost: a\r\n\r\n")
        .read_head();
    assert!(head.status() == 200 && head.get("content-length").is_some_and(|length| length != "0"));
    // Nobody who falls silent or leaves keeps others from their answer.
    let address = proxy.admin_address().expect("one");
    let idle: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    check("GET /healthz", 200, "ok");
    drop(idle);
    check("POST /drain", 202, "draining");
}

#[test]
fn the_running_snapshot_is_told_as_json_without_secrets() {
    let mut config = with_route(config(&[answering(|_| ok("fine"))]), |route| {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        route.rewrite.request = HeaderEdit {
            set: vec![set("authorization", "Bearer hunter2"), set("x-tenant", "blue \"é\"")],
            ..HeaderEdit::default()
        };
    });
    config.source = "p-é.yaml".into();
    let (proxy, _) = start(config.clone());
    let told = json(&proxy, "/config");
    assert_eq!(told["source"], "p-é.yaml");
    assert_eq!((&told["generation"], &told["workers"]), (&Value::from(1), &serde_json::json!([1])));
    assert!(told["age_s"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)));
    let config_told = &told["config"];
    assert_eq!(config_told["services"][0]["endpoints"][0]["weight"], 1);
    assert_eq!(config_told["edges"][0]["balance"], "peak-ewma");
    assert_eq!(config_told["edges"][0]["eject"]["consecutive"], 5);
    let lines = &config_told["listeners"][0]["routes"][0]["request_headers"]["set"];
    assert_eq!(lines[0], serde_json::json!({"name": "authorization", "value": "***"}));
    assert_eq!(lines[1]["value"], "blue \"é\"");
    assert!(!told.to_string().contains("hunter2"));
    proxy.reload(config).expect("it is good");
    eventually("the workers have it", || proxy.is_applied());
    assert_eq!(json(&proxy, "/config")["generation"], 2);
}

#[test]
fn times_are_counted_by_class_of_status() {
    let address = answering(|request| match request.first.split(' ').nth(1) {
        Some("/missing") => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        Some("/broken") => b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec(),
        _ => ok("fine"),
    });
    let (proxy, address) = start(config(&[address]));
    let mut client = Client::new(address);
    for (path, times) in [("/", 5), ("/missing", 3), ("/broken", 2)] {
        (0..times).for_each(|_| drop(client.get(path)));
    }
    for (class, times) in [("2xx", 5), ("4xx", 3), ("5xx", 2)] {
        for (name, labels) in [("edge", "edge=\"edge->api\""), ("route", "listener=\"edge\",route=\"all\"")] {
            let series = |what: &str, more: &str| {
                format!("isobar_{name}_latency_seconds_{what}{{{labels},class=\"{class}\"{more}}}")
            };
            eventually("it is counted", || counter(&proxy, &series("count", "")) == times);
            assert_eq!(counter(&proxy, &series("bucket", ",le=\"+Inf\"")), times, "{name} {class}");
        }
    }
    let text = proxy.stats_text();
    assert!(
        !text.contains("isobar_edge_latency_seconds_count{edge=\"edge->api\",class=\"3xx\"}"),
        "none was answered so"
    );
    let told = json(&proxy, "/stats?format=json");
    assert_eq!((&told["edges"][0]["2xx"], &told["edges"][0]["4xx"]), (&Value::from(5), &Value::from(3)));
}

#[test]
fn a_tap_shows_what_was_asked_for_and_no_query() {
    let (proxy, address) = start(config(&[answering(|_| ok("fine"))]));
    let tap = |query: &str| {
        let mut stream = TcpStream::connect(proxy.admin_address().expect("one")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("settable");
        write!(stream, "GET /tap?{query} HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
        let mut head = [0; 16];
        stream.read_exact(&mut head).expect("it answers before anything happens");
        stream
    };
    let lines = |mut stream: TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it ends by itself");
        let body = text.split_once("\r\n\r\n").expect("a head").1.to_owned();
        body.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
            .collect::<Vec<_>>()
    };
    let by_path = tap("path=/b&status=2xx&count=2");
    let sampled = tap("sample=25%25&count=10");
    let mut client = Client::new(address);
    for n in 0..400 {
        client.get(&format!("/{}?password=hunter2", ["a", "b"][n % 2]));
    }
    let told = lines(by_path);
    assert_eq!(told.len(), 2);
    for line in told {
        assert_eq!(
            (&line["path"], &line["status"], &line["edge"]),
            (&"/b".into(), &200.into(), &"edge->api".into())
        );
        assert!(!line.to_string().contains("hunter2"), "{line}");
    }
    assert_eq!(lines(sampled).len(), 10, "a quarter of 400 is more than ten");
}
