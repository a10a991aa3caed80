//! Streams to HTTP/1 and HTTP/1 to streams, over a [pipe](crate::pipe).
//!
//! Where only one side speaks HTTP/2, its stream becomes an HTTP/1 message on a pipe and is carried by the code that
//! carries all messages. A pipe holds little, and a window is given back as bytes go into it, so a slow reader slows its
//! sender here, too.

use super::connection::{Body, Stream};
use super::frame::Reason;
use super::replies::{own_in_grpc, status_behind};
use super::server::Origin;
use crate::http1::{
    BodyReader, Framing, HeadLimits, Method, Progress, RequestHead, ResponseHead, parse_request,
    parse_response, write_chunk,
};
use crate::pipe::{Pipe, pipe, put_spare, take_spare};
use crate::serve::{Client, Runners, connection};
use crate::socket::Socket;
use crate::worker::Worker;
use policy::Outcome;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// What a translator must know of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) grpc: bool,
    pub(super) chunked: bool,
    pub(super) has_body: bool,
}

/// As much of a body as is taken at once, so that what is between window and pipe stays small.
const PIECE: usize = 16 << 10;

const LIMITS: HeadLimits =
    HeadLimits { bytes: 1 << 20, target_bytes: 1 << 20, headers: crate::http1::HEADERS_MAX };

