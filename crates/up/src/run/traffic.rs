//! The file's traffic, started, stopped and changed while it runs.

use super::{Runner, Say};
use crate::load::{Generator, Pattern, Tally, Traffic};
use crate::plan::Seat;
use crate::synthetic::{RequestLine, Wire, wire};
use control::api::{Refusal, TrafficChange};
use control::status::TrafficStatus;
use model::system::{Caller, Load, System};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use units::{Dist, Nanos};

/// The generator, once it is needed, and what runs.
#[derive(Debug, Default)]
pub(super) struct TrafficDesk {
    generator: Option<Generator>,
    /// By name: what the rate is multiplied with.
    running: BTreeMap<String, f64>,
}

impl TrafficDesk {
    /// What its rate is multiplied with; `None` when it does not flow.
    pub(super) fn factor(&self, name: &str) -> Option<f64> {
        self.running.get(name).copied()
    }

    /// What came of it so far; `None` before it first flowed.
    pub(super) fn tally(&self, name: &str) -> Option<Tally> {
        self.generator.as_ref().map(|it| it.tally(name))
    }
}

/// (slot, callee), and (the service that calls, if it is one; where it stands).
pub(super) type WantedDoor = ((String, String), (Option<String>, Seat));

/// Begins the slots of callers that are no service.
const SLOT: &str = "load:";

impl Runner {
    /// Traffic straight to a service has a door like any caller.
    pub(super) fn traffic_doors(&self) -> Vec<WantedDoor> {
        let doors = self.system.traffic.iter().filter_map(|it| {
            let Caller::Service(callee) = it.to.value else { return None };
            let region =
                it.from.and_then(|id| self.system.regions.get(id)).map_or("", |it| it.name.value.as_str());
            let seat = Seat { region: region.to_owned(), zone: String::new(), version: String::new() };
            let callee = self.system.services[callee].name.value.clone();
            self.is_callable(&callee).then(|| ((format!("{SLOT}{}", it.name.value), callee), (None, seat)))
        });
        doors.collect()
    }

    pub(super) fn start_all_traffic(&mut self) {
        let names: Vec<String> = self.system.traffic.iter().map(|it| it.name.value.clone()).collect();
        for name in names {
            match self.start_traffic(&name) {
                Ok(()) => (self.say)(Say::Event(format!("traffic {name} flows"))),
                Err(refusal) => (self.say)(Say::Problem(refusal.message)),
            }
        }
    }

    pub(super) fn start_traffic(&mut self, name: &str) -> Result<(), Refusal> {
        let system = Rc::clone(&self.system);
        let Some((id, it)) = system.traffic.enumerate().find(|(_, it)| it.name.value == name) else {
            let known: Vec<&str> = system.traffic.iter().map(|it| it.name.value.as_str()).collect();
            return Err(Refusal::not_found(format!(
                "no traffic is called `{name}`; there are: {}",
                known.join(", ")
            )));
        };
        let refused =
            |message: String| Refusal { status: 409, message: format!("traffic {name}: {message}") };
        let asked = it.request.as_ref().map_or("GET /", |at| at.value.as_str());
        let (to, wire, line) = match it.to.value {
            Caller::Gateway(gateway) => {
                let gateway = &system.gateways[gateway];
                if gateway.tls.is_some() {
                    return Err(refused(
                        "a gateway with TLS is not asked by the built-in load yet".to_owned(),
                    ));
                }
                let held = self
                    .gateways
                    .get(&gateway.name.value)
                    .ok_or_else(|| refused("its gateway is closed".into()))?;
                (held.held.address, Wire::Http1, RequestLine::of(asked, false))
            }
            Caller::Service(id) => {
                let service = &system.services[id];
                let key = (format!("{SLOT}{name}"), service.name.value.clone());
                let (door, _) =
                    self.doors.get(&key).ok_or_else(|| refused("its service is left out".into()))?;
                let named = service.operations.iter().find(|it| it.name.value == asked);
                // Without a word on what to ask: the first thing it can do.
                let operation =
                    named.or_else(|| service.operations.iter().next().filter(|_| it.request.is_none()));
                let line = operation.map_or_else(
                    || RequestLine::of(asked, false),
                    |it| RequestLine::of(&it.name.value, it.writes),
                );
                (door.address, wire(service), line)
            }
        };
        let folder = self.folder_of_file();
        let load = Pattern::of(&it.load, |file| {
            let text =
                std::fs::read_to_string(folder.join(file)).map_err(|error| format!("`{file}`: {error}"))?;
            Dist::parse_values(&text).map_err(|(line, error)| format!("`{file}` line {line}: {error}"))
        });
        let traffic = Traffic {
            name: name.to_owned(),
            to,
            host: "localhost".to_owned(),
            wire,
            line,
            load: load.map_err(refused)?,
            seed: self.options.seed.wrapping_add(id.as_u32().into()),
        };
        if self.traffic.generator.is_none() {
            let generator = Generator::start().map_err(|error| refused(error.to_string()))?;
            self.traffic.generator = Some(generator);
        }
        if let Some(generator) = &self.traffic.generator {
            generator.run(traffic);
        }
        self.traffic.running.insert(name.to_owned(), 1.0);
        Ok(())
    }

