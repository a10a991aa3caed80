//! When what happens: a scenario as a state machine over time.
//!
//! In: the moment, renewals of the lease, a wish to stop, what was measured. Out: which act begins, which is undone, and
//! how it ended. It has no clock and touches nothing, so a test plays an hour in a microsecond. Whatever ends it, every
//! act in force is undone first, the newest before the oldest.
//!
//! **A scenario is a lease.** Whoever started it must renew it; when the lease runs out, it ends by itself.
//! **A guard** is a factor on what the expectations allow: beyond it nothing more is learnt, and the scenario ends.

use units::Nanos;

/// What a scenario does and asks, in its own time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Script {
    pub(crate) acts: Vec<Act>,
    /// Before the first moment of its own time.
    pub(crate) warm_up: Nanos,
    pub(crate) lasts: Nanos,
    /// `None`: nobody renews it, and it ends when it is over.
    pub(crate) lease: Option<Nanos>,
    pub(crate) guard: Option<f64>,
    pub(crate) expected: Vec<Expected>,
}

/// One thing done at one moment, and for a while.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Act {
    pub(crate) at: Nanos,
    pub(crate) lasting: Option<Nanos>,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) text: String,
    pub(crate) at_least: bool,
    pub(crate) limit: f64,
    /// A share that should be whole (availability): its guard is a factor on what is missing.
    pub(crate) is_availability: bool,
}

/// What was measured of one expectation. `None`: too little to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Over the last seconds.
    pub(crate) lately: Option<f64>,
    /// Since it began.
    pub(crate) whole: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It came to its end.
    Over,
    Stopped(String),
    LeaseExpired,
    Breached(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Do(usize),
    Undo(usize),
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ahead,
    InForce,
    Past,
}

/// How often expectations are judged.
const JUDGED_EVERY: Nanos = Nanos::from_secs(1);

#[derive(Debug)]
pub(crate) struct Play {
    script: Script,
    began: Nanos,
    renewed: Nanos,
    judged: Nanos,
    stages: Vec<Stage>,
    /// Acts in force, the oldest first.
    in_force: Vec<usize>,
    end: Option<End>,
}

