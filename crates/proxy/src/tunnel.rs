//! Bytes both ways, unread: after an upgrade, and for services that speak something of their own.

use crate::buffer::{Buffer, BufferPool};
use crate::connect::Caller;
use crate::edge::{EdgeState, Pick};
use crate::exchange::{After, Call};
use crate::heads::{BodyOut, write_response};
use crate::plan::RoutePlan;
use crate::series::Ended;
use crate::serve::{Client, Run};
use crate::sni::{Hello, server_name};
use crate::socket::Socket;
use crate::splice::{Pipe, Pipes};
use crate::timers::Timer;
use crate::upstream::Connection;
use crate::worker::Worker;
use policy::{Ask, Deadline, Outcome};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// One direction: what was read and not yet written. It has a buffer only while it has bytes.
struct Direction {
    buffer: Option<Buffer>,
    at: usize,
    total: u64,
    read_closed: bool,
    write_closed: bool,
    /// Held while much is moving.
    pipe: Option<Pipe>,
    bulk: bool,
}

/// A read of this much means that more is coming, and a smaller one that the rush is over.
const BULK: usize = 32 << 10;

/// Rounds of one direction before others get their turn.
const ROUNDS_MAX: u32 = 16;

impl Direction {
    /// Begins with bytes that were read before it was known that they belong to a tunnel.
    fn new(buffer: Option<Buffer>) -> Self {
        Self { buffer, at: 0, total: 0, read_closed: false, write_closed: false, pipe: None, bulk: false }
    }

    /// Moves what can be moved. `Err` when the connection broke; true if anything moved.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        pool: &Rc<BufferPool>,
        pipes: &Rc<Pipes>,
    ) -> Result<bool, ()> {
        let mut moved = false;
        let mut rounds = 0;
        loop {
            rounds += 1;
            if rounds > ROUNDS_MAX {
                cx.waker().wake_by_ref();
                return Ok(moved);
            }
            if (self.bulk || self.pipe.is_some()) && self.buffer.is_none() && !self.read_closed {
                match self.splice(cx, from, to, pipes)? {
                    Spliced::Some => {
                        moved = true;
                        continue;
                    }
                    Spliced::Waits => return Ok(moved),
                    Spliced::Not => {}
                }
            }
            if let Some(buffer) = &mut self.buffer {
                while self.at < buffer.len() {
                    match to.poll_write(cx, &buffer.filled()[self.at..]) {
                        Poll::Ready(Ok(0) | Err(_)) => return Err(()),
                        Poll::Ready(Ok(wrote)) => {
                            self.at += wrote;
                            self.total += wrote as u64;
                            moved = true;
                        }
                        Poll::Pending => return Ok(moved),
                    }
                }
                buffer.clear();
                self.at = 0;
                if self.bulk && !self.read_closed {
                    self.buffer = None;
                    continue;
                }
            }
            if to.poll_flush(cx).is_pending() {
                return Ok(moved);
            }
            if self.read_closed {
                self.buffer = None;
                // The end is passed on as an end, so that the other side may still speak.
                if !self.write_closed {
                    match to.poll_shutdown(cx) {
                        Poll::Ready(Ok(())) => self.write_closed = true,
                        Poll::Ready(Err(_)) => return Err(()),
                        Poll::Pending => {}
                    }
                }
                return Ok(moved);
            }
            let buffer = self.buffer.get_or_insert_with(|| pool.take());
            match from.poll_read(cx, buffer.space()) {
                Poll::Ready(Ok(0)) => self.read_closed = true,
                Poll::Ready(Ok(read)) => {
                    buffer.advance(read);
                    moved = true;
                    self.bulk = read >= BULK && from.tcp().is_some() && to.tcp().is_some();
                }
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {
                    self.buffer = None;
                    return Ok(moved);
                }
            }
        }
    }

    /// One round through a pipe: what is inside first, then what has arrived.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        pipes: &Rc<Pipes>,
    ) -> Result<Spliced, ()> {
        let (Some(from), Some(to)) = (from.tcp(), to.tcp()) else {
            self.bulk = false;
            return Ok(Spliced::Not);
        };
        if self.pipe.is_none() {
            self.pipe = pipes.take();
        }
        let Some(pipe) = &mut self.pipe else {
            self.bulk = false;
            return Ok(Spliced::Not);
        };
        if pipe.inside > 0 {
            return match pipe.poll_drain(cx, &to) {
                Poll::Ready(Ok(wrote)) if wrote > 0 => {
                    self.total += wrote as u64;
                    Ok(Spliced::Some)
                }
                Poll::Ready(_) => Err(()),
                Poll::Pending => Ok(Spliced::Waits),
            };
        }
        match pipe.poll_fill(cx, &from) {
            Poll::Ready(Ok(0)) => {
                self.read_closed = true;
                self.pipe = None;
                Ok(Spliced::Not)
            }
            Poll::Ready(Ok(read)) => {
                self.bulk = read >= BULK;
                Ok(Spliced::Some)
            }
            Poll::Ready(Err(_)) => Err(()),
            Poll::Pending => {
                // Dry: the pipe goes to somebody who needs it, and what comes next decides anew.
                self.pipe = None;
                self.bulk = false;
                Ok(Spliced::Waits)
            }
        }
    }
}

