//! Each client runs where it is installed and is named where it is not (`.ci/run` installs them all).

use crate::house::{House, have, lock, run};
use std::io::Write;
use std::process::{Command, Stdio};
use telemetry::exposition::Format;
use telemetry::traces::{TraceQuery, TraceStore};
use units::Nanos;

fn python() -> String {
    std::env::var("ISOBAR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// The house after a Python script that needs `module` has run against it; `None` if it is not installed.
fn after_python(module: &str, script: &str) -> Option<House> {
    if !have(&python(), &["-c", &format!("import {module}")]) {
        return None;
    }
    let house = House::open();
    run(Command::new(python()).args(["-c", &script.replace("DOOR", &house.door.to_string())]));
    Some(house)
}

fn services(house: &House) -> Vec<String> {
    lock(&house.watched.traces).services()
}

#[test]
fn py_zipkin_sends_each_of_its_encodings() {
    const SCRIPT: &str = r#"
import urllib.request
from py_zipkin.zipkin import zipkin_span
from py_zipkin.encoding import Encoding
from py_zipkin import Kind
def send(path, kind):
    def transport(body):
        body = body if isinstance(body, bytes) else body.encode()
        request = urllib.request.Request("http://DOOR" + path, data=body, headers={"content-type": kind})
        assert urllib.request.urlopen(request, timeout=5).status == 202
    return transport
for name, encoding, path, kind in [
    ("json-two", Encoding.V2_JSON, "/api/v2/spans", "application/json"),
    ("proto-two", Encoding.V2_PROTO3, "/api/v2/spans", "application/x-protobuf"),
    ("json-one", Encoding.V1_JSON, "/api/v1/spans", "application/json"),
]:
    with zipkin_span(service_name=name, span_name="Work", transport_handler=send(path, kind), encoding=encoding,
                     sample_rate=100, kind=Kind.SERVER):
        with zipkin_span(service_name=name, span_name="call", kind=Kind.CLIENT) as span:
            span.add_sa_binary_annotation(port=80, service_name="db", host="10.0.0.7")
"#;
    let Some(house) = after_python("py_zipkin", SCRIPT) else { return };
    assert_eq!(services(&house), ["json-one", "json-two", "proto-two"]);
    let unix = house.watched.clocks.unix();
    let links = lock(&house.watched.traces).links(Nanos::ZERO, unix + Nanos::from_secs(60));
    assert_eq!(links.iter().filter(|it| &*it.child == "db").count(), 3, "{links:?}");
}

/// What OpenTelemetry's SDK for Python sends, by either of its exporters.
fn opentelemetry_python(module: &str, transport: &str, options: &str) {
    const SCRIPT: &str = r#"
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.TRANSPORT.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.otlp.proto.TRANSPORT.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
OPTIONS
resource = Resource.create({"service.name": "Py-Cart"})
exporter = OTLPSpanExporter(**options("traces"))
provider = TracerProvider(resource=resource)
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("t")
with tracer.start_as_current_span("GET /cart", kind=trace.SpanKind.SERVER):
    with tracer.start_as_current_span("read", kind=trace.SpanKind.CLIENT, attributes={"peer.service": "db"}) as span:
        span.set_status(trace.Status(trace.StatusCode.ERROR, "gone"))
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**options("metrics")), export_interval_millis=100000)
meters = MeterProvider(metric_readers=[reader], resource=resource)
meters.get_meter("m").create_counter("orders", unit="1").add(3, {"kind": "book"})
assert meters.force_flush()
meters.shutdown()
provider.shutdown()
"#;
    let script = SCRIPT.replace("TRANSPORT", transport).replace("OPTIONS", options);
    let Some(house) = after_python(module, &script) else { return };
    assert_eq!(services(&house), ["py-cart"]);
    let query = TraceQuery::between(Nanos::ZERO, house.watched.clocks.unix() + Nanos::from_secs(60), 10);
    let traces = lock(&house.watched.traces).search(&query);
    assert_eq!((traces.len(), traces[0].len()), (1, 2), "{traces:?}");
    assert!(traces[0].iter().any(|it| it.failed() && &*it.remote.service == "db"));
    let app = lock(&house.watched.app);
    let families = app.metrics.families();
    let orders = families.iter().find(|it| it.name == "orders").map(|it| it.samples[0].1);
    assert_eq!(orders, Some(3.0), "{families:?}");
}

#[test]
fn opentelemetry_python_speaks_http_with_gzip() {
    const OPTIONS: &str = r#"
from opentelemetry.exporter.otlp.proto.http import Compression
def options(signal):
    return {"endpoint": "http://DOOR/v1/" + signal, "compression": Compression.Gzip}
"#;
    opentelemetry_python("opentelemetry.exporter.otlp.proto.http", "http", OPTIONS);
}

#[test]
fn opentelemetry_python_speaks_grpc_on_the_same_port() {
    const OPTIONS: &str = r#"
import grpc
def options(signal):
    return {"endpoint": "http://DOOR", "insecure": True, "compression": grpc.Compression.Gzip}
"#;
    opentelemetry_python("opentelemetry.exporter.otlp.proto.grpc", "grpc", OPTIONS);
}

