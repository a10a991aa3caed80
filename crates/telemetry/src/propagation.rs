//! Trace context in headers: W3C `traceparent`/`tracestate`, B3 single and B3 multi.
//!
//! We read W3C, then B3 single, then B3 multi, and write back what came in, plus W3C: a service that only knows B3
//! keeps its trace, and one that knows W3C gains one. Reading borrows from the headers and allocates nothing, because
//! it happens once for every request.
//!
//! Strict where the specifications are: a `traceparent` that does not parse starts a new trace and takes its
//! `tracestate` with it; a bad `tracestate` never spoils a good `traceparent`.
//!
//! ```
//! use telemetry::propagation::{extract, traceparent};
//! let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
//! let incoming = extract(|name| (name == "traceparent").then_some(header));
//! let parent = incoming.parent.unwrap();
//! assert_eq!(incoming.sampled, Some(true));
//! assert_eq!(traceparent(parent.trace_id, parent.span_id, 0x01).as_str(), header);
//! ```

use crate::ids::{Case, SpanId, TraceId, hex, write_hex};

/// Bits of the `traceparent` flags we know. Others are written as zero.
pub const FLAG_SAMPLED: u8 = 0x01;
pub const FLAG_RANDOM: u8 = 0x02;

/// The caller's span, as the headers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// B3 only: the span above the caller's. A server that reuses the caller's id (`shared`) needs it.
    pub parent_id: Option<SpanId>,
    /// W3C only: the id's low bits are random, so consistent sampling may rely on them.
    pub random: bool,
}

/// In which header families a context arrived: the same ones are written back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameAs {
    pub w3c: bool,
    pub b3_single: bool,
    pub b3_multi: bool,
}

/// What a request's headers say about its trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Absent: start a new trace (still under `sampled`, if B3 sent a lone decision).
    pub parent: Option<Parent>,
    /// The head's decision; absent when it was deferred to us.
    pub sampled: Option<bool>,
    /// B3's debug: record this whatever any sampler says.
    pub debug: bool,
    pub came_as: CameAs,
    pub state: TraceState<'a>,
}

/// Reads a request's context. `header` gives the first value of a header by its lower-case name; for `tracestate` sent
/// in several lines, join them with commas first (HTTP says that is the same thing).
pub fn extract<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Incoming<'a> {
    let b3 = header("b3").and_then(parse_b3_single);
    let multi = parse_b3_multi(&header);
    let came_as = CameAs { w3c: false, b3_single: b3.is_some(), b3_multi: multi.is_some() };
    if let Some((parent, flags)) = header("traceparent").and_then(parse_traceparent) {
        return Incoming {
            parent: Some(parent),
            sampled: Some(flags & FLAG_SAMPLED != 0),
            debug: false,
            came_as: CameAs { w3c: true, ..came_as },
            state: header("tracestate").and_then(TraceState::parse).unwrap_or_default(),
        };
    }
    match b3.or(multi) {
        None => Incoming::default(),
        Some(b3) => Incoming {
            parent: b3.parent,
            sampled: b3.sampled,
            debug: b3.debug,
            came_as,
            state: TraceState::default(),
        },
    }
}

/// `00-<32>-<16>-<2>`. A higher version is read by its first 55 characters if what follows is set off by `-`.
pub fn parse_traceparent(text: &str) -> Option<(Parent, u8)> {
    let bytes = text.as_bytes();
    if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
        return None;
    }
    let version = hex(&bytes[..2], Case::Lower)?;
    match version {
        0xff => return None,
        0 if bytes.len() != 55 => return None,
        _ if bytes.len() > 55 && bytes[55] != b'-' => return None,
        _ => {}
    }
    let trace_id = TraceId::new(hex(&bytes[3..35], Case::Lower)?)?;
    let span_id = SpanId::new(hex(&bytes[36..52], Case::Lower)? as u64)?;
    let flags = hex(&bytes[53..55], Case::Lower)? as u8;
    // Level 1 senders may leave noise in the other bits; only version 00 defines the two we know.
    let parent = Parent { trace_id, span_id, parent_id: None, random: flags & FLAG_RANDOM != 0 };
    Some((parent, flags & (FLAG_SAMPLED | FLAG_RANDOM)))
}

