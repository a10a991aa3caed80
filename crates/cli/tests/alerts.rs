//! A promise is broken while people watch: the alert is in `isobar slo`, in the words of `isobar up`, at a webhook and in
//! the history, with traces that show why; and it is taken back when the trouble is over.

mod place;

use place::{Place, until};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILE: &str = "
isobar: 1
system: promised
services:
  web:
    operations:
      \"GET /\":
        work: fixed(1ms)
        calls: [cart \"GET /cart\"]
    slo: {availability: 99%}
  cart:
    operations:
      \"GET /cart\": {work: fixed(1ms)}
edges:
  default: {retry: none}
gateways:
  door: {listen: \"127.0.0.1:PORT\", routes: [{path: /, to: web}]}
traffic:
  people: {to: door \"GET /\", rate: 100/s}
";

/// An hour of the rules' windows in five seconds.
const TIME_SCALE: &str = "720";

/// Takes alerts as others would: one POST a connection.
fn webhook() -> (String, Arc<Mutex<Vec<serde_json::Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/alerts", listener.local_addr().expect("bound"));
    let got = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&got);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4_096]);
            // The body's length is said in the head; a document that parses is whole.
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
                if let Some(Ok(document)) = body {
                    keep.lock().expect("nobody panics here").push(document);
                    let _ = stream.write_all(b"HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n");
                    break;
                }
            }
        }
    });
    (url, got)
}

#[test]
fn a_promise_broken_live_is_told_everywhere_with_its_cause() {
    let place = Place::new(FILE);
    let (url, got) = webhook();
    let mut up = place.isobar(&["up", "-d", "--load"]);
    up.env("ISOBAR_SLO_TIME_SCALE", TIME_SCALE).env("ISOBAR_ALERT_WEBHOOKS", &url);
    assert!(up.output().expect("isobar runs").status.success(), "{}", place.output("promised"));
    let slo = || {
        let answer = place.ask(&["slo", "--json"]).stdout;
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap_or_default()
    };
    until("good requests", || slo()["slos"][0]["events"].as_u64().is_some_and(|it| it > 200));
    assert_eq!(slo()["slos"][0]["firing"], false, "{}", slo());

    let stopped = place.ask(&["stop", "cart"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    let fired = || slo()["slos"][0]["alerts"].as_array().is_some_and(|it| !it.is_empty());
    until("an alert", fired);
    let text = place.said(&["slo"]);
    assert!(text.contains("FIRES: page"), "{text}");
    assert!(text.contains("page: web availability 99% burns its budget"), "{text}");
    let trace = text.split("look at: isobar trace ").nth(1).and_then(|it| it.split([',', '\n']).next());
    let trace = trace.unwrap_or_else(|| panic!("no trace: {text}"));
    let waterfall = place.said(&["trace", trace]);
    assert!(waterfall.contains("→ web") && waterfall.contains("failed"), "{waterfall}");
    let check = place.ask(&["slo", "--check"]);
    assert_eq!(check.status.code(), Some(1));

    let heard = |change: &str| {
        let got = got.lock().expect("nobody panics here");
        got.iter().find(|it| it["change"] == change && it["service"] == "web").cloned()
    };
    until("the webhook", || heard("fired").is_some());
    let alert = heard("fired").expect("it came");
    assert!(alert["traces"].as_array().is_some_and(|it| !it.is_empty()), "{alert}");
    until("a line of isobar up", || place.output("promised").contains("burns its budget"));

    assert!(place.ask(&["start", "cart"]).status.success());
    until("the alert taken back", || heard("cleared").is_some());
}
