//! What people and programs wish for over the API.

use super::{Runner, slot};
use crate::plan;
use crate::supervisor::Event;
use control::api::{Command, Refusal, Request};
use model::resolve::suggestion;
use serde_json::{Value, json};

impl Runner {
    pub(super) fn on_wish(&mut self, wish: Request) {
        let answer = self.answer(&wish.who, wish.what);
        self.unpublished = true;
        // Carried out and published before it is answered: whoever asks next how things are sees what was done.
        self.pump();
        // Whoever asked may have given up.
        let _ = wish.reply.send(answer);
    }

    fn answer(&mut self, who: &str, what: Command) -> Result<Value, Refusal> {
        let now = self.now();
        match what {
            Command::Restart(name) => self.order(who, &name, "restart", Event::Restart(name.clone())),
            Command::Stop(name) => self.order(who, &name, "stop", Event::Stop(name.clone())),
            Command::Start(name) => self.order(who, &name, "start", Event::Start(name.clone())),
            Command::Scale(name, instances) => {
                self.known(&name)?;
                if instances > 1_000 {
                    return Err(Refusal::wrong(
                        "more than 1000 instances of one service are a slip of the finger",
                    ));
                }
                self.record(who, "service", &name, format!("scale to {instances}"));
                self.supervisor.scale(now, &name, instances);
                self.ready_told.remove(&name);
                self.open_doors().map_err(|error| Refusal { status: 507, message: error.to_string() })?;
                self.apply_and_say();
                Ok(json!({"service": name, "instances": instances}))
            }
            Command::Down => {
                self.record(who, "system", &self.options.name, "down".to_owned());
                self.supervisor.on(now, Event::Shutdown);
                Ok(json!({}))
            }
            Command::Environment(name) => {
                self.known(&name)?;
                let system = std::rc::Rc::clone(&self.system);
                let Some(service) = self.find(&name).map(|id| &system.services[id]) else {
                    return Err(Refusal::not_found("it is no longer in the file"));
                };
                let seat = plan::seat(&system, service, 0);
                // A synthetic service has doors and a place, too: a command can be tried where it would stand.
                let idle = idle_run();
                let run = plan::run_of(service, &seat.version).unwrap_or(&idle);
                let port = self
                    .live
                    .values()
                    .find(|it| it.service == name && it.index == 0)
                    .and_then(|it| it.address);
                let environment = self
                    .environment(service, run, 0, port, &seat)
                    .map_err(|message| Refusal { status: 409, message })?;
                let variables: serde_json::Map<String, Value> =
                    environment.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
                let folder = self.folder_of_file();
                let dir = run.dir.as_ref().map_or(folder.clone(), |dir| folder.join(dir));
                let dir = std::path::absolute(&dir).unwrap_or(dir);
                Ok(json!({"instance": slot(&name, 0), "dir": dir, "variables": variables}))
            }
            Command::Snapshot => Ok(json!({"text": self.snapshot_text()})),
            Command::Traffic(name, change) => self.change_traffic(who, &name, &change),
            Command::Scenarios => Ok(self.scenario_list()),
            Command::ScenarioStart(name, order) => self.start_scenario(who, &name, &order),
            Command::ScenarioRenew(id) => self.renew_scenario(&id),
            Command::ScenarioStop(id) => self.stop_scenarios(who, id.as_deref()),
            Command::ScenarioReport(id) => self.scenario_progress(&id, true),
        }
    }

    fn order(&mut self, who: &str, name: &str, word: &str, event: Event) -> Result<Value, Refusal> {
        self.known(name)?;
        self.record(who, "service", name, word.to_owned());
        let now = self.now();
        self.supervisor.on(now, event);
        Ok(json!({"service": name}))
    }

    fn known(&self, name: &str) -> Result<(), Refusal> {
        if self.supervisor.instances_wanted(name).is_some() {
            return Ok(());
        }
        let known: Vec<&str> = self.supervisor.services().map(|it| it.name.as_str()).collect();
        // `web#1` is an instance, and these words are for services.
        if let Some((service, _)) = name.split_once('#').filter(|(service, _)| known.contains(service)) {
            return Err(Refusal::not_found(format!(
                "`{name}` is an instance; this is for whole services: `{service}`"
            )));
        }
        let suggestion = suggestion(name, &known);
        Err(Refusal::not_found(format!("no service here is called `{name}`; {suggestion}")))
    }

    fn snapshot_text(&self) -> String {
        let mut compiler = control::compile::Compiler::default();
        format!("{:#?}", compiler.compile(&self.system, &self.topology()))
    }
}

fn idle_run() -> model::system::Run {
    model::system::Run {
        command: model::span::At::new(String::new(), model::span::Span::default()),
        shell: false,
        dir: None,
        env: indexmap::IndexMap::default(),
        env_files: Vec::new(),
        build: None,
        watch: Vec::new(),
        job: false,
        port: None,
        stop_timeout: units::Nanos::ZERO,
    }
}
