//! Ready-made scenarios: `zone-lost`, `slow=cart`, `retry-storm` ... for whoever has not written one into the file.
//!
//! Each is a plain [`Scenario`] with the faults of the file's own language, so it plays, prints and compares as one. What
//! it is about can be said after `=`; otherwise it is chosen so that it hurts: the place with most instances, the service
//! that most others call.

use model::span::{At, Span};
use model::system::{Event, Fault, Kind, Place, Scenario, Selection, ServiceId, Step, System, Which, Zone};
use units::{Id, Nanos, Percent};

struct Break {
    name: &'static str,
    about: About,
    what: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Nothing,
    Service,
    Cache,
    Zone,
    Region,
}

const BREAKS: [Break; 17] = [
    Break { name: "instance-lost", about: About::Service, what: "one instance stops" },
    Break {
        name: "chaos-monkey",
        about: About::Service,
        what: "one instance stops, as the monkey of that name does it",
    },
    Break { name: "zone-lost", about: About::Zone, what: "a zone falls silent" },
    Break {
        name: "chaos-gorilla",
        about: About::Zone,
        what: "a zone falls silent, as the monkey of that name does it",
    },
    Break { name: "region-lost", about: About::Region, what: "a region falls silent" },
    Break {
        name: "chaos-kong",
        about: About::Region,
        what: "a region falls silent, as the monkey of that name does it",
    },
    Break { name: "slow", about: About::Service, what: "all its work takes three times as long" },
    Break {
        name: "gray",
        about: About::Service,
        what: "one instance becomes ten times slower and stays healthy",
    },
    Break { name: "erroring", about: About::Service, what: "one answer in five fails" },
    Break { name: "latency-monkey", about: About::Service, what: "every answer comes a second later" },
    Break { name: "paused", about: About::Service, what: "one instance takes requests and answers none" },
    Break { name: "dependency-removed", about: About::Service, what: "all its instances stop" },
    Break {
        name: "partition",
        about: About::Region,
        what: "a region and the others cannot reach each other",
    },
    Break { name: "dns-lost", about: About::Nothing, what: "nobody answers look-ups of names" },
    Break { name: "cache-flush", about: About::Cache, what: "a cache forgets everything" },
    Break { name: "load-step", about: About::Nothing, what: "twice the load, to the end" },
    Break {
        name: "retry-storm",
        about: About::Service,
        what: "it is five times slower for ten seconds: does the system come back?",
    },
];

/// When it begins and, where it ends, how long it lasts; and how long it is watched in all.
const AT: Nanos = Nanos::from_secs(20);
const LASTING: Nanos = Nanos::from_secs(30);
const STORM: Nanos = Nanos::from_secs(10);
const WATCHED: Nanos = Nanos::from_secs(90);

/// Names and meanings, for help texts.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    BREAKS.iter().map(|it| (it.name, it.what))
}

/// The scenario that `NAME` or `NAME=ABOUT` stands for. An error names what there is.
pub fn ready_made(system: &System, text: &str) -> Result<Scenario, String> {
    let (name, about) = text.split_once('=').map_or((text, None), |(name, about)| (name, Some(about)));
    let Some(it) = BREAKS.iter().find(|it| it.name == name) else {
        let names: Vec<&str> = BREAKS.iter().map(|it| it.name).collect();
        return Err(format!("nothing breaks by the name of `{name}`; there are {}", names.join(", ")));
    };
    if let (About::Nothing, Some(about)) = (it.about, about) {
        return Err(format!("`{name}` is about everything; leave out `={about}`"));
    }
    let service = || service_of(system, it, about);
    let all = |service| Selection { service, which: Which::All };
    let one = |service| Selection { service, which: Which::Count(1) };
    let mut lasting = Some(LASTING);
    let faults = match name {
        "instance-lost" | "chaos-monkey" => vec![Fault::Stop(one(service()?))],
        "zone-lost" | "chaos-gorilla" => vec![Fault::Lose(Place::Zone(zone_of(system, about)?))],
        "region-lost" | "chaos-kong" => vec![Fault::Lose(Place::Region(region_of(system, about)?))],
        "slow" => vec![Fault::SlowTimes(all(service()?), Percent::from_whole(300))],
        "gray" => vec![Fault::SlowTimes(one(service()?), Percent::from_whole(1_000))],
        "erroring" => vec![Fault::Error(all(service()?), Percent::from_whole(20))],
        "latency-monkey" => vec![Fault::SlowBy(all(service()?), Nanos::from_secs(1))],
        "paused" => vec![Fault::Pause(one(service()?))],
        "dependency-removed" => vec![Fault::Stop(all(service()?))],
        "partition" => {
            let from = region_of(system, about)?;
            let others = system.regions.ids().filter(|it| *it != from);
            let cut =
                |to| Fault::Partition { from: Place::Region(from), to: Place::Region(to), both_ways: true };
            let cuts: Vec<Fault> = others.map(cut).collect();
            if cuts.is_empty() {
                return Err("`partition` needs two regions, and the file has one; try `zone-lost`".to_owned());
            }
            cuts
        }
        "dns-lost" => vec![Fault::FailDns],
        "cache-flush" => {
            lasting = None;
            vec![Fault::Flush(service()?)]
        }
        "load-step" => {
            lasting = None;
            vec![Fault::LoadTimes(None, Percent::from_whole(200))]
        }
        _ => {
            lasting = Some(STORM);
            vec![Fault::SlowTimes(all(service()?), Percent::from_whole(500))]
        }
    };
    let nowhere = Span::default();
    Ok(Scenario {
        name: At::new(text.to_owned(), nowhere),
        description: Some(it.what.to_owned()),
        events: faults
            .into_iter()
            .map(|fault| Event { at: AT, lasting, fault: At::new(fault, nowhere) })
            .collect(),
        expect: Vec::new(),
        lasts: Some(WATCHED),
        span: nowhere,
    })
}

