//! Requests as they end, for whoever looks: a stream of lines, sampled, with nobody's secrets in it.
//!
//! The watcher hands every batch of finished requests to [`Taps`], which gives each reader what its filter takes. A
//! reader gets at most so many a second, spread over the batch; what it does not get is counted and told, once a second.
//! Nothing here makes a request wait, and while nobody looks nothing is made.
//!
//! A path is cut before its query, and what looks like a token, a key or an address in it becomes `…`: a terminal at
//! three in the morning ends up in a chat.

use crate::api::{Refusal, lock};
use crate::compile::parties;
use crate::spans::method;
use crate::status::{InstanceStatus, Status};
use proxy::record::Finished;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Mutex;
use telemetry::filter::Filter;
use telemetry::ids::TraceId;
use telemetry::views::TapEvent;
use tokio::sync::mpsc;
use units::Nanos;

/// Readers at once.
const TAPS_MAX: usize = 16;
/// Requests a second to one reader: more than anyone reads, less than a terminal can print.
pub const PER_SECOND: usize = 100;
pub(super) const PER_SECOND_MAX: usize = 1_000;
/// Lines on their way to a reader that is slow.
const LINES_MAX: usize = 1_024;
const TALLY_EVERY: Nanos = Nanos::from_secs(1);
pub const LIMIT_MAX: usize = 1_000_000;

/// One line of `GET /v1/tap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum TapLine {
    Request(Box<Tapped>),
    Tally(Tally),
}

/// What became of everything that ended so far. Comes once a second, and last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub ended: u64,
    pub matched: u64,
    pub shown: u64,
    /// Matched, but over the rate of this reader.
    pub sampled_out: u64,
    /// Would have been shown, but the reader did not take them in time.
    pub dropped: u64,
    pub per_second: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tapped {
    /// Wall-clock milliseconds.
    pub at_unix_ms: f64,
    pub from: String,
    pub from_instance: Option<String>,
    pub to: String,
    pub to_instance: Option<String>,
    pub operation: String,
    pub path: String,
    /// `None`: no answer was sent.
    pub status: Option<u16>,
    pub duration_ms: f64,
    pub attempts: u32,
    /// `retry`, `hedge`, `timeout`, `breaker`, `fault`.
    pub marks: Vec<String>,
    /// Why the proxy answered itself.
    pub why: Option<String>,
    pub version: Option<String>,
    pub from_zone: Option<String>,
    pub to_zone: Option<String>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub trace_id: Option<String>,
}

const MARKS: [&str; 5] = ["retry", "hedge", "timeout", "breaker", "fault"];

impl Tapped {
    /// As the filter and the terminal know it.
    pub fn event(&self) -> TapEvent {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let nanos = |ms: f64| Nanos((ms.max(0.0) * 1e6) as u64);
        TapEvent {
            at: nanos(self.at_unix_ms),
            source: self.from.clone(),
            destination: self.to.clone(),
            instance: text(&self.to_instance),
            operation: self.operation.clone(),
            version: text(&self.version),
            source_zone: text(&self.from_zone),
            destination_zone: text(&self.to_zone),
            status: self.status.unwrap_or(0),
            duration: nanos(self.duration_ms),
            attempts: self.attempts,
            marks: MARKS.into_iter().filter(|it| self.marks.iter().any(|own| own == it)).collect(),
            trace_id: self.trace_id.as_deref().and_then(TraceId::from_otlp_hex),
        }
    }
}

/// Who is behind an address, and where a caller stands.
#[derive(Debug, Default)]
pub(crate) struct Stands<'a> {
    by_port: HashMap<u16, &'a InstanceStatus>,
    by_name: HashMap<&'a str, &'a InstanceStatus>,
}

impl<'a> Stands<'a> {
    pub(crate) fn of(status: &'a Status) -> Self {
        let all = || status.services.iter().flat_map(|it| &it.instances);
        Self {
            by_port: all().filter_map(|it| Some((it.port?, it))).collect(),
            by_name: all().map(|it| (it.name.as_str(), it)).collect(),
        }
    }
}

