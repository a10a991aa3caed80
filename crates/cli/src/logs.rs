//! `isobar logs`: what services say and said, running or not.

use crate::client::{self, Which};
use crate::exit;
use crate::output::{self, Terminal};
use anyhow::Context;
use model::resolve::suggestion;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use units::Nanos;
use up::logs::{Query, Record, Stream, Tail, read};
use up::state::{self, Folder, Found};

/// Show what services say, merged in the order of time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar logs cart -f                   as it comes
  isobar logs web#1 --since 5min        one instance, the last five minutes
  isobar logs --grep 'timeout|refused'  of everybody
  isobar logs --id 4bf92f3577b34da6     every line of one request or trace")]
pub(crate) struct Args {
    /// Services, or instances such as web#1; all if none is named
    services: Vec<String>,

    #[command(flatten)]
    which: Which,

    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,

    /// Not older than this: 5min, 1h
    #[arg(long, value_name = "DURATION")]
    since: Option<Nanos>,

    /// Only lines that match this regular expression
    #[arg(long, value_name = "PATTERN")]
    grep: Option<regex::Regex>,

    /// Only lines that hold this trace id or request id
    #[arg(long)]
    id: Option<String>,

    /// One JSON object a line; lines that are JSON themselves have their fields under `fields`
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let (logs, found) = folder(&args.which)?;
    // One that has not said a word yet has no folder of its own; one that the file lost has no line in the status.
    let unsaid = args.services.iter().map(|it| it.split('#').next().unwrap_or(it).to_owned());
    let unsaid: Vec<String> = unsaid.filter(|it| !logs.join(it).is_dir()).collect();
    if !unsaid.is_empty() {
        match &found {
            Some(found) => client::all_known(found, unsaid.iter())?,
            None => {
                let said = said_before(&logs);
                let known: Vec<&str> = said.iter().map(String::as_str).collect();
                let hint = suggestion(&unsaid[0], &known);
                let run = logs.parent().and_then(|it| it.file_name()).unwrap_or_default().to_string_lossy();
                anyhow::bail!("`{run}`, which ran last, kept nothing of `{}`; {hint}", unsaid[0]);
            }
        }
    }
    let query = Query {
        services: args.services.clone(),
        since_unix_nanos: args.since.map_or(0, |since| now().saturating_sub(since.as_u64())),
        grep: args.grep.clone(),
        id: args.id.clone(),
    };
    // Where following begins is fixed before the past is read, so that nothing falls between.
    let mut tail =
        Tail::from_end(&logs, query.clone()).with_context(|| format!("cannot read {}", logs.display()))?;
    let mut last = 0;
    for record in read(&logs, &query)? {
        last = record.unix_nanos;
        show(&record, args.json, terminal)?;
    }
    if !args.follow {
        return Ok(exit::OK);
    }
    // Until the reader has enough, which is an error of writing and ends it.
    loop {
        for record in tail.poll()? {
            // Written while the past was being read: already shown.
            if record.unix_nanos > last {
                show(&record, args.json, terminal)?;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Of the run that is meant, or of the one that ran last.
fn folder(which: &Which) -> anyhow::Result<(PathBuf, Option<Found>)> {
    let root = state::root();
    match (which.find(), &which.name) {
        (Ok(found), _) => Ok((Folder::new(&root, &found.name).logs(), Some(found))),
        (Err(error), Some(name)) => {
            let logs = Folder::new(&root, name).logs();
            if logs.is_dir() { Ok((logs, None)) } else { Err(error) }
        }
        // Several are up and none is meant more than another: which one ran last is no answer to that.
        (Err(error), None) if client::code_of(&error) != exit::UNREACHABLE => Err(error),
        (Err(error), None) => {
            let newest = std::fs::read_dir(&root).ok().and_then(|entries| {
                let logs = entries.flatten().map(|it| it.path().join("logs")).filter(|it| it.is_dir());
                logs.max_by_key(|it| it.metadata().and_then(|it| it.modified()).ok())
            });
            newest.map(|it| (it, None)).ok_or(error)
        }
    }
}

/// The services that have a folder.
fn said_before(logs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|it| it.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn show(record: &Record, json: bool, terminal: Terminal) -> anyhow::Result<()> {
    if json {
        return output::print(&format!("{}\n", record.to_json()));
    }
    let (dim, red, end) =
        if terminal.color_stdout { ("\x1b[2m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
    let mark = match record.stream {
        Stream::Out => format!("{dim}|{end}"),
        Stream::Err => format!("{red}!{end}"),
        Stream::Isobar => format!("{dim}*{end}"),
    };
    let name = format!("{}#{}", record.service, record.instance);
    output::print(&format!("{dim}{}{end} {name:<14} {mark} {}\n", clock(record.unix_nanos), record.text))
}

/// The time of day in UTC: what machines agree on.
fn clock(unix_nanos: u64) -> String {
    let ms = unix_nanos / 1_000_000;
    let s = ms / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}", s / 3_600 % 24, s / 60 % 60, s % 60, ms % 1_000)
}

/// A person's "five minutes ago" is measured on the clock that stamped the lines.
#[allow(clippy::disallowed_methods)]
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
}
