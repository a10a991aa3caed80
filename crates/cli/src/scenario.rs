//! `isobar scenario`: what the file says may happen, done to the running system, and undone.
//!
//! A scenario is a lease that this command renews every second: if the command, its terminal or isobar itself ends,
//! however that happens, everything is undone within seconds.

use crate::client::{self, Which};
use crate::exit;
use crate::output::{self, Terminal};
use crate::sim::STOPPED;
use crate::table::{Table, number, share};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use units::Nanos;
use up::state::Found;

/// Break the running system on purpose, watch what holds, and undo it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    List(List),
    Run(Run),
    Stop(Stop),
}

/// Which running isobar: by name, by its file, or the only one.
#[derive(Clone, Debug, clap::Args)]
struct Where {
    #[command(flatten)]
    which: Which,

    /// The folder or file of the running system, when several are running
    #[arg(short = 'f', long = "file", value_name = "DIR", conflicts_with = "name")]
    file: Option<PathBuf>,
}

impl Where {
    fn find(&self) -> anyhow::Result<Found> {
        let Some(file) = &self.file else { return self.which.find() };
        let wanted =
            std::fs::canonicalize(file).with_context(|| format!("cannot find {}", file.display()))?;
        let is_it = |it: &Found| {
            let own = std::fs::canonicalize(&it.file).unwrap_or_else(|_| it.file.clone());
            own == wanted || own.parent() == Some(&wanted)
        };
        let running = up::state::running(&up::state::root());
        running.into_iter().find(is_it).ok_or_else(|| {
            client::Unreachable(format!("the system of {} is not up; `isobar up` starts it", file.display()))
                .into()
        })
    }
}

/// What the file of the running system has, and what plays now
#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    place: Where,

    /// JSON
    #[arg(long)]
    json: bool,
}

/// Perform a scenario on the running system
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ctrl-c stops and undoes it. So does its guard, when an expectation is missed by the guard's factor over the last ten
seconds; and if this command ends without a word, everything is undone when its lease runs out, three seconds later.

Exit code: 0 the expectations held, 1 they did not (or the guard stopped it), 2 it cannot be done, 3 nothing is running,
130 stopped by ctrl-c.

For example:
  isobar scenario run ads-lost --report actual.json
  isobar scenario run zone-lost --for 30s --guard 3
  isobar scenario run --break gray=cart --set load=1.5
  isobar scenario run --steady 30s --report actual.json   do nothing; measure the system as it is")]
struct Run {
    /// A scenario of the file
    #[arg(required_unless_present_any = ["breaks", "steady"])]
    scenario: Option<String>,

    /// Something ready-made instead: gray=cart, zone-lost ... (`isobar sim --break list` shows all)
    #[arg(long = "break", value_name = "WHAT[=TARGET]", conflicts_with = "scenario")]
    breaks: Option<String>,

    /// Do nothing, and measure for so long
    #[arg(long, value_name = "TIME", conflicts_with_all = ["scenario", "breaks", "lasts"])]
    steady: Option<Nanos>,

    /// Write what was measured, in the words of `isobar sim --json`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// End after this long, whatever the file says
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<Nanos>,

    /// Time before it begins, not measured [default: none; 5s for --steady when the traffic starts with it]
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Nanos>,

    /// Turn a knob while it lasts: load=0.8, web.replicas=4, shoppers.rate=400/s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// Stop at once when an expectation is missed by this factor; `off` never does
    #[arg(long, value_name = "FACTOR", default_value = "10", value_parser = guard)]
    guard: Guard,

    /// Leave traffic that does not flow alone
    #[arg(long)]
    no_traffic: bool,

    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug)]
struct Guard(Option<f64>);

fn guard(text: &str) -> Result<Guard, String> {
    match text {
        "off" => Ok(Guard(None)),
        text => match text.parse::<f64>() {
            Ok(factor) if (1.0..=1e6).contains(&factor) => Ok(Guard(Some(factor))),
            _ => Err("it is `off`, or how many times more than allowed is too much: 1 or more".to_owned()),
        },
    }
}

/// Stop what plays and undo it: one scenario by its name, or all
#[derive(Debug, clap::Args)]
struct Stop {
    scenario: Option<String>,

    #[command(flatten)]
    place: Where,
}

/// The lease: long enough for a command that the machine forgot for a moment.
const LEASE: Duration = Duration::from_secs(3);
const RENEW_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    match &args.verb {
        Verb::List(args) => list(args, terminal),
        Verb::Run(args) => play(args),
        Verb::Stop(args) => stop(args),
    }
}

fn ask(found: &Found, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let answer = client::ask(found, method, path, body)?;
    serde_json::from_str(&answer).context("the answer is not what this isobar understands")
}

