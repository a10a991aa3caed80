//! Services and edges as tables: rate, success, latency, and what the policies did.

use super::{CellText, Colour, count, duration, percent, safe, table};
use crate::filter::{Filter, Number, Row, Word};
use crate::metrics::{Class, Counter, Counters, SeriesText, Sparse};
use std::borrow::Cow;
use std::collections::BTreeMap;
use units::Nanos;

/// An edge over a window: everything its series counted, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeRow {
    pub source: String,
    pub destination: String,
    pub requests: u64,
    pub errors: u64,
    pub latency: Sparse,
    pub counters: Counters,
    pub operations: Vec<String>,
    pub versions: Vec<String>,
    pub zones: Vec<String>,
    pub window: Nanos,
}

/// A service over a window, as its callers saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatRow {
    pub service: String,
    pub requests: u64,
    pub errors: u64,
    pub latency: Sparse,
    pub counters: Counters,
    pub versions: Vec<String>,
    pub zones: Vec<String>,
    pub callers: usize,
    pub window: Nanos,
}

fn rate(requests: u64, window: Nanos) -> f64 {
    requests as f64 / window.as_secs_f64().max(1e-9)
}

fn success(requests: u64, errors: u64) -> f64 {
    if requests == 0 { 1.0 } else { 1.0 - errors as f64 / requests as f64 }
}

/// Adds series up by edge. Percentiles stay true because histograms are added, never percentiles.
pub fn rollup<'a>(
    series: impl Iterator<Item = (&'a SeriesText, &'a Sparse, &'a Counters)>,
    window: Nanos,
) -> Vec<EdgeRow> {
    let mut rows: BTreeMap<(&str, &str), EdgeRow> = BTreeMap::new();
    for (text, latency, counters) in series {
        let row = rows.entry((&text.source, &text.destination)).or_insert_with(|| EdgeRow {
            source: text.source.to_string(),
            destination: text.destination.to_string(),
            window,
            ..EdgeRow::default()
        });
        row.requests += latency.count();
        row.errors += if Class::failed(text.class) { latency.count() } else { 0 };
        row.latency.merge(latency);
        (0..Counter::COUNT).for_each(|at| row.counters[at] += counters[at]);
        note(&mut row.operations, &text.operation);
        note(&mut row.versions, &text.version);
        note(&mut row.zones, &text.source_zone);
        note(&mut row.zones, &text.destination_zone);
    }
    rows.into_values().collect()
}

fn note(list: &mut Vec<String>, text: &str) {
    if !text.is_empty() && !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

/// Rows that a filter takes.
pub fn filter_rows<R: Row>(rows: Vec<R>, filter: &Filter) -> Vec<R> {
    rows.into_iter().filter(|row| filter.matches(row)).collect()
}

impl StatRow {
    /// Services from the edges that lead to them.
    pub fn from_edges(edges: &[EdgeRow]) -> Vec<Self> {
        let mut rows: BTreeMap<&str, Self> = BTreeMap::new();
        for edge in edges {
            let row = rows.entry(&edge.destination).or_insert_with(|| Self {
                service: edge.destination.clone(),
                window: edge.window,
                ..Self::default()
            });
            row.requests += edge.requests;
            row.errors += edge.errors;
            row.callers += 1;
            row.latency.merge(&edge.latency);
            (0..Counter::COUNT).for_each(|at| row.counters[at] += edge.counters[at]);
            edge.versions.iter().for_each(|version| note(&mut row.versions, version));
            edge.zones.iter().for_each(|zone| note(&mut row.zones, zone));
        }
        rows.into_values().collect()
    }
}

fn number(
    number: Number,
    requests: u64,
    errors: u64,
    latency: &Sparse,
    counters: &Counters,
    window: Nanos,
) -> Option<f64> {
    let quantile = |q: f64| latency.histogram().quantile(q).map(Nanos::as_secs_f64);
    match number {
        Number::P50 => quantile(0.5),
        Number::P90 => quantile(0.9),
        Number::P95 => quantile(0.95),
        Number::P99 => quantile(0.99),
        Number::P999 => quantile(0.999),
        Number::Rate => Some(rate(requests, window)),
        Number::Errors => Some(1.0 - success(requests, errors)),
        Number::Retries => Some(counters[Counter::Retries as usize] as f64 / requests.max(1) as f64),
        Number::Status | Number::Duration | Number::Spans | Number::Attempts => None,
    }
}

/// What of "has" counters can answer.
fn marks(errors: u64, counters: &Counters) -> Vec<Cow<'static, str>> {
    let counted = [
        ("retry", Counter::Retries),
        ("hedge", Counter::Hedges),
        ("timeout", Counter::Timeouts),
        ("breaker", Counter::BreakerRefused),
        ("fault", Counter::Faults),
    ];
    let some =
        counted.into_iter().filter(|(_, counter)| counters[*counter as usize] > 0).map(|(word, _)| word);
    (errors > 0).then_some("error").into_iter().chain(some).map(Cow::Borrowed).collect()
}

