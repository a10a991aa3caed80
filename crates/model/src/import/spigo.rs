//! spigo's architecture JSON.
//!
//! Placement and discovery come across exactly: the instances of the import, and who of them reaches whom, are those
//! spigo would have made (see [`crate::place`]). Behaviour comes across as calls: spigo sends each request on to one
//! instance drawn from all it knows, so a service with several dependencies calls each with the share of instances it
//! has. Two of spigo's defects are not carried over: `staash` knows `riak` here, and a volume's keys are its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as Json, Value};

use super::names::Names;
use super::write::{Map, Yaml, document, plain, text};
use super::{Dropped, ImportError, Imported, shorten, text_of};
use crate::draw::levels::PACKAGE_LABEL;
use crate::layout::strong_components;

/// What the command line may change, as spigo's `-w` and `-p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Multiplies every service's regions.
    pub regions: u32,
    /// Percent by which every count is scaled, rounded down.
    pub scale: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { regions: 1, scale: 100 }
    }
}

/// spigo's regions, in its order.
const REGIONS: [&str; 6] =
    ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1", "ap-southeast-2"];
const ZONES: [&str; 3] = ["zoneA", "zoneB", "zoneC"];
/// A typing error in `count` must not become a file nobody can load.
const INSTANCES_MAX: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Package {
    Denominator,
    Elb,
    Zuul,
    Karyon,
    Monolith,
    Staash,
    Store,
    Cache,
    Volume,
    PriamCassandra,
    Riak,
    Eureka,
    Pirate,
}

const PACKAGES: [(&str, Package); 13] = [
    ("denominator", Package::Denominator),
    ("elb", Package::Elb),
    ("zuul", Package::Zuul),
    ("karyon", Package::Karyon),
    ("monolith", Package::Monolith),
    ("staash", Package::Staash),
    ("store", Package::Store),
    ("cache", Package::Cache),
    ("volume", Package::Volume),
    ("priamCassandra", Package::PriamCassandra),
    ("riak", Package::Riak),
    ("eureka", Package::Eureka),
    ("pirate", Package::Pirate),
];

impl Package {
    fn keeps_data(self) -> bool {
        matches!(
            self,
            Package::Store | Package::Cache | Package::Volume | Package::PriamCassandra | Package::Riak
        )
    }

    /// The order in which `staash` asks its tiers; the first that exists answers.
    fn tier(self) -> u8 {
        match self {
            Package::Cache => 0,
            Package::Volume => 1,
            Package::PriamCassandra => 2,
            Package::Riak => 3,
            Package::Store => 4,
            Package::Staash => 5,
            _ => 6,
        }
    }
}

struct Service {
    /// In our file.
    name: String,
    package: Package,
    /// After scaling.
    regions: u32,
    count: u32,
    everywhere: bool,
    /// Indices, each once.
    dependencies: Vec<usize>,
    /// Those of them that lead back here.
    circular: BTreeSet<usize>,
    labels: Vec<(&'static str, String)>,
}

impl Service {
    fn instances(&self) -> u64 {
        match self.regions {
            0 => 1,
            regions => u64::from(regions) * u64::from(self.count.max(1)),
        }
    }

    fn reads(&self) -> &'static str {
        if self.package.keeps_data() { "get" } else { "GET /" }
    }

    fn writes(&self) -> &'static str {
        if self.package.keeps_data() { "put" } else { "PUT /" }
    }
}

pub fn import(bytes: &[u8], options: Options) -> Result<Imported, ImportError> {
    let root: Value = serde_json::from_str(text_of(bytes)?).map_err(|error| {
        ImportError::wrong(
            "",
            format!("this is not JSON: {error}"),
            "an architecture is a JSON object with `services`",
        )
    })?;
    let Value::Object(root) = root else {
        let fix = "an architecture is a JSON object with `services`";
        return Err(ImportError::wrong("", "the file holds no object", fix));
    };
    let mut reader = Reader { dropped: Vec::new(), options };
    let services = reader.services(&root)?;
    reader.leftovers(&root, "", &["arch", "version", "description", "args", "date", "victim", "services"]);
    let victim = reader.victim(&root, &services)?;
    let system = Names::default().give(reader.word(&root, "", "arch")?.as_deref().unwrap_or("").trim());
    if system == "unnamed" {
        reader.drop("arch", "the architecture has no name: it is called `unnamed`");
    }
    let head = reader.head(&root)?;
    let out = write(&system, &services, victim.as_deref());
    let dropped = reader.dropped;
    Ok(Imported { text: document(&with_dropped(head, &dropped), &out), dropped })
}

