//! What happened when: the scenario's events, what the first run's instances, breakers and scalers did about them, and when
//! users began and ceased to feel it, all runs together.

use super::View;
use crate::meter::Slice;
use crate::plan::Plan;
use crate::record::Change;
use model::system::{Fault, Place, Selection, Which, Zone};
use units::Nanos;

/// One line of the story.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    pub at: Nanos,
    pub text: String,
}

/// An instance that came or went, in the first run.
#[derive(Clone, Debug, PartialEq)]
pub struct Came {
    pub at: Nanos,
    pub instance: String,
    pub up: bool,
}

/// From this share on users feel it, and below this one they do not any more.
const FELT: f64 = 0.05;
const OVER: f64 = 0.01;
/// A slice of fewer requests than this says nothing about a share.
const COUNT_MIN: u64 = 10;
/// Latency is felt at this many times what it was before the first fault.
const SLOWER: f64 = 2.0;
/// Of decisions that repeat, only the first are news.
const SCALINGS_MAX: usize = 20;

pub(super) fn of(view: &View<'_>) -> Vec<Happened> {
    let mut lines = Vec::new();
    happenings(view, &mut lines);
    let first_fault = first_fault(view);
    for (load, slices) in view.plan.loads.iter().zip(&view.forecast.total.slices) {
        felt(&load.name, slices, view.forecast.total.slice, first_fault, &mut lines);
    }
    // Stable: what began at the same moment stays in the order of cause and effect.
    lines.sort_by_key(|it| it.at);
    lines
}

pub(super) fn came(view: &View<'_>) -> Vec<Came> {
    let record = view.forecast.runs.first().and_then(|it| it.record.as_ref());
    let happenings = record.iter().flat_map(|it| &it.happenings);
    let named = |index: u32| view.plan.instances[index as usize].name.clone();
    happenings
        .filter_map(|it| match it.change {
            Change::Up(instance) => Some(Came { at: it.at, instance: named(instance), up: true }),
            Change::Down(instance) => Some(Came { at: it.at, instance: named(instance), up: false }),
            _ => None,
        })
        .collect()
}

pub(super) fn first_fault(view: &View<'_>) -> Option<Nanos> {
    let scenario = view.forecast.scenario.map(|it| &view.plan.scenarios[it])?;
    scenario.events.iter().map(|it| it.at).min()
}

fn happenings(view: &View<'_>, lines: &mut Vec<Happened>) {
    let plan = view.plan;
    let Some(record) = view.forecast.runs.first().and_then(|it| it.record.as_ref()) else { return };
    let scenario = view.forecast.scenario.map(|it| &plan.scenarios[it]);
    let fault = |n: u32| {
        let event = scenario.and_then(|it| it.events.get(n as usize));
        event.map_or_else(String::new, |it| words(plan, &it.fault.value))
    };
    let pair = |n: u32| {
        let pair = &plan.pairs[n as usize];
        format!(
            "`{} -> {}`",
            plan.stations[pair.caller as usize].name, plan.stations[pair.callee as usize].name
        )
    };
    let mut known: Vec<Change> = Vec::new();
    let mut scalings = 0;
    let mut index = 0;
    while let Some(it) = record.happenings.get(index) {
        index += 1;
        let text = match it.change {
            Change::Fault(n) => format!("{} begins", fault(n)),
            Change::Undone(n) => format!("{} ends", fault(n)),
            Change::Up(_) | Change::Down(_) => {
                let up = matches!(it.change, Change::Up(_));
                let same = |other: &Change| match other {
                    Change::Up(instance) if up => Some(*instance),
                    Change::Down(instance) if !up => Some(*instance),
                    _ => None,
                };
                let rest = record.happenings[index - 1..].iter().take_while(|other| other.at == it.at);
                let group: Vec<u32> = rest.map_while(|other| same(&other.change)).collect();
                index += group.len().saturating_sub(1);
                instances(plan, &group, up)
            }
            Change::Scaled { station, from, to } => {
                scalings += 1;
                if scalings > SCALINGS_MAX {
                    continue;
                }
                format!(
                    "autoscaling wants {to} of `{}` instead of {from}",
                    plan.stations[station as usize].name
                )
            }
            Change::BreakerOpen(n) | Change::BreakerClosed(n) | Change::Ejected(n) => {
                if known.contains(&it.change) {
                    continue;
                }
                known.push(it.change);
                match it.change {
                    Change::BreakerOpen(_) => format!("a breaker of {} begins to refuse", pair(n)),
                    Change::BreakerClosed(_) => format!("a breaker of {} admits again", pair(n)),
                    _ => format!("a caller of {} ejects an instance", pair(n)),
                }
            }
        };
        lines.push(Happened { at: it.at, text });
    }
}

