//! `/metrics`: Prometheus text, OpenMetrics 1.0, and protobuf with native histograms.
//!
//! Names are OpenTelemetry's (`http.client.request.duration` is `http_client_request_duration_seconds` here). Classic
//! buckets are exposed only at powers of two, which are exact bounds of our histogram: a count is never interpolated.
//! A series that ever was stays in every answer, changed or not.

mod native;

use crate::ids::TraceId;
use crate::metrics::{Counter, Counters, SeriesId, SeriesText};
use std::fmt::Write;
use units::{Histogram, Nanos};

/// A label under its OpenTelemetry name and under Prometheus' spelling of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelName {
    pub otel: &'static str,
    pub prometheus: &'static str,
}

const LABELS: [LabelName; 7] = [
    LabelName { otel: "isobar.source", prometheus: "isobar_source" },
    LabelName { otel: "server.address", prometheus: "server_address" },
    LabelName { otel: "http.route", prometheus: "http_route" },
    LabelName { otel: "isobar.version", prometheus: "isobar_version" },
    LabelName { otel: "isobar.source_zone", prometheus: "isobar_source_zone" },
    LabelName { otel: "isobar.destination_zone", prometheus: "isobar_destination_zone" },
    LabelName { otel: "isobar.status_class", prometheus: "isobar_status_class" },
];