/// `edge` is the name of the edge that the record was counted on.
pub(crate) fn tapped(record: &Finished, edge: &str, stands: &Stands<'_>) -> Option<Tapped> {
    let (from, to) = parties(edge)?;
    let slot = edge.split("->").next().filter(|it| it.contains('#'));
    let caller = slot.and_then(|it| stands.by_name.get(it));
    let callee = record.instance.and_then(|it| stands.by_port.get(&it.port()));
    let path = redact(record.path());
    let operation = match edge.split_once('"') {
        Some((_, rest)) => rest.trim_end_matches('"').to_owned(),
        None => format!("{} {path}", method(record.method)),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let happened = [
        ("retry", record.tries.as_ref().is_some_and(|it| it.iter().skip(1).any(|attempt| !attempt.is_hedge))),
        ("timeout", record.error.contains("timeout") || record.error.contains("deadline")),
        ("breaker", record.breaker_open || record.error.contains("breaker")),
        ("fault", !record.fault.is_empty()),
        ("hedge", record.tries.as_ref().is_some_and(|it| it.iter().any(|attempt| attempt.is_hedge))),
    ];
    Some(Tapped {
        at_unix_ms: (record.started_unix + record.duration).as_millis_f64(),
        from: from.to_owned(),
        from_instance: slot.map(str::to_owned),
        to: to.to_owned(),
        to_instance: callee.map(|it| it.name.clone()),
        operation,
        path,
        status: (record.status > 0).then_some(record.status),
        duration_ms: record.duration.as_millis_f64(),
        attempts: u32::from(record.attempts),
        marks: happened.into_iter().filter(|(_, it)| *it).map(|(word, _)| word.to_owned()).collect(),
        why: some(record.error),
        version: callee.and_then(|it| some(&it.version)),
        from_zone: caller.and_then(|it| some(&it.place)),
        to_zone: callee.and_then(|it| some(&it.place)),
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
        trace_id: TraceId::new(record.trace_id).map(|it| it.to_string()),
    })
}

/// Without the query, and without what may be a secret or a person.
fn redact(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or("");
    path.split('/').map(|it| if is_private(it) { "…" } else { it }).collect::<Vec<_>>().join("/")
}

/// Addresses of people, and long runs of letters and digits mixed: tokens, keys, sessions.
fn is_private(segment: &str) -> bool {
    const LONG: usize = 20;
    let has = |what: fn(&u8) -> bool| segment.as_bytes().iter().any(what);
    segment.contains('@')
        || segment.contains("%40")
        || (segment.len() >= LONG && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic))
}

/// Everybody who looks.
#[derive(Debug, Default)]
pub struct Taps {
    readers: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    filter: Filter,
    lines: mpsc::Sender<TapLine>,
    tally: Tally,
    /// Requests it may still have. A batch a quarter of a second long brings a quarter of a second's worth.
    credit: f64,
    seen_at: Nanos,
    told_at: Nanos,
}

impl Taps {
    /// Whether making events is worth the while.
    pub fn are_open(&self) -> bool {
        !lock(&self.readers).is_empty()
    }

    pub(super) fn open(
        &self,
        filter: Filter,
        per_second: usize,
        now: Nanos,
    ) -> Result<mpsc::Receiver<TapLine>, Refusal> {
        let mut readers = lock(&self.readers);
        readers.retain(|it| !it.lines.is_closed());
        if readers.len() >= TAPS_MAX {
            let message = format!("{TAPS_MAX} taps are open already; close one");
            return Err(Refusal { status: 503, message });
        }
        let (lines, receiver) = mpsc::channel(LINES_MAX);
        let tally = Tally { per_second: per_second as u64, ..Tally::default() };
        readers.push(Reader { filter, lines, tally, credit: per_second as f64, seen_at: now, told_at: now });
        Ok(receiver)
    }

    /// Gives a batch to everyone. Readers that have gone are forgotten.
    pub fn offer(&self, batch: &[Tapped], now: Nanos) {
        let mut readers = lock(&self.readers);
        readers.retain(|it| !it.lines.is_closed());
        if readers.is_empty() {
            return;
        }
        let events: Vec<TapEvent> = batch.iter().map(Tapped::event).collect();
        readers.iter_mut().for_each(|it| it.take(batch, &events, now));
    }
}

