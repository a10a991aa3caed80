//! `isobar sim` as a person meets it: wrong questions get clear words, and what was asked for is delivered or the reason is.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const FILE: &str = r#"
isobar: 1
services:
  web: {replicas: 2, concurrency: 8, operations: {"GET /": {work: 2ms, calls: [db "read"]}}}
  db: {concurrency: 8, operations: {read: exponential(mean 2ms)}}
  audio: {concurrency: 1, queue: unbounded, operations: {read: exponential(mean 2ms)}}
traffic:
  people: {to: web "GET /", rate: 50/s}
  listeners: {to: audio "read", rate: 100/s}
"#;

fn isobar(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
    command.arg("sim").arg(folder).args(words).current_dir(folder).stdin(Stdio::null());
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("isobar.yaml"), FILE).expect("it can be written");
    folder
}

fn ask(folder: &Path, words: &[&str]) -> Output {
    isobar(folder, words).output().expect("isobar runs")
}

const SHORT: [&str; 4] = ["--duration", "1s", "--runs", "2"];

#[test]
fn wrong_questions_get_clear_words() {
    let folder = folder();
    for (words, expected) in [
        (&["--set", "load=-1"][..], "out of range"),
        (&["--set", "load=NaN"], "out of range"),
        (&["--set", "load=1e300"], "out of range"),
        (&["--set", "load"], "no `=`"),
        (&["--set", "webb.replicas=2"], "there are web, db"),
        (&["--duration", "0"], "measures nothing"),
        (&["--duration", "1e300s"], "--duration"),
        (&["--duration", "1000000d"], "--duration"),
        (&["--warm-up", "minus"], "--warm-up"),
        (&["--threads", "0"], "1..=1024"),
        (&["--threads", "100000"], "1..=1024"),
        (&["--seed", "seven"], "--seed"),
        (&["--runs", "0"], "--runs"),
        (&["--scenario", "zone-lots"], "no scenario is called `zone-lots`"),
        (&["--break", "everything"], "nothing breaks by the name of `everything`"),
        (&["--sweep", "load=3x..1x"], "the second load must be the larger"),
        (&["--fallacy", "quiet"], "there are reliable, latency"),
        (&["--export", "zipkin"], "write KIND=FILE"),
        (
            &["--export", "jaeger=x.json"],
            "there are zipkin, otlp, graph, histograms, guesstimate, prometheus",
        ),
        (&["--epoch", "yesterday"], "seconds since 1970"),
        (
            &["--set", "load=8"],
            "`audio` has utilisation 1.6 at 800/s: the queue grows without end; add replicas or a queue limit",
        ),
        (&["--html", "no/such/folder/page.html"], "cannot write no/such/folder/page.html"),
    ] {
        let all: Vec<&str> = if words[0] == "--duration" || words[0] == "--runs" {
            words.to_vec()
        } else {
            [words, &SHORT].concat()
        };
        let output = ask(folder.path(), &all);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}

#[test]
fn exports_are_written_and_the_same_seed_writes_the_same() {
    let folder = folder();
    let written = |name: &str| {
        let kinds = ["zipkin", "otlp", "graph", "histograms", "guesstimate", "prometheus"];
        let names: Vec<String> = kinds.iter().map(|kind| format!("{kind}={name}.{kind}")).collect();
        let mut words: Vec<&str> = SHORT.to_vec();
        names.iter().for_each(|it| words.extend(["--export", it.as_str()]));
        let output = ask(folder.path(), &words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        kinds.map(|kind| {
            std::fs::read_to_string(folder.path().join(format!("{name}.{kind}"))).expect("it was written")
        })
    };
    let (one, two) = (written("one"), written("two"));
    assert_eq!(one, two);
    for (text, words) in
        one.iter().zip(["\"traceId\"", "resourceSpans", "\"timestamp\"", "from_ns", "\"space\"", "_bucket"])
    {
        assert!(text.contains(words), "{words} is not in {}", &text[..text.len().min(400)]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_a_reader_who_has_enough_is_no_failure() {
    let folder = folder();
    for words in [&["--html", "/dev/full"][..], &["--export", "zipkin=/dev/full"]] {
        let output = ask(folder.path(), &[words, &SHORT].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot write /dev/full") && said.contains("No space"), "{said}");
    }
    let full = std::fs::File::create("/dev/full").expect("it can be opened");
    let output =
        isobar(folder.path(), &[&["--json"], &SHORT[..]].concat()).stdout(full).output().expect("it runs");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("No space"),
        "{output:?}"
    );
    // A pipe whose reader is gone before the first byte.
    let mut child = isobar(folder.path(), &[&["--json"], &SHORT[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("words");
    assert!(!said.contains("panicked") && !said.contains("error"), "{status}: {said}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_before_the_first_run_ends_prints_what_there_is() {
    let folder = folder();
    // An hour of simulated time takes longer than we wait; every stage of it may be interrupted.
    let mut child =
        isobar(folder.path(), &["--json", "--duration", "30d", "--runs", "1", "--allow-unstable"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
    // The ear for ctrl-c is there once its thread waits for signals; before that ctrl-c would end the process.
    let caught = format!("/proc/{}/status", child.id());
    let listens = || {
        let status = std::fs::read_to_string(&caught).unwrap_or_default();
        let mask = status.lines().find_map(|it| it.strip_prefix("SigCgt:")).map(str::trim).unwrap_or("0");
        u64::from_str_radix(mask, 16).is_ok_and(|it| it & 2 != 0)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !listens() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.is_ok_and(|it| it.success()), "a signal can be sent");
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("words");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130), "{text}");
    if text.is_empty() {
        return; // Interrupted before the first event: there is nothing to tell, and that is said on stderr.
    }
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    assert_eq!(
        (report["partial"].as_bool(), report["runs_ended"].as_u64()),
        (Some(true), Some(0)),
        "{report}"
    );
    assert!(report["measured_s"].as_f64().is_some_and(|it| 0.0 < it && it < 30.0 * 86_400.0), "{report}");
}
