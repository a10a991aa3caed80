//! The eight fallacies of distributed computing as switches: assume one, forecast again, and see what it hides.

use crate::plan::Plan;
use model::system::Fault;
use units::{Money, Nanos};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallacy {
    /// The network is reliable: no loss, no partition.
    Reliable,
    /// Latency is zero.
    Latency,
    /// Bandwidth is infinite.
    Bandwidth,
    /// The network is secure. A forecast knows no attacker and charges nothing for encryption, so it assumes this anyway.
    Secure,
    /// Topology does not change: nothing stops, is lost, scales or is released.
    Topology,
    /// There is one administrator: all callers learn everything at once.
    Administrator,
    /// Transport costs nothing.
    Cost,
    /// The network is homogeneous: every way is like the way inside a zone, every instance like the next.
    Homogeneous,
}

impl Fallacy {
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Reliable, "reliable"),
        (Self::Latency, "latency"),
        (Self::Bandwidth, "bandwidth"),
        (Self::Secure, "secure"),
        (Self::Topology, "topology"),
        (Self::Administrator, "administrator"),
        (Self::Cost, "cost"),
        (Self::Homogeneous, "homogeneous"),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, it)| *it == name).map(|(it, _)| it)
    }

    /// Makes the plan believe it.
    pub fn assume(self, plan: &mut Plan) {
        match self {
            Self::Reliable => {
                plan.links.iter_mut().for_each(|it| it.loss = 0.0);
                forget(plan, |fault| matches!(fault, Fault::Partition { .. } | Fault::Loss { .. }));
            }
            Self::Latency => {
                plan.links.iter_mut().for_each(|it| (it.one_way, it.jitter) = (Nanos::ZERO, 0.0));
                forget(plan, |fault| matches!(fault, Fault::Delay { .. }));
            }
            Self::Bandwidth => plan.links.iter_mut().for_each(|it| it.nanos_per_byte = 0.0),
            Self::Secure => {}
            Self::Topology => {
                plan.stations.iter_mut().for_each(|it| it.autoscale = None);
                forget(plan, |fault| {
                    matches!(
                        fault,
                        Fault::Stop(_)
                            | Fault::Lose(_)
                            | Fault::Remove(_)
                            | Fault::Scale(..)
                            | Fault::Release { .. }
                    )
                });
            }
            Self::Administrator => plan.stations.iter_mut().for_each(|it| {
                (it.health.every, it.health.timeout) = (Nanos(1), Nanos::ZERO);
            }),
            Self::Cost => plan.links.iter_mut().for_each(|it| it.price_per_gb = Money::ZERO),
            Self::Homogeneous => {
                if let Some(first) = plan.links.first().copied() {
                    let outside: Vec<bool> = plan.locations.iter().map(|it| it.outside).collect();
                    let count = outside.len();
                    for (index, link) in plan.links.iter_mut().enumerate() {
                        if !outside[index / count] && !outside[index % count] {
                            (link.one_way, link.jitter, link.loss) =
                                (first.one_way, first.jitter, first.loss);
                            link.nanos_per_byte = first.nanos_per_byte;
                        }
                    }
                }
                plan.stations.iter_mut().flat_map(|it| &mut it.versions).for_each(|it| {
                    (it.work, it.errors) = (1.0, None);
                });
                forget(plan, |fault| {
                    matches!(fault, Fault::SlowBy(..) | Fault::SlowTimes(..) | Fault::Error(..))
                });
            }
        }
    }
}

fn forget(plan: &mut Plan, believed_away: impl Fn(&Fault) -> bool) {
    plan.scenarios.iter_mut().for_each(|it| it.events.retain(|event| !believed_away(&event.fault.value)));
}
