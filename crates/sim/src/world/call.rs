//! The caller's side: one call with its deadline, its attempts, its retries and hedges.

use super::job::Leaf;
use super::*;
use policy::{Ask, Attempt, Endpoint, HedgeNext, Next, NoPick, Picked, Why, eject, retry};
use units::Purpose;

impl World<'_> {
    /// A job makes a call of its script. Ends at once only by its return value, never by calling back.
    pub(super) fn start_call(&mut self, now: Nanos, job_key: Key, call: u32, leaf: u32) -> Leaf {
        let Some(job) = self.jobs.get(job_key) else { return Leaf::Done };
        let draw = job.draw.child(u64::from(leaf));
        let it = &self.plan.calls[call as usize];
        if it.chance < 1.0 && draw.for_purpose(Purpose::Route).unit() >= it.chance {
            return Leaf::Done;
        }
        let (deadline, instance, depth, priority) = (job.deadline, job.instance, job.depth, job.priority);
        let (trace, parent) = (job.trace, job.draw);
        // Nobody waits for a detached call, so nobody's deadline is its own.
        let latest = if it.detached { Deadline::NEVER } else { deadline };
        let owner = if it.detached { Key::NONE } else { job_key };
        let key = self.new_call(now, draw, owner, call, instance, latest, depth, priority);
        if trace != UNTRACED
            && let Some(call) = self.calls.get_mut(key)
        {
            (call.trace, call.parent) = (trace, span_of_job(parent));
        }
        match self.begin_call(now, key) {
            Ok(()) if it.detached => Leaf::Done,
            Ok(()) => Leaf::Pending,
            Err(failed) => match self.after_failure(now, key, failed) {
                Some((_, Ok(()))) => Leaf::Done,
                Some((_, Err(_))) if it.detached => Leaf::Done,
                Some((_, Err(failed))) => Leaf::Failed(failed),
                None if it.detached => Leaf::Done,
                None => Leaf::Pending,
            },
        }
    }

    pub(super) fn new_call(
        &mut self,
        now: Nanos,
        draw: Draw,
        job: Key,
        plan: u32,
        caller_instance: u32,
        latest: Deadline,
        depth: u8,
        priority: Priority,
    ) -> Key {
        let first = self.jobs.get(job).map_or(Key::NONE, |it| it.calls);
        let key = self.calls.insert(CallState {
            draw,
            job,
            plan,
            edge: 0,
            caller_instance,
            version: None,
            left: self.plan.calls[plan as usize].times - 1,
            deadline: Deadline::NEVER,
            latest,
            started: now,
            timer: TimerId::NONE,
            hedge_timer: TimerId::NONE,
            hedge: HedgeState::start(now),
            retry_timer: TimerId::NONE,
            retry: RetryState::default(),
            attempts: [Key::NONE; COPIES_MAX],
            live: 0,
            tries: 0,
            tried_count: 0,
            tried: [0; TRIED_MAX],
            depth,
            priority,
            next: first,
            previous: Key::NONE,
            consumer: NOBODY,
            published: now,
            trace: UNTRACED,
            parent: 0,
        });
        if let Some(job) = self.jobs.get_mut(job) {
            job.calls = key;
        }
        if let Some(second) = self.calls.get_mut(first) {
            second.previous = key;
        }
        key
    }

    /// Starts one repetition of a call: chooses where it goes, sets its deadline, asks the limits, sends the first try.
    pub(super) fn begin_call(&mut self, now: Nanos, key: Key) -> Ended {
        let plan = self.plan;
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let it = &plan.calls[call.plan as usize];
        call.draw = call.draw.child(u64::from(call.left) + 1);
        let targets = &plan.targets[it.targets.from as usize..it.targets.to as usize];
        let target = match targets {
            [] => return Err(Failed::by(Cause::NoInstance)),
            [only] => only,
            many => {
                let whole = many[many.len() - 1].until;
                let point = (call.draw.for_purpose(Purpose::Shuffle).unit() * f64::from(whole)) as u32;
                many.iter().find(|it| point < it.until).unwrap_or(&many[0])
            }
        };
        let edge = &plan.edges[target.edge as usize];
        call.edge = target.edge;
        call.version = it.version.or(target.version);
        call.started = now;
        call.deadline = match edge.settings.timeout {
            Some(timeout) => call.latest.tighten(now, timeout),
            None => call.latest,
        };
        call.retry = RetryState::default();
        call.hedge = HedgeState::start(now);
        (call.live, call.tries, call.tried_count) = (0, 0, 0);
        call.priority = call.priority.min(edge.settings.priority);
        let (deadline, call_edge, caller) = (call.deadline, call.edge as usize, call.caller_instance);
        let id = self.outbound_of(caller, edge.pair);
        if deadline.has_passed(now) {
            return self.refused(now, call_edge, Cause::Timeout);
        }
        if let Err(cause) = self.ask_limits(now, key, id) {
            return self.refused(now, call_edge, cause);
        }
        let outbound = &mut self.outbounds[id as usize];
        if let Some(budget) = &mut outbound.budget {
            budget.on_request(now);
        }
        if let Some(budget) = &mut outbound.hedge_budget {
            budget.on_request(now);
        }
        if let Err(failed) = self.begin_attempt(now, key, false) {
            self.give_back(now, id, now, failed.outcome);
            return self.refused(now, call_edge, failed.root);
        }
        let timer = if deadline.is_never() {
            TimerId::NONE
        } else {
            self.events.schedule_timer(deadline.instant(), key.event(kind::DEADLINE))
        };
        let hedge_timer = match &edge.settings.hedge {
            Some(hedge) if hedge.copies > 1 => {
                self.events.schedule_timer(now + hedge.after, key.event(kind::HEDGE))
            }
            _ => TimerId::NONE,
        };
        if let Some(call) = self.calls.get_mut(key) {
            (call.timer, call.hedge_timer) = (timer, hedge_timer);
        }
        Ok(())
    }

    /// The caller's own limits, cheapest first. What one of them takes, [`World::give_back`] returns.
    fn ask_limits(&mut self, now: Nanos, key: Key, id: u32) -> Result<(), Cause> {
        let Some(call) = self.calls.get(key) else { return Ok(()) };
        let outbound = &mut self.outbounds[id as usize];
        if let Some(limit) = &mut outbound.rate_limit
            && limit.take(now, 1).is_err()
        {
            return Err(Cause::Limit);
        }
        if let Some(throttle) = &mut outbound.throttle {
            let mut rng = call.draw.for_purpose(Purpose::Sampling).rng();
            if !throttle.admit(now, call.priority, &mut rng) {
                return Err(Cause::Limit);
            }
        }
        if let Some(limiter) = &mut outbound.limiter {
            let shed = !policy::shed::admits(call.priority, limiter.in_flight(), limiter.limit());
            if shed && call.priority < Priority::Critical || !limiter.try_start() {
                return Err(Cause::Limit);
            }
        }
        Ok(())
    }

    /// A call that the limits let through has ended.
    fn give_back(&mut self, now: Nanos, id: u32, started: Nanos, outcome: Outcome) {
        let Some(limiter) = &mut self.outbounds[id as usize].limiter else { return };
        let mut rng = self.root.child(now.0).child(u64::from(id)).for_purpose(Purpose::Sampling).rng();
        limiter.finish(now, now - started, outcome.into(), &mut rng);
    }

    /// Nothing was sent: it is counted here and the call goes no further.
    fn refused(&mut self, _now: Nanos, edge: usize, cause: Cause) -> Ended {
        self.meters.edges[edge].calls.failures.add(cause);
        self.edge_ended(edge, true);
        Err(Failed::by(cause))
    }

    #[inline]
    fn edge_ended(&mut self, edge: usize, failed: bool) {
        let it = &mut self.meters.edge_slices[edge][self.slice];
        it.all += 1;
        it.failed += u32::from(failed);
    }

    pub(super) fn outbound_of(&self, caller_instance: u32, pair: u32) -> u32 {
        let caller = self.plan.pairs[pair as usize].caller;
        self.first_outbound[pair as usize] + caller_instance
            - self.plan.stations[caller as usize].instances.from
    }

    fn begin_attempt(&mut self, now: Nanos, key: Key, again: bool) -> Ended {
        let plan = self.plan;
        let Some(call) = self.calls.get(key) else { return Ok(()) };
        let edge = &plan.edges[call.edge as usize];
        let id = self.outbound_of(call.caller_instance, edge.pair);
        let Some(copy) = call.attempts.iter().position(|it| it.is_none()) else { return Ok(()) };
        let outbound = &mut self.outbounds[id as usize];
        let permit = match &mut outbound.breaker {
            Some(breaker) => match breaker.admit(now) {
                Some(permit) => Some(permit),
                None => {
                    self.watch_breaker(now, id);
                    return Err(Failed::by(Cause::Breaker));
                }
            },
            None => None,
        };
        let number = call.tries;
        let mut rng = call.draw.child(u64::from(number)).for_purpose(Purpose::Balance).rng();
        let tried = &call.tried[..call.tried_count as usize];
        let mut ask = Ask { now, hash: Some(call.draw.bits()), version: call.version, tried };
        let mut picked = if call.consumer == NOBODY {
            outbound.balancer.pick(&outbound.endpoints, &ask, &mut rng)
        } else {
            pulled_by(&outbound.endpoints, call.draw.bits())
        };
        if picked == Err(NoPick::AllTried) {
            // Nobody is left that it has not seen: better the same one again than none.
            ask.tried = &[];
            picked = outbound.balancer.pick(&outbound.endpoints, &ask, &mut rng);
        }
        let Ok(picked) = picked else {
            if let (Some(breaker), Some(permit)) = (&mut outbound.breaker, permit) {
                breaker.on_result(now, permit, Outcome::Cancelled);
            }
            return Err(Failed::by(Cause::NoInstance));
        };
        let endpoint = picked.index as usize;
        outbound.endpoints[endpoint].on_start();
        let instance = outbound.instance_of[endpoint];
        let edge_index = call.edge as usize;
        let meter = &mut self.meters.edges[edge_index];
        meter.attempts += 1;
        meter.retries += u64::from(again);
        meter.in_zone += u64::from(picked.home);
        if let Some(recorder) = &mut self.recorder {
            recorder.used(edge_index, now);
        }
        let deadline = retry::attempt_deadline(edge.settings.retry.as_ref(), call.deadline, now);
        let own_timer = deadline < call.deadline;
        let pair = &plan.pairs[edge.pair as usize];
        let pool = &mut outbound.pool[endpoint];
        let pooled = !pair.multiplexed && pool.active >= pair.settings.connections;
        if !pooled {
            pool.active += 1;
        }
        let attempt = self.attempts.insert(AttemptState {
            call: key,
            outbound: id,
            endpoint: picked.index,
            instance,
            number,
            sent: now,
            deadline,
            timer: TimerId::NONE,
            held_since: now,
            job: Key::NONE,
            permit,
            pooled,
            reply: Ok(()),
        });
        if own_timer {
            let timer = self.events.schedule_timer(deadline.instant(), attempt.event(kind::TRY_TIMEOUT));
            if let Some(state) = self.attempts.get_mut(attempt) {
                state.timer = timer;
            }
        }
        if let Some(call) = self.calls.get_mut(key) {
            call.attempts[copy] = attempt;
            call.live += 1;
            call.tries = call.tries.saturating_add(1);
            if (call.tried_count as usize) < TRIED_MAX {
                call.tried[call.tried_count as usize] = picked.index;
                call.tried_count += 1;
            }
        }
        if pooled {
            self.meters.edges[edge_index].pool_waits += 1;
            self.outbounds[id as usize].pool[endpoint].waiting.push_back(attempt);
        } else {
            self.send(now, attempt);
        }
        Ok(())
    }

    fn send(&mut self, now: Nanos, key: Key) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let Some(call) = self.calls.get(attempt.call) else { return };
        let from = self.instances[call.caller_instance as usize].location;
        let to = self.instances[attempt.instance as usize].location;
        let bytes =
            self.plan.operations[self.plan.edges[call.edge as usize].operation as usize].request_bytes;
        let draw = call.draw.child(u64::from(attempt.number)).child(0);
        let before = if self.plan.dns.is_some() || self.plan.tls.is_some() {
            self.prepare(now, key, from, to, draw)
        } else {
            Ok(Nanos::ZERO)
        };
        let before = match before {
            Ok(before) => before,
            Err(failed) => {
                if let Some(attempt) = self.attempts.get_mut(key) {
                    attempt.reply = Err(failed);
                }
                return self.events.schedule(now + RESOLVER_TIMEOUT, key.event(kind::REPLY));
            }
        };
        match self.transit(from, to, bytes, draw) {
            Some(way) => self.events.schedule(now + before + way, key.event(kind::ARRIVE)),
            None => {
                if let Some(attempt) = self.attempts.get_mut(key) {
                    attempt.reply = Err(Failed::by(Cause::Connect));
                }
                self.events.schedule(now + CONNECT_TIMEOUT, key.event(kind::REPLY));
            }
        }
    }

    /// What comes before the first byte of a request: the name is looked up, if it is not known, and the connection is made
    /// and secured, if none is idle. Users have done both long before.
    fn prepare(&mut self, now: Nanos, key: Key, from: u16, to: u16, draw: Draw) -> Result<Nanos, Failed> {
        let plan = self.plan;
        let Some(attempt) = self.attempts.get(key) else { return Ok(Nanos::ZERO) };
        let (id, endpoint) = (attempt.outbound as usize, attempt.endpoint as usize);
        let pair_index = self.outbounds[id].pair as usize;
        let pair = &plan.pairs[pair_index];
        if plan.stations[pair.caller as usize].kind == StationKind::Users {
            return Ok(Nanos::ZERO);
        }
        let mut takes = Nanos::ZERO;
        if let Some(dns) = &plan.dns {
            let name = &mut self.outbounds[id].name;
            if now >= name.until {
                let luck = self.root.child(0xD45).child(id as u64).child(name.lookups);
                name.lookups += 1;
                self.meters.pairs[pair_index].lookups += 1;
                if self.dns_faults > 0 || luck.for_purpose(Purpose::Fault).unit() < dns.failures {
                    return Err(Failed::by(Cause::Dns));
                }
                (name.known, name.until) = (now + dns.latency, now + dns.latency + dns.ttl);
            }
            takes = name.known.saturating_sub(now);
        }
        if let Some(tls) = &plan.tls {
            let pool = &mut self.outbounds[id].pool[endpoint];
            // A connection that nobody used for this long is closed by either side.
            if now.saturating_sub(pool.used) > IDLE_MAX && pool.active <= 1 {
                pool.open = 0;
            }
            pool.used = now;
            let enough = if pair.multiplexed { pool.open > 0 } else { pool.open >= pool.active };
            if !enough {
                pool.open += 1;
                self.meters.pairs[pair_index].handshakes += 1;
                let there = self.transit(from, to, HELLO, draw.child(0x715));
                let back = self.transit(to, from, HELLO, draw.child(0x716));
                // Into a cut network the request itself will not arrive either.
                takes += tls.handshake + there.unwrap_or_default() + back.unwrap_or_default();
            }
        }
        Ok(takes)
    }

    /// The end of an attempt in the eyes of its caller's proxy. Returns the call it was part of.
    fn attempt_over(&mut self, now: Nanos, key: Key, outcome: Outcome) -> Key {
        let Some(attempt) = self.attempts.remove(key) else { return Key::NONE };
        self.events.cancel(attempt.timer);
        self.attempt_span(now, &attempt, outcome);
        let id = attempt.outbound;
        let outbound = &mut self.outbounds[id as usize];
        let index = attempt.endpoint as usize;
        let pool = &mut outbound.pool[index];
        if !attempt.pooled {
            pool.held += now.saturating_sub(attempt.held_since.max(self.counting_since));
            pool.used = now;
        }
        if matches!(outcome, Outcome::ConnectFailed | Outcome::Reset) {
            pool.open = pool.open.saturating_sub(1);
        }
        outbound.endpoints[index].on_finish(now, now - attempt.sent, outcome, None);
        let pair = outbound.pair;
        if let Some(settings) = &self.plan.pairs[pair as usize].settings.eject {
            match eject::on_outcome(settings, &mut outbound.endpoints, index, outcome, now) {
                Some(eject::Verdict::Ejected { .. }) => {
                    self.meters.pairs[pair as usize].ejections += 1;
                    self.note(now, Change::Ejected(pair));
                    self.membership_changed(now, id);
                }
                Some(eject::Verdict::Kept { .. }) => self.meters.pairs[pair as usize].ejections_withheld += 1,
                None => {}
            }
        }
        if let (Some(breaker), Some(permit)) = (&mut self.outbounds[id as usize].breaker, attempt.permit) {
            breaker.on_result(now, permit, outcome);
            self.watch_breaker(now, id);
        }
        if let Some(call) = self.calls.get_mut(attempt.call) {
            if let Some(throttle) = &mut self.outbounds[id as usize].throttle
                && matches!(outcome, Outcome::Status(status) if status != 429 && status != 503)
            {
                throttle.on_accept(now, call.priority);
            }
            if let Some(copy) = call.attempts.iter_mut().find(|it| **it == key) {
                *copy = Key::NONE;
            }
            call.live -= 1;
        }
        if !attempt.pooled {
            self.free_connection(now, id, index);
        }
        attempt.call
    }

    /// Into the record, if the request is one of its.
    fn attempt_span(&mut self, now: Nanos, attempt: &AttemptState, outcome: Outcome) {
        let Some(call) = self.calls.get(attempt.call).filter(|it| it.trace != UNTRACED) else { return };
        let failed = match outcome {
            Outcome::Status(status) if status < 400 => None,
            Outcome::Timeout => Some(Cause::Timeout),
            Outcome::Cancelled => Some(Cause::Cancelled),
            _ => Some(attempt.reply.err().map_or(Cause::Reset, |it| it.root)),
        };
        let span = Span {
            trace: 0,
            id: span_of_attempt(call.draw.child(u64::from(attempt.number))),
            parent: Some(call.parent),
            side: Side::Caller,
            operation: self.plan.edges[call.edge as usize].operation,
            instance: call.caller_instance,
            other: Some(attempt.instance),
            start: attempt.sent,
            took: now - attempt.sent,
            failed,
            attempt: attempt.number,
            waited: Nanos::ZERO,
        };
        let trace = call.trace;
        if let Some(recorder) = &mut self.recorder {
            recorder.span(trace, span);
        }
    }

    /// A connection is free: the attempt that waited longest for it is sent.
    fn free_connection(&mut self, now: Nanos, id: u32, endpoint: usize) {
        loop {
            let pool = &mut self.outbounds[id as usize].pool[endpoint];
            match pool.waiting.pop_front() {
                None => {
                    pool.active -= 1;
                    return;
                }
                Some(next) => {
                    // Those that gave up while they waited are gone.
                    let Some(attempt) = self.attempts.get_mut(next) else { continue };
                    attempt.pooled = false;
                    attempt.held_since = now;
                    return self.send(now, next);
                }
            }
        }
    }

    /// Tells the callee, if anything was sent, that nobody waits any more.
    fn abandon_attempt(&mut self, now: Nanos, key: Key, outcome: Outcome) -> Key {
        let Some(attempt) = self.attempts.get(key) else { return Key::NONE };
        let job = attempt.job;
        if !job.is_none()
            && let Some(call) = self.calls.get(attempt.call)
        {
            let from = self.instances[call.caller_instance as usize].location;
            let to = self.instances[attempt.instance as usize].location;
            let draw = call.draw.child(u64::from(attempt.number)).child(2);
            if let Some(way) = self.transit(from, to, 0, draw) {
                self.events.schedule(now + way, job.event(kind::CANCEL));
            }
        }
        self.attempt_over(now, key, outcome)
    }

    pub(super) fn on_reply(&mut self, now: Nanos, key: Key) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let reply = attempt.reply;
        let outcome = reply.map_or_else(|failed| failed.outcome, |()| Outcome::Status(200));
        let call = self.attempt_over(now, key, outcome);
        match reply {
            Ok(()) => self.call_over(now, call, Ok(())),
            Err(failed) => self.attempt_failed(now, call, failed),
        }
    }

    pub(super) fn on_try_timeout(&mut self, now: Nanos, key: Key) {
        let call = self.abandon_attempt(now, key, Outcome::Timeout);
        if let Some(state) = self.calls.get(call) {
            self.meters.edges[state.edge as usize].timeouts += 1;
            self.attempt_failed(now, call, Failed { root: Cause::Timeout, outcome: Outcome::Timeout });
        }
    }

    fn attempt_failed(&mut self, now: Nanos, key: Key, failed: Failed) {
        let plan = self.plan;
        let Some(call) = self.calls.get_mut(key) else { return };
        if call.live > 0 {
            return; // Another copy is on its way.
        }
        let edge = &plan.edges[call.edge as usize];
        let Some(settings) = &edge.settings.retry else { return self.call_over(now, key, Err(failed)) };
        let attempt = Attempt {
            idempotent: plan.operations[edge.operation as usize].idempotent,
            ..Attempt::ended(failed.outcome, call.deadline)
        };
        let mut rng = call.draw.child(u64::from(call.tries)).for_purpose(Purpose::Backoff).rng();
        let caller = plan.pairs[edge.pair as usize].caller;
        let id = self.first_outbound[edge.pair as usize] + call.caller_instance
            - plan.stations[caller as usize].instances.from;
        let budget = self.outbounds[id as usize].budget.as_mut();
        match call.retry.next(settings, &attempt, budget, now, &mut rng) {
            Next::Retry { wait, .. } if wait.is_zero() => self.on_retry(now, key),
            Next::Retry { wait, .. } => {
                call.retry_timer = self.events.schedule_timer(now + wait, key.event(kind::RETRY));
            }
            Next::Stop(why) => {
                if why == Why::BudgetEmpty {
                    self.meters.edges[call.edge as usize].budget_refused += 1;
                }
                self.call_over(now, key, Err(failed));
            }
        }
    }

    pub(super) fn on_retry(&mut self, now: Nanos, key: Key) {
        if self.calls.get(key).is_none() {
            return;
        }
        if let Err(failed) = self.begin_attempt(now, key, true) {
            self.call_over(now, key, Err(failed));
        }
    }

    pub(super) fn on_hedge(&mut self, now: Nanos, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let edge = &self.plan.edges[call.edge as usize];
        let Some(hedge) = &edge.settings.hedge else { return };
        let (live, edge_index) = (call.live, call.edge as usize);
        let id = self.outbound_of(call.caller_instance, edge.pair);
        let idempotent = self.plan.operations[edge.operation as usize].idempotent;
        let Some(budget) = &mut self.outbounds[id as usize].hedge_budget else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        if live == 0 || live as usize >= COPIES_MAX {
            return;
        }
        let again = match call.hedge.on_time(hedge, idempotent, call.deadline, budget, now) {
            HedgeNext::Send => {
                if self.begin_attempt(now, key, false).is_ok() {
                    self.meters.edges[edge_index].hedges += 1;
                }
                now + hedge.after
            }
            HedgeNext::WaitUntil(at) => at,
            HedgeNext::Wait | HedgeNext::Finish => return,
        };
        let timer = self.events.schedule_timer(again, key.event(kind::HEDGE));
        if let Some(call) = self.calls.get_mut(key) {
            call.hedge_timer = timer;
        }
    }

    pub(super) fn on_deadline(&mut self, now: Nanos, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        self.meters.edges[call.edge as usize].timeouts += 1;
        self.abandon_attempts(now, key, Outcome::Timeout);
        self.call_over(now, key, Err(Failed { root: Cause::Timeout, outcome: Outcome::Timeout }));
    }

    fn abandon_attempts(&mut self, now: Nanos, key: Key, outcome: Outcome) {
        let Some(call) = self.calls.get(key) else { return };
        for attempt in call.attempts {
            if !attempt.is_none() {
                self.abandon_attempt(now, attempt, outcome);
            }
        }
    }

    /// A repetition of a call has ended: it is counted, and either another follows or its job is told.
    fn call_over(&mut self, now: Nanos, key: Key, ended: Ended) {
        self.abandon_attempts(now, key, Outcome::Cancelled);
        let Some(call) = self.calls.get_mut(key) else { return };
        let timers = [call.timer, call.hedge_timer, call.retry_timer];
        let (edge, started, caller) = (call.edge as usize, call.started, call.caller_instance);
        timers.into_iter().for_each(|it| {
            self.events.cancel(it);
        });
        self.meters.edges[edge].calls.record(ended.map_err(|it| it.root), now - started);
        self.edge_ended(edge, ended.is_err());
        let id = self.outbound_of(caller, self.plan.edges[edge].pair);
        let outcome = ended.map_or_else(|failed| failed.outcome, |()| Outcome::Status(200));
        self.give_back(now, id, started, outcome);
        let ended = match ended {
            Ok(()) => self.after_success(now, key),
            Err(failed) => self.after_failure(now, key, failed),
        };
        if let Some((job, ended)) = ended {
            self.leaf_done(now, job, ended);
        }
    }

    /// The next repetition, or the end. `None`: it goes on.
    fn after_success(&mut self, now: Nanos, key: Key) -> Option<(Key, Ended)> {
        let call = self.calls.get_mut(key)?;
        if call.left == 0 {
            return Some((self.remove_call(now, key, Ok(())), Ok(())));
        }
        call.left -= 1;
        match self.begin_call(now, key) {
            Ok(()) => None,
            Err(failed) => self.after_failure(now, key, failed),
        }
    }

    /// What stands in for a failed call, if anything does. `None`: something else is being tried.
    fn after_failure(&mut self, now: Nanos, key: Key, failed: Failed) -> Option<(Key, Ended)> {
        let plan = self.plan;
        let call = self.calls.get_mut(key)?;
        let it = &plan.calls[call.plan as usize];
        let edge = call.edge as usize;
        if it.instead != NONE {
            call.plan = it.instead;
            call.left = 0;
            self.meters.edges[edge].degraded += 1;
            return match self.begin_call(now, key) {
                Ok(()) => None,
                Err(failed) => {
                    // Whatever stands in last is what the call was marked with: optional, or needed.
                    let ended = if it.optional { Ok(()) } else { Err(failed) };
                    Some((self.remove_call(now, key, ended), ended))
                }
            };
        }
        let covered = it.optional || it.fallback;
        if covered && self.calls.get(key).is_some_and(|it| it.consumer == NOBODY) {
            self.meters.edges[edge].degraded += 1;
        }
        let ended = if covered { Ok(()) } else { Err(failed) };
        Some((self.remove_call(now, key, ended), ended))
    }

    /// Returns the job that waited for it.
    fn remove_call(&mut self, now: Nanos, key: Key, ended: Ended) -> Key {
        let Some(call) = self.calls.remove(key) else { return Key::NONE };
        match self.calls.get_mut(call.previous) {
            Some(previous) => previous.next = call.next,
            None => {
                if let Some(job) = self.jobs.get_mut(call.job) {
                    job.calls = call.next;
                }
            }
        }
        if let Some(next) = self.calls.get_mut(call.next) {
            next.previous = call.previous;
        }
        if call.consumer != NOBODY {
            self.delivered(now, call.consumer, call.published, ended);
        }
        call.job
    }

    /// The job that made it does not need it any more.
    pub(super) fn cancel_call(&mut self, now: Nanos, key: Key) {
        self.abandon_attempts(now, key, Outcome::Cancelled);
        let Some(call) = self.calls.get(key) else { return };
        let timers = [call.timer, call.hedge_timer, call.retry_timer];
        let (edge, caller, started) = (call.edge as usize, call.caller_instance, call.started);
        timers.into_iter().for_each(|it| {
            self.events.cancel(it);
        });
        self.meters.edges[edge].calls.failures.add(Cause::Cancelled);
        let id = self.outbound_of(caller, self.plan.edges[edge].pair);
        self.give_back(now, id, started, Outcome::Cancelled);
        self.remove_call(now, key, Err(Failed::by(Cause::Cancelled)));
    }
}

/// Consumers take messages when they are free; nobody pushes. So the one with least in hand is next, any of equals.
fn pulled_by(endpoints: &[Endpoint], luck: u64) -> Result<Picked, NoPick> {
    let count = endpoints.len();
    let from = (luck % count.max(1) as u64) as usize;
    let free = (0..count).map(|n| (from + n) % count).filter(|it| endpoints[*it].is_available());
    match free.min_by_key(|it| endpoints[*it].in_flight) {
        Some(index) => Ok(Picked { index: index as u32, panic: false, home: false }),
        None if count == 0 => Err(NoPick::NoInstance),
        None => Err(NoPick::NoneAvailable),
    }
}

/// How long a message into a cut network is waited for before the transport calls it no connection.
const CONNECT_TIMEOUT: Nanos = Nanos::from_secs(5);
/// How long a resolver that does not answer is waited for.
const RESOLVER_TIMEOUT: Nanos = Nanos::from_secs(5);
const IDLE_MAX: Nanos = Nanos::from_secs(60);
/// A flight of a handshake, certificates included.
const HELLO: u64 = 3_000;