/// What a round through a pipe came to.
enum Spliced {
    Some,
    Waits,
    /// Not this way.
    Not,
}

/// Copies both ways until both sides have ended, one broke, or nothing moved for `idle`. Returns the bytes of each way.
pub(crate) async fn both_ways(
    client: &Socket,
    up: &Socket,
    timer: &Timer,
    (to_up, to_client): (Option<Buffer>, Option<Buffer>),
    idle: Nanos,
    worker: &Worker,
) -> (u64, u64, bool) {
    let (mut out, mut back) = (Direction::new(to_up), Direction::new(to_client));
    let (pool, pipes) = (&worker.large, &worker.pipes);
    timer.set(worker.now() + idle);
    let clean = poll_fn(|cx| {
        let moved = match (out.poll(cx, client, up, pool, pipes), back.poll(cx, up, client, pool, pipes)) {
            (Ok(a), Ok(b)) => a || b,
            _ => return Poll::Ready(false),
        };
        if out.write_closed && back.write_closed {
            return Poll::Ready(true);
        }
        if moved {
            timer.set(worker.now() + idle);
        }
        timer.poll(cx).map(|()| false)
    })
    .await;
    (out.total, back.total, clean)
}

/// The instance agreed to change the protocol: its reply goes to the client, then everything goes both ways.
pub(crate) async fn upgraded(
    run: &mut Run,
    client: &mut Client,
    call: &mut Call,
    route: &RoutePlan,
    (edge, slot): (&Rc<EdgeState>, u32),
    mut pick: Pick,
    connection: Connection,
    elapsed: Nanos,
) -> After {
    let worker = run.worker.clone();
    worker.cells.upgrades.add(1);
    // A tunnel lasts as long as its ends like, and would keep others out for as long.
    pick.pause(worker.now());
    pick.lane = None;
    run.reply.clear();
    let date = || worker.date.get(worker.clock.unix(worker.now()));
    write_response(&run.response, run.upb.filled(), route, (1, true), date, BodyOut::Plain, &mut run.reply);
    // Bytes behind either head belong to the new protocol already.
    run.upb.remove(0, run.response.len);
    let request_len = run.whole_len().unwrap_or(run.request.len);
    run.inb.remove(0, request_len);
    let mut error = "client-gone";
    if run.write_reply(client).await {
        let idle = worker.plan().config.timeouts.stream_idle;
        // What is in the runner's buffers goes first; the runner gets others.
        let buffers = (
            Some(std::mem::replace(&mut run.inb, worker.buffers.take())),
            Some(std::mem::replace(&mut run.upb, worker.buffers.take())),
        );
        let (out, back, clean) =
            both_ways(&client.socket, &connection.socket, &client.timer, buffers, idle, &worker).await;
        worker.cells.bytes_in.add(out);
        worker.cells.bytes_out.add(back);
        call.request_bytes = out;
        call.response_bytes = back;
        error = if clean { "" } else { "tunnel-broken" };
    }
    let now = worker.now();
    edge.finish(pick, Outcome::Status(101), elapsed, None, now);
    drop(connection);
    call.conclude(&worker, run.asked(client), Some(route), Some((edge, slot)), 101, error);
    After::Close
}

