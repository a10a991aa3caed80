//! What an action of a scenario means on this machine, and what is in force when several do.
//!
//! Pure. A [`Fault`] of the file becomes a [`Deed`] on instances by name, or is refused with the reason: better not
//! begun than half done. What is in force is folded anew from the deeds that stand, so undoing one is leaving it out,
//! and the order in which overlapping ones end cannot matter.

use control::compile::{Area, Link, either};
use model::system::{Fault, Load, Place, Selection, System, TrafficId, Which};
use std::collections::{BTreeMap, BTreeSet};
use units::{Nanos, Percent, Rng};

/// A service's name and an instance's number: `web`, 0.
pub(crate) type Slot = (String, u32);

/// An instance as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) slot: Slot,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// Of its own command; else it is played by us.
    pub(crate) is_process: bool,
    /// Its connections pass unread.
    pub(crate) is_raw: bool,
}

/// An action, on what is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deed {
    Down(Vec<Slot>),
    Frozen(Vec<Slot>),
    SlowBy(Vec<Slot>, Nanos),
    SlowTimes(Vec<Slot>, f64),
    Errors(Vec<Slot>, Percent),
    Links(Vec<Link>),
    /// Done once; there is nothing to undo.
    Flush(Vec<Slot>),
    LoadTimes(Vec<String>, f64),
    LoadTo(String, f64),
    Version(Vec<Slot>, String),
    Scale(String, u32),
}

/// What one instance is under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Force {
    pub(crate) down: bool,
    pub(crate) frozen: bool,
    pub(crate) slow_by: Nanos,
    pub(crate) slow_times: f64,
    pub(crate) errors: Percent,
}

impl Default for Force {
    fn default() -> Self {
        Self { down: false, frozen: false, slow_by: Nanos::ZERO, slow_times: 1.0, errors: Percent::ZERO }
    }
}

/// Everything in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Forces {
    pub(crate) slots: BTreeMap<Slot, Force>,
    pub(crate) links: Vec<Link>,
    /// By traffic: what its rate is multiplied with.
    pub(crate) load: BTreeMap<String, f64>,
    pub(crate) versions: BTreeMap<Slot, String>,
    pub(crate) scale: BTreeMap<String, u32>,
}

impl Forces {
    /// In the order in which they came into force.
    pub(crate) fn of<'d>(deeds: impl Iterator<Item = &'d Deed>) -> Self {
        let mut all = Self::default();
        for deed in deeds {
            match deed {
                Deed::Down(slots) => all.each(slots, |it| it.down = true),
                Deed::Frozen(slots) => all.each(slots, |it| it.frozen = true),
                Deed::SlowBy(slots, by) => all.each(slots, |it| it.slow_by += *by),
                Deed::SlowTimes(slots, times) => all.each(slots, |it| it.slow_times *= times),
                Deed::Errors(slots, share) => all.each(slots, |it| it.errors = either(it.errors, *share)),
                Deed::Links(links) => all.links.extend(links.iter().cloned()),
                Deed::Flush(_) => {}
                Deed::LoadTimes(names, times) => {
                    names.iter().for_each(|it| *all.load.entry(it.clone()).or_insert(1.0) *= times);
                }
                Deed::LoadTo(name, times) => {
                    all.load.insert(name.clone(), *times);
                }
                Deed::Version(slots, version) => {
                    all.versions.extend(slots.iter().map(|it| (it.clone(), version.clone())));
                }
                Deed::Scale(service, count) => {
                    all.scale.insert(service.clone(), *count);
                }
            }
        }
        all
    }

    fn each(&mut self, slots: &[Slot], change: impl Fn(&mut Force)) {
        slots.iter().for_each(|it| change(self.slots.entry(it.clone()).or_default()));
    }

    /// Services that are not as they should be.
    pub(crate) fn troubled(&self) -> BTreeSet<&str> {
        let slots = self.slots.keys().chain(self.versions.keys()).map(|(service, _)| service.as_str());
        slots.chain(self.scale.keys().map(String::as_str)).collect()
    }
}

