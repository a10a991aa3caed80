//! Changes that would help, each tried before it is suggested.
//!
//! A verdict says what broke and names changes that might help. Here each is made on a copy of the plan and a few runs are
//! played again with the very luck of the forecast (common random numbers), so that what differs is the change. What does
//! not help is not suggested; of what helps, what makes everything hold and costs least comes first.
//!
//! It refuses to search: a handful of candidates for each finding, bounded by the events their trials may take.

use crate::meter::Meters;
use crate::plan::{Edge, Plan, StationKind};
use crate::report::{Change, Report};
use crate::run::{Forecast, Options, Progress, forecast};
use model::system::Consistency;
use policy::settings::{Budget, Concurrency, Retry, RetryOn};
use units::{Nanos, Percent};

/// One change of the file, in the plan's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Remedy {
    Replicas {
        station: u32,
        from: u32,
        to: u32,
    },
    /// A budget of a tenth on every edge that retries more than that.
    Budgets,
    /// Two attempts within a budget, on the calls to a station; where time-outs are tried again, each has a time of its own.
    Retry {
        station: u32,
        on: RetryOn,
        per_try: Option<Nanos>,
    },
    Timeout {
        pair: u32,
        from: Nanos,
        to: Nanos,
    },
    Connections {
        pair: u32,
        from: u32,
        to: u32,
    },
    /// By what is in hand instead of in turn or by chance.
    Balance {
        pair: u32,
    },
    /// The limit of callers' own concurrency or rate, doubled.
    Limit {
        pair: u32,
    },
    /// Failing checks are noticed twice as often, and the first one counts.
    Checks {
        station: u32,
    },
    Everywhere {
        station: u32,
    },
    ConsistencyOne {
        station: u32,
    },
    /// The answer does without this station.
    Optional {
        station: u32,
    },
}

impl Remedy {
    fn text(&self, plan: &Plan) -> String {
        let name = |station: u32| plan.stations[station as usize].name.as_str();
        let pair_name = |pair: u32| {
            let pair = &plan.pairs[pair as usize];
            format!("{} -> {}", name(pair.caller), name(pair.callee))
        };
        match self {
            Self::Replicas { station, from, to } => {
                format!("`{}` with {to} replicas instead of {from}", name(*station))
            }
            Self::Budgets => "a retry budget of 10% on every edge that retries".to_owned(),
            Self::Retry { station, on, per_try } => {
                let causes = [
                    (on.connect_failure, "connect-failure"),
                    (on.reset, "reset"),
                    (on.timeout, "timeout"),
                    (on.server_error, "5xx"),
                ];
                let causes: Vec<&str> = causes.into_iter().filter(|it| it.0).map(|it| it.1).collect();
                format!(
                    "`* -> {}`: {{retry: {{attempts: 2, {}budget: 20%, on: [{}]}}}}",
                    name(*station),
                    per_try.map_or_else(String::new, |it| format!("per_try: {it}, ")),
                    causes.join(", ")
                )
            }
            Self::Timeout { pair, from, to } => {
                format!("a time-out of {to} instead of {from} on `{}`", pair_name(*pair))
            }
            Self::Connections { pair, from, to } => {
                format!("`connections: {to}` instead of {from} on `{}`", pair_name(*pair))
            }
            Self::Balance { pair } => format!("`balance: least-request` on `{}`", pair_name(*pair)),
            Self::Limit { pair } => format!("twice the caller's own limit on `{}`", pair_name(*pair)),
            Self::Checks { station } => {
                format!("health checks of `{}` twice as often, and `unhealthy_after: 1`", name(*station))
            }
            Self::Everywhere { station } => {
                format!("`discovery: everywhere` on `{}`, so that other regions may answer", name(*station))
            }
            Self::ConsistencyOne { station } => {
                format!("`consistency: one` on `{}`, with reads that may be stale", name(*station))
            }
            Self::Optional { station } => format!("calls to `{}` optional, with a fallback", name(*station)),
        }
    }

    /// Dollars a month more, where that can be said.
    fn cost(&self, plan: &Plan) -> f64 {
        match self {
            Self::Replicas { station, from, to } => {
                let price = plan.stations[*station as usize].price_per_hour.dollars();
                price * 730.0 * f64::from(to - from)
            }
            _ => 0.0,
        }
    }

    /// It makes the answer a poorer one: only when nothing else helps.
    const fn is_poorer(&self) -> bool {
        matches!(self, Self::Optional { .. } | Self::ConsistencyOne { .. })
    }

