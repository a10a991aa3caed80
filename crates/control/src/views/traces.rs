//! Kept traces as rows: whole duration, who failed, and whose time it was.
//!
//! The spans themselves come from the Zipkin read API; this is the list to choose from. A search looks at so many
//! traces and says when there may be more.

use super::{Asked, Views, fresh, short};
use crate::api::{Refusal, lock};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use telemetry::critical::{critical_path, shares};
use telemetry::filter::{Filter, Number, Row, Word};
use telemetry::span::{Span, SpanKind, tag};
use telemetry::traces::{Order, TraceQuery, TraceStore};
use telemetry::tree::Tree;
use units::Nanos;

const LIMIT: usize = 20;
const LIMIT_MAX: usize = 200;
/// Traces that a search takes apart. The lock of the store is held meanwhile, and spans wait.
const LOOKED_AT_MAX: usize = 1_000;
/// What "on the critical path" names.
const SHARES_MAX: usize = 5;
const LOOK_BACK: Nanos = Nanos::from_secs(900);

/// `GET /v1/traces`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traces {
    pub version: u32,
    /// When this was true, wall-clock milliseconds.
    pub unix_ms: u64,
    pub window_ms: u64,
    pub looked_at: usize,
    /// There may be more that match, beyond what was looked at.
    pub cut: bool,
    pub rows: Vec<TraceRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceRow {
    pub trace_id: String,
    pub service: String,
    pub name: String,
    pub started_unix_ms: f64,
    pub duration_ms: f64,
    pub spans: usize,
    pub failed: usize,
    pub services: Vec<String>,
    /// What happened in it, in the filter's words.
    pub marks: Vec<String>,
    /// Milliseconds of the critical path by whose they are, the most first.
    pub critical: Vec<(String, f64)>,
}

/// A trace as the filter asks about it.
struct Whole<'a> {
    spans: &'a [Span],
}

impl Whole<'_> {
    fn root(&self) -> Option<&Span> {
        self.spans.iter().find(|it| it.parent.is_none() && !it.shared).or(self.spans.first())
    }

    fn ends(&self) -> Option<(Nanos, Nanos)> {
        let starts = self.spans.iter().filter_map(|it| it.start);
        let ends = self.spans.iter().filter_map(|it| Some(it.start? + it.duration.unwrap_or_default()));
        starts.min().zip(ends.max())
    }

    /// From the first start to the last end: what a person waited for and what went on behind it.
    fn duration(&self) -> Option<Nanos> {
        self.ends().map(|(from, to)| to.saturating_sub(from))
    }

    fn tags(&self, key: &str) -> Vec<Cow<'_, str>> {
        self.spans.iter().filter_map(|it| it.tag(key)).map(telemetry::span::Value::text).collect()
    }

    fn attempts(&self) -> i64 {
        self.spans.iter().filter_map(|it| it.tag(tag::ATTEMPT)?.int()).max().unwrap_or(1)
    }

    fn services(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .spans
            .iter()
            .flat_map(|it| [it.local.service(), it.remote.service()])
            .flatten()
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn marks(&self) -> Vec<&'static str> {
        let has = |key: &str| self.spans.iter().any(|it| it.tag(key).is_some());
        let late = |it: &Cow<'_, str>| it.contains("timeout") || it.contains("deadline");
        [
            ("error", self.spans.iter().any(Span::failed)),
            ("retry", self.attempts() > 1),
            ("hedge", has(tag::HEDGE)),
            ("fault", has(tag::FAULT) || self.tags(tag::ERROR).iter().any(|it| it.contains("fault"))),
            ("breaker", has(tag::BREAKER) || self.tags(tag::ERROR).iter().any(|it| it.contains("breaker"))),
            ("timeout", self.tags(tag::ERROR).iter().any(late)),
            ("canary", has(tag::CANARY)),
            ("inferred", has(tag::INFERRED)),
        ]
        .into_iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(word, _)| word)
        .collect()
    }
}

