//! Questions that take several forecasts: how far does it go, where is the knee. All share their luck, so what differs is
//! the load; comparing two designs is `compare`.

use crate::plan::Plan;
use crate::report::Report;
use crate::run::{Options, Progress, RunError, forecast};
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
    /// Stopped before all loads were forecast.
    pub partial: bool,
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
        match point(plan, options, *load, watch)? {
            Some(point) => points.push(point),
            None => break,
        }
    }
    let partial = points.len() < loads.len();
    let power = |point: &Point| point.goodput.value / point.mean.value.max(1e-9);
    let knee = (0..points.len()).max_by(|a, b| power(&points[*a]).total_cmp(&power(&points[*b])));
    Ok(Sweep { points, knee, partial })
}

/// `None`: it was stopped.
fn point(
    plan: &Plan,
    options: &Options,
    load: f64,
    watch: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Option<Point>, RunError> {
    let mut options = Options { allow_unstable: true, ..options.clone() };
    options.bias.load *= load;
    let forecast = forecast(plan, &options, watch)?;
    if forecast.partial {
        return Ok(None);
    }
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
    Ok(Some(Point {
        load,
        offered_per_second: each(&|it| it.sent as f64 / seconds).value,
        goodput: each(&|it| it.ok as f64 / seconds),
        availability: each(&|it| it.ok as f64 / (it.ok + it.failed).max(1) as f64).within(0.0, 1.0),
        mean: each(&|it| it.latency.mean().unwrap_or(0.0) / 1e9),
        p99: each(&|it| it.latency.quantile(0.99).map_or(0.0, Nanos::as_secs_f64)),
        busiest,
        holds: report.verdict.holds,
    }))
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
    /// Stopped before the gap between the two was small.
    pub partial: bool,
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
    let (mut load, mut partial) = (1.0, false);
    while (LOAD_MIN..=LOAD_MAX).contains(&load) {
        let Some(tried) = point(plan, options, load, watch)? else {
            partial = true;
            break;
        };
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
    Ok(Capacity { load: good.as_ref().map_or(0.0, |it| it.load), point: good, beyond: bad, partial })
}
