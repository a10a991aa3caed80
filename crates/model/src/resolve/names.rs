//! What is defined: the tables that references are looked up in, and the one place where a failed look-up is reported.

use super::fields::shorten;
use super::suggest::{did_you_mean, misspelt};
use super::{Resolver, Sections};
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{
    Caller, GatewayId, OperationId, Place, Region, RegionId, ServiceId, TeamId, TrafficId, Zone,
};
use crate::text::{Entry, Node, Value};
use std::collections::HashMap;
use units::Id;

/// Names listed in a message before "and N more".
const LISTED_MAX: usize = 12;

/// Names of one kind, in file order; a name's position is its id.
#[derive(Default)]
pub(super) struct Table<'n> {
    ids: HashMap<&'n str, u32>,
    /// In the order of their ids; a name's second definition was reported and has none.
    pub(super) entries: Vec<&'n Entry>,
}

impl<'n> Table<'n> {
    fn get(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    fn names(&self) -> impl Iterator<Item = &'n str> + Clone + use<'n, '_> {
        self.entries.iter().map(|entry| &*entry.key)
    }
}

/// What a service declares that others may name.
#[derive(Default)]
pub(super) struct Inside<'n> {
    pub(super) operations: Vec<&'n str>,
    pub(super) versions: Vec<&'n str>,
    /// Not all of it could be read: a name that seems missing may be there.
    pub(super) operations_hole: bool,
    pub(super) versions_hole: bool,
}

#[derive(Default)]
pub(super) struct Names<'n> {
    pub(super) teams: Table<'n>,
    pub(super) services: Table<'n>,
    pub(super) gateways: Table<'n>,
    pub(super) traffic: Table<'n>,
    regions: HashMap<String, u32>,
    pub(super) inside: Vec<Inside<'n>>,
    /// Only services with more than a few operations need a table.
    operations: HashMap<(u32, &'n str), u32>,
    pub(super) teams_hole: bool,
    pub(super) places_hole: bool,
    pub(super) services_hole: bool,
    pub(super) gateways_hole: bool,
    pub(super) traffic_hole: bool,
}

impl Names<'_> {
    pub(super) fn all_holes(&mut self, hole: bool) {
        self.teams_hole = hole;
        self.places_hole = hole;
        self.services_hole = hole;
        self.gateways_hole = hole;
        self.traffic_hole = hole;
    }
}

