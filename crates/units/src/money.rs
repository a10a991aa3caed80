//! Money in integer micro-units of one currency, because cents are too coarse for the price of one gigabyte and
//! floats do not add up to the same bill twice.

use crate::parse::{Kind, QuantityError, decimal_text, shorten, split};
use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

/// Millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub u64);

const KIND: Kind = Kind { name: "price", units: "$ (in front) or USD", example: "$0.02" };

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub fn from_dollars(dollars: f64) -> Self {
        Self((dollars * 1e6).round() as u64)
    }

    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl FromStr for Money {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let trimmed = text.trim();
        let (dollar, rest) = match trimmed.strip_prefix('$') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let (number, unit) = split(rest, &KIND)?;
        match (dollar, unit) {
            (true, "") | (false, "USD") => {}
            (false, "") => {
                return Err(QuantityError::NoUnit {
                    text: shorten(trimmed),
                    kind: KIND.name,
                    units: KIND.units,
                    example: KIND.example,
                });
            }
            (_, unit) => {
                return Err(QuantityError::UnknownUnit {
                    text: shorten(trimmed),
                    unit: shorten(unit),
                    kind: KIND.name,
                    units: KIND.units,
                });
            }
        }
        let micros = number.times_exact(1_000_000, 1).ok_or_else(|| QuantityError::TooPrecise {
            text: shorten(trimmed),
            kind: KIND.name,
            step: "$0.000001",
        })?;
        u64::try_from(micros).map(Self).map_err(|_| QuantityError::TooLarge {
            text: shorten(trimmed),
            kind: KIND.name,
            max: "$18446744073709",
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("${}", decimal_text(u128::from(self.0), 6)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_parse_strictly() {
        assert_eq!("$0.02".parse::<Money>().unwrap(), Money(20_000));
        assert_eq!("12 USD".parse::<Money>().unwrap(), Money(12_000_000));
        assert!("12".parse::<Money>().unwrap_err().to_string().contains("without its unit"));
        assert!("12EUR".parse::<Money>().unwrap_err().to_string().contains("no unit"));
        assert_eq!(Money(20_000).to_string(), "$0.02");
    }

    proptest::proptest! {
        #[test]
        fn printing_then_parsing_is_identity(micros: u64) {
            proptest::prop_assert_eq!(Money(micros).to_string().parse::<Money>().unwrap(), Money(micros));
        }
    }
}
