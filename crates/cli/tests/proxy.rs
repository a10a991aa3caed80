//! `isobar proxy` as a person meets it: a file, a curl, an edit, a mistake, a signal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers every request of every connection with one word.
fn upstream(word: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
                let mut stream = stream;
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if !reader.read_line(&mut head).is_ok_and(|read| read > 0) {
                            return;
                        }
                    }
                    if head.starts_with("GET /slow") {
                        std::thread::sleep(Duration::from_millis(600));
                    }
                    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{word}", word.len());
                    if stream.write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A running `isobar proxy` in a folder of its own. Killed when dropped.
struct Running {
    folder: tempfile::TempDir,
    child: Child,
    /// Lines of stderr, as they come.
    words: mpsc::Receiver<String>,
    gateway: String,
    admin: String,
}

/// A port that nobody uses now. Another process could take it before isobar does; a test would say so.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port()
}

fn file(api: SocketAddr, more: &str) -> String {
    on_port(free_port(), api, more)
}

fn on_port(port: u16, api: SocketAddr, more: &str) -> String {
    format!(
        "isobar: 1\nservices:\n  api: {{endpoints: [\"{api}\"], protocol: http1}}\ngateways:\n  edge:\n    listen: \
         \"127.0.0.1:{port}\"\n    routes:\n{more}      - {{path: /, to: api}}\n"
    )
}

fn command(folder: &tempfile::TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
    command.arg("proxy").args(words).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What `isobar proxy` said and its exit code, when it is not meant to run on.
fn refused(text: &str, words: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("p.yaml"), text).expect("it can be written");
    let output = command(&folder, words).output().expect("isobar runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), said)
}

impl Running {
    fn start(text: &str, words: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("p.yaml"), text).expect("it can be written");
        Self::start_in(folder, words)
    }

    fn start_in(folder: tempfile::TempDir, words: &[&str]) -> Self {
        let mut child =
            command(&folder, &[&["p.yaml", "--workers", "2"], words].concat()).spawn().expect("it runs");
        let (sender, heard) = mpsc::sync_channel(10_000);
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut address = |kind: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("it says where it is");
            assert!(line.starts_with(kind), "{line:?} {:?}", heard.try_iter().collect::<Vec<_>>());
            line.split_whitespace().last().expect("an address").to_owned()
        };
        let gateway = address("gateway");
        let admin = address("admin");
        Self { gateway, admin, folder, child, words: heard }
    }

    fn write(&self, text: &str) {
        // As editors do: another file under the same name.
        let (new, old) = (self.folder.path().join(".p.yaml.new"), self.folder.path().join("p.yaml"));
        std::fs::write(&new, text).expect("it can be written");
        std::fs::rename(new, old).expect("it can be renamed");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    #[track_caller]
    fn hears(&self, part: &str) -> String {
        let began = Instant::now();
        let mut all = Vec::new();
        while began.elapsed() < PATIENCE {
            let Ok(line) = self.words.recv_timeout(Duration::from_millis(100)) else { continue };
            if line.contains(part) {
                return line;
            }
            all.push(line);
        }
        panic!("{part:?} was never said; but: {all:#?}");
    }

    fn get(&self, path: &str) -> String {
        get(self.gateway.trim_start_matches("http://"), path)
    }

    fn ask(&self, path: &str) -> String {
        get(self.admin.trim_start_matches("http://"), path)
    }

    fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").expect("it is written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

/// Calls `done` until it is true.
#[track_caller]
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_serves_and_answers_questions_about_itself() {
    let mut proxy = Running::start(&file(upstream("one"), ""), &["--limit", "connections=100"]);
    assert!(proxy.get("/x").ends_with("one"), "{}", proxy.get("/x"));
    for (path, part) in [
        ("/healthz", "ok"),
        ("/readyz", "ready"),
        ("/stats", "isobar_route_requests_total{listener=\"edge\""),
        ("/stats?format=json", "\"edge\":\"edge->api\""),
        ("/endpoints", "\"check\":\"passing\""),
        ("/config", "\"source\":\"p.yaml\""),
        ("/config", "\"connections\":100,"),
        ("/nowhere", "404"),
        ("/log", "info"),
        ("/drain", "405"),
    ] {
        soon(path, || proxy.ask(path).contains(part));
    }
    // A tap tells of the next request as it ends.
    let admin = proxy.admin.trim_start_matches("http://").to_owned();
    let tap = std::thread::spawn(move || get(&admin, "/tap?count=1&path=/tapped"));
    while !tap.is_finished() {
        proxy.get("/tapped?secret=1");
    }
    let tapped = tap.join().expect("it ended");
    assert!(tapped.contains("\"path\":\"/tapped\"") && !tapped.contains("secret"), "{tapped}");

    let mut stream = TcpStream::connect(proxy.admin.trim_start_matches("http://")).expect("admin");
    stream.write_all(b"POST /drain HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").expect("it is written");
    assert_eq!(proxy.exit_code(), Some(0), "drained by request");
}

#[test]
fn an_edit_is_in_force_at_once_and_a_bad_one_changes_nothing() {
    let (one, two, port) = (upstream("one"), upstream("two"), free_port());
    let file = |api, more| on_port(port, api, more);
    let proxy = Running::start(&file(one, ""), &[]);
    assert!(proxy.get("/").ends_with("one"));
    proxy.write(&file(two, ""));
    soon("the second upstream", || proxy.get("/").ends_with("two"));
    proxy.hears("is in force");

    proxy.write("isobar: 1\ngateways:\n  edge: {listen: nowhere, routes: [{path: /, to: apo}]}\n");
    proxy.hears("this edit is refused");
    assert!(proxy.get("/").ends_with("two"), "what ran before runs on");

    // Written in place, not replaced; and with a mistake that only the proxy can see.
    let tls = file(one, "").replace("    routes:", "    tls: {cert: none.pem, key: none.pem}\n    routes:");
    std::fs::write(proxy.folder.path().join("p.yaml"), tls).expect("it can be written");
    proxy.hears("none.pem");
    proxy.hears("this edit is refused");
    assert!(proxy.get("/").ends_with("two"));

    std::fs::write(proxy.folder.path().join("p.yaml"), file(one, "")).expect("it can be written");
    soon("the first upstream again", || proxy.get("/").ends_with("one"));
    proxy.signal("-HUP");
    proxy.hears("nothing has changed");
}

#[test]
fn without_watching_a_signal_reads_the_file_again() {
    let port = free_port();
    let proxy = Running::start(&on_port(port, upstream("one"), ""), &["--no-watch"]);
    proxy.write(&on_port(port, upstream("two"), ""));
    assert!(proxy.get("/").ends_with("one"));
    proxy.signal("-HUP");
    proxy.hears("is in force");
    soon("the second upstream", || proxy.get("/").ends_with("two"));
}

#[test]
fn it_finishes_what_is_in_progress_before_it_ends() {
    let mut proxy = Running::start(&file(upstream("late"), ""), &[]);
    let address = proxy.gateway.trim_start_matches("http://").to_owned();
    let mut idle = TcpStream::connect(&address).expect("somebody listens");
    let slow = std::thread::spawn(move || get(&address, "/slow"));
    soon("a request in flight", || !proxy.ask("/stats").contains("isobar_proxy_requests_in_flight 0\n"));
    proxy.signal("-TERM");
    let reply = slow.join().expect("a reply");
    assert!(reply.ends_with("late") && reply.to_lowercase().contains("connection: close"), "{reply}");
    assert_eq!(proxy.exit_code(), Some(0));
    let mut nothing = Vec::new();
    assert_eq!(idle.read_to_end(&mut nothing).expect("an end"), 0, "idle connections are closed");

    // The second signal does not wait.
    let mut proxy = Running::start(&file(upstream("late"), ""), &[]);
    let mut stream = TcpStream::connect(proxy.gateway.trim_start_matches("http://")).expect("it listens");
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").expect("it is written");
    soon("a request in flight", || !proxy.ask("/stats").contains("isobar_proxy_requests_in_flight 0\n"));
    proxy.signal("-TERM");
    proxy.hears("once more ends at once");
    proxy.signal("-TERM");
    assert_eq!(proxy.exit_code(), Some(1));
}

#[test]
fn what_cannot_work_is_said_before_anything_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let port = free_port();
    let (good, listen) = (on_port(port, upstream("one"), ""), format!("127.0.0.1:{port}"));
    let tls = good.replace("    routes:", "    tls: {cert: c.pem, key: k.pem}\n    routes:");
    for (text, words, code, part) in [
        ("isobar: 1\nservices: {a: {}}\n", &["p.yaml"][..], 2, "no gateway"),
        ("isobar: 1\nservice: {}\n", &["p.yaml"], 2, "services"),
        (&good, &["absent.yaml"], 2, "absent.yaml"),
        (&good.replace(&listen, &taken), &["p.yaml"], 2, "another process does"),
        (&good, &["p.yaml", "--admin", &taken], 2, "another process does"),
        (&tls, &["p.yaml"], 2, "c.pem"),
        (&good, &["p.yaml", "--workers", "0"], 2, "0"),
        (&good, &["p.yaml", "--limit", "conections=1"], 2, "no such limit"),
    ] {
        let (exit, said) = refused(text, words);
        assert!(exit == code && said.contains(part), "{words:?}: {exit} {said}");
    }
}

