//! A promise is broken while people watch: the alert is in `isobar slo`, in the words of `isobar up`, at a webhook and in
//! the history, with traces that show why; and it is taken back when the trouble is over.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
  door: {listen: \"127.0.0.1:18077\", routes: [{path: /, to: web}]}
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

struct Up<'a> {
    folder: &'a Path,
    child: Child,
}

impl Up<'_> {
    fn isobar(&self, words: &[&str]) -> Command {
        isobar(self.folder, words)
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.isobar(words).output().expect("isobar runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.folder.join("words")).unwrap_or_default()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _ = self.isobar(&["down"]).output();
        let _ = self.child.wait();
    }
}

fn isobar(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
    command.args(words).current_dir(folder).env("ISOBAR_STATE", folder.join("state")).stdin(Stdio::null());
    command
}

#[track_caller]
fn until(what: &str, up: &Up<'_>, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}: not within two minutes; isobar said {}", up.words());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_promise_broken_live_is_told_everywhere_with_its_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("isobar.yaml"), FILE).expect("it can be written");
    let (url, got) = webhook();
    let words = File::create(folder.path().join("words")).expect("a file");
    let child = isobar(folder.path(), &["up", "--load"])
        .env("ISOBAR_SLO_TIME_SCALE", TIME_SCALE)
        .env("ISOBAR_ALERT_WEBHOOKS", &url)
        .stdout(words.try_clone().expect("another handle"))
        .stderr(words)
        .spawn()
        .expect("isobar runs");
    let up = Up { folder: folder.path(), child };
    let slo = || serde_json::from_str::<serde_json::Value>(&up.said(&["slo", "--json"])).unwrap_or_default();
    until("good requests", &up, || slo()["slos"][0]["events"].as_u64().is_some_and(|it| it > 200));
    assert_eq!(slo()["slos"][0]["firing"], false, "{}", slo());

    let stopped = up.isobar(&["stop", "cart"]).output().expect("isobar runs");
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    let fired = || slo()["slos"][0]["alerts"].as_array().is_some_and(|it| !it.is_empty());
    until("an alert", &up, fired);
    let text = up.said(&["slo"]);
    assert!(text.contains("FIRES: page"), "{text}");
    assert!(text.contains("page: web availability 99% burns its budget"), "{text}");
    let trace = text.split("look at: isobar trace ").nth(1).and_then(|it| it.split([',', '\n']).next());
    let trace = trace.unwrap_or_else(|| panic!("no trace: {text}"));
    let waterfall = up.said(&["trace", trace]);
    assert!(waterfall.contains("→ web") && waterfall.contains("failed"), "{waterfall}");
    let check = up.isobar(&["slo", "--check"]).output().expect("isobar runs");
    assert_eq!(check.status.code(), Some(1));

    let heard = |change: &str| {
        let got = got.lock().expect("nobody panics here");
        got.iter().find(|it| it["change"] == change && it["service"] == "web").cloned()
    };
    until("the webhook", &up, || heard("fired").is_some());
    let alert = heard("fired").expect("it came");
    assert!(alert["traces"].as_array().is_some_and(|it| !it.is_empty()), "{alert}");
    until("a line of isobar up", &up, || up.words().contains("burns its budget"));

    assert!(up.isobar(&["start", "cart"]).output().expect("isobar runs").status.success());
    until("the alert taken back", &up, || heard("cleared").is_some());
}
