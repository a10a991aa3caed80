//! How one attempt ended, in the few words every policy needs.
//!
//! The proxy makes these out of sockets and status lines, the simulator out of events. What "failed" means is said
//! here once, so that the retry, the breaker, the ejection and the balancer cannot disagree about the same reply.

/// The end of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A whole reply with this HTTP status.
    Status(u16),
    /// A whole reply with this gRPC status code (0 is OK).
    Grpc(u8),
    /// Nothing of the request left this process: the pooled connection was already closed, or had no stream free.
    NeverSent,
    /// The peer proved that it did not start the work (HTTP/2 REFUSED_STREAM, a stream above the GOAWAY id).
    Refused,
    /// A reused connection closed before the first byte of a reply: most likely it was idle too long and the request
    /// crossed its end. Not proof, so only what is idempotent is sent again.
    Stale,
    /// No connection could be made.
    ConnectFailed,
    /// The connection broke, or the reply was cut short.
    Reset,
    /// The attempt took longer than it was given.
    Timeout,
    /// Our own limit, queue or throttle refused it; the instance never saw it.
    Shed,
    /// The caller left, or another copy answered first. Says nothing about the instance.
    Cancelled,
}

/// gRPC codes that have a meaning here.
mod code {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const DATA_LOSS: u8 = 15;
}

impl Outcome {
    /// The instance did what it was asked, or said correctly that the caller was wrong.
    pub const fn is_success(self) -> bool {
        self.is_counted() && !self.is_failure()
    }

    /// Counts against the instance in breakers, ejection and the balancer's error bias. A caller's mistake (4xx) does
    /// not; "too many requests" does, because sending more there makes it worse.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Status(status) => status >= 500 || status == 429,
            Self::Grpc(grpc) => {
                matches!(
                    grpc,
                    code::UNKNOWN
                        | code::DEADLINE_EXCEEDED
                        | code::RESOURCE_EXHAUSTED
                        | code::INTERNAL
                        | code::UNAVAILABLE
                        | code::DATA_LOSS
                )
            }
            Self::ConnectFailed | Self::Reset | Self::Timeout => true,
            Self::NeverSent | Self::Refused | Self::Stale | Self::Shed | Self::Cancelled => false,
        }
    }

    /// Whether this says anything about the instance at all.
    pub const fn is_counted(self) -> bool {
        !matches!(
            self,
            Self::NeverSent
                | Self::Refused
                | Self::Stale
                | Self::Shed
                | Self::Cancelled
                | Self::Grpc(code::CANCELLED)
        )
    }

    /// The instance certainly did not start the work, so doing it elsewhere cannot do it twice.
    pub const fn is_unprocessed(self) -> bool {
        matches!(self, Self::NeverSent | Self::Refused | Self::ConnectFailed | Self::Shed)
    }

    /// The peer says it has too much to do.
    pub const fn is_throttled(self) -> bool {
        matches!(self, Self::Status(429) | Self::Grpc(code::RESOURCE_EXHAUSTED))
    }

    pub(crate) const fn is_unavailable(self) -> bool {
        matches!(self, Self::Status(502..=504) | Self::Grpc(code::UNAVAILABLE))
    }

    pub(crate) const fn is_server_error(self) -> bool {
        match self {
            Self::Status(status) => status >= 500,
            Self::Grpc(_) => self.is_failure() && !self.is_throttled(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{self, *};

    #[track_caller]
    fn check(outcomes: &[Outcome], failure: bool, counted: bool) {
        for outcome in outcomes {
            assert_eq!((outcome.is_failure(), outcome.is_counted()), (failure, counted), "{outcome:?}");
            assert_eq!(outcome.is_success(), counted && !failure, "{outcome:?}");
        }
    }

    #[test]
    fn only_what_the_instance_did_counts_against_it() {
        check(&[Status(200), Status(304), Status(404), Status(499), Grpc(0), Grpc(5)], false, true);
        check(&[Status(500), Status(503), Status(429), Grpc(14), Grpc(8), Grpc(4), Grpc(2)], true, true);
        check(&[ConnectFailed, Reset, Timeout], true, true);
        check(&[NeverSent, Refused, Stale, Shed, Cancelled, Grpc(1)], false, false);
    }
}
