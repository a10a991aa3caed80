//! Which policy governs a call: `edges`, put together key by key, the most specific entry first.
//!
//! At most one entry exists per selector (a second one is refused), so the entries that match a call are found with
//! six look-ups however many there are; a system of 100,000 edges asks 100,000 times.

use crate::span::{At, Span};
use crate::system::{Caller, EdgeOverrides, EdgeRule, Edges, InForce, OperationId, ServiceId, SetBy, System};
use policy::settings::EdgeSettings;
use std::collections::HashMap;

/// Whom a rule is about; each `None` is "anyone".
type Selector = (Option<Caller>, Option<ServiceId>, Option<OperationId>);

/// Rules by selector. Built once by [`Edges::new`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    by_selector: HashMap<Selector, u32>,
}

impl EdgeRule {
    /// Who calls, if the rule says.
    pub fn caller(&self) -> Option<Caller> {
        match (self.from, self.from_gateway) {
            (Some(service), _) => Some(Caller::Service(service)),
            (None, Some(gateway)) => Some(Caller::Gateway(gateway)),
            (None, None) => None,
        }
    }

    /// Higher wins: caller and callee and operation, caller and callee, callee with operation, callee, caller, nobody.
    pub fn specificity(&self) -> u8 {
        match (self.caller().is_some(), self.to.is_some(), self.operation.is_some()) {
            (true, true, true) => 5,
            (true, true, false) => 4,
            (false, _, true) => 3,
            (false, true, false) => 2,
            (true, false, _) => 1,
            (false, false, false) => 0,
        }
    }
}

impl Edges {
    /// Sorts the rules, the most general first, and makes them quick to find.
    pub fn new(mut rules: Vec<EdgeRule>) -> Self {
        rules.sort_by_key(EdgeRule::specificity);
        let mut index = Index::default();
        for (nth, rule) in rules.iter().enumerate() {
            index.by_selector.insert((rule.caller(), rule.to, rule.operation), nth as u32);
        }
        Self { rules, index }
    }

    /// The rules that match a call, the most specific first. `caller` is `None` for one the file does not name: users
    /// who ask a service directly.
    pub fn matching(
        &self,
        caller: Option<Caller>,
        service: ServiceId,
        operation: Option<OperationId>,
    ) -> impl Iterator<Item = &EdgeRule> {
        let service = Some(service);
        let with_operation = operation.map(|_| (caller, service, operation));
        let of_anyone = operation.map(|_| (None, service, operation));
        let selectors = [
            with_operation,
            Some((caller, service, None)),
            of_anyone,
            Some((None, service, None)),
            Some((caller, None, None)),
            Some((None, None, None)),
        ];
        let index = &self.index.by_selector;
        selectors.into_iter().flatten().filter_map(|it| index.get(&it)).map(|nth| &self.rules[*nth as usize])
    }
}

impl System {
    /// The policy of calls from `caller` (`None`: users who ask it directly) to `operation` of `service` (`None`: the
    /// service as a whole).
    pub fn policy(
        &self,
        caller: impl Into<Option<Caller>>,
        service: ServiceId,
        operation: Option<OperationId>,
    ) -> InForce {
        let mut settings = EdgeSettings::default();
        let mut set_by = SetBy::default();
        for rule in self.edges.matching(caller.into(), service, operation) {
            let EdgeOverrides {
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
                hash,
            } = &rule.set;
            let mut places = set_by.places.iter_mut();
            let mut next = || places.next().expect("a place for each key, in the same order");
            apply(timeout, &mut settings.timeout, next());
            apply(retry, &mut settings.retry, next());
            apply(hedge, &mut settings.hedge, next());
            apply(breaker, &mut settings.breaker, next());
            apply(eject, &mut settings.eject, next());
            apply(balance, &mut settings.balance, next());
            apply(locality, &mut settings.locality, next());
            apply(concurrency, &mut settings.concurrency, next());
            apply(rate_limit, &mut settings.rate_limit, next());
            apply(throttle, &mut settings.throttle, next());
            apply(priority, &mut settings.priority, next());
            apply(connections, &mut settings.connections, next());
            apply(hash, &mut settings.hash, next());
        }
        InForce { settings, set_by }
    }
}