/// Letters, digits, `-`, `_`, `.`; begins with a letter or digit; at most 63.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl<'n> Resolver<'n, '_> {
    /// The first pass: ids for everything that is defined.
    pub(super) fn declare(&mut self, sections: &Sections<'n>) {
        self.names.teams = self.table(&sections.teams, "team");
        self.names.services = self.table(&sections.services, "service");
        self.names.gateways = self.table(&sections.gateways, "gateway");
        self.names.traffic = self.table(&sections.traffic, "traffic");
        self.places(&sections.places);
        for (index, region) in self.system.regions.enumerate() {
            self.names.regions.insert(region.name.value.clone(), index.as_u32());
        }
        let clashes: Vec<(&Entry, &Entry)> = self
            .names
            .gateways
            .entries
            .iter()
            .filter_map(|gateway| {
                let service = self.names.services.get(&gateway.key)?;
                Some((*gateway, self.names.services.entries[service as usize]))
            })
            .collect();
        for (gateway, service) in clashes {
            self.report(
                Diagnostic::error(
                    "E0207",
                    gateway.key_span,
                    format!("`{}` is a service already; a gateway needs another name", gateway.key),
                )
                .label("a gateway of the same name")
                .related(service.key_span, "the service"),
            );
        }
        let services = self.names.services.entries.clone();
        if services.is_empty() && !self.names.services_hole {
            self.report(
                Diagnostic::error("E0202", Span::default(), "the file defines no services")
                    .label("`services` is missing or empty")
                    .help("add for example `services: {hello: {operations: {\"GET /\": 5ms}}}`"),
            );
        }
        for (index, entry) in services.iter().enumerate() {
            let mut inside = Inside::default();
            if let Value::Map(map) = &entry.value.value {
                let names = |key: &str, hole: &mut bool| -> Vec<&'n str> {
                    *hole |= map.hole;
                    match map.get(key).map(|node| &node.value) {
                        Some(Value::Map(inner)) => {
                            *hole |= inner.hole;
                            inner.entries.iter().map(|it| &*it.key).collect()
                        }
                        Some(_) => {
                            *hole = true;
                            Vec::new()
                        }
                        None => {
                            *hole |= misspelt(map, key);
                            Vec::new()
                        }
                    }
                };
                inside.operations = names("operations", &mut inside.operations_hole);
                inside.versions = names("versions", &mut inside.versions_hole);
            } else if !entry.value.is_null() {
                (inside.operations_hole, inside.versions_hole) = (true, true);
            }
            if inside.operations.len() > 8 {
                for (operation, name) in inside.operations.iter().enumerate() {
                    self.names.operations.insert((index as u32, name), operation as u32);
                }
            }
            self.names.inside.push(inside);
        }
    }

    fn table(&mut self, entries: &[&'n Entry], kind: &str) -> Table<'n> {
        let mut table = Table { ids: HashMap::with_capacity(entries.len()), entries: Vec::new() };
        for entry in entries {
            self.check_name(&entry.key, entry.key_span, kind);
            if let Some(first) = table.get(&entry.key) {
                let first = table.entries[first as usize];
                self.defined_twice(kind, entry, first.key_span);
            } else {
                table.ids.insert(&entry.key, table.entries.len() as u32);
                table.entries.push(entry);
            }
        }
        table
    }

    pub(super) fn defined_twice(&mut self, kind: &str, entry: &Entry, first: Span) {
        self.report(
            Diagnostic::error(
                "E0207",
                entry.key_span,
                format!("the {kind} `{}` is defined twice", shorten(&entry.key)),
            )
            .label("again here")
            .related(first, "first here"),
        );
    }

    pub(super) fn check_name(&mut self, text: &str, span: Span, kind: &str) -> bool {
        let good = is_name(text);
        if !good {
            self.report(
                Diagnostic::error("E0206", span, format!("`{}` cannot be the name of a {kind}", shorten(text)))
                    .label("not a name")
                    .help("a name is letters, digits, `-`, `_` and `.`, begins with a letter or digit, and has at most 63"),
            );
        }
        good
    }

    /// A scalar that is a name.
    pub(super) fn name(&mut self, node: &'n Node, what: &str) -> Option<At<&'n str>> {
        let text = self.text(node, what)?;
        if is_name(text.value) {
            return Some(text);
        }
        self.report(
            Diagnostic::error("E0206", text.span, format!("`{}` cannot be {what}", shorten(text.value)))
                .label("not a name")
                .help("a name is letters, digits, `-`, `_` and `.`, begins with a letter or digit, and has at most 63"),
        );
        None
    }

    /// Names for a suggestion, or none once suggestions are used up.
    fn worth_listing(&self, gather: impl FnOnce(&Names<'n>) -> Vec<&'n str>) -> Vec<&'n str> {
        if self.comparisons_left > 0 { gather(&self.names) } else { Vec::new() }
    }

    fn undefined(
        &mut self,
        code: &'static str,
        kind: &str,
        name: &str,
        span: Span,
        known: &mut dyn Iterator<Item = &str>,
        nothing: &str,
    ) {
        let mut diagnostic =
            Diagnostic::error(code, span, format!("no {kind} is called `{}`", shorten(name)))
                .label("not defined");
        // Once the budget of comparisons is spent, the names are not even gathered: ten thousand wrong names in a
        // file of ten thousand services would be a hundred million strings.
        let known: Vec<&str> = if self.comparisons_left > 0 { known.collect() } else { Vec::new() };
        let list = if known.len() > LISTED_MAX {
            format!("{} and {} more", known[..LISTED_MAX].join(", "), known.len() - LISTED_MAX)
        } else {
            known.join(", ")
        };
        diagnostic = match did_you_mean(name, known.iter().copied(), &mut self.comparisons_left) {
            Some(near) => {
                diagnostic.help(format!("did you mean `{near}`? Defined: {list}")).replacement(near)
            }
            None if !list.is_empty() => diagnostic.help(format!("defined: {list}")),
            None if self.comparisons_left > 0 => diagnostic.help(nothing.to_owned()),
            None => diagnostic,
        };
        self.report(diagnostic);
    }

    pub(super) fn team(&mut self, node: &'n Node) -> Option<At<TeamId>> {
        let text = self.text(node, "a team's name")?;
        if let Some(id) = self.names.teams.get(text.value) {
            return Some(At::new(Id::new(id), text.span));
        }
        if !self.names.teams_hole {
            let known = self.worth_listing(|names| names.teams.names().collect());
            self.undefined(
                "E0303",
                "team",
                text.value,
                text.span,
                &mut known.into_iter(),
                "this file has no `teams` yet: add `teams: {name: {contact: ...}}`",
            );
        }
        None
    }

    pub(super) fn service_named(&mut self, name: &str, span: Span) -> Option<ServiceId> {
        if let Some(id) = self.names.services.get(name) {
            return Some(Id::new(id));
        }
        if !self.names.services_hole {
            let known = self.worth_listing(|names| names.services.names().collect());
            self.undefined(
                "E0301",
                "service",
                name,
                span,
                &mut known.into_iter(),
                "this file defines no services",
            );
        }
        None
    }

    /// `name@version` splits; a version must be one of the service's.
    pub(super) fn service_and_version(
        &mut self,
        text: &str,
        span: Span,
    ) -> Option<(At<ServiceId>, Option<At<String>>)> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let service = self.service_named(name, span)?;
        let version = version.map(|version| self.version_of(service, version, span));
        match version {
            Some(None) => None,
            Some(Some(version)) => Some((At::new(service, span), Some(version))),
            None => Some((At::new(service, span), None)),
        }
    }

    pub(super) fn version_of(&mut self, service: ServiceId, version: &str, span: Span) -> Option<At<String>> {
        let inside = &self.names.inside[service.index()];
        if inside.versions.contains(&version) {
            return Some(At::new(version.to_owned(), span));
        }
        if !inside.versions_hole {
            let known = inside.versions.clone();
            let owner = self.names.services.entries[service.index()];
            self.undefined(
                "E0306",
                &format!("version of `{}`", owner.key),
                version,
                span,
                &mut known.into_iter(),
                &format!("`{}` has no `versions`", owner.key),
            );
        }
        None
    }

    pub(super) fn operation_of(&mut self, service: ServiceId, name: &str, span: Span) -> Option<OperationId> {
        let inside = &self.names.inside[service.index()];
        let found = if inside.operations.len() > 8 {
            self.names.operations.get(&(service.as_u32(), name)).copied()
        } else {
            inside.operations.iter().position(|it| *it == name).map(|it| it as u32)
        };
        if let Some(id) = found {
            return Some(Id::new(id));
        }
        if !inside.operations_hole {
            let known = inside.operations.clone();
            let owner = self.names.services.entries[service.index()];
            self.undefined(
                "E0302",
                &format!("operation of `{}`", owner.key),
                name,
                span,
                &mut known.into_iter(),
                &format!(
                    "`{}` defines no operations: leave the operation out, or define it there",
                    owner.key
                ),
            );
        }
        None
    }

    pub(super) fn caller(&mut self, name: &str, span: Span) -> Option<Caller> {
        if let Some(id) = self.names.services.get(name) {
            return Some(Caller::Service(Id::new(id)));
        }
        if let Some(id) = self.names.gateways.get(name) {
            return Some(Caller::Gateway(Id::new(id)));
        }
        if !self.names.services_hole && !self.names.gateways_hole {
            let known =
                self.worth_listing(|names| names.services.names().chain(names.gateways.names()).collect());
            self.undefined(
                "E0305",
                "service or gateway",
                name,
                span,
                &mut known.into_iter(),
                "this file defines none",
            );
        }
        None
    }

    /// Whether a name is a service's or a gateway's.
    pub(super) fn is_caller(&self, name: &str) -> bool {
        self.names.services.get(name).is_some() || self.names.gateways.get(name).is_some()
    }

    pub(super) fn gateway_named(&self, name: &str) -> Option<GatewayId> {
        self.names.gateways.get(name).map(Id::new)
    }

    pub(super) fn team_named(&self, name: &str) -> Option<TeamId> {
        self.names.teams.get(name).map(Id::new)
    }

    pub(super) fn traffic_named(&mut self, name: &str, span: Span) -> Option<TrafficId> {
        if let Some(id) = self.names.traffic.get(name) {
            return Some(Id::new(id));
        }
        if !self.names.traffic_hole {
            let known = self.worth_listing(|names| names.traffic.names().collect());
            self.undefined(
                "E0307",
                "traffic",
                name,
                span,
                &mut known.into_iter(),
                "this file has no `traffic`",
            );
        }
        None
    }

    pub(super) fn region_named(&mut self, name: &str, span: Span) -> Option<RegionId> {
        if let Some(id) = self.names.regions.get(name) {
            return Some(Id::new(*id));
        }
        if !self.names.places_hole {
            let known: Vec<String> =
                self.system.regions.iter().map(|it: &Region| it.name.value.clone()).collect();
            self.undefined(
                "E0304",
                "region",
                name,
                span,
                &mut known.iter().map(String::as_str),
                "this file has no `places`",
            );
        }
        None
    }

    /// `eu-west` or `eu-west/a`.
    pub(super) fn place_named(&mut self, text: &str, span: Span) -> Option<Place> {
        let Some((region, zone)) = text.split_once('/') else {
            return self.region_named(text, span).map(Place::Region);
        };
        let region = self.region_named(region, span)?;
        let zones = &self.system.regions[region].zones;
        if let Some(index) = zones.iter().position(|it| it.value == zone) {
            return Some(Place::Zone(Zone { region, zone: index as u32 }));
        }
        if !self.names.places_hole {
            let known: Vec<String> = zones.iter().map(|it| it.value.clone()).collect();
            let kind = format!("zone of `{}`", self.system.regions[region].name.value);
            self.undefined(
                "E0304",
                &kind,
                zone,
                span,
                &mut known.iter().map(String::as_str),
                "this region has no zones",
            );
        }
        None
    }
}
