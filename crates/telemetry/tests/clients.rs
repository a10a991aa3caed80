//! Other people's programs against our doors: what they send is stored, what they scrape is understood.
//!
//! Each runs where it is installed and says "skipped" by name where it is not. A small HTTP server on loopback stands in for
//! the real one: one thread, one request at a time, no more than these clients need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use telemetry::app::{AppMetrics, AppSink, LogRing};
use telemetry::exposition::{Exemplar, Family, Format, Kind, Page, Series, write};
use telemetry::http::{Limits, Request, Response};
use telemetry::metrics::{Class, Counter, Counters, SeriesId, SeriesText};
use telemetry::traces::{MemoryTraces, TraceQuery, TraceSettings, TraceStore};
use telemetry::{otlp, zipkin};
use units::{Histogram, Nanos};

struct Doors {
    traces: MemoryTraces,
    logs: LogRing,
    metrics: AppMetrics,
    /// `METHOD path content-type`, in order.
    seen: Vec<String>,
}

/// Spans from the clients carry today's date; any moment after it will do as "now".
const NOW: Nanos = Nanos::from_secs(4_000_000_000);

impl Doors {
    fn answer(&mut self, request: &Request<'_>) -> Response {
        self.seen.push(format!("{} {} {}", request.method, request.path, request.content_type()));
        if request.path == "/metrics" {
            let format = Format::negotiate(request.header("accept").unwrap_or(""));
            return Response::new(200, format.content_type(), page(format));
        }
        let mut sink =
            AppSink { traces: &mut self.traces, logs: &mut self.logs, metrics: &mut self.metrics, now: NOW };
        if let Some(response) = otlp::handle(request, Limits::default(), &mut sink) {
            return response;
        }
        let settings = zipkin::api::ZipkinSettings::default();
        zipkin::api::handle(&settings, &mut self.traces, request, NOW).unwrap_or_else(|| Response::empty(404))
    }
}

fn page(format: Format) -> Vec<u8> {
    let text = SeriesText {
        source: "web".into(),
        destination: "cart".into(),
        operation: "GET /cart".into(),
        version: "v1".into(),
        source_zone: "a".into(),
        destination_zone: "b".into(),
        class: Class::Success,
    };
    let mut latency = Histogram::new();
    (1..=1_000).for_each(|ms| latency.record(Nanos::from_millis(ms)));
    let mut counters = Counters::default();
    counters[Counter::Retries as usize] = 7;
    let series = [Series { id: SeriesId(0), text: &text, latency: &latency, counters: &counters }];
    let families = [Family::single("isobar_series", "Request series in use.", Kind::Gauge, 1.0)];
    let exemplar = |_: SeriesId, _: i32| None::<Exemplar>;
    write(&Page { series: &series, families: &families, histograms: &[], exemplar: &exemplar }, format)
}

/// Answers one request of a connection and closes it.
fn serve_one(mut stream: TcpStream, doors: &Mutex<Doors>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let Some((start, lines)) = head.split_first() else { return Ok(()) };
    let mut start = start.split(' ');
    let (method, target) = (start.next().unwrap_or(""), start.next().unwrap_or(""));
    let headers: Vec<(&str, &str)> = lines.iter().filter_map(|line| line.split_once(": ")).collect();
    let get = |name: &str| {
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    };
    let length = get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { method, path, query, headers: &headers, body: &body };
    let response = doors.lock().expect("no test thread panicked").answer(&request);
    write!(
        stream,
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        response.status,
        response.body.len()
    )?;
    for (name, value) in &response.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&response.body)
}

fn start() -> (u16, Arc<Mutex<Doors>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let port = listener.local_addr().expect("it is bound").port();
    let doors = Arc::new(Mutex::new(Doors {
        traces: MemoryTraces::new(TraceSettings::default()),
        logs: LogRing::new(1 << 20),
        metrics: AppMetrics::new(1_000, 1 << 20),
        seen: Vec::new(),
    }));
    let shared = doors.clone();
    // Ends with the test's process; every request is bounded by the read timeout.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = serve_one(stream, &shared);
        }
    });
    (port, doors)
}

/// Runs a Python script against the doors. `None` if the module is not installed.
#[allow(clippy::print_stdout, reason = "a skipped check must say so")]
fn python(module: &str, script: &str) -> Option<Arc<Mutex<Doors>>> {
    let python = std::env::var("ISOBAR_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: {module} is not installed for {python}");
        return None;
    }
    let (port, doors) = start();
    let output = Command::new(&python)
        .args(["-c", &script.replace("PORT", &port.to_string())])
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100000")
        .output()
        .expect("python ran a moment ago");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(doors)
}

