//! What a synthetic service does, as plain data compiled from the model: no ids of a file, only indexes of its own.

use model::system::{self, Kind, Protocol, ServiceId, System};
use policy::settings::Queue;
use std::collections::BTreeMap;
use units::{Bytes, Dist, Nanos, Percent, Sampler};

#[derive(Clone, Debug)]
pub struct Behaviour {
    pub service: String,
    pub kind: Kind,
    pub wire: Wire,
    pub concurrency: Option<u32>,
    pub queue: Queue,
    /// Factor on all work.
    pub work_factor: f64,
    /// The part of work that computes; the rest waits.
    pub burn: Percent,
    pub operations: Vec<Operation>,
    /// Answered at once with 200, without work, a place or a queue.
    pub health_path: Option<String>,
    pub cache: Option<Cache>,
    pub consumers: Vec<Call>,
    /// Requests a queue keeps before it refuses.
    pub messages_max: usize,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    Http2,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub name: String,
    pub line: RequestLine,
    pub work: Sampler,
    pub script: Vec<Step>,
    pub response: Bytes,
    pub errors: Percent,
    pub writes: bool,
}

/// How an operation is asked for over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    pub method: String,
    /// `None` in braces: any segment.
    pub segments: Vec<Option<String>>,
    pub grpc: bool,
}

#[derive(Clone, Debug)]
pub enum Step {
    Call(Call),
    All(Vec<Step>),
    Work(Sampler),
}

#[derive(Clone, Debug)]
pub struct Call {
    /// The service's name: also the key of its address.
    pub service: String,
    pub wire: Wire,
    /// One of these, in turn of luck: the operation named, or all of the callee's.
    pub lines: Vec<(RequestLine, Bytes)>,
    pub optional: bool,
    pub fallback: Option<Box<Call>>,
    pub chance: Percent,
    pub times: u32,
    pub detached: bool,
    pub version: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Cache {
    pub hit_rate: Option<Percent>,
    pub keys: u64,
    pub capacity: usize,
    pub zipf: f64,
    pub ttl: Option<Nanos>,
}

impl RequestLine {
    /// `GET /cart/{id}` as it is, `cart.Cart/Add` as gRPC asks for it, a word as a path.
    pub fn of(name: &str, writes: bool) -> Self {
        let (method, path, grpc) = match name.split_once(' ') {
            Some((method, path)) if path.starts_with('/') => (method, path.to_owned(), false),
            _ if name.contains('/') && !name.starts_with('/') => ("POST", format!("/{name}"), true),
            _ => (if writes { "POST" } else { "GET" }, format!("/{}", name.trim_start_matches('/')), false),
        };
        let segments = path
            .split('?')
            .next()
            .unwrap_or("")
            .trim_start_matches('/')
            .split('/')
            .map(|it| (!(it.starts_with('{') && it.ends_with('}'))).then(|| it.to_owned()))
            .collect();
        Self { method: method.to_owned(), segments, grpc }
    }

    pub fn matches(&self, method: &str, path: &str) -> bool {
        // HEAD asks for what GET would answer.
        if self.method != method && !(self.method == "GET" && method == "HEAD") {
            return false;
        }
        let mut given = path.trim_start_matches('/').split('/');
        let fits = self.segments.iter().all(|wanted| match (wanted, given.next()) {
            (Some(wanted), Some(given)) => wanted == given,
            (None, Some(given)) => !given.is_empty(),
            (_, None) => false,
        });
        fits && given.next().is_none()
    }

    /// A concrete path; what was in braces becomes `filler`.
    pub fn path(&self, filler: u64) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Some(text) => path.push_str(text),
                None => path.push_str(&filler.to_string()),
            }
        }
        path
    }
}

/// A law whose file of values was not read (the resolver reports that) is played as its mean.
fn sampler(work: &Dist) -> Sampler {
    work.sampler().unwrap_or_else(|_| {
        let mean = Nanos(work.mean_nanos() as u64);
        Dist::Fixed(mean).sampler().expect("a fixed duration needs no file and no arithmetic")
    })
}

/// A service without operations does nothing and answers at once.
const DEFAULT_OPERATION: &str = "GET /";

impl Behaviour {
    /// What an instance of `service` does, in the version given.
    pub fn of(system: &System, service: ServiceId, version: Option<&str>) -> Self {
        let it = &system.services[service];
        let version = it.versions.iter().find(|other| Some(other.name.value.as_str()) == version);
        let extra_errors = version.and_then(|it| it.errors);
        let operations: Vec<Operation> = it
            .operations
            .iter()
            .map(|operation| Operation {
                name: operation.name.value.clone(),
                line: RequestLine::of(&operation.name.value, operation.writes),
                work: sampler(&operation.work),
                script: operation.calls.iter().map(|step| compile_step(system, step)).collect(),
                response: operation.response,
                errors: extra_errors.unwrap_or(operation.errors),
                writes: operation.writes,
            })
            .collect();
        Self {
            service: it.name.value.clone(),
            kind: it.kind,
            wire: wire(it),
            concurrency: it.concurrency.as_ref().map(|at| at.value),
            queue: it.queue.value,
            burn: it.burn,
            work_factor: version.and_then(|it| it.work).map_or(1.0, Percent::fraction),
            operations: if operations.is_empty() { vec![idle_operation()] } else { operations },
            health_path: match &it.health.check {
                system::Check::Http { path } => Some(path.clone()),
                _ => None,
            },
            cache: it.cache.as_ref().map(|cache| Cache {
                hit_rate: cache.hit_rate,
                keys: cache.keys.unwrap_or(10_000).max(1),
                capacity: usize::try_from(cache.capacity.unwrap_or(1_000))
                    .unwrap_or(usize::MAX)
                    .clamp(1, 1_000_000),
                zipf: cache.zipf.unwrap_or(0.9),
                ttl: cache.ttl,
            }),
            consumers: it
                .topic
                .iter()
                .flat_map(|topic| &topic.consumers)
                .map(|(service, operation)| {
                    plain_call(system, service.value, operation.as_ref().map(|it| it.value))
                })
                .collect(),
            messages_max: 100_000,
        }
    }

