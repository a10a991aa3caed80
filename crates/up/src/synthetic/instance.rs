//! One synthetic instance at work: doors, requests, the script, and the ways to trouble it.

use super::answer::Payload;
use super::behaviour::{Behaviour, Call, Operation, Step, Wire};
use super::burn::Burner;
use super::call::{Ask, CallError, Client, Local, context_of};
use super::gate::Gate;
use super::state::{CacheState, StoreState};
use super::timer::{Timer, now};
use crate::supervisor::{Exit, Key};
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, try_join_all};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::system::Kind;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use units::{Nanos, Percent, Purpose, Rng};

/// Connections of one instance. The proxies in front of it keep far fewer.
const CONNECTIONS_MAX: usize = 4_096;
/// Calls nobody waits for, at once. More are dropped and counted.
const DETACHED_MAX: u32 = 1_000;
/// Body bytes kept for a store; the rest of a longer body is read and forgotten.
const KEPT_BODY_MAX: usize = 1 << 20;
/// Failures told in the log each second; the rest is only counted.
const FAILURES_TOLD_PER_SECOND: u32 = 10;

/// Who an instance is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub key: Key,
    /// `web#0`
    pub name: String,
    pub version: String,
    pub place: String,
}

/// Trouble made on purpose, in force until it is set again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trouble {
    pub paused: bool,
    pub slow_by: Nanos,
    /// Factor on work.
    pub slow_times: f64,
    pub errors: Percent,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { paused: false, slow_by: Nanos::ZERO, slow_times: 1.0, errors: Percent::ZERO }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Running,
    /// Finish what there is, take nothing new.
    Stopping,
    Killed,
}

/// Where an instance's own words go.
pub(crate) type Log = Rc<dyn Fn(Key, &str)>;

pub(crate) struct Instance {
    pub(crate) identity: Identity,
    behaviour: Arc<Behaviour>,
    addresses: BTreeMap<String, SocketAddr>,
    timer: Timer,
    burner: Rc<Burner>,
    client: Client,
    gate: Gate,
    trouble: watch::Sender<Trouble>,
    ending: watch::Sender<Ending>,
    work_luck: RefCell<Rng>,
    error_luck: RefCell<Rng>,
    route_luck: RefCell<Rng>,
    cache_luck: RefCell<Rng>,
    cache: Option<RefCell<CacheState>>,
    store: RefCell<StoreState>,
    topic: Topic,
    connections: Cell<usize>,
    detached: Cell<u32>,
    detached_dropped: Cell<u64>,
    told: Cell<(Option<Instant>, u32)>,
    log: Log,
}

