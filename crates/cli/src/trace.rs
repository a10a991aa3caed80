//! `isobar trace`: where one request's time went, and which requests are worth the question.

use crate::answer::{self, FILTER_HELP, Question, Shown};
use crate::client;
use crate::columns::{self, Cell, Column, Key, Shade};
use crate::exit;
use crate::output::{self, Terminal};
use control::views::traces::{TraceRow, Traces};
use telemetry::ids::TraceId;
use telemetry::tree::Tree;
use telemetry::views::{duration, waterfall};
use telemetry::zipkin::json::read_spans;
use units::Nanos;
use up::state::Found;

const EXAMPLES: &str = "\
For example:
  isobar trace --slowest                         the slowest of the last 15 minutes, and where the first one's time went
  isobar trace --slowest --service cart          those in which cart took longest
  isobar trace --error --min-duration 200ms      slow and failed
  isobar trace has:retry service:web->cart       tried twice on this way
  isobar trace 4bf92f3577b34da6a3ce929d0e0e4736  one, as a waterfall: attempts, waits, the critical path";

/// Show where the time of requests went: a list, or one as a waterfall
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FILTER_HELP}\n  spans>20  attempts>1  tag.http.route:/cart  of traces"))]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,

    /// The slowest first; else the newest
    #[arg(long)]
    slowest: bool,

    /// Traces this service took part in; with --slowest, by how long it took
    #[arg(long)]
    service: Option<String>,

    /// A span at least so long: of the service, if one is named
    #[arg(long, value_name = "DURATION")]
    min_duration: Option<Nanos>,

    /// In which something failed
    #[arg(long)]
    error: bool,

    /// Started within
    #[arg(long, default_value = "15min")]
    window: Nanos,

    /// At most so many
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

/// What looks like an id and could be nothing else that people filter by.
fn as_id(words: &[String]) -> Option<&str> {
    let [word] = words else { return None };
    let is_hex = word.bytes().all(|it| it.is_ascii_hexdigit());
    ((16..=32).contains(&word.len()) && is_hex).then_some(word)
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    if let Some(id) = as_id(&args.question.filter) {
        let found = args.question.which.find()?;
        return one(&found, id, args.question.json, terminal);
    }
    let filter = answer::filter_text(&args.question.filter)?;
    let found = args.question.which.find()?;
    let text = |it: Option<Nanos>| it.map(|it| it.to_string()).unwrap_or_default();
    let path = format!(
        "/v1/traces{}",
        answer::query(&[
            ("filter", &filter),
            ("service", args.service.as_deref().unwrap_or("")),
            ("min_duration", &text(args.min_duration)),
            ("error", if args.error { "true" } else { "" }),
            ("order", if args.slowest { "slowest" } else { "newest" }),
            ("window", &args.window.to_string()),
            ("limit", &args.limit.to_string()),
        ])
    );
    let json = args.question.json;
    answer::show(json, false, terminal, || {
        let (traces, _) = answer::fetch::<Traces>(&found, &path)?;
        let rows: Vec<Aged> =
            traces.rows.iter().map(|row| Aged { row: row.clone(), now_ms: traces.unix_ms as f64 }).collect();
        let mut shown = Shown::table(&COLUMNS, &rows, 0, terminal);
        shown.json = serde_json::to_string(&traces)?;
        if rows.is_empty() {
            shown.lines.clear();
            shown.words.push(format!(
                "no trace of the last {} matches; {} were looked at",
                args.window, traces.looked_at
            ));
        } else if args.slowest && !json {
            shown.lines.push(String::new());
            shown.lines.extend(drawn(&found, &traces.rows[0].trace_id, terminal)?);
        } else {
            shown.words.push(format!("isobar trace {} shows the first", traces.rows[0].trace_id));
        }
        if traces.cut {
            shown
                .words
                .push(format!("only {} were looked at; a narrower search finds more", traces.looked_at));
        }
        shown.words.push(format!(
            "as of now, the last {}; {}",
            args.window,
            answer::page_of(
                &found,
                "traces",
                &[
                    ("q", &filter),
                    ("service", args.service.as_deref().unwrap_or("")),
                    (
                        "slower",
                        &args.min_duration.map(|it| it.as_millis_f64().to_string()).unwrap_or_default()
                    ),
                    ("failed", if args.error { "yes" } else { "" }),
                ]
            )
        ));
        Ok(shown)
    })?;
    Ok(exit::OK)
}

