//! Heads of HTTP/2 as the text that HTTP/1 writes, and back.
//!
//! Routing, rewriting, tracing and every check read one kind of head, so a stream's fields become its lines. A field
//! that could not have been a line, because of a line end in its value, a capital in its name or a connection's header
//! among the message's, makes the message malformed, and a malformed message goes nowhere (RFC 9113, 8.1.1).

use super::hpack::{write_authority, write_field, write_method, write_path, write_scheme, write_status};
use crate::http1::{Kind, classify, controls, decimal, find, name_end};
use crate::identity::write_decimal;
use std::ops::Range;

/// What a header block says, as text. One for each connection, filled again for each block.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// Lines, and before them the first line if the block was a head and not a trailer.
    pub(super) lines: Vec<u8>,
    pseudo: Vec<u8>,
    method: Range<usize>,
    path: Range<usize>,
    authority: Range<usize>,
    cookies: Vec<u8>,
    has_method: bool,
    has_path: bool,
    has_scheme: bool,
    has_authority: bool,
    regular: bool,
    host: Range<usize>,
    has_host: bool,
    has_first_line: bool,
    limit: usize,
    pub(super) status: u16,
    pub(super) length: Option<u64>,
    pub(super) te_trailers: bool,
    pub(super) malformed: bool,
    /// There was more of it than anybody wants to read.
    pub(super) too_long: bool,
}

/// Which block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Request,
    Response,
    Trailer,
}

/// Characters of a field's name: a token, without capitals.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    let marks = b"!#$%&'*+-.^_`|~";
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_lowercase() || (byte as u8).is_ascii_digit() {
            table[byte] = true;
        }
        byte += 1;
    }
    table
};

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| NAME[usize::from(*byte)])
}

/// Nothing that could end a line, and no space around it.
fn is_value(value: &[u8]) -> bool {
    let clean = |byte: &u8| (*byte >= 0x20 && *byte != 0x7F) || *byte == b'\t';
    let (eights, rest) = value.as_chunks::<8>();
    // A tab shows as a control character, which it is.
    let suspicious = eights.iter().fold(0, |sum, eight| sum | controls(eight)) != 0;
    let clean = rest.iter().all(clean) && (!suspicious || value.iter().all(clean));
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    clean && !space(value.first()) && !space(value.last())
}

/// Whether a field could be a line. What stands in a first line must not have spaces either.
fn is_sound(name: &[u8], value: &[u8]) -> bool {
    match name.split_first() {
        Some((b':', _)) => is_value(value) && !value.contains(&b' '),
        _ => is_name(name) && is_value(value),
    }
}

impl Text {
    pub(super) fn begin(&mut self, limit: usize) {
        let Self { lines, pseudo, cookies, .. } = self;
        lines.clear();
        pseudo.clear();
        cookies.clear();
        *self = Self {
            lines: std::mem::take(lines),
            pseudo: std::mem::take(pseudo),
            cookies: std::mem::take(cookies),
            limit,
            ..Self::default()
        };
    }

    /// One field, in the order in which they came. Returns whether it could be a line; for one out of a table that was
    /// asked before, `known` is what it said then.
    pub(super) fn field(&mut self, block: Block, name: &[u8], value: &[u8], known: Option<bool>) -> bool {
        let sound = known.unwrap_or_else(|| is_sound(name, value));
        self.put(block, name, value, sound);
        sound
    }

