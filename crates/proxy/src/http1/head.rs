//! Reading a request's or a response's head, strictly.
//!
//! Two readers of one byte stream that disagree about where a message ends are how requests are smuggled. So this
//! module answers "how long is the body?" exactly once, refuses every message that another reader could answer
//! differently, and keeps the bytes it read: a head is a list of places in the buffer, and what is passed on later is
//! copied from those very bytes.
//!
//! It refuses: bare CR or LF, folded lines, a space before a colon, repeated or malformed `Content-Length`,
//! `Content-Length` beside `Transfer-Encoding`, any transfer coding but one `chunked`, a missing or doubled `Host`,
//! fragments and dot segments in the path, and heads that are too long. Each refusal carries its status and its counter.

use super::lines::{Gathered, gather, nominate};
use super::message::{Framing, HEADERS_MAX, HeadLimits, Method, Progress, RequestHead, ResponseHead, Span};
use super::refusal::Refusal;
use super::scan;
use super::target::{has_dot_segments, host_is_valid, is_same_host, target};
use memchr::memchr_iter;
use std::mem::MaybeUninit;

/// Reads a request's head from the start of `buffer`. On `Complete`, `head.len` bytes belong to it.
pub fn parse_request(
    buffer: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Progress, Refusal> {
    let window = &buffer[..buffer.len().min(limits.bytes)];
    if let Some(line) = scan::request_line(window)
        && line.target.len() <= limits.target_bytes
    {
        let mut gathered = Gathered::default();
        if let Some(len) = scan::lines(window, line.end, limits, &mut head.lines, &mut gathered) {
            let window = &window[..len];
            head.method_text = line.method;
            head.method = Method::parse(line.method.get(window));
            head.minor = line.minor;
            head.len = len;
            head.host = host(&gathered, line.minor)?;
            head.target = line.target;
            head.path_len = line.path_len;
            if head.method == Method::Connect {
                return Err(Refusal::MethodUnsupported);
            }
            if line.has_dots && has_dot_segments(head.path(window)) {
                return Err(Refusal::DotSegments);
            }
            return conclude_request(&gathered, window, head);
        }
    }
    parse_request_slowly(buffer, limits, head)
}

/// The same for any message, with a reason for each refusal.
pub(crate) fn parse_request_slowly(
    buffer: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Progress, Refusal> {
    let mut uninit = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let window = &buffer[..buffer.len().min(limits.bytes)];
    let len = match request.parse_with_uninit_headers(window, &mut uninit) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(window, limits, true),
        Err(error) => return Err(refusal_of(error, window)),
    };
    let window = &window[..len];
    if httparse_is_lenient(window) {
        return Err(Refusal::BareLineFeed);
    }
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Syntax);
    };
    if path.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    if request.headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders);
    }
    head.method = Method::parse(method.as_bytes());
    head.method_text = Span::of(method.as_bytes(), window);
    head.minor = minor;
    head.len = len;
    let gathered = gather(request.headers, window, &mut head.lines)?;
    head.host = host(&gathered, minor)?;
    head.target = target(Span::of(path.as_bytes(), window), window, head)?;
    conclude_request(&gathered, window, head)
}

fn host(gathered: &Gathered, minor: u8) -> Result<Span, Refusal> {
    match gathered.hosts {
        1 => Ok(gathered.host),
        0 if minor == 0 => Ok(Span::default()),
        0 => Err(Refusal::HostMissing),
        _ => Err(Refusal::HostRepeated),
    }
}

/// What all lines together mean, once the first of them and the host are known.
fn conclude_request(gathered: &Gathered, window: &[u8], head: &mut RequestHead) -> Result<Progress, Refusal> {
    let minor = head.minor;
    if !host_is_valid(head.host.get(window)) {
        return Err(Refusal::HostSyntax);
    }
    // The standard lets the target win. Whoever stands in front of us may have gone by the other.
    if head.host != gathered.host && gathered.hosts == 1 && !is_same_host(head.host, gathered.host, window) {
        return Err(Refusal::HostMismatch);
    }
    head.kinds = gathered.kinds;
    head.framing = match (gathered.length, gathered.chunked) {
        (Some(_), true) => return Err(Refusal::LengthAndCoding),
        (None, true) if minor == 0 => return Err(Refusal::CodingInHttp10),
        (None, true) => Framing::Chunked,
        (Some(0) | None, false) => Framing::None,
        (Some(length), false) => Framing::Length(length),
    };
    head.expects_continue = match gathered.expect {
        Some(true) => minor == 1 && head.framing != Framing::None,
        Some(false) => return Err(Refusal::ExpectUnknown),
        None => false,
    };
    head.keep_alive = if minor == 1 { !gathered.close } else { gathered.keep_alive && !gathered.close };
    // `h2c` is refused by not being passed on: the connection would change under the next hop's feet and not ours.
    head.upgrade = minor == 1
        && gathered.upgrade_token
        && gathered.upgrade_to.is_some_and(|to| !to.get(window).eq_ignore_ascii_case(b"h2c"));
    head.accepts_trailers = gathered.te_token && gathered.trailers;
    head.has_nominated = gathered.nominated;
    if gathered.nominated {
        nominate(&mut head.lines, window)?;
    }
    Ok(Progress::Complete)
}

