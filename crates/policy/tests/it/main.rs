//! What only shows from outside: that deciding never allocates, and that decisions made together give the known results.

mod allocations;
mod queueing;
