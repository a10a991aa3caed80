//! One connection of HTTP/2, either side of it: frames in, frames out, windows and streams between.
//!
//! A connection is driven by one task, which reads, writes and keeps its time-outs. Streams belong to tasks of their own
//! on the same thread, which look into the connection's state and wake its task when they have put something out. All of
//! it is plain memory behind one `RefCell`; what goes out collects in one buffer, so that everything that became ready in
//! one turn of the scheduler is one write.
//!
//! **Bounded.** What may come in before anybody took it: a window for each stream and one for the connection. What waits
//! to go out: bodies stop at [`OUT_BODY_MAX`], and above [`OUT_MAX`] nothing more is read, so that answers to pings and
//! settings cannot pile up. Frames that cost us something and bring nobody forward (resets, pings, settings, priorities,
//! empty bodies) are paid from a credit, and who has none left is told to calm down and let go.

mod incoming;
mod stream;

use super::frame::{self, HEAD, Head, Reason, setting};
use super::heads::Text;
use super::hpack::{Decoder, write_no_table};
use crate::buffer::BufferPool;
use crate::pipe::{put_spare, take_spare};
use crate::socket::Socket;
use hashbrown::HashMap;
use incoming::Credit;
use policy::Outcome;
use slab::Slab;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
pub(crate) use stream::{Body, Forward, Stream};
use units::Nanos;

/// What a client of HTTP/2 says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A megabyte keeps a fast reader busy over a long way; one stream may hold a quarter of it.
const WINDOW: i64 = 1 << 20;
const STREAM_WINDOW: i64 = 256 << 10;
const WINDOW_MAX: i64 = (1 << 31) - 1;

/// What the standard lets us assume of a peer that has not said otherwise.
const DEFAULT_WINDOW: i64 = 65_535;

/// Bodies wait in their streams while this much waits to be written.
const OUT_BODY_MAX: usize = 128 << 10;
const OUT_MAX: usize = 512 << 10;

/// Gaps in the numbers of a peer's streams that are remembered.
const SKIPPED_MAX: usize = 16;

/// Pieces of one header block. Nobody needs more, and each costs us a look.
const BLOCK_FRAMES_MAX: u32 = 32;

const SHUTDOWN_PING: &[u8; 8] = b"going aw";
const ALIVE_PING: &[u8; 8] = b"hear me?";

/// How a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer, or we on its behalf, reset it.
    Reset(Reason),
    /// The peer said that it did not look at it.
    Refused,
    /// The connection is gone.
    Lost,
}

impl Broken {
    /// What it means for whoever might try again.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Refused | Self::Reset(Reason::REFUSED_STREAM) => Outcome::Refused,
            Self::Reset(_) | Self::Lost => Outcome::Reset,
        }
    }
}

/// One stream's side of the connection's state.
#[derive(Debug, Default)]
struct State {
    id: u32,
    /// Heads that arrived and were not taken: informational ones, and the one that counts.
    heads: SmallVec<[Vec<u8>; 1]>,
    has_final_head: bool,
    refusal: Option<u16>,
    accepts_trailers: bool,
    body: Vec<u8>,
    /// Bytes of `body` that were taken.
    taken: usize,
    trailer: Option<Vec<u8>>,
    /// The peer has said all of its message.
    ended: bool,
    /// We have.
    said: bool,
    broken: Option<Broken>,
    /// Bytes that the announced length still promises.
    promised: Option<u64>,
    send_window: i64,
    receive_window: i64,
    /// Taken and not yet given back to the peer.
    owed: u32,
    waker: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn next_head(&mut self) -> Option<Vec<u8>> {
        (!self.heads.is_empty()).then(|| self.heads.remove(0))
    }

    fn body(&self) -> &[u8] {
        &self.body[self.taken..]
    }
}

