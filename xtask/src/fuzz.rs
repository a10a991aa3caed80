//! Fuzzing on the stable compiler: the targets are plain functions and the driver (`fuzz/`) mutates corpora.

use crate::run;
use anyhow::Result;

pub(crate) fn run(args: &[String]) -> Result<()> {
    run::step("cargo", &["build", "--release", "--package", "fuzz"])?;
    let driver = run::target_dir().join("release/fuzz");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run::step(&driver.to_string_lossy(), &args)
}
