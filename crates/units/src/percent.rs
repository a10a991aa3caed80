//! Shares. `20%` and never `0.2`: one spelling, so that nobody's budget is a hundred times what was meant.

use crate::parse::{Kind, QuantityError, decimal_text, shorten, split};
use std::fmt;
use std::str::FromStr;

/// A share in millionths: 0.0001 % is the smallest step, and a whole is exactly 1,000,000.
/// May exceed 100 % (a retry budget may, an SLO may not: that is the user's check).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u64);

const KIND: Kind = Kind { name: "percentage", units: "%", example: "99.9%" };

impl Percent {
    pub const ZERO: Self = Self(0);
    pub const WHOLE: Self = Self(1_000_000);

    pub const fn from_whole(percent: u64) -> Self {
        Self(percent.saturating_mul(10_000))
    }

    pub const fn from_millionths(millionths: u64) -> Self {
        Self(millionths)
    }

    pub const fn millionths(self) -> u64 {
        self.0
    }

    /// Nearest millionth; not a number and negatives become zero.
    pub fn from_fraction(fraction: f64) -> Self {
        Self((fraction * 1e6).round() as u64)
    }

    /// 20 % is 0.2.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// What is left to a whole: an availability's error budget.
    pub const fn complement(self) -> Self {
        Self(1_000_000u64.saturating_sub(self.0))
    }
}

impl FromStr for Percent {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, &KIND)?;
        let short = || shorten(text.trim());
        match unit {
            "%" => {}
            "" => {
                return Err(QuantityError::NoUnit {
                    text: short(),
                    kind: KIND.name,
                    units: KIND.units,
                    example: KIND.example,
                });
            }
            other => {
                return Err(QuantityError::UnknownUnit {
                    text: short(),
                    unit: shorten(other),
                    kind: KIND.name,
                    units: KIND.units,
                });
            }
        }
        let millionths = number.times_exact(10_000, 1).ok_or_else(|| QuantityError::TooPrecise {
            text: short(),
            kind: KIND.name,
            step: "0.0001%",
        })?;
        u64::try_from(millionths)
            .ok()
            .filter(|m| *m <= u64::MAX / 10_000)
            .map(Self)
            .ok_or_else(|| QuantityError::TooLarge { text: short(), kind: KIND.name, max: "184467440737%" })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", decimal_text(u128::from(self.0), 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_parse_strictly() {
        for (text, expected) in [
            ("20%", Ok(200_000)),
            ("99.95 %", Ok(999_500)),
            ("0.0001%", Ok(1)),
            ("0.2", Err("without its unit")),
            ("0", Err("without its unit")),
            ("20percent", Err("no unit")),
            ("0.00001%", Err("finer")),
            ("-1%", Err("negative")),
        ] {
            match (text.parse::<Percent>(), expected) {
                (Ok(percent), Ok(expected)) => assert_eq!(percent.millionths(), expected, "{text}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}")
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert_eq!(Percent::from_millionths(999_500).to_string(), "99.95%");
        assert_eq!(Percent::from_whole(99).complement(), Percent::from_whole(1));
    }

    proptest::proptest! {
        #[test]
        fn printing_then_parsing_is_identity(millionths in 0u64..u64::MAX / 10_000) {
            let percent = Percent::from_millionths(millionths);
            proptest::prop_assert_eq!(percent.to_string().parse::<Percent>().unwrap(), percent);
        }
    }
}
