//! `isobar traffic`: the load on a running system, seen and changed.

use crate::client::{self, Which};
use crate::{exit, output};
use model::resolve::suggestion;
use serde_json::json;
use units::Rate;

/// Show, start, stop or change the built-in load
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar traffic                        what flows, and how it fares
  isobar traffic shoppers start
  isobar traffic shoppers 400/s")]
pub(crate) struct Args {
    /// A traffic of the file
    traffic: Option<String>,

    /// start, stop or a rate such as 400/s
    #[arg(value_parser = change)]
    change: Option<Change>,

    #[command(flatten)]
    which: Which,

    /// JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Start,
    Stop,
    Rate(Rate),
}

fn change(text: &str) -> Result<Change, String> {
    match text {
        "start" => Ok(Change::Start),
        "stop" => Ok(Change::Stop),
        text => {
            text.parse().map(Change::Rate).map_err(|error| format!("it is start, stop or a rate: {error}"))
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    if let (Some(name), Some(change)) = (&args.traffic, args.change) {
        let body = match change {
            Change::Start => json!({"running": true}),
            Change::Stop => json!({"running": false}),
            Change::Rate(rate) => json!({"rate_per_second": rate.per_second()}),
        };
        client::ask(&found, "PUT", &format!("/v1/traffic/{}", client::escape(name)), Some(&body))?;
        return Ok(exit::OK);
    }
    let status = client::status(&found)?;
    if let Some(name) =
        args.traffic.as_ref().filter(|it| !status.traffic.iter().any(|known| known.name == **it))
    {
        let known: Vec<&str> = status.traffic.iter().map(|it| it.name.as_str()).collect();
        anyhow::bail!("no traffic is called `{name}`; {}", suggestion(name, &known));
    }
    if status.traffic.is_empty() {
        output::words("the file has no traffic\n");
    }
    let wanted = |name: &str| args.traffic.as_ref().is_none_or(|it| it == name);
    for it in status.traffic.iter().filter(|it| wanted(&it.name)) {
        if args.json {
            output::print(&format!("{}\n", serde_json::to_string(it)?))?;
            continue;
        }
        let ms = |it: Option<f64>| it.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        output::print(&format!(
            "{:<12} to {:<12} {:<8} {:>8.1}/s  sent {}  failed {}  not sent {}  p50 {}  p99 {}\n",
            it.name,
            it.to,
            if it.running { "flows" } else { "stopped" },
            it.rate_per_second,
            it.sent,
            it.failed,
            it.not_sent,
            ms(it.p50_ms),
            ms(it.p99_ms)
        ))?;
    }
    Ok(exit::OK)
}
