//! Services that nobody has written yet, played for real.
//!
//! A service without `run` listens on a real socket, takes as long as its law says in real time, calls what its script
//! says through its own doors, fails as often as it should and refuses when its queue is full. Whoever calls it cannot
//! tell the difference, so a system can be run before it is written and its parts replaced by real code one at a time.
//!
//! All instances share one thread and one allocator, yet each can be stopped, killed, frozen, slowed or made to fail
//! alone: a [`Host`] is a process table for instances that are tasks. Work is waiting, not computing, unless the file says
//! `burn`; thousands of requests in progress cost no CPU.

mod answer;
mod behaviour;
mod burn;
mod call;
mod gate;
mod instance;
mod state;
mod timer;

pub use behaviour::{Behaviour, Call, Operation, RequestLine, Step, Wire, wire};
pub(crate) use call::{Ask, Client};
pub use instance::{Identity, Trouble};
pub(crate) use timer::{Timer, now as timer_now};

use crate::supervisor::{Exit, Key};
use burn::Burner;
use instance::{Ending, Instance};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The name of the thread that plays them all.
pub const SYNTHETIC_THREAD: &str = "synthetic";
/// And of those that compute for it.
pub const SYNTHETIC_THREADS: [&str; 2] = [SYNTHETIC_THREAD, burn::BURN_THREAD];
/// Orders on their way to the thread. Orders are rare; this many at once means that it hangs.
const ORDERS_MAX: usize = 4_096;

/// What an instance tells its supervisor.
#[derive(Debug)]
pub enum Told {
    Started,
    Failed(String),
    Exited(Exit),
    Line(String),
}

/// The thread that plays synthetic instances.
#[derive(Clone, Debug)]
pub struct Host {
    orders: mpsc::Sender<Order>,
}

/// Everything one instance needs.
#[derive(Debug)]
pub struct Start {
    pub identity: Identity,
    pub behaviour: Arc<Behaviour>,
    /// Already bound, so that its port was never anybody else's in between.
    pub listener: std::net::TcpListener,
    /// Where to call each service it calls: its own doors.
    pub addresses: BTreeMap<String, SocketAddr>,
}

#[derive(Debug)]
enum Order {
    Start(Box<Start>),
    End(Key, Ending),
    Trouble(Key, Trouble),
    Flush(Key),
}

impl Host {
    /// Starts the thread. `tell` is called on it, so it must be quick.
    pub fn start(seed: u64, tell: impl Fn(Key, Told) + Send + 'static) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name(SYNTHETIC_THREAD.to_owned()).spawn(move || {
            match local_runtime() {
                Ok(runtime) => runtime.block_on(async {
                    match Timer::new() {
                        Ok(timer) => {
                            let _ = ready.send(Ok(()));
                            play(inbox, timer, seed, Rc::new(tell)).await;
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                }),
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        started
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread of synthetic services ended")))?;
        Ok(Self { orders })
    }

    pub fn begin(&self, start: Start) {
        self.order(Order::Start(Box::new(start)));
    }

    /// Finish what there is and go.
    pub fn stop(&self, key: Key) {
        self.order(Order::End(key, Ending::Stopping));
    }

    /// Go now, in the middle of every answer.
    pub fn kill(&self, key: Key) {
        self.order(Order::End(key, Ending::Killed));
    }

    pub fn trouble(&self, key: Key, trouble: Trouble) {
        self.order(Order::Trouble(key, trouble));
    }

    pub fn flush(&self, key: Key) {
        self.order(Order::Flush(key));
    }

    fn order(&self, order: Order) {
        // Only a thread that ended refuses, and with it everything an order could be about.
        let _ = self.orders.try_send(order);
    }
}

async fn play(mut inbox: mpsc::Receiver<Order>, timer: Timer, seed: u64, tell: Rc<dyn Fn(Key, Told)>) {
    let mut instances: HashMap<Key, Rc<Instance>> = HashMap::new();
    let burner = Rc::new(Burner::default());
    let (gone, mut ended) = mpsc::channel::<Key>(ORDERS_MAX);
    let log: instance::Log = {
        let tell = Rc::clone(&tell);
        Rc::new(move |key, line: &str| tell(key, Told::Line(line.to_owned())))
    };
    loop {
        let order = tokio::select! {
            order = inbox.recv() => order,
            key = ended.recv() => {
                key.and_then(|key| instances.remove(&key));
                continue;
            }
        };
        let Some(order) = order else { return };
        match order {
            Order::Start(start) => {
                let key = start.identity.key;
                let listener = start.listener;
                let listener =
                    listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
                let listener = match listener {
                    Ok(listener) => listener,
                    Err(error) => {
                        tell(key, Told::Failed(error.to_string()));
                        continue;
                    }
                };
                let instance = Instance::new(
                    start.identity,
                    start.behaviour,
                    start.addresses,
                    (timer.clone(), Rc::clone(&burner)),
                    seed,
                    Rc::clone(&log),
                );
                instances.insert(key, Rc::clone(&instance));
                let (tell, gone) = (Rc::clone(&tell), gone.clone());
                tokio::task::spawn_local(async move {
                    tell(key, Told::Started);
                    let exit = instance.run(listener).await;
                    let _ = gone.send(key).await;
                    tell(key, Told::Exited(exit));
                });
            }
            Order::End(key, ending) => {
                if let Some(instance) = instances.get(&key) {
                    instance.end(ending);
                }
            }
            Order::Trouble(key, trouble) => {
                if let Some(instance) = instances.get(&key) {
                    instance.set_trouble(trouble);
                }
            }
            Order::Flush(key) => {
                if let Some(instance) = instances.get(&key) {
                    instance.flush();
                }
            }
        }
    }
}

/// One thread, tasks that need not be `Send`.
pub(crate) fn local_runtime() -> std::io::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
}

#[cfg(test)]
mod tests;
