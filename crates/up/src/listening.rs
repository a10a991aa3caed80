//! At which ports processes listen, as the kernel tells it: for the words of a check that finds nobody where somebody
//! should be. A service that was written for a port of its own and never heard of `$PORT` is the commonest of mistakes.

use std::collections::{BTreeSet, HashSet};

/// The ports at which these processes accept connections.
pub fn ports_of(pids: &[i32]) -> BTreeSet<u16> {
    let sockets: HashSet<u64> = pids.iter().flat_map(|pid| sockets_of(*pid)).collect();
    // The table is that of a process's network, which those of one service share.
    let table = |name: &str| {
        let text = |pid| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok();
        pids.iter().find_map(text).unwrap_or_default()
    };
    let (four, six) = (table("tcp"), table("tcp6"));
    let all = listeners(&four).chain(listeners(&six));
    all.filter(|(socket, _)| sockets.contains(socket)).map(|(_, port)| port).collect()
}

fn sockets_of(pid: i32) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let socket = |it: std::fs::DirEntry| {
        let link = std::fs::read_link(it.path()).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.flatten().filter_map(socket).collect()
}

/// Socket and port of each row that listens.
fn listeners(table: &str) -> impl Iterator<Item = (u64, u16)> {
    table.lines().filter_map(|line| {
        // Number, local address, remote address, state (0A listens), ..., and tenth the socket.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let socket = fields.get(9)?.parse().ok()?;
        (*fields.get(3)? == "0A").then_some((socket, port))
    })
}

/// What a check adds to its words when those it asked for listen elsewhere.
pub fn words(ports: &BTreeSet<u16>) -> String {
    let all: Vec<String> = ports.iter().take(3).map(u16::to_string).collect();
    match all.as_slice() {
        [] => String::new(),
        [one] => {
            format!("; it listens at port {one} instead: let it use $PORT, or say `port: {one}` in its `run`")
        }
        several => {
            let several = several.join(", ");
            format!("; it listens at ports {several} instead: let it use $PORT, or say its `port` in `run`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_understood() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4713 1 0 100 0 0 10 0
";
        assert_eq!(listeners(table).collect::<Vec<_>>(), [(4711, 8080), (4713, 80)]);
        assert_eq!(listeners("nonsense\n1: x").count(), 0);
    }

    #[test]
    fn our_own_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(ports_of(&[own]).contains(&port));
        assert!(words(&BTreeSet::from([port])).contains(&format!("`port: {port}`")));
        assert_eq!(words(&BTreeSet::new()), "");
        assert!(words(&BTreeSet::from([80, 90])).contains("at ports 80, 90 instead"));
    }
}
