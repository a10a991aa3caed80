//! Speed as ratios to a named baseline in the same run. Each crate keeps its bench as `examples/bench.rs`, beside
//! the code it measures; this only finds and starts them.

use crate::run;
use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[String]) -> Result<()> {
    let known: Vec<String> = std::fs::read_dir(run::root().join("crates"))?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("examples/bench.rs").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let profile = if quick { "quick" } else { "release" };
    let (parts, flags): (Vec<&String>, Vec<&String>) =
        args.iter().filter(|arg| *arg != "--quick").partition(|arg| !arg.starts_with("--"));
    if let Some(unknown) = parts.iter().find(|part| !known.contains(part)) {
        bail!("no bench is called `{unknown}`; there are: {}", known.join(", "));
    }
    let mut chosen: Vec<&String> = if parts.is_empty() { known.iter().collect() } else { parts };
    // What statistics cost the proxy is telemetry's mark, measured where both are wired together.
    let cost = known.iter().find(|part| *part == "control" && !chosen.contains(part));
    if let (true, Some(cost)) = (chosen.iter().any(|part| *part == "telemetry"), cost) {
        chosen.push(cost);
    }
    let figures = run::target_dir().join("bench");
    std::fs::create_dir_all(&figures).with_context(|| format!("cannot make {}", figures.display()))?;
    let mut missed = Vec::new();
    for part in chosen {
        if part == "up" {
            // It looks at the binary from outside, as a person would.
            run::step("cargo", &["build", "--profile", profile, "--package", "cli"])?;
        }
        let mut command = vec!["run", "--profile", profile, "--package", part, "--example", "bench", "--"];
        command.extend(flags.iter().map(|flag| flag.as_str()));
        let binary = run::target_dir().join(profile).join("isobar");
        let figures = figures.join(format!("{part}.json"));
        let variables = [("ISOBAR_BIN", binary.as_os_str()), ("ISOBAR_BENCH_JSON", figures.as_os_str())];
        if let Err(error) = run::step_with("cargo", &command, &variables) {
            missed.push(format!("{part}: {error}"));
        }
    }
    // One that misses a mark must not keep the others from being measured.
    if !missed.is_empty() {
        bail!("{}", missed.join("; "));
    }
    Ok(())
}
