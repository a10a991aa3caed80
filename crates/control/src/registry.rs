//! Who is there: instances check in and are remembered for as long as they keep doing so.
//!
//! In memory, eventually consistent, rebuilt from check-ins after a restart: nothing here is worth a disk, because
//! every instance says it again within one time to live. Time is an argument.
//!
//! Discovery alone never sends traffic away: what it says is crossed with what active checks say, by the truth table of
//! [`policy::health`]. An instance that stopped checking in but answers its checks is kept, because then it is
//! discovery that is broken.

use policy::Health;
use policy::health::{Check, decide};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use units::Nanos;

/// A service and the instance's id within it: `web`, `0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    pub service: String,
    pub id: String,
}

/// What an instance says about itself when it checks in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckIn {
    pub address: SocketAddr,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub team: String,
    /// Its share among its like; 0 takes no traffic.
    #[serde(default = "one")]
    pub weight: u32,
    /// It asks to be left alone: finish what there is, send nothing new.
    #[serde(default)]
    pub draining: bool,
}

const fn one() -> u32 {
    1
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    said: CheckIn,
    /// Who said so, if it was not the instance itself.
    who: Option<Box<str>>,
    expires: Nanos,
    check: Check,
    /// As it was decided last, to find changes.
    health: Health,
}

/// A registered instance as the rest of control sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    pub id: InstanceId,
    pub said: CheckIn,
    /// Who said so, if it was not the instance itself.
    pub who: Option<String>,
    pub health: Health,
    pub in_discovery: bool,
}

/// An instance that is here no more, and how that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    pub id: InstanceId,
    pub how: Left,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It said goodbye, or somebody did in its name.
    Asked { who: Option<String> },
    /// Its lease ended, and nobody asks it how it is.
    Forgotten,
    /// Its lease ended, and it does not pass its check.
    Failing,
}

/// Departures kept for whoever tells them; of more only the number is.
const DEPARTURES_MAX: usize = 1_000;

/// A fleet ten times the largest we are asked for; more is a mistake or an attack, and refused.
pub const INSTANCES_MAX: usize = 100_000;

/// Room for a host, a port and a process; a hundred thousand of longer ones would be memory without a limit.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the registry is full ({INSTANCES_MAX} instances)")]
    Full,
    #[error("a lease of zero would end before it begins")]
    NoLease,
    #[error("nobody can be asked at port 0; say the port it listens on")]
    NoPort,
    #[error("the instance's `{0}` is no name: letters, digits and `-_.:@[]`, at most {NAME_BYTES_MAX}")]
    NoName(&'static str),
    #[error("its `{0}` is longer than {NAME_BYTES_MAX} bytes, or has control characters in it")]
    NoWord(&'static str),
}

/// Whether it can be kept and named. Names become parts of others' names: of edges, logs and addresses of the API.
fn is_fit(id: &InstanceId, said: &CheckIn) -> Result<(), Refused> {
    let is_name = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:@[]".contains(c);
        (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(fits)
    };
    let is_word = |text: &str| text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control);
    for (what, name) in [("service", &id.service), ("id", &id.id)] {
        if !is_name(name) {
            return Err(Refused::NoName(what));
        }
    }
    let words =
        [("version", &said.version), ("region", &said.region), ("zone", &said.zone), ("team", &said.team)];
    for (what, word) in words {
        if !is_word(word) {
            return Err(Refused::NoWord(what));
        }
    }
    if said.address.port() == 0 { Err(Refused::NoPort) } else { Ok(()) }
}

#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<InstanceId, Entry>,
    /// Services whose instances are actively checked: one that comes in is not known to be well.
    checked: BTreeSet<String>,
    /// By the end of their lease, so that expiry costs what expires and not what there is.
    by_expiry: BTreeSet<(Nanos, InstanceId)>,
    /// Grows when the set of usable instances changes: the compiler runs again then.
    revision: u64,
    departures: Vec<Departure>,
    departures_untold: u64,
    pub check_ins: u64,
    pub expired: u64,
    pub refused: u64,
}

