//! The proxy's numbers for whoever draws them: counters as they stand, and each instance as the workers see it.
//!
//! Counters only grow; the reader subtracts what it read before. Nothing here makes a request wait: cells are read
//! without a lock, and a worker answers a census between two polls, as it does any other message.

use crate::admin::merged;
use crate::config;
use crate::engine::{Control, Message};
use crate::plan::EdgePlan;
use crate::record::Finished;
pub use crate::seen::{CallSeen, PoolSeen};
use crate::stats::{Cell, EdgeCells};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use telemetry::exposition::{Family, Kind};
use tokio::sync::oneshot;
use units::{Histogram, Nanos};

/// A way to read a running proxy that outlives its owner's borrow. It does not keep the proxy running.
#[derive(Clone, Debug)]
pub struct Observer {
    control: Arc<Control>,
}

/// Requests by the first digit of their status; index 0 is "no answer was sent".
pub type ByClass = [u64; 6];

/// One edge's counters since it exists, all workers together.
#[derive(Clone, Debug)]
pub struct EdgeReading {
    pub edge: Arc<config::Edge>,
    pub classes: ByClass,
    pub retries: u64,
    pub latency: Histogram,
    /// By name. Empty names (instances of no version) are left out.
    pub versions: Vec<VersionReading>,
}

#[derive(Clone, Debug)]
pub struct VersionReading {
    pub name: String,
    pub classes: ByClass,
    pub latency: Histogram,
}

/// What went through a listener's routes, answered by an instance or by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReading {
    pub listener: String,
    pub classes: ByClass,
}

/// What guards an edge did since it exists, all workers added up. Each worker has a breaker and a view of instances of
/// its own.
#[derive(Clone, Debug)]
pub struct GuardReading {
    pub edge: Arc<config::Edge>,
    /// Workers that sent anything over it.
    pub workers: u64,
    pub retries_refused: u64,
    /// Attempts that waited for a connection.
    pub pool_waits: u64,
    pub breaker_trips: u64,
    pub breaker_open: Nanos,
    pub ejections: u64,
    pub ejections_withheld: u64,
    /// Of all ejected instances together.
    pub ejected: Nanos,
}

/// Cells as they stood at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Of the snapshot that slots of edges belong to.
    pub generation: u64,
    pub edges: Vec<EdgeReading>,
    pub listeners: Vec<ListenerReading>,
}

/// What one worker knows of one instance of one service's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSeen {
    pub address: SocketAddr,
    pub healthy: bool,
    pub ejected: bool,
    /// The last word of the ejection's judge; `None` if it was never judged.
    pub verdict: Option<String>,
    pub in_flight: u32,
    pub requests: u64,
    pub failures: u64,
}

/// What one worker knows of one edge's breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerSeen {
    pub edge: String,
    pub open: bool,
}

/// Everything that only workers know. The same instance is in it once for each worker and view that uses it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    pub instances: Vec<InstanceSeen>,
    pub breakers: Vec<BreakerSeen>,
    pub calls: Vec<CallSeen>,
    pub pools: Vec<PoolSeen>,
    /// Workers that did not answer in time. What they know is missing.
    pub silent_workers: usize,
}

/// Finished requests of one worker, for whoever comes by for them: each is written once, into a list that changes hands
/// whole.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    list: Vec<Finished>,
    /// Zero: nobody comes.
    max: usize,
}

/// Somebody comes by.
#[derive(Debug)]
pub(crate) struct AskEnded {
    reply: oneshot::Sender<Vec<Finished>>,
    /// To be filled next.
    empty: Vec<Finished>,
    max: usize,
}

impl Ended {
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.max > 0
    }

    /// False: nobody came for too long, and there is no room.
    pub(crate) fn push(&mut self, it: Finished) -> bool {
        let fits = self.list.len() < self.max;
        if fits {
            self.list.push(it);
        }
        fits
    }

    pub(crate) fn exchange(&mut self, ask: AskEnded) {
        self.max = ask.max;
        let list = std::mem::replace(&mut self.list, ask.empty);
        // Whoever asked may have given up; then it is for the next.
        if let Err(list) = ask.reply.send(list) {
            self.list = list;
        }
    }
}

