//! What the examples promise beyond being right: the story they tell has the published numbers.

use model::load::{Disk, load};
use model::place::place;
use std::path::Path;

#[track_caller]
fn check_wiring(file: &str, instances: usize, wires: usize) {
    let loaded = load(&Disk, &Path::new("../../examples/migration").join(file));
    let system = loaded.system().unwrap_or_else(|| panic!("{file}: {:#?}", loaded.diagnostics));
    let placed = place(system).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!((placed.instances.len(), placed.wires.len()), (instances, wires), "{file}");
}

/// The first four steps of the published migration, instance by instance.
#[test]
fn the_migration_is_wired_as_published() {
    check_wiring("00-lamp.yaml", 13, 30);
    check_wiring("01-cache.yaml", 14, 39);
    check_wiring("02-proxy.yaml", 23, 66);
    check_wiring("03-data-layer.yaml", 31, 87);
}
