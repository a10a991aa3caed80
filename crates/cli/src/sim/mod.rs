//! `isobar sim`: a forecast, and the questions that take several.

mod page;
mod traces;
mod words;

use crate::output::{self, Terminal};
use crate::table::{Table, dollars, number, seconds, share};
use crate::{exit, input};
use ::sim::{Fallacy, breaks, metastable, questions, set};
use ::sim::{Forecast, Options, Plan, Progress, Report, RunError};
use anyhow::{Context as _, bail};
use model::diagnostic::Diagnostic;
use model::span::{Sources, Span};
use model::system::{LinkOverride, LinkSettings, Place, System};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use units::{Nanos, Percent};

/// Forecast a system: latency, errors, saturation, cost, and what breaks first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 everything promised holds, 1 something does not, 2 a wrong file or question, 130 stopped early.

For example:
  isobar sim examples/shop                          one minute of the declared traffic, ten times over
  isobar sim examples/shop --scenario zone-lost --html report.html
  isobar sim examples/shop --break gray=cart
  isobar sim examples/shop --set load=2 --set cart.replicas=8
  isobar sim examples/shop --sweep load=0.5x..3x    throughput and latency against load
  isobar sim examples/shop --find capacity          the largest load that keeps the promises
  isobar sim examples/shop --map metastable         which loads a passing surge can leave stuck
  isobar sim examples/shop --fallacy latency,reliable")]
pub(crate) struct Args {
    /// A file, a folder that holds isobar.yaml, or - for standard input
    #[arg(default_value = ".")]
    file: PathBuf,

    /// Play one of the file's scenarios
    #[arg(long, value_name = "NAME", conflicts_with = "breaks")]
    scenario: Option<String>,

    /// Break something ready-made: zone-lost, gray=cart, chaos-monkey ... (`--break list` shows all)
    #[arg(long = "break", value_name = "WHAT[=TARGET]")]
    breaks: Option<String>,

    #[command(flatten)]
    pub(crate) run: RunArgs,

    /// The whole report as JSON
    #[arg(long)]
    json: bool,

    /// Write the report as one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Forecast a range of loads: load=0.5x..3x
    #[arg(long, value_name = "RANGE", group = "question")]
    sweep: Option<String>,

    /// Points of a sweep
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u16).range(2..=1000))]
    points: u16,

    /// Search: `capacity`, the largest load that keeps every promise
    #[arg(long, value_name = "WHAT", group = "question", value_parser = ["capacity"])]
    find: Option<String>,

    /// Map: `metastable`, load against the size of a surge
    #[arg(long, value_name = "WHAT", group = "question", value_parser = ["metastable"])]
    map: Option<String>,

    /// Fallacies of distributed computing to assume and not to: reliable, latency, bandwidth, secure, topology,
    /// administrator, cost, homogeneous, or all
    #[arg(long, value_name = "NAMES", group = "question", value_delimiter = ',')]
    fallacy: Vec<String>,

    /// Also write what others read, as KIND=FILE (repeatable): zipkin, otlp (traces of 200 requests of the first run), graph,
    /// histograms, guesstimate or prometheus
    #[arg(long, value_name = "KIND=FILE")]
    export: Vec<String>,

    /// When simulated time begins, for the stamps of exported traces: seconds since 1970, or `now`, since trace stores
    /// drop what is old
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = epoch)]
    epoch: Nanos,
}

/// What every forecast needs to know; shared with `isobar diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The same seed gives the same bytes, on any machine and any number of threads
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Independent runs; intervals come from how they differ
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Simulated time of each run that is measured [default: 1min, or as long as the scenario lasts]
    #[arg(long, value_name = "TIME")]
    duration: Option<Nanos>,

    /// Simulated time before measuring [default: found by MSER-5]
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Nanos>,

    /// Threads to run on [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Turn a knob: load=0.8, web.replicas=4, web.concurrency=16, shoppers.rate=400/s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,

    /// All on one machine, as `isobar up` runs it: no place is far, and a call costs what a proxy here does
    #[arg(long, value_name = "RTT", num_args = 0..=1, require_equals = true, default_missing_value = HOP)]
    here: Option<Nanos>,

    /// Run a system whose queues grow without end all the same
    #[arg(long)]
    allow_unstable: bool,
}

