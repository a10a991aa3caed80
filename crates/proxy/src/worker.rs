//! What one worker thread owns. Nothing in here is shared with another worker, so nothing is locked.

use crate::buffer::BufferPool;
use crate::clock::{Clock, DateCache};
use crate::edge::EdgeState;
use crate::observe::{BreakerSeen, CallSeen, Census, InstanceSeen, PoolSeen};
use crate::plan::{Changes, ListenerPlan, Plan};
use crate::record::Finished;
use crate::stats::WorkerCells;
use crate::timers::Timers;
use crate::upstream::{Located, Places, ServiceState, located};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use units::{Nanos, Purpose, Rng};

/// Behind an `Rc` so that a request holds on to it without touching the count that all workers share.
pub(crate) type Held<T> = Rc<Arc<T>>;

/// As much as a socket usually has at once.
pub(crate) const LARGE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) clock: Clock,
    pub(crate) date: DateCache,
    pub(crate) timers: Rc<Timers>,
    pub(crate) buffers: Rc<BufferPool>,
    /// For tunnels and long replies: fewer and longer system calls.
    pub(crate) large: Rc<BufferPool>,
    pub(crate) pipes: Rc<crate::splice::Pipes>,
    pub(crate) cells: Arc<WorkerCells>,
    pub(crate) rng: RefCell<Rng>,
    plan: RefCell<Held<Plan>>,
    edges: RefCell<Vec<Option<Rc<EdgeState>>>>,
    services: RefCell<Vec<Option<Rc<ServiceState>>>>,
    /// What name servers and health checks said last, by service slot, for services not yet in use.
    located: RefCell<HashMap<u32, Vec<Located>, foldhash::fast::FixedState>>,
    unhealthy: RefCell<HashMap<(u32, SocketAddr), (), foldhash::fast::FixedState>>,
    places: Places,
    pub(crate) draining: Cell<bool>,
    pub(crate) connections: Cell<u32>,
    pub(crate) sources: RefCell<HashMap<std::net::IpAddr, u32, foldhash::fast::RandomState>>,
    pub(crate) mirrors: Cell<u32>,
    pub(crate) retries: Cell<u32>,
    /// The generation this worker runs, for whoever waits for a reload to take effect.
    applied: Arc<AtomicU64>,
    pub(crate) pressure: Arc<AtomicU64>,
    pub(crate) log: RefCell<crate::log::Batch>,
    pub(crate) events: RefCell<Vec<crossbeam_channel::Sender<Finished>>>,
    pub(crate) ended: RefCell<crate::observe::Ended>,
    /// Where this worker counts, if somebody asked for series.
    pub(crate) series: RefCell<Option<crate::series::Series>>,
}

/// A door, as one worker sees it. Connections hold it and so find the routes of the newest snapshot.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) plan: RefCell<Held<ListenerPlan>>,
    /// The door was removed or is draining: connections end after their request.
    pub(crate) closing: Cell<bool>,
    /// Tells whoever stands in it.
    pub(crate) shut: tokio::sync::Notify,
}

impl Door {
    pub(crate) fn plan(&self) -> Held<ListenerPlan> {
        self.plan.borrow().clone()
    }
}

