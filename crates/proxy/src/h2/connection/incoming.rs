//! Frames as they come in: what each says, what it may not say, and what it costs.

use super::{
    ALIVE_PING, BLOCK_FRAMES_MAX, Broken, Inner, Leaving, OpenBlock, PREFACE, SHUTDOWN_PING, SKIPPED_MAX,
    STREAM_WINDOW, State, WINDOW, WINDOW_MAX,
};
use crate::h2::frame::{self, HEAD, Head, PAYLOAD_MAX, Reason, flag, kind, setting};
use crate::h2::heads::Block;
use crate::pipe::{put_spare, take_spare};
use std::task::Waker;
use units::Nanos;

/// What a peer may spend on frames that bring nobody forward: a good many at once, then so many a second, and one more
/// for each frame that did bring something forward.
#[derive(Debug)]
pub(super) struct Credit {
    left: u32,
    filled_at: Nanos,
}

impl Default for Credit {
    fn default() -> Self {
        Self { left: Self::MAX, filled_at: Nanos::ZERO }
    }
}

impl Credit {
    const MAX: u32 = 1_000;
    const INTERVAL: Nanos = Nanos::from_millis(20);

    pub(super) fn earn(&mut self) {
        self.left = (self.left + 1).min(Self::MAX);
    }

    fn spend(&mut self, now: Nanos) -> Result<(), Fault> {
        if self.left == 0 {
            let earned = now.saturating_sub(self.filled_at).0 / Self::INTERVAL.0;
            self.left = earned.min(u64::from(Self::MAX)) as u32;
            self.filled_at = now;
        }
        self.left = self.left.checked_sub(1).ok_or(Fault::Connection(Reason::ENHANCE_YOUR_CALM))?;
        Ok(())
    }
}

/// What is wrong, and with how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Connection(Reason),
    Stream(u32, Reason),
}

impl Inner {
    /// Reads all whole frames. Returns how many bytes they were.
    pub(super) fn on_bytes(&mut self, bytes: &[u8], now: Nanos) -> usize {
        let mut at = 0;
        if self.preface_left > 0 {
            let from = PREFACE.len() - self.preface_left;
            let take = self.preface_left.min(bytes.len());
            if bytes[..take] != PREFACE[from..from + take] {
                self.fail(Reason::PROTOCOL_ERROR);
                return bytes.len();
            }
            self.preface_left -= take;
            at = take;
        }
        while let Some(head) = Head::read(&bytes[at..]) {
            if head.len > PAYLOAD_MAX {
                self.fail(Reason::FRAME_SIZE_ERROR);
                return bytes.len();
            }
            let Some(payload) = bytes.get(at + HEAD..at + HEAD + head.len) else { break };
            match self.on_frame(&head, payload, now) {
                Ok(()) => {}
                Err(Fault::Stream(id, reason)) => {
                    let paid = self.credit.spend(now);
                    self.reset(id, reason);
                    if paid.is_err() {
                        self.fail(Reason::ENHANCE_YOUR_CALM);
                        return bytes.len();
                    }
                }
                Err(Fault::Connection(reason)) => {
                    self.fail(reason);
                    return bytes.len();
                }
            }
            at += HEAD + head.len;
        }
        at
    }

    /// Says why, and ends the connection as soon as that is written.
    fn fail(&mut self, reason: Reason) {
        frame::write_goaway(self.last_id, reason, &mut self.out);
        self.failed = true;
        self.calmed = reason == Reason::ENHANCE_YOUR_CALM;
        self.peer_leaving = true;
        for (_, state) in &mut self.streams {
            if state.broken.is_none() && !(state.ended && state.said) {
                state.broken = Some(Broken::Reset(reason));
            }
            state.wake();
        }
    }

    fn state(&mut self, id: u32) -> Option<&mut State> {
        let key = *self.ids.get(&id)?;
        self.streams.get_mut(key as usize)
    }

    /// Whether the peer may speak about this stream at all: it was opened once.
    fn was_opened(&self, id: u32) -> bool {
        if (id % 2 == 1) == self.is_server {
            id <= self.last_id && !self.was_skipped(id)
        } else {
            id < self.next_id
        }
    }

    /// The peer opened later streams and never this one, which closes it for good (RFC 9113, section 5.1.1).
    fn was_skipped(&self, id: u32) -> bool {
        self.skipped.iter().any(|(from, to)| (*from..*to).contains(&id))
    }

