//! Finding a route costs the same with five routes as with five thousand.
//!
//! Routes are filed by host, then by path: whole paths and hosts in hash tables, prefixes and templates in a tree of
//! path segments. What is left to compare one by one are routes with the very same host and path that differ in method,
//! headers, query or cookies.
//!
//! The most specific wins: a whole path, then a template, then a regular expression (in the file's order), then the
//! longest prefix; an exact host before a wildcard before none. Among equals the one with more conditions wins, then
//! the one written first. If the conditions of the most specific do not hold, the next is tried.
//!
//! The tree is persistent: inserting or removing a route copies the nodes on its path and shares the rest with the
//! snapshot that is running, so that changing a route costs in proportion to the change.

use crate::config::{self, PathMatch, ValueRule};
use crate::http1::{Kind, Method, RequestHead, classify, has_dot_segments};
use hashbrown::HashMap;
use regex::bytes::Regex;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::sync::Arc;

type Map<V> = HashMap<Arc<str>, V, foldhash::fast::FixedState>;

/// Deeper paths are matched by their first segments only.
const DEPTH_MAX: usize = 64;

/// What the router needs to know of a route: what it asks for and where it stands.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) order: u32,
    pub(crate) conditions: Conditions,
    pub(crate) regex: Option<Regex>,
    pub(crate) item: T,
}

/// Everything a route asks for beyond host and path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    methods: Vec<(Method, String)>,
    values: Vec<Condition>,
}

#[derive(Clone, Debug)]
pub(crate) struct Condition {
    source: Source,
    name: String,
    /// Known headers are found by their kind.
    kind: Kind,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Header,
    Query,
    Cookie,
}

#[derive(Clone, Debug)]
enum Rule {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

impl Condition {
    /// `None` for a regular expression that is none; a snapshot with one is refused before it gets here.
    pub(crate) fn new(source: Source, value: &config::ValueMatch) -> Option<Self> {
        let rule = match &value.rule {
            ValueRule::Present => Rule::Present,
            ValueRule::Absent => Rule::Absent,
            ValueRule::Exact(text) => Rule::Exact(text.clone()),
            ValueRule::Prefix(text) => Rule::Prefix(text.clone()),
            ValueRule::Regex(pattern) => Rule::Regex(anchored(pattern)?),
        };
        Some(Self { source, name: value.name.clone(), kind: classify(value.name.as_bytes()), rule })
    }

    pub(crate) fn holds(&self, request: &RequestHead, buffer: &[u8]) -> bool {
        let value = match self.source {
            Source::Header if self.kind != Kind::Other && self.kind != Kind::EnvoyFault => {
                request.find(self.kind, buffer)
            }
            Source::Header => request.find_name(&self.name, buffer),
            Source::Query => find_pair(request.query(buffer), b'&', &self.name),
            Source::Cookie => request
                .lines
                .iter()
                .filter(|line| line.kind == Kind::Cookie)
                .find_map(|line| find_pair(line.value.get(buffer), b';', &self.name)),
        };
        match (&self.rule, value) {
            (Rule::Absent, value) => value.is_none(),
            (_, None) => false,
            (Rule::Present, Some(_)) => true,
            (Rule::Exact(wanted), Some(value)) => value == wanted.as_bytes(),
            (Rule::Prefix(wanted), Some(value)) => value.starts_with(wanted.as_bytes()),
            (Rule::Regex(regex), Some(value)) => regex.is_match(value),
        }
    }
}

/// The value of `name` in `a=1&b=2` or `a=1; b=2`, as it was sent.
pub(crate) fn find_pair<'b>(pairs: &'b [u8], separator: u8, name: &str) -> Option<&'b [u8]> {
    pairs.split(|byte| *byte == separator).map(|pair| pair.trim_ascii()).find_map(|pair| {
        let rest = pair.strip_prefix(name.as_bytes())?;
        match rest {
            [] => Some(rest),
            [b'=', value @ ..] => Some(value),
            _ => None,
        }
    })
}

