//! A scenario that somebody asks for: found, checked whole, and begun.
//!
//! What cannot be done here is refused before anything begins, all of it at once, so that nobody watches half of a
//! scenario.
use super::deed::{self, Deed};
use super::guards::Guards;
use super::play::{Act, Expected, Play, Script};
use super::record::{self, Groups};
use super::{Playing, RECORDS_MAX, What, millis};
use crate::run::{Runner, Say};
use control::api::{Refusal, ScenarioOrder};
use model::resolve::suggestion;
use model::system::{Expectation, Load, Measure, Scenario, System};
use serde_json::{Value, json};
use sim::set::Setting;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use units::{Nanos, Rng};

/// A lease this short would end by a hiccup, and one this long is none.
const LEASE_MIN: Nanos = Nanos::from_secs(1);
const LEASE_MAX: Nanos = Nanos::from_secs(600);
/// As long as the forecast watches one that does not say how long.
const WATCHED: Nanos = Nanos::from_secs(60);
const LASTS_MAX: Nanos = Nanos::from_secs(24 * 3_600);
/// At once, with nothing in common.
const PLAYING_MAX: usize = 8;
/// What a steady measurement waits for when it had to start the traffic itself.
const SETTLES: Nanos = Nanos::from_secs(5);

impl Runner {
    pub(in crate::run) fn start_scenario(
        &mut self,
        who: &str,
        name: &str,
        order: &ScenarioOrder,
    ) -> Result<Value, Refusal> {
        let system = Rc::clone(&self.system);
        let conflict = |message: String| Refusal { status: 409, message };
        let (name, scenario) = self.scenario_meant(&system, name, order)?;
        if !self.all_told {
            return Err(conflict("not everything is ready yet; `isobar ps` says what is missing".to_owned()));
        }
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
            who: who.to_owned(),
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
            guards: Guards::default(),
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
            let known =
                if known.is_empty() { "the file has none".to_owned() } else { suggestion(name, &known) };
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
}

fn expected(it: &Expectation) -> Expected {
    Expected {
        text: it.text.clone(),
        at_least: it.at_least,
        limit: record::limit(it.limit),
        is_availability: it.measure == Measure::Availability,
    }
}
