//! Zipkin v1 JSON, which clients from before 2017 still send.
//!
//! A v1 span is a bag of events, each with its own host: one v1 span may hold both sides of a call and even several
//! hosts. The model since is one span for each side. So one v1 span becomes one or more v2 spans: events are grouped by
//! host, two-letter events (`cs`, `sr`, ...) give kind and time, and address annotations (`sa`, `ca`, `ma`) the far end.

use super::json::{id, micros, read_endpoint};
use crate::ids::{IdError, SpanId, TraceId};
use crate::json::{JsonError, Kind, Reader};
use crate::span::{Annotation, Endpoint, Span, SpanKind, Value, lower};
use units::Nanos;

pub fn read_spans(body: &[u8]) -> Result<Vec<Span>, JsonError> {
    let mut reader = Reader::from_bytes(body)?;
    let mut spans = Vec::with_capacity(body.len() / 512);
    reader.array(|reader| {
        let old = read_old(reader)?;
        spans.extend(Conversion::run(&old));
        Ok(())
    })?;
    reader.end()?;
    Ok(spans)
}

/// A v1 span as written.
struct Old {
    trace_id: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    name: Box<str>,
    start: Option<Nanos>,
    duration: Option<Nanos>,
    debug: bool,
    events: Vec<Event>,
    marks: Vec<Mark>,
}

#[derive(Clone)]
struct Event {
    at: Nanos,
    value: Box<str>,
    host: Option<Endpoint>,
}

/// A "binary annotation": a tag, or (`value` absent: it was `true`) an address.
struct Mark {
    key: Box<str>,
    value: Option<Box<str>>,
    host: Option<Endpoint>,
}

