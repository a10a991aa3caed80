//! Splitting "12.5ms" into a number and a unit, exactly: digits are kept as integers, because a quantity that
//! went through binary floating point on its way in may not print as it was written.

use std::fmt;

/// Why a text is not a quantity. The message names the value and the fix; the caller adds the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantityError {
    Empty { kind: &'static str, example: &'static str },
    NotANumber { text: String, kind: &'static str, example: &'static str },
    NoUnit { text: String, kind: &'static str, units: &'static str, example: &'static str },
    UnknownUnit { text: String, unit: String, kind: &'static str, units: &'static str },
    TooLarge { text: String, kind: &'static str, max: &'static str },
    TooPrecise { text: String, kind: &'static str, step: &'static str },
    Negative { text: String, kind: &'static str },
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { kind, example } => {
                write!(f, "an empty text is not a {kind}; write for example `{example}`")
            }
            Self::NotANumber { text, kind, example } => {
                write!(f, "`{text}` is not a {kind}; write for example `{example}`")
            }
            Self::NoUnit { text, kind, units, example } => {
                let needs = if units.contains(',') { "one of " } else { "" };
                write!(
                    f,
                    "`{text}` is a number without its unit; a {kind} needs {needs}{units}, for example `{example}`"
                )
            }
            Self::UnknownUnit { text, unit, kind, units } => {
                write!(
                    f,
                    "`{text}`: `{unit}` is no unit of a {kind}; use {}{units}",
                    if units.contains(',') { "one of " } else { "" }
                )
            }
            Self::TooLarge { text, kind, max } => {
                write!(f, "`{text}` is too large for a {kind}; the largest is {max}")
            }
            Self::TooPrecise { text, kind, step } => {
                write!(f, "`{text}` is finer than a {kind} can hold; the smallest step is {step}")
            }
            Self::Negative { text, kind } => write!(f, "`{text}` is negative; a {kind} cannot be"),
        }
    }
}

impl std::error::Error for QuantityError {}

/// A non-negative decimal: `digits × 10^-scale`, nothing rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    digits: u128,
    scale: u32,
}

/// Digits beyond this add nothing any quantity can hold, and bounding them bounds the arithmetic below.
const DIGITS_MAX: usize = 27;

impl Decimal {
    /// `self × numerator ÷ denominator` as an integer, or `None` if it would not be whole.
    pub(crate) fn times_exact(self, numerator: u128, denominator: u128) -> Option<u128> {
        let above = self.digits.checked_mul(numerator)?;
        let below = 10u128.checked_pow(self.scale)?.checked_mul(denominator)?;
        above.is_multiple_of(below).then(|| above / below)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.digits == 0
    }
}

/// What a quantity's parser knows about its kind; one table row per type keeps the messages alike.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) units: &'static str,
    pub(crate) example: &'static str,
}

/// Splits `text` into its number and the rest (the unit, maybe empty).
pub(crate) fn split<'t>(text: &'t str, kind: &Kind) -> Result<(Decimal, &'t str), QuantityError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(QuantityError::Empty { kind: kind.name, example: kind.example });
    }
    let not_a_number =
        || QuantityError::NotANumber { text: shorten(trimmed), kind: kind.name, example: kind.example };
    if let Some(rest) = trimmed.strip_prefix('-') {
        let negative = rest.starts_with(|c: char| c.is_ascii_digit());
        return Err(if negative {
            QuantityError::Negative { text: shorten(trimmed), kind: kind.name }
        } else {
            not_a_number()
        });
    }
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let dot_alone = number.contains('.') && (whole.is_empty() || fraction.is_empty());
    if whole.is_empty() || dot_alone || fraction.contains(['.', '_']) || bad_underscores(whole) {
        return Err(not_a_number());
    }
    let fraction = fraction.trim_end_matches('0');
    let mut digits: u128 = 0;
    let mut seen = 0usize;
    for digit in whole.bytes().chain(fraction.bytes()).filter(|b| *b != b'_') {
        if seen > 0 || digit != b'0' {
            seen += 1;
        }
        if seen > DIGITS_MAX || fraction.len() > DIGITS_MAX {
            return Err(QuantityError::TooLarge {
                text: shorten(trimmed),
                kind: kind.name,
                max: "a number of 27 digits",
            });
        }
        digits = digits * 10 + u128::from(digit - b'0');
    }
    Ok((Decimal { digits, scale: fraction.len() as u32 }, unit.trim_start()))
}

fn bad_underscores(whole: &str) -> bool {
    whole.starts_with('_') || whole.ends_with('_') || whole.contains("__")
}

/// A message must stay readable whatever was typed, so long values are cut in the middle of nowhere.
pub(crate) fn shorten(text: &str) -> String {
    const KEEP: usize = 40;
    if text.chars().count() <= KEEP {
        return text.to_owned();
    }
    let head: String = text.chars().take(KEEP).collect();
    format!("{head}…")
}

/// Prints `value ÷ 10^scale` without trailing zeros: the shortest exact text.
pub(crate) fn decimal_text(value: u128, scale: u32) -> String {
    let one = 10u128.pow(scale);
    let (whole, fraction) = (value / one, value % one);
    if fraction == 0 {
        return whole.to_string();
    }
    let padded = format!("{fraction:0width$}", width = scale as usize);
    format!("{whole}.{}", padded.trim_end_matches('0'))
}
