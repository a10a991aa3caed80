//! What applications send over OTLP, each kind in its own bounded place.
//!
//! Traces go to the trace store. Logs are a ring of bytes: enough to read beside a trace, not a log archive. Metrics are
//! the last value of each series, for `/metrics`: who wants their history has a Prometheus for it.

use crate::exposition::{Family, Kind};
use crate::ids::TraceId;
use crate::otlp::{LogRecord, MetricPoint, MetricValue, Sink, Taken};
use crate::span::Span;
use crate::traces::TraceStore;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use units::Nanos;

#[derive(Debug)]
pub struct LogRing {
    records: VecDeque<LogRecord>,
    bytes: usize,
    bytes_max: usize,
    /// Pushed out to make room.
    pub dropped: u64,
}

fn log_bytes(record: &LogRecord) -> usize {
    let attributes: usize =
        record.attributes.iter().map(|(key, value)| key.len() + value.text().len() + 40).sum();
    size_of::<LogRecord>() + record.body.len() + record.service.len() + attributes
}

impl LogRing {
    pub fn new(bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bytes_max, dropped: 0 }
    }

    /// `false` if the record alone is larger than the ring.
    pub fn push(&mut self, record: LogRecord) -> bool {
        let bytes = log_bytes(&record);
        if bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        self.records.push_back(record);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= log_bytes(&oldest);
            self.dropped += 1;
        }
        true
    }

    /// Takes what fits, and says what did not.
    pub fn take(&mut self, records: Vec<LogRecord>) -> Taken {
        let rejected = records.into_iter().map(|record| self.push(record)).filter(|taken| !taken).count();
        let why = (rejected > 0).then_some(Cow::Borrowed("a record is larger than the whole ring"));
        Taken { rejected, why }
    }

    /// The newest records first, of one service or trace if given.
    pub fn newest<'a>(
        &'a self,
        service: Option<&'a str>,
        trace: Option<TraceId>,
    ) -> impl Iterator<Item = &'a LogRecord> {
        let fits = move |record: &&LogRecord| {
            service.is_none_or(|service| *record.service == *service)
                && (trace.is_none() || record.trace_id == trace)
        };
        self.records.iter().rev().filter(fits)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Labels, sorted by name.
type Labels = Vec<(String, String)>;

/// The last value of each application series.
#[derive(Debug)]
pub struct AppMetrics {
    /// By name, then by labels; gauge or counter is the name's.
    families: BTreeMap<String, (Kind, BTreeMap<Labels, f64>)>,
    series: usize,
    series_max: usize,
    /// Points of series beyond the budget.
    pub refused: u64,
}

impl AppMetrics {
    pub fn new(series_max: usize) -> Self {
        Self { families: BTreeMap::new(), series: 0, series_max, refused: 0 }
    }

    /// `false` if the point would need a series that has no room.
    pub fn add(&mut self, point: &MetricPoint) -> bool {
        let mut labels: Labels = point
            .attributes
            .iter()
            .map(|(key, value)| (prometheus_name(key, false), value.text().into_owned()))
            .chain([("service_name".to_owned(), point.service.to_string())])
            .collect();
        labels.sort();
        labels.dedup_by(|a, b| a.0 == b.0);
        let name = with_unit(&prometheus_name(&point.name, true), &point.unit);
        let bare = name.strip_suffix("_total").unwrap_or(&name).to_owned();
        match &point.value {
            MetricValue::Gauge(value) => self.set(name, Kind::Gauge, labels, *value, false),
            MetricValue::Counter(value) => self.set(bare, Kind::Counter, labels, *value, point.delta),
            MetricValue::Histogram { count, sum, .. }
            | MetricValue::Exponential { count, sum, .. }
            | MetricValue::Summary { count, sum } => {
                // Their shape stays with who measured it; the rate and the mean are what a page needs of it here.
                let counted = self.set(
                    format!("{bare}_count"),
                    Kind::Counter,
                    labels.clone(),
                    *count as f64,
                    point.delta,
                );
                counted && self.set(format!("{bare}_sum"), Kind::Counter, labels, *sum, point.delta)
            }
        }
    }

    /// Takes the points that have room, and says what did not.
    pub fn take(&mut self, points: &[MetricPoint]) -> Taken {
        let rejected = points.iter().filter(|point| !self.add(point)).count();
        let why = (rejected > 0)
            .then_some(Cow::Borrowed("the budget of series is used up, or a name has two kinds"));
        Taken { rejected, why }
    }

    fn set(&mut self, name: String, kind: Kind, labels: Labels, value: f64, add: bool) -> bool {
        let known = self.families.get(&name);
        if known.is_some_and(|(known, _)| *known != kind) {
            return false; // One name cannot be both; the first one stays.
        }
        if known.is_none_or(|(_, samples)| !samples.contains_key(&labels)) {
            if self.series >= self.series_max {
                self.refused += 1;
                return false;
            }
            self.series += 1;
        }
        let (_, samples) = self.families.entry(name).or_insert_with(|| (kind, BTreeMap::new()));
        let sample = samples.entry(labels).or_insert(0.0);
        *sample = if add { *sample + value } else { value };
        true
    }

