//! Diagnostics for a person ([`human`]), a program ([`json`]) and a code host ([`sarif`]).
//!
//! All three start from the same [`Diagnostic`]s and the same [`Places`]. What a user wrote is shown inertly: no
//! control character, colour code or text direction of theirs reaches a terminal, and a line of a megabyte is cut
//! around the place that matters.

mod human;
mod json;
mod place;
mod sarif;

pub use human::{Style, human};
pub use json::{json, json_line};
pub use place::{Place, Places};
pub use sarif::sarif;

use crate::diagnostic::{Diagnostic, Severity};

/// Where the pages of `docs/` are published; every code has one.
pub const DOCS_URL: &str = "https://isobar.example/docs";

/// The page that explains a code: mistakes under `errors`, risks under `lints`.
pub fn page_of(code: &str) -> String {
    let folder = if code.starts_with('E') { "errors" } else { "lints" };
    format!("{DOCS_URL}/{folder}/{code}.md")
}

/// How many of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub errors: usize,
    pub warnings: usize,
    pub notes: usize,
}

impl Tally {
    pub fn of(diagnostics: &[Diagnostic]) -> Self {
        let count = |severity| diagnostics.iter().filter(|it| it.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
        }
    }
}

pub(crate) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}