/// A header value of ours, on the stack: the longest is a B3 single header of 68 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderText {
    bytes: [u8; 72],
    len: u8,
}

impl HeaderText {
    fn new(write: impl FnOnce(&mut Self)) -> Self {
        let mut text = Self { bytes: [0; 72], len: 0 };
        write(&mut text);
        text
    }

    fn push(&mut self, more: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }

    fn push_hex(&mut self, value: u128, digits: usize) {
        let mut text = [0; 32];
        write_hex(&mut text[..digits], value);
        self.push(&text[..digits]);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("only hex digits and dashes are written")
    }
}

/// The header for a call made by span `span_id`. Always version 00, whatever version came in.
pub fn traceparent(trace_id: TraceId, span_id: SpanId, flags: u8) -> HeaderText {
    HeaderText::new(|out| {
        out.push(b"00-");
        out.push_hex(trace_id.get(), 32);
        out.push(b"-");
        out.push_hex(u128::from(span_id.get()), 16);
        out.push(b"-");
        out.push_hex(u128::from(flags & (FLAG_SAMPLED | FLAG_RANDOM)), 2);
    })
}

/// What one B3 family said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct B3 {
    pub parent: Option<Parent>,
    pub sampled: Option<bool>,
    pub debug: bool,
}

/// `{trace}-{span}[-{1|0|d}[-{parent}]]`, or a lone `0`, `1`, `d`.
pub fn parse_b3_single(text: &str) -> Option<B3> {
    if let Some(decision) = b3_decision(text) {
        return Some(B3 { parent: None, ..decision });
    }
    let mut parts = text.split('-');
    let trace_id = b3_trace(parts.next()?)?;
    let span_id = b3_span(parts.next()?)?;
    let decision = match parts.next() {
        None => B3 { parent: None, sampled: None, debug: false },
        Some(letter) => b3_decision(letter)?,
    };
    let parent_id = match parts.next() {
        None => None,
        Some(id) => Some(b3_span(id)?),
    };
    if parts.next().is_some() {
        return None;
    }
    Some(B3 { parent: Some(Parent { trace_id, span_id, parent_id, random: false }), ..decision })
}

fn b3_decision(letter: &str) -> Option<B3> {
    let (sampled, debug) = match letter {
        "1" => (Some(true), false),
        "0" => (Some(false), false),
        "d" => (Some(true), true),
        _ => return None,
    };
    Some(B3 { parent: None, sampled, debug })
}

fn b3_trace(text: &str) -> Option<TraceId> {
    match text.len() {
        16 | 32 => hex(text.as_bytes(), Case::Lower).and_then(TraceId::new),
        _ => None,
    }
}

fn b3_span(text: &str) -> Option<SpanId> {
    if text.len() != 16 {
        return None;
    }
    hex(text.as_bytes(), Case::Lower).and_then(|id| SpanId::new(id as u64))
}

/// The five `X-B3-*` headers. Ids that do not parse leave a decision behind if there is one.
fn parse_b3_multi<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<B3> {
    let (trace, span) = (header("x-b3-traceid"), header("x-b3-spanid"));
    let debug = header("x-b3-flags") == Some("1");
    let sampled = match header("x-b3-sampled") {
        _ if debug => Some(true),
        // Old senders write words; nobody means anything else by them.
        Some("1" | "true" | "True" | "TRUE") => Some(true),
        Some("0" | "false" | "False" | "FALSE") => Some(false),
        _ => None,
    };
    let parent = match (trace.and_then(b3_trace), span.and_then(b3_span)) {
        (Some(trace_id), Some(span_id)) => Some(Parent {
            trace_id,
            span_id,
            parent_id: header("x-b3-parentspanid").and_then(b3_span),
            random: false,
        }),
        _ => None,
    };
    if parent.is_none() && sampled.is_none() {
        return None;
    }
    Some(B3 { parent, sampled, debug })
}

