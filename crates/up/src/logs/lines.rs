//! Bytes of a pipe, cut into lines.

/// Longer lines are cut; every part is kept.
pub(crate) const LINE_MAX: usize = 64 << 10;

/// Collects bytes until a line is whole.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
}

impl Lines {
    /// Calls `each` for every line that is complete now. What is not UTF-8 is replaced, what is longer than 64 KiB is cut.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.held.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.held.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.emit(&mut each);
                }
                None if bytes.len() > room => {
                    self.held.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    self.emit(&mut each);
                }
                None => {
                    self.held.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// The pipe is at its end: a last line without its end is a line.
    pub fn finish(&mut self, mut each: impl FnMut(&str)) {
        if !self.held.is_empty() {
            self.emit(&mut each);
        }
    }

    fn emit(&mut self, each: &mut impl FnMut(&str)) {
        if self.held.last() == Some(&b'\r') {
            self.held.pop();
        }
        each(&String::from_utf8_lossy(&self.held));
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| out.push(line.to_owned()));
        }
        lines.finish(|line| out.push(line.to_owned()));
        out
    }

    #[test]
    fn lines_are_cut_at_their_ends() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n", b"\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(cut(&[b"\xFFx\n"]), ["\u{FFFD}x"]);
        assert_eq!(cut(&[]), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_kept_in_parts() {
        let long = vec![b'x'; LINE_MAX * 2 + 5];
        let parts: Vec<usize> = cut(&[&long, b"\nend\n"]).iter().map(String::len).collect();
        assert_eq!(parts, [LINE_MAX, LINE_MAX, 5, 3]);
        let exact = vec![b'x'; LINE_MAX];
        assert_eq!(cut(&[&exact, b"\nz"]).iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 1]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_does_not_matter(text in "[a-c\n]{0,200}", at in 0usize..200) {
            let at = at.min(text.len());
            let whole = cut(&[text.as_bytes()]);
            prop_assert_eq!(&cut(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]), &whole);
            let expected: Vec<&str> = text.strip_suffix('\n').unwrap_or(&text).split('\n').collect();
            if text.is_empty() { prop_assert!(whole.is_empty()) } else { prop_assert_eq!(whole, expected) }
        }
    }
}
