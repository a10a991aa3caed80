//! The HTTP API: how commands, the map and anybody's scripts ask what is and say what shall be.
//!
//! It decides nothing. What is asked is answered from what others publish; what is wished becomes a [`Request`] to
//! whoever runs the system, and the answer is theirs.
//!
//! Who is heard at all is said in [`crate::admit`].

use crate::admit::{self, Gate, LOGIN, LOGOUT};
use crate::history::{Change, History};
use crate::registry::{CheckIn, InstanceId, Refused, Registry};
use crate::status::{Status, TrafficStatus};
use crate::table::{Asked, Document, Nothing, Table, promised};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post as log};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use units::Nanos;

/// Bodies are small documents; the largest is a scenario's report.
const BODY_MAX: usize = 1 << 20;

/// Something a person or a program wants to happen.
#[derive(Debug)]
pub struct Request {
    pub who: String,
    pub what: Command,
    pub reply: oneshot::Sender<Result<serde_json::Value, Refusal>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Restart(String),
    Stop(String),
    Start(String),
    Scale(String, u32),
    Down,
    /// The variables a command of this service's own would have. Holds secrets.
    Environment(String),
    Traffic(String, TrafficChange),
    /// What the file has, and what plays.
    Scenarios,
    ScenarioStart(String, ScenarioOrder),
    /// Its lease is renewed; without this it is undone.
    ScenarioRenew(String),
    /// One by its id, or all.
    ScenarioStop(Option<String>),
    /// How far it is, and what was measured.
    ScenarioReport(String),
    /// The snapshot in force, for people who look for a mistake of ours.
    Snapshot,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficChange {
    #[serde(default)]
    pub running: Option<bool>,
    #[serde(default)]
    pub rate_per_second: Option<f64>,
}

/// How a scenario shall play.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScenarioOrder {
    /// It ends when it was not renewed for so long; left out, it ends when it is over.
    pub lease_ms: Option<u64>,
    pub lasts_ms: Option<u64>,
    pub warm_up_ms: Option<u64>,
    /// It ends at once when an expectation is missed by this factor.
    pub guard: Option<f64>,
    /// As `isobar sim --set`.
    pub settings: Vec<String>,
    /// As `isobar sim --break`; the name in the path is then any.
    pub ready_made: Option<String>,
    /// Do nothing and measure.
    pub steady: bool,
    /// Leave traffic that does not flow alone.
    pub no_traffic: bool,
}

/// Why something wished for does not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
}

impl Refusal {
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: 404, message: message.into() }
    }

    pub fn wrong(message: impl Into<String>) -> Self {
        Self { status: 422, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(serde_json::json!({"error": self.message}))).into_response()
    }
}

/// What the API stands on.
#[derive(Clone)]
pub struct Api {
    pub requests: mpsc::Sender<Request>,
    pub status: watch::Receiver<Arc<Status>>,
    pub history: Arc<Mutex<History>>,
    pub changes: broadcast::Sender<Change>,
    pub registry: Arc<Mutex<Registry>>,
    /// Told when the registry's set of instances changed.
    pub registry_changed: Arc<tokio::sync::Notify>,
    pub gate: Arc<Gate>,
    /// Reading the clock is the edge's business.
    pub now: Arc<dyn Fn() -> Nanos + Send + Sync>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// The API's paths, with an answer for all others.
pub fn router(api: Api) -> Router {
    serve(routes(api)).fallback(unknown)
}

/// The paths of a table, and the one of their description.
pub(crate) fn serve(table: Table) -> Router {
    let (router, document) = table.finish();
    let document: Arc<str> = document.to_string().into();
    let told = move || {
        let document = Arc::clone(&document);
        async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()) }
    };
    router.route("/v1/openapi.json", get(told)).method_not_allowed_fallback(wrong_method)
}

