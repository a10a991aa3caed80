//! From the model to what the supervisor wants: which services run here, how many instances of which version stand
//! where, what each must wait for, and what of its definition must not change without a new start.

use crate::supervisor::{Need, Until, Wanted};
use crate::synthetic::Behaviour;
use model::system::{self, Check, Placement, Run, ServiceId, Step, System};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use units::Nanos;

/// Requests on their way when an instance leaves the balancers get this long to arrive at it. Snapshots reach every
/// worker within milliseconds; the rest is for a connection that was just opened.
const DRAIN: Nanos = Nanos::from_millis(200);

/// Where an instance stands and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub region: String,
    /// Empty for what stands in a region as a whole, or in the world.
    pub zone: String,
    pub version: String,
}

impl Seat {
    pub fn place(&self) -> String {
        if self.zone.is_empty() { self.region.clone() } else { format!("{}/{}", self.region, self.zone) }
    }
}

/// Does isobar start this service? What runs elsewhere is only called. Somebody else's is never started either, but
/// without an address to call a stand-in is played, so that its callers can be tried.
pub fn runs_here(service: &system::Service) -> bool {
    service.endpoints.is_empty()
}

/// What the supervisor is to want, given what was left out by name.
pub fn wanted(system: &System, without: &BTreeSet<String>) -> Vec<Wanted> {
    let here = |service: &system::Service| runs_here(service) && !without.contains(&service.name.value);
    let mut needs: BTreeMap<&str, Vec<(Need, bool)>> = BTreeMap::new();
    for service in system.services.iter().filter(|it| here(it)) {
        needs.insert(&service.name.value, needs_of(system, service, &here));
    }
    let circular = circles(&needs);
    system
        .services
        .enumerate()
        .filter(|(_, service)| here(service))
        .map(|(id, service)| {
            let name = service.name.value.as_str();
            let needs = needs.remove(name).unwrap_or_default();
            // Two services that call each other cannot both come first. What somebody wrote under `needs` stays.
            let needs = needs
                .into_iter()
                .filter(|(need, by_call)| {
                    !(*by_call && circular.contains(&(name.to_owned(), need.service.clone())))
                })
                .map(|(need, _)| need)
                .collect();
            wanted_of(system, id, service, needs)
        })
        .collect()
}

fn wanted_of(system: &System, id: ServiceId, service: &system::Service, needs: Vec<Need>) -> Wanted {
    let run = service.run.as_ref();
    let health = &service.health;
    Wanted {
        name: service.name.value.clone(),
        instances: if run.is_some_and(|it| it.job) { 1 } else { service.replicas.total() },
        job: run.is_some_and(|it| it.job),
        build: run.is_some_and(|it| it.build.is_some()),
        needs,
        checked: health.check != Check::None,
        healthy_after: health.healthy_after.max(1),
        unhealthy_after: health.unhealthy_after.max(1),
        startup: health.startup,
        stop_timeout: run.map_or(Nanos::from_secs(5), |it| it.stop_timeout),
        drain: DRAIN,
        exclusive: run.is_some_and(|it| it.port.is_some()),
        fingerprint: fingerprint(system, id, service),
    }
}

/// Each need, and whether it comes from a call (and not from what somebody wrote).
fn needs_of(
    system: &System,
    service: &system::Service,
    here: &impl Fn(&system::Service) -> bool,
) -> Vec<(Need, bool)> {
    let mut needs: Vec<(Need, bool)> = Vec::new();
    for need in &service.needs {
        let other = &system.services[need.service.value];
        if here(other) {
            let until = match need.until {
                system::Until::Started => Until::Started,
                system::Until::Healthy => Until::Healthy,
                system::Until::Completed => Until::Completed,
            };
            let name = other.name.value.clone();
            needs.push((Need { service: name.clone(), until, why: format!("`needs` names {name}") }, false));
        }
    }
    let mut called = BTreeMap::new();
    for operation in service.operations.iter() {
        calls_of(&operation.calls, &mut |call, required| {
            if required {
                called.entry(call.service.value).or_insert(operation.name.value.as_str());
            }
        });
    }
    for (id, operation) in called {
        let other = &system.services[id];
        let name = other.name.value.clone();
        let known = needs.iter().any(|(need, _)| need.service == name);
        if here(other) && !known && name != service.name.value {
            let why = format!("`{operation}` calls it");
            needs.push((Need { service: name, until: Until::Healthy, why }, true));
        }
    }
    needs
}

fn calls_of<'s>(steps: &'s [Step], each: &mut impl FnMut(&'s system::Call, bool)) {
    for step in steps {
        match step {
            Step::Call(call) => each(call, !(call.optional || call.detached || call.fallback.is_some())),
            Step::All(steps) => calls_of(steps, each),
            Step::Work(_) => {}
        }
    }
}

