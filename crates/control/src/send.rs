//! What we send to others by ourselves: spans and latencies over OTLP to a collector, alerts to webhooks.
//!
//! Receivers are slow, away or wrong, and none of that may be felt here: each has one queue with an end, a few
//! tries with growing pauses, and counters of what was sent, tried again and given up. Plain HTTP: a receiver that wants
//! more stands behind a collector on this machine.

use crate::api::lock;
use crate::promises::{self, Said};
use crate::watch::Watched;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use telemetry::exposition::{Family, Kind};
use telemetry::span::Span;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use units::Nanos;

/// Batches of spans waiting for the collector: some seconds.
const BATCHES_MAX: usize = 32;
/// Alerts waiting for one webhook.
const ALERTS_MAX: usize = 100;
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const ANSWER_TIME: Duration = Duration::from_secs(5);
const LATENCIES_EVERY: Duration = Duration::from_secs(10);
/// Of an answer that nobody reads.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// `http://host:port/path`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    authority: String,
    path: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.trim().strip_prefix("http://") else {
            return Err(format!(
                "`{text}` does not begin with http://; put a collector or a relay before what needs more"
            ));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if host.is_empty() || authority.contains(['@', ' ']) {
            return Err(format!("`{text}` names no host"));
        }
        let authority = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            || authority.ends_with(']')
        {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self { authority, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }

    /// The same host with this below its path.
    fn below(&self, more: &str) -> Self {
        Self { authority: self.authority.clone(), path: format!("{}{more}", self.path.trim_end_matches('/')) }
    }
}

/// What a person decided about telemetry that goes out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A collector that takes OTLP over HTTP.
    pub otlp: Option<Url>,
    pub webhooks: Vec<Url>,
    /// One second is this many of an SLO's windows.
    pub slo_time_scale: f64,
}

impl Settings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, as OpenTelemetry says; `ISOBAR_ALERT_WEBHOOKS`, separated by commas;
    /// `ISOBAR_SLO_TIME_SCALE`. What cannot be used is said, and left out.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let mut mistakes = Vec::new();
        let mut url = |name: &str, text: &str| {
            Url::parse(text).map_err(|error| mistakes.push(format!("{name}: {error}"))).ok()
        };
        let otlp = get(OTLP).filter(|it| !it.trim().is_empty()).and_then(|it| url(OTLP, &it));
        let webhooks = get(WEBHOOKS).unwrap_or_default();
        let webhooks = webhooks.split(',').filter(|it| !it.trim().is_empty());
        let webhooks = webhooks.filter_map(|it| url(WEBHOOKS, it)).collect();
        let slo_time_scale = match get(TIME_SCALE).as_deref().map(str::trim) {
            None | Some("") => 1.0,
            Some(text) => match text.parse::<f64>() {
                Ok(scale) if (1e-3..=1e7).contains(&scale) => scale,
                _ => {
                    mistakes.push(format!("{TIME_SCALE}: `{text}` is no number from 0.001 to 10000000"));
                    1.0
                }
            },
        };
        (Self { otlp, webhooks, slo_time_scale }, mistakes)
    }
}

const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const WEBHOOKS: &str = "ISOBAR_ALERT_WEBHOOKS";
const TIME_SCALE: &str = "ISOBAR_SLO_TIME_SCALE";

/// What became of what was sent.
#[derive(Debug, Default)]
pub struct SendCounters {
    sent: AtomicU64,
    retried: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
}

impl SendCounters {
    pub fn families(&self, what: &str) -> Vec<Family> {
        let row = |name: &str, help: &str, cell: &AtomicU64| {
            Family::single(&format!("isobar_{what}_{name}"), help, Kind::Counter, cell.load(Relaxed) as f64)
        };
        vec![
            row("sent", "Messages that were taken.", &self.sent),
            row("retried", "Messages sent once more.", &self.retried),
            row("given_up", "Messages given up after several tries.", &self.given_up),
            row("dropped", "Messages dropped because the queue was full.", &self.dropped),
        ]
    }
}

