//! Laws that durations follow, as a person writes them: `lognormal(p50 2ms, p99 9ms)`, or just `5ms`.
//!
//! Parameters are the ones people can measure (a median, a mean, a coefficient of variation), never µ and σ of a
//! logarithm. They are integers inside, so a law prints exactly as it was understood.
//!
//! Sampling is ours and not a library's, because a library may improve its sampler and silently change every recorded
//! forecast. Each sample costs exactly one random number and, but for `hyper`, comes from the inverse of the
//! distribution function: two runs that share their luck then differ only where their parameters do.
//!
//! It refuses laws without a mean (`pareto` of shape 1 and below): no capacity would ever be enough for them.
//!
//! ```
//! use units::{Dist, Nanos, Rng};
//! let work: Dist = "lognormal(p50 2ms, p99 9ms)".parse().unwrap();
//! assert_eq!(work.quantile(0.5).unwrap(), Nanos::from_millis(2));
//! let sampler = work.sampler().unwrap();
//! assert!(sampler.sample(&mut Rng::from_seed(1)) > Nanos::ZERO);
//! ```

use crate::parse::{decimal_text, shorten};
use crate::{Nanos, QuantityError, Rng, math};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A law that durations follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dist {
    Fixed(Nanos),
    Uniform {
        low: Nanos,
        high: Nanos,
    },
    Exponential {
        mean: Nanos,
    },
    LogNormal {
        p50: Nanos,
        p99: Nanos,
    },
    /// `cv` is the standard deviation over the mean, in thousandths.
    Gamma {
        mean: Nanos,
        cv: u32,
    },
    /// A floor and a power-law tail; the shape in thousandths.
    Pareto {
        min: Nanos,
        shape: u32,
    },
    /// Two exponentials of equal weight in the mean ("balanced"); `cv` in thousandths.
    Hyper {
        mean: Nanos,
        cv: u32,
    },
    /// The shape in thousandths: below 1 the longer it took the longer it will take, above 1 the other way round.
    Weibull {
        mean: Nanos,
        shape: u32,
    },
    /// Measured durations. Parsing names the file and reads nothing; [`Dist::with_values`] fills in what it held.
    Empirical {
        file: String,
        values: Arc<[Nanos]>,
    },
}

/// Why a text is no law of durations. The message names the value and the fix; the caller adds the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DistError {
    /// Neither a duration nor `law(…)`.
    Duration(QuantityError),
    UnknownLaw {
        name: String,
        nearest: Option<&'static str>,
    },
    NotClosed {
        text: String,
        example: &'static str,
    },
    Missing {
        law: &'static str,
        parameter: &'static str,
        example: &'static str,
    },
    Unknown {
        law: &'static str,
        text: String,
        example: &'static str,
    },
    Twice {
        law: &'static str,
        parameter: &'static str,
    },
    Value {
        law: &'static str,
        parameter: &'static str,
        why: QuantityError,
    },
    NotANumber {
        law: &'static str,
        parameter: &'static str,
        text: String,
    },
    Range {
        law: &'static str,
        parameter: &'static str,
        value: String,
        must: &'static str,
    },
    /// A sampler was asked of an empirical law whose values nobody has loaded, or whose file held none.
    NoValues {
        file: String,
    },
}

impl fmt::Display for DistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(why @ QuantityError::NotANumber { .. }) => {
                write!(f, "{why}; or a law such as `lognormal(p50 2ms, p99 9ms)`")
            }
            Self::Duration(why) => write!(f, "{why}"),
            Self::UnknownLaw { name, nearest: Some(nearest) } => {
                write!(f, "no law is called `{name}`; did you mean `{nearest}`?")
            }
            Self::UnknownLaw { name, nearest: None } => {
                write!(f, "no law is called `{name}`; there are ")?;
                for (n, law) in LAWS.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, law.name)?;
                }
                Ok(())
            }
            Self::NotClosed { text, example } => {
                write!(f, "`{text}` does not end with `)`; write for example `{example}`")
            }
            Self::Missing { law, parameter, example } => {
                write!(f, "{law} needs {parameter}; write for example `{example}`")
            }
            Self::Unknown { law, text, example } => {
                write!(f, "`{text}` is no parameter of {law}; write for example `{example}`")
            }
            Self::Twice { law, parameter } => write!(f, "{law} is given {parameter} twice; keep one"),
            Self::Value { law, parameter, why } => write!(f, "{parameter} of {law}: {why}"),
            Self::NotANumber { law, parameter, text } => {
                write!(
                    f,
                    "{parameter} of {law}: `{text}` is not a plain number of at most three decimals, such as `1.5`"
                )
            }
            Self::Range { law, parameter, value, must } => {
                write!(f, "{parameter} of {law} is {value}; it must be {must}")
            }
            Self::NoValues { file } => {
                write!(f, "`{file}` holds no durations; give it one to a line, for example `12ms`")
            }
        }
    }
}

