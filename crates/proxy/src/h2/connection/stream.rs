//! One stream, as whoever serves it or asked for it holds it.

use super::{Broken, Connection, Inner, OUT_BODY_MAX, STREAM_WINDOW, State};
use crate::h2::frame::{self, PAYLOAD_MAX, Reason, flag, kind};
use crate::h2::heads;
use crate::pipe::put_spare;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A stream, held by whoever serves it or asked for it. Dropping it before both sides have said everything resets it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) connection: Rc<Connection>,
    pub(super) key: u32,
}

/// What there is to take of a stream's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Data,
    /// Nothing more. There may be a trailer.
    End,
    Broken(Broken),
}

impl Stream {
    fn with<T>(&self, look: impl FnOnce(&mut Inner, usize) -> T) -> T {
        look(&mut self.connection.inner.borrow_mut(), self.key as usize)
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.with(|inner, key| look(&mut inner.streams[key]))
    }

    fn wait<T>(state: &mut State, cx: &Context<'_>) -> Poll<T> {
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The text of the request, without its last, empty line.
    pub(crate) fn take_request(&self) -> Vec<u8> {
        self.state(|state| state.next_head().unwrap_or_default())
    }

    pub(crate) fn refusal(&self) -> Option<u16> {
        self.state(|state| state.refusal)
    }

    pub(crate) fn accepts_trailers(&self) -> bool {
        self.state(|state| state.accepts_trailers)
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.state(|state| state.promised)
    }

    /// The text of the next head of the response, without its last, empty line.
    pub(crate) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Broken>> {
        self.state(|state| {
            if let Some(head) = state.next_head() {
                return Poll::Ready(Ok(head));
            }
            match state.broken {
                Some(broken) => Poll::Ready(Err(broken)),
                None => Self::wait(state, cx),
            }
        })
    }

    /// Nothing of the body or a trailer is left or will come.
    pub(crate) fn is_at_end(&self) -> bool {
        self.state(|state| state.ended && state.body().is_empty() && state.trailer.is_none())
    }

    /// Nothing has arrived that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.state(|state| state.body().is_empty())
    }

    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Body> {
        self.state(|state| {
            if !state.body().is_empty() {
                return Poll::Ready(Body::Data);
            }
            if state.ended {
                return Poll::Ready(Body::End);
            }
            match state.broken {
                Some(broken) => Poll::Ready(Body::Broken(broken)),
                None => Self::wait(state, cx),
            }
        })
    }

    /// Shows what has arrived of the body; `take` says how much of it was dealt with. Only then may more be sent.
    pub(crate) fn take_body<T>(&self, take: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        self.with(|inner, key| {
            let state = &mut inner.streams[key];
            let (count, result) = take(state.body());
            if count > 0 {
                inner.taken(key, count);
            }
            result
        })
    }

    pub(crate) fn take_trailer(&self) -> Option<Vec<u8>> {
        self.state(|state| state.trailer.take())
    }

