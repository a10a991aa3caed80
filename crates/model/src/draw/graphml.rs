//! GraphML with every key declared, for yEd, Gephi, Cytoscape and their kind.

use std::collections::BTreeSet;

use super::Diagram;
use super::text::xml;

pub(super) fn write(diagram: &Diagram) -> String {
    let facts: BTreeSet<&str> =
        diagram.nodes.iter().flat_map(|node| node.facts.iter().map(|(key, _)| *key)).collect();
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:schemaLocation=\"http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd\">\n",
    );
    for key in ["name", "kind", "group"].into_iter().chain(facts.iter().copied()) {
        let key = xml(key);
        out.push_str(&format!(
            "  <key id=\"n-{key}\" for=\"node\" attr.name=\"{key}\" attr.type=\"string\"/>\n"
        ));
    }
    out.push_str("  <key id=\"e-line\" for=\"edge\" attr.name=\"line\" attr.type=\"string\"/>\n");
    out.push_str("  <key id=\"e-calls\" for=\"edge\" attr.name=\"calls\" attr.type=\"int\"/>\n");
    out.push_str(&format!("  <graph id=\"{}\" edgedefault=\"directed\">\n", xml(&diagram.title)));
    for node in &diagram.nodes {
        out.push_str(&format!("    <node id=\"{}\">", xml(&node.id)));
        let group = node.group.map(|it| path(diagram, it)).unwrap_or_default();
        let own = [("name", node.name.as_str()), ("kind", node.shape.word()), ("group", group.as_str())];
        for (key, value) in
            own.into_iter().chain(node.facts.iter().map(|(key, value)| (*key, value.as_str())))
        {
            if !value.is_empty() {
                out.push_str(&format!("<data key=\"n-{}\">{}</data>", xml(key), xml(value)));
            }
        }
        out.push_str("</node>\n");
    }
    for (index, edge) in diagram.edges.iter().enumerate() {
        let (from, to) = (xml(&diagram.nodes[edge.from].id), xml(&diagram.nodes[edge.to].id));
        out.push_str(&format!(
            "    <edge id=\"e{}\" source=\"{from}\" target=\"{to}\"><data key=\"e-line\">{}</data><data key=\"e-calls\">{}</data></edge>\n",
            index + 1,
            edge.line.word(),
            edge.calls
        ));
    }
    out.push_str("  </graph>\n</graphml>\n");
    out
}

/// `eu-west/a`: a group and those around it.
fn path(diagram: &Diagram, group: usize) -> String {
    let mut names: Vec<&str> = std::iter::successors(Some(group), |&it| diagram.groups[it].parent)
        .map(|it| diagram.groups[it].name.as_str())
        .collect();
    names.reverse();
    names.join("/")
}
