//! One caller's calls to one service, as one worker makes them. Every decision is the policy crate's; what happens here
//! is keeping its state, asking it at the right moment and telling it how things ended.

use crate::plan::EdgePlan;
use crate::stats::{self, EdgeCells};
use crate::upstream::{Entered, Instance, ServiceState};
use policy::{
    Ask, Attempt, Balancer, Breaker, Budget, Deadline, HedgeNext, HedgeState, Next, NoPick, Outcome, Permit,
    RetryState, Sample, eject, settings,
};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use units::{Nanos, Rng};

#[derive(Debug)]
pub(crate) struct EdgeState {
    pub(crate) plan: Arc<EdgePlan>,
    pub(crate) service: Rc<ServiceState>,
    worker: usize,
    core: RefCell<Core>,
    pub(crate) lanes: Rc<Lanes>,
}

/// Connections that an edge has busy, by instance: there are never more than its settings allow, and who finds none
/// free waits.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    busy: RefCell<SmallVec<[(u64, u32); 4]>>,
    waiting: Cell<u32>,
    freed: tokio::sync::Notify,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    lanes: Rc<Lanes>,
    key: u64,
}

impl Lanes {
    fn take(self: &Rc<Self>, key: u64, max: u32) -> Option<Lane> {
        let mut busy = self.busy.borrow_mut();
        let at = busy.iter().position(|(it, _)| *it == key).unwrap_or_else(|| {
            // Instances that are gone leave nothing behind.
            busy.retain(|(_, count)| *count > 0);
            busy.push((key, 0));
            busy.len() - 1
        });
        let count = &mut busy[at].1;
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Lane { lanes: self.clone(), key })
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.get()
    }

    /// Waits for a place, with at most `waiting_max` others, and counts in `waits` that it had to. `None` when it is full
    /// or `left` says that nobody waits.
    pub(crate) async fn enter(
        self: &Rc<Self>,
        key: u64,
        (max, waiting_max): (u32, u32),
        waits: &stats::Cell,
        left: impl Fn(&mut Context<'_>) -> bool,
    ) -> Result<Lane, NoLane> {
        let mut has_waited = false;
        loop {
            if let Some(lane) = self.take(key, max) {
                return Ok(lane);
            }
            if self.waiting.get() >= waiting_max {
                return Err(NoLane::QueueFull);
            }
            if !std::mem::replace(&mut has_waited, true) {
                waits.add(1);
            }
            let _waiting = Waiting::begin(&self.waiting);
            let mut freed = pin!(self.freed.notified());
            let woken = poll_fn(|cx| {
                if freed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if left(cx) { Poll::Ready(false) } else { Poll::Pending }
            });
            if !woken.await {
                return Err(NoLane::Left);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLane {
    QueueFull,
    Left,
}

struct Waiting<'w>(&'w Cell<u32>);

impl<'w> Waiting<'w> {
    fn begin(count: &'w Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut busy = self.lanes.busy.borrow_mut();
        if let Some((_, count)) = busy.iter_mut().find(|(key, _)| *key == self.key) {
            *count -= 1;
        }
        drop(busy);
        if self.lanes.waiting.get() > 0 {
            // Whose instance it is is not known here; those for whom it is not go on waiting.
            self.lanes.freed.notify_waiters();
        }
    }
}

#[derive(Debug)]
struct Core {
    balancer: Balancer,
    /// The service's generation that the balancer's tables were built from.
    seen: u64,
    budget: Option<Budget>,
    hedge_budget: Option<Budget>,
    breaker: Option<Breaker>,
    swept_at: Nanos,
    /// Up to when the cells tell what the breaker did, and how long instances were ejected.
    trips_told: u64,
    open_since: Option<Nanos>,
    ejected_told: Nanos,
}

impl Core {
    /// Tells what the breaker did since it was looked at last.
    fn tell_breaker(&mut self, cells: &EdgeCells, now: Nanos) {
        let Some(breaker) = &self.breaker else { return };
        if breaker.trips() != self.trips_told {
            cells.breaker_trips.add(breaker.trips() - self.trips_told);
            self.trips_told = breaker.trips();
            self.open_since.get_or_insert(now);
        }
        let Some(since) = self.open_since else { return };
        cells.breaker_open.add(now.saturating_sub(since).as_u64());
        let is_open = breaker.state(now) != policy::BreakerState::Admitting;
        self.open_since = is_open.then_some(now);
    }

    /// Tells for how long instances were ejected until now. Those that became so this moment were not.
    fn tell_ejected(&mut self, cells: &EdgeCells, endpoints: &[policy::Endpoint], newly: u64, now: Nanos) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.ejected_told, now)).as_u64();
        let ejected = endpoints.iter().filter(|it| it.outlier.is_ejected()).count() as u64;
        if ejected > newly {
            cells.ejected.add(passed.saturating_mul(ejected - newly));
        }
    }
}

