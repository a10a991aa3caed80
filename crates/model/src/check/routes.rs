//! Whether a gateway's routes answer a request line, as far as the line tells: method and path.

use crate::system::{GatewayId, PathMatch, Route, System};

/// The compiled patterns of all gateways.
pub(super) struct Table {
    /// By gateway and route.
    patterns: Vec<Vec<Option<regex::Regex>>>,
}

impl Table {
    pub(super) fn new(system: &System) -> Self {
        let compile = |route: &Route| match &route.path {
            PathMatch::Regex(pattern) => regex::Regex::new(&format!("^(?:{pattern})$")).ok(),
            _ => None,
        };
        let patterns = system.gateways.iter().map(|it| it.routes.iter().map(compile).collect());
        Self { patterns: patterns.collect() }
    }

    pub(super) fn answers(&self, system: &System, gateway: GatewayId, request: &str) -> bool {
        let Some((method, path)) = request.split_once(' ') else { return false };
        let routes = &system.gateways[gateway].routes;
        routes.iter().zip(&self.patterns[gateway.index()]).any(|(route, pattern)| {
            let method_fits = route.methods.is_empty() || route.methods.iter().any(|it| it == method);
            method_fits && path_fits(&route.path, pattern.as_ref(), path)
        })
    }
}

/// Whether any route of the gateway answers `METHOD /path`.
pub fn answers(system: &System, gateway: GatewayId, request: &str) -> bool {
    Table::new(system).answers(system, gateway, request)
}

fn path_fits(route: &PathMatch, pattern: Option<&regex::Regex>, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    match route {
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Template(template) => {
            let (mut wanted, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given)) => {
                        let parameter = wanted.starts_with('{') && wanted.ends_with('}');
                        if !(wanted == given || (parameter && !given.is_empty())) {
                            return false;
                        }
                    }
                    _ => return false,
                }
            }
        }
        PathMatch::Regex(_) => pattern.is_some_and(|it| it.is_match(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_whole_segments() {
        let prefix = |it: &str| PathMatch::Prefix(it.to_owned());
        let template = |it: &str| PathMatch::Template(it.to_owned());
        for (route, path, expected) in [
            (prefix("/"), "/anything", true),
            (prefix("/api"), "/api", true),
            (prefix("/api"), "/api/x", true),
            (prefix("/api/"), "/api/x", true),
            (prefix("/api"), "/apix", false),
            (PathMatch::Exact("/login".into()), "/login?next=1", true),
            (PathMatch::Exact("/login".into()), "/login/", false),
            (template("/cart/{id}"), "/cart/7", true),
            (template("/cart/{id}"), "/cart/", false),
            (template("/cart/{id}"), "/cart/7/items", false),
        ] {
            assert_eq!(path_fits(&route, None, path), expected, "{route:?} {path}");
        }
    }
}
