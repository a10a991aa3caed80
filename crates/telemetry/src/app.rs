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

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

/// Labels, sorted by name.
type Labels = Vec<(String, String)>;

#[derive(Clone, Copy, Debug)]
struct Sample {
    value: f64,
    seen: Nanos,
}

/// The last value of each application series.
#[derive(Debug)]
pub struct AppMetrics {
    /// By name, then by labels; gauge or counter is the name's.
    families: BTreeMap<String, (Kind, BTreeMap<Labels, Sample>)>,
    series: usize,
    series_max: usize,
    /// Of names and labels, which strangers make as long as they like.
    bytes: usize,
    bytes_max: usize,
    now: Nanos,
    looked: Nanos,
    /// Points of series beyond the budget.
    pub refused: u64,
    /// Series that nobody sent any more and that made room.
    pub forgotten: u64,
}

/// What a series costs beside its text, and a label.
const SERIES_BYTES: usize = 64;
const LABEL_BYTES: usize = 48;
/// A series that nobody sent for so long makes room for others: its instance is gone. Exporters send all they have each
/// minute.
const SILENT: Nanos = Nanos::from_secs(900);
/// Looking for these walks everything.
const LOOK_EVERY: Nanos = Nanos::from_secs(10);

fn label_bytes(labels: &Labels) -> usize {
    labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_BYTES).sum::<usize>() + SERIES_BYTES
}

impl AppMetrics {
    pub fn new(series_max: usize, bytes_max: usize) -> Self {
        Self {
            families: BTreeMap::new(),
            series: 0,
            series_max,
            bytes: 0,
            bytes_max,
            now: Nanos::ZERO,
            looked: Nanos::ZERO,
            refused: 0,
            forgotten: 0,
        }
    }

    /// What time it is: call it now and then.
    pub fn tick(&mut self, now: Nanos) {
        self.now = now;
    }

    /// Series and bytes in use, each with what there may be.
    pub fn usage(&self) -> [(usize, usize); 2] {
        [(self.series, self.series_max), (self.bytes, self.bytes_max)]
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.series < self.series_max && self.bytes + bytes <= self.bytes_max
    }

    /// Forgets series that fell silent, if it has not just been tried.
    fn forget(&mut self) {
        if self.now < self.looked + LOOK_EVERY {
            return;
        }
        self.looked = self.now;
        let oldest = self.now.saturating_sub(SILENT);
        let (before, mut bytes) = (self.series, 0);
        self.families.retain(|name, (_, samples)| {
            samples.retain(|_, it| it.seen >= oldest);
            bytes += samples.keys().map(label_bytes).sum::<usize>() + name.len();
            !samples.is_empty()
        });
        self.series = self.families.values().map(|(_, samples)| samples.len()).sum();
        self.bytes = bytes;
        self.forgotten += (before - self.series) as u64;
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
        let name = prometheus_name(&point.name, true);
        // The unit goes before `_total`, which a counter gets when it is written.
        let bare = with_unit(name.strip_suffix("_total").unwrap_or(&name), &point.unit);
        let name = with_unit(&name, &point.unit);
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
            let bytes = label_bytes(&labels) + if known.is_none() { name.len() } else { 0 };
            if !self.has_room(bytes) {
                self.forget();
            }
            if !self.has_room(bytes) {
                self.refused += 1;
                return false;
            }
            self.series += 1;
            self.bytes += bytes;
        }
        let seen = self.now;
        let (_, samples) = self.families.entry(name).or_insert_with(|| (kind, BTreeMap::new()));
        let sample = samples.entry(labels).or_insert(Sample { value: 0.0, seen });
        *sample = Sample { value: if add { sample.value + value } else { value }, seen };
        true
    }

    pub fn families(&self) -> Vec<Family> {
        let each = self.families.iter();
        each.map(|(name, (kind, samples))| Family {
            name: name.clone(),
            help: "Sent by applications over OTLP.".into(),
            kind: *kind,
            samples: samples.iter().map(|(labels, it)| (labels.clone(), it.value)).collect(),
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
        let mut metrics = AppMetrics::new(4, 10_000);
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
            ["_1size_bytes_count 2", "_1size_bytes_sum 9", "heap_used_bytes 6", "sent_bytes 5"]
        );
        assert_eq!(families[0].samples[0].0[0], ("http_route".into(), "/a".into()));
    }

    #[test]
    fn labels_cost_bytes_and_who_is_gone_makes_room() {
        let long = |n: u64| format!("/{n}/{}", "x".repeat(1_000));
        let mut metrics = AppMetrics::new(1_000, 20_000);
        let mut send = |n: u64, at: u64| {
            metrics.tick(Nanos::from_secs(at));
            let taken = metrics.add(&point("heap.used", &long(n), false, MetricValue::Gauge(1.0)));
            let [(series, _), (bytes, most)] = metrics.usage();
            (taken, series, bytes <= most)
        };
        let taken = (0..100).filter(|n| send(*n, 20).0).count();
        assert!((15..20).contains(&taken), "{taken}");
        assert_eq!(send(200, 600), (false, taken, true), "all of them may still be there");
        assert!(send(1, 700).0, "who is known may go on");
        assert_eq!(send(200, 1_000), (true, 2, true), "all but one are silent for a quarter of an hour");
        assert_eq!((metrics.refused, metrics.forgotten), (100 - taken as u64 + 1, taken as u64 - 1));
    }
}
