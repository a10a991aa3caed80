//! What the file promises, from the outside: one binary, so that it links once.

mod accepts;
mod anything;
mod bad;
mod codes;
mod examples;
mod includes;
mod mistakes;
mod schema;
