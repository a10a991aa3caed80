//! `isobar check`: every mistake and every risk in the file.

use crate::output::{self, Terminal};
use crate::{exit, input};
use model::diagnostic::{Diagnostic, Severity};
use model::load::Loaded;
use model::render::{self, Places, Style, Tally};
use model::{check, lint};
use serde_json::json;
use std::path::PathBuf;

/// Find every mistake and every risk in a file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 nothing is wrong (risks may be listed), 1 a denied risk, 2 a mistake.

For example:
  isobar check                          the isobar.yaml of this folder
  isobar check shop.yaml --deny warnings
  isobar check --sarif > isobar.sarif   for a code host")]
pub(crate) struct Args {
    /// A file, a folder that holds isobar.yaml, or - for standard input
    #[arg(default_value = ".")]
    file: PathBuf,

    /// One JSON object a line: each mistake and risk, then a summary
    #[arg(long, conflicts_with = "sarif")]
    json: bool,

    /// A SARIF 2.1.0 log
    #[arg(long)]
    sarif: bool,

    /// The least severe risks to list
    #[arg(long, value_enum, default_value_t = Level::Note)]
    lint_level: Level,

    /// Fail on these risks: `warnings`, `notes`, or a code such as L007; may be given often
    #[arg(long, value_name = "WHAT", value_parser = deny)]
    deny: Vec<Deny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Error,
    Warning,
    Note,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Deny {
    AtLeast(Severity),
    Code(&'static str),
}

fn deny(text: &str) -> Result<Deny, String> {
    match text {
        "warning" | "warnings" => Ok(Deny::AtLeast(Severity::Warning)),
        "note" | "notes" => Ok(Deny::AtLeast(Severity::Note)),
        code => match lint::rule(code) {
            Some(rule) => Ok(Deny::Code(rule.code)),
            None => Err("it is `warnings`, `notes` or the code of a lint, such as L007".to_owned()),
        },
    }
}

impl Deny {
    fn covers(&self, risk: &Diagnostic) -> bool {
        match self {
            // The most severe comes first.
            Self::AtLeast(severity) => risk.severity <= *severity,
            Self::Code(code) => risk.code == *code,
        }
    }
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let loaded = input::read(&args.file)?;
    let mut risks = loaded.system().map(|system| lint::run(system, today())).unwrap_or_default();
    // A risk that says "error" will certainly hurt, and fails the check without being denied.
    let failed = risks
        .iter()
        .filter(|it| it.severity == Severity::Error || args.deny.iter().any(|deny| deny.covers(it)));
    let failed = failed.count();
    risks.retain(|it| match args.lint_level {
        Level::Error => it.severity == Severity::Error,
        Level::Warning => it.severity <= Severity::Warning,
        Level::Note => true,
        Level::None => false,
    });
    let mut all = loaded.diagnostics.clone();
    all.extend(risks);
    let code = match (loaded.is_good(), failed) {
        (false, _) => exit::USAGE,
        (true, 0) => exit::OK,
        (true, _) => exit::FAILED,
    };
    if args.sarif {
        let log = render::sarif(&loaded.sources, &all, env!("CARGO_PKG_VERSION"));
        output::print(&format!("{}\n", serde_json::to_string_pretty(&log)?))?;
    } else if args.json {
        let places = Places::new(&loaded.sources);
        let mut lines = String::new();
        for diagnostic in &all {
            lines.push_str(&format!("{}\n", render::json_line(&places, diagnostic)));
        }
        lines.push_str(&format!("{}\n", summary_json(&loaded, &all, failed)));
        output::print(&lines)?;
    } else {
        let style = Style { color: terminal.color_stderr, ..Style::default() };
        output::words(&render::human(&loaded.sources, &all, style));
        match loaded.system() {
            Some(_) => output::print(&format!("{}\n", summary(&loaded, &all, failed)))?,
            None => output::words(&format!("{}\n", mistakes(&loaded))),
        }
    }
    Ok(code)
}

fn counted(count: usize, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn mistakes(loaded: &Loaded) -> String {
    let path = loaded.sources.files.first().map(|it| it.path.display().to_string()).unwrap_or_default();
    format!("{path}: {}", counted(Tally::of(&loaded.diagnostics).errors, "mistake"))
}

/// `shop: 8 services, 3 teams, 2 regions, 14 edges; 5 lints`
fn summary(loaded: &Loaded, all: &[Diagnostic], failed: usize) -> String {
    let Some(system) = loaded.system() else { return mistakes(loaded) };
    let mut line = format!(
        "{}: {}, {}, {}, {}; {}",
        system.name,
        counted(system.services.len(), "service"),
        counted(system.teams.len(), "team"),
        counted(system.regions.len(), "region"),
        counted(check::edges(system).len(), "edge"),
        counted(all.len(), "lint"),
    );
    if failed > 0 {
        line.push_str(&format!(", {failed} of them denied"));
    }
    line
}

fn summary_json(loaded: &Loaded, all: &[Diagnostic], failed: usize) -> serde_json::Value {
    let tally = Tally::of(all);
    let files: Vec<String> = loaded.sources.files.iter().map(|it| it.path.display().to_string()).collect();
    let mut summary = json!({
        "kind": "summary",
        "ok": loaded.is_good() && failed == 0,
        "errors": tally.errors,
        "warnings": tally.warnings,
        "notes": tally.notes,
        "denied": failed,
        "files": files,
    });
    if let Some(system) = loaded.system() {
        summary["system"] = json!(system.name);
        summary["services"] = json!(system.services.len());
        summary["teams"] = json!(system.teams.len());
        summary["regions"] = json!(system.regions.len());
        summary["edges"] = json!(check::edges(system).len());
    }
    summary
}

/// Today in UTC: waivers end on a day, and an hour more or less is nobody's outage.
pub(crate) fn today() -> (u16, u8, u8) {
    #[allow(clippy::disallowed_methods, reason = "the edge: a waiver's end is compared with the real day")]
    let now = std::time::SystemTime::now();
    let days = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |it| it.as_secs() / 86_400);
    date_of(days)
}

/// The date so many days after 1970-01-01 (the civil calendar, counted from a first of March so that the odd day of a
/// leap year comes last).
fn date_of(days: u64) -> (u16, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (u16::try_from(year).unwrap_or(u16::MAX), month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_777, (2026, 11, 20)),
            (20_818, (2026, 12, 31)),
            (20_819, (2027, 1, 1)),
        ] {
            assert_eq!(date_of(days), date);
        }
    }

    #[test]
    fn what_is_denied_is_a_severity_or_a_code() {
        assert_eq!(deny("warnings"), Ok(Deny::AtLeast(Severity::Warning)));
        assert!(deny("L007").is_ok());
        assert!(deny("L999").is_err());
        assert!(deny("everything").is_err());
    }
}