fn texts(list: &[String]) -> Vec<Cow<'_, str>> {
    list.iter().map(|text| Cow::Borrowed(text.as_str())).collect()
}

impl Row for EdgeRow {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        match word {
            Word::Any | Word::Service => vec![Cow::Borrowed(&self.source), Cow::Borrowed(&self.destination)],
            Word::Source => vec![Cow::Borrowed(&self.source)],
            Word::Destination => vec![Cow::Borrowed(&self.destination)],
            Word::Operation => texts(&self.operations),
            Word::Version => texts(&self.versions),
            Word::Zone => texts(&self.zones),
            Word::Has => marks(self.errors, &self.counters),
            Word::Instance | Word::Team | Word::Kind | Word::Trace | Word::Tag(_) => Vec::new(),
        }
    }

    fn number(&self, of: Number) -> Option<f64> {
        number(of, self.requests, self.errors, &self.latency, &self.counters, self.window)
    }

    fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        vec![(Cow::Borrowed(&self.source), Cow::Borrowed(&self.destination))]
    }
}

impl Row for StatRow {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        match word {
            Word::Any | Word::Service | Word::Destination => vec![Cow::Borrowed(&self.service)],
            Word::Version => texts(&self.versions),
            Word::Zone => texts(&self.zones),
            Word::Has => marks(self.errors, &self.counters),
            _ => Vec::new(),
        }
    }

    fn number(&self, of: Number) -> Option<f64> {
        number(of, self.requests, self.errors, &self.latency, &self.counters, self.window)
    }
}

fn plain(text: impl Into<String>) -> CellText {
    (text.into(), None)
}

fn success_cell(requests: u64, errors: u64) -> CellText {
    let share = success(requests, errors);
    let colour = match share {
        share if share < 0.99 => Some(Colour::Red),
        share if share < 0.999 => Some(Colour::Yellow),
        _ => None,
    };
    (if requests == 0 { "-".into() } else { percent(share) }, colour)
}

fn quantile_cell(latency: &Sparse, q: f64) -> CellText {
    plain(latency.histogram().quantile(q).map_or("-".to_owned(), duration))
}

fn counter_cell(counters: &Counters, counter: Counter, window: Nanos) -> CellText {
    match counters[counter as usize] {
        0 => ("-".into(), Some(Colour::Dim)),
        some => (count(rate(some, window)), Some(Colour::Yellow)),
    }
}

/// The last line of a table: how far its percentiles may be off.
fn error_line(latencies: impl Iterator<Item = f64>) -> String {
    let most = latencies.fold(0.0, f64::max);
    format!("percentiles within ±{:.2}%, rates per second", most * 100.0)
}

/// `isobar stat`.
pub fn stat(rows: &[StatRow], colour: bool) -> Vec<String> {
    let head = ["SERVICE", "RATE", "SUCCESS", "P50", "P95", "P99", "RETRIES", "SHED", "CALLERS", "VERSIONS"];
    let cells: Vec<Vec<CellText>> = rows
        .iter()
        .map(|row| {
            vec![
                plain(safe(&row.service, 40)),
                plain(count(rate(row.requests, row.window))),
                success_cell(row.requests, row.errors),
                quantile_cell(&row.latency, 0.5),
                quantile_cell(&row.latency, 0.95),
                quantile_cell(&row.latency, 0.99),
                counter_cell(&row.counters, Counter::Retries, row.window),
                counter_cell(&row.counters, Counter::Shed, row.window),
                plain(row.callers.to_string()),
                plain(safe(&row.versions.join(","), 30)),
            ]
        })
        .collect();
    let mut lines = table(&head, &cells, 1, colour);
    lines.push(error_line(rows.iter().map(|row| row.latency.relative_error())));
    lines
}

