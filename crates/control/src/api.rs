//! The HTTP API: how commands, the map and anybody's scripts ask what is and say what shall be.
//!
//! It decides nothing. What is asked is answered from what others publish; what is wished becomes a [`Request`] to
//! whoever runs the system, and the answer is theirs.
//!
//! On the loopback anyone on this machine may ask, but no web page may: a request that a browser sends on behalf of
//! another site carries an `Origin` that is not ours, and a name that was made to point here carries a `Host` that is
//! not ours. Both are refused. Anywhere else nothing is answered without the token.

use crate::history::{Change, History};
use crate::registry::{CheckIn, InstanceId, Refused, Registry};
use crate::status::Status;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request as HttpRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
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

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficChange {
    #[serde(default)]
    pub running: Option<bool>,
    #[serde(default)]
    pub rate_per_second: Option<f64>,
}

/// How a scenario shall play.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Needed by everyone who does not come from this machine.
    pub token: Arc<str>,
    /// Reading the clock is the edge's business.
    pub now: Arc<dyn Fn() -> Nanos + Send + Sync>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// The API's paths. Merge others (the map's page, trace collectors) before serving.
pub fn router(api: Api) -> Router {
    routes(api).fallback(unknown)
}

/// The same without an answer for all other paths, for those who have one.
pub(crate) fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/history", get(history))
        .route("/v1/events", get(events))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/down", post(down))
        .route("/v1/services/{name}/restart", post(restart))
        .route("/v1/services/{name}/stop", post(stop))
        .route("/v1/services/{name}/start", post(start))
        .route("/v1/services/{name}/scale", put(scale))
        .route("/v1/services/{name}/environment", get(environment))
        .route("/v1/traffic/{name}", put(traffic))
        .route("/v1/scenarios", get(scenarios).delete(scenarios_stop))
        .route(
            "/v1/scenarios/{name}",
            post(scenario_start).put(scenario_renew).delete(scenario_stop).get(scenario_report),
        )
        .route("/v1/instances", get(instances))
        .route("/v1/instances/{service}/{id}", put(check_in).delete(check_out))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

/// Refuses what comes from where it may not; put it around everything that is served.
pub fn guard(router: Router, token: Arc<str>) -> Router {
    router.layer(middleware::from_fn(move |request: HttpRequest, next: Next| {
        let token = Arc::clone(&token);
        async move {
            match admit(request.headers(), &token) {
                Ok(()) => next.run(request).await,
                Err(refusal) => refusal.into_response(),
            }
        }
    }))
}

