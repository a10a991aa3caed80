//! Error budgets, and alerts that fire when a budget burns too fast.
//!
//! Burn is the observed share of bad events over the share that is allowed. An alert fires when burn over a long window
//! *and* over a short one (a twelfth of it) both reach F = share x period / long: the long window says it matters, the
//! short one that it is still happening. F follows from the period; tables found elsewhere get it wrong for 28 days.
//!
//! Evaluated every second on counts, so a total outage of a 99.9 % service pages in under a minute. Windows scale, so
//! that a month can burn in five minutes of demonstration. An alert names traces that show its cause.
//!
//! ```
//! use telemetry::slo::RULES;
//! use units::Nanos;
//! let month = Nanos::from_secs(30 * 86_400);
//! assert!((RULES[0].factor(month) - 14.4).abs() < 1e-9);
//! ```

use crate::ids::TraceId;
use std::collections::VecDeque;
use units::Nanos;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Page,
    Ticket,
}

/// One pair of windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    pub name: &'static str,
    pub severity: Severity,
    pub long: Nanos,
    pub short: Nanos,
    /// The share of the period's budget that may burn within `long` before it is an alert.
    pub share: f64,
}

impl Rule {
    pub fn factor(&self, period: Nanos) -> f64 {
        self.share * period.as_secs_f64() / self.long.as_secs_f64()
    }
}

const HOUR: u64 = 3_600;

/// The four that everyone uses.
pub const RULES: [Rule; 4] = [
    Rule {
        name: "page, quick",
        severity: Severity::Page,
        long: Nanos::from_secs(HOUR),
        short: Nanos::from_secs(300),
        share: 0.02,
    },
    Rule {
        name: "page, slow",
        severity: Severity::Page,
        long: Nanos::from_secs(6 * HOUR),
        short: Nanos::from_secs(1_800),
        share: 0.05,
    },
    Rule {
        name: "ticket, quick",
        severity: Severity::Ticket,
        long: Nanos::from_secs(24 * HOUR),
        short: Nanos::from_secs(2 * HOUR),
        share: 0.10,
    },
    Rule {
        name: "ticket, slow",
        severity: Severity::Ticket,
        long: Nanos::from_secs(72 * HOUR),
        short: Nanos::from_secs(6 * HOUR),
        share: 0.10,
    },
];

#[derive(Clone, Debug, PartialEq)]
pub struct SloSettings {
    pub name: Box<str>,
    pub service: Box<str>,
    /// Share of events that must be good, below 1: `0.999`.
    pub target: f64,
    pub period: Nanos,
    /// One second of clock is this many of period and windows: 1 in earnest, 8,640 to burn 30 days in five minutes.
    pub time_scale: f64,
    /// Fewer events than this in the long window prove nothing.
    pub events_min: u64,
}

/// Good and bad events of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    pub total: u64,
    pub bad: u64,
}

impl Events {
    fn add(&mut self, more: Self) {
        self.total += more.total;
        self.bad += more.bad;
    }

    fn remove(&mut self, less: Self) {
        self.total -= less.total;
        self.bad -= less.bad;
    }

    fn bad_share(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.bad as f64 / self.total as f64 }
    }
}

/// A sliding sum over a fixed span, in at most [`Window::SLOTS`] slots.
#[derive(Clone, Debug)]
struct Window {
    slot: Nanos,
    slots: u64,
    held: VecDeque<(u64, Events)>,
    sum: Events,
    span: Nanos,
    /// The first moment that was ever watched, and the last.
    watched: Option<(Nanos, Nanos)>,
}

impl Window {
    /// A window's edge is sharp to 1/720 of its length: five seconds in an hour.
    const SLOTS: u64 = 720;

    fn new(span: Nanos) -> Self {
        let slot = Nanos((span.0 / Self::SLOTS).max(1));
        Self {
            slot,
            slots: span.0.div_ceil(slot.0).max(1),
            held: VecDeque::new(),
            sum: Events::default(),
            span,
            watched: None,
        }
    }

    fn add(&mut self, now: Nanos, events: Events) {
        let turn = now.0 / self.slot.0;
        // A clock that steps back has not watched less.
        let (first, last) = self.watched.unwrap_or((now, now));
        self.watched = Some((first, last.max(now)));
        while let Some((oldest, gone)) =
            self.held.front().copied().filter(|(held, _)| held + self.slots <= turn)
        {
            debug_assert!(oldest <= turn);
            self.sum.remove(gone);
            self.held.pop_front();
        }
        match self.held.back_mut() {
            // A clock that steps back adds to the newest slot: nothing is lost and order is kept.
            Some((held, sum)) if *held >= turn => sum.add(events),
            _ => self.held.push_back((turn, events)),
        }
        self.sum.add(events);
    }

    /// How much of the window was watched. What was not counts as good, or the first failed request after a start
    /// would page.
    fn filled(&self) -> f64 {
        let Some((first, last)) = self.watched else { return 0.0 };
        (last.saturating_sub(first).as_secs_f64() / self.span.as_secs_f64()).min(1.0)
    }
}

