//! The folder of a run: who holds it, where its API is, what it said.
//!
//! One folder for each name under the user's state folder, held by a lock that the kernel gives back when its holder
//! ends, however it ends. So a folder whose lock is free is nobody's, whatever lies in it, and the next run heals it.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a command needs to find a running isobar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub name: String,
    pub system: String,
    pub file: PathBuf,
    pub pid: u32,
    /// `http://127.0.0.1:20417`
    pub api: String,
    pub token: String,
}

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// The lock of a folder. Dropping it lets go.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error(
        "`{name}` is running already{by}; `isobar down` ends it, and `--name` starts a second copy beside it"
    )]
    Running { name: String, by: String },
    // Not called `source`: then whoever prints the whole chain would say it twice.
    #[error("cannot use the state folder `{path}`: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Where all runs of this user live: `$ISOBAR_STATE`, or `isobar` in the user's state folder.
pub fn root() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    set("ISOBAR_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|it| it.join("isobar")))
        .or_else(|| set("HOME").map(|it| it.join(".local/state/isobar")))
        .unwrap_or_else(|| std::env::temp_dir().join("isobar"))
}

impl Folder {
    pub fn new(root: &Path, name: &str) -> Self {
        Self { path: root.join(name) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Stands for this folder in the marks of its processes.
    pub fn mark(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    pub fn hold(&self) -> Result<Held, HoldError> {
        let failed = |error| HoldError::Io { path: self.path.clone(), error };
        // The token lies in here, and what services say: nobody else's business.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Held { _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let name =
                    self.path.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
                let by = self
                    .found()
                    .map_or_else(String::new, |it| format!(" (process {}, {})", it.pid, it.file.display()));
                Err(HoldError::Running { name, by })
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Is somebody holding it now?
    pub fn is_held(&self) -> bool {
        let Ok(lock) = File::open(self.path.join("lock")) else { return false };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Says where we are; all at once, so that nobody reads half of it.
    pub fn publish(&self, found: &Found) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(found)?;
        let new = self.path.join("run.json.new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&text).inspect_err(|_| drop(std::fs::remove_file(&new)))?;
        std::fs::rename(new, self.path.join("run.json"))
    }

    pub fn withdraw(&self) {
        let _ = std::fs::remove_file(self.path.join("run.json"));
    }

    pub fn found(&self) -> Option<Found> {
        serde_json::from_slice(&std::fs::read(self.path.join("run.json")).ok()?).ok()
    }
}

/// Every run that is alive, in the order of names.
pub fn running(root: &Path) -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<Found> = entries
        .flatten()
        .filter_map(|entry| {
            let folder = Folder { path: entry.path() };
            if folder.is_held() { folder.found() } else { None }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_is_free_when_that_ends() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path(), "shop");
        let held = folder.hold().expect("it is free");
        assert!(running(root.path()).is_empty(), "it has not said yet where it is");
        let found = Found {
            name: "shop".into(),
            system: "shop".into(),
            file: "isobar.yaml".into(),
            pid: 7,
            api: "http://127.0.0.1:1".into(),
            token: "t".into(),
        };
        folder.publish(&found).expect("it can be written");
        let error = folder.hold().expect_err("it is held").to_string();
        assert!(
            error.contains("`shop` is running already (process 7") && error.contains("--name"),
            "{error}"
        );
        assert_eq!(running(root.path()), [found]);
        drop(held);
        assert!(running(root.path()).is_empty(), "what a dead run said is not believed");
        folder.hold().expect("it is free again");
    }
}
