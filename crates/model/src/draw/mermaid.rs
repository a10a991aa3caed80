//! Mermaid flowcharts, for Markdown that renders them.

use super::{Diagram, Line, Shape};

pub(super) fn write(diagram: &Diagram) -> String {
    let mut out = format!("---\ntitle: {}\n---\nflowchart LR\n", front_matter(&diagram.title));
    write_members(diagram, None, "  ", &mut out);
    for edge in &diagram.edges {
        let arrow = match edge.line {
            Line::Waits => "-->",
            Line::Optional => "-.->",
            Line::Needs => "-. needs .->",
        };
        out.push_str(&format!("  n{} {arrow} n{}\n", edge.from, edge.to));
    }
    out
}

fn write_members(diagram: &Diagram, group: Option<usize>, indent: &str, out: &mut String) {
    for (index, node) in diagram.nodes.iter().enumerate().filter(|(_, node)| node.group == group) {
        let (open, close) = match node.shape {
            Shape::Gateway => (">", "]"),
            Shape::Http => ("(", ")"),
            Shape::Grpc => ("{{", "}}"),
            Shape::Tcp => ("[", "]"),
            Shape::Cache => ("[[", "]]"),
            Shape::Store => ("[(", ")]"),
            Shape::Queue => ("[/", "/]"),
            Shape::External => ("([", "])"),
            Shape::Team | Shape::System => ("[", "]"),
        };
        let label = match node.note.is_empty() {
            true => text(&node.name),
            false => format!("{}<br/>{}", text(&node.name), text(&node.note)),
        };
        out.push_str(&format!("{indent}n{index}{open}\"{label}\"{close}\n"));
    }
    for (index, inner) in diagram.groups.iter().enumerate().filter(|(_, it)| it.parent == group) {
        out.push_str(&format!("{indent}subgraph g{index} [\"{} {}\"]\n", inner.what, text(&inner.name)));
        write_members(diagram, Some(index), &format!("{indent}  "), out);
        out.push_str(&format!("{indent}end\n"));
    }
}

/// Node names here are numbers of our own (`end` and others would break the parser); labels are quoted, and what means
/// something inside quotes is written as a character entity.
fn text(text: &str) -> String {
    let mut escaped = String::new();
    for it in text.chars() {
        match it {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '-' | '_' | '.' | ',' | '/' | ':' | '×' | '·' => {
                escaped.push(it)
            }
            it if it.is_control() => escaped.push('\u{fffd}'),
            it if it.is_ascii() => escaped.push_str(&format!("#{};", it as u32)),
            it => escaped.push(it),
        }
    }
    escaped
}

/// A YAML double-quoted string; JSON's rules are a subset of it.
fn front_matter(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
