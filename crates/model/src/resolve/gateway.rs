//! `gateways` and their routes.

use super::Resolver;
use super::fields::{Fields, shorten};
use super::grammar::{METHODS, bad_template, is_address};
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Action, Gateway, PathMatch, Route, ServiceId, Target, Tls};
use crate::text::{Entry, Node};
use std::collections::HashMap;
use units::{Nanos, Percent};

/// A pattern of a route; larger ones cost more memory per worker than a whole gateway should.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl<'n> Resolver<'n, '_> {
    pub(super) fn gateways(&mut self) {
        let mut listening: HashMap<String, Span> = HashMap::new();
        for entry in self.names.gateways.entries.clone() {
            let gateway = self.gateway(entry);
            if !gateway.listen.value.is_empty() {
                if let Some(first) = listening.get(&gateway.listen.value) {
                    let first = *first;
                    self.report(
                        Diagnostic::error(
                            "E0207",
                            gateway.listen.span,
                            format!("two gateways listen on {}", gateway.listen.value),
                        )
                        .label("again here")
                        .related(first, "first here"),
                    );
                } else {
                    listening.insert(gateway.listen.value.clone(), gateway.listen.span);
                }
            }
            self.system.gateways.push(gateway);
        }
    }

    fn gateway(&mut self, entry: &'n Entry) -> Gateway {
        let mut gateway = Gateway {
            name: At::new(entry.key.to_string(), entry.key_span),
            listen: At::default(),
            team: None,
            tls: None,
            routes: Vec::new(),
            span: entry.span(),
        };
        let Some(mut f) = self.fields(&entry.value, "a gateway") else { return gateway };
        f.span = entry.key_span;
        if let Some(text) =
            f.require(self, "listen", "\"127.0.0.1:8080\"").and_then(|it| self.text(it, "an address"))
        {
            if is_address(text.value) {
                gateway.listen = text.map(str::to_owned);
            } else {
                self.bad_address(text.value, text.span);
            }
        }
        gateway.team = f.get("team").and_then(|it| self.team(it));
        gateway.tls = f.get("tls").and_then(|it| self.tls(it));
        if let Some(list) = f.require(self, "routes", "[{path: /, to: web}]") {
            let items = self.list(list, "routes");
            if items.is_empty() && list.as_seq().is_some() {
                self.impossible(list.span, "a gateway without routes answers nothing", "no routes");
            }
            gateway.routes = items.iter().filter_map(|item| self.route(item)).collect();
        }
        f.finish(self);
        gateway
    }

    fn tls(&mut self, node: &'n Node) -> Option<Tls> {
        let mut f = self.fields(node, "`tls`")?;
        let cert = f.require(self, "cert", "cert.pem").and_then(|it| self.owned(it, "a file"));
        let key = f.require(self, "key", "key.pem").and_then(|it| self.owned(it, "a file"));
        let client_ca = f.get("client_ca").and_then(|it| self.owned(it, "a file"));
        f.finish(self);
        Some(Tls { cert: cert?, key: key?, client_ca })
    }

    fn route(&mut self, node: &'n Node) -> Option<Route> {
        let mut f = self.fields(node, "a route")?;
        let path = self.path_match(&mut f);
        let hosts = f.get("host").map(|it| self.hosts(it)).unwrap_or_default();
        let methods = f.get("methods").map(|it| self.methods(it)).unwrap_or_default();
        let headers = f.get("headers").map(|it| self.conditions(it, "headers")).unwrap_or_default();
        let query = f.get("query").map(|it| self.conditions(it, "query parameters")).unwrap_or_default();
        let cookies = f.get("cookies").map(|it| self.conditions(it, "cookies")).unwrap_or_default();
        let action = f.exactly_one(self, &["to", "redirect", "reply"]);
        let action = action.and_then(|entry| match &*entry.key {
            "to" => self.targets(&entry.value),
            "redirect" => self.redirect(&entry.value),
            _ => self.reply(&entry.value),
        });
        let rewrite = f.get("rewrite").and_then(|it| self.absolute_path(it));
        let timeout = f.get("timeout").and_then(|it| self.positive::<Nanos>(it, "a timeout"));
        let mirror = f.get("mirror").and_then(|it| self.mirror(it));
        let rate_limit = f.get("rate_limit").and_then(|it| self.rate_limit(it)).map(|it| it.value);
        f.finish(self);
        Some(Route {
            hosts,
            path: path?,
            methods,
            headers,
            query,
            cookies,
            action: action?,
            rewrite,
            timeout,
            mirror,
            rate_limit,
            span: node.span,
        })
    }

    fn path_match(&mut self, f: &mut Fields<'n>) -> Option<PathMatch> {
        let entry = f.exactly_one(self, &["path", "exact", "template", "regex"])?;
        let node = &entry.value;
        match &*entry.key {
            "path" => self.absolute_path(node).map(PathMatch::Prefix),
            "exact" => self.absolute_path(node).map(PathMatch::Exact),
            "template" => {
                let text = self.text(node, "a template of a path")?;
                if let Some(wrong) = bad_template(text.value) {
                    self.report(
                        Diagnostic::error("E0507", text.span, wrong)
                            .label("not a template")
                            .help("write for example `/cart/{id}`"),
                    );
                    return None;
                }
                Some(PathMatch::Template(text.value.to_owned()))
            }
            _ => {
                let text = self.text(node, "a regular expression")?;
                let built =
                    regex::RegexBuilder::new(text.value).size_limit(REGEX_BYTES_MAX).nest_limit(100).build();
                if let Err(error) = built {
                    let message = match error {
                        regex::Error::CompiledTooBig(_) => "this regular expression is too large".to_owned(),
                        // The crate draws several lines; the last one says it in a sentence.
                        other => {
                            let text = other.to_string();
                            let last = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ");
                            format!("not a regular expression: {}", shorten(last))
                        }
                    };
                    self.report(
                        Diagnostic::error("E0512", text.span, message).label("not a regular expression"),
                    );
                    return None;
                }
                Some(PathMatch::Regex(text.value.to_owned()))
            }
        }
    }

    fn absolute_path(&mut self, node: &'n Node) -> Option<String> {
        let text = self.text(node, "a path")?;
        if text.value.starts_with('/') && !text.value.contains(char::is_whitespace) {
            return Some(text.value.to_owned());
        }
        let mut diagnostic =
            Diagnostic::error("E0507", text.span, format!("`{}` is not a path", shorten(text.value)))
                .label("not a path");
        diagnostic = diagnostic.help("a path begins with `/` and holds no white space");
        self.report(diagnostic);
        None
    }

    fn hosts(&mut self, node: &'n Node) -> Vec<String> {
        let mut hosts = Vec::new();
        for item in self.one_or_more(node) {
            let Some(text) = self.text(item, "a host") else { continue };
            let name = text.value.strip_prefix("*.").unwrap_or(text.value);
            let good = text.value == "*"
                || (!name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)));
            if good {
                hosts.push(text.value.to_ascii_lowercase());
            } else {
                self.report(
                    Diagnostic::error("E0506", text.span, format!("`{}` is not a host", shorten(text.value)))
                        .label("not a host")
                        .help("write `shop.example`, or `\"*.shop.example\"` for all below it"),
                );
            }
        }
        hosts
    }

    fn methods(&mut self, node: &'n Node) -> Vec<String> {
        let words = METHODS.map(|it| (it, it));
        let items = self.one_or_more(node);
        let methods = items.iter().filter_map(|item| self.choice(item, "an HTTP method", &words));
        methods.map(|it| it.value.to_owned()).collect()
    }

    /// `x-beta: "1"` wants the value, `x-beta: any` wants it to be there.
    fn conditions(&mut self, node: &'n Node, what: &str) -> Vec<(String, Option<String>)> {
        let mut conditions = Vec::new();
        for entry in self.entries(node, what) {
            let Some(value) = self.any_text(&entry.value, "a value, or `any`") else { continue };
            let value = (value.value != "any").then(|| value.value.to_owned());
            conditions.push((entry.key.to_string(), value));
        }
        conditions
    }

    fn targets(&mut self, node: &'n Node) -> Option<Action> {
        if node.as_map().is_none() {
            let text = self.text(node, "a service")?;
            let (service, version) = self.service_and_version(text.value, text.span)?;
            return Some(Action::To(vec![Target { service, version, weight: 1 }]));
        }
        let mut targets = Vec::new();
        let mut complete = true;
        let mut total: u64 = 0;
        for entry in self.entries(node, "services and weights") {
            let target = self.service_and_version(&entry.key, entry.key_span);
            let weight = self.count(&entry.value, "a weight", 0..=1_000_000);
            let (Some((service, version)), Some(weight)) = (target, weight) else {
                complete = false;
                continue;
            };
            total += u64::from(weight.value);
            targets.push(Target { service, version, weight: weight.value });
        }
        if complete && total == 0 {
            self.report(
                Diagnostic::error("E0404", node.span, "the weights of this route sum to zero")
                    .label("nobody would be asked"),
            );
            return None;
        }
        complete.then_some(Action::To(targets))
    }

    fn redirect(&mut self, node: &'n Node) -> Option<Action> {
        let mut f = self.fields(node, "a redirect")?;
        let to = f.require(self, "to", "/new").and_then(|it| self.owned(it, "where to"));
        let statuses = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
        let status = f.get("status").and_then(|it| self.choice(it, "the status of a redirect", &statuses));
        f.finish(self);
        Some(Action::Redirect { to: to?.value, status: status.map_or(301, |it| it.value) })
    }

    fn reply(&mut self, node: &'n Node) -> Option<Action> {
        let mut f = self.fields(node, "a reply")?;
        let status = f.get("status").and_then(|it| self.count(it, "a status", 200..=599));
        let body = f.get("body").and_then(|it| self.any_text(it, "a body"));
        f.finish(self);
        let status = status.and_then(|it| u16::try_from(it.value).ok()).unwrap_or(200);
        Some(Action::Reply { status, body: body.map_or(String::new(), |it| it.value.to_owned()) })
    }

    fn mirror(&mut self, node: &'n Node) -> Option<(ServiceId, Percent)> {
        let mut f = self.fields(node, "a mirror")?;
        let to = f.require(self, "to", "web").and_then(|it| {
            let text = self.text(it, "a service")?;
            self.service_named(text.value, text.span)
        });
        let share = f.get("share").and_then(|it| self.share(it, "a share"));
        f.finish(self);
        Some((to?, share.map_or(Percent::WHOLE, |it| it.value)))
    }
}