fn anchored(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

impl Conditions {
    pub(crate) fn new(matches: &config::Match) -> Option<Self> {
        let mut conditions = Self {
            methods: matches
                .methods
                .iter()
                .map(|name| (Method::parse(name.as_bytes()), name.clone()))
                .collect(),
            values: Vec::new(),
        };
        for (source, values) in [
            (Source::Header, &matches.headers),
            (Source::Query, &matches.query),
            (Source::Cookie, &matches.cookies),
        ] {
            for value in values {
                conditions.values.push(Condition::new(source, value)?);
            }
        }
        Some(conditions)
    }

    fn weight(&self) -> usize {
        self.values.len() + usize::from(!self.methods.is_empty())
    }

    #[inline]
    fn hold(&self, request: &RequestHead, buffer: &[u8]) -> bool {
        if !self.methods.is_empty()
            && !self.methods.iter().any(|(method, name)| {
                *method == request.method
                    && (*method != Method::Other || request.method_text.get(buffer) == name.as_bytes())
            })
        {
            return false;
        }
        self.values.iter().all(|condition| condition.holds(request, buffer))
    }
}

/// Routes with one host and one path, best first.
type Candidates<T> = SmallVec<[Arc<Entry<T>>; 1]>;

/// All routes of a listener.
#[derive(Debug)]
pub(crate) struct Router<T> {
    exact_hosts: Arc<Map<Arc<Paths<T>>>>,
    /// `*.example.com` under `.example.com`.
    wildcard_hosts: Arc<Map<Arc<Paths<T>>>>,
    any_host: Arc<Paths<T>>,
}

#[derive(Debug)]
struct Paths<T> {
    exact: Arc<Map<Candidates<T>>>,
    tree: Arc<Node<T>>,
    templates: usize,
    regexes: Arc<Vec<Arc<Entry<T>>>>,
}

#[derive(Debug)]
struct Node<T> {
    children: Arc<Map<Arc<Self>>>,
    parameter: Option<Arc<Self>>,
    /// Prefixes that end here.
    prefix: Candidates<T>,
    /// Templates that end here.
    template: Candidates<T>,
    /// Templates that end here with `{rest...}`.
    rest: Candidates<T>,
}

// By hand, because deriving would ask `T: Clone`, and everything is behind `Arc`.
impl<T> Clone for Router<T> {
    fn clone(&self) -> Self {
        Self {
            exact_hosts: self.exact_hosts.clone(),
            wildcard_hosts: self.wildcard_hosts.clone(),
            any_host: self.any_host.clone(),
        }
    }
}

impl<T> Clone for Paths<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            tree: self.tree.clone(),
            templates: self.templates,
            regexes: self.regexes.clone(),
        }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            children: self.children.clone(),
            parameter: self.parameter.clone(),
            prefix: self.prefix.clone(),
            template: self.template.clone(),
            rest: self.rest.clone(),
        }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { exact_hosts: Arc::default(), wildcard_hosts: Arc::default(), any_host: Arc::default() }
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: Arc::default(), tree: Arc::default(), templates: 0, regexes: Arc::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: Arc::default(),
            parameter: None,
            prefix: SmallVec::new(),
            template: SmallVec::new(),
            rest: SmallVec::new(),
        }
    }
}

/// Where in the tree a path pattern ends.
#[derive(Clone, Copy)]
enum End {
    Prefix,
    Template,
    Rest,
}

impl<T> Router<T> {
    /// Files a route. Its `Arc` is its identity: removing it takes the same one.
    pub(crate) fn insert(&mut self, matches: &config::Match, entry: &Arc<Entry<T>>) {
        self.edit(matches, &mut |paths| paths.insert(&matches.path, entry));
    }

    pub(crate) fn remove(&mut self, matches: &config::Match, entry: &Arc<Entry<T>>) {
        self.edit(matches, &mut |paths| paths.remove(&matches.path, entry));
        let hosts = matches.hosts.iter().map(|host| host.to_ascii_lowercase());
        for host in hosts {
            let (map, key) = match host.strip_prefix('*') {
                Some(suffix) => (&mut self.wildcard_hosts, suffix),
                None => (&mut self.exact_hosts, host.as_str()),
            };
            if map.get(key).is_some_and(|paths| paths.is_empty()) {
                Arc::make_mut(map).remove(key);
            }
        }
    }

