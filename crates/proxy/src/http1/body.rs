//! Where a body ends, one piece of bytes at a time.
//!
//! The reader never holds bytes: it is shown what arrived and says how many of them it consumed and which of those are
//! the body. However the bytes were cut up on their way, the answers add up to the same body; a property test holds it
//! to that. Chunk sizes are plain hexadecimal digits, extensions must be well-formed and are dropped, and everything
//! else is refused, because a chunk header that two readers understand differently is a smuggled request.

use super::message::Framing;
use super::names::{Kind, classify};
use super::refusal::Refusal;
use std::ops::Range;

/// Longer chunk headers are attacks: sixteen digits and a few words of extension fit easily.
const CHUNK_HEADER_MAX: u16 = 256;

/// A trailer is some checksums and a status, not a second head.
pub const TRAILER_BYTES_MAX: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    /// Digits seen so far and their value.
    Size(u8, u64),
    /// Inside a chunk extension, after the size.
    Extension(Extension, u64),
    SizeLineFeed(u64),
    Data(u64),
    DataReturn,
    DataLineFeed,
    Trailer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
}

/// Finds the end of one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyReader {
    state: State,
    header_bytes: u16,
}

/// What one look at the bytes gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes that are dealt with: body and framing.
    pub consumed: usize,
    /// Which of them are the body.
    pub data: Range<usize>,
    /// Which of them are trailer lines, each with its line end. Only ever together with `done`.
    pub trailer: Range<usize>,
    pub done: bool,
}

impl BodyReader {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(0, 0),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, header_bytes: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of body still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The peer closed its side: is that the end of the body, or the loss of the rest?
    pub fn end_of_stream(&mut self) -> bool {
        let complete = matches!(self.state, State::Done | State::UntilClose);
        if complete {
            self.state = State::Done;
        }
        complete
    }

    /// Looks at bytes that follow those consumed before, up to the first piece of body in them. Call again with the
    /// rest until nothing is consumed.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return Ok(Step { consumed: at, data: at..at, trailer: at..at, done: true }),
                State::UntilClose => {
                    let end = input.len();
                    return Ok(Step { consumed: end, data: at..end, trailer: end..end, done: false });
                }
                State::Length(left) => {
                    let take = left.min((input.len() - at) as u64) as usize;
                    let left = left - take as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    let end = at + take;
                    return Ok(Step { consumed: end, data: at..end, trailer: end..end, done: left == 0 });
                }
                State::Data(left) if at < input.len() => {
                    let take = left.min((input.len() - at) as u64) as usize;
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data(left) };
                    let data = at..at + take;
                    // The line end after a chunk is consumed together with it where it is here already, so that a
                    // body whose bytes have all arrived is known to be complete.
                    return self.after_data(input, data);
                }
                State::Trailer => return self.trailer(input, at),
                _ => {
                    let Some(byte) = input.get(at) else {
                        return Ok(Step { consumed: at, data: at..at, trailer: at..at, done: false });
                    };
                    self.framing_byte(*byte)?;
                    at += 1;
                }
            }
        }
    }

    fn after_data(&mut self, input: &[u8], data: Range<usize>) -> Result<Step, Refusal> {
        let mut at = data.end;
        loop {
            match self.state {
                State::Data(_) | State::Done => break,
                State::Trailer => {
                    let step = self.trailer(input, at)?;
                    return Ok(Step { data, ..step });
                }
                _ => {}
            }
            let Some(byte) = input.get(at) else { break };
            self.framing_byte(*byte)?;
            at += 1;
        }
        Ok(Step { consumed: at, data, trailer: at..at, done: false })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        self.header_bytes += 1;
        if self.header_bytes > CHUNK_HEADER_MAX {
            return Err(Refusal::ChunkSyntax);
        }
        let next = match (self.state, byte) {
            (State::Size(digits, size), _) if byte.is_ascii_hexdigit() => {
                // Fifteen digits leave room for no overflow and are a thousand times a petabyte.
                if digits == 15 {
                    return Err(Refusal::ChunkSyntax);
                }
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                State::Size(digits + 1, size << 4 | digit)
            }
            (State::Size(1.., size), b'\r') => State::SizeLineFeed(size),
            (State::Size(1.., size), b';') => State::Extension(Extension::NameStart, size),
            (State::Extension(extension, size), _) => match extension.next(byte) {
                Some(next) => State::Extension(next, size),
                None if byte == b'\r' && extension.may_end() => State::SizeLineFeed(size),
                None => return Err(Refusal::ChunkSyntax),
            },
            (State::SizeLineFeed(size), b'\n') => {
                self.header_bytes = 0;
                if size == 0 { State::Trailer } else { State::Data(size) }
            }
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                self.header_bytes = 0;
                State::Size(0, 0)
            }
            _ => return Err(Refusal::ChunkSyntax),
        };
        self.state = next;
        Ok(())
    }

    /// The trailer is taken whole, so that nobody sees half of it.
    fn trailer(&mut self, input: &[u8], at: usize) -> Result<Step, Refusal> {
        let rest = &input[at..];
        if rest.starts_with(b"\r\n") {
            self.state = State::Done;
            let end = at + 2;
            return Ok(Step { consumed: end, data: at..at, trailer: at..at, done: true });
        }
        let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
            if rest.len() > TRAILER_BYTES_MAX {
                return Err(Refusal::TrailerTooLong);
            }
            if memchr::memchr_iter(b'\n', rest).any(|lf| lf == 0 || rest[lf - 1] != b'\r') {
                return Err(Refusal::TrailerSyntax);
            }
            return Ok(Step { consumed: at, data: at..at, trailer: at..at, done: false });
        };
        if end > TRAILER_BYTES_MAX {
            return Err(Refusal::TrailerTooLong);
        }
        check_trailer(&rest[..end + 4])?;
        self.state = State::Done;
        Ok(Step { consumed: at + end + 4, data: at..at, trailer: at..at + end + 2, done: true })
    }
}

