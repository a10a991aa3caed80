//! The verbs that answer about a running system, asked of the example shop while its customers shop.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The shop under load, in a state folder of its own.
struct Shop {
    state: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        let shop = Self { state: tempfile::tempdir().expect("a folder") };
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
        let up = shop.isobar(&["up", "-d", "--load"]).arg(file).output().expect("isobar runs");
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        shop
    }

    fn isobar(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command.args(words).env("ISOBAR_STATE", self.state.path()).stdin(Stdio::null());
        command
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.isobar(words).output().expect("isobar runs")
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> serde_json::Value {
        let output = self.ask(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// What a person reads: exit code, data, words.
    fn read(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = self.ask(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn rows(&self, words: &[&str]) -> Vec<serde_json::Value> {
        self.json(words)["rows"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.ask(&["down"]);
    }
}

/// Waits for something that must come; how long is no matter of the test.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_verb_answers_about_the_running_shop() {
    let shop = Shop::open();
    until("load", || shop.rows(&["stat", "service:cart", "rate>1/s", "--json"]).len() == 1);
    until("traces", || !shop.rows(&["trace", "--service", "cart", "--json"]).is_empty());
    stat_and_edges(&shop);
    tap(&shop);
    trace(&shop);
    top(&shop);
    slo(&shop);
    mistakes(&shop);
    let name = shop.ask(&["down"]);
    assert!(name.status.success());
    for verb in ["stat", "edges", "tap", "trace", "top", "slo"] {
        let (code, data, words) = shop.read(&[verb]);
        assert_eq!((code, data.as_str()), (Some(3), ""), "{verb}: {words}");
        assert!(words.contains("`isobar up` starts one"), "{verb}: {words}");
    }
}

fn stat_and_edges(shop: &Shop) {
    let stat = shop.json(&["stat", "--json"]);
    let rows = stat["rows"].as_array().expect("rows");
    assert_eq!(stat["rows_in_all"].as_u64(), Some(rows.len() as u64));
    let web = rows.iter().find(|it| it["service"] == "web").expect("web");
    assert!(web["rate"].as_f64().is_some_and(|it| it > 0.0) && web["p99_ms"].is_number(), "{web}");
    assert_eq!((web["instances"].as_u64(), web["team"].as_str()), (Some(6), Some("storefront")));

    let (code, data, words) = shop.read(&["stat", "team:storefront", "--sort", "rate"]);
    assert_eq!(code, Some(0));
    assert!(
        data.starts_with("SERVICE") && data.contains("\nweb ") && !data.contains("\npayments "),
        "{data}"
    );
    assert!(words.contains(" old") && words.contains("/table?q=team%3Astorefront"), "{words}");
    let (_, data, words) = shop.read(&["stat", "service:nobody"]);
    assert!(data.lines().count() == 1 && words.contains("nothing matches"), "{data}{words}");

    let by = |by: &str| shop.rows(&["stat", "service:cart", "--by", by, "--json"]);
    assert_eq!((by("instance").len(), by("zone").len()), (6, 6));
    // Three teams, and what is nobody's.
    assert_eq!(shop.rows(&["stat", "--by", "team", "--json"]).len(), 4);
    assert!(by("instance").iter().all(|it| it["part"].as_str().is_some_and(|it| it.starts_with("cart#"))));

    let edges = shop.rows(&["edges", "from:web", "--json"]);
    let mut called: Vec<&str> = edges.iter().filter_map(|it| it["to"].as_str()).collect();
    called.sort_unstable();
    assert_eq!(called, ["ads", "cart", "catalog", "orders"]);
    let (code, data, words) = shop.read(&["edges", "service:web->cart"]);
    assert!(code == Some(0) && data.lines().count() == 2 && data.contains("cart"), "{data}");
    assert!(words.contains("percentiles within 1.1%"), "{words}");

    // A reader who has enough is no failure, and is told nothing.
    let mut child = shop
        .isobar(&["stat", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let mut words = String::new();
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    child.stderr.take().expect("a pipe").read_to_string(&mut words).expect("text");
    assert!(!words.contains("error"), "{words}");
}

fn tap(shop: &Shop) {
    let (code, data, words) = shop.read(&["tap", "--limit", "5", "--json"]);
    assert_eq!(code, Some(0), "{words}");
    let lines: Vec<serde_json::Value> =
        data.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    assert_eq!(lines.iter().filter(|it| it["line"] == "request").count(), 5);
    let (code, data, words) = shop.read(&["tap", "--edge", "web->cart", "--limit", "3"]);
    assert_eq!((code, data.lines().count()), (Some(0), 3), "{data}{words}");
    assert!(data.lines().all(|it| it.contains("  web → cart  ") && it.contains("trace ")), "{data}");
    assert!(words.contains("3 shown"), "{words}");
}

fn trace(shop: &Shop) {
    let slowest = shop.rows(&["trace", "--slowest", "--service", "cart", "--json"]);
    let times: Vec<f64> = slowest.iter().filter_map(|it| it["duration_ms"].as_f64()).collect();
    assert!(!times.is_empty() && times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let id = slowest[0]["trace_id"].as_str().expect("an id");
    let (code, data, words) = shop.read(&["trace", id]);
    assert!(code == Some(0) && data.contains("━ waited for: ") && data.contains("→ cart"), "{data}");
    assert!(words.contains(&format!("/trace/{id}")), "{words}");
    assert!(shop.json(&["trace", id, "--json"]).as_array().is_some_and(|it| it.len() > 2));
    let (code, _, words) = shop.read(&["trace", "00000000000000ff"]);
    assert!(code == Some(2) && words.contains("no trace 00000000000000ff"), "{words}");
    let (code, data, words) = shop.read(&["trace", "duration>1h"]);
    assert!(
        code == Some(0) && data.trim().is_empty() && words.contains("no trace of the last"),
        "{data}{words}"
    );
}

/// On a terminal of its own: what is drawn there, and that it is given back.
fn top(shop: &Shop) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
    let size = |ws_row| rustix::termios::Winsize { ws_row, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&ours, size(30)).expect("a size");
    let name = ptsname(&ours, Vec::new()).expect("a name").into_string().expect("text");
    let theirs = File::options().read(true).write(true).open(name).expect("the other side");
    let side = || Stdio::from(theirs.try_clone().expect("another handle"));
    let mut child =
        shop.isobar(&["top"]).stdin(side()).stdout(side()).stderr(side()).spawn().expect("isobar runs");
    drop(theirs);
    let (drawn, mut keyboard) = (Arc::new(Mutex::new(Vec::new())), File::from(ours));
    let (seen, mut screen) = (Arc::clone(&drawn), keyboard.try_clone().expect("another handle"));
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4_096];
        // Ends with an error when the other side is closed.
        while let Ok(read @ 1..) = screen.read(&mut bytes) {
            seen.lock().expect("nobody panics here").extend_from_slice(&bytes[..read]);
        }
    });
    let shows =
        |text: &str| String::from_utf8_lossy(&drawn.lock().expect("nobody panics here")).contains(text);
    until("services on the screen", || shows("payments") && shows("BREAKERS"));
    keyboard.write_all(b"t").expect("a key");
    // Only what changed is drawn, a letter here and there; another size has it drawn as a whole.
    let mut rows = 30;
    until("traces on the screen", || {
        rows = if rows == 30 { 29 } else { 30 };
        rustix::termios::tcsetwinsize(&keyboard, size(rows)).expect("a size");
        std::thread::sleep(Duration::from_millis(700));
        // Spaces are not drawn on a screen that was just cleared.
        shows("slowest")
    });
    keyboard.write_all(b"q").expect("a key");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    until("the terminal as it was", || shows("\x1b[?1049l") && shows("\x1b[?25h"));
    drop(keyboard);
    reader.join().expect("it read all there was");
}

fn slo(shop: &Shop) {
    let document = shop.json(&["slo", "service:web", "--json"]);
    let slos = document["slos"].as_array().expect("objectives");
    // One of availability and two of latency.
    assert_eq!(slos.len(), 3, "{document}");
    assert!(slos.iter().all(|it| it["service"] == "web" && it["budget_left"].is_number()), "{document}");
    let (code, data, words) = shop.read(&["slo", "service:web"]);
    assert!(code == Some(0) && data.contains("99.95% answered") && data.contains("within 250ms"), "{data}");
    assert!(words.contains(" old; http://"), "{words}");
    // What fires depends on this machine; that the code says it does not.
    let (code, data, _) = shop.read(&["slo", "--check"]);
    assert_eq!(code, Some(i32::from(data.contains("FIRES"))), "{data}");
}

fn mistakes(shop: &Shop) {
    for verb in ["stat", "edges", "tap", "trace", "top", "slo"] {
        let (code, data, words) = shop.read(&[verb, "zone:b sevice:cart"]);
        assert_eq!((code, data.as_str()), (Some(2), ""), "{verb}");
        assert!(words.contains("\n         ^^^^^^^^^^^ did you mean `service`?"), "{verb}: {words}");
    }
    let (code, _, words) = shop.read(&["stat", "--sort", "speed"]);
    assert!(code == Some(2) && words.contains("there are service, part, rate"), "{words}");
    let (code, _, words) = shop.read(&["stat", "--window", "2h"]);
    assert!(code == Some(2) && words.contains("it goes from 1s to 15min"), "{words}");
    let (code, _, words) = shop.read(&["top"]);
    assert!(code == Some(2) && words.contains("isobar stat --watch"), "{words}");
    let (code, _, words) = shop.read(&["tap", "--edge", "web"]);
    assert!(code == Some(2) && words.contains("it is written 'web->cart'"), "{words}");
}
