//! A copy of a request, sent to another place and forgotten. It never delays the original, and there are never more of
//! them than a limit allows; what does not fit is dropped and counted.

use crate::connect::Caller;
use crate::edge::{EdgeState, Pick};
use crate::exchange::{Asked, Call};
use crate::heads::write_request;
use crate::http1::{BodyReader, Framing, HeadLimits, Method, Progress, ResponseHead, parse_response};
use crate::plan::RoutePlan;
use crate::worker::Worker;
use policy::{Ask, Deadline, Outcome};
use std::future::poll_fn;
use std::rc::Rc;
use units::Nanos;

/// A mirror that takes longer is not worth its memory.
const MIRROR_TIMEOUT: Nanos = Nanos::from_secs(10);

/// Sends a copy on its way if this request is one to be mirrored. One whose body has not arrived whole is not.
pub(crate) fn mirror(
    worker: &Rc<Worker>,
    asked: Asked<'_>,
    route: &RoutePlan,
    call: &Call,
    body: Option<&[u8]>,
) {
    let (Some(slot), Some(mirror)) = (route.mirror_edge, &route.route.mirror) else { return };
    if !worker.rng.borrow_mut().chance(mirror.share.fraction()) {
        return;
    }
    let Some(edge) = worker.edge(slot) else { return };
    let plan = worker.plan();
    let room = worker.mirrors.get() < worker.share(plan.config.limits.mirrors_in_flight);
    let Some(body) = body.filter(|_| room) else {
        edge.cells().mirror_dropped.add(1);
        return;
    };
    let span = worker.rng.borrow_mut().next_u64() | 1;
    let passport = call.passport(asked, span, Deadline::NEVER, 0, &plan.config.node.name);
    let mut message = Vec::with_capacity(1 << 10);
    write_request(asked.head, asked.buffer, route, &passport, call.started, &mut message);
    // The body as it came: a whole chunked body is as good as new.
    message.extend_from_slice(body);
    edge.cells().mirrored.add(1);
    let method = asked.head.method;
    let guard = worker.mirror_in_flight();
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let _guard = guard;
        let now = worker.now();
        let picked = edge.pick(&Ask { now, ..Ask::default() }, &mut worker.rng.borrow_mut());
        let Ok(mut pick) = picked else { return };
        let limit = std::time::Duration::from(MIRROR_TIMEOUT);
        let sent = tokio::time::timeout(limit, send(&worker, &edge, &mut pick, &message, method)).await;
        let now = worker.now();
        let elapsed = now.saturating_sub(pick.started);
        let outcome = match sent {
            Ok(Some(status)) => Outcome::Status(status),
            Ok(None) => Outcome::Reset,
            Err(_) => Outcome::Timeout,
        };
        edge.cells().classes
            [crate::stats::class_of(if let Outcome::Status(status) = outcome { status } else { 0 })]
        .add(1);
        edge.finish(pick, outcome, elapsed, None, now);
    });
}

/// One exchange whose reply nobody reads.
async fn send(
    worker: &Rc<Worker>,
    edge: &EdgeState,
    pick: &mut Pick,
    message: &[u8],
    method: Method,
) -> Option<u16> {
    let timer = worker.timers.timer();
    let caller = Caller { timer: &timer, socket: None, half_closed: false, direct: false };
    let deadline = Deadline::within(worker.now(), MIRROR_TIMEOUT);
    // As any other request, whatever its instance speaks and however busy it is.
    let connection = crate::connect::connect(worker, caller, edge, pick, deadline).await.ok()?;
    let mut written = 0;
    while written < message.len() {
        written += poll_fn(|cx| connection.socket.poll_write(cx, &message[written..]))
            .await
            .ok()
            .filter(|n| *n > 0)?;
    }
    let mut buffer = worker.buffers.take();
    let (mut head, limits) = (ResponseHead::default(), HeadLimits::default());
    loop {
        let read = poll_fn(|cx| connection.socket.poll_read(cx, buffer.space()))
            .await
            .ok()
            .filter(|read| *read > 0)?;
        buffer.advance(read);
        match parse_response(buffer.filled(), &limits, method, &mut head).ok()? {
            Progress::Complete if head.status >= 200 => break,
            Progress::Complete => buffer.remove(0, head.len),
            Progress::Partial => {}
        }
    }
    let status = head.status;
    buffer.remove(0, head.len);
    let mut reader = BodyReader::new(head.framing);
    while !reader.is_done() {
        let step = reader.step(buffer.filled()).ok()?;
        buffer.remove(0, step.consumed);
        if step.consumed == 0 && !step.done {
            let read = poll_fn(|cx| connection.socket.poll_read(cx, buffer.space())).await.ok()?;
            if read == 0 {
                return reader.end_of_stream().then_some(status);
            }
            buffer.advance(read);
        }
    }
    if head.keep_alive && buffer.is_empty() && head.framing != Framing::UntilClose {
        connection.keep(worker.now(), Nanos::from_secs(30), head.keep_alive_secs);
    }
    Some(status)
}