impl Row for Whole<'_> {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        let owned = |list: Vec<String>| list.into_iter().map(Cow::Owned).collect::<Vec<_>>();
        match word {
            Word::Service => owned(self.services()),
            Word::Any => {
                let names = self.spans.iter().map(|it| Cow::Borrowed(&*it.name));
                owned(self.services()).into_iter().chain(names).collect()
            }
            Word::Source => {
                self.spans.iter().filter_map(|it| it.local.service()).map(Cow::Borrowed).collect()
            }
            Word::Destination => {
                self.spans.iter().filter_map(|it| it.remote.service()).map(Cow::Borrowed).collect()
            }
            Word::Operation => self.spans.iter().map(|it| Cow::Borrowed(&*it.name)).collect(),
            Word::Version => self.tags(tag::VERSION),
            Word::Zone => {
                let zones = self.tags(tag::ZONE).into_iter().chain(self.tags(tag::UPSTREAM_ZONE));
                zones
                    .flat_map(|it| {
                        let short = it.rsplit_once('/').map(|(_, zone)| Cow::Owned(zone.to_owned()));
                        [Some(it), short]
                    })
                    .flatten()
                    .collect()
            }
            Word::Instance => self.tags(tag::INSTANCE).into_iter().chain(self.tags(tag::UPSTREAM)).collect(),
            Word::Has => self.marks().into_iter().map(Cow::Borrowed).collect(),
            Word::Trace => {
                self.spans.first().map(|it| Cow::Owned(it.trace_id.to_string())).into_iter().collect()
            }
            Word::Tag(key) => self.tags(key),
            Word::Team | Word::Kind => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        match number {
            Number::Duration => self.duration().map(Nanos::as_secs_f64),
            Number::Spans => Some(self.spans.len() as f64),
            Number::Attempts => Some(self.attempts() as f64),
            Number::Status => self.root()?.tag(tag::STATUS)?.int().map(|it| it as f64),
            _ => None,
        }
    }

    fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let calls = self.spans.iter().filter(|it| it.kind == Some(SpanKind::Client));
        calls
            .filter_map(|it| Some((Cow::Borrowed(it.local.service()?), Cow::Borrowed(it.remote.service()?))))
            .collect()
    }
}

/// What a row alone can answer; the whole trace knows more.
impl Row for TraceRow {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        let texts = |list: &'_ [String]| -> Vec<Cow<'static, str>> {
            list.iter().map(|it| Cow::Owned(it.clone())).collect()
        };
        match word {
            Word::Any => {
                texts(&self.services).into_iter().chain([Cow::Borrowed(self.name.as_str())]).collect()
            }
            Word::Service => texts(&self.services),
            Word::Operation => vec![Cow::Borrowed(&self.name)],
            Word::Has => texts(&self.marks),
            Word::Trace => vec![Cow::Borrowed(&self.trace_id)],
            _ => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        match number {
            Number::Duration => Some(self.duration_ms / 1e3),
            Number::Spans => Some(self.spans as f64),
            _ => None,
        }
    }
}

/// `None`: no span says when it was.
pub fn row(spans: Vec<Span>) -> Option<TraceRow> {
    let whole = Whole { spans: &spans };
    let (from, to) = whole.ends()?;
    let root = whole.root()?;
    let (marks, services) = (whole.marks(), whole.services());
    let mut row = TraceRow {
        trace_id: root.trace_id.zipkin().to_string(),
        service: root.local.service().unwrap_or("?").to_owned(),
        name: root.name.to_string(),
        started_unix_ms: from.as_millis_f64(),
        duration_ms: short(to.saturating_sub(from).as_millis_f64()),
        spans: spans.len(),
        failed: spans.iter().filter(|it| it.failed()).count(),
        services,
        marks: marks.into_iter().map(str::to_owned).collect(),
        critical: Vec::new(),
    };
    let tree = Tree::build(spans);
    let most = shares(&tree, &critical_path(&tree)).into_iter().take(SHARES_MAX);
    row.critical = most.map(|(who, time)| (who, short(time.as_millis_f64()))).collect();
    Some(row)
}

/// Of what a search found, what the filter takes, in the order asked for.
pub fn choose(found: Vec<Vec<Span>>, filter: &Filter, order: Order, limit: usize) -> Vec<TraceRow> {
    let mut rows: Vec<TraceRow> =
        found.into_iter().filter(|spans| filter.matches(&Whole { spans })).filter_map(row).collect();
    match order {
        Order::Slowest => rows.sort_by(|a, b| b.duration_ms.total_cmp(&a.duration_ms)),
        Order::Newest => rows.sort_by(|a, b| b.started_unix_ms.total_cmp(&a.started_unix_ms)),
    }
    rows.truncate(limit);
    rows
}