/// An instance that was chosen. It must be finished exactly once.
#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) instance: Rc<Instance>,
    pub(crate) index: u32,
    /// When the request set out; waiting for its turn comes before.
    pub(crate) started: Nanos,
    /// Its place among the requests the instance is working on.
    pub(crate) entered: Option<Entered>,
    /// What it took says nothing about how busy the instance is: a stream lasts as long as its ends like, and a body takes
    /// as long as its client.
    pub(crate) is_stream: bool,
    pub(crate) priority: settings::Priority,
    /// Its place among the edge's connections, where those are limited.
    pub(crate) lane: Option<Lane>,
    /// It gave its turn back before it was over.
    is_paused: bool,
    permit: Option<Permit>,
}

impl Pick {
    /// Gives its turn back while the instance has nothing to do for it. Else those who fall silent in the middle of a
    /// request would keep everybody else from an instance that is idle.
    pub(crate) fn pause(&mut self, now: Nanos) {
        if let Some(entered) = self.entered.take() {
            entered.finish(now, Sample::Ignored);
            (self.is_paused, self.is_stream) = (true, true);
        }
    }

    /// It has a turn again, and sets out anew: the time before was not the instance's.
    pub(crate) fn resume(&mut self, entered: Entered, now: Nanos) {
        self.entered = Some(entered);
        (self.is_paused, self.started) = (false, now);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// How long the instance has had it. Nothing, if it ended while it was the client's turn to say something.
    pub(crate) fn elapsed(&self, now: Nanos) -> Nanos {
        if self.is_paused { Nanos::ZERO } else { now.saturating_sub(self.started) }
    }
}

/// Why a request was not sent anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NoInstance,
    NoneHealthy,
    AllTried,
    BreakerOpen,
}

/// Without retry settings, only what provably did no harm is sent again.
const NO_RETRIES: settings::Retry = settings::Retry {
    attempts: 1,
    per_try: None,
    on: settings::RetryOn {
        connect_failure: false,
        reset: false,
        timeout: false,
        unavailable: false,
        server_error: false,
        throttled: false,
    },
    backoff: settings::Backoff { base: Nanos::ZERO, max: Nanos::ZERO, jitter: settings::Jitter::None },
    budget: None,
    non_idempotent: false,
};

