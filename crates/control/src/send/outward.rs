//! Where telemetry goes that goes out: what a person decided, how a receiver is reached, and what became of it.

use hyper::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use telemetry::exposition::{Family, Kind};
use telemetry::span::Span;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// Batches of spans waiting for the collector: some seconds.
const BATCHES_MAX: usize = 32;

/// `http://host:port/path` or `https://...`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(super) tls: bool,
    pub(super) authority: String,
    pub(super) path: String,
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
    pub(super) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The same host with this below its path.
    pub(super) fn below(&self, more: &str) -> Self {
        Self {
            tls: self.tls,
            authority: self.authority.clone(),
            path: format!("{}{more}", self.path.trim_end_matches('/')),
        }
    }
}

/// What says who we are, as it is sent. It is printed by nobody.
#[derive(Clone, PartialEq)]
pub struct Key(pub(super) HeaderValue);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

impl Key {
    /// A whole value of `authorization`, or a token alone.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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

pub(super) fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
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
    pub(super) key: Option<Key>,
    /// `None` where nobody is reached by HTTPS.
    pub(super) tls: Option<TlsConnector>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("key", &self.key).field("tls", &self.tls.is_some()).finish()
    }
}

impl Way {
    /// Reads what the system believes in, if any of these is reached by HTTPS.
    pub(super) fn new(key: Option<Key>, roots: &[CertificateDer<'static>], receivers: &[Url]) -> Self {
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
    pub(super) sent: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) dropped: AtomicU64,
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
    pub(super) queue: Option<mpsc::Sender<Vec<Span>>>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
