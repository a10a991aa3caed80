//! Zipkin's HTTP doors: spans in, and the whole v2 read API out, so that an unmodified Lens page works on us.
//!
//! Quirks are kept on purpose (`/spans` answers with names; lists are cacheable only when longer than three; errors are
//! bare text): clients and tests out there rely on them. Left to others: the Lens page's own files, and `/metrics`, which
//! here is Prometheus.

use super::{json, proto, v1};
use crate::http::{BodyError, JSON, Limits, Query, Request, Response, TEXT, body};
use crate::ids::TraceId;
use crate::json::Writer;
use crate::span::Span;
use crate::traces::{TraceQuery, TraceStore};
use units::Nanos;

/// What the page is told and what queries default to.
#[derive(Clone, Debug)]
pub struct ZipkinSettings {
    pub limits: Limits,
    /// How far back a query without `lookback` reaches.
    pub lookback: Nanos,
    pub environment: Box<str>,
    pub query_limit: u64,
    pub page_lookback: Nanos,
    pub low_error_rate: f64,
    pub high_error_rate: f64,
    /// Tag keys offered for completion; the store's `completed_tags`.
    pub autocomplete_keys: Vec<Box<str>>,
    pub version: Box<str>,
}

impl Default for ZipkinSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            lookback: Nanos::from_secs(24 * 3600),
            environment: "".into(),
            query_limit: 10,
            page_lookback: Nanos::from_secs(900),
            low_error_rate: 0.5,
            high_error_rate: 0.75,
            autocomplete_keys: crate::traces::TraceSettings::default().completed_tags,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Spans a client posted, or what it is told instead.
pub fn read_post(request: &Request<'_>, limits: Limits) -> Result<Vec<Span>, Response> {
    let body = body(request, limits).map_err(refuse_body)?;
    let bad = |error: String| Response::text(400, error);
    let is_v1 = request.path.ends_with("/api/v1/spans");
    let content_type = request.content_type();
    if content_type == "application/x-thrift" {
        return Err(Response::text(415, "thrift is not spoken here; send JSON or application/x-protobuf"));
    }
    if body.is_empty() {
        return Ok(Vec::new());
    }
    if content_type == "application/x-protobuf" || content_type == "application/protobuf" {
        if is_v1 {
            return Err(bad("protobuf spans go to /api/v2/spans".into()));
        }
        return proto::read_spans(&body)
            .map_err(|error| bad(format!("Cannot read spans from protobuf: {error}")));
    }
    // Whatever else it claims to be: old clients send JSON as text or as a form.
    let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window == needle);
    let read = match is_v1 {
        false if has(b"yAnnotations\"") => {
            return Err(bad("Expected v2 spans but this is v1: post them to /api/v1/spans".into()));
        }
        true if has(b"Endpoint\"") || has(b"\"tags\"") => {
            return Err(bad("Expected v1 spans but this is v2: post them to /api/v2/spans".into()));
        }
        false => json::read_spans(&body),
        true => v1::read_spans(&body),
    };
    read.map_err(|error| bad(format!("Cannot read spans from JSON: {error}")))
}

fn refuse_body(error: BodyError) -> Response {
    Response::text(error.status(), error.to_string())
}

