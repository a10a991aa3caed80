//! Ports on the loopback: handed out, never asked for, and the same again after a restart.
//!
//! They come from below the range from which the kernel takes the ports of outgoing connections, so that a service
//! which is being restarted does not find its own port in use by somebody's call.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

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

    /// As [`reserve`](Self::reserve), and nobody else gets it until the proxy has it: see [`hold`].
    pub fn hold(&mut self, purpose: &str) -> Result<Held, NoPort> {
        let address = self.reserve(purpose)?;
        // Taken in the blink between the two: then the next one.
        hold(address).or_else(|_| self.hold(purpose))
    }

    pub fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}

/// A port that only the proxy can still take.
#[derive(Debug)]
pub struct Held {
    pub address: SocketAddr,
    _socket: OwnedFd,
}

/// Takes an address for the proxy without listening on it.
///
/// The proxy's workers share an address by `SO_REUSEPORT`, which also lets a second isobar share it by mistake. So the
/// address is bound without that option, which fails if anybody has it, and the option is set afterwards: from then on
/// our proxy may join, and another isobar's test of the same address fails.
pub fn hold(address: SocketAddr) -> std::io::Result<Held> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of a run that just ended may linger; they are no reason to refuse. Taken back afterwards, because two
    // that both allow it, and do not listen yet, may share.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok(Held { address, _socket: socket })
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

    #[test]
    fn a_held_address_is_refused_to_others_and_open_to_those_who_share() {
        let held = Ports::new(u64::from(std::process::id()) + 1).hold("web->cart").expect("a port");
        assert!(hold(held.address).is_err(), "another isobar");
        assert!(TcpListener::bind(held.address).is_err(), "anybody else");
        let sharing =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let sharing = sharing.expect("a socket");
        rustix::net::sockopt::set_socket_reuseport(&sharing, true).expect("an option");
        rustix::net::bind(&sharing, &held.address).expect("our proxy");
    }
}
