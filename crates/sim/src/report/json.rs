//! The report as JSON. `docs/report.md` describes it; names end in their unit, an estimate is
//! `{"value", "low", "high"}` with `null` for a bound that one run alone cannot give.

use super::*;
use serde_json::{Map, Value, json};

/// Changes when a key is renamed or means something else; new keys do not change it.
const SCHEMA: u32 = 1;

impl Report {
    pub fn to_json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "system": self.system,
            "scenario": self.scenario,
            "seed": self.seed,
            "runs": self.runs,
            "runs_ended": self.runs_ended,
            "partial": self.partial,
            "warm_up_s": self.warm_up.as_secs_f64(),
            "unsettled": self.unsettled,
            "measured_s": self.measured.as_secs_f64(),
            "events": self.events,
            "method": "means and quantiles of all runs together; 95 % intervals by Student's t over independent runs; warm-up cut by MSER-5",
            "verdict": verdict(&self.verdict),
            "timeline": self.timeline.iter().map(|it| json!({"at_s": number(it.at.as_secs_f64()), "text": it.text})).collect::<Vec<_>>(),
            "objectives": self.objectives.iter().map(objective).collect::<Vec<_>>(),
            "traffic": self.traffic.iter().map(traffic).collect::<Vec<_>>(),
            "services": self.services.iter().map(service).collect::<Vec<_>>(),
            "edges": self.edges.iter().map(edge).collect::<Vec<_>>(),
            "instances": self.instances.iter().map(instance).collect::<Vec<_>>(),
            "zones": self.zones.iter().map(zone).collect::<Vec<_>>(),
            "consumers": self.consumers.iter().map(consumer).collect::<Vec<_>>(),
            "cost": cost(&self.cost),
        })
    }
}

fn number(value: f64) -> Value {
    // Twelve digits are more than any interval allows, and end rounding's tails.
    if value.is_finite() {
        let rounded: f64 = format!("{value:.11e}").parse().unwrap_or(value);
        json!(rounded)
    } else {
        Value::Null
    }
}

fn estimate(it: &Estimate) -> Value {
    json!({"value": number(it.value), "low": number(it.low), "high": number(it.high)})
}

fn milliseconds(it: &Estimate) -> Value {
    estimate(&Estimate { value: it.value * 1e3, low: it.low * 1e3, high: it.high * 1e3 })
}

fn latency_ms(it: &LatencyReport) -> Value {
    json!({
        "count": it.histogram.count(),
        "mean": milliseconds(&it.mean),
        "p50": milliseconds(&it.p50),
        "p90": milliseconds(&it.p90),
        "p99": milliseconds(&it.p99),
        "p99.9": milliseconds(&it.p999),
        "max": it.histogram.max().map(|it| number(it.as_millis_f64())),
    })
}

fn requests(it: &RequestsReport) -> Value {
    let errors: Map<String, Value> =
        it.errors.iter().map(|(cause, rate)| (cause.word().to_owned(), number(*rate))).collect();
    json!({
        "rate_per_s": estimate(&it.rate),
        "goodput_per_s": estimate(&it.goodput),
        "availability": estimate(&it.availability),
        "errors_per_s": errors,
        "latency_ms": latency_ms(&it.latency),
    })
}

