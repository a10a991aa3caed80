//! Promises: the SLOs of the file, watched every second, and what is said when one burns.
//!
//! In: what was counted in a second, by service. Out: budgets for whoever asks, and alerts, each with the traces that
//! show its cause. An alert becomes a change in the history (so it is on the page, in the event stream and in the
//! log's words) and a message to every webhook; none of it is on the way of a request.
//!
//! Pure but for the locks of whoever calls it: seconds come in, alerts go out.

use crate::map::Map;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use telemetry::ids::TraceId;
use telemetry::metrics::{Frame, SeriesText};
use telemetry::slo::{Alert, Change, Events, Severity, Slo, SloSettings};
use units::Nanos;

/// Alerts remembered for whoever comes later.
const ALERTS_MAX: usize = 500;
/// Traces named as an alert's cause.
pub const CAUSES_MAX: usize = 5;
/// Fewer requests in the long window prove nothing.
const EVENTS_MIN: u64 = 100;

/// What one objective counts as bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bad {
    Failed,
    SlowerThan(Nanos),
}

#[derive(Debug)]
struct Promise {
    slo: Slo,
    bad: Bad,
    /// Of the second that is going on.
    now: Events,
}

/// An alert, and when it was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub alert: Alert,
    pub unix_ms: u64,
}

#[derive(Debug)]
pub struct Promises {
    /// One second of clock is this many of windows and periods.
    time_scale: f64,
    promises: Vec<Promise>,
    by_service: HashMap<Box<str>, Vec<usize>>,
    said: VecDeque<Said>,
    /// Seconds are told apart by this.
    second: u64,
}

impl Promises {
    pub fn new(time_scale: f64) -> Self {
        Self {
            time_scale,
            promises: Vec::new(),
            by_service: HashMap::new(),
            said: VecDeque::new(),
            second: 0,
        }
    }

