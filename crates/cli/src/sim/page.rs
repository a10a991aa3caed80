//! A forecast as one page: no script, no font, no address outside. Charts are drawn here, as SVG.

use super::words::with_interval;
use crate::table::{dollars, number, seconds, share};
use ::sim::Report;
use ::sim::report::{Moment, RequestsReport, TrafficReport};
use std::fmt::Write as _;
use units::Histogram;

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#f7f8fa;--panel:#fff;--line:#c3cad5;--text:#1b2330;--faint:#5d6b80;--ok:#0b7a75;--bad:#c2185b;--warn:#8a5200;--accent:#2457c5}
@media(prefers-color-scheme:dark){:root{--bg:#10151d;--panel:#1a212c;--line:#3a4657;--text:#e8edf5;--faint:#9aa8bd;--ok:#3fc1b5;--bad:#ff5c93;--warn:#f0a030;--accent:#7aa7ff}}
body{margin:0 auto;max-width:72rem;padding:1.5rem;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;background:var(--panel)}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child,td.l,th.l{text-align:left;white-space:normal}
th{color:var(--faint);font-weight:500}.ok{color:var(--ok)}.bad{color:var(--bad);font-weight:600}.faint{color:var(--faint)}
.verdict{border-left:6px solid var(--ok);padding:.6rem 1rem;background:var(--panel);margin:1rem 0}.verdict.no{border-color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}figure{margin:0;background:var(--panel);border:1px solid var(--line);padding:.6rem;border-radius:.4rem}
figcaption{font-size:.9rem}svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font:11px system-ui,sans-serif}.scroll{overflow-x:auto}
";

pub(crate) fn page(report: &Report) -> String {
    let mut html = String::new();
    let name = escape(&report.system);
    let scenario = report.scenario.as_ref().map_or(String::new(), |it| format!(", {}", escape(it)));
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{name}{scenario}: forecast</title><style>{STYLE}</style></head><body><h1>{name}{scenario}</h1>"
    );
    verdict(&mut html, report);
    objectives(&mut html, report);
    timeline(&mut html, report);
    traffic(&mut html, report);
    services(&mut html, report);
    edges(&mut html, report);
    zones(&mut html, report);
    cost(&mut html, report);
    let _ = writeln!(
        html,
        "<p class=\"faint\">{} runs of {} after {} of warm-up, seed {}, {} events. Intervals (±) are 95 % by Student's t over independent runs; quantiles are of all runs' samples together, in histograms with a relative error of at most {:.2} %.{}</p></body></html>",
        report.runs,
        report.measured,
        report.warm_up,
        report.seed,
        report.events,
        Histogram::RELATIVE_ERROR * 100.0,
        if report.partial { " Stopped early." } else { "" }
    );
    html
}

