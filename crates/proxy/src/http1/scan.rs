//! The heads that everybody sends, read with one look at each byte.
//!
//! This is a shortcut and not a second opinion. It understands messages that are whole and beyond doubt: one space here,
//! CR LF there, nothing empty, nothing odd. Whatever else it meets, an error or an end among them, it says nothing, and
//! [`super::head`] reads the message again, slowly, and finds the right words for it. So nothing is accepted here that
//! is not accepted there, and a property test holds the two to the same answer.

use super::lines::Gathered;
use super::message::{HEADERS_MAX, HeadLimits, Line, Span};
use super::names::{Kind, classify_token};

/// A request line's parts, and where the lines behind it begin.
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    /// Bytes of the target before its query.
    pub(super) path_len: u32,
    /// It may hold dot segments and must be looked at.
    pub(super) has_dots: bool,
    pub(super) minor: u8,
    pub(super) end: usize,
}

/// A status line's parts, and where the lines behind it begin.
pub(super) struct StatusLine {
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) minor: u8,
    pub(super) end: usize,
}

/// What a byte is in a target that begins with a slash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InTarget {
    Plain,
    /// A dot, or a per cent sign that may stand for one.
    Dot,
    Query,
    End,
    Doubtful,
}

const IN_TARGET: [InTarget; 256] = {
    let mut table = [InTarget::Doubtful; 256];
    let mut byte = 0x21;
    while byte < 0x7F {
        table[byte] = InTarget::Plain;
        byte += 1;
    }
    table[b'.' as usize] = InTarget::Dot;
    table[b'%' as usize] = InTarget::Dot;
    table[b'?' as usize] = InTarget::Query;
    table[b'#' as usize] = InTarget::Doubtful;
    table[b' ' as usize] = InTarget::End;
    table
};

/// Characters of a name: a token (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = true;
        }
        byte += 1;
    }
    table
};

/// `GET /path?query HTTP/1.1`
pub(super) fn request_line(window: &[u8]) -> Option<RequestLine> {
    let method_end = window.iter().take(16).position(|byte| !byte.is_ascii_uppercase())?;
    if method_end == 0 || window[method_end] != b' ' || window.get(method_end + 1) != Some(&b'/') {
        return None;
    }
    let start = method_end + 1;
    let (mut query, mut has_dots) = (None, false);
    let mut at = start;
    loop {
        match IN_TARGET[usize::from(*window.get(at)?)] {
            InTarget::Plain => {}
            InTarget::Dot => has_dots = true,
            InTarget::Query => query = query.or(Some(at)),
            InTarget::End => break,
            InTarget::Doubtful => return None,
        }
        at += 1;
    }
    let minor = match window.get(at..at + 11)? {
        b" HTTP/1.1\r\n" => 1,
        b" HTTP/1.0\r\n" => 0,
        _ => return None,
    };
    Some(RequestLine {
        method: Span { start: 0, end: method_end as u32 },
        target: Span { start: start as u32, end: at as u32 },
        path_len: (query.unwrap_or(at) - start) as u32,
        has_dots,
        minor,
        end: at + 11,
    })
}

