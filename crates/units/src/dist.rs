//! Distributions of time. (This first form holds the one that needs no sampler; the others follow.)

use crate::Nanos;

/// A law that durations follow.
#[derive(Clone, Debug, PartialEq)]
pub enum Dist {
    Fixed(Nanos),
}
