//! Time as integer nanoseconds: 584 years fit, additions never drift, and two events are equal or they are not.

use crate::parse::{Kind, QuantityError, decimal_text, shorten, split};
use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Rem, Sub};
use std::str::FromStr;

/// A duration, or an instant as the duration since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

const KIND: Kind = Kind { name: "duration", units: "ns, us, ms, s, min, h, d", example: "250ms" };

/// Largest first, so that printing picks the unit a person would.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Nanos {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Rounds to the nearest nanosecond; not a number and negatives become zero, too large becomes [`Nanos::MAX`].
    pub fn from_secs_f64(secs: f64) -> Self {
        // `as` saturates and maps NaN to zero, which is exactly the promise above.
        Self((secs * 1e9).round() as u64)
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(left) => Some(Self(left)),
            None => None,
        }
    }

    pub fn mul_f64(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor).round() as u64)
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for std::time::Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

// Time that would pass the end of time stays there: an overflow that wrapped would order events backwards.
impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Self;
    /// A negative duration is a bug in the caller; say `saturating_sub` where it is expected.
    fn sub(self, other: Self) -> Self {
        debug_assert!(other <= self, "negative duration: {self} - {other}");
        self.saturating_sub(other)
    }
}

impl Mul<u64> for Nanos {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

impl Div<u64> for Nanos {
    type Output = Self;
    fn div(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }
}

impl Rem for Nanos {
    type Output = Self;
    fn rem(self, other: Self) -> Self {
        Self(self.0 % other.0)
    }
}

impl FromStr for Nanos {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, &KIND)?;
        let short = || shorten(text.trim());
        if unit.is_empty() {
            // Zero is zero in every unit, and `delay: 0` is what people write to switch something off.
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
        let size = match unit {
            "µs" | "μs" => 1_000,
            _ => match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, size)) => *size,
                None => {
                    return Err(QuantityError::UnknownUnit {
                        text: short(),
                        unit: shorten(unit),
                        kind: KIND.name,
                        units: KIND.units,
                    });
                }
            },
        };
        let nanos = number.times_exact(u128::from(size), 1).ok_or_else(|| QuantityError::TooPrecise {
            text: short(),
            kind: KIND.name,
            step: "1ns",
        })?;
        u64::try_from(nanos).map(Self).map_err(|_| QuantityError::TooLarge {
            text: short(),
            kind: KIND.name,
            max: "584 years (213503d)",
        })
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        // The largest unit in which the value has at most three decimals keeps both "90s" and "1.5ms" natural.
        let exact = UNITS.iter().find(|(_, size)| {
            self.0 >= *size && (u128::from(self.0) * 1_000).is_multiple_of(u128::from(*size))
        });
        let (name, size) = exact.copied().unwrap_or(("ns", 1));
        let thousandths = u128::from(self.0) * 1_000 / u128::from(size);
        f.pad(&format!("{}{name}", decimal_text(thousandths, 3)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u64, &str>) {
        match (text.parse::<Nanos>(), expected) {
            (Ok(nanos), Ok(expected)) => assert_eq!(nanos.0, expected, "{text}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{text}: {error}");
            }
            (got, _) => panic!("{text}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn durations_parse_strictly() {
        check("250ms", Ok(250_000_000));
        check("1.5 s", Ok(1_500_000_000));
        check("0", Ok(0));
        check("0.000000001s", Ok(1));
        check("7µs", Ok(7_000));
        check("1_000ms", Ok(1_000_000_000));
        check("2d", Ok(172_800_000_000_000));
        check("250", Err("without its unit"));
        check("250m", Err("`m` is no unit"));
        check("-1s", Err("negative"));
        check("1e3s", Err("no unit"));
        check(".5s", Err("not a duration"));
        check("5.s", Err("not a duration"));
        check("1__0s", Err("not a duration"));
        check("", Err("empty"));
        check("0.5ns", Err("finer"));
        check("999999d", Err("too large"));
        check("99999999999999999999999999999999999d", Err("too large"));
        check("soon", Err("not a duration"));
    }

    #[test]
    fn durations_print_as_people_write_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5us"),
            (250_000_000, "250ms"),
            (90_000_000_000, "1.5min"),
            (1_234_567_891, "1234567.891us"),
            (86_400_000_000_000, "1d"),
        ] {
            assert_eq!(Nanos(nanos).to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn printing_then_parsing_is_identity(nanos: u64) {
            proptest::prop_assert_eq!(Nanos(nanos).to_string().parse::<Nanos>().unwrap(), Nanos(nanos));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = text.parse::<Nanos>();
        }
    }
}
