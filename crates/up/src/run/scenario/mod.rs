//! Scenarios on the running system: performed as leases, judged while they last, undone whatever ends them.
//!
//! [`play`] decides when, [`deed`] what it means here, [`record`] counts what is seen and [`report`] says it in the
//! forecast's own terms. This module is their hands: it brings what runs under the forces that the deeds in force come
//! to, and out of them again. Forces live in this process's memory alone, so when isobar ends, however, nothing of a
//! scenario is left: what it started ends with it, and the next run begins without any.

mod deed;
mod play;
mod record;
mod report;

use super::instances::{Body, Live};
use super::{Runner, Say, slot, split_slot, unix_nanos};
use crate::load::Tally;
use crate::plan;
use crate::supervisor::{Event, Key, Phase};
use crate::synthetic::Trouble;
use control::api::{Refusal, ScenarioOrder};
use control::compile::{self, Instance};
use control::status::ScenarioStatus;
use crossbeam_channel::Receiver;
use deed::{Deed, Force, Forces, Slot, Standing};
use model::system::{Check, Expectation, Fault, Load, Measure, Scenario, System};
use play::{Act, End, Expected, Play, Script, Seen, Step};
use proxy::record::Finished;
use record::{Groups, Recording, Whereabouts};
use report::{Facts, Looked, Slice, TrafficSeen};
use rustix::process::Signal;
use serde_json::{Value, json};
use sim::set::Setting;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use units::{Nanos, Rng};

/// A lease this short would end by a hiccup, and one this long is none.
const LEASE_MIN: Nanos = Nanos::from_secs(1);
const LEASE_MAX: Nanos = Nanos::from_secs(600);
/// As long as the forecast watches one that does not say how long.
const WATCHED: Nanos = Nanos::from_secs(60);
const LASTS_MAX: Nanos = Nanos::from_secs(24 * 3_600);
/// Finished requests between two looks. More are dropped by the proxy, and counted there.
const RECORDS_MAX: usize = 65_536;
const LOOK_EVERY: Nanos = Nanos::from_millis(100);
/// At once, with nothing in common.
const PLAYING_MAX: usize = 8;
/// Reports of scenarios that ended.
const ENDED_MAX: usize = 8;
const TOLD_MAX: usize = 1_000;
/// What a steady measurement waits for when it had to start the traffic itself.
const SETTLES: Nanos = Nanos::from_secs(5);

/// Scenarios that play, and what they made of the running system.
#[derive(Debug, Default)]
pub(super) struct Desk {
    playing: Vec<Playing>,
    ended: VecDeque<(String, Value)>,
    forces: Forces,
    ghosts: Vec<Ghost>,
    /// What was before the first scenario changed it.
    load_before: BTreeMap<String, f64>,
    scale_before: BTreeMap<String, u32>,
    traffic_started: BTreeSet<String>,
    whereabouts: HashMap<SocketAddr, Whereabouts>,
    places: HashMap<String, String>,
}

/// An instance that ended without a word: its callers still know its address, until their checks would have told them.
#[derive(Debug)]
struct Ghost {
    slot: Slot,
    instance: Instance,
    until: Nanos,
}

/// What an act does: an action of the file, or something settled beforehand.
#[derive(Clone, Debug)]
enum What {
    Fault(Fault),
    Given(Deed),
}

struct Playing {
    id: String,
    name: String,
    /// Nothing is done; the system is measured as it is.
    steady: bool,
    /// As it was in force when this began: its ids are the scenario's.
    system: Rc<System>,
    expect: Vec<Expectation>,
    acts: Vec<(What, String)>,
    touches: BTreeSet<String>,
    play: Play,
    luck: Rng,
    deeds: BTreeMap<usize, Deed>,
    groups: Groups,
    tap: Receiver<Finished>,
    edges: Vec<Option<String>>,
    recording: Option<Recording>,
    tallies: BTreeMap<String, Tally>,
    traffic: BTreeMap<String, TrafficSeen>,
    looked: BTreeMap<String, Looked>,
    seconds: u64,
    sliced: Nanos,
    seen: Vec<Seen>,
    told: Vec<(Nanos, String)>,
}

impl std::fmt::Debug for Playing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Playing").field("id", &self.id).field("play", &self.play).finish_non_exhaustive()
    }
}

