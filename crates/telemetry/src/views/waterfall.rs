//! A trace as lines: who called whom, when, for how long, and what went wrong.

use super::{Colour, duration, paint, safe};
use crate::critical::{Segment, critical_path, shares};
use crate::span::{Span, SpanKind, tag};
use crate::tree::Tree;
use units::Nanos;

/// Nobody reads more lines than this; the rest is counted.
const LINES_MAX: usize = 2_000;
/// Deeper nesting stops moving right, or names would leave the screen.
const INDENT_MAX: usize = 20;

/// Names on the critical path's line.
const SHARES_MAX: usize = 6;

/// Lines for a terminal of `width` columns: heavy where the whole trace waited for a span, light where it did not.
/// Children whose clock runs ahead of their parent's are drawn where they say they were, and marked.
pub fn waterfall(tree: &Tree, width: usize, colour: bool) -> Vec<String> {
    let width = width.clamp(60, 400);
    let bar = (width / 3).clamp(20, 80);
    let starts = tree.spans.iter().filter_map(|span| span.start);
    let ends = tree.spans.iter().filter_map(|span| Some(span.start? + span.duration.unwrap_or_default()));
    let (from, to) = (starts.min().unwrap_or_default(), ends.max().unwrap_or_default());
    let whole = to.saturating_sub(from);
    let failed = tree.spans.iter().filter(|span| span.failed()).count();
    let mut services: Vec<&str> = tree.spans.iter().filter_map(|span| span.local.service()).collect();
    services.sort_unstable();
    services.dedup();
    let id = tree.spans.first().map_or(String::new(), |span| span.trace_id.zipkin().to_string());
    let errors = if failed > 0 {
        paint(&format!(", {failed} failed"), Some(Colour::Red), colour)
    } else {
        String::new()
    };
    let mut lines = vec![format!(
        "trace {id}: {} in {} spans of {} services{errors}",
        duration(whole),
        tree.spans.len(),
        services.len()
    )];
    let path = critical_path(tree);
    let order = tree.depth_first();
    let names = width.saturating_sub(bar + 12);
    for (node, depth) in order.iter().take(LINES_MAX) {
        let indent = " ".repeat((*depth).min(INDENT_MAX) * 2);
        let Some(span) = tree.span(*node) else {
            lines.push(format!("{}(the root was not reported)", indent));
            continue;
        };
        let parent = tree.nodes[*node].parent.and_then(|parent| tree.span(parent));
        let label = safe(&format!("{indent}{}", label(span, parent)), names);
        let room = " ".repeat(names.saturating_sub(label.chars().count()));
        let shade = if span.failed() { Some(Colour::Red) } else { None };
        let time = span.duration.map_or("?".to_owned(), duration);
        let skew = if is_skewed(span, parent) { " clock" } else { "" };
        let own: Vec<Segment> = path.iter().filter(|it| it.node == *node).copied().collect();
        let drawn = draw(span, &own, from, whole, bar);
        lines.push(format!(
            "{}{room} {time:>8} |{}|{skew}",
            paint(&label, shade, colour),
            paint(&drawn, shade, colour)
        ));
    }
    if order.len() > LINES_MAX {
        lines.push(format!("... and {} more spans", order.len() - LINES_MAX));
    }
    let shares = shares(tree, &path);
    if !shares.is_empty() {
        let share = |(who, time): &(String, Nanos)| {
            let part = time.0 as f64 / whole.0.max(1) as f64 * 100.0;
            format!("{} {} ({part:.0}%)", safe(who, 40), duration(*time))
        };
        let told: Vec<String> = shares.iter().take(SHARES_MAX).map(share).collect();
        lines.push(format!("━ waited for: {}", told.join(", ")));
    }
    lines
}

