//! Tree to [`System`]: every name becomes an id, every text a quantity, every mistake a [`Diagnostic`].
//!
//! Two passes. The first collects what is *defined* (teams, places, services with their operations and versions,
//! gateways, traffic), even where a definition is otherwise wrong; the second reads everything. So a service that
//! cannot be read is one mistake, and the hundred calls to it are none.
//!
//! **Refuses to guess:** a number without its unit, a name nobody defined, a key nobody knows. Where a place of the
//! text was lost to a syntax error ([`crate::text::Map::hole`]), nothing is concluded from what seems missing there.

mod edge;
mod fields;
mod gateway;
mod grammar;
mod names;
mod operation;
mod place;
mod scale;
mod scenario;
mod service;
mod suggest;
mod traffic;
mod waive;

use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{System, Team};
use crate::text::{Entry, Node, Value};
use names::Names;
pub(crate) use names::is_name;
use std::collections::HashMap;
use suggest::misspelt;
pub use suggest::suggestion;
use units::Dist;

/// Beyond this many mistakes nobody reads on, and a hostile file must not fill the memory with them.
const MISTAKES_MAX: usize = 10_000;

/// Comparisons that "did you mean" may make in one run: a few milliseconds for ordinary files.
const COMPARISONS_MAX: usize = 4_000_000;

/// One parsed file: the root first, then what it includes.
#[derive(Debug)]
pub struct File {
    pub root: Node,
}

/// Reads a file of data (`empirical(work.csv)`) named in the given file; `Err` says why not, in words.
pub type ReadData<'r> = dyn FnMut(u32, &str) -> Result<String, String> + 'r;

/// Resolves files into one system. The system is complete only if no diagnostic is an error. `incomplete` says that a
/// file could not be read, so that what nobody seems to define may be defined there.
pub fn resolve(
    files: &[File],
    default_name: &str,
    incomplete: bool,
    read_data: &mut ReadData<'_>,
) -> (System, Vec<Diagnostic>) {
    let mut resolver = Resolver {
        read_data,
        empirical: HashMap::new(),
        system: System::default(),
        names: Names::default(),
        diagnostics: Vec::new(),
        comparisons_left: COMPARISONS_MAX,
        refused: 0,
    };
    resolver.names.all_holes(incomplete);
    resolver.run(files, default_name);
    (resolver.system, resolver.diagnostics)
}

struct Resolver<'n, 'r> {
    read_data: &'r mut ReadData<'r>,
    /// By file and name; `None` was reported.
    empirical: HashMap<(u32, String), Option<Dist>>,
    system: System,
    names: Names<'n>,
    diagnostics: Vec<Diagnostic>,
    comparisons_left: usize,
    /// Mistakes beyond [`MISTAKES_MAX`].
    refused: usize,
}

/// The sections of all files together, in file order.
#[derive(Default)]
struct Sections<'n> {
    teams: Vec<&'n Entry>,
    places: Vec<&'n Entry>,
    network: Vec<&'n Entry>,
    services: Vec<&'n Entry>,
    edges: Vec<&'n Entry>,
    gateways: Vec<&'n Entry>,
    traffic: Vec<&'n Entry>,
    scenarios: Vec<&'n Entry>,
    waive: Vec<&'n Node>,
}

impl<'n> Resolver<'n, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MISTAKES_MAX {
            self.diagnostics.push(diagnostic);
        } else {
            self.refused += 1;
        }
    }

    fn run(&mut self, files: &'n [File], default_name: &str) {
        default_name.clone_into(&mut self.system.name);
        let mut sections = Sections::default();
        for (index, file) in files.iter().enumerate() {
            self.top_level(&file.root, index == 0, &mut sections);
        }
        self.declare(&sections);
        self.teams();
        self.network(&sections.network);
        self.services();
        self.edges(&sections.edges);
        self.gateways();
        self.all_traffic();
        self.scenarios(&sections.scenarios);
        self.waivers(&sections.waive);
        if self.refused > 0 {
            let (refused, span) = (self.refused, files.first().map_or(Span::default(), |it| it.root.span));
            let span = Span { end: span.start, ..span };
            self.diagnostics.push(
                Diagnostic::error("E0213", span, format!("and {refused} mistakes more"))
                    .label(format!("only the first {MISTAKES_MAX} are listed")),
            );
        }
    }

    fn top_level(&mut self, root: &'n Node, first: bool, sections: &mut Sections<'n>) {
        let Some(mut f) = self.fields(root, "the file") else {
            self.names.services_hole = true;
            return;
        };
        f.own_keys = true;
        // What a root's missing key is about is the file's beginning, not all of it.
        f.span = Span { end: root.span.start, ..root.span };
        let version = if first { f.require(self, "isobar", "1") } else { f.get("isobar") };
        if let Some(text) = version.and_then(|node| self.text(node, "the format's version"))
            && text.value != "1"
        {
            let found = fields::shorten(text.value);
            self.report(
                Diagnostic::error("E0210", text.span, format!("this isobar reads format 1, not `{found}`"))
                    .label("unknown version of the format")
                    .help("write `isobar: 1`")
                    .replacement("1"),
            );
        }
        if let Some(node) = f.get("system")
            && let Some(name) = self.name(node, "a system's name")
        {
            if first {
                name.value.clone_into(&mut self.system.name);
            } else {
                self.report(
                    Diagnostic::error("E0211", node.span, "only the first file names the system")
                        .label("in an included file"),
                );
            }
        }
        // The loader has read it; here it is only known.
        f.get("include");
        for (key, list, incomplete) in [
            ("teams", &mut sections.teams, &mut self.names.teams_hole),
            ("places", &mut sections.places, &mut self.names.places_hole),
            ("services", &mut sections.services, &mut self.names.services_hole),
            ("gateways", &mut sections.gateways, &mut self.names.gateways_hole),
            ("traffic", &mut sections.traffic, &mut self.names.traffic_hole),
        ] {
            // A section that cannot be read, or a hole where it may have stood, leaves its names unknown.
            match f.get(key).map(|node| &node.value) {
                Some(Value::Map(map)) => {
                    *incomplete |= map.hole;
                    list.extend(&map.entries);
                }
                Some(_) => *incomplete = true,
                None => *incomplete |= root.as_map().is_some_and(|map| map.hole || misspelt(map, key)),
            }
        }
        for key in ["teams", "places", "services", "gateways", "traffic"] {
            if let Some(node) = f.get(key) {
                self.entries(node, key);
            }
        }
        for (key, list) in [
            ("network", &mut sections.network),
            ("edges", &mut sections.edges),
            ("scenarios", &mut sections.scenarios),
        ] {
            if let Some(node) = f.get(key) {
                list.extend(self.entries(node, key));
            }
        }
        if let Some(node) = f.get("waive")
            && !node.is_null()
        {
            sections.waive.extend(self.list(node, "waivers"));
        }
        f.finish(self);
    }

    fn teams(&mut self) {
        for entry in self.names.teams.entries.clone() {
            let mut team =
                Team { name: At::new(entry.key.to_string(), entry.key_span), contact: None, oncall: None };
            if let Some(mut f) = self.fields(&entry.value, "a team") {
                team.contact = f.get("contact").and_then(|node| self.owned(node, "a contact"));
                team.oncall = f.get("oncall").and_then(|node| self.owned(node, "who is on call"));
                f.finish(self);
            }
            self.system.teams.push(team);
        }
    }
}