/// A series' labels; those without a value are left out, which is the same thing to Prometheus.
pub fn labels(text: &SeriesText) -> impl Iterator<Item = (LabelName, &str)> {
    let values = [
        &*text.source,
        &text.destination,
        &text.operation,
        &text.version,
        &text.source_zone,
        &text.destination_zone,
        text.class.name(),
    ];
    LABELS.into_iter().zip(values).filter(|(_, value)| !value.is_empty())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Text,
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily`, with native histograms.
    Protobuf,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
            }
        }
    }

    /// The best of what an `Accept` header asks for; plain text when it asks for nothing we have.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or("").to_ascii_lowercase();
            let (mut q, mut version, mut delimited) = (1.0, "", true);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => q = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    Some(("encoding", value)) => delimited = value == "delimited",
                    _ => {}
                }
            }
            let format = match &*media {
                "application/vnd.google.protobuf" if delimited => Self::Protobuf,
                "application/openmetrics-text" if matches!(version, "" | "1.0.0" | "0.0.1") => {
                    Self::OpenMetrics
                }
                "text/plain" if matches!(version, "" | "0.0.4" | "1.0.0") => Self::Text,
                "*/*" | "text/*" => Self::Text,
                _ => continue,
            };
            if q > best.0 {
                best = (q, format);
            }
        }
        best.1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

/// Numbers that are not request series: gauges of pools and breakers, our own health.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Without `_total`.
    pub name: String,
    pub help: String,
    pub kind: Kind,
    pub samples: Vec<(Vec<(String, String)>, f64)>,
}

impl Family {
    pub fn single(name: &str, help: &str, kind: Kind, value: f64) -> Self {
        Self { name: name.into(), help: help.into(), kind, samples: vec![(Vec::new(), value)] }
    }
}

/// A trace that shows what a bucket looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    pub trace_id: TraceId,
    pub value: Nanos,
    /// Since the Unix epoch.
    pub at: Nanos,
}

/// One request series as a scrape shows it.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    pub id: SeriesId,
    pub text: &'a SeriesText,
    pub latency: &'a Histogram,
    pub counters: &'a Counters,
}

/// A distribution that is not requests': ages, waits.
#[derive(Clone, Copy, Debug)]
pub struct NamedHistogram<'a> {
    /// Ends in `_seconds`.
    pub name: &'static str,
    pub help: &'static str,
    pub values: &'a Histogram,
}

/// Everything for one answer. `exemplar` is asked for (series, exponent of the bucket's bound of two).
#[allow(missing_debug_implementations, reason = "holds a closure")]
pub struct Page<'a> {
    pub series: &'a [Series<'a>],
    pub families: &'a [Family],
    pub histograms: &'a [NamedHistogram<'a>],
    pub exemplar: &'a dyn Fn(SeriesId, i32) -> Option<Exemplar>,
}

const LATENCY: &str = "http_client_request_duration_seconds";
const LATENCY_HELP: &str = "Duration of requests, seen by the caller's proxy.";

/// Bounds of 2^k seconds, about 1 ms to 64 s.
const EXPONENTS: std::ops::RangeInclusive<i32> = -10..=6;

struct CounterName {
    counter: Counter,
    name: &'static str,
    help: &'static str,
    /// Nanoseconds are exposed as seconds.
    scale: f64,
}

const COUNTERS: [CounterName; Counter::COUNT] = {
    const fn plain(counter: Counter, name: &'static str, help: &'static str) -> CounterName {
        CounterName { counter, name, help, scale: 1.0 }
    }
    const fn seconds(counter: Counter, name: &'static str, help: &'static str) -> CounterName {
        CounterName { counter, name, help, scale: 1e-9 }
    }
    [
        plain(Counter::Retries, "isobar_retries", "Attempts after the first."),
        plain(Counter::Hedges, "isobar_hedges", "Second attempts sent before the first answered."),
        plain(Counter::Timeouts, "isobar_timeouts", "Requests that ran out of time."),
        plain(Counter::Resets, "isobar_resets", "Connections or streams that broke under a request."),
        plain(
            Counter::BreakerRefused,
            "isobar_breaker_refused",
            "Requests refused because a breaker was open.",
        ),
        plain(Counter::Shed, "isobar_shed", "Requests refused by a limit or a full queue."),
        plain(Counter::Faults, "isobar_faults", "Requests that met an injected fault."),
        plain(Counter::RequestBytes, "isobar_request_bytes", "Bytes of request bodies."),
        plain(Counter::ResponseBytes, "isobar_response_bytes", "Bytes of response bodies."),
        seconds(Counter::QueueWaitNanos, "isobar_queue_wait_seconds", "Time requests waited to be admitted."),
        seconds(Counter::PoolWaitNanos, "isobar_pool_wait_seconds", "Time requests waited for a connection."),
    ]
};

/// The body of an answer in `format`.
pub fn write(page: &Page<'_>, format: Format) -> Vec<u8> {
    match format {
        Format::Protobuf => native::write(page),
        Format::Text | Format::OpenMetrics => {
            let mut writer = TextWriter { out: String::new(), open: format == Format::OpenMetrics };
            writer.page(page);
            writer.out.into_bytes()
        }
    }
}

struct TextWriter {
    out: String,
    open: bool,
}

impl TextWriter {
    fn page(&mut self, page: &Page<'_>) {
        if !page.series.is_empty() {
            self.head(LATENCY, "histogram", LATENCY_HELP, self.open.then_some("seconds"));
            page.series.iter().for_each(|series| self.histogram(series, page.exemplar));
        }
        for CounterName { counter, name, help, scale } in &COUNTERS {
            let value = |series: &Series<'_>| series.counters[*counter as usize];
            let some: Vec<_> = page.series.iter().filter(|series| value(series) > 0).collect();
            if some.is_empty() {
                continue;
            }
            let unit = ["seconds", "bytes"].into_iter().find(|unit| self.open && name.ends_with(unit));
            self.head_of_counter(name, help, unit);
            for series in some {
                let _ = write!(self.out, "{name}_total");
                self.series_labels(series.text, None);
                self.value(value(series) as f64 * scale);
            }
        }
        for family in page.families {
            match family.kind {
                Kind::Gauge => self.head(&family.name, "gauge", &family.help, None),
                Kind::Counter => self.head_of_counter(&family.name, &family.help, None),
            }
            for (labels, value) in &family.samples {
                let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
                let _ = write!(self.out, "{}{suffix}", family.name);
                let mut first = true;
                for (name, value) in labels {
                    self.label(&mut first, name, value);
                }
                self.close_labels(first);
                self.value(*value);
            }
        }
        for NamedHistogram { name, help, values } in page.histograms {
            self.head(name, "histogram", help, self.open.then_some("seconds"));
            for (exponent, count) in classic(values) {
                let _ = writeln!(self.out, "{name}_bucket{{le=\"{}\"}} {count}", self.bound(exponent));
            }
            let count = values.count();
            let _ = writeln!(self.out, "{name}_bucket{{le=\"+Inf\"}} {count}");
            let _ = writeln!(self.out, "{name}_sum {}\n{name}_count {count}", values.sum() as f64 / 1e9);
        }
        if self.open {
            self.out.push_str("# EOF\n");
        }
    }

    fn head_of_counter(&mut self, name: &str, help: &str, unit: Option<&str>) {
        if self.open {
            self.head(name, "counter", help, unit);
        } else {
            self.head(&format!("{name}_total"), "counter", help, None);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str, unit: Option<&str>) {
        let _ = write!(self.out, "# HELP {name} ");
        self.escape(help, self.open);
        let _ = write!(self.out, "\n# TYPE {name} {kind}\n");
        if let Some(unit) = unit {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    /// Help text leaves quotes alone in plain text; OpenMetrics escapes them too.
    fn escape(&mut self, text: &str, quotes: bool) {
        for letter in text.chars() {
            match letter {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '"' if quotes => self.out.push_str("\\\""),
                letter => self.out.push(letter),
            }
        }
    }

    fn label(&mut self, first: &mut bool, name: &str, value: &str) {
        self.out.push(if *first { '{' } else { ',' });
        *first = false;
        let _ = write!(self.out, "{name}=\"");
        self.escape(value, true);
        self.out.push('"');
    }

    fn close_labels(&mut self, none: bool) {
        self.out.push_str(if none { " " } else { "} " });
    }

    fn series_labels(&mut self, text: &SeriesText, le: Option<&str>) {
        let mut first = true;
        for (name, value) in labels(text) {
            self.label(&mut first, name.prometheus, value);
        }
        if let Some(le) = le {
            self.label(&mut first, "le", le);
        }
        self.close_labels(first);
    }

    fn value(&mut self, value: f64) {
        let _ = writeln!(self.out, "{value}");
    }

    fn histogram(&mut self, series: &Series<'_>, exemplar: &dyn Fn(SeriesId, i32) -> Option<Exemplar>) {
        for (exponent, count) in classic(series.latency) {
            let _ = write!(self.out, "{LATENCY}_bucket");
            self.series_labels(series.text, Some(&self.bound(exponent)));
            let _ = write!(self.out, "{count}");
            if self.open
                && let Some(exemplar) = exemplar(series.id, exponent)
            {
                let Exemplar { trace_id, value, at } = exemplar;
                let (value, at) = (value.as_secs_f64(), at.as_secs_f64());
                let _ = write!(self.out, " # {{trace_id=\"{trace_id}\"}} {value} {at:.3}");
            }
            self.out.push('\n');
        }
        let _ = write!(self.out, "{LATENCY}_bucket");
        self.series_labels(series.text, Some("+Inf"));
        let _ = writeln!(self.out, "{}", series.latency.count());
        let _ = write!(self.out, "{LATENCY}_sum");
        self.series_labels(series.text, None);
        self.value(series.latency.sum() as f64 / 1e9);
        let _ = write!(self.out, "{LATENCY}_count");
        self.series_labels(series.text, None);
        let _ = writeln!(self.out, "{}", series.latency.count());
    }

    /// OpenMetrics wants `1.0` where plain text always had `1`.
    fn bound(&self, exponent: i32) -> String {
        let bound = 2f64.powi(exponent);
        if self.open && exponent >= 0 { format!("{bound:.1}") } else { format!("{bound}") }
    }
}

/// Cumulative counts at powers of two: bucket `64 k` ends at exactly 2^k seconds.
fn classic(latency: &Histogram) -> impl Iterator<Item = (i32, u64)> {
    let buckets: Vec<(Option<i16>, u64)> =
        latency.buckets().map(|bucket| (bucket.index, bucket.count)).collect();
    let (mut at, mut sum) = (0, 0);
    EXPONENTS.map(move |exponent| {
        while let Some((index, count)) = buckets
            .get(at)
            .filter(|(index, _)| index.is_none_or(|index| i32::from(index) <= exponent << Histogram::SCALE))
        {
            debug_assert!(index.is_some() || at == 0, "the zero bucket comes first");
            sum += count;
            at += 1;
        }
        (exponent, sum)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metrics::Class;

    pub(crate) fn series(source: &str, destination: &str, operation: &str) -> SeriesText {
        SeriesText {
            source: source.into(),
            destination: destination.into(),
            operation: operation.into(),
            version: "v1".into(),
            source_zone: "a".into(),
            destination_zone: "b".into(),
            class: Class::Success,
        }
    }

    fn latency() -> Histogram {
        let mut latency = Histogram::new();
        // Exactly on a bound, one nanosecond beyond, zero, and far out.
        for nanos in [0, 125_000_000, 125_000_001, 1_000_000_000, 300_000_000_000] {
            latency.record(Nanos(nanos));
        }
        latency
    }

    pub(crate) fn page(format: Format) -> Vec<u8> {
        let hostile = series("we\"b\n", "cart", "GET /c\\{id}");
        let plain = SeriesText { class: Class::NoAnswer, ..series("web", "ads", "GET /ads") };
        let (latency, empty) = (latency(), Histogram::new());
        let mut counters = Counters::default();
        counters[Counter::Retries as usize] = 7;
        counters[Counter::QueueWaitNanos as usize] = 1_500_000_000;
        let all = [
            Series { id: SeriesId(0), text: &hostile, latency: &latency, counters: &counters },
            Series { id: SeriesId(1), text: &plain, latency: &empty, counters: &Counters::default() },
        ];
        let families = [
            Family::single("isobar_series", "Request series in use.", Kind::Gauge, 2.0),
            Family {
                name: "isobar_series_folded".into(),
                help: "Requests to open a series beyond the budget.".into(),
                kind: Kind::Counter,
                samples: vec![(vec![("server_address".into(), "cart".into())], 3.0)],
            },
        ];
        let exemplar = |series: SeriesId, exponent: i32| {
            let trace_id = TraceId::new(0xabc)?;
            (series.0 == 0 && exponent == -3).then_some(Exemplar {
                trace_id,
                value: Nanos::from_millis(125),
                at: Nanos::from_secs(1_600_000_000),
            })
        };
        write(&Page { series: &all, families: &families, histograms: &[], exemplar: &exemplar }, format)
    }

    #[test]
    fn text_is_exact_at_its_bounds_and_escaped() {
        let text = String::from_utf8(page(Format::Text)).unwrap();
        let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line}\nin\n{text}");
        let labels = r#"isobar_source="we\"b\n",server_address="cart",http_route="GET /c\\{id}",isobar_version="v1",isobar_source_zone="a",isobar_destination_zone="b",isobar_status_class="2xx""#;
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"0.0625\"}} 1"));
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"0.125\"}} 2"));
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"0.25\"}} 3"));
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"1\"}} 4"));
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"64\"}} 4"));
        has(&format!("http_client_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 5"));
        has(&format!("http_client_request_duration_seconds_sum{{{labels}}} 301.250000001"));
        has(&format!("isobar_retries_total{{{labels}}} 7"));
        has(&format!("isobar_queue_wait_seconds_total{{{labels}}} 1.5"));
        has("# TYPE isobar_retries_total counter");
        has("isobar_series_folded_total{server_address=\"cart\"} 3");
        assert!(
            text.contains("isobar_status_class=\"none\",le=\"+Inf\"} 0"),
            "a series that did nothing yet is there"
        );
        assert!(text.ends_with('\n') && !text.contains(" # {"));
    }

    #[test]
    fn openmetrics_differs_where_it_must() {
        let text = String::from_utf8(page(Format::OpenMetrics)).unwrap();
        assert!(text.ends_with("\n# EOF\n"));
        assert!(text.contains("# TYPE isobar_retries counter\n") && text.contains("\nisobar_retries_total{"));
        assert!(text.contains("le=\"1.0\"") && text.contains("le=\"64.0\"") && !text.contains("le=\"1\""));
        assert!(text.contains("# UNIT http_client_request_duration_seconds seconds\n"));
        let exemplar =
            r#"le="0.125"} 2 # {trace_id="00000000000000000000000000000abc"} 0.125 1600000000.000"#;
        assert!(text.contains(exemplar), "{text}");
        assert!(!text.contains("\n\n"));
    }

    /// Prometheus' own linter, where it is installed (Debian package `prometheus`).
    #[test]
    #[allow(clippy::print_stdout, reason = "a skipped check must say so")]
    fn promtool_finds_nothing_to_say() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: promtool is not installed");
            return;
        };
        child
            .stdin
            .take()
            .expect("piped above")
            .write_all(&page(Format::Text))
            .expect("promtool reads its input");
        let output = child.wait_with_output().expect("promtool ends");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }

    #[test]
    fn families_are_never_interleaved_and_have_one_head() {
        for format in [Format::Text, Format::OpenMetrics] {
            let text = String::from_utf8(page(format)).unwrap();
            let mut heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
            let count = heads.len();
            heads.sort_unstable();
            heads.dedup();
            assert_eq!(heads.len(), count);
        }
    }

    #[test]
    fn the_format_is_what_the_scraper_likes_best() {
        let check = |accept: &str, expected| assert_eq!(Format::negotiate(accept), expected, "{accept}");
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Text);
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
            Format::Protobuf,
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text;q=0.6,*/*;q=0.1",
            Format::Text,
        );
        check("application/openmetrics-text;version=2.0.0", Format::Text);
    }
}
