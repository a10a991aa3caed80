//! What changed, by whom and when: one ordered log, so that the past can be shown and a change undone by a person.
//!
//! Bounded: the oldest go first, and a reader that was away too long learns how much it missed instead of being told
//! a story with a hole in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// One more than the change before.
    pub sequence: u64,
    pub unix_ms: u64,
    /// A person, a file watcher, isobar itself.
    pub who: String,
    /// One word for what kind of change it is: `service`, `file`, `scenario`, `traffic`, `instance`.
    pub kind: String,
    /// What it is about: a service, an instance, a scenario.
    pub subject: String,
    /// One sentence.
    pub text: String,
}

/// About a working day of a busy system.
pub const CHANGES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub struct History {
    changes: VecDeque<Change>,
    next: u64,
}

impl History {
    pub fn record(&mut self, unix_ms: u64, who: &str, kind: &str, subject: &str, text: String) -> Change {
        let change = Change {
            sequence: self.next,
            unix_ms,
            who: who.to_owned(),
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            text,
        };
        self.next += 1;
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change.clone());
        change
    }

    /// Changes from `sequence` on, and how many of those asked for are no longer kept.
    pub fn since(&self, sequence: u64) -> (u64, impl Iterator<Item = &Change>) {
        let first = self.changes.front().map_or(self.next, |it| it.sequence);
        let missed = first.saturating_sub(sequence);
        (missed, self.changes.iter().filter(move |it| it.sequence >= sequence))
    }

    /// The number the next change will have.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_ordered_and_says_what_it_forgot() {
        let mut history = History::default();
        for n in 0..CHANGES_MAX as u64 + 5 {
            history.record(n, "ann", "service", "web", String::new());
        }
        let (missed, rest) = history.since(2);
        assert_eq!((missed, rest.count()), (3, CHANGES_MAX));
        let (missed, rest) = history.since(history.next() - 2);
        assert_eq!((missed, rest.map(|it| it.sequence).collect::<Vec<_>>()), (0, vec![10_003, 10_004]));
    }
}
