//! Questions about ourselves, answered over HTTP on loopback by the control side's thread.
//!
//! ```text
//! GET  /healthz                 200 while the process lives
//! GET  /readyz                  200 while it takes new work, 503 once it drains
//! GET  /stats[?format=json]     Prometheus text, or JSON
//! GET  /config                  the running snapshot as JSON, its source, its generation and its age
//! GET  /endpoints               every instance: health, ejection, in flight, latency, and why
//! GET  /tap[?edge=&status=&path=&sample=&count=]   finished requests as JSON lines, as they end
//! GET  /log                     how much the proxy says on stderr
//! POST /log?level=              error, info or debug
//! POST /drain                   finish what is in progress and end
//! ```
//! It reads cells and asks workers by message. Requests are small and few; one connection carries one request.

use crate::engine::{Control, Message};
use crate::http1::{HeadLimits, Method, Progress, RequestHead, parse_request};
use crate::log::Level;
use crate::plan::Plan;
use crate::record::Finished;
use crate::snapshot_json::{Object, quote, snapshot};
use crate::stats::{ByClass, Cell, EdgeCells};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use units::{Histogram, Percent};

/// Connections answered at once; more wait.
const CONNECTIONS_MAX: usize = 64;

/// Finished requests waiting for a tap's reader.
const TAP_WAITING_MAX: usize = 1_024;

/// Answers on loopback.
pub(crate) async fn serve(control: Arc<Control>, socket: std::net::TcpListener) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => accept(control, async || Ok(socket.accept().await?.0)).await,
        Err(error) => eprintln!("isobar: the admin listener cannot be polled: {error}"),
    }
}

/// The same on a Unix socket.
pub(crate) async fn serve_local(control: Arc<Control>, socket: std::os::unix::net::UnixListener) {
    match tokio::net::UnixListener::from_std(socket) {
        Ok(socket) => accept(control, async || Ok(socket.accept().await?.0)).await,
        Err(error) => eprintln!("isobar: the admin socket cannot be polled: {error}"),
    }
}

async fn accept<S: Stream + 'static>(control: Arc<Control>, next: impl AsyncFn() -> std::io::Result<S>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match next().await {
            Ok(stream) => begin(&control, place, stream),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn begin(control: &Arc<Control>, place: tokio::sync::OwnedSemaphorePermit, stream: impl Stream + 'static) {
    let control = control.clone();
    tokio::task::spawn_local(async move {
        let _place = place;
        let _ = answer(&control, stream).await;
    });
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn answer(control: &Control, mut stream: impl Stream) -> std::io::Result<()> {
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    let mut buffer = Vec::with_capacity(1 << 10);
    loop {
        let mut piece = [0; 1 << 10];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece)).await;
        let read = read.unwrap_or(Ok(0))?;
        if read == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&piece[..read]);
        match parse_request(&buffer, &limits, &mut head) {
            Ok(Progress::Complete) => break,
            Ok(Progress::Partial) => {}
            Err(refusal) => {
                let said = format!("{}\n", refusal.name());
                return reply(&mut stream, (refusal.status(), "text/plain", said.len()), &said).await;
            }
        }
    }
    let path = String::from_utf8_lossy(head.path(&buffer)).into_owned();
    let query = head.query(&buffer).to_vec();
    let wants = |name: &str| {
        crate::router::find_pair(&query, b'&', name).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let metrics = "text/plain; version=0.0.4; charset=utf-8";
    let (text, json_text) = ("text/plain; charset=utf-8", "application/json");
    let (status, kind, body) = match (head.method, path.as_str()) {
        (Method::Get | Method::Head, "/healthz") => (200, text, "ok\n".to_owned()),
        (Method::Get | Method::Head, "/readyz") if control.draining.load(Relaxed) => {
            (503, text, "draining\n".to_owned())
        }
        (Method::Get | Method::Head, "/readyz") => (200, text, "ready\n".to_owned()),
        (Method::Get | Method::Head, "/stats" | "/metrics") => match wants("format").as_deref() {
            Some("json") => (200, json_text, json(control)),
            None | Some("prometheus") => (200, metrics, prometheus(control)),
            Some(other) => (
                400,
                text,
                format!("format={other} is unknown: json, or prometheus, which is meant without any\n"),
            ),
        },
        (Method::Get | Method::Head, "/config") => (200, json_text, running(control)),
        (Method::Get | Method::Head, "/endpoints") => (200, json_text, endpoints(control).await),
        (Method::Get, "/tap") => match Tap::read(&wants) {
            Ok(wanted) => return tap(control, &mut stream, &wanted).await,
            Err(mistake) => (400, text, mistake),
        },
        (Method::Get | Method::Head, "/log") => (200, text, format!("{}\n", control.voice.level().name())),
        (Method::Post, "/log") => match wants("level").and_then(|it| Level::of(&it)) {
            Some(level) => {
                control.voice.set(level);
                (200, text, format!("{}\n", level.name()))
            }
            None => (400, text, "?level= is error, info or debug\n".to_owned()),
        },
        (Method::Post, "/drain") => {
            control.drain();
            (202, text, "draining\n".to_owned())
        }
        (
            _,
            path @ ("/healthz" | "/readyz" | "/stats" | "/metrics" | "/config" | "/endpoints" | "/tap"
            | "/log" | "/drain"),
        ) => {
            let other = if path == "/drain" { "POST" } else { "GET" };
            (405, text, format!("{path} is asked with {other}\n"))
        }
        _ => (
            404,
            text,
            "try /healthz /readyz /stats /config /endpoints /tap /log, or POST /drain\n".to_owned(),
        ),
    };
    let shown = if head.method == Method::Head { "" } else { body.as_str() };
    reply(&mut stream, (status, kind, body.len()), shown).await
}