/// Takes what a rule says of one key, unless a more specific rule has said it.
fn apply<T: Clone>(said: &Option<At<T>>, into: &mut T, set_by: &mut Option<Span>) {
    if let Some(said) = said
        && set_by.is_none()
    {
        *into = said.value.clone();
        *set_by = Some(said.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;
    use crate::span::Sources;
    use units::Nanos;

    const FILE: &str = "isobar: 1
services:
  web: {}
  ads: {}
  db: {operations: {read: 1ms, write: 1ms}}
gateways: {edge: {listen: '127.0.0.1:80', routes: [{path: /, to: web}]}}
edges:
  default: {timeout: 1s, connections: 10, retry: {attempts: 3}}
  web -> *: {timeout: 2s, locality: any}
  '* -> db': {timeout: 3s, retry: none}
  '* -> db \"write\"': {timeout: 4s}
  web -> db: {timeout: 5s}
  web -> db \"read\": {timeout: 6s}
  edge -> web: {timeout: 7s}
";

    fn name_of(system: &System, name: &str) -> Option<ServiceId> {
        system.services.enumerate().find(|(_, it)| it.name.value == name).map(|(id, _)| id)
    }

    /// `asked` is `CALLER CALLEE [OPERATION]`; the answer is the timeout, the attempts and what was set where.
    #[track_caller]
    fn check(asked: &str, timeout: u64, attempts: Option<u8>, set_by: &[&str]) {
        let loaded = load_str(FILE);
        let system = loaded.system().expect("the file is good");
        let words: Vec<&str> = asked.split(' ').collect();
        let caller = match name_of(system, words[0]) {
            Some(id) => Caller::Service(id),
            None => Caller::Gateway(units::Id::new(0)),
        };
        let service = name_of(system, words[1]).expect("a service");
        let operation = words.get(2).map(|name| {
            let operations = &system.services[service].operations;
            operations.enumerate().find(|(_, it)| it.name.value == **name).expect("an operation").0
        });
        let in_force = system.policy(caller, service, operation);
        assert_eq!(in_force.settings.timeout, Some(Nanos::from_secs(timeout)), "{asked}");
        assert_eq!(in_force.settings.retry.as_ref().map(|it| it.attempts), attempts, "{asked}");
        let text = |sources: &Sources, span: Span| {
            sources.files[0].text[span.start as usize..span.end as usize].to_owned()
        };
        let found: Vec<String> = in_force
            .set_by
            .iter()
            .map(|(key, span)| format!("{key}={}", text(&loaded.sources, *span)))
            .collect();
        assert_eq!(found, set_by, "{asked}");
    }

    #[test]
    fn the_most_specific_entry_that_says_a_key_wins() {
        check("ads web", 1, Some(3), &["timeout=1s", "retry={attempts: 3}", "connections=10"]);
        check(
            "web ads",
            2,
            Some(3),
            &["timeout=2s", "retry={attempts: 3}", "locality=any", "connections=10"],
        );
        check("ads db read", 3, None, &["timeout=3s", "retry=none", "connections=10"]);
        check("ads db write", 4, None, &["timeout=4s", "retry=none", "connections=10"]);
        check("web db write", 5, None, &["timeout=5s", "retry=none", "locality=any", "connections=10"]);
        check("web db read", 6, None, &["timeout=6s", "retry=none", "locality=any", "connections=10"]);
        check("edge web", 7, Some(3), &["timeout=7s", "retry={attempts: 3}", "connections=10"]);
    }

    #[test]
    fn an_edge_nobody_mentions_has_what_is_built_in() {
        let loaded = load_str("isobar: 1\nservices: {a: {}, b: {}}\n");
        let system = loaded.system().expect("the file is good");
        let in_force = system.policy(Caller::Service(units::Id::new(0)), units::Id::new(1), None);
        assert_eq!(in_force.settings, EdgeSettings::default());
        assert!(in_force.set_by.is_empty());
    }
}