/// Lines that may stand in a trailer, and nothing else.
fn check_trailer(block: &[u8]) -> Result<(), Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    if memchr::memchr_iter(b'\n', block).any(|lf| lf == 0 || block[lf - 1] != b'\r') {
        return Err(Refusal::TrailerSyntax);
    }
    match httparse::parse_headers(block, &mut headers) {
        Ok(httparse::Status::Complete((len, headers))) if len == block.len() => {
            let forbidden = |kind: Kind| kind.is_hop_by_hop() || !kind.may_trail();
            if headers.iter().any(|header| forbidden(classify(header.name.as_bytes()))) {
                return Err(Refusal::TrailerSyntax);
            }
            Ok(())
        }
        _ => Err(Refusal::TrailerSyntax),
    }
}

impl Extension {
    fn next(self, byte: u8) -> Option<Self> {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let text = byte == b'\t' || (0x20..0x7F).contains(&byte) || byte >= 0x80;
        match (self, byte) {
            (Self::NameStart | Self::Name, _) if token => Some(Self::Name),
            (Self::Name, b'=') => Some(Self::ValueStart),
            (Self::ValueStart, b'"') => Some(Self::Quoted),
            (Self::ValueStart | Self::Value, _) if token => Some(Self::Value),
            (Self::Name | Self::Value | Self::AfterQuoted, b';') => Some(Self::NameStart),
            (Self::Quoted, b'"') => Some(Self::AfterQuoted),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::Quoted | Self::Escaped, _) if text => Some(Self::Quoted),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::AfterQuoted)
    }
}

/// Writes one chunk: size, data, line end.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    write_chunk_head(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

