//! Which loads are safe from a push: a map of load against the size of a passing surge.
//!
//! A metastable failure outlives its trigger: retries or cold caches keep a system down after the surge has gone. So each
//! cell lets a surge pass and looks at what is left of goodput long after.

use crate::plan::{Plan, ScenarioPlan};
use crate::run::{Forecast, Options, Progress, RunError, forecast};
use model::span::{At, Span};
use model::system::{Event, Fault};
use units::{Nanos, Percent};

#[derive(Clone, Debug, PartialEq)]
pub struct MetastableMap {
    /// Times the file's traffic.
    pub loads: Vec<f64>,
    /// Times that load, while the surge lasts.
    pub surges: Vec<f64>,
    /// `fates[load][surge]`.
    pub fates: Vec<Vec<Fate>>,
    /// Stopped before all loads were tried.
    pub partial: bool,
}

/// What a surge leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Goodput is back as soon as the surge has passed.
    Stable,
    /// It comes back by itself, but only well after.
    Recovers,
    /// It does not come back within the time that was watched.
    Stuck,
    /// Too much already without a surge.
    Overloaded,
}

impl Fate {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Recovers => "recovers",
            Self::Stuck => "stuck",
            Self::Overloaded => "overloaded",
        }
    }
}

impl MetastableMap {
    /// A load is vulnerable when some surge leaves it stuck although it can carry its traffic.
    pub fn is_vulnerable(&self, load: usize) -> bool {
        self.fates.get(load).is_some_and(|row| row.contains(&Fate::Stuck))
    }
}

/// When the surge begins, how long it lasts, and how long the aftermath is watched.
const CALM: Nanos = Nanos::from_secs(20);
const SURGE: Nanos = Nanos::from_secs(10);
const AFTER: Nanos = Nanos::from_secs(90);
/// Goodput counts as back at this share of what is sent.
const BACK: f64 = 0.95;
/// Back within this time of the surge's end is "at once": requests sent during it have ended by then.
const AT_ONCE: Nanos = Nanos::from_secs(10);
/// The aftermath's last part, over which "stuck" is judged.
const LAST: Nanos = Nanos::from_secs(30);

pub fn metastable(
    plan: &mut Plan,
    options: &Options,
    loads: &[f64],
    surges: &[f64],
    watch: &(dyn Fn(usize, usize) -> bool + Sync),
) -> Result<MetastableMap, RunError> {
    let name = "surge";
    plan.scenarios.retain(|it| it.name != name);
    plan.scenarios.push(ScenarioPlan {
        name: name.to_owned(),
        events: Vec::new(),
        expect: Vec::new(),
        lasts: Some(CALM + SURGE + AFTER),
    });
    let here = plan.scenarios.len() - 1;
    let cells = loads.len() * surges.len();
    let mut fates = Vec::new();
    for (row, load) in loads.iter().enumerate() {
        let mut fate_of_row = Vec::new();
        for (column, surge) in surges.iter().enumerate() {
            plan.scenarios[here].events = vec![Event {
                at: CALM,
                lasting: Some(SURGE),
                fault: At::new(Fault::LoadTimes(None, Percent::from_fraction(*surge)), Span::default()),
            }];
            let mut options = options.clone();
            options.bias.load *= load;
            options.allow_unstable = true;
            options.scenario = Some(name.to_owned());
            options.duration = None;
            let done = row * surges.len() + column;
            let found = forecast(plan, &options, &|_: Progress| watch(done, cells))?;
            if found.partial {
                // A row that is not whole says nothing about its load.
                let loads = loads[..fates.len()].to_vec();
                return Ok(MetastableMap { loads, surges: surges.to_vec(), fates, partial: true });
            }
            fate_of_row.push(fate(&found));
        }
        fates.push(fate_of_row);
    }
    Ok(MetastableMap { loads: loads.to_vec(), surges: surges.to_vec(), fates, partial: false })
}

fn fate(found: &Forecast<'_>) -> Fate {
    let slice = found.total.slice;
    // Share answered well of what ended, slice by slice, all traffic together.
    let between = |from: Nanos, to: Nanos| {
        let (mut ok, mut all) = (0u64, 0u64);
        for load in &found.total.slices {
            for (index, it) in load.iter().enumerate() {
                let at = slice * index as u64;
                // A slice that the surge began in is not the calm before it.
                if at >= from && at + slice <= to {
                    ok += it.ok;
                    all += it.ok + it.failed;
                }
            }
        }
        if all == 0 { 1.0 } else { ok as f64 / all as f64 }
    };
    let over = CALM + SURGE;
    let end = over + AFTER;
    if between(CALM / 4, CALM) < BACK {
        Fate::Overloaded
    } else if between(end - LAST, end) < BACK {
        Fate::Stuck
    } else if between(over + AT_ONCE, over + AT_ONCE * 3) < BACK {
        Fate::Recovers
    } else {
        Fate::Stable
    }
}
