//! A connection's bytes, plain or encrypted, behind one type.
//!
//! Every method takes `&self`: the two directions of a connection are driven by one task, and never by two at once.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) enum Socket {
    Plain(RefCell<TcpStream>),
    /// What is left behind when a connection is moved elsewhere.
    Closed,
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Socket {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::Plain(RefCell::new(stream))
    }

    /// Ready when a read would not wait: bytes, the end, or an error.
    #[inline]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.borrow().poll_read_ready(cx),
            Self::Closed => closed(),
        }
    }

    /// Whether the peer did something unasked, such as closing. Asks the runtime, not the kernel.
    pub(crate) fn is_readable_now(&self) -> bool {
        self.poll_readable(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[inline]
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        match self {
            Self::Plain(stream) => ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut into))?,
            Self::Closed => return closed(),
        }
        Poll::Ready(Ok(into.filled().len()))
    }

    #[inline]
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
            Self::Closed => closed(),
        }
    }

    #[inline]
    pub(crate) fn poll_write_two(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        if first.is_empty() || second.is_empty() {
            return self.poll_write(cx, if first.is_empty() { second } else { first });
        }
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut())
                .poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
            Self::Closed => closed(),
        }
    }

    /// Everything written so far is on its way. Plain sockets keep nothing back.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
            Self::Closed => closed(),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
            Self::Closed => closed(),
        }
    }

    /// Closing will reset the connection instead of ending it.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => {
                let _ = socket2::SockRef::from(&*stream.borrow()).set_linger(Some(std::time::Duration::ZERO));
            }
            Self::Closed => {}
        }
    }
}
