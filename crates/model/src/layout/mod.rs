//! # layout: where everything in a drawing goes
//!
//! In: boxes with sizes, arrows between them (cycles allowed), nested groups around them, and, when a drawing
//! already exists, where the boxes were. Out: a position for every box, a smooth curve for every arrow, a
//! rectangle for every group.
//!
//! The drawing is layered: who calls stands left of who is called, so a reader follows a request from left to
//! right and a cycle shows as the arrow that runs backwards. The steps are the classic ones (break cycles, assign
//! layers, order each layer to cross few arrows, choose rows, draw curves), with two choices of our own:
//!
//! - **Trunks.** Long arrows to the same target share one horizontal line, as tributaries share a river. A line
//!   then never means two targets, and a store used by a hundred services costs one line instead of a hundred.
//! - **One projection knows every rule.** Rows come from a solver ([`separate`]) that takes all "this stays above
//!   that by so much" rules at once, groups' borders included; so groups never overlap and never swallow a stranger.
//!
//! **Stability.** There is no randomness and no clock: same input, same bytes. Given the earlier positions
//! ([`Hold::Near`]) everything stays where it was but for what must make room, so a map does not jump when a file
//! changes a little.
//!
//! **Cost.** About n log n. When long arrows would need more than [`BENDS_MAX`] bends in all, the longest ones are
//! drawn straight through instead: a drawing that size is a texture anyway, and memory stays bounded.
//!
//! It refuses to know what a service is: `draw` translates.
//!
//! ```
//! use model::layout::{Graph, Hold};
//! let mut graph = Graph::default();
//! let [web, cart, store] = ["web", "cart", "store"].map(|_| graph.add_node(120.0, 40.0, None, Hold::Free));
//! graph.add_edge(web, cart);
//! graph.add_edge(cart, store);
//! let picture = graph.lay_out();
//! assert!(picture.nodes[web].x < picture.nodes[cart].x && picture.nodes[cart].x < picture.nodes[store].x);
//! ```

mod columns;
mod layers;
mod order;
mod route;
mod rows;
mod separate;
#[cfg(test)]
mod tests;

pub(crate) use layers::strong_components;

/// The most bends (places where a long arrow passes a layer) a drawing may hold; see the module's cost.
pub const BENDS_MAX: usize = 60_000;
/// Free space between two boxes of a column. A line passes through exactly this much.
const BOX_GAP: f64 = 20.0;

/// What to draw. Indices are those that `add_*` returned.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Node {
    width: f64,
    height: f64,
    group: Option<usize>,
    hold: Hold,
    /// Nodes with the same number share a layer: the instances of one service.
    alike: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
}

#[derive(Clone, Debug)]
struct Group {
    parent: Option<usize>,
    label_width: f64,
    in_order: bool,
}

/// What is already known about a node's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hold {
    /// Nothing: place it well.
    Free,
    /// It was here in an earlier drawing and should move only to make room.
    Near(Point),
    /// A person put it here. It stays even if it then covers something.
    Pinned(Point),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    fn include(&mut self, other: &Rect) {
        self.left = self.left.min(other.left);
        self.top = self.top.min(other.top);
        self.right = self.right.max(other.right);
        self.bottom = self.bottom.max(other.bottom);
    }
}

/// An arrow as cubic Bézier curves: the start, then three points a piece (two handles and the piece's end).
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub points: Vec<Point>,
    /// It runs against the reading direction: it closes a cycle, or it was made to by held positions.
    pub backward: bool,
}

/// A finished layout. Everything in it is in the order it was added to the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Centres.
    pub nodes: Vec<Point>,
    pub edges: Vec<Route>,
    pub groups: Vec<Rect>,
    pub bounds: Rect,
}

impl Graph {
    /// # Panics
    /// If `group` was not returned by [`Graph::add_group`], or a size is not a positive number.
    pub fn add_node(&mut self, width: f64, height: f64, group: Option<usize>, hold: Hold) -> usize {
        assert!(group.is_none_or(|it| it < self.groups.len()), "a node's group comes from `add_group`");
        assert!(width > 0.0 && height > 0.0 && width.is_finite() && height.is_finite(), "a node has a size");
        self.nodes.push(Node { width, height, group, hold, alike: None });
        self.nodes.len() - 1
    }

    /// Keeps a node in one layer with all others that were given the same number.
    pub fn set_alike(&mut self, node: usize, alike: usize) {
        self.nodes[node].alike = Some(alike);
    }

    /// # Panics
    /// If an end was not returned by [`Graph::add_node`].
    pub fn add_edge(&mut self, from: usize, to: usize) -> usize {
        assert!(from < self.nodes.len() && to < self.nodes.len(), "an edge's ends come from `add_node`");
        self.edges.push(Edge { from, to });
        self.edges.len() - 1
    }

    /// A group is a rectangle around its nodes and inner groups; its label is written on its upper left.
    ///
    /// # Panics
    /// If `parent` was not returned by an earlier call.
    pub fn add_group(&mut self, parent: Option<usize>, label_width: f64) -> usize {
        assert!(parent.is_none_or(|it| it < self.groups.len()), "a group's parent comes from `add_group`");
        self.groups.push(Group { parent, label_width, in_order: false });
        self.groups.len() - 1
    }

    /// Keeps a group below all earlier ones around it that are kept in order too, even if more arrows cross: zones are
    /// looked for in alphabetical order.
    pub fn keep_in_order(&mut self, group: usize) {
        self.groups[group].in_order = true;
    }

    pub fn lay_out(&self) -> Picture {
        let layers = layers::assign(self);
        let mut ladder = order::Ladder::new(self, &layers);
        ladder.arrange(self);
        let rows = rows::assign(self, &ladder);
        let columns = columns::assign(self, &ladder);
        route::draw(self, &ladder, &columns, &rows)
    }

    /// Whether enough of the nodes have an earlier position for it to be worth keeping. Below half, holding on to the
    /// old drawing would squeeze the new nodes into what was left over.
    fn keeps_positions(&self) -> bool {
        let held = (0..self.nodes.len()).filter(|&it| self.near(it).is_some()).count();
        held * 2 >= self.nodes.len() && held > 0
    }

    /// The earlier position that counts, if any.
    fn near(&self, node: usize) -> Option<Point> {
        match self.nodes[node].hold {
            Hold::Near(point) | Hold::Pinned(point) if point.x.is_finite() && point.y.is_finite() => {
                Some(point)
            }
            _ => None,
        }
    }

    /// A group and everything around it, innermost first.
    fn ancestors(&self, group: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(group, |&it| self.groups[it].parent)
    }
}