impl std::error::Error for DistError {}

/// One row per law keeps parsing, messages and documentation alike.
struct Law {
    name: &'static str,
    parameters: &'static [&'static str],
    example: &'static str,
}

const LAWS: [Law; 9] = [
    Law { name: "fixed", parameters: &["duration"], example: "fixed(5ms)" },
    Law { name: "uniform", parameters: &["low", "high"], example: "uniform(1ms, 5ms)" },
    Law { name: "exponential", parameters: &["mean"], example: "exponential(mean 5ms)" },
    Law { name: "lognormal", parameters: &["p50", "p99"], example: "lognormal(p50 2ms, p99 9ms)" },
    Law { name: "gamma", parameters: &["mean", "cv"], example: "gamma(mean 5ms, cv 0.5)" },
    Law { name: "pareto", parameters: &["min", "shape"], example: "pareto(min 1ms, shape 2.5)" },
    Law { name: "hyper", parameters: &["mean", "cv"], example: "hyper(mean 5ms, cv 3)" },
    Law { name: "weibull", parameters: &["mean", "shape"], example: "weibull(mean 5ms, shape 1.5)" },
    Law { name: "empirical", parameters: &["file"], example: "empirical(durations.csv)" },
];

/// The texts given to a law's parameters, in the law's order.
struct Arguments<'t> {
    law: &'static Law,
    texts: [Option<&'t str>; 2],
}

impl<'t> Arguments<'t> {
    /// `5ms, 9ms` by position or `p50 5ms, p99 9ms` by name; a name is a word before the value.
    fn read(law: &'static Law, inside: &'t str) -> Result<Self, DistError> {
        let mut texts = [None; 2];
        if !inside.trim().is_empty() {
            for (position, argument) in inside.split(',').enumerate() {
                let argument = argument.trim();
                let named = argument.split_once(char::is_whitespace).and_then(|(name, value)| {
                    Some((law.parameters.iter().position(|it| *it == name)?, value.trim()))
                });
                let starts_with_digit = argument.starts_with(|c: char| c.is_ascii_digit());
                let unnamed = starts_with_digit || law.parameters == ["file"] && !argument.is_empty();
                let (slot, value) = match named {
                    Some(named) => named,
                    None if unnamed && position < law.parameters.len() => (position, argument),
                    None => {
                        return Err(DistError::Unknown {
                            law: law.name,
                            text: shorten(argument),
                            example: law.example,
                        });
                    }
                };
                if texts[slot].replace(value).is_some() {
                    return Err(DistError::Twice { law: law.name, parameter: law.parameters[slot] });
                }
            }
        }
        Ok(Self { law, texts })
    }

