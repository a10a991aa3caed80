//! What is said of scenarios: those that play, those that ended, and those the file has.
use super::deed::{self, Deed};
use super::play::{End, Seen};
use super::report::Facts;
use super::{Playing, millis};
use crate::run::{Options, Runner, slot, split_slot};
use control::api::Refusal;
use control::status::ScenarioStatus;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use units::Nanos;

const TOLD_MAX: usize = 1_000;

impl Runner {
    pub(in crate::run) fn renew_scenario(&mut self, id: &str) -> Result<Value, Refusal> {
        let now = self.now();
        if let Some(playing) = self.scenarios.playing.iter_mut().find(|it| it.id == id) {
            playing.play.renew(now);
        }
        self.scenario_progress(id, false)
    }

    pub(in crate::run) fn scenario_progress(&self, id: &str, whole: bool) -> Result<Value, Refusal> {
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
    pub(in crate::run) fn scenario_list(&self) -> Value {
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

    pub(in crate::run) fn scenario_status(&self) -> Option<ScenarioStatus> {
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
            who: first.who.clone(),
            at_ms: millis(now.saturating_sub(first.play.zero())),
            lasts_ms: millis(first.play.script().lasts),
            in_force: in_force.collect(),
            troubled: troubled.into_iter().collect(),
        })
    }
}

impl Playing {
    pub(super) fn tell(&mut self, now: Nanos, text: String) {
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

    pub(super) fn progress(&self, now: Nanos) -> Value {
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

    pub(super) fn report(&self, now: Nanos, options: &Options) -> Value {
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
            guards: &self.guards,
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

/// The instances a deed is on, where its words leave that open.
pub(super) fn whom(deed: &Deed) -> String {
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