#[test]
fn the_admin_answers_on_a_socket_of_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("admin.sock");
    std::fs::write(folder.path().join("p.yaml"), file(upstream("one"), "")).expect("it can be written");
    // Somebody was killed here before.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let mut proxy = Running::start_in(folder, &["--admin", &format!("unix:{}", path.display())]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&path).expect("it is there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).expect("somebody listens");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").expect("it is written");
    stream.shutdown(Shutdown::Write).expect("half");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.ends_with("ready\n"), "{reply}");
    proxy.signal("-TERM");
    assert_eq!(proxy.exit_code(), Some(0));
    assert!(!path.exists(), "it cleans up after itself");
}

#[test]
fn a_request_leaves_a_line_of_json_if_asked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("p.yaml"), file(upstream("one"), "")).expect("it can be written");
    let mut child = command(&folder, &["p.yaml", "--access-log"]).spawn().expect("it runs");
    let mut words = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    words.read_line(&mut line).expect("stdout is the log, so the address is here");
    let address =
        line.split_whitespace().last().expect("an address").trim_start_matches("http://").to_owned();
    get(&address, "/logged");
    let mut log = BufReader::new(child.stdout.take().expect("it is piped"));
    line.clear();
    log.read_line(&mut line).expect("a line");
    let row: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&row["path"], &row["status"]), (&"/logged".into(), &200.into()), "{row}");
    let _ = child.kill();
    let _ = child.wait();
}