/// How a rule stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleView {
    pub rule: Rule,
    pub factor: f64,
    pub long_burn: f64,
    pub short_burn: f64,
    pub firing: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SloView {
    pub name: Box<str>,
    pub service: Box<str>,
    pub target: f64,
    /// Share of the period's budget left; negative when overspent.
    pub budget_left: f64,
    pub events: Events,
    pub rules: [RuleView; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Fired,
    Cleared,
}

/// Something for a pager, a webhook and a log line.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub slo: Box<str>,
    pub service: Box<str>,
    pub rule: &'static str,
    pub severity: Severity,
    pub change: Change,
    pub at: Nanos,
    pub long_burn: f64,
    pub short_burn: f64,
    pub factor: f64,
    /// How long the whole budget lasts at this burn, on the SLO's own clock.
    pub budget_lasts: Nanos,
    pub traces: Vec<TraceId>,
}

impl Alert {
    /// One line a person can act on.
    pub fn line(&self) -> String {
        let severity = if self.severity == Severity::Page { "page" } else { "ticket" };
        let traces: Vec<String> = self.traces.iter().map(ToString::to_string).collect();
        let cause = if traces.is_empty() { String::new() } else { format!("; traces {}", traces.join(" ")) };
        match self.change {
            Change::Fired => format!(
                "{severity}: {} burns its budget {:.1} times too fast ({} fires at {:.1}); at this rate it lasts {}{cause}",
                self.slo,
                self.long_burn,
                self.rule,
                self.factor,
                rounded(self.budget_lasts)
            ),
            Change::Cleared => format!("cleared: {} ({})", self.slo, self.rule),
        }
    }
}

/// Durations in alerts are for reading: two digits are plenty.
fn rounded(time: Nanos) -> Nanos {
    let seconds = time.as_secs_f64();
    let step = if seconds < 120.0 {
        1.0
    } else if seconds < 7_200.0 {
        60.0
    } else {
        3_600.0
    };
    Nanos::from_secs_f64((seconds / step).round() * step)
}

/// One objective: its budget and its four rules.
#[derive(Debug)]
pub struct Slo {
    settings: SloSettings,
    windows: [(Window, Window); 4],
    period: Window,
    firing: [bool; 4],
}

impl Slo {
    pub fn new(settings: SloSettings) -> Self {
        let windows = RULES.map(|rule| (Window::new(rule.long), Window::new(rule.short)));
        Self { windows, period: Window::new(settings.period), firing: [false; 4], settings }
    }

    pub fn settings(&self) -> &SloSettings {
        &self.settings
    }

    /// The SLO's own time: the clock's, scaled.
    fn scaled(&self, now: Nanos) -> Nanos {
        if self.settings.time_scale == 1.0 { now } else { now.mul_f64(self.settings.time_scale) }
    }

    fn allowed(&self) -> f64 {
        // A target of 1 has no budget; any bad event then burns it without bound.
        (1.0 - self.settings.target).max(1e-12)
    }

    /// Adds what happened since the last call (every second) and says which alerts changed. `traces` is asked for
    /// traces that show the cause, only when one fires.
    pub fn tick(&mut self, now: Nanos, events: Events, traces: impl Fn() -> Vec<TraceId>) -> Vec<Alert> {
        let clock = self.scaled(now);
        self.period.add(clock, events);
        for (long, short) in &mut self.windows {
            long.add(clock, events);
            short.add(clock, events);
        }
        let mut alerts = Vec::new();
        for (at, view) in self.rules().into_iter().enumerate() {
            if view.firing == self.firing[at] {
                continue;
            }
            self.firing[at] = view.firing;
            let period = self.settings.period.as_secs_f64();
            alerts.push(Alert {
                slo: self.settings.name.clone(),
                service: self.settings.service.clone(),
                rule: view.rule.name,
                severity: view.rule.severity,
                change: if view.firing { Change::Fired } else { Change::Cleared },
                at: now,
                long_burn: view.long_burn,
                short_burn: view.short_burn,
                factor: view.factor,
                budget_lasts: Nanos::from_secs_f64(period / view.long_burn.max(1e-9)),
                traces: if view.firing { traces() } else { Vec::new() },
            });
        }
        alerts
    }

    fn rules(&self) -> [RuleView; 4] {
        let allowed = self.allowed();
        std::array::from_fn(|at| {
            let (rule, (long, short)) = (RULES[at], &self.windows[at]);
            let factor = rule.factor(self.settings.period);
            let burn = |window: &Window| window.sum.bad_share() / allowed * window.filled();
            let (long_burn, short_burn) = (burn(long), burn(short));
            let enough = long.sum.total >= self.settings.events_min;
            let firing = enough && long_burn >= factor && short_burn >= factor;
            RuleView { rule, factor, long_burn, short_burn, firing }
        })
    }

