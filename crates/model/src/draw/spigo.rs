//! The graph JSON of spigo (`spigo-0.4`), so that its viewer and scripts can read our systems.
//!
//! Names are `arch.region.zone.instance`; whatever is in no zone or region has `*` there. Addresses are left out: spigo
//! dealt them in logging order, so nothing can depend on them.

use serde_json::{Value, json};

use super::{Diagram, Shape, Stamp};

pub(super) fn write(diagram: &Diagram, stamp: &Stamp) -> String {
    let names: Vec<String> = diagram
        .nodes
        .iter()
        .map(|node| {
            let fact =
                |key: &str| node.facts.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
            let part = |key: &str| fact(key).filter(|it| !it.is_empty()).unwrap_or("*").to_string();
            [diagram.title.clone(), part("region"), part("zone"), node.name.clone()].join(".")
        })
        .collect();
    let mut records: Vec<Value> = Vec::new();
    for (node, name) in diagram.nodes.iter().zip(&names) {
        let package = node.facts.iter().find(|(key, _)| *key == "package").map(|(_, value)| value.as_str());
        let package = package.unwrap_or(match node.shape {
            Shape::Gateway => "zuul",
            Shape::Cache => "cache",
            Shape::Store => "store",
            Shape::Queue | Shape::External | Shape::Tcp => "monolith",
            Shape::Http | Shape::Grpc | Shape::Team | Shape::System => "karyon",
        });
        records.push(json!({"node": name, "package": package, "timestamp": stamp.date, "metadata": ""}));
    }
    for (index, edge) in diagram.edges.iter().enumerate() {
        records.push(json!({
            "edge": format!("e{}", index + 1),
            "source": names[edge.from],
            "target": names[edge.to],
            "timestamp": stamp.date,
        }));
    }
    let lines: Vec<String> = records.iter().map(|it| format!(" {it}")).collect();
    format!(
        "{{\"arch\":{},\"version\":\"spigo-0.4\",\"args\":{},\"date\":{},\"graph\":[\n{}]}}\n",
        Value::from(diagram.title.as_str()),
        Value::from(stamp.args.as_str()),
        Value::from(stamp.date.as_str()),
        lines.join(",\n")
    )
}