impl EdgeState {
    /// The state of an edge, taking over what the one before it had learnt where its settings are unchanged.
    pub(crate) fn new(
        plan: Arc<EdgePlan>,
        service: Rc<ServiceState>,
        home: policy::Place,
        (worker, workers): (usize, usize),
        before: Option<&Self>,
    ) -> Rc<Self> {
        let settings = &plan.config.settings;
        let lanes = before.map(|before| before.lanes.clone()).unwrap_or_default();
        let old = before.map(|before| (&before.plan.config.settings, before.core.borrow()));
        let mut core = Core {
            balancer: Balancer::new(settings.balance, settings.locality, home),
            seen: u64::MAX,
            budget: settings
                .retry
                .as_ref()
                .and_then(|retry| Some(Budget::new(retry.budget.as_ref()?, workers as u32))),
            hedge_budget: settings.hedge.as_ref().map(|hedge| Budget::new(&hedge.budget, workers as u32)),
            breaker: settings.breaker.map(Breaker::new),
            swept_at: Nanos::ZERO,
            trips_told: 0,
            open_since: None,
            ejected_told: Nanos::ZERO,
        };
        if let Some((before, old)) = old {
            if before.retry == settings.retry {
                core.budget.clone_from(&old.budget);
            }
            if before.hedge == settings.hedge {
                core.hedge_budget.clone_from(&old.hedge_budget);
            }
            if before.breaker == settings.breaker {
                core.breaker.clone_from(&old.breaker);
                (core.trips_told, core.open_since) = (old.trips_told, old.open_since);
            }
            core.swept_at = old.swept_at;
            core.ejected_told = old.ejected_told;
        }
        Rc::new(Self { plan, service, worker, core: RefCell::new(core), lanes })
    }

    #[inline]
    pub(crate) fn cells(&self) -> &EdgeCells {
        self.plan.cells.of(self.worker)
    }

    /// What this version answered, and how fast.
    pub(crate) fn count_version(&self, version: u16, class: usize, duration: Nanos) {
        if let Some(cells) = self.cells().versions.get(usize::from(version)) {
            cells.classes[class].add(1);
            cells.latency.record(class, duration);
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.plan.config.name
    }

    pub(crate) fn settings(&self) -> &settings::EdgeSettings {
        &self.plan.config.settings
    }

    /// `None`: it has no breaker.
    pub(crate) fn breaker_is_open(&self, now: Nanos) -> Option<bool> {
        let core = self.core.borrow();
        Some(core.breaker.as_ref()?.state(now) != policy::BreakerState::Admitting)
    }

    /// `None`: retries have no budget, or there are none.
    pub(crate) fn budget_level(&self, now: Nanos) -> Option<(u64, u64)> {
        self.core.borrow().budget.as_ref().map(|it| it.level(now))
    }

    /// Whether this instance gets nothing for a while.
    pub(crate) fn has_ejected(&self, address: std::net::SocketAddr) -> bool {
        let instances = self.service.instances.borrow();
        let at = instances.iter().position(|it| it.address == address);
        let endpoints = self.service.endpoints.borrow();
        at.and_then(|at| endpoints.get(at)).is_some_and(|it| it.outlier.ejected_until().is_some())
    }

    pub(crate) fn retry_settings(&self) -> &settings::Retry {
        self.settings().retry.as_ref().unwrap_or(&NO_RETRIES)
    }

    /// A request arrived that this edge will carry: the budgets for retries and for copies grow.
    pub(crate) fn on_request(&self, now: Nanos) {
        let mut core = self.core.borrow_mut();
        if let Some(budget) = &mut core.budget {
            budget.on_request(now);
        }
        if let Some(budget) = &mut core.hedge_budget {
            budget.on_request(now);
        }
    }

    /// The time for another copy has come: may it be sent?
    pub(crate) fn hedge(&self, state: &mut HedgeState, deadline: Deadline, now: Nanos) -> HedgeNext {
        let mut core = self.core.borrow_mut();
        match (&self.settings().hedge, &mut core.hedge_budget) {
            (Some(settings), Some(budget)) => state.on_time(settings, true, deadline, budget, now),
            _ => HedgeNext::Wait,
        }
    }

    /// Chooses an instance for one attempt.
    pub(crate) fn pick(&self, ask: &Ask<'_>, rng: &mut Rng) -> Result<Pick, Refused> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let permit = match &mut core.breaker {
            Some(breaker) => match breaker.admit(ask.now) {
                Some(permit) => Some(permit),
                None => {
                    // Asking may have been what made it judge.
                    core.tell_breaker(self.cells(), ask.now);
                    return Err(Refused::BreakerOpen);
                }
            },
            None => None,
        };
        let mut endpoints = self.service.endpoints.borrow_mut();
        let generation = self.service.generation.get();
        if core.seen != generation {
            core.balancer.refresh(&endpoints);
            core.seen = generation;
        }
        match core.balancer.pick(&endpoints, ask, rng) {
            Ok(picked) => {
                let index = picked.index as usize;
                endpoints[index].on_start();
                let instance = self.service.instances.borrow()[index].clone();
                instance.requests.set(instance.requests.get() + 1);
                Ok(Pick {
                    instance,
                    index: picked.index,
                    started: ask.now,
                    entered: None,
                    is_stream: false,
                    priority: self.settings().priority,
                    lane: None,
                    is_paused: false,
                    permit,
                })
            }
            Err(why) => {
                if let (Some(breaker), Some(permit)) = (&mut core.breaker, permit) {
                    breaker.on_result(ask.now, permit, Outcome::Cancelled);
                }
                Err(match why {
                    NoPick::NoInstance => Refused::NoInstance,
                    NoPick::NoneAvailable => Refused::NoneHealthy,
                    NoPick::AllTried => Refused::AllTried,
                })
            }
        }
    }

