//! The rules of the house as data, each with its reason. A rule that is not checked is a wish.

use crate::run;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What of ours a crate may use directly. Arrows only point up this list.
const MAY_USE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("policy", &["units"]),
    ("model", &["units", "policy"]),
    ("sim", &["units", "model", "policy"]),
    ("telemetry", &["units"]),
    ("proxy", &["units", "policy", "telemetry"]),
    ("control", &["units", "model", "policy", "proxy", "telemetry"]),
    ("up", &["units", "model", "policy", "sim", "control", "proxy", "telemetry"]),
    ("ui", &[]),
    ("cli", &["units", "policy", "model", "sim", "telemetry", "proxy", "control", "up", "ui"]),
    ("xtask", &[]),
    ("fuzz", &["units", "policy", "model", "sim", "telemetry", "proxy"]),
];

/// What a crate must never reach, however indirectly, and why.
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "policy",
        &["tokio", "futures-util", "rand"],
        "policies also run in the simulator, which has no runtime and one source of luck",
    ),
    ("model", &["tokio"], "a file is read and judged without a runtime"),
    (
        "sim",
        &["tokio", "rand", "rand_distr"],
        "same seed, same bytes: no runtime and no samplers but our own",
    ),
    ("telemetry", &["tokio"], "stores and codecs are pure; sockets are wired at the edge"),
    ("proxy", &["model", "sim"], "the proxy runs snapshots; it knows no file"),
    ("ui", &["tokio"], "the page is data; whoever has a socket serves it"),
];

/// Never anywhere, and what to use instead.
const BANNED: &[(&str, &str)] = &[
    ("ring", "aws-lc-rs is the one provider"),
    ("openssl-sys", "rustls"),
    ("native-tls", "rustls"),
    ("chrono", "units::Nanos, or civil dates by hand"),
    ("dashmap", "its guards deadlock; shard or send messages"),
    ("serde_yaml", "unmaintained; model::text"),
    ("rustls-pemfile", "rustls-pki-types reads PEM"),
    ("opentelemetry_sdk", "telemetry writes OTLP itself"),
    ("async-std", "tokio"),
];

/// Text that may not stand in code, where it may all the same, and why not elsewhere.
struct BannedText {
    text: &'static str,
    /// Path prefixes where it is allowed.
    except: &'static [&'static str],
    why: &'static str,
}

const BANNED_TEXT: &[BannedText] = &[
    BannedText {
        text: "Instant::now",
        except: CLOCKS,
        why: "time is an argument; only the edges read a clock",
    },
    BannedText {
        text: "SystemTime::now",
        except: CLOCKS,
        why: "time is an argument; only the edges read a clock",
    },
    BannedText { text: "thread_rng", except: &[], why: "luck is an argument: units::Rng" },
    BannedText { text: "rand::rng()", except: &[], why: "luck is an argument: units::Rng" },
    BannedText { text: "unbounded_channel", except: &[], why: "every queue has a limit" },
    BannedText { text: "mpsc::channel()", except: &[], why: "every queue has a limit: sync_channel(n)" },
    BannedText { text: "todo!(", except: &[], why: "no stub is called done" },
    BannedText { text: "unimplemented!(", except: &[], why: "no stub is called done" },
    BannedText { text: "/home/", except: &[], why: "no path of one machine in the repository" },
];

/// The edges, and what runs no decisions.
const CLOCKS: &[&str] = &[
    "crates/proxy/",
    "crates/control/",
    "crates/up/",
    "crates/cli/",
    "xtask/",
    "fuzz/",
    "crates/model/examples/",
    "crates/sim/examples/",
    "crates/telemetry/examples/",
];

/// Folders that hold no code of ours.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "dist"];

pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    let root = run::root();
    dependencies(&mut faults)?;
    crates(&root, &mut faults)?;
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    texts(&root, &files, &mut faults)?;
    links(&root, &files, &mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    faults.sort();
    bail!("{} untidy:\n  {}", faults.len(), faults.join("\n  "))
}