/// One stream of a client: a client on a pipe, and the translator at the pipe's other end. One task drives both.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    origin: &Rc<Origin>,
    stream: Stream,
    text: Vec<u8>,
    asked: Asked,
    runners: Rc<Runners>,
) {
    let (near, far) = pipe();
    let client = Client {
        socket: Socket::Pipe(near),
        timer: worker.timers.timer(),
        peer: origin.peer,
        door: origin.door.clone(),
        worker: worker.clone(),
        tls: origin.tls,
        served: 0,
        half_closed: false,
        counted: false,
    };
    let mut carried = Box::pin(connection(client, runners));
    let mut translated = Box::pin(translate(far, stream, text, asked));
    let (mut carrying, mut translating) = (true, true);
    poll_fn(|cx| {
        if translating && translated.as_mut().poll(cx).is_ready() {
            translating = false;
        }
        if carrying && carried.as_mut().poll(cx).is_ready() {
            carrying = false;
        }
        // What was just carried can often be translated at once, without another turn of the scheduler.
        if translating && translated.as_mut().poll(cx).is_ready() {
            translating = false;
        }
        if translating || carrying { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

async fn write_all(to: &Pipe, mut bytes: &[u8]) -> Result<(), ()> {
    while !bytes.is_empty() {
        let wrote = poll_fn(|cx| to.poll_write(cx, bytes)).await.map_err(drop)?;
        bytes = &bytes[wrote..];
    }
    Ok(())
}

/// Moves a stream's body into a pipe, as chunks or as it is, and lets its sender go on as bytes leave.
async fn body_to_pipe(body: &Stream, to: &Pipe, chunked: bool) -> Result<(), ()> {
    let mut framed = take_spare();
    let ended = loop {
        match poll_fn(|cx| body.poll_body(cx)).await {
            Body::Data => {}
            Body::End => break true,
            Body::Broken(_) => break false,
        }
        framed.clear();
        body.take_body(|bytes| {
            let piece = &bytes[..bytes.len().min(PIECE)];
            if chunked {
                write_chunk(&mut framed, piece);
            } else {
                framed.extend_from_slice(piece);
            }
            (piece.len(), ())
        });
        write_all(to, &framed).await?;
    };
    framed.clear();
    if ended && chunked {
        framed.extend_from_slice(b"0\r\n");
        framed.extend_from_slice(&body.take_trailer().unwrap_or_default());
        framed.extend_from_slice(b"\r\n");
        write_all(to, &framed).await?;
    }
    put_spare(framed);
    if ended { Ok(()) } else { Err(()) }
}

/// Bytes from a pipe, read piece by piece.
struct Reading<'p> {
    from: &'p Pipe,
    bytes: Vec<u8>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        put_spare(std::mem::take(&mut self.bytes));
    }
}

impl<'p> Reading<'p> {
    fn new(from: &'p Pipe) -> Self {
        Self { from, bytes: take_spare() }
    }

    /// Reads more. False at the end.
    async fn more(&mut self) -> bool {
        poll_fn(|cx| self.from.poll_take(cx, &mut self.bytes)).await > 0
    }

    /// Moves a body into a stream, with its trailer.
    async fn body_to(&mut self, framing: Framing, to: &Stream) -> Result<(), ()> {
        let mut reader = BodyReader::new(framing);
        loop {
            let step = reader.step(&self.bytes).map_err(drop)?;
            let mut at = step.data.start;
            let last = step.done && step.trailer.is_empty();
            while at < step.data.end {
                let data = &self.bytes[at..step.data.end];
                at += poll_fn(|cx| to.poll_send(cx, data, last)).await.map_err(drop)?;
            }
            if step.done {
                if step.trailer.is_empty() {
                    // Says the end if it was not said with the last of the data.
                    poll_fn(|cx| to.poll_send(cx, &[], true)).await.map_err(drop)?;
                } else {
                    to.send_trailer(&self.bytes[step.trailer.clone()]);
                }
                return Ok(());
            }
            self.bytes.drain(..step.consumed);
            if step.consumed == 0 && !self.more().await {
                if reader.end_of_stream() {
                    poll_fn(|cx| to.poll_send(cx, &[], true)).await.map_err(drop)?;
                    return Ok(());
                }
                return Err(());
            }
        }
    }
}

/// The far end of a client's pipe: puts the request in and turns the reply into frames.
async fn translate(far: Pipe, stream: Stream, text: Vec<u8>, asked: Asked) {
    if write_all(&far, &text).await.is_err() {
        return;
    }
    put_spare(text);
    carry(&far, &stream, asked).await;
    drop(far);
    stream.let_finish().await;
}

/// The body one way and the reply the other, until the reply is whole.
async fn carry(far: &Pipe, stream: &Stream, asked: Asked) {
    let mut upload = pin!(async {
        if asked.has_body && body_to_pipe(stream, far, asked.chunked).await.is_err() {
            // The client gave up its body; there is nothing whole to send on.
            far.end();
        }
    });
    let mut uploading = true;
    let mut replied = pin!(async {
        if reply(far, stream, asked).await.is_err() {
            stream.reset(Reason::INTERNAL_ERROR);
        }
    });
    poll_fn(|cx| {
        if uploading && upload.as_mut().poll(cx).is_ready() {
            uploading = false;
        }
        replied.as_mut().poll(cx)
    })
    .await;
}

async fn reply(far: &Pipe, stream: &Stream, asked: Asked) -> Result<(), ()> {
    let mut head = ResponseHead::default();
    let mut reading = Reading::new(far);
    loop {
        match parse_response(&reading.bytes, &LIMITS, asked.method, &mut head).map_err(drop)? {
            Progress::Complete if head.status >= 200 => break,
            Progress::Complete => {
                if head.status != 101 {
                    stream.send_response(&reading.bytes[..head.len], false);
                }
                reading.bytes.drain(..head.len);
            }
            Progress::Partial => {
                let mut more = pin!(reading.more());
                // A client that resets its stream while it waits ends everything that was done for it.
                let read = poll_fn(|cx| match stream.poll_broken(cx) {
                    Poll::Ready(_) => Poll::Ready(false),
                    Poll::Pending => more.as_mut().poll(cx),
                })
                .await;
                if !read {
                    return Err(());
                }
            }
        }
    }
    if asked.grpc
        && let Some(own) = own_in_grpc(&head, &reading.bytes)
    {
        stream.send_response(&own, true);
        return Ok(());
    }
    let framing = head.framing;
    let rest = &reading.bytes[head.len..];
    let empty = framing == Framing::None
        || matches!(BodyReader::new(framing).step(rest), Ok(step) if step.done && step.data.is_empty() && step.trailer.is_empty());
    stream.send_response(&reading.bytes[..head.len], empty);
    reading.bytes.drain(..head.len);
    if empty {
        return Ok(());
    }
    let mut sending = pin!(reading.body_to(framing, stream));
    sending.as_mut().await
}

/// The far end of an instance's pipe: turns the request into a stream and writes its reply into the pipe.
pub(super) async fn ask(far: Pipe, stream: Stream) {
    let mut reading = Reading::new(&far);
    let mut head = RequestHead::default();
    loop {
        match parse_request(&reading.bytes, &LIMITS, &mut head) {
            Ok(Progress::Complete) => break,
            Ok(Progress::Partial) if reading.more().await => {}
            _ => return,
        }
    }
    let kind = head.find(crate::http1::Kind::ContentType, &reading.bytes);
    let grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
    let framing = head.framing;
    if let Err(broken) = stream.send_request(&reading.bytes[..head.len], framing == Framing::None) {
        return far.fail(broken.outcome());
    }
    reading.bytes.drain(..head.len);
    let mut upload = pin!(async {
        if framing != Framing::None && reading.body_to(framing, &stream).await.is_err() {
            stream.reset(Reason::CANCEL);
        }
    });
    let mut uploading = true;
    let mut download = pin!(receive(&far, &stream, head.method, grpc));
    poll_fn(|cx| {
        if uploading && upload.as_mut().poll(cx).is_ready() {
            uploading = false;
        }
        if download.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Nobody waits for the reply any more: dropping the stream tells the instance so.
        far.poll_abandoned(cx)
    })
    .await;
}

/// Writes a stream's reply into the pipe as HTTP/1.
async fn receive(far: &Pipe, stream: &Stream, method: Method, grpc: bool) {
    let mut head = ResponseHead::default();
    let mut text = loop {
        let mut text = match poll_fn(|cx| stream.poll_head(cx)).await {
            Ok(text) => text,
            Err(broken) => return far.fail(broken.outcome()),
        };
        text.extend_from_slice(b"\r\n");
        if parse_response(&text, &LIMITS, method, &mut head) != Ok(Progress::Complete) {
            return far.fail(Outcome::Reset);
        }
        if head.status >= 200 {
            text.truncate(text.len() - 2);
            break text;
        }
        if write_all(far, &text).await.is_err() {
            return;
        }
    };
    if grpc && !head.has(crate::http1::Kind::GrpcStatus) {
        status_behind(stream, &mut text).await;
    }
    let length = head.has(crate::http1::Kind::ContentLength);
    let bodiless = method == Method::Head || matches!(head.status, 204 | 304);
    let ended = stream.is_at_end();
    let chunked = !length && !bodiless;
    if chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if chunked && ended {
        text.extend_from_slice(b"0\r\n\r\n");
    }
    let written = write_all(far, &text).await;
    put_spare(text);
    if written.is_err() {
        return;
    }
    if !ended && !bodiless && body_to_pipe(stream, far, chunked).await.is_err() {
        return far.fail(Outcome::Reset);
    }
    far.end();
}