impl RunArgs {
    /// The options, and the model with its knobs turned.
    pub(crate) fn prepare(&self, system: &mut System) -> anyhow::Result<Options> {
        let mut options = Options {
            seed: self.seed,
            runs: self.runs,
            threads: self.threads.unwrap_or_else(cores),
            duration: self.duration,
            warm_up: self.warm_up,
            allow_unstable: self.allow_unstable,
            ..Options::default()
        };
        if self.duration.is_some_and(Nanos::is_zero) {
            bail!("--duration 0 measures nothing; give it some time, for example `--duration 1min`");
        }
        if let Some(hop) = self.here {
            bring_here(system, hop);
        }
        for text in &self.settings {
            let setting: set::Setting = text.parse().map_err(|it: String| anyhow::anyhow!("--set {it}"))?;
            options.bias.load *= set::apply(system, &setting).map_err(|it| anyhow::anyhow!("--set {it}"))?;
        }
        Ok(options)
    }
}

/// What a call through a proxy on one machine adds to the work behind it: two sockets on the loopback, there and back.
const HOP: &str = "0.3ms";

/// Every place is as near as the next socket, whatever the file and the built-in tables say.
fn bring_here(system: &mut System, hop: Nanos) {
    let near = LinkSettings {
        rtt: Some(hop),
        jitter: Some(Percent::ZERO),
        loss: Some(Percent::ZERO),
        ..LinkSettings::default()
    };
    let network = &mut system.network;
    let prices = |it: LinkSettings| LinkSettings { price_per_gb: it.price_per_gb, ..near };
    network.in_zone = prices(network.in_zone);
    network.between_zones = prices(network.between_zones);
    network.between_regions = prices(network.between_regions);
    // Whoever asks is on this machine, too.
    network.internet = near;
    let regions: Vec<_> = system.regions.ids().map(Place::Region).collect();
    // A pair that is named goes before every table.
    let pairs = regions.iter().flat_map(|from| regions.iter().map(|to| (*from, *to)));
    network.pairs =
        pairs.map(|(from, to)| LinkOverride { from, to, settings: near, span: Span::default() }).collect();
}

/// `now` or seconds since 1970.
fn epoch(text: &str) -> Result<Nanos, String> {
    if text == "now" {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        return Ok(since.map_or(Nanos::ZERO, |it| Nanos::from_secs(it.as_secs())));
    }
    // Stamps are nanoseconds in 64 bits, and the run is still to come: half of them are for it.
    const SECONDS_MAX: u64 = u64::MAX / 2 / 1_000_000_000;
    match text.parse::<u64>() {
        Ok(seconds) if seconds <= SECONDS_MAX => Ok(Nanos::from_secs(seconds)),
        _ => Err(format!("write `now`, or whole seconds since 1970, at most {SECONDS_MAX}")),
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |it| u32::try_from(it.get()).unwrap_or(u32::MAX))
}

/// Ctrl-c: the first ends the forecast with what it has, and that is printed.
pub(crate) static STOPPED: AtomicBool = AtomicBool::new(false);

/// Listens for ctrl-c from now on. The second one ends the process as it always did.
pub(crate) fn interrupts() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                STOPPED.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
        });
    });
}

/// A plan, or `None` after its mistakes were shown.
pub(crate) fn plan(file: &Path, system: &System, sources: &Sources, terminal: Terminal) -> Option<Plan> {
    let folder =
        if file.is_dir() { file.to_owned() } else { file.parent().map(Path::to_owned).unwrap_or_default() };
    let recordings = |name: &str| recording(&folder.join(name));
    match ::sim::compile(system, &recordings) {
        Ok(plan) => Some(plan),
        Err(errors) => {
            let diagnostics: Vec<Diagnostic> = errors
                .iter()
                .map(|it| Diagnostic::error("E0601", it.at, it.message.clone()).label("cannot be forecast"))
                .collect();
            let style =
                model::render::Style { color: terminal.color_stderr, ..model::render::Style::default() };
            output::words(&model::render::human(sources, &diagnostics, style));
            None
        }
    }
}