#[test]
fn py_zipkin_is_understood_in_each_of_its_encodings() {
    const SCRIPT: &str = r#"
import urllib.request
from py_zipkin.zipkin import zipkin_span
from py_zipkin.encoding import Encoding
from py_zipkin import Kind
def send(path, kind):
    def transport(body):
        body = body if isinstance(body, bytes) else body.encode()
        request = urllib.request.Request("http://127.0.0.1:PORT" + path, data=body, headers={"content-type": kind})
        assert urllib.request.urlopen(request, timeout=5).status == 202
    return transport
for name, encoding, path, kind in [
    ("json-two", Encoding.V2_JSON, "/api/v2/spans", "application/json"),
    ("proto-two", Encoding.V2_PROTO3, "/api/v2/spans", "application/x-protobuf"),
    ("json-one", Encoding.V1_JSON, "/api/v1/spans", "application/json"),
]:
    with zipkin_span(service_name=name, span_name="Work", transport_handler=send(path, kind), encoding=encoding,
                     sample_rate=100, kind=Kind.SERVER, binary_annotations={"k": "v"}):
        with zipkin_span(service_name=name, span_name="call", kind=Kind.CLIENT) as span:
            span.add_sa_binary_annotation(port=80, service_name="db", host="10.0.0.7")
"#;
    let Some(doors) = python("py_zipkin", SCRIPT) else { return };
    let doors = doors.lock().expect("the client is done");
    assert_eq!(doors.traces.services(), ["json-one", "json-two", "proto-two"], "{:?}", doors.seen);
    for service in doors.traces.services() {
        let mut query = TraceQuery::between(Nanos::ZERO, NOW, 10);
        query.service = Some(service.as_str().into());
        query.terms = vec![("k".into(), Some("v".into()))];
        let traces = doors.traces.search(&query);
        assert_eq!((traces.len(), traces[0].len()), (1, 2), "{service}");
        assert_eq!(doors.traces.span_names(&service), ["call", "work"]);
        assert_eq!(doors.traces.remote_services(&service), ["db"]);
    }
    assert_eq!(doors.traces.links(Nanos::ZERO, NOW).len(), 3);
}

#[test]
fn opentelemetry_python_exports_traces_metrics_and_logs() {
    const SCRIPT: &str = r#"
import logging
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
resource = Resource.create({"service.name": "Py-Cart", "service.version": "v9"})
base = "http://127.0.0.1:PORT/v1/"
provider = TracerProvider(resource=resource)
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=base + "traces", compression=Compression.Gzip)))
tracer = provider.get_tracer("lib", "1.0")
with tracer.start_as_current_span("parent", kind=trace.SpanKind.SERVER):
    with tracer.start_as_current_span("child", kind=trace.SpanKind.CLIENT, attributes={"peer.service": "db", "n": [1, 2]}) as span:
        span.add_event("tried", {"times": 2})
        span.set_status(trace.StatusCode.ERROR, "boom")
meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=base + "metrics"))])
meters.get_meter("m").create_counter("orders").add(3, {"kind": "a"})
meters.get_meter("m").create_histogram("size", unit="By").record(7)
meters.force_flush()
meters.shutdown()
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=base + "logs")))
logger = logging.getLogger("x")
logger.addHandler(LoggingHandler(logger_provider=logs))
logger.error("it broke")
"#;
    let Some(doors) = python("opentelemetry.exporter.otlp.proto.http", SCRIPT) else { return };
    let doors = doors.lock().expect("the client is done");
    assert_eq!(doors.traces.services(), ["py-cart"], "{:?}", doors.seen);
    let traces = doors.traces.search(&TraceQuery::between(Nanos::ZERO, NOW, 10));
    let child = traces.iter().flatten().find(|span| &*span.name == "child").expect("it was sent");
    assert_eq!(child.remote.service(), Some("db"));
    assert_eq!(child.tag("error").map(|value| value.text().into_owned()).as_deref(), Some("boom"));
    assert_eq!(child.tag("n").map(|value| value.text().into_owned()).as_deref(), Some("[1,2]"));
    assert_eq!(&*child.annotations[0].value, r#""tried": {"times":2}"#);
    let families = doors.metrics.families();
    let orders = families.iter().find(|family| family.name == "orders").expect("it was sent");
    assert_eq!(orders.samples[0].1, 3.0);
    assert!(families.iter().any(|family| family.name == "size_bytes_sum"));
    assert_eq!(doors.logs.newest(Some("py-cart"), None).next().map(|record| &*record.body), Some("it broke"));
}

/// A real Prometheus scrapes us, once as text and once with native histograms, and answers for what it stored.
#[test]
#[allow(clippy::print_stdout, reason = "a skipped check must say so")]
fn prometheus_scrapes_and_computes_on_what_it_scraped() {
    for (feature, query, expected) in [
        (None, "histogram_quantile(0.5, http_client_request_duration_seconds_bucket)", 0.5),
        (
            Some("--enable-feature=native-histograms"),
            "histogram_count(http_client_request_duration_seconds)",
            1_000.0,
        ),
        (
            Some("--enable-feature=native-histograms"),
            "histogram_quantile(0.99, http_client_request_duration_seconds)",
            0.99,
        ),
    ] {
        let (port, doors) = start();
        let folder = tempfile::tempdir().expect("a folder for its data");
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: isobar\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a file in our folder");
        let own =
            TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{own}"))
            .args(feature)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: prometheus is not installed");
            return;
        };
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let target = format!("/api/v1/query?query={encoded}");
        // Its first scrape comes within two seconds of its start; a slow machine gets twenty times that.
        let answer = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(200));
            value(&get(own, &target)?)
        });
        let _ = child.kill();
        let _ = child.wait();
        let seen = &doors.lock().expect("prometheus is gone").seen;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {query}; it asked {seen:?}"));
        assert!((answer / expected - 1.0).abs() < 0.02, "{query} = {answer}");
    }
}

fn get(port: u16, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The one number of an instant query's answer.
fn value(answer: &str) -> Option<f64> {
    let json = answer.split_once("\r\n\r\n")?.1;
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    json["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}
