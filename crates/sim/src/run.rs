//! Running a plan: warm-up, replications on all cores, results in order.
//!
//! The n-th run draws from its own root of luck and knows nothing of the others, so runs go to threads in any order and are
//! put together by their number: the bytes that come out do not depend on how many threads there were.

use crate::meter::{Meters, SLICES};
use crate::plan::{Demand, Plan, demands};
use crate::stats;
use crate::world::{Bias, Tally, World};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use units::Nanos;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub seed: u64,
    /// Independent repetitions; the intervals come from how much they differ.
    pub runs: u32,
    /// Threads to run them on. Changes nothing but the time it takes.
    pub threads: u32,
    /// Simulated time that is measured, in each run. `None`: 60 s, or as long as the scenario lasts.
    pub duration: Option<Nanos>,
    /// Simulated time before measuring. `None`: found by MSER-5 in a run of its own; zero for a scenario, which has no
    /// steady state to wait for.
    pub warm_up: Option<Nanos>,
    /// The file's scenario to play.
    pub scenario: Option<String>,
    /// Run a model whose queues grow without end all the same.
    pub allow_unstable: bool,
    pub bias: Bias,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            runs: 10,
            threads: 1,
            duration: None,
            warm_up: None,
            scenario: None,
            allow_unstable: false,
            bias: Bias::default(),
        }
    }
}

/// Why nothing was run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunError {
    UnknownScenario {
        name: String,
        known: Vec<String>,
    },
    /// Services that more is asked of than they can do, with nothing to stop their queues.
    Unstable {
        services: Vec<(String, Demand)>,
    },
    NoTraffic,
    NoRuns,
    /// Longer than time itself.
    TooLong,
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownScenario { name, known } if known.is_empty() => {
                write!(f, "no scenario is called `{name}`; the file has none")
            }
            Self::UnknownScenario { name, known } => {
                write!(f, "no scenario is called `{name}`; there are {}", known.join(", "))
            }
            Self::Unstable { services } => {
                for (n, (name, demand)) in services.iter().enumerate() {
                    write!(
                        f,
                        "{}`{name}` has utilisation {:.1} at {:.0}/s: the queue grows without end; add replicas or a queue limit",
                        if n == 0 { "" } else { "\n" },
                        demand.utilisation,
                        demand.rate
                    )?;
                }
                Ok(())
            }
            Self::NoTraffic => write!(f, "nothing is asked of this system; add `traffic` to the file"),
            Self::NoRuns => write!(f, "0 runs measure nothing; run at least 1"),
            Self::TooLong => write!(f, "warm-up and duration together are more than 200 years"),
        }
    }
}

impl std::error::Error for RunError {}

/// How far a forecast has come; for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub runs_done: u32,
    pub runs: u32,
    pub events: u64,
}

/// One run's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub meters: Meters,
    pub tally: Tally,
}

/// All runs' results, and what they were.
#[derive(Debug)]
pub struct Forecast<'p> {
    pub plan: &'p Plan,
    pub options: Options,
    pub scenario: Option<usize>,
    pub warm_up: Nanos,
    /// The warm-up could not be found: the run was too short to settle.
    pub unsettled: bool,
    pub measured: Nanos,
    /// In the order of their numbers; only those that came to their end.
    pub runs: Vec<Run>,
    /// All of them added up.
    pub total: Meters,
    /// Stopped before all runs had ended.
    pub partial: bool,
}

const DURATION: Nanos = Nanos::from_secs(60);

