//! The world: stations, requests and the way between them, moved by one event at a time.
//!
//! A request at an instance is a *job*: it waits, works, makes its calls and answers. A call is the caller's side: it has
//! a deadline, picks instances, retries and hedges by the very `policy` code that the proxy runs. Each try is an
//! *attempt*: a message there, a job, a message back. Jobs, calls and attempts live in slabs and name each other by keys
//! that go stale, because in a distributed system either side may be gone when the other's message arrives.
//!
//! What happens when somebody gives up: the caller stops waiting at once and tells the callee; a callee that still queued
//! the job drops it, one that waits for others cancels them, one that works ends that piece of work first (a thread
//! cannot be stopped in the middle) and makes no further call.

mod call;
mod faults;
mod job;
mod load;
mod network;
mod outbound;
mod scale;
mod share;
mod store;
mod topic;

use crate::cache::Cache;
use crate::meter::{Cause, Meters};
use crate::plan::{NONE, Plan, StationKind};
use crate::queue::{Event, EventQueue, TimerId};
use crate::random::Draw;
use crate::record::{Change, Record, Recorder, Side, Span, UNTRACED, span_of_attempt, span_of_job};
use crate::slab::{Key, Slab};
use network::LinkFault;
use outbound::Outbound;
use policy::settings::Priority;
use policy::settings::Queue as Settings;
use policy::{Deadline, HedgeState, Outcome, Permit, Queue, RetryState, Ticket};
use scale::ScaleState;
use share::Share;
use store::StoreState;
use topic::TopicState;
use units::Nanos;

/// What an event is about. Numbers only: the queue knows nothing of these.
mod kind {
    pub(super) const ARRIVAL: u8 = 0;
    pub(super) const USER: u8 = 1;
    pub(super) const ARRIVE: u8 = 2;
    pub(super) const WORK: u8 = 3;
    pub(super) const LEAF: u8 = 4;
    pub(super) const REPLY: u8 = 5;
    pub(super) const TRY_TIMEOUT: u8 = 6;
    pub(super) const DEADLINE: u8 = 7;
    pub(super) const RETRY: u8 = 8;
    pub(super) const HEDGE: u8 = 9;
    pub(super) const CANCEL: u8 = 10;
    pub(super) const FAULT: u8 = 11;
    pub(super) const UNDO: u8 = 12;
    pub(super) const HEALTH: u8 = 13;
    pub(super) const SWEEP: u8 = 14;
    pub(super) const RESTORE: u8 = 15;
    pub(super) const STORED: u8 = 16;
    pub(super) const DELIVER: u8 = 17;
    pub(super) const LOOK: u8 = 18;
    pub(super) const SCALE: u8 = 19;
    pub(super) const GROW: u8 = 20;
    pub(super) const SHARE: u8 = 21;
}

/// A failure on its way up: what first went wrong, and what the next caller sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) root: Cause,
    pub(crate) outcome: Outcome,
}

impl Failed {
    pub(crate) const fn by(cause: Cause) -> Self {
        Self { root: cause, outcome: cause.outcome() }
    }

    /// What the caller's caller sees of a failed dependency: the status passes through a layer, as most code lets it.
    const fn through_a_layer(self) -> Self {
        let outcome = match self.outcome {
            Outcome::Status(status) => Outcome::Status(status),
            Outcome::Timeout => Outcome::Status(504),
            Outcome::Shed => Outcome::Status(503),
            _ => Outcome::Status(502),
        };
        Self { root: self.root, outcome }
    }
}

pub(crate) type Ended = Result<(), Failed>;

/// A request at one instance.
#[derive(Debug)]
struct Job {
    draw: Draw,
    operation: u32,
    instance: u32,
    /// The caller's attempt; none for a request that users start.
    attempt: Key,
    deadline: Deadline,
    arrived: Nanos,
    state: JobState,
    priority: Priority,
    /// The caller has left; what is being worked on will end and nothing more will be started.
    abandoned: bool,
    depth: u8,
    /// Steps of the script before this one are done.
    step: u32,
    /// Leaves of the current step that are still open.
    pending: u32,
    /// The calls in progress, linked.
    calls: Key,
    /// Its place in the instance's queue.
    ticket: Option<Ticket>,
    /// The closed-loop user who waits for it, or the message it handles.
    tag: u32,
    /// The request of the record that it is part of.
    trace: u32,
    /// Time it spent in the queue.
    waited: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    Queued,
    Working,
    /// Waiting for copies of a store.
    Storing,
    /// Waiting for its calls or for work between them.
    Calling,
}

