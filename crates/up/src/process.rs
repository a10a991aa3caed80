//! Real processes: starting them so that they cannot be forgotten, and ending them so that nobody else is hit.
//!
//! Three things make sure nothing is left behind, each for the case the others miss:
//! - every service has its own process group, and the whole group is signalled;
//! - a service dies with its parent: the [`trampoline`] asks the kernel for that between fork and exec, in our own
//!   binary, because doing it in the forked child needs code that may not allocate;
//! - what leaves its group (a daemon that forks away) is adopted by us as the nearest subreaper, and found by the
//!   mark every service inherits in its environment ([`MARK`]).
//!
//! **A pid is only a name while nobody has waited for it.** A process that ended keeps its pid, and its group id,
//! until it is reaped. So the end is *seen* through a pidfd, the group is killed while the dead leader still holds the
//! number, and only then is it reaped: no signal can reach a stranger who got the same number.
//!
//! Start processes only from a thread that lives as long as isobar: "dies with its parent" means the parent *thread*.

use crate::environment::Environment;
use crate::supervisor::Exit;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process_group, pidfd_open, pidfd_send_signal,
    waitpid,
};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::unix::AsyncFd;

/// The variable whose value (`run/instance`) marks everything a run of isobar started, however far it forked away.
pub const MARK: &str = "ISOBAR_MARK";
/// First argument of our own binary when it is to become a service.
pub const TRAMPOLINE: &str = "__child";

/// Everything that is needed to start one process.
#[derive(Clone, Debug)]
pub struct Launch {
    pub words: Vec<String>,
    pub dir: PathBuf,
    pub environment: Environment,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the folder `{0}` does not exist")]
    NoFolder(PathBuf),
    #[error("no program is called `{0}` (looked in PATH)")]
    NotInPath(String),
    #[error("`{0}` does not exist")]
    NoFile(PathBuf),
    #[error("`{0}` may not be executed; try `chmod +x`")]
    NotExecutable(PathBuf),
    #[error("cannot start `{program}`: {source}")]
    Spawn { program: String, source: std::io::Error },
}

/// A running process, the leader of its own group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    ended: AsyncFd<OwnedFd>,
    reaped: bool,
}

/// What a process says. Both ends are bounded by the pipe: a service that talks faster than we write waits.
#[derive(Debug)]
pub struct Output {
    pub out: ChildStdout,
    pub err: ChildStderr,
}

/// Starts a process. `trampoline` is our own binary; without one (in tests) the process does not die with us.
pub fn launch(launch: &Launch, trampoline: Option<&Path>) -> Result<(Process, Output), LaunchError> {
    if !launch.dir.is_dir() {
        return Err(LaunchError::NoFolder(launch.dir.clone()));
    }
    let name = launch.words.first().map_or("", String::as_str);
    let program = find_program(name, &launch.dir, launch.environment.get("PATH"))?;
    let mut command = match trampoline {
        Some(own) => {
            let mut command = Command::new(own);
            command.arg(TRAMPOLINE).arg(getpid().as_raw_nonzero().to_string()).arg(&program).arg(name);
            command
        }
        None => Command::new(&program),
    };
    command
        .args(&launch.words[1..])
        .env_clear()
        .envs(launch.environment.iter())
        .current_dir(&launch.dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let failed = |source| LaunchError::Spawn { program: name.to_owned(), source };
    let mut child = {
        // Held meanwhile: it may end before it is known.
        let mut leaders = leaders();
        let child = command.spawn().map_err(failed)?;
        leaders.insert(child.id());
        child
    };
    let pid = Pid::from_child(&child);
    let watch = || -> std::io::Result<AsyncFd<OwnedFd>> {
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        crate::readiness_fd::readable(fd)
    };
    let ended = match watch() {
        Ok(ended) => ended,
        Err(source) => {
            // It runs and cannot be watched: better not at all.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            leaders().remove(&child.id());
            return Err(failed(source));
        }
    };
    let output = Output {
        out: child.stdout.take().expect("stdout was asked to be a pipe"),
        err: child.stderr.take().expect("stderr was asked to be a pipe"),
    };
    Ok((Process { child, pid, ended, reaped: false }, output))
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// To everything in its group. Nothing happens once it was reaped.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped {
            // An error means that nobody is there any more, which is what a signal is for.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Waits for the end of the leader, then ends what is left of its group, then reaps it.
    pub async fn ended(&mut self) -> Exit {
        // The guard is dropped at once: a pidfd stays readable.
        let _ = self.ended.readable().await;
        self.signal(Signal::KILL);
        self.reaped = true;
        let status = self.child.wait();
        leaders().remove(&self.child.id());
        match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Code(-1),
            },
            Err(_) => Exit::Code(-1),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
            leaders().remove(&self.child.id());
        }
    }
}

