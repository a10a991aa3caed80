//! A changed file or source: planned, the plan told, then carried out; a file with mistakes is refused whole.

use super::Reload;
use super::{Runner, Say, watch};
use crate::plan;
use crate::supervisor::Event;
use control::compile::{Compiler, parties};
use control::map::Map;
use model::system::System;
use proxy::config::Config;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

impl Runner {
    pub(super) fn look_at_files(&mut self, watcher: &mut watch::Watcher, reload: &Reload, sources: bool) {
        let seen = watcher.look(sources);
        if seen.file {
            let (loaded, files) = reload();
            match loaded {
                Ok(system) => {
                    self.refused.clear();
                    self.take_over(system);
                    watcher.follow(&self.system, &self.folder_of_file(), files);
                }
                Err(mistakes) => {
                    (self.say)(Say::Problem(format!(
                        "{mistakes}\nthe file is refused whole; what runs stays as it is"
                    )));
                    self.refused = mistakes.lines().map(str::to_owned).collect();
                    self.record(
                        "the file",
                        "file",
                        &self.options.name,
                        "refused: it has mistakes".to_owned(),
                    );
                    watcher.follow_files(files);
                }
            }
        }
        for service in seen.services {
            let now = self.now();
            (self.say)(Say::Event(format!("{service} changed")));
            self.record("the files", "service", &service, "its source changed".to_owned());
            self.supervisor.on(now, Event::Replace(service));
        }
    }

    /// A changed file: the plan is told, then carried out.
    pub(super) fn take_over(&mut self, system: System) {
        let mut before = plan::wanted(&self.system, &self.options.without);
        // As many as there are: somebody may have asked for more or fewer, which the file now takes back.
        for it in &mut before {
            it.instances = self.supervisor.instances_wanted(&it.name).unwrap_or(it.instances);
        }
        let after = plan::wanted(&system, &self.options.without);
        let mut plan = watch::differences(&before, &after);
        let topology = self.topology();
        let compile = |system: &System| Compiler::default().compile(system, &topology);
        plan.extend(reconfigured(&compile(&self.system), &compile(&system)));
        self.system = Rc::new(system);
        let map = Map::of(&self.system, (self.options.today)(), Some(&self.watched.map()));
        self.maps.send_replace(Arc::new(map));
        let told = if plan.is_empty() { "nothing that runs is touched".to_owned() } else { plan.join("; ") };
        (self.say)(Say::Event(format!("the file changed: {told}")));
        self.record("the file", "file", &self.options.name, told);
        if let Err(error) = self.open_gateways() {
            (self.say)(Say::Problem(error.to_string()));
        }
        self.say_who_is_checked();
        let now = self.now();
        self.supervisor.want(now, after);
        if let Err(error) = self.open_doors() {
            (self.say)(Say::Problem(error.to_string()));
        }
        self.dirty = true;
        self.apply_and_say();
    }
}

/// What the proxy does differently in the same world: the gateways and the policies that are not as they were.
fn reconfigured(before: &Config, after: &Config) -> Vec<String> {
    let mut plan = BTreeSet::new();
    for new in &after.listeners {
        let old = before.listeners.iter().find(|it| it.name == new.name);
        if !new.name.contains("->") && old.is_some_and(|old| old != new) {
            plan.insert(format!("gateway {} is reconfigured", new.name));
        }
    }
    for new in &after.edges {
        let old = before.edges.iter().find(|it| it.name == new.name);
        if let (Some(old), Some((caller, callee))) = (old, parties(&new.name))
            && old.settings != new.settings
        {
            plan.insert(format!("the policy of {caller} -> {callee} changes"));
        }
    }
    plan.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::compile::{Door, Topology};

    #[test]
    fn a_plan_says_what_is_reconfigured() {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let door = Door {
            caller: Some("web".into()),
            slot: "web#0".into(),
            region: "local".into(),
            zone: "a".into(),
            callee: "cart".into(),
            address: address(1),
        };
        let topology = Topology {
            doors: vec![door],
            gateways: [("edge".to_owned(), address(2))].into(),
            ..Topology::default()
        };
        let compile = |timeout: &str, path: &str| {
            let text = format!(
                "isobar: 1\nservices: {{web: {{operations: {{\"GET /\": {{calls: [cart]}}}}}}, cart: {{}}}}\nedges: {{web -> cart: {{timeout: {timeout}}}}}\ngateways: {{edge: {{listen: \"127.0.0.1:2\", routes: [{{path: {path}, to: web}}]}}}}\n"
            );
            let system = model::load::load_str(&text).into_system().expect("a good file");
            Compiler::default().compile(&system, &topology)
        };
        let before = compile("1s", "/");
        assert_eq!(reconfigured(&before, &compile("1s", "/")), Vec::<String>::new());
        assert_eq!(reconfigured(&before, &compile("2s", "/")), ["the policy of web -> cart changes"]);
        assert_eq!(reconfigured(&before, &compile("1s", "/shop")), ["gateway edge is reconfigured"]);
    }
}