impl Observer {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self { control }
    }

    /// Reads every cell of the running snapshot.
    pub fn read(&self) -> Reading {
        let plan = self.control.plan();
        let edges = plan.edges.iter().flatten().map(|edge| {
            let names = plan.services.get(edge.service as usize).and_then(Option::as_ref);
            let names = names.map_or(&[][..], |service| &service.versions);
            let versions = names.iter().enumerate().filter(|(_, name)| !name.is_empty()).map(|(at, name)| {
                let cells = || edge.cells.all().filter_map(move |it| it.versions.get(at));
                VersionReading {
                    name: name.clone(),
                    classes: std::array::from_fn(|class| cells().map(|it| it.classes[class].get()).sum()),
                    latency: merged(cells().flat_map(|it| it.latency.all())),
                }
            });
            EdgeReading {
                edge: edge.config.clone(),
                classes: std::array::from_fn(|class| edge.cells.sum(|it| &it.classes[class])),
                retries: edge.cells.sum(|it| &it.retries),
                latency: merged(edge.cells.all().flat_map(|it| it.latency.all())),
                // A single version is the edge itself; reading it again would only cost.
                versions: if names.len() > 1 { versions.collect() } else { Vec::new() },
            }
        });
        let listeners = plan.listeners.iter().map(|listener| ListenerReading {
            listener: listener.config.name.clone(),
            classes: std::array::from_fn(|class| {
                listener.routes().map(|route| route.cells.sum(|it| &it.classes[class])).sum()
            }),
        });
        Reading { generation: plan.generation, edges: edges.collect(), listeners: listeners.collect() }
    }

    /// Reads what breakers, budgets and ejections did.
    pub fn guards(&self) -> Vec<GuardReading> {
        let plan = self.control.plan();
        let reading = |edge: &Arc<EdgePlan>| {
            let sum = |of: fn(&EdgeCells) -> &Cell| edge.cells.sum(of);
            GuardReading {
                edge: edge.config.clone(),
                workers: edge.cells.all().filter(|it| it.attempts.get() > 0).count() as u64,
                retries_refused: sum(|it| &it.retries_refused),
                pool_waits: sum(|it| &it.pool_waits),
                breaker_trips: sum(|it| &it.breaker_trips),
                breaker_open: Nanos(sum(|it| &it.breaker_open)),
                ejections: sum(|it| &it.ejections),
                ejections_withheld: sum(|it| &it.ejections_withheld),
                ejected: Nanos(sum(|it| &it.ejected)),
            }
        };
        plan.edges.iter().flatten().map(reading).collect()
    }

    /// Asks every worker. One that is busy for longer than `patience` is counted and left out.
    pub async fn census(&self, patience: Duration) -> Census {
        let asked: Vec<_> = self
            .control
            .workers
            .iter()
            .map(|worker| {
                let (reply, answer) = oneshot::channel();
                worker.offer(Message::Census(reply)).then_some(answer)
            })
            .collect();
        let mut census = Census::default();
        for answer in asked {
            let answer = match answer {
                Some(answer) => tokio::time::timeout(patience, answer).await.ok().and_then(Result::ok),
                None => None,
            };
            match answer {
                Some(own) => {
                    census.instances.extend(own.instances);
                    census.breakers.extend(own.breakers);
                    census.calls.extend(own.calls);
                    census.pools.extend(own.pools);
                }
                None => census.silent_workers += 1,
            }
        }
        census
    }

    /// Takes the requests that ended since the call before, a list of each worker that is not busy for longer than
    /// `patience`; its list comes with the next call. From the first call on workers keep up to `max` between two
    /// calls, all together; more are dropped and counted. For one reader: two would share. `spare` are lists whose
    /// memory is used again.
    pub async fn ended(
        &self,
        patience: Duration,
        max: usize,
        spare: &mut Vec<Vec<Finished>>,
    ) -> Vec<Vec<Finished>> {
        let max = max.div_ceil(self.control.workers.len().max(1));
        let mut asked = Vec::with_capacity(self.control.workers.len());
        for worker in &self.control.workers {
            let (reply, answer) = oneshot::channel();
            let mut empty = spare.pop().unwrap_or_default();
            empty.clear();
            if worker.offer(Message::Ended(AskEnded { reply, empty, max })) {
                asked.push(answer);
            }
        }
        let mut lists = Vec::with_capacity(asked.len());
        for mut answer in asked {
            let list = match tokio::time::timeout(patience, &mut answer).await {
                Ok(list) => list.ok(),
                // What was sent this very moment would be lost with the way it came by.
                Err(_) => {
                    answer.close();
                    answer.try_recv().ok()
                }
            };
            lists.extend(list);
        }
        lists
    }

    /// Begins to send finished requests; see [`crate::Proxy::events`].
    pub fn events(&self, capacity: usize) -> crossbeam_channel::Receiver<Finished> {
        let (sender, receiver) = crossbeam_channel::bounded(capacity.max(1));
        for worker in &self.control.workers {
            worker.send(Message::Events(sender.clone()));
        }
        receiver
    }

    /// Of the running snapshot.
    pub fn generation(&self) -> u64 {
        self.control.plan().generation
    }

    /// The name of an edge by its slot, if that slot's snapshot still runs.
    pub fn edge_names(&self) -> (u64, Vec<Option<Arc<config::Edge>>>) {
        let plan = self.control.plan();
        (plan.generation, plan.edges.iter().map(|it| it.as_ref().map(|edge| edge.config.clone())).collect())
    }

    /// Prometheus text, as the admin's `/stats` gives it.
    pub fn stats_text(&self) -> String {
        crate::admin::prometheus(&self.control)
    }

    /// What the proxy says of itself, for `/metrics`; what edges carry is in the series.
    pub fn families(&self) -> Vec<Family> {
        let readings: Vec<_> = self.control.workers.iter().map(|it| it.cells.readings()).collect();
        let rows = readings.first().map_or(0, Vec::len);
        let mut families: Vec<Family> = (0..rows)
            .map(|at| {
                let (name, help, gauge, _) = readings[0][at];
                let sum = readings.iter().map(|worker| worker[at].3).fold(0, u64::wrapping_add);
                let kind = if gauge { Kind::Gauge } else { Kind::Counter };
                let name = name.strip_suffix("_total").unwrap_or(name);
                Family::single(&format!("isobar_proxy_{name}"), help, kind, sum as f64)
            })
            .collect();
        let refused = crate::http1::Refusal::ALL.iter().map(|refusal| {
            let sum: u64 =
                self.control.workers.iter().map(|it| it.cells.refusals[*refusal as usize].get()).sum();
            (vec![("reason".to_owned(), refusal.name().to_owned())], sum as f64)
        });
        families.push(Family {
            name: "isobar_proxy_refused".to_owned(),
            help: "Messages refused, by reason.".to_owned(),
            kind: Kind::Counter,
            samples: refused.collect(),
        });
        let generation = self.control.plan().generation as f64;
        families.push(Family::single(
            "isobar_proxy_generation",
            "The running configuration.",
            Kind::Gauge,
            generation,
        ));
        families
    }

    /// The proxy has ended, and its numbers stand still.
    pub fn is_over(&self) -> bool {
        self.control.stopped.load(Relaxed)
    }
}