    fn apply(&self, plan: &mut Plan) {
        match self {
            Self::Replicas { station, from, to } => plan.grow(*station, to - from),
            Self::Budgets => each_retry(plan, |_, retry| {
                let tenth = Percent::from_whole(10);
                if retry.budget.is_none_or(|it| it.ratio > tenth) {
                    retry.budget = Some(Budget { ratio: tenth, ..Budget::default() });
                }
            }),
            Self::Retry { station, on, per_try } => {
                let retry = Retry { on: *on, per_try: *per_try, ..Retry::default() };
                let of_users: Vec<bool> =
                    plan.stations.iter().map(|it| it.kind == StationKind::Users).collect();
                for edge in plan.edges.iter_mut().filter(|it| it.callee == *station) {
                    if !of_users[edge.caller as usize] {
                        edge.settings.retry.get_or_insert_with(|| retry.clone());
                    }
                }
                for pair in plan.pairs.iter_mut().filter(|it| it.callee == *station) {
                    if !of_users[pair.caller as usize] {
                        pair.settings.retry.get_or_insert_with(|| retry.clone());
                    }
                }
            }
            Self::Timeout { pair, to, .. } => {
                each_of_pair(plan, *pair, |settings| settings.timeout = Some(*to))
            }
            Self::Connections { pair, to, .. } => {
                each_of_pair(plan, *pair, |settings| settings.connections = *to);
            }
            Self::Balance { pair } => each_of_pair(plan, *pair, |settings| {
                settings.balance.kind = policy::settings::BalanceKind::LeastRequest;
            }),
            Self::Limit { pair } => each_of_pair(plan, *pair, |settings| {
                settings.concurrency = settings.concurrency.map(|it| match it {
                    Concurrency::Static { max } => Concurrency::Static { max: max.saturating_mul(2) },
                    Concurrency::Gradient { min, max } => {
                        Concurrency::Gradient { min, max: max.saturating_mul(2) }
                    }
                    Concurrency::Vegas { max } => Concurrency::Vegas { max: max.saturating_mul(2) },
                    Concurrency::Aimd { min, max } => Concurrency::Aimd { min, max: max.saturating_mul(2) },
                });
                if let Some(limit) = &mut settings.rate_limit {
                    limit.rate = units::Rate::per_second_whole((limit.rate.per_second() * 2.0).ceil() as u64);
                    limit.burst = limit.burst.saturating_mul(2);
                }
            }),
            Self::Checks { station } => {
                let health = &mut plan.stations[*station as usize].health;
                health.every = (health.every / 2).max(Nanos::from_millis(1));
                health.unhealthy_after = 1;
            }
            Self::Everywhere { station } => plan.stations[*station as usize].everywhere = true,
            Self::ConsistencyOne { station } => {
                if let Some(store) = &mut plan.stations[*station as usize].store {
                    store.consistency = Consistency::One;
                }
            }
            Self::Optional { station } => {
                let of_service =
                    |it: &Edge| matches!(plan.stations[it.caller as usize].kind, StationKind::Service(_));
                let to_it: Vec<bool> =
                    plan.edges.iter().map(|it| it.callee == *station && of_service(it)).collect();
                for call in &mut plan.calls {
                    let targets = &plan.targets[call.targets.from as usize..call.targets.to as usize];
                    call.optional |= targets.iter().any(|it| to_it[it.edge as usize]);
                }
            }
        }
    }
}

fn each_of_pair(plan: &mut Plan, pair: u32, mut change: impl FnMut(&mut policy::settings::EdgeSettings)) {
    change(&mut plan.pairs[pair as usize].settings);
    plan.edges.iter_mut().filter(|it| it.pair == pair).for_each(|it: &mut Edge| change(&mut it.settings));
}

fn each_retry(plan: &mut Plan, change: impl Fn(u32, &mut Retry)) {
    for edge in &mut plan.edges {
        if let Some(retry) = &mut edge.settings.retry {
            change(edge.pair, retry);
        }
    }
    for (index, pair) in (0u32..).zip(&mut plan.pairs) {
        if let Some(retry) = &mut pair.settings.retry {
            change(index, retry);
        }
    }
}

/// Runs a trial takes, and the most trials of one report.
const RUNS: u32 = 2;
const TRIALS_MAX: usize = 8;
/// Events all trials together may take: about two seconds of one core.
const EVENTS_MAX: u64 = 8_000_000;
/// A change must take away at least this share of the failures, or of a latency that is too long, to be worth saying.
const WORTH: f64 = 0.2;

/// How well a system did, in what a verdict cares for.
#[derive(Clone, Debug, PartialEq)]
struct Score {
    missed: usize,
    /// Share of all requests that failed, run by run.
    failing: Vec<f64>,
    /// The missed promises on latency and rates, as multiples of their limits.
    over: f64,
}

impl Score {
    fn of(forecast: &Forecast<'_>, report: &Report) -> Self {
        let share = |meters: &Meters| {
            let (ok, failed) = meters
                .loads
                .iter()
                .fold((0, 0), |sum, it| (sum.0 + it.requests.ok, sum.1 + it.requests.failures.total()));
            failed as f64 / (ok + failed).max(1) as f64
        };
        let missed = || report.objectives.iter().filter(|it| !it.met);
        let upper = missed().filter(|it| !it.at_least && it.limit > 0.0);
        Self {
            missed: missed().count(),
            failing: forecast.runs.iter().map(|it| share(&it.meters)).collect(),
            over: upper.map(|it| it.measured.value / it.limit).sum(),
        }
    }

