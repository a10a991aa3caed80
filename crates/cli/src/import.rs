//! `isobar import`: a file of ours from somebody else's.

use crate::exit;
use crate::output::{self, Terminal};
use anyhow::Context;
use model::import::{self, ImportError, Imported};
use model::load;
use model::render::{self, Style};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Turn a file of another tool into an isobar file
///
/// What could not be carried over is listed on stderr and on top of the new file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// A spigo architecture (json_arch/*_arch.json)
    Spigo {
        #[command(flatten)]
        common: Common,

        /// Multiply every service's regions, as spigo's -w
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=6))]
        regions: u32,

        /// Scale every count to this percentage, rounded down, as spigo's -p
        #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        scale: u32,
    },
    /// A docker compose file, of any version
    Compose {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The file to import, or - for standard input
    file: PathBuf,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// One JSON object: the new file's text and what was not carried over
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let (common, imported) = match &args.kind {
        Kind::Spigo { common, regions, scale } => {
            let options = import::spigo::Options { regions: *regions, scale: *scale };
            (common, import::spigo::import(&read(&common.file)?, options))
        }
        Kind::Compose { common } => {
            (common, import::compose::import(&read(&common.file)?, &folder_of(&common.file)))
        }
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err(ImportError::Text { mut sources, diagnostics }) => {
            sources.files[0].path.clone_from(&common.file);
            let style = Style { color: terminal.color_stderr, ..Style::default() };
            output::words(&render::human(&sources, &diagnostics, style));
            return Ok(exit::USAGE);
        }
        Err(error) => return Err(anyhow::anyhow!("{}: {error}", common.file.display())),
    };
    // What we write must be a file we accept; a person should not be the first to find out.
    let loaded = load::load_str(&imported.text);
    if let Some(mistake) = loaded.diagnostics.first().filter(|_| !loaded.is_good()) {
        anyhow::bail!(
            "the import of {} made a wrong file ({}): please report it",
            common.file.display(),
            mistake.message
        );
    }
    if common.json {
        let dropped: Vec<_> =
            imported.dropped.iter().map(|it| json!({"path": it.path, "reason": it.reason})).collect();
        let answer = json!({"text": imported.text, "dropped": dropped});
        output::deliver(common.output.as_deref(), &format!("{answer}\n"))?;
        return Ok(exit::OK);
    }
    output::deliver(common.output.as_deref(), &imported.text)?;
    output::words(&words(&imported));
    Ok(exit::OK)
}

fn words(imported: &Imported) -> String {
    let lines: Vec<String> = imported.dropped.iter().map(|it| format!("  {it}\n")).collect();
    match lines.len() {
        0 => String::new(),
        1 => format!("not carried over:\n{}", lines.concat()),
        count => format!("not carried over ({count}):\n{}", lines.concat()),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    // One byte more than an importer takes tells it that there is too much.
    let limit = import::BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let context = || format!("cannot read {}", file.display());
    let mut opened = std::fs::File::open(file).with_context(context)?.take(limit);
    opened.read_to_end(&mut bytes).with_context(context)?;
    Ok(bytes)
}

/// compose names a project after its folder.
fn folder_of(file: &Path) -> String {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = folder.canonicalize().unwrap_or(folder);
    folder.file_name().and_then(|it| it.to_str()).unwrap_or("compose").to_owned()
}
