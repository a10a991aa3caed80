//! Ready-made scenarios: all of them play on the shop, and each does what it says.

use crate::common::run;
use sim::{Options, Report, breaks};
use std::path::Path;
use units::Nanos;

fn shop() -> model::system::System {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let loaded = model::load::load(&model::load::Disk, &root);
    loaded.into_system().expect("the shop is a good file")
}

#[test]
fn every_ready_made_scenario_plays_on_the_shop() {
    for (name, _) in breaks::all() {
        let mut system = shop();
        let scenario = breaks::ready_made(&system, name).unwrap_or_else(|why| panic!("{name}: {why}"));
        system.scenarios.push(scenario);
        let plan =
            sim::compile(&system, &|_| Ok(Vec::new())).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let options = Options {
            runs: 1,
            scenario: Some(name.to_owned()),
            // Cut short: that it plays is the question, and its first seconds after the fault say so.
            duration: Some(Nanos::from_secs(22)),
            ..Options::default()
        };
        let report = Report::of(&run(&plan, &options));
        assert!(report.traffic[0].requests.goodput.value > 0.0, "{name}");
    }
}

#[test]
fn a_break_names_what_there_is() {
    let system = shop();
    for (text, expected) in [
        ("meteor", "nothing breaks by the name of `meteor`; there are instance-lost"),
        ("slow=kart", "`slow` cannot be about `kart`; there are web, cart"),
        ("cache-flush=web", "cannot be about `web`; there are shelf"),
        ("zone-lost=eu-west/z", "no zone is called `z`; there are a, b, c"),
        ("zone-lost=eu-west", "is no zone; write `region/zone`"),
        ("region-lost=mars", "no region is called `mars`; there are eu-west, us-east"),
        ("load-step=web", "leave out `=web`"),
    ] {
        let error = breaks::ready_made(&system, text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(breaks::ready_made(&system, "slow=cart").is_ok());
}
