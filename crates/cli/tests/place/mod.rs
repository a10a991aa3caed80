//! A folder with a file in it and a state folder of its own: where the tests of running systems run isobar.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use up::process::{all_processes, is_marked};
use up::state::Folder;

/// Where files say this, the place's own free port stands.
const GATEWAY: &str = "127.0.0.1:PORT";

pub(crate) struct Place {
    folder: tempfile::TempDir,
    port: u16,
}

impl Place {
    pub(crate) fn new(file: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), port: free_port() };
        place.write("isobar.yaml", file);
        place
    }

    /// With the system running.
    pub(crate) fn up(file: &str) -> Self {
        Self::up_beside(file, &[])
    }

    /// With other files in its folder.
    pub(crate) fn up_beside(file: &str, others: &[(&str, &str)]) -> Self {
        let place = Self::new(file);
        others.iter().for_each(|(name, text)| place.write(name, text));
        let said = place.ask(&["up", "-d", "--no-watch"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let text = text.replace(GATEWAY, &self.door());
        std::fs::write(self.path().join(name), text).expect("it can be written");
    }

    /// The address that stands where files say `127.0.0.1:PORT`.
    pub(crate) fn door(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn isobar(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobar"));
        command.args(words).current_dir(self.path()).env("ISOBAR_STATE", self.state()).stdin(Stdio::null());
        command
    }

    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        self.isobar(words).output().expect("isobar runs")
    }

    pub(crate) fn said(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    pub(crate) fn start(&self, words: &[&str]) -> Child {
        self.isobar(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isobar runs")
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.ask(&["ps", "--json"]).stdout).unwrap_or_default()
    }

    /// Where something of this kind is reached: `gateway`, `api`.
    pub(crate) fn address(&self, kind: &str) -> String {
        let status = self.status();
        let found = status["addresses"].as_array().and_then(|all| all.iter().find(|it| it["kind"] == kind));
        found.and_then(|it| it["url"].as_str()).expect("an address").trim_start_matches("http://").to_owned()
    }

    pub(crate) fn gateway(&self) -> String {
        self.address("gateway")
    }

    pub(crate) fn state_of(&self, instance: &str) -> String {
        let status = self.status();
        let instances =
            status["services"].as_array().into_iter().flatten().flat_map(|it| it["instances"].as_array());
        let found = instances.flatten().find(|it| it["name"] == instance);
        found.and_then(|it| it["state"].as_str()).unwrap_or("nowhere").to_owned()
    }

    /// What a run said since it came up.
    pub(crate) fn output(&self, name: &str) -> String {
        std::fs::read_to_string(Folder::new(&self.state(), name).output()).unwrap_or_default()
    }

    /// What a scenario has in force now.
    pub(crate) fn in_force(&self) -> Vec<String> {
        let status = self.status();
        let words = status["scenario"]["in_force"].as_array().into_iter().flatten();
        words.filter_map(|it| it.as_str().map(str::to_owned)).collect()
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.path().join("actual.json")
    }

    pub(crate) fn read_report(&self) -> Value {
        let text = std::fs::read_to_string(self.report()).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Processes that belong to any run in this state folder, however far they forked away.
    pub(crate) fn left(&self, name: &str) -> Vec<i32> {
        let mark = format!("{}/", Folder::new(&self.state(), name).mark());
        all_processes().iter().filter(|it| !it.zombie && is_marked(it.pid, &mark)).map(|it| it.pid).collect()
    }

    pub(crate) fn is_held(&self, name: &str) -> bool {
        Folder::new(&self.state(), name).is_held()
    }

    /// Asks the API; the status and the answer.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let address = self.address("api");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}", body.len());
        let (status, text) = asked(&address, &head, body).expect("it answers");
        (status, serde_json::from_str(&text).unwrap_or_default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever a failed test left: `down` for all that is still up here.
        for found in up::state::running(&self.state()) {
            self.ask(&["down", "--name", &found.name]);
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// Waits for something that must come; how long is no matter of the test.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn asked(address: &str, head: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{head}\r\nconnection: close\r\n\r\n{body}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    Ok((status, text.split_once("\r\n\r\n").map_or("", |it| it.1).to_owned()))
}

/// Status and body of one GET; 0 when there was no answer.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    asked(address, &format!("GET {path} HTTP/1.1\r\nhost: x"), "").unwrap_or_default()
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    // It may have ended by itself meanwhile.
    let _ = rustix::process::kill_process(pid, signal);
}

pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}
