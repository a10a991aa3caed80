//! HTTP/1.1 and HTTP/1.0 as pure functions of bytes: no socket, no clock, no allocation per message.

mod body;
mod head;
mod lines;
mod message;
mod names;
mod refusal;
mod scan;
mod target;

pub use body::{BodyReader, Step, TRAILER_BYTES_MAX, write_chunk, write_chunk_head};
pub use head::{parse_request, parse_response};
pub(crate) use head::{parse_request_slowly, parse_response_slowly};
pub use lines::{decimal, tokens};
pub use message::{
    Framing, HEADERS_MAX, HeadLimits, Line, Method, Progress, RequestHead, ResponseHead, Span,
};
pub use names::{Kind, classify};
pub use refusal::Refusal;
pub(crate) use scan::{controls, find, name_end};
pub use target::has_dot_segments;
