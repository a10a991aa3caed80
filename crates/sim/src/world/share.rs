//! Work that shares an instance's cores: n pieces on c cores go on at min(1, c/n) each (processor sharing).
//!
//! All pieces are given work at one speed, so the one that has least left stays the one that has least left: what a piece
//! needs is noted once, as the amount that everybody will have been given when it is done, and a heap knows the next. The
//! speed changes when a piece comes or goes; only the one timer of the instance moves then, whatever their number.

use super::*;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

#[derive(Debug)]
pub(super) struct Share {
    cores: u32,
    /// Nanoseconds of work that each piece present since the beginning would have been given.
    given: f64,
    since: Nanos,
    pieces: BinaryHeap<Reverse<Piece>>,
    arrived: u64,
    timer: TimerId,
}

/// One piece of work: done when so much has been given; the first to come is the first to go among equals.
#[derive(Clone, Copy, Debug)]
struct Piece {
    done_at: f64,
    order: u64,
    event: Event,
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Piece {}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Piece {
    fn cmp(&self, other: &Self) -> Ordering {
        self.done_at.total_cmp(&other.done_at).then(self.order.cmp(&other.order))
    }
}

impl Share {
    pub(super) fn new(cores: u32) -> Self {
        Self {
            cores,
            given: 0.0,
            since: Nanos::ZERO,
            pieces: BinaryHeap::new(),
            arrived: 0,
            timer: TimerId::NONE,
        }
    }

    pub(super) fn cores_in_use(&self) -> u32 {
        self.cores.min(self.pieces.len() as u32)
    }

    /// How fast each piece goes on.
    fn speed(&self) -> f64 {
        (f64::from(self.cores) / self.pieces.len().max(1) as f64).min(1.0)
    }

    /// Gives everybody what they were due since the last change.
    fn advance(&mut self, now: Nanos) {
        self.given += (now - self.since).0 as f64 * self.speed();
        self.since = now;
        if self.pieces.is_empty() {
            // Counted from zero again, so that the sum keeps its precision however long the run.
            self.given = 0.0;
        }
    }

    fn push(&mut self, takes: Nanos, event: Event) {
        self.arrived += 1;
        let done_at = self.given + takes.0 as f64;
        self.pieces.push(Reverse(Piece { done_at, order: self.arrived, event }));
    }

    /// When the next piece is done, if nothing changes before. Never early: rounded up to a nanosecond.
    fn next(&self) -> Option<Nanos> {
        let Reverse(next) = self.pieces.peek()?;
        let left = ((next.done_at - self.given) / self.speed()).max(0.0);
        Some(self.since + Nanos(left.ceil() as u64))
    }
}

impl World<'_> {
    /// Begins a piece of work of an instance; `done` comes when it is.
    pub(super) fn work(&mut self, now: Nanos, instance: usize, takes: Nanos, done: Event) {
        if self.shares[instance].is_none() {
            return self.events.schedule(now + takes, done);
        }
        self.measure(now, instance);
        if let Some(share) = &mut self.shares[instance] {
            share.advance(now);
            share.push(takes, done);
        }
        self.rearm(instance);
    }

    fn rearm(&mut self, instance: usize) {
        let Some(share) = &mut self.shares[instance] else { return };
        self.events.cancel(share.timer);
        share.timer = match share.next() {
            Some(at) => self.events.schedule_timer(at, Event::new(kind::SHARE, instance as u32, 0)),
            None => TimerId::NONE,
        };
    }

    /// The piece with least left is done, and whatever ends in the same nanosecond.
    pub(super) fn on_share(&mut self, now: Nanos, instance: u32) {
        let index = instance as usize;
        self.measure(now, index);
        let Some(share) = &mut self.shares[index] else { return };
        share.advance(now);
        let Some(Reverse(first)) = share.pieces.pop() else { return };
        self.rearm(index);
        self.step(now, first.event);
    }

    /// The instance died with all it was working on.
    pub(super) fn stop_work(&mut self, now: Nanos, instance: usize) {
        if let Some(share) = &mut self.shares[instance] {
            share.advance(now);
            share.pieces.clear();
        }
        self.rearm(instance);
    }
}