/// What runs, where it came from and since when, and which snapshot each worker has taken over.
fn running(control: &Control) -> String {
    let plan = control.plan();
    let age = control.clock.now().saturating_sub(plan.applied_at);
    let applied: Vec<String> =
        control.workers.iter().map(|worker| worker.applied.load(Relaxed).to_string()).collect();
    let mut out = Object::new()
        .text("source", &plan.config.source)
        .raw("generation", plan.generation)
        .raw("workers", format!("[{}]", applied.join(",")))
        .raw("age_s", format!("{:.3}", age.as_secs_f64()))
        .raw("config", snapshot(&plan.config))
        .end();
    out.push('\n');
    out
}

async fn reply(
    stream: &mut impl Stream,
    (status, kind, length): (u16, &str, usize),
    body: &str,
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n",
        crate::heads::reason(status),
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// An edge's counters: name, help, and where they are.
type Row = (&'static str, &'static str, fn(&EdgeCells) -> &Cell);

const EDGE_COUNTERS: [Row; 25] = [
    ("edge_attempts_total", "Attempts sent to instances.", |it| &it.attempts),
    ("edge_retries_total", "Attempts after the first.", |it| &it.retries),
    ("edge_retries_refused_total", "Retries that the budget or a limit refused.", |it| &it.retries_refused),
    ("edge_replays_total", "Requests sent again because they never reached their peer.", |it| &it.replays),
    ("edge_hedges_total", "Second copies sent because the first was slow.", |it| &it.hedges),
    ("edge_hedges_refused_total", "Second copies that the budget refused.", |it| &it.hedges_refused),
    ("edge_hedges_won_total", "Second copies that were answered first.", |it| &it.hedges_won),
    ("edge_hedges_cancelled_total", "Copies given up because another was answered.", |it| {
        &it.hedges_cancelled
    }),
    ("edge_connect_failures_total", "Connections that could not be made.", |it| &it.connect_failures),
    ("edge_resets_total", "Connections that broke under a request.", |it| &it.resets),
    ("edge_timeouts_total", "Attempts that took too long.", |it| &it.timeouts),
    ("edge_pool_waits_total", "Attempts that waited for a connection.", |it| &it.pool_waits),
    ("edge_no_instance_total", "Requests for which no instance could be picked.", |it| &it.no_endpoint),
    ("edge_breaker_refused_total", "Requests refused by an open breaker.", |it| &it.breaker_refused),
    ("edge_breaker_trips_total", "Times the breaker opened.", |it| &it.breaker_trips),
    ("edge_ejections_total", "Instances that were left out for a while.", |it| &it.ejections),
    ("edge_ejections_withheld_total", "Instances left in although a rule found them guilty.", |it| {
        &it.ejections_withheld
    }),
    ("edge_overload_refused_total", "Requests refused because the instance had enough to do.", |it| {
        &it.limit_refused
    }),
    ("edge_quota_refused_total", "Requests refused by the edge's own rate, throttle or concurrency.", |it| {
        &it.quota_refused
    }),
    ("edge_deadline_refused_total", "Requests that came too late.", |it| &it.deadline_refused),
    ("edge_cancelled_total", "Requests whose caller left.", |it| &it.cancelled),
    ("edge_mirrored_total", "Copies sent elsewhere.", |it| &it.mirrored),
    ("edge_mirror_dropped_total", "Copies not sent because of a limit.", |it| &it.mirror_dropped),
    ("edge_connections_total", "Connections made to instances.", |it| &it.connections_made),
    ("edge_response_bytes_total", "Bytes of replies' bodies.", |it| &it.response_bytes),
];

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A label's value as the exposition format wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All counters as Prometheus text.
pub(crate) fn prometheus(control: &Control) -> String {
    let plan = control.plan();
    let mut out = String::with_capacity(16 << 10);
    // Writing to a string cannot fail.
    let _ = write_prometheus(control, &plan, &mut out);
    out
}

fn write_prometheus(control: &Control, plan: &Plan, out: &mut String) -> std::fmt::Result {
    let readings: Vec<_> = control.workers.iter().map(|worker| worker.cells.readings()).collect();
    for at in 0..readings.first().map_or(0, Vec::len) {
        let (name, help, gauge, _) = readings[0][at];
        let sum: u64 = readings.iter().map(|worker| worker[at].3).fold(0, u64::wrapping_add);
        let kind = if gauge { "gauge" } else { "counter" };
        writeln!(
            out,
            "# HELP isobar_proxy_{name} {help}\n# TYPE isobar_proxy_{name} {kind}\nisobar_proxy_{name} {sum}"
        )?;
    }
    writeln!(
        out,
        "# HELP isobar_proxy_refused_total Messages refused, by reason.\n# TYPE isobar_proxy_refused_total counter"
    )?;
    for refusal in crate::http1::Refusal::ALL {
        let sum: u64 = control.workers.iter().map(|it| it.cells.refusals[refusal as usize].get()).sum();
        writeln!(out, "isobar_proxy_refused_total{{reason=\"{}\"}} {sum}", refusal.name())?;
    }
    writeln!(
        out,
        "# HELP isobar_proxy_generation The running configuration.\n# TYPE isobar_proxy_generation gauge\n\
         isobar_proxy_generation {}",
        plan.generation
    )?;

    writeln!(
        out,
        "# HELP isobar_edge_requests_total Requests, by edge and class of status.\n# TYPE isobar_edge_requests_total counter"
    )?;
    for edge in plan.edges.iter().flatten() {
        for (class, label) in CLASSES.iter().enumerate() {
            let sum = edge.cells.sum(|cells| &cells.classes[class]);
            if sum > 0 {
                writeln!(
                    out,
                    "isobar_edge_requests_total{{edge=\"{}\",class=\"{label}\"}} {sum}",
                    escape(&edge.config.name)
                )?;
            }
        }
    }
    writeln!(
        out,
        "# HELP isobar_edge_version_requests_total Requests, by edge, version and class of status.\n# TYPE isobar_edge_version_requests_total counter"
    )?;
    for edge in plan.edges.iter().flatten() {
        let versions = plan.services.get(edge.service as usize).and_then(Option::as_ref);
        for (at, version) in versions.map_or(&[][..], |service| &service.versions).iter().enumerate() {
            for (class, label) in CLASSES.iter().enumerate() {
                let sum: u64 = edge
                    .cells
                    .all()
                    .filter_map(|it| it.versions.get(at))
                    .map(|it| it.classes[class].get())
                    .sum();
                if sum > 0 && !version.is_empty() {
                    writeln!(
                        out,
                        "isobar_edge_version_requests_total{{edge=\"{}\",version=\"{}\",class=\"{label}\"}} {sum}",
                        escape(&edge.config.name),
                        escape(version)
                    )?;
                }
            }
        }
    }
    for (name, help, read) in EDGE_COUNTERS {
        writeln!(out, "# HELP isobar_{name} {help}\n# TYPE isobar_{name} counter")?;
        for edge in plan.edges.iter().flatten() {
            let sum = edge.cells.sum(read);
            if sum > 0 {
                writeln!(out, "isobar_{name}{{edge=\"{}\"}} {sum}", escape(&edge.config.name))?;
            }
        }
    }
    writeln!(
        out,
        "# HELP isobar_edge_latency_seconds Time to answer, by edge and class of status.\n# TYPE isobar_edge_latency_seconds histogram"
    )?;
    for edge in plan.edges.iter().flatten() {
        let labels = format!("edge=\"{}\"", escape(&edge.config.name));
        let cells = edge.cells.all().map(|it| &it.latency);
        write_by_class(out, "isobar_edge_latency_seconds", &labels, cells)?;
    }
    writeln!(
        out,
        "# HELP isobar_edge_version_latency_seconds Time to answer, by edge, version and class of status.\n# TYPE isobar_edge_version_latency_seconds histogram"
    )?;
    for edge in plan.edges.iter().flatten() {
        let versions = plan.services.get(edge.service as usize).and_then(Option::as_ref);
        for (at, version) in versions.map_or(&[][..], |service| &service.versions).iter().enumerate() {
            if version.is_empty() {
                continue;
            }
            let labels = format!("edge=\"{}\",version=\"{}\"", escape(&edge.config.name), escape(version));
            let cells = edge.cells.all().filter_map(|it| it.versions.get(at)).map(|it| &it.latency);
            write_by_class(out, "isobar_edge_version_latency_seconds", &labels, cells)?;
        }
    }
    writeln!(
        out,
        "# HELP isobar_route_latency_seconds Time to answer, by route and class of status.\n# TYPE isobar_route_latency_seconds histogram"
    )?;
    for listener in &plan.listeners {
        for route in listener.routes() {
            let labels = format!(
                "listener=\"{}\",route=\"{}\"",
                escape(&listener.config.name),
                escape(&route.route.name)
            );
            let cells = route.cells.all().map(|it| &it.latency);
            write_by_class(out, "isobar_route_latency_seconds", &labels, cells)?;
        }
    }
    writeln!(
        out,
        "# HELP isobar_route_requests_total Requests, by route and class of status.\n# TYPE isobar_route_requests_total counter"
    )?;
    for listener in &plan.listeners {
        for route in listener.routes() {
            for (class, label) in CLASSES.iter().enumerate() {
                let sum = route.cells.sum(|cells| &cells.classes[class]);
                // Routes nobody used have no series: five thousand zeros help nobody.
                if sum > 0 {
                    writeln!(
                        out,
                        "isobar_route_requests_total{{listener=\"{}\",route=\"{}\",class=\"{label}\"}} {sum}",
                        escape(&listener.config.name),
                        escape(&route.route.name)
                    )?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn merged<'c>(cells: impl Iterator<Item = &'c crate::stats::HistogramCells>) -> Histogram {
    let mut all = Histogram::new();
    cells.for_each(|cells| all.merge(&cells.read()));
    all
}

/// Bounds that people's dashboards expect; the fine buckets go to those who ask for them.
const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

fn write_by_class<'c>(
    out: &mut String,
    name: &str,
    labels: &str,
    cells: impl Iterator<Item = &'c ByClass> + Clone,
) -> std::fmt::Result {
    for (class, label) in CLASSES.iter().enumerate() {
        let latency = merged(cells.clone().filter_map(|it| it.of(class)));
        if !latency.is_empty() {
            write_histogram(out, name, &format!("{labels},class=\"{label}\""), &latency)?;
        }
    }
    Ok(())
}

fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) -> std::fmt::Result {
    for bound in BOUNDS_US {
        let at_most = histogram.count_at_most(units::Nanos::from_micros(bound));
        writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {at_most}", bound as f64 / 1e6)?;
    }
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count())?;
    writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum() as f64 / 1e9)?;
    writeln!(out, "{name}_count{{{labels}}} {}", histogram.count())
}

/// The same as JSON, with percentiles.
fn json(control: &Control) -> String {
    let plan = control.plan();
    let mut out = String::from("{\"proxy\":{");
    let readings: Vec<_> = control.workers.iter().map(|worker| worker.cells.readings()).collect();
    for at in 0..readings.first().map_or(0, Vec::len) {
        let sum: u64 = readings.iter().map(|worker| worker[at].3).fold(0, u64::wrapping_add);
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{}\":{sum}", readings[0][at].0);
    }
    let _ = write!(out, "}},\"generation\":{},\"edges\":[", plan.generation);
    for (at, edge) in plan.edges.iter().flatten().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"edge\":{}", quote(&edge.config.name));
        for (class, label) in CLASSES.iter().enumerate() {
            let _ = write!(out, ",\"{label}\":{}", edge.cells.sum(|cells| &cells.classes[class]));
        }
        for (name, _, read) in EDGE_COUNTERS {
            let _ = write!(out, ",\"{name}\":{}", edge.cells.sum(read));
        }
        let latency = merged(edge.cells.all().flat_map(|cells| cells.latency.all()));
        for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let _ = write!(out, ",\"{name}_us\":{}", latency.quantile(q).unwrap_or_default().0 / 1_000);
        }
        out.push('}');
    }
    out.push_str("]}\n");
    out
}

