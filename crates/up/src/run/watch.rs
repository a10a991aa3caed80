//! Seeing that the file or a service's source changed, and saying what that means.
//!
//! By comparing sizes and moments of change, ten times a second for the file and twice for sources: it works for editors that replace files, for links, for
//! network drives and for containers alike, and a thousand files cost a millisecond. Folders that no one edits by hand
//! are not walked.

use crate::plan;
use crate::supervisor::Wanted;
use model::system::System;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Files looked at for each service. More are not a source folder but a disk.
const FILES_MAX: usize = 5_000;
const NOT_WALKED: [&str; 8] =
    [".git", "target", "node_modules", ".venv", "__pycache__", "dist", "build", ".isobar"];

/// Of each file: its length and its moment of change.
type Look = BTreeMap<PathBuf, (u64, u64)>;

#[derive(Debug)]
pub(super) struct Watcher {
    files: Vec<PathBuf>,
    file_look: Look,
    /// By service: the folders and files it watches, and how they looked.
    services: BTreeMap<String, (Vec<PathBuf>, Look)>,
    /// A change is taken when it has been quiet for one look: editors write in several steps.
    pending_file: bool,
    pending_services: BTreeSet<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) file: bool,
    pub(super) services: Vec<String>,
}

impl Watcher {
    pub(super) fn new(system: &System, folder: &Path, files: Vec<PathBuf>) -> Self {
        let mut watcher = Self {
            files: Vec::new(),
            file_look: Look::new(),
            services: BTreeMap::new(),
            pending_file: false,
            pending_services: BTreeSet::new(),
        };
        watcher.follow(system, folder, files);
        watcher
    }

    pub(super) fn follow_files(&mut self, files: Vec<PathBuf>) {
        self.file_look = look_at(&files);
        self.files = files;
    }

    pub(super) fn follow(&mut self, system: &System, folder: &Path, files: Vec<PathBuf>) {
        self.follow_files(files);
        let mut services = BTreeMap::new();
        for service in system.services.iter() {
            let Some(run) = &service.run else { continue };
            if run.watch.is_empty() || !plan::runs_here(service) {
                continue;
            }
            let base = run.dir.as_ref().map_or_else(|| folder.to_owned(), |dir| folder.join(dir));
            let paths: Vec<PathBuf> = run.watch.iter().map(|it| base.join(it)).collect();
            let look = match self.services.remove(&service.name.value) {
                Some((old, look)) if old == paths => look,
                _ => look_at(&paths),
            };
            services.insert(service.name.value.clone(), (paths, look));
        }
        self.services = services;
    }

    /// Looks at the file, and at the `sources` of services when it is their turn.
    pub(super) fn look(&mut self, sources: bool) -> Seen {
        let mut seen = Seen::default();
        let look = look_at(&self.files);
        if look != self.file_look {
            self.file_look = look;
            self.pending_file = true;
        } else if std::mem::take(&mut self.pending_file) {
            seen.file = true;
        }
        if !sources {
            return seen;
        }
        for (service, (paths, before)) in &mut self.services {
            let look = look_at(paths);
            if look != *before {
                *before = look;
                self.pending_services.insert(service.clone());
            } else if self.pending_services.remove(service) {
                seen.services.push(service.clone());
            }
        }
        seen
    }
}

fn look_at(paths: &[PathBuf]) -> Look {
    let mut look = Look::new();
    let mut stack: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = stack.pop() {
        if look.len() >= FILES_MAX {
            break;
        }
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            let walked = |path: &PathBuf| {
                path.file_name().and_then(|it| it.to_str()).is_none_or(|name| !NOT_WALKED.contains(&name))
            };
            stack.extend(entries.flatten().map(|entry| entry.path()).filter(walked));
            continue;
        }
        let changed = metadata.modified().ok().and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let nanos = changed.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX));
        look.insert(path, (metadata.len(), nanos));
    }
    look
}

/// The plan of a changed file, a phrase for each service that something happens to.
pub(super) fn differences(before: &[Wanted], after: &[Wanted]) -> Vec<String> {
    let old: BTreeMap<&str, &Wanted> = before.iter().map(|it| (it.name.as_str(), it)).collect();
    let new: BTreeMap<&str, &Wanted> = after.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut plan = Vec::new();
    for (name, it) in &new {
        match old.get(name) {
            None => plan.push(format!("{name} starts ({})", it.instances)),
            Some(before) => {
                if before.fingerprint != it.fingerprint {
                    plan.push(format!("{name} is replaced, one instance after another"));
                }
                if before.instances != it.instances {
                    plan.push(format!("{name} goes from {} to {} instances", before.instances, it.instances));
                }
            }
        }
    }
    plan.extend(old.keys().filter(|it| !new.contains_key(*it)).map(|it| format!("{it} stops")));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_and_after_it_is_quiet() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("isobar.yaml");
        std::fs::write(&file, "a").expect("a file");
        std::fs::create_dir_all(folder.path().join("src/target")).expect("a folder");
        let text = "isobar: 1\nservices:\n  web: {run: {command: ./web, watch: [src]}}\n";
        let system = model::load::load_str(text).into_system().expect("a good file");
        let mut watcher = Watcher::new(&system, folder.path(), vec![file.clone()]);
        assert_eq!(watcher.look(true), Seen::default());
        std::fs::write(&file, "ab").expect("a file");
        std::fs::write(folder.path().join("src/main.py"), "x").expect("a file");
        std::fs::write(folder.path().join("src/target/big"), "x").expect("a file");
        assert_eq!(watcher.look(true), Seen::default(), "it may still be being written");
        assert_eq!(watcher.look(true), Seen { file: true, services: vec!["web".into()] });
        assert_eq!(watcher.look(true), Seen::default());
        std::fs::write(folder.path().join("src/target/big"), "xyz").expect("a file");
        assert_eq!(
            (watcher.look(true), watcher.look(true)),
            (Seen::default(), Seen::default()),
            "nobody edits that by hand"
        );
    }

    #[test]
    fn a_plan_names_what_happens() {
        let wanted = |text: &str| {
            let system =
                model::load::load_str(&format!("isobar: 1\nservices:\n{text}")).into_system().expect("good");
            plan::wanted(&system, &BTreeSet::new())
        };
        let before = wanted("  web: {replicas: 2}\n  cart: {operations: {\"GET /\": 1ms}}\n  old: {}\n");
        let after = wanted("  web: {replicas: 3}\n  cart: {operations: {\"GET /\": 2ms}}\n  new: {}\n");
        assert_eq!(
            differences(&before, &after),
            [
                "cart is replaced, one instance after another",
                "new starts (1)",
                "web goes from 2 to 3 instances",
                "old stops"
            ]
        );
        assert!(differences(&after, &after).is_empty());
    }
}