/// The comment on top of the file: what it is and what it lost.
pub(super) fn with_dropped(mut head: Vec<String>, dropped: &[Dropped]) -> Vec<String> {
    /// Beyond this a file would be mostly comment; the command lists them all.
    const LISTED_MAX: usize = 200;
    if !dropped.is_empty() {
        head.push(String::new());
        head.push("Not carried over:".into());
        head.extend(dropped.iter().take(LISTED_MAX).map(|it| format!("- {it}")));
        if dropped.len() > LISTED_MAX {
            head.push(format!("- and {} more", dropped.len() - LISTED_MAX));
        }
    }
    head
}

struct Reader {
    dropped: Vec<Dropped>,
    options: Options,
}

impl Reader {
    fn drop(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.dropped.push(Dropped::new(path, reason));
    }

    fn leftovers(&mut self, object: &Json<String, Value>, path: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.drop(format!("{path}{}", shorten(key)), "not a field of spigo's architectures");
        }
    }

    /// A field that is text; absent, null and empty are all "nothing", as in spigo.
    fn word(
        &self,
        object: &Json<String, Value>,
        path: &str,
        key: &str,
    ) -> Result<Option<String>, ImportError> {
        match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|it| !it.is_empty())),
            Some(other) => Err(ImportError::wrong(
                format!("{path}{key}"),
                format!("expected a text, found `{}`", shorten(&other.to_string())),
                "write it in quotes",
            )),
        }
    }

    fn number(&self, object: &Json<String, Value>, path: &str, key: &str) -> Result<u32, ImportError> {
        let Some(value) = object.get(key).filter(|it| !it.is_null()) else { return Ok(0) };
        value.as_u64().and_then(|it| u32::try_from(it).ok()).ok_or_else(|| {
            ImportError::wrong(
                format!("{path}{key}"),
                format!("expected a whole number from 0, found `{}`", shorten(&value.to_string())),
                "0 has a meaning here too: regions 0 is global, count 0 is one per region outside all zones",
            )
        })
    }

    fn services(&mut self, root: &Json<String, Value>) -> Result<Vec<Service>, ImportError> {
        let listed = match root.get("services") {
            Some(Value::Array(items)) if !items.is_empty() => items,
            Some(Value::Array(_)) | None => {
                return Err(ImportError::wrong("services", "there are none", "list at least one service"));
            }
            Some(other) => {
                let problem = format!("expected a list, found `{}`", shorten(&other.to_string()));
                return Err(ImportError::wrong("services", problem, "write `\"services\": [{...}]`"));
            }
        };
        let mut names = Names::default();
        let mut index_of: BTreeMap<String, usize> = BTreeMap::new();
        let mut services = Vec::new();
        let mut wanted = Vec::new();
        for (index, item) in listed.iter().enumerate() {
            let path = format!("services[{index}].");
            let Value::Object(object) = item else {
                let problem = format!("expected an object, found `{}`", shorten(&item.to_string()));
                return Err(ImportError::wrong(
                    format!("services[{index}]"),
                    problem,
                    "write `{\"name\": ...}`",
                ));
            };
            let (service, dependencies) = self.service(object, &path, &mut names)?;
            let name = self.word(object, &path, "name")?.unwrap_or_default();
            if index_of.insert(name.clone(), index).is_some() {
                let problem = format!("two services are called `{}`", shorten(&name));
                return Err(ImportError::wrong(
                    format!("{path}name"),
                    problem,
                    "give one of them another name",
                ));
            }
            services.push(service);
            wanted.push(dependencies);
        }
        for (index, dependencies) in wanted.into_iter().enumerate() {
            let mut seen = BTreeSet::new();
            for (at, dependency) in dependencies.into_iter().enumerate() {
                if dependency == "eureka" {
                    services[index].everywhere = true;
                    continue;
                }
                let path = format!("services[{index}].dependencies[{at}]");
                let Some(&to) = index_of.get(&dependency) else {
                    let problem = format!("no service is called `{}`", shorten(&dependency));
                    let fix = format!("define it, or take it out; there are {}", some_of(index_of.keys()));
                    return Err(ImportError::wrong(path, problem, fix));
                };
                if services[to].package == Package::Eureka || services[index].package == Package::Eureka {
                    self.drop(path, "registries are not part of a file: isobar has its own discovery");
                } else if !seen.insert(to) {
                    self.drop(path, format!("`{}` is listed twice", shorten(&dependency)));
                } else {
                    services[index].dependencies.push(to);
                }
            }
        }
        self.mark_circles(&mut services);
        let instances: u64 = services.iter().map(Service::instances).sum();
        if instances > INSTANCES_MAX {
            let problem = format!("{instances} instances are more than a system can have ({INSTANCES_MAX})");
            return Err(ImportError::wrong("services", problem, "lower `count` or `--scale`"));
        }
        if services.iter().all(|it| it.package == Package::Eureka) {
            let fix = "isobar has its own discovery and needs no entry for it: list what uses it";
            return Err(ImportError::wrong("services", "there are only registries", fix));
        }
        Ok(services)
    }

    /// In spigo a request in a circle of calls goes round until the run ends. A file must let it end.
    fn mark_circles(&mut self, services: &mut [Service]) {
        let calls: Vec<Vec<usize>> = services.iter().map(|it| it.dependencies.clone()).collect();
        let (circle, _) = strong_components(&calls);
        for (index, service) in services.iter_mut().enumerate() {
            service.circular =
                calls[index].iter().copied().filter(|&to| circle[to] == circle[index]).collect();
            // Members of a ring copy to each other, and a copy is not copied on.
            if !service.circular.is_empty() && !service.package.keeps_data() {
                let reason = "these calls lead back here: half of the requests stop, or none would ever end";
                self.drop(format!("services[{index}].dependencies"), reason);
            }
        }
    }

    fn service(
        &mut self,
        object: &Json<String, Value>,
        path: &str,
        names: &mut Names,
    ) -> Result<(Service, Vec<String>), ImportError> {
        let Some(name) = self.word(object, path, "name")? else {
            return Err(ImportError::wrong(format!("{path}name"), "a service has no name", "give it one"));
        };
        if name == "eureka" {
            let problem = "`eureka` is a reserved word: it stands for the registries";
            return Err(ImportError::wrong(format!("{path}name"), problem, "give the service another name"));
        }
        let given = names.give(&name);
        if given != name {
            self.drop(
                format!("{path}name"),
                format!(
                    "`{}` is called `{given}` here: names are letters, digits, `-`, `_`, `.`",
                    shorten(&name)
                ),
            );
        }
        let word = self.word(object, path, "package")?.unwrap_or_default();
        let Some(&(_, package)) = PACKAGES.iter().find(|(known, _)| *known == word) else {
            let problem = format!("spigo has no package `{}`", shorten(&word));
            let fix = format!("the packages are {}", PACKAGES.map(|it| it.0).join(", "));
            return Err(ImportError::wrong(format!("{path}package"), problem, fix));
        };

        let asked_regions = self.number(object, path, "regions")?;
        let regions =
            asked_regions.checked_mul(self.options.regions).filter(|&it| it as usize <= REGIONS.len());
        let Some(regions) = regions else {
            let problem = format!(
                "{asked_regions} × {} regions are more than spigo's {}",
                self.options.regions,
                REGIONS.len()
            );
            return Err(ImportError::wrong(
                format!("{path}regions"),
                problem,
                "lower `regions` or `--regions`",
            ));
        };
        let asked_count = self.number(object, path, "count")?;
        let count = u64::from(asked_count) * u64::from(self.options.scale) / 100;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if regions > 0 && asked_count > 0 && count == 0 {
            let scale = self.options.scale;
            self.drop(
                format!("{path}count"),
                format!(
                    "{asked_count} at {scale} % is none, of which spigo makes one a region, outside all zones"
                ),
            );
        }
        if regions == 0 && asked_count > 1 {
            self.drop(
                format!("{path}count"),
                format!("{asked_count} of a global service are one, in spigo too"),
            );
        }

        let mut dependencies = Vec::new();
        match object.get("dependencies") {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                for (at, item) in items.iter().enumerate() {
                    let Value::String(name) = item else {
                        let path = format!("{path}dependencies[{at}]");
                        let problem = format!("expected a name, found `{}`", shorten(&item.to_string()));
                        return Err(ImportError::wrong(path, problem, "write it in quotes"));
                    };
                    dependencies.push(name.clone());
                }
            }
            Some(other) => {
                let problem = format!("expected a list, found `{}`", shorten(&other.to_string()));
                return Err(ImportError::wrong(format!("{path}dependencies"), problem, "write `[\"db\"]`"));
            }
        }

        let mut labels = vec![(PACKAGE_LABEL, word.clone())];
        for (key, label) in [
            ("machine", "spigo.machine"),
            ("instance", "spigo.instance"),
            ("container", "spigo.container"),
            ("process", "spigo.process"),
        ] {
            labels.extend(self.word(object, path, key)?.map(|value| (label, value)));
        }
        for key in ["useCustomGuesstimate", "guesstimateType", "guesstimateValue"] {
            let says =
                object.get(key).is_some_and(|it| !matches!(it, Value::Null | Value::Bool(false)) && it != "");
            if says {
                self.drop(
                    format!("{path}{key}"),
                    "isobar exports no Guesstimate: say the service's `work` instead",
                );
            }
        }
        const KNOWN: [&str; 12] = [
            "name",
            "package",
            "regions",
            "count",
            "dependencies",
            "machine",
            "instance",
            "container",
            "process",
            "useCustomGuesstimate",
            "guesstimateType",
            "guesstimateValue",
        ];
        self.leftovers(object, path, &KNOWN);
        match package {
            Package::Eureka => {
                self.drop(path.trim_end_matches('.'), "a registry: isobar has its own discovery");
            }
            Package::Pirate => {
                self.drop(
                    format!("{path}package"),
                    "pirates gossip by themselves: here they only call each other",
                );
            }
            Package::Riak | Package::PriamCassandra => {
                self.drop(format!("{path}package"), "who of the ring owns a key: any member answers here");
            }
            _ => {}
        }
        let service = Service {
            name: given,
            package,
            regions,
            count,
            everywhere: false,
            dependencies: Vec::new(),
            circular: BTreeSet::new(),
            labels,
        };
        Ok((service, dependencies))
    }

    fn victim(
        &mut self,
        root: &Json<String, Value>,
        services: &[Service],
    ) -> Result<Option<String>, ImportError> {
        let Some(victim) = self.word(root, "", "victim")? else { return Ok(None) };
        let found = root.get("services").and_then(Value::as_array).and_then(|items| {
            items.iter().position(|item| item.get("name").and_then(Value::as_str) == Some(&victim))
        });
        match found {
            Some(index) if services[index].package != Package::Eureka => {
                Ok(Some(services[index].name.clone()))
            }
            _ => {
                self.drop(
                    "victim",
                    format!("no service is called `{}`, so nobody is killed", shorten(&victim)),
                );
                Ok(None)
            }
        }
    }

    fn head(&self, root: &Json<String, Value>) -> Result<Vec<String>, ImportError> {
        let mut head = vec!["Imported from a spigo architecture.".to_string()];
        for key in ["description", "version", "args", "date"] {
            head.extend(self.word(root, "", key)?.map(|it| format!("{key}: {it}")));
        }
        let Options { regions, scale } = self.options;
        if self.options != Options::default() {
            head.push(format!("regions multiplied by {regions}, counts scaled to {scale} %"));
        }
        Ok(head)
    }
}

