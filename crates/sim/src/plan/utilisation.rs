//! What a model asks of its services on average, before any queue: rates by following the scripts, and how long a request
//! holds its place. It finds what cannot work without simulating it, and says where the knee will be.

use super::*;
use crate::cache::expected_hit_rate;

/// What the open traffic of a model asks of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    pub station: u32,
    /// Requests a second, retries not counted.
    pub rate: f64,
    /// Mean seconds that one request holds one of the places `concurrency` allows.
    pub holding: f64,
    /// `rate · holding / (instances · concurrency)`, or of the cores that work shares if they are scarcer; zero where
    /// neither has a limit.
    pub utilisation: f64,
    /// It has no bound on its queue, or on what shares its cores, so that above 1 they grow without end.
    pub unbounded: bool,
}

/// Rounds of following calls: a chain of services longer than this is not a system anybody runs, and a cycle of calls
/// must end somewhere.
const ROUNDS: usize = 64;

/// Demand on every service under `load` times the file's open traffic.
pub fn demands(plan: &Plan, load: f64) -> Vec<Demand> {
    let operations = plan.operations.len();
    let mut asked = vec![0.0; operations];
    for source in &plan.loads {
        if let LoadKind::Open { rate, shape, .. } = &source.kind {
            let operation = plan.stations[source.station as usize].operations.from;
            asked[operation as usize] += load * peak(*rate, shape);
        }
    }
    // Worked out once: a cache of many keys takes a while to judge.
    let hits: Vec<f64> =
        plan.stations.iter().map(|it| it.cache.as_ref().map_or(0.0, expected_hit_rate)).collect();
    let mut rates = asked.clone();
    let mut holding = vec![0.0; operations];
    for _ in 0..ROUNDS {
        let mut next = asked.clone();
        let mut held = vec![0.0; operations];
        for (index, operation) in plan.operations.iter().enumerate() {
            let misses = 1.0 - hits[operation.station as usize];
            held[index] = operation.law.mean_nanos() / 1e9;
            for step in operation.script.iter() {
                held[index] += misses
                    * walk(plan, &plan.steps[step as usize], rates[index] * misses, &holding, &mut next);
            }
            held[index] = held[index].min(1e9);
        }
        let settled = rates.iter().zip(&next).all(|(a, b)| (a - b).abs() <= 1e-9 * b.max(1.0))
            && holding.iter().zip(&held).all(|(a, b)| (a - b).abs() <= 1e-9);
        (rates, holding) = (next, held);
        if settled {
            break;
        }
    }
    let stations =
        plan.stations.iter().enumerate().filter(|(_, it)| matches!(it.kind, StationKind::Service(_)));
    stations
        .map(|(index, station)| {
            let rate: f64 = station.operations.iter().map(|it| rates[it as usize]).sum();
            let busy: f64 =
                station.operations.iter().map(|it| rates[it as usize] * holding[it as usize]).sum();
            let standing = plan.instances[station.instances.from as usize..station.instances.to as usize]
                .iter()
                .filter(|it| it.initial)
                .count();
            let most = station.autoscale.as_ref().map_or(standing as f64, |it| f64::from(it.max));
            let places = most * f64::from(station.concurrency);
            let limited = station.concurrency != u32::MAX && places > 0.0;
            let working: f64 = station
                .operations
                .iter()
                .map(|it| rates[it as usize] * own_work(plan, it as usize, 1.0 - hits[index]))
                .sum();
            let cores = station.cores.map(|it| most * f64::from(it)).filter(|it| *it > 0.0);
            Demand {
                station: index as u32,
                rate,
                holding: if rate > 0.0 { busy / rate } else { 0.0 },
                utilisation: (if limited { busy / places } else { 0.0 })
                    .max(cores.map_or(0.0, |cores| working / cores)),
                unbounded: station.queue.max.is_none() || (cores.is_some() && !limited),
            }
        })
        .collect()
}

/// Mean seconds of an operation's own work: all that is none of somebody else's answer.
fn own_work(plan: &Plan, operation: usize, misses: f64) -> f64 {
    fn of(plan: &Plan, step: &Step) -> f64 {
        match step {
            Step::Work(law, _) => law.mean_nanos() / 1e9,
            Step::All(leaves) => leaves.iter().map(|leaf| of(plan, &plan.steps[leaf as usize])).sum(),
            Step::Call(_) => 0.0,
        }
    }
    let operation = &plan.operations[operation];
    let between: f64 = operation.script.iter().map(|step| of(plan, &plan.steps[step as usize])).sum();
    operation.law.mean_nanos() / 1e9 + misses * between
}

/// Adds the rates a step asks of others and returns the mean time it takes, the answers of others included.
fn walk(plan: &Plan, step: &Step, rate: f64, holding: &[f64], rates: &mut [f64]) -> f64 {
    match step {
        Step::Work(law, _) => law.mean_nanos() / 1e9,
        Step::All(leaves) => leaves
            .iter()
            .map(|leaf| walk(plan, &plan.steps[leaf as usize], rate, holding, rates))
            .fold(0.0, f64::max),
        Step::Call(call) => {
            let call = &plan.calls[*call as usize];
            let targets = &plan.targets[call.targets.from as usize..call.targets.to as usize];
            let whole = targets.last().map_or(1.0, |it| f64::from(it.until));
            let (mut before, mut time) = (0, 0.0);
            for target in targets {
                let share = f64::from(target.until - before) / whole * call.chance * f64::from(call.times);
                before = target.until;
                let operation = plan.edges[target.edge as usize].operation as usize;
                rates[operation] += rate * share;
                time += share * holding[operation];
            }
            if call.detached { 0.0 } else { time }
        }
    }
}

/// The highest rate of a load that moves.
pub(crate) fn peak(rate: f64, shape: &model::system::Shape) -> f64 {
    use model::system::Shape;
    match shape {
        Shape::Steady => rate,
        Shape::Ramp { to, .. } | Shape::Burst { to, .. } => rate.max(to.per_second()),
        Shape::Diurnal { peak, .. } => rate.max(peak.per_second()),
    }
}
