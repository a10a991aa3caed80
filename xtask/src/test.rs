//! What a change must pass, cheapest first, so that a slip is told before the long part.

use crate::{run, tidy};
use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    run::step("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    run::step("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    run::step("cargo", &["test", "--workspace", "--all-targets"])?;
    run::step("cargo", &["test", "--workspace", "--doc"])
}