    fn edit(&mut self, matches: &config::Match, change: &mut dyn FnMut(&mut Paths<T>)) {
        if matches.hosts.is_empty() {
            change(Arc::make_mut(&mut self.any_host));
        }
        for host in &matches.hosts {
            let host = host.to_ascii_lowercase();
            let (map, key) = match host.strip_prefix('*') {
                Some(suffix) => (&mut self.wildcard_hosts, suffix),
                None => (&mut self.exact_hosts, host.as_str()),
            };
            change(Arc::make_mut(Arc::make_mut(map).entry(key.into()).or_default()));
        }
    }

    /// The route of a request, if it has one.
    #[inline]
    pub(crate) fn find(&self, request: &RequestHead, buffer: &[u8]) -> Option<&Arc<Entry<T>>> {
        let path = request.path(buffer);
        if !self.exact_hosts.is_empty() || !self.wildcard_hosts.is_empty() {
            let mut lower = [0u8; 256];
            if let Some(host) = lower_host(request.host.get(buffer), &mut lower) {
                if let Some(paths) = self.exact_hosts.get(host)
                    && let Some(found) = paths.find(path, request, buffer)
                {
                    return Some(found);
                }
                if !self.wildcard_hosts.is_empty() {
                    // `a.b.c`: try `.b.c`, then `.c`. The longest suffix is the most specific.
                    for (at, _) in host.match_indices('.') {
                        if at > 0
                            && let Some(paths) = self.wildcard_hosts.get(&host[at..])
                            && let Some(found) = paths.find(path, request, buffer)
                        {
                            return Some(found);
                        }
                    }
                }
            }
        }
        self.any_host.find(path, request, buffer)
    }
}

/// The host without its port, in lower case. Hosts that are not text or too long match nothing.
fn lower_host<'l>(host: &[u8], lower: &'l mut [u8; 256]) -> Option<&'l str> {
    let without_port = match host.iter().rposition(|byte| *byte == b':') {
        Some(at) if !host[at..].contains(&b']') => &host[..at],
        _ => host,
    };
    let target = lower.get_mut(..without_port.len())?;
    target.copy_from_slice(without_port);
    target.make_ascii_lowercase();
    std::str::from_utf8(target).ok().map(|host| host.strip_suffix('.').unwrap_or(host))
}