    fn text(&self, slot: usize) -> Result<&'t str, DistError> {
        self.texts[slot].ok_or(DistError::Missing {
            law: self.law.name,
            parameter: self.law.parameters[slot],
            example: self.law.example,
        })
    }

    fn duration(&self, slot: usize) -> Result<Nanos, DistError> {
        self.text(slot)?.parse().map_err(|why| DistError::Value {
            law: self.law.name,
            parameter: self.law.parameters[slot],
            why,
        })
    }

    /// A decimal in thousandths, so that what is printed is what is computed with.
    fn thousandths(&self, slot: usize) -> Result<u32, DistError> {
        let text = self.text(slot)?;
        let parse = || {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
            let dot_alone = text.contains('.') && fraction.is_empty();
            if whole.is_empty() || dot_alone || !digits(whole) || !digits(fraction) {
                return None;
            }
            let fraction = fraction.trim_end_matches('0');
            let places = u32::try_from(fraction.len()).ok().filter(|places| *places <= 3)?;
            let fraction: u32 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
            let whole: u32 = whole.parse().ok()?;
            whole.checked_mul(1_000)?.checked_add(fraction * 10u32.pow(3 - places))
        };
        parse().ok_or_else(|| DistError::NotANumber {
            law: self.law.name,
            parameter: self.law.parameters[slot],
            text: shorten(text),
        })
    }

    fn refuse<T>(&self, slot: usize, must: &'static str) -> Result<T, DistError> {
        let value = shorten(self.texts[slot].unwrap_or(""));
        Err(DistError::Range { law: self.law.name, parameter: self.law.parameters[slot], value, must })
    }
}

impl FromStr for Dist {
    type Err = DistError;

    fn from_str(text: &str) -> Result<Self, DistError> {
        let text = text.trim();
        let Some((name, rest)) = text.split_once('(') else {
            // A word is more likely a law without its brackets than a duration without its number.
            if let Some(law) = LAWS.iter().find(|law| law.name == text) {
                return Err(DistError::Missing {
                    law: law.name,
                    parameter: law.parameters[0],
                    example: law.example,
                });
            }
            return text.parse().map(Self::Fixed).map_err(DistError::Duration);
        };
        let name = name.trim();
        let law = LAWS
            .iter()
            .find(|law| law.name == name)
            .ok_or_else(|| DistError::UnknownLaw { name: shorten(name), nearest: nearest_law(name) })?;
        let inside = rest
            .strip_suffix(')')
            .ok_or_else(|| DistError::NotClosed { text: shorten(text), example: law.example })?;
        let given = Arguments::read(law, inside)?;
        let positive_mean = |mean: Nanos| {
            if mean.is_zero() {
                given.refuse(0, "above zero; write `0` for no time at all")
            } else {
                Ok(mean)
            }
        };
        let dist = match law.name {
            "fixed" => Self::Fixed(given.duration(0)?),
            "uniform" => {
                let (low, high) = (given.duration(0)?, given.duration(1)?);
                if high < low {
                    return given.refuse(1, "at least low");
                }
                Self::Uniform { low, high }
            }
            "exponential" => Self::Exponential { mean: positive_mean(given.duration(0)?)? },
            "lognormal" => {
                let (p50, p99) = (positive_mean(given.duration(0)?)?, given.duration(1)?);
                if p99 <= p50 {
                    return given.refuse(1, "above p50");
                }
                Self::LogNormal { p50, p99 }
            }
            "gamma" => {
                let (mean, cv) = (positive_mean(given.duration(0)?)?, given.thousandths(1)?);
                if !(10..=10_000).contains(&cv) {
                    return given.refuse(1, "from 0.01 to 10; `hyper` goes beyond");
                }
                Self::Gamma { mean, cv }
            }
            "pareto" => {
                let (min, shape) = (positive_mean(given.duration(0)?)?, given.thousandths(1)?);
                if !(1_001..=1_000_000).contains(&shape) {
                    return given.refuse(1, "above 1 and at most 1000: at 1 and below the mean is infinite");
                }
                Self::Pareto { min, shape }
            }
            "hyper" => {
                let (mean, cv) = (positive_mean(given.duration(0)?)?, given.thousandths(1)?);
                if !(1_000..=1_000_000).contains(&cv) {
                    return given.refuse(1, "from 1 to 1000; use `gamma` below 1");
                }
                Self::Hyper { mean, cv }
            }
            "weibull" => {
                let (mean, shape) = (positive_mean(given.duration(0)?)?, given.thousandths(1)?);
                if !(100..=100_000).contains(&shape) {
                    return given.refuse(1, "from 0.1 to 100");
                }
                Self::Weibull { mean, shape }
            }
            _ => Self::Empirical { file: given.text(0)?.to_owned(), values: Arc::from([]) },
        };
        Ok(dist)
    }
}

