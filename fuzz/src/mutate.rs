//! Rubbish with a family resemblance: bytes flipped, pieces cut, repeated, moved and spliced from other inputs.

use units::{Purpose, Rng};

const INPUT_MAX: usize = 64 * 1024;

/// Small texts that parsers of ours give a meaning to.
const WORDS: &[&str] = &[
    "isobar: 1\n",
    "services:\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "|\n",
    ">\n",
    "\"",
    "'",
    "#",
    "---\n",
    "...\n",
    "\u{feff}",
    "\0",
    "\r\n",
    "\u{202e}",
    "null",
    "~",
    "1e308",
    "-1",
    "18446744073709551616",
    "250ms",
    "99.9%",
    "web -> cart",
    "GET / HTTP/1.1\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "{\"services\":[",
    "\"dependencies\":",
    "eureka",
    "true",
    "00-",
    "\u{1f600}",
    "\x1b[31m",
    "!!binary ",
    "? ",
    "%YAML 1.2\n",
];

pub(crate) struct Mutator {
    rng: Rng,
    pool: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, pool: Vec<Vec<u8>>) -> Self {
        Self { rng: Rng::stream(seed, 0, Purpose::Test), pool }
    }

    fn index(&mut self, len: usize) -> usize {
        self.rng.below(len as u64) as usize
    }

    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = if self.pool.is_empty() || self.rng.chance(0.05) {
            let len = self.index(200);
            (0..len).map(|_| self.rng.next_u64() as u8).collect()
        } else {
            let parent = self.index(self.pool.len());
            self.pool[parent].clone()
        };
        let changes = 1 + self.index(8);
        for _ in 0..changes {
            self.change(&mut input);
        }
        input.truncate(INPUT_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.index(input.len() + 1);
        let end = (at + 1 + self.index(32)).min(input.len());
        match self.rng.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.rng.below(8),
            1 if at < input.len() => input[at] = self.rng.next_u64() as u8,
            2 if at < end => drop(input.drain(at..end)),
            3 if at < end => {
                let times = 1 + self.index(20);
                let piece = input[at..end].repeat(times);
                input.splice(at..at, piece);
            }
            4 => {
                let word = WORDS[self.index(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            5 if at < end => {
                let word = WORDS[self.index(WORDS.len())];
                input.splice(at..end, word.bytes());
            }
            6 if at < end => {
                let piece: Vec<u8> = input.drain(at..end).collect();
                let to = self.index(input.len() + 1);
                input.splice(to..to, piece);
            }
            7 if !self.pool.is_empty() => {
                let other = self.index(self.pool.len());
                let from = self.index(self.pool[other].len() + 1);
                let tail = self.pool[other][from..].to_vec();
                input.truncate(at);
                input.extend(tail);
            }
            _ => input.truncate(at),
        }
    }
}
