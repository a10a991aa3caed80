//! Where something was written. Every value that a person may have to correct carries its place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A range of bytes in one source file. Small and `Copy`: a large model holds hundreds of thousands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index into [`Sources`].
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

/// A value and the place it was written. Comparing two files compares values, so equality ignores the place.
#[derive(Clone, Copy, Debug, Default)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The texts that were read, in reading order: the root file first, then its includes.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<Source>,
}

#[derive(Clone, Debug)]
pub struct Source {
    /// As the user would type it.
    pub path: PathBuf,
    pub text: String,
}

/// Where the lines of a system's texts begin, for those who say which line something came from. It says nothing about
/// what the system is: two systems that mean the same print the same whatever they were written in.
#[derive(Clone, Default)]
pub struct Origins(Arc<[(PathBuf, Vec<u32>)]>);

impl Origins {
    pub fn new(sources: &Sources) -> Self {
        let files = sources.files.iter().map(|file| {
            let breaks = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            (file.path.clone(), std::iter::once(0).chain(breaks.map(|(at, _)| at as u32 + 1)).collect())
        });
        Self(files.collect())
    }

    /// The file and the line, from 1, where a span begins. `None` if it is of no file: what is built in.
    pub fn line(&self, span: Span) -> Option<(&Path, usize)> {
        let (path, starts) = self.0.get(span.file as usize)?;
        Some((path, starts.partition_point(|it| *it <= span.start)))
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origins")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
        let sources = Sources { files: vec![file("a.yaml", "one\ntwo\n\nfour"), file("b.yaml", "")] };
        let origins = Origins::new(&sources);
        let line = |file, start| {
            let span = Span { file, start, end: start };
            origins.line(span).map(|(path, line)| format!("{}:{line}", path.display()))
        };
        let cases = [
            (0, 0, "a.yaml:1"),
            (0, 3, "a.yaml:1"),
            (0, 4, "a.yaml:2"),
            (0, 9, "a.yaml:4"),
            (1, 0, "b.yaml:1"),
        ];
        for (file, start, expected) in cases {
            assert_eq!(line(file, start).as_deref(), Some(expected));
        }
        assert_eq!(line(2, 0), None);
    }
}
