//! Rules about where the world comes in.

use super::Facts;
use super::report::{Report, Subject, Tell};
use crate::system::{Caller, PathMatch, Route};
use std::collections::HashMap;

/// L023. The first route that matches wins; a later one that matches nothing else is dead.
///
/// Not every pair is compared: what can shadow a path is a prefix of it, an equal path or an equal template, so each
/// is looked up by name. Five thousand routes are five thousand short walks up their own paths.
pub(super) fn shadowed(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (id, gateway) in facts.system.gateways.enumerate() {
        let mut earlier: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, route) in gateway.routes.iter().enumerate() {
            let shadow = keys_that_cover(&route.path)
                .iter()
                .filter_map(|key| earlier.get(key))
                .flatten()
                .copied()
                .filter(|it| conditions_cover(&gateway.routes[*it], route))
                .min();
            if let Some(by) = shadow
                && !report.accepts(Subject::Gateway(id))
            {
                report
                    .push(
                        route.span,
                        format!(
                            "no request gets to this route of `{}`: an earlier one takes all it matches",
                            gateway.name.value
                        ),
                    )
                    .say("never used")
                    .fix("put the narrower route first, or remove one of the two")
                    .see(Some(gateway.routes[by].span), "this route comes first");
            }
            earlier.entry(own_key(&route.path)).or_default().push(at);
        }
    }
}

fn own_key(path: &PathMatch) -> String {
    match path {
        PathMatch::Prefix(path) => format!("prefix {}", path.trim_end_matches('/')),
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Template(path) => format!("template {}", anonymous(path)),
        PathMatch::Regex(pattern) => format!("regex {pattern}"),
    }
}

/// `/cart/{id}` and `/cart/{key}` match the same requests.
fn anonymous(template: &str) -> String {
    let named = |segment: &str| {
        if segment.starts_with('{') && segment.ends_with('}') {
            "{}".to_string()
        } else {
            segment.to_string()
        }
    };
    template.split('/').map(named).collect::<Vec<_>>().join("/")
}

/// Keys of routes that match everything this path matches.
fn keys_that_cover(path: &PathMatch) -> Vec<String> {
    let mut keys = vec![own_key(path), "prefix ".to_string()];
    let literal = match path {
        PathMatch::Prefix(path) | PathMatch::Exact(path) => path.as_str(),
        PathMatch::Template(path) => path.split('{').next().unwrap_or(""),
        PathMatch::Regex(_) => "",
    };
    let whole = literal.trim_end_matches('/');
    // Only whole segments count; a template's literal part ends before its first parameter.
    for (end, _) in whole.match_indices('/').skip(1) {
        keys.push(format!("prefix {}", &whole[..end]));
    }
    if !whole.is_empty() {
        keys.push(format!("prefix {whole}"));
    }
    if let PathMatch::Exact(path) = path {
        // An exact path with the shape of an earlier template: the template takes it.
        let segments: Vec<&str> = path.split('/').collect();
        for at in 1..segments.len() {
            let mut shape = segments.clone();
            shape[at] = "{}";
            keys.push(format!("template {}", shape.join("/")));
        }
    }
    keys
}

/// Whether every request that meets `later`'s other conditions meets `earlier`'s too.
fn conditions_cover(earlier: &Route, later: &Route) -> bool {
    let hosts = earlier.hosts.is_empty()
        || (!later.hosts.is_empty()
            && later.hosts.iter().all(|it| earlier.hosts.iter().any(|by| host_covers(by, it))));
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|it| earlier.methods.contains(it)));
    let among = |needed: &[(String, Option<String>)], given: &[(String, Option<String>)]| {
        needed.iter().all(|(name, value)| {
            given
                .iter()
                .any(|(other, other_value)| name == other && (value.is_none() || value == other_value))
        })
    };
    hosts
        && methods
        && among(&earlier.headers, &later.headers)
        && among(&earlier.query, &later.query)
        && among(&earlier.cookies, &later.cookies)
}

fn host_covers(by: &str, host: &str) -> bool {
    by == host
        || by == "*"
        || by.strip_prefix('*').is_some_and(|suffix| suffix.starts_with('.') && host.ends_with(suffix))
}

/// L045. Traffic that no route takes is answered 404 by the gateway, and says nothing about the system.
pub(super) fn without_route(facts: &Facts<'_>, report: &mut Report<'_>) {
    for id in &facts.flow.unrouted {
        let traffic = &facts.system.traffic[*id];
        let Caller::Gateway(gateway) = traffic.to.value else { continue };
        if report.accepts(Subject::Gateway(gateway)) {
            continue;
        }
        let request = traffic.request.as_ref().map_or("GET /", |it| it.value.as_str());
        let name = &facts.system.gateways[gateway].name;
        report
            .push(
                traffic.request.as_ref().map_or(traffic.to.span, |it| it.span),
                format!(
                    "no route of `{}` takes `{request}`, so the traffic `{}` gets nothing but errors",
                    name.value, traffic.name.value
                ),
            )
            .say("not found")
            .fix("add a route for it, or correct the request")
            .see(Some(name.span), "its routes");
    }
}
