//! Two ends of a connection inside one thread, bounded both ways.
//!
//! HTTP/2 streams are carried through the very code that carries HTTP/1: a stream is translated into an HTTP/1 message on
//! a pipe, so that routing, retries, limits, deadlines and the reading of body lengths exist once. The bound is what
//! makes flow control work end to end: who does not read fills the pipe, and a full pipe is not written to.

use policy::Outcome;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes on the way in one direction. More wait where they are.
const CAPACITY: usize = 64 << 10;

#[derive(Debug, Default)]
struct Way {
    bytes: RefCell<Vec<u8>>,
    /// Bytes of `bytes` that were read already.
    read: Cell<usize>,
    /// Nothing more will be written.
    ended: Cell<bool>,
    /// Nobody will read any more.
    abandoned: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Shared {
    ways: [Way; 2],
    /// Why the connection ended, if an end that says more than "reset" put it there.
    fault: Cell<Option<Outcome>>,
}

thread_local! {
    /// Memory of pipes that are gone, for those to come: a stream needs some for a moment, and there are many streams.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

const SPARE_MAX: usize = 512;

/// Empty, with room if some is at hand.
pub(crate) fn take_spare() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

pub(crate) fn put_spare(mut bytes: Vec<u8>) {
    if bytes.capacity() == 0 || bytes.capacity() > CAPACITY {
        return;
    }
    bytes.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(bytes);
        }
    });
}

impl Drop for Way {
    fn drop(&mut self) {
        put_spare(self.bytes.take());
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct Pipe {
    shared: Rc<Shared>,
    side: usize,
}

pub(crate) fn pipe() -> (Pipe, Pipe) {
    let shared = Rc::new(Shared::default());
    for way in &shared.ways {
        way.bytes.replace(take_spare());
    }
    (Pipe { shared: shared.clone(), side: 0 }, Pipe { shared, side: 1 })
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

fn keep(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if slot.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

impl Pipe {
    fn incoming(&self) -> &Way {
        &self.shared.ways[1 - self.side]
    }

    fn outgoing(&self) -> &Way {
        &self.shared.ways[self.side]
    }

    /// Ready when a read would not wait. An error when nobody is at the other end any more, whatever it said before.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing().abandoned.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let way = self.incoming();
        if way.bytes.borrow().len() > way.read.get() || way.ended.get() {
            return Poll::Ready(Ok(()));
        }
        keep(&way.reader, cx);
        Poll::Pending
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let way = self.incoming();
        let mut bytes = way.bytes.borrow_mut();
        let waiting = &bytes[way.read.get()..];
        let count = waiting.len().min(into.len());
        if count == 0 {
            if way.ended.get() {
                return match self.shared.fault.get() {
                    Some(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                    None => Poll::Ready(Ok(0)),
                };
            }
            keep(&way.reader, cx);
            return Poll::Pending;
        }
        into[..count].copy_from_slice(&waiting[..count]);
        way.read.set(way.read.get() + count);
        if way.read.get() == bytes.len() {
            bytes.clear();
            way.read.set(0);
        }
        wake(&way.writer);
        Poll::Ready(Ok(count))
    }

    /// Takes all that is there, without copying it where that can be avoided. Zero bytes are the end.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<usize> {
        let way = self.incoming();
        let mut bytes = way.bytes.borrow_mut();
        let count = bytes.len() - way.read.get();
        if count == 0 {
            if way.ended.get() {
                return Poll::Ready(0);
            }
            keep(&way.reader, cx);
            return Poll::Pending;
        }
        if into.is_empty() && way.read.get() == 0 {
            std::mem::swap(into, &mut bytes);
        } else {
            into.extend_from_slice(&bytes[way.read.get()..]);
        }
        bytes.clear();
        way.read.set(0);
        wake(&way.writer);
        Poll::Ready(count)
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let way = self.outgoing();
        if way.abandoned.get() || way.ended.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut bytes = way.bytes.borrow_mut();
        let room = CAPACITY.saturating_sub(bytes.len() - way.read.get());
        if room == 0 {
            keep(&way.writer, cx);
            return Poll::Pending;
        }
        if way.read.get() > 0 {
            bytes.drain(..way.read.get());
            way.read.set(0);
        }
        let count = room.min(from.len());
        bytes.extend_from_slice(&from[..count]);
        wake(&way.reader);
        Poll::Ready(Ok(count))
    }

    /// Nothing more will be written from this end.
    pub(crate) fn end(&self) {
        let way = self.outgoing();
        way.ended.set(true);
        wake(&way.reader);
    }

    /// Ends the connection with a reason that the other end can tell from a reset.
    pub(crate) fn fail(&self, outcome: Outcome) {
        self.shared.fault.set(Some(outcome));
        self.end();
    }

    pub(crate) fn fault(&self) -> Option<Outcome> {
        self.shared.fault.get()
    }

    /// Ready once the other end is gone or has ended without anything left to read.
    pub(crate) fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<()> {
        let way = self.outgoing();
        if way.abandoned.get() {
            return Poll::Ready(());
        }
        keep(&way.writer, cx);
        Poll::Pending
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.end();
        let way = self.incoming();
        way.abandoned.set(true);
        wake(&way.writer);
    }
}
