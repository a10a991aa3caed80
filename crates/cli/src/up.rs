//! `isobar up`: run the whole system here.
//!
//! Two processes. The outer one is what the terminal sees: it passes signals on and does nothing else, so that it is
//! still there when the inner one, which does everything, is killed; then it ends whatever the inner one left. The
//! inner one asks the kernel to be told when the outer one ends. So either may be killed, and nothing is left.
//!
//! And a third one, which sleeps: it holds the reading end of a pipe whose writing ends only the other two have. When
//! both are gone, however they went, it reads the end, ends what carries the run's mark, and goes. What services
//! started themselves does not die with us as they do, and would otherwise stay until the next start heals the folder.

use crate::output::{self, Terminal};
use crate::{client, exit, input};
use anyhow::Context;
use model::resolve::suggestion;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use up::process;
use up::run::{Options, Say};
use up::state::{self, Folder};

/// First argument of the inner process. Its second is the outer one's pid, its third the run's id; the rest are those of `up`.
const INNER: &str = "__inner";
/// First argument of the outer process of `up -d`. Its second is the name of the run.
const KEEPER: &str = "__keeper";
/// First argument of the third process. Its second is the mark of the run.
const MOURNER: &str = "__mourner";

/// Run the whole system on this machine
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
ctrl-c stops everything, dependents first; once more kills. Nothing is left behind, however isobar ends.

For example:
  isobar up                             the isobar.yaml of this folder
  isobar up examples/shop -d            in the background; `isobar down` ends it
  isobar up --without cart              all but one service
  isobar up --places                    zones and regions as far apart as they are
  isobar up --name second               a second copy beside the first")]
pub(crate) struct Args {
    /// A file, or a folder that holds isobar.yaml
    #[arg(default_value = ".")]
    file: PathBuf,

    /// Return once everything is ready, and go on in the background
    #[arg(short, long)]
    detach: bool,

    /// Leave a service out; may be given often
    #[arg(long, value_name = "SERVICE")]
    without: Vec<String>,

    /// The name of this run, for a second copy of a system
    #[arg(long)]
    name: Option<String>,

    /// Start the file's traffic as well
    #[arg(long)]
    load: bool,

    /// Let places be felt: calls between zones and regions take as long as the file's network says
    #[arg(long)]
    places: bool,

    /// Let the map and the API be looked at only; commands of this machine's user still act
    #[arg(long)]
    read_only: bool,

    /// Do not watch the file and the sources
    #[arg(long)]
    no_watch: bool,

    /// Of the luck of synthetic services
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// When our own binary was started as one of its inner parts: what came of it.
pub(crate) fn inner_word() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    if process::is_trampoline(Some(&first)) {
        let error = process::trampoline(arguments);
        output::words(&format!("isobar: cannot start this service: {error}\n"));
        return Some(ExitCode::from(127));
    }
    let rest: Vec<OsString> = arguments.collect();
    let result = match first.to_str()? {
        INNER => inner(&rest),
        KEEPER => keeper(&rest),
        MOURNER => mourner(&rest),
        _ => return None,
    };
    Some(match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::words(&format!("error: {error:#}\n"));
            ExitCode::from(client::code_of(&error))
        }
    })
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    // Mistakes are said here, before anything is started, with the colours of this terminal.
    let Some((system, _)) = input::system(&args.file, terminal)? else { return Ok(exit::USAGE) };
    let unknown: Vec<&str> = args
        .without
        .iter()
        .map(String::as_str)
        .filter(|name| !system.services.iter().any(|it| it.name.value == *name))
        .collect();
    if !unknown.is_empty() {
        let known: Vec<&str> = system.services.iter().map(|it| it.name.value.as_str()).collect();
        anyhow::bail!(
            "--without {}: no such service; {}",
            unknown.join(", "),
            suggestion(unknown[0], &known)
        );
    }
    let name = name_of(args, &system.name)?;
    // Taken and given back: the inner process holds it, but a person should read this here and now.
    drop(Folder::new(&state::root(), &name).hold()?);
    if args.detach {
        return detach(&name);
    }
    keep(&name, &own_arguments())
}

