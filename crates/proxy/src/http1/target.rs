//! Who is asked, and for what: the request's target and its host. What two readers would resolve differently is refused.

use super::message::{Method, RequestHead, Span};
use super::refusal::Refusal;

/// The target's authority and the `Host` line's are the same, whether or not they name the port that the target's scheme
/// means anyway.
pub(super) fn is_same_host(of_target: Span, of_line: Span, window: &[u8]) -> bool {
    const HTTPS: &[u8] = b"https://";
    let before = &window[..of_target.start as usize];
    let scheme = &before[before.len().saturating_sub(HTTPS.len())..];
    let port: &[u8] = if scheme.eq_ignore_ascii_case(HTTPS) { b":443" } else { b":80" };
    let bare = |span: Span| {
        let host = span.get(window);
        host.strip_suffix(port).unwrap_or(host)
    };
    bare(of_target).eq_ignore_ascii_case(bare(of_line))
}

/// The part of the target that is sent on. An absolute target's authority becomes the host (RFC 9112, 3.2.2).
pub(super) fn target(span: Span, window: &[u8], head: &mut RequestHead) -> Result<Span, Refusal> {
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
            let with_path = text.get(authority_end) == Some(&b'/');
            // No path means the root, or with OPTIONS the server as a whole. What is sent on are bytes of the buffer, and a
            // query without a path, or the server as a whole, is not written there: nobody sends either.
            let root = authority_end == text.len() && head.method != Method::Options;
            if authority_end == scheme || !with_path && !root {
                return Err(Refusal::TargetSyntax);
            }
            head.host = Span { start: span.start + scheme as u32, end: span.start + authority_end as u32 };
            if with_path {
                path.start += authority_end as u32;
            } else {
                // The last slash of `http://`.
                path = Span { start: head.host.start - 1, end: head.host.start };
            }
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
pub(super) fn host_is_valid(host: &[u8]) -> bool {
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
