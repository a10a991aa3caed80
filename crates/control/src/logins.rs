//! Who has logged in, and who guesses: what the gate ([`crate::admit`]) remembers, all of it bounded and in memory only.
//!
//! A browser holds a session's id and never the token: an id that leaks is good for half a day and dies with a logout,
//! and a restart of isobar forgets them all.

use std::collections::VecDeque;
use units::Nanos;

/// Half a day: whoever comes back tomorrow is asked again.
pub(crate) const SESSION: Nanos = Nanos::from_secs(43_200);
/// A team with a few browsers each.
const SESSIONS_MAX: usize = 256;
/// Who guesses is remembered apart from others up to here; whoever comes after shares one place, so that making up
/// sources gains nothing.
const SOURCES_MAX: usize = 64;
/// Mistakes of people.
const WRONG_FREE: u32 = 4;
const WAIT_FIRST: Nanos = Nanos::from_secs(1);
const WAIT_MAX: Nanos = Nanos::from_secs(60);
/// Since the last wrong guess; then all is forgotten.
const FORGOTTEN_AFTER: Nanos = Nanos::from_secs(600);

#[derive(Debug)]
struct Session {
    id: String,
    ends: Nanos,
}

#[derive(Debug)]
struct Guesser {
    source: String,
    wrong: u32,
    /// What was guessed last, as its hash: a script that sends an old token every second guesses once.
    last: u64,
    at: Nanos,
    heard_from: Nanos,
}

/// For the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    pub given: u64,
    /// Sessions that made room for newer ones.
    pub pushed_out: u64,
    pub wrong: u64,
    /// Not even looked at: too many wrong ones before.
    pub unheard: u64,
}

#[derive(Debug, Default)]
pub struct Logins {
    /// The oldest first: all last equally long.
    sessions: VecDeque<Session>,
    guessers: Vec<Guesser>,
    counts: LoginCounts,
}

impl Logins {
    pub fn counts(&self) -> LoginCounts {
        self.counts
    }

    /// Those that have not ended.
    pub fn open(&self, now: Nanos) -> usize {
        self.sessions.iter().filter(|it| now < it.ends).count()
    }

    /// The id is luck of the edge's.
    pub(crate) fn give(&mut self, id: String, now: Nanos) {
        self.sessions.retain(|it| now < it.ends);
        if self.sessions.len() == SESSIONS_MAX {
            self.sessions.pop_front();
            self.counts.pushed_out += 1;
        }
        self.sessions.push_back(Session { id, ends: now + SESSION });
        self.counts.given += 1;
    }

    /// Looks at every session, so that the time it takes says nothing about any of them.
    pub(crate) fn knows(&self, id: &str, now: Nanos) -> bool {
        self.sessions
            .iter()
            .fold(false, |known, it| known | (now < it.ends) & same(it.id.as_bytes(), id.as_bytes()))
    }

    pub(crate) fn end(&mut self, id: &str) {
        self.sessions.retain(|it| !same(it.id.as_bytes(), id.as_bytes()));
    }

    /// How long this source is not heard yet.
    pub(crate) fn wait(&mut self, source: &str, now: Nanos) -> Option<Nanos> {
        self.guessers.retain(|it| now.saturating_sub(it.at) < FORGOTTEN_AFTER);
        let until = self.guessers[..].get(self.place(source)?)?.heard_from;
        (now < until).then(|| {
            self.counts.unheard += 1;
            until.saturating_sub(now)
        })
    }

    /// A wrong token, as its hash. The next one from there is looked at later and later.
    pub(crate) fn wrong(&mut self, source: &str, guess: u64, now: Nanos) {
        self.counts.wrong += 1;
        let at = self.place(source).unwrap_or_else(|| {
            let source = if self.guessers.len() < SOURCES_MAX { source } else { "" };
            let (wrong, last) = (0, !guess);
            self.guessers.push(Guesser { source: source.to_owned(), wrong, last, at: now, heard_from: now });
            self.guessers.len() - 1
        });
        let it = &mut self.guessers[at];
        it.at = now;
        if it.last == guess {
            return;
        }
        it.last = guess;
        it.wrong = it.wrong.saturating_add(1);
        if let Some(more) = it.wrong.checked_sub(WRONG_FREE + 1) {
            let wait = WAIT_FIRST.as_u64().checked_shl(more.min(16)).map_or(WAIT_MAX, Nanos);
            it.heard_from = now + wait.min(WAIT_MAX);
        }
    }

    pub(crate) fn right(&mut self, source: &str) {
        self.guessers.retain(|it| it.source != source);
    }