/// Every instance of every service, as each worker sees it, added up.
async fn endpoints(control: &Control) -> String {
    let plan = control.plan();
    let mut out = String::from("[");
    for (slot, service) in plan.services.iter().enumerate() {
        let Some(service) = service else { continue };
        let mut reports = Vec::new();
        for worker in &control.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::Describe { service: slot as u32, reply });
            // A worker that is busy or gone must not hang whoever asks.
            if let Ok(Ok(report)) = tokio::time::timeout(Duration::from_secs(1), answer).await {
                reports.extend(report);
            }
        }
        if out.len() > 1 {
            out.push(',');
        }
        let _ = write!(out, "\n{{\"service\":{},\"instances\":[", quote(&service.config.name));
        let mut addresses: Vec<_> = reports.iter().map(|report| (report.address, report.version)).collect();
        addresses.sort();
        addresses.dedup();
        for (at, (address, version)) in addresses.into_iter().enumerate() {
            let of =
                || reports.iter().filter(|report| report.address == address && report.version == version);
            let comma = if at == 0 { "" } else { "," };
            let name = service.versions.get(usize::from(version)).map_or("", String::as_str);
            let label = of().next().map_or("", |report| report.label.as_str());
            let health = of().map(|report| report.health.as_str()).next().unwrap_or("unknown");
            let _ = write!(
                out,
                "{comma}\n  {{\"address\":\"{address}\",\"name\":{},\"version\":{},\"health\":\"{health}\"",
                quote(label),
                quote(name)
            );
            if let Some(standing) = control.health.get((slot as u32, address)) {
                let _ = write!(
                    out,
                    ",\"check\":\"{}\",\"check_said\":{},\"checks\":{}",
                    if standing.passing { "passing" } else { "failing" },
                    quote(standing.last),
                    standing.probes
                );
            }
            let ejected = of().filter(|report| report.ejected_for.is_some()).count();
            let longest = of().filter_map(|report| report.ejected_for).max();
            let latency = of().filter_map(|report| report.latency).max();
            let _ = write!(
                out,
                ",\"ejected_by_workers\":{ejected},\"ejected_for_ms\":{},\"why\":{},\"in_flight\":{},\"waiting\":{},\
                 \"limit\":{},\"shed\":{},\"latency_ewma_us\":{},\"failure_share\":{:.4},\"connections\":{},\"idle\":{},\
                 \"requests\":{},\"failures\":{}}}",
                longest.map_or(0, |left| left.0 / 1_000_000),
                quote(&of().filter_map(|report| report.verdict.clone()).next().unwrap_or_default()),
                of().map(|report| report.in_flight).sum::<u32>(),
                of().map(|report| report.gate.2).sum::<usize>(),
                of().map(|report| u64::from(report.gate.0)).sum::<u64>(),
                of().map(|report| report.gate.3).sum::<u64>(),
                latency.map_or(0, |latency| latency.0 / 1_000),
                of().map(|report| report.failure_share).fold(0.0, f64::max),
                of().map(|report| report.connections).sum::<u32>(),
                of().map(|report| report.idle).sum::<u32>(),
                of().map(|report| report.requests).sum::<u64>(),
                of().map(|report| report.failures).sum::<u64>(),
            );
        }
        out.push_str("]}");
    }
    out.push_str("\n]\n");
    out
}