impl Runner {
    pub(super) fn start_scenario(
        &mut self,
        who: &str,
        name: &str,
        order: &ScenarioOrder,
    ) -> Result<Value, Refusal> {
        let system = Rc::clone(&self.system);
        let conflict = |message: String| Refusal { status: 409, message };
        if !self.all_told {
            return Err(conflict("not everything is ready yet; `isobar ps` says what is missing".to_owned()));
        }
        let (name, scenario) = self.scenario_meant(&system, name, order)?;
        let id: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .collect();
        let mut luck = Rng::from_seed(self.options.seed);
        let acts = self.acts_of(&system, &scenario, order, &mut luck)?;
        let touches: BTreeSet<String> = acts
            .iter()
            .flat_map(|(what, _, _)| match what {
                What::Fault(fault) => deed::touches(&system, fault),
                What::Given(Deed::Scale(name, _)) => vec![format!("service {name}")],
                What::Given(Deed::LoadTimes(names, _)) => {
                    names.iter().map(|it| format!("traffic {it}")).collect()
                }
                What::Given(Deed::LoadTo(name, _)) => vec![format!("traffic {name}")],
                What::Given(_) => Vec::new(),
            })
            .collect();
        for other in &self.scenarios.playing {
            if other.id == id {
                return Err(conflict(format!("{name} is playing already; `isobar scenario stop` ends it")));
            }
            if let Some(both) = touches.intersection(&other.touches).next() {
                return Err(conflict(format!(
                    "{} is playing and touches {both} too; one after the other",
                    other.name
                )));
            }
        }
        if self.scenarios.playing.len() >= PLAYING_MAX {
            return Err(conflict(format!("{PLAYING_MAX} scenarios are playing already")));
        }
        let observer =
            self.watched.observer().ok_or_else(|| conflict("the proxy does not run yet".to_owned()))?;
        let lasts = order.lasts_ms.map(Nanos::from_millis).or(scenario.lasts).unwrap_or_else(|| {
            let over = |it: &model::system::Event| it.at + it.lasting.unwrap_or(Nanos::ZERO);
            scenario.events.iter().map(over).max().unwrap_or(Nanos::ZERO) + WATCHED
        });
        if lasts.is_zero() || lasts > LASTS_MAX {
            return Err(Refusal::wrong("a scenario lasts between a moment and a day"));
        }
        if order.guard.is_some_and(|it| !(1.0..=1e6).contains(&it)) {
            return Err(Refusal::wrong("a guard is a factor of at least 1 on what the expectations allow"));
        }
        let started = if order.no_traffic { Vec::new() } else { self.start_idle_traffic()? };
        let settles = if order.steady && !started.is_empty() { SETTLES } else { Nanos::ZERO };
        let script = Script {
            acts: acts.iter().map(|(_, _, act)| act.clone()).collect(),
            warm_up: order.warm_up_ms.map_or(settles, Nanos::from_millis),
            lasts,
            lease: order.lease_ms.map(|it| Nanos::from_millis(it).clamp(LEASE_MIN, LEASE_MAX)),
            guard: order.guard,
            expected: scenario.expect.iter().map(|it| expected(&it.value)).collect(),
        };
        let groups = if order.steady { Groups::InARow { lasts } } else { Groups::InTurn };
        let answer = json!({
            "id": id, "name": name, "lasts_ms": millis(lasts), "warm_up_ms": millis(script.warm_up),
            "lease_ms": script.lease.map(millis), "traffic_started": started,
            "acts": acts.iter().map(|(_, text, act)| json!({"at_ms": millis(act.at), "lasting_ms": act.lasting.map(millis), "what": text})).collect::<Vec<_>>(),
            "guard": script.guard.map(|factor| script.expected.iter().map(|it| json!({"text": it.text, "stops_at": it.beyond(factor)})).collect::<Vec<_>>()),
        });
        let now = self.now();
        let mut playing = Playing {
            id,
            name: name.clone(),
            steady: order.steady,
            system,
            expect: scenario.expect.iter().map(|it| it.value.clone()).collect(),
            acts: acts.into_iter().map(|(what, text, _)| (what, text)).collect(),
            touches,
            play: Play::new(script, now),
            luck,
            deeds: BTreeMap::new(),
            groups,
            tap: observer.events(RECORDS_MAX),
            edges: Vec::new(),
            recording: None,
            tallies: BTreeMap::new(),
            traffic: BTreeMap::new(),
            looked: BTreeMap::new(),
            seconds: 0,
            sliced: Nanos::ZERO,
            seen: Vec::new(),
            told: Vec::new(),
        };
        for traffic in &started {
            playing.tell(now, format!("traffic {traffic} flows for as long as this lasts"));
        }
        self.scenarios.playing.push(playing);
        self.record(who, "scenario", &name, "starts".to_owned());
        (self.say)(Say::Event(format!("scenario {name} starts ({who})")));
        self.play_scenarios();
        Ok(answer)
    }

