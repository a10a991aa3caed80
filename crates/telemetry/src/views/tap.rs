//! One finished request on one line.

use super::{Colour, duration, paint, safe};
use crate::filter::{Number, Row, Word};
use crate::ids::TraceId;
use std::borrow::Cow;
use units::Nanos;

/// A request as the proxy saw it end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapEvent {
    /// Since the Unix epoch.
    pub at: Nanos,
    pub source: String,
    pub destination: String,
    pub instance: String,
    pub operation: String,
    pub version: String,
    pub source_zone: String,
    pub destination_zone: String,
    /// 0: no answer.
    pub status: u16,
    pub duration: Nanos,
    pub attempts: u32,
    /// What else happened: `retry`, `fault`, `breaker`, `timeout`, `hedge`, `canary`.
    pub marks: Vec<&'static str>,
    pub trace_id: Option<TraceId>,
}

impl TapEvent {
    pub fn failed(&self) -> bool {
        self.status == 0 || self.status >= 500
    }
}

impl Row for TapEvent {
    fn words(&self, word: &Word) -> Vec<Cow<'_, str>> {
        let known = |texts: &[&'_ str]| -> Vec<Cow<'_, str>> {
            texts.iter().filter(|text| !text.is_empty()).map(|text| Cow::Owned((*text).to_owned())).collect()
        };
        match word {
            Word::Any => known(&[&self.source, &self.destination, &self.operation, &self.instance]),
            Word::Service => known(&[&self.source, &self.destination]),
            Word::Source => known(&[&self.source]),
            Word::Destination => known(&[&self.destination]),
            Word::Operation => known(&[&self.operation]),
            Word::Version => known(&[&self.version]),
            // A zone answers to its whole name and to its last part: `eu-west/b` is `b`, too.
            Word::Zone => {
                let last =
                    |zone: &str| zone.rsplit_once('/').map(|(_, zone)| zone.to_owned()).unwrap_or_default();
                let (source, destination) = (last(&self.source_zone), last(&self.destination_zone));
                known(&[&self.source_zone, &self.destination_zone, &source, &destination])
            }
            Word::Instance => known(&[&self.instance]),
            Word::Trace => self.trace_id.iter().map(|id| Cow::Owned(id.to_string())).collect(),
            Word::Has => {
                let error = self.failed().then_some("error");
                error.into_iter().chain(self.marks.iter().copied()).map(Cow::Borrowed).collect()
            }
            Word::Team | Word::Kind | Word::Tag(_) => Vec::new(),
        }
    }

    fn number(&self, number: Number) -> Option<f64> {
        match number {
            Number::Status => Some(f64::from(self.status)),
            Number::Duration => Some(self.duration.as_secs_f64()),
            Number::Attempts => Some(f64::from(self.attempts)),
            _ => None,
        }
    }

    fn edges(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        vec![(Cow::Borrowed(&self.source), Cow::Borrowed(&self.destination))]
    }
}

/// Wide enough for most, so that lines stand under each other; what is longer pushes the rest.
const EDGE_WIDTH: usize = 18;
const OPERATION_WIDTH: usize = 18;

/// `12:34:56.789 503 1.23ms  web → cart  GET /cart  cart-0@b v1.3  2 attempts [retry]  trace 4bf92f35…`, times in UTC;
/// first what an eye runs down a column of.
pub fn tap_line(event: &TapEvent, colour: bool) -> String {
    let millis = event.at.0 / 1_000_000;
    let (seconds, millis) = (millis / 1_000 % 86_400, millis % 1_000);
    let clock = format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let status = match event.status {
        0 => "---".to_owned(),
        status => status.to_string(),
    };
    let shade = match event.status {
        0 | 500.. => Colour::Red,
        400..500 => Colour::Yellow,
        _ => Colour::Green,
    };
    let mut line = format!(
        "{} {} {:>6}  {:<EDGE_WIDTH$}  {:<OPERATION_WIDTH$}",
        paint(&clock, Some(Colour::Dim), colour),
        paint(&status, Some(shade), colour),
        duration(event.duration),
        format!("{} → {}", safe(&event.source, 40), safe(&event.destination, 40)),
        safe(&event.operation, 60),
    );
    if !event.instance.is_empty() {
        line += &format!("  {}", safe(&event.instance, 40));
        if !event.destination_zone.is_empty() {
            line += &format!("@{}", safe(&event.destination_zone, 20));
        }
    }
    if !event.version.is_empty() {
        line += &format!(" {}", safe(&event.version, 20));
    }
    if event.attempts > 1 {
        line += &format!("  {} attempts", event.attempts);
    }
    if !event.marks.is_empty() {
        line += &paint(&format!(" [{}]", event.marks.join(", ")), Some(Colour::Yellow), colour);
    }
    if let Some(id) = event.trace_id {
        line += &format!("  {}", paint(&format!("trace {id}"), Some(Colour::Dim), colour));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;

    fn event() -> TapEvent {
        TapEvent {
            at: Nanos(1_600_000_000_123_000_000),
            source: "web".into(),
            destination: "cart".into(),
            instance: "cart-0".into(),
            operation: "GET /cart".into(),
            version: "v1.3".into(),
            source_zone: "a".into(),
            destination_zone: "b".into(),
            status: 503,
            duration: Nanos::from_micros(1_230),
            attempts: 2,
            marks: vec!["retry"],
            trace_id: TraceId::new(0xabc),
        }
    }

    #[test]
    fn a_request_is_one_line() {
        assert_eq!(
            tap_line(&event(), false),
            "12:26:40.123 503 1.23ms  web → cart          GET /cart           cart-0@b v1.3  2 attempts [retry]  trace 00000000000000000000000000000abc"
        );
        let lost = TapEvent { status: 0, operation: "a\nb".into(), ..TapEvent::default() };
        assert_eq!(tap_line(&lost, false).trim_end(), "00:00:00.000 ---      0   →                  a·b");
        assert!(tap_line(&event(), true).contains("\x1b[31m503\x1b[0m"));
    }

    #[test]
    fn requests_answer_the_filter_language() {
        let check = |text: &str, expected: bool| {
            assert_eq!(Filter::parse(text).unwrap().matches(&event()), expected, "{text}");
        };
        check("service:cart status>=500 zone:b version:v1.3", true);
        check("has:error has:retry attempts>1", true);
        check("service:web->cart duration>1ms", true);
        check("status:2xx", false);
        check("p99>1ms", false);
        check("trace:00000000000000000000000000000abc", true);
    }
}
