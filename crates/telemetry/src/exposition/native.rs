//! Prometheus' protobuf exposition, the only form in which it scrapes native histograms.

use super::{COUNTERS, CounterName, Kind, LATENCY, LATENCY_HELP, Page, labels};
use crate::metrics::SeriesText;
use crate::protobuf::{Writer, put_length_prefixed};
use units::Histogram;

const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const HISTOGRAM: u64 = 4;

/// Smaller than any duration but zero; a threshold of zero and no buckets would read as a classic histogram.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// Prometheus takes more, but at 320 an octave-wide distribution still keeps our finest schema.
const BUCKETS_MAX: usize = 320;

pub(super) fn write(page: &Page<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if !page.series.is_empty() {
        family(&mut out, LATENCY, LATENCY_HELP, HISTOGRAM, |writer| {
            for series in page.series {
                writer.message(4, |writer| {
                    series_labels(writer, series.text);
                    writer.message(7, |writer| histogram(writer, series.latency));
                });
            }
        });
    }
    for CounterName { counter, name, help, scale } in &COUNTERS {
        let some: Vec<_> =
            page.series.iter().filter(|series| series.counters[*counter as usize] > 0).collect();
        if !some.is_empty() {
            family(&mut out, &format!("{name}_total"), help, COUNTER, |writer| {
                for series in some {
                    writer.message(4, |writer| {
                        series_labels(writer, series.text);
                        let value = series.counters[*counter as usize] as f64 * scale;
                        writer.message(3, |writer| writer.double(1, value));
                    });
                }
            });
        }
    }
    for one in page.families {
        let (kind, field, suffix) = match one.kind {
            Kind::Gauge => (GAUGE, 2, ""),
            Kind::Counter => (COUNTER, 3, "_total"),
        };
        family(&mut out, &format!("{}{suffix}", one.name), &one.help, kind, |writer| {
            for (labels, value) in &one.samples {
                writer.message(4, |writer| {
                    labels.iter().for_each(|(name, value)| label(writer, name, value));
                    writer.message(field, |writer| writer.double(1, *value));
                });
            }
        });
    }
    for one in page.histograms {
        family(&mut out, one.name, one.help, HISTOGRAM, |writer| {
            writer.message(4, |writer| writer.message(7, |writer| histogram(writer, one.values)));
        });
    }
    out
}

fn family(out: &mut Vec<u8>, name: &str, help: &str, kind: u64, metrics: impl FnOnce(&mut Writer<'_>)) {
    put_length_prefixed(out, |out| {
        let mut writer = Writer::new(out);
        writer.text(1, name);
        writer.text(2, help);
        writer.varint(3, kind);
        metrics(&mut writer);
    });
}

fn label(writer: &mut Writer<'_>, name: &str, value: &str) {
    writer.message(1, |writer| {
        writer.text(1, name);
        writer.text(2, value);
    });
}

fn series_labels(writer: &mut Writer<'_>, text: &SeriesText) {
    for (name, value) in labels(text) {
        label(writer, name.prometheus, value);
    }
}

/// Runs of buckets and, within them, the difference of each count from the one before.
fn histogram(writer: &mut Writer<'_>, latency: &Histogram) {
    let exported = latency.export(BUCKETS_MAX);
    writer.varint(1, exported.count);
    writer.double(2, exported.sum as f64 / 1e9);
    writer.sint32(5, exported.scale);
    writer.double(6, ZERO_THRESHOLD);
    writer.varint(7, exported.zero_count);
    let (spans, deltas) = spans_and_deltas(exported.offset + 1, &exported.counts);
    for (offset, length) in &spans {
        writer.message(12, |writer| {
            writer.sint32(1, *offset);
            writer.varint(2, u64::from(*length));
        });
    }
    if spans.is_empty() {
        // An empty span says "native" where there is nothing else to say it.
        writer.message(12, |writer| {
            writer.sint32(1, 0);
            writer.varint(2, 0);
        });
    } else {
        writer.packed_varints(13, deltas.iter().map(|delta| (delta << 1 ^ delta >> 63) as u64));
    }
}

/// Gaps of one or two empty buckets are cheaper written as zeros than as a new span.
fn spans_and_deltas(first: i32, counts: &[u64]) -> (Vec<(i32, u32)>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<(i32, u32)>, Vec<i64>) = (Vec::new(), Vec::new());
    let mut last = 0i64;
    // Where the next bucket would be if the span went on.
    let mut next = 0i32;
    for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let index = first + at as i32;
        match spans.last_mut() {
            Some((_, length)) if index - next <= 2 => {
                for _ in next..index {
                    deltas.push(-last);
                    last = 0;
                    *length += 1;
                }
                *length += 1;
            }
            // The first offset is from zero, later ones from the end of the span before: `next` is both.
            _ => spans.push((index - next, 1)),
        }
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        deltas.push(count - last);
        last = count;
        next = index + 1;
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::Nanos;

    fn expand(spans: &[(i32, u32)], deltas: &[i64]) -> Vec<(i32, u64)> {
        let (mut index, mut count, mut at, mut out) = (0, 0i64, 0, Vec::new());
        for (offset, length) in spans {
            index += offset;
            for _ in 0..*length {
                count += deltas[at];
                at += 1;
                if count > 0 {
                    out.push((index, count as u64));
                }
                index += 1;
            }
        }
        assert_eq!(at, deltas.len());
        out
    }

    #[test]
    fn runs_are_written_as_prometheus_reads_them() {
        let (spans, deltas) = spans_and_deltas(-3, &[2, 0, 3, 0, 0, 0, 5, 5]);
        assert_eq!(spans, [(-3, 3), (3, 2)]);
        assert_eq!(deltas, [2, -2, 3, 2, 0]);
        assert_eq!(expand(&spans, &deltas), [(-3, 2), (-1, 3), (3, 5), (4, 5)]);
        assert_eq!(spans_and_deltas(5, &[]), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn no_count_is_lost(values in proptest::collection::vec(0u64..1 << 42, 0..100)) {
            let mut latency = Histogram::new();
            values.iter().for_each(|value| latency.record(Nanos(*value)));
            let exported = latency.export(BUCKETS_MAX);
            let (spans, deltas) = spans_and_deltas(exported.offset + 1, &exported.counts);
            let expanded = expand(&spans, &deltas);
            let sum: u64 = expanded.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(sum + exported.zero_count, values.len() as u64);
            if exported.scale == Histogram::SCALE {
                let ours: Vec<_> = latency.buckets().filter_map(|it| Some((i32::from(it.index?), it.count))).collect();
                prop_assert_eq!(expanded, ours, "indices are Prometheus' own");
            }
        }
    }
}
