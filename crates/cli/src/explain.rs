//! `isobar explain`: the policy in force on a call, and which line of the file each part came from.

use crate::output::{self, Terminal};
use crate::{exit, input};
use model::render::Places;
use model::system::{Caller, OperationId, ServiceId, System};
use policy::settings::{Balance, Breaker, Budget, Concurrency, EdgeSettings, Eject, Retry, Trip};
use serde_json::json;
use std::path::PathBuf;

/// Show which policy governs a call, and which line of the file set each part of it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar explain web cart                   a service calls another
  isobar explain web cart 'GET /cart/{id}'  one operation of it
  isobar explain edge web                   a gateway calls a service")]
pub(crate) struct Args {
    /// A service or a gateway
    caller: String,

    /// A service
    callee: String,

    /// One of its operations
    operation: Option<String>,

    /// A file, a folder that holds isobar.yaml, or - for standard input
    #[arg(short, long, default_value = ".")]
    file: PathBuf,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let Some((system, sources)) = input::system(&args.file, terminal)? else { return Ok(exit::USAGE) };
    let caller = find_caller(&system, &args.caller)?;
    let callee = find_service(&system, &args.callee)?;
    let operation = args.operation.as_ref().map(|name| find_operation(&system, callee, name)).transpose()?;
    let in_force = system.policy(caller, callee, operation);
    let places = Places::new(&sources);
    let set_at = |key: &str| {
        let (_, span) = in_force.set_by.iter().find(|(name, _)| *name == key)?;
        let place = places.of(*span)?;
        Some((place.path.display().to_string(), place.line))
    };
    let parts = parts(&in_force.settings);
    if args.json {
        let parts: Vec<serde_json::Value> = parts
            .iter()
            .map(|(key, value)| {
                let at = set_at(key).map(|(path, line)| json!({"path": path, "line": line}));
                json!({"key": key, "value": value, "set_by": at})
            })
            .collect();
        let answer = json!({"caller": args.caller, "callee": args.callee, "operation": args.operation, "policy": parts});
        output::print(&format!("{answer}\n"))?;
        return Ok(exit::OK);
    }
    let operation = args.operation.as_ref().map_or_else(String::new, |it| format!(" {it:?}"));
    let mut text = format!("{} -> {}{operation}\n", args.caller, args.callee);
    for (key, value) in parts {
        let by = set_at(key).map_or("built in".to_owned(), |(path, line)| format!("{path}:{line}"));
        text.push_str(&format!("  {key:<12} {by:<28} {value}\n"));
    }
    output::print(&text)?;
    Ok(exit::OK)
}

/// Each part under the key that the file uses for it, as the file would say it.
fn parts(settings: &EdgeSettings) -> Vec<(&'static str, String)> {
    fn or_none<T>(part: Option<&T>, say: impl Fn(&T) -> String) -> String {
        part.map_or_else(|| "none".to_owned(), say)
    }
    vec![
        ("timeout", or_none(settings.timeout.as_ref(), ToString::to_string)),
        ("retry", or_none(settings.retry.as_ref(), retry)),
        (
            "hedge",
            or_none(settings.hedge.as_ref(), |it| {
                format!("{{after: {}, copies: {}, budget: {}}}", it.after, it.copies, budget(&it.budget))
            }),
        ),
        ("breaker", or_none(settings.breaker.as_ref(), breaker)),
        ("eject", or_none(settings.eject.as_ref(), eject)),
        ("balance", balance(&settings.balance)),
        ("locality", kebab(&format!("{:?}", settings.locality))),
        (
            "concurrency",
            or_none(settings.concurrency.as_ref(), |it| match it {
                Concurrency::Static { max } => max.to_string(),
                Concurrency::Gradient { min, max } => format!("{{gradient: {{min: {min}, max: {max}}}}}"),
                Concurrency::Vegas { max } => format!("{{vegas: {{max: {max}}}}}"),
                Concurrency::Aimd { min, max } => format!("{{aimd: {{min: {min}, max: {max}}}}}"),
            }),
        ),
        (
            "rate_limit",
            or_none(settings.rate_limit.as_ref(), |it| format!("{{rate: {}, burst: {}}}", it.rate, it.burst)),
        ),
        (
            "throttle",
            or_none(settings.throttle.as_ref(), |it| {
                format!("{{k: {}, window: {}}}", f64::from(it.k_thousandths) / 1e3, it.window)
            }),
        ),
        ("priority", kebab(&format!("{:?}", settings.priority))),
        ("connections", settings.connections.to_string()),
    ]
}

