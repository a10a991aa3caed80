//! The built-in load generator: it asks what the file's `traffic` says, when it says.
//!
//! Open loads are open: a request is due at its moment whether or not the one before it was answered, and its latency
//! counts from that moment. So a system that stalls for a second shows a second of slow requests and not one (the
//! mistake known as coordinated omission). What cannot be sent because too many are on their way is a failure, and is
//! counted; it is never quietly left out.

use crate::synthetic::{Ask, Client, RequestLine, Timer, Wire, local_runtime, timer_now};
use model::system::{Arrivals, Load, Shape};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use units::{Histogram, Nanos, Purpose, Rng, Sampler};

/// Requests of one traffic on their way at once.
const IN_FLIGHT_MAX: u32 = 10_000;
const ORDERS_MAX: usize = 1_024;
/// How long a user without an answer waits before giving up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One traffic, ready to run.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub name: String,
    pub to: SocketAddr,
    pub host: String,
    pub wire: Wire,
    pub line: RequestLine,
    pub load: Pattern,
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub enum Pattern {
    Open { per_second: f64, shape: Shape, arrivals: Arrivals },
    Closed { users: u32, think: Sampler },
    Recorded(Arc<[Nanos]>),
}

/// What came of a traffic so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub failed: u64,
    pub not_sent: u64,
    /// Of what went well, from the moment it was due.
    pub latency: Histogram,
}

pub type Tallies = Arc<Mutex<HashMap<String, Tally>>>;

/// The thread that makes the load.
#[derive(Clone, Debug)]
pub struct Generator {
    orders: mpsc::Sender<Order>,
    pub tallies: Tallies,
}

#[derive(Debug)]
enum Order {
    Run(Box<Traffic>),
    Stop(String),
    /// Multiplies the rate of one traffic.
    Factor(String, f64),
}

impl Pattern {
    /// `values` are the moments of a recorded load.
    pub fn of(load: &Load, values: impl FnOnce(&str) -> Result<Vec<Nanos>, String>) -> Result<Self, String> {
        Ok(match load {
            Load::Open { rate, shape, arrivals } => {
                Self::Open { per_second: rate.value.per_second(), shape: shape.clone(), arrivals: *arrivals }
            }
            Load::Closed { users, think } => {
                let think = think.sampler().map_err(|error| error.to_string())?;
                Self::Closed { users: users.value, think }
            }
            Load::Recorded { file } => Self::Recorded(values(&file.value)?.into()),
        })
    }
}

impl Generator {
    pub fn start() -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let tallies = Tallies::default();
        let shared = Arc::clone(&tallies);
        std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let Ok(runtime) = local_runtime() else { return };
            runtime.block_on(async {
                if let Ok(timer) = Timer::new() {
                    work(inbox, &timer, &shared).await;
                }
            });
        })?;
        Ok(Self { orders, tallies })
    }

    /// Starts a traffic, or starts it anew.
    pub fn run(&self, traffic: Traffic) {
        let _ = self.orders.try_send(Order::Run(Box::new(traffic)));
    }

    pub fn stop(&self, name: &str) {
        let _ = self.orders.try_send(Order::Stop(name.to_owned()));
    }

    pub fn factor(&self, name: &str, factor: f64) {
        let _ = self.orders.try_send(Order::Factor(name.to_owned(), factor));
    }

    pub fn tally(&self, name: &str) -> Tally {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }
}

struct Running {
    factor: watch::Sender<f64>,
    task: AbortHandle,
}