/// Requests an unbounded queue may hold before the run calls it what it is. A queue of ten million requests has no
/// latency anybody would wait for, and without this bound a hopeless model would take the machine's memory.
const UNBOUNDED_MAX: u32 = 10_000_000;

/// Tries running at once, hedges included.
const COPIES_MAX: usize = 4;
/// Instances a call remembers having tried.
const TRIED_MAX: usize = 6;

#[derive(Debug)]
struct CallState {
    draw: Draw,
    /// Who waits; none for a detached call.
    job: Key,
    plan: u32,
    edge: u32,
    caller_instance: u32,
    version: Option<u16>,
    /// Repetitions still to come after this one.
    left: u32,
    deadline: Deadline,
    /// What the waiting job allows; repetitions start from it.
    latest: Deadline,
    started: Nanos,
    timer: TimerId,
    hedge_timer: TimerId,
    hedge: HedgeState,
    retry_timer: TimerId,
    retry: RetryState,
    attempts: [Key; COPIES_MAX],
    live: u8,
    tries: u8,
    tried_count: u8,
    tried: [u32; TRIED_MAX],
    depth: u8,
    priority: Priority,
    next: Key,
    previous: Key,
    /// The consumer of a topic whose message this delivers.
    consumer: u32,
    published: Nanos,
    trace: u32,
    /// The span of the job that made it.
    parent: u64,
}

#[derive(Debug)]
struct AttemptState {
    call: Key,
    outbound: u32,
    endpoint: u32,
    instance: u32,
    number: u8,
    sent: Nanos,
    deadline: Deadline,
    timer: TimerId,
    /// Since when it holds a connection.
    held_since: Nanos,
    job: Key,
    permit: Option<Permit>,
    /// Waits for a connection; nothing has been sent.
    pooled: bool,
    reply: Ended,
}

/// Whether an instance can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    /// Takes requests and does nothing with them.
    Paused,
    /// The process is gone and its machine says so.
    Stopped,
    /// The machine is gone: nobody answers.
    Silent,
    /// Taken out by scaling: ends what it has, and is given nothing more.
    Draining,
    /// Not started: a spare.
    Absent,
}

impl Standing {
    const fn works(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

#[derive(Debug)]
struct Instance {
    station: u32,
    location: u16,
    version: u16,
    standing: Standing,
    busy: u32,
    limit: u32,
    queue: Queue<Key>,
    dispatching: bool,
    /// Until when the integrals of its meter have been brought forward.
    measured: Nanos,
    slow: f64,
    delay: Nanos,
    errors: f64,
}

/// Whole-run counts that no warm-up resets: what the laws of conservation are checked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub jobs: u64,
    pub ok: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub in_flight: u64,
    pub root: u64,
    pub root_ok: u64,
    pub root_failed: u64,
    pub root_in_flight: u64,
    /// A caller's breakers, budgets and ejections never broke their word while this stays zero.
    pub last_ejected: u64,
    pub busy_over_limit: u64,
    /// Work or calls that began for somebody who was known to have left.
    pub begun_after_cancel: u64,
}

/// Multipliers on what the plan says, for sweeps and for tests that must fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bias {
    pub load: f64,
    /// On every piece of work; 1.02 is the error that the tests of correctness must notice.
    pub work: f64,
}

impl Default for Bias {
    fn default() -> Self {
        Self { load: 1.0, work: 1.0 }
    }
}

#[derive(Debug)]
pub(crate) struct World<'p> {
    plan: &'p Plan,
    events: EventQueue,
    root: Draw,
    bias: Bias,
    jobs: Slab<Job>,
    calls: Slab<CallState>,
    attempts: Slab<AttemptState>,
    instances: Vec<Instance>,
    /// Of each instance, if its work shares cores.
    shares: Vec<Option<Share>>,
    outbounds: Vec<Outbound>,
    /// Of each pair: its first outbound; one for each instance of the caller follows.
    first_outbound: Vec<u32>,
    /// Of each station: the pairs that call it.
    callers_of: Vec<Vec<u32>>,
    caches: Vec<Option<Cache>>,
    stores: Vec<Option<StoreState>>,
    topics: Vec<Option<TopicState>>,
    scalers: Vec<Option<ScaleState>>,
    loads: Vec<load::LoadState>,
    /// Faults that keep names from being resolved.
    dns_faults: u32,
    link_faults: Vec<LinkFault>,
    any_link_fault: bool,
    scenario: Option<usize>,
    /// Of each fault that will end: its event, and how to take it back.
    undo: Vec<(u32, faults::Undo)>,
    meters: Meters,
    tally: Tally,
    recorder: Option<Box<Recorder>>,
    /// The slice of time that is now, and where it ends.
    slice: usize,
    slice_ends: Nanos,
    /// When counting began: the end of the warm-up.
    counting_since: Nanos,
}