/// The law a misspelt name most likely meant: at most two letters changed, or one a beginning of the other.
fn nearest_law(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    LAWS.iter()
        .map(|law| (letters_changed(&lower, law.name), law.name))
        .filter(|(changed, law)| *changed <= 2 || lower.len() >= 3 && law.starts_with(&lower))
        .min()
        .map(|(_, law)| law)
}

/// Levenshtein's distance; names are short, so the plain recurrence will do.
fn letters_changed(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(32)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for Dist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |thousandths: u32| decimal_text(u128::from(thousandths), 3);
        let text = match self {
            Self::Fixed(duration) => duration.to_string(),
            Self::Uniform { low, high } => format!("uniform({low}, {high})"),
            Self::Exponential { mean } => format!("exponential(mean {mean})"),
            Self::LogNormal { p50, p99 } => format!("lognormal(p50 {p50}, p99 {p99})"),
            Self::Gamma { mean, cv } => format!("gamma(mean {mean}, cv {})", number(*cv)),
            Self::Pareto { min, shape } => format!("pareto(min {min}, shape {})", number(*shape)),
            Self::Hyper { mean, cv } => format!("hyper(mean {mean}, cv {})", number(*cv)),
            Self::Weibull { mean, shape } => format!("weibull(mean {mean}, shape {})", number(*shape)),
            Self::Empirical { file, .. } => format!("empirical({file})"),
        };
        f.pad(&text)
    }
}

impl Dist {
    /// An empirical law with its values; any other law stays as it is.
    pub fn with_values(self, values: impl Into<Arc<[Nanos]>>) -> Self {
        match self {
            Self::Empirical { file, .. } => {
                let mut values: Vec<Nanos> = values.into().to_vec();
                // In order, so that a sample is the inverse of the distribution function here too.
                values.sort_unstable();
                Self::Empirical { file, values: values.into() }
            }
            other => other,
        }
    }

