//! Running a plan: warm-up, replications on all cores, results in order.
//!
//! The n-th run draws from its own root of luck and knows nothing of the others, so runs go to threads in any order and are
//! put together by their number: the bytes that come out do not depend on how many threads there were.

use crate::meter::{Meters, SLICES, Slice};
use crate::plan::{Demand, LoadKind, Plan, demands};
use crate::record::{Record, Recorder};
use crate::stats;
use crate::world::{Bias, Tally, World};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// Requests whose spans the first run keeps.
    pub traces: u32,
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
            traces: 0,
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
    /// More closed-loop users than a run can hold.
    TooManyUsers {
        traffic: String,
        users: f64,
    },
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
            Self::TooManyUsers { traffic, users } => write!(
                f,
                "`{traffic}` would have {users:.0} users; a forecast can hold {USERS_MAX}: lower `users`, or the load"
            ),
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
    /// Simulated so far, all threads together, the pilot run included.
    pub events: u64,
}

/// One run's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub meters: Meters,
    pub tally: Tally,
    /// Of the first run only.
    pub record: Option<Record>,
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
    /// In the order of their numbers; only those that came to their end. When none did, the one that had come furthest, and
    /// `measured` is how far that was.
    pub runs: Vec<Run>,
    /// All of them added up.
    pub total: Meters,
    /// Runs that came to their end.
    pub ended: u32,
    /// Stopped before all runs had ended.
    pub partial: bool,
}

const DURATION: Nanos = Nanos::from_secs(60);
/// Each closed-loop user is remembered, so that they need room.
const USERS_MAX: u32 = 10_000_000;

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
    for load in &plan.loads {
        if let LoadKind::Closed { users, .. } = load.kind {
            let users = f64::from(users) * options.bias.load;
            if users > f64::from(USERS_MAX) {
                return Err(RunError::TooManyUsers { traffic: load.name.clone(), users });
            }
        }
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
    // Twice over, for the warm-up that is still to be found.
    if measured.0 > u64::MAX / 8 {
        return Err(RunError::TooLong);
    }
    let clock = Clock {
        watch,
        stopped: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        events: AtomicU64::new(0),
        runs: options.runs,
    };
    let (mut warm_up, mut unsettled) = (options.warm_up.unwrap_or(Nanos::ZERO), false);
    let span = |number: u64, warm_up: Nanos| Stretch { scenario, number, warm_up, measured };
    let mut cut_short = None;
    if options.warm_up.is_none() && scenario.is_none() {
        let pilot = one_run(plan, options, &span(0, Nanos::ZERO), &clock);
        match settled_after(&pilot.run.meters).filter(|_| pilot.whole) {
            Some(cut) => warm_up = cut,
            None => {
                (warm_up, unsettled) = (measured / 2, true);
                cut_short = Some(pilot).filter(|it| !it.whole);
            }
        }
    }
    if warm_up.0.checked_add(measured.0).is_none_or(|it| it > u64::MAX / 4) {
        return Err(RunError::TooLong);
    }
    let mut results = all_runs(plan, options, &|number| span(number, warm_up), &clock);
    results.extend(cut_short);
    let mut total = Meters::new(plan, warm_up + measured);
    let mut measured = measured;
    let ended = results.iter().filter(|it| it.whole).count() as u32;
    let mut runs: Vec<Run> = Vec::new();
    if let Some(furthest) = results.iter().filter(|it| !it.whole).max_by_key(|it| it.reached)
        && ended == 0
    {
        // Better what there is than nothing: the part of a run that was played, as if it had been meant to end there.
        (warm_up, measured, unsettled) = (furthest.cut, furthest.reached - furthest.cut, true);
        let mut run = furthest.run.clone();
        let played = (furthest.reached.0 / run.meters.slice.0.max(1)) as usize;
        run.meters.slices.iter_mut().for_each(|it| it.truncate(played.max(1)));
        total.slices.clone_from(&run.meters.slices);
        total.slices.iter_mut().flatten().for_each(|it| *it = Slice::default());
        total.slice = run.meters.slice;
        runs.push(run);
    } else {
        runs.extend(results.into_iter().filter(|it| it.whole).map(|it| it.run));
    }
    runs.iter().for_each(|run| total.merge(&run.meters));
    let partial = ended < options.runs;
    Ok(Forecast {
        plan,
        options: options.clone(),
        scenario,
        warm_up,
        unsettled,
        measured,
        runs,
        total,
        ended,
        partial,
    })
}

/// Who is told how far it is, and whether to go on.
struct Clock<'w> {
    watch: &'w (dyn Fn(Progress) -> bool + Sync),
    stopped: AtomicBool,
    done: AtomicUsize,
    events: AtomicU64,
    runs: u32,
}

impl Clock<'_> {
    /// So many more events have passed. Whether to stop.
    fn tick(&self, events: u64) -> bool {
        let events = self.events.fetch_add(events, Ordering::Relaxed) + events;
        let runs_done = self.done.load(Ordering::Relaxed) as u32;
        if !(self.watch)(Progress { runs_done, runs: self.runs, events }) {
            self.stopped.store(true, Ordering::Relaxed);
        }
        self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What one run is to play.
struct Stretch {
    scenario: Option<usize>,
    number: u64,
    warm_up: Nanos,
    measured: Nanos,
}

/// What it came to.
struct Played {
    run: Run,
    whole: bool,
    /// From when it counted, and until when it played.
    cut: Nanos,
    reached: Nanos,
}

/// In the order of their numbers; those that were not begun are missing.
fn all_runs(
    plan: &Plan,
    options: &Options,
    stretch: &(dyn Fn(u64) -> Stretch + Sync),
    clock: &Clock<'_>,
) -> Vec<Played> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Played>>> = (0..options.runs).map(|_| Mutex::new(None)).collect();
    let work = || {
        while !clock.is_stopped() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(number) else { return };
            let played = one_run(plan, options, &stretch(number as u64), clock);
            clock.done.fetch_add(usize::from(played.whole), Ordering::Relaxed);
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(played);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.clamp(1, options.runs.min(THREADS_MAX)) {
            scope.spawn(work);
        }
        work();
    });
    results.into_iter().filter_map(|it| it.into_inner().unwrap_or(None)).collect()
}

/// No machine has more cores to offer, and each thread holds a world.
const THREADS_MAX: u32 = 1_024;

fn one_run(plan: &Plan, options: &Options, stretch: &Stretch, clock: &Clock<'_>) -> Played {
    let end = stretch.warm_up + stretch.measured;
    let stop = |events| clock.tick(events);
    let mut world = World::new(plan, options.seed, stretch.number, stretch.scenario, options.bias, end);
    if stretch.number == 0 {
        world.record(Recorder::new(plan.edges.len(), options.traces, stretch.warm_up, end));
    }
    let mut cut = Nanos::ZERO;
    let mut whole = true;
    if !stretch.warm_up.is_zero() {
        whole = world.run_until(stretch.warm_up, &stop);
        if whole {
            cut = stretch.warm_up;
            world.begin_counting();
        }
    }
    whole = whole && world.run_until(end, &stop);
    let reached = if whole { end } else { world.now().max(cut + Nanos(1)) };
    let (meters, tally, record) = world.finish();
    Played { run: Run { meters, tally, record }, whole, cut, reached }
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
