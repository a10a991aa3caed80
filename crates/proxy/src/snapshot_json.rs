//! The running snapshot as JSON, for `/config`: every part under its name, numbers with their unit in the key.
//!
//! Secrets stay inside: a value that a header edit sets, or that a rule compares with, is shown as `***` where its name
//! says that it is a credential. Files of certificates are named and not read.

use crate::config::{
    self, Action, Address, Config, HealthKind, ListenerKind, PathEdit, PathMatch, ValueRule,
};
use policy::settings::{Budget, Concurrency, Discipline, EdgeSettings, HashOn, Trip};
use std::fmt::{Display, Write as _};
use std::path::Path;
use units::{Nanos, Percent};

/// A text as JSON writes it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            ' '.. => out.push(char),
            _ => {
                let _ = write!(out, "\\u{:04x}", char as u32);
            }
        }
    }
    out.push('"');
    out
}

/// An object in the making.
pub(crate) struct Object {
    out: String,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { out: "{".into() }
    }

    /// `value` is JSON already.
    pub(crate) fn raw(mut self, key: &str, value: impl Display) -> Self {
        let comma = if self.out.len() > 1 { "," } else { "" };
        let _ = write!(self.out, "{comma}{}:{value}", quote(key));
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, quote(value))
    }

    /// Left out where there is nothing to say.
    fn some<T>(self, key: &str, value: Option<T>, show: impl FnOnce(T) -> String) -> Self {
        match value {
            Some(value) => self.raw(key, show(value)),
            None => self,
        }
    }

    fn named(self, key: &str, value: &str) -> Self {
        self.some(key, Some(value).filter(|it| !it.is_empty()), quote)
    }

    fn ms(self, key: &str, value: Nanos) -> Self {
        self.raw(key, value.as_millis_f64())
    }

    fn share(self, key: &str, value: Percent) -> Self {
        self.raw(key, value.fraction())
    }

    fn path(self, key: &str, value: &Path) -> Self {
        self.text(key, &value.to_string_lossy())
    }

    fn all<'t, T: 't>(
        self,
        key: &str,
        of: impl IntoIterator<Item = &'t T>,
        show: impl Fn(&T) -> String,
    ) -> Self {
        let all: Vec<String> = of.into_iter().map(show).collect();
        self.raw(key, format!("[{}]", all.join(",")))
    }

    pub(crate) fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

/// The word of an enumeration without fields, as files write it: `peak-ewma`.
fn word(value: impl std::fmt::Debug) -> String {
    let mut out = String::new();
    for char in format!("{value:?}").chars() {
        if char.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(char.to_ascii_lowercase());
    }
    quote(&out)
}

/// Whether whoever reads a value of this name could pass for somebody else.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "cookie", "token", "secret", "password", "key", "session", "credential"]
        .iter()
        .any(|it| name.contains(it))
}

pub(crate) fn snapshot(config: &Config) -> String {
    let Config { source: _, node, listeners, edges, services, limits, timeouts, access_log, trace_share } =
        config;
    let node =
        Object::new().text("name", &node.name).named("region", &node.region).named("zone", &node.zone).end();
    Object::new()
        .raw("node", node)
        .all("listeners", listeners.iter().map(|it| &**it), listener)
        .all("edges", edges.iter().map(|it| &**it), edge)
        .all("services", services.iter().map(|it| &**it), service)
        .raw("limits", self::limits(limits))
        .raw("timeouts", self::timeouts(timeouts))
        .some("access_log", access_log.as_ref(), |it| {
            Object::new().share("share", it.share).raw("lines_max", it.lines_max).end()
        })
        .share("trace_share", *trace_share)
        .end()
}