impl<T> Paths<T> {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.regexes.is_empty() && self.tree.is_empty()
    }

    fn insert(&mut self, path: &PathMatch, entry: &Arc<Entry<T>>) {
        match path {
            PathMatch::Exact(path) => {
                let candidates = Arc::make_mut(&mut self.exact).entry(path.as_str().into()).or_default();
                add(candidates, entry);
            }
            PathMatch::Prefix(prefix) => {
                let segments = prefix_segments(prefix);
                add(self.candidates(&segments, End::Prefix), entry);
            }
            PathMatch::Template(template) => {
                let (segments, end) = template_segments(template);
                self.templates += 1;
                add(self.candidates(&segments, end), entry);
            }
            PathMatch::Regex(_) => {
                let regexes = Arc::make_mut(&mut self.regexes);
                let at = regexes.partition_point(|other| other.order <= entry.order);
                regexes.insert(at, entry.clone());
            }
        }
    }

    fn remove(&mut self, path: &PathMatch, entry: &Arc<Entry<T>>) {
        let gone = |candidates: &mut Candidates<T>| candidates.retain(|other| !Arc::ptr_eq(other, entry));
        match path {
            PathMatch::Exact(path) => {
                let exact = Arc::make_mut(&mut self.exact);
                if let Some(candidates) = exact.get_mut(path.as_str()) {
                    gone(candidates);
                    if candidates.is_empty() {
                        exact.remove(path.as_str());
                    }
                }
            }
            PathMatch::Prefix(prefix) => {
                let segments = prefix_segments(prefix);
                gone(self.candidates(&segments, End::Prefix));
                Arc::make_mut(&mut self.tree).prune(&segments);
            }
            PathMatch::Template(template) => {
                let (segments, end) = template_segments(template);
                self.templates = self.templates.saturating_sub(1);
                gone(self.candidates(&segments, end));
                Arc::make_mut(&mut self.tree).prune(&segments);
            }
            PathMatch::Regex(_) => {
                Arc::make_mut(&mut self.regexes).retain(|other| !Arc::ptr_eq(other, entry))
            }
        }
    }

    /// The list at the end of a pattern's segments, made on the way there. `None` stands for any one segment.
    fn candidates(&mut self, segments: &[Option<&str>], end: End) -> &mut Candidates<T> {
        let mut node = Arc::make_mut(&mut self.tree);
        for segment in segments {
            node = match segment {
                None => Arc::make_mut(node.parameter.get_or_insert_default()),
                Some(text) => {
                    let children = Arc::make_mut(&mut node.children);
                    Arc::make_mut(children.entry((*text).into()).or_default())
                }
            };
        }
        match end {
            End::Prefix => &mut node.prefix,
            End::Template => &mut node.template,
            End::Rest => &mut node.rest,
        }
    }

    fn find(&self, path: &[u8], request: &RequestHead, buffer: &[u8]) -> Option<&Arc<Entry<T>>> {
        let path = std::str::from_utf8(path).ok()?;
        if !self.exact.is_empty()
            && let Some(candidates) = self.exact.get(path)
            && let Some(found) = best(candidates, request, buffer)
        {
            return Some(found);
        }
        if self.templates > 0 {
            let mut segments: SmallVec<[&str; 16]> =
                path.strip_prefix('/').unwrap_or(path).split('/').collect();
            segments.truncate(DEPTH_MAX);
            if let Some(found) = self.tree.find_template(&segments, request, buffer) {
                return Some(found);
            }
        }
        for entry in self.regexes.iter() {
            if entry.regex.as_ref().is_some_and(|regex| regex.is_match(path.as_bytes()))
                && entry.conditions.hold(request, buffer)
            {
                return Some(entry);
            }
        }
        self.find_prefix(path, request, buffer)
    }

    fn find_prefix(&self, path: &str, request: &RequestHead, buffer: &[u8]) -> Option<&Arc<Entry<T>>> {
        let mut node = &*self.tree;
        // Nodes with prefixes on the way down; the deepest whose conditions hold wins.
        let mut passed: SmallVec<[&Candidates<T>; 8]> = SmallVec::new();
        if !node.prefix.is_empty() {
            passed.push(&node.prefix);
        }
        for segment in path.strip_prefix('/').unwrap_or(path).split('/').take(DEPTH_MAX) {
            if node.children.is_empty() {
                break;
            }
            let Some(child) = node.children.get(segment) else { break };
            node = child;
            if !node.prefix.is_empty() {
                passed.push(&node.prefix);
            }
        }
        passed.iter().rev().find_map(|candidates| best(candidates, request, buffer))
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.parameter.is_none()
            && self.prefix.is_empty()
            && self.template.is_empty()
            && self.rest.is_empty()
    }

    /// Removes nodes along a pattern that hold nothing any more.
    fn prune(&mut self, segments: &[Option<&str>]) {
        let Some((first, rest)) = segments.split_first() else { return };
        match first {
            None => {
                if let Some(child) = &mut self.parameter {
                    Arc::make_mut(child).prune(rest);
                    if child.is_empty() {
                        self.parameter = None;
                    }
                }
            }
            Some(text) => {
                let children = Arc::make_mut(&mut self.children);
                if let Some(child) = children.get_mut(*text) {
                    Arc::make_mut(child).prune(rest);
                    if child.is_empty() {
                        children.remove(*text);
                    }
                }
            }
        }
    }

    fn find_template(
        &self,
        segments: &[&str],
        request: &RequestHead,
        buffer: &[u8],
    ) -> Option<&Arc<Entry<T>>> {
        let Some((first, rest)) = segments.split_first() else {
            return best(&self.template, request, buffer);
        };
        if let Some(child) = self.children.get(*first)
            && let Some(found) = child.find_template(rest, request, buffer)
        {
            return Some(found);
        }
        // An empty segment is no value for a parameter.
        if !first.is_empty()
            && let Some(child) = &self.parameter
            && let Some(found) = child.find_template(rest, request, buffer)
        {
            return Some(found);
        }
        best(&self.rest, request, buffer)
    }
}

