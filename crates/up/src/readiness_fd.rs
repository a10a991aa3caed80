//! Kernel objects as things to await: pidfds and timerfds.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime watch `fd` for being readable.
///
/// tokio calls its constructor unsound because a type may close its descriptor behind the runtime's back. An
/// [`OwnedFd`] that nobody else holds cannot, and the replacement is `unsafe`, which this workspace does without.
#[allow(deprecated)]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
