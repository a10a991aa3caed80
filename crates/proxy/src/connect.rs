//! Getting a connection to an instance: its turn first, then an idle connection, then a new one.

use crate::config::Protocol;
use crate::edge::{EdgeState, NoLane, Pick};
use crate::serve::Client;
use crate::socket::Socket;
use crate::timers::Timer;
use crate::tls::ClientSide;
use crate::upstream::{Connection, Entered, Refused};
use crate::worker::Worker;
use policy::{Deadline, Outcome};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use units::Nanos;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoConnection {
    Failed(Outcome),
    ClientGone,
}

/// Who waits for a connection: until when, and how it is noticed that nobody does any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'c> {
    pub(crate) timer: &'c Timer,
    /// `None` where somebody else watches it: one of several copies of a request.
    pub(crate) socket: Option<&'c Socket>,
    /// It has said that it will send nothing more.
    pub(crate) half_closed: bool,
    /// It speaks HTTP/2, so that a stream may go on as a stream.
    pub(crate) direct: bool,
}

impl<'c> Caller<'c> {
    pub(crate) fn of(client: &'c Client) -> Self {
        Self {
            timer: &client.timer,
            socket: Some(&client.socket),
            half_closed: client.half_closed,
            direct: client.socket.stream().is_some(),
        }
    }

    /// Its connection broke.
    pub(crate) fn is_lost(&self, cx: &mut Context<'_>) -> bool {
        self.socket.is_some_and(|socket| matches!(socket.poll_readable(cx), Poll::Ready(Err(_))))
    }
}

/// A caller that ended its side may still be reading; one that has waited this long without a turn is taken at its word.
const HALF_CLOSED_PATIENCE: Nanos = Nanos::from_millis(50);

/// A new connection, encrypted if the service wants that.
pub(crate) async fn dial(
    address: SocketAddr,
    host: Option<&str>,
    tls: Option<&ClientSide>,
) -> io::Result<Socket> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    // Small writes must not wait for the peer's acknowledgement of the last one.
    let _ = stream.set_nodelay(true);
    match tls {
        None => Ok(Socket::plain(stream)),
        Some(tls) => Ok(Socket::tls(tls.connect(stream, address, host, false).await?)),
    }
}

/// Waits for a turn at the instance that was picked, as long as the instance's gate thinks that it is worth it.
async fn turn(
    worker: &Worker,
    pick: &Pick,
    deadline: Deadline,
    left: impl Fn(&mut Context<'_>) -> bool,
) -> Result<Entered, NoConnection> {
    match pick.instance.enter(worker.clock, pick.priority, deadline, left).await {
        Ok(entered) => Ok(entered),
        Err(Refused::By(_)) => Err(NoConnection::Failed(Outcome::Shed)),
        Err(Refused::Left) if deadline.has_passed(worker.now()) => Err(NoConnection::Failed(Outcome::Shed)),
        Err(Refused::Left) => Err(NoConnection::ClientGone),
    }
}

/// A turn for the rest of a request that had given its own back.
pub(crate) async fn another_turn(
    worker: &Worker,
    caller: Caller<'_>,
    pick: &mut Pick,
    deadline: Deadline,
) -> Result<(), NoConnection> {
    caller.timer.set(deadline.instant());
    let left = |cx: &mut Context<'_>| caller.is_lost(cx) || caller.timer.poll(cx).is_ready();
    let entered = turn(worker, pick, deadline, left).await?;
    pick.resume(entered, worker.now());
    Ok(())
}

pub(crate) async fn connect(
    worker: &Rc<Worker>,
    caller: Caller<'_>,
    edge: &EdgeState,
    pick: &mut Pick,
    deadline: Deadline,
) -> Result<Connection, NoConnection> {
    let asked = pick.started;
    caller.timer.set(deadline.instant());
    let left = |cx: &mut Context<'_>| {
        // Readable while a reply is due means that more requests came, or the end did. Which of the two cannot be told
        // without reading, so only a caller that is known to have ended its side is taken to have left.
        let late = caller.timer.poll(cx).is_ready();
        let gone = || caller.half_closed && worker.now().saturating_sub(asked) > HALF_CLOSED_PATIENCE;
        caller.is_lost(cx) || late || gone()
    };
    let cells = edge.cells();
    let plan = edge.service.plan.borrow().clone();
    let lanes_max = edge.settings().connections;
    // HTTP/2 shares its connections: there a lane would be a stream.
    if lanes_max < u32::MAX && pick.lane.is_none() && plan.config.protocol != Protocol::Http2 {
        let limits = &worker.plan().config.limits;
        let waiting_max = plan.config.queue.max.unwrap_or(u32::MAX).min(limits.pending);
        let room = (worker.share(lanes_max), worker.share(waiting_max));
        pick.lane = Some(match edge.lanes.enter(pick.instance.key, room, &cells.pool_waits, left).await {
            Ok(lane) => {
                // It may have waited.
                worker.now();
                lane
            }
            Err(NoLane::QueueFull) => return Err(NoConnection::Failed(Outcome::Shed)),
            Err(NoLane::Left) if deadline.has_passed(worker.now()) => {
                return Err(NoConnection::Failed(Outcome::Shed));
            }
            Err(NoLane::Left) => return Err(NoConnection::ClientGone),
        });
    }
    pick.entered = Some(turn(worker, pick, deadline, left).await?);
    let now = worker.lately();
    pick.started = now;
    if let Some(connection) = pick.instance.take_idle(now) {
        return Ok(connection);
    }
    caller.timer.set(deadline.instant().min(now + plan.config.connect_timeout));
    let slot = pick.instance.slot();
    let dial = || async {
        let socket = dial(pick.instance.address, pick.instance.host(), plan.tls.as_ref()).await?;
        cells.connections_made.add(1);
        Ok::<_, io::Error>(socket)
    };
    // Making a connection is rare and its state large, so it has a place of its own.
    let connected = match plan.config.protocol {
        Protocol::Http2 => {
            // A stream goes on as a stream; what came as HTTP/1 is translated on the way.
            let direct = caller.direct;
            if let Some(stream) = pick.instance.sessions.stream_now(worker).filter(|_| direct) {
                return Ok(slot.connected(Socket::Stream(stream)));
            }
            caller.timer.limit(Box::pin(pick.instance.sessions.open(worker, direct, dial))).await
        }
        Protocol::Http1 | Protocol::Tcp => caller.timer.limit(Box::pin(dial())).await,
    };
    match connected {
        Some(Ok(socket)) => {
            if plan.tls.is_some() {
                edge.service.tls_trouble.set(None);
            }
            Ok(slot.connected(socket))
        }
        Some(Err(error)) => {
            let trouble = crate::tls::trouble(&error);
            edge.service.tls_trouble.set(trouble);
            worker.cells.upstream_tls_failures.add(u64::from(trouble.is_some()));
            Err(NoConnection::Failed(Outcome::ConnectFailed))
        }
        None if deadline.has_passed(worker.now()) => Err(NoConnection::Failed(Outcome::Timeout)),
        None => Err(NoConnection::Failed(Outcome::ConnectFailed)),
    }
}
