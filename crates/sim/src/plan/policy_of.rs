//! Which policy is in force on one edge: key by key, the most specific entry of `edges` that says anything.

use model::system::{Caller, EdgeOverrides, EdgeRule, OperationId, ServiceId, System};
use policy::settings::EdgeSettings;

/// `caller` is `None` for users who call a service directly: only entries for any caller apply to them.
pub(super) fn in_force(
    system: &System,
    caller: Option<Caller>,
    callee: ServiceId,
    operation: Option<OperationId>,
) -> EdgeSettings {
    let applies = |rule: &&EdgeRule| {
        let caller_fits = match caller {
            Some(Caller::Service(service)) => {
                rule.from_gateway.is_none() && rule.from.is_none_or(|from| from == service)
            }
            Some(Caller::Gateway(gateway)) => {
                rule.from.is_none() && rule.from_gateway.is_none_or(|from| from == gateway)
            }
            None => rule.from.is_none() && rule.from_gateway.is_none(),
        };
        caller_fits
            && rule.to.is_none_or(|to| to == callee)
            && rule.operation.is_none_or(|wanted| Some(wanted) == operation)
    };
    let mut rules: Vec<&EdgeRule> = system.edges.rules.iter().filter(applies).collect();
    // Stable: among equals the file's later entry is the later word.
    rules.sort_by_key(|rule| specificity(rule));
    let mut settings = EdgeSettings::default();
    for rule in rules {
        apply(&mut settings, &rule.set);
    }
    settings
}

/// Caller, callee and operation; caller and callee; callee with operation; callee; caller; default.
fn specificity(rule: &EdgeRule) -> u8 {
    let caller = rule.from.is_some() || rule.from_gateway.is_some();
    match (caller, rule.to.is_some(), rule.operation.is_some()) {
        (true, true, true) => 5,
        (true, true, false) => 4,
        (false, true, true) => 3,
        (false, true, false) => 2,
        (true, false, _) => 1,
        (false, false, _) => 0,
    }
}

fn apply(settings: &mut EdgeSettings, set: &EdgeOverrides) {
    macro_rules! take {
        ($($key:ident),*) => {
            $(if let Some(said) = &set.$key {
                settings.$key = said.value.clone();
            })*
        };
    }
    take!(
        timeout,
        retry,
        hedge,
        breaker,
        eject,
        balance,
        locality,
        concurrency,
        rate_limit,
        throttle,
        priority,
        connections
    );
}
