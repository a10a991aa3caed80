//! What one run remembers besides counts: the spans of a few requests, and the moments at which something changed.
//!
//! Only the first run of a forecast keeps a record. It is an illustration, a story with names and times in it; the
//! numbers of a report come from all runs and from the meters.
//!
//! Bounds: so many requests as were asked for, spread evenly over the time that is measured, [`SPANS_MAX`] spans of
//! theirs and [`HAPPENINGS_MAX`] moments; what comes later is counted and not kept.

use crate::meter::Cause;
use crate::random::Draw;
use units::Nanos;

/// Spans kept of all recorded requests together.
pub const SPANS_MAX: usize = 100_000;
/// Moments kept; a story longer than this is a log.
pub const HAPPENINGS_MAX: usize = 1_000;

/// Which side of an exchange saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A user's whole request.
    Whole,
    /// One try of a call, from its sending to its end in the caller's eyes.
    Caller,
    /// A request at its instance, from arrival to answer.
    Callee,
}

/// A piece of one request, in the plan's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace: u64,
    pub id: u64,
    pub parent: Option<u64>,
    pub side: Side,
    /// The plan's operation that was asked for.
    pub operation: u32,
    /// The plan's instance that saw it, and the one at the other end.
    pub instance: u32,
    pub other: Option<u32>,
    pub start: Nanos,
    pub took: Nanos,
    pub failed: Option<Cause>,
    /// Which try of its call: 0 is the first.
    pub attempt: u8,
    /// Time in the instance's queue.
    pub waited: Nanos,
}

/// Something that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The scenario's n-th event began, or was undone.
    Fault(u32),
    Undone(u32),
    /// An instance of the plan came or went.
    Up(u32),
    Down(u32),
    /// Autoscaling wants another number of instances of a station.
    Scaled {
        station: u32,
        from: u32,
        to: u32,
    },
    /// A caller's breaker for a pair began to refuse, or admits again.
    BreakerOpen(u32),
    BreakerClosed(u32),
    /// A caller of a pair ejected an instance.
    Ejected(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    pub at: Nanos,
    pub change: Change,
}

/// The record of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub happenings: Vec<Happening>,
    /// When each edge of the plan was first used.
    pub edge_first: Vec<Option<Nanos>>,
    /// Of requests that ended; parents before or after their children, as they ended.
    pub spans: Vec<Span>,
    /// Spans and moments beyond the bounds.
    pub dropped: u64,
}

/// A record being kept.
#[derive(Debug)]
pub(crate) struct Recorder {
    record: Record,
    requests_max: u32,
    /// One request is taken in each of these.
    every: Nanos,
    next: Nanos,
    traces: Vec<Trace>,
}

#[derive(Clone, Copy, Debug)]
struct Trace {
    id: u64,
    ended: bool,
}

/// No request of a record.
pub(crate) const UNTRACED: u32 = u32::MAX;

impl Recorder {
    /// Takes `requests` of those that begin between `from` and `until`.
    pub(crate) fn new(edges: usize, requests: u32, from: Nanos, until: Nanos) -> Self {
        Self {
            record: Record { edge_first: vec![None; edges], ..Record::default() },
            requests_max: requests,
            every: (until.saturating_sub(from)) / u64::from(requests.max(1)),
            next: from,
            traces: Vec::new(),
        }
    }

    /// A request begins: the number of its trace if it is one of those to keep.
    pub(crate) fn begin(&mut self, now: Nanos, draw: Draw) -> u32 {
        if now < self.next || self.traces.len() >= self.requests_max as usize {
            return UNTRACED;
        }
        self.next = now + self.every;
        self.traces.push(Trace { id: draw.bits().max(1), ended: false });
        self.traces.len() as u32 - 1
    }

    /// `span.trace` is the number that [`Self::begin`] gave.
    pub(crate) fn span(&mut self, trace: u32, mut span: Span) {
        let Some(known) = self.traces.get_mut(trace as usize) else { return };
        known.ended |= span.side == Side::Whole;
        span.trace = known.id;
        if self.record.spans.len() < SPANS_MAX {
            self.record.spans.push(span)
        } else {
            self.record.dropped += 1
        }
    }

    pub(crate) fn note(&mut self, at: Nanos, change: Change) {
        if self.record.happenings.len() < HAPPENINGS_MAX {
            self.record.happenings.push(Happening { at, change });
        } else {
            self.record.dropped += 1;
        }
    }

    #[inline]
    pub(crate) fn used(&mut self, edge: usize, now: Nanos) {
        if let Some(first) = self.record.edge_first.get_mut(edge) {
            first.get_or_insert(now);
        }
    }

    /// Half a request tells half a story: only those that ended are handed out.
    pub(crate) fn finish(mut self) -> Record {
        let mut ended: Vec<u64> = self.traces.iter().filter(|it| it.ended).map(|it| it.id).collect();
        ended.sort_unstable();
        self.record.spans.retain(|it| ended.binary_search(&it.trace).is_ok());
        self.record
    }
}

/// The id of a request at its instance, and of the try that brought it there; both from the luck they own.
pub(crate) fn span_of_job(draw: Draw) -> u64 {
    draw.child(0x5A_0B).bits().max(1)
}

pub(crate) fn span_of_attempt(draw: Draw) -> u64 {
    draw.child(0x5A_A7).bits().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(id: u64) -> Span {
        Span {
            trace: 0,
            id,
            parent: None,
            side: Side::Whole,
            operation: 0,
            instance: 0,
            other: None,
            start: Nanos::ZERO,
            took: Nanos::ZERO,
            failed: None,
            attempt: 0,
            waited: Nanos::ZERO,
        }
    }

    #[test]
    fn requests_are_taken_evenly_and_only_whole_ones_are_handed_out() {
        let mut recorder = Recorder::new(0, 4, Nanos::from_secs(10), Nanos::from_secs(18));
        let taken: Vec<u64> = (0..40)
            .filter(|second| recorder.begin(Nanos::from_secs(*second), Draw::new(*second)) != UNTRACED)
            .collect();
        assert_eq!(taken, [10, 12, 14, 16]);
        recorder.span(1, whole(7));
        recorder.span(2, Span { side: Side::Callee, ..whole(8) });
        recorder.span(UNTRACED, whole(9));
        let kept: Vec<u64> = recorder.finish().spans.iter().map(|it| it.id).collect();
        assert_eq!(kept, [7]);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut recorder = Recorder::new(0, 1, Nanos::ZERO, Nanos::from_secs(1));
        (0..HAPPENINGS_MAX as u32 + 3).for_each(|n| recorder.note(Nanos::ZERO, Change::Up(n)));
        let record = recorder.finish();
        assert_eq!((record.happenings.len(), record.dropped), (HAPPENINGS_MAX, 3));
    }
}
