//! One wrong item refuses itself and not its neighbours: the same in JSON and protobuf, over HTTP and gRPC, for spans,
//! data points and log records.

use super::server::tests::{Collected, post};
use super::{handle_grpc, server::unframe};
use crate::http::Limits;
use crate::protobuf::{Reader, Writer};

/// Status, what was taken, what was rejected, and the message.
type Outcome = (u16, usize, u64, String);

fn outcome(status: u16, sink: &Collected, answer: &[u8]) -> Outcome {
    let taken = sink.spans.len() + sink.points.len() + sink.records.len();
    let mut fields = Reader::new(answer);
    let (mut rejected, mut message) = (0, String::new());
    // A success holds its partial success as field 1, a failure its message as field 2.
    while let Some((number, field)) = fields.field().unwrap() {
        match (status, number) {
            (200, 1) => {
                let mut partial = field.message(1).unwrap();
                while let Some((number, field)) = partial.field().unwrap() {
                    match number {
                        1 => rejected = field.varint(1).unwrap(),
                        _ => message = field.text(2).unwrap().to_owned(),
                    }
                }
            }
            (200, _) | (_, 1) => {}
            _ => message = field.text(2).unwrap().to_owned(),
        }
    }
    (status, taken, rejected, message)
}

fn of_protobuf(signal: &str, body: &[u8]) -> Outcome {
    let (response, sink) =
        post(&format!("/v1/{signal}"), &[("content-type", "application/x-protobuf")], body);
    let over_http = outcome(response.status, &sink, &response.body);

    let (name, service) = match signal {
        "traces" => ("trace", "TraceService"),
        "metrics" => ("metrics", "MetricsService"),
        _ => ("logs", "LogsService"),
    };
    let path = format!("/opentelemetry.proto.collector.{name}.v1.{service}/Export");
    let mut framed = vec![0];
    framed.extend((body.len() as u32).to_be_bytes());
    framed.extend(body);
    let mut sink = Collected::default();
    let answer = handle_grpc(&path, None, &framed, Limits::default(), &mut sink);
    let over_grpc = match answer.status {
        0 => outcome(200, &sink, &unframe(&answer.body, None, Limits::default()).unwrap()),
        _ => (400, 0, 0, answer.message),
    };
    assert_eq!(over_http, over_grpc, "HTTP and gRPC differ");
    over_http
}

/// Items within the two wrappers all signals have.
fn wrapped(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).message(1, |group| {
        group.message(2, |scope| items.iter().for_each(|item| scope.bytes(2, item)));
    });
    out
}