fn read_old(reader: &mut Reader<'_>) -> Result<Old, JsonError> {
    let (mut trace_id, mut span_id, mut parent) = (None, None, None);
    let (mut name, mut start, mut duration, mut debug) = ("".into(), None, None, false);
    let (mut events, mut marks) = (Vec::new(), Vec::new());
    reader.object(|reader, key| {
        match key {
            "traceId" => trace_id = Some(id(reader, "traceId", TraceId::from_zipkin)?),
            "id" => span_id = Some(id(reader, "id", SpanId::from_zipkin)?),
            _ if reader.null()? => {}
            "parentId" => {
                parent = id(reader, "parentId", |text| match SpanId::from_zipkin(text) {
                    Err(IdError::Zero) => Ok(None),
                    other => other.map(Some),
                })?;
            }
            "name" => name = lower(&reader.text()?),
            "timestamp" => start = micros(reader)?,
            "duration" => duration = micros(reader)?,
            "debug" => debug = reader.bool()?,
            "annotations" => reader.array(|reader| {
                events.push(read_event(reader)?);
                Ok(())
            })?,
            "binaryAnnotations" => reader.array(|reader| {
                let mark = read_mark(reader)?;
                marks.extend(mark);
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (trace_id, span_id) {
        (Some(trace_id), Some(id)) => {
            Ok(Old { trace_id, id, parent, name, start, duration, debug, events, marks })
        }
        (None, _) => reader.error("a span without traceId"),
        (_, None) => reader.error("a span without id"),
    }
}

fn read_host(reader: &mut Reader<'_>) -> Result<Option<Endpoint>, JsonError> {
    if reader.null()? {
        return Ok(None);
    }
    Ok(Some(read_endpoint(reader)?).filter(|host| !host.is_empty()))
}

fn read_event(reader: &mut Reader<'_>) -> Result<Event, JsonError> {
    let (mut at, mut value, mut host) = (None, None, None);
    reader.object(|reader, key| {
        match key {
            "timestamp" => at = micros(reader)?,
            "value" => value = Some(reader.text()?.into()),
            "endpoint" => host = read_host(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    match (at, value) {
        (Some(at), Some(value)) => Ok(Event { at, value, host }),
        _ => reader.error("an annotation needs both timestamp and value"),
    }
}

fn read_mark(reader: &mut Reader<'_>) -> Result<Option<Mark>, JsonError> {
    let (mut key_text, mut value, mut yes, mut host) = (None, None, false, None);
    reader.object(|reader, key| {
        match key {
            "key" => key_text = Some(Box::from(&*reader.text()?)),
            "value" => match reader.peek()? {
                Kind::Bool => yes = reader.bool()?,
                Kind::Text => value = Some(Box::from(&*reader.text()?)),
                Kind::Number => value = Some(Box::from(reader.number()?)),
                _ => return reader.error("a binary annotation's value is a string, a number or `true`"),
            },
            "endpoint" => host = read_host(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    let Some(key) = key_text else {
        return reader.error("a binary annotation without key");
    };
    let address = matches!(&*key, "sa" | "ca" | "ma");
    Ok(match value {
        // Some Ruby clients wrote "1" for `true`.
        Some(text) if address && matches!(&*text, "1" | "true") => Some(Mark { key, value: None, host }),
        Some(text) => Some(Mark { key, value: Some(text), host }),
        None if yes && address => Some(Mark { key, value: None, host }),
        None => Some(Mark { key, value: Some(if yes { "true" } else { "false" }.into()), host }),
    })
}

/// The two-letter events of one span.
#[derive(Default)]
struct Core {
    cs: Option<Event>,
    cr: Option<Event>,
    sr: Option<Event>,
    ss: Option<Event>,
    ms: Option<Event>,
    mr: Option<Event>,
    ws: Option<Event>,
    wr: Option<Event>,
}

struct Conversion<'a> {
    old: &'a Old,
    /// One for each host seen; the first may still lack one.
    spans: Vec<Span>,
    core: Core,
}

fn same_service(a: &Option<Endpoint>, b: &Option<Endpoint>) -> bool {
    let name = |host: &Option<Endpoint>| host.as_ref().map(|host| host.service.clone()).unwrap_or_default();
    name(a) == name(b)
}

fn between(begin: &Event, end: &Event) -> Option<Nanos> {
    end.at.checked_sub(begin.at).filter(|duration| !duration.is_zero())
}

impl<'a> Conversion<'a> {
    fn run(old: &'a Old) -> Vec<Span> {
        let mut conversion = Self { old, spans: Vec::new(), core: Core::default() };
        conversion.new_span(None);
        conversion.events();
        conversion.calls();
        conversion.messages();
        conversion.marks();
        for span in &mut conversion.spans {
            span.normalise();
        }
        conversion.spans
    }

    fn new_span(&mut self, host: Option<&Endpoint>) -> usize {
        let mut span = Span::new(self.old.trace_id, self.old.id);
        span.parent = self.old.parent;
        span.name = self.old.name.clone();
        span.debug = self.old.debug;
        span.local = host.cloned().unwrap_or_default();
        self.spans.push(span);
        self.spans.len() - 1
    }

    /// The span of a host: the first one that has no host yet or has that service.
    fn at(&mut self, host: &Option<Endpoint>) -> &mut Span {
        let Some(host) = host else {
            return &mut self.spans[0];
        };
        let known =
            self.spans.iter().position(|span| span.local.is_empty() || span.local.service == host.service);
        let at = known.unwrap_or_else(|| self.new_span(Some(host)));
        let span = &mut self.spans[at];
        if span.local.is_empty() {
            span.local = host.clone();
        }
        span
    }

    fn note(&mut self, event: &Event) {
        let annotation = Annotation { at: event.at, value: event.value.clone() };
        self.at(&event.host).annotations.push(annotation);
    }

    fn events(&mut self) {
        for event in &self.old.events {
            // Without a host nobody knows whose side it was.
            let kind = match &*event.value {
                _ if event.host.is_none() => None,
                "cs" | "cr" => Some(SpanKind::Client),
                "sr" | "ss" => Some(SpanKind::Server),
                "ms" => Some(SpanKind::Producer),
                "mr" => Some(SpanKind::Consumer),
                _ => None,
            };
            let slot = match &*event.value {
                _ if event.host.is_none() => None,
                "cs" => Some(&mut self.core.cs),
                "cr" => Some(&mut self.core.cr),
                "sr" => Some(&mut self.core.sr),
                "ss" => Some(&mut self.core.ss),
                "ms" => Some(&mut self.core.ms),
                "mr" => Some(&mut self.core.mr),
                "ws" => Some(&mut self.core.ws),
                "wr" => Some(&mut self.core.wr),
                _ => None,
            };
            match slot {
                None => self.note(event),
                Some(slot) => {
                    *slot = Some(event.clone());
                    if kind.is_some() {
                        self.at(&event.host).kind = kind;
                    }
                }
            }
        }
    }

    /// Time of one side: the span's own if it has both, else what its events say.
    fn time(&mut self, begin: &Event, end: Option<&Event>) {
        let (start, duration) = match (self.old.start, self.old.duration) {
            (Some(start), Some(duration)) => (Some(start), Some(duration)),
            _ => (Some(begin.at), end.and_then(|end| between(begin, end))),
        };
        let span = self.at(&begin.host);
        (span.start, span.duration) = (start, duration);
    }

    /// A finish event whose start is missing, but which ends just when the span does.
    fn start_of(&self, end: &Option<Event>) -> Option<Event> {
        let (start, duration, end) = (self.old.start?, self.old.duration?, end.as_ref()?);
        (start + duration == end.at).then(|| Event { at: start, value: "".into(), host: end.host.clone() })
    }

    fn calls(&mut self) {
        let core = &self.core;
        let cs = core.cs.clone().or_else(|| self.start_of(&core.cr));
        let sr = core.sr.clone().or_else(|| self.start_of(&core.ss));
        let (cr, ss) = (core.cr.clone(), core.ss.clone());
        match (&cs, &sr) {
            (Some(cs), Some(sr)) => {
                // In a span shared by both sides the client owns the span's own time.
                self.time(cs, cr.as_ref());
                let server = if same_service(&cs.host, &sr.host) {
                    // A service that calls itself: its one span splits in two.
                    self.at(&cs.host).kind = Some(SpanKind::Client);
                    let at = self.new_span(sr.host.as_ref());
                    &mut self.spans[at]
                } else {
                    self.at(&sr.host)
                };
                server.kind = Some(SpanKind::Server);
                server.shared = true;
                server.start = Some(sr.at);
                server.duration = ss.as_ref().and_then(|ss| between(sr, ss));
                if cr.is_none() && self.old.duration.is_none() {
                    self.at(&cs.host).duration = None;
                }
            }
            (Some(cs), None) if cr.is_some() => self.time(cs, cr.as_ref()),
            (None, Some(sr)) if ss.is_some() => self.time(sr, ss.as_ref()),
            _ => self.incomplete(),
        }
        // v1 had no `shared`: a server span without its own time was one by convention.
        if let (None, Some(sr)) = (&self.core.cs, &self.core.sr) {
            let no_time = self.old.start.is_none() || (ss.is_some() && self.old.duration.is_none());
            if cs.is_none() && no_time {
                let host = sr.host.clone();
                let server = self.spans.iter_mut().find(|span| {
                    span.kind == Some(SpanKind::Server)
                        && host.as_ref().is_some_and(|it| it.service == span.local.service)
                });
                if let Some(server) = server {
                    server.shared = true;
                }
            }
        }
    }

    fn incomplete(&mut self) {
        let [cs, cr, sr, ss] = [&self.core.cs, &self.core.cr, &self.core.sr, &self.core.ss].map(Clone::clone);
        for span in &mut self.spans {
            let (begin, end) = match span.kind {
                Some(SpanKind::Client) => (&cs, &cr),
                Some(SpanKind::Server) => (&sr, &ss),
                _ => continue,
            };
            if let Some(begin) = begin {
                span.start = Some(begin.at);
            }
            if let Some(end) = end {
                span.annotations.push(Annotation { at: end.at, value: end.value.clone() });
            }
        }
        if self.old.start.is_some() {
            (self.spans[0].start, self.spans[0].duration) = (self.old.start, self.old.duration);
        }
    }

    fn messages(&mut self) {
        let [ms, mr, ws, wr] = [&self.core.ms, &self.core.mr, &self.core.ws, &self.core.wr].map(Clone::clone);
        match (&ms, &mr) {
            (Some(ms), Some(mr)) => {
                let consumer = if same_service(&ms.host, &mr.host) {
                    self.at(&ms.host).kind = Some(SpanKind::Producer);
                    let at = self.new_span(mr.host.as_ref());
                    &mut self.spans[at]
                } else {
                    self.at(&mr.host)
                };
                consumer.kind = Some(SpanKind::Consumer);
                consumer.shared = true;
                (consumer.start, consumer.duration) = match &wr {
                    Some(wr) => (Some(wr.at), between(wr, mr)),
                    None => (Some(mr.at), None),
                };
                let producer = self.at(&ms.host);
                (producer.start, producer.duration) =
                    (Some(ms.at), ws.as_ref().and_then(|ws| between(ms, ws)));
            }
            (Some(ms), None) => self.time(ms, ws.as_ref()),
            (None, Some(mr)) => match &wr {
                Some(wr) => self.time(wr, Some(mr)),
                None => self.time(mr, None),
            },
            (None, None) => {
                for event in [ws, wr].into_iter().flatten() {
                    self.note(&event);
                }
            }
        }
    }

    fn marks(&mut self) {
        let (mut sa, mut ca, mut ma) = (None, None, None);
        for mark in &self.old.marks {
            match (&mark.value, &*mark.key) {
                (None, "sa") => sa = mark.host.clone(),
                (None, "ca") => ca = mark.host.clone(),
                (None, "ma") => ma = mark.host.clone(),
                (None, _) => {}
                (Some(value), "lc") if value.is_empty() => {
                    self.at(&mark.host); // Only says who was local.
                }
                (Some(value), key) => {
                    let tag = (key.into(), Value::Text(value.clone()));
                    self.at(&mark.host).tags.push(tag);
                }
            }
        }
        let core = &self.core;
        let hosts =
            |events: [&Option<Event>; 2]| events.map(|event| event.as_ref().and_then(|it| it.host.clone()));
        let [client, client_end] = hosts([&core.cs, &core.cr]);
        let [server, server_end] = hosts([&core.sr, &core.ss]);
        let [producer, consumer] = hosts([&core.ms, &core.mr]);
        let no_call = client.is_none() && client_end.is_none() && server.is_none() && server_end.is_none();
        match (&ca, &sa) {
            (Some(ca), Some(sa)) if no_call => {
                self.at(&Some(ca.clone())).remote = sa.clone();
                return;
            }
            (None, Some(sa)) if no_call => {
                self.spans[0].remote = sa.clone();
                return;
            }
            (Some(ca), None) if no_call => {
                self.spans[0].kind = Some(SpanKind::Server);
                self.spans[0].remote = ca.clone();
                return;
            }
            _ => {}
        }
        if let (Some(mut ca), Some(server)) = (ca, server.or(server_end))
            && ca != server
        {
            // Finagle writes the server's own name into the client's address.
            if ca.service == server.service {
                ca.service = "".into();
            }
            self.side(&server, SpanKind::Server).remote = ca;
        }
        if let (Some(sa), Some(client)) = (sa, client.or(client_end)) {
            self.side(&client, SpanKind::Client).remote = sa;
        }
        if let Some(ma) = ma {
            for (host, kind) in [(producer, SpanKind::Producer), (consumer, SpanKind::Consumer)] {
                if let Some(host) = host {
                    self.side(&host, kind).remote = ma.clone();
                }
            }
        }
    }

    /// The span of a host in a role: after a loop-back split, two spans have that host.
    fn side(&mut self, host: &Endpoint, kind: SpanKind) -> &mut Span {
        let found =
            self.spans.iter().position(|span| span.kind == Some(kind) && span.local.service == host.service);
        match found {
            Some(at) => &mut self.spans[at],
            None => self.at(&Some(host.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Writer;

    const WEB: &str = r#""endpoint":{"serviceName":"web","ipv4":"10.0.0.1"}"#;
    const DB: &str = r#""endpoint":{"serviceName":"db","ipv4":"10.0.0.2"}"#;

    /// Each v2 span as `kind@service start+duration -> remote {tags} [annotations]`.
    #[track_caller]
    fn check(fields: &str, expected: &[&str]) {
        let body = format!(r#"[{{"traceId":"1","id":"2",{fields}}}]"#).replace("WEB", WEB).replace("DB", DB);
        let spans = read_spans(body.as_bytes()).unwrap();
        let got: Vec<String> = spans
            .iter()
            .map(|span| {
                let mut line =
                    format!("{}@{}", span.kind.map_or("LOCAL", SpanKind::name), span.local.service);
                if let Some(start) = span.start {
                    line += &format!(" {}", start.0 / 1000);
                }
                if let Some(duration) = span.duration {
                    line += &format!("+{}", duration.0 / 1000);
                }
                if span.shared {
                    line += " shared";
                }
                if !span.remote.is_empty() {
                    line += &format!(" -> {}", span.remote.service);
                }
                span.tags.iter().for_each(|(key, value)| line += &format!(" {key}={value}"));
                span.annotations
                    .iter()
                    .for_each(|note| line += &format!(" [{}@{}]", note.value, note.at.0 / 1000));
                line
            })
            .collect();
        assert_eq!(got, expected);
        let mut json = Writer::new();
        super::super::json::write_spans(&mut json, &spans);
        assert_eq!(super::super::json::read_spans(json.as_bytes()).unwrap(), spans, "they are good v2 spans");
    }

    #[test]
    fn events_become_sides() {
        check(
            r#""annotations":[{"timestamp":10,"value":"cs",WEB},{"timestamp":30,"value":"cr",WEB},{"timestamp":20,"value":"ws"}]"#,
            &["CLIENT@web 10+20 [ws@20]"],
        );
        check(
            r#""annotations":[{"timestamp":10,"value":"cs",WEB},{"timestamp":15,"value":"sr",DB},{"timestamp":25,"value":"ss",DB},{"timestamp":30,"value":"cr",WEB}]"#,
            &["CLIENT@web 10+20", "SERVER@db 15+10 shared"],
        );
        check(
            r#""timestamp":9,"duration":22,"annotations":[{"timestamp":10,"value":"cs",WEB},{"timestamp":15,"value":"sr",WEB},{"timestamp":25,"value":"ss",WEB},{"timestamp":30,"value":"cr",WEB}]"#,
            &["CLIENT@web 9+22", "SERVER@web 15+10 shared"],
        );
        // A server that reported no time of its own shares the client's span.
        check(
            r#""annotations":[{"timestamp":15,"value":"sr",DB},{"timestamp":25,"value":"ss",DB}]"#,
            &["SERVER@db 15+10 shared"],
        );
        check(
            r#""timestamp":15,"duration":10,"annotations":[{"timestamp":15,"value":"sr",DB},{"timestamp":25,"value":"ss",DB}]"#,
            &["SERVER@db 15+10"],
        );
        check(r#""annotations":[{"timestamp":10,"value":"cs",WEB}]"#, &["CLIENT@web 10"]);
        check(
            r#""timestamp":10,"duration":5,"annotations":[{"timestamp":15,"value":"cr",WEB}]"#,
            &["CLIENT@web 10+5"],
        );
        check(r#""annotations":[{"timestamp":10,"value":"hello",WEB}]"#, &["LOCAL@web [hello@10]"]);
    }

    #[test]
    fn messages_become_producers_and_consumers() {
        check(
            r#""annotations":[{"timestamp":10,"value":"ms",WEB},{"timestamp":12,"value":"ws",WEB}],"binaryAnnotations":[{"key":"ma","value":true,"endpoint":{"serviceName":"kafka"}}]"#,
            &["PRODUCER@web 10+2 -> kafka"],
        );
        check(
            r#""annotations":[{"timestamp":10,"value":"ms",WEB},{"timestamp":12,"value":"mr",DB}]"#,
            &["PRODUCER@web 10", "CONSUMER@db 12 shared"],
        );
        check(
            r#""annotations":[{"timestamp":10,"value":"wr",DB},{"timestamp":12,"value":"mr",DB}]"#,
            &["CONSUMER@db 10+2"],
        );
    }

    #[test]
    fn addresses_become_the_far_end() {
        check(
            r#""annotations":[{"timestamp":10,"value":"cs",WEB},{"timestamp":30,"value":"cr",WEB}],"binaryAnnotations":[{"key":"sa","value":true,DB},{"key":"http.path","value":"/a",WEB}]"#,
            &["CLIENT@web 10+20 -> db http.path=/a"],
        );
        check(
            r#""timestamp":1,"duration":9,"annotations":[{"timestamp":1,"value":"sr",DB},{"timestamp":10,"value":"ss",DB}],"binaryAnnotations":[{"key":"ca","value":"1",WEB}]"#,
            &["SERVER@db 1+9 -> web"],
        );
        check(
            r#""binaryAnnotations":[{"key":"lc","value":"",WEB},{"key":"n","value":7,WEB}]"#,
            &["LOCAL@web n=7"],
        );
        check(
            r#""binaryAnnotations":[{"key":"ca","value":true,WEB},{"key":"sa","value":true,DB}]"#,
            &["LOCAL@web -> db"],
        );
        check(r#""binaryAnnotations":[{"key":"ca","value":true,WEB}]"#, &["SERVER@ -> web"]);
    }
}
