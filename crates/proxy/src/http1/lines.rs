//! The header lines that mean something to us, gathered in one pass: whoever asks about one of them twice gets one answer.

use super::message::{Line, Span};
use super::names::{Kind, classify};
use super::refusal::Refusal;

/// What the header lines say about the connection and the body, gathered in one pass.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade_token: bool,
    pub(super) upgrade_to: Option<Span>,
    pub(super) te_token: bool,
    pub(super) trailers: bool,
    pub(super) nominated: bool,
    pub(super) hosts: u32,
    pub(super) host: Span,
    pub(super) expect: Option<bool>,
    pub(super) keep_alive_secs: Option<u32>,
    pub(super) kinds: u64,
}

/// Takes in the lines as httparse found them.
pub(super) fn gather(
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
pub(super) fn nominate(lines: &mut [Line], window: &[u8]) -> Result<(), Refusal> {
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
