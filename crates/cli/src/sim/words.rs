//! A forecast for a person: the verdict first, then what must hold, then numbers from the outside in.

use crate::table::{Table, dollars, number, seconds, share, spark};
use ::sim::report::{Objective, RequestsReport, TrafficReport};
use ::sim::{Estimate, Report};
use std::fmt::Write as _;

const SPARK_WIDTH: usize = 40;
const SPARK_NARROW: usize = 12;
/// From here on there is room for whole sparks.
const WIDE: usize = 120;
/// More rows than this are for `--json`; the busiest are shown.
const ROWS_MAX: usize = 40;

/// `width` is what a line may take; columns that say least are left out until it is enough.
pub(crate) fn report(report: &Report, color: bool, width: usize) -> String {
    let mut text = String::new();
    headline(&mut text, report, color);
    objectives(&mut text, report, color);
    timeline(&mut text, report, color);
    traffic(&mut text, report, color, width);
    services(&mut text, report, color, width);
    edges(&mut text, report, color, width);
    consumers(&mut text, report, color);
    cost(&mut text, report);
    method(&mut text, report);
    text
}

fn paint(text: &str, code: &str, color: bool) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn title(text: &mut String, words: &str, color: bool) {
    let _ = writeln!(text, "\n{}", paint(words, "1", color));
}

fn headline(text: &mut String, report: &Report, color: bool) {
    let name = match &report.scenario {
        Some(scenario) => format!("{}, {scenario}", report.system),
        None => report.system.clone(),
    };
    let (word, code) = match (report.verdict.holds, report.is_good()) {
        (true, _) => ("holds", "1;32"),
        // Every promise is kept, and yet there is something to tell.
        (false, true) => ("keeps its promises, but", "1;33"),
        (false, false) => ("does not hold", "1;31"),
    };
    let rest = report.verdict.headline.strip_prefix("holds; ").unwrap_or(&report.verdict.headline);
    let stop = if word.ends_with("but") { "" } else { ";" };
    let _ = writeln!(text, "{}: {}{stop} {rest}", paint(&name, "1", color), paint(word, code, color));
    if report.partial {
        let _ = match report.runs_ended {
            0 => {
                let measured = telemetry::views::duration(report.measured);
                writeln!(text, "stopped early: this is {measured} of one run, not the whole of it")
            }
            ended => writeln!(text, "stopped early: {ended} runs came to their end"),
        };
    }
    if report.unsettled {
        let _ = writeln!(text, "it had not settled when measuring began; a longer --duration would say more");
    }
    for finding in &report.verdict.findings {
        let _ = writeln!(text, "  - {}: {}", finding.what, finding.why);
        if let Some(change) = &finding.change {
            let cost = match change.cost_per_month {
                Some(cost) if cost > 0.0 => format!(" ({} a month more)", dollars(cost)),
                _ => String::new(),
            };
            let _ = writeln!(text, "    try: {}{cost}; tried: {}", change.text, change.effect);
        } else if finding.tried > 0 {
            let changes = if finding.tried == 1 { "one change was" } else { "changes were" };
            let _ = writeln!(text, "    {changes} tried for it, and none helped");
        }
    }
}

/// `12.3ms ± 0.4`: half the interval, in the value's own unit. One run alone has none.
pub(super) fn with_interval(it: &Estimate, show: impl Fn(f64) -> String) -> String {
    let half = it.half_width();
    // What differs between runs by rounding alone does not differ.
    let half = if half < it.value.abs() * 1e-9 { 0.0 } else { half };
    if half.is_finite() { format!("{} ±{}", show(it.value), show(half)) } else { show(it.value) }
}

fn objectives(text: &mut String, report: &Report, color: bool) {
    if report.objectives.is_empty() {
        return;
    }
    title(text, "what must hold", color);
    let mut table = Table::new(["", "promise", "measured", "budget burn"]);
    for it in &report.objectives {
        let mark = if it.met { paint("ok", "32", color) } else { paint("NO", "31;1", color) };
        table.row([
            mark,
            it.text.clone(),
            measured(it),
            it.burn.map_or(String::new(), |burn| format!("{}x", number(burn))),
        ]);
    }
    text.push_str(&table.text(color));
}

fn measured(it: &Objective) -> String {
    let words = it.text.split_whitespace().collect::<Vec<_>>();
    let is = |word: &str| words.contains(&word);
    if is("availability") || is("errors") {
        with_interval(&it.measured, share)
    } else if is("goodput") || is("throughput") {
        with_interval(&it.measured, |value| format!("{}/s", number(value)))
    } else {
        with_interval(&it.measured, seconds)
    }
}

/// Lines of a story longer than this are for `--json`.
const TIMELINE_MAX: usize = 30;

fn timeline(text: &mut String, report: &Report, color: bool) {
    if report.timeline.is_empty() {
        return;
    }
    title(text, "what happened", color);
    for it in report.timeline.iter().take(TIMELINE_MAX) {
        let _ = writeln!(text, "  at {:>7}  {}", format!("{:.1} s", it.at.as_secs_f64()), it.text);
    }
    if let Some(more) = report.timeline.len().checked_sub(TIMELINE_MAX).filter(|it| *it > 0) {
        let _ = writeln!(text, "  and {more} more (--json has all)");
    }
}

fn requests(it: &RequestsReport) -> [String; 6] {
    [
        number(it.rate.value),
        with_interval(&it.availability, share),
        with_interval(&it.latency.p50, seconds),
        seconds(it.latency.p90.value),
        with_interval(&it.latency.p99, seconds),
        seconds(it.latency.p999.value),
    ]
}

