//! A request at its instance: it waits, works, makes its calls, answers.

use super::network::GIVE_UP;
use super::*;
use crate::plan::Step;
use policy::{DropWhy, Popped, Pushed};
use units::Purpose;

/// What starting a leaf of a script came to.
pub(super) enum Leaf {
    /// It will end by an event.
    Pending,
    Done,
    Failed(Failed),
}

/// Hops of one request, one below another. A cycle of calls ends here instead of never.
const DEPTH_MAX: u8 = 64;

/// How long a connection attempt into silence takes to be given up by the transport.
const CONNECT_TIMEOUT: Nanos = Nanos::from_secs(5);

impl World<'_> {
    /// An attempt reaches its instance.
    pub(super) fn on_arrive(&mut self, now: Nanos, key: Key) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let (instance, number, deadline, call) =
            (attempt.instance, attempt.number, attempt.deadline, attempt.call);
        let standing = self.instances[instance as usize].standing;
        match standing {
            Standing::Up | Standing::Draining | Standing::Paused => {}
            Standing::Stopped | Standing::Absent => {
                return self.answer(now, key, instance, Err(Failed::by(Cause::Connect)), 0);
            }
            Standing::Silent => {
                if let Some(attempt) = self.attempts.get_mut(key) {
                    attempt.reply = Err(Failed::by(Cause::Connect));
                }
                return self.events.schedule(now + CONNECT_TIMEOUT, key.event(kind::REPLY));
            }
        }
        let Some(call) = self.calls.get(call) else { return };
        let operation = self.plan.edges[call.edge as usize].operation;
        let job = Job {
            draw: call.draw.child(u64::from(number)),
            operation,
            instance,
            attempt: key,
            deadline,
            arrived: now,
            state: JobState::Queued,
            priority: self.plan.operations[operation as usize].priority.unwrap_or(call.priority),
            abandoned: false,
            depth: call.depth.saturating_add(1),
            step: self.plan.operations[operation as usize].script.from,
            pending: 0,
            calls: Key::NONE,
            ticket: None,
            tag: NOBODY,
            trace: call.trace,
            waited: Nanos::ZERO,
        };
        let job = self.jobs.insert(job);
        if let Some(attempt) = self.attempts.get_mut(key) {
            attempt.job = job;
        }
        self.admit(now, job);
    }

    /// A new job starts, waits or is refused.
    pub(super) fn admit(&mut self, now: Nanos, key: Key) {
        let Some(job) = self.jobs.get(key) else { return };
        let (index, operation, depth) = (job.instance as usize, job.operation as usize, job.depth);
        let (priority, deadline) = (job.priority, job.deadline);
        self.tally.jobs += 1;
        self.meters.operations[operation].arrivals += 1;
        self.meters.instances[index].arrivals += 1;
        if depth > DEPTH_MAX {
            return self.finish_job(now, key, Err(Failed::by(Cause::Limit)), Cause::Limit);
        }
        let instance = &self.instances[index];
        let free = instance.busy < instance.limit && instance.standing.works();
        if free && instance.queue.is_empty() && !deadline.has_passed(now) {
            return self.start(now, key);
        }
        self.measure(now, index);
        let pushed = self.instances[index].queue.push(now, key, priority, deadline);
        let waiting = self.instances[index].queue.len() as u32;
        let meter = &mut self.meters.instances[index];
        meter.waiting_max = meter.waiting_max.max(waiting);
        match pushed {
            Pushed::Waits(ticket) => self.set_ticket(key, ticket),
            Pushed::Instead(ticket, displaced) => {
                self.set_ticket(key, ticket);
                self.finish_job(now, displaced, Err(Failed::by(Cause::QueueFull)), Cause::QueueFull);
            }
            Pushed::Full(key) => {
                self.finish_job(now, key, Err(Failed::by(Cause::QueueFull)), Cause::QueueFull)
            }
            Pushed::Late(key) => self.finish_job(now, key, Err(Failed::by(Cause::Timeout)), Cause::Timeout),
        }
    }

    fn set_ticket(&mut self, key: Key, ticket: Ticket) {
        if let Some(job) = self.jobs.get_mut(key) {
            job.ticket = Some(ticket);
        }
    }

    /// Takes a job out of the queue it waits in.
    fn unqueue(&mut self, now: Nanos, key: Key) {
        let Some(job) = self.jobs.get(key) else { return };
        let (index, ticket) = (job.instance as usize, job.ticket);
        self.measure(now, index);
        if let Some(ticket) = ticket {
            self.instances[index].queue.cancel(ticket);
        }
    }

    /// Starts waiting jobs while there are places. Not re-entered: a job that ends at once makes its own place free,
    /// and the loop that started it goes on.
    fn dispatch(&mut self, now: Nanos, index: usize) {
        if std::mem::replace(&mut self.instances[index].dispatching, true) {
            return;
        }
        loop {
            let instance = &self.instances[index];
            if instance.busy >= instance.limit || !instance.standing.works() {
                break;
            }
            self.measure(now, index);
            match self.instances[index].queue.pop(now) {
                None => break,
                Some(Popped::Serve { item, .. }) => self.start(now, item),
                Some(Popped::Drop { item, why, .. }) => {
                    let cause = match why {
                        DropWhy::Late => Cause::Timeout,
                        DropWhy::Standing => Cause::QueueFull,
                    };
                    self.finish_job(now, item, Err(Failed::by(cause)), cause);
                }
            }
        }
        self.instances[index].dispatching = false;
    }

    fn start(&mut self, now: Nanos, key: Key) {
        let plan = self.plan;
        let Some(job) = self.jobs.get_mut(key) else { return };
        self.tally.begun_after_cancel += u64::from(job.abandoned);
        job.state = JobState::Working;
        job.waited = now - job.arrived;
        let (index, operation, draw, waited) =
            (job.instance as usize, job.operation as usize, job.draw, job.waited);
        self.measure(now, index);
        self.meters.operations[operation].waiting.record(waited);
        let instance = &mut self.instances[index];
        instance.busy += 1;
        if instance.busy > instance.limit {
            self.tally.busy_over_limit += 1;
        }
        let station = &plan.stations[instance.station as usize];
        let version = station.versions.get(instance.version as usize).map_or(1.0, |it| it.work);
        let factor = version * instance.slow * self.bias.work;
        let mut takes = plan.operations[operation].work.at_tail(draw.for_purpose(Purpose::Work).tail());
        if factor != 1.0 {
            takes = takes.mul_f64(factor);
        }
        takes += instance.delay;
        if takes.is_zero() {
            self.on_work(now, key)
        } else {
            self.work(now, index, takes, key.event(kind::WORK))
        }
    }

    /// Its own work is done.
    pub(super) fn on_work(&mut self, now: Nanos, key: Key) {
        let plan = self.plan;
        let Some(job) = self.jobs.get_mut(key) else { return };
        if job.abandoned {
            return self.drop_job(now, key);
        }
        job.state = JobState::Calling;
        let (draw, operation, index) = (job.draw, job.operation as usize, job.instance as usize);
        let instance = &self.instances[index];
        let station = instance.station as usize;
        let own = plan.stations[station]
            .versions
            .get(instance.version as usize)
            .and_then(|it| it.errors)
            .unwrap_or(plan.operations[operation].errors);
        let errors = 1.0 - (1.0 - own) * (1.0 - instance.errors);
        if errors > 0.0 && draw.for_purpose(Purpose::Error).unit() < errors {
            return self.finish_job(now, key, Err(Failed::by(Cause::Own)), Cause::Own);
        }
        if let Some(cache) = &mut self.caches[station] {
            let hit = cache.lookup(now, draw.for_purpose(Purpose::Cache));
            let meter = &mut self.meters.operations[operation];
            if hit {
                meter.cache_hits += 1;
                return self.finish_job(now, key, Ok(()), Cause::Own);
            }
            meter.cache_misses += 1;
        }
        if self.stores[station].is_some() {
            return self.store(now, key);
        }
        if self.topics[station].is_some() {
            self.publish(now, station);
        }
        self.advance(now, key);
    }

    /// Goes through the script until something must be waited for.
    pub(super) fn advance(&mut self, now: Nanos, key: Key) {
        let plan = self.plan;
        loop {
            let Some(job) = self.jobs.get_mut(key) else { return };
            if job.abandoned {
                return self.drop_job(now, key);
            }
            let operation = &plan.operations[job.operation as usize];
            if job.step == operation.script.to {
                return self.finish_job(now, key, Ok(()), Cause::Own);
            }
            let step = job.step;
            // Set before anything starts: nothing below ends a leaf at once but by its return value.
            job.pending = 0;
            let leaves = match &plan.steps[step as usize] {
                Step::All(leaves) => leaves.iter(),
                _ => step..step + 1,
            };
            let mut pending = 0;
            for leaf in leaves {
                match self.start_leaf(now, key, leaf) {
                    Leaf::Pending => pending += 1,
                    Leaf::Done => {}
                    Leaf::Failed(failed) => return self.fail_job(now, key, failed),
                }
            }
            let Some(job) = self.jobs.get_mut(key) else { return };
            job.pending = pending;
            if pending > 0 {
                return;
            }
            job.step += 1;
        }
    }

    fn start_leaf(&mut self, now: Nanos, key: Key, leaf: u32) -> Leaf {
        self.tally.begun_after_cancel += u64::from(self.jobs.get(key).is_some_and(|it| it.abandoned));
        match &self.plan.steps[leaf as usize] {
            Step::Work(_, sampler) => {
                let Some(job) = self.jobs.get(key) else { return Leaf::Done };
                let draw = job.draw.child(u64::from(leaf) << 8).for_purpose(Purpose::Work);
                let index = job.instance as usize;
                let factor = self.instances[index].slow * self.bias.work;
                let takes = sampler.at_tail(draw.tail()).mul_f64(factor);
                self.work(now, index, takes, key.event(kind::LEAF));
                Leaf::Pending
            }
            Step::Call(call) => self.start_call(now, key, *call, leaf),
            // The plan flattens nested ones.
            Step::All(_) => Leaf::Done,
        }
    }

    /// A call or a piece of work between calls has ended.
    pub(super) fn leaf_done(&mut self, now: Nanos, key: Key, ended: Ended) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        match ended {
            Err(failed) => self.fail_job(now, key, failed),
            Ok(()) => {
                job.pending = job.pending.saturating_sub(1);
                if job.pending == 0 {
                    job.step += 1;
                    self.advance(now, key);
                }
            }
        }
    }

    /// A dependency it cannot do without failed: what else it was waiting for is not needed any more.
    fn fail_job(&mut self, now: Nanos, key: Key, failed: Failed) {
        self.cancel_calls(now, key);
        self.finish_job(now, key, Err(failed.through_a_layer()), Cause::Dependency);
    }

    fn cancel_calls(&mut self, now: Nanos, key: Key) {
        while let Some(call) = self.jobs.get(key).map(|it| it.calls).filter(|it| !it.is_none()) {
            self.cancel_call(now, call);
        }
    }

    /// The end of a job in the eyes of its instance: count, answer, make its place free. `here` is what its own
    /// operation's meter calls a failure.
    pub(super) fn finish_job(&mut self, now: Nanos, key: Key, ended: Ended, here: Cause) {
        let Some(job) = self.jobs.remove(key) else { return };
        let index = job.instance as usize;
        let operation = job.operation as usize;
        let result = ended.map_err(|_| here);
        self.job_span(now, &job, result.err());
        self.meters.operations[operation].requests.record(result, now - job.arrived);
        match result {
            Ok(()) => {
                self.tally.ok += 1;
                self.meters.instances[index].ok += 1;
            }
            Err(_) => {
                self.tally.failed += 1;
                self.meters.instances[index].failed += 1;
            }
        }
        if job.attempt.is_none() {
            self.root_ended(now, &job, ended);
        } else {
            let bytes = if ended.is_ok() { self.plan.operations[operation].response_bytes } else { 0 };
            self.answer(now, job.attempt, job.instance, ended, bytes);
        }
        if job.state != JobState::Queued {
            self.free_place(now, index);
        }
    }

    /// Into the record, if the request is one of its.
    fn job_span(&mut self, now: Nanos, job: &Job, failed: Option<Cause>) {
        if job.trace == UNTRACED {
            return;
        }
        let attempt = self.attempts.get(job.attempt);
        let caller = attempt.and_then(|it| Some(self.calls.get(it.call)?.caller_instance));
        let is_user = job.tag != NOBODY || job.depth == 0;
        let Some(recorder) = &mut self.recorder else { return };
        recorder.span(
            job.trace,
            Span {
                trace: 0,
                id: span_of_job(job.draw),
                parent: (!is_user).then(|| span_of_attempt(job.draw)),
                side: if is_user { Side::Whole } else { Side::Callee },
                operation: job.operation,
                instance: job.instance,
                other: caller,
                start: job.arrived,
                took: now - job.arrived,
                failed,
                attempt: 0,
                waited: job.waited,
            },
        );
    }

    fn free_place(&mut self, now: Nanos, index: usize) {
        self.measure(now, index);
        self.instances[index].busy -= 1;
        if !self.instances[index].queue.is_empty() {
            self.dispatch(now, index);
        }
    }

    /// Sends an answer to an attempt, if its caller still waits.
    pub(super) fn answer(&mut self, now: Nanos, attempt: Key, instance: u32, ended: Ended, bytes: u64) {
        let Some(state) = self.attempts.get(attempt) else { return };
        let Some(call) = self.calls.get(state.call) else { return };
        let from = self.instances[instance as usize].location;
        let to = self.instances[call.caller_instance as usize].location;
        let draw = call.draw.child(u64::from(state.number)).child(1);
        let way = self.transit(from, to, bytes, draw);
        let Some(state) = self.attempts.get_mut(attempt) else { return };
        state.job = Key::NONE;
        let (at, reply) = match way {
            Some(way) => (now + way, ended),
            // The answer is lost for good: the connection breaks when the transport gives up.
            None => (now + GIVE_UP, Err(Failed::by(Cause::Reset))),
        };
        state.reply = reply;
        self.events.schedule(at, attempt.event(kind::REPLY));
    }

    /// The caller has left and the message saying so arrives.
    pub(super) fn cancel_job(&mut self, now: Nanos, key: Key) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        match job.state {
            JobState::Queued => {
                self.unqueue(now, key);
                self.drop_job(now, key);
            }
            JobState::Working | JobState::Storing => job.abandoned = true,
            JobState::Calling => {
                // Work between calls cannot be stopped either, but nobody counts it: the place is made free at once.
                self.cancel_calls(now, key);
                self.drop_job(now, key);
            }
        }
    }

    /// Ends a job that nobody waits for.
    pub(super) fn drop_job(&mut self, now: Nanos, key: Key) {
        let Some(job) = self.jobs.remove(key) else { return };
        self.tally.cancelled += 1;
        self.job_span(now, &job, Some(Cause::Cancelled));
        self.meters.operations[job.operation as usize].requests.failures.add(Cause::Cancelled);
        if job.state != JobState::Queued {
            self.free_place(now, job.instance as usize);
        }
    }

    /// An instance dies with what it had in hand. Its callers see a broken connection, or nothing if it is silent.
    pub(super) fn kill_jobs(&mut self, now: Nanos, index: usize, silent: bool) {
        let mine: Vec<Key> =
            self.jobs.keys().filter(|(_, it)| it.instance as usize == index).map(|(key, _)| key).collect();
        for key in mine {
            self.cancel_calls(now, key);
            let Some(job) = self.jobs.get(key) else { continue };
            if job.state == JobState::Queued {
                self.unqueue(now, key);
            }
            let Some(job) = self.jobs.remove(key) else { continue };
            self.tally.failed += 1;
            self.job_span(now, &job, Some(Cause::Reset));
            self.meters.operations[job.operation as usize].requests.failures.add(Cause::Reset);
            self.meters.instances[index].failed += 1;
            if silent {
                if let Some(attempt) = self.attempts.get_mut(job.attempt) {
                    attempt.reply = Err(Failed::by(Cause::Reset));
                    self.events.schedule(now + GIVE_UP, job.attempt.event(kind::REPLY));
                }
            } else {
                self.answer(now, job.attempt, job.instance, Err(Failed::by(Cause::Reset)), 0);
            }
        }
        self.measure(now, index);
        self.instances[index].busy = 0;
        self.stop_work(now, index);
    }

    /// After a pause or a change of limits: whoever can start does.
    pub(super) fn wake(&mut self, now: Nanos, index: usize) {
        self.dispatch(now, index);
    }
}