    /// Reads the text of an `empirical` file: one duration to a line, optionally `, count`; blank lines and lines that
    /// start with `#` are skipped. An error names the line.
    pub fn parse_values(text: &str) -> Result<Vec<Nanos>, (usize, QuantityError)> {
        /// A file of counts may claim any number; this bounds what it can make us hold (800 MB would be too kind).
        const VALUES_MAX: usize = 10_000_000;
        let mut values = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (duration, count) = line.split_once(',').unwrap_or((line, "1"));
            let duration: Nanos = duration.parse().map_err(|why| (number + 1, why))?;
            let not_a_count = |text: &str| QuantityError::NotANumber {
                text: shorten(text),
                kind: "count of at most ten million",
                example: "12ms, 3",
            };
            let count: usize = count
                .trim()
                .parse()
                .ok()
                .filter(|count: &usize| values.len().saturating_add(*count) <= VALUES_MAX)
                .ok_or_else(|| (number + 1, not_a_count(count.trim())))?;
            values.extend(std::iter::repeat_n(duration, count));
        }
        Ok(values)
    }

    /// The mean in nanoseconds; zero for an empirical law that holds no values.
    pub fn mean_nanos(&self) -> f64 {
        let nanos = |duration: Nanos| duration.0 as f64;
        match self {
            Self::Fixed(duration) => nanos(*duration),
            Self::Uniform { low, high } => 0.5 * (nanos(*low) + nanos(*high)),
            Self::Exponential { mean }
            | Self::Gamma { mean, .. }
            | Self::Hyper { mean, .. }
            | Self::Weibull { mean, .. } => nanos(*mean),
            Self::LogNormal { p50, p99 } => {
                let sigma = sigma_of(*p50, *p99);
                nanos(*p50) * math::exp(0.5 * sigma * sigma)
            }
            Self::Pareto { min, shape } => {
                let shape = thousandth(*shape);
                nanos(*min) * shape / (shape - 1.0)
            }
            Self::Empirical { values, .. } => {
                let sum: u128 = values.iter().map(|value| u128::from(value.0)).sum();
                sum as f64 / values.len().max(1) as f64
            }
        }
    }

    /// The variance over the squared mean (C²): what queues feel. `None` where it is infinite (`pareto` of shape ≤ 2).
    pub fn squared_cv(&self) -> Option<f64> {
        let mean = self.mean_nanos();
        let squared = match self {
            Self::Fixed(_) => 0.0,
            Self::Uniform { low, high } => {
                let width = high.0 as f64 - low.0 as f64;
                width * width / 12.0 / (mean * mean)
            }
            Self::Exponential { .. } => 1.0,
            Self::LogNormal { p50, p99 } => {
                let sigma = sigma_of(*p50, *p99);
                math::exp(sigma * sigma) - 1.0
            }
            Self::Gamma { cv, .. } | Self::Hyper { cv, .. } => thousandth(*cv) * thousandth(*cv),
            Self::Pareto { shape, .. } if *shape <= 2_000 => return None,
            Self::Pareto { shape, .. } => {
                let shape = thousandth(*shape);
                1.0 / (shape * (shape - 2.0))
            }
            Self::Weibull { shape, .. } => {
                let k = thousandth(*shape);
                math::exp(math::ln_gamma(1.0 + 2.0 / k) - 2.0 * math::ln_gamma(1.0 + 1.0 / k)) - 1.0
            }
            Self::Empirical { values, .. } => {
                let deviation = |value: &Nanos| (value.0 as f64 - mean) * (value.0 as f64 - mean);
                values.iter().map(deviation).sum::<f64>() / values.len().max(1) as f64 / (mean * mean)
            }
        };
        // A law of zero length has no relative spread.
        Some(if mean == 0.0 { 0.0 } else { squared })
    }

    /// The variance in squared nanoseconds; `None` where it is infinite.
    pub fn variance(&self) -> Option<f64> {
        let mean = self.mean_nanos();
        self.squared_cv().map(|squared| squared * mean * mean)
    }

    /// The duration that a share `q` of draws do not exceed. `None` for an empirical law without values.
    pub fn quantile(&self, q: f64) -> Option<Nanos> {
        let tail = (1.0 - q).clamp(0.0, 1.0);
        if let Self::Hyper { mean, cv } = self {
            return Some(hyper_quantile(&hyper_phases(*mean, *cv), tail));
        }
        let sampler = self.sampler().ok()?;
        Some(sampler.at_tail(tail))
    }

    /// Prepares to draw. Cheap but for `gamma`, which tabulates its inverse (about a millisecond).
    pub fn sampler(&self) -> Result<Sampler, DistError> {
        let nanos = |duration: Nanos| duration.0 as f64;
        let inner = match self {
            Self::Fixed(duration) => Inner::Fixed(*duration),
            Self::Uniform { low, high } => {
                Inner::Uniform { high: nanos(*high), width: nanos(*high) - nanos(*low) }
            }
            Self::Exponential { mean } => Inner::Exponential { mean: nanos(*mean) },
            Self::LogNormal { p50, p99 } => {
                Inner::LogNormal { ln_p50: math::ln(nanos(*p50)), sigma: sigma_of(*p50, *p99) }
            }
            Self::Gamma { mean, cv } => {
                let squared = thousandth(*cv) * thousandth(*cv);
                // Shape 1/C², scale mean·C²: the table holds ln of a gamma of scale 1.
                Inner::Gamma {
                    ln_scale: math::ln(nanos(*mean) * squared),
                    table: gamma_table(1.0 / squared).into(),
                }
            }
            Self::Pareto { min, shape } => {
                Inner::Pareto { min: nanos(*min), inverse_shape: 1.0 / thousandth(*shape) }
            }
            Self::Hyper { mean, cv } => Inner::Hyper(hyper_phases(*mean, *cv)),
            Self::Weibull { mean, shape } => {
                let inverse_shape = 1.0 / thousandth(*shape);
                let scale = nanos(*mean) / math::exp(math::ln_gamma(1.0 + inverse_shape));
                Inner::Weibull { scale, inverse_shape }
            }
            Self::Empirical { file, values } => {
                if values.is_empty() {
                    return Err(DistError::NoValues { file: file.clone() });
                }
                Inner::Empirical(values.clone())
            }
        };
        Ok(Sampler(inner))
    }
}

