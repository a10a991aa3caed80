//! A control side with its doors open, on threads of its own, for as long as a test runs.

use control::doors::Doors;
use control::exports;
use control::watched::{Clocks, Watched};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use telemetry::exposition::Format;
use telemetry::metrics::{Class, Label, SeriesKey};
use units::Nanos;

pub(crate) struct House {
    pub(crate) watched: Arc<Watched>,
    /// Takes Zipkin and OTLP, HTTP/1.1 and HTTP/2.
    pub(crate) door: SocketAddr,
    /// `/metrics`.
    pub(crate) page: SocketAddr,
}

/// The wall is read once: clients stamp their spans with it.
#[allow(clippy::disallowed_methods, reason = "a test's edge has a clock")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as u64)
}

#[allow(clippy::disallowed_methods, reason = "a test's edge has a clock")]
fn clocks() -> Clocks {
    let started = std::time::Instant::now();
    let now = move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    Clocks { now: Arc::new(now), started_unix_ms: unix_ms() }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl House {
    pub(crate) fn open() -> Self {
        let watched = Watched::new(clocks());
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port on the loopback");
        let (door, page) = (bind(), bind());
        let addresses = (door.local_addr().expect("bound"), page.local_addr().expect("bound"));
        for listener in [&door, &page] {
            listener.set_nonblocking(true).expect("a socket like any other");
        }
        let shared = Arc::clone(&watched);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let metrics = {
                    let watched = Arc::clone(&shared);
                    move |headers: axum::http::HeaderMap| {
                        let accept = headers.get("accept").and_then(|it| it.to_str().ok()).unwrap_or("");
                        let format = Format::negotiate(accept);
                        let body = exports::page(&watched, format);
                        async move { ([("content-type", format.content_type())], body) }
                    }
                };
                let router = axum::Router::new().route("/metrics", axum::routing::get(metrics));
                let page = tokio::net::TcpListener::from_std(page).expect("a listener");
                tokio::spawn(async move { axum::serve(page, router).await });
                let door = tokio::net::TcpListener::from_std(door).expect("a listener");
                Doors::new(shared).serve(door).await;
            });
        });
        Self { watched, door: addresses.0, page: addresses.1 }
    }

    /// Counts as a worker would, and collects.
    pub(crate) fn count(&self, requests: u64) {
        let registry = &self.watched.registry;
        let mut worker = registry.recorder();
        for class in [Class::Success, Class::ServerError] {
            let key = SeriesKey {
                source: registry.label("web"),
                destination: registry.label("cart \"of\" all\\trades"),
                operation: registry.label("GET /cart/{id}"),
                version: registry.label("v1"),
                source_zone: Label::NONE,
                destination_zone: Label::NONE,
                class,
            };
            let series = worker.series(&key);
            (1..=requests).for_each(|at| worker.record(series, Nanos::from_micros(at * 700)));
        }
        lock(&self.watched.measures).collect(self.watched.clocks.now());
    }

    /// Asks until the answer is there: clients send when they like.
    pub(crate) fn eventually<T>(&self, what: &str, ask: impl Fn(&Watched) -> Option<T>) -> T {
        for _ in 0..200 {
            if let Some(answer) = ask(&self.watched) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what} did not come within ten seconds");
    }
}

/// A program that is there, or the word that it is not.
#[allow(clippy::print_stdout, reason = "a skipped check must say so")]
pub(crate) fn have(program: &str, args: &[&str]) -> bool {
    let ran = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = ran.is_ok_and(|it| it.success());
    if !there {
        println!("skipped: `{program} {}` does not work here", args.join(" "));
    }
    there
}

/// Runs a program to its end and shows what it said if it failed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it was there a moment ago");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}
