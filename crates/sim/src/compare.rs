//! Which of two is better, and by how much: both forecast with the same luck, compared run by run.
//!
//! Common random numbers make the difference of two designs far more certain than the designs themselves: what both share
//! cancels. A difference is called one only when its 95 % interval excludes zero.

use crate::meter::{Cause, Meters, Requests};
use crate::plan::{Plan, StationKind};
use crate::report::Report;
use crate::run::Forecast;
use crate::stats::Estimate;
use units::Nanos;

/// Two forecasts side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub before: Report,
    pub after: Report,
    /// Worst first: regressions, then by size.
    pub differences: Vec<Difference>,
    /// Promises that held before and do not after.
    pub broken: Vec<String>,
    /// Services and traffic that only one of the two has.
    pub only_before: Vec<String>,
    pub only_after: Vec<String>,
}

/// One number of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `shoppers`, `web`.
    pub of: String,
    pub measure: Measured,
    pub before: f64,
    pub after: f64,
    /// After minus before, with its interval.
    pub change: Estimate,
    /// Certain, larger than nothing, and for the worse.
    pub regression: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    Availability,
    /// Seconds, all latencies.
    P50,
    P99,
    P999,
    Mean,
    /// Per second.
    Goodput,
    Utilisation,
    /// Dollars a month.
    Cost,
}

impl Measured {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Mean => "mean",
            Self::Goodput => "goodput",
            Self::Utilisation => "utilisation",
            Self::Cost => "cost",
        }
    }

    /// How much worse is worth failing a pull request: below it a certain difference is still only a note.
    fn is_worse(self, before: f64, change: &Estimate) -> bool {
        match self {
            Self::Availability => change.high < -0.0001,
            Self::P50 | Self::P99 | Self::P999 | Self::Mean => change.low > 0.05 * before.max(1e-6),
            // Money and room are for people to weigh, and less goodput of less traffic is no failure: what is asked and not
            // answered shows as availability.
            Self::Goodput | Self::Utilisation | Self::Cost => false,
        }
    }
}

impl Comparison {
    pub fn is_regression(&self) -> bool {
        !self.broken.is_empty() || self.differences.iter().any(|it| it.regression)
    }
}

/// Both forecasts need the same seed, runs, warm-up and duration, or their runs are not of the same moments.
pub fn compare(before: &Forecast<'_>, after: &Forecast<'_>) -> Comparison {
    let numbers_of = |it: &Forecast<'_>| -> Vec<Vec<Number>> {
        let seconds = it.measured.as_secs_f64();
        it.runs.iter().map(|run| numbers(it.plan, &run.meters, seconds)).collect()
    };
    let (numbers_before, numbers_after) = (numbers_of(before), numbers_of(after));
    let (report_before, report_after) = (Report::of(before), Report::of(after));
    let mut differences = Vec::new();
    let first = numbers_before.first().map_or(&[][..], Vec::as_slice);
    for (at, number) in first.iter().enumerate() {
        let other = numbers_after
            .first()
            .and_then(|it| it.iter().position(|it| it.of == number.of && it.measure == number.measure));
        let Some(other) = other else { continue };
        let old: Vec<f64> = numbers_before.iter().map(|it| it[at].value).collect();
        let new: Vec<f64> = numbers_after.iter().map(|it| it[other].value).collect();
        let each: Vec<f64> = old.iter().zip(&new).map(|(old, new)| new - old).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let (before, after, change) = (mean(&old), mean(&new), Estimate::of_runs(&each));
        let regression = number.measure.is_worse(before, &change);
        let (of, measure) = (number.of.clone(), number.measure);
        differences.push(Difference { of, measure, before, after, change, regression });
    }
    differences.sort_by(|a, b| {
        let size = |it: &Difference| {
            if it.before == 0.0 { it.change.value.abs() } else { (it.change.value / it.before).abs() }
        };
        b.regression
            .cmp(&a.regression)
            .then(size(b).total_cmp(&size(a)))
            .then(a.of.cmp(&b.of))
            .then(a.measure.cmp(&b.measure))
    });
    let kept = |report: &Report, text: &str| {
        report.objectives.iter().find(|it| it.text == text).is_none_or(|it| it.met)
    };
    let broken = report_after
        .objectives
        .iter()
        .filter(|it| !it.met && kept(&report_before, &it.text))
        .map(|it| it.text.clone())
        .collect();
    let (only_before, only_after) =
        (missing(&report_before, &report_after), missing(&report_after, &report_before));
    Comparison { before: report_before, after: report_after, differences, broken, only_before, only_after }
}