impl Worker {
    pub(crate) fn new(
        (index, workers): (usize, usize),
        clock: Clock,
        seed: u64,
        plan: Arc<Plan>,
        cells: Arc<WorkerCells>,
        applied: Arc<AtomicU64>,
        pressure: Arc<AtomicU64>,
        log: crate::log::Batch,
        series: Option<telemetry::metrics::Registry>,
    ) -> Rc<Self> {
        let head = plan.config.limits.head_bytes.as_u64() as usize;
        applied.store(plan.generation, Relaxed);
        Rc::new(Self {
            index,
            workers,
            clock,
            date: DateCache::default(),
            timers: Timers::new(clock),
            // Room for a whole head and for some body behind it.
            large: BufferPool::new(LARGE, 32),
            pipes: Rc::default(),
            buffers: BufferPool::new(head.clamp(4 << 10, 256 << 10) + (8 << 10), 256),
            cells,
            rng: RefCell::new(Rng::stream(seed, index as u64, Purpose::Balance)),
            plan: RefCell::new(Rc::new(plan)),
            edges: RefCell::default(),
            services: RefCell::default(),
            located: RefCell::default(),
            unhealthy: RefCell::default(),
            places: Places::default(),
            draining: Cell::new(false),
            connections: Cell::new(0),
            sources: RefCell::default(),
            mirrors: Cell::new(0),
            retries: Cell::new(0),
            applied,
            pressure,
            log: RefCell::new(log),
            events: RefCell::default(),
            ended: RefCell::default(),
            series: RefCell::new(series.map(crate::series::Series::new)),
        })
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// The time of this turn, for steps that follow one which looked at the clock, with no wait in between.
    #[inline]
    pub(crate) fn lately(&self) -> Nanos {
        self.clock.lately()
    }

    #[inline]
    pub(crate) fn plan(&self) -> Held<Plan> {
        self.plan.borrow().clone()
    }

    /// A limit of the whole proxy as this worker's part of it.
    pub(crate) fn share(&self, whole: u32) -> u32 {
        whole.div_ceil(self.workers as u32)
    }

    /// Bytes of bodies that this worker may still keep for retries.
    pub(crate) fn replay_room(&self) -> u64 {
        let whole = self.plan.borrow().config.limits.replay_bytes_total.as_u64();
        whole.div_ceil(self.workers as u64).saturating_sub(self.cells.replay_bytes.get())
    }

    /// Counts a retry that waits or runs, until the guard is dropped.
    pub(crate) fn retry_in_flight(self: &Rc<Self>) -> CountGuard {
        CountGuard::new(self, |worker| &worker.retries)
    }

    pub(crate) fn mirror_in_flight(self: &Rc<Self>) -> CountGuard {
        CountGuard::new(self, |worker| &worker.mirrors)
    }

    /// The state of an edge, made when it is first used: five thousand routes cost a worker nothing until then.
    #[inline]
    pub(crate) fn edge(&self, slot: u32) -> Option<Rc<EdgeState>> {
        if let Some(Some(edge)) = self.edges.borrow().get(slot as usize) {
            return Some(edge.clone());
        }
        self.make_edge(slot)
    }

    /// Where an edge's caller stands.
    fn home(&self, plan: &Plan, edge: &crate::config::Edge) -> policy::Place {
        let node = &plan.config.node;
        let (region, zone) =
            edge.home.as_ref().map_or((&node.region, &node.zone), |it| (&it.region, &it.zone));
        self.places.place(region, zone)
    }

    #[cold]
    fn make_edge(&self, slot: u32) -> Option<Rc<EdgeState>> {
        let plan = self.plan();
        let edge_plan = plan.edges.get(slot as usize)?.clone()?;
        let service = self.service(edge_plan.service)?;
        let home = self.home(&plan, &edge_plan.config);
        let edge = EdgeState::new(edge_plan, service, home, (self.index, self.workers), None);
        put(&mut self.edges.borrow_mut(), slot, Some(edge.clone()));
        Some(edge)
    }

    pub(crate) fn service(&self, slot: u32) -> Option<Rc<ServiceState>> {
        if let Some(Some(service)) = self.services.borrow().get(slot as usize) {
            return Some(service.clone());
        }
        let plan = self.plan().services.get(slot as usize)?.clone()?;
        let service = ServiceState::new(plan);
        put(&mut self.services.borrow_mut(), slot, Some(service.clone()));
        self.locate(slot, &service);
        Some(service)
    }

    fn locate(&self, slot: u32, service: &ServiceState) {
        let known = self.located.borrow();
        let located = match known.get(&slot) {
            Some(located) => located.clone(),
            None => located(&service.plan.borrow(), &|_, _| Vec::new()),
        };
        let limits = &self.plan().config.limits;
        let gate = policy::settings::Overload {
            limit_max: self.share(limits.requests_per_instance),
            queue_max: self.share(limits.pending),
            ..policy::settings::Overload::default()
        };
        service.locate(&located, &self.places, gate, self.now());
        for (unhealthy, address) in self.unhealthy.borrow().keys() {
            if *unhealthy == slot {
                service.set_health(*address, false);
            }
        }
    }

    /// Takes over a new snapshot. Costs what changed, plus one look at each slot's address.
    pub(crate) fn swap(&self, plan: Arc<Plan>, changes: &Changes) {
        let plan = Rc::new(plan);
        *self.plan.borrow_mut() = plan.clone();
        for slot in &changes.services {
            self.located.borrow_mut().remove(slot);
            // What the health checks said stays true while the same service is checked, whoever else came or went.
            let checked = plan.services.get(*slot as usize).cloned().flatten();
            let before = self.services.borrow().get(*slot as usize).cloned().flatten();
            let same = matches!((&checked, before), (Some(new), Some(old))
                if new.config.health.is_some() && new.config.name == old.plan.borrow().config.name);
            if !same {
                self.unhealthy.borrow_mut().retain(|(service, _), ()| service != slot);
            }
            let state = self.services.borrow().get(*slot as usize).cloned().flatten();
            let Some(state) = state else { continue };
            match plan.services.get(*slot as usize).cloned().flatten() {
                Some(new) if new.config.name == state.plan.borrow().config.name => {
                    *state.plan.borrow_mut() = new;
                    self.locate(*slot, &state);
                }
                _ => {
                    state.close();
                    put(&mut self.services.borrow_mut(), *slot, None);
                }
            }
        }
        for slot in &changes.edges {
            let before = self.edges.borrow().get(*slot as usize).cloned().flatten();
            let Some(before) = before else { continue };
            let new = plan.edges.get(*slot as usize).cloned().flatten();
            let state = new.filter(|new| new.config.name == before.plan.config.name).and_then(|new| {
                let service = self.service(new.service)?;
                let home = self.home(&plan, &new.config);
                Some(EdgeState::new(new, service, home, (self.index, self.workers), Some(&before)))
            });
            put(&mut self.edges.borrow_mut(), *slot, state);
        }
        self.cells.reloads.add(1);
        self.applied.store(plan.generation, Relaxed);
    }

    /// A name server answered for a service.
    pub(crate) fn on_located(&self, slot: u32, located: Vec<Located>) {
        self.located.borrow_mut().insert(slot, located);
        if let Some(Some(service)) = self.services.borrow().get(slot as usize) {
            self.locate(slot, service);
        }
    }

    /// A health check changed its mind about an address.
    pub(crate) fn on_health(&self, slot: u32, address: SocketAddr, healthy: bool) {
        if healthy {
            self.unhealthy.borrow_mut().remove(&(slot, address));
        } else {
            self.unhealthy.borrow_mut().insert((slot, address), ());
        }
        if let Some(Some(service)) = self.services.borrow().get(slot as usize) {
            service.set_health(address, healthy);
        }
    }

    /// Regular work, twenty times a second: those who wait get their turn or their refusal, and now and then
    /// instances return from ejection, old connections are closed and the log is written.
    pub(crate) fn tick(&self, ticks: u64) {
        let now = self.now();
        let thorough = ticks.is_multiple_of(5);
        let (mut open, mut idle) = (0, 0);
        for service in self.services.borrow().iter().flatten() {
            for instance in service.instances.borrow().iter() {
                if instance.turn_due(now).is_some_and(|due| due <= now) {
                    instance.turn(now);
                }
                if thorough {
                    instance.sweep(now);
                }
                open += u64::from(instance.connections()) + instance.sessions.len() as u64;
                idle += instance.idle_len() as u64;
            }
        }
        self.cells.upstream_connections.set(open);
        self.cells.upstream_idle.set(idle);
        self.cells.buffers_lent.set((self.buffers.lent() + self.large.lent()) as u64);
        self.cells.timers.set(self.timers.len() as u64);
        if thorough {
            self.edges.borrow().iter().flatten().for_each(|edge| edge.tick(now));
            self.finish_log();
        }
    }

    pub(crate) fn finish_log(&self) {
        self.log.borrow_mut().flush(&self.cells);
    }

    /// What this worker knows about the instances of a service, as text for people and programs.
    pub(crate) fn describe(&self, slot: u32) -> Vec<InstanceReport> {
        let now = self.now();
        // Whoever asks before the first request wants to see it all the same.
        let Some(service) = self.service(slot) else { return Vec::new() };
        let (endpoints, instances) = (service.endpoints.borrow(), service.instances.borrow());
        let rows = endpoints.iter().zip(instances.iter());
        rows.map(|(endpoint, instance)| InstanceReport {
            address: instance.address,
            label: instance.label.clone(),
            version: instance.version,
            health: format!("{:?}", endpoint.health).to_ascii_lowercase(),
            ejected_for: endpoint.outlier.ejected_until().map(|until| until.saturating_sub(now)),
            verdict: endpoint.outlier.last().map(|verdict| format!("{verdict:?}")),
            in_flight: endpoint.in_flight,
            latency: endpoint.latency.peak(now),
            failure_share: endpoint.latency.failure_share(now),
            connections: instance.connections(),
            idle: instance.idle_len() as u32,
            requests: instance.requests.get(),
            failures: instance.failures.get(),
            gate: instance.gate_report(),
        })
        .collect()
    }
}

impl Worker {
    /// Every instance of every view, every edge and every pool, in short.
    pub(crate) fn census(&self) -> Census {
        let now = self.now();
        let mut instances = Vec::new();
        for service in self.services.borrow().iter().flatten() {
            let (endpoints, rows) = (service.endpoints.borrow(), service.instances.borrow());
            instances.extend(endpoints.iter().zip(rows.iter()).map(|(endpoint, row)| InstanceSeen {
                address: row.address,
                healthy: endpoint.health == policy::Health::Healthy,
                ejected: endpoint.outlier.ejected_until().is_some_and(|until| until > now),
                verdict: endpoint.outlier.last().map(|verdict| verdict.to_string()),
                in_flight: endpoint.in_flight,
                requests: row.requests.get(),
                failures: row.failures.get(),
            }));
        }
        let edges = self.edges.borrow();
        let breakers = edges.iter().flatten().filter_map(|edge| {
            Some(BreakerSeen { edge: edge.name().to_owned(), open: edge.breaker_is_open(now)? })
        });
        Census {
            instances,
            breakers: breakers.collect(),
            calls: edges.iter().flatten().map(|edge| CallSeen::of(edge, now)).collect(),
            pools: self.services.borrow().iter().flatten().map(|service| PoolSeen::of(service)).collect(),
            silent_workers: 0,
        }
    }
}

/// One instance as one worker sees it.
#[derive(Clone, Debug)]
pub(crate) struct InstanceReport {
    pub(crate) address: SocketAddr,
    pub(crate) label: String,
    pub(crate) version: u16,
    pub(crate) health: String,
    pub(crate) ejected_for: Option<Nanos>,
    pub(crate) verdict: Option<String>,
    pub(crate) in_flight: u32,
    pub(crate) latency: Option<Nanos>,
    pub(crate) failure_share: f64,
    pub(crate) connections: u32,
    pub(crate) idle: u32,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// Limit, in flight, waiting, refused.
    pub(crate) gate: (u32, u32, usize, u64),
}

/// One more of something, for as long as this lives.
#[derive(Debug)]
pub(crate) struct CountGuard {
    worker: Rc<Worker>,
    which: fn(&Worker) -> &Cell<u32>,
}

impl CountGuard {
    fn new(worker: &Rc<Worker>, which: fn(&Worker) -> &Cell<u32>) -> Self {
        which(worker).set(which(worker).get() + 1);
        Self { worker: worker.clone(), which }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        let count = (self.which)(&self.worker);
        count.set(count.get().saturating_sub(1));
    }
}

fn put<T>(slots: &mut Vec<Option<T>>, slot: u32, value: Option<T>) {
    let at = slot as usize;
    if slots.len() <= at {
        slots.resize_with(at + 1, || None);
    }
    slots[at] = value;
}
