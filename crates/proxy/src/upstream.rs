//! Services as one worker knows them: their instances, what was learnt about each, and the connections kept to them.
//!
//! All of it belongs to one worker and is touched by one thread. Instances keep their identity, their connections and
//! their memory across reloads and DNS answers for as long as their address stays.

use crate::clock::Clock;
use crate::config::Address;
use crate::plan::ServicePlan;
use crate::socket::Socket;
use policy::{
    Arrival, Deadline, Endpoint, Health, Overload, Place, Refusal, Sample, Started, Ticket, Turn, settings,
};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use units::Nanos;

/// A service's instances.
#[derive(Debug)]
pub(crate) struct ServiceState {
    pub(crate) plan: RefCell<Arc<ServicePlan>>,
    /// What the policies know, by position.
    pub(crate) endpoints: RefCell<Vec<Endpoint>>,
    /// What the sockets know, by the same position.
    pub(crate) instances: RefCell<Vec<Rc<Instance>>>,
    /// Rises with every change of who is there or who is available: balancers refresh when theirs is older.
    pub(crate) generation: Cell<u64>,
    /// What was wrong with the last TLS handshake, if that is why there was no connection.
    pub(crate) tls_trouble: Cell<Option<&'static str>>,
}

/// One place where a service answers.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    /// As the configuration wrote it, for people.
    pub(crate) label: String,
    pub(crate) version: u16,
    pub(crate) key: u64,
    idle: RefCell<Vec<Idle>>,
    /// Connections that exist or are being made, idle ones included.
    connections: Cell<u32>,
    /// Who may start now, who waits and who is refused, so that an overloaded instance does what it can.
    gate: RefCell<Overload<Rc<Waiter>>>,
    pub(crate) sessions: crate::h2::Sessions,
    /// Requests served, for people.
    pub(crate) requests: Cell<u64>,
    pub(crate) failures: Cell<u64>,
    /// How long this peer was seen to keep an idle connection, when it closed one on us.
    idle_learned: Cell<Nanos>,
    closed: Cell<bool>,
}

/// A request that waits for its turn.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    waker: RefCell<Option<Waker>>,
    verdict: Cell<Option<Result<Started, Refusal>>>,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

#[derive(Debug)]
struct Idle {
    socket: Socket,
    since: Nanos,
    until: Nanos,
    served: u64,
}

/// A connection lent to one request. Dropping it closes it; giving it back keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) instance: Rc<Instance>,
    /// It has carried a request before, so it may have been closed by the peer in the meantime.
    pub(crate) reused: bool,
    pub(crate) served: u64,
    kept: bool,
    /// A stream, which carries one request.
    single_use: bool,
}

/// A place among the connections an instance may have.
#[derive(Debug)]
pub(crate) struct Slot {
    instance: Rc<Instance>,
    taken: bool,
}

impl Instance {
    fn new(address: SocketAddr, label: String, version: u16, gate: settings::Overload) -> Rc<Self> {
        Rc::new(Self {
            address,
            key: stable_key(&label),
            label,
            version,
            idle: RefCell::default(),
            connections: Cell::new(0),
            gate: RefCell::new(Overload::new(gate)),
            sessions: crate::h2::Sessions::default(),
            requests: Cell::new(0),
            failures: Cell::new(0),
            idle_learned: Cell::new(Nanos::MAX),
            closed: Cell::new(false),
        })
    }

    /// The host's name, where the configuration gives one and not an address.
    pub(crate) fn host(&self) -> Option<&str> {
        host_of(&self.label)
    }

