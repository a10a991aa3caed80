//! The doors of the web map (docs/live.md): the map, live frames, a service's page, traces, acts, and the page itself.
//!
//! It answers from what the watcher keeps and decides nothing; what a person does becomes a [`Command`] like any other.
//! Everyone is bounded: so many pages at once, so many bytes a message, so long for a page that does not read.

use crate::api::{self, Api, Refusal, lock};
use crate::live::Frame;
use crate::map::Map;
use crate::page::{self, LogLine};
use crate::past::Past;
use crate::table::Table;
use crate::watched::Watched;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use telemetry::zipkin::api::{ZipkinSettings, handle};
use tokio::sync::{Semaphore, broadcast};
use units::Nanos;

mod acts;
mod zoom;

/// Pages that watch at once. A team, and its wall displays.
const PAGES_MAX: usize = 128;
/// What a page says is a marker or a resume.
const PAGE_MESSAGE_BYTES_MAX: usize = 1_024;
/// A page that takes nothing for so long has gone.
const SEND_MAX: Duration = Duration::from_secs(10);
const MARKER_EVERY: Nanos = Nanos::from_millis(950);
/// Markers on their way to one page.
const MARKERS_MAX: usize = 16;
/// Spans of applications; the largest batches people send.
const SPANS_BYTES_MAX: usize = 8 << 20;

/// The page's files: status, headers and bytes for a path, an `accept-encoding` and an `if-none-match`.
pub type Page = fn(&str, &str, Option<&str>) -> (u16, Vec<(&'static str, &'static str)>, &'static [u8]);
/// The newest lines of a service's log, newest first, at most so many.
pub type Logs = dyn Fn(&str, usize) -> Vec<LogLine> + Send + Sync;

/// What the doors stand on.
#[derive(Clone)]
pub struct Web {
    api: Api,
    watched: Arc<Watched>,
    page: Page,
    logs: Arc<Logs>,
    zipkin: Arc<ZipkinSettings>,
    acts: Arc<Mutex<acts::Acts>>,
    places: Arc<Semaphore>,
    /// Drawings made at once.
    pens: Arc<Semaphore>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

/// The API's paths and the map's.
pub fn router(api: Api, watched: Arc<Watched>, page: Page, logs: Arc<Logs>) -> Router {
    api::serve(table(api, watched, page, logs))
}

/// The paths that are told about; behind them is an answer for all others.
fn table(api: Api, watched: Arc<Watched>, page: Page, logs: Arc<Logs>) -> Table {
    let web = Web {
        api: api.clone(),
        watched: Arc::clone(&watched),
        page,
        logs,
        zipkin: Arc::new(ZipkinSettings::default()),
        acts: Arc::default(),
        places: Arc::new(Semaphore::new(PAGES_MAX)),
        pens: Arc::new(Semaphore::new(1)),
    };
    let (read, json) = (&Method::GET, "application/json");
    let table = Table::<Web>::new()
        .raw(read, "/v1/map", "The system as drawn (docs/live.md).", json, get(map))
        .raw(
            read,
            "/v1/live",
            "Frames of live numbers, over a WebSocket.",
            "application/octet-stream",
            get(live),
        )
        .raw(
            read,
            "/v1/live/events",
            "The same as Server-Sent Events.",
            "text/event-stream",
            get(live_events),
        )
        .raw(read, "/v1/nodes/{name}", "Everything about one service.", json, get(node))
        .raw(read, "/v1/map/view", "A part of the map, drawn anew.", json, get(zoom::view))
        .raw(read, "/v1/zoom", "How the map can be grouped.", json, get(zoom::zoom))
        .raw(&Method::POST, "/v1/act", "An act of the page (docs/live.md).", json, post(acts::act))
        .raw(read, "/v1/acts", "What was done through the page, newest first.", json, get(acts::acts))
        .layer_router(|router| router.fallback(other).layer(DefaultBodyLimit::max(SPANS_BYTES_MAX)))
        .with_state(web);
    let exports = crate::exports::routes(Arc::clone(&watched));
    let observed = crate::observed::routes(Arc::clone(&watched));
    let views = crate::views::routes(api.clone(), watched);
    api::routes(api).merge(table).merge(exports).merge(observed).merge(views)
}

async fn map(State(web): State<Web>) -> Response {
    let map: Arc<Map> = web.watched.map();
    ([(header::CACHE_CONTROL, "no-store")], Json((*map).clone())).into_response()
}

fn full() -> Refusal {
    Refusal {
        status: 503,
        message: format!("{PAGES_MAX} pages watch already; close one, or ask again later"),
    }
}

/// What a page already has; without it, it is sent everything at once.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Has {
    resume: Option<u32>,
    revision: Option<u32>,
}

async fn live(State(web): State<Web>, Query(has): Query<Has>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(place) = Arc::clone(&web.places).try_acquire_owned() else { return full().into_response() };
    upgrade.max_message_size(PAGE_MESSAGE_BYTES_MAX).max_frame_size(PAGE_MESSAGE_BYTES_MAX).on_upgrade(
        async move |socket| {
            let _place = place;
            // A page that leaves, and one that does not read, end in the same way: nothing is left to say.
            let _ = Viewer::new(web).serve(socket, has).await;
        },
    )
}

/// What a page says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    resume: Option<u32>,
    /// Of the map that `resume` belongs to.
    revision: Option<u32>,
    marker: Option<u32>,
}