    /// Ready when the stream is broken: nobody wants what is being done for it.
    pub(crate) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.state(|state| match state.broken {
            Some(broken) => Poll::Ready(broken),
            None => Self::wait(state, cx),
        })
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state(|state| state.broken.is_some())
    }

    /// Opens a stream of ours with the request whose text this is.
    pub(crate) fn send_request(&self, text: &[u8], end: bool) -> Result<(), Broken> {
        self.with(|inner, key| {
            if inner.over || inner.peer_leaving {
                return Err(Broken::Refused);
            }
            let id = inner.next_id;
            inner.next_id += 2;
            inner.ids.insert(id, key as u32);
            let state = &mut inner.streams[key];
            state.id = id;
            state.said = end;
            let tls = inner.tls;
            inner.put_block(id, end, |out| heads::write_request(text, tls, out));
            Ok(())
        })
    }

    /// Sends a response's head, or an informational one before it.
    pub(crate) fn send_response(&self, text: &[u8], end: bool) {
        self.with(|inner, key| {
            let state = &mut inner.streams[key];
            if state.broken.is_some() || state.said {
                return;
            }
            let id = state.id;
            state.said = end;
            inner.credit.earn();
            inner.put_block(id, end, |out| {
                heads::write_response(text, out);
            });
        });
    }

    /// Sends the trailer whose lines these are, and with it the end.
    pub(crate) fn send_trailer(&self, lines: &[u8]) {
        self.with(|inner, key| {
            let state = &mut inner.streams[key];
            if state.broken.is_some() || state.said {
                return;
            }
            let id = state.id;
            state.said = true;
            inner.put_block(id, true, |out| heads::write_trailer(lines, out));
        });
    }

    /// Sends as much of a body as there is room for, and the end with the last of it if this is all.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        end: bool,
    ) -> Poll<Result<usize, Broken>> {
        self.with(|inner, key| {
            let Inner { streams, out, written, send_window, waiting, .. } = inner;
            let state = &mut streams[key];
            if let Some(broken) = state.broken {
                return Poll::Ready(Err(broken));
            }
            if state.said {
                return Poll::Ready(Ok(bytes.len()));
            }
            let room = OUT_BODY_MAX.saturating_sub(out.len() - *written) as i64;
            let room = room.min(*send_window).min(state.send_window).max(0) as usize;
            let count = room.min(bytes.len());
            if count == 0 && !bytes.is_empty() {
                waiting.push(key as u32);
                return Self::wait(state, cx);
            }
            let mut rest = &bytes[..count];
            let whole = end && count == bytes.len();
            loop {
                let piece;
                (piece, rest) = rest.split_at(rest.len().min(PAYLOAD_MAX));
                let last = whole && rest.is_empty();
                let flags = if last { flag::END_STREAM } else { 0 };
                if !piece.is_empty() || last {
                    frame::write_head(piece.len(), kind::DATA, flags, state.id, out);
                    out.extend_from_slice(piece);
                }
                if rest.is_empty() {
                    break;
                }
            }
            *send_window -= count as i64;
            state.send_window -= count as i64;
            state.said = whole;
            inner.kick();
            Poll::Ready(Ok(count))
        })
    }

    /// Moves what has arrived here to another connection's stream, the end and the trailer with it. Ready when all of it
    /// was moved, and gives the trailer's lines if there was one; `seen` is shown what was moved.
    pub(crate) fn poll_forward(
        &self,
        cx: &mut Context<'_>,
        to: &Self,
        mut seen: impl FnMut(&[u8]),
    ) -> Poll<Result<Option<Vec<u8>>, Forward>> {
        loop {
            match ready!(self.poll_body(cx)) {
                Body::Data => {
                    let moved = self.with(|inner, key| {
                        let state = &mut inner.streams[key];
                        let last = state.ended && state.trailer.is_none();
                        let bytes = state.body();
                        let moved = to.poll_send(cx, bytes, last);
                        if let Poll::Ready(Ok(count)) = moved {
                            seen(&bytes[..count]);
                            let all = last && count == bytes.len();
                            inner.taken(key, count);
                            return Poll::Ready(Ok(all));
                        }
                        moved.map_ok(|_| false)
                    });
                    match ready!(moved) {
                        Ok(true) => return Poll::Ready(Ok(None)),
                        Ok(false) => {}
                        Err(broken) => return Poll::Ready(Err(Forward::To(broken))),
                    }
                }
                Body::End => {
                    if let Some(lines) = self.take_trailer() {
                        to.send_trailer(&lines);
                        return Poll::Ready(Ok(Some(lines)));
                    }
                    let ended = ready!(to.poll_send(cx, &[], true));
                    return Poll::Ready(ended.map(|_| None).map_err(Forward::To));
                }
                Body::Broken(broken) => return Poll::Ready(Err(Forward::From(broken))),
            }
        }
    }

    /// After a whole answer to half a request: takes what the client is still sending, for a little while, and throws it
    /// away. Resetting the stream at once is allowed (RFC 9113, section 8.1), but there are clients that then forget the
    /// answer they have just been given.
    pub(crate) async fn let_finish(&self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);
        const THROWN_MAX: usize = 1 << 20;
        if !self.state(|state| state.said && !state.ended && state.broken.is_none()) {
            return;
        }
        let mut thrown = 0;
        let ended = std::future::poll_fn(|cx| {
            while let Body::Data = ready!(self.poll_body(cx)) {
                thrown += self.take_body(|bytes| (bytes.len(), bytes.len()));
                if thrown > THROWN_MAX {
                    break;
                }
            }
            Poll::Ready(())
        });
        // Then it is reset, which says that nothing more is wanted.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }

    /// Ends the stream now, with a reason.
    pub(crate) fn reset(&self, reason: Reason) {
        self.with(|inner, key| {
            let state = &mut inner.streams[key];
            if state.broken.is_none() && !(state.said && state.ended) && state.id != 0 {
                state.broken = Some(Broken::Reset(reason));
                let id = state.id;
                frame::write_reset(id, reason, &mut inner.out);
                inner.kick();
            }
        });
    }
}

/// Which end of a body's way broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    From(Broken),
    To(Broken),
}

impl Inner {
    /// So much of a stream's body was dealt with, and its sender may go on.
    fn taken(&mut self, key: usize, count: usize) {
        let state = &mut self.streams[key];
        state.taken += count;
        if state.taken == state.body.len() {
            state.body.clear();
            state.taken = 0;
        }
        state.owed += count as u32;
        if i64::from(state.owed) >= STREAM_WINDOW / 2 && !state.ended && state.broken.is_none() {
            state.receive_window += i64::from(state.owed);
            let (id, owed) = (state.id, std::mem::take(&mut state.owed));
            frame::write_window_update(id, owed, &mut self.out);
            self.kick();
        }
        self.give_back(count as u32);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.with(|inner, key| {
            let mut state = inner.streams.remove(key);
            if state.id != 0 {
                inner.ids.remove(&state.id);
                if state.broken.is_none() && !(state.said && state.ended) && !inner.over {
                    let reason = match (inner.is_server, state.said) {
                        // A whole answer before the whole request: the rest of it is not wanted, and nothing is wrong.
                        (true, true) => Reason::NO_ERROR,
                        (true, false) => Reason::INTERNAL_ERROR,
                        (false, _) => Reason::CANCEL,
                    };
                    frame::write_reset(state.id, reason, &mut inner.out);
                }
            }
            let left = state.body().len() as u32;
            inner.give_back(left);
            put_spare(std::mem::take(&mut state.body));
            state.heads.drain(..).for_each(put_spare);
            // The last one out lets a connection end that only waits for it.
            inner.kick();
        });
    }
}
