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
        output::print(&table(&status))?;
    }
    Ok(exit::OK)
}

fn table(status: &Status) -> String {
    let mut rows = vec![
        ["INSTANCE", "STATE", "PORT", "VERSION", "PLACE", "CPU", "MEMORY", "RESTARTS", "AGE", "WHY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for service in &status.services {
        for it in &service.instances {
            let why = if it.state == "waiting" && !service.waits_for.is_empty() {
                format!("waits for {}", service.waits_for.join(" and for "))
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
    let mut text = columns(&rows);
    for address in &status.addresses {
        text.push_str(&format!("{:<8} {:<12} {}\n", address.kind, address.name, address.url));
    }
    for refused in status.refused.iter().take(1) {
        text.push_str(&format!("the newest file is refused: {refused}\n"));
    }
    text
}

fn row(it: &InstanceStatus, why: String) -> Vec<String> {
    let or_dash = |text: Option<String>| text.filter(|it| !it.is_empty()).unwrap_or_else(|| "-".to_owned());
    vec![
        it.name.clone(),
        it.state.clone(),
        or_dash(it.port.map(|port| port.to_string())),
        or_dash(Some(it.version.clone())),
        or_dash(Some(it.place.clone())),
        or_dash(it.cpu_ms.map(|ms| format!("{:.1}s", ms as f64 / 1e3))),
        or_dash(it.memory_bytes.map(|bytes| format!("{:.0}M", bytes as f64 / 1048576.0))),
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