/// A queue's messages, for each consumer those it has not taken yet.
#[derive(Debug, Default)]
struct Topic {
    waiting: Vec<RefCell<VecDeque<HeaderMap>>>,
    arrived: Vec<Notify>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Instance {
    pub(crate) fn new(
        identity: Identity,
        behaviour: Arc<Behaviour>,
        addresses: BTreeMap<String, SocketAddr>,
        (timer, burner): (Timer, Rc<Burner>),
        seed: u64,
        log: Log,
    ) -> Rc<Self> {
        let luck = |purpose| RefCell::new(Rng::stream(seed, identity.key.0, purpose));
        Rc::new(Self {
            gate: Gate::new(behaviour.concurrency, behaviour.queue),
            cache: behaviour.cache.clone().map(|it| RefCell::new(CacheState::new(it))),
            topic: Topic {
                waiting: behaviour.consumers.iter().map(|_| RefCell::default()).collect(),
                arrived: behaviour.consumers.iter().map(|_| Notify::new()).collect(),
            },
            work_luck: luck(Purpose::Work),
            error_luck: luck(Purpose::Error),
            route_luck: luck(Purpose::Route),
            cache_luck: luck(Purpose::Cache),
            trouble: watch::Sender::new(Trouble::default()),
            ending: watch::Sender::new(Ending::Running),
            client: Client::default(),
            store: RefCell::default(),
            connections: Cell::new(0),
            detached: Cell::new(0),
            detached_dropped: Cell::new(0),
            told: Cell::new((None, 0)),
            identity,
            behaviour,
            addresses,
            timer,
            burner,
            log,
        })
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }

    pub(crate) fn flush(&self) {
        if let Some(cache) = &self.cache {
            cache.borrow_mut().flush();
        }
    }

    pub(crate) fn say(&self, line: &str) {
        (self.log)(self.identity.key, line);
    }

    /// Runs until it is told to end; how it ended.
    pub(crate) async fn run(self: Rc<Self>, listener: TcpListener) -> Exit {
        let mut ending = self.ending.subscribe();
        if let Ok(address) = listener.local_addr() {
            self.say(&format!("listening on {address}"));
        }
        let consumers: Vec<_> = (0..self.behaviour.consumers.len())
            .map(|at| tokio::task::spawn_local(Rc::clone(&self).deliver(at)))
            .collect();
        let mut trouble = self.trouble.subscribe();
        loop {
            // A paused process accepts nothing; the kernel's backlog fills, as it would.
            let paused = trouble.borrow_and_update().paused;
            tokio::select! {
                accepted = listener.accept(), if !paused && self.connections.get() < CONNECTIONS_MAX => {
                    if let Ok((stream, _)) = accepted {
                        self.connections.set(self.connections.get() + 1);
                        tokio::task::spawn_local(Rc::clone(&self).serve(stream));
                    }
                }
                _ = trouble.changed() => {}
                // Asked about its value and not its changes: the word may have come before anyone listened.
                _ = ending.wait_for(|it| *it != Ending::Running) => break,
                // Checked again once in a while because a connection's end does not wake this loop.
                () = self.timer.sleep(Duration::from_millis(50)), if self.connections.get() >= CONNECTIONS_MAX => {}
            }
        }
        drop(listener);
        while *ending.borrow_and_update() == Ending::Stopping
            && (self.connections.get() > 0 || self.gate.working() > 0)
        {
            tokio::select! {
                _ = ending.changed() => {}
                () = self.timer.sleep(Duration::from_millis(5)) => {}
            }
        }
        consumers.iter().for_each(tokio::task::JoinHandle::abort);
        let (worked, refused) = self.gate.counts();
        let crowded = match self.burner.waited() {
            0 => String::new(),
            waited => format!("; {waited} pieces of everybody's work were waited for, as too many computed"),
        };
        self.say(&format!("ended after {worked} requests, {refused} refused{crowded}"));
        match *ending.borrow() {
            Ending::Killed => Exit::Signal(9),
            Ending::Running | Ending::Stopping => Exit::Code(0),
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut ending = self.ending.subscribe();
        let mut heard = Ending::Running;
        let instance = Rc::clone(&self);
        let service = service_fn(move |request| Rc::clone(&instance).answer(request));
        let io = TokioIo::new(stream);
        match self.behaviour.wire {
            Wire::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(None).half_close(false);
                let connection = builder.serve_connection(io, service);
                tokio::pin!(connection);
                loop {
                    tokio::select! {
                        _ = connection.as_mut() => break,
                        Ok(word) = next_word(&mut ending, heard) => match word {
                            Ending::Killed => break,
                            Ending::Running | Ending::Stopping => {
                                heard = word;
                                connection.as_mut().graceful_shutdown();
                            }
                        }
                    }
                }
            }
            Wire::Http2 => {
                let mut builder = hyper::server::conn::http2::Builder::new(Local);
                // Wide windows: hyper ends a connection whose small frames outgrow a budget tied to the window.
                builder
                    .timer(TokioTimer::new())
                    .initial_connection_window_size(4 << 20)
                    .initial_stream_window_size(1 << 20)
                    .max_concurrent_streams(10_000);
                let connection = builder.serve_connection(io, service);
                tokio::pin!(connection);
                loop {
                    tokio::select! {
                        _ = connection.as_mut() => break,
                        Ok(word) = next_word(&mut ending, heard) => match word {
                            Ending::Killed => break,
                            Ending::Running | Ending::Stopping => {
                                heard = word;
                                connection.as_mut().graceful_shutdown();
                            }
                        }
                    }
                }
            }
        }
        self.connections.set(self.connections.get() - 1);
    }

    async fn answer(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Payload>, Infallible> {
        let mut trouble = self.trouble.subscribe();
        // An error would mean that the instance is gone, and it lives as long as this borrow of it.
        let _ = trouble.wait_for(|it| !it.paused).await;
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path == "/grpc.health.v1.Health/Check" {
            // SERVING, in protobuf.
            let message = Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 0x01]);
            return Ok(grpc_response(Payload::whole(message).grpc_answer(0, "")));
        }
        let found = self.behaviour.operations.iter().find(|it| it.line.matches(parts.method.as_str(), path));
        let Some(operation) = found else {
            return Ok(self.answer_unknown(parts.method.as_str(), path));
        };
        let result = self.work(operation, path, &parts.headers, body).await;
        // Frozen in the middle of its work, it holds the answer back.
        let _ = trouble.wait_for(|it| !it.paused).await;
        Ok(match result {
            Ok(payload) if operation.line.grpc => grpc_response(payload),
            Ok(payload) => {
                let mut response = Response::new(payload);
                self.sign(response.headers_mut());
                response
            }
            Err(failure) => {
                self.tell_failure(operation, &failure);
                self.answer_failure(operation, &failure)
            }
        })
    }

