//! Every file in `examples/bad` is wrong in one way, and what `isobar check` says about it is kept beside it. Those
//! texts are what users read on a bad day, so a change to one is reviewed like code: `UPDATE=1 cargo test -p model`
//! writes them.

use model::load::{Disk, load};
use model::render::{self, Style};
use std::fs;
use std::path::{Path, PathBuf};

/// From the folder of this crate, in which tests run.
const FOLDER: &str = "../../examples/bad";

fn entries() -> Vec<PathBuf> {
    let found = fs::read_dir(FOLDER).expect("examples/bad");
    let mut paths: Vec<PathBuf> = found.map(|it| it.expect("an entry").path()).collect();
    paths.retain(|it| it.extension().is_none_or(|it| it != "expected"));
    paths.sort();
    paths
}

/// What a person sees, with paths as from the repository's root.
fn told(path: &Path) -> String {
    let loaded = load(&Disk, path);
    assert!(!loaded.is_good(), "{} is not wrong", path.display());
    render::human(&loaded.sources, &loaded.diagnostics, Style::default())
        .replace("../../examples/bad", "examples/bad")
}

#[test]
fn bad_files_are_told_as_expected() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differences = String::new();
    for path in entries() {
        let golden = path.with_extension("expected");
        let told = told(&path);
        if update {
            fs::write(&golden, &told).expect("a golden file");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            differences += &format!("{}\nexpected:\n{expected}\nfound:\n{told}\n", path.display());
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn there_are_many_and_none_is_forgotten() {
    let entries = entries();
    assert!(entries.len() >= 60, "only {}", entries.len());
    for file in fs::read_dir(FOLDER).expect("examples/bad") {
        let path = file.expect("an entry").path();
        if path.extension().is_some_and(|it| it == "expected") {
            let about = [path.with_extension("yaml"), path.with_extension("")];
            assert!(about.iter().any(|it| it.exists()), "{} is about nothing", path.display());
        }
    }
}