/// `isobar edges`.
pub fn edges(rows: &[EdgeRow], colour: bool) -> Vec<String> {
    let head = ["FROM", "TO", "RATE", "SUCCESS", "P50", "P99", "RETRIES", "TIMEOUTS", "BREAKER", "SHED"];
    let cells: Vec<Vec<CellText>> = rows
        .iter()
        .map(|row| {
            vec![
                plain(safe(&row.source, 40)),
                plain(safe(&row.destination, 40)),
                plain(count(rate(row.requests, row.window))),
                success_cell(row.requests, row.errors),
                quantile_cell(&row.latency, 0.5),
                quantile_cell(&row.latency, 0.99),
                counter_cell(&row.counters, Counter::Retries, row.window),
                counter_cell(&row.counters, Counter::Timeouts, row.window),
                counter_cell(&row.counters, Counter::BreakerRefused, row.window),
                counter_cell(&row.counters, Counter::Shed, row.window),
            ]
        })
        .collect();
    let mut lines = table(&head, &cells, 2, colour);
    lines.push(error_line(rows.iter().map(|row| row.latency.relative_error())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::tests::series;

    fn rows() -> Vec<EdgeRow> {
        let mut fast = Sparse::default();
        (0..990).for_each(|_| fast.record(Nanos::from_millis(10)));
        let mut slow = Sparse::default();
        (0..10).for_each(|_| slow.record(Nanos::from_secs(2)));
        let failed = SeriesText { class: Class::ServerError, ..series("web", "cart", "GET /cart") };
        let mut counters = Counters::default();
        counters[Counter::Retries as usize] = 20;
        let all = [
            (series("web", "cart", "GET /cart"), fast.clone(), counters),
            (failed, slow, Counters::default()),
            (series("app", "cart", "GET /cart"), fast, Counters::default()),
            (series("web", "ads\x1b", "GET /ads"), Sparse::default(), Counters::default()),
        ];
        rollup(all.iter().map(|(text, latency, counters)| (text, latency, counters)), Nanos::from_secs(10))
    }

    #[test]
    fn edges_add_up_their_series() {
        assert_eq!(
            edges(&rows(), false),
            [
                "FROM  TO    RATE  SUCCESS     P50     P99  RETRIES  TIMEOUTS  BREAKER  SHED",
                "app   cart  99.0     100%  9.97ms  10.0ms        -         -        -     -",
                "web   ads·  0.00        -       -       -        -         -        -     -",
                "web   cart   100   99.00%  9.97ms  10.0ms     2.00         -        -     -",
                "percentiles within ±1.09%, rates per second",
            ]
        );
    }

    #[test]
    fn services_add_up_their_edges() {
        let lines = stat(&StatRow::from_edges(&rows()), false);
        let cart = lines.iter().find(|line| line.starts_with("cart")).unwrap();
        let words: Vec<_> = cart.split_whitespace().collect();
        assert_eq!((words[1], words[2], words[8], words[9]), ("199", "99.50%", "2", "v1"), "{cart}");
        assert!(stat(&StatRow::from_edges(&rows()), true)[0].starts_with("\x1b[1mSERVICE\x1b[0m"));
    }

    #[test]
    fn rows_answer_the_filter_language() {
        let names = |text: &str| -> Vec<String> {
            let rows = filter_rows(rows(), &Filter::parse(text).unwrap());
            rows.iter().map(|row| format!("{}>{}", row.source, row.destination)).collect()
        };
        assert_eq!(names("errors>0.5%"), ["web>cart"]);
        assert_eq!(names("p99>1s"), [""; 0], "ten in a thousand are just beyond the p99");
        assert_eq!(names("p99.9>1s"), ["web>cart"]);
        assert_eq!(names("rate>50/s -has:retry"), ["app>cart"]);
        assert_eq!(names("to:cart zone:b version:v1"), ["app>cart", "web>cart"]);
        assert_eq!(names("status:500"), [""; 0], "an edge has no status");
    }

    /// The mistake that other dashboards make, kept as a number.
    #[test]
    fn averaging_percentiles_would_be_wrong() {
        let (mut quiet, mut busy) = (Sparse::default(), Sparse::default());
        (0..100).for_each(|_| quiet.record(Nanos::from_secs(1)));
        (0..9_900).for_each(|_| busy.record(Nanos::from_millis(10)));
        let p99 = |sparse: &Sparse| sparse.histogram().quantile(0.985).unwrap().as_secs_f64();
        let averaged = (p99(&quiet) + p99(&busy)) / 2.0;
        busy.merge(&quiet);
        assert!(p99(&busy) < 0.011 && averaged > 0.5, "{} {averaged}", p99(&busy));
    }
}
