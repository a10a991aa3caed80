//! Getting a connection to an instance: its turn first, then an idle connection, then a new one.

use crate::config::Protocol;
use crate::edge::{EdgeState, NoLane, Pick};
use crate::serve::Client;
use crate::socket::Socket;
use crate::tls::ClientSide;
use crate::upstream::{Connection, Refused};
use crate::worker::Worker;
use policy::{Deadline, Outcome};
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use units::Nanos;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoConnection {
    Failed(Outcome),
    ClientGone,
}

/// A caller that ended its side may still be reading; one that has waited this long without a turn is taken at its word.
const HALF_CLOSED_PATIENCE: Nanos = Nanos::from_millis(50);

/// A new connection, encrypted if the service wants that.
pub(crate) async fn dial(address: SocketAddr, tls: Option<&ClientSide>) -> io::Result<Socket> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    // Small writes must not wait for the peer's acknowledgement of the last one.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return Ok(Socket::plain(stream)) };
    let name = tls.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
    let stream = connector.connect(name, stream).await?;
    Ok(Socket::tls(tokio_rustls::TlsStream::Client(stream)))
}

pub(crate) async fn connect(
    worker: &Rc<Worker>,
    client: &Client,
    edge: &EdgeState,
    pick: &mut Pick,
    deadline: Deadline,
) -> Result<Connection, NoConnection> {
    let asked = pick.started;
    client.timer.set(deadline.instant());
    let left = |cx: &mut std::task::Context<'_>| {
        // Readable while a reply is due means that more requests came, or the end did. Which of the two cannot be told
        // without reading, so only a caller that is known to have ended its side is taken to have left.
        let gone = client.half_closed || matches!(client.socket.poll_readable(cx), Poll::Ready(Err(_)));
        let late = client.timer.poll(cx).is_ready();
        late || (gone && worker.now().saturating_sub(asked) > HALF_CLOSED_PATIENCE)
    };
    let cells = edge.cells();
    let plan = edge.service.plan.borrow().clone();
    let lanes_max = edge.settings().connections;
    // HTTP/2 shares its connections: there a lane would be a stream.
    if lanes_max < u32::MAX && pick.lane.is_none() && plan.config.protocol != Protocol::Http2 {
        let limits = &worker.plan().config.limits;
        let waiting_max = plan.config.queue.max.unwrap_or(u32::MAX).min(limits.pending);
        let room = (worker.share(lanes_max), worker.share(waiting_max));
        pick.lane = Some(match edge.lanes.enter(pick.instance.key, room, left).await {
            Ok(lane) => lane,
            Err(NoLane::QueueFull) => return Err(NoConnection::Failed(Outcome::Shed)),
            Err(NoLane::Left) if deadline.has_passed(worker.now()) => {
                return Err(NoConnection::Failed(Outcome::Shed));
            }
            Err(NoLane::Left) => return Err(NoConnection::ClientGone),
        });
    }
    let entered = match pick.instance.enter(worker.clock, pick.priority, deadline, left).await {
        Ok(entered) => entered,
        Err(Refused::By(_)) => return Err(NoConnection::Failed(Outcome::Shed)),
        Err(Refused::Left) if deadline.has_passed(worker.now()) => {
            return Err(NoConnection::Failed(Outcome::Shed));
        }
        Err(Refused::Left) => return Err(NoConnection::ClientGone),
    };
    pick.entered = Some(entered);
    let now = worker.now();
    pick.started = now;
    if let Some(connection) = pick.instance.take_idle(now) {
        return Ok(connection);
    }
    client.timer.set(deadline.instant().min(now + plan.config.connect_timeout));
    let slot = pick.instance.slot();
    let dial = || async {
        let socket = dial(pick.instance.address, plan.tls.as_ref()).await?;
        cells.connections_made.add(1);
        Ok::<_, io::Error>(socket)
    };
    // Making a connection is rare and its state large, so it has a place of its own.
    let connected = match plan.config.protocol {
        Protocol::Http2 => {
            // A stream goes on as a stream; what came as HTTP/1 is translated on the way.
            let direct = client.socket.stream().is_some();
            if let Some(stream) = pick.instance.sessions.stream_now(worker).filter(|_| direct) {
                return Ok(slot.connected(Socket::Stream(stream)));
            }
            client.timer.limit(Box::pin(pick.instance.sessions.open(worker, direct, dial))).await
        }
        Protocol::Http1 | Protocol::Tcp => client.timer.limit(Box::pin(dial())).await,
    };
    match connected {
        Some(Ok(socket)) => Ok(slot.connected(socket)),
        Some(Err(_)) => Err(NoConnection::Failed(Outcome::ConnectFailed)),
        None if deadline.has_passed(worker.now()) => Err(NoConnection::Failed(Outcome::Timeout)),
        None => Err(NoConnection::Failed(Outcome::ConnectFailed)),
    }
}