    /// The file's, a ready-made one, or none at all.
    fn scenario_meant(
        &self,
        system: &System,
        name: &str,
        order: &ScenarioOrder,
    ) -> Result<(String, Scenario), Refusal> {
        let nothing = |name: &str| Scenario {
            name: model::span::At::new(name.to_owned(), model::span::Span::default()),
            description: None,
            events: Vec::new(),
            expect: Vec::new(),
            lasts: None,
            span: model::span::Span::default(),
        };
        if order.steady {
            return Ok(("steady".to_owned(), nothing("steady")));
        }
        if let Some(wanted) = &order.ready_made {
            let scenario = sim::breaks::ready_made(system, wanted).map_err(Refusal::wrong)?;
            return Ok((wanted.clone(), scenario));
        }
        let found = system.scenarios.iter().find(|it| it.name.value == name);
        found.cloned().map(|it| (name.to_owned(), it)).ok_or_else(|| {
            let known: Vec<&str> = system.scenarios.iter().map(|it| it.name.value.as_str()).collect();
            let known = if known.is_empty() {
                "the file has none".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            Refusal::not_found(format!("no scenario is called `{name}`; {known}"))
        })
    }

    /// Everything it will do, checked: what cannot be done here is refused before anything begins, all of it at once.
    fn acts_of(
        &self,
        system: &System,
        scenario: &Scenario,
        order: &ScenarioOrder,
        luck: &mut Rng,
    ) -> Result<Vec<(What, String, Act)>, Refusal> {
        let standing = self.standing(system);
        let (mut acts, mut refused) = (Vec::new(), Vec::new());
        for text in &order.settings {
            match self.setting(system, text) {
                Ok(given) => acts.push((
                    What::Given(given),
                    format!("set {text}"),
                    Act { at: Nanos::ZERO, lasting: None },
                )),
                Err(why) => refused.push(format!("--set {why}")),
            }
        }
        for event in &scenario.events {
            let fault = &event.fault.value;
            let text = deed::words_of(system, fault);
            match deed::deed(system, fault, &standing, luck) {
                Ok(_) => acts.push((
                    What::Fault(fault.clone()),
                    text,
                    Act { at: event.at, lasting: event.lasting },
                )),
                Err(why) => refused.push(format!("`{text}` cannot be done here: {why}")),
            }
        }
        if refused.is_empty() { Ok(acts) } else { Err(Refusal::wrong(refused.join("\n"))) }
    }

    fn setting(&self, system: &System, text: &str) -> Result<Deed, String> {
        let rated = |it: &&model::system::Traffic| matches!(it.load, Load::Open { .. });
        Ok(match text.parse::<Setting>()? {
            Setting::Load(factor) => {
                let names = system.traffic.iter().filter(rated).map(|it| it.name.value.clone()).collect();
                Deed::LoadTimes(names, factor)
            }
            Setting::Rate(name, rate) => {
                let base = system.traffic.iter().find(|it| it.name.value == name).map(|it| &it.load);
                match base {
                    Some(Load::Open { rate: base, .. }) if base.value.per_second() > 0.0 => {
                        Deed::LoadTo(name, rate.per_second() / base.value.per_second())
                    }
                    Some(_) => {
                        return Err(format!("{text}: traffic {name} has no rate that could be changed"));
                    }
                    None => return Err(format!("{text}: no traffic is called `{name}`")),
                }
            }
            Setting::Replicas(name, count) => {
                if self.supervisor.instances_wanted(&name).is_none() {
                    return Err(format!("{text}: no service here is called `{name}`"));
                }
                Deed::Scale(name, count)
            }
            Setting::Concurrency(name, _) => {
                return Err(format!(
                    "{text}: what {name} works on at once is fixed when it starts; change the file instead"
                ));
            }
        })
    }

    /// Traffic of the file that does not flow yet, as the forecast plays all of it.
    fn start_idle_traffic(&mut self) -> Result<Vec<String>, Refusal> {
        let system = Rc::clone(&self.system);
        let idle: Vec<String> = system
            .traffic
            .iter()
            .map(|it| it.name.value.clone())
            .filter(|name| self.traffic.factor(name).is_none())
            .collect();
        for name in &idle {
            self.start_traffic(name)?;
            self.scenarios.traffic_started.insert(name.clone());
        }
        Ok(idle)
    }

    pub(super) fn renew_scenario(&mut self, id: &str) -> Result<Value, Refusal> {
        let now = self.now();
        if let Some(playing) = self.scenarios.playing.iter_mut().find(|it| it.id == id) {
            playing.play.renew(now);
        }
        self.scenario_progress(id, false)
    }

    pub(super) fn scenario_progress(&self, id: &str, whole: bool) -> Result<Value, Refusal> {
        if let Some(playing) = self.scenarios.playing.iter().find(|it| it.id == id) {
            let mut progress = playing.progress(self.now());
            if whole {
                progress["report"] = playing.report(self.now(), &self.options);
            }
            return Ok(progress);
        }
        let ended = self.scenarios.ended.iter().rev().find(|(it, _)| it == id);
        let Some((_, ended)) = ended else {
            return Err(Refusal::not_found(format!("no scenario `{id}` plays or has played here")));
        };
        let mut ended = ended.clone();
        if !whole {
            ended.as_object_mut().map(|it| it.remove("report"));
        }
        Ok(ended)
    }

    /// What the file has, and what plays.
    pub(super) fn scenario_list(&self) -> Value {
        let now = self.now();
        let known = self.system.scenarios.iter().map(|it| {
            json!({
                "name": it.name.value, "description": it.description,
                "acts": it.events.iter().map(|event| json!({
                    "at_ms": millis(event.at), "lasting_ms": event.lasting.map(millis),
                    "what": deed::words_of(&self.system, &event.fault.value),
                })).collect::<Vec<_>>(),
                "expect": it.expect.iter().map(|it| &it.value.text).collect::<Vec<_>>(),
                "lasts_ms": it.lasts.map(millis),
            })
        });
        let playing = self.scenarios.playing.iter().map(|it| it.progress(now));
        json!({"scenarios": known.collect::<Vec<_>>(), "playing": playing.collect::<Vec<_>>()})
    }

    /// One by its id, or all.
    pub(super) fn stop_scenarios(&mut self, who: &str, id: Option<&str>) -> Result<Value, Refusal> {
        let now = self.now();
        let mut playing = std::mem::take(&mut self.scenarios.playing);
        let mut stopped = Vec::new();
        for it in playing.iter_mut().filter(|it| id.is_none_or(|id| it.id == id)) {
            let steps = it.play.stop(End::Stopped(who.to_owned()));
            self.carry_out(now, it, steps);
            stopped.push(it.name.clone());
        }
        self.scenarios.playing = playing;
        self.settle_scenarios(now);
        if let (Some(id), true) = (id, stopped.is_empty()) {
            return Err(Refusal::not_found(format!("no scenario `{id}` is playing")));
        }
        Ok(json!({"stopped": stopped}))
    }

    pub(super) fn scenario_wake(&self) -> Option<Nanos> {
        let ghosts = self.scenarios.ghosts.iter().map(|it| it.until);
        if self.scenarios.playing.is_empty() {
            return ghosts.min();
        }
        let look = self.now() + LOOK_EVERY;
        let plays = self.scenarios.playing.iter().filter_map(|it| it.play.next_wake());
        plays.chain(ghosts).chain([look]).min()
    }

    /// Lets scenarios go on. Calling it more often does no harm.
    pub(super) fn play_scenarios(&mut self) {
        let now = self.now();
        let before = self.scenarios.ghosts.len();
        let (gone, kept) =
            std::mem::take(&mut self.scenarios.ghosts).into_iter().partition(|it| it.until <= now);
        self.scenarios.ghosts = kept;
        let gone: Vec<Ghost> = gone;
        gone.iter().for_each(|it| self.ports.release(it.instance.address.port()));
        self.dirty |= self.scenarios.ghosts.len() != before;
        if self.scenarios.playing.is_empty() {
            return;
        }
        self.learn_whereabouts();
        let mut playing = std::mem::take(&mut self.scenarios.playing);
        for it in &mut playing {
            self.look(now, it);
            let measured = now.saturating_sub(it.play.zero());
            let Playing { play, recording, seen, .. } = it;
            let steps = play.advance(now, || {
                *seen = recording.as_mut().map(|it| it.judge_expected(measured)).unwrap_or_default();
                seen.clone()
            });
            self.carry_out(now, it, steps);
        }
        self.scenarios.playing = playing;
        self.settle_scenarios(now);
    }

    /// Brings the system under what is in force, and says goodbye to scenarios that ended.
    fn settle_scenarios(&mut self, now: Nanos) {
        let deeds = self
            .scenarios
            .playing
            .iter()
            .flat_map(|it| it.play.in_force().iter().filter_map(|act| it.deeds.get(act)));
        let forces = Forces::of(deeds);
        self.set_forces(now, forces);
        if self.scenarios.playing.iter().all(|it| it.play.end().is_none()) {
            return;
        }
        let (ended, playing) =
            std::mem::take(&mut self.scenarios.playing).into_iter().partition(|it| it.play.end().is_some());
        self.scenarios.playing = playing;
        let ended: Vec<Playing> = ended;
        for it in ended {
            let mut last = it.progress(now);
            last["report"] = it.report(now, &self.options);
            if self.scenarios.ended.len() >= ENDED_MAX {
                self.scenarios.ended.pop_front();
            }
            self.scenarios.ended.push_back((it.id.clone(), last));
        }
        if self.scenarios.playing.is_empty() {
            for name in std::mem::take(&mut self.scenarios.traffic_started) {
                self.stop_traffic(&name);
            }
            self.scenarios.whereabouts.clear();
            self.scenarios.places.clear();
        }
    }

    fn carry_out(&mut self, now: Nanos, it: &mut Playing, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Do(act) => {
                    let (what, text) = it.acts[act].clone();
                    let standing = self.standing(&it.system);
                    let deed = match what {
                        What::Given(deed) => Ok(deed),
                        What::Fault(fault) => deed::deed(&it.system, &fault, &standing, &mut it.luck),
                    };
                    match deed {
                        Ok(deed) => {
                            let on = whom(&deed);
                            it.tell(now, if on.is_empty() { text.clone() } else { format!("{text} ({on})") });
                            self.record("isobar", "scenario", &it.name, text);
                            if let Deed::Flush(slots) = &deed {
                                self.flush(slots);
                            }
                            it.deeds.insert(act, deed);
                        }
                        // It could be done when all began, and things have changed since.
                        Err(why) => it.tell(now, format!("{text}: not done, {why}")),
                    }
                }
                Step::Undo(act) => {
                    let Some(deed) = it.deeds.remove(&act) else { continue };
                    // What was emptied stays so; nothing is taken back.
                    if !matches!(deed, Deed::Flush(_)) {
                        let text = format!("undone: {}", it.acts[act].1);
                        it.tell(now, text.clone());
                        self.record("isobar", "scenario", &it.name, text);
                    }
                }
                Step::End(end) => {
                    self.slice(now.min(it.play.ends_at()), it);
                    let text = match &end {
                        End::Over => "over".to_owned(),
                        End::Stopped(who) => format!("stopped by {who}"),
                        End::LeaseExpired => "whoever started it is gone: its lease ran out".to_owned(),
                        End::Breached(what) => format!("stopped by its guard: `{what}` is far from holding"),
                    };
                    it.tell(now, text.clone());
                    self.record("isobar", "scenario", &it.name, text.clone());
                    (self.say)(Say::Event(format!("scenario {}: {text}", it.name)));
                }
            }
        }
    }

    /// Takes what was seen since the last look.
    fn look(&mut self, now: Nanos, it: &mut Playing) {
        if it.recording.is_none() && it.play.zero() <= now {
            let began = Nanos(unix_nanos().saturating_sub(now.saturating_sub(it.play.zero()).as_u64()));
            it.recording = Some(Recording::new(&it.system, it.groups, began, &it.expect));
            it.sliced = it.play.zero();
            it.tallies = self.tallies();
        }
        if let Some(observer) = self.watched.observer() {
            let (_, names) = observer.edge_names();
            it.edges.resize(it.edges.len().max(names.len()), None);
            for (known, new) in it.edges.iter_mut().zip(names) {
                if let Some(new) = new
                    && known.as_deref() != Some(new.name.as_str())
                {
                    *known = Some(new.name.clone());
                }
            }
        }
        let Playing { tap, recording, edges, .. } = it;
        for finished in tap.try_iter().take(RECORDS_MAX) {
            if let Some(recording) = recording {
                let edge = edges.get(finished.edge as usize).and_then(Option::as_deref);
                recording.take(&finished, edge, &self.scenarios.whereabouts, &self.scenarios.places);
            }
        }
        let second = now.saturating_sub(it.play.zero()).as_u64() / 1_000_000_000;
        if it.recording.is_some() && second > it.seconds {
            it.seconds = second;
            self.slice(now, it);
            for (service, instance) in self.supervisor.instances() {
                let looked = it.looked.entry(slot(service, instance.index)).or_default();
                let force = self.scenarios.forces.slots.get(&(service.to_owned(), instance.index));
                let well = force.is_none_or(|it| !it.down && !it.frozen);
                looked.times += 1;
                looked.ready += u32::from(well && matches!(instance.phase, Phase::Ready { .. }));
            }
        }
    }

    fn tallies(&self) -> BTreeMap<String, Tally> {
        let names = self.system.traffic.iter().map(|it| it.name.value.clone());
        names.filter_map(|name| Some((name.clone(), self.traffic.tally(&name)?))).collect()
    }

    /// What traffic saw since the last slice.
    fn slice(&mut self, now: Nanos, it: &mut Playing) {
        let tallies = self.tallies();
        for (name, tally) in &tallies {
            let before = it.tallies.get(name).cloned().unwrap_or_default();
            // A traffic that was started anew counts from nothing again.
            let before = if before.sent > tally.sent { Tally::default() } else { before };
            let slice = Slice {
                at: it.sliced.saturating_sub(it.play.zero()),
                lasted: now.saturating_sub(it.sliced),
                sent: (tally.sent + tally.not_sent).saturating_sub(before.sent + before.not_sent),
                failed: (tally.failed + tally.not_sent).saturating_sub(before.failed + before.not_sent),
                latency: tally.latency.since(&before.latency).unwrap_or_else(|| tally.latency.clone()),
            };
            it.traffic.entry(name.clone()).or_default().slices.push(slice);
        }
        it.tallies = tallies;
        it.sliced = now;
    }

    fn learn_whereabouts(&mut self) {
        for live in self.live.values() {
            let Some(address) = live.address else { continue };
            let name = slot(&live.service, live.index);
            self.scenarios.places.insert(name.clone(), live.seat.place());
            self.scenarios.whereabouts.insert(
                address,
                Whereabouts { service: live.service.clone(), slot: name, place: live.seat.place() },
            );
        }
    }

    fn standing(&self, system: &System) -> Vec<Standing> {
        let mut standing: Vec<Standing> = Vec::new();
        for (name, instance) in self.supervisor.instances() {
            let Some(service) = system.services.iter().find(|it| it.name.value == name) else { continue };
            let own = (name.to_owned(), instance.index);
            if standing.iter().any(|it| it.slot == own) || service.run.as_ref().is_some_and(|it| it.job) {
                continue;
            }
            let seat = plan::seat(system, service, instance.index);
            let is_process = plan::run_of(service, &seat.version).is_some();
            standing.push(Standing {
                slot: own,
                region: seat.region,
                zone: seat.zone,
                is_process,
                is_raw: is_process && service.protocol == model::system::Protocol::Tcp,
            });
        }
        standing
    }

    /// Makes the difference between what was in force and what shall be.
    fn set_forces(&mut self, now: Nanos, forces: Forces) {
        if forces == self.scenarios.forces {
            return;
        }
        let before = std::mem::replace(&mut self.scenarios.forces, forces);
        let after = self.scenarios.forces.clone();
        let slots: BTreeSet<&Slot> = before.slots.keys().chain(after.slots.keys()).collect();
        for own in slots {
            let (was, is) = (force_of(&before, own), force_of(&after, own));
            if was == is {
                continue;
            }
            match (was.down, is.down) {
                (false, true) => self.supervisor.halt(now, &own.0, own.1),
                (true, false) => {
                    self.exorcise(own);
                    self.supervisor.let_go(now, &own.0, own.1);
                }
                _ => {}
            }
            let keys: Vec<Key> =
                self.live.iter().filter(|(_, it)| is_at(it, own)).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.bring_under(key, was, is));
            let given_up = self.supervisor.instances().any(|(name, it)| {
                name == own.0 && it.index == own.1 && matches!(it.phase, Phase::Failed { .. })
            });
            // Frozen for so long that its supervisor gave it up: that was the scenario's doing.
            if is == Force::default() && given_up {
                self.supervisor.on(now, Event::Start(own.0.clone()));
            }
        }
        self.dirty = true;
        self.change_load(&before, &after);
        for (own, _) in before
            .versions
            .iter()
            .chain(&after.versions)
            .filter(|(own, _)| before.versions.get(*own) != after.versions.get(*own))
        {
            self.supervisor.replace_one(now, &own.0, own.1);
        }
        let scaled: BTreeSet<&String> = before.scale.keys().chain(after.scale.keys()).collect();
        for name in scaled {
            let wanted = match after.scale.get(name) {
                Some(count) => {
                    let standing = self.supervisor.instances_wanted(name).unwrap_or(0);
                    self.scenarios.scale_before.entry(name.clone()).or_insert(standing);
                    *count
                }
                None => match self.scenarios.scale_before.remove(name) {
                    Some(count) => count,
                    None => continue,
                },
            };
            self.supervisor.scale(now, name, wanted);
        }
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
    }

    fn change_load(&mut self, before: &Forces, after: &Forces) {
        let names: BTreeSet<&String> = before.load.keys().chain(after.load.keys()).collect();
        for name in names {
            let Some(now) = self.traffic.factor(name) else { continue };
            match after.load.get(name) {
                Some(times) => {
                    let base = *self.scenarios.load_before.entry(name.clone()).or_insert(now);
                    self.set_traffic_factor(name, base * times);
                }
                None => {
                    if let Some(base) = self.scenarios.load_before.remove(name) {
                        self.set_traffic_factor(name, base);
                    }
                }
            }
        }
    }

    fn bring_under(&mut self, key: Key, was: Force, is: Force) {
        let Some(live) = self.live.get(&key) else { return };
        match &live.body {
            Body::Synthetic => self.host.trouble(
                key,
                Trouble {
                    paused: is.frozen,
                    slow_by: is.slow_by,
                    slow_times: is.slow_times,
                    errors: is.errors,
                },
            ),
            Body::Process { signals, .. } => {
                if was.frozen != is.frozen {
                    // A full queue means that it is being signalled to death.
                    let _ = signals.try_send(if is.frozen { Signal::STOP } else { Signal::CONT });
                }
                self.dirty = true;
            }
        }
    }

    /// An instance started while something is in force at its place.
    pub(super) fn on_new_life(&mut self, key: Key) {
        let Some(live) = self.live.get(&key) else { return };
        let is = force_of(&self.scenarios.forces, &(live.service.clone(), live.index));
        if is != Force::default() {
            self.bring_under(key, Force::default(), is);
        }
    }

    /// The version an instance runs for as long as a scenario says so.
    pub(super) fn version_forced(&self, service: &str, index: u32) -> Option<&String> {
        if self.scenarios.forces.versions.is_empty() {
            return None;
        }
        self.scenarios.forces.versions.get(&(service.to_owned(), index))
    }

    /// An instance ended. If it was struck down, its callers still ask where it was; true: its port stays taken.
    pub(super) fn becomes_ghost(&mut self, live: &Live) -> bool {
        let own = (live.service.clone(), live.index);
        let is_down = self.scenarios.forces.slots.get(&own).is_some_and(|it| it.down);
        let (Some(address), true) = (live.address, is_down) else { return false };
        let Some(service) = self.find(&live.service).map(|id| &self.system.services[id]) else {
            return false;
        };
        let health = &service.health;
        let until = match health.check {
            Check::None | Check::Log { .. } => Nanos::MAX,
            // Some checks in a row, the first after half a pause on average.
            _ => self.now() + health.every * u64::from(health.unhealthy_after.max(1) - 1) + health.every / 2,
        };
        let instance = Instance {
            service: live.service.clone(),
            address,
            version: live.seat.version.clone(),
            region: live.seat.region.clone(),
            zone: live.seat.zone.clone(),
            weight: 1,
        };
        self.scenarios.ghosts.push(Ghost { slot: own, instance, until });
        true
    }

    fn exorcise(&mut self, own: &Slot) {
        let (gone, kept) =
            std::mem::take(&mut self.scenarios.ghosts).into_iter().partition(|it| it.slot == *own);
        self.scenarios.ghosts = kept;
        let gone: Vec<Ghost> = gone;
        gone.iter().for_each(|it| self.ports.release(it.instance.address.port()));
    }

    pub(super) fn ghosts(&self) -> impl Iterator<Item = Instance> + '_ {
        self.scenarios.ghosts.iter().map(|it| it.instance.clone())
    }

    pub(super) fn forced_links(&self) -> &[compile::Link] {
        &self.scenarios.forces.links
    }

    /// What is in the way to processes: their own work cannot be slowed, and their own answers not spoilt.
    pub(super) fn forced_troubles(&self) -> BTreeMap<SocketAddr, compile::Trouble> {
        let slots = &self.scenarios.forces.slots;
        if slots.is_empty() {
            return BTreeMap::new();
        }
        let processes = self.live.values().filter(|it| matches!(it.body, Body::Process { .. }));
        let troubles = processes.filter_map(|live| {
            let force = slots.get(&(live.service.clone(), live.index))?;
            let trouble = compile::Trouble { delay: force.slow_by, errors: force.errors };
            (trouble != compile::Trouble::default()).then_some((live.address?, trouble))
        });
        troubles.collect()
    }

    fn flush(&mut self, slots: &[Slot]) {
        for (key, _) in self.live.iter().filter(|(_, live)| slots.iter().any(|it| is_at(live, it))) {
            self.host.flush(*key);
        }
    }

    pub(super) fn scenario_status(&self) -> Option<ScenarioStatus> {
        let now = self.now();
        let first = self.scenarios.playing.first()?;
        let in_force = self.scenarios.playing.iter().flat_map(|it| it.in_force_words());
        let mut troubled: BTreeSet<String> =
            self.scenarios.forces.troubled().into_iter().map(str::to_owned).collect();
        // Who stands at a bad link is troubled by it, whichever side it is.
        for (name, place) in &self.scenarios.places {
            let (region, zone) = place.split_once('/').unwrap_or((place, ""));
            if self.scenarios.forces.links.iter().any(|it| it.to.holds(region, zone)) {
                troubled.insert(split_slot(name).0.to_owned());
            }
        }
        Some(ScenarioStatus {
            name: first.name.clone(),
            at_ms: millis(now.saturating_sub(first.play.zero())),
            lasts_ms: millis(first.play.script().lasts),
            in_force: in_force.collect(),
            troubled: troubled.into_iter().collect(),
        })
    }
}

