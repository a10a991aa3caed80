//! The lessons shipped in `examples/lessons` come out as their comments say: these tests read the very files.
//!
//! Shapes and wide bands, a fixed seed and few runs: what must not change is the lesson, not the third digit.

use crate::common::run;
use sim::{Options, Plan, Report, report::TrafficReport};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use units::Nanos;

/// How a lesson is played.
struct Play {
    lesson: &'static str,
    scenario: Option<&'static str>,
    /// As `--set load=` does.
    load: f64,
    runs: u32,
    warm_up: u64,
    seconds: u64,
}

const PLAY: Play = Play { lesson: "", scenario: None, load: 1.0, runs: 3, warm_up: 0, seconds: 60 };

/// What is claimed: in words, the number, and the band it must be in.
type Claim = (&'static str, fn(&Report) -> f64, RangeInclusive<f64>);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/lessons")
}

#[track_caller]
fn plan(lesson: &str) -> Plan {
    let loaded = model::load::load(&model::load::Disk, &folder().join(lesson));
    let system = loaded.system().unwrap_or_else(|| panic!("{lesson}: {:#?}", loaded.diagnostics));
    sim::compile(system, &|file| Err(format!("`{file}` is not read in tests")))
        .unwrap_or_else(|errors| panic!("{lesson}: {errors:#?}"))
}

#[track_caller]
fn check(play: &Play, claims: &[Claim]) {
    let plan = plan(play.lesson);
    let mut options = Options {
        runs: play.runs,
        threads: 2,
        scenario: play.scenario.map(str::to_owned),
        duration: Some(Nanos::from_secs(play.seconds)),
        warm_up: Some(Nanos::from_secs(play.warm_up)),
        ..Options::default()
    };
    options.bias.load = play.load;
    let report = Report::of(&run(&plan, &options));
    let wrong: Vec<String> = claims
        .iter()
        .map(|(what, measure, band)| (what, measure(&report), band))
        .filter(|(_, value, band)| !band.contains(value))
        .map(|(what, value, band)| format!("{what}: {value} is not in {band:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} at load {}:\n{}", play.lesson, play.load, wrong.join("\n"));
}

#[track_caller]
fn traffic<'r>(report: &'r Report, name: &str) -> &'r TrafficReport {
    report.traffic.iter().find(|it| it.name == name).expect("the traffic is in the file")
}

fn mean_ms(report: &Report, name: &str) -> f64 {
    traffic(report, name).requests.latency.mean.value * 1e3
}

fn p50_ms(report: &Report, name: &str) -> f64 {
    traffic(report, name).requests.latency.p50.value * 1e3
}

fn p99_ms(report: &Report, name: &str) -> f64 {
    traffic(report, name).requests.latency.p99.value * 1e3
}

fn answered(report: &Report, name: &str) -> f64 {
    traffic(report, name).requests.availability.value
}

/// Share of the first traffic that fails between two moments, in seconds.
fn failing(report: &Report, from: u64, to: u64) -> f64 {
    let inside = |at: Nanos| Nanos::from_secs(from) <= at && at < Nanos::from_secs(to);
    let series = report.traffic[0].series.iter().filter(|it| inside(it.at));
    let (ok, failed) =
        series.fold((0.0, 0.0), |sum, it| (sum.0 + it.ok_per_second, sum.1 + it.failed_per_second));
    failed / (ok + failed).max(1e-9)
}

/// What instances are asked, over what users ask.
fn amplification(report: &Report, service: &str, traffic_name: &str) -> f64 {
    let service = report.services.iter().find(|it| it.name == service).expect("the service is in the file");
    let asked: f64 = service.operations.iter().map(|it| it.requests.rate.value).sum();
    asked / traffic(report, traffic_name).sent_per_second.value
}

/// 1 where the expectation that begins so is met, 0 where it is not.
#[track_caller]
fn met(report: &Report, text: &str) -> f64 {
    let found = report.objectives.iter().find(|it| it.text.starts_with(text));
    f64::from(u8::from(found.expect("the scenario expects it").met))
}