fn some_of<'a>(names: impl Iterator<Item = &'a String>) -> String {
    const SHOWN_MAX: usize = 12;
    let mut shown: Vec<String> = names.take(SHOWN_MAX + 1).map(|it| format!("`{}`", shorten(it))).collect();
    if shown.len() > SHOWN_MAX {
        shown[SHOWN_MAX] = "...".into();
    }
    shown.join(", ")
}

fn write(system: &str, services: &[Service], victim: Option<&str>) -> Map {
    let mut root = Map::new();
    root.add("isobar", plain(1));
    root.add("system", text(system));
    let regions = services.iter().map(|it| it.regions).max().unwrap_or(0).max(1) as usize;
    let mut places = Map::new();
    for region in &REGIONS[..regions] {
        let mut place = Map::new();
        place.add("zones", Yaml::List(ZONES.map(text).to_vec()));
        places.add(*region, Yaml::Map(place));
    }
    root.add("places", Yaml::Map(places));

    let mut entries = Map::new();
    for service in services.iter().filter(|it| it.package != Package::Eureka) {
        entries.add(service.name.clone(), Yaml::Map(entry(service, services)));
    }
    root.add("services", Yaml::Map(entries));
    write_traffic(&mut root, services);
    if let Some(victim) = victim {
        let mut scenario = Map::new();
        scenario.add("at", plain("5s"));
        scenario.add("do", Yaml::List(vec![text(format!("stop 1 of {victim}"))]));
        scenario.add("lasts", plain("10s"));
        let mut scenarios = Map::new();
        let note = "spigo kills one instance half way through its run of 10 s".to_string();
        scenarios.add_noted(vec![note], "chaos-monkey", Yaml::Map(scenario));
        root.add("scenarios", Yaml::Map(scenarios));
    }
    root
}