/// Answers one request; `None` if it is not for Zipkin. `now` is wall-clock time since the Unix epoch.
pub fn handle(
    settings: &ZipkinSettings,
    store: &mut (impl TraceStore + ?Sized),
    request: &Request<'_>,
    now: Nanos,
) -> Option<Response> {
    let (path, for_page) = match request.path.strip_prefix("/zipkin") {
        Some(rest) if rest.starts_with("/api/v2/") || rest == "/config.json" => (rest, true),
        Some("") => return Some(cors(Response::empty(302).with("location", "/zipkin/"))),
        _ => (request.path, false),
    };
    let response = match (request.method, path) {
        ("POST", "/api/v2/spans" | "/api/v1/spans") if !for_page => match read_post(request, settings.limits)
        {
            Ok(spans) => {
                store.add(&spans, now);
                Response::empty(202)
            }
            Err(response) => response,
        },
        ("GET" | "HEAD", "/config.json") if for_page => config(settings),
        ("GET" | "HEAD", "/health") => {
            let up = br#"{"status":"UP","zipkin":{"status":"UP","details":{"isobar":{"status":"UP"}}}}"#;
            Response::json(up.to_vec())
        }
        ("GET" | "HEAD", "/info") => info(settings),
        ("OPTIONS", path) if path.starts_with("/api/v") => Response::empty(200)
            .with("access-control-allow-methods", "GET,POST")
            .with("access-control-allow-headers", "content-type,content-encoding"),
        ("GET" | "HEAD", path) => match path.strip_prefix("/api/v2/") {
            Some(rest) => read(settings, store, rest, &Query::parse(request.query), now)?,
            None => return None,
        },
        (_, path) if path.starts_with("/api/v2/") || path == "/api/v1/spans" => {
            Response::text(405, format!("{} is not allowed here", request.method))
        }
        _ => return None,
    };
    Some(cors(response))
}

fn cors(response: Response) -> Response {
    response.with("access-control-allow-origin", "*")
}

fn read(
    settings: &ZipkinSettings,
    store: &(impl TraceStore + ?Sized),
    path: &str,
    query: &Query,
    now: Nanos,
) -> Option<Response> {
    let required = |name: &str| query.get(name).ok_or_else(|| format!("{name} is required"));
    let answer = match path {
        "services" => Ok(names(store.services())),
        "spans" => required("serviceName").map(|service| names(store.span_names(service))),
        "remoteServices" => required("serviceName").map(|service| names(store.remote_services(service))),
        "traces" => {
            TraceQuery::from_zipkin(query, now, settings.lookback).map(|query| traces(&store.search(&query)))
        }
        "traceMany" => trace_many(store, query),
        "dependencies" => dependencies(settings, store, query),
        "autocompleteKeys" => Ok(cached(texts(settings.autocomplete_keys.iter()))),
        "autocompleteValues" => required("key").map(|key| names(store.tag_values(key))),
        _ => trace(store, path.strip_prefix("trace/")?),
    };
    Some(answer.unwrap_or_else(|message| Response::text(400, message)))
}

fn texts<T: AsRef<str>>(list: impl IntoIterator<Item = T>) -> Response {
    let mut json = Writer::new();
    json.texts(list);
    Response::json(json.into_bytes())
}

fn cached(response: Response) -> Response {
    response.with("cache-control", "max-age=300, must-revalidate")
}

/// A short list is still growing, so a page should ask again.
fn names(list: Vec<String>) -> Response {
    let settled = list.len() > 3;
    let response = texts(&list);
    if settled { cached(response) } else { response }
}

fn traces(list: &[Vec<Span>]) -> Response {
    let mut json = Writer::new();
    json.array(|json| list.iter().for_each(|spans| json::write_spans(json, spans)));
    Response::json(json.into_bytes())
}

fn parse_id(text: &str) -> Result<TraceId, String> {
    TraceId::from_zipkin(text.trim()).map_err(|error| {
        let text: String = text.chars().take(40).collect();
        format!("traceId `{text}` {error}")
    })
}

fn trace(store: &(impl TraceStore + ?Sized), id: &str) -> Result<Response, String> {
    let id = parse_id(&crate::http::percent_decode(id))?;
    Ok(match store.trace(id) {
        None => Response::text(404, format!("{} not found", id.zipkin())),
        Some(spans) => {
            let mut json = Writer::new();
            json::write_spans(&mut json, &spans);
            Response::json(json.into_bytes())
        }
    })
}

/// More ids than a page can show; the rest would only cost.
const TRACE_MANY_MAX: usize = 1_000;

