//! Asking an instance whether it is well: by HTTP, gRPC, a connection or a command. (Healthy by a line of its log is
//! found where the log is read.)
//!
//! A probe never outlives its timeout, follows no redirect, and reads no more than it needs.

use crate::environment::{Environment, os_words};
use crate::process::{Launch, launch};
use crate::supervisor::Exit;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the rest of an answer may take that has said its status.
const HEAR_OUT: Duration = Duration::from_millis(100);

/// How the words begin where nobody listens.
pub(crate) const NOBODY: &str = "nobody listens at ";
/// Longer answers are not from a health service.
const ANSWER_BYTES_MAX: usize = 1 << 10;

#[derive(Clone, Debug)]
pub enum Probe {
    Http { path: String },
    Grpc { service: String },
    Tcp,
    Command { words: Vec<String>, dir: PathBuf, environment: Environment },
}

impl Probe {
    /// Asks once. The error says what was heard, in words for a person.
    pub async fn ask(
        &self,
        address: SocketAddr,
        timeout: Duration,
        trampoline: Option<&Path>,
    ) -> Result<(), String> {
        let asked = async {
            match self {
                Self::Tcp => connect(address).await.map(drop),
                Self::Http { path } => http(address, path).await,
                Self::Grpc { service } => grpc(address, service).await,
                Self::Command { words, dir, environment } => {
                    let launch =
                        Launch { words: words.clone(), dir: dir.clone(), environment: environment.clone() };
                    command(&launch, trampoline).await
                }
            }
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("{NOBODY}{address}"),
        _ => format!("no connection to {address}: {}", os_words(&error)),
    })
}

async fn http(address: SocketAddr, path: &str) -> Result<(), String> {
    let mut stream = connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: isobar-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("it does not read: {error}"))?;
    let mut head = Vec::with_capacity(64);
    let mut byte = [0; 64];
    // The status is in the first line; the rest is of no interest.
    while head.len() < 64 && !head.contains(&b'\n') {
        match stream.read(&mut byte).await {
            Ok(0) => break,
            Ok(read) => head.extend_from_slice(&byte[..read]),
            Err(error) => return Err(format!("GET {path}: {error}")),
        }
    }
    // Hanging up in the middle of an answer makes many servers print an error, every two seconds: hear it out, briefly.
    let mut rest = (&mut stream).take(64 << 10);
    let _ = tokio::time::timeout(HEAR_OUT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    let line = String::from_utf8_lossy(&head);
    let status =
        line.strip_prefix("HTTP/1.").and_then(|it| it.split_whitespace().nth(1)?.parse::<u16>().ok());
    match status {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("GET {path} answered {status}")),
        None => Err(format!("GET {path} answered something that is not HTTP")),
    }
}

async fn grpc(address: SocketAddr, service: &str) -> Result<(), String> {
    let stream = connect(address).await?;
    let broken = |error: hyper::Error| format!("grpc.health.v1.Health/Check: {error}");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = hyper::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(question(service)?)))
        .map_err(|error| error.to_string())?;
    let result = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        if head.status != hyper::StatusCode::OK {
            return Err(format!("health check: HTTP status {}", head.status.as_u16()));
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("grpc.health.v1.Health/Check: {error}"))?;
        // A server that has only a status to say says it in its head.
        let field = |name: &str| {
            let found = body.trailers().and_then(|it| it.get(name)).or_else(|| head.headers.get(name));
            found.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned())
        };
        let (status, words) = (field("grpc-status"), field("grpc-message"));
        judge(service, status.as_deref(), words.as_deref().unwrap_or(""), &body.to_bytes())
    }
    .await;
    driver.abort();
    result
}

/// A message of one text, its first field; framed as gRPC does: no compression, four bytes of length.
fn question(service: &str) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    match service.len() {
        0 => {}
        // Seven bits of the length in a byte, the lowest first.
        len @ 1..128 => message.extend([0x0A, len as u8]),
        len @ 128..16_384 => message.extend([0x0A, (len & 0x7F) as u8 | 0x80, (len >> 7) as u8]),
        _ => return Err("health check: the name of its gRPC service is too long".to_owned()),
    }
    message.extend(service.bytes());
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    Ok(framed)
}

