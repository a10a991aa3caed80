//! `scenarios`: what may happen (`stop 2 of web`) and what must hold then (`web availability >= 99.9%`).
//!
//! Both are one-line languages of a few words. A line that fits no form is answered with the forms of its first word.

use super::Resolver;
use super::fields::{Fields, shorten};
use super::grammar::{who_quoted_rest, words};
use super::suggest::did_you_mean;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{
    Caller, Event, Expectation, Fault, Limit, Measure, Scenario, Selection, ServiceId, Which,
};
use crate::text::{Entry, Node};
use std::collections::HashMap;
use units::{Nanos, Percent, Rate};

/// Each action's word and its forms, for messages.
const ACTIONS: [(&str, &str); 14] = [
    ("stop", "`stop web`, `stop 2 of web`, `stop 50% of web`, `stop web#3`, `stop web in eu-west/a`"),
    ("pause", "`pause web`, `pause 2 of web`, `pause web in eu-west/a`"),
    ("slow", "`slow web by 200ms`, `slow 1 of web x3`"),
    ("error", "`error web 5%`"),
    ("lose", "`lose eu-west/b`, `lose eu-west`"),
    ("partition", "`partition eu-west <-> us-east`, `partition eu-west/a -> eu-west/b`"),
    ("delay", "`delay eu-west <-> us-east by 50ms`"),
    ("loss", "`loss eu-west -> us-east 1%`"),
    ("fail", "`fail dns`"),
    ("flush", "`flush sessions`"),
    ("load", "`load x2`, `load shoppers x0.5`, `load shoppers to 400/s`"),
    ("release", "`release cart v1.3.0 at 10%`"),
    ("remove", "`remove ads`"),
    ("scale", "`scale web to 5`"),
];

/// More instances than this cannot be meant.
const SCALE_MAX: u32 = 100_000;

