//! `isobar up` as a person meets it: started, killed at any moment, troubled; and nothing left behind.

mod place;

use place::{Place, get, kill, until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use units::Rng;
use up::process::all_processes;

/// The first argument of a process of ours: which part of isobar it is.
fn first_argument(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(line.split(|byte| *byte == 0).nth(1).unwrap_or_default()).into_owned()
}

/// Whoever stops waiting for a start in the background is told that it goes on, and it does.
#[test]
fn ctrl_c_of_a_waiting_start_in_the_background_says_that_it_goes_on() {
    let place = Place::new(
        "isobar: 1\nservices: {slow: {run: sleep 1000, health: {path: /never, startup: 10min}}}\n",
    );
    let waiting = place.isobar(&["up", "-d"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let waiting = waiting.expect("isobar runs");
    until("it starts", || place.state_of("slow#0") == "starting");
    place::signal(waiting.id(), rustix::process::Signal::INT);
    let output = waiting.wait_with_output().expect("it ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("goes on starting in the background"), "{said}");
    assert_eq!(place.state_of("slow#0"), "starting");
}

const TWO: &str = r#"isobar: 1
system: two
services:
  web:
    replicas: 2
    operations:
      "GET /": {work: 1ms, calls: ['cart "GET /cart/{id}"'], response: 100B}
  cart:
    operations:
      "GET /cart/{id}": {work: 1ms, response: 20B}
gateways:
  edge: {listen: "127.0.0.1:PORT", routes: [{path: /, to: web}]}
"#;

#[test]
fn a_system_comes_up_answers_and_goes_down() {
    let place = Place::new(TWO);
    let said = place.said(&["up", "-d"]);
    assert!(said.contains("web is ready (2 instances)") && said.contains("gateway  edge"), "{said}");
    let (status, body) = get(&place.gateway(), "/");
    assert!(status == 200 && body.len() == 100 && body.starts_with("GET / from web#"), "{status} {body}");
    let said = place.said(&["up"]);
    assert!(said.contains("`two` is running already") && said.contains("--name"), "{said}");
    let said = place.said(&["up", "-d", "--name", "second", "--without", "cart"]);
    assert!(said.contains("`second` goes on"), "{said}");
    let said = place.said(&["ps", "--name", "second"]);
    assert!(said.contains("web#1") && !said.contains("cart#0"), "{said}");
    assert!(place.said(&["restart", "nobody", "--name", "two"]).contains("there are cart, web"));
    for name in ["two", "second"] {
        assert!(place.said(&["down", "--name", name]).contains("is down"));
        assert!(!place.is_held(name));
    }
    assert_eq!(place.ask(&["ps"]).status.code(), Some(3));
}

#[test]
fn no_request_fails_while_instances_are_replaced_and_scaled() {
    let place = Place::new(TWO);
    place.said(&["up", "-d"]);
    let gateway = place.gateway();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        // Five hundred a second from ten clients, as far as this machine can; each waits for its own turn.
        let asking = |lane: u32| {
            let (gateway, stop) = (&gateway, &stop);
            move || {
                let (started, mut asked, mut failed) = (Instant::now(), 0u32, Vec::new());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let due = Duration::from_millis(2) * (asked * 10 + lane);
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                    let (status, body) = get(gateway, "/");
                    asked += 1;
                    if status != 200 {
                        failed.push(format!("{status} {body}"));
                    }
                }
                (asked, failed)
            }
        };
        let asking: Vec<_> = (0..10).map(|lane| scope.spawn(asking(lane))).collect();
        let restarts = |place: &Place, name: &str| -> u64 {
            let status = place.status();
            let all = status["services"].as_array().into_iter().flatten().filter(|it| it["name"] == name);
            all.flat_map(|it| it["instances"].as_array())
                .flatten()
                .filter_map(|it| it["restarts"].as_u64())
                .sum()
        };
        place.said(&["restart", "cart", "web"]);
        until("all three are replaced", || restarts(&place, "web") == 2 && restarts(&place, "cart") == 1);
        place.said(&["scale", "web=4"]);
        until("two more are ready", || place.state_of("web#3") == "ready");
        place.said(&["scale", "web=1"]);
        until("three are gone", || place.state_of("web#1") == "nowhere");
        place.write("isobar.yaml", &TWO.replace("20B", "30B"));
        until("the changed service is replaced", || restarts(&place, "cart") == 2);
        until("its old instance is gone", || place.said(&["ps"]).matches("cart#").count() == 1);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let each = asking.into_iter().map(|it| it.join().expect("no panic"));
        each.fold((0, Vec::new()), |all, one| (all.0 + one.0, [all.1, one.1].concat()))
    });
    assert!(asked > 50, "{asked}");
    assert!(failed.is_empty(), "{} of {asked}: {failed:?}", failed.len());
}

/// Services that are real, one of which starts a child in its group and one that leaves it.
const REAL: &str = r#"isobar: 1
system: real
services:
  family: {run: {command: "echo ready; sleep 1000 & sleep 1000", shell: true}, health: {log: ready}}
  daemon: {run: {command: "setsid sleep 1000 & echo ready; exec sleep 1000", shell: true}, health: {log: ready}}
  web:    {operations: {"GET /": 1ms}, needs: [family]}
"#;

#[test]
fn nothing_is_left_after_a_kill_at_any_moment() {
    let place = Place::new(REAL);
    let mut luck = Rng::from_seed(20_261_120);
    for round in 0..100 {
        let mut outer: Child =
            place.isobar(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        // Somewhere between before the first process and long after the last.
        std::thread::sleep(Duration::from_micros(luck.below(80_000)));
        // The one that does the work and the one that cleans up after it, as far as they are there yet.
        let part = |word: &str| {
            let mut children =
                all_processes().into_iter().filter(|it| it.parent == outer.id() as i32 && !it.zombie);
            children.find(|it| first_argument(it.pid) == word).map(|it| it.pid as u32)
        };
        let victims: Vec<u32> = match round % 4 {
            0 => vec![outer.id()],
            1 => part("__inner").into_iter().collect(),
            2 => [Some(outer.id()), part("__inner")].into_iter().flatten().collect(),
            _ => [part("__mourner"), Some(outer.id()), part("__inner")].into_iter().flatten().collect(),
        };
        victims.iter().for_each(|it| kill(*it));
        if victims.is_empty() {
            kill(outer.id());
        }
        outer.wait().expect("it was started");
        if round % 4 == 3 {
            // Nobody was left to clean up: what services started themselves stays until the next start, which heals it.
            until("the kernel has taken it down", || !place.is_held("real"));
            let said = place.said(&["up", "-d"]);
            assert!(said.contains("goes on in the background"), "round {round}: {said}");
            place.said(&["down"]);
        }
        until(&format!("round {round}: everything ends"), || {
            place.left("real").is_empty() && !place.is_held("real")
        });
    }
    assert!(place.said(&["up", "-d"]).contains("goes on in the background"));
    assert_eq!(
        place.left("real").len(),
        5,
        "a shell and its two, the daemon and what left it: {}",
        place.said(&["ps"])
    );
    place.said(&["down"]);
    until("everything ends", || place.left("real").is_empty());
    assert!(!place.is_held("real"));
    let files = |of: &str| -> Vec<String> {
        let entries = std::fs::read_dir(place.state().join(of)).expect("a folder").flatten();
        entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
    };
    // A kill between writing and renaming leaves the one, which the next run writes over.
    let known = ["lock", "logs", "output", "run.json.new"];
    let unknown: Vec<String> = files("real").into_iter().filter(|it| !known.contains(&it.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(files("real/logs/family").len() <= 8, "what is kept of logs is bounded over all runs");
}

#[test]
fn a_crash_loop_is_given_up_with_its_last_words() {
    let place = Place::new(
        "isobar: 1\nsystem: crash\nservices:\n  bad: {run: {command: \"echo cannot open the vault >&2; exit 7\", shell: true}}\n  \
         missing: {run: ./absent}\n",
    );
    let output = place.ask(&["up", "-d"]);
    assert_eq!(output.status.code(), Some(1));
    until("both are given up", || {
        place.state_of("bad#0") == "failed" && place.state_of("missing#0") == "failed"
    });
    until("and then one wants to look at the map", || place.output("crash").contains("map      map "));
    let said = place.output("crash");
    for wanted in [
        "bad#0 is given up after 5 attempts (exit status 7)",
        "| cannot open the vault",
        "/absent` does not exist",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let logs = place.said(&["logs", "bad"]);
    assert!(logs.matches("! cannot open the vault").count() == 5, "{logs}");
    place.said(&["down"]);
    assert!(place.said(&["logs", "bad"]).contains("cannot open the vault"), "logs outlive the run");
}

#[test]
fn one_that_hangs_at_stop_is_killed() {
    let place = Place::new(
        "isobar: 1\nsystem: hang\nservices:\n  deaf:\n    run: {command: \"trap '' TERM; echo ready; while true; do sleep 0.05; done\", shell: true, stop_timeout: 200ms}\n    health: {log: ready}\n",
    );
    place.said(&["up", "-d"]);
    place.said(&["down"]);
    assert_eq!(place.left("hang"), Vec::<i32>::new());
    let said = place.output("hang");
    assert!(said.contains("deaf#0 did not stop and was killed"), "{said}");
}

#[test]
fn a_flood_of_output_is_bounded_and_hurts_nobody() {
    let place = Place::new(
        "isobar: 1\nsystem: flood\nservices:\n  loud: {run: {command: \"echo ready; yes 0123456789012345678901234567890123456789 | head -n 3000000; echo the end; sleep 1000\", shell: true}, health: {log: ready}}\n  \
         calm: {operations: {\"GET /\": 1ms}}\n",
    );
    place.said(&["up", "-d"]);
    until("it has said everything", || {
        place.said(&["logs", "loud", "--grep", "^the end$"]).contains("the end")
    });
    assert_eq!(place.state_of("calm#0"), "ready");
    let files = std::fs::read_dir(place.state().join("flood/logs/loud")).expect("its logs");
    let bytes: u64 = files.flatten().filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum();
    assert!((1 << 20..80 << 20).contains(&bytes), "{bytes}");
    assert!(place.said(&["logs", "calm"]).contains("listening on"));
}

#[test]
fn a_changed_file_is_planned_and_a_wrong_one_refused_whole() {
    let place = Place::new(TWO);
    place.said(&["up", "-d"]);
    let output = || place.output("two");
    place.write("isobar.yaml", &format!("{TWO}nonsense: 1\n"));
    until("it is refused", || output().contains("the file is refused whole"));
    assert!(output().contains("nonsense"), "{}", output());
    assert_eq!(get(&place.gateway(), "/").0, 200);
    place.write("isobar.yaml", &TWO.replace("  cart:", "  ads: {}\n  cart:"));
    until("it is taken", || place.state_of("ads#0") == "ready");
    assert!(output().contains("the file changed: ads starts (1)"), "{}", output());
    // What a person scaled is the file's again, and told so.
    place.said(&["scale", "cart=2"]);
    until("there are two", || place.state_of("cart#1") == "ready");
    place.write("isobar.yaml", TWO);
    until("it is gone", || place.state_of("ads#0") == "nowhere");
    assert!(output().contains("cart goes from 2 to 1 instances; ads stops"), "{}", output());
}

#[test]
fn a_service_is_told_about_its_world_and_a_command_can_stand_in_its_place() {
    let place = Place::new(
        "isobar: 1\nsystem: told\nplaces: {eu: {zones: [a, b]}}\nservices:\n  web:\n    run: {command: \"echo $ISOBAR_INSTANCE at $ISOBAR_ZONE on $PORT with $CART_URL $SECRET $FROM_FILE; sleep 1000\", shell: true, env: {SECRET: s3}, env_file: [.env]}\n    health: {log: with}\n    replicas: 2\n    needs: [cart]\n  cart: {operations: {\"GET /\": 1ms}}\n",
    );
    place.write(".env", "FROM_FILE='a b'\n");
    let said = place.said(&["up", "-d"]);
    let logs = place.said(&["logs", "web"]);
    assert!(logs.contains("web#0 at a on ") && logs.contains("web#1 at b on "), "{logs}{said}");
    assert!(logs.contains("with http://127.0.0.1:") && logs.contains("s3 a b"), "{logs}");
    assert!(
        !said.contains("s3") && !place.said(&["ps", "--json"]).contains("s3"),
        "a secret is never printed"
    );
    let said = place.said(&["exec", "web", "--", "sh", "-c", "echo $ISOBAR_SERVICE $SECRET; exit 5"]);
    assert_eq!(said, "web s3\n");
    assert_eq!(place.ask(&["exec", "web", "--", "sh", "-c", "exit 5"]).status.code(), Some(5));
    let killed = place.ask(&["exec", "web", "--", "sh", "-c", "kill -9 $$"]).status;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&killed),
        Some(9),
        "it ends as the command does"
    );
    for (program, code, why) in [
        ("no-such-program", 127, "no program is called that"),
        ("./absent", 127, "No such file"),
        ("/", 126, "denied"),
    ] {
        let refused = place.ask(&["exec", "web", "--", program]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(code) && said.contains(why), "{program}: {said}");
    }
    let said = place.said(&["exec", "web", "--", "sh", "-c", "exec 3<>/dev/null; echo $CART_ADDR"]);
    assert_eq!(get(said.trim(), "/").0, 200, "its neighbour answers at {said}");
}

#[test]
fn what_instances_cost_is_told_with_all_that_they_started() {
    // The shell is small; what it starts holds sixty million bytes and burns what it can.
    let place = Place::new(
        "isobar: 1\nsystem: cost\nservices:\n  busy: {run: {command: \"echo ready; head -c 60000000 /dev/zero | sort -z | tail -c 1 & while true; do :; done\", shell: true}, health: {log: ready}}\n  calm: {replicas: 4}\n",
    );
    place.said(&["up", "-d"]);
    let instance = |name: &str| {
        let status = place.status();
        let all =
            status["services"].as_array().into_iter().flatten().flat_map(|it| it["instances"].as_array());
        all.flatten().find(|it| it["name"] == name).cloned().unwrap_or_default()
    };
    until("the shell burns a good part of a core", || {
        instance("busy#0")["cpu_cores"].as_f64().is_some_and(|it| it > 0.02)
    });
    let busy = instance("busy#0");
    assert!(busy["cpu_ms"].as_u64() > Some(0) && busy["memory_bytes"].as_u64() > Some(1 << 19), "{busy}");
    assert!(busy["shared_by"].is_null(), "{busy}");
    let calm = instance("calm#3");
    assert_eq!((calm["shared_by"].as_u64(), calm["pid"].as_u64()), (Some(4), None), "{calm}");
    assert!(calm["memory_bytes"].as_u64() > Some(1 << 18), "{calm}");
    let table = place.said(&["ps"]);
    assert!(table.contains("~ an equal share of isobar's own process, which plays 4"), "{table}");
}

#[test]
fn places_are_felt_when_they_shall_be() {
    let place = Place::new(
        r#"isobar: 1
system: far
places: {eu-west-1: {zones: [a]}, us-east-1: {zones: [a]}}
services:
  web: {replicas: {eu-west-1: 1}, discovery: everywhere, operations: {"GET /": {calls: ['cart "GET /"']}}}
  cart: {replicas: {us-east-1: 1}, discovery: everywhere, operations: {"GET /": {response: 10B}}}
gateways:
  edge: {listen: "127.0.0.1:PORT", routes: [{path: /, to: web}]}
"#,
    );
    let took = |words: &[&str]| {
        let said = place.said(words);
        let gateway = place.gateway();
        until("it answers", || get(&gateway, "/").0 == 200);
        let fastest = (0..10)
            .map(|_| {
                let asked = Instant::now();
                assert_eq!(get(&gateway, "/").0, 200, "{said}");
                asked.elapsed()
            })
            .min();
        place.said(&["down"]);
        fastest.expect("ten times")
    };
    // Light needs 81 ms between these two by the built-in table, give or take 5 %; a loaded machine only adds to it.
    let far = took(&["up", "-d", "--places"]);
    assert!(far >= Duration::from_millis(76), "{far:?}");
    let near = took(&["up", "-d"]);
    assert!(near < far, "{near:?} and {far:?}");
}

/// Answers everything with its name until it is dropped.
struct Stranger {
    address: std::net::SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stranger {
    fn new(name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopping = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                        name.len()
                    );
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn an_instance_from_elsewhere_is_checked_routed_to_kept_and_forgotten() {
    let place =
        Place::new(&TWO.replace("replicas: 2", "health: {path: /healthz, every: 50ms, unhealthy_after: 2}"));
    place.said(&["up", "-d", "--without", "web"]);
    let gateway = place.gateway();
    assert_eq!(get(&gateway, "/").0, 503, "nobody stands in for what was left out");
    let stranger = Stranger::new("a stranger");
    let path = "/v1/instances/web/mine?lease_seconds=1";
    let said = format!("{{\"address\": \"{}\", \"version\": \"v9\", \"team\": \"us\"}}", stranger.address);
    assert_eq!(place.api("PUT", path, &said).0, 200);
    until("it is routed to", || get(&gateway, "/") == (200, "a stranger".to_owned()));
    let told = place.said(&["ps"]);
    assert!(told.contains("web/mine") && told.contains("elsewhere"), "{told}");
    // It never checks in again. Its lease ends, it answers, and so it stays.
    until("discovery has forgotten it", || {
        let (_, all) = place.api("GET", "/v1/instances", "");
        all["instances"][0]["in_discovery"] == false && all["instances"][0]["health"] == "healthy"
    });
    assert_eq!(get(&gateway, "/"), (200, "a stranger".to_owned()));
    // Control comes back to it, or it to control: the same thing said again.
    assert_eq!(place.api("PUT", path, &said).0, 200);
    assert_eq!(place.api("GET", "/v1/instances", "").1["instances"][0]["in_discovery"], true);
    drop(stranger);
    until("it is forgotten", || {
        place.api("GET", "/v1/instances", "").1["instances"] == serde_json::json!([])
    });
    assert_eq!(get(&gateway, "/").0, 503);
    let (_, history) = place.api("GET", "/v1/history", "");
    let texts = history["changes"].to_string();
    assert!(texts.contains("registered from elsewhere: web/mine (127.0.0.1:"), "{texts}");
    assert!(texts.contains("web/mine is healthy") && texts.contains("gone: web/mine"), "{texts}");
    // Whatever is wrong with a request is told in one form, which says what.
    let good = "{\"address\": \"127.0.0.1:9\"}";
    let of = |query: &str| format!("/v1/instances/web/mine?{query}");
    for (method, path, body, status, part) in [
        ("PUT", of(""), "{\"address\": \"nowhere\"}", 422, "socket address"),
        ("PUT", of(""), "{\"address\": \"127.0.0.1:0\"}", 422, "port 0"),
        ("PUT", of("lease_seconds=0"), good, 422, "a lease of zero"),
        ("PUT", of("lease_seconds=-1"), good, 400, "the query is not what this path takes: "),
        ("PUT", of("lease=5"), good, 400, "unknown field `lease`"),
        ("PUT", "/v1/instances/web/a%2Fb".to_owned(), good, 422, "`id` is no name"),
        ("PUT", "/v1/instances/web/%00".to_owned(), good, 422, "`id` is no name"),
        ("POST", of(""), good, 405, "this path has no POST"),
        ("DELETE", of(""), "", 404, "no instance `mine` of `web` is registered"),
        ("GET", "/v1/nothing".to_owned(), "", 404, "no such path"),
    ] {
        let (answered, answer) = place.api(method, &path, body);
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(answered == status && said.contains(part), "{method} {path}: {answered} {answer}");
    }
}

#[test]
fn a_changed_source_is_built_and_replaces_its_service_alone() {
    let place = Place::new(
        r#"isobar: 1
system: built
services:
  cart:
    run: {command: "echo running $(cat made); sleep 1000", shell: true, build: "! grep broken source && cp source made", watch: [source]}
    health: {log: running}
  calm: {run: {command: "echo ready; sleep 1000", shell: true}, health: {log: ready}}
"#,
    );
    place.write("source", "one\n");
    place.said(&["up", "-d"]);
    assert!(place.said(&["logs", "cart"]).contains("| running one"), "{}", place.output("built"));
    place.write("source", "two, longer\n");
    until("the new one runs", || place.said(&["logs", "cart"]).contains("| running two"));
    until("the old one is gone", || place.said(&["ps"]).matches("cart#0").count() == 1);
    place.write("source", "broken, and longer still\n");
    until("the mistake is told", || place.output("built").contains("cart was not built: exit status 1"));
    assert!(place.output("built").contains("what runs stays"), "{}", place.output("built"));
    assert_eq!(place.state_of("cart#0"), "ready", "what ran still does");
    place.write("source", "three\n");
    until("the mend is taken", || place.said(&["logs", "cart"]).contains("| running three"));
    let status = place.status();
    let calm = status["services"].as_array().into_iter().flatten().find(|it| it["name"] == "calm");
    assert_eq!(calm.map(|it| it["instances"][0]["restarts"].clone()), Some(0.into()), "nobody touched it");
}

#[test]
fn readiness_is_asked_in_every_way_and_liveness_restarts() {
    let place = Place::new(
        r#"isobar: 1
system: asked
services:
  by-command: {run: {command: sleep 1000}, health: {command: "test -e alive", every: 20ms, unhealthy_after: 2, startup: 300ms}}
  by-log: {run: {command: "sleep 0.05; echo at your service; sleep 1000", shell: true}, health: {log: at your service}}
  by-tcp: {health: {tcp: true}, operations: {"GET /": 1ms}}
  by-http: {health: {path: /healthz}, operations: {"GET /": 1ms}}
  by-grpc: {kind: grpc, health: {grpc: true}, operations: {"shop.Cart/Get": 1ms}}
  never: {run: {command: sleep 1000}, health: {command: "false", every: 20ms, startup: 200ms}, needs: [by-log]}
"#,
    );
    place.write("alive", "");
    let output_of = place.ask(&["up", "-d"]);
    assert_eq!(output_of.status.code(), Some(1), "one of them never comes up");
    for instance in ["by-command#0", "by-log#0", "by-tcp#0", "by-http#0", "by-grpc#0"] {
        until(instance, || place.state_of(instance) == "ready");
    }
    assert!(place.output("asked").contains("not ready within 200ms"), "{}", place.output("asked"));
    std::fs::remove_file(place.path().join("alive")).expect("it is there");
    until("it is replaced", || place.output("asked").contains("unhealthy for 300ms"));
    let said = place.output("asked");
    assert!(said.contains("by-command#0 is unhealthy: `test -e alive` ended with exit status 1"), "{said}");
    place.write("alive", "");
    place.said(&["restart", "by-command"]);
    until("it is well again", || place.state_of("by-command#0") == "ready");
}

/// A Python that has grpcio; without one its tests are skipped, by name.
fn python_with_grpc() -> Option<String> {
    let python = std::env::var("ISOBAR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import grpc"]).output();
    let found = found.is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("skipped: grpcio is not installed for {python}");
    }
    found.then_some(python)
}

/// A gRPC server of other people's making: `health.py STATUS [NAME]` knows its whole and `NAME`; with `none` it has no
/// health service. Once a file `sick` is there, it serves no more.
const GRPC_HEALTH: &str = r#"
import concurrent.futures, os, sys, grpc

STATUS, NAMES = sys.argv[1], [b"", *(it.encode() for it in sys.argv[2:])]

def check(request, context):
    name = request[2:] if request else b""
    if name not in NAMES:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    serving = STATUS == "serving" and not os.path.exists("sick")
    return b"\x08" + (b"\x01" if serving else b"\x02")

server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
if STATUS != "none":
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
server.add_insecure_port("127.0.0.1:" + os.environ["PORT"])
server.start()
server.wait_for_termination()
"#;

#[test]
fn a_grpc_server_of_others_is_ready_when_it_says_so() {
    let Some(python) = python_with_grpc() else { return };
    let service = |name: &str, arguments: &str, health: &str| {
        format!(
            "  {name}: {{kind: grpc, run: {python} health.py {arguments}, health: {{{health}, every: 50ms, unhealthy_after: 2, startup: 10min}}}}\n"
        )
    };
    let file = [
        "isobar: 1\nsystem: peers\nservices:\n".to_owned(),
        service("whole", "serving", "grpc: true"),
        service("named", "serving shop.Cart", "grpc: shop.Cart"),
        service("closed", "not-serving", "grpc: true"),
        service("stranger", "serving shop.Cart", "grpc: shop.Pay"),
        service("silent", "none", "grpc: true"),
    ];
    let place = Place::new(&file.concat());
    place.write("health.py", GRPC_HEALTH);
    let mut up = place.isobar(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    until("those that serve are ready", || {
        place.state_of("whole#0") == "ready" && place.state_of("named#0") == "ready"
    });
    for wanted in [
        "health check: NOT_SERVING",
        "health check: the server knows no service called `shop.Pay` (gRPC status 5)",
        "health check: the server has no grpc.health.v1.Health (gRPC status 12)",
    ] {
        until(wanted, || place.said(&["ps"]).contains(wanted));
    }
    for instance in ["closed#0", "stranger#0", "silent#0"] {
        assert_eq!(place.state_of(instance), "starting", "{instance}");
    }
    place.write("sick", "");
    until("it is seen that they serve no more", || {
        place.state_of("whole#0") == "unhealthy" && place.state_of("named#0") == "unhealthy"
    });
    std::fs::remove_file(place.path().join("sick")).expect("it is there");
    until("they are well again", || {
        place.state_of("whole#0") == "ready" && place.state_of("named#0") == "ready"
    });
    place.said(&["down"]);
    up.wait().expect("it was started");
}

#[test]
fn jobs_come_first_and_what_waits_says_why() {
    let place = Place::new(
        r#"isobar: 1
system: jobs
services:
  migrate: {run: {command: "echo migrated; test -e schema", shell: true, job: true}}
  db: {needs: [{migrate: completed}], operations: {"GET /": 1ms}}
  web: {operations: {"GET /": {calls: [db]}}}
"#,
    );
    assert_eq!(place.ask(&["up", "-d"]).status.code(), Some(1));
    assert_eq!(place.state_of("db#0"), "waiting");
    let told = place.said(&["ps"]);
    for wanted in [
        "waits for migrate to be completed (`needs` names migrate, it is failed: exit status 1)",
        "waits for db to be healthy (`GET /` calls it, it is waiting)",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    place.write("schema", "");
    place.said(&["restart", "migrate"]);
    until("all of it is there", || place.status()["settled"] == true);
    assert_eq!((place.state_of("migrate#0"), place.state_of("web#0")), ("completed".into(), "ready".into()));
}

#[test]
fn troubles_of_this_machine_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let place = Place::new(&format!(
        "isobar: 1\nsystem: trouble\nservices:\n  stubborn: {{run: {{command: sleep 1000, port: {port}}}}}\n  absent: {{run: no-such-program --at-all}}\n  nowhere: {{run: {{command: sleep 1, dir: no/such/folder}}}}\n  loud: {{run: {{command: \"echo ready; sleep 1000\", shell: true}}, health: {{log: ready}}}}\n"
    ));
    // Where its lines should be kept lies something else, as when a disk is full: they are lost, and that is said.
    std::fs::create_dir_all(place.state().join("trouble/logs")).expect("a folder");
    std::fs::write(place.state().join("trouble/logs/loud"), "").expect("a file");
    assert_eq!(place.ask(&["up", "-d"]).status.code(), Some(1));
    for wanted in [
        &format!("its port {port} cannot be used: address already in use") as &str,
        "absent#0 could not be started: no program is called `no-such-program` (looked in PATH)",
        "absent#0 is given up after 5 attempts",
        "`isobar restart absent` tries again",
        "no/such/folder` does not exist",
        "lines of logs are lost",
    ] {
        until(wanted, || place.output("trouble").contains(wanted));
    }
    assert_eq!(place.state_of("loud#0"), "ready", "a full disk is no reason to stop");
    drop(taken);
    place.said(&["restart", "stubborn"]);
    // Nobody listens on its port, but it is free now: it runs and waits to be answered.
    until("it runs", || ["starting", "restarting"].contains(&place.state_of("stubborn#0").as_str()));
}

#[test]
fn lines_are_found_by_trace_time_and_words() {
    let place = Place::new(
        r#"isobar: 1
system: lines
services:
  web: {run: {command: "echo plain; echo '{\"level\":\"warn\",\"trace_id\":\"4bf92f3577b34da6\"}'; echo trouble >&2; sleep 1000", shell: true}, health: {log: plain}}
"#,
    );
    place.said(&["up", "-d"]);
    until("all is said", || place.said(&["logs", "web"]).contains("trouble"));
    let found = place.said(&["logs", "--id", "4bf92f3577b34da6", "--json"]);
    let line: serde_json::Value = serde_json::from_str(found.trim()).expect("one line of JSON");
    assert_eq!((&line["fields"]["level"], &line["stream"]), (&"warn".into(), &"out".into()));
    assert_eq!(place.said(&["logs", "--grep", "^tro.ble$"]).lines().count(), 1);
    assert!(place.said(&["logs", "web#0", "--since", "1h"]).contains("plain"));
    assert_eq!(place.said(&["logs", "web#7"]), "");
}

/// How large a file this run and its services may make, as a full disk would have it.
fn limit_files(pid: u64, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(pid as i32);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("it is ours");
}

#[test]
fn on_a_full_disk_the_system_goes_on_and_says_what_it_loses() {
    // A line now and then, each long enough that the limit is met in the middle of one.
    let place = Place::new(
        "isobar: 1\nsystem: full\nservices:\n  loud: {run: {command: \"n=0; while true; do n=$((n+1)); printf 'line %d %0500d end\\n' $n 0; sleep 0.01; done\", shell: true}, health: {log: line}}\n  calm: {operations: {\"GET /\": {work: 1ms, response: 10B}}}\ngateways:\n  edge: {listen: \"127.0.0.1:PORT\", routes: [{path: /, to: calm}]}\n",
    );
    place.said(&["up", "-d"]);
    let gateway = place.gateway();
    let pid = place.status()["pid"].as_u64().expect("its pid");
    let history = |place: &Place| place.api("GET", "/v1/history", "").1.to_string();
    limit_files(pid, Some(16_000));
    until("it is told", || history(&place).contains("lines of logs are lost: file too large"));
    assert_eq!((place.state_of("loud#0"), get(&gateway, "/").0), ("ready".to_owned(), 200));
    // Changes are carried out all the same, and what was said first is still there.
    place.said(&["scale", "calm=3"]);
    until("they are ready", || place.state_of("calm#2") == "ready");
    assert!(place.said(&["logs", "loud", "--grep", "line 1 "]).contains("line 1 "));
    limit_files(pid, None);
    until("it is over", || history(&place).contains("logs of loud are kept again"));
    let lines = place.said(&["logs", "loud"]);
    let whole = |it: &str| it.contains("| line ") && it.ends_with("0 end");
    let torn: Vec<&str> = lines.lines().filter(|it| !whole(it)).collect();
    assert!(torn.is_empty(), "half a line was kept: {torn:?}");
    let said = history(&place);
    assert!(said.matches("lines of logs are lost").count() < 6, "said once, and not twice a second: {said}");
    place.said(&["down"]);

    // Where nothing can be written there is no run, and a person reads why.
    let mut refused = Command::new("sh");
    refused
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" up -d", env!("CARGO_BIN_EXE_isobar")])
        .current_dir(place.path())
        .env("ISOBAR_STATE", place.state())
        .stdin(Stdio::null());
    let output = refused.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot write") && said.contains("output: File too large"), "{said}");
    assert!(place.left("full").is_empty() && !place.is_held("full"));
}

#[test]
fn who_listens_elsewhere_than_told_is_told_where() {
    let program = env!("CARGO_BIN_EXE_isobar");
    let place = Place::new(&format!(
        "isobar: 1\nsystem: mistaken\nservices:\n  fixed: {{run: {{command: \"'{program}' proxy inner.yaml\"}}, health: {{tcp: true, startup: 10min}}}}\n"
    ));
    place.write(
        "inner.yaml",
        "isobar: 1\nsystem: inner\nservices: {nobody: {}}\ngateways:\n  g: {listen: \"127.0.0.1:PORT\", routes: [{path: /, reply: {status: 200, body: it}}]}\n",
    );
    let mut up = place.start(&["up"]);
    let port = place.door().rsplit_once(':').expect("a port").1.to_owned();
    // It has a second one, for whoever looks after it.
    until("it is told", || {
        let told = place.said(&["ps"]);
        told.contains("it listens at ports ") && told.contains(&port) && told.contains("let it use $PORT")
    });
    place.said(&["down"]);
    up.wait().expect("it was started");
}

#[test]
fn a_state_folder_that_is_deleted_is_made_anew() {
    let place = Place::new(TWO);
    place.said(&["up", "-d"]);
    let folder = place.state().join("two");
    std::fs::remove_dir_all(&folder).expect("it is there");
    until("it is found again", || place.state_of("web#0") == "ready");
    let history = place.api("GET", "/v1/history", "").1.to_string();
    assert!(history.contains("was deleted; it is made anew"), "{history}");
    assert!(place.said(&["up"]).contains("`two` is running already"));
    place.said(&["restart", "cart"]);
    until("what is said now is kept", || place.said(&["logs", "cart"]).contains("listening on"));
    assert!(place.said(&["down"]).contains("`two` is down"));
}

#[test]
fn what_goes_wrong_at_the_start_is_said_in_its_own_words() {
    let place = Place::new(
        r#"isobar: 1
system: words
services:
  mute: {run: sleep 1000, health: {path: /, startup: 300ms}}
  slowly: {run: sleep 1000, health: {path: /, startup: 10min}}
  away: {run: {command: "(setsid sleep 1000 &); echo gone", shell: true}, health: {log: never}}
  secretive: {run: {command: sleep 1000, env_file: [.env]}, health: none}
  built: {run: {command: sleep 1000, build: "echo no compiler; exit 3"}, health: none}
"#,
    );
    assert_eq!(place.ask(&["up", "-d"]).status.code(), Some(1));
    let file = place.path().canonicalize().expect("it is there").join(".env");
    for wanted in [
        "mute#0 was ended, being not ready within 300ms: nobody listens at 127.0.0.1:",
        "behind, which w",
        "a service stays in the foreground, and what should end is a `job`",
        &format!("secretive#0 could not be started: cannot read its env_file `{}`", file.display()),
        "built was not built: exit status 3",
    ] {
        until(wanted, || place.output("words").contains(wanted));
    }
    let said = place.output("words");
    let last_words = said.split("the last it said:").nth(1).unwrap_or_default();
    assert!(!last_words.lines().nth(1).is_some_and(|it| it.contains("could not be started")), "{said}");
    let told = place.said(&["ps"]);
    assert!(told.contains("waits for its build, which failed: exit status 3"), "{told}");
    until("it is told what the check says", || place.said(&["ps"]).contains("not ready yet: nobody listens"));
}

#[test]
fn names_that_are_nobodys_are_refused_with_the_one_that_was_meant() {
    let place = Place::new(TWO);
    place.said(&["up", "-d"]);
    #[track_caller]
    fn check(place: &Place, words: &[&str], part: &str) {
        let output = place.ask(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(part), "{words:?}: {said}");
    }
    check(&place, &["restart", "crat"], "no service here is called `crat`; did you mean `cart`? there are");
    check(&place, &["restart", "cart", "nobody"], "no service here is called `nobody`");
    check(&place, &["stop", "web#1"], "`web#1` is an instance; this is for whole services: `web`");
    check(&place, &["scale", "wbe=7"], "did you mean `web`?");
    check(&place, &["exec", "wéb", "--", "true"], "no service here is called `wéb`");
    check(&place, &["logs", "nobody"], "no service here is called `nobody`");
    assert!(place.said(&["logs", "--name", "third"]).contains("no run called `third` is up; running: two"));
    check(&place, &["traffic", "people"], "no traffic is called `people`; there is none");
    check(&place, &["scenario", "run", "ads-lost"], "no scenario is called `ads-lost`; the file has none");
    check(&place, &["explain", "web", "crat"], "did you mean `cart`?");
    // From a folder without a file what is up is meant, and nothing where nothing is.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let explain = |place: &Place| {
        let output = place.isobar(&["explain", "web", "cart"]).current_dir(elsewhere.path()).output();
        let output = output.expect("isobar runs");
        let said =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        (output.status.code(), said)
    };
    let (code, said) = explain(&place);
    assert!(code == Some(0) && said.starts_with("web -> cart"), "{said}");
    check(&place, &["up", "--without", "crat", "--name", "other"], "did you mean `cart`?");
    let status = place.status();
    let restarts: Vec<u64> = (status["services"].as_array().into_iter().flatten())
        .flat_map(|it| it["instances"].as_array())
        .flatten()
        .filter_map(|it| it["restarts"].as_u64())
        .collect();
    assert_eq!(restarts, [0, 0, 0], "nothing was done to those that are somebody");
    assert!(place.said(&["traffic"]).contains("the file has no traffic"));
    place.said(&["down"]);
    let (code, said) = explain(&place);
    assert!(code == Some(3) && said.contains("no isobar.yaml in this folder"), "{said}");
    check(&place, &["logs", "crat"], "`two`, which ran last, kept nothing of `crat`; did you mean `cart`?");
    assert!(place.said(&["logs", "cart"]).contains("listening on"));
}

#[test]
fn the_history_says_who_and_when() {
    let place = Place::new(TWO);
    place.said(&["up", "-d"]);
    let mut scale = place.isobar(&["scale", "web=1"]);
    assert!(scale.env("USER", "ann").output().expect("isobar runs").status.success());
    assert_eq!(place.api("POST", "/v1/services/cart/restart", "").0, 200);
    let fleet = "/v1/instances/cart/extra?lease_seconds=60";
    assert_eq!(place.api("PUT", fleet, "{\"address\": \"127.0.0.1:9\"}").0, 200);
    let history = || place.api("GET", "/v1/history", "").1;
    let who = |part: &str| {
        let all = history();
        let mut changes = all["changes"].as_array().into_iter().flatten().cloned();
        changes.find(|it| it["text"].as_str().is_some_and(|it| it.contains(part)))
    };
    until("it is registered", || who("registered from elsewhere: cart/extra").is_some());
    assert_eq!(place.api("DELETE", "/v1/instances/cart/extra", "").0, 200);
    until("it is gone", || who("gone: cart/extra (checked out)").is_some());
    for (text, expected) in [
        ("scale to 1", "ann"),
        ("restart", "somebody over the API"),
        ("registered from elsewhere: cart/extra", "cart/extra"),
        ("gone: cart/extra (checked out)", "cart/extra"),
    ] {
        let change = who(text).expect("it is recorded");
        assert_eq!(change["who"], expected, "{change}");
        assert!(change["unix_ms"].as_u64() > Some(1_600_000_000_000), "{change}");
    }
}
