//! Resident memory.

use crate::peers::peer;
use crate::process::{Paths, resident_kib, start};
use crate::{FRONT, Fallible};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Resident memory: empty, with 5,000 routes, and per idle connection.
pub(crate) fn measure(paths: &Paths) -> Fallible<(u64, u64, f64)> {
    let settle = Duration::from_millis(700);
    let routes = {
        let running = start(peer("isobar", "routes", paths).ok_or("ourselves")?, FRONT)?;
        std::thread::sleep(settle);
        resident_kib(running.0.id())?
    };
    let running = start(peer("isobar", "h1", paths).ok_or("ourselves")?, FRONT)?;
    std::thread::sleep(settle);
    let empty = resident_kib(running.0.id())?;
    let mut idle = Vec::new();
    for at in 0..10_000u32 {
        // One loopback address has ports for a fraction of this only where they are few.
        let mut stream =
            TcpStream::connect(("127.0.0.1", FRONT)).map_err(|error| format!("connection {at}: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut buffer = [0; 1024];
        if stream.read(&mut buffer)? == 0 {
            return Err(format!("connection {at} was closed").into());
        }
        idle.push(stream);
    }
    std::thread::sleep(settle);
    let full = resident_kib(running.0.id())?;
    Ok((empty, routes, (full.saturating_sub(empty)) as f64 / idle.len() as f64))
}
