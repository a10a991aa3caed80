//! The server name in a TLS client's first message, read without opening anything.

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hello<'b> {
    Name(&'b [u8]),
    /// A client hello without a name.
    NoName,
    NotTls,
    /// More bytes are needed.
    Partial,
}

/// Takes bytes from the front of a slice; every length in the message is checked by it.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn block(&mut self, length_bytes: usize) -> Option<Self> {
        let len = self.number(length_bytes)?;
        self.take(len).map(Self)
    }
}

/// Looks for the name in the first TLS record (RFC 8446, 4.1.2; RFC 6066, 3). A hello spread over several records is
/// treated as one without a name: nobody sends that but to get past us.
pub(crate) fn server_name(bytes: &[u8]) -> Hello<'_> {
    let Some(first) = bytes.first() else { return Hello::Partial };
    if *first != 22 {
        return Hello::NotTls;
    }
    let mut reader = Reader(bytes);
    let _ = reader.take(1);
    let Some(version) = reader.take(2) else { return Hello::Partial };
    if version[0] != 3 {
        return Hello::NotTls;
    }
    let Some(len) = reader.number(2) else { return Hello::Partial };
    if len == 0 || len > (16 << 10) + 256 {
        return Hello::NotTls;
    }
    let Some(record) = reader.take(len) else { return Hello::Partial };
    find(record).unwrap_or(Hello::NoName)
}

fn find(record: &[u8]) -> Option<Hello<'_>> {
    let mut record = Reader(record);
    if record.number(1)? != 1 {
        return Some(Hello::NotTls);
    }
    let mut hello = record.block(3)?;
    hello.take(2 + 32)?;
    hello.block(1)?;
    hello.block(2)?;
    hello.block(1)?;
    let mut extensions = hello.block(2)?;
    loop {
        let kind = extensions.number(2)?;
        let mut body = extensions.block(2)?;
        if kind != 0 {
            continue;
        }
        let mut names = body.block(2)?;
        while let Some(kind) = names.number(1) {
            let name = names.block(2)?.0;
            // Only host names are defined, and only the first counts.
            if kind == 0 {
                let sane = (1..=255).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
                return sane.then_some(Hello::Name(name));
            }
        }
        return None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: Option<&[u8]>) -> Vec<u8> {
        let mut extensions = vec![0, 10, 0, 2, 0, 0];
        if let Some(name) = name {
            let len = name.len() as u16;
            extensions.extend([0, 0]);
            extensions.extend((len + 5).to_be_bytes());
            extensions.extend((len + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(len.to_be_bytes());
            extensions.extend(name);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut record = vec![22, 3, 1];
        record.extend((body.len() as u16 + 4).to_be_bytes());
        record.extend([1, 0]);
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    }

    #[test]
    fn names_are_found_once_they_are_whole() {
        let bytes = hello(Some(b"shop.example"));
        assert_eq!(server_name(&bytes), Hello::Name(b"shop.example"));
        for end in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..end]), Hello::Partial, "{end}");
        }
        assert_eq!(server_name(&hello(None)), Hello::NoName);
        assert_eq!(server_name(&hello(Some(b"a\0b"))), Hello::NoName);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), Hello::NotTls);
    }
}