fn trace_many(store: &(impl TraceStore + ?Sized), query: &Query) -> Result<Response, String> {
    let text = query.get("traceIds").ok_or("traceIds parameter is empty")?;
    let mut ids = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        ids.push(parse_id(part)?);
        if ids.len() > TRACE_MANY_MAX {
            return Err(format!("more than {TRACE_MANY_MAX} traceIds"));
        }
    }
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => return Err(format!("redundant traceId: {}", pair[0].zipkin())),
        None if ids.is_empty() => return Err("traceIds parameter is empty".into()),
        None if ids.len() == 1 => {
            return Err("Use /api/v2/trace/{traceId} endpoint to retrieve a single trace".into());
        }
        None => {}
    }
    let found: Vec<_> = ids.into_iter().filter_map(|id| store.trace(id)).collect();
    Ok(traces(&found))
}

fn dependencies(
    settings: &ZipkinSettings,
    store: &(impl TraceStore + ?Sized),
    query: &Query,
) -> Result<Response, String> {
    let millis = |name: &str| match query.get(name).map(|text| (text, text.trim().parse::<i64>())) {
        None => Ok(None),
        Some((_, Ok(millis))) if millis > 0 => Ok(Some(Nanos::from_millis(millis as u64))),
        Some((_, Ok(_))) => Err(format!("{name} <= 0")),
        Some((text, Err(_))) => Err(format!("{name} `{text}` is not a whole number")),
    };
    let to = millis("endTs")?.ok_or("endTs is required")?;
    let from = to.saturating_sub(millis("lookback")?.unwrap_or(settings.lookback));
    let mut json = Writer::new();
    json.array(|json| {
        for link in store.links(from, to) {
            json.object(|json| {
                json.key("parent").text(&link.parent);
                json.key("child").text(&link.child);
                json.key("callCount").u64(link.calls);
                if link.errors > 0 {
                    json.key("errorCount").u64(link.errors);
                }
            });
        }
    });
    Ok(Response::json(json.into_bytes()))
}

fn config(settings: &ZipkinSettings) -> Response {
    let mut json = Writer::new();
    json.object(|json| {
        json.key("environment").text(&settings.environment);
        json.key("queryLimit").u64(settings.query_limit);
        json.key("defaultLookback").u64(settings.page_lookback.0 / 1_000_000);
        json.key("searchEnabled").bool(true);
        for absent in ["logsUrl", "supportUrl", "archivePostUrl", "archiveUrl"] {
            json.key(absent).raw(b"null");
        }
        json.key("dependency").object(|json| {
            json.key("enabled").bool(true);
            json.key("lowErrorRate").f64(settings.low_error_rate);
            json.key("highErrorRate").f64(settings.high_error_rate);
        });
    });
    Response::json(json.into_bytes()).with("cache-control", "max-age=600")
}

fn info(settings: &ZipkinSettings) -> Response {
    let mut json = Writer::new();
    json.object(|json| {
        json.key("zipkin").object(|json| {
            json.key("version").text(&settings.version);
            json.key("commit").text("");
        });
    });
    Response::json(json.into_bytes())
}

