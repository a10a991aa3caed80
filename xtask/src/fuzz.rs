//! Fuzzing on the stable compiler: the targets are plain functions and the driver (`fuzz/`) mutates corpora. One process
//! a target, as many at once as there are cores, so that a minute each does not become an hour.

use crate::run;
use anyhow::{Context, Result, bail};
use std::process::{Child, Command};

pub(crate) fn run(args: &[String]) -> Result<()> {
    run::step("cargo", &["build", "--profile", "quick", "--package", "fuzz"])?;
    let driver = run::target_dir().join("quick/fuzz");
    let mut names: Vec<String> = Vec::new();
    let mut flags: Vec<String> = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word.starts_with("--") {
            flags.extend([word.clone(), words.next().cloned().unwrap_or_default()]);
        } else {
            names.push(word.clone());
        }
    }
    if names.is_empty() {
        let listed = run::output(&driver.to_string_lossy(), &["--list"])?;
        names = listed.lines().map(str::to_owned).collect();
    }
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut waiting = names.into_iter();
    let mut running: Vec<(String, Child)> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    loop {
        while running.len() < at_once
            && let Some(name) = waiting.next()
        {
            let child = Command::new(&driver)
                .arg(&name)
                .args(&flags)
                .current_dir(run::root())
                .spawn()
                .with_context(|| format!("cannot start {}", driver.display()))?;
            running.push((name, child));
        }
        if running.is_empty() {
            break;
        }
        // They all run for the same time, so waiting for the oldest keeps the others busy.
        let (name, mut child) = running.remove(0);
        if !child.wait()?.success() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("found something in {}: see fuzz/found/", failed.join(", "));
    }
    Ok(())
}