    pub(super) fn change_traffic(
        &mut self,
        who: &str,
        name: &str,
        change: &TrafficChange,
    ) -> Result<Value, Refusal> {
        let base = base_rate(&self.system, name);
        if change.running == Some(true)
            || (change.rate_per_second.is_some() && !self.traffic.running.contains_key(name))
        {
            self.start_traffic(name)?;
            self.record(who, "traffic", name, "start".to_owned());
        }
        if let Some(rate) = change.rate_per_second {
            let Some(base) = base.filter(|it| *it > 0.0) else {
                return Err(Refusal::wrong(format!("traffic {name} has no rate that could be changed")));
            };
            self.set_traffic_factor(name, rate / base);
            self.record(who, "traffic", name, format!("{rate}/s"));
        }
        if change.running == Some(false) {
            self.stop_traffic(name);
            self.record(who, "traffic", name, "stop".to_owned());
        }
        Ok(json!({"traffic": self.traffic_status().into_iter().find(|it| it.name == name)}))
    }

    pub(super) fn stop_traffic(&mut self, name: &str) {
        if let Some(generator) = &self.traffic.generator {
            generator.stop(name);
        }
        self.traffic.running.remove(name);
    }

    pub(super) fn set_traffic_factor(&mut self, name: &str, factor: f64) {
        if let (Some(generator), Some(known)) = (&self.traffic.generator, self.traffic.running.get_mut(name))
        {
            *known = factor;
            generator.factor(name, factor);
        }
    }

    pub(super) fn traffic_status(&self) -> Vec<TrafficStatus> {
        let status = |it: &model::system::Traffic| {
            let name = &it.name.value;
            let factor = self.traffic.running.get(name);
            let tally = self.traffic.generator.as_ref().map(|it| it.tally(name)).unwrap_or_default();
            let millis = |q| tally.latency.quantile(q).map(Nanos::as_millis_f64);
            TrafficStatus {
                name: name.clone(),
                to: match it.to.value {
                    Caller::Gateway(id) => self.system.gateways[id].name.value.clone(),
                    Caller::Service(id) => self.system.services[id].name.value.clone(),
                },
                running: factor.is_some(),
                rate_per_second: base_rate(&self.system, name).unwrap_or(0.0)
                    * factor.copied().unwrap_or(1.0),
                sent: tally.sent,
                failed: tally.failed,
                not_sent: tally.not_sent,
                p50_ms: millis(0.5),
                p99_ms: millis(0.99),
            }
        };
        self.system.traffic.iter().map(status).collect()
    }
}

fn base_rate(system: &System, name: &str) -> Option<f64> {
    match &system.traffic.iter().find(|it| it.name.value == name)?.load {
        Load::Open { rate, .. } => Some(rate.value.per_second()),
        Load::Closed { .. } | Load::Recorded { .. } => None,
    }
}
