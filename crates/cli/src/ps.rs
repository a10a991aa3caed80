//! `isobar ps`: every instance and how it is.

use crate::client::{self, Which};
use crate::{exit, output};
use control::status::{InstanceStatus, Status};

/// Show every service and instance of a running system
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,

    /// The whole status as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    let status = client::status(&found)?;
    if args.json {
        output::print(&format!("{}\n", serde_json::to_string(&status)?))?;
    } else {
        let registered = client::ask(&found, "GET", "/v1/instances", None)?;
        let registered: serde_json::Value = serde_json::from_str(&registered)?;
        output::print(&table(&status, registered["instances"].as_array().map_or(&[], Vec::as_slice)))?;
    }
    Ok(exit::OK)
}

fn table(status: &Status, registered: &[serde_json::Value]) -> String {
    let mut rows = vec![
        ["INSTANCE", "STATE", "PORT", "VERSION", "PLACE", "CPU", "MEMORY", "RESTARTS", "AGE", "WHY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for service in &status.services {
        for it in &service.instances {
            let why = if it.state == "waiting" && !service.waits_for.is_empty() {
                let on: Vec<&str> = service.waits_for.iter().filter_map(|it| it.lines().next()).collect();
                format!("waits for {}", on.join(" and for "))
            } else {
                it.detail.lines().next().unwrap_or("").to_owned()
            };
            rows.push(row(it, why));
        }
        if service.instances.is_empty() {
            let mut row = vec![String::new(); 10];
            (row[0], row[1]) = (service.name.clone(), "scaled to 0".to_owned());
            rows.push(row);
        }
    }
    for it in registered {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let said = &it["instance"];
        let port = text(&said["address"]).rsplit_once(':').map_or_else(String::new, |it| it.1.to_owned());
        let place = [text(&said["region"]), text(&said["zone"])].join("/").trim_matches('/').to_owned();
        let lease = if it["in_discovery"] == true { "" } else { ", which no longer checks in" };
        let mut row = vec![format!("{}/{}", text(&it["service"]), text(&it["id"])), text(&it["health"])];
        row.extend([port, text(&said["version"]), place].map(or_dash));
        row.extend(["-", "-", "-", "-"].map(str::to_owned));
        row.push(format!("registered from elsewhere{lease}"));
        rows.push(row);
    }
    let mut text = columns(&rows);
    let shared = status.services.iter().flat_map(|it| &it.instances).find_map(|it| it.shared_by);
    if let Some(shared) = shared {
        text.push_str(&format!(
            "~ an equal share of isobar's own process, which plays {shared} synthetic instance{}\n",
            if shared == 1 { "" } else { "s" }
        ));
    }
    for address in &status.addresses {
        let note = address.note.as_ref().map_or_else(String::new, |note| format!("   ({note})"));
        text.push_str(&format!("{:<8} {:<12} {}{note}\n", address.kind, address.name, address.url));
    }
    for refused in status.refused.iter().take(1) {
        text.push_str(&format!("the newest file is refused: {refused}\n"));
    }
    text
}

fn row(it: &InstanceStatus, why: String) -> Vec<String> {
    let about = if it.shared_by.is_some() { "~" } else { "" };
    let or_dash = |text: Option<String>| text.filter(|it| !it.is_empty()).unwrap_or_else(|| "-".to_owned());
    vec![
        it.name.clone(),
        it.state.clone(),
        or_dash(it.port.map(|port| port.to_string())),
        or_dash(Some(it.version.clone())),
        or_dash(Some(it.place.clone())),
        or_dash(it.cpu_cores.map(|cores| format!("{about}{:.1}%", cores * 100.0))),
        or_dash(it.memory_bytes.map(|bytes| format!("{about}{:.1}M", bytes as f64 / 1_048_576.0))),
        it.restarts.to_string(),
        age(it.age_ms),
        why,
    ]
}

fn age(ms: u64) -> String {
    match ms / 1_000 {
        0 => "-".to_owned(),
        s @ 1..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}min", s / 60),
        s => format!("{}h", s / 3_600),
    }
}

/// Rows under each other, two spaces between columns, nothing at the ends of lines.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|it| it.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
