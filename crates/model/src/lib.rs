//! # model: the one file that describes a system
//!
//! In: a file (or one of somebody else's formats). Out: a [`system::System`] in which every name is resolved, or all
//! mistakes at once, each with its place and its likely fix; then the risks ([`diagnostic::Diagnostic`]s too).
//!
//! It opens no socket and reads no clock; it reads files only through the caller's loader.

pub mod check;
pub mod codes;
pub mod diagnostic;
pub mod draw;
pub mod fuzz;
pub mod generate;
pub mod import;
pub mod layout;
pub mod lint;
pub mod load;
pub mod network;
pub mod place;
mod policy_in_force;
pub mod policy_words;
pub mod render;
pub mod resolve;
pub mod schema;
pub mod span;
pub mod system;
pub mod text;