    fn mean_failing(&self) -> f64 {
        self.failing.iter().sum::<f64>() / self.failing.len().max(1) as f64
    }

    /// Better for certain, as far as so few runs can say: in every one of them.
    fn helps(&self, before: &Self) -> bool {
        let fails = before.mean_failing();
        let fewer = self.failing.iter().zip(&before.failing).all(|(now, then)| now <= then)
            && self.mean_failing() <= fails * (1.0 - WORTH)
            && fails - self.mean_failing() >= 1e-4;
        let no_more = self.mean_failing() <= fails * 1.02 + 1e-4;
        let shorter = before.over > 0.0 && self.over <= before.over * (1.0 - WORTH) && no_more;
        self.missed <= before.missed && (fewer || shorter || self.missed < before.missed && no_more)
    }

    fn holds(&self) -> bool {
        self.missed == 0 && self.mean_failing() < 0.001
    }

    /// What a change does, in the words of what it was for.
    fn effect(&self, before: &Self) -> String {
        let share = |it: f64| format!("{:.2} %", 100.0 * (1.0 - it));
        let answered =
            format!("answered {} instead of {}", share(self.mean_failing()), share(before.mean_failing()));
        let promises = match (self.missed, before.missed) {
            (0, 1..) => Some("everything promised holds".to_owned()),
            (now, then) if now < then => Some(format!("{} of {then} broken promises hold", then - now)),
            _ if before.over > 0.0 && self.over < before.over => {
                Some(format!("what is too much is {:.0} % less", 100.0 * (1.0 - self.over / before.over)))
            }
            _ => None,
        };
        let differs = (self.mean_failing() - before.mean_failing()).abs() >= 5e-5;
        match promises {
            Some(promises) if differs => format!("{promises}, {answered}"),
            Some(promises) => promises,
            None => answered,
        }
    }
}

/// Tries the remedies of a report's findings and puts the best of each into it.
pub fn advise(forecast_of: &Forecast<'_>, report: &mut Report, watch: &(dyn Fn(Progress) -> bool + Sync)) {
    let plan = forecast_of.plan;
    if forecast_of.partial || report.verdict.findings.iter().all(|it| it.remedies.is_empty()) {
        return;
    }
    let events = forecast_of.total.events / u64::from(forecast_of.ended.max(1));
    let options = Options {
        runs: RUNS.min(forecast_of.options.runs),
        warm_up: Some(forecast_of.warm_up),
        duration: Some(forecast_of.measured),
        // What it was run for is an unstable system, perhaps; a trial must not refuse it.
        allow_unstable: true,
        traces: 0,
        ..forecast_of.options.clone()
    };
    let trials_max = (EVENTS_MAX / (events * u64::from(options.runs)).max(1)).min(TRIALS_MAX as u64) as usize;
    let play = |plan: &Plan| -> Option<Score> {
        let found = forecast(plan, &options, watch).ok().filter(|it| !it.partial)?;
        Some(Score::of(&found, &Report::of(&found)))
    };
    let Some(before) = (trials_max > 0).then(|| play(plan)).flatten() else {
        report.verdict.untried = true;
        return;
    };
    let mut tried: Vec<(Remedy, Option<Score>)> = Vec::new();
    for finding in &mut report.verdict.findings {
        for remedy in &finding.remedies {
            if tried.len() < trials_max && !tried.iter().any(|(known, _)| known == remedy) {
                let mut changed = plan.clone();
                remedy.apply(&mut changed);
                tried.push((remedy.clone(), play(&changed)));
            }
        }
        let mine = finding.remedies.iter().filter_map(|it| tried.iter().find(|(known, _)| known == it));
        finding.tried = mine.clone().filter(|(_, score)| score.is_some()).count() as u32;
        let helping = mine.filter_map(|(remedy, score)| Some((remedy, score.as_ref()?)));
        let helping = helping.filter(|(_, score)| score.helps(&before));
        // What gives full answers first, then what makes everything hold, then the cheapest, then what leaves fewest failures; the earlier of equals.
        let best = helping.min_by(|(a, of_a), (b, of_b)| {
            (a.is_poorer().cmp(&b.is_poorer()))
                .then(of_b.holds().cmp(&of_a.holds()))
                .then(a.cost(plan).total_cmp(&b.cost(plan)))
                .then(of_a.missed.cmp(&of_b.missed))
                .then(of_a.mean_failing().total_cmp(&of_b.mean_failing()))
        });
        finding.change = best.map(|(remedy, score)| {
            let cost = remedy.cost(plan);
            let free = !matches!(remedy, Remedy::Replicas { .. });
            Change {
                text: remedy.text(plan),
                cost_per_month: (free || cost > 0.0).then_some(cost),
                effect: score.effect(&before),
            }
        });
    }
}
