//! Ports on the loopback: handed out, never asked for, and the same again after a restart.
//!
//! They come from below the range from which the kernel takes the ports of outgoing connections, so that a service
//! which is being restarted does not find its own port in use by somebody's call.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Linux hands out 32768 and above by itself, and people like round numbers below 20000.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

#[derive(Debug, Default)]
pub struct Ports {
    taken: BTreeSet<u16>,
    /// Different for each run, so that two copies of one system rarely look at the same ports.
    salt: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("no port between {FIRST} and {LAST} is free on 127.0.0.1")]
pub struct NoPort;

impl Ports {
    pub fn new(salt: u64) -> Self {
        Self { taken: BTreeSet::new(), salt }
    }

    /// A free port, already bound. The same `purpose` gets the same port as long as nobody else took it.
    pub fn bind(&mut self, purpose: &str) -> Result<TcpListener, NoPort> {
        let mut hasher = DefaultHasher::new();
        (self.salt, purpose).hash(&mut hasher);
        let count = u64::from(LAST - FIRST) + 1;
        let start = hasher.finish() % count;
        for step in 0..count {
            let port = FIRST + ((start + step) % count) as u16;
            if self.taken.contains(&port) {
                continue;
            }
            if let Ok(listener) = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
                self.taken.insert(port);
                return Ok(listener);
            }
        }
        Err(NoPort)
    }

    /// As [`bind`](Self::bind), for somebody who binds it himself in a moment.
    pub fn reserve(&mut self, purpose: &str) -> Result<SocketAddr, NoPort> {
        let listener = self.bind(purpose)?;
        listener.local_addr().map_err(|_| NoPort)
    }

    pub fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_stable_and_never_shared() {
        let mut ports = Ports::new(u64::from(std::process::id()));
        let a = ports.reserve("web#0").expect("a port");
        let b = ports.reserve("web#0").expect("a port");
        assert_ne!(a, b, "the successor of an instance has its own until the old one is gone");
        ports.release(a.port());
        let again = ports.bind("web#0").expect("a port");
        assert_eq!(again.local_addr().expect("bound"), a);
    }
}