fn instances(plan: &Plan, group: &[u32], up: bool) -> String {
    let mut services: Vec<&str> = group
        .iter()
        .map(|it| plan.stations[plan.instances[*it as usize].station as usize].name.as_str())
        .collect();
    services.dedup();
    let of = match services.as_slice() {
        [] => String::new(),
        [one] => format!("of `{one}`"),
        many => format!("of {} services", many.len()),
    };
    let (count, word) = (group.len(), if group.len() == 1 { "instance" } else { "instances" });
    format!("{count} {word} {of} {}", if up { "up" } else { "gone" })
}

/// When a share of a traffic began to fail or to take long, and when that was over.
fn felt(name: &str, slices: &[Slice], slice: Nanos, fault: Option<Nanos>, lines: &mut Vec<Happened>) {
    let share = |it: &Slice| it.failed as f64 / (it.ok + it.failed) as f64;
    let counted = || {
        slices
            .iter()
            .enumerate()
            .filter(|(_, it)| it.ok + it.failed >= COUNT_MIN)
            .map(|(n, it)| (slice * n as u64, it))
    };
    spells(
        counted().map(|(at, it)| (at, share(it))),
        FELT,
        OVER,
        |most| format!("{name}: up to {:.0} % fail", most * 100.0),
        &format!("{name}: fewer than 1 % fail again"),
        lines,
    );
    let Some(fault) = fault else { return };
    // Of few requests the 99th per cent is whoever was slowest: then the 90th says more.
    let usual = slices.iter().map(|it| it.ok).sum::<u64>() / slices.len().max(1) as u64;
    let (q, word) = if usual >= 500 { (0.99, "p99") } else { (0.9, "p90") };
    let p99 = |it: &Slice| it.latency.quantile(q).map(Nanos::as_secs_f64);
    let mut before: Vec<f64> =
        counted().filter(|(at, _)| *at + slice <= fault).filter_map(|(_, it)| p99(it)).collect();
    before.sort_by(f64::total_cmp);
    let Some(normal) = before.get(before.len() / 2).copied().filter(|it| *it > 0.0) else { return };
    spells(
        counted().filter(|(at, _)| *at >= fault).filter_map(|(at, it)| Some((at, p99(it)? / normal))),
        SLOWER,
        SLOWER * 0.75,
        |most| format!("{name}: {word} up to {most:.1} times the {} before", time(normal)),
        &format!("{name}: {word} as before"),
        lines,
    );
}

/// Stretches during which a value is high: one line for the beginning, which names the highest, one for the end.
fn spells(
    values: impl Iterator<Item = (Nanos, f64)>,
    begins: f64,
    ends: f64,
    beginning: impl Fn(f64) -> String,
    ending: &str,
    lines: &mut Vec<Happened>,
) {
    /// Slices in a row that must be calm: a gap between two waves is not the end.
    const CALM: u32 = 3;
    let mut spell: Option<(Nanos, f64)> = None;
    let (mut calm, mut since) = (0, Nanos::ZERO);
    for (at, value) in values {
        match &mut spell {
            None if value >= begins => (spell, calm) = (Some((at, value)), 0),
            None => {}
            Some((began, most)) => {
                *most = most.max(value);
                if value >= ends {
                    calm = 0;
                    continue;
                }
                if calm == 0 {
                    since = at;
                }
                calm += 1;
                if calm == CALM {
                    lines.push(Happened { at: *began, text: beginning(*most) });
                    lines.push(Happened { at: since, text: ending.to_owned() });
                    spell = None;
                }
            }
        }
    }
    if let Some((began, most)) = spell {
        lines.push(Happened { at: began, text: format!("{}, to the end", beginning(most)) });
    }
}

