//! The smallest picture of an HTTP exchange: what a door needs to answer, and nothing of how bytes arrive.
//!
//! `control` reads sockets and calls `handle(&Request) -> Response`; tests call the same function with literals. Bodies
//! come whole, because every format here is a document. The reader must stop at [`Limits::body_bytes`] plus one byte:
//! what is longer is refused by length, not by running out of memory.

use std::borrow::Cow;
use std::io::Read;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What follows `?`, undecoded; empty when there is none.
    pub query: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn get(target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { method: "GET", path, query, headers: &[], body: &[] }
    }

    pub fn post(path: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Self {
        Self { method: "POST", path, query: "", headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The media type, without parameters and in lower case.
    pub fn content_type(&self) -> Cow<'a, str> {
        let value = self.header("content-type").unwrap_or("");
        let value = value.split(';').next().unwrap_or("").trim();
        if value.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(value.to_ascii_lowercase())
        } else {
            Cow::Borrowed(value)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Vec<u8>,
}

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("content-type", content_type.into())], body: body.into() }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(body: Vec<u8>) -> Self {
        Self::new(200, JSON, body)
    }

    pub fn text(status: u16, message: impl Into<String>) -> Self {
        Self::new(status, TEXT, message.into().into_bytes())
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// What a body may weigh.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After decompression: the only number that bounds memory.
    pub body_bytes: usize,
}

impl Default for Limits {
    /// What OTLP recommends.
    fn default() -> Self {
        Self { body_bytes: 64 << 20 }
    }
}

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {0} bytes after decompression")]
    TooLarge(usize),
    #[error("the body is not gzip: {0}")]
    BadGzip(String),
    #[error("the body is gzip, and no content-encoding says so")]
    UnsaidGzip,
    #[error("content encoding `{0}` is not spoken here; send gzip or none")]
    UnknownEncoding(String),
}

impl BodyError {
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::BadGzip(_) | Self::UnsaidGzip => 400,
            Self::UnknownEncoding(_) => 415,
        }
    }
}

/// The body as its sender wrote it, decompressed if it says so.
pub fn body<'a>(request: &Request<'a>, limits: Limits) -> Result<Cow<'a, [u8]>, BodyError> {
    let too_large = BodyError::TooLarge(limits.body_bytes);
    if request.body.len() > limits.body_bytes {
        return Err(too_large);
    }
    // Encodings may be listed in one header or in several, and mean the same.
    let said = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let said: Vec<String> = said.map(|(_, value)| value.to_ascii_lowercase()).collect();
    match Some(said.join(", ")).filter(|_| !said.is_empty()).as_deref() {
        // Neither JSON nor a protobuf message begins so.
        None | Some("" | "identity" | "none") if request.body.starts_with(&[0x1f, 0x8b]) => {
            Err(BodyError::UnsaidGzip)
        }
        None | Some("" | "identity" | "none") => Ok(Cow::Borrowed(request.body)),
        // An empty body is an empty message however it claims to be packed.
        Some("gzip" | "x-gzip") if request.body.is_empty() => Ok(Cow::Borrowed(request.body)),
        Some("gzip" | "x-gzip") => gunzip(request.body, limits.body_bytes).map(Cow::Owned),
        Some(other) => Err(BodyError::UnknownEncoding(other.chars().take(40).collect())),
    }
}

/// Decompresses at most `limit` bytes. A bomb costs `limit` plus one byte, not what it would like to.
pub fn gunzip(bytes: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    // Text packs about tenfold; starting there avoids most regrowth without trusting the length in the trailer.
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(4).min(limit));
    let mut reader = flate2::bufread::MultiGzDecoder::new(bytes).take(limit as u64 + 1);
    reader.read_to_end(&mut out).map_err(|error| BodyError::BadGzip(error.to_string()))?;
    if out.len() > limit { Err(BodyError::TooLarge(limit)) } else { Ok(out) }
}

/// A query string's parameters, decoded. The first of a repeated name counts.
#[derive(Clone, Debug, Default)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

/// More parameters than any door has; the rest of a hostile query is not looked at.
const PARAMETERS_MAX: usize = 64;

impl Query {
    pub fn parse(query: &str) -> Self {
        let parameters = query
            .split('&')
            .filter(|part| !part.is_empty())
            .take(PARAMETERS_MAX)
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (percent_decode(name), percent_decode(value)))
            .collect();
        Self { parameters }
    }

    /// An empty value counts as absent: forms send every field they have.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// `%41` and `+`; a broken escape stays as it was typed.
pub fn percent_decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' => {
                bytes.get(at + 1..at + 3).and_then(|digits| crate::ids::hex(digits, crate::ids::Case::Any))
            }
            _ => None,
        };
        match (bytes[at], escaped) {
            (_, Some(value)) => {
                out.push(value as u8);
                at += 3;
            }
            (b'+', None) => {
                out.push(b' ');
                at += 1;
            }
            (byte, None) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_bounded_after_decompression() {
        let limits = Limits { body_bytes: 1000 };
        let read = |encoding: &str, bytes: &[u8]| {
            body(&Request::post("/", &[("Content-Encoding", encoding)], bytes), limits).map(Cow::into_owned)
        };
        let zeros = |n: usize| vec![0u8; n];
        assert_eq!(read("identity", &zeros(1000)), Ok(zeros(1000)));
        assert_eq!(read("identity", &zeros(1001)), Err(BodyError::TooLarge(1000)));
        assert_eq!(read("gzip", &gzip(&zeros(1000))), Ok(zeros(1000)));
        let bomb = gzip(&zeros(100_000));
        assert!(bomb.len() < 1000, "{}", bomb.len());
        assert_eq!(read("gzip", &bomb), Err(BodyError::TooLarge(1000)));
        assert!(matches!(read("gzip", b"not gzip"), Err(BodyError::BadGzip(_))));
        let cut = &gzip(&zeros(1000))[..12];
        assert!(matches!(read("gzip", cut), Err(BodyError::BadGzip(_))));
        assert!(matches!(read("br", b"x"), Err(BodyError::UnknownEncoding(_))));
        assert_eq!(read("identity", &gzip(b"x")), Err(BodyError::UnsaidGzip));
        let twice = [("content-encoding", "gzip"), ("Content-Encoding", "br")];
        let twice = body(&Request::post("/", &twice, b"x"), limits);
        assert_eq!(twice, Err(BodyError::UnknownEncoding("gzip, br".into())));
        assert_eq!(read("gzip", b""), Ok(vec![]));
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("a=b+c&b=%3D%2f&c=%zz&d&=x&e=&a=second&f=%C3%A9%ff");
        assert_eq!(query.get("a"), Some("b c"));
        assert_eq!(query.get("b"), Some("=/"));
        assert_eq!(query.get("c"), Some("%zz"));
        assert_eq!(query.get("d"), None);
        assert_eq!(query.get("e"), None);
        assert_eq!(query.get("f"), Some("é\u{fffd}"));
    }
}