fn listener(it: &config::Listener) -> String {
    let out = Object::new().text("name", &it.name).text("address", &it.address.to_string());
    let out = match &it.kind {
        ListenerKind::Http => out.text("kind", "http"),
        ListenerKind::Tcp { edge } => out.text("kind", "tcp").text("edge", edge),
        ListenerKind::TlsPassthrough { by_name, fallback } => {
            let by_name = by_name.iter().fold(Object::new(), |out, (name, edge)| out.text(name, edge)).end();
            out.text("kind", "tls-passthrough")
                .raw("by_name", by_name)
                .named("fallback", fallback.as_deref().unwrap_or(""))
        }
    };
    out.some("tls", it.tls.as_ref(), |tls| {
        Object::new()
            .all("certificates", &tls.certificates, certificate)
            .some("client_ca", tls.client_roots.as_ref(), |it| quote(&it.to_string_lossy()))
            .raw("client_required", tls.client_required)
            .end()
    })
    .raw("trusts_headers", it.trusts_headers)
    .named("gateway", it.gateway.as_deref().unwrap_or(""))
    .all("routes", it.routes.iter().map(|it| &**it), route)
    .end()
}

fn certificate(it: &config::Certificate) -> String {
    Object::new().path("cert", &it.chain).path("key", &it.key).end()
}

fn value_match(it: &config::ValueMatch) -> String {
    let shown = |value: &str| if is_secret(&it.name) { "***".to_owned() } else { value.to_owned() };
    let out = Object::new().text("name", &it.name);
    match &it.rule {
        ValueRule::Present => out.raw("present", true),
        ValueRule::Absent => out.raw("present", false),
        ValueRule::Exact(value) => out.text("exact", &shown(value)),
        ValueRule::Prefix(value) => out.text("prefix", &shown(value)),
        ValueRule::Regex(value) => out.text("regex", &shown(value)),
    }
    .end()
}

fn path_edit(it: &PathEdit) -> String {
    match it {
        PathEdit::Replace(path) => Object::new().text("replace", path),
        PathEdit::ReplacePrefix(path) => Object::new().text("replace_prefix", path),
        PathEdit::Regex { pattern, replacement } => {
            Object::new().text("regex", pattern).text("replacement", replacement)
        }
    }
    .end()
}

fn header_edit(it: &config::HeaderEdit) -> Option<String> {
    if *it == config::HeaderEdit::default() {
        return None;
    }
    let line = |(name, value): &(String, String)| {
        Object::new().text("name", name).text("value", if is_secret(name) { "***" } else { value }).end()
    };
    Some(
        Object::new()
            .all("set", &it.set, line)
            .all("add", &it.add, line)
            .all("remove", &it.remove, |it| quote(it))
            .end(),
    )
}

