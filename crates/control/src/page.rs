//! Everything about one service as its page shows it (`GET /v1/nodes/{name}`, docs/live.md).
//!
//! Pure: what the watcher knows in, one JSON document out. What nobody measured is `null`.

use crate::history::Change;
use crate::map::{GATEWAY, Map, Node};
use crate::numbers::{Counts, Numbers, PoolNow};
use crate::past::{BOUNDS_MS, Past};
use crate::status::{InstanceStatus, Status};
use crate::tally::Tally;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use telemetry::ids::TraceId;
use telemetry::metrics::InstanceView;
use units::Nanos;

/// A line of an instance's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Wall-clock milliseconds.
    pub at: u64,
    pub instance: String,
    pub stream: &'static str,
    pub line: String,
}

/// Changes shown, and lines of logs.
pub const CHANGES_MAX: usize = 50;
pub const LOGS_MAX: usize = 100;
/// Behind an instance's percentiles.
pub const INSTANCES_OVER: Nanos = Nanos::from_secs(60);

pub struct Sources<'a> {
    pub map: &'a Map,
    pub numbers: &'a Numbers,
    /// Of whom the page is about.
    pub past: &'a Past,
    pub tally: &'a Tally,
    /// Whether a trace can still be looked at.
    pub kept: &'a dyn Fn(TraceId) -> bool,
    pub status: &'a Status,
    /// Newest first.
    pub changes: &'a [Change],
    pub logs: &'a [LogLine],
    /// Over [`INSTANCES_OVER`].
    pub instances: &'a [InstanceView],
    /// As [`crate::promises::Promises::of_service`] gives them.
    pub promises: &'a [Value],
    pub started_unix_ms: u64,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("map", &self.map.system).finish_non_exhaustive()
    }
}

/// Four digits are what a page shows; more only make it longer.
pub(crate) fn number(value: f64) -> Value {
    let short = format!("{value:.3e}").parse::<f64>().ok().filter(|it| it.is_finite());
    short.map_or(Value::Null, |it| json!(it))
}

fn known(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}

fn per_second(counts: &Counts, seconds: u64) -> Value {
    if seconds == 0 { Value::Null } else { number(counts.requests as f64 / seconds as f64) }
}

/// `None`: nobody is called so.
pub fn page(sources: &Sources<'_>, name: &str) -> Option<Value> {
    let node = sources.map.find(name)?;
    let past = sources.past;
    let team = node.team.and_then(|it| sources.map.teams.get(it));
    let service = sources.status.services.iter().find(|it| it.name == node.name && node.kind != GATEWAY);
    let instances = service.map_or(&[][..], |it| &it.instances);
    let own = sources.tally.instances();
    Some(json!({
        "name": node.name, "kind": node.kind, "description": node.description, "team": team,
        "seconds": seconds(past, sources),
        "heatmap": heatmap(past, sources, &node.name),
        "calls": calls(sources, node),
        "instances": instances.iter().map(|it| instance(sources, &own, it)).collect::<Vec<_>>(),
        "versions": node.versions.iter().map(|it| version(past, it, node.versions.len())).collect::<Vec<_>>(),
        "slo": slo(node, sources.promises),
        "changes": sources.changes.iter().take(CHANGES_MAX)
            .map(|it| json!({"at": it.unix_ms, "what": format!("{} ({})", it.text, it.who)})).collect::<Vec<_>>(),
        "lints": node.lints,
        "logs": sources.logs,
        "policy": &node.policy[..],
    }))
}

fn seconds(past: &Past, sources: &Sources<'_>) -> Value {
    let (mut rates, mut errors, mut quantiles) = (Vec::new(), Vec::new(), [const { Vec::new() }; 4]);
    for it in &past.seconds {
        rates.push(number(it.requests as f64));
        errors.push(known(it.errors()));
        for (column, value) in quantiles.iter_mut().zip(it.quantiles_ms([0.5, 0.9, 0.99, 0.999])) {
            column.push(known(value));
        }
    }
    let [p50, p90, p99, p999] = quantiles;
    json!({
        "from": sources.started_unix_ms + past.first * 1_000,
        "rate": rates, "errors": errors, "p50": p50, "p90": p90, "p99": p99, "p999": p999,
    })
}

fn heatmap(past: &Past, sources: &Sources<'_>, name: &str) -> Value {
    let columns = past.columns.iter().map(|it| {
        let at = sources.started_unix_ms + it.since_start.as_u64() / 1_000_000;
        let examples = sources.tally.examples(name, it.since_start, sources.kept);
        json!({"at": at, "counts": it.counts, "trace_ids": examples})
    });
    json!({"bounds_ms": BOUNDS_MS, "columns": columns.collect::<Vec<_>>()})
}