fn name_of(args: &Args, system: &str) -> anyhow::Result<String> {
    let name = args.name.clone().unwrap_or_else(|| system.to_owned());
    let fine = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    anyhow::ensure!(
        fine,
        "`{name}` cannot be the name of a run; give one with --name (letters, digits, `-`, `_`, `.`)"
    );
    Ok(name)
}

fn own_arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// The outer process: starts the inner one, passes signals on, and cleans up after it.
fn keep(name: &str, arguments: &[OsString]) -> anyhow::Result<u8> {
    process::adopt_orphans().context("cannot become the parent of orphans")?;
    let own = std::env::current_exe().context("cannot find our own binary")?;
    let run_id = format!("{:x}-{:x}", up::run::unix_millis(), std::process::id());
    let (last_words, alive) = std::io::pipe().context("cannot make a pipe")?;
    let mark = format!("{}/{run_id}/", Folder::new(&state::root(), name).mark());
    // Ended with all our other children when we end as we should.
    Command::new(&own)
        .args([MOURNER, &mark])
        .stdin(last_words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that cleans up after us")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // A group of its own: ctrl-c reaches us alone, and the inner process hears of it once, from us.
        let mut inner = tokio::process::Command::new(own)
            .arg(INNER)
            .arg(std::process::id().to_string())
            .arg(&run_id)
            .args(arguments)
            .process_group(0)
            // Never written to: it ends when the inner process does.
            .stdin(alive.try_clone().context("cannot share a pipe")?)
            .spawn()
            .context("cannot start the inner process")?;
        let pid = inner.id().and_then(|it| rustix::process::Pid::from_raw(it as i32));
        let pass_on = |signal: Signal| {
            if let Some(pid) = pid {
                // It has not been waited for yet, so the number is still its own.
                let _ = rustix::process::kill_process(pid, signal);
            }
        };
        let mut interrupted = false;
        let status = loop {
            tokio::select! {
                status = inner.wait() => break status?,
                _ = interrupt.recv() => { interrupted = true; pass_on(Signal::INT) }
                _ = terminate.recv() => pass_on(Signal::TERM),
                _ = hangup.recv() => pass_on(Signal::HUP),
            }
        };
        process::kill_descendants();
        Ok(match status.code() {
            Some(0) if interrupted => exit::INTERRUPTED,
            Some(code) => code as u8,
            None => {
                output::words("isobar was killed; what it had started is ended\n");
                exit::FAILED
            }
        })
    })
}

fn keeper(arguments: &[OsString]) -> anyhow::Result<u8> {
    // A session of its own: closing the terminal does not end it.
    rustix::process::setsid().context("cannot leave the terminal")?;
    let (name, rest) =
        arguments.split_first().context("this word is isobar's own; it is not meant to be typed")?;
    keep(name.to_str().context("the first argument is a name")?, rest)
}