/// Processes that somebody here waits for: services, builds, commands that ask how one is. Whoever reaps orphans must
/// know all of them, or it takes away the status that another waits for; so they are kept where processes are made.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn leaders() -> MutexGuard<'static, BTreeSet<u32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds what a shell would run, but says why when it finds nothing.
pub fn find_program(name: &str, dir: &Path, path: Option<&str>) -> Result<PathBuf, LaunchError> {
    use rustix::fs::{Access, access};
    if name.contains('/') {
        let file = dir.join(name);
        return match (file.is_file(), access(&file, Access::EXEC_OK)) {
            (true, Ok(())) => Ok(file),
            (true, Err(_)) => Err(LaunchError::NotExecutable(file)),
            (false, _) => Err(LaunchError::NoFile(file)),
        };
    }
    std::env::split_paths(path.unwrap_or("/usr/local/bin:/usr/bin:/bin"))
        .map(|folder| dir.join(folder).join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
        .ok_or_else(|| LaunchError::NotInPath(name.to_owned()))
}

/// The other side of [`launch`]: our own binary, started as `isobar __child PARENT PROGRAM NAME ARGS...`, becomes the
/// service. Returns only when that failed.
pub fn trampoline(arguments: impl IntoIterator<Item = OsString>) -> std::io::Error {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|it| it.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program), Some(name)) = (parent, arguments.next(), arguments.next()) else {
        return std::io::Error::other("this word is isobar's own; it is not meant to be typed");
    };
    if let Err(error) = die_with_parent(parent, Signal::KILL) {
        return error;
    }
    Command::new(program).arg0(name).args(arguments).exec()
}

/// Asks the kernel to send `signal` to us when our parent ends; fails if it already has.
pub fn die_with_parent(parent: i32, signal: Signal) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // It may have ended between the fork and the line above; then nobody will ever tell us.
    match getppid() {
        Some(now) if now.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(std::io::Error::other("isobar ended while this process was being started")),
    }
}

/// Orphans below us become our children, wherever they forked away to.
pub fn adopt_orphans() -> std::io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// A process found by looking around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pid: i32,
    pub parent: i32,
    /// When it started, in clock ticks since boot: a reused pid has another one.
    pub started: u64,
    pub zombie: bool,
}

/// All processes of this machine that we may see.
pub fn all_processes() -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(find_process)
        .collect()
}

pub fn find_process(pid: i32) -> Option<Found> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces and brackets itself; what follows the last one is plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Found { pid, parent, started, zombie })
}

/// Does this process carry our mark, with a value that begins like this?
pub fn is_marked(pid: i32, value_prefix: &str) -> bool {
    let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARK}={value_prefix}");
    environ.split(|byte| *byte == 0).any(|it| it.starts_with(wanted.as_bytes()))
}

/// Those that carry it, however far they forked away.
pub fn marked(value_prefix: &str) -> Vec<i32> {
    let all = all_processes().into_iter().filter(|it| !it.zombie && is_marked(it.pid, value_prefix));
    all.map(|it| it.pid).collect()
}

/// Kills exactly this process: the pid is pinned by a pidfd before it is looked at once more.
pub fn kill_exactly(found: &Found) -> bool {
    let Some(pid) = Pid::from_raw(found.pid) else { return false };
    let Ok(pinned) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    match find_process(found.pid) {
        Some(now) if now.started == found.started => pidfd_send_signal(&pinned, Signal::KILL).is_ok(),
        _ => false,
    }
}

/// Kills what carries a mark beginning with `value_prefix`, except for the `known` leaders; says how many.
///
/// A stray may fork while we look, so this looks again until it finds nobody, a bounded number of times.
pub fn kill_marked(value_prefix: &str, known: &[u32]) -> usize {
    let mut killed = 0;
    for _ in 0..20 {
        let strays: Vec<Found> = all_processes()
            .into_iter()
            .filter(|it| !it.zombie && it.pid > 0 && !known.contains(&(it.pid as u32)))
            .filter(|it| it.pid != getpid().as_raw_nonzero().get() && is_marked(it.pid, value_prefix))
            .collect();
        if strays.is_empty() {
            break;
        }
        killed += strays.iter().filter(|it| kill_exactly(it)).count();
    }
    reap_orphans();
    killed
}