    fn answer_unknown(&self, method: &str, path: &str) -> Response<Payload> {
        if self.behaviour.health_path.as_deref() == Some(path) {
            return Response::new(Payload::whole(Bytes::from_static(b"ok\n")));
        }
        let known: Vec<&str> = self.behaviour.operations.iter().map(|it| it.name.as_str()).collect();
        let text = format!(
            "{} does not answer `{method} {path}`; its operations are {}\n",
            self.behaviour.service,
            known.join(", ")
        );
        let mut response = Response::new(Payload::whole(text.into()));
        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
        self.sign(response.headers_mut());
        response
    }

    fn answer_failure(&self, operation: &Operation, failure: &Failure) -> Response<Payload> {
        let text = failure.to_string();
        if operation.line.grpc {
            return grpc_response(Payload::empty().grpc_answer(failure.grpc_status(), &text));
        }
        let mut response = Response::new(Payload::whole(format!("{}: {text}\n", self.identity.name).into()));
        *response.status_mut() = failure.status();
        self.sign(response.headers_mut());
        response
    }

    /// So that whoever looks at an answer sees who gave it.
    fn sign(&self, headers: &mut HeaderMap) {
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        if let Ok(name) = HeaderValue::from_str(&self.identity.name) {
            headers.insert("x-isobar-instance", name);
        }
    }

    fn tell_failure(&self, operation: &Operation, failure: &Failure) {
        let (since, told) = self.told.get();
        let fresh =
            since.is_none_or(|since| now().saturating_duration_since(since) >= Duration::from_secs(1));
        let (since, told) = if fresh { (Some(now()), 0) } else { (since, told) };
        self.told.set((since, told + 1));
        if told < FAILURES_TOLD_PER_SECOND {
            self.say(&format!("{} failed: {failure}", operation.name));
        }
    }

