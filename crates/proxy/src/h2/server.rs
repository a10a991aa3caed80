//! A client's HTTP/2 connection, and those who serve its streams.
//!
//! A stream is served by a *runner*: a task with the state of a request in progress, kept from stream to stream, so that
//! a new stream makes no task and allocates next to nothing.

use super::bridge;
use super::connection::{Connection, Stream};
use super::replies::write_own;
use crate::buffer::BufferPool;
use crate::config::{Action, Protocol};
use crate::heads::Own;
use crate::http1::{Framing, Progress, Refusal, parse_request};
use crate::pipe::put_spare;
use crate::plan::RoutePlan;
use crate::serve::{BodyPlace, Client, Run, Runners, head_limits};
use crate::socket::Socket;
use crate::worker::{Door, Worker};
use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Where a connection's streams come from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) door: Rc<Door>,
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
}

/// A client's HTTP/2 connection, from its preface to its end.
pub(crate) async fn serve(mut client: Client, before: Vec<u8>, runners: Rc<Runners>) {
    let worker = client.worker.clone();
    let plan = worker.plan();
    let timeouts = plan.config.timeouts.clone();
    let limits = &plan.config.limits;
    let connection =
        Connection::server(limits.head_bytes.as_u64() as usize, limits.streams_per_connection.max(1));
    drop(plan);
    connection.said_before(before);
    let socket = std::mem::replace(&mut client.socket, Socket::Closed);
    let origin = Rc::new(Origin { door: client.door.clone(), peer: client.peer, tls: client.tls });
    worker.cells.h2_connections.add(1);
    let mut idle_since = worker.now();
    let mut moved = 0;
    let mut leaving = None;
    client.timer.set(idle_since + timeouts.header_read);
    poll_fn(|cx| {
        let now = worker.now();
        let leaves = || {
            worker.draining.get() || client.door.closing.get() || !crate::limits::allows_keep_alive(&worker)
        };
        if leaving.is_none() && leaves() {
            leaving = Some(now);
            connection.leave();
        }
        loop {
            let over = connection.poll(cx, &socket, &worker.large, now).is_ready();
            worker.cells.h2_streams_refused.add(connection.take_refused());
            if over {
                return Poll::Ready(());
            }
            if !connection.has_arrived() {
                break;
            }
            while let Some(stream) = connection.next_arrived() {
                worker.cells.h2_streams.add(1);
                runners.streams.start(&worker, &runners, &origin, stream);
            }
        }
        if connection.active.get() > 0 {
            idle_since = now;
        }
        while client.timer.poll(cx).is_ready() {
            let stuck = connection.waits_for_peer() && connection.progress() == moved;
            let ended = leaving.is_some_and(|since| now > since + timeouts.header_read)
                && connection.active.get() == 0;
            if stuck || ended || connection.block_is_older_than(timeouts.header_read, now) {
                if stuck {
                    worker.cells.write_timeouts.add(1);
                }
                connection.abandon();
                return Poll::Ready(());
            }
            moved = connection.progress();
            if leaving.is_none() && now >= idle_since + timeouts.keep_alive {
                worker.cells.idle_closed.add(1);
                leaving = Some(now);
                connection.leave();
            }
            let quiet = connection.active.get() == 0 && !connection.waits_for_peer() && leaving.is_none();
            client.timer.set(if quiet {
                idle_since + timeouts.keep_alive
            } else {
                now + timeouts.header_read.min(timeouts.write)
            });
        }
        Poll::Pending
    })
    .await;
    worker.cells.h2_calmed.add(u64::from(connection.was_calmed()));
}

/// Where a stream is handed to its runner.
#[derive(Debug, Default)]
struct Mailbox {
    job: RefCell<Option<(Stream, Rc<Origin>)>>,
    waker: RefCell<Option<Waker>>,
}

/// Runners of streams that have nothing to do.
#[derive(Debug)]
pub(crate) struct Streams {
    free: RefCell<Vec<Rc<Mailbox>>>,
    /// Heads are small, and there are many streams.
    heads: Rc<BufferPool>,
}

/// Runners kept for the next burst; more than these end when they are done.
const RUNNERS_KEPT: usize = 512;
const HEAD_BYTES: usize = 4 << 10;

impl Default for Streams {
    fn default() -> Self {
        Self { free: RefCell::default(), heads: BufferPool::new(HEAD_BYTES, 2 * RUNNERS_KEPT) }
    }
}

