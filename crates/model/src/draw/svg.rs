//! One self-contained SVG: no script, no font and no picture from elsewhere.
//!
//! A kind is told by shape and by the word under the name; colour only helps (the Okabe and Ito palette, which stays
//! apart in every kind of colour blindness). An arrow has the colour of what it goes to, so the eye can follow it into
//! a trunk. The reader's light or dark scheme is followed.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::text::{width, wrap, xml};
use super::{Diagram, Line, Node, Shape};
use crate::layout::{Graph, Hold, Picture, Point, Rect, Route};

const NAME_SIZE: f64 = 13.0;
const NOTE_SIZE: f64 = 10.5;
const LINE_HEIGHT: f64 = 16.0;
/// A longer name is broken into lines.
const NAME_WIDTH_MAX: f64 = 180.0;
const BOX_WIDTH_MIN: f64 = 92.0;
/// Left and right of the text, enough for the slanted and rounded shapes.
const BOX_PAD: f64 = 16.0;
/// A cylinder's lid takes this much room above the text.
const LID: f64 = 7.0;
const MARGIN: f64 = 28.0;
const TITLE_HEIGHT: f64 = 58.0;
const LEGEND_HEIGHT: f64 = 44.0;
/// Arrow labels are drawn in drawings with at most so many; elsewhere they are tooltips only.
const LABELS_MAX: usize = 60;