impl Reader {
    fn take(&mut self, batch: &[Tapped], events: &[TapEvent], now: Nanos) {
        let most = self.tally.per_second as f64;
        self.credit = (self.credit + most * now.saturating_sub(self.seen_at).as_secs_f64()).min(most);
        self.seen_at = now;
        let matched: Vec<&Tapped> =
            batch.iter().zip(events).filter(|(_, it)| self.filter.matches(*it)).map(|(it, _)| it).collect();
        let room = matched.len().min(self.credit as usize);
        self.credit -= room as f64;
        self.tally.ended += batch.len() as u64;
        self.tally.matched += matched.len() as u64;
        self.tally.sampled_out += (matched.len() - room) as u64;
        // Evenly over the batch: its first requests are no fair picture of it.
        for at in (0..room).map(|it| it * matched.len() / room) {
            match self.lines.try_send(TapLine::Request(Box::new(matched[at].clone()))) {
                Ok(()) => self.tally.shown += 1,
                Err(_) => self.tally.dropped += 1,
            }
        }
        if now.saturating_sub(self.told_at) >= TALLY_EVERY {
            self.told_at = now;
            // A reader too slow for its tally gets the next one, which holds this one's counts.
            let _ = self.lines.try_send(TapLine::Tally(self.tally));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: u16) -> Tapped {
        Tapped {
            from: "web".into(),
            to: "cart".into(),
            status: Some(status),
            attempts: 1,
            ..Tapped::default()
        }
    }

    /// Requests and the newest tally among what a reader was sent.
    fn read(lines: &mut mpsc::Receiver<TapLine>) -> (usize, Option<Tally>) {
        let (mut requests, mut tally) = (0, None);
        while let Ok(line) = lines.try_recv() {
            match line {
                TapLine::Request(_) => requests += 1,
                TapLine::Tally(it) => tally = Some(it),
            }
        }
        (requests, tally)
    }

    #[test]
    fn a_reader_gets_its_share_and_hears_of_the_rest() {
        let taps = Taps::default();
        assert!(!taps.are_open());
        let mut lines = taps.open(Filter::parse("status:5xx").unwrap(), 8, Nanos(0)).unwrap();
        let batch: Vec<Tapped> = (0..100).map(|at| ended(if at % 2 == 0 { 503 } else { 200 })).collect();
        taps.offer(&batch, Nanos::from_millis(250));
        assert_eq!(read(&mut lines).0, 8, "a second's worth to begin with");
        taps.offer(&batch, Nanos::from_millis(500));
        assert_eq!(read(&mut lines).0, 2, "then what a quarter of a second brings");
        taps.offer(&[], Nanos::from_millis(1_000));
        let (none, tally) = read(&mut lines);
        let expected =
            Tally { ended: 200, matched: 100, shown: 10, sampled_out: 90, dropped: 0, per_second: 8 };
        assert_eq!((none, tally), (0, Some(expected)));
        drop(lines);
        taps.offer(&batch, Nanos::from_secs(2));
        assert!(!taps.are_open(), "who has gone is forgotten");
    }

    #[test]
    fn a_sample_is_spread_over_its_batch() {
        let taps = Taps::default();
        let mut lines = taps.open(Filter::default(), 4, Nanos(0)).unwrap();
        let batch: Vec<Tapped> = (0..100).map(|at| ended(200 + at)).collect();
        taps.offer(&batch, Nanos(1));
        let mut got = Vec::new();
        while let Ok(TapLine::Request(it)) = lines.try_recv() {
            got.extend(it.status);
        }
        assert_eq!(got, [200, 225, 250, 275]);
    }

    #[test]
    fn a_slow_reader_loses_lines_and_they_are_counted() {
        let taps = Taps::default();
        let mut lines = taps.open(Filter::default(), PER_SECOND_MAX, Nanos(0)).unwrap();
        let batch: Vec<Tapped> = (0..600).map(|_| ended(200)).collect();
        for second in 1..=3 {
            taps.offer(&batch, Nanos::from_secs(second));
        }
        assert_eq!(read(&mut lines).0, LINES_MAX - 1, "one place was a tally's");
        taps.offer(&[], Nanos::from_secs(5));
        let tally = read(&mut lines).1.expect("a tally");
        assert_eq!((tally.matched, tally.shown + tally.dropped), (1_800, 1_800));
        assert!(tally.dropped > 700);
    }

    #[test]
    fn readers_are_few() {
        let taps = Taps::default();
        let held: Vec<_> =
            (0..TAPS_MAX).map(|_| taps.open(Filter::default(), 1, Nanos(0)).unwrap()).collect();
        assert_eq!(taps.open(Filter::default(), 1, Nanos(0)).unwrap_err().status, 503);
        drop(held);
        assert!(taps.open(Filter::default(), 1, Nanos(0)).is_ok());
    }

    #[test]
    fn paths_keep_no_secrets() {
        for (path, shown) in [
            ("/cart/17", "/cart/17"),
            ("/cart/17?token=abc", "/cart/17"),
            ("/reset/4bf92f3577b34da6a3ce929d0e0e4736", "/reset/…"),
            ("/users/ann@example.org/cart", "/users/…/cart"),
            ("/users/ann%40example.org", "/users/…"),
            ("/a-long-name-of-a-page-in-words", "/a-long-name-of-a-page-in-words"),
            ("", ""),
        ] {
            assert_eq!(redact(path), shown, "{path}");
        }
    }

    #[test]
    fn a_line_is_one_object_with_its_kind() {
        let line = TapLine::Tally(Tally { ended: 3, ..Tally::default() });
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.starts_with(r#"{"line":"tally","ended":3"#), "{text}");
        assert_eq!(serde_json::from_str::<TapLine>(&text).unwrap(), line);
        let line = TapLine::Request(Box::new(Tapped { marks: vec!["retry".into()], ..ended(503) }));
        let back: TapLine = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        assert_eq!(back, line);
        let TapLine::Request(it) = back else { unreachable!("it went in as a request") };
        assert_eq!((it.event().marks, it.event().status), (vec!["retry"], 503));
    }
}
