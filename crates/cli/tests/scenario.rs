//! `isobar scenario run` against a system that runs: the fault is seen, and it is undone whatever ends it.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with a file in it, a state folder of its own, and the system of the file, running.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn up(file: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(place.path().join("isobar.yaml"), file).expect("it can be written");
        let said = place.ask(&["up", "-d", "--no-watch"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn report(&self) -> PathBuf {
        self.path().join("actual.json")
    }

    fn isobar(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command
            .args(words)
            .current_dir(self.path())
            .env("ISOBAR_STATE", self.path().join("state"))
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.isobar(words).output().expect("isobar runs")
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn start(&self, words: &[&str]) -> Child {
        self.isobar(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isobar runs")
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ask(&["ps", "--json"]).stdout).unwrap_or_default()
    }

    fn state_of(&self, instance: &str) -> String {
        let status = self.status();
        let services = status["services"].as_array().into_iter().flatten();
        let found = services
            .flat_map(|it| it["instances"].as_array())
            .flatten()
            .find(|it| it["name"] == instance)
            .and_then(|it| it["state"].as_str().map(str::to_owned));
        found.unwrap_or_else(|| "nowhere".to_owned())
    }

    /// What is in force now.
    fn in_force(&self) -> Vec<String> {
        let status = self.status();
        let words = status["scenario"]["in_force"].as_array().into_iter().flatten();
        words.filter_map(|it| it.as_str().map(str::to_owned)).collect()
    }

    fn read_report(&self) -> Value {
        let text = std::fs::read_to_string(self.report()).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ask(&["down"]);
    }
}

/// Waits for something that must come; how long is no matter of the test.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

const FILE: &str = r#"isobar: 1
system: small
services:
  web:
    replicas: 2
    concurrency: 64
    operations:
      "GET /": {work: 1ms, calls: [{call: ads "GET /ads", optional: true}, 'cart "GET /cart"']}
      "GET /slow": {work: 1ms}
    slo: {availability: 99%}
  ads: {health: {path: /healthz, every: 200ms, unhealthy_after: 2}, operations: {"GET /ads": 1ms}}
  cart: {replicas: 2, operations: {"GET /cart": 1ms}}
edges: {default: {timeout: 500ms}}
traffic:
  people: {to: web "GET /", rate: 60/s}
scenarios:
  ads-lost: {at: 1s, for: 3s, do: [stop ads], expect: [web availability >= 50%], lasts: 6s}
  cart-broken: {at: 500ms, do: [error cart 100%], expect: [web availability >= 99%], lasts: 10min}
  cart-frozen: {at: 0s, do: [pause cart#0, load x2], lasts: 10min}
  both: {at: 0s, do: [slow ads by 10ms], lasts: 10min}
"#;

#[test]
fn a_fault_is_seen_measured_and_undone() {
    let place = Place::up(FILE);
    let listed = place.said(&["scenario", "list"]);
    assert!(listed.contains("ads-lost") && listed.contains("stop ads"), "{listed}");
    let child = place.start(&["scenario", "run", "ads-lost", "--report", "actual.json"]);
    until("ads is struck down", || place.state_of("ads#0") == "stopped");
    assert_eq!(place.in_force(), ["stop ads"]);
    until("ads is back", || place.state_of("ads#0") == "ready");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "its expectation held");
    assert_eq!(place.in_force(), Vec::<String>::new());

    let report = place.read_report();
    assert_eq!((report["schema"].as_u64(), report["scenario"].as_str()), (Some(1), Some("ads-lost")));
    assert_eq!((report["source"].as_str(), report["partial"].as_bool()), (Some("run"), Some(false)));
    let service = |name: &str| {
        let mut all = report["services"].as_array().into_iter().flatten();
        all.find(|it| it["name"] == name).cloned().expect("every service is in it")
    };
    let availability =
        |name: &str| service(name)["requests"]["availability"]["value"].as_f64().expect("a number");
    // Half of the time it was away; the page does without it.
    assert!(
        availability("ads") < 0.9 && availability("web") > 0.99,
        "{} {}",
        availability("ads"),
        availability("web")
    );
    let errors = service("ads")["requests"]["errors_per_s"].clone();
    assert!(
        errors["connect"].as_f64().unwrap_or(0.0) + errors["no_instance"].as_f64().unwrap_or(0.0) > 0.0,
        "{errors}"
    );
    let edges = report["edges"].as_array().into_iter().flatten();
    let pairs: Vec<(&str, &str, &str)> = edges
        .filter_map(|it| Some((it["from"].as_str()?, it["to"].as_str()?, it["operation"].as_str()?)))
        .collect();
    assert_eq!(pairs, [("people", "web", "GET /"), ("web", "ads", "GET /ads"), ("web", "cart", "GET /cart")]);
    let rate = service("web")["requests"]["rate_per_s"].clone();
    let (low, value, high) = (rate["low"].as_f64(), rate["value"].as_f64(), rate["high"].as_f64());
    assert!(low < value && value < high && (40.0..80.0).contains(&value.unwrap_or(0.0)), "{rate}");
    let texts: Vec<&str> =
        report["objectives"].as_array().into_iter().flatten().filter_map(|it| it["text"].as_str()).collect();
    assert_eq!(texts, ["web availability >= 99%", "web availability >= 50%"]);

    // Laid beside the forecast, in either order of trust.
    let forecast = place.ask(&["sim", "--scenario", "ads-lost", "--runs", "3", "--json"]);
    std::fs::write(place.path().join("forecast.json"), &forecast.stdout).expect("it can be written");
    let said = place.said(&["diff", "forecast.json", "actual.json"]);
    assert!(said.contains("forecast") && said.contains("actual") && said.contains("ads"), "{said}");
}

#[test]
fn a_lease_that_nobody_renews_is_undone() {
    let place = Place::up(FILE);
    let mut child = place.start(&["scenario", "run", "cart-broken", "--guard", "off"]);
    until("the carts fail", || place.in_force() == ["error cart 100%"]);
    kill(child.id());
    child.wait().expect("it was started");
    until("its lease runs out", || place.in_force().is_empty());
    let history = place.said(&["scenario", "run", "cart-broken", "--for", "1s", "--guard", "off"]);
    assert!(
        history.contains("error cart 100%") && history.contains("NOT HELD"),
        "the next one plays: {history}"
    );
}

#[test]
fn a_breach_of_the_guard_undoes_it_at_once() {
    let place = Place::up(FILE);
    let output = place.ask(&["scenario", "run", "cart-broken", "--report", "actual.json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stopped by its guard") && said.contains("undone: error cart 100%"), "{said}");
    assert!(place.in_force().is_empty());
    let report = place.read_report();
    assert_eq!((report["partial"].as_bool(), report["end"]["how"].as_str()), (Some(true), Some("guard")));
    assert!(report["measured_s"].as_f64().is_some_and(|it| it < 60.0), "ten minutes were asked for");
}

#[test]
fn two_that_touch_the_same_are_refused_and_others_play_together() {
    let place = Place::up(FILE);
    let mut first = place.start(&["scenario", "run", "cart-frozen"]);
    until("it plays", || place.in_force().len() == 2);
    let output = place.ask(&["scenario", "run", "cart-broken"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cart-frozen is playing and touches service cart too"), "{said}");
    let mut second = place.start(&["scenario", "run", "both"]);
    until("both play", || place.in_force().len() == 3);
    let said = place.said(&["scenario", "stop"]);
    assert!(said.contains("stopped and undone: cart-frozen, both"), "{said}");
    assert!(place.in_force().is_empty());
    for child in [&mut first, &mut second] {
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "somebody else stopped it");
    }
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_begins() {
    let file = FILE.replace(
        "  cart: {",
        "  real: {run: {command: \"exec sleep 1000\", shell: true}, health: none, operations: {\"GET /\": 1ms}}\n  cart: {",
    );
    let file = file.replace("do: [slow ads by 10ms]", "do: [slow ads by 10ms, slow real x3]")
        + "  real-frozen: {do: [pause real], lasts: 10min}\n";
    let place = Place::up(&file);
    #[track_caller]
    fn check(place: &Place, words: &[&str], part: &str) {
        let output = place.ask(&[&["scenario", "run", "--report", "actual.json"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(part), "{said}");
        assert!(!place.report().exists(), "no report of what never began");
        assert!(place.status()["scenario"].is_null());
    }
    check(&place, &["both"], "`slow real x3` cannot be done here: real runs by its own command");
    check(&place, &["nothing"], "no scenario is called `nothing`; there are ads-lost, cart-broken");
    check(&place, &["--break", "gray=nobody"], "nobody");
    check(&place, &["ads-lost", "--set", "web.concurrency=3"], "web.concurrency=3");
    check(&place, &["ads-lost", "--set", "web.replicas"], "no `=`");
    // A process is frozen for real, and wakes again.
    let pid = place.status()["services"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["name"] == "real")
        .and_then(|it| it["instances"][0]["pid"].as_u64())
        .expect("a pid");
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|it| it.chars().next())
    };
    assert_eq!(state(), Some('S'));
    let mut child = place.start(&["scenario", "run", "real-frozen", "--set", "load=2"]);
    until("it is frozen", || state() == Some('T'));
    place.said(&["scenario", "stop"]);
    until("it woke", || state() == Some('S'));
    child.wait().expect("it ends");
}
