//! Which series there are, and how many there may be.
//!
//! A series is one combination of edge, operation, version, zone pair and status class. Their product is what melts
//! metric stores, so there is a hard budget: past it a request is counted in an overflow series instead (sums stay true,
//! nothing is dropped), and [`Registry::makers`] says whose combinations filled it. Operations are capped for each edge
//! before that: a service that puts ids into its paths folds its own operations, not everyone's.

use super::cells::{Cell, Recorder};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An interned label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(u32);

impl Label {
    /// What a value is called when there is no room for it.
    pub const OTHER: Self = Self(0);
    /// Not known, or not applicable.
    pub const NONE: Self = Self(1);
}

/// How a request ended, as coarse as a budget of series allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    Informational,
    Success,
    Redirect,
    ClientError,
    ServerError,
    /// No answer: reset, time-out, refused.
    NoAnswer,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::NoAnswer,
    ];

    pub const fn of_http(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// gRPC codes by whose fault they are, as its own retry rules see it.
    pub const fn of_grpc(code: u32) -> Self {
        match code {
            0 => Self::Success,
            1 | 3 | 5 | 6 | 7 | 9 | 11 | 16 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    pub const fn failed(self) -> bool {
        matches!(self, Self::ServerError | Self::NoAnswer)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::NoAnswer => "none",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    pub source: Label,
    pub destination: Label,
    /// A template (`GET /cart/{id}`), never a path.
    pub operation: Label,
    /// The destination's.
    pub version: Label,
    pub source_zone: Label,
    pub destination_zone: Label,
    pub class: Class,
}

impl SeriesKey {
    /// Where requests are counted whose own series has no room.
    pub const fn overflow(class: Class) -> Self {
        let other = Label::OTHER;
        Self {
            source: other,
            destination: other,
            operation: other,
            version: other,
            source_zone: other,
            destination_zone: other,
            class,
        }
    }

    pub fn is_overflow(&self) -> bool {
        *self == Self::overflow(self.class)
    }
}

/// A key with its labels spelt out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesText {
    pub source: Arc<str>,
    pub destination: Arc<str>,
    pub operation: Arc<str>,
    pub version: Arc<str>,
    pub source_zone: Arc<str>,
    pub destination_zone: Arc<str>,
    pub class: Class,
}

/// A series' number, dense from zero, for as long as the registry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

#[derive(Clone, Copy, Debug)]
pub struct SeriesSettings {
    pub series_max: usize,
    pub operations_per_edge_max: usize,
    pub labels_max: usize,
}

impl Default for SeriesSettings {
    fn default() -> Self {
        Self { series_max: 100_000, operations_per_edge_max: 100, labels_max: 200_000 }
    }
}

/// Whose combinations fill the budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    pub source: Arc<str>,
    pub destination: Arc<str>,
    pub series: usize,
    pub operations: usize,
    pub versions: usize,
    pub zone_pairs: usize,
    /// Requests to open a series that were answered with `other` or the overflow series.
    pub folded: u64,
}

/// How much of its budgets a registry uses, and what found them used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesUsage {
    pub series: usize,
    pub series_max: usize,
    pub folded: u64,
    pub labels: usize,
    pub labels_max: usize,
    pub labels_refused: u64,
}

/// Shared by recorders and the collector. Locked when a series is opened and when the collector lists them, never on
/// the way of a request.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    settings: SeriesSettings,
    labels: HashMap<Arc<str>, Label>,
    texts: Vec<Arc<str>>,
    ids: HashMap<SeriesKey, SeriesId>,
    pub(super) keys: Vec<SeriesKey>,
    operations: HashMap<(Label, Label), HashSet<Label>>,
    folded: HashMap<(Label, Label), u64>,
    folded_ever: u64,
    labels_refused: u64,
    /// Every worker's cells in the order they were opened; the collector keeps its own place in each.
    pub(super) workers: Vec<Vec<(SeriesId, Arc<Cell>)>>,
}