/// The name a TLS client asks for, empty if it asks for none. `None` if it left or took too long.
async fn read_server_name(client: &Client, buffer: &mut Buffer) -> Option<String> {
    client.timer.set(client.worker.now() + client.worker.plan().config.timeouts.header_read);
    loop {
        match server_name(buffer.filled()) {
            Hello::Name(name) => return Some(String::from_utf8_lossy(name).to_ascii_lowercase()),
            Hello::NoName | Hello::NotTls => return Some(String::new()),
            Hello::Partial if !buffer.has_space() => return Some(String::new()),
            Hello::Partial => {}
        }
        let read = client.timer.limit(poll_fn(|cx| client.socket.poll_read(cx, buffer.space()))).await;
        match read {
            Some(Ok(read)) if read > 0 => buffer.advance(read),
            _ => return None,
        }
    }
}

/// `shop.example` or `*.example`.
fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

/// A connection of a door that does not speak HTTP.
pub(crate) async fn tcp(client: Client) {
    let worker = client.worker.clone();
    let mut to_up = worker.buffers.take();
    let plan = client.door.plan();
    let slot = if plan.by_name.is_empty() {
        plan.tcp_edge
    } else {
        let Some(name) = read_server_name(&client, &mut to_up).await else { return };
        let named = plan.by_name.iter().find(|(pattern, _)| matches_name(pattern, &name));
        named.map(|(_, edge)| *edge).or(plan.tcp_edge)
    };
    drop(plan);
    let Some((edge, edge_slot)) = slot.and_then(|slot| Some((worker.edge(slot)?, slot))) else { return };
    let now = worker.now();
    edge.on_request(now);
    let mut tried: smallvec::SmallVec<[u32; 4]> = smallvec::SmallVec::new();
    // Nothing has been read from the client yet, so trying elsewhere is always safe.
    let (mut pick, connection) = loop {
        let now = worker.now();
        let ask = Ask { now, hash: None, version: None, tried: &tried };
        let picked = edge.pick(&ask, &mut worker.rng.borrow_mut());
        let Ok(mut pick) = picked else {
            edge.cells().no_endpoint.add(1);
            client.socket.reset_on_close();
            return;
        };
        edge.cells().attempts.add(1);
        let timeout = edge.service.plan.borrow().config.connect_timeout;
        let deadline = Deadline::within(now, timeout);
        match crate::connect::connect(&worker, Caller::of(&client), &edge, &mut pick, deadline).await {
            Ok(connection) => break (pick, connection),
            Err(_) => {
                edge.cells().connect_failures.add(1);
                tried.push(pick.index);
                let now = worker.now();
                let elapsed = now.saturating_sub(pick.started);
                edge.finish(pick, Outcome::ConnectFailed, elapsed, None, now);
            }
        }
    };
    worker.cells.tunnels.add(1);
    let connected = worker.now();
    let elapsed = pick.elapsed(connected);
    // It lasts as long as its ends like, and would keep others out for as long.
    pick.pause(connected);
    let idle = worker.plan().config.timeouts.stream_idle;
    let buffers = (Some(to_up), None);
    let (out, back, clean) =
        both_ways(&client.socket, &connection.socket, &client.timer, buffers, idle, &worker).await;
    worker.cells.bytes_in.add(out);
    worker.cells.bytes_out.add(back);
    let now = worker.now();
    let cells = edge.cells();
    cells.request_bytes.add(out);
    cells.response_bytes.add(back);
    cells.classes[if clean { 2 } else { 0 }].add(1);
    cells.latency.record(if clean { 2 } else { 0 }, now.saturating_sub(connected));
    if let Some(series) = worker.series.borrow_mut().as_mut() {
        let ended = Ended {
            generation: worker.plan().generation,
            route: None,
            instance: Some(pick.instance.address),
            status: if clean { 200 } else { 0 },
            error: "",
            duration: now.saturating_sub(connected),
            attempts: 1,
            queue_wait: Nanos::ZERO,
            pool_wait: elapsed,
            request_bytes: out,
            response_bytes: back,
        };
        series.count(&edge, edge_slot, &ended);
    }
    let outcome = if clean { Outcome::Status(200) } else { Outcome::Cancelled };
    edge.finish(pick, outcome, elapsed, None, now);
}
