//! What instances cost: processor time and memory of a process and everything below it, as the kernel counts them.
//!
//! A service is seldom one process: a shell starts an interpreter, which starts workers. So a leader is charged with its
//! descendants and with its group. Synthetic instances are tasks of one thread of ours, and no kernel can tell them
//! apart: each is told an equal share, and that it is one.

use std::collections::{HashMap, HashSet};

/// At one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Since the first of its processes began; of those that ended, what their parents waited for.
    pub cpu_nanos: u64,
    /// Resident; what several processes share counts for each.
    pub memory_bytes: u64,
}

/// One line of the process table, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    pid: u32,
    parent: u32,
    group: u32,
    ticks: u64,
    /// Of children that ended and were waited for.
    children_ticks: u64,
    pages: u64,
}

fn parse(pid: u32, stat: &str) -> Option<Row> {
    // The name in brackets may hold spaces and brackets itself; what follows the last one is plain.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Row {
        pid,
        parent: u32::try_from(number(1)?).ok()?,
        group: u32::try_from(number(2)?).ok()?,
        ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
        pages: number(21)?,
    })
}

/// Of each leader, with all that belongs to it; a leader that is gone is left out. One walk over the process table.
pub fn of_trees(leaders: &[u32]) -> HashMap<u32, Usage> {
    if leaders.is_empty() {
        return HashMap::new();
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let rows: Vec<Row> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    charge(leaders, &rows)
}

fn charge(leaders: &[u32], rows: &[Row]) -> HashMap<u32, Usage> {
    let mut below: HashMap<u32, Vec<&Row>> = HashMap::new();
    let mut groups: HashMap<u32, Vec<&Row>> = HashMap::new();
    for row in rows {
        below.entry(row.parent).or_default().push(row);
        groups.entry(row.group).or_default().push(row);
    }
    let mut charged = HashMap::new();
    for leader in leaders {
        let mut seen = HashSet::new();
        let mut usage = Usage::default();
        let mut stack: Vec<&Row> = rows.iter().filter(|it| it.pid == *leader).collect();
        if stack.is_empty() {
            continue;
        }
        stack.extend(groups.get(leader).into_iter().flatten());
        while let Some(row) = stack.pop() {
            if seen.insert(row.pid) {
                usage.cpu_nanos += nanos(row.ticks + row.children_ticks);
                usage.memory_bytes += bytes(row.pages);
                stack.extend(below.get(&row.pid).into_iter().flatten());
            }
        }
        charged.insert(*leader, usage);
    }
    charged
}

/// Our own: the processor time of the threads of these names, and the memory of the whole process.
pub fn of_own_threads(names: &[&str]) -> Option<Usage> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let named = |thread: &std::path::Path| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|it| names.contains(&it.trim_end()))
    };
    let rows = threads
        .flatten()
        .map(|it| it.path())
        .filter(|it| named(it))
        .filter_map(|it| parse(0, &std::fs::read_to_string(it.join("stat")).ok()?));
    let sum = |sum: Option<Usage>, row: Row| {
        let cpu_nanos = sum.map_or(0, |it| it.cpu_nanos) + nanos(row.ticks);
        Some(Usage { cpu_nanos, memory_bytes: bytes(row.pages) })
    };
    rows.fold(None, sum)
}

fn nanos(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as `pid<parent/group:ticks+children:pages`, and what leader 10 is charged with.
    #[track_caller]
    fn check(table: &str, expected: Option<(u64, u64)>) {
        let rows: Vec<Row> = table
            .split(' ')
            .map(|word| {
                let numbers: Vec<u64> =
                    word.split(['<', '/', ':', '+']).map(|it| it.parse().expect("a number")).collect();
                Row {
                    pid: numbers[0] as u32,
                    parent: numbers[1] as u32,
                    group: numbers[2] as u32,
                    ticks: numbers[3],
                    children_ticks: numbers[4],
                    pages: numbers[5],
                }
            })
            .collect();
        let found = charge(&[10], &rows).get(&10).copied();
        let expected =
            expected.map(|(ticks, pages)| Usage { cpu_nanos: nanos(ticks), memory_bytes: bytes(pages) });
        assert_eq!(found, expected, "{table}");
    }

    #[test]
    fn a_leader_is_charged_with_all_that_belongs_to_it() {
        check("1<0/1:9+0:9 10<1/10:5+0:100", Some((5, 100)));
        check("10<1/10:1+0:1 11<10/10:2+0:2 12<11/10:4+0:4 13<1/13:8+0:8", Some((7, 7)));
        // One that left the tree but not the group, and one that left the group but not the tree.
        check("10<1/10:1+0:1 11<1/10:2+0:2 12<10/12:4+0:4", Some((7, 7)));
        // Children that ended are not forgotten.
        check("10<1/10:1+6:1", Some((7, 1)));
        check("11<10/10:1+0:1", None);
    }

    #[test]
    fn the_kernel_is_understood() {
        let name = "r) S 7 (x";
        let rest = "S 7 8 8 0 -1 4194304 1 2 3 4 50 60 70 80 20 0 1 0 999 1000000 321 18446744073709551615";
        let row = parse(5, &format!("5 ({name}) {rest}")).expect("a row");
        assert_eq!(row, Row { pid: 5, parent: 7, group: 8, ticks: 110, children_ticks: 150, pages: 321 });
        let me = std::process::id();
        assert!(of_trees(&[me])[&me].memory_bytes > 1 << 20);
        std::thread::Builder::new()
            .name("a-worker".to_owned())
            .spawn(|| assert!(of_own_threads(&["a-worker"]).is_some_and(|it| it.memory_bytes > 1 << 20)))
            .expect("a thread")
            .join()
            .expect("it is found");
        assert_eq!(of_own_threads(&["nobody"]), None);
        let together = std::sync::Barrier::new(3);
        let burnt = std::thread::scope(|scope| {
            for name in ["one-of-two", "two-of-two"] {
                let burn = || {
                    let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                    while spent().tv_nsec < 60_000_000 {
                        std::hint::black_box(0);
                    }
                    together.wait();
                    together.wait();
                };
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn_scoped(scope, burn)
                    .expect("a thread");
            }
            together.wait();
            let burnt = of_own_threads(&["one-of-two", "two-of-two"]).map(|it| it.cpu_nanos);
            together.wait();
            burnt
        });
        // The kernel counts in ticks of ten milliseconds, and rounds each thread's down.
        assert!(burnt.is_some_and(|it| it >= 100_000_000), "{burnt:?}");
    }
}