#[test]
fn mm1_agrees_with_its_formulas() {
    // Within 5 % of 1 / (µ − λ), ln 2 / (µ − λ) and ln 100 / (µ − λ), 8 % for the tail.
    let at = |load| Play { lesson: "mm1", load, runs: 8, warm_up: 2, seconds: 15, ..PLAY };
    check(
        &at(0.5),
        &[
            ("mean of 2 ms", |it| mean_ms(it, "users"), 1.90..=2.10),
            ("median of 1.39 ms", |it| p50_ms(it, "users"), 1.32..=1.46),
            ("p99 of 9.21 ms", |it| p99_ms(it, "users"), 8.47..=9.95),
        ],
    );
    check(
        &at(0.8),
        &[
            ("mean of 5 ms", |it| mean_ms(it, "users"), 4.75..=5.25),
            ("median of 3.47 ms", |it| p50_ms(it, "users"), 3.29..=3.64),
            ("p99 of 23.0 ms", |it| p99_ms(it, "users"), 21.2..=24.9),
        ],
    );
    // Close to full a queue forgets slowly, so longer runs still say less.
    check(
        &Play { runs: 16, warm_up: 10, seconds: 60, ..at(0.95) },
        &[
            ("mean of 20 ms", |it| mean_ms(it, "users"), 18.0..=22.0),
            ("median of 13.9 ms", |it| p50_ms(it, "users"), 12.5..=15.3),
            ("p99 of 92.1 ms", |it| p99_ms(it, "users"), 78.0..=106.0),
        ],
    );
}

#[test]
fn mm1_as_it_stands_is_refused_by_name() {
    let error = sim::forecast(&plan("mm1"), &Options::default(), &|_| true).unwrap_err().to_string();
    assert!(error.contains("`server` has utilisation 1.0 at 1000/s"), "{error}");
}

#[test]
fn mmc_shows_what_a_shared_queue_is_worth() {
    check(
        &Play { lesson: "mmc", runs: 4, warm_up: 2, seconds: 15, ..PLAY },
        &[
            ("one queue: 10.3 ms", |it| mean_ms(it, "to-pooled"), 9.9..=10.8),
            ("eight queues by chance: 40 ms", |it| mean_ms(it, "to-split"), 36.0..=44.0),
            ("the shorter of two", |it| mean_ms(it, "to-compared"), 15.0..=19.0),
        ],
    );
}

#[test]
fn a_retry_storm_outlives_its_trigger() {
    check(
        &Play { lesson: "retry-collapse", scenario: Some("slow"), runs: 2, ..PLAY },
        &[
            ("well before", |it| failing(it, 0, 10), 0.0..=0.001),
            ("down while it is slow", |it| failing(it, 10, 15), 0.8..=1.0),
            ("down for good", |it| failing(it, 45, 60), 0.7..=1.0),
            ("its promise", |it| met(it, "front availability"), 0.0..=0.0),
        ],
    );
}

#[test]
fn a_retry_budget_lets_the_storm_end() {
    check(
        &Play { lesson: "retry-budget", scenario: Some("slow"), runs: 2, ..PLAY },
        &[
            ("well before", |it| failing(it, 0, 10), 0.0..=0.001),
            ("no better while it is slow", |it| failing(it, 10, 15), 0.8..=1.0),
            ("well soon after", |it| failing(it, 20, 60), 0.0..=0.001),
            ("its promise", |it| met(it, "front availability"), 1.0..=1.0),
        ],
    );
}

#[test]
fn jitter_dissolves_a_crowd() {
    check(
        &Play { lesson: "jitter", ..PLAY },
        &[
            ("together", |it| answered(it, "crowd-together"), 0.45..=0.60),
            ("apart", |it| answered(it, "crowd-apart"), 0.88..=0.98),
        ],
    );
}

#[test]
fn a_flushed_cache_hurts_until_it_is_warm() {
    check(
        &Play { lesson: "cold-cache", scenario: Some("flush"), runs: 2, seconds: 40, ..PLAY },
        &[
            ("warm", |it| failing(it, 10, 19), 0.0..=0.001),
            ("cold", |it| failing(it, 20, 21), 0.02..=0.4),
            ("warm again", |it| failing(it, 30, 40), 0.0..=0.001),
        ],
    );
}