fn route(it: &config::Route) -> String {
    let mut matches = Object::new();
    matches = match &it.matches.path {
        PathMatch::Exact(path) => matches.text("path_exact", path),
        PathMatch::Prefix(path) => matches.text("path_prefix", path),
        PathMatch::Template(path) => matches.text("path_template", path),
        PathMatch::Regex(path) => matches.text("path_regex", path),
    };
    for (key, texts) in [("hosts", &it.matches.hosts), ("methods", &it.matches.methods)] {
        if !texts.is_empty() {
            matches = matches.all(key, texts, |it| quote(it));
        }
    }
    for (key, rules) in
        [("headers", &it.matches.headers), ("query", &it.matches.query), ("cookies", &it.matches.cookies)]
    {
        if !rules.is_empty() {
            // Whatever a cookie is called, its value is somebody's.
            let cookie = |rule: &config::ValueMatch| {
                value_match(&config::ValueMatch { name: format!("cookie {}", rule.name), ..rule.clone() })
            };
            matches = if key == "cookies" {
                matches.all(key, rules, cookie)
            } else {
                matches.all(key, rules, value_match)
            };
        }
    }
    let out =
        Object::new().text("name", &it.name).named("operation", &it.operation).raw("match", matches.end());
    let out = match &it.action {
        Action::Forward(targets) => out.all("to", targets, |it| {
            let version = it.version.as_deref().unwrap_or("");
            Object::new().text("edge", &it.edge).raw("weight", it.weight).named("version", version).end()
        }),
        Action::Redirect(to) => out.raw(
            "redirect",
            Object::new()
                .raw("status", to.status)
                .some("scheme", to.scheme.as_deref(), quote)
                .some("host", to.host.as_deref(), quote)
                .some("path", to.path.as_ref(), path_edit)
                .end(),
        ),
        Action::Reply(reply) => out.raw(
            "reply",
            Object::new().raw("status", reply.status).raw("body_bytes", reply.body.len()).end(),
        ),
    };
    let rewrite = &it.rewrite;
    let fault = &it.fault;
    out.some("rewrite_path", rewrite.path.as_ref(), path_edit)
        .some("rewrite_host", rewrite.host.as_deref(), quote)
        .some("request_headers", header_edit(&rewrite.request), |it| it)
        .some("response_headers", header_edit(&rewrite.response), |it| it)
        .some("mirror", it.mirror.as_ref(), |it| {
            Object::new().text("edge", &it.edge).share("share", it.share).end()
        })
        .some("fault_delay", fault.delay.as_ref(), |it| {
            Object::new().ms("ms", it.delay).share("share", it.share).end()
        })
        .some("fault_abort", fault.abort.as_ref(), |it| {
            let kind = match it.kind {
                config::AbortKind::Status(status) => format!("status {status}"),
                config::AbortKind::Grpc(code) => format!("grpc {code}"),
                config::AbortKind::Reset => "reset".to_owned(),
            };
            Object::new().text("kind", &kind).share("share", it.share).end()
        })
        .some("fault_bandwidth", fault.bandwidth.as_ref(), |it| {
            Object::new().raw("bytes_per_second", it.bytes_per_second).share("share", it.share).end()
        })
        .some("fault_from_headers", fault.from_headers, |it| it.fraction().to_string())
        .some("rate_limit", it.rate_limit, |it| {
            Object::new().raw("per_second", it.rate.per_second()).raw("burst", it.burst).end()
        })
        .end()
}

fn budget(it: &Budget) -> String {
    Object::new()
        .share("ratio", it.ratio)
        .raw("floor_per_second", it.floor.per_second())
        .ms("window_ms", it.window)
        .end()
}

