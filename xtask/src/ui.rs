//! Builds the web map with npm into `web/dist`, which the `ui` crate embeds. Not part of `cargo build`: a clone
//! without Node must build, with a page that says how to get the real one.

use crate::run;
use anyhow::{Context, Result};
use std::path::Path;

pub(crate) fn run() -> Result<()> {
    install()?;
    clean(&run::root().join("web/dist"))?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "build"])?;
    run::step("node", &["web/scripts/compress.mjs", "web/dist"])
}

/// Types and unit tests of the page.
pub(crate) fn test() -> Result<()> {
    install()?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "check"])?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "test"])
}

fn install() -> Result<()> {
    run::step("npm", &["--prefix", "web", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
}

/// Everything but the file that keeps the folder itself in git.
fn clean(dist: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dist).with_context(|| dist.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if path.file_name().is_some_and(|name| name != ".gitignore") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
