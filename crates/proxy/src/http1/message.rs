//! What a head is once it was read: places in the buffer, and what they mean for the body and the connection.

use super::names::Kind;

/// A place in the buffer that the head was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
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
