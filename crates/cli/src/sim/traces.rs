//! The first run's requests as traces, in the formats that trace stores read.

use ::sim::record::{Side, Span as Seen};
use ::sim::{Forecast, Plan};
use telemetry::ids::{SpanId, TraceId};
use telemetry::json::Writer;
use telemetry::span::{Endpoint, Span, SpanKind, tag};
use telemetry::{otlp, zipkin};
use units::Nanos;

/// The kinds, as the command line names them.
pub(super) const KINDS: &[&str] = &["zipkin", "otlp"];
/// Requests of the first run that are traced, spread evenly over what is measured.
pub(super) const REQUESTS: u32 = 200;

/// `None` for a kind there is not. Simulated time begins at `epoch`, counted from 1970.
pub(super) fn export(forecast: &Forecast<'_>, kind: &str, epoch: Nanos) -> Option<String> {
    let record = forecast.runs.first().and_then(|it| it.record.as_ref());
    let spans: Vec<Span> =
        record.iter().flat_map(|it| &it.spans).filter_map(|it| span(forecast.plan, it, epoch)).collect();
    match kind {
        "zipkin" => {
            let mut json = Writer::new();
            zipkin::json::write_spans(&mut json, &spans);
            Some(format!("{}\n", json.into_text()))
        }
        "otlp" => Some(format!("{}\n", otlp::export::traces_json(&spans))),
        _ => None,
    }
}

