//! What lies between a caller and one instance beyond this machine's own wires: distance, and trouble made on purpose.
//!
//! A way is travelled once an instance is picked and its turn has come, so the balancer, the breaker, the ejection and
//! the retries see what they would see if the distance were real. It costs nothing to those who have none.

use crate::config::Way;
use crate::connect::Caller;
use crate::edge::{EdgeState, Pick};
use crate::worker::Worker;
use policy::{Deadline, Outcome};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use units::{Nanos, Rng};

/// The least time a transport waits before it sends a lost packet again; each further wait is twice the one before.
const RESEND_FIRST: Nanos = Nanos::from_millis(200);
/// Losses in a row after which a packet is taken as through: by then most of a minute is gone.
const RESENDS_MAX: u32 = 8;

/// What becomes of one request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives(Nanos),
    /// It arrives, and what comes back is a failure.
    Fails(Nanos),
    Vanishes,
}

/// Why a request did not reach its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    To(Outcome),
    ClientGone,
}

fn fate(way: &Way, rng: &mut Rng) -> Fate {
    if way.cut {
        return Fate::Vanishes;
    }
    let mut delay = way.delay;
    if way.jitter > units::Percent::ZERO {
        delay = delay.mul_f64(1.0 + way.jitter.fraction().min(1.0) * (2.0 * rng.unit() - 1.0));
    }
    let loss = way.loss.fraction();
    if loss > 0.0 {
        // There and back: each is a packet of its own.
        for _ in 0..2 {
            let mut wait = RESEND_FIRST.max(way.delay * 2);
            for _ in 0..RESENDS_MAX {
                if !rng.chance(loss) {
                    break;
                }
                delay += wait;
                wait = wait * 2;
            }
        }
    }
    if rng.chance(way.errors.fraction()) { Fate::Fails(delay) } else { Fate::Arrives(delay) }
}

/// Travels to the picked instance, if that takes any doing.
pub(crate) async fn travel(
    worker: &Rc<Worker>,
    caller: Caller<'_>,
    edge: &EdgeState,
    pick: &Pick,
    deadline: Deadline,
) -> Result<(), Lost> {
    let Some(way) = edge.plan.config.way_to(pick.instance.address) else { return Ok(()) };
    let fate = fate(way, &mut worker.rng.borrow_mut());
    let until = match fate {
        Fate::Vanishes => deadline.instant(),
        Fate::Arrives(delay) | Fate::Fails(delay) => deadline.instant().min(worker.now() + delay),
    };
    if worker.now() < until {
        // Exact to a millisecond, as injected delays are: somebody will measure it.
        let sleep = tokio::time::sleep_until(worker.clock.instant(until));
        tokio::pin!(sleep);
        let arrived = poll_fn(|cx| {
            if caller.is_lost(cx) {
                return Poll::Ready(false);
            }
            sleep.as_mut().poll(cx).map(|()| true)
        });
        if !arrived.await {
            return Err(Lost::ClientGone);
        }
    }
    match fate {
        _ if deadline.has_passed(worker.now()) => Err(Lost::To(Outcome::Timeout)),
        Fate::Vanishes => Err(Lost::To(Outcome::Timeout)),
        Fate::Fails(_) => Err(Lost::To(Outcome::Status(500))),
        Fate::Arrives(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::Percent;

    fn way() -> Way {
        Way::to(std::net::SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    /// Of a thousand requests: how many fail or vanish, and the mean delay of the others in milliseconds.
    fn travel_often(way: &Way) -> (usize, f64) {
        let mut rng = Rng::from_seed(7);
        let delays: Vec<Nanos> = (0..1_000)
            .filter_map(|_| match fate(way, &mut rng) {
                Fate::Arrives(delay) => Some(delay),
                Fate::Fails(_) | Fate::Vanishes => None,
            })
            .collect();
        let mean = delays.iter().map(|it| it.as_millis_f64()).sum::<f64>() / delays.len().max(1) as f64;
        (1_000 - delays.len(), mean)
    }

    #[test]
    fn a_way_is_as_long_and_as_bad_as_it_says() {
        let ms = Nanos::from_millis;
        assert_eq!(travel_often(&way()), (0, 0.0));
        assert_eq!(travel_often(&Way { delay: ms(80), ..way() }), (0, 80.0));
        assert_eq!(travel_often(&Way { cut: true, delay: ms(80), ..way() }).0, 1_000);
        let (_, jittered) = travel_often(&Way { delay: ms(80), jitter: Percent::from_whole(10), ..way() });
        assert!((79.0..81.0).contains(&jittered), "{jittered}");
        let (failed, _) = travel_often(&Way { errors: Percent::from_whole(20), ..way() });
        assert!((160..240).contains(&failed), "{failed}");
        // A tenth lost each way: a fifth of the requests wait 200 ms, and a few of them longer.
        let (_, lossy) = travel_often(&Way { loss: Percent::from_whole(10), ..way() });
        assert!((38.0..62.0).contains(&lossy), "{lossy}");
    }
}