#[test]
fn opentelemetry_javascript_sends_json() {
    const SCRIPT: &str = r#"
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-http");
const { BasicTracerProvider, SimpleSpanProcessor } = require("@opentelemetry/sdk-trace-base");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const exporter = new OTLPTraceExporter({ url: "http://DOOR/v1/traces" });
const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "js-web" }),
  spanProcessors: [new SimpleSpanProcessor(exporter)],
});
const span = provider.getTracer("t").startSpan("GET /", { kind: 1, attributes: { answer: 42, list: ["a", "b"] } });
span.addEvent("half way");
span.end();
provider.forceFlush().then(() => provider.shutdown()).catch((error) => { console.error(error); process.exit(1); });
"#;
    let modules = std::env::var("ISOBAR_TEST_NODE_MODULES").unwrap_or_default();
    let known = "require('@opentelemetry/exporter-trace-otlp-http')";
    let node = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &modules);
        command
    };
    let there = node().args(["-e", known]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|it| it.success()) {
        skipped("OpenTelemetry's packages for Node (ISOBAR_TEST_NODE_MODULES)");
        return;
    }
    let house = House::open();
    run(node().args(["-e", &SCRIPT.replace("DOOR", &house.door.to_string())]));
    assert_eq!(services(&house), ["js-web"]);
    let traces = lock(&house.watched.traces);
    let query = TraceQuery::between(Nanos::ZERO, house.watched.clocks.unix() + Nanos::from_secs(60), 1);
    let found = traces.search(&query);
    let span = &found[0][0];
    assert_eq!(span.tag("answer").and_then(|it| it.int()), Some(42), "{span:?}");
    assert_eq!(span.annotations.len(), 1);
}

#[allow(clippy::print_stdout, reason = "a skipped check must say so")]
fn skipped(what: &str) {
    println!("skipped: {what} is not installed");
}

#[test]
fn promtool_finds_nothing_wrong() {
    if !have("promtool", &["--version"]) {
        return;
    }
    let house = House::open();
    house.count(200);
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was there a moment ago");
    let page = control::exports::page(&house.watched, Format::Text);
    child.stdin.take().expect("a pipe").write_all(&page).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// A child that is ended with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Running {
    Running(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is there"),
    )
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on the loopback");
    listener.local_addr().expect("bound").port()
}

/// The body of a GET, from a server that closes after it.
fn get(address: &str, target: &str) -> Option<String> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn prometheus_scrapes_native_histograms() {
    if !have("prometheus", &["--version"]) {
        return;
    }
    let house = House::open();
    house.count(200);
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: isobar\n  static_configs: [{{targets: ['{}']}}]\n",
        house.page
    );
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config).expect("a file");
    let own = format!("127.0.0.1:{}", free_port());
    let _prometheus = spawn(
        Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={own}"))
            .arg("--enable-feature=native-histograms"),
    );
    let ask = |query: &str| {
        let answer = get(&own, &format!("/api/v1/query?query={query}"))?;
        answer.contains("\"value\"").then_some(answer)
    };
    let answer = house.eventually("a scrape", |_| {
        ask("histogram_count(http_client_request_duration_seconds%7Bisobar_status_class=%222xx%22%7D)")
    });
    assert!(answer.contains("\"200\"]") && answer.contains("cart \\\"of\\\" all\\\\trades"), "{answer}");
}

#[test]
fn envoy_sends_zipkin_spans() {
    let envoy = std::env::var("ISOBAR_TEST_ENVOY").unwrap_or_else(|_| "envoy".to_owned());
    if !have(&envoy, &["--version"]) {
        return;
    }
    let house = House::open();
    let folder = tempfile::tempdir().expect("a folder");
    let front = free_port();
    let config = format!(
        r#"
node: {{id: envoy, cluster: front-envoy}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {front}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          generate_request_id: true
          tracing:
            random_sampling: {{value: 100}}
            provider:
              name: envoy.tracers.zipkin
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig
                collector_cluster: isobar
                collector_endpoint: /api/v2/spans
                collector_endpoint_version: HTTP_JSON
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]
  clusters:
  - name: isobar
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: isobar
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
"#,
        house.door.port()
    );
    let file = folder.path().join("envoy.yaml");
    std::fs::write(&file, config).expect("a file");
    let base = std::process::id().to_string();
    let _envoy = spawn(Command::new(&envoy).arg("-c").arg(&file).args([
        "--base-id",
        &base,
        "--concurrency",
        "1",
        "-l",
        "off",
    ]));
    let own = format!("127.0.0.1:{front}");
    let came = house.eventually("a span of Envoy's", |watched| {
        let _ = get(&own, "/cart/17");
        let services = lock(&watched.traces).services();
        (!services.is_empty()).then_some(services)
    });
    assert_eq!(came, ["front-envoy"]);
}
