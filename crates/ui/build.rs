//! Embeds whatever stands in `web/dist`. Never runs npm and never opens the network: a clone without Node builds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let dist = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../web/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-env-changed=ISOBAR_REQUIRE_UI");
    let mut files = Vec::new();
    collect(&dist, &mut files);
    files.sort();
    let built = files.iter().any(|file| file.ends_with("index.html"));
    if !built && env::var_os("ISOBAR_REQUIRE_UI").is_some() {
        println!(
            "cargo::error=ISOBAR_REQUIRE_UI is set and web/dist holds no page: run `cargo xtask ui` first"
        );
    }
    let mut table = String::from("pub(crate) static FILES: &[Embedded] = &[\n");
    for file in files.iter().filter(|_| built) {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&dist).expect("it was found below").to_string_lossy().replace('\\', "/");
        let absolute = file.canonicalize().expect("it was found");
        let bytes = fs::read(&absolute).expect("it was found");
        writeln!(
            table,
            "    Embedded {{ path: {name:?}, bytes: include_bytes!({absolute:?}), etag: \"\\\"{:016x}\\\"\" }},",
            fnv(&bytes)
        )
        .expect("a String takes everything");
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("files.rs");
    fs::write(out, table).expect("OUT_DIR can be written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.file_name().is_some_and(|name| name != ".gitignore") {
            files.push(path);
        }
    }
}

/// FNV-1a: an ETag only has to differ when the bytes do.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
