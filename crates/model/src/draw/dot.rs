//! Graphviz.

use super::{Diagram, Line, Shape};

pub(super) fn write(diagram: &Diagram) -> String {
    let mut out = String::new();
    out.push_str(&format!("digraph {} {{\n", quote(&diagram.title)));
    out.push_str("  rankdir=LR;\n  node [fontname=\"sans-serif\", style=filled, fillcolor=white];\n");
    out.push_str("  edge [fontname=\"sans-serif\"];\n");
    write_members(diagram, None, "  ", &mut out);
    for edge in &diagram.edges {
        let style = match edge.line {
            Line::Waits => "solid",
            Line::Optional => "dashed",
            Line::Needs => "dotted",
        };
        out.push_str(&format!(
            "  {} -> {} [style={style}, tooltip={}];\n",
            quote(&diagram.nodes[edge.from].id),
            quote(&diagram.nodes[edge.to].id),
            quote(&edge.note)
        ));
    }
    out.push_str("}\n");
    out
}

fn write_members(diagram: &Diagram, group: Option<usize>, indent: &str, out: &mut String) {
    for node in diagram.nodes.iter().filter(|node| node.group == group) {
        let shape = match node.shape {
            Shape::Gateway => "cds",
            Shape::Http => "box, style=\"rounded,filled\"",
            Shape::Grpc => "octagon",
            Shape::Tcp => "box",
            Shape::Cache => "box3d",
            Shape::Store => "cylinder",
            Shape::Queue => "parallelogram",
            Shape::External => "box, style=\"dashed,rounded\"",
            Shape::Team => "tab",
            Shape::System => "component",
        };
        let label = match node.note.is_empty() {
            true => node.name.clone(),
            false => format!("{}\n{}", node.name, node.note),
        };
        out.push_str(&format!("{indent}{} [shape={shape}, label={}];\n", quote(&node.id), quote(&label)));
    }
    for (index, inner) in diagram.groups.iter().enumerate().filter(|(_, it)| it.parent == group) {
        let label = quote(&format!("{} {}", inner.what, inner.name));
        out.push_str(&format!("{indent}subgraph cluster_{index} {{\n{indent}  label={label};\n"));
        write_members(diagram, Some(index), &format!("{indent}  "), out);
        out.push_str(&format!("{indent}}}\n"));
    }
}

/// A quoted string of the language. `\` is doubled so that no name can write Graphviz's own escapes (`\N`, `\G`).
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for it in text.chars() {
        match it {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            it if it.is_control() => quoted.push('\u{fffd}'),
            it => quoted.push(it),
        }
    }
    quoted.push('"');
    quoted
}
