//! Asking an instance whether it is well: by HTTP, gRPC, a connection or a command. (Healthy by a line of its log is
//! found where the log is read.)
//!
//! A probe never outlives its timeout, follows no redirect, and reads no more than it needs.

use crate::environment::{Environment, os_words};
use crate::process::{Launch, launch};
use crate::supervisor::Exit;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the rest of an answer may take that has said its status.
const HEAR_OUT: Duration = Duration::from_millis(100);

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
        std::io::ErrorKind::ConnectionRefused => format!("nobody listens at {address}"),
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
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend([0x0A, u8::try_from(service.len()).map_err(|_| "its name is too long".to_owned())?]);
        message.extend(service.bytes());
    }
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    let request = hyper::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let result = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let early = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await.map_err(broken)?;
        let trailer = body.trailers().and_then(|it| it.get("grpc-status")).cloned();
        match trailer.or(early) {
            Some(status) if status == "0" => {}
            Some(status) => {
                return Err(format!("health check: gRPC status {}", status.to_str().unwrap_or("?")));
            }
            None => return Err("health check: no gRPC status".to_owned()),
        }
        // One message, one field: its status, of which 1 is SERVING.
        match body.to_bytes().get(5..) {
            Some([0x08, 0x01, ..]) => Ok(()),
            _ => Err("health check: not SERVING".to_owned()),
        }
    }
    .await;
    driver.abort();
    result
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