impl<'n> Resolver<'n, '_> {
    pub(super) fn scenarios(&mut self, entries: &[&'n Entry]) {
        let mut first: HashMap<&str, Span> = HashMap::new();
        for entry in entries {
            self.check_name(&entry.key, entry.key_span, "scenario");
            if let Some(span) = first.insert(&entry.key, entry.key_span) {
                self.defined_twice("scenario", entry, span);
                continue;
            }
            if let Some(scenario) = self.scenario(entry) {
                self.system.scenarios.push(scenario);
            }
        }
    }

    fn scenario(&mut self, entry: &'n Entry) -> Option<Scenario> {
        let mut f = self.fields(&entry.value, "a scenario")?;
        f.span = entry.key_span;
        let description = f.get("description").and_then(|it| self.owned(it, "a description"));
        let mut events = Vec::new();
        let steps = f.get("steps");
        if let Some(entry) = f.only_one(self, &["steps", "do"])
            && &*entry.key == "do"
        {
            self.happens(&mut f, &mut events);
        }
        if let Some(steps) = steps {
            for item in self.list(steps, "steps") {
                let Some(mut step) = self.fields(item, "a step") else { continue };
                self.happens(&mut step, &mut events);
                step.finish(self);
            }
            for key in ["at", "for"] {
                if let Some(entry) = f.entry(key) {
                    self.report(
                        Diagnostic::error(
                            "E0211",
                            entry.key_span,
                            format!("`{key}` belongs to each of the `steps`"),
                        )
                        .label("beside `steps`"),
                    );
                }
            }
        }
        let mut expect = Vec::new();
        if let Some(node) = f.get("expect") {
            for item in self.one_or_more(node) {
                if let Some(expectation) = self.expectation(item) {
                    expect.push(expectation);
                }
            }
        }
        let lasts = f.get("lasts").and_then(|it| self.positive::<Nanos>(it, "`lasts`"));
        f.finish(self);
        if let Some(lasts) = lasts
            && let Some(late) = events.iter().find(|it: &&Event| it.at >= lasts.value)
        {
            let message = format!("this happens at {}, after the scenario's end at {}", late.at, lasts.value);
            self.report(
                Diagnostic::error("E0209", late.fault.span, message)
                    .label("never reached")
                    .related(lasts.span, "the scenario ends here"),
            );
        }
        Some(Scenario {
            name: At::new(entry.key.to_string(), entry.key_span),
            description: description.map(|it| it.value),
            events,
            expect,
            lasts: lasts.map(|it| it.value),
            span: entry.span(),
        })
    }

    /// `at`, `for` and `do` of one step.
    fn happens(&mut self, f: &mut Fields<'n>, events: &mut Vec<Event>) {
        let at = f.get("at").and_then(|it| self.quantity::<Nanos>(it)).map_or(Nanos::ZERO, |it| it.value);
        let lasting = f.get("for").and_then(|it| self.positive::<Nanos>(it, "`for`")).map(|it| it.value);
        let Some(node) = f.require(self, "do", "[stop ads]") else { return };
        for item in self.one_or_more(node) {
            let Some(text) = self.text(item, "an action") else { continue };
            if let Some(fault) = self.action(text.value, text.span) {
                events.push(Event { at, lasting, fault: At::new(fault, text.span) });
            }
        }
    }

    fn action(&mut self, text: &str, span: Span) -> Option<Fault> {
        let parts = words(text);
        let rest = &parts[1.min(parts.len())..];
        match (*parts.first()?, rest) {
            ("stop", selection) if !selection.is_empty() => {
                Some(Fault::Stop(self.selection(selection, text, span)?))
            }
            ("pause", selection) if !selection.is_empty() => {
                Some(Fault::Pause(self.selection(selection, text, span)?))
            }
            ("slow", [selection @ .., "by", time]) if !selection.is_empty() => {
                let selection = self.selection(selection, text, span);
                let time = self.quantity_at::<Nanos>(time, span);
                Some(Fault::SlowBy(selection?, time?.value))
            }
            ("slow", [selection @ .., factor]) if !selection.is_empty() && factor.starts_with('x') => {
                let selection = self.selection(selection, text, span);
                let factor = self.factor(factor, span);
                Some(Fault::SlowTimes(selection?, factor?))
            }
            ("error", [selection @ .., share]) if !selection.is_empty() && share.ends_with('%') => {
                let selection = self.selection(selection, text, span);
                let share = self.share_at(share, span);
                Some(Fault::Error(selection?, share?))
            }
            ("lose", [place]) => self.place_named(place, span).map(Fault::Lose),
            ("partition", [from, arrow @ ("->" | "<->"), to]) => {
                let (from, to, both_ways) = self.pair(&format!("{from} {arrow} {to}"), span)?;
                Some(Fault::Partition { from, to, both_ways })
            }
            ("delay", [from, arrow @ ("->" | "<->"), to, "by", time]) => {
                let pair = self.pair(&format!("{from} {arrow} {to}"), span);
                let by = self.quantity_at::<Nanos>(time, span);
                let ((from, to, both_ways), by) = (pair?, by?.value);
                Some(Fault::Delay { from, to, by, both_ways })
            }
            ("loss", [from, arrow @ ("->" | "<->"), to, share]) => {
                let pair = self.pair(&format!("{from} {arrow} {to}"), span);
                let share = self.share_at(share, span);
                let ((from, to, both_ways), share) = (pair?, share?);
                Some(Fault::Loss { from, to, share, both_ways })
            }
            ("fail", ["dns"]) => self.fail_dns(span),
            ("flush", [service]) => self.flush(service, span),
            ("load", [factor]) if is_factor(factor) => {
                Some(Fault::LoadTimes(None, self.factor(factor, span)?))
            }
            ("load", [traffic, factor]) if is_factor(factor) => {
                let traffic = self.traffic_named(traffic, span);
                let factor = self.factor(factor, span);
                Some(Fault::LoadTimes(Some(traffic?), factor?))
            }
            ("load", [traffic, "to", rate]) => {
                let traffic = self.traffic_named(traffic, span);
                let rate = self.quantity_at::<Rate>(rate, span);
                Some(Fault::LoadTo(traffic?, rate?.value))
            }
            ("release", [service, version, "at", share]) => {
                let share = self.share_at(share, span);
                let service = self.service_named(service, span)?;
                let version = self.version_of(service, version, span)?.value;
                Some(Fault::Release { service, version, share: share? })
            }
            ("remove", [service]) => self.service_named(service, span).map(Fault::Remove),
            ("scale", [service, "to", count]) => {
                let service = self.service_named(service, span);
                let count = count.parse::<u32>().ok().filter(|it| *it <= SCALE_MAX);
                if count.is_none() {
                    self.not_an_action(text, span);
                }
                Some(Fault::Scale(service?, count?))
            }
            _ => {
                self.not_an_action(text, span);
                None
            }
        }
    }

    fn not_an_action(&mut self, text: &str, span: Span) {
        let first = words(text).first().copied().unwrap_or("");
        let mut diagnostic =
            Diagnostic::error("E0501", span, format!("`{}` is not an action", shorten(text)))
                .label("not understood");
        let forms = |word: &str| ACTIONS.iter().find(|(it, _)| *it == word).map(|(_, forms)| *forms);
        let all = ACTIONS.map(|(word, _)| word);
        diagnostic = match forms(first) {
            Some(forms) => diagnostic.help(format!("write {forms}")),
            None => match did_you_mean(first, all, &mut self.comparisons_left) {
                Some(near) => diagnostic
                    .help(format!("did you mean `{near}`? Write {}", forms(near).unwrap_or_default())),
                None => diagnostic.help(format!("actions begin with {}", all.join(", "))),
            },
        };
        self.report(diagnostic);
    }

    fn share_at(&mut self, text: &str, span: Span) -> Option<Percent> {
        let share = self.quantity_at::<Percent>(text, span)?.value;
        if share > Percent::WHOLE {
            self.impossible(span, format!("{share} is more than all"), "more than 100%");
            return None;
        }
        Some(share)
    }

    /// `x3`, `x0.5`.
    fn factor(&mut self, text: &str, span: Span) -> Option<Percent> {
        let number = text.strip_prefix('x').unwrap_or(text);
        let percent = format!("{number}%").parse::<Percent>().ok();
        let percent = percent.and_then(|it| it.millionths().checked_mul(100)).map(Percent::from_millionths);
        if percent.is_none() {
            self.report(
                Diagnostic::error("E0204", span, format!("`{}` is not a factor", shorten(text)))
                    .label("not a factor")
                    .help("write for example `x2` or `x0.5`"),
            );
        }
        percent
    }

    fn fail_dns(&mut self, span: Span) -> Option<Fault> {
        if self.system.network.dns.is_none() {
            self.report(
                Diagnostic::error(
                    "E0211",
                    span,
                    "`fail dns` changes nothing: no name of this file is looked up",
                )
                .label("nothing to fail")
                .help("say that callers look names up: `network: {dns: {ttl: 30s, latency: 1ms}}`"),
            );
            return None;
        }
        Some(Fault::FailDns)
    }

    fn flush(&mut self, name: &str, span: Span) -> Option<Fault> {
        let service = self.service_named(name, span)?;
        // A service that could not be read has the default kind; then nothing can be said.
        let entry = self.names.services.entries[service.index()];
        let kind = entry.value.as_map().and_then(|map| map.get("kind"));
        let is_cache = kind.is_none_or(|it| it.is_broken()) && entry.value.as_map().is_none_or(|it| it.hole)
            || kind.and_then(Node::as_str) == Some("cache");
        if !is_cache {
            self.report(
                Diagnostic::error(
                    "E0211",
                    span,
                    format!("`{}` is not a cache; only caches can be flushed", shorten(name)),
                )
                .label("not a cache")
                .related(entry.key_span, "defined here"),
            );
            return None;
        }
        Some(Fault::Flush(service))
    }

    /// `web`, `2 of web`, `50% of web`, `web#3`, `web in eu-west/a`.
    fn selection(&mut self, parts: &[&str], text: &str, span: Span) -> Option<Selection> {
        let plain = |service: ServiceId, which| Some(Selection { service, which });
        match parts {
            [amount, "of", name] => {
                let service = self.service_named(name, span);
                let which = if amount.ends_with('%') {
                    self.share_at(amount, span).map(Which::Share)
                } else {
                    match amount.parse::<u32>() {
                        Ok(count) if count > 0 => Some(Which::Count(count)),
                        _ => {
                            self.not_an_action(text, span);
                            None
                        }
                    }
                };
                plain(service?, which?)
            }
            [name, "in", place] => {
                let service = self.service_named(name, span);
                let place = self.place_named(place, span);
                plain(service?, Which::In(place?))
            }
            [name] => match name.split_once('#') {
                None => plain(self.service_named(name, span)?, Which::All),
                Some((name, index)) => {
                    let service = self.service_named(name, span);
                    let index = index.parse::<u32>().ok();
                    if index.is_none() {
                        self.not_an_action(text, span);
                    }
                    plain(service?, Which::Index(index?))
                }
            },
            _ => {
                self.not_an_action(text, span);
                None
            }
        }
    }

    /// `WHO ["OPERATION"] MEASURE >=|<= LIMIT`.
    fn expectation(&mut self, node: &'n Node) -> Option<At<Expectation>> {
        let text = self.text(node, "an expectation")?;
        let span = text.span;
        let parsed = who_quoted_rest(text.value).and_then(|(who, operation, rest)| {
            let (measure, at_least, limit) = match rest.split_once(">=") {
                Some((measure, limit)) => (measure, true, limit),
                None => rest.split_once("<=").map(|(measure, limit)| (measure, false, limit))?,
            };
            Some((who, operation, measure.trim(), at_least, limit.trim()))
        });
        let Some((who, operation, measure, at_least, limit)) = parsed else {
            self.report(
                Diagnostic::error("E0513", span, format!("`{}` is not an expectation", shorten(text.value)))
                    .label("not understood")
                    .help("write `WHO [\"OPERATION\"] MEASURE >=|<= LIMIT`: `web availability >= 99.9%`, `web \"GET /\" p99 <= 250ms`"),
            );
            return None;
        };
        let caller = self.caller(who, span);
        let measure = self.measure(measure, span);
        let limit = measure.and_then(|measure| match measure {
            Measure::Availability | Measure::Errors => self.share_at(limit, span).map(Limit::Share),
            Measure::Latency(_) => self.quantity_at::<Nanos>(limit, span).map(|it| Limit::Time(it.value)),
            Measure::Throughput | Measure::Goodput => {
                self.quantity_at::<Rate>(limit, span).map(|it| Limit::Rate(it.value))
            }
        });
        let caller = caller?;
        if let (Caller::Service(service), Some(operation)) = (caller, operation) {
            self.operation_of(service, operation, span)?;
        }
        let expectation = Expectation {
            service: caller,
            operation: operation.map(str::to_owned),
            measure: measure?,
            at_least,
            limit: limit?,
            text: text.value.to_owned(),
        };
        Some(At::new(expectation, span))
    }

    fn measure(&mut self, text: &str, span: Span) -> Option<Measure> {
        match text {
            "availability" => Some(Measure::Availability),
            "errors" => Some(Measure::Errors),
            "throughput" => Some(Measure::Throughput),
            "goodput" => Some(Measure::Goodput),
            _ if text.starts_with('p') && text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.percentile(text, span).map(Measure::Latency)
            }
            _ => {
                let known = ["availability", "errors", "p50", "p99", "p99.9", "throughput", "goodput"];
                self.not_a_choice(text, span, "a measure", known.into_iter());
                None
            }
        }
    }
}

fn is_factor(text: &str) -> bool {
    text.strip_prefix('x').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
