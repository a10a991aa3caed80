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

use super::names::{Kind, classify};
use super::scan;
use memchr::memchr_iter;
use std::mem::MaybeUninit;

/// A place in the buffer that the head was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    fn of(part: &[u8], whole: &[u8]) -> Self {
        // Both point into one buffer, so the difference of the addresses is the offset; an empty part may point anywhere.
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize).min(whole.len());
        Self { start: start as u32, end: (start + part.len()).min(whole.len()) as u32 }
    }

    #[inline]
    pub fn get(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One header line: `start..end` covers it from its name to its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub kind: Kind,
    pub name: Span,
    pub value: Span,
    pub end: u32,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    /// Only a response may end with its connection.
    UntilClose,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
    Connect,
    Other,
}

impl Method {
    pub fn parse(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Doing it twice is as good as doing it once (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch | Self::Connect | Self::Other)
    }
}

/// Why a message was not read any further. The name is the counter's name, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Syntax,
    BareLineFeed,
    Version,
    MethodUnsupported,
    TargetSyntax,
    DotSegments,
    HeadTooLong,
    TargetTooLong,
    TooManyHeaders,
    HostMissing,
    HostRepeated,
    HostSyntax,
    LengthSyntax,
    LengthRepeated,
    LengthAndCoding,
    CodingRepeated,
    CodingUnknown,
    CodingInHttp10,
    ConnectionNominates,
    ChunkSyntax,
    TrailerSyntax,
    TrailerTooLong,
    BodyTooLong,
    ExpectUnknown,
    HostMismatch,
}

impl Refusal {
    pub const ALL: [Self; 25] = [
        Self::Syntax,
        Self::BareLineFeed,
        Self::Version,
        Self::MethodUnsupported,
        Self::TargetSyntax,
        Self::DotSegments,
        Self::HeadTooLong,
        Self::TargetTooLong,
        Self::TooManyHeaders,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostSyntax,
        Self::LengthSyntax,
        Self::LengthRepeated,
        Self::LengthAndCoding,
        Self::CodingRepeated,
        Self::CodingUnknown,
        Self::CodingInHttp10,
        Self::ConnectionNominates,
        Self::ChunkSyntax,
        Self::TrailerSyntax,
        Self::TrailerTooLong,
        Self::BodyTooLong,
        Self::ExpectUnknown,
        Self::HostMismatch,
    ];

    /// What a client is told. (What a server sent that we refuse is always a 502 to the client.)
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::MethodUnsupported | Self::CodingUnknown => 501,
            Self::HeadTooLong | Self::TooManyHeaders | Self::TrailerTooLong => 431,
            Self::TargetTooLong => 414,
            Self::BodyTooLong => 413,
            Self::ExpectUnknown => 417,
            _ => 400,
        }
    }

    /// The counter's label, and the `type` of the problem document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::BareLineFeed => "bare-line-feed",
            Self::Version => "version",
            Self::MethodUnsupported => "method-unsupported",
            Self::TargetSyntax => "target-syntax",
            Self::DotSegments => "dot-segments",
            Self::HeadTooLong => "head-too-long",
            Self::TargetTooLong => "target-too-long",
            Self::TooManyHeaders => "too-many-headers",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostSyntax => "host-syntax",
            Self::LengthSyntax => "content-length-syntax",
            Self::LengthRepeated => "content-length-repeated",
            Self::LengthAndCoding => "content-length-and-transfer-encoding",
            Self::CodingRepeated => "transfer-encoding-repeated",
            Self::CodingUnknown => "transfer-encoding-unknown",
            Self::CodingInHttp10 => "transfer-encoding-in-http-1.0",
            Self::ConnectionNominates => "connection-nominates-protected-header",
            Self::ChunkSyntax => "chunk-syntax",
            Self::TrailerSyntax => "trailer-syntax",
            Self::TrailerTooLong => "trailer-too-long",
            Self::BodyTooLong => "body-too-long",
            Self::ExpectUnknown => "expect-unknown",
            Self::HostMismatch => "host-mismatch",
        }
    }
}