/// The context a span of ours hands to the service it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_id: Option<SpanId>,
    /// Absent: the head deferred, and so do we.
    pub sampled: Option<bool>,
    pub debug: bool,
    /// Copied from what came in, or set when we drew the id ourselves.
    pub random: bool,
}

impl Outgoing {
    fn flags(&self) -> u8 {
        // W3C cannot say "deferred". Unset would tell applications not to record what we may well keep.
        let sampled = if self.sampled.unwrap_or(true) { FLAG_SAMPLED } else { 0 };
        sampled | if self.random { FLAG_RANDOM } else { 0 }
    }

    /// The B3 decision letter, absent while deferred.
    fn letter(&self) -> Option<&'static str> {
        if self.debug { Some("d") } else { self.sampled.map(|yes| if yes { "1" } else { "0" }) }
    }

    pub fn traceparent(&self) -> HeaderText {
        traceparent(self.trace_id, self.span_id, self.flags())
    }

    fn trace_digits(&self) -> usize {
        // A 64-bit id stays 64-bit on this side: old B3 services store no more.
        if self.trace_id.get() >> 64 == 0 { 16 } else { 32 }
    }

    pub fn b3_single(&self) -> HeaderText {
        HeaderText::new(|out| {
            out.push_hex(self.trace_id.get(), self.trace_digits());
            out.push(b"-");
            out.push_hex(u128::from(self.span_id.get()), 16);
            if let Some(letter) = self.letter() {
                out.push(b"-");
                out.push(letter.as_bytes());
                // A parent without a decision has no place in the format.
                if let Some(parent) = self.parent_id {
                    out.push(b"-");
                    out.push_hex(u128::from(parent.get()), 16);
                }
            }
        })
    }

    /// Calls `set` for each header to write: W3C always, B3 as it came in. `set` replaces a header of that name;
    /// the caller removes the B3 headers that are not set here, and passes `tracestate` on (see [`TraceState`]).
    pub fn inject(&self, came_as: CameAs, mut set: impl FnMut(&'static str, &[u8])) {
        set("traceparent", self.traceparent().as_bytes());
        if came_as.b3_single {
            set("b3", self.b3_single().as_bytes());
        }
        if came_as.b3_multi {
            let id = |value: u128, digits| HeaderText::new(|out| out.push_hex(value, digits));
            set("x-b3-traceid", id(self.trace_id.get(), self.trace_digits()).as_bytes());
            set("x-b3-spanid", id(u128::from(self.span_id.get()), 16).as_bytes());
            if let Some(parent) = self.parent_id {
                set("x-b3-parentspanid", id(u128::from(parent.get()), 16).as_bytes());
            }
            match (self.debug, self.sampled) {
                // Debug implies sampled; sending both is what the specification forbids.
                (true, _) => set("x-b3-flags", b"1"),
                (false, Some(true)) => set("x-b3-sampled", b"1"),
                (false, Some(false)) => set("x-b3-sampled", b"0"),
                (false, None) => {}
            }
        }
    }
}

/// The members of a `tracestate`, in order, borrowed from the header.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceState<'a> {
    members: [&'a str; 32],
    count: u8,
}

/// W3C asks for at least this much to be carried.
pub const TRACESTATE_BYTES: usize = 512;

impl std::fmt::Debug for TraceState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.members()).finish()
    }
}

