//! The JSON Schema (2020-12) of the file, for editors and for whoever writes files with a program.
//!
//! It says what a schema can: keys, shapes, words, the form of quantities. It cannot know whether a service exists or
//! weights sum to a whole; `isobar check` does. What `check` accepts the schema accepts too; a test misspells every
//! key of the documented file and finds both refusing it.

use serde_json::{Map, Value, json};

const NUMBER: &str = "[0-9]+(?:_[0-9]+)*(?:\\.[0-9]+)?";
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$";

/// The whole schema.
pub fn schema() -> Value {
    let mut root = object(vec![
        ("isobar", said(json!({"const": 1}), "The format's version: 1.")),
        ("system", said(name(), "The system's name; otherwise the folder's or the file's.")),
        ("include", said(texts(), "More files, relative: `[teams/*.yaml]`.")),
        ("teams", said(named(reference("team")), "Who owns what.")),
        ("places", said(named(reference("region")), "Regions and their zones.")),
        ("network", said(reference("network"), "What lies between places.")),
        ("services", said(named(reference("service")), "The services.")),
        ("edges", said(edges(), "The policy of calls; the most specific entry wins, key by key.")),
        ("gateways", said(named(reference("gateway")), "Where the world comes in.")),
        ("traffic", said(named(reference("traffic")), "What the world asks.")),
        ("scenarios", said(named(reference("scenario")), "What may happen, and what must hold then.")),
        (
            "waive",
            said(
                json!({"type": ["array", "null"], "items": reference("waiver")}),
                "Risks accepted, with a reason and an end.",
            ),
        ),
    ]);
    // The root is a mapping; an empty file is not one.
    root["type"] = json!("object");
    root["required"] = json!(["isobar"]);
    root["patternProperties"] = json!({"^x-": {}});
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("{}/isobar-1.schema.json", crate::render::DOCS_URL),
        "title": "isobar",
        "description": "A system of services: who calls whom, how, where it runs and what must hold.",
    });
    merge(&mut schema, root);
    schema["$defs"] = definitions();
    schema
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// A mapping with these keys and no others; nothing (`ads:`) counts as an empty one.
fn object(properties: Vec<(&str, Value)>) -> Value {
    let properties: Map<String, Value> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

fn required(mut object: Value, keys: &[&str]) -> Value {
    object["type"] = json!("object");
    object["required"] = json!(keys);
    object
}

/// Exactly one of these keys.
fn exactly_one(mut object: Value, keys: &[&str]) -> Value {
    object["type"] = json!("object");
    object["oneOf"] = keys.iter().map(|key| json!({"required": [key]})).collect();
    object
}

/// Not both of these keys.
fn not_both(mut object: Value, pairs: &[[&str; 2]]) -> Value {
    // `required` holds for what is no object, so the type must be said.
    let pairs: Vec<Value> = pairs.iter().map(|pair| json!({"required": pair})).collect();
    object["not"] = json!({"type": "object", "anyOf": pairs});
    object
}

/// A mapping whose keys are names.
fn named(value: Value) -> Value {
    json!({"type": ["object", "null"], "patternProperties": {NAME: value}, "additionalProperties": false})
}

fn said(mut value: Value, words: &str) -> Value {
    value["description"] = json!(words);
    value
}

fn pattern(pattern: String) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn name() -> Value {
    // `system: 7` is a name too.
    json!({"anyOf": [pattern(NAME.to_owned()), {"type": "integer", "minimum": 0}]})
}

/// Any text; a plain `8080` or `true` is one as well.
fn text() -> Value {
    json!({"type": ["string", "number", "boolean"]})
}

fn texts() -> Value {
    json!({"anyOf": [text(), {"type": "array", "items": text()}, {"type": "null"}]})
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn integer(minimum: u64, maximum: u64) -> Value {
    json!({"type": "integer", "minimum": minimum, "maximum": maximum})
}

fn any_of(values: Vec<Value>) -> Value {
    json!({"anyOf": values})
}

fn none_or(value: Value) -> Value {
    any_of(vec![words(&["none"]), value])
}

fn list_of(value: Value) -> Value {
    json!({"type": ["array", "null"], "items": value})
}

fn duration() -> Value {
    reference("duration")
}

fn share() -> Value {
    reference("share")
}

fn edges() -> Value {
    // `default`, `FROM -> TO`, `FROM -> TO "OPERATION"`, with `*` for anyone.
    let who = "(?:\\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,62})";
    let key = format!("^(?:default|\\s*{who}\\s*->\\s*{who}\\s*(?:\"[^\"]+\"\\s*)?)$");
    json!({"type": ["object", "null"], "patternProperties": {key: reference("edge")}, "additionalProperties": false})
}

fn definitions() -> Value {
    let mut all = Map::new();
    for (name, definition) in quantities()
        .into_iter()
        .chain(general())
        .chain(services())
        .chain(edge())
        .chain(gateways())
        .chain(traffic_and_scenarios())
    {
        all.insert(name.to_owned(), definition);
    }
    Value::Object(all)
}

fn quantities() -> Vec<(&'static str, Value)> {
    let unit = |units: &str| pattern(format!("^\\s*{NUMBER}\\s*(?:{units})\\s*$"));
    let or_zero = |value: Value| any_of(vec![value, json!({"const": 0}), json!({"const": "0"})]);
    let time = "ns|us|µs|μs|ms|s|min|h|d";
    vec![
        ("duration", said(or_zero(unit(time)), "A duration: 250ms, 1.5s, 2min, 1h, 7d.")),
        ("size", said(or_zero(unit("B|KB|MB|GB|TB|KiB|MiB|GiB|TiB")), "A size: 8KiB, 1MB, 512B.")),
        ("share", said(unit("%"), "A share: 20%, 99.95%.")),
        ("rate", said(unit("/s|/min|/h|/d"), "A rate: 200/s, 90/min.")),
        ("bandwidth", said(unit("(?:B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)/s"), "A bandwidth: 125MB/s.")),
        ("price", said(pattern(format!("^\\s*(?:\\$\\s*{NUMBER}|{NUMBER}\\s*USD)\\s*$")), "A price: $0.02.")),
        (
            "distribution",
            said(
                or_zero(pattern(format!(
                    "^\\s*(?:{NUMBER}\\s*(?:{time})|(?:fixed|uniform|exponential|lognormal|gamma|pareto|hyper|weibull|empirical)\\s*\\(.*\\))\\s*$"
                ))),
                "A distribution of time: 5ms, uniform(1ms, 5ms), exponential(mean 5ms), lognormal(p50 2ms, p99 9ms), gamma(mean 5ms, cv 0.5), pareto(min 1ms, shape 2.5), hyper(mean 5ms, cv 3), weibull(mean 5ms, shape 1.5), empirical(file.csv). Needs quotes inside { }.",
            ),
        ),
        ("priority", words(&["sheddable", "sheddable-plus", "critical", "critical-plus"])),
    ]
}

fn general() -> Vec<(&'static str, Value)> {
    let link = object(vec![
        ("rtt", said(duration(), "The round trip; one way is half of it.")),
        ("jitter", share()),
        ("loss", share()),
        ("bandwidth", reference("bandwidth")),
        ("price", said(reference("price"), "For a gigabyte.")),
    ]);
    let place = "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}(?:/[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?";
    let mut network = object(vec![
        ("in-zone", reference("link")),
        ("between-zones", reference("link")),
        ("between-regions", reference("link")),
        ("internet", reference("link")),
        (
            "dns",
            said(
                object(vec![
                    ("ttl", said(duration(), "An answer is good for this long.")),
                    ("latency", said(duration(), "Of one look-up.")),
                    ("failures", said(share(), "Look-ups that nobody answers.")),
                ]),
                "How callers find where a service is; left out, they know.",
            ),
        ),
        (
            "tls",
            said(
                object(vec![("handshake", said(duration(), "Work at both ends together."))]),
                "What securing a new connection costs; left out, nothing is encrypted.",
            ),
        ),
    ]);
    network["patternProperties"] =
        json!({format!("^\\s*{place}\\s*<?->\\s*{place}\\s*$"): reference("link")});
    let waiver = required(
        object(vec![
            ("lint", said(pattern("^L[0-9]{3}$".to_owned()), "The risk's code.")),
            (
                "on",
                said(
                    text(),
                    "A service, an edge (`web -> ads`), a team or a gateway; without it, everywhere.",
                ),
            ),
            ("reason", text()),
            (
                "until",
                said(
                    pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}$".to_owned()),
                    "After this day it is reported again.",
                ),
            ),
        ]),
        &["lint", "reason", "until"],
    );
    vec![
        ("team", object(vec![("contact", text()), ("oncall", text())])),
        (
            "region",
            object(vec![(
                "zones",
                json!({"type": "array", "items": name(), "minItems": 1, "uniqueItems": true}),
            )]),
        ),
        ("link", link),
        ("network", network),
        ("waiver", waiver),
    ]
}

fn services() -> Vec<(&'static str, Value)> {
    let count = || integer(0, 100_000);
    let mut service = object(vec![
        ("description", text()),
        ("team", said(name(), "Its owner, one of `teams`.")),
        ("kind", words(&["http", "grpc", "tcp", "cache", "store", "queue", "external"])),
        ("protocol", said(words(&["http1", "http2", "grpc", "tcp"]), "Of its listener; follows `kind`.")),
        (
            "replicas",
            said(
                any_of(vec![count(), json!({"type": "object", "additionalProperties": count()})]),
                "In all, or by region (`{eu-west: 3}`) or zone (`{eu-west/a: 2}`).",
            ),
        ),
        ("placement", words(&["zones", "region", "global"])),
        ("discovery", words(&["region", "everywhere"])),
        ("reach", words(&["any", "same-zone"])),
        ("run", said(reference("run"), "How to start it; without it the service is synthetic.")),
        ("endpoints", said(texts(), "Addresses, when it runs elsewhere.")),
        (
            "tls",
            said(
                object(vec![("ca", text()), ("server_name", text()), ("cert", text()), ("key", text())]),
                "Speaks TLS to `endpoints`; `{}` trusts whom the machine trusts.",
            ),
        ),
        ("health", reference("health")),
        ("concurrency", said(integer(1, 1_000_000), "Requests one instance works on at once.")),
        ("cores", said(integer(1, 1_024), "Cores that the work of one instance shares, in a forecast.")),
        ("burn", said(share(), "The part of its work that computes for real where `isobar up` plays it.")),
        ("queue", reference("queue")),
        ("priority", reference("priority")),
        (
            "operations",
            said(
                json!({"type": ["object", "null"], "additionalProperties": reference("operation")}),
                "By `METHOD /path`, `package.Service/Method`, or a word.",
            ),
        ),
        (
            "needs",
            said(
                list_of(any_of(vec![
                    text(),
                    json!({"type": "object", "additionalProperties": words(&["started", "healthy", "completed"])}),
                ])),
                "What must be there before it starts, beyond its calls.",
            ),
        ),
        ("slo", reference("slo")),
        (
            "versions",
            json!({"type": ["object", "null"], "patternProperties": {"^v(?:0|[1-9][0-9]*)\\.(?:0|[1-9][0-9]*)\\.(?:0|[1-9][0-9]*)$": reference("version")}, "additionalProperties": false}),
        ),
        ("cache", reference("cache")),
        (
            "store",
            object(vec![("copies", integer(1, 1_000)), ("consistency", words(&["one", "quorum", "leader"]))]),
        ),
        (
            "topic",
            object(vec![
                ("partitions", integer(1, 100_000)),
                ("retention", duration()),
                ("consumers", list_of(text())),
            ]),
        ),
        ("autoscale", reference("autoscale")),
        ("shared", said(flag(), "Several teams use this store on purpose.")),
        ("price", said(reference("price"), "For an instance and hour.")),
        (
            "labels",
            json!({"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}),
        ),
    ]);
    service["patternProperties"] = json!({"^x-": {}});
    let service = not_both(service, &[["run", "endpoints"]]);
    let run = required(
        object(vec![
            ("command", text()),
            ("shell", flag()),
            ("dir", text()),
            (
                "env",
                json!({"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}),
            ),
            ("env_file", texts()),
            ("build", text()),
            ("watch", texts()),
            ("job", flag()),
            ("port", integer(1, 65_535)),
            ("stop_timeout", duration()),
        ]),
        &["command"],
    );
    let kinds = ["path", "grpc", "tcp", "log", "command"];
    let mut pairs = Vec::new();
    for (nth, first) in kinds.iter().enumerate() {
        pairs.extend(kinds[nth + 1..].iter().map(|second| [*first, *second]));
    }
    let health = not_both(
        object(vec![
            ("path", pattern("^/".to_owned())),
            ("grpc", text()),
            ("tcp", flag()),
            ("log", text()),
            ("command", text()),
            ("every", duration()),
            ("timeout", duration()),
            ("healthy_after", integer(1, 1_000)),
            ("unhealthy_after", integer(1, 1_000)),
            ("startup", duration()),
        ]),
        &pairs,
    );
    let codel = object(vec![("codel", object(vec![("target", duration()), ("interval", duration())]))]);
    let queue = any_of(vec![
        integer(0, 10_000_000),
        words(&["unbounded"]),
        object(vec![
            ("max", any_of(vec![integer(0, 10_000_000), words(&["unbounded"])])),
            ("discipline", any_of(vec![words(&["fifo", "lifo", "adaptive-lifo", "codel"]), codel])),
        ]),
    ]);
    let operation = any_of(vec![
        reference("distribution"),
        object(vec![
            ("work", reference("distribution")),
            ("calls", reference("calls")),
            ("request", reference("size")),
            ("response", reference("size")),
            ("errors", share()),
            ("idempotent", flag()),
            ("writes", flag()),
            ("priority", reference("priority")),
        ]),
    ]);
    let call = required(
        object(vec![
            ("call", said(text(), "SERVICE or SERVICE \"OPERATION\".")),
            ("optional", flag()),
            ("fallback", any_of(vec![text(), required(object(vec![("call", text())]), &["call"])])),
            ("chance", share()),
            ("times", integer(1, 1_000_000)),
            ("detached", flag()),
            ("version", text()),
        ]),
        &["call"],
    );
    let step = any_of(vec![
        text(),
        reference("call"),
        required(object(vec![("all", reference("calls"))]), &["all"]),
        required(object(vec![("work", reference("distribution"))]), &["work"]),
    ]);
    let latency = json!({"type": ["object", "null"], "patternProperties": {"^p[0-9]{1,2}(?:\\.[0-9]+)?$": duration()}, "additionalProperties": false});
    let version = object(vec![
        ("weight", share()),
        ("replicas", count()),
        ("run", reference("run")),
        ("work", share()),
        ("errors", share()),
    ]);
    let cache = exactly_one(
        object(vec![
            ("hit_rate", share()),
            ("keys", integer(1, 1_000_000_000_000)),
            ("capacity", integer(0, 1_000_000_000_000)),
            ("zipf", json!({"type": "number", "minimum": 0})),
            ("ttl", duration()),
        ]),
        &["hit_rate", "keys"],
    );
    vec![
        ("service", service),
        ("run", any_of(vec![text(), run])),
        ("health", any_of(vec![words(&["none"]), health])),
        ("queue", queue),
        ("operation", operation),
        ("calls", list_of(reference("step"))),
        ("step", step),
        ("call", call),
        ("slo", object(vec![("availability", share()), ("latency", latency), ("window", duration())])),
        ("version", version),
        ("cache", cache),
        ("autoscale", autoscale()),
    ]
}

fn autoscale() -> Value {
    let number = json!({"type": "integer"});
    let periods = integer(1, 1_000);
    let step = required(
        object(vec![("lower", number.clone()), ("upper", number.clone()), ("adjustment", number.clone())]),
        &["adjustment"],
    );
    let rules = object(vec![
        ("min", integer(0, 100_000)),
        ("max", integer(1, 100_000)),
        (
            "hpa",
            object(vec![
                ("target", share()),
                ("sync", duration()),
                ("tolerance", share()),
                ("down_window", duration()),
            ]),
        ),
        (
            "knative",
            object(vec![
                ("target_concurrency", integer(1, 1_000_000)),
                ("utilization", share()),
                ("stable_window", duration()),
                ("panic_window", share()),
            ]),
        ),
        (
            "target_tracking",
            object(vec![
                ("target", share()),
                ("period", duration()),
                ("cooldown", duration()),
                ("warmup", duration()),
            ]),
        ),
        (
            "simple",
            required(
                object(vec![
                    ("above", share()),
                    ("adjustment", number),
                    ("period", duration()),
                    ("evaluation_periods", periods.clone()),
                    ("cooldown", duration()),
                ]),
                &["adjustment"],
            ),
        ),
        (
            "step",
            required(
                object(vec![
                    ("threshold", share()),
                    ("steps", list_of(step)),
                    ("period", duration()),
                    ("evaluation_periods", periods),
                    ("warmup", duration()),
                ]),
                &["steps"],
            ),
        ),
    ]);
    required(exactly_one(rules, &["hpa", "knative", "target_tracking", "simple", "step"]), &["max"])
}

fn edge() -> Vec<(&'static str, Value)> {
    let positive = || integer(1, 1_000_000);
    let budget = any_of(vec![
        share(),
        object(vec![("ratio", share()), ("floor", reference("rate")), ("window", duration())]),
    ]);
    let outcome = || words(&["connect-failure", "reset", "timeout", "unavailable", "5xx", "throttled"]);
    let backoff = none_or(object(vec![
        ("base", duration()),
        ("max", duration()),
        ("jitter", words(&["none", "full", "equal", "decorrelated"])),
    ]));
    let retry = object(vec![
        ("attempts", said(integer(1, 100), "The first one included.")),
        ("budget", none_or(reference("budget"))),
        ("per_try", duration()),
        ("on", any_of(vec![outcome(), list_of(outcome())])),
        ("backoff", backoff),
        ("non_idempotent", flag()),
    ]);
    let hedge = required(
        object(vec![("after", duration()), ("copies", integer(2, 10)), ("budget", reference("budget"))]),
        &["after"],
    );
    let breaker = not_both(
        object(vec![
            ("failures", positive()),
            ("errors", share()),
            ("requests", positive()),
            ("window", duration()),
            ("pause", duration()),
            ("pause_max", duration()),
        ]),
        &[["failures", "errors"], ["failures", "requests"], ["failures", "window"]],
    );
    let instances = |first: (&'static str, Value)| {
        object(vec![first, ("instances", integer(1, 100_000)), ("requests", positive())])
    };
    let eject = object(vec![
        ("consecutive", integer(0, 1_000_000)),
        ("deviation", instances(("factor", json!({"type": "number"})))),
        ("failures", instances(("share", share()))),
        ("interval", duration()),
        ("base", duration()),
        ("max", duration()),
        ("share", share()),
    ]);
    let balancers = || words(&["round-robin", "least-request", "peak-ewma", "random", "ring-hash", "maglev"]);
    let concurrency = any_of(vec![
        words(&["none"]),
        positive(),
        exactly_one(
            object(vec![
                ("gradient", object(vec![("min", positive()), ("max", positive())])),
                ("vegas", object(vec![("max", positive())])),
            ]),
            &["gradient", "vegas"],
        ),
    ]);
    let rate_limit = any_of(vec![
        reference("rate"),
        required(object(vec![("rate", reference("rate")), ("burst", integer(1, 10_000_000))]), &["rate"]),
    ]);
    let throttle = any_of(vec![
        words(&["none", "adaptive"]),
        object(vec![("k", json!({"type": "number", "minimum": 1})), ("window", duration())]),
    ]);
    let edge = object(vec![
        (
            "timeout",
            said(none_or(duration()), "The caller gives up after this, attempts and waits included."),
        ),
        ("retry", none_or(retry)),
        ("hedge", none_or(hedge)),
        ("breaker", none_or(breaker)),
        ("eject", none_or(eject)),
        (
            "balance",
            any_of(vec![
                balancers(),
                object(vec![("kind", balancers()), ("slow_start", duration()), ("panic", share())]),
            ]),
        ),
        ("locality", words(&["any", "prefer-zone", "prefer-region", "zone-only", "region-only"])),
        ("concurrency", said(concurrency, "Calls in flight from one caller instance.")),
        ("rate_limit", none_or(reference("rate_limit"))),
        ("throttle", throttle),
        ("priority", reference("priority")),
        ("connections", said(integer(1, 100_000), "To one instance.")),
        (
            "hash",
            said(
                pattern("^(source|path|(header|cookie) [^ ]+)$".to_owned()),
                "What ring-hash and maglev place a request by.",
            ),
        ),
    ]);
    vec![("budget", budget), ("rate_limit", rate_limit), ("edge", edge)]
}

fn gateways() -> Vec<(&'static str, Value)> {
    let path = || pattern("^/\\S*$".to_owned());
    let method = || words(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]);
    let conditions = || json!({"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean", "null"]}});
    let targets =
        any_of(vec![text(), json!({"type": "object", "additionalProperties": integer(0, 1_000_000)})]);
    let route = object(vec![
        ("path", said(path(), "This path and all below it.")),
        ("exact", path()),
        ("template", said(path(), "`/cart/{id}`: a segment each.")),
        ("regex", text()),
        ("host", texts()),
        ("methods", any_of(vec![method(), list_of(method())])),
        ("headers", conditions()),
        ("query", conditions()),
        ("cookies", conditions()),
        ("to", targets),
        (
            "redirect",
            required(object(vec![("to", text()), ("status", words_of(&[301, 302, 303, 307, 308]))]), &["to"]),
        ),
        (
            "reply",
            object(vec![
                ("status", integer(200, 599)),
                ("body", json!({"type": ["string", "number", "boolean", "null"]})),
            ]),
        ),
        ("rewrite", path()),
        ("timeout", duration()),
        ("mirror", required(object(vec![("to", text()), ("share", share())]), &["to"])),
        ("rate_limit", reference("rate_limit")),
    ]);
    let mut route = exactly_one(route, &["path", "exact", "template", "regex"]);
    let actions = exactly_one(json!({}), &["to", "redirect", "reply"]);
    route["allOf"] = json!([{"oneOf": actions["oneOf"]}]);
    let tls =
        required(object(vec![("cert", text()), ("key", text()), ("client_ca", text())]), &["cert", "key"]);
    let gateway = required(
        object(vec![
            ("listen", said(text(), "Host and port: `127.0.0.1:8080`.")),
            ("team", name()),
            ("tls", tls),
            (
                "routes",
                said(
                    json!({"type": "array", "items": reference("route"), "minItems": 1}),
                    "The first that matches wins.",
                ),
            ),
        ]),
        &["listen", "routes"],
    );
    vec![("gateway", gateway), ("route", route)]
}

fn words_of(numbers: &[u32]) -> Value {
    json!({"enum": numbers})
}

fn traffic_and_scenarios() -> Vec<(&'static str, Value)> {
    let rate = || reference("rate");
    let shape = exactly_one(
        object(vec![
            ("ramp", required(object(vec![("to", rate()), ("over", duration())]), &["to", "over"])),
            ("diurnal", required(object(vec![("peak", rate()), ("period", duration())]), &["peak"])),
            (
                "burst",
                required(
                    object(vec![("to", rate()), ("lasting", duration()), ("every", duration())]),
                    &["to", "lasting", "every"],
                ),
            ),
        ]),
        &["ramp", "diurnal", "burst"],
    );
    let traffic = object(vec![
        ("to", said(text(), "Whom it asks, and what: `web \"GET /\"`.")),
        ("rate", rate()),
        ("arrivals", words(&["poisson", "constant"])),
        ("shape", reference("shape")),
        ("users", integer(1, 100_000_000)),
        ("think", reference("distribution")),
        ("arrivals_file", text()),
        ("from", name()),
        ("priority", reference("priority")),
    ]);
    let traffic = required(exactly_one(traffic, &["rate", "users", "arrivals_file"]), &["to"]);
    let happens = || vec![("at", duration()), ("for", duration()), ("do", texts())];
    let step = required(object(happens()), &["do"]);
    let mut scenario = happens();
    scenario.extend([
        ("description", text()),
        ("steps", list_of(step)),
        ("expect", texts()),
        ("lasts", duration()),
    ]);
    let scenario = not_both(object(scenario), &[["steps", "do"], ["steps", "at"], ["steps", "for"]]);
    vec![("traffic", traffic), ("shape", shape), ("scenario", scenario)]
}
