//! Whether an instance may be used: what discovery says crossed with what active checks say.
//!
//! ```text
//!                        check passes   check fails        no check
//! in discovery           route          do not route       route
//! gone from discovery    route          forget it          forget it
//! ```
//! Discovery is eventually consistent and may itself be what is broken, so an instance that it forgot and that still
//! answers its checks keeps working. Only one cell of those with checks removes an instance. While a check has not
//! answered yet, an instance in discovery is not routed to: "not known to be bad" is how a start-up storm begins.

use crate::settings;

/// What the balancer may do with an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    #[default]
    Healthy,
    /// Fails its checks, or has not passed one yet. Used only in panic.
    Unhealthy,
    /// Asked to be left alone (shutting down). Finishes what it has and gets nothing new.
    Draining,
    /// Forget it: drop it from the slice.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    NotConfigured,
    Pending,
    Passing,
    Failing,
}

/// The truth table.
pub const fn decide(in_discovery: bool, check: Check) -> Health {
    match (in_discovery, check) {
        (_, Check::Passing) | (true, Check::NotConfigured) => Health::Healthy,
        (true, Check::Failing | Check::Pending) => Health::Unhealthy,
        (false, Check::Failing | Check::NotConfigured | Check::Pending) => Health::Gone,
    }
}

/// Turns single check results into a standing with hysteresis.
///
/// The first success makes an instance healthy at once, because nothing speaks against it and waiting delays every
/// start. After that `rise` successes or `fall` failures in a row are needed. An answer that says "I am not well" is
/// definite and counts at once; silence is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checker {
    check: Check,
    streak: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Pass,
    /// No answer, no connection, too late.
    Silent,
    /// Answered, and the answer was bad.
    Bad,
}

impl Default for Checker {
    fn default() -> Self {
        Self { check: Check::Pending, streak: 0 }
    }
}

impl Checker {
    pub fn check(&self) -> Check {
        self.check
    }

    /// The new standing, if this answer changed it.
    pub fn on_answer(&mut self, settings: &settings::HealthCheck, answer: Answer) -> Option<Check> {
        let target = if answer == Answer::Pass { Check::Passing } else { Check::Failing };
        if self.check == target {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let needed = match (self.check, answer) {
            (Check::Pending, Answer::Pass) | (_, Answer::Bad) => 1,
            (_, Answer::Pass) => settings.rise,
            (_, Answer::Silent) => settings.fall,
        };
        if self.streak < needed {
            return None;
        }
        *self = Self { check: target, streak: 0 };
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_table() {
        use Check::*;
        use Health::{Gone, Healthy, Unhealthy};
        for (check, known, forgotten) in [
            (Passing, Healthy, Healthy),
            (Failing, Unhealthy, Gone),
            (NotConfigured, Healthy, Gone),
            (Pending, Unhealthy, Gone),
        ] {
            assert_eq!((decide(true, check), decide(false, check)), (known, forgotten), "{check:?}");
        }
    }

    #[track_caller]
    fn check(answers: &str, standings: &str) {
        let settings = settings::HealthCheck { rise: 2, fall: 3 };
        let mut checker = Checker::default();
        let seen: String = answers
            .chars()
            .map(|it| {
                let answer = [Answer::Pass, Answer::Silent, Answer::Bad]["+-!".find(it).unwrap()];
                checker.on_answer(&settings, answer);
                match checker.check() {
                    Check::Passing => 'P',
                    Check::Failing => 'F',
                    _ => '?',
                }
            })
            .collect();
        assert_eq!(seen, standings, "{answers}");
    }

    #[test]
    fn checks_have_hysteresis() {
        check("+", "P");
        check("--+", "??P");
        check("---++", "??FFP");
        check("+--+---", "PPPPPPF");
        check("+!+-++", "PFFFFP");
        check("!", "F");
    }
}
