//! Frames of HTTP/2 (RFC 9113, section 4 and 6) as bytes: nine of a head, and what follows.

pub(super) const HEAD: usize = 9;

/// What we accept in one frame, which is what the standard begins with and nobody needs more than.
pub(super) const PAYLOAD_MAX: usize = 16_384;

pub(super) mod kind {
    pub(in crate::h2) const DATA: u8 = 0;
    pub(in crate::h2) const HEADERS: u8 = 1;
    pub(in crate::h2) const PRIORITY: u8 = 2;
    pub(in crate::h2) const RST_STREAM: u8 = 3;
    pub(in crate::h2) const SETTINGS: u8 = 4;
    pub(in crate::h2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::h2) const PING: u8 = 6;
    pub(in crate::h2) const GOAWAY: u8 = 7;
    pub(in crate::h2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::h2) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    /// On SETTINGS and PING.
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in crate::h2) const ENABLE_PUSH: u16 = 2;
    pub(in crate::h2) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::h2) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::h2) const MAX_FRAME_SIZE: u16 = 5;
    pub(in crate::h2) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ended (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INTERNAL_ERROR: Self = Self(2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.first_chunk()?;
        Some(Self {
            len: usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]),
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & 0x7FFF_FFFF,
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn head(len: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let (len, id) = ((len as u32).to_be_bytes(), stream.to_be_bytes());
    [len[1], len[2], len[3], kind, flags, id[0], id[1], id[2], id[3]]
}

pub(super) fn write_head(len: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(len, kind, flags, stream));
}

pub(super) fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    write_head(settings.len() * 6, kind::SETTINGS, 0, 0, out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn write_window_update(stream: u32, by: u32, out: &mut Vec<u8>) {
    write_head(4, kind::WINDOW_UPDATE, 0, stream, out);
    out.extend_from_slice(&by.to_be_bytes());
}

pub(super) fn write_reset(stream: u32, reason: Reason, out: &mut Vec<u8>) {
    write_head(4, kind::RST_STREAM, 0, stream, out);
    out.extend_from_slice(&reason.0.to_be_bytes());
}

pub(super) fn write_goaway(last: u32, reason: Reason, out: &mut Vec<u8>) {
    write_head(8, kind::GOAWAY, 0, 0, out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

pub(super) fn write_ping(ack: bool, payload: &[u8], out: &mut Vec<u8>) {
    write_head(8, kind::PING, if ack { flag::ACK } else { 0 }, 0, out);
    out.extend_from_slice(payload);
}

/// What is left of a payload without its padding and, on HEADERS, without the priority nobody uses any more. `None` if
/// there is more padding than payload.
pub(super) fn unpadded<'p>(head: &Head, mut payload: &'p [u8]) -> Option<&'p [u8]> {
    let mut padding = 0;
    if head.has(flag::PADDED) {
        let (first, rest) = payload.split_first()?;
        padding = usize::from(*first);
        payload = rest;
    }
    if head.kind == kind::HEADERS && head.has(flag::PRIORITY) {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

/// The frames around a header block, which is behind `start` already with room for one frame's head before it. Blocks
/// longer than a frame are cut up.
pub(super) fn close_block(start: usize, stream: u32, end: bool, out: &mut Vec<u8>) {
    let len = out.len() - start - HEAD;
    let end_stream = if end { flag::END_STREAM } else { 0 };
    if len <= PAYLOAD_MAX {
        let only = head(len, kind::HEADERS, end_stream | flag::END_HEADERS, stream);
        return out[start..start + HEAD].copy_from_slice(&only);
    }
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let last = block.len().div_ceil(PAYLOAD_MAX) - 1;
    for (at, piece) in block.chunks(PAYLOAD_MAX).enumerate() {
        let done = if at == last { flag::END_HEADERS } else { 0 };
        match at {
            0 => write_head(piece.len(), kind::HEADERS, end_stream, stream, out),
            _ => write_head(piece.len(), kind::CONTINUATION, done, stream, out),
        }
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_into_frames_that_add_up() {
        for len in [0, 1, PAYLOAD_MAX, PAYLOAD_MAX + 1, 2 * PAYLOAD_MAX, 3 * PAYLOAD_MAX + 7] {
            let mut out = b"before".to_vec();
            out.resize(6 + HEAD, 0);
            out.extend((0..len).map(|at| at as u8));
            close_block(6, 5, true, &mut out);
            let (mut at, mut block, mut kinds) = (6, Vec::new(), Vec::new());
            while at < out.len() {
                let head = Head::read(&out[at..]).expect("a head");
                assert_eq!(head.stream, 5);
                block.extend_from_slice(&out[at + HEAD..at + HEAD + head.len]);
                at += HEAD + head.len;
                kinds.push((head.kind, head.flags));
            }
            assert_eq!(block, (0..len).map(|at| at as u8).collect::<Vec<u8>>(), "{len}");
            assert!(kinds[0].0 == kind::HEADERS && kinds[0].1 & flag::END_STREAM != 0);
            assert_eq!(kinds.iter().filter(|(_, flags)| flags & flag::END_HEADERS != 0).count(), 1);
            assert!(kinds.last().expect("one").1 & flag::END_HEADERS != 0);
        }
    }

    #[test]
    fn padding_is_taken_off() {
        let head = |flags| Head { len: 0, kind: kind::HEADERS, flags, stream: 1 };
        assert_eq!(unpadded(&head(0), b"abc"), Some(&b"abc"[..]));
        assert_eq!(unpadded(&head(flag::PADDED), b"\x02abc\0\0"), Some(&b"abc"[..]));
        assert_eq!(unpadded(&head(flag::PADDED | flag::PRIORITY), b"\x01-----abc\0"), Some(&b"abc"[..]));
        assert_eq!(unpadded(&head(flag::PADDED), b"\x03ab"), None);
        assert_eq!(unpadded(&head(flag::PADDED), b""), None);
        assert_eq!(unpadded(&head(flag::PRIORITY), b"abc"), None);
    }
}
