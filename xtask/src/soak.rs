//! Running for long, under trouble: what grows, leaks or is answered wrongly once in a million shows only then. Each crate
//! keeps its soak as `examples/soak.rs`, beside the code that has to endure it.

use crate::run;
use anyhow::{Context, Result, bail};

struct Soak {
    name: &'static str,
    /// Where all of it is wired together.
    package: &'static str,
    seconds: u64,
}

const SOAKS: [Soak; 2] = [
    Soak { name: "proxy", package: "proxy", seconds: 600 },
    Soak { name: "telemetry", package: "control", seconds: 3_600 },
];

pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut seconds, mut profile, mut chosen) = (None, "release", Vec::new());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => profile = "quick",
            "--seconds" => {
                let text = words.next().context("--seconds wants a number")?;
                let number: u64 =
                    text.parse().with_context(|| format!("--seconds `{text}` is no whole number"))?;
                seconds = Some(number);
            }
            name => match SOAKS.iter().find(|it| it.name == name) {
                Some(soak) => chosen.push(soak),
                None => {
                    bail!(
                        "no soak is called `{name}`; there are: {}",
                        SOAKS.each_ref().map(|it| it.name).join(", ")
                    )
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen.extend(&SOAKS);
    }
    for soak in chosen {
        let seconds = seconds.unwrap_or(soak.seconds).to_string();
        let build = ["run", "--profile", profile, "--package", soak.package, "--example", "soak", "--"];
        run::step("cargo", &[&build[..], &["--seconds", &seconds]].concat())?;
    }
    Ok(())
}