/// Spans on their way to a collector.
#[derive(Debug)]
pub struct Exporter {
    queue: Option<mpsc::Sender<Vec<Span>>>,
    pub counters: Arc<SendCounters>,
}

impl Exporter {
    /// Without a collector everything is passed over; with one, whoever holds the receiver sends.
    pub fn new(settings: &Settings) -> (Self, Option<mpsc::Receiver<Vec<Span>>>) {
        let counters = Arc::<SendCounters>::default();
        if settings.otlp.is_none() {
            return (Self { queue: None, counters }, None);
        }
        let (queue, receiver) = mpsc::channel(BATCHES_MAX);
        (Self { queue: Some(queue), counters }, Some(receiver))
    }

    pub fn spans(&self, spans: Vec<Span>) {
        if let Some(queue) = self.queue.as_ref().filter(|_| !spans.is_empty())
            && queue.try_send(spans).is_err()
        {
            self.counters.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Begins to send what is to be sent. Call it once, on a runtime.
pub fn start(watched: &Arc<Watched>) {
    if let (Some(url), Some(queue)) = (watched.settings.otlp.clone(), lock(&watched.outbox).take()) {
        tokio::spawn(export(Arc::clone(watched), url, queue));
    }
    if !watched.settings.webhooks.is_empty() {
        tokio::spawn(tell_webhooks(Arc::clone(watched), watched.settings.webhooks.clone()));
    }
}

/// Sends spans as they come and latencies every ten seconds, for as long as anybody makes spans.
pub async fn export(watched: Arc<Watched>, collector: Url, mut queue: mpsc::Receiver<Vec<Span>>) {
    let (traces, metrics) = (collector.below("/v1/traces"), collector.below("/v1/metrics"));
    let counters = Arc::clone(&watched.exporter.counters);
    let mut due = tokio::time::interval(LATENCIES_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (url, body) = tokio::select! {
            spans = queue.recv() => match spans {
                Some(spans) => (&traces, telemetry::otlp::export::traces(&spans)),
                None => return,
            },
            _ = due.tick() => (&metrics, latencies(&watched)),
        };
        deliver(url, "application/x-protobuf", body.into(), &counters, FIRST_PAUSE).await;
    }
}

fn latencies(watched: &Watched) -> Vec<u8> {
    let measures = lock(&watched.measures);
    let series = measures
        .history()
        .totals()
        .filter_map(|(id, latency, counters)| Some((measures.text(id)?, latency, counters)));
    let start = Nanos::from_millis(watched.clocks.started_unix_ms);
    telemetry::otlp::export::latencies(series, start, watched.clocks.unix())
}

/// Tells every webhook of every alert, each at its own pace.
pub async fn tell_webhooks(watched: Arc<Watched>, webhooks: Vec<Url>) {
    let mut alerts = watched.alerts.subscribe();
    let mut queues = Vec::new();
    for url in webhooks {
        let (queue, mut inbox) = mpsc::channel::<Said>(ALERTS_MAX);
        let counters = Arc::clone(&watched.webhook_counters);
        tokio::spawn(async move {
            while let Some(said) = inbox.recv().await {
                let body = promises::document(&said).to_string();
                deliver(&url, "application/json", body.into(), &counters, FIRST_PAUSE).await;
            }
        });
        queues.push(queue);
    }
    loop {
        match alerts.recv().await {
            Ok(said) => {
                for queue in &queues {
                    if queue.try_send(said.clone()).is_err() {
                        watched.webhook_counters.dropped.fetch_add(1, Relaxed);
                    }
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                watched.webhook_counters.dropped.fetch_add(missed, Relaxed);
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Sends one message until it is taken, refused for good, or tried often enough.
async fn deliver(url: &Url, kind: &'static str, body: Bytes, counters: &SendCounters, mut pause: Duration) {
    for attempt in 1..=TRIES_MAX {
        let answer = tokio::time::timeout(ANSWER_TIME, post(url, kind, body.clone())).await;
        match answer {
            Ok(Ok(200..=299)) => {
                counters.sent.fetch_add(1, Relaxed);
                return;
            }
            // It will say the same next time.
            Ok(Ok(status)) if !matches!(status, 408 | 429 | 500..=599) => break,
            _ if attempt < TRIES_MAX => {
                counters.retried.fetch_add(1, Relaxed);
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            _ => {}
        }
    }
    counters.given_up.fetch_add(1, Relaxed);
}

async fn post(url: &Url, kind: &'static str, body: Bytes) -> Result<u16, ()> {
    let stream = TcpStream::connect(&url.authority).await.map_err(drop)?;
    let (mut send, wire) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(drop)?;
    let wire = tokio::spawn(wire);
    let request = hyper::Request::post(&url.path)
        .header(HOST, &url.authority)
        .header(CONTENT_TYPE, kind)
        .body(Full::new(body))
        .map_err(drop)?;
    let answer = send.send_request(request).await.map_err(drop)?;
    let status = answer.status().as_u16();
    // Read to its end, or to where it stops being an answer, so that the receiver is not cut off.
    let _ = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    wire.abort();
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn urls_are_read_strictly() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let read = Url::parse(text).ok();
            let read = read.as_ref().map(|it| (it.authority.as_str(), it.path.as_str()));
            assert_eq!(read, expected, "{text}");
        };
        check("http://localhost:4318", Some(("localhost:4318", "/")));
        check("http://relay/hooks/a?b=c", Some(("relay:80", "/hooks/a?b=c")));
        check("http://[::1]:9/x", Some(("[::1]:9", "/x")));
        check("https://example.org", None);
        check("localhost:4318", None);
        check("http://", None);
        check("http://user@host/", None);
        assert_eq!(Url::parse("http://a:1/x/").expect("good").below("/v1/traces").path, "/x/v1/traces");
    }

    #[test]
    fn the_environment_says_what_to_send_where() {
        let check = |pairs: &[(&str, &str)], webhooks: usize, scale: f64, mistakes: usize| {
            let get = |name: &str| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            let (settings, said) = Settings::from_environment(get);
            assert_eq!(
                (settings.webhooks.len(), settings.slo_time_scale, said.len()),
                (webhooks, scale, mistakes),
                "{said:?}"
            );
        };
        check(&[], 0, 1.0, 0);
        check(&[(WEBHOOKS, "http://a/1, http://b/2"), (TIME_SCALE, "8640")], 2, 8_640.0, 0);
        check(&[(WEBHOOKS, "https://a"), (TIME_SCALE, "-1"), (OTLP, "grpc://x")], 0, 1.0, 3);
    }

    /// A receiver that answers with these statuses in turn; how many requests it got.
    async fn receiver(statuses: &'static [u16]) -> (Url, Arc<Mutex<usize>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url =
            Url::parse(&format!("http://{}/hook", listener.local_addr().expect("bound"))).expect("good");
        let got = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&got);
        tokio::spawn(async move {
            for status in statuses {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut bytes = vec![0; 4_096];
                let _ = stream.read(&mut bytes).await;
                *lock(&counted) += 1;
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await;
            }
        });
        (url, got)
    }

    #[tokio::test]
    async fn a_receiver_is_tried_again_and_then_given_up() {
        for (statuses, requests, sent, retried, given_up) in [
            (&[200u16][..], 1, 1, 0, 0),
            (&[503, 429, 204], 3, 1, 2, 0),
            (&[400], 1, 0, 0, 1),
            (&[500, 500, 500, 500, 500], 5, 0, 4, 1),
        ] {
            let (url, got) = receiver(statuses).await;
            let counters = SendCounters::default();
            let body = Bytes::from_static(b"{}");
            deliver(&url, "application/json", body, &counters, Duration::from_millis(1)).await;
            let counted = [&counters.sent, &counters.retried, &counters.given_up].map(|it| it.load(Relaxed));
            assert_eq!((*lock(&got), counted), (requests, [sent, retried, given_up]), "{statuses:?}");
        }
    }
}
