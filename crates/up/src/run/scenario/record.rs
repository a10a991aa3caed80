//! What was seen of a running system while a scenario played: counts and histograms, by call, operation and instance.
//!
//! In: finished requests as the proxy tells them. Out: the numbers a report is made of. Pure but for the names it is
//! handed. Everything is counted ten times over in *groups*, so that a report can say how much its numbers would differ
//! if the same time were measured again: see [`Groups`].
//!
//! Bounded: groups and histograms do not grow with time, and the causes of failures still on their way up are forgotten
//! after the last [`ROOTS_MAX`].

use crate::synthetic::RequestLine;
use control::compile::parties;
use control::spans::method;
use model::system::{Caller, Expectation, Limit, Measure, System};
use proxy::record::Finished;
use sim::meter::{Cause, Requests};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use units::{Histogram, Nanos};

use super::play::Seen;

/// Parts that a measured time is dealt to.
pub(crate) const GROUPS: usize = 10;
/// Failures whose callers have not answered yet.
const ROOTS_MAX: usize = 100_000;
/// Failed calls of one trace that are remembered until their callers answer.
const UNANSWERED_MAX: usize = 64;
/// Seconds behind what an expectation is worth lately.
pub(crate) const LATELY: usize = 10;
/// Fewer requests than this say nothing about a share or a percentile.
const JUDGED_MIN: u64 = 20;

/// How seconds are dealt to groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// In turn: each group saw all of a story that has a beginning and an end.
    InTurn,
    /// In a row: neighbouring seconds, which resemble each other, are in one group.
    InARow { lasts: Nanos },
}

impl Groups {
    pub(crate) fn of(self, at: Nanos) -> usize {
        match self {
            Self::InTurn => (at.as_u64() / 1_000_000_000) as usize % GROUPS,
            Self::InARow { lasts } => {
                let tenth = (lasts.as_u64() / GROUPS as u64).max(1);
                ((at.as_u64() / tenth) as usize).min(GROUPS - 1)
            }
        }
    }
}

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) service: String,
    /// `web#0`
    pub(crate) slot: String,
    /// `eu-west/a`
    pub(crate) place: String,
}

/// All calls of one operation by one caller.
#[derive(Clone, Debug)]
pub(crate) struct CallSeen {
    pub(crate) requests: Vec<Requests>,
    pub(crate) attempts: Vec<u64>,
    pub(crate) calls: Vec<u64>,
    pub(crate) hedges: u64,
    pub(crate) timeouts: u64,
    /// Failures that the caller's answer hid.
    pub(crate) hidden: u64,
    /// Failures of callers that pass no trace on: nobody can say what became of them.
    pub(crate) astray: u64,
    pub(crate) in_zone: u64,
    pub(crate) placed: u64,
    /// Of what instances answered: from sending to the head of the reply. Where places are felt, the time of a call from
    /// elsewhere is mostly that of the way, so it is counted and its time is not.
    pub(crate) at_instance: Vec<Requests>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct InstanceSeen {
    pub(crate) service: String,
    pub(crate) place: String,
    pub(crate) arrivals: Vec<u64>,
    pub(crate) failed: u64,
    /// Nanoseconds of requests at this instance, added up: what it was given, worked on or waiting.
    pub(crate) held: Vec<u64>,
}

/// Caller, callee, operation.
type CallKey = (String, String, String);

/// What an expectation is about, and its last seconds.
#[derive(Clone, Debug)]
struct Watch {
    service: String,
    operation: Option<String>,
    is_gateway: bool,
    measure: Measure,
    seconds: VecDeque<Requests>,
    whole: Requests,
}

/// Names and operations, to tell what a request was.
#[derive(Clone, Debug)]
struct Known {
    lines: Vec<(String, RequestLine)>,
    is_played: bool,
}

#[derive(Debug)]
pub(crate) struct Recording {
    groups: Groups,
    /// Instances are as far apart as their places.
    distances: bool,
    began_unix: Nanos,
    known: HashMap<String, Known>,
    pub(crate) calls: BTreeMap<CallKey, CallSeen>,
    pub(crate) instances: BTreeMap<String, InstanceSeen>,
    /// Bytes that left a place.
    pub(crate) bytes_out: BTreeMap<String, u64>,
    watches: Vec<Watch>,
    roots: HashMap<u128, Cause>,
    rooted: VecDeque<u128>,
    /// By trace: calls that failed, and whose caller has not answered yet.
    unanswered: HashMap<u128, Vec<CallKey>>,
    /// Finished requests whose edge nobody knows any more.
    pub(crate) unknown: u64,
}

impl Recording {
    pub(crate) fn new(
        system: &System,
        groups: Groups,
        distances: bool,
        began_unix: Nanos,
        expected: &[Expectation],
    ) -> Self {
        let known = system.services.iter().map(|service| {
            let mut lines: Vec<(String, RequestLine)> = service
                .operations
                .iter()
                .map(|it| (it.name.value.clone(), RequestLine::of(&it.name.value, it.writes)))
                .collect();
            // Fixed words before braces: `/cart/all` is not the cart called `all`.
            lines.sort_by_key(|(_, line)| line.segments.iter().filter(|it| it.is_none()).count());
            (
                service.name.value.clone(),
                Known { lines, is_played: service.run.is_none() && service.endpoints.is_empty() },
            )
        });
        let watches = expected.iter().map(|it| Watch {
            service: match it.service {
                Caller::Service(id) => system.services[id].name.value.clone(),
                Caller::Gateway(id) => system.gateways[id].name.value.clone(),
            },
            operation: it.operation.clone(),
            is_gateway: matches!(it.service, Caller::Gateway(_)),
            measure: it.measure,
            seconds: VecDeque::new(),
            whole: Requests::default(),
        });
        Self {
            groups,
            distances,
            began_unix,
            known: known.collect(),
            calls: BTreeMap::new(),
            instances: BTreeMap::new(),
            bytes_out: BTreeMap::new(),
            watches: watches.collect(),
            roots: HashMap::new(),
            rooted: VecDeque::new(),
            unanswered: HashMap::new(),
            unknown: 0,
        }
    }