/// Which requests somebody wants to see.
struct Tap {
    edge: Option<String>,
    /// `404`, or `5xx`.
    status: Option<(u16, u16)>,
    path: Option<String>,
    share: Percent,
    count: u64,
}

impl Tap {
    fn read(wants: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mistake = |name: &str, value: &str, meant: &str| format!("{name}={value} is not {meant}\n");
        let status = wants("status").map(|text| {
            let class =
                text.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok()).filter(|it| *it <= 5);
            let range = match class {
                Some(class) => Some((class * 100, class * 100 + 99)),
                None => text.parse().ok().map(|status| (status, status)),
            };
            range.ok_or_else(|| mistake("status", &text, "a status, as 404, or a class of them, as 5xx"))
        });
        let count = wants("count").map(|text| text.parse().map_err(|_| mistake("count", &text, "a number")));
        let share = wants("sample").map(|text| {
            // A per cent sign may come as it is or encoded.
            let written = text.replace("%25", "%");
            written.parse().map_err(|_| mistake("sample", &text, "a share, as 1%"))
        });
        Ok(Self {
            edge: wants("edge").map(|edge| edge.replace("%3E", ">").replace("%3e", ">")),
            status: status.transpose()?,
            path: wants("path"),
            share: share.transpose()?.unwrap_or(Percent::WHOLE),
            count: count.transpose()?.unwrap_or(u64::MAX),
        })
    }

    fn wants(&self, event: &Finished, edge: &str) -> bool {
        // By the trace's number, so that all of a trace is seen or nothing of it.
        let drawn = (event.trace_id as u64 >> 11) as f64 / (1u64 << 53) as f64;
        self.edge.as_deref().is_none_or(|wanted| wanted == edge)
            && self.status.is_none_or(|(from, to)| (from..=to).contains(&event.status))
            && self.path.as_deref().is_none_or(|path| event.path().starts_with(path))
            && drawn < self.share.fraction()
    }
}

