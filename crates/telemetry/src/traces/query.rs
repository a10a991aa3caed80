//! What a search asks, and whether a trace answers it. Zipkin's semantics, which every other door maps to.

use crate::http::Query;
use crate::span::{Span, lower};
use units::Nanos;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceQuery {
    pub service: Option<Box<str>>,
    pub remote_service: Option<Box<str>>,
    pub span_name: Option<Box<str>>,
    pub min_duration: Option<Nanos>,
    pub max_duration: Option<Nanos>,
    /// `(key, Some(value))` is a tag; `(word, None)` an annotation or a tag's key.
    pub terms: Vec<(Box<str>, Option<Box<str>>)>,
    /// The root's start must lie in here, both ends included.
    pub from: Nanos,
    pub to: Nanos,
    pub limit: usize,
    pub order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Newest,
    /// By the longest span that meets the service and duration conditions.
    Slowest,
}

impl TraceQuery {
    /// Everything between two moments, newest first.
    pub fn between(from: Nanos, to: Nanos, limit: usize) -> Self {
        Self {
            service: None,
            remote_service: None,
            span_name: None,
            min_duration: None,
            max_duration: None,
            terms: Vec::new(),
            from,
            to,
            limit,
            order: Order::Newest,
        }
    }

    /// From the parameters of `/api/v2/traces`. The error is what the client is told.
    pub fn from_zipkin(query: &Query, now: Nanos, default_lookback: Nanos) -> Result<Self, String> {
        let millis = |name: &str, absent: Nanos| match number(query, name)? {
            None => Ok(absent),
            Some(millis) if millis > 0 => Ok(Nanos::from_millis(millis as u64)),
            Some(_) => Err(format!("{name} <= 0")),
        };
        let to = millis("endTs", now)?;
        let lookback = millis("lookback", default_lookback)?;
        let limit = match number(query, "limit")? {
            None => 10,
            Some(limit) if limit > 0 => limit as usize,
            Some(_) => return Err("limit <= 0".into()),
        };
        let min = match number(query, "minDuration")? {
            Some(micros) if micros <= 0 => return Err("minDuration <= 0".into()),
            min => min.map(|micros| Nanos::from_micros(micros as u64)),
        };
        let max = number(query, "maxDuration")?.map(|micros| Nanos::from_micros(micros.max(0) as u64));
        match (min, max) {
            (None, Some(_)) => return Err("maxDuration is only valid with minDuration".into()),
            (Some(min), Some(max)) if max < min => return Err("maxDuration < minDuration".into()),
            _ => {}
        }
        let name = |name: &str| query.get(name).map(lower);
        Ok(Self {
            service: name("serviceName"),
            remote_service: name("remoteServiceName"),
            span_name: name("spanName").filter(|name| &**name != "all"),
            min_duration: min,
            max_duration: max,
            terms: terms(query.get("annotationQuery").unwrap_or("")),
            from: to.saturating_sub(lookback),
            to,
            limit,
            order: Order::Newest,
        })
    }

    /// Every condition but time. Each may be met by another span; with a service, only that service's spans count.
    pub fn matches(&self, spans: &[Span]) -> bool {
        let mut service = self.service.is_none();
        let mut remote = self.remote_service.is_none();
        let mut name = self.span_name.is_none();
        let mut duration = self.min_duration.is_none();
        let mut open: Vec<_> = self.terms.iter().collect();
        for span in spans {
            if self.service.as_ref().is_some_and(|wanted| *wanted != span.local.service) {
                continue;
            }
            service = true;
            remote |= self.remote_service.as_ref() == Some(&span.remote.service);
            name |= self.span_name.as_ref().is_some_and(|wanted| *wanted == lower(&span.name));
            duration |= span.duration.is_some_and(|duration| self.duration_fits(duration));
            open.retain(|(key, value)| match value {
                Some(value) => span.tag(key).is_none_or(|tag| tag.text() != **value),
                None => span.tag(key).is_none() && span.annotations.iter().all(|note| note.value != *key),
            });
        }
        service && remote && name && duration && open.is_empty()
    }

    pub(super) fn duration_fits(&self, duration: Nanos) -> bool {
        // Zipkin's bounds are whole microseconds and so are the durations it shows: compare what people see.
        let micros = Nanos(duration.0 / 1_000 * 1_000);
        self.min_duration.is_none_or(|min| micros >= min) && self.max_duration.is_none_or(|max| micros <= max)
    }
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, String> {
    match query.get(name) {
        None => Ok(None),
        Some(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name} `{text}` is not a whole number")),
        },
    }
}