fn span(plan: &Plan, seen: &Seen, epoch: Nanos) -> Option<Span> {
    let service = |instance: u32| {
        let station = plan.instances[instance as usize].station;
        plan.stations[station as usize].name.as_str()
    };
    let id = |bits: u64| SpanId::from_bytes(&bits.to_be_bytes());
    // 64 bits are as many as a run has; both formats take them as the lower half of 128.
    let trace = TraceId::from_bytes(&u128::from(seen.trace).to_be_bytes())?;
    let mut span = Span::new(trace, id(seen.id)?);
    span.parent = seen.parent.and_then(id);
    span.kind = match seen.side {
        Side::Whole => None,
        Side::Caller => Some(SpanKind::Client),
        Side::Callee => Some(SpanKind::Server),
    };
    span.name = plan.operations[seen.operation as usize].name.as_str().into();
    span.start = Some(epoch + seen.start);
    span.duration = Some(seen.took);
    let instance = &plan.instances[seen.instance as usize];
    span.local = Endpoint::named(service(seen.instance));
    if let Some(other) = seen.other {
        span.remote = Endpoint::named(service(other));
    }
    span.set_tag(tag::INSTANCE, instance.name.as_str());
    span.set_tag(tag::ZONE, plan.locations[instance.location as usize].name.as_str());
    let version = plan.stations[instance.station as usize].versions.get(instance.version as usize);
    if let Some(version) = version.filter(|_| seen.side == Side::Callee) {
        span.set_tag(tag::VERSION, version.name.as_str());
    }
    if seen.side == Side::Caller {
        span.set_tag(tag::ATTEMPT, i64::from(seen.attempt) + 1);
        if let Some(other) = seen.other {
            span.set_tag(tag::UPSTREAM, plan.instances[other as usize].name.as_str());
        }
    }
    if !seen.waited.is_zero() {
        let micros = i64::try_from(seen.waited.0 / 1_000).unwrap_or(i64::MAX);
        span.set_tag(tag::QUEUE_WAIT_US, micros);
    }
    if let Some(cause) = seen.failed {
        span.set_tag(tag::ERROR, cause.word());
    }
    span.normalise();
    Some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::sim::Options;
    use std::collections::{HashMap, HashSet};
    use telemetry::http::{JSON, Limits, Request};
    use telemetry::otlp::{LogRecord, MetricPoint, Sink, Taken};
    use telemetry::traces::{MemoryTraces, TraceSettings};

    const FILE: &str = r#"
isobar: 1
services:
  web: {replicas: 2, operations: {"GET /": {work: 1ms, calls: [{all: [cart "read", ads "read"]}]}}}
  cart: {operations: {read: {work: 2ms, errors: 30%, idempotent: true}}}
  ads: {operations: {read: exponential(mean 3ms)}}
edges: {default: {retry: {attempts: 3, budget: 50%, on: [5xx]}, eject: none}}
traffic: {people: {to: web "GET /", rate: 100/s}}
"#;

    fn exported(kind: &str) -> String {
        let loaded = model::load::load_str(FILE);
        let system = loaded.system().expect("it has no mistake");
        let plan =
            ::sim::compile(system, &|_| Err("nothing is read".to_owned())).expect("it can be forecast");
        let options = Options {
            runs: 2,
            threads: 2,
            duration: Some(Nanos::from_secs(5)),
            warm_up: Some(Nanos::ZERO),
            traces: 50,
            ..Options::default()
        };
        let forecast = ::sim::forecast(&plan, &options, &|_| true).expect("it is stable");
        export(&forecast, kind, Nanos::from_secs(1_000)).expect("the kind is known")
    }

    #[derive(Default)]
    struct Kept(Vec<Span>);

    impl Sink for Kept {
        fn spans(&mut self, spans: Vec<Span>) -> Taken {
            self.0.extend(spans);
            Taken::default()
        }

        fn metrics(&mut self, _: Vec<MetricPoint>) -> Taken {
            Taken::default()
        }

        fn logs(&mut self, _: Vec<LogRecord>) -> Taken {
            Taken::default()
        }
    }

    /// What every reader of traces relies on, whichever format brought them.
    #[track_caller]
    fn check(spans: &[Span]) {
        let by_id: HashMap<SpanId, &Span> = spans.iter().map(|it| (it.id, it)).collect();
        assert_eq!(by_id.len(), spans.len(), "an id names one span");
        let traces: HashSet<TraceId> = spans.iter().map(|it| it.trace_id).collect();
        assert!((45..=50).contains(&traces.len()), "{} traces", traces.len());
        let roots = spans.iter().filter(|it| it.parent.is_none());
        assert_eq!(roots.count(), traces.len(), "each trace has one root");
        let mut retried = 0;
        for span in spans {
            assert!(span.start.expect("a start") >= Nanos::from_secs(1_000));
            let Some(parent) = span.parent else { continue };
            let parent = by_id.get(&parent).expect("a parent that was handed out");
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(parent.start <= span.start, "nothing begins before its cause");
            retried += usize::from(span.tag(tag::ATTEMPT).and_then(telemetry::span::Value::int) > Some(1));
        }
        assert!(retried > 0, "at 30 % errors some calls of fifty were tried again");
        let services: HashSet<&str> = spans.iter().filter_map(|it| it.local.service()).collect();
        assert_eq!(services, HashSet::from(["people", "web", "cart", "ads"]));
        assert!(spans.iter().any(Span::failed));
    }

    #[test]
    fn zipkin_spans_are_taken_by_our_own_door() {
        let text = exported("zipkin");
        let spans = zipkin::json::read_spans(text.as_bytes()).expect("our own reader reads it");
        check(&spans);
        let settings = zipkin::api::ZipkinSettings::default();
        let mut store = MemoryTraces::new(TraceSettings::default());
        let headers = [("content-type", JSON)];
        let request = Request::post("/api/v2/spans", &headers, text.as_bytes());
        let now = Nanos::from_secs(1_010);
        let answer = zipkin::api::handle(&settings, &mut store, &request, now).expect("it is for Zipkin");
        assert_eq!(answer.status, 202, "{:?}", String::from_utf8_lossy(&answer.body));
        let request = Request::get("/api/v2/services");
        let answer = zipkin::api::handle(&settings, &mut store, &request, now).expect("it is for Zipkin");
        assert_eq!(String::from_utf8_lossy(&answer.body), r#"["ads","cart","people","web"]"#);
    }

    #[test]
    fn otlp_spans_are_taken_by_our_own_decoder() {
        let text = exported("otlp");
        let headers = [("content-type", JSON)];
        let request = Request::post("/v1/traces", &headers, text.as_bytes());
        let mut taken = Kept::default();
        let answer = otlp::handle(&request, Limits::default(), &mut taken).expect("it is for OTLP");
        assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
        check(&taken.0);
    }

    #[test]
    fn the_same_seed_is_the_same_traces() {
        assert_eq!(exported("zipkin"), exported("zipkin"));
    }
}