async fn work(mut inbox: mpsc::Receiver<Order>, timer: &Timer, tallies: &Tallies) {
    let mut running: HashMap<String, Running> = HashMap::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Run(traffic) => {
                let name = traffic.name.clone();
                let factor = watch::Sender::new(1.0);
                let source = Rc::new(Source {
                    traffic: *traffic,
                    client: Client::default(),
                    timer: timer.clone(),
                    tallies: Arc::clone(tallies),
                    in_flight: Cell::new(0),
                    luck: RefCell::new(Rng::from_seed(0)),
                });
                let task = tokio::task::spawn_local(source.run(factor.subscribe())).abort_handle();
                if let Some(before) = running.insert(name, Running { factor, task }) {
                    before.task.abort();
                }
            }
            Order::Stop(name) => {
                if let Some(it) = running.remove(&name) {
                    it.task.abort();
                }
            }
            Order::Factor(name, factor) => {
                if let Some(it) = running.get(&name) {
                    it.factor.send_replace(factor);
                }
            }
        }
    }
}

struct Source {
    traffic: Traffic,
    client: Client,
    timer: Timer,
    tallies: Tallies,
    in_flight: Cell<u32>,
    luck: RefCell<Rng>,
}

impl Source {
    async fn run(self: Rc<Self>, factor: watch::Receiver<f64>) {
        self.luck.replace(Rng::stream(self.traffic.seed, 0, Purpose::Arrival));
        let started = timer_now();
        match self.traffic.load.clone() {
            Pattern::Open { per_second, shape, arrivals } => {
                self.open(started, per_second, &shape, arrivals, factor).await;
            }
            Pattern::Closed { users, think } => {
                // All in this one task, so that they end with it.
                let users = (0..u64::from(users)).map(|user| {
                    let (source, think) = (Rc::clone(&self), think.clone());
                    async move {
                        let mut luck = Rng::stream(source.traffic.seed, user, Purpose::Think);
                        loop {
                            let pause = think.sample(&mut luck);
                            source.timer.sleep(Duration::from_nanos(pause.as_u64())).await;
                            source.ask(timer_now()).await;
                        }
                    }
                });
                let _: Vec<()> = futures_util::future::join_all(users).await;
            }
            Pattern::Recorded(moments) => {
                for moment in moments.iter() {
                    self.due(started + Duration::from_nanos(moment.as_u64())).await;
                }
            }
        }
    }

    async fn open(
        self: &Rc<Self>,
        started: Instant,
        per_second: f64,
        shape: &Shape,
        arrivals: Arrivals,
        mut factor: watch::Receiver<f64>,
    ) {
        let mut next = started;
        loop {
            let rate = rate_at(per_second, shape, next.saturating_duration_since(started))
                * *factor.borrow_and_update();
            if rate <= 0.0 {
                // Nothing is due until the rate changes.
                tokio::select! {
                    _ = factor.changed() => {}
                    () = self.timer.sleep(Duration::from_millis(100)) => {}
                }
                next = timer_now();
                continue;
            }
            let gap = match arrivals {
                Arrivals::Constant => 1.0,
                Arrivals::Poisson => -self.luck.borrow_mut().unit_open().ln(),
            };
            next += Duration::from_secs_f64((gap / rate).min(3_600.0));
            tokio::select! {
                () = self.due(next) => {}
                // A new rate takes effect at once and not after the next request of the old one.
                Ok(()) = factor.changed() => next = timer_now(),
            }
        }
    }

    /// Waits for the moment, then sends without waiting for the answer.
    async fn due(self: &Rc<Self>, at: Instant) {
        self.timer.sleep_until(at).await;
        if self.in_flight.get() >= IN_FLIGHT_MAX {
            self.count(|it| it.not_sent += 1);
            return;
        }
        let source = Rc::clone(self);
        tokio::task::spawn_local(async move { source.ask(at).await });
    }