fn add<T>(candidates: &mut Candidates<T>, entry: &Arc<Entry<T>>) {
    let key = |entry: &Entry<T>| (Reverse(entry.conditions.weight()), entry.order);
    let at = candidates.partition_point(|other| key(other) <= key(entry));
    candidates.insert(at, entry.clone());
}

#[inline]
fn best<'c, T>(
    candidates: &'c Candidates<T>,
    request: &RequestHead,
    buffer: &[u8],
) -> Option<&'c Arc<Entry<T>>> {
    candidates.iter().find(|entry| entry.conditions.hold(request, buffer))
}

/// `/a/b` and `/a/b/` are the same prefix; `/` is the empty one.
fn prefix_segments(prefix: &str) -> Vec<Option<&str>> {
    let trimmed = prefix.trim_matches('/');
    if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').take(DEPTH_MAX).map(Some).collect() }
}

fn template_segments(template: &str) -> (Vec<Option<&str>>, End) {
    let mut segments: Vec<Option<&str>> = Vec::new();
    for segment in template.strip_prefix('/').unwrap_or(template).split('/').take(DEPTH_MAX) {
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if name.ends_with("...") => return (segments, End::Rest),
            Some(_) => segments.push(None),
            None => segments.push(Some(segment)),
        }
    }
    (segments, End::Template)
}

impl<T> Entry<T> {
    /// `None` if the route does not compile, which [`config::Config::check`] reports first.
    pub(crate) fn new(order: u32, matches: &config::Match, item: T) -> Option<Arc<Self>> {
        let regex = match &matches.path {
            PathMatch::Regex(pattern) => Some(anchored(pattern)?),
            _ => None,
        };
        Some(Arc::new(Self { order, conditions: Conditions::new(matches)?, regex, item }))
    }
}

