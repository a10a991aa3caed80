//! `isobar diff`: two files forecast with the same luck, or two reports laid side by side. Exit 1 on a regression, so
//! that a pull request can be held to it.

mod reports;

use crate::output::{self, Terminal};
use crate::sim::{self, Bar, RunArgs};
use crate::table::{Table, dollars, number, seconds, share};
use crate::{exit, input};
use ::sim::compare::{Comparison, Measured, compare};
use ::sim::{Options, RunError};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use units::Nanos;

/// Compare two files, or two reports: what got better, what got worse, by how much
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two files are forecast with the same luck, run by run, so that what they share cancels; a difference counts when its 95 %
interval excludes zero. Two reports of `isobar sim --json` are compared as they are.

Exit code: 0 no regression, 1 a promise is broken or something is certainly worse, 2 a wrong file, 130 stopped early.

For example:
  isobar diff examples/shop examples/shop-one-zone
  isobar diff main.yaml branch.yaml --set load=2
  isobar diff forecast.json actual.json")]
pub(crate) struct Args {
    /// The file or report of before
    before: PathBuf,

    /// The file or report of after
    after: PathBuf,

    /// Play this scenario, which both files must name
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,

    #[command(flatten)]
    run: RunArgs,

    /// All differences as JSON
    #[arg(long)]
    json: bool,
}

const ROWS_MAX: usize = 30;

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    match (report(&args.before)?, report(&args.after)?) {
        (Some(before), Some(after)) => reports::run(args.json, &before, &after, terminal),
        (None, None) => files(args, terminal),
        _ => bail!(
            "one is a report and the other is a file: make a report of the file first, `isobar sim FILE --json > report.json`"
        ),
    }
}

/// A JSON file with a `schema` is a report of ours.
fn report(path: &Path) -> anyhow::Result<Option<Value>> {
    const BYTES_MAX: u64 = 256 << 20;
    if path.extension().is_none_or(|it| it != "json") {
        return Ok(None);
    }
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > BYTES_MAX {
        bail!("{} has {size} bytes; a report has at most {BYTES_MAX}", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(1) => Ok(Some(value)),
        Some(other) => bail!("{} has schema {other}; this isobar reads schema 1", path.display()),
        None => bail!("{} is JSON, and no report of isobar: it has no `schema`", path.display()),
    }
}

fn files(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let mut plans = Vec::new();
    let mut options = Options::default();
    for file in [&args.before, &args.after] {
        let Some((mut system, sources)) = input::system(file, terminal)? else { return Ok(exit::USAGE) };
        options = args.run.prepare(&mut system)?;
        let Some(plan) = sim::plan(file, &system, &sources, terminal) else { return Ok(exit::USAGE) };
        plans.push(plan);
    }
    let [before, after] = &plans[..] else { bail!("two files are compared") };
    options.scenario.clone_from(&args.scenario);
    // The same moments for both: a warm-up found for each would differ.
    options.warm_up = Some(options.warm_up.unwrap_or(if args.scenario.is_some() {
        Nanos::ZERO
    } else {
        Nanos::from_secs(10)
    }));
    if args.scenario.is_some() && options.duration.is_none() {
        let lasts = plans
            .iter()
            .filter_map(|it| it.scenarios.iter().find(|it| Some(&it.name) == args.scenario.as_ref())?.lasts)
            .max();
        options.duration = Some(lasts.unwrap_or(Nanos::from_secs(120)));
    }
    sim::interrupts();
    let progress = Bar::new(terminal);
    let run = |plan| -> Result<_, RunError> { ::sim::forecast(plan, &options, &|it| progress.runs(it)) };
    let (first, second) = match (run(before), run(after)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) => return sim::refused_of(&args.before, &error, &progress),
        (_, Err(error)) => return sim::refused_of(&args.after, &error, &progress),
    };
    progress.clear();
    if first.partial || second.partial {
        output::words("stopped before both were forecast\n");
        return Ok(exit::INTERRUPTED);
    }
    let found = compare(&first, &second);
    if args.json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&as_json(&found))?))?;
    } else {
        output::print(&words(&found, terminal.color_stdout))?;
    }
    Ok(if found.is_regression() { exit::FAILED } else { exit::OK })
}

fn show(measure: Measured, value: f64) -> String {
    match measure {
        Measured::Availability | Measured::Utilisation => share(value),
        Measured::P50 | Measured::P99 | Measured::P999 | Measured::Mean => seconds(value),
        Measured::Goodput => format!("{}/s", number(value)),
        Measured::Cost => dollars(value),
    }
}

/// With its sign, and shares in percent points.
fn change(measure: Measured, value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "+" };
    let size = match measure {
        Measured::Availability | Measured::Utilisation => format!("{:.3} points", value.abs() * 100.0),
        _ => show(measure, value.abs()),
    };
    format!("{sign}{size}")
}

fn words(found: &Comparison, color: bool) -> String {
    let mut text = String::new();
    let regressions = found.differences.iter().filter(|it| it.regression).count();
    if found.is_regression() {
        text.push_str(&format!(
            "worse: {regressions} certain regressions, {} broken promises\n",
            found.broken.len()
        ));
    } else {
        text.push_str("no regression\n");
    }
    found.broken.iter().for_each(|it| text.push_str(&format!("  broken: {it}\n")));
    for (what, names) in [("only before", &found.only_before), ("only after", &found.only_after)] {
        if !names.is_empty() {
            text.push_str(&format!("  {what}: {}\n", names.join(", ")));
        }
    }
    // What is certain, and the bill whether certain or not.
    let certain = |it: &&::sim::compare::Difference| {
        it.regression || it.change.low > 0.0 || it.change.high < 0.0 || it.measure == Measured::Cost
    };
    let shown: Vec<_> = found
        .differences
        .iter()
        .filter(certain)
        .filter(|it| it.change.value != 0.0 || it.measure == Measured::Cost)
        .collect();
    let mut table = Table::new(["", "", "before", "after", "change", "95 % interval", ""]);
    for it in shown.iter().take(ROWS_MAX) {
        let interval = if it.change.half_width().is_finite() {
            format!("{} .. {}", change(it.measure, it.change.low), change(it.measure, it.change.high))
        } else {
            "one run: none".to_owned()
        };
        table.row([
            it.of.clone(),
            it.measure.word().to_owned(),
            show(it.measure, it.before),
            show(it.measure, it.after),
            change(it.measure, it.change.value),
            interval,
            if it.regression { "worse".to_owned() } else { String::new() },
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{}", table.text(color)));
    }
    if shown.len() > ROWS_MAX {
        text.push_str(&format!(
            "  and {} more certain differences (--json has all)\n",
            shown.len() - ROWS_MAX
        ));
    }
    text
}

fn as_json(found: &Comparison) -> Value {
    let differences: Vec<Value> = found
        .differences
        .iter()
        .map(|it| {
            json!({"of": it.of, "measure": it.measure.word(), "before": it.before, "after": it.after, "change": it.change.value,
                   "low": it.change.low.is_finite().then_some(it.change.low), "high": it.change.high.is_finite().then_some(it.change.high),
                   "regression": it.regression})
        })
        .collect();
    json!({"schema": 1, "regression": found.is_regression(), "broken": found.broken, "only_before": found.only_before,
           "only_after": found.only_after, "differences": differences})
}