    async fn ask(&self, due: Instant) {
        self.in_flight.set(self.in_flight.get() + 1);
        let traffic = &self.traffic;
        let filler = self.luck.borrow_mut().below(1_000);
        let path = traffic.line.path(filler);
        let context = hyper::HeaderMap::new();
        let ask = Ask {
            to: traffic.to,
            host: &traffic.host,
            wire: traffic.wire,
            line: &traffic.line,
            path: &path,
            body_bytes: 0,
            context: &context,
        };
        let answered = tokio::time::timeout(PATIENCE, self.client.ask(ask)).await;
        let took = timer_now().saturating_duration_since(due);
        self.in_flight.set(self.in_flight.get() - 1);
        self.count(|it| {
            it.sent += 1;
            match answered {
                Ok(Ok(())) => it.latency.record(Nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))),
                Ok(Err(_)) | Err(_) => it.failed += 1,
            }
        });
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        change(tallies.entry(self.traffic.name.clone()).or_default());
    }
}

/// The rate of an open load after it has run for `since`.
fn rate_at(per_second: f64, shape: &Shape, since: Duration) -> f64 {
    let seconds = since.as_secs_f64();
    match shape {
        Shape::Steady => per_second,
        Shape::Ramp { to, over } => {
            let share = if over.is_zero() { 1.0 } else { (seconds / over.as_secs_f64()).min(1.0) };
            per_second + (to.per_second() - per_second) * share
        }
        Shape::Diurnal { peak, period } => {
            let turn = if period.is_zero() { 0.0 } else { seconds / period.as_secs_f64() };
            // Lowest at the beginning, highest after half a period.
            per_second + (peak.per_second() - per_second) * (1.0 - (turn * std::f64::consts::TAU).cos()) / 2.0
        }
        Shape::Burst { to, lasting, every } => {
            let at = if every.is_zero() { 0.0 } else { seconds % every.as_secs_f64() };
            if at < lasting.as_secs_f64() { to.per_second() } else { per_second }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::Rate;

    #[test]
    fn rates_follow_their_shapes() {
        #[track_caller]
        fn check(shape: &Shape, at: u64, expected: f64) {
            let rate = rate_at(10.0, shape, Duration::from_secs(at));
            assert!((rate - expected).abs() < 1e-9, "{rate} where {expected} was expected");
        }
        let secs = Nanos::from_secs;
        let to = Rate::per_second_whole(110);
        check(&Shape::Steady, 7, 10.0);
        let ramp = Shape::Ramp { to, over: secs(100) };
        check(&ramp, 0, 10.0);
        check(&ramp, 50, 60.0);
        check(&ramp, 500, 110.0);
        let diurnal = Shape::Diurnal { peak: to, period: secs(24) };
        check(&diurnal, 0, 10.0);
        check(&diurnal, 12, 110.0);
        check(&diurnal, 24, 10.0);
        let burst = Shape::Burst { to, lasting: secs(5), every: secs(60) };
        check(&burst, 4, 110.0);
        check(&burst, 5, 10.0);
        check(&burst, 61, 110.0);
    }

    /// A server that answers nothing for a while and then everything: the stall must show in the latencies of all that
    /// were due during it.
    #[test]
    fn a_stall_is_felt_by_every_request_that_was_due_in_it() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("bound");
        let stall = Duration::from_millis(400);
        std::thread::spawn(move || {
            std::thread::sleep(stall);
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.expect("a caller");
                    let mut request = [0; 4096];
                    while stream.read(&mut request).is_ok_and(|n| n > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                    }
                });
            }
        });
        let generator = Generator::start().expect("a thread");
        generator.run(Traffic {
            name: "t".into(),
            to,
            host: "x".into(),
            wire: Wire::Http1,
            line: RequestLine::of("GET /", false),
            load: Pattern::Open { per_second: 100.0, shape: Shape::Steady, arrivals: Arrivals::Constant },
            seed: 1,
        });
        while generator.tally("t").sent < 40 {
            std::thread::yield_now();
        }
        generator.stop("t");
        let tally = generator.tally("t");
        assert_eq!((tally.failed, tally.not_sent), (0, 0));
        let slow = tally.latency.count() - tally.latency.count_at_most(Nanos::from_millis(100));
        assert!(
            slow >= 25,
            "a hundred a second were due for 400 ms, and three quarters of them waited long: {slow}"
        );
    }
}
