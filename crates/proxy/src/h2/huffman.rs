//! The Huffman code of HPACK (RFC 7541, appendix B), for reading.
//!
//! The code is canonical, so its 257 lengths say everything; tables are made of them at compile time. Short codes, which
//! are nearly all of any text, are found with one look; the rest by their length. We do not write it: compressing a few
//! hundred bytes costs more than sending them to the next machine.

/// The length of each symbol's code; the last is the end of the string, which must never occur.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const END_OF_STRING: u16 = 256;
const LONGEST: usize = 30;
const FAST_BITS: usize = 10;

/// For each length: its first code, how many there are, and where their symbols begin.
struct Canon {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u16; LONGEST + 1],
    symbols: [u16; 257],
}

static CANON: Canon = canon();

const fn canon() -> Canon {
    let mut canon = Canon {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        symbols: [0; 257],
    };
    let (mut code, mut placed, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        code <<= 1;
        canon.first[length] = code;
        canon.start[length] = placed as u16;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                canon.symbols[placed] = symbol as u16;
                placed += 1;
                code += 1;
                canon.count[length] += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    canon
}

/// For the next ten bits: a symbol and the length of its code, or zero if the code is longer.
static FAST: [u16; 1 << FAST_BITS] = fast();

const fn fast() -> [u16; 1 << FAST_BITS] {
    let canon = canon();
    let mut table = [0; 1 << FAST_BITS];
    let mut length = 1;
    while length <= FAST_BITS {
        let mut nth = 0;
        while nth < canon.count[length] {
            let symbol = canon.symbols[canon.start[length] as usize + nth as usize];
            let from = ((canon.first[length] + nth) as usize) << (FAST_BITS - length);
            let mut at = from;
            while at < from + (1 << (FAST_BITS - length)) {
                table[at] = (length as u16) << 8 | symbol;
                at += 1;
            }
            nth += 1;
        }
        length += 1;
    }
    table
}

/// Appends what `coded` stands for. `Err` for a code that is none, the end symbol, and padding that is not.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), ()> {
    let mut bits = 0u64;
    let mut have = 0u32;
    let mut rest = coded;
    // No code is shorter than five bits.
    out.reserve(coded.len() * 8 / 5 + 1);
    'symbols: loop {
        // Four bytes at once: no code is longer.
        if have < 32 {
            if let Some((four, more)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*four)) << (32 - have);
                have += 32;
                rest = more;
            } else {
                while let Some((byte, more)) = rest.split_first() {
                    bits |= u64::from(*byte) << (56 - have);
                    have += 8;
                    rest = more;
                }
            }
        }
        let entry = FAST[(bits >> (64 - FAST_BITS)) as usize];
        let length = u32::from(entry >> 8);
        if length != 0 && length <= have {
            out.push(entry as u8);
            bits <<= length;
            have -= length;
            continue;
        }
        if length == 0 {
            for length in FAST_BITS + 1..=LONGEST.min(have as usize) {
                let code = (bits >> (64 - length)) as u32;
                let nth = code.wrapping_sub(CANON.first[length]);
                if nth < CANON.count[length] {
                    let symbol = CANON.symbols[CANON.start[length] as usize + nth as usize];
                    if symbol == END_OF_STRING {
                        return Err(());
                    }
                    out.push(symbol as u8);
                    bits <<= length;
                    have -= length as u32;
                    continue 'symbols;
                }
            }
        }
        // What is left is padding: fewer than eight bits, all of them ones.
        let padding = have < 8 && (have == 0 || bits >> (64 - have) == (1 << have) - 1);
        return if padding { Ok(()) } else { Err(()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut out, mut bits, mut have) = (Vec::new(), 0u64, 0u32);
        for byte in text {
            let length = u32::from(LENGTHS[usize::from(*byte)]);
            let start = CANON.start[length as usize] as usize;
            let nth =
                CANON.symbols[start..].iter().position(|it| *it == u16::from(*byte)).expect("it has a code");
            bits = bits << length | u64::from(CANON.first[length as usize] + nth as u32);
            have += length;
            while have >= 8 {
                out.push((bits >> (have - 8)) as u8);
                have -= 8;
            }
        }
        if have > 0 {
            out.push((bits << (8 - have)) as u8 | 0xFF >> have);
        }
        out
    }

    #[test]
    fn the_examples_of_the_standard() {
        let check = |text: &str, coded: &[u8]| {
            assert_eq!(encode(text.as_bytes()), coded, "{text}");
            let mut out = Vec::new();
            assert_eq!(decode(coded, &mut out), Ok(()));
            assert_eq!(out, text.as_bytes());
        };
        check("www.example.com", b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
        check("no-cache", b"\xa8\xeb\x10\x64\x9c\xbf");
        check("custom-value", b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf");
        check("307", b"\x64\x0e\xff");
        check("", b"");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for bad in [&b"\xff\xff\xff\xff"[..], b"\xff", b"\x1f\xff", b"\x00\x00\xf8", b"\x18"] {
            assert_eq!(decode(bad, &mut Vec::new()), Err(()), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            prop_assert_eq!(decode(&encode(&text), &mut out), Ok(()));
            prop_assert_eq!(out, text);
        }

        #[test]
        fn no_bytes_make_it_panic(coded in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&coded, &mut Vec::new());
        }
    }
}