    /// The connection used last, if one is idle and still open. The newest is the least likely to be closed by its peer.
    pub(crate) fn take_idle(self: &Rc<Self>, now: Nanos) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connection) = idle.pop() {
            let stale = connection.until <= now;
            if !stale && !connection.socket.is_readable_now() {
                return Some(Connection {
                    socket: connection.socket,
                    instance: self.clone(),
                    reused: true,
                    served: connection.served,
                    kept: false,
                    single_use: false,
                });
            }
            if !stale {
                self.learn_idle(now.saturating_sub(connection.since));
            }
            self.freed();
        }
        None
    }

    /// The peer closed an idle connection after this long: keep the next ones a little shorter.
    fn learn_idle(&self, lasted: Nanos) {
        // Less than a tenth of a second is no time-out but a restart or a race.
        if lasted >= Nanos::from_millis(100) {
            self.idle_learned.set(self.idle_learned.get().min(lasted.mul_f64(0.9)));
        }
    }

    pub(crate) fn idle_len(&self) -> usize {
        self.idle.borrow().len()
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.get()
    }

    /// A new connection's place in the count.
    pub(crate) fn slot(self: &Rc<Self>) -> Slot {
        self.connections.set(self.connections.get() + 1);
        Slot { instance: self.clone(), taken: true }
    }

    /// Asks to start a request. Usually that is granted at once; otherwise it waits, and may be refused while it does.
    pub(crate) async fn enter(
        self: &Rc<Self>,
        clock: Clock,
        priority: settings::Priority,
        deadline: Deadline,
        left: impl Fn(&mut Context<'_>) -> bool,
    ) -> Result<Entered, Refused> {
        let now = clock.lately();
        // Made only when somebody has to wait: a place in the queue needs a name.
        if let Some(started) = self.start_now(now, deadline) {
            return Ok(Entered { instance: self.clone(), started: Some(started), clock });
        }
        let waiter = Rc::new(Waiter::default());
        let ticket = match self.gate.borrow_mut().arrive(now, waiter.clone(), priority, deadline) {
            Arrival::Start(started) => {
                return Ok(Entered { instance: self.clone(), started: Some(started), clock });
            }
            Arrival::Wait(ticket) => ticket,
            Arrival::WaitInstead(ticket, gone) => {
                gone.tell(Err(Refusal::QueueFull));
                ticket
            }
            Arrival::Refuse(_, refusal) => return Err(Refused::By(refusal)),
        };
        let mut guard = WaiterGuard { instance: self, clock, waiter: &waiter, ticket: Some(ticket) };
        let verdict = poll_fn(|cx| {
            if let Some(verdict) = waiter.verdict.take() {
                // The turn begins now, whoever looks.
                clock.now();
                return Poll::Ready(Some(verdict));
            }
            // Nobody waits for the answer any more, so it must not take anybody's turn.
            if left(cx) {
                return Poll::Ready(None);
            }
            *waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        match verdict {
            None => Err(Refused::Left),
            Some(verdict) => {
                guard.ticket = None;
                let started = verdict.map_err(Refused::By)?;
                Ok(Entered { instance: self.clone(), started: Some(started), clock })
            }
        }
    }

    fn start_now(&self, now: Nanos, deadline: Deadline) -> Option<Started> {
        let mut gate = self.gate.borrow_mut();
        if gate.waiting() > 0 || gate.in_flight() >= gate.limit() {
            return None;
        }
        // An item is needed by type only: with room and nobody waiting, it comes straight back.
        match gate.arrive(now, NOBODY.with(Rc::clone), settings::Priority::default(), deadline) {
            Arrival::Start(started) => Some(started),
            _ => None,
        }
    }

    /// Lets the next ones in, and sends those away who waited too long.
    pub(crate) fn turn(&self, now: Nanos) {
        loop {
            let turn = self.gate.borrow_mut().next(now);
            match turn {
                Some(Turn::Start(waiter, started)) => waiter.tell(Ok(started)),
                Some(Turn::Refuse(waiter, refusal)) => waiter.tell(Err(refusal)),
                None => return,
            }
        }
    }

    /// When somebody who waits must be looked at again.
    pub(crate) fn turn_due(&self, now: Nanos) -> Option<Nanos> {
        let gate = self.gate.borrow();
        if gate.waiting() == 0 { None } else { gate.due(now) }
    }

    pub(crate) fn gate_report(&self) -> (u32, u32, usize, u64) {
        let gate = self.gate.borrow();
        (gate.limit(), gate.in_flight(), gate.waiting(), gate.refused())
    }

    fn freed(&self) {
        debug_assert!(self.connections.get() > 0, "a connection was freed twice: {}", self.label);
        self.connections.set(self.connections.get().saturating_sub(1));
    }

    /// Closes idle connections that are too old or that their peer has closed.
    pub(crate) fn sweep(&self, now: Nanos) {
        let mut freed = 0;
        self.idle.borrow_mut().retain(|idle| {
            let closed = idle.socket.is_readable_now();
            if closed && idle.until > now {
                self.learn_idle(now.saturating_sub(idle.since));
            }
            let keep = !closed && idle.until > now && !self.closed.get();
            freed += u32::from(!keep);
            keep
        });
        (0..freed).for_each(|_| self.freed());
    }

    /// Nobody will pick it again; idle connections go now, busy ones when they are done.
    fn close(&self) {
        self.closed.set(true);
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.iter().for_each(|_| self.freed());
    }
}

thread_local! {
    /// Stands for requests that never wait.
    static NOBODY: Rc<Waiter> = Rc::default();
}

impl Waiter {
    fn tell(&self, verdict: Result<Started, Refusal>) {
        self.verdict.set(Some(verdict));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Why a request did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    By(Refusal),
    /// Its caller left while it waited.
    Left,
}

/// Takes whoever stops waiting out of the queue; a turn that was given to it already goes to the next.
struct WaiterGuard<'w> {
    instance: &'w Instance,
    clock: Clock,
    waiter: &'w Rc<Waiter>,
    ticket: Option<Ticket>,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        match self.waiter.verdict.take() {
            Some(Ok(started)) => {
                let now = self.clock.now();
                self.instance.gate.borrow_mut().finish(now, started, Sample::Ignored);
                self.instance.turn(now);
            }
            Some(Err(_)) => {}
            None => {
                self.instance.gate.borrow_mut().cancel(ticket);
            }
        }
    }
}

/// A request in progress, as the gate counts it. Ends with [`Entered::finish`], or says nothing when dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    instance: Rc<Instance>,
    started: Option<Started>,
    clock: Clock,
}

