//! Work that computes: processor time spent for real, for services that say `burn`.
//!
//! The thread that plays instances must never compute, or all of them would stand still. So there is a pool of as many
//! threads as the machine has cores, started when the first piece comes. Pieces take turns of a millisecond, as
//! processes do: ten at once on two cores take five times as long each, and a short one is not stuck behind a long one.
//!
//! What is burnt is counted by the thread's own clock, so that a busy machine makes work take longer, not less of it.
//! Bounded: beyond [`PIECES_MAX`] pieces at once the time is waited instead, and counted.

use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// At a millisecond each they would take a minute of one core.
const PIECES_MAX: usize = 65_536;
/// The name of the threads.
pub(super) const BURN_THREAD: &str = "burn";
const TURN: Duration = Duration::from_millis(1);

/// Where pieces of work are handed in. It belongs to the one thread that plays instances.
#[derive(Debug, Default)]
pub(crate) struct Burner {
    pool: OnceCell<Option<Arc<Pool>>>,
    waited: Cell<u64>,
}

#[derive(Debug, Default)]
struct Pool {
    line: Mutex<Line>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    pieces: VecDeque<Piece>,
    over: bool,
}

#[derive(Debug)]
struct Piece {
    left: Duration,
    done: oneshot::Sender<()>,
}

impl Pool {
    /// A panic elsewhere left the line whole: nothing here is changed in two steps.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut line = self.line();
            let mut piece = loop {
                if line.over {
                    return;
                }
                match line.pieces.pop_front() {
                    // Whoever asked for it has gone: nobody computes for nobody.
                    Some(piece) if piece.done.is_closed() => {}
                    Some(piece) => break piece,
                    None => line = self.came.wait(line).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(line);
            let turn = piece.left.min(TURN);
            compute(turn);
            piece.left -= turn;
            if piece.left.is_zero() {
                let _ = piece.done.send(());
            } else {
                self.line().pieces.push_back(piece);
            }
        }
    }
}

/// Spends this much of the thread's processor time.
fn compute(time: Duration) {
    let until = cpu() + time;
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    while cpu() < until {
        for _ in 0..200 {
            number = black_box(number.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0xff);
        }
    }
}

fn cpu() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

impl Burner {
    /// Ends when so much processor time was spent on it. `false`: there was no room, and nothing was.
    pub(crate) async fn burn(&self, time: Duration) -> bool {
        let Some(pool) = self.pool.get_or_init(start) else { return false };
        let (done, ended) = oneshot::channel();
        {
            let mut line = pool.line();
            if line.pieces.len() >= PIECES_MAX {
                self.waited.set(self.waited.get() + 1);
                return false;
            }
            line.pieces.push_back(Piece { left: time, done });
        }
        pool.came.notify_one();
        ended.await.is_ok()
    }

    /// Pieces that were waited for because there was no room.
    pub(crate) fn waited(&self) -> u64 {
        self.waited.get()
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        if let Some(Some(pool)) = self.pool.get() {
            pool.line().over = true;
            pool.came.notify_all();
        }
    }
}

/// `None`: not one thread could be started.
fn start() -> Option<Arc<Pool>> {
    let pool = Arc::new(Pool::default());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let started = (0..cores).filter(|_| {
        let pool = Arc::clone(&pool);
        std::thread::Builder::new().name(BURN_THREAD.to_owned()).spawn(move || pool.work()).is_ok()
    });
    (started.count() > 0).then_some(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn pieces_take_turns_and_spend_what_they_say() {
        let runtime = crate::synthetic::local_runtime().expect("a runtime");
        runtime.block_on(async {
            let burner = Rc::new(Burner::default());
            let order = Rc::new(std::cell::RefCell::new(Vec::new()));
            let before = process_cpu();
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            // On every core something long; the short one comes last and ends first all the same.
            let lasting = std::iter::repeat_n(80, cores * 2).chain([1]);
            let tasks: Vec<_> = lasting
                .map(|millis| {
                    let (burner, order) = (Rc::clone(&burner), Rc::clone(&order));
                    tokio::task::spawn_local(async move {
                        assert!(burner.burn(Duration::from_millis(millis)).await);
                        order.borrow_mut().push(millis);
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(order.borrow().first(), Some(&1));
            let spent = process_cpu() - before;
            assert!(spent >= Duration::from_millis(160 * cores as u64), "{spent:?}");
            assert_eq!(burner.waited(), 0);
        });
    }

    #[test]
    fn nobody_computes_for_somebody_who_left() {
        let pool = Pool::default();
        let (done, gone) = oneshot::channel();
        drop(gone);
        pool.line().pieces.push_back(Piece { left: Duration::from_secs(1_000), done });
        let (done, mut ended) = oneshot::channel();
        pool.line().pieces.push_back(Piece { left: Duration::from_nanos(1), done });
        std::thread::scope(|scope| {
            scope.spawn(|| pool.work());
            while ended.try_recv().is_err() {
                std::thread::yield_now();
            }
            pool.line().over = true;
            pool.came.notify_all();
        });
        assert!(pool.line().pieces.is_empty());
    }

    fn process_cpu() -> Duration {
        let at = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
    }
}