    pub fn view(&self) -> SloView {
        let spent = self.period.sum.bad_share() / self.allowed() * self.period.filled();
        SloView {
            name: self.settings.name.clone(),
            service: self.settings.service.clone(),
            target: self.settings.target,
            budget_left: 1.0 - spent,
            events: self.period.sum,
            rules: self.rules(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn slo(target: f64, scale: f64, events_min: u64) -> Slo {
        Slo::new(SloSettings {
            name: "web availability".into(),
            service: "web".into(),
            target,
            period: Nanos::from_secs(30 * DAY),
            time_scale: scale,
            events_min,
        })
    }

    #[test]
    fn factors_follow_the_formula_for_both_periods() {
        let check = |days: u64, expected: [f64; 4]| {
            for (rule, expected) in RULES.iter().zip(expected) {
                let factor = rule.factor(Nanos::from_secs(days * DAY));
                assert!((factor - expected).abs() < 0.001, "{} over {days} d: {factor}", rule.name);
            }
        };
        check(30, [14.4, 6.0, 3.0, 1.0]);
        check(28, [13.44, 5.6, 2.8, 0.9333]);
        assert!(RULES.iter().all(|rule| rule.short == rule.long / 12));
    }

    /// Plays (seconds, bad share of 1,000 events a second) and says when each rule changed.
    fn play(slo: &mut Slo, script: &[(u64, f64)]) -> Vec<String> {
        let (mut now, mut changes) = (0, Vec::new());
        let trace = TraceId::new(0xfeed).unwrap();
        for (seconds, bad) in script {
            for _ in 0..*seconds {
                now += 1;
                let events = Events { total: 1_000, bad: (bad * 1_000.0).round() as u64 };
                for alert in slo.tick(Nanos::from_secs(now), events, || vec![trace]) {
                    let sign = if alert.change == Change::Fired { '+' } else { '-' };
                    assert_eq!(alert.traces.len(), usize::from(alert.change == Change::Fired));
                    changes.push(format!("{sign}{}@{now}", alert.rule));
                }
            }
        }
        changes
    }

    #[test]
    fn a_total_outage_after_a_clean_hour_pages_in_fifty_two_seconds() {
        // 0.0144 x 3,600 s = 51.8 s; slots of five seconds and the sliding edge add a little.
        let changes = play(&mut slo(0.999, 1.0, 100), &[(3_600, 0.0), (60, 1.0)]);
        let (rule, at) = changes[0].split_once('@').unwrap();
        assert_eq!(rule, "+page, quick");
        let after: u64 = at.parse::<u64>().unwrap() - 3_600;
        assert!((50..=55).contains(&after), "{changes:?}");
    }

    #[test]
    fn an_alert_ends_with_its_cause_because_of_the_short_window() {
        let changes = play(&mut slo(0.999, 1.0, 100), &[(3_600, 0.0), (300, 0.5), (600, 0.0)]);
        assert!(changes.iter().any(|it| it.starts_with("+page, quick")));
        let cleared = changes.iter().find(|it| it.starts_with("-page, quick")).expect("it cleared");
        let at: u64 = cleared.split_once('@').unwrap().1.parse().unwrap();
        assert!((3_900..=4_210).contains(&at), "five minutes after the cause: {changes:?}");
    }

    #[test]
    fn a_slow_burn_is_a_ticket_and_not_a_page() {
        // 0.4 % bad at 99.9 %: burn 4. Scaled, so that three days take 1,800 seconds.
        let changes = play(&mut slo(0.999, 144.0, 100), &[(1_800, 0.0), (1_800, 0.004)]);
        assert!(changes.iter().all(|it| it.contains("ticket")), "{changes:?}");
        assert_eq!(changes.len(), 2, "{changes:?}");
    }

    #[test]
    fn few_events_prove_nothing() {
        let mut quiet = slo(0.999, 1.0, 100);
        for second in 0..200 {
            let events = Events { total: u64::from(second % 10 == 0), bad: u64::from(second % 10 == 0) };
            assert_eq!(quiet.tick(Nanos::from_secs(second), events, Vec::new), []);
        }
    }

    #[test]
    fn a_scaled_month_burns_in_five_minutes_and_the_budget_shows_it() {
        let mut slo = slo(0.99, 8_640.0, 10);
        play(&mut slo, &[(150, 0.01)]);
        let half = slo.view().budget_left;
        assert!((half - 0.5).abs() < 0.01, "{half}");
        play(&mut slo, &[(1, 1.0)]);
        assert!(slo.view().budget_left < half);
    }

    #[test]
    fn memory_does_not_grow_with_time() {
        let mut slo = slo(0.999, 8_640.0, 1);
        play(&mut slo, &[(5_000, 0.0)]);
        let held = |window: &Window| window.held.len();
        assert!(slo.windows.iter().all(|(long, short)| held(long) <= 721 && held(short) <= 721));
    }

    #[test]
    fn an_alert_reads_as_a_sentence() {
        let mut slo = slo(0.999, 1.0, 100);
        play(&mut slo, &[(3_600, 0.0)]);
        let trace = TraceId::new(0xfeed).unwrap();
        let fired = (3_601..3_700).find_map(|second| {
            slo.tick(Nanos::from_secs(second), Events { total: 1_000, bad: 1_000 }, || vec![trace]).pop()
        });
        let line = fired.unwrap().line();
        assert!(
            line.starts_with("page: web availability burns its budget 1")
                && line.contains("traces 0000000000000000000000000000feed"),
            "{line}"
        );
    }
}