    pub fn families(&self) -> Vec<Family> {
        let each = self.families.iter();
        each.map(|(name, (kind, samples))| Family {
            name: name.clone(),
            help: "Sent by applications over OTLP.".into(),
            kind: *kind,
            samples: samples.iter().map(|(labels, value)| (labels.clone(), *value)).collect(),
        })
        .collect()
    }
}

/// Letters, digits and underscores, not starting with a digit.
fn prometheus_name(name: &str, colons: bool) -> String {
    let mut out: String = name
        .chars()
        .take(200)
        .map(|letter| if letter.is_ascii_alphanumeric() || (colons && letter == ':') { letter } else { '_' })
        .collect();
    if out.is_empty() || out.starts_with(|first: char| first.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn with_unit(name: &str, unit: &str) -> String {
    let unit = match unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "By" => "bytes",
        "%" => "percent",
        _ => return name.to_owned(),
    };
    if name.ends_with(unit) { name.to_owned() } else { format!("{name}_{unit}") }
}

/// Everything an application's OTLP exporter may send, taken at one moment.
#[derive(Debug)]
pub struct AppSink<'a, S> {
    pub traces: &'a mut S,
    pub logs: &'a mut LogRing,
    pub metrics: &'a mut AppMetrics,
    pub now: Nanos,
}

impl<S: TraceStore> Sink for AppSink<'_, S> {
    fn spans(&mut self, spans: Vec<Span>) -> Taken {
        let added = self.traces.add(&spans, self.now);
        // A trace that was decided against is not a client's mistake: nothing is rejected, as with any sampler.
        let why = (added.too_many > 0).then_some(Cow::Borrowed("the trace is as large as a trace may be"));
        Taken { rejected: added.too_many, why }
    }

    fn metrics(&mut self, points: Vec<MetricPoint>) -> Taken {
        self.metrics.take(&points)
    }

    fn logs(&mut self, records: Vec<LogRecord>) -> Taken {
        self.logs.take(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(service: &str, body: &str, trace: u128) -> LogRecord {
        LogRecord {
            service: service.into(),
            at: Nanos(1),
            severity: 9,
            body: body.into(),
            attributes: vec![("k".into(), "v".into())],
            trace_id: TraceId::new(trace),
            span_id: None,
        }
    }

    #[test]
    fn logs_are_a_ring_of_bytes() {
        let mut ring = LogRing::new(2_000);
        for n in 1..=100 {
            assert!(ring.push(record(if n % 2 == 0 { "web" } else { "cart" }, &format!("line {n}"), n)));
        }
        assert!(!ring.push(record("web", &"x".repeat(3_000), 1)));
        assert!(ring.bytes() <= 2_000 && ring.dropped > 80);
        assert_eq!(&*ring.newest(Some("web"), None).next().unwrap().body, "line 100");
        assert_eq!(ring.newest(None, TraceId::new(99)).count(), 1);
        assert_eq!(ring.bytes(), ring.records.iter().map(log_bytes).sum::<usize>());
    }

    fn point(name: &str, label: &str, delta: bool, value: MetricValue) -> MetricPoint {
        MetricPoint {
            service: "cart".into(),
            name: name.into(),
            unit: "By".into(),
            attributes: vec![("http.route".into(), label.into())],
            at: Nanos(1),
            delta,
            value,
        }
    }

    #[test]
    fn metrics_keep_the_last_value_and_add_deltas_within_the_budget() {
        let mut metrics = AppMetrics::new(4);
        assert!(metrics.add(&point("heap.used", "/a", false, MetricValue::Gauge(5.0))));
        assert!(metrics.add(&point("heap.used", "/a", false, MetricValue::Gauge(6.0))));
        assert!(metrics.add(&point("sent_total", "/a", true, MetricValue::Counter(2.0))));
        assert!(metrics.add(&point("sent_total", "/a", true, MetricValue::Counter(3.0))));
        assert!(metrics.add(&point("1size", "/a", false, MetricValue::Summary { count: 2, sum: 9.0 })));
        assert!(!metrics.add(&point("heap.used", "/b", false, MetricValue::Gauge(1.0))), "full");
        assert!(
            !metrics.add(&point("heap.used", "/a", false, MetricValue::Counter(1.0)))
                || metrics.families().len() == 4
        );
        let families = metrics.families();
        let lines: Vec<_> = families.iter().map(|it| format!("{} {}", it.name, it.samples[0].1)).collect();
        assert_eq!(
            lines,
            ["_1size_bytes_count 2", "_1size_bytes_sum 9", "heap_used_bytes 6", "sent_total_bytes 5"]
        );
        assert_eq!(families[0].samples[0].0[0], ("http_route".into(), "/a".into()));
    }
}
