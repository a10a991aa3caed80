//! `isobar graph`: the system as a picture, or in a graph format of others.

use crate::output::{self, Terminal};
use crate::{exit, input};
use model::draw::levels::{self, Level};
use model::draw::{Format, Stamp};
use std::path::{Path, PathBuf};

/// Draw the system, its teams, its services or its instances
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar graph -o shop.svg                         a picture of this folder's isobar.yaml
  isobar graph shop.yaml --team -o teams.svg       who waits for whom
  isobar graph shop.yaml --level instance --format json
  isobar graph shop.yaml --format mermaid          for Markdown")]
pub(crate) struct Args {
    /// A file, a folder that holds isobar.yaml, or - for standard input
    #[arg(default_value = ".")]
    file: PathBuf,

    /// svg, dot, mermaid, graphml, json, d3 or spigo; without it, what the output's name ends in, else svg
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// system, team, service or instance
    #[arg(long, value_name = "LEVEL", default_value_t = Level::Service, conflicts_with = "team")]
    level: Level,

    /// The organisation: teams, and the calls between their services (short for --level team)
    #[arg(long)]
    team: bool,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let Some((system, _)) = input::system(&args.file, terminal)? else { return Ok(exit::USAGE) };
    let level = if args.team { Level::Team } else { args.level };
    let diagram = levels::diagram(&system, level)?;
    let format = args.format.or_else(|| args.output.as_deref().and_then(format_of)).unwrap_or_default();
    // No date: the same file must give the same bytes tomorrow.
    let stamp =
        Stamp { date: String::new(), args: format!("[isobar graph --format {format} --level {level}]") };
    output::deliver(args.output.as_deref(), &diagram.write(format, &stamp))?;
    Ok(exit::OK)
}

fn format_of(file: &Path) -> Option<Format> {
    match file.extension()?.to_str()? {
        "gv" => Some(Format::Dot),
        "mmd" => Some(Format::Mermaid),
        word => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        for (file, format) in [
            ("a.svg", Some(Format::Svg)),
            ("a.dot", Some(Format::Dot)),
            ("a.gv", Some(Format::Dot)),
            ("a.mmd", Some(Format::Mermaid)),
            ("a.json", Some(Format::Json)),
            ("a.graphml", Some(Format::GraphMl)),
            ("a.png", None),
            ("svg", None),
        ] {
            assert_eq!(format_of(Path::new(file)), format, "{file}");
        }
    }
}
