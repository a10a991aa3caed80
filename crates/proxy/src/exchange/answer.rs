//! Replies of our own: why there is no other, what the file says, and where else to go.

use super::After;
use super::call::Call;
use crate::edge::{EdgeState, Refused};
use crate::heads::Own;
use crate::http1::{BodyReader, Method};
use crate::plan::RoutePlan;
use crate::serve::{BodyPlace, Client, Run};
use policy::Outcome;
use std::rc::Rc;

/// A reply of our own, in the making.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    pub(crate) edge: &'a str,
    pub(crate) detail: &'a str,
    pub(crate) retry_after_secs: Option<u32>,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(status: u16, error: &'static str, edge: &'a str) -> Self {
        Self { status, error, edge, detail: "", retry_after_secs: None }
    }
}

pub(crate) fn refused_answer<'e>(refused: Refused, edge: &'e EdgeState) -> Answer<'e> {
    match refused {
        Refused::NoInstance => {
            edge.cells().no_endpoint.add(1);
            Answer::new(503, "no-instance", edge.name())
        }
        Refused::NoneHealthy | Refused::AllTried => {
            edge.cells().no_endpoint.add(1);
            Answer::new(503, "no-healthy-instance", edge.name())
        }
        Refused::BreakerOpen => {
            edge.cells().breaker_refused.add(1);
            Answer { retry_after_secs: Some(1), ..Answer::new(503, "breaker-open", edge.name()) }
        }
    }
}

/// When no attempt came to an answer.
pub(crate) fn failed_answer<'e>(outcome: Outcome, edge: &'e EdgeState) -> Answer<'e> {
    match outcome {
        Outcome::ConnectFailed => match edge.service.tls_trouble.get() {
            Some(detail) => Answer { detail, ..Answer::new(503, "tls-failed", edge.name()) },
            None => Answer::new(503, "connect-failed", edge.name()),
        },
        Outcome::Timeout => Answer::new(504, "timeout", edge.name()),
        Outcome::Status(status) => Answer::new(status, "fault", edge.name()),
        Outcome::Shed => {
            edge.cells().limit_refused.add(1);
            Answer { retry_after_secs: Some(1), ..Answer::new(503, "overloaded", edge.name()) }
        }
        // A request that may be done twice was sent again. This one may have been done, and its client must know.
        Outcome::Stale => Answer {
            detail: "the connection ended after the request was sent; it may have been processed",
            ..Answer::new(502, "possibly-processed", edge.name())
        },
        _ => Answer::new(502, "connection-lost", edge.name()),
    }
}

impl Run {
    /// A reply from the file.
    pub(super) async fn direct(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: &RoutePlan,
        reply: &crate::config::Reply,
    ) -> After {
        let keep_alive = call.keep_alive && self.whole_len().is_some();
        self.reply.clear();
        self.reply.extend_from_slice(b"HTTP/1.1 ");
        crate::identity::write_decimal(u64::from(reply.status), &mut self.reply);
        self.reply.push(b' ');
        self.reply.extend_from_slice(crate::heads::reason(reply.status).as_bytes());
        self.reply.extend_from_slice(b"\r\n");
        for (name, value) in &reply.headers {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.reply.extend_from_slice(part);
            }
        }
        let date = self.date();
        self.reply.extend_from_slice(b"date: ");
        self.reply.extend_from_slice(&date);
        if reply.status != 204 && reply.status != 304 {
            self.reply.extend_from_slice(b"\r\ncontent-length: ");
            crate::identity::write_decimal(reply.body.len() as u64, &mut self.reply);
        }
        self.reply.extend_from_slice(b"\r\n");
        crate::heads::write_connection(self.request.minor, keep_alive, &mut self.reply);
        self.reply.extend_from_slice(b"\r\n");
        if self.request.method != Method::Head && reply.status != 204 && reply.status != 304 {
            self.reply.extend_from_slice(reply.body.as_bytes());
        }
        let ok = self.write_reply(client).await;
        call.conclude(&self.worker, self.asked(client), Some(route), None, reply.status, "");
        self.after_own(ok, keep_alive)
    }

    pub(super) async fn redirect(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: &RoutePlan,
        redirect: &crate::config::Redirect,
    ) -> After {
        let buffer = self.inb.filled();
        let scheme = redirect.scheme.as_deref().unwrap_or(if client.tls { "https" } else { "http" });
        let host = redirect.host.as_deref().map_or(self.request.host.get(buffer), str::as_bytes);
        let mut location = Vec::new();
        for part in [scheme.as_bytes(), b"://", host] {
            location.extend_from_slice(part);
        }
        match &redirect.path {
            Some(edit) => crate::heads::write_path(&self.request, buffer, route, edit, &mut location),
            None => location.extend_from_slice(self.request.target.get(buffer)),
        }
        let reply = crate::config::Reply {
            status: redirect.status,
            headers: vec![("location".into(), String::from_utf8_lossy(&location).into_owned())],
            body: String::new(),
        };
        self.direct(client, call, route, &reply).await
    }

    /// A reply of our own because something is wrong.
    pub(super) async fn answer(
        &mut self,
        client: &mut Client,
        call: &Call,
        route: Option<&RoutePlan>,
        edge: Option<&Rc<EdgeState>>,
        answer: Answer<'_>,
    ) -> After {
        let keep_alive = call.keep_alive && self.whole_len().is_some();
        self.reply.clear();
        let own = Own {
            status: answer.status,
            error: answer.error,
            edge: answer.edge,
            detail: answer.detail,
            retry_after_secs: answer.retry_after_secs,
            with_body: self.request.method != Method::Head,
        };
        own.write((self.request.minor, keep_alive), self.date(), &mut self.reply);
        let ok = self.write_reply(client).await;
        let slot = edge.map(|edge| (edge, edge.plan.slot));
        call.conclude(&self.worker, self.asked(client), route, slot, answer.status, answer.error);
        self.after_own(ok, keep_alive)
    }

    /// After a reply of our own: on to the next request, if this one has arrived whole.
    pub(super) fn after_own(&mut self, written: bool, keep_alive: bool) -> After {
        match self.whole_len() {
            _ if !written => After::Close,
            Some(len) if keep_alive => {
                self.inb.remove(0, len);
                After::Next
            }
            _ => After::Linger,
        }
    }

    /// Bytes of the buffer that belong to the request in progress, once all of it has arrived.
    pub(crate) fn whole_len(&self) -> Option<usize> {
        match self.body {
            BodyPlace::Streamed { whole } => return whole.then_some(self.request.len),
            BodyPlace::Buffer => {}
        }
        let mut reader = BodyReader::new(self.request.framing);
        let mut at = self.request.len;
        while !reader.is_done() {
            match reader.step(&self.inb.filled()[at.min(self.inb.len())..]) {
                Ok(step) if step.consumed > 0 => at += step.consumed,
                _ => return None,
            }
        }
        Some(at)
    }
}