    async fn work(
        self: &Rc<Self>,
        operation: &Operation,
        path: &str,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Payload, Failure> {
        let _place = self.gate.enter(now()).await.map_err(|_| Failure::Full)?;
        let keeps = self.behaviour.kind == Kind::Store && operation.writes;
        let body = read_body(body, if keeps { KEPT_BODY_MAX } else { 0 }).await.ok_or(Failure::CallerGone)?;
        let trouble = *self.trouble.borrow();
        if !trouble.slow_by.is_zero() {
            self.timer.sleep(Duration::from_nanos(trouble.slow_by.as_u64())).await;
        }
        let work = operation.work.sample(&mut self.work_luck.borrow_mut());
        self.spend(work).await;
        let share = 1.0 - (1.0 - operation.errors.fraction()) * (1.0 - trouble.errors.fraction());
        if self.error_luck.borrow_mut().chance(share) {
            return Err(Failure::Own);
        }
        let context = context_of(headers);
        let hit = !operation.writes
            && self
                .cache
                .as_ref()
                .is_some_and(|it| it.borrow_mut().look_up(now(), &mut self.cache_luck.borrow_mut()));
        if !hit {
            self.run_steps(&operation.script, &context).await?;
        }
        if self.behaviour.kind == Kind::Queue && operation.writes {
            self.publish(&context)?;
        }
        if keeps {
            self.store.borrow_mut().put(path, body);
        }
        let size = operation.response.as_u64();
        if operation.line.grpc {
            return Ok(Payload::grpc_message(size).grpc_answer(0, ""));
        }
        let stored = if self.behaviour.kind == Kind::Store && !operation.writes {
            self.store.borrow().get(path).filter(|it| !it.is_empty())
        } else {
            None
        };
        Ok(match stored {
            Some(value) => Payload::whole(value),
            None => Payload::of(self.greeting(operation), size),
        })
    }

    fn greeting(&self, operation: &Operation) -> Bytes {
        let Identity { name, version, place, .. } = &self.identity;
        format!("{} from {name} {version} in {place}\n", operation.name).into()
    }

    /// Real time passes, as much as the work takes here and now.
    async fn spend(&self, work: Nanos) {
        let nanos = work.as_u64() as f64 * self.behaviour.work_factor * self.trouble.borrow().slow_times;
        let burnt = Duration::from_nanos((nanos * self.behaviour.burn.fraction()) as u64);
        let mut waited = Duration::from_nanos(nanos as u64).saturating_sub(burnt);
        if !burnt.is_zero() && !self.burner.burn(burnt).await {
            waited += burnt;
        }
        if !waited.is_zero() {
            self.timer.sleep(waited).await;
        }
    }

    fn run_steps<'a>(
        self: &'a Rc<Self>,
        steps: &'a [Step],
        context: &'a HeaderMap,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            for step in steps {
                self.run_step(step, context).await?;
            }
            Ok(())
        })
    }

    async fn run_step(self: &Rc<Self>, step: &Step, context: &HeaderMap) -> Result<(), Failure> {
        match step {
            Step::Work(work) => {
                let work = work.sample(&mut self.work_luck.borrow_mut());
                self.spend(work).await;
                Ok(())
            }
            Step::All(steps) => {
                let all = steps.iter().map(|step| self.run_steps(std::slice::from_ref(step), context));
                try_join_all(all).await.map(drop)
            }
            Step::Call(call) if call.detached => {
                self.detach(call.clone(), context.clone());
                Ok(())
            }
            Step::Call(call) => self.call(call, context).await,
        }
    }

    fn detach(self: &Rc<Self>, call: Call, context: HeaderMap) {
        if self.detached.get() >= DETACHED_MAX {
            self.detached_dropped.set(self.detached_dropped.get() + 1);
            return;
        }
        self.detached.set(self.detached.get() + 1);
        let instance = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut ending = instance.ending.subscribe();
            tokio::select! {
                _ = instance.call(&call, &context) => {}
                _ = ending.wait_for(|it| *it == Ending::Killed) => {}
            }
            instance.detached.set(instance.detached.get() - 1);
        });
    }

    async fn call(&self, call: &Call, context: &HeaderMap) -> Result<(), Failure> {
        for _ in 0..call.times {
            if !self.route_luck.borrow_mut().chance(call.chance.fraction()) {
                continue;
            }
            let Err(error) = self.call_once(call, context).await else { continue };
            if let Some(fallback) = &call.fallback {
                let _ = self.call_once(fallback, context).await;
            }
            if !call.optional {
                return Err(Failure::Call { service: call.service.clone(), error });
            }
        }
        Ok(())
    }

    async fn call_once(&self, call: &Call, context: &HeaderMap) -> Result<(), CallError> {
        let Some(address) = self.addresses.get(&call.service) else {
            return Err(CallError::Connect(std::io::Error::other("it was left out of this run")));
        };
        let (at, filler) = {
            let mut luck = self.route_luck.borrow_mut();
            (luck.below(call.lines.len() as u64) as usize, luck.below(1_000))
        };
        let Some((line, body_bytes)) = call.lines.get(at) else { return Ok(()) };
        let mut pinned = HeaderMap::new();
        if let Some(Ok(version)) = call.version.as_deref().map(HeaderValue::from_str) {
            pinned = context.clone();
            pinned.insert("isobar-version", version);
        }
        let context = if pinned.is_empty() { context } else { &pinned };
        let path = line.path(filler);
        let ask = Ask {
            to: *address,
            host: &call.service,
            wire: call.wire,
            line,
            path: &path,
            body_bytes: body_bytes.as_u64(),
            context,
        };
        self.client.ask(ask).await
    }

    fn publish(&self, context: &HeaderMap) -> Result<(), Failure> {
        let fits = self.topic.waiting.iter().all(|it| it.borrow().len() < self.behaviour.messages_max);
        if !fits {
            return Err(Failure::Full);
        }
        for (waiting, arrived) in self.topic.waiting.iter().zip(&self.topic.arrived) {
            waiting.borrow_mut().push_back(context.clone());
            arrived.notify_one();
        }
        Ok(())
    }

    /// Hands messages to one consumer, at least once each, in order; a consumer that fails is asked again.
    async fn deliver(self: Rc<Self>, at: usize) {
        let (Some(waiting), Some(arrived), Some(call)) =
            (self.topic.waiting.get(at), self.topic.arrived.get(at), self.behaviour.consumers.get(at))
        else {
            return;
        };
        loop {
            let Some(context) = waiting.borrow().front().cloned() else {
                arrived.notified().await;
                continue;
            };
            let mut trouble = self.trouble.subscribe();
            let _ = trouble.wait_for(|it| !it.paused).await;
            match self.call_once(call, &context).await {
                Ok(()) => {
                    waiting.borrow_mut().pop_front();
                }
                Err(_) => self.timer.sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Why a request was not answered well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("every place is taken and the queue is full")]
    Full,
    #[error("an error of its own, as the file says")]
    Own,
    #[error("the caller went away")]
    CallerGone,
    #[error("`{service}` failed: {error}")]
    Call { service: String, error: CallError },
}

impl Failure {
    fn status(&self) -> hyper::StatusCode {
        match self {
            Self::Full => hyper::StatusCode::SERVICE_UNAVAILABLE,
            // 500 for a failed call too: 502 and 503 invite another try, and what the callee's edge did not save by its
            // own retries would then be tried again at every level above.
            Self::Own | Self::Call { .. } => hyper::StatusCode::INTERNAL_SERVER_ERROR,
            Self::CallerGone => hyper::StatusCode::BAD_REQUEST,
        }
    }

    fn grpc_status(&self) -> u8 {
        match self {
            Self::Full => 8,
            Self::Own | Self::Call { .. } => 13,
            Self::CallerGone => 1,
        }
    }
}

fn grpc_response(payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// The next word on how to end that was not heard yet.
async fn next_word(
    ending: &mut watch::Receiver<Ending>,
    heard: Ending,
) -> Result<Ending, watch::error::RecvError> {
    ending.wait_for(|it| *it != heard).await.map(|it| *it)
}

async fn read_body(mut body: Incoming, kept_max: usize) -> Option<Bytes> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            let room = kept_max.saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(&data[..room]);
        }
    }
    Some(kept.into())
}
