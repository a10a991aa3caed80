//! The map at another scale, and the numbers that only some scales show.
//!
//! A view is laid out when it is asked for, by few at once: a drawing of thousands takes long enough to be worth a limit.

use super::Web;
use crate::api::{Refusal, lock};
use crate::map::view::{self, By};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// Groups that may be wished open.
const OPEN_MAX: usize = 64;
/// Services whose instances are told in one answer: what fits on a screen.
const NODES_MAX: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    by: Option<String>,
    /// Names of groups, with commas; the one opened last at the end.
    #[serde(default)]
    open: String,
}

pub(super) async fn view(State(web): State<Web>, Query(wish): Query<Wish>) -> Result<Response, Refusal> {
    let word = wish.by.as_deref().unwrap_or("auto");
    let by = By::parse(word).ok_or_else(|| {
        let known = "auto, service, team, zone, region, version";
        Refusal::wrong(format!(
            "a map cannot be grouped by `{}`; it can by {known}",
            word.chars().take(40).collect::<String>()
        ))
    })?;
    let open: Vec<String> =
        wish.open.split(',').filter(|it| !it.is_empty()).take(OPEN_MAX).map(str::to_owned).collect();
    let map = web.watched.map();
    // One drawing at a time: whoever wants a second waits, and the numbers go on meanwhile.
    let Ok(_pen) = web.pens.acquire().await else {
        return Err(Refusal { status: 503, message: "isobar is ending".to_owned() });
    };
    let view = tokio::task::spawn_blocking(move || view::of(&map, by, &open)).await;
    let view =
        view.map_err(|_| Refusal { status: 500, message: "this map cannot be laid out".to_owned() })?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Closer {
    /// Ids of nodes, with commas: those whose instances are to be told. `all`: of everybody, in few words.
    #[serde(default)]
    nodes: String,
}

/// What went between zones and versions, and how instances are.
pub(super) async fn zoom(State(web): State<Web>, Query(closer): Query<Closer>) -> Response {
    let all = closer.nodes == "all";
    let wanted: HashSet<u32> =
        closer.nodes.split(',').filter_map(|it| it.parse().ok()).take(NODES_MAX).collect();
    let status = Arc::clone(&web.api.status.borrow());
    let map = web.watched.map();
    let ((zones, versions), own) = {
        let tally = lock(&web.watched.tally);
        (tally.between(), tally.instances())
    };
    let seen = lock(&web.watched.numbers).instances.clone();
    let mut instances = Vec::new();
    for node in map.nodes.iter().filter(|it| all || wanted.contains(&it.id)) {
        let Some(service) = status.services.iter().find(|it| it.name == node.name) else { continue };
        for it in service.instances.iter().filter(|it| !matches!(it.state.as_str(), "stopped" | "completed"))
        {
            let zone = map.zones.iter().position(|zone| *zone == it.place);
            let ready = it.state == "ready";
            let seen = it.port.and_then(|port| seen.get(&port));
            let ejected = seen.is_some_and(|it| it.ejected);
            if all {
                instances.push(json!({"node": node.id, "zone": zone, "healthy": ready, "ejected": ejected}));
                continue;
            }
            let numbers = it.port.and_then(|port| own.get(&port)).cloned().unwrap_or(Value::Null);
            let version = node.versions.iter().position(|name| *name == it.version);
            instances.push(json!({
                "node": node.id, "id": it.name, "zone": zone, "version": version, "state": it.state,
                "healthy": ready, "ejected": ejected,
                "in_flight": seen.map(|it| it.in_flight), "rate": numbers["rate"], "errors": numbers["errors"],
                "p99": numbers["p99"],
            }));
        }
    }
    let at = web.watched.clocks.unix().as_u64() / 1_000_000;
    let document = json!({
        "at": at, "revision": map.revision, "zones": zones, "versions": versions, "instances": instances,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
