//! The shop, live: built with its map, started on this machine, given customers, and watched in a browser.

use crate::{run, ui};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SHOP: &str = "examples/shop";
/// So that it stands beside a shop that runs already.
const NAME: &str = "demo";

/// What customers ask for, and how often a second. A second of it fits into what two cores can do besides a browser.
const CUSTOMERS: [(&str, &str, u32); 3] =
    [("GET", "/", 100), ("POST", "/cart/7", 20), ("POST", "/orders", 6)];

/// Until ctrl-c, or for `--seconds N`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let seconds = match args {
        [] => None,
        [flag, seconds] if flag == "--seconds" => {
            Some(seconds.parse().with_context(|| format!("--seconds {seconds}: not a number of seconds"))?)
        }
        other => bail!("demo takes `--seconds N` or nothing, not `{}`", other.join(" ")),
    };
    if ["node", "npm"].iter().all(|tool| run::output(tool, &["--version"]).is_ok()) {
        ui::build()?;
    } else {
        eprintln!("without node and npm there is no page to embed; everything else is shown");
    }
    run::step("cargo", &["build", "--release", "--package", "cli"])?;
    let isobar = run::target_dir().join("release/isobar");
    let isobar = isobar.to_string_lossy();
    let mut child = Command::new(&*isobar)
        .args(["up", SHOP, "--name", NAME, "--no-watch"])
        .current_dir(run::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {isobar}"))?;
    let (gateway, map) = addresses(&mut child)?;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let customers: Vec<_> = CUSTOMERS
        .into_iter()
        .map(|what| {
            let (gateway, stop, answered) = (gateway.clone(), Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || shop(&gateway, what, &stop, &answered))
        })
        .collect();
    eprintln!("\nthe shop, live: {map}   (ctrl-c ends it)");
    if let Some(seconds) = seconds {
        std::thread::sleep(Duration::from_secs(seconds));
        run::step(&isobar, &["down", "--name", NAME])?;
    }
    let status = child.wait().context("isobar")?;
    stop.store(true, Relaxed);
    for customer in customers {
        // One that panicked has said so.
        let _ = customer.join();
    }
    eprintln!("{} requests were answered", answered.load(Relaxed));
    if seconds.is_some() && !status.success() {
        bail!("isobar up ended with {status}");
    }
    Ok(())
}

/// The gateway's and the map's, as `isobar up` prints them once everything is ready. All it prints is passed on.
fn addresses(child: &mut Child) -> Result<(String, String)> {
    let output = child.stdout.take().context("isobar's output")?;
    let mut lines = BufReader::new(output).lines();
    let (mut gateway, mut map) = (None, None);
    while gateway.is_none() || map.is_none() {
        let Some(line) = lines.next() else { bail!("isobar up ended before it said where the map is") };
        let line = line?;
        pass_on(&line);
        let mut words = line.split_whitespace();
        let (kind, _, url) = (words.next(), words.next(), words.next());
        match (kind, url) {
            (Some("gateway"), Some(url)) => gateway = Some(url.trim_start_matches("http://").to_owned()),
            (Some("map"), Some(url)) => map = Some(url.to_owned()),
            _ => {}
        }
    }
    // A full pipe would hold isobar up.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| pass_on(&line)));
    gateway.zip(map).context("both were found")
}

fn pass_on(line: &str) {
    eprintln!("{line}");
}

/// One customer of a kind: a kept connection, a request at a fixed pace, and no more than one on its way. When the shop is
/// slower than the pace, the customer waits and asks less often.
fn shop(
    gateway: &str,
    (method, path, per_second): (&str, &str, u32),
    stop: &AtomicBool,
    answered: &AtomicU64,
) {
    let pace = Duration::from_secs(1) / per_second;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {gateway}\r\ncontent-length: 0\r\n\r\n");
    let mut connection = None;
    let mut next = now();
    while !stop.load(Relaxed) {
        std::thread::sleep(next.saturating_duration_since(now()));
        next = (next + pace).max(now());
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => TcpStream::connect(gateway).and_then(|stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                Ok(BufReader::new(stream))
            }),
        };
        let asked = open.and_then(|mut open| {
            open.get_mut().write_all(request.as_bytes())?;
            read_answer(&mut open)?;
            Ok(open)
        });
        match asked {
            Ok(open) => {
                answered.fetch_add(1, Relaxed);
                connection = Some(open);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Reads one whole answer, so that the connection can be used again. Ours always say how long they are.
fn read_answer(from: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.ok_or(std::io::ErrorKind::InvalidData)?;
    let read = std::io::copy(&mut from.take(length), &mut std::io::sink())?;
    if read == length { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

#[allow(clippy::disallowed_methods, reason = "customers live in real time")]
fn now() -> Instant {
    Instant::now()
}