impl Registry {
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// An instance says that it is there, for `lease` from now.
    pub fn check_in(
        &mut self,
        now: Nanos,
        id: InstanceId,
        said: CheckIn,
        lease: Nanos,
        who: Option<&str>,
    ) -> Result<(), Refused> {
        if lease.is_zero() {
            return Err(Refused::NoLease);
        }
        is_fit(&id, &said)?;
        self.check_ins += 1;
        let expires = now.saturating_add(lease);
        if let Some(entry) = self.entries.get_mut(&id) {
            self.by_expiry.remove(&(entry.expires, id.clone()));
            self.by_expiry.insert((expires, id));
            entry.expires = expires;
            if entry.said != said {
                entry.said = said;
                entry.who = who.map(Box::from);
                self.revision += 1;
            }
            let health = Self::health_of(entry, now);
            if health != entry.health {
                entry.health = health;
                self.revision += 1;
            }
            return Ok(());
        }
        if self.entries.len() >= INSTANCES_MAX {
            self.refused += 1;
            return Err(Refused::Full);
        }
        let check = if self.checked.contains(&id.service) { Check::Pending } else { Check::NotConfigured };
        let mut entry = Entry { said, who: who.map(Box::from), expires, check, health: Health::Gone };
        entry.health = Self::health_of(&entry, now);
        self.by_expiry.insert((expires, id.clone()));
        self.entries.insert(id, entry);
        self.revision += 1;
        Ok(())
    }

    /// An instance says goodbye. Nothing is asked of its checks: it knows best.
    pub fn check_out(&mut self, id: &InstanceId, who: Option<&str>) -> bool {
        let Some(entry) = self.entries.remove(id) else { return false };
        self.by_expiry.remove(&(entry.expires, id.clone()));
        self.departed(id, Left::Asked { who: who.map(str::to_owned) });
        self.revision += 1;
        true
    }

    fn departed(&mut self, id: &InstanceId, how: Left) {
        if self.departures.len() < DEPARTURES_MAX {
            self.departures.push(Departure { id: id.clone(), how });
        } else {
            self.departures_untold += 1;
        }
    }

    /// Who left since this was asked last, and how many more there was no room for.
    pub fn take_departures(&mut self) -> (Vec<Departure>, u64) {
        (std::mem::take(&mut self.departures), std::mem::take(&mut self.departures_untold))
    }

    /// Whose instances are checked from now on.
    pub fn set_checked(&mut self, now: Nanos, services: BTreeSet<String>) {
        self.checked = services;
        let ids: Vec<InstanceId> = self.entries.keys().cloned().collect();
        for id in ids {
            let checked = self.checked.contains(&id.service);
            let Some(entry) = self.entries.get(&id) else { continue };
            match (checked, entry.check) {
                (true, Check::NotConfigured) => self.set_check(now, &id, Check::Pending),
                (false, Check::Pending | Check::Passing | Check::Failing) => {
                    self.set_check(now, &id, Check::NotConfigured);
                }
                // Its last answer stands until the next one: nobody who works shall go because a file was saved.
                _ => {}
            }
        }
        // Whoever asks them begins anew, so everybody is looked at again.
        self.revision += 1;
    }

