//! Topics: what is published is delivered to every consumer, at least once, as fast as its instances take it.

use super::*;
use crate::plan::TopicPlan;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct TopicState {
    consumers: Vec<Backlog>,
    partitions: u32,
    retention: Nanos,
    published: u64,
}

/// What one consumer has not handled yet.
#[derive(Debug)]
struct Backlog {
    call: u32,
    waiting: VecDeque<(Nanos, Draw)>,
    in_flight: u32,
}

/// Messages one consumer may lag behind; then the oldest expire, as they would by retention.
const BACKLOG_MAX: usize = 10_000_000;
/// Before a message whose handling failed is handed out again.
const REDELIVER_AFTER: Nanos = Nanos::from_secs(1);

impl TopicState {
    pub(super) fn new(plan: &TopicPlan) -> Self {
        let backlog = |call| Backlog { call, waiting: VecDeque::new(), in_flight: 0 };
        Self {
            consumers: plan.consumers.iter().map(backlog).collect(),
            partitions: plan.partitions,
            retention: plan.retention.unwrap_or(Nanos::MAX),
            published: 0,
        }
    }
}

impl World<'_> {
    pub(super) fn publish(&mut self, now: Nanos, station: usize) {
        let root = self.root.child(0x70_91C).child(station as u64);
        let Some(topic) = &mut self.topics[station] else { return };
        let draw = root.child(topic.published);
        topic.published += 1;
        for (n, backlog) in topic.consumers.iter_mut().enumerate() {
            let meter = &mut self.meters.consumers[backlog.call as usize];
            meter.published += 1;
            if backlog.waiting.len() >= BACKLOG_MAX {
                backlog.waiting.pop_front();
                meter.expired += 1;
            }
            backlog.waiting.push_back((now, draw.child(n as u64)));
            meter.lag_max = meter.lag_max.max(backlog.waiting.len() as u64);
        }
        for consumer in 0..self.topics[station].as_ref().map_or(0, |it| it.consumers.len()) {
            self.deliver(now, station, consumer);
        }
    }

    /// Hands out messages while fewer are in flight than there are partitions.
    fn deliver(&mut self, now: Nanos, station: usize, consumer: usize) {
        loop {
            let Some(topic) = &mut self.topics[station] else { return };
            let (partitions, retention) = (topic.partitions, topic.retention);
            let backlog = &mut topic.consumers[consumer];
            if backlog.in_flight >= partitions {
                return;
            }
            let Some((published, draw)) = backlog.waiting.pop_front() else { return };
            let call = backlog.call;
            if now.saturating_sub(published) > retention {
                self.meters.consumers[call as usize].expired += 1;
                continue;
            }
            backlog.in_flight += 1;
            let instances = self.plan.stations[station].instances;
            let from = (instances.iter())
                .find(|it| self.instances[*it as usize].standing == Standing::Up)
                .unwrap_or(instances.from);
            let priority = Priority::default();
            let key = self.new_call(now, draw, Key::NONE, call, from, Deadline::NEVER, 1, priority);
            if let Some(state) = self.calls.get_mut(key) {
                (state.consumer, state.published) = (call, published);
            }
            if let Err(failed) = self.begin_call(now, key) {
                self.calls.remove(key);
                self.delivered(now, call, published, Err(failed));
                // Refused at once, and so would be the next: all wait until this one is handed out again.
                return;
            }
        }
    }

    /// A delivery has ended. One that failed goes back to the head, after a while.
    pub(super) fn delivered(&mut self, now: Nanos, call: u32, published: Nanos, ended: Ended) {
        let found = self.topics.iter().enumerate().find_map(|(station, topic)| {
            let consumers = &topic.as_ref()?.consumers;
            Some((station, consumers.iter().position(|it| it.call == call)?))
        });
        let Some((station, consumer)) = found else { return };
        let redraw = self.root.child(0x7E_D0).child(published.0).child(now.0);
        let Some(topic) = &mut self.topics[station] else { return };
        let backlog = &mut topic.consumers[consumer];
        backlog.in_flight -= 1;
        let meter = &mut self.meters.consumers[call as usize];
        match ended {
            Ok(()) => {
                meter.delivered += 1;
                meter.age.record(now - published);
                self.events.schedule(now, Event::new(kind::DELIVER, station as u32, 0));
            }
            Err(_) => {
                backlog.waiting.push_front((published, redraw));
                meter.lag_max = meter.lag_max.max(backlog.waiting.len() as u64);
                self.events.schedule(now + REDELIVER_AFTER, Event::new(kind::DELIVER, station as u32, 0));
            }
        }
    }

    pub(super) fn on_deliver(&mut self, now: Nanos, station: u32) {
        for consumer in 0..self.topics[station as usize].as_ref().map_or(0, |it| it.consumers.len()) {
            self.deliver(now, station as usize, consumer);
        }
    }
}