/// What a fault touches, for two scenarios at once: they must have nothing in common.
pub(crate) fn touches(system: &System, fault: &Fault) -> Vec<String> {
    let service = |id| format!("service {}", system.services[id].name.value);
    match fault {
        Fault::Stop(it)
        | Fault::Pause(it)
        | Fault::SlowBy(it, _)
        | Fault::SlowTimes(it, _)
        | Fault::Error(it, _) => vec![service(it.service)],
        Fault::Flush(id) | Fault::Remove(id) | Fault::Scale(id, _) => vec![service(*id)],
        Fault::Release { service: id, .. } => vec![service(*id)],
        Fault::Lose(_) | Fault::Partition { .. } | Fault::Delay { .. } | Fault::Loss { .. } => {
            vec!["the network".to_owned()]
        }
        Fault::FailDns => vec!["names".to_owned()],
        Fault::LoadTo(id, _) | Fault::LoadTimes(Some(id), _) => vec![traffic(system, *id)],
        Fault::LoadTimes(None, _) => system.traffic.enumerate().map(|(id, _)| traffic(system, id)).collect(),
    }
}

fn traffic(system: &System, id: TrafficId) -> String {
    format!("traffic {}", system.traffic[id].name.value)
}

/// What a fault does to what stands, or why it cannot be done here.
pub(crate) fn deed(
    system: &System,
    fault: &Fault,
    standing: &[Standing],
    luck: &mut Rng,
) -> Result<Deed, String> {
    let slots = |all: Vec<&Standing>| all.iter().map(|it| it.slot.clone()).collect::<Vec<Slot>>();
    let played = |chosen: Vec<&Standing>, why: &str| match chosen.iter().find(|it| it.is_process) {
        Some(it) => Err(format!("{} runs by its own command: {why}", it.slot.0)),
        None => Ok(chosen.iter().map(|it| it.slot.clone()).collect::<Vec<Slot>>()),
    };
    let read = |chosen: Vec<&Standing>| match chosen.iter().find(|it| it.is_raw) {
        Some(it) => Err(format!(
            "{} speaks raw TCP, which passes unread: stop or pause it, or slow who calls it",
            it.slot.0
        )),
        None => Ok(slots(chosen)),
    };
    Ok(match fault {
        Fault::Stop(it) => Deed::Down(slots(select(system, it, standing, luck)?)),
        Fault::Pause(it) => Deed::Frozen(slots(select(system, it, standing, luck)?)),
        Fault::SlowBy(it, by) => Deed::SlowBy(read(select(system, it, standing, luck)?)?, *by),
        Fault::SlowTimes(it, times) => {
            let why = "its work cannot be multiplied; write `slow ... by 200ms`";
            Deed::SlowTimes(played(select(system, it, standing, luck)?, why)?, times.fraction())
        }
        Fault::Error(it, share) => Deed::Errors(read(select(system, it, standing, luck)?)?, *share),
        Fault::Lose(place) => {
            let area = area(system, *place);
            let here: Vec<&Standing> =
                standing.iter().filter(|it| area.holds(&it.region, &it.zone)).collect();
            if here.is_empty() {
                return Err(format!("nobody stands in {}", words(&area)));
            }
            // What is lost neither answers nor refuses.
            Deed::Frozen(slots(here))
        }
        Fault::Partition { from, to, both_ways } => {
            let none = Link {
                from: area(system, *from),
                to: area(system, *to),
                delay: Nanos::ZERO,
                jitter: Percent::ZERO,
                loss: Percent::ZERO,
                cut: true,
            };
            // A question that arrives and an answer that does not are the same to whoever asks.
            let _ = both_ways;
            Deed::Links(links(none, standing)?)
        }
        Fault::Delay { from, to, by, both_ways } => {
            let link = Link {
                from: area(system, *from),
                to: area(system, *to),
                delay: if *both_ways { *by * 2 } else { *by },
                jitter: Percent::ZERO,
                loss: Percent::ZERO,
                cut: false,
            };
            Deed::Links(links(link, standing)?)
        }
        Fault::Loss { from, to, share, both_ways } => {
            // A link loses on the way there and on the way back; of one way, half of it each is as much.
            let loss = if *both_ways { *share } else { Percent::from_millionths(share.millionths() / 2) };
            let link = Link {
                from: area(system, *from),
                to: area(system, *to),
                delay: Nanos::ZERO,
                jitter: Percent::ZERO,
                loss,
                cut: false,
            };
            Deed::Links(links(link, standing)?)
        }
        Fault::FailDns => {
            return Err("no name is looked up here: proxies are told where instances are; only a forecast can play it".to_owned());
        }
        Fault::Flush(service) => {
            let all = Selection { service: *service, which: Which::All };
            let why = "isobar cannot empty it";
            Deed::Flush(played(select(system, &all, standing, luck)?, why)?)
        }
        Fault::LoadTimes(one, times) => {
            let chosen: Vec<TrafficId> = match one {
                Some(id) => vec![*id],
                None => system.traffic.enumerate().map(|(id, _)| id).collect(),
            };
            if chosen.is_empty() {
                return Err("the file has no traffic".to_owned());
            }
            for id in &chosen {
                rate_of(system, *id)?;
            }
            let names = chosen.iter().map(|id| system.traffic[*id].name.value.clone()).collect();
            Deed::LoadTimes(names, times.fraction())
        }
        Fault::LoadTo(id, rate) => {
            let base = rate_of(system, *id)?;
            if base <= 0.0 {
                return Err(format!(
                    "{} has a rate of 0, of which nothing is a multiple",
                    traffic(system, *id)
                ));
            }
            Deed::LoadTo(system.traffic[*id].name.value.clone(), rate.per_second() / base)
        }
        Fault::Release { service, version, share } => {
            let all = Selection { service: *service, which: Which::All };
            let mut all = select(system, &all, standing, luck)?;
            // As the forecast does it: whole instances, the first ones, at least one.
            let count = (all.len() as f64 * share.fraction()).round().max(1.0) as usize;
            all.truncate(count);
            Deed::Version(slots(all), version.clone())
        }
        Fault::Remove(service) => {
            let all = Selection { service: *service, which: Which::All };
            Deed::Down(slots(select(system, &all, standing, luck)?))
        }
        Fault::Scale(service, count) => {
            let all = Selection { service: *service, which: Which::All };
            select(system, &all, standing, luck)?;
            if *count > SCALE_MAX {
                return Err(format!(
                    "{count} instances are more than the {SCALE_MAX} that one machine is asked for"
                ));
            }
            Deed::Scale(system.services[*service].name.value.clone(), *count)
        }
    })
}

