//! Header compression (RFC 7541): reading all of it, writing the simple half.
//!
//! Reading keeps the peer's dynamic table, bounded by what we announced, in one growing strip of bytes that is swept now
//! and then: a header that is indexed allocates nothing once the strip has its size. Writing uses the static table and
//! literals that are not indexed. A table of our own would make messages smaller for one more lookup and one more copy
//! of each line; between machines of one house those bytes cost less than the work.

use super::huffman;
use std::collections::VecDeque;

/// What we announce: RFC 9113's default.
pub(super) const TABLE_BYTES: usize = 4096;

/// The standard counts this much for each entry beside its text.
const ENTRY_COST: usize = 32;

/// Appendix A. Index 1 is the first.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The first row with this length and first letter, so that a name is found with a comparison or two.
const NAME_LENGTHS: usize = 28;
const BY_NAME: [[u8; 32]; NAME_LENGTHS] = {
    let mut index = [[0; 32]; NAME_LENGTHS];
    let mut row = STATIC.len();
    while row > 14 {
        row -= 1;
        let name = STATIC[row].0.as_bytes();
        index[name.len()][(name[0] & 31) as usize] = row as u8;
    }
    index
};

/// The static index of a name in any case, zero if it has none.
#[inline]
fn static_index(name: &[u8]) -> usize {
    let (Some(first), true) = (name.first(), name.len() < NAME_LENGTHS) else { return 0 };
    let first_row = usize::from(BY_NAME[name.len()][usize::from(*first & 31)]);
    if first_row == 0 {
        return 0;
    }
    STATIC[first_row..]
        .iter()
        .position(|(known, _)| known.len() == name.len() && is_same(known.as_bytes(), name))
        .map_or(0, |at| first_row + at + 1)
}

/// Most names are in lower case already, and then comparing them is one look.
fn is_same(known: &[u8], name: &[u8]) -> bool {
    known == name || known.eq_ignore_ascii_case(name)
}

/// A block that cannot be read leaves the table in doubt, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name: u32,
    value: u32,
    /// What the reader said of it when it came.
    sound: bool,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Names and values, one behind the other; what is before the oldest entry is garbage.
    strip: Vec<u8>,
    /// The newest is at the front.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
    scratch: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            strip: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            size_max: TABLE_BYTES,
            scratch: Vec::new(),
        }
    }
}

impl Decoder {
    /// Reads one whole header block and shows each field to `field`, in order. The answer, whether the field is a sound
    /// one, is remembered for those that are filed, and shown with them when they are named again.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8], Option<bool>) -> bool,
    ) -> Result<(), Corrupt> {
        let mut begun = false;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                match index.checked_sub(STATIC.len() + 1) {
                    Some(at) => {
                        let (name, value) = self.dynamic(at)?;
                        field(name, value, Some(self.entries[at].sound));
                    }
                    None => {
                        let (name, value) =
                            index.checked_sub(1).and_then(|at| STATIC.get(at)).ok_or(Corrupt)?;
                        field(name.as_bytes(), value.as_bytes(), Some(true));
                    }
                }
            } else if first & 0xE0 == 0x20 {
                // A change of the table's size belongs to the start of a block.
                let size = integer(&mut block, 5)?;
                if begun || size > TABLE_BYTES {
                    return Err(Corrupt);
                }
                self.size_max = size;
                self.evict(0);
                continue;
            } else {
                let indexed = first & 0x40 != 0;
                let index = integer(&mut block, if indexed { 6 } else { 4 })?;
                self.scratch.clear();
                let name_len = match index {
                    0 => {
                        string(&mut block, &mut self.scratch)?;
                        self.scratch.len()
                    }
                    _ => {
                        let mut scratch = std::mem::take(&mut self.scratch);
                        let name = match index.checked_sub(STATIC.len() + 1) {
                            Some(at) => self.dynamic(at)?.0,
                            None => STATIC[index - 1].0.as_bytes(),
                        };
                        scratch.extend_from_slice(name);
                        self.scratch = scratch;
                        self.scratch.len()
                    }
                };
                string(&mut block, &mut self.scratch)?;
                let (name, value) = self.scratch.split_at(name_len);
                let sound = field(name, value, None);
                if indexed {
                    self.insert(name_len, sound);
                }
            }
            begun = true;
        }
        Ok(())
    }

    fn dynamic(&self, at: usize) -> Result<(&[u8], &[u8]), Corrupt> {
        let entry = self.entries.get(at).ok_or(Corrupt)?;
        let middle = entry.start + entry.name as usize;
        Ok((&self.strip[entry.start..middle], &self.strip[middle..middle + entry.value as usize]))
    }

    /// Files what is in `scratch`.
    fn insert(&mut self, name_len: usize, sound: bool) {
        let cost = self.scratch.len() + ENTRY_COST;
        self.evict(cost);
        if cost > self.size_max {
            // Too large for the table: it is emptied, which is not an error (4.4).
            return;
        }
        if self.strip.len() + self.scratch.len() > 4 * TABLE_BYTES {
            self.sweep();
        }
        let start = self.strip.len();
        self.strip.extend_from_slice(&self.scratch);
        let value = self.scratch.len() - name_len;
        self.entries.push_front(Entry { start, name: name_len as u32, value: value as u32, sound });
        self.size += cost;
    }

    /// Makes room for `cost` more.
    fn evict(&mut self, cost: usize) {
        while self.size + cost > self.size_max {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= (oldest.name + oldest.value) as usize + ENTRY_COST;
        }
    }

    fn sweep(&mut self) {
        let from = self.entries.back().map_or(self.strip.len(), |oldest| oldest.start);
        self.strip.drain(..from);
        self.entries.iter_mut().for_each(|entry| entry.start -= from);
    }
}