/// Arrival times, one a line: durations since the start, or seconds as a plain number.
fn recording(path: &Path) -> Result<Vec<Nanos>, String> {
    const BYTES_MAX: u64 = 256 << 20;
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > BYTES_MAX {
        return Err(format!("{} has {size} bytes; at most {BYTES_MAX} are read", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut times = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let word = line.split(',').next().unwrap_or_default().trim();
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        let time = match word.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Nanos::from_secs_f64(seconds),
            _ => word.parse().map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))?,
        };
        times.push(time);
    }
    times.sort_unstable();
    Ok(times)
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    if args.breaks.as_deref() == Some("list") {
        let mut table = Table::new(["--break", "what happens"]);
        breaks::all().for_each(|(name, what)| table.row([name.to_owned(), what.to_owned()]));
        output::print(&table.text(terminal.color_stdout))?;
        return Ok(exit::OK);
    }
    let Some((mut system, sources)) = input::system(&args.file, terminal)? else { return Ok(exit::USAGE) };
    let mut options = args.run.prepare(&mut system)?;
    options.scenario.clone_from(&args.scenario);
    let exports =
        args.export.iter().map(|it| parse_export(it)).collect::<anyhow::Result<Vec<(&str, &Path)>>>()?;
    if exports.iter().any(|(kind, _)| traces::KINDS.contains(kind)) {
        options.traces = traces::REQUESTS;
    }
    if let Some(wanted) = &args.breaks {
        let scenario = breaks::ready_made(&system, wanted).map_err(|it| anyhow::anyhow!("--break {it}"))?;
        options.scenario = Some(scenario.name.value.clone());
        if scenario.events.iter().any(|it| it.fault.value == model::system::Fault::FailDns) {
            system.network.dns.get_or_insert_default();
        }
        system.scenarios.push(scenario);
    }
    let Some(mut plan) = plan(&args.file, &system, &sources, terminal) else { return Ok(exit::USAGE) };
    interrupts();
    let progress = Bar::new(terminal);
    if let Some(range) = &args.sweep {
        return sweep(args, &plan, &options, range, &progress, terminal);
    }
    if args.find.is_some() {
        return capacity(args, &plan, &options, &progress);
    }
    if args.map.is_some() {
        return metastable(args, &mut plan, &options, &progress);
    }
    if !args.fallacy.is_empty() {
        return fallacies(args, &system, &sources, &options, &progress, terminal);
    }
    let forecast = match ::sim::forecast(&plan, &options, &|it: Progress| progress.runs(it)) {
        Ok(forecast) => forecast,
        Err(error) => return refused(error, &progress),
    };
    progress.clear();
    if forecast.runs.is_empty() {
        return Ok(stopped(&progress));
    }
    let mut report = Report::of(&forecast);
    ::sim::advice::advise(&forecast, &mut report, &|_| progress.trying());
    progress.clear();
    if let Some(path) = &args.html {
        write(path, &page::page(&report))?;
    }
    for (kind, path) in exports {
        export_to(kind, path, &forecast, &report, args.epoch)?;
    }
    if args.json {
        let mut value = report.to_json();
        value["distances"] = json!(args.run.here.is_none());
        output::print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    } else {
        output::print(&words::report(&report, terminal.color_stdout, output::width()))?;
    }
    Ok(match (report.partial, report.is_good()) {
        (true, _) => exit::INTERRUPTED,
        (false, true) => exit::OK,
        (false, false) => exit::FAILED,
    })
}

