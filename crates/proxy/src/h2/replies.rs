//! Replies of our own on a stream, in the words that its client has for them.

use super::connection::{Body, Stream};
use crate::http1::{HeadLimits, Kind, Method, Progress, ResponseHead, parse_response};
use crate::timers::Timer;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// How long a gRPC reply's head waits for what follows: a status right behind it can still be retried.
const STATUS_WAIT: Duration = Duration::from_millis(3);

const LIMITS: HeadLimits =
    HeadLimits { bytes: 1 << 20, target_bytes: 1 << 20, headers: crate::http1::HEADERS_MAX };

/// The code that stands for a status where no gRPC answer came (gRPC over HTTP/2, "HTTP to gRPC status").
fn grpc_status(status: u16) -> u8 {
    match status {
        400 | 431 | 413 | 414 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        408 | 504 => 4,
        429 | 502 | 503 => 14,
        _ => 2,
    }
}

/// The status that a code would have been, so that one rule says of every call whether the server failed it.
pub(crate) const fn status_of_grpc(code: u8) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 => 409,
        7 => 403,
        8 | 10 | 14 => 503,
        12 => 501,
        16 => 401,
        _ => 500,
    }
}

/// The code in the lines of a trailer.
pub(crate) fn code_in(trailer: &[u8]) -> Option<u8> {
    let mut lines = trailer.split(|byte| *byte == b'\n');
    let said = lines.find_map(|line| line.strip_prefix(b"grpc-status:"))?;
    std::str::from_utf8(said).ok()?.trim().parse().ok()
}

/// A refusal of ours as gRPC says it. `None` if the reply is none.
pub(super) fn own_in_grpc(head: &ResponseHead, bytes: &[u8]) -> Option<Vec<u8>> {
    let error = head.find(Kind::IsobarError, bytes).filter(|_| head.status != 200)?;
    let code = grpc_status(head.status).to_string();
    let mut text = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: ".to_vec();
    for part in [code.as_bytes(), b"\r\ngrpc-message: ", error, b"\r\n"] {
        text.extend_from_slice(part);
    }
    for line in &head.lines {
        if !matches!(line.kind, Kind::ContentLength | Kind::ContentType) {
            text.extend_from_slice(&bytes[line.name.start as usize..line.end as usize]);
        }
    }
    text.extend_from_slice(b"\r\n");
    Some(text)
}

/// Sends a reply that is all there, written as HTTP/1. False if its client is gone or does not read.
pub(crate) async fn write_own(stream: &Stream, text: &[u8], grpc: bool, timer: &Timer) -> bool {
    let mut head = ResponseHead::default();
    if parse_response(text, &LIMITS, Method::Get, &mut head) != Ok(Progress::Complete) {
        return false;
    }
    if grpc && let Some(own) = own_in_grpc(&head, text) {
        stream.send_response(&own, true);
        return true;
    }
    let mut body = &text[head.len..];
    stream.send_response(&text[..head.len], body.is_empty());
    while !body.is_empty() {
        let sent = poll_fn(|cx| match stream.poll_send(cx, body, true) {
            Poll::Ready(sent) => Poll::Ready(sent.ok()),
            Poll::Pending => timer.poll(cx).map(|()| None),
        })
        .await;
        let Some(sent) = sent else { return false };
        body = &body[sent..];
    }
    !stream.is_broken()
}

/// A gRPC error often is a head and a status with nothing between. If the status is right behind the head, both become
/// one, so that it can be judged before anything is sent on.
pub(crate) async fn status_behind(stream: &Stream, head: &mut Vec<u8>) {
    let mut late = None;
    let next = poll_fn(|cx| match stream.poll_body(cx) {
        Poll::Ready(next) => Poll::Ready(Some(next)),
        Poll::Pending => {
            let late = late.get_or_insert_with(|| Box::pin(tokio::time::sleep(STATUS_WAIT)));
            late.as_mut().poll(cx).map(|()| None)
        }
    })
    .await;
    if next == Some(Body::End)
        && let Some(trailer) = stream.take_trailer()
    {
        head.extend_from_slice(&trailer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::metrics::Class;

    #[test]
    fn a_code_and_its_status_are_of_one_class() {
        for code in 0..=17 {
            assert_eq!(Class::of_http(status_of_grpc(code)), Class::of_grpc(u32::from(code)), "{code}");
        }
    }

    #[test]
    fn a_trailers_code_is_read_wherever_it_stands() {
        #[track_caller]
        fn check(trailer: &str, expected: Option<u8>) {
            assert_eq!(code_in(trailer.as_bytes()), expected, "{trailer:?}");
        }
        check("grpc-status: 0\r\n", Some(0));
        check("x: y\r\ngrpc-status:14\r\ngrpc-message: no\r\n", Some(14));
        check("x-grpc-status: 3\r\n", None);
        check("grpc-status: 999\r\n", None);
        check("grpc-status: x\r\n", None);
        check("", None);
    }
}
