//! Who a request is, since when, and until when: its id, its trace and its deadline.
//!
//! Trace context is read in W3C form or in either B3 form and written back as W3C, and as B3 to those who spoke B3.
//! Deadlines travel as what is left, because clocks of two machines do not agree.

use crate::http1::{Kind, RequestHead, decimal};
use units::{Nanos, Rng};

/// A trace and our place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    /// The span of whoever called us; zero if nobody said.
    pub(crate) parent: u64,
    /// Our span for this request. Attempts have spans of their own below it.
    pub(crate) span: u64,
    pub(crate) sampled: bool,
    /// How the caller spoke, so that it is spoken to in the same way.
    pub(crate) b3: B3,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum B3 {
    #[default]
    No,
    Single,
    Multi,
}

/// Eight lower-case hexadecimal digits at once: each half byte spreads to a byte, and those above nine move on to letters.
#[inline]
fn hex_digits(value: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut spread = u64::from(value);
    spread = (spread | spread << 16) & 0x0000_FFFF_0000_FFFF;
    spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF;
    spread = (spread | spread << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    let letters = ((spread + 6 * ONES) >> 4) & ONES;
    (spread + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[inline]
pub(crate) fn hex_16(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&hex_digits((value >> 32) as u32));
    digits[8..].copy_from_slice(&hex_digits(value as u32));
    digits
}

#[inline]
pub(crate) fn hex_32(value: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    digits[..16].copy_from_slice(&hex_16((value >> 64) as u64));
    digits[16..].copy_from_slice(&hex_16(value as u64));
    digits
}

fn read_hex(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    digits.iter().try_fold(0u128, |sum, digit| Some(sum << 4 | u128::from((*digit as char).to_digit(16)?)))
}

impl Trace {
    /// Continues the caller's trace, or begins one; `sample` decides for those that begin here.
    pub(crate) fn read(request: &RequestHead, buffer: &[u8], rng: &mut Rng, sample: f64) -> Self {
        let read = request
            .find(Kind::Traceparent, buffer)
            .and_then(parse_traceparent)
            .or_else(|| request.find(Kind::B3, buffer).and_then(parse_b3))
            .or_else(|| parse_b3_multi(request, buffer));
        let span = rng.next_u64() | 1;
        match read {
            Some(trace) => Self { span, ..trace },
            None => Self {
                id: u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1),
                parent: 0,
                span,
                sampled: sample >= 1.0 || (sample > 0.0 && rng.chance(sample)),
                b3: B3::No,
            },
        }
    }

    /// The lines that tell the next hop, with `span` as its parent.
    pub(crate) fn write(&self, span: u64, out: &mut Vec<u8>) {
        let mut line = *b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";
        let (id, own) = (hex_32(self.id), hex_16(span));
        line[16..48].copy_from_slice(&id);
        line[49..65].copy_from_slice(&own);
        line[67] = b'0' + u8::from(self.sampled);
        out.extend_from_slice(&line);
        if self.b3 == B3::No {
            return;
        }
        let parent = hex_16(self.span);
        let sampled: &[u8] = if self.sampled { b"1" } else { b"0" };
        let lines: &[&[u8]] = if self.b3 == B3::Single {
            &[b"b3: ", &id, b"-", &own, b"-", sampled, b"-", &parent, b"\r\n"]
        } else {
            &[
                b"x-b3-traceid: ",
                &id,
                b"\r\nx-b3-spanid: ",
                &own,
                b"\r\nx-b3-parentspanid: ",
                &parent,
                b"\r\nx-b3-sampled: ",
                sampled,
                b"\r\n",
            ]
        };
        lines.iter().for_each(|part| out.extend_from_slice(part));
    }
}

/// `00-<32>-<16>-<2>`; later versions may have more after that, and are read as this one (W3C, 4.3).
fn parse_traceparent(value: &[u8]) -> Option<Trace> {
    let shape = value.len() >= 55 && value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
    let version = shape.then(|| read_hex(&value[..2]))??;
    if version == 0xFF || (version == 0 && value.len() != 55) || (value.len() > 55 && value[55] != b'-') {
        return None;
    }
    let (id, parent) = (read_hex(&value[3..35])?, read_hex(&value[36..52])? as u64);
    if id == 0 || parent == 0 || value[3..52].iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    Some(Trace { id, parent, span: 0, sampled: read_hex(&value[53..55])? & 1 == 1, b3: B3::No })
}

/// `<trace>-<span>[-<sampled>[-<parent>]]`, or only a sampling decision, which is no trace.
fn parse_b3(value: &[u8]) -> Option<Trace> {
    let mut parts = value.split(|byte| *byte == b'-');
    let id = read_hex(parts.next().filter(|id| matches!(id.len(), 16 | 32))?)?;
    let parent = read_hex(parts.next().filter(|span| span.len() == 16)?)? as u64;
    let sampled = !matches!(parts.next(), Some(b"0"));
    (id != 0 && parent != 0).then_some(Trace { id, parent, span: 0, sampled, b3: B3::Single })
}

fn parse_b3_multi(request: &RequestHead, buffer: &[u8]) -> Option<Trace> {
    let id = read_hex(request.find(Kind::B3TraceId, buffer)?)?;
    let parent = read_hex(request.find(Kind::B3SpanId, buffer)?)? as u64;
    let sampled = !matches!(request.find(Kind::B3Sampled, buffer), Some(b"0" | b"false"));
    (id != 0 && parent != 0).then_some(Trace { id, parent, span: 0, sampled, b3: B3::Multi })
}

/// A new request id: a random UUID, because that is what people's tools expect to see.
pub(crate) fn new_request_id(rng: &mut Rng) -> [u8; 36] {
    let mut bytes = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    bytes = bytes & !(0xF << 76) | (0x4 << 76);
    bytes = bytes & !(0x3 << 62) | (0x2 << 62);
    let digits = hex_32(bytes);
    let mut id = [b'-'; 36];
    id[..8].copy_from_slice(&digits[..8]);
    id[9..13].copy_from_slice(&digits[8..12]);
    id[14..18].copy_from_slice(&digits[12..16]);
    id[19..23].copy_from_slice(&digits[16..20]);
    id[24..].copy_from_slice(&digits[20..]);
    id
}

/// A request id somebody else made: short enough, and nothing that could break a log line or a header.
pub(crate) fn is_sane_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// How long the caller still waits, from whichever header says the least.
pub(crate) fn time_left(request: &RequestHead, buffer: &[u8]) -> Option<Nanos> {
    if !(request.has(Kind::Deadline) || request.has(Kind::GrpcTimeout) || request.has(Kind::EnvoyTimeout)) {
        return None;
    }
    let own = request.find(Kind::Deadline, buffer).and_then(decimal).map(Nanos::from_micros);
    let envoy = request.find(Kind::EnvoyTimeout, buffer).and_then(decimal).map(Nanos::from_millis);
    let grpc = request.find(Kind::GrpcTimeout, buffer).and_then(parse_grpc_timeout);
    [own, envoy, grpc].into_iter().flatten().min()
}

/// One to eight digits and a unit (gRPC over HTTP/2).
pub(crate) fn parse_grpc_timeout(value: &[u8]) -> Option<Nanos> {
    let (unit, digits) = value.split_last()?;
    let count = decimal(digits).filter(|_| digits.len() <= 8)?;
    let unit = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Nanos(count.saturating_mul(unit)))
}