/// What a health service's answer means: its gRPC status, the words that came with it, and its framed message.
fn judge(service: &str, status: Option<&str>, words: &str, framed: &[u8]) -> Result<(), String> {
    let what = match status {
        Some("0") => match framed.get(5..) {
            // One field, an enum; an empty message is its default.
            Some([0x08, 1, ..]) => return Ok(()),
            Some([]) | Some([0x08, 0, ..]) => "UNKNOWN, which is not SERVING".to_owned(),
            Some([0x08, 2, ..]) => "NOT_SERVING".to_owned(),
            _ => "an answer that is not a health service's".to_owned(),
        },
        Some("5") => format!("the server knows no service called `{service}` (gRPC status 5)"),
        Some("12") => "the server has no grpc.health.v1.Health (gRPC status 12)".to_owned(),
        Some(status) if words.is_empty() => format!("gRPC status {status}"),
        Some(status) => format!("gRPC status {status}: {words}"),
        None => "an answer without a gRPC status".to_owned(),
    };
    Err(format!("health check: {what}"))
}

async fn command(it: &Launch, trampoline: Option<&Path>) -> Result<(), String> {
    let (mut process, output) = launch(it, trampoline).map_err(|error| error.to_string())?;
    // What it says is of no interest, and must not block it.
    let quiet = |pipe: std::os::fd::OwnedFd| {
        if let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) {
            tokio::spawn(async move { tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await });
        }
    };
    quiet(output.out.into());
    quiet(output.err.into());
    match process.ended().await {
        Exit::Code(0) => Ok(()),
        exit => Err(format!("`{}` ended with {exit}", it.words.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for stream in listener.incoming().take(1) {
                let mut stream = stream.expect("a caller");
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    #[track_caller]
    fn check(probe: &Probe, address: SocketAddr, expected: Result<(), &str>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let got = runtime.block_on(probe.ask(address, Duration::from_secs(5), None));
        match (&got, expected) {
            (Ok(()), Ok(())) => {}
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            _ => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    #[test]
    fn a_grpc_health_service_is_asked_and_heard_as_the_protocol_says() {
        #[track_caller]
        fn check(service: &str, status: Option<&str>, words: &str, message: &[u8], expected: &str) {
            let framed = [&[0, 0, 0, 0, message.len() as u8], message].concat();
            let got = judge(service, status, words, &framed).err().unwrap_or_default();
            assert_eq!(got, expected);
        }
        check("", Some("0"), "", &[8, 1], "");
        check("", Some("0"), "", &[8, 2], "health check: NOT_SERVING");
        check("", Some("0"), "", &[8, 0], "health check: UNKNOWN, which is not SERVING");
        check("", Some("0"), "", &[], "health check: UNKNOWN, which is not SERVING");
        check("", Some("0"), "", &[9, 9], "health check: an answer that is not a health service's");
        let unknown = "health check: the server knows no service called `shop.Cart` (gRPC status 5)";
        check("shop.Cart", Some("5"), "unknown", &[], unknown);
        check(
            "",
            Some("12"),
            "",
            &[],
            "health check: the server has no grpc.health.v1.Health (gRPC status 12)",
        );
        check("", Some("14"), "warming up", &[], "health check: gRPC status 14: warming up");
        check("", Some("13"), "", &[], "health check: gRPC status 13");
        check("", None, "", &[8, 1], "health check: an answer without a gRPC status");
        assert!(judge("", Some("0"), "", &[]).is_err(), "a head without a message");

        let framed = |service: &str| question(service).expect("short enough");
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("ab"), [0, 0, 0, 0, 4, 0x0A, 2, b'a', b'b']);
        assert_eq!(framed(&"x".repeat(127))[..7], [0, 0, 0, 0, 129, 0x0A, 127]);
        assert_eq!(framed(&"x".repeat(300))[..8], [0, 0, 0, 1, 47, 0x0A, 0xAC, 2]);
        assert!(question(&"x".repeat(20_000)).is_err());
    }

    #[test]
    fn answers_are_judged() {
        let nobody =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let http = Probe::Http { path: "/healthz".into() };
        check(&http, answering(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        check(&http, answering(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(()));
        check(&http, answering(b"HTTP/1.1 503 Busy\r\n\r\n"), Err("answered 503"));
        check(&http, answering(b"SSH-2.0\r\n"), Err("not HTTP"));
        check(&http, nobody, Err("nobody listens"));
        check(&Probe::Tcp, answering(b""), Ok(()));
        check(&Probe::Tcp, nobody, Err("nobody listens"));
        check(
            &Probe::Grpc { service: String::new() },
            answering(b"HTTP/1.1 200 OK\r\n\r\n"),
            Err("Health/Check"),
        );
        let command = |script: &str| {
            let mut environment = Environment::default();
            environment.set("PATH", "/usr/bin:/bin");
            let words = vec!["sh".into(), "-c".into(), script.into()];
            Probe::Command { words, dir: std::env::temp_dir(), environment }
        };
        check(&command("exit 0"), nobody, Ok(()));
        check(&command("echo no; exit 3"), nobody, Err("exit status 3"));
    }
}