    fn put(&mut self, block: Block, name: &[u8], value: &[u8], sound: bool) {
        if self.lines.len() + self.pseudo.len() + self.cookies.len() + name.len() + value.len() > self.limit {
            self.too_long = true;
            return;
        }
        if !sound {
            self.malformed = true;
            return;
        }
        if name.first() == Some(&b':') {
            return self.pseudo(block, name, value);
        }
        if !self.regular {
            self.regular = true;
            self.first_line(block);
        }
        let kind = classify(name);
        match kind {
            Kind::Other => {}
            kind if block == Block::Trailer && !kind.may_trail() => {
                self.malformed = true;
                return;
            }
            Kind::Cookie if block == Block::Request => {
                // HTTP/2 may cut cookies into crumbs; HTTP/1 has one line (RFC 9113, 8.2.3).
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                return;
            }
            Kind::Host if block == Block::Request => {
                if self.has_host {
                    self.malformed = true;
                }
                self.has_host = true;
                let start = self.pseudo.len();
                self.pseudo.extend_from_slice(value);
                self.host = start..self.pseudo.len();
                return;
            }
            Kind::ContentLength => {
                let length = decimal(value);
                self.malformed |= length.is_none() || self.length.is_some();
                self.length = length;
            }
            Kind::Te => {
                self.malformed |= !value.eq_ignore_ascii_case(b"trailers");
                self.te_trailers = true;
                return;
            }
            Kind::Connection
            | Kind::KeepAlive
            | Kind::ProxyConnection
            | Kind::TransferEncoding
            | Kind::Upgrade => {
                self.malformed = true;
                return;
            }
            // They speak about one connection and are no lie either.
            kind if kind.is_hop_by_hop() => return,
            _ => {}
        }
        self.lines.reserve(name.len() + value.len() + 4);
        for part in [name, b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    fn pseudo(&mut self, block: Block, name: &[u8], value: &[u8]) {
        let start = self.pseudo.len();
        let place = start..start + value.len();
        let (slot, seen) = match (block, name) {
            (Block::Request, b":method") => (&mut self.method, &mut self.has_method),
            (Block::Request, b":path") => (&mut self.path, &mut self.has_path),
            (Block::Request, b":authority") => (&mut self.authority, &mut self.has_authority),
            (Block::Request, b":scheme") => {
                self.malformed |= self.has_scheme || self.regular;
                self.has_scheme = true;
                return;
            }
            (Block::Response, b":status") => {
                let status = decimal(value).filter(|status| value.len() == 3 && *status >= 100);
                self.malformed |= self.status != 0 || self.regular || status.is_none();
                self.status = status.unwrap_or(0) as u16;
                return;
            }
            _ => {
                self.malformed = true;
                return;
            }
        };
        self.malformed |= *seen || self.regular;
        *seen = true;
        *slot = place;
        self.pseudo.extend_from_slice(value);
    }

    fn first_line(&mut self, block: Block) {
        if std::mem::replace(&mut self.has_first_line, true) {
            return;
        }
        match block {
            Block::Trailer => {}
            Block::Response => {
                self.lines.extend_from_slice(b"HTTP/1.1 ");
                write_decimal(u64::from(self.status), &mut self.lines);
                self.lines.push(b' ');
                self.lines.extend_from_slice(crate::heads::reason(self.status).as_bytes());
                self.lines.extend_from_slice(b"\r\n");
            }
            Block::Request => {
                // CONNECT has neither path nor scheme, and is refused further on by the method.
                let connect = &self.pseudo[self.method.clone()] == b"CONNECT";
                self.malformed |= !self.has_method || (!connect && (!self.has_path || !self.has_scheme));
                let target = if connect { self.authority.clone() } else { self.path.clone() };
                self.malformed |= target.is_empty();
                for part in [&self.pseudo[self.method.clone()], b" ", &self.pseudo[target], b" HTTP/1.1\r\n"]
                {
                    self.lines.extend_from_slice(part);
                }
            }
        }
    }

    /// All fields were shown. A request's text lacks its last, empty line: there may be more to say.
    pub(super) fn finish(&mut self, block: Block) {
        self.first_line(block);
        match block {
            Block::Request => {
                let (authority, host) =
                    (&self.pseudo[self.authority.clone()], &self.pseudo[self.host.clone()]);
                self.malformed |=
                    self.has_authority && self.has_host && !authority.eq_ignore_ascii_case(host);
                let name = if self.has_authority { authority } else { host };
                for part in [b"host: ", name, b"\r\n"] {
                    self.lines.extend_from_slice(part);
                }
                if !self.cookies.is_empty() {
                    for part in [b"cookie: ", self.cookies.as_slice(), b"\r\n"] {
                        self.lines.extend_from_slice(part);
                    }
                }
            }
            Block::Response => self.malformed |= self.status == 0,
            Block::Trailer => {}
        }
    }
}

/// The lines of a head or a trailer, without their ends, up to the empty one.
fn lines(mut text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let stop = name_end(text)?;
            if stop > 0 && text[stop] == b':' {
                let (name, rest) = (&text[..stop], &text[stop + 1..]);
                let end = find(b'\n', rest)?;
                text = &rest[end + 1..];
                return Some((name, rest[..end].trim_ascii()));
            }
            // The empty line; or what is no line, which only a trailer that nobody has read yet may contain.
            let end = find(b'\n', text)?;
            let line = text[..end].strip_suffix(b"\r").unwrap_or(&text[..end]);
            text = if line.is_empty() { &[] } else { &text[end + 1..] };
            if let Some(colon) = find(b':', line).filter(|colon| *colon > 0) {
                return Some((&line[..colon], line[colon + 1..].trim_ascii()));
            }
        }
    })
}

