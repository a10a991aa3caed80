//! `waive`: risks that somebody accepted, for a reason and for a while.

use super::Resolver;
use super::fields::shorten;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Caller, Waiver, WaiverScope};
use crate::text::Node;

impl<'n> Resolver<'n, '_> {
    pub(super) fn waivers(&mut self, nodes: &[&'n Node]) {
        for node in nodes {
            if let Some(waiver) = self.waiver(node) {
                self.system.waivers.push(waiver);
            }
        }
    }

    fn waiver(&mut self, node: &'n Node) -> Option<Waiver> {
        let mut f = self.fields(node, "a waiver")?;
        let code = f.require(self, "lint", "L007").and_then(|it| self.lint_code(it));
        let on_node = f.get("on");
        let on = on_node.and_then(|it| self.scope(it));
        let reason = f.require(self, "reason", "\"one replica is enough here\"");
        let reason = reason.and_then(|it| self.owned(it, "a reason"));
        let until = f.require(self, "until", "2027-03-31").and_then(|it| self.date(it));
        f.finish(self);
        if on_node.is_some() && on.is_none() {
            return None;
        }
        Some(Waiver { code: code?, on, reason: reason?, until: until?, span: node.span })
    }

    fn lint_code(&mut self, node: &'n Node) -> Option<At<String>> {
        let text = self.text(node, "a lint's code")?;
        if crate::lint::rule(text.value).is_some() {
            return Some(text.map(str::to_owned));
        }
        self.report(
            Diagnostic::error("E0510", text.span, format!("no lint has the code `{}`", shorten(text.value)))
                .label("not a code")
                .help("a code is `L` and three digits, as `isobar check` prints it: `L007`"),
        );
        None
    }

    fn scope(&mut self, node: &'n Node) -> Option<At<WaiverScope>> {
        let text = self.text(node, "what it is about")?;
        let (name, span) = (text.value.trim(), text.span);
        if let Some((from, to)) = name.split_once("->") {
            let from = self.caller(from.trim(), span);
            let to = self.service_named(to.trim(), span);
            return Some(At::new(WaiverScope::Edge(from?, to?), span));
        }
        if let Some(team) = self.team_named(name) {
            // A service may have its team's name; then the service is meant, being the narrower.
            if !self.is_caller(name) {
                return Some(At::new(WaiverScope::Team(team), span));
            }
        }
        let scope = match self.caller(name, span)? {
            Caller::Service(id) => WaiverScope::Service(id),
            Caller::Gateway(id) => WaiverScope::Gateway(id),
        };
        Some(At::new(scope, span))
    }

    fn date(&mut self, node: &'n Node) -> Option<At<(u16, u8, u8)>> {
        let text = self.text(node, "a date")?;
        let date = parse_date(text.value);
        if date.is_none() {
            self.bad_date(text.value, text.span);
        }
        date.map(|it| At::new(it, text.span))
    }

    fn bad_date(&mut self, text: &str, span: Span) {
        self.report(
            Diagnostic::error("E0511", span, format!("`{}` is not a date", shorten(text)))
                .label("not a date")
                .help("write year, month and day: `2027-03-31`"),
        );
    }
}

/// `2027-03-31`, and only days that exist.
fn parse_date(text: &str) -> Option<(u16, u8, u8)> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |it: &str, len: usize| it.len() == len && it.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return None;
    }
    let (year, month, day): (u16, u8, u8) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u8::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_that_exist_are_dates() {
        for (text, expected) in [
            ("2027-03-31", Some((2027, 3, 31))),
            ("2028-02-29", Some((2028, 2, 29))),
            ("2027-02-29", None),
            ("2100-02-29", None),
            ("2027-13-01", None),
            ("2027-00-10", None),
            ("2027-04-31", None),
            ("27-04-01", None),
            ("2027-4-1", None),
            ("2027-04-01-02", None),
            ("soon", None),
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }
}
