//! The door of one synthetic instance: how many requests it works on at once, and who waits.

use policy::settings::{Discipline, Queue};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// After the queue has never been empty for this long, the newest goes first: those in front have given up.
const ADAPTIVE_AFTER: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(crate) struct Gate(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    /// `None` is without limit.
    places: Option<u32>,
    queue: Queue,
    working: u32,
    waiting: VecDeque<(Instant, oneshot::Sender<Place>)>,
    busy_since: Option<Instant>,
    refused: u64,
    worked: u64,
}

/// The right to work. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Place(Option<Gate>);

/// There is no place, and no room to wait for one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Gate {
    pub(crate) fn new(places: Option<u32>, queue: Queue) -> Self {
        Self(Rc::new(RefCell::new(State {
            places,
            queue,
            working: 0,
            waiting: VecDeque::new(),
            busy_since: None,
            refused: 0,
            worked: 0,
        })))
    }

    /// Waits for a place. Dropping the future gives the turn to the next one.
    pub(crate) async fn enter(&self, now: Instant) -> Result<Place, Full> {
        let turn = {
            let mut state = self.0.borrow_mut();
            if state.places.is_none_or(|places| state.working < places) {
                state.working += 1;
                return Ok(Place(Some(self.clone())));
            }
            state.waiting.retain(|(_, sender)| !sender.is_closed());
            if state.queue.max.is_some_and(|max| state.waiting.len() >= max as usize) {
                state.refused += 1;
                return Err(Full);
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back((now, sender));
            state.busy_since.get_or_insert(now);
            turn
        };
        turn.await.map_err(|_| Full)
    }

    pub(crate) fn working(&self) -> u32 {
        self.0.borrow().working
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.worked, state.refused)
    }

    fn leave(&self, now: Instant) {
        let mut state = self.0.borrow_mut();
        state.worked += 1;
        while let Some((_, sender)) = state.next(now) {
            // The place goes from hand to hand, so nobody who comes now can overtake those who wait.
            match sender.send(Place(Some(self.clone()))) {
                Ok(()) => return,
                // This caller is gone. The place came back with the error: take it apart without letting anyone in.
                Err(mut place) => place.0 = None,
            }
        }
        state.working -= 1;
    }
}

impl State {
    fn next(&mut self, now: Instant) -> Option<(Instant, oneshot::Sender<Place>)> {
        let overloaded =
            self.busy_since.is_some_and(|since| now.saturating_duration_since(since) > ADAPTIVE_AFTER);
        let next = match self.queue.discipline {
            Discipline::Fifo => self.waiting.pop_front(),
            Discipline::Lifo => self.waiting.pop_back(),
            Discipline::AdaptiveLifo if overloaded => self.waiting.pop_back(),
            Discipline::AdaptiveLifo => self.waiting.pop_front(),
            Discipline::CoDel { target, interval } => {
                // Once the queue has stood for a whole interval, whoever waited longer than the target is refused.
                let standing = self.busy_since.is_some_and(|since| {
                    now.saturating_duration_since(since) > Duration::from_nanos(interval.as_u64())
                });
                while standing
                    && self.waiting.front().is_some_and(|(since, _)| {
                        now.saturating_duration_since(*since) > Duration::from_nanos(target.as_u64())
                    })
                {
                    self.refused += 1;
                    self.waiting.pop_front();
                }
                self.waiting.pop_front()
            }
        };
        if self.waiting.is_empty() {
            self.busy_since = None;
        }
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave(super::timer::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::timer::now;

    fn gate(places: u32, max: u32, discipline: Discipline) -> Gate {
        Gate::new(Some(places), Queue { max: Some(max), discipline })
    }

    /// Lets `arrivals` wait in their order, then frees the one place again and again; who got it, in order.
    fn order_of(discipline: Discipline, arrivals: usize) -> Vec<usize> {
        let runtime = crate::synthetic::local_runtime().expect("a runtime");
        runtime.block_on(async {
            let gate = gate(1, 100, discipline);
            let first = gate.enter(now()).await.expect("a free place");
            let order = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = Vec::new();
            for n in 0..arrivals {
                let (gate, order) = (gate.clone(), Rc::clone(&order));
                tasks.push(tokio::task::spawn_local(async move {
                    let _place = gate.enter(now()).await.expect("room to wait");
                    order.borrow_mut().push(n);
                }));
                tokio::task::yield_now().await;
            }
            drop(first);
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(gate.working(), 0);
            order.take()
        })
    }

    #[test]
    fn the_queue_is_kept_by_its_discipline() {
        assert_eq!(order_of(Discipline::Fifo, 4), [0, 1, 2, 3]);
        assert_eq!(order_of(Discipline::Lifo, 4), [3, 2, 1, 0]);
        assert_eq!(order_of(Discipline::AdaptiveLifo, 3), [0, 1, 2]);
    }

    #[test]
    fn a_full_queue_refuses_and_a_caller_that_gave_up_makes_room() {
        let runtime = crate::synthetic::local_runtime().expect("a runtime");
        runtime.block_on(async {
            let gate = gate(1, 1, Discipline::Fifo);
            let place = gate.enter(now()).await.expect("a free place");
            let waiting = {
                let gate = gate.clone();
                tokio::task::spawn_local(async move { gate.enter(now()).await.map(drop) })
            };
            tokio::task::yield_now().await;
            assert_eq!(gate.enter(now()).await.err(), Some(Full));
            waiting.abort();
            let _ = waiting.await;
            let waiting = {
                let gate = gate.clone();
                tokio::task::spawn_local(async move { gate.enter(now()).await.map(drop) })
            };
            tokio::task::yield_now().await;
            drop(place);
            assert_eq!(waiting.await.expect("no panic"), Ok(()));
            assert_eq!((gate.working(), gate.counts()), (0, (2, 1)));
        });
    }
}
