//! What a fuzzer calls: any bytes are read, checked, linted and drawn, and nothing may panic, hang or grow without
//! bound. The laws asserted here hold for every input.

use crate::load::{Memory, load_text};
use crate::render::{self, Places, Style};
use crate::{check, lint};
use std::path::{Path, PathBuf};

/// Bytes as a file. After the line `#---` they are a second file, which the first may include as `more.yaml`.
pub fn fuzz_check(data: &[u8]) {
    let cut = data.windows(6).position(|it| it == b"\n#---\n");
    let (first, second) = match cut {
        Some(at) => (&data[..at + 1], &data[at + 6..]),
        None => (data, &[][..]),
    };
    let mut loader = Memory::default();
    loader.files.insert(PathBuf::from("more.yaml"), second.to_vec());
    let loaded = load_text(&loader, Path::new("isobar.yaml"), first.to_vec());
    let mut all = loaded.diagnostics.clone();
    if let Some(system) = loaded.system() {
        all.extend(lint::run(system, (2026, 11, 20)));
        for (caller, callee) in check::edges(system).into_iter().take(100) {
            let in_force = system.policy(caller, callee, None);
            assert!(in_force.set_by.len() <= 12);
        }
    }
    assert!(loaded.is_good() || !loaded.diagnostics.is_empty());
    let places = Places::new(&loaded.sources);
    for diagnostic in all.iter().take(50) {
        assert!(!diagnostic.message.is_empty() && !diagnostic.code.is_empty());
        assert!(places.of(diagnostic.span).is_some(), "every mistake has a place: {diagnostic:?}");
        let line = render::json_line(&places, diagnostic).to_string();
        assert!(!line.contains('\n'), "one diagnostic is one line");
    }
    let drawn = render::human(&loaded.sources, &all, Style { most: 20, ..Style::default() });
    let inert = |c: char| c == '\n' || !c.is_control();
    assert!(drawn.chars().all(inert), "what a user wrote reaches the terminal: {drawn:?}");
    assert!(render::sarif(&loaded.sources, &all[..all.len().min(20)], "0").is_object());
}