/// The services an instance must be given doors to, by name.
pub fn dependencies(system: &System, id: ServiceId) -> Vec<String> {
    let service = &system.services[id];
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut note = |id: ServiceId| {
        found.insert(system.services[id].name.value.clone());
    };
    for operation in service.operations.iter() {
        calls_of(&operation.calls, &mut |call, _| {
            note(call.service.value);
            if let Some(system::Fallback::Call(service)) = &call.fallback {
                note(*service);
            }
        });
    }
    for need in &service.needs {
        let other = &system.services[need.service.value];
        // Nobody calls a job; it is only waited for.
        if !other.run.as_ref().is_some_and(|it| it.job) {
            note(need.service.value);
        }
    }
    for (consumer, _) in service.topic.iter().flat_map(|it| &it.consumers) {
        note(consumer.value);
    }
    found.into_iter().collect()
}

/// The needs that close a circle: (who, whom).
fn circles(needs: &BTreeMap<&str, Vec<(Need, bool)>>) -> BTreeSet<(String, String)> {
    let reaches = |from: &str, to: &str| {
        let mut seen = BTreeSet::new();
        let mut stack = vec![from];
        while let Some(at) = stack.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                stack.extend(needs.get(at).into_iter().flatten().map(|(need, _)| need.service.as_str()));
            }
        }
        false
    };
    let mut circular = BTreeSet::new();
    for (name, list) in needs {
        for (need, _) in list {
            if reaches(&need.service, name) {
                circular.insert(((*name).to_owned(), need.service.clone()));
            }
        }
    }
    circular
}

/// Where instance `index` stands and which version it runs.
pub fn seat(system: &System, service: &system::Service, index: u32) -> Seat {
    let regions = system.regions.as_slice();
    let per_region = &service.replicas.per_region;
    let mut at = index;
    let mut region = None;
    for (n, count) in per_region.iter().enumerate() {
        if at < *count {
            region = regions.get(n);
            break;
        }
        at -= count;
    }
    // More than the file says (`scale`): dealt in turn to the regions that have any.
    let region = region.or_else(|| {
        let used: Vec<usize> = (0..per_region.len()).filter(|n| per_region[*n] > 0).collect();
        let n = used.get(at as usize % used.len().max(1)).copied().unwrap_or(0);
        regions.get(n)
    });
    let zone = match (service.placement, region) {
        (Placement::Zones, Some(region)) if !region.zones.is_empty() => {
            region.zones[index as usize % region.zones.len()].value.clone()
        }
        _ => String::new(),
    };
    Seat {
        region: region.map_or_else(String::new, |it| it.name.value.clone()),
        zone,
        version: version_of(service, index),
    }
}

/// Versions take consecutive numbers, in file order; what `scale` adds is of the version with the most weight.
fn version_of(service: &system::Service, index: u32) -> String {
    let total = service.replicas.total();
    let has_weight = |it: &system::Version| it.replicas.is_none() && it.weight.millionths() > 0;
    let mut end = 0;
    for (n, version) in service.versions.iter().enumerate() {
        let count = match version.replicas {
            Some(fixed) => fixed,
            None if !has_weight(version) => 0,
            None => {
                // A version with any weight has someone to take it, as long as there are enough instances for all.
                let later = &service.versions[n + 1..];
                let reserved = later.iter().filter(|it| has_weight(it)).count() as u32;
                let share = (version.weight.fraction() * f64::from(total)).round().max(1.0) as u32;
                share.min(total.saturating_sub(end).saturating_sub(reserved))
            }
        };
        end += count;
        if index < end {
            return version.name.value.clone();
        }
    }
    let heaviest = service.versions.iter().rev().max_by_key(|it| it.weight.millionths());
    heaviest.map_or_else(String::new, |it| it.name.value.clone())
}

/// The command of instance `index`: its version's, or the service's.
pub fn run_of<'s>(service: &'s system::Service, version: &str) -> Option<&'s Run> {
    let own = service.versions.iter().find(|it| it.name.value == version).and_then(|it| it.run.as_ref());
    own.or(service.run.as_ref())
}