/// A law ready to draw from. Clones share their tables.
#[derive(Clone, Debug)]
pub struct Sampler(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Fixed(Nanos),
    Uniform { high: f64, width: f64 },
    Exponential { mean: f64 },
    LogNormal { ln_p50: f64, sigma: f64 },
    Gamma { ln_scale: f64, table: Arc<[Node]> },
    Pareto { min: f64, inverse_shape: f64 },
    Hyper(Phases),
    Weibull { scale: f64, inverse_shape: f64 },
    Empirical(Arc<[Nanos]>),
}

/// The two exponentials of a balanced hyper-exponential: the first is taken with chance `first`.
#[derive(Clone, Copy, Debug)]
struct Phases {
    first: f64,
    first_mean: f64,
    second_mean: f64,
}

impl Sampler {
    /// Draws one duration; always takes exactly one number from `rng`.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> Nanos {
        self.at_tail(rng.unit_open())
    }

    /// The duration that a share `tail` of draws exceed. Told from the tail, because the tail is where digits are scarce:
    /// the smallest `tail` that [`Rng::unit_open`] gives is 2⁻⁵³, the largest is 1.
    #[inline]
    pub fn at_tail(&self, tail: f64) -> Nanos {
        let nanos = match &self.0 {
            Inner::Fixed(duration) => return *duration,
            Inner::Uniform { high, width } => high - width * tail,
            Inner::Exponential { mean } => -mean * math::ln(tail),
            Inner::LogNormal { ln_p50, sigma } => math::exp(ln_p50 - sigma * math::normal_quantile(tail)),
            Inner::Gamma { ln_scale, table } => {
                math::exp(ln_scale + gamma_interpolate(table, -math::normal_quantile(tail)))
            }
            Inner::Pareto { min, inverse_shape } => min * math::pow(tail, -inverse_shape),
            Inner::Hyper(phases) => {
                // One number serves twice: which side of `first` it fell on, and where on that side.
                if tail <= phases.first {
                    -phases.first_mean * math::ln(tail / phases.first)
                } else {
                    -phases.second_mean * math::ln((tail - phases.first) / (1.0 - phases.first))
                }
            }
            Inner::Weibull { scale, inverse_shape } => scale * math::pow(-math::ln(tail), *inverse_shape),
            Inner::Empirical(values) => {
                let rank = ((1.0 - tail) * values.len() as f64) as usize;
                return values[rank.min(values.len() - 1)];
            }
        };
        // To the nearest; `as` saturates, and adding half is one instruction where `round` may be a call.
        Nanos((nanos + 0.5) as u64)
    }
}

fn thousandth(count: u32) -> f64 {
    f64::from(count) / 1e3
}

/// The standard deviation of the logarithm: p99 lies 2.326… of them above the median.
fn sigma_of(p50: Nanos, p99: Nanos) -> f64 {
    (math::ln(p99.0 as f64) - math::ln(p50.0 as f64)) / math::normal_quantile(0.99)
}

/// p = ½(1 + √((C² − 1)/(C² + 1))), and each phase carries half of the mean.
fn hyper_phases(mean: Nanos, cv: u32) -> Phases {
    let squared = thousandth(cv) * thousandth(cv);
    let first = 0.5 * (1.0 + ((squared - 1.0) / (squared + 1.0)).sqrt());
    let mean = mean.0 as f64;
    Phases { first, first_mean: mean / (2.0 * first), second_mean: mean / (2.0 * (1.0 - first)) }
}

/// There is no closed inverse for a sum of two exponentials, so halve the interval until it is below a nanosecond.
fn hyper_quantile(phases: &Phases, tail: f64) -> Nanos {
    if tail <= 0.0 {
        return Nanos::MAX;
    }
    let beyond = |x: f64| {
        phases.first * math::exp(-x / phases.first_mean)
            + (1.0 - phases.first) * math::exp(-x / phases.second_mean)
    };
    let (mut low, mut high) = (0.0, phases.second_mean * 800.0);
    while high - low > 0.25 && high - low > high * 1e-15 {
        let middle = 0.5 * (low + high);
        if beyond(middle) > tail { low = middle } else { high = middle }
    }
    Nanos((0.5 * (low + high) + 0.5) as u64)
}

