//! HTTP/2 connections to one instance.

use super::bridge;
use super::connection::{Connection, Signs, Stream};
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
    /// Streams that had been opened when something was heard last.
    opened: u32,
    /// When something was heard last, or nothing was due.
    since: Nanos,
    asked_at: Option<Nanos>,
    /// Before it is asked.
    patience: Nanos,
    /// The same for the first question, and for each answer.
    silence: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Ask,
    GiveUp,
}

impl Pulse {
    const AGAIN: Nanos = Nanos::from_secs(305);

    fn new(now: Nanos, silence: Nanos) -> Self {
        Self { heard: 0, opened: 0, since: now, asked_at: None, patience: silence, silence }
    }

    /// `busy`: an answer is due. One that was due and is not waited for any more is silence all the same: whoever is quick
    /// to give up must not hide from us that nobody is there.
    fn look(&mut self, now: Nanos, signs: Signs, busy: bool) -> Next {
        let Signs { heard, opened, answered } = signs;
        let owed = busy || opened != self.opened;
        if heard != self.heard || !owed {
            *self = Self { heard, opened, ..Self::new(now, self.silence) };
        }
        match self.asked_at {
            _ if !owed => Next::Wait,
            Some(_) if answered => {
                *self = Self { heard, opened, patience: Self::AGAIN, ..Self::new(now, self.silence) };
                Next::Wait
            }
            Some(at) if now >= at + self.silence => Next::GiveUp,
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
    let silence = worker.plan().config.timeouts.silence;
    let mut pulse = Pulse::new(idle_since, silence);
    timer.set(idle_since + silence);
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
            let silent = stuck || next == Next::GiveUp;
            if silent || (left && connection.active.get() == 0) {
                worker.cells.upstream_silent.add(u64::from(silent));
                connection.abandon();
                return Poll::Ready(());
            }
            moved = connection.progress();
            if !left && now >= idle_since + IDLE_MAX {
                left = true;
                connection.leave();
            }
            timer.set(now + silence);
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "15 silent; 20 said; 30 pong; 40 idle; 50 missed": what is known at a second; missed is an answer that came so late
    /// that nobody waits for it any more. Answers: wait, ask, give up.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let mut pulse = Pulse::new(Nanos::ZERO, Nanos::from_secs(15));
        let mut signs = Signs { heard: 0, opened: 0, answered: true };
        let mut said = Vec::new();
        for step in script.split("; ") {
            let (at, what) = step.split_once(' ').expect("time and word");
            let now = Nanos::from_secs(at.parse().expect("seconds"));
            signs.heard += u64::from(what == "said");
            signs.opened += u32::from(what == "missed");
            signs.answered |= what == "pong";
            let next = pulse.look(now, signs, matches!(what, "silent" | "said" | "pong"));
            signs.answered &= next != Next::Ask;
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
    fn one_whose_answers_are_not_waited_for_is_asked_too() {
        check("10 missed; 15 idle; 30 idle", "wait, ask, give up");
        check("10 missed; 15 missed; 30 missed", "wait, ask, give up");
        check("10 missed; 15 idle; 16 pong; 40 idle; 80 idle", "wait, ask, wait, wait, wait");
        check("10 missed; 12 said; 40 idle; 80 idle", "wait, wait, wait, wait");
    }

    #[test]
    fn one_that_answers_is_left_alone_for_long_and_an_idle_one_is_not_asked() {
        check("15 silent; 16 pong; 300 silent; 320 silent; 321 silent", "ask, wait, wait, wait, ask");
        check("60 idle; 120 idle; 130 silent; 135 silent", "wait, wait, wait, ask");
    }
}