/// One page that watches.
struct Viewer {
    web: Web,
    /// The last frame it was sent; `None` before the first.
    sent: Option<u32>,
    marker: u32,
    marked_at: Nanos,
    /// Markers on their way, with the moment of the oldest request that the frame before each showed first.
    waiting: VecDeque<(u32, Nanos)>,
    frame_before: Nanos,
    age: Option<Nanos>,
}

struct Gone;

impl Viewer {
    fn new(web: Web) -> Self {
        let now = web.watched.clocks.now();
        Self {
            web,
            sent: None,
            marker: 0,
            marked_at: now,
            waiting: VecDeque::new(),
            frame_before: now,
            age: None,
        }
    }

    async fn serve(mut self, mut socket: WebSocket, has: Has) -> Result<(), Gone> {
        let mut frames = self.web.watched.frames.subscribe();
        // The next frame may be a quarter of a second away, and somebody looks at an empty page.
        match has.resume {
            Some(resume) => self.resume(&mut socket, resume, has.revision).await?,
            None => self.keyframe(&mut socket).await?,
        }
        loop {
            tokio::select! {
                frame = frames.recv() => match frame {
                    Ok(frame) => self.on_frame(&mut socket, &frame).await?,
                    // Too slow for every change: it gets where things are now.
                    Err(broadcast::error::RecvError::Lagged(_)) => self.keyframe(&mut socket).await?,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                said = socket.recv() => match said {
                    Some(Ok(Message::Text(text))) => self.on_said(&mut socket, &text).await?,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    async fn on_frame(&mut self, socket: &mut WebSocket, frame: &Frame) -> Result<(), Gone> {
        match self.sent {
            // It already has this one: it was in a keyframe or a resume.
            Some(sent) if frame.sequence <= sent && sent - frame.sequence < u32::MAX / 2 => return Ok(()),
            Some(sent) if frame.sequence == sent.wrapping_add(1) => self.bytes(socket, frame).await?,
            _ => self.keyframe(socket).await?,
        }
        let now = self.web.watched.clocks.now();
        if now.saturating_sub(self.marked_at) >= MARKER_EVERY {
            self.marked_at = now;
            self.marker = self.marker.wrapping_add(1);
            if self.waiting.len() == MARKERS_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back((self.marker, self.frame_before));
            let age = self.age.map(|it| it.as_millis_f64().round());
            let words = serde_json::json!({"marker": self.marker, "age_ms": age}).to_string();
            send(socket, Message::Text(words.into())).await?;
        }
        self.frame_before = now;
        Ok(())
    }

    async fn on_said(&mut self, socket: &mut WebSocket, text: &str) -> Result<(), Gone> {
        // What is not understood is passed over: a newer page may say more than we know.
        let Ok(said) = serde_json::from_str::<Said>(text) else { return Ok(()) };
        if let Some(resume) = said.resume {
            self.resume(socket, resume, said.revision).await?;
        }
        if let Some(at) = said.marker.and_then(|it| self.waiting.iter().position(|(id, _)| *id == it)) {
            let (_, oldest) = self.waiting[at];
            self.waiting.drain(..=at);
            let age = self.web.watched.clocks.now().saturating_sub(oldest);
            self.age = Some(age);
            lock(&self.web.watched.ages).record(age);
        }
        Ok(())
    }

    async fn resume(
        &mut self,
        socket: &mut WebSocket,
        resume: u32,
        revision: Option<u32>,
    ) -> Result<(), Gone> {
        let same_map = revision.is_none_or(|it| it == self.web.watched.map().revision);
        let frames = lock(&self.web.watched.live).since(if same_map { resume } else { 0 });
        self.sent = self.sent.or(Some(resume));
        for frame in frames {
            self.bytes(socket, &frame).await?;
        }
        Ok(())
    }

    async fn keyframe(&mut self, socket: &mut WebSocket) -> Result<(), Gone> {
        let frame = lock(&self.web.watched.live).keyframe();
        match frame {
            Some(frame) => self.bytes(socket, &frame).await,
            None => Ok(()),
        }
    }

    async fn bytes(&mut self, socket: &mut WebSocket, frame: &Frame) -> Result<(), Gone> {
        self.sent = Some(frame.sequence);
        send(socket, Message::Binary(Bytes::copy_from_slice(&frame.bytes))).await
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Gone> {
    match tokio::time::timeout(SEND_MAX, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

async fn live_events(State(web): State<Web>) -> Response {
    let Ok(place) = Arc::clone(&web.places).try_acquire_owned() else { return full().into_response() };
    let frames = web.watched.frames.subscribe();
    let first = lock(&web.watched.live).keyframe();
    let revision = web.watched.map().revision;
    let state = (web, frames, first, revision, place);
    let stream =
        futures_util::stream::unfold(state, async |(web, mut frames, mut first, revision, place)| {
            let frame = match first.take() {
                Some(frame) => frame,
                None => match frames.recv().await {
                    Ok(frame) => frame,
                    Err(broadcast::error::RecvError::Lagged(_)) => lock(&web.watched.live).keyframe()?,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            if frame.revision != revision {
                let change = Event::default().event("change").data(frame.revision.to_string());
                let next = frame.revision;
                return Some((Ok::<_, Infallible>(change), (web, frames, Some(frame), next, place)));
            }
            let event = Event::default().event("frame").data(base64(&frame.bytes));
            Some((Ok(event), (web, frames, None, revision, place)))
        });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

async fn node(State(web): State<Web>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let status = Arc::clone(&web.api.status.borrow());
    let map = web.watched.map();
    let about = |it: &&crate::history::Change| it.subject.split('#').next() == Some(name.as_str());
    let changes: Vec<_> = {
        let history = lock(&web.api.history);
        let mut about: Vec<_> = history.since(0).1.filter(about).cloned().collect();
        about.reverse();
        about.truncate(page::CHANGES_MAX);
        about
    };
    let logs = {
        let (logs, name) = (Arc::clone(&web.logs), name.clone());
        // Logs are files; whoever waits for a disk waits alone.
        tokio::task::spawn_blocking(move || logs(&name, page::LOGS_MAX)).await.unwrap_or_default()
    };
    let (instances, promises) = {
        let now = web.watched.clocks.now();
        let instances = lock(&web.watched.measures).instances.view(Some(&name), page::INSTANCES_OVER, now);
        (instances, lock(&web.watched.promises).of_service(&name))
    };
    let past = map.find(&name).map(|node| Past::read(&lock(&web.watched.measures), &map, node));
    let past = past.unwrap_or_default();
    let document = {
        // The store first: somebody's search may hold it, and frames must not wait for that behind the numbers.
        let traces = lock(&web.watched.traces);
        let numbers = lock(&web.watched.numbers);
        let tally = lock(&web.watched.tally);
        let sources = page::Sources {
            map: &map,
            numbers: &numbers,
            past: &past,
            tally: &tally,
            kept: &|id| traces.reasons(id).is_some(),
            status: &status,
            changes: &changes,
            logs: &logs,
            instances: &instances,
            promises: &promises,
            started_unix_ms: web.watched.clocks.started_unix_ms,
        };
        page::page(&sources, &name)
    };
    let document = document.ok_or_else(|| {
        Refusal::not_found(format!("nothing here is called `{name}`; /v1/map lists who there is"))
    })?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(document)).into_response())
}

/// Traces, and the page for everything that is no path of the API.
async fn other(State(web): State<Web>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let text = |name: header::HeaderName| parts.headers.get(name).and_then(|it| it.to_str().ok());
    if path.starts_with("/api/") || path.starts_with("/zipkin") {
        let Ok(body) = axum::body::to_bytes(body, SPANS_BYTES_MAX).await else {
            return Refusal { status: 413, message: format!("at most {SPANS_BYTES_MAX} bytes at once") }
                .into_response();
        };
        // A search takes its time, and frames must not wait for it.
        let answer = tokio::task::spawn_blocking(move || {
            let headers: Vec<(&str, &str)> = parts
                .headers
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
                .collect();
            let asked = telemetry::http::Request {
                method: parts.method.as_str(),
                path: &path,
                query: parts.uri.query().unwrap_or(""),
                headers: &headers,
                body: &body,
            };
            handle(&web.zipkin, &mut *lock(&web.watched.traces), &asked, web.watched.clocks.unix())
        });
        return match answer.await {
            Ok(Some(answer)) => from_telemetry(answer),
            Ok(None) => api::unknown().await.into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    if path.starts_with("/v1/") || !matches!(parts.method, Method::GET | Method::HEAD) {
        return api::unknown().await.into_response();
    }
    let (status, headers, bytes) =
        (web.page)(&path, text(header::ACCEPT_ENCODING).unwrap_or(""), text(header::IF_NONE_MATCH));
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

fn from_telemetry(answer: telemetry::http::Response) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        let pair = (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = pair {
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole document is kept in docs/, so that a change of the API is seen in review as what it is. After one that
    /// is meant: `ISOBAR_WRITE=1 cargo test -p control openapi`.
    #[test]
    fn openapi_is_as_published() {
        let now: Arc<dyn Fn() -> Nanos + Send + Sync> = Arc::new(|| Nanos::ZERO);
        let watched = Watched::new(crate::watched::Clocks { now: Arc::clone(&now), started_unix_ms: 0 });
        let api = Api {
            requests: tokio::sync::mpsc::channel(1).0,
            status: tokio::sync::watch::channel(Arc::default()).1,
            history: Arc::default(),
            changes: broadcast::channel(1).0,
            registry: Arc::default(),
            registry_changed: Arc::default(),
            gate: Arc::new(crate::admit::Gate::new(String::new(), false, Arc::clone(&watched), || {
                Ok(String::new())
            })),
            now,
        };
        let page: Page = |_, _, _| (404, Vec::new(), &[][..]);
        let (_, document) = table(api, watched, page, Arc::new(|_: &str, _: usize| Vec::new())).finish();
        let text = format!("{document:#}\n");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("ISOBAR_WRITE").is_some() {
            std::fs::write(path, &text).expect("it can be written");
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            text == published,
            "the API changed; if it should have: ISOBAR_WRITE=1 cargo test -p control openapi"
        );
        for (path, of) in document["paths"].as_object().expect("paths") {
            for (method, it) in of.as_object().expect("methods") {
                assert!(it["summary"].as_str().is_some_and(|it| it.ends_with('.')), "{method} {path}");
            }
        }
        let reference = document.to_string();
        let defined = document["components"]["schemas"].as_object().expect("schemas");
        for part in reference.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(defined.contains_key(name), "{name} is named and not defined");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xBF]), "+/+/");
    }
}
