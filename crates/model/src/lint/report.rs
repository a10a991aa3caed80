//! Collects what the rules find, leaves out what somebody accepted, and tells findings with one cause together.

use super::Rule;
use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use crate::system::{Caller, GatewayId, ServiceId, System, TeamId, WaiverScope};
use indexmap::IndexMap;

/// What a finding is about, so that a waiver can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Service(ServiceId),
    Edge(Caller, ServiceId),
    Team(TeamId),
    Gateway(GatewayId),
    /// The system as a whole: only a waiver without `on` covers it.
    System,
}

#[derive(Debug)]
pub(crate) struct Report<'s> {
    system: &'s System,
    pub(crate) today: (u16, u8, u8),
    rule: Option<&'static Rule>,
    /// Waivers in force of the rule at work.
    waivers: Vec<usize>,
    /// By waiver: it has waived something (or would have, had it not expired).
    matched: Vec<bool>,
    found: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(system: &'s System, today: (u16, u8, u8)) -> Self {
        let matched = vec![false; system.waivers.len()];
        Self { system, today, rule: None, waivers: Vec::new(), matched, found: Vec::new() }
    }

    pub(crate) fn begin(&mut self, rule: &'static Rule) {
        self.rule = Some(rule);
        let of_rule = |at: &usize| self.system.waivers[*at].code.value == rule.code;
        self.waivers = (0..self.system.waivers.len()).filter(of_rule).collect();
    }

    pub(crate) fn expired(&self, waiver: usize) -> bool {
        self.system.waivers[waiver].until.value < self.today
    }

    pub(crate) fn matched(&self, waiver: usize) -> bool {
        self.matched[waiver]
    }

    /// Whether somebody accepted this risk. Asked of every finding, so it also learns which waivers have a use.
    pub(crate) fn accepts(&mut self, subject: Subject) -> bool {
        let mut accepted = false;
        for at in &self.waivers {
            let waiver = &self.system.waivers[*at];
            let covers = waiver.on.as_ref().is_none_or(|on| covers(self.system, &on.value, subject));
            if covers {
                self.matched[*at] = true;
                accepted |= waiver.until.value >= self.today;
            }
        }
        accepted
    }

    /// A finding of the rule at work, at the rule's severity.
    pub(crate) fn push(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let rule = self.rule.expect("rules push between begin and finish");
        self.found
            .push(Diagnostic { severity: rule.severity, ..Diagnostic::error(rule.code, span, message) });
        self.found.last_mut().expect("just pushed")
    }

    /// In file order, then by code; one place and code is told once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        self.found.dedup_by(|a, b| (a.span, a.code, &a.message) == (b.span, b.code, &b.message));
        self.found
    }
}

/// `&mut` builders, so that a rule can add to what it has pushed.
pub(crate) trait Tell {
    fn say(&mut self, label: impl Into<String>) -> &mut Self;
    fn fix(&mut self, help: impl Into<String>) -> &mut Self;
    fn see(&mut self, span: Option<Span>, words: impl Into<String>) -> &mut Self;
    fn grade(&mut self, severity: Severity) -> &mut Self;
}

impl Tell for Diagnostic {
    fn say(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    fn fix(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    fn see(&mut self, span: Option<Span>, words: impl Into<String>) -> &mut Self {
        if let Some(span) = span
            && span != self.span
        {
            self.related.push((span, words.into()));
        }
        self
    }

    fn grade(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }
}

fn covers(system: &System, on: &WaiverScope, subject: Subject) -> bool {
    match (on, subject) {
        (WaiverScope::Service(on), Subject::Service(it) | Subject::Edge(Caller::Service(it), _)) => *on == it,
        (WaiverScope::Edge(from, to), Subject::Edge(caller, callee)) => *from == caller && *to == callee,
        (WaiverScope::Team(on), Subject::Team(it)) => *on == it,
        (WaiverScope::Team(on), Subject::Service(it) | Subject::Edge(Caller::Service(it), _)) => {
            system.services[it].team.as_ref().is_some_and(|team| team.value == *on)
        }
        (WaiverScope::Team(on), Subject::Gateway(it) | Subject::Edge(Caller::Gateway(it), _)) => {
            system.gateways[it].team.as_ref().is_some_and(|team| team.value == *on)
        }
        (WaiverScope::Gateway(on), Subject::Gateway(it) | Subject::Edge(Caller::Gateway(it), _)) => *on == it,
        _ => false,
    }
}

/// Things that share one cause, in the order the causes were met.
#[derive(Debug)]
pub(crate) struct Groups<K, T>(IndexMap<K, Vec<T>>);

impl<K: std::hash::Hash + Eq, T> Groups<K, T> {
    pub(crate) fn new() -> Self {
        Self(IndexMap::new())
    }

    pub(crate) fn add(&mut self, key: K, item: T) {
        self.0.entry(key).or_default().push(item);
    }
}

impl<K: std::hash::Hash + Eq, T> IntoIterator for Groups<K, T> {
    type Item = (K, Vec<T>);
    type IntoIter = indexmap::map::IntoIter<K, Vec<T>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
