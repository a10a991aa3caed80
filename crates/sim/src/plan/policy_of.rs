//! Which policy is in force on one edge. The model knows; only users who call a service directly are nobody it knows.

use model::system::{Caller, EdgeRule, OperationId, ServiceId, System};
use policy::settings::EdgeSettings;

/// `caller` is `None` for users who call a service directly: only entries for any caller apply to them.
pub(super) fn in_force(
    system: &System,
    caller: Option<Caller>,
    callee: ServiceId,
    operation: Option<OperationId>,
) -> EdgeSettings {
    if let Some(caller) = caller {
        return system.policy(caller, callee, operation).settings;
    }
    let applies = |rule: &&EdgeRule| {
        rule.caller().is_none()
            && rule.to.is_none_or(|to| to == callee)
            && rule.operation.is_none_or(|wanted| Some(wanted) == operation)
    };
    let mut settings = EdgeSettings::default();
    // The model keeps the rules most general first, so the last word is the most specific one.
    for rule in system.edges.rules.iter().filter(applies) {
        macro_rules! take {
            ($($key:ident),*) => {
                $(if let Some(said) = &rule.set.$key {
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
            connections,
            hash
        );
    }
    settings
}
