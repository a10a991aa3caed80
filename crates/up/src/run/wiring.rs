//! Who reaches whom, and by which address: gateways for the world, a door for each caller and callee, and the snapshot
//! that tells the proxy about all of them.
//!
//! A refused snapshot changes nothing: the proxy goes on with its last one, and the person is told why.

use super::{RunError, Runner, Say, plain, slot};
use crate::plan::{self, Seat};
use crate::ports;
use control::api::lock;
use control::compile::{Door, Instance, Topology};
use control::status::Address;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where a gateway listens, and why not where the file says.
#[derive(Debug)]
pub(super) struct Gateway {
    asked: String,
    pub(super) held: ports::Held,
    note: Option<String>,
}

impl Runner {
    pub(super) fn open_gateways(&mut self) -> Result<(), RunError> {
        let system = Rc::clone(&self.system);
        let mut before = std::mem::take(&mut self.gateways);
        for gateway in system.gateways.iter() {
            let (name, asked) = (&gateway.name.value, &gateway.listen.value);
            if let Some(known) = before.remove(name).filter(|it| it.asked == *asked) {
                self.gateways.insert(name.clone(), known);
                continue;
            }
            let wanted = asked.parse().map_err(|_| format!("`{asked}` is no address of this machine"));
            let held = wanted.and_then(|wanted| {
                ports::hold(wanted).map_err(|error| format!("not at {wanted}: {}", plain(&error)))
            });
            let (held, note) = match held {
                Ok(held) => (held, None),
                // Beside a second copy, say: better elsewhere, and said, than not at all.
                Err(note) => (self.ports.hold(&format!("gateway {name}"))?, Some(note)),
            };
            self.gateways.insert(name.clone(), Gateway { asked: asked.clone(), held, note });
        }
        self.addresses.retain(|it| it.kind != "gateway");
        for (at, (name, Gateway { held, note, .. })) in self.gateways.iter().enumerate() {
            let tls = system.gateways.iter().any(|it| it.name.value == *name && it.tls.is_some());
            let scheme = if tls { "https" } else { "http" };
            let gateway = Address {
                kind: "gateway".to_owned(),
                name: name.clone(),
                url: format!("{scheme}://{}", held.address),
                note: note.clone(),
            };
            self.addresses.insert(at, gateway);
        }
        Ok(())
    }

    /// Every slot has a door for each service it calls, before it starts.
    pub(super) fn open_doors(&mut self) -> Result<(), RunError> {
        let system = Rc::clone(&self.system);
        let mut wanted = BTreeMap::new();
        for (id, service) in system.services.enumerate() {
            let Some(count) = self.supervisor.instances_wanted(&service.name.value) else { continue };
            let callees = plan::dependencies(&system, id);
            // One that is on its way out may still be calling.
            let live =
                self.live.values().filter(|it| it.service == service.name.value).map(|it| it.index + 1).max();
            for index in 0..count.max(live.unwrap_or(0)) {
                let seat = plan::seat(&system, service, index);
                for callee in &callees {
                    if self.is_callable(callee) {
                        wanted.insert(
                            (slot(&service.name.value, index), callee.clone()),
                            (Some(service.name.value.clone()), seat.clone()),
                        );
                    }
                }
            }
        }
        for (key, caller) in self.traffic_doors() {
            wanted.insert(key, caller);
        }
        let gone: Vec<_> = self.doors.keys().filter(|it| !wanted.contains_key(*it)).cloned().collect();
        for key in gone {
            if let Some((door, _)) = self.doors.remove(&key) {
                self.ports.release(door.address.port());
                self.dirty = true;
            }
        }
        for ((slot, callee), (caller, seat)) in wanted {
            let Seat { region, zone, .. } = seat;
            let key = (slot.clone(), callee.clone());
            let held = match self.doors.remove(&key) {
                Some((_, held)) => held,
                None => {
                    self.dirty = true;
                    self.ports.hold(&format!("{slot}->{callee}"))?
                }
            };
            let door = Door { caller, slot, region, zone, callee, address: held.address };
            self.doors.insert(key, (door, held));
        }
        Ok(())
    }

    pub(super) fn is_callable(&self, service: &str) -> bool {
        !self.options.without.contains(service)
            && self
                .system
                .services
                .iter()
                .any(|it| it.name.value == service && !it.run.as_ref().is_some_and(|run| run.job))
    }

    pub(super) fn topology(&self) -> Topology {
        let mut instances: Vec<Instance> = self
            .admitted
            .iter()
            .filter_map(|key| self.live.get(key))
            .filter_map(|live| {
                Some(Instance {
                    service: live.service.clone(),
                    address: live.address?,
                    version: live.seat.version.clone(),
                    region: live.seat.region.clone(),
                    zone: live.seat.zone.clone(),
                    weight: 1,
                })
            })
            .collect();
        let now = self.now();
        instances.extend(
            lock(&self.registry).instances(now).filter(|it| it.health == policy::Health::Healthy).map(|it| {
                Instance {
                    service: it.id.service,
                    address: it.said.address,
                    version: it.said.version,
                    region: it.said.region,
                    zone: it.said.zone,
                    weight: it.said.weight,
                }
            }),
        );
        Topology {
            instances,
            doors: self.doors.values().map(|(door, _)| door.clone()).collect(),
            gateways: self.gateways.iter().map(|(name, it)| (name.clone(), it.held.address)).collect(),
            faults: self.faults.clone(),
            links: Vec::new(),
            troubles: BTreeMap::new(),
            gateways_trust: false,
            folder: self.folder_of_file(),
        }
    }

    /// Compiles and hands over a snapshot. What the proxy refuses changes nothing.
    pub(super) fn apply(&mut self) -> Result<(), String> {
        self.dirty = false;
        let config = self.compiler.compile(&self.system, &self.topology());
        let started = self.plane.apply(config)?;
        if let Some(observer) = started {
            self.watched.observe(observer);
        }
        Ok(())
    }

    pub(super) fn apply_and_say(&mut self) {
        if let Err(why) = self.apply() {
            (self.say)(Say::Problem(format!("the proxy keeps its last snapshot: {why}")));
        }
    }
}