/// One point of the inverse of a gamma law: ln of the quantile, and its slope, at a standard normal value.
#[derive(Clone, Copy, Debug)]
struct Node {
    value: f64,
    slope: f64,
}

/// Nodes per unit of the normal value; cubic interpolation between them is then good to about 1e-8.
const NODES_PER_UNIT: f64 = 32.0;
/// A tail of 2⁻⁵³ is 8.2 standard deviations out.
const NORMAL_MAX: f64 = 8.5;

/// A gamma law has no closed inverse. Seen against the normal value of the same rank, the logarithm of its quantile is
/// nearly a straight line or a parabola, so a table of a few hundred nodes with their slopes is exact enough.
fn gamma_table(shape: f64) -> Vec<Node> {
    let nodes = (2.0 * NORMAL_MAX * NODES_PER_UNIT) as usize + 1;
    let centre = nodes / 2;
    let ln_gamma = math::ln_gamma(shape);
    let at = |node: usize| (node as f64 - centre as f64) / NODES_PER_UNIT;
    let mut table = vec![Node { value: 0.0, slope: 0.0 }; nodes];
    // From the median outwards: each node starts Newton's method from its neighbour's tangent.
    let mut value = gamma_median(shape);
    table[centre] = gamma_node(shape, ln_gamma, 0.0, value);
    for node in (0..centre).rev() {
        let from = table[node + 1];
        value = from.value - from.slope / NODES_PER_UNIT;
        table[node] = gamma_node(shape, ln_gamma, at(node), value);
    }
    for node in centre + 1..nodes {
        let from = table[node - 1];
        value = from.value + from.slope / NODES_PER_UNIT;
        table[node] = gamma_node(shape, ln_gamma, at(node), value);
    }
    table
}

/// ln of the median, by halving; the table needs one such anchor.
fn gamma_median(shape: f64) -> f64 {
    let (mut low, mut high) =
        ((math::ln(0.5) + math::ln_gamma(shape + 1.0)) / shape - 1.0, math::ln(shape + 2.0));
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if math::gamma_p_q(shape, math::exp(middle)).0 < 0.5 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

fn gamma_node(shape: f64, ln_gamma: f64, normal: f64, guess: f64) -> Node {
    // ln of x times the density, the derivative of the share by ln x.
    let ln_density = |y: f64| shape * y - math::exp(y) - ln_gamma;
    let below = math::normal_share(normal);
    let beyond = math::normal_share(-normal);
    // Far below, P(a, x) = xᵃ/Γ(a + 1) to the last bit, and x itself may be too small to write down.
    let asymptote = (math::ln(below) + ln_gamma + math::ln(shape)) / shape;
    let mut y = guess;
    if asymptote < -34.0 {
        y = asymptote;
    } else {
        for _ in 0..8 {
            let (p, q) = math::gamma_p_q(shape, math::exp(y));
            // In logarithms of the smaller share Newton's steps stay sane in both tails.
            let step = if normal < 0.0 {
                (math::ln(p) - math::ln(below)) * p / math::exp(ln_density(y))
            } else {
                (math::ln(beyond) - math::ln(q)) * q / math::exp(ln_density(y))
            };
            y -= step;
            if step.abs() < 1e-12 {
                break;
            }
        }
    }
    let ln_normal_density = -0.5 * normal * normal - 0.5 * math::ln(2.0 * std::f64::consts::PI);
    Node { value: y, slope: math::exp(ln_normal_density - ln_density(y)) }
}

fn gamma_interpolate(table: &[Node], normal: f64) -> f64 {
    let position = ((normal + NORMAL_MAX) * NODES_PER_UNIT).clamp(0.0, (table.len() - 1) as f64);
    let left = (position as usize).min(table.len() - 2);
    let t = position - left as f64;
    let (a, b) = (table[left], table[left + 1]);
    // Hermite's cubic: values and slopes agree with both nodes.
    let (rise, from, to) = (b.value - a.value, a.slope / NODES_PER_UNIT, b.slope / NODES_PER_UNIT);
    let bend = from + to - 2.0 * rise;
    a.value + t * (from + t * (rise - from - bend + t * bend))
}

#[cfg(test)]
mod tests;
