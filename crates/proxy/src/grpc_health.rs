//! `grpc.health.v1.Health/Check` over plain HTTP/2: one question, one byte of answer that matters.

use bytes::Bytes;
use http::{Method, Request};
use policy::health::Answer;
use std::future::poll_fn;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

/// Longer answers are not from a health service.
const ANSWER_BYTES_MAX: usize = 1 << 10;

pub(crate) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    address: SocketAddr,
    service: &str,
) -> (Answer, &'static str) {
    match check(stream, address, service).await {
        Some(1) => (Answer::Pass, "serving"),
        Some(_) => (Answer::Bad, "not serving"),
        None => (Answer::Silent, "no readable answer"),
    }
}

/// The status that was answered: 1 is SERVING.
async fn check(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    address: SocketAddr,
    service: &str,
) -> Option<u8> {
    let (send, connection) = h2::client::handshake(stream).await.ok()?;
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let answer = call(send, address, service).await;
    driver.abort();
    answer
}

async fn call(send: h2::client::SendRequest<Bytes>, address: SocketAddr, service: &str) -> Option<u8> {
    let mut send = send.ready().await.ok()?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .ok()?;
    let (response, mut stream) = send.send_request(request, false).ok()?;
    stream.send_data(question(service)?, true).ok()?;
    let mut body = response.await.ok()?.into_body();
    let mut answer = Vec::new();
    while let Some(data) = poll_fn(|cx| body.poll_data(cx)).await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        answer.extend_from_slice(&data);
        if answer.len() > ANSWER_BYTES_MAX {
            return None;
        }
    }
    status(&answer)
}

/// A message of one string field, framed as gRPC does: no compression, four bytes of length.
fn question(service: &str) -> Option<Bytes> {
    let name_len = u8::try_from(service.len()).ok().filter(|len| *len < 128)?;
    let mut message = Vec::new();
    if name_len > 0 {
        message.extend_from_slice(&[0x0A, name_len]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    Some(framed.into())
}

/// Field 1, an enum. An empty message is its default, UNKNOWN.
fn status(answer: &[u8]) -> Option<u8> {
    let (prefix, message) = answer.split_at_checked(5)?;
    if prefix[0] != 0 {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_those_of_the_protocol() {
        assert_eq!(&question("").expect("short")[..], &[0, 0, 0, 0, 0]);
        assert_eq!(&question("ab").expect("short")[..], &[0, 0, 0, 0, 4, 0x0A, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(200)), None);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(status(&[0, 0]), None);
    }
}
