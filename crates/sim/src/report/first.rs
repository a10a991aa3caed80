//! What broke first after the scenario began: the call whose share of failures jumped soonest, and of those that jumped
//! together the one furthest from the users, because failures travel towards them.

use super::View;
use super::timeline;
use crate::meter::Cause;
use crate::plan::StationKind;
use model::system::Kind;
use units::Nanos;

/// The first calls to fail because of what a scenario did.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct First {
    /// The scenario's first event, in words, and when it began.
    pub(super) fault: String,
    pub(super) fault_at: Nanos,
    pub(super) edge: usize,
    pub(super) at: Nanos,
    /// Of its calls, in the worst slice.
    pub(super) worst: f64,
    pub(super) cause: Cause,
}

/// A jump is at least this share more than before, and so many times it.
const JUMP: f64 = 0.02;
const TIMES: f64 = 3.0;
/// Calls that a share is taken over; slices with fewer are taken together.
const CALLS_MIN: u64 = 20;

pub(super) fn to_break(view: &View<'_>) -> Option<First> {
    let (plan, total) = (view.plan, &view.forecast.total);
    let scenario = view.forecast.scenario.map(|it| &plan.scenarios[it])?;
    let fault_at = timeline::first_fault(view)?;
    let event = scenario.events.iter().find(|it| it.at == fault_at)?;
    let slice = total.slice;
    let mut jumps: Vec<(Nanos, usize, f64, u64)> = Vec::new();
    for (edge, slices) in total.edge_slices.iter().enumerate() {
        if plan.stations[plan.edges[edge].caller as usize].kind == StationKind::Users
            && plan.stations[plan.edges[edge].callee as usize].kind == StationKind::Gateway
        {
            continue; // What users see is the end of the story, never its beginning.
        }
        let calm = (fault_at.0 / slice.0.max(1)) as usize;
        let (mut all, mut failed) = (0u64, 0u64);
        for it in slices.iter().take(calm) {
            (all, failed) = (all + u64::from(it.all), failed + u64::from(it.failed));
        }
        let before = failed as f64 / all.max(1) as f64;
        let limit = (before * TIMES).max(before + JUMP);
        let (mut found, mut worst, mut lost) = (None, 0.0f64, 0u64);
        let (mut all, mut failed) = (0u64, 0u64);
        for (n, it) in slices.iter().enumerate().skip(calm) {
            (all, failed) = (all + u64::from(it.all), failed + u64::from(it.failed));
            lost += u64::from(it.failed);
            if all < CALLS_MIN {
                continue;
            }
            let share = failed as f64 / all as f64;
            // By chance there would be this many, and rarely four standard deviations and four more.
            let expected = before * all as f64;
            let by_chance = expected + 4.0 * expected.sqrt() + 4.0;
            let certain = failed as f64 >= by_chance;
            (all, failed) = (0, 0);
            worst = worst.max(share);
            if share >= limit && certain && found.is_none() {
                found = Some(slice * n as u64);
            }
        }
        if let Some(at) = found {
            jumps.push((at.max(fault_at), edge, worst, lost));
        }
    }
    // Nobody waits for a topic's deliveries; they are the story only where nothing else is.
    let delivers = |edge: usize| {
        let caller = plan.edges[edge].caller as usize;
        plan.stations[caller].kind == StationKind::Service(Kind::Queue)
    };
    if jumps.iter().any(|it| !delivers(it.1)) {
        jumps.retain(|it| !delivers(it.1));
    }
    // Of calls that began to fail together, those are effects that wait for others among them.
    let soonest = jumps.iter().map(|it| it.0).min()?;
    let together: Vec<&(Nanos, usize, f64, u64)> =
        jumps.iter().filter(|it| it.0 <= soonest + slice * 2).collect();
    let deepest = together.iter().filter(|(_, edge, ..)| {
        let callee = plan.edges[*edge].callee;
        !together.iter().any(|(_, other, ..)| plan.edges[*other].caller == callee)
    });
    let (at, edge, worst, _) = deepest.max_by_key(|it| it.3).or_else(|| together.first())?;
    let failures = &total.edges[*edge].calls.failures;
    let cause = Cause::ALL
        .into_iter()
        .filter(|it| !matches!(it, Cause::Cancelled | Cause::Dependency))
        .max_by_key(|it| failures.of(*it))?;
    Some(First {
        fault: timeline::words(plan, &event.fault.value),
        fault_at,
        edge: *edge,
        at: *at,
        worst: *worst,
        cause,
    })
}
