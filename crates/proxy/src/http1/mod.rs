//! HTTP/1.1 and HTTP/1.0 as pure functions of bytes: no socket, no clock, no allocation per message.

mod body;
mod head;
mod names;
mod scan;

pub use body::{BodyReader, Step, TRAILER_BYTES_MAX, write_chunk, write_chunk_head};
pub use head::{
    Framing, HEADERS_MAX, HeadLimits, Line, Method, Progress, Refusal, RequestHead, ResponseHead, Span,
    decimal, has_dot_segments, parse_request, parse_response, tokens,
};
pub(crate) use head::{parse_request_slowly, parse_response_slowly};
pub use names::{Kind, classify};
pub(crate) use scan::{controls, find, name_end};