impl Play {
    pub(crate) fn new(script: Script, now: Nanos) -> Self {
        let stages = vec![Stage::Ahead; script.acts.len()];
        Self { script, began: now, renewed: now, judged: now, stages, in_force: Vec::new(), end: None }
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// Its own time begins here.
    pub(crate) fn zero(&self) -> Nanos {
        self.began + self.script.warm_up
    }

    pub(crate) fn ends_at(&self) -> Nanos {
        self.zero() + self.script.lasts
    }

    pub(crate) fn in_force(&self) -> &[usize] {
        &self.in_force
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// False when it is too late.
    pub(crate) fn renew(&mut self, now: Nanos) -> bool {
        self.renewed = now;
        self.end.is_none()
    }

    /// Ends it, whatever it was about to do.
    pub(crate) fn stop(&mut self, end: End) -> Vec<Step> {
        if self.end.is_some() {
            return Vec::new();
        }
        let mut steps = Vec::new();
        while let Some(act) = self.in_force.pop() {
            self.stages[act] = Stage::Past;
            steps.push(Step::Undo(act));
        }
        self.end = Some(end.clone());
        steps.push(Step::End(end));
        steps
    }

    /// Lets time pass. `seen` is asked once a second, in the order of the expectations.
    pub(crate) fn advance(&mut self, now: Nanos, seen: impl FnOnce() -> Vec<Seen>) -> Vec<Step> {
        if self.end.is_some() {
            return Vec::new();
        }
        // A lease that ran out ends it before anything else begins: nobody is there who would see it.
        if self.lease_ends().is_some_and(|it| it <= now) {
            return self.stop(End::LeaseExpired);
        }
        if self.ends_at() <= now {
            return self.stop(End::Over);
        }
        let mut steps = Vec::new();
        for act in 0..self.script.acts.len() {
            if self.stages[act] == Stage::InForce && self.undone_at(act).is_some_and(|it| it <= now) {
                self.stages[act] = Stage::Past;
                self.in_force.retain(|it| *it != act);
                steps.push(Step::Undo(act));
            }
        }
        for act in 0..self.script.acts.len() {
            if self.stages[act] == Stage::Ahead && self.done_at(act) <= now {
                self.stages[act] = Stage::InForce;
                self.in_force.push(act);
                steps.push(Step::Do(act));
            }
        }
        if self.judged + JUDGED_EVERY <= now {
            self.judged = now;
            if let Some(breach) = self.breach(&seen()) {
                steps.extend(self.stop(End::Breached(breach)));
            }
        }
        steps
    }

    fn breach(&self, seen: &[Seen]) -> Option<String> {
        let factor = self.script.guard?;
        self.script.expected.iter().zip(seen).find_map(|(expected, seen)| {
            let (beyond, lately) = (expected.beyond(factor), seen.lately?);
            let is_beyond = if expected.at_least { lately < beyond } else { lately > beyond };
            is_beyond.then(|| expected.text.clone())
        })
    }

    fn done_at(&self, act: usize) -> Nanos {
        self.zero() + self.script.acts[act].at
    }

    fn undone_at(&self, act: usize) -> Option<Nanos> {
        Some(self.done_at(act) + self.script.acts[act].lasting?)
    }

    fn lease_ends(&self) -> Option<Nanos> {
        Some(self.renewed + self.script.lease?)
    }

    /// When time alone will change something.
    pub(crate) fn next_wake(&self) -> Option<Nanos> {
        if self.end.is_some() {
            return None;
        }
        let acts = (0..self.script.acts.len()).filter_map(|act| match self.stages[act] {
            Stage::Ahead => Some(self.done_at(act)),
            Stage::InForce => self.undone_at(act),
            Stage::Past => None,
        });
        let others = [self.lease_ends(), Some(self.ends_at()), Some(self.judged + JUDGED_EVERY)];
        acts.chain(others.into_iter().flatten()).min()
    }
}

impl Expected {
    pub(crate) fn holds(&self, value: f64) -> bool {
        if self.at_least { value >= self.limit } else { value <= self.limit }
    }

    /// Where the guard stands: `factor` times as many failures, as long a wait, as small a rate as is allowed.
    pub(crate) fn beyond(&self, factor: f64) -> f64 {
        match (self.is_availability, self.at_least) {
            (true, true) => (1.0 - (1.0 - self.limit) * factor).max(0.0),
            (false, true) => self.limit / factor,
            (_, false) => self.limit * factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Nanos = Nanos::from_millis;

    fn script(acts: &[(u64, u64)]) -> Script {
        let act =
            |(at, lasting): &(u64, u64)| Act { at: MS(*at), lasting: (*lasting > 0).then(|| MS(*lasting)) };
        Script {
            acts: acts.iter().map(act).collect(),
            warm_up: Nanos::ZERO,
            lasts: MS(10_000),
            lease: None,
            guard: None,
            expected: Vec::new(),
        }
    }

    fn available() -> Expected {
        Expected { text: "web up".to_owned(), at_least: true, limit: 0.99, is_availability: true }
    }

    /// Plays a line of words: a moment in milliseconds, `renew`, `stop`, or `seen=0.5` for what is measured from then on.
    /// What happened: `+0` is done, `-0` undone.
    #[track_caller]
    fn check(script: Script, words: &str, expected: &str) {
        let mut play = Play::new(script, Nanos::ZERO);
        let (mut now, mut seen, mut said) = (Nanos::ZERO, None, Vec::new());
        for word in words.split_whitespace() {
            let steps = match (word, word.strip_prefix("seen=")) {
                ("renew", _) => {
                    said.extend((!play.renew(now)).then(|| "too late".to_owned()));
                    Vec::new()
                }
                ("stop", _) => play.stop(End::Stopped("ann".to_owned())),
                (_, Some(value)) => {
                    seen = value.parse().ok();
                    Vec::new()
                }
                _ => {
                    now = MS(word.parse().expect("a moment"));
                    play.advance(now, || vec![Seen { lately: seen, whole: seen }])
                }
            };
            said.extend(steps.iter().map(|it| match it {
                Step::Do(act) => format!("+{act}"),
                Step::Undo(act) => format!("-{act}"),
                Step::End(end) => format!("{end:?}"),
            }));
            if play.end().is_some() {
                assert_eq!((play.in_force(), play.next_wake()), (&[][..], None), "an end leaves nothing");
            }
        }
        assert_eq!(said.join(" "), expected);
    }

    #[test]
    fn acts_come_and_go_at_their_time_and_all_are_undone_at_the_end() {
        check(
            script(&[(2_000, 0), (3_000, 1_000)]),
            "1999 2000 3000 3999 4000 9999 10000 11000",
            "+0 +1 -1 -0 Over",
        );
        check(script(&[(0, 0), (0, 0)]), "0 5000 stop stop 10000", r#"+0 +1 -1 -0 Stopped("ann")"#);
        check(script(&[(1_000, 500)]), "5000 6000 10000", "+0 -0 Over");
        check(Script { warm_up: MS(500), ..script(&[(0, 0)]) }, "499 500 10499 10500", "+0 -0 Over");
    }

    #[test]
    fn a_lease_that_nobody_renews_runs_out() {
        let leased = || Script { lease: Some(MS(3_000)), ..script(&[(1_000, 0), (3_000, 0)]) };
        check(leased(), "1000 2999 3000 4000", "+0 -0 LeaseExpired");
        check(leased(), "1000 2000 renew 4999 5000 renew", "+0 +1 -1 -0 LeaseExpired too late");
        check(leased(), "2999 renew 5998 renew 8997 renew 10000", "+0 +1 -1 -0 Over");
    }

    #[test]
    fn a_guard_ends_it_beyond_its_factor_and_not_before() {
        let guarded = |guard| Script { guard, expected: vec![available()], ..script(&[(1_000, 0)]) };
        // One in a hundred may fail; ten times that is the guard.
        check(
            guarded(Some(10.0)),
            "1000 seen=0.91 2000 3000 seen=0.89 3500 4000 5000",
            r#"+0 -0 Breached("web up")"#,
        );
        check(guarded(None), "1000 seen=0 2000 10000", "+0 -0 Over");
        check(guarded(Some(10.0)), "1000 2000 10000", "+0 -0 Over");
    }

    #[test]
    fn a_guard_stands_beyond_the_limit_on_the_bad_side() {
        #[track_caller]
        fn check(at_least: bool, limit: f64, is_availability: bool, expected: f64) {
            let it = Expected { text: String::new(), at_least, limit, is_availability };
            assert!((it.beyond(10.0) - expected).abs() < 1e-9, "{}", it.beyond(10.0));
            assert!(it.holds(limit));
        }
        check(true, 0.999, true, 0.99);
        check(true, 0.5, true, 0.0);
        check(false, 0.250, false, 2.5);
        check(true, 200.0, false, 20.0);
        check(false, 0.01, false, 0.1);
    }

    #[test]
    fn it_wakes_for_what_comes_next() {
        let mut play = Play::new(Script { lease: Some(MS(700)), ..script(&[(500, 100)]) }, MS(0));
        assert_eq!(play.next_wake(), Some(MS(500)));
        play.advance(MS(500), Vec::new);
        assert_eq!(play.next_wake(), Some(MS(600)));
        play.renew(MS(550));
        play.advance(MS(600), Vec::new);
        assert_eq!(play.next_wake(), Some(MS(1_000)), "to judge");
    }
}