/// `HTTP/1.1 200 OK`
pub(super) fn status_line(window: &[u8]) -> Option<StatusLine> {
    let minor = match window.get(..9)? {
        b"HTTP/1.1 " => 1,
        b"HTTP/1.0 " => 0,
        _ => return None,
    };
    let &[first @ b'1'..=b'9', second @ b'0'..=b'9', third @ b'0'..=b'9', b' '] = window.get(9..13)? else {
        return None;
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    let length = window[13..].iter().position(|byte| !matches!(byte, b' '..=b'~'))?;
    let end = 13 + length;
    if length == 0 || window.get(end..end + 2)? != b"\r\n" {
        return None;
    }
    Some(StatusLine {
        status: digit(first) * 100 + digit(second) * 10 + digit(third),
        reason: Span { start: 13, end: end as u32 },
        minor,
        end: end + 2,
    })
}

/// The lines from `at` to the empty one. Says where the head ends.
pub(super) fn lines(
    window: &[u8],
    mut at: usize,
    limits: &HeadLimits,
    lines: &mut Vec<Line>,
    seen: &mut Gathered,
) -> Option<usize> {
    lines.clear();
    let lines_max = limits.headers.min(HEADERS_MAX);
    loop {
        let start = at;
        at += name_end(window.get(start..)?)?;
        let name = Span { start: start as u32, end: at as u32 };
        if window[at] != b':' || at == start {
            // Not a line, so it must be the end; anything else is doubtful.
            let ends = at == start && window[at] == b'\r' && window.get(at + 1) == Some(&b'\n');
            return ends.then_some(at + 2);
        }
        let kind = classify_token(name.get(window));
        // A name we know is a token. Others are looked at.
        if kind == Kind::Other && !name.get(window).iter().all(|byte| TOKEN[usize::from(*byte)]) {
            return None;
        }
        if lines.len() == lines_max {
            return None;
        }
        at += 1;
        if window.get(at) == Some(&b' ') {
            at += 1;
        }
        let end = value_end(window, at)?;
        let text = window.get(at..end)?;
        // Space around a value is taken off with care elsewhere, and an empty value has a place of its own there.
        let (&[first, ..], &[.., last]) = (text, text) else { return None };
        if matches!(first, b' ' | b'\t') || matches!(last, b' ' | b'\t') {
            return None;
        }
        let value = Span { start: at as u32, end: end as u32 };
        at = end + 2;
        lines.push(Line { kind, name, value, end: at as u32 });
        if kind != Kind::Other {
            seen.note(kind, text, value).ok()?;
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES << 7;

/// Something if one of these eight is a control character; the lowest high bit then marks the first.
#[inline]
pub(crate) fn controls(eight: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*eight);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let flipped = word ^ (ONES * 0x7F);
    let delete = flipped.wrapping_sub(ONES) & !flipped;
    (below_space | delete) & HIGHS
}

/// The first byte that is a colon or below a space.
#[inline]
pub(crate) fn name_end(text: &[u8]) -> Option<usize> {
    let (eights, rest) = text.as_chunks::<8>();
    for (nth, eight) in eights.iter().enumerate() {
        // The lowest high bit marks the first.
        let word = u64::from_le_bytes(*eight);
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let flipped = word ^ (ONES * u64::from(b':'));
        let colon = flipped.wrapping_sub(ONES) & !flipped;
        let found = (below_space | colon) & HIGHS;
        if found != 0 {
            return Some(nth * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == b':' || *byte < 0x20).map(|at| eights.len() * 8 + at)
}

/// Where a value's CR LF is, if there is nothing else in it that is neither text nor a tab.
fn value_end(window: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let (eights, _) = window.get(at..)?.as_chunks::<8>();
        for eight in eights {
            let found = controls(eight);
            if found != 0 {
                at += found.trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match *window.get(at)? {
            b'\r' => return (window.get(at + 1) == Some(&b'\n')).then_some(at),
            b' '..=b'~' | 0x80.. | b'\t' => at += 1,
            _ => return None,
        }
    }
}

/// Where a byte is first. Lines are short, and looking at eight bytes at once needs no preparation.
#[inline]
pub(crate) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (eights, rest) = text.as_chunks::<8>();
    for (nth, eight) in eights.iter().enumerate() {
        let other = u64::from_le_bytes(*eight) ^ (ONES * u64::from(byte));
        let found = other.wrapping_sub(ONES) & !other & HIGHS;
        if found != 0 {
            return Some(nth * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|other| *other == byte).map(|at| eights.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::super::head::{parse_request, parse_request_slowly, parse_response, parse_response_slowly};
    use super::super::message::{Method, Progress, RequestHead, ResponseHead};
    use super::*;
    use proptest::prelude::*;

    /// Both readings of one message: the same head, or the same refusal.
    fn check_request(text: &[u8], limits: &HeadLimits) -> Result<(), TestCaseError> {
        let (mut quick, mut slow) = (RequestHead::default(), RequestHead::default());
        let read = parse_request(text, limits, &mut quick);
        prop_assert_eq!(read, parse_request_slowly(text, limits, &mut slow));
        if read == Ok(Progress::Complete) {
            prop_assert_eq!(quick, slow);
        }
        Ok(())
    }

    fn check_response(text: &[u8], limits: &HeadLimits) -> Result<(), TestCaseError> {
        let (mut quick, mut slow) = (ResponseHead::default(), ResponseHead::default());
        let read = parse_response(text, limits, Method::Get, &mut quick);
        prop_assert_eq!(read, parse_response_slowly(text, limits, Method::Get, &mut slow));
        if read == Ok(Progress::Complete) {
            prop_assert_eq!(quick, slow);
        }
        Ok(())
    }

    fn is_quick(text: &str) -> bool {
        let mut seen = Gathered::default();
        let start = match text.starts_with("HTTP") {
            true => status_line(text.as_bytes()).map(|line| line.end),
            false => request_line(text.as_bytes()).map(|line| line.end),
        };
        let limits = HeadLimits::default();
        start.and_then(|at| lines(text.as_bytes(), at, &limits, &mut Vec::new(), &mut seen)).is_some()
    }

    #[test]
    fn what_everybody_sends_takes_the_shortcut() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a/b?c=d#e HTTP/1.0\r\n\r\n".replace('#', "&").as_str(),
            "GET /a.html HTTP/1.1\r\nhost: a:1\r\nAccept: */*\r\nX-Tab: a\tb\r\nX-Latin: \u{e9}\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n",
        ] {
            assert!(is_quick(text), "{text:?}");
        }
        for text in [
            "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\u{7f}\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
        ] {
            assert!(!is_quick(text), "{text:?}");
        }
    }

    /// Pieces of heads, good and bad, so that random heads are often nearly right.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let words: &[&[u8]] = &[
            b"\r\n",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b": ",
            b": ",
            b":",
            b"\t",
            b"\0",
            b"\x7f",
            b"\x80",
            b"host",
            b"Host: a\r\n",
            b"Content-Length: 5\r\n",
            b"content-length",
            b"Transfer-Encoding: chunked\r\n",
            b"5",
            b"Connection: close\r\n",
            b"connection: x-a\r\n",
            b"X-A: b\r\n",
            b"x-a",
            b"TE: trailers\r\n",
            b"a b",
            b"/",
            b".",
            b"%2e",
            b"?",
            b"#",
            b"Expect: 100-continue\r\n",
            b"Upgrade: websocket\r\n",
            b"Keep-Alive: timeout=5\r\n",
            b"12345678",
            b"abcdefgh\xe9",
            b"_",
            b"",
        ];
        prop_oneof![
            8 => proptest::sample::select(words).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 1..3),
        ]
    }

    fn head(first: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
        let pieces = proptest::collection::vec(piece(), 0..12);
        (proptest::sample::select(first), pieces, any::<bool>()).prop_map(|(first, pieces, ends)| {
            let end: &[u8] = if ends { b"\r\n\r\n" } else { b"" };
            [first, &pieces.concat(), end].concat()
        })
    }

    const REQUEST_LINES: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n",
        b"POST /a?b HTTP/1.0\r\n",
        b"GET /",
        b"PUT http://a/b HTTP/1.1\r\nhost: c\r\n",
        b"get /a/./b HTTP/1.1\r\nhost: c\r\n",
        b"",
    ];
    const STATUS_LINES: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 404 \r\n",
        b"HTTP/1.1 204\r\n",
        b"HTTP/1.1 101 A\xe9\r\n",
        b"HTTP/1.1 ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn the_shortcut_reads_requests_as_the_long_way_does(
            text in head(REQUEST_LINES), headers in 0usize..6, bytes in 20usize..200, target_bytes in 1usize..20,
        ) {
            check_request(&text, &HeadLimits::default())?;
            check_request(&text, &HeadLimits { bytes, target_bytes, headers })?;
        }

        #[test]
        fn a_byte_is_found_where_it_is(text in "[a\n\u{b}\u{10a}]{0,30}") {
            prop_assert_eq!(find(b'\n', text.as_bytes()), text.bytes().position(|byte| byte == b'\n'));
        }

        #[test]
        fn the_shortcut_reads_replies_as_the_long_way_does(
            text in head(STATUS_LINES), headers in 0usize..6, bytes in 20usize..200,
        ) {
            check_response(&text, &HeadLimits::default())?;
            check_response(&text, &HeadLimits { bytes, headers, ..HeadLimits::default() })?;
        }
    }
}
