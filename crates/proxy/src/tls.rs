//! TLS in front and behind: certificates, who is asked for one, and what is spoken inside.
//!
//! Everything that knows rustls is in here. There is one provider, aws-lc-rs, and it is named explicitly, so that nothing
//! depends on what else a process has installed. Certificates are read again when their files change; a set that cannot be
//! read is reported and the old one stays.

use crate::config::{self, Certificate, Mistake};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tokio_rustls::TlsStream;

/// The certificates of a listener. Handshakes read it; requests never do.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<Certificate>,
    current: RwLock<Vec<Arc<CertifiedKey>>>,
    changed_at: RwLock<Option<SystemTime>>,
    provider: Arc<CryptoProvider>,
}

/// A listener's side of TLS, ready to shake hands.
#[derive(Clone, Debug)]
pub(crate) struct ServerSide {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
}

/// A service's side. Handshakes read it; requests never do.
#[derive(Clone, Debug)]
pub(crate) struct ClientSide {
    settings: config::TlsClient,
    http2: bool,
    name: Option<ServerName<'static>>,
    current: Arc<RwLock<Arc<ClientConfig>>>,
    changed_at: Arc<RwLock<Option<SystemTime>>>,
    provider: Arc<CryptoProvider>,
}

/// The other side did not agree to the protocol that its service is to speak.
#[derive(Debug)]
struct NoHttp2;

impl fmt::Display for NoHttp2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NO_HTTP2)
    }
}

impl std::error::Error for NoHttp2 {}

const NO_HTTP2: &str = "it does not agree to HTTP/2 (ALPN)";

/// What is wrong with a peer whose handshake failed, in a few words. `None`: its connection broke, and that is all.
pub(crate) fn trouble(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError as Wrong;
    let error = error.get_ref()?;
    if error.is::<NoHttp2>() {
        return Some(NO_HTTP2);
    }
    Some(match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            Wrong::UnknownIssuer => "its certificate is signed by nobody we trust",
            Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has expired",
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "its certificate is not valid yet",
            _ => "its certificate is not valid",
        },
        rustls::Error::AlertReceived(_) => "it refused the handshake; perhaps it wants to see a certificate",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        rustls::Error::NoApplicationProtocol => NO_HTTP2,
        rustls::Error::PeerIncompatible(_) => "it has no version or cipher in common with us",
        _ => "the handshake failed",
    })
}

fn mistake(place: &str, message: String) -> Mistake {
    Mistake { place: place.to_owned(), message }
}

fn load(certificate: &Certificate, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let chain = read_chain(&certificate.chain)?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key)
        .map_err(|error| format!("no private key can be read from {}: {error}", certificate.key.display()))?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|error| {
        format!("{} and {} do not fit: {error}", certificate.chain.display(), certificate.key.display())
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error: String| format!("no certificate can be read from {}: {error}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?.collect();
    let chain = chain.map_err(|error| fail(error.to_string()))?;
    if chain.is_empty() { Err(fail("the file has none".into())) } else { Ok(chain) }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in read_chain(path)? {
        store
            .add(certificate)
            .map_err(|error| format!("a root in {} is unusable: {error}", path.display()))?;
    }
    Ok(store)
}

impl ServerSide {
    pub(crate) fn new(listener: &str, settings: &config::TlsServer) -> Result<Self, Mistake> {
        let place = format!("listener `{listener}` tls");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Arc::new(Certificates {
            files: settings.certificates.clone(),
            current: RwLock::default(),
            changed_at: RwLock::default(),
            provider: provider.clone(),
        });
        certificates.read().map_err(|message| mistake(&place, message))?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| mistake(&place, error.to_string()))?;
        let builder = match &settings.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let store = roots(path).map_err(|message| mistake(&place, message))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
                let verifier =
                    if settings.client_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| mistake(&place, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets let clients come back without another exchange of keys; the server keeps nothing for them.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Self { config: Arc::new(config), certificates })
    }
}