/// Changes exactly when an instance must be started anew to be as the file says. Places in the file are left out on
/// purpose: a line added at the top moves everything and changes nothing.
fn fingerprint(system: &System, id: ServiceId, service: &system::Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    let hash_run = |run: &Run, hasher: &mut DefaultHasher| {
        run.command.value.hash(hasher);
        (run.shell, &run.dir, &run.env_files, &run.build, run.job, run.port).hash(hasher);
        run.env.iter().for_each(|pair| pair.hash(hasher));
    };
    if let Some(run) = &service.run {
        hash_run(run, &mut hasher);
    } else {
        let versions = service.versions.iter().map(|it| Some(it.name.value.as_str())).chain([None]);
        for version in versions {
            // Plain data without places in the file: what it prints is what it does.
            format!("{:?}", Behaviour::of(system, id, version)).hash(&mut hasher);
        }
    }
    for version in &service.versions {
        (&version.name.value, version.weight.millionths(), version.replicas).hash(&mut hasher);
        if let Some(run) = &version.run {
            hash_run(run, &mut hasher);
        }
    }
    format!("{:?} {:?} {:?}", service.health.check, service.kind, service.protocol).hash(&mut hasher);
    dependencies(system, id).hash(&mut hasher);
    if system.regions.len() > 1 {
        service.replicas.per_region.hash(&mut hasher);
    }
    for region in system.regions.iter() {
        region.name.value.hash(&mut hasher);
        region.zones.iter().for_each(|zone| zone.value.hash(&mut hasher));
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(text: &str) -> System {
        let loaded = model::load::load_str(text);
        let mistakes = format!("{:?}", loaded.diagnostics);
        loaded.into_system().unwrap_or_else(|| panic!("{mistakes}"))
    }

    /// Who needs whom until what, one a word: `web>db:healthy`.
    #[track_caller]
    fn check_needs(services: &str, without: &[&str], expected: &str) {
        let system = system(&format!("isobar: 1\nservices:\n{services}"));
        let without = without.iter().map(|it| (*it).to_owned()).collect();
        let found: Vec<String> = wanted(&system, &without)
            .iter()
            .flat_map(|it| {
                it.needs.iter().map(move |need| format!("{}>{}:{}", it.name, need.service, need.until))
            })
            .collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn needs_come_from_calls_and_from_what_is_written() {
        let web = "  web: {operations: {\"GET /\": {work: 1ms, calls: [cart, {call: ads, optional: true}]}}, needs: [{seed: completed}]}\n";
        let rest = "  cart: {}\n  ads: {}\n  seed: {run: {command: ./seed, job: true}}\n";
        check_needs(&format!("{web}{rest}"), &[], "web>seed:completed web>cart:healthy");
        check_needs(&format!("{web}{rest}"), &["cart"], "web>seed:completed");
    }

    #[test]
    fn services_that_call_each_other_do_not_wait_for_each_other() {
        let services = "  a: {operations: {\"GET /\": {work: 1ms, calls: [b]}}}
  b: {operations: {\"GET /\": {work: 1ms, calls: [c]}}}
  c: {operations: {\"GET /\": {work: 1ms, calls: [{call: a, chance: 1%}, d]}}}
  d: {}
";
        check_needs(services, &[], "c>d:healthy");
    }

    #[test]
    fn what_runs_elsewhere_is_not_started() {
        let services = "  web: {operations: {\"GET /\": {work: 1ms, calls: [pay, old]}}}
  pay: {kind: external}
  old: {endpoints: [\"127.0.0.1:9\"]}
";
        check_needs(services, &[], "web>pay:healthy");
        let system = system(&format!("isobar: 1\nservices:\n{services}"));
        assert_eq!(wanted(&system, &BTreeSet::new()).len(), 2, "what has no address is played");
        assert_eq!(dependencies(&system, units::Id::new(0)), ["old", "pay"]);
    }

    #[test]
    fn instances_are_dealt_to_places() {
        let system = system(
            "isobar: 1\nplaces: {eu: {zones: [a, b]}, us: {zones: [c]}}\nservices:\n  web: {replicas: {eu: 3, us: 1}}\n  dns: {placement: global}\n",
        );
        let places = |id, n| -> Vec<String> {
            (0..n).map(|index| seat(&system, &system.services[units::Id::new(id)], index).place()).collect()
        };
        assert_eq!(places(0, 6), ["eu/a", "eu/b", "eu/a", "us/c", "eu/a", "us/c"]);
        assert_eq!(places(1, 1), ["eu"]);
    }

    #[test]
    fn versions_take_instances_by_weight() {
        #[track_caller]
        fn check(replicas: u32, versions: &str, expected: &str) {
            let system = system(&format!(
                "isobar: 1\nservices:\n  web: {{replicas: {replicas}, versions: {{{versions}}}}}\n"
            ));
            let web = &system.services[units::Id::new(0)];
            let found: Vec<String> =
                (0..replicas + 1).map(|index| seat(&system, web, index).version).collect();
            assert_eq!(found.join(" "), expected);
        }
        check(4, "v1.0.0: {weight: 75%}, v1.1.0: {weight: 25%}", "v1.0.0 v1.0.0 v1.0.0 v1.1.0 v1.0.0");
        check(2, "v1.0.0: {weight: 90%}, v1.1.0: {weight: 10%}", "v1.0.0 v1.1.0 v1.0.0");
        check(1, "v1.0.0: {}", "v1.0.0 v1.0.0");
    }

    #[test]
    fn a_fingerprint_changes_only_with_what_needs_a_new_start() {
        let of = |text: &str| -> u64 { wanted(&system(text), &BTreeSet::new())[0].fingerprint };
        let base = of("isobar: 1\nservices:\n  web: {operations: {\"GET /\": 5ms}}\n");
        assert_eq!(
            base,
            of(
                "# moved\n\nisobar: 1\nservices:\n  web: {operations: {\"GET /\": 5ms}, replicas: 3, team: t}\nteams: {t: {}}\n"
            )
        );
        assert_ne!(base, of("isobar: 1\nservices:\n  web: {operations: {\"GET /\": 6ms}}\n"));
        assert_ne!(base, of("isobar: 1\nservices:\n  web: {run: ./web, operations: {\"GET /\": 5ms}}\n"));
    }
}