impl Entered {
    pub(crate) fn finish(mut self, now: Nanos, sample: Sample) {
        self.end(now, sample);
    }

    fn end(&mut self, now: Nanos, sample: Sample) {
        if let Some(started) = self.started.take() {
            let waiting = {
                let mut gate = self.instance.gate.borrow_mut();
                gate.finish(now, started, sample);
                gate.waiting() > 0
            };
            if waiting {
                self.instance.turn(now);
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.started.is_some() {
            let now = self.clock.now();
            self.end(now, Sample::Ignored);
        }
    }
}

impl Slot {
    pub(crate) fn connected(mut self, socket: Socket) -> Connection {
        self.taken = false;
        let single_use = matches!(socket, Socket::Pipe(_) | Socket::Stream(_));
        Connection {
            socket,
            instance: self.instance.clone(),
            reused: false,
            served: 0,
            kept: false,
            single_use,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.taken {
            self.instance.freed();
        }
    }
}

impl Connection {
    /// Keeps the connection for the next request. `promised` is what the peer said about how long it will.
    pub(crate) fn keep(mut self, now: Nanos, idle_timeout: Nanos, promised: Option<u32>) {
        let mut lasts = idle_timeout.min(self.instance.idle_learned.get());
        if let Some(promised) = promised {
            // A second earlier than the peer, or half of what it promises if that is less.
            let promised = Nanos::from_secs(u64::from(promised));
            lasts = lasts.min(promised.saturating_sub(Nanos::from_secs(1)).max(promised / 2));
        }
        if self.single_use || self.instance.closed.get() || lasts.is_zero() {
            return;
        }
        self.kept = true;
        let socket = std::mem::replace(&mut self.socket, Socket::Closed);
        let idle = Idle { socket, since: now, until: now + lasts, served: self.served + 1 };
        self.instance.idle.borrow_mut().push(idle);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.kept {
            self.instance.freed();
        }
    }
}

/// Places of an instance's name in rings and tables: the same in every worker and every proxy.
pub(crate) fn stable_key(name: &str) -> u64 {
    stable_hash(name.as_bytes())
}

/// The same everywhere and for ever: requests must meet at one instance whichever proxy they come through.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    // FNV-1a, finished with one round of splitmix64 because the balancer wants all bits to count.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

/// One address a service's configuration or a name server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) address: SocketAddr,
    pub(crate) label: String,
    pub(crate) version: u16,
    pub(crate) weight: u32,
    pub(crate) place: (String, String),
}

/// The endpoints of a service's configuration that need no name server, and those resolved so far.
pub(crate) fn located(plan: &ServicePlan, resolved: &dyn Fn(&str, u16) -> Vec<SocketAddr>) -> Vec<Located> {
    let mut all = Vec::new();
    for endpoint in &plan.config.endpoints {
        let version = plan.versions.binary_search(&endpoint.version).unwrap_or(0) as u16;
        let place = (endpoint.region.clone(), endpoint.zone.clone());
        let mut push = |address: SocketAddr, label: String| {
            all.push(Located { address, label, version, weight: endpoint.weight, place: place.clone() });
        };
        match &endpoint.address {
            Address::Ip(address) => push(*address, address.to_string()),
            Address::Name(name, port) => {
                for address in resolved(name, *port) {
                    push(address, format!("{name}:{port} ({address})"));
                }
            }
        }
    }
    all
}

/// The name in an instance's label, as [`located`] writes it.
pub(crate) fn host_of(label: &str) -> Option<&str> {
    let (name, _) = label.strip_suffix(')')?.split_once(':')?;
    Some(name)
}

impl ServiceState {
    pub(crate) fn new(plan: Arc<ServicePlan>) -> Rc<Self> {
        Rc::new(Self {
            plan: RefCell::new(plan),
            endpoints: RefCell::default(),
            instances: RefCell::default(),
            generation: Cell::new(0),
            tls_trouble: Cell::new(None),
        })
    }

    pub(crate) fn changed(&self) {
        self.generation.set(self.generation.get() + 1);
    }

    /// Takes over a new list of instances. Those with the same address and version keep everything.
    pub(crate) fn locate(&self, located: &[Located], places: &Places, gate: settings::Overload, now: Nanos) {
        let (mut endpoints, mut instances) = (self.endpoints.borrow_mut(), self.instances.borrow_mut());
        let first_time = instances.is_empty();
        let mut old: Vec<(Endpoint, Rc<Instance>)> = endpoints.drain(..).zip(instances.drain(..)).collect();
        for place in located {
            let known = old.iter().position(|(_, instance)| {
                instance.address == place.address && instance.version == place.version
            });
            let (mut endpoint, instance) = match known {
                Some(at) => old.swap_remove(at),
                None => {
                    let instance = Instance::new(place.address, place.label.clone(), place.version, gate);
                    let mut endpoint = Endpoint::new(instance.key, Place::default());
                    endpoint.joined = (!first_time).then_some(now);
                    (endpoint, instance)
                }
            };
            endpoint.weight = place.weight;
            endpoint.version = place.version;
            endpoint.place = places.place(&place.place.0, &place.place.1);
            endpoints.push(endpoint);
            instances.push(instance);
        }
        old.iter().for_each(|(_, gone)| gone.close());
        drop((endpoints, instances));
        self.changed();
    }

    /// Where an instance is now; its position may have changed while a request was on its way.
    #[inline]
    pub(crate) fn position(&self, instance: &Rc<Instance>, hint: usize) -> Option<usize> {
        let instances = self.instances.borrow();
        if instances.get(hint).is_some_and(|it| Rc::ptr_eq(it, instance)) {
            return Some(hint);
        }
        instances.iter().position(|it| Rc::ptr_eq(it, instance))
    }

    pub(crate) fn set_health(&self, address: SocketAddr, healthy: bool) {
        let mut changed = false;
        let instances = self.instances.borrow();
        for (endpoint, instance) in self.endpoints.borrow_mut().iter_mut().zip(instances.iter()) {
            if instance.address == address {
                let health = if healthy { Health::Healthy } else { Health::Unhealthy };
                changed |= endpoint.health != health;
                endpoint.health = health;
                if healthy {
                    // A passing check ends an ejection: whoever made the check looked more closely than we did.
                    changed |= policy::eject::on_check_passed(endpoint);
                }
            }
        }
        if changed {
            self.changed();
        }
    }

    pub(crate) fn close(&self) {
        self.instances.borrow().iter().for_each(|instance| instance.close());
    }
}

/// Small numbers for regions and zones, handed out as they are met.
#[derive(Debug, Default)]
pub(crate) struct Places {
    names: RefCell<Vec<(String, Option<String>)>>,
}

impl Places {
    pub(crate) fn place(&self, region: &str, zone: &str) -> Place {
        let mut names = self.names.borrow_mut();
        let mut number = |key: (String, Option<String>)| {
            let at = names.iter().position(|known| *known == key).unwrap_or_else(|| {
                names.push(key);
                names.len() - 1
            });
            at as u16
        };
        let zone = number((region.to_owned(), Some(zone.to_owned())));
        let region = number((region.to_owned(), None));
        Place { region, zone }
    }
}