impl Certificates {
    /// Reads all files. All of them are good, or nothing changes.
    fn read(&self) -> Result<(), String> {
        let loaded: Result<Vec<_>, _> = self.files.iter().map(|files| load(files, &self.provider)).collect();
        let loaded = loaded?;
        if loaded.is_empty() {
            return Err("no certificate is given".into());
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        *self.changed_at.write().unwrap_or_else(PoisonError::into_inner) = self.newest();
        Ok(())
    }

    fn newest(&self) -> Option<SystemTime> {
        let files = self.files.iter().flat_map(|files| [&files.chain, &files.key]);
        files.filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max()
    }

    /// Reads the files again if one changed. Half-written files fail and are tried again at the next look.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let newest = self.newest();
        if newest == *self.changed_at.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(false);
        }
        self.read().map(|()| true)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let named = hello.server_name().and_then(|name| {
            let name = ServerName::try_from(name).ok()?;
            current.iter().find(|key| {
                let parsed =
                    key.end_entity_cert().ok().and_then(|cert| ParsedCertificate::try_from(cert).ok());
                parsed.is_some_and(|cert| rustls::client::verify_server_name(&cert, &name).is_ok())
            })
        });
        // A client that asks for nothing we have gets the first: its own check will tell it better than an alert.
        named.or(current.first()).cloned()
    }
}

impl ClientSide {
    pub(crate) fn new(service: &str, settings: &config::TlsClient, http2: bool) -> Result<Self, Mistake> {
        let place = format!("service `{service}` tls");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let name = match settings.server_name.as_str() {
            "" => None,
            name => Some(
                ServerName::try_from(name.to_owned())
                    .map_err(|_| mistake(&place, format!("`{name}` is no server name")))?,
            ),
        };
        let config = build(settings, http2, &provider).map_err(|message| mistake(&place, message))?;
        Ok(Self {
            changed_at: Arc::new(RwLock::new(newest(settings))),
            settings: settings.clone(),
            http2,
            name,
            current: Arc::new(RwLock::new(Arc::new(config))),
            provider,
        })
    }

    /// Reads the files again if one changed. Half-written files fail and are tried again at the next look.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let newest = newest(&self.settings);
        if newest == *self.changed_at.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(false);
        }
        let config = build(&self.settings, self.http2, &self.provider)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        *self.changed_at.write().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(true)
    }

    /// Shakes hands over a connection to this address. `host` is what the configuration calls it, if that is a name.
    /// `over_http1` is for a question that is asked so whatever the service speaks otherwise.
    pub(crate) async fn connect(
        &self,
        stream: tokio::net::TcpStream,
        address: SocketAddr,
        host: Option<&str>,
        over_http1: bool,
    ) -> io::Result<TlsStream<tokio::net::TcpStream>> {
        let mut config = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if over_http1 && self.http2 {
            Arc::make_mut(&mut config).alpn_protocols = alpn(false);
        }
        let by_host = || ServerName::try_from(host?.to_owned()).ok();
        let name = self.name.clone().or_else(by_host);
        let name = name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
        if self.http2 && !over_http1 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other(NoHttp2));
        }
        Ok(TlsStream::Client(stream))
    }
}

/// What a service is asked to speak inside.
fn alpn(http2: bool) -> Vec<Vec<u8>> {
    vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }]
}

fn newest(settings: &config::TlsClient) -> Option<SystemTime> {
    let shown = settings.certificate.iter().flat_map(|files| [&files.chain, &files.key]);
    let files = settings.roots.iter().chain(shown);
    files.filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max()
}

fn build(
    settings: &config::TlsClient,
    http2: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider.clone())))
    } else {
        let store = match &settings.roots {
            Some(path) => roots(path)?,
            None => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                store
            }
        };
        builder.with_root_certificates(store)
    };
    let mut config = match &settings.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = read_chain(&files.chain)?;
            let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
                format!("no private key can be read from {}: {error}", files.key.display())
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                format!("{} and {} do not fit: {error}", files.chain.display(), files.key.display())
            })?
        }
    };
    config.alpn_protocols = alpn(http2);
    Ok(config)
}

/// Believes every certificate. Only where the configuration says so in as many words.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
