//! `isobar scenario run` against a system that runs: the fault is seen, and it is undone whatever ends it.

mod place;

use place::{Place, free_port, kill, signal, until};
use std::time::{Duration, Instant};
use up::process::all_processes;

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
edges: {default: {timeout: 500ms}, web -> cart: {breaker: {failures: 5, pause: 1s}}}
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
    // The page hid what the ads failed at. On a machine that is away for a while somebody may wait for a connection.
    let edge = |to: &str| report["edges"].as_array().into_iter().flatten().find(|it| it["to"] == to).cloned();
    let (ads, cart) = (edge("ads").expect("it was called"), edge("cart").expect("it was called"));
    assert!(ads["degraded_per_s"].as_f64() > Some(0.0), "{ads}");
    assert!(cart["degraded_per_s"].is_number() && ads["pool_waits_per_s"].is_number(), "{cart} {ads}");
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
    // What stood in the way meanwhile, as a forecast would say it.
    let edges = report["edges"].as_array().into_iter().flatten();
    let cart = edges.into_iter().find(|it| it["to"] == "cart").expect("it was called");
    let number = |key: &str| cart[key].as_f64().unwrap_or(f64::NAN);
    assert!(number("breaker_trips") >= 0.5 && number("breaker_open_share") > 0.0, "{cart}");
    for key in
        ["ejections", "ejected_instances", "ejections_withheld", "hedges_per_s", "budget_refused_per_s"]
    {
        assert!(number(key) >= 0.0, "{key}: {cart}");
    }
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

/// Status, body and time of one GET; 0 when there was no answer.
fn get(address: &str, path: &str) -> (u16, String, Duration) {
    let started = Instant::now();
    let (status, body) = place::get(address, path);
    (status, body, started.elapsed())
}

#[test]
fn ctrl_c_undoes_it_and_writes_what_was_measured() {
    let place = Place::up(FILE);
    let child = place.start(&["scenario", "run", "cart-frozen", "--guard", "off", "--report", "actual.json"]);
    until("it plays", || place.in_force().len() == 2);
    until("something was measured", || place.status()["scenario"]["at_ms"].as_u64() > Some(1_000));
    signal(child.id(), rustix::process::Signal::INT);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(place.in_force().is_empty() && place.status()["scenario"].is_null());
    let report = place.read_report();
    assert_eq!((report["partial"].as_bool(), report["end"]["how"].as_str()), (Some(true), Some("stopped")));
    assert!(report["services"].as_array().is_some_and(|it| it.len() == 3), "{}", report["services"]);
    // The traffic that it had started is stopped with it.
    until("traffic has stopped", || place.status()["traffic"][0]["running"] == false);
}

/// Two regions on one machine; what is between them is the scenario's doing.
const FAR: &str = r#"isobar: 1
system: far
places: {eu: {zones: [a]}, us: {zones: [a]}}
services:
  web:
    replicas: {eu: 1}
    discovery: everywhere
    operations: {"GET /": {calls: ['cart "GET /cart"'], response: 100B}}
  cart:
    replicas: {us: 1}
    discovery: everywhere
    operations: {"GET /cart": {response: 100B}}
    versions: {v1.0.0: {weight: 100%}, v2.0.0: {weight: 0%}}
gateways:
  edge: {listen: "127.0.0.1:PORT", routes: [{path: /cart, to: cart}, {path: /, to: web}]}
edges: {default: {timeout: 5s, retry: none}, web -> cart: {timeout: 2s}}
scenarios:
  cut: {do: [partition eu <-> us], lasts: 10min}
  far: {do: [delay eu <-> us by 300ms], lasts: 10min}
  lossy: {do: [loss eu -> us 99%], lasts: 10min}
  next: {do: [release cart v2.0.0 at 100%], lasts: 10min}
  more: {do: [scale cart to 3], lasts: 10min}
"#;

#[test]
fn the_network_versions_and_sizes_change_live_and_back() {
    let place = Place::up(FAR);
    let edge = place.door();
    let long = Duration::from_millis(300);
    let is_well = || matches!(get(&edge, "/"), (200, _, took) if took < long);
    let version = |wanted: &str| get(&edge, "/cart").1.contains(wanted);
    let check = |name: &str, words: &str, is_so: &dyn Fn() -> bool, is_undone: &dyn Fn() -> bool| {
        until(&format!("all is well before {name}"), is_undone);
        let mut child = place.start(&["scenario", "run", name, "--guard", "off"]);
        until(&format!("{name} is in force"), || place.in_force() == [words]);
        until(&format!("{name} is felt"), is_so);
        let said = place.said(&["scenario", "stop", name]);
        assert!(said.contains(&format!("stopped and undone: {name}")), "{said}");
        assert!(place.in_force().is_empty());
        until(&format!("{name} is undone"), is_undone);
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "somebody else stopped it");
    };
    check("cut", "partition eu <-> us", &|| get(&edge, "/").0 >= 500, &is_well);
    let is_far = || matches!(get(&edge, "/"), (200, _, took) if took >= long);
    check("far", "delay eu <-> us by 300ms", &is_far, &is_well);
    // Each lost packet is sent again after a while; with nearly all of them lost the call takes too long.
    let is_lossy = || matches!(get(&edge, "/"), (status, _, took) if status >= 500 || took >= long / 2);
    check("lossy", "loss eu -> us 99%", &is_lossy, &is_well);
    check("next", "release cart v2.0.0 at 100%", &|| version("v2.0.0"), &|| version("v1.0.0"));
    let state = |wanted: &'static str| place.state_of("cart#2") == wanted;
    check("more", "scale cart to 3", &|| state("ready"), &|| state("nowhere"));
}

