//! Deadlines that cost a store.
//!
//! A proxy sets several deadlines for each request and almost none of them is ever reached. A timer that is inserted
//! and removed each time would cost more than the parsing of the request. So each connection has one timer for its whole
//! life, setting it writes a number, and the wheel only looks when the *earliest* number it was ever shown comes up: if
//! the deadline has moved on in the meantime, the timer moves on with it.
//!
//! Ticks are 4 ms. A timer never fires early and at most a tick (and the worker's own delay) late, which suits
//! time-outs. Waits that must be exact, such as an injected delay, use the runtime's timers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use units::Nanos;

use crate::clock::Clock;

const TICK: u64 = 4_000_000;
const SLOTS: usize = 1024;
/// The furthest a timer is filed; later ones are looked at on the way, every four seconds.
const HORIZON: u64 = SLOTS as u64 - 1;
const NEVER: u64 = u64::MAX;

/// All timers of a worker.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Clock,
    wheel: RefCell<Wheel>,
    /// The tick the driver sleeps until.
    sleeping_until: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Wheel {
    slots: Vec<Vec<u32>>,
    /// A bit for each slot that holds something.
    filled: [u64; SLOTS / 64],
    /// Ticks before this one are dealt with.
    done: u64,
    entries: Vec<Entry>,
    /// Entries of timers that were dropped, filed or not, for those that come: to look for its place in the wheel would
    /// cost more than to leave it there, and to wait until its turn comes would hold as many as are made in four seconds.
    spare: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    /// The tick it is filed under, or `NEVER`.
    filed: u64,
    waker: Option<Waker>,
}

/// One deadline that can be moved for free.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Rc<Timers>,
    key: u32,
    deadline: Cell<Nanos>,
}