impl<'a> TraceState<'a> {
    /// `None` when anything in it breaks the grammar: half a state may mean something its owner never said.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut state = Self::default();
        for member in text.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue; // Lists in headers may have empty places.
            }
            let (key, value) = member.split_once('=')?;
            let repeated = state.members().any(|seen| key_of(seen) == key);
            if !key_is_valid(key) || !value_is_valid(value) || repeated || state.count == 32 {
                return None;
            }
            state.members[usize::from(state.count)] = member;
            state.count += 1;
        }
        Some(state)
    }

    pub fn members(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.members.into_iter().take(usize::from(self.count))
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.members().find(|member| key_of(member) == key).map(|member| &member[key.len() + 1..])
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The header to send, with our member (`key=value`, if any) moved to the left and the others in their order. Cut
    /// to [`TRACESTATE_BYTES`] by whole members: those over 128 characters first, then from the right.
    pub fn write(&self, ours: Option<&str>, out: &mut String) {
        let key = ours.map_or("", key_of);
        let mut members: Vec<&str> =
            ours.into_iter().chain(self.members().filter(|member| key_of(member) != key)).collect();
        members.truncate(32);
        let first = usize::from(ours.is_some());
        let bytes = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
        while bytes(&members) > TRACESTATE_BYTES + 1 && members.len() > first {
            let long = members.iter().rposition(|member| member.len() > 128).filter(|at| *at >= first);
            members.remove(long.unwrap_or(members.len() - 1));
        }
        for (at, member) in members.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(member);
        }
    }
}

fn key_of(member: &str) -> &str {
    member.split_once('=').map_or(member, |(key, _)| key)
}

fn key_is_valid(key: &str) -> bool {
    let word = |text: &str, longest: usize, digit_first: bool| {
        let bytes = text.as_bytes();
        (1..=longest).contains(&bytes.len())
            && (bytes[0].is_ascii_lowercase() || (digit_first && bytes[0].is_ascii_digit()))
            && bytes.iter().all(|byte| {
                byte.is_ascii_lowercase()
                    || byte.is_ascii_digit()
                    || matches!(byte, b'_' | b'-' | b'*' | b'/')
            })
    };
    match key.split_once('@') {
        Some((tenant, system)) => word(tenant, 241, true) && word(system, 14, false),
        None => word(key, 256, true),
    }
}

