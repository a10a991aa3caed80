//! Sizes. `8KiB` is 8192 and `8KB` is 8000; a bare number is refused because half the world means each.

use crate::parse::{Kind, QuantityError, decimal_text, shorten, split};
use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const KIND: Kind = Kind { name: "size", units: "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB", example: "8KiB" };

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl Bytes {
    pub const ZERO: Self = Self(0);

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, &KIND)?;
        let short = || shorten(text.trim());
        if unit.is_empty() {
            return if number.is_zero() {
                Ok(Self::ZERO)
            } else {
                Err(QuantityError::NoUnit {
                    text: short(),
                    kind: KIND.name,
                    units: KIND.units,
                    example: KIND.example,
                })
            };
        }
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(QuantityError::UnknownUnit {
                text: short(),
                unit: shorten(unit),
                kind: KIND.name,
                units: KIND.units,
            });
        };
        let bytes = number.times_exact(u128::from(*size), 1).ok_or_else(|| QuantityError::TooPrecise {
            text: short(),
            kind: KIND.name,
            step: "1B",
        })?;
        u64::try_from(bytes).map(Self).map_err(|_| QuantityError::TooLarge {
            text: short(),
            kind: KIND.name,
            max: "16777215TiB",
        })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole units print whole; otherwise one decimal place of a binary unit if exact, else plain bytes.
        let whole = UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let tenth = UNITS
            .iter()
            .find(|(_, size)| self.0 >= *size && (u128::from(self.0) * 10).is_multiple_of(u128::from(*size)));
        let text = match (whole, tenth) {
            (Some((name, size)), _) if *size > 1 => format!("{}{name}", self.0 / size),
            (_, Some((name, size))) if *size > 1 => {
                format!("{}{name}", decimal_text(u128::from(self.0) * 10 / u128::from(*size), 1))
            }
            _ => format!("{}B", self.0),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_strictly() {
        for (text, expected) in [
            ("8KiB", Ok(8192)),
            ("8KB", Ok(8000)),
            ("1.5KiB", Ok(1536)),
            ("0", Ok(0)),
            ("12 B", Ok(12)),
            ("8", Err("without its unit")),
            ("8kb", Err("no unit")),
            ("0.3B", Err("finer")),
            ("99999999TiB", Err("too large")),
        ] {
            match (text.parse::<Bytes>(), expected) {
                (Ok(bytes), Ok(expected)) => assert_eq!(bytes.0, expected, "{text}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}")
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn printing_then_parsing_is_identity(bytes: u64) {
            proptest::prop_assert_eq!(Bytes(bytes).to_string().parse::<Bytes>().unwrap(), Bytes(bytes));
        }
    }
}
