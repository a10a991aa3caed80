//! One line of JSON for each request that is logged.

use crate::edge::EdgeState;
use crate::exchange::{Asked, Call};
use crate::http1::Kind;
use crate::identity::{hex_32, write_decimal};
use crate::log::write_json_string;
use crate::worker::Worker;
use units::Nanos;

pub(crate) fn line(
    worker: &Worker,
    asked: Asked<'_>,
    call: &Call,
    edge: Option<&EdgeState>,
    status: u16,
    duration: Nanos,
    error: &'static str,
) {
    let plan = worker.plan();
    let Some(settings) = &plan.config.access_log else { return };
    let share = settings.share.fraction();
    // Failures are always worth a line.
    if status < 500 && status != 0 && share < 1.0 && !worker.rng.borrow_mut().chance(share) {
        return;
    }
    let buffer = asked.buffer;
    worker.log.borrow_mut().line(&worker.cells, |out| {
        let text = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            write_json_string(value, out);
        };
        let number = |out: &mut Vec<u8>, name: &str, value: u64| {
            out.extend_from_slice(name.as_bytes());
            write_decimal(value, out);
        };
        number(out, "{\"time_unix_us\":", worker.clock.unix(call.started).0 / 1_000);
        text(out, ",\"listener\":", asked.door.name.as_bytes());
        out.extend_from_slice(b",\"client\":\"");
        crate::heads::write_ip(asked.peer.ip(), out);
        text(out, "\",\"method\":", asked.head.method_text.get(buffer));
        text(out, ",\"host\":", asked.head.host.get(buffer));
        text(out, ",\"path\":", asked.head.path(buffer));
        match call.grpc {
            None => number(out, ",\"status\":", u64::from(status)),
            Some(code) => {
                number(out, ",\"status\":200,\"grpc_status\":", u64::from(code));
            }
        }
        number(out, ",\"duration_us\":", duration.0 / 1_000);
        number(out, ",\"upstream_us\":", call.upstream.0 / 1_000);
        number(out, ",\"attempts\":", u64::from(call.attempts));
        number(out, ",\"request_bytes\":", call.request_bytes);
        number(out, ",\"response_bytes\":", call.response_bytes);
        if let Some(edge) = edge {
            text(out, ",\"edge\":", edge.name().as_bytes());
        }
        if let Some((address, _)) = call.instance {
            out.extend_from_slice(b",\"instance\":\"");
            crate::heads::write_ip(address.ip(), out);
            number(out, ":", u64::from(address.port()));
            out.push(b'"');
        }
        if !error.is_empty() {
            text(out, ",\"error\":", error.as_bytes());
        }
        let id = match &call.request_id {
            Some(id) => &id[..],
            None => asked.head.find(Kind::RequestId, buffer).unwrap_or_default(),
        };
        text(out, ",\"request_id\":", id);
        text(out, ",\"trace_id\":", &hex_32(call.trace.id));
        out.push(b'}');
    });
}