fn list(args: &List, terminal: Terminal) -> anyhow::Result<u8> {
    let found = args.place.find()?;
    let all = ask(&found, "GET", "/v1/scenarios", None)?;
    if args.json {
        output::print(&format!("{all}\n"))?;
        return Ok(exit::OK);
    }
    let mut table = Table::new(["", "when", "what", "must hold", ""]);
    for it in array(&all["scenarios"]) {
        let name = text(&it["name"]);
        let playing = array(&all["playing"]).iter().any(|other| other["name"] == it["name"]);
        let acts = array(&it["acts"]);
        let expect = array(&it["expect"]);
        for row in 0..acts.len().max(expect.len()).max(1) {
            let act = acts.get(row);
            table.row([
                if row == 0 { name.to_owned() } else { String::new() },
                act.map_or_else(String::new, |it| moment(&it["at_ms"])),
                act.map_or_else(String::new, |it| text(&it["what"]).to_owned()),
                expect.get(row).map_or_else(String::new, |it| text(it).to_owned()),
                if row == 0 && playing { "playing".to_owned() } else { String::new() },
            ]);
        }
    }
    if table.is_empty() {
        output::words("the file has no scenario; `isobar scenario run --break` has ready-made ones\n");
    } else {
        output::print(&table.text(terminal.color_stdout))?;
    }
    Ok(exit::OK)
}

fn stop(args: &Stop) -> anyhow::Result<u8> {
    let found = args.place.find()?;
    let path = match &args.scenario {
        Some(name) => format!("/v1/scenarios/{}", id_of(name)),
        None => "/v1/scenarios".to_owned(),
    };
    let stopped = ask(&found, "DELETE", &path, None)?;
    let names: Vec<&str> = array(&stopped["stopped"]).iter().map(text).collect();
    output::words(&if names.is_empty() {
        "nothing was playing\n".to_owned()
    } else {
        format!("stopped and undone: {}\n", names.join(", "))
    });
    Ok(exit::OK)
}

