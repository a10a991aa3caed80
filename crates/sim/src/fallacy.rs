//! The eight fallacies of distributed computing as switches: assume one, forecast again, and see what it hides.
//!
//! A file may assume one by itself: it says nothing of encryption, of failing machines, of what transport costs. Then
//! assuming it shows nothing, and the switch can be turned the other way, to what the built-in figures say of the world
//! outside such a file. [`Fallacy::doubt`] names each figure.

use crate::plan::{Plan, ScenarioPlan, StationKind, TlsPlan};
use model::span::{At, Span};
use model::system::{Event, Fault, Selection, Which};
use units::{Id, Money, Nanos, Percent};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallacy {
    /// The network is reliable: no loss, no partition.
    Reliable,
    /// Latency is zero.
    Latency,
    /// Bandwidth is infinite.
    Bandwidth,
    /// The network is secure: nothing needs encrypting.
    Secure,
    /// Topology does not change: nothing stops, is lost, scales or is released.
    Topology,
    /// There is one administrator: all callers learn everything at once, and what others run is as good as what we run.
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
                if let Some(dns) = &mut plan.dns {
                    dns.failures = 0.0;
                }
                forget(plan, |fault| {
                    matches!(fault, Fault::Partition { .. } | Fault::Loss { .. } | Fault::FailDns)
                });
            }
            Self::Latency => {
                plan.links.iter_mut().for_each(|it| (it.one_way, it.jitter) = (Nanos::ZERO, 0.0));
                if let Some(dns) = &mut plan.dns {
                    dns.latency = Nanos::ZERO;
                }
                forget(plan, |fault| matches!(fault, Fault::Delay { .. }));
            }
            Self::Bandwidth => plan.links.iter_mut().for_each(|it| it.nanos_per_byte = 0.0),
            Self::Secure => plan.tls = None,
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
            Self::Administrator => {
                for it in &mut plan.stations {
                    (it.health.every, it.health.timeout) = (Nanos(1), Nanos::ZERO);
                    (it.health.healthy_after, it.health.unhealthy_after) = (1, 1);
                }
                plan.dns = None;
                let of_others: Vec<u32> = of_others(plan).collect();
                for it in plan.operations.iter_mut().filter(|it| of_others.contains(&it.station)) {
                    it.errors = 0.0;
                }
            }
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

/// What is turned the other way where a file assumes a fallacy by itself.
impl Fallacy {
    /// Makes the plan doubt it, by figures of our own, and says which. `playing` is the scenario that will be played; where
    /// none is and one is needed, it is added and named.
    pub fn doubt(self, plan: &mut Plan, playing: Option<&str>) -> Doubt {
        let mut scenario = playing.map(str::to_owned);
        let words = match self {
            Self::Reliable => {
                plan.links.iter_mut().for_each(|it| it.loss = it.loss.max(0.001));
                "one message in a thousand is lost and sent again"
            }
            Self::Latency => {
                plan.links.iter_mut().for_each(|it| {
                    it.one_way = (it.one_way * 2).max(Nanos::from_micros(500));
                });
                "every way takes twice as long, and half a millisecond at least"
            }
            Self::Bandwidth => {
                const SLOW: f64 = 1e9 / 1_250_000.0;
                plan.links.iter_mut().for_each(|it| it.nanos_per_byte = it.nanos_per_byte.max(SLOW));
                "a flow gets 10 Mbit/s"
            }
            Self::Secure => {
                plan.tls = Some(TlsPlan { handshake: Nanos::from_millis(1) });
                "new connections between services are secured: one more round trip, and a millisecond of work"
            }
            Self::Topology => {
                scenario = Some(for_an_instance_each(plan, playing, Fault::Stop));
                "the first instance of each service that has several stops for twenty seconds, one after the other"
            }
            Self::Administrator => {
                let of_others: Vec<u32> = of_others(plan).collect();
                for it in plan.operations.iter_mut().filter(|it| of_others.contains(&it.station)) {
                    it.errors = 1.0 - (1.0 - it.errors) * 0.99;
                }
                "what others run (external services, or the one most depend on) fails once in a hundred"
            }
            Self::Cost => {
                plan.links.iter_mut().for_each(|it| {
                    it.price_per_gb = it.price_per_gb.max(Money::from_micros(20_000));
                });
                "every way costs $0.02 a gigabyte"
            }
            Self::Homogeneous => {
                let half = |selection| Fault::SlowTimes(selection, Percent::from_whole(200));
                scenario = Some(for_an_instance_each(plan, playing, half));
                "the first instance of each service that has several is half as fast, one after the other"
            }
        };
        Doubt { words, scenario }
    }
}

/// What was doubted, and how to play it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub words: &'static str,
    pub scenario: Option<String>,
}

/// Services that somebody else runs; where the file names none, the one that most edges lead to.
fn of_others(plan: &Plan) -> impl Iterator<Item = u32> {
    let external: Vec<u32> =
        (0u32..).zip(&plan.stations).filter(|(_, it)| it.external).map(|(n, _)| n).collect();
    let service = |station: u32| matches!(plan.stations[station as usize].kind, StationKind::Service(_));
    let calls =
        |station: u32| plan.edges.iter().filter(|it| it.callee == station && service(it.caller)).count();
    let most = (0..plan.stations.len() as u32)
        .filter(|it| calls(*it) > 0)
        .max_by_key(|it| (calls(*it), u32::MAX - it));
    let chosen = if external.is_empty() { most.into_iter().collect() } else { external };
    chosen.into_iter()
}

/// One after the other, so that what is seen is one of them missing and not all at once. What the file's own scenarios do
/// stays as it is.
fn for_an_instance_each(
    plan: &mut Plan,
    playing: Option<&str>,
    fault: impl Fn(Selection) -> Fault,
) -> String {
    const LASTING: Nanos = Nanos::from_secs(20);
    let several = plan
        .stations
        .iter()
        .zip(0u32..)
        .filter(|(it, _)| matches!(it.kind, StationKind::Service(_)) && it.instances.len() > 1);
    let events: Vec<Event> = several
        .zip(0u64..)
        .map(|((_, station), n)| Event {
            // Over a minute, however many there are, so that a run of the usual length sees them all.
            at: Nanos::from_secs(n * 7 % 40),
            lasting: Some(LASTING),
            fault: At::new(
                fault(Selection { service: Id::new(station), which: Which::Index(0) }),
                Span::default(),
            ),
        })
        .collect();
    let name = playing.unwrap_or(DOUBTED).to_owned();
    if !plan.scenarios.iter().any(|it| it.name == name) {
        let lasts = Some(Nanos::from_secs(60));
        plan.scenarios.push(ScenarioPlan {
            name: name.clone(),
            events: Vec::new(),
            expect: Vec::new(),
            lasts,
        });
    }
    for scenario in plan.scenarios.iter_mut().filter(|it| it.name == name) {
        scenario.events.extend(events.iter().cloned());
        scenario.events.sort_by_key(|it| it.at);
    }
    name
}

/// The scenario that a doubt brings where none is played.
const DOUBTED: &str = "doubted";

fn forget(plan: &mut Plan, believed_away: impl Fn(&Fault) -> bool) {
    plan.scenarios.iter_mut().for_each(|it| it.events.retain(|event| !believed_away(&event.fault.value)));
}
