//! Admission that needs no settings: goodput stays near capacity however much more is asked.
//!
//! One [`Overload`] stands in front of one instance and is told nothing about it: not how many requests it works on at
//! once, not how long they take, not how long callers wait, not whether it stops working for callers who left. What it
//! can see is which latency came with which concurrency. From that it keeps two promises: an instance that is not
//! overloaded is not limited, and one that is gets as much as it can do and no more.
//!
//! ## Why without it everything is lost
//! An instance with 10 slots of 10 ms does 1000 a second. Offered 3000, its queue grows by 2000 a second; after half a
//! second every answer is a second late, callers have gone, and it works for nobody: goodput is zero at full load. The
//! queue must be where it can be reordered and refused from, so this holds it *before* the instance.
//!
//! ## How many may be in flight
//! ```text
//! base     what a request takes when the instance is not busy
//! target   = 2·base + 50 ms                                    what it may take
//! r, n     mean latency of a window of at least 50 ms, 2·r and 8 ended requests; mean concurrency they started into
//! r > target              → limit = n·max(target/r, 1/2)       Little's law says what fits into the target
//! r ≤ target, some waited → limit = limit·5/4 + 1            (·2 until a cut was justified)
//! ```
//! Only requests that *started* after the last change are counted: those from before say what the old limit did.
//! The limit starts at 1024, so hardly anything is refused before there is evidence; the first window that shows it cuts
//! to about the right size in one step, because n and r belong together. The target leaves a queue of 50 ms in the
//! instance: enough to keep every slot busy through noise, little against any caller's patience.
//!
//! ## What is "not busy"?
//! A cold start under load has no idle moment. The first eight samples are weighted by `1/(n²)`, which is dominated by
//! those that met nobody. Later, unlimited windows may lower the base. Nothing raises it by drift: a latency that creeps
//! up because the queue creeps up would teach us that a full queue is normal. It is raised by experiment only:
//! - **Elasticity.** A limit that is far too high is halved, and a queueing instance then answers in half the time. If it
//!   takes (nearly) as long as before, the latency is not ours: the work itself is slow, so the cut is undone and
//!   the latency becomes the base.
//! - **Probe.** While it limits, every 20 s the limit falls to a third until 32 requests have shown what that gives;
//!   that becomes the base. A base that is too high by any factor shrinks by a third each time to `max(true, 50 ms)`.
//!
//! ## Callers who left
//! Many servers work on for callers who left. An abandoned request keeps its place until one that started later has
//! ended, or three times as long again as its caller waited. And it counts as a sample that took at least that long, if that is
//! over the target: where callers are impatient nobody else is left to tell that answers come too late, and an admission
//! that ignored them would never recover. Such samples are cut off at the callers' patience, so they are no evidence
//! about elasticity.
//!
//! ## The price
//! Work that suddenly takes much longer, or a cold start of slow and scattered work (a second and more), looks like
//! overload until the experiment has been made: for two to five such times up to half is refused. What takes longer than
//! callers wait cannot be helped at all.
//!
//! Windows and probes are aligned to the clock, so that several of these that cannot see each other (one per worker)
//! act in the same moment and see the joint effect. Better is one per instance.
//!
//! ## Who waits
//! Up to `queue_max` requests, highest priority first; for 100 ms in order of arrival, after that newest first
//! ([`Queue`](crate::Queue), adaptive LIFO). A burst may wait up to `wait_max`. Once somebody has been waiting for that
//! long without a break it is no burst, and whoever has waited 100 ms (or `base`) is refused: under lasting overload
//! two of three must lose, and losing early lets them try elsewhere. The others wait for almost nothing.
//!
//! ```
//! use policy::{Arrival, Deadline, Overload, Sample, settings};
//! use units::Nanos;
//! let mut door = Overload::<u32>::new(settings::Overload::default());
//! let Arrival::Start(started) = door.arrive(Nanos::ZERO, 7, Default::default(), Deadline::NEVER) else { panic!() };
//! door.finish(Nanos::from_millis(10), started, Sample::Ok);
//! assert!(door.next(Nanos::from_millis(10)).is_none(), "nobody waits");
//! ```

use crate::queue::{Popped, Pushed, Queue, Ticket};
use crate::settings::{self, Discipline, Priority};
use crate::{Deadline, Sample};
use std::collections::VecDeque;
use units::Nanos;

