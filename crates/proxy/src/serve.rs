//! A client's connection: read a head, decide, carry the request, write the reply, and again.
//!
//! A connection is a small task that owns nothing but its socket while it is idle. When bytes arrive it borrows a
//! *runner*: the buffers and the (much larger) state of a request in progress, kept from request to request, so that
//! serving one allocates nothing and ten thousand idle connections weigh little. The runner goes back when nothing is
//! left to do.

use crate::buffer::{Buffer, BufferPool};
use crate::exchange::After;
use crate::heads::Own;
use crate::http1::{Progress, Refusal, RequestHead, ResponseHead, parse_request};
use crate::replay::Replay;
use crate::socket::Socket;
use crate::timers::Timer;
use crate::worker::{Door, Worker};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// A client and its connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) timer: Timer,
    pub(crate) peer: SocketAddr,
    pub(crate) door: Rc<Door>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) tls: bool,
    /// Requests served on this connection.
    pub(crate) served: u64,
    /// The client has said that it will send nothing more.
    pub(crate) half_closed: bool,
    /// A connection of its own, and not a stream of one that is counted already.
    pub(crate) counted: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let worker = &self.worker;
        worker.connections.set(worker.connections.get().saturating_sub(1));
        worker.cells.connections.set(u64::from(worker.connections.get()));
        let mut sources = worker.sources.borrow_mut();
        if let Some(count) = sources.get_mut(&self.peer.ip()) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.peer.ip());
            }
        }
    }
}

/// What became of a client that a runner served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Idle,
    Closed,
    /// The client speaks HTTP/2; what it has said so far is in the mailbox.
    Http2,
}

/// Everything a request in progress needs, reused by the next.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) worker: Rc<Worker>,
    /// From the client: the head at its start, then body or the next request.
    pub(crate) inb: Buffer,
    /// From the instance.
    pub(crate) upb: Buffer,
    /// To the instance.
    pub(crate) out: Vec<u8>,
    /// To the client.
    pub(crate) reply: Vec<u8>,
    /// What was sent of a streamed body, for a retry.
    pub(crate) replay: Replay,
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) body: BodyPlace,
}

/// Where the body of the request in progress is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyPlace {
    /// Behind the head, as far as it has arrived.
    Buffer,
    /// It is taken out of the buffer as it arrives; all of it, or not yet.
    Streamed { whole: bool },
}

/// Where a connection and its runner hand the client to each other. They are polled by one task, so nobody is woken.
#[derive(Debug, Default)]
struct Mailbox {
    to_runner: RefCell<Option<Client>>,
    done: RefCell<Option<(Client, Fate)>>,
    /// What a client of HTTP/2 said before it was known to be one.
    said: RefCell<Vec<u8>>,
}

struct Runner {
    mailbox: Rc<Mailbox>,
    future: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Runners that have nothing to do.
pub(crate) struct Runners {
    worker: Rc<Worker>,
    free: RefCell<Vec<Runner>>,
    pub(crate) streams: crate::h2::Streams,
}

/// Runners kept for the next burst; more than these are freed when they are done.
const RUNNERS_KEPT: usize = 128;

/// Longer than a request is on its way to us, and short beside any drain.
const LEAVE_AFTER: Nanos = Nanos::from_millis(200);

/// Memory that grew beyond this for one request is not kept for the next.
const SCRATCH_KEPT: usize = 64 << 10;

impl Runners {
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        Rc::new(Self { worker, free: RefCell::default(), streams: crate::h2::Streams::default() })
    }

    fn take(&self) -> Runner {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mailbox = Rc::new(Mailbox::default());
            Runner { future: Box::pin(run(self.worker.clone(), mailbox.clone())), mailbox }
        })
    }

    fn put(&self, runner: Runner) {
        let mut free = self.free.borrow_mut();
        if free.len() < RUNNERS_KEPT {
            free.push(runner);
        }
    }
}