fn message(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

fn span(id: &[u8], name: &[u8]) -> Vec<u8> {
    message(|it| {
        it.bytes(1, &[7; 16]);
        it.bytes(2, id);
        it.bytes(5, name);
    })
}

fn metric(name: &[u8], points: &[Vec<u8>]) -> Vec<u8> {
    message(|it| {
        it.bytes(1, name);
        it.message(5, |gauge| points.iter().for_each(|point| gauge.bytes(1, point)));
    })
}

#[track_caller]
fn check((status, taken, rejected, message): Outcome, expected: (u16, usize, u64, &str)) {
    assert_eq!((status, taken, rejected), (expected.0, expected.1, expected.2), "{message}");
    let same = if expected.3.is_empty() { message.is_empty() } else { message.contains(expected.3) };
    assert!(same, "`{message}` should say `{}`", expected.3);
}

#[test]
fn a_wrong_item_in_protobuf_is_refused_alone() {
    let good = span(&[1; 8], b"a");
    let odd_type = message(|it| it.varint(5, 1));
    let cut = good[..good.len() - 1].to_vec();
    for (bad, why) in [
        (span(&[1; 8], b"\xff"), "field 5 is not UTF-8"),
        (span(&[1; 7], b"a"), "span_id is not 8 bytes"),
        (span(&[0; 8], b"a"), "all zeros"),
        (odd_type.clone(), "field 5 has the wrong wire type"),
        (cut.clone(), "ends inside a field"),
        (b"\x03".to_vec(), "field number 0"),
    ] {
        let body = wrapped(&[good.clone(), bad, good.clone()]);
        check(of_protobuf("traces", &body), (200, 2, 1, why));
    }
    check(of_protobuf("traces", &wrapped(std::slice::from_ref(&good))), (200, 1, 0, ""));
    // Nothing is left that a success could be about.
    check(of_protobuf("traces", &wrapped(&[cut.clone(), cut])), (400, 0, 0, "ends inside a field"));
    // Readable, and wrong: the sender's mistake is in its ids, not in its bytes.
    check(of_protobuf("traces", &wrapped(&[span(&[0; 8], b"a")])), (200, 0, 1, "all zeros"));

    let point = message(|it| it.double(4, 1.0));
    let bad_point = message(|it| it.varint(4, 1));
    let metrics = wrapped(&[metric(b"depth", &[point.clone(), bad_point, point.clone()])]);
    check(of_protobuf("metrics", &metrics), (200, 2, 1, "a data point cannot be read: field 4"));
    let nothing = message(|it| it.varint(8, 1));
    let metrics = wrapped(&[metric(b"depth", &[nothing, point.clone()])]);
    check(of_protobuf("metrics", &metrics), (200, 1, 0, ""));
    let metrics = wrapped(&[metric(b"\xff", &[point.clone(), point.clone()]), metric(b"b", &[point])]);
    check(of_protobuf("metrics", &metrics), (200, 1, 2, "a metric cannot be read: field 1 is not UTF-8"));

    let record = message(|it| it.text(3, "INFO"));
    let logs = wrapped(&[record.clone(), message(|it| it.varint(5, 1)), record]);
    check(of_protobuf("logs", &logs), (200, 2, 1, "a log record cannot be read: field 5"));
}

#[test]
fn a_body_cut_anywhere_is_refused_whole_or_taken_whole() {
    let body = wrapped(&[span(&[1; 8], b"a"), span(&[2; 8], b"b")]);
    for len in 1..body.len() {
        check(of_protobuf("traces", &body[..len]), (400, 0, 0, "ends inside a field"));
    }
    check(of_protobuf("traces", &[]), (200, 0, 0, ""));
}

#[test]
fn a_wrong_item_in_json_is_refused_alone() {
    let ask = |signal: &str, body: &str| {
        let (response, sink) =
            post(&format!("/v1/{signal}"), &[("content-type", "application/json")], body.as_bytes());
        let text = String::from_utf8(response.body).unwrap();
        // The answer is JSON as well: of it only the two words that matter.
        let word = |key: &str| {
            text.split_once(&format!("\"{key}\":\""))
                .and_then(|(_, rest)| rest.split('"').next())
                .unwrap_or("")
        };
        let rejected =
            ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"].map(|key| word(key).parse().ok());
        let said = if response.status == 200 { word("errorMessage") } else { word("message") };
        let taken = sink.spans.len() + sink.points.len() + sink.records.len();
        (response.status, taken, rejected.into_iter().flatten().next().unwrap_or(0), said.to_owned())
    };
    let good = r#"{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","name":"a"}"#;
    let traces = |spans: &[&str]| {
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(","))
    };
    for (bad, why) in [
        (good.replace("EEE", "XYZ"), "spanId is not hex at byte"),
        (good.replace("EEE", "EE"), "spanId is not hex"),
        (good.replace("EEE1", "EE"), "span_id is not 8 bytes"),
        (good.replace("5B8E", "zz8E"), "traceId is not hex"),
        (good.replace("EEE19B7EC3C1B174", "0000000000000000"), "all zeros"),
        (good.replace(r#""a""#, "7"), "expected a string"),
        (good.replace("name", r#"kind":"SPAN_KIND_SERVER","name"#), "expected a number"),
        (good.replace("name", r#"startTimeUnixNano":"-1","name"#), "from 0 to 2^64 - 1"),
        (good.replace("name", r#"links":[{"traceId":"x"}],"name"#), "traceId is not hex"),
        ("null".into(), "expected an object"),
        ("[[]]".into(), "expected an object"),
    ] {
        check(ask("traces", &traces(&[good, &bad, good])), (200, 2, 1, why));
    }
    check(ask("traces", &traces(&[good])), (200, 1, 0, ""));
    check(ask("traces", &traces(&[&good.replace("EEE", "XYZ"), "{}"])), (400, 0, 0, "spanId is not hex"));
    // No JSON: nothing after the mistake can be trusted to be what it seems.
    for broken in ["{", "{}}", "[}", r#"{"name":"\x"}"#, "{'a':1}"] {
        let (status, taken, ..) = ask("traces", &traces(&[good, broken, good]));
        assert_eq!((status, taken), (400, 0), "{broken}");
    }
    let (status, taken, ..) = ask("traces", &traces(&[good]).replace("[{\"traceId", "{\"traceId"));
    assert_eq!((status, taken), (400, 0));

    let metrics =
        |metrics: &str| format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#);
    let points = r#"{"name":"m","gauge":{"dataPoints":[{"asInt":"1"},{"asInt":"one"},{"asDouble":2}]}}"#;
    check(ask("metrics", &metrics(points)), (200, 2, 1, "expected an integer"));
    // A metric's own mistake costs its points, and only its own; the bad one among them is not counted twice.
    let both = format!("{},{points}", points.replace(r#""m""#, "1"));
    check(ask("metrics", &metrics(&both)), (200, 2, 4, "expected a string"));

    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}},{"traceId":"no"},{}]}]}]}"#;
    check(ask("logs", logs), (200, 2, 1, "traceId is not hex"));
}
