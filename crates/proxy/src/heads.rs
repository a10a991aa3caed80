//! Writing heads: what was read is copied in runs, and only what a proxy must change is changed.
//!
//! Most heads have no line to drop, so most are one copy of the peer's own bytes, followed by the few lines we add.

use crate::config::{HeaderEdit, PathEdit};
use crate::http1::{Framing, Kind, Line, RequestHead, ResponseHead};
use crate::identity::{Trace, write_decimal, write_grpc_timeout};
use crate::plan::RoutePlan;
use policy::Deadline;
use policy::settings::Priority;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use units::Nanos;

/// What we know about a request that its next hop should know, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passport<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) trusted: bool,
    /// `None`: the client's own id is passed on as it is.
    pub(crate) request_id: Option<&'a [u8; 36]>,
    pub(crate) trace: &'a Trace,
    /// The span of this attempt.
    pub(crate) span: u64,
    pub(crate) deadline: Deadline,
    pub(crate) attempt: u8,
    pub(crate) priority: Priority,
    /// Who is asked.
    pub(crate) instance: Option<SocketAddr>,
    /// Our name in `Via`.
    pub(crate) via: &'a str,
}

/// Copies the lines that `keep` keeps, in as few pieces as possible. They follow `run`, which is copied in any case.
#[inline]
fn copy_lines(
    mut run: Option<(u32, u32)>,
    lines: &[Line],
    buffer: &[u8],
    out: &mut Vec<u8>,
    mut keep: impl FnMut(&Line) -> bool,
) {
    for line in lines {
        if line.kind == Kind::Other || keep(line) {
            run = Some((run.map_or(line.name.start, |(start, _)| start), line.end));
        } else if let Some((start, end)) = run.take() {
            out.extend_from_slice(&buffer[start as usize..end as usize]);
        }
    }
    if let Some((start, end)) = run {
        out.extend_from_slice(&buffer[start as usize..end as usize]);
    }
}

/// The same, with lines of the given names left out. Used where a route edits headers.
fn copy_lines_without(
    lines: &[Line],
    buffer: &[u8],
    out: &mut Vec<u8>,
    edit: &HeaderEdit,
    mut keep: impl FnMut(&Line) -> bool,
) {
    for line in lines {
        let name = line.name.get(buffer);
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let edited = edit.remove.iter().any(|gone| is(gone)) || edit.set.iter().any(|(set, _)| is(set));
        if !edited && (line.kind == Kind::Other || keep(line)) {
            out.extend_from_slice(&buffer[line.name.start as usize..line.end as usize]);
        }
    }
}