    fn reset(&mut self, id: u32, reason: Reason) {
        frame::write_reset(id, reason, &mut self.out);
        if let Some(state) = self.state(id) {
            state.broken.get_or_insert(Broken::Reset(reason));
            state.wake();
        }
    }

    fn on_frame(&mut self, head: &Head, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        use Fault::Connection as Bad;
        self.heard += u64::from(head.kind != kind::PING);
        if !self.settled && head.kind != kind::SETTINGS {
            return Err(Bad(Reason::PROTOCOL_ERROR));
        }
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || block.head.stream != head.stream)
        {
            return Err(Bad(Reason::PROTOCOL_ERROR));
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload, now),
            kind::HEADERS => {
                let block = frame::unpadded(head, payload).ok_or(Bad(Reason::PROTOCOL_ERROR))?;
                if head.stream == 0 {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                if head.has(flag::END_HEADERS) {
                    return self.on_block(head, block, now);
                }
                let mut bytes = take_spare();
                bytes.extend_from_slice(block);
                self.block = Some(OpenBlock { head: *head, bytes, frames: 1 });
                self.block_began = now;
                Ok(())
            }
            kind::CONTINUATION => {
                let mut block = self.block.take().ok_or(Bad(Reason::PROTOCOL_ERROR))?;
                block.frames += 1;
                block.bytes.extend_from_slice(payload);
                // A block's text is at least as long as its bytes, give or take what Huffman's code saves.
                if block.frames > BLOCK_FRAMES_MAX || block.bytes.len() > 2 * self.head_bytes_max {
                    return Err(Bad(Reason::ENHANCE_YOUR_CALM));
                }
                if head.has(flag::END_HEADERS) {
                    let result = self.on_block(&block.head, &block.bytes, now);
                    put_spare(block.bytes);
                    return result;
                }
                self.block = Some(block);
                Ok(())
            }
            kind::PRIORITY => {
                if head.stream == 0 {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                if payload.len() != 5 {
                    return Err(Bad(Reason::FRAME_SIZE_ERROR));
                }
                self.credit.spend(now)
            }
            kind::RST_STREAM => {
                let (Some(reason), 4) = (frame::number(payload), payload.len()) else {
                    return Err(Bad(Reason::FRAME_SIZE_ERROR));
                };
                if head.stream == 0 || !self.was_opened(head.stream) {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                // Opening streams and resetting them at once costs the peer nothing and us everything (CVE-2023-44487).
                if self.is_server {
                    self.credit.spend(now)?;
                }
                if let Some(state) = self.state(head.stream) {
                    state.broken.get_or_insert(Broken::Reset(Reason(reason)));
                    state.wake();
                }
                Ok(())
            }
            kind::SETTINGS => self.on_settings(head, payload, now),
            kind::PUSH_PROMISE => Err(Bad(Reason::PROTOCOL_ERROR)),
            kind::PING => {
                if payload.len() != 8 {
                    return Err(Bad(Reason::FRAME_SIZE_ERROR));
                }
                if head.stream != 0 {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                if !head.has(flag::ACK) {
                    self.credit.spend(now)?;
                    frame::write_ping(true, payload, &mut self.out);
                } else if payload == ALIVE_PING {
                    self.asked_alive = false;
                } else if payload == SHUTDOWN_PING && self.leaving == Leaving::Announced {
                    self.leaving = Leaving::Final;
                    frame::write_goaway(self.last_id, Reason::NO_ERROR, &mut self.out);
                }
                Ok(())
            }
            kind::GOAWAY => {
                if head.stream != 0 {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                let last = frame::number(payload).filter(|_| payload.len() >= 8);
                let last = last.ok_or(Bad(Reason::FRAME_SIZE_ERROR))? & 0x7FFF_FFFF;
                self.peer_leaving = true;
                if !self.is_server {
                    for (_, state) in &mut self.streams {
                        if state.id > last || state.id == 0 {
                            state.broken.get_or_insert(Broken::Refused);
                        }
                        state.wake();
                    }
                }
                Ok(())
            }
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            // Kinds we do not know are to be ignored, and nobody needs many of them.
            _ => self.credit.spend(now),
        }
    }

    fn on_settings(&mut self, head: &Head, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        use Fault::Connection as Bad;
        if head.stream != 0 {
            return Err(Bad(Reason::PROTOCOL_ERROR));
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Bad(Reason::FRAME_SIZE_ERROR)) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Bad(Reason::FRAME_SIZE_ERROR));
        }
        if self.settled {
            self.credit.spend(now)?;
        }
        self.settled = true;
        self.settling.take().into_iter().for_each(Waker::wake);
        for row in payload.chunks_exact(6) {
            let value = frame::number(&row[2..]).unwrap_or_default();
            match u16::from_be_bytes([row[0], row[1]]) {
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams_max = value,
                setting::INITIAL_WINDOW_SIZE => {
                    let window = i64::from(value);
                    if window > WINDOW_MAX {
                        return Err(Bad(Reason::FLOW_CONTROL_ERROR));
                    }
                    let change = window - self.peer_window;
                    self.peer_window = window;
                    for (_, state) in &mut self.streams {
                        state.send_window += change;
                        if state.send_window > WINDOW_MAX {
                            return Err(Bad(Reason::FLOW_CONTROL_ERROR));
                        }
                    }
                    self.wake_waiting();
                }
                setting::MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                    return Err(Bad(Reason::PROTOCOL_ERROR));
                }
                setting::ENABLE_PUSH if value > 1 => return Err(Bad(Reason::PROTOCOL_ERROR)),
                // We send no larger frames and no larger heads than anybody takes, and have no table to shrink.
                _ => {}
            }
        }
        frame::write_head(0, kind::SETTINGS, flag::ACK, 0, &mut self.out);
        Ok(())
    }