impl Streams {
    fn start(&self, worker: &Rc<Worker>, runners: &Rc<Runners>, origin: &Rc<Origin>, stream: Stream) {
        let mailbox = self.free.borrow_mut().pop();
        match mailbox {
            Some(mailbox) => {
                *mailbox.job.borrow_mut() = Some((stream, origin.clone()));
                if let Some(waker) = mailbox.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
            None => {
                let mailbox = Rc::new(Mailbox::default());
                *mailbox.job.borrow_mut() = Some((stream, origin.clone()));
                tokio::task::spawn_local(run(worker.clone(), runners.clone(), mailbox));
            }
        }
    }
}

/// A runner's life: take a stream, serve it, wait for the next.
async fn run(worker: Rc<Worker>, runners: Rc<Runners>, mailbox: Rc<Mailbox>) {
    let streams = &runners.streams;
    let mut run = Run::new(worker.clone(), streams.heads.take(), streams.heads.take());
    let mut client: Option<Client> = None;
    loop {
        let (stream, origin) = poll_fn(|cx| match mailbox.job.borrow_mut().take() {
            Some(job) => Poll::Ready(job),
            None => {
                *mailbox.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        let client = client.get_or_insert_with(|| Client {
            socket: Socket::Closed,
            timer: worker.timers.timer(),
            peer: origin.peer,
            door: origin.door.clone(),
            worker: worker.clone(),
            tls: origin.tls,
            served: 0,
            half_closed: false,
            counted: false,
        });
        client.peer = origin.peer;
        client.tls = origin.tls;
        client.half_closed = false;
        if !Rc::ptr_eq(&client.door, &origin.door) {
            client.door = origin.door.clone();
        }
        serve_stream(&mut run, client, stream, &origin, &runners).await;
        client.socket = Socket::Closed;
        client.timer.set(units::Nanos::MAX);
        run.tidy_with(&streams.heads);
        let mut free = streams.free.borrow_mut();
        if free.len() >= RUNNERS_KEPT {
            return;
        }
        free.push(mailbox.clone());
    }
}

/// One stream, from its head to its end.
async fn serve_stream(
    run: &mut Run,
    client: &mut Client,
    stream: Stream,
    origin: &Rc<Origin>,
    runners: &Rc<Runners>,
) {
    let worker = run.worker.clone();
    if stream.is_broken() {
        // Opened and reset in one breath: there is nobody to do anything for.
        worker.cells.client_gone.add(1);
        return;
    }
    let mut text = stream.take_request();
    let has_body = !stream.is_at_end();
    let chunked = has_body && stream.length().is_none();
    if stream.accepts_trailers() {
        text.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    if chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if text.len() > run.inb.size() {
        run.inb = worker.buffers.take();
    }
    let limits = {
        let mut limits = head_limits(&worker.plan().config.limits);
        limits.bytes = run.inb.size();
        limits
    };
    let too_long = text.len() > run.inb.size() || stream.refusal().is_some();
    let read = if too_long {
        Err(Refusal::HeadTooLong)
    } else {
        run.inb.put(&text);
        parse_request(run.inb.filled(), &limits, &mut run.request)
    };
    let refusal = match read {
        Ok(Progress::Complete) => None,
        Ok(Progress::Partial) => Some(Refusal::Syntax),
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        put_spare(text);
        worker.cells.refused(refusal);
        let mut reply = Vec::new();
        let own = Own {
            status: refusal.status(),
            error: refusal.name(),
            edge: "",
            detail: "",
            retry_after_secs: None,
            with_body: true,
        };
        own.write((1, true), run.date(), &mut reply);
        client.timer.set(worker.now() + worker.plan().config.timeouts.write);
        write_own(&stream, &reply, false, &client.timer).await;
        return;
    }
    if !has_body {
        run.request.framing = Framing::None;
    }
    if goes_to_streams(run, client, &worker) {
        put_spare(text);
        run.body = BodyPlace::Streamed { whole: !has_body };
        client.socket = Socket::Stream(stream);
        let _ = run.exchange(client).await;
        if let Some(stream) = client.socket.stream() {
            stream.let_finish().await;
        }
    } else {
        text.truncate(text.len() - 2);
        text.extend_from_slice(b"connection: close\r\n\r\n");
        let ask = bridge::Asked { method: run.request.method, grpc: run.is_grpc(), chunked, has_body };
        bridge::answer(&worker, origin, stream, text, ask, runners.clone()).await;
    }
}

/// Whether all that may come of the request are streams and replies of our own.
fn goes_to_streams(run: &Run, client: &Client, worker: &Worker) -> bool {
    let door = client.door.plan();
    let Some(entry) = door.router.find(&run.request, run.inb.filled()) else { return true };
    let route: &RoutePlan = &entry.item;
    let Action::Forward(_) = &route.route.action else { return true };
    let plan = worker.plan();
    let speaks_http2 = |edge: u32| {
        let edge = plan.edges.get(edge as usize)?.as_ref()?;
        let service = plan.services.get(edge.service as usize)?.as_ref()?;
        Some(service.config.protocol == Protocol::Http2)
    };
    route.mirror_edge.is_none()
        && route.route.fault.bandwidth.is_none()
        && route.targets.iter().all(|target| speaks_http2(target.edge) == Some(true))
}
