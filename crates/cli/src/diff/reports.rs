//! Two reports laid side by side: two forecasts, or a forecast and what was measured of the same file.
//!
//! Their luck was not shared, so a difference is certain only where the two 95 % intervals are apart. Services come in
//! the order of how much they differ, and the largest differences are said in words.

use crate::exit;
use crate::output::{self, Terminal};
use crate::table::{Table, number, seconds, share};
use anyhow::bail;
use serde_json::{Value, json};
use std::fmt::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Answered,
    P50,
    P99,
    Rate,
}

impl What {
    const ALL: [Self; 4] = [Self::Answered, Self::P50, Self::P99, Self::Rate];

    const fn word(self) -> &'static str {
        match self {
            Self::Answered => "availability",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Rate => "rate",
        }
    }

    /// The estimate in a report's *requests*.
    fn of(self, requests: &Value) -> &Value {
        match self {
            Self::Answered => &requests["availability"],
            Self::P50 => &requests["latency_ms"]["p50"],
            Self::P99 => &requests["latency_ms"]["p99"],
            Self::Rate => &requests["rate_per_s"],
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Answered => share(value),
            Self::P50 | Self::P99 => seconds(value / 1e3),
            Self::Rate => format!("{}/s", number(value)),
        }
    }

    /// How much it matters: a hundredth of the requests as much as a tenth of the time.
    fn size(self, before: f64, after: f64) -> f64 {
        match self {
            Self::Answered => (after - before).abs() * 10.0,
            Self::P50 | Self::P99 | Self::Rate if before > 0.0 && after > 0.0 => (after / before).ln().abs(),
            _ => f64::from(u8::from(before != after)),
        }
    }
}

/// One number of both, with what is known of its certainty.
#[derive(Clone, Debug)]
struct Pair {
    /// `web`, or `web "GET /"`.
    of: String,
    what: What,
    before: f64,
    after: f64,
    /// The intervals do not touch.
    certain: bool,
}

impl Pair {
    fn worse(&self) -> bool {
        self.certain
            && match self.what {
                What::P50 | What::P99 => self.after > self.before * 1.05,
                What::Answered => self.after < self.before - 0.001,
                // Less asked is nobody's fault here.
                What::Rate => false,
            }
    }

    fn size(&self) -> f64 {
        self.what.size(self.before, self.after)
    }
}

/// A service, or a traffic, with all its pairs: those of the whole first.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    pairs: Vec<Pair>,
}

impl Row {
    fn largest(&self) -> f64 {
        self.pairs.iter().map(Pair::size).fold(0.0, f64::max)
    }

    fn of(&self, what: What) -> Option<&Pair> {
        self.pairs.iter().find(|it| it.what == what && it.of == self.name)
    }
}