impl Registry {
    pub fn new(settings: SeriesSettings) -> Self {
        let mut inner = Inner {
            settings,
            labels: HashMap::new(),
            texts: Vec::new(),
            ids: HashMap::new(),
            keys: Vec::new(),
            operations: HashMap::new(),
            folded: HashMap::new(),
            folded_ever: 0,
            labels_refused: 0,
            workers: Vec::new(),
        };
        for reserved in ["other", ""] {
            inner.label(reserved);
        }
        // Made beforehand, so that there is always room for them.
        for class in Class::ALL {
            inner.insert(SeriesKey::overflow(class));
        }
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A worker that panicked while opening a series left the tables whole: each insertion is complete or absent.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn label(&self, text: &str) -> Label {
        self.lock().label(text)
    }

    /// A writer for one worker. Its cells belong to it alone.
    pub fn recorder(&self) -> Recorder {
        let mut inner = self.lock();
        inner.workers.push(Vec::new());
        Recorder::new(self.clone(), inner.workers.len() - 1)
    }

    pub fn usage(&self) -> SeriesUsage {
        let inner = self.lock();
        SeriesUsage {
            series: inner.keys.len(),
            series_max: inner.settings.series_max,
            folded: inner.folded_ever,
            labels: inner.texts.len(),
            labels_max: inner.settings.labels_max,
            labels_refused: inner.labels_refused,
        }
    }

    pub fn series_count(&self) -> usize {
        self.lock().keys.len()
    }

    pub fn text(&self, id: SeriesId) -> Option<SeriesText> {
        let inner = self.lock();
        inner.keys.get(id.0 as usize).map(|key| inner.text(key))
    }

    /// Every series, by id.
    pub fn texts(&self) -> Vec<SeriesText> {
        let inner = self.lock();
        inner.keys.iter().map(|key| inner.text(key)).collect()
    }

    /// Series from number `first` on: what was opened since somebody asked last.
    pub fn texts_from(&self, first: usize) -> Vec<SeriesText> {
        let inner = self.lock();
        inner.keys.get(first..).unwrap_or_default().iter().map(|key| inner.text(key)).collect()
    }

    /// A label spelt out.
    pub fn label_text(&self, label: Label) -> Arc<str> {
        let inner = self.lock();
        inner.texts.get(label.0 as usize).cloned().unwrap_or_default()
    }

    /// A key with its labels spelt out, whether or not it has a series of its own.
    pub fn key_text(&self, key: &SeriesKey) -> SeriesText {
        self.lock().text(key)
    }

    /// The series of a key, if it has one of its own.
    pub fn find(&self, key: &SeriesKey) -> Option<SeriesId> {
        self.lock().ids.get(key).copied()
    }

    /// Edges by how many series they made, most first.
    pub fn makers(&self) -> Vec<Maker> {
        type Seen = (usize, HashSet<Label>, HashSet<Label>, HashSet<(Label, Label)>);
        let inner = self.lock();
        let mut edges: HashMap<(Label, Label), Seen> = HashMap::new();
        for key in &inner.keys {
            let (series, operations, versions, zones) =
                edges.entry((key.source, key.destination)).or_default();
            *series += 1;
            operations.insert(key.operation);
            versions.insert(key.version);
            zones.insert((key.source_zone, key.destination_zone));
        }
        for edge in inner.folded.keys() {
            edges.entry(*edge).or_default();
        }
        let text = |label: Label| inner.texts[label.0 as usize].clone();
        let mut makers: Vec<Maker> = edges
            .into_iter()
            .map(|(edge, (series, operations, versions, zones))| Maker {
                source: text(edge.0),
                destination: text(edge.1),
                series,
                operations: operations.len(),
                versions: versions.len(),
                zone_pairs: zones.len(),
                folded: inner.folded.get(&edge).copied().unwrap_or(0),
            })
            .collect();
        makers.sort_by(|a, b| {
            (b.series, b.folded)
                .cmp(&(a.series, a.folded))
                .then_with(|| (&a.source, &a.destination).cmp(&(&b.source, &b.destination)))
        });
        makers
    }
}

impl Inner {
    fn label(&mut self, text: &str) -> Label {
        if let Some(label) = self.labels.get(text) {
            return *label;
        }
        if self.texts.len() >= self.settings.labels_max {
            self.labels_refused += 1;
            return Label::OTHER;
        }
        let label = Label(u32::try_from(self.texts.len()).expect("labels_max is far below four billion"));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.labels.insert(text, label);
        label
    }

    fn text(&self, key: &SeriesKey) -> SeriesText {
        let text = |label: Label| self.texts[label.0 as usize].clone();
        SeriesText {
            source: text(key.source),
            destination: text(key.destination),
            operation: text(key.operation),
            version: text(key.version),
            source_zone: text(key.source_zone),
            destination_zone: text(key.destination_zone),
            class: key.class,
        }
    }

    fn insert(&mut self, key: SeriesKey) -> SeriesId {
        let id = SeriesId(u32::try_from(self.keys.len()).expect("series_max is far below four billion"));
        self.keys.push(key);
        self.ids.insert(key, id);
        id
    }