fn verdict(it: &Verdict) -> Value {
    let finding = |it: &Finding| {
        json!({
            "service": it.service,
            "what": it.what,
            "why": it.why,
            "change": it.change.as_ref().map(|it| json!({
                "text": it.text,
                "cost_per_month_usd": it.cost_per_month.map(number),
                "effect": it.effect,
            })),
            "tried": it.tried,
        })
    };
    json!({
        "holds": it.holds,
        "headline": it.headline,
        "findings": it.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn objective(it: &Objective) -> Value {
    json!({
        "text": it.text,
        "service": it.service,
        "of": if it.of_scenario { "scenario" } else { "slo" },
        "measured": estimate(&it.measured),
        "limit": number(it.limit),
        "at_least": it.at_least,
        "met": it.met,
        "budget_burn": it.burn.map(number),
    })
}

fn traffic(it: &TrafficReport) -> Value {
    let moment = |it: &Moment| {
        json!({
            "at_s": number(it.at.as_secs_f64()),
            "ok_per_s": number(it.ok_per_second),
            "failed_per_s": number(it.failed_per_second),
            "p50_ms": it.p50.map(|it| number(it * 1e3)),
            "p99_ms": it.p99.map(|it| number(it * 1e3)),
        })
    };
    json!({
        "name": it.name,
        "sent_per_s": estimate(&it.sent_per_second),
        "requests": requests(&it.requests),
        "series": it.series.iter().map(moment).collect::<Vec<_>>(),
    })
}

fn service(it: &ServiceReport) -> Value {
    let operation = |it: &OperationReport| {
        json!({
            "name": it.name,
            "requests": requests(&it.requests),
            "wait_ms": latency_ms(&it.wait),
            "cache_hit_share": it.cache_hit_share.map(number),
            "stale_reads_per_s": number(it.stale_reads_per_second),
        })
    };
    json!({
        "name": it.name,
        "kind": it.kind,
        "instances": it.instances,
        "requests": requests(&it.requests),
        "utilisation": it.utilisation.as_ref().map(estimate),
        "busy": estimate(&it.busy),
        "waiting": estimate(&it.waiting),
        "waiting_max": it.waiting_max,
        "lost_writes": it.lost_writes,
        "cost_per_month_usd": number(it.cost_per_month),
        "operations": it.operations.iter().map(operation).collect::<Vec<_>>(),
    })
}

fn edge(it: &EdgeReport) -> Value {
    json!({
        "from": it.from,
        "to": it.to,
        "operation": it.operation,
        "calls": requests(&it.calls),
        "attempts_per_call": estimate(&it.attempts_per_call),
        "retries_per_s": number(it.retries_per_second),
        "hedges_per_s": number(it.hedges_per_second),
        "budget_refused_per_s": number(it.budget_refused_per_second),
        "timeouts_per_s": number(it.timeouts_per_second),
        "degraded_per_s": number(it.degraded_per_second),
        "pool_waits_per_s": number(it.pool_waits_per_second),
        "in_zone_share": number(it.in_zone_share),
        "breaker_trips": number(it.breaker_trips),
        "breaker_open_share": number(it.breaker_open_share),
        "ejections": number(it.ejections),
        "ejected_instances": number(it.ejected),
        "ejections_withheld": number(it.ejections_withheld),
    })
}

fn instance(it: &InstanceReport) -> Value {
    json!({
        "name": it.name,
        "service": it.service,
        "place": it.place,
        "rate_per_s": estimate(&it.rate),
        "failed_per_s": number(it.failed_per_second),
        "utilisation": it.utilisation.as_ref().map(estimate),
        "waiting": estimate(&it.waiting),
        "up_share": number(it.up_share),
    })
}

fn zone(it: &ZoneReport) -> Value {
    json!({
        "name": it.name,
        "instances": it.instances,
        "rate_per_s": estimate(&it.rate),
        "failed_per_s": number(it.failed_per_second),
        "bytes_out_per_s": number(it.bytes_out_per_second),
    })
}

fn consumer(it: &ConsumerReport) -> Value {
    json!({
        "topic": it.topic,
        "consumer": it.consumer,
        "published_per_s": estimate(&it.published_per_second),
        "delivered_per_s": estimate(&it.delivered_per_second),
        "expired": it.expired,
        "lag_max": it.lag_max,
        "age_ms": latency_ms(&it.age),
    })
}

fn cost(it: &Cost) -> Value {
    let transfer = |it: &Transfer| {
        json!({
            "from": it.from,
            "to": it.to,
            "gb_per_month": number(it.gigabytes_per_month),
            "per_month_usd": number(it.per_month),
        })
    };
    json!({
        "per_month_usd": number(it.per_month),
        "instances_usd": number(it.instances),
        "transfer_usd": number(it.transfer),
        "transfers": it.transfers.iter().map(transfer).collect::<Vec<_>>(),
    })
}