fn edge(it: &config::Edge) -> String {
    let EdgeSettings {
        timeout,
        retry,
        hedge,
        breaker,
        eject,
        balance,
        locality,
        concurrency,
        rate_limit,
        throttle,
        priority,
        connections,
        hash,
    } = &it.settings;
    Object::new()
        .text("name", &it.name)
        .text("service", &it.service)
        .named("caller", &it.caller)
        .named("callee", &it.callee)
        .some("timeout_ms", *timeout, |it| it.as_millis_f64().to_string())
        .some("retry", retry.as_ref(), |it| {
            let on = [
                ("connect-failure", it.on.connect_failure),
                ("reset", it.on.reset),
                ("timeout", it.on.timeout),
                ("unavailable", it.on.unavailable),
                ("server-error", it.on.server_error),
                ("throttled", it.on.throttled),
            ];
            Object::new()
                .raw("attempts", it.attempts)
                .some("per_try_ms", it.per_try, |it| it.as_millis_f64().to_string())
                .all("on", on.iter().filter(|(_, on)| *on), |(name, _)| quote(name))
                .ms("backoff_base_ms", it.backoff.base)
                .ms("backoff_max_ms", it.backoff.max)
                .raw("jitter", word(it.backoff.jitter))
                .some("budget", it.budget.as_ref(), budget)
                .raw("non_idempotent", it.non_idempotent)
                .end()
        })
        .some("hedge", hedge.as_ref(), |it| {
            Object::new()
                .ms("after_ms", it.after)
                .raw("copies", it.copies)
                .raw("budget", budget(&it.budget))
                .end()
        })
        .some("breaker", breaker.as_ref(), |it| {
            let trip = match it.trip {
                Trip::Consecutive { failures } => Object::new().raw("consecutive_failures", failures),
                Trip::Rate { errors, requests_min, window } => Object::new()
                    .share("error_share", errors)
                    .raw("requests_min", requests_min)
                    .ms("window_ms", window),
            };
            trip.ms("pause_ms", it.pause).ms("pause_max_ms", it.pause_max).end()
        })
        .some("eject", eject.as_ref(), |it| {
            Object::new()
                .raw("consecutive", it.consecutive)
                .some("deviation_thousandths", it.deviation, |it| it.factor_thousandths.to_string())
                .some("failure_share", it.failure_share, |it| it.threshold.fraction().to_string())
                .ms("interval_ms", it.interval)
                .ms("base_ms", it.base)
                .ms("max_ms", it.max)
                .share("share_max", it.share_max)
                .end()
        })
        .raw("balance", word(balance.kind))
        .ms("slow_start_ms", balance.slow_start)
        .share("panic", balance.panic)
        .raw("locality", word(locality))
        .some("concurrency", *concurrency, |it| match it {
            Concurrency::Static { max } => Object::new().raw("max", max).end(),
            Concurrency::Gradient { min, max } => {
                Object::new().text("kind", "gradient").raw("min", min).raw("max", max).end()
            }
            Concurrency::Vegas { max } => Object::new().text("kind", "vegas").raw("max", max).end(),
            Concurrency::Aimd { min, max } => {
                Object::new().text("kind", "aimd").raw("min", min).raw("max", max).end()
            }
        })
        .some("rate_limit", *rate_limit, |it| {
            Object::new().raw("per_second", it.rate.per_second()).raw("burst", it.burst).end()
        })
        .some("throttle", *throttle, |it| {
            Object::new().raw("k_thousandths", it.k_thousandths).ms("window_ms", it.window).end()
        })
        .raw("priority", word(priority))
        .some("connections", Some(*connections).filter(|it| *it < u32::MAX), |it| it.to_string())
        .raw(
            "hash",
            match hash {
                HashOn::Source => quote("source"),
                HashOn::Path => quote("path"),
                HashOn::Header(name) => quote(&format!("header {name}")),
                HashOn::Cookie(name) => quote(&format!("cookie {name}")),
            },
        )
        .some("ways", Some(&it.ways).filter(|ways| !ways.is_empty()), |ways| {
            let way = |it: &config::Way| {
                Object::new()
                    .text("to", &it.to.to_string())
                    .ms("delay_ms", it.delay)
                    .share("jitter", it.jitter)
                    .share("loss", it.loss)
                    .share("errors", it.errors)
                    .raw("cut", it.cut)
                    .end()
            };
            format!("[{}]", ways.iter().map(way).collect::<Vec<_>>().join(","))
        })
        .end()
}

fn service(it: &config::Service) -> String {
    let queue = Object::new().some("max", it.queue.max, |it| it.to_string());
    let queue = match it.queue.discipline {
        Discipline::CoDel { target, interval } => {
            queue.text("discipline", "codel").ms("target_ms", target).ms("interval_ms", interval)
        }
        other => queue.raw("discipline", word(other)),
    };
    Object::new()
        .text("name", &it.name)
        .raw("protocol", word(it.protocol))
        .some("tls", it.tls.as_ref(), |tls| {
            Object::new()
                .named("server_name", &tls.server_name)
                .some("ca", tls.roots.as_ref(), |it| quote(&it.to_string_lossy()))
                .some("certificate", tls.certificate.as_ref(), certificate)
                .raw("insecure_skip_verify", tls.insecure_skip_verify)
                .end()
        })
        .all("endpoints", &it.endpoints, |it| {
            let address = match &it.address {
                Address::Ip(address) => address.to_string(),
                Address::Name(name, port) => format!("{name}:{port}"),
            };
            Object::new()
                .text("address", &address)
                .named("version", &it.version)
                .named("region", &it.region)
                .named("zone", &it.zone)
                .raw("weight", it.weight)
                .end()
        })
        .some("health", it.health.as_ref(), |it| {
            let out = match &it.kind {
                HealthKind::Http { path, host, status_min, status_max } => Object::new()
                    .text("kind", "http")
                    .text("path", path)
                    .named("host", host)
                    .raw("status_min", status_min)
                    .raw("status_max", status_max),
                HealthKind::Tcp => Object::new().text("kind", "tcp"),
                HealthKind::Grpc { service } => Object::new().text("kind", "grpc").named("service", service),
            };
            out.ms("interval_ms", it.interval)
                .ms("timeout_ms", it.timeout)
                .raw("unhealthy_after", it.unhealthy_after)
                .raw("healthy_after", it.healthy_after)
                .end()
        })
        .ms("connect_timeout_ms", it.connect_timeout)
        .ms("idle_timeout_ms", it.idle_timeout)
        .ms("dns_refresh_ms", it.dns_refresh)
        .raw("queue", queue.end())
        .end()
}

