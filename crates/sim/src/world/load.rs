//! What users do: requests at a rate (open loop), or each after the answer to the one before (closed loop).
//!
//! An open loop does not care how the system fares: the n-th request is sent when it is due, and its latency counts from
//! then, so a stalled system cannot hide by being asked less (coordinated omission). Arrivals are drawn in operational
//! time, the integral of the rate: a fault that changes the load moves later arrivals and redraws none.

use super::*;
use crate::plan::LoadKind;
use model::system::Shape;
use units::{Purpose, math};

#[derive(Debug)]
pub(super) struct LoadState {
    /// The number of the next request; it is also its key.
    next: u64,
    /// Of the pending arrival event; a change of rate makes it stale.
    generation: u32,
    /// Multiplies the file's rate, by scenarios.
    pub(super) factor: f64,
    /// Operational time to the next arrival, as of `since`.
    left: f64,
    since: Nanos,
    /// Requests of each closed-loop user so far.
    turns: Vec<u64>,
}

/// Shapes that move all the time are followed in steps; at this width a rate is as good as constant.
const STEP: Nanos = Nanos::from_millis(10);

impl World<'_> {
    pub(super) fn start_loads(&mut self) {
        for (index, load) in self.plan.loads.iter().enumerate() {
            let users = match &load.kind {
                LoadKind::Closed { users, .. } => (f64::from(*users) * self.bias.load).round() as usize,
                _ => 0,
            };
            self.loads.push(LoadState {
                next: 0,
                generation: 0,
                factor: 1.0,
                left: 0.0,
                since: Nanos::ZERO,
                turns: vec![0; users],
            });
            match &load.kind {
                LoadKind::Open { constant, .. } => {
                    self.loads[index].left = self.operational_gap(index, *constant);
                    self.schedule_arrival(Nanos::ZERO, index);
                }
                LoadKind::Closed { .. } => {
                    for user in 0..users {
                        // The first thought of each, so that they do not all begin at once.
                        self.schedule_user(Nanos::ZERO, index, user as u32);
                    }
                }
                LoadKind::Recorded { arrivals } => {
                    if let Some(first) = arrivals.first() {
                        self.events.schedule(*first, Event::new(kind::ARRIVAL, index as u32, 0));
                    }
                }
            }
        }
    }

    fn load_draw(&self, index: usize) -> Draw {
        self.root.child(0x10AD).child(index as u64)
    }

    /// The gap before request `next` in units of mean gaps: exponential for Poisson arrivals, one for constant ones.
    fn operational_gap(&self, index: usize, constant: bool) -> f64 {
        if constant {
            return 1.0;
        }
        let draw = self.load_draw(index).child(self.loads[index].next).for_purpose(Purpose::Arrival);
        -math::ln(draw.tail())
    }

    /// Requests a second, now.
    fn rate_at(&self, at: Nanos, index: usize) -> f64 {
        let LoadKind::Open { rate, shape, .. } = &self.plan.loads[index].kind else { return 0.0 };
        let shaped = match shape {
            Shape::Steady => *rate,
            Shape::Ramp { to, over } => {
                let done = (at.0 as f64 / over.0.max(1) as f64).min(1.0);
                rate + (to.per_second() - rate) * done
            }
            Shape::Diurnal { peak, period } => {
                // A sine that starts at its lowest; drawn by its own series so that every machine draws the same.
                let phase = (at.0 % period.0.max(1)) as f64 / period.0.max(1) as f64;
                rate + (peak.per_second() - rate) * 0.5 * (1.0 - cos_turn(phase))
            }
            Shape::Burst { to, lasting, every } => {
                if at.0 % every.0.max(1) < lasting.0 {
                    to.per_second()
                } else {
                    *rate
                }
            }
        };
        shaped * self.loads[index].factor * self.bias.load
    }

    /// Until when the rate of a load stays as it is now, but for scenarios.
    fn rate_holds_until(&self, at: Nanos, index: usize) -> Nanos {
        let LoadKind::Open { shape, .. } = &self.plan.loads[index].kind else { return Nanos::MAX };
        match shape {
            Shape::Steady => Nanos::MAX,
            Shape::Ramp { over, .. } if at >= *over => Nanos::MAX,
            Shape::Ramp { .. } | Shape::Diurnal { .. } => at + STEP,
            Shape::Burst { lasting, every, .. } => {
                let every = every.0.max(1);
                let began = at.0 / every * every;
                if at.0 - began < lasting.0 { Nanos(began + lasting.0) } else { Nanos(began + every) }
            }
        }
    }

    /// Follows the rate from `now` until the operational time to the next arrival is used up.
    fn schedule_arrival(&mut self, now: Nanos, index: usize) {
        let (mut at, mut left) = (now, self.loads[index].left);
        /// A load whose rate is nearly nothing is looked at again later instead of followed for ever.
        const STEPS_MAX: u32 = 1_000;
        let mut steps = 0;
        let due = loop {
            let rate = self.rate_at(at, index);
            let until = self.rate_holds_until(at, index);
            let needs = if rate > 0.0 { Nanos::from_secs_f64(left / rate) } else { Nanos::MAX };
            if at + needs <= until || until == Nanos::MAX {
                break at + needs;
            }
            left -= rate * (until - at).as_secs_f64();
            left = left.max(0.0);
            at = until;
            steps += 1;
            if steps == STEPS_MAX {
                break at;
            }
        };
        let state = &mut self.loads[index];
        let kind = if steps == STEPS_MAX { kind::LOOK } else { kind::ARRIVAL };
        if due != Nanos::MAX {
            self.events.schedule(due, Event::new(kind, index as u32, state.generation));
        }
        if steps == STEPS_MAX {
            (state.left, state.since) = (left, at);
        }
    }

    /// A scenario is about to change a load's rate: the time that was already waited counts.
    pub(super) fn change_load(&mut self, now: Nanos, index: usize, factor: f64) {
        if matches!(self.plan.loads[index].kind, LoadKind::Open { .. }) {
            let mut at = self.loads[index].since;
            let mut left = self.loads[index].left;
            while at < now {
                let until = self.rate_holds_until(at, index).min(now);
                left -= self.rate_at(at, index) * (until - at).as_secs_f64();
                at = until;
            }
            let state = &mut self.loads[index];
            (state.left, state.since) = (left.max(0.0), now.max(state.since));
            state.generation = (state.generation + 1) & Event::GENERATION_MASK;
            state.factor = factor;
            self.schedule_arrival(now, index);
        } else {
            self.loads[index].factor = factor;
        }
    }

    pub(super) fn on_arrival(&mut self, now: Nanos, event: Event) {
        let index = event.id as usize;
        if event.generation() != self.loads[index].generation {
            return;
        }
        match &self.plan.loads[index].kind {
            LoadKind::Open { constant, .. } => {
                let number = self.loads[index].next;
                self.loads[index].next += 1;
                self.begin_request(now, index, self.load_draw(index).child(number), NOBODY);
                self.loads[index].left = self.operational_gap(index, *constant);
                self.loads[index].since = now;
                self.schedule_arrival(now, index);
            }
            LoadKind::Recorded { arrivals } => {
                let number = self.loads[index].next;
                self.loads[index].next += 1;
                self.begin_request(now, index, self.load_draw(index).child(number), NOBODY);
                if let Some(next) = arrivals.get(number as usize + 1) {
                    self.events.schedule((*next).max(now), Event::new(kind::ARRIVAL, event.id, 0));
                }
            }
            LoadKind::Closed { .. } => {}
        }
    }

    /// The look ahead ended before the next arrival; it goes on from here.
    pub(super) fn on_look(&mut self, now: Nanos, event: Event) {
        if event.generation() == self.loads[event.id as usize].generation {
            self.schedule_arrival(now, event.id as usize);
        }
    }

    fn schedule_user(&mut self, now: Nanos, index: usize, user: u32) {
        let LoadKind::Closed { think, .. } = &self.plan.loads[index].kind else { return };
        let turn = self.loads[index].turns[user as usize];
        let draw = self.load_draw(index).child(u64::from(user) << 40 | turn).for_purpose(Purpose::Think);
        let thinks = think.at_tail(draw.tail());
        self.events.schedule(now + thinks, Event::new(kind::USER, user, index as u32));
    }

    pub(super) fn on_user(&mut self, now: Nanos, event: Event) {
        let (index, user) = (event.generation() as usize, event.id);
        let turn = self.loads[index].turns[user as usize];
        self.loads[index].turns[user as usize] += 1;
        let draw = self.load_draw(index).child(u64::from(user) << 40 | turn);
        self.begin_request(now, index, draw, user);
    }

    fn begin_request(&mut self, now: Nanos, index: usize, draw: Draw, user: u32) {
        let load = &self.plan.loads[index];
        let station = &self.plan.stations[load.station as usize];
        let operation = station.operations.from;
        self.meters.loads[index].sent += 1;
        self.tally.root += 1;
        let trace = self.recorder.as_mut().map_or(UNTRACED, |it| it.begin(now, draw));
        let job = self.jobs.insert(Job {
            draw,
            operation,
            instance: station.instances.from,
            attempt: Key::NONE,
            deadline: Deadline::NEVER,
            arrived: now,
            state: JobState::Queued,
            priority: load.priority,
            abandoned: false,
            depth: 0,
            step: self.plan.operations[operation as usize].script.from,
            pending: 0,
            calls: Key::NONE,
            ticket: None,
            tag: user,
            trace,
            waited: Nanos::ZERO,
        });
        self.admit(now, job);
    }

    /// A user has the answer, or has been refused.
    pub(super) fn root_ended(&mut self, now: Nanos, job: &Job, ended: Ended) {
        let station = self.plan.operations[job.operation as usize].station;
        let Some(index) = self.plan.loads.iter().position(|it| it.station == station) else { return };
        let took = now - job.arrived;
        // What began before the counting did would bring the warm-up's waits into the measurement.
        if job.arrived >= self.counting_since {
            self.meters.loads[index].requests.record(ended.map_err(|it| it.root), took);
        }
        let slice = (now.0 / self.meters.slice.0) as usize;
        if let Some(slice) = self.meters.slices[index].get_mut(slice) {
            match ended {
                Ok(()) => {
                    slice.ok += 1;
                    slice.latency.record(took);
                }
                Err(_) => slice.failed += 1,
            }
        }
        match ended {
            Ok(()) => self.tally.root_ok += 1,
            Err(_) => self.tally.root_failed += 1,
        }
        if job.tag != NOBODY {
            self.schedule_user(now, index, job.tag);
        }
    }
}

/// The cosine of a share of a turn, by its Taylor series on a quarter: the system's differs between machines.
fn cos_turn(share: f64) -> f64 {
    let share = (share - share.floor()).min(1.0);
    let half = if share > 0.5 { 1.0 - share } else { share };
    let (x, sign) = if half > 0.25 { (0.5 - half, -1.0) } else { (half, 1.0) };
    let angle = x * 2.0 * std::f64::consts::PI;
    let square = angle * angle;
    let mut sum = 1.0;
    for n in (1..=10u32).rev() {
        sum = 1.0 - square / f64::from(2 * n * (2 * n - 1)) * sum;
    }
    sign * sum
}

#[cfg(test)]
mod tests {
    use super::cos_turn;

    #[test]
    fn the_cosine_agrees_with_the_systems() {
        for n in 0..=1_000 {
            let share = f64::from(n) / 1_000.0;
            assert!((cos_turn(share) - (share * 2.0 * std::f64::consts::PI).cos()).abs() < 1e-14, "{share}");
        }
    }
}
