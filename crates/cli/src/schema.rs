//! `isobar schema`: the file's JSON Schema, for editors.

use crate::{exit, output};

/// Print the JSON Schema of the file, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar schema > isobar.schema.json
and as the first line of isobar.yaml, for editors with a YAML language server:
  # yaml-language-server: $schema=isobar.schema.json")]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: &Args) -> anyhow::Result<u8> {
    output::print(&format!("{}\n", serde_json::to_string_pretty(&model::schema::schema())?))?;
    Ok(exit::OK)
}
