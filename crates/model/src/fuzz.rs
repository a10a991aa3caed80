//! What a fuzzer calls: any bytes are read, checked, linted and drawn, and nothing may panic, hang or grow without
//! bound. The laws asserted here hold for every input.

use crate::draw::levels::{self, Level};
use crate::draw::{Diagram, Edge, Format, Group, Line, Node, Shape, Stamp};
use crate::import::{self, ImportError, Imported};
use crate::load::{Memory, load_str, load_text};
use crate::render::{self, Places, Style};
use crate::{check, lint};
use std::path::{Path, PathBuf};

/// Bytes as a file. After the line `#---` they are a second file, which the first may include as `more.yaml`.
pub fn fuzz_check(data: &[u8]) {
    let cut = data.windows(6).position(|it| it == b"\n#---\n");
    let (first, second) = match cut {
        Some(at) => (&data[..at + 1], &data[at + 6..]),
        None => (data, &[][..]),
    };
    let mut loader = Memory::default();
    loader.files.insert(PathBuf::from("more.yaml"), second.to_vec());
    let loaded = load_text(&loader, Path::new("isobar.yaml"), first.to_vec());
    let mut all = loaded.diagnostics.clone();
    if let Some(system) = loaded.system() {
        all.extend(lint::run(system, (2026, 11, 20)));
        for (caller, callee) in check::edges(system).into_iter().take(100) {
            let in_force = system.policy(caller, callee, None);
            assert!(in_force.set_by.len() <= 12);
        }
    }
    assert!(loaded.is_good() || !loaded.diagnostics.is_empty());
    let places = Places::new(&loaded.sources);
    for diagnostic in all.iter().take(50) {
        assert!(!diagnostic.message.is_empty() && !diagnostic.code.is_empty());
        assert!(places.of(diagnostic.span).is_some(), "every mistake has a place: {diagnostic:?}");
        let line = render::json_line(&places, diagnostic).to_string();
        assert!(!line.contains('\n'), "one diagnostic is one line");
    }
    let drawn = render::human(&loaded.sources, &all, Style { most: 20, ..Style::default() });
    let inert = |c: char| c == '\n' || !c.is_control();
    assert!(drawn.chars().all(inert), "what a user wrote reaches the terminal: {drawn:?}");
    assert!(render::sarif(&loaded.sources, &all[..all.len().min(20)], "0").is_object());
}

/// Two bytes of options, then bytes as a spigo architecture.
pub fn fuzz_spigo(data: &[u8]) {
    let (options, json) = data.split_at(data.len().min(2));
    let option = |at: usize| u32::from(options.get(at).copied().unwrap_or_default());
    let options = import::spigo::Options { regions: 1 + option(0) % 3, scale: option(1) };
    imports_well(import::spigo::import(json, options));
}

/// Bytes as a compose file.
pub fn fuzz_compose(data: &[u8]) {
    imports_well(import::compose::import(data, "fuzz"));
}

/// What an importer accepts is a file we accept, and everything it lost has a place and a reason.
fn imports_well(imported: Result<Imported, ImportError>) {
    /// Beyond this, wiring every pair is slow, not wrong.
    const INSTANCES_MAX: usize = 300;
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => return assert!(!error.to_string().is_empty(), "a refusal says why"),
    };
    assert!(imported.dropped.iter().all(|it| !it.path.is_empty() && !it.reason.is_empty()));
    let loaded = load_str(&imported.text);
    assert!(loaded.is_good(), "{}\n{:?}", imported.text, loaded.diagnostics);
    let Some(system) = loaded.system() else { return };
    if crate::place::instances(system).is_ok_and(|it| it.len() <= INSTANCES_MAX) {
        for level in Level::ALL {
            let diagram = levels::diagram(system, level).expect("few instances have few wires");
            let names: std::collections::BTreeSet<&str> =
                diagram.nodes.iter().map(|it| it.id.as_str()).collect();
            assert_eq!(names.len(), diagram.nodes.len(), "every node has a name of its own");
        }
    }
}

/// Bytes as a diagram: three bytes an arrow, then the names of everything. Every format must hold them.
pub fn fuzz_draw(data: &[u8]) {
    const SHAPES: [Shape; 10] = [
        Shape::Gateway,
        Shape::Http,
        Shape::Grpc,
        Shape::Tcp,
        Shape::Cache,
        Shape::Store,
        Shape::Queue,
        Shape::External,
        Shape::Team,
        Shape::System,
    ];
    const LINES: [Line; 3] = [Line::Waits, Line::Optional, Line::Needs];
    let [nodes, groups, edges, rest @ ..] = data else { return };
    let (nodes, groups) = (usize::from(*nodes) % 40, usize::from(*groups) % 5);
    let (arrows, names) = rest.split_at(rest.len().min(usize::from(*edges) * 3));
    let names = String::from_utf8_lossy(names);
    let mut names = names.split('\n').cycle();
    let mut name = || names.next().unwrap_or_default().to_string();
    let mut diagram = Diagram { title: name(), subtitle: name(), ..Diagram::default() };
    for index in 0..groups {
        let parent = (index % 2 == 1).then(|| index - 1);
        diagram.groups.push(Group { name: name(), what: ["team", "region", "zone"][index % 3], parent });
    }
    for index in 0..nodes {
        diagram.nodes.push(Node {
            id: format!("{index}{}", name()),
            name: name(),
            note: name(),
            shape: SHAPES[index % SHAPES.len()],
            group: (groups > 0 && index % 3 > 0).then(|| index % groups.max(1)),
            alike: (index % 4 == 0).then_some(index / 8),
            facts: vec![("region", name()), ("zone", name())],
        });
    }
    for arrow in arrows.chunks_exact(3).filter(|_| nodes > 0) {
        diagram.edges.push(Edge {
            from: usize::from(arrow[0]) % nodes,
            to: usize::from(arrow[1]) % nodes,
            line: LINES[usize::from(arrow[2]) % LINES.len()],
            note: name(),
            calls: usize::from(arrow[2]),
        });
    }
    for format in Format::ALL {
        let written = diagram.write(format, &Stamp::default());
        assert_eq!(written, diagram.write(format, &Stamp::default()), "the same input makes the same bytes");
        match format {
            Format::Json | Format::D3 | Format::Spigo => {
                serde_json::from_str::<serde_json::Value>(&written).expect("what claims to be JSON is JSON");
            }
            Format::Svg | Format::GraphMl => {
                let tags = written.matches('<').count();
                assert_eq!(tags, written.matches('>').count(), "no name opens or closes a tag");
                assert!(!written.contains("<script"), "no name becomes a script");
                assert!(
                    !written.contains("NaN") || format!("{diagram:?}").contains("NaN"),
                    "every place is a number"
                );
            }
            Format::Dot | Format::Mermaid => {}
        }
    }
}