#[derive(Debug)]
struct Inner {
    is_server: bool,
    tls: bool,
    head_bytes_max: usize,
    streams_max: u32,
    preface_left: usize,
    settled: bool,
    out: Vec<u8>,
    written: usize,
    /// What was read of a frame that is not whole yet.
    rest: Vec<u8>,
    decoder: Decoder,
    text: Text,
    block: Option<OpenBlock>,
    no_table_said: bool,
    streams: Slab<State>,
    ids: HashMap<u32, u32, foldhash::fast::FixedState>,
    /// Streams nobody has picked up yet.
    arrived: VecDeque<u32>,
    next_id: u32,
    /// The highest stream the peer opened.
    last_id: u32,
    /// Those below that it never opened: from, and up to.
    skipped: SmallVec<[(u32, u32); 1]>,
    send_window: i64,
    receive_window: i64,
    owed: u32,
    peer_window: i64,
    peer_streams_max: u32,
    /// Streams that have something to send and no room for it.
    waiting: Vec<u32>,
    credit: Credit,
    /// We told the peer to go elsewhere; the second time with the last stream we looked at.
    leaving: Leaving,
    peer_leaving: bool,
    over: bool,
    /// The peer broke a rule: what is written is the last of it.
    failed: bool,
    calmed: bool,
    block_began: Nanos,
    /// Whoever waits for the peer's settings.
    settling: Option<Waker>,
    driver: Option<Waker>,
    /// The driver knows that there is something to do.
    kicked: bool,
    received: u64,
    /// Frames that came, but for pings and their answers.
    heard: u64,
    /// A ping that asks whether anybody is there was sent and not answered yet.
    asked_alive: bool,
    /// Streams refused because there were enough, and not told to anybody yet.
    refused: u64,
}

/// What there is to tell whether a peer is still there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs {
    /// Frames that came so far, but for pings and their answers.
    pub(crate) heard: u64,
    /// Rises with every stream of ours.
    pub(crate) opened: u32,
    /// Our last question was.
    pub(crate) answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    Announced,
    Final,
}

#[derive(Debug)]
struct OpenBlock {
    head: Head,
    bytes: Vec<u8>,
    frames: u32,
}

/// A connection, shared by its driver and its streams.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: RefCell<Inner>,
    /// Handles of streams that exist.
    pub(crate) active: Cell<u32>,
}

