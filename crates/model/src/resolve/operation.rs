//! `operations`: what a service does when it is asked, and whom it asks in turn.

use super::Resolver;
use super::fields::shorten;
use super::grammar::{METHODS, bad_template, who_and_quoted};
use super::names::is_name;
use super::service::PRIORITIES;
use super::suggest::did_you_mean;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Call, Fallback, Operation, OperationId, ServiceId, Step};
use crate::text::{Entry, Node};
use units::{Bytes, Dist, Id, IdVec, Nanos, Percent};

/// What an answer weighs when the file does not say: a small JSON document.
const RESPONSE: Bytes = Bytes::from_kib(1);
const REQUEST: Bytes = Bytes(512);

impl<'n> Resolver<'n, '_> {
    pub(super) fn operations(&mut self, service: ServiceId, node: &'n Node) -> IdVec<Operation> {
        let mut operations = IdVec::new();
        for entry in self.entries(node, "operations") {
            let operation = self.operation(service, entry);
            operations.push(operation);
        }
        operations
    }

    fn operation(&mut self, service: ServiceId, entry: &'n Entry) -> Operation {
        self.operation_name(&entry.key, entry.key_span);
        let mut operation = Operation {
            name: At::new(entry.key.to_string(), entry.key_span),
            work: Dist::Fixed(Nanos::ZERO),
            calls: Vec::new(),
            request: REQUEST,
            response: RESPONSE,
            errors: Percent::ZERO,
            idempotent: is_idempotent(&entry.key),
            writes: does_write(&entry.key),
            priority: None,
            span: entry.span(),
        };
        let node = &entry.value;
        if node.as_str().is_some() && !node.is_null() {
            if let Some(work) = self.dist(node) {
                operation.work = work;
            }
            return operation;
        }
        let Some(mut f) = self.fields(node, "an operation") else { return operation };
        if let Some(work) = f.get("work").and_then(|it| self.dist(it)) {
            operation.work = work;
        }
        if let Some(calls) = f.get("calls") {
            operation.calls = self.steps(service, calls);
        }
        let size = |r: &mut Self, node| r.quantity::<Bytes>(node).map(|it| it.value);
        operation.request = f.get("request").and_then(|it| size(self, it)).unwrap_or(REQUEST);
        operation.response = f.get("response").and_then(|it| size(self, it)).unwrap_or(RESPONSE);
        if let Some(errors) = f.get("errors").and_then(|it| self.share(it, "the share of errors")) {
            operation.errors = errors.value;
        }
        if let Some(it) = f.get("idempotent").and_then(|it| self.flag(it)) {
            operation.idempotent = it;
        }
        if let Some(it) = f.get("writes").and_then(|it| self.flag(it)) {
            operation.writes = it;
        }
        operation.priority =
            f.get("priority").and_then(|it| self.choice(it, "a priority", &PRIORITIES)).map(|it| it.value);
        f.finish(self);
        operation
    }

    fn operation_name(&mut self, name: &str, span: Span) {
        let help = "an operation is `METHOD /path`, `package.Service/Method`, or a word";
        if let Some((method, path)) = name.split_once(' ') {
            if !METHODS.contains(&method) {
                let near = did_you_mean(method, METHODS, &mut self.comparisons_left);
                let help = match near {
                    Some(near) => format!("did you mean `{near} {path}`?"),
                    None => format!("methods are {}", METHODS.join(", ")),
                };
                self.report(
                    Diagnostic::error("E0206", span, format!("`{}` is not an HTTP method", shorten(method)))
                        .label("unknown method")
                        .help(help),
                );
            } else if let Some(wrong) = bad_template(path) {
                self.report(Diagnostic::error("E0507", span, wrong).label("not a path").help(help));
            }
            return;
        }
        let good = match name.split_once('/') {
            Some((service, method)) => is_name(service) && is_name(method),
            None => is_name(name),
        };
        if !good {
            self.report(
                Diagnostic::error(
                    "E0206",
                    span,
                    format!("`{}` cannot be the name of an operation", shorten(name)),
                )
                .label("not an operation's name")
                .help(help),
            );
        }
    }

    /// A distribution of time; an empirical one comes with its values.
    pub(super) fn dist(&mut self, node: &'n Node) -> Option<Dist> {
        let text = self.text(node, "a distribution of time")?;
        let dist = match text.value.parse::<Dist>() {
            Ok(dist) => dist,
            Err(error) => {
                self.report(
                    Diagnostic::error("E0504", text.span, error.to_string())
                        .label("not a distribution of time"),
                );
                return None;
            }
        };
        let Dist::Empirical { file, .. } = &dist else { return Some(dist) };
        let key = (text.span.file, file.clone());
        if let Some(known) = self.empirical.get(&key) {
            return known.clone();
        }
        let read = (self.read_data)(text.span.file, file);
        let loaded = read.and_then(|words| {
            Dist::parse_values(&words).map_err(|(line, error)| format!("line {line} of {file}: {error}"))
        });
        let loaded = match loaded {
            Ok(values) if values.is_empty() => Err(format!("{file} holds no durations")),
            other => other,
        };
        let dist = match loaded {
            Ok(values) => Some(dist.clone().with_values(values)),
            Err(message) => {
                self.report(
                    Diagnostic::error("E0105", text.span, message)
                        .label("no usable file of durations")
                        .help("a file beside this one, with a duration a line: `12ms`"),
                );
                None
            }
        };
        self.empirical.insert(key, dist.clone());
        dist
    }

    fn steps(&mut self, caller: ServiceId, node: &'n Node) -> Vec<Step> {
        let items = self.list(node, "calls");
        items.iter().filter_map(|item| self.step(caller, item)).collect()
    }

    /// Recursion is bounded by the parser's limit of depth.
    fn step(&mut self, caller: ServiceId, node: &'n Node) -> Option<Step> {
        let Some(map) = node.as_map() else {
            let (service, operation, version) = self.service_and_operation(node)?;
            let operation = self.the_operation(service, operation)?;
            return Some(Step::Call(Call { version, ..plain_call(service, operation, node.span) }));
        };
        if map.get("call").is_some() {
            return self.call(node);
        }
        let mut f = self.fields(node, "a step")?;
        let entry = f.exactly_one(self, &["call", "all", "work"]);
        let step = entry.and_then(|entry| match &*entry.key {
            "all" => {
                let steps = self.steps(caller, &entry.value);
                Some(Step::All(steps))
            }
            _ => self.dist(&entry.value).map(Step::Work),
        });
        f.finish(self);
        step
    }

    fn call(&mut self, node: &'n Node) -> Option<Step> {
        let mut f = self.fields(node, "a call")?;
        let target = f.get("call").and_then(|it| self.service_and_operation(it));
        let optional = f.get("optional").and_then(|it| self.flag(it)).unwrap_or(false);
        let fallback_node = f.get("fallback");
        let fallback = fallback_node.and_then(|it| self.fallback(it));
        let chance = f.get("chance").and_then(|it| self.share(it, "a chance"));
        let times = f.get("times").and_then(|it| self.count(it, "`times`", 1..=1_000_000));
        let detached = f.get("detached").and_then(|it| self.flag(it)).unwrap_or(false);
        let version_node = f.get("version");
        f.finish(self);
        let (service, operation, version) = target?;
        if let (Some(Fallback::Call(other)), Some(node)) = (&fallback, fallback_node)
            && *other == service.value
        {
            self.report(
                Diagnostic::error(
                    "E0402",
                    node.span,
                    "a call's fallback is the service that has just failed",
                )
                .label("the same service")
                .related(service.span, "the call")
                .help("fall back to another service, to `empty`, or to a word for what is shown instead"),
            );
        }
        let pinned = version_node.and_then(|node| {
            let text = self.text(node, "a version")?;
            if let Some(first) = &version {
                self.report(
                    Diagnostic::error("E0211", text.span, "the version is given twice")
                        .label("and here")
                        .related(first.span, "first here"),
                );
                return None;
            }
            self.version_of(service.value, text.value, text.span)
        });
        let operation = self.the_operation(service, operation)?;
        Some(Step::Call(Call {
            optional,
            fallback,
            chance: chance.map_or(Percent::WHOLE, |it| it.value),
            times: times.map_or(1, |it| it.value),
            detached,
            version: version.or(pinned),
            ..plain_call(service, operation, node.span)
        }))
    }

    fn fallback(&mut self, node: &'n Node) -> Option<Fallback> {
        if node.as_map().is_some() {
            let mut f = self.fields(node, "a fallback")?;
            let service = f.require(self, "call", "backup").and_then(|it| {
                let name = self.text(it, "a service's name")?;
                self.service_named(name.value, name.span)
            });
            f.finish(self);
            return service.map(Fallback::Call);
        }
        let text = self.text(node, "a fallback")?;
        Some(if text.value == "empty" { Fallback::Empty } else { Fallback::Named(text.value.to_owned()) })
    }

    /// `SERVICE`, `SERVICE@VERSION`, `SERVICE "OPERATION"`.
    #[allow(clippy::type_complexity)] // Three things a call's text says; a type of its own would be read here only.
    pub(super) fn service_and_operation(
        &mut self,
        node: &'n Node,
    ) -> Option<(At<ServiceId>, Option<At<OperationId>>, Option<At<String>>)> {
        let text = self.text(node, "a call: `SERVICE` or `SERVICE \"OPERATION\"`")?;
        let Some((who, operation)) = who_and_quoted(text.value) else {
            self.report(
                Diagnostic::error("E0503", text.span, format!("`{}` is not a call", shorten(text.value)))
                    .label("not a call")
                    .help("a call is `SERVICE` or `SERVICE \"OPERATION\"`, for example `cart \"GET /cart/{id}\"`"),
            );
            return None;
        };
        let (service, version) = self.service_and_version(who, text.span)?;
        let operation = match operation {
            None => None,
            Some(name) => Some(At::new(self.operation_of(service.value, name, text.span)?, text.span)),
        };
        Some((service, operation, version))
    }

    /// A call that names no operation means the only one; `None` inside is for a service without operations, and
    /// `None` outside for an ambiguity, which was reported.
    pub(super) fn the_operation(
        &mut self,
        service: At<ServiceId>,
        named: Option<At<OperationId>>,
    ) -> Option<Option<At<OperationId>>> {
        if named.is_some() {
            return Some(named);
        }
        let inside = &self.names.inside[service.value.index()];
        match inside.operations.len() {
            _ if inside.operations_hole => Some(None),
            0 => Some(None),
            1 => Some(Some(At::new(Id::new(0), service.span))),
            _ => {
                let known: Vec<&str> = inside.operations.iter().copied().take(12).collect();
                let owner = self.names.services.entries[service.value.index()];
                self.report(
                    Diagnostic::error(
                        "E0509",
                        service.span,
                        format!("`{}` has several operations; say which", owner.key),
                    )
                    .label("which operation?")
                    .help(format!(
                        "write `{} \"{}\"`; its operations are {}",
                        owner.key,
                        known[0],
                        known.join(", ")
                    )),
                );
                None
            }
        }
    }
}

fn plain_call(service: At<ServiceId>, operation: Option<At<OperationId>>, span: Span) -> Call {
    Call {
        service,
        operation,
        optional: false,
        fallback: None,
        chance: Percent::WHOLE,
        times: 1,
        detached: false,
        version: None,
        span,
    }
}

fn is_idempotent(name: &str) -> bool {
    match name.split_once(' ') {
        Some((method, _)) => matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
        None => matches!(name, "read" | "get" | "list" | "query"),
    }
}

fn does_write(name: &str) -> bool {
    match name.split_once(' ') {
        Some((method, _)) => matches!(method, "POST" | "PUT" | "PATCH" | "DELETE"),
        None => matches!(name, "write" | "put" | "set" | "insert" | "update" | "delete" | "publish"),
    }
}
