//! The API and the map: served on a thread of their own from what the loop publishes, so that a page that asks too much
//! never slows the supervisor.

use super::{Inner, RunError, Runner, io, slot};
use crate::state::{Found, HoldError};
use control::admit;
use control::api::{Api, Request};
use control::doors::Doors;
use control::observed;
use control::page::LogLine;
use control::status::Address;
use control::watch::watch as watch_over;
use control::web;
use std::sync::Arc;
use tokio::sync::mpsc;
use units::Nanos;

impl Runner {
    pub(super) fn serve_api(
        &mut self,
        wishes: mpsc::Sender<Request>,
        changed: Arc<tokio::sync::Notify>,
    ) -> Result<(), RunError> {
        let listener = self.ports.bind("api")?;
        let address = listener.local_addr().map_err(io("cannot open the API"))?;
        let token = random_token().map_err(io("cannot make a token"))?;
        let started = self.started;
        let (read_only, watched) = (self.options.read_only, Arc::clone(&self.watched));
        let gate = Arc::new(admit::Gate::new(token.clone(), read_only, watched, random_token));
        let api = Api {
            requests: wishes,
            status: self.status.subscribe(),
            history: Arc::clone(&self.history),
            changes: self.changes.clone(),
            registry: Arc::clone(&self.registry),
            registry_changed: changed,
            gate: Arc::clone(&gate),
            now: Arc::new(move || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))),
        };
        listener.set_nonblocking(true).map_err(io("cannot open the API"))?;
        let (doors, telemetry_addresses) = self.open_telemetry_doors()?;
        let watched = Arc::clone(&self.watched);
        let watching = watch_over(Arc::clone(&watched), self.maps.subscribe(), self.status.subscribe());
        let told = {
            let inbox = self.inbox.clone();
            // A line may be lost in a flood of them; the history has it.
            observed::tell(api.clone(), Arc::clone(&watched), move |line| {
                drop(inbox.try_send(Inner::Alert(line)))
            })
        };
        let marker = self.marker.as_ref().map(|it| it.address);
        let router = web::router(api, Arc::clone(&watched), self.options.page, self.logs_reader());
        let router = admit::guard(router, gate);
        // A thread each, and one runtime on it: workers that share one wake each other for every request, which costs more
        // than most answers. What applications send in floods delays neither an answer nor a frame of numbers.
        on_its_own("api", async move {
            if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                let _ = axum::serve(listener, router).await;
            }
        })?;
        let shared = Doors::new(Arc::clone(&watched));
        on_its_own("doors", async move {
            let listeners = doors.into_iter().filter_map(|it| tokio::net::TcpListener::from_std(it).ok());
            futures_util::future::join_all(listeners.map(|it| Arc::clone(&shared).serve(it))).await;
        })?;
        on_its_own("watch", async move {
            tokio::spawn(told);
            if let Some(door) = marker {
                tokio::spawn(control::marker::send(watched, door));
            }
            watching.await;
        })?;
        let url = format!("http://{address}");
        self.addresses.push(Address {
            kind: "api".to_owned(),
            name: "api".to_owned(),
            url: url.clone(),
            note: None,
        });
        self.addresses.push(Address {
            kind: "map".to_owned(),
            name: "map".to_owned(),
            url: format!("{url}/"),
            note: None,
        });
        self.addresses.extend(telemetry_addresses);
        let found = Found {
            name: self.options.name.clone(),
            system: self.system.name.clone(),
            file: std::path::absolute(&self.options.file).unwrap_or_else(|_| self.options.file.clone()),
            pid: std::process::id(),
            api: url,
            token,
        };
        let failed = |error| HoldError::Io { path: self.folder.path().to_owned(), error };
        self.folder.publish(&found).map_err(failed)?;
        self.found = Some(found);
        Ok(())
    }

    /// Where applications send their telemetry, and where others' tools read ours.
    fn open_telemetry_doors(&mut self) -> Result<(Vec<std::net::TcpListener>, Vec<Address>), RunError> {
        let what = "cannot open the doors for telemetry";
        let (mut doors, mut addresses) = (Vec::new(), Vec::new());
        for kind in ["zipkin", "otlp"] {
            let listener = self.ports.bind(kind)?;
            listener.set_nonblocking(true).map_err(io(what))?;
            let url = format!("http://{}", listener.local_addr().map_err(io(what))?);
            addresses.push(Address { kind: kind.to_owned(), name: kind.to_owned(), url, note: None });
            doors.push(listener);
        }
        Ok((doors, addresses))
    }

    /// For a service's page: the newest lines of its instances.
    pub(super) fn logs_reader(&self) -> Arc<web::Logs> {
        let folder = self.folder.logs();
        Arc::new(move |service, max| {
            let line = |it: crate::logs::Record| LogLine {
                at: it.unix_nanos / 1_000_000,
                instance: slot(&it.service, it.instance),
                stream: it.stream.word(),
                line: it.text,
            };
            crate::logs::newest(&folder, service, max).into_iter().map(line).collect()
        })
    }
}

/// Runs it on a thread of its own for as long as we live.
fn on_its_own(name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(work);
        }
    });
    started.map(drop).map_err(io("cannot start the API"))
}

fn random_token() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
