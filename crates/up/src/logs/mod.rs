//! Every line that every instance says: kept, bounded, and found again.
//!
//! One folder for each service, so that one that floods pushes out only its own past. Lines lie in the order in which
//! they came, each with its moment, so a merge by time is a walk along the front of each folder. The files are plain
//! text, need no index, and outlive services and isobar alike.

mod lines;
mod read;
mod write;

pub use lines::Lines;
pub use read::{Query, Tail, newest, read};
pub use write::{Limits, News, Writer};

use std::fmt;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
    /// Isobar's own words about the instance.
    Isobar,
}

impl Stream {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Isobar => "isobar",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Out => 'o',
            Self::Err => 'e',
            Self::Isobar => 'i',
        }
    }

    fn of_letter(letter: &str) -> Option<Self> {
        match letter {
            "o" => Some(Self::Out),
            "e" => Some(Self::Err),
            "i" => Some(Self::Isobar),
            _ => None,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since 1970. Never smaller than the line before it in the same run, whatever the clock did.
    pub unix_nanos: u64,
    pub service: String,
    pub instance: u32,
    pub stream: Stream,
    pub text: String,
}

impl Record {
    /// The fields of a line that is a JSON object, as many loggers write them.
    pub fn fields(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        let text = self.text.trim();
        if !(text.starts_with('{') && text.ends_with('}')) {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "unix_nanos": self.unix_nanos,
            "service": self.service,
            "instance": self.instance,
            "stream": self.stream.word(),
            "text": self.text,
        });
        if let (Some(fields), Some(object)) = (self.fields(), object.as_object_mut()) {
            object.insert("fields".to_owned(), fields.into());
        }
        object
    }

    /// As it lies in a file.
    fn encode(&self, out: &mut String) {
        use fmt::Write;
        let _ = writeln!(out, "{} {} {} {}", self.unix_nanos, self.instance, self.stream.letter(), self.text);
    }

    /// `None` for what is no line of ours: a file cut short by a full disk, say.
    fn decode(service: &str, line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        Some(Self {
            unix_nanos: parts.next()?.parse().ok()?,
            instance: parts.next()?.parse().ok()?,
            stream: Stream::of_letter(parts.next()?)?,
            service: service.to_owned(),
            text: parts.next()?.to_owned(),
        })
    }
}
