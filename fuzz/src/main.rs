//! # fuzz: every parser, on every kind of rubbish
//!
//! Targets are plain functions `fn(&[u8])` that must return; this driver feeds each its corpus (`fuzz/corpus/NAME/`),
//! then mutations of it from a fixed seed, for a stated time. A panic, a hang or an allocation storm ends the run
//! and leaves the input in `fuzz/found/`, to become a corpus file and a named test.
//!
//! It needs no nightly compiler: coverage guidance finds deeper paths, but a driver everybody can run gets run.

mod mutate;
mod targets;

use mutate::Mutator;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use targets::{TARGETS, Target};

/// An input that takes longer than this has found a loop or a quadratic.
const INPUT_SECONDS_MAX: u64 = 10;

struct Options {
    seconds: u64,
    seed: u64,
    names: Vec<String>,
    list: bool,
}

#[allow(clippy::print_stdout, reason = "the list is an answer")]
fn main() -> ExitCode {
    let options = match parse_options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("fuzz: {error}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) =
        options.names.iter().find(|name| !TARGETS.iter().any(|target| target.name == **name))
    {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("fuzz: no target is called `{unknown}`; there are: {}", known.join(", "));
        return ExitCode::from(2);
    }
    let chosen = TARGETS
        .iter()
        .filter(|target| options.names.is_empty() || options.names.iter().any(|name| name == target.name));
    let mut failed = 0;
    let mut passed = 0;
    for target in chosen {
        match fuzz(target, &options) {
            Ok(inputs) => {
                passed += 1;
                eprintln!("fuzz {}: {inputs} inputs, nothing found", target.name);
            }
            Err(found) => {
                failed += 1;
                eprintln!("fuzz {}: FOUND, input kept in {}", target.name, found.display());
            }
        }
    }
    eprintln!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse_options() -> Result<Options, String> {
    let mut options = Options { seconds: 60, seed: 1, names: Vec::new(), list: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = |what: &str| -> Result<u64, String> {
            let text = args.next().ok_or_else(|| format!("{what} needs a number"))?;
            text.parse().map_err(|_| format!("{what} needs a number, got `{text}`"))
        };
        match arg.as_str() {
            "--seconds" => options.seconds = number("--seconds")?,
            "--seed" => options.seed = number("--seed")?,
            "--list" => options.list = true,
            flag if flag.starts_with('-') => {
                return Err(format!("unknown flag `{flag}`; there are --seconds, --seed and --list"));
            }
            name => options.names.push(name.to_owned()),
        }
    }
    Ok(options)
}

/// Where a hang is noticed: the time the current input began, as nanoseconds since the start, 0 between inputs.
static INPUT_BEGAN: AtomicU64 = AtomicU64::new(0);

fn fuzz(target: &'static Target, options: &Options) -> Result<u64, PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let corpus = corpus(&folder.join("corpus").join(target.corpus));
    let start = Instant::now();
    let current = folder.join("found").join(target.name);
    let mut mutator = Mutator::new(options.seed, corpus.clone());
    let mut inputs = 0u64;
    let end = Duration::from_secs(options.seconds);
    let stop_watch = watch(start, current.clone());
    let mut corpus = corpus.into_iter();
    loop {
        let input = match corpus.next() {
            Some(input) => input,
            None if start.elapsed() < end => mutator.next_input(),
            None => break,
        };
        inputs += 1;
        let began = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        *CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = input.clone();
        INPUT_BEGAN.store(began, Ordering::Relaxed);
        let outcome = std::panic::catch_unwind(|| (target.run)(&input));
        INPUT_BEGAN.store(0, Ordering::Relaxed);
        if outcome.is_err() {
            keep(&current, &input);
            drop(stop_watch);
            return Err(current);
        }
    }
    drop(stop_watch);
    Ok(inputs)
}

static CURRENT: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());

/// A thread that ends the process when one input runs too long; it stops when the returned sender is dropped.
fn watch(start: Instant, found: PathBuf) -> std::sync::mpsc::SyncSender<()> {
    let (alive, ended) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_secs(1)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let began = INPUT_BEGAN.load(Ordering::Relaxed);
            if began == 0 {
                continue;
            }
            let running = start.elapsed().saturating_sub(Duration::from_nanos(began));
            if running > Duration::from_secs(INPUT_SECONDS_MAX) {
                keep(&found, &CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
                eprintln!(
                    "fuzz: an input runs for more than {INPUT_SECONDS_MAX} s, kept in {}",
                    found.display()
                );
                std::process::exit(1);
            }
        }
    });
    alive
}

fn keep(path: &Path, input: &[u8]) {
    let kept =
        path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, input));
    if let Err(error) = kept {
        eprintln!("fuzz: cannot keep the input in {}: {error}", path.display());
    }
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    // The order of a folder is the machine's; ours must be everyone's.
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}
