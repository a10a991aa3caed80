//! What the file promises, from the outside: one binary, so that it links once.

mod accepts;
mod bad;
mod mistakes;
