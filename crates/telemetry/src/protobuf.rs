//! The protobuf wire format: enough to read and write the few messages we speak.
//!
//! Zipkin, OTLP and Prometheus need some forty fields together; generated code for them is ten thousand lines and a
//! build step. Here a message is read field by field with a `match` on the number, which is also how the format says to
//! ignore what one does not know. Borrowed throughout: a span's bytes are copied once, into the store.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the message ends inside a field")]
    Truncated,
    #[error("a varint is longer than ten bytes")]
    VarintTooLong,
    #[error("wire type {0} is not part of the format")]
    WireType(u8),
    #[error("field number 0")]
    FieldZero,
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
    #[error("field {0} is not UTF-8")]
    NotUtf8(u32),
    #[error("messages nested deeper than {0}")]
    TooDeep(u32),
}

/// One field as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Reads a message's fields in order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field with its number; `None` at the end.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u32, Field<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| ProtobufError::Truncated)?;
        if number == 0 {
            return Err(ProtobufError::FieldZero);
        }
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups (3, 4) left the language before any of our messages were written.
            other => return Err(ProtobufError::WireType(other as u8)),
        };
        Ok(Some((number, field)))
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (at * 7);
            if byte < 0x80 {
                if at == 9 && byte > 1 {
                    return Err(ProtobufError::VarintTooLong);
                }
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { ProtobufError::Truncated } else { ProtobufError::VarintTooLong })
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], ProtobufError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }
}

impl<'a> Field<'a> {
    pub fn bytes(self, number: u32) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WrongType(number)),
        }
    }

    pub fn text(self, number: u32) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes(number)?).map_err(|_| ProtobufError::NotUtf8(number))
    }

    pub fn message(self, number: u32) -> Result<Reader<'a>, ProtobufError> {
        self.bytes(number).map(Reader::new)
    }

    pub fn varint(self, number: u32) -> Result<u64, ProtobufError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(ProtobufError::WrongType(number)),
        }
    }

    pub fn bool(self, number: u32) -> Result<bool, ProtobufError> {
        self.varint(number).map(|value| value != 0)
    }

    /// `int32` and enums: negative values travel as ten bytes.
    pub fn int32(self, number: u32) -> Result<i32, ProtobufError> {
        self.varint(number).map(|value| value as i32)
    }

    pub fn sint32(self, number: u32) -> Result<i32, ProtobufError> {
        let value = self.varint(number)? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    pub fn fixed64(self, number: u32) -> Result<u64, ProtobufError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(ProtobufError::WrongType(number)),
        }
    }

    pub fn double(self, number: u32) -> Result<f64, ProtobufError> {
        self.fixed64(number).map(f64::from_bits)
    }

    pub fn fixed32(self, number: u32) -> Result<u32, ProtobufError> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(ProtobufError::WrongType(number)),
        }
    }

    /// A repeated number: one value alone, or many packed in one field. Both must be read.
    pub fn each_varint(self, number: u32, mut each: impl FnMut(u64)) -> Result<(), ProtobufError> {
        match self {
            Self::Varint(value) => each(value),
            Self::Bytes(packed) => {
                let mut packed = Reader::new(packed);
                while !packed.is_empty() {
                    each(packed.varint()?);
                }
            }
            _ => return Err(ProtobufError::WrongType(number)),
        }
        Ok(())
    }

    pub fn each_fixed64(self, number: u32, mut each: impl FnMut(u64)) -> Result<(), ProtobufError> {
        match self {
            Self::Fixed64(value) => each(value),
            Self::Bytes(packed) => {
                let mut packed = Reader::new(packed);
                while !packed.is_empty() {
                    each(u64::from_le_bytes(packed.array()?));
                }
            }
            _ => return Err(ProtobufError::WrongType(number)),
        }
        Ok(())
    }
}