    /// Takes one finished request. `edge` is its edge's name, `None` if the snapshot that knew it is gone.
    pub(crate) fn take(
        &mut self,
        finished: &Finished,
        edge: Option<&str>,
        whereabouts: &HashMap<SocketAddr, Whereabouts>,
        places: &HashMap<String, String>,
    ) {
        let ended = finished.started_unix + finished.duration;
        // What ended before the beginning is another time's.
        let Some(at) = ended.as_u64().checked_sub(self.began_unix.as_u64()).map(Nanos) else { return };
        let Some((slot, (caller, callee))) = edge.and_then(|it| Some((it.split("->").next()?, parties(it)?)))
        else {
            self.unknown += 1;
            return;
        };
        let is_service = self.known.contains_key(caller);
        let caller = caller.strip_prefix("load:").unwrap_or(caller);
        let result = self.judge(finished, callee);
        self.answered(finished.trace_id, callee, result.is_ok());
        let operation = self.operation(callee, method(finished.method), finished.path());
        let group = self.groups.of(at);
        let instance = finished.instance.and_then(|it| whereabouts.get(&it));
        let key = (caller.to_owned(), callee.to_owned(), operation.clone());
        let waited_for = is_service && result.is_err_and(|it| it != Cause::Cancelled);
        let traced = finished.parent_span != 0 && finished.trace_id != 0;
        if waited_for && traced {
            let unanswered = self.unanswered.entry(finished.trace_id).or_default();
            if unanswered.len() < UNANSWERED_MAX {
                unanswered.push(key.clone());
            }
        }
        let seen = self.calls.entry(key).or_insert_with(CallSeen::new);
        seen.astray += u64::from(waited_for && !traced);
        record(&mut seen.requests[group], result, finished.duration);
        seen.attempts[group] += u64::from(finished.attempts);
        seen.calls[group] += u64::from(finished.attempts > 0);
        seen.timeouts += u64::from(result == Err(Cause::Timeout));
        let tries = finished.tries.as_deref().unwrap_or_default();
        seen.hedges += tries.iter().filter(|it| it.is_hedge).count() as u64;
        if let Some(instance) = instance {
            let is_far = self.distances && places.get(slot).is_some_and(|it| *it != instance.place);
            match (finished.upstream.is_zero(), is_far, result) {
                (true, ..) => {}
                (false, true, Ok(())) => seen.at_instance[group].ok += 1,
                (false, ..) => record(&mut seen.at_instance[group], result, finished.upstream),
            }
            if let Some(place) = places.get(slot) {
                seen.placed += 1;
                seen.in_zone += u64::from(*place == instance.place);
                if *place != instance.place {
                    *self.bytes_out.entry(place.clone()).or_default() += finished.request_bytes;
                    *self.bytes_out.entry(instance.place.clone()).or_default() += finished.response_bytes;
                }
            }
            let it = self.instances.entry(instance.slot.clone()).or_insert_with(|| InstanceSeen {
                service: instance.service.clone(),
                place: instance.place.clone(),
                arrivals: vec![0; GROUPS],
                held: vec![0; GROUPS],
                failed: 0,
            });
            it.arrivals[group] += 1;
            it.held[group] += finished.upstream.as_u64();
            it.failed += u64::from(result.is_err());
        }
        for watch in self.watches.iter_mut().filter(|it| it.is_about(caller, callee, &operation)) {
            let now = watch.seconds.back_mut();
            for requests in now.into_iter().chain([&mut watch.whole]) {
                record(requests, result, finished.duration);
            }
        }
    }