fn refused(error: RunError, progress: &Bar) -> anyhow::Result<u8> {
    progress.clear();
    let hint = if matches!(error, RunError::Unstable { .. }) {
        "\n(--allow-unstable runs it all the same)"
    } else {
        ""
    };
    bail!("{error}{hint}")
}

/// The same, of one of two files.
pub(crate) fn refused_of(file: &Path, error: &RunError, progress: &Bar) -> anyhow::Result<u8> {
    progress.clear();
    bail!("{}: {error}", file.display())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn stopped(progress: &Bar) -> u8 {
    progress.clear();
    output::words("stopped before anything was known\n");
    exit::INTERRUPTED
}

fn sweep(
    args: &Args,
    plan: &Plan,
    options: &Options,
    range: &str,
    progress: &Bar,
    terminal: Terminal,
) -> anyhow::Result<u8> {
    let loads = set::range(range, usize::from(args.points)).map_err(|it| anyhow::anyhow!("--sweep {it}"))?;
    let found = match questions::sweep(plan, options, &loads, &|it| progress.runs(it)) {
        Ok(found) => found,
        Err(error) => return refused(error, progress),
    };
    progress.clear();
    if found.partial && found.points.is_empty() {
        return Ok(stopped(progress));
    }
    let code = if found.partial { exit::INTERRUPTED } else { exit::OK };
    if args.json {
        let estimate = |it: &::sim::Estimate, by: f64| json!({"value": it.value * by, "low": it.low * by, "high": it.high * by});
        let points: Vec<Value> = found
            .points
            .iter()
            .enumerate()
            .map(|(n, it)| {
                json!({"load": it.load, "offered_per_s": it.offered_per_second, "goodput_per_s": estimate(&it.goodput, 1.0),
                       "availability": estimate(&it.availability, 1.0), "mean_ms": estimate(&it.mean, 1e3), "p99_ms": estimate(&it.p99, 1e3),
                       "busiest": it.busiest.as_ref().map(|(name, busy)| json!({"service": name, "utilisation": busy})),
                       "holds": it.holds, "knee": found.knee == Some(n)})
            })
            .collect();
        output::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&json!({"schema": 1, "partial": found.partial, "points": points}))?
        ))?;
        return Ok(code);
    }
    let mut table =
        Table::new(["load", "offered/s", "answered/s", "answered", "mean", "p99", "busiest", "", "", ""]);
    let top = found.points.iter().map(|it| it.goodput.value).fold(1e-9, f64::max);
    for (n, it) in found.points.iter().enumerate() {
        table.row([
            format!("{:.2}x", it.load),
            number(it.offered_per_second),
            number(it.goodput.value),
            share(it.availability.value),
            seconds(it.mean.value),
            seconds(it.p99.value),
            it.busiest.as_ref().map_or(String::new(), |(name, busy)| format!("{name} {}", share(*busy))),
            if it.holds { "holds".to_owned() } else { "does not hold".to_owned() },
            "█".repeat((it.goodput.value / top * 16.0).round() as usize),
            if found.knee == Some(n) { "<- knee".to_owned() } else { String::new() },
        ]);
    }
    let mut text = table.text_within(terminal.color_stdout, output::width(), &[1, 6, 4, 2]);
    if let Some(n) = found.knee {
        text.push_str(&format!(
            "\nthe knee is at {:.2}x: beyond it more load buys latency rather than answers\n",
            found.points[n].load
        ));
    }
    if found.partial {
        text.push_str(&format!("stopped early: {} of {} loads\n", found.points.len(), loads.len()));
    }
    output::print(&text)?;
    Ok(code)
}

/// Loads closer together than this are the same answer.
const CAPACITY_PRECISION: f64 = 0.02;

