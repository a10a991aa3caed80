//! `isobar explain`: the policy in force on a call, and which line of the file each part came from.

use crate::client::Which;
use crate::output::{self, Terminal};
use crate::{exit, input};
use anyhow::Context;
use model::render::Places;
use model::resolve::suggestion;
use model::system::{Caller, OperationId, ServiceId, System};
use serde_json::json;
use std::path::PathBuf;

/// Show which policy governs a call, and which line of the file set each part of it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar explain web cart                   a service calls another
  isobar explain web cart 'GET /cart/{id}'  one operation of it
  isobar explain edge web                   a gateway calls a service")]
pub(crate) struct Args {
    /// A service or a gateway
    caller: String,

    /// A service
    callee: String,

    /// One of its operations
    operation: Option<String>,

    /// A file, a folder that holds isobar.yaml, or - for standard input; without it the isobar.yaml of this folder, and
    /// where there is none the file of the system that is up
    #[arg(short, long)]
    file: Option<PathBuf>,

    #[command(flatten)]
    which: Which,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let Some((system, sources)) = input::system(&file(args)?, terminal)? else { return Ok(exit::USAGE) };
    let caller = find_caller(&system, &args.caller)?;
    let callee = find_service(&system, &args.callee)?;
    let operation = args.operation.as_ref().map(|name| find_operation(&system, callee, name)).transpose()?;
    let in_force = system.policy(caller, callee, operation);
    let places = Places::new(&sources);
    let set_at = |key: &str| {
        let (_, span) = in_force.set_by.iter().find(|(name, _)| *name == key)?;
        let place = places.of(*span)?;
        Some((place.path.display().to_string(), place.line))
    };
    let parts = model::policy_words::in_words(&in_force.settings);
    if args.json {
        let parts: Vec<serde_json::Value> = parts
            .iter()
            .map(|(key, value)| {
                let at = set_at(key).map(|(path, line)| json!({"path": path, "line": line}));
                json!({"key": key, "value": value, "set_by": at})
            })
            .collect();
        let answer = json!({"caller": args.caller, "callee": args.callee, "operation": args.operation, "policy": parts});
        output::print(&format!("{answer}\n"))?;
        return Ok(exit::OK);
    }
    let operation = args.operation.as_ref().map_or_else(String::new, |it| format!(" {it:?}"));
    let mut text = format!("{} -> {}{operation}\n", args.caller, args.callee);
    for (key, value) in parts {
        let by = set_at(key).map_or("built in".to_owned(), |(path, line)| format!("{path}:{line}"));
        text.push_str(&format!("  {key:<12} {by:<28} {value}\n"));
    }
    output::print(&text)?;
    Ok(exit::OK)
}

fn file(args: &Args) -> anyhow::Result<PathBuf> {
    let here = PathBuf::from(".");
    match &args.file {
        Some(file) => Ok(file.clone()),
        None if args.which.name.is_none() && here.join("isobar.yaml").exists() => Ok(here),
        None => {
            let up =
                args.which.find().context("there is no isobar.yaml in this folder (-f names a file), and")?;
            let shorter =
                std::env::current_dir().ok().and_then(|it| Some(up.file.strip_prefix(it).ok()?.to_owned()));
            Ok(shorter.unwrap_or(up.file))
        }
    }
}

fn find_caller(system: &System, name: &str) -> anyhow::Result<Caller> {
    if let Some((id, _)) = system.gateways.enumerate().find(|(_, it)| it.name.value == name) {
        return Ok(Caller::Gateway(id));
    }
    find_service(system, name).map(Caller::Service)
}

fn find_service(system: &System, name: &str) -> anyhow::Result<ServiceId> {
    let found = system.services.enumerate().find(|(_, it)| it.name.value == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let known: Vec<&str> = system.services.iter().map(|it| it.name.value.as_str()).collect();
        anyhow::anyhow!("no service is called `{name}`; {}", suggestion(name, &known))
    })
}

fn find_operation(system: &System, service: ServiceId, name: &str) -> anyhow::Result<OperationId> {
    let operations = &system.services[service].operations;
    let found = operations.enumerate().find(|(_, it)| it.name.value == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let known: Vec<&str> = operations.iter().map(|it| it.name.value.as_str()).collect();
        anyhow::anyhow!("it has no operation `{name}`; {}", suggestion(name, &known))
    })
}