fn admit(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|it| it.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|it| it.strip_prefix("Bearer "));
    if bearer.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
        return Ok(());
    }
    let forbidden = |message: &str| Err(Refusal { status: 403, message: message.to_owned() });
    let host = text(header::HOST).unwrap_or("");
    if !is_loopback(host) {
        return forbidden(
            "from elsewhere than this machine a token is needed: `authorization: Bearer TOKEN`",
        );
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => forbidden("another site's page may not ask this"),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Takes as long for a wrong token as for a right one.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

pub(crate) async fn unknown() -> Refusal {
    Refusal::not_found("no such path; the API is described at /v1/openapi.json")
}

async fn status(State(api): State<Api>) -> Json<Status> {
    let status = Arc::clone(&api.status.borrow());
    Json((*status).clone())
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn history(State(api): State<Api>, Query(since): Query<Since>) -> Json<serde_json::Value> {
    let history = lock(&api.history);
    let (missed, changes) = history.since(since.since);
    let changes: Vec<&Change> = changes.collect();
    Json(serde_json::json!({"missed": missed, "changes": changes}))
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

pub(crate) async fn ask(
    api: &Api,
    headers: &HeaderMap,
    what: Command,
) -> Result<Json<serde_json::Value>, Refusal> {
    let who = headers.get("x-isobar-user").and_then(|it| it.to_str().ok()).unwrap_or("somebody over the API");
    let (reply, answer) = oneshot::channel();
    let request = Request { who: who.chars().take(100).collect(), what, reply };
    let busy = |message: &str| Refusal { status: 503, message: message.to_owned() };
    api.requests.try_send(request).map_err(|_| busy("too many wishes at once, or isobar is ending"))?;
    answer.await.unwrap_or_else(|_| Err(busy("isobar is ending"))).map(Json)
}

type Answer = Result<Json<serde_json::Value>, Refusal>;

async fn down(State(api): State<Api>, headers: HeaderMap) -> Answer {
    ask(&api, &headers, Command::Down).await
}

async fn restart(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    ask(&api, &headers, Command::Restart(name)).await
}

async fn stop(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    ask(&api, &headers, Command::Stop(name)).await
}

async fn start(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    ask(&api, &headers, Command::Start(name)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    instances: u32,
}

async fn scale(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>, body: Bytes) -> Answer {
    let scale: Scale = read(&body)?;
    ask(&api, &headers, Command::Scale(name, scale.instances)).await
}

async fn environment(State(api): State<Api>, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    ask(&api, &headers, Command::Environment(name)).await
}

async fn traffic(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let change: TrafficChange = read(&body)?;
    if change.rate_per_second.is_some_and(|it| !it.is_finite() || it < 0.0) {
        return Err(Refusal::wrong("`rate_per_second` must be a number of at least 0"));
    }
    ask(&api, &headers, Command::Traffic(name, change)).await
}

async fn snapshot(State(api): State<Api>, headers: HeaderMap) -> Answer {
    ask(&api, &headers, Command::Snapshot).await
}

async fn scenarios(State(api): State<Api>, headers: HeaderMap) -> Answer {
    ask(&api, &headers, Command::Scenarios).await
}

async fn scenarios_stop(State(api): State<Api>, headers: HeaderMap) -> Answer {
    ask(&api, &headers, Command::ScenarioStop(None)).await
}

async fn scenario_start(
    State(api): State<Api>,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let order = if body.is_empty() { ScenarioOrder::default() } else { read(&body)? };
    ask(&api, &headers, Command::ScenarioStart(name, order)).await
}

async fn scenario_renew(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    ask(&api, &headers, Command::ScenarioRenew(id)).await
}

async fn scenario_stop(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    ask(&api, &headers, Command::ScenarioStop(Some(id))).await
}

async fn scenario_report(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    ask(&api, &headers, Command::ScenarioReport(id)).await
}

async fn instances(State(api): State<Api>) -> Json<serde_json::Value> {
    let now = (api.now)();
    let registry = lock(&api.registry);
    let all: Vec<serde_json::Value> = registry
        .instances(now)
        .map(|it| {
            serde_json::json!({
                "service": it.id.service, "id": it.id.id, "instance": it.said,
                "health": format!("{:?}", it.health).to_lowercase(), "in_discovery": it.in_discovery,
            })
        })
        .collect();
    Json(serde_json::json!({"revision": registry.revision(), "instances": all}))
}

#[derive(Debug, Deserialize)]
struct Lease {
    #[serde(default = "default_lease")]
    lease_seconds: u64,
}

const fn default_lease() -> u64 {
    30
}

async fn check_in(
    State(api): State<Api>,
    Path((service, id)): Path<(String, String)>,
    Query(lease): Query<Lease>,
    body: Bytes,
) -> Answer {
    let said: CheckIn = read(&body)?;
    let now = (api.now)();
    let lease = Nanos::from_secs(lease.lease_seconds.min(24 * 3_600));
    let (before, after) = {
        let mut registry = lock(&api.registry);
        let before = registry.revision();
        registry.check_in(now, InstanceId { service, id }, said, lease).map_err(|it| Refusal {
            status: if it == Refused::Full { 507 } else { 422 },
            message: it.to_string(),
        })?;
        (before, registry.revision())
    };
    if before != after {
        api.registry_changed.notify_one();
    }
    Ok(Json(serde_json::json!({"lease_seconds": lease.as_u64() / 1_000_000_000})))
}

async fn check_out(State(api): State<Api>, Path((service, id)): Path<(String, String)>) -> Answer {
    let id = InstanceId { service, id };
    if !lock(&api.registry).check_out(&id) {
        return Err(Refusal::not_found(format!("no instance `{}` of `{}` is registered", id.id, id.service)));
    }
    api.registry_changed.notify_one();
    Ok(Json(serde_json::json!({})))
}

fn read<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::wrong(format!("the body is not what this path takes: {error}")))
}

/// A panic elsewhere left the data whole: nothing here is changed in two steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], admitted: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        assert_eq!(admit(&map, "secret").is_ok(), admitted, "{headers:?}");
    }

    #[test]
    fn only_this_machine_and_holders_of_the_token_are_heard() {
        check(&[("host", "127.0.0.1:4000")], true);
        check(&[("host", "localhost:4000")], true);
        check(&[("host", "[::1]:4000")], true);
        check(&[("host", "127.0.0.1.evil.example:4000")], false);
        check(&[("host", "evil.example")], false);
        check(&[], false);
        check(&[("host", "127.0.0.1:4000"), ("origin", "http://127.0.0.1:4000")], true);
        check(&[("host", "127.0.0.1:4000"), ("origin", "https://evil.example")], false);
        check(&[("host", "127.0.0.1:4000"), ("origin", "null")], false);
        check(&[("host", "10.0.0.1:4000"), ("authorization", "Bearer secret")], true);
        check(&[("host", "10.0.0.1:4000"), ("authorization", "Bearer secreT")], false);
    }
}
