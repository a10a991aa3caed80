//! What a person may do from the map. Each act becomes a [`Command`] like any other and is remembered with its outcome.
//!
//! No page of another site can act: the header that an act needs cannot be set across sites without asking first, and
//! nobody here says yes.

use super::Web;
use crate::api::{self, Command, Refusal, ScenarioOrder, TrafficChange, lock};
use crate::history::Change;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Acts that are remembered.
const ACTS_MAX: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Act {
    Scenario { name: String },
    StopAll,
    Scale { service: String, to: u32 },
    Restart { service: String },
    Load { traffic: String, rate_per_second: f64 },
}

impl Act {
    fn words(&self) -> String {
        match self {
            Self::Scenario { name } => format!("scenario {name}"),
            Self::StopAll => "stop all".to_owned(),
            Self::Scale { service, to } => format!("scale {service} to {to}"),
            Self::Restart { service } => format!("restart {service}"),
            Self::Load { traffic, rate_per_second } => format!("{traffic} at {rate_per_second}/s"),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    id: u64,
    at: u64,
    who: String,
    what: String,
    state: &'static str,
    ends_at: Option<u64>,
    ended_at: Option<u64>,
    said: String,
}

#[derive(Debug, Default)]
pub(super) struct Acts {
    done: VecDeque<Done>,
    next: u64,
}

/// No page of another site can send this header without asking first, and we never say yes.
const ACT_HEADER: &str = "x-isobar-act";

/// A person at the map sees what happens, and still must not break more than was meant.
const MAP_GUARD: f64 = 10.0;

pub(super) async fn act(
    State(web): State<Web>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Refusal> {
    if headers.get(ACT_HEADER).is_none_or(|it| it != "1") {
        return Err(Refusal { status: 403, message: "an act needs the header `X-Isobar-Act: 1`".to_owned() });
    }
    if web.watched.map().read_only {
        return Err(Refusal { status: 403, message: "this map is read-only".to_owned() });
    }
    let act: Act = serde_json::from_slice(&body)
        .map_err(|error| Refusal::wrong(format!("the body is no act: {error}; docs/live.md lists them")))?;
    let what = act.words();
    let command = match act {
        Act::Scenario { name } => {
            Command::ScenarioStart(name, ScenarioOrder { guard: Some(MAP_GUARD), ..ScenarioOrder::default() })
        }
        Act::StopAll => Command::ScenarioStop(None),
        Act::Scale { service, to } => Command::Scale(service, to),
        Act::Restart { service } => Command::Restart(service),
        Act::Load { traffic, rate_per_second } => {
            if !rate_per_second.is_finite() || rate_per_second < 0.0 {
                return Err(Refusal::wrong("`rate_per_second` must be a number of at least 0"));
            }
            Command::Traffic(
                traffic,
                TrafficChange { running: Some(true), rate_per_second: Some(rate_per_second) },
            )
        }
    };
    let who = api::who_of(&headers).unwrap_or_else(|| "somebody at the map".to_owned());
    let answer = api::ask(&web.api, who.clone(), command).await;
    let mut acts = lock(&web.acts);
    acts.next += 1;
    let id = acts.next;
    let done = Done {
        id,
        at: web.watched.clocks.unix().as_u64() / 1_000_000,
        who,
        state: if answer.is_ok() { "done" } else { "refused" },
        ends_at: None,
        ended_at: None,
        said: answer.as_ref().err().map_or_else(String::new, |it| it.message.clone()),
        what: what.clone(),
    };
    if acts.done.len() >= ACTS_MAX {
        acts.done.pop_back();
    }
    acts.done.push_front(done);
    drop(acts);
    answer.map(|_| Json(serde_json::json!({"id": id, "said": format!("{what}: under way")})))
}

/// Newest first. What runs is what the system says runs, whoever started it.
pub(super) async fn acts(State(web): State<Web>) -> Json<Vec<Done>> {
    let mut done: Vec<Done> = lock(&web.acts).done.iter().cloned().collect();
    let status = Arc::clone(&web.api.status.borrow());
    if let Some(running) = &status.scenario {
        let what = format!("scenario {}", running.name);
        let ends_at = status.unix_ms + running.lasts_ms.saturating_sub(running.at_ms);
        match done.iter_mut().find(|it| it.what == what && it.state == "done") {
            Some(it) => (it.state, it.ends_at) = ("running", Some(ends_at)),
            None => done.insert(
                0,
                Done {
                    id: 0,
                    at: status.unix_ms.saturating_sub(running.at_ms),
                    who: running.who.clone(),
                    what,
                    state: "running",
                    ends_at: Some(ends_at),
                    ended_at: None,
                    said: running.in_force.join("; "),
                },
            ),
        }
    }
    ended(&mut done, lock(&web.api.history).since(0).1);
    Json(done)
}

/// Scenarios that ran and run no more: when that was and why, as the history has it.
fn ended<'h>(done: &mut [Done], history: impl Iterator<Item = &'h Change>) {
    // What a scenario does on its way is in the history, too, in the file's own words.
    let is_end = |text: &str| {
        text == "over" || text.starts_with("stopped by ") || text.starts_with("whoever started it is gone")
    };
    let ends: Vec<&Change> = history.filter(|it| it.kind == "scenario" && is_end(&it.text)).collect();
    for it in done.iter_mut().filter(|it| it.state == "done") {
        let Some(name) = it.what.strip_prefix("scenario ") else { continue };
        if let Some(end) = ends.iter().find(|end| end.subject == name && end.unix_ms >= it.at) {
            (it.state, it.ended_at, it.said) = ("ended", Some(end.unix_ms), end.text.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_ended_says_when_and_why() {
        let act = |at: u64, what: &str, state: &'static str| Done {
            id: at,
            at,
            who: "Ada".to_owned(),
            what: what.to_owned(),
            state,
            ends_at: None,
            ended_at: None,
            said: String::new(),
        };
        let mut history = crate::history::History::default();
        for (at, kind, subject, text) in [
            (10, "scenario", "a", "starts"),
            (12, "scenario", "a", "stop over there"),
            (15, "scenario", "a", "over"),
            (16, "service", "a", "over"),
            (20, "scenario", "b", "stopped by Ada"),
            (31, "scenario", "a", "stopped by its guard: `x` is far from holding"),
        ] {
            history.record(at, "isobar", kind, subject, text.to_owned());
        }
        let mut done = vec![
            act(40, "scenario a", "done"),
            act(30, "scenario a", "done"),
            act(19, "scenario b", "running"),
            act(18, "restart a", "done"),
            act(9, "scenario a", "refused"),
            act(10, "scenario a", "done"),
        ];
        ended(&mut done, history.since(0).1);
        let told: Vec<_> = done.iter().map(|it| (it.state, it.ended_at, it.said.as_str())).collect();
        let guard = "stopped by its guard: `x` is far from holding";
        assert_eq!(
            told,
            [
                ("done", None, ""),
                ("ended", Some(31), guard),
                ("running", None, ""),
                ("done", None, ""),
                ("refused", None, ""),
                ("ended", Some(15), "over"),
            ]
        );
    }

    #[track_caller]
    fn check_act(body: &str, expected: Result<&str, &str>) {
        let read = serde_json::from_str::<Act>(body).map(|it| it.words()).map_err(|it| it.to_string());
        match expected {
            Ok(words) => assert_eq!(read.as_deref(), Ok(words)),
            Err(part) => assert!(read.as_ref().is_err_and(|it| it.contains(part)), "{read:?} of {body}"),
        }
    }

    #[test]
    fn acts_are_read_strictly() {
        check_act(r#"{"do": "scenario", "name": "ads-lost"}"#, Ok("scenario ads-lost"));
        check_act(r#"{"do": "stop-all"}"#, Ok("stop all"));
        check_act(r#"{"do": "scale", "service": "web", "to": 4}"#, Ok("scale web to 4"));
        check_act(r#"{"do": "restart", "service": "web"}"#, Ok("restart web"));
        check_act(r#"{"do": "load", "traffic": "a", "rate_per_second": 2.5}"#, Ok("a at 2.5/s"));
        check_act(r#"{"do": "scale", "service": "web", "to": -4}"#, Err("-4"));
        check_act(r#"{"do": "format-disk"}"#, Err("format-disk"));
        check_act(r#"{"do": "restart", "service": "web", "force": true}"#, Err("force"));
    }
}