    /// The source's own, or the one that all share who found no room.
    fn place(&self, source: &str) -> Option<usize> {
        let of = |source: &str| self.guessers.iter().position(|it| it.source == source);
        of(source).or_else(|| if self.guessers.len() < SOURCES_MAX { None } else { of("") })
    }
}

/// Takes as long for a wrong secret as for a right one.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Nanos {
        Nanos::from_secs(seconds)
    }

    #[test]
    fn a_session_lasts_half_a_day_or_until_it_is_ended() {
        let mut logins = Logins::default();
        logins.give("a".to_owned(), s(0));
        logins.give("b".to_owned(), s(10));
        assert!(logins.knows("a", s(43_199)) && logins.knows("b", s(43_199)));
        assert!(!logins.knows("a", s(43_200)) && logins.knows("b", s(43_200)));
        assert_eq!(logins.open(s(43_200)), 1);
        assert!(!logins.knows("", s(1)) && !logins.knows("c", s(1)));
        logins.end("b");
        logins.end("never given");
        assert!(!logins.knows("b", s(11)) && logins.knows("a", s(11)));
    }

    #[test]
    fn the_oldest_session_makes_room_and_is_counted() {
        let mut logins = Logins::default();
        for n in 0..SESSIONS_MAX + 3 {
            logins.give(n.to_string(), s(1));
        }
        assert_eq!(logins.open(s(1)), SESSIONS_MAX);
        assert_eq!(
            [0, 2, 3, SESSIONS_MAX + 2].map(|n| logins.knows(&n.to_string(), s(1))),
            [false, false, true, true]
        );
        assert_eq!(logins.counts().pushed_out, 3);
        // Those that ended by themselves make room for nothing.
        logins.give("late".to_owned(), s(1) + SESSION);
        assert_eq!((logins.open(s(1) + SESSION), logins.counts().pushed_out), (1, 3));
    }

    /// The seconds that a source waits after each of so many different wrong guesses, each made as soon as it is heard.
    fn waits(guesses: u64) -> Vec<u64> {
        let (mut logins, mut now) = (Logins::default(), s(0));
        let mut all = Vec::new();
        for guess in 0..guesses {
            logins.wrong("a", guess, now);
            let wait = logins.wait("a", now).unwrap_or(Nanos::ZERO);
            all.push(wait.as_u64() / 1_000_000_000);
            now += wait;
            assert_eq!(logins.wait("a", now), None, "heard once the wait is over");
        }
        all
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_a_minute_at_most() {
        assert_eq!(waits(14), [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(waits(200).last(), Some(&60));
    }

    #[test]
    fn a_wrong_guess_is_held_against_nobody_else_and_forgotten_in_time() {
        let mut logins = Logins::default();
        (0..20).for_each(|guess| logins.wrong("a", guess, s(0)));
        assert!(logins.wait("a", s(0)).is_some());
        assert_eq!(logins.wait("b", s(0)), None);
        assert_eq!(logins.counts(), LoginCounts { wrong: 20, unheard: 1, ..LoginCounts::default() });
        logins.wrong("a", 99, s(0));
        assert_eq!(logins.wait("a", FORGOTTEN_AFTER), None);
        logins.wrong("a", 1, FORGOTTEN_AFTER);
        assert_eq!(logins.wait("a", FORGOTTEN_AFTER), None, "counted from the start again");
    }

    #[test]
    fn an_old_token_sent_over_and_over_is_one_guess() {
        let mut logins = Logins::default();
        (0..100).for_each(|n| logins.wrong("a", 7, s(n)));
        assert_eq!(logins.wait("a", s(100)), None);
        assert_eq!(logins.counts().wrong, 100);
    }

    #[test]
    fn the_right_token_ends_the_counting() {
        let mut logins = Logins::default();
        (0..20).for_each(|guess| logins.wrong("a", guess, s(0)));
        logins.right("a");
        assert_eq!(logins.wait("a", s(0)), None);
    }

    #[test]
    fn made_up_sources_share_one_place_and_gain_nothing() {
        let mut logins = Logins::default();
        for n in 0..1_000u64 {
            logins.wrong(&format!("made up {n}"), n, s(0));
        }
        assert!(logins.guessers.len() <= SOURCES_MAX + 1, "{}", logins.guessers.len());
        assert!(logins.wait("made up 1001", s(0)).is_some(), "whoever finds no room waits with the others");
        assert_eq!(logins.wait("made up 1", s(0)), None, "who was there before does not");
    }
}
