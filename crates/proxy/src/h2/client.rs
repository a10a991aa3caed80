//! HTTP/2 connections to one instance.

use super::bridge;
use super::connection::{Connection, Stream};
use crate::pipe::pipe;
use crate::socket::Socket;
use crate::worker::Worker;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use units::Nanos;

/// A connection to an instance that carried nothing for this long is given up.
const IDLE_MAX: Nanos = Nanos::from_secs(90);

/// Above it, a peer that owes us something and moves nothing is taken to be gone.
const STUCK_MAX: Nanos = Nanos::from_secs(15);

/// The connections of one worker to one instance.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: RefCell<Vec<Rc<Connection>>>,
    connecting: Cell<bool>,
    connected: tokio::sync::Notify,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.open.borrow_mut().retain(|connection| !connection.is_over());
        self.open.borrow().len()
    }

    /// A stream of a connection that is open and has room.
    pub(crate) fn stream_now(&self, worker: &Worker) -> Option<Stream> {
        self.try_open(worker.plan().config.limits.streams_per_connection as usize)
    }

    /// A stream of a connection with room for it, or a pipe whose other end becomes one. A connection is made if none
    /// has room.
    pub(crate) async fn open<F>(
        &self,
        worker: &Rc<Worker>,
        direct: bool,
        connect: impl Fn() -> F,
    ) -> io::Result<Socket>
    where
        F: Future<Output = io::Result<Socket>>,
    {
        let limits = &worker.plan().config.limits;
        let streams_max = limits.streams_per_connection as usize;
        loop {
            if let Some(stream) = self.try_open(streams_max) {
                return Ok(if direct { Socket::Stream(stream) } else { piped(stream) });
            }
            if self.connecting.get() {
                // One is on its way; a hundred callers need one connection and not a hundred.
                self.connected.notified().await;
                continue;
            }
            self.connecting.set(true);
            let guard = Connecting(self);
            let socket = connect().await?;
            let tls = matches!(socket, Socket::Tls(_));
            let connection = Connection::client(tls, limits.head_bytes.as_u64() as usize);
            tokio::task::spawn_local(drive(worker.clone(), connection.clone(), socket));
            // How many streams it takes is the first thing it says. Asking for more before would have them refused.
            if !poll_fn(|cx| connection.poll_settled(cx)).await {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.open.borrow_mut().push(connection);
            drop(guard);
        }
    }

    fn try_open(&self, streams_max: usize) -> Option<Stream> {
        let mut open = self.open.borrow_mut();
        let found = open.iter().find(|connection| connection.room(streams_max)).map(Connection::stream);
        if found.is_none() {
            open.retain(|connection| !connection.is_over());
        }
        found
    }
}

fn piped(stream: Stream) -> Socket {
    let (near, far) = pipe();
    tokio::task::spawn_local(bridge::ask(far, stream));
    Socket::Pipe(near)
}

struct Connecting<'s>(&'s Sessions);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

/// When to ask a silent peer whether it is there, and when to take it for dead.
///
/// A peer that vanished, or a balancer on the way that forgot the connection, does not say so. Without asking, requests
/// would go on into the void and time out one by one. Asking too often is no answer: a gRPC server counts pings while it
/// has nothing to say and hangs up on the third within five minutes, so the second waits that long.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    heard: u64,
    /// When something was heard last, or nothing was due.
    since: Nanos,
    asked_at: Option<Nanos>,
    patience: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Ask,
    GiveUp,
}

impl Pulse {
    const FIRST: Nanos = Nanos::from_secs(15);
    const AGAIN: Nanos = Nanos::from_secs(305);

    fn new(now: Nanos) -> Self {
        Self { heard: 0, since: now, asked_at: None, patience: Self::FIRST }
    }

    /// `busy`: an answer is due.
    fn look(&mut self, now: Nanos, (heard, answered): (u64, bool), busy: bool) -> Next {
        if heard != self.heard || !busy {
            *self = Self { heard, ..Self::new(now) };
        }
        match self.asked_at {
            _ if !busy => Next::Wait,
            Some(_) if answered => {
                *self = Self { heard, patience: Self::AGAIN, ..Self::new(now) };
                Next::Wait
            }
            Some(at) if now >= at + STUCK_MAX => Next::GiveUp,
            Some(_) => Next::Wait,
            None if now >= self.since + self.patience => {
                self.asked_at = Some(now);
                Next::Ask
            }
            None => Next::Wait,
        }
    }
}

/// Reads and writes for a connection until it is over.
async fn drive(worker: Rc<Worker>, connection: Rc<Connection>, socket: Socket) {
    let timer = worker.timers.timer();
    let mut idle_since = worker.now();
    let mut moved = 0;
    let mut left = false;
    let mut pulse = Pulse::new(idle_since);
    timer.set(idle_since + STUCK_MAX);
    poll_fn(|cx| {
        let now = worker.now();
        if connection.poll(cx, &socket, &worker.large, now).is_ready() {
            return Poll::Ready(());
        }
        if connection.active.get() > 0 {
            idle_since = now;
        }
        while timer.poll(cx).is_ready() {
            let stuck = connection.waits_for_peer() && connection.progress() == moved;
            let next = pulse.look(now, connection.signs_of_life(), connection.active.get() > 0);
            if next == Next::Ask {
                connection.ask_alive();
            }
            if stuck || next == Next::GiveUp || (left && connection.active.get() == 0) {
                connection.abandon();
                return Poll::Ready(());
            }
            moved = connection.progress();
            if !left && now >= idle_since + IDLE_MAX {
                left = true;
                connection.leave();
            }
            timer.set(now + STUCK_MAX);
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "15 silent; 20 said; 30 pong; 40 idle": what is known at a second. Answers: wait, ask, give up.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let mut pulse = Pulse::new(Nanos::ZERO);
        let (mut heard, mut answered) = (0, true);
        let mut said = Vec::new();
        for step in script.split("; ") {
            let (at, what) = step.split_once(' ').expect("time and word");
            let now = Nanos::from_secs(at.parse().expect("seconds"));
            heard += u64::from(what == "said");
            answered |= what == "pong";
            let next = pulse.look(now, (heard, answered), what != "idle");
            if next == Next::Ask {
                answered = false;
            }
            said.push(match next {
                Next::Wait => "wait",
                Next::Ask => "ask",
                Next::GiveUp => "give up",
            });
        }
        assert_eq!(said.join(", "), expected, "{script}");
    }

    #[test]
    fn a_silent_peer_is_asked_once_and_then_given_up() {
        check("14 silent; 15 silent; 29 silent; 30 silent", "wait, ask, wait, give up");
        check("10 said; 24 silent; 25 silent", "wait, wait, ask");
        check("15 silent; 16 said; 30 silent; 31 silent", "ask, wait, wait, ask");
    }

    #[test]
    fn one_that_answers_is_left_alone_for_long_and_an_idle_one_is_not_asked() {
        check("15 silent; 16 pong; 300 silent; 320 silent; 321 silent", "ask, wait, wait, wait, ask");
        check("60 idle; 120 idle; 130 silent; 135 silent", "wait, wait, wait, ask");
    }
}