/// spigo's load: a tick every 10 ms, of which two thirds read and one third writes, sent to the last service.
fn write_traffic(root: &mut Map, services: &[Service]) {
    let Some(last) = services.iter().rev().find(|it| it.package != Package::Eureka) else { return };
    let mut traffic = Map::new();
    for (name, operation, rate) in
        [("reads", last.reads(), "4000/min"), ("writes", last.writes(), "2000/min")]
    {
        let mut one = Map::new();
        one.add("to", text(format!("{} \"{operation}\"", last.name)));
        one.add("rate", plain(rate));
        one.add("arrivals", plain("constant"));
        let notes = match name {
            "reads" => {
                vec!["a request every 10 ms enters at the last service; two of three read".to_string()]
            }
            _ => Vec::new(),
        };
        traffic.add_noted(notes, name, Yaml::Map(one));
    }
    root.add("traffic", Yaml::Map(traffic));
}

fn entry(service: &Service, services: &[Service]) -> Map {
    let mut entry = Map::new();
    let kind = match service.package {
        Package::Cache => Some("cache"),
        it if it.keeps_data() => Some("store"),
        _ => None,
    };
    if let Some(kind) = kind {
        entry.add("kind", plain(kind));
    }
    let per_region = |count: u32| {
        let mut replicas = Map::new();
        for region in &REGIONS[..service.regions as usize] {
            replicas.add(*region, plain(count));
        }
        Yaml::Map(replicas)
    };
    match (service.regions, service.count) {
        (0, _) => entry.add("placement", plain("global")),
        (_, 0) => {
            entry.add("replicas", per_region(1));
            entry.add("placement", plain("region"));
        }
        (_, count) => entry.add("replicas", per_region(count)),
    }
    if service.everywhere {
        entry.add("discovery", plain("everywhere"));
    }
    if matches!(service.package, Package::Karyon | Package::Zuul) {
        entry.add("reach", plain("same-zone"));
    }
    if matches!(service.package, Package::PriamCassandra) {
        let mut store = Map::new();
        store.add("copies", plain(ZONES.len()));
        store.add("consistency", plain("one"));
        entry.add("store", Yaml::Map(store));
    }
    let mut operations = Map::new();
    let mut operation = |name: &str, calls: Vec<Yaml>| {
        let mut map = Map::new();
        if !calls.is_empty() {
            map.add("calls", Yaml::List(calls));
        }
        operations.add(name, Yaml::Map(map));
    };
    operation(service.reads(), reads(service, services));
    operation(service.writes(), writes(service, services));
    let copied = |it: &Service| {
        it.package.keeps_data() && it.dependencies.iter().any(|&to| services[to].name == service.name)
    };
    if service.package.keeps_data() && services.iter().any(copied) {
        operation("replicate", Vec::new());
    }
    entry.add("operations", Yaml::Map(operations));
    let mut labels = Map::new();
    for (key, value) in &service.labels {
        labels.add(*key, text(value.clone()));
    }
    entry.add("labels", Yaml::Map(labels));
    entry
}