    /// Begins another second for the expectations; what they are worth now, in their order.
    pub(crate) fn judge_expected(&mut self, measured: Nanos) -> Vec<Seen> {
        let seen = self
            .watches
            .iter()
            .map(|watch| {
                let mut lately = Requests::default();
                watch.seconds.iter().for_each(|it| merge(&mut lately, it));
                let over = watch.seconds.len() as f64;
                Seen {
                    lately: value(watch.measure, &lately, over),
                    whole: value(watch.measure, &watch.whole, measured.as_secs_f64()),
                }
            })
            .collect();
        for watch in &mut self.watches {
            if watch.seconds.len() >= LATELY {
                watch.seconds.pop_front();
            }
            watch.seconds.push_back(Requests::default());
        }
        seen
    }

    /// The operation's name in the file; `any` where the file has none that fits.
    fn operation(&self, callee: &str, method: &str, path: &str) -> String {
        let path = path.split('?').next().unwrap_or(path);
        let lines = self.known.get(callee).map_or(&[][..], |it| &it.lines);
        let fits = lines.iter().find(|(_, line)| line.matches(method, path));
        fits.map_or_else(|| "any".to_owned(), |(name, _)| name.clone())
    }

    /// A service has answered: failures of its own calls on the way were hidden, or were the answer's.
    fn answered(&mut self, trace: u128, service: &str, well: bool) {
        let Some(unanswered) = self.unanswered.get_mut(&trace) else { return };
        let calls = &mut self.calls;
        unanswered.retain(|key| {
            if key.0 != service {
                return true;
            }
            if well && let Some(seen) = calls.get_mut(key) {
                seen.hidden += 1;
            }
            false
        });
        if unanswered.is_empty() {
            self.unanswered.remove(&trace);
        }
    }

    /// How it went, and where a failure began: a caller's failure is that of the call it could not do without.
    fn judge(&mut self, finished: &Finished, callee: &str) -> Result<(), Cause> {
        let status = finished.status;
        let cause = match finished.error {
            "" if (1..500).contains(&status) => return Ok(()),
            "" => {
                let below = self.roots.get(&finished.trace_id).copied();
                let is_played = self.known.get(callee).is_some_and(|it| it.is_played);
                match (is_played, status) {
                    // What we play says 503 only when its own queue is full.
                    (true, 503) => Cause::QueueFull,
                    _ => below.unwrap_or(Cause::Own),
                }
            }
            "client-gone" => Cause::Cancelled,
            "timeout" | "deadline-passed" => Cause::Timeout,
            "connect-failed" => Cause::Connect,
            "connection-lost" | "reply-cut-short" | "invalid-reply" => Cause::Reset,
            "no-instance" | "no-healthy-instance" | "no-target" | "no-edge" => Cause::NoInstance,
            "breaker-open" => Cause::Breaker,
            "overloaded" | "rate-limited" | "out-of-memory" => Cause::Limit,
            _ => Cause::Own,
        };
        if cause != Cause::Cancelled && finished.trace_id != 0 && !self.roots.contains_key(&finished.trace_id)
        {
            if self.rooted.len() >= ROOTS_MAX
                && let Some(oldest) = self.rooted.pop_front()
            {
                self.roots.remove(&oldest);
                self.unanswered.remove(&oldest);
            }
            self.roots.insert(finished.trace_id, cause);
            self.rooted.push_back(finished.trace_id);
        }
        Err(cause)
    }
}

impl CallSeen {
    /// Failures that an answer hid; `None` where some went astray.
    pub(crate) fn degraded(&self) -> Option<u64> {
        (self.astray == 0).then_some(self.hidden)
    }