    fn on_window_update(&mut self, head: &Head, payload: &[u8]) -> Result<(), Fault> {
        let (Some(by), 4) = (frame::number(payload), payload.len()) else {
            return Err(Fault::Connection(Reason::FRAME_SIZE_ERROR));
        };
        let by = i64::from(by & 0x7FFF_FFFF);
        if head.stream == 0 {
            self.send_window += by;
            if by == 0 || self.send_window > WINDOW_MAX {
                let reason = if by == 0 { Reason::PROTOCOL_ERROR } else { Reason::FLOW_CONTROL_ERROR };
                return Err(Fault::Connection(reason));
            }
            self.wake_waiting();
            return Ok(());
        }
        if !self.was_opened(head.stream) {
            return Err(Fault::Connection(Reason::PROTOCOL_ERROR));
        }
        let Some(state) = self.state(head.stream) else { return Ok(()) };
        if by == 0 {
            return Err(Fault::Stream(head.stream, Reason::PROTOCOL_ERROR));
        }
        state.send_window += by;
        if state.send_window > WINDOW_MAX {
            return Err(Fault::Stream(head.stream, Reason::FLOW_CONTROL_ERROR));
        }
        state.wake();
        Ok(())
    }

    fn on_data(&mut self, head: &Head, payload: &[u8], now: Nanos) -> Result<(), Fault> {
        use Fault::Connection as Bad;
        if !self.was_opened(head.stream) || head.stream == 0 {
            return Err(Bad(Reason::PROTOCOL_ERROR));
        }
        let len = payload.len() as i64;
        self.receive_window -= len;
        if self.receive_window < 0 {
            return Err(Bad(Reason::FLOW_CONTROL_ERROR));
        }
        let data = frame::unpadded(head, payload).ok_or(Bad(Reason::PROTOCOL_ERROR))?;
        let end = head.has(flag::END_STREAM);
        if data.is_empty() && !end {
            self.credit.spend(now)?;
        } else {
            self.credit.earn();
        }
        let padding = (payload.len() - data.len()) as u32;
        let Some(state) = self.state(head.stream).filter(|state| state.broken.is_none()) else {
            // Sent before our reset arrived: thrown away, and given back.
            self.give_back(payload.len() as u32);
            return Ok(());
        };
        let mut wrong = None;
        state.receive_window -= len;
        if state.ended {
            wrong = Some(Reason::STREAM_CLOSED);
        } else if state.receive_window < 0 {
            wrong = Some(Reason::FLOW_CONTROL_ERROR);
        } else if let Some(promised) = &mut state.promised {
            match promised.checked_sub(data.len() as u64) {
                Some(left) if left == 0 || !end => *promised = left,
                _ => wrong = Some(Reason::PROTOCOL_ERROR),
            }
        }
        if let Some(reason) = wrong {
            self.give_back(payload.len() as u32);
            return Err(Fault::Stream(head.stream, reason));
        }
        state.body.extend_from_slice(data);
        state.ended = end;
        // Padding was nobody's: it is given back with the next that is taken.
        state.owed += padding;
        state.wake();
        self.give_back(padding);
        Ok(())
    }