#[test]
fn a_process_of_its_own_is_made_slow_and_fails_for_its_callers_only() {
    let (port, own) = (free_port(), free_port());
    let file = format!(
        r#"isobar: 1
system: owned
services:
  real: {{run: {{command: "'{}' proxy inner.yaml", port: {own}}}, health: {{path: /}}, operations: {{"GET /": 1ms}}}}
gateways:
  edge: {{listen: "127.0.0.1:{port}", routes: [{{path: /, to: real}}]}}
edges: {{default: {{timeout: 5s, retry: none, eject: none}}}}
traffic:
  people: {{to: edge "GET /", rate: 50/s}}
scenarios:
  failing: {{do: [error real 100%], lasts: 10min}}
  slow: {{do: [slow real by 300ms], lasts: 10min}}
  breach: {{do: [error real 50%], expect: [real availability >= 99.9%], lasts: 10min}}
"#,
        env!("CARGO_BIN_EXE_isobar")
    );
    let inner = format!(
        "isobar: 1\nsystem: inner\nservices: {{nobody: {{}}}}\ngateways:\n  g: {{listen: \"127.0.0.1:{own}\", routes: [{{path: /, reply: {{status: 200, body: itself}}}}]}}\n"
    );
    let place = Place::up_beside(&file, &[("inner.yaml", &inner)]);
    let (edge, direct) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{own}"));
    let long = Duration::from_millis(300);
    let is_well = || matches!(get(&edge, "/"), (200, body, took) if body == "itself" && took < long);
    until("it answers", is_well);
    for (name, words) in [("failing", "error real 100%"), ("slow", "slow real by 300ms")] {
        let mut child = place.start(&["scenario", "run", name, "--guard", "off", "--no-traffic"]);
        until("it is in force", || place.in_force() == [words]);
        until("its callers feel it", || match get(&edge, "/") {
            (status, _, took) if name == "slow" => status == 200 && took >= long,
            (status, ..) => status == 500,
        });
        assert_eq!(get(&direct, "/").0, 200, "the process itself is left alone");
        assert_eq!(place.state_of("real#0"), "ready", "and so are its checks");
        place.said(&["scenario", "stop"]);
        until("it is undone", is_well);
        child.wait().expect("it ends");
    }
    // A breach of the guard ends it, and nothing of it is left at that moment.
    let output = place.ask(&["scenario", "run", "breach", "--guard", "2", "--report", "actual.json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.in_force().is_empty() && is_well());
    assert_eq!(place.read_report()["end"]["how"], "guard");
}

#[test]
fn isobar_killed_in_the_middle_leaves_nothing_of_it() {
    let file = FILE.replace(
        "  cart: {",
        "  real: {run: {command: \"exec sleep 1000\", shell: true}, health: none, operations: {\"GET /\": 1ms}}\n  cart: {",
    ) + "  much: {do: [pause real, scale web to 4, load x2, error cart 10%], lasts: 10min}\n";
    let place = Place::up(&file);
    let mut child = place.start(&["scenario", "run", "much", "--guard", "off"]);
    until("all of it is in force", || place.in_force().len() == 4);
    until("the new ones are there", || place.state_of("web#3") == "ready");
    let inner = place.status()["pid"].as_u64().expect("its pid") as i32;
    let outer = all_processes().into_iter().find(|it| it.pid == inner).map(|it| it.parent).expect("it runs");
    [outer, inner].into_iter().for_each(|pid| kill(pid as u32));
    assert_eq!(child.wait().expect("it ends").code(), Some(3), "nobody answers it any more");
    until("nothing is left, not even what was frozen", || {
        place.left("small").is_empty() && !place.is_held("small")
    });
    let said = place.ask(&["up", "-d", "--no-watch"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(place.status()["scenario"].is_null());
    assert_eq!((place.state_of("web#1"), place.state_of("web#2")), ("ready".into(), "nowhere".into()));
    assert_eq!(place.status()["traffic"][0]["running"], false);
    let mut again = place.start(&["scenario", "run", "much", "--guard", "off"]);
    until("it plays again", || place.in_force().len() == 4);
    place.said(&["scenario", "stop"]);
    again.wait().expect("it ends");
}