    fn new() -> Self {
        Self {
            requests: vec![Requests::default(); GROUPS],
            attempts: vec![0; GROUPS],
            calls: vec![0; GROUPS],
            at_instance: vec![Requests::default(); GROUPS],
            hedges: 0,
            timeouts: 0,
            hidden: 0,
            astray: 0,
            in_zone: 0,
            placed: 0,
        }
    }
}

impl Watch {
    fn is_about(&self, caller: &str, callee: &str, operation: &str) -> bool {
        let who = if self.is_gateway { caller } else { callee };
        who == self.service && self.operation.as_deref().is_none_or(|it| it == operation)
    }
}

fn record(requests: &mut Requests, result: Result<(), Cause>, took: Nanos) {
    match result {
        Ok(()) => {
            requests.ok += 1;
            requests.latency.record(took);
        }
        Err(cause) => requests.failures.0[cause as usize] += 1,
    }
}

pub(crate) fn merge(into: &mut Requests, other: &Requests) {
    into.ok += other.ok;
    into.failures.0.iter_mut().zip(&other.failures.0).for_each(|(mine, theirs)| *mine += theirs);
    into.latency.merge(&other.latency);
}

/// `None`: too little to judge.
fn value(measure: Measure, requests: &Requests, over_seconds: f64) -> Option<f64> {
    let waited = requests.total() - requests.failures.of(Cause::Cancelled);
    let share = || (waited >= JUDGED_MIN).then(|| requests.ok as f64 / waited as f64);
    let rate = |count: u64| (over_seconds >= 1.0).then(|| count as f64 / over_seconds);
    match measure {
        Measure::Availability => share(),
        Measure::Errors => share().map(|it| 1.0 - it),
        Measure::Latency(q) => {
            quantile(&requests.latency, q.fraction()).filter(|_| requests.ok >= JUDGED_MIN)
        }
        Measure::Throughput => rate(requests.total()),
        Measure::Goodput => rate(requests.ok),
    }
}

fn quantile(latency: &Histogram, q: f64) -> Option<f64> {
    latency.quantile(q).map(Nanos::as_secs_f64)
}

/// The number an expectation sets: a share, seconds, or a rate a second.
pub(crate) fn limit(limit: Limit) -> f64 {
    match limit {
        Limit::Share(share) => share.fraction(),
        Limit::Time(time) => time.as_secs_f64(),
        Limit::Rate(rate) => rate.per_second(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Nanos = Nanos::from_secs(1_000);

    fn system() -> System {
        let loaded = model::load::load_str(
            r#"isobar: 1
services:
  web: {operations: {"GET /": {work: 1ms, calls: ['db "GET /rows/{id}"']}}}
  db: {operations: {"GET /rows/{id}": 1ms, "GET /rows/all": 1ms}}
  real: {run: ./real}
scenarios:
  it: {do: [stop db], expect: [web availability >= 90%, web p50 <= 10ms, web throughput >= 1/s, 'db "GET /rows/all" errors <= 1%']}
"#,
        );
        let mistakes = format!("{:?}", loaded.diagnostics);
        loaded.into_system().unwrap_or_else(|| panic!("{mistakes}"))
    }

    fn recording(system: &System) -> Recording {
        let expect: Vec<Expectation> = system.scenarios[0].expect.iter().map(|it| it.value.clone()).collect();
        Recording::new(system, Groups::InTurn, false, BEGAN, &expect)
    }

    fn finished(at_ms: u64, path: &str, status: u16, error: &'static str, trace_id: u128) -> Finished {
        let mut finished = Finished {
            started_unix: BEGAN + Nanos::from_millis(at_ms),
            duration: Nanos::from_millis(5),
            upstream: Nanos::from_millis(4),
            edge: 0,
            generation: 1,
            status,
            attempts: 2,
            trace_id,
            sampled: true,
            instance: Some(SocketAddr::from(([127, 0, 0, 1], 7))),
            request_bytes: 10,
            response_bytes: 100,
            error,
            ..Finished::default()
        };
        finished.set_path(path.as_bytes());
        finished
    }

    fn take(recording: &mut Recording, finished: &Finished, edge: Option<&str>) {
        let there = Whereabouts { service: "db".into(), slot: "db#0".into(), place: "eu/b".into() };
        let whereabouts = HashMap::from([(SocketAddr::from(([127, 0, 0, 1], 7)), there)]);
        let places = HashMap::from([("web#0".to_owned(), "eu/a".to_owned())]);
        recording.take(finished, edge, &whereabouts, &places);
    }

    /// What one finished call of the db comes to: its operation, and its cause if it failed.
    #[track_caller]
    fn check(path: &str, status: u16, error: &'static str, expected: (&str, Option<Cause>)) {
        let system = system();
        let mut recording = recording(&system);
        take(&mut recording, &finished(0, path, status, error, 1), Some("web#0->db"));
        let ((from, to, operation), seen) = recording.calls.first_key_value().expect("it was counted");
        let cause = Cause::ALL.into_iter().find(|it| seen.requests[0].failures.of(*it) > 0);
        assert_eq!((from.as_str(), to.as_str()), ("web", "db"));
        assert_eq!((operation.as_str(), cause), expected);
    }

    #[test]
    fn a_finished_request_is_an_operation_and_a_cause() {
        check("/rows/7", 200, "", ("GET /rows/{id}", None));
        check("/rows/all?x=1", 404, "", ("GET /rows/all", None));
        check("/else", 200, "", ("any", None));
        check("/rows/7", 500, "", ("GET /rows/{id}", Some(Cause::Own)));
        check("/rows/7", 503, "", ("GET /rows/{id}", Some(Cause::QueueFull)));
        check("/rows/7", 504, "timeout", ("GET /rows/{id}", Some(Cause::Timeout)));
        check("/rows/7", 503, "connect-failed", ("GET /rows/{id}", Some(Cause::Connect)));
        check("/rows/7", 502, "connection-lost", ("GET /rows/{id}", Some(Cause::Reset)));
        check("/rows/7", 503, "no-healthy-instance", ("GET /rows/{id}", Some(Cause::NoInstance)));
        check("/rows/7", 503, "breaker-open", ("GET /rows/{id}", Some(Cause::Breaker)));
        check("/rows/7", 0, "client-gone", ("GET /rows/{id}", Some(Cause::Cancelled)));
    }

    #[test]
    fn a_callers_failure_is_that_of_the_call_below_it() {
        let system = system();
        let mut recording = recording(&system);
        take(&mut recording, &finished(0, "/rows/7", 504, "timeout", 9), Some("web#0->db"));
        take(&mut recording, &finished(0, "/", 500, "", 9), Some("edge->web"));
        take(&mut recording, &finished(0, "/", 500, "", 10), Some("edge->web"));
        take(&mut recording, &finished(0, "/", 200, "", 11), None);
        let web = &recording.calls[&("edge".to_owned(), "web".to_owned(), "GET /".to_owned())];
        let of = |cause| web.requests[0].failures.of(cause);
        assert_eq!((of(Cause::Timeout), of(Cause::Own), recording.unknown), (1, 1, 1));
    }

    #[test]
    fn a_failure_is_hidden_when_its_caller_answers_well() {
        /// Finished requests in their order: edge, trace, parent span, status; then hidden failures of web's calls.
        #[track_caller]
        fn check(story: &[(&str, u128, u64, u16)], expected: Option<u64>) {
            let system = system();
            let mut recording = recording(&system);
            for (edge, trace, parent, status) in story {
                let path = if edge.contains("db") { "/rows/7" } else { "/" };
                let mut it = finished(0, path, *status, "", *trace);
                it.parent_span = *parent;
                take(&mut recording, &it, Some(edge));
            }
            let key = ("web".to_owned(), "db".to_owned(), "GET /rows/{id}".to_owned());
            let seen = recording.calls.get(&key).expect("the db was called");
            assert_eq!(seen.degraded(), expected, "{story:?}");
            assert!(recording.calls.values().filter(|it| it.degraded() != Some(0)).count() <= 1);
        }
        check(&[("web#0->db", 9, 1, 500), ("edge->web", 9, 0, 200)], Some(1));
        check(&[("web#0->db", 9, 1, 500), ("edge->web", 9, 0, 500)], Some(0));
        check(&[("web#0->db", 9, 1, 200), ("edge->web", 9, 0, 200)], Some(0));
        check(&[("web#0->db", 9, 1, 500), ("web#0->db", 9, 1, 500), ("load:all->web", 9, 0, 200)], Some(2));
        // Of another trace, of another caller, and answered twice.
        check(&[("web#0->db", 9, 1, 500), ("edge->web", 8, 0, 200)], Some(0));
        check(&[("web#0->db", 9, 1, 500), ("web#0->db", 9, 1, 200)], Some(0));
        check(&[("web#0->db", 9, 1, 500), ("edge->web", 9, 0, 200), ("edge->web", 9, 0, 200)], Some(1));
        // The caller passed no trace on; users never have one, and hide nothing.
        check(&[("web#0->db", 9, 0, 500), ("edge->web", 8, 0, 200)], None);
        check(&[("load:web->db", 9, 0, 500)], Some(0));
    }

    #[test]
    fn attempts_places_and_instances_are_counted_in_their_group() {
        let system = system();
        let mut recording = recording(&system);
        for (at, edge) in [(0, "web#0->db"), (3_500, "web#0->db"), (13_100, "web#9->db")] {
            take(&mut recording, &finished(at, "/rows/7", 200, "", 0), Some(edge));
        }
        let mut early = finished(0, "/rows/7", 200, "", 0);
        early.started_unix = BEGAN - Nanos::from_secs(1);
        take(&mut recording, &early, Some("web#0->db"));
        let (_, seen) = recording.calls.first_key_value().expect("they were counted");
        let ok: Vec<u64> = seen.requests.iter().map(|it| it.ok).collect();
        assert_eq!(ok, [1, 0, 0, 2, 0, 0, 0, 0, 0, 0], "what ended before the beginning is not in it");
        assert_eq!((seen.attempts.iter().sum::<u64>(), seen.placed, seen.in_zone), (6, 2, 0));
        let db = &recording.instances["db#0"];
        assert_eq!((db.arrivals.iter().sum::<u64>(), db.held[3]), (3, 8_000_000));
        assert_eq!((recording.bytes_out["eu/a"], recording.bytes_out["eu/b"]), (20, 200));
    }

    #[test]
    fn the_way_is_no_time_of_the_instance() {
        let system = system();
        for (distances, timed) in [(false, 2), (true, 1)] {
            let mut recording = Recording::new(&system, Groups::InTurn, distances, BEGAN, &[]);
            // From another place, and from somebody whose place is not known.
            for edge in ["web#0->db", "edge->db"] {
                take(&mut recording, &finished(0, "/rows/7", 200, "", 0), Some(edge));
            }
            let seen: Vec<&Requests> = recording.calls.values().map(|it| &it.at_instance[0]).collect();
            assert_eq!(seen.iter().map(|it| it.ok).sum::<u64>(), 2);
            assert_eq!(seen.iter().map(|it| it.latency.count()).sum::<u64>(), timed);
        }
    }

    #[test]
    fn expectations_are_worth_what_was_seen_lately_and_in_all() {
        let system = system();
        let mut recording = recording(&system);
        let second = Nanos::from_secs(1);
        let none = Seen { lately: None, whole: None };
        let seen = recording.judge_expected(second);
        assert_eq!((seen[0], seen[1], seen[3]), (none, none, none), "nothing was asked");
        for n in 0..40 {
            let status = if n % 4 == 0 { 500 } else { 200 };
            take(&mut recording, &finished(n * 10, "/", status, "", u128::from(n) + 1), Some("edge->web"));
        }
        let seen = recording.judge_expected(second * 2);
        assert_eq!((seen[0].lately, seen[0].whole), (Some(0.75), Some(0.75)));
        assert_eq!((seen[2].lately, seen[2].whole), (Some(40.0), Some(20.0)));
        assert!(seen[1].lately.is_some_and(|it| (0.0049..0.0051).contains(&it)), "{seen:?}");
        assert_eq!(seen[3], none, "nobody asked the db");
        for _ in 0..LATELY {
            recording.judge_expected(second * 12);
        }
        let seen = recording.judge_expected(second * 13);
        assert_eq!((seen[0].lately, seen[0].whole), (None, Some(0.75)), "what is long ago is not lately");
    }

    #[test]
    fn seconds_are_dealt_in_turn_or_in_a_row() {
        let at = |groups: Groups, seconds: u64| groups.of(Nanos::from_secs(seconds));
        assert_eq!([0, 1, 9, 10, 25].map(|it| at(Groups::InTurn, it)), [0, 1, 9, 0, 5]);
        let row = Groups::InARow { lasts: Nanos::from_secs(20) };
        assert_eq!([0, 1, 2, 19, 25].map(|it| at(row, it)), [0, 0, 1, 9, 9]);
    }
}