fn service_of(system: &System, it: &Break, about: Option<&str>) -> Result<ServiceId, String> {
    let fits = |id: ServiceId| it.about != About::Cache || system.services[id].kind == Kind::Cache;
    let names = || {
        let names =
            system.services.enumerate().filter(|(id, _)| fits(*id)).map(|(_, it)| it.name.value.as_str());
        names.collect::<Vec<&str>>().join(", ")
    };
    match about {
        Some(name) => {
            let found = system.services.enumerate().find(|(id, it)| it.name.value == name && fits(*id));
            found
                .map(|(id, _)| id)
                .ok_or_else(|| format!("`{}` cannot be about `{name}`; there are {}", it.name, names()))
        }
        None => {
            let mut callers = vec![0u32; system.services.len()];
            for operation in system.services.iter().flat_map(|it| it.operations.iter()) {
                count_calls(&operation.calls, &mut callers);
            }
            let chosen = system
                .services
                .ids()
                .filter(|id| fits(*id))
                .max_by_key(|id| (callers[id.index()], u32::MAX - id.as_u32()));
            chosen.ok_or_else(|| format!("`{}` finds nothing in this file to be about", it.name))
        }
    }
}

fn count_calls(steps: &[Step], callers: &mut [u32]) {
    for step in steps {
        match step {
            Step::Call(call) => callers[call.service.value.index()] += 1,
            Step::All(inner) => count_calls(inner, callers),
            Step::Work(_) => {}
        }
    }
}

fn region_of(system: &System, about: Option<&str>) -> Result<model::system::RegionId, String> {
    match about {
        Some(name) => {
            let found = system.regions.enumerate().find(|(_, it)| it.name.value == name).map(|(id, _)| id);
            found.ok_or_else(|| {
                let names: Vec<&str> = system.regions.iter().map(|it| it.name.value.as_str()).collect();
                format!("no region is called `{name}`; there are {}", names.join(", "))
            })
        }
        None => {
            let count = |region: usize| -> u64 {
                let here =
                    |it: &model::system::Service| it.replicas.per_region.get(region).copied().unwrap_or(0);
                system.services.iter().map(|it| u64::from(here(it))).sum()
            };
            let most = (0..system.regions.len()).max_by_key(|it| (count(*it), usize::MAX - it));
            most.map(Id::from_usize).ok_or_else(|| "the file has no region".to_owned())
        }
    }
}

fn zone_of(system: &System, about: Option<&str>) -> Result<Zone, String> {
    let Some(name) = about else { return Ok(Zone { region: region_of(system, None)?, zone: 0 }) };
    let (region, zone) =
        name.split_once('/').ok_or_else(|| format!("`{name}` is no zone; write `region/zone`"))?;
    let region = region_of(system, Some(region))?;
    let zones = &system.regions[region].zones;
    match zones.iter().position(|it| it.value == zone) {
        Some(zone) => Ok(Zone { region, zone: zone as u32 }),
        None => {
            let names: Vec<&str> = zones.iter().map(|it| it.value.as_str()).collect();
            Err(format!("no zone is called `{zone}`; there are {}", names.join(", ")))
        }
    }
}
