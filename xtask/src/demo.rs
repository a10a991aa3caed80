//! The best thing isobar can do today, shown on the shop.

use crate::run;
use anyhow::Result;

pub(crate) fn run(_args: &[String]) -> Result<()> {
    run::step("cargo", &["build", "--release", "--package", "cli"])?;
    let isobar = run::target_dir().join("release/isobar");
    let isobar = isobar.to_string_lossy();
    let picture = run::target_dir().join("shop.svg");
    let picture = picture.to_string_lossy();
    run::step(&isobar, &["check", "examples/shop"])?;
    run::step(&isobar, &["graph", "examples/shop", "--format", "svg", "-o", &picture])?;
    eprintln!("\nthe shop, drawn: {picture}");
    Ok(())
}