impl Connection {
    pub(crate) fn server(head_bytes_max: usize, streams_max: u32) -> Rc<Self> {
        let connection = Self::new(true, false, head_bytes_max, streams_max, PREFACE.len());
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, streams_max),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW as u32),
            (setting::MAX_HEADER_LIST_SIZE, head_bytes_max as u32),
        ];
        connection.open(&[], &settings);
        connection
    }

    pub(crate) fn client(tls: bool, head_bytes_max: usize) -> Rc<Self> {
        let connection = Self::new(false, tls, head_bytes_max, 0, 0);
        let settings = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW as u32),
            (setting::MAX_HEADER_LIST_SIZE, head_bytes_max as u32),
        ];
        connection.open(PREFACE, &settings);
        connection
    }

    fn new(
        is_server: bool,
        tls: bool,
        head_bytes_max: usize,
        streams_max: u32,
        preface_left: usize,
    ) -> Rc<Self> {
        let inner = Inner {
            is_server,
            tls,
            head_bytes_max,
            streams_max,
            preface_left,
            settled: false,
            out: take_spare(),
            written: 0,
            rest: Vec::new(),
            decoder: Decoder::default(),
            text: Text::default(),
            block: None,
            no_table_said: false,
            streams: Slab::new(),
            ids: HashMap::default(),
            arrived: VecDeque::new(),
            next_id: 1,
            last_id: 0,
            skipped: SmallVec::new(),
            send_window: DEFAULT_WINDOW,
            receive_window: WINDOW,
            owed: 0,
            peer_window: DEFAULT_WINDOW,
            peer_streams_max: u32::MAX,
            waiting: Vec::new(),
            credit: Credit::default(),
            leaving: Leaving::No,
            peer_leaving: false,
            over: false,
            failed: false,
            calmed: false,
            block_began: Nanos::ZERO,
            settling: None,
            driver: None,
            kicked: false,
            received: 0,
            heard: 0,
            asked_alive: false,
            refused: 0,
        };
        Rc::new(Self { inner: RefCell::new(inner), active: Cell::new(0) })
    }

    fn open(&self, preface: &[u8], settings: &[(u16, u32)]) {
        let mut inner = self.inner.borrow_mut();
        inner.out.extend_from_slice(preface);
        frame::write_settings(settings, &mut inner.out);
        frame::write_window_update(0, (WINDOW - DEFAULT_WINDOW) as u32, &mut inner.out);
    }

    /// Bytes that were read before it was known what they are.
    pub(crate) fn said_before(&self, bytes: Vec<u8>) {
        self.inner.borrow_mut().rest = bytes;
    }

    /// Ready when the peer's settings are here: true. False if it is gone before.
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.inner.borrow_mut();
        if inner.settled || inner.over {
            return Poll::Ready(inner.settled && !inner.over);
        }
        inner.settling = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether one more stream may be opened now.
    pub(crate) fn room(&self, streams_max: usize) -> bool {
        let inner = self.inner.borrow();
        inner.settled
            && !inner.over
            && !inner.peer_leaving
            && inner.leaving == Leaving::No
            && inner.next_id < 1 << 30
            && (self.active.get() as usize) < streams_max.min(inner.peer_streams_max as usize)
    }

    pub(crate) fn is_over(&self) -> bool {
        let inner = self.inner.borrow();
        inner.over || inner.peer_leaving && self.active.get() == 0
    }

    /// Something is half said, or waits to be written: the peer owes us something within a time.
    pub(crate) fn waits_for_peer(&self) -> bool {
        let inner = self.inner.borrow();
        inner.written < inner.out.len() || !inner.rest.is_empty() || inner.block.is_some() || !inner.settled
    }

    /// Bytes of progress so far, both ways: a number that changes while anything moves.
    pub(crate) fn progress(&self) -> u64 {
        self.inner.borrow().received
    }

    pub(crate) fn signs_of_life(&self) -> Signs {
        let inner = self.inner.borrow();
        Signs { heard: inner.heard, opened: inner.next_id, answered: !inner.asked_alive }
    }

    /// Asks the peer whether it is there.
    pub(crate) fn ask_alive(&self) {
        let mut inner = self.inner.borrow_mut();
        if !inner.over {
            inner.asked_alive = true;
            frame::write_ping(false, ALIVE_PING, &mut inner.out);
            inner.kick();
        }
    }

    /// A stream of ours, which has no number until its head is sent.
    pub(crate) fn stream(self: &Rc<Self>) -> Stream {
        let mut inner = self.inner.borrow_mut();
        let state = State {
            body: take_spare(),
            send_window: inner.peer_window,
            receive_window: STREAM_WINDOW,
            ..State::default()
        };
        let key = inner.streams.insert(state) as u32;
        drop(inner);
        self.active.set(self.active.get() + 1);
        Stream { connection: self.clone(), key }
    }

    /// The next stream that the peer opened.
    pub(crate) fn next_arrived(self: &Rc<Self>) -> Option<Stream> {
        let key = self.inner.borrow_mut().arrived.pop_front()?;
        self.active.set(self.active.get() + 1);
        Some(Stream { connection: self.clone(), key })
    }

    /// Tells the peer to open no more streams here. Those it has opened already, and those on their way, are served.
    pub(crate) fn leave(&self) {
        let mut inner = self.inner.borrow_mut();
        if inner.leaving == Leaving::No {
            inner.leaving = Leaving::Announced;
            frame::write_goaway(WINDOW_MAX as u32, Reason::NO_ERROR, &mut inner.out);
            // When the answer is here, so is everything that was sent before it.
            frame::write_ping(false, SHUTDOWN_PING, &mut inner.out);
        }
    }

    /// Ends it without waiting for anybody.
    pub(crate) fn abandon(&self) {
        self.inner.borrow_mut().lose();
    }

    /// Reads and writes what can be read and written. Ready when the connection is over.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        pool: &Rc<BufferPool>,
        now: Nanos,
    ) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        inner.kicked = false;
        if inner.driver.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        if !inner.rest.is_empty() && inner.received == 0 {
            let said = std::mem::take(&mut inner.rest);
            inner.received += said.len() as u64;
            let used = inner.on_bytes(&said, now);
            inner.rest = said[used..].to_vec();
        }
        loop {
            let writing = inner.flush(cx, socket);
            if inner.over {
                return Poll::Ready(());
            }
            if inner.failed {
                ready!(writing);
                let _ = socket.poll_shutdown(cx);
                inner.lose();
                return Poll::Ready(());
            }
            let idle = self.active.get() == 0 && inner.arrived.is_empty();
            if writing.is_ready() && idle && (inner.leaving == Leaving::Final || inner.peer_leaving) {
                // Everybody has said everything. Whether the end arrives is not for us to wait for.
                let _ = socket.poll_shutdown(cx);
                inner.lose();
                return Poll::Ready(());
            }
            if inner.out.len() - inner.written >= OUT_MAX {
                return Poll::Pending;
            }
            match socket.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    inner.lose();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
            let mut buffer = pool.take();
            let kept = inner.rest.len();
            buffer.space()[..kept].copy_from_slice(&inner.rest);
            buffer.advance(kept);
            match socket.poll_read(cx, buffer.space()) {
                Poll::Ready(Ok(read)) if read > 0 => {
                    buffer.advance(read);
                    inner.received += read as u64;
                    let used = inner.on_bytes(buffer.filled(), now);
                    inner.rest.clear();
                    if used < buffer.len() && inner.rest.capacity() == 0 {
                        inner.rest = take_spare();
                    }
                    inner.rest.extend_from_slice(&buffer.filled()[used..]);
                    if inner.rest.is_empty() {
                        // An idle connection holds nothing.
                        put_spare(std::mem::take(&mut inner.rest));
                    }
                    if !inner.arrived.is_empty() {
                        // The driver hands them out and comes back.
                        return Poll::Pending;
                    }
                }
                Poll::Ready(_) => {
                    inner.lose();
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
        }
    }

    /// The peer began a head and does not come to its end.
    pub(crate) fn block_is_older_than(&self, age: Nanos, now: Nanos) -> bool {
        let inner = self.inner.borrow();
        inner.block.is_some() && now > inner.block_began + age
    }

    /// The peer broke a rule.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner.borrow().failed
    }

    /// Streams that were refused because there were enough, since this was asked last.
    pub(crate) fn take_refused(&self) -> u64 {
        std::mem::take(&mut self.inner.borrow_mut().refused)
    }

    /// The peer sent more of what helps nobody than it was given credit for.
    pub(crate) fn was_calmed(&self) -> bool {
        self.inner.borrow().calmed
    }

    /// Reads bytes as if they had come from the socket, and says how many of them were whole frames.
    pub(crate) fn feed(&self, bytes: &[u8], now: Nanos) -> usize {
        self.inner.borrow_mut().on_bytes(bytes, now)
    }

    pub(crate) fn has_arrived(&self) -> bool {
        !self.inner.borrow().arrived.is_empty()
    }
}

