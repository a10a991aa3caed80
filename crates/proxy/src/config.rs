//! The snapshot a proxy runs: plain data that can be printed, compared and sent.
//!
//! Nothing here knows a file or a model; `control` compiles one into this. Names tie the parts together, because names
//! survive a reload and positions do not: what has the same name and is equal keeps its connections, its statistics and
//! its balancer's memory. The parts sit behind `Arc` so that a new snapshot shares what did not change, and finding out
//! what did costs one comparison of addresses for each part.
//!
//! [`Config::check`] finds every mistake that would make a snapshot unusable. A proxy never runs one that fails it.

use policy::settings::EdgeSettings;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use units::{Bytes, Nanos, Percent, Rate};

/// Everything a proxy is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where this came from, for people: a file's name, a control plane's address.
    pub source: String,
    /// Who we are, in `Via`, in traces and in the access log.
    pub node: Node,
    pub listeners: Vec<Arc<Listener>>,
    pub edges: Vec<Arc<Edge>>,
    pub services: Vec<Arc<Service>>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub access_log: Option<AccessLog>,
    /// Of the traces that begin here; those that come in were decided on elsewhere.
    pub trace_share: Percent,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub zone: String,
    pub region: String,
}

/// A door: an address and what happens to those who come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Also the caller's name in edges and errors: `edge`, or the service whose outbound door this is.
    pub name: String,
    pub address: SocketAddr,
    pub kind: ListenerKind,
    pub tls: Option<TlsServer>,
    /// Callers are inside our own system: their request ids, deadlines, traces and forwarding headers are believed.
    pub trusts_headers: bool,
    /// A door of the whole system, counted under this name whoever answers; `None` for an inner door.
    pub gateway: Option<String>,
    pub routes: Vec<Arc<Route>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ListenerKind {
    /// HTTP/1.1, HTTP/1.0 and HTTP/2; the client's first bytes tell which.
    Http,
    /// Bytes both ways to one edge.
    Tcp { edge: String },
    /// TLS passed through unopened, to an edge chosen by the server name the client asked for.
    TlsPassthrough { by_name: Vec<(String, String)>, fallback: Option<String> },
}

/// Certificates of a listener. Files are read again when they change.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsServer {
    pub certificates: Vec<Certificate>,
    /// Ask for client certificates signed by these; without one the handshake fails if `client_required`.
    pub client_roots: Option<PathBuf>,
    pub client_required: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// How we speak TLS to a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsClient {
    /// The name to ask for and to verify; the endpoint's host when empty.
    pub server_name: String,
    /// `None` trusts what the machine trusts.
    pub roots: Option<PathBuf>,
    pub certificate: Option<Certificate>,
    /// For tests and desperate evenings. Counted and shown.
    pub insecure_skip_verify: bool,
}

/// What to do with requests that match.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: String,
    /// What a request that comes here asks for, as numbers and spans name it: `GET /cart/{id}`. Empty when any may come.
    pub operation: String,
    pub matches: Match,
    pub action: Action,
    pub rewrite: Rewrite,
    pub mirror: Option<Mirror>,
    pub fault: Fault,
    pub rate_limit: Option<policy::settings::RateLimit>,
}