fn capacity(args: &Args, plan: &Plan, options: &Options, progress: &Bar) -> anyhow::Result<u8> {
    let found = match questions::capacity(plan, options, CAPACITY_PRECISION, &|it| progress.runs(it)) {
        Ok(found) => found,
        Err(error) => return refused(error, progress),
    };
    progress.clear();
    if found.partial && found.point.is_none() && found.beyond.is_none() {
        return Ok(stopped(progress));
    }
    let code = if found.partial { exit::INTERRUPTED } else { exit::OK };
    let answered = found.point.as_ref().map(|it| it.goodput.value);
    if args.json {
        let value = json!({"schema": 1, "partial": found.partial, "load": found.load, "goodput_per_s": answered, "breaks_at": found.beyond.as_ref().map(|it| it.load),
                           "busiest": found.beyond.as_ref().and_then(|it| it.busiest.as_ref()).map(|(name, _)| name)});
        output::print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
        return Ok(code);
    }
    let mut text = match answered {
        Some(answered) => format!(
            "carries {:.2}x the file's traffic, {} requests/s, and keeps its promises\n",
            found.load,
            number(answered)
        ),
        None => "keeps its promises at no load that was tried\n".to_owned(),
    };
    if let Some(beyond) = &found.beyond {
        let busiest = beyond
            .busiest
            .as_ref()
            .map_or(String::new(), |(name, busy)| format!("; busiest is `{name}` at {}", share(*busy)));
        text.push_str(&format!(
            "at {:.2}x it does not: {} answered, p99 {}{busiest}\n",
            beyond.load,
            share(beyond.availability.value),
            seconds(beyond.p99.value)
        ));
    }
    if found.partial {
        text.push_str("stopped early: the gap between the two is still to be narrowed\n");
    }
    output::print(&text)?;
    Ok(code)
}

fn metastable(args: &Args, plan: &mut Plan, options: &Options, progress: &Bar) -> anyhow::Result<u8> {
    let loads: Vec<f64> = (1..=9).map(|n| f64::from(n) * 0.25).collect();
    let surges = [1.5, 2.0, 3.0, 5.0, 8.0];
    // Three runs a cell: a map is about shape, and each cell is a whole story of two minutes.
    let options = Options { runs: options.runs.min(3), ..options.clone() };
    let found =
        match metastable::metastable(plan, &options, &loads, &surges, &|done, all| progress.steps(done, all))
        {
            Ok(found) => found,
            Err(error) => return refused(error, progress),
        };
    progress.clear();
    let stuck: Vec<f64> =
        (0..found.loads.len()).filter(|it| found.is_vulnerable(*it)).map(|it| found.loads[it]).collect();
    if args.json {
        let rows: Vec<Value> = found
            .loads
            .iter()
            .zip(&found.fates)
            .map(|(load, row)| json!({"load": load, "fates": row.iter().map(|it| it.word()).collect::<Vec<_>>()}))
            .collect();
        output::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(
                &json!({"schema": 1, "partial": found.partial, "surges": surges, "rows": rows})
            )?
        ))?;
    } else {
        let mut text = String::from("  load   after ten seconds at\n        ");
        surges.iter().for_each(|it| text.push_str(&format!("{:>12}", format!("{it}x"))));
        text.push('\n');
        for (load, row) in found.loads.iter().zip(&found.fates) {
            text.push_str(&format!("{load:>6.2}x "));
            row.iter().for_each(|it| text.push_str(&format!("{:>12}", it.word())));
            text.push('\n');
        }
        match (stuck.first(), stuck.last()) {
            (Some(from), Some(to)) => {
                text.push_str(&format!(
                    "vulnerable from {from}x to {to}x: a surge can leave it stuck at a load it carries\n"
                ));
            }
            _ => text.push_str("no surge leaves it stuck at a load it carries\n"),
        }
        output::print(&text)?;
    }
    Ok(match (found.partial, stuck.is_empty()) {
        (true, _) => exit::INTERRUPTED,
        (false, true) => exit::OK,
        (false, false) => exit::FAILED,
    })
}

