//! Events per time. Kept as the count and the time unit that were written, so that `90/min` prints as `90/min`.

use crate::Nanos;
use crate::parse::{Kind, QuantityError, decimal_text, shorten, split};
use std::fmt;
use std::str::FromStr;

/// So many events per second, minute, hour or day. Compare by [`Rate::per_second`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// The count as written, in thousandths.
    milli_count: u64,
    per: Per,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Per {
    #[default]
    Second,
    Minute,
    Hour,
    Day,
}

const KIND: Kind = Kind { name: "rate", units: "/s, /min, /h, /d", example: "200/s" };

impl Per {
    const ALL: [(Self, &'static str, u64); 4] = [
        (Self::Second, "/s", 1),
        (Self::Minute, "/min", 60),
        (Self::Hour, "/h", 3_600),
        (Self::Day, "/d", 86_400),
    ];

    fn row(self) -> (Self, &'static str, u64) {
        Self::ALL[self as usize]
    }
}

impl Rate {
    pub const ZERO: Self = Self { milli_count: 0, per: Per::Second };

    pub const fn per_second_whole(count: u64) -> Self {
        Self { milli_count: count.saturating_mul(1_000), per: Per::Second }
    }

    /// Nearest thousandth per second.
    pub fn from_per_second(per_second: f64) -> Self {
        Self { milli_count: (per_second * 1e3).round() as u64, per: Per::Second }
    }

    pub fn per_second(self) -> f64 {
        self.milli_count as f64 / 1e3 / self.per.row().2 as f64
    }

    /// Mean time between two events; `None` for a rate of zero.
    pub fn period(self) -> Option<Nanos> {
        (self.milli_count > 0).then(|| Nanos::from_secs_f64(1.0 / self.per_second()))
    }

    pub const fn is_zero(self) -> bool {
        self.milli_count == 0
    }
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, &KIND)?;
        let short = || shorten(text.trim());
        if unit.is_empty() {
            return Err(QuantityError::NoUnit {
                text: short(),
                kind: KIND.name,
                units: KIND.units,
                example: KIND.example,
            });
        }
        let Some((per, _, _)) = Per::ALL.iter().find(|(_, name, _)| *name == unit) else {
            return Err(QuantityError::UnknownUnit {
                text: short(),
                unit: shorten(unit),
                kind: KIND.name,
                units: KIND.units,
            });
        };
        let milli_count = number.times_exact(1_000, 1).ok_or_else(|| QuantityError::TooPrecise {
            text: short(),
            kind: KIND.name,
            step: "0.001",
        })?;
        u64::try_from(milli_count).map(|milli_count| Self { milli_count, per: *per }).map_err(|_| {
            QuantityError::TooLarge { text: short(), kind: KIND.name, max: "18446744073709551/s" }
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}{}", decimal_text(u128::from(self.milli_count), 3), self.per.row().1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_parse_strictly() {
        for (text, expected) in [
            ("200/s", Ok(200.0)),
            ("90/min", Ok(1.5)),
            ("0.5 /s", Ok(0.5)),
            ("200", Err("without its unit")),
            ("200rps", Err("no unit")),
            ("200/m", Err("no unit")),
            ("0.0001/s", Err("finer")),
        ] {
            match (text.parse::<Rate>(), expected) {
                (Ok(rate), Ok(expected)) => assert_eq!(rate.per_second(), expected, "{text}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}")
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert_eq!("90/min".parse::<Rate>().unwrap().to_string(), "90/min");
        assert_eq!(Rate::per_second_whole(4).period(), Some(Nanos::from_millis(250)));
        assert_eq!(Rate::ZERO.period(), None);
    }
}