/// Names are the user's, and a page is no place to run them.
fn escape(text: &str) -> String {
    text.chars()
        .map(|it| match it {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

fn verdict(html: &mut String, report: &Report) {
    let (class, word) = if report.verdict.holds { ("", "Holds") } else { (" no", "Does not hold") };
    let rest = report.verdict.headline.strip_prefix("holds; ").unwrap_or(&report.verdict.headline);
    let _ = write!(html, "<div class=\"verdict{class}\"><strong>{word}.</strong> {}", escape(rest));
    if !report.verdict.findings.is_empty() {
        html.push_str("<ul>");
        for it in &report.verdict.findings {
            let _ = write!(html, "<li>{}: {}", escape(&it.what), escape(&it.why));
            if let Some(change) = &it.change {
                let cost = match change.cost_per_month {
                    Some(cost) if cost > 0.0 => format!(" ({} a month more)", dollars(cost)),
                    _ => String::new(),
                };
                let (text, effect) = (escape(&change.text), escape(&change.effect));
                let _ = write!(html, "<br><em>try:</em> {text}{cost}; <em>tried:</em> {effect}");
            } else if it.tried > 0 {
                html.push_str("<br><em>changes were tried, and none helped</em>");
            }
            html.push_str("</li>");
        }
        html.push_str("</ul>");
    }
    html.push_str("</div>");
}

fn objectives(html: &mut String, report: &Report) {
    if report.objectives.is_empty() {
        return;
    }
    html.push_str("<h2>What must hold</h2><table><tr><th>promise</th><th></th><th>measured</th><th>budget burn</th></tr>");
    for it in &report.objectives {
        let show =
            if it.text.contains("availability") || it.text.contains("errors") { share } else { seconds };
        let (class, mark) = if it.met { ("ok", "● holds") } else { ("bad", "◆ does not") };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"{class}\">{mark}</td><td>{}</td><td>{}</td></tr>",
            escape(&it.text),
            with_interval(&it.measured, show),
            it.burn.map_or(String::new(), |burn| format!("{}×", number(burn)))
        );
    }
    html.push_str("</table>");
}

fn timeline(html: &mut String, report: &Report) {
    if report.timeline.is_empty() {
        return;
    }
    html.push_str("<h2>What happened</h2><table>");
    for it in report.timeline.iter().take(100) {
        let _ = write!(
            html,
            "<tr><td>{:.1} s</td><td class=\"l\">{}</td></tr>",
            it.at.as_secs_f64(),
            escape(&it.text)
        );
    }
    html.push_str("</table>");
}

const REQUEST_HEAD: &str = "<th>/s</th><th>answered</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>";

fn requests(it: &RequestsReport) -> String {
    let latency = &it.latency;
    format!(
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
        number(it.rate.value),
        with_interval(&it.availability, share),
        with_interval(&latency.p50, seconds),
        with_interval(&latency.p90, seconds),
        with_interval(&latency.p99, seconds),
        with_interval(&latency.p999, seconds)
    )
}

fn traffic(html: &mut String, report: &Report) {
    let _ = write!(
        html,
        "<h2>Traffic, as users see it</h2><div class=\"scroll\"><table><tr><th></th>{REQUEST_HEAD}</tr>"
    );
    for it in &report.traffic {
        let _ = write!(html, "<tr><td>{}</td>{}</tr>", escape(&it.name), requests(&it.requests));
    }
    html.push_str("</table></div><div class=\"charts\">");
    for it in &report.traffic {
        over_time(html, it);
        distribution(html, &it.name, &it.requests.latency.histogram);
    }
    html.push_str("</div>");
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 150.0;
const FOOT: f64 = 18.0;

/// Answered and failed per second, and p99, over the run.
fn over_time(html: &mut String, it: &TrafficReport) {
    let top = it.series.iter().map(|m| m.ok_per_second + m.failed_per_second).fold(1e-9, f64::max);
    let slow = it.series.iter().filter_map(|m| m.p99).fold(1e-9, f64::max);
    let last = it.series.len().max(2) as f64 - 1.0;
    let line = |value: &dyn Fn(&Moment) -> Option<f64>, most: f64| {
        let mut path = String::new();
        let mut pen = 'M';
        for (n, moment) in it.series.iter().enumerate() {
            match value(moment) {
                None => pen = 'M',
                Some(value) => {
                    let _ = write!(
                        path,
                        "{pen}{:.1} {:.1}",
                        n as f64 / last * WIDTH,
                        (HEIGHT - FOOT) * (1.0 - value / most) + 1.0
                    );
                    pen = 'L';
                }
            }
        }
        path
    };
    let end = it.series.last().map_or(0.0, |m| m.at.as_secs_f64());
    let _ = write!(
        html,
        "<figure><figcaption><b>{}</b>: <span class=\"ok\">answered</span> (top {}/s), <span class=\"bad\">failed</span>, <span style=\"color:var(--accent)\">p99</span> (top {})</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over time\"><g fill=\"none\" stroke-width=\"1.5\"><path stroke=\"var(--ok)\" d=\"{}\"/><path stroke=\"var(--bad)\" d=\"{}\"/><path stroke=\"var(--accent)\" stroke-dasharray=\"4 2\" d=\"{}\"/></g><text x=\"0\" y=\"{HEIGHT}\">0s</text><text x=\"{WIDTH}\" y=\"{HEIGHT}\" text-anchor=\"end\">{}</text></svg></figure>",
        escape(&it.name),
        number(top),
        seconds(slow),
        escape(&it.name),
        line(&|m| Some(m.ok_per_second), top),
        line(&|m| (m.failed_per_second > 0.0).then_some(m.failed_per_second), top),
        line(&|m| m.p99, slow),
        seconds(end)
    );
}

/// How many requests took how long, on a logarithmic axis of time.
fn distribution(html: &mut String, name: &str, histogram: &Histogram) {
    let (Some(min), Some(max)) = (histogram.min(), histogram.max()) else { return };
    let (low, high) = ((min.as_u64().max(1) as f64).ln(), (max.as_u64().max(2) as f64 * 1.02).ln());
    const BARS: usize = 60;
    let mut bars = [0u64; BARS];
    let place = |nanos: u64| {
        (((nanos.max(1) as f64).ln() - low) / (high - low).max(1e-9) * BARS as f64)
            .clamp(0.0, BARS as f64 - 1.0) as usize
    };
    for bucket in histogram.buckets() {
        bars[place((bucket.low.as_u64() + bucket.high.as_u64()) / 2)] += bucket.count;
    }
    let top = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    let _ = write!(
        html,
        "<figure><figcaption><b>{}</b>: how long requests took (logarithmic)</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"latency of {}\">",
        escape(name),
        escape(name)
    );
    let wide = WIDTH / BARS as f64;
    for (n, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let tall = (*count as f64 / top * (HEIGHT - FOOT)).max(1.0);
        let _ = write!(
            html,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"var(--ok)\"/>",
            n as f64 * wide,
            HEIGHT - FOOT - tall,
            wide - 1.0
        );
    }
    for (q, word) in [(0.5, "p50"), (0.99, "p99")] {
        if let Some(value) = histogram.quantile(q) {
            let x = ((value.as_u64().max(1) as f64).ln() - low) / (high - low).max(1e-9) * WIDTH;
            let _ = write!(
                html,
                "<path d=\"M{x:.1} 0V{:.1}\" stroke=\"var(--warn)\"/><text x=\"{x:.1}\" y=\"{HEIGHT}\" text-anchor=\"{}\">{word} {}</text>",
                HEIGHT - FOOT,
                if x > WIDTH * 0.7 { "end" } else { "start" },
                seconds(value.as_secs_f64())
            );
        }
    }
    html.push_str("</svg></figure>");
}

fn services(html: &mut String, report: &Report) {
    let _ = write!(
        html,
        "<h2>Services, as their callers see them</h2><div class=\"scroll\"><table><tr><th></th>{REQUEST_HEAD}<th>busy</th><th>waiting</th><th class=\"l\">failures a second</th></tr>"
    );
    for it in &report.services {
        let failures: Vec<String> = it
            .requests
            .errors
            .iter()
            .map(|(cause, rate)| format!("{} {}", cause.word(), number(*rate)))
            .collect();
        let _ = write!(
            html,
            "<tr><td>{} <span class=\"faint\">{} × {}</span></td>{}<td>{}</td><td>{}</td><td class=\"l bad\">{}</td></tr>",
            escape(&it.name),
            it.kind,
            it.instances,
            requests(&it.requests),
            it.utilisation.map_or(String::new(), |it| share(it.value)),
            number(it.waiting.value),
            failures.join(", ")
        );
    }
    html.push_str("</table></div>");
}

fn edges(html: &mut String, report: &Report) {
    html.push_str("<h2>Calls</h2><div class=\"scroll\"><table><tr><th></th><th>/s</th><th>answered</th><th>p99</th><th>tries a call</th><th>retries/s</th><th>timeouts/s</th><th>in its zone</th><th>breaker open</th><th>ejected</th></tr>");
    for it in &report.edges {
        let _ = write!(
            html,
            "<tr><td>{} → {} {}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&it.from),
            escape(&it.to),
            escape(&it.operation),
            number(it.calls.rate.value),
            share(it.calls.availability.value),
            seconds(it.calls.latency.p99.value),
            it.attempts_per_call.value,
            number(it.retries_per_second),
            number(it.timeouts_per_second),
            share(it.in_zone_share),
            share(it.breaker_open_share),
            number(it.ejected)
        );
    }
    html.push_str("</table></div>");
}

fn zones(html: &mut String, report: &Report) {
    html.push_str("<h2>Places</h2><table><tr><th></th><th>instances</th><th>requests/s</th><th>failed/s</th><th>bytes out/s</th></tr>");
    for it in &report.zones {
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&it.name),
            it.instances,
            number(it.rate.value),
            number(it.failed_per_second),
            number(it.bytes_out_per_second)
        );
    }
    html.push_str("</table>");
}

fn cost(html: &mut String, report: &Report) {
    let it = &report.cost;
    let _ = write!(
        html,
        "<h2>Cost a month</h2><p>{}: {} instances, {} transfer.</p>",
        dollars(it.per_month),
        dollars(it.instances),
        dollars(it.transfer)
    );
    if it.transfers.is_empty() {
        return;
    }
    html.push_str("<table><tr><th>from</th><th class=\"l\">to</th><th>GB</th><th>$</th></tr>");
    for way in it.transfers.iter().take(20) {
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"l\">{}</td><td>{}</td><td>{}</td></tr>",
            escape(&way.from),
            escape(&way.to),
            number(way.gigabytes_per_month),
            dollars(way.per_month)
        );
    }
    html.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_inert() {
        assert_eq!(escape("<script>\"x'&"), "&lt;script&gt;&quot;x&#39;&amp;");
    }
}