    /// Another file: what is promised as before keeps its budget and its windows.
    pub fn follow(&mut self, map: &Map) {
        let mut before: Vec<Promise> = std::mem::take(&mut self.promises);
        self.by_service.clear();
        for node in &map.nodes {
            let Some(slo) = &node.slo else { continue };
            let availability = slo.availability.map(|target| {
                (format!("{} availability {}", node.name, percent(target)), target, Bad::Failed)
            });
            let latency = slo.latency.iter().map(|(share, limit_ms)| {
                let limit = Nanos::from_secs_f64(limit_ms / 1e3);
                (format!("{} {} within {limit}", node.name, percent(*share)), *share, Bad::SlowerThan(limit))
            });
            for (name, target, bad) in availability.into_iter().chain(latency) {
                let settings = SloSettings {
                    name: name.as_str().into(),
                    service: node.name.as_str().into(),
                    target,
                    period: slo.window,
                    time_scale: self.time_scale,
                    events_min: EVENTS_MIN,
                };
                let kept = before.iter().position(|it| *it.slo.settings() == settings);
                let promise = match kept {
                    Some(at) => before.swap_remove(at),
                    None => Promise { slo: Slo::new(settings), bad, now: Events::default() },
                };
                self.by_service.entry(node.name.as_str().into()).or_default().push(self.promises.len());
                self.promises.push(promise);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.promises.is_empty()
    }

    /// Adds what a frame says of services that promised something.
    pub fn count<'a>(
        &mut self,
        frame: &Frame,
        text: impl Fn(telemetry::metrics::SeriesId) -> Option<&'a SeriesText>,
    ) {
        for delta in &frame.deltas {
            let Some(text) = text(delta.series) else { continue };
            // What a gateway let in counts again on the edge behind it.
            let Some(promised) = self.by_service.get(&*text.destination) else { continue };
            let total = delta.latency.count();
            if total == 0 {
                continue;
            }
            for at in promised {
                let promise = &mut self.promises[*at];
                let bad = match promise.bad {
                    Bad::Failed if text.class.failed() => total,
                    Bad::Failed => 0,
                    Bad::SlowerThan(limit) => total - delta.latency.histogram().count_at_most(limit),
                };
                promise.now.total += total;
                promise.now.bad += bad;
            }
        }
    }

    /// Closes the second if it is over. `causes` is asked for traces only when an alert fires.
    pub fn tick(
        &mut self,
        now: Nanos,
        unix_ms: u64,
        causes: impl Fn(&str, Bad) -> Vec<TraceId>,
    ) -> Vec<Said> {
        let second = now.as_u64() / 1_000_000_000;
        if second == self.second {
            return Vec::new();
        }
        self.second = second;
        let mut said = Vec::new();
        for promise in &mut self.promises {
            let (service, bad) = (promise.slo.settings().service.clone(), promise.bad);
            let events = std::mem::take(&mut promise.now);
            let alerts = promise.slo.tick(now, events, || causes(&service, bad));
            said.extend(alerts.into_iter().map(|alert| Said { alert, unix_ms }));
        }
        for it in &said {
            if self.said.len() >= ALERTS_MAX {
                self.said.pop_front();
            }
            self.said.push_back(it.clone());
        }
        said
    }

    /// Services one of whose alerts is firing.
    pub fn burning(&self) -> impl Iterator<Item = &str> {
        let firing = |it: &&Promise| it.slo.view().rules.iter().any(|rule| rule.firing);
        self.promises.iter().filter(firing).map(|it| &*it.slo.settings().service)
    }

    /// Objective, service, and the share of its budget that is left.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.promises.iter().map(|it| {
            let settings = it.slo.settings();
            (&*settings.name, &*settings.service, it.slo.view().budget_left)
        })
    }

    /// `GET /v1/slo`
    pub fn document(&self, unix_ms: u64) -> Value {
        let slos: Vec<Value> = self.promises.iter().map(|it| self.row(it)).collect();
        json!({"version": 1, "unix_ms": unix_ms, "time_scale": self.time_scale, "slos": slos})
    }

    /// What the page of one service shows.
    pub fn of_service(&self, service: &str) -> Vec<Value> {
        let own = self.by_service.get(service).into_iter().flatten();
        own.map(|at| self.row(&self.promises[*at])).collect()
    }

    fn row(&self, promise: &Promise) -> Value {
        let view = promise.slo.view();
        let settings = promise.slo.settings();
        let rules: Vec<Value> = view
            .rules
            .iter()
            .map(|it| {
                json!({
                    "name": it.rule.name, "severity": severity(it.rule.severity), "factor": it.factor,
                    "long_s": it.rule.long.as_secs_f64() / settings.time_scale,
                    "short_s": it.rule.short.as_secs_f64() / settings.time_scale,
                    "burn_long": it.long_burn, "burn_short": it.short_burn, "firing": it.firing,
                })
            })
            .collect();
        // What was said when those that fire began to.
        let said = |rule: &str| {
            let it = |it: &&Said| it.alert.slo == settings.name && it.alert.rule == rule;
            self.said.iter().rev().find(it).filter(|it| it.alert.change == Change::Fired).map(document)
        };
        let alerts: Vec<Value> =
            view.rules.iter().filter(|it| it.firing).filter_map(|it| said(it.rule.name)).collect();
        let limit_ms = match promise.bad {
            Bad::Failed => None,
            Bad::SlowerThan(limit) => Some(limit.as_millis_f64()),
        };
        let good = (view.events.total > 0).then(|| 1.0 - view.events.bad as f64 / view.events.total as f64);
        json!({
            "name": view.name, "service": view.service, "target": view.target, "limit_ms": limit_ms,
            "period_s": settings.period.as_secs_f64(), "events": view.events.total, "bad": view.events.bad,
            "good": good, "budget_left": view.budget_left,
            "firing": view.rules.iter().any(|it| it.firing), "rules": rules, "alerts": alerts,
        })
    }

    /// `GET /v1/alerts`, newest first.
    pub fn alerts(&self) -> Value {
        json!({"version": 1, "alerts": self.said.iter().rev().map(document).collect::<Vec<_>>()})
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Page => "page",
        Severity::Ticket => "ticket",
    }
}

/// An alert as webhooks and `/v1/alerts` carry it.
pub fn document(said: &Said) -> Value {
    let it = &said.alert;
    json!({
        "slo": it.slo, "service": it.service, "severity": severity(it.severity), "rule": it.rule,
        "change": if it.change == Change::Fired { "fired" } else { "cleared" }, "at": said.unix_ms,
        "burn_long": it.long_burn, "burn_short": it.short_burn, "factor": it.factor,
        "budget_lasts_s": it.budget_lasts.as_secs_f64(),
        "traces": it.traces.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "text": it.line(),
    })
}

