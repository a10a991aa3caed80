//! # xtask: every chore and every check
//!
//! `cargo xtask test` is what a change must pass; `.ci/run` runs it and what is too slow for it. Chores are Rust
//! so that they read like the rest and need no shell.

mod bench;
mod demo;
mod fuzz;
mod run;
mod soak;
mod test;
mod tidy;
mod ui;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <chore>

  test                formatting, clippy with warnings denied, every test, doc tests, tidy
  tidy                the rules of the house: who may depend on whom, what is banned where, and why
  demo [--seconds N]  the shop, run live with customers, and the address of its map
  bench [PART...] [--quick] [--json]
                      speed as ratios: model, sim, proxy, telemetry, up (all that exist when none is named);
                      --quick builds faster what runs nearly as fast; telemetry and control write
                      target/bench/NAME.json; of `up` also --out=FILE writes the figures as JSON, --only=PART
                      measures one of sixty, replacement, three_hundred, check_ins
  fuzz [TARGET...] [--seconds N]
                      every fuzz target on its corpus and on mutations of it (default 60 s each)
  soak [proxy|telemetry] [--seconds N] [--quick]
                      the proxy for 10 minutes under reloads, dying instances and clients that misbehave; all
                      telemetry at once for an hour: nothing may grow that has no budget
  ui                  build the web map (needs Node)
  ui test [--browser] check its types and test its parts; or test the page in Chromium, with a real system behind it
  ui bench | ui shots [FOLDER]
                      measure the page in Chromium against its marks; or take a picture of every view
  ci                  what CI runs: .ci/run
";

#[allow(clippy::print_stdout, reason = "chores talk to a person")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (chore, rest) = match args.split_first() {
        Some((chore, rest)) => (chore.as_str(), rest),
        None => ("", &[][..]),
    };
    let result = match chore {
        "test" => test::run(),
        "tidy" => tidy::run(),
        "demo" => demo::run(rest),
        "bench" => bench::run(rest),
        "fuzz" => fuzz::run(rest),
        "soak" => soak::run(rest),
        "ui" => ui::run(rest),
        "ci" => run::step("bash", &[".ci/run"]),
        "" | "help" | "-h" | "--help" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        unknown => Err(anyhow::anyhow!("no chore is called `{unknown}`\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