fn one(found: &Found, id: &str, json: bool, terminal: Terminal) -> anyhow::Result<u8> {
    if json {
        output::print(&format!("{}\n", spans_of(found, id)?))?;
        return Ok(exit::OK);
    }
    let lines = drawn(found, id, terminal)?;
    output::print(&format!("{}\n", lines.join("\n")))?;
    output::words(&columns::paint(&format!("{}/trace/{id}", found.api), Shade::Dim, terminal.color_stderr));
    output::words("\n");
    Ok(exit::OK)
}

fn spans_of(found: &Found, id: &str) -> anyhow::Result<String> {
    use anyhow::Context;
    let id = id.to_ascii_lowercase();
    client::ask(found, "GET", &format!("/api/v2/trace/{id}"), None).with_context(|| {
        format!("no trace {id}: kept are those that failed, were retried or slow, and a share of the others; `isobar trace` lists some")
    })
}

pub(crate) fn drawn(found: &Found, id: &str, terminal: Terminal) -> anyhow::Result<Vec<String>> {
    draw(&spans_of(found, id)?, answer::width(), terminal.color_stdout)
}

/// Lines of a waterfall from Zipkin's JSON.
fn draw(json: &str, width: Option<usize>, color: bool) -> anyhow::Result<Vec<String>> {
    let spans =
        read_spans(json.as_bytes()).map_err(|it| anyhow::anyhow!("the trace is not Zipkin's JSON: {it}"))?;
    Ok(waterfall(&Tree::build(spans), width.unwrap_or(120), color))
}

/// A trace, and when it was asked for.
#[derive(Debug)]
pub(crate) struct Aged {
    pub(crate) row: TraceRow,
    pub(crate) now_ms: f64,
}

impl Aged {
    fn age(&self) -> Nanos {
        Nanos(((self.now_ms - self.row.started_unix_ms).max(0.0) * 1e6) as u64)
    }
}

pub(crate) const COLUMNS: [Column<Aged>; 8] = [
    Column {
        title: "TRACE",
        right: false,
        rank: 0,
        cell: |it| Cell::plain(short_id(&it.row.trace_id)),
        key: |it| Key::Text(it.row.trace_id.clone()),
    },
    Column {
        title: "AGE",
        right: true,
        rank: 5,
        cell: |it| Cell::shaded(duration(it.age()), Shade::Dim),
        key: |it| Key::Number(Some(-it.row.started_unix_ms)),
    },
    Column {
        title: "TIME",
        right: true,
        rank: 0,
        cell: |it| crate::measured::latency(Some(it.row.duration_ms)),
        key: |it| Key::Number(Some(it.row.duration_ms)),
    },
    Column {
        title: "REQUEST",
        right: false,
        rank: 1,
        cell: |it| Cell::name(&format!("{} {}", it.row.service, it.row.name)),
        key: |it| Key::Text(it.row.name.clone()),
    },
    Column {
        title: "SPANS",
        right: true,
        rank: 6,
        cell: |it| Cell::plain(it.row.spans.to_string()),
        key: |it| Key::Number(Some(it.row.spans as f64)),
    },
    Column {
        title: "FAILED",
        right: true,
        rank: 4,
        cell: failed,
        key: |it| Key::Number(Some(it.row.failed as f64)),
    },
    Column {
        title: "MARKS",
        right: false,
        rank: 3,
        cell: |it| Cell::name(&it.row.marks.join(" ")),
        key: |it| Key::Text(it.row.marks.join(" ")),
    },
    Column {
        title: "WAITED FOR",
        right: false,
        rank: 2,
        cell: waited_for,
        key: |it| Key::Text(it.row.critical.first().map(|it| it.0.clone()).unwrap_or_default()),
    },
];

