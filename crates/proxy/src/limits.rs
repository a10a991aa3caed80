//! Above the memory mark the proxy gives things up in the order in which they hurt least: first keep-alive, then new
//! requests, then new connections.

use crate::worker::Worker;
use std::sync::atomic::Ordering::Relaxed;

/// How far above the mark resident memory is, in per cent of the mark; the control side measures it.
fn pressure(worker: &Worker) -> u64 {
    worker.pressure.load(Relaxed)
}

pub(crate) fn allows_keep_alive(worker: &Worker) -> bool {
    pressure(worker) < 100
}

pub(crate) fn refuses_requests(worker: &Worker) -> bool {
    pressure(worker) >= 105
}

pub(crate) fn refuses_connections(worker: &Worker) -> bool {
    pressure(worker) >= 110
}

/// Resident bytes of this process, from the kernel.
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Workers to start: what the control group allows us to use, and no more than there are processors.
pub fn worker_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| parse_cpu_max(&text));
    quota.map_or(processors, |quota| quota.min(processors)).max(1)
}

/// `200000 100000` is two processors; `max 100000` is all of them. Half a processor still needs a worker.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_become_workers() {
        for (text, expected) in [
            ("200000 100000\n", Some(2)),
            ("50000 100000", Some(1)),
            ("250000 100000", Some(3)),
            ("max 100000", None),
            ("", None),
            ("1 0", None),
        ] {
            assert_eq!(parse_cpu_max(text), expected, "{text:?}");
        }
    }
}