/// The finest unit that fits into eight digits.
pub(crate) fn write_grpc_timeout(left: Nanos, out: &mut Vec<u8>) {
    for (unit, nanos) in
        [(b'n', 1u64), (b'u', 1_000), (b'm', 1_000_000), (b'S', 1_000_000_000), (b'M', 60_000_000_000)]
    {
        if left.0 / nanos < 100_000_000 {
            write_decimal(left.0 / nanos, out);
            return out.push(unit);
        }
    }
    write_decimal((left.0 / 3_600_000_000_000).min(99_999_999), out);
    out.push(b'H');
}

pub(crate) fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    // Most numbers are parts of an address or a status.
    if value < 1_000 {
        let (hundreds, tens, ones) = (value / 100, value / 10 % 10, value % 10);
        let digits = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        let leading = usize::from(value < 100) + usize::from(value < 10);
        return out.extend_from_slice(&digits[leading..]);
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, parse_request};

    #[track_caller]
    fn check(lines: &str, expected: Option<(u128, u64, bool, B3)>, written: &str) {
        let text = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", lines.replace('\n', "\r\n"));
        let mut head = RequestHead::default();
        parse_request(text.as_bytes(), &HeadLimits::default(), &mut head).expect("a good head");
        let trace = Trace::read(&head, text.as_bytes(), &mut Rng::from_seed(1), 1.0);
        match expected {
            Some((id, parent, sampled, b3)) => {
                assert_eq!(
                    (trace.id, trace.parent, trace.sampled, trace.b3),
                    (id, parent, sampled, b3),
                    "{lines}"
                );
            }
            None => assert!(trace.id != 0 && trace.parent == 0 && trace.sampled, "{lines}"),
        }
        let mut out = Vec::new();
        Trace { id: 0xAB, span: 2, ..trace }.write(1, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), written.replace('\n', "\r\n"), "{lines}");
    }

    #[test]
    fn traces_are_read_in_three_dialects_and_answered_in_the_same() {
        let w3c = "traceparent: 00-000000000000000000000000000000ab-0000000000000001-01\n";
        check("", None, w3c);
        let unsampled = w3c.replace("-01\n", "-00\n");
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736u128;
        let full = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        check(&format!("traceparent: {full}-01\n"), Some((id, 0x00f0_67aa_0ba9_02b7, true, B3::No)), w3c);
        check(
            &format!("traceparent: {full}-00\n"),
            Some((id, 0x00f0_67aa_0ba9_02b7, false, B3::No)),
            &unsampled,
        );
        for bad in
            ["00-0-0-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &format!("{full}-01-x")]
        {
            check(&format!("traceparent: {bad}\n"), None, w3c);
        }
        check(
            "b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1\n",
            Some((id, 0x00f0_67aa_0ba9_02b7, true, B3::Single)),
            &format!("{w3c}b3: 000000000000000000000000000000ab-0000000000000001-1-0000000000000002\n"),
        );
        check(
            "X-B3-TraceId: a3ce929d0e0e4736\nX-B3-SpanId: 00f067aa0ba902b7\nX-B3-Sampled: 0\n",
            Some((0xa3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, false, B3::Multi)),
            &format!(
                "{unsampled}x-b3-traceid: 000000000000000000000000000000ab\nx-b3-spanid: 0000000000000001\n\
                 x-b3-parentspanid: 0000000000000002\nx-b3-sampled: 0\n"
            ),
        );
    }

    #[test]
    fn grpc_timeouts_round_trip_within_their_unit() {
        for (text, nanos) in
            [("1n", 1), ("99999999n", 99_999_999), ("250m", 250_000_000), ("1H", 3_600_000_000_000)]
        {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), Some(Nanos(nanos)));
        }
        for bad in ["", "m", "1", "123456789m", "1x", "-1m", "1.5S"] {
            assert_eq!(parse_grpc_timeout(bad.as_bytes()), None, "{bad}");
        }
        for nanos in [0, 1, 99_999_999, 100_000_000, 12_345_678_901, 7_200_000_000_000, u64::MAX] {
            let mut text = Vec::new();
            write_grpc_timeout(Nanos(nanos), &mut text);
            let back = parse_grpc_timeout(&text).expect("we can read what we write");
            assert!(back.0 <= nanos && nanos - back.0 <= nanos / 1_000_000, "{nanos} became {back}");
        }
    }

    #[test]
    fn numbers_are_written_as_everybody_writes_them() {
        let mut rng = Rng::from_seed(5);
        for bits in 0..64 {
            let value = rng.next_u64() >> bits;
            assert_eq!(hex_16(value), *format!("{value:016x}").as_bytes());
            let wide = u128::from(value) << 64 | u128::from(rng.next_u64());
            assert_eq!(hex_32(wide), *format!("{wide:032x}").as_bytes());
            for value in [value, value % 1_001, bits] {
                let mut text = Vec::new();
                write_decimal(value, &mut text);
                assert_eq!(text, value.to_string().into_bytes());
            }
        }
    }

    #[test]
    fn request_ids_are_uuids() {
        let id = new_request_id(&mut Rng::from_seed(3));
        assert_eq!(id[14], b'4');
        assert!(b"89ab".contains(&id[19]) && is_sane_id(&id));
    }
}