/// Finished requests as they end, until the reader leaves or has `count` of them.
async fn tap(control: &Control, stream: &mut impl Stream, wanted: &Tap) -> std::io::Result<()> {
    let (sender, events) = crossbeam_channel::bounded(TAP_WAITING_MAX);
    for worker in &control.workers {
        worker.send(Message::Events(sender.clone()));
    }
    drop(sender);
    let mut left = wanted.count;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut gone = [0; 64];
    while left > 0 && !control.stopped.load(Relaxed) {
        let plan = control.plan();
        let mut lines = String::new();
        for event in events.try_iter().take(256) {
            let name =
                plan.edges.get(event.edge as usize).and_then(Option::as_ref).map_or("", |it| &it.config.name);
            if wanted.wants(&event, name) && left > 0 {
                left -= 1;
                write_event(&mut lines, &event, name);
            }
        }
        stream.write_all(lines.as_bytes()).await?;
        // A reader that leaves ends the tap; what it says is of no interest.
        if let Ok(Ok(0) | Err(_)) =
            tokio::time::timeout(Duration::from_millis(50), stream.read(&mut gone)).await
        {
            return Ok(());
        }
    }
    stream.shutdown().await
}

/// The path is shown without its query: queries carry secrets.
pub(crate) fn write_event(out: &mut String, event: &Finished, edge: &str) {
    let _ = writeln!(
        out,
        "{{\"time_unix_us\":{},\"edge\":{},\"method\":\"{:?}\",\"path\":{},\"status\":{},\"duration_us\":{},\"upstream_us\":{},\
         \"attempts\":{},\"instance\":\"{}\",\"trace_id\":\"{:032x}\",\"error\":{}}}",
        event.started_unix.0 / 1_000,
        quote(edge),
        event.method,
        quote(event.path()),
        event.status,
        event.duration.0 / 1_000,
        event.upstream.0 / 1_000,
        event.attempts,
        event.instance.map(|address| address.to_string()).unwrap_or_default(),
        event.trace_id,
        quote(event.error)
    );
}
