//! # import: files of others become a file of ours
//!
//! In: the bytes of a spigo architecture or a compose file. Out: the text of an isobar file that passes `check`, and a
//! list of everything it could not carry over, each with its place and the reason. Nothing is guessed: what the other
//! format does not say is left out, and what ours cannot say is listed, in the file too.
//!
//! An importer reads no other file and no environment, so a value that depends on one is listed, not looked up.

pub mod compose;
mod names;
pub mod spigo;
mod write;

use std::fmt;

use crate::diagnostic::Diagnostic;
use crate::span::Sources;

/// The largest file an importer reads; real ones are a thousandth of it.
pub const BYTES_MAX: usize = 32 << 20;

/// A finished import.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// A whole isobar file.
    pub text: String,
    /// In the order in which the source says it.
    pub dropped: Vec<Dropped>,
}

/// Something that was in the source and is not, or not as it was, in the import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where it was: `services.web.logging`, `services[3].machine`.
    pub path: String,
    /// Why, and what to do if it matters.
    pub reason: String,
}

impl Dropped {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        let path = path.into();
        // A key may be empty; a place may not.
        Self { path: if path.is_empty() { "\"\"".into() } else { path }, reason: reason.into() }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// Why a file cannot be imported at all.
#[derive(Clone, Debug)]
pub enum ImportError {
    /// What is wrong with which value, and the likely fix; `path` is empty for the file as a whole.
    Wrong { path: String, problem: String, fix: String },
    /// The text itself cannot be read.
    Text { sources: Sources, diagnostics: Vec<Diagnostic> },
}

impl ImportError {
    fn wrong(path: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Wrong { path: path.into(), problem: problem.into(), fix: fix.into() }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { path, problem, fix } if path.is_empty() => write!(f, "{problem}; {fix}"),
            Self::Wrong { path, problem, fix } => write!(f, "{path}: {problem}; {fix}"),
            Self::Text { diagnostics, .. } => {
                let messages: Vec<&str> = diagnostics.iter().map(|it| it.message.as_str()).collect();
                f.write_str(&messages.join("; "))
            }
        }
    }
}

impl std::error::Error for ImportError {}

/// Bytes as text: a byte order mark is passed over, anything that is not UTF-8 is refused.
fn text_of(bytes: &[u8]) -> Result<&str, ImportError> {
    if bytes.len() > BYTES_MAX {
        let problem = format!("{} bytes are more than an importer reads ({BYTES_MAX})", bytes.len());
        return Err(ImportError::wrong("", problem, "is it the right file?"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => Err(ImportError::wrong(
            "",
            format!("byte {} is not UTF-8", error.valid_up_to() + 1),
            "save the file as UTF-8",
        )),
    }
}

/// A value in a message, short enough to read.
fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut short: String =
        text.chars().take(SHOWN_MAX).map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push_str("...");
    }
    short
}
