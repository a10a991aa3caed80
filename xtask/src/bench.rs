//! Speed as ratios to a named baseline in the same run. Each crate keeps its bench as `examples/bench.rs`, beside
//! the code it measures; this only finds and starts them.

use crate::run;
use anyhow::{Result, bail};

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
    for part in chosen {
        if part == "up" {
            // It looks at the binary from outside, as a person would.
            run::step("cargo", &["build", "--profile", profile, "--package", "cli"])?;
        }
        let mut command = vec!["run", "--profile", profile, "--package", part, "--example", "bench", "--"];
        command.extend(flags.iter().map(|flag| flag.as_str()));
        let binary = run::target_dir().join(profile).join("isobar");
        run::step_with("cargo", &command, &[("ISOBAR_BIN", binary.as_os_str())])?;
    }
    Ok(())
}