    /// An attempt ended. `elapsed` is the time to the reply's head, or to whatever happened instead.
    pub(crate) fn finish(
        &self,
        mut pick: Pick,
        outcome: Outcome,
        elapsed: Nanos,
        rest: Option<Nanos>,
        now: Nanos,
    ) {
        pick.lane = None;
        if let Some(entered) = pick.entered.take() {
            entered.finish(now, if pick.is_stream { Sample::Ignored } else { outcome.into() });
        }
        if let Some(quota) = &self.plan.quota {
            quota.attempt_ended(now, pick.priority, outcome);
        }
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        if let (Some(breaker), Some(permit)) = (&mut core.breaker, pick.permit) {
            breaker.on_result(now, permit, outcome);
            core.tell_breaker(self.cells(), now);
        }
        if outcome.is_failure() {
            pick.instance.failures.set(pick.instance.failures.get() + 1);
        }
        let Some(at) = self.service.position(&pick.instance, pick.index as usize) else { return };
        let mut endpoints = self.service.endpoints.borrow_mut();
        endpoints[at].on_finish(now, elapsed, outcome, rest);
        if let Some(settings) = &self.settings().eject {
            match eject::on_outcome(settings, &mut endpoints, at, outcome, now) {
                Some(eject::Verdict::Ejected { .. }) => {
                    self.cells().ejections.add(1);
                    core.tell_ejected(self.cells(), &endpoints, 1, now);
                    self.service.changed();
                }
                Some(eject::Verdict::Kept { .. }) => self.cells().ejections_withheld.add(1),
                None => {}
            }
        }
    }

    pub(crate) fn next(&self, retry: &mut RetryState, attempt: &Attempt, now: Nanos, rng: &mut Rng) -> Next {
        let mut core = self.core.borrow_mut();
        retry.next(self.retry_settings(), attempt, core.budget.as_mut(), now, rng)
    }

    /// Regular work: instances return from ejection, rates are judged.
    pub(crate) fn tick(&self, now: Nanos) {
        let mut core = self.core.borrow_mut();
        core.tell_breaker(self.cells(), now);
        let Some(settings) = &self.settings().eject else { return };
        let mut endpoints = self.service.endpoints.borrow_mut();
        core.tell_ejected(self.cells(), &endpoints, 0, now);
        let mut changed = eject::restore(&mut endpoints, now) > 0;
        if now.saturating_sub(core.swept_at) >= settings.interval {
            core.swept_at = now;
            let swept = eject::sweep(settings, &mut endpoints, now);
            self.cells().ejections.add(u64::from(swept.ejected));
            self.cells().ejections_withheld.add(u64::from(swept.kept));
            changed |= swept.changed();
        }
        if changed {
            self.service.changed();
        }
    }
}
