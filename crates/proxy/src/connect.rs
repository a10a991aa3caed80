//! Getting a connection to an instance: its turn first, then an idle connection, then a new one.

use crate::edge::{EdgeState, Pick};
use crate::serve::Client;
use crate::socket::Socket;
use crate::upstream::{Connection, Refused};
use crate::worker::Worker;
use policy::{Deadline, Outcome};
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
    let priority = edge.settings().priority;
    let cells = edge.cells();
    let entered = match pick.instance.enter(worker.clock, priority, deadline, left).await {
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
    let timeout = edge.service.plan.borrow().config.connect_timeout;
    client.timer.set(deadline.instant().min(now + timeout));
    let slot = pick.instance.slot();
    let connecting = tokio::net::TcpStream::connect(pick.instance.address);
    match client.timer.limit(connecting).await {
        Some(Ok(stream)) => {
            // Small writes must not wait for the peer's acknowledgement of the last one.
            let _ = stream.set_nodelay(true);
            cells.connections_made.add(1);
            Ok(slot.connected(Socket::plain(stream)))
        }
        Some(Err(_)) => Err(NoConnection::Failed(Outcome::ConnectFailed)),
        None if deadline.has_passed(worker.now()) => Err(NoConnection::Failed(Outcome::Timeout)),
        None => Err(NoConnection::Failed(Outcome::ConnectFailed)),
    }
}
