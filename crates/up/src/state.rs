//! The folder of a run: who holds it, where its API is, what it said.
//!
//! One folder for each name under the user's state folder, held by a lock that the kernel gives back when its holder
//! ends, however it ends. So a folder whose lock is free is nobody's, whatever lies in it, and the next run heals it.

use crate::environment::os_words;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
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

/// Bytes of a run's own words in the background that are kept before the file is turned over. The one before it is kept
/// as well, so a run that says something every second remembers its last days.
pub const OUTPUT_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// The lock of a folder. Dropping it lets go.
#[derive(Debug)]
pub struct Held {
    lock: File,
}

impl Held {
    /// Is it still this folder's? Whoever deletes the folder takes its lock out of everybody's sight, and others may
    /// hold a new one.
    pub fn is_of(&self, folder: &Folder) -> bool {
        let (Ok(held), Ok(named)) = (self.lock.metadata(), std::fs::metadata(folder.path.join("lock")))
        else {
            return false;
        };
        (held.dev(), held.ino()) == (named.dev(), named.ino())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error(
        "`{name}` is running already{by}; `isobar down` ends it, and `--name` starts a second copy beside it"
    )]
    Running { name: String, by: String },
    // Not called `source`: then whoever prints the whole chain would say it twice.
    #[error("cannot use the state folder `{path}`: {}; ISOBAR_STATE names another", os_words(.error))]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the state folder `{path}` belongs to somebody else (user {owner}), who could change what is in it; ISOBAR_STATE names another"
    )]
    Others { path: PathBuf, owner: u32 },
}

/// Where all runs of this user live: `$ISOBAR_STATE`, or `isobar` in the user's state folder.
pub fn root() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    set("ISOBAR_STATE")
        .or_else(|| set("XDG_STATE_HOME").map(|it| it.join("isobar")))
        .or_else(|| set("HOME").map(|it| it.join(".local/state/isobar")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("isobar-{}", us())))
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
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

    /// Where a run in the background says what it has to say.
    pub fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// Makes that file, empty. On a full disk it can be made and not written: said here, because there it could not be.
    pub fn open_output(&self) -> io::Result<File> {
        // Appending, so that everybody who holds it writes at its end, wherever that is by then.
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.output())?;
        file.set_len(0)?;
        file.write_all(b"\n")?;
        file.set_len(0)?;
        Ok(file)
    }

    /// Turns that file over if it holds `max` bytes: what is in it becomes `output.1`, and it begins anew. Its writers
    /// hold it open and go on with the same file, so it is emptied and not renamed. `false`: `words` are somebody else's file.
    pub fn turn_over(&self, words: &File, max: u64) -> bool {
        let path = self.output();
        let (Ok(held), Ok(named)) = (words.metadata(), std::fs::metadata(&path)) else { return false };
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return false;
        }
        if held.len() >= max {
            let old = self.path.join("output.1");
            // Where there is no room for the old, having it bounded is worth more than having it.
            if std::fs::copy(&path, &old).is_err() {
                let _ = std::fs::remove_file(&old);
            }
            let _ = words.set_len(0);
        }
        true
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
        // Where everybody may make folders, the one above it is looked at, too.
        let above = self.path.parent().filter(|it| it.parent() == Some(&std::env::temp_dir()));
        for path in [Some(self.path.as_path()), above].into_iter().flatten() {
            let owner = std::fs::metadata(path).map_err(failed)?.uid();
            if owner != us() {
                return Err(HoldError::Others { path: path.to_owned(), owner });
            }
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Held { lock }),
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
    fn a_folder_of_somebody_else_is_not_used() {
        if us() != 0 {
            eprintln!("skipped: only root can give a folder away");
            return;
        }
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path(), "shop");
        std::fs::create_dir(folder.path()).expect("it can be made");
        std::os::unix::fs::chown(folder.path(), Some(65_534), None).expect("root may");
        let error = folder.hold().expect_err("it is not ours").to_string();
        assert!(error.contains("belongs to somebody else (user 65534)"), "{error}");
        // Where everybody may make folders, whoever made the one around it could exchange it.
        let folder = Folder::new(root.path(), "cart");
        std::os::unix::fs::chown(root.path(), Some(65_534), None).expect("root may");
        assert!(matches!(folder.hold(), Err(HoldError::Others { .. })));
    }

    #[test]
    fn what_is_said_in_the_background_is_bounded() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path(), "shop");
        std::fs::create_dir(folder.path()).expect("it can be made");
        std::fs::write(folder.output(), "of the last run").expect("it can be written");
        let mut words = folder.open_output().expect("it can be made");
        let mut second = words.try_clone().expect("another handle");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        assert_eq!(read("output"), "");
        for n in 0..100 {
            let writer = if n % 2 == 0 { &mut words } else { &mut second };
            writeln!(writer, "line {n}").expect("it can be written");
            assert!(folder.turn_over(&words, 50));
        }
        // Seven lines of eight bytes fill fifty: 0 to 9 are shorter.
        let (now, before) = (read("output"), read("output.1"));
        assert!(now.len() < 50 && before.len() < 60, "{now}{before}");
        let last: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
        assert!(
            last.concat().ends_with(&format!("{before}{now}")),
            "nothing is lost in between: {before}{now}"
        );
        // Whoever is in the foreground, or lost the folder, has nothing to turn over.
        let other = File::create(root.path().join("other")).expect("a file");
        assert!(!folder.turn_over(&other, 0));
        std::fs::remove_dir_all(folder.path()).expect("it can be removed");
        assert!(!folder.turn_over(&words, 0));
    }

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
        assert!(held.is_of(&folder));
        drop(held);
        assert!(running(root.path()).is_empty(), "what a dead run said is not believed");
        let first = folder.hold().expect("it is free again");
        std::fs::remove_dir_all(folder.path()).expect("it can be removed");
        assert!(!first.is_of(&folder), "its folder is gone");
        let second = folder.hold().expect("it is made anew");
        assert!(second.is_of(&folder) && !first.is_of(&folder));
    }
}