/// What the rows of a comparison show: the worst of all traffic, and what it costs.
fn numbers(report: &Report) -> (f64, f64, f64, f64) {
    let worst = |of: &dyn Fn(&::sim::report::TrafficReport) -> f64, most: bool| {
        let values = report.traffic.iter().map(of);
        if most { values.fold(0.0, f64::max) } else { values.fold(1.0, f64::min) }
    };
    (
        worst(&|it| it.requests.latency.p50.value, true),
        worst(&|it| it.requests.latency.p99.value, true),
        worst(&|it| it.requests.availability.value, false),
        report.cost.per_month,
    )
}

/// Each assumption made on a plan of its own, beside the plan as the file says.
fn fallacies(
    args: &Args,
    system: &System,
    sources: &Sources,
    options: &Options,
    progress: &Bar,
    terminal: Terminal,
) -> anyhow::Result<u8> {
    let mut asked: Vec<(Fallacy, &str)> = Vec::new();
    for name in &args.fallacy {
        match Fallacy::ALL.into_iter().find(|(_, known)| known == name) {
            Some(it) if asked.contains(&it) => {}
            Some(it) => asked.push(it),
            None if name == "all" => asked = Fallacy::ALL.to_vec(),
            None => {
                let known: Vec<&str> = Fallacy::ALL.iter().map(|(_, name)| *name).collect();
                bail!("--fallacy {name}: no fallacy is called so; there are {} and all", known.join(", "));
            }
        }
    }
    let mut rows: Vec<(String, Report)> = Vec::new();
    let all = asked.len() + 1;
    let options = Options { allow_unstable: true, ..options.clone() };
    let mut play =
        |name: String, options: &Options, change: &dyn Fn(&mut Plan)| -> anyhow::Result<Option<u8>> {
            let Some(mut plan) = plan(&args.file, system, sources, terminal) else {
                return Ok(Some(exit::USAGE));
            };
            change(&mut plan);
            let done = rows.len().min(all);
            match ::sim::forecast(&plan, options, &|_| progress.steps(done, all)) {
                Ok(forecast) if forecast.partial => Ok(Some(stopped(progress))),
                Ok(forecast) => {
                    rows.push((name, Report::of(&forecast)));
                    Ok(None)
                }
                Err(error) => refused(error, progress).map(Some),
            }
        };
    if let Some(code) = play("nothing (as the file says)".to_owned(), &options, &|_| ())? {
        return Ok(code);
    }
    for (fallacy, name) in &asked {
        if let Some(code) = play((*name).to_owned(), &options, &|plan| fallacy.assume(plan))? {
            return Ok(code);
        }
    }
    // What the file assumes by itself shows nothing when it is assumed; so it is doubted.
    let same = |it: &Report| {
        let ((a, b, c, d), (e, f, g, h)) = (numbers(it), numbers(&rows[0].1));
        let near = |x: f64, y: f64| (x - y).abs() <= 0.005 * x.abs().max(y.abs());
        near(a, e) && near(b, f) && near(d, h) && (c - g).abs() < 1e-4
    };
    let doubted: Vec<(Fallacy, &str)> =
        asked.iter().zip(rows.iter().skip(1)).filter(|(_, row)| same(&row.1)).map(|(it, _)| *it).collect();
    let mut words: Vec<String> = Vec::new();
    for (fallacy, name) in doubted {
        let Some(mut plan) = plan(&args.file, system, sources, terminal) else { return Ok(exit::USAGE) };
        let doubt = fallacy.doubt(&mut plan, options.scenario.as_deref());
        words.push(format!("not {name}: {}", doubt.words));
        let options = Options { scenario: doubt.scenario, ..options.clone() };
        match ::sim::forecast(&plan, &options, &|_| progress.steps(all, all)) {
            Ok(forecast) if forecast.partial => return Ok(stopped(progress)),
            Ok(forecast) => rows.push((format!("not {name}"), Report::of(&forecast))),
            Err(error) => return refused(error, progress),
        }
    }
    progress.clear();
    if args.json {
        let all: Vec<Value> = rows
            .iter()
            .map(|(name, report)| {
                let (p50, p99, answered, cost) = numbers(report);
                json!({"assumed": name, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "availability": answered, "cost_per_month_usd": cost, "holds": report.verdict.holds})
            })
            .collect();
        output::print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&json!({"schema": 1, "forecasts": all}))?
        ))?;
        return Ok(exit::OK);
    }
    let mut table =
        Table::new(["assumed", "slowest p50", "slowest p99", "least answered", "$ a month", "promises"]);
    for (name, report) in &rows {
        let (p50, p99, answered, cost) = numbers(report);
        let holds = if report.verdict.holds { "hold" } else { "do not hold" };
        table.row([
            name.clone(),
            seconds(p50),
            seconds(p99),
            share(answered),
            dollars(cost),
            holds.to_owned(),
        ]);
    }
    output::print(&format!(
        "{}\nwhat an assumption hides is its distance from the first line{}\n",
        table.text(terminal.color_stdout),
        words.iter().map(|it| format!("\n{it}")).collect::<String>()
    ))?;
    Ok(exit::OK)
}

