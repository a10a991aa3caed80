//! Children, their processors and what they used of them.

use crate::Fallible;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The proxy has one core, whoever loads it and answers it the other.
pub(crate) const PROXY_CORE: &str = "0";
pub(crate) const LOAD_CORE: &str = "1";

/// Where things are: scratch files, and our side as a program.
pub(crate) struct Paths {
    pub(crate) dir: PathBuf,
    pub(crate) this: PathBuf,
}

pub(crate) fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// A child that is ended with us, by the id we started it under.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(mut command: Command, port: u16) -> Fallible<Running> {
    let running = Running(command.stdout(Stdio::null()).spawn()?);
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(running);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(format!("nothing listens on {port}").into())
}

/// Processor time of a process so far, in microseconds, user and system.
pub(crate) fn cpu_us(pid: u32) -> Fallible<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold spaces; what follows it does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11).ok_or("no utime")?.parse::<u64>()?
        + fields.get(12).ok_or("no stime")?.parse::<u64>()?;
    Ok(ticks * 10_000)
}

pub(crate) fn resident_kib(pid: u32) -> Fallible<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Where a program is, if it is installed. Debian keeps daemons off a user's path.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    places.map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Requests that a load generator says it completed.
pub(crate) fn completed(output: &str) -> Option<u64> {
    output.lines().find_map(|line| {
        let line = line.trim();
        if let Some((count, _)) = line.split_once(" requests in ") {
            return count.parse().ok();
        }
        // h2load: "requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, ..."
        let rest = line.strip_prefix("requests: ")?;
        rest.split(", ").find_map(|part| part.strip_suffix(" succeeded")?.parse().ok())
    })
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