pub fn write_chunk_head(out: &mut Vec<u8>, len: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(HEX[len >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a whole body that arrives in the given pieces; the rest is what follows it.
    fn read(
        framing: Framing,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, Vec<u8>, bool, usize), Refusal> {
        let mut reader = BodyReader::new(framing);
        let (mut body, mut trailer, mut done) = (Vec::new(), Vec::new(), reader.is_done());
        let mut start = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        for end in ends {
            while !done {
                let step = reader.step(&bytes[start..end])?;
                body.extend_from_slice(&bytes[start..end][step.data.clone()]);
                trailer.extend_from_slice(&bytes[start..end][step.trailer.clone()]);
                start += step.consumed;
                done = step.done;
                if step.consumed == 0 {
                    break;
                }
            }
        }
        Ok((body, trailer, done, start))
    }

    #[track_caller]
    fn check(bytes: &str, expected: Result<(&str, &str, &str), Refusal>) {
        let whole = read(Framing::Chunked, bytes.as_bytes(), &[]);
        let every: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(whole, read(Framing::Chunked, bytes.as_bytes(), &every), "one byte at a time: {bytes:?}");
        match (whole, expected) {
            (Ok((body, trailer, true, end)), Ok((wanted, wanted_trailer, rest))) => {
                assert_eq!(String::from_utf8_lossy(&body), wanted, "{bytes:?}");
                assert_eq!(String::from_utf8_lossy(&trailer), wanted_trailer, "{bytes:?}");
                assert_eq!(&bytes[end..], rest, "{bytes:?}");
            }
            (Err(refusal), Err(expected)) => assert_eq!(refusal, expected, "{bytes:?}"),
            (got, _) => panic!("{bytes:?}: {got:?}"),
        }
    }

    #[test]
    fn chunked_bodies_are_read_strictly() {
        check("5\r\nhello\r\n0\r\n\r\nGET", Ok(("hello", "", "GET")));
        check("A\r\n0123456789\r\n00\r\n\r\n", Ok(("0123456789", "", "")));
        check("0\r\nx-sum: 1\r\nb: c\r\n\r\nrest", Ok(("", "x-sum: 1\r\nb: c\r\n", "rest")));
        check("1;a=b;c;d=\"e \\\" f\"\r\nx\r\n0;z\r\n\r\n", Ok(("x", "", "")));
        for bad in [
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello",
            "0x5\r\nhello",
            "+5\r\nhello",
            "-5\r\n",
            "\r\n",
            ";a\r\n",
            "5;\r\n",
            "5;=b\r\n",
            "5;a=\r\n",
            "5;a b\r\n",
            "5\nhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r0",
            "1000000000000000\r\n",
            "g\r\n",
            "5;a=\"\u{1}\"\r\n",
            "5\rhello",
            "0\r\r\n",
        ] {
            check(bad, Err(Refusal::ChunkSyntax));
        }
        check("0\r\ncontent-length: 5\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\nx: y\r\nisobar-version: 2\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\nhost: evil\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\nbad line\r\n\r\n", Err(Refusal::TrailerSyntax));
        check("0\r\na: b\nc: d\r\n\r\n", Err(Refusal::TrailerSyntax));
        check(&format!("0\r\na: {}\r\n\r\n", "x".repeat(5_000)), Err(Refusal::TrailerTooLong));
        check(&format!("1;{}\r\n", "x".repeat(300)), Err(Refusal::ChunkSyntax));
    }

    proptest! {
        /// A body written in chunks reads back, however the bytes are cut, and the reader stops exactly at its end.
        #[test]
        fn any_split_reads_the_same(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            pieces.iter().for_each(|piece| write_chunk(&mut bytes, piece));
            bytes.extend_from_slice(b"0\r\n\r\n");
            let end = bytes.len();
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let (body, trailer, done, stopped) = read(Framing::Chunked, &bytes, &cuts).expect("well-formed");
            prop_assert!(done && trailer.is_empty());
            prop_assert_eq!(stopped, end);
            prop_assert_eq!(body, pieces.concat());
        }

        /// Garbage, too, is refused or read alike, however it is cut.
        #[test]
        fn any_split_of_garbage_agrees(bytes in "[0-9a-f;=\"x \r\n]{0,40}", cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
            let whole = read(Framing::Chunked, bytes.as_bytes(), &[]);
            let split = read(Framing::Chunked, bytes.as_bytes(), &cuts);
            match (whole, split) {
                (Ok(whole), Ok(split)) => prop_assert_eq!(whole, split),
                (whole, split) => prop_assert_eq!(whole.is_err(), split.is_err()),
            }
        }

        #[test]
        fn lengths_split_alike(body in proptest::collection::vec(any::<u8>(), 0..60), extra in 0usize..9, cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
            let mut bytes = body.clone();
            bytes.extend(std::iter::repeat_n(b'!', extra));
            let (read_body, _, done, end) = read(Framing::Length(body.len() as u64), &bytes, &cuts).expect("lengths are never wrong");
            prop_assert!(done);
            prop_assert_eq!(end, body.len());
            prop_assert_eq!(read_body, body);
        }
    }
}