/// A misspelt kind is told before the forecast, not after it.
fn parse_export(export: &str) -> anyhow::Result<(&str, &Path)> {
    let Some((kind, path)) = export.split_once('=').filter(|(_, path)| !path.is_empty()) else {
        bail!("--export {export}: write KIND=FILE, for example `--export histograms=latency.csv`");
    };
    let known = || traces::KINDS.iter().chain(::sim::export::KINDS).copied();
    if !known().any(|it| it == kind) {
        bail!("--export {kind}: no such kind; there are {}", known().collect::<Vec<&str>>().join(", "));
    }
    Ok((kind, Path::new(path)))
}

fn export_to(
    kind: &str,
    path: &Path,
    forecast: &Forecast<'_>,
    report: &Report,
    epoch: Nanos,
) -> anyhow::Result<()> {
    let text = traces::export(forecast, kind, epoch).or_else(|| ::sim::export::export(report, kind));
    write(path, &text.unwrap_or_default())
}

/// Progress on stderr when somebody watches, and the ear for ctrl-c.
pub(crate) struct Bar {
    shown: bool,
    began: std::sync::OnceLock<std::time::Instant>,
    last: std::sync::Mutex<Option<((usize, usize), std::time::Instant)>>,
}

/// Often enough to see that it goes on.
const REFRESH: std::time::Duration = std::time::Duration::from_millis(100);

impl Bar {
    pub(crate) fn new(_terminal: Terminal) -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            began: std::sync::OnceLock::new(),
            last: std::sync::Mutex::default(),
        }
    }

    /// Says it again when it has moved; how fast it goes is no reason to.
    fn show(&self, done: usize, all: usize, what: &str, speed: &str) {
        if !self.shown {
            return;
        }
        let filled = 24 * done.min(all) / all.max(1);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|(known, at)| known != (done, all) || at.elapsed() >= REFRESH) {
            let bar = format!("{}{}", "█".repeat(filled), "░".repeat(24 - filled));
            let counts = if all == 0 { String::new() } else { format!("{done} of {all} ") };
            output::words(&format!("\r\x1b[K{bar} {counts}{what}{speed} "));
            *last = Some(((done, all), std::time::Instant::now()));
        }
    }

    pub(crate) fn runs(&self, it: Progress) -> bool {
        let began = *self.began.get_or_init(std::time::Instant::now);
        let speed = it.events as f64 / began.elapsed().as_secs_f64().max(1e-3);
        self.show(it.runs_done as usize, it.runs as usize, "runs", &format!(", {} events/s", number(speed)));
        !STOPPED.load(Ordering::Relaxed)
    }

    pub(crate) fn steps(&self, done: usize, all: usize) -> bool {
        self.show(done, all, "forecasts", "");
        !STOPPED.load(Ordering::Relaxed)
    }

    fn trying(&self) -> bool {
        self.show(0, 0, "changes tried", "");
        !STOPPED.load(Ordering::Relaxed)
    }

    pub(crate) fn clear(&self) {
        if self.shown {
            output::words("\r\x1b[K");
        }
    }
}