    /// The services it calls, each once: those whose addresses it must be given.
    pub fn dependencies(&self) -> Vec<String> {
        fn walk(steps: &[Step], found: &mut BTreeMap<String, ()>) {
            for step in steps {
                match step {
                    Step::Call(call) => note(call, found),
                    Step::All(steps) => walk(steps, found),
                    Step::Work(_) => {}
                }
            }
        }
        fn note(call: &Call, found: &mut BTreeMap<String, ()>) {
            found.insert(call.service.clone(), ());
            if let Some(fallback) = &call.fallback {
                note(fallback, found);
            }
        }
        let mut found = BTreeMap::new();
        self.operations.iter().for_each(|it| walk(&it.script, &mut found));
        self.consumers.iter().for_each(|it| note(it, &mut found));
        found.into_keys().collect()
    }
}

/// What is spoken to a service. Raw TCP services that we play ourselves speak HTTP inside.
pub fn wire(service: &system::Service) -> Wire {
    match service.protocol {
        Protocol::Http1 | Protocol::Tcp => Wire::Http1,
        Protocol::Http2 | Protocol::Grpc => Wire::Http2,
    }
}

fn idle_operation() -> Operation {
    Operation {
        name: DEFAULT_OPERATION.to_owned(),
        line: RequestLine::of(DEFAULT_OPERATION, false),
        work: sampler(&Dist::Fixed(Nanos::ZERO)),
        script: Vec::new(),
        response: Bytes::ZERO,
        errors: Percent::ZERO,
        writes: false,
    }
}

fn compile_step(system: &System, step: &system::Step) -> Step {
    match step {
        system::Step::Work(dist) => Step::Work(sampler(dist)),
        system::Step::All(steps) => Step::All(steps.iter().map(|it| compile_step(system, it)).collect()),
        system::Step::Call(call) => {
            let fallback = match &call.fallback {
                Some(system::Fallback::Call(service)) => Some(Box::new(plain_call(system, *service, None))),
                Some(system::Fallback::Empty | system::Fallback::Named(_)) | None => None,
            };
            let mut compiled =
                plain_call(system, call.service.value, call.operation.as_ref().map(|it| it.value));
            compiled.optional = call.optional || call.fallback.is_some();
            compiled.fallback = fallback;
            compiled.chance = call.chance;
            compiled.times = call.times;
            compiled.detached = call.detached;
            compiled.version = call.version.as_ref().map(|at| at.value.clone());
            Step::Call(compiled)
        }
    }
}

fn plain_call(system: &System, service: ServiceId, operation: Option<system::OperationId>) -> Call {
    let callee = &system.services[service];
    let line = |it: &system::Operation| (RequestLine::of(&it.name.value, it.writes), it.request);
    let mut lines: Vec<_> = match operation.and_then(|id| callee.operations.get(id)) {
        Some(operation) => vec![line(operation)],
        None => callee.operations.iter().map(line).collect(),
    };
    if lines.is_empty() {
        lines.push((RequestLine::of(DEFAULT_OPERATION, false), Bytes::ZERO));
    }
    Call {
        service: callee.name.value.clone(),
        wire: wire(callee),
        lines,
        optional: false,
        fallback: None,
        chance: Percent::WHOLE,
        times: 1,
        detached: false,
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, writes: bool, method: &str, path: &str, fits: bool) {
        assert_eq!(RequestLine::of(name, writes).matches(method, path), fits, "{name}: {method} {path}");
    }

    #[test]
    fn names_of_operations_are_request_lines() {
        check("GET /", false, "GET", "/", true);
        check("GET /", false, "GET", "/x", false);
        check("GET /", false, "HEAD", "/", true);
        check("GET /cart/{id}", false, "GET", "/cart/7", true);
        check("GET /cart/{id}", false, "GET", "/cart/", false);
        check("GET /cart/{id}", false, "GET", "/cart/7/x", false);
        check("GET /cart/{id}", false, "POST", "/cart/7", false);
        check("cart.Cart/Add", true, "POST", "/cart.Cart/Add", true);
        check("get", false, "GET", "/get", true);
        check("put", true, "POST", "/put", true);
        assert_eq!(RequestLine::of("GET /cart/{id}/items", false).path(7), "/cart/7/items");
        assert!(RequestLine::of("cart.Cart/Add", true).grpc);
    }
}
