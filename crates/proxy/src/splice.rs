//! Bytes from socket to socket that never come up to us.
//!
//! A pipe between two sockets lets the kernel hand over pages where we would copy them twice. It pays for bulk and costs
//! a file descriptor or two, so a tunnel gets one when much arrives at once and gives it back when it runs dry. There are
//! only so many; who gets none copies, which is slower and works as well.

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe should hold. The kernel may give less, which is as good.
const PIPE_BYTES: usize = 256 << 10;

/// Pipes of a worker at any time: twice as many descriptors.
const PIPES_MAX: usize = 256;
const PIPES_KEPT: usize = 32;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    free: RefCell<Vec<(OwnedFd, OwnedFd)>>,
    lent: Cell<usize>,
}

/// A pipe, lent to one direction of one tunnel.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The end to read from, and the end to write to. Taken only when it is dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    /// Bytes inside.
    pub(crate) inside: usize,
    pool: Rc<Pipes>,
}

impl Pipes {
    /// `None` if there are too many already, or the kernel gives no more.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Pipe> {
        if self.lent.get() >= PIPES_MAX {
            return None;
        }
        let kept = self.free.borrow_mut().pop();
        let ends = match kept {
            Some(ends) => ends,
            None => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                // A smaller pipe works, too.
                let _ = fcntl_setpipe_size(&ends.1, PIPE_BYTES);
                ends
            }
        };
        self.lent.set(self.lent.get() + 1);
        Some(Pipe { ends: Some(ends), inside: 0, pool: self.clone() })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        let mut free = self.pool.free.borrow_mut();
        // What is still inside belongs to nobody else.
        if self.inside == 0 && free.len() < PIPES_KEPT {
            free.extend(self.ends.take());
        }
    }
}

fn flow(from: impl AsFd, to: impl AsFd, len: usize) -> std::io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, len, flags)?)
}

impl Pipe {
    /// Fills the pipe, which must be empty: only then "would block" can mean nothing but "nothing there". Zero is the end.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
    ) -> Poll<std::io::Result<usize>> {
        let Some((_, to)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || flow(from, to, PIPE_BYTES)) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                moved => {
                    self.inside += moved.as_ref().copied().unwrap_or(0);
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Empties the pipe as far as the socket takes it.
    pub(crate) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<std::io::Result<usize>> {
        let Some((from, _)) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || flow(from, to, self.inside)) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                moved => {
                    self.inside -= moved.as_ref().copied().unwrap_or(0).min(self.inside);
                    return Poll::Ready(moved);
                }
            }
        }
    }
}