/// Whether a rewritten path is still one we would have let in.
pub(crate) fn is_safe_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/')
        && !has_dot_segments(path)
        && path.iter().all(|byte| (0x21..0x7F).contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Match, ValueMatch};
    use crate::http1::{HeadLimits, Progress, parse_request};

    fn router(routes: &[(&str, Match)]) -> Router<String> {
        let mut router = Router::default();
        for (order, (name, matches)) in routes.iter().enumerate() {
            let entry = Entry::new(order as u32, matches, (*name).to_owned()).expect("compiles");
            router.insert(matches, &entry);
        }
        router
    }

    #[track_caller]
    fn check(router: &Router<String>, request: &str, expected: &str) {
        let (target, headers) = request.split_once('\n').unwrap_or((request, "host: x"));
        let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
        let text = format!("{method} {target} HTTP/1.1\r\n{}\r\n\r\n", headers.replace('\n', "\r\n"));
        let mut head = RequestHead::default();
        assert_eq!(
            parse_request(text.as_bytes(), &HeadLimits::default(), &mut head),
            Ok(Progress::Complete),
            "{text}"
        );
        let found = router.find(&head, text.as_bytes()).map_or("none", |entry| entry.item.as_str());
        assert_eq!(found, expected, "{request}");
    }

    fn at(path: PathMatch) -> Match {
        Match { path, ..Match::default() }
    }
    fn prefix(path: &str) -> Match {
        at(PathMatch::Prefix(path.into()))
    }

    #[test]
    fn the_most_specific_path_wins() {
        let router = router(&[
            ("root", prefix("/")),
            ("api", prefix("/api/")),
            ("v1", prefix("/api/v1")),
            ("exact", at(PathMatch::Exact("/api/v1/ping".into()))),
            ("user", at(PathMatch::Template("/users/{id}".into()))),
            ("me", at(PathMatch::Template("/users/me".into()))),
            ("orders", at(PathMatch::Template("/users/{id}/orders/{order}".into()))),
            ("files", at(PathMatch::Template("/files/{rest...}".into()))),
            ("numbers", at(PathMatch::Regex("/api/[0-9]+".into()))),
        ]);
        check(&router, "/", "root");
        check(&router, "/apiary", "root");
        check(&router, "/api", "api");
        check(&router, "/api/", "api");
        check(&router, "/api/v1", "v1");
        check(&router, "/api/v10", "api");
        check(&router, "/api/v1/ping", "exact");
        check(&router, "/api/v1/ping?x=1", "exact");
        check(&router, "/api/v1/ping/", "v1");
        check(&router, "/api/77", "numbers");
        check(&router, "/api/77x", "api");
        check(&router, "/users/7", "user");
        check(&router, "/users/me", "me");
        check(&router, "/users/me/orders/1", "orders");
        check(&router, "/users/", "root");
        check(&router, "/users/7/orders", "root");
        check(&router, "/files/a/b/c", "files");
        check(&router, "/files", "root");
    }

    #[test]
    fn hosts_go_from_exact_to_wildcard_to_any() {
        let host = |hosts: &[&str], path: &str| Match {
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            ..prefix(path)
        };
        let router = router(&[
            ("any", prefix("/")),
            ("exact", host(&["Shop.example", "store.example"], "/")),
            ("wild", host(&["*.shop.example"], "/")),
            ("deeper", host(&["*.eu.shop.example"], "/only")),
        ]);
        check(&router, "/\nhost: shop.EXAMPLE:8080", "exact");
        check(&router, "/\nhost: store.example.", "exact");
        check(&router, "/\nhost: a.shop.example", "wild");
        check(&router, "/only\nhost: a.eu.shop.example", "deeper");
        check(&router, "/\nhost: a.eu.shop.example", "wild");
        check(&router, "/\nhost: other", "any");
        check(&router, "/\nhost: [::1]:80", "any");
    }

    #[test]
    fn conditions_choose_among_equal_paths() {
        let value = |name: &str, rule| vec![ValueMatch { name: name.into(), rule }];
        let router = router(&[
            ("plain", prefix("/")),
            ("post", Match { methods: vec!["POST".into(), "PURGE".into()], ..prefix("/") }),
            ("beta", Match { headers: value("X-Beta", ValueRule::Exact("1".into())), ..prefix("/") }),
            ("query", Match { query: value("v", ValueRule::Regex("[0-9]+".into())), ..prefix("/q") }),
            ("cookie", Match { cookies: value("who", ValueRule::Prefix("a".into())), ..prefix("/c") }),
            ("agentless", Match { headers: value("user-agent", ValueRule::Absent), ..prefix("/u") }),
        ]);
        check(&router, "/", "plain");
        check(&router, "POST /", "post");
        check(&router, "PURGE /", "post");
        check(&router, "MERGE /", "plain");
        check(&router, "/\nhost: x\nx-beta: 1", "beta");
        check(&router, "/\nhost: x\nx-beta: 12", "plain");
        check(&router, "/q?a=1&v=22", "query");
        check(&router, "/q?a=1&v=x", "plain");
        check(&router, "/c\nhost: x\ncookie: b=2; who=ann", "cookie");
        check(&router, "/c\nhost: x\ncookie: b=2; whom=ann", "plain");
        check(&router, "/u", "agentless");
        check(&router, "/u\nhost: x\nuser-agent: y", "plain");
    }

    #[test]
    fn removing_leaves_the_old_snapshot_alone_and_the_new_one_clean() {
        let matches: Vec<Match> = (0..50)
            .map(|n| match n % 4 {
                0 => prefix(&format!("/p/{n}")),
                1 => at(PathMatch::Exact(format!("/e/{n}"))),
                2 => at(PathMatch::Template(format!("/t/{{x}}/{n}"))),
                _ => Match { hosts: vec![format!("h{n}.example")], ..prefix("/") },
            })
            .collect();
        let mut router = Router::default();
        let entries: Vec<_> =
            matches.iter().map(|matches| Entry::new(0, matches, String::new()).expect("compiles")).collect();
        matches.iter().zip(&entries).for_each(|(matches, entry)| router.insert(matches, entry));
        let before = router.clone();
        matches.iter().zip(&entries).for_each(|(matches, entry)| router.remove(matches, entry));
        assert!(router.any_host.is_empty() && router.exact_hosts.is_empty());
        check(&before, "/e/1", "");
        check(&router, "/e/1", "none");
    }
}
