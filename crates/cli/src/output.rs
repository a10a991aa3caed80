//! Where words go and whether they are coloured.

use std::io::{self, IsTerminal, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// What is known of the two streams, decided once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    #[allow(dead_code, reason = "verbs that draw on stdout ask it")]
    pub(crate) color_stdout: bool,
    pub(crate) color_stderr: bool,
}

impl Terminal {
    pub(crate) fn new(when: When) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |terminal: bool| match when {
            _ if no_color => false,
            When::Always => true,
            When::Never => false,
            When::Auto => terminal,
        };
        Self {
            color_stdout: colored(io::stdout().is_terminal()),
            color_stderr: colored(io::stderr().is_terminal()),
        }
    }

    pub(crate) fn error(self, error: &anyhow::Error) {
        let (start, end) = if self.color_stderr { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(io::stderr(), "{start}error{end}: {error:#}");
    }
}

/// Columns of the terminal on stdout; without end where nobody looks at lines.
pub(crate) fn width() -> usize {
    if !io::stdout().is_terminal() {
        return usize::MAX;
    }
    let said = std::env::var("COLUMNS").ok().and_then(|it| it.parse::<usize>().ok());
    let told = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|it| usize::from(it.ws_col));
    said.or_else(told).filter(|it| *it > 0).unwrap_or(80)
}

/// Writes an answer to stdout in one go.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes an answer to a file, or to stdout when none is named.
pub(crate) fn deliver(file: Option<&std::path::Path>, text: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    match file {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display())),
        None => print(text),
    }
}

/// `isobar ... | head` closes our stdout: that is a reader who has enough, not a failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes words to stderr; a reader who has gone is no failure.
pub(crate) fn words(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
