//! Bytes to lines and columns.

use crate::span::{Sources, Span};
use std::path::Path;

/// Where the lines of each source begin; built once, asked for every diagnostic.
#[derive(Debug)]
pub struct Places<'s> {
    sources: &'s Sources,
    line_starts: Vec<Vec<u32>>,
}

/// A span as people count: lines and columns from 1, columns in characters, the end just behind the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'s> {
    pub path: &'s Path,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    /// What is written there.
    pub text: &'s str,
}

impl<'s> Places<'s> {
    pub fn new(sources: &'s Sources) -> Self {
        let line_starts = sources.files.iter().map(|file| {
            let breaks = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(at, _)| at as u32 + 1)).collect()
        });
        Self { sources, line_starts: line_starts.collect() }
    }

    /// `None` if the span is of no source (a diagnostic about something built in).
    pub fn of(&self, span: Span) -> Option<Place<'s>> {
        let file = self.sources.files.get(span.file as usize)?;
        let starts = self.line_starts.get(span.file as usize)?;
        let (start, end) = bounds(&file.text, span);
        let position = |at: usize| {
            let line = starts.partition_point(|it| *it as usize <= at);
            let line_start = starts.get(line.wrapping_sub(1)).map_or(0, |it| *it as usize);
            (line, file.text[line_start..at].chars().count() + 1)
        };
        let ((line, column), (end_line, end_column)) = (position(start), position(end));
        Some(Place { path: &file.path, line, column, end_line, end_column, text: &file.text[start..end] })
    }

    /// A line without its break, by number from 1, and the byte it begins at.
    pub(super) fn line(&self, file: u32, number: usize) -> Option<(&'s str, usize)> {
        let text = &self.sources.files.get(file as usize)?.text;
        let start = *self.line_starts.get(file as usize)?.get(number.checked_sub(1)?)? as usize;
        let line = text[start..].split('\n').next().unwrap_or("");
        Some((line.strip_suffix('\r').unwrap_or(line), start))
    }
}

/// The span's bytes, moved to the nearest character boundaries within the text.
fn bounds(text: &str, span: Span) -> (usize, usize) {
    let fit = |at: u32| {
        let mut at = (at as usize).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = fit(span.start);
    (start, fit(span.end).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Source;
    use std::path::PathBuf;

    #[test]
    fn columns_count_characters() {
        let text = "a: ü\r\nwide: 漢字 x\n".to_owned();
        let sources = Sources { files: vec![Source { path: PathBuf::from("f"), text: text.clone() }] };
        let places = Places::new(&sources);
        for (needle, expected) in [("ü", (1, 4, 1, 5)), ("字", (2, 8, 2, 9)), ("x", (2, 10, 2, 11))] {
            let start = text.find(needle).expect("it is there") as u32;
            let span = Span { file: 0, start, end: start + needle.len() as u32 };
            let place = places.of(span).expect("the file exists");
            assert_eq!((place.line, place.column, place.end_line, place.end_column), expected, "{needle}");
            assert_eq!(place.text, needle);
        }
        assert!(places.of(Span { file: 7, start: 0, end: 1 }).is_none());
        let past = places.of(Span { file: 0, start: 4, end: 9_999 }).expect("clamped");
        assert_eq!((past.line, past.column), (1, 4), "a byte inside a character is that character");
    }
}