/// Reaps adopted children that ended, but never those that somebody waits for.
pub fn reap_orphans() {
    let me = getpid().as_raw_nonzero().get();
    for found in all_processes() {
        if found.parent == me && found.zombie && !leaders().contains(&(found.pid as u32)) {
            let _ = waitpid(Pid::from_raw(found.pid), WaitOptions::NOHANG);
        }
    }
}

/// Kills every descendant of this process and reaps it, until there is none. For the keeper, whose only child is the
/// isobar that just ended.
pub fn kill_descendants() {
    let me = getpid().as_raw_nonzero().get();
    for _ in 0..1_000 {
        let children: Vec<Found> = all_processes().into_iter().filter(|it| it.parent == me).collect();
        if children.is_empty() {
            return;
        }
        for found in &children {
            if !found.zombie {
                kill_exactly(found);
            }
            let _ = waitpid(Pid::from_raw(found.pid), WaitOptions::empty());
        }
    }
}

/// Is this one of our own words, and not a person's?
pub fn is_trampoline(first: Option<&OsStr>) -> bool {
    first.is_some_and(|it| it.as_bytes() == TRAMPOLINE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn shell(script: &str, mark: &str) -> Launch {
        let mut environment = Environment::default();
        environment.set("PATH", "/usr/bin:/bin");
        environment.set(MARK, mark);
        Launch {
            words: vec!["sh".into(), "-c".into(), script.into()],
            dir: std::env::temp_dir(),
            environment,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future)
    }

    fn is_gone(pid: i32) -> bool {
        find_process(pid).is_none_or(|it| it.zombie)
    }

    #[test]
    fn the_exit_is_told_as_it_was() {
        for (script, expected) in
            [("exit 3", Exit::Code(3)), ("kill -9 $$", Exit::Signal(9)), ("true", Exit::Code(0))]
        {
            let got = run(async {
                let (mut process, _output) = launch(&shell(script, "t/exit"), None).expect("it starts");
                process.ended().await
            });
            assert_eq!(got, expected, "{script}");
        }
    }

    #[test]
    fn whoever_reaps_orphans_leaves_the_others_their_exit() {
        run(async {
            let (mut process, _output) = launch(&shell("exit 3", "t/reaped"), None).expect("it starts");
            let pid = process.pid() as i32;
            while !find_process(pid).is_some_and(|it| it.zombie) {
                std::thread::yield_now();
            }
            reap_orphans();
            assert_eq!(process.ended().await, Exit::Code(3));
            assert!(!leaders().contains(&(pid as u32)), "it is nobody's any more");
        });
    }

    #[test]
    fn the_whole_group_ends_with_its_leader() {
        run(async {
            let (mut process, mut output) =
                launch(&shell("sleep 1000 & echo $!; exit 0", "t/group"), None).expect("it starts");
            assert_eq!(process.ended().await, Exit::Code(0));
            let mut said = String::new();
            output.out.read_to_string(&mut said).expect("the pipe ends with the group");
            let pid: i32 = said.trim().parse().expect("a pid");
            // The pipe is at its end, so the child has let go of it: it is dead or dying of a signal already sent.
            while !is_gone(pid) {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_child_that_forks_away_is_found_by_its_mark() {
        run(async {
            let script = "setsid sh -c 'echo $$; exec sleep 1000' & exit 0";
            let (mut process, mut output) = launch(&shell(script, "t-away/x"), None).expect("it starts");
            let mut byte = [0];
            let mut said = Vec::new();
            while output.out.read(&mut byte).is_ok_and(|n| n == 1) && byte[0] != b'\n' {
                said.push(byte[0]);
            }
            process.ended().await;
            let pid: i32 = String::from_utf8(said).expect("digits").parse().expect("a pid");
            assert!(!is_gone(pid), "it left its group, so the group's end did not end it");
            assert!(kill_marked("t-away/", &[]) >= 1);
            while !is_gone(pid) {
                std::thread::yield_now();
            }
            assert_eq!(kill_marked("t-away/", &[]), 0);
        });
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("plain"), "").expect("a file");
            let error = find_program(name, folder.path(), Some("/usr/bin:/bin")).expect_err("nothing to run");
            assert!(error.to_string().contains(expected), "{error}");
        }
        check("no-such-program", "no program is called `no-such-program`");
        check("./absent", "does not exist");
        check("./plain", "chmod +x");
    }
}