fn dependencies(faults: &mut Vec<String>) -> Result<()> {
    let members: Vec<String> = workspace_members()?;
    for name in &members {
        let Some((_, may)) = MAY_USE.iter().find(|(krate, _)| krate == name) else {
            faults.push(format!(
                "crate `{name}` has no row in MAY_USE (xtask/src/tidy.rs): say what it may use"
            ));
            continue;
        };
        let direct = reached(name, &["--depth", "1"])?;
        for used in direct.iter().filter(|used| members.contains(used) && !may.contains(&used.as_str())) {
            faults.push(format!("`{name}` uses `{used}`: arrows only point up (design: {})", may.join(", ")));
        }
        let all = reached(name, &[])?;
        if name == "units" && !all.is_empty() {
            faults.push("`units` is std only, and it has dependencies".to_owned());
        }
        for (_, never, why) in NEVER.iter().filter(|(krate, _, _)| krate == name) {
            for bad in never.iter().filter(|bad| all.contains(**bad)) {
                faults.push(format!("`{name}` reaches `{bad}`: {why}"));
            }
        }
        for (bad, instead) in BANNED.iter().filter(|(bad, _)| all.contains(*bad)) {
            faults.push(format!("`{name}` reaches `{bad}`: {instead}"));
        }
    }
    Ok(())
}

fn workspace_members() -> Result<Vec<String>> {
    let text = run::output("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages.filter_map(|package| package["name"].as_str().map(str::to_owned)).collect())
}

/// What ends up in a build of this crate: dev-dependencies may be oracles, and features that are off bring nothing.
fn reached(name: &str, more: &[&str]) -> Result<BTreeSet<String>> {
    let mut args =
        vec!["tree", "--package", name, "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    args.extend(more);
    let text = run::output("cargo", &args)?;
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Folder name = crate name; lints come from the workspace; the front page says what the crate is.
fn crates(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))
            .with_context(|| format!("crates/{name}/Cargo.toml"))?;
        if !manifest.contains(&format!("name = \"{name}\"")) {
            faults.push(format!("crates/{name}: the folder's name is the crate's name"));
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            faults.push(format!("crates/{name}/Cargo.toml: `[lints] workspace = true` is missing"));
        }
        let front =
            ["src/lib.rs", "src/main.rs"].iter().map(|file| folder.join(file)).find(|file| file.exists());
        let opens = front
            .and_then(|file| std::fs::read_to_string(file).ok())
            .is_some_and(|text| text.starts_with("//! # "));
        if !opens {
            faults.push(format!("crates/{name}: lib.rs opens with `//! # {name}: what it is for`"));
        }
    }
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() || NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn texts(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let myself = Path::new("xtask/src/tidy.rs");
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "rs" || end == "ts" || end == "svelte"))
    {
        let short = file.strip_prefix(root).unwrap_or(file);
        if short == myself {
            continue;
        }
        let text = std::fs::read_to_string(file).with_context(|| short.display().to_string())?;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for banned in BANNED_TEXT.iter().filter(|banned| line.contains(banned.text)) {
                if !banned.except.iter().any(|prefix| short.starts_with(prefix)) {
                    faults.push(format!(
                        "{}:{}: `{}`: {}",
                        short.display(),
                        number + 1,
                        banned.text,
                        banned.why
                    ));
                }
            }
        }
        let allows_unsafe = text.contains("allow(unsafe_code)") || text.contains("allow(unsafe_code\n");
        if allows_unsafe {
            faults.push(format!("{}: `allow(unsafe_code)` without a reason", short.display()));
        }
    }
    Ok(())
}

/// A relative link in a page must lead somewhere.
fn links(root: &Path, files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let short = file.strip_prefix(root).unwrap_or(file);
        let text = std::fs::read_to_string(file).with_context(|| short.display().to_string())?;
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = target.split('#').next().unwrap_or_default();
                let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
                let folder = file.parent().unwrap_or(root);
                if !elsewhere && !folder.join(path).exists() {
                    faults.push(format!(
                        "{}:{}: the link `{target}` leads nowhere",
                        short.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    Ok(())
}
