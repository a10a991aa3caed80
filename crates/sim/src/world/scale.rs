//! Autoscaling: the rule is shown what its vendor would show it, and what it wants happens as late as it would.

use super::*;
use policy::scale::{Fleet, Reading, Scaler};
use policy::settings::scale::{Metric, Scale};

#[derive(Debug)]
pub(super) struct ScaleState {
    scaler: Scaler,
    start_time: Nanos,
    desired: u32,
    /// When the integrals below were taken.
    since: Nanos,
    busy: u128,
    waiting: u128,
    arrivals: u64,
}

/// What the integrals say of a time between two ticks.
const METRICS: [Metric; 4] =
    [Metric::CpuUtilization, Metric::RequestCountPerTarget, Metric::RequestsPerSecond, Metric::Concurrency];

impl ScaleState {
    pub(super) fn new(scale: &Scale, standing: u32) -> Self {
        Self {
            scaler: Scaler::new(scale),
            start_time: scale.start_time,
            desired: standing,
            since: Nanos::ZERO,
            busy: 0,
            waiting: 0,
            arrivals: 0,
        }
    }
}

impl World<'_> {
    pub(super) fn start_scalers(&mut self) {
        for state in self.scalers.iter_mut().flatten() {
            // Periods are counted from the beginning: a rule that first hears of time at its first reading is one late.
            for metric in METRICS {
                let nothing = Reading { metric, mean: None, reported: 0, missing: 0, not_ready: 0 };
                state.scaler.observe(Nanos::ZERO, &nothing);
            }
        }
        for (station, state) in self.scalers.iter().enumerate() {
            if let Some(state) = state {
                let tick = state.scaler.tick().max(Nanos::from_millis(100));
                self.events.schedule(tick, Event::new(kind::SCALE, station as u32, 0));
            }
        }
    }

    pub(super) fn on_scale(&mut self, now: Nanos, station: u32) {
        let instances = self.plan.stations[station as usize].instances;
        let concurrency = self.plan.stations[station as usize].concurrency;
        instances.iter().for_each(|it| self.measure(now, it as usize));
        let sum = |of: &dyn Fn(&crate::meter::InstanceMeter) -> u128| {
            instances.iter().map(|it| of(&self.meters.instances[it as usize])).sum::<u128>()
        };
        let (busy, waiting) = (sum(&|it| it.busy), sum(&|it| it.waiting));
        let arrivals = sum(&|it| u128::from(it.arrivals)) as u64;
        let ready =
            instances.iter().filter(|it| self.instances[*it as usize].standing == Standing::Up).count()
                as u32;
        let Some(state) = &mut self.scalers[station as usize] else { return };
        let tick = state.scaler.tick().max(Nanos::from_millis(100));
        // The end of the warm-up sets the counters back; a difference across it would be a lie.
        let whole = busy >= state.busy && arrivals >= state.arrivals && now > state.since;
        let seconds = (now.saturating_sub(state.since)).as_secs_f64();
        let each = f64::from(ready.max(1));
        let nanos = seconds * 1e9;
        for metric in METRICS {
            let requests = (arrivals.saturating_sub(state.arrivals)) as f64 / each;
            let in_progress = (busy.saturating_sub(state.busy)) as f64 / nanos.max(1.0) / each;
            let queued = (waiting.saturating_sub(state.waiting)) as f64 / nanos.max(1.0) / each;
            let mean = match metric {
                Metric::CpuUtilization if concurrency == u32::MAX => None,
                Metric::CpuUtilization => Some(100.0 * in_progress / f64::from(concurrency)),
                Metric::RequestCountPerTarget => Some(requests),
                Metric::RequestsPerSecond => Some(requests / seconds.max(1e-9)),
                Metric::Concurrency => Some(in_progress + queued),
            };
            let starting = state.desired.saturating_sub(ready);
            let reading = Reading {
                metric,
                mean: mean.filter(|_| whole && ready > 0),
                reported: if whole { ready } else { 0 },
                missing: if whole { 0 } else { ready },
                not_ready: starting,
            };
            // What was measured until now belongs to the period that ends now, not to the one that begins.
            state.scaler.observe(now.saturating_sub(Nanos(1)), &reading);
        }
        (state.since, state.busy, state.waiting, state.arrivals) = (now, busy, waiting, arrivals);
        let advice = state.scaler.decide(now, Fleet { desired: state.desired, ready });
        let (before, start_time) = (state.desired, state.start_time);
        state.desired = advice.desired;
        if advice.desired != before {
            self.note(now, Change::Scaled { station, from: before, to: advice.desired });
        }
        self.events.schedule(now + tick, Event::new(kind::SCALE, station, 0));
        if advice.desired < before {
            self.scale(now, station, advice.desired);
        } else if advice.desired > before {
            self.events.schedule(now + start_time, Event::new(kind::GROW, station, advice.desired));
        }
    }

    /// New instances are ready, if they are still wanted.
    pub(super) fn on_grow(&mut self, now: Nanos, event: Event) {
        let Some(state) = &self.scalers[event.id as usize] else { return };
        let wanted = state.desired.min(event.generation());
        let instances = self.plan.stations[event.id as usize].instances;
        let standing =
            instances.iter().filter(|it| self.instances[*it as usize].standing.works()).count() as u32;
        if wanted > standing {
            self.scale(now, event.id, wanted);
        }
    }
}