/// First letters, folded to five bits, of the names that do not go on as they are.
const DROPPED_FIRST: u32 = {
    let (mut bits, mut at) = (0u32, 0);
    let letters = b"chkptu";
    while at < letters.len() {
        bits |= 1 << (letters[at] & 31);
        at += 1;
    }
    bits
};

/// Belongs to one connection, or is said elsewhere in a block.
fn is_dropped(name: &[u8], value: &[u8]) -> bool {
    if DROPPED_FIRST >> (name[0] & 31) & 1 == 0 {
        return false;
    }
    match classify(name) {
        Kind::Te => !value.eq_ignore_ascii_case(b"trailers"),
        kind => kind == Kind::Host || kind.is_hop_by_hop(),
    }
}

fn write_lines(text: &[u8], out: &mut Vec<u8>) {
    for (name, value) in lines(text) {
        if !is_dropped(name, value) {
            write_field(name, value, out);
        }
    }
}

fn first_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = find(b'\n', text).map_or(text.len(), |at| at + 1);
    text.split_at(end)
}

/// A request's text as a header block.
pub(super) fn write_request(text: &[u8], tls: bool, out: &mut Vec<u8>) {
    let (first, rest) = first_line(text);
    let mut words = first.trim_ascii_end().split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    write_method(method, out);
    write_scheme(tls, out);
    write_path(target, out);
    let is_host = |name: &[u8]| name.len() == 4 && name.eq_ignore_ascii_case(b"host");
    if let Some((_, host)) = lines(rest).find(|(name, _)| is_host(name)) {
        write_authority(host, out);
    }
    write_lines(rest, out);
}

/// A response's text as a header block. Returns its status.
pub(super) fn write_response(text: &[u8], out: &mut Vec<u8>) -> u16 {
    let (first, rest) = first_line(text);
    let status = first.get(9..12).and_then(decimal).unwrap_or(500) as u16;
    write_status(status, out);
    write_lines(rest, out);
    status
}

