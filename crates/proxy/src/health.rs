//! Active health checks: one per instance, whoever routes to it, made by the control side's thread.
//!
//! Workers hear only of changes. What a check means is the policy crate's; here are the three ways to ask.

use crate::config::{HealthCheck, HealthKind};
use crate::control::Resolver;
use crate::engine::{Control, Message};
use crate::http1::{HeadLimits, Method, Progress, ResponseHead, parse_response};
use crate::log::Level;
use crate::tls::ClientSide;
use crate::upstream::{host_of, located};
use hashbrown::HashMap;
use policy::health::{Answer, Check, Checker};
use policy::settings;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the checks found, for people.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<HashMap<(u32, SocketAddr), Standing, foldhash::fast::FixedState>>);

#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) passing: bool,
    pub(crate) last: &'static str,
    pub(crate) probes: u64,
}

impl Board {
    fn set(&self, key: (u32, SocketAddr), passing: bool, last: &'static str) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = board.entry(key).or_insert(Standing { passing, last, probes: 0 });
        standing.passing = passing;
        standing.last = last;
        standing.probes += 1;
    }

    fn remove(&self, key: (u32, SocketAddr)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    pub(crate) fn get(&self, key: (u32, SocketAddr)) -> Option<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

/// The checks that run, each a task.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    running:
        HashMap<(u32, SocketAddr), (HealthCheck, tokio::task::JoinHandle<()>), foldhash::fast::FixedState>,
}

impl Checks {
    /// Starts the checks that are wanted and not running, and ends those that are not wanted any more.
    pub(crate) fn refresh(&mut self, control: &Arc<Control>, resolver: &Resolver) {
        let plan = control.plan();
        let mut wanted =
            HashMap::<(u32, SocketAddr), (HealthCheck, String), foldhash::fast::FixedState>::default();
        for (slot, service) in plan.services.iter().enumerate() {
            let Some(service) = service else { continue };
            let Some(check) = &service.config.health else { continue };
            for place in located(service, &|name, port| resolver.addresses(name, port)) {
                wanted.insert((slot as u32, place.address), (check.clone(), place.label));
            }
        }
        self.running.retain(|key, (check, task)| {
            let keep = wanted.get(key).is_some_and(|(wanted, _)| wanted == check);
            if !keep {
                task.abort();
                control.health.remove(*key);
            }
            keep
        });
        for (key, (check, label)) in wanted {
            if !self.running.contains_key(&key) {
                let task = tokio::task::spawn_local(watch(control.clone(), key, label, check.clone()));
                self.running.insert(key, (check, task));
            }
        }
    }
}

/// Asks one instance again and again.
async fn watch(control: Arc<Control>, key: (u32, SocketAddr), label: String, check: HealthCheck) {
    let tell = |healthy: bool| {
        for worker in &control.workers {
            worker.send(Message::Health { service: key.0, address: key.1, healthy });
        }
    };
    // Not known to be well is not well; if nobody is, the balancer's panic uses everybody.
    tell(false);
    let rule = settings::HealthCheck { rise: check.healthy_after, fall: check.unhealthy_after };
    let mut checker = Checker::default();
    let timeout = Duration::from(check.timeout);
    let mut told_generation = control.plan().generation;
    // Checks of many instances must not march in step.
    let phase = (crate::upstream::stable_key(&key.1.to_string()) % 1_000) as u32;
    let mut first = true;
    loop {
        // As it is now: its files may have been read again.
        let service = control.plan().services.get(key.0 as usize).cloned().flatten();
        let tls = service.as_ref().and_then(|it| it.tls.as_ref());
        let answer = tokio::time::timeout(timeout, ask(key.1, host_of(&label), tls, &check.kind)).await;
        let (answer, why) = answer.unwrap_or((Answer::Silent, "no answer in time"));
        let changed = checker.on_answer(&rule, answer);
        let passing = checker.check() == Check::Passing;
        control.health.set(key, passing, why);
        if changed.is_some() {
            let place = control
                .plan()
                .services
                .get(key.0 as usize)
                .and_then(Option::as_ref)
                .map(|it| it.config.name.clone());
            let (place, now) = (place.unwrap_or_default(), if passing { "healthy" } else { "unhealthy" });
            control.voice.say(Level::Info, format_args!("{} of `{place}` is {now}: {why}", key.1));
        }
        // After a reload workers may have begun anew with what they know of a service.
        let generation = control.plan().generation;
        if changed.is_some() || generation != told_generation {
            told_generation = generation;
            tell(passing);
        }
        let interval = Duration::from(check.interval);
        let wait = if first { interval * phase / 1_000 } else { interval };
        first = false;
        tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
    }
}

/// Over TLS where the service is spoken to in that way: an instance whose certificate is wrong serves nobody.
async fn ask(
    address: SocketAddr,
    host: Option<&str>,
    tls: Option<&ClientSide>,
    kind: &HealthKind,
) -> (Answer, &'static str) {
    let Ok(stream) = TcpStream::connect(address).await else { return (Answer::Silent, "no connection") };
    let Some(tls) = tls else { return ask_over(stream, address, kind).await };
    let over_http1 = matches!(kind, HealthKind::Http { .. });
    match tls.connect(stream, address, host, over_http1).await {
        Ok(stream) => ask_over(stream, address, kind).await,
        Err(error) => (Answer::Silent, crate::tls::trouble(&error).unwrap_or("the handshake broke off")),
    }
}

async fn ask_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    address: SocketAddr,
    kind: &HealthKind,
) -> (Answer, &'static str) {
    match kind {
        HealthKind::Tcp => (Answer::Pass, "connected"),
        HealthKind::Http { path, host, status_min, status_max } => {
            let host = if host.is_empty() { address.to_string() } else { host.clone() };
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: isobar-health\r\nconnection: close\r\n\r\n"
            );
            if stream.write_all(request.as_bytes()).await.is_err() {
                return (Answer::Silent, "connection lost");
            }
            match read_status(&mut stream).await {
                Some(status) if (*status_min..=*status_max).contains(&status) => {
                    (Answer::Pass, "status as expected")
                }
                Some(_) => (Answer::Bad, "another status"),
                None => (Answer::Silent, "no readable answer"),
            }
        }
        HealthKind::Grpc { service } => crate::grpc_health::ask(stream, address, service).await,
    }
}

/// The status of a reply. Its head is bounded like any other: a health endpoint may be hostile, too.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let (limits, mut head) = (HeadLimits::default(), ResponseHead::default());
    let mut buffer = Vec::with_capacity(1 << 10);
    loop {
        let mut piece = [0; 1 << 10];
        let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&piece[..read]);
        match parse_response(&buffer, &limits, Method::Get, &mut head) {
            Ok(Progress::Complete) if head.status >= 200 => return Some(head.status),
            Ok(Progress::Complete) => drop(buffer.drain(..head.len)),
            Ok(Progress::Partial) => {}
            Err(_) => return None,
        }
    }
}