/// All of these must hold; what is empty always does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// `shop.example`, `*.shop.example`; no port.
    pub hosts: Vec<String>,
    pub path: PathMatch,
    pub methods: Vec<String>,
    pub headers: Vec<ValueMatch>,
    pub query: Vec<ValueMatch>,
    pub cookies: Vec<ValueMatch>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments: `/a` covers `/a` and `/a/b`, never `/ab`.
    Prefix(String),
    /// `/users/{id}/orders`: a name in braces stands for one segment; `{rest...}` at the end for all that follow.
    Template(String),
    /// Anchored at both ends, linear in time.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValueMatch {
    pub name: String,
    pub rule: ValueRule,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueRule {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Regex(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Forward(Vec<Target>),
    Redirect(Redirect),
    Reply(Reply),
}

/// One of the places a request may go, with its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub edge: String,
    pub weight: u32,
    /// Only instances of this version.
    pub version: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub status: u16,
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub path: Option<PathEdit>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathEdit {
    /// The whole path; the query stays.
    Replace(String),
    /// The matched prefix.
    ReplacePrefix(String),
    /// Every match of the pattern; `$1` is a group.
    Regex { pattern: String, replacement: String },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    pub path: Option<PathEdit>,
    pub host: Option<String>,
    pub request: HeaderEdit,
    pub response: HeaderEdit,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdit {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}

/// A copy of some requests, sent and forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub edge: String,
    pub share: Percent,
}

/// Trouble made on purpose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    /// Bytes a second of the response.
    pub bandwidth: Option<FaultBandwidth>,
    /// Clients may ask with `x-envoy-fault-*`, up to these shares.
    pub from_headers: Option<Percent>,
    /// Only requests that have these.
    pub only: Vec<ValueMatch>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FaultDelay {
    pub delay: Nanos,
    pub share: Percent,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FaultAbort {
    pub kind: AbortKind,
    pub share: Percent,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FaultBandwidth {
    pub bytes_per_second: u64,
    pub share: Percent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortKind {
    Status(u16),
    Grpc(u8),
    /// The connection, without an answer.
    Reset,
}

/// Calls from one caller to one service, and every decision about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// `web->cart`.
    pub name: String,
    pub service: String,
    /// Who calls and who is called, as numbers and spans name them; the service's own name if empty.
    pub caller: String,
    pub callee: String,
    pub settings: EdgeSettings,
    /// Where the caller stands, when that is not where the proxy does: one proxy may serve callers of several zones.
    pub home: Option<Home>,
    /// To instances that are further than the next socket, or troubled; in order of their addresses.
    pub ways: Vec<Way>,
}

/// What lies between a caller and one instance beyond this machine's own wires.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    pub to: SocketAddr,
    /// There and back together.
    pub delay: Nanos,
    pub jitter: Percent,
    /// Of packets: each that is lost is sent again, after 200 ms and twice as long each time.
    pub loss: Percent,
    /// Answers that fail with 500 in the instance's stead.
    pub errors: Percent,
    /// Nothing passes: whoever asks waits until its deadline.
    pub cut: bool,
}

impl Way {
    /// A way without anything in it.
    pub fn to(to: SocketAddr) -> Self {
        let none = Percent::ZERO;
        Self { to, delay: Nanos::ZERO, jitter: none, loss: none, errors: none, cut: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub region: String,
    pub zone: String,
}

/// Something that answers, at one or many places.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    pub protocol: Protocol,
    pub tls: Option<TlsClient>,
    pub endpoints: Vec<Endpoint>,
    pub health: Option<HealthCheck>,
    pub connect_timeout: Nanos,
    /// Idle connections are closed after this, or one second before the time the server promised.
    pub idle_timeout: Nanos,
    /// How often names are resolved again.
    pub dns_refresh: Nanos,
    /// What waits when every connection an edge allows is busy.
    pub queue: policy::settings::Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: Address,
    pub version: String,
    pub zone: String,
    pub region: String,
    pub weight: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// Resolved off the data path; each address becomes an endpoint.
    Name(String, u16),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub kind: HealthKind,
    pub interval: Nanos,
    pub timeout: Nanos,
    /// Failures in a row that make an instance unhealthy. An unexpected status does so at once.
    pub unhealthy_after: u32,
    pub healthy_after: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    /// A GET that must answer with a status in the range.
    Http {
        path: String,
        host: String,
        status_min: u16,
        status_max: u16,
    },
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        service: String,
    },
}

/// Everything that can grow, and how far. Shares of a worker are the whole divided by the workers, rounded up.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub connections: u32,
    pub connections_per_source: u32,
    pub streams_per_connection: u32,
    pub head_bytes: Bytes,
    pub target_bytes: Bytes,
    pub headers: u32,
    /// `None` lets bodies of any length through; they are never held whole.
    pub request_body_bytes: Option<Bytes>,
    /// Of one request's body, kept so that a retry can send it again. A longer one is sent on and cannot be sent again.
    pub replay_bytes: Bytes,
    /// The same of all requests together.
    pub replay_bytes_total: Bytes,
    /// Requests that one instance is given at once, whatever it seems able to bear.
    pub requests_per_instance: u32,
    /// Requests that wait for an instance.
    pub pending: u32,
    pub retries_in_flight: u32,
    pub mirrors_in_flight: u32,
    pub requests_per_connection: Option<u64>,
    /// Resident memory above which the proxy first refuses keep-alive, at 105 % new requests, at 110 % connections.
    pub memory: Option<Bytes>,
}

/// How long we wait for a peer to do its part.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// From a request's first byte to the end of its head. Slowloris ends here.
    pub header_read: Nanos,
    /// Between two reads of a request's body.
    pub body_read: Nanos,
    /// Between two writes that a client takes. Slow readers end here.
    pub write: Nanos,
    /// A connection without a request.
    pub keep_alive: Nanos,
    /// A response or tunnel without a byte either way.
    pub stream_idle: Nanos,
    /// An instance of HTTP/2 that owes an answer and says nothing for this long is asked whether it is there. After as long
    /// again without an answer its connection is given up.
    pub silence: Nanos,
    /// Without an edge's own timeout: the whole request.
    pub request: Nanos,
    /// After a drain was asked for, connections that are still busy are closed.
    pub drain: Nanos,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub share: Percent,
    /// Lines waiting for the writer; more are dropped and counted.
    pub lines_max: u32,
}

