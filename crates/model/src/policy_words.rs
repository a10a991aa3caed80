//! The settings of a call as the file would say them, for whoever shows which policy is in force.
//!
//! Every key is there, also those that nobody set: what is built in governs as well.

use policy::settings::{Balance, Breaker, Budget, Concurrency, EdgeSettings, Eject, HashOn, Retry, Trip};

/// Each part under the key that the file uses for it, as the file would say it.
pub fn in_words(settings: &EdgeSettings) -> Vec<(&'static str, String)> {
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
        (
            "hash",
            match &settings.hash {
                HashOn::Source => "source".to_owned(),
                HashOn::Path => "path".to_owned(),
                HashOn::Header(name) => format!("header {name}"),
                HashOn::Cookie(name) => format!("cookie {name}"),
            },
        ),
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