/// The content types of this module's answers, for those who check what a page may receive.
pub const ANSWER_TYPES: [&str; 2] = [JSON, TEXT];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::gzip;
    use crate::traces::{MemoryTraces, TraceSettings};

    const NOW: Nanos = Nanos::from_secs(1_600_000_000);

    struct Server {
        store: MemoryTraces,
        settings: ZipkinSettings,
    }

    impl Server {
        fn new() -> Self {
            Self { store: MemoryTraces::new(TraceSettings::default()), settings: ZipkinSettings::default() }
        }

        fn ask(&mut self, request: &Request<'_>) -> Response {
            let none = || Response::text(404, "not zipkin's");
            handle(&self.settings, &mut self.store, request, NOW).unwrap_or_else(none)
        }

        /// `status body` of a GET.
        fn get(&mut self, target: &str) -> String {
            let response = self.ask(&Request::get(target));
            format!("{} {}", response.status, String::from_utf8(response.body).unwrap())
        }

        fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
            let response = self.ask(&Request::post(path, headers, body));
            format!("{} {}", response.status, String::from_utf8(response.body).unwrap())
        }

        #[track_caller]
        fn check(&mut self, target: &str, expected: &str) {
            assert_eq!(self.get(target), expected, "{target}");
        }
    }

    const SPANS: &str = r#"[
        {"traceId":"0000000000000000463ac35c9f6413ad","id":"1","kind":"SERVER","name":"GET /","timestamp":1600000000000000,"duration":90000,"localEndpoint":{"serviceName":"Web"}},
        {"traceId":"463ac35c9f6413ad","parentId":"1","id":"2","kind":"CLIENT","name":"get /cart","timestamp":1600000000010000,"duration":50000,"localEndpoint":{"serviceName":"web"},"remoteEndpoint":{"serviceName":"cart"},"tags":{"error":"","http.route":"/cart"}},
        {"traceId":"7","id":"3","kind":"SERVER","timestamp":1599999999000000,"duration":5,"localEndpoint":{"serviceName":"ads"}}]"#;

    #[test]
    fn spans_come_in_by_every_door() {
        let list = json::read_spans(SPANS.as_bytes()).unwrap();
        let mut protobuf = Vec::new();
        proto::write_spans(&mut protobuf, &list);
        let v1 = br#"[{"traceId":"9","id":"1","name":"x","annotations":[{"timestamp":1600000000000000,"value":"sr","endpoint":{"serviceName":"old"}}],"binaryAnnotations":[]}]"#;
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], &'a str);
        let cases: [Case<'_>; 12] = [
            ("/api/v2/spans", &[("Content-Type", "application/json")], SPANS.as_bytes(), "202 "),
            ("/api/v2/spans", &[], SPANS.as_bytes(), "202 "),
            ("/api/v2/spans", &[("content-encoding", "gzip")], &gzip(SPANS.as_bytes()), "202 "),
            ("/api/v2/spans", &[("content-type", "application/x-protobuf")], &protobuf, "202 "),
            ("/api/v2/spans", &[], b"", "202 "),
            ("/api/v2/spans", &[], b"[]", "202 "),
            ("/api/v1/spans", &[], v1, "202 "),
            ("/api/v2/spans", &[], v1, "400 Expected v2"),
            ("/api/v1/spans", &[], SPANS.as_bytes(), "400 Expected v1"),
            ("/api/v2/spans", &[], b"{}", "400 Cannot read spans"),
            ("/api/v2/spans", &[("content-encoding", "gzip")], b"[]", "400 the body is not gzip"),
            ("/api/v1/spans", &[("content-type", "application/x-thrift")], b"x", "415 thrift"),
        ];
        for (path, headers, body, expected) in cases {
            let mut server = Server::new();
            let got = server.post(path, headers, body);
            assert!(got.starts_with(expected), "{path} {headers:?}: {got}");
            if expected.starts_with("202") && body.len() > 2 {
                assert_ne!(server.get("/api/v2/services"), "200 []", "{path}");
            }
        }
        let mut server = Server::new();
        server.settings.limits.body_bytes = 1_000;
        assert!(server.post("/api/v2/spans", &[], &vec![b' '; 1_001]).starts_with("413 "));
        let bomb = gzip(&vec![b' '; 1_000_000]);
        assert!(server.post("/api/v2/spans", &[("content-encoding", "gzip")], &bomb).starts_with("413 "));
    }

    #[test]
    fn the_read_api_answers_as_the_table_says() {
        let mut server = Server::new();
        server.check("/api/v2/services", "200 []");
        server.post("/api/v2/spans", &[], SPANS.as_bytes());
        server.check("/api/v2/services", r#"200 ["ads","web"]"#);
        server.check("/zipkin/api/v2/services", r#"200 ["ads","web"]"#);
        server.check("/api/v2/spans?serviceName=WEB", r#"200 ["get /","get /cart"]"#);
        server.check("/api/v2/spans", "400 serviceName is required");
        server.check("/api/v2/remoteServices?serviceName=web", r#"200 ["cart"]"#);
        server.check("/api/v2/remoteServices?serviceName=nobody", "200 []");
        server.check(
            "/api/v2/autocompleteKeys",
            r#"200 ["service.version","cloud.availability_zone","http.route"]"#,
        );
        server.check("/api/v2/autocompleteValues?key=http.route", r#"200 ["/cart"]"#);
        server.check("/api/v2/autocompleteValues", "400 key is required");
        let ads = r#"[{"traceId":"0000000000000007","id":"0000000000000003","kind":"SERVER","timestamp":1599999999000000,"duration":5,"localEndpoint":{"serviceName":"ads"}}]"#;
        server.check("/api/v2/trace/7", &format!("200 {ads}"));
        server.check("/api/v2/trace/%207%20", &format!("200 {ads}"));
        server.check("/api/v2/trace/8", "404 0000000000000008 not found");
        server.check("/api/v2/trace/XYZ", "400 traceId `XYZ` has a character that is not lower-case hex");
        server.check("/api/v2/traces?serviceName=ads", &format!("200 [{ads}]"));
        server.check("/api/v2/traces?serviceName=ads&minDuration=6", "200 []");
        server.check("/api/v2/traces?limit=0", "400 limit <= 0");
        server.check("/api/v2/traceMany?traceIds=7,9999", &format!("200 [{ads}]"));
        server.check("/api/v2/traceMany?traceIds=7,07", "400 redundant traceId: 0000000000000007");
        server.check("/api/v2/traceMany?traceIds=", "400 traceIds parameter is empty");
        assert!(server.get("/api/v2/traceMany?traceIds=7").starts_with("400 Use /api/v2/trace/"));
        let link = r#"200 [{"parent":"web","child":"cart","callCount":1,"errorCount":1}]"#;
        server.check("/api/v2/dependencies?endTs=1600000001000&lookback=60000", link);
        server.check("/api/v2/dependencies?endTs=1600000001000", link);
        server.check("/api/v2/dependencies?endTs=1000", "200 []");
        server.check("/api/v2/dependencies", "400 endTs is required");
        server.check("/api/v2/dependencies?endTs=0", "400 endTs <= 0");
        server.check("/api/v2/dependencies?endTs=1&lookback=-1", "400 lookback <= 0");
        server.check("/api/v2/nothing", "404 not zipkin's");
        server.check("/zipkin/traces/7", "404 not zipkin's");
        assert!(server.get("/zipkin/config.json").contains(r#""defaultLookback":900000"#));
        assert!(server.get("/health").starts_with("200 ") && server.get("/info").starts_with("200 "));
    }

    #[test]
    fn headers_follow_the_reference() {
        let mut server = Server::new();
        for service in ["a", "b", "c"] {
            let span =
                format!(r#"[{{"traceId":"1","id":"1","localEndpoint":{{"serviceName":"{service}"}}}}]"#);
            server.post("/api/v2/spans", &[], span.as_bytes());
        }
        let cache = |server: &mut Server, target| {
            server.ask(&Request::get(target)).header("cache-control").map(str::to_owned)
        };
        assert_eq!(cache(&mut server, "/api/v2/services"), None);
        server.post(
            "/api/v2/spans",
            &[],
            br#"[{"traceId":"1","id":"1","localEndpoint":{"serviceName":"d"}}]"#,
        );
        assert_eq!(cache(&mut server, "/api/v2/services").as_deref(), Some("max-age=300, must-revalidate"));
        assert!(cache(&mut server, "/api/v2/autocompleteKeys").is_some());
        assert_eq!(cache(&mut server, "/zipkin/config.json").as_deref(), Some("max-age=600"));
        let redirect = server.ask(&Request::get("/zipkin"));
        assert_eq!((redirect.status, redirect.header("location")), (302, Some("/zipkin/")));
        assert_eq!(redirect.header("access-control-allow-origin"), Some("*"));
        let options = Request { method: "OPTIONS", ..Request::get("/api/v2/spans") };
        assert_eq!(server.ask(&options).header("access-control-allow-methods"), Some("GET,POST"));
        let trace = Request { method: "TRACE", ..Request::get("/api/v2/traces") };
        assert_eq!(server.ask(&trace).status, 405);
    }
}