    /// The series a key is counted in, and whether that is its own.
    pub(super) fn open(&mut self, key: &SeriesKey) -> (SeriesId, bool) {
        if let Some(id) = self.ids.get(key) {
            return (*id, true);
        }
        let edge = (key.source, key.destination);
        let operations = self.operations.entry(edge).or_default();
        let known = operations.contains(&key.operation) || key.operation == Label::OTHER;
        let room = self.keys.len() < self.settings.series_max;
        if room && (known || operations.len() < self.settings.operations_per_edge_max) {
            operations.insert(key.operation);
            return (self.insert(*key), true);
        }
        self.folded_ever += 1;
        // Whoever cannot even be named here is in that sum.
        if self.folded.contains_key(&edge) || self.folded.len() < self.settings.series_max {
            *self.folded.entry(edge).or_default() += 1;
        }
        if room {
            let other = SeriesKey { operation: Label::OTHER, ..*key };
            return (self.ids.get(&other).copied().unwrap_or_else(|| self.insert(other)), false);
        }
        let fallback = [SeriesKey { operation: Label::OTHER, ..*key }, SeriesKey::overflow(key.class)];
        let id = fallback.iter().find_map(|key| self.ids.get(key).copied());
        (id.expect("the overflow series are made beforehand"), false)
    }

    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + 64).sum();
        let operations: usize = self.operations.values().map(|set| set.capacity() * 5 + 48).sum();
        texts
            + operations
            + self.keys.capacity() * size_of::<SeriesKey>()
            + self.ids.capacity() * (size_of::<SeriesKey>() + 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(registry: &Registry, source: &str, operation: &str) -> SeriesKey {
        SeriesKey {
            source: registry.label(source),
            destination: registry.label("cart"),
            operation: registry.label(operation),
            version: Label::NONE,
            source_zone: Label::NONE,
            destination_zone: Label::NONE,
            class: Class::Success,
        }
    }

    #[test]
    fn operations_fold_per_edge_and_series_fold_at_the_budget() {
        let settings = SeriesSettings { series_max: 12, operations_per_edge_max: 3, labels_max: 100 };
        let registry = Registry::new(settings);
        let open = |source: &str, operation: &str| {
            let key = key(&registry, source, operation);
            let (id, own) = registry.lock().open(&key);
            let text = registry.text(id).unwrap();
            format!(
                "{}>{} {}{}",
                text.source,
                text.destination,
                text.operation,
                if own { "" } else { " (folded)" }
            )
        };
        for operation in ["a", "b", "c"] {
            assert_eq!(open("web", operation), format!("web>cart {operation}"));
        }
        assert_eq!(open("web", "d"), "web>cart other (folded)");
        assert_eq!(open("web", "e"), "web>cart other (folded)");
        assert_eq!(open("web", "a"), "web>cart a");
        assert_eq!(open("app", "a"), "app>cart a");
        assert_eq!(open("app", "b"), "app>cart b");
        assert_eq!(registry.series_count(), 12);
        assert_eq!(open("app", "c"), "other>other other (folded)");
        assert_eq!(open("web", "f"), "web>cart other (folded)", "its own `other` still has room");
        let makers = registry.makers();
        let line = |maker: &Maker| {
            format!(
                "{}>{} {} {} {}",
                maker.source, maker.destination, maker.series, maker.operations, maker.folded
            )
        };
        assert_eq!(
            makers.iter().map(line).collect::<Vec<_>>(),
            ["other>other 6 1 0", "web>cart 4 4 3", "app>cart 2 2 1"]
        );
        assert_eq!(registry.usage().folded, 4);
    }

    #[test]
    fn labels_are_bounded() {
        let registry = Registry::new(SeriesSettings { labels_max: 3, ..SeriesSettings::default() });
        assert_ne!(registry.label("a"), Label::OTHER);
        assert_eq!(registry.label("b"), Label::OTHER);
        assert_eq!(registry.label(""), Label::NONE);
        let usage = registry.usage();
        assert_eq!((usage.labels, usage.labels_max, usage.labels_refused), (3, 3, 1));
    }

    #[test]
    fn classes_follow_whose_fault_it_was() {
        assert_eq!(Class::of_http(204), Class::Success);
        assert_eq!(Class::of_http(599), Class::ServerError);
        assert_eq!(Class::of_grpc(5), Class::ClientError);
        assert_eq!(Class::of_grpc(14), Class::ServerError);
        assert!(Class::NoAnswer.failed() && !Class::ClientError.failed());
    }
}