/// The same without an answer for all other paths, for those who have one.
pub(crate) fn routes(api: Api) -> Table {
    let (read, post, put, delete) = (&Method::GET, &Method::POST, &Method::PUT, &Method::DELETE);
    let json = "application/json";
    Table::<Api>::new()
        .on(read, "/v1/status", "Every service and instance, and where everything is reached.", status)
        .on(read, "/v1/history", "What changed, by whom and when.", history)
        .raw(
            read,
            "/v1/events",
            "The same as it happens, as Server-Sent Events; `last-event-id` goes on where one stopped.",
            "text/event-stream",
            get(events),
        )
        .on(read, "/v1/snapshot", "What the proxy runs, for people who look for a mistake of isobar's.", snapshot)
        .on(post, "/v1/down", "Stop everything, dependents first.", down)
        .on(post, "/v1/services/{name}/restart", "Replace every instance, one after another.", restart)
        .on(post, "/v1/services/{name}/stop", "Stop every instance.", stop)
        .on(post, "/v1/services/{name}/start", "Start what was stopped or given up.", start)
        .on(put, "/v1/services/{name}/scale", "Change how many instances there are, until the file does.", scale)
        .on(
            read,
            "/v1/services/{name}/environment",
            "The variables a command in this service's place would have. Holds secrets.",
            environment,
        )
        .on(put, "/v1/traffic/{name}", "Start, stop or change what the file's `traffic` asks.", traffic)
        .on(read, "/v1/scenarios", "What the file has, and what plays.", scenarios)
        .on(delete, "/v1/scenarios", "End and undo all that play.", scenarios_stop)
        .on(post, "/v1/scenarios/{name}", "Play a scenario of the file, on a lease.", scenario_start)
        .on(put, "/v1/scenarios/{name}", "Renew the lease of one that plays; without this it is undone.", scenario_renew)
        .on(delete, "/v1/scenarios/{name}", "End it and undo it.", scenario_stop)
        .on(read, "/v1/scenarios/{name}", "How far it is, and what was measured.", scenario_report)
        .raw(post, LOGIN, "The token once, for a cookie: how a browser from elsewhere gets in.", json, log(admit::login))
        .raw(post, LOGOUT, "The cookie is forgotten.", json, log(admit::logout))
        .on(read, "/v1/instances", "Instances that checked in.", instances)
        .on(
            put,
            "/v1/instances/{service}/{id}",
            "Check in: an instance that isobar did not start says that it is there, for as long as its lease.",
            check_in,
        )
        .on(delete, "/v1/instances/{service}/{id}", "Check out.", check_out)
        .with_state(api)
        .layer_router(|router| router.layer(DefaultBodyLimit::max(BODY_MAX)))
}

pub(crate) async fn unknown() -> Refusal {
    Refusal::not_found("no such path; the API is described at /v1/openapi.json")
}

async fn wrong_method(method: Method) -> Refusal {
    let message = format!("this path has no {method}; the API is described at /v1/openapi.json");
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED.as_u16(), message }
}

type Ask<Q = Nothing, B = Nothing> = Asked<Api, Q, B>;

async fn status(asked: Ask) -> Result<Status, Refusal> {
    let status = Arc::clone(&asked.state.status.borrow());
    Ok((*status).clone())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Since {
    /// The number of the first change that is wanted.
    #[serde(default)]
    since: u64,
}

/// A part of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Past {
    /// Changes asked for that are no longer kept.
    pub missed: u64,
    pub changes: Vec<Change>,
}

async fn history(asked: Ask<Since>) -> Result<Past, Refusal> {
    let history = lock(&asked.state.history);
    let (missed, changes) = history.since(asked.query.since);
    Ok(Past { missed, changes: changes.cloned().collect() })
}

