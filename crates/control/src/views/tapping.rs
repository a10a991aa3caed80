//! The door of taps: who asks gets requests as they end, for as long as they read.

use super::tap::{LIMIT_MAX, PER_SECOND, PER_SECOND_MAX, TapLine};
use super::{Asked, Views};
use crate::api::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;

/// `GET /v1/tap?filter=&limit=&per_second=`: one JSON object a line, until the limit or until the reader goes.
pub(crate) async fn tap(State(views): State<Views>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let asked = Asked::read(query.as_deref(), &["filter", "limit", "per_second"])?;
    let limit = asked.count("limit", LIMIT_MAX, LIMIT_MAX)?;
    let per_second = asked.count("per_second", PER_SECOND, PER_SECOND_MAX)?;
    let now = views.watched.clocks.now();
    let lines = views.watched.taps.open(asked.filter()?, per_second, now)?;
    let stream = futures_util::stream::unfold((lines, limit), async |(mut lines, left)| {
        if left == 0 {
            return None;
        }
        let line = lines.recv().await?;
        let left = left - usize::from(matches!(line, TapLine::Request(_)));
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), (lines, left)))
    });
    let head = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(stream)).into_response())
}
