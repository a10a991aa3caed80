//! The words between the supervisor and its edge: what is wanted, what happened, what to do, what to tell.

use units::Nanos;

/// One life of one instance. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// What is wanted of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub name: String,
    pub instances: u32,
    /// Runs to its end; exit 0 is success.
    pub job: bool,
    /// A command runs first whenever new code should run.
    pub build: bool,
    pub needs: Vec<Need>,
    /// Without a check a started instance is a healthy one.
    pub checked: bool,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
    /// How long a start may take; an instance that is unhealthy for as long is replaced.
    pub startup: Nanos,
    /// Between the polite signal and the hard one.
    pub stop_timeout: Nanos,
    /// Between leaving the balancers and the polite signal, so that requests on their way still arrive.
    pub drain: Nanos,
    /// It insists on a port of its own, so the old instance must be gone before the new one starts.
    pub exclusive: bool,
    /// Changes when the service must be started anew to be as wanted: a hash of its command, environment, behaviour.
    pub fingerprint: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub service: String,
    pub until: Until,
    /// For people: "it calls db", "needs: db".
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Started,
    Healthy,
    Completed,
    /// Its own build has ended well.
    Built,
}

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
            Self::Built => "built",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(9) => write!(f, "signal 9 (killed)"),
            Self::Signal(11) => write!(f, "signal 11 (segmentation fault)"),
            Self::Signal(15) => write!(f, "signal 15 (terminated)"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The process runs.
    Started(Key),
    /// It could not be started at all.
    StartFailed(Key, String),
    Exited(Key, Exit),
    /// A readiness or liveness check answered. Checks run for as long as the instance does.
    Health(Key, Result<(), String>),
    Built(String, Result<(), String>),
    /// The person restarts, stops or starts a service.
    Restart(String),
    Stop(String),
    Start(String),
    /// Its source changed: build if there is a build, then replace one instance after another.
    Replace(String),
    /// Everything stops, dependents first.
    Shutdown,
    /// The person is impatient: everything stops hard and now.
    ShutdownNow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Build(String),
    /// Start the process (or the synthetic instance) of this slot, and its checks.
    Start {
        key: Key,
        service: String,
        index: u32,
    },
    /// It is ready: let traffic come.
    Admit(Key),
    /// No new traffic; what is on its way may finish.
    Retire(Key),
    /// The polite signal, to the whole group.
    Terminate(Key),
    /// The hard signal, to the whole group.
    Kill(Key),
    Tell(Notice),
    /// Everything is gone.
    Finished,
}

/// Something a person may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Waiting {
        instance: String,
        on: Vec<Awaited>,
    },
    Building {
        service: String,
    },
    BuildFailed {
        service: String,
        detail: String,
        kept: bool,
    },
    Ready {
        instance: String,
        after: Nanos,
    },
    Unhealthy {
        instance: String,
        detail: String,
    },
    Recovered {
        instance: String,
    },
    /// It ended, and not by anybody's wish; it is started again after `pause`.
    Crashed {
        instance: String,
        how: How,
        detail: String,
        pause: Nanos,
        attempt: u32,
    },
    /// It ended by itself once too often. The edge adds the last lines of its output.
    GaveUp {
        instance: String,
        key: Key,
        detail: String,
        attempts: u32,
    },
    Completed {
        job: String,
    },
    Stopped {
        instance: String,
        hard: bool,
    },
}

/// What a failed life was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There was no process at all.
    NeverRan,
    /// It ended by itself.
    Ended,
    /// It was ended because it was not well.
    PutDown,
}

/// Something an instance waits for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    pub service: String,
    pub until: Until,
    pub why: String,
    /// The state it is in now: "starting", "failed: exit status 1".
    pub state: String,
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.until == Until::Built {
            return write!(f, "its build, which {}", self.state);
        }
        write!(f, "{} to be {} ({}, it is {})", self.service, self.until, self.why, self.state)
    }
}