pub(super) fn write_trailer(text: &[u8], out: &mut Vec<u8>) {
    write_lines(text, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: Block, fields: &[(&str, &str)], expected: Option<&str>) {
        let mut text = Text::default();
        text.begin(4 << 10);
        for (name, value) in fields {
            text.field(block, name.as_bytes(), value.as_bytes(), None);
        }
        text.finish(block);
        let got = (!text.malformed).then(|| String::from_utf8_lossy(&text.lines).into_owned());
        assert_eq!(got.as_deref(), expected, "{fields:?}");
    }

    const ASK: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "b")];

    #[test]
    fn requests_become_text_or_are_malformed() {
        let with = |more: &[(&'static str, &'static str)]| [&ASK[..], more].concat();
        let ok = |more: &[(&'static str, &'static str)], lines: &str| {
            check(Block::Request, &with(more), Some(&format!("GET /a HTTP/1.1\r\n{lines}")));
        };
        let bad = |fields: &[(&str, &str)]| check(Block::Request, fields, None);
        ok(&[], "host: b\r\n");
        ok(&[("x", "1"), ("y", "")], "x: 1\r\ny: \r\nhost: b\r\n");
        ok(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")], "x: 1\r\nhost: b\r\ncookie: a=1; b=2\r\n");
        ok(&[("host", "B")], "host: b\r\n");
        ok(&[("te", "trailers")], "host: b\r\n");
        ok(&[("content-length", "7")], "content-length: 7\r\nhost: b\r\n");
        bad(&with(&[("host", "c")]));
        bad(&with(&[("x", "1\r\ny: 2")]));
        bad(&with(&[("x", "1\0")]));
        bad(&with(&[("x", " 1")]));
        bad(&with(&[("X", "1")]));
        bad(&with(&[("x:", "1")]));
        bad(&with(&[("x\r\ny", "1")]));
        bad(&with(&[("", "1")]));
        bad(&with(&[("connection", "close")]));
        bad(&with(&[("transfer-encoding", "chunked")]));
        bad(&with(&[("te", "gzip")]));
        bad(&with(&[("content-length", "7"), ("content-length", "7")]));
        bad(&with(&[("content-length", "+7")]));
        bad(&with(&[(":method", "GET")]));
        bad(&with(&[("x", "1"), (":path", "/")]));
        bad(&with(&[(":other", "1")]));
        bad(&with(&[(":status", "200")]));
        bad(&ASK[1..]);
        bad(&ASK[..2]);
        bad(&[(":method", "GET /x HTTP/1.1\r\n"), ASK[1], ASK[2], ASK[3]]);
        bad(&[ASK[0], ASK[1], (":path", "/ HTTP/1.1\r\nx: 1"), ASK[3]]);
        bad(&[ASK[0], ASK[1], (":path", ""), ASK[3]]);
        check(
            Block::Response,
            &[(":status", "204"), ("x", "1")],
            Some("HTTP/1.1 204 No Content\r\nx: 1\r\n"),
        );
        check(Block::Response, &[("x", "1")], None);
        check(Block::Response, &[(":status", "20x")], None);
        check(Block::Trailer, &[("grpc-status", "0")], Some("grpc-status: 0\r\n"));
        check(
            Block::Trailer,
            &[("x-request-id", "a"), ("date", "b")],
            Some("x-request-id: a\r\ndate: b\r\n"),
        );
        for name in [":path", "host", "content-length", "cookie", "x-forwarded-for", "isobar-version"] {
            check(Block::Trailer, &[(name, "1")], None);
        }
    }

    #[test]
    fn a_head_without_end_is_too_long() {
        let mut text = Text::default();
        text.begin(100);
        (0..50).for_each(|_| {
            text.field(Block::Request, b"x-name", b"value", None);
        });
        assert!(text.too_long && text.lines.len() <= 200);
    }

    #[test]
    fn text_becomes_fields_again() {
        let mut block = Vec::new();
        let text = b"POST /x?y HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nConnection: te\r\nte: trailers\r\ntransfer-encoding: \
                     chunked\r\n\r\nx-not: this\r\n";
        write_request(text, true, &mut block);
        let mut got = String::new();
        let mut decoder = super::super::hpack::Decoder::default();
        decoder
            .decode(&block, |name, value, _| {
                got.push_str(&format!(
                    "{}={};",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                ));
                true
            })
            .expect("readable");
        assert_eq!(got, ":method=POST;:scheme=https;:path=/x?y;:authority=shop;x-a=1;te=trailers;");
    }
}