#[derive(Clone, Debug)]
pub struct Overload<T> {
    settings: settings::Overload,
    queue: Queue<T>,
    in_flight: u32,
    /// Abandoned requests that the instance may still be working on, oldest first: start, and when to forget it.
    ghosts: VecDeque<(Nanos, Nanos)>,
    limit: f64,
    /// Nanoseconds.
    base: Option<f64>,
    cold: Cold,
    window: Window,
    /// Blocks of samples from unlimited windows, for lowering the base with less noise than a window has.
    block: Mean,
    /// The limit changed then; what started before does not count.
    changed_at: Nanos,
    cut: Option<Cut>,
    growth: f64,
    probe: Option<Mean>,
    probe_slot: u64,
    refused: u64,
}

/// Leave to start; give it back to [`Overload::finish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    at: Nanos,
    /// In flight with it.
    concurrency: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<T> {
    Start(Started),
    Wait(Ticket),
    /// It waits; this other one, less important, is to be refused.
    WaitInstead(Ticket, T),
    Refuse(T, Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    Start(T, Started),
    Refuse(T, Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    QueueFull,
    WaitedTooLong,
    /// Its deadline has passed, or is nearer than any answer.
    Late,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cold {
    since: Option<Nanos>,
    samples: u32,
    weight: f64,
    sum: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    slot: u64,
    since: Nanos,
    /// Of those that started in this window or a joined one before: how many run, and the integral of that. Divided by
    /// those that ended it is their mean latency (Little's law), unbiased by who has not ended yet.
    running: u32,
    area: f64,
    at: Nanos,
    rtt: Mean,
    concurrency: f64,
    limited: bool,
    /// Of the samples, those whose callers left: they all last as long as callers are patient, whatever the limit is.
    abandoned: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    count: u32,
    sum: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    fn value(&self) -> f64 {
        self.sum / f64::from(self.count.max(1))
    }
}

/// A deep cut whose effect is awaited.
#[derive(Clone, Copy, Debug)]
struct Cut {
    rtt: f64,
    concurrency: f64,
    in_flight: u32,
}

/// Where nothing is known yet: far above what most instances can hold, so that it refuses nobody who is healthy, and low
/// enough that a cold start under overload leaves no backlog that takes long to work off.
const LIMIT_AT_START: f64 = 1_024.0;
const WINDOW: Nanos = Nanos::from_millis(50);
/// An abandoned request is forgotten after this many times what its caller waited.
const GHOST_FACTOR: u64 = 3;
const WINDOW_SAMPLES: u32 = 8;
const COLD_SAMPLES: u32 = 8;
const BLOCK_SAMPLES: u32 = 64;
const PROBE_SAMPLES: u32 = 32;
const PROBE_EVERY: Nanos = Nanos::from_secs(20);
const LATENCY_FACTOR: f64 = 2.0;
const LATENCY_SLACK_NANOS: f64 = 50e6;
const GROWTH: f64 = 1.25;
/// While no cut has been justified since the last that was not: the way back must be faster than the way down.
const GROWTH_TRUSTED: f64 = 2.0;
/// A limit that has to fall below this share of itself is halved, and the effect is awaited.
const DEEP: f64 = 0.75;
/// Half the concurrency and more than this share of the latency: not queueing.
const INELASTIC: f64 = 0.85;
const PATIENCE: Nanos = Nanos::from_millis(100);

impl<T> Overload<T> {
    pub fn new(settings: settings::Overload) -> Self {
        let queue = settings::Queue { max: Some(settings.queue_max), discipline: Discipline::AdaptiveLifo };
        Self {
            settings,
            queue: Queue::new(queue),
            in_flight: 0,
            ghosts: VecDeque::new(),
            limit: LIMIT_AT_START.min(f64::from(settings.limit_max.max(1))),
            base: None,
            cold: Cold::default(),
            window: Window::default(),
            block: Mean::default(),
            changed_at: Nanos::ZERO,
            cut: None,
            growth: GROWTH_TRUSTED,
            probe: None,
            probe_slot: 0,
            refused: 0,
        }
    }

    /// How many may be in flight now.
    pub fn limit(&self) -> u32 {
        let limit = if self.probe.is_some() { self.limit / 3.0 } else { self.limit };
        (limit as u32).clamp(1, self.settings.limit_max.max(1))
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// What a request is believed to take when the instance is not busy.
    pub fn base(&self) -> Option<Nanos> {
        self.base.map(|it| Nanos(it as u64))
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn has_room(&mut self, now: Nanos) -> bool {
        while self.ghosts.front().is_some_and(|(_, forget)| *forget <= now) {
            self.ghosts.pop_front();
        }
        u64::from(self.in_flight) + (self.ghosts.len() as u64) < u64::from(self.limit())
    }

    pub fn arrive(&mut self, now: Nanos, item: T, priority: Priority, deadline: Deadline) -> Arrival<T> {
        // What cannot be in time even if it starts at once only takes the place of something that can. But what it is
        // believed to take may have been learnt when the instance was stuck, from calls that all ran out of time. Only
        // calls can correct that, so where nobody is under way one goes through.
        let expected = if self.in_flight == 0 { Nanos::ZERO } else { self.base().unwrap_or(Nanos::ZERO) };
        if !deadline.allows(now, expected) {
            self.refused += 1;
            return Arrival::Refuse(item, Refusal::Late);
        }
        if self.queue.is_empty() && self.has_room(now) {
            return Arrival::Start(self.start(now));
        }
        self.window.limited = true;
        let arrival = match self.queue.push(now, item, priority, deadline) {
            Pushed::Waits(ticket) => return Arrival::Wait(ticket),
            Pushed::Instead(ticket, gone) => Arrival::WaitInstead(ticket, gone),
            Pushed::Full(item) => Arrival::Refuse(item, Refusal::QueueFull),
            Pushed::Late(item) => Arrival::Refuse(item, Refusal::Late),
        };
        self.refused += 1;
        arrival
    }

    /// Who is next, or who is to be refused. Ask until `None` after every [`finish`](Self::finish) and at
    /// [`due`](Self::due).
    pub fn next(&mut self, now: Nanos) -> Option<Turn<T>> {
        let patience = self.patience(now);
        if let Some((item, _)) = self.queue.pop_waited(now, patience) {
            self.refused += 1;
            return Some(Turn::Refuse(item, Refusal::WaitedTooLong));
        }
        if !self.has_room(now) {
            return None;
        }
        match self.queue.pop(now)? {
            Popped::Serve { item, .. } => Some(Turn::Start(item, self.start(now))),
            Popped::Drop { item, .. } => {
                self.refused += 1;
                Some(Turn::Refuse(item, Refusal::Late))
            }
        }
    }

    /// When [`next`](Self::next) has something to say even if nothing ends before. May be early, never late.
    pub fn due(&self, now: Nanos) -> Option<Nanos> {
        self.queue.oldest_since().map(|since| since + self.patience(now))
    }

    /// A waiting caller left.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        self.queue.cancel(ticket)
    }

    /// A started request ended; every start ends here once.
    pub fn finish(&mut self, now: Nanos, started: Started, sample: Sample) {
        debug_assert!(self.in_flight > 0, "finished more than was started");
        self.in_flight = self.in_flight.saturating_sub(1);
        if sample == Sample::Abandoned {
            let elapsed = now.saturating_sub(started.at);
            // Bounded like everything: beyond the limit they would only say "full" once more.
            if self.ghosts.len() < self.settings.limit_max as usize {
                self.ghosts.push_back((started.at, now + elapsed * GHOST_FACTOR));
            }
        } else if sample != Sample::Ignored {
            while self.ghosts.front().is_some_and(|(at, _)| *at <= started.at) {
                self.ghosts.pop_front();
            }
        }
        let rtt = now.saturating_sub(started.at).0.max(1) as f64;
        self.window.advance(now);
        let counts = started.at >= self.changed_at;
        self.window.running = self.window.running.saturating_sub(u32::from(counts));
        // A caller that left early proves nothing. One that left late proves that it was too late, and where callers are
        // impatient nobody else is left to say so: an admission that ignored them would never recover.
        let overdue = self.base.is_none_or(|base| rtt > target(base));
        if sample != Sample::Ignored && (sample != Sample::Abandoned || overdue) {
            self.learn_cold(now, started, rtt);
            if counts {
                self.window.rtt.add(rtt);
                self.window.concurrency += f64::from(started.concurrency);
                self.window.abandoned += u32::from(sample == Sample::Abandoned);
                if let Some(probe) = &mut self.probe {
                    probe.add(rtt);
                }
            }
        }
        let slot = now.0 / WINDOW.0;
        if slot > self.window.slot && self.window.rtt.count >= WINDOW_SAMPLES {
            self.judge(now);
            self.window.slot = slot;
        }
    }

    fn start(&mut self, now: Nanos) -> Started {
        self.window.advance(now);
        self.window.running += 1;
        self.in_flight += 1;
        Started { at: now, concurrency: self.in_flight }
    }

    /// How long anybody may wait at this moment.
    fn patience(&self, now: Nanos) -> Nanos {
        let longest = self.settings.wait_max;
        if self.queue.busy_for(now) < longest {
            return longest;
        }
        PATIENCE.max(self.base().unwrap_or(Nanos::ZERO)).min(longest)
    }

    fn learn_cold(&mut self, now: Nanos, started: Started, rtt: f64) {
        if self.base.is_some() {
            return;
        }
        let since = *self.cold.since.get_or_insert(started.at);
        let weight = 1.0 / (f64::from(started.concurrency) * f64::from(started.concurrency));
        self.cold.samples += 1;
        self.cold.weight += weight;
        self.cold.sum += weight * rtt;
        let mean = self.cold.sum / self.cold.weight;
        if self.cold.samples >= COLD_SAMPLES && is_ripe(now, since, mean) {
            self.base = Some(mean);
        }
    }

    fn judge(&mut self, now: Nanos) {
        let Some(base) = self.base else { return };
        let seen = self.window;
        if let Some(probe) = self.probe {
            if probe.count >= PROBE_SAMPLES {
                self.base = Some(probe.value());
                self.probe = None;
                self.restart(now);
            }
            return;
        }
        // Those that ended first were the short ones, so their mean errs to the low side: enough to say "too long". For
        // everything else the window must be older than twice what it says, and Little's law corrects for the rest.
        let ended = seen.rtt.value();
        let rtt = seen.area / f64::from(seen.rtt.count);
        let target = target(base);
        if ended <= target && !is_ripe(now, seen.since, ended) {
            return;
        }
        let concurrency = seen.concurrency / f64::from(seen.rtt.count);
        if let Some(cut) = self.cut {
            if seen.rtt.count < 3 * WINDOW_SAMPLES || !is_ripe(now, seen.since, rtt.max(ended)) {
                return;
            }
            self.cut = None;
            if seen.abandoned * 2 < seen.rtt.count && ended > cut.rtt * INELASTIC {
                // Half as many at once, and no faster: it is not the queue that is slow.
                self.base = Some(base.max(rtt));
                self.growth = GROWTH_TRUSTED;
                self.limit_to(now, f64::from(cut.in_flight).max(cut.concurrency * GROWTH_TRUSTED));
                return;
            }
        }
        if ended > target {
            if concurrency < 1.5 {
                // Alone, and slow nevertheless.
                self.base = Some(ended);
                self.restart(now);
                return;
            }
            let mut share = target / ended;
            if share < DEEP {
                // Far off: halve, and see what that does. A smaller cut would leave its effect to noise.
                share = 0.5;
                self.cut = Some(Cut { rtt: ended, concurrency, in_flight: self.in_flight });
            }
            self.growth = GROWTH;
            self.limit_to(now, concurrency * share);
            return;
        }
        if seen.limited {
            let probe_slot = now.0 / PROBE_EVERY.0;
            if probe_slot > self.probe_slot {
                self.probe_slot = probe_slot;
                self.probe = Some(Mean::default());
                self.restart(now);
                return;
            }
            self.limit = (self.limit * self.growth + 1.0).min(self.limit_max());
        } else {
            self.block.count += seen.rtt.count;
            self.block.sum += seen.area;
            if self.block.count >= BLOCK_SAMPLES {
                let mean = std::mem::take(&mut self.block).value();
                if mean < base {
                    self.base = Some(base + (mean - base) * 0.3);
                }
            }
            // It was not needed. What limits nobody may as well be higher, so that the next burst finds room.
            if self.limit < LIMIT_AT_START {
                self.limit = (self.limit * GROWTH + 1.0).min(LIMIT_AT_START.min(self.limit_max()));
            }
        }
        // The next window; those that run go on to count in it.
        self.window = Window { since: now, at: now, running: seen.running, ..Window::default() };
    }

    fn limit_max(&self) -> f64 {
        f64::from(self.settings.limit_max.max(1))
    }

    fn limit_to(&mut self, now: Nanos, limit: f64) {
        self.limit = limit.clamp(1.0, self.limit_max());
        self.restart(now);
    }

    /// From here on only what starts from here on counts.
    fn restart(&mut self, now: Nanos) {
        self.changed_at = now;
        self.window = Window { since: now, at: now, ..Window::default() };
    }
}

impl Window {
    fn advance(&mut self, now: Nanos) {
        self.area += f64::from(self.running) * now.saturating_sub(self.at).0 as f64;
        self.at = self.at.max(now);
    }
}

/// Whether samples since then are worth judging. The first requests to end are the shortest, so a mean is biased low
/// until it has been collected for longer than what it says.
fn is_ripe(now: Nanos, since: Nanos, mean: f64) -> bool {
    now.saturating_sub(since).0 as f64 >= 2.0 * mean
}

/// What a request may take.
fn target(base: f64) -> f64 {
    base * LATENCY_FACTOR + LATENCY_SLACK_NANOS
}

#[cfg(test)]
mod tests;