fn missing(of: &Report, from: &Report) -> Vec<String> {
    let has = |name: &str| from.services.iter().any(|it| it.name == name);
    of.services.iter().filter(|it| !has(&it.name)).map(|it| it.name.clone()).collect()
}

struct Number {
    of: String,
    measure: Measured,
    value: f64,
}

/// Everything of one run that two designs are compared by, in an order that depends on the plan alone.
fn numbers(plan: &Plan, meters: &Meters, seconds: f64) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut say = |of: &str, measure, value| numbers.push(Number { of: of.to_owned(), measure, value });
    let mut requests = |of: &str, it: &Requests| {
        let waited = it.total() - it.failures.of(Cause::Cancelled);
        say(of, Measured::Availability, if waited == 0 { 1.0 } else { it.ok as f64 / waited as f64 });
        let at = |q| it.latency.quantile(q).map_or(0.0, Nanos::as_secs_f64);
        for (measure, q) in [(Measured::P50, 0.5), (Measured::P99, 0.99), (Measured::P999, 0.999)] {
            say(of, measure, at(q));
        }
        say(of, Measured::Mean, it.latency.mean().unwrap_or(0.0) / 1e9);
        say(of, Measured::Goodput, it.ok as f64 / seconds);
    };
    for (load, meter) in plan.loads.iter().zip(&meters.loads) {
        requests(&load.name, &meter.requests);
    }
    for (index, station) in plan.stations.iter().enumerate() {
        if station.kind == StationKind::Users {
            continue;
        }
        let mut sum = Requests::default();
        let edges = plan.edges.iter().zip(&meters.edges).filter(|(edge, _)| edge.callee as usize == index);
        edges.for_each(|(_, meter)| sum.merge(&meter.calls));
        requests(&station.name, &sum);
    }
    for station in
        plan.stations.iter().filter(|it| it.kind != StationKind::Users && it.concurrency != u32::MAX)
    {
        let mine = || station.instances.iter().map(|it| &meters.instances[it as usize]);
        let busy: u128 = mine().map(|it| it.busy).sum();
        let up: u128 = mine().map(|it| it.up).sum();
        let places = (up as f64 * f64::from(station.concurrency)).max(1.0);
        numbers.push(Number {
            of: station.name.clone(),
            measure: Measured::Utilisation,
            value: busy as f64 / places,
        });
    }
    numbers.push(Number {
        of: "system".to_owned(),
        measure: Measured::Cost,
        value: cost(plan, meters, seconds),
    });
    numbers
}

/// As in the report: instances by the hours they stood, bytes by where they went, for a month of 730 hours.
fn cost(plan: &Plan, meters: &Meters, seconds: f64) -> f64 {
    let hours = 730.0;
    let bytes: f64 = plan
        .links
        .iter()
        .zip(&meters.bytes)
        .map(|(link, bytes)| *bytes as f64 / seconds * hours * 3_600.0 / 1e9 * link.price_per_gb.dollars())
        .sum();
    let stations = plan.stations.iter().filter(|it| it.kind != StationKind::Users);
    let instances: f64 = stations
        .map(|station| {
            let up: u128 = station.instances.iter().map(|it| meters.instances[it as usize].up).sum();
            up as f64 / 1e9 / seconds * hours * station.price_per_hour.dollars()
        })
        .sum();
    bytes + instances
}
