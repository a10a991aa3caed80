//! Every shipped example can be forecast, and says something.

use sim::{Options, Report};
use std::path::Path;
use units::Nanos;

#[test]
fn every_shipped_example_gives_a_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut played = 0;
    for entry in std::fs::read_dir(&root).expect("the examples are beside the crates") {
        let folder = entry.expect("a folder can be listed").path();
        if !folder.join("isobar.yaml").exists() {
            continue;
        }
        let loaded = model::load::load(&model::load::Disk, &folder);
        let system = loaded.system().unwrap_or_else(|| panic!("{folder:?}: {:?}", loaded.diagnostics));
        let plan = sim::compile(system, &|file| Err(format!("`{file}` is not read in tests")))
            .unwrap_or_else(|errors| panic!("{folder:?}: {errors:?}"));
        if plan.loads.is_empty() {
            continue;
        }
        let options = Options {
            runs: 2,
            duration: Some(Nanos::from_secs(1)),
            warm_up: Some(Nanos::from_millis(500)),
            allow_unstable: true,
            ..Options::default()
        };
        let forecast =
            sim::forecast(&plan, &options, &|_| true).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let report = Report::of(&forecast);
        assert!(!report.verdict.headline.is_empty(), "{folder:?}");
        assert!(
            report.traffic.iter().any(|it| it.requests.goodput.value > 0.0),
            "{folder:?}: nothing went well"
        );
        played += 1;
    }
    assert!(played >= 3, "{played} examples were played");
}