fn value_is_valid(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=256).contains(&bytes.len())
        && bytes[bytes.len() - 1] != b' '
        && bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    /// Headers in, the context in words out.
    fn read(headers: &[(&str, &str)]) -> String {
        let incoming = extract(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value));
        let parent = incoming.parent.map_or("new".to_owned(), |parent| {
            let above = parent.parent_id.map_or(String::new(), |id| format!("<{id}"));
            format!("{:?}/{}{above}{}", parent.trace_id, parent.span_id, if parent.random { "~" } else { "" })
        });
        let decision = match (incoming.sampled, incoming.debug) {
            (_, true) => "debug",
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, _) => "open",
        };
        format!("{parent} {decision} {:?}", incoming.state)
    }

    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: &str) {
        assert_eq!(read(headers), expected, "{headers:?}");
    }

    #[test]
    fn traceparent_is_read_strictly() {
        let known = format!("{TRACE}/{SPAN}");
        let with = |text: &str| read(&[("traceparent", &text.replace('T', TRACE).replace('S', SPAN))]);
        assert_eq!(with("00-T-S-01"), format!("{known} yes []"));
        assert_eq!(with("00-T-S-00"), format!("{known} no []"));
        assert_eq!(with("00-T-S-03"), format!("{known}~ yes []"));
        assert_eq!(with("00-T-S-fd"), format!("{known} yes []"), "unknown bits are ignored");
        assert_eq!(with("cc-T-S-01"), format!("{known} yes []"));
        assert_eq!(with("cc-T-S-01-what-the-future-brings"), format!("{known} yes []"));
        for bad in [
            "ff-T-S-01",
            "00-T-S-01-more",
            "cc-T-S-01.more",
            "cc-T-S-01more",
            "00-T-S-0x",
            "00-T-S-1",
            "00-T-S",
            "00-T-S-",
            "0-T-S-01",
            "00-T-s-01",
            "00-t-S-01",
            "",
            "00",
            "00-00000000000000000000000000000000-S-01",
            "00-T-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-S-01",
            "00-T-S-01 ",
            " 00-T-S-01",
        ] {
            assert_eq!(with(bad), "new open []", "{bad}");
        }
    }

    #[test]
    fn b3_is_read_single_before_multi_and_after_w3c() {
        let (w3c, b3) =
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "80f198ee56343ba864fe8b2a57d3eff7");
        let single = format!("{b3}-e457b5a2e4d86bd1-0-05e3ac9a4f6e3b90");
        let read_single = "80f198ee56343ba864fe8b2a57d3eff7/e457b5a2e4d86bd1<05e3ac9a4f6e3b90 no []";
        check(&[("b3", &single)], read_single);
        check(&[("b3", &single), ("traceparent", "00-bad")], read_single);
        check(&[("b3", &single), ("traceparent", w3c)], &format!("{TRACE}/{SPAN} yes []"));
        check(&[("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312-d")], "463ac35c9f6413ad/a2fb4a1d1a96d312 debug []");
        check(&[("b3", "463ac35c9f6413ad-a2fb4a1d1a96d312")], "463ac35c9f6413ad/a2fb4a1d1a96d312 open []");
        check(&[("b3", "0")], "new no []");
        check(&[("b3", "d")], "new debug []");
        let multi = [
            ("x-b3-traceid", "463ac35c9f6413ad"),
            ("x-b3-spanid", "a2fb4a1d1a96d312"),
            ("x-b3-sampled", "true"),
        ];
        check(&multi, "463ac35c9f6413ad/a2fb4a1d1a96d312 yes []");
        check(&[multi[0], multi[1], ("x-b3-flags", "1")], "463ac35c9f6413ad/a2fb4a1d1a96d312 debug []");
        check(&[multi[0], multi[1], multi[2], ("b3", "0")], "new no []");
        check(&[("x-b3-sampled", "0")], "new no []");
        check(&[("x-b3-traceid", "463AC35C9F6413AD"), multi[1]], "new open []");
        for bad in [
            "2",
            "463ac35c9f6413ad",
            "463ac35c9f6413ad-a2fb4a1d1a96d31",
            "-",
            "463ac35c9f6413ad-a2fb4a1d1a96d312-x",
            "463ac35c9f6413ad-a2fb4a1d1a96d312-1-05e3ac9a4f6e3b90-1",
            "463ac35c9f6413ad-0000000000000000-1",
        ] {
            check(&[("b3", bad)], "new open []");
        }
    }

    #[test]
    fn tracestate_is_all_or_nothing() {
        let with = |state: &str| {
            TraceState::parse(state).map(|state| {
                let mut out = String::new();
                state.write(None, &mut out);
                out
            })
        };
        assert_eq!(with("foo=1,bar=2").as_deref(), Some("foo=1,bar=2"));
        assert_eq!(with(" foo=1 ,\t, bar=2,").as_deref(), Some("foo=1,bar=2"));
        assert_eq!(with("t@s=a b").as_deref(), Some("t@s=a b"));
        assert_eq!(with("").as_deref(), Some(""));
        for bad in [
            "foo",
            "foo=",
            "FOO=1",
            "foo.bar=1",
            "foo@=1",
            "@foo=1",
            "foo@@bar=1",
            "foo@bar@baz=1",
            "foo=1,foo=2",
            "foo=bar=baz",
            "foo =1",
        ] {
            assert_eq!(with(bad), None, "{bad}");
        }
        let many = |n: usize| (0..n).map(|at| format!("k{at}=1")).collect::<Vec<_>>().join(",");
        assert!(with(&many(32)).is_some());
        assert_eq!(with(&many(33)), None);
        assert!(with(&format!("{}=1", "z".repeat(256))).is_some());
        assert_eq!(with(&format!("{}=1", "z".repeat(257))), None);
        assert_eq!(with(&format!("{}@v=1", "t".repeat(242))), None);
        // A bad state never spoils the parent.
        check(
            &[
                ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                ("tracestate", "A=1"),
            ],
            &format!("{TRACE}/{SPAN} yes []"),
        );
    }

    #[test]
    fn tracestate_puts_ours_left_and_cuts_whole_members() {
        let write = |text: &str, ours: Option<&str>| {
            let mut out = String::new();
            TraceState::parse(text).unwrap().write(ours, &mut out);
            out
        };
        assert_eq!(write("a=1,iso=2,b=3", Some("iso=9")), "iso=9,a=1,b=3");
        let (long, mid) = (format!("long={}", "x".repeat(200)), "y".repeat(90));
        let text = format!("{long},a={mid},b={mid},c={mid},d={mid}");
        assert_eq!(write(&text, Some("iso=9")), format!("iso=9,a={mid},b={mid},c={mid},d={mid}"));
        let text = format!("a={mid},b={mid},c={mid},d={mid},e={mid},f={mid}");
        assert_eq!(write(&text, None), format!("a={mid},b={mid},c={mid},d={mid},e={mid}"));
        assert_eq!(TraceState::parse("a=1,b=2").unwrap().get("b"), Some("2"));
    }

    #[test]
    fn what_came_in_goes_out_plus_w3c() {
        let outgoing = Outgoing {
            trace_id: TraceId::new(0x463a_c35c_9f64_13ad).unwrap(),
            span_id: SpanId::new(7).unwrap(),
            parent_id: SpanId::new(5),
            sampled: Some(true),
            debug: false,
            random: true,
        };
        let write = |outgoing: Outgoing, came_as| {
            let mut out = Vec::new();
            outgoing.inject(came_as, |name, value| {
                out.push(format!("{name}: {}", std::str::from_utf8(value).unwrap()));
            });
            out.join("\n")
        };
        let w3c = "traceparent: 00-0000000000000000463ac35c9f6413ad-0000000000000007-03";
        assert_eq!(write(outgoing, CameAs::default()), w3c);
        assert_eq!(
            write(outgoing, CameAs { b3_single: true, ..CameAs::default() }),
            format!("{w3c}\nb3: 463ac35c9f6413ad-0000000000000007-1-0000000000000005")
        );
        let multi = CameAs { b3_multi: true, ..CameAs::default() };
        let ids = "x-b3-traceid: 463ac35c9f6413ad\nx-b3-spanid: 0000000000000007\nx-b3-parentspanid: 0000000000000005";
        assert_eq!(write(outgoing, multi), format!("{w3c}\n{ids}\nx-b3-sampled: 1"));
        assert_eq!(
            write(Outgoing { debug: true, ..outgoing }, multi),
            format!("{w3c}\n{ids}\nx-b3-flags: 1")
        );
        assert_eq!(write(Outgoing { sampled: None, ..outgoing }, multi), format!("{w3c}\n{ids}"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_contexts_survive(text in ".{0,80}", trace in 1u128.., span in 1u64.., parent: u64, yes: bool) {
            let _ = read(&[("traceparent", &text), ("b3", &text), ("tracestate", &text)]);
            let outgoing = Outgoing {
                trace_id: TraceId::new(trace).unwrap(), span_id: SpanId::new(span).unwrap(),
                parent_id: SpanId::new(parent), sampled: Some(yes), debug: false, random: false,
            };
            let (w3c, _) = parse_traceparent(outgoing.traceparent().as_str()).unwrap();
            proptest::prop_assert_eq!((w3c.trace_id, w3c.span_id), (outgoing.trace_id, outgoing.span_id));
            let b3 = parse_b3_single(outgoing.b3_single().as_str()).unwrap();
            proptest::prop_assert_eq!(b3.parent.map(|it| (it.trace_id, it.span_id, it.parent_id)),
                Some((outgoing.trace_id, outgoing.span_id, outgoing.parent_id)));
            proptest::prop_assert_eq!(b3.sampled, Some(yes));
        }
    }
}