/// `a=b and c`: at most 100 parts. A later tag term replaces an earlier one of its key; a bare word replaces nothing.
fn terms(text: &str) -> Vec<(Box<str>, Option<Box<str>>)> {
    let mut terms: Vec<(Box<str>, Option<Box<str>>)> = Vec::new();
    for part in text.split(" and ").take(100).map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim()).filter(|it| !it.is_empty()).map(Box::from)),
            None => (part, None),
        };
        match terms.iter_mut().find(|(known, _)| &**known == key) {
            Some(known) if value.is_some() => known.1 = value,
            Some(_) => {}
            None => terms.push((key.into(), value)),
        }
    }
    terms
}

/// When a trace counts as having happened: its root's start, else the earliest; never if no span has one.
pub(super) fn moment(spans: impl Iterator<Item = (bool, Option<Nanos>)>) -> Option<Nanos> {
    let mut earliest: Option<Nanos> = None;
    for (is_root, start) in spans {
        if let Some(start) = start {
            if is_root {
                return Some(start);
            }
            earliest = Some(earliest.map_or(start, |known| known.min(start)));
        }
    }
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::trace;

    fn parse(text: &str) -> Result<TraceQuery, String> {
        TraceQuery::from_zipkin(&Query::parse(text), Nanos::from_secs(1_000_000), Nanos::from_secs(86_400))
    }

    #[test]
    fn parameters_have_their_units_defaults_and_errors() {
        let query = parse("").unwrap();
        assert_eq!(
            (query.from, query.to, query.limit),
            (Nanos::from_secs(913_600), Nanos::from_secs(1_000_000), 10)
        );
        let query = parse(
            "serviceName=Cart&spanName=ALL&minDuration=5&maxDuration=5&endTs=2000&lookback=500&limit=3",
        )
        .unwrap();
        assert_eq!(query.service.as_deref(), Some("cart"));
        assert_eq!(query.span_name, None);
        assert_eq!(
            (query.min_duration, query.from, query.to),
            (Some(Nanos(5_000)), Nanos::from_millis(1500), Nanos::from_secs(2))
        );
        for (text, message) in [
            ("endTs=0", "endTs <= 0"),
            ("lookback=-1", "lookback <= 0"),
            ("limit=0", "limit <= 0"),
            ("minDuration=0", "minDuration <= 0"),
            ("maxDuration=5", "only valid with minDuration"),
            ("minDuration=6&maxDuration=5", "maxDuration < minDuration"),
            ("limit=ten", "not a whole number"),
        ] {
            assert!(parse(text).unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn annotation_queries_split_and_replace() {
        let show = |text: &str| {
            let terms = terms(text);
            let words: Vec<_> = terms
                .iter()
                .map(|(key, value)| value.as_ref().map_or(key.to_string(), |it| format!("{key}={it}")))
                .collect();
            words.join("|")
        };
        assert_eq!(show("a=b and c and d = e=f"), "a=b|c|d=e=f");
        assert_eq!(show("a=1 and a=2"), "a=2");
        assert_eq!(show("a=1 and a"), "a=1");
        assert_eq!(show("a and a=1"), "a=1");
        assert_eq!(show(" and  and "), "");
        assert_eq!(terms(&"x and ".repeat(500)).len(), 1);
    }

    #[test]
    fn each_condition_may_be_met_by_another_span_of_the_service() {
        let mut spans = trace(
            "1 SERVER web->- +100 get \n 2<1 CLIENT web->cart +50 post \n 3<2 SERVER cart->- +40 error put",
        );
        spans[1].set_tag("k", "v");
        spans[1].annotations.push(crate::span::Annotation { at: Nanos(1), value: "note".into() });
        let check = |text: &str, expected: bool| {
            assert_eq!(parse(text).unwrap().matches(&spans), expected, "{text}");
        };
        check("", true);
        check("serviceName=web", true);
        check("serviceName=db", false);
        check("serviceName=web&spanName=POST&minDuration=100", true);
        check("serviceName=cart&minDuration=41", false);
        check("minDuration=41&maxDuration=60", true);
        check("minDuration=101", false);
        check("remoteServiceName=cart", true);
        check("serviceName=cart&remoteServiceName=cart", false);
        check("annotationQuery=error", true);
        check("serviceName=web&annotationQuery=error", false);
        check("annotationQuery=note+and+k%3Dv+and+k", true);
        check("annotationQuery=k%3Dw", false);
        check("annotationQuery=k", true);
    }
}