/// All of it: it is there to be pasted.
fn short_id(id: &str) -> String {
    TraceId::from_zipkin(id).map_or_else(|_| id.chars().take(32).collect(), |it| it.zipkin().to_string())
}

fn failed(it: &Aged) -> Cell {
    match it.row.failed {
        0 => Cell::none(),
        some => Cell::shaded(some.to_string(), Shade::Bad),
    }
}

/// The three that would make it faster.
fn waited_for(it: &Aged) -> Cell {
    let part = |(who, ms): &(String, f64)| format!("{who} {:.0}%", ms / it.row.duration_ms.max(1e-9) * 100.0);
    Cell::name(&it.row.critical.iter().take(3).map(part).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(id: &str, duration_ms: f64) -> TraceRow {
        TraceRow {
            trace_id: id.to_owned(),
            service: "edge".to_owned(),
            name: "get /".to_owned(),
            started_unix_ms: 1_000.0,
            duration_ms,
            spans: 9,
            failed: 1,
            services: vec!["edge".to_owned(), "web".to_owned()],
            marks: vec!["error".to_owned(), "retry".to_owned()],
            critical: vec![("cart".to_owned(), duration_ms * 0.9), ("web".to_owned(), duration_ms * 0.1)],
        }
    }

    #[test]
    fn a_trace_is_a_line() {
        let row = row("4bf92f3577b34da6a3ce929d0e0e4736", 250.0);
        let (lines, _) = columns::table(&COLUMNS, &[Aged { row, now_ms: 6_000.0 }], None, false);
        assert_eq!(
            lines,
            [
                "TRACE                               AGE   TIME  REQUEST     SPANS  FAILED  MARKS        WAITED FOR",
                "4bf92f3577b34da6a3ce929d0e0e4736  5.00s  250ms  edge get /      9       1  error retry  cart 90%, web 10%",
            ]
        );
    }

    #[test]
    fn an_id_is_told_from_a_filter() {
        let words = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert!(as_id(&words(&["4bf92f3577b34da6a3ce929d0e0e4736"])).is_some());
        assert!(as_id(&words(&["4BF92F3577B34DA6"])).is_some());
        for filter in
            [&["cafe"][..], &[], &["service:cart"], &["4bf92f3577b34da6", "has:error"], &["4bf92f3577b34dax"]]
        {
            assert!(as_id(&words(filter)).is_none(), "{filter:?}");
        }
    }

    #[test]
    fn a_waterfall_comes_from_zipkins_json() {
        let json = r#"[{"traceId":"000000000000000a","id":"0000000000000001","kind":"SERVER","name":"get /","timestamp":1000000,"duration":10000,"localEndpoint":{"serviceName":"edge"}},
            {"traceId":"000000000000000a","id":"0000000000000002","parentId":"0000000000000001","kind":"CLIENT","name":"get /","timestamp":1002000,"duration":6000,"localEndpoint":{"serviceName":"edge"},"remoteEndpoint":{"serviceName":"web"},"tags":{"isobar.attempt":"2","isobar.queue_wait_us":"3000"}}]"#;
        let lines = draw(json, Some(80), false).expect("it is drawn");
        assert!(lines[0].contains("10.0ms in 2 spans"), "{lines:#?}");
        assert!(
            lines[2].contains("→ web [attempt 2, queued 3.00ms]") && lines[2].contains('━'),
            "{lines:#?}"
        );
        assert_eq!(lines[3], "━ waited for: web 6.00ms (60%), edge 4.00ms (40%)");
        assert!(draw("{}", Some(80), false).is_err());
    }
}