const SCALE_MAX: u32 = 1_000;

fn rate_of(system: &System, id: TrafficId) -> Result<f64, String> {
    match &system.traffic[id].load {
        Load::Open { rate, .. } => Ok(rate.value.per_second()),
        Load::Closed { .. } => Err(format!(
            "{} is of users who wait; only a rate can be changed while it flows",
            traffic(system, id)
        )),
        Load::Recorded { .. } => {
            Err(format!("{} is a recording; only a rate can be changed while it flows", traffic(system, id)))
        }
    }
}

/// Both directions of calls between two areas: a call needs its question and its answer.
fn links(link: Link, standing: &[Standing]) -> Result<Vec<Link>, String> {
    let ends = |it: &&Standing| link.from.holds(&it.region, &it.zone) || link.to.holds(&it.region, &it.zone);
    if let Some(raw) = standing.iter().filter(ends).find(|it| it.is_raw) {
        return Err(format!(
            "{} speaks raw TCP, whose open connections cannot be parted by place; pause it instead",
            raw.slot.0
        ));
    }
    let back = Link { from: link.to.clone(), to: link.from.clone(), ..link.clone() };
    Ok(if back == link { vec![link] } else { vec![link, back] })
}

pub(crate) fn area(system: &System, place: Place) -> Area {
    let (region, zone) = match place {
        Place::Region(region) => (&system.regions[region], None),
        Place::Zone(it) => {
            let region = &system.regions[it.region];
            (region, region.zones.get(it.zone as usize).map(|it| it.value.clone()))
        }
    };
    Area { region: region.name.value.clone(), zone }
}

fn words(area: &Area) -> String {
    area.zone.as_ref().map_or_else(|| area.region.clone(), |zone| format!("{}/{zone}", area.region))
}

/// The instances that are meant; which ones, where only a number is said, is drawn.
fn select<'s>(
    system: &System,
    selection: &Selection,
    standing: &'s [Standing],
    luck: &mut Rng,
) -> Result<Vec<&'s Standing>, String> {
    let name = &system.services[selection.service].name.value;
    let all: Vec<&Standing> = standing.iter().filter(|it| it.slot.0 == *name).collect();
    if all.is_empty() {
        return Err(format!("{name} has no instance here: it runs elsewhere, or was left out"));
    }
    let some = |mut all: Vec<&'s Standing>, count: usize, luck: &mut Rng| {
        while all.len() > count {
            all.swap_remove(luck.below(all.len() as u64) as usize);
        }
        all.sort_by_key(|it| it.slot.1);
        all
    };
    let count = all.len();
    Ok(match selection.which {
        Which::All => all,
        Which::Count(count) => some(all, count as usize, luck),
        Which::Share(share) => some(all, (count as f64 * share.fraction()).ceil() as usize, luck),
        Which::Index(index) => {
            let found: Vec<&Standing> = all.into_iter().filter(|it| it.slot.1 == index).collect();
            if found.is_empty() {
                return Err(format!(
                    "there is no {name}#{index}; it has {count} instances, from {name}#0 on"
                ));
            }
            found
        }
        Which::In(place) => {
            let area = area(system, place);
            let found: Vec<&Standing> =
                all.into_iter().filter(|it| area.holds(&it.region, &it.zone)).collect();
            if found.is_empty() {
                return Err(format!("{name} has no instance in {}", words(&area)));
            }
            found
        }
    })
}