fn calls(sources: &Sources<'_>, node: &Node) -> Vec<Value> {
    let name = |id: u32| sources.map.nodes.get(id as usize).map(|it| it.name.as_str());
    let touching = |it: &&crate::map::Edge| it.from == node.id || it.to == node.id;
    sources
        .map
        .edges
        .iter()
        .filter(touching)
        .map(|edge| {
            let rates = sources.numbers.edges.get(edge.id as usize).map(|it| &it.rates);
            let (from, to) = (name(edge.from), name(edge.to));
            let lately = sources.past.call(from.unwrap_or_default(), to.unwrap_or_default());
            let [p50, p90, p99, p999] = lately.quantiles_ms([0.5, 0.9, 0.99, 0.999]).map(known);
            let breaker = sources.numbers.breakers.get(&(edge.id as usize));
            let call = sources.numbers.calls.get(&(edge.id as usize));
            json!({
                "from": from, "to": to,
                "rate": per_second(&lately, sources.past.lately), "errors": known(lately.errors()),
                "p50": p50, "p90": p90, "p99": p99, "p999": p999,
                "retries": known(lately.retries_per_request()), "budget": known(call.and_then(|it| it.budget)),
                "breaker": breaker.map(|(open, of)| json!({"open": open, "of": of})), "pool": call.map(|it| pool(it.pool)),
                "spark": rates.into_iter().flatten().map(|it| number(f64::from(*it))).collect::<Vec<_>>(),
            })
        })
        .collect()
}

fn pool(it: PoolNow) -> Value {
    let in_use = it.open.saturating_sub(it.idle);
    json!({"open": it.open, "in_use": in_use, "idle": it.idle, "waiting": it.waiting, "max_per_instance": it.most})
}

fn instance(sources: &Sources<'_>, own: &HashMap<u16, Value>, it: &InstanceStatus) -> Value {
    let seen = it.port.and_then(|port| sources.numbers.instances.get(&port));
    let why = match (it.detail.is_empty(), seen.and_then(|it| it.verdict.as_deref())) {
        (false, _) => it.detail.clone(),
        (true, Some(verdict)) if seen.is_some_and(|it| it.ejected) || verdict.contains("; kept") => {
            verdict.to_owned()
        }
        (true, Some(verdict)) => format!("in use again; was out for {verdict}"),
        (true, None) => "nothing speaks against it".to_owned(),
    };
    let measured = sources.instances.iter().find(|view| *view.instance == *it.name);
    let p99 = match measured.and_then(|it| it.latency.histogram().quantile(0.99)) {
        Some(p99) => number(p99.as_millis_f64()),
        None => it.port.and_then(|port| own.get(&port)).map_or(Value::Null, |it| it["p99"].clone()),
    };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": it.name, "zone": some(&it.place), "version": some(&it.version), "state": it.state,
        "healthy": it.state == "ready", "ejected": seen.is_some_and(|it| it.ejected), "why": why,
        "in_flight": seen.map(|it| it.in_flight), "rate": known(seen.and_then(|it| it.rate)),
        "errors": known(seen.and_then(|it| it.errors)), "p99": p99,
    })
}

fn version(past: &Past, name: &str, versions: usize) -> Value {
    let all = past.version("");
    // One version is the service; then nobody counted it apart.
    let own = past.version(if versions == 1 { "" } else { name });
    let share = (all.requests > 0).then(|| own.requests as f64 / all.requests as f64);
    let [p50, p99] = own.quantiles_ms([0.5, 0.99]).map(known);
    json!({
        "name": name, "share": known(share), "rate": per_second(&own, past.lately),
        "errors": known(own.errors()), "p50": p50, "p99": p99,
    })
}

/// What was promised, as [`crate::promises`] watches it: over the promise's own window, or as much of it as was seen.
fn slo(node: &Node, promises: &[Value]) -> Value {
    let Some(slo) = &node.slo else { return Value::Null };
    let find = |target: f64, limit_ms: Option<f64>| {
        promises
            .iter()
            .find(|it| it["target"].as_f64() == Some(target) && it["limit_ms"].as_f64() == limit_ms)
    };
    let of = |it: Option<&Value>, key: &str| known(it.and_then(|it| it[key].as_f64()));
    let availability = slo.availability.map(|target| {
        let it = find(target, None);
        let burn = |key: &str| known(it.and_then(|it| it["rules"][0][key].as_f64()));
        json!({
            "target": target, "good": of(it, "good"), "budget_left": of(it, "budget_left"),
            "burn_short": burn("burn_short"), "burn_long": burn("burn_long"),
        })
    });
    let latency: Vec<Value> = slo
        .latency
        .iter()
        .map(|(share, limit_ms)| {
            let it = find(*share, Some(Nanos::from_secs_f64(limit_ms / 1e3).as_millis_f64()));
            json!({
                "share": share, "limit_ms": limit_ms, "good": of(it, "good"), "budget_left": of(it, "budget_left"),
            })
        })
        .collect();
    json!({"availability": availability, "latency": latency})
}