/// Every change from now on (or from `last-event-id` on, as far as it is kept), as Server-Sent Events.
async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let last = headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    let live = api.changes.subscribe();
    let past: std::collections::VecDeque<Change> = match last {
        Some(last) => lock(&api.history).since(last + 1).1.cloned().collect(),
        None => std::collections::VecDeque::new(),
    };
    let stream = futures_util::stream::unfold((past, live), async |(mut past, mut live)| {
        if let Some(change) = past.pop_front() {
            return Some((Ok(event_of(&change)), (past, live)));
        }
        match live.recv().await {
            Ok(change) => Some((Ok(event_of(&change)), (past, live))),
            // A reader that was too slow is told so and goes on from here.
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let event = Event::default().event("missed").data(missed.to_string());
                Some((Ok(event), (past, live)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

fn event_of(change: &Change) -> Event {
    let data = serde_json::to_string(change).unwrap_or_default();
    Event::default().event("change").id(change.sequence.to_string()).data(data)
}

/// Who says to be asking. Nobody checks it: whoever may ask may do everything, and this is for people's memory.
pub(crate) fn who_of(headers: &HeaderMap) -> Option<String> {
    let said = headers.get("x-isobar-user")?.to_str().ok()?.trim();
    (!said.is_empty()).then(|| said.chars().take(100).collect())
}

/// Passes a wish on to whoever runs the system; the answer is theirs.
pub(crate) async fn ask(api: &Api, who: String, what: Command) -> Result<serde_json::Value, Refusal> {
    let (reply, answer) = oneshot::channel();
    let request = Request { who, what, reply };
    let busy = |message: &str| Refusal { status: 503, message: message.to_owned() };
    api.requests.try_send(request).map_err(|_| busy("too many wishes at once, or isobar is ending"))?;
    answer.await.unwrap_or_else(|_| Err(busy("isobar is ending")))
}

impl<Q, B> Ask<Q, B> {
    async fn wish<A: for<'de> Deserialize<'de>>(&self, what: Command) -> Result<A, Refusal> {
        let who = who_of(&self.headers).unwrap_or_else(|| "somebody over the API".to_owned());
        promised(ask(&self.state, who, what).await?)
    }
}

/// Which service an order went to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ordered {
    pub service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scaled {
    pub service: String,
    pub instances: u32,
}

/// What a command in a service's place is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stead {
    /// `web#0`
    pub instance: String,
    pub dir: String,
    pub variables: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// As it is now; null when it does not flow.
    pub traffic: Option<TrafficStatus>,
}

async fn down(asked: Ask) -> Result<Nothing, Refusal> {
    asked.wish(Command::Down).await
}

async fn restart(asked: Ask) -> Result<Ordered, Refusal> {
    asked.wish(Command::Restart(asked.name("name"))).await
}

async fn stop(asked: Ask) -> Result<Ordered, Refusal> {
    asked.wish(Command::Stop(asked.name("name"))).await
}

async fn start(asked: Ask) -> Result<Ordered, Refusal> {
    asked.wish(Command::Start(asked.name("name"))).await
}

/// How many instances a service shall have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scale {
    instances: u32,
}

async fn scale(asked: Ask<Nothing, Scale>) -> Result<Scaled, Refusal> {
    asked.wish(Command::Scale(asked.name("name"), asked.body.instances)).await
}

async fn environment(asked: Ask) -> Result<Stead, Refusal> {
    asked.wish(Command::Environment(asked.name("name"))).await
}

async fn traffic(asked: Ask<Nothing, TrafficChange>) -> Result<Traffic, Refusal> {
    let change = asked.body.clone();
    if change.rate_per_second.is_some_and(|it| !it.is_finite() || it < 0.0) {
        return Err(Refusal::wrong("`rate_per_second` must be a number of at least 0"));
    }
    asked.wish(Command::Traffic(asked.name("name"), change)).await
}

async fn snapshot(asked: Ask) -> Result<Snapshot, Refusal> {
    asked.wish(Command::Snapshot).await
}

async fn scenarios(asked: Ask) -> Result<Document, Refusal> {
    asked.wish(Command::Scenarios).await
}

async fn scenarios_stop(asked: Ask) -> Result<Document, Refusal> {
    asked.wish(Command::ScenarioStop(None)).await
}

async fn scenario_start(asked: Ask<Nothing, ScenarioOrder>) -> Result<Document, Refusal> {
    asked.wish(Command::ScenarioStart(asked.name("name"), asked.body.clone())).await
}

async fn scenario_renew(asked: Ask) -> Result<Document, Refusal> {
    asked.wish(Command::ScenarioRenew(asked.name("name"))).await
}

async fn scenario_stop(asked: Ask) -> Result<Document, Refusal> {
    asked.wish(Command::ScenarioStop(Some(asked.name("name")))).await
}

async fn scenario_report(asked: Ask) -> Result<Document, Refusal> {
    asked.wish(Command::ScenarioReport(asked.name("name"))).await
}

/// An instance that checked in, and what is made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Known {
    pub service: String,
    pub id: String,
    /// What it said about itself.
    pub instance: CheckIn,
    /// `healthy`, `unhealthy`, `draining` or `gone`.
    pub health: String,
    /// Its lease runs. Without one it is kept for as long as it answers its checks.
    pub in_discovery: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AllKnown {
    /// Grows when who may be used changes.
    pub revision: u64,
    pub instances: Vec<Known>,
}

async fn instances(asked: Ask) -> Result<AllKnown, Refusal> {
    let now = (asked.state.now)();
    let registry = lock(&asked.state.registry);
    let known = |it: crate::registry::Registered| Known {
        service: it.id.service,
        id: it.id.id,
        instance: it.said,
        health: format!("{:?}", it.health).to_lowercase(),
        in_discovery: it.in_discovery,
    };
    Ok(AllKnown { revision: registry.revision(), instances: registry.instances(now).map(known).collect() })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lease {
    /// From now; a day at most.
    #[serde(default = "default_lease")]
    lease_seconds: u64,
}

const fn default_lease() -> u64 {
    30
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedIn {
    pub lease_seconds: u64,
    /// Said when nothing will be sent there for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

async fn check_in(asked: Ask<Lease, CheckIn>) -> Result<CheckedIn, Refusal> {
    let (api, service, id) = (&asked.state, asked.name("service"), asked.name("id"));
    let now = (api.now)();
    let lease = Nanos::from_secs(asked.query.lease_seconds.min(24 * 3_600));
    let is_named = api.status.borrow().services.iter().any(|it| it.name == service);
    let note = (!is_named).then(|| {
        format!("no service that runs here is called `{service}`; it is sent traffic if the file in force names it")
    });
    let (before, after) = {
        let who = who_of(&asked.headers);
        let mut registry = lock(&api.registry);
        let before = registry.revision();
        let id = InstanceId { service, id };
        registry.check_in(now, id, asked.body.clone(), lease, who.as_deref()).map_err(|it| Refusal {
            status: if it == Refused::Full { 507 } else { 422 },
            message: it.to_string(),
        })?;
        (before, registry.revision())
    };
    if before != after {
        api.registry_changed.notify_one();
    }
    Ok(CheckedIn { lease_seconds: lease.as_u64() / 1_000_000_000, note })
}

async fn check_out(asked: Ask) -> Result<Nothing, Refusal> {
    let id = InstanceId { service: asked.name("service"), id: asked.name("id") };
    if !lock(&asked.state.registry).check_out(&id, who_of(&asked.headers).as_deref()) {
        return Err(Refusal::not_found(format!("no instance `{}` of `{}` is registered", id.id, id.service)));
    }
    asked.state.registry_changed.notify_one();
    Ok(Nothing {})
}

/// A panic elsewhere left the data whole: nothing here is changed in two steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