pub(super) fn run(as_json: bool, before: &Value, after: &Value, terminal: Terminal) -> anyhow::Result<u8> {
    let services = rows(before, after, "services");
    let traffic = rows(before, after, "traffic");
    if services.is_empty() && traffic.is_empty() {
        bail!("the two reports have no traffic and no service in common");
    }
    let broken = broken(before, after);
    let pairs = || services.iter().chain(&traffic).flat_map(|it| &it.pairs);
    let regression = !broken.is_empty() || pairs().any(Pair::worse);
    if as_json {
        let mut all: Vec<&Pair> = pairs().collect();
        all.sort_by(|a, b| b.size().total_cmp(&a.size()).then_with(|| a.of.cmp(&b.of)));
        let rows: Vec<Value> = all
            .iter()
            .map(|it| json!({"of": it.of, "measure": it.what.word(), "before": it.before, "after": it.after, "change": it.after - it.before, "certain": it.certain, "regression": it.worse()}))
            .collect();
        let value = json!({
            "schema": 1, "regression": regression, "broken": broken, "notes": notes(before, after),
            "services": services.iter().map(|it| &it.name).collect::<Vec<_>>(), "differences": rows,
        });
        output::print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else {
        output::print(&words(
            before,
            after,
            &services,
            &traffic,
            &broken,
            regression,
            terminal.color_stdout,
        ))?;
    }
    Ok(if regression { exit::FAILED } else { exit::OK })
}

/// Services or traffic that both have, those that differ most first.
fn rows(before: &Value, after: &Value, kind: &str) -> Vec<Row> {
    let all = |it: &Value| it[kind].as_array().cloned().unwrap_or_default();
    let news = all(after);
    let mut rows = Vec::new();
    for old in all(before) {
        let Some(name) = old["name"].as_str() else { continue };
        let Some(new) = news.iter().find(|it| it["name"] == old["name"]) else { continue };
        let mut pairs = pairs(name, &old["requests"], &new["requests"]);
        for operation in old["operations"].as_array().into_iter().flatten() {
            let others = new["operations"].as_array().into_iter().flatten();
            let Some(other) = others.into_iter().find(|it| it["name"] == operation["name"]) else { continue };
            let of = format!("{name} {}", operation["name"]);
            pairs.extend(self::pairs(&of, &operation["requests"], &other["requests"]));
        }
        if !pairs.is_empty() {
            rows.push(Row { name: name.to_owned(), pairs });
        }
    }
    rows.sort_by(|a, b| b.largest().total_cmp(&a.largest()).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn pairs(of: &str, old: &Value, new: &Value) -> Vec<Pair> {
    let value = |it: &Value| it["value"].as_f64();
    let bounds = |it: &Value| Some((it["low"].as_f64()?, it["high"].as_f64()?));
    let asked = |it: &Value| value(What::Rate.of(it)).unwrap_or(0.0) > 0.0;
    // Of what nobody asked on either side there is nothing to compare; of one side, only that it was.
    let measures: &[What] = match (asked(old), asked(new)) {
        (true, true) => &What::ALL,
        (false, false) => &[],
        _ => &[What::Rate],
    };
    let pair = |what: &What| {
        let (x, y) = (what.of(old), what.of(new));
        let (before, after) = (value(x)?, value(y)?);
        let certain = match (bounds(x), bounds(y)) {
            (Some((low, high)), Some((least, most))) => most < low || least > high,
            (Some((low, high)), None) => after < low || after > high,
            (None, Some((least, most))) => before < least || before > most,
            (None, None) => false,
        };
        Some(Pair { of: of.to_owned(), what: *what, before, after, certain })
    };
    measures.iter().filter_map(pair).collect()
}

/// Promises that hold in the first and not in the second.
fn broken(before: &Value, after: &Value) -> Vec<String> {
    let met = |report: &Value, text: &str| {
        let objectives = report["objectives"].as_array().into_iter().flatten();
        objectives.filter(|it| it["text"].as_str() == Some(text)).all(|it| it["met"].as_bool() != Some(false))
    };
    let objectives = after["objectives"].as_array().into_iter().flatten();
    let missed =
        objectives.filter(|it| it["met"].as_bool() == Some(false)).filter_map(|it| it["text"].as_str());
    missed.filter(|text| met(before, text)).map(str::to_owned).collect()
}

fn is_run(report: &Value) -> bool {
    report["source"] == "run"
}

/// What to call the two, shortly.
fn titles(before: &Value, after: &Value) -> (&'static str, &'static str) {
    match (is_run(before), is_run(after)) {
        (false, true) => ("forecast", "actual"),
        (true, false) => ("actual", "forecast"),
        _ => ("before", "after"),
    }
}

/// What a reader must know before believing a difference.
fn notes(before: &Value, after: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if before["system"] != after["system"] {
        notes.push(format!("they are of two systems, {} and {}", before["system"], after["system"]));
    }
    if before["scenario"] != after["scenario"] {
        let name = |it: &Value| it["scenario"].as_str().unwrap_or("nothing happening").to_owned();
        notes.push(format!("they are of two stories: {} and {}", name(before), name(after)));
    }
    for it in [before, after] {
        if it["partial"].as_bool() == Some(true) {
            let which = if is_run(it) { "the run was" } else { "the forecast was" };
            notes.push(format!("{which} stopped early"));
        }
    }
    let far = |it: &Value| it["distances"].as_bool().unwrap_or(!is_run(it));
    if is_run(before) != is_run(after) && far(before) != far(after) {
        notes.push(
            "the run knew no distances and the forecast does: `isobar up --places` runs with them, `isobar sim --here` forecasts without"
                .to_owned(),
        );
    }
    let (a, b) = (before["measured_s"].as_f64().unwrap_or(0.0), after["measured_s"].as_f64().unwrap_or(0.0));
    if (a - b).abs() > 0.05 * a.max(b) {
        notes.push(format!("they measured {a:.0} s and {b:.0} s: a story is diluted in a longer time"));
    }
    notes
}

/// Sentences about the largest certain differences.
const SAID_MAX: usize = 5;

fn words(
    before: &Value,
    after: &Value,
    services: &[Row],
    traffic: &[Row],
    broken: &[String],
    regression: bool,
    color: bool,
) -> String {
    let (first, second) = titles(before, after);
    let mut text = String::new();
    let name = |it: &Value| it.as_str().unwrap_or("").to_owned();
    let story = before["scenario"].as_str().map_or_else(String::new, |it| format!(", {it}"));
    let verdict = match (first, regression) {
        ("forecast", true) => "the forecast was too good",
        ("forecast", false) => "the forecast promised no more than was kept",
        (_, true) => "worse",
        (_, false) => "no regression",
    };
    let _ = writeln!(text, "{}{story}, {first} against {second}: {verdict}", name(&before["system"]));
    for note in notes(before, after) {
        let _ = writeln!(text, "  note: {note}");
    }
    for it in broken {
        let _ = writeln!(text, "  broken: {it} holds in {first} and not in {second}");
    }
    let mut certain: Vec<&Pair> =
        services.iter().chain(traffic).flat_map(|it| &it.pairs).filter(|it| it.certain).collect();
    certain.sort_by(|a, b| b.size().total_cmp(&a.size()));
    for it in certain.iter().take(SAID_MAX) {
        let _ = writeln!(text, "  {}", sentence(it, first, second));
    }
    for (title, rows) in [("services, largest difference first", services), ("traffic", traffic)] {
        if rows.is_empty() {
            continue;
        }
        let mut table = Table::new(["", "answered", "p50", "p99", "rate", "differs most in"]);
        for row in rows {
            let cell = |what: What| row.of(what).map_or_else(String::new, both);
            let most = row.pairs.iter().max_by(|a, b| a.size().total_cmp(&b.size()));
            let most = most.filter(|it| it.size() > 0.0).map_or_else(String::new, |it| {
                let sure = if it.certain { "" } else { ", within the intervals" };
                let of = it.of.strip_prefix(&row.name).unwrap_or("");
                format!("{}{of} {}{sure}", it.what.word(), difference(it))
            });
            table.row([
                row.name.clone(),
                cell(What::Answered),
                cell(What::P50),
                cell(What::P99),
                cell(What::Rate),
                most,
            ]);
        }
        let _ = write!(text, "\n{title} ({first} -> {second})\n{}", table.text(color));
    }
    text
}

fn both(it: &Pair) -> String {
    let (before, after) = (it.what.show(it.before), it.what.show(it.after));
    if before == after { before } else { format!("{before} -> {after}") }
}

fn difference(it: &Pair) -> String {
    match it.what {
        What::Answered => format!("{:+.2} points", (it.after - it.before) * 100.0),
        _ if it.before > 0.0 => format!("{:+.1}%", (it.after / it.before - 1.0) * 100.0),
        _ => format!("{} -> {}", it.what.show(it.before), it.what.show(it.after)),
    }
}

fn sentence(it: &Pair, first: &str, second: &str) -> String {
    let (before, after) = (it.what.show(it.before), it.what.show(it.after));
    match it.what {
        What::Answered => {
            let word = if it.after < it.before { "fewer" } else { "more" };
            format!("{} answered {word}: {after} of requests in {second}, {before} in {first}", it.of)
        }
        What::P50 | What::P99 => {
            let word = if it.after > it.before { "slower" } else { "faster" };
            format!(
                "{} was {word}: {} {after} in {second}, {before} in {first} ({})",
                it.of,
                it.what.word(),
                difference(it)
            )
        }
        What::Rate => {
            let word = if it.after < it.before { "less" } else { "more" };
            format!("{} was asked {word}: {after} in {second}, {before} in {first}", it.of)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, availability: f64, p50: f64, p99: f64, half: f64) -> Value {
        let estimate =
            |value: f64| json!({"value": value, "low": value * (1.0 - half), "high": value * (1.0 + half)});
        let latency = json!({"p50": estimate(p50), "p99": estimate(p99)});
        let requests = json!({"availability": estimate(availability), "rate_per_s": estimate(100.0), "latency_ms": latency});
        json!({"name": name, "requests": requests})
    }

    fn report(source: Option<&str>, services: &[Value]) -> Value {
        json!({"schema": 1, "system": "shop", "scenario": "ads-lost", "source": source, "measured_s": 60.0,
               "partial": false, "services": services, "objectives": []})
    }

    /// The names of the services in order, and whether it is a regression.
    #[track_caller]
    fn check(before: &[Value], after: &[Value], order: &str, sentences: &[&str]) {
        let (before, after) = (report(None, before), report(Some("run"), after));
        let services = rows(&before, &after, "services");
        let names: Vec<&str> = services.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.join(" "), order);
        let said = words(&before, &after, &services, &[], &[], false, false);
        for sentence in sentences {
            assert!(said.contains(sentence), "{sentence}: {said}");
        }
    }

    #[test]
    fn the_largest_difference_comes_first_and_is_said() {
        let forecast = [
            service("web", 1.0, 10.0, 50.0, 0.01),
            service("ads", 0.5, 5.0, 20.0, 0.01),
            service("cart", 1.0, 2.0, 8.0, 0.01),
        ];
        let actual = [
            service("web", 1.0, 10.2, 52.0, 0.05),
            service("ads", 0.4, 5.0, 21.0, 0.01),
            service("cart", 1.0, 3.0, 8.0, 0.01),
        ];
        check(
            &forecast,
            &actual,
            "ads cart web",
            &[
                "shop, ads-lost, forecast against actual",
                "ads answered fewer: 40% of requests in actual, 50% in forecast",
                "cart was slower: p50 3.00ms in actual, 2.00ms in forecast (+50.0%)",
                "within the intervals",
                "the run knew no distances",
            ],
        );
    }

    #[test]
    fn what_nobody_asked_is_not_compared() {
        let mut idle = service("ads", 1.0, 0.0, 0.0, 0.0);
        idle["requests"]["rate_per_s"]["value"] = json!(0.0);
        check(&[idle.clone()], &[idle.clone()], "", &[]);
        let rows =
            rows(&report(None, &[service("ads", 1.0, 1.0, 1.0, 0.0)]), &report(None, &[idle]), "services");
        assert_eq!(rows[0].pairs.iter().map(|it| it.what).collect::<Vec<_>>(), [What::Rate]);
    }

    #[test]
    fn a_promise_that_was_kept_and_is_not_is_broken() {
        let objective = |met: bool| json!([{"text": "web up", "met": met}]);
        let with = |met| {
            let mut it = report(None, &[]);
            it["objectives"] = objective(met);
            it
        };
        assert_eq!(broken(&with(true), &with(false)), ["web up"]);
        assert!(
            broken(&with(false), &with(false)).is_empty() && broken(&with(false), &with(true)).is_empty()
        );
    }
}
