//! # units: the words for quantities
//!
//! In: text a person wrote, or a number a machine measured. Out: a type that says what it is.
//!
//! "1.5" is refused where a duration is wanted, because nobody knows whether it meant seconds or milliseconds; a
//! number without its unit is how a timeout becomes a thousand times too long. Everything here parses strictly,
//! prints the shortest text that parses back to the same value, and is an integer inside wherever two machines
//! must agree.
//!
//! **Invariant:** std only. No clock is read here and no entropy is drawn: [`Rng`] starts from a seed it is given.
//!
//! ```
//! use units::{Bytes, Nanos, Percent, Rate};
//! assert_eq!("1.5ms".parse::<Nanos>().unwrap(), Nanos::from_micros(1_500));
//! assert_eq!(Nanos::from_micros(1_500).to_string(), "1.5ms");
//! assert!("1.5".parse::<Nanos>().unwrap_err().to_string().contains("unit"));
//! assert_eq!("8KiB".parse::<Bytes>().unwrap().as_u64(), 8192);
//! assert_eq!("120/min".parse::<Rate>().unwrap().per_second(), 2.0);
//! assert_eq!("99.95%".parse::<Percent>().unwrap().fraction(), 0.9995);
//! ```

mod bytes;
mod dist;
mod histogram;
mod id;
pub mod math;
mod money;
mod nanos;
mod parse;
mod percent;
mod rate;
mod rng;

pub use bytes::Bytes;
pub use dist::{Dist, DistError, Sampler};
pub use histogram::{Bucket, Exponential, Histogram};
pub use id::{Id, IdVec};
pub use money::Money;
pub use nanos::Nanos;
pub use parse::QuantityError;
pub use percent::Percent;
pub use rate::Rate;
pub use rng::{Purpose, Rng};
