//! What is wrong or risky, as data: a code that never changes meaning, a place, words, and the likely fix.
//!
//! Rendering for a person (`text`), a program (JSON) and a code host (SARIF) all start from this one type.

use crate::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Cannot run: exit code 2.
    Error,
    /// Will hurt one day: a lint.
    Warning,
    /// Worth knowing.
    Note,
}

/// One mistake or one risk.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable: `E` for mistakes (`E0203`), `L` for risks (`L012`). Each has a page in `docs/`.
    pub code: &'static str,
    /// One sentence, naming the value.
    pub message: String,
    /// The place to look at first.
    pub span: Span,
    /// A few words under the underlined text.
    pub label: String,
    /// Other places that explain it ("first defined here").
    pub related: Vec<(Span, String)>,
    /// The likely fix, as an instruction: "did you mean `checkout`?".
    pub help: Option<String>,
    /// Text to put in place of `span`, when the fix is that simple.
    pub replacement: Option<String>,
}

impl Diagnostic {
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            label: String::new(),
            related: Vec::new(),
            help: None,
            replacement: None,
        }
    }

    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn related(mut self, span: Span, words: impl Into<String>) -> Self {
        self.related.push((span, words.into()));
        self
    }

    pub fn replacement(mut self, text: impl Into<String>) -> Self {
        self.replacement = Some(text.into());
        self
    }
}