/// As the running isobar makes ids of names.
fn id_of(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

fn play(args: &Run) -> anyhow::Result<u8> {
    if let Some(path) = &args.report {
        // Said before anything is done: a scenario whose report cannot be kept was for nothing.
        std::fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let found = args.place.find()?;
    let name = args.breaks.clone().or_else(|| args.scenario.clone()).unwrap_or_else(|| "steady".to_owned());
    let ms = |it: Nanos| it.as_u64() / 1_000_000;
    let order = json!({
        "lease_ms": LEASE.as_millis() as u64,
        "lasts_ms": args.steady.or(args.lasts).map(ms),
        "warm_up_ms": args.warm_up.map(ms),
        "guard": args.guard.0,
        "settings": args.settings,
        "ready_made": args.breaks,
        "steady": args.steady.is_some(),
        "no_traffic": args.no_traffic,
    });
    crate::sim::interrupts();
    let started = match ask(&found, "POST", &format!("/v1/scenarios/{}", id_of(&name)), Some(&order)) {
        Ok(started) => started,
        Err(error) => {
            // Nothing began, and an empty report would look like one.
            args.report.iter().for_each(|it| drop(std::fs::remove_file(it)));
            return Err(error);
        }
    };
    announce(&found, &started);
    let path = format!("/v1/scenarios/{}", text(&started["id"]));
    let mut told = 0;
    let mut interrupted = false;
    let last = loop {
        if STOPPED.load(Ordering::Relaxed) && !interrupted {
            interrupted = true;
            ask(&found, "DELETE", &path, None)?;
        }
        let progress = ask(&found, "PUT", &path, None)?;
        told = tell(&progress, told);
        if !progress["end"].is_null() {
            break progress;
        }
        // Short naps, so that ctrl-c is heard at once.
        for _ in 0..10 {
            if !STOPPED.load(Ordering::Relaxed) || interrupted {
                std::thread::sleep(RENEW_EVERY / 10);
            }
        }
    };
    let whole = ask(&found, "GET", &path, None)?;
    let report = &whole["report"];
    if let Some(path) = &args.report {
        write_report(path, report)?;
    }
    conclude(&last, report);
    let held = array(&report["objectives"])
        .iter()
        .filter(|it| it["of"] == "scenario")
        .all(|it| it["met"].as_bool() == Some(true));
    Ok(match (interrupted, text(&last["end"]["how"])) {
        (true, _) => exit::INTERRUPTED,
        (false, "over") if held => exit::OK,
        _ => exit::FAILED,
    })
}

fn write_report(path: &Path, report: &Value) -> anyhow::Result<()> {
    if report.is_null() {
        bail!("nothing was measured: it ended before it began");
    }
    let text = format!("{}\n", serde_json::to_string_pretty(report)?);
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn announce(found: &Found, started: &Value) {
    let mut words =
        format!("{} on {}, for {}", text(&started["name"]), found.name, moment(&started["lasts_ms"]));
    if started["warm_up_ms"].as_u64().is_some_and(|it| it > 0) {
        words.push_str(&format!(", after {}", moment(&started["warm_up_ms"])));
    }
    words.push('\n');
    for act in array(&started["acts"]) {
        let lasting = if act["lasting_ms"].is_null() {
            "to the end".to_owned()
        } else {
            format!("for {}", moment(&act["lasting_ms"]))
        };
        words.push_str(&format!("  at {:<7} {}, {lasting}\n", moment(&act["at_ms"]), text(&act["what"])));
    }
    for guard in array(&started["guard"]) {
        words.push_str(&format!(
            "  must hold: {}; stops beyond {}\n",
            text(&guard["text"]),
            value(guard, &guard["stops_at"])
        ));
    }
    output::words(&words);
}

/// What was told since, and where the expectations stand; how many lines were told in all.
fn tell(progress: &Value, told: usize) -> usize {
    let lines = array(&progress["told"]);
    let mut words = String::new();
    for line in lines.iter().skip(told) {
        words.push_str(&format!("{:>8}  {}\n", signed(line["at_ms"].as_i64()), text(&line["text"])));
    }
    // A line every five seconds is enough to see that it lives.
    let at = progress["at_ms"].as_i64().unwrap_or(0);
    let every = 5_000 / RENEW_EVERY.as_millis() as i64;
    if (at / RENEW_EVERY.as_millis() as i64) % every == 0 && at > 0 && progress["end"].is_null() {
        let now = array(&progress["expectations"]).iter().map(standing).collect::<Vec<_>>().join("   ");
        let in_force = array(&progress["in_force"]).iter().map(text).collect::<Vec<_>>().join(", ");
        let in_force = if in_force.is_empty() { "nothing in force".to_owned() } else { in_force };
        words.push_str(&format!("{:>8}  {in_force}   {now}\n", signed(Some(at))));
    }
    output::words(&words);
    lines.len()
}

/// `web availability >= 99.9%: 99.95% (last 10s 99.9%)`
fn standing(it: &Value) -> String {
    let shown = |value_of: &Value| if value_of.is_null() { "-".to_owned() } else { value(it, value_of) };
    format!("{}: {} (last 10s {})", text(&it["text"]), shown(&it["whole"]), shown(&it["lately"]))
}

/// A number in the unit of the expectation it is of.
fn value(of: &Value, it: &Value) -> String {
    let Some(it) = it.as_f64() else { return "-".to_owned() };
    let words: Vec<&str> = text(&of["text"]).split_whitespace().collect();
    if words.contains(&"availability") || words.contains(&"errors") {
        share(it)
    } else if words.contains(&"throughput") || words.contains(&"goodput") {
        format!("{}/s", number(it))
    } else {
        crate::table::seconds(it)
    }
}

fn conclude(last: &Value, report: &Value) {
    let mut words = match text(&last["end"]["how"]) {
        "over" => String::new(),
        "guard" => "its guard stopped it; everything is undone\n".to_owned(),
        "lease-expired" => "its lease ran out; everything is undone\n".to_owned(),
        _ => "stopped; everything is undone\n".to_owned(),
    };
    for it in array(&report["objectives"]).iter().filter(|it| it["of"] == "scenario") {
        let mark = if it["met"].as_bool() == Some(true) { "held" } else { "NOT HELD" };
        words.push_str(&format!(
            "{mark:<9} {}: {}\n",
            text(&it["text"]),
            value(it, &it["measured"]["value"])
        ));
    }
    for it in array(&report["traffic"]) {
        let requests = &it["requests"];
        let ms = |key: &str| requests["latency_ms"][key]["value"].as_f64().unwrap_or(0.0) / 1e3;
        words.push_str(&format!(
            "{:<12} {}/s, answered {}, p50 {}, p99 {}\n",
            text(&it["name"]),
            number(requests["rate_per_s"]["value"].as_f64().unwrap_or(0.0)),
            share(requests["availability"]["value"].as_f64().unwrap_or(0.0)),
            crate::table::seconds(ms("p50")),
            crate::table::seconds(ms("p99")),
        ));
    }
    output::words(&words);
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn moment(ms: &Value) -> String {
    Nanos::from_millis(ms.as_u64().unwrap_or(0)).to_string()
}

fn signed(ms: Option<i64>) -> String {
    format!("{:.1}s", ms.unwrap_or(0) as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_factors_or_off() {
        assert_eq!(guard("off").map(|it| it.0), Ok(None));
        assert_eq!(guard("3").map(|it| it.0), Ok(Some(3.0)));
        for wrong in ["0.5", "-1", "nan", "much"] {
            assert!(guard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_are_said_in_the_unit_of_their_expectation() {
        #[track_caller]
        fn check(expectation: &str, it: f64, expected: &str) {
            assert_eq!(value(&json!({"text": expectation}), &json!(it)), expected);
        }
        check("web availability >= 99.9%", 0.9985, "99.85%");
        check("web goodput >= 20/s", 20.5, "20.5/s");
        check("web \"GET /\" p99 <= 250ms", 0.125, "125ms");
        assert_eq!(value(&json!({"text": "web p99 <= 1s"}), &Value::Null), "-");
    }
}
