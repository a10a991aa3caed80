//! Text to tree: YAML with the place of everything, within fixed budgets, as many mistakes at once as can be told apart.
//!
//! A general YAML library resolves types (`on` becomes true, `1.10` becomes 1.1) and drops places; both lose what a
//! strict file needs. So this keeps scalars as the text that was written and leaves their meaning to whoever reads
//! the tree: `resolve` for our own file, the importers for others'.
//!
//! **Refuses:** more than one document, keys that are not text, aliases of what encloses them, custom tags (unless
//! asked to pass them by), and whatever exceeds [`Limits`]: depth, nodes and text after aliases were expanded.

mod parse;
mod tree;
mod words;

pub use parse::{Limits, Parsed, Tags, parse};
pub use tree::{Entry, Map, Node, Scalar, Value};