impl Playing {
    fn tell(&mut self, now: Nanos, text: String) {
        if self.told.len() < TOLD_MAX {
            self.told.push((now, text));
        }
    }

    fn in_force_words(&self) -> impl Iterator<Item = String> + '_ {
        let standing = self.play.in_force().iter().filter(|it| self.deeds.contains_key(*it));
        standing.map(|act| self.acts[*act].1.clone())
    }

    /// Milliseconds of its own time; before it, negative.
    fn own_ms(&self, now: Nanos) -> i64 {
        let (zero, now) = (millis(self.play.zero()) as i64, millis(now) as i64);
        now - zero
    }

    fn progress(&self, now: Nanos) -> Value {
        let script = self.play.script();
        let expectations: Vec<Value> = script
            .expected
            .iter()
            .zip(self.seen.iter().chain(std::iter::repeat(&Seen::default())))
            .map(|(it, seen)| {
                json!({"text": it.text, "lately": seen.lately, "whole": seen.whole, "holds": seen.whole.map(|value| it.holds(value))})
            })
            .collect();
        let end = self.play.end().map(|end| match end {
            End::Over => json!({"how": "over"}),
            End::Stopped(who) => json!({"how": "stopped", "why": who}),
            End::LeaseExpired => json!({"how": "lease-expired"}),
            End::Breached(what) => json!({"how": "guard", "why": what}),
        });
        json!({
            "id": self.id, "name": self.name, "at_ms": self.own_ms(now), "lasts_ms": millis(script.lasts),
            "in_force": self.in_force_words().collect::<Vec<_>>(), "expectations": expectations, "end": end,
            "told": self.told.iter().map(|(at, text)| json!({"at_ms": self.own_ms(*at), "text": text})).collect::<Vec<_>>(),
        })
    }

    fn report(&self, now: Nanos, options: &super::Options) -> Value {
        let Some(recording) = &self.recording else { return Value::Null };
        let measured = now.min(self.play.ends_at()).saturating_sub(self.play.zero());
        let facts = Facts {
            system: &self.system,
            scenario: (!self.steady).then_some(self.name.as_str()),
            expect: &self.expect,
            seed: options.seed,
            distances: options.places,
            partial: self.play.end() != Some(&End::Over),
            warm_up: self.play.script().warm_up,
            measured,
            groups: self.groups,
            recording,
            traffic: &self.traffic,
            looked: &self.looked,
        };
        let mut report = facts.to_json();
        let progress = self.progress(now);
        report["end"] = progress["end"].clone();
        report["timeline"] = progress["told"].clone();
        report
    }
}

