//! Trace and span ids, and the hexadecimal they travel in.
//!
//! Both are non-zero integers: zero means "absent" in every format we speak, so a type that cannot hold it removes a
//! check from every reader. A trace id whose high half is zero *is* a 64-bit id: Zipkin and B3 write it with 16
//! characters, W3C and OTLP pad it to 32, and both name the same trace.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// A trace: 128 bits, or 64 when the high half is zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

/// A span within its trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

/// Why text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("is empty")]
    Empty,
    #[error("has {0} characters, at most {1} fit")]
    TooLong(usize, usize),
    #[error("has a character that is not lower-case hex")]
    NotLowerHex,
    #[error("is all zeros")]
    Zero,
}

/// Which letters a format takes for the digits above nine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Lower,
    Any,
}

const BAD: u8 = 0xff;

/// 256 answers instead of six comparisons: ids are most of what a span reader reads.
const DIGITS: [u8; 256] = {
    let mut table = [BAD; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            digit @ b'0'..=b'9' => digit - b'0',
            lower @ b'a'..=b'f' => lower - b'a' + 10,
            // Marked with a high bit so that a strict reader can tell; see `hex`.
            upper @ b'A'..=b'F' => (upper - b'A' + 10) | 0x40,
            _ => BAD,
        };
        byte += 1;
    }
    table
};

/// The value of up to 32 hex digits; `None` if one is no digit (or is upper case where that is not taken).
pub(crate) fn hex(text: &[u8], case: Case) -> Option<u128> {
    let mut value = 0u128;
    for &byte in text {
        let digit = DIGITS[byte as usize];
        if digit & 0x80 != 0 || (digit & 0x40 != 0 && case == Case::Lower) {
            return None;
        }
        value = value << 4 | u128::from(digit & 0x0f);
    }
    Some(value)
}

fn parse(text: &str, longest: usize) -> Result<u128, IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        long if long > longest => Err(IdError::TooLong(long, longest)),
        _ => hex(text.as_bytes(), Case::Lower).ok_or(IdError::NotLowerHex),
    }
}

impl TraceId {
    pub const fn new(id: u128) -> Option<Self> {
        match NonZeroU128::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    pub const fn get(self) -> u128 {
        self.0.get()
    }

    /// The half that dependency links and lenient look-ups compare.
    pub const fn low(self) -> u64 {
        self.0.get() as u64
    }

    /// Zipkin's rule: 1 to 32 lower-case digits; leading zeros carry no meaning.
    pub fn from_zipkin(text: &str) -> Result<Self, IdError> {
        Self::new(parse(text, 32)?).ok_or(IdError::Zero)
    }

    /// The shortest form Zipkin writes: 16 digits when they suffice, else 32.
    pub fn zipkin(self) -> ZipkinTraceId {
        ZipkinTraceId(self)
    }

    /// OTLP: 32 digits of either case, or exactly 16 bytes.
    pub fn from_otlp_hex(text: &str) -> Option<Self> {
        if text.len() != 32 { None } else { hex(text.as_bytes(), Case::Any).and_then(Self::new) }
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            16 => Self::new(u128::from_be_bytes(bytes.try_into().ok()?)),
            8 => Self::new(u128::from(u64::from_be_bytes(bytes.try_into().ok()?))),
            _ => None,
        }
    }
}

impl SpanId {
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// Zipkin's rule: 1 to 16 lower-case digits.
    pub fn from_zipkin(text: &str) -> Result<Self, IdError> {
        Self::new(parse(text, 16)? as u64).ok_or(IdError::Zero)
    }

    pub fn from_otlp_hex(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        hex(text.as_bytes(), Case::Any).and_then(|id| Self::new(id as u64))
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::new(u64::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// Always 32 digits: the form of W3C and OTLP.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.zipkin(), f)
    }
}

/// [`TraceId::zipkin`].
#[derive(Clone, Copy, Debug)]
pub struct ZipkinTraceId(TraceId);

impl fmt::Display for ZipkinTraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.get() >> 64 == 0 {
            write!(f, "{:016x}", self.0.get())
        } else {
            write!(f, "{:032x}", self.0.get())
        }
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const DIGIT_TEXT: &[u8; 16] = b"0123456789abcdef";

/// Fills `out` with the lowest `out.len()` hex digits of `value`. `format!` costs ten times as much, and every span
/// written carries three ids.
pub(crate) fn write_hex(out: &mut [u8], mut value: u128) {
    for place in out.iter_mut().rev() {
        *place = DIGIT_TEXT[value as usize & 0x0f];
        value >>= 4;
    }
}

pub(crate) fn push_hex(out: &mut Vec<u8>, value: u128, digits: usize) {
    let start = out.len();
    out.resize(start + digits, 0);
    write_hex(&mut out[start..], value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_trace(text: &str, expected: Result<&str, IdError>) {
        assert_eq!(
            TraceId::from_zipkin(text).map(|id| id.zipkin().to_string()),
            expected.map(str::to_owned),
            "{text:?}"
        );
    }

    #[test]
    fn trace_ids_are_normalised_as_zipkin_does() {
        check_trace("1", Ok("0000000000000001"));
        check_trace("463ac35c9f6413ad", Ok("463ac35c9f6413ad"));
        check_trace("0000000000000000463ac35c9f6413ad", Ok("463ac35c9f6413ad"));
        check_trace("1463ac35c9f6413ad", Ok("0000000000000001463ac35c9f6413ad"));
        check_trace("48485a3953bb61246b221d5bc9e6496c", Ok("48485a3953bb61246b221d5bc9e6496c"));
        check_trace("", Err(IdError::Empty));
        check_trace("0", Err(IdError::Zero));
        check_trace("00000000000000000000000000000000", Err(IdError::Zero));
        check_trace("ABC", Err(IdError::NotLowerHex));
        check_trace("12g", Err(IdError::NotLowerHex));
        check_trace("48485a3953bb61246b221d5bc9e6496c0", Err(IdError::TooLong(33, 32)));
    }

    #[test]
    fn otlp_ids_take_either_case_and_one_length() {
        let id = "4BF92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            TraceId::from_otlp_hex(id).map(|id| id.to_string()),
            Some("4bf92f3577b34da6a3ce929d0e0e4736".into())
        );
        assert_eq!(TraceId::from_otlp_hex(&id[1..]), None);
        assert_eq!(TraceId::from_otlp_hex(&"0".repeat(32)), None);
        assert_eq!(SpanId::from_otlp_hex("00F067aa0ba902b7").map(SpanId::get), Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(SpanId::from_otlp_hex("00f067aa0ba902bg"), None);
    }

    proptest::proptest! {
        #[test]
        fn ids_survive_their_text(trace in 1u128.., span in 1u64..) {
            let (trace, span) = (TraceId::new(trace).unwrap(), SpanId::new(span).unwrap());
            proptest::prop_assert_eq!(TraceId::from_zipkin(&trace.zipkin().to_string()), Ok(trace));
            proptest::prop_assert_eq!(TraceId::from_otlp_hex(&trace.to_string()), Some(trace));
            proptest::prop_assert_eq!(TraceId::from_bytes(&trace.get().to_be_bytes()), Some(trace));
            proptest::prop_assert_eq!(SpanId::from_zipkin(&span.to_string()), Ok(span));
            let mut text = Vec::new();
            push_hex(&mut text, trace.get(), 32);
            proptest::prop_assert_eq!(String::from_utf8(text).unwrap(), trace.to_string());
        }
    }
}
