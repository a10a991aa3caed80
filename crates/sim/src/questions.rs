//! Questions that take several forecasts: how far does it go, where is the knee, is this better than that.
//!
//! Everything compared here shares its luck: the n-th run of each side draws the same arrivals, work and network, so what
//! differs is the design, and intervals are on the differences.

use crate::plan::Plan;
use crate::report::Report;
use crate::run::{Forecast, Options, Progress, RunError, forecast};
use crate::stats::Estimate;
use units::{Histogram, Nanos};

/// One load of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Times the file's own traffic.
    pub load: f64,
    pub offered_per_second: f64,
    pub goodput: Estimate,
    pub availability: Estimate,
    /// Seconds, over all traffic.
    pub mean: Estimate,
    pub p99: Estimate,
    /// The busiest service and how busy it is.
    pub busiest: Option<(String, f64)>,
    pub holds: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    pub points: Vec<Point>,
    /// Index of the load beyond which latency is bought with little throughput: goodput over mean latency is largest.
    pub knee: Option<usize>,
}

/// Forecasts of the same system under several loads. Overload is what a sweep looks for, so nothing is refused.
pub fn sweep(
    plan: &Plan,
    options: &Options,
    loads: &[f64],
    watch: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Sweep, RunError> {
    let mut points = Vec::with_capacity(loads.len());
    for load in loads {
        points.push(point(plan, options, *load, watch)?);
    }
    let power = |point: &Point| point.goodput.value / point.mean.value.max(1e-9);
    let knee = (0..points.len()).max_by(|a, b| power(&points[*a]).total_cmp(&power(&points[*b])));
    Ok(Sweep { points, knee })
}

fn point(
    plan: &Plan,
    options: &Options,
    load: f64,
    watch: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Point, RunError> {
    let mut options = Options { allow_unstable: true, ..options.clone() };
    options.bias.load *= load;
    let forecast = forecast(plan, &options, watch)?;
    let report = Report::of(&forecast);
    let seconds = forecast.measured.as_secs_f64();
    let each = |of: &dyn Fn(&Totals) -> f64| {
        Estimate::of_runs(&forecast.runs.iter().map(|run| of(&Totals::of(&run.meters))).collect::<Vec<f64>>())
    };
    let busiest = report
        .services
        .iter()
        .filter_map(|it| Some((it.name.clone(), it.utilisation?.value)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(Point {
        load,
        offered_per_second: each(&|it| it.sent as f64 / seconds).value,
        goodput: each(&|it| it.ok as f64 / seconds),
        availability: each(&|it| it.ok as f64 / (it.ok + it.failed).max(1) as f64).within(0.0, 1.0),
        mean: each(&|it| it.latency.mean().unwrap_or(0.0) / 1e9),
        p99: each(&|it| it.latency.quantile(0.99).map_or(0.0, Nanos::as_secs_f64)),
        busiest,
        holds: report.verdict.holds,
    })
}

/// All traffic of one run together.
struct Totals {
    sent: u64,
    ok: u64,
    failed: u64,
    latency: Histogram,
}

impl Totals {
    fn of(meters: &crate::meter::Meters) -> Self {
        let mut totals = Self { sent: 0, ok: 0, failed: 0, latency: Histogram::new() };
        for load in &meters.loads {
            totals.sent += load.sent;
            totals.ok += load.requests.ok;
            totals.failed += load.requests.failures.total();
            totals.latency.merge(&load.requests.latency);
        }
        totals
    }
}

/// The largest load that still holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Times the file's own traffic; zero if not even a hundredth of it holds.
    pub load: f64,
    pub point: Option<Point>,
    /// The first load tried above it, which does not hold.
    pub beyond: Option<Point>,
}

/// Looked for between a hundredth and a thousand times the file's traffic.
const LOAD_MIN: f64 = 0.01;
const LOAD_MAX: f64 = 1_000.0;

/// Halves the gap between a load that holds and one that does not, until they are within `precision` of each other.
pub fn capacity(
    plan: &Plan,
    options: &Options,
    precision: f64,
    watch: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Capacity, RunError> {
    let precision = precision.clamp(0.001, 1.0);
    let (mut good, mut bad): (Option<Point>, Option<Point>) = (None, None);
    let mut load = 1.0;
    while (LOAD_MIN..=LOAD_MAX).contains(&load) {
        let tried = point(plan, options, load, watch)?;
        if tried.holds {
            good = Some(tried)
        } else {
            bad = Some(tried)
        }
        match (&good, &bad) {
            (Some(g), Some(b)) if b.load / g.load <= 1.0 + precision => break,
            (Some(g), Some(b)) => load = (g.load * b.load).sqrt(),
            (Some(_), None) => load *= 2.0,
            (None, _) => load /= 2.0,
        }
    }
    Ok(Capacity { load: good.as_ref().map_or(0.0, |it| it.load), point: good, beyond: bad })
}

/// One number of two forecasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `shoppers p99`, `cost per month`.
    pub what: String,
    /// `s`, `/s`, `share`, `$`.
    pub unit: &'static str,
    pub before: f64,
    pub after: f64,
    /// Of after minus before, by pairs of runs.
    pub difference: Estimate,
    /// The interval does not hold zero, and the change is for the worse.
    pub regression: bool,
}

/// Two designs under the same luck, number by number, for traffic that both have. Run both with the same seed and runs.
pub fn diff(before: &Forecast<'_>, after: &Forecast<'_>) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (a, load) in before.plan.loads.iter().enumerate() {
        let Some(b) = after.plan.loads.iter().position(|it| it.name == load.name) else { continue };
        let name = &load.name;
        let mut add = |what: &str, unit, more_is_worse, of: &dyn Fn(&crate::meter::LoadMeter, f64) -> f64| {
            let values = |forecast: &Forecast<'_>, index: usize| -> Vec<f64> {
                let seconds = forecast.measured.as_secs_f64();
                forecast.runs.iter().map(|run| of(&run.meters.loads[index], seconds)).collect()
            };
            let (x, y) = (values(before, a), values(after, b));
            differences.push(paired(format!("{name} {what}"), unit, &x, &y, more_is_worse));
        };
        for (what, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            add(what, "s", true, &|it, _| it.requests.latency.quantile(q).map_or(0.0, Nanos::as_secs_f64));
        }
        add("goodput", "/s", false, &|it, seconds| it.requests.ok as f64 / seconds);
        add("availability", "share", false, &|it, _| {
            it.requests.ok as f64 / it.requests.total().max(1) as f64
        });
    }
    let (x, y) = (Report::of(before).cost.per_month, Report::of(after).cost.per_month);
    // Bytes and hours hardly differ between runs, so a bill has no interval of its own.
    let difference = Estimate { value: y - x, low: y - x, high: y - x };
    differences.push(Difference {
        what: "cost per month".to_owned(),
        unit: "$",
        before: x,
        after: y,
        difference,
        regression: false,
    });
    differences
}

fn paired(what: String, unit: &'static str, x: &[f64], y: &[f64], more_is_worse: bool) -> Difference {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let pairs: Vec<f64> = x.iter().zip(y).map(|(x, y)| y - x).collect();
    let difference = Estimate::of_runs(&pairs);
    let regression = if more_is_worse { difference.low > 0.0 } else { difference.high < 0.0 };
    Difference { what, unit, before: mean(x), after: mean(y), difference, regression }
}