/// How much of a head we are willing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    pub bytes: usize,
    pub target_bytes: usize,
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        // What a buffer holds, what old browsers sent at most, and what hyper and HAProxy agree on.
        Self { bytes: 16 << 10, target_bytes: 8 << 10, headers: 100 }
    }
}

/// More header lines than this are refused whatever the settings say: it is the size of an array on the stack.
pub const HEADERS_MAX: usize = 128;

/// A request's head, as places in the buffer. Made once for a connection's worker and filled again for each request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub method_text: Span,
    /// The path and the query, as they will be sent on. Absolute targets lose their scheme and authority here.
    pub target: Span,
    /// Bytes of the target before its query.
    pub path_len: u32,
    /// Of the absolute target, else of the `Host` line; empty for HTTP/1.0 without one.
    pub host: Span,
    pub minor: u8,
    pub lines: Vec<Line>,
    /// Bytes of the head, the empty line included.
    pub len: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// The client asked to change the protocol and named it in `Connection`, as it must.
    pub upgrade: bool,
    pub accepts_trailers: bool,
    /// Lines that `Connection` nominated, beyond those that are hop-by-hop by name.
    pub has_nominated: bool,
    /// A bit for each [`Kind`] that occurs, so that a header that is absent costs one test.
    pub kinds: u64,
}

impl RequestHead {
    #[inline]
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & (1 << kind as u64) != 0
    }

    #[inline]
    pub fn find<'b>(&self, kind: Kind, buffer: &'b [u8]) -> Option<&'b [u8]> {
        if !self.has(kind) {
            return None;
        }
        self.lines.iter().find(|line| line.kind == kind).map(|line| line.value.get(buffer))
    }

    pub fn find_name<'b>(&self, name: &str, buffer: &'b [u8]) -> Option<&'b [u8]> {
        self.lines
            .iter()
            .find(|line| line.name.get(buffer).eq_ignore_ascii_case(name.as_bytes()))
            .map(|line| line.value.get(buffer))
    }

    /// The path without its query.
    pub fn path<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        let target = self.target.get(buffer);
        &target[..(self.path_len as usize).min(target.len())]
    }

    pub fn query<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        self.target.get(buffer).get(self.path_len as usize + 1..).unwrap_or_default()
    }
}

/// A response's head, as places in the buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub reason: Span,
    pub minor: u8,
    pub lines: Vec<Line>,
    pub len: usize,
    pub framing: Framing,
    pub keep_alive: bool,
    pub upgrade: bool,
    pub has_nominated: bool,
    pub kinds: u64,
    /// Seconds the server promised to keep the connection (`Keep-Alive: timeout=`).
    pub keep_alive_secs: Option<u32>,
}

impl ResponseHead {
    #[inline]
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & (1 << kind as u64) != 0
    }

    #[inline]
    pub fn find<'b>(&self, kind: Kind, buffer: &'b [u8]) -> Option<&'b [u8]> {
        if !self.has(kind) {
            return None;
        }
        self.lines.iter().find(|line| line.kind == kind).map(|line| line.value.get(buffer))
    }
}

/// What a look at the buffer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not all of the head is here yet.
    Partial,
    Complete,
}

/// What the header lines say about the connection and the body, gathered in one pass.
#[derive(Default)]
pub(super) struct Gathered {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade_token: bool,
    upgrade_to: Option<Span>,
    te_token: bool,
    trailers: bool,
    nominated: bool,
    hosts: u32,
    host: Span,
    expect: Option<bool>,
    keep_alive_secs: Option<u32>,
    kinds: u64,
}

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