/// Reads a response's head. `to` is the method of the request it answers: it decides whether there is a body.
pub fn parse_response(
    buffer: &[u8],
    limits: &HeadLimits,
    to: Method,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    let window = &buffer[..buffer.len().min(limits.bytes)];
    if let Some(line) = scan::status_line(window) {
        let mut gathered = Gathered::default();
        if let Some(len) = scan::lines(window, line.end, limits, &mut head.lines, &mut gathered) {
            head.status = line.status;
            head.reason = line.reason;
            head.minor = line.minor;
            head.len = len;
            return conclude_response(&gathered, &window[..len], to, head);
        }
    }
    parse_response_slowly(buffer, limits, to, head)
}

/// The same for any message, with a reason for each refusal.
pub(crate) fn parse_response_slowly(
    buffer: &[u8],
    limits: &HeadLimits,
    to: Method,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    let mut uninit = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let window = &buffer[..buffer.len().min(limits.bytes)];
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, window, &mut uninit) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return partial(window, limits, false),
        Err(error) => return Err(refusal_of(error, window)),
    };
    let window = &window[..len];
    if httparse_is_lenient(window) {
        return Err(Refusal::BareLineFeed);
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else { return Err(Refusal::Syntax) };
    if !(100..=999).contains(&status) {
        return Err(Refusal::Syntax);
    }
    if response.headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders);
    }
    head.status = status;
    head.reason = Span::of(response.reason.unwrap_or_default().as_bytes(), window);
    head.minor = minor;
    head.len = len;
    let gathered = gather(response.headers, window, &mut head.lines)?;
    conclude_response(&gathered, window, to, head)
}

fn conclude_response(
    gathered: &Gathered,
    window: &[u8],
    to: Method,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    let (status, minor) = (head.status, head.minor);
    head.kinds = gathered.kinds;
    let bodiless = to == Method::Head || status < 200 || status == 204 || status == 304;
    head.framing = match (gathered.length, gathered.chunked) {
        (Some(_), true) => return Err(Refusal::LengthAndCoding),
        _ if bodiless => Framing::None,
        (None, true) if minor == 0 => return Err(Refusal::CodingInHttp10),
        (None, true) => Framing::Chunked,
        (Some(0), false) => Framing::None,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::UntilClose,
    };
    let alive = if minor == 1 { !gathered.close } else { gathered.keep_alive && !gathered.close };
    head.keep_alive = alive && head.framing != Framing::UntilClose;
    head.upgrade = gathered.upgrade_token && gathered.upgrade_to.is_some();
    head.keep_alive_secs = gathered.keep_alive_secs;
    head.has_nominated = gathered.nominated;
    if gathered.nominated {
        nominate(&mut head.lines, window)?;
    }
    Ok(Progress::Complete)
}

/// A request line is a target and about this much more.
const REST_OF_LINE: usize = 32;

/// An incomplete head is waited for while there is room for it; after that the reason decides the status.
fn partial(window: &[u8], limits: &HeadLimits, request: bool) -> Result<Progress, Refusal> {
    if bare_line_feed(window) {
        return Err(Refusal::BareLineFeed);
    }
    let first_line = memchr::memchr(b'\n', window);
    if request && first_line.unwrap_or(window.len()) > limits.target_bytes + REST_OF_LINE {
        return Err(Refusal::TargetTooLong);
    }
    if window.len() >= limits.bytes {
        return Err(if request && first_line.is_none() {
            Refusal::TargetTooLong
        } else {
            Refusal::HeadTooLong
        });
    }
    Ok(Progress::Partial)
}

fn refusal_of(error: httparse::Error, window: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        // `HTTP/2.0` and `HTTP/1.7` are versions we do not speak; anything else in that place is no version at all.
        httparse::Error::Version => {
            let line = &window[..memchr::memchr(b'\n', window).unwrap_or(window.len())];
            let named = line.windows(8).any(|part| {
                part.starts_with(b"HTTP/")
                    && part[5].is_ascii_digit()
                    && part[6] == b'.'
                    && part[7].is_ascii_digit()
            });
            if named { Refusal::Version } else { Refusal::Syntax }
        }
        _ if bare_line_feed(window) => Refusal::BareLineFeed,
        _ => Refusal::Syntax,
    }
}

/// httparse reads a lone LF as a line end and skips empty lines before a message. Other readers do not, so we do not.
fn httparse_is_lenient(head: &[u8]) -> bool {
    matches!(head.first(), Some(b'\r' | b'\n')) || bare_line_feed(head)
}

fn bare_line_feed(window: &[u8]) -> bool {
    memchr_iter(b'\n', window).any(|at| at == 0 || window[at - 1] != b'\r')
}
