//! A connection's bytes, plain or encrypted, behind one type.
//!
//! Every method takes `&self`: the two directions of a connection are driven by one task, and never by two at once.

use crate::h2::Stream;
use crate::pipe::Pipe;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

#[derive(Debug)]
pub(crate) enum Socket {
    Plain(RefCell<TcpStream>),
    Tls(Box<RefCell<TlsStream<TcpStream>>>),
    /// A stream of HTTP/2, translated.
    Pipe(Pipe),
    /// A stream of HTTP/2 as it is. It carries messages and no bytes: reading and writing it go another way.
    Stream(Stream),
    /// What is left behind when a connection is moved elsewhere.
    Closed,
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Socket {
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// The TCP connection, where there is nothing between it and us.
    pub(crate) fn tcp(&self) -> Option<std::cell::Ref<'_, TcpStream>> {
        match self {
            Self::Plain(stream) => Some(stream.borrow()),
            _ => None,
        }
    }

    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::Plain(RefCell::new(stream))
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(RefCell::new(stream)))
    }

    /// Ready when a read would not wait: bytes, the end, or an error.
    #[inline]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.borrow().poll_read_ready(cx),
            Self::Tls(stream) => {
                let stream = stream.borrow();
                let (tcp, session) = stream.get_ref();
                // A request that came together with the end of the handshake is inside already, and nothing more may
                // ever come from outside.
                if !session.wants_read() {
                    return Poll::Ready(Ok(()));
                }
                tcp.poll_read_ready(cx)
            }
            Self::Pipe(pipe) => pipe.poll_readable(cx),
            Self::Stream(stream) => {
                stream.poll_broken(cx).map(|_| Err(io::ErrorKind::ConnectionReset.into()))
            }
            Self::Closed => closed(),
        }
    }

    /// Whether the peer did something unasked, such as closing. Asks the runtime, not the kernel.
    pub(crate) fn is_readable_now(&self) -> bool {
        self.poll_readable(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[inline]
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Self::Pipe(pipe) = self {
            return pipe.poll_read(cx, into);
        }
        let mut into = ReadBuf::new(into);
        match self {
            Self::Plain(stream) => ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut into))?,
            Self::Tls(stream) => ready!(Pin::new(&mut *stream.borrow_mut()).poll_read(cx, &mut into))?,
            Self::Pipe(_) | Self::Stream(_) | Self::Closed => return closed(),
        }
        Poll::Ready(Ok(into.filled().len()))
    }

    #[inline]
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_write(cx, bytes),
            Self::Pipe(pipe) => pipe.poll_write(cx, bytes),
            Self::Stream(_) | Self::Closed => closed(),
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
            // Encryption copies anyway, and a pipe does, too: one after the other.
            Self::Tls(_) | Self::Pipe(_) => self.poll_write(cx, first),
            Self::Stream(_) | Self::Closed => closed(),
        }
    }

    /// Everything written so far is on its way. Plain sockets keep nothing back.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_flush(cx),
            Self::Pipe(_) | Self::Stream(_) => Poll::Ready(Ok(())),
            Self::Closed => closed(),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut *stream.borrow_mut()).poll_shutdown(cx),
            Self::Pipe(pipe) => {
                pipe.end();
                Poll::Ready(Ok(()))
            }
            Self::Stream(_) => Poll::Ready(Ok(())),
            Self::Closed => closed(),
        }
    }

    /// Whoever ends its side of this has left: there is no half of it that goes on.
    pub(crate) fn ends_both_ways(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// What a translated stream said about its end, if it said anything.
    pub(crate) fn fault(&self) -> Option<policy::Outcome> {
        match self {
            Self::Pipe(pipe) => pipe.fault(),
            _ => None,
        }
    }

    /// After an end without a reply: whether what we wrote last is known to have reached nobody.
    ///
    /// A peer whose socket was closed when our bytes arrived resets the connection, and a reset that follows an end shows
    /// as a broken pipe. A peer that had taken the bytes in, read or not, does not answer in this way. It takes one round
    /// trip for the reset to arrive; without one in this time nothing is known.
    pub(crate) async fn reached_nobody(&self) -> bool {
        const LOOKS: u32 = 10;
        const BETWEEN: std::time::Duration = std::time::Duration::from_millis(2);
        for look in 0..LOOKS {
            let error = match self {
                Self::Plain(stream) => stream.borrow().take_error(),
                Self::Tls(stream) => stream.borrow().get_ref().0.take_error(),
                Self::Pipe(_) | Self::Stream(_) | Self::Closed => return false,
            };
            match error {
                Ok(Some(error)) => return error.kind() == io::ErrorKind::BrokenPipe,
                Ok(None) if look + 1 < LOOKS => tokio::time::sleep(BETWEEN).await,
                Ok(None) | Err(_) => {}
            }
        }
        false
    }

    /// Closing will reset the connection instead of ending it.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => {
                let _ = socket2::SockRef::from(&*stream.borrow()).set_linger(Some(std::time::Duration::ZERO));
            }
            Self::Tls(stream) => {
                let _ = socket2::SockRef::from(stream.borrow().get_ref().0)
                    .set_linger(Some(std::time::Duration::ZERO));
            }
            Self::Pipe(pipe) => pipe.fail(policy::Outcome::Reset),
            Self::Stream(stream) => stream.reset(crate::h2::Reason::INTERNAL_ERROR),
            Self::Closed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Read;

    /// A request written to a peer that does `first`, and what is known of it after the connection's end.
    fn check(first: impl FnOnce(std::net::TcpStream) + Send + 'static, before_write: bool, expected: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let socket = Socket::plain(TcpStream::connect(address).await.expect("it listens"));
            let peer = listener.accept().expect("somebody came").0;
            let mut first = Some(move || first(peer));
            if before_write && let Some(first) = first.take() {
                first();
            }
            let wrote = poll_fn(|cx| socket.poll_write(cx, b"POST / HTTP/1.1\r\n\r\n")).await;
            assert!(wrote.is_ok_and(|wrote| wrote > 0));
            if let Some(first) = first.take() {
                tokio::task::spawn_blocking(first).await.expect("it ends");
            }
            let mut piece = [0; 16];
            let _ = poll_fn(|cx| socket.poll_read(cx, &mut piece)).await;
            assert_eq!(socket.reached_nobody().await, expected);
        });
    }

    #[test]
    fn bytes_that_came_too_late_reached_nobody() {
        check(drop, true, true);
        // Read and then closed: it may have been done.
        let read = |mut peer: std::net::TcpStream| {
            let mut piece = [0; 64];
            let _ = peer.read(&mut piece);
        };
        check(read, false, false);
        // Closed with the bytes unread: perhaps some of them had been read.
        check(drop, false, false);
    }
}
