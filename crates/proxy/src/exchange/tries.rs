//! The attempts of one call: whom to ask next, what its answer means, and whether to ask again.
//!
//! ```text
//! loop { pick → send → wait → judge: an answer, or rest and once more }
//! ```
//! Both ways of carrying a call, HTTP/1 bytes and HTTP/2 streams, drive their attempts through this.

use super::call::Call;
use crate::edge::{EdgeState, Pick, Refused};
use crate::http1::{Kind, ResponseHead, decimal};
use crate::worker::Worker;
use policy::{Ask, Attempt, Deadline, Hint, Next, Outcome, RetryState, retry};
use smallvec::SmallVec;
use std::rc::Rc;
use units::Nanos;

#[derive(Debug)]
pub(crate) struct Tries {
    version: Option<u16>,
    hash: Option<u64>,
    retries: RetryState,
    tried: SmallVec<[u32; 4]>,
    /// The last attempt did not reach anybody, so nobody is ruled out for the next.
    transparent: bool,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer, or there will be none.
    Final,
    /// Send it again after this long.
    Again { wait: Nanos },
}

impl Tries {
    pub(crate) fn new(version: Option<u16>, hash: Option<u64>) -> Self {
        Self { version, hash, retries: RetryState::default(), tried: SmallVec::new(), transparent: false }
    }

    /// How many retries came before: what `isobar-attempt` says.
    pub(crate) fn retried(&self) -> u8 {
        self.retries.attempt()
    }

    /// Chooses an instance for the next attempt, and until when it may take.
    pub(crate) fn pick(
        &mut self,
        worker: &Worker,
        edge: &EdgeState,
        call: &mut Call,
    ) -> Result<(Pick, Deadline), Refused> {
        let now = worker.now();
        let tried: &[u32] = if self.transparent { &[] } else { &self.tried };
        let ask = Ask { now, hash: self.hash, version: self.version, tried };
        let mut pick = {
            let mut rng = worker.rng.borrow_mut();
            match edge.pick(&ask, &mut rng) {
                // Everybody was tried: again with the same rather than not at all.
                Err(Refused::AllTried) => edge.pick(&Ask { tried: &[], ..ask }, &mut rng),
                picked => picked,
            }
        }?;
        pick.priority = call.priority;
        Ok(self.begin(worker, edge, call, pick, false))
    }

    /// Chooses an instance that was not asked yet, for a copy of what another is still working on.
    pub(super) fn pick_hedge(
        &mut self,
        worker: &Worker,
        edge: &EdgeState,
        call: &mut Call,
    ) -> Option<(Pick, Deadline)> {
        let ask = Ask { now: worker.now(), hash: self.hash, version: self.version, tried: &self.tried };
        let mut pick = edge.pick(&ask, &mut worker.rng.borrow_mut()).ok()?;
        pick.priority = call.priority;
        Some(self.begin(worker, edge, call, pick, true))
    }

    fn begin(
        &mut self,
        worker: &Worker,
        edge: &EdgeState,
        call: &mut Call,
        pick: Pick,
        is_hedge: bool,
    ) -> (Pick, Deadline) {
        self.tried.push(pick.index);
        call.try_begins(worker, &pick, is_hedge);
        edge.cells().attempts.add(1);
        let settings = edge.settings().retry.as_ref();
        let deadline = retry::attempt_deadline(settings, call.deadline, pick.started);
        (pick, deadline)
    }

    /// Is this attempt's outcome the answer? The pick is still the caller's to finish.
    pub(crate) fn judge(
        &mut self,
        worker: &Worker,
        edge: &EdgeState,
        outcome: Outcome,
        hint: Hint,
        (idempotent, replayable): (bool, bool),
        deadline: Deadline,
    ) -> Verdict {
        count_outcome(edge, outcome);
        if !outcome.is_failure() && outcome.is_counted() {
            return Verdict::Final;
        }
        let attempt = Attempt {
            outcome,
            hint,
            idempotent,
            replayable,
            committed: false,
            deadline,
            expected: Nanos::ZERO,
        };
        let now = worker.now();
        let next = edge.next(&mut self.retries, &attempt, now, &mut worker.rng.borrow_mut());
        let max = worker.share(worker.plan().config.limits.retries_in_flight);
        match next {
            Next::Retry { wait, transparent } if transparent || worker.retries.get() < max => {
                self.transparent = transparent;
                if transparent {
                    edge.cells().replays.add(1);
                    self.tried.pop();
                } else {
                    edge.cells().retries.add(1);
                }
                Verdict::Again { wait: if transparent { Nanos::ZERO } else { wait } }
            }
            Next::Retry { .. } | Next::Stop(policy::Why::BudgetEmpty) => {
                edge.cells().retries_refused.add(1);
                Verdict::Final
            }
            Next::Stop(_) => Verdict::Final,
        }
    }

    /// Waits before the next attempt. Whoever rests counts as a retry in flight.
    pub(crate) async fn rest(worker: &Rc<Worker>, wait: Nanos) {
        if !wait.is_zero() {
            let _guard = worker.retry_in_flight();
            tokio::time::sleep_until(worker.clock.instant(worker.now() + wait)).await;
        }
    }
}

/// What a reply's head says. A gRPC status in it is the truth, whatever HTTP says.
pub(crate) fn outcome_of(response: &ResponseHead, buffer: &[u8]) -> Outcome {
    let grpc = response.find(Kind::GrpcStatus, buffer).and_then(decimal);
    grpc.map_or(Outcome::Status(response.status), |code| Outcome::Grpc(code.min(255) as u8))
}

/// What the peer said about trying again.
pub(crate) fn hint_of(response: &ResponseHead, buffer: &[u8], outcome: Outcome) -> Hint {
    if let Some(pushback) = response.find(Kind::GrpcPushback, buffer) {
        return decimal(pushback)
            .map_or(Hint::Never, |ms| Hint::Exactly(Nanos::from_millis(ms.min(3_600_000))));
    }
    if !matches!(outcome, Outcome::Status(429 | 503)) {
        return Hint::None;
    }
    if response.has(Kind::IsobarError) {
        // Another proxy has tried already. Trying here as well would multiply.
        return Hint::Never;
    }
    let after = response.find(Kind::RetryAfter, buffer).and_then(decimal);
    after.map_or(Hint::None, |secs| Hint::AtLeast(Nanos::from_secs(secs.min(3_600))))
}

/// How long the instance asked to be left alone.
pub(crate) fn rest(hint: Hint) -> Option<Nanos> {
    match hint {
        Hint::AtLeast(rest) | Hint::Exactly(rest) => Some(rest),
        Hint::None | Hint::Never => None,
    }
}

pub(super) fn count_outcome(edge: &EdgeState, outcome: Outcome) {
    let cells = edge.cells();
    match outcome {
        Outcome::ConnectFailed => cells.connect_failures.add(1),
        Outcome::Reset | Outcome::Stale => cells.resets.add(1),
        Outcome::Timeout => cells.timeouts.add(1),
        _ => {}
    }
}