#[test]
fn equally_busy_servers_look_different_from_open_and_closed_loops() {
    check(
        &Play { lesson: "open-or-closed", runs: 8, warm_up: 5, ..PLAY },
        &[
            ("open: 50 ms", |it| mean_ms(it, "world"), 44.0..=57.0),
            ("ten users: 27.3 ms", |it| mean_ms(it, "office"), 25.5..=29.0),
            ("one user: 10 ms", |it| mean_ms(it, "script"), 9.5..=10.5),
        ],
    );
}

#[test]
fn a_closed_loop_does_not_see_the_stall_it_waited_out() {
    check(
        &Play { lesson: "open-or-closed", scenario: Some("stall"), runs: 6, ..PLAY },
        &[
            ("the open loop's p99", |it| p99_ms(it, "world"), 500.0..=1500.0),
            ("the script's p99, 46.1 ms undisturbed", |it| p99_ms(it, "script"), 40.0..=55.0),
            ("what the world was promised", |it| met(it, "open p99"), 0.0..=0.0),
            ("what the script says of the same", |it| met(it, "one p99"), 1.0..=1.0),
        ],
    );
}

#[test]
fn retries_multiply_over_layers_and_budgets_keep_them_down() {
    check(
        &Play { lesson: "layers", scenario: Some("broken"), runs: 1, seconds: 15, ..PLAY },
        &[
            ("3 · 3 · 3", |it| amplification(it, "db", "users"), 25.0..=27.1),
            ("1.1 · 1.1 · 1.1", |it| amplification(it, "careful-db", "careful-users"), 1.2..=1.5),
        ],
    );
}

#[test]
fn two_links_of_which_one_is_slow_need_more_than_taking_turns() {
    let play = Play { lesson: "link-imbalance", ..PLAY };
    check(
        &play,
        &[
            ("well when both are, dealt", |it| p99_ms(it, "to-dealt"), 50.0..=110.0),
            ("and chosen", |it| p99_ms(it, "to-chosen"), 30.0..=80.0),
        ],
    );
    check(
        &Play { scenario: Some("half"), ..play },
        &[
            ("dealt: as slow as the worse", |it| p99_ms(it, "to-dealt"), 1_500.0..=2_100.0),
            ("and some are lost", |it| answered(it, "to-dealt"), 0.80..=0.99),
            ("chosen: a little slower", |it| p99_ms(it, "to-chosen"), 60.0..=200.0),
            ("and nothing is lost", |it| answered(it, "to-chosen"), 0.999..=1.0),
        ],
    );
}

#[test]
fn the_same_surge_passes_at_half_the_load_and_stays_at_the_whole() {
    let at = |load| Play { lesson: "metastable", scenario: Some("surge"), load, seconds: 120, ..PLAY };
    check(
        &at(1.0),
        &[
            ("well before", |it| failing(it, 0, 20), 0.0..=0.05),
            ("stuck a minute and more after", |it| failing(it, 90, 120), 0.3..=1.0),
        ],
    );
    check(
        &at(0.5),
        &[
            ("hurt by the surge", |it| failing(it, 20, 30), 0.5..=1.0),
            ("over soon after", |it| failing(it, 50, 120), 0.0..=0.01),
        ],
    );
}

#[test]
fn the_map_tells_safe_from_vulnerable_from_overloaded() {
    use sim::metastable::{Fate, metastable};
    let mut plan = plan("metastable");
    let options = Options { runs: 2, threads: 2, ..Options::default() };
    let map = metastable(&mut plan, &options, &[0.5, 1.0, 1.5], &[2.0, 8.0], &|_, _| true)
        .expect("its queue has a limit");
    let expected = [Fate::Stable, Fate::Stuck, Fate::Overloaded].map(|it| vec![it, it]);
    assert_eq!(map.fates, expected);
}

/// A lesson that nobody can find, or whose row outlived it, teaches nothing.
#[test]
fn every_lesson_has_its_row() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the lessons have a README");
    let rows: BTreeSet<String> =
        readme.lines().filter_map(|it| Some(it.strip_prefix("| [")?.split_once(']')?.0.to_owned())).collect();
    let entries = std::fs::read_dir(folder()).expect("the lessons are beside the crates");
    let folders: BTreeSet<String> = entries
        .map(|it| it.expect("a folder can be listed"))
        .filter(|it| it.path().join("isobar.yaml").exists())
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(rows, folders);
}
