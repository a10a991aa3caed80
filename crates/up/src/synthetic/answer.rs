//! Bodies of any size that take no memory: a few words at the front, then filler.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One page of dots, shared by every answer of the process.
static FILLER: [u8; 16 << 10] = [b'.'; 16 << 10];

#[derive(Debug)]
pub(crate) struct Payload {
    head: Bytes,
    filler: u64,
    trailers: Option<HeaderMap>,
}

impl Payload {
    pub(crate) fn empty() -> Self {
        Self { head: Bytes::new(), filler: 0, trailers: None }
    }

    /// `size` bytes that begin with `head`, or with as much of it as fits.
    pub(crate) fn of(head: Bytes, size: u64) -> Self {
        let fits = usize::try_from(size).unwrap_or(usize::MAX).min(head.len());
        Self { filler: size - fits as u64, head: head.slice(..fits), trailers: None }
    }

    pub(crate) fn whole(head: Bytes) -> Self {
        Self { head, filler: 0, trailers: None }
    }

    /// One message in gRPC's framing: a flag byte, four bytes of length, and the message, which is one bytes field.
    pub(crate) fn grpc_message(size: u64) -> Self {
        let size = size.min(u64::from(u32::MAX) - 16);
        let mut head = vec![0];
        // Field 1, length-delimited: a message that any reader can skip over.
        let mut field = Vec::new();
        if size > 0 {
            field.push(0x0A);
            let mut rest = size;
            while rest >= 0x80 {
                field.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            field.push(rest as u8);
        }
        head.extend(((size + field.len() as u64) as u32).to_be_bytes());
        head.extend(field);
        Self { head: head.into(), filler: size, trailers: None }
    }

    /// A message and the trailers that say how it went.
    pub(crate) fn grpc_answer(self, status: u8, message: &str) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
        if let (false, Ok(message)) = (message.is_empty(), HeaderValue::from_str(message)) {
            trailers.insert("grpc-message", message);
        }
        Self { trailers: Some(trailers), ..self }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.head.is_empty() {
            let head = std::mem::take(&mut self.head);
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.filler > 0 {
            let length = self.filler.min(FILLER.len() as u64);
            self.filler -= length;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FILLER[..length as usize])))));
        }
        Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.filler == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.head.len() as u64 + self.filler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[track_caller]
    fn check(payload: Payload, expected_bytes: usize, beginning: &[u8]) {
        let runtime = crate::synthetic::local_runtime().expect("a runtime");
        let promised = payload.size_hint().exact();
        let bytes = runtime.block_on(async { payload.collect().await.expect("it cannot fail").to_bytes() });
        assert_eq!((bytes.len(), promised), (expected_bytes, Some(expected_bytes as u64)));
        assert!(bytes.starts_with(beginning), "{:?}", &bytes[..bytes.len().min(16)]);
    }

    #[test]
    fn bodies_are_as_long_as_they_promise() {
        check(Payload::empty(), 0, b"");
        check(Payload::of(Bytes::from_static(b"hello"), 3), 3, b"hel");
        check(Payload::of(Bytes::from_static(b"hello"), 100_000), 100_000, b"hello.....");
        check(Payload::grpc_message(0), 5, &[0, 0, 0, 0, 0]);
        check(Payload::grpc_message(3), 10, &[0, 0, 0, 0, 5, 0x0A, 3, b'.']);
        check(Payload::grpc_message(300), 308, &[0, 0, 0, 1, 47, 0x0A, 0xAC, 2, b'.']);
        check(Payload::grpc_message(3).grpc_answer(0, ""), 10, &[0]);
    }
}