/// An integer with a prefix of so many bits (5.1). Larger ones than any length or index of ours are refused.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Corrupt> {
    let (first, mut rest) = block.split_first().ok_or(Corrupt)?;
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, more) = rest.split_first().ok_or(Corrupt)?;
            rest = more;
            value += usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(Corrupt);
            }
        }
    }
    *block = rest;
    Ok(value)
}

fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Corrupt> {
    let huffman = block.first().ok_or(Corrupt)? & 0x80 != 0;
    let len = integer(block, 7)?;
    if len > block.len() {
        return Err(Corrupt);
    }
    let (text, rest) = block.split_at(len);
    *block = rest;
    if huffman {
        huffman::decode(text, out).map_err(|()| Corrupt)
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}

#[inline]
fn write_integer(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        return out.push(flags | value as u8);
    }
    out.push(flags | mask as u8);
    write_rest(value - mask, out);
}

#[cold]
fn write_rest(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    write_integer(text.len(), 7, 0, out);
    out.extend_from_slice(text);
}

/// Said once, before anything else: our table is empty and stays so.
pub(super) fn write_no_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// One field, with its name in any case. What authorises is marked as never to be indexed by anybody on the way.
pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Room for both and their lengths, asked for once.
    out.reserve(name.len() + value.len() + 12);
    let index = static_index(name);
    let flags = if matches!(index, 23 | 32 | 49) { 0x10 } else { 0 };
    if index > 0 {
        write_integer(index, 4, flags, out);
    } else {
        out.push(flags);
        write_integer(name.len(), 7, 0, out);
        let start = out.len();
        out.extend_from_slice(name);
        out[start..].make_ascii_lowercase();
    }
    write_string(value, out);
}

pub(super) fn write_status(status: u16, out: &mut Vec<u8>) {
    match status {
        200 => out.push(0x88),
        204 => out.push(0x89),
        206 => out.push(0x8A),
        304 => out.push(0x8B),
        400 => out.push(0x8C),
        404 => out.push(0x8D),
        500 => out.push(0x8E),
        _ => {
            write_integer(8, 4, 0, out);
            let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
            write_string(&digits, out);
        }
    }
}

pub(super) fn write_method(method: &[u8], out: &mut Vec<u8>) {
    match method {
        b"GET" => out.push(0x82),
        b"POST" => out.push(0x83),
        _ => {
            write_integer(2, 4, 0, out);
            write_string(method, out);
        }
    }
}