fn reads(service: &Service, services: &[Service]) -> Vec<Yaml> {
    let of = |tier: Option<u8>| {
        let kept = service
            .dependencies
            .iter()
            .copied()
            .filter(|&it| tier.is_none_or(|tier| services[it].package.tier() == tier));
        kept.collect::<Vec<usize>>()
    };
    if service.package.keeps_data() {
        return Vec::new(); // The one that is asked answers.
    }
    let first = service.dependencies.iter().map(|&it| services[it].package.tier()).min();
    let asked = if service.package == Package::Staash { of(first) } else { of(None) };
    one_of(service, &asked, services, Service::reads)
}

fn writes(service: &Service, services: &[Service]) -> Vec<Yaml> {
    if service.package.keeps_data() {
        let copy = |&to: &usize| {
            let target = &services[to];
            let operation = if target.package.keeps_data() { "replicate" } else { target.writes() };
            let mut call = Map::new();
            call.add("call", text(format!("{} \"{operation}\"", target.name)));
            call.add("detached", plain(true));
            if service.circular.contains(&to) && operation != "replicate" {
                call.add("chance", plain("50%"));
            }
            Yaml::Map(call)
        };
        return service.dependencies.iter().map(copy).collect();
    }
    if service.package == Package::Staash {
        let tiers: BTreeSet<u8> =
            service.dependencies.iter().map(|&it| services[it].package.tier()).collect();
        let one_of_tier = |tier: u8| {
            let members: Vec<usize> = service
                .dependencies
                .iter()
                .copied()
                .filter(|&it| services[it].package.tier() == tier)
                .collect();
            one_of(service, &members, services, Service::writes)
        };
        return tiers.into_iter().flat_map(one_of_tier).collect();
    }
    one_of(service, &service.dependencies, services, Service::writes)
}

/// One request to one of all their instances: each service's chance is its share of them.
fn one_of(
    caller: &Service,
    targets: &[usize],
    services: &[Service],
    operation: fn(&Service) -> &'static str,
) -> Vec<Yaml> {
    let total: u64 = targets.iter().map(|&it| services[it].instances()).sum();
    let call = |&index: &usize| {
        let target = &services[index];
        let to = text(format!("{} \"{}\"", target.name, operation(target)));
        let ends = caller.circular.contains(&index);
        if targets.len() == 1 && !ends {
            return to;
        }
        // In hundredths of a percent, and never none: the call exists.
        let share = (target.instances() * 10_000 / total / if ends { 2 } else { 1 }).max(1);
        let mut call = Map::new();
        call.add("call", to);
        call.add("chance", plain(percent(share)));
        Yaml::Map(call)
    };
    targets.iter().map(call).collect()
}

fn percent(hundredths: u64) -> String {
    let (whole, part) = (hundredths / 100, hundredths % 100);
    match part {
        0 => format!("{whole}%"),
        it if it % 10 == 0 => format!("{whole}.{}%", it / 10),
        it => format!("{whole}.{it:02}%"),
    }
}