/// Seconds to three digits, in the unit that suits.
pub(super) fn time(seconds: f64) -> String {
    let (number, unit) = match seconds {
        it if it < 1e-3 => (it * 1e6, "us"),
        it if it < 1.0 => (it * 1e3, "ms"),
        it => (it, "s"),
    };
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {unit}")
}

/// A fault as the file would say it.
pub(super) fn words(plan: &Plan, fault: &Fault) -> String {
    let service = |id: model::system::ServiceId| plan.stations[id.index()].name.as_str();
    let place = |it: Place| place_name(plan, it);
    let some = |it: &Selection| {
        let name = service(it.service);
        match it.which {
            Which::All => name.to_owned(),
            Which::Count(count) => format!("{count} of {name}"),
            Which::Share(share) => format!("{share} of {name}"),
            Which::Index(number) => format!("{name}#{number}"),
            Which::In(it) => format!("{name} in {}", place(it)),
        }
    };
    let way = |from: Place, to: Place, both: bool| {
        format!("{} {} {}", place(from), if both { "<->" } else { "->" }, place(to))
    };
    let times = |it: units::Percent| format!("x{}", it.fraction());
    let text = match fault {
        Fault::Stop(it) => format!("stop {}", some(it)),
        Fault::Pause(it) => format!("pause {}", some(it)),
        Fault::SlowBy(it, by) => format!("slow {} by {by}", some(it)),
        Fault::SlowTimes(it, factor) => format!("slow {} {}", some(it), times(*factor)),
        Fault::Error(it, share) => format!("error {} {share}", some(it)),
        Fault::Lose(it) => format!("lose {}", place(*it)),
        Fault::Partition { from, to, both_ways } => format!("partition {}", way(*from, *to, *both_ways)),
        Fault::Delay { from, to, by, both_ways } => format!("delay {} by {by}", way(*from, *to, *both_ways)),
        Fault::Loss { from, to, share, both_ways } => format!("loss {} {share}", way(*from, *to, *both_ways)),
        Fault::Flush(it) => format!("flush {}", service(*it)),
        Fault::LoadTimes(None, factor) => format!("load {}", times(*factor)),
        Fault::LoadTimes(Some(it), factor) => {
            format!("load {} {}", plan.loads[it.index()].name, times(*factor))
        }
        Fault::LoadTo(it, rate) => format!("load {} to {rate}", plan.loads[it.index()].name),
        Fault::Release { service: it, version, share } => {
            format!("release {} {version} at {share}", service(*it))
        }
        Fault::Remove(it) => format!("remove {}", service(*it)),
        Fault::FailDns => "fail dns".to_owned(),
        Fault::Scale(it, count) => format!("scale {} to {count}", service(*it)),
    };
    format!("`{text}`")
}

fn place_name(plan: &Plan, place: Place) -> String {
    let found = plan.locations.iter().find(|it| {
        let region = it.region.map(u32::from);
        match place {
            Place::Region(wanted) => region == Some(wanted.as_u32()) && it.zone.is_none(),
            Place::Zone(Zone { region: wanted, zone }) => {
                region == Some(wanted.as_u32()) && it.zone.map(u32::from) == Some(zone)
            }
        }
    });
    found.map_or_else(String::new, |it| it.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], expected: &[&str]) {
        let mut lines = Vec::new();
        let timed = values.iter().zip(0u64..).map(|(value, n)| (Nanos::from_secs(n), *value));
        spells(timed, 0.05, 0.01, |most| format!("{most}"), "over", &mut lines);
        let lines: Vec<String> = lines.iter().map(|it| format!("{} {}", it.at, it.text)).collect();
        assert_eq!(lines, expected, "{values:?}");
    }

    #[test]
    fn a_spell_has_a_beginning_a_height_and_an_end() {
        check(&[0.0, 0.02, 0.0], &[]);
        check(&[0.0, 0.2, 0.5, 0.0, 0.0, 0.0], &["1s 0.5", "3s over"]);
        // A lull is not the end.
        check(&[0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0], &["0s 0.3", "4s over"]);
        check(&[0.0, 0.2, 0.5], &["1s 0.5, to the end"]);
    }
}
