//! # draw: a system as a picture, and as the graph formats of others
//!
//! In: a [`Diagram`], plain boxes and arrows with names ([`levels`] makes one from a system at the level asked for).
//! Out: text in the [`Format`] asked for. Every writer takes the same diagram, so a picture, a GraphML file and the
//! JSON always show the same nodes and edges.
//!
//! Names come from files of strangers: each writer escapes for its own format, and no name can end a string, open a
//! tag or start a script.
//!
//! It writes no file and reads no clock; a time stamp that a format wants is an argument.

mod dot;
mod graphml;
mod json;
pub mod levels;
mod mermaid;
mod spigo;
mod svg;
mod text;

use std::fmt;
use std::str::FromStr;

/// What is drawn: the same for every format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagram {
    pub title: String,
    /// One line of what it shows: "8 services, 3 teams, 14 calls".
    pub subtitle: String,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in the diagram.
    pub id: String,
    pub name: String,
    /// A few words under the name.
    pub note: String,
    pub shape: Shape,
    pub group: Option<usize>,
    /// Nodes with the same number are instances of one thing and stand in one column.
    pub alike: Option<usize>,
    /// What a program may want to know, in a fixed order.
    pub facts: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub line: Line,
    /// What the arrow stands for, for a tooltip: "GET /cart/{id}".
    pub note: String,
    /// How many calls it stands for.
    pub calls: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    /// "team", "region" or "zone".
    pub what: &'static str,
    /// Comes before the group itself.
    pub parent: Option<usize>,
}

/// What a node is. Shown by shape and by a word, never by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    Gateway,
    Http,
    Grpc,
    Tcp,
    Cache,
    Store,
    Queue,
    External,
    Team,
    System,
}

impl Shape {
    pub fn word(self) -> &'static str {
        match self {
            Shape::Gateway => "gateway",
            Shape::Http => "http",
            Shape::Grpc => "grpc",
            Shape::Tcp => "tcp",
            Shape::Cache => "cache",
            Shape::Store => "store",
            Shape::Queue => "queue",
            Shape::External => "external",
            Shape::Team => "team",
            Shape::System => "system",
        }
    }
}

/// How the caller depends on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Line {
    /// It waits for the answer and cannot do without.
    Waits,
    /// It can do without the answer, or does not wait for it.
    Optional,
    /// It must be there for the other to start, but is not called by any known operation.
    Needs,
}

impl Line {
    pub fn word(self) -> &'static str {
        match self {
            Line::Waits => "waits",
            Line::Optional => "optional",
            Line::Needs => "needs",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Svg,
    Dot,
    Mermaid,
    GraphMl,
    Json,
    D3,
    Spigo,
}

impl Format {
    pub const ALL: [Format; 7] =
        [Format::Svg, Format::Dot, Format::Mermaid, Format::GraphMl, Format::Json, Format::D3, Format::Spigo];

    pub fn word(self) -> &'static str {
        match self {
            Format::Svg => "svg",
            Format::Dot => "dot",
            Format::Mermaid => "mermaid",
            Format::GraphMl => "graphml",
            Format::Json => "json",
            Format::D3 => "d3",
            Format::Spigo => "spigo",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Format::ALL.map(Format::word).join(", ");
        Format::ALL
            .into_iter()
            .find(|it| it.word() == text)
            .ok_or_else(|| format!("no format is called `{text}`: there are {}", all()))
    }
}

/// What some formats state about their own making.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    /// RFC 3339, for formats that carry a date; empty leaves it out.
    pub date: String,
    /// The command line that made it.
    pub args: String,
}

impl Diagram {
    pub fn write(&self, format: Format, stamp: &Stamp) -> String {
        match format {
            Format::Svg => svg::write(self),
            Format::Dot => dot::write(self),
            Format::Mermaid => mermaid::write(self),
            Format::GraphMl => graphml::write(self),
            Format::Json => json::write(self),
            Format::D3 => json::write_d3(self),
            Format::Spigo => spigo::write(self, stamp),
        }
    }
}
