//! `edges`: the policy of calls. Each entry says only what it says; [`crate::policy_in_force`] puts them together.

use super::Resolver;
use super::fields::shorten;
use super::grammar::who_and_quoted;
use super::service::PRIORITIES;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Caller, EdgeOverrides, EdgeRule, Edges, GatewayId, OperationId, ServiceId};
use crate::text::{Entry, Node};
use policy::settings::{
    Backoff, Balance, BalanceKind, Breaker, Budget, Concurrency, Deviation, Eject, FailureShare, HashOn,
    Hedge, Jitter, Locality, RateLimit, Retry, RetryOn, Throttle, Trip,
};
use std::collections::HashMap;
use units::{Nanos, Percent, Rate};

/// Whom an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Selector {
    from: Option<ServiceId>,
    from_gateway: Option<GatewayId>,
    to: Option<ServiceId>,
    operation: Option<OperationId>,
}

impl<'n> Resolver<'n, '_> {
    pub(super) fn edges(&mut self, entries: &[&'n Entry]) {
        let mut first: HashMap<Selector, Span> = HashMap::new();
        let mut rules = Vec::with_capacity(entries.len());
        for entry in entries {
            let selector = self.selector(&entry.key, entry.key_span);
            let set = self.overrides(&entry.value);
            let (Some(selector), Some(set)) = (selector, set) else { continue };
            if let Some(span) = first.get(&selector) {
                let span = *span;
                self.defined_twice("edge", entry, span);
                continue;
            }
            first.insert(selector, entry.key_span);
            let Selector { from, from_gateway, to, operation } = selector;
            rules.push(EdgeRule { from, from_gateway, to, operation, set, span: entry.key_span });
        }
        self.system.edges = Edges::new(rules);
    }

    /// `default`, `FROM -> TO`, `FROM -> TO "OPERATION"`, with `*` for anyone.
    fn selector(&mut self, key: &str, span: Span) -> Option<Selector> {
        let nobody = Selector { from: None, from_gateway: None, to: None, operation: None };
        if key == "default" {
            return Some(nobody);
        }
        let split = key.split_once("->").and_then(|(from, to)| Some((from.trim(), who_and_quoted(to)?)));
        let Some((from, (to, operation))) = split else {
            self.report(
                Diagnostic::error("E0502", span, format!("`{}` names no edge", shorten(key)))
                    .label("not an edge")
                    .help("an edge is `default`, `FROM -> TO`, `\"* -> TO\"`, `FROM -> *` or `FROM -> TO \"OPERATION\"`"),
            );
            return None;
        };
        let caller = if from == "*" { None } else { Some(self.caller(from, span)) };
        let callee = if to == "*" { None } else { Some(self.callee(to, span)) };
        let mut selector = nobody;
        match caller {
            Some(None) => return None,
            Some(Some(Caller::Service(id))) => selector.from = Some(id),
            Some(Some(Caller::Gateway(id))) => selector.from_gateway = Some(id),
            None => {}
        }
        if let Some(callee) = callee {
            selector.to = Some(callee?);
        }
        if let Some(operation) = operation {
            let Some(to) = selector.to else {
                self.report(
                    Diagnostic::error("E0502", span, "an operation needs the service that has it")
                        .label("`*` has no operations"),
                );
                return None;
            };
            selector.operation = Some(self.operation_of(to, operation, span)?);
        }
        Some(selector)
    }

    fn callee(&mut self, name: &str, span: Span) -> Option<ServiceId> {
        if self.gateway_named(name).is_some() {
            self.report(
                Diagnostic::error("E0502", span, format!("`{name}` is a gateway; services do not call it"))
                    .label("a gateway")
                    .help("a gateway may stand in front of the arrow: `edge -> web`"),
            );
            return None;
        }
        self.service_named(name, span)
    }

    fn overrides(&mut self, node: &'n Node) -> Option<EdgeOverrides> {
        let mut f = self.fields(node, "an edge")?;
        let timeout_node = f.get("timeout");
        let timeout =
            timeout_node.and_then(|it| self.or_none(it, |r, it| r.positive::<Nanos>(it, "a timeout")));
        let retry = f.get("retry").and_then(|it| self.or_none(it, Self::retry));
        let set = EdgeOverrides {
            timeout,
            retry,
            hedge: f.get("hedge").and_then(|it| self.or_none(it, Self::hedge)),
            breaker: f.get("breaker").and_then(|it| self.or_none(it, Self::breaker)),
            eject: f.get("eject").and_then(|it| self.or_none(it, Self::eject)),
            balance: f.get("balance").and_then(|it| self.balance(it)),
            locality: f.get("locality").and_then(|it| self.choice(it, "a locality", &LOCALITIES)),
            concurrency: f.get("concurrency").and_then(|it| self.or_none(it, Self::concurrency)),
            rate_limit: f.get("rate_limit").and_then(|it| self.or_none(it, Self::rate_limit)),
            throttle: f.get("throttle").and_then(|it| self.or_none(it, Self::throttle)),
            priority: f.get("priority").and_then(|it| self.choice(it, "a priority", &PRIORITIES)),
            connections: f.get("connections").and_then(|it| self.count(it, "`connections`", 1..=100_000)),
            hash: f.get("hash").and_then(|it| self.hash(it)),
        };
        f.finish(self);
        Some(set)
    }

    /// `none` said aloud, or a value.
    fn or_none<T>(
        &mut self,
        node: &'n Node,
        read: impl FnOnce(&mut Self, &'n Node) -> Option<At<T>>,
    ) -> Option<At<Option<T>>> {
        if node.as_str() == Some("none") {
            return Some(At::new(None, node.span));
        }
        read(self, node).map(|it| At::new(Some(it.value), node.span))
    }

    fn retry(&mut self, node: &'n Node) -> Option<At<Retry>> {
        let mut f = self.fields(node, "`retry`")?;
        let mut retry = Retry::default();
        if let Some(attempts) =
            f.get("attempts").and_then(|it| self.count(it, "`attempts` (the first included)", 1..=100))
        {
            retry.attempts = u8::try_from(attempts.value).unwrap_or(u8::MAX);
        }
        if let Some(it) = f.get("budget").and_then(|it| self.or_none(it, Self::budget)) {
            retry.budget = it.value;
        }
        retry.per_try =
            f.get("per_try").and_then(|it| self.positive::<Nanos>(it, "`per_try`")).map(|it| it.value);
        if let Some(node) = f.get("on") {
            retry.on = self.retry_on(node);
        }
        if let Some(node) = f.get("backoff") {
            retry.backoff = self.backoff(node);
        }
        retry.non_idempotent = f.get("non_idempotent").and_then(|it| self.flag(it)).unwrap_or(false);
        f.finish(self);
        Some(At::new(retry, node.span))
    }

    fn retry_on(&mut self, node: &'n Node) -> RetryOn {
        let mut on = RetryOn {
            connect_failure: false,
            reset: false,
            timeout: false,
            unavailable: false,
            server_error: false,
            throttled: false,
        };
        let words = [
            ("connect-failure", 0),
            ("reset", 1),
            ("timeout", 2),
            ("unavailable", 3),
            ("5xx", 4),
            ("throttled", 5),
        ];
        for item in self.one_or_more(node) {
            match self.choice(item, "an outcome to retry", &words).map(|it| it.value) {
                Some(0) => on.connect_failure = true,
                Some(1) => on.reset = true,
                Some(2) => on.timeout = true,
                Some(3) => on.unavailable = true,
                Some(4) => on.server_error = true,
                Some(_) => on.throttled = true,
                None => {}
            }
        }
        on
    }

    fn backoff(&mut self, node: &'n Node) -> Backoff {
        let mut backoff = Backoff::default();
        if node.as_str() == Some("none") {
            return Backoff { base: Nanos::ZERO, max: Nanos::ZERO, jitter: Jitter::None };
        }
        let Some(mut f) = self.fields(node, "`backoff`") else { return backoff };
        let words = [
            ("none", Jitter::None),
            ("full", Jitter::Full),
            ("equal", Jitter::Equal),
            ("decorrelated", Jitter::Decorrelated),
        ];
        let base = f.get("base").and_then(|it| self.quantity::<Nanos>(it));
        let max_node = f.get("max");
        let max = max_node.and_then(|it| self.quantity::<Nanos>(it));
        let jitter = f.get("jitter").and_then(|it| self.choice(it, "a jitter", &words));
        f.finish(self);
        backoff.base = base.map_or(backoff.base, |it| it.value);
        // A base above the built-in maximum raises it; only a maximum that was written can contradict.
        backoff.max = max.map_or(backoff.max.max(backoff.base), |it| it.value);
        backoff.jitter = jitter.map_or(backoff.jitter, |it| it.value);
        if let Some(node) = max_node
            && backoff.max < backoff.base
        {
            let (base, max) = (backoff.base, backoff.max);
            self.impossible(
                node.span,
                format!("the longest wait ({max}) is below the first ({base})"),
                "too short",
            );
        }
        backoff
    }

    fn budget(&mut self, node: &'n Node) -> Option<At<Budget>> {
        let mut budget = Budget::default();
        if node.as_str().is_some() && !node.is_null() {
            budget.ratio = self.quantity::<Percent>(node)?.value;
            return Some(At::new(budget, node.span));
        }
        let mut f = self.fields(node, "a retry budget")?;
        let ratio = f.get("ratio").and_then(|it| self.quantity::<Percent>(it));
        let floor = f.get("floor").and_then(|it| self.quantity::<Rate>(it));
        let window = f.get("window").and_then(|it| self.positive::<Nanos>(it, "the window"));
        f.finish(self);
        budget.ratio = ratio.map_or(budget.ratio, |it| it.value);
        budget.floor = floor.map_or(budget.floor, |it| it.value);
        budget.window = window.map_or(budget.window, |it| it.value);
        Some(At::new(budget, node.span))
    }

    fn hedge(&mut self, node: &'n Node) -> Option<At<Hedge>> {
        let mut f = self.fields(node, "`hedge`")?;
        let after = f.require(self, "after", "50ms").and_then(|it| self.quantity::<Nanos>(it));
        let copies = f.get("copies").and_then(|it| self.count(it, "`copies` (the first included)", 2..=10));
        let budget = f.get("budget").and_then(|it| self.budget(it));
        f.finish(self);
        let copies = copies.and_then(|it| u8::try_from(it.value).ok()).unwrap_or(2);
        let budget = budget.map_or(Budget::default(), |it| it.value);
        Some(At::new(Hedge { after: after?.value, copies, budget }, node.span))
    }

    fn breaker(&mut self, node: &'n Node) -> Option<At<Breaker>> {
        let mut f = self.fields(node, "`breaker`")?;
        let mut breaker = Breaker::default();
        f.only_one(self, &["failures", "errors"]);
        f.only_one(self, &["failures", "requests"]);
        f.only_one(self, &["failures", "window"]);
        let failures = f.get("failures").and_then(|it| self.count(it, "`failures` in a row", 1..=1_000_000));
        let requests = f.get("requests").and_then(|it| self.count(it, "`requests`", 1..=1_000_000));
        let window = f.get("window").and_then(|it| self.positive::<Nanos>(it, "the window"));
        if let Some(errors_node) = f.get("errors") {
            let errors = self.share(errors_node, "the share of errors")?;
            if errors.value == Percent::ZERO {
                self.impossible(errors_node.span, "a breaker at 0% errors is always open", "zero");
            }
            breaker.trip = Trip::Rate {
                errors: errors.value,
                requests_min: requests.map_or(20, |it| it.value),
                window: window.map_or(Nanos::from_secs(10), |it| it.value),
            };
        } else if let Some(failures) = failures {
            breaker.trip = Trip::Consecutive { failures: failures.value };
        } else if let Some(entry) = f.entry("requests").or_else(|| f.entry("window")) {
            self.report(
                Diagnostic::error("E0202", entry.key_span, format!("`{}` goes with `errors`", entry.key))
                    .label("`errors` is missing")
                    .help("write for example `breaker: {errors: 50%, requests: 20, window: 10s}`"),
            );
        }
        let pause = f.get("pause").and_then(|it| self.positive::<Nanos>(it, "the pause"));
        let pause_max_node = f.get("pause_max");
        let pause_max = pause_max_node.and_then(|it| self.positive::<Nanos>(it, "the longest pause"));
        f.finish(self);
        breaker.pause = pause.map_or(breaker.pause, |it| it.value);
        breaker.pause_max = pause_max.map_or(breaker.pause_max.max(breaker.pause), |it| it.value);
        if let Some(node) = pause_max_node
            && breaker.pause_max < breaker.pause
        {
            let (pause, max) = (breaker.pause, breaker.pause_max);
            self.impossible(
                node.span,
                format!("the longest pause ({max}) is below the first ({pause})"),
                "too short",
            );
        }
        Some(At::new(breaker, node.span))
    }

    fn eject(&mut self, node: &'n Node) -> Option<At<Eject>> {
        let mut f = self.fields(node, "`eject`")?;
        let mut eject = Eject::default();
        if let Some(it) = f.get("consecutive").and_then(|it| self.count(it, "`consecutive`", 0..=1_000_000)) {
            eject.consecutive = it.value;
        }
        eject.deviation = f.get("deviation").and_then(|it| self.deviation(it));
        eject.failure_share = f.get("failures").and_then(|it| self.failure_share(it));
        let interval = f.get("interval").and_then(|it| self.positive::<Nanos>(it, "the interval"));
        let base = f.get("base").and_then(|it| self.positive::<Nanos>(it, "`base`"));
        let max_node = f.get("max");
        let max = max_node.and_then(|it| self.positive::<Nanos>(it, "`max`"));
        let share = f.get("share").and_then(|it| self.share(it, "the share of instances"));
        f.finish(self);
        eject.interval = interval.map_or(eject.interval, |it| it.value);
        eject.base = base.map_or(eject.base, |it| it.value);
        eject.max = max.map_or(eject.max.max(eject.base), |it| it.value);
        eject.share_max = share.map_or(eject.share_max, |it| it.value);
        if let Some(node) = max_node
            && eject.max < eject.base
        {
            let (base, max) = (eject.base, eject.max);
            self.impossible(
                node.span,
                format!("the longest ejection ({max}) is below the first ({base})"),
                "too short",
            );
        }
        Some(At::new(eject, node.span))
    }

    fn deviation(&mut self, node: &'n Node) -> Option<Deviation> {
        let mut f = self.fields(node, "`deviation`")?;
        let factor = f.get("factor").and_then(|it| self.thousandths(it, "the factor"));
        let instances = f.get("instances").and_then(|it| self.count(it, "`instances`", 1..=100_000));
        let requests = f.get("requests").and_then(|it| self.count(it, "`requests`", 1..=1_000_000));
        f.finish(self);
        Some(Deviation {
            factor_thousandths: factor.unwrap_or(1_900),
            instances_min: instances.map_or(5, |it| it.value),
            requests_min: requests.map_or(100, |it| it.value),
        })
    }

    fn failure_share(&mut self, node: &'n Node) -> Option<FailureShare> {
        let mut f = self.fields(node, "`failures`")?;
        let share = f.get("share").and_then(|it| self.share(it, "the share of failures"));
        let instances = f.get("instances").and_then(|it| self.count(it, "`instances`", 1..=100_000));
        let requests = f.get("requests").and_then(|it| self.count(it, "`requests`", 1..=1_000_000));
        f.finish(self);
        Some(FailureShare {
            threshold: share.map_or(Percent::from_whole(85), |it| it.value),
            instances_min: instances.map_or(5, |it| it.value),
            requests_min: requests.map_or(50, |it| it.value),
        })
    }

    /// A factor such as 1.9, kept in thousandths so that two machines agree on it.
    fn thousandths(&mut self, node: &'n Node, what: &str) -> Option<u32> {
        let number = self.decimal(node, what)?;
        let thousandths = (number.value * 1e3).round();
        if !(1.0..=1e9).contains(&thousandths) {
            self.impossible(node.span, format!("{what} must lie between 0.001 and 1000000"), "out of range");
            return None;
        }
        Some(thousandths as u32)
    }

    fn balance(&mut self, node: &'n Node) -> Option<At<Balance>> {
        let mut balance = Balance::default();
        if node.as_map().is_none() {
            balance.kind = self.choice(node, "a balancer", &BALANCERS)?.value;
            return Some(At::new(balance, node.span));
        }
        let mut f = self.fields(node, "`balance`")?;
        if let Some(it) = f.get("kind").and_then(|it| self.choice(it, "a balancer", &BALANCERS)) {
            balance.kind = it.value;
        }
        let slow_start = f.get("slow_start").and_then(|it| self.quantity::<Nanos>(it));
        let panic = f.get("panic").and_then(|it| self.share(it, "`panic`"));
        f.finish(self);
        balance.slow_start = slow_start.map_or(balance.slow_start, |it| it.value);
        balance.panic = panic.map_or(balance.panic, |it| it.value);
        Some(At::new(balance, node.span))
    }

    /// `source`, `path`, `header NAME` or `cookie NAME`.
    fn hash(&mut self, node: &'n Node) -> Option<At<HashOn>> {
        let text = self.text(node, "what to hash")?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it))
        };
        let hash = match text.value.split_once(' ') {
            None if text.value == "source" => HashOn::Source,
            None if text.value == "path" => HashOn::Path,
            Some(("header", name)) if is_name(name) => HashOn::Header(name.to_ascii_lowercase()),
            Some(("cookie", name)) if is_name(name) => HashOn::Cookie(name.to_owned()),
            _ => {
                let forms = ["source", "path", "header NAME", "cookie NAME"];
                self.not_a_choice(text.value, text.span, "what to hash", forms.into_iter());
                return None;
            }
        };
        Some(At::new(hash, text.span))
    }

    fn concurrency(&mut self, node: &'n Node) -> Option<At<Concurrency>> {
        const MAX: u32 = 1_000_000;
        if node.as_map().is_none() {
            let max = self.count(node, "`concurrency`", 1..=MAX)?;
            return Some(At::new(Concurrency::Static { max: max.value }, node.span));
        }
        let mut f = self.fields(node, "`concurrency`")?;
        let entry = f.exactly_one(self, &["gradient", "vegas"]);
        let limit = entry.and_then(|entry| {
            let mut inner = self.fields(&entry.value, "a limit of concurrency")?;
            let gradient = &*entry.key == "gradient";
            let min = if gradient {
                inner.get("min").and_then(|it| self.count(it, "`min`", 1..=MAX))
            } else {
                None
            };
            let max_node = inner.get("max");
            let max = max_node.and_then(|it| self.count(it, "`max`", 1..=MAX));
            inner.finish(self);
            let (min, max) = (min.map_or(10, |it| it.value), max.map_or(1_000, |it| it.value));
            if gradient && min > max {
                let span = max_node.map_or(entry.value.span, |it| it.span);
                self.impossible(span, format!("`max` ({max}) is below `min` ({min})"), "too small");
            }
            Some(if gradient { Concurrency::Gradient { min, max } } else { Concurrency::Vegas { max } })
        });
        f.finish(self);
        limit.map(|it| At::new(it, node.span))
    }

    pub(super) fn rate_limit(&mut self, node: &'n Node) -> Option<At<RateLimit>> {
        let (rate, burst) = if node.as_map().is_none() {
            (self.positive::<Rate>(node, "a limit of rate"), None)
        } else {
            let mut f = self.fields(node, "`rate_limit`")?;
            let rate =
                f.require(self, "rate", "100/s").and_then(|it| self.positive::<Rate>(it, "a limit of rate"));
            let burst = f.get("burst").and_then(|it| self.count(it, "`burst`", 1..=10_000_000));
            f.finish(self);
            (rate, burst)
        };
        let rate = rate?.value;
        // One second's worth, so that a limit of 100/s admits the hundred that arrive together.
        let second = (rate.per_second().ceil() as u32).max(1);
        Some(At::new(RateLimit { rate, burst: burst.map_or(second, |it| it.value) }, node.span))
    }

    fn throttle(&mut self, node: &'n Node) -> Option<At<Throttle>> {
        let mut throttle = Throttle { k_thousandths: 2_000, window: Nanos::from_secs(120) };
        if node.as_map().is_none() {
            self.choice(node, "a throttle", &[("adaptive", ()), ("none", ())])?;
            return Some(At::new(throttle, node.span));
        }
        let mut f = self.fields(node, "`throttle`")?;
        if let Some(node) = f.get("k")
            && let Some(k) = self.thousandths(node, "`k`")
        {
            if k < 1_000 {
                self.impossible(node.span, "`k` below 1 refuses calls that would have succeeded", "below 1");
            }
            throttle.k_thousandths = k;
        }
        let window = f.get("window").and_then(|it| self.positive::<Nanos>(it, "the window"));
        f.finish(self);
        throttle.window = window.map_or(throttle.window, |it| it.value);
        Some(At::new(throttle, node.span))
    }
}

const LOCALITIES: [(&str, Locality); 5] = [
    ("any", Locality::Any),
    ("prefer-zone", Locality::PreferZone),
    ("prefer-region", Locality::PreferRegion),
    ("zone-only", Locality::ZoneOnly),
    ("region-only", Locality::RegionOnly),
];

const BALANCERS: [(&str, BalanceKind); 6] = [
    ("round-robin", BalanceKind::RoundRobin),
    ("least-request", BalanceKind::LeastRequest),
    ("peak-ewma", BalanceKind::PeakEwma),
    ("random", BalanceKind::Random),
    ("ring-hash", BalanceKind::RingHash),
    ("maglev", BalanceKind::Maglev),
];
