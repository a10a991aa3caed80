//! Who reaches whom, and by which address: gateways for the world, a door for each caller and callee, and the snapshot
//! that tells the proxy about all of them.
//!
//! A refused snapshot changes nothing: the proxy goes on with its last one, and the person is told why.

use super::{RunError, Runner, Say, slot};
use crate::environment::os_words;
use crate::plan::{self, Seat};
use crate::ports;
use control::api::lock;
use control::compile::{Area, Door, Instance, Link, Topology};
use control::registry::Registered;
use control::status::Address;
use model::network::{Spot, line};
use model::system::System;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use units::{Nanos, Percent};

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
                ports::hold(wanted).map_err(|error| format!("not at {wanted}: {}", os_words(&error)))
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
        // What was left out has a door all the same: nobody answers behind it until somebody registers in its place.
        self.system
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
        instances.extend(self.ghosts());
        let now = self.now();
        let named: BTreeSet<&str> = self.system.services.iter().map(|it| it.name.value.as_str()).collect();
        let usable = |it: &Registered| {
            it.health == policy::Health::Healthy
                && it.said.weight > 0
                && named.contains(it.id.service.as_str())
        };
        let registered = |it: Registered| Instance {
            service: it.id.service,
            address: it.said.address,
            version: it.said.version,
            region: it.said.region,
            zone: it.said.zone,
            weight: it.said.weight,
        };
        instances.extend(lock(&self.registry).instances(now).filter(usable).map(registered));
        Topology {
            instances,
            doors: self.doors.values().map(|(door, _)| door.clone()).collect(),
            marker: self.marker.as_ref().map(|it| it.address),
            gateways: self.gateways.iter().map(|(name, it)| (name.clone(), it.held.address)).collect(),
            links: {
                let distances = if self.options.places { distances(&self.system) } else { Vec::new() };
                distances.into_iter().chain(self.forced_links().iter().cloned()).collect()
            },
            troubles: self.forced_troubles(),
            gateways_trust: false,
            folder: self.folder_of_file(),
        }
    }

    /// Compiles and hands over a snapshot. What the proxy refuses changes nothing.
    pub(super) fn apply(&mut self) -> Result<(), String> {
        self.dirty = false;
        let config = self.compiler.compile(&self.system, &self.topology());
        let started = self.plane.apply(config, &self.watched.registry)?;
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

/// The loopback itself is as long as a way within a zone, and a millisecond is the finest that a proxy's timer adds.
const DISTANCE_MIN: Nanos = Nanos::from_micros(500);

/// What lies between the places of the file, as its forecast charges it.
fn distances(system: &System) -> Vec<Link> {
    // Of each region its zones and, for what stands in it as a whole, no zone.
    let places: Vec<(&str, &str)> = system
        .regions
        .iter()
        .flat_map(|region| {
            let zones = region.zones.iter().map(|it| it.value.as_str()).chain([""]);
            zones.map(|zone| (region.name.value.as_str(), zone))
        })
        .collect();
    let area = |(region, zone): (&str, &str)| Area { region: region.to_owned(), zone: Some(zone.to_owned()) };
    let spot = |(region, zone)| Spot::named(system, region, zone);
    let mut links = Vec::new();
    for from in &places {
        for to in &places {
            let line = line(system, spot(*from), spot(*to));
            if line.rtt >= DISTANCE_MIN || line.loss > Percent::ZERO {
                links.push(Link {
                    from: area(*from),
                    to: area(*to),
                    delay: line.rtt,
                    jitter: line.jitter,
                    loss: line.loss,
                    cut: false,
                });
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_far_apart_as_the_file_says() {
        let text = "isobar: 1\nplaces: {eu: {zones: [a, b]}, us: {}}\nnetwork: {eu <-> us: {rtt: 80ms}}\nservices: {web: {}}\n";
        let system = model::load::load_str(text).into_system().expect("a good file");
        let between = |from: (&str, &str), to: (&str, &str)| {
            let links = distances(&system);
            let fits = |it: &&Link| it.from.holds(from.0, from.1) && it.to.holds(to.0, to.1);
            let found: Vec<Nanos> = links.iter().filter(fits).map(|it| it.delay).collect();
            assert!(found.len() < 2, "one way, not two: {found:?}");
            found.first().map(ToString::to_string)
        };
        assert_eq!(between(("eu", "a"), ("eu", "a")), None, "the loopback is as long");
        assert_eq!(between(("eu", "a"), ("eu", "b")).as_deref(), Some("1ms"));
        assert_eq!(between(("eu", "b"), ("us", "a")).as_deref(), Some("80ms"));
        assert_eq!(between(("us", "a"), ("eu", "")).as_deref(), Some("80ms"));
    }
}
