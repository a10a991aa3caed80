//! Scenarios on the running system: performed as leases, judged while they last, undone whatever ends them.
//!
//! [`begin`] takes an order and checks all of it, [`play`] decides when, [`deed`] what that means here, [`hands`] brings
//! what runs under the forces that the deeds in force come to, and out of them again. [`look`] takes what is seen,
//! [`record`] and [`guards`] count it, [`report`] says it in the forecast's own terms, and [`told`] what is said meanwhile. This module
//! is the loop that they take their turns in. Forces live in this process's memory alone, so when isobar ends, however, nothing of a
//! scenario is left: what it started ends with it, and the next run begins without any.

mod begin;
mod deed;
mod guards;
mod hands;
mod look;
mod play;
mod record;
mod report;
mod told;

use super::{Runner, Say};
use crate::load::Tally;
use crate::plan;
use control::api::Refusal;
use control::compile::Instance;
use crossbeam_channel::Receiver;
use deed::{Deed, Forces, Slot, Standing};
use guards::Guards;
use model::system::{Expectation, Fault, System};
use play::{End, Play, Seen, Step};
use proxy::record::Finished;
use record::{Groups, Recording, Whereabouts};
use report::{Looked, TrafficSeen};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use told::whom;
use units::{Nanos, Rng};

/// Finished requests between two looks. More are dropped by the proxy, and counted there.
const RECORDS_MAX: usize = 65_536;
const LOOK_EVERY: Nanos = Nanos::from_millis(100);
/// Reports of scenarios that ended.
const ENDED_MAX: usize = 8;

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
    /// Who started it.
    who: String,
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
    guards: Guards,
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
                    let who = if let End::Stopped(who) = &end { who } else { "isobar" };
                    self.record(who, "scenario", &it.name, text.clone());
                    (self.say)(Say::Event(format!("scenario {}: {text}", it.name)));
                }
            }
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
}

fn millis(it: Nanos) -> u64 {
    it.as_u64() / 1_000_000
}
