//! Builds the web map with npm into `web/dist`, which the `ui` crate embeds. Not part of `cargo build`: a clone
//! without Node must build, with a page that says how to get the real one.
//!
//! What a browser is needed for (tests, measurements, pictures) says "skipped" where there is none.

use crate::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => build(),
        ["test"] => test(),
        ["test", "--browser"] => browser_test(),
        ["bench"] => with_browser("quick", &["web/tests/bench.mjs"]),
        ["bench", seconds] => with_browser("quick", &["web/tests/bench.mjs", seconds]),
        ["shots"] => with_browser("quick", &["web/tests/shots.mjs", "target/shots"]),
        ["shots", folder] => with_browser("quick", &["web/tests/shots.mjs", folder]),
        _ => bail!(
            "ui takes nothing, `test`, `test --browser`, `bench [SECONDS]` or `shots [FOLDER]`, not `{}`",
            args.join(" ")
        ),
    }
}

pub(crate) fn build() -> Result<()> {
    install()?;
    clean(&run::root().join("web/dist"))?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "build"])?;
    run::step("node", &["web/scripts/compress.mjs", "web/dist"])
}

/// Types and unit tests of the page.
fn test() -> Result<()> {
    install()?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "check"])?;
    finds_a_mistake()?;
    run::step("npm", &["--prefix", "web", "run", "--silent", "test"])
}

/// A checker that finds nothing is believed only if it finds what was put there to be found.
fn finds_a_mistake() -> Result<()> {
    let seeded = run::root().join("web/tests/seeded");
    let status = Command::new("npx")
        .args(["--prefix", "..", "svelte-check", "--tsconfig", "./tsconfig.json"])
        .current_dir(seeded)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start `npx`")?;
    if status.success() {
        bail!("svelte-check did not see the mistake in web/tests/seeded: it checks nothing");
    }
    Ok(())
}

/// The page in a browser, with a real system behind it.
fn browser_test() -> Result<()> {
    with_browser(
        "dev",
        // One file after the other: two systems and two browsers at once are slow, and slow is what some of them look for.
        &[
            "--test",
            "--test-concurrency=1",
            "--test-reporter=spec",
            "web/tests/e2e/map.test.mjs",
            "web/tests/e2e/states.test.mjs",
        ],
    )
}

/// Runs a script with Node that finds a browser in `CHROMIUM` and an `isobar` with today's page in `ISOBAR`: built for it,
/// unless `ISOBAR` already names one.
fn with_browser(profile: &str, node: &[&str]) -> Result<()> {
    let Some(browser) = browser() else {
        eprintln!(
            "skipped: chromium is not installed (Debian: apt-get install chromium; or name one in CHROMIUM)"
        );
        return Ok(());
    };
    let isobar = match std::env::var_os("ISOBAR") {
        // One that is there already, with the page it was built with.
        Some(named) => {
            install()?;
            if !run::root().join("web/dist/index.html").exists() {
                build()?;
            }
            std::path::absolute(named)?
        }
        None => {
            build()?;
            run::step("cargo", &["build", "--profile", profile, "--package", "cli"])?;
            let folder = if profile == "dev" { "debug" } else { profile };
            run::target_dir().join(folder).join("isobar")
        }
    };
    eprintln!("\x1b[2m$ node {}\x1b[0m", node.join(" "));
    let status = Command::new("node")
        .args(node)
        .current_dir(run::root())
        .env("CHROMIUM", browser)
        .env("ISOBAR", isobar)
        .status()
        .context("cannot start `node`")?;
    if !status.success() {
        bail!("`node {}` failed ({status})", node.join(" "));
    }
    Ok(())
}

fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    named.into_iter().chain(known.map(PathBuf::from)).find(|it| it.exists())
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