impl Timers {
    pub(crate) fn new(clock: Clock) -> Rc<Self> {
        let wheel = Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            filled: [0; SLOTS / 64],
            done: clock.now().0 / TICK,
            entries: Vec::new(),
            spare: Vec::new(),
        };
        Rc::new(Self {
            clock,
            wheel: RefCell::new(wheel),
            sleeping_until: Cell::new(NEVER),
            driver: RefCell::new(None),
        })
    }

    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let mut wheel = self.wheel.borrow_mut();
        let key = wheel.spare.pop().unwrap_or_else(|| {
            wheel.entries.push(Entry { deadline: NEVER, filed: NEVER, waker: None });
            wheel.entries.len() as u32 - 1
        });
        Timer { timers: self.clone(), key, deadline: Cell::new(Nanos::MAX) }
    }

    /// Timers that are held by somebody.
    pub(crate) fn len(&self) -> usize {
        let wheel = self.wheel.borrow();
        wheel.entries.len() - wheel.spare.len()
    }

    /// Wakes everybody who waits, so that they look at the world again. Their deadlines stay.
    pub(crate) fn wake_all(&self) {
        let wheel = self.wheel.borrow();
        wheel.entries.iter().filter_map(|entry| entry.waker.as_ref()).for_each(Waker::wake_by_ref);
    }

    /// Turns the wheel. Runs for as long as the worker does.
    pub(crate) async fn drive(self: Rc<Self>) {
        let sleep = tokio::time::sleep(std::time::Duration::ZERO);
        let mut sleep = std::pin::pin!(sleep);
        let mut due: Vec<Waker> = Vec::new();
        poll_fn(|cx| {
            loop {
                let now = self.clock.now().0 / TICK;
                let next = self.wheel.borrow_mut().turn(now, &mut due);
                due.drain(..).for_each(Waker::wake);
                if self.driver.borrow().as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                    *self.driver.borrow_mut() = Some(cx.waker().clone());
                }
                self.sleeping_until.set(next);
                if next == NEVER {
                    return Poll::<()>::Pending;
                }
                sleep.as_mut().reset(self.clock.instant(Nanos(next * TICK)));
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl Wheel {
    /// Fires what is due, files the rest anew, and says which tick to look at next.
    fn turn(&mut self, now: u64, due: &mut Vec<Waker>) -> u64 {
        let mut tick = self.done;
        // After a long pause every slot is looked at once, not once for each lap.
        if now > tick + HORIZON {
            tick = now - HORIZON;
        }
        while tick <= now {
            let slot = (tick % SLOTS as u64) as usize;
            if self.filled[slot / 64] & 1 << (slot % 64) != 0 {
                let mut keys = std::mem::take(&mut self.slots[slot]);
                self.filled[slot / 64] &= !(1 << (slot % 64));
                for key in keys.drain(..) {
                    self.fire(key, now, due);
                }
                // The vector goes back so that a busy slot allocates once in its life.
                if self.slots[slot].is_empty() {
                    self.slots[slot] = keys;
                }
            }
            tick += 1;
        }
        self.done = now + 1;
        self.next_filled()
    }

    fn fire(&mut self, key: u32, now: u64, due: &mut Vec<Waker>) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        entry.filed = NEVER;
        if entry.deadline <= now {
            due.extend(entry.waker.take());
        } else if entry.deadline != NEVER {
            let deadline = entry.deadline;
            self.done = self.done.max(now + 1);
            self.file(key, deadline);
        }
    }

    fn file(&mut self, key: u32, deadline: u64) {
        let tick = deadline.clamp(self.done, self.done + HORIZON - 1);
        let slot = (tick % SLOTS as u64) as usize;
        self.slots[slot].push(key);
        self.filled[slot / 64] |= 1 << (slot % 64);
        if let Some(entry) = self.entries.get_mut(key as usize) {
            entry.filed = tick;
        }
    }

    fn next_filled(&self) -> u64 {
        let start = (self.done % SLOTS as u64) as usize;
        for step in 0..=SLOTS / 64 {
            let word = (start / 64 + step) % (SLOTS / 64);
            let mut bits = self.filled[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == SLOTS / 64 {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                return self.done + ((slot + SLOTS - start) % SLOTS) as u64;
            }
        }
        NEVER
    }
}

impl Timer {
    /// Moves the deadline. Later is free; earlier than ever before files the timer once more.
    #[inline]
    pub(crate) fn set(&self, deadline: Nanos) {
        if self.deadline.replace(deadline) == deadline {
            return;
        }
        let tick = if deadline == Nanos::MAX { NEVER } else { deadline.0 / TICK + 1 };
        let mut wheel = self.timers.wheel.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(self.key as usize) else { return };
        entry.deadline = tick;
        if tick < entry.filed {
            self.file_earlier(&mut wheel, tick);
        }
    }

    #[cold]
    fn file_earlier(&self, wheel: &mut Wheel, tick: u64) {
        // The old place stays behind; when it comes up it finds a timer that is filed elsewhere or not at all. To keep
        // one place for each timer it is taken out, which is rare: a timer is filed at its earliest deadline.
        let filed = wheel.entries.get(self.key as usize).map_or(NEVER, |entry| entry.filed);
        if filed != NEVER {
            let slot = (filed % SLOTS as u64) as usize;
            wheel.slots[slot].retain(|key| *key != self.key);
            if wheel.slots[slot].is_empty() {
                wheel.filled[slot / 64] &= !(1 << (slot % 64));
            }
        }
        wheel.file(self.key, tick);
        if tick < self.timers.sleeping_until.get()
            && let Some(driver) = self.timers.driver.borrow().as_ref()
        {
            self.timers.sleeping_until.set(tick);
            driver.wake_by_ref();
        }
    }

    /// Ends no later than this.
    pub(crate) fn hasten(&self, by: Nanos) {
        if by < self.deadline.get() {
            self.set(by);
        }
    }

    /// Ready once the deadline has passed. Between a check of its inner future and this one nothing may sleep.
    #[inline]
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wheel = self.timers.wheel.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(self.key as usize) else { return Poll::Pending };
        if entry.deadline == NEVER {
            return Poll::Pending;
        }
        // A timer that is filed and has a waker has not fired, so the clock need not be read.
        let fresh = entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !fresh {
            if self.timers.clock.now() >= self.deadline.get() {
                return Poll::Ready(());
            }
            entry.waker = Some(cx.waker().clone());
            if entry.filed == NEVER {
                let deadline = entry.deadline;
                self.file_earlier(&mut wheel, deadline);
            }
        }
        Poll::Pending
    }

    /// Waits for `future` until the deadline.
    pub(crate) async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(cx).map(|()| None),
        })
        .await
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut wheel = self.timers.wheel.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(self.key as usize) else { return };
        (entry.deadline, entry.waker) = (NEVER, None);
        wheel.spare.push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wheel without a clock: sets deadlines, turns, and lists which fired when.
    #[test]
    fn timers_fire_in_their_tick_and_never_before() {
        let mut wheel = Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            filled: [0; SLOTS / 64],
            done: 5,
            entries: Vec::new(),
            spare: Vec::new(),
        };
        let deadlines = [5u64, 6, 7, 700, 1_027, 1_028, 1_029, 5_000, 50_000];
        for deadline in deadlines {
            let entry = Entry { deadline, filed: NEVER, waker: Some(Waker::noop().clone()) };
            wheel.entries.push(entry);
            let key = wheel.entries.len() as u32 - 1;
            wheel.file(key, deadline);
        }
        let mut fired = Vec::new();
        let mut now = 5;
        let mut turns = 0;
        while fired.len() < deadlines.len() {
            let mut due = Vec::new();
            let next = wheel.turn(now, &mut due);
            fired.extend(due.iter().map(|_| now));
            assert!(next > now || fired.len() == deadlines.len());
            now = next;
            turns += 1;
        }
        assert_eq!(fired, deadlines);
        assert!(turns < 70, "the wheel sleeps past empty slots: {turns}");
    }

    #[test]
    fn moving_a_deadline_and_dropping_a_timer_leave_nothing_behind() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let clock = Clock::start();
            let timers = Timers::new(clock);
            let drive = timers.clone().drive();
            let work = async {
                let timer = timers.timer();
                timer.set(clock.now() + Nanos::from_secs(60));
                timer.set(clock.now() + Nanos::from_millis(5));
                assert!(
                    timer.limit(std::future::pending::<()>()).await.is_none(),
                    "the earlier deadline counts"
                );
                timer.set(clock.now() + Nanos::from_millis(5));
                assert_eq!(timer.limit(async { 7 }).await, Some(7), "done in time");
                assert!(timer.limit(std::future::pending::<()>()).await.is_none(), "and it fires again");
                let mut later = timers.timer();
                later.set(clock.now() + Nanos::from_millis(9));
                later = timers.timer();
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                drop((timer, later));
                // Whoever comes next takes the place of one that left, and is not woken for it.
                for _ in 0..1_000 {
                    timers.timer().set(clock.now() + Nanos::from_secs(30));
                }
                let one = timers.timer();
                one.set(clock.now() + Nanos::from_secs(60));
                let woken = async { tokio::time::sleep(std::time::Duration::from_millis(20)).await };
                assert_eq!(one.limit(woken).await, Some(()), "it has no deadline of an earlier one");
                drop(one);
                assert!(timers.wheel.borrow().entries.len() <= 3, "nothing is kept for those who left");
                timers.len()
            };
            tokio::select! { _ = drive => unreachable!("it never ends"), left = work => assert_eq!(left, 0) }
        });
    }
}