pub(super) fn write_path(path: &[u8], out: &mut Vec<u8>) {
    match path {
        b"/" => out.push(0x84),
        _ => {
            write_integer(4, 4, 0, out);
            write_string(path, out);
        }
    }
}

pub(super) fn write_scheme(tls: bool, out: &mut Vec<u8>) {
    out.push(if tls { 0x87 } else { 0x86 });
}

pub(super) fn write_authority(authority: &[u8], out: &mut Vec<u8>) {
    write_integer(1, 4, 0, out);
    write_string(authority, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, Corrupt> {
        let mut text = String::new();
        decoder.decode(block, |name, value, known| {
            assert_ne!(known, Some(false), "everything was said to be sound");
            text.push_str(&format!(
                "{}: {}\n",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            ));
            true
        })?;
        Ok(text)
    }

    fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
        let value = |digit: u8| (digit as char).to_digit(16).expect("hexadecimal") as u8;
        digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
    }

    /// RFC 7541, C.4 and C.6: three messages on one connection, the second with a table so small that it evicts.
    #[test]
    fn the_examples_of_the_standard() {
        let mut decoder = Decoder::default();
        for (block, text) in [
            (
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
            ),
            (
                "8286 84be 5886 a8eb 1064 9cbf",
                ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n",
            ),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n",
            ),
        ] {
            assert_eq!(read(&mut decoder, &hex(block)).as_deref(), Ok(text));
        }
        assert_eq!(decoder.size, 164);
        let mut decoder = Decoder { size_max: 256, ..Decoder::default() };
        for (block, text) in [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
                 8f0b 97c8 e9ae 82ae 43d3",
                ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
            ),
            (
                "4883 640e ffc1 c0bf",
                ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
            ),
        ] {
            assert_eq!(read(&mut decoder, &hex(block)).as_deref(), Ok(text));
        }
        assert_eq!((decoder.size, decoder.entries.len()), (222, 4));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            &b"\x80"[..],                // index zero
            b"\xff\xff\xff\xff\xff\x7f", // an index beyond all tables
            b"\xbe",                     // nothing is in the dynamic table yet
            b"\x00\x05ab",               // cut short
            b"\x7f",                     // an integer without an end
            b"\x82\x20",                 // a size change behind a field
            b"\x3f\xe2\x1f",             // a table larger than announced
        ] {
            assert_eq!(read(&mut Decoder::default(), bad), Err(Corrupt), "{bad:?}");
        }
    }

    #[test]
    fn the_strip_is_swept_and_stays_small() {
        let mut decoder = Decoder::default();
        for n in 0..10_000u32 {
            let mut block = vec![0x40];
            write_string(b"x-some-name", &mut block);
            write_string(format!("{n:0100}").as_bytes(), &mut block);
            block.push(0xBE);
            let text = read(&mut decoder, &block).expect("readable");
            assert_eq!(text, format!("x-some-name: {n:0100}\n").repeat(2));
        }
        assert!(decoder.strip.len() <= 4 * TABLE_BYTES && decoder.size <= TABLE_BYTES);
    }

    #[test]
    fn every_static_name_is_found() {
        for (at, (name, _)) in STATIC.iter().enumerate().skip(14) {
            assert_eq!(static_index(name.as_bytes()), at + 1, "{name}");
            assert_eq!(static_index(format!("{name}x").as_bytes()), 0);
        }
        for other in
            ["", "x", "accepts", "traceparent", "x-forwarded-for", "a-name-longer-than-any-that-is-known"]
        {
            assert_eq!(static_index(other.as_bytes()), 0, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in proptest::collection::vec(("[A-Za-z-]{1,40}", "[ -~]{0,300}"), 0..20)) {
            let mut block = Vec::new();
            write_no_table(&mut block);
            fields.iter().for_each(|(name, value)| write_field(name.as_bytes(), value.as_bytes(), &mut block));
            let expected: String =
                fields.iter().map(|(name, value)| format!("{}: {value}\n", name.to_ascii_lowercase())).collect();
            prop_assert_eq!(read(&mut Decoder::default(), &block), Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..5)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                if read(&mut decoder, &block).is_err() {
                    break;
                }
                prop_assert!(decoder.size <= TABLE_BYTES);
            }
        }
    }
}
