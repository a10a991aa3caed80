//! Reading the file every verb starts from: FILE, a folder with `isobar.yaml`, or `-` for standard input.
#![allow(dead_code, reason = "one place for reading; verbs use what applies to them")]

use crate::output::Terminal;
use model::load::{self, Disk, Loaded};
use model::render::{self, Style};
use model::span::Sources;
use model::system::System;
use std::io::Read;
use std::path::Path;

/// What the loader would read of a file, so that a pipe cannot fill the memory either.
const STDIN_MAX: u64 = (64 << 20) + 1;

pub(crate) fn read(file: &Path) -> anyhow::Result<Loaded> {
    if file != Path::new("-") {
        return Ok(load::load(&Disk, file));
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(STDIN_MAX).read_to_end(&mut bytes)?;
    // Includes of a text that came through a pipe are looked for here.
    Ok(load::load_text(&Disk, Path::new("stdin"), bytes))
}

/// The system, or `None` after its mistakes were written to stderr; then the exit code is [`crate::exit::USAGE`].
pub(crate) fn system(file: &Path, terminal: Terminal) -> anyhow::Result<Option<(System, Sources)>> {
    let loaded = read(file)?;
    if !loaded.is_good() {
        mistakes(&loaded, terminal);
        return Ok(None);
    }
    let sources = loaded.sources.clone();
    Ok(loaded.into_system().map(|system| (system, sources)))
}

/// Writes what is wrong to stderr, with a last line that counts.
pub(crate) fn mistakes(loaded: &Loaded, terminal: Terminal) {
    crate::output::words(&drawn(loaded, terminal));
}

pub(crate) fn drawn(loaded: &Loaded, terminal: Terminal) -> String {
    let style = Style { color: terminal.color_stderr, ..Style::default() };
    let drawn = render::human(&loaded.sources, &loaded.diagnostics, style);
    let count = render::Tally::of(&loaded.diagnostics).errors;
    let mistakes = if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") };
    let path = loaded.sources.files.first().map(|it| it.path.display().to_string()).unwrap_or_default();
    format!("{drawn}{path}: {mistakes}\n")
}