/// What is without limit is left out.
fn limits(it: &config::Limits) -> String {
    Object::new()
        .raw("connections", it.connections)
        .some("connections_per_source", Some(it.connections_per_source).filter(|it| *it < u32::MAX), |it| {
            it.to_string()
        })
        .raw("streams_per_connection", it.streams_per_connection)
        .raw("head_bytes", it.head_bytes.as_u64())
        .raw("target_bytes", it.target_bytes.as_u64())
        .raw("headers", it.headers)
        .some("request_body_bytes", it.request_body_bytes, |it| it.as_u64().to_string())
        .raw("replay_bytes", it.replay_bytes.as_u64())
        .raw("replay_bytes_total", it.replay_bytes_total.as_u64())
        .raw("requests_per_instance", it.requests_per_instance)
        .raw("pending", it.pending)
        .raw("retries_in_flight", it.retries_in_flight)
        .raw("mirrors_in_flight", it.mirrors_in_flight)
        .some("requests_per_connection", it.requests_per_connection, |it| it.to_string())
        .some("memory_bytes", it.memory, |it| it.as_u64().to_string())
        .end()
}

fn timeouts(it: &config::Timeouts) -> String {
    Object::new()
        .ms("header_read_ms", it.header_read)
        .ms("body_read_ms", it.body_read)
        .ms("write_ms", it.write)
        .ms("keep_alive_ms", it.keep_alive)
        .ms("stream_idle_ms", it.stream_idle)
        .ms("silence_ms", it.silence)
        .ms("request_ms", it.request)
        .ms("drain_ms", it.drain)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HeaderEdit, Route, ValueMatch};

    #[test]
    fn texts_are_quoted_as_they_are() {
        for (text, quoted) in [("a\"b\\", r#""a\"b\\""#), ("é\n\0", "\"é\\u000a\\u0000\""), ("", "\"\"")] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(word(policy::settings::BalanceKind::PeakEwma), "\"peak-ewma\"");
    }

    #[test]
    fn credentials_are_not_shown() {
        let mut it = Route::forward("r", PathMatch::Prefix("/".into()), "a->b");
        let exact = |name: &str| ValueMatch { name: name.into(), rule: ValueRule::Exact("hunter2".into()) };
        it.matches.headers = vec![exact("Authorization"), exact("x-tenant")];
        it.matches.cookies = vec![exact("who")];
        let set = |name: &str| (name.to_owned(), "hunter2".to_owned());
        it.rewrite.request =
            HeaderEdit { set: vec![set("X-Api-Key"), set("x-plain")], ..HeaderEdit::default() };
        let shown = route(&it);
        assert_eq!(shown.matches("hunter2").count(), 2, "{shown}");
        assert_eq!(shown.matches("***").count(), 3, "{shown}");
        assert!(shown.contains(r#"{"name":"x-plain","value":"hunter2"}"#), "{shown}");
    }
}
