//! What we send to others by ourselves: spans and latencies over OTLP to a collector, alerts to webhooks.
//!
//! Receivers are slow, away or wrong, and none of that may be felt here: each has one queue with an end, a few
//! tries with growing pauses, and counters of what was sent, tried again and given up. A receiver is reached by HTTP or
//! HTTPS; whom it trusts is told in files, so that no key stands in a list of processes or in a shell's history.

use crate::api::lock;
use crate::promises::{self, Said};
use crate::watch::{MARKER, Watched};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use telemetry::exposition::{Family, Kind};
use telemetry::span::Span;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio_rustls::TlsConnector;
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

/// `http://host:port/path` or `https://...`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    authority: String,
    path: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(format!("`{text}` does not begin with http:// or https://")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if authority.contains('@') {
            return Err(
                "a URL with a name or a key in it is in every list of processes; put the key into a file"
                    .to_owned(),
            );
        }
        if host.is_empty() || authority.contains(' ') {
            return Err(format!("`{text}` names no host"));
        }
        let authority = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            authority.to_owned()
        } else {
            format!("{authority}:{}", if tls { 443 } else { 80 })
        };
        Ok(Self { tls, authority, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }

    /// Whose certificate it must be.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The same host with this below its path.
    fn below(&self, more: &str) -> Self {
        Self {
            tls: self.tls,
            authority: self.authority.clone(),
            path: format!("{}{more}", self.path.trim_end_matches('/')),
        }
    }
}

/// What says who we are, as it is sent. It is printed by nobody.
#[derive(Clone, PartialEq)]
pub struct Key(HeaderValue);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

impl Key {
    /// A whole value of `authorization`, or a token alone.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let whole = if text.contains(' ') { text.to_owned() } else { format!("Bearer {text}") };
        let mut value = HeaderValue::from_str(&whole)
            .ok()
            .filter(|_| !text.is_empty())
            .ok_or("it holds no key: one line of plain text is wanted")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// What a person decided about telemetry that goes out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// A collector that takes OTLP over HTTP.
    pub otlp: Option<Url>,
    pub otlp_key: Option<Key>,
    pub webhooks: Vec<Url>,
    pub webhook_key: Option<Key>,
    /// Believed beside those that the system believes.
    pub roots: Vec<CertificateDer<'static>>,
    /// One second is this many of an SLO's windows.
    pub slo_time_scale: f64,
}

impl Settings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, as OpenTelemetry says; `ISOBAR_ALERT_WEBHOOKS`, separated by commas;
    /// `ISOBAR_SLO_TIME_SCALE`. `OTEL_EXPORTER_OTLP_CERTIFICATE` is a file of roots to believe as well;
    /// `ISOBAR_OTLP_KEY_FILE` and `ISOBAR_WEBHOOK_KEY_FILE` hold what is sent as `authorization`. What cannot be used is
    /// said, and left out.
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
        let mut key = |name: &str| {
            let path = get(name).filter(|it| !it.trim().is_empty())?;
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            text.and_then(|it| Key::parse(&it))
                .map_err(|error| mistakes.push(format!("{name}: {path}: {error}")))
                .ok()
        };
        let (otlp_key, webhook_key) = (key(OTLP_KEY), key(WEBHOOK_KEY));
        let roots = match get(ROOTS)
            .filter(|it| !it.trim().is_empty())
            .map(|path| (read_roots(Path::new(&path)), path))
        {
            None => Vec::new(),
            Some((Ok(roots), _)) => roots,
            Some((Err(error), path)) => {
                mistakes.push(format!("{ROOTS}: {path}: {error}"));
                Vec::new()
            }
        };
        (Self { otlp, otlp_key, webhooks, webhook_key, roots, slo_time_scale }, mistakes)
    }
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let roots: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const WEBHOOKS: &str = "ISOBAR_ALERT_WEBHOOKS";
const TIME_SCALE: &str = "ISOBAR_SLO_TIME_SCALE";
const ROOTS: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const OTLP_KEY: &str = "ISOBAR_OTLP_KEY_FILE";
const WEBHOOK_KEY: &str = "ISOBAR_WEBHOOK_KEY_FILE";

/// How one kind of receiver is reached.
#[derive(Clone)]
pub struct Way {
    key: Option<Key>,
    /// `None` where nobody is reached by HTTPS.
    tls: Option<TlsConnector>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("key", &self.key).field("tls", &self.tls.is_some()).finish()
    }
}

impl Way {
    /// Reads what the system believes in, if any of these is reached by HTTPS.
    fn new(key: Option<Key>, roots: &[CertificateDer<'static>], receivers: &[Url]) -> Self {
        let tls = receivers.iter().any(|it| it.tls).then(|| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store.add_parsable_certificates(roots.iter().cloned());
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider has every version that is safe")
                .with_root_certificates(store)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        });
        Self { key, tls }
    }
}

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

    /// Whether anybody takes what is exported.
    pub fn is_wanted(&self) -> bool {
        self.queue.is_some()
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
        check("https://example.org", Some(("example.org:443", "/")));
        check("https://[::1]/x", Some(("[::1]:443", "/x")));
        check("ftp://example.org", None);
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
        check(&[(WEBHOOKS, "https://a:8443/x")], 1, 1.0, 0);
        check(&[(WEBHOOKS, "https://me:key@a"), (TIME_SCALE, "-1"), (OTLP, "grpc://x")], 0, 1.0, 3);
        check(&[(ROOTS, "nowhere.pem"), (OTLP_KEY, "nowhere")], 0, 1.0, 2);
    }

    #[test]
    fn a_key_is_a_token_or_a_whole_value_and_is_not_shown() {
        let text = |key: &str| Key::parse(key).map(|it| it.0.to_str().map(str::to_owned).unwrap_or_default());
        assert_eq!(text("abc\n"), Ok("Bearer abc".to_owned()));
        assert_eq!(text("Api-Key abc"), Ok("Api-Key abc".to_owned()));
        assert!(text("").is_err() && text("a\nb c").is_err());
        let shown = format!("{:?}", Settings { otlp_key: Key::parse("abc").ok(), ..Settings::default() });
        assert!(!shown.contains("abc"), "{shown}");
    }

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
