//! What the exit code says, the same for every verb.
#![allow(dead_code, reason = "one table; verbs use what applies to them")]

pub(crate) const OK: u8 = 0;
/// A check failed: an expectation, a regression, a denied lint.
pub(crate) const FAILED: u8 = 1;
/// The command line or the file is wrong.
pub(crate) const USAGE: u8 = 2;
/// No running isobar answers.
pub(crate) const UNREACHABLE: u8 = 3;
/// An answer, but not from everyone asked.
pub(crate) const PARTIAL: u8 = 4;
/// Stopped by ctrl-c.
pub(crate) const INTERRUPTED: u8 = 130;