/// `99.95 %` without the digits nobody wrote.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Node, Slo as Promised};
    use telemetry::metrics::{Class, Delta, SeriesId, Sparse};

    fn map(availability: f64) -> Map {
        let slo = Promised {
            availability: Some(availability),
            latency: vec![(0.99, 100.0)],
            window: Nanos::from_secs(30 * 86_400),
        };
        let node = Node { name: "cart".into(), kind: "http", slo: Some(slo), ..Node::default() };
        Map {
            nodes: vec![node, Node { name: "ads".into(), kind: "http", ..Node::default() }],
            ..Map::default()
        }
    }

    fn text(destination: &str, class: Class) -> SeriesText {
        let none: std::sync::Arc<str> = "".into();
        SeriesText {
            source: "web".into(),
            destination: destination.into(),
            operation: none.clone(),
            version: none.clone(),
            source_zone: none.clone(),
            destination_zone: none,
            class,
        }
    }

    /// A second in which cart answered `good` times in 10 ms, `slow` times in 200 ms and failed `bad` times.
    fn second(promises: &mut Promises, at: u64, good: u64, slow: u64, bad: u64) -> Vec<Said> {
        let texts =
            [text("cart", Class::Success), text("cart", Class::ServerError), text("ads", Class::ServerError)];
        let delta = |series, times: &[(u64, u64)]| {
            let mut latency = Sparse::default();
            for (millis, many) in times {
                (0..*many).for_each(|_| latency.record(Nanos::from_millis(*millis)));
            }
            Delta { series: SeriesId(series), latency, counters: Default::default() }
        };
        let frame = Frame {
            deltas: vec![delta(0, &[(10, good), (200, slow)]), delta(1, &[(10, bad)]), delta(2, &[(10, 50)])],
            ..Frame::default()
        };
        promises.count(&frame, |series| texts.get(series.0 as usize));
        promises.tick(Nanos::from_secs(at), at * 1_000, |service, _| {
            assert_eq!(service, "cart");
            TraceId::new(9).into_iter().collect()
        })
    }

    #[test]
    fn a_burning_budget_is_said_once_with_its_cause_and_taken_back() {
        let mut promises = Promises::new(8_640.0);
        promises.follow(&map(0.999));
        let mut lines = Vec::new();
        for at in 1..=60 {
            let (good, bad) = if (20..40).contains(&at) { (50, 50) } else { (100, 0) };
            lines.extend(second(&mut promises, at, good, 0, bad));
        }
        let paged = |it: &&Said| it.alert.severity == Severity::Page && it.alert.change == Change::Fired;
        assert!(lines.iter().filter(paged).all(|it| it.alert.traces.len() == 1));
        assert!(lines.iter().any(|it| paged(&it)), "{lines:?}");
        assert!(lines.iter().any(|it| it.alert.change == Change::Cleared));
        assert!(lines.iter().all(|it| it.alert.slo.contains("availability 99.9%")), "{lines:?}");
        assert_eq!(promises.alerts()["alerts"].as_array().map(Vec::len), Some(lines.len()));
        let left = promises.document(0)["slos"][0]["budget_left"].as_f64().expect("a number");
        assert!(left < 0.0, "a tenth of a month of half failures: {left}");
    }

    #[test]
    fn slow_answers_burn_the_promise_of_speed_and_no_other() {
        let mut promises = Promises::new(8_640.0);
        promises.follow(&map(0.999));
        let fired: Vec<_> = (1..=30).flat_map(|at| second(&mut promises, at, 50, 50, 0)).collect();
        assert!(
            !fired.is_empty() && fired.iter().all(|it| it.alert.slo.contains("99% within 100ms")),
            "{fired:?}"
        );
        assert_eq!(promises.burning().collect::<Vec<_>>(), ["cart"]);
        let document = promises.document(0);
        let alert = &document["slos"][1]["alerts"][0];
        assert!(alert["traces"][0].is_string() && alert["text"].is_string(), "{document}");
        assert_eq!(document["slos"][0]["alerts"].as_array().map(Vec::len), Some(0));
    }

    #[test]
    fn what_is_promised_as_before_keeps_its_budget() {
        let mut promises = Promises::new(1.0);
        promises.follow(&map(0.999));
        second(&mut promises, 1, 100, 0, 100);
        promises.follow(&map(0.999));
        assert_eq!(promises.document(0)["slos"][0]["bad"], 100);
        promises.follow(&map(0.99));
        assert_eq!(promises.document(0)["slos"][0]["bad"], 0, "another promise begins anew");
        assert_eq!(promises.document(0)["slos"][1]["events"], 200, "and the one of speed goes on");
    }
}
