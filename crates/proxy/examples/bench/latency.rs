//! What a proxy adds to a request's time when nobody is in a hurry: 5,000 requests a second, due at fixed times.

use crate::peers::peer;
use crate::process::{LOAD_CORE, Paths, median, pinned, start};
use crate::{BACK_H1, FRONT, Fallible};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Each sends so many requests a second on a connection of its own.
const CALLERS: u32 = 20;

/// Asks a port at this rate and prints p50 and p99 in microseconds. A request's time begins when it was due, so that a
/// stall is paid by everybody who had to wait for it.
pub(crate) fn print_latencies(port: u16, rate: u32, seconds: u64) -> Fallible<()> {
    let began = Instant::now() + Duration::from_millis(50);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| std::thread::spawn(move || call(port, rate, seconds, caller, began)))
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.join().map_err(|_| "a caller panicked")?.ok_or("a caller lost its connection")?);
    }
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!("{} {}", at(0.5), at(0.99));
    Ok(())
}

fn call(port: u16, rate: u32, seconds: u64, caller: u32, began: Instant) -> Option<Vec<f64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let between = Duration::from_secs(1) * CALLERS / rate;
    let count = Duration::from_secs(seconds).as_nanos() / between.as_nanos();
    let mut took = Vec::new();
    let mut buffer = [0; 4096];
    for n in 0..count as u32 {
        let due = began + between * n + between * caller / CALLERS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut have = 0;
        // The back end answers with 128 zeroes, and with nothing of the kind in its head.
        while !buffer[..have].ends_with(&[b'0'; 128]) {
            have += stream.read(&mut buffer[have..]).ok().filter(|read| *read > 0)?;
        }
        // The first second warms up.
        if n >= count as u32 / seconds as u32 {
            took.push(due.elapsed().as_secs_f64() * 1e6);
        }
    }
    Some(took)
}

/// What each proxy adds to p50 and p99 at 5,000 requests a second, in microseconds: medians of alternating rounds, less
/// what the back end takes by itself.
pub(crate) fn added(paths: &Paths, rounds: usize, seconds: u32) -> Fallible<Vec<(&'static str, f64, f64)>> {
    let this = paths.this.display().to_string();
    let ask = |port: u16| -> Fallible<(f64, f64)> {
        let mut load = pinned(LOAD_CORE, &this);
        load.args(["latencies", &port.to_string(), "5000", &(seconds + 1).to_string()]);
        let output = load.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (p50, p99) = text.trim().split_once(' ').ok_or("no latencies")?;
        Ok((p50.parse()?, p99.parse()?))
    };
    let mut samples: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..rounds {
        for name in ["none", "isobar", "haproxy"] {
            let running = match name {
                "none" => None,
                name => match peer(name, "h1", paths) {
                    Some(command) => Some(start(command, FRONT)?),
                    None => continue,
                },
            };
            let (p50, p99) = ask(if running.is_some() { FRONT } else { BACK_H1 })?;
            let row = samples.entry(name).or_default();
            row.0.push(p50);
            row.1.push(p99);
        }
    }
    let mut of = |name: &str| samples.get_mut(name).map(|(p50, p99)| (median(p50), median(p99)));
    let (base50, base99) = of("none").ok_or("no back end")?;
    let added = ["isobar", "haproxy"].into_iter().filter_map(|name| {
        let (p50, p99) = of(name)?;
        Some((name, p50 - base50, p99 - base99))
    });
    Ok(added.collect())
}