fn force_of(forces: &Forces, own: &Slot) -> Force {
    forces.slots.get(own).copied().unwrap_or_default()
}

fn is_at(live: &Live, own: &Slot) -> bool {
    live.service == own.0 && live.index == own.1
}

/// The instances a deed is on, where its words leave that open.
fn whom(deed: &Deed) -> String {
    let slots = match deed {
        Deed::Down(slots) | Deed::Frozen(slots) | Deed::SlowBy(slots, _) | Deed::SlowTimes(slots, _) => slots,
        Deed::Errors(slots, _) | Deed::Flush(slots) | Deed::Version(slots, _) => slots,
        Deed::Links(_) | Deed::LoadTimes(..) | Deed::LoadTo(..) | Deed::Scale(..) => return String::new(),
    };
    const NAMED_MAX: usize = 6;
    let names: Vec<String> =
        slots.iter().take(NAMED_MAX).map(|(service, index)| slot(service, *index)).collect();
    let more = slots.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

fn expected(it: &Expectation) -> Expected {
    Expected {
        text: it.text.clone(),
        at_least: it.at_least,
        limit: record::limit(it.limit),
        is_availability: it.measure == Measure::Availability,
    }
}

fn millis(it: Nanos) -> u64 {
    it.as_u64() / 1_000_000
}