/// `GET /v1/traces?filter=&service=&min_duration=&error=&order=&limit=&window=`: `service` and `min_duration` are those
/// of one span and found by the store; the filter is asked of whole traces.
pub(crate) async fn traces(
    State(views): State<Views>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let known = ["filter", "service", "min_duration", "error", "order", "limit", "window"];
    let asked = Asked::read(query.as_deref(), &known)?;
    let filter = asked.filter()?;
    let limit = asked.count("limit", LIMIT, LIMIT_MAX)?;
    let order = match asked.get("order") {
        None | Some("newest") => Order::Newest,
        Some("slowest") => Order::Slowest,
        Some(other) => return Err(Refusal::wrong(format!("`order` is `{other}`; it is newest or slowest"))),
    };
    let window = asked.duration("window")?.unwrap_or(LOOK_BACK);
    let now = views.watched.clocks.unix();
    let mut search = TraceQuery::between(now.saturating_sub(window), now, LOOKED_AT_MAX);
    search.service = asked.get("service").map(telemetry::span::lower);
    search.min_duration = asked.duration("min_duration")?;
    match asked.get("error") {
        None | Some("false") => {}
        Some("true") => search.terms.push((tag::ERROR.into(), None)),
        Some(other) => return Err(Refusal::wrong(format!("`error` is `{other}`; it is true or false"))),
    }
    search.order = order;
    if filter.is_empty() {
        search.limit = limit;
    }
    let found = lock(&views.watched.traces).search(&search);
    let looked_at = found.len();
    let rows = choose(found, &filter, order, limit);
    let cut = looked_at == search.limit && rows.len() < limit;
    Ok(fresh(Traces {
        version: 1,
        unix_ms: now.as_u64() / 1_000_000,
        window_ms: window.as_u64() / 1_000_000,
        looked_at,
        cut,
        rows,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::ids::{SpanId, TraceId};
    use telemetry::span::Endpoint;

    /// edge -> web -> cart, `ms` long, with a status.
    fn trace(id: u128, ms: u64, status: i64) -> Vec<Span> {
        let id = TraceId::new(id).expect("an id");
        let span = |own: u64, parent: u64, from: &str, to: &str, start: u64, long: u64| {
            let mut span = Span::new(id, SpanId::new(own).expect("an id"));
            span.parent = SpanId::new(parent);
            span.kind = Some(if to.is_empty() { SpanKind::Server } else { SpanKind::Client });
            (span.local, span.remote) = (Endpoint::named(from), Endpoint::named(to));
            span.start = Some(Nanos::from_secs(1_000) + Nanos::from_millis(start));
            span.duration = Some(Nanos::from_millis(long));
            span.name = "get /".into();
            span
        };
        let mut spans = vec![
            span(1, 0, "edge", "", 0, ms),
            span(2, 1, "edge", "web", 0, ms),
            span(3, 2, "web", "cart", 2, ms - 4),
        ];
        spans[0].set_tag(tag::STATUS, status);
        spans[2].set_tag(tag::ZONE, "eu-west/b");
        if status >= 500 {
            spans[2].set_tag(tag::ERROR, "upstream-timeout");
            spans[2].set_tag(tag::ATTEMPT, 2);
        }
        spans
    }

    #[track_caller]
    fn check(filter: &str, order: Order, expected: &[&str]) {
        let found = vec![trace(0xa, 10, 200), trace(0xb, 300, 503), trace(0xc, 50, 200)];
        let rows = choose(found, &Filter::parse(filter).expect("a filter"), order, 10);
        let told: Vec<&str> = rows.iter().map(|it| it.trace_id.trim_start_matches('0')).collect();
        assert_eq!(told, expected, "{filter}");
    }

    #[test]
    fn whole_traces_answer_the_filter_language() {
        check("", Order::Slowest, &["b", "c", "a"]);
        check("duration>=50ms", Order::Slowest, &["b", "c"]);
        check("status>=500 service:cart", Order::Slowest, &["b"]);
        check("has:retry has:timeout has:error attempts>1", Order::Slowest, &["b"]);
        check("service:web->cart -has:error zone:b", Order::Slowest, &["c", "a"]);
        check("service:ads", Order::Slowest, &[]);
        check("spans:3 tag.error:*timeout", Order::Newest, &["b"]);
    }

    #[test]
    fn a_row_says_whose_time_it_was() {
        let row = row(trace(0xb, 300, 503)).expect("it has times");
        assert_eq!((row.service.as_str(), row.spans, row.failed, row.duration_ms), ("edge", 3, 1, 300.0));
        assert_eq!(row.critical, [("cart".to_owned(), 296.0), ("web".to_owned(), 4.0)]);
        assert_eq!(row.marks, ["error", "retry", "timeout"]);
        assert_eq!(row.services, ["cart", "edge", "web"]);
    }
}