/// Runs a plan. `watch` is told now and then how far it is, from any thread; when it says false, the forecast ends with what
/// it has.
pub fn forecast<'p>(
    plan: &'p Plan,
    options: &Options,
    watch: &(dyn Fn(Progress) -> bool + Sync),
) -> Result<Forecast<'p>, RunError> {
    if options.runs == 0 {
        return Err(RunError::NoRuns);
    }
    if plan.loads.is_empty() {
        return Err(RunError::NoTraffic);
    }
    let scenario = match &options.scenario {
        None => None,
        Some(name) => {
            let found = plan.scenarios.iter().position(|it| it.name == *name);
            Some(found.ok_or_else(|| RunError::UnknownScenario {
                name: name.clone(),
                known: plan.scenarios.iter().map(|it| it.name.clone()).collect(),
            })?)
        }
    };
    if !options.allow_unstable {
        let overloaded = demands(plan, options.bias.load).into_iter();
        let services: Vec<(String, Demand)> = overloaded
            .filter(|it| it.unbounded && it.utilisation >= 1.0)
            .map(|it| (plan.stations[it.station as usize].name.clone(), it))
            .collect();
        if !services.is_empty() {
            return Err(RunError::Unstable { services });
        }
    }
    let measured = options.duration.unwrap_or_else(|| match scenario.map(|it| &plan.scenarios[it]) {
        None => DURATION,
        Some(it) => it.lasts.unwrap_or_else(|| {
            let over = |event: &model::system::Event| event.at + event.lasting.unwrap_or(Nanos::ZERO);
            it.events.iter().map(over).max().unwrap_or(Nanos::ZERO) + DURATION
        }),
    });
    let stopped = AtomicBool::new(false);
    let (mut warm_up, mut unsettled) = (options.warm_up.unwrap_or(Nanos::ZERO), false);
    if options.warm_up.is_none() && scenario.is_none() {
        let pilot = one_run(plan, options, scenario, 0, Nanos::ZERO, measured, &|| {
            !watch(Progress { runs_done: 0, runs: options.runs, events: 0 })
        });
        match pilot.as_ref().and_then(|it| settled_after(&it.meters)) {
            Some(cut) => warm_up = cut,
            None => {
                (warm_up, unsettled) = (measured / 2, true);
                stopped.store(pilot.is_none(), Ordering::Relaxed);
            }
        }
    }
    if warm_up.0.checked_add(measured.0).is_none_or(|it| it > u64::MAX / 4) {
        return Err(RunError::TooLong);
    }
    let results = all_runs(plan, options, scenario, warm_up, measured, watch, &stopped);
    let mut total = Meters::new(plan, warm_up + measured);
    let runs: Vec<Run> = results.into_iter().flatten().collect();
    runs.iter().for_each(|run| total.merge(&run.meters));
    Ok(Forecast {
        plan,
        options: options.clone(),
        scenario,
        warm_up,
        unsettled,
        measured,
        partial: runs.len() < options.runs as usize,
        runs,
        total,
    })
}

fn all_runs(
    plan: &Plan,
    options: &Options,
    scenario: Option<usize>,
    warm_up: Nanos,
    measured: Nanos,
    watch: &(dyn Fn(Progress) -> bool + Sync),
    stopped: &AtomicBool,
) -> Vec<Option<Run>> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Vec<Mutex<Option<Run>>> = (0..options.runs).map(|_| Mutex::new(None)).collect();
    let stop = || {
        let done = done.load(Ordering::Relaxed) as u32;
        if !watch(Progress { runs_done: done, runs: options.runs, events: 0 }) {
            stopped.store(true, Ordering::Relaxed);
        }
        stopped.load(Ordering::Relaxed)
    };
    let work = || {
        while !stopped.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(number) else { return };
            let run = one_run(plan, options, scenario, number as u64, warm_up, measured, &stop);
            if let Ok(mut slot) = slot.lock() {
                *slot = run;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.clamp(1, options.runs) {
            scope.spawn(work);
        }
        work();
    });
    results.into_iter().map(|it| it.into_inner().unwrap_or(None)).collect()
}

fn one_run(
    plan: &Plan,
    options: &Options,
    scenario: Option<usize>,
    number: u64,
    warm_up: Nanos,
    measured: Nanos,
    stop: &dyn Fn() -> bool,
) -> Option<Run> {
    let end = warm_up + measured;
    let mut world = World::new(plan, options.seed, number, scenario, options.bias, end);
    if !warm_up.is_zero() {
        if !world.run_until(warm_up, stop) {
            return None;
        }
        world.begin_counting();
    }
    let whole = world.run_until(end, stop);
    let (meters, tally) = world.finish();
    whole.then_some(Run { meters, tally })
}

/// When the latency of all traffic together has settled: MSER-5 on the means of the slices.
fn settled_after(pilot: &Meters) -> Option<Nanos> {
    let means: Vec<f64> = (0..SLICES)
        .scan(0.0, |last, slice| {
            let (mut sum, mut count) = (0.0, 0u64);
            for load in &pilot.slices {
                sum += load[slice].latency.sum() as f64;
                count += load[slice].latency.count();
            }
            // Where nothing ended, the state is as it was.
            if count > 0 {
                *last = sum / count as f64;
            }
            Some(*last)
        })
        .collect();
    stats::warm_up(&means).map(|cut| pilot.slice * cut as u64)
}
