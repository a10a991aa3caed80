//! A changed file or source: planned, the plan told, then carried out; a file with mistakes is refused whole.

use super::Reload;
use super::{Runner, Say, watch};
use crate::plan;
use crate::supervisor::Event;
use control::map::Map;
use model::system::System;
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
        let before = plan::wanted(&self.system, &self.options.without);
        let after = plan::wanted(&system, &self.options.without);
        let plan = watch::differences(&before, &after);
        self.system = Rc::new(system);
        let map = Map::of(&self.system, (self.options.today)(), Some(&self.watched.map()));
        self.maps.send_replace(Arc::new(map));
        let told = if plan.is_empty() {
            "only policies, routes or words changed".to_owned()
        } else {
            plan.join("; ")
        };
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