    /// What the active check of an instance says now.
    pub fn set_check(&mut self, now: Nanos, id: &InstanceId, check: Check) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.check = check;
        self.settle(now, id);
    }

    /// Lets leases end. Returns when the next one will.
    pub fn expire(&mut self, now: Nanos) -> Option<Nanos> {
        while let Some((expires, id)) = self.by_expiry.first().cloned() {
            if expires > now {
                return Some(expires);
            }
            self.by_expiry.remove(&(expires, id.clone()));
            self.expired += 1;
            self.settle(now, &id);
        }
        None
    }

    fn settle(&mut self, now: Nanos, id: &InstanceId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let health = Self::health_of(entry, now);
        if health == Health::Gone {
            let expires = entry.expires;
            let how = if entry.check == Check::NotConfigured { Left::Forgotten } else { Left::Failing };
            self.entries.remove(id);
            self.departed(id, how);
            self.by_expiry.remove(&(expires, id.clone()));
            self.revision += 1;
        } else if health != entry.health {
            entry.health = health;
            self.revision += 1;
        }
    }

    fn health_of(entry: &Entry, now: Nanos) -> Health {
        match decide(now < entry.expires, entry.check) {
            Health::Healthy if entry.said.draining => Health::Draining,
            decided => decided,
        }
    }

    /// Everyone, in the order of names.
    pub fn instances(&self, now: Nanos) -> impl Iterator<Item = Registered> + '_ {
        self.entries.iter().map(move |(id, entry)| Registered {
            id: id.clone(),
            said: entry.said.clone(),
            who: entry.who.as_deref().map(str::to_owned),
            health: entry.health,
            in_discovery: now < entry.expires,
        })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(name: &str) -> InstanceId {
        InstanceId { service: "web".to_owned(), id: name.to_owned() }
    }

    fn said(port: u16) -> CheckIn {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        CheckIn {
            address,
            version: String::new(),
            region: String::new(),
            zone: String::new(),
            team: String::new(),
            weight: 1,
            draining: false,
        }
    }

    /// Plays `0s in a; 5s pass a; 30s tick` with leases of ten seconds; the standing of `a` after each step.
    #[track_caller]
    fn check(script: &str, expected: &str) {
        let mut registry = Registry::default();
        let mut standings = Vec::new();
        for step in script.split("; ") {
            let words: Vec<&str> = step.split(' ').collect();
            let now: Nanos = words[0].parse().expect("a time");
            registry.expire(now);
            match words[1] {
                "in" => registry
                    .check_in(now, id("a"), said(1), Nanos::from_secs(10), None)
                    .expect("there is room"),
                "drain" => {
                    let draining = CheckIn { draining: true, ..said(1) };
                    registry
                        .check_in(now, id("a"), draining, Nanos::from_secs(10), None)
                        .expect("there is room");
                }
                "out" => drop(registry.check_out(&id("a"), None)),
                "pass" => registry.set_check(now, &id("a"), Check::Passing),
                "fail" => registry.set_check(now, &id("a"), Check::Failing),
                "tick" => {}
                other => panic!("no verb {other}"),
            }
            standings.push(registry.instances(now).next().map_or("gone", |it| match it.health {
                Health::Healthy => "ok",
                Health::Unhealthy => "bad",
                Health::Draining => "draining",
                Health::Gone => "kept although gone",
            }));
        }
        assert_eq!(standings.join(" "), expected);
    }

    #[test]
    fn a_lease_ends_unless_it_is_renewed() {
        check("0s in; 9s in; 18s tick; 19s tick", "ok ok ok gone");
        check("0s in; 1s out; 2s in", "ok gone ok");
    }

    #[test]
    fn active_checks_are_crossed_with_discovery() {
        check("0s in; 1s pass; 10s tick; 11s fail", "ok ok ok gone");
        check("0s in; 1s fail; 2s pass; 3s fail; 10s tick", "ok bad ok bad gone");
        check("0s in; 1s pass; 20s tick; 21s in; 22s fail", "ok ok ok ok bad");
        check("0s in; 1s drain; 2s in", "ok draining ok");
    }

    #[test]
    fn an_instance_that_is_to_be_checked_gets_nothing_before_it_answered() {
        let mut registry = Registry::default();
        let lease = Nanos::from_secs(10);
        let health = |registry: &Registry| registry.instances(Nanos(1)).next().map(|it| it.health);
        registry.check_in(Nanos(0), id("a"), said(1), lease, None).expect("there is room");
        assert_eq!(health(&registry), Some(Health::Healthy), "nobody checks it");
        registry.set_checked(Nanos(0), BTreeSet::from(["web".to_owned()]));
        assert_eq!(health(&registry), Some(Health::Unhealthy), "not known to be well");
        registry.check_in(Nanos(0), id("a"), said(1), lease, None).expect("there is room");
        assert_eq!(health(&registry), Some(Health::Unhealthy), "saying so is not enough");
        registry.set_check(Nanos(0), &id("a"), Check::Passing);
        registry.set_checked(Nanos(0), BTreeSet::from(["web".to_owned(), "cart".to_owned()]));
        assert_eq!(health(&registry), Some(Health::Healthy), "a saved file sends nobody away");
        registry.set_checked(Nanos(0), BTreeSet::new());
        assert_eq!(health(&registry), Some(Health::Healthy));
    }

    /// All forget us at once (control was away for longer than any lease): whoever answers its checks stays, and is
    /// simply there again when it checks in.
    #[test]
    fn a_loss_of_control_loses_nobody_who_answers() {
        let mut registry = Registry::default();
        registry.set_checked(Nanos(0), BTreeSet::from(["web".to_owned()]));
        for n in 0..50 {
            let id = id(&n.to_string());
            registry
                .check_in(Nanos(0), id.clone(), said(n + 1), Nanos::from_secs(5), None)
                .expect("there is room");
            registry.set_check(Nanos(0), &id, Check::Passing);
        }
        let revision = registry.revision();
        let later = Nanos::from_secs(600);
        registry.expire(later);
        assert_eq!(registry.revision(), revision, "the snapshot need not even be compiled again");
        assert!(registry.instances(later).all(|it| it.health == Health::Healthy && !it.in_discovery));
        registry.set_check(later, &id("7"), Check::Failing);
        assert_eq!(registry.len(), 49, "forgotten and silent is gone");
        for n in 0..50 {
            registry
                .check_in(later, id(&n.to_string()), said(n + 1), Nanos::from_secs(5), None)
                .expect("there is room");
        }
        assert_eq!(registry.instances(later).filter(|it| it.in_discovery).count(), 50);
    }

    #[test]
    fn whoever_comes_and_goes_is_told_with_who_and_how() {
        let mut registry = Registry::default();
        registry.set_checked(Nanos(0), BTreeSet::from(["web".to_owned()]));
        let lease = Nanos::from_secs(10);
        for (name, who) in [("a", Some("ann")), ("b", None), ("c", None)] {
            registry.check_in(Nanos(0), id(name), said(1), lease, who).expect("there is room");
        }
        let who: Vec<_> = registry.instances(Nanos(1)).map(|it| it.who).collect();
        assert_eq!(who, [Some("ann".to_owned()), None, None]);
        // The same said by somebody else is no change of hands; something new is.
        registry.check_in(Nanos(1), id("a"), said(1), lease, Some("bob")).expect("there is room");
        assert_eq!(registry.instances(Nanos(1)).next().and_then(|it| it.who).as_deref(), Some("ann"));
        assert!(registry.check_out(&id("a"), Some("bob")));
        registry.set_checked(Nanos(2), BTreeSet::new());
        registry.set_checked(Nanos(2), BTreeSet::from(["web".to_owned()]));
        registry.set_check(Nanos(2), &id("b"), Check::Failing);
        registry.expire(Nanos::from_secs(20));
        let left = |name: &str, how| Departure { id: id(name), how };
        let asked = Left::Asked { who: Some("bob".to_owned()) };
        let (told, untold) = registry.take_departures();
        assert_eq!(
            (told, untold),
            (vec![left("a", asked), left("b", Left::Failing), left("c", Left::Failing)], 0)
        );
        registry.set_checked(Nanos(0), BTreeSet::new());
        registry.check_in(Nanos(0), id("d"), said(1), lease, None).expect("there is room");
        registry.expire(Nanos::from_secs(20));
        assert_eq!(registry.take_departures().0, [left("d", Left::Forgotten)]);
        assert_eq!(registry.take_departures(), (Vec::new(), 0), "told once");
    }

    #[test]
    fn what_cannot_be_named_or_reached_is_refused() {
        #[track_caller]
        fn check(service: &str, name: &str, said: CheckIn, expected: Result<(), Refused>) {
            let id = InstanceId { service: service.to_owned(), id: name.to_owned() };
            let got = Registry::default().check_in(Nanos(0), id, said, Nanos(1), None);
            assert_eq!(got, expected, "{service}/{name}");
        }
        let long = "x".repeat(129);
        check("web", "10.0.0.5:8080", said(1), Ok(()));
        check("web", "[::1]:8080@pod_1", said(1), Ok(()));
        for name in ["", "a/b", "a->b", "a b", "ü", "a\n", long.as_str()] {
            check("web", name, said(1), Err(Refused::NoName("id")));
        }
        check("w/b", "a", said(1), Err(Refused::NoName("service")));
        check("web", "a", CheckIn { version: long, ..said(1) }, Err(Refused::NoWord("version")));
        check("web", "a", CheckIn { team: "a\u{1b}".to_owned(), ..said(1) }, Err(Refused::NoWord("team")));
        check("web", "a", CheckIn { team: "die Läden".to_owned(), ..said(1) }, Ok(()));
        check("web", "a", CheckIn { address: ([127, 0, 0, 1], 0).into(), ..said(1) }, Err(Refused::NoPort));
    }

    #[test]
    fn unchanged_check_ins_change_nothing() {
        let mut registry = Registry::default();
        let lease = Nanos::from_secs(10);
        registry.check_in(Nanos(0), id("a"), said(1), lease, None).expect("there is room");
        let revision = registry.revision();
        (1..100)
            .for_each(|n| registry.check_in(Nanos(n), id("a"), said(1), lease, None).expect("there is room"));
        assert_eq!(registry.revision(), revision);
        registry.check_in(Nanos(100), id("a"), said(2), lease, None).expect("there is room");
        assert_eq!(registry.revision(), revision + 1);
        assert_eq!(registry.check_in(Nanos(1), id("b"), said(1), Nanos::ZERO, None), Err(Refused::NoLease));
    }

    proptest! {
        /// Whoever checks in within every lease stays; whoever never does again is gone one lease later.
        #[test]
        fn leases_hold_and_end(beats in proptest::collection::vec((0u64..20, 0u8..5), 1..200)) {
            let mut registry = Registry::default();
            let mut last = [None::<u64>; 5];
            let mut now = 0;
            for (step, who) in beats {
                now += step;
                registry.expire(Nanos::from_secs(now));
                registry.check_in(Nanos::from_secs(now), id(&who.to_string()), said(1), Nanos::from_secs(30), None).expect("room");
                last[who as usize] = Some(now);
                for (n, at) in last.iter().enumerate() {
                    let there = registry.entries.contains_key(&id(&n.to_string()));
                    prop_assert_eq!(there, at.is_some_and(|at| now < at + 30));
                }
                prop_assert_eq!(registry.by_expiry.len(), registry.entries.len());
            }
        }
    }
}