impl<'p> World<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        seed: u64,
        replication: u64,
        scenario: Option<usize>,
        bias: Bias,
        duration: Nanos,
    ) -> Self {
        let root = Draw::new(seed).child(replication);
        let instances: Vec<Instance> = plan.instances.iter().map(|it| Instance::new(plan, it)).collect();
        let shares = plan.instances.iter().map(|it| plan.stations[it.station as usize].cores.map(Share::new));
        let shares: Vec<Option<Share>> = shares.collect();
        let mut callers_of = vec![Vec::new(); plan.stations.len()];
        for (pair, it) in plan.pairs.iter().enumerate() {
            callers_of[it.callee as usize].push(pair as u32);
        }
        let caches = plan.stations.iter().map(|it| {
            it.cache.as_ref().map(|it| {
                let mut cache = Cache::new(it);
                cache.warm(Nanos::ZERO);
                cache
            })
        });
        let stores =
            plan.stations.iter().map(|it| it.store.map(|store| StoreState::new(store, it.instances)));
        let topics = plan.stations.iter().map(|it| it.topic.as_ref().map(TopicState::new));
        let scalers = plan.stations.iter().map(|it| {
            let standing =
                it.instances.iter().filter(|it| plan.instances[*it as usize].initial).count() as u32;
            it.autoscale.as_ref().map(|scale| ScaleState::new(scale, standing))
        });
        let mut world = Self {
            plan,
            events: EventQueue::new(),
            root,
            bias,
            jobs: Slab::new(),
            calls: Slab::new(),
            attempts: Slab::new(),
            instances,
            shares,
            outbounds: Vec::new(),
            first_outbound: Vec::new(),
            callers_of,
            caches: caches.collect(),
            stores: stores.collect(),
            topics: topics.collect(),
            scalers: scalers.collect(),
            loads: Vec::new(),
            dns_faults: 0,
            slice: 0,
            slice_ends: Nanos::ZERO,
            link_faults: vec![LinkFault::default(); plan.links.len()],
            any_link_fault: false,
            scenario,
            undo: Vec::new(),
            meters: Meters::new(plan, duration),
            tally: Tally::default(),
            recorder: None,
            counting_since: Nanos::ZERO,
        };
        world.make_outbounds();
        world.start_loads();
        world.schedule_faults();
        world.start_scalers();
        world
    }

    /// Keeps a record of this run.
    pub(crate) fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(Box::new(recorder));
    }

    fn note(&mut self, now: Nanos, change: Change) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(now, change);
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.events.now()
    }

    /// Runs to `end`, or until `stop` says so. It is told now and then how many events have passed since it was last told.
    pub(crate) fn run_until(&mut self, end: Nanos, stop: &dyn Fn(u64) -> bool) -> bool {
        const ASK_EVERY: u64 = 4_096;
        let mut until_ask = ASK_EVERY;
        let last_slice = crate::meter::SLICES - 1;
        while let Some((now, event)) = self.events.pop_until(end) {
            self.meters.events += 1;
            if now >= self.slice_ends {
                self.slice = ((now.0 / self.meters.slice.0) as usize).min(last_slice);
                let next = if self.slice == last_slice {
                    Nanos::MAX
                } else {
                    self.meters.slice * (self.slice as u64 + 1)
                };
                self.slice_ends = next;
            }
            self.step(now, event);
            until_ask -= 1;
            if until_ask == 0 {
                until_ask = ASK_EVERY;
                if stop(ASK_EVERY) {
                    return false;
                }
            }
        }
        stop(ASK_EVERY - until_ask);
        true
    }

    #[inline]
    fn step(&mut self, now: Nanos, event: Event) {
        match event.kind() {
            kind::ARRIVAL => self.on_arrival(now, event),
            kind::USER => self.on_user(now, event),
            kind::ARRIVE => self.on_arrive(now, Slab::<AttemptState>::key_of(event)),
            kind::WORK => self.on_work(now, Slab::<Job>::key_of(event)),
            kind::LEAF => self.leaf_done(now, Slab::<Job>::key_of(event), Ok(())),
            kind::REPLY => self.on_reply(now, Slab::<AttemptState>::key_of(event)),
            kind::TRY_TIMEOUT => self.on_try_timeout(now, Slab::<AttemptState>::key_of(event)),
            kind::DEADLINE => self.on_deadline(now, Slab::<CallState>::key_of(event)),
            kind::RETRY => self.on_retry(now, Slab::<CallState>::key_of(event)),
            kind::HEDGE => self.on_hedge(now, Slab::<CallState>::key_of(event)),
            kind::CANCEL => self.cancel_job(now, Slab::<Job>::key_of(event)),
            kind::FAULT => self.on_fault(now, event.id),
            kind::UNDO => self.on_undo(now, event.id),
            kind::HEALTH => self.on_health(now, event.id),
            kind::SWEEP => self.on_sweep(now, event.id),
            kind::RESTORE => self.on_restore(now, event.id),
            kind::STORED => self.on_stored(now, Slab::<Job>::key_of(event)),
            kind::SCALE => self.on_scale(now, event.id),
            kind::GROW => self.on_grow(now, event),
            kind::LOOK => self.on_look(now, event),
            kind::DELIVER => self.on_deliver(now, event.id),
            kind::SHARE => self.on_share(now, event.id),
            other => debug_assert!(false, "no event is of kind {other}"),
        }
    }

    /// Ends the warm-up: what was counted so far is forgotten, what is going on goes on.
    pub(crate) fn begin_counting(&mut self) {
        let now = self.now();
        (0..self.instances.len()).for_each(|it| self.measure(now, it));
        self.settle_outbounds(now);
        self.forget_connections();
        self.meters.forget_warm_up(self.plan);
        self.counting_since = now;
    }

    /// Brings all integrals up to now and hands out what was measured.
    pub(crate) fn finish(mut self) -> (Meters, Tally, Option<Record>) {
        let now = self.now();
        (0..self.instances.len()).for_each(|it| self.measure(now, it));
        self.settle_outbounds(now);
        self.measure_connections(now);
        self.tally.in_flight = self.jobs.len() as u64;
        let is_root = |it: &Job| {
            self.plan.stations[self.plan.operations[it.operation as usize].station as usize].kind
                == StationKind::Users
        };
        self.tally.root_in_flight = self.jobs.keys().filter(|(_, it)| is_root(it)).count() as u64;
        (self.meters, self.tally, self.recorder.map(|it| it.finish()))
    }

    /// Adds the time since the last change to the integrals of an instance.
    #[inline]
    fn measure(&mut self, now: Nanos, instance: usize) {
        let it = &mut self.instances[instance];
        let passed = u128::from((now - it.measured).0);
        if passed == 0 {
            return;
        }
        it.measured = now;
        let meter = &mut self.meters.instances[instance];
        meter.busy += passed * u128::from(it.busy);
        meter.waiting += passed * it.queue.len() as u128;
        if let Some(share) = &self.shares[instance] {
            meter.working += passed * u128::from(share.cores_in_use());
        }
        if it.standing == Standing::Up {
            meter.up += passed;
        }
    }
}

impl Instance {
    fn new(plan: &Plan, it: &crate::plan::InstancePlan) -> Self {
        let queue = &plan.stations[it.station as usize].queue;
        Self {
            station: it.station,
            location: it.location,
            version: it.version,
            standing: if it.initial { Standing::Up } else { Standing::Absent },
            busy: 0,
            limit: plan.stations[it.station as usize].concurrency,
            queue: Queue::new(Settings {
                max: Some(queue.max.unwrap_or(UNBOUNDED_MAX)),
                discipline: queue.discipline,
            }),
            dispatching: false,
            measured: Nanos::ZERO,
            slow: 1.0,
            delay: Nanos::ZERO,
            errors: 0.0,
        }
    }
}

/// A call that belongs to no consumer of a topic, and a job that belongs to no closed-loop user.
const NOBODY: u32 = NONE;
