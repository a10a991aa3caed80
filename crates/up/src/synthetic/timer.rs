//! A timer as fine as the kernel's.
//!
//! The runtime's own wheel turns once a millisecond and rounds up: a service whose work is 0.3 ms would answer after
//! 1.2 ms, and no forecast could match it. One timerfd for each thread, armed for the earliest sleeper, wakes within
//! tens of microseconds and costs nothing while nobody sleeps.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Sleepers of one thread. Clones are the same timer.
#[derive(Clone, Debug)]
pub(crate) struct Timer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: AsyncFd<OwnedFd>,
    start: Instant,
    next_ticket: Cell<u64>,
    armed_for: Cell<u64>,
    /// By (deadline, ticket): equal deadlines wake in the order they were asked for.
    sleepers: RefCell<BTreeMap<(u64, u64), Waker>>,
}

impl Timer {
    /// Call it inside a local runtime; the driver is a task of that runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let inner = Rc::new(Inner {
            fd: crate::readiness_fd::readable(fd)?,
            start: now(),
            next_ticket: Cell::new(0),
            armed_for: Cell::new(u64::MAX),
            sleepers: RefCell::new(BTreeMap::new()),
        });
        tokio::task::spawn_local(drive(Rc::clone(&inner)));
        Ok(Self(inner))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(now() + duration)
    }

    pub(crate) fn sleep_until(&self, deadline: Instant) -> Sleep {
        let nanos = deadline.saturating_duration_since(self.0.start).as_nanos();
        let ticket = self.0.next_ticket.replace(self.0.next_ticket.get() + 1);
        Sleep {
            timer: Rc::clone(&self.0),
            at: (u64::try_from(nanos).unwrap_or(u64::MAX), ticket),
            queued: false,
        }
    }
}

impl Inner {
    fn elapsed(&self) -> u64 {
        u64::try_from(now().saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    fn arm(&self, deadline: u64) {
        if self.armed_for.get() <= deadline {
            return;
        }
        self.armed_for.set(deadline);
        // Zero would disarm it.
        let wait = deadline.saturating_sub(self.elapsed()).max(1);
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: (wait / 1_000_000_000).min(i64::MAX as u64) as i64,
                tv_nsec: (wait % 1_000_000_000) as _,
            },
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec)
            .expect("a timer of our own takes any positive time");
    }
}

async fn drive(inner: Rc<Inner>) {
    loop {
        let Ok(mut guard) = inner.fd.readable().await else { return };
        let mut count = [0u8; 8];
        // Nothing to read means that it was armed anew in between: look again.
        let _ = rustix::io::read(inner.fd.get_ref(), &mut count);
        guard.clear_ready();
        drop(guard);
        inner.armed_for.set(u64::MAX);
        let due = inner.elapsed();
        let mut sleepers = inner.sleepers.borrow_mut();
        let later = sleepers.split_off(&(due.saturating_add(1), 0));
        let woken = std::mem::replace(&mut *sleepers, later);
        let next = sleepers.keys().next().map(|(deadline, _)| *deadline);
        drop(sleepers);
        woken.into_values().for_each(Waker::wake);
        if let Some(next) = next {
            inner.arm(next);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Sleep {
    timer: Rc<Inner>,
    at: (u64, u64),
    queued: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.elapsed() >= self.at.0 {
            return Poll::Ready(());
        }
        self.timer.sleepers.borrow_mut().insert(self.at, context.waker().clone());
        self.timer.arm(self.at.0);
        self.queued = true;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.queued {
            self.timer.sleepers.borrow_mut().remove(&self.at);
        }
    }
}

/// Synthetic services live in real time; this is where they read it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_in_order_and_not_early() {
        let runtime = crate::synthetic::local_runtime().expect("a runtime");
        runtime.block_on(async {
            let timer = Timer::new().expect("a timer");
            let order = Rc::new(RefCell::new(Vec::new()));
            // Later than all of them are first looked at, however busy the machine is.
            let started = now() + Duration::from_millis(200);
            let tasks: Vec<_> = [900u64, 100, 500, 300, 700]
                .into_iter()
                .map(|micros| {
                    let (timer, order) = (timer.clone(), Rc::clone(&order));
                    tokio::task::spawn_local(async move {
                        timer.sleep_until(started + Duration::from_micros(micros)).await;
                        assert!(now() >= started + Duration::from_micros(micros));
                        order.borrow_mut().push(micros);
                    })
                })
                .collect();
            drop(timer.sleep(Duration::from_secs(1_000)));
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(*order.borrow(), [100, 300, 500, 700, 900]);
            assert!(timer.0.sleepers.borrow().is_empty());
        });
    }
}