/// `PeakEwma` is `peak-ewma` in the file.
fn kebab(name: &str) -> String {
    let mut word = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

fn budget(it: &Budget) -> String {
    format!("{{ratio: {}, floor: {}, window: {}}}", it.ratio, it.floor, it.window)
}

fn retry(it: &Retry) -> String {
    let on = [
        (it.on.connect_failure, "connect-failure"),
        (it.on.reset, "reset"),
        (it.on.timeout, "timeout"),
        (it.on.unavailable, "unavailable"),
        (it.on.server_error, "5xx"),
        (it.on.throttled, "throttled"),
    ];
    let on: Vec<&str> = on.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    let mut text = format!("{{attempts: {}", it.attempts);
    if let Some(per_try) = it.per_try {
        text.push_str(&format!(", per_try: {per_try}"));
    }
    let jitter = kebab(&format!("{:?}", it.backoff.jitter));
    let allowed = it.budget.as_ref().map_or_else(|| "none".to_owned(), budget);
    text.push_str(&format!(", budget: {allowed}, on: [{}]", on.join(", ")));
    text.push_str(&format!(
        ", backoff: {{base: {}, max: {}, jitter: {jitter}}}",
        it.backoff.base, it.backoff.max
    ));
    if it.non_idempotent {
        text.push_str(", non_idempotent: true");
    }
    text + "}"
}

fn breaker(it: &Breaker) -> String {
    let trip = match it.trip {
        Trip::Consecutive { failures } => format!("failures: {failures}"),
        Trip::Rate { errors, requests_min, window } => {
            format!("errors: {errors}, requests: {requests_min}, window: {window}")
        }
    };
    format!("{{{trip}, pause: {}, pause_max: {}}}", it.pause, it.pause_max)
}

fn eject(it: &Eject) -> String {
    let mut text = format!("{{consecutive: {}", it.consecutive);
    if let Some(rule) = &it.deviation {
        let factor = f64::from(rule.factor_thousandths) / 1e3;
        text.push_str(&format!(
            ", deviation: {{factor: {factor}, instances: {}, requests: {}}}",
            rule.instances_min, rule.requests_min
        ));
    }
    if let Some(rule) = &it.failure_share {
        text.push_str(&format!(
            ", failures: {{share: {}, instances: {}, requests: {}}}",
            rule.threshold, rule.instances_min, rule.requests_min
        ));
    }
    format!(
        "{text}, interval: {}, base: {}, max: {}, share: {}}}",
        it.interval, it.base, it.max, it.share_max
    )
}

fn balance(it: &Balance) -> String {
    let kind = kebab(&format!("{:?}", it.kind));
    if it.slow_start.is_zero() {
        return format!("{{kind: {kind}, panic: {}}}", it.panic);
    }
    format!("{{kind: {kind}, slow_start: {}, panic: {}}}", it.slow_start, it.panic)
}

fn find_caller(system: &System, name: &str) -> anyhow::Result<Caller> {
    if let Some((id, _)) = system.gateways.enumerate().find(|(_, it)| it.name.value == name) {
        return Ok(Caller::Gateway(id));
    }
    find_service(system, name).map(Caller::Service)
}

fn find_service(system: &System, name: &str) -> anyhow::Result<ServiceId> {
    let found = system.services.enumerate().find(|(_, it)| it.name.value == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let known: Vec<&str> = system.services.iter().map(|it| it.name.value.as_str()).collect();
        anyhow::anyhow!("no service is called `{name}`; this file defines {}", known.join(", "))
    })
}

fn find_operation(system: &System, service: ServiceId, name: &str) -> anyhow::Result<OperationId> {
    let operations = &system.services[service].operations;
    let found = operations.enumerate().find(|(_, it)| it.name.value == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let known: Vec<&str> = operations.iter().map(|it| it.name.value.as_str()).collect();
        anyhow::anyhow!("it has no operation `{name}`; it has: {}", known.join(", "))
    })
}
