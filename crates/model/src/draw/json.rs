//! Plain JSON for programs, and the shape force-layout pages expect.

use serde_json::{Map, Value, json};

use super::{Diagram, Node};

/// `{"nodes": [...], "edges": [...]}`; every edge names its ends by id.
pub(super) fn write(diagram: &Diagram) -> String {
    let nodes = diagram.nodes.iter().map(|node| Value::Object(describe(diagram, node)));
    let edges = diagram.edges.iter().map(|edge| {
        json!({
            "source": diagram.nodes[edge.from].id,
            "target": diagram.nodes[edge.to].id,
            "line": edge.line.word(),
            "calls": edge.calls,
        })
    });
    let (nodes, edges): (Vec<_>, Vec<_>) = (nodes.collect(), edges.collect());
    pretty(&diagram.title, "nodes", nodes, "edges", edges)
}

/// `{"nodes": [...], "links": [...]}`, as d3-force and its examples read it.
pub(super) fn write_d3(diagram: &Diagram) -> String {
    let nodes = diagram.nodes.iter().map(|node| Value::Object(describe(diagram, node)));
    let links = diagram.edges.iter().map(|edge| {
        json!({
            "source": diagram.nodes[edge.from].id,
            "target": diagram.nodes[edge.to].id,
            "value": edge.calls,
        })
    });
    let (nodes, links): (Vec<_>, Vec<_>) = (nodes.collect(), links.collect());
    pretty(&diagram.title, "nodes", nodes, "links", links)
}

fn describe(diagram: &Diagram, node: &Node) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("id".into(), node.id.clone().into());
    map.insert("name".into(), node.name.clone().into());
    map.insert("kind".into(), node.shape.word().into());
    if let Some(group) = node.group {
        map.insert("group".into(), diagram.groups[group].name.clone().into());
    }
    for (key, value) in &node.facts {
        map.insert((*key).into(), value.clone().into());
    }
    map
}

/// One node or edge a line: short enough to read, and a changed service is a changed line.
fn pretty(title: &str, first: &str, nodes: Vec<Value>, second: &str, edges: Vec<Value>) -> String {
    let list = |items: Vec<Value>| match items.is_empty() {
        true => "[]".to_string(),
        false => {
            let lines: Vec<String> = items.iter().map(|it| format!("    {it}")).collect();
            format!("[\n{}\n  ]", lines.join(",\n"))
        }
    };
    let title = Value::from(title);
    format!(
        "{{\n  \"title\": {title},\n  \"{first}\": {},\n  \"{second}\": {}\n}}\n",
        list(nodes),
        list(edges)
    )
}