/// A mistake that makes a snapshot unusable: where, what, and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: String,
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Mistake {}

impl Config {
    /// Every mistake, not only the first.
    pub fn check(&self) -> Result<(), Vec<Mistake>> {
        self.check_since(None)
    }

    /// The same, next to a snapshot that was checked before: a route that is the very same is not looked at again as long
    /// as the edges are the same, too.
    pub(crate) fn check_since(&self, before: Option<&Self>) -> Result<(), Vec<Mistake>> {
        let same_edges = |before: &&Self| {
            before.edges.len() == self.edges.len()
                && before.edges.iter().zip(&self.edges).all(|(before, now)| Arc::ptr_eq(before, now))
        };
        let before = before.filter(same_edges);
        let mut mistakes = Vec::new();
        let mut say = |place: String, message: String| mistakes.push(Mistake { place, message });
        let mut names = hashbrown::HashSet::<&str, foldhash::fast::RandomState>::default();
        for service in &self.services {
            if !names.insert(&service.name) {
                say(format!("service `{}`", service.name), "is there twice".into());
            }
        }
        let mut edges = hashbrown::HashSet::<&str, foldhash::fast::RandomState>::default();
        for edge in &self.edges {
            let place = || format!("edge `{}`", edge.name);
            if !edges.insert(&edge.name) {
                say(place(), "is there twice".into());
            }
            if !names.contains(edge.service.as_str()) {
                say(place(), format!("no service is called `{}`", edge.service));
            }
        }
        let known = |edge: &str| edges.contains(edge);
        let mut doors = hashbrown::HashSet::<&str, foldhash::fast::RandomState>::default();
        for listener in &self.listeners {
            let place = || format!("listener `{}`", listener.name);
            if !doors.insert(&listener.name) {
                say(place(), "is there twice".into());
            }
            match &listener.kind {
                ListenerKind::Http => {}
                ListenerKind::Tcp { edge } if known(edge) => {}
                ListenerKind::Tcp { edge } => say(place(), format!("no edge is called `{edge}`")),
                ListenerKind::TlsPassthrough { by_name, fallback } => {
                    for edge in by_name.iter().map(|(_, edge)| edge).chain(fallback) {
                        if !known(edge) {
                            say(place(), format!("no edge is called `{edge}`"));
                        }
                    }
                }
            }
            let checked = before.and_then(|it| it.listeners.iter().find(|it| it.name == listener.name));
            for (at, route) in listener.routes.iter().enumerate() {
                let known_good = checked.and_then(|listener| listener.routes.get(at));
                if known_good.is_some_and(|good| Arc::ptr_eq(good, route)) {
                    continue;
                }
                for message in route.mistakes(&known) {
                    say(format!("listener `{}` route `{}`", listener.name, route.name), message);
                }
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

impl Route {
    /// Forwards everything under `path` to `edge`: the shortest useful route.
    pub fn forward(name: &str, path: PathMatch, edge: &str) -> Self {
        Self {
            name: name.into(),
            operation: String::new(),
            matches: Match { path, ..Match::default() },
            action: Action::Forward(vec![Target { edge: edge.into(), weight: 1, version: None }]),
            rewrite: Rewrite::default(),
            mirror: None,
            fault: Fault::default(),
            rate_limit: None,
        }
    }

    fn mistakes(&self, known: &impl Fn(&str) -> bool) -> Vec<String> {
        let mut mistakes = Vec::new();
        match &self.action {
            Action::Forward(targets) => {
                if targets.iter().all(|target| target.weight == 0) {
                    mistakes.push("has no target with a weight above zero".into());
                }
                for target in targets.iter().filter(|target| !known(&target.edge)) {
                    mistakes.push(format!("no edge is called `{}`", target.edge));
                }
            }
            Action::Redirect(redirect) if !(300..400).contains(&redirect.status) => {
                mistakes.push(format!("{} is no status of a redirect", redirect.status));
            }
            Action::Reply(reply) if !(200..600).contains(&reply.status) => {
                mistakes.push(format!("{} is no status of a reply", reply.status));
            }
            Action::Redirect(_) | Action::Reply(_) => {}
        }
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| !known(&mirror.edge)) {
            mistakes.push(format!("mirror: no edge is called `{}`", mirror.edge));
        }
        let path = match &self.matches.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template(path) => path,
            PathMatch::Regex(pattern) => {
                check_regex(pattern, &mut mistakes);
                "/"
            }
        };
        if !path.starts_with('/') {
            mistakes.push(format!("path `{path}` does not begin with `/`"));
        }
        let rules = self.matches.headers.iter().chain(&self.matches.query).chain(&self.matches.cookies);
        for rule in rules.chain(&self.fault.only) {
            if let ValueRule::Regex(pattern) = &rule.rule {
                check_regex(pattern, &mut mistakes);
            }
        }
        if let Some(PathEdit::Regex { pattern, .. }) = &self.rewrite.path {
            check_regex(pattern, &mut mistakes);
        }
        for edit in [&self.rewrite.request, &self.rewrite.response] {
            for (name, value) in edit.set.iter().chain(&edit.add) {
                // A line end in a value would let a file's author, or whoever fills it in, write a second response.
                let clean =
                    value.bytes().all(|byte| byte == b'\t' || (0x20..0x7F).contains(&byte) || byte >= 0x80);
                let token = !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
                if !clean || !token {
                    mistakes.push(format!("`{name}: {value}` is no header line"));
                }
            }
        }
        mistakes
    }
}

fn check_regex(pattern: &str, mistakes: &mut Vec<String>) {
    if let Err(error) = regex::bytes::Regex::new(pattern) {
        mistakes.push(format!("`{pattern}` is no regular expression: {error}"));
    }
}

impl Service {
    /// An HTTP/1 service at known addresses.
    pub fn http1(name: &str, addresses: &[SocketAddr]) -> Self {
        Self {
            name: name.into(),
            protocol: Protocol::Http1,
            tls: None,
            endpoints: addresses.iter().map(|address| Endpoint::at(Address::Ip(*address))).collect(),
            health: None,
            connect_timeout: Nanos::from_secs(5),
            idle_timeout: Nanos::from_secs(60),
            dns_refresh: Nanos::from_secs(5),
            queue: policy::settings::Queue::default(),
        }
    }
}

impl Endpoint {
    pub fn at(address: Address) -> Self {
        Self { address, version: String::new(), zone: String::new(), region: String::new(), weight: 1 }
    }
}

impl Edge {
    pub fn new(caller: &str, service: &str, settings: EdgeSettings) -> Self {
        Self {
            name: format!("{caller}->{service}"),
            service: service.into(),
            caller: caller.into(),
            callee: String::new(),
            settings,
            home: None,
            ways: Vec::new(),
        }
    }

    pub(crate) fn way_to(&self, address: SocketAddr) -> Option<&Way> {
        let at = self.ways.binary_search_by_key(&address, |it| it.to).ok()?;
        self.ways.get(at)
    }
}

impl Listener {
    pub fn http(name: &str, address: SocketAddr, routes: Vec<Route>) -> Self {
        Self {
            name: name.into(),
            address,
            kind: ListenerKind::Http,
            tls: None,
            trusts_headers: true,
            gateway: None,
            routes: routes.into_iter().map(Arc::new).collect(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: String::new(),
            node: Node::default(),
            listeners: Vec::new(),
            edges: Vec::new(),
            services: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            access_log: None,
            trace_share: Percent::WHOLE,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "isobar".into(), zone: String::new(), region: String::new() }
    }
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            // Off by default: behind a balancer all clients come from one address.
            connections_per_source: u32::MAX,
            streams_per_connection: 256,
            head_bytes: Bytes::from_kib(16),
            target_bytes: Bytes::from_kib(8),
            headers: 100,
            request_body_bytes: None,
            replay_bytes: Bytes::from_kib(64),
            replay_bytes_total: Bytes::from_mib(32),
            requests_per_instance: 16_384,
            pending: 1_024,
            retries_in_flight: 256,
            mirrors_in_flight: 64,
            requests_per_connection: None,
            memory: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_read: Nanos::from_secs(10),
            body_read: Nanos::from_secs(30),
            write: Nanos::from_secs(30),
            keep_alive: Nanos::from_secs(75),
            stream_idle: Nanos::from_secs(300),
            silence: Nanos::from_secs(15),
            request: Nanos::from_secs(60),
            drain: Nanos::from_secs(30),
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: HealthKind::Tcp,
            interval: Nanos::from_secs(5),
            timeout: Nanos::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { share: Percent::WHOLE, lines_max: 8_192 }
    }
}

/// What a rate limit without a burst means: one tenth of a second's worth, at least one.
pub fn default_burst(rate: Rate) -> u32 {
    (rate.per_second() / 10.0).ceil().max(1.0) as u32
}