fn gather(
    headers: &[httparse::Header<'_>],
    window: &[u8],
    lines: &mut Vec<Line>,
) -> Result<Gathered, Refusal> {
    let mut seen = Gathered::default();
    lines.clear();
    for header in headers {
        let kind = classify(header.name.as_bytes());
        let name = Span::of(header.name.as_bytes(), window);
        let value = if header.value.is_empty() {
            Span { start: name.end, end: name.end }
        } else {
            Span::of(header.value, window)
        };
        // Set when the next line begins; for the last, the empty line's start.
        if let Some(before) = lines.last_mut() {
            before.end = name.start;
        }
        lines.push(Line { kind, name, value, end: window.len() as u32 - 2 });
        if kind != Kind::Other {
            seen.note(kind, header.value, value)?;
        }
    }
    Ok(seen)
}

impl Gathered {
    /// Takes in one line that means something to us.
    pub(super) fn note(&mut self, kind: Kind, text: &[u8], value: Span) -> Result<(), Refusal> {
        let repeated = self.kinds & (1 << kind as u64) != 0;
        self.kinds |= 1 << kind as u64;
        match kind {
            Kind::Host => {
                self.hosts += 1;
                self.host = value;
            }
            Kind::ContentLength => {
                if repeated {
                    return Err(Refusal::LengthRepeated);
                }
                self.length = Some(content_length(text)?);
            }
            Kind::TransferEncoding => {
                if repeated {
                    return Err(Refusal::CodingRepeated);
                }
                if !text.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::CodingUnknown);
                }
                self.chunked = true;
            }
            // What nearly everybody says, if anything.
            Kind::Connection if text == b"keep-alive" => self.keep_alive = true,
            Kind::Connection => {
                for token in tokens(text) {
                    match token.len() {
                        5 if token.eq_ignore_ascii_case(b"close") => self.close = true,
                        10 if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        7 if token.eq_ignore_ascii_case(b"upgrade") => self.upgrade_token = true,
                        2 if token.eq_ignore_ascii_case(b"te") => self.te_token = true,
                        _ => self.nominated = true,
                    }
                }
            }
            Kind::Te => {
                self.trailers |= tokens(text).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            Kind::Upgrade => self.upgrade_to = Some(value),
            Kind::Expect => self.expect = Some(text.eq_ignore_ascii_case(b"100-continue") && !repeated),
            Kind::KeepAlive => {
                self.keep_alive_secs = tokens(text)
                    .find_map(|token| token.strip_prefix(b"timeout="))
                    .and_then(decimal)
                    .and_then(|secs| u32::try_from(secs).ok());
            }
            _ => {}
        }
        Ok(())
    }
}

/// `chunked` beside a doubled or signed length is the classic; so a length is digits, few enough, and nothing else.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let several = || value.contains(&b',');
    decimal(value).ok_or_else(|| if several() { Refusal::LengthRepeated } else { Refusal::LengthSyntax })
}

/// Digits only: no sign, no space, nothing that does not fit.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    // Nineteen digits always fit.
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then_some(sum * 10 + u64::from(digit))
    })
}

/// The members of a comma-separated list, without the spaces around them and without empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|token| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// Marks the lines that `Connection` nominates as keep-alive lines, which are dropped.
#[cold]
fn nominate(lines: &mut [Line], window: &[u8]) -> Result<(), Refusal> {
    for at in 0..lines.len() {
        if lines[at].kind != Kind::Connection {
            continue;
        }
        for token in tokens(lines[at].value.get(window)) {
            if matches!(token.to_ascii_lowercase().as_slice(), b"close" | b"keep-alive" | b"upgrade" | b"te")
            {
                continue;
            }
            if !classify(token).may_be_nominated() {
                return Err(Refusal::ConnectionNominates);
            }
            for line in lines.iter_mut() {
                if line.name.get(window).eq_ignore_ascii_case(token) {
                    line.kind = Kind::KeepAlive;
                }
            }
        }
    }
    Ok(())
}

