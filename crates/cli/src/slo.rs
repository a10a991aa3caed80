//! `isobar slo`: what was promised, what was kept, how much may still go wrong, and how fast that is used up.

use crate::answer::{self, FILTER_HELP, Question, Shown};
use crate::columns::{Cell, Column, Key, Shade};
use crate::exit;
use crate::output::Terminal;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use telemetry::filter::{Filter, Number, Row, Word};
use telemetry::views::{duration, percent, safe};
use units::Nanos;

const EXAMPLES: &str = "\
For example:
  isobar slo                       every objective, its budget and how fast it burns
  isobar slo service:web --watch   one service's, every second
  isobar slo --check               exit 1 if an alert fires: for a deploy script
  isobar slo --json | jq '.slos[] | select(.firing)'";

/// Show objectives: what was promised and kept, the budget that is left, how fast it burns
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FILTER_HELP}"))]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,

    /// Exit 1 if an alert of any objective fires
    #[arg(long)]
    check: bool,

    /// Again every second, until ctrl-c
    #[arg(short, long, conflicts_with = "check")]
    watch: bool,
}

/// `GET /v1/slo`, as far as a person reads it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Document {
    version: u32,
    unix_ms: u64,
    age_ms: f64,
    /// One second of clock is this many of windows and periods.
    time_scale: f64,
    slos: Vec<Objective>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Objective {
    name: String,
    service: String,
    target: f64,
    /// Of an objective of speed.
    limit_ms: Option<f64>,
    period_s: f64,
    events: u64,
    bad: u64,
    good: Option<f64>,
    budget_left: f64,
    firing: bool,
    rules: Vec<Rule>,
    /// What was said when those that fire began to.
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Alert {
    severity: String,
    rule: String,
    at: u64,
    traces: Vec<String>,
    text: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Rule {
    name: String,
    severity: String,
    /// Burning so many times faster than the budget allows is an alert.
    factor: f64,
    long_s: f64,
    short_s: f64,
    burn_long: f64,
    burn_short: f64,
    firing: bool,
}

impl Row for Objective {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        match word {
            Word::Any => vec![Cow::Borrowed(&self.name), Cow::Borrowed(&self.service)],
            Word::Service | Word::Destination => vec![Cow::Borrowed(&self.service)],
            Word::Has => self.firing.then_some(Cow::Borrowed("error")).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        match number {
            Number::Errors => self.good.map(|it| 1.0 - it),
            _ => None,
        }
    }
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let text = answer::filter_text(&args.question.filter)?;
    let filter = Filter::parse(&text)?;
    let found = args.question.which.find()?;
    let mut fires = false;
    answer::show(args.question.json, args.watch, terminal, || {
        let (mut document, way) = answer::fetch::<Document>(&found, "/v1/slo")?;
        let in_all = document.slos.len();
        document.slos.retain(|it| filter.matches(it));
        fires = document.slos.iter().any(|it| it.firing);
        let mut shown = Shown::table(&COLUMNS, &document.slos, in_all, terminal);
        shown.lines.extend(document.slos.iter().flat_map(alert_lines));
        if in_all == 0 {
            shown.words.push(
                "this file promises nothing; `slo: {availability: 99.9%}` in a service does".to_owned(),
            );
        }
        if document.time_scale > 1.0 {
            shown.words.push(format!("time runs {:.0} times as fast for these", document.time_scale));
        }
        let age = answer::age_words(document.age_ms, way);
        shown.words.push(format!("{age}; {}", answer::page(&found, "table", &text)));
        shown.json = serde_json::to_string(&document)?;
        Ok(shown)
    })?;
    Ok(if args.check && fires { exit::FAILED } else { exit::OK })
}

/// What fires, in the words that were said when it began, and where to look.
fn alert_lines(it: &Objective) -> Vec<String> {
    let mut lines = Vec::new();
    for alert in &it.alerts {
        // The traces have a line of their own: they are to be copied.
        let text = alert.text.split("; traces ").next().unwrap_or_default();
        lines.push(safe(text, 300));
        if !alert.traces.is_empty() {
            let traces: Vec<String> = alert.traces.iter().map(|it| safe(it, 32)).collect();
            lines.push(format!("  look at: isobar trace {}", traces.join(", ")));
        }
    }
    lines
}

/// The rule that is nearest to an alert: its burn, as a share of what fires it, is the largest.
fn nearest(it: &Objective) -> Option<&Rule> {
    let share = |rule: &Rule| rule.burn_long.min(rule.burn_short) / rule.factor.max(1e-9);
    it.rules.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
}

fn burn(it: &Objective, of: fn(&Rule) -> f64) -> Cell {
    let Some(rule) = it.rules.iter().find(|it| it.firing).or(nearest(it)) else { return Cell::none() };
    let value = of(rule);
    let shade = match value {
        high if high >= rule.factor => Shade::Bad,
        high if high >= 1.0 => Shade::Warn,
        _ => Shade::Plain,
    };
    Cell::shaded(if value < 0.005 { "0".to_owned() } else { format!("{value:.2}x") }, shade)
}

const COLUMNS: [Column<Objective>; 9] = [
    Column {
        title: "SERVICE",
        right: false,
        rank: 0,
        cell: |it| Cell::name(&it.service),
        key: |it| Key::Text(it.service.clone()),
    },
    Column {
        title: "PROMISED",
        right: false,
        rank: 0,
        cell: promised,
        key: |it| Key::Number(Some(it.target)),
    },
    Column { title: "KEPT", right: true, rank: 0, cell: kept, key: |it| Key::Number(it.good.map(|it| -it)) },
    Column {
        title: "BUDGET LEFT",
        right: true,
        rank: 0,
        cell: budget,
        key: |it| Key::Number(Some(-it.budget_left)),
    },
    Column {
        title: "BURN",
        right: true,
        rank: 2,
        cell: |it| burn(it, |it| it.burn_long),
        key: |it| Key::Number(nearest(it).map(|it| it.burn_long)),
    },
    Column {
        title: "NOW",
        right: true,
        rank: 3,
        cell: |it| burn(it, |it| it.burn_short),
        key: |it| Key::Number(nearest(it).map(|it| it.burn_short)),
    },
    Column {
        title: "ALERT",
        right: false,
        rank: 1,
        cell: alert,
        key: |it| Key::Number(Some(f64::from(u8::from(it.firing)))),
    },
    Column {
        title: "PERIOD",
        right: true,
        rank: 4,
        cell: |it| Cell::shaded(days(it.period_s), Shade::Dim),
        key: |it| Key::Number(Some(it.period_s)),
    },
    Column {
        title: "BAD",
        right: true,
        rank: 5,
        cell: |it| Cell::shaded(format!("{} of {}", it.bad, it.events), Shade::Dim),
        key: |it| Key::Number(Some(it.bad as f64)),
    },
];

fn promised(it: &Objective) -> Cell {
    let target = percent(it.target);
    let target = target.trim_end_matches('%');
    let target =
        if target.contains('.') { target.trim_end_matches('0').trim_end_matches('.') } else { target };
    Cell::plain(match it.limit_ms {
        None => format!("{target}% answered"),
        Some(ms) => format!("{target}% within {}", duration(Nanos((ms.max(0.0) * 1e6) as u64))),
    })
}

fn kept(it: &Objective) -> Cell {
    let Some(good) = it.good else { return Cell::none() };
    Cell::shaded(percent(good), if good < it.target { Shade::Bad } else { Shade::Plain })
}

fn budget(it: &Objective) -> Cell {
    let shade = match it.budget_left {
        spent if spent <= 0.0 => Shade::Bad,
        low if low < 0.25 => Shade::Warn,
        _ => Shade::Plain,
    };
    Cell::shaded(format!("{:.1}%", it.budget_left * 100.0), shade)
}

fn alert(it: &Objective) -> Cell {
    let firing: Vec<&str> = it.rules.iter().filter(|it| it.firing).map(|it| it.name.as_str()).collect();
    match firing.first() {
        None => Cell::shaded("ok", Shade::Good),
        Some(first) => Cell::shaded(format!("FIRES: {first}"), Shade::Bad),
    }
}

fn days(seconds: f64) -> String {
    match seconds {
        short if short < 7_200.0 => format!("{:.0}min", short / 60.0),
        short if short < 172_800.0 => format!("{:.0}h", short / 3_600.0),
        long => format!("{:.0}d", long / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns;

    fn objective(service: &str, limit_ms: Option<f64>, burn: f64) -> Objective {
        let rule = |name: &str, factor: f64| Rule {
            name: name.to_owned(),
            severity: "page".to_owned(),
            factor,
            long_s: 3_600.0,
            short_s: 300.0,
            burn_long: burn,
            burn_short: burn * 2.0,
            firing: burn >= factor,
        };
        Objective {
            name: format!("{service} availability"),
            service: service.to_owned(),
            target: if limit_ms.is_some() { 0.99 } else { 0.9995 },
            limit_ms,
            period_s: 2_592_000.0,
            events: 10_000,
            bad: (burn * 5.0) as u64,
            good: Some(1.0 - burn * 0.0005),
            budget_left: 1.0 - burn / 10.0,
            firing: burn >= 6.0,
            rules: vec![rule("page, quick", 14.4), rule("page, slow", 6.0)],
            alerts: Vec::new(),
        }
    }

    #[test]
    fn an_objective_is_a_line() {
        let rows =
            [objective("web", None, 0.0), objective("web", Some(250.0), 2.0), objective("cart", None, 20.0)];
        let (lines, _) = columns::table(&COLUMNS, &rows, None, false);
        assert_eq!(
            lines,
            [
                "SERVICE  PROMISED             KEPT  BUDGET LEFT    BURN     NOW  ALERT               PERIOD           BAD",
                "web      99.95% answered      100%       100.0%       0       0  ok                     30d    0 of 10000",
                "web      99% within 250ms  99.900%        80.0%   2.00x   4.00x  ok                     30d   10 of 10000",
                "cart     99.95% answered    99.00%      -100.0%  20.00x  40.00x  FIRES: page, quick     30d  100 of 10000",
            ]
        );
    }

    #[test]
    fn objectives_answer_the_filter_language() {
        let rows = [objective("web", None, 0.0), objective("cart", None, 20.0)];
        let names = |text: &str| -> Vec<&str> {
            let filter = Filter::parse(text).expect("a filter");
            rows.iter().filter(|it| filter.matches(*it)).map(|it| it.service.as_str()).collect()
        };
        assert_eq!(names("service:web"), ["web"]);
        assert_eq!(names("has:error"), ["cart"]);
        assert_eq!(names("errors>0.5%"), ["cart"]);
    }

    #[test]
    fn what_fires_is_said_with_traces_to_look_at() {
        let mut it = objective("web", None, 20.0);
        it.alerts = vec![Alert {
            severity: "page".into(),
            rule: "page, quick".into(),
            at: 1,
            traces: vec!["0a".into(), "0b".into()],
            text: "page: web burns its budget 20.0 times too fast; traces 0a 0b".into(),
        }];
        assert_eq!(
            alert_lines(&it),
            ["page: web burns its budget 20.0 times too fast", "  look at: isobar trace 0a, 0b"]
        );
        assert!(alert_lines(&objective("web", None, 1.0)).is_empty());
    }
}