/// The service where it changes, the name, then what a person looks for first.
fn label(span: &Span, parent: Option<&Span>) -> String {
    let mut text = String::new();
    if parent.is_none_or(|parent| parent.local.service != span.local.service) {
        text += span.local.service().unwrap_or("?");
        text.push(' ');
    }
    text += if span.name.is_empty() { "(no name)" } else { &span.name };
    if let (Some(SpanKind::Client | SpanKind::Producer), Some(remote)) = (span.kind, span.remote.service()) {
        text += &format!(" → {remote}");
    }
    let mut facts = Vec::new();
    let status = span.tag(tag::STATUS).map(|status| status.text().into_owned());
    facts.extend(status.filter(|status| !status.starts_with('2')));
    if let Some(error) = span.tag(tag::ERROR) {
        let why = error.text();
        facts.push(if why.is_empty() || why == "true" {
            "failed".to_owned()
        } else {
            format!("failed: {why}")
        });
    }
    if let Some(attempt) =
        span.tag(tag::ATTEMPT).and_then(crate::span::Value::int).filter(|attempt| *attempt > 1)
    {
        facts.push(format!("attempt {attempt}"));
    }
    for (key, word) in [(tag::BREAKER, "breaker"), (tag::FAULT, "fault"), (tag::SCENARIO, "scenario")] {
        facts.extend(span.tag(key).map(|value| format!("{word} {value}")));
    }
    for (key, word) in [(tag::QUEUE_WAIT_US, "queued"), (tag::POOL_WAIT_US, "pool")] {
        let wait = span.tag(key).and_then(crate::span::Value::int).filter(|wait| *wait >= 1_000);
        facts.extend(wait.map(|wait| format!("{word} {}", duration(Nanos::from_micros(wait as u64)))));
    }
    if let Some(cause) = span.tag(tag::INFERRED) {
        // Whose headers were not handed on: the trace that goes on here.
        facts.push(format!("caused by trace {}, inferred", cause.text()));
    }
    if !facts.is_empty() {
        text += &format!(" [{}]", facts.join(", "));
    }
    text
}

/// A child cannot truly begin before its parent or end after it by much; its host's clock is off.
fn is_skewed(span: &Span, parent: Option<&Span>) -> bool {
    match (span.start, parent.and_then(|parent| parent.start)) {
        (Some(start), Some(above)) => start < above,
        _ => false,
    }
}

fn draw(span: &Span, own: &[Segment], from: Nanos, whole: Nanos, width: usize) -> String {
    let Some(start) = span.start else { return " ".repeat(width) };
    let place = |time: Nanos| {
        let share = time.saturating_sub(from).0 as f64 / whole.0.max(1) as f64;
        ((share * width as f64) as usize).min(width)
    };
    let cells = |from: Nanos, to: Nanos| {
        let first = place(from).min(width - 1);
        first..place(to).max(first + 1)
    };
    let mut bar = vec![' '; width];
    bar[cells(start, start + span.duration.unwrap_or_default())].fill('─');
    own.iter().for_each(|it| bar[cells(it.from, it.to)].fill('━'));
    bar.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::trace;

    #[test]
    fn a_trace_reads_from_top_to_bottom() {
        let mut spans = trace(
            "1 SERVER web->- @1000 +1000 shop \n 2<1 CLIENT web->cart @1200 +500 get \n 3<2 SERVER cart->- @1300 +300 get error \n 4<1 CLIENT web->ads @1100 +100 ads",
        );
        spans[1].set_tag(tag::ATTEMPT, 2);
        spans[2].set_tag(tag::STATUS, 503);
        spans[2].set_tag(tag::QUEUE_WAIT_US, 2_500);
        let lines = waterfall(&Tree::build(spans), 90, false);
        assert_eq!(
            lines,
            [
                "trace 0000000000000001: 1.00ms in 4 spans of 2 services, 1 failed",
                "web shop                                           1.00ms |━━━──────────────────━━━━━━━━━|",
                "  ads → ads                                         100us |   ━━━                        |",
                "  get → cart [attempt 2]                            500us |      ━━━─────────━━━         |",
                "    cart get [503, failed, queued 2.50ms]           300us |         ━━━━━━━━━            |",
                "━ waited for: web 400us (40%), cart 300us (30%), web → cart 200us (20%), ads 100us (10%)",
            ]
        );
    }

    #[test]
    fn odd_traces_are_shown_too() {
        let lines = waterfall(
            &Tree::build(trace("2<1 SERVER a->- \n 3<4 LOCAL b->- @5 \n 4<3 LOCAL b->- @9")),
            80,
            false,
        );
        assert!(lines[1].starts_with("(the root was not reported)"), "{lines:#?}");
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let skewed =
            waterfall(&Tree::build(trace("1 SERVER a->- @100 +5 \n 2<1 CLIENT a->b @10 +5")), 80, false);
        assert!(skewed[2].ends_with("| clock"), "{skewed:#?}");
        let many: String = (2..=5_000).map(|id| format!("{id:x}<1 CLIENT web->app\n")).collect();
        let lines = waterfall(&Tree::build(trace(&format!("1 SERVER web->-\n{many}"))), 80, false);
        assert_eq!(lines.len(), 2_002);
        assert_eq!(lines.last().unwrap(), "... and 3000 more spans");
    }
}