/// The same authority, whether or not it names the port that is meant anyway.
fn is_same_host(one: Span, other: Span, window: &[u8]) -> bool {
    let bare = |span: Span| {
        let host = span.get(window);
        host.strip_suffix(b":80").unwrap_or(host)
    };
    bare(one).eq_ignore_ascii_case(bare(other))
}

/// The part of the target that is sent on. An absolute target's authority becomes the host (RFC 9112, 3.2.2).
fn target(span: Span, window: &[u8], head: &mut RequestHead) -> Result<Span, Refusal> {
    let text = span.get(window);
    if head.method == Method::Connect {
        return Err(Refusal::MethodUnsupported);
    }
    if memchr::memchr(b'#', text).is_some() || !text.iter().all(|byte| (0x21..0x7F).contains(byte)) {
        return Err(Refusal::TargetSyntax);
    }
    let mut path = span;
    match text.first() {
        Some(b'/') => {}
        Some(b'*') if text.len() == 1 && head.method == Method::Options => {
            head.path_len = 1;
            return Ok(span);
        }
        _ => {
            let scheme = if text.len() >= 7 && text[..7].eq_ignore_ascii_case(b"http://") {
                7
            } else if text.len() >= 8 && text[..8].eq_ignore_ascii_case(b"https://") {
                8
            } else {
                return Err(Refusal::TargetSyntax);
            };
            let authority = text[scheme..].iter().position(|byte| matches!(byte, b'/' | b'?'));
            let authority_end = authority.map_or(text.len(), |at| at + scheme);
            // A target without a path would need a byte that is not in the buffer; nobody sends it, so it is refused.
            if authority_end == scheme || text.get(authority_end) != Some(&b'/') {
                return Err(Refusal::TargetSyntax);
            }
            head.host = Span { start: span.start + scheme as u32, end: span.start + authority_end as u32 };
            path.start += authority_end as u32;
        }
    }
    let text = path.get(window);
    let path_len = memchr::memchr(b'?', text).unwrap_or(text.len());
    head.path_len = path_len as u32;
    if has_dot_segments(&text[..path_len]) {
        return Err(Refusal::DotSegments);
    }
    Ok(path)
}

/// `/a/../b` is `/b` to some servers and not to our routes. We match and forward the same bytes, so we refuse what
/// two readers would resolve differently.
pub fn has_dot_segments(path: &[u8]) -> bool {
    // Most paths have neither a dot nor a per cent sign after a slash, and one scan finds that out.
    if memchr::memchr2(b'.', b'%', path).is_none() {
        return false;
    }
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while !rest.is_empty() {
            rest = match rest {
                [b'.', rest @ ..] => rest,
                [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
                // `..;x` is `..` to servers that cut path parameters off.
                [b';', ..] if dots > 0 => &[],
                _ => return false,
            };
            dots += 1;
        }
        dots > 0 && (dots <= 2 || segment.contains(&b';')) && !segment.is_empty()
    })
}

/// Letters of a registered name, an IPv4 address or a bracketed IPv6 address, with a port or without.
fn host_is_valid(host: &[u8]) -> bool {
    const HOST: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%' | b'!' | b'$' | b'&' | b'\''
                )
                || matches!(b, b'(' | b')' | b'*' | b'+' | b';' | b'=');
            byte += 1;
        }
        table
    };
    host.iter().all(|byte| HOST[usize::from(*byte)]) && has_valid_port(host)
}

/// No port, or digits behind a name. An address of IPv6 has colons of its own, in brackets.
fn has_valid_port(host: &[u8]) -> bool {
    let bracketed = host.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    match host[bracketed..].iter().position(|byte| *byte == b':') {
        None => bracketed == 0 || bracketed == host.len(),
        Some(at) => {
            let (name, port) = (&host[..bracketed + at], &host[bracketed + at + 1..]);
            let alone = bracketed == 0 || at == 0;
            alone && !name.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
        }
    }
}