impl Inner {
    fn kick(&mut self) {
        if !self.kicked
            && let Some(driver) = &self.driver
        {
            self.kicked = true;
            driver.wake_by_ref();
        }
    }

    /// The connection is gone, and every stream with it.
    fn lose(&mut self) {
        self.over = true;
        for (_, state) in &mut self.streams {
            if state.broken.is_none() && !(state.ended && state.said) {
                state.broken = Some(Broken::Lost);
            }
            state.wake();
        }
        self.settling.take().into_iter().for_each(Waker::wake);
        put_spare(std::mem::take(&mut self.out));
        self.written = 0;
        self.rest = Vec::new();
        self.kick();
    }

    fn flush(&mut self, cx: &mut Context<'_>, socket: &Socket) -> Poll<()> {
        while self.written < self.out.len() {
            match socket.poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(wrote)) if wrote > 0 => {
                    self.written += wrote;
                    self.received = self.received.wrapping_add(1);
                }
                Poll::Ready(_) => {
                    self.lose();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    // What is written is let go once it is the larger part, so that a slow reader's buffer stays bounded.
                    if self.written > OUT_BODY_MAX {
                        self.out.drain(..self.written);
                        self.written = 0;
                        self.wake_waiting();
                    }
                    return Poll::Pending;
                }
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.out.clear();
            if self.streams.is_empty() {
                put_spare(std::mem::take(&mut self.out));
            }
            self.wake_waiting();
        }
        let _ = ready!(socket.poll_flush(cx));
        Poll::Ready(())
    }

    fn wake_waiting(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(state) = self.streams.get_mut(key as usize) {
                state.wake();
            }
        }
    }

    /// A header block of ours: written by `write` between a frame's head and its end.
    fn put_block(&mut self, id: u32, end: bool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.out.capacity() == 0 {
            self.out = take_spare();
        }
        let start = self.out.len();
        self.out.resize(start + HEAD, 0);
        if !std::mem::replace(&mut self.no_table_said, true) {
            write_no_table(&mut self.out);
        }
        write(&mut self.out);
        frame::close_block(start, id, end, &mut self.out);
        self.kick();
    }
}
