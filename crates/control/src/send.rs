//! What we send to others by ourselves: spans and latencies over OTLP to a collector, alerts to webhooks.
//!
//! Receivers are slow, away or wrong, and none of that may be felt here: each has one queue with an end, a few
//! tries with growing pauses, and counters of what was sent, tried again and given up. A receiver is reached by HTTP or
//! HTTPS; whom it trusts is told in files, so that no key stands in a list of processes or in a shell's history.

pub mod outward;

use crate::api::lock;
use crate::compile::MARKER;
use crate::promises::{self, Said};
use crate::watched::Watched;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use outward::{Key, SendCounters, Url, Way};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use telemetry::span::Span;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use units::Nanos;

/// Alerts waiting for one webhook.
const ALERTS_MAX: usize = 100;
const TRIES_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const ANSWER_TIME: Duration = Duration::from_secs(5);
const LATENCIES_EVERY: Duration = Duration::from_secs(10);
/// Of an answer that nobody reads.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Begins to send what is to be sent. Call it once, on a runtime.
pub fn start(watched: &Arc<Watched>) {
    let settings = &watched.settings;
    if let (Some(url), Some(queue)) = (settings.otlp.clone(), lock(&watched.outbox).take()) {
        let way = Way::new(settings.otlp_key.clone(), &settings.roots, std::slice::from_ref(&url));
        tokio::spawn(export(Arc::clone(watched), url, way, queue));
    }
    if !settings.webhooks.is_empty() {
        let way = Way::new(settings.webhook_key.clone(), &settings.roots, &settings.webhooks);
        tokio::spawn(tell_webhooks(Arc::clone(watched), settings.webhooks.clone(), way));
    }
}

/// Sends spans as they come and latencies every ten seconds, for as long as anybody makes spans.
pub async fn export(watched: Arc<Watched>, collector: Url, way: Way, mut queue: mpsc::Receiver<Vec<Span>>) {
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
        deliver(url, &way, "application/x-protobuf", body.into(), &counters, FIRST_PAUSE).await;
    }
}

fn latencies(watched: &Watched) -> Vec<u8> {
    let measures = lock(&watched.measures);
    let series = measures
        .history()
        .totals()
        .filter_map(|(id, latency, counters)| Some((measures.text(id)?, latency, counters)))
        .filter(|(text, ..)| &*text.destination != MARKER);
    let start = Nanos::from_millis(watched.clocks.started_unix_ms);
    telemetry::otlp::export::latencies(series, start, watched.clocks.unix())
}

/// Tells every webhook of every alert, each at its own pace.
pub async fn tell_webhooks(watched: Arc<Watched>, webhooks: Vec<Url>, way: Way) {
    let mut alerts = watched.alerts.subscribe();
    let mut queues = Vec::new();
    for url in webhooks {
        let (queue, mut inbox) = mpsc::channel::<Said>(ALERTS_MAX);
        let (counters, way) = (Arc::clone(&watched.webhook_counters), way.clone());
        tokio::spawn(async move {
            while let Some(said) = inbox.recv().await {
                let body = promises::document(&said).to_string();
                deliver(&url, &way, "application/json", body.into(), &counters, FIRST_PAUSE).await;
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
async fn deliver(
    url: &Url,
    way: &Way,
    kind: &'static str,
    body: Bytes,
    counters: &SendCounters,
    mut pause: Duration,
) {
    for attempt in 1..=TRIES_MAX {
        let answer = tokio::time::timeout(ANSWER_TIME, post(url, way, kind, body.clone())).await;
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

async fn post(url: &Url, way: &Way, kind: &'static str, body: Bytes) -> Result<u16, ()> {
    let stream = TcpStream::connect(&url.authority).await.map_err(drop)?;
    if !url.tls {
        return post_over(stream, url, way, kind, body).await;
    }
    let name = ServerName::try_from(url.host().to_owned()).map_err(drop)?;
    let tls = way.tls.as_ref().ok_or(())?;
    let stream = tls.connect(name, stream).await.map_err(drop)?;
    post_over(stream, url, way, kind, body).await
}

async fn post_over<S>(stream: S, url: &Url, way: &Way, kind: &'static str, body: Bytes) -> Result<u16, ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, wire) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(drop)?;
    let wire = tokio::spawn(wire);
    let mut request = hyper::Request::post(&url.path).header(HOST, &url.authority).header(CONTENT_TYPE, kind);
    if let Some(Key(key)) = &way.key {
        request = request.header(AUTHORIZATION, key);
    }
    let request = request.body(Full::new(body)).map_err(drop)?;
    let answer = send.send_request(request).await.map_err(drop)?;
    let status = answer.status().as_u16();
    // Read to its end, or to where it stops being an answer, so that the receiver is not cut off.
    let _ = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    wire.abort();
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::outward::read_roots;
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::path::Path;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The certificate of `localhost` that the proxy's tests use.
    fn data(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/tests/it/data").join(name)
    }

    #[tokio::test]
    async fn a_receiver_behind_https_is_believed_by_its_roots_and_told_the_key() {
        use rustls::pki_types::PrivateKeyDer;
        let chain = read_roots(&data("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(data("key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .expect("they belong together");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut bytes = vec![0; 4_096];
                let read = stream.read(&mut bytes).await.unwrap_or(0);
                lock(&hears).push_str(&String::from_utf8_lossy(&bytes[..read]));
                let _ = stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.flush().await;
            }
        });
        let url = |host: &str| Url::parse(&format!("https://{host}:{port}/hook")).expect("good");
        let post = async |url: Url, roots: &[CertificateDer<'static>]| {
            let way = Way::new(Key::parse("secret").ok(), roots, std::slice::from_ref(&url));
            post(&url, &way, "application/json", Bytes::from_static(b"{}")).await
        };
        assert_eq!(post(url("localhost"), &chain).await, Ok(200));
        assert!(lock(&heard).contains("authorization: Bearer secret"), "{}", lock(&heard));
        lock(&heard).clear();
        assert_eq!(post(url("localhost"), &[]).await, Err(()), "nobody vouches for it");
        assert_eq!(post(url("127.0.0.1"), &chain).await, Err(()), "it is somebody else's certificate");
        assert_eq!(*lock(&heard), "", "nothing was said to whom nobody believes");
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
            let way = Way::new(None, &[], &[]);
            deliver(&url, &way, "application/json", body, &counters, Duration::from_millis(1)).await;
            let counted = [&counters.sent, &counters.retried, &counters.given_up].map(|it| it.load(Relaxed));
            assert_eq!((*lock(&got), counted), (requests, [sent, retried, given_up]), "{statuses:?}");
        }
    }
}