/// Writes a message. Fields that hold their default are the caller's to leave out.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    fn key(&mut self, number: u32, wire_type: u32) {
        put_varint(self.out, u64::from(number << 3 | wire_type));
    }

    pub fn varint(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        put_varint(self.out, value);
    }

    pub fn int64(&mut self, number: u32, value: i64) {
        self.varint(number, value as u64);
    }

    pub fn sint32(&mut self, number: u32, value: i32) {
        self.varint(number, u64::from(((value << 1) ^ (value >> 31)) as u32));
    }

    pub fn bool(&mut self, number: u32, value: bool) {
        self.varint(number, u64::from(value));
    }

    pub fn fixed64(&mut self, number: u32, value: u64) {
        self.key(number, 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub fn fixed32(&mut self, number: u32, value: u32) {
        self.key(number, 5);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub fn double(&mut self, number: u32, value: f64) {
        self.fixed64(number, value.to_bits());
    }

    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.key(number, 2);
        put_varint(self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    pub fn text(&mut self, number: u32, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    /// A nested message. Its length is known only afterwards: one byte is reserved and, for the rare message of 128
    /// bytes or more, the body moves up. Cheaper than measuring everything twice.
    pub fn message(&mut self, number: u32, body: impl FnOnce(&mut Writer<'_>)) {
        self.key(number, 2);
        put_length_prefixed(self.out, |out| body(&mut Writer::new(out)));
    }

    pub fn packed_varints(&mut self, number: u32, values: impl IntoIterator<Item = u64>) {
        self.key(number, 2);
        put_length_prefixed(self.out, |out| values.into_iter().for_each(|value| put_varint(out, value)));
    }

    pub fn packed_fixed64(&mut self, number: u32, values: impl IntoIterator<Item = u64>) {
        self.key(number, 2);
        put_length_prefixed(self.out, |out| {
            values.into_iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        });
    }
}

pub(crate) fn put_length_prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    body(out);
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        put_varint(&mut prefix, len as u64);
        out.splice(start..=start, prefix);
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<&[(u32, Field<'_>)], ProtobufError>) {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        let got = loop {
            match reader.field() {
                Ok(Some(field)) => fields.push(field),
                Ok(None) => break Ok(&fields[..]),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(got, expected, "{bytes:x?}");
    }

    #[test]
    fn fields_are_read_strictly() {
        check(&[0x08, 0x96, 0x01], Ok(&[(1, Field::Varint(150))]));
        check(&[0x12, 0x02, b'h', b'i'], Ok(&[(2, Field::Bytes(b"hi"))]));
        check(&[0x0d, 1, 0, 0, 0], Ok(&[(1, Field::Fixed32(1))]));
        check(&[0x09, 1, 0, 0, 0, 0, 0, 0, 0], Ok(&[(1, Field::Fixed64(1))]));
        check(&[], Ok(&[]));
        check(&[0x08], Err(ProtobufError::Truncated));
        check(&[0x12, 0x05, b'h'], Err(ProtobufError::Truncated));
        check(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Err(ProtobufError::Truncated));
        check(&[0x0b], Err(ProtobufError::WireType(3)));
        check(&[0x00, 0x00], Err(ProtobufError::FieldZero));
        check(
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02],
            Err(ProtobufError::VarintTooLong),
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, small: i32, text in ".{0,300}", many in proptest::collection::vec(0u64.., 0..60)) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.varint(1, value);
            writer.sint32(2, small);
            writer.message(3, |inner| inner.text(1, &text));
            writer.packed_varints(4, many.iter().copied());
            writer.packed_fixed64(5, many.iter().copied());
            let mut reader = Reader::new(&out);
            proptest::prop_assert_eq!(reader.field().unwrap(), Some((1, Field::Varint(value))));
            proptest::prop_assert_eq!(reader.field().unwrap().unwrap().1.sint32(2), Ok(small));
            let mut inner = reader.field().unwrap().unwrap().1.message(3).unwrap();
            proptest::prop_assert_eq!(inner.field().unwrap().unwrap().1.text(1), Ok(&text[..]));
            let (mut varints, mut fixed) = (Vec::new(), Vec::new());
            reader.field().unwrap().unwrap().1.each_varint(4, |value| varints.push(value)).unwrap();
            reader.field().unwrap().unwrap().1.each_fixed64(5, |value| fixed.push(value)).unwrap();
            proptest::prop_assert_eq!((&varints, &fixed), (&many, &many));
            proptest::prop_assert!(reader.is_empty());
        }
    }
}