fn traffic(text: &mut String, report: &Report, color: bool, width: usize) {
    let spark_width = if width < WIDE { SPARK_NARROW } else { SPARK_WIDTH };
    title(text, "traffic, as users see it", color);
    let mut table =
        Table::new(["", "/s", "answered", "p50", "p90", "p99", "p99.9", "p99 over time", "failed over time"]);
    for it in &report.traffic {
        let [rate, answered, p50, p90, p99, p999] = requests(&it.requests);
        table.row([
            it.name.clone(),
            rate,
            answered,
            p50,
            p90,
            p99,
            p999,
            tail(it, spark_width),
            failed(it, spark_width),
        ]);
    }
    text.push_str(&table.text_within(color, width, &[6, 4, 3, 1]));
}

fn tail(it: &TrafficReport, width: usize) -> String {
    spark(&it.series.iter().map(|moment| moment.p99).collect::<Vec<_>>(), width)
}

fn failed(it: &TrafficReport, width: usize) -> String {
    if it.series.iter().all(|moment| moment.failed_per_second == 0.0) {
        return String::new();
    }
    spark(&it.series.iter().map(|moment| Some(moment.failed_per_second)).collect::<Vec<_>>(), width)
}

fn services(text: &mut String, report: &Report, color: bool, width: usize) {
    title(text, "services, as their callers see them", color);
    let mut table =
        Table::new(["", "/s", "answered", "p50", "p90", "p99", "p99.9", "busy", "waiting", "most failures"]);
    let mut rows: Vec<_> = report.services.iter().collect();
    if rows.len() > ROWS_MAX {
        rows.sort_by(|a, b| b.requests.rate.value.total_cmp(&a.requests.rate.value));
    }
    for it in rows.iter().take(ROWS_MAX) {
        let [rate, answered, p50, p90, p99, p999] = requests(&it.requests);
        let busy = it.utilisation.map_or(String::new(), |it| share(it.value));
        let most = it
            .requests
            .errors
            .first()
            .map_or(String::new(), |(cause, rate)| format!("{} {}/s", cause.word(), number(*rate)));
        table.row([
            it.name.clone(),
            rate,
            answered,
            p50,
            p90,
            p99,
            p999,
            busy,
            number(it.waiting.value),
            most,
        ]);
    }
    text.push_str(&table.text_within(color, width, &[6, 4, 3, 8, 1]));
    more(text, rows.len());
}

fn more(text: &mut String, all: usize) {
    if all > ROWS_MAX {
        let _ = writeln!(text, "  and {} more (--json has all)", all - ROWS_MAX);
    }
}

/// Only edges with something to say: retries, breakers, ejections, refusals.
fn edges(text: &mut String, report: &Report, color: bool, width: usize) {
    let mut table = Table::new([
        "",
        "tries a call",
        "retries/s",
        "no budget/s",
        "timeouts/s",
        "hidden/s",
        "breaker open",
        "ejected",
    ]);
    let mut rows: Vec<_> = report
        .edges
        .iter()
        .filter(|it| {
            it.attempts_per_call.value > 1.0005
                || it.timeouts_per_second > 0.0
                || it.degraded_per_second > 0.0
                || it.breaker_trips > 0.0
                || it.ejections > 0.0
        })
        .collect();
    rows.sort_by(|a, b| b.retries_per_second.total_cmp(&a.retries_per_second));
    for it in rows.iter().take(ROWS_MAX) {
        table.row([
            format!("{} -> {} {}", it.from, it.to, it.operation),
            format!("{:.3}", it.attempts_per_call.value),
            number(it.retries_per_second),
            number(it.budget_refused_per_second),
            number(it.timeouts_per_second),
            number(it.degraded_per_second),
            share(it.breaker_open_share),
            number(it.ejected),
        ]);
    }
    if !table.is_empty() {
        title(text, "calls that needed help", color);
        text.push_str(&table.text_within(color, width, &[7, 3, 5, 6]));
        more(text, rows.len());
    }
}

fn consumers(text: &mut String, report: &Report, color: bool) {
    if report.consumers.is_empty() {
        return;
    }
    title(text, "topics", color);
    let mut table = Table::new(["", "published/s", "handled/s", "lag at most", "age p50", "age p99"]);
    for it in &report.consumers {
        table.row([
            format!("{} -> {}", it.topic, it.consumer),
            number(it.published_per_second.value),
            number(it.delivered_per_second.value),
            it.lag_max.to_string(),
            seconds(it.age.p50.value),
            seconds(it.age.p99.value),
        ]);
    }
    text.push_str(&table.text(color));
}

fn cost(text: &mut String, report: &Report) {
    let it = &report.cost;
    if it.per_month > 0.0 {
        let dearest = it.transfers.first().map_or(String::new(), |it| {
            format!("; dearest way {} -> {} {}", it.from, it.to, dollars(it.per_month))
        });
        let _ = writeln!(
            text,
            "\ncost a month: {} ({} instances, {} transfer{dearest})",
            dollars(it.per_month),
            dollars(it.instances),
            dollars(it.transfer)
        );
    }
}

fn method(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "\n{} runs of {} after {} of warm-up, seed {}, {} events; ± is the 95 % interval over runs",
        report.runs,
        report.measured,
        report.warm_up,
        report.seed,
        number(report.events as f64)
    );
}