/// An action in the file's own words.
pub(crate) fn words_of(system: &System, fault: &Fault) -> String {
    let name = |id| system.services[id].name.value.as_str();
    let place = |it: &Place| words(&area(system, *it));
    let who = |it: &Selection| {
        let name = name(it.service);
        match it.which {
            Which::All => name.to_owned(),
            Which::Count(count) => format!("{count} of {name}"),
            Which::Share(share) => format!("{share} of {name}"),
            Which::Index(index) => format!("{name}#{index}"),
            Which::In(it) => format!("{name} in {}", place(&it)),
        }
    };
    let factor = |it: &Percent| format!("x{}", it.fraction());
    let between = |from: &Place, to: &Place, both: bool| {
        format!("{} {} {}", place(from), if both { "<->" } else { "->" }, place(to))
    };
    match fault {
        Fault::Stop(it) => format!("stop {}", who(it)),
        Fault::Pause(it) => format!("pause {}", who(it)),
        Fault::SlowBy(it, by) => format!("slow {} by {by}", who(it)),
        Fault::SlowTimes(it, times) => format!("slow {} {}", who(it), factor(times)),
        Fault::Error(it, share) => format!("error {} {share}", who(it)),
        Fault::Lose(it) => format!("lose {}", place(it)),
        Fault::Partition { from, to, both_ways } => format!("partition {}", between(from, to, *both_ways)),
        Fault::Delay { from, to, by, both_ways } => {
            format!("delay {} by {by}", between(from, to, *both_ways))
        }
        Fault::Loss { from, to, share, both_ways } => {
            format!("loss {} {share}", between(from, to, *both_ways))
        }
        Fault::FailDns => "fail dns".to_owned(),
        Fault::Flush(id) => format!("flush {}", name(*id)),
        Fault::LoadTimes(None, times) => format!("load {}", factor(times)),
        Fault::LoadTimes(Some(id), times) => {
            format!("load {} {}", system.traffic[*id].name.value, factor(times))
        }
        Fault::LoadTo(id, rate) => format!("load {} to {rate}", system.traffic[*id].name.value),
        Fault::Release { service, version, share } => {
            format!("release {} {version} at {share}", name(*service))
        }
        Fault::Remove(id) => format!("remove {}", name(*id)),
        Fault::Scale(id, count) => format!("scale {} to {count}", name(*id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"isobar: 1
places: {eu: {zones: [a, b]}, us: {zones: [a]}}
services:
  web: {replicas: {eu: 2, us: 1}, operations: {"GET /": 1ms}, versions: {v1.0.0: {weight: 100%}, v1.1.0: {weight: 0%}}}
  api: {run: ./api}
  db: {kind: tcp, run: ./db}
  hot: {kind: cache, cache: {hit_rate: 90%}}
  away: {endpoints: ["127.0.0.1:9"]}
traffic:
  people: {to: web "GET /", rate: 10/s}
  staff: {to: web "GET /", users: 3}
scenarios:
  it: {do: [ACTIONS]}
"#;

    fn standing(service: &str, index: u32, place: &str, is_process: bool, is_raw: bool) -> Standing {
        let (region, zone) = place.split_once('/').expect("region/zone");
        let slot = (service.to_owned(), index);
        Standing { slot, region: region.to_owned(), zone: zone.to_owned(), is_process, is_raw }
    }

    /// What the actions come to, or the refusal of the first that cannot be done.
    fn forces(actions: &str) -> Result<Forces, String> {
        let loaded = model::load::load_str(&FILE.replace("ACTIONS", actions));
        let mistakes = format!("{:?}", loaded.diagnostics);
        let system = loaded.into_system().unwrap_or_else(|| panic!("{mistakes}"));
        let all = [
            standing("web", 0, "eu/a", false, false),
            standing("web", 1, "eu/b", false, false),
            standing("web", 2, "us/a", false, false),
            standing("api", 0, "eu/a", true, false),
            standing("db", 0, "us/a", true, true),
            standing("hot", 0, "eu/a", false, false),
        ];
        let mut luck = Rng::from_seed(1);
        let deeds: Result<Vec<Deed>, String> = system.scenarios[0]
            .events
            .iter()
            .map(|it| deed(&system, &it.fault.value, &all, &mut luck))
            .collect();
        Ok(Forces::of(deeds?.iter()))
    }

    /// Instances in trouble, as `web#0 down`.
    #[track_caller]
    fn check(actions: &str, expected: &str) {
        let forces = forces(actions).expect("it can be done");
        let named = |((service, index), it): (&Slot, &Force)| {
            let mut words = format!("{service}#{index}");
            for (is_so, word) in [
                (it.down, "down".to_owned()),
                (it.frozen, "frozen".to_owned()),
                (!it.slow_by.is_zero(), format!("+{}", it.slow_by)),
                (it.slow_times != 1.0, format!("x{}", it.slow_times)),
                (it.errors > Percent::ZERO, it.errors.to_string()),
            ] {
                if is_so {
                    words.push_str(&format!(" {word}"));
                }
            }
            words
        };
        let mut found: Vec<String> = forces.slots.iter().map(named).collect();
        found.extend(forces.load.iter().map(|(name, factor)| format!("{name} x{factor}")));
        found.extend(
            forces.versions.iter().map(|((name, index), version)| format!("{name}#{index} {version}")),
        );
        found.extend(forces.scale.iter().map(|(name, count)| format!("{name}={count}")));
        found.extend(
            forces.links.iter().map(|it| {
                format!("{}->{} {} {} {}", words(&it.from), words(&it.to), it.delay, it.loss, it.cut)
            }),
        );
        assert_eq!(found.join(", "), expected);
    }

    #[test]
    fn every_action_of_the_file_is_a_deed() {
        check("stop web#1", "web#1 down");
        check("stop web in eu", "web#0 down, web#1 down");
        check("remove api", "api#0 down");
        check("pause db", "db#0 frozen");
        check("slow web by 200ms, slow web#0 by 1s", "web#0 +1.2s, web#1 +200ms, web#2 +200ms");
        check("slow api by 1s", "api#0 +1s");
        check("slow web#2 x3, slow web#2 x2", "web#2 x6");
        check("error web#0 10%, error web#0 10%", "web#0 19%");
        check("lose us", "db#0 frozen, web#2 frozen");
        check("lose eu/b", "web#1 frozen");
        check("partition eu/a <-> eu/b", "eu/a->eu/b 0s 0% true, eu/b->eu/a 0s 0% true");
        check("delay eu/a -> eu/b by 50ms", "eu/a->eu/b 50ms 0% false, eu/b->eu/a 50ms 0% false");
        check("delay eu/a <-> eu/b by 50ms", "eu/a->eu/b 100ms 0% false, eu/b->eu/a 100ms 0% false");
        check("loss eu/a -> eu/b 2%", "eu/a->eu/b 0s 1% false, eu/b->eu/a 0s 1% false");
        check("flush hot", "");
        check("load people x2, load people x2", "people x4");
        check("load people x2, load people to 30/s", "people x3");
        check("release web v1.1.0 at 10%", "web#0 v1.1.0");
        check("release web v1.1.0 at 60%", "web#0 v1.1.0, web#1 v1.1.0");
        check("scale web to 5", "web=5");
        let some = forces("stop 2 of web").expect("it can be done");
        assert_eq!(some.slots.len(), 2);
        assert_eq!(forces("stop 50% of web").map(|it| it.slots.len()), Ok(2));
        assert_eq!(some.troubled().into_iter().collect::<Vec<_>>(), ["web"]);
    }

    #[track_caller]
    fn check_refused(action: &str, part: &str) {
        let refused = forces(action).expect_err("it cannot be done");
        assert!(refused.contains(part), "{refused}");
    }

    #[test]
    fn what_cannot_be_done_here_is_refused_by_name() {
        check_refused("stop away", "away has no instance here");
        check_refused("stop api in us", "api has no instance in us");
        check_refused("stop hot in us", "hot has no instance in us");
        check_refused("lose us/a, slow api x3", "api runs by its own command");
        check_refused("error db 5%", "db speaks raw TCP");
        check_refused("slow db by 1s", "db speaks raw TCP");
        check_refused("partition eu <-> us", "db speaks raw TCP");
        check_refused("load x2", "traffic staff is of users");
        check_refused("scale web to 5000", "5000 instances");
    }
}