/// A connection from its first byte to its last. Small, because there are many and most are idle.
/// No `async fn`, because that would keep its arguments twice.
#[allow(clippy::manual_async_fn, reason = "an async block uses what it captured where it is")]
pub(crate) fn connection(mut client: Client, runners: Rc<Runners>) -> impl Future<Output = ()> {
    async move {
        loop {
            let timeouts = client.worker.plan().config.timeouts.keep_alive;
            client.timer.set(client.worker.lately() + timeouts);
            let readable = poll_fn(|cx| {
                if let Poll::Ready(ready) = client.socket.poll_readable(cx) {
                    return Poll::Ready(Some(ready));
                }
                // A drain wakes everybody. Whoever seems idle may have sent a request in this very moment: it is waited
                // for and answered, and told to go elsewhere with the next.
                if client.worker.draining.get() || client.door.closing.get() {
                    client.timer.hasten(client.worker.now() + LEAVE_AFTER);
                }
                client.timer.poll(cx).map(|()| None)
            })
            .await;
            match readable {
                Some(Ok(())) => {}
                Some(Err(_)) => return,
                None => {
                    client.worker.cells.idle_closed.add(1);
                    return;
                }
            }
            let mut runner = runners.take();
            *runner.mailbox.to_runner.borrow_mut() = Some(client);
            let (back, fate) = poll_fn(|cx| {
                let Poll::Pending = runner.future.as_mut().poll(cx);
                runner.mailbox.done.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            let said = runner.mailbox.said.take();
            runners.put(runner);
            client = back;
            match fate {
                Fate::Idle => {}
                Fate::Closed => return,
                // Boxed, because the other connections should not be as large as this one.
                Fate::Http2 => return Box::pin(crate::h2::serve(client, said, runners)).await,
            }
        }
    }
}

/// A runner's life: take a client, serve it until it is idle or gone, hand it back.
async fn run(worker: Rc<Worker>, mailbox: Rc<Mailbox>) -> Infallible {
    let (inb, upb) = (worker.buffers.take(), worker.buffers.take());
    let mut run = Run::new(worker, inb, upb);
    loop {
        let mut client = poll_fn(|_| match mailbox.to_runner.borrow_mut().take() {
            Some(client) => Poll::Ready(client),
            // Polled right after a client was put in, so nobody needs to be woken.
            None => Poll::Pending,
        })
        .await;
        let fate = run.serve(&mut client).await;
        if fate == Fate::Http2 {
            *mailbox.said.borrow_mut() = run.inb.filled().to_vec();
        }
        run.tidy();
        *mailbox.done.borrow_mut() = Some((client, fate));
    }
}

/// What reading a head came to.
enum HeadRead {
    Request,
    Idle,
    Closed,
    Http2,
    Refused(Refusal),
}

impl Run {
    pub(crate) fn new(worker: Rc<Worker>, inb: Buffer, upb: Buffer) -> Self {
        Self {
            replay: Replay::new(worker.clone()),
            worker,
            inb,
            upb,
            out: Vec::with_capacity(2 << 10),
            reply: Vec::with_capacity(2 << 10),
            request: RequestHead::default(),
            response: ResponseHead::default(),
            body: BodyPlace::Buffer,
        }
    }

    /// Serves requests until the client has sent no more of them.
    async fn serve(&mut self, client: &mut Client) -> Fate {
        loop {
            match self.read_head(client).await {
                HeadRead::Request => {}
                HeadRead::Idle => return Fate::Idle,
                HeadRead::Closed => return Fate::Closed,
                HeadRead::Http2 => return Fate::Http2,
                HeadRead::Refused(refusal) => {
                    self.refuse(client, refusal).await;
                    return Fate::Closed;
                }
            }
            client.served += 1;
            match self.exchange(client).await {
                // Nothing of another request is here, so the connection waits for one by itself. What was encrypted may
                // be here already and not show on the socket.
                After::Next
                    if self.inb.is_empty() && !client.half_closed && client.socket.tcp().is_some() =>
                {
                    return Fate::Idle;
                }
                After::Next => {}
                After::Close => return Fate::Closed,
                After::Linger => {
                    self.linger(client).await;
                    return Fate::Closed;
                }
            }
        }
    }

    /// Leaves nothing of one client for the next, and no more memory than is usual.
    fn tidy(&mut self) {
        let worker = self.worker.clone();
        self.tidy_with(&worker.buffers);
    }

    /// The same, with buffers of this pool.
    pub(crate) fn tidy_with(&mut self, pool: &Rc<BufferPool>) {
        for buffer in [&mut self.inb, &mut self.upb] {
            buffer.clear();
            if buffer.size() != pool.size() {
                *buffer = pool.take();
            }
        }
        self.replay.forget();
        for scratch in [&mut self.out, &mut self.reply] {
            scratch.clear();
            if scratch.capacity() > SCRATCH_KEPT {
                *scratch = Vec::new();
            }
        }
    }

    async fn read_head(&mut self, client: &mut Client) -> HeadRead {
        let plan = self.worker.plan();
        let mut limits = head_limits(&plan.config.limits);
        limits.bytes = limits.bytes.min(self.inb.size());
        let mut began = false;
        loop {
            // An empty line before a request is forgiven once: old clients sent one after a body (RFC 9112, 2.2).
            if self.inb.filled().starts_with(b"\r\n") && !began {
                self.inb.remove(0, 2);
            }
            let preface = &crate::h2::PREFACE[..self.inb.len().min(crate::h2::PREFACE.len())];
            let may_be_http2 = client.served == 0 && client.counted && self.inb.filled().starts_with(preface);
            if may_be_http2 && self.inb.len() >= crate::h2::PREFACE.len() {
                return HeadRead::Http2;
            }
            if !self.inb.is_empty() && !may_be_http2 {
                match parse_request(self.inb.filled(), &limits, &mut self.request) {
                    Ok(Progress::Complete) => return HeadRead::Request,
                    Ok(Progress::Partial) => {}
                    Err(refusal) => return HeadRead::Refused(refusal),
                }
            }
            if client.half_closed {
                return HeadRead::Closed;
            }
            if !began && !self.inb.is_empty() {
                began = true;
                client.timer.set(self.worker.now() + plan.config.timeouts.header_read);
            }
            let inb = &mut self.inb;
            let read = poll_fn(|cx| match client.socket.poll_read(cx, inb.space()) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                // Without a byte of a request the connection is idle, and waits without a buffer.
                Poll::Pending if !began => Poll::Ready(None),
                Poll::Pending => {
                    client.timer.poll(cx).map(|()| Some(Err(std::io::ErrorKind::TimedOut.into())))
                }
            })
            .await;
            match read {
                None => return HeadRead::Idle,
                Some(Ok(0)) => {
                    if began {
                        self.worker.cells.client_gone.add(1);
                    }
                    return HeadRead::Closed;
                }
                Some(Ok(read)) => {
                    self.worker.cells.bytes_in.add(read as u64);
                    self.inb.advance(read);
                }
                Some(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                    self.worker.cells.header_timeouts.add(1);
                    self.say_and_close(client, 408, "header-timeout", "the request's head took too long")
                        .await;
                    return HeadRead::Closed;
                }
                Some(Err(_)) => return HeadRead::Closed,
            }
        }
    }

    /// Answers a message that was not understood, and closes: where it ends is not known.
    async fn refuse(&mut self, client: &mut Client, refusal: Refusal) {
        self.worker.cells.refused(refusal);
        self.say_and_close(client, refusal.status(), refusal.name(), "").await;
    }

    pub(crate) async fn say_and_close(
        &mut self,
        client: &mut Client,
        status: u16,
        error: &'static str,
        detail: &str,
    ) {
        self.reply.clear();
        let own = Own { status, error, edge: "", detail, retry_after_secs: None, with_body: true };
        own.write((1, false), self.date(), &mut self.reply);
        if self.write_reply(client).await {
            self.linger(client).await;
        }
    }

    /// The request in progress is a gRPC call, and wants to be answered like one.
    pub(crate) fn is_grpc(&self) -> bool {
        let kind = self.request.find(crate::http1::Kind::ContentType, self.inb.filled());
        kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
    }

    pub(crate) fn date(&self) -> [u8; 29] {
        self.worker.date.get(self.worker.clock.unix(self.worker.now()))
    }

    /// Writes all of `reply`. False if the client is gone or does not read.
    pub(crate) async fn write_reply(&mut self, client: &mut Client) -> bool {
        if let Some(stream) = client.socket.stream() {
            client.timer.set(self.worker.now() + self.worker.plan().config.timeouts.write);
            let written = crate::h2::write_own(stream, &self.reply, self.is_grpc(), &client.timer).await;
            self.reply.clear();
            return written;
        }
        let mut written = 0;
        let reply = &self.reply;
        let worker = &self.worker;
        let mut waiting = false;
        let ok = poll_fn(|cx| {
            while written < reply.len() {
                match client.socket.poll_write(cx, &reply[written..]) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Ready(Ok(more)) => {
                        written += more;
                        waiting = false;
                    }
                    Poll::Pending => {
                        if !waiting {
                            waiting = true;
                            client.timer.set(worker.now() + worker.plan().config.timeouts.write);
                        }
                        return client.timer.poll(cx).map(|()| {
                            worker.cells.write_timeouts.add(1);
                            false
                        });
                    }
                }
            }
            client.socket.poll_flush(cx).map(|flushed| flushed.is_ok())
        })
        .await;
        self.worker.cells.bytes_out.add(written as u64);
        self.reply.clear();
        ok
    }

    /// Ends our side and reads what the client still sends, for a little while: closing at once would reset the
    /// connection, and the reset would destroy the reply that is still on its way.
    pub(crate) async fn linger(&mut self, client: &mut Client) {
        const LINGER: Nanos = Nanos::from_secs(2);
        const LINGER_BYTES: u64 = 1 << 20;
        let Client { socket, timer, .. } = client;
        timer.set(self.worker.now() + LINGER);
        self.inb.clear();
        let inb = &mut self.inb;
        let mut swallowed = 0u64;
        let mut ended = false;
        poll_fn(|cx: &mut Context<'_>| {
            if !ended {
                match socket.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return timer.poll(cx),
                }
            }
            loop {
                match socket.poll_read(cx, inb.space()) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(read)) => {
                        swallowed += read as u64;
                        if swallowed > LINGER_BYTES {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Pending => return timer.poll(cx),
                }
            }
        })
        .await;
    }
}

pub(crate) fn head_limits(limits: &crate::config::Limits) -> crate::http1::HeadLimits {
    crate::http1::HeadLimits {
        bytes: limits.head_bytes.as_u64() as usize,
        target_bytes: limits.target_bytes.as_u64() as usize,
        headers: limits.headers as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<F>(_: impl Fn(Client, Rc<Runners>) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle connections are ten thousand of these, so their size is watched.
    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of_output(connection);
        assert!(size <= 256, "{size} bytes, of which the client is {}", size_of::<Client>());
    }
}
