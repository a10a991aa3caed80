//! How old is what a viewer sees? Measured, not promised.
//!
//! Every second a marker request goes through a proxy. When the page has drawn the frame that shows it, it acknowledges
//! the marker's number; all on one clock, ours:
//!
//! age = acknowledged − sent − half the round trip of the page's socket
//!
//! A view whose markers stop coming back does not keep its last good age: it grows older with the clock.

use std::collections::VecDeque;
use units::{Histogram, Nanos};

/// Markers on their way. A view that answers none of sixty is not looking any more.
const MARKERS_MAX: usize = 60;

#[derive(Debug)]
pub struct Freshness {
    next: u64,
    sent: VecDeque<(u64, Nanos)>,
    last_age: Option<Nanos>,
    /// When what the viewer last acknowledged was sent.
    last_seen: Option<Nanos>,
    /// A hidden tab draws nothing; its age says nothing.
    paused: bool,
    ages: Histogram,
    /// Acknowledgements of markers we did not send, or no longer remember.
    pub strays: u64,
    /// Markers that were never acknowledged.
    pub lost: u64,
}

/// How to show an age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// Nothing was measured yet, or the view is paused.
    Unknown,
    Fresh,
    /// Above 1 s: amber.
    Late,
    /// Above 5 s: grey, and said aloud.
    Stale,
}

impl Default for Freshness {
    fn default() -> Self {
        Self::new()
    }
}

impl Freshness {
    pub fn new() -> Self {
        Self {
            next: 1,
            sent: VecDeque::new(),
            last_age: None,
            last_seen: None,
            paused: false,
            ages: Histogram::new(),
            strays: 0,
            lost: 0,
        }
    }

    /// A marker's number, to be sent now. `None` while the view is paused.
    pub fn send(&mut self, now: Nanos) -> Option<u64> {
        if self.paused {
            return None;
        }
        if self.sent.len() == MARKERS_MAX {
            self.sent.pop_front();
            self.lost += 1;
        }
        let marker = self.next;
        self.next += 1;
        self.sent.push_back((marker, now));
        Some(marker)
    }

    /// The viewer drew the frame with `marker`. Returns the age.
    pub fn acknowledge(&mut self, marker: u64, now: Nanos, round_trip: Nanos) -> Option<Nanos> {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == marker) else {
            self.strays += 1;
            return None;
        };
        let (_, sent) = self.sent[at];
        // Frames are drawn in order: an older marker that is still out was skipped, not delayed.
        self.lost += at as u64;
        self.sent.drain(..=at);
        let age = now.saturating_sub(sent).saturating_sub(round_trip / 2);
        self.ages.record(age);
        self.last_age = Some(age);
        self.last_seen = Some(sent);
        Some(age)
    }

    /// A hidden or replaying view measures nothing; markers under way are forgotten.
    pub fn pause(&mut self, paused: bool) {
        if paused {
            self.sent.clear();
        }
        self.paused = paused;
    }

    /// The age to show now.
    pub fn age(&self, now: Nanos) -> Option<Nanos> {
        if self.paused {
            return None;
        }
        let waiting = self.sent.front().map(|(_, sent)| now.saturating_sub(*sent));
        match (self.last_age, waiting) {
            (Some(age), Some(waiting)) => Some(age.max(waiting)),
            (Some(age), None) => Some(age),
            // Never answered: as old as the first marker that is out.
            (None, waiting) => waiting,
        }
    }

    pub fn grade(&self, now: Nanos) -> Grade {
        match self.age(now) {
            None => Grade::Unknown,
            Some(age) if age > Nanos::from_secs(5) => Grade::Stale,
            Some(age) if age > Nanos::from_secs(1) => Grade::Late,
            Some(_) => Grade::Fresh,
        }
    }

    /// All ages measured, for export.
    pub fn ages(&self) -> &Histogram {
        &self.ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn age_is_send_to_drawn_less_half_a_round_trip() {
        let mut view = Freshness::new();
        assert_eq!((view.age(ms(0)), view.grade(ms(0))), (None, Grade::Unknown));
        let marker = view.send(ms(1_000)).unwrap();
        assert_eq!(view.acknowledge(marker, ms(1_330), ms(20)), Some(ms(320)));
        assert_eq!((view.age(ms(1_400)), view.grade(ms(1_400))), (Some(ms(320)), Grade::Fresh));
        assert_eq!(view.ages().count(), 1);
    }

    #[test]
    fn a_view_that_stops_answering_grows_older() {
        let mut view = Freshness::new();
        let first = view.send(ms(0)).unwrap();
        view.acknowledge(first, ms(300), ms(0));
        view.send(ms(1_000));
        assert_eq!(view.grade(ms(1_900)), Grade::Fresh);
        assert_eq!((view.age(ms(2_500)), view.grade(ms(2_500))), (Some(ms(1_500)), Grade::Late));
        assert_eq!(view.grade(ms(6_500)), Grade::Stale);
        for second in 2..200 {
            view.send(ms(second * 1_000));
        }
        assert!(view.sent.len() <= MARKERS_MAX && view.lost > 0);
    }

    #[test]
    fn skipped_stray_and_paused_markers_are_told_apart() {
        let mut view = Freshness::new();
        let (first, second) = (view.send(ms(0)).unwrap(), view.send(ms(1_000)).unwrap());
        assert_eq!(view.acknowledge(second, ms(1_200), ms(0)), Some(ms(200)));
        assert_eq!((view.acknowledge(first, ms(1_300), ms(0)), view.strays, view.lost), (None, 1, 1));
        view.pause(true);
        assert_eq!((view.send(ms(2_000)), view.grade(ms(60_000))), (None, Grade::Unknown));
        view.pause(false);
        assert_eq!(view.grade(ms(60_000)), Grade::Fresh, "nothing is out, and the last one was fresh");
    }
}
