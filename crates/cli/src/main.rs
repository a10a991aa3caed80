//! # isobar: the binary
//!
//! One verb, one file in this folder: its flags, its help and its `run`. A verb turns words into calls of the crates
//! below and their answers into words; it decides nothing itself.
//!
//! Data goes to stdout and words to stderr; `--json` gives machines the same answer. The exit codes are in [`exit`].

mod answer;
mod check;
mod client;
mod columns;
mod completions;
mod diff;
mod edges;
mod exit;
mod explain;
mod graph;
mod import;
mod input;
mod logs;
mod measured;
mod output;
mod proxy;
mod ps;
mod scenario;
mod schema;
mod services;
mod sim;
mod slo;
mod stat;
mod table;
mod tap;
mod top;
mod trace;
mod traffic;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Gives the memory of closed connections back to the system, which the system's own allocator keeps, and wastes none
/// between the aligned parts of an open one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The weather map for microservices: forecast, run, break and watch a system that one file describes.
#[derive(Debug, Parser)]
#[command(
    name = "isobar",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// When to use colour; NO_COLOR always wins
    #[arg(long, global = true, value_enum, default_value_t = output::When::Auto)]
    color: output::When,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made in a process's life")]
enum Verb {
    Check(check::Args),
    Schema(schema::Args),
    Sim(sim::Args),
    Diff(diff::Args),
    Completions(completions::Args),
    Graph(graph::Args),
    Import(import::Args),
    Up(up::Args),
    Proxy(proxy::Args),
    Down(services::Down),
    Ps(ps::Args),
    Logs(logs::Args),
    Top(top::Args),
    Stat(stat::Args),
    Edges(edges::Args),
    Tap(tap::Args),
    Trace(trace::Args),
    Slo(slo::Args),
    /// Replace every instance of a service, one after another; a job runs again
    Restart(services::Named),
    /// Stop every instance of a service, until it is started again
    Stop(services::Named),
    /// Start what was stopped or given up
    Start(services::Named),
    Scale(services::Scale),
    Scenario(scenario::Args),
    Exec(services::Exec),
    Traffic(traffic::Args),
    Explain(explain::Args),
}

fn main() -> ExitCode {
    // A service is started through our own binary; nothing else may happen before it is.
    if let Some(code) = up::inner_word() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not mistakes; clap knows which stream each belongs on.
            let code = if error.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let terminal = output::Terminal::new(cli.color);
    let result = match cli.verb {
        Verb::Check(args) => check::run(&args, terminal),
        Verb::Schema(args) => schema::run(&args),
        Verb::Sim(args) => sim::run(&args, terminal),
        Verb::Diff(args) => diff::run(&args, terminal),
        Verb::Completions(args) => completions::run(&args),
        Verb::Graph(args) => graph::run(&args, terminal),
        Verb::Import(args) => import::run(&args, terminal),
        Verb::Up(args) => up::run(&args, terminal),
        Verb::Proxy(args) => proxy::run(&args, terminal),
        Verb::Down(args) => services::down(&args),
        Verb::Ps(args) => ps::run(&args),
        Verb::Logs(args) => logs::run(&args, terminal),
        Verb::Top(args) => top::run(&args, terminal),
        Verb::Stat(args) => stat::run(&args, terminal),
        Verb::Edges(args) => edges::run(&args, terminal),
        Verb::Tap(args) => tap::run(&args, terminal),
        Verb::Trace(args) => trace::run(&args, terminal),
        Verb::Slo(args) => slo::run(&args, terminal),
        Verb::Restart(args) => services::order(&args, "restart"),
        Verb::Stop(args) => services::order(&args, "stop"),
        Verb::Start(args) => services::order(&args, "start"),
        Verb::Scale(args) => services::scale(&args),
        Verb::Scenario(args) => scenario::run(&args, terminal),
        Verb::Exec(args) => services::exec(&args),
        Verb::Traffic(args) => traffic::run(&args),
        Verb::Explain(args) => explain::run(&args, terminal),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(exit::OK),
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(client::code_of(&error))
        }
    }
}
