//! Everything that telemetry keeps and strangers can make grow: how full it is, how full it may be, what happens then, and how
//! often that happened. One table for `/metrics` and for the page that says who makes series, so that no store is missing in
//! either.

use crate::api::lock;
use crate::watched::Watched;
use std::sync::atomic::Ordering::Relaxed;
use telemetry::exposition::{Family, Kind};
use telemetry::traces::GONE_LINKS_MAX;

/// One store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub store: &'static str,
    pub used: u64,
    pub max: u64,
    /// What found no room, or made it.
    pub refused: u64,
    /// What is done about it.
    pub then: &'static str,
}

pub fn limits(watched: &Watched) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut limit = |store, (used, max): (usize, usize), refused: u64, then| {
        limits.push(Limit { store, used: used as u64, max: max as u64, refused, then });
    };
    {
        let measures = lock(&watched.measures);
        let series = measures.series_usage();
        limit("series", (series.series, series.series_max), series.folded, "counted as `other`");
        limit("labels", (series.labels, series.labels_max), series.labels_refused, "called `other`");
        let history = measures.history().usage();
        limit(
            "history_bytes",
            (history.ring_bytes, history.ring_bytes_max),
            history.coarsened + history.dropped_early,
            "the oldest frames give up resolution, then leave",
        );
        limit(
            "instances",
            measures.instances.usage(),
            measures.instances.refused,
            "have no detail of their own",
        );
        let (used, max, refused) = measures.exemplar_usage();
        limit("exemplars", (used, max), refused, "the bucket shows no trace");
    }
    {
        let traces = lock(&watched.traces);
        let (usage, settings) = (traces.usage(), traces.settings());
        limit("traces", (usage.traces, settings.traces_max), usage.pushed_out, "the oldest trace leaves");
        limit(
            "trace_bytes",
            (usage.budgeted, settings.bytes_max),
            usage.pushed_out,
            "the oldest trace leaves",
        );
        limit(
            "trace_spans",
            (0, settings.spans_per_trace_max),
            usage.spans_too_many,
            "the trace's further spans are refused, with a word to their sender",
        );
        limit(
            "trace_names",
            (usage.names_bytes, settings.bytes_max / 8),
            usage.names_refused,
            "written beside the span that has it, or not offered",
        );
        limit(
            "trace_links",
            (usage.links, GONE_LINKS_MAX),
            usage.links_refused,
            "links of the oldest minutes leave, more of one minute are not remembered",
        );
        limit("trace_values", (usage.values, settings.completions_max), usage.values_refused, "not offered");
        limit(
            "trace_edges",
            (usage.edges, settings.keep.edges_max),
            usage.untracked,
            "have no slowest traces of their own",
        );
    }
    {
        let app = lock(&watched.app);
        let [series, bytes] = app.metrics.usage();
        let refused = app.metrics.refused + app.metrics.forgotten;
        let then = "series that fell silent leave, then points are refused";
        limit("app_series", series, refused, then);
        limit("app_series_bytes", bytes, refused, then);
        limit(
            "log_bytes",
            (app.logs.bytes(), app.logs.bytes_max()),
            app.logs.dropped,
            "the oldest lines leave",
        );
    }
    limit(
        "waiting_requests",
        (watched.waiting.load(Relaxed), crate::keeper::RECORDS_WAITING_MAX),
        watched.requests_dropped.load(Relaxed),
        "they make no spans; numbers count them",
    );
    limits
}

/// For `/metrics`.
pub(crate) fn families(watched: &Watched) -> Vec<Family> {
    let limits = limits(watched);
    let family = |name: &str, help: &str, kind, value: fn(&Limit) -> u64| Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        samples: limits
            .iter()
            .map(|it| (vec![("store".to_owned(), it.store.to_owned())], value(it) as f64))
            .collect(),
    };
    vec![
        family("isobar_store_used", "How much each store of telemetry holds.", Kind::Gauge, |it| it.used),
        family("isobar_store_max", "How much it may hold.", Kind::Gauge, |it| it.max),
        family(
            "isobar_store_refused",
            "What found no room in it, or made room for others.",
            Kind::Counter,
            |it| it.refused,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watched::Clocks;
    use std::sync::Arc;
    use telemetry::exposition::Format;
    use telemetry::ids::{SpanId, TraceId};
    use telemetry::otlp::{LogRecord, MetricPoint, MetricValue};
    use telemetry::span::{Endpoint, Span, tag};
    use telemetry::traces::TraceStore;
    use units::Nanos;

    fn watched() -> Arc<Watched> {
        Watched::new(Clocks { now: Arc::new(|| Nanos::from_secs(60)), started_unix_ms: 1_700_000_000_000 })
    }

    /// A span of a service, a name and a version that nobody saw before.
    fn strange(n: u64) -> Option<Span> {
        let mut span = Span::new(TraceId::new(u128::from(n))?, SpanId::new(n)?);
        let long = "x".repeat(300);
        span.local = Endpoint::named(&format!("service-{n}-{long}"));
        span.name = format!("get /{n}").into();
        span.start = Some(Nanos::from_secs(1_700_000_000));
        span.set_tag(tag::VERSION, &*format!("v{n}"));
        Some(span)
    }

    #[test]
    fn whatever_strangers_send_each_store_has_its_end_and_says_so() {
        let watched = watched();
        let spans: Vec<Span> = (1..=25_000).filter_map(strange).collect();
        lock(&watched.traces).add(&spans, watched.clocks.unix());
        {
            let mut app = lock(&watched.app);
            let point = |n: u64| MetricPoint {
                service: format!("service-{n}").into(),
                name: "heap.used".into(),
                unit: "By".into(),
                attributes: vec![("pod".into(), (&*"x".repeat(1_000)).into())],
                at: Nanos(1),
                delta: false,
                value: MetricValue::Gauge(1.0),
            };
            let points: Vec<_> = (0..20_000).map(point).collect();
            app.metrics.take(&points);
            let line = |n: u64| LogRecord {
                service: format!("service-{n}").into(),
                at: Nanos(1),
                severity: 9,
                body: "x".repeat(1 << 20).into(),
                attributes: Vec::new(),
                trace_id: None,
                span_id: None,
            };
            app.logs.take((0..20).map(line).collect());
        }
        let limits = limits(&watched);
        for it in &limits {
            assert!(it.used <= it.max && it.max > 0 && !it.then.is_empty(), "{it:?}");
        }
        let refused = |store: &str| limits.iter().find(|it| it.store == store).map(|it| it.refused > 0);
        let flooded = ["trace_names", "trace_values", "app_series_bytes", "log_bytes"];
        assert_eq!(flooded.map(refused), [Some(true); 4], "{limits:?}");
        assert_eq!(refused("series"), Some(false), "strangers make none of ours");
        let page = String::from_utf8(crate::exports::page(&watched, Format::Text)).expect("text");
        for it in &limits {
            let line = format!("isobar_store_refused_total{{store=\"{}\"}} {}", it.store, it.refused);
            assert!(page.lines().any(|said| said == line), "{line}");
        }
    }
}