fn write_edits(edit: &HeaderEdit, out: &mut Vec<u8>) {
    for (name, value) in edit.set.iter().chain(&edit.add) {
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// An address without its port, written without allocating.
pub(crate) fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            let (mut text, mut len) = ([b'.'; 16], 0);
            for octet in v4.octets() {
                if octet >= 100 {
                    text[len] = b'0' + octet / 100;
                    len += 1;
                }
                if octet >= 10 {
                    text[len] = b'0' + octet / 10 % 10;
                    len += 1;
                }
                text[len] = b'0' + octet % 10;
                len += 2;
            }
            // Each octet left a dot behind it, and the last one's is not wanted.
            out.extend_from_slice(&text[..len - 1]);
        }
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// What follows the target in the first line that we write.
const FIRST_LINE_REST: &[u8] = b" HTTP/1.1\r\n";

/// `HTTP/1.1 200 `
const STATUS_LINE_BEFORE_REASON: u32 = 13;

/// The head of a request as the instance gets it, up to and including the empty line.
pub(crate) fn write_request(
    request: &RequestHead,
    buffer: &[u8],
    route: &RoutePlan,
    passport: &Passport<'_>,
    now: Nanos,
    out: &mut Vec<u8>,
) {
    let rewrite = &route.route.rewrite;
    // A first line that stays as it is goes together with the lines behind it.
    let first = request.method_text.start..request.target.end + FIRST_LINE_REST.len() as u32;
    let as_sent = rewrite.path.is_none()
        && !route.edits_request
        && request.target.start == request.method_text.end + 1
        && buffer.get(request.target.end as usize..first.end as usize) == Some(FIRST_LINE_REST);
    if !as_sent {
        out.extend_from_slice(request.method_text.get(buffer));
        out.push(b' ');
        match &rewrite.path {
            None => out.extend_from_slice(request.target.get(buffer)),
            Some(edit) => write_path(request, buffer, route, edit, out),
        }
        out.extend_from_slice(FIRST_LINE_REST);
    }
    let run = as_sent.then_some((first.start, first.end));

    let host_line = request.lines.iter().find(|line| line.kind == Kind::Host);
    // An absolute target's authority is the host, whatever the line says.
    let host_as_sent = rewrite.host.is_none() && host_line.is_some_and(|line| line.value == request.host);
    let run = if host_as_sent { run } else { None };
    if !host_as_sent {
        if as_sent {
            out.extend_from_slice(&buffer[first.start as usize..first.end as usize]);
        }
        let asked = rewrite.host.as_ref().map_or(request.host.get(buffer), |host| host.as_bytes());
        match passport.instance {
            // HTTP/1.0 may leave it out; in HTTP/1.1 somebody must be named, and many refuse nobody.
            Some(instance) if asked.is_empty() && host_line.is_none() => {
                let _ = write!(out, "host: {instance}\r\n");
            }
            _ => header(out, "host", asked),
        }
    }
    let trusted = passport.trusted;
    let own_id = passport.request_id.is_some();
    let keep = |line: &Line| match line.kind {
        Kind::Host => host_as_sent,
        Kind::RequestId => !own_id,
        Kind::Traceparent
        | Kind::B3
        | Kind::B3TraceId
        | Kind::B3SpanId
        | Kind::B3ParentSpanId
        | Kind::B3Sampled
        | Kind::B3Flags
        | Kind::Deadline
        | Kind::EnvoyTimeout
        | Kind::Attempt
        | Kind::Priority
        | Kind::XForwardedFor => false,
        Kind::GrpcTimeout => passport.deadline.is_never(),
        Kind::XForwardedProto | Kind::XForwardedHost | Kind::Forwarded => trusted,
        Kind::Version | Kind::EnvoyFault => trusted,
        Kind::Expect => request.expects_continue,
        kind => !kind.is_hop_by_hop(),
    };
    if route.edits_request {
        copy_lines_without(&request.lines, buffer, out, &rewrite.request, keep);
        write_edits(&rewrite.request, out);
    } else {
        copy_lines(run, &request.lines, buffer, out, keep);
    }

    if request.framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if request.upgrade
        && let Some(protocol) = request.find(Kind::Upgrade, buffer)
    {
        out.extend_from_slice(b"connection: upgrade\r\n");
        header(out, "upgrade", protocol);
    } else if request.accepts_trailers {
        out.extend_from_slice(b"connection: te\r\nte: trailers\r\n");
    }
    out.extend_from_slice(b"x-forwarded-for: ");
    if trusted {
        for line in request.lines.iter().filter(|line| line.kind == Kind::XForwardedFor) {
            out.extend_from_slice(line.value.get(buffer));
            out.extend_from_slice(b", ");
        }
    }
    write_ip(passport.peer.ip(), out);
    let proto: &[u8] = if passport.tls { b"https" } else { b"http" };
    out.extend_from_slice(match (trusted && request.has(Kind::XForwardedProto), passport.tls) {
        (true, _) => b"\r\n",
        (false, true) => b"\r\nx-forwarded-proto: https\r\n",
        (false, false) => b"\r\nx-forwarded-proto: http\r\n",
    });
    let told = trusted && request.has(Kind::XForwardedHost);
    if !told && !host_as_sent && !request.host.get(buffer).is_empty() {
        header(out, "x-forwarded-host", request.host.get(buffer));
    }
    if trusted && request.has(Kind::Forwarded) {
        out.extend_from_slice(b"forwarded: for=");
        match passport.peer.ip() {
            IpAddr::V4(_) => write_ip(passport.peer.ip(), out),
            IpAddr::V6(v6) => {
                let _ = write!(out, "\"[{v6}]\"");
            }
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(proto);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(if request.minor == 0 { b"via: 1.0 " } else { b"via: 1.1 " });
    out.extend_from_slice(passport.via.as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(id) = passport.request_id {
        let mut line = *b"x-request-id: 00000000-0000-0000-0000-000000000000\r\n";
        line[14..50].copy_from_slice(id);
        out.extend_from_slice(&line);
    }
    passport.trace.write(passport.span, out);
    write_deadline(request, passport, now, out);
    if passport.priority != Priority::default() {
        let words = crate::exchange::call::PRIORITIES;
        let word = words.iter().find(|(_, it)| *it == passport.priority).map_or("", |(word, _)| word);
        header(out, "isobar-priority", word.as_bytes());
    }
    if passport.attempt > 0 {
        out.extend_from_slice(b"isobar-attempt: ");
        write_decimal(u64::from(passport.attempt), out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What is left of the request's time: in our own header (microseconds), in Envoy's, and in gRPC's where it was used.
fn write_deadline(request: &RequestHead, passport: &Passport<'_>, now: Nanos, out: &mut Vec<u8>) {
    if passport.deadline.is_never() {
        return;
    }
    let left = passport.deadline.left(now);
    out.extend_from_slice(b"isobar-deadline: ");
    write_decimal(left.0 / 1_000, out);
    out.extend_from_slice(b"\r\nx-envoy-expected-rq-timeout-ms: ");
    write_decimal(left.0.div_ceil(1_000_000), out);
    out.extend_from_slice(b"\r\n");
    if request.has(Kind::GrpcTimeout) {
        out.extend_from_slice(b"grpc-timeout: ");
        write_grpc_timeout(left, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The rewritten target. A rewrite that would make an unsafe path leaves it as it was: the file's author meant a path.
pub(crate) fn write_path(
    request: &RequestHead,
    buffer: &[u8],
    route: &RoutePlan,
    edit: &PathEdit,
    out: &mut Vec<u8>,
) {
    let path = request.path(buffer);
    let start = out.len();
    match edit {
        PathEdit::Replace(whole) => out.extend_from_slice(whole.as_bytes()),
        PathEdit::ReplacePrefix(with) => {
            let matched = match &route.route.matches.path {
                crate::config::PathMatch::Prefix(prefix) => prefix.trim_end_matches('/').len(),
                _ => path.len(),
            };
            let rest = &path[matched.min(path.len())..];
            out.extend_from_slice(with.trim_end_matches('/').as_bytes());
            if !rest.starts_with(b"/") && !rest.is_empty() {
                out.push(b'/');
            }
            out.extend_from_slice(rest);
            if out.len() == start {
                out.push(b'/');
            }
        }
        PathEdit::Regex { replacement, .. } => match &route.path_regex {
            Some(regex) => out.extend_from_slice(&regex.replace_all(path, replacement.as_bytes())),
            None => out.extend_from_slice(path),
        },
    }
    if !crate::router::is_safe_path(&out[start..]) {
        out.truncate(start);
        out.extend_from_slice(path);
    }
    out.extend_from_slice(&request.target.get(buffer)[path.len()..]);
}

/// How the reply's body reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyOut {
    /// As it comes: its length was announced, or there is none.
    Plain,
    Chunked,
    /// The connection's end is the body's.
    UntilClose,
}

/// The head of a reply as the client gets it.
pub(crate) fn write_response(
    response: &ResponseHead,
    buffer: &[u8],
    route: &RoutePlan,
    (client_minor, keep_alive): (u8, bool),
    date: impl FnOnce() -> [u8; 29],
    body: BodyOut,
    out: &mut Vec<u8>,
) {
    // The status line as the instance wrote it, but in our version.
    let as_sent = response.minor == 1
        && !route.edits_response
        && response.reason.start == STATUS_LINE_BEFORE_REASON
        && buffer.get(response.reason.end as usize..).is_some_and(|rest| rest.starts_with(b"\r\n"));
    if !as_sent {
        out.extend_from_slice(b"HTTP/1.1 ");
        write_decimal(u64::from(response.status), out);
        out.push(b' ');
        out.extend_from_slice(response.reason.get(buffer));
        out.extend_from_slice(b"\r\n");
    }
    let run = as_sent.then_some((0, response.reason.end + 2));
    let switching = response.status == 101;
    let keep = |line: &Line| match line.kind {
        Kind::Upgrade => switching,
        // What cannot have a body must not announce one (RFC 9110, section 8.6).
        Kind::ContentLength => body == BodyOut::Plain && response.status != 204 && !switching,
        Kind::Trailer => body == BodyOut::Chunked,
        kind => !kind.is_hop_by_hop(),
    };
    if route.edits_response {
        copy_lines_without(&response.lines, buffer, out, &route.route.rewrite.response, keep);
        write_edits(&route.route.rewrite.response, out);
    } else {
        copy_lines(run, &response.lines, buffer, out, keep);
    }
    if body == BodyOut::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if !response.has(Kind::Date) && response.status >= 200 {
        header(out, "date", &date());
    }
    if switching {
        out.extend_from_slice(b"connection: upgrade\r\n");
    } else if response.status >= 200 {
        write_connection(client_minor, keep_alive, out);
    }
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_connection(client_minor: u8, keep_alive: bool, out: &mut Vec<u8>) {
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if client_minor == 0 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
}

/// A reply of our own: who could not do what, in the header for programs and in a problem document for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    /// `no-healthy-instance`.
    pub(crate) error: &'static str,
    /// `web->cart`, or empty where no edge was chosen.
    pub(crate) edge: &'a str,
    pub(crate) detail: &'a str,
    pub(crate) retry_after_secs: Option<u32>,
    pub(crate) with_body: bool,
}

impl Own<'_> {
    pub(crate) fn write(&self, (client_minor, keep_alive): (u8, bool), date: [u8; 29], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"HTTP/1.1 ");
        write_decimal(u64::from(self.status), out);
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\ncontent-type: application/problem+json\r\n");
        header(out, "date", &date);
        out.extend_from_slice(b"x-isobar-error: ");
        out.extend_from_slice(self.error.as_bytes());
        if !self.edge.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.edge.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if let Some(secs) = self.retry_after_secs {
            out.extend_from_slice(b"retry-after: ");
            write_decimal(u64::from(secs), out);
            out.extend_from_slice(b"\r\n");
        }
        write_connection(client_minor, keep_alive, out);
        // The body is written first, behind, so that its length is known; it is short.
        let head_end = out.len();
        self.write_body(out);
        let body_len = out.len() - head_end;
        out.extend_from_slice(b"content-length: ");
        write_decimal(body_len as u64, out);
        out.extend_from_slice(b"\r\n\r\n");
        let length = out.len() - head_end - body_len;
        out[head_end..].rotate_right(length);
        if !self.with_body {
            out.truncate(head_end + length);
        }
        debug_assert!(out.len() > start);
    }

    pub(crate) fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"urn:isobar:error:");
        out.extend_from_slice(self.error.as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\",\"status\":");
        write_decimal(u64::from(self.status), out);
        if !self.detail.is_empty() {
            out.extend_from_slice(b",\"detail\":");
            crate::log::write_json_string(&self.detail.as_bytes()[..self.detail.len().min(512)], out);
        }
        if !self.edge.is_empty() {
            out.extend_from_slice(b",\"edge\":");
            crate::log::write_json_string(self.edge.as_bytes(), out);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The phrase that goes with a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => match status / 100 {
            1 => "Informational",
            2 => "Success",
            3 => "Redirect",
            4 => "Client Error",
            _ => "Error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_are_written_as_everybody_writes_them(four in any::<[u8; 4]>(), small in 0u8..=10) {
            for octets in [four, [small, four[0], 0, 255], [small; 4]] {
                let address = IpAddr::from(octets);
                let mut text = Vec::new();
                write_ip(address, &mut text);
                prop_assert_eq!(String::from_utf8_lossy(&text), address.to_string());
            }
        }
    }
}