pub(super) fn write(diagram: &Diagram) -> String {
    let boxes: Vec<NodeBox> = diagram.nodes.iter().map(NodeBox::new).collect();
    // One width makes straight columns.
    let box_width = boxes.iter().map(|it| it.text_width).fold(BOX_WIDTH_MIN, f64::max) + 2.0 * BOX_PAD;
    let picture = lay_out(diagram, &boxes, box_width);

    let legend = legend(diagram, &picture);
    let title_width = width(&diagram.title, 20.0, true).max(width(&diagram.subtitle, 12.0, false));
    let content = picture.bounds.width().max(title_width).max(legend.width);
    let (full_width, full_height) =
        (content + 2.0 * MARGIN, picture.bounds.height() + TITLE_HEIGHT + LEGEND_HEIGHT + 2.0 * MARGIN);
    let shift = Point {
        x: MARGIN + (content - picture.bounds.width()) / 2.0 - picture.bounds.left,
        y: MARGIN + TITLE_HEIGHT - picture.bounds.top,
    };

    let mut out = String::new();
    let (w, h) = (full_width.ceil(), full_height.ceil());
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="isobar" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-labelledby="isobar-title isobar-desc">"#
    );
    let _ = writeln!(out, r#"<title id="isobar-title">{}</title>"#, xml(&diagram.title));
    let _ = writeln!(out, r#"<desc id="isobar-desc">{}</desc>"#, xml(&describe(diagram)));
    let _ = writeln!(out, "<style>{}</style>", style(diagram.edges.len()));
    write_markers(&mut out);
    let _ = writeln!(out, r#"<rect class="paper" width="100%" height="100%"/>"#);
    let _ = writeln!(
        out,
        r#"<text class="title" x="{MARGIN}" y="{}">{}</text>"#,
        MARGIN + 18.0,
        xml(&diagram.title)
    );
    let _ = writeln!(
        out,
        r#"<text class="subtitle" x="{MARGIN}" y="{}">{}</text>"#,
        MARGIN + 38.0,
        xml(&diagram.subtitle)
    );
    let _ = writeln!(out, r#"<g transform="translate({} {})">"#, number(shift.x), number(shift.y));
    for (group, frame) in diagram.groups.iter().zip(&picture.groups) {
        write_group(&mut out, group.what, &group.name, frame);
    }
    for (edge, route) in diagram.edges.iter().zip(&picture.edges) {
        write_edge(&mut out, diagram, edge, route);
    }
    for ((node, size), at) in diagram.nodes.iter().zip(&boxes).zip(&picture.nodes) {
        write_node(&mut out, node, size, box_width, *at);
    }
    if diagram.edges.len() <= LABELS_MAX {
        for (edge, route) in diagram.edges.iter().zip(&picture.edges) {
            if edge.calls > 1 {
                let at = middle(route);
                let (x, y) = (number(at.x), number(at.y - 4.0));
                let _ = writeln!(out, r#"<text class="count" x="{x}" y="{y}">{} calls</text>"#, edge.calls);
            }
        }
    }
    out.push_str("</g>\n");
    let _ = writeln!(
        out,
        r#"<g class="legend" transform="translate({MARGIN} {})">{}</g>"#,
        number(full_height - MARGIN - 20.0),
        legend.marks
    );
    out.push_str("</svg>\n");
    out
}

/// A node's text, broken into lines, and the room it takes.
struct NodeBox {
    lines: Vec<String>,
    text_width: f64,
    height: f64,
}

impl NodeBox {
    fn new(node: &Node) -> Self {
        let lines = wrap(&node.name, NAME_SIZE, true, NAME_WIDTH_MAX);
        let text_width = lines
            .iter()
            .map(|line| width(line, NAME_SIZE, true))
            .fold(width(&node.note, NOTE_SIZE, false), f64::max);
        let note = if node.note.is_empty() { 0.0 } else { 14.0 };
        let lid = if node.shape == Shape::Store { LID } else { 0.0 };
        Self { height: 16.0 + lid + lines.len() as f64 * LINE_HEIGHT + note, lines, text_width }
    }
}

fn lay_out(diagram: &Diagram, boxes: &[NodeBox], box_width: f64) -> Picture {
    let mut graph = Graph::default();
    for group in &diagram.groups {
        let label = group_label(group.what, &group.name);
        let at = graph.add_group(group.parent, width(&label, 11.0, true) + 28.0);
        if group.what != "team" {
            graph.keep_in_order(at);
        }
    }
    for (node, size) in diagram.nodes.iter().zip(boxes) {
        let at = graph.add_node(box_width, size.height, node.group, Hold::Free);
        if let Some(alike) = node.alike {
            graph.set_alike(at, alike);
        }
    }
    for edge in &diagram.edges {
        graph.add_edge(edge.from, edge.to);
    }
    graph.lay_out()
}

fn describe(diagram: &Diagram) -> String {
    /// A screen reader gets the whole graph as sentences while that is bearable.
    const SENTENCES_MAX: usize = 80;
    let mut text = diagram.subtitle.clone();
    if diagram.edges.len() <= SENTENCES_MAX {
        for (index, node) in diagram.nodes.iter().enumerate() {
            let mut called = BTreeSet::new();
            let targets: Vec<&str> = diagram
                .edges
                .iter()
                .filter(|edge| edge.from == index && called.insert(edge.to))
                .map(|edge| diagram.nodes[edge.to].name.as_str())
                .collect();
            if !targets.is_empty() {
                let _ = write!(text, ". {} calls {}", node.name, targets.join(", "));
            }
        }
    }
    text
}

/// Stroke and fill of each shape, in the light and in the dark.
const COLOURS: [(Shape, [&str; 2], [&str; 2]); 10] = [
    (Shape::Gateway, ["#334155", "#334155"], ["#cbd5e1", "#cbd5e1"]),
    (Shape::Http, ["#0072b2", "#eef6fb"], ["#58b0e6", "#12263a"]),
    (Shape::Grpc, ["#3f8fbf", "#edf7fd"], ["#8fd0f5", "#10303f"]),
    (Shape::Tcp, ["#64748b", "#f4f6f8"], ["#a3b1c4", "#1c2532"]),
    (Shape::Cache, ["#b87900", "#fdf6e7"], ["#f0b840", "#33280e"]),
    (Shape::Store, ["#007a59", "#e9f7f2"], ["#2fc79b", "#0c2f27"]),
    (Shape::Queue, ["#a8558a", "#fbf0f6"], ["#df9cc4", "#361f2f"]),
    (Shape::External, ["#6b7280", "#ffffff"], ["#9ca3af", "#0f1520"]),
    (Shape::Team, ["#334155", "#f4f6fa"], ["#cbd5e1", "#1b2535"]),
    (Shape::System, ["#334155", "#f4f6fa"], ["#cbd5e1", "#1b2535"]),
];
/// For arrows that close a cycle.
const BACKWARD: [&str; 2] = ["#d55e00", "#ff8f3f"];

fn style(edges: usize) -> String {
    // Many thin lines are a texture; a few should be lines.
    let (stroke, opacity) = match edges {
        0..=80 => (1.5, 0.8),
        81..=400 => (1.2, 0.65),
        _ => (1.0, 0.5),
    };
    let mut light = String::new();
    let mut dark = String::new();
    let schemes = [
        (&mut light, 0, "#ffffff", "#0f172a", "#5b6577", "#f7f9fb", "#d5dce6"),
        (&mut dark, 1, "#0b101a", "#e6ebf3", "#9aa7ba", "#121a27", "#2b384b"),
    ];
    for (css, scheme, paper, ink, faint, ground, border) in schemes {
        let _ = write!(
            css,
            ".isobar .paper{{fill:{paper}}}.isobar text{{fill:{ink}}}\
             .isobar .subtitle,.isobar .note,.isobar .legend text{{fill:{faint}}}\
             .isobar .group rect{{fill:{ground};stroke:{border}}}.isobar .group text{{fill:{faint}}}\
             .isobar .count{{fill:{faint};stroke:{paper}}}"
        );
        for (shape, of_light, of_dark) in COLOURS {
            let [stroke, fill] = if scheme == 0 { of_light } else { of_dark };
            let word = shape.word();
            let _ = write!(
                css,
                ".isobar .{word} .shape{{stroke:{stroke};fill:{fill}}}.isobar .to-{word}{{stroke:{stroke}}}\
                 .isobar .head-{word}{{fill:{stroke}}}"
            );
        }
        let backward = BACKWARD[scheme];
        let _ = write!(css, ".isobar .to-back{{stroke:{backward}}}.isobar .head-back{{fill:{backward}}}");
        let on_gateway = if scheme == 0 { "#ffffff" } else { "#0b101a" };
        let _ = write!(css, ".isobar .gateway text{{fill:{on_gateway}}}");
    }
    format!(
        ".isobar{{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"Helvetica Neue\",Arial,\"DejaVu Sans\",sans-serif}}\
         .isobar .title{{font-size:20px;font-weight:700}}.isobar .subtitle{{font-size:12px}}\
         .isobar .name{{font-size:{NAME_SIZE}px;font-weight:600;text-anchor:middle}}\
         .isobar .note{{font-size:{NOTE_SIZE}px;text-anchor:middle}}\
         .isobar .count{{font-size:10px;text-anchor:middle;stroke-width:3px;paint-order:stroke}}\
         .isobar .group text{{font-size:11px;font-weight:600;letter-spacing:.02em}}\
         .isobar .legend text{{font-size:11px}}\
         .isobar .shape{{stroke-width:1.5}}.isobar .inner{{fill:none}}\
         .isobar .external .shape,.isobar .legend .external .shape{{stroke-dasharray:5 3}}\
         .isobar .edge path{{fill:none;stroke-width:{stroke};stroke-opacity:{opacity}}}\
         .isobar .optional path{{stroke-dasharray:6 4}}.isobar .needs path{{stroke-dasharray:1.5 4;stroke-linecap:round}}\
         .isobar .edge:hover path{{stroke-width:3;stroke-opacity:1}}.isobar .node:hover .shape{{stroke-width:3}}\
         {light}@media (prefers-color-scheme:dark){{{dark}}}"
    )
}

fn write_markers(out: &mut String) {
    out.push_str("<defs>");
    for word in COLOURS.iter().map(|it| it.0.word()).chain(["back"]) {
        let _ = write!(
            out,
            r#"<marker id="isobar-to-{word}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path class="head-{word}" d="M0 1L10 5L0 9z"/></marker>"#
        );
    }
    out.push_str("</defs>\n");
}

fn group_label(what: &str, name: &str) -> String {
    format!("{what} {name}")
}

fn write_group(out: &mut String, what: &str, name: &str, frame: &Rect) {
    let _ = writeln!(
        out,
        r#"<g class="group"><rect x="{}" y="{}" width="{}" height="{}" rx="10"/><text x="{}" y="{}">{}</text></g>"#,
        number(frame.left),
        number(frame.top),
        number(frame.width()),
        number(frame.height()),
        number(frame.left + 12.0),
        number(frame.top + 17.0),
        xml(&group_label(what, name))
    );
}

fn write_edge(out: &mut String, diagram: &Diagram, edge: &super::Edge, route: &Route) {
    let (from, to) = (&diagram.nodes[edge.from], &diagram.nodes[edge.to]);
    let colour = if route.backward { "back" } else { to.shape.word() };
    let line = match edge.line {
        Line::Waits => "",
        Line::Optional => " optional",
        Line::Needs => " needs",
    };
    let mut title = format!("{} → {}", from.name, to.name);
    if !edge.note.is_empty() {
        let _ = write!(title, ": {}", edge.note);
    }
    let mut path = String::new();
    for (index, point) in route.points.iter().enumerate() {
        let command = match index {
            0 => "M",
            it if it % 3 == 1 => "C",
            _ => " ",
        };
        let _ = write!(path, "{command}{} {}", number(point.x), number(point.y));
    }
    let _ = writeln!(
        out,
        r#"<g class="edge{line}"><title>{}</title><path class="to-{colour}" d="{path}" marker-end="url(#isobar-to-{colour})"/></g>"#,
        xml(&title)
    );
}

fn write_node(out: &mut String, node: &Node, size: &NodeBox, box_width: f64, at: Point) {
    let mut title = node.name.clone();
    for (key, value) in &node.facts {
        let _ = write!(title, "\n{key}: {value}");
    }
    let title: Vec<String> = title.split('\n').map(xml).collect();
    let _ = write!(
        out,
        r#"<g class="node {}" transform="translate({} {})"><title>{}</title>{}"#,
        node.shape.word(),
        number(at.x - box_width / 2.0),
        number(at.y - size.height / 2.0),
        title.join("\n"),
        outline(node.shape, box_width, size.height)
    );
    let mut y = 20.0 + if node.shape == Shape::Store { LID } else { 0.0 };
    for line in &size.lines {
        let _ = write!(
            out,
            r#"<text class="name" x="{}" y="{}">{}</text>"#,
            number(box_width / 2.0),
            number(y),
            xml(line)
        );
        y += LINE_HEIGHT;
    }
    if !node.note.is_empty() {
        let _ = write!(
            out,
            r#"<text class="note" x="{}" y="{}">{}</text>"#,
            number(box_width / 2.0),
            number(y - 2.0),
            xml(&node.note)
        );
    }
    out.push_str("</g>\n");
}

/// The outline of a kind in a box of this size, from the origin. The middle of its left and right sides is upright in
/// every shape, because arrows end there.
fn outline(shape: Shape, w: f64, h: f64) -> String {
    let (w1, h1) = (number(w), number(h));
    match shape {
        Shape::Http | Shape::External | Shape::Team => {
            format!(r#"<rect class="shape" width="{w1}" height="{h1}" rx="8"/>"#)
        }
        Shape::Tcp => format!(r#"<rect class="shape" width="{w1}" height="{h1}"/>"#),
        Shape::Gateway => {
            let (neck, half) = (number(w - 9.0), number(h / 2.0));
            format!(
                r#"<path class="shape" d="M4 0H{neck}L{w1} {half}L{neck} {h1}H4Q0 {h1} 0 {}V4Q0 0 4 0z"/>"#,
                number(h - 4.0)
            )
        }
        Shape::Grpc => {
            let c = (h * 0.2).min(9.0);
            let (r, b, c) = (number(w - c), number(h - c), number(c));
            format!(r#"<path class="shape" d="M{c} 0H{r}L{w1} {c}V{b}L{r} {h1}H{c}L0 {b}V{c}z"/>"#)
        }
        Shape::Cache => {
            let inner = number(w - 6.0);
            format!(
                r#"<rect class="shape" width="{w1}" height="{h1}" rx="3"/><path class="shape inner" d="M6 0V{h1}M{inner} 0V{h1}"/>"#
            )
        }
        Shape::Store => {
            let (rx, ry) = (number(w / 2.0), 5.5);
            let (top, bottom) = (ry, number(h - ry));
            format!(
                r#"<path class="shape" d="M0 {top}A{rx} {ry} 0 0 1 {w1} {top}V{bottom}A{rx} {ry} 0 0 1 0 {bottom}z"/><path class="shape inner" d="M0 {top}A{rx} {ry} 0 0 0 {w1} {top}"/>"#
            )
        }
        Shape::Queue => {
            let (rx, ry) = (6.0, number(h / 2.0));
            let right = number(w - rx);
            format!(
                r#"<path class="shape" d="M{rx} 0H{right}A{rx} {ry} 0 0 1 {right} {h1}H{rx}A{rx} {ry} 0 0 1 {rx} 0z"/><path class="shape inner" d="M{right} 0A{rx} {ry} 0 0 0 {right} {h1}"/>"#
            )
        }
        Shape::System => format!(
            r#"<rect class="shape" width="{w1}" height="{h1}" rx="8"/><rect class="shape inner" x="3" y="3" width="{}" height="{}" rx="6"/>"#,
            number(w - 6.0),
            number(h - 6.0)
        ),
    }
}

struct Legend {
    marks: String,
    width: f64,
}

/// Only what the drawing holds.
fn legend(diagram: &Diagram, picture: &Picture) -> Legend {
    let mut marks = String::new();
    let mut x = 0.0;
    let shapes: BTreeSet<Shape> = diagram.nodes.iter().map(|node| node.shape).collect();
    for shape in shapes {
        let word = shape.word();
        let _ = write!(
            marks,
            r#"<g class="{word}" transform="translate({} 0)">{}</g><text x="{}" y="12">{word}</text>"#,
            number(x),
            outline(shape, 26.0, 16.0),
            number(x + 33.0)
        );
        x += 33.0 + width(word, 11.0, false) + 18.0;
    }
    let mut line = |class: &str, colour: &str, words: &str| {
        let _ = write!(
            marks,
            r#"<g class="edge {class}"><path class="to-{colour}" d="M{} 8H{}" marker-end="url(#isobar-to-{colour})"/></g><text x="{}" y="12">{words}</text>"#,
            number(x),
            number(x + 30.0),
            number(x + 37.0)
        );
        x += 37.0 + width(words, 11.0, false) + 18.0;
    };
    for (wanted, class, words) in [
        (Line::Waits, "", "waits for"),
        (Line::Optional, "optional", "can do without"),
        (Line::Needs, "needs", "needs to start"),
    ] {
        if diagram.edges.iter().any(|edge| edge.line == wanted) {
            line(class, "tcp", words);
        }
    }
    if picture.edges.iter().any(|route| route.backward) {
        line("", "back", "runs backwards: a cycle");
    }
    Legend { marks, width: x }
}

/// A point to write on: the middle of the middle curve.
fn middle(route: &Route) -> Point {
    let pieces = (route.points.len() - 1) / 3;
    let at = pieces / 2 * 3;
    let [a, b, c, d] = [0, 1, 2, 3].map(|it| route.points[at + it]);
    Point { x: (a.x + 3.0 * b.x + 3.0 * c.x + d.x) / 8.0, y: (a.y + 3.0 * b.y + 3.0 * c.y + d.y) / 8.0 }
}

/// A tenth of a pixel is enough, and short numbers keep the file small.
fn number(value: f64) -> String {
    let tenths = (value * 10.0).round() as i64;
    match (tenths / 10, (tenths % 10).abs()) {
        (whole, 0) => whole.to_string(),
        (0, tenth) if tenths < 0 => format!("-0.{tenth}"),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}