/// The third process: waits for the end of the other two, and ends what they could not.
fn mourner(arguments: &[OsString]) -> anyhow::Result<u8> {
    use std::io::{ErrorKind, Read};
    let mark = arguments
        .first()
        .and_then(|it| it.to_str())
        .filter(|it| it.ends_with('/'))
        .context("this word is isobar's own; it is not meant to be typed")?;
    // A session of its own: what ends the others at a terminal must not end this one.
    let _ = rustix::process::setsid();
    let mut nothing = [0];
    loop {
        match std::io::stdin().read(&mut nothing) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    process::kill_marked(mark, &[]);
    Ok(exit::OK)
}

fn inner(arguments: &[OsString]) -> anyhow::Result<u8> {
    use clap::Parser;
    let [parent, run_id, rest @ ..] = arguments else {
        anyhow::bail!("this word is isobar's own; it is not meant to be typed")
    };
    let parent: i32 =
        parent.to_str().and_then(|it| it.parse().ok()).context("the first argument is a pid")?;
    process::die_with_parent(parent, Signal::TERM)?;
    let cli =
        crate::Cli::try_parse_from(std::iter::once(OsString::from("isobar")).chain(rest.iter().cloned()))?;
    let crate::Verb::Up(args) = cli.verb else {
        anyhow::bail!("this word is isobar's own; it is not meant to be typed")
    };
    let terminal = Terminal::new(cli.color);
    let Some((system, _)) = input::system(&args.file, terminal)? else { return Ok(exit::USAGE) };
    let options = Options {
        name: name_of(&args, &system.name)?,
        state_root: state::root(),
        without: args.without.iter().cloned().collect::<BTreeSet<_>>(),
        trampoline: std::env::current_exe().context("cannot find our own binary")?,
        seed: args.seed,
        watch: !args.no_watch,
        load: args.load,
        places: args.places,
        read_only: args.read_only,
        run_id: run_id.to_str().context("the second argument is the run's id")?.to_owned(),
        page,
        today: crate::check::today,
        file: args.file,
    };
    let file = options.file.clone();
    let reload = move || {
        let loaded = match input::read(&file) {
            Ok(loaded) => loaded,
            Err(error) => return (Err(format!("{error:#}")), vec![file.clone()]),
        };
        let files = loaded.sources.files.iter().map(|it| it.path.clone()).collect();
        if loaded.is_good() {
            return (loaded.into_system().ok_or_else(String::new), files);
        }
        let style = model::render::Style { color: terminal.color_stderr, ..model::render::Style::default() };
        (Err(model::render::human(&loaded.sources, &loaded.diagnostics, style)), files)
    };
    let folder = Folder::new(&options.state_root, &options.name);
    let written = std::io::stderr().as_fd().try_clone_to_owned().ok().map(File::from);
    let say = move |it: Say| {
        match it {
            Say::Event(text) => output::words(&format!("{text}\n")),
            Say::Problem(text) => {
                let (start, end) = if terminal.color_stderr { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
                output::words(&format!("{start}{text}{end}\n"));
            }
            Say::Address(it) => {
                let note = it.note.map_or_else(String::new, |note| format!("   ({note})"));
                // Nobody may be reading any more; the system runs on.
                let _ = output::print(&format!("{:<8} {:<12} {}{note}\n", it.kind, it.name, it.url));
            }
        }
        if let Some(written) = &written {
            folder.turn_over(written, state::OUTPUT_MAX);
        }
    };
    up::run::run(options, system, &reload, Box::new(say))?;
    Ok(exit::OK)
}

/// The web map's files.
fn page(
    path: &str,
    accept_encoding: &str,
    if_none_match: Option<&str>,
) -> (u16, Vec<(&'static str, &'static str)>, &'static [u8]) {
    let answer = ui::respond(path, accept_encoding, if_none_match);
    (answer.status, answer.headers, answer.body)
}

/// Starts the outer process in the background and waits until everything is ready, or something is not.
fn detach(name: &str) -> anyhow::Result<u8> {
    let folder = Folder::new(&state::root(), name);
    let path = folder.output();
    let output_file = folder.open_output().with_context(|| format!("cannot write {}", path.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(KEEPER)
        .arg(name)
        .args(own_arguments().into_iter().filter(|it| it != "-d" && it != "--detach"))
        .stdin(Stdio::null())
        .stdout(output_file.try_clone()?)
        .stderr(output_file)
        .spawn()?;
    let mut shown = 0;
    let mut show = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.len() < shown {
            // It was turned over.
            shown = 0;
        }
        let new = text.get(shown..).unwrap_or("");
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        output::words(&new[..whole]);
        shown += whole;
    };
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| INTERRUPTED.store(client::wait_for_signals(), Relaxed));
    loop {
        show();
        if INTERRUPTED.load(Relaxed) {
            output::words(&format!(
                "`{name}` goes on starting in the background; `isobar ps` shows how far it is, `isobar down` ends it\n"
            ));
            return Ok(exit::INTERRUPTED);
        }
        if let Some(status) = child.try_wait()? {
            show();
            if std::fs::metadata(&path).is_ok_and(|it| it.len() == 0) {
                output::words(&format!(
                    "`{name}` ended without a word; {} could not be written, so perhaps the disk is full\n",
                    path.display()
                ));
            }
            return Ok(status.code().map_or(exit::FAILED, |it| it as u8).max(exit::FAILED));
        }
        if let Some(status) = folder.found().and_then(|found| client::status(&found).ok()) {
            let failed = status.services.iter().flat_map(|it| &it.instances).any(|it| it.state == "failed");
            if status.settled || failed {
                // Its last words may still be on their way to the file.
                std::thread::sleep(Duration::from_millis(50));
                show();
                output::words(&format!("`{name}` goes on in the background; `isobar down` ends it\n"));
                return Ok(if failed { exit::FAILED } else { exit::OK });
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