    /// Bytes of the connection's window that are free again.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.owed += bytes;
        if i64::from(self.owed) >= WINDOW / 2 && !self.over {
            frame::write_window_update(0, self.owed, &mut self.out);
            self.receive_window += i64::from(self.owed);
            self.owed = 0;
            self.kick();
        }
    }

    /// A whole header block arrived.
    fn on_block(&mut self, head: &Head, block: &[u8], now: Nanos) -> Result<(), Fault> {
        let id = head.stream;
        let end = head.has(flag::END_STREAM);
        let opens = self.is_server && id % 2 == 1 && id > self.last_id;
        if !opens && !self.was_opened(id) {
            return Err(Fault::Connection(Reason::PROTOCOL_ERROR));
        }
        let known = self.ids.get(&id).and_then(|key| self.streams.get(*key as usize));
        let which = match known {
            _ if opens => Block::Request,
            Some(state) if !self.is_server && !state.has_final_head => Block::Response,
            _ => Block::Trailer,
        };
        self.text.begin(self.head_bytes_max);
        let Self { decoder, text, .. } = self;
        // Read even when nobody wants it: the table is the connection's.
        decoder
            .decode(block, |name, value, known| text.field(which, name, value, known))
            .map_err(|_| Fault::Connection(Reason::COMPRESSION_ERROR))?;
        self.text.finish(which);
        if opens {
            return self.on_request(id, end, now);
        }
        let malformed = self.text.malformed || self.text.too_long;
        let Some(state) = self.ids.get(&id).and_then(|key| self.streams.get_mut(*key as usize)) else {
            // A trailer may cross our reset. A second request on a stream that is over may not.
            if self.is_server && malformed {
                return Err(Fault::Connection(Reason::STREAM_CLOSED));
            }
            return self.credit.spend(now);
        };
        if state.broken.is_some() {
            return self.credit.spend(now);
        }
        self.credit.earn();
        if state.ended {
            return Err(Fault::Stream(id, Reason::STREAM_CLOSED));
        }
        if malformed {
            return Err(Fault::Stream(id, Reason::PROTOCOL_ERROR));
        }
        if which == Block::Response {
            let informational = self.text.status < 200;
            if informational && (end || state.heads.len() > 8 || self.text.status == 101) {
                return Err(Fault::Stream(id, Reason::PROTOCOL_ERROR));
            }
            let mut lines = take_spare();
            lines.extend_from_slice(&self.text.lines);
            state.heads.push(lines);
            if !informational {
                state.has_final_head = true;
                state.promised = self.text.length.filter(|_| !end);
            }
        } else {
            // A trailer ends its message, and must come when the body was as long as it was to be.
            if !end || state.promised.is_some_and(|left| left > 0) {
                return Err(Fault::Stream(id, Reason::PROTOCOL_ERROR));
            }
            state.trailer = Some(self.text.lines.clone());
        }
        state.ended |= end;
        state.wake();
        Ok(())
    }

    /// A stream was opened by the peer.
    fn on_request(&mut self, id: u32, end: bool, now: Nanos) -> Result<(), Fault> {
        let next = if self.last_id == 0 { 1 } else { self.last_id + 2 };
        if next < id {
            // Nobody leaves many gaps; of one who does the oldest are forgotten.
            if self.skipped.len() == SKIPPED_MAX {
                self.skipped.remove(0);
            }
            self.skipped.push((next, id));
        }
        self.last_id = id;
        if self.text.malformed {
            return Err(Fault::Stream(id, Reason::PROTOCOL_ERROR));
        }
        if self.leaving == Leaving::Final || self.streams.len() >= self.streams_max as usize {
            self.credit.spend(now)?;
            self.refused += 1;
            frame::write_reset(id, Reason::REFUSED_STREAM, &mut self.out);
            return Ok(());
        }
        if end && self.text.length.is_some_and(|length| length > 0) {
            return Err(Fault::Stream(id, Reason::PROTOCOL_ERROR));
        }
        let mut lines = take_spare();
        lines.extend_from_slice(&self.text.lines);
        let state = State {
            id,
            heads: smallvec::smallvec![lines],
            has_final_head: true,
            refusal: self.text.too_long.then_some(431),
            accepts_trailers: self.text.te_trailers,
            body: if end { Vec::new() } else { take_spare() },
            ended: end,
            promised: self.text.length.filter(|_| !end),
            send_window: self.peer_window,
            receive_window: STREAM_WINDOW,
            ..State::default()
        };
        let key = self.streams.insert(state) as u32;
        self.ids.insert(id, key);
        self.arrived.push_back(key);
        Ok(())
    }
}
